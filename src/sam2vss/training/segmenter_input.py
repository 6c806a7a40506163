"""How frames become the input of a segmenter in training: as at inference, so that what is learned holds there.

Inference resizes a whole frame in one way; training draws a factor around that size. With the factor 1 and the whole
frame as crop both give the network the same numbers.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..segmenters.preprocessing import Preprocessing


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
