"""Counting which labels meet, and making labels fit for it.

Arrays in, integers out; which clip a count belongs to and which score is made of it is decided elsewhere.
"""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

MAX_EXACT_PIXELS: Final = 1 << 24  # OpenCV hands histograms back as float32, which holds every integer up to here


def work_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the dtype that holds 0..C, where C stands for "no class"."""
    return np.uint8 if num_classes <= 255 else np.uint16


def fold_strangers(labels: np.ndarray, num_classes: int, out: np.ndarray | None = None) -> np.ndarray:
    """Turn every value outside 0..C-1 into C, so that it has its own cell and never spills into another.

    Args:
        labels: Any integer or bool array (H, W); negative values are outside too.
        num_classes: C.
        out: Array (H, W) of `work_dtype(C)` for the result; None makes one.

    Returns:
        `out`, contiguous.
    """
    if out is None:
        out = np.empty(labels.shape, work_dtype(num_classes))
    if labels.dtype == out.dtype:
        cv2.threshold(np.ascontiguousarray(labels), num_classes, num_classes, cv2.THRESH_TRUNC, dst=out)
    else:
        np.copyto(out, labels, casting="unsafe")
        np.copyto(out, num_classes, where=(labels < 0) | (labels >= num_classes), casting="unsafe")
    return out


def joint_histogram(planes: Sequence[np.ndarray], shape: tuple[int, ...], mask: np.ndarray | None = None) -> np.ndarray:
    """Count how often each combination of values occurs at the same pixel.

    Args:
        planes: Arrays (H, W), all uint8 or all uint16; the values of plane i lie below `shape[i]`.
        shape: Size of the table.
        mask: bool (H, W); only True pixels count. None counts all.

    Returns:
        int64 table of that shape, exact for frames of any size.
    """
    height, width = planes[0].shape
    step = max(1, MAX_EXACT_PIXELS // width)
    ranges = [end for length in shape for end in (0, length)]
    table = np.zeros(shape, np.int64)
    for top in range(0, height, step):
        part = slice(top, top + step)
        mask_part = None if mask is None else mask[part].view(np.uint8)
        counted = cv2.calcHist([plane[part] for plane in planes], list(range(len(planes))), mask_part, shape, ranges)
        table += counted.astype(np.int64)
    return table


def region_sums(table: np.ndarray) -> np.ndarray:
    """Reduce a table of label pairs to correct, true and predicted pixels per class.

    Args:
        table: int64 (C or C+1, C+1), truth in rows, prediction in columns; index C means no class. A row C is only
            there where predictions outside the truth's pixels count too.

    Returns:
        int64 (3, C): both, truth, prediction.
    """
    num_classes = table.shape[1] - 1
    return np.stack(
        [
            np.diagonal(table)[:num_classes],
            table[:num_classes].sum(axis=1),
            table[:, :num_classes].sum(axis=0),
        ]
    )
