"""Features of the masklets of a data set, found once and stored, so that many networks can be trained on them.

    features.json                      what they are: data, encoder, pooling, tracker, clips done
    features/<clip>/<first frame>.npz  one file a window: what is known of its masklets, and what is true

A clip is the unit of progress: one that is not listed as done is done again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..classifiers.classifier import describe_encoder
from ..dataset_clips import DatasetClips
from ..describe import describe_window, judge_window
from ..errors import LabelError, MediaError, RunError, SettingsError, ShapeError
from ..files import atomic_write_json, folder_fingerprint, release_lock, safe_name, take_lock
from ..interfaces import BaseLabelSource, ClipAware, FeatureEncoder, MaskletTracker
from ..masklet_features import MaskletFeatures, MaskletTruth, read_features, write_features
from ..media import windows_of
from ..pipeline import NoProgress, Progress, check_clips
from ..pooling import Pooling
from ..run_info import as_json
from ..types import BaseLabels, Frame, LabelSpace, Window, WindowContext
from ..versions import installed_versions

FORMAT_VERSION = 1
INFO_FILE = "features.json"
LOCK_FILE = ".lock"


@dataclass(frozen=True, eq=False)
class FeatureMaker:
    """What turns the clips of a data set into features.

    Attributes:
        tracker: Source of masklets.
        encoder: Source of feature maps; None: votes and shapes only.
        pooling: What is pooled over masks.
        window: Frames per window.
        base: Source of base labels; None: no votes.
        source: Settings and weights behind the tracker and the base labels, for the record and for resuming.
    """

    tracker: MaskletTracker
    encoder: FeatureEncoder | None
    pooling: Pooling
    window: int
    base: BaseLabelSource | None
    source: Mapping[str, Any]


class FeatureFolder:
    """Stored features. Make them with `make_features`, read them with `FeatureFolder.open`.

    Attributes:
        path: The folder.
        info: Content of features.json.
        label_space: Classes of votes and truth.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self.label_space = LabelSpace.from_dict(info["label_set"])

    @classmethod
    def open(cls, path: Path) -> "FeatureFolder":
        """Read the account of a folder.

        Raises:
            RunError: If there is none, it is damaged, or of another version.
        """
        file = Path(path) / INFO_FILE
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
            if info["package"] != "sam2vss":
                raise RunError(f"{file} was not written by sam2vss")
            if info["format_version"] != FORMAT_VERSION:
                raise RunError(f"{file} is of format {info['format_version']!r}, expected {FORMAT_VERSION}")
            missing = [key for key in ("clips", "done", "encoder", "pooling") if key not in info]
            if missing:
                raise RunError(f"{file} is damaged (it holds no {missing[0]}): make the features again")
            _check_account(info)
            return cls(Path(path), info)
        except FileNotFoundError:
            raise RunError(f"{path} holds no features: there is no {INFO_FILE} in it") from None
        except (
            *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
            *(LabelError, SettingsError),
        ) as error:
            raise RunError(f"{file} is damaged ({type(error).__name__}: {error}): make the features again") from error

    @property
    def is_complete(self) -> bool:
        return all(name in self.info["done"] for name in self.info["clips"])

    @property
    def encoder(self) -> dict[str, Any] | None:
        """Name, fingerprint, level names and channels of the encoder."""
        found: dict[str, Any] | None = self.info["encoder"]
        return found

    @property
    def pooling(self) -> Pooling:
        return Pooling(tuple(self.info["pooling"]["parts"]), self.info["pooling"]["tokens"])

    def read(self, clips: Sequence[str] | None = None) -> Iterator[tuple[str, MaskletFeatures, MaskletTruth]]:
        """Yield the windows of some clips, default all: name of the clip, what is known, what is true.

        Raises:
            RunError: If the features of a clip are not there.
            MediaError: If a file is damaged.
        """
        for name in self.info["clips"] if clips is None else clips:
            if name not in self.info["done"]:
                raise RunError(f"{self.path} holds no features of clip {name}: make them to the end with --resume")
            for start in self.info["done"][name]:
                known, truth = read_features(self.file(name, start))
                if truth is None:
                    raise RunError(f"{self.file(name, start)} holds no truth: make the features again")
                self._check_fit(known, truth, self.file(name, start))
                yield name, known, truth

    def _check_fit(self, known: MaskletFeatures, truth: MaskletTruth, file: Path) -> None:
        """Raise `MediaError` unless a file holds what the account says, so that none of another folder is mixed in."""
        channels = [] if self.encoder is None else [int(width) for width in self.encoder["channels"]]
        tokens = self.pooling.tokens if channels else 0
        shape = (*known.areas.shape, self.label_space.num_classes)
        fits = (
            known.features.shape[2] == len(self.pooling.parts) * sum(channels)
            and known.tokens.shape[2:] == (tokens, channels[0] if tokens else 0)
            and truth.classes.shape == shape
            and (known.votes is None or known.votes.shape == shape)
            and all(np.isfinite(part).all() for part in (known.features, known.boxes_xyxy, known.frame_iou))
        )
        if not fits:
            raise MediaError(f"{file} does not hold what {self.path / INFO_FILE} says: make the features again")

    def file(self, clip: str, start: int) -> Path:
        """Return where the features of a window lie."""
        return self.path / "features" / safe_name(clip) / f"{start:08d}.npz"


