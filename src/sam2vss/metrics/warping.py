"""Labels of the next frame looked up where optical flow says that a frame's pixels went. Arrays in, arrays out.

Flow here leads from a frame to the next one: the pixel (x, y) goes to (x + flow[y, x, 0], y + flow[y, x, 1]). Whoever
has the frames computes it.
"""

from typing import Final

import numpy as np

from ..errors import ShapeError
from ..flow import follow_back, is_inside, look_up, look_up_nearest

OUTSIDE_PX: Final = -1e6  # a place far from every frame, for pixels without flow
# A pixel counts as seen in both frames where going there and back ends within sqrt(0.01 |there|^2 + 0.01 |back|^2 +
# 0.5) px of the start: Sundaram, Brox and Keutzer, ECCV 2010, Eq. 5.
_SLACK_SHARE: Final = 0.01
_SLACK_PX2: Final = 0.5


def check_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return flow as float32 (H, W, 2); values that are not finite lead far out of the frame.

    Raises:
        ShapeError: If it is not (H, W, 2) of floats for frames of this size.
    """
    flow = np.asarray(flow)
    if flow.shape != (*size, 2) or flow.dtype.kind != "f":
        raise ShapeError(
            f"flow is {flow.dtype} {flow.shape}, expected floats ({size[0]}, {size[1]}, 2): for every pixel of a frame "
            "how far it moves to the right and down until the next frame"
        )
    return np.nan_to_num(flow.astype(np.float32), nan=OUTSIDE_PX, posinf=OUTSIDE_PX, neginf=OUTSIDE_PX)


def warp_back(labels: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring the labels of the next frame back to where flow came from.

    Args:
        labels: Labels of the next frame, any dtype (H, W).
        flow: From the frame to the next one, float32 (H, W, 2), as `check_flow` returns it.

    Returns:
        The label that each pixel has in the next frame, (H, W), nearest pixel; and whether the pixel is still in the
        picture there, bool (H, W). Where it is not, the label is that of the nearest edge pixel.
    """
    positions = follow_back(flow)
    return look_up_nearest(labels, positions), is_inside(positions)


def warp_back_as_tc_script(labels: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Bring labels back as `TC_cal.py` does, with all that follows from its choices.

    Positions are scaled as if the corners of the picture were pixel centres, and read as if they were pixel edges, so
    sampling is stretched by W / (W - 1) about the middle: without any motion the last column lies outside where W is
    even. What lies outside becomes class 0.

    Args:
        labels: Labels of the next frame, uint8 or uint16 (H, W).
        flow: From the frame to the next one, float32 (H, W, 2), as `check_flow` returns it.

    Returns:
        Labels of the same dtype, (H, W).

    Source: VSPW_baseline, `TC_cal.py`; equal to its `grid_sample` on a CPU.
    """
    height, width = labels.shape
    positions = follow_back(flow)
    columns = _as_grid_sample(positions[..., 0], width)
    rows = _as_grid_sample(positions[..., 1], height)
    is_there = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = rows.clip(0, height - 1).astype(np.intp) * width + columns.clip(0, width - 1).astype(np.intp)
    warped: np.ndarray = labels.reshape(-1)[places]
    warped[~is_there] = 0
    return warped


def _as_grid_sample(coordinates: np.ndarray, length: int) -> np.ndarray:
    """Turn pixel coordinates into those that the script reads; float32 all the way, since it decides ties."""
    scaled = np.float32(2) * coordinates / np.float32(max(length - 1, 1)) - np.float32(1)
    read: np.ndarray = np.rint(((scaled + np.float32(1)) * np.float32(length) - np.float32(1)) / np.float32(2))
    return read


def is_seen_in_both(flow: np.ndarray, flow_back: np.ndarray) -> np.ndarray:
    """Tell which pixels of a frame can be seen in the next one: going there and back leads to where one came from.

    Args:
        flow: From the frame to the next one, floats (H, W, 2).
        flow_back: From the next frame to this one, floats (H, W, 2).

    Returns:
        bool (H, W); False also where the pixel leaves the picture.

    Raises:
        ShapeError: If they are not flow of frames of one size.

    Source: Sundaram, Brox and Keutzer, ECCV 2010, Eq. 5.
    """
    size = (flow.shape[0], flow.shape[1])
    there, back = check_flow(flow, size), check_flow(flow_back, size)
    positions = follow_back(there)
    returned = np.stack([look_up(np.ascontiguousarray(back[..., axis]), positions) for axis in (0, 1)], axis=-1)
    gap = np.square(there + returned).sum(axis=-1)
    slack = _SLACK_SHARE * (np.square(there).sum(axis=-1) + np.square(returned).sum(axis=-1)) + _SLACK_PX2
    seen: np.ndarray = is_inside(positions) & (gap < slack)
    return seen
