"""Synthetic street clips with exact truth: for training the bundled weights, for tests and for demonstrations.

`render_clip` turns a seed into frames, labels and object ids; `export_vspw` writes clips as a data set on disk. The
scene is laid out in `synthetic_layout.py` from `synthetic_objects.py` and `synthetic_vehicles.py`; its bodies draw
themselves (`synthetic_bodies.py`) with the camera and the primitives of `synthetic_render.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SettingsError
from ..files import atomic_write_bytes, atomic_write_json
from ..images import encode_jpeg, write_label_map
from ..types import LabelSpace
from .synthetic_bodies import back_to_front
from .synthetic_layout import build_scene
from .synthetic_render import (
    CANVAS_SCALE,
    REFERENCE_SIZE,
    SUBPIXEL_BITS,
    View,
    expose,
    fixed_point,
    lens_blur,
    shade_ground,
)
from .synthetic_scene import Scene
from .synthetic_textures import Bytes

CLASS_NAMES: tuple[str, ...] = (
    "sky", "building", "road", "pavement", "vegetation", "pole", "sign", "car", "person", "truck",
)  # fmt: skip
PALETTE: Bytes = np.array(
    [
        (70, 130, 180),  # colours of CityScapes where it has the class
        (112, 82, 78),
        (128, 64, 128),
        (244, 35, 232),
        (107, 142, 35),
        (190, 190, 190),
        (220, 220, 0),
        (0, 30, 190),
        (220, 20, 60),
        (0, 170, 170),
    ],
    np.uint8,
)
LABEL_SPACE = LabelSpace(
    names=CLASS_NAMES, palette=PALETTE, kinds=("stuff",) * 5 + ("thing",) * 5, name="synthetic_street"
)

TRAIN_SEEDS = range(0, 100_000)
VALIDATION_SEEDS = range(100_000, 100_100)
TEST_SEEDS = range(200_000, 200_100)

SKY_ID = 1  # first object of every scene
FRAME_RATE = 15.0  # VSPW's
SHUTTER = 0.5  # fraction of the time between frames in which the shutter is open: motion blur


@dataclass(frozen=True)
class SyntheticClip:
    """Rendered frames with their exact truth.

    Attributes:
        frames: RGB, uint8 (T, H, W, 3).
        labels: Train ids, uint8 (T, H, W); equals `object_classes[objects]`.
        objects: Object ids 1..K, the same object keeps its id over the clip, uint16 (T, H, W). Every pixel belongs
            to exactly one object. An object of the scene may be out of the picture in all rendered frames.
        object_classes: Train id of each object id, uint8 (K + 1,); entry 0 is unused and 255.
    """

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    objects: npt.NDArray[np.uint16]
    object_classes: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        assert self.frames.shape[:3] == self.labels.shape == self.objects.shape, "one label and object per pixel"

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.frames.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.frames.shape[1]), int(self.frames.shape[2])

    def visible_objects(self, frame: int) -> npt.NDArray[np.uint16]:
        """Ids of the objects that can be seen in frame `frame`, ascending, uint16."""
        return np.unique(self.objects[frame])


def render_clip(
    seed: int,
    num_frames: int = 48,
    size: tuple[int, int] = (240, 320),
    *,
    stride: int = 1,
    first_frame: int = 0,
) -> SyntheticClip:
    """Render the clip of a seed.

    The scene follows from the seed alone, and each frame from the seed and its number: a shorter clip is the
    beginning of a longer one, another size shows the same scene scaled (sensor noise and blur stay in pixels).

    Args:
        seed: Which scene; see TRAIN_SEEDS, VALIDATION_SEEDS and TEST_SEEDS.
        num_frames: T, frames to render.
        size: (height, width) in pixels.
        stride: Distance between rendered frames, in frames of the clip.
        first_frame: Number of the first rendered frame.

    Returns:
        Frames `first_frame`, `first_frame + stride`, ...

    Raises:
        SettingsError: If a count is not positive, or `seed` or `first_frame` is negative.

    Source: ours.
    """
    if min(num_frames, stride, *size) < 1 or min(seed, first_frame) < 0:
        raise SettingsError(
            f"cannot render num_frames={num_frames}, size={size}, stride={stride}, first_frame={first_frame}, "
            f"seed={seed}: the first three must be at least 1, the last two at least 0"
        )
    scene = _scene(seed)
    frames = np.empty((num_frames, *size, 3), np.uint8)
    objects = np.empty((num_frames, *size), np.uint16)
    for index in range(num_frames):
        number = first_frame + index * stride
        frames[index], objects[index] = _render_frame(scene, number, size, np.random.default_rng((seed, number)))
    object_classes = np.asarray(scene.object_classes, np.uint8)
    return SyntheticClip(frames, object_classes[objects], objects, object_classes)


@lru_cache(maxsize=4)
def _scene(seed: int) -> Scene:
    return build_scene(seed)


def _render_frame(scene: Scene, number: int, size: tuple[int, int], rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """One frame: RGB, uint8 (H, W, 3), and object ids, uint8 (H, W)."""
    canvas_size = (size[0] * CANVAS_SCALE, size[1] * CANVAS_SCALE)
    view = scene.camera.at(number, canvas_size)
    canvas = np.empty((*canvas_size, 4), np.uint8)
    _draw_sky(canvas, scene, view)
    for patch in scene.ground:
        x0, x1, z0, z1 = patch.area
        corners = np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])
        corners[:, 2] = np.maximum(corners[:, 2], view.z + 1.0)
        color = (*patch.color, patch.object_id)
        cv2.fillConvexPoly(canvas, fixed_point(view.project(corners)), color, 8, SUBPIXEL_BITS)
    shadows = [outline for prop in scene.props if (outline := prop.shadow(number)) is not None]
    shadows = [outline for outline in shadows if outline[:, 2].max() > view.z + 2]
    if scene.wall_shadow is not None:
        shadows.append(scene.wall_shadow)
    shade_ground(canvas, view, scene.grain, shadows, scene.shadow_light)
    for wall in scene.walls:
        wall.draw(canvas, view)
    for prop in back_to_front(scene.props, view, number):
        prop.draw(canvas, view, number)
    return _develop(canvas, scene, view, number, size, rng)


def _draw_sky(canvas: Bytes, scene: Scene, view: View) -> None:
    """Fill the canvas with the sky, which turns with the camera but does not come closer."""
    height, width = canvas.shape[:2]
    scale_u, scale_v = width / REFERENCE_SIZE[1], height / REFERENCE_SIZE[0]
    shift_u = view.center_u - scene.sky.shape[1] / 2
    rise = (view.horizon_v + 20) / scene.sky.shape[0]
    move = np.array([[scale_u, 0, shift_u * scale_u], [0, rise * scale_v, -20 * scale_v]], np.float64)
    bottom = min(height, int((view.horizon_v + 3) * scale_v) + 1)
    sky = cv2.warpAffine(scene.sky, move, (width, bottom), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    canvas[:bottom, :, :3] = sky
    canvas[bottom:, :, :3] = scene.sky[-1, 0]
    canvas[..., 3] = SKY_ID


def _develop(
    canvas: Bytes, scene: Scene, view: View, number: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Average the canvas down, blur by lens and motion, and expose."""
    ids = np.ascontiguousarray(canvas[::CANVAS_SCALE, ::CANVAS_SCALE, 3])
    image = cv2.cvtColor(cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA), cv2.COLOR_RGBA2RGB)
    before = scene.camera.at(number - 1, view.canvas_size)
    turn = (
        (view.center_u - before.center_u) * size[1] / REFERENCE_SIZE[1] * SHUTTER,
        (view.horizon_v - before.horizon_v) * size[0] / REFERENCE_SIZE[0] * SHUTTER,
    )
    sharp = np.asarray(image, np.uint8)
    image = lens_blur(sharp, turn, scene.lens_sigma)
    for prop in scene.props:
        if not prop.motion.is_moving:
            continue
        (x, z), (x0, z0) = prop.motion.at(number), prop.motion.at(number - 1)
        if min(z - view.z, z0 - before.z) < 1.5:
            continue
        place = view.project(np.array((x, 0.8, z)))
        shift = (place - before.project(np.array((x0, 0.8, z0)))) / CANVAS_SCALE * SHUTTER
        if np.abs(shift - turn).max() < 0.4:
            continue
        reach = 3.2 * view.focal / (z - view.z) * size[1] / REFERENCE_SIZE[1] * 1.2
        left, right = (int(np.clip(place[0] / CANVAS_SCALE + side * reach, 0, size[1])) for side in (-1, 1))
        top, bottom = (int(np.clip(place[1] / CANVAS_SCALE + side * reach, 0, size[0])) for side in (-1, 1))
        if right - left < 2 or bottom - top < 2:
            continue
        mask = np.asarray(ids[top:bottom, left:right] == prop.object_id).view(np.uint8)
        blurred = lens_blur(sharp[top:bottom, left:right], (float(shift[0]), float(shift[1])), scene.lens_sigma)
        cv2.copyTo(blurred, mask, image[top:bottom, left:right])
    return expose(image, scene.tint, scene.noise, rng), ids


