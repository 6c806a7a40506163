"""Dense optical flow between neighbouring frames, and values looked up along it.

What follows labels without weights stands on this: flow-warped smoothing and superpixels. Flow is backward everywhere:
it says for every pixel of a frame where it was in the frame before.
"""

import cv2
import numpy as np

from .errors import ShapeError

_MIN_SIDE_PX = 32  # DIS refuses pictures below 12 px and finds nothing in its coarse levels below this


def to_grey(image: np.ndarray) -> np.ndarray:
    """Return the brightness of a frame, uint8 RGB (H, W, 3) -> uint8 (H, W)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def backward_flow(grey: np.ndarray, grey_before: np.ndarray) -> np.ndarray:
    """Find where every pixel of a frame was in the frame before.

    Small frames are padded by their edge pixels. Equal on any number of threads.

    Args:
        grey: Brightness of the frame, uint8 (H, W).
        grey_before: Brightness of the frame before, uint8 (H, W).

    Returns:
        float32 (H, W, 2): pixel (x, y) was at (x + flow[y, x, 0], y + flow[y, x, 1]); may lie outside the frame.

    Raises:
        ShapeError: If the frames differ in size.

    Source: DIS optical flow (Kroeger et al., ECCV 2016) in OpenCV, preset "medium".
    """
    if grey.shape != grey_before.shape:
        raise ShapeError(
            f"a frame of size {grey.shape} follows one of size {grey_before.shape}: optical flow needs frames of one "
            "size. Refine the parts of the clip as clips of their own"
        )
    height, width = grey.shape
    below, right = max(0, _MIN_SIDE_PX - height), max(0, _MIN_SIDE_PX - width)
    if below or right:
        grey, grey_before = (
            cv2.copyMakeBorder(picture, 0, below, 0, right, cv2.BORDER_REPLICATE) for picture in (grey, grey_before)
        )
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = estimator.calc(grey, grey_before, None)  # type: ignore[call-overload]  # OpenCV's stubs want an array
    return np.ascontiguousarray(flow[:height, :width])


def follow_back(flow: np.ndarray) -> np.ndarray:
    """Turn flow into positions (x, y) in the frame before, float32 (H, W, 2) both."""
    height, width = flow.shape[:2]
    positions = flow.copy()
    positions[..., 0] += np.arange(width, dtype=np.float32)
    positions[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return positions


def is_inside(positions: np.ndarray) -> np.ndarray:
    """Tell which positions (H, W, 2) lie in a frame of the same size, bool (H, W); a pixel reaches half a px out."""
    height, width = positions.shape[:2]
    x, y = positions[..., 0], positions[..., 1]
    inside: np.ndarray = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return inside


def look_up(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Look up values (H, W) at positions (x, y), float32 (H, W, 2); bilinear, edges repeated."""
    x, y = cv2.split(positions)
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def look_up_nearest(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Look up values (H, W) of any dtype at the nearest pixel of each position; edges repeated."""
    height, width = values.shape
    columns = np.rint(positions[..., 0]).clip(0, width - 1).astype(np.intp)
    rows = np.rint(positions[..., 1]).clip(0, height - 1).astype(np.intp)
    found: np.ndarray = values.reshape(-1)[rows * width + columns]
    return found


def photometric_difference(grey: np.ndarray, grey_before: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Say how far pixels differ from what is at these positions in the frame before, float32 (H, W).

    In grey levels, averaged over 3x3 pixels; infinite where the position lies outside the frame before.

    Source: ours.
    """
    difference = cv2.blur(cv2.absdiff(grey, look_up(grey_before, positions)).astype(np.float32), (3, 3))
    difference[~is_inside(positions)] = np.inf
    return difference
