"""From a data set to a saved segmenter: what `sam2vss train segmenter` does.

config.json, model.safetensors, preprocessor_config.json    the network, as `--segmenter FOLDER` loads it
README.md, training.json                                    the model card, and the same facts for programs
metrics.jsonl, tensorboard/                                 numbers of the training as they came
training-state.safetensors, training-best.safetensors       while it is under way
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..classifiers.saving import card_table
from ..dataset_clips import DatasetClips
from ..errors import RunError
from ..files import atomic_write_bytes, atomic_write_json, discard, release_lock, take_lock
from ..versions import code_revision, installed_versions
from .metrics_log import MetricsLog
from .segmenter import (
    BEST_FILE,
    STATE_FILE,
    SegmenterRecipe,
    SegmenterTraining,
    TrainingPlace,
    TrainingProgress,
)
from .segmenter_model import TrainableSegmenter
from .segmenter_samples import SampleSet
from .segmenter_scores import check_validation, score_segmenter

FACTS_FILE = "training.json"
CARD_FILE = "README.md"
LOCK_FILE = ".lock"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class SegmenterJob:
    """A training to do.

    Attributes:
        trainable: What is trained.
        samples: What it learns from.
        validation: Clips that choose the best weights; None: the last ones count.
        recipe: How.
        out: Folder.
        device: Torch device.
        workers: Threads that make views.
        save_every: Steps between checkpoints.
        validate_every: Steps between validations.
    """

    trainable: TrainableSegmenter
    samples: SampleSet
    validation: DatasetClips | None
    recipe: SegmenterRecipe
    out: Path
    device: str = "cpu"
    workers: int = 1
    save_every: int = 500
    validate_every: int = 1000

    def __post_init__(self) -> None:
        if self.validation is not None:
            check_validation(self.validation, self.trainable.label_space)

    def check(self) -> None:
        """Look at all files that training needs, without decoding them, and at the sizes of views.

        Raises:
            MediaError: If files cannot be read or do not fit together.
            SettingsError: If views would be too small to show anything, or too large.
        """
        self.trainable.network_input.check_views(self.samples.check_files(), self.recipe.views.scales)

    def training(self, on_step: Callable[[int], None] = lambda step: None) -> SegmenterTraining:
        """Return the training, at its beginning."""
        place = TrainingPlace(self.out, self.asked(), self.device, self.workers, self.save_every, on_step)
        validate = None if self.validation is None else self.score
        return SegmenterTraining(self.trainable, self.samples, self.recipe, place, validate, self.validate_every)

    def score(self) -> float:
        """Return the mIoU of the validation clips with the weights as they are."""
        assert self.validation is not None
        segmenter = self.trainable.segmenter()
        return score_segmenter(segmenter, self.validation, needs_all=self.trainable.num_frames > 1).miou

    def asked(self) -> dict[str, Any]:
        """Return what decides the outcome, JSON types."""
        preprocessing = self.trainable.network_input.preprocessing
        return {
            "start": self.trainable.about,
            "classes": list(self.trainable.label_space.names),
            "input size": None if preprocessing.size is None else dict(preprocessing.size),
            "data": self.samples.fingerprint(),
            "validation": None if self.validation is None else [self.validation.title, self.validate_every],
            "recipe": asdict(self.recipe),
        }


def check_place(out: Path, resume: bool, overwrite: bool) -> bool:
    """Refuse a folder that holds something else, or a network that shall not be replaced.

    Returns:
        Whether a training lies there that is to be gone on with.

    Raises:
        RunError: If it does.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    has_begun = (out / STATE_FILE).is_file()
    is_ours = has_begun or _is_ours(out / FACTS_FILE)
    if (out / "config.json").exists() and not is_ours:
        raise RunError(f"{out} holds another model, which stays: choose another --out")
    if (out / CARD_FILE).exists() and not is_ours:
        raise RunError(f"{out} holds a {CARD_FILE} that is not of a segmenter of ours: choose another --out")
    if overwrite or not is_ours:
        return False
    if not has_begun:
        raise RunError(f"{out} already holds a segmenter: replace it with --overwrite, or choose another --out")
    if not resume:
        raise RunError(
            f"{out} holds a training that was begun: go on with --resume, start anew with --overwrite, or choose "
            "another --out"
        )
    return True


