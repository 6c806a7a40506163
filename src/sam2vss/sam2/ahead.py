"""Encode the frames of a window ahead of the tracker.

On a CUDA device the encoder works on a stream of its own, a few frames per batch, while the tracker follows objects
through the frames before; pictures travel from pinned memory without stopping either. On a CPU there is nothing to
overlap: frames are encoded one by one when they are asked for.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .model import FrameFeatures, Sam2Network

T = TypeVar("T")
Encoder = Callable[[Sam2Network, np.ndarray], Iterable[FrameFeatures]]  # of frames uint8 RGB (L, H, W, 3), in order


def encode_ahead(
    network: Sam2Network, frames: Iterable[np.ndarray], batch: int | None = None
) -> Generator[FrameFeatures, None, None]:
    """Yield the features of one frame after the other, as `network.encode` gives them for a single frame.

    On a CUDA device the batch after the one being consumed is under way already, so up to two batches of features are
    alive (8 MiB a frame at 1024 pixels in bfloat16). Features are ready on the stream on which they are taken.

    Args:
        network: The model.
        frames: Pictures uint8 RGB (H, W, 3) of one size: an array (L, H, W, 3) or any iterable.
        batch: Frames per run of the encoder; None chooses 1 on a CPU (more was no faster) and 4 elsewhere.

    Source: ours.
    """
    lane = CudaLane(network.device) if network.device.type == "cuda" else Lane(network.device)
    return encode_on(lane, network, frames, batch or (1 if network.device.type == "cpu" else 4))


class Lane:
    """Where encoding happens. This one is the consumer's own: each batch is encoded when its first frame is asked for.

    Attributes:
        num_ahead: Batches under way beside the one being consumed.
    """

    num_ahead = 0

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def enter(self) -> AbstractContextManager[object]:
        """Everything computed inside runs on this lane, after all that the consumer has asked for so far."""
        return nullcontext()

    def upload(self, frames: Tensor) -> Tensor:
        """Bring host frames to the device."""
        return frames.to(self.device)

    def mark(self) -> torch.cuda.Event | None:
        """Remember this point of the lane's work."""
        return None

    def hand_over(self, features: FrameFeatures, mark: torch.cuda.Event | None) -> None:
        """Let the consumer use features that were finished at `mark`."""


class CudaLane(Lane):
    """A CUDA stream beside the consumer's."""

    num_ahead = 1

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.stream = torch.cuda.Stream(device)

    def enter(self) -> AbstractContextManager[object]:
        # what the network keeps (weights, tables) may have been written on the consumer's stream; the tracker's work
        # on the batch before is asked for only after this, so both still run at the same time
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self.stream)

    def upload(self, frames: Tensor) -> Tensor:
        # the allocator of pinned memory keeps the buffer until the copy is over
        return frames.pin_memory().to(self.device, non_blocking=True)

    def mark(self) -> torch.cuda.Event | None:
        return self.stream.record_event()  # type: ignore[no-any-return]

    def hand_over(self, features: FrameFeatures, mark: torch.cuda.Event | None) -> None:
        consumer = torch.cuda.current_stream(self.device)
        assert mark is not None
        consumer.wait_event(mark)
        for tensor in (features.high, features.mid, features.low):
            tensor.record_stream(consumer)  # else its memory could be written again while the consumer still reads


def encode_on(
    lane: Lane, network: Sam2Network, frames: Iterable[np.ndarray], batch: int
) -> Generator[FrameFeatures, None, None]:
    """Yield features of single frames, encoded `batch` at a time on a lane."""
    under_way: list[tuple[FrameFeatures, torch.cuda.Event | None]] = []
    for group in _groups(frames, batch):
        under_way.append(_encode(lane, network, group))
        if len(under_way) > lane.num_ahead:
            yield from _hand_out(lane, *under_way.pop(0))
    while under_way:
        yield from _hand_out(lane, *under_way.pop(0))


@torch.inference_mode()  # not around the generators: it would last while they wait, in the consumer's code
def _encode(lane: Lane, network: Sam2Network, group: list[np.ndarray]) -> tuple[FrameFeatures, torch.cuda.Event | None]:
    with lane.enter():
        pixels = network.pixels(lane.upload(torch.from_numpy(np.stack(group))))
        return network.encode(pixels), lane.mark()


def _hand_out(lane: Lane, features: FrameFeatures, mark: torch.cuda.Event | None) -> Iterator[FrameFeatures]:
    lane.hand_over(features, mark)
    for row in range(len(features.low)):
        yield features[row : row + 1]


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
