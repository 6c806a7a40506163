"""What a report says about a run, read from its folder: numbers per frame, scores and warnings.

Works on finished and unfinished runs; all files but `run.json` may be missing. `report_frames.py` adds the pictures,
`report.py` turns both into a page.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import RunError, Sam2VssError
from .files import safe_name
from .report_labels import LabelSet, LabelWords, label_sets, label_words
from .run_info import FORMAT_VERSION, is_ours
from .types import LabelSpace

SERIES = ("coverage", "changed", "flip_base", "flip_refined")  # per-frame lists of windows.jsonl, fractions
SERIES_WITHOUT_BASE = ("coverage", "flip_refined")
FINISHED = {"done", "finished", "complete", "completed", "ok"}


@dataclass(frozen=True)
class ClipRecord:
    """What a run folder says about one clip: every finished frame in order, with its numbers.

    Attributes:
        name: Folder name of the clip.
        frames: File stems of the finished frames.
        times_s: Presentation time of each frame, None where the source has none.
        series: Per-frame fractions by name (`SERIES`, and "flip_" + key of further label sets), None where unknown.
        windows: Its lines of `windows.jsonl`, by start.
        counts: Its entry in `run.json`.
    """

    name: str
    frames: tuple[str, ...]
    times_s: tuple[float | None, ...]
    series: Mapping[str, list[float | None]]
    windows: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """A run folder as read.

    Attributes:
        folder: Where it lies.
        info: Its `run.json`.
        label_space: Its classes.
        words: How to speak of its labels.
        label_sets: What its viewer shows, in order.
        clips: Its clips. Where there are no base labels, they hold no numbers about them.
        scores: Its `scores.json`, without an entry about base labels that there are none of.
        warnings: What was found wrong on the way, in plain words.
    """

    folder: Path
    info: Mapping[str, Any]
    label_space: LabelSpace
    words: LabelWords
    label_sets: tuple[LabelSet, ...]
    clips: tuple[ClipRecord, ...]
    scores: Mapping[str, Any]
    warnings: list[str] = field(default_factory=list)


def read_run(run_dir: Path, others: Mapping[str, Path] | None = None) -> RunRecord:
    """Read `run.json`, `windows.jsonl` and `scores.json`; the last two may be missing or cut short.

    Args:
        run_dir: The run folder.
        others: Folders of further label maps by name; one that is missing is named in the warnings and left out.

    Raises:
        RunError: If the folder is not of a run of ours, or a file in it is damaged.
    """
    if not os.path.isfile(run_dir / "run.json"):  # Path.is_file raises for names that are too long
        raise RunError(
            f"{run_dir} is not a run folder: it holds no run.json. "
            "Pass a folder written by `sam2vss refine`, `classify`, `demo`, `bench` or `ablate`."
        )
    info = _read_json(run_dir / "run.json")
    if not is_ours(info):
        raise RunError(
            f"{run_dir / 'run.json'} was not written by sam2vss; pass a folder of `sam2vss refine`, "
            "`classify` or `demo`"
        )
    if info["format_version"] != FORMAT_VERSION:
        raise RunError(
            f"{run_dir} has run format {info['format_version']}, this version of sam2vss reads {FORMAT_VERSION}; "
            "use the version that wrote it"
        )
    warnings: list[str] = []
    label_set = info.get("label_set")
    if isinstance(label_set, Mapping):
        try:
            label_space = LabelSpace.from_dict(label_set)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, Sam2VssError) as error:
            raise RunError(f"{run_dir / 'run.json'} holds a damaged label_set ({error!r})") from error
    else:
        label_space = LabelSpace.numbered(255)
        warnings.append("The run does not say what its classes are called: they are numbered here.")
    words = label_words(info)
    lines = _read_windows(run_dir / "windows.jsonl", warnings)
    counts = _read_counts(info.get("clips"), warnings)
    for name in lines:
        counts.setdefault(name, {})
    keys = SERIES if words.has_base else SERIES_WITHOUT_BASE
    clips = tuple(_read_clip(run_dir, name, lines.get(name, []), entry, keys) for name, entry in counts.items())
    scores = _read_json(run_dir / "scores.json") if (run_dir / "scores.json").is_file() else {}
    if not words.has_base:
        scores = {name: entry for name, entry in scores.items() if name != "base"}
    sets = label_sets(run_dir, words, _existing(others or {}, warnings))
    run = RunRecord(run_dir, info, label_space, words, sets, clips, scores, warnings)
    warnings.extend(_account(run))
    return run


def _existing(others: Mapping[str, Path], warnings: list[str]) -> dict[str, Path]:
    """Return the folders that are there; the rest is named in a warning."""
    for name, folder in others.items():
        if not os.path.isdir(folder):
            warnings.append(f"{name}: there is no folder {folder}, so its labels are not shown.")
    return {name: Path(folder) for name, folder in others.items() if os.path.isdir(folder)}


def _read_counts(clips: Any, warnings: list[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of clips in `run.json` by name; what is no such entry is counted in a warning."""
    listed = clips if isinstance(clips, list) else []
    counts = {str(entry["name"]): entry for entry in listed if isinstance(entry, dict) and "name" in entry}
    damaged = len(listed) - len(counts) if isinstance(clips, list | None) else 1
    if damaged:
        warnings.append(f"run.json lists clips that cannot be read ({damaged}); they are left out of this page.")
    return counts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}. Run the step that writes it again.") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _read_windows(path: Path, warnings: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the finished windows of each clip by start. A window written twice counts once, the later line wins."""
    by_clip: dict[str, dict[int, dict[str, Any]]] = {}
    damaged = 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []:
        try:
            window = _check_window(json.loads(line))
            by_clip.setdefault(str(window["video"]), {})[int(window["start"])] = window
        except (ValueError, KeyError, TypeError, OverflowError):  # int(Infinity) overflows
            damaged += bool(line.strip())  # the line a killed run was writing
    if damaged:
        warnings.append(f"{counted(damaged, 'line')} of windows.jsonl cannot be read and is left out of this page.")
    return {name: [windows[start] for start in sorted(windows)] for name, windows in by_clip.items()}


