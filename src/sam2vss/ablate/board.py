"""From the counts of all points to a `Scoreboard`: rows, axes, differences with intervals, figures of the paper."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..boards.published import find_published, find_published_setting
from ..boards.scoreboard import Axis, BoardRow, Published, RowKind, Scoreboard, Setting
from ..dataset_clips import list_clips
from ..errors import RunError
from ..evaluate import Evaluation
from ..files import atomic_write_bytes, atomic_write_json, safe_name
from ..metrics import PairedDifference, find_protocol, paired_bootstraps
from ..settings import FollowSettings, MaskletSettings, VoteSettings
from ..versions import code_revision, installed_versions
from .folder import AblationFolder
from .grid import DEFAULT_NAME, Point
from .plan import AblationPlan
from .tally import BASE, Tally, new_metrics, tally_path
from .work import Work, compare
from .work_files import read_work

CLIP_LIST: Final = "clips.txt"
LABEL_SET: Final = "label_set.json"
PAPERS_MODEL: Final = "cffm-b1"  # paper Tables 4 to 7, on VSPW


def make_board(plan: AblationPlan, folder: AblationFolder, command: str = "") -> Scoreboard:
    """Score all points from their stored counts.

    Every point is compared with the base of the grid, and that one with the base labels.

    Args:
        plan: What was asked; all counts are there.
        folder: Where they are.
        command: Command that makes the board again.

    Raises:
        RunError: If counts are missing or damaged.
    """
    tallies = {point: _read(plan, folder, point.key) for point in plan.grid.points}
    base = _evaluate(plan, _read(plan, folder, BASE))
    found = {point: _evaluate(plan, tally) for point, tally in tallies.items()}
    default = plan.grid.base
    rows = [_row(base, name=plan.model, model=plan.model, kind="base")]
    for point, evaluation in found.items():
        other, name = (base, plan.model) if point == default else (found[default], DEFAULT_NAME)
        rows.append(
            _row(
                evaluation,
                name=plan.grid.name_of(point),
                model=plan.model,
                kind="refined",
                against=name,
                differences=_differences(plan, other, evaluation),
                settings=point.model_dump(),
                facts=_facts(tallies[point]),
                published=find_figures(point) if is_the_papers(plan) else None,
                command=_refine_command(plan, point),
            )
        )
    needed = sum((tally.needed for tally in tallies.values()), Work())
    board = Scoreboard(
        title=f"Settings of the refiner, {plan.model} on {plan.data.title}",
        kind="ablate",
        dataset=plan.data.title,
        protocol=plan.protocol,
        clips=base.scores.clips,
        frames=base.scores.frames,
        class_names=base.class_names,
        rows=tuple(rows),
        statistics=("mIoU", "wIoU", "mBIoU", *(f"mVC{n}" for n in plan.windows)),
        protocol_note=find_protocol(plan.protocol).fault,
        axes=_axes(plan),
        work=compare(_done(plan, folder), needed),
        warnings=_warnings(plan, base),
        command=command,
        versions=_versions(plan),
    )
    atomic_write_bytes(folder.out / CLIP_LIST, list_clips(plan.data).encode())
    atomic_write_json(folder.out / LABEL_SET, plan.label_space.to_dict())
    return board


def _read(plan: AblationPlan, folder: AblationFolder, row: str) -> Tally:
    """Add up a row's counts of all clips, in the order of the clips."""
    total = Tally(new_metrics(plan.data.label_space, plan.windows))
    for clip in plan.data.clips:
        fresh = new_metrics(plan.data.label_space, plan.windows)
        path = tally_path(folder.out, plan.windows, clip.name, row)
        try:
            total.merge(Tally.read(path, fresh))
        except RunError as error:
            raise RunError(f"{error}: delete this file and go on with --resume, which counts it anew") from error
    return total


def _evaluate(plan: AblationPlan, tally: Tally) -> Evaluation:
    return Evaluation.from_metrics(tally.metrics, plan.data.label_space, plan.protocol)


