"""Masks followed once for all points that want them.

In the modes exact and prompt objects do not see one another, so what becomes of a mask depends on the mask alone: the
union of what all points find on a frame is followed once, each point takes its rows, and a shorter window from the same
frame is the beginning of a longer one. Finished tracks lie in files, which are the checkpoints of a sweep.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ..devices import attention_backends
from ..errors import MediaError
from ..files import safe_name
from ..masklet_files import read_masklets, write_masklets
from ..sam2.limits import check_memory, free_bytes
from ..sam2.recorder import IDS_PER_FRAME, quality_of_masks
from ..sam2.tracker import compress_tracks
from ..types import MaskletWindow, Window
from .engine import Engine
from .frame_cache import FrameCache
from .seeds import mask_key
from .work import Work

TOGETHER: Final = 64  # ours: objects remembered at a time, 224 MiB at 1024 pixels


@dataclass(frozen=True)
class Track:
    """What became of a mask.

    Attributes:
        rles: One mask a frame, the seed frame's first.
        frame_iou: Predicted IoU of each, as in `MaskletWindow`; of the seed frame 0, as that belongs to a point.
    """

    rles: tuple[dict[str, Any], ...]
    frame_iou: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.rles)


@dataclass(frozen=True)
class Wish:
    """A mask to be followed.

    Attributes:
        rle: The mask on the seed frame.
        length: Frames, the seed frame included.
    """

    rle: dict[str, Any]
    length: int


def gather_wishes(chosen: Sequence[tuple[MaskletWindow, int]]) -> dict[str, Wish]:
    """Return the union of first masks, each with the longest window in which it is wanted, by its key."""
    wishes: dict[str, Wish] = {}
    for seeds, length in chosen:
        for rle in seeds.rles[0]:
            key = mask_key(rle)
            if key not in wishes or wishes[key].length < length:
                wishes[key] = Wish(rle, length)
    return wishes


def window_of_tracks(seeds: MaskletWindow, tracks: Mapping[str, Track], length: int) -> MaskletWindow:
    """Put together the masklets that a tracker of one point gives: its own masks in its own order, `length` frames."""
    rows = [tracks[mask_key(rle)] for rle in seeds.rles[0]]
    start = seeds.window.start
    frame_iou = _frame_iou(rows, length)
    frame_iou[0] = quality_of_masks(seeds.rles[0], seeds.predicted_iou)
    return MaskletWindow(
        window=Window(start, length),
        size=seeds.size,
        rles=tuple(tuple(row.rles[t] for row in rows) for t in range(length)),
        predicted_iou=seeds.predicted_iou,
        stability=seeds.stability,
        points=seeds.points,
        ids=np.arange(len(rows)) + start * IDS_PER_FRAME,
        frame_iou=frame_iou,
    )


def _frame_iou(tracks: Sequence[Track], length: int) -> np.ndarray:
    """Return the predicted IoU of the first frames of N tracks, float32 (L, N)."""
    return np.array([track.frame_iou[:length] for track in tracks], np.float32).reshape(-1, length).T.copy()


class SharedTracks:
    """Follows masks in one mode, and remembers what became of them.

    Args:
        engine: The network.
        mode: "exact" or "prompt".
        cache: Gives features.
        folder: Where tracks are stored, a folder a clip.

    Attributes:
        done: Work of the network, that of the encoder left out.
    """

    def __init__(self, engine: Engine, mode: str, cache: FrameCache, folder: Path) -> None:
        self.engine = engine
        self.mode = mode
        self.cache = cache
        self.folder = folder
        self.done = Work()

    def follow(self, clip: str, start: int, frames: np.ndarray, wishes: Mapping[str, Wish]) -> dict[str, Track]:
        """Return the tracks of masks by their keys, at least as long as wished.

        Args:
            clip: Name of the clip.
            start: Number of the seed frame.
            frames: uint8 RGB (L, H, W, 3) from the seed frame on, as many as the longest wish.
            wishes: What to follow.
        """
        tracks = self._read(clip, start)
        new: defaultdict[int, list[Wish]] = defaultdict(list)
        for key, wish in wishes.items():
            if _length(tracks, key) < wish.length:
                new[wish.length].append(wish)
        for length, group in new.items():
            made = self._follow(frames[:length], [wish.rle for wish in group])
            path = self._path(clip, start, length)
            same_file = {key: track for key, track in tracks.items() if len(track) == length}
            _write(path, start, same_file | made, (frames.shape[1], frames.shape[2]))
            tracks |= made
        return tracks

    def _follow(self, frames: np.ndarray, rles: Sequence[dict[str, Any]]) -> dict[str, Track]:
        if len(frames) == 1:
            return {mask_key(rle): Track((rle,), (0.0,)) for rle in rles}
        tracks: dict[str, Track] = {}
        for first in range(0, len(rles), TOGETHER):
            group = rles[first : first + TOGETHER]
            tracks |= {mask_key(track.rles[0]): track for track in self._follow_group(frames, group)}
            self.done += Work(followed=len(group) * (len(frames) - 1))
        return tracks

    def _follow_group(self, frames: np.ndarray, rles: Sequence[dict[str, Any]]) -> list[Track]:
        """Return the tracks of a few masks."""
        network, size = self.engine.network, (frames.shape[1], frames.shape[2])
        propagator = self.engine.propagator(self.mode)
        if self.mode == "exact":
            check_memory(network, len(rles), self.engine.chunk, free_bytes(network.device))
        masks = torch.from_numpy(_decode(rles, size)).to(network.device)
        followed, quality = [tuple(rles)], [np.zeros(len(rles), np.float32)]
        with attention_backends(str(network.device)):
            for t, features in enumerate(self.cache.encode(network, frames)):
                if t == 0:
                    propagator.start(features, masks)
                else:
                    found, predicted_iou = compress_tracks(propagator.step(features), size)
                    followed.append(found)
                    quality.append(quality_of_masks(found, predicted_iou))
        return _tracks(followed, np.stack(quality))

    def _read(self, clip: str, start: int) -> dict[str, Track]:
        """Read what earlier sessions followed from a frame on; a damaged or older file is as good as none."""
        tracks: dict[str, Track] = {}
        for path in sorted(self._path(clip, start, 0).parent.glob(f"{start:08d}-*.json.gz")):
            with suppress(MediaError):
                window = read_masklets(path)
                if window.frame_iou is None:
                    continue
                for track in _tracks(window.rles, window.frame_iou):
                    key = mask_key(track.rles[0])
                    if len(track) > _length(tracks, key):
                        tracks[key] = track
        return tracks

    def _path(self, clip: str, start: int, length: int) -> Path:
        return self.folder / self.mode / safe_name(clip) / f"{start:08d}-{length}.json.gz"


def _tracks(rles: Sequence[tuple[dict[str, Any], ...]], frame_iou: np.ndarray) -> list[Track]:
    """Return N tracks of what L frames hold; `frame_iou` is float32 (L, N)."""
    rows = zip(*rles, strict=True)
    return [Track(row, tuple(quality)) for row, quality in zip(rows, frame_iou.T.tolist(), strict=True)]


def _length(tracks: Mapping[str, Track], key: str) -> int:
    return len(tracks[key]) if key in tracks else 0


def _decode(rles: Sequence[dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask as coco_mask

    decoded = coco_mask.decode(list(rles)).transpose(2, 0, 1)
    assert decoded.shape[1:] == size, "masks have the size of the frames"
    return np.ascontiguousarray(decoded).view(bool)


def _write(path: Path, start: int, tracks: Mapping[str, Track], size: tuple[int, int]) -> None:
    """Store tracks of one length as a masklet file; scores of first masks belong to points, so there are none."""
    rows = list(tracks.values())
    length = len(rows[0])
    window = MaskletWindow(
        window=Window(start, length),
        size=size,
        rles=tuple(zip(*(row.rles for row in rows), strict=True)),
        predicted_iou=np.zeros(len(rows), np.float32),
        stability=np.zeros(len(rows), np.float32),
        points=np.zeros((len(rows), 2), np.float32),
        ids=np.arange(len(rows)),
        frame_iou=_frame_iou(rows, length),
    )
    write_masklets(path, window)
