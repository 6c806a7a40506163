"""SegFormer's all-MLP decode head, and the frame around every model here: an encoder and a head.

The video models keep this head and add their own: it makes the fused map of each frame they start from, and labels a
frame that has no earlier ones. Any of their checkpoints therefore holds a complete SegFormer.

Source: arXiv 2105.15203, Sec. 3.2; width 256 for every size of the encoder, as in the VSPW checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .mit import MixTransformer, Stages, to_map, to_tokens

HEAD_WIDTH = 256  # channels of the fused map
DROPOUT = 0.1  # of whole channels before the classifier, in training
SINGLE_FRAME_WEIGHT = 0.5  # of the loss of all frames by themselves, beside that of a video model's last frame
UNUSED_KEYS = (r"decode_head\.conv_seg\.(weight|bias)",)  # in every published checkpoint, never used by the models


@dataclass(frozen=True)
class WeightedLogits:
    """Logits for some frames of a training batch, and how much their loss counts.

    Attributes:
        logits: (N, C, h, w).
        frames: For each row, the index of its frame in the batch of B * T frames.
        weight: Factor of the mean loss.
    """

    logits: Tensor
    frames: tuple[int, ...]
    weight: float


class SegformerHead(nn.Module):
    """Brings the four stages to one width and grid, mixes them, and classifies every cell.

    Args:
        channels: Of the four stages.
        num_classes: C.
    """

    num_frames = 1  # that one prediction looks at

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        for stage, width in enumerate(channels, start=1):
            self.add_module(f"linear_c{stage}", StageProjection(width))
        self.linear_fuse = ConvolutionBlock(len(channels) * HEAD_WIDTH, HEAD_WIDTH)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.linear_pred = nn.Conv2d(HEAD_WIDTH, num_classes, 1)

    @property
    def num_classes(self) -> int:
        return self.linear_pred.out_channels

    def fuse(self, stages: Stages) -> Tensor:
        """Mix the stages into one map (B, 256, h, w) on the finest grid."""
        grid = stages[0].shape[-2:]
        projected = [self.get_submodule(f"linear_c{number}")(stage) for number, stage in enumerate(stages, start=1)]
        return cast(Tensor, self.linear_fuse(torch.cat([resize(x, grid) for x in reversed(projected)], dim=1)))

    def classify(self, fused: Tensor) -> Tensor:
        """Classify every cell of a fused map by itself: logits (B, C, h, w)."""
        return cast(Tensor, self.linear_pred(self.dropout(fused)))

    def training_logits(self, stages: Stages, num_frames: int) -> list[WeightedLogits]:
        """Return what the loss is made of: the logits of every frame, each by itself.

        Args:
            stages: Of B clips of `num_frames` frames, (B * T, C_i, h_i, w_i), frame by frame.
            num_frames: T.
        """
        logits = self.classify(self.fuse(stages))
        return [WeightedLogits(logits, tuple(range(len(logits))), 1.0)]


class StageProjection(nn.Module):
    """A linear layer on every cell of a stage."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, HEAD_WIDTH)

    def forward(self, stage: Tensor) -> Tensor:
        """Project (B, C, h, w) to (B, 256, h, w)."""
        return to_map(self.proj(to_tokens(stage)), (stage.shape[2], stage.shape[3]))


class ConvolutionBlock(nn.Module):
    """1 x 1 convolution without bias, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, h, w)."""
        return functional.relu(self.bn(self.conv(x)))


class VssModel(nn.Module):
    """An encoder and a decode head, under the names of the published checkpoints."""

    def __init__(self, backbone: MixTransformer, decode_head: SegformerHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head


def resize(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize maps (B, D, h, w) bilinearly to `size`; the same map if it has it."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)
