"""Which predicted frame belongs to which frame of the truth, and what has no partner. Nothing is decoded here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import LabelError, MissingPredictionsError, SettingsError
from .folders import LabelFolders, find_label_folders
from .predictions import Missing, listed


@dataclass(frozen=True)
class FramePair:
    """One frame of the truth with its prediction; None where it has none."""

    name: str
    truth: Path
    prediction: Path | None


@dataclass(frozen=True)
class PairedFrames:
    """The frames to score.

    Attributes:
        videos: Pairs by video, all in natural order.
        notes: What is there but has no partner, one sentence each.
    """

    videos: Mapping[str, tuple[FramePair, ...]]
    notes: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        return sum(len(pairs) for pairs in self.videos.values())


def pair_frames(
    truth: Path, predictions: Path, only: Collection[str] | None = None, missing: Missing = "error"
) -> PairedFrames:
    """Match the frames of two folders by video name and file stem; layouts as in `find_label_folders`.

    If either side is a folder of one video without a name of its own, and both sides have one video, the names need
    not agree.

    Args:
        truth: Folder of the truth, which says what is scored.
        predictions: Folder of the predictions.
        only: Names of the videos to score; default all of the truth.
        missing: What a frame without prediction is: an error, or a pair without one.

    Raises:
        LabelError: If a folder holds no labels, or a video of the truth has none.
        MissingPredictionsError: If frames have no prediction and that is an error.
        SettingsError: If `only` names unknown videos.
    """
    true_videos, predicted_videos = _select(find_label_folders(truth), truth, only), find_label_folders(predictions)
    is_one_each = len(true_videos) == len(predicted_videos) == 1
    if is_one_each and (_is_one_folder(truth, true_videos) or _is_one_folder(predictions, predicted_videos)):
        predicted_videos = dict(zip(true_videos, predicted_videos.values(), strict=True))
    if missing == "error":
        _check_complete(true_videos, predicted_videos, predictions)
    videos = {
        video: tuple(
            FramePair(f"{video}/{stem}", path, predicted_videos.get(video, {}).get(stem))
            for stem, path in frames.items()
        )
        for video, frames in true_videos.items()
    }
    return PairedFrames(videos, tuple(_notes_on_surplus(true_videos, predicted_videos, only)))


def _select(videos: LabelFolders, truth: Path, only: Collection[str] | None) -> LabelFolders:
    if only is not None:
        unknown = sorted(set(only) - videos.keys())
        if unknown or not only:
            raise SettingsError(
                f"{len(unknown)} of {len(only)} named videos are not in {truth} ({listed(unknown)}); "
                f"it has {listed(videos)}"
            )
        videos = {video: frames for video, frames in videos.items() if video in only}
    empty = [video for video, frames in videos.items() if not frames]
    if empty:
        raise LabelError(
            f"{len(empty)} of {len(videos)} videos in {truth} have no label PNG ({listed(empty)}). "
            "Pass --split or --only to score a named subset."
        )
    return videos


def _notes_on_surplus(true_videos: LabelFolders, predicted: LabelFolders, only: Collection[str] | None) -> list[str]:
    notes = []
    videos = [video for video in predicted if video not in true_videos]
    if videos and only is None:
        notes.append(f"{len(videos)} predicted videos have no truth and were not scored ({listed(videos)})")
    frames = [
        f"{video}/{stem}" for video, pairs in true_videos.items() for stem in predicted.get(video, {})
        if stem not in pairs
    ]  # fmt: skip
    if frames:
        notes.append(f"{len(frames)} predicted frames have no truth and were not scored ({listed(frames)})")
    return notes


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
        f"{len(missing)} of {total} frames have no prediction in {predictions} (first: {listed(missing)}){whole}; "
        f"it holds {listed(there)}. Write the missing ones under the names of the truth, pass --only or --split to "
        "score some of the videos, or --missing void to count them as wrong."
    )


def _is_one_folder(root: Path, videos: LabelFolders) -> bool:
    """Whether the PNGs of the one video lie directly in `root` (or its `mask`), so that its name means little."""
    parents = {path.parent for frames in videos.values() for path in frames.values()}
    return parents in ({root}, {root / "mask"})
