"""Encode a frame once for both tracker and classifier: what the tracker's encoder answered is kept on the host."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..images import frame_digest
from ..sam2.ahead import encode_ahead
from ..sam2.model import FrameFeatures, Sam2Network
from .maps import to_arrays
from .sam2_encoder import Sam2Encoder

SHARED_BYTES = 1 << 29  # ours: 128 frames of SAM 2 at 1024 pixels in float32, four windows of the paper


@dataclass(frozen=True)
class Kept:
    """Features of one frame on their way to the host.

    Attributes:
        low: (1, D, h, w), on the CPU.
        arrival: After this event the copy is whole; None: it is already.
    """

    low: Tensor
    arrival: torch.cuda.Event | None

    @property
    def num_bytes(self) -> int:
        return self.low.numel() * self.low.element_size()


class SharedEncoder:
    """A `FeatureEncoder` that takes from a tracker what the tracker has encoded already.

    `encode_ahead` is passed to the tracker as its `encode`; of the frames that go through it the level "low" is kept.
    `encode` gives the same array, and runs the network for frames that were never seen or are forgotten. On a CPU the
    values are those of encoding anew, bit for bit.

    Args:
        encoder: Made of the very network of the tracker, with "low" as its only level.
        max_bytes: Beyond this the frames encoded first are forgotten.
    """

    def __init__(self, encoder: Sam2Encoder, max_bytes: int = SHARED_BYTES) -> None:
        assert encoder.level_names == ("low",), encoder.level_names
        self.encoder = encoder
        self.max_bytes = max_bytes
        self._kept: dict[str, Kept] = {}  # oldest first

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def fingerprint(self) -> str:
        return self.encoder.fingerprint

    @property
    def level_names(self) -> tuple[str, ...]:
        return self.encoder.level_names

    @property
    def channels(self) -> tuple[int, ...]:
        return self.encoder.channels

    def encode_ahead(self, network: Sam2Network, frames: np.ndarray) -> Generator[FrameFeatures, None, None]:
        """Yield the features of frames, uint8 RGB (L, H, W, 3), as `sam2.ahead.encode_ahead` does, and keep them."""
        assert network is self.encoder.network, "the tracker has another network than the encoder"
        for frame, features in zip(frames, encode_ahead(network, frames), strict=True):
            self._keep(frame_digest(frame), features.low)
            yield features

    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the one map, float32 (D, h, w), of a frame uint8 RGB (H, W, 3); errors as of `Sam2Encoder.encode`."""
        kept = self._kept.get(frame_digest(frame))
        if kept is None:
            return self.encoder.encode(frame)
        if kept.arrival is not None:
            kept.arrival.synchronize()
        return to_arrays([kept.low.clone()], self.name)

    def _keep(self, digest: str, low: Tensor) -> None:
        """Begin to copy features to the host, without waiting for it, and forget the oldest ones if room is short."""
        self._kept.pop(digest, None)
        if low.device.type == "cuda":  # to pinned memory, on the stream on which the features are ready
            host = low.to("cpu", non_blocking=True)
            kept = Kept(host, torch.cuda.current_stream(low.device).record_event())
        else:
            kept = Kept(low.to("cpu"), None)
        self._kept[digest] = kept
        while sum(entry.num_bytes for entry in self._kept.values()) > self.max_bytes:
            del self._kept[next(iter(self._kept))]
