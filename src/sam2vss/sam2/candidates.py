"""Automatic masks of one frame: a point grid, three masks a point, filters, box NMS.

Equal in rule to Meta's `SAM2AutomaticMaskGenerator` (sam2 repository, commit 2b90b9f); its crop layers are in
`crops.py`. Candidates stay mask logits until they are selected, so every threshold can change without running the
network again. On the CPU Meta's code enlarges three masks as the channels of one picture, where torch 2.13 rounds
otherwise than for one (4e-6 of a logit); a pixel whose logit lies that near to zero can fall on the other side.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingsError, ShapeError
from .model import FrameFeatures, Sam2Network
from .regions import remove_small_regions, remove_specks

POINTS_PER_BATCH = 64  # Meta's default
CELLS_PER_BATCH = 1 << 14  # on a CPU: points decoded at once times grid cells; 64 points take a fifth longer
ENLARGED_PER_BATCH = 8  # masks enlarged to the frame at once: 13 MB at 480 x 853; 32 take twice as long on a CPU


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
class Survivors:
    """Candidates that passed the filters and are still to be cut to masks; the other fields are those of `Selection`.

    Attributes:
        logits: (N, h, w).
        boxes_xyxy: Boxes of the masks, float (N, 4), in pixels of the frame.
    """

    logits: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor
    rows: Tensor
    boxes_xyxy: Tensor

    def __getitem__(self, rows: Tensor) -> "Survivors":
        return Survivors(
            self.logits[rows],
            self.predicted_iou[rows],
            self.stability[rows],
            self.points[rows],
            self.rows[rows],
            self.boxes_xyxy[rows],
        )

    def cut(self, size: tuple[int, int]) -> Selection:
        """Enlarge the logits to (H, W) and cut them at zero."""
        masks = torch.zeros(len(self.rows), *size, dtype=torch.bool, device=self.rows.device)
        for part, logits in zip(masks.split(ENLARGED_PER_BATCH), self.logits.split(ENLARGED_PER_BATCH), strict=True):
            part[:] = above(enlarge(logits, size), 0.0)
        return Selection(masks, self.predicted_iou, self.stability, self.points, self.rows)


@dataclass(frozen=True)
class Candidates:
    """K mask proposals of one frame.

    Attributes:
        logits: (K, h, w), in the type the network computed them in.
        iou: Predicted IoU (K,), float32.
        points: Prompt points (K, 2), (x, y) in pixels of the frame.
        size: (H, W) of the frame.
        floor: Proposals with a predicted IoU up to this one were dropped (`pruned`); minus infinity: none were.
    """

    logits: Tensor
    iou: Tensor
    points: Tensor
    size: tuple[int, int]
    floor: float = -math.inf

    def __len__(self) -> int:
        return len(self.iou)

    def pruned(self, floor: float) -> "Candidates":
        """Keep only what `select` can choose with a predicted-IoU threshold of at least `floor`, to store less."""
        self._check_floor(floor)
        kept = self.iou > floor
        return Candidates(self.logits[kept], self.iou[kept], self.points[kept], self.size, floor)

    def select(
        self, iou: float, stability: float, offset: float, nms: float, min_area: int = 0, max_speck: int = 0
    ) -> Selection:
        """Filter by predicted IoU (>), stability score (>=) and box NMS.

        Args:
            iou: Predicted-IoU threshold.
            stability: Stability-score threshold.
            offset: The stability score is the IoU of the mask cut at +offset and at -offset, in logits, at the frame's
                size.
            nms: Box IoU above which the worse of two masks is dropped.
            min_area: Fill holes and remove islands of fewer pixels than this, then NMS again with the new boxes, in
                which masks that had none come first; so they do in the result. 0: leave masks as they are.
            max_speck: Before anything is enlarged, fill holes and remove islands of up to so many cells of the logits.

        Raises:
            SettingsError: If these are `pruned` candidates and `iou` lies below their floor.

        Source: Meta's generator; for its two readings of the smallest area see `regions.py`.
        """
        survivors = self.survivors(iou, stability, offset, max_speck)
        kept = box_nms(survivors.boxes_xyxy, survivors.predicted_iou, nms)
        return without_small_regions(survivors[kept].cut(self.size), min_area, nms)

    def survivors(self, iou: float, stability: float, offset: float, max_speck: int = 0) -> Survivors:
        """Apply the filters of `select` except NMS; only what passes the predicted IoU is ever enlarged."""
        self._check_floor(iou)
        rows = torch.nonzero(self.iou > iou)[:, 0]
        logits = self.logits[rows]
        if max_speck:
            logits = remove_specks(logits, max_speck)
        scores, boxes = [self.iou.new_zeros(0)], [self.iou.new_zeros(0, 4)]
        for part in logits.split(ENLARGED_PER_BATCH):
            enlarged = enlarge(part, self.size)
            scores.append(stability_score(enlarged, offset))
            boxes.append(mask_boxes(above(enlarged, 0.0)))
        score = torch.cat(scores)
        found = Survivors(logits, self.iou[rows], score, self.points[rows], rows, torch.cat(boxes))
        return found[torch.nonzero(score >= stability)[:, 0]]  # a mask would make a GPU count it for every field

    def _check_floor(self, iou: float) -> None:
        if iou < self.floor:
            raise SettingsError(
                f"a predicted-IoU threshold of {iou} was asked of candidates that are kept above {self.floor} only: "
                "choose a threshold of at least that, or find the candidates again"
            )


def without_small_regions(selection: Selection, min_area: int, nms: float) -> Selection:
    """Clean masks by `remove_small_regions` and drop those whose boxes then overlap; masks left as they were win."""
    if not min_area:
        return selection
    cleaned = remove_small_regions(selection.masks, min_area)
    kept = box_nms(mask_boxes(cleaned.masks), cleaned.is_unchanged.float(), nms)
    chosen = selection[kept]
    return Selection(cleaned.masks[kept], chosen.predicted_iou, chosen.stability, chosen.points, chosen.rows)


def uncovered(selection: Selection, covered: Tensor, min_new_share: float) -> Selection:
    """Keep masks of which at least a share of the pixels lies outside `covered`, bool (H, W); empty masks have none.

    Source: ours.
    """
    covered = covered.to(selection.masks.device)
    if covered.shape != selection.masks.shape[1:]:
        raise ShapeError(f"covered is {tuple(covered.shape)}, the masks are {tuple(selection.masks.shape[1:])}")
    new = mask_areas(selection.masks & ~covered)
    return selection[new / mask_areas(selection.masks).clamp(min=1) >= min_new_share]


def enlarge(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge mask logits (N, h, w) of any float type bilinearly to the frame, float32 (N, H, W)."""
    return F.interpolate(logits[:, None].float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def above(logits: Tensor, threshold: float) -> Tensor:
    """Return `logits > threshold`, through NumPy on a CPU: torch 2.13 takes five times as long there."""
    if logits.device.type != "cpu":
        return logits > threshold
    return torch.from_numpy(np.greater(logits.detach().float().numpy(), np.float32(threshold)))


def mask_areas(masks: Tensor) -> Tensor:
    """Count the pixels of bool masks (N, H, W), int64 (N,).

    Adds 255 words of eight pixels at a time, a byte for each; `sum` would turn every pixel into 64 bits first.
    """
    pixels = masks.flatten(1).view(torch.uint8)
    num_sums = -(-pixels.shape[1] // (8 * 255))
    words = F.pad(pixels, (0, num_sums * 8 * 255 - pixels.shape[1])).contiguous().view(torch.int64)
    return words.view(len(masks), num_sums, 255).sum(2).view(torch.uint8).sum(1)


def stability_score(logits: Tensor, offset: float) -> Tensor:
    """IoU of masks (N, H, W) cut at +offset and -offset; 0 where both cuts are empty."""
    return mask_areas(above(logits, offset)) / mask_areas(above(logits, -offset)).clamp(min=1)


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of bool masks (N, H, W) as float xyxy (N, 4), with the last inside pixel as corner; empty masks: zeros."""
    if masks.shape[0] == 0:
        return torch.zeros(0, 4, device=masks.device)
    pixels = masks.view(torch.uint8)
    columns, rows = pixels.amax(1), pixels.amax(2)
    height, width = masks.shape[1:]
    left, right = columns.argmax(1), width - 1 - columns.flip(1).argmax(1)
    top, bottom = rows.argmax(1), height - 1 - rows.flip(1).argmax(1)
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * columns.amax(1)[:, None]


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
    return order[torch.from_numpy(np.flatnonzero(is_alive)).to(order.device)]


def grid_points(points_per_side: int, size: tuple[int, int]) -> Tensor:
    """Return the n x n grid over a frame of size (H, W), (n*n, 2) as (x, y): cell centres, so it covers any shape."""
    ticks = (torch.arange(points_per_side, dtype=torch.float64) + 0.5) / points_per_side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x.flatten() * size[1], y.flatten() * size[0]], dim=1).float()


class Proposer(Protocol):
    """Gives the candidates of an encoded frame as `find_candidates` does, or remembers what that gave before."""

    def __call__(
        self,
        network: Sam2Network,
        features: FrameFeatures,
        size: tuple[int, int],
        points_per_side: int,
        *,
        is_wanted: Tensor | None = None,
    ) -> Candidates: ...


@torch.inference_mode()
def find_candidates(
    network: Sam2Network,
    features: FrameFeatures,
    size: tuple[int, int],
    points_per_side: int,
    points_per_batch: int | None = None,
    is_wanted: Tensor | None = None,
) -> Candidates:
    """Prompt one encoded frame with a point grid and keep all three masks of every point.

    Args:
        network: The model.
        features: Of the frame.
        size: (H, W) of the frame.
        points_per_side: n of the n x n grid.
        points_per_batch: Points decoded at once; None chooses by device. Changes time, memory and rounding only.
        is_wanted: Prompt only points on these pixels, bool (H, W); None: the whole grid.
    """
    points = grid_points(points_per_side, size).to(network.device)
    if is_wanted is not None:
        points = points[_at(is_wanted.to(network.device), points, size)]
    low = network.without_memory(features.low)
    points_per_batch = points_per_batch or _points_per_batch(network)
    logits, iou = [low.new_zeros(0, *network.logit_size)], [low.new_zeros(0)]
    for start in range(0, len(points), points_per_batch):
        batch = network.to_model_pixels(points[start : start + points_per_batch], size)
        tokens = network.embed_points(batch)
        decoded = network.decode(low, features, tokens, network.no_mask())
        logits.append(decoded.logits[:, 1:].flatten(0, 1))
        iou.append(decoded.iou[:, 1:].flatten())
    return Candidates(torch.cat(logits), torch.cat(iou).float(), points.repeat_interleave(3, dim=0), size)


def _points_per_batch(network: Sam2Network) -> int:
    if network.device.type != "cpu":
        return POINTS_PER_BATCH
    height, width = network.grid_size
    return min(max(1, CELLS_PER_BATCH // (height * width)), POINTS_PER_BATCH)


def _at(mask: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the values of a mask (H, W) at points (P, 2), (x, y) in pixels."""
    if mask.shape != size:
        raise ShapeError(f"is_wanted is {tuple(mask.shape)}, expected a mask of the frame, {size}")
    return mask.bool()[points[:, 1].long(), points[:, 0].long()]
