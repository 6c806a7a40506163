"""What a frame of the synthetic street is drawn from: `Scene`, its classes, and the light and camera of a clip.

Filled by `synthetic_layout.py`, drawn by `synthetic.py`. All numbers are ours, chosen by eye.
"""

from dataclasses import dataclass, field

import numpy as np

from .synthetic_bodies import Prop, Wall
from .synthetic_render import Camera, Points
from .synthetic_textures import Bytes, Floats, paint_ground_grain, paint_sky

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, POLE, SIGN, CAR, PERSON, TRUCK = range(10)
MAX_OBJECTS = 250  # ids share one uint8 channel with the colours

# (light tint, sky at the top, sky at the horizon, share of clouds, darkness of shadows as remaining light)
LIGHTS = (
    ((1.02, 1.01, 0.98), (86, 146, 218), (196, 222, 240), 0.05, 0.58),  # clear noon
    ((1.08, 0.99, 0.86), (110, 156, 208), (250, 222, 184), 0.0, 0.58),  # golden hour
    ((0.94, 0.97, 1.01), (160, 176, 194), (214, 220, 226), 0.3, 0.8),  # overcast
    ((0.80, 0.84, 0.98), (86, 108, 170), (226, 190, 190), 0.1, 0.72),  # early dusk
)


@dataclass(frozen=True)
class GroundPatch:
    """A flat rectangle on the ground: corners (x0, z0) to (x1, z1) in metres."""

    object_id: int
    color: tuple[float, float, float]
    area: tuple[float, float, float, float]  # x0, x1, z0, z1


@dataclass
class Scene:
    """Everything a frame is drawn from.

    Attributes:
        tint: Colour of the light, a factor per channel, float32 (3,).
        shadow_light: What a cast shadow leaves of the light, (0, 1].
        haze: Colour that distance turns into, float32 (3,).
        sun: Direction of shadows on the ground, metres per metre of height.
        noise: Sensor noise, deviation in grey levels.
        lens_sigma: Blur of the lens, pixels.
        sky: uint8 RGB (240, 640, 3).
        grain: Brightness of the ground, see `paint_ground_grain`.
        object_classes: Train id of each object id; entry 0 is unused and 255.
        wall_shadow: Outline of the shadow of a row of buildings, float64 (V, 3), or none.
    """

    camera: Camera
    is_along: bool
    tint: Floats
    shadow_light: float
    haze: Floats
    sun: tuple[float, float]
    noise: float
    lens_sigma: float
    sky: Bytes
    grain: Bytes
    object_classes: list[int] = field(default_factory=lambda: [255])
    ground: list[GroundPatch] = field(default_factory=list)
    walls: list[Wall] = field(default_factory=list)
    props: list[Prop] = field(default_factory=list)
    wall_shadow: Points | None = None

    def new_id(self, train_id: int) -> int:
        """Register one more object of a class."""
        assert len(self.object_classes) <= MAX_OBJECTS, "too many objects for the canvas's id channel"
        self.object_classes.append(train_id)
        return len(self.object_classes) - 1

    def hazed(self, color: Floats, distance_m: float) -> Floats:
        """A colour seen through `distance_m` of air."""
        share = float(1 - np.exp(-max(0.0, distance_m - 8.0) / 160))
        return np.asarray(color * (1 - share) + self.haze * share, np.float32)


def empty_scene(rng: np.random.Generator, is_along: bool) -> Scene:
    """A scene with its light, sky and camera path, and no object yet."""
    tint, zenith, horizon, clouds, shadow_light = LIGHTS[rng.choice(4, p=(0.4, 0.2, 0.25, 0.15))]
    light = np.asarray(tint, np.float32) * np.float32(rng.uniform(0.9, 1.06))
    haze = np.asarray(horizon, np.float32)
    side = float(rng.choice((-1.0, 1.0)))
    camera = Camera(
        x=float(rng.uniform(0.6, 2.0)),  # in the right lane, so that oncoming traffic passes at the left
        height=float(rng.uniform(1.9, 3.0) if is_along else rng.uniform(2.0, 3.2)),
        focal=float(rng.uniform(260, 320)),
        horizon=float(rng.uniform(92, 122)),
        velocity_x=float(rng.choice((0.0, 1.0)) * rng.uniform(-0.008, 0.008))
        if is_along
        else float(rng.uniform(-0.07, 0.07)),
        velocity_z=float(rng.choice((0.0, 1.0), p=(0.3, 0.7)) * rng.uniform(0.03, 0.16)) if is_along else 0.0,
        swing=(float(rng.uniform(4, 34)), float(rng.uniform(100, 220)), float(rng.uniform(0, 2 * np.pi))),
        tremble=float(rng.uniform(0.1, 0.7)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )
    return Scene(
        camera=camera,
        is_along=is_along,
        tint=light,
        shadow_light=shadow_light,
        haze=haze,
        sun=(side * float(rng.uniform(0.3, 0.9)), 0.0),
        noise=float(rng.uniform(1.5, 4.0)),
        lens_sigma=float(rng.uniform(0.45, 0.65)),
        sky=paint_sky(rng, np.asarray(zenith, np.float32), haze, clouds),
        grain=paint_ground_grain(rng),
    )
