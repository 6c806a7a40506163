"""Makes the labels of one row: an ordinary run folder, gone on with where it was interrupted."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import RunFolder
from ..boards.scoreboard import Setting
from ..datasets.label_sets import LABEL_SET_FILE
from ..errors import RunError
from ..interfaces import BaseLabelSource, MaskletTracker, Smoother
from ..pipeline import NoProgress, Progress, VoteRule, check_clips, refine_run
from ..records import WindowRecord
from ..refiner import load_tracker
from ..sam2.loading import find_sam2
from ..segmenters import ModelLabels, StoredLabels, load_segmenter
from ..smoothing import find_smoother
from ..trackers.nothing import NoTracker
from ..trackers.superpixels import SuperpixelTracker
from .plan import BASE, BaseModel, BenchPlan, RowName

REFINING = ("smoothing", "masklets", "vote and paint")  # stages of a run that a row costs on top of its base labels


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


def clip_list(plan: BenchPlan) -> Path:
    """Return where the list of the bench's clips lies, for the commands that make single rows again."""
    return plan.out / "clips.txt"


def run_folder(plan: BenchPlan, model: BaseModel, row: str) -> Path:
    """Return where the run of a row lies."""
    return plan.out / "base" / model.name if row == BASE else plan.out / "runs" / model.name / row


def run_state(plan: BenchPlan, model: BaseModel, row: str) -> str:
    """Say how far the run of a row is."""
    folder = run_folder(plan, model, row)
    if not (folder / "run.json").is_file():
        return "to be made"
    run = RunFolder.open(folder)
    done = sum(window.length for clip in plan.data.clips for window in run.finished_windows(clip.name))
    return f"{done} frames done"


def base_labels(plan: BenchPlan, model: BaseModel) -> Path:
    """Return where the base labels of a model lie, or will lie."""
    return model.labels if model.labels is not None else run_folder(plan, model, BASE) / "labels"


def make_base(plan: BenchPlan, model: BaseModel, overwrite: bool = False, progress: Progress | None = None) -> MadeRow:
    """Run a model over all clips, or take its stored labels as they are; a run that is there goes on.

    Raises:
        WeightsError: If the model cannot be had.
        RunError: If another run lies there.
        Sam2VssError: If clips cannot be read or labelled.
    """
    if model.labels is not None:
        check_clips(plan.data.clips, _stored(plan, model))
        return MadeRow(model.labels, {}, {"labels": str(model.labels)}, "")
    assert model.segmenter is not None
    engine = plan.engine
    segmenter = load_segmenter(model.segmenter, engine.device, engine.dtype)
    location = segmenter.location
    weights = {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}
    run = _create(plan, model, BASE, ModelLabels(segmenter), {"segmenter": model.segmenter}, weights, overwrite)
    problems = _refine(plan, run, ModelLabels(segmenter), NoTracker(), None, False, progress)
    command = _command(plan, run.path, "--segmenter", model.segmenter, "--tracker", "none", *_network(plan))
    facts = {"seconds": _seconds_a_frame(run, plan, ("base labels",))}
    return MadeRow(run.path / "labels", facts, {"segmenter": model.segmenter}, command, problems)


