"""Which pixels of a label map lie at a boundary, without a loop over the classes.

A pixel of class c survives the erosion of class c's mask exactly where its neighbourhood holds no other label. So the
union over all classes of "mask minus eroded mask" is where grey erosion and dilation of the label map differ.
"""

import cv2
import numpy as np

from .confusion import joint_histogram
from .planes import Planes

BAND_KERNEL_PX = 5  # paper Sec. 3.3, Eq. 5: "5-pixel kernel", read as a 5 x 5 square
BOUNDARY_IOU_PX = 2  # distance of the two-sided Boundary IoU that equals the same 5 x 5 square


def label_band(
    labels: np.ndarray,
    kernel_px: int = BAND_KERNEL_PX,
    planes: Planes | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Mark the pixels whose kernel_px x kernel_px neighbourhood holds more than one label.

    The neighbourhood ends at the image border, so the border by itself is no boundary.

    Args:
        labels: uint8 or uint16 (H, W); void takes part as a label of its own.
        kernel_px: Odd edge length of the square.
        planes: Scratch arrays of the labels' size and type.
        out: bool (H, W) for the result; None makes one.

    Returns:
        `out`.
    """
    planes = planes or Planes(labels.shape[:2], labels.dtype)
    kernel = np.ones((kernel_px, kernel_px), np.uint8)
    lowest = cv2.erode(labels, kernel, dst=planes.labels("lowest"))
    highest = cv2.dilate(labels, kernel, dst=planes.labels("highest"))
    band = np.empty(labels.shape[:2], bool) if out is None else out
    np.not_equal(lowest, highest, out=band)
    return band


def mark_image_border(band: np.ndarray, distance_px: int = BOUNDARY_IOU_PX) -> None:
    """Mark the outermost pixels of a band too, as Boundary IoU has it (it pads masks with zeros)."""
    band[:distance_px] = True
    band[-distance_px:] = True
    band[:, :distance_px] = True
    band[:, -distance_px:] = True


def boundary_table(
    truth: np.ndarray,
    prediction: np.ndarray,
    truth_band: np.ndarray,
    num_classes: int,
    planes: Planes | None = None,
) -> np.ndarray:
    """Count the label pairs of the two-sided Boundary IoU (Cheng et al., CVPR 2021) at 2 px.

    Truth's void is copied into the prediction before its boundary is taken: otherwise a perfect prediction, which
    runs on through the void, would lack the boundary that the truth has there.

    Args:
        truth: Labels 0..C (H, W), C is void.
        prediction: Labels 0..C (H, W), C is unlabelled; same dtype.
        truth_band: `label_band(truth)`.
        num_classes: C.
        planes: Scratch arrays of the labels' size and type.

    Returns:
        int64 (C+1, C+1): class of the truth's boundary against class of the prediction's; index C is "no boundary".
    """
    planes = planes or Planes(truth.shape[:2], truth.dtype)
    is_void = np.equal(truth, num_classes, out=planes.mask("void"))
    masked = planes.labels("masked")
    np.copyto(masked, prediction)
    _copy_where(is_void, truth, masked)
    truth_edge = planes.mask("truth edge")
    np.copyto(truth_edge, truth_band)
    mark_image_border(truth_edge)
    masked_edge = label_band(masked, planes=planes, out=planes.mask("masked edge"))
    mark_image_border(masked_edge)
    truth_side, masked_side = planes.labels("truth side"), planes.labels("masked side")
    truth_side.fill(num_classes)
    masked_side.fill(num_classes)
    _copy_where(truth_edge, truth, truth_side)
    _copy_where(masked_edge, masked, masked_side)
    is_edge = np.logical_or(truth_edge, masked_edge, out=truth_edge)
    return joint_histogram((truth_side, masked_side), (num_classes + 1, num_classes + 1), is_edge)


def _copy_where(mask: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    """Copy the masked pixels; several times faster than `np.where` and `np.copyto(where=)`."""
    cv2.copyTo(source, mask.view(np.uint8), target)
