"""What a training needs of a segmenter, whichever library it comes from, and how its logits become a loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..interfaces import Segmenter
from ..segmenters.vss.segformer import WeightedLogits
from ..types import LabelSpace
from .segmenter_input import NetworkInput

LossMean = Literal["all", "labelled"]


class TrainableSegmenter(Protocol):
    """A segmenter with weights that can be changed.

    Attributes:
        network: Holds the weights; parts called "...head" learn faster.
        network_input: What it takes.
        num_frames: Frames of a training clip, the target last.
        label_space: Its classes.
        about: What it is and where it started, for the model card.
        notes: What a user should know of how it was made ready, one sentence each.
    """

    network: nn.Module
    network_input: NetworkInput
    num_frames: int
    label_space: LabelSpace
    about: dict[str, str]
    notes: tuple[str, ...]

    def training_logits(self, pixels: Tensor) -> Sequence[WeightedLogits]:
        """Return what the loss of normalised frames, (B * T, 3, h, w), frame by frame, is made of."""
        ...

    def segmenter(self) -> Segmenter:
        """Return the segmenter that inference would use, with the weights as they are."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that `--segmenter FOLDER` loads into a folder that exists, config.json last.

        Raises:
            MediaError: If they cannot be written.
        """
        ...


def loss_of(parts: Sequence[WeightedLogits], labels: Tensor, ignore_index: int, mean: LossMean) -> Tensor:
    """Return the weighted sum of the cross entropies.

    Args:
        parts: Logits, and which frames they are of; they are resized to the labels.
        labels: Train ids or the ignore index, int64 (B * T, H, W).
        ignore_index: Of pixels that have no part in the loss.
        mean: "all" divides by the number of all pixels, as the published models are trained: a view counts by its
            labelled share, and one without labels counts nothing. "labelled" divides by that of labelled ones.
    """
    total = labels.new_zeros((), dtype=torch.float32)
    for part in parts:
        truth = labels[list(part.frames)]
        logits = functional.interpolate(
            part.logits.float(), truth.shape[-2:], mode="bilinear", align_corners=False
        )  # in float32: the sum of exponents overflows half precision
        summed = functional.cross_entropy(logits, truth, ignore_index=ignore_index, reduction="sum")
        count = truth.numel() if mean == "all" else (truth != ignore_index).sum().clamp_min(1)
        total = total + part.weight * summed / count
    return total
