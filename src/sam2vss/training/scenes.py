"""Rendered training scenes held in memory, and the batches cut from them.

Scenes come from the synthetic train seeds only. They are rendered once, at the network's square size, and augmented
on the way out (flip, crop, light), so that a step costs next to nothing besides the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..datasets.synthetic import render_clip

SCENE_SIZE = (240, 320)  # the size at which the demo and the benchmarks render
BANK_SIZE = 320  # scenes are kept as squares of this side, so that no column is lost


@dataclass(frozen=True, eq=False)
class SceneBank:
    """N clips of T frames on a square of S pixels.

    Attributes:
        frames: uint8 (N, T, S, S, 3), RGB.
        objects: uint8 (N, T, S, S), object ids, constant over a clip.
        classes: One array per clip: class of each object id.
    """

    frames: np.ndarray
    objects: np.ndarray
    classes: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def labels(self, clip: int, frame: int) -> np.ndarray:
        """Return the class map, uint8 (S, S), of one frame."""
        labels: np.ndarray = self.classes[clip][self.objects[clip, frame]]
        return labels


def render_bank(seeds: Sequence[int], num_frames: int, stride: int, image_size: int) -> SceneBank:
    """Render `num_frames` frames, `stride` apart, of every seed; the first frame number varies with the seed."""
    shape = (len(seeds), num_frames, image_size, image_size)
    frames, objects = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint8)
    classes = []
    for row, seed in enumerate(seeds):
        clip = render_clip(seed, num_frames, SCENE_SIZE, stride=stride, first_frame=(seed * 7) % 40)
        for t in range(num_frames):
            frames[row, t] = cv2.resize(clip.frames[t], (image_size, image_size), interpolation=cv2.INTER_LINEAR)
            ids = cv2.resize(clip.objects[t], (image_size, image_size), interpolation=cv2.INTER_NEAREST_EXACT)
            objects[row, t] = np.minimum(ids, 255)
        classes.append(clip.object_classes)
    return SceneBank(frames, objects, tuple(classes))


@dataclass(frozen=True)
class Augmentation:
    """One random view, the same for all frames of a clip."""

    flip: bool
    top: float
    left: float
    scale: float
    gain: np.ndarray
    bias: float

    @classmethod
    def draw(cls, rng: np.random.Generator, smallest: float = 0.6) -> "Augmentation":
        scale = float(rng.uniform(smallest, 1.0)) if rng.random() < 0.7 else 1.0
        return cls(
            flip=bool(rng.random() < 0.5),
            top=float(rng.uniform(0, 1 - scale)),
            left=float(rng.uniform(0, 1 - scale)),
            scale=scale,
            gain=rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3),
            bias=float(rng.uniform(-12, 12)),
        )

    def _cut(self, image: np.ndarray) -> np.ndarray:
        side = image.shape[0]
        length = max(8, round(side * self.scale))
        top, left = min(round(side * self.top), side - length), min(round(side * self.left), side - length)
        cut = image[top : top + length, left : left + length]
        return cut[:, ::-1] if self.flip else cut

    def frame(self, frame: np.ndarray, size: int) -> np.ndarray:
        """Return the view of a picture, uint8 (size, size, 3)."""
        cut = np.ascontiguousarray(self._cut(frame))
        if cut.shape[0] != size:
            method = cv2.INTER_AREA if cut.shape[0] > size else cv2.INTER_LINEAR
            cut = cv2.resize(cut, (size, size), interpolation=method)
        light: np.ndarray = np.clip(cut * self.gain + self.bias, 0, 255).astype(np.uint8)
        return light

    def ids(self, ids: np.ndarray, size: int) -> np.ndarray:
        """Return the view of an id map, uint8 (size, size)."""
        cut = np.ascontiguousarray(self._cut(ids))
        return np.asarray(cv2.resize(cut, (size, size), interpolation=cv2.INTER_NEAREST_EXACT))


def visible_ids(ids: np.ndarray, smallest_share: float) -> np.ndarray:
    """Return the ids that cover at least `smallest_share` of the picture."""
    areas = np.bincount(ids.ravel(), minlength=256)
    areas[0] = 0
    return np.flatnonzero(areas >= max(1.0, smallest_share * ids.size))


def random_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Return a random (x, y) inside a bool mask (H, W) that has at least one pixel."""
    inside = np.flatnonzero(mask)
    y, x = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
    return x, y
