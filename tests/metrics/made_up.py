"""Truth and predictions made by rule, as clips of raw VSPW ids, for the comparison with the published scripts.

Nothing is random: the same bytes come out everywhere, so what a script once printed for them can be compared with our
scores wherever the script is not at hand (`golden_scripts.json`, written by `benchmarks/published_metrics.py`).
Truth comes as VSPW stores it: 0 and 255 are void, classes are 1..124. Predictions hold classes 0..123, 255 is none.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image

NUM_CLASSES: Final = 124
SMALLER_VOID: Final = 254  # where raw 255 goes when raw ids move down by one; raw 0 wraps to 255
CAMVID_VOID: Final = 11
CAMVID_PARTS: Final = {7: 0, 8: 7, 9: 15, 16: 20, 17: 24, 20: 31}  # length of a clip: its first frame, of 51

Clips = dict[str, np.ndarray]  # name -> uint8 (T, H, W)


def camvid_clips(shared_data: Path) -> Clips:
    """Raw truth of six clips of 7 to 20 frames, 360 x 480, out of the recording with dense truth."""
    folder = shared_data / "camvid" / "data" / "0016E5_15hz_a" / "mask"
    files = sorted(folder.glob("*.png"))
    labels = np.stack([np.asarray(Image.open(file)) for file in files])
    return {
        f"camvid_{length:02d}": raw_ids(labels[start : start + length], CAMVID_VOID)
        for length, start in CAMVID_PARTS.items()
    }


def pattern_clips() -> Clips:
    """Raw truth of drawn clips: moving shapes of several lengths and sizes, and the cases that scripts stumble over."""
    sizes = {7: (20, 31), 8: (24, 24), 9: (33, 18), 16: (28, 40), 17: (25, 44), 18: (1, 50), 20: (30, 36)}
    clips = {f"shapes_{length:02d}": raw_ids(draw_shapes(length, size), 255) for length, size in sizes.items()}
    t, y, x = np.indices((18, 12, 16))
    clips["all_void"] = np.where(t < 9, 0, 255).astype(np.uint8)  # one void, then the other
    clips["never_the_same"] = (1 + (t + y // 4 + x // 5) % 3).astype(np.uint8)  # no pixel is ever constant
    return clips


def draw_shapes(length: int, size: tuple[int, int]) -> np.ndarray:
    """Three bands, a disc and a bar that move across them, a dot in some frames, void around; ids, 255 is void."""
    height, width = size
    t, y, x = np.indices((length, height, width))
    labels = (3 * y + (x + t) // 8) // max(height, 1) % 3
    labels[(x - 2 * t) % width < 5] = 4
    distance = (y - height // 2) ** 2 + (x - (5 + t) % width) ** 2
    labels[distance < 50] = 255
    labels[distance < 36] = 7
    labels[(y < 2) & (x < 2) & (t % 5 == 3)] = 9
    labels[(y >= height - 3) & (x >= width - 6) & (t >= 4)] = 255
    return labels.astype(np.uint8)


def raw_ids(labels: np.ndarray, void: int) -> np.ndarray:
    """Number the classes from 1 and write void as 0 or as 255, in blocks of which every other changes over time."""
    t, y, x = pixel_grid(labels)
    void_value = np.where((y // 7 + x // 9 * (1 + t // 5)) % 2 == 0, 0, 255)
    return np.where(labels == void, void_value.astype(np.uint8), labels + np.uint8(1))


def train_ids(raw: np.ndarray) -> np.ndarray:
    """Number the classes from 0; the two voids stay apart, as 255 (raw 0) and 254 (raw 255)."""
    return raw - np.uint8(1)


def pixel_grid(labels: np.ndarray) -> list[np.ndarray]:
    """Open grids of the frame, row and column numbers."""
    return list(np.ogrid[: labels.shape[0], : labels.shape[1], : labels.shape[2]])


def fingerprint(clips: Mapping[str, np.ndarray]) -> int:
    """A checksum of names, sizes and pixels, which tells a changed recipe from a changed score."""
    checksum = 0
    for name, frames in clips.items():
        checksum = zlib.crc32(f"{name} {frames.shape} {frames.dtype}".encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(frames).tobytes(), checksum)
    return checksum


# --- predictions -----------------------------------------------------------------------------------------------------


def predict(recipe: str, truth: Clips) -> Clips:
    """Make predictions for raw truth: uint8 (T, H, W) each, classes 0..123, 255 where the recipe leaves gaps."""
    return {name: RECIPES[recipe](fill_void(frames)) for name, frames in truth.items()}


def fill_void(raw: np.ndarray) -> np.ndarray:
    """Classes 0..123 with a class that comes and goes where the truth is void."""
    t, y, x = pixel_grid(raw)
    return np.where((raw == 0) | (raw == 255), ((y // 16 + x // 16 + t // 3) % 5).astype(np.uint8), raw - np.uint8(1))


def _perfect(labels: np.ndarray) -> np.ndarray:
    return labels


def _constant(labels: np.ndarray) -> np.ndarray:
    return np.ones_like(labels)


def _shifted(labels: np.ndarray) -> np.ndarray:
    return np.roll(labels, (2, 3), axis=(1, 2))


def _shaking(labels: np.ndarray) -> np.ndarray:
    return np.stack([np.roll(frame, 2 * (t % 3 - 1), axis=1) for t, frame in enumerate(labels)])


def _stale(labels: np.ndarray) -> np.ndarray:
    """Predicts every fourth frame and repeats it."""
    t = np.arange(len(labels))
    return labels[t - t % 4]


def _lagging(labels: np.ndarray) -> np.ndarray:
    return labels[np.maximum(np.arange(len(labels)) - 3, 0)]


def _eroded(labels: np.ndarray) -> np.ndarray:
    """The smaller class eats into the larger one by 3 pixels."""
    return np.stack([cv2.erode(frame, np.ones((7, 7), np.uint8)) for frame in labels])


def _coarse(labels: np.ndarray) -> np.ndarray:
    """One label for every 8 x 8 pixels."""
    _, y, x = pixel_grid(labels)
    return labels[:, (y // 8 * 8)[0], (x // 8 * 8)[0]]


def _flipped(labels: np.ndarray) -> np.ndarray:
    """Every sixth block of 12 x 12 pixels is the next class, all along."""
    _, y, x = pixel_grid(labels)
    return np.where((y // 12 * 5 + x // 12 * 7) % 6 == 0, _next_class(labels), labels)


def _flickering(labels: np.ndarray) -> np.ndarray:
    """Blocks of 12 x 12 pixels take turns at being the next class."""
    t, y, x = pixel_grid(labels)
    return np.where((y // 12 * 5 + x // 12 * 7 + t * 11) % 23 == 0, _next_class(labels), labels)


def _absent_classes(labels: np.ndarray) -> np.ndarray:
    """Takes class 4 for 57 and, in the last frames, class 0 for 123; neither occurs in the truth."""
    changed = labels.copy()
    changed[labels == 4] = 57
    changed[13:][labels[13:] == 0] = 123
    return changed


def _with_gaps(labels: np.ndarray) -> np.ndarray:
    """Blocks of 10 x 10 pixels without a label move through a shifted prediction."""
    t, y, x = pixel_grid(labels)
    return np.where((y // 10 + x // 10 + t // 6) % 5 == 0, np.uint8(255), _shifted(labels))


def _next_class(labels: np.ndarray) -> np.ndarray:
    return np.append(np.arange(1, 11), 0).astype(np.uint8)[labels]  # of the 11 that occur


RECIPES: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    "perfect": _perfect,
    "constant": _constant,
    "shifted": _shifted,
    "shaking": _shaking,
    "stale": _stale,
    "lagging": _lagging,
    "eroded": _eroded,
    "coarse": _coarse,
    "flipped": _flipped,
    "flickering": _flickering,
    "absent classes": _absent_classes,
    "with gaps": _with_gaps,
}
GAPPED: Final = frozenset({"with gaps"})  # recipes with unlabelled pixels, on which the scripts' counts go wrong

# Frames whose boundaries are compared with published code: clip, recipe, frame
BOUNDARY_FRAMES: Final = [
    *((f"shapes_{length:02d}", recipe, 6) for length in (9, 16, 18) for recipe in ("shifted", "eroded", "with gaps")),
    *(("camvid_20", recipe, 19) for recipe in ("shifted", "coarse", "lagging", "with gaps")),
]
