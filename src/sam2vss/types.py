"""The few frozen types that carry data between modules.

They check themselves when made, so the code behind a border need not check again. Arrays are numpy; torch
stays inside the engine and the models.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .errors import LabelError, ShapeError

IGNORE_INDEX = 255  # of label sets with at most 255 classes; larger ones use WIDE_IGNORE_INDEX and uint16 maps
WIDE_IGNORE_INDEX = 65535


def voc_palette(num_colors: int) -> np.ndarray:
    """Return the PASCAL VOC bit-pattern palette, uint8 (num_colors, 3): distinct colours for any number of classes."""
    ids = np.arange(num_colors, dtype=np.int64)
    palette = np.zeros((num_colors, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class LabelSpace:
    """C class names with colours, and how their numbers are stored in files.

    In memory a label map holds train ids 0..C-1 or the ignore index (255; 65535 above 255 classes). Files may use
    other numbers (raw ids), e.g. VSPW stores classes as 1..124 and void as 0 and 255.

    Attributes:
        names: Class names by train id.
        palette: Colours, uint8 (C, 3), RGB.
        raw_ids: Raw id of each class; default 0..C-1.
        raw_void: Raw ids that mean "ignore"; default: the ignore index. The first one is written to files.
        kinds: "thing", "stuff" or "" per class.
        name: Name of the label set.
    """

    names: tuple[str, ...]
    palette: np.ndarray = field(repr=False)
    raw_ids: tuple[int, ...] = ()
    raw_void: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        num_classes = len(self.names)
        if not 1 <= num_classes <= WIDE_IGNORE_INDEX:
            raise LabelError(f"a label set needs 1 to {WIDE_IGNORE_INDEX} classes, found {num_classes}")
        set_field = object.__setattr__
        set_field(self, "names", tuple(self.names))
        set_field(self, "palette", _as_colors(self.palette))
        set_field(self, "raw_ids", tuple(self.raw_ids) or tuple(range(num_classes)))
        set_field(self, "raw_void", tuple(self.raw_void) or (self.ignore_index,))
        set_field(self, "kinds", tuple(self.kinds) or ("",) * num_classes)
        _check_integers(self.raw_ids + self.raw_void)
        if self.palette.shape != (num_classes, 3):
            raise LabelError(f"palette has shape {self.palette.shape}, expected ({num_classes}, 3), one colour a class")
        if len(self.raw_ids) != num_classes or len(self.kinds) != num_classes:
            raise LabelError(
                f"{num_classes} names, but {len(self.raw_ids)} raw ids and {len(self.kinds)} kinds: give one per class"
            )
        clashes = set(self.raw_ids) & set(self.raw_void)
        if len(set(self.raw_ids)) != num_classes or clashes:
            twice = [raw_id for raw_id, count in Counter(self.raw_ids).items() if count > 1]
            found = f"{twice[:10]} more than once" if twice else f"{sorted(clashes)[:10]} among both"
            raise LabelError(f"raw ids must be distinct and differ from void, found {found}")
        outside = [raw_id for raw_id in self.raw_ids + self.raw_void if not 0 <= raw_id <= WIDE_IGNORE_INDEX]
        if outside:
            raise LabelError(f"raw ids must lie in 0..{WIDE_IGNORE_INDEX}, found {outside[:10]}")

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def ignore_index(self) -> int:
        return IGNORE_INDEX if len(self.names) <= IGNORE_INDEX else WIDE_IGNORE_INDEX

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        return np.uint8 if self.num_classes <= IGNORE_INDEX else np.uint16

    @cached_property
    def _to_train(self) -> tuple[np.ndarray, np.ndarray]:
        """Raw id -> train id, and raw id -> whether it is not in the label set."""
        table = np.full(WIDE_IGNORE_INDEX + 1, self.ignore_index, self.dtype)
        table[list(self.raw_ids)] = np.arange(self.num_classes)
        is_stranger = np.ones(len(table), bool)
        is_stranger[[*self.raw_ids, *self.raw_void]] = False
        return table, is_stranger

    @cached_property
    def colors(self) -> np.ndarray:
        """Colour of every train id including the ignore index (black), uint8 (ignore_index + 1, 3)."""
        table = np.zeros((self.ignore_index + 1, 3), np.uint8)
        table[: self.num_classes] = self.palette
        return table

    def from_raw(self, raw: np.ndarray, what: str = "label map") -> np.ndarray:
        """Turn raw ids of any integer dtype into train ids.

        Raises:
            LabelError: If a raw id is neither a class nor void; `what` names the map in the message.
        """
        if raw.dtype.kind not in "bui":
            raise LabelError(f"{what} has dtype {raw.dtype}, expected integers")
        if raw.size and (raw.min() < 0 or raw.max() > WIDE_IGNORE_INDEX):
            raise LabelError(f"{what} holds values {raw.min()}..{raw.max()}, expected 0..{WIDE_IGNORE_INDEX}")
        raw = raw.astype(np.uint8) if raw.dtype == bool else raw
        table, is_stranger = self._to_train
        if is_stranger[raw].any():
            strangers = np.unique(raw[is_stranger[raw]])
            raise LabelError(
                f"{what} holds the ids {strangers[:10].tolist()} that are not in the label set "
                f"{self.name or 'in use'} ({self.num_classes} classes, ids {min(self.raw_ids)}..{max(self.raw_ids)}, "
                f"void {list(self.raw_void)}). Pass the right --label-set, or map these ids to void there."
            )
        labels: np.ndarray = table[raw]
        return labels

    def to_raw(self, labels: np.ndarray) -> np.ndarray:
        """Turn train ids into raw ids for files; uint8 where they fit, else uint16."""
        dtype = np.uint8 if max(self.raw_ids + self.raw_void) <= 255 else np.uint16
        table = np.full(self.ignore_index + 1, self.raw_void[0], dtype)
        table[: self.num_classes] = self.raw_ids
        raw: np.ndarray = table[labels]
        return raw

    def check(self, labels: np.ndarray, what: str = "labels") -> None:
        """Raise `LabelError` unless every value is a train id or the ignore index."""
        if labels.dtype != self.dtype:
            raise LabelError(f"{what} have dtype {labels.dtype}, expected {np.dtype(self.dtype)}")
        strangers = np.unique(labels[(labels >= self.num_classes) & (labels != self.ignore_index)])
        if strangers.size:
            raise LabelError(
                f"{what} hold the ids {strangers[:10].tolist()}, expected 0..{self.num_classes - 1} or the ignore "
                f"index {self.ignore_index}"
            )

    @classmethod
    def numbered(cls, num_classes: int, name: str = "") -> "LabelSpace":
        """A label set that knows only how many classes there are."""
        return cls(tuple(f"class {i}" for i in range(num_classes)), voc_palette(num_classes + 1)[1:], name=name)

    @classmethod
    def from_json(cls, path: Path) -> "LabelSpace":
        """Read a `label_set.json`: {name, classes: [{id, name, color?, kind?}], ignore_index or ignore_ids?}."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise LabelError(f"cannot read the label set {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise LabelError(f"{path} is not valid JSON: {error}") from error
        try:
            return cls.from_dict(content)
        except (KeyError, TypeError, ValueError, AttributeError, LabelError) as error:
            raise LabelError(
                f"{path} is not a label set ({type(error).__name__}: {error}); expected "
                '{"name": ..., "ignore_index": 255, "classes": [{"id": 0, "name": "sky", "color": [r, g, b]}, ...]}'
            ) from error

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LabelSpace":
        classes = content["classes"]
        palette = voc_palette(len(classes) + 1)[1:]
        for row, entry in zip(palette, classes, strict=True):
            if "color" in entry:
                row[:] = _as_colors(entry["color"])
        raw_ids = tuple(entry["id"] for entry in classes)
        default_void = IGNORE_INDEX if len(classes) <= IGNORE_INDEX else WIDE_IGNORE_INDEX
        void = content.get("ignore_ids", [content.get("ignore_index", default_void)])
        return cls(
            names=tuple(str(entry["name"]) for entry in classes),
            palette=palette,
            raw_ids=raw_ids,
            raw_void=tuple(void),
            kinds=tuple(str(entry.get("kind", "")) for entry in classes),
            name=str(content.get("name", "")),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "ignore_ids": list(self.raw_void),
            "classes": [
                {"id": raw_id, "name": name, "color": color.tolist(), "kind": kind}
                for raw_id, name, color, kind in zip(self.raw_ids, self.names, self.palette, self.kinds, strict=True)
            ],
        }


def _as_colors(colors: Any) -> np.ndarray:
    """Return colours as uint8 of the same shape; `LabelError` unless all are integers 0..255."""
    found = np.asarray(colors)
    if found.dtype.kind not in "ui" or (found.size and not 0 <= found.min() <= found.max() <= 255):
        raise LabelError(f"colours must be integers 0..255, found {found.ravel()[:12].tolist()}")
    return np.ascontiguousarray(found, np.uint8)


def _check_integers(ids: Iterable[Any]) -> None:
    strangers = [raw_id for raw_id in ids if not isinstance(raw_id, Integral) or isinstance(raw_id, bool)]
    if strangers:
        raise LabelError(f"raw ids must be integers, found {strangers[:10]}")


@dataclass(frozen=True, eq=False)
class BaseLabels:
    """Base labels `S_t` of consecutive frames.

    Attributes:
        labels: Train ids, uint8 or uint16 (L, H, W).
        probabilities: Class probabilities, float16 or float32 (L, C, h, w) on any grid that covers the frame, or None.
        void_share: Fraction of the pixels of each frame that had no class before they were filled, float64 (L,); None:
            nothing was filled, and the labels themselves say it.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    void_share: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype not in (np.uint8, np.uint16):
            raise ShapeError(
                f"base labels are {self.labels.dtype} {self.labels.shape}, expected uint8 or uint16 (L, H, W)"
            )
        scores = self.probabilities
        if scores is not None and (scores.ndim != 4 or len(scores) != len(self.labels) or scores.dtype.kind != "f"):
            raise ShapeError(
                f"probabilities are {scores.dtype} {scores.shape}, expected floats (L={len(self.labels)}, C, h, w)"
            )
        if self.void_share is not None and self.void_share.shape != self.labels.shape[:1]:
            raise ShapeError(f"void shares have shape {self.void_share.shape}, expected ({len(self.labels)},)")


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded picture with its place in the source.

    Attributes:
        image: uint8 (H, W, 3), RGB, upright (rotation applied).
        index: Number in the stream, from 0.
        name: File stem of an image, or the index as 8 digits for videos.
        pts: Presentation time stamp in units of the stream's time base, None for image folders.
        time_s: Presentation time in seconds, None where the source has none.
    """

    image: np.ndarray
    index: int
    name: str
    pts: int | None = None
    time_s: Fraction | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ShapeError(f"frame {self.name} is {self.image.dtype} {self.image.shape}, expected uint8 (H, W, 3)")


@dataclass(frozen=True)
class Window:
    """`length` consecutive frames of a clip from frame `start` on."""

    start: int
    length: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 1:
            raise ShapeError(f"a window needs start >= 0 and length >= 1, found {self.start} and {self.length}")

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, eq=False)
class MaskletWindow:
    """N class-agnostic masklets over one window, masks compressed until they are used.

    Attributes:
        window: Frames covered.
        size: (H, W) of the frames.
        rles: COCO RLE of masklet i in frame t of the window as `rles[t][i]`; empty masks are allowed.
        predicted_iou: float32 (N,), the model's own quality estimate where the masklet was found, [0, 1].
        stability: float32 (N,), stability score where it was found, [0, 1].
        points: float32 (N, 2), prompt points (x, y) in pixels of the frame.
        ids: int64 (N,), distinct within the clip as far as the tracker keeps identities.
        frame_iou: float32 (L, N), the model's own quality estimate of each mask in each frame, [0, 1], 0 where the
            masklet has no mask; None where the tracker knows none.
    """

    window: Window
    size: tuple[int, int]
    rles: tuple[tuple[dict[str, Any], ...], ...] = field(repr=False)
    predicted_iou: np.ndarray
    stability: np.ndarray
    points: np.ndarray
    ids: np.ndarray
    frame_iou: np.ndarray | None = None

    def __post_init__(self) -> None:
        num_masklets = len(self.ids)
        if len(self.rles) != self.window.length or any(len(row) != num_masklets for row in self.rles):
            found = f"{len(self.rles)} frames with {sorted({len(row) for row in self.rles})} masks"
            raise ShapeError(f"masklets have {found}, expected {self.window.length} frames with {num_masklets} masks")
        for name, expected in (
            ("predicted_iou", (num_masklets,)),
            ("stability", (num_masklets,)),
            ("points", (num_masklets, 2)),
            ("ids", (num_masklets,)),
            ("frame_iou", (self.window.length, num_masklets)),
        ):
            values = getattr(self, name)
            if values is not None and values.shape != expected:
                raise ShapeError(f"{name} has shape {values.shape}, expected {expected}")
        quality = self.frame_iou
        if quality is not None and not ((quality >= 0) & (quality <= 1)).all():
            raise ShapeError(f"frame_iou holds values from {quality.min()} to {quality.max()}, expected 0 to 1")
        if len(np.unique(self.ids)) != num_masklets:
            raise ShapeError(f"masklet ids must be distinct, found {self.ids.tolist()}")
        sizes = {tuple(rle["size"]) for row in self.rles for rle in row} - {tuple(self.size)}
        if sizes:
            raise ShapeError(f"masks of size {sorted(sizes)} do not fit frames of size {self.size}")

    @property
    def num_masklets(self) -> int:
        return len(self.ids)

    def stack(self, t: int) -> np.ndarray:
        """Return the masks of frame `t` of the window, bool (N, H, W)."""
        if not self.num_masklets:
            return np.zeros((0, *self.size), bool)
        decoded = coco_mask.decode(list(self.rles[t]))  # (H, W, N), Fortran order
        return np.ascontiguousarray(decoded.transpose(2, 0, 1)).view(bool)

    def areas(self, t: int) -> np.ndarray:
        """Return the mask areas of frame `t` in pixels, int64 (N,)."""
        return rle_areas(self.rles[t])

    def coverage(self, t: int) -> float:
        """Return the fraction of the pixels of frame `t` inside at least one masklet."""
        if not self.num_masklets:
            return 0.0
        union = coco_mask.merge(list(self.rles[t]))
        return float(coco_mask.area(union)) / (self.size[0] * self.size[1])

    @classmethod
    def from_masks(
        cls,
        masks: np.ndarray,
        start: int = 0,
        predicted_iou: np.ndarray | None = None,
        stability: np.ndarray | None = None,
        points: np.ndarray | None = None,
        ids: np.ndarray | None = None,
        frame_iou: np.ndarray | None = None,
    ) -> "MaskletWindow":
        """Compress bool masks (N, L, H, W); scores default to 1, points to (0, 0), ids to 0..N-1, frame_iou to None."""
        if masks.ndim != 4 or masks.dtype != bool:
            raise ShapeError(f"masks are {masks.dtype} {masks.shape}, expected bool (N, L, H, W)")
        num_masklets, length, height, width = masks.shape
        return cls(
            window=Window(start, length),
            size=(height, width),
            rles=tuple(encode_masks(masks[:, t]) for t in range(length)),
            predicted_iou=np.ones(num_masklets, np.float32) if predicted_iou is None else predicted_iou,
            stability=np.ones(num_masklets, np.float32) if stability is None else stability,
            points=np.zeros((num_masklets, 2), np.float32) if points is None else points,
            ids=np.arange(num_masklets) if ids is None else ids,
            frame_iou=frame_iou,
        )


