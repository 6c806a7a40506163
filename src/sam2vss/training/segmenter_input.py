"""How frames become the input of a segmenter in training: as at inference, so that what is learned holds there.

Inference resizes a whole frame in one way; training draws a factor around that size. With the factor 1 and the whole
frame as crop both give the network the same numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..errors import SettingsError
from ..segmenters.preprocessing import Preprocessing

MIN_SIDE_PX = 8  # ours: of a whole frame in a view; less shows nothing
MAX_PIXELS = 2**28  # ours: of a resized frame, 0.8 GB


@dataclass(frozen=True)
class NetworkInput:
    """What a network takes.

    Attributes:
        preprocessing: What is done to frames at inference.
        antialias: Whether frames are smoothed where they shrink, as Pillow does and OpenCV does not.
    """

    preprocessing: Preprocessing
    antialias: bool = True

    def size(self, frame_size: tuple[int, ...], factor: float = 1.0) -> tuple[int, int]:
        """Return the (height, width) of a frame of (height, width) in a view, `factor` times that at inference.

        Sides are not rounded up to multiples here, as the published models are trained, since a crop follows.
        """
        height, width = frame_size
        named = self.preprocessing.size
        if named is None:
            return max(1, round(height * factor)), max(1, round(width * factor))
        scaled = {name: max(1, round(value * factor)) for name, value in named.items()}
        return replace(self.preprocessing, size=scaled, divisor=1, multiple=1).resized((height, width))

    def check_views(self, sizes: Iterable[tuple[int, int]], scales: tuple[float, float]) -> None:
        """Refuse factors that leave next to nothing of frames, or blow them up beyond all use.

        Args:
            sizes: (height, width) of frames.
            scales: Smallest and largest factor of their size at inference.

        Raises:
            SettingsError: If a view would have a side below 8 pixels, or frames would be resized to more than 2^28
                pixels.
        """
        for size in sizes:
            for factor, option in zip(scales, ("--smallest", "--largest"), strict=True):
                height, width = self.size(size, factor)
                if min(height, width) < MIN_SIDE_PX or height * width > MAX_PIXELS:
                    raise SettingsError(
                        f"frames of {size[1]} x {size[0]} pixels become {width} x {height} with {option} {factor}, "
                        f"expected sides of at least {MIN_SIDE_PX} and at most {MAX_PIXELS} pixels in all: mend "
                        f"{option} or --scale"
                    )

    def resize(self, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Resize a picture, uint8 RGB (H, W, 3), to (height, width)."""
        if frame.shape[:2] == size:
            return frame
        if not self.antialias:
            return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
        channels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
        mode = self.preprocessing.interpolation
        smooths = mode != "nearest-exact"
        return functional.interpolate(channels, size, mode=mode, antialias=smooths)[0].permute(1, 2, 0).numpy()

    def normalize(self, frames: torch.Tensor) -> torch.Tensor:
        """Turn uint8 RGB (..., H, W, 3) into float32 (..., 3, H, W) with the network's mean and spread."""
        pixels = frames.movedim(-1, -3)
        if self.preprocessing.flip_channels:
            pixels = pixels.flip(-3)
        preprocessing = self.preprocessing
        mean, std = (
            torch.tensor(values, device=frames.device).view(3, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )
        return (pixels.float() * preprocessing.scale - mean) / std
