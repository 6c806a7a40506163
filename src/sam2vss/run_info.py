"""The content of `run.json`: what was asked, with which software, and how two such questions are compared."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import LabelError, RunError
from .media import ClipSource
from .types import LabelSpace
from .versions import code_revision, installed_versions

FORMAT_VERSION = 1
_COMPARED = ("command", "seed", "dtype", "weights", "label_set", "settings")  # on resume; device by its kind
_ABSENT = object()


def new_info(
    command: str,
    settings: Mapping[str, Any],
    label_space: LabelSpace,
    clips: Sequence[ClipSource],
    seed: int | None,
    device: str,
    dtype: str,
    weights: Mapping[str, str],
) -> dict[str, Any]:
    """Return the `run.json` of a run that begins now."""
    info: dict[str, Any] = as_json(
        {
            "format_version": FORMAT_VERSION,
            "package": "sam2vss",
            "command": command,
            "status": "running",
            "started": now(),
            "ended": None,
            "settings": dict(settings),
            "versions": installed_versions(),
            "code_revision": code_revision(),
            "weights": dict(weights),
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "seconds": {},  # per stage: all windows and other_seconds
            "other_seconds": {},
            "label_set": label_space.to_dict(),
            "clips": [_clip_entry(clip) for clip in clips],
            "resumed": [],
        }
    )
    return info


def _clip_entry(clip: ClipSource) -> dict[str, Any]:
    return {
        "name": clip.name,
        "source": str(clip.path),
        "kind": clip.kind,
        "fingerprint": clip.fingerprint(),
        "size": list(clip.size),
        "rate": None if clip.frame_rate is None else str(clip.frame_rate),
        "time_base": None if clip.time_base is None else str(clip.time_base),
        "frames_expected": clip.num_frames_expected,
        "frames_decoded": None,
        "frames_refined": None,
        "frames_written": None,
        "void_share": None,  # fraction of the pixels without a base label, before any were filled
        "void_left_share": None,  # fraction of the pixels without a refined label
        "started": None,
        "ended": None,
        "seconds": {},
        "status": "planned",
        "error": None,
    }


def as_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring values to the form in which they are read back, so that stored and asked ones compare equal."""
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str, allow_nan=False))
    return plain


def read_info(path: Path) -> dict[str, Any]:
    """Read and check `run.json` of a run folder.

    Raises:
        RunError: If there is none, or it is not ours, damaged, or of another format version.
    """
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} holds no run: there is no run.json in it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path / 'run.json'}: {error}") from error
    if not is_ours(info):
        raise RunError(f"{path / 'run.json'} was not written by sam2vss")
    if info["format_version"] != FORMAT_VERSION:
        raise RunError(
            f"{path} has run format {info['format_version']}, this version of sam2vss reads {FORMAT_VERSION}; "
            "use the version that wrote it, or run again into another --out"
        )
    try:
        LabelSpace.from_dict(info["label_set"])
        compared_entries(info)
    except (KeyError, TypeError, ValueError, AttributeError, LabelError) as error:
        raise RunError(f"{path / 'run.json'} is damaged ({type(error).__name__}: {error})") from error
    return dict(info)


def recorded_command(path: Path) -> str | None:
    """Return the command of the run in a folder, None where there is no run of ours."""
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(info.get("command")) if is_ours(info) else None


def is_ours(info: Any) -> bool:
    """Tell whether a parsed `run.json` was written by this package, in any format version."""
    return isinstance(info, dict) and info.get("package") == "sam2vss" and "format_version" in info


def compared_entries(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that decide the result, and so must agree on resume, as one dictionary of dotted keys."""
    entries = {key: info[key] for key in _COMPARED}
    entries["device"] = info["device"].split(":")[0]
    entries["clips"] = {clip["name"]: {"fingerprint": clip["fingerprint"]} for clip in info["clips"]}
    return _flatten(entries)


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Name every entry that must agree and does not, with both values."""
    old, new = compared_entries(stored), compared_entries(asked)
    return [
        f"{key}: {_shown(old, key)} in the folder, {_shown(new, key)} asked for"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def _flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested dictionaries into one of dotted keys; lists stay values."""
    if not isinstance(content, dict) or not content:
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    if key not in flat:
        return "nothing"
    text = json.dumps(flat[key], ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def describe(out: Path) -> str:
    """Say in words what a folder with files in it holds, and what the user can do."""
    try:
        info = read_info(out)
    except RunError as error:
        return (
            f"is not empty and holds no run to go on with ({error}): choose another --out, or empty the folder yourself"
        )
    num_done = sum(clip.get("status") == "done" for clip in info["clips"])
    return (
        f"already holds a run (status {info.get('status')}, {num_done} of {len(info['clips'])} clips done): "
        "go on with --resume, start again with --overwrite, or choose another --out"
    )


def now() -> str:
    """Return the time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
