"""Trains classifiers of masklets on stored features: cross entropy, balanced classes, stopped by validation clips."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ..classifiers.classifier import MaskletClassifier, mix_votes
from ..classifiers.samples import Samples, join_samples, make_samples
from ..errors import SettingsError
from ..masklet_features import MaskletFeatures, MaskletTruth
from ..settings import FrameWeighting, HeadName, PoolingPart, VoteScope
from .feature_folder import FeatureFolder
from .metrics_log import MetricsLog
from .passes import run_passes

MIN_LABELLED = 0.5  # ours: share of a mask that must have a true class before it teaches anything
CLIPS_TO_SPLIT = 10  # ours: from so many clips on, whole clips are held out for validation
VOTE_WEIGHTS = np.linspace(0, 1, 21)  # tried for the combination with base votes

Balance = Literal["none", "sqrt", "inverse"]


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is trained. Defaults: the paper's (Eq. 3, an MLP); what the paper leaves open is ours.

    Attributes:
        head: "linear", "mlp" or "context".
        scope: "frame" (Eq. 3) or "window".
        weighting: How frames are averaged with scope "window".
        parts: Pooled parts used; () means all that are stored.
        levels: Levels used; () means all that are stored.
        uses_tokens: Use attention pooling of the stored cells.
        uses_shape: Use position, size and quality of the masks.
        hidden: Width of the hidden layer.
        dropout: Of the hidden layer.
        purity: Share of a mask's labelled pixels that its majority class needs to teach.
        balance: Weight of a class by its number of masklets n: "none" 1, "sqrt" n^-1/2, "inverse" n^-1.
        epochs: At most so many passes.
        patience: Passes without a better validation score after which training stops.
        rate: Learning rate of AdamW, falling to 0 along a cosine.
        decay: Weight decay.
        batch: Rows per step, at least; a group is never split.
        seed: Of weights, order and dropout.
    """

    head: HeadName = "mlp"
    scope: VoteScope = "frame"
    weighting: FrameWeighting = "uniform"
    parts: tuple[PoolingPart, ...] = ("mean",)
    levels: tuple[str, ...] = ()
    uses_tokens: bool = False
    uses_shape: bool = False
    hidden: int = 256
    dropout: float = 0.1
    purity: float = 0.6
    balance: Balance = "sqrt"
    epochs: int = 40
    patience: int = 8
    rate: float = 1e-3
    decay: float = 0.01
    batch: int = 512
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Lessons:
    """Rows and what is true of them.

    Attributes:
        samples: M rows.
        truth: int64 (M, C), true classes under the mask.
        votes: int64 (M, C), base votes; None without base labels.
        areas: int64 (M,), pixels of the mask.
    """

    samples: Samples
    truth: np.ndarray
    votes: np.ndarray | None
    areas: np.ndarray

    def targets(self, purity: float) -> np.ndarray:
        """Return the class each row teaches, int64 (M,); -1 where the mask is mixed or mostly void."""
        labelled = self.truth.sum(axis=1)
        share = self.truth.max(axis=1, initial=0) / np.maximum(labelled, 1)
        teaches = (labelled >= MIN_LABELLED * self.areas) & (labelled > 0) & (share >= purity)
        return np.where(teaches, self.truth.argmax(axis=1), -1)


def make_lessons(
    windows: Sequence[tuple[MaskletFeatures, MaskletTruth]], scope: VoteScope, weighting: FrameWeighting
) -> Lessons:
    """Join the rows of windows with their truth.

    Raises:
        SettingsError: If there is no row at all.
    """
    parts = [make_samples(known, scope, weighting) for known, _ in windows]
    if not sum(len(part) for part in parts):
        raise SettingsError("there is no masklet in these clips: lower --pred-iou or --stability, or take other clips")
    rows = [
        [_rows(array, part) for array in (truth.classes, known.votes, known.areas[..., None])]
        for part, (known, truth) in zip(parts, windows, strict=True)
    ]
    truth, votes, areas = (list(column) for column in zip(*rows, strict=True))
    has_votes = all(known.votes is not None for known, _ in windows)
    return Lessons(
        join_samples(parts),
        np.concatenate(truth),
        np.concatenate(votes) if has_votes else None,
        np.concatenate(areas)[:, 0],
    )


