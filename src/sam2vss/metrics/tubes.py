"""Tubes of panoptic video segmentation as sparse integer tables: which tubes meet, over how many pixels.

A tube is everything that carries one class and one instance number in a clip, or in a window of k frames. All of VPQ
and STQ follows from how many pixels each pair (true tube, predicted tube) shares. A frame is reduced to such a table
once; a window's table is the sum of its frames' tables, kept up to date by adding the newest and taking away the
oldest.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_INSTANCE = (1 << 31) - 1
_SHIFT = 32  # of the class in a tube's key, and of the true tube in a pair's


class Numbering:
    """Gives consecutive numbers to int64 keys as they first occur, whole arrays at a time."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._sorted)

    def number(self, keys: np.ndarray) -> np.ndarray:
        """Return the number of every key, int64 of the same shape; unknown keys get the next ones, ascending."""
        is_known = np.zeros(keys.shape, bool)
        if len(self._sorted):
            place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
            is_known = self._sorted[place] == keys
        if not is_known.all():
            fresh = np.unique(keys[~is_known])
            before = np.searchsorted(self._sorted, fresh)
            first = len(self._sorted)
            self._sorted = np.insert(self._sorted, before, fresh)
            self._numbers = np.insert(self._numbers, before, np.arange(first, first + len(fresh)))
        found: np.ndarray = self._numbers[np.searchsorted(self._sorted, keys)]
        return found

    def keys(self) -> np.ndarray:
        """Return the keys by number, int64 (len,)."""
        keys = np.empty_like(self._sorted)
        keys[self._numbers] = self._sorted
        return keys


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pixels that pairs of tubes share.

    Attributes:
        true_tubes: Class and instance of every true tube, int64 (G, 2); class C is void.
        predicted_tubes: The same of the predicted ones, int64 (P, 2); class C is unlabelled.
        pairs: Index of the true and of the predicted tube, int64 (M, 2).
        pixels: Shared pixels, int64 (M,).
    """

    true_tubes: np.ndarray
    predicted_tubes: np.ndarray
    pairs: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class TubeMatches:
    """Outcome of matching the tubes of one or more windows, by class.

    Attributes:
        windows: Windows matched.
        iou: Sum of the IoU of matched tubes, float64 (C,).
        matched: Matched tubes (true positives), int64 (C,).
        surplus: Predicted tubes without a partner (false positives), int64 (C,).
        missed: True tubes without a partner (false negatives), int64 (C,).
    """

    windows: int
    iou: np.ndarray
    matched: np.ndarray
    surplus: np.ndarray
    missed: np.ndarray

    @classmethod
    def empty(cls, num_classes: int) -> "TubeMatches":
        counts = np.zeros(num_classes, np.int64)
        return cls(0, np.zeros(num_classes), counts, counts, counts)

    def __add__(self, other: "TubeMatches") -> "TubeMatches":
        return TubeMatches(
            self.windows + other.windows,
            self.iou + other.iou,
            self.matched + other.matched,
            self.surplus + other.surplus,
            self.missed + other.missed,
        )


def tube_keys(classes: np.ndarray, instances: np.ndarray, num_classes: int) -> np.ndarray:
    """Pack class and instance into one int64; everything outside 0..C-1 is the one tube (C, 0).

    Args:
        classes: Integers of any shape.
        instances: Integers 0..MAX_INSTANCE of the same shape.
        num_classes: C.
    """
    wide = classes.astype(np.int64)
    is_void = (wide < 0) | (wide >= num_classes)
    return np.where(is_void, np.int64(num_classes) << _SHIFT, (wide << _SHIFT) | instances.astype(np.int64))


def run_starts(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Return where, in row-major order, any of the maps (H, W) takes another value, int64 (R,), from 0 on.

    Label maps have some thousand runs of equal labels, not some hundred thousand, and everything after this looks at
    runs only.
    """
    changes = np.zeros(planes[0].size - 1, bool)
    for plane in planes:
        flat = plane.reshape(-1)
        changes |= flat[1:] != flat[:-1]
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(changes) + 1])


