"""Bodies of the synthetic street and how each is drawn: walls, cut-out trees, rigid meshes, walking persons.

A body knows its place at any moment, draws itself through a `View` with its object id, and says where its shadow
falls; `back_to_front` puts bodies in drawing order. All sources "ours".
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .synthetic_render import Points, View, fill_faces, paste
from .synthetic_textures import Bytes, Floats

CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 12, False)), np.sin(np.linspace(0, 2 * np.pi, 12, False))], axis=1)


@dataclass(frozen=True)
class Motion:
    """Position over time: start plus velocity per frame, with a gentle change of pace."""

    start: tuple[float, float]  # x, z in metres
    velocity: tuple[float, float] = (0.0, 0.0)  # metres per frame
    pace: tuple[float, float] = (0.0, 0.0)  # amplitude in frames, phase

    @property
    def is_moving(self) -> bool:
        """Whether the position changes at all."""
        return self.velocity != (0.0, 0.0)

    def at(self, frame: float) -> tuple[float, float]:
        """(x, z) in metres in frame number `frame`."""
        time = frame + self.pace[0] * float(np.sin(0.11 * frame + self.pace[1]))
        return self.start[0] + self.velocity[0] * time, self.start[1] + self.velocity[1] * time


class Prop(Protocol):
    """Anything that stands on the ground."""

    @property
    def object_id(self) -> int:
        """Id under which it is drawn, 1..250."""

    @property
    def motion(self) -> Motion:
        """Where it stands over time."""

    @property
    def half_extent(self) -> tuple[float, float]:
        """Half of its size along x and z in metres: what it takes up on the ground."""

    def draw(self, canvas: Bytes, view: View, frame: float) -> None:
        """Draw the object with its id onto the canvas (2H, 2W, 4)."""

    def shadow(self, frame: float) -> Points | None:
        """Outline of its shadow on the ground, float64 (V, 3), or none."""


@dataclass(frozen=True)
class Wall:
    """An upright textured rectangle: one visible side of a building.

    Attributes:
        texture: uint8 (h, w, 4); RGB and, in the last channel, the object id.
        foot: (x, z) of the left and right lower corner, as seen from the street.
    """

    object_id: int
    texture: Bytes
    foot: tuple[tuple[float, float], tuple[float, float]]
    height: float

    def draw(self, canvas: Bytes, view: View) -> None:
        """Draw the part of the wall in front of the camera."""
        (x0, z0), (x1, z1) = self.foot
        nearest = view.z + 1.0
        if max(z0, z1) <= nearest:
            return
        begin = max(0.0, (nearest - z0) / (z1 - z0)) if z0 < nearest else 0.0
        end = min(1.0, (nearest - z0) / (z1 - z0)) if z1 < nearest else 1.0
        left = (x0 + begin * (x1 - x0), z0 + begin * (z1 - z0))
        right = (x0 + end * (x1 - x0), z0 + end * (z1 - z0))
        corners = np.array(
            [(x, y, z) for (x, z), y in ((left, self.height), (right, self.height), (right, 0.0), (left, 0.0))]
        )
        quad = view.project(corners)
        rows, columns = self.texture.shape[:2]
        u0, u1 = begin * columns - 0.5, end * columns - 0.5
        source = np.array([(u0, -0.5), (u1, -0.5), (u1, rows - 0.5), (u0, rows - 0.5)], np.float32)
        paste(canvas, self.texture, source, quad, None)


@dataclass(frozen=True)
class Cutout:
    """A flat painted tree or hedge that always faces the camera and sways a little.

    Attributes:
        texture: uint8 (h, w, 4), RGBA.
        sway: (amplitude as a fraction of the height, phase).
    """

    object_id: int
    texture: Bytes
    motion: Motion
    width: float
    height: float
    sway: tuple[float, float]
    sun: tuple[float, float]

    @property
    def half_extent(self) -> tuple[float, float]:
        """The foot of the trunk, or the hedge."""
        return 0.3 * self.width, 0.1

    def draw(self, canvas: Bytes, view: View, frame: float) -> None:
        """Draw the cut-out; nothing once it is closer than the camera can see."""
        x, z = self.motion.at(frame)
        if z - view.z < 1.5:
            return
        shift = self.sway[0] * self.height * float(np.sin(0.13 * frame + self.sway[1]))
        half = self.width / 2
        corners = ((x - half + shift, self.height), (x + half + shift, self.height), (x + half, 0.0), (x - half, 0.0))
        quad = view.project(np.array([(cx, cy, z) for cx, cy in corners]))
        rows, columns = self.texture.shape[:2]
        source = np.array(
            [(-0.5, -0.5), (columns - 0.5, -0.5), (columns - 0.5, rows - 0.5), (-0.5, rows - 0.5)], np.float32
        )
        paste(canvas, self.texture, source, quad, self.object_id)

    def shadow(self, frame: float) -> Points | None:
        """A long oval away from the sun."""
        x, z = self.motion.at(frame)
        return oval(x + self.sun[0] * self.height * 0.4, z + self.sun[1], self.width * 0.5, 0.7)


@dataclass(frozen=True)
class Mesh:
    """A rigid body of flat-coloured faces: vehicles, posts and signs.

    Attributes:
        faces: float64 (F, V, 3) around the body's place on the ground, in drawing order.
        colors: float32 (F, 3), already shaded.
        cull: Whether faces seen from behind are hidden.
        footprint: Half width and half length of the shadow, or none.
    """

    object_id: int
    faces: Points
    colors: Floats
    motion: Motion
    cull: bool
    footprint: tuple[float, float] | None
    sun: tuple[float, float]

    @property
    def half_extent(self) -> tuple[float, float]:
        """The footprint."""
        return (0.1, 0.1) if self.footprint is None else self.footprint

    def draw(self, canvas: Bytes, view: View, frame: float) -> None:
        """Draw the faces in order; nothing once the body is behind the camera."""
        x, z = self.motion.at(frame)
        if z - view.z < 1.0:
            return
        fill_faces(
            canvas, view.project(self.faces + np.array((x, 0.0, z))), self.colors, self.object_id, cull=self.cull
        )

    def shadow(self, frame: float) -> Points | None:
        """The footprint, pushed away from the sun."""
        if self.footprint is None:
            return None
        x, z = self.motion.at(frame)
        half_x, half_z = self.footprint
        x0, x1 = x - half_x + min(0.0, self.sun[0]), x + half_x + max(0.0, self.sun[0])
        return np.array([(x0, 0, z - half_z), (x1, 0, z - half_z), (x1, 0, z + half_z), (x0, 0, z + half_z)])


@dataclass(frozen=True)
class Walker:
    """A walking person, drawn flat towards the camera, limbs swinging with the distance walked.

    Attributes:
        colors: float32 (5, 3): shirt, trousers, skin, hair, shoes.
        stride: Swing of the foot as a fraction of the height, smaller when walking along the view.
        cadence: Radians of the step per frame.
    """

    object_id: int
    motion: Motion
    height: float
    colors: Floats
    stride: float
    cadence: float
    phase: float
    sun: tuple[float, float]

    @property
    def half_extent(self) -> tuple[float, float]:
        """Shoulders."""
        return 0.3, 0.1

    def draw(self, canvas: Bytes, view: View, frame: float) -> None:
        """Draw arms, legs, body and head."""
        x, z = self.motion.at(frame)
        if z - view.z < 1.5:
            return
        swing = self.stride * float(np.sin(self.cadence * frame + self.phase))
        lift = 0.02 * abs(float(np.cos(self.cadence * frame + self.phase)))
        shirt, trousers, skin, hair, shoes = self.colors
        parts: list[tuple[Points, Floats]] = [
            (_limb(0.08, 0.79, 0.09 + 0.9 * swing, 0.47, 0.042), shirt * 0.62),
            (_limb(0.04, 0.52, 0.04 - swing, 0.03, 0.06), trousers * 0.66),
            (_limb(0.02 - swing, 0.025, 0.10 - swing, 0.02, 0.03), shoes * 0.8),
            (_limb(-0.04, 0.52, -0.04 + swing, 0.03, 0.066), trousers),
            (_limb(-0.06 + swing, 0.025, 0.03 + swing, 0.02, 0.032), shoes),
            (_body(0.0), shirt * 0.6),
            (_body(0.028), shirt),
            (_limb(-0.09, 0.79, -0.10 - 0.9 * swing, 0.47, 0.042), shirt * 0.8),
            (_limb(-0.10 - 0.9 * swing, 0.475, -0.10 - 0.94 * swing, 0.44, 0.035), skin),
            (_limb(0.0, 0.80, 0.0, 0.88, 0.04), skin * 0.75),
            (_disc(0.0, 0.925, 0.072), hair),
            (_disc(0.006, 0.905, 0.056), skin),
        ]
        flat = np.stack([part for part, _ in parts]) * self.height
        world = np.empty((*flat.shape[:-1], 3))
        world[..., 0] = x + flat[..., 0] * (1.0 if self.motion.velocity[0] >= 0 else -1.0)
        world[..., 1] = flat[..., 1] + lift * self.height
        world[..., 2] = z
        fill_faces(canvas, view.project(world), np.stack([tone for _, tone in parts]), self.object_id, cull=False)

    def shadow(self, frame: float) -> Points | None:
        """A narrow oval from the feet away from the sun."""
        x, z = self.motion.at(frame)
        reach = 0.5 * self.sun[0]
        return oval(x + reach, z + 0.1, 0.35 + abs(reach), 0.28)


def back_to_front(props: list[Prop], view: View, frame: float) -> list[Prop]:
    """Sort by what hides what: by distance, but side by side the one closer to the line of view is in front."""
    order = sorted(props, key=lambda prop: -prop.motion.at(frame)[1])
    if not order:
        return order
    place = np.array([prop.motion.at(frame) for prop in order]) - (view.x, view.z)
    half = np.array([prop.half_extent for prop in order])
    gap = np.abs(place[:, None] - place[None]) - (half[:, None] + half[None])
    is_beside = (gap[..., 0] > 0) & (gap[..., 1] < 0) & (place[:, None, 0] * place[None, :, 0] > 0)
    is_nearer = np.abs(place[:, None, 0]) < np.abs(place[None, :, 0])
    sequence = list(range(len(order)))
    for front, back in np.argwhere(np.triu(is_beside & is_nearer, 1)).tolist():
        here, there = sequence.index(front), sequence.index(back)
        if here < there:
            sequence.insert(here, sequence.pop(there))
    return [order[index] for index in sequence]


def oval(x: float, z: float, half_x: float, half_z: float) -> Points:
    """An oval on the ground, float64 (12, 3)."""
    outline = np.zeros((12, 3))
    outline[:, 0], outline[:, 2] = x + half_x * CIRCLE[:, 0], z + half_z * CIRCLE[:, 1]
    return outline


def padded(outline: Points) -> Points:
    """A polygon with its last corner repeated up to 12 corners."""
    return np.concatenate([outline, np.repeat(outline[-1:], 12 - len(outline), axis=0)])


def _limb(x0: float, y0: float, x1: float, y1: float, radius: float) -> Points:
    along = np.array((x1 - x0, y1 - y0))
    along /= np.linalg.norm(along) + 1e-9
    across = np.array((-along[1], along[0])) * radius
    tip = along * radius * 0.5
    a, b = np.array((x0, y0)), np.array((x1, y1))
    return padded(np.array([a + across, b + 0.8 * across, b + tip, b - 0.8 * across, a - across, a - tip]))


def _body(inset: float) -> Points:
    outline = [(-0.125 + 0.25 * inset, 0.78), (-0.085, 0.825), (0.085 - inset, 0.825), (0.125 - inset, 0.78)]
    outline += [(0.10 - inset, 0.48), (-0.10 + 0.25 * inset, 0.48)]
    return padded(np.array(outline))


def _disc(x: float, y: float, radius: float) -> Points:
    return CIRCLE * (radius, radius * 1.12) + (x, y)
