"""Whether stored class ids start where a label set says: files from 0 on and from 1 on look alike.

VSPW's truth holds 1..124 and 0 for void, while models write its classes as 0..123, and a wrong guess shifts all classes
in silence. A sample of a folder is looked at, and where that does not tell which it is, the user has to say.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..errors import LabelError
from ..types import WIDE_IGNORE_INDEX, LabelSpace
from .folders import find_label_folders, read_ids
from .label_sets import BUILT_IN, LABEL_SET_FILE, find_label_space
from .vspw import CLASS_LIST

SAMPLE: Final = 64  # ours: maps looked at, evenly spread over a folder; a third of a second at 480p

logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    """What a sample of label maps holds.

    Attributes:
        count: Pixels by id, int64 (65536,).
        first: A file that holds the id, by id.
        maps: How many maps were read.
        colored_zero: A palette file that has a colour for id 0, if there is one.
    """

    count: np.ndarray
    first: dict[int, Path]
    maps: int = 0
    colored_zero: Path | None = None


def check_id_start(folder: Path, label_space: LabelSpace) -> None:
    """Refuse a folder of class ids that are, or may well be, one off; log a warning where nothing tells.

    Folders that say themselves what their ids mean (a run of ours, a `label_set.json` in it, VSPW's own layout) are
    trusted, and label sets whose ids do not count up from 0 or 1 are not looked at.

    Raises:
        LabelError: If maps of a label set from 0 on hold one id beyond its last and no 0; if those of a set from 1 on
            hold 0, which is no id of it; or if those of a built-in set hold 0, its void, and never its last id, so that
            both readings fit.
    """
    ids = np.asarray(label_space.raw_ids)
    first, last = int(ids[0]), int(ids[-1])
    if len(ids) < 2 or first not in (0, 1) or (np.diff(ids) != 1).any() or _describes_itself(folder):
        return
    seen = _look_at(folder)
    if not seen.maps or not seen.count.any():
        return
    name = label_space.name or "in use"
    if first == 0:
        _check_from_zero(folder, label_space, seen)
        return
    if seen.count[last]:
        return  # no map whose ids start at 0 holds it
    holds_zero = bool(seen.count[0])
    if holds_zero and 0 not in label_space.raw_void:
        raise LabelError(
            f"{seen.first[0]} holds id 0, which is not in label set {name} (ids {first}..{last}), and no map that was "
            f"looked at holds {last}: the ids seem to start at 0. Pass --id-offset 1, or the right --label-set"
        )
    if _is_built_in(label_space) and (holds_zero or seen.colored_zero is not None):
        share = 100 * seen.count[0] / seen.count.sum()
        found = (
            f"hold id 0 ({share:.1f} % of the pixels of {seen.maps} maps) and never {last}"
            if holds_zero
            else f"never hold {last}, and the palette of {seen.colored_zero} has a colour for 0"
        )
        raise LabelError(
            f"the label maps in {folder} {found}: in label set {name} 0 is void and {first} is "
            f"{label_space.names[0]!r}, while CFFM, MRCFA, TV3S, DVIS and mmsegmentation write "
            f"{label_space.names[0]!r} as 0. Pass --id-offset 1 if these ids start at 0, or --id-offset 0 if they are "
            "right as they are"
        )
    _warn(folder, label_space, seen, 1)


def _check_from_zero(folder: Path, label_space: LabelSpace, seen: _Seen) -> None:
    if seen.count[0]:
        return  # no map whose ids start at 1 holds it, but as void
    beyond = label_space.num_classes
    if seen.count[beyond] and beyond not in label_space.raw_void:
        raise LabelError(
            f"{seen.first[beyond]} holds the ids [{beyond}] that are not in label set {label_space.name or 'in use'} "
            f"(ids 0..{beyond - 1}), and none of {seen.maps} maps in {folder} holds 0: the ids seem to start at 1. "
            "Pass --id-offset=-1, or the right --label-set"
        )
    _warn(folder, label_space, seen, -1)


def _warn(folder: Path, label_space: LabelSpace, seen: _Seen, offset: int) -> None:
    logger.warning(
        "nothing in %d maps of %s tells whether their ids start at 0 or at 1; they are read as label set %s has them, "
        "from %d on. --id-offset 0 says that this is right, --id-offset=%d that they start at %d",
        seen.maps, folder, label_space.name or "in use", label_space.raw_ids[0], offset,
        label_space.raw_ids[0] - offset,
    )  # fmt: skip


def _describes_itself(folder: Path) -> bool:
    is_truth = (folder / CLASS_LIST).is_file() or any(folder.glob("data/*/origin"))
    has_own = (folder / LABEL_SET_FILE).is_file()
    return is_truth or has_own or any((place / "run.json").is_file() for place in (folder, folder.parent))


def _is_built_in(label_space: LabelSpace) -> bool:
    built_in = [find_label_space(name) for name in BUILT_IN]
    return any((label_space.raw_ids, label_space.names) == (space.raw_ids, space.names) for space in built_in)


def sample_of(folder: Path) -> list[Path]:
    """Return up to `SAMPLE` label maps, evenly spread over a folder; none where the layout is unknown."""
    paths: list[Path] = []
    with suppress(LabelError, OSError):
        paths = list(chain.from_iterable(frames.values() for frames in find_label_folders(folder).values()))
    numbers = np.unique(np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).astype(int)).tolist()
    return [paths[number] for number in numbers]


def _look_at(folder: Path) -> _Seen:
    """Count the ids in a sample of maps; what cannot be read is reported by those who need it."""
    seen = _Seen(np.zeros(WIDE_IGNORE_INDEX + 1, np.int64), {})
    for path in sample_of(folder):
        with suppress(LabelError):
            counts = np.bincount(read_ids(path).reshape(-1), minlength=WIDE_IGNORE_INDEX + 1)
            for raw_id in np.flatnonzero(counts).tolist():
                seen.first.setdefault(raw_id, path)
            seen.count += counts
            seen.maps += 1
            if seen.colored_zero is None and _colors_zero(path):
                seen.colored_zero = path
    return seen


def _colors_zero(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "P" and any((image.getpalette("RGB") or [0])[:3])
