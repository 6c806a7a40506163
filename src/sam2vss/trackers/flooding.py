"""Label maps that end at image edges: grid seeds, cores and a watershed that leaves no gaps.

Label maps are int32 (H, W), regions count from 1, and 0 means "not known yet".
"""

import cv2
import numpy as np


def seed_grid(image: np.ndarray, size_px: int) -> np.ndarray:
    """Put one seed pixel into every cell of a grid, where the picture is smoothest near the cell's middle.

    Args:
        image: uint8 RGB (H, W, 3).
        size_px: Side of a cell; cells at the right and lower edges may be larger.

    Returns:
        int32 (H, W): 1..K at the seeds, 0 elsewhere. There is always at least one.
    """
    height, width = image.shape[:2]
    tops, lefts = (np.arange(max(1, side // size_px)) * size_px for side in (height, width))
    quarter = min(size_px, height, width) // 4
    reach = max(1, min(size_px, height, width) - 2 * quarter)  # side of the middle of a cell
    rows = (tops[:, None, None, None] + quarter + np.arange(reach)[:, None]).clip(max=height - 1)
    columns = (lefts[:, None, None] + quarter + np.arange(reach)).clip(max=width - 1)
    rows, columns = np.broadcast_arrays(rows, columns)
    rows, columns = (axis.reshape(len(tops) * len(lefts), -1) for axis in (rows, columns))
    best = _steepness(image)[rows, columns].argmin(axis=1)[:, None]
    seeds = np.zeros((height, width), np.int32)
    seeds[np.take_along_axis(rows, best, 1), np.take_along_axis(columns, best, 1)] = np.arange(1, len(rows) + 1)[
        :, None
    ]
    return seeds


def _steepness(image: np.ndarray) -> np.ndarray:
    """Return how fast the picture changes around each pixel, largest channel, uint8 (H, W)."""
    red, green, blue = cv2.split(cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def cores(labels: np.ndarray, margin_px: int = 1) -> np.ndarray:
    """Set pixels within `margin_px` of another region to 0; a region that has no others keeps all its pixels."""
    values = labels.astype(np.float32)  # exact below 2**24; OpenCV erodes no int32
    kernel = np.ones((2 * margin_px + 1, 2 * margin_px + 1), np.uint8)
    is_core = cv2.erode(values, kernel) == cv2.dilate(values, kernel)
    num_labels = int(labels.max(initial=0)) + 1
    has_core = np.bincount(labels[is_core], minlength=num_labels) > 0
    return np.where(is_core | ~has_core[labels], labels, 0)


def flood(image: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Let regions grow from their markers until they meet, at image edges where there are any.

    Args:
        image: uint8 RGB (H, W, 3).
        markers: int32 (H, W), 0 where the region is not known yet; some pixel must be known.

    Returns:
        int32 (H, W), no 0 left.

    Source: OpenCV's watershed (Meyer). Its dividing lines, and the frame's edge, which it leaves out, go to the
    neighbour of most like colour.
    """
    if not markers.all():
        padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        labels = cv2.copyMakeBorder(markers, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        flooded = cv2.watershed(padded, labels)[1:-1, 1:-1]
        return _fill_lines(image, np.maximum(flooded, 0))
    return markers


def _fill_lines(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Give pixels with 0 the label of their 4-neighbour of most like colour, from outside in."""
    height, width = labels.shape
    step = width + 2
    flat = np.pad(labels, 1).reshape(-1)
    colors = np.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, 3).astype(np.int16)
    is_open = np.zeros((height + 2, width + 2), bool)
    is_open[1:-1, 1:-1] = labels == 0
    unknown = np.flatnonzero(is_open)
    while len(unknown):
        neighbours = unknown + np.array([[-1], [1], [-step], [step]])
        distances = np.abs(colors[neighbours] - colors[unknown]).sum(axis=2)
        distances[flat[neighbours] == 0] = 1000  # more than any colour is away from another
        nearest = neighbours[distances.argmin(axis=0), np.arange(len(unknown))]
        flat[unknown] = flat[nearest]  # read before it is written: a pixel sees what was known in the round before
        still_unknown = flat[unknown] == 0
        assert not still_unknown.all(), "some region must be known"
        unknown = unknown[still_unknown]
    return np.ascontiguousarray(flat.reshape(height + 2, step)[1:-1, 1:-1])
