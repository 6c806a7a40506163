"""Exact SAM 2 propagation of all objects of a window at once: objects are rows, chunks are slices of rows."""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
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
        entered: Objects seen for the first time in this frame, the last rows of the others; None where there are none.
    """

    logits: Tensor
    object_score: Tensor
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
    """Follows masks through a window as Meta's `SAM2VideoPredictor` does for mask prompts on the first frame.

    Args:
        network: The model.
        chunk: Objects per batch; 1 is fastest on a CPU with the large models, 16-32 on a GPU.
    """

    def __init__(self, network: Sam2Network, chunk: int = 16) -> None:
        self.network = network
        self.chunk = chunk
        self.bank: MemoryBank | None = None

    @torch.inference_mode()
    def start(self, features: FrameFeatures, masks: Tensor) -> Tracks:
        """Condition on masks of the first frame, bool (N, H, W) at any size, N >= 1.

        The pointer comes from mask token 0, unless the decoder finds no object or the mask is empty; the memory is that
        of the mask after its round trip through the logits' size, cut at zero (all as Meta's predictor does).
        """
        network = self.network
        size = (network.image_size, network.image_size)
        logits, scores, pointers, memories = [], [], [], []
        for part in masks.split(self.chunk):
            prompt = F.interpolate(part[:, None].float(), size=size, mode="bilinear", antialias=True)
            prompt = (prompt >= 0.5).float()
            low_logits = F.interpolate(
                prompt * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS,
                size=(network.mask_size, network.mask_size),
                mode="bilinear",
                antialias=True,
            )[:, 0]
            has_mask = prompt.flatten(1).any(1)
            score = has_mask.float() * MASK_PROMPT_SCALE + MASK_PROMPT_BIAS
            decoded = network.decode(
                features.low, features, network.no_points(len(prompt)), network.embed_masks(prompt[:, 0])
            )
            pointers.append(network.object_pointer(decoded.tokens[:, 0], has_mask & (decoded.object_score > 0)))
            memories.append(network.write_memory(features.low, low_logits, score, binarise=True))
            logits.append(low_logits)
            scores.append(score)
        self.bank = MemoryBank(torch.cat(memories), torch.cat(pointers), network.num_memories, network.num_pointers)
        return Tracks(torch.cat(logits), torch.cat(scores))

    @torch.inference_mode()
    def step(self, features: FrameFeatures) -> Tracks:
        """Follow every object into the next frame."""
        assert self.bank is not None, "start() comes first"
        network, bank = self.network, self.bank
        now = bank.time + 1
        logits, scores = [], []
        for first in range(0, bank.num_objects, self.chunk):
            rows = slice(first, first + self.chunk)
            low = network.attend(features.low, *bank.read(rows, now))
            decoded = network.decode(low, features, network.no_points(len(low)), network.no_mask())
            chunk_logits, tokens = best_of_three(decoded)
            is_present = decoded.object_score > 0
            chunk_logits = torch.where(is_present[:, None, None], chunk_logits, NO_OBJECT_LOGIT)
            pointer = network.object_pointer(tokens, is_present)
            memory = network.write_memory(features.low, chunk_logits, decoded.object_score, binarise=False)
            bank.write(rows, now, memory, pointer)
            logits.append(chunk_logits)
            scores.append(decoded.object_score)
        return Tracks(torch.cat(logits), torch.cat(scores))


def best_of_three(decoded: Decoded) -> tuple[Tensor, Tensor]:
    """Return mask logits (P, s, s) and token (P, D) of the multi-mask output with the highest predicted IoU."""
    best = decoded.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(len(best), device=best.device)
    return decoded.logits[rows, best], decoded.tokens[rows, best]
