"""What makes a row: where its run lies, the settings that decide it, and the command that makes it again."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..artifacts import RunFolder
from ..boards.scoreboard import Setting
from ..datasets.label_sets import LABEL_SET_FILE
from .plan import BenchPlan
from .tasks import BASE, BaseModel, NamingModel, Task


def clip_list(plan: BenchPlan) -> Path:
    """Return where the list of the bench's clips lies, for the commands that make single rows again."""
    return plan.out / "clips.txt"


def run_folder(plan: BenchPlan, task: Task) -> Path:
    """Return where the run of a row lies; labels made elsewhere have none."""
    assert not task.is_made_elsewhere
    if task.model is None:
        return plan.out / "classified" / task.row
    return plan.out / "base" / task.model.name if task.is_base else plan.out / "runs" / task.model.name / task.row


def run_state(plan: BenchPlan, task: Task) -> str:
    """Say how far a row is."""
    if task.is_made_elsewhere or (task.is_base and task.model is not None and task.model.labels is not None):
        return "to be scored"
    folder = run_folder(plan, task)
    if not (folder / "run.json").is_file():
        return "to be made"
    run = RunFolder.open(folder)
    done = sum(window.length for clip in plan.data.clips for window in run.finished_windows(clip.name))
    return f"{done} frames done"


def base_labels(plan: BenchPlan, model: BaseModel) -> Path:
    """Return where the base labels of a model lie, or will lie."""
    return model.labels if model.labels is not None else run_folder(plan, Task(model.name, BASE, model)) / "labels"


def masklet_settings(plan: BenchPlan) -> dict[str, Setting]:
    """Return what decides the masklets of SAM 2, by the names of the options."""
    engine = plan.engine
    size = engine.image_size
    return {
        "sam2": engine.sam2,
        "mode": engine.mode,
        "image_size": None if size is None else f"{size[1]}x{size[0]}",
        **engine.masklets.model_dump(),
        **engine.follow.model_dump(),
    }


def row_settings(plan: BenchPlan, row: str, network: NamingModel | None = None) -> dict[str, Setting]:
    """Return what decides a row besides its base labels, by the names of the options.

    A network decides in place of the vote, so of the settings of the vote only overlap and void count for it; a
    classifier names what it was trained to name, masks or masklets.
    """
    votes: dict[str, Setting] = plan.engine.votes.model_dump()
    if network is not None:
        return {
            network.kind: network.source,
            "encoder": network.encoder,
            "encoder_fingerprint": network.encoder_fingerprint,
            **({"vote": network.vote} if network.kind == "classifier" else {}),
            "overlap": votes["overlap"],
            "void": votes["void"],
            **masklet_settings(plan),
        }
    if row in ("static", "flow"):
        return {"smooth": row, "void": votes["void"]}
    if row == "superpixel":
        return {"tracker": row, "window": plan.engine.masklets.window, **votes}
    return {**masklet_settings(plan), **votes}


def base_command(plan: BenchPlan, model: BaseModel) -> str:
    """Return the command that makes the base labels of a model that is run."""
    assert model.segmenter is not None
    words = ["--segmenter", model.segmenter, "--tracker", "none", *_network(plan)]
    return _command(plan, Task(model.name, BASE, model), "refine", words)


def row_command(plan: BenchPlan, task: Task) -> str:
    """Return the command that makes a row again; settings at their defaults are left out."""
    if task.network is None:
        return _command(plan, task, "refine", [*_labels(plan, task, "--labels"), *_how(plan, task.row)])
    overlap = _changed(plan, ("overlap", "void"))
    if task.network.kind == "fusion":
        words = [*_labels(plan, task, "--labels"), "--fusion", task.network.source, *_sam2(plan), *overlap]
        return _command(plan, task, "refine", words)
    words = ["--classifier", task.network.source, *_labels(plan, task, "--base"), *_sam2(plan), *overlap]
    return _command(plan, task, "classify", words)


def _how(plan: BenchPlan, row: str) -> list[str]:
    """Return the options of a control or of SAM 2 as refiner."""
    if row in ("static", "flow"):
        return ["--tracker", "none", "--smooth", row, *_changed(plan, ("void",))]
    votes = tuple(type(plan.engine.votes).model_fields)
    if row == "superpixel":
        return ["--tracker", row, *_changed(plan, ("window", *votes))]
    return [*_sam2(plan), *_changed(plan, votes)]


def _labels(plan: BenchPlan, task: Task, option: str) -> list[str]:
    """Return the options that give the base labels; none where a row has no base."""
    if task.model is None:
        return []
    labels = base_labels(plan, task.model)
    words = [option, str(labels)]
    if task.model.labels is not None and not (labels / LABEL_SET_FILE).is_file():
        words += ["--label-set", str(plan.out / LABEL_SET_FILE)]
        if (offset := plan.own_offset_of(labels)) is not None:
            words += ["--id-offset", str(offset)]
    return words


def _sam2(plan: BenchPlan) -> list[str]:
    """Return the options of SAM 2 and of its masklets."""
    engine = plan.engine
    words = ["--sam2", engine.sam2, "--mode", engine.mode, *_network(plan)]
    if (size := engine.image_size) is not None:
        words += ["--image-size", f"{size[1]}x{size[0]}"]
    return words + _changed(plan, (*type(engine.masklets).model_fields, *type(engine.follow).model_fields))


def _network(plan: BenchPlan) -> list[str]:
    """Return the options that say where and how exactly networks run."""
    return ["--device", plan.engine.device, "--dtype", plan.engine.dtype]


def _changed(plan: BenchPlan, names: Sequence[str]) -> list[str]:
    """Return those of the options whose values are not the defaults."""
    words: list[str] = []
    for settings in (plan.engine.masklets, plan.engine.follow, plan.engine.votes):
        for name, value in settings.model_dump().items():
            if name not in names or value == type(settings).model_fields[name].default:
                continue
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return words


def _command(plan: BenchPlan, task: Task, verb: str, words: Sequence[str]) -> str:
    out = run_folder(plan, task)
    return shlex.join(["sam2vss", verb, str(clip_list(plan)), *words, "--no-overlay", "--out", str(out)])
