"""Paired bootstrap over clips for any score that is computed from sums over clips."""

from collections.abc import Callable

import numpy as np

from ..errors import SettingsError, ShapeError
from .bootstrap import CONFIDENCE, PairedDifference


def bootstrap_sums(
    statistic: str,
    base: np.ndarray,
    other: np.ndarray,
    value: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    n: int = 2000,
) -> PairedDifference:
    """Estimate the difference of a score between two sets of labels for the same clips.

    Clips are drawn with replacement, the same ones for both sides. Clips that add nothing on either side (of one frame
    only, say) are not drawn and not counted.

    Args:
        statistic: Name of the score.
        base: What each clip adds to the sums of the first set, (clips, K).
        other: The same of the second set.
        value: Turns sums (..., K) into scores (...), NaN where undefined.
        seed: Seed of the draws.
        n: Number of resamples.

    Raises:
        ShapeError: If the two sides differ in shape.
        SettingsError: If n is not positive.
    """
    base, other = np.asarray(base, np.float64), np.asarray(other, np.float64)
    if base.shape != other.shape or base.ndim != 2:
        raise ShapeError(f"sums of clips have shapes {base.shape} and {other.shape}, expected (clips, K) twice")
    if n < 1:
        raise SettingsError(f"the number of resamples must be at least 1, found {n}")
    adds_something = base.any(axis=1) | other.any(axis=1)
    base, other = base[adds_something], other[adds_something]
    clips = len(base)
    difference = float(value(other.sum(axis=0)) - value(base.sum(axis=0)))
    if clips < 2:
        return PairedDifference(statistic, difference, mean=None, interval=None, clips=clips, resamples=0)
    draws = np.random.default_rng(seed).integers(0, clips, (n, clips))
    weights = np.zeros((n, clips))
    np.add.at(weights, (np.arange(n)[:, None], draws), 1)
    differences = value(weights @ other) - value(weights @ base)
    differences = differences[~np.isnan(differences)]
    if not differences.size:
        return PairedDifference(statistic, difference, mean=None, interval=None, clips=clips, resamples=0)
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(differences, (tail, 1 - tail)))
    return PairedDifference(
        statistic, difference, mean=float(differences.mean()), interval=(low, high), clips=clips,
        resamples=len(differences),
    )  # fmt: skip


def divide_sums(sums: np.ndarray) -> np.ndarray:
    """Turn sums (..., 2) into their ratio (...), NaN where the second is 0."""
    quotient = np.full(sums.shape[:-1], np.nan)
    np.divide(sums[..., 0], sums[..., 1], out=quotient, where=sums[..., 1] > 0)
    return quotient
