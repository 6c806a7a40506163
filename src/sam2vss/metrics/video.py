"""Scores of video segmentation from one pass over the frames, in memory that does not grow with the clips' length."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, get_args

import numpy as np

from ..errors import LabelError, SettingsError, ShapeError
from .clip_store import ClipStore
from .consistency import MAX_WINDOW
from .counts import BoundaryReadings, ClipCounter, ClipCounts
from .protocols import find_protocol
from .scores import ClassScore, Scores, score_classes, score_clips

MAX_CLASSES: Final = 4096  # a clip keeps C x (C+1) counts of 8 bytes
STATE_FORMAT: Final = 2  # 2: all boundary readings


class VideoSegMetrics:
    """Counts predictions against truth, frame by frame, and scores them under any protocol afterwards.

    Example:
        >>> metrics = VideoSegMetrics(num_classes=2, windows=(2,))
        >>> truth = np.array([[[0, 1]], [[0, 1]]], np.uint8)          # T=2, H=1, W=2
        >>> metrics.update(np.zeros_like(truth), truth, clip="a")     # predicts class 0 everywhere
        >>> metrics.compute("paper").miou                             # IoU 1/2 for class 0, 0 for class 1
        0.25
        >>> metrics.compute("paper").vc[2], metrics.compute("strict").vc[2]
        (1.0, 0.5)

    Args:
        num_classes: C.
        ignore_index: Value of the truth that takes part in no score.
        windows: The n of mVC_n, each in 2..255.
        other_void_ids: Further values of the truth that are void. The `vspw` protocol takes them for labels of their
            own when it looks for pixels with constant truth, as its scripts do with VSPW's raw 0 and 255.
        boundary: Which boundary scores to count: "band" for mBIoU in its readings and Boundary IoU at 2 px, "full"
            for Boundary IoU at 2 % of the diagonal and boundary F as well; what is not counted is undefined.

    Raises:
        SettingsError: If these do not fit together.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        windows: Sequence[int] = (8, 16),
        other_void_ids: Sequence[int] = (),
        boundary: BoundaryReadings = "band",
    ) -> None:
        if boundary not in get_args(BoundaryReadings):
            raise SettingsError(f"unknown boundary readings {boundary!r}; choose one of band, full")
        if not 1 <= num_classes <= MAX_CLASSES:
            raise SettingsError(f"num_classes must be 1..{MAX_CLASSES}, found {num_classes}")
        self._void_ids = (int(ignore_index), *(int(i) for i in other_void_ids))
        if any(0 <= void_id < num_classes for void_id in self._void_ids):
            raise SettingsError(f"void ids {list(self._void_ids)} must lie outside the classes 0..{num_classes - 1}")
        self._windows = tuple(sorted({int(n) for n in windows}))
        if not self._windows or self._windows[0] < 2 or self._windows[-1] > MAX_WINDOW:
            raise SettingsError(f"windows must be frame counts in 2..{MAX_WINDOW}, found {list(windows)}")
        self._num_classes = num_classes
        self._boundary: BoundaryReadings = boundary
        self._clips: ClipStore[ClipCounter, ClipCounts] = ClipStore(ClipCounter.counts)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def windows(self) -> tuple[int, ...]:
        return self._windows

    @property
    def boundary(self) -> BoundaryReadings:
        return self._boundary

    @property
    def counts(self) -> dict[str, ClipCounts]:
        """Counts of every clip so far, the open one included, in order of arrival."""
        return self._clips.counts

    def update(self, pred: np.ndarray, target: np.ndarray, clip: str = "") -> None:
        """Count the next frame or frames of a clip. A new clip name closes the clip before.

        Args:
            pred: Integer labels (H, W) or (T, H, W). Anything outside 0..C-1 is unlabelled and counts as an error.
            target: Truth of the same shape: 0..C-1 or void.
            clip: Name of the clip.

        Raises:
            ShapeError: If the shapes differ from each other or from the clip's frames before.
            LabelError: If an array is not integer, or the truth holds values that are neither classes nor void.
            SettingsError: If the clip was closed before: frames of a clip must come one after the other.
        """
        pred, target = np.asarray(pred), np.asarray(target)
        if pred.shape != target.shape or target.ndim not in (2, 3):
            raise ShapeError(f"pred {pred.shape} and target {target.shape} must both be (H, W) or (T, H, W)")
        for name, labels in (("pred", pred), ("target", target)):
            if labels.dtype.kind not in "bui":
                raise LabelError(f"{name} has dtype {labels.dtype}, expected integer class ids (argmax the logits?)")
        counter = self._clips.counter_of(clip, partial(self._new_counter, clip))
        frames = (target.shape[0] if target.ndim == 3 else 1, *target.shape[-2:])
        for pred_frame, target_frame in zip(pred.reshape(frames), target.reshape(frames), strict=True):
            counter.update(pred_frame, target_frame)

    def compute(self, protocol: str = "vspw") -> Scores:
        """Score all clips so far, the open one included.

        Args:
            protocol: "vspw" (VSPW_baseline's scripts), "cffm" (VSS-CFFM's script: clips of up to 16 frames left out
                of everything, void merged), "paper" (Eq. 4: all T-n+1 windows) or "strict" (as "paper", but the
                prediction must equal the truth, and void is left out). The first three let VC ask only whether a
                prediction agrees with itself where the truth, void included, stays the same. "dvis-compat" is "vspw"
                with a mistake of DVIS_Plus' script, which `Scores.protocol_fault` describes.

        Raises:
            SettingsError: If the protocol is unknown.
        """
        return score_clips(list(self.counts.values()), protocol, self._num_classes, self._windows)

    def per_class(self, protocol: str = "vspw") -> tuple[ClassScore, ...]:
        """Score every class over all clips, in the order of train ids."""
        return score_classes(list(self.counts.values()), protocol, self._num_classes)

    def per_clip(self, protocol: str = "vspw") -> dict[str, Scores]:
        """Score every clip by itself; clips that the protocol leaves out are not listed."""
        min_frames = find_protocol(protocol).min_frames
        return {
            clip: score_clips([counts], protocol, self._num_classes, self._windows)
            for clip, counts in self.counts.items()
            if counts.frames >= min_frames
        }

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._clips.replace({})

    def merge(self, other: "VideoSegMetrics") -> None:
        """Take over the clips of another counter, e.g. another process's; both must have counted different clips.

        The other's open clip counts as finished.

        Raises:
            SettingsError: If the two were made with different arguments or share a clip.
        """
        self._check_same(other._num_classes, other._void_ids, other._windows, other._boundary)
        self._clips.add(other.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain containers of integers and arrays; the open clip counts as finished."""
        return {
            "format": STATE_FORMAT,
            "num_classes": self._num_classes,
            "void_ids": self._void_ids,
            "windows": self._windows,
            "boundary": self._boundary,
            "clips": {clip: counts.state_dict() for clip, counts in self.counts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the counts by stored ones; all their clips are closed.

        Raises:
            SettingsError: If the state was made with other arguments, or is of another format.
        """
        found = state.get("format", "1 or no counts at all")
        if found != STATE_FORMAT:
            raise SettingsError(
                f"stored counts of format {found}, expected {STATE_FORMAT}: they lack what this version counts. "
                "Score the clips again."
            )
        self._check_same(state["num_classes"], tuple(state["void_ids"]), tuple(state["windows"]), state["boundary"])
        self._clips.replace({clip: ClipCounts(**counts) for clip, counts in state["clips"].items()})

    def _new_counter(self, clip: str) -> ClipCounter:
        return ClipCounter(self._num_classes, self._windows, self._void_ids, clip, self._boundary)

    def _check_same(self, num_classes: int, void_ids: tuple[int, ...], windows: tuple[int, ...], boundary: str) -> None:
        theirs = (num_classes, void_ids, windows, boundary)
        ours = (self._num_classes, self._void_ids, self._windows, self._boundary)
        if theirs != ours:
            raise SettingsError(f"counts with (classes, void ids, windows, boundary) {theirs} do not fit {ours}")
