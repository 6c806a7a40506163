"""Trains the learned fusion on stored features with votes and truth.

What a decision is worth is counted in pixels, each weighted by what it does to the mean IoU: painting class c over a
masklet, or leaving the base labels, raises or lowers the IoU of the classes involved. The network is trained to expect
the most.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..classifiers.classifier import MaskletClassifier
from ..classifiers.fusion import IMPOSSIBLE, MaskletFusion, hear_classifier
from ..errors import SettingsError
from ..masklet_features import MaskletFeatures, MaskletTruth
from ..settings import PoolingPart
from .decisions import (
    Cases,
    Windows,
    best_decisions,
    decided_accuracy,
    decided_miou,
    decision_values,
    majority_decisions,
    make_cases,
)
from .feature_folder import FeatureFolder
from .metrics_log import MetricsLog
from .passes import run_passes


@dataclass(frozen=True)
class FusionRecipe:
    """How a fusion is trained; all ours.

    Attributes:
        uses_features: Look at pooled features too; the network then serves this label set and encoder only.
        parts: Pooled parts used; () means all that are stored.
        levels: Levels used; () means all that are stored.
        may_keep: Whether base labels may be left.
        hidden: Width of the hidden layers.
        dropout: Of the hidden layers.
        spans: Parts of every training window that are taken as windows of their own besides it, each pass anew.
        blends: Bad masklets made of pairs of good ones, as share of the masklets of a window; see `blend`.
        epochs: At most so many passes.
        patience: Passes without a better validation score after which training stops.
        rate: Learning rate of AdamW, falling to 0 along a cosine.
        decay: Weight decay.
        batch: Masklets per step.
        seed: Of weights, order, spans and dropout.
    """

    uses_features: bool = False
    parts: tuple[PoolingPart, ...] = ("mean",)
    levels: tuple[str, ...] = ()
    may_keep: bool = True
    hidden: int = 64
    dropout: float = 0.1
    spans: int = 2
    blends: float = 0.25
    epochs: int = 60
    patience: int = 15
    rate: float = 2e-3
    decay: float = 0.01
    batch: int = 256
    seed: int = 0


@dataclass(frozen=True)
class TrainedFusion:
    """A trained fusion and its scores on validation masklets.

    Attributes:
        network: The best of all passes.
        miou: Mean IoU of the visible pixels of validation masklets.
        majority_miou: The same with majority voting.
        best_miou: The same with the decisions that leave most pixels right; no bound, as mIoU weighs classes alike.
        kept: Share of validation masklets whose base labels are left.
        epochs: Passes made.
    """

    network: MaskletFusion
    miou: float
    majority_miou: float
    best_miou: float
    kept: float
    epochs: int


def train_fusion(
    folder: FeatureFolder,
    train: Windows,
    validation: Windows,
    recipe: FusionRecipe,
    out: Path,
    say: Callable[[dict[str, Any]], None] | None = None,
    classifier: MaskletClassifier | None = None,
) -> TrainedFusion:
    """Train a fusion; writes `metrics.jsonl` and TensorBoard events into `out`, not the network.

    Args:
        folder: Says what the features are.
        train: Windows to learn from.
        validation: Windows that decide when to stop.
        recipe: Everything else.
        out: Folder of the run; made if missing.
        say: Told the numbers of every pass.
        classifier: A trained one whose opinion the fusion hears, in place of the features themselves.

    Raises:
        SettingsError: If there are no votes, no masklets, no truth, or no features where they are asked for, or the
            loss grows beyond all numbers.
    """
    if any(known.votes is None for known, _ in (*train, *validation)):
        raise SettingsError("a fusion weighs base votes: make the features with --labels or --segmenter")
    if recipe.uses_features and folder.encoder is None:
        raise SettingsError(f"{folder.path} holds no features of an encoder: make them with --encoder")
    if classifier is not None:
        _check_classifier(classifier, folder, recipe)
        train, validation = (
            [(hear_classifier(classifier, known), truth) for known, truth in part] for part in (train, validation)
        )
    lessons, held = make_cases(train), make_cases(validation)
    _check_truth("training", lessons)
    _check_truth("validation", held)
    judges = [held, *_blended(validation, recipe)]
    out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]), MetricsLog(out, say) as log:
        torch.manual_seed(recipe.seed)
        network = MaskletFusion(
            label_set=folder.info["label_set"],
            classifier=None if classifier is None else classifier.config,
            encoder=folder.encoder if recipe.uses_features else None,
            stored_parts=list(folder.pooling.parts),
            parts=list(recipe.parts or folder.pooling.parts),
            levels=list(recipe.levels),
            hidden=recipe.hidden,
            dropout=recipe.dropout,
            may_keep=recipe.may_keep,
            known_classes=_known_classes(lessons) if recipe.uses_features else (),
        )
        if classifier is not None and network.classifier is not None:
            network.classifier.load_state_dict(classifier.state_dict())
        network.fit_scale(lessons.evidence.features)
        best, epochs = _train(network, train, judges, recipe, log)
    decisions = best.predict(held.evidence).argmax(axis=1)
    num_classes = held.painted.shape[1]
    return TrainedFusion(
        network=best,
        miou=decided_miou(decisions, held),
        majority_miou=decided_miou(majority_decisions(held), held),
        best_miou=decided_miou(best_decisions(held), held),
        kept=float((decisions == num_classes).mean()),
        epochs=epochs,
    )


def _check_classifier(classifier: MaskletClassifier, folder: FeatureFolder, recipe: FusionRecipe) -> None:
    """Raise `SettingsError` unless the classifier can speak of the features and classes in a folder."""
    if recipe.uses_features:
        raise SettingsError("a fusion looks at features, or hears a classifier that does: pass one of them")
    fingerprint = None if folder.encoder is None else folder.encoder["fingerprint"]
    if fingerprint != classifier.encoder_fingerprint or folder.pooling != classifier.pooling:
        raise SettingsError(
            f"the classifier looks at features of {classifier.encoder_name} ({classifier.encoder_fingerprint}), and "
            f"{folder.path} holds others: train both on the same features"
        )
    if folder.label_space.names != classifier.label_space.names:
        raise SettingsError(f"the classifier names other classes than those of {folder.path}: train both on the same")


def _check_truth(kind: str, cases: Cases) -> None:
    """Raise `SettingsError` if no visible pixel of any masklet has a true class."""
    if not cases.painted.any():
        raise SettingsError(
            f"not one of {len(cases.painted)} {kind} masklets shows a pixel with a true class, so there is nothing to "
            "decide by: take clips that have truth"
        )


def _blended(windows: Windows, recipe: FusionRecipe) -> list[Cases]:
    """Return bad masklets made of the windows' as one set of cases; none where there are none, or none has truth."""
    rng = np.random.default_rng(recipe.seed)
    blends = [mixed for window in windows if (mixed := blend(window, recipe.blends, rng)) is not None]
    cases = [make_cases(blends)] if blends else []
    return [part for part in cases if part.painted.any()]


