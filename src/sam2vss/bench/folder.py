"""The folder of a bench: whether it may be written, and whether what lies there is the bench that is asked for."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..dataset_clips import list_clips
from ..datasets.label_sets import LABEL_SET_FILE
from ..errors import RunError
from ..files import atomic_write_bytes, atomic_write_json, is_temporary, release_lock, take_lock
from .plan import BenchPlan
from .recipes import clip_list, row_settings

PLAN_FILE: Final = "plan.json"
BOARD_FILE: Final = "bench.json"
LOCK_FILE: Final = ".lock"
MADE: Final = ("base", "runs", "classified", "counts", "pictures")  # folders of a bench
FORMAT_VERSION: Final = 1


def describe_folder(out: Path, resume: bool, overwrite: bool) -> str:
    """Say in words what becomes of the folder; see `take_folder` for errors."""
    if resume and overwrite:
        raise RunError("--overwrite starts again and --resume goes on: give one of them")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    if not (out.is_dir() and any(not is_temporary(entry) and entry.name != LOCK_FILE for entry in out.iterdir())):
        return "free"
    if not (out / PLAN_FILE).is_file():
        raise RunError(
            f"{out} is not empty and holds no bench (no {PLAN_FILE} in it): choose another --out, or empty the folder "
            "yourself"
        )
    if overwrite and not _is_ours(out / PLAN_FILE):
        raise RunError(
            f"{out / PLAN_FILE} is not that of a bench, so nothing there is overwritten: choose another --out, or "
            "empty the folder yourself"
        )
    if not (resume or overwrite):
        raise RunError(
            f"{out} already holds a bench: go on with --resume, start again with --overwrite, or choose another --out"
        )
    return "the bench there goes on" if resume else "the rows there are made anew"


def take_folder(plan: BenchPlan, resume: bool, overwrite: bool) -> None:
    """Begin a bench in its folder, or make sure that the one there is the one asked for; note what is asked.

    To go on, data set, clips, sources of the models that both have, and settings must be the same; further models,
    rows and sets of labels may join, and the scores may be asked for in another way.

    Raises:
        RunError: If the folder holds another bench, or labels that are asked for and would be overwritten.
        MediaError: If it cannot be written.
    """
    describe_folder(plan.out, resume, overwrite)
    asked = describe_plan(plan)
    path = plan.out / PLAN_FILE
    if overwrite:
        _clear(plan)
    if resume and path.is_file():
        asked = _joined(path, asked)
    atomic_write_json(path, asked)
    atomic_write_bytes(clip_list(plan), list_clips(plan.data).encode())
    atomic_write_json(plan.out / LABEL_SET_FILE, plan.label_space_of_folders.to_dict())


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from writing into the folder of a bench.

    Raises:
        RunError: If another one does.
        MediaError: If the folder cannot be written.
    """
    take_lock(out / LOCK_FILE)
    try:
        yield
    finally:
        release_lock(out / LOCK_FILE)


def _is_ours(path: Path) -> bool:
    """Tell whether a stored plan is that of a bench, of whatever version."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["package"] == "sam2vss")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _clear(plan: BenchPlan) -> None:
    """Remove what an earlier bench left: rows that an interrupted one does not reach must not be taken for its own."""
    for place in (plan.out / name for name in MADE):
        for labels in (*plan.compare.values(), *(model.labels for model in plan.models if model.labels is not None)):
            if labels.resolve().is_relative_to(place.resolve()):
                raise RunError(f"--overwrite would remove the labels {labels} that are asked for: choose another --out")
    for name in MADE:
        shutil.rmtree(plan.out / name, ignore_errors=True)


def describe_plan(plan: BenchPlan) -> dict[str, Any]:
    """Return what a bench of this plan consists of, as JSON."""
    device = f"{plan.engine.device.split(':')[0]}, {plan.engine.dtype}"
    return {
        "format_version": FORMAT_VERSION,
        "package": "sam2vss",
        "data": str(plan.data.root.resolve()),
        "clips": list(plan.data.names),
        "models": {
            model.name: model.source if model.segmenter is None else f"{model.source}, {device}"
            for model in plan.models
        },
        "compare": {name: str(folder.resolve()) for name, folder in plan.compare.items()},
        "rows": {
            row: row_settings(plan, row) | ({"network": device} if row == "sam2" else {})
            for row in (plan.rows if plan.models else ())
        },
        "networks": {
            f"{network.kind} {network.name}": row_settings(plan, network.row, network) | {"network": device}
            for network in plan.networks
        },
    }


def _joined(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what lies in the folder and what is asked as one plan, after making sure that they agree."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["package"] != "sam2vss" or stored["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {stored['format_version']!r}, expected {FORMAT_VERSION!r}")
        differing = [key for key in ("data", "clips") if stored[key] != asked[key]]
        stored.setdefault("networks", {})  # earlier versions knew none
        for part in ("models", "compare", "rows", "networks"):
            both = stored[part].keys() & asked[part].keys()
            differing += [f"{part}: {name}" for name in sorted(both) if stored[part][name] != asked[part][name]]
        joined = {key: stored[key] | value if isinstance(value, dict) else value for key, value in asked.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} cannot be read as that of a bench ({type(error).__name__}: {error}): choose another --out"
        ) from error
    if differing:
        raise RunError(
            f"{path.parent} holds a bench that differs from the one asked for in {', '.join(differing)}, and --resume "
            "does not mix them: ask for the same, choose another --out, or start again with --overwrite"
        )
    return joined
