"""`sam2vss ablate`."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import DEFAULT_SAM2, VoidPolicy
from .exit_codes import EXIT_DONE
from .options import Flag

if TYPE_CHECKING:
    from ..ablate.plan import AblationPlan
    from ..ablate.run import Progress
    from ..boards.scoreboard import Scoreboard

Table = Literal["4", "5", "6", "7", "ours"]


def ablate(
    data: Path,
    /,
    *,
    out: Path,
    labels: Path | None = None,
    segmenter: str | None = None,
    label_set: Path | None = None,
    id_offset: int | None = None,
    grid: Path | None = None,
    tables: Annotated[tuple[Table, ...], Parameter(consume_multiple=True, negative="")] = (),
    split: str | None = None,
    only: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    sam2: str = DEFAULT_SAM2,
    image_size: str | None = None,
    device: str = "auto",
    dtype: Literal["auto", "fastest", "float32", "bfloat16", "float16"] = "auto",
    protocol: str = "vspw",
    windows: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (8, 16),
    workers: int = 1,
    candidate_gb: float = 4.0,
    void: VoidPolicy | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    dry_run: Flag = False,
) -> int:
    """Try many settings of the refiner on the same clips, and compare them: the paper's Tables 4 to 7, and more.

    Parameters
    ----------
    data
        A data set with pictures and ground truth, such as VSPW.
    out
        Folder to write: tables, plots, counts, and a cache that an interrupted or another sweep goes on from.
    labels
        Base labels: a folder of label PNGs or panoptic predictions, as for refine --labels, or a run folder.
    segmenter
        Base labels by a model: alias, hub id, folder or checkpoint (.pth, with @clip, @frame or @stream as for refine
        --segmenter); `sam2vss models` lists them. Default without --labels: segformer-b2.
    label_set
        Names and ids of the ground truth (label_set.json); default: the data set's own.
    id_offset
        Added to every id in the label PNGs: 1 where they count from 0 and the label set from 1, as VSPW's does.
        Default: as the label set says; ids that look shifted are refused.
    grid
        YAML file of settings to try: base, axes (one at a time around the base), product (all combinations).
    tables
        Settings of the package to try: the paper's tables by number, and ours. Default without --grid: all of them.
    split
        Clips of this list of the data set; default: val where there is one, else all clips.
    only
        Take only these clips.
    sam2
        SAM 2 weights: alias, hub id, local folder, Meta's .pt file, or "nano" (bundled, small, for tests and demos).
    image_size
        Size that frames are stretched to before SAM 2, a side or WIDTHxHEIGHT in multiples of 32. Default: the model's.
    device
        auto, cpu, cuda, cuda:1, mps.
    dtype
        Number format of the networks; auto: float32 on a CPU, bfloat16 elsewhere. fastest: what the device does best.
    protocol
        Which published rule counts windows, clips and void.
    windows
        The n of mVC_n.
    workers
        Processes; each takes clips of its own.
    candidate_gb
        Room on the disk for mask candidates, which later sweeps in --out with other thresholds use again.
    void
        What becomes of pixels without a base label, in all rows: keep, nearest, previous or vote, as for refine;
        default: as the grid says. A grid may also have it as an axis.
    resume
        Go on with the ablation in --out; the grid may be another one.
    overwrite
        Replace the ablation in --out.
    dry_run
        Say what would be tried and how much of the work is shared, and do nothing.
    """
    from ..ablate.grid import built_in_grid, read_grid
    from ..ablate.plan import plan_ablation
    from ..console import print_problem
    from ..datasets.label_sets import find_label_space
    from ..refiner import parse_image_size

    if grid is not None and tables:
        raise SettingsError("--grid and --tables both say what to try: pass one of them")
    chosen = read_grid(grid) if grid is not None else built_in_grid(tables) if tables else built_in_grid()
    plan = plan_ablation(
        data,
        out,
        labels=labels,
        segmenter=segmenter,
        id_offset=id_offset,
        grid=chosen,
        label_set=None if label_set is None else find_label_space(label_set),
        split=split,
        only=only,
        sam2=sam2,
        image_size=parse_image_size(image_size),
        device=device,
        dtype=dtype,
        protocol=protocol,
        windows=windows,
        candidate_gb=candidate_gb,
        void=void,
    )
    if dry_run:
        _print_plan(plan)
        return EXIT_DONE
    from ..ablate.run import run_ablation

    with _bar() as progress:
        board = run_ablation(
            plan,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            command=shlex.join(["sam2vss", *sys.argv[1:]]),
        )
    _show(board, out)
    for warning in board.warnings:
        print_problem(warning)
    return EXIT_DONE


def _print_plan(plan: "AblationPlan") -> None:
    """Print clips and points, and how much of what they need is shared."""
    from ..ablate.forecast import ASSUMED_MASKLETS, forecast
    from ..console import print_rows

    extent = f"{len(plan.data.clips)} clips of {plan.data.title}, {plan.data.num_frames} frames"
    title = f"{extent}; {plan.sam2} on {plan.device}, {plan.dtype}"
    found = forecast(plan)
    rows = [["point", "windows", "masklets"]]
    rows += [[entry.name, str(entry.windows), entry.masklets] for entry in found.points]
    print_rows(rows, title)
    rows = [["work", "will be done", "separate runs", "ratio"]]
    rows += [[kind, f"{done}", f"{needed}", _ratio(done, needed)] for kind, (done, needed) in found.work.items()]
    print_rows(rows, f"what the network has to do, if it finds {ASSUMED_MASKLETS} masks on a frame")
    print(f"segmenter {plan.segmenter}" if plan.labels is None else f"labels    {plan.labels}")
    print(f"out       {plan.out}")


def _show(board: "Scoreboard", out: Path) -> None:
    """Write tables, plots and the page, then print the tables and what sharing saved."""
    from ..boards.tables import rich_rows
    from ..boards.writing import write_board_files
    from ..console import print_rows, stderr, stdout

    stderr.print("writing tables, plots and the page ...")
    files = write_board_files(board, out)  # all files come before stdout, which may be closed
    for table in rich_rows(board, stdout.width):
        print_rows(table.rows, table.title)
    rows = [["work", "done", "separate runs", "ratio"]]
    rows += [[kind, f"{done}", f"{needed}", _ratio(done, needed)] for kind, (done, needed) in board.work.items()]
    print_rows(rows, "what the network did, and what separate runs of all points need")
    for path in files:
        if path.suffix in (".html", ".md", ".csv", ".tex", ".json"):
            print(f"{path.suffix[1:]:<7} {path}")


def _ratio(done: int, needed: int) -> str:
    return f"{needed / done:.1f}" if done else "-"


@contextmanager
def _bar() -> "Iterator[Progress]":
    """Draw one bar on stderr with the time left."""
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..console import stderr

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, expand=True, disable=not stderr.is_terminal) as bars:
        task = bars.add_task("loading", total=None)

        def progress(done: float, total: float, clip: str) -> None:
            bars.update(task, completed=done, total=total, description=escape(clip))

        yield progress
