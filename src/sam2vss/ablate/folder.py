"""The folder of an ablation: what was asked, compared before work goes on, and where everything lies.

    sweep.json                       what it rests on: clips, labels, weights, number format
    cache/labels/<kind>/<clip>/      base labels, smoothed ones, probabilities
    cache/candidates/                candidates of frames, for thresholds to come
    cache/tracks/                    masklets: the checkpoints, and what the network did for them
    counts/<windows>/<clip>/         counts of every point, by its key, and of the base labels
    clips.txt, label_set.json        clips and classes, as `sam2vss refine` takes them

The grid may change from sweep to sweep: points that are there already are not done again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..errors import RunError
from ..files import atomic_write_json, byte_size, folder_fingerprint, hash_ends, release_lock, take_lock
from ..run_info import as_json
from ..sam2.loading import find_sam2
from ..segmenters import find_segmenter
from ..versions import code_revision, installed_versions
from .plan import AblationPlan

FORMAT_VERSION: Final = 1
_COMPARED: Final = ("sam2", "image_size", "device", "dtype", "chunk", "labels", "label_set", "truth_label_set")


class AblationFolder:
    """Paths below the folder of an ablation."""

    def __init__(self, out: Path) -> None:
        self.out = Path(out)

    @property
    def info(self) -> Path:
        return self.out / "sweep.json"

    @property
    def labels(self) -> Path:
        return self.out / "cache" / "labels"

    @property
    def candidates(self) -> Path:
        return self.out / "cache" / "candidates"

    @property
    def tracks(self) -> Path:
        return self.out / "cache" / "tracks"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here."""
        if self.out.exists() and not self.out.is_dir():
            raise RunError(f"{self.out} is a file, expected a folder to write into; choose another --out")
        path = self.out / ".lock"
        take_lock(path)
        try:
            yield
        finally:
            release_lock(path)


def describe(plan: AblationPlan) -> dict[str, Any]:
    """Return what the files of an ablation rest on; reads all weights."""
    location = find_sam2(plan.sam2)
    content = {
        "format_version": FORMAT_VERSION,
        "command": "ablate",
        "sam2": {"id": location.id, "sha256": location.sha256()},
        "image_size": plan.image_size,
        "device": plan.device.split(":")[0],
        "dtype": plan.dtype,
        "chunk": plan.chunk,
        "labels": {
            "folder": None if plan.labels is None else folder_fingerprint(plan.labels, plan.out),
            **({} if not plan.id_offset else {"id_offset": plan.id_offset}),
            "segmenter": None if plan.labels is not None else _segmenter(plan.segmenter),
        },
        "label_set": plan.label_space.to_dict(),
        "truth_label_set": plan.data.label_space.to_dict(),
        "clips": {clip.name: clip.fingerprint() for clip in plan.data.clips},
        "truth": {name: _truth_fingerprint(truth.files) for name, truth in plan.truth().items()},
        "versions": installed_versions(),
        "code_revision": code_revision(),
    }
    found: dict[str, Any] = as_json(content)
    return found


def open_folder(plan: AblationPlan, resume: bool, overwrite: bool) -> AblationFolder:
    """Make the folder, or go on with the one that is there.

    Raises:
        RunError: If there is one and nothing was said about it, it holds something else, or it rests on other clips,
            labels or weights.
    """
    folder = AblationFolder(plan.out)
    stored = _read_info(folder, overwrite)
    asked = describe(plan)
    if stored is not None and not overwrite:
        if not resume:
            raise RunError(
                f"{plan.out} holds an ablation already: pass --resume to go on, or --overwrite to start anew"
            )
        _check_same(stored, asked, plan.out)
        for part in ("clips", "truth"):
            asked[part] = {**stored[part], **asked[part]}
    if overwrite:
        _clear(folder)
    atomic_write_json(folder.info, asked)
    return folder


def _read_info(folder: AblationFolder, overwrite: bool) -> dict[str, Any] | None:
    """Return what an earlier sweep noted, None where there was none; to overwrite it, it only has to be ours."""
    if not folder.info.exists():
        if folder.out.is_dir() and any(entry.name != ".lock" for entry in folder.out.iterdir()):
            raise RunError(f"{folder.out} is not empty and holds no ablation: choose another --out")
        return None
    try:
        content: dict[str, Any] = json.loads(folder.info.read_text(encoding="utf-8"))
        if content["command"] != "ablate":
            raise ValueError("it was not written by ablate")
        if overwrite:
            return content
        version = content["format_version"]
        if not isinstance(content["clips"], dict) or not isinstance(content["truth"], dict):
            raise ValueError("clips or truth are no mappings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder.info} cannot be read as that of an ablation ({error!r}), so nothing there is touched: choose "
            "another --out, or empty the folder yourself"
        ) from error
    if version != FORMAT_VERSION:
        raise RunError(f"{folder.info} has format {version!r}, expected {FORMAT_VERSION}: start anew with --overwrite")
    return content


def _check_same(stored: Mapping[str, Any], asked: Mapping[str, Any], out: Path) -> None:
    for key in _COMPARED:
        if stored.get(key) != asked[key]:
            raise RunError(
                f"{out} was made with another {key} ({_short(stored.get(key))}, now {_short(asked[key])}): "
                "pass the same again, choose another --out, or start anew with --overwrite"
            )
    for part in ("clips", "truth"):
        for name, fingerprint in asked[part].items():
            if stored[part].get(name, fingerprint) != fingerprint:
                raise RunError(
                    f"the {'pictures' if part == 'clips' else 'truth'} of clip {name} changed since {out} was made: "
                    "choose another --out, or start anew with --overwrite"
                )


def _clear(folder: AblationFolder) -> None:
    """Remove what an earlier ablation left, and nothing else."""
    for place in (folder.out / "cache", folder.out / "counts"):
        shutil.rmtree(place, ignore_errors=True)


def _segmenter(name: str) -> dict[str, Any]:
    location = find_segmenter(name)
    return {"id": location.id, "sha256": location.sha256()}


def _truth_fingerprint(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(b"truth-1")
    for stem, path in files.items():
        digest.update(f"\n{stem}\0{byte_size(path)}".encode("utf-8", "surrogateescape"))
    paths = list(files.values())
    for path in (paths[0], paths[len(paths) // 2], paths[-1]) if paths else ():
        hash_ends(digest, path)
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
