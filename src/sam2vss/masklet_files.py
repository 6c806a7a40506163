"""Masklets of one window in a file: JSON with COCO RLE masks, so that another tool can read or write them too.

A run with `--save-masklets` writes one file a window, `--tracker stored:DIR` reads them again (`trackers/stored.py`).
Files are input from strangers: whatever comes out of `read_masklets` is whole, and safe to decode.
"""

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import MediaError, ShapeError
from .files import atomic_write_bytes, safe_name
from .types import MaskletWindow, Window

FORMAT = "sam2vss masklets"
FORMAT_VERSION = 1
SUFFIXES = (".json.gz", ".json")
MAX_TEXT_BYTES = 1 << 28  # ours: 256 MiB of JSON; 150 masklets over 32 frames of 480 x 853 take about 2
MAX_PIXELS = 178_956_970  # Pillow's limit against decompression bombs, in pixels of one frame
_MAX_FRAMES = 1 << 40
_NO_RLE = "a mask is not compressed COCO RLE: its counts end too early or hold foreign characters"
_MAX_DIGITS = 6  # base-32 digits of a run length below 2**29, sign included; seven overflow in pycocotools


def masklet_path(folder: Path, clip: str, start: int) -> Path:
    """Return where the masklets of the window from frame `start` on lie: `folder/<clip>/<start>.json.gz`."""
    return folder / safe_name(clip) / f"{start:08d}{SUFFIXES[0]}"


def write_masklets(path: Path, window: MaskletWindow) -> None:
    """Write the masklets of a window, compressed where the name ends in `.gz`; the file is there whole or not at all.

    Raises:
        ShapeError: If a score or a point is not finite.
        MediaError: If the file cannot be written, or would be larger than `read_masklets` accepts.
    """
    path = Path(path)
    atomic_write_bytes(path, encode_masklets(window, is_compressed=path.suffix == ".gz"))


def encode_masklets(window: MaskletWindow, is_compressed: bool = True) -> bytes:
    """Return the content of a masklet file, gzip or plain JSON.

    Reading it gives back the same window, float32 scores and points to the last bit; the same window gives the same
    bytes. `frame_iou` is an entry only where the window has it.

    Raises:
        ShapeError: If a score or a point is not finite.
        MediaError: If the text would be larger than `read_masklets` accepts.
    """
    scores = np.concatenate([window.predicted_iou, window.stability, window.points.ravel()])
    if not np.isfinite(scores).all():
        raise ShapeError(f"the masklets of frame {window.window.start} on have scores or points that are not finite")
    text = json.dumps(_to_dict(window), separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(text) > MAX_TEXT_BYTES:
        raise MediaError(
            f"the masklets of frame {window.window.start} on make {len(text) / 2**20:.0f} MiB of text, and at most "
            f"{MAX_TEXT_BYTES >> 20} MiB are read again: choose a shorter --window"
        )
    return gzip.compress(text, compresslevel=6, mtime=0) if is_compressed else text


def _to_dict(window: MaskletWindow) -> dict[str, Any]:
    ids, points = window.ids.tolist(), window.points.astype(np.float32).tolist()
    predicted_iou, stability = (x.astype(np.float32).tolist() for x in (window.predicted_iou, window.stability))
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "window": {"start": window.window.start, "length": window.window.length},
        "size": [int(side) for side in window.size],
        "masklets": [
            {"id": number, "predicted_iou": iou, "stability": score, "point": point}
            for number, iou, score, point in zip(ids, predicted_iou, stability, points, strict=True)
        ],
        "rles": [[_rle_to_dict(rle) for rle in row] for row in window.rles],
    }
    if window.frame_iou is not None:
        content["frame_iou"] = window.frame_iou.astype(np.float32).tolist()
    return content