def _check_window(window: dict[str, Any]) -> dict[str, Any]:
    """Return a line of `windows.jsonl` whose lists are lists; TypeError says that they are not."""
    masklets = window.get("masklets") or []
    if not isinstance(window["frames"], list) or not isinstance(masklets, list):
        raise TypeError("frames and masklets are lists")
    if not all(isinstance(masklet, dict) for masklet in masklets):
        raise TypeError("masklets are objects")
    return window


def _read_clip(
    run_dir: Path,
    name: str,
    windows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Any],
    keys: Sequence[str],
) -> ClipRecord:
    """Join the windows of a clip; without any, the label files themselves say which frames there are."""
    frames: list[str] = []
    times_s: list[float | None] = []
    series: dict[str, list[float | None]] = {key: [] for key in keys}
    for window in windows:
        names = [str(frame) for frame in window.get("frames") or []]
        times_s.extend(_times(window, counts, len(frames), len(names)))
        for key in keys:
            series[key].extend(_padded(window.get(key), len(names)))
        frames.extend(names)
    if not windows:
        folder = run_dir / "labels" / safe_name(name)
        frames = (
            sorted((path.stem for path in folder.glob("*.png")), key=_natural) if is_inside(run_dir, folder) else []
        )
        times_s = [None] * len(frames)
    series = {key: values for key, values in series.items() if any(value is not None for value in values)}
    return ClipRecord(name, tuple(frames), tuple(times_s), series, tuple(windows), counts)


def _times(window: Mapping[str, Any], counts: Mapping[str, Any], first: int, length: int) -> list[float | None]:
    """Return the seconds of a window's frames: as stored, from time stamps, or from a constant rate, else None."""
    if window.get("time_s"):
        return _padded(window["time_s"], length)
    time_base, rate = _fraction(counts.get("time_base")), _fraction(counts.get("fps", counts.get("rate")))
    if time_base and window.get("pts"):
        return [None if pts is None else to_number(pts * float(time_base)) for pts in _padded(window["pts"], length)]
    return [to_number((first + i) / float(rate)) if rate else None for i in range(length)]


def _fraction(value: Any) -> Fraction | None:
    """Read a rate such as 25, "30000/1001" or [1, 90000]; None when there is none or it is not positive."""
    try:
        parsed = Fraction(*value) if isinstance(value, list) else Fraction(value)
        return parsed if float(parsed) > 0 else None
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


def _padded(values: Any, length: int) -> list[float | None]:
    """Return `length` finite numbers or None from a list of JSON that may be missing, shorter, or hold NaN."""
    numbers = [to_number(value) for value in (values if isinstance(values, list) else [])][:length]
    return numbers + [None] * (length - len(numbers))


def to_number(value: Any) -> float | None:
    """Return a finite number, None for all else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which frame 9 comes before frame 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"([0-9]+)", name)]


def is_inside(run_dir: Path, path: Path) -> bool:
    """Tell whether a path stays in the run folder, symbolic links followed, as it must in folders from strangers."""
    return path.resolve().is_relative_to(run_dir.resolve())


def _account(run: RunRecord) -> Iterator[str]:
    """Yield in plain words what does not add up between planned, decoded, refined and written frames."""
    status, result = str(run.info.get("status", "")), run.words.result
    if status.lower() not in FINISHED:
        state = f"its status is “{status}”" if status else "run.json names no status"
        yield f"This run is not finished ({state}). The page shows what is there so far."
    for clip in run.clips:
        expected, decoded, refined, written = (
            to_number(clip.counts.get(f"frames_{stage}")) for stage in ("expected", "decoded", "refined", "written")
        )
        if clip.counts.get("error"):
            yield f"{clip.name}: {clip.counts['error']}"
        if expected is not None and decoded is not None and decoded < expected:
            yield (
                f"{clip.name}: decoded {decoded:.0f} of {expected:.0f} expected frames. The file may be cut short or "
                "damaged; the missing frames have no labels."
            )
        if expected is not None and decoded is not None and decoded > expected:
            yield f"{clip.name}: decoded {decoded:.0f} frames where the file announced {expected:.0f}."
        if decoded is not None and refined is not None and refined < decoded:
            yield f"{clip.name}: {result} {refined:.0f} of {decoded:.0f} decoded frames; the rest has no labels yet."
        if refined is not None and written is not None and written != refined:
            yield f"{clip.name}: wrote {written:.0f} label maps for {refined:.0f} {result} frames."


def num_masklets(window: Mapping[str, Any]) -> int:
    """Return how many masklets a line of `windows.jsonl` speaks of."""
    return int(to_number(window.get("num_masklets")) or len(window.get("masklets") or []))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
