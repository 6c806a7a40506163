"""What decisions on masklets are worth: pixels right and wrong, and what they do to the mean IoU.

`fusion.py` trains by it. A decision is a class that is painted over a masklet, or that the base labels stay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..classifiers.fusion import Evidence, weigh_evidence
from ..errors import SettingsError
from ..masklet_features import MaskletFeatures, MaskletTruth

SMALLEST_UNION = 1000  # ours: a class of fewer pixels than this part of all would decide on everything
Windows = Sequence[tuple[MaskletFeatures, MaskletTruth]]


@dataclass(frozen=True, eq=False)
class Cases:
    """Masklets to decide on.

    Attributes:
        evidence: Of M masklets.
        painted: int64 (M, C), visible pixels of each true class: right if the class is painted.
        base: int64 (M, C), base labels of the same pixels.
        kept: int64 (M, C), base labels that are right.
    """

    evidence: Evidence
    painted: np.ndarray
    base: np.ndarray
    kept: np.ndarray


def make_cases(windows: Windows) -> Cases:
    """Join the masklets of windows.

    Raises:
        SettingsError: If there are none.
    """
    parts = [weigh_evidence(known) for known, _ in windows]
    if not sum(len(part) for part in parts):
        raise SettingsError("there is no masklet in these clips: lower --pred-iou or --stability, or take other clips")
    columns = ("masklets", "votes", "signs", "features")
    joined = Evidence(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns})
    return Cases(joined, *_counts(parts, [truth for _, truth in windows]))


def _counts(parts: Sequence[Evidence], truths: Sequence[MaskletTruth]) -> list[np.ndarray]:
    """Sum the visible pixels of each masklet over its window: true, base and right, each int64 (M, C)."""
    return [
        np.concatenate([getattr(t, name).sum(axis=0)[part.masklets] for part, t in zip(parts, truths, strict=True)])
        for name in ("top_classes", "top_base", "top_kept")
    ]


def majority_decisions(cases: Cases) -> np.ndarray:
    """Return the class with most votes, int64 (M,), as the plain vote decides; C where there are no votes."""
    shares = cases.evidence.votes[..., 0]
    classes: np.ndarray = np.where(shares.any(axis=1), shares.argmax(axis=1), shares.shape[1])
    return classes


def best_decisions(cases: Cases) -> np.ndarray:
    """Return the decision that leaves most visible pixels right, int64 (M,): a class, or C for the base labels."""
    is_kept = cases.kept.sum(axis=1) > cases.painted.max(axis=1)
    decisions: np.ndarray = np.where(is_kept, cases.painted.shape[1], cases.painted.argmax(axis=1))
    return decisions


def decision_values(cases: Cases, decisions: np.ndarray, is_cautious: bool = True) -> np.ndarray:
    """Return what each decision is worth, float64 (M, C + 1): painting class c, or (last) leaving the base labels.

    To first order a pixel that is named c raises the mean IoU by 1 / U_c if it is right and lowers it by IoU_c / U_c
    if it is wrong, where IoU_c and the union U_c are those under the given decisions, int64 (M,). Painting a class that
    is never hit would cost nothing, though it may be hit outside all masklets; so, unless `is_cautious` is False, a
    wrong pixel costs at least the mean IoU / U_c, and U_c is at least a thousandth of all pixels. Scaled so that the
    best decision is worth 1 more than the worst on average.

    Source: ours.
    """
    hits, true, named = _count_pixels(decisions, cases)
    union = true + named - hits
    iou = hits / np.maximum(union, 1)
    if is_cautious:
        iou = np.maximum(iou, iou[true > 0].mean() if (true > 0).any() else 0.0)
    smallest = int(true.sum()) // SMALLEST_UNION if is_cautious else 1
    worth = 1 / np.maximum(union, max(1, smallest))
    pixels = cases.painted.sum(axis=1, keepdims=True)
    paint = (cases.painted - iou * (pixels - cases.painted)) * worth
    keep = ((cases.kept - iou * (cases.base - cases.kept)) * worth).sum(axis=1)
    values = np.concatenate([paint, keep[:, None]], axis=1)
    spread = float(np.mean(values.max(axis=1) - values.min(axis=1)))
    return values / spread if spread > 0 else values


def _count_pixels(decisions: np.ndarray, cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the visible pixels of each class that are right, true and named so under decisions, int64 (C,) each."""
    num_classes = cases.painted.shape[1]
    is_kept = decisions == num_classes
    painted, classes = cases.painted[~is_kept], decisions[~is_kept]
    hits = np.bincount(classes, painted[np.arange(len(classes)), classes], num_classes)
    named = np.bincount(classes, painted.sum(axis=1), num_classes)
    hits, named = hits + cases.kept[is_kept].sum(axis=0), named + cases.base[is_kept].sum(axis=0)
    return hits.astype(np.int64), cases.painted.sum(axis=0), named.astype(np.int64)


def decided_miou(decisions: np.ndarray, cases: Cases) -> float:
    """Mean IoU of the visible pixels of masklets under some decisions, int64 (M,): a class, or C for the base labels.

    Base labels that are no class count as misses. Source: ours.
    """
    hits, true, named = _count_pixels(decisions, cases)
    seen = true > 0
    return float((hits[seen] / (true + named - hits)[seen]).mean()) if seen.any() else math.nan


def decided_accuracy(decisions: np.ndarray, cases: Cases) -> float:
    """Share of the visible pixels of masklets that are right under some decisions, [0, 1]; see `decided_miou`."""
    hits, true, _ = _count_pixels(decisions, cases)
    return float(hits.sum() / true.sum()) if true.any() else math.nan
