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
_VOID, _WRONG, _RIGHT = range(3)


class RunLengths:
    """For how many frames each pixel has kept its value, saturating at `longest`."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._values: np.ndarray | None = None
        self.lengths: np.ndarray = np.zeros((0, 0), np.uint8)

    def update(self, values: np.ndarray, planes: Planes) -> np.ndarray:
        """Take the next frame (H, W) and return the run lengths that end with it, uint8 (H, W)."""
        if self._values is None:
            self.lengths = np.ones(values.shape, np.uint8)
        else:
            self.lengths *= np.equal(values, self._values, out=planes.mask("equal"))
            self.lengths += np.less(self.lengths, self._longest, out=planes.mask("equal"))
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
        self._num_frames = 0
        self._rows: dict[int, list[np.ndarray]] = {n: [] for n in self._windows}

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
        self._num_frames += 1
        if has_other_void and self._merged is None:
            self._merged = self._truth.branch(self._num_classes)
        truth_runs = self._truth.update(raw_truth, planes)
        prediction_runs = self._prediction.update(raw_prediction, planes)
        is_labelled = np.less(truth, self._num_classes, out=planes.mask("labelled"))
        is_right = np.equal(truth, prediction, out=planes.mask("right"))
        is_right &= is_labelled
        kind = planes.small("kind")  # void, wrong, right
        np.add(is_labelled.view(np.uint8), is_right.view(np.uint8), out=kind)

        stable, kept = self._count_runs(truth_runs, prediction_runs, kind, planes)
        merged, merged_kept = stable, kept
        if self._merged:
            merged_runs = self._merged.update(truth, planes)
            merged, merged_kept = self._count_runs(merged_runs, prediction_runs, kind, planes)
        for n in self._windows:
            if self._num_frames >= n:
                row = np.zeros(NUM_COLUMNS, np.int64)
                row[STABLE], row[STABLE_KEPT] = stable[n].sum(), kept[n].sum()
                row[MERGED], row[MERGED_KEPT] = merged[n].sum(), merged_kept[n].sum()
                row[LABELLED], row[LABELLED_KEPT] = stable[n, _WRONG:].sum(), kept[n, _WRONG:].sum()
                # a prediction that is right now and has not changed over a stable truth was right all along
                row[CORRECT] = kept[n, _RIGHT]
                self._rows[n].append(row)

    def counts(self) -> dict[int, np.ndarray]:
        """Return, for every n, one row of counts per window in order of time, int64 (T-n+1 or 0, NUM_COLUMNS)."""
        empty = np.zeros((0, NUM_COLUMNS), np.int64)
        return {n: np.stack(rows) if rows else empty for n, rows in self._rows.items()}

    def _count_runs(
        self, truth_runs: np.ndarray, prediction_runs: np.ndarray, kind: np.ndarray, planes: Planes
    ) -> tuple[np.ndarray, np.ndarray]:
        """Count pixels whose truth (first table) and also prediction (second) have stayed the same for >= n frames.

        Returns:
            Two int64 tables (longest + 1, 3): row n, column void, wrong or right.
        """
        both_runs = np.minimum(truth_runs, prediction_runs, out=planes.small("both runs"))
        longest = self._longest + 1
        table = joint_histogram((truth_runs, both_runs, kind), (longest, longest, 3))
        return _at_least(table.sum(axis=1)), _at_least(table.sum(axis=0))


def _at_least(histogram: np.ndarray) -> np.ndarray:
    """Turn "run length is exactly n" (rows) into "at least n"."""
    return np.cumsum(histogram[::-1], axis=0)[::-1]
