"""Layout of a synthetic street: what stands and moves where; all follows from one generator.

`build_scene` decides everything once per clip; `synthetic.py` draws it. There are two points of view: along the
street, as from a car, and across it, as from the opposite pavement. All numbers are ours, chosen by eye.
"""

import numpy as np

from .synthetic_bodies import Mesh, Motion
from .synthetic_objects import (
    add_cutout,
    add_front,
    add_lamp,
    add_patch,
    add_sign,
    add_street_building,
    add_traffic_light,
    add_walker,
)
from .synthetic_scene import PAVEMENT, ROAD, SKY, Scene, empty_scene
from .synthetic_textures import Floats
from .synthetic_vehicles import add_car, add_vehicle


def build_scene(seed: int) -> Scene:
    """Lay out the clip of a seed; the same seed gives the same scene at every size and length."""
    rng = np.random.default_rng(seed)
    is_along = bool(rng.random() < 0.6)
    scene = empty_scene(rng, is_along)
    density = float(rng.uniform(0.35, 1.0))
    if is_along:
        _lay_out_along(rng, scene, density)
    else:
        _lay_out_across(rng, scene, density)
    return scene


def _lay_out_along(rng: np.random.Generator, scene: Scene, density: float) -> None:
    road_half = float(rng.uniform(5.0, 6.2))
    wall_x = road_half + float(rng.uniform(2.6, 4.2))
    end = float(rng.uniform(58, 76))
    sky_id, road_id = scene.new_id(SKY), scene.new_id(ROAD)
    assert (sky_id, road_id) == (1, 2), "synthetic.py draws sky and road first, with these ids"
    road, pavement = _ground_colors(rng)
    add_patch(scene, road_id, road, (-road_half, road_half, 0, end + 40))
    for side in (-1.0, 1.0):
        pavement_id = scene.new_id(PAVEMENT)
        tone = pavement * float(rng.uniform(0.95, 1.03))
        near, far = side * road_half, side * 80
        add_patch(scene, pavement_id, tone, (min(near, far), max(near, far), 0, end + 40))
        kerb = side * (road_half + 0.28)
        add_patch(scene, pavement_id, tone * 1.22, (min(near, kerb), max(near, kerb), 0, end + 40))
        for joint in np.arange(road_half + 1.3, wall_x, 1.1):
            add_patch(scene, pavement_id, tone * 0.86, (side * joint - 0.04, side * joint + 0.04, 0, end))
        line = side * (road_half - 0.3)
        add_patch(scene, road_id, np.full(3, 205.0), (line - 0.07, line + 0.07, 0, end + 40))
    for z in np.arange(1.0, end, 5.5):
        add_patch(scene, road_id, np.full(3, 222.0), (-0.09, 0.09, z, z + 2.4))
    if rng.random() < 0.45:
        z = float(rng.uniform(11, 20))
        for x in np.arange(-road_half + 0.5, road_half - 0.7, 1.1):
            add_patch(scene, road_id, np.full(3, 222.0), (x, x + 0.55, z, z + 2.6))

    for x in np.arange(-36, 36, 12.0):  # the street ends in a row of fronts that face the camera
        add_front(rng, scene, x, x + 12.0, end, float(rng.uniform(8, 17)))
    for side in (-1.0, 1.0):
        z = float(rng.uniform(1.0, 3.0))
        while z < end - 4:
            depth = float(rng.uniform(9, 16))
            if rng.random() < 0.86:
                add_street_building(rng, scene, side * wall_x, z, min(z + depth, end), float(rng.uniform(6.5, 15)))
            else:
                for _ in range(2):
                    add_cutout(rng, scene, side * (wall_x + rng.uniform(1, 3)), z + rng.uniform(2, depth - 1), False)
            z += depth
    scene.walls.sort(key=lambda wall: -(wall.foot[0][1] + wall.foot[1][1]))
    lit_side = float(np.sign(scene.sun[0]))
    reach = (wall_x - road_half) + float(rng.uniform(-1.5, 2.0))
    if scene.shadow_light < 0.7 and reach > 0.5:
        x0, x1 = -lit_side * wall_x, -lit_side * (wall_x - reach)
        scene.wall_shadow = np.array([(x0, 0, 0), (x1, 0, 0), (x1, 0, end), (x0, 0, end)], np.float64)

    _add_kerb_furniture_along(rng, scene, density, road_half, wall_x)
    _add_traffic_along(rng, scene, density, road_half)
    for _ in range(int(rng.integers(2, 4 + int(3 * density)))):
        side = float(rng.choice((-1.0, 1.0)))
        place = (side * float(rng.uniform(road_half + 0.8, wall_x - 0.6)), float(rng.uniform(7.5, 16)))
        pace = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.03, 0.07))
        add_walker(rng, scene, Motion(place, (0.002 * side, pace + scene.camera.velocity_z)), 0.055)
    for _ in range(2 * int(rng.integers(1, 3 + int(2 * density)))):
        direction = float(rng.choice((-1.0, 1.0)))
        start = (-direction * float(rng.uniform(0.5, road_half + 2)), float(rng.uniform(8.5, 15)))
        motion = Motion(start, (direction * float(rng.uniform(0.05, 0.09)), scene.camera.velocity_z * 0.6))
        if _is_clear(scene, motion):
            add_walker(rng, scene, motion, 0.13)


