"""Automatic masks of one frame: a point grid, three masks a point, filters, box NMS.

Equal in rule to Meta's `SAM2AutomaticMaskGenerator` without crops (sam2 repository, commit 2b90b9f). Candidates stay
mask logits until they are selected, so thresholds can change without running the network again.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .model import FrameFeatures, Sam2Network

POINTS_PER_BATCH = 64  # Meta's default
ENLARGED_PER_BATCH = 32  # masks enlarged to the frame at once: 52 MB at 480 x 853


@dataclass(frozen=True)
class Selection:
    """Masks that passed the filters, best predicted IoU first.

    Attributes:
        masks: bool (N, H, W).
        predicted_iou: (N,), [0, 1].
        stability: (N,), [0, 1].
        points: (N, 2), (x, y) in pixels of the frame.
        rows: (N,), their rows among the candidates.
    """

    masks: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> "Selection":
        return Selection(
            self.masks[rows], self.predicted_iou[rows], self.stability[rows], self.points[rows], self.rows[rows]
        )


@dataclass(frozen=True)
class Candidates:
    """K mask proposals of one frame.

    Attributes:
        logits: (K, s, s).
        iou: Predicted IoU (K,).
        points: Prompt points (K, 2), (x, y) in pixels of the frame.
        size: (H, W) of the frame.
    """

    logits: Tensor
    iou: Tensor
    points: Tensor
    size: tuple[int, int]

    def enlarged(self, rows: Tensor) -> Tensor:
        """Return the logits of some candidates at the frame's size, float32 (len(rows), H, W)."""
        return enlarge(self.logits[rows], self.size)

    def select(self, iou: float, stability: float, offset: float, nms: float) -> Selection:
        """Filter by predicted IoU (>), stability score (>=) and box NMS.

        The stability score is the IoU of the mask cut at +offset and at -offset, `offset` in logits, at the frame's
        size; nothing is enlarged that the predicted IoU already drops.
        """
        rows = torch.nonzero(self.iou > iou)[:, 0]
        masks, scores = [], []
        for chunk in rows.split(ENLARGED_PER_BATCH):
            logits = self.enlarged(chunk)
            scores.append(stability_score(logits, offset))
            masks.append((logits > 0)[scores[-1] >= stability])
        height, width = self.size
        score = torch.cat(scores) if scores else self.iou.new_zeros(0)
        mask = torch.cat(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool, device=self.iou.device)
        is_stable = score >= stability
        rows, score = rows[is_stable], score[is_stable]
        kept = box_nms(mask_boxes(mask), self.iou[rows], nms)
        return Selection(mask[kept], self.iou[rows[kept]], score[kept], self.points[rows[kept]], rows[kept])


def enlarge(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge mask logits (N, s, s) bilinearly to the frame, float32 (N, H, W)."""
    return F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def stability_score(logits: Tensor, offset: float) -> Tensor:
    """IoU of masks (N, H, W) cut at +offset and -offset; 0 where both cuts are empty."""
    inner = (logits > offset).flatten(1).sum(1)
    outer = (logits > -offset).flatten(1).sum(1)
    return inner / outer.clamp(min=1)


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of bool masks (N, H, W) as float xyxy (N, 4), with the last inside pixel as corner; empty masks: zeros."""
    if masks.shape[0] == 0:
        return torch.zeros(0, 4, device=masks.device)
    columns, rows = masks.any(1), masks.any(2)
    height, width = masks.shape[1:]
    left, right = columns.int().argmax(1), width - 1 - columns.flip(1).int().argmax(1)
    top, bottom = rows.int().argmax(1), height - 1 - rows.flip(1).int().argmax(1)
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * columns.any(1)[:, None]


def box_nms(boxes_xyxy: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return the rows that survive non-maximum suppression, best score first (ties: first row first).

    The IoU is a quotient of float32 numbers, as in the GPU kernel that Meta's generator calls, so boxes that overlap by
    exactly the threshold are both kept there and here. Boxes without area suppress nothing.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes = boxes_xyxy[order].float().cpu().numpy()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    is_alive = np.ones(len(boxes), bool)
    for row in range(len(boxes)):
        if not is_alive[row]:
            continue
        low = np.maximum(boxes[row, :2], boxes[row + 1 :, :2])
        high = np.minimum(boxes[row, 2:], boxes[row + 1 :, 2:])
        overlap = np.clip(high - low, 0, None).prod(1)
        union = area[row] + area[row + 1 :] - overlap
        iou = np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)
        is_alive[row + 1 :] &= iou <= np.float32(threshold)
    return order[torch.from_numpy(is_alive).to(order.device)]


def grid_points(points_per_side: int, size: tuple[int, int]) -> Tensor:
    """Return the n x n grid over a frame of size (H, W), (n*n, 2) as (x, y): cell centres, so it covers any shape."""
    ticks = (torch.arange(points_per_side, dtype=torch.float32) + 0.5) / points_per_side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x.flatten() * size[1], y.flatten() * size[0]], dim=1)


@torch.inference_mode()
def find_candidates(
    network: Sam2Network, features: FrameFeatures, size: tuple[int, int], points_per_side: int
) -> Candidates:
    """Prompt one encoded frame with a point grid and keep all three masks of every point."""
    frame_points = grid_points(points_per_side, size).to(network.device)
    scale = frame_points.new_tensor([network.image_size / size[1], network.image_size / size[0]])
    low = network.without_memory(features.low)
    logits, iou = [], []
    for points in (frame_points * scale).split(POINTS_PER_BATCH):
        decoded = network.decode(low, features, network.embed_points(points), network.no_mask())
        logits.append(decoded.logits[:, 1:].flatten(0, 1))
        iou.append(decoded.iou[:, 1:].flatten())
    return Candidates(torch.cat(logits), torch.cat(iou).float(), frame_points.repeat_interleave(3, dim=0), size)