def export_vspw(
    root: Path,
    seeds: Sequence[int],
    num_frames: int,
    size: tuple[int, int],
    split_name: str = "val",
    progress: Callable[[int, int, str], None] | None = None,
) -> None:
    """Write clips in the layout of VSPW: frames as JPEG, labels as indexed PNG with palette.

    Writes `label_set.json`, `videos.json`, `<split_name>.txt`, and per seed
    `data/synthetic_<seed>/origin/NNNNNNNN.jpg` and `.../mask/NNNNNNNN.png` (pixel value = train id). Existing files of
    the same names are replaced.

    Args:
        root: Folder of the data set; made if missing.
        seeds: One video per seed.
        num_frames: T, frames per video.
        size: (height, width) in pixels.
        split_name: Name of the list of videos.
        progress: Called after every video with videos done, videos in all, and its name.

    Raises:
        MediaError: If a file cannot be written.

    Source: layout as in the VSPW release; ours keeps ids from 0 instead of raw ids with void 0.
    """
    atomic_write_json(root / "label_set.json", _label_set())
    videos = [f"synthetic_{seed:06d}" for seed in seeds]
    facts = {"frames": num_frames, "width": size[1], "height": size[0], "fps": FRAME_RATE}
    atomic_write_json(
        root / "videos.json", {video: {**facts, "seed": s} for s, video in zip(seeds, videos, strict=True)}
    )
    for done, (seed, video) in enumerate(zip(seeds, videos, strict=True), 1):
        folder = root / "data" / video
        clip = render_clip(seed, num_frames, size)
        for number, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
            atomic_write_bytes(folder / "origin" / f"{number:08d}.jpg", encode_jpeg(frame, quality=95))
            write_label_map(folder / "mask" / f"{number:08d}.png", labels, LABEL_SPACE)
        if progress:
            progress(done, len(videos), video)
    atomic_write_bytes(root / f"{split_name}.txt", "".join(f"{video}\n" for video in videos).encode())


def _label_set() -> dict[str, Any]:
    return {
        **LABEL_SPACE.to_dict(),
        "mask_encoding": "uint8 single-channel PNG, pixel value = class id",
        "ignore_index": LABEL_SPACE.ignore_index,
    }
