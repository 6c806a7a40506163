"""From counts to scores without ground truth, and how sure their differences are."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import MissingPredictionsError, SettingsError
from .bootstrap import PairedDifference
from .bootstrap_sums import bootstrap_sums, divide_sums
from .confusion import region_sums
from .stability_counts import AGREEING, COMPARED, FLIPPED, StabilityCounts


@dataclass(frozen=True)
class StabilityScores:
    """Scores of a set of clips, fractions in [0, 1]; NaN where there is nothing to count.

    Attributes:
        flip_rate: Share of pixels whose label differs from the frame before; unlabelled counts as a label.
        flow_consistency: mIoU between labels and those of the next frame brought back along flow, over the classes of
            the former, from counts over all clips. Pixels that leave the picture, are hidden in the next frame or
            unlabelled in this one are left out; those unlabelled in the next one count as errors.
        flow_agreement: Share of the same pixels whose label is the same.
        tc: The same mIoU as the script `TC_cal.py` has it: all pixels, those that flow leads out are class 0 in the
            next frame, sampling as in `warping.warp_back_as_tc_script`. With flow of RAFT (20 iterations) this is the
            published TC, as long as everything is labelled: what the script does with other values is not repeated.
        compared_share: Share of pixels that were compared along flow.
        unlabelled_share: Share of pixels without a class.
        frames: Frames counted.
        clips: Clips counted.
        flow_name: Name of the flow function, part of the names of all scores that depend on it.
    """

    flip_rate: float
    flow_consistency: float
    flow_agreement: float
    tc: float
    compared_share: float
    unlabelled_share: float
    frames: int
    clips: int
    flow_name: str = ""

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by name; undefined ones are None, those along flow are there if it has a name."""
        named = {"flip_rate": self.flip_rate, "unlabelled_share": self.unlabelled_share}
        if self.flow_name:
            named |= {
                f"flow_consistency_{self.flow_name}": self.flow_consistency,
                f"flow_agreement_{self.flow_name}": self.flow_agreement,
                f"tc_{self.flow_name}": self.tc,
                "compared_share": self.compared_share,
            }
        return {name: None if math.isnan(score) else score for name, score in named.items()}


@dataclass(frozen=True)
class ClassStability:
    """Steadiness of one class.

    Attributes:
        flip_rate: Share of its pixels that have another label in the next frame; NaN without pixels.
        flow_iou: Its IoU in `StabilityScores.flow_consistency`; NaN where it does not occur.
        pixels: Its pixels over all frames.
    """

    flip_rate: float
    flow_iou: float
    pixels: int


