"""What tracking will cost before it starts: operations counted on the meta device, speed probed on the real one."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .model import Sam2Network

USED_SHARE_OF_PEAK = 0.5  # ours: what the network reaches of a large matrix product's speed, measured on a CPU


@dataclass(frozen=True)
class TrackingCost:
    """Floating-point operations of the parts of one model at its image size.

    Attributes:
        encode: One frame.
        candidates: The point grid on one frame.
        follow: One masklet in one frame, all memories filled.
        state_bytes: Memory kept per masklet.
    """

    encode: float
    candidates: float
    follow: float
    state_bytes: int

    def window_flops(self, length: int, masklets: int) -> float:
        """Operations of one window."""
        return self.candidates + length * self.encode + (length - 1) * masklets * self.follow


def tracking_cost(folder: Path, points: int, image_size: int | None = None) -> TrackingCost:
    """Count the operations of the model described by `folder/config.json`; its weights are not read."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    config: Any = Sam2VideoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        network = Sam2Network(Sam2VideoModel(config))
    if image_size is not None:
        network.set_image_size(image_size)
    size, hidden = network.image_size, network.hidden_size
    cells = (size // 16) ** 2

    def count(run: Any) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return float(counter.get_total_flops())

    pixels = torch.zeros(1, 3, size, size, device="meta")
    with torch.no_grad():
        features = network.encode(pixels)
    spatial = torch.zeros(1, network.num_memories, cells, network.memory_size, device="meta")
    pointers = torch.zeros(1, network.num_pointers, hidden, device="meta")
    ages = list(range(network.num_memories))
    logits, score = torch.zeros(1, size // 4, size // 4, device="meta"), torch.zeros(1, device="meta")
    prompt = torch.zeros(1, 2, hidden, device="meta")
    decode = count(lambda: network.decode(features.low, features, prompt, network.no_mask()))
    attend = count(lambda: network.attend(features.low, spatial, ages, pointers, list(range(network.num_pointers))))
    write = count(lambda: network.write_memory(features.low, logits, score, binarise=False))
    return TrackingCost(
        encode=count(lambda: network.encode(pixels)),
        candidates=decode * points**2,
        follow=attend + decode + write,
        state_bytes=network.num_memories * cells * network.memory_size * 2,
    )


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
