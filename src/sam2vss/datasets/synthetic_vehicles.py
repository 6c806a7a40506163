"""Cars, lorries and buses of the synthetic street, built from boxes.

Class "truck" holds lorries and buses. All numbers are ours, chosen by eye.
"""

import numpy as np

from .synthetic_bodies import CIRCLE, Mesh, Motion, padded
from .synthetic_render import Points
from .synthetic_scene import CAR, TRUCK, Scene
from .synthetic_textures import Floats

CAR_COLORS = (
    (188, 38, 40),
    (36, 74, 168),
    (226, 228, 230),
    (40, 42, 48),
    (232, 186, 40),
    (28, 128, 120),
    (214, 96, 30),
)
TRUCK_COLORS = ((238, 236, 228), (70, 130, 190), (236, 150, 40), (90, 160, 90), (200, 60, 60))
GLASS = np.array((48, 60, 74), np.float32)
DARK = np.array((34, 35, 38), np.float32)


def add_vehicle(rng: np.random.Generator, scene: Scene, motion: Motion, heading: float, *, truck_share: float) -> None:
    if rng.random() < truck_share:
        add_truck(rng, scene, motion, heading)
    else:
        add_car(rng, scene, motion, heading)


def add_car(rng: np.random.Generator, scene: Scene, motion: Motion, heading: float) -> None:
    paint = np.asarray(CAR_COLORS[rng.integers(len(CAR_COLORS))], np.float32) * np.float32(rng.uniform(0.9, 1.05))
    half, length = float(rng.uniform(0.88, 0.98)), float(rng.uniform(1.95, 2.3))
    waist, roof = float(rng.uniform(0.84, 0.95)), float(rng.uniform(1.42, 1.62))
    is_estate = bool(rng.random() < 0.4)
    body = BodyBuilder()
    body.add_box(half * 0.92, (0.16, 0.4), (-length * 0.94, length * 0.94), DARK)
    faces = body.add_box(half, (0.3, waist), (-length, length), paint, np.array((0.05, 0.06, 0.14)))
    for name in ("left", "right"):
        body.add_inset(faces[name], (0.0, 1.0), (0.0, 0.16), paint * 0.45)
        body.add_inset(faces[name], (0.03, 0.97), (0.84, 0.9), np.clip(paint * 1.1 + 14, 0, 252))
        body.add_inset(faces[name], (0.495, 0.505), (0.16, 0.95), paint * 0.42)
    for name, tone in (("rear", (198, 26, 30)), ("front", (250, 246, 224))):
        face = faces[name]
        body.add_inset(face, (0.0, 1.0), (0.0, 0.26), paint * 0.5)
        body.add_inset(face, (0.03, 0.22), (0.55, 0.8), np.array(tone, np.float32))
        body.add_inset(face, (0.78, 0.97), (0.55, 0.8), np.array(tone, np.float32))
        body.add_inset(face, (0.36, 0.64), (0.3, 0.48), np.array((232, 232, 224), np.float32))
    body.add_wheels(half, (-length * 0.62, length * 0.62), 0.34)
    rear = 0.25 if is_estate else 0.55
    start, stop = (-length * 0.96 if is_estate else -length * 0.72), length * 0.48
    cabin = body.add_box(half * 0.95, (waist, roof), (start, stop), paint * 0.96, np.array((0.16, rear, 0.75)))
    for name in ("rear", "front"):
        body.add_inset(cabin[name], (0.07, 0.93), (0.08, 0.88), GLASS)
        body.add_inset(cabin[name], (0.1, 0.5), (0.55, 0.84), GLASS * 1.5)
    for name in ("left", "right"):
        body.add_inset(cabin[name], (0.08, 0.49), (0.08, 0.86), GLASS * 1.05)
        body.add_inset(cabin[name], (0.53, 0.92), (0.08, 0.86), GLASS * 1.05)
    scene.props.append(body.mesh(scene, scene.new_id(CAR), motion, heading, half, length))


