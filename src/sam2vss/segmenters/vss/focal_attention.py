"""The attention of CFFM: windows of the target frame look at pooled surroundings in four frames.

Every 7 x 7 window of the target attends to its own cells, to a ring around it, and to pooled cells of the target and of
each reference frame: coarse and wide in the farthest frame, fine and narrow in the nearest.

Source: arXiv 2204.03330v1, Sec. 3.2; window, ring and the sizes of `POOLINGS` are as in the published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .segformer import resize

WINDOW = 7  # side of a window, in cells of the halved fused map (stride 8)
RING = 3  # width of the ring of target cells around a window
HEADS = 8
OUTSIDE = -100.0  # added to the attention to pooled cells beyond the border of the map
BIAS_STD = 0.02  # of biases that are drawn for training


@dataclass(frozen=True)
class Pooling:
    """How a frame is pooled, and which of its pooled cells a window sees.

    Attributes:
        per_window: Pooled cells along the side of a window.
        size: Side of the square that is pooled to one cell; the map is resized where these do not fill a window.
        reach: A window sees this many pooled cells to each side of its first (top left) one.
    """

    per_window: int
    size: int
    reach: int

    @property
    def side(self) -> int:
        """Side of the square of pooled cells that a window sees."""
        return 2 * self.reach + 1


POOLINGS = (
    Pooling(per_window=1, size=7, reach=2),  # of the target itself
    Pooling(per_window=1, size=7, reach=3),  # frame -9
    Pooling(per_window=2, size=3, reach=2),  # frame -6
    Pooling(per_window=3, size=2, reach=1),  # frame -3
)


class FocalAttention(nn.Module):
    """Attention of each window of the target to its 289 keys.

    These are its own 49 cells, 132 of the ring (where its four shifted copies of the window overlap, cells count
    twice), and 25 + 49 + 25 + 9 pooled cells. The ring wraps around the borders of the map. Each pair of a query's and
    a key's place has a learned bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        area = WINDOW**2
        target, *references = [new_bias(HEADS, num_places(pooling.side)) for pooling in POOLINGS]
        self.relative_position_bias_table = nn.Parameter(torch.zeros(num_places(WINDOW), HEADS))
        self.relative_position_bias_table_to_neighbors = new_bias(1, HEADS, area, len(ring_offsets()))
        self.relative_position_bias_table_to_windows = nn.ParameterList([target])
        self.relative_position_bias_table_to_windows_clips = nn.ParameterList(references)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, target: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """Attend from the target to itself and to all frames.

        Args:
            target: (B, H, W, D); H and W are multiples of 7.
            pooled: The four frames, each pooled by its entry of `POOLINGS`.
        """
        batch, height, width, channels = target.shape
        windows = (height // WINDOW, width // WINDOW)
        own = cells_of_windows(square(WINDOW), WINDOW, windows, (height, width)).to(target.device)
        ring = cells_of_windows(ring_offsets(), WINDOW, windows, (height, width)).to(target.device)
        fine = torch.cat([own, ring], dim=1)
        q, k, v = self.qkv(target).flatten(1, 2).chunk(3, dim=-1)
        keys, values, is_outside = [k[:, fine]], [v[:, fine]], [torch.zeros_like(fine, dtype=torch.bool)]
        for source, pooling in zip(pooled, POOLINGS, strict=True):
            cells, beyond = pooled_cells(pooling, windows)
            cells, beyond = cells.to(target.device), beyond.to(target.device)
            # cells beyond the border have zeros for keys and values, not the bias of the projection
            _, k, v = surround(self.qkv(source), pooling.reach).flatten(1, 2).chunk(3, dim=-1)
            keys.append(k[:, cells])
            values.append(v[:, cells])
            is_outside.append(beyond)
        bias = self._bias() + OUTSIDE * torch.cat(is_outside, dim=1)[:, None, None]
        attended = functional.scaled_dot_product_attention(
            split_heads(q[:, own]),
            split_heads(torch.cat(keys, dim=2)),
            split_heads(torch.cat(values, dim=2)),
            bias.to(q.dtype).expand(batch, *bias.shape).flatten(0, 1),
        )
        merged = attended.transpose(1, 2).reshape(batch, *windows, WINDOW, WINDOW, channels)
        return cast(Tensor, self.proj(merged.transpose(2, 3).reshape(target.shape)))

    def _bias(self) -> Tensor:
        """Return the biases by place, (heads, 49, 289): own cells, ring, pooled cells."""
        tables = [*self.relative_position_bias_table_to_windows, *self.relative_position_bias_table_to_windows_clips]
        coarse = [table[:, places(pooling.side)] for table, pooling in zip(tables, POOLINGS, strict=True)]
        own = self.relative_position_bias_table[places(WINDOW)].permute(2, 0, 1)
        return torch.cat([own, self.relative_position_bias_table_to_neighbors[0], *coarse], dim=-1)


def pad_to_windows(x: Tensor) -> Tensor:
    """Add zeros below and right of a map (B, H, W, D) until both sides are multiples of the window's."""
    return functional.pad(x, (0, 0, 0, -x.shape[2] % WINDOW, 0, -x.shape[1] % WINDOW))


def pool(x: Tensor, pooling: Pooling, layer: nn.Linear) -> Tensor:
    """Pool a padded map (B, H, W, D) to `per_window` cells along each side of a window, by the learned weights."""
    rows, columns = (pooling.per_window * (side // WINDOW) for side in x.shape[1:3])
    size = (rows * pooling.size, columns * pooling.size)
    resized = resize(x.movedim(-1, 1), size)
    squares = resized.unflatten(3, (columns, pooling.size)).unflatten(2, (rows, pooling.size))
    return torch.einsum("bdrico,io->brcd", squares, layer.weight.view(pooling.size, pooling.size)) + layer.bias


# --- which cells a window sees, and where they lie from it; offsets are (n, 2), down and right of its first cell ------


def square(side: int) -> Tensor:
    """Return the offsets of a square of cells, row by row."""
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))


def ring_offsets() -> Tensor:
    """Return the offsets of the ring: of the window moved to each of four corners, the cells outside of it."""
    moves = [torch.tensor([down, right]) for down in (RING, -RING) for right in (RING, -RING)]
    moved = torch.cat([square(WINDOW) + move for move in moves])
    return moved[((moved < 0) | (moved >= WINDOW)).any(dim=1)]


def cells_of_windows(offsets: Tensor, step: int, windows: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the cells of a grid at these offsets from each window, as indices into the flat grid.

    Args:
        offsets: (n, 2).
        step: Cells from one window to the next.
        windows: Rows and columns of windows.
        grid: Height and width of the grid; beyond its border it begins again at the other side.

    Returns:
        (rows * columns, n) int64.
    """
    rows = (torch.arange(windows[0])[:, None] * step + offsets[:, 0]) % grid[0]
    columns = (torch.arange(windows[1])[:, None] * step + offsets[:, 1]) % grid[1]
    return (rows[:, None] * grid[1] + columns[None]).flatten(0, 1)


def pooled_cells(pooling: Pooling, windows: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the pooled cells that each window sees, in the map that `surround` has widened, and which lie beyond it.

    Returns:
        Indices into the flat widened map, (rows * columns, side * side), and a mask of the same shape.
    """
    rows, columns = (pooling.per_window * count for count in windows)
    beyond = surround(torch.zeros(1, rows, columns, 1), pooling.reach, value=1).flatten() > 0
    grid = (rows + 2 * pooling.reach, columns + 2 * pooling.reach)
    cells = cells_of_windows(square(pooling.side), pooling.per_window, windows, grid)
    return cells, beyond[cells]


def surround(x: Tensor, reach: int, value: float = 0) -> Tensor:
    """Widen a map (B, H, W, D) by this many cells on all sides."""
    return functional.pad(x, (0, 0, reach, reach, reach, reach), value=value)


def places(side: int) -> Tensor:
    """Return the entry of a bias table for each cell of a window and each of the keys: int64 (49, side * side)."""
    apart = square(WINDOW)[:, None] - square(side) + side - 1
    return apart[..., 0] * (WINDOW + side - 1) + apart[..., 1]


def num_places(side: int) -> int:
    """Return how many entries such a table has."""
    return (WINDOW + side - 1) ** 2


def new_bias(*shape: int) -> nn.Parameter:
    """Draw biases to start training from."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=BIAS_STD))


def split_heads(x: Tensor) -> Tensor:
    """Give every head its channels and every window its own row: (B, windows, n, D) to (B * windows, heads, n, d)."""
    return cast(Tensor, x.flatten(0, 1).unflatten(2, (HEADS, -1)).transpose(1, 2))
