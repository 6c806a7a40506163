"""SAM 2 as a source of masklets: automatic masks on a window's first frame, propagated through the window."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..errors import ShapeError
from ..types import MaskletWindow, Window, WindowContext, encode_masks
from .candidates import ENLARGED_PER_BATCH, Candidates, enlarge, find_candidates
from .model import FrameFeatures, Sam2Network
from .propagate import MemoryPropagator, Tracks

NANO_FOLDER = Path(__file__).parent / "nano"
IDS_PER_FRAME = 4096  # ids of a window start at its first frame times this; 3 * 256 * 256 candidates never all survive


class Sam2Tracker:
    """A `MaskletTracker` made of a SAM 2 network. Windows are independent of one another.

    Args:
        network: The model.
        points: Grid of points x points prompts on the first frame.
        pred_iou: Predicted-IoU threshold.
        stability: Stability-score threshold.
        stability_offset: Offset of the stability score, in logits.
        box_nms: Box IoU above which the worse of two masks is dropped.
        chunk: Objects propagated at once; None chooses 4 on a CPU, 16 elsewhere.
        on_frame: Called after every frame of a window, for progress bars.
    """

    def __init__(
        self,
        network: Sam2Network,
        points: int = 16,
        pred_iou: float = 0.6,
        stability: float = 0.8,
        stability_offset: float = 0.9,
        box_nms: float = 0.7,
        chunk: int | None = None,
        on_frame: Callable[[], None] | None = None,
    ) -> None:
        self.network = network
        self.points = points
        self.pred_iou = pred_iou
        self.stability = stability
        self.stability_offset = stability_offset
        self.box_nms = box_nms
        self.chunk = chunk or (4 if network.device.type == "cpu" else 16)
        self.on_frame = on_frame

    def candidates(self, frame: np.ndarray) -> Candidates:
        """Return the unfiltered mask proposals of one frame, uint8 RGB (H, W, 3)."""
        return find_candidates(self.network, self._encode(frame), frame.shape[:2], self.points)

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Find the masklets of a window, frames uint8 RGB (L, H, W, 3), whose first frame is frame `start` of the clip.

        On the first frame the masks are the automatic masks themselves; later frames hold the propagated ones.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (L, H, W, 3)")
        size = (int(frames.shape[1]), int(frames.shape[2]))
        features = self._encode(frames[0])
        candidates = find_candidates(self.network, features, size, self.points)
        chosen = candidates.select(self.pred_iou, self.stability, self.stability_offset, self.box_nms)
        count = len(chosen.masks)
        rles = [encode_masks(chosen.masks.cpu().numpy())]
        self._tick()
        propagator = MemoryPropagator(self.network, self.chunk)
        if count:
            propagator.start(features, chosen.masks)
        for frame in frames[1:]:
            rles.append(_compress(propagator.step(self._encode(frame)), size) if count else ())
            self._tick()
        return MaskletWindow(
            window=Window(start, len(frames)),
            size=size,
            rles=tuple(rles),
            predicted_iou=chosen.predicted_iou.float().cpu().numpy(),
            stability=chosen.stability.float().cpu().numpy(),
            points=chosen.points.float().cpu().numpy(),
            ids=start * IDS_PER_FRAME + np.arange(count),
        )

    @torch.inference_mode()
    def _encode(self, frame: np.ndarray) -> FrameFeatures:
        pixels = self.network.pixels(torch.from_numpy(np.ascontiguousarray(frame))[None].to(self.network.device))
        return self.network.encode(pixels)

    def _tick(self) -> None:
        if self.on_frame is not None:
            self.on_frame()


def _compress(tracks: Tracks, size: tuple[int, int]) -> tuple[dict[str, object], ...]:
    """Enlarge mask logits to the frame, cut them at zero and compress them, a few objects at a time."""
    parts = [encode_masks((enlarge(part, size) > 0).cpu().numpy()) for part in tracks.logits.split(ENLARGED_PER_BATCH)]
    return tuple(rle for part in parts for rle in part)