def make_features(
    out: Path,
    data: DatasetClips,
    maker: FeatureMaker,
    resume: bool = False,
    progress: Progress | None = None,
) -> FeatureFolder:
    """Find, describe and judge the masklets of a data set and store what is known of them.

    Frames without truth count with their features, and their truth is void.

    Args:
        out: Folder to write.
        data: Clips with truth.
        maker: What makes the features.
        resume: Keep finished clips of an earlier call that asked for the same.
        progress: Told what goes on.

    Raises:
        RunError: If the folder is in use, or holds other features.
        LabelError: If base labels are of other classes than the truth, or do not fit the clips.
        ShapeError: If truth or base labels have another size than the frames.
        MediaError: If something cannot be read or written.
    """
    progress = progress or NoProgress()
    if maker.base is not None and maker.base.label_space.names != data.label_space.names:
        raise LabelError(
            f"the base labels are of {_named(maker.base.label_space)}, the truth is of {_named(data.label_space)}: "
            "both must have the same classes in the same order"
        )
    if maker.base is not None:
        check_clips(data.clips, maker.base)
    asked = _account(data, maker)
    take_lock(out / LOCK_FILE)
    try:
        folder = FeatureFolder(out, _begin(out, asked, resume))
        atomic_write_json(out / INFO_FILE, folder.info)
        for clip in data.clips:
            progress.clip_started(clip.name, clip.num_frames_estimate)
            if clip.name not in folder.info["done"]:
                starts = _make_clip(folder, data, clip.name, clip.frames(), maker, progress)
                folder.info["done"][clip.name] = starts
                atomic_write_json(out / INFO_FILE, folder.info)
            progress.clip_finished(clip.name)
    finally:
        release_lock(out / LOCK_FILE)
    return folder


def _make_clip(
    folder: FeatureFolder,
    data: DatasetClips,
    name: str,
    frames: Iterator[Frame],
    maker: FeatureMaker,
    progress: Progress,
) -> list[int]:
    """Store the features of one clip; return the first frames of its windows."""
    truth_files = data.truth_files(name)
    space = data.label_space
    starts = []
    if isinstance(maker.tracker, ClipAware):
        maker.tracker.begin_clip(name)
    for window_frames in windows_of(frames, maker.window):
        start = window_frames[0].index
        images = np.stack([frame.image for frame in window_frames])
        truth = np.full(images.shape[:3], space.ignore_index, space.dtype)
        for frame, labels in zip(window_frames, truth, strict=True):
            if frame.name in truth_files:
                labels[:] = _read_truth(data, truth_files[frame.name], labels.shape)
        base = maker.base.labels_for(name, window_frames) if maker.base is not None else None
        shown = base or BaseLabels(np.full_like(truth, space.ignore_index))
        masklets = maker.tracker.track(images, start, WindowContext(shown.labels, space.ignore_index))
        known = describe_window(images, masklets, maker.encoder, maker.pooling, base, space)
        judged = judge_window(masklets, truth, space, None if base is None else base.labels)
        write_features(folder.file(name, start), known, judged)
        starts.append(start)
        progress.frames_done(name, Window(start, len(window_frames)).stop)
    return starts


def _read_truth(data: DatasetClips, path: Path, size: tuple[int, ...]) -> np.ndarray:
    labels = data.read_truth(path)
    if labels.shape != size:
        raise ShapeError(f"{path} is {labels.shape} (height, width), its frame is {size}: both must have one size")
    return labels


def _check_account(info: dict[str, Any]) -> None:
    """Raise where entries of features.json are of another kind than those written."""
    Pooling(tuple(info["pooling"]["parts"]), int(info["pooling"]["tokens"]))
    if (encoder := info["encoder"]) is not None:
        named = [str(encoder[key]) for key in ("name", "fingerprint")]
        widths = [int(width) for width in encoder["channels"]]
        if not all(named) or not widths or len(widths) != len(encoder["level_names"]):
            raise ValueError("its encoder has other levels than channels")
    if not isinstance(info["clips"], list) or not all(isinstance(name, str) for name in info["clips"]):
        raise ValueError("its clips are no list of names")
    if min((int(start) for starts in info["done"].values() for start in starts), default=0) < 0:
        raise ValueError("a window begins before the first frame")
    if not isinstance(info["data"]["name"], str) or not isinstance(info["source"], dict):
        raise ValueError("it does not say where the features come from")


def _account(data: DatasetClips, maker: FeatureMaker) -> dict[str, Any]:
    """Return features.json of features that are begun now."""
    return as_json(
        {
            "format_version": FORMAT_VERSION,
            "package": "sam2vss",
            "data": {
                "root": str(data.root.resolve()),
                "name": data.title,
                "frames": data.num_frames,
                "fingerprints": {clip.name: clip.fingerprint() for clip in data.clips},
                "truth_fingerprints": {name: folder_fingerprint(data.masks[name]) for name in data.names},
            },
            "label_set": data.label_space.to_dict(),
            "encoder": None if maker.encoder is None else describe_encoder(maker.encoder),
            "pooling": {"parts": list(maker.pooling.parts), "tokens": maker.pooling.tokens},
            "window": maker.window,
            "source": dict(maker.source),
            "versions": installed_versions(),
            "clips": list(data.names),
            "done": {},
        }
    )


def _begin(out: Path, asked: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Return the account to go on with: the one that lies there, or the new one."""
    if not (out / INFO_FILE).is_file():
        return asked
    folder = FeatureFolder.open(out)
    stored = folder.info
    differing = [key for key in asked if key not in ("versions", "done") and asked[key] != stored.get(key)]
    if differing:
        raise RunError(
            f"{out} holds features that differ from those asked for in {', '.join(differing)}: ask for the same, "
            "choose another --out, or delete the folder"
        )
    if not resume and not folder.is_complete:
        raise RunError(f"{out} holds features that were begun: go on with --resume, or choose another --out")
    return stored


def _named(space: LabelSpace) -> str:
    return f"{space.num_classes} classes ({', '.join(space.names[:4])}{', ...' if space.num_classes > 4 else ''})"
