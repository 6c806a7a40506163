"""How sure a score or a difference is: bootstrap over clips.

Clips are drawn with replacement, for a difference the same ones for both sides, and the score is computed anew from
the summed counts of the drawn clips. Frames of a clip are far from independent, so frames are not drawn. All scores
of a call, and all calls with the same seed and number of clips, see the same draws.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import MissingPredictionsError, SettingsError
from .counts import ClipCounts
from .protocols import find_protocol
from .statistics import Statistic, Summands, find_statistics

CONFIDENCE: Final = 0.95
FEW_CLIPS: Final = 6  # ours: below it such intervals hold the true value far less often, docs/evaluation.md
DRAWS_AT_ONCE: Final = 500  # bounds the memory: (draws, 4 C) sums for the widest score


@dataclass(frozen=True)
class ScoreInterval:
    """A score with its 95 % interval.

    Attributes:
        statistic: Name of the score.
        score: Over all clips; NaN if undefined.
        interval: Lower and upper end, None when there are fewer than two clips or the score is undefined.
        clips: Number of clips.
        resamples: Resamples in which the score was defined.
    """

    statistic: str
    score: float
    interval: tuple[float, float] | None
    clips: int
    resamples: int

    def __str__(self) -> str:
        """Say it in percent, e.g. "41.20 [39.80, 42.90], 20 clips"."""
        return _text(self.score, self.interval, self.clips, sign="")


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
    def is_clear(self) -> bool:
        """Whether the interval lies on one side of zero and rests on enough clips to be believed."""
        if self.interval is None or self.clips < FEW_CLIPS:
            return False
        return self.interval[0] > 0 or self.interval[1] < 0

    def __str__(self) -> str:
        """Say it in percentage points, e.g. "+1.20 [+0.40, +2.10], 20 clips"."""
        return _text(self.difference, self.interval, self.clips, sign="+")


def paired_bootstrap(
    base_counts: Mapping[str, ClipCounts],
    refined_counts: Mapping[str, ClipCounts],
    statistic: str = "mIoU",
    seed: int = 0,
    n: int = 2000,
    protocol: str = "vspw",
) -> PairedDifference:
    """Estimate the difference of one score between two sets of predictions; see `paired_bootstraps`."""
    return paired_bootstraps(base_counts, refined_counts, (statistic,), seed, n, protocol)[statistic]


def paired_bootstraps(
    base_counts: Mapping[str, ClipCounts],
    refined_counts: Mapping[str, ClipCounts],
    statistics: Sequence[str],
    seed: int = 0,
    n: int = 2000,
    protocol: str = "vspw",
) -> dict[str, PairedDifference]:
    """Estimate the differences of several scores between two sets of predictions for the same clips.

    Args:
        base_counts: `VideoSegMetrics.counts` of the first set.
        refined_counts: The same of the second set.
        statistics: Names from `Scores.as_dict`, e.g. "mIoU", "mBIoU", "mVC16".
        seed: Seed of the draws.
        n: Number of resamples.
        protocol: As for `VideoSegMetrics.compute`.

    Returns:
        Differences by name, in the order asked for.

    Raises:
        MissingPredictionsError: If the two do not cover the same clips and frames.
        SettingsError: If a statistic or the protocol is unknown, or n is not positive.
    """
    _check_same_clips(base_counts, refined_counts)
    base = _ClipSums(base_counts, statistics, n, protocol)
    in_order = {clip: refined_counts[clip] for clip in base_counts}  # pairs are clips of one name, in whatever order
    refined = _ClipSums(in_order, statistics, n, protocol)
    draws = _resample(refined, base, seed, n) if len(base.clips) > 1 else {}
    differences = {}
    for name in statistics:
        difference = refined.score(name) - base.score(name)
        drawn = draws.get(name, np.zeros(0))
        differences[name] = PairedDifference(
            statistic=name,
            difference=difference,
            mean=float(drawn.mean()) if drawn.size else None,
            interval=_interval(drawn),
            clips=len(base.clips),
            resamples=len(drawn),
        )
    return differences


def score_interval(
    counts: Mapping[str, ClipCounts], statistic: str = "mIoU", seed: int = 0, n: int = 2000, protocol: str = "vspw"
) -> ScoreInterval:
    """Estimate how sure one score is; see `score_intervals`."""
    return score_intervals(counts, (statistic,), seed, n, protocol)[statistic]


def score_intervals(
    counts: Mapping[str, ClipCounts],
    statistics: Sequence[str],
    seed: int = 0,
    n: int = 2000,
    protocol: str = "vspw",
) -> dict[str, ScoreInterval]:
    """Estimate how sure several scores of one set of predictions are; arguments as for `paired_bootstraps`.

    Raises:
        SettingsError: If a statistic or the protocol is unknown, or n is not positive.
    """
    sums = _ClipSums(counts, statistics, n, protocol)
    draws = _resample(sums, None, seed, n) if len(sums.clips) > 1 else {}
    scores = {}
    for name in statistics:
        drawn = draws.get(name, np.zeros(0))
        scores[name] = ScoreInterval(name, sums.score(name), _interval(drawn), len(sums.clips), len(drawn))
    return scores


class _ClipSums:
    """What every clip adds to the wanted scores; scores that are made of the same sums share them."""

    def __init__(self, counts: Mapping[str, ClipCounts], statistics: Sequence[str], n: int, protocol: str) -> None:
        if n < 1:
            raise SettingsError(f"the number of resamples must be at least 1, found {n}")
        min_frames = find_protocol(protocol).min_frames
        windows = sorted({window for clip in counts.values() for window in clip.windows})
        known = find_statistics(protocol, windows)
        for name in statistics:
            if name not in known:
                raise SettingsError(f"unknown statistic {name!r}; choose one of {', '.join(known)}")
        self.clips = [clip for clip in counts.values() if clip.frames >= min_frames]
        self.statistics: dict[str, Statistic] = {name: known[name] for name in statistics}
        # by the names of the scores that share them: (number of clips, K)
        self.rows: dict[tuple[str, ...], np.ndarray] = {}
        sharing: dict[Summands, list[str]] = {}
        for name, statistic in self.statistics.items():
            sharing.setdefault(statistic.summands, []).append(name)
        for summands, names in sharing.items() if self.clips else ():
            self.rows[tuple(names)] = np.stack([summands(clip) for clip in self.clips])

    def score(self, name: str) -> float:
        """Score over all clips, NaN if there is none."""
        for names, rows in self.rows.items():
            if name in names:
                return float(self.statistics[name].value(rows.sum(axis=0)))
        return math.nan

    def scores(self, weights: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every score with its value under each row of weights (draws, number of clips)."""
        for names, rows in self.rows.items():
            sums = weights @ rows
            for name in names:
                yield name, self.statistics[name].value(sums)


