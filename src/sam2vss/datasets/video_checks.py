"""What can be wrong inside one video of a data set: partners, sizes, damaged files, strange ids."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from ..errors import LabelError, MediaError
from ..images import image_size, read_image
from .catalogue import PICTURE_SUFFIXES, VideoFolders, visible
from .defects import FETCH_AGAIN, Defect, find_defect
from .folders import natural_key, read_ids
from .predictions import size_text

IdCheck = Callable[[np.ndarray, str], object]
Severity = Literal["error", "warning"]
MACOS_HIDDEN: Final = "._"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, once for all files of a video that share it.

    Attributes:
        severity: "error" if scores or runs would fail or be wrong, else "warning".
        place: Video, or file of the data set.
        problem: What is wrong, with the first offender.
        fix: What to do about it.
        count: How many files, videos or lines have it.
    """

    severity: Severity
    place: str
    problem: str
    fix: str
    count: int = 1


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a frame; those of one kind become one finding."""

    kind: str
    text: str
    fix: str


def check_video(
    name: str, video: VideoFolders, check_ids: IdCheck | None, num_frames: int | None, deep: bool
) -> Iterator[Finding]:
    """Yield what is wrong with one video, one finding per kind of problem.

    Args:
        name: Its name.
        video: Its folders.
        check_ids: Raises `LabelError` for ids that no label map may hold; None: they are not looked at.
        num_frames: Frames it should have, where known.
        deep: Decode every file; else sizes, heads and ends are read, and the first frame's dimensions.
    """
    frames, masks = _files(video.frames, (".jpg", ".jpeg", ".png")), _files(video.masks, (".png",))
    if video.frames == video.masks:  # pictures and label maps in one folder, told apart by their type
        frames = {stem: path for stem, path in frames.items() if path not in masks.values()}
    if not (frames or masks):
        yield Finding("error", name, "holds neither pictures nor label maps", "fetch it again, or delete the folder")
        return
    yield from _check_partners(name, frames, masks)
    count = len(masks or frames)
    if num_frames is not None and count != num_frames:
        yield Finding("error", name, f"holds {count} frames, videos.json says {num_frames}", FETCH_AGAIN)
    yield from _check_hidden(name, video)
    damaged: dict[Defect, list[Path]] = {}
    for path in [*frames.values(), *masks.values()]:
        if defect := find_defect(path):
            damaged.setdefault(defect, []).append(path)
    for defect, paths in damaged.items():
        yield Finding("error", name, f"{_in_video(paths[0])} {defect.problem}", defect.fix, len(paths))
    bad = {path for paths in damaged.values() for path in paths}
    whole = [stem for stem in {**frames, **masks} if not {frames.get(stem), masks.get(stem)} & bad]
    yield from _check_content(name, frames, masks, whole if deep else whole[:1], check_ids, deep)


def _files(folder: Path | None, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the pictures in a folder by stem, in natural order."""
    assert set(suffixes) <= set(PICTURE_SUFFIXES)
    files = [] if folder is None else [path for path in visible(folder) if path.suffix.lower() in suffixes]
    return {path.stem: path for path in sorted(files, key=lambda path: natural_key(path.stem))}


def _check_partners(name: str, frames: Mapping[str, Path], masks: Mapping[str, Path]) -> Iterator[Finding]:
    if not (frames and masks):
        return
    for own, others, one, many in ((frames, masks, "mask", "pictures"), (masks, frames, "picture", "masks")):
        alone = [path for stem, path in own.items() if stem not in others]
        if alone:
            text = f"{len(frames)} pictures and {len(masks)} masks: {many} without {one} (first: {_in_video(alone[0])})"
            yield Finding("error", name, text, f"fetch the missing files, or delete the {many} without one", len(alone))


def _check_hidden(name: str, video: VideoFolders) -> Iterator[Finding]:
    folders = dict.fromkeys(folder for folder in (video.frames, video.masks) if folder)
    hidden = [path for folder in folders for path in sorted(folder.glob(f"{MACOS_HIDDEN}*"))]
    if hidden:
        text = f"holds hidden files that macOS leaves (first: {_in_video(hidden[0])})"
        fix = "not read here, but published scripts count them as frames: delete them"
        yield Finding("warning", name, text, fix, len(hidden))


def _check_content(
    name: str,
    frames: Mapping[str, Path],
    masks: Mapping[str, Path],
    stems: list[str],
    check_ids: IdCheck | None,
    deep: bool,
) -> Iterator[Finding]:
    found: dict[str, list[_Problem]] = {}
    first: tuple[int, int] | None = None
    for stem in stems:
        try:
            size = _size_of(frames.get(stem), masks.get(stem))
            first = first or size
            if size != first:
                text = f"frame {stem} is {size_text(size)}, the first one {size_text(first)}"
                raise _ProblemFoundError(_Problem("frames", text, "a video needs frames of one size: split it"))
            if deep:
                _decode(frames.get(stem), masks.get(stem), check_ids)
        except _ProblemFoundError as error:
            found.setdefault(error.problem.kind, []).append(error.problem)
    for problems in found.values():
        yield Finding("error", name, problems[0].text, problems[0].fix, len(problems))


class _ProblemFoundError(Exception):
    """Carries a problem out of the look at one frame."""

    def __init__(self, problem: _Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def _size_of(frame: Path | None, mask: Path | None) -> tuple[int, int]:
    """Return (H, W) of a frame, which its label map must share."""
    paths = [path for path in (frame, mask) if path is not None]
    try:
        sizes = [image_size(path) for path in paths]
    except MediaError as error:
        raise _ProblemFoundError(_Problem("files", str(error), FETCH_AGAIN)) from error
    if sizes[0] != sizes[-1]:
        text = f"{_in_video(paths[-1])} is {size_text(sizes[-1])}, its picture {size_text(sizes[0])}"
        raise _ProblemFoundError(_Problem("sizes", text, "write label maps at the size of the pictures"))
    return sizes[0]


def _decode(frame: Path | None, mask: Path | None, check_ids: IdCheck | None) -> None:
    try:
        if frame is not None:
            read_image(frame)
        ids = None if mask is None else read_ids(mask)
    except (MediaError, LabelError) as error:
        raise _ProblemFoundError(_Problem("files", str(error), FETCH_AGAIN)) from error
    if ids is None or mask is None or check_ids is None:
        return
    try:
        check_ids(ids, _in_video(mask))
    except LabelError as error:
        raise _ProblemFoundError(_Problem("ids", str(error), "pass the right --label-set")) from error


def _in_video(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