def _row(
    evaluation: Evaluation,
    *,
    name: str,
    model: str,
    kind: RowKind,
    against: str | None = None,
    differences: Mapping[str, PairedDifference] | None = None,
    settings: Mapping[str, Setting] | None = None,
    facts: Mapping[str, float] | None = None,
    published: Published | None = None,
    command: str = "",
) -> BoardRow:
    content = evaluation.to_json()
    return BoardRow(
        name=name,
        model=model,
        kind=kind,
        scores=content["scores"],
        against=against,
        differences=differences or {},
        per_class=content["per_class"],
        per_clip=content["per_video"],
        settings=settings or {},
        facts=facts or {},
        published=published,
        command=command,
    )


def _differences(plan: AblationPlan, other: Evaluation, own: Evaluation) -> Mapping[str, PairedDifference]:
    names = [name for name, value in own.scores.as_dict().items() if value is not None]
    return paired_bootstraps(other.counts, own.counts, names, protocol=plan.protocol)


def _facts(tally: Tally) -> dict[str, float]:
    return {
        "masklets": tally.masklets / max(1, tally.windows),
        "coverage": tally.coverage / max(1, tally.frames),
    }


def is_the_papers(plan: AblationPlan) -> bool:
    """Tell whether data set, split, height and base model are by name those of the paper's Tables 4 to 7."""
    found, papers = (
        find_published(plan.data.name, name, plan.data.split, plan.data.height_px)
        for name in (plan.model, PAPERS_MODEL)
    )
    return not plan.data.is_subset and papers is not None and found == papers


def find_figures(point: Point) -> Published | None:
    """Find the paper's figures for a point that has the paper's settings but for one that it varied."""
    paper = Point()
    varied = [name for name, value in point.model_dump().items() if value != getattr(paper, name)]
    if len(varied) > 1:
        return None
    name = varied[0] if varied else "window"
    return find_published_setting(name, getattr(point, name))


def _axes(plan: AblationPlan) -> tuple[Axis, ...]:
    base = plan.grid.base
    axes = []
    for axis in plan.grid.axes:
        default: Setting = getattr(base, axis.setting)
        axes.append(
            Axis(
                setting=axis.setting,
                values=axis.values,
                rows=tuple(plan.grid.name_of(point) for point in axis.points),
                default=default if default in axis.values else None,
                title=axis.title,
            )
        )
    return tuple(axes)


def _warnings(plan: AblationPlan, base: Evaluation) -> tuple[str, ...]:
    notes = list(base.warnings)
    if plan.left_out:
        notes.append(
            f"{len(plan.left_out)} points were left out, since stored labels hold no probabilities: "
            f"{', '.join(plan.left_out)}"
        )
    return tuple(notes)


def _done(plan: AblationPlan, folder: AblationFolder) -> Work:
    """Add up what the network did for these clips, in all sweeps of the folder."""
    places = [folder.tracks / "work" / safe_name(clip.name) for clip in plan.data.clips]
    files = [path for place in places for path in sorted(place.glob("*.json"))]
    return sum((read_work(path).done for path in files), Work())


def _versions(plan: AblationPlan) -> dict[str, str]:
    revision = code_revision()
    own = {"sam2": plan.sam2, "device": plan.device, "dtype": plan.dtype}
    return {**installed_versions(), **({"revision": revision} if revision else {}), **own}


def _refine_command(plan: AblationPlan, point: Point) -> str:
    """Return the command that makes the labels of one row alone."""
    words = ["sam2vss", "refine", str(plan.out / CLIP_LIST), "--out", str(Path("runs") / safe_name(_slug(plan, point)))]
    if plan.labels is not None:
        words += ["--labels", str(plan.labels), "--label-set", str(plan.out / LABEL_SET)]
        if plan.id_offset is not None:
            words += ["--id-offset", str(plan.id_offset)]
    else:
        words += ["--segmenter", plan.segmenter]
    words += ["--sam2", plan.sam2, "--mode", point.mode, "--smooth", point.smooth]
    if plan.image_size is not None:
        height, width = plan.image_size
        words += ["--image-size", f"{width}x{height}"]
    words += ["--device", plan.device, "--dtype", plan.dtype]
    for kind in (MaskletSettings, FollowSettings, VoteSettings):
        for name, entry in kind.model_fields.items():
            value, option = getattr(point, name), f"--{name.replace('_', '-')}"
            if value != entry.default:
                words += [option] if value is True else [option, str(value)]
    return shlex.join(words)


def _slug(plan: AblationPlan, point: Point) -> str:
    return plan.grid.name_of(point).replace(", ", "-").replace(" ", "-")