def encode_masks(masks: np.ndarray) -> tuple[dict[str, Any], ...]:
    """Compress bool masks (N, H, W) to COCO RLE, one dict {size, counts} a mask."""
    if not len(masks):
        return ()
    fortran = np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))
    return tuple(coco_mask.encode(fortran))


def rle_areas(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return the areas of compressed masks in pixels, int64 (N,)."""
    # under NumPy 2 pycocotools counts the masks in eight bits
    parts = [coco_mask.area(list(rles[first : first + 255])) for first in range(0, len(rles), 255)]
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class WindowContext:
    """What a tracker may know of a window besides its frames; trackers take what they can use.

    Attributes:
        labels: Base labels `S_t` of the window, uint8 or uint16 (L, H, W).
        ignore_index: The label in them that is no class.
        previous: Masklets of the window before, where masklets shall be carried over its border.
        previous_frame: The last frame of that window, uint8 RGB (H, W, 3).
    """

    labels: np.ndarray | None = None
    ignore_index: int = IGNORE_INDEX
    previous: MaskletWindow | None = None
    previous_frame: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.previous is None) != (self.previous_frame is None):
            raise ShapeError("masklets of the window before and its last frame go together; only one of them was given")


@dataclass(frozen=True, eq=False)
class Naming:
    """The classes of N masklets over the L frames of a window, and why.

    Attributes:
        scores: (N, C) evidence for each class, added up over the window and over earlier ones where masklets are
            carried: int64 pixel counts, or float64.
        classes: int64 (N,) class of the masklet, -1 where it abstains.
        frame_classes: int64 (L, N) class that is painted in each frame, -1 where the base labels stay.
        confidence: float64 (N,), the class's share of the scores or the namer's own measure, [0, 1].
    """

    scores: np.ndarray
    classes: np.ndarray
    frame_classes: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.classes)
        shapes = (self.scores.shape[:1], self.frame_classes.shape[1:], self.confidence.shape)
        if self.scores.ndim != 2 or self.frame_classes.ndim != 2 or any(shape != (count,) for shape in shapes):
            raise ShapeError(
                f"{count} classes come with scores {self.scores.shape}, classes by frame {self.frame_classes.shape} "
                f"and confidence {self.confidence.shape}, expected (N, C), (L, N) and (N,)"
            )


@dataclass(frozen=True, eq=False)
class Refinement:
    """One refined window and what led to it.

    Attributes:
        window: Frames covered.
        labels: Refined labels `R_t`, uint8 or uint16 (L, H, W), train ids.
        base: Base labels `S_t` of the same form.
        votes: (N, C) votes of each masklet over the window: int64 pixel counts, or float64 probability mass or scores
            of a classifier; of carried masklets those of earlier windows are included.
        classes: int64 (N,) winning class, -1 where a masklet abstained or had no votes. With scope "frame" this is the
            window's majority, while painting used each frame's own.
        vote_share: float64 (N,), winning votes / all votes, 0 without votes; the confidence of other namers.
        coverage: float64 (L,), fraction of pixels inside at least one masklet.
        masklets: The masklets themselves.
    """

    window: Window
    labels: np.ndarray
    base: np.ndarray
    votes: np.ndarray
    classes: np.ndarray
    vote_share: np.ndarray
    coverage: np.ndarray
    masklets: MaskletWindow = field(repr=False)

    def __post_init__(self) -> None:
        if self.labels.shape != self.base.shape or len(self.labels) != self.window.length:
            raise ShapeError(
                f"refined labels {self.labels.shape} and base labels {self.base.shape} must be equal and "
                f"{self.window.length} frames long"
            )

    @property
    def num_changed_pixels(self) -> int:
        return int(np.count_nonzero(self.labels != self.base))


def split_windows(num_frames: int, length: int) -> Sequence[Window]:
    """Cut a clip of `num_frames` frames into windows of `length`; the last one may be shorter."""
    if length < 1:
        raise ShapeError(f"window length must be at least 1, found {length}")
    return [Window(start, min(length, num_frames - start)) for start in range(0, num_frames, length)]
