"""`sam2vss report`."""

from pathlib import Path

from ..errors import RunError, SettingsError
from .exit_codes import EXIT_DONE
from .run_folders import refuse_shards


def report(*runs: Path, markdown: Path | None = None) -> int:
    """Write the page of a run again, also of an unfinished one, or the tables, plots and page of a bench or ablation.

    Parameters
    ----------
    runs
        Folders written by `refine`, `classify`, `demo`, `bench` or `ablate`; with --markdown parts of a page: .md and
        .json files.
    markdown
        Write one Markdown page: texts (.md) word for word and stored scores (bench.json, ablate.json) as tables.
    """
    from ..boards.results_page import write_results
    from ..boards.writing import PAGE, is_board_folder, rewrite_board_files, unfinished_board
    from ..report import write_report

    if markdown is not None:
        write_results(runs, markdown)
        print(markdown)
        return EXIT_DONE
    if not runs:
        raise SettingsError("no run folder was given; pass the --out folder of a run")
    for run in runs:
        refuse_shards(run)
    pages = []
    for run in runs:
        if is_board_folder(run):
            rewrite_board_files(run)
            pages.append(run / PAGE)
        elif kind := unfinished_board(run):
            raise RunError(f"{run} holds an unfinished {kind} without scores: go on with `sam2vss {kind}` and --resume")
        else:
            pages.append(write_report(run))
    for path in pages:
        print(path)
    return EXIT_DONE