class TubeCounter:
    """Counts, for one clip, the pixels shared by tubes, and matches the tubes of every window of k frames.

    Args:
        is_thing: bool (C,).
        windows: The k of VPQ.
    """

    def __init__(self, is_thing: np.ndarray, windows: Sequence[int]) -> None:
        self.frames = 0
        self.first_tube = -1
        self._is_thing = is_thing
        self._num_classes = len(is_thing)
        self._true, self._predicted, self._pairs = Numbering(), Numbering(), Numbering()
        self._total = np.zeros(0, np.int64)
        self._sums = {k: np.zeros(0, np.int64) for k in windows}
        self._last: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=max(windows, default=1))
        self._matches = {k: TubeMatches.empty(self._num_classes) for k in windows}

    def update(self, true_keys: np.ndarray, predicted_keys: np.ndarray, lengths: np.ndarray) -> None:
        """Count the next frame.

        Args:
            true_keys: Key of the true tube of every run, int64 (R,).
            predicted_keys: The same of the predicted tube.
            lengths: Pixels of every run, int64 (R,).
        """
        pair_keys = (self._true.number(true_keys) << _SHIFT) | self._predicted.number(predicted_keys)
        numbers = self._pairs.number(pair_keys)
        # sums of whole numbers below 2^53 are exact in float64
        counted = np.bincount(numbers, weights=lengths, minlength=len(self._pairs)).astype(np.int64)
        pairs = np.flatnonzero(counted)
        pixels = counted[pairs]
        self._total = _grown(self._total, len(self._pairs)) + counted
        if self.first_tube < 0:
            self.first_tube = self._find_first_tube(true_keys)
        for k in self._sums:
            window = _grown(self._sums[k], len(self._pairs))
            if len(self._last) >= k:
                old_pairs, old_pixels = self._last[-k]
                window[old_pairs] -= old_pixels
            window[pairs] += pixels
            self._sums[k] = window
        self._last.append((pairs, pixels))
        self.frames += 1
        for k, window in self._sums.items():
            if self.frames >= k:
                self._matches[k] += self._match(window)

    def table(self) -> PairTable:
        """Return the table of the clip so far."""
        return self._table(self._total)

    def matches(self) -> dict[int, TubeMatches]:
        """Return the matches of all windows so far, by k."""
        return dict(self._matches)

    def whole_clip_matches(self) -> dict[int, TubeMatches]:
        """Return, for every k that the clip is too short for, the matches of the clip as one window."""
        return {k: self._match(window) for k, window in self._sums.items() if 0 < self.frames < k}

    def _match(self, pixels: np.ndarray) -> TubeMatches:
        return match_tubes(self._table(pixels), self._is_thing)

    def _table(self, pixels: np.ndarray) -> PairTable:
        present = np.flatnonzero(pixels)
        return PairTable(
            _unpacked(self._true.keys()),
            _unpacked(self._predicted.keys()),
            _unpacked(self._pairs.keys()[present]),
            pixels[present],
        )

    def _find_first_tube(self, keys: np.ndarray) -> int:
        """Return the number of the frame's first tube, stuff before things, then by class and instance; -1 if void."""
        tubes = _unpacked(np.unique(keys))
        tubes = tubes[tubes[:, 0] < self._num_classes]
        if not len(tubes):
            return -1
        first = tubes[np.argmin(self._is_thing[tubes[:, 0]])]  # np.unique sorted by class and instance
        return int(self._true.number((first[:1] << _SHIFT) | first[1:])[0])


def match_tubes(table: PairTable, is_thing: np.ndarray) -> TubeMatches:
    """Match the tubes of one window by IoU > 0.5 within a class; at most one partner each (Kim et al., CVPR 2020).

    Void of the truth leaves the union. A predicted tube of which more than half lies in void, or in the crowd of its
    class, is no error; crowds (things with instance 0) are never missed.

    Args:
        table: Tubes of the window; those without pixels in it do not count.
        is_thing: bool (C,).
    """
    num_classes = len(is_thing)
    of_true, of_predicted = table.pairs[:, 0], table.pairs[:, 1]
    true_class, predicted_class = table.true_tubes[:, 0], table.predicted_tubes[:, 0]
    num_true, num_predicted = len(true_class), len(predicted_class)
    is_void = true_class == num_classes
    is_crowd = find_crowds(table.true_tubes, is_thing)
    true_area = _summed(of_true, table.pixels, num_true)
    predicted_area = _summed(of_predicted, table.pixels, num_predicted)
    is_same_class = true_class[of_true] == predicted_class[of_predicted]
    in_void = np.where(is_void[of_true], table.pixels, 0)
    in_crowd = np.where(is_crowd[of_true] & is_same_class, table.pixels, 0)
    void_overlap = _summed(of_predicted, in_void, num_predicted)
    excused = void_overlap + _summed(of_predicted, in_crowd, num_predicted)

    unions = predicted_area[of_predicted] + true_area[of_true] - table.pixels - void_overlap[of_predicted]
    can_match = is_same_class & ~is_void[of_true] & ~is_crowd[of_true]
    matched = np.flatnonzero(can_match & (2 * table.pixels > unions))
    matched_classes = true_class[of_true[matched]]
    is_missed = (true_area > 0) & ~is_void & ~is_crowd
    is_missed[of_true[matched]] = False
    is_surplus = (predicted_area > 0) & (predicted_class < num_classes) & (2 * excused <= predicted_area)
    is_surplus[of_predicted[matched]] = False
    return TubeMatches(
        windows=1,
        iou=np.bincount(matched_classes, weights=table.pixels[matched] / unions[matched], minlength=num_classes),
        matched=np.bincount(matched_classes, minlength=num_classes),
        surplus=np.bincount(predicted_class[is_surplus], minlength=num_classes),
        missed=np.bincount(true_class[is_missed], minlength=num_classes),
    )


def find_crowds(tubes: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """Tell which tubes (G, 2) are crowds, bool (G,): things with instance number 0 (deeplab2's convention)."""
    is_crowd: np.ndarray = np.append(is_thing, False)[tubes[:, 0]] & (tubes[:, 1] == 0)
    return is_crowd


def _summed(index: np.ndarray, values: np.ndarray, length: int) -> np.ndarray:
    counted: np.ndarray = np.bincount(index, weights=values, minlength=length).astype(np.int64)
    return counted


def _unpacked(keys: np.ndarray) -> np.ndarray:
    return np.stack([keys >> _SHIFT, keys & ((1 << _SHIFT) - 1)], axis=-1)


def _grown(values: np.ndarray, length: int) -> np.ndarray:
    return np.append(values, np.zeros(length - len(values), values.dtype)) if length > len(values) else values
