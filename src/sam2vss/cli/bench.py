"""`sam2vss bench`."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from ..errors import SettingsError
from ..settings import DEFAULT_SAM2, FollowSettings, MaskletSettings, Mode, Preset, VoteSettings
from .exit_codes import EXIT_DONE, EXIT_INCOMPLETE
from .options import Flag

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..bench import BenchPlan
    from ..bench.run import MakeProgress
    from ..bench.tasks import Task

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def bench(
    data: Path,
    /,
    *,
    out: Path,
    labels: Several = (),
    segmenter: Several = (),
    classifier: Several = (),
    fusion: Several = (),
    compare: Several = (),
    rows: Annotated[
        tuple[Literal["static", "flow", "superpixel", "sam2"], ...], Parameter(consume_multiple=True, negative="")
    ] = ("static", "flow", "superpixel", "sam2"),
    split: str | None = None,
    only: Several = (),
    label_set: str | None = None,
    prediction_label_set: str | None = None,
    id_offset: int | None = None,
    sam2: str = DEFAULT_SAM2,
    mode: Mode = "auto",
    preset: Preset = "paper",
    image_size: str | None = None,
    masklets: Annotated[MaskletSettings, Parameter(name="*")] = MaskletSettings(),  # noqa: B008 (frozen)
    follow: Annotated[FollowSettings, Parameter(name="*")] = FollowSettings(),  # noqa: B008 (frozen)
    votes: Annotated[VoteSettings, Parameter(name="*")] = VoteSettings(),  # noqa: B008 (frozen)
    device: str = "auto",
    dtype: Literal["auto", "fastest", "float32", "bfloat16", "float16"] = "auto",
    protocol: Literal["vspw", "cffm", "paper", "strict", "dvis-compat"] = "vspw",
    boundary: Literal["band", "full"] = "band",
    windows: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")] = (8, 16),
    curve: Flag = False,
    seed: int = 0,
    workers: int = 1,
    resume: Flag = False,
    overwrite: Flag = False,
    strict: Flag = False,
    dry_run: Flag = False,
) -> int:
    """Score base models, controls and SAM 2 side by side: the rows of the paper's Tables 1 to 3 for a data set.

    Every difference comes with its 95 % interval. A row that fails is named, and the others are made all the same.

    Parameters
    ----------
    data
        Data set with pictures and truth: VSPW, VIPSeg, or a folder in such a layout.
    out
        Folder for runs, counts, bench.json, tables, plots and report.html.
    labels
        Base labels in folders, NAME=DIR; NAME may be left out. Label PNGs or panoptic predictions, as for refine
        --labels.
    segmenter
        Base models to run, NAME=ID or ID: alias, hub id, folder or checkpoint (.pth, with @clip, @frame or @stream as
        for refine --segmenter); `sam2vss models` lists them.
    classifier
        Classifiers of masklets, NAME=PATH or PATH, as for `sam2vss classify`: rows I-NAME, and I-NAME_base over every
        base model.
    fusion
        Learned fusions, NAME=PATH or PATH, as for `refine --fusion`: a row of every base model.
    compare
        Labels made elsewhere, NAME=DIR, scored as rows of their own.
    rows
        What to make of every base model's labels.
    split
        List of clips, such as val; default: val where there is one, else all clips.
    only
        Take only these clips.
    label_set
        Names and ids of the truth: vspw, vipseg or a label_set.json; default: those of DATA.
    prediction_label_set
        The same for label folders without a label_set.json; default: those of the truth.
    id_offset
        Added to every id in such folders: 1 where they are 0-based and the truth is 1-based, as VSPW's is.
    sam2
        SAM 2 weights: alias, hub id, local folder, Meta's .pt file, or "nano" (bundled, small, for tests and demos).
    mode
        exact: SAM 2's memory, as in the paper. fast: masks of every frame, matched. prompt: SAM 2's decoder alone.
    preset
        A bundle of settings; single options override it. paper: exact. fast: mode fast. cpu: fast on small frames.
    image_size
        Size that frames are stretched to before SAM 2, a side or WIDTHxHEIGHT in multiples of 32. Default: the model's.
    device
        auto, cpu, cuda, cuda:1, mps.
    dtype
        Number format of the networks; auto: float32 on a CPU, bfloat16 elsewhere. fastest: what the device does best.
    protocol
        Which published rule counts windows, clips and void.
    boundary
        full: boundary scores at 2 % of the diagonal and boundary F as well.
    windows
        The n of mVC_n.
    curve
        Count mVC_n for n = 2..32 as well, for the plot.
    seed
        Seed of the bootstrap.
    workers
        Processes that share the rows.
    resume
        Go on with the bench in --out; models and rows may be added, and scores asked for in another way.
    overwrite
        Make everything in --out anew.
    strict
        Exit with 3 if a row failed.
    dry_run
        Say what would be run, and do nothing.
    """
    from ..bench import plan_bench, run_bench
    from ..bench.folder import describe_folder
    from ..boards.tables import rich_rows
    from ..boards.writing import write_board_files
    from ..console import print_problem, print_rows, stderr, stdout
    from ..datasets.label_sets import find_label_space
    from ..metrics import curve_windows, find_protocol
    from ..refiner import parse_image_size

    if curve and find_protocol(protocol).pools_shorter_windows:
        raise SettingsError(f"protocol {protocol} pools all n that are counted, so it has no curve: drop --curve")
    plan = plan_bench(
        data,
        out,
        labels={name: Path(text) for name, text in _named("--labels", labels)},
        segmenters=dict(_named("--segmenter", segmenter)),
        classifiers=dict(_named("--classifier", classifier)),
        fusions=dict(_named("--fusion", fusion)),
        compare={name: Path(text) for name, text in _named("--compare", compare)},
        rows=rows,
        label_set=None if label_set is None else find_label_space(label_set),
        prediction_label_set=None if prediction_label_set is None else find_label_space(prediction_label_set),
        id_offset=id_offset,
        split=split,
        only=only,
        protocol=protocol,
        boundary=boundary,
        windows=(*windows, *(curve_windows() if curve else ())),
        seed=seed,
        sam2=sam2,
        mode=mode,
        preset=preset,
        image_size=parse_image_size(image_size),
        masklets=masklets,
        follow=follow,
        votes=votes,
        device=device,
        dtype=dtype,
    )
    place = describe_folder(out, resume, overwrite)
    if dry_run:
        _print_plan(plan, place)
        return EXIT_DONE
    with _bars() as (progress, bars):
        board = run_bench(
            plan,
            resume=resume,
            overwrite=overwrite,
            workers=workers,
            progress=progress,
            say=lambda text: bars.console.print(text, markup=False, highlight=False),
            command=shlex.join(["sam2vss", *sys.argv[1:]]),
        )
    stderr.print("writing tables, plots and the page ...")
    files = write_board_files(board, out)  # all files come before stdout, which may be closed
    for table in rich_rows(board, stdout.width):
        print_rows(table.rows, table.title)
    for path in files:
        if path.suffix in (".html", ".md", ".csv", ".tex", ".json"):
            print(f"{path.suffix[1:]:<7} {path}")
    for warning in board.warnings:
        print_problem(warning)
    return EXIT_INCOMPLETE if strict and len(board.rows) < len(plan.tasks) else EXIT_DONE


def _named(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Read NAME=VALUE; without a name it is the last part of the value."""
    from ..bench.tasks import model_name

    pairs: list[tuple[str, str]] = []
    for text in texts:
        name, sign, value = text.partition("=")
        pairs.append((name, value) if sign else (model_name(text), text))
        if not all(pairs[-1]):
            raise SettingsError(f"{option} {text} is neither NAME=VALUE nor VALUE")
        if pairs[-1][0] in [earlier for earlier, _ in pairs[:-1]]:
            raise SettingsError(f"{option} gives the name {pairs[-1][0]} twice: name every set once, NAME=VALUE")
    return pairs


