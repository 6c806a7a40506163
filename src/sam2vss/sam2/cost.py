"""What tracking will cost before it starts: operations counted on the meta device, speed probed on the real one."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from .candidates import POINTS_PER_BATCH
from .limits import tracking_memory
from .model import Sam2Network
from .weights import outline_network

USED_SHARE_OF_PEAK = 0.5  # ours: what the network reaches of a large matrix product's speed, measured on a CPU


@dataclass(frozen=True)
class TrackingCost:
    """Floating-point operations of the parts of one model at its image size.

    Attributes:
        encode: One frame.
        candidates: The point grid on one frame, in batches that share what they can.
        follow: One masklet in one frame, all memories filled.
        state_bytes: Memory kept per masklet.
        look: What all masklets of a frame share of memory attention.
        prompt: One pass of the mask decoder for one masklet.
    """

    encode: float
    candidates: float
    follow: float
    state_bytes: int
    look: float = 0.0
    prompt: float = 0.0

    def window_flops(self, length: int, masklets: int) -> float:
        """Operations of one window in exact mode."""
        following = self.look + masklets * self.follow if masklets else 0.0
        return self.candidates + length * self.encode + (length - 1) * following

    def fast_window_flops(self, length: int, every: int, masklets: int = 0) -> float:
        """Operations of one window with automatic masks in every so many frames, from the first on.

        After the first frame every masklet costs one decoder pass besides, as prompt or to be found again.
        """
        grids = -(-length // every)
        return grids * self.candidates + length * self.encode + (length - 1) * masklets * self.prompt


def tracking_cost(path: Path, points: int, image_size: int | tuple[int, int] | None = None) -> TrackingCost:
    """Count the operations of a model; its weights are not read.

    Args:
        path: A model's folder or file, see `load_network`.
        points: Grid of points x points prompts.
        image_size: Side of a square or (height, width); default: the model's own.
    """
    network = outline_network(path)
    if image_size is not None:
        network.set_image_size(image_size)
    return network_cost(network, points)


def network_cost(network: Sam2Network, points: int) -> TrackingCost:
    """Count the operations of a network on the meta device at its image size, with a grid of points x points."""
    device, num_tokens = network.device, network.memory_length(network.grid_size)
    assert device.type == "meta", "operations are counted without running them"
    pixels = torch.zeros(1, 3, *network.input_size, device=device)
    with torch.no_grad():
        features = network.encode(pixels)
        seen = network.look_around(features.low)
        ages = list(range(network.num_memories))
        positions = network.memory_positions(features.grid, ages, list(range(network.num_pointers)))
    spatial = torch.zeros(1, network.num_memories, num_tokens, network.memory_size, device=device)
    pointers = torch.zeros(1, network.num_pointers, network.hidden_size, device=device)
    logits, score = torch.zeros(1, *network.logit_size, device=device), torch.zeros(1, device=device)

    def decode(prompts: int) -> float:
        tokens = torch.zeros(prompts, 2, network.hidden_size, device=device)
        return _count(lambda: network.decode(features.low, features, tokens, network.no_mask()))

    each = decode(2) - decode(1)
    shared = decode(1) - each
    batches = math.ceil(points**2 / POINTS_PER_BATCH)
    attend = _count(lambda: network.attend_to(seen, spatial, pointers, positions))
    write = _count(lambda: network.write_memory(features.low, logits, score, binarise=False))
    return TrackingCost(
        encode=_count(lambda: network.encode(pixels)),
        candidates=batches * shared + points**2 * each,
        follow=attend + decode(1) + write,
        state_bytes=tracking_memory(network).state,
        look=_count(lambda: network.look_around(features.low)),
        prompt=decode(1),
    )


def _count(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return float(counter.get_total_flops())


def probe_speed(device: str) -> float:
    """Return the operations per second that this model can be expected to reach on a device (a short probe)."""
    size = 1024 if device == "cpu" else 8192
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    left = torch.randn(size, size, device=device, dtype=dtype)
    left @ left  # warm up
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        product = left @ left
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return USED_SHARE_OF_PEAK * 2 * size**3 / best
