"""Crop layers: automatic masks of the whole frame and of overlapping parts of it, for objects too small for one look.

Equal in rule to `SAM2AutomaticMaskGenerator` with `crop_n_layers` (Meta's sam2 repository, commit 2b90b9f): every crop
is encoded and prompted on its own and filtered as a frame is, masks that a crop cuts off are dropped, and where masks
of several crops have the same box, that of the smallest crop stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ..errors import SettingsError
from .candidates import (
    Candidates,
    Selection,
    Survivors,
    box_nms,
    find_candidates,
    without_small_regions,
)
from .model import FrameFeatures, Sam2Network

OVERLAP_RATIO = 512 / 1500  # Meta's default
EDGE_MARGIN_PX = 20.0  # Meta's constant


@dataclass(frozen=True)
class Crop:
    """A rectangle of the frame, half-open, in pixels; layer 0 is the frame itself."""

    left: int
    top: int
    right: int
    bottom: int
    layer: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        return self.size[0] * self.size[1]

    def of(self, picture: Tensor) -> Tensor:
        """Cut the rectangle out of a picture or mask (H, W, ...) of the frame."""
        return picture[self.top : self.bottom, self.left : self.right]

    def offset_xyxy(self, like: Tensor) -> Tensor:
        """Shift from the crop's pixels to the frame's, for boxes; the first two numbers for points."""
        return like.new_tensor([self.left, self.top, self.left, self.top])


def crop_layers(size: tuple[int, int], num_layers: int, overlap_ratio: float = OVERLAP_RATIO) -> list[Crop]:
    """Return the frame of size (H, W) and the crops of each layer: 4 in layer 1, 16 in layer 2, 4**n in layer n.

    Neighbours share `overlap_ratio` of the frame's short side in layer 1, half as much in each further one. Crops go
    column by column, and those at the far edges end with the frame.

    Source: Meta's `generate_crop_boxes`.
    """
    height, width = size
    crops = [Crop(0, 0, width, height, 0)]
    for layer in range(1, num_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / per_side))
        crop_width, crop_height = (math.ceil((overlap * (per_side - 1) + side) / per_side) for side in (width, height))
        for column, row in product(range(per_side), repeat=2):
            left, top = column * (crop_width - overlap), row * (crop_height - overlap)
            right, bottom = min(left + crop_width, width), min(top + crop_height, height)
            crops.append(Crop(left, top, right, bottom, layer))
    return crops


def is_cut_off(boxes_xyxy: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Tell which boxes (N, 4), in the crop's pixels, end within 20 pixels of an edge of the crop, bool (N,).

    Edges within 20 pixels of the frame's own edges do not count: what ends there may be whole.
    """
    boxes = boxes_xyxy + crop.offset_xyxy(boxes_xyxy)
    crop_edges = boxes.new_tensor([crop.left, crop.top, crop.right, crop.bottom])
    frame_edges = boxes.new_tensor([0, 0, size[1], size[0]])
    is_near_crop = (boxes - crop_edges).abs() <= EDGE_MARGIN_PX
    is_near_frame = (boxes - frame_edges).abs() <= EDGE_MARGIN_PX
    return (is_near_crop & ~is_near_frame).any(1)