def _print_plan(plan: "BenchPlan", place: str) -> None:
    """Print every row with its frames, what it will cost, and where it goes."""
    from ..bench.recipes import run_state
    from ..bench.shared_masklets import is_worth_sharing
    from ..console import print_rows
    from ..plan import print_plan

    rows = [["row", "base labels", "frames", "state"]]
    for task in plan.tasks:
        rows.append([task.name, _source(plan, task), str(plan.data.num_frames), run_state(plan, task)])
    engine = plan.engine
    with_sam2 = sum(task.uses_sam2 for task in plan.tasks)
    if with_sam2:
        from ..settings import EngineChoice

        choice = EngineChoice(engine.mode, engine.image_size, engine.dtype)
        print_plan(plan.data.clips, engine.sam2, engine.masklets, engine.follow, choice, engine.device)
    print_rows(rows, f"{plan.data.title}: clips {len(plan.data.clips)}, frames {plan.data.num_frames}")
    if with_sam2 > 1:
        shared = (
            f"is spent once, for {with_sam2} rows" if is_worth_sharing(plan) else f"is for each of {with_sam2} rows"
        )
        print(f"the time of SAM 2 above {shared}")
    print(f"out     {plan.out} ({place})")


def _source(plan: "BenchPlan", task: "Task") -> str:
    """Say where the labels of a row, or those that it starts from, come from."""
    if task.is_made_elsewhere:
        return str(plan.compare[task.name])
    if task.model is None:
        return "none"
    return str(task.model.labels) if task.model.segmenter is None else f"segmenter {task.model.segmenter}"


class _RowBar:
    """The bar of one row; hears of the frames of one clip after the other."""

    def __init__(self, bars: "Progress", task: "TaskID", num_frames: int) -> None:
        self._bars, self._task, self._num_frames = bars, task, num_frames
        self._before = self._here = 0

    def clip_started(self, name: str, num_frames: int | None) -> None:
        self._before, self._here = self._before + self._here, 0

    def frames_done(self, name: str, count: int) -> None:
        self._here = count
        self._bars.update(self._task, completed=self._before + count)

    def clip_finished(self, name: str) -> None:
        pass

    def row_finished(self, is_made: bool) -> None:
        self._bars.update(self._task, visible=False, completed=self._num_frames if is_made else None)


@contextmanager
def _bars() -> Iterator[tuple["MakeProgress", "Progress"]]:
    """Show a bar for every row in work, with frames done and time left, on stderr."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    from ..console import stderr

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeLeftColumn(), console=stderr, expand=True) as bars:
        yield lambda name, frames: _RowBar(bars, bars.add_task(escape(name), total=frames), frames), bars
