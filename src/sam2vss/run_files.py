"""The files of a run folder: where they lie, and taking away those of an earlier run without touching anybody else's.

`artifacts.py` writes and resumes runs; this is what it needs to know before it may overwrite one.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import RunError
from .files import is_temporary, is_temporary_of, link_targets, safe_name
from .masklet_files import masklet_path
from .run_info import is_ours

FOLDERS = ("labels", "base", "truth", "preview", "masklets", "overlay")
FRAME_FOLDERS = {"labels": ".png", "base": ".png", "truth": ".png", "preview": ".jpg"}
WINDOW_FOLDER = "masklets"
FILES = ("scores.json", "report.html", "windows.jsonl", "run.json")  # the last two say what is ours: removed last
LOCK = ".run.lock"


def is_passing(entry: Path) -> bool:
    """Tell whether a file at the top of a run folder is only there while a run works, or was killed."""
    return entry.name == LOCK or is_temporary_of(entry, FILES)


def remove_temporaries(out: Path, videos: Iterable[str]) -> None:
    """Remove what killed runs left under temporary names; links are not followed."""
    places = [out / "overlay", *_frame_folders(out, videos)]
    found = [entry for entry in out.iterdir() if is_temporary_of(entry, FILES)]
    for place in places:
        if place.is_dir() and not place.is_symlink() and not place.parent.is_symlink():
            found += [entry for entry in place.iterdir() if is_temporary(entry)]
    for entry in found:
        if entry.is_file() and not entry.is_symlink():
            _remove(entry)


def _frame_folders(out: Path, videos: Iterable[str]) -> list[Path]:
    return [out / folder / safe_name(video) for video in videos for folder in (*FRAME_FOLDERS, WINDOW_FOLDER)]


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot remove {path}: {error.strerror}") from error


def read_own_run(out: Path, inputs: Iterable[Path]) -> dict[str, Any]:
    """Return the `run.json` of the run to overwrite, after making sure that it is ours and holds no input."""
    try:
        info = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        info = None
    if not is_ours(info):
        raise RunError(
            f"{out} is not empty and holds no run of sam2vss (no run.json of ours), so --overwrite does not touch it; "
            "choose another --out, or empty the folder yourself"
        )
    ours = [(out / name).resolve() for name in (*FOLDERS, *FILES)]
    for source in inputs:
        for target in link_targets(source):
            if target == out.resolve() or any(target.is_relative_to(entry) for entry in ours):
                through = "" if target == Path(os.path.realpath(source)) else f" (it leads to {target})"
                raise RunError(f"--overwrite would remove the input {source}{through}; choose another --out")
    return dict(info)


def remove_run(out: Path, info: Mapping[str, Any]) -> None:
    """Remove the files that a run of ours recorded, and folders that are empty then; links are not followed."""
    windows = list(_recorded_frames(out / "windows.jsonl"))
    folders = [name for name in FRAME_FOLDERS if name != "truth" or info.get("has_truth")]
    for video, start, frames in windows:
        for name in folders:
            place = out / name / safe_name(video)
            if not place.is_symlink() and not place.parent.is_symlink():
                for frame in frames:
                    _remove(place / f"{safe_name(frame)}{FRAME_FOLDERS[name]}")
        place = out / WINDOW_FOLDER / safe_name(video)
        if info.get("has_masklets") and not place.is_symlink() and not place.parent.is_symlink():
            _remove(masklet_path(out / WINDOW_FOLDER, video, start))
    if not (out / "overlay").is_symlink():
        for video in clip_names(info):
            _remove(out / "overlay" / f"{safe_name(video)}.mp4")
    if info.get("has_masklets"):
        folders.append(WINDOW_FOLDER)
    videos = {video for video, _, _ in windows}
    emptied = {place for place in _frame_folders(out, videos) if place.parent.name in folders}
    for place in [*sorted(emptied), *(out / name for name in (*folders, "overlay"))]:
        if not place.is_symlink() and not place.parent.is_symlink():
            with suppress(OSError):  # not there, or holds files of others
                place.rmdir()
    for name in FILES:
        _remove(out / name)


def clip_names(info: Mapping[str, Any]) -> list[str]:
    """Return the names of the clips in a `run.json` of any format version."""
    clips = info.get("clips")
    return [
        str(clip["name"])
        for clip in (clips if isinstance(clips, list) else [])
        if isinstance(clip, dict) and "name" in clip
    ]


def _recorded_frames(path: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Yield video, start and frame names of the lines of a manifest that can be read, of any format version."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            window = json.loads(line)
            yield str(window["video"]), int(window["start"]), [str(frame) for frame in window["frames"]]
