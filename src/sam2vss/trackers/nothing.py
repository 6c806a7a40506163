"""No masklets at all: the base labels pass through. A control, and what `--tracker none` stands for."""

import numpy as np

from ..types import MaskletWindow, WindowContext


class NoTracker:
    """A `MaskletTracker` that finds nothing."""

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Return a window without masklets over frames, uint8 RGB (L, H, W, 3)."""
        length, height, width = frames.shape[:3]
        return MaskletWindow.from_masks(np.zeros((0, length, height, width), bool), start)