def _rle_to_dict(rle: dict[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    text = counts if isinstance(counts, str) else counts.decode("ascii")
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def read_masklets(path: Path) -> MaskletWindow:
    """Read a file that `write_masklets` wrote, or another tool in the same form; gzip is told by its first bytes.

    Entries with other names are left alone, so that a tool may add its own. "frame_iou" may be missing.

    Raises:
        MediaError: If the file is missing, cut short, larger than 256 MiB of text, no JSON, of another format or
            version, or if any other entry is missing or out of range, or a mask is no RLE of exactly H * W pixels.
    """
    path = Path(path)
    try:
        content = json.loads(_read_text(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MediaError(f"{path} holds no masklets: not valid JSON ({error})") from error
    try:
        return _from_dict(content)
    except (_Malformed, ShapeError) as error:
        raise MediaError(f"{path} holds no masklets that can be used: {error}") from error


class _Malformed(Exception):
    """Says which entry of a file is wrong."""


def _read_text(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            packed = file.read(MAX_TEXT_BYTES + 1)
        text = packed
        if packed.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file_in:
                text = file_in.read(MAX_TEXT_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MediaError(f"{path} is damaged or cut short: {error}") from error
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
    if len(text) > MAX_TEXT_BYTES:
        raise MediaError(f"{path} holds more than {MAX_TEXT_BYTES >> 20} MiB of text, more than any window needs")
    return text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _from_dict(content: Any) -> MaskletWindow:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _Malformed(f'expected a JSON object with "format": "{FORMAT}"')
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise _Malformed(f"it has format version {version!r}, this version of sam2vss reads {FORMAT_VERSION}")
    window = _entry(content, "window", dict)
    start = _integer(_entry(window, "start", int), "window start", 0, _MAX_FRAMES)
    length = _integer(_entry(window, "length", int), "window length", 1, _MAX_FRAMES)
    size = _size(_entry(content, "size", list))
    masklets = [_checked(masklet, dict, "a masklet") for masklet in _entry(content, "masklets", list)]
    points = [_checked(_entry(masklet, "point", list), list, "a point") for masklet in masklets]
    if any(len(point) != 2 for point in points):
        raise _Malformed("a point is not [x, y]")
    return MaskletWindow(
        window=Window(start, length),
        size=size,
        rles=tuple(
            tuple(_rle(rle, size) for rle in _checked(row, list, "a frame of rles"))
            for row in _entry(content, "rles", list)
        ),
        predicted_iou=_floats([_entry(masklet, "predicted_iou", float) for masklet in masklets]),
        stability=_floats([_entry(masklet, "stability", float) for masklet in masklets]),
        points=_floats([value for point in points for value in point]).reshape(-1, 2),
        ids=np.array([_integer(_entry(m, "id", int), "id", -(2**63), 2**63 - 1) for m in masklets], np.int64),
        frame_iou=_frame_iou(content, length, len(masklets)) if "frame_iou" in content else None,
    )


def _frame_iou(content: dict[str, Any], length: int, num_masklets: int) -> np.ndarray:
    """Return the predicted IoU of every frame, float32 (L, N)."""
    rows = [_checked(row, list, "a frame of frame_iou") for row in _entry(content, "frame_iou", list)]
    if len(rows) != length or any(len(row) != num_masklets for row in rows):
        found = f"{len(rows)} frames with {sorted({len(row) for row in rows})} numbers"
        raise _Malformed(f"frame_iou has {found}, expected {length} frames with {num_masklets} numbers")
    return np.stack([_floats(row) for row in rows])


def _entry(content: dict[str, Any], name: str, kind: type) -> Any:
    if name not in content:
        raise _Malformed(f'"{name}" is missing')
    return _checked(content[name], kind, f'"{name}"')


def _checked(value: Any, kind: type, what: str) -> Any:
    """Return the value if it is of this JSON type; true and false are no numbers, 1 is a float too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number if kind is float else isinstance(value, kind) and not isinstance(value, bool)):
        names = {dict: "an object", list: "a list", int: "a whole number", float: "a number", str: "text"}
        raise _Malformed(f"{what} is {_shown(value)}, expected {names[kind]}")
    return value


def _shown(value: Any) -> str:
    """Describe a value of a stranger's file in a few words; lists and objects may be huge, so only their kind."""
    return f"a {type(value).__name__}" if isinstance(value, list | dict) else repr(value)[:40]


def _integer(value: int, what: str, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        raise _Malformed(f"{what} is {_shown(value)}, expected {lowest} to {highest}")
    return value


def _floats(values: list[Any]) -> np.ndarray:
    """Return numbers as float32."""
    limit = float(np.finfo(np.float32).max)
    for value in values:
        if not abs(_checked(value, float, "a score or coordinate")) <= limit:
            raise _Malformed(f"a score or coordinate is {_shown(value)}, expected a finite number of 32 bits")
    return np.array(values, np.float64).astype(np.float32)


def _size(value: Any) -> tuple[int, int]:
    if len(value) != 2:
        raise _Malformed(f"size is a list of {len(value)}, expected [height, width]")
    height, width = (_integer(_checked(side, int, "a side"), "a side", 1, MAX_PIXELS) for side in value)
    if height * width > MAX_PIXELS:
        raise _Malformed(f"frames of {height} x {width} pixels are larger than the {MAX_PIXELS} pixels that are read")
    return height, width


def _rle(content: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Return a compressed COCO RLE as pycocotools has it, after making sure that decoding it is safe."""
    _checked(content, dict, "a mask")
    if _entry(content, "size", list) != list(size):
        raise _Malformed(f"a mask does not have the size of its frame, {list(size)}")
    counts = _entry(content, "counts", str).encode("ascii", "ignore")
    if len(counts) != len(content["counts"]):
        raise _Malformed(_NO_RLE)
    lengths = _run_lengths(counts)
    num_pixels = size[0] * size[1]
    if lengths.min() < 0 or lengths.max() > num_pixels or lengths.sum() != num_pixels:
        raise _Malformed(
            f"a mask has runs of {lengths.min()} to {lengths.max()} pixels, expected runs that add up to {num_pixels}"
        )
    return {"size": list(size), "counts": counts}


def _run_lengths(counts: bytes) -> np.ndarray:
    """Return the lengths of a mask's runs, int64, background first.

    Source: `rleFrString` of the COCO API; the digits are described at `mask_runs.decode_runs`.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    is_last = digits & 32 == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not is_last[-1]:
        raise _Malformed(_NO_RLE)
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    num_digits = lasts - firsts + 1
    if num_digits.max() > _MAX_DIGITS:
        raise _Malformed("a mask is not compressed COCO RLE: a run is longer than any frame")
    places = np.arange(len(digits)) - np.repeat(firsts, num_digits)
    lengths = np.add.reduceat((digits & 31) << 5 * places, firsts)
    lengths -= ((digits[lasts] & 16) << 1) << 5 * (num_digits - 1)  # two's complement
    lengths[1::2] = lengths[1::2].cumsum()  # from the fourth on, differences to the one before the last
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths
