"""Label maps as they lie in folders: which files there are, and what numbers they hold.

Knows the layouts that label PNGs come in and reads any integer PNG as it is; what the numbers mean is the label
set's business (`LabelSpace`).
"""

import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from ..errors import LabelError
from ..types import WIDE_IGNORE_INDEX
from .defects import unreadable
from .panoptic_codes import colors_to_ids

LAYOUTS: Final = (
    "ROOT/<video>/<frame>.png, ROOT/data/<video>/mask/<frame>.png (VSPW), RUN/labels/<video>/<frame>.png, "
    "or one folder of PNGs"
)
_SMALL_GREY_SCALE: Final = {2: 85, 4: 17}  # Pillow stretches 2- and 4-bit grey to 0..255 by these factors

LabelFolders = dict[str, dict[str, Path]]


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sorting key that takes digits as numbers: frame_2 before frame_10."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part)


def find_label_folders(root: Path) -> LabelFolders:
    """List the label PNGs of every video under a folder.

    Layouts, in the order they are tried: a run folder (`root/labels/<video>/<frame>.png`), VSPW
    (`root/data/<video>/mask/<frame>.png`), one folder per video (`root/<video>/<frame>.png` or
    `root/<video>/mask/<frame>.png`), and one video (`root/<frame>.png` or `root/mask/<frame>.png`), which is named
    after its folder (its parent, if that is called `mask`). Hidden files and other file types are no frames.

    Returns:
        Paths by video name and frame stem, both in natural order. A video of the VSPW layout without masks is listed
        with no frames, so that it cannot be overlooked.

    Raises:
        LabelError: If the folder does not exist or holds no label PNG, two files of a video have the same
            stem, or PNGs lie both in the folder and in folders below it.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise LabelError(f"label folder {root} {what}; expected {LAYOUTS}")
    if subfolders(root / "labels"):
        videos = {folder.name: find_frames(folder) for folder in subfolders(root / "labels")}
    elif subfolders(root / "data"):
        videos = {folder.name: find_frames(_mask_folder(folder)) for folder in subfolders(root / "data")}
    elif frames := find_frames(_mask_folder(root)):
        below = [folder for folder in subfolders(root) if folder.name not in ("mask", "origin")]
        if any(find_frames(_mask_folder(folder)) for folder in below):
            raise LabelError(f"{root} holds label PNGs both directly and in folders; expected one of {LAYOUTS}")
        place = root.resolve()
        videos = {(place.parent if place.name == "mask" else place).name: frames}
    else:
        found = {folder.name: find_frames(_mask_folder(folder)) for folder in subfolders(root)}
        videos = {name: frames for name, frames in found.items() if frames}
    if not any(videos.values()):
        others = sorted({path.suffix or path.name for path in root.rglob("*") if path.is_file()})
        raise LabelError(
            f"no label PNG found under {root} ({'found ' + ', '.join(others[:5]) if others else 'it is empty'}); "
            f"expected {LAYOUTS}"
        )
    return videos


def read_ids(path: Path) -> np.ndarray:
    """Read the numbers stored in a label file, whatever they mean.

    Palette images give their indices, never their colours; grey images of 1 to 16 bits and 32-bit integers give their
    values.

    Returns:
        uint8 or uint16 (H, W).

    Raises:
        LabelError: If the file cannot be read, or holds colours instead of numbers, or numbers outside 0..65535.
    """
    with _opened(path) as image:
        mode = image.mode
        if mode not in ("1", "P", "L", "I", "I;16", "I;16B"):
            raise LabelError(
                f"{path} is a {mode} picture, expected class numbers (grey or palette PNG). Predictions in the label "
                "set's colours are read with --colors; other pictures must be turned into class ids first."
            )
        ids = np.array(image)
    if mode == "1":
        return ids.astype(np.uint8)
    if mode == "L" and (scale := _SMALL_GREY_SCALE.get(_grey_bits(path))):
        return ids // np.uint8(scale)
    if ids.dtype == np.int32 and ids.size and not 0 <= ids.min() <= ids.max() <= WIDE_IGNORE_INDEX:
        raise LabelError(f"{path} holds values {ids.min()}..{ids.max()}, expected class numbers 0..{WIDE_IGNORE_INDEX}")
    return ids if ids.dtype == np.uint8 else ids.astype(np.uint16)


def read_colors(path: Path) -> np.ndarray:
    """Read a colour-coded label file as uint8 RGB (H, W, 3); a palette image gives its colours.

    Raises:
        LabelError: If the file cannot be read, or is transparent somewhere.
    """
    with _opened(path) as image:
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise LabelError(f"{path} has transparent pixels, expected a plain colour for every class")
        return np.array(image.convert("RGB"))


def read_segment_ids(path: Path) -> np.ndarray:
    """Read the segment ids of a panoptic picture, uint32 (H, W).

    They are R + 256 G + 65536 B of a colour picture, and the numbers of all others; palette images give their indices,
    never their colours.

    Raises:
        LabelError: If the file cannot be read, or is transparent somewhere.
    """
    with _opened(path) as image:
        mode = image.mode
    return colors_to_ids(read_colors(path)) if mode in ("RGB", "RGBA") else read_ids(path).astype(np.uint32)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture, or raise a `LabelError` that says what is wrong with the file and how to mend it."""
    try:
        with Image.open(path) as image:
            if image.format not in ("PNG", "TIFF"):  # JPEG changes class numbers, and a GIF has its own order of them
                raise LabelError(
                    f"{path} is a {image.format} picture under the name of a PNG, expected class numbers without loss: "
                    "write it again as PNG from the labels themselves"
                )
            yield image
    except FileNotFoundError as error:
        raise LabelError(f"label file {path} does not exist") from error
    except Image.DecompressionBombError as error:
        raise LabelError(f"cannot read the label file {path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's format readers raise
        raise LabelError(f"cannot read the label file: {path} {unreadable(path, error)}") from error


def _grey_bits(path: Path) -> int:
    """Return the bit depth of a grey PNG, 0 for any other file."""
    with Path(path).open("rb") as file:
        header = file.read(26)
    if len(header) < 26 or header[:8] != b"\x89PNG\r\n\x1a\n":
        return 0
    bits, color_type = struct.unpack("BB", header[24:26])
    return int(bits) if color_type == 0 else 0


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, in natural order; none where there is no such folder.

    Raises:
        LabelError: If a link leads nowhere: it may have been a video, which would be left out in silence.
    """
    if not folder.is_dir():
        return []
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    broken = next((path for path in entries if path.is_symlink() and not path.exists() and not path.suffix), None)
    if broken is not None:
        raise LabelError(f"{broken} is a link that leads nowhere (to {os.readlink(broken)}): mend it, or delete it")
    return sorted((path for path in entries if path.is_dir()), key=lambda path: natural_key(path.name))


def _mask_folder(video: Path) -> Path:
    """Return where a video's label maps lie: VSPW keeps them in a folder beside the pictures."""
    return video / "mask" if (video / "mask").is_dir() else video


def find_frames(folder: Path) -> dict[str, Path]:
    """List the label PNGs of one folder by frame, in natural order; hidden files are no frames.

    Raises:
        LabelError: If two files have the same stem.
    """
    files = [path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith(".")]
    _check_distinct(files)
    return {path.stem: path for path in sorted(files, key=lambda path: natural_key(path.stem))}


def _check_distinct(files: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem in seen:
            raise LabelError(f"{seen[path.stem]} and {path} are the same frame {path.stem!r}; keep one of them")
        seen[path.stem] = path
