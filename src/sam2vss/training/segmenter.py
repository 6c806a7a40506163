"""The training of a segmenter: views, loss, steps of AdamW, validation, checkpoints.

The same loop trains hub models and native ones. A step's views and its dropout depend on the seed and the step's number
alone, and a checkpoint holds the rest, so a training that was killed goes on to the same weights, bit by bit on a CPU.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import RunError, SettingsError
from ..hub import TRAINING_STATE
from .metrics_log import MetricsLog
from .segmenter_checkpoint import read_facts, read_state, read_tensors, write_state, write_tensors
from .segmenter_model import LossMean, TrainableSegmenter, loss_of
from .segmenter_samples import SampleSet, ViewMaker
from .segmenter_schedule import parameter_groups, rate_factor, warmup_steps
from .segmenter_views import View, ViewRecipe

STATE_FILE = TRAINING_STATE
BEST_FILE = "training-best.safetensors"
SEEDS = 2**63  # torch takes whole numbers below
LOG_EVERY = 50  # ours: steps whose mean loss is one number
VOID_VIEWS = 200  # ours: so many views without any label are no accident


@dataclass(frozen=True)
class SegmenterRecipe:
    """What decides the outcome of a training, besides data and start. Defaults are the VSPW configurations'.

    Attributes:
        steps: In all. Theirs: 160000 from ImageNet weights; ours: fine-tuning.
        batch: Views a step.
        rate: Learning rate of the encoder.
        head_factor: Factor of the head's rate.
        decay: Weight decay of matrices and kernels.
        warmup: Steps of the warm-up; at most a tenth of all.
        crop: Side of the square views.
        smallest: Least factor of the size at inference.
        largest: Greatest factor.
        max_share: A crop whose commonest class has this share is drawn again.
        light: Whether brightness, contrast, saturation and hue vary.
        loss_mean: Whether void pixels count in the mean, see `loss_of`.
        dtype: Number format of the forward pass; weights are float32.
        seed: Of new weights, views and dropout.
    """

    steps: int = 20_000
    batch: int = 8
    rate: float = 6e-5
    head_factor: float = 10.0
    decay: float = 0.01
    warmup: int = 1500
    crop: int = 480
    smallest: float = 0.5
    largest: float = 2.0
    max_share: float = 0.75
    light: bool = True
    loss_mean: LossMean = "all"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.smallest <= self.largest < math.inf:
            raise SettingsError(f"views are {self.smallest} to {self.largest} times the size: give two rising factors")
        if not 0 <= self.seed < SEEDS:
            raise SettingsError(f"--seed is {self.seed}, expected 0 to {SEEDS - 1}")

    @property
    def warmup_steps(self) -> int:
        return warmup_steps(self.steps, self.warmup)

    @property
    def views(self) -> ViewRecipe:
        return ViewRecipe(self.crop, (self.smallest, self.largest), self.max_share, light=self.light)


@dataclass
class TrainingProgress:
    """How far a training is; what a checkpoint says besides tensors.

    Attributes:
        step: Steps done.
        seen: Labelled pixels of views by class.
        void_views: Views without a labelled pixel.
        best_step: Step of the best validation, 0 before the first one.
        best_miou: Its mIoU, -1 before the first one.
        last_miou: mIoU of the last validation.
        losses: Sum of the losses since the last log entry.
        logged: Step of that entry.
        scaler: State of the loss scaling, for float16.
    """

    step: int = 0
    seen: list[int] = field(default_factory=list)
    void_views: int = 0
    best_step: int = 0
    best_miou: float = -1.0
    last_miou: float = -1.0
    losses: float = 0.0
    logged: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)

    def is_valid(self, num_classes: int) -> bool:
        """Tell whether all values are of their kinds, as those of a damaged file may not be."""
        counts = (self.step, self.void_views, self.best_step, self.logged)
        scores = (self.best_miou, self.last_miou, self.losses)
        return (
            isinstance(self.seen, list)
            and len(self.seen) == num_classes
            and all(isinstance(count, int) and count >= 0 for count in (*counts, *self.seen))
            and all(isinstance(score, int | float) for score in scores)
            and isinstance(self.scaler, dict)
        )


@dataclass(frozen=True)
class TrainingPlace:
    """Where a training runs and what it leaves behind on the way; nothing here changes its outcome.

    Attributes:
        out: Folder for checkpoints.
        asked: What was asked for, JSON types; a checkpoint of something else is refused.
        device: Torch device.
        workers: Threads that make views ahead of their use, 0: none.
        save_every: Steps between checkpoints.
        on_step: Told the number of steps done.
    """

    out: Path
    asked: dict[str, Any]
    device: str = "cpu"
    workers: int = 1
    save_every: int = 500
    on_step: Callable[[int], None] = lambda step: None


class SegmenterTraining:
    """One training.

    Args:
        trainable: What is trained; its network is moved to the device.
        samples: What it learns from.
        recipe: How.
        place: Where.
        validate: Gives the mIoU of the network as it is; None: there is no validation, and the last weights count.
        validate_every: Steps between validations; the last step is always validated.
    """

    def __init__(
        self,
        trainable: TrainableSegmenter,
        samples: SampleSet,
        recipe: SegmenterRecipe,
        place: TrainingPlace,
        validate: Callable[[], float] | None = None,
        validate_every: int = 1000,
    ) -> None:
        self.trainable = trainable
        self.recipe = recipe
        self.place = place
        self.progress = TrainingProgress(seen=[0] * trainable.label_space.num_classes)
        self._ignore = trainable.label_space.ignore_index
        self._views = ViewMaker(samples, trainable.network_input, recipe.views, recipe.batch, recipe.seed)
        self._validate = validate
        self._validate_every = validate_every
        trainable.network.to(place.device)
        groups = parameter_groups(trainable.network, recipe.rate, recipe.head_factor, recipe.decay)
        self._optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        self._device_type = torch.device(place.device).type
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=recipe.dtype == "float16")

    def resume(self) -> None:
        """Go on from the checkpoint of `place.out`.

        Raises:
            RunError: If it cannot be read, or other things were asked for then.
        """
        path = self.place.out / STATE_FILE
        facts = read_facts(path)
        asked, then = self.place.asked, facts.get("asked")
        if not isinstance(then, dict):
            raise RunError(f"{path} does not say what was asked for: start anew with --overwrite")
        differing = [key for key in asked if asked[key] != then.get(key)]
        if differing:
            raise RunError(
                f"{path} was begun with other settings ({', '.join(differing)}): ask for the same, start anew with "
                "--overwrite, or choose another --out"
            )
        progress = _progress_of(facts, len(self.progress.seen))
        if progress is None:
            raise RunError(f"{path} does not say how far its training is: start anew with --overwrite")
        read_state(path, self.trainable.network, self._optimiser)
        self.progress = progress
        if self.progress.scaler:
            self._scaler.load_state_dict(self.progress.scaler)

    def run(self, log: MetricsLog) -> None:
        """Train to the end; afterwards the network has the best weights.

        Raises:
            SettingsError: If a loss is not finite, or no view has a label.
            MediaError: If a file cannot be read or written.
        """
        network = self.trainable.network.train()
        batches = self._views.batches(self.progress.step, self.recipe.steps, self.place.workers)
        with _own_randomness(self.place.device), closing(batches):
            for views in batches:
                self._step(views)
                is_last = self.progress.step == self.recipe.steps
                if self._validate is not None and (is_last or self.progress.step % self._validate_every == 0):
                    self._log(log, **self._validated())
                elif is_last or self.progress.step % LOG_EVERY == 0:
                    self._log(log)
                if is_last or self.progress.step % self.place.save_every == 0:
                    self._save()
                self.place.on_step(self.progress.step)
        self._check_labels(at_least=1)
        if self._validate is not None and self.progress.best_step:
            network.load_state_dict(read_tensors(self.place.out / BEST_FILE))
        network.eval()

    def time_step(self) -> float:
        """Make two steps and return the seconds of the second; the network is not fit for use afterwards."""
        self.trainable.network.train()
        seconds = math.nan
        with _own_randomness(self.place.device):
            for step in range(2):
                started = time.perf_counter()
                self._step([self._views.make(step, row) for row in range(self.recipe.batch)])
                if self._device_type == "cuda":
                    torch.cuda.synchronize(self.place.device)
                seconds = time.perf_counter() - started
        return seconds

    def _step(self, views: Sequence[View]) -> None:
        recipe, number = self.recipe, self.progress.step
        factor = rate_factor(number, recipe.steps, recipe.warmup_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, number]).generate_state(1)[0]))
        pixels, labels = self._to_batch(views)
        dtype: torch.dtype = getattr(torch, recipe.dtype)
        with torch.autocast(self._device_type, dtype, enabled=dtype != torch.float32):
            parts = self.trainable.training_logits(pixels)
        loss = loss_of(parts, labels, self._ignore, recipe.loss_mean)
        value = loss.item()
        if not math.isfinite(value):
            raise SettingsError(f"the loss is {value} in step {number + 1}: lower the learning rate, {recipe.rate}")
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.progress.step = number + 1
        self.progress.losses += value
        self._count(views)

    def _to_batch(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Return pixels, float32 (B * T, 3, S, S), zero beyond the pictures, and labels, int64 (B * T, S, S)."""
        device = self.place.device
        frames = torch.from_numpy(np.concatenate([view.frames for view in views])).to(device)
        pixels = self.trainable.network_input.normalize(frames)
        num_frames = len(views[0].frames)
        for row, view in enumerate(views):
            shown = pixels[row * num_frames : (row + 1) * num_frames]
            shown[..., view.size[0] :, :] = 0
            shown[..., view.size[1] :] = 0
        labels = np.concatenate([view.labels for view in views]).astype(np.int64)
        return pixels, torch.from_numpy(labels).to(device)

    def _count(self, views: Sequence[View]) -> None:
        num_classes = len(self.progress.seen)
        for view in views:
            counts = np.bincount(view.labels.ravel(), minlength=num_classes)[:num_classes]
            self.progress.seen = [before + int(new) for before, new in zip(self.progress.seen, counts, strict=True)]
            self.progress.void_views += not counts.any()
        self._check_labels(at_least=VOID_VIEWS)

    def _check_labels(self, at_least: int) -> None:
        num_views = self.progress.step * self.recipe.batch
        if num_views >= at_least and not any(self.progress.seen):
            raise SettingsError(
                f"all {num_views} views so far are void: no pixel of theirs has a class of the "
                f"{len(self.progress.seen)}. Look at the label maps and at the void ids of the label set "
                "(`sam2vss check-data`)"
            )

    def _validated(self) -> dict[str, float]:
        assert self._validate is not None
        network = self.trainable.network.eval()
        miou = self._validate()
        network.train()
        progress = self.progress
        if math.isnan(miou):
            raise SettingsError(
                "the validation clips have no labelled pixel, so nothing can be scored: look at their label maps and "
                "at the void ids of the label set (`sam2vss check-data`)"
            )
        progress.last_miou = miou
        if progress.last_miou > progress.best_miou:
            progress.best_step, progress.best_miou = progress.step, progress.last_miou
            write_tensors(self.place.out / BEST_FILE, network.state_dict(), {"step": progress.step, "miou": miou})
        return {"val_miou": miou}

    def _log(self, log: MetricsLog, **values: float) -> None:
        progress = self.progress
        count = progress.step - progress.logged
        rate = self._optimiser.param_groups[0]["lr"]
        log.write(progress.step, loss=progress.losses / count, rate=rate, **values)
        progress.losses, progress.logged = 0.0, progress.step

    def _save(self) -> None:
        self.progress.scaler = self._scaler.state_dict()
        facts = {"asked": self.place.asked, "progress": asdict(self.progress)}
        write_state(self.place.out / STATE_FILE, self.trainable.network, self._optimiser, facts)


def _progress_of(facts: dict[str, Any], num_classes: int) -> TrainingProgress | None:
    """Return what a checkpoint says of its progress, None where it is something else."""
    try:
        progress = TrainingProgress(**facts["progress"])
    except (KeyError, TypeError):
        return None
    return progress if progress.is_valid(num_classes) else None


@contextmanager
def _own_randomness(device: str) -> Iterator[None]:
    """Leave torch's generators, on the CPU and on this device, as they were."""
    is_cuda = torch.device(device).type == "cuda"
    with torch.random.fork_rng(devices=[torch.device(device)] if is_cuda else []):
        yield
