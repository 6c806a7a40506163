"""Panoptic maps as DEVA takes and passes on detections: a JSON list of segments beside every picture of segment ids.

    <video>/<frame>.json    [{"id": 1, "isthing": false, "category_id": 7, "score": 0.9}, ...], score or not
    <video>/<frame>.png     segment ids: palette or grey, or RGB for ids above 255

Source of the form: hkchengrex/Tracking-Anything-with-DEVA, example/vipseg/source and detection_video_reader.py.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LabelError
from ..types import LabelSpace
from .folders import find_label_folders, read_segment_ids
from .panoptic_codes import MAX_SEGMENT_ID, FrameSegments, PanopticMap, decode_segments

FORM = '[{"id": 1, "isthing": false, "category_id": 7}, ...]'


def has_segment_list(picture: Path) -> bool:
    """Tell whether a JSON list lies beside a picture; other JSON files there, such as annotations, are none."""
    with suppress(OSError, UnicodeDecodeError), picture.with_suffix(".json").open(encoding="utf-8-sig") as file:
        return file.read(64).lstrip().startswith("[")
    return False


@dataclass(frozen=True, eq=False)
class DevaMaps:
    """Reads the pictures of a folder as classes and instances.

    Attributes:
        folder: Holds the videos.
        label_space: Its raw ids are the categories.
    """

    folder: Path
    label_space: LabelSpace

    def __post_init__(self) -> None:
        """Make sure that every picture has its list, and every list its picture.

        Raises:
            LabelError: If one has none.
        """
        for frames in find_label_folders(self.folder).values():
            folder = next(iter(frames.values())).parent
            lists = {path.stem for path in folder.glob("*.json") if not path.name.startswith(".")} - {"label_set"}
            for what, other, stems in (
                ("pictures", "JSON list of segments", [stem for stem in frames if stem not in lists]),
                ("lists of segments", "picture", sorted(lists - frames.keys())),
            ):
                if stems:
                    raise LabelError(
                        f"{len(stems)} {what} in {folder} have no {other} (first: {stems[0]}): each frame needs "
                        "<frame>.png and <frame>.json, written together"
                    )

    def read(self, path: Path) -> PanopticMap:
        """Return classes and instances of a frame; the number of an instance is the segment's id.

        Raises:
            LabelError: If picture or list are broken, or do not fit together or the label set.
        """
        segments = read_segment_list(path.with_suffix(".json"), self.label_space)
        return decode_segments(read_segment_ids(path), segments, self.label_space, str(path))

    def read_semantic(self, path: Path) -> np.ndarray:
        """Return train ids or the ignore index, (H, W); errors as `read` has them."""
        return self.read(path).semantic


def read_segment_list(path: Path, label_space: LabelSpace) -> FrameSegments:
    """Read the segments of one frame.

    Args:
        path: The JSON.
        label_space: Its raw ids are the categories; where it says what is a thing, the file must agree.

    Raises:
        LabelError: If the file cannot be read, is no such list, lists an id twice, or takes things for stuff.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise LabelError(f"cannot read the list of segments {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not valid JSON ({error}); it may be cut short: write it again") from error
    if not isinstance(content, list):
        raise LabelError(f"{path} holds a {type(content).__name__}, expected a list of segments such as {FORM}")
    listed: dict[int, int] = {}
    for entry in content:
        segment_id, category = _integer(entry, "id", path), _integer(entry, "category_id", path)
        if not 1 <= segment_id <= MAX_SEGMENT_ID:
            raise LabelError(f"{path} lists segment {segment_id}, expected 1..{MAX_SEGMENT_ID} (0 is void)")
        if segment_id in listed:
            raise LabelError(f"{path} lists segment {segment_id} twice: keep one of them")
        listed[segment_id] = category
        _check_kind(entry, category, path, label_space)
    ids = sorted(listed)
    return FrameSegments(
        np.array(ids, np.int64), np.array([listed[i] for i in ids], np.int64), np.zeros(len(ids), bool)
    )


def _integer(entry: Any, key: str, path: Path) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        found = f"{key} {value!r}" if isinstance(entry, dict) else repr(entry)
        raise LabelError(f"{path} lists a segment with {found}, expected whole numbers as in {FORM}: write it again")
    return value


def _check_kind(entry: dict[str, Any], category: int, path: Path, label_space: LabelSpace) -> None:
    """Refuse lists whose things are stuff in the label set: their categories are then numbered in another way."""
    if "isthing" not in entry or category not in label_space.raw_ids:
        return  # an unknown category is named when the picture is read
    train_id = label_space.raw_ids.index(category)
    name, kind = label_space.names[train_id], label_space.kinds[train_id]
    found = "thing" if entry["isthing"] else "stuff"
    if kind and found != kind:
        raise LabelError(
            f"{path}: category {category} of segment {entry['id']} is {found} there, and {name!r} is {kind} in label "
            f"set {label_space.name or 'in use'}: categories count from {label_space.raw_ids[0]} here. Pass the right "
            "--label-set, or say with --id-offset, where the command has it, what they count from"
        )
