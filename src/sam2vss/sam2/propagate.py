"""Exact SAM 2 propagation of all objects of a window at once: objects are rows, chunks are slices of rows."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .candidates import Selection
from .memory import MemoryBank
from .model import MASK_PROMPT_BIAS, MASK_PROMPT_SCALE, NO_OBJECT_LOGIT, Decoded, FrameFeatures, Sam2Network


@dataclass(frozen=True)
class Tracks:
    """All objects in one frame.

    Attributes:
        logits: Mask logits (N, s, s).
        object_score: Logit that the object is there at all (N,).
        predicted_iou: The decoder's own estimate of each mask's quality, float32 (N,); 0 where the object is absent, 1
            for masks that were given.
        entered: Objects seen for the first time in this frame, the last rows of the others; None where there are none.
    """

    logits: Tensor
    object_score: Tensor
    predicted_iou: Tensor
    entered: Selection | None = None


class Propagator(Protocol):
    """Follows objects from frame to frame; an object is a row and keeps its row."""

    def start(self, features: FrameFeatures, masks: Tensor) -> Tracks:
        """Begin with objects of the first frame, bool (N, H, W), N >= 0."""
        ...

    def add(self, features: FrameFeatures, masks: Tensor) -> None:
        """Append objects, bool (K, H, W), first seen in the frame of the last `start` or `step`."""
        ...

    def step(self, features: FrameFeatures) -> Tracks:
        """Follow every object into the next frame."""
        ...


class MemoryPropagator:
    """Follows masks through a window as Meta's `SAM2VideoPredictor` does for mask prompts.

    Objects first seen in the same frame share a `MemoryBank`; objects do not interact, so each of these groups equals a
    propagator of its own started in that frame.

    Args:
        network: The model.
        chunk: Objects per batch. On a CPU 1 is fastest at 1024 pixels, more at smaller sizes.
    """

    def __init__(self, network: Sam2Network, chunk: int = 16) -> None:
        self.network = network
        self.chunk = chunk
        self.banks: list[MemoryBank] | None = None  # in the order in which their objects came

    @torch.inference_mode()
    def start(self, features: FrameFeatures, masks: Tensor) -> Tracks:
        """Condition on masks of the first frame, bool (N, H, W) at any size, N >= 0, and forget all before.

        The pointer comes from mask token 0, unless the decoder finds no object or the mask is empty; the memory is that
        of the mask after its round trip through the logits' size, cut at zero (all as Meta's predictor does).
        """
        self.banks = []
        return self._condition(self.banks, features, masks)

    @torch.inference_mode()
    def add(self, features: FrameFeatures, masks: Tensor) -> None:
        """Condition further objects, bool (K, H, W), on the frame of the last `start` or `step`: the last rows."""
        assert self.banks is not None, "start() comes first"
        self._condition(self.banks, features, masks)

    @torch.inference_mode()
    def step(self, features: FrameFeatures) -> Tracks:
        """Follow every object into the next frame."""
        assert self.banks is not None, "start() comes first"
        if not self.banks:
            return self._nothing()
        seen = self.network.look_around(features.low)
        tracks = []
        for bank in self.banks:
            now = bank.time + 1
            positions = self.network.memory_positions(features.grid, *bank.ages(now))
            for first in range(0, bank.num_objects, self.chunk):
                rows = slice(first, first + self.chunk)
                tracks.append(self._follow(features, seen, bank, rows, now, positions))
        return joined(tracks)

    def _condition(self, banks: list[MemoryBank], features: FrameFeatures, masks: Tensor) -> Tracks:
        """Append a bank of objects whose masks in this frame are given."""
        if not len(masks):
            return self._nothing()
        network = self.network
        tracks, pointers, memories = [], [], []
        for part in masks.to(network.device).split(self.chunk):
            prompt, logits = network.prompt_masks(part)
            has_mask = prompt.flatten(1).any(1)
            score = has_mask.float() * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS
            decoded = network.decode(features.low, features, network.no_points(len(part)), network.embed_masks(prompt))
            pointers.append(network.object_pointer(decoded.tokens[:, 0], has_mask & (decoded.object_score > 0)))
            memories.append(network.write_memory(features.low, logits, score, binarise=True))
            tracks.append(Tracks(logits, score, has_mask.float()))
        banks.append(MemoryBank(torch.cat(memories), torch.cat(pointers), network.num_memories, network.num_pointers))
        return joined(tracks)

    def _follow(
        self, features: FrameFeatures, seen: Tensor, bank: MemoryBank, rows: slice, now: int, positions: Tensor
    ) -> Tracks:
        """Follow the objects of some rows of a bank into frame `now` and write what they remember of it."""
        network = self.network
        spatial, _, pointers, _ = bank.read(rows, now)
        low = network.attend_to(seen, spatial, pointers, positions)
        decoded = network.decode(low, features, network.no_points(len(low)), network.no_mask())
        logits, tokens, iou = best_of_three(decoded)
        is_present = decoded.object_score > 0
        logits = logits.masked_fill(~is_present[:, None, None], NO_OBJECT_LOGIT)
        pointer = network.object_pointer(tokens, is_present)
        memory = network.write_memory(features.low, logits, decoded.object_score, binarise=False)
        bank.write(rows, now, memory, pointer)
        return Tracks(logits, decoded.object_score, iou.float().masked_fill(~is_present, 0.0))

    def _nothing(self) -> Tracks:
        like = self.network.no_mask()
        return Tracks(like.new_zeros(0, *self.network.logit_size), like.new_zeros(0), like.new_zeros(0).float())


def joined(tracks: list[Tracks]) -> Tracks:
    """Append the rows of all but the first to those of the first; who entered is left out."""
    return Tracks(
        torch.cat([t.logits for t in tracks]),
        torch.cat([t.object_score for t in tracks]),
        torch.cat([t.predicted_iou for t in tracks]),
    )


def best_of_three(decoded: Decoded) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (P, s, s), token (P, D) and predicted IoU (P,) of the multi-mask output that promises the most."""
    best = decoded.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(len(best), device=best.device)
    return decoded.logits[rows, best], decoded.tokens[rows, best], decoded.iou[rows, best]