@dataclass(frozen=True)
class _Statistic:
    """A score that is a function of sums over clips: what a clip adds, (K,), and sums (..., K) to scores (...)."""

    summands: Callable[[StabilityCounts], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def _flip_sums(clip: StabilityCounts) -> np.ndarray:
    return np.array([clip.pairs[:, FLIPPED].sum(), clip.transitions.sum()], np.float64)


def _agreement_sums(clip: StabilityCounts) -> np.ndarray:
    return np.array([clip.pairs[:, AGREEING].sum(), clip.pairs[:, COMPARED].sum()], np.float64)


def _compared_sums(clip: StabilityCounts) -> np.ndarray:
    return np.array([clip.pairs[:, COMPARED].sum(), clip.transitions.sum()], np.float64)


def _unlabelled_sums(clip: StabilityCounts) -> np.ndarray:
    return np.array([clip.labels[-1], clip.labels.sum()], np.float64)


def _followed_sums(clip: StabilityCounts) -> np.ndarray:
    return region_sums(clip.followed).ravel().astype(np.float64)


def _tc_sums(clip: StabilityCounts) -> np.ndarray:
    return clip.tc.ravel().astype(np.float64)


def _class_ious(sums: np.ndarray) -> np.ndarray:
    """IoU per class from sums (..., 3 C); NaN for classes that do not occur in the first of the two frames."""
    parts = sums.reshape(*sums.shape[:-1], 3, -1)
    both, first, second = (parts[..., row, :] for row in range(3))
    return np.where(first > 0, divide_sums(np.stack([both, first + second - both], axis=-1)), np.nan)


def _mean_iou(sums: np.ndarray) -> np.ndarray:
    ious = _class_ious(sums)
    occurs = ~np.isnan(ious)
    return divide_sums(np.stack([np.where(occurs, ious, 0.0).sum(axis=-1), occurs.sum(axis=-1)], axis=-1))


_STATISTICS: Final[Mapping[str, _Statistic]] = {
    "flip_rate": _Statistic(_flip_sums, divide_sums),
    "flow_consistency": _Statistic(_followed_sums, _mean_iou),
    "flow_agreement": _Statistic(_agreement_sums, divide_sums),
    "tc": _Statistic(_tc_sums, _mean_iou),
    "compared_share": _Statistic(_compared_sums, divide_sums),
    "unlabelled_share": _Statistic(_unlabelled_sums, divide_sums),
}
STABILITY_STATISTICS: Final = tuple(_STATISTICS)


def score_stability(clips: Sequence[StabilityCounts], num_classes: int, flow_name: str = "") -> StabilityScores:
    """Score a set of clips, which may be empty."""
    summed = [*clips, StabilityCounts.empty(num_classes)]

    def score(name: str) -> float:
        rule = _STATISTICS[name]
        return float(rule.value(np.sum([rule.summands(clip) for clip in summed], axis=0)))

    return StabilityScores(
        flip_rate=score("flip_rate"),
        flow_consistency=score("flow_consistency"),
        flow_agreement=score("flow_agreement"),
        tc=score("tc"),
        compared_share=score("compared_share"),
        unlabelled_share=score("unlabelled_share"),
        frames=sum(clip.frames for clip in clips),
        clips=len(clips),
        flow_name=flow_name,
    )


def score_stability_classes(clips: Sequence[StabilityCounts], num_classes: int) -> tuple[ClassStability, ...]:
    """Score every class over a set of clips, in the order of train ids."""
    summed = [*clips, StabilityCounts.empty(num_classes)]
    transitions = np.sum([clip.transitions for clip in summed], axis=0)[:-1]
    ious = _class_ious(np.sum([region_sums(clip.followed).ravel() for clip in summed], axis=0))
    pixels = np.sum([clip.labels for clip in summed], axis=0)[:-1]
    kept, total = np.diagonal(transitions), transitions.sum(axis=1)
    flips = divide_sums(np.stack([total - kept, total], axis=-1))
    return tuple(ClassStability(float(f), float(i), int(p)) for f, i, p in zip(flips, ious, pixels, strict=True))


def stability_bootstrap(
    base: Mapping[str, StabilityCounts],
    other: Mapping[str, StabilityCounts],
    statistic: str = "flow_consistency",
    seed: int = 0,
    n: int = 2000,
) -> PairedDifference:
    """Estimate the difference of a score between two sets of labels of the same clips.

    Args:
        base: `StabilityMetrics.counts` of the first set.
        other: The same of the second set.
        statistic: One of `STABILITY_STATISTICS`.
        seed: Seed of the draws.
        n: Number of resamples.

    Raises:
        MissingPredictionsError: If the two do not cover the same clips and frames.
        SettingsError: If the statistic is unknown, or n is not positive.
    """
    if statistic not in _STATISTICS:
        raise SettingsError(f"unknown statistic {statistic!r}; choose one of {', '.join(STABILITY_STATISTICS)}")
    for clip in [*base, *other]:
        if clip not in base or clip not in other:
            raise MissingPredictionsError(f"clip {clip!r} is only in one of the two sets; score both on the same clips")
        if (base[clip].frames, base[clip].size) != (other[clip].frames, other[clip].size):
            raise MissingPredictionsError(
                f"clip {clip!r} has {base[clip].frames} and {other[clip].frames} frames of {base[clip].size} and "
                f"{other[clip].size}; score both sets on the same frames"
            )
    rule = _STATISTICS[statistic]
    if not base:
        return PairedDifference(statistic, math.nan, mean=None, interval=None, clips=0, resamples=0)
    first, second = (np.stack([rule.summands(side[clip]) for clip in base]) for side in (base, other))
    return bootstrap_sums(statistic, first, second, rule.value, seed, n)
