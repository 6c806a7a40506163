"""Frames as the published test scripts of CFFM, MRCFA and TV3S take them: their size, and which ones a clip holds.

Source: the `AlignedResize_clips`, `Normalize_clips` and `prepare_test_img2` steps of these repositories.
"""

import math

import cv2
import numpy as np
import torch
from torch import Tensor

TEST_SCALE = (853, 480)  # the longer and the shorter side fit into this, VSPW's size
DIVISOR = 32  # network inputs have sides that are multiples of it
PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB, grey levels 0..255
PIXEL_STD = (58.395, 57.12, 57.375)

NUM_EARLIER = 9  # a frame is labelled with the help of at most this many frames before it
OFFSETS = (-9, -6, -3, 0)
_FIRST_CLIPS = {  # of frames that have too few before them for the offsets
    3: (0, 1, 2, 3),
    4: (0, 2, 3, 4),
    5: (0, 2, 4, 5),
    6: (0, 2, 4, 6),
    7: (0, 3, 5, 7),
    8: (0, 3, 6, 8),
}


def clip_indices(index: int) -> tuple[int, ...]:
    """Return the frames that frame `index` (from 0) is labelled with, itself last; the first three are alone."""
    if index < min(_FIRST_CLIPS):
        return (index,)
    return _FIRST_CLIPS.get(index, tuple(index + offset for offset in OFFSETS))


def network_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that the network sees of a frame of (height, width)."""
    height, width = (DIVISOR * math.ceil(side / DIVISOR) for side in _scaled(size))
    return height, width


def network_input(frame: np.ndarray) -> Tensor:
    """Turn a frame, uint8 RGB (H, W, 3), into float32 (3, h, w).

    The frame is scaled to fit into 853 x 480 (also upwards) and then stretched, in a second resize, to multiples of 32,
    each time bilinearly without smoothing and rounded to bytes, by the library that the scripts use.
    """
    scaled = _resize(frame, _scaled(frame.shape[:2]))
    aligned = _resize(scaled, network_size(frame.shape[:2]))
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    pixels = (torch.from_numpy(aligned).float() - mean) * (1 / std)
    return pixels.permute(2, 0, 1).contiguous()


def _scaled(size: tuple[int, ...]) -> tuple[int, int]:
    factor = min(max(TEST_SCALE) / max(size), min(TEST_SCALE) / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