def _resample(first: _ClipSums, second: _ClipSums | None, seed: int, n: int) -> dict[str, np.ndarray]:
    """Draw clips n times; return the first side's scores, minus the second's if there is one, where defined."""
    num_clips = len(first.clips)
    draws = np.random.default_rng(seed).integers(0, num_clips, (n, num_clips))
    found: dict[str, list[np.ndarray]] = {name: [] for name in first.statistics}
    for start in range(0, n, DRAWS_AT_ONCE):
        part = draws[start : start + DRAWS_AT_ONCE]
        cells = part + num_clips * np.arange(len(part))[:, None]
        weights = np.bincount(cells.ravel(), minlength=part.size).reshape(part.shape).astype(np.float64)
        others = dict(second.scores(weights)) if second else {}
        for name, values in first.scores(weights):
            found[name].append(values - others[name] if second else values)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: values[~np.isnan(values)] for name, values in joined.items()}


def _interval(drawn: np.ndarray) -> tuple[float, float] | None:
    if not drawn.size:
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def _text(value: float, interval: tuple[float, float] | None, clips: int, sign: str) -> str:
    number = f"{sign}.2f"
    if interval is None:
        reason = f"{clips} clip" + ("s" if clips != 1 else "") + ", no interval"
        return f"{100 * value:{number}} ({reason})"
    low, high = (f"{100 * end:{number}}" for end in interval)
    return f"{100 * value:{number}} [{low}, {high}], {clips} clips"


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
