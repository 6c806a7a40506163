"""Run folders: what a run was asked to do, what it has finished, and how to go on with it after a kill.

    run.json         the question (settings, versions, weights, clips planned) and the account (frames, times, status)
    windows.jsonl    one line per finished window, written after the window's files are in place
    labels/ base/ truth/ <video>/<frame>.png, preview/<video>/<frame>.jpg, masklets/<video>/<first frame>.json.gz,
    overlay/<video>.mp4, scores.json, report.html

A window is the unit of progress: its files get their names together, then its line is appended and flushed to the disk.
What has no line is not finished; its window is done again on resume, which replaces its files. `.run.lock` is there
while a process works on the run.
"""

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RunError, ShapeError
from .files import (
    atomic_write_bytes,
    atomic_write_json,
    release_lock,
    safe_name,
    sha256_of,
    take_lock,
    under,
    write_error,
    write_together,
)
from .images import encode_jpeg, encode_label_map
from .masklet_files import encode_masklets, masklet_path
from .media import ClipSource
from .records import WindowRecord
from .run_files import (
    FRAME_FOLDERS,
    LOCK,
    WINDOW_FOLDER,
    clip_names,
    is_passing,
    read_own_run,
    remove_run,
    remove_temporaries,
)
from .run_info import FORMAT_VERSION, as_json, describe, differences, new_info, now, read_info
from .types import LabelSpace, MaskletWindow

__all__ = [
    "FORMAT_VERSION",
    "RunFolder",
    "WindowRecord",
    "atomic_write_bytes",
    "atomic_write_json",
    "safe_name",
    "sha256_of",
    "under",
]

STATUSES = ("running", "done", "incomplete")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the last chunk of every PNG file

logger = logging.getLogger(__name__)