def _known_classes(lessons: Cases) -> list[int]:
    """Return the classes that are most of some masklet's visible pixels."""
    painted = lessons.painted
    return [int(label) for label in np.unique(painted[painted.any(axis=1)].argmax(axis=1))]


def _train(
    network: MaskletFusion, train: Windows, held: Sequence[Cases], recipe: FusionRecipe, log: MetricsLog
) -> tuple[MaskletFusion, int]:
    """Run the passes; return the network of the best one and their number."""
    rng = np.random.default_rng(recipe.seed)

    def losses_of(epoch: int) -> Iterator[torch.Tensor]:
        windows = [*train, *(cut(window, rng) for _ in range(recipe.spans) for window in train)]
        blends = [blend(window, recipe.blends, rng) for window in windows]
        cases = make_cases([*windows, *(window for window in blends if window is not None)])
        inputs = network.to_tensors(cases.evidence)
        decisions = network.predict(cases.evidence).argmax(axis=1) if epoch > 1 else majority_decisions(cases)
        values = torch.from_numpy(decision_values(cases, decisions).astype(np.float32))
        network.train()
        for rows in torch.from_numpy(rng.permutation(len(values))).split(recipe.batch):
            yield _regret(network(*(part[rows] for part in inputs)), values[rows])

    def judge() -> tuple[float, dict[str, float]]:
        decided = [(network.predict(part.evidence).argmax(axis=1), part) for part in held]
        scores = [(decided_miou(choice, part), decided_accuracy(choice, part)) for choice, part in decided]
        score = float(np.mean(scores))
        return score, {"validation_mask_miou": scores[0][0], "stopping_score": score}

    return run_passes(network, recipe, losses_of, judge, log)


