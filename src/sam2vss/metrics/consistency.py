"""Video consistency (VC) over n frames, for every n at once, while the frames stream by.

Per pixel we keep for how many frames the label has stayed the same. A window of n frames that ends now is constant
at a pixel exactly where this run length is at least n, so one histogram of run lengths answers every n and no past
frame but the last is kept.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from .confusion import fold_strangers, joint_histogram
from .planes import Planes

MAX_WINDOW: Final = 255  # run lengths are uint8 and saturate
# What is counted per window of n frames; protocols choose a numerator and a denominator among these columns.
STABLE, STABLE_KEPT, MERGED, MERGED_KEPT, LABELLED, LABELLED_KEPT, CORRECT = range(7)
NUM_COLUMNS: Final = 7
MAX_MASKED_WINDOWS: Final = 3  # up to here one mask a window is faster than a histogram, see benchmarks/metrics.py


def curve_windows(longest: int = 32) -> tuple[int, ...]:
    """Return the windows of a whole VC curve: 2, 3, ..., `longest` frames (2..255)."""
    return tuple(range(2, longest + 1))


class RunLengths:
    """For how many frames each pixel has kept its value, saturating at `longest`."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._values: np.ndarray | None = None
        self._ceiling: np.ndarray = np.zeros((0, 0), np.uint8)
        self.lengths: np.ndarray = np.zeros((0, 0), np.uint8)

    def update(self, values: np.ndarray, planes: Planes) -> np.ndarray:
        """Take the next frame (H, W) and return the run lengths that end with it, uint8 (H, W)."""
        if self._values is None:
            self.lengths = np.ones(values.shape, np.uint8)
        else:
            if not self._ceiling.size:
                self._ceiling = np.full(values.shape, self._longest - 1, np.uint8)
            np.minimum(self.lengths, self._ceiling, out=self.lengths)  # much faster than with a scalar
            is_equal = np.equal(values, self._values, out=planes.mask("scratch"))
            np.multiply(self.lengths, is_equal.view(np.uint8), out=self.lengths)
            np.add(self.lengths, 1, out=self.lengths)
        if self._values is None or self._values.dtype != values.dtype:
            self._values = values.copy()
        else:
            np.copyto(self._values, values)  # a copy: the caller may fill the same array with the next frame
        return self.lengths

    def branch(self, num_classes: int) -> "RunLengths":
        """Return a copy that goes on with all strangers of the last frame folded into one value."""
        other = RunLengths(self._longest)
        other._values = None if self._values is None else fold_strangers(self._values, num_classes)
        other.lengths = self.lengths.copy()
        return other


