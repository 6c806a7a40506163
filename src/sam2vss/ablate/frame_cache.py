"""Remembers what the network said of single frames: their features, and the candidates of their point grids.

Stands in the place of `encode_ahead` and `find_candidates`, so trackers of all settings use it without knowing. Frames
are told by their pixels. Candidates are kept in memory as long as their frame is at hand, and in files for as long as
there is room, so that another sweep finds them again.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from ..errors import MediaError
from ..images import frame_digest
from ..sam2.ahead import encode_ahead
from ..sam2.candidate_files import read_candidates, write_candidates
from ..sam2.candidates import Candidates, find_candidates
from ..sam2.model import FrameFeatures, Sam2Network
from .work import Work

FEATURE_BYTES: Final = 1 << 30  # ours: features of 64 frames of SAM 2 at 1024 pixels in float32
CANDIDATE_BYTES: Final = 3 << 28  # ours: candidates of 32 frames of sam2-nano with 16 x 16 points


@dataclass(frozen=True)
class KnownFeatures(FrameFeatures):
    """Features of a frame that is known by its digest."""

    digest: str = ""


class FrameCache:
    """Encoder features and candidates of the frames at hand.

    Args:
        floor: Candidates with a predicted IoU up to this are dropped; no threshold below it may be asked.
        folder: Where candidates are stored for another sweep; None: nowhere.
        file_bytes: At most so many bytes of files are written.

    Attributes:
        done: Work of the network.
        asked: Work that was asked for, remembered or not.
        room: Bytes that may still be written.
    """

    def __init__(self, floor: float, folder: Path | None = None, file_bytes: int = 0) -> None:
        self.floor = floor
        self.folder = folder
        self.done = self.asked = Work()
        self.room = file_bytes
        self._features: dict[str, KnownFeatures] = {}
        self._candidates: dict[tuple[str, int], Candidates] = {}
        self._last: tuple[tuple[str, int], Candidates] | None = None
        self._stored: frozenset[tuple[str, int]] = frozenset()

    def begin(self, at_hand: Collection[str], stored: Collection[tuple[str, int]] = ()) -> None:
        """Forget all frames but those at hand, and say which candidates, by frame and grid, are worth a file."""
        at_hand = set(at_hand)
        self._features = {digest: found for digest, found in self._features.items() if digest in at_hand}
        self._candidates = {key: found for key, found in self._candidates.items() if key[0] in at_hand}
        self._last = None
        self._stored = frozenset(stored)

    def encode(self, network: Sam2Network, frames: np.ndarray) -> Iterator[FrameFeatures]:
        """Yield the features of frames as `encode_ahead` does, each frame being encoded once while it is at hand."""
        digests = [frame_digest(frame) for frame in frames]
        known = [self._features.get(digest) for digest in digests]
        fresh = encode_ahead(network, _missing(frames, known))
        for digest, features in zip(digests, known, strict=True):
            self.asked += Work(encoded=1)
            if features is None:
                found = next(fresh)
                self.done += Work(encoded=1)
                features = KnownFeatures(found.high, found.mid, found.low, digest)
                if sum(map(_feature_bytes, self._features.values())) + _feature_bytes(features) <= FEATURE_BYTES:
                    self._features[digest] = features
            yield features

    def propose(
        self,
        network: Sam2Network,
        features: FrameFeatures,
        size: tuple[int, int],
        points_per_side: int,
        *,
        is_wanted: Tensor | None = None,
    ) -> Candidates:
        """Return candidates as `find_candidates` does, less those below the floor; grids with holes are not kept."""
        if is_wanted is not None or not isinstance(features, KnownFeatures):
            found = find_candidates(network, features, size, points_per_side, is_wanted=is_wanted)
            self._count(len(found) // 3)
            return found
        key = (features.digest, points_per_side)
        self.asked += Work(prompted=points_per_side**2)
        known = self._recall(key, size, str(network.device))
        if known is None:
            self.done += Work(prompted=points_per_side**2)
            known = find_candidates(network, features, size, points_per_side).pruned(self.floor)
            self._store(key, known)
        self._remember(key, known)
        return known

    def _count(self, points: int) -> None:
        self.asked += Work(prompted=points)
        self.done += Work(prompted=points)

    def _recall(self, key: tuple[str, int], size: tuple[int, int], device: str) -> Candidates | None:
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        if key in self._candidates:
            return self._candidates[key]
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        with suppress(MediaError):  # a damaged file is as good as none: the candidates are found again
            found = read_candidates(path, device)
            if found.floor <= self.floor and found.size == size:
                return found
        return None

    def _remember(self, key: tuple[str, int], candidates: Candidates) -> None:
        self._last = key, candidates
        taken = sum(_candidate_bytes(found) for found in self._candidates.values())
        if key not in self._candidates and taken + _candidate_bytes(candidates) <= CANDIDATE_BYTES:
            self._candidates[key] = candidates

    def _store(self, key: tuple[str, int], candidates: Candidates) -> None:
        path = self._path(key)
        if path is None or key not in self._stored or _candidate_bytes(candidates) > self.room:
            return
        write_candidates(path, candidates)
        self.room -= _candidate_bytes(candidates)

    def _path(self, key: tuple[str, int]) -> Path | None:
        digest, points = key
        return None if self.folder is None else self.folder / digest[:2] / f"{digest}-{points}.safetensors"


def _missing(frames: np.ndarray, known: Sequence[FrameFeatures | None]) -> list[np.ndarray]:
    return [frame for frame, features in zip(frames, known, strict=True) if features is None]


def _feature_bytes(features: FrameFeatures) -> int:
    return sum(part.numel() * part.element_size() for part in (features.high, features.mid, features.low))


def _candidate_bytes(candidates: Candidates) -> int:
    return candidates.logits.numel() * candidates.logits.element_size()
