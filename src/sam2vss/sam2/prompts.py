"""Propagation with the mask decoder alone: an object's mask in one frame is its prompt in the next.

No memory is read or written, so a frame costs its encoding and one decoder pass per object. What an object looked like
earlier is forgotten: masks drift where frames differ much, and an object that vanished does not come back.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .candidates import mask_boxes
from .model import MASK_PROMPT_BIAS, MASK_PROMPT_SCALE, NO_OBJECT_LOGIT, Decoded, FrameFeatures, Sam2Network
from .propagate import Tracks, best_of_three, joined

LARGEST_PROMPT_LOGIT = 32.0  # Meta's predictor clamps logits fed back as a mask prompt to +-32
STABLE_CUT, STABLE_SHARE = 0.05, 0.98  # SAM 2's dynamic_multimask_stability_delta and _thresh

MaskChoice = Literal["single", "overlap"]


@dataclass(frozen=True)
class PromptParts:
    """What of an object's mask is shown to the decoder as prompt of the next frame.

    Attributes:
        mask: Its logits, as in SAM's iterative refinement.
        box: Its bounding box, as two corner tokens.
        point: Its innermost point, as a positive click.
    """

    mask: bool = True
    box: bool = True
    point: bool = True


class PromptPropagator:
    """Follows masks from frame to frame by prompting the mask decoder with the masks of the frame before.

    Prompts are put together as Meta's `SAM2ImagePredictor.predict` does: box corners (labels 2 and 3), the click (1),
    one padding token, and the previous low-resolution logits as mask prompt. An object is absent where the decoder
    says so, where its predicted IoU is too low, or where its mask is empty; absent objects stay absent.

    Args:
        network: The model.
        chunk: Objects per batch.
        parts: What of a mask becomes prompt. All three by default, which SAM 2 knows from its training.
        choice: Which of the decoder's four masks is taken. "single" is SAM 2's rule for prompts of several parts: token
            0, or the best of the other three by predicted IoU where token 0 is unstable. "overlap" takes the one that
            overlaps the prompt most (ours); right where a click alone is the prompt, which leaves open part or whole.
        min_predicted_iou: Predicted IoU below which an object counts as absent (ours).
    """

    def __init__(
        self,
        network: Sam2Network,
        chunk: int = 16,
        parts: PromptParts | None = None,
        choice: MaskChoice = "single",
        min_predicted_iou: float = 0.3,
    ) -> None:
        self.network = network
        self.chunk = chunk
        self.parts = parts or PromptParts()
        self.choice = choice
        self.min_predicted_iou = min_predicted_iou
        self.logits: Tensor | None = None

    @classmethod
    def by_clicks(cls, network: Sam2Network, chunk: int = 16) -> "PromptPropagator":
        """Show the decoder one click per object and take the mask that overlaps the old one most (ours).

        The only prompt that sam2-nano was trained with.
        """
        return cls(network, chunk, PromptParts(mask=False, box=False), choice="overlap")

    @torch.inference_mode()
    def start(self, features: FrameFeatures, masks: Tensor) -> Tracks:
        """Begin with objects of the first frame, bool (N, H, W), N >= 0."""
        _, self.logits = self.network.prompt_masks(masks.to(self.network.device))
        return given_tracks(self.logits)

    @torch.inference_mode()
    def add(self, features: FrameFeatures, masks: Tensor) -> None:
        """Append objects, bool (K, H, W), first seen in the frame of the last `start` or `step`."""
        assert self.logits is not None, "start() comes first"
        _, logits = self.network.prompt_masks(masks.to(self.network.device))
        self.logits = torch.cat([self.logits, logits])

    @torch.inference_mode()
    def step(self, features: FrameFeatures) -> Tracks:
        """Follow every object into the next frame."""
        assert self.logits is not None, "start() comes first"
        tracks = self.follow(features, self.logits)
        self.logits = tracks.logits
        return tracks

    @torch.inference_mode()
    def follow(self, features: FrameFeatures, logits: Tensor) -> Tracks:
        """Find in one frame the objects whose masks in the frame before were `logits` (N, s, s); keeps no state."""
        nothing = Tracks(logits.new_zeros(0, *logits.shape[1:]), logits.new_zeros(0), logits.new_zeros(0).float())
        tracks = [nothing]
        for part in logits.split(self.chunk) if len(logits) else ():
            decoded = prompt_decoder(self.network, features, part, self.parts)
            mask, iou = _single(decoded) if self.choice == "single" else _most_overlapping(decoded, part)
            is_prompted = (part > 0).flatten(1).any(1)
            score = torch.where(is_prompted & (iou >= self.min_predicted_iou), decoded.object_score, NO_OBJECT_LOGIT)
            is_present = score > 0
            found = torch.where(is_present[:, None, None], mask, NO_OBJECT_LOGIT).to(logits.dtype)
            tracks.append(Tracks(found, score.to(logits.dtype), torch.where(is_present, iou.float(), 0.0)))
        return joined(tracks)


def prompt_decoder(network: Sam2Network, features: FrameFeatures, logits: Tensor, parts: PromptParts) -> Decoded:
    """Decode one frame, prompted by the parts of mask logits (P, s, s); empty masks give an arbitrary answer."""
    masks = logits > 0
    size = (logits.shape[1], logits.shape[2])
    points, labels = [], []
    if parts.box:
        first, last = mask_boxes(masks).split(2, dim=1)  # corner cells, both inside
        points += [network.to_model_pixels(first, size), network.to_model_pixels(last + 1, size) - 1]
        labels += [2, 3]
    if parts.point:
        points.append(network.to_model_pixels(innermost_points(masks) + 0.5, size) - 0.5)
        labels.append(1)
    sparse = network.embed_points(torch.stack(points, dim=1), labels) if labels else network.no_points(len(masks))
    clamped = logits.clamp(-LARGEST_PROMPT_LOGIT, LARGEST_PROMPT_LOGIT)
    dense = network.embed_logits(clamped) if parts.mask else network.no_mask()
    return network.decode(network.without_memory(features.low), features, sparse, dense)


def presence_score(logits: Tensor) -> Tensor:
    """+10 where a mask (N, s, s) has a pixel, -10 where it is empty, (N,); Meta's object score of a given mask."""
    return (logits > 0).flatten(1).any(1).float() * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS


def given_tracks(logits: Tensor) -> Tracks:
    """Masks (N, s, s) that were given and not found by the decoder."""
    score = presence_score(logits)
    return Tracks(logits, score, (score > 0).float())


def innermost_points(masks: Tensor) -> Tensor:
    """The pixel of each mask that is farthest from its border, bool (N, h, w) -> float (N, 2) as (x, y).

    Of several the first in reading order; (0, 0) for empty masks. The picture's edge counts as border, as in SAM's
    evaluation clicks, so that a mask cut off by it is not clicked on the edge.
    """
    count, _, width = masks.shape
    deepest = inner_distance(masks).flatten(1).argmax(1) if count else masks.new_zeros(0, dtype=torch.long)
    return torch.stack([deepest % width, deepest // width], dim=1).float()


def inner_distance(masks: Tensor) -> Tensor:
    """City-block distance of every pixel to the nearest one outside, bool (N, h, w) -> float (N, h, w), 0 outside.

    The distance is separable: along each row, then along each column, forward and backward, each a running minimum.
    """
    padded = F.pad(masks, (1, 1, 1, 1))
    height, width = padded.shape[-2:]
    distance = padded.float() * (height + width)  # more than any distance
    for dim in (2, 1):
        place = torch.arange(padded.shape[dim], device=masks.device, dtype=torch.float32)
        place = place if dim == 2 else place[:, None]
        forward = (distance - place).cummin(dim).values + place
        backward = (distance + place).flip(dim).cummin(dim).values.flip(dim) - place
        distance = torch.minimum(forward, backward)
    return distance[:, 1:-1, 1:-1]


def _single(decoded: Decoded) -> tuple[Tensor, Tensor]:
    """SAM 2's single output: logits (P, s, s) and predicted IoU (P,)."""
    inner = (decoded.logits[:, 0] > STABLE_CUT).flatten(1).sum(1)
    outer = (decoded.logits[:, 0] > -STABLE_CUT).flatten(1).sum(1)
    is_stable = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0) >= STABLE_SHARE
    best, _, best_iou = best_of_three(decoded)
    mask = torch.where(is_stable[:, None, None], decoded.logits[:, 0], best)
    return mask, torch.where(is_stable, decoded.iou[:, 0], best_iou)


def _most_overlapping(decoded: Decoded, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """The output that overlaps the prompt's mask (P, s, s) most: logits (P, s, s) and predicted IoU (P,)."""
    masks, target = (decoded.logits > 0).flatten(2), (prompt > 0).flatten(1)[:, None]
    overlap = (masks & target).sum(2) / (masks | target).sum(2).clamp(min=1)
    rows, best = torch.arange(len(overlap), device=overlap.device), overlap.argmax(1)
    return decoded.logits[rows, best], decoded.iou[rows, best]
