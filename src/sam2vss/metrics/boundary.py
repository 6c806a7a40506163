"""Which pixels of a label map lie at a boundary, without a loop over the classes.

A pixel of class c survives the erosion of class c's mask exactly where its neighbourhood holds no other label. So the
union over all classes of "mask minus eroded mask" is where a square around the pixel holds more than one label. Such
a square of distance d reaches a 3 x 3 square that holds more than one label within distance d - 1, so one map of
those 3 x 3 squares, widened, gives the band of every distance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from .planes import Planes

BAND_KERNEL_PX: Final = 5  # paper Sec. 3.3, Eq. 5: "5-pixel kernel", read as a 5 x 5 square
BOUNDARY_IOU_PX: Final = 2  # distance of the two-sided Boundary IoU that equals the same 5 x 5 square
BOUNDARY_IOU_SHARE: Final = 0.02  # of the image diagonal: Cheng et al., CVPR 2021, and boundary-iou-api


@dataclass(frozen=True, eq=False)
class Edges:
    """Boundary of all regions of the truth and of the prediction at one distance, bool (H, W) each."""

    truth: np.ndarray
    prediction: np.ndarray


def boundary_iou_distance(size: tuple[int, int]) -> int:
    """Return 2 % of the diagonal of (H, W) in pixels, rounded as boundary-iou-api does, at least 1."""
    return max(1, round(BOUNDARY_IOU_SHARE * math.hypot(*size)))


def label_band(labels: np.ndarray, distance_px: int = BAND_KERNEL_PX // 2) -> np.ndarray:
    """Mark the pixels that have another label within `distance_px` (rows and columns, i.e. a square).

    The neighbourhood ends at the image border, so the border by itself is no boundary.

    Args:
        labels: uint8 or uint16 (H, W); void takes part as a label of its own.
        distance_px: Half the edge of the square, at least 1; 2 means 5 x 5.

    Returns:
        bool (H, W).
    """
    changes = _mark_changes(labels, Planes(labels.shape[:2], labels.dtype))
    return _widen(changes, distance_px, np.empty(labels.shape[:2], bool))


def mark_boundaries(
    truth: np.ndarray, prediction: np.ndarray, distances_px: Sequence[int], planes: Planes
) -> tuple[np.ndarray, list[Edges]]:
    """Mark the truth's boundary band, and both sides of Boundary IoU at several distances.

    Boundary IoU (Cheng et al., CVPR 2021) pads masks with zeros, so the outermost pixels of the image are boundary.

    Args:
        truth: Labels 0..C (H, W), C is void.
        prediction: Labels 0..C (H, W) with the truth's void, see `copy_void`.
        distances_px: At least 1 each.
        planes: Scratch arrays of the labels' size and type; the results lie in them.

    Returns:
        `label_band(truth)`, and edges by distance.
    """
    changes = _mark_changes(truth, planes)
    band = _widen(changes, BAND_KERNEL_PX // 2, planes.mask("band"))
    true_edges = [_mark_edge(changes, distance, planes.mask(f"truth edge {distance}")) for distance in distances_px]
    changes = _mark_changes(prediction, planes)
    edges = [_mark_edge(changes, distance, planes.mask(f"prediction edge {distance}")) for distance in distances_px]
    return band, [Edges(*pair) for pair in zip(true_edges, edges, strict=True)]


def copy_void(truth: np.ndarray, prediction: np.ndarray, num_classes: int, planes: Planes) -> np.ndarray:
    """Return the prediction with the truth's void.

    Otherwise a perfect prediction, which runs on through the void, would lack the boundary that the truth has there.

    Args:
        truth: Labels 0..C (H, W), C is void.
        prediction: Labels 0..C (H, W), C is unlabelled; same dtype.
        num_classes: C.
        planes: Scratch arrays of the labels' size and type; the result is one of them.
    """
    masked = planes.labels("masked")
    np.copyto(masked, prediction)
    is_void = np.equal(truth, num_classes, out=planes.mask("scratch"))
    cv2.copyTo(truth, is_void.view(np.uint8), masked)  # several times faster than `np.copyto(where=)`
    return masked


def _mark_changes(labels: np.ndarray, planes: Planes) -> np.ndarray:
    """Mark the pixels whose 3 x 3 square holds more than one label."""
    kernel = np.ones((3, 3), np.uint8)
    lowest = cv2.erode(labels, kernel, dst=planes.labels("lowest"))
    highest = cv2.dilate(labels, kernel, dst=planes.labels("highest"))
    changes = planes.mask("changes")
    np.not_equal(lowest, highest, out=changes)
    return changes


def _widen(changes: np.ndarray, distance_px: int, out: np.ndarray) -> np.ndarray:
    """Turn the changes into the band of that distance."""
    kernel = np.ones((2 * distance_px - 1, 2 * distance_px - 1), np.uint8)
    cv2.dilate(changes.view(np.uint8), kernel, dst=out.view(np.uint8))
    return out


def _mark_edge(changes: np.ndarray, distance_px: int, out: np.ndarray) -> np.ndarray:
    """Mark the band of that distance and the image border."""
    edge = _widen(changes, distance_px, out)
    for axis in (edge, edge.T):
        axis[:distance_px] = True
        axis[-distance_px:] = True
    return edge
