"""CFFM: labels a frame with a coarse-to-fine look at three frames before it.

The fused maps of four frames (-9, -6, -3 and the target) go through focal blocks, in which every window of the target
attends to its surroundings in all four (`focal_attention.py`). The refined target is classified beside the plain one.

Source: "Coarse-to-Fine Feature Mining for Video Semantic Segmentation" (arXiv 2204.03330v1), Sec. 3; what the paper
leaves open is as in the published code and checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .focal_attention import POOLINGS, FocalAttention, pad_to_windows, pool
from .mit import Stages
from .segformer import HEAD_WIDTH, SegformerHead, WeightedLogits, resize
from .segformer import UNUSED_KEYS as UNUSED_SEGFORMER_KEYS

MLP_RATIO = 4
SINGLE_FRAME_WEIGHT = 0.5  # of the loss of the four frames by themselves, beside that of the refined target
UNUSED_KEYS = (  # of a published checkpoint, besides those of SegFormer: tables of indices, which we compute
    *UNUSED_SEGFORMER_KEYS,
    r"decode_head\.decoder_focal\.blocks\.\d+\.attn\.relative_position_index(_\d+|_clips_\d+)?",
    r"decode_head\.decoder_focal\.blocks\.\d+\.attn\.valid_ind_rolled",
)


@dataclass(frozen=True)
class CffmFrame:
    """What CFFM needs of a frame, as target or as reference.

    Attributes:
        fused: The fused map at half its size, (1, 256, h // 2, w // 2).
        grid: Its full size (h, w), that of the logits.
    """

    fused: Tensor
    grid: tuple[int, int]

    def as_reference(self) -> "CffmFrame":
        """Return what later frames need of this one: all of it."""
        return self


class CffmHead(SegformerHead):
    """SegFormer's head and focal blocks over the fused maps of four frames.

    Args:
        channels: Of the four stages.
        num_classes: C.
        depth: Number of focal blocks; published: 1 (B0), 2 (B1, B2), 4 (B5).
    """

    num_frames = 4

    def __init__(self, channels: Sequence[int], num_classes: int, depth: int) -> None:
        super().__init__(channels, num_classes)
        self.linear_pred2 = nn.Conv2d(2 * HEAD_WIDTH, num_classes, 1)
        self.decoder_focal = FocalBlocks(HEAD_WIDTH, depth)

    def encode(self, stages: Stages, fused: Tensor) -> CffmFrame:
        """Keep of one frame what later frames need, given `fused = self.fuse(stages)`, (1, 256, h, w)."""
        del stages
        return CffmFrame(halve(fused), (fused.shape[2], fused.shape[3]))

    def decode(self, clip: Sequence[CffmFrame]) -> Tensor:
        """Label the last of four frames of one size: logits (1, C, h, w).

        Args:
            clip: Frames -9, -6, -3 and the target, in this order.
        """
        assert len(clip) == self.num_frames
        return self._refined_logits(torch.stack([frame.fused for frame in clip], dim=1), clip[-1].grid)

    def training_logits(self, stages: Stages, num_frames: int) -> list[WeightedLogits]:
        """Return the logits of all frames by themselves, and those of the last frame of each clip with the others.

        Args:
            stages: Of B clips of four frames, (B * 4, C_i, h_i, w_i), frame by frame.
            num_frames: 4.
        """
        assert num_frames == self.num_frames
        fused = self.fuse(stages)
        single = self.classify(fused)
        refined = self._refined_logits(halve(fused).unflatten(0, (-1, num_frames)), fused.shape[-2:])
        return [
            WeightedLogits(single, tuple(range(len(single))), SINGLE_FRAME_WEIGHT),
            WeightedLogits(refined, tuple(range(num_frames - 1, len(single), num_frames)), 1.0),
        ]

    def _refined_logits(self, clips: Tensor, grid: Sequence[int]) -> Tensor:
        """Turn halved fused maps (B, 4, 256, h, w) into logits (B, C, *grid) of the last frames."""
        refined = self.decoder_focal(clips)
        logits = self.linear_pred2(self.dropout(torch.cat([clips[:, -1], refined], dim=1)))
        return resize(logits, grid)


class FocalBlocks(nn.Module):
    """Focal blocks one after another; only the target changes from block to block."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([FocalBlock(channels) for _ in range(depth)])

    def forward(self, clips: Tensor) -> Tensor:
        """Refine the last of the four maps (B, 4, D, H, W): (B, D, H, W)."""
        *references, target = clips.movedim(2, -1).unbind(dim=1)
        for block in self.blocks:
            target = block(target, references)
        return target.movedim(-1, 1)


class FocalBlock(nn.Module):
    """Focal attention of the target to all frames, then an MLP, each after a norm and around a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        target, *references = [averaging_layer(pooling.size**2) for pooling in POOLINGS]
        self.pool_layers = nn.ModuleList([target])
        self.pool_layers_clips = nn.ModuleList(references)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = FocalAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, MLP_RATIO * channels)

    def forward(self, target: Tensor, references: Sequence[Tensor]) -> Tensor:
        """Refine the target (B, H, W, D) by the three references of the same shape."""
        frames = [pad_to_windows(self.norm1(frame)) for frame in (target, *references)]
        layers = cast(list[nn.Linear], [*self.pool_layers, *self.pool_layers_clips])
        pooled = [pool(*each) for each in zip(frames, POOLINGS, layers, strict=True)]
        attended = self.attn(frames[0], pooled)
        target = target + attended[:, : target.shape[1], : target.shape[2]]
        return cast(Tensor, target + self.mlp(self.norm2(target)))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (..., D)."""
        return cast(Tensor, self.fc2(functional.gelu(self.fc1(x))))


def averaging_layer(num_cells: int) -> nn.Linear:
    """A linear layer that makes one cell of many, the same for all channels; it starts as their mean."""
    layer = nn.Linear(num_cells, 1)
    nn.init.constant_(layer.weight, 1 / num_cells)
    nn.init.zeros_(layer.bias)
    return layer


def halve(fused: Tensor) -> Tensor:
    """Resize maps (B, D, h, w) to half their size, rounded down."""
    return resize(fused, (fused.shape[2] // 2, fused.shape[3] // 2))
