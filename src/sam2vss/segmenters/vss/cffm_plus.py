"""CFFM++: CFFM, and a look at prototypes of the whole video.

Ten frames spread over the video are summed up by 100 prototypes, k-means centres of their cells. A branch beside CFFM
lets every cell of the target attend to these, and half of its logits are added. As prototypes come from the whole
video, frames can be labelled only once it is there; without them the head is CFFM.

Source: "Learning Local and Global Temporal Contexts for Video Semantic Segmentation" (arXiv 2204.03330v2); numbers and
what the paper leaves open are as in the published code. There, k-means starts from cells drawn without a seed, so that
published prototypes cannot be made again exactly (given the same prototypes, logits are equal); and where a video has
several files of prototypes, a random 80 % of them are used for each frame, which we do not do.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .cffm import MLP_RATIO, CffmFrame, CffmHead, Mlp
from .cffm import UNUSED_KEYS as UNUSED_CFFM_KEYS
from .focal_attention import HEADS
from .segformer import HEAD_WIDTH, resize

NUM_PROTOTYPES = 100
NUM_PROTOTYPE_FRAMES = 10
KMEANS_ROUNDS = 10
KMEANS_TOLERANCE = 1e-4  # stops once the summed squared movement of all centres is not above
PROTOTYPE_WEIGHT = 0.5  # of the branch's logits beside those of CFFM
UNUSED_KEYS = (  # besides those of CFFM: of attention among the cells themselves, which the published code leaves out
    *UNUSED_CFFM_KEYS,
    r"decode_head\.decoder_swin\.blocks\.0\.attn\.relative_position_(bias_table|index)",
    r"decode_head\.decoder_swin\.blocks\.0\.attn\.proj\.(weight|bias)",
)


class CffmPlusHead(CffmHead):
    """CFFM's head with the branch to prototypes. What it gives for training is that of CFFM, without the branch.

    Args:
        channels: Of the four stages.
        num_classes: C.
        depth: Number of focal blocks.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, depth: int) -> None:
        super().__init__(channels, num_classes, depth)
        self.linear_pred3 = nn.Conv2d(HEAD_WIDTH, num_classes, 1)
        self.decoder_swin = PrototypeBlocks(HEAD_WIDTH)

    def decode(self, clip: Sequence[CffmFrame], prototypes: Tensor | None = None) -> Tensor:
        """Label the last of four frames: logits (1, C, h, w).

        Args:
            clip: Frames -9, -6, -3 and the target, in this order.
            prototypes: Of the clip's video, (n, 256), from `make_prototypes`; None gives what CFFM gives.
        """
        logits = super().decode(clip)
        if prototypes is None:
            return logits
        return logits + PROTOTYPE_WEIGHT * self.prototype_logits(clip[-1].fused, prototypes[None], clip[-1].grid)

    def prototype_logits(self, fused: Tensor, prototypes: Tensor, grid: Sequence[int]) -> Tensor:
        """Label halved fused maps (B, 256, H, W) by the prototypes (B, n, 256) of their videos: (B, C, *grid)."""
        refined = self.decoder_swin(fused, prototypes.to(fused))
        return resize(self.linear_pred3(self.dropout(refined)), grid)


class PrototypeBlocks(nn.Module):
    """Holds the one block, as published checkpoints have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([PrototypeBlock(channels)])

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Refine maps (B, D, H, W) by prototypes (B, n, D)."""
        return cast(Tensor, self.blocks[0](x.movedim(1, -1), prototypes)).movedim(-1, 1)


class PrototypeBlock(nn.Module):
    """Attention of every cell to the prototypes, then an MLP, each after a norm and around a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = PrototypeAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, MLP_RATIO * channels)

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Transform (B, H, W, D) by prototypes (B, n, D)."""
        x = x + self.attn(self.norm1(x), self.norm1(prototypes))
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class PrototypeAttention(nn.Module):
    """Attention of cells to prototypes; of `qkv`, which checkpoints have in full, only the part for queries is used."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.qkv_cluster = nn.Linear(channels, 2 * channels)  # keys and values
        self.proj_cluster = nn.Linear(channels, channels)

    def forward(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Attend from cells (B, H, W, D) to prototypes (B, n, D)."""
        channels = x.shape[-1]
        queries = functional.linear(x.flatten(1, 2), self.qkv.weight[:channels], self.qkv.bias[:channels])
        keys, values = self.qkv_cluster(prototypes).chunk(2, dim=-1)
        split = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (queries, keys, values))
        attended = functional.scaled_dot_product_attention(*split)
        return cast(Tensor, self.proj_cluster(attended.transpose(1, 2).reshape(x.shape)))


def prototype_frames(num_frames: int) -> list[int]:
    """Return which frames of a video its prototypes are made of: ten, spread evenly; frames repeat below ten."""
    step = num_frames // NUM_PROTOTYPE_FRAMES
    return [int((i + 0.5) * step) for i in range(NUM_PROTOTYPE_FRAMES)]


def make_prototypes(frames: Sequence[CffmFrame], seed: int = 0) -> Tensor:
    """Sum up a video by k-means centres of the cells of some frames.

    Args:
        frames: The encoded frames that `prototype_frames` names, all of one size.
        seed: Draws the cells that k-means starts from; ours, see above.

    Returns:
        (n, 256); n is 100, or the number of cells where there are fewer.
    """
    cells = torch.cat([frame.fused.flatten(2)[0].T for frame in frames])
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
    return cluster(cells, cells[order[:NUM_PROTOTYPES].to(cells.device)])


def cluster(points: Tensor, centres: Tensor) -> Tensor:
    """Move centres (n, D) to the means of the points (m, D) nearest to each, ten times at most.

    A centre that is nearest to none becomes zero, as in the library that the published code uses.
    """
    for _ in range(KMEANS_ROUNDS):
        distances = centres.square().sum(dim=1) - 2 * points @ centres.T  # but for the points' own norms
        nearest = distances.argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))
        before, centres = centres, sums / counts.clamp(min=1)[:, None]
        if (centres - before).square().sum() <= KMEANS_TOLERANCE:
            break
    return centres
