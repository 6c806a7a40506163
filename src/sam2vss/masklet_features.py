"""What is known of the masklets of a window besides their masks, and its files.

`describe.py` fills these types, namers and trainers read them. One NPZ file a window holds them between stages.
"""

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MediaError, ShapeError
from .files import atomic_write_bytes
from .types import Window

FORMAT = "sam2vss masklet features"
FORMAT_VERSION = 1
LARGEST_HALF = 60_000.0  # float16 reaches 65504
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class MaskletFeatures:
    """N masklets over the L frames of a window, frame by frame; frames without mask hold zeros.

    Attributes:
        window: Frames covered.
        size: (H, W) of the frames.
        ids: int64 (N,).
        predicted_iou: float32 (N,), where the masklet was found, [0, 1].
        stability: float32 (N,), where it was found, [0, 1].
        frame_iou: float32 (L, N), predicted IoU of every mask; where the tracker knows none, `predicted_iou`.
        areas: int64 (L, N), pixels.
        boxes_xyxy: float32 (L, N, 4), as fractions of width and height, [0, 1].
        features: float32 (L, N, F), as `pooling.pool_masks` gives them; F may be 0.
        tokens: float32 (L, N, S, D), features of single cells; S may be 0.
        votes: int64 (L, N, C), base labels under the mask; None without a base model.
        masses: float32 (L, N, C), sum of the base model's probabilities under the mask; None where it gives none.
    """

    window: Window
    size: tuple[int, int]
    ids: np.ndarray
    predicted_iou: np.ndarray
    stability: np.ndarray
    frame_iou: np.ndarray
    areas: np.ndarray
    boxes_xyxy: np.ndarray
    features: np.ndarray
    tokens: np.ndarray
    votes: np.ndarray | None = None
    masses: np.ndarray | None = None

    def __post_init__(self) -> None:
        length, count = self.window.length, len(self.ids)
        for name, expected in (
            ("predicted_iou", (count,)),
            ("stability", (count,)),
            ("frame_iou", (length, count)),
            ("areas", (length, count)),
            ("boxes_xyxy", (length, count, 4)),
            ("features", (length, count, None)),
            ("tokens", (length, count, None, None)),
            ("votes", (length, count, None)),
            ("masses", (length, count, None)),
        ):
            array = getattr(self, name)
            if array is not None and not _fits(array.shape, expected):
                raise ShapeError(f"{name} has shape {array.shape}, expected {expected} (None: any)")

    @property
    def num_masklets(self) -> int:
        return len(self.ids)

    @property
    def is_visible(self) -> np.ndarray:
        """Whether a masklet has a mask in a frame, bool (L, N)."""
        seen: np.ndarray = self.areas > 0
        return seen

    def frames(self, first: int, stop: int) -> "MaskletFeatures":
        """Return the frames `first` to `stop` (not included) as a window of their own."""
        by_frame = ("frame_iou", "areas", "boxes_xyxy", "features", "tokens", "votes", "masses")
        parts = {name: getattr(self, name) for name in by_frame if getattr(self, name) is not None}
        cut = {name: array[first:stop] for name, array in parts.items()}
        return replace(self, window=Window(self.window.start + first, stop - first), **cut)


@dataclass(frozen=True, eq=False)
class MaskletTruth:
    """What ground truth says of N masklets over L frames; for training. Void pixels count nowhere.

    Attributes:
        classes: int64 (L, N, C), true classes under the mask.
        top_classes: int64 (L, N, C), the same where no other masklet lies on top.
        top_base: int64 (L, N, C), base labels of those pixels; zeros without a base model.
        top_kept: int64 (L, N, C), those of them that are right.
    """

    classes: np.ndarray
    top_classes: np.ndarray
    top_base: np.ndarray
    top_kept: np.ndarray

    def __post_init__(self) -> None:
        shapes = {getattr(self, field.name).shape for field in fields(self)}
        if len(shapes) != 1 or self.classes.ndim != 3:
            raise ShapeError(f"truth has shapes {sorted(shapes)}, expected one of three axes (L, N, C)")

    def frames(self, first: int, stop: int) -> "MaskletTruth":
        """Return what is true of the frames `first` to `stop` (not included)."""
        return MaskletTruth(**{field.name: getattr(self, field.name)[first:stop] for field in fields(self)})


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(want in (None, side) for side, want in zip(shape, expected, strict=True))


def write_features(path: Path, features: MaskletFeatures, truth: MaskletTruth | None = None) -> None:
    """Write what is known of a window's masklets; the file is there whole or not at all.

    Pooled features are stored in float16 (relative rounding 0.05 %, below 6e-5 absolute 3e-8) unless one is too large
    for it, counts in int32 unless one is too large.

    Raises:
        ShapeError: If a feature is not finite.
        MediaError: If the file cannot be written.
    """
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "window": [features.window.start, features.window.length],
        "size": list(features.size),
    }
    arrays = {name: array for name, array in _arrays(features).items() if array is not None}
    for name in ("features", "tokens"):
        arrays[name] = _shrunk(arrays[name], features.window)
    if truth is not None:
        arrays |= {f"truth_{name}": array for name, array in _arrays(truth).items()}
    counts = {name: _narrowed(array) for name, array in arrays.items() if array.dtype.kind == "i"}
    content = io.BytesIO()
    np.savez_compressed(content, head=np.array(json.dumps(head)), **{**arrays, **counts})
    atomic_write_bytes(Path(path), content.getvalue())


def _arrays(record: MaskletFeatures | MaskletTruth) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in ("window", "size")}


def _shrunk(values: np.ndarray, window: Window) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ShapeError(f"the features of the window at frame {window.start} are not all finite numbers")
    return values.astype(np.float16 if np.abs(values).max(initial=0) < LARGEST_HALF else np.float32)


def _narrowed(counts: np.ndarray) -> np.ndarray:
    largest = np.abs(counts).max(initial=0)
    return counts.astype(np.int32 if largest <= np.iinfo(np.int32).max else np.int64)


def read_features(path: Path) -> tuple[MaskletFeatures, MaskletTruth | None]:
    """Read what `write_features` wrote.

    Raises:
        MediaError: If the file is missing, damaged, or of another format.
    """
    path = Path(path)
    try:
        # opened here, as numpy leaves the file open where it turns out to be no archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            head = json.loads(str(content["head"]))
            if head["format"] != FORMAT or head["format_version"] != FORMAT_VERSION:
                found = f"{head['format']!r} of version {head['format_version']!r}"
                raise MediaError(f"{path} is {found}, expected {FORMAT!r} of version {FORMAT_VERSION}")
            arrays = {name: content[name] for name in content.files if name != "head"}
            truth_names = [f.name for f in fields(MaskletTruth)]
            truth = None
            if f"truth_{truth_names[0]}" in arrays:
                truth = MaskletTruth(**{name: arrays.pop(f"truth_{name}").astype(np.int64) for name in truth_names})
            for name in ("ids", "areas", "votes"):
                if name in arrays:
                    arrays[name] = arrays[name].astype(np.int64)
            for name in ("features", "tokens"):
                arrays[name] = arrays[name].astype(np.float32)
            height, width = head["size"]
            return MaskletFeatures(window=Window(*head["window"]), size=(height, width), **arrays), truth
    except FileNotFoundError:
        raise MediaError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, *_BROKEN_ZIP, ShapeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MediaError(f"{path} holds no masklet features ({reason}); make them again") from error
