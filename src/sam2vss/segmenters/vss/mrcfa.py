"""MRCFA: relations between frames, mined at three scales, say which features of earlier frames a cell takes over.

For every earlier frame: its cells on a coarse grid (1/32) are compared with those of the target frame on three grids
(1/32, 1/16, 1/8); cells that resemble no cell of the target are left out; small convolutions clean the maps of
affinity and carry them from coarse to fine; a softmax over the cells that are left gives what the target takes over.

Source: "Mining Relations among Cross-Frame Affinities for Video Semantic Segmentation" (arXiv 2207.10436), Sec. 3;
what the paper leaves open is as in the published code. Names there are swapped: its "query" is an earlier frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ShapeError
from .mit import Stages, to_map, to_tokens
from .segformer import DROPOUT, HEAD_WIDTH, SegformerHead, WeightedLogits, resize

BEST_AFFINITIES = 5  # a cell of an earlier frame counts by its so many best affinities
KEEP_RATIO_B0 = 0.8  # share of the cells of an earlier frame that are kept, with MiT-B0
KEEP_RATIO = 0.5  # with all other sizes


@dataclass(frozen=True)
class MrcfaTarget:
    """What a frame needs to be labelled itself.

    Attributes:
        queries: Its maps on the grids 1/32, 1/16 and 1/8, (1, C_i, h_i, w_i).
        fused: Its fused map on the grid 1/8, (1, 256, h, w).
        size: (height, width) of the logits.
    """

    queries: tuple[Tensor, Tensor, Tensor]
    fused: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class MrcfaFrame:
    """What the head needs of one frame.

    Attributes:
        keys: Of its n cells on the grid 1/32, to be compared on the grids 1/32, 1/16 and 1/8, (n, C_i).
        values: What a target takes over from the cells, (n, 256).
        target: To label the frame itself; None if it only serves later frames.
    """

    keys: tuple[Tensor, Tensor, Tensor]
    values: Tensor
    target: MrcfaTarget | None

    def as_reference(self) -> "MrcfaFrame":
        """Return what later frames need of it, an eighth of the memory."""
        return replace(self, target=None)


class MrcfaHead(SegformerHead):
    """SegFormer's head, features taken over from earlier frames, and a classifier for their mean plus the target's own.

    Args:
        channels: Of the four stages.
        num_classes: C.
        has_deep_stacks: Whether affinities pass two convolutions per step (the B1 checkpoint) or one (all others).
        keep_ratio: Share of the cells of an earlier frame that are kept, `KEEP_RATIO_B0` or `KEEP_RATIO`.
    """

    num_frames = 4

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        has_deep_stacks: bool = False,
        keep_ratio: float = KEEP_RATIO,
    ) -> None:
        super().__init__(channels, num_classes)
        self.sr2 = nn.Conv2d(channels[1], channels[1], 4, stride=4)
        self.sr3 = nn.Conv2d(channels[2], channels[2], 2, stride=2)
        self.sr1_feat = nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 4, stride=4)
        self.hypercorre_module = CrossFrameAffinities(channels, has_deep_stacks, keep_ratio)
        for number in range(1, self.num_frames + 1):  # the first three only serve the loss
            self.add_module(f"deco{number}", SmallDecoder(num_classes))

    def encode(self, stages: Stages, fused: Tensor) -> MrcfaFrame:
        """Prepare one frame.

        Args:
            stages: Of one frame, (1, C_i, h_i, w_i), every grid exactly half as fine as the one before.
            fused: Their fused map, (1, 256, h, w).

        Raises:
            ShapeError: If the frame's size is not a multiple of 32.
        """
        _, c2, c3, c4 = stages
        size, coarse = (fused.shape[2], fused.shape[3]), (c4.shape[2], c4.shape[3])
        if size != (8 * coarse[0], 8 * coarse[1]):
            raise ShapeError(
                f"maps of {size[0]} x {size[1]} and {coarse[0]} x {coarse[1]} cells do not fit together: "
                "MRCFA needs frames whose height and width are multiples of 32"
            )
        fused = resize(fused, (size[0] // 2, size[1] // 2))
        affinities = self.hypercorre_module
        return MrcfaFrame(
            affinities.keys_of((c4, self.sr3(c3), self.sr2(c2))),
            to_tokens(self.sr1_feat(fused))[0],
            MrcfaTarget(affinities.queries_of((c4, c3, c2)), fused, size),
        )

    def decode(self, clip: Sequence[MrcfaFrame]) -> Tensor:
        """Label the last frame of a clip with the help of the others: logits (1, C, h, w)."""
        target = clip[-1].target
        assert target is not None, "the last frame of the clip was kept as a reference only"
        taken = [self._take_over(target, frame) for frame in clip[:-1]]
        return self._label(taken, target)

    def training_logits(self, stages: Stages, num_frames: int) -> list[WeightedLogits]:
        """Return what the loss is made of: every frame by itself at half weight, and four labellings of every target.

        Three of them label it from what it took over from one earlier frame, the last as in `decode`.

        Args:
            stages: Of B clips of `num_frames` frames, (B * T, C_i, h_i, w_i), frame by frame.
            num_frames: T, 4.
        """
        fused = self.fuse(stages)
        single = self.classify(fused)
        refined, targets = [], []
        for last in range(num_frames - 1, len(fused), num_frames):
            clip = [
                self.encode(cast(Stages, tuple(stage[i : i + 1] for stage in stages)), fused[i : i + 1])
                for i in range(last - num_frames + 1, last + 1)
            ]
            target = cast(MrcfaTarget, clip[-1].target)
            taken = [self._take_over(target, frame) for frame in clip[:-1]]
            refined += [
                resize(self.get_submodule(f"deco{number}")(x), target.size) for number, x in enumerate(taken, start=1)
            ]
            refined.append(self._label(taken, target))
            targets += [last] * num_frames
        return [
            WeightedLogits(single, tuple(range(len(single))), 0.5),
            WeightedLogits(torch.cat(refined), tuple(targets), 1.0),
        ]

    def _take_over(self, target: MrcfaTarget, frame: MrcfaFrame) -> Tensor:
        """Return the features that a target takes over from an earlier frame, (1, 256, h, w) on its grid 1/8."""
        kept, weights = self.hypercorre_module(target.queries, frame.keys)
        taken: Tensor = frame.values[kept].t() @ weights.flatten(1)
        return taken.view(target.fused.shape)

    def _label(self, taken: Sequence[Tensor], target: MrcfaTarget) -> Tensor:
        mean = torch.stack(list(taken)).mean(dim=0)
        return resize(self.get_submodule(f"deco{self.num_frames}")(mean + target.fused), target.size)


class CrossFrameAffinities(nn.Module):
    """Compares the cells of two frames at three scales, keeps the telling ones, and merges the scales."""

    def __init__(self, channels: Sequence[int], has_deep_stacks: bool, keep_ratio: float) -> None:
        super().__init__()
        for number, width in enumerate(channels[1:], start=1):
            self.add_module(f"q{number}", nn.Linear(width, width))
            self.add_module(f"k{number}", nn.Linear(width, width))
        self.hpn = AffinityStacks(has_deep_stacks)
        self.keep_ratio = keep_ratio

    def keys_of(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Project the maps c4, c3, c2 of an earlier frame, all on the grid 1/32: keys (n, C_i)."""
        keys = [self.get_submodule(f"k{3 - i}")(to_tokens(x)[0]) for i, x in enumerate(maps)]
        return keys[0], keys[1], keys[2]

    def queries_of(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Project the maps c4, c3, c2 of a target, each on its own grid: queries (1, C_i, h_i, w_i)."""
        queries = [
            to_map(self.get_submodule(f"q{3 - i}")(to_tokens(x)), (x.shape[2], x.shape[3])) for i, x in enumerate(maps)
        ]
        return queries[0], queries[1], queries[2]

    def forward(
        self, queries: tuple[Tensor, Tensor, Tensor], keys: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Say where in a target the cells of an earlier frame belong.

        Args:
            queries: Of the target, (1, C_i, h_i, w_i) on the grids 1/32, 1/16 and 1/8.
            keys: Of the earlier frame, (n, C_i).

        Returns:
            The indices of the kept cells, int64 (k,), rising, and how much each gives to every cell of the target,
            (k, h, w) on the grid 1/8, which sums to 1 over the kept cells.
        """
        kept = self.select(compare(queries[0], keys[0]))
        coarse, middle, fine = (compare(query, key[kept])[:, None] for query, key in zip(queries, keys, strict=True))
        return kept, self.hpn(coarse, middle, fine)[:, 0].softmax(dim=0)

    def select(self, affinities: Tensor) -> Tensor:
        """Choose the cells of an earlier frame that resemble some cells of the target best.

        Args:
            affinities: Of every cell to the target's cells, (n, h, w).

        Returns:
            Indices of the kept cells, int64 (k,), rising; k is the kept share of n, rounded down, at least 1.
        """
        flat = affinities.flatten(1)
        scores = flat.topk(min(BEST_AFFINITIES, flat.shape[1]), dim=1).values.sum(dim=1)
        return scores.topk(max(1, int(len(scores) * self.keep_ratio))).indices.sort().values


def compare(query: Tensor, keys: Tensor) -> Tensor:
    """Multiply keys (n, C) with every cell of a query map (1, C, h, w): affinities (n, h, w), not scaled."""
    return (keys @ query[0].flatten(1)).view(len(keys), *query.shape[2:])


class AffinityStacks(nn.Module):
    """Small convolutions for affinity maps; the maps of every key pass by themselves, as images of a batch.

    Channels and kernel sizes are those of the published checkpoints.
    """

    def __init__(self, is_deep: bool) -> None:
        super().__init__()
        if is_deep:
            self.encoder_layer4 = stack((1, 1, 2), (3, 3))
            self.encoder_layer3 = stack((1, 1, 2), (3, 3))
            self.encoder_layer2 = stack((1, 1, 2), (5, 3))
            self.encoder_layer4to3 = stack((2, 2, 2), (3, 3))
            self.encoder_layer3to2 = stack((2, 2, 1), (3, 3))
        else:
            self.encoder_layer4 = stack((1, 1), (3,))
            self.encoder_layer3 = stack((1, 1), (5,))
            self.encoder_layer2 = stack((1, 1), (5,))
            self.encoder_layer4to3 = stack((1, 1), (3,))
            self.encoder_layer3to2 = stack((1, 1), (3,))

    def forward(self, coarse: Tensor, middle: Tensor, fine: Tensor) -> Tensor:
        """Merge affinities (k, 1, h_i, w_i) on the grids 1/32, 1/16 and 1/8 into one map (k, 1, h, w) on the finest."""
        coarse, middle, fine = self.encoder_layer4(coarse), self.encoder_layer3(middle), self.encoder_layer2(fine)
        merged = self.encoder_layer4to3(resize(coarse, middle.shape[2:], align_corners=True) + middle)
        return cast(Tensor, self.encoder_layer3to2(resize(merged, fine.shape[2:], align_corners=True) + fine))


class PlaneConvolution(nn.Module):
    """A convolution under the name it has in the checkpoints."""

    def __init__(self, channels_in: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv2 = nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        return cast(Tensor, self.conv2(x))


class MapNorm(nn.GroupNorm):
    """A norm over all channels and cells of a map; unlike torch's also over one cell (a frame of 32 x 32)."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        return torch.group_norm(x, 1, self.weight, self.bias, self.eps)


class SmallDecoder(nn.Module):
    """Dropout and a classifier of single cells."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.smalldecoder = nn.Sequential(nn.Dropout2d(DROPOUT), nn.Conv2d(HEAD_WIDTH, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Classify (B, 256, h, w)."""
        return cast(Tensor, self.smalldecoder(x))


def stack(channels: tuple[int, ...], kernels: tuple[int, ...]) -> nn.Sequential:
    """Chain convolutions, each with a norm over its whole output and a ReLU."""
    layers: list[nn.Module] = []
    for i, kernel in enumerate(kernels):
        layers += [PlaneConvolution(channels[i], channels[i + 1], kernel), MapNorm(channels[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers)
