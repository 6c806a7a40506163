"""SAM 2 as a source of masklets: automatic masks of a window's seed frame, followed through the window.

The seed frame is the first one, or the middle one where masklets are followed in both directions. Masklets of the
window before can be carried on, and new ones can be looked for in the course of the window; by default neither is done,
as in the paper.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..devices import attention_backends
from ..errors import ShapeError
from ..hub import ModelLocation
from ..settings import ResolvedMode, check_mode
from ..types import MaskletWindow, Window, WindowContext, encode_masks
from .ahead import Encoder, encode_ahead
from .candidates import ENLARGED_PER_BATCH, Candidates, Selection, enlarge, find_candidates
from .finder import MaskFinder
from .limits import check_memory, free_bytes
from .match import FrameMatcher
from .model import FrameFeatures, Sam2Network
from .prompts import PromptPropagator
from .propagate import MemoryPropagator, Propagator, Tracks
from .recorder import MaskletRecorder
from .savings import Savings

NANO_FOLDER = Path(__file__).parent / "nano"

LARGEST_CHUNK = 16  # ours: 1.5 GiB of work at 1024 pixels in bfloat16
CELLS_PER_CHUNK = 2304  # ours, CPU: objects times cells; measured at 256 to 512 pixels, docs/performance.md


class Sam2Tracker:
    """A `MaskletTracker` made of a SAM 2 network.

    Args:
        finder: Finds masks in the seed frame, and later ones where `discover` asks for it.
        mode: "exact" follows them by memory as Meta's predictor does; "fast" finds masks in every frame and matches
            them; "prompt" follows them by the mask decoder alone.
        direction: "forward" from the first frame on, or "both" ways from the middle frame.
        discover: Look for masks on uncovered area every so many frames; 0 means never.
        match_every: Find masks only in every so many frames ("fast" only).
        knows_clicks_only: The network was trained with clicks alone, so "prompt" shows it no boxes and masks.
        savings: Which of the masks found are followed; default: all.
        chunk: Objects propagated at once; None chooses by device.
        on_frame: Called once for every frame of a window, for progress bars.
        encode: Encodes frames.
        location: Where the network's weights lie, for those who want to share it.
    """

    def __init__(
        self,
        finder: MaskFinder,
        mode: ResolvedMode = "exact",
        direction: Literal["forward", "both"] = "forward",
        discover: int = 0,
        match_every: int = 1,
        knows_clicks_only: bool = False,
        savings: Savings | None = None,
        chunk: int | None = None,
        on_frame: Callable[[], None] | None = None,
        encode: Encoder = encode_ahead,
        location: ModelLocation | None = None,
    ) -> None:
        savings = savings or Savings()
        works_on_seeds = finder.crop_layers or finder.min_area or savings.contained or savings.settled
        check_mode(mode, discover, bool(works_on_seeds))
        self.finder = finder
        self.mode = mode
        self.direction = direction
        self.discover = discover
        self.match_every = match_every
        self.knows_clicks_only = knows_clicks_only
        self.savings = savings
        self.chunk = chunk or chunk_for(finder.network)
        self.on_frame = on_frame
        self.encode = encode
        self.location = location

    @property
    def network(self) -> Sam2Network:
        return self.finder.network

    def candidates(self, frame: np.ndarray) -> Candidates:
        """Return the unfiltered mask proposals of one frame, uint8 RGB (H, W, 3)."""
        return find_candidates(self.network, self._encode(frame), frame.shape[:2], self.finder.points)

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        """Find the masklets of a window, frames uint8 RGB (L, H, W, 3), whose first frame is frame `start` of the clip.

        On the frame where a masklet is found its mask is the automatic mask itself; other frames hold what was
        followed. Frames before the middle come from the way back, all others from the way forward, so every masklet has
        one mask a frame. The masklets of `context.previous` go on from their masks in `context.previous_frame`; then
        masks are looked for only where these leave the seed frame uncovered. A masklet that is hidden there ends.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}, expected uint8 (L, H, W, 3)")
        with attention_backends(str(self.network.device)):
            return self._track(frames, start, context or WindowContext())

    def _track(self, frames: np.ndarray, start: int, context: WindowContext) -> MaskletWindow:
        recorder = MaskletRecorder(Window(start, len(frames)), (frames.shape[1], frames.shape[2]))
        seed_time = len(frames) // 2 if self.direction == "both" else 0
        forward, backward = (_Way(self._propagator(), recorder) for _ in range(2))
        first = seed_time
        if context.previous is not None and context.previous_frame is not None:
            self._carry(forward, context.previous, context.previous_frame)
            first = 0
        seeds: tuple[FrameFeatures, torch.Tensor, list[int]] | None = None
        for t, features in enumerate(self.encode(self.network, frames[first:]), start=first):
            forward.step(t, features)
            if t >= seed_time and self._is_due(t - seed_time, forward):
                found = self._find(forward, t, features, frames[t], context)
                self._check_memory(len(found))
                rows = forward.open(t, features, found)
                if t == seed_time > 0:
                    seeds = features, found.masks, rows
            if t >= seed_time:
                self._tick()
        forward.propagator = None  # its memory goes before that of the way back begins
        if seeds is not None:
            self._check_memory(len(seeds[1]))
            backward.begin(*seeds)
        earlier = range(seed_time - 1, -1, -1)
        for t, features in zip(earlier, self.encode(self.network, frames[:seed_time][::-1]), strict=True):
            backward.step(t, features)
            if self._is_due(seed_time - t, backward):
                found = self._find(backward, t, features, frames[t], context)
                self._check_memory(len(found))
                backward.open(t, features, found)
            self._tick()
        return recorder.finish()

    def _check_memory(self, num_new: int) -> None:
        """Raise before so many more objects are followed by memory if they will not fit beside what is there."""
        if self.mode == "exact" and num_new:
            check_memory(self.network, num_new, self.chunk, free_bytes(self.network.device))

    def _is_due(self, distance: int, way: "_Way") -> bool:
        """Tell whether masks are looked for in a frame so far from the seed frame.

        Where carried masklets are matched with automatic masks in every frame, the seed frame was searched already.
        """
        if distance == 0:
            return not (self.mode == "fast" and way.has_begun and self.match_every == 1)
        return self.discover > 0 and distance % self.discover == 0

    def _find(
        self, way: "_Way", t: int, features: FrameFeatures, frame: np.ndarray, context: WindowContext
    ) -> Selection:
        covered = way.recorder.covered(t)
        found = self.finder.find(features, frame, covered if covered.any() else None)
        return found[self.savings.choose(found, context.labels, context.ignore_index, t, way.recorder.num_masklets)]

    def _carry(self, way: "_Way", previous: MaskletWindow, frame: np.ndarray) -> None:
        """Begin with the last masks of the window before; those that are empty there end."""
        last = previous.window.length - 1
        is_alive = previous.areas(last) > 0
        masks = torch.from_numpy(previous.stack(last)[is_alive]).to(self.network.device)
        rows = way.recorder.open(
            previous.predicted_iou[is_alive],
            previous.stability[is_alive],
            previous.points[is_alive],
            previous.ids[is_alive],
        )
        self._check_memory(len(masks))
        way.begin(self._encode(frame), masks, rows)

    def _propagator(self) -> Propagator:
        if self.mode != "fast":
            return choose_propagator(self.network, self.mode, self.chunk, self.knows_clicks_only)
        finder = self.finder
        return FrameMatcher(
            self.network,
            points=finder.points,
            pred_iou=finder.pred_iou,
            stability=finder.stability,
            stability_offset=finder.stability_offset,
            box_nms=finder.box_nms,
            every=self.match_every,
            chunk=self.chunk,
            max_objects=self.savings.max_masklets,
            find=finder.propose,
        )

    def _encode(self, frame: np.ndarray) -> FrameFeatures:
        return next(iter(self.encode(self.network, frame[None])))

    def _tick(self) -> None:
        if self.on_frame is not None:
            self.on_frame()