def add_truck(rng: np.random.Generator, scene: Scene, motion: Motion, heading: float) -> None:
    paint = np.asarray(TRUCK_COLORS[rng.integers(len(TRUCK_COLORS))], np.float32) * np.float32(rng.uniform(0.9, 1.04))
    stripe = np.asarray(TRUCK_COLORS[rng.integers(1, len(TRUCK_COLORS))], np.float32) * 0.8
    half, length = float(rng.uniform(1.15, 1.28)), float(rng.uniform(2.9, 3.6))
    roof = float(rng.uniform(2.7, 3.2))
    is_bus = bool(rng.random() < 0.45)
    body = BodyBuilder()
    body.add_box(half * 0.9, (0.3, 0.75), (-length * 0.97, length * 0.97), DARK)
    if is_bus:
        paint = np.clip(stripe * 1.2, 0, 250)
        faces = body.add_box(half, (0.42, roof), (-length, length), paint)
        for name in ("left", "right"):
            body.add_inset(faces[name], (0.03, 0.97), (0.44, 0.84), DARK)
            for index in range(5):
                s0 = 0.045 + 0.186 * index
                body.add_inset(faces[name], (s0, s0 + 0.165), (0.47, 0.81), GLASS * 1.3)
            body.add_inset(faces[name], (0.0, 1.0), (0.18, 0.26), np.full(3, 235.0, np.float32))
    else:
        cab = length - 1.7
        fronts = body.add_box(half * 0.96, (0.42, roof * 0.82), (cab + 0.1, length), stripe, np.array((0.06, 0.0, 0.3)))
        load = body.add_box(half, (0.62, roof), (-length, cab), paint)
        _order_load_behind(body, fronts, load, heading)
        faces = {"front": fronts["front"], "rear": load["rear"]}
        for name in ("left", "right"):
            body.add_inset(load[name], (0.0, 1.0), (0.0, 0.06), paint * 0.5)
            body.add_inset(load[name], (0.0, 1.0), (0.94, 1.0), paint * 0.6)
            body.add_inset(load[name], (0.06, 0.94), (0.3, 0.52), stripe)
            body.add_inset(fronts[name], (0.2, 0.85), (0.5, 0.9), GLASS)
    body.add_inset(faces["front"], (0.08, 0.92), (0.46, 0.88), GLASS)
    body.add_inset(faces["front"], (0.12, 0.5), (0.66, 0.85), GLASS * 1.45)
    body.add_inset(faces["rear"], (0.1, 0.9), (0.3, 0.92), paint * 0.8 if not is_bus else GLASS)
    body.add_inset(faces["rear"], (0.49, 0.51), (0.1, 0.92), DARK)
    for name, tone in (("rear", (206, 30, 30)), ("front", (250, 246, 224))):
        body.add_inset(faces[name], (0.0, 1.0), (0.0, 0.07), DARK)
        body.add_inset(faces[name], (0.04, 0.18), (0.1, 0.2), np.array(tone, np.float32))
        body.add_inset(faces[name], (0.82, 0.96), (0.1, 0.2), np.array(tone, np.float32))
    body.add_wheels(half, (-length * 0.66, -length * 0.36, length * 0.7), 0.46)
    scene.props.append(body.mesh(scene, scene.new_id(TRUCK), motion, heading, half, length))


def _order_load_behind(body: "BodyBuilder", fronts: dict[str, Points], load: dict[str, Points], heading: float) -> None:
    """Oncoming, the cab hides the load, so its five faces must be drawn after those of the load."""
    assert len(fronts) == len(load) == 5, "both are boxes of five faces"
    if np.cos(heading) < -0.5:
        body.faces[-10:] = body.faces[-5:] + body.faces[-10:-5]
        body.colors[-10:] = body.colors[-5:] + body.colors[-10:-5]


