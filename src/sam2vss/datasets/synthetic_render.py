"""Camera, drawing primitives and the picture pipeline of the synthetic street.

Everything is drawn back to front onto one canvas of twice the picture's size with four channels: red, green, blue and
object id. So colours and exact object masks come from the same polygons. World coordinates are metres (x right, y up,
z forward). All sources "ours".
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .synthetic_textures import GROUND_PX_PER_M, Bytes, Floats, sensor_noise_bank

CANVAS_SCALE = 2  # the canvas is drawn at twice the size and averaged, so that edges are smooth
REFERENCE_SIZE = (240, 320)  # (height, width) in which focal length, pan and horizon are given
SUBPIXEL_BITS = 4  # cv2's fixed point: 1/16 canvas pixel
NEAREST_M = 0.4  # what is closer is pulled out to this distance

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """The camera at one moment: projects world points onto a canvas of `canvas_size` = (height, width) pixels."""

    x: float
    height: float
    z: float
    focal: float
    center_u: float
    horizon_v: float
    canvas_size: tuple[int, int]

    def project(self, points: Points, nearest_m: float = NEAREST_M) -> Points:
        """Canvas positions, float64 (..., 2), of world points (..., 3); what is too close is pulled away."""
        depth = np.maximum(points[..., 2] - self.z, nearest_m)
        scale = self.focal / depth
        flat = np.empty((*points.shape[:-1], 2))
        flat[..., 0] = (self.center_u + scale * (points[..., 0] - self.x)) * (
            self.canvas_size[1] / REFERENCE_SIZE[1]
        ) - 0.5
        flat[..., 1] = (self.horizon_v + scale * (self.height - points[..., 1])) * (
            self.canvas_size[0] / REFERENCE_SIZE[0]
        ) - 0.5
        return flat


@dataclass(frozen=True)
class Camera:
    """Path of the camera: constant drift, a slow swing of the view and a smooth hand tremble.

    Attributes:
        swing: (amplitude px, period frames, phase) of the horizontal pan, in reference pixels.
        tremble: amplitude in reference pixels.
    """

    x: float
    height: float
    focal: float
    horizon: float
    velocity_x: float
    velocity_z: float
    swing: tuple[float, float, float]
    tremble: float
    phase: float

    def at(self, frame: float, canvas_size: tuple[int, int]) -> View:
        """The view in frame number `frame` (any number; the path does not depend on the length of the clip)."""
        amplitude, period, phase = self.swing
        pan = amplitude * np.sin(2 * np.pi * frame / period + phase)
        shake_u = np.sin(0.71 * frame + self.phase) + 0.6 * np.sin(1.63 * frame + 2 * self.phase)
        shake_v = np.sin(0.83 * frame + 3 * self.phase) + 0.6 * np.sin(1.91 * frame + self.phase)
        return View(
            x=self.x + self.velocity_x * frame,
            height=self.height,
            z=self.velocity_z * frame,
            focal=self.focal,
            center_u=REFERENCE_SIZE[1] / 2 + float(pan + self.tremble * shake_u),
            horizon_v=self.horizon + float(self.tremble * shake_v),
            canvas_size=canvas_size,
        )


def fixed_point(points: Points) -> npt.NDArray[np.int32]:
    """Canvas positions in cv2's fixed point, kept in a range in which cv2 does not overflow."""
    return np.asarray(np.rint(np.clip(points, -20_000, 20_000) * (1 << SUBPIXEL_BITS)), np.int32)


def fill_faces(canvas: Bytes, flat: Points, colors: Floats, object_id: int, *, cull: bool) -> None:
    """Fill convex faces in order, with their object id; `cull` leaves out those that turn their back on the camera.

    Args:
        canvas: uint8 (H, W, 4).
        flat: Canvas positions, float64 (F, V, 2); faces with fewer corners repeat their last one.
        colors: float32 (F, 3).
        object_id: 1..255.
        cull: Whether only faces that run counter-clockwise on the picture are drawn.
    """
    corners = fixed_point(flat)
    shown = np.ones(len(flat), bool)
    if cull:
        after = np.roll(flat, -1, axis=1)
        shown = (flat[..., 0] * after[..., 1] - after[..., 0] * flat[..., 1]).sum(axis=1) < 0
    tones = np.clip(colors, 0, 255).tolist()
    for index in np.flatnonzero(shown).tolist():
        cv2.fillConvexPoly(canvas, corners[index], (*tones[index], object_id), 8, SUBPIXEL_BITS)


