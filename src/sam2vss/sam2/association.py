"""Which mask of this frame is which object of the frames before: overlap, appearance, motion, one-to-one assignment.

Pure functions on tensors, for `match.FrameMatcher`. N tracks, K candidate masks, mask grid s x s. Boxes here are
(centre x, centre y, width, height) as fractions of the picture, so that they mean the same at every grid size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_SIDE = 1e-3  # of the picture; boxes never get thinner, whatever the motion predicts


def centre_boxes(masks: Tensor) -> Tensor:
    """Bounding boxes of bool masks (N, h, w) as fractions (cx, cy, width, height), float32 (N, 4); empty: zeros."""
    count, height, width = masks.shape
    if count == 0:
        return torch.zeros(0, 4, device=masks.device)
    sides = []
    for dim, length in ((1, width), (2, height)):
        is_inside = masks.any(dim)
        low = is_inside.int().argmax(1)
        high = length - is_inside.flip(1).int().argmax(1)
        sides.append(((low + high) / (2 * length), (high - low) / length))
    (cx, box_width), (cy, box_height) = sides
    return torch.stack([cx, cy, box_width, box_height], dim=1) * masks.flatten(1).any(1)[:, None]


def move_masks(logits: Tensor, old_boxes: Tensor, new_boxes: Tensor) -> Tensor:
    """Shift and stretch mask logits (N, s, s) as their boxes (N, 4) move, and cut them: bool (N, s, s).

    What is moved in from beyond the picture's edge is outside the mask.
    """
    old_size, new_size = old_boxes[:, 2:].clamp(min=SMALLEST_SIDE), new_boxes[:, 2:].clamp(min=SMALLEST_SIDE)
    scale = old_size / new_size
    # grid_sample asks where each output place comes from, in coordinates from -1 to 1
    offset = (2 * old_boxes[:, :2] - 1) - scale * (2 * new_boxes[:, :2] - 1)
    theta = torch.cat([torch.diag_embed(scale), offset[:, :, None]], dim=2)
    if not len(logits):
        return logits > 0
    grid = F.affine_grid(theta, [len(logits), 1, *logits.shape[1:]], align_corners=False)
    return F.grid_sample(logits[:, None].float(), grid, align_corners=False)[:, 0] > 0


def mask_overlaps(tracks: Tensor, candidates: Tensor) -> Tensor:
    """IoU of every bool mask (N, s, s) with every other (K, s, s), float32 (N, K); 0 where both are empty."""
    left, right = tracks.flatten(1).float(), candidates.flatten(1).float()
    shared = left @ right.T
    union = left.sum(1)[:, None] + right.sum(1)[None] - shared
    return shared / union.clamp(min=1)


def appearances(masks: Tensor, low: Tensor) -> Tensor:
    """Mean encoder feature under each mask, as unit vectors around the picture's mean; empty masks give zeros.

    Args:
        masks: bool (N, H, W), H and W multiples of h and w.
        low: Features of the frame (1, D, h, w).

    Returns:
        float32 (N, D).
    """
    cells = low[0].flatten(1).float()
    cells = cells - cells.mean(1, keepdim=True)  # all features share a large common part
    if not len(masks):
        return cells.new_zeros(0, len(cells))
    height, width = low.shape[-2:]
    stride = (masks.shape[1] // height, masks.shape[2] // width)
    weights = F.avg_pool2d(masks.float()[:, None], stride).flatten(1)
    return F.normalize(weights @ cells.T / weights.sum(1, keepdim=True).clamp(min=1e-6), dim=1)


@dataclass(frozen=True)
class MatchRule:
    """Which candidate can be which track's next mask, and which fits best. All ours, compared with a few others on
    synthetic validation clips.

    Attributes:
        min_overlap: IoU that a candidate must have with the mask of a track seen in the frame before; what keeps a
            track from jumping between part and whole.
        min_overlap_lost: The same for tracks not seen in the frame before, whose place is less certain.
        min_likeness_lost: Cosine of appearances that such tracks must have besides.
        likeness_weight: Weight of the cosine in the score, next to 1 for the IoU.
        quality_weight: Weight of the candidate's predicted IoU.
    """

    min_overlap: float = 0.5
    min_overlap_lost: float = 0.1
    min_likeness_lost: float = 0.5
    likeness_weight: float = 0.2
    quality_weight: float = 0.2


def match_scores(overlap: Tensor, likeness: Tensor, quality: Tensor, is_lost: Tensor, rule: MatchRule) -> Tensor:
    """Score every pair of track and candidate, float32 (N, K); -inf where the rule forbids it.

    Args:
        overlap: Mask IoU (N, K).
        likeness: Cosine of appearances (N, K).
        quality: Predicted IoU of the candidates (K,).
        is_lost: Tracks not seen in the frame before, bool (N,).
        rule: Thresholds and weights.
    """
    is_near = overlap >= torch.where(is_lost, rule.min_overlap_lost, rule.min_overlap)[:, None]
    is_allowed = is_near & (~is_lost[:, None] | (likeness >= rule.min_likeness_lost))
    score = overlap + rule.likeness_weight * likeness + rule.quality_weight * quality
    return score.masked_fill(~is_allowed, -torch.inf)


def assign(scores: Tensor) -> Tensor:
    """Match tracks and candidates one to one, best score first; scores (N, K), -inf where a pair is out of question.

    Equal to walking through all pairs by descending score, but all pairs that are each other's best are taken at
    once. Of equal scores the first track and the first candidate win.

    Returns:
        Candidate of every track, int64 (N,); -1 where there is none.
    """
    left = scores.detach().float().cpu().clone()
    chosen = torch.full((len(left),), -1)
    if left.numel() == 0:
        return chosen.to(scores.device)
    tracks = torch.arange(len(left))
    while True:
        best = left.argmax(1)
        is_mutual = (left.argmax(0)[best] == tracks) & torch.isfinite(left[tracks, best])
        if not is_mutual.any():
            return chosen.to(scores.device)
        chosen[is_mutual] = best[is_mutual]
        left[is_mutual] = -torch.inf
        left[:, best[is_mutual]] = -torch.inf
