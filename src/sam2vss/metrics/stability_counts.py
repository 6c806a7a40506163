"""What is kept of a clip to say how steady its labels are: integers from which every score without truth follows."""

from dataclasses import dataclass

import numpy as np

from ..errors import SettingsError, ShapeError
from .confusion import fold_strangers, joint_histogram, region_sums
from .warping import check_flow, warp_back, warp_back_as_tc_script

# Columns of `StabilityCounts.pairs`.
FLIPPED, COMPARED, AGREEING = range(3)


@dataclass(frozen=True, eq=False)
class StabilityCounts:
    """Counts of one clip; all arrays are int64, and those of several clips add up. Index C means unlabelled.

    Attributes:
        frames: T.
        size: (H, W).
        labels: (C+1,) pixels of each label over all frames.
        transitions: (C+1, C+1) label in a frame (row) against label of the same pixel in the next frame (column).
        followed: (C, C+1) class in a frame (row) against label in the next frame where flow leads (column), without
            pixels that leave the picture or are hidden there.
        tc: (3, C) correct, true and predicted pixels as the script `TC_cal.py` counts them.
        pairs: (T-1, 3) per frame and the next: pixels that flip, pixels compared along flow, those that agree there.
    """

    frames: int
    size: tuple[int, int]
    labels: np.ndarray
    transitions: np.ndarray
    followed: np.ndarray
    tc: np.ndarray
    pairs: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> "StabilityCounts":
        """Counts of a clip without frames."""
        return cls(
            frames=0,
            size=(0, 0),
            labels=np.zeros(num_classes + 1, np.int64),
            transitions=np.zeros((num_classes + 1, num_classes + 1), np.int64),
            followed=np.zeros((num_classes, num_classes + 1), np.int64),
            tc=np.zeros((3, num_classes), np.int64),
            pairs=np.zeros((0, 3), np.int64),
        )


class StabilityCounter:
    """Counts one clip frame by frame; keeps no frame but the last.

    Args:
        num_classes: C.
        name: Name of the clip for messages.
    """

    def __init__(self, num_classes: int, name: str) -> None:
        self._num_classes = num_classes
        self._where = f"clip {name!r}" if name else "the clip"
        self._sums = StabilityCounts.empty(num_classes)
        self._pairs: list[tuple[int, int, int]] = []
        self._last: np.ndarray | None = None
        self._num_frames = 0

    def update(self, labels: np.ndarray, flow: np.ndarray | None, is_seen: np.ndarray | None) -> None:
        """Count the clip's next frame; see `StabilityMetrics.update`."""
        last = self._last
        if labels.ndim != 2 or not labels.size or (last is not None and labels.shape != last.shape):
            raise ShapeError(
                f"frame {self._num_frames} of {self._where} has labels {labels.shape}"
                + (f", frames before {last.shape}" if last is not None else "")
                + "; all must have the same, non-empty size (H, W)"
            )
        now = fold_strangers(labels, self._num_classes)
        bins = self._num_classes + 1
        if last is None:
            if flow is not None:
                raise SettingsError(
                    f"the first frame of {self._where} has no frame before it, so it comes without flow"
                )
            self._sums.labels[:] += joint_histogram((now, now), (bins, bins)).sum(axis=1)
        else:
            transitions = joint_histogram((last, now), (bins, bins))
            compared, agreeing = self._follow(last, now, flow, is_seen)
            self._sums.transitions[:] += transitions
            self._sums.labels[:] += transitions.sum(axis=0)
            self._pairs.append((now.size - int(np.trace(transitions)), compared, agreeing))
        self._last = now
        self._num_frames += 1

    def counts(self) -> StabilityCounts:
        """Return a copy of what was counted so far."""
        sums = self._sums
        return StabilityCounts(
            frames=self._num_frames,
            size=(0, 0) if self._last is None else (self._last.shape[0], self._last.shape[1]),
            labels=sums.labels.copy(),
            transitions=sums.transitions.copy(),
            followed=sums.followed.copy(),
            tc=sums.tc.copy(),
            pairs=np.array(self._pairs, np.int64).reshape(-1, 3),
        )

    def _follow(
        self, last: np.ndarray, now: np.ndarray, flow: np.ndarray | None, is_seen: np.ndarray | None
    ) -> tuple[int, int]:
        """Count along flow; return the pixels compared and those that agree."""
        if flow is None:
            return 0, 0
        flow = check_flow(flow, (now.shape[0], now.shape[1]))
        warped, is_compared = warp_back(now, flow)
        if is_seen is not None:
            if np.shape(is_seen) != now.shape or np.asarray(is_seen).dtype != bool:
                raise ShapeError(f"is_seen is {np.shape(is_seen)}, expected bool {now.shape}, one a pixel")
            is_compared &= is_seen
        bins = self._num_classes + 1
        followed = joint_histogram((last, warped), (bins, bins), is_compared)[:-1]
        self._sums.followed[:] += followed
        self._sums.tc[:] += region_sums(joint_histogram((last, warp_back_as_tc_script(now, flow)), (bins, bins))[:-1])
        return int(followed.sum()), int(np.trace(followed))