@dataclass(frozen=True)
class CropCandidates:
    """Candidates of the crops of one frame, each in the pixels of its crop.

    Attributes:
        crops: Where the crops lie; the frame itself comes first.
        candidates: One for each crop.
    """

    crops: Sequence[Crop]
    candidates: Sequence[Candidates]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frame."""
        return self.crops[0].size

    def select(
        self,
        iou: float,
        stability: float,
        offset: float,
        nms: float,
        crop_nms: float = 0.7,
        min_area: int = 0,
        max_speck: int = 0,
    ) -> Selection:
        """Filter the candidates of every crop as `Candidates.select` does, then by box NMS between crops.

        Args:
            iou: Predicted-IoU threshold.
            stability: Stability-score threshold.
            offset: Of the stability score, in logits.
            nms: Box IoU above which the worse of two masks of a crop is dropped.
            crop_nms: Box IoU above which of two masks that of the larger crop is dropped. Without crop layers unused.
            min_area: As in `Candidates.select`, in the frame, after all else; its NMS takes the larger threshold.
            max_speck: As in `Candidates.select`.

        Returns:
            Masks of the frame, those of the smallest crops first, within a crop best predicted IoU first; `rows` count
            through the candidates of all crops.
        """
        parts = [self._of_crop(number, iou, stability, offset, nms, max_speck) for number in range(len(self.crops))]
        boxes = torch.cat([part.boxes_xyxy for part in parts])
        crop_numbers = torch.cat([torch.full_like(part.rows, number) for number, part in enumerate(parts)])
        if len(self.crops) > 1:
            preference = boxes.new_tensor([1 / crop.area for crop in self.crops])[crop_numbers]
            kept = box_nms(boxes, preference, crop_nms)
        else:
            kept = torch.arange(len(boxes), device=boxes.device)
        selection = self._cut(parts, crop_numbers, kept)
        return without_small_regions(selection, min_area, max(nms, crop_nms) if len(self.crops) > 1 else nms)

    def _of_crop(
        self, number: int, iou: float, stability: float, offset: float, nms: float, max_speck: int
    ) -> Survivors:
        """Filter the candidates of one crop; boxes and points come in the frame's pixels."""
        crop, candidates = self.crops[number], self.candidates[number]
        found = candidates.survivors(iou, stability, offset, max_speck)
        found = found[torch.nonzero(~is_cut_off(found.boxes_xyxy, crop, self.size))[:, 0]]
        found = found[box_nms(found.boxes_xyxy, found.predicted_iou, nms)]
        shift = crop.offset_xyxy(found.boxes_xyxy)
        rows = found.rows + sum(len(others) for others in self.candidates[:number])
        return Survivors(
            found.logits,
            found.predicted_iou,
            found.stability,
            found.points + shift[:2],
            rows,
            found.boxes_xyxy + shift,
        )

    def _cut(self, parts: Sequence[Survivors], crop_numbers: Tensor, kept: Tensor) -> Selection:
        """Cut the chosen ones to masks of the frame, in the order of `kept`, rows of all parts one after another."""
        masks = torch.zeros(len(kept), *self.size, dtype=torch.bool, device=kept.device)
        start = 0
        for number, (crop, part) in enumerate(zip(self.crops, parts, strict=True)):
            places = torch.nonzero(crop_numbers[kept] == number)[:, 0]
            inside = part[kept[places] - start].cut(crop.size)
            masks[places, crop.top : crop.bottom, crop.left : crop.right] = inside.masks
            start += len(part.rows)
        fields = [(part.predicted_iou, part.stability, part.points, part.rows) for part in parts]
        predicted_iou, stability, points, rows = (torch.cat(field)[kept] for field in zip(*fields, strict=True))
        return Selection(masks, predicted_iou, stability, points, rows)


@torch.inference_mode()
def find_crop_candidates(
    network: Sam2Network,
    frame: Tensor,
    points_per_side: int,
    num_layers: int,
    overlap_ratio: float = OVERLAP_RATIO,
    points_divisor: int = 1,
    points_per_batch: int | None = None,
    features: FrameFeatures | None = None,
    is_wanted: Tensor | None = None,
) -> CropCandidates:
    """Encode and prompt a frame and its crops, one after another.

    Args:
        network: The model.
        frame: uint8 RGB (H, W, 3).
        points_per_side: n of the n x n grid of the whole frame.
        num_layers: Crop layers; each encodes four times as many crops as the one before.
        overlap_ratio: See `crop_layers`.
        points_divisor: Layer i has a grid of n / divisor**i points a side.
        points_per_batch: Points decoded at once; None chooses by device.
        features: Of the whole frame, where it is encoded already.
        is_wanted: Prompt only points on these pixels of the frame, bool (H, W); None: all points.

    Raises:
        SettingsError: If a layer is left without points, or its crops without pixels.
    """
    height, width = frame.shape[:2]
    crops = crop_layers((height, width), num_layers, overlap_ratio)
    if points_per_side < points_divisor**num_layers or min(min(crop.size) for crop in crops) < 1:
        raise SettingsError(
            f"{num_layers} crop layers leave no points or no pixels to a crop, with {points_per_side} points a side "
            f"divided by {points_divisor} in every layer and a frame of {height} x {width}: take fewer layers"
        )
    candidates = []
    for crop in crops:
        if features is None or crop.layer:
            features = network.encode(network.pixels(crop.of(frame)[None].to(network.device)))
        points = points_per_side // points_divisor**crop.layer
        wanted = None if is_wanted is None else crop.of(is_wanted)
        candidates.append(find_candidates(network, features, crop.size, points, points_per_batch, wanted))
    return CropCandidates(crops, candidates)
