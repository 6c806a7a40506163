"""How often the labels under a masklet change their mind: switches of the majority class from frame to frame.

A masklet is one object, so its class should not change. Pure counting; votes come from `voting.count_frame_votes`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np

from ..errors import MissingPredictionsError, SettingsError, ShapeError
from .bootstrap import PairedDifference
from .bootstrap_sums import bootstrap_sums, divide_sums


@dataclass(frozen=True)
class SwitchCounts:
    """Counts of one clip or of several; they add up.

    Attributes:
        masklets: Masklets that are visible over labelled pixels in at least one frame.
        switching: Those of them whose majority class changes at least once.
        steps: Pairs of frames in which a masklet is visible, one after the other, frames without it left out.
        switches: Those of them in which the majority class changes.
    """

    masklets: int = 0
    switching: int = 0
    steps: int = 0
    switches: int = 0

    def __add__(self, other: "SwitchCounts") -> "SwitchCounts":
        return SwitchCounts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by name; None where undefined.

        "switches_per_masklet" is the mean number of switches of a masklet; "switch_rate" is switches / steps, in
        [0, 1], and times 100 it is the number of switches in 100 frames; "switching_masklets" is the share of masklets
        that switch at all.
        """
        ratios = {name: ratio(self) for name, ratio in _RATIOS.items()}
        return {name: above / below if below else None for name, (above, below) in ratios.items()}


_RATIOS: Final[Mapping[str, Callable[[SwitchCounts], tuple[int, int]]]] = {
    "switches_per_masklet": lambda counts: (counts.switches, counts.masklets),
    "switch_rate": lambda counts: (counts.switches, counts.steps),
    "switching_masklets": lambda counts: (counts.switching, counts.masklets),
}
SWITCH_STATISTICS: Final = tuple(_RATIOS)


class SwitchCounter:
    """Counts one clip window by window; keeps one class per masklet.

    A masklet whose id comes again in a later window (as with `--carry`) is the same one and goes on.
    """

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._switching: set[int] = set()
        self._steps = 0
        self._switches = 0

    def update(self, votes: np.ndarray, ids: Sequence[int] | np.ndarray) -> None:
        """Count the next window.

        The majority class is that of Eq. 2: most votes, of equals the smallest id. A frame in which a masklet has no
        vote (hidden, or over unlabelled pixels only) is passed over.

        Args:
            votes: Pixels of every class under every masklet in every frame, integers (L, N, C).
            ids: Ids of the masklets, (N,), distinct.

        Raises:
            ShapeError: If the two do not fit.
        """
        votes, ids = np.asarray(votes), np.asarray(ids, np.int64)
        if votes.ndim != 3 or votes.shape[1] != len(ids):
            raise ShapeError(f"votes have shape {votes.shape}, expected (L, N, C) with N = {len(ids)} masklets")
        if not votes.shape[2]:
            raise ShapeError("votes of no classes: expected (L, N, C) with C >= 1")
        winners = np.where(votes.sum(axis=2) > 0, votes.argmax(axis=2), -1)  # (L, N)
        before = np.array([self._last.get(int(number), -1) for number in ids], np.int64)
        for now in winners:
            is_step = (now >= 0) & (before >= 0)
            has_switched = is_step & (now != before)
            self._steps += int(is_step.sum())
            self._switches += int(has_switched.sum())
            self._switching.update(int(ids[row]) for row in np.flatnonzero(has_switched))
            before = np.where(now >= 0, now, before)
        self._last.update({int(number): int(last) for number, last in zip(ids, before, strict=True) if last >= 0})

    def counts(self) -> SwitchCounts:
        """Return what was counted so far."""
        return SwitchCounts(len(self._last), len(self._switching), self._steps, self._switches)


def switch_bootstrap(
    base: Mapping[str, SwitchCounts],
    other: Mapping[str, SwitchCounts],
    statistic: str = "switch_rate",
    seed: int = 0,
    n: int = 2000,
) -> PairedDifference:
    """Estimate the difference of a score of switches between two sets of labels under the same masklets.

    Raises:
        MissingPredictionsError: If the two do not cover the same clips.
        SettingsError: If the statistic is unknown, or n is not positive.
    """
    if statistic not in _RATIOS:
        raise SettingsError(f"unknown statistic {statistic!r}; choose one of {', '.join(SWITCH_STATISTICS)}")
    if base.keys() != other.keys():
        odd = sorted(base.keys() ^ other.keys())
        raise MissingPredictionsError(f"clip {odd[0]!r} is only in one of the two sets; count both on the same clips")
    ratio = _RATIOS[statistic]
    first, second = (np.array([ratio(side[clip]) for clip in base]).reshape(-1, 2) for side in (base, other))
    return bootstrap_sums(statistic, first, second, divide_sums, seed, n)
