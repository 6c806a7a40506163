"""Base labels smoothed over time, without knowledge of objects: the controls behind `--smooth static|flow`.

A smoother stands before the votes, or alone with no masklets. It streams windows and carries over what it needs from
one to the next. Probabilities are dropped: those of a model no longer fit labels that were smoothed.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Literal

import cv2
import numpy as np

from .errors import SettingsError, ShapeError
from .flow import backward_flow, follow_back, look_up, photometric_difference, to_grey
from .interfaces import Smoother
from .types import IGNORE_INDEX, BaseLabels, Frame

LabelledWindow = tuple[list[Frame], BaseLabels]
SmoothedWindow = tuple[list[Frame], BaseLabels, BaseLabels]

STATIC_RADIUS = 2  # ours: 5 frames, a third of a second at VSPW's 15 per second
FLOW_WEIGHT = 0.8  # ours: of 0.7, 0.8, 0.9 on validation clips the one between steadiness and mIoU
GREY_TOLERANCE = 20.0  # ours, grey levels: of 5, 10, 20, 40 on the same clips
_MAX_RADIUS = 60  # counts of 2 r + 1 frames must fit the keys of `majority_of_neighbours`
_FORGOTTEN = 1 / 256  # a class whose score is below this everywhere is dropped


def find_smoother(name: Literal["static", "flow"], ignore_index: int = IGNORE_INDEX) -> Smoother:
    """Return the smoother of that name, with its default settings."""
    smoothers: dict[str, Smoother] = {
        "static": StaticSmoother(ignore_index=ignore_index),
        "flow": FlowSmoother(ignore_index=ignore_index),
    }
    if name not in smoothers:
        raise SettingsError(f"there is no smoother {name!r}, expected {' or '.join(smoothers)}")
    return smoothers[name]


# --- static ---------------------------------------------------------------------------------------------------------


def majority_of_neighbours(
    labels: np.ndarray,
    radius: int = STATIC_RADIUS,
    ignore_index: int = IGNORE_INDEX,
    first: int = 0,
    stop: int | None = None,
) -> np.ndarray:
    """Give every pixel the label it has most often within `radius` frames, its own frame included.

    Where the labels end, the neighbourhood is shorter. Among equally frequent labels the frame's own one wins, else
    the smallest. The ignore index does not count; it stays where a pixel has nothing else in the neighbourhood.

    Args:
        labels: uint8 or uint16 (T, H, W).
        radius: r, frames to either side, 0..60.
        ignore_index: Label that is no class.
        first: First frame to smooth; those before are neighbours only.
        stop: Frame after the last one to smooth; None means T.

    Returns:
        Labels of the frames `first` to `stop`, like `labels`.

    Source: ours. Labels are compared in pairs, so time does not depend on the number of classes.
    """
    if not 0 <= radius <= _MAX_RADIUS:
        raise SettingsError(f"the radius of --smooth static must be 0..{_MAX_RADIUS} frames, found {radius}")
    stop = len(labels) if stop is None else stop
    smoothed = np.empty_like(labels[first:stop])
    for t in range(first, stop):
        begin = max(0, t - radius)
        smoothed[t - first] = _majority(labels[begin : t + radius + 1], t - begin, ignore_index)
    return smoothed


def _majority(labels: np.ndarray, own: int, ignore_index: int) -> np.ndarray:
    """Return the most frequent label of each pixel (K, H, W) -> (H, W); ties go to labels[own], else the smallest."""
    votes = np.full(labels.shape, 2, np.uint8)  # twice how often labels[k] occurs, and one more for the frame's own
    votes[own] += 1
    for i, j in combinations(range(len(labels)), 2):
        is_equal = (labels[i] == labels[j]).view(np.uint8)
        is_equal += is_equal
        votes[i] += is_equal
        votes[j] += is_equal
    votes[labels == ignore_index] = 0
    bits, highest = 8 * labels.itemsize, np.iinfo(labels.dtype).max
    key_type = np.uint16 if labels.itemsize == 1 else np.uint32
    best = np.zeros(labels.shape[1:], key_type)  # (votes, highest - label): of equal votes the smallest label is best
    for frame_labels, frame_votes in zip(labels, votes, strict=True):
        np.maximum(best, (frame_votes.astype(key_type) << bits) | (highest - frame_labels), out=best)
    winners = highest - (best & highest).astype(labels.dtype)
    winners[best >> bits == 0] = ignore_index
    return winners


@dataclass(frozen=True)
class StaticSmoother:
    """Majority over neighbouring frames, see `majority_of_neighbours`.

    A window is held back until `radius` frames after it are known, one window as a rule, so that borders between
    windows leave no trace.
    """

    radius: int = STATIC_RADIUS
    ignore_index: int = IGNORE_INDEX

    def smooth(self, windows: Iterator[LabelledWindow]) -> Iterator[SmoothedWindow]:
        """Yield (frames, base labels, smoothed labels) per window of one clip.

        Raises:
            ShapeError: If the size of the labels changes.
        """
        waiting: deque[LabelledWindow] = deque()
        before: list[np.ndarray] = []  # labels of up to `radius` frames before the first waiting window
        num_waiting = 0
        for frames, base in windows:
            if waiting:
                _check_same_size(waiting[-1][1].labels, base.labels)
            waiting.append((frames, base))
            num_waiting += len(frames)
            while waiting and num_waiting - len(waiting[0][0]) >= self.radius:
                num_waiting -= len(waiting[0][0])
                yield self._smooth_first(waiting, before)
        while waiting:
            yield self._smooth_first(waiting, before)

    def _smooth_first(self, waiting: deque[LabelledWindow], before: list[np.ndarray]) -> SmoothedWindow:
        """Take the first window, given those that wait behind it, and put its last frames into `before`."""
        frames, base = waiting.popleft()
        after = islice((frame_labels for _, later in waiting for frame_labels in later.labels), self.radius)
        labels = np.stack([*before, *base.labels, *after])
        stop = len(before) + len(frames)
        smoothed = majority_of_neighbours(labels, self.radius, self.ignore_index, len(before), stop)
        before[:] = labels[max(0, stop - self.radius) : stop]
        return frames, base, BaseLabels(smoothed)


# --- flow -----------------------------------------------------------------------------------------------------------


ClassScores = dict[int, np.ndarray]  # what speaks for each class seen of late, ascending: float32 (H, W), sums <= 1


def scores_of(labels: np.ndarray, ignore_index: int = IGNORE_INDEX) -> ClassScores:
    """Give 1 to the class of each pixel of labels (H, W)."""
    return {c: (labels == c).astype(np.float32) for c in sorted(_classes_in(labels, ignore_index))}


def average_along_flow(
    before: ClassScores,
    labels: np.ndarray,
    positions: np.ndarray,
    weights: np.ndarray,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[ClassScores, np.ndarray]:
    """Blend the scores of the frame before, looked up along the flow, with the labels of this frame.

    s(c) = w * s_before(c at the pixel's position) + (1 - w) * [label = c]; a pixel with the ignore index adds nothing.
    Time and memory go with the classes in `before` and `labels`: about 1.5 ms and 1.6 MB each at 480x853.

    Args:
        before: Scores of the frame before.
        labels: Labels of this frame, uint8 or uint16 (H, W).
        positions: Where its pixels (x, y) were in the frame before, float32 (H, W, 2).
        weights: w per pixel, float32 (H, W) in [0, 1].
        ignore_index: Label that is no class.

    Returns:
        Scores of this frame, and its smoothed labels like `labels`: the class with the highest score, the smallest of
        equal ones, or the ignore index where all are 0. Classes below 1/256 everywhere are forgotten.
    """
    scores: ClassScores = {}
    fresh = 1 - weights
    smoothed = np.full_like(labels, ignore_index)
    highest = np.zeros(labels.shape, np.float32)
    for c in sorted(before.keys() | _classes_in(labels, ignore_index)):
        score = fresh * (labels == c)
        if c in before:
            carried = look_up(before[c], positions)
            carried *= weights
            score += carried
        is_higher = (score > highest).view(np.uint8)
        cv2.copyTo(np.full_like(labels, c), is_higher, smoothed)  # numpy's masked copies take 50 times as long
        np.maximum(highest, score, out=highest)
        if score.max() >= _FORGOTTEN:
            scores[c] = score
    return scores, smoothed


@dataclass(frozen=True)
class FlowSmoother:
    """Average over the frames before, carried along by optical flow; looks back only.

    The past weighs `weight` * exp(-d / `tolerance`), where d is the photometric difference along the flow, so that what
    was hidden before starts anew. Scores and the last picture are carried over the borders of windows.

    Attributes:
        weight: Of the past where flow is certain, [0, 1).
        tolerance: Difference in grey levels at which the past weighs 1/e of that.
        ignore_index: Label that is no class.
    """

    weight: float = FLOW_WEIGHT
    tolerance: float = GREY_TOLERANCE
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if not 0 <= self.weight < 1 or not self.tolerance > 0:
            raise SettingsError(
                f"--smooth flow needs a weight in [0, 1) and a tolerance above 0 grey levels, found {self.weight} and "
                f"{self.tolerance}"
            )

    def smooth(self, windows: Iterator[LabelledWindow]) -> Iterator[SmoothedWindow]:
        """Yield (frames, base labels, smoothed labels) per window of one clip.

        Raises:
            ShapeError: If frames change their size, or labels are not of the frames' size.
        """
        scores: ClassScores | None = None
        grey_before = np.empty(0)
        for frames, base in windows:
            smoothed = np.empty_like(base.labels)
            for t, frame in enumerate(frames):
                grey, labels = to_grey(frame.image), base.labels[t]
                _check_same_size(grey, labels)
                if scores is None:
                    scores, smoothed[t] = scores_of(labels, self.ignore_index), labels
                else:
                    positions = follow_back(backward_flow(grey, grey_before))
                    difference = photometric_difference(grey, grey_before, positions)
                    weights = np.float32(self.weight) * np.exp(difference * np.float32(-1 / self.tolerance))
                    scores, smoothed[t] = average_along_flow(scores, labels, positions, weights, self.ignore_index)
                grey_before = grey
            yield frames, base, BaseLabels(smoothed)


def _classes_in(labels: np.ndarray, ignore_index: int) -> set[int]:
    """Return the classes that occur in labels."""
    return set(np.flatnonzero(np.bincount(labels.reshape(-1))).tolist()) - {ignore_index}


def _check_same_size(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape[-2:] != other.shape[-2:]:
        raise ShapeError(
            f"labels and frames of sizes {one.shape[-2:]} and {other.shape[-2:]} meet in one clip: smoothing needs one "
            "size throughout. Refine the parts of the clip as clips of their own"
        )
