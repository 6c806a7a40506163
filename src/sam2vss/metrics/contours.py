"""How well the contours of predicted regions lie on those of the truth: the counts behind boundary F.

Contours and tolerance are those of DAVIS (Perazzi et al., CVPR 2016; davis2017-evaluation): a pixel is on the contour
of a class if the 2 x 2 square that begins there holds the class and something else, and it matches if the other side
has a contour pixel of the same class within ceil(0.8 % of the diagonal), a disk. DAVIS takes precision and recall per
object and frame and averages F; for classes over a set we add up the pixels first, as mIoU does, so that a class that
shows three pixels in one frame does not weigh as much as a frame full of it (ours; for one class in one frame both
are the same number).

Eight classes share a byte, one bit each, so contours of eight classes are found and grown at once.
"""

import math
from typing import Final

import cv2
import numpy as np

from .planes import Planes

CONTOUR_TOLERANCE: Final = 0.008  # of the image diagonal: davis2017-evaluation, `bound_th`
_BITS: Final = 8
# row v, column i: whether value v holds bit i
_HOLDS_BIT: Final = (np.arange(256)[:, None] >> np.arange(_BITS)) & 1
MATCHED_TRUTH, TRUTH, MATCHED_PREDICTION, PREDICTION = range(4)  # rows of the counts
NUM_CONTOUR_ROWS: Final = 4


def contour_tolerance_px(size: tuple[int, int]) -> int:
    """Return how far apart matching contours of an image (H, W) may lie, in pixels (0.8 % of the diagonal, up)."""
    return math.ceil(CONTOUR_TOLERANCE * math.hypot(*size))


class ContourCounter:
    """Counts matching contour pixels of frames of one size.

    Args:
        size: (H, W).
        num_classes: C.
    """

    def __init__(self, size: tuple[int, int], num_classes: int) -> None:
        self._num_classes = num_classes
        self._radius = contour_tolerance_px(size)
        # Rows are padded by the radius: growing a flat array then never leaks from one row's end into the next row.
        self._stride = size[1] + self._radius
        self._padded = Planes((size[0], self._stride), np.uint8)
        self._steps = _disk_steps(self._radius)

    def count(self, truth: np.ndarray, prediction: np.ndarray, present: np.ndarray, planes: Planes) -> np.ndarray:
        """Count the contour pixels of one frame.

        Args:
            truth: Labels 0..C (H, W), C is void.
            prediction: Labels 0..C (H, W) with the truth's void (`copy_void`), as DAVIS masks both sides with it.
            present: The classes that either side holds.
            planes: Scratch arrays of the labels' size and type.

        Returns:
            int64 (4, C): matched pixels of the truth's contours, all of them, the same of the prediction's.
        """
        counts = np.zeros((NUM_CONTOUR_ROWS, self._num_classes), np.int64)
        mixed = [self._mark_mixed(labels, name, planes) for name, labels in (("truth", truth), ("pred", prediction))]
        pixels = [np.flatnonzero(marks) for marks in mixed]
        for first in range(0, len(present), _BITS):
            classes = present[first : first + _BITS]
            sides = [
                self._contours(labels, marks, classes, name, planes)
                for name, labels, marks in zip(("truth", "pred"), (truth, prediction), mixed, strict=True)
            ]
            for side, row in ((0, TRUTH), (1, PREDICTION)):
                own = sides[side][pixels[side]]
                matched = own & self._grow(sides[1 - side])[pixels[side]]
                counts[row - 1, classes] = _count_bits(matched)[: len(classes)]
                counts[row, classes] = _count_bits(own)[: len(classes)]
        return counts

    def _mark_mixed(self, labels: np.ndarray, name: str, planes: Planes) -> np.ndarray:
        """Mark, padded and flat, where the 2 x 2 square that begins here holds more than one label."""
        square = np.ones((2, 2), np.uint8)
        lowest = cv2.erode(labels, square, dst=planes.labels("lowest"), anchor=(0, 0))
        highest = cv2.dilate(labels, square, dst=planes.labels("highest"), anchor=(0, 0))
        marks = self._padded.mask(f"mixed {name}")
        marks[:, labels.shape[1] :] = False
        np.not_equal(lowest, highest, out=marks[:, : labels.shape[1]])
        return marks.ravel()

    def _contours(
        self, labels: np.ndarray, mixed: np.ndarray, classes: np.ndarray, name: str, planes: Planes
    ) -> np.ndarray:
        """Return which of up to eight classes have a contour at each pixel, bits of uint8, padded and flat."""
        width = labels.shape[1]
        bit_of_label = np.zeros(max(256, self._num_classes + 1), np.uint8)
        bit_of_label[classes] = 1 << np.arange(len(classes))
        bits, beside = planes.small("bits"), planes.small("bits beside")
        if labels.dtype == np.uint8:
            cv2.LUT(labels, bit_of_label[:256], dst=bits)
        else:
            np.take(bit_of_label, labels, out=bits)
        np.copyto(beside, bits)
        np.bitwise_or(bits[:, :-1], bits[:, 1:], out=beside[:, :-1])
        contours = self._padded.small(f"contours {name}")
        contours[:, width:] = 0
        contours[:, :width] = beside
        np.bitwise_or(beside[:-1], beside[1:], out=contours[:-1, :width])
        flat = contours.ravel()
        np.multiply(flat, mixed.view(np.uint8), out=flat)
        return flat

    def _grow(self, contours: np.ndarray) -> np.ndarray:
        """Spread every bit over a disk; the result lies in a scratch array.

        The disk is a union of boxes, from the widest to the tallest. `tall` is the input grown up and down as far as
        the box at hand, `grown` the union so far, which is widened by what all later boxes are narrower.
        """
        tall, grown, spare = (self._padded.small(name).ravel() for name in ("tall", "grown", "spare"))
        np.copyto(tall, contours)
        grown.fill(0)
        for height_px, width_px in self._steps:
            for _ in range(height_px):
                tall, spare = _grow_by_one(tall, self._stride, spare), tall
            np.bitwise_or(grown, tall, out=grown)
            for _ in range(width_px):
                grown, spare = _grow_by_one(grown, 1, spare), grown
        return grown


def _disk_steps(radius: int) -> list[tuple[int, int]]:
    """Split a disk into boxes: by how much to grow up and down before each, and sideways after it."""
    half_widths = [math.isqrt(radius * radius - row * row) for row in range(radius + 1)]
    steps = []
    last_row = 0
    for row, half_width in enumerate(half_widths):
        narrower = half_widths[row + 1] if row < radius else 0
        if narrower < half_width or row == radius:
            steps.append((row - last_row, half_width - narrower))
            last_row = row
    return steps


def _grow_by_one(flat: np.ndarray, shift: int, out: np.ndarray) -> np.ndarray:
    """Return in `out` the union of a flat array with itself moved by `shift` to either side."""
    np.copyto(out[:shift], flat[:shift])
    np.bitwise_or(flat[shift:], flat[:-shift], out=out[shift:])
    np.bitwise_or(out[:-shift], flat[shift:], out=out[:-shift])
    return out


def _count_bits(values: np.ndarray) -> np.ndarray:
    """Count, for each of the eight bits, the values that hold it, int64 (8,)."""
    counts: np.ndarray = np.bincount(values, minlength=256) @ _HOLDS_BIT
    return counts
