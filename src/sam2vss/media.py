"""Frames and timestamps in: videos and folders of pictures as clips that stream forward in constant memory.

`find_clips` turns what a user points at into clips, `Clip.frames()` decodes one, `windows_of` cuts the stream into
windows. Single pictures and label maps are in `images.py`, decoding of videos in `videos.py`, videos out in
`overlay.py`.
"""

import hashlib
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from .errors import MediaError, ShapeError
from .files import byte_size, hash_ends, safe_name
from .images import image_size, read_image, read_label_map, write_label_map
from .types import Frame
from .videos import BrokenVideoError, VideoClip, open_video

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "BrokenVideoError",
    "ClipSource",
    "ImageClip",
    "VideoClip",
    "find_clips",
    "natural_key",
    "open_clip",
    "read_label_map",
    "windows_of",
    "write_label_map",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".3gp",
    ".gif",
)
LIST_SUFFIXES = (".txt", ".lst")

logger = logging.getLogger(__name__)


class ClipSource(Protocol):
    """One clip: T frames of one size that can be streamed any number of times."""

    @property
    def name(self) -> str:
        """Safe folder name."""
        ...

    @property
    def path(self) -> Path: ...

    @property
    def kind(self) -> str:
        """Either "video" or "images"."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the upright frames."""
        ...

    @property
    def frame_rate(self) -> Fraction | None:
        """Average frames per second, None for pictures."""
        ...

    @property
    def time_base(self) -> Fraction | None:
        """Seconds in one unit of `Frame.pts`, None for pictures."""
        ...

    @property
    def num_frames_expected(self) -> int | None:
        """Frames by the container's own count (it may be wrong), None where it has none."""
        ...

    @property
    def num_frames_estimate(self) -> int | None:
        """Frames to plan with: the count, else duration times rate, else None."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Stream all frames from the start, one in memory at a time."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 that tells this input from another one, cheap to compute and stable across copies."""
        ...


