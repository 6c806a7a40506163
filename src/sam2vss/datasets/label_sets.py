"""Label sets that the package knows by name, and those in files: `--label-set vspw | vipseg | FILE`."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from ..errors import LabelError, SettingsError
from ..types import WIDE_IGNORE_INDEX, LabelSpace

LABEL_SET_FILE: Final = "label_set.json"
_FOLDER: Final = Path(__file__).parent / "label_sets"
BUILT_IN: Final[Mapping[str, Path]] = {
    "vspw": _FOLDER / "vspw.json",  # raw ids 1..124, void 255 and 0
    "vipseg": _FOLDER / "vipseg.json",  # the same classes as VIPSeg stores them
}


def find_label_space(name_or_path: str | Path) -> LabelSpace:
    """Return a built-in label set by name, or read one from a file.

    Args:
        name_or_path: "vspw", "vipseg", a label_set.json, or a folder that holds one. A file or folder with the name of
            a built-in set is reached as "./vspw".

    Raises:
        LabelError: If there is no such set, or the file is none.
    """
    name = str(name_or_path)
    if name in BUILT_IN:
        return _built_in(name)
    path = Path(name_or_path)
    if path.is_dir():
        path /= LABEL_SET_FILE
    if not path.is_file():
        raise LabelError(
            f"there is no label set {name}: it is neither a file nor a folder with a {LABEL_SET_FILE}, nor one of the "
            f"built-in sets {', '.join(BUILT_IN)}"
        )
    return LabelSpace.from_json(path)


def shift_ids(label_space: LabelSpace, offset: int) -> LabelSpace:
    """Return the label set of files in which every class has its id less `offset`; void ids stay unless taken.

    Raises:
        SettingsError: If an id would leave 0..65535.
    """
    raw_ids = tuple(raw_id - offset for raw_id in label_space.raw_ids)
    if min(raw_ids) < 0 or max(raw_ids) > WIDE_IGNORE_INDEX:
        low, high = min(label_space.raw_ids), max(label_space.raw_ids)
        raise SettingsError(
            f"--id-offset {offset} is added to stored ids to give those of label set {label_space.name or 'in use'}, "
            f"{low}..{high}, so stored ids would be {low - offset}..{high - offset}, expected 0..{WIDE_IGNORE_INDEX}. "
            f"Pass --id-offset={low} where they count from 0, --id-offset={low - 1} where from 1"
        )
    void = tuple(raw_id for raw_id in label_space.raw_void if raw_id not in raw_ids)
    return replace(label_space, raw_ids=raw_ids, raw_void=void)


def plain_name(name: str) -> str:
    """Return a class name without what writers spell differently: case, blanks and underscores."""
    return name.strip().lower().replace(" ", "_")


@lru_cache
def _built_in(name: str) -> LabelSpace:
    return LabelSpace.from_json(BUILT_IN[name])
