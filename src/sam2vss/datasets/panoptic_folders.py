"""Panoptic label maps as they lie in folders: which form a folder has, its videos, and its frames one by one.

Three forms, truth and predictions alike: pictures of VIPSeg's panoptic code, the COCO panoptic form (a JSON beside RGB
pictures), and DEVA's (a JSON for every picture). Whatever the form, a frame is read as classes and instances
(`PanopticMap`), so a reader of semantic labels takes `.semantic` and needs to know no more.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..errors import LabelError, ShapeError
from ..files import atomic_write_bytes, atomic_write_json
from ..types import WIDE_IGNORE_INDEX, LabelSpace
from .deva import DevaMaps, has_segment_list
from .folders import LabelFolders, find_label_folders, natural_key, read_ids, read_segment_ids
from .label_sets import LABEL_SET_FILE, find_label_space
from .panoptic_codes import (
    FrameSegments,
    PanopticMap,
    decode_segments,
    decode_vipseg,
    encode_segments,
    encode_vipseg,
    ids_to_colors,
)
from .panoptic_json import PanopticFile, check_name, panoptic_json, read_panoptic_json
from .vipseg import CATEGORY_LIST, SEGMENT_FOLDER, find_category_difference, find_vipseg, read_splits, select_split

PREDICTION_FILE: Final = "pred.json"
PREDICTION_FOLDER: Final = "pan_pred"
TRUTH_PATTERN: Final = "panoptic_gt_*.json"
FORMS: Final = (
    f"{PREDICTION_FILE} beside {PREDICTION_FOLDER}/<video>/<frame>.png (DVIS, CAVIS), {TRUTH_PATTERN} beside "
    f"{SEGMENT_FOLDER}/<video>/<frame>.png (VIPSeg in the COCO form), <video>/<frame>.json, a list of segments, beside "
    "<video>/<frame>.png (DEVA), or panomasks/<video>/<frame>.png or <video>/<frame>.png in VIPSeg's panoptic code"
)


@dataclass(frozen=True, eq=False)
class PanopticFolders:
    """Panoptic label maps of some videos.

    Attributes:
        label_space: Classes; its raw ids are what the files hold (class numbers of codes, or categories).
        category_space: The same classes with the ids that a JSON without categories has for them.
        frames: File by video and frame (stem), in natural order.
        listed: The JSON of the COCO form; None for the others.
        lists: Reads pictures with a list of segments each (DEVA); None for the others.
        has_crowds: Whether segments can be crowds; those of predictions cannot.
    """

    label_space: LabelSpace
    category_space: LabelSpace
    frames: Mapping[str, Mapping[str, Path]]
    listed: PanopticFile | None = None
    has_crowds: bool = True
    lists: DevaMaps | None = None

    @property
    def has_codes(self) -> bool:
        """Whether the pictures hold panoptic codes, not ids of segments that a JSON explains."""
        return self.listed is None and self.lists is None

    def read(self, video: str, frame: str) -> PanopticMap:
        """Read one frame as classes (train ids of `label_space`) and instances.

        Raises:
            LabelError: If the file cannot be read, or does not fit the label set or the JSON.
            ShapeError: If it has another size than the JSON says.
            KeyError: If there is no such frame.
        """
        path = self.frames[video][frame]
        if self.lists is not None:
            return self.lists.read(path)
        if self.listed is None:
            return decode_vipseg(read_ids(path), self.label_space, str(path))
        ids = read_segment_ids(path)
        expected = self.listed.sizes.get(video, {}).get(frame)
        if expected is not None and ids.shape != expected:
            raise ShapeError(
                f"{path} is {ids.shape[0]} x {ids.shape[1]} (height x width), but {self.listed.path} says "
                f"{expected[0]} x {expected[1]}: write both again"
            )
        segments = self.listed.frames[video][frame]
        return decode_segments(ids, segments, self.label_space, str(path), self.has_crowds)

    def only(self, videos: Mapping[str, object] | tuple[str, ...]) -> "PanopticFolders":
        """Return the same with the named videos alone, in their order."""
        return replace(self, frames={video: self.frames[video] for video in videos})


def open_panoptic(
    path: Path,
    label_space: LabelSpace | None = None,
    category_space: LabelSpace | None = None,
    default_space: LabelSpace | None = None,
    split: str | None = None,
    has_crowds: bool = True,
) -> PanopticFolders:
    """Recognise the form of panoptic label maps and list their frames; nothing is decoded yet.

    Args:
        path: A folder in one of the forms of `FORMS`, or the JSON itself.
        label_space: Label set of panoptic codes; default: that of VIPSeg for a folder `panomasks`, else the
            `label_set.json` in the folder or beside it, else `default_space`. Of a JSON without categories, the classes
            by position. Of DEVA's lists, the same; default: the `label_set.json`, else `category_space`.
        category_space: Label set of a JSON without categories by id; goes before `label_space`.
        default_space: Label set of panoptic codes that have none of their own.
        split: Only the videos of this list ("val": `val.txt`).
        has_crowds: Whether `iscrowd` counts; pass False for predictions.

    Raises:
        LabelError: If nothing of the kind is found, or what is found contradicts itself.
        SettingsError: If there is no list of videos for the split.
    """
    path = Path(path)
    if not path.exists():
        raise LabelError(f"{path} does not exist; expected {FORMS}")
    json_path = path if path.is_file() else _find_json(path, split)
    if json_path is not None:
        found = _open_json(json_path, category_space, label_space, has_crowds)
    else:
        found = _open_lists(path, label_space, category_space) or _open_codes(path, label_space, default_space)
    if split is None or (json_path is not None and json_path.stem.endswith(f"_{split}")):
        return found
    root = path.parent if path.is_file() or path.name == "panomasks" else path
    names = select_split(read_splits(root), split, root)
    absent = [name for name in names if name not in found.frames]
    if absent:
        raise LabelError(
            f"{len(absent)} of {len(names)} videos of split {split} have no panoptic label maps in {path} "
            f"(first: {absent[0]}): fetch them, or take them off {split}.txt"
        )
    return found.only(names)


def write_codes(path: Path, frame: PanopticMap, label_space: LabelSpace) -> None:
    """Write a frame in VIPSeg's panoptic code, a 16-bit grey PNG; see `encode_vipseg`.

    Raises:
        LabelError: If an instance has no code.
        MediaError: If the file cannot be written.
    """
    atomic_write_bytes(path, _encode_png(encode_vipseg(frame, label_space, str(path))))


@dataclass
class PanopticWriter:
    """Writes videos in the COCO panoptic form: RGB pictures as they come, the JSON at the end.

    Attributes:
        root: Folder to write into.
        label_space: Classes; their positions 0..C-1 become the categories, as VIPSeg's conversion has them.
        truth_name: Name of a truth ("VIPSeg_val"): `panoptic_gt_<name>.json` beside `panomasksRGB`. None writes
            predictions: `pred.json` beside `pan_pred`.
    """

    root: Path
    label_space: LabelSpace
    truth_name: str | None = None
    _frames: dict[str, dict[str, FrameSegments]] = field(default_factory=dict, init=False, repr=False)
    _sizes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict, init=False, repr=False)

    @property
    def json_path(self) -> Path:
        name = (
            PREDICTION_FILE if self.truth_name is None else f"panoptic_gt_{check_name(self.truth_name, 'the set')}.json"
        )
        return self.root / name

    def write(self, video: str, frame: str, panoptic: PanopticMap) -> None:
        """Write the picture of one frame.

        Raises:
            LabelError: If a name would lead out of the folder, or an instance number is too large.
            MediaError: If the file cannot be written.
        """
        folder = PREDICTION_FOLDER if self.truth_name is None else SEGMENT_FOLDER
        path = self.root / folder / check_name(video, "the video") / f"{check_name(frame, 'the frame')}.png"
        ids, segments = encode_segments(panoptic, positions(self.label_space))
        atomic_write_bytes(path, _encode_png(ids_to_colors(ids)))
        self._frames.setdefault(video, {})[frame] = segments
        height, width = ids.shape
        self._sizes.setdefault(video, {})[frame] = (height, width)

    def finish(self) -> None:
        """Write the JSON.

        Raises:
            MediaError: If the file cannot be written.
        """
        atomic_write_json(self.json_path, panoptic_json(self._frames, positions(self.label_space), self._sizes))


def positions(label_space: LabelSpace) -> LabelSpace:
    """Return the same classes with their positions 0..C-1 as ids, as VIPSeg's conversion numbers its categories."""
    return replace(label_space, raw_ids=tuple(range(label_space.num_classes)), raw_void=(WIDE_IGNORE_INDEX,))


