"""From class scores to labels: what all base models share once they have scored the pixels of a frame."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ..errors import ShapeError, WeightsError
from .preprocessing import Patches

MAX_UPSAMPLED_VALUES = 1 << 24  # ours: 64 MB of scores at frame size at a time, whatever the number of classes
NOBODYS_MASS = 1e-6  # ours: far below the mass of any query that means it


def check_frames(frames: np.ndarray) -> None:
    """Raise `ShapeError` unless these are frames, uint8 RGB (L, H, W, 3), none of the sides empty."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ShapeError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (L, H, W, 3)")


def check_finite(scores: torch.Tensor, model: str, dtype: torch.dtype) -> None:
    """Raise `WeightsError` unless all scores that a model gave in a number format are finite numbers."""
    if not torch.isfinite(scores).all():
        remedy = (
            "the weights are damaged or come from a training that failed"
            if dtype == torch.float32
            else "try --dtype float32"
        )
        raise WeightsError(f"{model} gave scores that are not finite numbers in {dtype}: {remedy}")


def argmax_at_size(
    scores: torch.Tensor, size: tuple[int, int], by_way_of: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return the best class per pixel of scores (C, h, w), resized bilinearly to `size`, as int64 (H, W).

    Works through groups of classes, so 150 classes of a large frame do not have to fit into memory at once; the result
    is that of resizing them all. Of equal scores the lower class wins.

    Args:
        scores: Higher is better.
        size: (height, width) of the frame.
        by_way_of: Resize to this size first and from there to `size`, as mmsegmentation does (network input, then
            frame). Near edges the labels differ from those of one step.
    """
    steps: Sequence[tuple[int, int]] = [size] if by_way_of is None or by_way_of == size else [by_way_of, size]
    group = max(1, MAX_UPSAMPLED_VALUES // max(height * width for height, width in steps))
    best_score = torch.full(size, -torch.inf, device=scores.device)
    best_class = torch.zeros(size, dtype=torch.int64, device=scores.device)
    for first in range(0, len(scores), group):
        part = scores[None, first : first + group]
        for step in steps:
            part = functional.interpolate(part, step, mode="bilinear", align_corners=False)
        part_score, part_class = part[0].max(0)
        is_better = part_score > best_score
        best_score = torch.where(is_better, part_score, best_score)
        best_class = torch.where(is_better, part_class + first, best_class)
    return best_class


def merge_patches(scores: torch.Tensor, patches: Patches, size: tuple[int, int]) -> torch.Tensor:
    """Lay the scores of patches (B * P, C, s, s) side by side to (B, C, h, w); where they overlap they are averaged."""
    count = len(patches.starts)
    merged = scores.new_zeros((len(scores) // count, scores.shape[1], *size))
    layers = scores.new_zeros(size)
    axis = 2 if patches.along_height else 3
    for i, start in enumerate(patches.starts):
        length = min(patches.side, size[axis - 2] - start)
        merged.narrow(axis, start, length).add_(scores[i::count].narrow(axis, 0, length))
        layers.narrow(axis - 2, start, length).add_(1)
    return merged / layers.clamp_min(1)
