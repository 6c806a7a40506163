"""Square pictures of single masks, for models that take one picture of one thing."""

import math

import numpy as np

SMALLEST_SIDE = 16  # ours, pixels: a mask of a few pixels is nothing but blur without what is around it


def square_crop(
    image: np.ndarray,
    mask: np.ndarray,
    box_xyxy: tuple[int, int, int, int],
    fill: np.ndarray,
    margin: float = 0.0,
    fade: float = 0.0,
) -> np.ndarray:
    """Cut a square around a mask out of a frame, and let what is not the mask fade.

    The square is the box's longer side plus margins, 16 pixels or more, around the middle of the box. So shapes stay as
    they are. Where it goes beyond the frame it is filled.

    Args:
        image: uint8 RGB (H, W, 3).
        mask: bool (H, W).
        box_xyxy: The mask's box in pixels, half-open; not empty.
        fill: Colour, uint8 (3,).
        margin: Added on every side, in longer sides of the box.
        fade: 0 leaves the surroundings as they are, 1 fills them; between them colours are mixed.

    Returns:
        uint8 (S, S, 3).

    Source: ours.
    """
    x0, y0, x1, y1 = box_xyxy
    longer = max(x1 - x0, y1 - y0)
    side = max(SMALLEST_SIDE, math.ceil(longer * (1 + 2 * margin)))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    height, width = mask.shape
    rows = slice(max(0, top), min(height, top + side))
    columns = slice(max(0, left), min(width, left + side))
    part = image[rows, columns]
    shown = part
    if fade > 0:
        faded = np.rint((1 - fade) * part.astype(np.float32) + fade * fill.astype(np.float32)).astype(np.uint8)
        shown = np.where(mask[rows, columns, None], part, faded)
    crop = np.empty((side, side, 3), np.uint8)
    crop[:] = fill
    crop[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = shown
    return crop
