"""TV3S: Mamba cells that read every window of the picture as one sequence through time.

Two ways to label a frame: `decode` reads a clip of four frames from its start (what the published test script does),
`step` reads one more frame of a stream and remembers all before it.

Source: "Exploiting Temporal State Space Sharing for Video Semantic Segmentation" (arXiv 2503.20824); what the paper
leaves open is as in the published code (windows of 20, shifted by 10 in every other layer, 8 layers).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ShapeError
from .mamba import MambaCell, MambaState, precise
from .mit import DROP_PATH, DropPath, Stages, to_map, to_tokens
from .segformer import HEAD_WIDTH, SegformerHead, WeightedLogits, resize

NUM_LAYERS = 8
WINDOW = 20  # rows and columns of a window
SHIFT = 10  # of the windows in every other layer
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Tv3sFrame:
    """What the head needs of one frame.

    Attributes:
        fused: The fused map on the grid of the windows, (1, 256, h, w), h and w multiples of 20.
        size: (height, width) of the logits.
    """

    fused: Tensor
    size: tuple[int, int]

    def as_reference(self) -> "Tv3sFrame":
        """Return what later frames need of it: all."""
        return self


@dataclass(frozen=True)
class Tv3sState:
    """What a stream remembers: for every layer, a state for each group of windows of one size.

    Attributes:
        grid: (h, w) of the maps.
        layers: One entry for every layer.
    """

    grid: tuple[int, int]
    layers: tuple[tuple[MambaState, ...], ...]


class Tv3sHead(SegformerHead):
    """SegFormer's head, Mamba over the windows of the fused maps, and a classifier for the last frame.

    Args:
        channels: Of the four stages.
        num_classes: C.
    """

    num_frames = 4

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__(channels, num_classes)
        self.vs = WindowedMamba()
        self.linear_pred2 = nn.Conv2d(HEAD_WIDTH, num_classes, 1)

    def encode(self, stages: Stages, fused: Tensor) -> Tv3sFrame:
        """Prepare one frame.

        Args:
            stages: Of one frame; only `fused` is needed of them.
            fused: Their fused map, (1, 256, h, w).
        """
        del stages
        size = (fused.shape[2], fused.shape[3])
        return Tv3sFrame(resize(fused, window_grid(size)), size)

    def decode(self, clip: Sequence[Tv3sFrame]) -> Tensor:
        """Label the last frame of a clip, frames before it first: logits (1, C, h, w).

        The frames are read one by one, which gives what reading them at once does, in a quarter of the memory.
        """
        state = None
        for frame in clip[:-1]:
            _, state = self._read(frame, state)
        return self.step(clip[-1], state)[0]

    def step(self, frame: Tv3sFrame, state: Tv3sState | None) -> tuple[Tensor, Tv3sState]:
        """Label the next frame of a stream.

        Args:
            frame: As encoded.
            state: As returned for the frame before; None for the first frame of a video.

        Returns:
            Logits (1, C, h, w), and the state to label the next frame with.

        Raises:
            ShapeError: If the frame has another size than those before.
        """
        refined, state = self._read(frame, state)
        return self._label(refined, frame.size), state

    def training_logits(self, stages: Stages, num_frames: int) -> list[WeightedLogits]:
        """Return what the loss is made of: every frame by itself at half weight, the last of every clip refined.

        Args:
            stages: Of B clips of `num_frames` frames, (B * T, C_i, h_i, w_i), frame by frame.
            num_frames: T.
        """
        fused = self.fuse(stages)
        single = self.classify(fused)
        size = (fused.shape[2], fused.shape[3])
        maps = resize(fused, window_grid(size)).unflatten(0, (-1, num_frames))
        refined, _ = self.vs(maps, None)
        frames = range(len(single))
        return [
            WeightedLogits(single, tuple(frames), 0.5),
            WeightedLogits(self._label(refined, size), tuple(frames[num_frames - 1 :: num_frames]), 1.0),
        ]

    def _read(self, frame: Tv3sFrame, state: Tv3sState | None) -> tuple[Tensor, Tv3sState]:
        grid = (frame.fused.shape[2], frame.fused.shape[3])
        if state is not None and state.grid != grid:
            raise ShapeError(
                f"the stream so far has maps of {state.grid}, this frame one of {grid}: "
                "frames of one video have one size; start again without a state for another video"
            )
        refined, layers = self.vs(frame.fused[None], None if state is None else state.layers)
        return refined, Tv3sState(grid, layers)

    def _label(self, refined: Tensor, size: tuple[int, int]) -> Tensor:
        """Classify maps (B, 256, h, w), resized to `size`."""
        return resize(self.linear_pred2(self.dropout(refined)), size)


class WindowedMamba(nn.Module):
    """Layers of Mamba cells; every window of the map is a sequence, its rows first, then the next frame's."""

    def __init__(self) -> None:
        super().__init__()
        drop_paths = torch.linspace(0, DROP_PATH, NUM_LAYERS).tolist()
        self.layers = nn.ModuleList(MambaLayer(share) for share in drop_paths)
        self.norm_f = nn.RMSNorm(HEAD_WIDTH, NORM_EPS)

    def forward(
        self, maps: Tensor, states: Sequence[Sequence[MambaState]] | None
    ) -> tuple[Tensor, tuple[tuple[MambaState, ...], ...]]:
        """Read the next frames of B clips.

        Args:
            maps: (B, T, 256, h, w), h and w multiples of 20.
            states: As returned for the frames before, None at the start.

        Returns:
            The last of the T maps, refined, (B, 256, h, w), and the states after it.
        """
        grid = (maps.shape[3], maps.shape[4])
        windows = [[group.to(maps.device) for group in group_windows(*grid, shift)] for shift in (0, SHIFT)]
        tokens = to_tokens(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])  # (B, T, h * w, 256)
        tokens = tokens.to(precise(tokens.dtype))
        after = []
        for number, layer in enumerate(self.layers):
            groups = windows[number % 2]
            before = [None] * len(groups) if states is None else states[number]
            read = torch.empty_like(tokens)
            left = []
            for group, state in zip(groups, before, strict=True):
                sequences, new_state = layer(cut(tokens, group), state)
                read[:, :, group] = uncut(sequences, tokens.shape[:2])
                left.append(new_state)
            tokens = read
            after.append(tuple(left))
        last = self.norm_f(tokens[:, -1].to(self.norm_f.weight.dtype))
        return to_map(last, grid), tuple(after)


