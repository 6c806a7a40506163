"""EdgeTAM (arXiv 2501.07256): SAM 2 with a small encoder, whose memories are condensed before they are kept.

A resampler turns the h*w cells of a spatial memory into latents, 512 whatever the frame's size: first 256 that belong
to no place, then one for each window of a grid of 16 x 16. All else is `Sam2Network`; objects are followed by the
rules of Meta's SAM 2 predictor.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import WeightsError
from .attention import Rope
from .model import Sam2Network
from .positions import PositionTables, rope_table, sine_table


@dataclass(frozen=True)
class EdgeTamTables(PositionTables):
    """Tables in which `memory` and `memory_rope` are those of the latents.

    Attributes:
        uncondensed: For the cells of a memory that goes into the resampler, (1, h*w, 64), in the model's dtype.
    """

    uncondensed: Tensor


class EdgeTamNetwork(Sam2Network):
    """An EdgeTAM video model with the operations of its parts; a spatial memory is (P, num_latents, 64).

    Args:
        model: transformers' `EdgeTamVideoModel`.

    Raises:
        WeightsError: If the latents with a place are not those of the square grid that memory attention expects.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        resampler, key_size = model.spatial_perceiver, tuple(model.config.memory_attention_rope_k_sizes)
        self.num_unplaced, num_placed = int(resampler.num_latents_1d), int(resampler.num_latents_2d)
        self.windows = math.isqrt(num_placed)  # per side
        if not self.num_unplaced or not self.windows or key_size != (self.windows, num_placed / self.windows):
            raise WeightsError(
                f"config.json describes an EdgeTAM with {self.num_unplaced} latents without a place and {num_placed} "
                f"on a grid of {key_size}, expected some without, and one for each cell of a square. Take a released "
                "checkpoint."
            )
        self.num_latents = self.num_unplaced + num_placed

    @property
    def feed_forward_size(self) -> int:
        """Hidden channels of the feed-forward networks in memory attention."""
        return int(self.model.config.memory_attention_mlp_hidden_size)

    def memory_length(self, grid: tuple[int, int]) -> int:
        """Tokens of a spatial memory, whatever the grid."""
        return self.num_latents

    def write_memory(self, low: Tensor, mask_logits: Tensor, object_score: Tensor, binarise: bool) -> Tensor:
        """As in SAM 2, and condense what that gives -> (P, num_latents, 64)."""
        cells = super().write_memory(low, mask_logits, object_score, binarise)
        grid = (low.shape[-2], low.shape[-1])
        tables = self._positions(grid)
        assert isinstance(tables, EdgeTamTables)
        return condense(self.model.spatial_perceiver, cells, tables.uncondensed, grid)

    def _build_positions(self, grid: tuple[int, int]) -> EdgeTamTables:
        with torch.inference_mode(False), torch.no_grad():
            base = PositionTables.build(self.model, grid, self.dtype)
            windows = (self.windows, self.windows)
            latents = sine_table(self.model.spatial_perceiver.positional_encoding, windows, self.device)
            return EdgeTamTables(
                image=base.image,
                cells=base.cells,
                memory=F.pad(latents, (0, 0, self.num_unplaced, 0)),
                rope=base.rope,
                memory_rope=_after_unplaced(rope_table(self.model, windows), self.num_unplaced),
                uncondensed=base.memory.to(self.dtype)[None],
            )


def condense(resampler: Any, cells: Tensor, positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Condense the spatial memories of P objects; transformers' own code condenses one at a time.

    Args:
        resampler: The `spatial_perceiver` module.
        cells: Memories (P, h*w, 64).
        positions: Of their cells (1, h*w, 64).
        grid: (h, w).

    Returns:
        Latents (P, K, 64): those without a place, which look at all cells, and after them those with a place, each of
        which looks at one window of cells; there are as many windows per row as per column.
    """
    count, windows = len(cells), math.isqrt(len(resampler.latents_2d))
    sides = (windows, grid[0] // windows, windows, grid[1] // windows)
    tiles = cells.unflatten(1, sides).transpose(2, 3).flatten(3, 4).flatten(0, 2)  # (P * windows**2, cells of each, 64)
    placed = resampler.latents_2d.repeat(count, 1)[:, None]
    unplaced = resampler.latents_1d.repeat(count, 1, 1)
    for layer in resampler.layers:
        placed = layer(placed, tiles)
        unplaced = layer(unplaced, cells, positions.expand(count, -1, -1))
    latents = torch.cat([unplaced, placed.unflatten(0, (count, -1)).squeeze(2)], dim=1)
    return resampler.layer_norm(latents)  # type: ignore[no-any-return]


def _after_unplaced(rope: Rope, count: int) -> Rope:
    """Put tokens that are not rotated before those of a grid."""
    cos, sin = F.pad(rope.cos, (0, 0, count, 0), value=1.0), F.pad(rope.sin, (0, 0, count, 0))
    return Rope(cos, sin, torch.complex(cos, sin))
