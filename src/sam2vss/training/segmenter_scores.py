"""mIoU of a segmenter on validation clips, by the metrics that `sam2vss evaluate` uses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..dataset_clips import DatasetClips
from ..errors import LabelError, SettingsError
from ..interfaces import Segmenter
from ..media import windows_of
from ..metrics.counts import ClipCounter, ClipCounts
from ..metrics.scores import Scores, score_clips
from ..types import Frame, LabelSpace

CHUNK = 8  # ours: frames in memory at a time
PROTOCOL = "vspw"
WINDOWS = (2,)  # the shortest; its score is of no interest here


def check_validation(data: DatasetClips, label_space: LabelSpace) -> None:
    """Refuse validation clips that cannot be scored.

    Raises:
        LabelError: If they are of other classes.
        SettingsError: If no frame of theirs has a label map, or all label maps are void.
        LabelError, MediaError: If a label map cannot be read; those up to the first with a class are.
    """
    if data.label_space.names != label_space.names:
        raise LabelError(
            f"{data.title} has {data.label_space.num_classes} classes ({', '.join(data.label_space.names[:3])}, ...), "
            f"the training data has {label_space.num_classes} ({', '.join(label_space.names[:3])}, ...): validation "
            "needs the same classes in the same order"
        )
    if not any(_labelled(data, clip.name) for clip in data.clips):
        raise SettingsError(f"no frame of {data.title} has a label map: there is nothing to validate on")
    maps = (path for clip in data.clips for path in _labelled(data, clip.name).values())
    if not any((data.read_truth(path) != data.label_space.ignore_index).any() for path in maps):
        raise SettingsError(
            f"the label maps of {data.title} are void all over, so nothing can be scored: look at them and at the void "
            "ids of the label set (`sam2vss check-data`)"
        )


def score_segmenter(
    segmenter: Segmenter,
    data: DatasetClips,
    needs_all: bool,
    on_frame: Callable[[], None] = lambda: None,
) -> Scores:
    """Label validation clips and score them over the whole set; frames without label maps are not scored.

    Args:
        segmenter: Reset at every clip.
        data: Validation clips.
        needs_all: Whether frames without label maps must be shown to it, as they are others' past.
        on_frame: Told every frame.
    """
    counts: list[ClipCounts] = []
    for clip in data.clips:
        truth = _labelled(data, clip.name)
        segmenter.reset()
        counter = ClipCounter(data.label_space.num_classes, WINDOWS, (data.label_space.ignore_index,), clip.name)
        shown = (frame for frame in clip.frames() if needs_all or frame.name in truth)
        for frames in windows_of(shown, CHUNK):
            for frame, labels in zip(frames, _predict(segmenter, frames), strict=True):
                if frame.name in truth:
                    counter.update(labels, data.read_truth(truth[frame.name]))
                on_frame()
        counts.append(counter.counts())
    return score_clips([clip for clip in counts if clip.frames], PROTOCOL, data.label_space.num_classes, WINDOWS)


def _predict(segmenter: Segmenter, frames: list[Frame]) -> np.ndarray:
    return segmenter.predict(np.stack([frame.image for frame in frames])).labels


def _labelled(data: DatasetClips, name: str) -> dict[str, Path]:
    return data.truth_files(name)
