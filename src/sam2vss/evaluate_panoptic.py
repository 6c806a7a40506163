"""Scores of panoptic predictions in folders against panoptic truth in folders: STQ and VPQ.

Walks over the files and feeds `PanopticMetrics`. Nothing is skipped: a frame without prediction is an error, and
everything that was seen but not scored is named in the result's warnings. Which forms folders have is in
`datasets/panoptic_folders.py`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .datasets.panoptic_codes import PanopticMap, find_things
from .datasets.panoptic_folders import PanopticFolders, open_panoptic
from .datasets.predictions import is_matched_by_name, listed, size_text
from .errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from .metrics.panoptic import PanopticMetrics
from .metrics.panoptic_scores import (
    VPQ_WINDOWS,
    PanopticClassScore,
    PanopticCounts,
    PanopticScores,
    find_panoptic_protocol,
)
from .metrics.scores import none_if_undefined
from .types import LabelSpace

UNDEFINED = "-"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class PanopticEvaluation:
    """Scores of a set of videos and how they came about.

    Attributes:
        scores: Over the whole set.
        per_class: In the order of train ids.
        class_names: In the same order.
        per_video: Of every video by itself.
        protocol: Name of the protocol.
        warnings: What was seen but not scored, or scored as an error, one sentence each.
        counts: The counts behind the scores by video.
    """

    scores: PanopticScores
    per_class: tuple[PanopticClassScore, ...]
    class_names: tuple[str, ...]
    per_video: Mapping[str, PanopticScores]
    protocol: str
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, PanopticCounts] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dump` takes; scores in [0, 1], undefined ones null."""
        return {
            "scores": self.scores.as_dict(),
            "vpq": self.scores.windows_as_dict(),
            "per_class": [
                {"name": name, **score.as_dict()} for name, score in zip(self.class_names, self.per_class, strict=True)
            ],
            "per_video": {
                video: {**scores.as_dict(), "frames": scores.frames} for video, scores in self.per_video.items()
            },
            "protocol": self.protocol,
            "frames": self.scores.frames,
            "clips": self.scores.clips,
            "unlabelled_share": none_if_undefined(self.scores.unlabelled_share),
            "warnings": list(self.warnings),
        }