class ConsistencyCounter:
    """Counts, for one clip, the pixels that stay constant over each window of n frames.

    Void may be stored under several values. Published scripts then differ: raw values are labels of their own
    (`STABLE`), or all void is one label (`MERGED`). The second needs run lengths of its own only from the first frame
    on that holds a second void value.

    Args:
        windows: The n to count, each in 2..255.
        num_classes: C.
    """

    def __init__(self, windows: Sequence[int], num_classes: int) -> None:
        self._windows = tuple(windows)
        self._num_classes = num_classes
        self._longest = max(windows)
        self._truth = RunLengths(self._longest)
        self._prediction = RunLengths(self._longest)
        self._merged: RunLengths | None = None
        self._rows: list[np.ndarray] = []  # one a frame: (number of windows, NUM_COLUMNS)

    def update(
        self,
        truth: np.ndarray,
        prediction: np.ndarray,
        raw_truth: np.ndarray,
        raw_prediction: np.ndarray,
        planes: Planes,
        has_other_void: bool = False,
    ) -> None:
        """Take the next frame.

        Args:
            truth: Labels 0..C (H, W), C is void.
            prediction: Labels 0..C (H, W), C is unlabelled.
            raw_truth: The same truth with void ids as they came.
            raw_prediction: The same prediction as it came: the scripts compare these values.
            planes: Scratch arrays of the labels' size and type.
            has_other_void: Whether `raw_truth` holds more than the usual void value.
        """
        if has_other_void and self._merged is None:
            self._merged = self._truth.branch(self._num_classes)
        truth_runs = self._truth.update(raw_truth, planes)
        prediction_runs = self._prediction.update(raw_prediction, planes)
        is_labelled = np.less(truth, self._num_classes, out=planes.mask("labelled"))
        is_right = np.equal(truth, prediction, out=planes.mask("right"))
        is_right &= is_labelled

        rows = np.empty((len(self._windows), NUM_COLUMNS), np.int64)
        own = self._count_runs(truth_runs, prediction_runs, is_labelled, is_right, planes)
        rows[:, [STABLE, STABLE_KEPT, LABELLED, LABELLED_KEPT, CORRECT]] = own
        rows[:, [MERGED, MERGED_KEPT]] = own[:, :2]
        if self._merged:
            merged_runs = self._merged.update(truth, planes)
            merged = self._count_runs(merged_runs, prediction_runs, is_labelled, is_right, planes)
            rows[:, [MERGED, MERGED_KEPT]] = merged[:, :2]
        self._rows.append(rows)

    def counts(self) -> dict[int, np.ndarray]:
        """Return, for every n, one row of counts per window in order of time, int64 (T-n+1 or 0, NUM_COLUMNS)."""
        shape = (len(self._rows), len(self._windows), NUM_COLUMNS)
        rows = np.array(self._rows, np.int64).reshape(shape)
        return {n: rows[n - 1 :, i] for i, n in enumerate(self._windows)}

    def _count_runs(
        self,
        truth_runs: np.ndarray,
        prediction_runs: np.ndarray,
        is_labelled: np.ndarray,
        is_right: np.ndarray,
        planes: Planes,
    ) -> np.ndarray:
        """Count the pixels that have stayed the same for at least n frames.

        Returns:
            int64 (number of windows, 5): constant truth; constant truth and prediction; the same two on labelled
            pixels; the second on pixels that are right now (over a stable truth they were right all along).
        """
        both_runs = np.minimum(truth_runs, prediction_runs, out=planes.small("both runs"))
        count = _count_by_masks if len(self._windows) <= MAX_MASKED_WINDOWS else _count_by_histogram
        return count(self._windows, (truth_runs, both_runs), (is_labelled, is_right), planes)


def _count_by_masks(
    windows: Sequence[int],
    runs: tuple[np.ndarray, np.ndarray],
    masks: tuple[np.ndarray, np.ndarray],
    planes: Planes,
) -> np.ndarray:
    """Look at every window by itself: the fastest for a few."""
    (truth_runs, both_runs), (is_labelled, is_right) = runs, masks
    long_enough, chosen = planes.mask("long enough"), planes.mask("scratch")
    rows = []
    for n in windows:
        np.greater_equal(truth_runs, n, out=long_enough)
        stable = np.count_nonzero(long_enough)
        stable_labelled = np.count_nonzero(np.logical_and(long_enough, is_labelled, out=chosen))
        np.greater_equal(both_runs, n, out=long_enough)
        kept = np.count_nonzero(long_enough)
        kept_labelled = np.count_nonzero(np.logical_and(long_enough, is_labelled, out=chosen))
        kept_right = np.count_nonzero(np.logical_and(long_enough, is_right, out=chosen))
        rows.append((stable, kept, stable_labelled, kept_labelled, kept_right))
    return np.array(rows, np.int64)


def _count_by_histogram(
    windows: Sequence[int],
    runs: tuple[np.ndarray, np.ndarray],
    masks: tuple[np.ndarray, np.ndarray],
    planes: Planes,
) -> np.ndarray:
    """Answer all windows from one histogram of run lengths: a whole curve costs what four windows do."""
    kind = planes.small("kind")  # 0 void, 1 wrong, 2 right
    np.add(masks[0].view(np.uint8), masks[1].view(np.uint8), out=kind)
    length = max(windows) + 1
    table = joint_histogram((*runs, kind), (length, length, 3))
    stable, kept = (_at_least(table.sum(axis=axis))[list(windows)] for axis in (1, 0))
    columns = (stable.sum(axis=1), kept.sum(axis=1), stable[:, 1:].sum(axis=1), kept[:, 1:].sum(axis=1), kept[:, 2])
    return np.stack(columns, axis=1)


def _at_least(histogram: np.ndarray) -> np.ndarray:
    """Turn "run length is exactly n" (rows) into "at least n"."""
    return np.cumsum(histogram[::-1], axis=0)[::-1]
