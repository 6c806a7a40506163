"""How steady labels are over time, without ground truth: flips, and agreement along optical flow.

None of these scores knows what is right. A constant prediction scores best, and smoothing over time raises them all;
they say how much labels flicker, not how good they are.

    metrics = StabilityMetrics(num_classes, flow_name="dis")
    for t, (image, labels) in enumerate(clip):
        flow = find_flow(images[t - 1], image) if t else None      # float (H, W, 2), from the frame before to this one
        metrics.update(labels, flow, clip="a")
    metrics.compute().flow_consistency
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import numpy as np

from ..errors import LabelError, SettingsError
from .clip_store import ClipStore
from .stability_counts import StabilityCounter, StabilityCounts
from .stability_scores import ClassStability, StabilityScores, score_stability, score_stability_classes

MAX_CLASSES: Final = 4096  # a clip keeps two tables of C x C counts of 8 bytes


class StabilityMetrics:
    """Counts labels frame by frame, in memory of a few frames whatever the length of the clips.

    Args:
        num_classes: C.
        flow_name: Name of what computes the flow, e.g. "dis"; "" where there is none.

    Raises:
        SettingsError: If C is out of range.
    """

    def __init__(self, num_classes: int, flow_name: str = "") -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise SettingsError(f"num_classes must be 1..{MAX_CLASSES}, found {num_classes}")
        self._num_classes = num_classes
        self._flow_name = flow_name
        self._clips: ClipStore[StabilityCounter, StabilityCounts] = ClipStore(StabilityCounter.counts)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def counts(self) -> dict[str, StabilityCounts]:
        """Counts of every clip so far, the open one included, in order of arrival."""
        return self._clips.counts

    def update(
        self,
        labels: np.ndarray,
        flow: np.ndarray | None = None,
        is_seen: np.ndarray | None = None,
        clip: str = "",
    ) -> None:
        """Count the next frame of a clip. A new clip name closes the clip before.

        Args:
            labels: Integers (H, W). Anything outside 0..C-1 is unlabelled.
            flow: From the frame before to this one, floats (H, W, 2): pixel (x, y) of the frame before is now at
                (x + flow[y, x, 0], y + flow[y, x, 1]). None leaves the pair of frames out of the scores along flow.
            is_seen: Pixels of the frame before that can be seen in this one, bool (H, W), e.g. from
                `warping.is_seen_in_both`; None takes all that stay in the picture.
            clip: Name of the clip.

        Raises:
            ShapeError: If shapes do not fit each other or the clip's frames before.
            LabelError: If labels are not integers.
            SettingsError: If the clip was closed before, or its first frame comes with flow, or the
                flow has no name.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "bui":
            raise LabelError(f"labels have dtype {labels.dtype}, expected integer class ids (argmax the logits?)")
        if flow is not None and not self._flow_name:
            raise SettingsError('scores along flow carry its name: pass flow_name, e.g. StabilityMetrics(19, "raft")')
        counter = self._clips.counter_of(clip, partial(StabilityCounter, self._num_classes, clip))
        counter.update(labels, flow, is_seen)

    def compute(self) -> StabilityScores:
        """Score all clips so far, the open one included."""
        return score_stability(list(self.counts.values()), self._num_classes, self._flow_name)

    def per_clip(self) -> dict[str, StabilityScores]:
        """Score every clip by itself."""
        return {
            clip: score_stability([counts], self._num_classes, self._flow_name) for clip, counts in self.counts.items()
        }

    def per_class(self) -> tuple[ClassStability, ...]:
        """Score every class over all clips, in the order of train ids."""
        return score_stability_classes(list(self.counts.values()), self._num_classes)

    def merge(self, other: "StabilityMetrics") -> None:
        """Take over the clips of another counter; both must have counted different clips. The other's open clip counts
        as finished.

        Raises:
            SettingsError: If the two were made with different arguments or share a clip.
        """
        self._check_same(other._num_classes, other._flow_name)
        self._clips.add(other.counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain containers of integers and arrays; the open clip counts as finished."""
        clips = {clip: asdict(counts) for clip, counts in self.counts.items()}
        return {"num_classes": self._num_classes, "flow_name": self._flow_name, "clips": clips}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the counts by stored ones; all their clips are closed.

        Raises:
            SettingsError: If the state was made with other arguments.
        """
        self._check_same(state["num_classes"], state["flow_name"])
        self._clips.replace({clip: StabilityCounts(**counts) for clip, counts in state["clips"].items()})

    def _check_same(self, num_classes: int, flow_name: str) -> None:
        if (num_classes, flow_name) != (self._num_classes, self._flow_name):
            raise SettingsError(
                f"counts with (classes, flow) {(num_classes, flow_name)} do not fit "
                f"{(self._num_classes, self._flow_name)}"
            )
