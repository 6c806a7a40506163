"""The Mix Transformer (MiT), the image encoder of SegFormer and of the video models that grew from it.

Source: "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers" (arXiv 2105.15203),
Sec. 3.1; what the paper leaves open (biases, the eps of each LayerNorm) is as in the published checkpoints.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Stages = tuple[Tensor, Tensor, Tensor, Tensor]  # maps c1..c4, (B, C_i, h_i, w_i) at strides 4, 8, 16, 32

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)  # keys and values are taken from a grid coarser by this factor
MLP_RATIO = 4
BLOCK_EPS = 1e-6  # of norms before attention and MLP, and at the end of a stage; all other norms have 1e-5
DROP_PATH = 0.1  # in training: the share of skipped residuals in the last block, less in earlier ones


@dataclass(frozen=True)
class MitSize:
    """What sets the sizes apart: channels and number of blocks, stage by stage."""

    name: str
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


MIT_SIZES = {
    size.name: size
    for size in (
        MitSize("b0", (32, 64, 160, 256), (2, 2, 2, 2)),
        MitSize("b1", (64, 128, 320, 512), (2, 2, 2, 2)),
        MitSize("b2", (64, 128, 320, 512), (3, 4, 6, 3)),
        MitSize("b3", (64, 128, 320, 512), (3, 4, 18, 3)),
        MitSize("b4", (64, 128, 320, 512), (3, 8, 27, 3)),
        MitSize("b5", (64, 128, 320, 512), (3, 6, 40, 3)),
    )
}


class MixTransformer(nn.Module):
    """Four stages of overlapping patch embedding and attention blocks.

    Args:
        size: Channels and depths.
    """

    def __init__(self, size: MitSize) -> None:
        super().__init__()
        self.size = size
        last = sum(size.depths) - 1
        drop_paths = [DROP_PATH * block / last for block in range(last + 1)]
        previous = 3
        for stage, (channels, depth) in enumerate(zip(size.channels, size.depths, strict=True), start=1):
            kernel, stride = (7, 4) if stage == 1 else (3, 2)
            self.add_module(f"patch_embed{stage}", OverlapPatchEmbedding(previous, channels, kernel, stride))
            blocks = [Block(channels, HEADS[stage - 1], REDUCTIONS[stage - 1], drop_paths.pop(0)) for _ in range(depth)]
            self.add_module(f"block{stage}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage}", nn.LayerNorm(channels, eps=BLOCK_EPS))
            previous = channels

    def forward(self, images: Tensor) -> Stages:
        """Encode normalised images (B, 3, H, W); H and W are best multiples of 32.

        Returns:
            c1..c4, (B, C_i, H/4, W/4) to (B, C_i, H/32, W/32), sizes rounded up.
        """
        maps = []
        x = images
        for stage in range(1, 5):
            tokens, grid = self.get_submodule(f"patch_embed{stage}")(x)
            for block in cast(nn.ModuleList, self.get_submodule(f"block{stage}")):
                tokens = block(tokens, grid)
            tokens = self.get_submodule(f"norm{stage}")(tokens)
            x = to_map(tokens, grid)
            maps.append(x)
        return maps[0], maps[1], maps[2], maps[3]


class OverlapPatchEmbedding(nn.Module):
    """A strided convolution whose patches overlap, then a norm: (B, C, H, W) to tokens (B, h * w, D)."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens and the (h, w) of their grid."""
        x = self.proj(x)
        grid = (x.shape[2], x.shape[3])
        return self.norm(to_tokens(x)), grid


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a residual."""

    def __init__(self, channels: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.attn = EfficientAttention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=BLOCK_EPS)
        self.mlp = MixMlp(channels, MLP_RATIO * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Transform tokens (B, h * w, D) of a grid (h, w)."""
        x = x + self.drop_path(self.attn(self.norm1(x), grid))
        return cast(Tensor, x + self.drop_path(self.mlp(self.norm2(x), grid)))


class EfficientAttention(nn.Module):
    """Attention of all tokens to a coarser grid, made by a convolution with stride `reduction`."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels)
        self.reduction = reduction

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend: tokens (B, h * w, D) to the same shape."""
        source = x if self.reduction == 1 else self.norm(to_tokens(self.sr(to_map(x, grid))))
        q = self._split(self.q(x))
        k, v = (self._split(part) for part in self.kv(source).chunk(2, dim=-1))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(attended.transpose(1, 2).flatten(2)))

    def _split(self, x: Tensor) -> Tensor:
        """Give every head its channels: (B, n, D) to (B, heads, n, D / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class MixMlp(nn.Module):
    """MLP with a 3 x 3 depth-wise convolution, which tells the tokens where they are."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConvolution(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Transform tokens (B, h * w, D) of a grid (h, w)."""
        return cast(Tensor, self.fc2(functional.gelu(self.dwconv(self.fc1(x), grid))))


class DepthwiseConvolution(nn.Module):
    """A 3 x 3 convolution of every channel by itself, on tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Convolve tokens (B, h * w, D) of a grid (h, w)."""
        return to_tokens(self.dwconv(to_map(x, grid)))


class DropPath(nn.Module):
    """Leaves out a residual for a random share of the images while training (stochastic depth); else does nothing."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, residual: Tensor) -> Tensor:
        """Return the residual (B, ...), zero for the images that skip it and enlarged for the others."""
        if not self.training or self.share == 0:
            return residual
        keep = 1 - self.share
        kept = torch.rand(residual.shape[:1], device=residual.device) < keep
        return residual * (kept.to(residual.dtype) / keep).view(-1, *[1] * (residual.ndim - 1))


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay tokens (B, h * w, D) out as a map (B, D, h, w)."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def to_tokens(x: Tensor) -> Tensor:
    """Take a map (B, D, h, w) apart into tokens (B, h * w, D)."""
    return x.flatten(2).transpose(1, 2)
