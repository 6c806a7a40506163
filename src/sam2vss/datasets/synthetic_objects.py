"""Builders that put one standing object into a synthetic street: buildings, trees, persons, lamps, lights and signs.

Each takes a place, draws the rest from the generator, and registers the object's id. All numbers ours, by eye.
"""

import cv2
import numpy as np

from .synthetic_bodies import CIRCLE, Cutout, Mesh, Motion, Walker, Wall, padded
from .synthetic_render import CANVAS_SCALE, Points
from .synthetic_scene import BUILDING, PERSON, POLE, SIGN, VEGETATION, GroundPatch, Scene
from .synthetic_textures import FACADE_COLORS, Bytes, Floats, paint_facade, paint_tree

Part = tuple[Points, tuple[float, float, float]]  # an upright polygon and its colour

SHIRT_COLORS = ((214, 60, 72), (240, 236, 230), (70, 120, 210), (246, 196, 60), (150, 80, 170), (250, 130, 60))
TROUSER_COLORS = ((44, 52, 84), (40, 40, 44), (96, 84, 70), (70, 78, 92))
SKIN_COLORS = ((236, 188, 160), (198, 144, 108), (140, 96, 70), (222, 170, 136))
SIGN_COLORS = ((28, 84, 190), (208, 30, 40), (244, 200, 30), (20, 130, 80))


def add_patch(scene: Scene, object_id: int, color: Floats, area: tuple[float, float, float, float]) -> None:
    red, green, blue = np.clip(color, 0, 250).tolist()
    scene.ground.append(GroundPatch(object_id, (red, green, blue), area))


def add_front(rng: np.random.Generator, scene: Scene, x0: float, x1: float, z: float, height: float) -> None:
    object_id = scene.new_id(BUILDING)
    px_per_m = scene.camera.focal / z * CANVAS_SCALE
    size = (max(8, int(height * px_per_m)), max(8, int((x1 - x0) * px_per_m)))
    texture = paint_facade(rng, x1 - x0, height, scene.hazed(_facade_color(rng), z), texture_size=size)
    scene.walls.append(Wall(object_id, _with_id(texture, object_id), ((x0, z), (x1, z)), height))


def add_street_building(rng: np.random.Generator, scene: Scene, x: float, z0: float, z1: float, height: float) -> None:
    """A building along the street: its front on the plane `x`, and the side wall that faces the camera."""
    object_id = scene.new_id(BUILDING)
    color = scene.hazed(_facade_color(rng), (z0 + z1) / 2)
    sunlit = 1.06 if np.sign(x) == -np.sign(scene.sun[0]) else 0.86
    closest = max(z0, 7.0)
    rows = int(np.clip(height * scene.camera.focal / closest * CANVAS_SCALE, 16, 300))
    shown = abs(x) * scene.camera.focal * (1 / closest - 1 / max(z1, closest + 1)) * CANVAS_SCALE
    columns = int(np.clip(shown * 1.2, 8, 260))
    front = paint_facade(rng, z1 - z0, height, color * np.float32(1 / sunlit), texture_size=(rows, columns))
    front = np.clip(front * sunlit, 0, 255).astype(np.uint8)
    foot = ((x, z1), (x, z0)) if x > 0 else ((x, z0), (x, z1))
    side = np.empty((8, 8, 3), np.uint8)
    side[:] = np.clip(color * 0.66, 0, 255).astype(np.uint8)
    side[0] = np.clip(color * 0.9, 0, 255).astype(np.uint8)
    outer = x + np.sign(x) * 14
    left, right = min(x, outer), max(x, outer)
    scene.walls.append(Wall(object_id, _with_id(front, object_id), foot, height))
    scene.walls.append(Wall(object_id, _with_id(side, object_id), ((left, z0), (right, z0)), height))


def _facade_color(rng: np.random.Generator) -> Floats:
    base = np.asarray(FACADE_COLORS[rng.integers(len(FACADE_COLORS))], np.float32)
    return base * np.float32(rng.uniform(0.82, 1.08)) + rng.normal(0, 4, 3).astype(np.float32)


def _with_id(texture: Bytes, object_id: int) -> Bytes:
    return np.asarray(cv2.merge([texture, np.full(texture.shape[:2], object_id, np.uint8)]), np.uint8)


def add_cutout(
    rng: np.random.Generator, scene: Scene, x: float, z: float, is_hedge: bool, size: float | None = None
) -> None:
    height = float(rng.uniform(1.0, 1.5) if is_hedge else rng.uniform(3.6, 5.6)) if size is None else size
    width = height * float(rng.uniform(2.0, 2.8) if is_hedge else rng.uniform(0.72, 0.92))
    texture = paint_tree(rng, is_hedge=is_hedge)
    texture[..., :3] = np.clip(scene.hazed(texture[..., :3].astype(np.float32), z), 0, 255)
    px = int(height * scene.camera.focal / z * CANVAS_SCALE)
    if px < texture.shape[0]:
        columns = max(8, int(px * width / height))
        texture = np.asarray(cv2.resize(texture, (columns, max(8, px)), interpolation=cv2.INTER_AREA), np.uint8)
    sway = (0.0 if is_hedge else float(rng.uniform(0.002, 0.008)), float(rng.uniform(0, 6)))
    object_id = scene.new_id(VEGETATION)
    scene.props.append(Cutout(object_id, texture, Motion((x, z)), width, height, sway, scene.sun))