@dataclass(frozen=True)
class ImageClip:
    """Pictures of one folder in natural order (frame2 before frame10)."""

    name: str
    path: Path
    files: tuple[Path, ...] = field(repr=False)
    size: tuple[int, int]
    kind: str = field(default="images", init=False)
    frame_rate: None = field(default=None, init=False)
    time_base: None = field(default=None, init=False)

    @property
    def num_frames_expected(self) -> int:
        return len(self.files)

    @property
    def num_frames_estimate(self) -> int:
        return len(self.files)

    def frames(self) -> Iterator[Frame]:
        """Stream the pictures; all heads are read first, so a picture of another size fails before any work is done.

        Raises:
            ShapeError: If a picture has another size than the first one.
            MediaError: If a picture cannot be read.
        """
        for file in self.files:
            self._check_size(file, image_size(file))
        for index, file in enumerate(self.files):
            image = read_image(file)
            self._check_size(file, image.shape[:2])
            yield Frame(image, index, file.stem)

    def fingerprint(self) -> str:
        """Hash names and byte sizes of all pictures, and the ends of the first, middle and last one."""
        digest = hashlib.sha256(b"images-1")
        for file in self.files:
            digest.update(f"\n{file.name}\0{byte_size(file)}".encode("utf-8", "surrogateescape"))
        for file in (self.files[0], self.files[len(self.files) // 2], self.files[-1]):
            hash_ends(digest, file)
        return digest.hexdigest()

    def _check_size(self, file: Path, size: tuple[int, ...]) -> None:
        if size != self.size:
            raise ShapeError(
                f"{file} is {size[0]} x {size[1]} (height x width), but {self.files[0].name} is "
                f"{self.size[0]} x {self.size[1]}: the frames of a clip need one size"
            )


def open_clip(path: Path | str) -> ClipSource:
    """Open one clip: a video file, a picture, a folder of pictures, or a VSPW video folder (`<video>/origin/*.jpg`).

    The first frame is decoded, so a file that is no video fails here.

    Raises:
        MediaError: If there is nothing to open; the message says what was found instead.
    """
    path = Path(path)
    if path.is_dir():
        clip = _image_folder(path)
        if clip is None:
            raise _nothing_found(path, "pictures")
        return clip
    if not path.exists():
        raise MediaError(f"{path} does not exist; give a video file or a folder of pictures")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageClip(safe_name(path.stem), path, (path,), image_size(path))
    return open_video(path)


def find_clips(source: Path | str | Sequence[Path | str]) -> list[ClipSource]:
    """Find the clips behind what a user points at, in natural order, with distinct names.

    Args:
        source: A video file; a folder of pictures; a folder of videos; a data-set root in VSPW layout
            (`ROOT/data/<video>/origin/*.jpg`) or with one folder of pictures a video (`ROOT/<video>/*.jpg`); a text
            file with one of these per line, relative to the text file; or a sequence of all these.

    Raises:
        MediaError: If there is nothing to open; the message says what was found instead.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise MediaError("no source was given, expected a video file, a folder, or a list of them")
    clips = [clip for entry in sources for clip in _clips_of(Path(entry))]
    return _with_distinct_names(clips)


def windows_of(frames: Iterator[Frame], length: int) -> Iterator[list[Frame]]:
    """Cut a stream of frames into lists of `length`, one in memory at a time; the last one may be shorter."""
    if length < 1:
        raise ShapeError(f"window length must be at least 1, found {length}")
    stream = iter(frames)
    while window := list(itertools.islice(stream, length)):
        yield window


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts frame2 before frame10 and ignores case first."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _clips_of(path: Path, lists: tuple[Path, ...] = ()) -> list[ClipSource]:
    """Find the clips of one source; `lists` are the text files that led to it."""
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return _listed_clips(path, lists)
    if not path.is_dir():
        return [open_clip(path)]
    folder = _image_folder(path)
    videos = _files_in(path, VIDEO_SUFFIXES)
    if folder is not None and videos:
        raise MediaError(
            f"{path} holds {len(folder.files)} pictures and {len(videos)} videos side by side; "
            "give the videos by name, or move the pictures to a folder of their own"
        )
    if folder is not None:
        return [folder]
    if videos:
        return [open_clip(video) for video in videos]
    root = path / "data" if (path / "data").is_dir() else path
    clips: list[ClipSource] = []
    for subfolder in _folders_in(root):
        clip = _image_folder(subfolder)
        if clip is None:
            logger.warning("%s holds no pictures and is left out", subfolder)
        else:
            clips.append(clip)
    if not clips:
        raise _nothing_found(path, "pictures, videos or folders of pictures")
    return clips


def _listed_clips(path: Path, lists: tuple[Path, ...]) -> list[ClipSource]:
    lists = (*lists, path.resolve())
    if lists[-1] in lists[:-1]:
        raise MediaError(f"the list {path} names itself: {' -> '.join(file.name for file in lists)}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read the list {path}: {error}") from error
    entries = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise MediaError(f"{path} lists no sources, expected one path per line")
    return [clip for entry in entries for clip in _clips_of(entry, lists)]


def _image_folder(path: Path) -> ImageClip | None:
    """Open the pictures of a folder or of its `origin` subfolder; None if there are none."""
    files = _files_in(path, IMAGE_SUFFIXES)
    if not files and (path / "origin").is_dir():
        files = _files_in(path / "origin", IMAGE_SUFFIXES)
    if not files:
        return None
    by_stem: dict[str, Path] = {}
    for file in files:
        twin = by_stem.setdefault(safe_name(file.stem), file)
        if twin is not file:
            raise MediaError(f"{twin} and {file.name} would share one frame name; keep one of them, or rename it")
    return ImageClip(safe_name(path.resolve().name), path, tuple(files), image_size(files[0]))


def _files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    files = [entry for entry in _entries(folder) if entry.suffix.lower() in suffixes and not entry.is_dir()]
    for file in files:
        if not file.exists():
            raise MediaError(f"{file} is a link to {os.readlink(file)}, which is not there; mend or remove the link")
    return [file for file in files if file.is_file()]


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return the entries that are not hidden, in natural order."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise MediaError(f"cannot read the folder {folder}: {error.strerror}") from error
    return [folder / name for name in sorted(names, key=natural_key)]


def _nothing_found(path: Path, expected: str) -> MediaError:
    entries = _entries(path)
    found = f"{len(entries)} other entries (first: {entries[0].name})" if entries else "nothing"
    return MediaError(
        f"{path} holds {found}, expected {expected}. Pictures end in {', '.join(IMAGE_SUFFIXES[:4])} ..., "
        f"videos in {', '.join(VIDEO_SUFFIXES[:4])} ..."
    )


def _with_distinct_names(clips: list[ClipSource]) -> list[ClipSource]:
    """Append _2, _3, ... to names that were taken before, upper and lower case being the same on some disks."""
    taken: set[str] = set()
    renamed: list[ClipSource] = []
    for clip in clips:
        name, number = clip.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{clip.name}_{number}"
        taken.add(name.casefold())
        assert isinstance(clip, ImageClip | VideoClip)
        renamed.append(replace(clip, name=name))
    return renamed
