"""How sure a difference is: paired bootstrap over clips.

Clips are drawn with replacement, the same ones for both sides, and the score is computed anew from the summed counts
of the drawn clips. Frames of a clip are far from independent, so frames are not drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import MissingPredictionsError, SettingsError
from .counts import ClipCounts
from .scores import find_protocol, find_statistics

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Refined minus base, with its 95 % interval.

    Attributes:
        statistic: Name of the score.
        difference: Difference of the scores over all clips; NaN if one is undefined.
        mean: Mean difference over the resamples, None without an interval.
        interval: Lower and upper end, None when there are fewer than two clips or the score is undefined.
        clips: Number of clips.
        resamples: Resamples in which both scores were defined.
    """

    statistic: str
    difference: float
    mean: float | None
    interval: tuple[float, float] | None
    clips: int
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval exists and lies on one side of zero."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def __str__(self) -> str:
        """Say it in percentage points, e.g. "+1.20 [+0.40, +2.10], 20 clips"."""
        if self.interval is None:
            reason = f"{self.clips} clip" + ("s" if self.clips != 1 else "") + ", no interval"
            return f"{100 * self.difference:+.2f} ({reason})"
        low, high = (100 * end for end in self.interval)
        return f"{100 * self.difference:+.2f} [{low:+.2f}, {high:+.2f}], {self.clips} clips"


def paired_bootstrap(
    base_counts: Mapping[str, ClipCounts],
    refined_counts: Mapping[str, ClipCounts],
    statistic: str = "mIoU",
    seed: int = 0,
    n: int = 2000,
    protocol: str = "vspw",
) -> PairedDifference:
    """Estimate the difference of a score between two sets of predictions for the same clips.

    Args:
        base_counts: `VideoSegMetrics.counts` of the first set.
        refined_counts: The same of the second set.
        statistic: A name from `Scores.as_dict`, e.g. "mIoU", "mBIoU", "mVC16".
        seed: Seed of the draws.
        n: Number of resamples.
        protocol: As for `VideoSegMetrics.compute`.

    Raises:
        MissingPredictionsError: If the two do not cover the same clips and frames.
        SettingsError: If the statistic or the protocol is unknown, or n is not positive.
    """
    _check_same_clips(base_counts, refined_counts)
    if n < 1:
        raise SettingsError(f"the number of resamples must be at least 1, found {n}")
    min_frames = find_protocol(protocol).min_frames
    clips = [clip for clip, counts in base_counts.items() if counts.frames >= min_frames]
    windows = sorted({window for counts in base_counts.values() for window in counts.windows})
    known = find_statistics(protocol, windows)
    if statistic not in known:
        raise SettingsError(f"unknown statistic {statistic!r}; choose one of {', '.join(known)}")
    if not clips:
        return PairedDifference(statistic, float("nan"), None, None, 0, 0)
    rule = known[statistic]
    base = np.stack([rule.summands(base_counts[clip]) for clip in clips])
    refined = np.stack([rule.summands(refined_counts[clip]) for clip in clips])
    difference = float(rule.value(refined.sum(axis=0)) - rule.value(base.sum(axis=0)))
    if len(clips) < 2:
        return PairedDifference(statistic, difference, None, None, len(clips), 0)

    draws = np.random.default_rng(seed).integers(0, len(clips), (n, len(clips)))
    weights = np.zeros((n, len(clips)))
    np.add.at(weights, (np.arange(n)[:, None], draws), 1)
    differences = rule.value(weights @ refined) - rule.value(weights @ base)
    differences = differences[~np.isnan(differences)]
    if not differences.size:
        return PairedDifference(statistic, difference, None, None, len(clips), 0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences, (tail, 1 - tail))
    return PairedDifference(
        statistic, difference, float(differences.mean()), (float(low), float(high)), len(clips), len(differences)
    )


def _check_same_clips(base: Mapping[str, ClipCounts], refined: Mapping[str, ClipCounts]) -> None:
    for clip in [*base, *refined]:
        if clip not in base or clip not in refined:
            side = "the first" if clip in base else "the second"
            raise MissingPredictionsError(
                f"clip {clip!r} is only in {side} of the two sets; score both on the same clips"
            )
        if base[clip].frames != refined[clip].frames or base[clip].confusion.sum() != refined[clip].confusion.sum():
            raise MissingPredictionsError(
                f"clip {clip!r} has {base[clip].frames} and {refined[clip].frames} frames, or other truth; "
                "score both sets on the same frames"
            )
