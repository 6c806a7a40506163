"""Base labels and truth of one clip: made or read once, stored, and handed out frame by frame to all points.

The base model is run once for every clip, whatever windows the points have; smoothed labels are made from its labels in
the same pass.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from ..datasets.truth import TruthReader
from ..errors import LabelError, MediaError, MissingPredictionsError, Sam2VssError
from ..files import atomic_write_bytes, safe_name
from ..filling import fill_from_previous
from ..images import read_label_map, write_label_map
from ..interfaces import BaseLabelSource
from ..media import ClipSource, windows_of
from ..settings import Smoothing, VoidPolicy
from ..smoothing import find_smoother
from ..types import BaseLabels, Frame, LabelSpace

AT_ONCE: Final = 16  # ours: frames that the base model sees in one call
PROBABILITIES: Final = "probabilities"


@dataclass(frozen=True)
class LabelKind:
    """What was done with base labels before masklets vote on them.

    Attributes:
        smooth: Smoothing over time, after filling.
        filling: "nearest" or "previous" where void was filled, else "keep".
    """

    smooth: Smoothing = "none"
    filling: VoidPolicy = "keep"

    @property
    def folder(self) -> str:
        return self.smooth if self.filling == "keep" else f"{self.filling}-{self.smooth}"


PLAIN: Final = LabelKind()


class ClipLabels:
    """Base labels of one clip in files, smoothed or not, with probabilities where a point needs them.

    Args:
        folder: Where they lie: `<kind>/<clip>/<frame number>.png`.
        clip: Name of the clip.
        label_space: Their classes.
    """

    def __init__(self, folder: Path, clip: str, label_space: LabelSpace) -> None:
        self.folder = folder
        self.clip = safe_name(clip)
        self.label_space = label_space

    def prepare(
        self, clip: ClipSource, base: BaseLabelSource, kinds: Collection[LabelKind], want_probabilities: bool
    ) -> int:
        """Label the whole clip, unless that was done before; return its number of frames.

        Raises:
            Sam2VssError: If the clip cannot be read or labelled.
        """
        count = self._done(PLAIN.folder)
        if count is None or (want_probabilities and self._done(PROBABILITIES) is None):
            count = self._label(clip, base, want_probabilities)
        unsmoothed = {LabelKind("none", kind.filling) for kind in kinds}  # smoothed ones are made of these
        for kind in sorted({*kinds, *unsmoothed} - {PLAIN}, key=lambda kind: (kind.smooth != "none", kind.folder)):
            if self._done(kind.folder) is None:
                if kind.smooth == "none":
                    self._fill(kind, clip)
                else:
                    self._smooth(kind, clip)
                self._finish(kind.folder, count)
        return count

    def read(self, kind: LabelKind, start: int, length: int, with_probabilities: bool = False) -> BaseLabels:
        """Return the labels of consecutive frames."""
        numbers = range(start, start + length)
        try:
            labels = np.stack([read_label_map(self._path(kind.folder, t), self.label_space) for t in numbers])
            if not with_probabilities:
                return BaseLabels(labels)
            scores = [np.load(self._path(PROBABILITIES, t), allow_pickle=False) for t in numbers]
            return BaseLabels(labels, np.stack(scores))
        except (Sam2VssError, OSError, ValueError, EOFError) as error:
            raise MediaError(
                f"{error}. Remove the folders {self.folder}/*/{self.clip} and go on with --resume: they are made anew"
            ) from error

    def _label(self, clip: ClipSource, base: BaseLabelSource, want_probabilities: bool) -> int:
        count = 0
        for frames in windows_of(clip.frames(), AT_ONCE):
            labels = base.labels_for(clip.name, frames)
            self._write(PLAIN, frames, labels.labels)
            if want_probabilities:
                assert labels.probabilities is not None, "the source was asked for probabilities"
                for frame, scores in zip(frames, labels.probabilities, strict=True):
                    self._write_probabilities(frame.index, scores)
            count += len(frames)
        base.finish(clip.name, count)
        self._finish(PLAIN.folder, count)
        if want_probabilities:
            self._finish(PROBABILITIES, count)
        return count

    def _fill(self, kind: LabelKind, clip: ClipSource) -> None:
        before: np.ndarray | None = None
        for frames in windows_of(clip.frames(), AT_ONCE):
            filled = self.read(PLAIN, frames[0].index, len(frames)).labels
            for t, labels in enumerate(filled):
                earlier = before if kind.filling == "previous" else None
                filled[t] = before = fill_from_previous(labels, earlier, self.label_space.ignore_index)
            self._write(kind, frames, filled)

    def _smooth(self, kind: LabelKind, clip: ClipSource) -> None:
        assert kind.smooth != "none", "nothing to do"
        smoother = find_smoother(kind.smooth, self.label_space.ignore_index)
        unsmoothed = LabelKind("none", kind.filling)
        stored = (
            (frames, self.read(unsmoothed, frames[0].index, len(frames)))
            for frames in windows_of(clip.frames(), AT_ONCE)
        )
        for frames, _, smoothed in smoother.smooth(stored):
            self._write(kind, frames, smoothed.labels)

    def _write(self, kind: LabelKind, frames: Sequence[Frame], labels: np.ndarray) -> None:
        for frame, label_map in zip(frames, labels, strict=True):
            write_label_map(self._path(kind.folder, frame.index), label_map, self.label_space)

    def _write_probabilities(self, number: int, scores: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, scores, allow_pickle=False)
        atomic_write_bytes(self._path(PROBABILITIES, number), buffer.getvalue())

    def _path(self, kind: str, number: int) -> Path:
        suffix = ".npy" if kind == PROBABILITIES else ".png"
        return self.folder / kind / self.clip / f"{number:08d}{suffix}"

    def _finish(self, kind: str, count: int) -> None:
        atomic_write_bytes(self.folder / kind / self.clip / "frames.txt", f"{count}\n".encode())

    def _done(self, kind: str) -> int | None:
        """Return the number of frames if all were labelled."""
        with suppress(OSError, ValueError):
            return int((self.folder / kind / self.clip / "frames.txt").read_text(encoding="utf-8"))
        return None


class ClipTruth:
    """True labels of one clip, matched with its frames by file stem; frames without truth are not scored.

    Args:
        clip: Name of the clip.
        files: Label maps by stem.
        label_space: What their numbers mean.
        is_panoptic: Whether they hold VIPSeg's panoptic codes.
    """

    def __init__(
        self, clip: str, files: Mapping[str, Path], label_space: LabelSpace, is_panoptic: bool = False
    ) -> None:
        self.clip = clip
        self.files = files
        self.label_space = label_space
        self.is_panoptic = is_panoptic

    def check(self, frame_names: Sequence[str]) -> None:
        """Make sure that there are label maps, and that each has its frame.

        Raises:
            MissingPredictionsError: If one has none.
            LabelError: If there are no label maps.
        """
        if not self.files:
            raise LabelError(f"clip {self.clip} has no label maps, expected one PNG a labelled frame: leave it out")
        names = set(frame_names)
        without = [stem for stem in self.files if stem not in names]
        if without:
            raise MissingPredictionsError(
                f"{len(without)} of {len(self.files)} label maps of clip {self.clip} have no frame (first: "
                f"{without[0]}): pictures and masks need the same file names"
            )

    def of(self, frame: Frame) -> np.ndarray | None:
        """Return the true labels of a frame, uint8 or uint16 (H, W), or None where it has none.

        Raises:
            LabelError: If the file cannot be read or holds ids outside the label set.
        """
        path = self.files.get(frame.name)
        if path is None:
            return None
        target = self._reader.read(path)
        if target.shape != frame.image.shape[:2]:
            raise LabelError(f"{path} is {target.shape}, its frame {frame.image.shape[:2]} (height, width)")
        return target

    @cached_property
    def _reader(self) -> TruthReader:
        return TruthReader(self.label_space, self.is_panoptic)