def make_row(
    plan: BenchPlan,
    model: BaseModel,
    row: RowName,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MadeRow:
    """Refine the base labels of a model in one way; a run that is there goes on, or is replaced with `overwrite`.

    Raises:
        WeightsError: If SAM 2's weights cannot be had.
        RunError: If another run lies there.
        Sam2VssError: If clips or labels cannot be read.
    """
    base = _stored(plan, model)
    check_clips(plan.data.clips, base)
    weights: dict[str, str] = {}
    if row == "sam2":
        location = find_sam2(plan.engine.sam2)
        weights = {f"{location.id}/{name}": digest for name, digest in location.sha256().items()}
    labels = base_labels(plan, model)
    stored = {"labels": str(labels.resolve()), "labels_fingerprint": plan.fingerprint_of(labels)}
    settings = row_settings(plan, row)
    run = _create(plan, model, row, base, {**stored, "row": row, **settings}, weights, overwrite)
    is_done = all(run.is_done(clip.name) for clip in plan.data.clips)
    tracker = NoTracker() if is_done else make_tracker(plan, row)
    carry = row == "sam2" and plan.engine.follow.carry
    problems = _refine(plan, run, base, tracker, make_smoother(row, base), carry, progress)
    facts = {"seconds": _seconds_a_frame(run, plan, REFINING)}
    if row in ("superpixel", "sam2"):
        windows = _windows(run, plan)
        facts["masklets"] = float(np.mean([window.num_masklets for window in windows]))
        facts["coverage"] = float(np.mean([share for window in windows for share in window.coverage]))
    return MadeRow(run.path / "labels", facts, settings, row_command(plan, model, row), problems)


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


def row_settings(plan: BenchPlan, row: RowName) -> dict[str, Setting]:
    """Return what decides a row besides its base labels, by the names of the options."""
    engine = plan.engine
    if row in ("static", "flow"):
        return {"smooth": row}
    votes: dict[str, Setting] = engine.votes.model_dump()
    if row == "superpixel":
        return {"tracker": row, "window": engine.masklets.window, **votes}
    size = engine.image_size
    return {
        "sam2": engine.sam2,
        "mode": engine.mode,
        "image_size": None if size is None else f"{size[1]}x{size[0]}",
        **engine.masklets.model_dump(),
        **engine.follow.model_dump(),
        **votes,
    }


def row_command(plan: BenchPlan, model: BaseModel, row: RowName) -> str:
    """Return the command that makes a row again; settings at their defaults are left out."""
    labels = base_labels(plan, model)
    words = ["--labels", str(labels)]
    if model.labels is not None and not (labels / LABEL_SET_FILE).is_file():
        words += ["--label-set", str(plan.out / LABEL_SET_FILE)]
    if row in ("static", "flow"):
        words += ["--tracker", "none", "--smooth", row]
    elif row == "superpixel":
        words += ["--tracker", row, *_changed(plan, ("window", "vote", "vote_weight", "min_share", "overlap"))]
    else:
        words += ["--sam2", plan.engine.sam2, "--mode", plan.engine.mode, *_network(plan)]
        if (size := plan.engine.image_size) is not None:
            words += ["--image-size", f"{size[1]}x{size[0]}"]
        words += _changed(plan)
    return _command(plan, run_folder(plan, model, row), *words)


def _network(plan: BenchPlan) -> list[str]:
    """Return the options that say where and how exactly networks run."""
    return ["--device", plan.engine.device, "--dtype", plan.engine.dtype]


def _changed(plan: BenchPlan, names: Sequence[str] | None = None) -> list[str]:
    """Return the options whose values are not the defaults."""
    words: list[str] = []
    for settings in (plan.engine.masklets, plan.engine.follow, plan.engine.votes):
        for name, value in settings.model_dump().items():
            if value == type(settings).model_fields[name].default or (names is not None and name not in names):
                continue
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return words


def _command(plan: BenchPlan, out: Path, *words: str) -> str:
    return shlex.join(["sam2vss", "refine", str(clip_list(plan)), *words, "--no-overlay", "--out", str(out)])


def _stored(plan: BenchPlan, model: BaseModel) -> StoredLabels:
    folder = base_labels(plan, model)
    return StoredLabels(folder, plan.label_space_of(folder))


def _create(
    plan: BenchPlan,
    model: BaseModel,
    row: str,
    base: BaseLabelSource,
    settings: Mapping[str, Any],
    weights: Mapping[str, str],
    overwrite: bool,
) -> RunFolder:
    folder = run_folder(plan, model, row)
    uses_network = row in (BASE, "sam2")
    return RunFolder.create(
        folder,
        command="bench",
        settings=settings,
        label_space=base.label_space,
        clips=plan.data.clips,
        device=plan.engine.device if uses_network else "cpu",
        dtype=plan.engine.dtype if uses_network else "float32",
        weights=weights,
        inputs=[plan.data.root, *([model.labels] if model.labels is not None else [])],
        resume=not overwrite,  # a folder that is new is begun
        overwrite=overwrite,
    )


def _refine(
    plan: BenchPlan,
    run: RunFolder,
    base: BaseLabelSource,
    tracker: MaskletTracker,
    smoother: Smoother | None,
    carry: bool,
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
        smoother=smoother,
        carry=carry,
    )
    return tuple(summary.problems)


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
