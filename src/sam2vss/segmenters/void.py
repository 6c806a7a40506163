"""No base labels: every pixel is void, so only masklets give labels (I-SAM2 without a base model)."""

from collections.abc import Sequence

import numpy as np

from ..types import BaseLabels, Frame, LabelSpace


class VoidLabels:
    """A `BaseLabelSource` that knows nothing; fits every clip."""

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space

    def check(
        self,
        clip_name: str,
        frame_names: Sequence[str] | None = None,
        num_frames: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> str:
        """Accept every clip."""
        return "none"

    def labels_for(self, clip_name: str, frames: Sequence[Frame]) -> BaseLabels:
        """Return maps of the ignore index, (L, H, W)."""
        size = frames[0].image.shape[:2]
        return BaseLabels(np.full((len(frames), *size), self.label_space.ignore_index, self.label_space.dtype))

    def finish(self, clip_name: str, num_frames: int) -> None:
        """Accept any length."""
