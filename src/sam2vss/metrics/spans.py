"""Stretches of pixels over which nothing changes: label maps are made of them, so counting spans is cheap.

A frame of 480 x 853 has 410,000 pixels and, on usual predictions, some 20,000 spans of equal labels and marks. What
is counted is looked up once per span and weighted by its length. Noise has so many spans that pixels are cheaper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .confusion import joint_histogram
from .planes import Planes

MAX_SPANS_PER_PIXEL: Final = 1 / 6  # about where both ways cost the same, see benchmarks/metrics.py


@dataclass(frozen=True, eq=False)
class Spans:
    """Where the planes of a frame change, in raster order; a span may go on in the next row.

    Attributes:
        starts: First pixel of each span as flat index, intp (S,).
        lengths: Its number of pixels, float64 (S,): `np.bincount` sums such weights, exactly up to 2**53.
    """

    starts: np.ndarray
    lengths: np.ndarray


def find_spans(values: Sequence[np.ndarray], planes: Planes) -> Spans | None:
    """Find the longest stretches over which none of the arrays changes; None if there are too many to be of use.

    Args:
        values: Contiguous arrays (H, W) of any type, at least one; H and W at least 1.
        planes: Scratch arrays of the same size.
    """
    is_start, differs = planes.mask("span start").ravel(), planes.mask("scratch").ravel()
    is_start.fill(False)
    is_start[0] = True
    for plane in values:
        flat = plane.ravel()
        np.not_equal(flat[1:], flat[:-1], out=differs[1:])
        np.logical_or(is_start[1:], differs[1:], out=is_start[1:])
    if np.count_nonzero(is_start) > MAX_SPANS_PER_PIXEL * is_start.size:
        return None
    starts = np.flatnonzero(is_start)
    return Spans(starts, np.diff(starts, append=is_start.size).astype(np.float64))


def count_table(spans: Spans | None, values: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Count how often each combination of values occurs at the same pixel.

    Args:
        spans: Spans over which none of `values` changes; None counts pixels.
        values: uint8 or uint16 arrays (H, W), contiguous; those of array i lie below `shape[i]`.
        shape: Size of the table.

    Returns:
        int64 table of that shape.
    """
    if spans is None:
        common = np.result_type(*values)
        return joint_histogram([plane.astype(common, copy=False) for plane in values], shape)
    cells = values[0].ravel()[spans.starts].astype(np.intp)
    for plane, size in zip(values[1:], shape[1:], strict=True):
        cells *= size
        cells += plane.ravel()[spans.starts]
    return np.bincount(cells, spans.lengths, math.prod(shape)).astype(np.int64).reshape(shape)