def _rows(counts: np.ndarray | None, samples: Samples) -> np.ndarray | None:
    """Take the counts (L, N, C) of rows: of a frame, or summed over the window."""
    if counts is None:
        return None
    if (samples.frames >= 0).all():
        chosen: np.ndarray = counts[samples.frames, samples.masklets]
        return chosen
    summed: np.ndarray = counts.sum(axis=0)[samples.masklets]
    return summed


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier and its scores on validation rows.

    Attributes:
        network: The best of all passes.
        miou: Mean IoU of pixels under validation masks, each mask as a whole given one class.
        accuracy: Share of validation masks that teach and are named right.
        epochs: Passes made.
    """

    network: MaskletClassifier
    miou: float
    accuracy: float
    epochs: int


def split_windows_of(
    folder: FeatureFolder, share: float = 0.1
) -> tuple[list[tuple[MaskletFeatures, MaskletTruth]], list[tuple[MaskletFeatures, MaskletTruth]]]:
    """Read stored windows, part of them for validation.

    These are the last clips where there are ten or more, else the last windows of every clip, or the last frames of a
    clip's only window.

    Raises:
        SettingsError: If every clip is a single frame.
    """
    clips: dict[str, list[tuple[MaskletFeatures, MaskletTruth]]] = {}
    for name, known, truth in folder.read():
        clips.setdefault(name, []).append((known, truth))
    if len(clips) >= CLIPS_TO_SPLIT:
        names = list(clips)
        held = set(names[-math.ceil(share * len(names)) :])
        return (
            [window for name in names if name not in held for window in clips[name]],
            [window for name in names if name in held for window in clips[name]],
        )
    train, validation = [], []
    for windows in clips.values():
        if len(windows) > 1:
            count = math.ceil(share * len(windows))
            train += windows[: len(windows) - count]
            validation += windows[len(windows) - count :]
            continue
        ((known, truth),) = windows
        length = known.window.length
        stop = length - math.ceil(share * length) if length > 1 else length
        train.append((known.frames(0, stop), truth.frames(0, stop)))
        if stop < length:
            validation.append((known.frames(stop, length), truth.frames(stop, length)))
    if not validation:
        raise SettingsError("every clip is a single frame, so none is left for validation: pass --val-data")
    return train, validation


def name_held_out(folder: FeatureFolder) -> str:
    """Say what `split_windows_of` holds out of a folder: "last clips", "last windows", "last frames", or a mixture."""
    counts = [len(folder.info["done"].get(name, ())) for name in folder.info["clips"]]
    if len(counts) >= CLIPS_TO_SPLIT:
        return "last clips"
    kinds = [kind for kind, is_met in (("windows", max(counts) > 1), ("frames", min(counts) == 1)) if is_met]
    return f"last {' or '.join(kinds)}"


def read_windows(folder: FeatureFolder) -> list[tuple[MaskletFeatures, MaskletTruth]]:
    """Read all stored windows."""
    return [(known, truth) for _, known, truth in folder.read()]


def train_classifier(
    folder: FeatureFolder,
    train: Sequence[tuple[MaskletFeatures, MaskletTruth]],
    validation: Sequence[tuple[MaskletFeatures, MaskletTruth]],
    recipe: ClassifierRecipe,
    out: Path,
    say: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedClassifier:
    """Train a classifier; writes `metrics.jsonl` and TensorBoard events into `out`, not the network.

    Validation: every mask is given one class as a whole, and the mean IoU of all pixels under masks is taken. Where
    base votes are stored, the weight that serves best beside the classifier is found on the same clips and kept with
    the network.

    Args:
        folder: Says what the features are.
        train: Windows to learn from.
        validation: Windows that decide when to stop.
        recipe: Everything else.
        out: Folder of the run; made if missing.
        say: Told the numbers of every pass.

    Raises:
        SettingsError: If there is nothing to learn from or to validate on, or the loss grows beyond all numbers.
    """
    if folder.encoder is None:
        raise SettingsError(f"{folder.path} holds no features of an encoder: make them with --encoder")
    if recipe.uses_tokens and not folder.pooling.tokens:
        raise SettingsError(f"{folder.path} holds no single cells for --use-tokens: make the features with --tokens 16")
    lessons = make_lessons(train, recipe.scope, recipe.weighting)
    held = make_lessons(validation, recipe.scope, recipe.weighting)
    targets = lessons.targets(recipe.purity)
    if not (targets >= 0).any():
        raise SettingsError(
            f"not one of {len(targets)} training masks has a true class with a share of {recipe.purity}: lower --purity"
        )
    if not held.truth.any():
        raise SettingsError(
            f"not one of {len(held.truth)} validation masks lies on labelled pixels, so nothing says when to stop: "
            "pass --val-data with clips that have truth"
        )
    out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]), MetricsLog(out, say) as log:
        torch.manual_seed(recipe.seed)
        network = _new_network(folder, recipe, np.unique(targets[targets >= 0]))
        network.fit_scale(lessons.samples.features[targets >= 0])
        best, epochs = _train(network, lessons, targets, held, recipe, log)
    probabilities = best.predict(held.samples)
    best.note(vote_weight=fit_vote_weight(probabilities, held))
    is_known = held.targets(recipe.purity) >= 0
    hits = probabilities.argmax(axis=1) == held.targets(recipe.purity)
    return TrainedClassifier(
        network=best,
        miou=mask_miou(probabilities, held.truth),
        accuracy=float(hits[is_known].mean()) if is_known.any() else math.nan,
        epochs=epochs,
    )


def _new_network(folder: FeatureFolder, recipe: ClassifierRecipe, known: np.ndarray) -> MaskletClassifier:
    assert folder.encoder is not None
    return MaskletClassifier(
        label_set=folder.info["label_set"],
        encoder=folder.encoder,
        stored_parts=list(folder.pooling.parts),
        parts=list(recipe.parts or folder.pooling.parts),
        levels=list(recipe.levels),
        tokens=folder.pooling.tokens if recipe.uses_tokens else 0,
        uses_shape=recipe.uses_shape,
        head=recipe.head,
        scope=recipe.scope,
        weighting=recipe.weighting,
        hidden=recipe.hidden,
        dropout=recipe.dropout,
        known_classes=known.tolist(),
    )


def _train(
    network: MaskletClassifier,
    lessons: Lessons,
    targets: np.ndarray,
    held: Lessons,
    recipe: ClassifierRecipe,
    log: MetricsLog,
) -> tuple[MaskletClassifier, int]:
    """Run the passes; return the network of the best one and their number."""
    inputs = network.to_tensors(lessons.samples)
    goal = torch.from_numpy(targets)
    weights = class_weights(targets, network.label_space.num_classes, recipe.balance)
    rng = np.random.default_rng(recipe.seed)

    def losses_of(epoch: int) -> Iterator[torch.Tensor]:
        network.train()
        for rows in group_batches(lessons.samples.groups, recipe.batch, rng):
            if (goal[rows] >= 0).any():
                yield F.cross_entropy(network(*(part[rows] for part in inputs)), goal[rows], weights, ignore_index=-1)

    def judge() -> tuple[float, dict[str, float]]:
        score = mask_miou(network.predict(held.samples), held.truth)
        return score, {"validation_mask_miou": score}

    return run_passes(network, recipe, losses_of, judge, log)


def group_batches(groups: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield rows, int64 tensors, in random order of their groups: whole groups together, at least `size` rows."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    waiting: list[np.ndarray] = []
    for number in rng.permutation(len(parts)):
        waiting.append(parts[number])
        if sum(map(len, waiting)) >= size:
            yield torch.from_numpy(np.concatenate(waiting))
            waiting = []
    if waiting:
        yield torch.from_numpy(np.concatenate(waiting))


def class_weights(targets: np.ndarray, num_classes: int, balance: Balance) -> torch.Tensor:
    """Return a weight per class, float32 (C,), that averages 1 over the rows that teach; absent classes have 1."""
    counts = np.bincount(targets[targets >= 0], minlength=num_classes)
    power = {"none": 0.0, "sqrt": -0.5, "inverse": -1.0}[balance]
    weights = np.where(counts > 0, np.maximum(counts, 1).astype(float) ** power, 1.0)
    seen = counts > 0
    weights[seen] *= counts.sum() / (weights * counts)[seen].sum()
    return torch.from_numpy(weights.astype(np.float32))


def mask_miou(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean IoU of the pixels under masks when each is given its best class as a whole, [0, 1].

    Args:
        scores: (M, C).
        truth: Pixels of each true class under each mask, int64 (M, C).

    Returns:
        Mean over the classes that are true somewhere; NaN where none is. Overlaps count for every mask.

    Source: ours.
    """
    num_classes = truth.shape[1]
    confusion = np.zeros((num_classes, num_classes))
    np.add.at(confusion.T, scores.argmax(axis=1), truth)
    hits, true, named = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    seen = true > 0
    return float((hits[seen] / (true + named - hits)[seen]).mean()) if seen.any() else math.nan


def fit_vote_weight(probabilities: np.ndarray, held: Lessons) -> float | None:
    """Return the weight of base votes beside class probabilities (M, C) that gives the best `mask_miou`, [0, 1].

    None where there are no base votes. Of equals the smallest weight is taken.
    """
    if held.votes is None:
        return None
    scores = [mask_miou(mix_votes(probabilities, held.votes, weight), held.truth) for weight in VOTE_WEIGHTS]
    return round(float(VOTE_WEIGHTS[int(np.argmax(scores))]), 3)
