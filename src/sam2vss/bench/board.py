"""From scored rows to a `Scoreboard`: differences with their intervals, published figures, what it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..boards.published import find_published
from ..boards.scoreboard import BoardRow, Picture, Published, Scoreboard
from ..evaluate import Evaluation
from ..metrics import PairedDifference, find_protocol, paired_bootstraps
from ..versions import code_revision, installed_versions
from .plan import BenchPlan
from .rows import MadeRow
from .tasks import BaseModel, Task

MAX_WINDOWS: Final = 4  # ours: with more windows than this a table shows the paper's two
PAPER_WINDOWS: Final = (8, 16)


@dataclass(frozen=True, eq=False)
class ScoredRow:
    """One row, made and scored.

    Attributes:
        task: What it is.
        made: How its labels came about.
        evaluation: Its scores.
    """

    task: Task
    made: MadeRow
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.task.name

    @property
    def model(self) -> BaseModel | None:
        """Its base model; None for a classifier alone and for labels made elsewhere."""
        return self.task.model


def make_board(
    plan: BenchPlan,
    rows: Sequence[ScoredRow],
    pictures: Sequence[Picture] = (),
    problems: Sequence[str] = (),
    command: str = "",
) -> Scoreboard:
    """Put rows on a board.

    Every row of a model is compared with the model's base labels. Labels made elsewhere, and those of a classifier
    alone, join the only model where there is one and are compared with it; where there are several, or none, they
    stand alone.

    Args:
        plan: What was asked.
        rows: In the order of the table; not empty.
        pictures: Frames worth looking at.
        problems: Rows that could not be made, one sentence each.
        command: Command that makes the board again.
    """
    bases = {row.model.name: row for row in rows if row.model is not None and row.task.is_base}
    any_scores = rows[0].evaluation.scores
    engine = plan.engine
    return Scoreboard(
        title=f"{', '.join(bases) or 'labels'} on {plan.data.title}",
        kind="bench",
        dataset=plan.data.title,
        protocol=plan.protocol,
        clips=any_scores.clips,
        frames=any_scores.frames,
        class_names=rows[0].evaluation.class_names,
        rows=tuple(_board_row(plan, row, _base_of(row, bases)) for row in rows),
        statistics=shown_statistics(plan, any_scores.as_dict()),
        protocol_note=find_protocol(plan.protocol).fault,
        pictures=tuple(pictures),
        warnings=(*problems, *_warnings(rows)),
        command=command,
        versions={
            **installed_versions(),
            **({"revision": revision} if (revision := code_revision()) else {}),
            "device": engine.device,
            "dtype": engine.dtype,
        },
    )


def shown_statistics(plan: BenchPlan, scores: Mapping[str, float | None]) -> tuple[str, ...]:
    """Return the scores that tables show: the paper's columns, and with `boundary="full"` all boundary scores."""
    windows = plan.windows
    if len(windows) > MAX_WINDOWS:
        windows = tuple(n for n in windows if n in PAPER_WINDOWS) or (windows[0], windows[-1])
    names = ["mIoU", "wIoU", "mBIoU", *(f"mVC{n}" for n in windows)]
    if plan.boundary == "full":
        names += [name for name in scores if name.startswith("boundary_")]
    return tuple(names)


def _base_of(row: ScoredRow, bases: Mapping[str, ScoredRow]) -> ScoredRow | None:
    if row.model is not None:
        base = bases.get(row.model.name)
    else:
        base = next(iter(bases.values())) if len(bases) == 1 else None
    return None if base is row else base


def _board_row(plan: BenchPlan, row: ScoredRow, base: ScoredRow | None) -> BoardRow:
    content = row.evaluation.to_json()
    return BoardRow(
        name=row.name,
        model=row.model.name if row.model is not None else base.model.name if base and base.model else row.name,
        kind=row.task.kind,
        scores=row.evaluation.scores.as_dict(),
        against=None if base is None else base.name,
        differences={} if base is None else _differences(plan, base.evaluation, row.evaluation),
        per_class=content["per_class"],
        per_clip=content["per_video"],
        settings=row.made.settings,
        facts=row.made.facts,
        published=_published(plan, row),
        command=row.made.command,
    )


def _differences(plan: BenchPlan, base: Evaluation, refined: Evaluation) -> dict[str, PairedDifference]:
    """Compare all scores that the row has, with the same draws of clips."""
    names = [name for name, value in refined.scores.as_dict().items() if value is not None]
    return paired_bootstraps(base.counts, refined.counts, names, seed=plan.seed, protocol=plan.protocol)


def _published(plan: BenchPlan, row: ScoredRow) -> Published | None:
    """Find published figures of a row; only for whole splits of that size, and for models whose name the user gave.

    A model that is called by its id alone may be another one than the published one of that name: `segformer-b2` is
    trained on ADE20K here.
    """
    sources = (row.model, row.task.network)
    is_named = all(source is None or source.is_named for source in sources)
    if plan.data.is_subset or not is_named or row.task.kind == "control":
        return None
    return find_published(plan.data.name, row.name, plan.data.split, plan.data.height_px)


def _warnings(rows: Sequence[ScoredRow]) -> list[str]:
    """Return what was noted while rows were made and scored; a sentence that all rows share is said once."""
    noted: dict[str, list[str]] = {}
    for row in rows:
        for sentence in (*row.made.problems, *row.evaluation.warnings):
            noted.setdefault(sentence, []).append(row.name)
    return [
        sentence if len(names) == len(rows) else f"{', '.join(names)}: {sentence}" for sentence, names in noted.items()
    ]
