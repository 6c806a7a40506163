"""From class scores on a model's grid to the best class of every pixel of the frame, in bounded memory."""

from collections.abc import Sequence

import torch
from torch.nn import functional

MAX_UPSAMPLED_VALUES = 1 << 24  # ours: 64 MB of scores at frame size at a time, whatever the number of classes


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