def _add_kerb_furniture_along(
    rng: np.random.Generator, scene: Scene, density: float, road_half: float, wall_x: float
) -> None:
    for side in (-1.0, 1.0):
        kerb = side * (road_half + 0.6)
        z = float(rng.uniform(6.0, 11.0))
        while z < 42:
            kind = rng.random()
            if kind < 0.3:
                add_lamp(rng, scene, kerb, z, -side)
            elif kind < 0.45 and z < 24:
                add_traffic_light(rng, scene, kerb, z)
            elif kind < 0.68 and z < 26:
                add_sign(rng, scene, kerb, z)
            elif kind < 0.92:
                add_cutout(rng, scene, side * (road_half + 1.1), z, False)
            z += float(rng.uniform(4.0, 8.5) / (0.5 + 0.5 * density))
        if rng.random() < 0.45:
            z = float(rng.uniform(7, 14))
            for step in range(int(rng.integers(1, 3))):
                add_cutout(rng, scene, side * (wall_x - 0.8), z + 4.5 * step, True)


def _add_traffic_along(rng: np.random.Generator, scene: Scene, density: float, road_half: float) -> None:
    drift = scene.camera.velocity_z
    for side in (-1.0, 1.0):  # parked cars stand close to the kerb
        z = float(rng.uniform(8.0, 14.0))
        while z < 38:
            if rng.random() < 0.6 * density:
                add_car(rng, scene, Motion((side * (road_half - 1.05), z)), 0.0 if side > 0 else np.pi)
            z += float(rng.uniform(5.6, 8.0))
    lane = 0.5 * (road_half - 2.05)  # half way to the parked cars
    z = float(rng.uniform(9.5, 16.0))
    velocity = (0.0, drift + float(rng.uniform(-0.03, 0.10)))  # one speed per lane: nobody runs into another
    for _ in range(int(rng.integers(0, 2 + int(2 * density)))):
        motion = Motion((lane, z), velocity, (float(rng.uniform(0, 4)), float(rng.uniform(0, 6))))
        add_vehicle(rng, scene, motion, 0.0, truck_share=0.3)
        z += float(rng.uniform(9, 15))
    z = float(rng.uniform(16.0, 28.0))
    velocity = (0.0, -float(rng.uniform(0.16, 0.30)))
    for _ in range(int(rng.integers(1, 3 + int(2 * density)))):
        add_vehicle(rng, scene, Motion((-lane, z), velocity), np.pi, truck_share=0.25)
        z += float(rng.uniform(12, 20))