def paste(canvas: Bytes, texture: Bytes, source: Floats, quad: Points, cut_id: int | None) -> None:
    """Warp a texture onto a quad. With `cut_id` the texture's last channel is its alpha, else the object id."""
    height, width = canvas.shape[:2]
    left, top = np.floor(quad.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(quad.max(axis=0)).astype(int) + 2
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if right - left < 2 or bottom - top < 2:
        return
    local = (quad - (left, top)).astype(np.float32)
    size = (int(right - left), int(bottom - top))
    if abs(quad[0, 1] - quad[1, 1]) < 1e-6 and abs(quad[2, 1] - quad[3, 1]) < 1e-6:
        move = cv2.getAffineTransform(np.ascontiguousarray(source[:3]), np.ascontiguousarray(local[:3]))
        warped = cv2.warpAffine(texture, move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        turn = cv2.getPerspectiveTransform(source, local)
        warped = cv2.warpPerspective(texture, turn, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(mask, fixed_point(local.astype(np.float64)), 255, 8, SUBPIXEL_BITS)
    if cut_id is not None:
        mask &= cv2.threshold(warped[..., 3], 127, 255, cv2.THRESH_BINARY)[1]
        warped[..., 3] = cut_id
    cv2.copyTo(warped, mask, canvas[top:bottom, left:right])


def shade_ground(canvas: Bytes, view: View, grain: Bytes, shadows: list[Points], strength: float) -> None:
    """Darken the ground, already drawn, by its grain and by cast shadows; works at half the canvas size."""
    height, width = canvas.shape[0] // CANVAS_SCALE, canvas.shape[1] // CANVAS_SCALE
    scale_v = height / REFERENCE_SIZE[0]
    top = int(np.clip(view.horizon_v * scale_v + 2, 0, height - 2))
    ground = np.array([(-8.0, 0, view.z + 3), (8.0, 0, view.z + 3), (8.0, 0, view.z + 20), (-8.0, 0, view.z + 20)])
    flat = (view.project(ground) - 0.5) / CANVAS_SCALE - (0, top)
    texel = np.stack([ground[:, 0] + 32, ground[:, 2]], axis=1) * GROUND_PX_PER_M
    turn = cv2.getPerspectiveTransform(texel.astype(np.float32), flat.astype(np.float32))
    tone = cv2.warpPerspective(
        grain, turn, (width, height - top), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=128
    )
    fade = np.clip((np.arange(top, height) / scale_v - view.horizon_v) / 70, 0, 1).astype(np.float32)[:, None]
    light = (tone.astype(np.float32) - 128) * fade + 128
    if shadows:
        shade = np.full(tone.shape, 255, np.uint8)
        for outline in shadows:
            place = (view.project(outline, 1.0) - 0.5) / CANVAS_SCALE - (0, top)
            cv2.fillConvexPoly(shade, fixed_point(place), int(255 * strength), 8, SUBPIXEL_BITS)
        light *= cv2.GaussianBlur(shade, (5, 5), 1.2).astype(np.float32) * (1 / 255)
    gain = cv2.resize(np.clip(light, 0, 255).astype(np.uint8), (canvas.shape[1], canvas.shape[0] - top * CANVAS_SCALE))
    area = canvas[top * CANVAS_SCALE :]
    gain = cv2.merge([gain, gain, gain, np.full_like(gain, 128)])
    cv2.multiply(area, gain, area, 1 / 128)


def lens_blur(image: Bytes, shift: tuple[float, float], sigma: float) -> Bytes:
    """Blur by the lens and by the motion `shift` = (x, y) pixels while the shutter is open."""
    return np.asarray(cv2.sepFilter2D(image, -1, _line(shift[0], sigma), _line(shift[1], sigma)), np.uint8)


def _line(length: float, sigma: float) -> Floats:
    taps = np.arange(-4, 5, dtype=np.float64)[:, None]
    offsets = np.linspace(-0.5, 0.5, 9)[None] * min(abs(length), 5.0)
    kernel = np.exp(-0.5 * ((taps - offsets) / sigma) ** 2).sum(axis=1)
    kernel = kernel[2:-2] if abs(length) < 1.0 else kernel
    return np.asarray(kernel / kernel.sum(), np.float32)


def expose(image: Bytes, tint: Floats, noise: float, rng: np.random.Generator) -> Bytes:
    """Colour the picture by the light of the clip and add sensor noise of `noise` grey levels."""
    height, width = image.shape[:2]
    bank = sensor_noise_bank(height, width)
    y, x = rng.integers(0, 64, 2)
    lit = cv2.addWeighted(image * tint, 1.0, bank[y : y + height, x : x + width], noise, 0.0)
    return np.asarray(cv2.convertScaleAbs(np.maximum(lit, 0)), np.uint8)