def _find_json(folder: Path, split: str | None) -> Path | None:
    if (folder / PREDICTION_FILE).is_file():
        return folder / PREDICTION_FILE
    if find_vipseg(folder) is not None:
        return None  # the codes lie beside the JSON, say the same and are read faster
    found = sorted(folder.glob(TRUTH_PATTERN))
    named = [path for path in found if path.stem.endswith(f"_{split}")]
    if len(found) > 1 and len(named) != 1:
        raise LabelError(
            f"{folder} holds {len(found)} lists of segments ({', '.join(path.name for path in found)}); "
            "name one of them as the path, or pass --split"
        )
    return next(iter(named or found), None)


def _open_json(
    path: Path, category_space: LabelSpace | None, label_space: LabelSpace | None, has_crowds: bool
) -> PanopticFolders:
    listed = read_panoptic_json(path)
    space = listed.label_space or category_space or (None if label_space is None else positions(label_space))
    if space is None:
        raise LabelError(f"{path} has no categories: pass --label-set")
    pictures = _find_pictures(path, listed)
    frames = {
        video: {frame: pictures / video / f"{frame}.png" for frame in sorted(segments, key=natural_key)}
        for video, segments in sorted(listed.frames.items(), key=lambda item: natural_key(item[0]))
    }
    _check_pictures(path, pictures, frames)
    return PanopticFolders(space, space, frames, listed, has_crowds)