class RunFolder:
    """One run on disk. Make one with `RunFolder.create`, read one with `RunFolder.open`.

    Attributes:
        path: The folder.
        info: Content of `run.json`; change it with `update` and `update_clip`.
        label_space: The label set of the run.
    """

    def __init__(self, path: Path, info: dict[str, Any], windows: Iterable[WindowRecord]) -> None:
        """Hold what was read; use `create` or `open`."""
        self.path = path
        self.info = info
        self.label_space = LabelSpace.from_dict(info["label_set"])
        self._windows: dict[str, dict[int, WindowRecord]] = {clip["name"]: {} for clip in info["clips"]}
        self._written_frames: dict[str, set[str]] = {clip["name"]: set() for clip in info["clips"]}
        for record in windows:
            self._remember(record)

    @classmethod
    def create(
        cls,
        out: Path | str,
        *,
        command: str,
        settings: Mapping[str, Any],
        label_space: LabelSpace,
        clips: Sequence[ClipSource],
        seed: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        weights: Mapping[str, str] | None = None,
        inputs: Iterable[Path] = (),
        overwrite: bool = False,
        resume: bool = False,
    ) -> "RunFolder":
        """Start a run in a folder, or go on with the one that is there.

        Args:
            out: The folder; made if missing. With files in it, `overwrite` or `resume` is needed.
            command: The subcommand, such as "refine".
            settings: Everything that decides the result, as JSON types (nested dictionaries are compared key by key).
            label_space: Classes of the label maps written.
            clips: Clips planned, with distinct names.
            seed: Seed of the run, if it has one.
            device: Device in use, such as "cuda:0".
            dtype: Number format in use, such as "bfloat16".
            weights: SHA-256 of each weights file by model name.
            inputs: Other files and folders that are read (stored labels, weights) and must survive `overwrite`.
            overwrite: Remove the files that the earlier run recorded first; all other files stay.
            resume: Keep finished windows whose files are there; the rest is done again.

        Raises:
            RunError: If the folder is in use, is not ours to overwrite, or holds a run that differs in settings, label
                set, weights, seed, dtype, kind of device or clips.
            MediaError: If the folder cannot be read or written.
        """
        out = Path(out)
        if overwrite and resume:
            raise RunError("--overwrite starts again and --resume goes on: give one of them")
        names = [clip.name for clip in clips]
        if len(set(names)) != len(names) or any(safe_name(name) != name for name in names):
            raise RunError(f"clips need distinct, safe names, found {names[:10]}; `find_clips` gives such names")
        asked = new_info(command, settings, label_space, clips, seed, device, dtype, weights or {})
        try:
            if out.exists() and not out.is_dir():
                raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
            is_used = out.is_dir() and any(not is_passing(entry) for entry in out.iterdir())
        except OSError as error:
            raise write_error(out, error) from error
        if is_used and not (overwrite or resume):
            raise RunError(f"{out} {describe(out)}")
        stored = _read_same_run(out, asked) if is_used and resume else None
        earlier = read_own_run(out, [*(clip.path for clip in clips), *inputs]) if is_used and overwrite else None
        take_lock(out / LOCK)
        try:
            remove_temporaries(out, [*names, *clip_names(earlier or {})])
            if stored is not None:
                return cls._resume(out, stored, asked)
            if earlier is not None:
                remove_run(out, earlier)
            run = cls(out, asked, ())
            run._write_info()
            run._write_manifest(())
        except BaseException:
            release_lock(out / LOCK)
            raise
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Read a run folder, finished or not, and change nothing in it.

        Raises:
            RunError: If the folder holds no run, or one of another format version.
        """
        path = Path(path)
        return cls(path, read_info(path), _read_windows(path / "windows.jsonl"))

    @classmethod
    def _resume(cls, out: Path, stored: dict[str, Any], asked: dict[str, Any]) -> "RunFolder":
        if stored["versions"] != asked["versions"]:
            logger.warning("%s was begun with other package versions; results may differ in the last bits", out)
        stored["resumed"] = [*stored.get("resumed", ()), {"time": now(), "versions": asked["versions"]}]
        stored.update(
            {key: asked[key] for key in ("device", "versions", "code_revision")}, status="running", ended=None
        )
        run = cls(out, stored, ())
        if not run.manifest_path.exists():
            logger.warning("%s is gone: no window counts as finished, all are done again", run.manifest_path)
        finished = [record for record in _read_windows(out / "windows.jsonl") if run._has_all_files(record)]
        for record in finished:
            run._remember(record)
        run._write_manifest(finished)
        run._write_info()
        return run

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def scores_path(self) -> Path:
        return self.path / "scores.json"

    @property
    def manifest_path(self) -> Path:
        return self.path / "windows.jsonl"

    def label_path(self, video: str, frame: str) -> Path:
        """Return where the refined labels of a frame lie."""
        return self._frame_path("labels", video, frame)

    def base_path(self, video: str, frame: str) -> Path:
        """Return where the base labels of a frame lie."""
        return self._frame_path("base", video, frame)

    def truth_path(self, video: str, frame: str) -> Path:
        """Return where the ground truth of a frame lies, if the run has one."""
        return self._frame_path("truth", video, frame)

    def preview_path(self, video: str, frame: str) -> Path:
        """Return where the small picture of a frame lies, if there is one."""
        return self._frame_path("preview", video, frame)

    def overlay_path(self, video: str) -> Path:
        """Return where the overlay video of a clip lies."""
        return under(self.path, self.path / "overlay" / f"{safe_name(video)}.mp4")

    def masklets_path(self, video: str, start: int) -> Path:
        """Return where the masklets of the window that starts at frame `start` lie, if they are saved."""
        return under(self.path, masklet_path(self.path / WINDOW_FOLDER, video, start))

    def finished_windows(self, video: str) -> list[WindowRecord]:
        """Return the finished windows of a clip by start, without their masklets' votes."""
        records = self._windows.get(video, {})
        return [records[start] for start in sorted(records)]

    def read_window(self, video: str, start: int) -> WindowRecord:
        """Read a finished window's line again, with the votes that `finished_windows` leaves out to stay small."""
        windows = _read_windows(self.manifest_path)
        return next(window for window in windows if (window.video, window.start) == (video, start))

    def void_share(self, video: str) -> float | None:
        """Return the fraction of a clip's pixels that came without a base label; None where a window does not say."""
        return _mean_of([record.void for record in self.finished_windows(video)])

    def void_left_share(self, video: str) -> float | None:
        """Return the fraction of a clip's pixels without a refined label; None where a window does not say."""
        return _mean_of([record.void_left for record in self.finished_windows(video)])

    def is_done(self, video: str) -> bool:
        """Tell whether a clip was finished and all its frames are still there, so that nothing is left to do."""
        entry = self.clip_info(video)
        num_frames = sum(record.length for record in self._windows.get(video, {}).values())
        return entry.get("status") == "done" and num_frames == entry.get("frames_decoded") and num_frames > 0

    def commit_window(
        self,
        record: WindowRecord,
        labels: np.ndarray,
        base: np.ndarray | None = None,
        *,
        previews: Mapping[str, np.ndarray] | None = None,
        truth: np.ndarray | None = None,
        masklets: MaskletWindow | None = None,
    ) -> None:
        """Write a finished window: its files first, then its line in the manifest.

        Args:
            record: What to remember; its video must be planned and its frames not yet written.
            labels: Refined labels, train ids (L, H, W).
            base: Base labels of the same form; without them a resumed run does the window again.
            previews: Small pictures, uint8 RGB (h, w, 3), by frame name; any subset of the window's frames.
            truth: Ground truth of the form of `labels`.
            masklets: The window's masklets, where they are to be saved.

        Raises:
            RunError: If the window does not belong to the run or overlaps one that is finished.
            ShapeError: If a map is missing or too many.
            MediaError: If the disk is full or a file cannot be written; the window then counts as not finished.
        """
        self._check_new(record)
        contents: dict[Path, bytes] = {}
        for folder, maps in (("labels", labels), ("base", base), ("truth", truth)):
            if maps is None:
                continue
            if len(maps) != record.length:
                raise ShapeError(f"{folder} hold {len(maps)} maps for a window of {record.length} frames")
            for frame, label_map in zip(record.frames, maps, strict=True):
                path = self._frame_path(folder, record.video, frame)
                contents[path] = encode_label_map(label_map, self.label_space)
        for frame, picture in (previews or {}).items():
            if frame not in record.frames:
                raise ShapeError(f"there is a preview of frame {frame}, which is not in the window")
            contents[self.preview_path(record.video, frame)] = encode_jpeg(picture)
        if masklets is not None:
            contents[self.masklets_path(record.video, record.start)] = encode_masklets(masklets)
        if truth is not None and not self.info.get("has_truth"):
            self.update(has_truth=True)  # so that --overwrite knows whose truth/ is
        if masklets is not None and not self.info.get("has_masklets"):
            self.update(has_masklets=True)
        write_together(contents)
        self._append_line(record)
        self._remember(record)

    def start_clip(self, video: str) -> None:
        """Note that work on a clip begins, or goes on."""
        entry = self.clip_info(video)
        self.update_clip(video, status="running", started=entry["started"] or now(), ended=None, error=None)

    def finish_clip(
        self, video: str, *, frames_decoded: int, frames_refined: int | None = None, error: str | None = None
    ) -> bool:
        """Close the account of a clip: frames expected, decoded, refined, written.

        Args:
            video: Name of the clip.
            frames_decoded: Frames that the source gave.
            frames_refined: Frames with refined labels; default: those written.
            error: What cut the work short, if anything did.

        Returns:
            Whether the clip is complete: no error, and all four counts agree (the expected one where it is known).
        """
        entry = self.clip_info(video)
        written = len(self._written_frames[video])
        refined = written if frames_refined is None else frames_refined
        counts = {frames_decoded, refined, written, entry["frames_expected"]} - {None}
        is_complete = error is None and len(counts) == 1
        self.update_clip(
            video,
            frames_decoded=frames_decoded,
            frames_refined=refined,
            frames_written=written,
            void_share=self.void_share(video),
            void_left_share=self.void_left_share(video),
            status="done" if is_complete else "incomplete",
            ended=now(),
            error=error,
        )
        return is_complete

    def update(self, **changes: Any) -> None:
        """Change top-level entries of `run.json` and write it."""
        self.info.update(as_json(changes))
        self._write_info()

    def update_clip(self, video: str, **changes: Any) -> None:
        """Change entries of one clip in `run.json` (such as frames_decoded, seconds, status) and write it."""
        self.clip_info(video).update(as_json(changes))
        self._write_info()

    def clip_info(self, video: str) -> dict[str, Any]:
        """Return a clip's entry of `run.json`.

        Raises:
            RunError: If the clip is not planned in this run.
        """
        for clip in self.info["clips"]:
            if clip["name"] == video:
                entry: dict[str, Any] = clip
                return entry
        raise RunError(f"{video} is not among the {len(self.info['clips'])} clips of {self.path}")

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Count time spent outside of windows (loading weights, scoring); it is written with the next change."""
        other = self.info["other_seconds"]
        other[stage] = other.get(stage, 0.0) + seconds

    def finish(self, status: str = "done") -> None:
        """Write the final status, "done" or "incomplete", and the time of the end; others may have the folder then."""
        assert status in STATUSES, status
        try:
            self.update(status=status, ended=now())
        finally:
            release_lock(self.path / LOCK)

    def _frame_path(self, folder: str, video: str, frame: str) -> Path:
        path = self.path / folder / safe_name(video) / f"{safe_name(frame)}{FRAME_FOLDERS[folder]}"
        return under(self.path, path)

    def _check_new(self, record: WindowRecord) -> None:
        self.clip_info(record.video)
        stop = record.start + record.length
        for other in self._windows[record.video].values():
            if record.start < other.start + other.length and other.start < stop:
                raise RunError(
                    f"frames {record.start}..{stop - 1} of {record.video} overlap the finished window "
                    f"{other.start}..{other.start + other.length - 1} in {self.path}"
                )
        names = [safe_name(name) for name in record.frames]
        twice = self._written_frames[record.video] & set(names) or {name for name in names if names.count(name) > 1}
        if twice:
            raise RunError(f"{record.video} has several frames of the name {min(twice)}; rename the source's files")

    def _remember(self, record: WindowRecord) -> None:
        self._windows.setdefault(record.video, {})[record.start] = record.without_votes()
        self._written_frames.setdefault(record.video, set()).update(safe_name(name) for name in record.frames)

    def _append_line(self, record: WindowRecord) -> None:
        rest = (json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) + "\n").encode()
        try:
            with open(self.manifest_path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)  # half a line would spoil the next one
                    raise
        except OSError as error:
            raise write_error(self.manifest_path, error) from error

    def _write_manifest(self, records: Iterable[WindowRecord]) -> None:
        lines = [json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) + "\n" for record in records]
        atomic_write_bytes(self.manifest_path, "".join(lines).encode())

    def _write_info(self) -> None:
        for clip in self.info["clips"]:
            clip["seconds"] = _sum_seconds(record.seconds for record in self._windows[clip["name"]].values())
        self.info["seconds"] = _sum_seconds(
            [*(clip["seconds"] for clip in self.info["clips"]), self.info["other_seconds"]]
        )
        atomic_write_json(self.path / "run.json", self.info)

    def _has_all_files(self, record: WindowRecord) -> bool:
        places = (self.label_path, self.base_path)
        missing = [
            frame for frame in record.frames if not all(_is_whole(place(record.video, frame)) for place in places)
        ]
        if missing:
            logger.warning(
                "%s: %d label maps of the window at frame %d are gone or damaged (first: %s): it is done again",
                record.video, len(missing), record.start, missing[0],
            )  # fmt: skip
            return False
        masklets = self.masklets_path(record.video, record.start)
        if self.info.get("has_masklets") and not _is_whole(masklets):
            logger.warning("%s is gone or damaged; the window at frame %d is done again", masklets, record.start)
            return False
        return True


def _is_whole(path: Path) -> bool:
    """Tell whether a PNG or gzip file is there to its end."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
            return True
        with open(path, "rb") as file:
            file.seek(-len(_PNG_END), os.SEEK_END)
            return file.read() == _PNG_END
    except (OSError, EOFError, zlib.error):  # gone, shorter than an ending, or cut off
        return False


def _mean_of(shares: Sequence[tuple[float, ...]]) -> float | None:
    """Return the mean over the frames of all windows; None where a window says nothing."""
    return float(np.mean([share for window in shares for share in window])) if shares and all(shares) else None


def _read_windows(path: Path) -> list[WindowRecord]:
    """Read the finished windows; a last line that was cut short by a kill does not count."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end is not a whole line
        try:
            records.append(WindowRecord.from_dict(json.loads(line)))
        except (ValueError, RunError) as error:
            raise RunError(f"line {number} of {path} is damaged ({error}); start again with --overwrite") from error
    return records


def _read_same_run(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the `run.json` of the run to resume, after making sure that it is the one asked for."""
    stored = read_info(out)
    differing = differences(stored, asked)
    if differing:
        listed = "\n".join(f"  {line}" for line in differing[:20])
        raise RunError(
            f"{out} holds a run that differs from the one asked for, and --resume does not mix them:\n{listed}\n"
            "Ask for the same, or choose another --out, or start again with --overwrite"
        )
    return stored


def _sum_seconds(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for stage, seconds in part.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return {stage: round(seconds, 3) for stage, seconds in total.items()}