def add_walker(rng: np.random.Generator, scene: Scene, motion: Motion, stride: float) -> None:
    def pick(colors: tuple[tuple[int, int, int], ...]) -> Floats:
        return np.asarray(colors[rng.integers(len(colors))], np.float32) * np.float32(rng.uniform(0.9, 1.08))

    hair = np.asarray(((40, 30, 26), (84, 58, 36), (150, 116, 70))[rng.integers(3)], np.float32)
    colors = np.stack([pick(SHIRT_COLORS), pick(TROUSER_COLORS), pick(SKIN_COLORS), hair, pick(((50, 44, 42),))])
    pace = float(np.hypot(*motion.velocity))
    scene.props.append(
        Walker(
            object_id=scene.new_id(PERSON),
            motion=motion,
            height=float(rng.uniform(1.6, 1.95)),
            colors=scene.hazed(colors, motion.start[1]),
            stride=stride,
            cadence=float(np.clip(pace * 4.0, 0.15, 0.4)),
            phase=float(rng.uniform(0, 6)),
            sun=scene.sun,
        )
    )


def add_lamp(rng: np.random.Generator, scene: Scene, x: float, z: float, arm: float) -> None:
    height, reach = float(rng.uniform(4.6, 6.2)), arm * float(rng.uniform(0.9, 1.5))
    parts = _pole_bars(0.11, height)
    parts.append((_bar(min(0, reach), max(0, reach), height - 0.14, height), (64, 68, 72)))
    parts.append((_bar(reach - 0.32, reach + 0.32, height - 0.22, height + 0.04), (72, 76, 80)))
    parts.append((_bar(reach - 0.26, reach + 0.26, height - 0.28, height - 0.18), (236, 230, 206)))
    _add_flat_mesh(scene, POLE, x, z, parts, 0.2)


def add_traffic_light(rng: np.random.Generator, scene: Scene, x: float, z: float) -> None:
    height = float(rng.uniform(2.9, 3.4))
    parts = _pole_bars(0.1, height)
    parts.append((_bar(-0.27, 0.27, height - 0.2, height + 0.9), (30, 32, 34)))
    lit = int(rng.integers(3))
    tones = (((232, 52, 44), (240, 190, 50), (60, 214, 110)), ((92, 34, 32), (96, 80, 34), (34, 84, 50)))
    for index in range(3):
        disc = CIRCLE * 0.15 + (0.0, height + 0.70 - 0.34 * index)
        parts.append((_flat(disc), tones[0 if index == lit else 1][index]))
    _add_flat_mesh(scene, POLE, x, z, parts, 0.2)


def add_sign(rng: np.random.Generator, scene: Scene, x: float, z: float) -> None:
    """A plate of class sign on a post that is an object of class pole."""
    kind, height = int(rng.integers(4)), float(rng.uniform(2.3, 2.9))
    _add_flat_mesh(scene, POLE, x, z + 0.05, _pole_bars(0.08, height + 0.3), 0.2)
    color = np.asarray(SIGN_COLORS[rng.integers(len(SIGN_COLORS))], np.float64) * rng.uniform(0.92, 1.06)
    tone, white, dark = tuple(color.tolist()), (244.0, 244.0, 240.0), (30.0, 30.0, 34.0)
    center = np.array((0.0, height))
    if kind == 0:
        outline, glyph = CIRCLE, np.array([(-0.62, -0.16), (0.62, -0.16), (0.62, 0.16), (-0.62, 0.16)])
    elif kind == 1:
        outline = np.array([(-1.05, -0.75), (1.05, -0.75), (0.0, 1.1)])
        glyph = np.array([(-0.12, -0.45), (0.12, -0.45), (0.12, 0.35), (-0.12, 0.35)])
    elif kind == 2:
        outline = np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])
        glyph = np.array([(-0.4, -0.5), (0.4, -0.5), (0.0, 0.55)])
    else:
        outline = np.array([(-1.7, -0.7), (1.7, -0.7), (1.7, 0.7), (-1.7, 0.7)])
        glyph = np.array([(-1.2, -0.12), (1.2, -0.12), (1.2, 0.18), (-1.2, 0.18)])
    size = float(rng.uniform(0.5, 0.66))
    parts = [
        (_flat(outline * size * 1.08 + center), dark),
        (_flat(outline * size + center), white),
        (_flat(outline * size * 0.84 + center), tone),
        (_flat(glyph * size * 0.84 + center), white),
    ]
    _add_flat_mesh(scene, SIGN, x, z - 0.05, parts, 0.0)


def _pole_bars(half: float, height: float) -> list[Part]:
    return [
        (_bar(-half, half, 0, height), (50, 54, 58)),
        (_bar(-half * 0.5, half * 0.45, 0, height), (112, 118, 122)),
        (_bar(-half * 1.7, half * 1.7, 0, 0.35), (56, 60, 64)),
    ]


def _add_flat_mesh(scene: Scene, train_id: int, x: float, z: float, parts: list[Part], foot: float) -> None:
    faces = np.stack([part for part, _ in parts])
    colors = scene.hazed(np.asarray([tone for _, tone in parts], np.float32), z)
    footprint = (foot, 0.15) if foot else None
    object_id = scene.new_id(train_id)
    scene.props.append(Mesh(object_id, faces, colors, Motion((x, z)), False, footprint, scene.sun))


def _bar(x0: float, x1: float, y0: float, y1: float) -> Points:
    return _flat(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]))


def _flat(outline: Points) -> Points:
    """An upright polygon (V, 2) of (x, y) in the plane z = 0, padded to (12, 3)."""
    return np.concatenate([padded(outline), np.zeros((12, 1))], axis=1)