def _find_pictures(path: Path, listed: PanopticFile) -> Path:
    candidates = [PREDICTION_FOLDER, SEGMENT_FOLDER, path.stem, ""]
    for name in candidates:
        if any((path.parent / name / video).is_dir() for video in listed.frames):
            return path.parent / name
    raise LabelError(
        f"the pictures of {path} are missing: none of its {len(listed.frames)} videos is a folder in "
        f"{', '.join(str(path.parent / name) for name in candidates)}"
    )


def _check_pictures(path: Path, pictures: Path, frames: Mapping[str, Mapping[str, Path]]) -> None:
    """Make sure that JSON and folders hold the same frames; folders of unlisted videos are no concern of this JSON."""
    total = sum(len(stems) for stems in frames.values())
    missing, surplus = [], []
    for video, stems in frames.items():
        folder = pictures / video
        there = {file.stem for file in folder.iterdir() if _is_picture(file)} if folder.is_dir() else set()
        missing += [f"{video}/{stem}.png" for stem in stems if stem not in there]
        surplus += [f"{video}/{stem}.png" for stem in sorted(there - stems.keys(), key=natural_key)]
    if missing:
        raise LabelError(
            f"{len(missing)} of {total} frames that {path} lists have no picture in {pictures} (first: {missing[0]}): "
            "write or fetch them again"
        )
    if surplus:
        raise LabelError(
            f"{pictures} holds {len(surplus)} pictures that {path} does not list (first: {surplus[0]}): picture and "
            "JSON must be written together"
        )


def _is_picture(file: Path) -> bool:
    return file.suffix == ".png" and not file.name.startswith(".")


def _open_codes(path: Path, label_space: LabelSpace | None, default_space: LabelSpace | None) -> PanopticFolders:
    vipseg = find_vipseg(path)
    if vipseg is not None:
        difference = find_category_difference(vipseg.root) if label_space is None else None
        if difference is not None:
            raise LabelError(
                f"the categories of {vipseg.root / CATEGORY_LIST} are not VIPSeg's ({difference}): pass --label-set"
            )
        space = label_space or vipseg.label_space
        return PanopticFolders(space, positions(space), vipseg.videos())
    chosen = label_space or _own_space(path) or default_space
    if chosen is None:
        raise LabelError(
            f"nothing says what the numbers in {path} mean: pass --label-set vipseg or a label_set.json (for "
            f"predictions --prediction-label-set). Known forms: {FORMS}"
        )
    return PanopticFolders(chosen, positions(chosen), find_label_folders(path))


def _open_lists(
    path: Path, label_space: LabelSpace | None, category_space: LabelSpace | None
) -> PanopticFolders | None:
    """Open a folder of pictures with a list of segments each; None if no picture has one."""
    if find_vipseg(path) is not None:
        return None
    frames = find_label_folders(path)
    if not _has_lists(frames):
        return None
    chosen = label_space or _own_space(path)
    space = category_space if chosen is None else positions(chosen)
    if space is None:
        raise LabelError(f"the lists of segments in {path} do not name their categories: pass --label-set")
    return PanopticFolders(space, space, frames, has_crowds=False, lists=DevaMaps(path, space))


def _has_lists(frames: LabelFolders) -> bool:
    """Tell whether any picture has a list of segments: read as codes, the ids in it would be wrong in silence."""
    return any(has_segment_list(picture) for video in frames.values() for picture in video.values())


def _own_space(path: Path) -> LabelSpace | None:
    """Return the label set in a folder or beside it."""
    own = next((place for place in (path, path.parent) if (place / LABEL_SET_FILE).is_file()), None)
    return None if own is None else find_label_space(own)


def _encode_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
