"""How panoptic label maps are stored as numbers: VIPSeg's code, and the segment ids of the COCO panoptic form.

Arrays in, arrays out; which files there are is the business of `panoptic_json` and `panoptic_folders`. Colours are
never decoded into classes: in the COCO form the three channels are the digits of a segment's id, and a list says
which class it has.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ..errors import LabelError, ShapeError
from ..types import WIDE_IGNORE_INDEX, LabelSpace

INSTANCES_PER_CLASS: Final = 100  # VIPSeg README: code = class number x 100 + instance, which starts at 0
UNNUMBERED: Final = INSTANCES_PER_CLASS + 1  # instance of a thing that is stored as a bare class number
MAX_SEGMENT_ID: Final = (1 << 24) - 1


@dataclass(frozen=True, eq=False)
class PanopticMap:
    """Classes and instances of one frame.

    Attributes:
        semantic: Train ids or the ignore index, uint8 or uint16 (H, W).
        instance: Number of the instance, int32 (H, W); 0 where there is none, and for crowds of things.
    """

    semantic: np.ndarray
    instance: np.ndarray

    def __post_init__(self) -> None:
        if self.semantic.ndim != 2 or self.semantic.shape != self.instance.shape or not self.semantic.size:
            raise ShapeError(
                f"classes {self.semantic.shape} and instances {self.instance.shape} must both be (H, W), not empty"
            )


@dataclass(frozen=True, eq=False)
class FrameSegments:
    """The segments that a file lists for one frame, without repeats.

    Attributes:
        ids: Segment ids, int64 (S,), ascending, 1..2^24-1.
        categories: Category of each, int64 (S,).
        is_crowd: bool (S,).
        areas: Pixels of each, int64 (S,), for files that are written; what files say of it is not read, pixels are
            counted.
    """

    ids: np.ndarray
    categories: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray | None = None


def decode_vipseg(codes: np.ndarray, label_space: LabelSpace, what: str = "panoptic map") -> PanopticMap:
    """Turn VIPSeg's panoptic code into classes and instances.

    Numbers up to the largest class number are a class as it is; larger ones are class number x 100 + instance. Instance
    i is numbered i + 1 here, since 0 means a crowd to the metrics; a thing stored as a bare class number is one
    instance of its own, as VIPSeg's conversion to the COCO form has it.

    Args:
        codes: uint8 or uint16 (H, W).
        label_space: Its raw ids are the class numbers (1..124 in VIPSeg), its void ids mean void (0).
        what: Names the map in messages.

    Raises:
        LabelError: If a code belongs to no class.

    Source: VIPSeg-Dataset/VIPSeg-Dataset, README.md and create_panoptic_video_labels.py.
    """
    if codes.dtype not in (np.uint8, np.uint16):
        raise LabelError(f"{what} has dtype {codes.dtype}, expected uint8 or uint16 panoptic codes")
    tables = _vipseg_tables(label_space)
    is_stranger = np.take(tables.is_stranger, codes)
    if is_stranger.any():
        strangers = np.unique(codes[is_stranger])
        raise LabelError(
            f"{what} holds the codes {strangers[:10].tolist()} that are no panoptic codes of label set "
            f"{label_space.name or 'in use'}: expected void {list(label_space.raw_void)}, class numbers "
            f"{min(label_space.raw_ids)}..{max(label_space.raw_ids)}, or class number x 100 + instance. "
            "Pass the right --label-set"
        )
    return PanopticMap(np.take(tables.semantic, codes), np.take(tables.instance, codes))


def encode_vipseg(frame: PanopticMap, label_space: LabelSpace, what: str = "panoptic map") -> np.ndarray:
    """Turn classes and instances into VIPSeg's panoptic code, uint16 (H, W); the inverse of `decode_vipseg`.

    Raises:
        LabelError: If an instance cannot be told from others in this code: of stuff, a crowd, above 100, or of a class
            whose codes are class numbers.
    """
    raw = label_space.to_raw(frame.semantic).astype(np.int64)
    is_thing = _thing_table(label_space)[frame.semantic]
    is_bare = ~is_thing | (frame.instance == UNNUMBERED)
    codes = np.where(is_bare, raw, raw * INSTANCES_PER_CLASS + frame.instance - 1)
    back = _vipseg_tables(label_space)
    clipped = np.clip(codes, 0, WIDE_IGNORE_INDEX)
    is_same = (back.semantic[clipped] == frame.semantic) & (back.instance[clipped] == frame.instance)
    is_same &= clipped == codes
    is_same |= frame.semantic == label_space.ignore_index
    if not is_same.all():
        lost = ~is_same
        first = int(np.flatnonzero(lost)[0])
        name = label_space.names[int(frame.semantic.flat[first])]
        raise LabelError(
            f"{what}: instance {int(frame.instance.flat[first])} of {name!r} has no panoptic code; expected stuff with "
            f"instance 0, things with 1..{INSTANCES_PER_CLASS} (or {UNNUMBERED}, unnumbered). Use the COCO form"
        )
    return codes.astype(np.uint16)


def colors_to_ids(colors: np.ndarray) -> np.ndarray:
    """Return the segment ids R + 256 G + 65536 B of a picture, uint32 (H, W) from uint8 (H, W, 3)."""
    digits = np.zeros((*colors.shape[:2], 4), np.uint8)
    digits[..., :3] = colors
    ids: np.ndarray = digits.view("<u4")[..., 0].astype(np.uint32, copy=False)
    return ids


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """Return the picture that stores segment ids 0..2^24-1, uint8 (H, W, 3)."""
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)


def decode_segments(
    ids: np.ndarray,
    segments: FrameSegments,
    label_space: LabelSpace,
    what: str = "panoptic map",
    has_crowds: bool = True,
) -> PanopticMap:
    """Turn segment ids and the list of segments into classes and instances.

    The instance number is the segment's id, of stuff too, so that two segments of a stuff class stay two; 0 for crowds
    of things.

    Args:
        ids: Segment ids (H, W), 0 = void.
        segments: The segments of this frame.
        label_space: Its raw ids are the categories.
        what: Names the map in messages.
        has_crowds: Whether `is_crowd` counts; that of predictions does not (published VPQ scripts).

    Raises:
        LabelError: If the picture holds segments that are not listed, a listed one has no pixel, a category is not in
            the label set, stuff is a crowd, or there are crowds and the label set does not say what is a thing.
    """
    flat = ids.reshape(-1)
    starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    found = flat[starts].astype(np.int64)
    place = np.searchsorted(segments.ids, found)
    known = np.append(segments.ids, -1)[place] == found
    strangers = np.unique(found[~known & (found != 0)])
    if strangers.size:
        raise LabelError(
            f"{what} holds {len(strangers)} segments that its JSON does not list (first: {strangers[:5].tolist()}); "
            "picture and JSON must be written together"
        )
    absent = np.setdiff1d(segments.ids, found[known])
    if absent.size:
        raise LabelError(
            f"{what} has no pixel of {len(absent)} segments that its JSON lists (first: {absent[:5].tolist()}); "
            "picture and JSON must be written together, resizing included"
        )
    train_ids = _train_ids(segments, label_space, what)
    is_crowd = segments.is_crowd if has_crowds else np.zeros(len(segments.ids), bool)
    if is_crowd.any():  # the only reason to ask what is a thing: classes alone can do without
        _check_crowds(segments, train_ids, is_crowd, label_space, what)
    numbers = np.where(is_crowd, 0, segments.ids)
    lengths = np.diff(starts, append=len(flat))
    semantic = np.append(train_ids, label_space.ignore_index).astype(label_space.dtype)
    index = np.where(known, place, len(segments.ids))
    return PanopticMap(
        np.repeat(semantic[index], lengths).reshape(ids.shape),
        np.repeat(np.append(numbers, 0).astype(np.int32)[index], lengths).reshape(ids.shape),
    )


def _check_crowds(
    segments: FrameSegments, train_ids: np.ndarray, is_crowd: np.ndarray, label_space: LabelSpace, what: str
) -> None:
    stuff = np.flatnonzero(is_crowd & ~_thing_table(label_space)[train_ids])
    if stuff.size:
        raise LabelError(
            f"{what}: segment {int(segments.ids[stuff[0]])} is a crowd of the stuff class "
            f"{label_space.names[int(train_ids[stuff[0]])]!r}; only things have crowds"
        )


def encode_segments(frame: PanopticMap, label_space: LabelSpace) -> tuple[np.ndarray, FrameSegments]:
    """Give every class and instance of a frame a segment id that is the same in all frames of all clips.

    Ids of things are larger than those of stuff, so that the list has stuff first, as VIPSeg's conversion writes it.

    Returns:
        Segment ids, uint32 (H, W), 0 where there is no class, and the list of segments.

    Raises:
        LabelError: If an instance number is too large for 24 bits beside its class.
    """
    room = MAX_SEGMENT_ID // label_space.num_classes
    is_void = frame.semantic == label_space.ignore_index
    if int(frame.instance[~is_void].max(initial=0)) >= room or int(frame.instance[~is_void].min(initial=0)) < 0:
        raise LabelError(f"instance numbers must lie in 0..{room - 1} to become segment ids of 24 bits")
    stuff_first = np.argsort(find_things(label_space), kind="stable")
    rank = np.zeros(label_space.ignore_index + 1, np.int64)
    rank[stuff_first] = np.arange(label_space.num_classes)
    ids = np.where(is_void, 0, 1 + rank[frame.semantic] * room + frame.instance)
    listed, areas = np.unique(ids, return_counts=True)
    listed, areas = listed[listed > 0], areas[listed > 0]
    ranks, instances = np.divmod(listed - 1, room)
    train_ids = stuff_first[ranks]
    is_crowd = _thing_table(label_space)[train_ids] & (instances == 0)
    segments = FrameSegments(listed, np.array(label_space.raw_ids, np.int64)[train_ids], is_crowd, areas)
    return ids.astype(np.uint32), segments


def find_things(label_space: LabelSpace) -> tuple[bool, ...]:
    """Tell which classes are things, in the order of train ids.

    Raises:
        LabelError: If the label set does not say so of every class.
    """
    unknown = [
        name for name, kind in zip(label_space.names, label_space.kinds, strict=True) if kind not in ("thing", "stuff")
    ]
    if unknown:
        raise LabelError(
            f"label set {label_space.name or 'in use'} does not say of {len(unknown)} classes whether they are things "
            f'(first: {unknown[0]!r}): give every class "kind": "thing" or "stuff"'
        )
    return tuple(kind == "thing" for kind in label_space.kinds)


@dataclass(frozen=True, eq=False)
class _CodeTables:
    semantic: np.ndarray
    instance: np.ndarray
    is_stranger: np.ndarray


@lru_cache(maxsize=8)
def _vipseg_tables(label_space: LabelSpace) -> _CodeTables:
    """Class, instance and whether it is none, for every code 0..65535."""
    is_thing = _thing_table(label_space)
    codes = np.arange(WIDE_IGNORE_INDEX + 1)
    is_bare = codes <= max(label_space.raw_ids)
    raw = np.where(is_bare, codes, codes // INSTANCES_PER_CLASS)
    train_of = np.full(WIDE_IGNORE_INDEX + 1, label_space.ignore_index)
    train_of[list(label_space.raw_ids)] = np.arange(label_space.num_classes)
    semantic = train_of[raw]
    is_void = np.isin(codes, label_space.raw_void)
    semantic[is_void] = label_space.ignore_index
    bare_instance = np.where(is_thing[semantic], UNNUMBERED, 0)
    instance = np.where(is_bare, bare_instance, codes % INSTANCES_PER_CLASS + 1)
    is_labelled = semantic != label_space.ignore_index
    return _CodeTables(
        semantic.astype(label_space.dtype), np.where(is_labelled, instance, 0).astype(np.int32), ~is_labelled & ~is_void
    )


def _thing_table(label_space: LabelSpace) -> np.ndarray:
    """Whether a train id or the ignore index is a thing, bool (ignore_index + 1,)."""
    table = np.zeros(label_space.ignore_index + 1, bool)
    table[: label_space.num_classes] = find_things(label_space)
    return table


def _train_ids(segments: FrameSegments, label_space: LabelSpace, what: str) -> np.ndarray:
    table = np.full(WIDE_IGNORE_INDEX + 1, -1, np.int64)
    table[list(label_space.raw_ids)] = np.arange(label_space.num_classes)
    outside = (segments.categories < 0) | (segments.categories > WIDE_IGNORE_INDEX)
    train_ids: np.ndarray = np.where(outside, -1, table[np.where(outside, 0, segments.categories)])
    unknown = np.flatnonzero(train_ids < 0)
    if unknown.size:
        raise LabelError(
            f"{what}: segment {int(segments.ids[unknown[0]])} has the category "
            f"{int(segments.categories[unknown[0]])} that is not in label set {label_space.name or 'in use'} "
            f"({label_space.num_classes} classes, ids {min(label_space.raw_ids)}..{max(label_space.raw_ids)})"
        )
    return train_ids
