"""Whether the objects of a window fit into memory, told before tracking starts instead of by a crash in its midst."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import SettingsError
from .memory import MemoryBank
from .model import Sam2Network
from .sizes import size_multiple

MARGIN = 1.25  # ours: what allocators lose to rounding and holes
SMALLEST_SIDE = 256  # ours: no smaller image is suggested


class MemoryLimitError(SettingsError):
    """More objects than the memory of the device allows."""


@dataclass(frozen=True)
class TrackingMemory:
    """Bytes that following objects takes on one grid, for the formulas behind `check_memory`.

    Attributes:
        state: What one object is remembered by, constant in time (3.5 MiB at 1024 pixels in SAM 2).
        masks: Its mask logits in one frame, twice: chunk by chunk and joined.
        work: Passing memories of one object while its chunk runs; fused attention kernels are taken for granted.
    """

    state: int
    masks: int
    work: int

    def needed(self, num_objects: int, chunk: int) -> int:
        """Bytes for N objects of which `chunk` are followed at a time."""
        return int(num_objects * (self.state + self.masks) + MARGIN * min(num_objects, chunk) * self.work)

    def fitting(self, chunk: int, free: int) -> int:
        """The largest number of objects that fits into `free` bytes."""
        by_chunk = int(free / (self.state + self.masks + MARGIN * self.work))
        if by_chunk < chunk:
            return by_chunk
        return int((free - MARGIN * chunk * self.work) / (self.state + self.masks))


def tracking_memory(network: Sam2Network, grid: tuple[int, int] | None = None) -> TrackingMemory:
    """Estimate the memory of one object on a grid of (h, w) cells, by default the network's own.

    The work is dominated by turning the keys of all memories by their place in float32: keys, their float copy and the
    product, beside memories with and without positions, and six maps of the frame itself; with EdgeTAM's few keys, by
    the hidden layer of the feed-forward network before and after its activation. Within 8 % of what was counted tensor
    by tensor for SAM 2.1 tiny at 512 and 1024 pixels in float32 and bfloat16, 8 objects at a time; up to 13 % more than
    that for EdgeTAM.
    """
    grid = network.grid_size if grid is None else grid
    num_cells, num_tokens, element = grid[0] * grid[1], network.memory_length(grid), network.dtype.itemsize
    hidden, memory = network.hidden_size, network.memory_size
    keys = network.num_memories * num_tokens
    scale = network.logit_size[0] // network.grid_size[0]
    return TrackingMemory(
        state=MemoryBank.bytes_per_object(
            num_tokens, memory, network.num_memories, hidden, network.num_pointers, pointer_bytes=element
        ),
        masks=2 * num_cells * scale**2 * element,
        work=max(
            keys * (hidden * (element + 8) + 2 * memory * element), 2 * num_cells * network.feed_forward_size * element
        )
        + 6 * num_cells * hidden * element,
    )


def check_memory(network: Sam2Network, num_objects: int, chunk: int, free: int | None) -> None:
    """Raise unless N objects, followed `chunk` at a time, fit into `free` bytes; None (unknown) passes.

    Raises:
        MemoryLimitError: With what is needed, what is free, how many objects fit, and the options that help.
    """
    memory = tracking_memory(network)
    needed = memory.needed(num_objects, chunk)
    if free is None or needed <= free:
        return
    fitting = max(0, memory.fitting(chunk, free))
    height, width = network.input_size
    advice = [f"--max-masklets {fitting}"] if fitting else []
    smaller = _fitting_side(network, num_objects, chunk, free)
    advice += [f"--image-size {smaller}"] if smaller else []
    raise MemoryLimitError(
        f"following {num_objects} objects at {width}x{height} pixels takes about {_gib(needed)}, "
        f"{_gib(num_objects * memory.state)} of it to remember them; {_gib(free)} are free on {network.device}, enough "
        f"for {fitting}. "
        + (f"Pass {' or '.join(advice)}, or stricter thresholds." if advice else "Take a device with more memory.")
    )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device can still give, in bytes; None where it does not say.

    Memory that torch holds but does not use counts as free.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _free_ram() if device.type == "cpu" else None


def _free_ram(root: Path = Path("/")) -> int | None:
    """Available main memory: Linux's own estimate, and what a container's limit leaves of it; else free pages."""
    found = [_available(root / "proc/meminfo"), _left_by_limit(root / "sys/fs/cgroup")]
    known = [value for value in found if value is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return None


def _available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _left_by_limit(group: Path) -> int | None:
    """What a cgroup (version 2) may still take; files that it only caches can be dropped."""
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return None
    cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return limit - used + cached


def _fitting_side(network: Sam2Network, num_objects: int, chunk: int, free: int) -> int | None:
    """The largest side of a square below the present size at which all objects fit; None where there is none."""
    step = size_multiple(network.model)
    if step is None:
        return None
    for side in range((max(network.input_size) - 1) // step * step, SMALLEST_SIDE - 1, -step):
        grid = (side // network.stride, side // network.stride)
        is_smaller = side**2 < network.input_size[0] * network.input_size[1]
        if is_smaller and tracking_memory(network, grid).needed(num_objects, chunk) <= free:
            return side
    return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
