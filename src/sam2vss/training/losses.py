"""Losses of the mask decoder and the auxiliary ones that make tiny encoders learn quickly. Pure torch functions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_targets(masks: Tensor, size: int) -> Tensor:
    """Average binary masks (P, S, S) down to (P, size, size); edge cells keep the covered share as target."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), size)[:, 0]


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (edges count five times) plus dice, per mask.

    Args:
        logits: (P, K, s, s).
        target: Soft masks (P, s, s).

    Returns:
        (P, K).
    """
    target = target[:, None].expand_as(logits)
    is_edge = ((target > 0.02) & (target < 0.98)).to(logits.dtype)
    weight = 1 + 4 * is_edge
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = (weight * entropy).mean((-1, -2)) / weight.mean((-1, -2))
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-1, -2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((-1, -2)) + target.sum((-1, -2)) + 1)
    return 2 * entropy + dice


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded masks with soft targets cut at one half; logits (P, K, s, s) -> (P, K)."""
    predicted, truth = logits > 0, (target > 0.5)[:, None]
    overlap = (predicted & truth).sum((-1, -2)).float()
    union = (predicted | truth).sum((-1, -2)).float()
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union))


def prompt_loss(logits: Tensor, iou: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one prompt's four masks: token 0 always, the best of tokens 1-3, and predicted against true IoU.

    Args:
        logits: (P, 4, s, s).
        iou: Predicted IoU (P, 4).
        target: Soft masks (P, s, s).

    Returns:
        Loss (P,) and the IoU of the best of tokens 1-3 (P,).
    """
    losses = mask_loss(logits, target)
    true_iou = mask_iou(logits.detach(), target)
    # a little weight on all three keeps tokens alive that never win
    multi = losses[:, 1:]
    loss = losses[:, 0] + multi.min(dim=1).values + 0.05 * multi.mean(dim=1) + 2 * (iou - true_iou).square().mean(dim=1)
    return loss, true_iou[:, 1:].max(dim=1).values


def affinity_loss(embedding: Tensor, ids: Tensor, generator: torch.Generator, pairs: int = 2048) -> Tensor:
    """Same object near, other object far, for random pixel pairs, half of them close to one another.

    Args:
        embedding: (B, E, h, w).
        ids: Object ids (B, h, w).
        generator: Source of the pairs.
        pairs: Pairs per picture.
    """
    batch, _, height, width = embedding.shape
    y = torch.randint(height, (batch, pairs), generator=generator)
    x = torch.randint(width, (batch, pairs), generator=generator)
    near = torch.randint(-5, 6, (2, batch, pairs), generator=generator)
    far_y = torch.randint(height, (batch, pairs), generator=generator)
    far_x = torch.randint(width, (batch, pairs), generator=generator)
    is_near = torch.rand(batch, pairs, generator=generator) < 0.5
    other_y = torch.where(is_near, (y + near[0]).clamp(0, height - 1), far_y)
    other_x = torch.where(is_near, (x + near[1]).clamp(0, width - 1), far_x)
    rows = torch.arange(batch)[:, None]
    distance = (embedding[rows, :, y, x] - embedding[rows, :, other_y, other_x]).square().sum(-1)
    is_same = (ids[rows, y, x] == ids[rows, other_y, other_x]).float()
    # logit 2 - distance: pairs closer than 2 count as the same object
    entropy = F.binary_cross_entropy_with_logits(2 - distance, is_same, reduction="none")
    weight = torch.where(is_same > 0, 0.5 / is_same.mean().clamp(min=0.05), 0.5 / (1 - is_same.mean()).clamp(min=0.05))
    return (weight * entropy).mean()
