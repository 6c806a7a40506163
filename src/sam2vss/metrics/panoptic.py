"""Scores of panoptic video segmentation, STQ and VPQ, from one pass over the frames."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import LabelError, SettingsError, ShapeError
from .clip_store import ClipStore
from .panoptic_scores import (
    VPQ_WINDOWS,
    PanopticClassScore,
    PanopticCounts,
    PanopticScores,
    score_panoptic,
    score_panoptic_classes,
)
from .tubes import MAX_INSTANCE, PairTable, TubeCounter, TubeMatches, run_starts, tube_keys

MAX_VPQ_WINDOW = 4096  # frames whose tables are kept


class PanopticMetrics:
    """Counts panoptic predictions against truth, frame by frame, and scores them under any protocol afterwards.

    A tube is a class with an instance number, of stuff too (give stuff one number, e.g. 0). Instance 0 of a thing in
    the truth is a crowd: it asks for no tube, and what is predicted there is no error. In predictions it is a number
    like any other.

    Example:
        >>> metrics = PanopticMetrics(2, is_thing=[False, True], windows=(1, 2))
        >>> classes = np.array([[[0, 1, 1]], [[0, 1, 1]]], np.uint8)       # T=2, H=1, W=3: class 1 is a thing
        >>> truth = np.array([[[0, 1, 1]], [[0, 1, 1]]])                   # one object, number 1
        >>> switched = np.array([[[0, 1, 1]], [[0, 9, 9]]])                # its number changes
        >>> metrics.update(classes, switched, classes, truth, clip="a")
        >>> scores = metrics.compute()
        >>> scores.vpq[1].things.pq, scores.vpq[2].things.pq               # right in every frame, never in two
        (1.0, 0.0)
        >>> scores.sq, scores.aq                                           # 1/4 (2 x 2/4 + 2 x 2/4)
        (1.0, 0.5)

    Args:
        num_classes: C.
        is_thing: For every class, whether it has instances.
        ignore_index: Value of the true classes that takes part in no score.
        windows: The k of VPQ, in frames.

    Raises:
        SettingsError: If these do not fit together.
    """

    def __init__(
        self,
        num_classes: int,
        is_thing: Sequence[bool],
        ignore_index: int = 255,
        windows: Sequence[int] = VPQ_WINDOWS,
    ) -> None:
        if num_classes < 1 or len(is_thing) != num_classes:
            raise SettingsError(f"found {num_classes} classes and {len(is_thing)} entries of is_thing: give one each")
        if 0 <= ignore_index < num_classes:
            raise SettingsError(f"ignore_index {ignore_index} must lie outside the classes 0..{num_classes - 1}")
        self._windows = tuple(sorted({int(k) for k in windows}))
        if not self._windows or self._windows[0] < 1 or self._windows[-1] > MAX_VPQ_WINDOW:
            raise SettingsError(f"windows must be frame counts in 1..{MAX_VPQ_WINDOW}, found {list(windows)}")
        self._is_thing = np.array(is_thing, bool)
        self._ignore_index = int(ignore_index)
        self._clips: ClipStore[TubeCounter, PanopticCounts] = ClipStore(_counts_of)
        self._size: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self._is_thing)

    @property
    def windows(self) -> tuple[int, ...]:
        return self._windows

    @property
    def counts(self) -> dict[str, PanopticCounts]:
        """Counts of every clip so far, the open one included, in order of arrival."""
        return self._clips.counts

    def update(
        self,
        pred_semantic: np.ndarray,
        pred_instance: np.ndarray,
        true_semantic: np.ndarray,
        true_instance: np.ndarray,
        clip: str = "",
    ) -> None:
        """Count the next frame or frames of a clip. A new clip name closes the clip before.

        Args:
            pred_semantic: Integer classes (H, W) or (T, H, W). Anything outside 0..C-1 is unlabelled.
            pred_instance: Integer instance numbers of the same shape, 0 or more; those of unlabelled pixels do not
                count.
            true_semantic: True classes of the same shape: 0..C-1 or void.
            true_instance: True instance numbers of the same shape; 0 of a thing is a crowd.
            clip: Name of the clip.

        Raises:
            ShapeError: If the shapes differ from each other or from the clip's frames before.
            LabelError: If an array is not integer, the truth holds values that are neither classes nor void, or an
                instance number is negative or above 2^31 - 1.
            SettingsError: If the clip was closed before: frames of a clip must come one after the other.
        """
        planes = [np.asarray(plane) for plane in (pred_semantic, pred_instance, true_semantic, true_instance)]
        shape = planes[2].shape
        if any(plane.shape != shape for plane in planes) or len(shape) not in (2, 3) or 0 in shape[-2:]:
            found = ", ".join(str(plane.shape) for plane in planes)
            raise ShapeError(f"predicted and true classes and instances must all be (H, W) or (T, H, W), found {found}")
        for plane in planes:
            if plane.dtype.kind not in "bui":
                raise LabelError(f"classes and instances must be integers, found {plane.dtype}")
        counter = self._clips.counter_of(clip, partial(TubeCounter, self._is_thing, self._windows))
        if counter.frames and self._size != shape[-2:]:
            raise ShapeError(f"frame {counter.frames} of clip {clip!r} is {shape[-2:]}, frames before {self._size}")
        self._size = shape[-2:]
        for frame in range(shape[0]) if len(shape) == 3 else (...,):
            self._count(counter, [plane[frame] for plane in planes], clip)

    def compute(self, protocol: str = "paper") -> PanopticScores:
        """Score all clips so far, the open one included.

        Args:
            protocol: "paper" (the definitions), "deeplab2" (its numpy script of STQ: a predicted void is a class of
                IoU 0), "vipseg" (VIPSeg's drivers, also in DVIS and DVIS++: on top of that, AQ takes the first segment
                of a clip for a crowd if it is a thing) or "deva" (DEVA's copies: on top of that, clips shorter than k
                are one window of VPQ). See `PanopticProtocol`.

        Raises:
            SettingsError: If the protocol is unknown.
        """
        return score_panoptic(list(self.counts.values()), protocol, self._is_thing, self._windows)

    def per_class(self, protocol: str = "paper") -> tuple[PanopticClassScore, ...]:
        """Score every class over all clips, in the order of train ids."""
        return score_panoptic_classes(list(self.counts.values()), protocol, self._is_thing, self._windows)

    def per_clip(self, protocol: str = "paper") -> dict[str, PanopticScores]:
        """Score every clip by itself."""
        return {
            clip: score_panoptic([counts], protocol, self._is_thing, self._windows)
            for clip, counts in self.counts.items()
        }

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._clips.replace({})

    def merge(self, other: "PanopticMetrics") -> None:
        """Take over the clips of another counter, e.g. another process's; both must have counted different clips.

        The other's open clip counts as finished.

        Raises:
            SettingsError: If the two were made with different arguments or share a clip.
        """
        self._check_same(other._is_thing.tolist(), other._ignore_index, other._windows)
        self._clips.add(other.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain containers of numbers and arrays; the open clip counts as finished."""
        return {
            "is_thing": self._is_thing.tolist(),
            "ignore_index": self._ignore_index,
            "windows": self._windows,
            "clips": {clip: _state_of(counts) for clip, counts in self.counts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the counts by stored ones; all their clips are closed.

        Raises:
            SettingsError: If the state was made with other arguments.
        """
        self._check_same(state["is_thing"], state["ignore_index"], tuple(state["windows"]))
        self._clips.replace({clip: _counts_from(stored) for clip, stored in state["clips"].items()})

    def _count(self, counter: TubeCounter, planes: Sequence[np.ndarray], clip: str) -> None:
        starts = run_starts(planes)
        lengths = np.diff(starts, append=planes[0].size)
        pred_class, pred_instance, true_class, true_instance = (plane.reshape(-1)[starts] for plane in planes)
        where = f"frame {counter.frames} of clip {clip!r}"
        self._check_truth(true_class, where)
        self._check_instances(pred_class, pred_instance, f"the prediction of {where}")
        self._check_instances(true_class, true_instance, f"the truth of {where}")
        counter.update(
            tube_keys(true_class, true_instance, self.num_classes),
            tube_keys(pred_class, pred_instance, self.num_classes),
            lengths,
        )

    def _check_truth(self, classes: np.ndarray, where: str) -> None:
        is_stranger = ((classes < 0) | (classes >= self.num_classes)) & (classes != self._ignore_index)
        if is_stranger.any():
            raise LabelError(
                f"the truth of {where} holds the classes {np.unique(classes[is_stranger])[:10].tolist()}; "
                f"expected 0..{self.num_classes - 1} or void {self._ignore_index}"
            )

    def _check_instances(self, classes: np.ndarray, instances: np.ndarray, what: str) -> None:
        numbers = instances[(classes >= 0) & (classes < self.num_classes)]
        if numbers.size and (numbers.min() < 0 or numbers.max() > MAX_INSTANCE):
            raise LabelError(
                f"{what} holds instance numbers {numbers.min()}..{numbers.max()}, expected 0..{MAX_INSTANCE}"
            )

    def _check_same(self, is_thing: Sequence[bool], ignore_index: int, windows: tuple[int, ...]) -> None:
        ours = (self._is_thing.tolist(), self._ignore_index, self._windows)
        if (list(is_thing), ignore_index, windows) != ours:
            raise SettingsError(
                f"counts of {len(is_thing)} classes (void {ignore_index}, windows {list(windows)}) do not fit ours: "
                f"{self.num_classes} classes (void {self._ignore_index}, windows {list(self._windows)}), "
                "with the same things among them"
            )


def _counts_of(counter: TubeCounter) -> PanopticCounts:
    return PanopticCounts(
        counter.frames, counter.table(), counter.first_tube, counter.matches(), counter.whole_clip_matches()
    )


def _state_of(counts: PanopticCounts) -> dict[str, Any]:
    return {
        "frames": counts.frames,
        "first_tube": counts.first_tube,
        "table": dict(vars(counts.table)),
        "matches": {k: dict(vars(matches)) for k, matches in counts.matches.items()},
        "whole_clip_matches": {k: dict(vars(matches)) for k, matches in counts.whole_clip_matches.items()},
    }


def _counts_from(state: Mapping[str, Any]) -> PanopticCounts:
    return PanopticCounts(
        frames=state["frames"],
        table=PairTable(**state["table"]),
        first_tube=state["first_tube"],
        matches={k: TubeMatches(**stored) for k, stored in state["matches"].items()},
        whole_clip_matches={k: TubeMatches(**stored) for k, stored in state["whole_clip_matches"].items()},
    )