class BodyBuilder:
    """Collects the faces of a vehicle in drawing order. Local axes: x right, y up, z forward."""

    def __init__(self) -> None:
        self.faces: list[Points] = []
        self.colors: list[Floats] = []

    def add(self, face: Points, color: Floats) -> None:
        self.faces.append(padded(face))
        self.colors.append(np.asarray(color, np.float32))

    def add_box(
        self,
        half_width: float,
        y: tuple[float, float],
        z: tuple[float, float],
        color: Floats,
        taper: Points | None = None,
    ) -> dict[str, Points]:
        """Add a box, or with `taper` = (side, rear, front) a frustum; returns its faces by name."""
        side, rear, front = (0.0, 0.0, 0.0) if taper is None else taper
        w = half_width
        bottom = np.array([(-w, y[0], z[0]), (w, y[0], z[0]), (w, y[0], z[1]), (-w, y[0], z[1])])
        v = w - side
        top = np.array(
            [(-v, y[1], z[0] + rear), (v, y[1], z[0] + rear), (v, y[1], z[1] - front), (-v, y[1], z[1] - front)]
        )
        faces = {"top": top}
        for index, name in enumerate(("rear", "right", "front", "left")):
            after = (index + 1) % 4
            faces[name] = np.stack([bottom[index], bottom[after], top[after], top[index]])
        shades = {"top": 1.16, "rear": 0.92, "front": 0.92, "left": 0.78, "right": 0.84}
        for name, face in faces.items():
            self.add(face, np.clip(color * shades[name] + 4, 0, 252))
        return faces

    def add_inset(self, face: Points, s: tuple[float, float], t: tuple[float, float], color: Floats) -> None:
        """Add a rectangle within a face, in fractions of its width and height."""
        corners = []
        for fs, ft in ((s[0], t[0]), (s[1], t[0]), (s[1], t[1]), (s[0], t[1])):
            low, high = face[0] + fs * (face[1] - face[0]), face[3] + fs * (face[2] - face[3])
            corners.append(low + ft * (high - low))
        self.add(np.array(corners), color)

    def add_wheels(self, half_width: float, places: tuple[float, ...], radius: float) -> None:
        tyre, hub = np.array((26, 26, 29), np.float32), np.array((168, 170, 174), np.float32)
        blocks: list[Points] = []
        for z in places:  # under the body, seen from front and rear
            for side in (-1, 1):
                x0, x1 = sorted((side * half_width * 0.98, side * half_width * 0.7))
                for end, (a, b) in ((-1, (x0, x1)), (1, (x1, x0))):
                    ze = z + end * radius * 0.75
                    blocks.append(padded(np.array([(a, 0, ze), (b, 0, ze), (b, radius, ze), (a, radius, ze)])))
        self.faces[:0] = blocks  # first, because the body hides their upper part
        self.colors[:0] = [tyre] * len(blocks)
        for z in places:
            for side in (-1, 1):
                for size, tone, out in ((1.18, tyre * 0.6, 0.0), (1.0, tyre, 0.01), (0.55, hub, 0.02)):
                    disc = np.empty((12, 3))
                    disc[:, 0] = side * (half_width + out)
                    disc[:, 1] = radius + radius * size * CIRCLE[:, 1]
                    disc[:, 2] = z + side * radius * size * CIRCLE[:, 0]
                    self.add(disc, tone)

    def mesh(
        self, scene: Scene, object_id: int, motion: Motion, heading: float, half_width: float, half_length: float
    ) -> Mesh:
        faces = np.stack(self.faces)
        cos, sin = float(np.cos(heading)), float(np.sin(heading))
        turned = faces.copy()
        turned[..., 0] = faces[..., 0] * cos + faces[..., 2] * sin
        turned[..., 2] = faces[..., 2] * cos - faces[..., 0] * sin
        footprint = (half_width, half_length) if abs(sin) < 0.5 else (half_length, half_width)
        colors = scene.hazed(np.stack(self.colors), abs(motion.start[1]) * 0.7)
        return Mesh(object_id, turned, colors, motion, True, footprint, scene.sun)