def make_segmenter(
    job: SegmenterJob,
    goes_on: bool = False,
    say: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> TrainingProgress:
    """Train and save.

    Args:
        job: What to do.
        goes_on: Whether `check_place` found a training to go on with.
        say: Told every entry of the log.
        on_step: Told the number of steps done.

    Raises:
        RunError: If the folder is in use, or holds a training of something else.
        SettingsError: If nothing can be learned.
        MediaError: If something cannot be read or written.
    """
    out = job.out
    if not goes_on:  # else they are the files of then, by their fingerprint
        job.check()
    take_lock(out / LOCK_FILE)
    try:
        training = job.training(on_step)
        if goes_on:
            training.resume()
        else:
            for name in (STATE_FILE, BEST_FILE):
                discard(out / name)
        on_step(training.progress.step)
        with MetricsLog(out, say, after=training.progress.step if goes_on else None) as log:
            training.run(log)
        facts = training_facts(job, training.progress)
        job.trainable.save(out)
        atomic_write_bytes(out / CARD_FILE, card_text(job.trainable, facts).encode("utf-8"))
        atomic_write_json(out / FACTS_FILE, facts)
        for name in (STATE_FILE, BEST_FILE):
            discard(out / name)
    finally:
        release_lock(out / LOCK_FILE)
    return training.progress


def training_facts(job: SegmenterJob, progress: TrainingProgress) -> dict[str, Any]:
    """Return what was done and what came of it, without paths of this machine."""
    data, names = job.samples.data, job.trainable.label_space.names
    total = max(1, sum(progress.seen))
    shares = {name: round(count / total, 6) for name, count in zip(names, progress.seen, strict=True)}
    scores: dict[str, Any] = {"weights of step": progress.step}
    if job.validation is not None:
        scores = {
            "validation": job.validation.title,
            "mIoU": progress.best_miou,
            "weights of step": progress.best_step or progress.step,
            "mIoU of the last step": progress.last_miou,
        }
    return {
        "package": "sam2vss",
        "format_version": FORMAT_VERSION,
        "start": job.trainable.about,
        "notes": list(job.trainable.notes),
        "data": {
            "training": data.title,
            "clips": len(data.clips),
            "labelled frames": job.samples.num_labelled,
            "samples": len(job.samples),
            "views": progress.step * job.recipe.batch,
            "views without labels": progress.void_views,
            "passes": round(progress.step * job.recipe.batch / len(job.samples), 2),
            "share of labelled pixels seen": shares,
        },
        "input": {"size": job.asked()["input size"], "frames": job.trainable.num_frames},
        "recipe": {**asdict(job.recipe), "warmup": job.recipe.warmup_steps},
        "scores": scores,
        "versions": installed_versions(),
        "revision": code_revision(),
    }


def card_text(trainable: TrainableSegmenter, facts: dict[str, Any]) -> str:
    """Return the model card, Markdown with a YAML head."""
    family = trainable.about["family"]
    data, scores = facts["data"], facts["scores"]
    absent = [name for name, share in data["share of labelled pixels seen"].items() if not share]
    shares = [f"{name} {100 * share:.2f} %" for name, share in data["share of labelled pixels seen"].items()]
    shown = {name: value for name, value in data.items() if not isinstance(value, dict)}
    return (
        "---\nlibrary_name: sam2vss\npipeline_tag: image-segmentation\ntags:\n"
        "- sam2vss\n- semantic-segmentation\n---\n"
        f"\n# {family} for {trainable.label_space.num_classes} classes\n"
        f"\nA base model for video semantic segmentation, made by `sam2vss train segmenter` from "
        f"{trainable.about['start']} on {data['training']}. Use it with `sam2vss refine CLIP --segmenter FOLDER`.\n"
        + "".join(f"\n{note[0].upper()}{note[1:]}.\n" for note in facts["notes"])
        + (f"\nNot learned, as no training pixel has it: {', '.join(absent)}.\n" if absent else "")
        + card_table("Data", {**shown, "share of labelled pixels seen": shares})
        + card_table("Training", {**facts["recipe"], **{f"input {key}": str(v) for key, v in facts["input"].items()}})
        + card_table("Scores", scores)
        + card_table("Software", {**facts["versions"], "revision": facts["revision"]})
        + "\n## Licence\n\nNot known to the program. What the licences of the training data and of the weights at the "
        "start allow decides whether these weights may be passed on or used commercially: read both first.\n"
    )


def _is_ours(file: Path) -> bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("package") == "sam2vss"
