"""Painted surfaces of the synthetic street: facades, tree crowns, clouds, ground grain and sensor noise.

Used once per clip by `synthetic_scene.py`; every function follows from the generator it is given. Colours are RGB
in [0, 255]. All sources "ours".
"""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

FACADE_COLORS = (
    (168, 96, 76),  # brick
    (186, 120, 92),  # terracotta
    (206, 178, 136),  # sand
    (214, 194, 160),  # cream
    (196, 150, 110),  # ochre
    (178, 138, 122),  # old rose
    (152, 112, 96),  # brown stone
    (222, 168, 118),  # apricot
)
FACADE_PX_PER_M = 14.0
GROUND_PX_PER_M = 8.0


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell_px: float) -> Floats:
    """Value noise with about unit deviation, float32 (height, width), features of about `cell_px` pixels."""
    rows, columns = max(2, int(height / cell_px) + 2), max(2, int(width / cell_px) + 2)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def paint_facade(
    rng: np.random.Generator, width_m: float, height_m: float, color: Floats, *, texture_size: tuple[int, int]
) -> Bytes:
    """Paint one building front: plaster or brick grain, a grid of windows, a shop floor, cornice and dark corners.

    Returns:
        RGB, uint8 (h, w, 3) of `texture_size` = (h, w); row 0 is the roof edge.
    """
    scale = FACADE_PX_PER_M
    height, width = max(16, int(height_m * scale)), max(16, int(width_m * scale))
    grain = 3.0 * smooth_noise(rng, height, width, 3) + 4.0 * smooth_noise(rng, height, width, 40)
    grain[:: max(3, int(0.28 * scale))] -= 7.0  # courses of brick
    wall = np.clip(color + grain[..., None], 0, 255).astype(np.uint8)

    glass = np.array((62, 78, 98)) * rng.uniform(0.75, 1.15)
    frame = tuple(float(c) for c in np.clip(color * 1.18 + 18, 0, 250))
    sill = tuple(float(c) for c in color * 0.62)
    shop_m = 3.3 if height_m > 6 and rng.random() < 0.65 else 0.6
    floor_m, pitch_m = rng.uniform(2.7, 3.3), rng.uniform(1.9, 2.9)
    window_w, window_h = pitch_m * rng.uniform(0.45, 0.6), floor_m * rng.uniform(0.5, 0.62)
    floors = max(1, int((height_m - shop_m - 0.6) / floor_m))
    columns = max(1, int((width_m - 0.8) / pitch_m))
    left_m = (width_m - columns * pitch_m) / 2
    for floor in range(floors):
        top = height_m - shop_m - (floor + 1) * floor_m + (floor_m - window_h) / 2
        for column in range(columns):
            x0 = left_m + column * pitch_m + (pitch_m - window_w) / 2
            tone = glass * rng.uniform(0.8, 1.3)
            if rng.random() < 0.12:
                tone = np.array((226, 204, 150)) * rng.uniform(0.8, 1.0)  # a lit or curtained room
            _paint_window(wall, x0 * scale, top * scale, window_w * scale, window_h * scale, tone, frame, sill)
    if shop_m > 3:
        _paint_shop(rng, wall, shop_m * scale, color)

    cornice = max(2, int(0.35 * scale))
    wall[:cornice] = np.clip(color * 1.12 + 12, 0, 255)
    wall[cornice : cornice + 3] = color * 0.55
    wall[-max(2, int(0.5 * scale)) :] = color * 0.6
    edge = np.ones(width, np.float32)  # darker towards the corners, so that neighbours part visibly
    ramp = np.linspace(0.52, 1.0, max(3, int(0.55 * scale)), dtype=np.float32)
    edge[: len(ramp)] = ramp
    edge[-len(ramp) :] = ramp[::-1]
    down = np.linspace(1.06, 0.88, height, dtype=np.float32)
    wall = np.clip(wall * edge[None, :, None] * down[:, None, None], 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(wall, texture_size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _paint_window(
    wall: Bytes,
    x: float,
    y: float,
    width: float,
    height: float,
    glass: npt.NDArray[np.float64],
    frame: tuple[float, ...],
    sill: tuple[float, ...],
) -> None:
    x0, y0, x1, y1 = int(x), int(y), int(x + width), int(y + height)
    cv2.rectangle(wall, (x0 - 2, y0 - 2), (x1 + 2, y1 + 2), frame, -1)
    cv2.rectangle(wall, (x0, y0), (x1, y1), tuple(glass.tolist()), -1)
    cv2.rectangle(wall, (x0, y0), (x1, y0 + (y1 - y0) // 3), tuple((glass * 1.25).tolist()), -1)
    cv2.line(wall, ((x0 + x1) // 2, y0), ((x0 + x1) // 2, y1), frame, 1)
    cv2.rectangle(wall, (x0 - 3, y1 + 2), (x1 + 3, y1 + 4), sill, -1)


def _paint_shop(rng: np.random.Generator, wall: Bytes, shop_px: float, color: Floats) -> None:
    height, width = wall.shape[:2]
    top = int(height - shop_px)
    wall[top : top + 3] = color * 0.5
    wall[top + 3 : height] = color * 0.78
    pitch = int(rng.uniform(38, 60))
    awning = rng.uniform(0.55, 1.0) * np.array(((150, 60, 60), (60, 100, 90), (70, 80, 120), (190, 150, 90)))
    stripe = awning[rng.integers(4)]
    for x0 in range(6, width - pitch // 2, pitch):
        x1 = min(width - 6, x0 + pitch - 8)
        cv2.rectangle(wall, (x0, top + 14), (x1, height - 6), (52, 62, 76), -1)
        cv2.rectangle(wall, (x0 + 2, top + 16), (x1 - 2, top + 26), (96, 110, 122), -1)
        cv2.rectangle(wall, (x0 - 2, top + 7), (x1 + 2, top + 15), tuple(stripe.tolist()), -1)


def paint_tree(rng: np.random.Generator, *, is_hedge: bool) -> Bytes:
    """Paint one tree (trunk and crown) or hedge as a cut-out.

    Returns:
        RGBA, uint8 (160, 128, 4); alpha is 0 or 255 and blurred a little at the outline.
    """
    height, width = 160, 128
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    green = np.array((rng.uniform(62, 108), rng.uniform(112, 146), rng.uniform(44, 70)), np.float32)
    light = np.full((height, width), -9.0, np.float32)
    field = np.full((height, width), -9.0, np.float32)
    if is_hedge:
        field = np.minimum(1 - np.abs(xx - 64) / 60, (yy - 14) / 60)
        light = 0.6 - (yy / height) * 1.3
    else:
        for _ in range(rng.integers(7, 11)):
            cx, cy = 64 + rng.normal(0, 19), 56 + rng.normal(0, 17)
            radius = rng.uniform(20, 34)
            blob = 1 - np.hypot(xx - cx, yy - cy) / radius
            light = np.where(blob > np.maximum(field, 0), ((cx - xx) * 0.4 + (cy - yy)) / radius, light)
            field = np.maximum(field, blob)
        margin = np.minimum(np.minimum(xx - 2, width - 3 - xx), yy - 2) / 20
        field = np.minimum(field, margin)
    outline = 0.10 * smooth_noise(rng, height, width, 7) + 0.05 * smooth_noise(rng, height, width, 3.5)
    crown = field + outline * (0.35 if is_hedge else 1.0) > 0.04
    leaves = 0.16 * smooth_noise(rng, height, width, 4) + 0.10 * smooth_noise(rng, height, width, 9)
    rim = np.clip(field * 5, 0, 1) * 0.25 + 0.75
    shade = np.clip(0.92 + 0.26 * np.clip(light, -1, 1) + leaves, 0.4, 1.5) * rim
    picture = np.zeros((height, width, 4), np.float32)
    if not is_hedge:
        lean = rng.uniform(-4, 4)
        half = 5.0 + 3.0 * np.clip((yy - 120) / 40, 0, 1)
        side = (xx - 64 - lean * (yy - height) / height) / half
        trunk = (np.abs(side) < 1) & (yy > 60)
        picture[trunk, :3] = np.array((104, 80, 58)) * (0.85 - 0.35 * side[trunk, None])
        picture[trunk, 3] = 255
    picture[crown, :3] = (green * shade[..., None])[crown]
    picture[crown, 3] = 255
    # Colour bleeds outwards, so that interpolation at the outline does not mix in black.
    spread = cv2.dilate(picture[..., :3], np.ones((5, 5), np.uint8))
    picture[..., :3] = np.where(picture[..., 3:] > 0, picture[..., :3], spread)
    picture[..., 3] = cv2.GaussianBlur(picture[..., 3], (3, 3), 0.7)
    return np.clip(picture, 0, 255).astype(np.uint8)


def paint_sky(rng: np.random.Generator, zenith: Floats, haze: Floats, cloud_amount: float) -> Bytes:
    """Paint a wide sky, uint8 RGB (240, 640, 3): soft clouds before a gradient from `zenith` to `haze`."""
    height, width = 240, 640
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    sky = zenith * (1 - down) + haze * down
    layers = [
        weight * smooth_noise(rng, height // 2, width // 4, cell)
        for weight, cell in ((1.0, 23.0), (0.5, 12.0), (0.25, 6.0), (0.12, 3.0))
    ]
    clouds = cv2.resize(np.sum(layers, axis=0, dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(clouds * 0.7 + cloud_amount, 0, 1)[..., None] * (1 - 0.5 * down)
    white = np.clip(haze * 0.4 + 155, 0, 252)
    return np.asarray(np.clip(sky * (1 - 0.8 * cover) + white * 0.8 * cover, 0, 255), np.uint8)


def paint_ground_grain(rng: np.random.Generator) -> Bytes:
    """Paint relative ground brightness, uint8 (64 m, 64 m at 8 px/m), 128 = unchanged: asphalt grain and stains."""
    side = int(64 * GROUND_PX_PER_M)
    fine = rng.standard_normal((side // 2, side // 2), dtype=np.float32) * 7.0
    texture = np.asarray(cv2.resize(fine, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
    texture += 7.0 * smooth_noise(rng, side, side, 20.0)
    return np.clip(128 + texture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def sensor_noise_bank(height: int, width: int) -> Floats:
    """Unit sensor noise to cut frames from, float32 (height + 64, width + 64, 3): mostly grey, a little colour."""
    rng = np.random.default_rng(20_240)
    grey = rng.standard_normal((height + 64, width + 64, 1), dtype=np.float32)
    color = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
    bank = 0.85 * grey + 0.5 * color
    bank.setflags(write=False)
    return bank