def _lay_out_across(rng: np.random.Generator, scene: Scene, density: float) -> None:
    kerb_near = float(rng.uniform(7.2, 8.6))
    kerb_far = kerb_near + float(rng.uniform(8.0, 9.2))
    wall_z = kerb_far + float(rng.uniform(2.8, 4.5))
    sky_id, road_id = scene.new_id(SKY), scene.new_id(ROAD)
    assert (sky_id, road_id) == (1, 2), "synthetic.py draws sky and road first, with these ids"
    road, pavement = _ground_colors(rng)
    far_id, near_id = scene.new_id(PAVEMENT), scene.new_id(PAVEMENT)
    add_patch(scene, far_id, pavement, (-120, 120, kerb_far, 90))
    add_patch(scene, far_id, pavement * 0.7, (-120, 120, kerb_far, kerb_far + 0.12))
    add_patch(scene, far_id, pavement * 1.2, (-120, 120, kerb_far + 0.12, kerb_far + 0.5))
    add_patch(scene, road_id, road, (-120, 120, kerb_near, kerb_far))
    add_patch(scene, near_id, pavement * 1.04, (-120, 120, 1.0, kerb_near))
    add_patch(scene, near_id, pavement * 1.24, (-120, 120, kerb_near - 0.25, kerb_near))
    for x in np.arange(-24, 24, 1.5):
        add_patch(scene, near_id, pavement * 0.92, (x, x + 0.05, 1.0, kerb_near - 0.25))
        add_patch(scene, far_id, pavement * 0.9, (x, x + 0.05, kerb_far + 0.5, wall_z))
    middle = (kerb_near + kerb_far) / 2
    for x in np.arange(-40, 40, 5.0):
        add_patch(scene, road_id, np.full(3, 222.0), (x, x + 2.4, middle - 0.07, middle + 0.07))

    x = -52.0
    while x < 52:
        width = float(rng.uniform(14, 24))
        add_front(rng, scene, x, x + width, wall_z + 26, float(rng.uniform(9, 20)))
        x += width
    x = float(rng.uniform(-30, -24))
    while x < 26:
        width = float(rng.uniform(6.5, 11))
        if rng.random() < 0.84:
            add_front(rng, scene, x, x + width, wall_z, float(rng.uniform(4.6, 10)))
        else:
            add_cutout(rng, scene, x + width / 2, wall_z + 3, False, size=float(rng.uniform(5, 7)))
            if rng.random() < 0.6:
                add_cutout(rng, scene, x + width / 2, wall_z + 1, True)
        x += width
    x = float(rng.uniform(-16, -12))
    while x < 15:
        kind = rng.random()
        if kind < 0.34:
            add_cutout(rng, scene, x, kerb_far + 1.0, False)
        elif kind < 0.52:
            add_lamp(rng, scene, x, kerb_far + 0.8, float(rng.choice((-1.0, 1.0))))
        elif kind < 0.68:
            add_sign(rng, scene, x, kerb_far + 0.8)
        elif kind < 0.76:
            add_traffic_light(rng, scene, x, kerb_far + 0.8)
        elif kind < 0.86:
            add_cutout(rng, scene, x, wall_z - 0.6, True)
        x += float(rng.uniform(2.6, 5.0) / (0.5 + 0.5 * density))
    x = float(rng.uniform(-16, -10))
    while x < 14:  # parked at the far kerb
        if rng.random() < 0.5 * density:
            add_car(rng, scene, Motion((x, kerb_far - 1.1)), np.pi / 2)
        x += float(rng.uniform(5.4, 7.0))
    if rng.random() < 0.5:
        add_sign(rng, scene, float(rng.uniform(-3, 3)), kerb_near - 0.7)
    if rng.random() < 0.5:
        add_lamp(rng, scene, float(rng.uniform(-4, 4)), kerb_near - 0.6, 1.0)

    for lane, direction in ((kerb_near + 1.6, 1.0), (kerb_far - 3.4, -1.0)):
        x = -direction * float(rng.uniform(-2, 9))
        velocity = (direction * float(rng.uniform(0.07, 0.13)), 0.0)
        for _ in range(int(rng.integers(1, 3 + int(1.5 * density)))):
            motion = Motion((x, lane), velocity, (float(rng.uniform(0, 3)), float(rng.uniform(0, 6))))
            add_vehicle(rng, scene, motion, direction * np.pi / 2, truck_share=0.28)
            x -= direction * float(rng.uniform(9.5, 14))
    for row in (kerb_far + 1.6, kerb_far + 2.2, kerb_near - 1.2):
        for _ in range(int(rng.integers(1, 2 + int(2 * density)))):
            direction = float(rng.choice((-1.0, 1.0)))
            start = (float(rng.uniform(-9, 9)), row + float(rng.uniform(-0.4, 0.4)))
            add_walker(rng, scene, Motion(start, (direction * float(rng.uniform(0.03, 0.065)), 0.0)), 0.13)
    if rng.random() < 0.4:
        motion = Motion((float(rng.uniform(-4, 4)), kerb_near - 0.5), (0.01, float(rng.uniform(0.04, 0.07))))
        if _is_clear(scene, motion):
            add_walker(rng, scene, motion, 0.07)
    scene.walls.sort(key=lambda wall: -(wall.foot[0][1] + wall.foot[1][1]))


def _ground_colors(rng: np.random.Generator) -> tuple[Floats, Floats]:
    road = np.full(3, rng.uniform(84, 108), np.float32) + np.array((0, 1, 6), np.float32)
    pavement = np.full(3, rng.uniform(164, 188), np.float32) * np.array((1.03, 0.98, 0.92), np.float32)
    return road, pavement


def _is_clear(scene: Scene, motion: Motion) -> bool:
    """Whether a walker meets no vehicle in the first 72 frames."""
    for prop in scene.props:
        if not isinstance(prop, Mesh) or prop.footprint is None:
            continue
        for frame in range(0, 73, 8):
            (x, z), (other_x, other_z) = motion.at(frame), prop.motion.at(frame)
            if abs(x - other_x) < prop.footprint[0] + 0.5 and abs(z - other_z) < prop.footprint[1] + 0.6:
                return False
    return True
