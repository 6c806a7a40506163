"""Position encodings of one grid: they depend on the image size alone, so they are made once, on the device."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attention import Rope


@dataclass(frozen=True)
class PositionTables:
    """What the modules are told about where the h*w cells of a frame lie.

    Attributes:
        image: For the mask decoder, (1, h*w, D), in the model's dtype.
        cells: For a frame's cells in memory attention, (1, h*w, D), in the model's dtype.
        memory: For the cells of a spatial memory, float32 (h*w, 64).
        rope: Rotary encoding of the cells in memory attention.
        memory_rope: Rotary encoding of the cells of a spatial memory.
    """

    image: Tensor
    cells: Tensor
    memory: Tensor
    rope: Rope
    memory_rope: Rope

    @classmethod
    @torch.inference_mode(False)  # training uses the same tables
    @torch.no_grad()
    def build(cls, model: Any, grid: tuple[int, int], dtype: torch.dtype) -> "PositionTables":
        """Compute the tables of a `Sam2VideoModel` for a grid of (h, w) cells."""
        basis = model.shared_image_embedding.positional_embedding.float()
        device = basis.device
        rope = rope_table(model, grid)
        cells = sine_table(model.vision_encoder.neck.position_encoding, grid, device)
        return cls(
            image=fourier_table(basis, grid).to(dtype)[None],
            cells=(0.1 * cells.to(dtype))[None],  # the factor is SAM 2's
            memory=sine_table(model.memory_encoder.position_encoding, grid, device),
            rope=rope,
            memory_rope=rope,
        )


def grid_positions(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Column and row of each cell of a grid of (h, w) cells, row by row, int64 (h*w, 2)."""
    number = torch.arange(grid[0] * grid[1], device=device)
    return torch.stack([number % grid[1], number // grid[1]], dim=-1)


def fourier_table(basis: Tensor, grid: tuple[int, int]) -> Tensor:
    """Fourier code of the cell centres (h*w, D), by the random basis (2, D/2) of the prompt encoder."""
    column, row = grid_positions(grid, basis.device).to(basis).unbind(-1)
    coordinates = 2 * torch.stack([(column + 0.5) / grid[1], (row + 0.5) / grid[0]], dim=-1) - 1
    angles = 2 * torch.pi * (coordinates @ basis)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sine_table(encoding: Any, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Sine code of the cells, float32 (h*w, channels), by one of transformers' `PositionEmbeddingSine` modules."""
    shape = torch.Size((1, 2 * encoding.num_position_features, *grid))
    table = encoding(shape, device, torch.float32)
    return table[0].flatten(1).T.contiguous()  # type: ignore[no-any-return]


def rope_table(model: Any, grid: tuple[int, int]) -> Rope:
    """Rotary encoding of the cells of a grid of (h, w), by the model's own frequencies."""
    basis = model.shared_image_embedding.positional_embedding.float()
    cos, sin = model.memory_attention.rotary_emb(basis, grid_positions(grid, basis.device))
    cos, sin = cos[0, :, ::2].contiguous(), sin[0, :, ::2].contiguous()  # every value stands there twice
    return Rope(cos, sin, torch.complex(cos, sin))


def age_table(num_ages: int, channels: int, unit: int, device: torch.device) -> Tensor:
    """Sine code of the ages 0, 1, ... in frames, float32 (num_ages, channels); `unit` frames count as 1 (SAM 2)."""
    half = channels // 2
    channel = torch.arange(half, device=device, dtype=torch.float32)
    time = torch.arange(num_ages, device=device, dtype=torch.float32) / unit
    angles = time[:, None] / 10000 ** (2 * (channel // 2) / half)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