def _regret(logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """What the expected decision falls short of the best one, plus cross entropy with the best one by what is at stake.

    Decisions that the network cannot take do not count: to be drawn to one would only push all others away.

    Args:
        logits: (M, C + 1).
        values: Worth of each decision, (M, C + 1).
    """
    is_possible = logits > IMPOSSIBLE / 2
    best, choice = values.masked_fill(~is_possible, -torch.inf).max(dim=1)
    possible_sum = (values * is_possible).sum(dim=1)
    stake = best - possible_sum / is_possible.sum(dim=1)
    regret = best - (logits.softmax(dim=1) * values).sum(dim=1)
    loss: torch.Tensor = (regret + 0.1 * stake * F.cross_entropy(logits, choice, reduction="none")).mean()
    return loss


def cut(window: tuple[MaskletFeatures, MaskletTruth], rng: np.random.Generator) -> tuple[MaskletFeatures, MaskletTruth]:
    """Return a random part of a window, at least a quarter of it, as a window of its own: more to learn from."""
    known, truth = window
    length = known.window.length
    size = int(rng.integers(max(1, length // 4), length + 1))
    first = int(rng.integers(length - size + 1))
    return known.frames(first, first + size), truth.frames(first, first + size)


def blend(
    window: tuple[MaskletFeatures, MaskletTruth], share: float, rng: np.random.Generator
) -> tuple[MaskletFeatures, MaskletTruth] | None:
    """Return bad masklets made of random pairs of a window's masklets, as if the tracker had taken two things for one.

    So a fusion meets masks as a SAM 2 gives them in scenes that it does not know, and learns from the votes when to
    leave the base labels. A pair has the pixels, votes and truth of both, the box around both, their mean scores and
    the mean of their features by area.

    Args:
        window: N masklets and what is true of them.
        share: Pairs, as a share of N.
        rng: Chooses them.

    Returns:
        The pairs as a window of their own; None where there are none.
    """
    known, truth = window
    count = round(share * known.num_masklets)
    if known.num_masklets < 2 or not count:
        return None
    pairs = np.array([rng.choice(known.num_masklets, 2, replace=False) for _ in range(count)]).T  # (2, pairs)
    areas = known.areas[:, pairs]  # (L, 2, pairs)
    weights = (areas / np.maximum(areas.sum(axis=1, keepdims=True), 1))[..., None].astype(np.float32)
    boxes = np.where(areas[..., None] > 0, known.boxes_xyxy[:, pairs], [1, 1, 0, 0])
    is_seen = (areas.sum(axis=1) > 0)[..., None]
    around = np.concatenate([boxes[..., :2].min(axis=1), boxes[..., 2:].max(axis=1)], axis=-1)
    mixed = replace(
        known,
        ids=np.arange(count),
        predicted_iou=known.predicted_iou[pairs].mean(axis=0),
        stability=known.stability[pairs].mean(axis=0),
        frame_iou=(weights[..., 0] * known.frame_iou[:, pairs]).sum(axis=1),
        areas=areas.sum(axis=1),
        boxes_xyxy=np.where(is_seen, around, 0).astype(np.float32),
        features=(weights * known.features[:, pairs]).sum(axis=1),
        tokens=known.tokens[:, pairs[0]],
        votes=None if known.votes is None else known.votes[:, pairs].sum(axis=1),
        masses=None if known.masses is None else known.masses[:, pairs].sum(axis=1),
    )
    counts = (truth.classes, truth.top_classes, truth.top_base, truth.top_kept)
    return mixed, MaskletTruth(*(part[:, pairs].sum(axis=1) for part in counts))
