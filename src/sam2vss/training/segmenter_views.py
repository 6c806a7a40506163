"""The random views that segmenters are trained on: scale, crop, flip and light, as the VSS models are trained on VSPW.

All frames of a clip share scale, crop and flip, so that labels and frames stay on top of each other; light is drawn
anew for every frame. Everything is drawn from one generator, so a view is a function of its seed.

Source: the training pipeline of the published CFFM, MRCFA and TV3S configurations; own code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .segmenter_input import NetworkInput

CROP_TRIES = 10  # after the first one; the last one is taken as it is
BRIGHTNESS = 32.0  # at most so many grey levels are added or subtracted
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DEGREES = 36  # at most, of 360; in the source -18 to 17 of OpenCV's 180 steps, here to 18 as well


@dataclass(frozen=True)
class ViewRecipe:
    """What views are drawn.

    Attributes:
        crop: Side of the square views, in pixels.
        scales: Smallest and largest factor of the size that frames have at inference.
        max_share: A crop whose commonest class has this share of its labelled pixels or more is drawn again.
        flips: Share of views that are mirrored.
        light: Whether brightness, contrast, saturation and hue vary.
    """

    crop: int = 480
    scales: tuple[float, float] = (0.5, 2.0)
    max_share: float = 0.75
    flips: float = 0.5
    light: bool = True


@dataclass(frozen=True)
class Light:
    """Changes of a frame's light, each None where it is not made.

    Attributes:
        brightness: Added, in grey levels.
        contrast: Factor of the grey levels.
        contrast_first: Whether contrast changes before saturation and hue, else after them.
        saturation: Factor of the saturation.
        hue: Added to the hue, in OpenCV's steps of 2 degrees.
    """

    brightness: float | None = None
    contrast: float | None = None
    contrast_first: bool = True
    saturation: float | None = None
    hue: int | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Light":
        """Draw each change with probability 1/2."""
        brightness, contrast = rng.uniform(-BRIGHTNESS, BRIGHTNESS), rng.uniform(*CONTRAST)
        saturation, hue = rng.uniform(*SATURATION), int(rng.integers(-(HUE_DEGREES // 2), HUE_DEGREES // 2 + 1))
        is_made = rng.random(5) < 0.5
        return cls(
            brightness=brightness if is_made[0] else None,
            contrast=contrast if is_made[1] else None,
            contrast_first=bool(is_made[2]),
            saturation=saturation if is_made[3] else None,
            hue=hue if is_made[4] else None,
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return a picture, uint8 RGB (H, W, 3), in this light; every change is cut off at 0 and 255."""
        if self.brightness is not None:
            image = _cut(image + np.float32(self.brightness))
        if self.contrast is not None and self.contrast_first:
            image = _cut(image * np.float32(self.contrast))
        if self.saturation is not None or self.hue is not None:
            image = self._apply_color(image)
        if self.contrast is not None and not self.contrast_first:
            image = _cut(image * np.float32(self.contrast))
        return image

    def _apply_color(self, image: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        if self.saturation is not None:
            hsv[..., 1] = _cut(hsv[..., 1] * np.float32(self.saturation))
        if self.hue is not None:
            hsv[..., 0] = (hsv[..., 0].astype(np.int16) + self.hue) % 180
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


@dataclass(frozen=True, eq=False)
class View:
    """What the network is shown of one sample.

    Attributes:
        frames: uint8 RGB (T, S, S, 3); black beyond `size`.
        labels: Train ids or the ignore index, (T, S, S); ignored beyond `size`.
        size: (height, width) of the picture in the upper left corner; the rest is padding.
    """

    frames: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]


def draw_view(
    frames: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    network_input: NetworkInput,
    recipe: ViewRecipe,
    ignore_index: int,
    rng: np.random.Generator,
) -> View:
    """Draw a view of a clip of T frames.

    Args:
        frames: Pictures of one size, uint8 RGB (H, W, 3), the target last.
        labels: Train ids or the ignore index, (H, W) each.
        network_input: Says what size frames have at inference, and how they are resized.
        recipe: What is drawn.
        ignore_index: Label of the padding.
        rng: Drawn from.
    """
    size = network_input.size(frames[0].shape[:2], float(rng.uniform(*recipe.scales)))
    resized = [network_input.resize(frame, size) for frame in frames]
    truth = [resize_labels(ids, size) for ids in labels]
    top, left = choose_corner(truth[-1], recipe.crop, recipe.max_share, ignore_index, rng)
    is_mirrored = bool(rng.random() < recipe.flips)
    shown = (min(size[0], recipe.crop), min(size[1], recipe.crop))
    view = View(
        np.zeros((len(frames), recipe.crop, recipe.crop, 3), np.uint8),
        np.full((len(frames), recipe.crop, recipe.crop), ignore_index, labels[0].dtype),
        shown,
    )
    for t, (frame, ids) in enumerate(zip(resized, truth, strict=True)):
        frame, ids = (x[top : top + shown[0], left : left + shown[1]] for x in (frame, ids))
        if is_mirrored:
            frame, ids = frame[:, ::-1], ids[:, ::-1]
        light = Light.draw(rng) if recipe.light else Light()
        view.frames[t, : shown[0], : shown[1]] = light.apply(np.ascontiguousarray(frame))
        view.labels[t, : shown[0], : shown[1]] = ids
    return view


def choose_corner(
    labels: np.ndarray, crop: int, max_share: float, ignore_index: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw the (top, left) of a crop; again, up to ten times, where one class fills it or all is void.

    Args:
        labels: Train ids or the ignore index, (H, W).
        crop: Side of the crop; a smaller side of the picture is taken whole.
        max_share: The commonest class must have a smaller share of the labelled pixels; 1 or more: any crop will do.
        ignore_index: Of pixels that do not count.
        rng: Drawn from.
    """

    def draw() -> tuple[int, int]:
        rows, columns = (max(0, side - crop) for side in labels.shape)
        return int(rng.integers(rows + 1)), int(rng.integers(columns + 1))

    top, left = draw()
    if max_share >= 1:
        return top, left
    for _ in range(CROP_TRIES):
        found, counts = np.unique(labels[top : top + crop, left : left + crop], return_counts=True)
        counts = counts[found != ignore_index]
        if len(counts) > 1 and counts.max() < max_share * counts.sum():
            break
        top, left = draw()
    return top, left


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a label map (H, W) to (height, width): every pixel takes the label at its centre."""
    return np.asarray(cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT))


def _cut(values: np.ndarray) -> np.ndarray:
    """Return values cut off at 0 and 255, rounded down to uint8."""
    return np.asarray(np.clip(values, 0, 255).astype(np.uint8))
