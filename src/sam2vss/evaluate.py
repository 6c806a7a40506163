"""Scores of predictions in folders against truth in folders.

Walks over the files, turns stored numbers into train ids and feeds `VideoSegMetrics`. Nothing is skipped: a frame
without prediction is an error, and everything that was seen but not scored is named in the result's warnings.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .datasets.folders import LabelFolders, find_label_folders, read_ids
from .errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from .metrics import ClassScore, ClipCounts, Scores, VideoSegMetrics
from .metrics.boundary import BAND_KERNEL_PX
from .metrics.scores import find_protocol, none_if_undefined
from .types import WIDE_IGNORE_INDEX, LabelSpace

MAX_NAMES = 5  # how many offenders a message lists
UNDEFINED = "-"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a set of videos and how they came about.

    Attributes:
        scores: Over the whole set.
        per_class: In the order of train ids.
        class_names: In the same order.
        per_video: Of every scored video by itself.
        protocol: Name of the protocol.
        warnings: What was seen but not scored, or scored as an error, one sentence each.
        counts: The counts behind the scores by video, e.g. for `paired_bootstrap`.
    """

    scores: Scores
    per_class: tuple[ClassScore, ...]
    class_names: tuple[str, ...]
    per_video: Mapping[str, Scores]
    protocol: str
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, ClipCounts] = field(default_factory=dict, repr=False)

    @property
    def frames(self) -> int:
        return self.scores.frames

    @classmethod
    def from_metrics(
        cls, metrics: VideoSegMetrics, label_space: LabelSpace, protocol: str = "vspw", warnings: Sequence[str] = ()
    ) -> "Evaluation":
        """Score what a counter has counted.

        Raises:
            SettingsError: If the protocol is unknown.
            LabelError: If counter and label set differ in the number of classes.
        """
        if metrics.num_classes != label_space.num_classes:
            raise LabelError(
                f"counts of {metrics.num_classes} classes do not fit a label set of {label_space.num_classes}"
            )
        scores = metrics.compute(protocol)
        notes = list(warnings)
        if scores.dropped_clips:
            notes.append(f"protocol {protocol} left out {scores.dropped_clips} clips as too short")
        if scores.unlabelled_share > 0:
            notes.append(
                f"{100 * scores.unlabelled_share:.2f} % of the labelled pixels have no class (counted as errors)"
            )
        return cls(
            scores=scores,
            per_class=metrics.per_class(protocol),
            class_names=label_space.names,
            per_video=metrics.per_clip(protocol),
            protocol=protocol,
            warnings=tuple(notes),
            counts=metrics.counts,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dump` takes; scores in [0, 1], undefined ones null."""
        names = _distinct_names(self.class_names)
        return {
            "scores": self.scores.as_dict(),
            "per_class": {name: score.as_dict() for name, score in zip(names, self.per_class, strict=True)},
            "per_video": {
                video: {**scores.as_dict(), "frames": scores.frames} for video, scores in self.per_video.items()
            },
            "protocol": self.protocol,
            "frames": self.scores.frames,
            "clips": self.scores.clips,
            "dropped_clips": self.scores.dropped_clips,
            "unlabelled_share": none_if_undefined(self.scores.unlabelled_share),
            # boundary scores are comparable only at equal kernel and size
            "boundary_kernel_px": BAND_KERNEL_PX,
            "sizes": sorted({clip.size for clip in self.counts.values()}),
            "warnings": list(self.warnings),
        }


def evaluate_folders(
    truth: Path,
    predictions: Path,
    label_space: LabelSpace,
    prediction_label_space: LabelSpace | None = None,
    protocol: str = "vspw",
    windows: Sequence[int] = (8, 16),
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score folders of label PNGs; layouts as in `find_label_folders`, frames matched by video name and file stem.

    If either side is a folder of one video without a name of its own, and both sides have one video, the names need
    not agree.

    Args:
        truth: Folder of the truth.
        predictions: Folder of the predictions.
        label_space: What the truth's numbers mean.
        prediction_label_space: What the predictions' numbers mean; by default the same. Classes are matched by name
            where it knows all names of `label_space`, else by position.
        protocol: As for `VideoSegMetrics.compute`.
        windows: The n of mVC_n.
        only: Names of the videos to score; default all of the truth.
        progress: Called after every frame with frames done, frames in all, and the video's name.

    Raises:
        LabelError: If a folder holds no labels, a file cannot be read, the truth holds numbers outside the label
            set, or the label sets do not fit.
        MissingPredictionsError: If frames of the truth have no prediction.
        ShapeError: If a prediction has another size than its truth.
        SettingsError: If the protocol, a window or a name in `only` is unknown.
    """
    find_protocol(protocol)  # before minutes of reading
    translate = _PredictionReader(label_space, prediction_label_space or label_space)
    void_values = _other_void_values(label_space)
    metrics = VideoSegMetrics(
        label_space.num_classes, label_space.ignore_index, windows, other_void_ids=tuple(void_values.values())
    )
    true_videos, predicted_videos, warnings = _match(Path(truth), Path(predictions), only)
    total = sum(len(frames) for frames in true_videos.values())
    done = 0
    for video, frames in true_videos.items():
        for stem, true_path in frames.items():
            predicted_path = predicted_videos[video][stem]
            target = _read_truth(true_path, label_space, void_values)
            prediction = translate.read(predicted_path)
            if prediction.shape != target.shape:
                raise ShapeError(
                    f"prediction {predicted_path} is {_size_text(prediction)}, its truth {true_path} is "
                    f"{_size_text(target)}. Write predictions at the size of the truth; they are not resized here."
                )
            metrics.update(prediction, target, clip=video)
            done += 1
            if progress:
                progress(done, total, video)
    return Evaluation.from_metrics(metrics, label_space, protocol, [*warnings, *translate.warnings()])


def scores_table(named: Mapping[str, Scores], difference: bool = False) -> list[list[str]]:
    """Return the headline scores as rows of text: a header, then one row per name, in percent with two digits.

    Args:
        named: Scores by row name, all with the same windows.
        difference: Add a last row "difference": last minus first, in percentage points, with sign.
    """
    windows = next(iter(named.values())).vc if named else {}
    columns = ["mIoU", "wIoU", "mBIoU", *(f"mVC{n}" for n in windows)]
    rows = {name: [scores.as_dict()[column] for column in columns] for name, scores in named.items()}
    table = [["", *columns], *([name, *map(_percent, values)] for name, values in rows.items())]
    if difference and len(rows) > 1:
        first, *_, last = rows.values()
        changes = [None if a is None or b is None else b - a for a, b in zip(first, last, strict=True)]
        table.append(["difference", *(_percent(change, "+.2f") for change in changes)])
    return table


def _percent(value: float | None, form: str = ".2f") -> str:
    return UNDEFINED if value is None else format(100 * value, form)


def _match(
    truth: Path, predictions: Path, only: Collection[str] | None
) -> tuple[LabelFolders, LabelFolders, list[str]]:
    """Find the frames of both sides, by the truth's video names; complain about gaps, note what is surplus."""
    true_videos, predicted_videos = find_label_folders(truth), find_label_folders(predictions)
    if only is not None:
        unknown = sorted(set(only) - true_videos.keys())
        if unknown or not only:
            raise SettingsError(
                f"{len(unknown)} of {len(only)} named videos are not in {truth} ({_listed(unknown)}); "
                f"it has {_listed(true_videos)}"
            )
        true_videos = {video: frames for video, frames in true_videos.items() if video in only}
    empty = [video for video, frames in true_videos.items() if not frames]
    if empty:
        raise LabelError(
            f"{len(empty)} of {len(true_videos)} videos in {truth} have no label PNG ({_listed(empty)}). "
            "Pass --only to score a named subset."
        )
    is_one_each = len(true_videos) == len(predicted_videos) == 1
    if is_one_each and (_is_one_folder(truth, true_videos) or _is_one_folder(predictions, predicted_videos)):
        predicted_videos = dict(zip(true_videos, predicted_videos.values(), strict=True))
    _check_complete(true_videos, predicted_videos, predictions)

    warnings = []
    surplus_videos = [video for video in predicted_videos if video not in true_videos]
    if surplus_videos and only is None:
        warnings.append(
            f"{len(surplus_videos)} predicted videos have no truth and were not scored ({_listed(surplus_videos)})"
        )
    surplus = [
        f"{video}/{stem}"
        for video, frames in true_videos.items()
        for stem in predicted_videos[video]
        if stem not in frames
    ]
    if surplus:
        warnings.append(f"{len(surplus)} predicted frames have no truth and were not scored ({_listed(surplus)})")
    return true_videos, predicted_videos, warnings


def _check_complete(true_videos: LabelFolders, predicted_videos: LabelFolders, predictions: Path) -> None:
    missing = [
        f"{video}/{stem}"
        for video, frames in true_videos.items()
        for stem in frames
        if stem not in predicted_videos.get(video, {})
    ]
    if not missing:
        return
    total = sum(len(frames) for frames in true_videos.values())
    there = [f"{video}/{stem}" for video, frames in predicted_videos.items() for stem in islice(frames, 1)]
    absent = [video for video in true_videos if video not in predicted_videos]
    whole = f", {len(absent)} of {len(true_videos)} videos are missing as a whole" if absent else ""
    raise MissingPredictionsError(
        f"{len(missing)} of {total} frames have no prediction in {predictions} (first: {_listed(missing)}){whole}; "
        f"it holds {_listed(there)}. Write the missing ones under the names of the truth, or pass --only to score a "
        "named subset of the videos."
    )


def _is_one_folder(root: Path, videos: LabelFolders) -> bool:
    """Whether the PNGs of the one video lie directly in `root` (or its `mask`), so that its name means little."""
    parents = {path.parent for frames in videos.values() for path in frames.values()}
    return parents in ({root}, {root / "mask"})


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(islice(names, MAX_NAMES))
    return shown + (", ..." if len(names) > MAX_NAMES else "")


def _size_text(labels: np.ndarray) -> str:
    return f"{labels.shape[1]} x {labels.shape[0]} pixels"


def _distinct_names(names: Sequence[str]) -> list[str]:
    """Make names usable as keys; some label sets (ADE20K) use one name for several classes."""
    repeats = Counter(names)
    return [f"{name} ({i})" if repeats[name] > 1 else name for i, name in enumerate(names)]


def _other_void_values(label_space: LabelSpace) -> dict[int, int]:
    """Give every void id but the first a train-side value of its own, counting down from the ignore index.

    VSPW stores void as 0 and as 255, and its scripts take the two for different labels when they look for pixels
    whose truth stays the same. Where there is no room for a value, the void ids stay one.
    """
    room = range(label_space.ignore_index - 1, label_space.num_classes - 1, -1)
    return dict(zip(label_space.raw_void[1:], room, strict=False))


def _read_truth(path: Path, label_space: LabelSpace, void_values: Mapping[int, int]) -> np.ndarray:
    raw = read_ids(path)
    target = label_space.from_raw(raw, what=str(path))
    for raw_id, value in void_values.items():
        target[raw == raw_id] = value
    return target


class _PredictionReader:
    """Reads predictions as train ids of the truth's label set and remembers ids that have no class there."""

    def __init__(self, label_space: LabelSpace, stored: LabelSpace) -> None:
        self._ignore_index = label_space.ignore_index
        self._stored = stored
        self._is_by_name = _is_matched_by_name(label_space, stored)
        self._true_names = label_space.names
        self._table = np.full(WIDE_IGNORE_INDEX + 1, label_space.ignore_index, label_space.dtype)
        self._table[list(stored.raw_ids)] = _train_ids(label_space, stored)
        self._strangers: dict[int, Path] = {}

    def read(self, path: Path) -> np.ndarray:
        raw = read_ids(path)
        labels: np.ndarray = np.take(self._table, raw)
        is_unlabelled = labels == self._ignore_index
        if is_unlabelled.any():
            for raw_id in np.unique(raw[is_unlabelled]).tolist():
                if raw_id not in self._stored.raw_void:
                    self._strangers.setdefault(raw_id, path)
        return labels

    def warnings(self) -> list[str]:
        notes = []
        if not self._is_by_name and self._stored.names != self._true_names:
            pairs = zip(self._stored.names, self._true_names, strict=True)
            first_own, first_true = next((own, true) for own, true in pairs if own != true)
            notes.append(
                "the class names of the predictions differ from the truth's, and classes are matched by position "
                f"(first difference: {first_own!r} counts as {first_true!r})"
            )
        if not self._strangers:
            return notes
        ids = [str(raw_id) for raw_id in sorted(self._strangers)]
        first = next(iter(self._strangers.values()))
        return [
            *notes,
            f"predictions hold {len(ids)} ids without a class in the label set ({_listed(ids)}; first in {first}); "
            "their pixels count as errors. If the ids mean something else, pass the predictions' own label set.",
        ]


def _is_matched_by_name(label_space: LabelSpace, stored: LabelSpace) -> bool:
    """Whether the truth's names are distinct and the predictions know all of them."""
    return len(set(label_space.names)) == label_space.num_classes and set(label_space.names) <= set(stored.names)


def _train_ids(label_space: LabelSpace, stored: LabelSpace) -> np.ndarray:
    """Return the truth's train id of every class of the predictions, or the ignore index."""
    if _is_matched_by_name(label_space, stored):
        train_ids = {name: i for i, name in enumerate(label_space.names)}
        return np.array([train_ids.get(name, label_space.ignore_index) for name in stored.names])
    if stored.num_classes != label_space.num_classes:
        absent = [name for name in label_space.names if name not in stored.names]
        raise LabelError(
            f"predictions have {stored.num_classes} classes, the truth {label_space.num_classes}, and "
            f"{len(absent)} of its names are not among theirs ({_listed(absent)}); give both the same classes"
        )
    return np.arange(label_space.num_classes)
