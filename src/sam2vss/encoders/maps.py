"""What all encoders do alike: look at the frame they are given, and hand feature maps over as arrays."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ShapeError, WeightsError


def as_batch(frame: np.ndarray, device: torch.device) -> Tensor:
    """Bring a frame, uint8 RGB (H, W, 3), to the device as a batch of one.

    Raises:
        ShapeError: If it has another shape or dtype.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise ShapeError(f"the frame is {frame.dtype} {frame.shape}, expected uint8 RGB (H, W, 3)")
    return torch.from_numpy(np.array(frame))[None].to(device)  # a copy: frames may be read-only


def to_arrays(maps: Sequence[Tensor], name: object) -> tuple[np.ndarray, ...]:
    """Return maps (1, D, h, w) as float32 (D, h, w).

    Raises:
        WeightsError: If a value is not a finite number.
    """
    if not all(torch.isfinite(part).all() for part in maps):
        raise WeightsError(
            f"{name} gave features that are not finite numbers in {maps[0].dtype}; try --dtype float32, or fetch the "
            "weights again"
        )
    return tuple(part[0].to("cpu", torch.float32).contiguous().numpy() for part in maps)


def to_map(tokens: Tensor, grid: tuple[int, int], most_extra: int = 1) -> Tensor:
    """Lay patch tokens (B, N, D) out on their grid, row by row -> (B, D, h, w).

    Models put other tokens, class and registers, first; these are dropped.

    Args:
        tokens: Of the patches, and others before them.
        grid: (h, w).
        most_extra: How many others there may be.

    Raises:
        WeightsError: If there are fewer tokens than patches, or more than that.
    """
    num_cells = grid[0] * grid[1]
    if not num_cells <= tokens.shape[1] <= num_cells + most_extra:
        raise WeightsError(f"the model gives {tokens.shape[1]} tokens for {grid[0]} x {grid[1]} patches")
    return tokens[:, -num_cells:].transpose(1, 2).reshape(len(tokens), -1, *grid)
