"""`sam2vss report`."""

from pathlib import Path

from ..errors import SettingsError
from .exit_codes import EXIT_DONE
from .run_folders import refuse_shards


def report(*runs: Path) -> int:
    """Write report.html of run folders again, also of unfinished ones.

    Parameters
    ----------
    runs
        Folders written by `refine` or `demo`.
    """
    from ..report import write_report

    if not runs:
        raise SettingsError("no run folder was given; pass the --out folder of a run")
    for run in runs:
        refuse_shards(run)
    reports = [write_report(run) for run in runs]
    for path in reports:
        print(path)
    return EXIT_DONE