class MambaLayer(nn.Module):
    """A Mamba cell after a norm and around a residual.

    While training, the residual of a random share of the windows is left out.
    """

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(HEAD_WIDTH, NORM_EPS)
        self.mixer = MambaCell(HEAD_WIDTH)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        """Read the next tokens (B, L, 256) of B sequences."""
        mixed, state = self.mixer(self.norm(tokens.to(self.norm.weight.dtype)), state)
        return tokens + self.drop_path(mixed), state


def window_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Half of a (height, width), stretched to whole windows."""
    rows, columns = (max(1, math.ceil(side // 2 / WINDOW)) * WINDOW for side in size)
    return rows, columns


def group_windows(height: int, width: int, shift: int) -> list[Tensor]:
    """Cut a map into windows, shifted ones whole or cut off by the border, and group those of as many cells.

    Args:
        height: Rows of the map, a multiple of 20.
        width: Columns, likewise.
        shift: Rows and columns that the first window lacks, 0 for none.

    Returns:
        Groups, largest windows first, int64 (windows, cells): the cells of every window, row by row, as y * width + x.
    """
    cells = torch.arange(height * width).view(height, width)
    groups: dict[int, list[Tensor]] = {}
    for (top, bottom), (left, right) in itertools.product(spans(height, shift), spans(width, shift)):
        window = cells[top:bottom, left:right].flatten()
        groups.setdefault(len(window), []).append(window)
    return [torch.stack(groups[size]) for size in sorted(groups, reverse=True)]


def spans(length: int, shift: int) -> list[tuple[int, int]]:
    """Cut a side: 60 is 0-20-40-60, and shifted by 10 it is 0-10-30-50-60."""
    return list(itertools.pairwise(sorted({0, *range(shift, length, WINDOW), length})))


def cut(tokens: Tensor, group: Tensor) -> Tensor:
    """Gather the sequences of some windows: tokens (B, T, h * w, D) and cells (n, k) to (B * n, T * k, D)."""
    return tokens[:, :, group].transpose(1, 2).flatten(2, 3).flatten(0, 1)


def uncut(sequences: Tensor, size: Sequence[int]) -> Tensor:
    """Undo `cut` for B clips of T frames, `size`: (B * n, T * k, D) to (B, T, n, k, D)."""
    clips, frames = size
    return cast(Tensor, sequences.unflatten(0, (clips, -1)).unflatten(2, (frames, -1)).transpose(1, 2))