def choose_propagator(network: Sam2Network, mode: str, chunk: int, knows_clicks_only: bool) -> Propagator:
    """Return what follows objects that do not see one another: modes exact and prompt; see `Sam2Tracker`."""
    if mode == "exact":
        return MemoryPropagator(network, chunk)
    assert mode == "prompt", mode
    return PromptPropagator.by_clicks(network, chunk) if knows_clicks_only else PromptPropagator(network, chunk)


def chunk_for(network: Sam2Network) -> int:
    """Objects propagated at once: many on a GPU, on a CPU as many as its caches like."""
    if network.device.type != "cpu":
        return LARGEST_CHUNK
    height, width = network.grid_size
    return min(max(1, CELLS_PER_CHUNK // (height * width)), LARGEST_CHUNK)


class _Way:
    """Frames passed in one direction: a propagator, and the recorder's row for each of its objects."""

    def __init__(self, propagator: Propagator, recorder: MaskletRecorder) -> None:
        self.propagator: Propagator | None = propagator
        self.recorder = recorder
        self.rows: list[int] = []
        self.has_begun = False

    def begin(self, features: FrameFeatures, masks: torch.Tensor, rows: list[int]) -> None:
        """Follow objects, bool (K, H, W), from this frame on."""
        assert self.propagator is not None
        if self.has_begun:
            self.propagator.add(features, masks)
        else:
            self.propagator.start(features, masks)
        self.rows += rows
        self.has_begun = True

    def open(self, t: int, features: FrameFeatures, found: Selection) -> list[int]:
        """Record new masklets with their masks in frame `t`, and follow them from there; return their rows."""
        rows = _open(self.recorder, found)
        self.recorder.put(t, rows, encode_masks(found.masks.cpu().numpy()), _on_host(found.predicted_iou))
        self.begin(features, found.masks, rows)
        return rows

    def step(self, t: int, features: FrameFeatures) -> None:
        """Follow all objects into frame `t`."""
        if not self.has_begun or self.propagator is None:
            return
        tracks = self.propagator.step(features)
        if tracks.entered is not None:
            self.rows += _open(self.recorder, tracks.entered)
        self.recorder.put(t, self.rows, *compress_tracks(tracks, self.recorder.size))


def _open(recorder: MaskletRecorder, found: Selection) -> list[int]:
    return recorder.open(*(_on_host(part) for part in (found.predicted_iou, found.stability, found.points)))


def _on_host(scores: torch.Tensor) -> np.ndarray:
    found: np.ndarray = scores.float().cpu().numpy()
    return found


def compress_tracks(tracks: Tracks, size: tuple[int, int]) -> tuple[tuple[dict[str, Any], ...], np.ndarray]:
    """Enlarge mask logits to the frame, cut them at zero and compress them, a few objects at a time.

    Returns:
        The masks, and the predicted IoU that the tracks say they have, float32 (N,).
    """
    parts = [encode_masks((enlarge(part, size) > 0).cpu().numpy()) for part in tracks.logits.split(ENLARGED_PER_BATCH)]
    return tuple(rle for part in parts for rle in part), _on_host(tracks.predicted_iou)
