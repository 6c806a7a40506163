"""Single pictures and label maps, in and out of files, with Pillow alone.

OpenCV would give the colours of an indexed PNG instead of its ids, would ignore the EXIF orientation of some formats,
and Pillow by itself clips 16-bit grey; the rules for all of that stand here once.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import LabelError, MediaError, ShapeError
from .files import atomic_write_bytes
from .types import LabelSpace

_ORIENTATION = 0x0112  # EXIF tag
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_ENDS = {b"\x89PNG\r\n\x1a\n": b"IEND", b"\xff\xd8": b"\xff\xd9"}  # last words of PNG and JPEG, by their first
_END_BYTES = 64  # some writers leave a few bytes behind them
_LABEL_MODES = ("P", "L", "1", "I", *_SIXTEEN_BIT)


def read_image(path: Path) -> np.ndarray:
    """Read a picture as uint8 RGB (H, W, 3), upright by its EXIF orientation.

    Grey and indexed pictures become RGB; transparency is composited over black; 16-bit values keep their upper 8 bits.

    Raises:
        MediaError: If the file is missing, empty, no picture, cut short, larger than Pillow's decompression-bomb limit,
            or of a mode whose range is unknown (float, 32-bit).
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image) if _is_turned(image) else image
        return _to_rgb(upright, path)


def image_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of the upright picture from the file's head, without decoding it."""
    with _opened(path) as image:
        width, height = image.size
        swaps_sides = _is_turned(image) and image.getexif().get(_ORIENTATION, 1) >= 5
        return (width, height) if swaps_sides else (height, width)


def may_be_cut_short(path: Path) -> bool:
    """Tell whether a PNG or JPEG does not end as they do, by its last bytes: a reason to decode it, no proof.

    Raises:
        MediaError: If the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(0, path.stat().st_size - _END_BYTES))
            end = file.read()
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error
    marker = next((marker for start, marker in _ENDS.items() if head.startswith(start)), b"")
    return marker not in end


def read_label_map(path: Path, label_space: LabelSpace, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label map file as train ids, uint8 or uint16 (H, W).

    The pixel values (palette indices of an indexed file) are the raw ids. Pictures with three equal channels count as
    one channel.

    Args:
        path: PNG or another lossless file with one channel of 1, 8 or 16 bits.
        label_space: Turns raw ids into train ids.
        size: (H, W) that the map must have, if given.

    Raises:
        MediaError: If the file is missing, empty, broken or too large.
        LabelError: If it holds colours, or ids outside the label set.
        ShapeError: If it does not have `size`.
    """
    with _opened(path) as image:
        mode, raw = image.mode, np.asarray(image)
    if mode == "1":
        raw = raw.astype(np.uint8)
    if mode == "RGB" and (raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all():
        raw = raw[..., 0]
    elif mode not in _LABEL_MODES:
        raise LabelError(
            f"{path} has mode {mode}, expected class ids in one channel: colours cannot be decoded into classes. "
            "Save label maps as indexed or grey PNG, pixel = class id"
        )
    if size is not None and raw.shape != size:
        raise ShapeError(
            f"{path} is {raw.shape[0]} x {raw.shape[1]} (height x width), but its frame is {size[0]} x {size[1]}"
        )
    return label_space.from_raw(raw, what=str(path))


def encode_label_map(labels: np.ndarray, label_space: LabelSpace) -> bytes:
    """Encode train ids (H, W) as PNG bytes, pixel = raw id.

    Raw ids up to 255 give an 8-bit indexed PNG with the palette of the label set, void and unused ids black; larger
    ones a 16-bit grey PNG.

    Raises:
        LabelError: If `labels` has another dtype than the label set's or holds values outside it.
        ShapeError: If `labels` is not a map.
    """
    if labels.ndim != 2 or not labels.size:
        raise ShapeError(f"a label map needs shape (H, W), found {labels.shape}")
    label_space.check(labels, "label map")
    raw = label_space.to_raw(labels)
    image = Image.fromarray(raw)
    if raw.dtype == np.uint8:
        # All 256 colours: with fewer Pillow packs 1, 2 or 4 bits a pixel, which not every reader takes.
        palette = np.zeros((256, 3), np.uint8)
        palette[list(label_space.raw_ids)] = label_space.palette
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def write_label_map(path: Path, labels: np.ndarray, label_space: LabelSpace) -> None:
    """Write train ids (H, W) as PNG; see `encode_label_map`. The file is there whole or not at all.

    Raises:
        MediaError: If the disk is full or the file cannot be written.
    """
    atomic_write_bytes(path, encode_label_map(labels, label_space))


def encode_jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode uint8 RGB (H, W, 3) as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def frame_digest(image: np.ndarray) -> str:
    """Tell a picture, uint8 RGB (H, W, 3), from every other one."""
    digest = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def check_num_pixels(path: Path, num_pixels: int) -> None:
    """Raise `MediaError` above Pillow's decompression-bomb limit, which holds for videos as well."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and num_pixels > limit:
        raise MediaError(
            f"{path} has {num_pixels} pixels a picture, more than the limit of {limit} that keeps a forged file from "
            "filling the memory; scale it down"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; turn everything that can be wrong with the file into one clear `MediaError`."""
    try:
        if not path.stat().st_size:
            raise MediaError(f"{path} is an empty file (0 bytes), expected a picture")
        with Image.open(path) as image:
            check_num_pixels(path, image.width * image.height)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise MediaError(f"{path} does not exist") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{path} is not a picture that Pillow can read") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:  # what Pillow's format readers raise
        raise MediaError(f"{path} cannot be read, it may be cut short or damaged: {error}") from error


def _is_turned(image: Image.Image) -> bool:
    # Asking a PNG for EXIF that was not at its head would decode the whole picture.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    return image.getexif().get(_ORIENTATION, 1) in range(2, 9)


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode in (*_SIXTEEN_BIT, "I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise MediaError(f"{path} holds 32-bit values {values.min()}..{values.max()}, expected 8 or 16 bits")
        grey = (values >> 8).astype(np.uint8)  # Pillow reads 16-bit colour the same way
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise MediaError(f"{path} holds floating-point values of unknown range, expected 8 or 16 bits a channel")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return np.array(image.convert("RGB"))