def evaluate_panoptic(
    truth: Path,
    predictions: Path,
    label_space: LabelSpace | None = None,
    prediction_label_space: LabelSpace | None = None,
    protocol: str = "paper",
    windows: Sequence[int] = VPQ_WINDOWS,
    split: str | None = None,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> PanopticEvaluation:
    """Score panoptic label maps; forms as in `open_panoptic`, frames matched by video name and file stem.

    Args:
        truth: The truth; one of the forms.
        predictions: The predictions; the same or another form.
        label_space: Classes of the truth, where its form does not say them.
        prediction_label_space: Classes of the predictions, where their form does not say them; by default the truth's.
            Classes are matched by name where they know all names of the truth's, else by position.
        protocol: As for `PanopticMetrics.compute`.
        windows: The k of VPQ.
        split: Only the videos of this list of the truth ("val").
        only: Names of the videos to score; default all of the truth.
        progress: Called after every frame with frames done, frames in all, and the video's name.

    Raises:
        LabelError: If a side has none of the forms, contradicts itself, or the classes do not fit.
        MissingPredictionsError: If frames of the truth have no prediction.
        ShapeError: If a prediction has another size than its truth.
        SettingsError: If the protocol, a window, a split or a name in `only` is unknown.
    """
    find_panoptic_protocol(protocol)  # before minutes of reading
    true_side = open_panoptic(truth, label_space, split=split)
    predicted_side = open_panoptic(
        predictions,
        prediction_label_space,
        category_space=true_side.category_space if prediction_label_space is None else None,
        default_space=label_space or (true_side.label_space if true_side.has_codes else None),
        has_crowds=False,
    )
    true_side = _select(true_side, truth, only)
    _check_complete(true_side.frames, predicted_side.frames, predictions)
    space = true_side.label_space
    metrics = PanopticMetrics(space.num_classes, find_things(space), space.ignore_index, windows)
    table = _match_classes(space, predicted_side.label_space)
    total = sum(len(frames) for frames in true_side.frames.values())
    done = 0
    for video, frames in true_side.frames.items():
        for frame in frames:
            target, prediction = true_side.read(video, frame), predicted_side.read(video, frame)
            _check_size(prediction, target, predicted_side.frames[video][frame], frames[frame])
            metrics.update(
                np.take(table, prediction.semantic), prediction.instance, target.semantic, target.instance, clip=video
            )
            done += 1
            if progress:
                progress(done, total, video)
    warnings = [
        *_notes_on_surplus(true_side.frames, predicted_side.frames, only is None and split is None),
        *_notes_on_classes(space, predicted_side.label_space),
        *_notes_on_scores(metrics, predicted_side, protocol),
    ]
    return PanopticEvaluation(
        scores=metrics.compute(protocol),
        per_class=metrics.per_class(protocol),
        class_names=space.names,
        per_video=metrics.per_clip(protocol),
        protocol=protocol,
        warnings=tuple(warnings),
        counts=metrics.counts,
    )


def panoptic_table(named: Mapping[str, PanopticScores]) -> list[list[str]]:
    """Return the headline scores as rows of text: a header of names, then one row per score, in percent.

    There are too many scores for the columns of a terminal.
    """
    by_name = {name: scores.as_dict() for name, scores in named.items()}
    scores_of_first = next(iter(by_name.values()), {})
    return [
        ["score", *by_name],
        *([score, *(percent(own[score]) for own in by_name.values())] for score in scores_of_first),
    ]


def percent(value: float | None) -> str:
    """Write a fraction as percent with two digits."""
    return UNDEFINED if value is None else f"{100 * value:.2f}"


def _select(side: PanopticFolders, truth: Path, only: Collection[str] | None) -> PanopticFolders:
    if only is not None:
        unknown = sorted(set(only) - side.frames.keys())
        if unknown or not only:
            raise SettingsError(
                f"{len(unknown)} of {len(only)} named videos are not in {truth} ({listed(unknown)}); "
                f"it has {listed(side.frames)}"
            )
        side = side.only(tuple(video for video in side.frames if video in only))
    empty = [video for video, frames in side.frames.items() if not frames]
    if empty or not side.frames:
        raise LabelError(
            f"{len(empty)} of {len(side.frames)} videos in {truth} have no frames ({listed(empty)}). "
            "Pass --only to score a named subset."
        )
    return side


def _check_complete(
    truth: Mapping[str, Mapping[str, Path]], predicted: Mapping[str, Mapping[str, Path]], predictions: Path
) -> None:
    missing = [f"{video}/{frame}" for video, frames in truth.items() for frame in frames
               if frame not in predicted.get(video, {})]  # fmt: skip
    if not missing:
        return
    total = sum(len(frames) for frames in truth.values())
    there = [f"{video}/{next(iter(frames), '')}" for video, frames in predicted.items()]
    raise MissingPredictionsError(
        f"{len(missing)} of {total} frames have no prediction in {predictions} (first: {listed(missing)}); it holds "
        f"{listed(there)}. Write the missing ones under the names of the truth, or pass --only or --split to score a "
        "named subset of the videos."
    )


def _check_size(prediction: PanopticMap, target: PanopticMap, predicted_path: Path, true_path: Path) -> None:
    if prediction.semantic.shape != target.semantic.shape:
        sizes = [
            size_text((int(plane.shape[0]), int(plane.shape[1]))) for plane in (prediction.semantic, target.semantic)
        ]
        raise ShapeError(
            f"prediction {predicted_path} is {sizes[0]}, its truth {true_path} is {sizes[1]}. "
            "Write predictions at the size of the truth; they are not resized here."
        )


def _match_classes(space: LabelSpace, stored: LabelSpace) -> np.ndarray:
    """Return the truth's train id for every train id of the predictions, the ignore index included."""
    table = np.full(stored.ignore_index + 1, space.ignore_index, space.dtype)
    if is_matched_by_name(space, stored):
        train_ids = {name: i for i, name in enumerate(space.names)}
        table[: stored.num_classes] = [train_ids.get(name, space.ignore_index) for name in stored.names]
    elif stored.num_classes == space.num_classes:
        table[: stored.num_classes] = np.arange(space.num_classes)
    else:
        absent = [name for name in space.names if name not in stored.names]
        raise LabelError(
            f"predictions have {stored.num_classes} classes, the truth {space.num_classes}, and {len(absent)} of its "
            f"names are not among theirs ({listed(absent)}); give both the same classes with --prediction-label-set"
        )
    return table


def _notes_on_surplus(
    truth: Mapping[str, Mapping[str, Path]], predicted: Mapping[str, Mapping[str, Path]], all_videos: bool
) -> Iterator[str]:
    videos = [video for video in predicted if video not in truth]
    if videos and all_videos:
        yield f"{len(videos)} predicted videos have no truth and were not scored ({listed(videos)})"
    frames = [f"{video}/{frame}" for video in truth for frame in predicted[video] if frame not in truth[video]]
    if frames:
        yield f"{len(frames)} predicted frames have no truth and were not scored ({listed(frames)})"


def _notes_on_classes(space: LabelSpace, stored: LabelSpace) -> Iterator[str]:
    if not is_matched_by_name(space, stored) and stored.names != space.names:
        own, true = next(pair for pair in zip(stored.names, space.names, strict=True) if pair[0] != pair[1])
        yield (
            "the class names of the predictions differ from the truth's, and classes are matched by position "
            f"(first difference: {own!r} counts as {true!r})"
        )


def _notes_on_scores(metrics: PanopticMetrics, predicted: PanopticFolders, protocol: str) -> Iterator[str]:
    rule, scores, counts = find_panoptic_protocol(protocol), metrics.compute(protocol), metrics.counts
    for k, quality in scores.vpq.items():
        short = [video for video, clip in counts.items() if clip.frames < k]
        if not quality.windows:
            yield f"VPQ{k} and the mean over k are undefined: no video has {k} frames; pass smaller windows with --k"
        elif short:
            part = "are one window of" if rule.takes_short_clips_whole else "have no part in"
            yield f"{len(short)} of {len(counts)} videos have fewer than {k} frames and {part} VPQ{k} ({listed(short)})"
    if scores.unlabelled_share > 0:
        yield f"{100 * scores.unlabelled_share:.2f} % of the labelled pixels have no class (counted as errors)"
    if predicted.has_codes:
        return
    for video, clip in counts.items():
        tubes = clip.table.predicted_tubes[clip.table.predicted_tubes[:, 0] < metrics.num_classes]
        numbers, repeats = np.unique(tubes[:, 1], return_counts=True)
        if (repeats > 1).any():
            yield (
                f"segment {int(numbers[repeats > 1][0])} of predicted video {video} changes its class; every class of "
                "it is a tube of its own here, while VIPSeg's script of VPQ takes the first class of each window"
            )
            return
