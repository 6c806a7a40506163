"""Makes the labels of one row: an ordinary run folder, gone on with where it was interrupted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..artifacts import RunFolder
from ..boards.scoreboard import Setting
from ..errors import RunError
from ..hub import ModelLocation
from ..interfaces import BaseLabelSource, MaskletNamer, MaskletTracker, Smoother
from ..pipeline import NoProgress, Progress, VoteRule, check_clips, refine_run
from ..records import WindowRecord
from ..refiner import load_tracker
from ..sam2.loading import find_sam2
from ..segmenters import ModelLabels, StoredLabels, load_segmenter
from ..segmenters.void import VoidLabels
from ..segmentor import check_classes, load_classifier
from ..smoothing import find_smoother
from ..trackers.nothing import NoTracker
from ..trackers.stored import StoredMasklets
from ..trackers.superpixels import SuperpixelTracker
from .naming import load_namer, locate
from .plan import BenchPlan, check_scorable
from .recipes import base_command, base_labels, row_command, row_settings, run_folder
from .shared_masklets import find_run_with_masklets, is_worth_sharing
from .tasks import BASE, BaseModel, RowName, Task

REFINING = ("smoothing", "classes", "vote and paint")  # what a row costs besides base labels and masklets


@dataclass(frozen=True)
class MadeRow:
    """Labels of one row.

    Attributes:
        labels: Folder of label maps.
        facts: "seconds" (a frame, without decoding), "masklets" (a window), "coverage" (fraction), where known.
        settings: What made it.
        command: Command that makes the labels again.
        problems: Clips that could not be read to their end.
    """

    labels: Path
    facts: Mapping[str, float]
    settings: Mapping[str, Setting]
    command: str
    problems: tuple[str, ...] = ()


def make_base(plan: BenchPlan, model: BaseModel, overwrite: bool = False, progress: Progress | None = None) -> MadeRow:
    """Run a model over all clips, or take its stored labels as they are; a run that is there goes on.

    Raises:
        WeightsError: If the model cannot be had.
        LabelError: If its classes cannot be scored against the truth's.
        RunError: If another run lies there.
        Sam2VssError: If clips cannot be read or labelled.
    """
    if model.labels is not None:
        check_clips(plan.data.clips, _stored(plan, model))
        return MadeRow(model.labels, {}, {"labels": str(model.labels)}, "")
    assert model.segmenter is not None
    engine = plan.engine
    segmenter = load_segmenter(model.segmenter, engine.device, engine.dtype)
    check_scorable(model.name, segmenter.label_space, plan.data.label_space)
    task, base = Task(model.name, BASE, model), ModelLabels(segmenter)
    settings = {"segmenter": model.segmenter}
    run = _create(plan, task, base, settings, _hashes(segmenter.location), overwrite)
    problems = _refine(plan, task, run, base, NoTracker(), None, False, progress)
    facts = {"seconds": _seconds_a_frame(run, plan, ("base labels",))}
    return MadeRow(run.path / "labels", facts, settings, base_command(plan, model), problems)


def make_row(plan: BenchPlan, task: Task, overwrite: bool = False, progress: Progress | None = None) -> MadeRow:
    """Refine or classify in one way; a run that is there goes on, or is replaced with `overwrite`.

    Raises:
        WeightsError: If the weights of a network cannot be had.
        RunError: If another run lies there.
        LabelError: If base labels are of other classes than a classifier's.
        Sam2VssError: If clips or labels cannot be read.
    """
    base = _base_of(plan, task)
    check_clips(plan.data.clips, base)
    sam2 = _hashes(find_sam2(plan.engine.sam2)) if task.uses_sam2 else {}
    own = _hashes(locate(task.network)) if task.network is not None else {}
    settings = row_settings(plan, task.row, task.network)
    stored = {"row": task.row, **_stored_settings(plan, task)}
    run = _create(plan, task, base, {**stored, **settings}, sam2 | own, overwrite)
    with_masklets = find_run_with_masklets(plan, run, sam2) if task.uses_sam2 else None
    tracker: MaskletTracker = NoTracker()
    namer = None
    if not all(run.is_done(clip.name) for clip in plan.data.clips):
        row = "sam2" if task.uses_sam2 else cast(RowName, task.row)
        tracker = make_tracker(plan, row) if with_masklets is None else StoredMasklets(with_masklets.path)
        if task.network is not None:
            namer = load_namer(task.network, base.label_space, tracker, plan.engine)
    saves = task.uses_sam2 and with_masklets is None and is_worth_sharing(plan)
    problems = _refine(plan, task, run, base, tracker, namer, saves, progress)
    return MadeRow(run.path / "labels", _facts(plan, task, run, sam2), settings, row_command(plan, task), problems)


def make_tracker(plan: BenchPlan, row: RowName) -> MaskletTracker:
    """Return the source of masklets of a row."""
    if row == "superpixel":
        return SuperpixelTracker()
    if row != "sam2":
        return NoTracker()
    engine = plan.engine
    return load_tracker(
        find_sam2(engine.sam2),
        engine.masklets,
        engine.follow,
        mode=engine.mode,
        image_size=engine.image_size,
        device=engine.device,
        dtype=engine.dtype,
    )


def make_smoother(row: RowName, base: BaseLabelSource) -> Smoother | None:
    """Return the smoother of a control, None for rows with masklets."""
    return find_smoother(row, base.label_space.ignore_index) if row in ("static", "flow") else None


def _base_of(plan: BenchPlan, task: Task) -> BaseLabelSource:
    """Return the base labels of a row, all void for a classifier alone, after making sure that the classes agree."""
    network = task.network
    if network is None or network.kind == "fusion":
        assert task.model is not None
        return _stored(plan, task.model)
    named = load_classifier(locate(network)).label_space
    if task.model is None:
        return VoidLabels(named)
    base = _stored(plan, task.model)
    check_classes(base.label_space, named)
    return base


def _stored(plan: BenchPlan, model: BaseModel) -> StoredLabels:
    folder = base_labels(plan, model)
    return StoredLabels(folder, plan.label_space_of(folder), plan.own_offset_of(folder))


def _stored_settings(plan: BenchPlan, task: Task) -> dict[str, str]:
    """Return what tells the base labels of a row from others."""
    if task.model is None:
        return {}
    labels = base_labels(plan, task.model)
    return {"labels": str(labels.resolve()), "labels_fingerprint": plan.fingerprint_of(labels)}


def _hashes(location: ModelLocation) -> dict[str, str]:
    return {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}


def _create(
    plan: BenchPlan,
    task: Task,
    base: BaseLabelSource,
    settings: Mapping[str, Any],
    weights: Mapping[str, str],
    overwrite: bool,
) -> RunFolder:
    uses_network = task.is_base or task.uses_sam2
    model = task.model
    return RunFolder.create(
        run_folder(plan, task),
        command="bench",
        settings=settings,
        label_space=base.label_space,
        clips=plan.data.clips,
        device=plan.engine.device if uses_network else "cpu",
        dtype=plan.engine.dtype if uses_network else "float32",
        weights=weights,
        inputs=[plan.data.root, *([model.labels] if model is not None and model.labels is not None else [])],
        resume=not overwrite,  # a folder that is new is begun
        overwrite=overwrite,
    )


def _refine(
    plan: BenchPlan,
    task: Task,
    run: RunFolder,
    base: BaseLabelSource,
    tracker: MaskletTracker,
    namer: MaskletNamer | None,
    save_masklets: bool,
    progress: Progress | None,
) -> tuple[str, ...]:
    engine = plan.engine
    summary = refine_run(
        run,
        plan.data.clips,
        base,
        tracker,
        engine.masklets.window,
        VoteRule(**engine.votes.model_dump()),
        overlay=False,
        progress=progress or NoProgress(),
        smoother=make_smoother(cast(RowName, task.row), base),
        namer=namer,
        carry=task.uses_sam2 and engine.follow.carry,
        save_masklets=save_masklets,
    )
    return tuple(summary.problems)


def _facts(plan: BenchPlan, task: Task, run: RunFolder, sam2: Mapping[str, str]) -> dict[str, float]:
    """Return what a row took. Masklets that were found for several rows count for each of them in full.

    So a row costs what it would cost alone; only the frames that a classifier's encoder shares with SAM 2 in a run of
    its own are encoded anew beside stored masklets.
    """
    finder = (find_run_with_masklets(plan, run, sam2) if task.uses_sam2 else None) or run
    seconds = _seconds_a_frame(run, plan, REFINING) + _seconds_a_frame(finder, plan, ("masklets",))
    facts = {"seconds": seconds}
    if task.uses_sam2 or task.row == "superpixel":
        windows = _windows(run, plan)
        facts["masklets"] = float(np.mean([window.num_masklets for window in windows]))
        facts["coverage"] = float(np.mean([share for window in windows for share in window.coverage]))
    return facts


def _windows(run: RunFolder, plan: BenchPlan) -> list[WindowRecord]:
    windows = [window for clip in plan.data.clips for window in run.finished_windows(clip.name)]
    if not windows:
        raise RunError(f"{run.path} holds no finished window")
    return windows


def _seconds_a_frame(run: RunFolder, plan: BenchPlan, stages: Sequence[str]) -> float:
    """Return the wall-clock seconds that some stages took for a frame, all sessions of the run together."""
    windows = _windows(run, plan)
    spent = sum(window.seconds.get(stage, 0.0) for window in windows for stage in stages)
    return spent / sum(window.length for window in windows)
