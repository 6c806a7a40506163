"""Views to train on: the crop rule, light, sizes, and that labels stay on top of frames."""

import colorsys

import numpy as np
import pytest
import torch

from sam2vss.segmenters.preprocessing import Preprocessing
from sam2vss.training.segmenter_input import NetworkInput
from sam2vss.training.segmenter_views import Light, ViewRecipe, choose_corner, draw_view, resize_labels

VOID = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fitted(long: int, short: int, antialias: bool = True, divisor: int = 1) -> NetworkInput:
    size = {"shortest_edge": short, "longest_edge": long}
    return NetworkInput(Preprocessing(size, mean=MEAN, std=STD, divisor=divisor), antialias)


class Draws:
    """A generator whose integers are given."""

    def __init__(self, *values: int) -> None:
        self.values = list(values)

    def integers(self, high: int) -> int:
        value = self.values.pop(0)
        assert 0 <= value < high
        return value


# --- crops -----------------------------------------------------------------------------------------------------------


def test_a_crop_filled_by_one_class_is_drawn_again():
    labels = np.zeros((4, 8), np.uint8)
    labels[:, 6:] = 1
    # at column 0 all pixels are of class 0; at 3 (columns 3 to 6) 12 of 16, which is 0.75 and not less; at 4 it is half
    draws = Draws(0, 0, 0, 3, 0, 4)
    assert choose_corner(labels, 4, 0.75, VOID, draws) == (0, 4)
    assert draws.values == []


def test_a_crop_with_a_smaller_share_is_taken_at_once():
    labels = np.zeros((4, 8), np.uint8)
    labels[:, 6:] = 1
    draws = Draws(0, 3, 0, 4)
    assert choose_corner(labels, 4, 0.76, VOID, draws) == (0, 3)  # 12 of 16


def test_void_pixels_have_no_share():
    labels = np.full((4, 4), VOID, np.uint8)
    labels[:2] = [0, 0, 0, 1]  # 6 of 8 labelled pixels, though 6 of 16 in all
    labels = np.concatenate([labels, np.tile(np.uint8([0, 1, 0, 1]), (4, 1))])
    draws = Draws(0, 0, 4, 0)
    assert choose_corner(labels, 4, 0.75, VOID, draws) == (4, 0)


def test_after_ten_more_tries_any_crop_is_taken():
    draws = Draws(*[0, 0] * 10, 0, 3, 0, 1)
    assert choose_corner(np.full((4, 8), VOID, np.uint8), 4, 0.75, VOID, draws) == (0, 3)
    assert draws.values == [0, 1]  # eleven crops were drawn


def test_without_a_limit_the_first_crop_is_taken():
    assert choose_corner(np.zeros((4, 8), np.uint8), 4, 1.0, VOID, Draws(0, 2)) == (0, 2)


def test_a_side_smaller_than_the_crop_is_taken_whole():
    assert choose_corner(np.zeros((2, 8), np.uint8), 4, 1.0, VOID, Draws(0, 4)) == (0, 4)


def test_corners_reach_both_ends():
    rng = np.random.default_rng(0)
    corners = {choose_corner(np.zeros((6, 5), np.uint8), 4, 1.0, VOID, rng) for _ in range(200)}
    assert corners == {(top, left) for top in range(3) for left in range(2)}


# --- light -----------------------------------------------------------------------------------------------------------


def literal_light(pixel: tuple[int, int, int], light: Light) -> list[float]:
    """One RGB pixel, in colorsys' floating-point hues; not rounded in between."""
    values = [float(value) for value in pixel]

    def change(function):
        return [min(255.0, max(0.0, function(value))) for value in values]

    if light.brightness is not None:
        values = change(lambda value: value + light.brightness)
    if light.contrast is not None and light.contrast_first:
        values = change(lambda value: value * light.contrast)
    hue, saturation, value = colorsys.rgb_to_hsv(*(value / 255 for value in values))
    if light.saturation is not None:
        saturation = min(1.0, saturation * light.saturation)
    if light.hue is not None:
        hue = (hue + light.hue / 180) % 1
    values = [255 * part for part in colorsys.hsv_to_rgb(hue, saturation, value)]
    if light.contrast is not None and not light.contrast_first:
        values = change(lambda value: value * light.contrast)
    return values


@pytest.mark.parametrize(
    "light",
    [
        Light(),
        Light(brightness=-31.5),
        Light(brightness=30.0, contrast=1.4),
        Light(contrast=1.5, contrast_first=False, saturation=0.5),
        Light(contrast=1.5, contrast_first=True, saturation=0.5),
        Light(saturation=1.5, hue=-18),
        Light(brightness=12.0, contrast=0.6, saturation=1.3, hue=18),
    ],
)
def test_light_equals_a_literal_second_one(light):
    image = np.random.default_rng(1).integers(0, 256, (9, 9, 3), np.uint8)
    found = light.apply(image)
    expected = np.array([[literal_light(tuple(pixel), light) for pixel in row] for row in image.tolist()])
    # OpenCV keeps hue in 180 steps and saturation in 256, and steps round down: 4.3 and 0.6 measured
    assert np.abs(found - expected).max() <= 5
    assert np.abs(found - expected).mean() <= 0.7


def test_hand_computed_light():
    image = np.full((1, 1, 3), 100, np.uint8)
    assert Light(brightness=-32.0).apply(image)[0, 0].tolist() == [68] * 3
    assert Light(brightness=32.0, contrast=1.5).apply(image)[0, 0].tolist() == [198] * 3  # (100 + 32) * 1.5
    assert Light(contrast=1.5, brightness=120.0).apply(image)[0, 0].tolist() == [255] * 3
    red = np.uint8([[[200, 0, 0]]])
    assert Light(hue=10).apply(red)[0, 0].tolist() == [200, 67, 0]  # 20 degrees: a third of the way to yellow
    assert Light(saturation=0.5).apply(red)[0, 0].tolist() == pytest.approx([200, 100, 100], abs=1)


def test_whether_contrast_comes_first_matters():
    image = np.uint8([[[250, 60, 30]]])
    first, last = (Light(contrast=1.5, contrast_first=flag, saturation=0.5).apply(image) for flag in (True, False))
    assert first.tolist() != last.tolist()


def test_every_change_is_drawn_half_of_the_time_and_in_its_range():
    rng = np.random.default_rng(0)
    drawn = [Light.draw(rng) for _ in range(4000)]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 18),
    ):
        values = [getattr(light, name) for light in drawn if getattr(light, name) is not None]
        assert 0.46 < len(values) / len(drawn) < 0.54
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) <= high
    assert 0.46 < np.mean([light.contrast_first for light in drawn]) < 0.54


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "factor", "expected"),
    [
        ((480, 853), 1.0, (480, 853)),
        ((360, 480), 1.0, (480, 640)),  # factor min(853 / 480, 480 / 360) = 1.333
        ((1080, 1920), 1.0, (480, 853)),
        ((853, 480), 1.0, (853, 480)),  # portrait
        ((480, 853), 2.0, (960, 1706)),
        ((480, 853), 0.5, (240, 426)),
        ((480, 1012), 1.0, (405, 853)),  # the long side decides
    ],
)
def test_frames_are_fitted_into_the_scale(frame, factor, expected):
    assert fitted(853, 480).size(frame, factor) == expected
    assert fitted(853, 480, divisor=32).size(frame, factor) == expected


def test_a_square_input_is_scaled_as_a_square():
    square = NetworkInput(Preprocessing({"height": 128, "width": 128}))
    assert square.size((360, 480), 0.5) == (64, 64)
    assert NetworkInput(Preprocessing(None)).size((36, 48), 0.5) == (18, 24)


@pytest.mark.parametrize("size", [{"shortest_edge": 24, "longest_edge": 43}, {"height": 20, "width": 28}, None])
def test_a_view_without_chance_is_the_input_at_inference(size):
    """The same numbers, bit by bit."""
    preprocessing = Preprocessing(size, mean=MEAN, std=STD)
    frame = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    expected = preprocessing(torch.from_numpy(frame)[None])[0]
    still = ViewRecipe(crop=48, scales=(1.0, 1.0), max_share=1.0, flips=0.0, light=False)
    network_input = NetworkInput(preprocessing)
    view = draw_view([frame], [frame[..., 0]], network_input, still, VOID, np.random.default_rng(0))
    assert view.size == tuple(expected.shape[1:])
    pixels = network_input.normalize(torch.from_numpy(view.frames))[0]
    assert torch.equal(pixels[:, : view.size[0], : view.size[1]], expected)


def test_channels_are_flipped_where_the_model_wants_so():
    frame = torch.tensor([[[[10, 20, 30]]]], dtype=torch.uint8)
    flipped = NetworkInput(Preprocessing(None, scale=1.0, flip_channels=True)).normalize(frame)
    assert flipped.flatten().tolist() == [30, 20, 10]


# --- labels and frames -----------------------------------------------------------------------------------------------


def painted(num_frames: int, size: tuple[int, int] = (30, 50)) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of flat patches whose grey says their class."""
    rng = np.random.default_rng(3)
    labels = [
        np.kron(rng.integers(0, 4, (size[0] // 10, size[1] // 10)), np.ones((10, 10), int)) for _ in range(num_frames)
    ]
    return [np.repeat((60 * ids).astype(np.uint8)[..., None], 3, 2) for ids in labels], [
        ids.astype(np.uint8) for ids in labels
    ]


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_labels_stay_on_top_of_frames(seed, antialias):
    frames, labels = painted(3)
    recipe = ViewRecipe(crop=40, light=False)
    view = draw_view(frames, labels, fitted(50, 30, antialias), recipe, VOID, np.random.default_rng(seed))
    assert view.frames.shape == (3, 40, 40, 3)
    assert view.labels.shape == (3, 40, 40)
    height, width = view.size
    shown = view.frames[:, :height, :width, 0].astype(int)
    # resized edges are mixtures; 0.92 measured
    agree = np.abs(shown - 60 * view.labels[:, :height, :width]) <= 25
    assert agree.mean() > 0.9
    assert (view.labels[:, height:] == VOID).all()
    assert (view.labels[:, :, width:] == VOID).all()
    assert not view.frames[:, height:].any()
    assert not view.frames[:, :, width:].any()


def test_frames_of_a_clip_share_everything_but_light():
    frames, labels = painted(1)
    frames, labels = frames * 4, labels * 4
    still = draw_view(frames, labels, fitted(50, 30), ViewRecipe(crop=24, light=False), VOID, np.random.default_rng(5))
    assert all((frame == still.frames[0]).all() for frame in still.frames)
    lit = draw_view(frames, labels, fitted(50, 30), ViewRecipe(crop=24), VOID, np.random.default_rng(5))
    assert all((ids == lit.labels[0]).all() for ids in lit.labels)
    assert len({frame.tobytes() for frame in lit.frames}) > 1


def test_the_last_frame_decides_on_the_crop():
    flat, halves = np.zeros((4, 8), np.uint8), np.repeat(np.uint8([[0, 0, 0, 0, 0, 1, 1, 1]]), 4, 0)
    frame = np.repeat(halves[..., None], 3, 2)
    recipe = ViewRecipe(crop=4, scales=(1.0, 1.0), flips=0.0, light=False)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view = draw_view([frame] * 2, [flat, halves], NetworkInput(Preprocessing(None)), recipe, VOID, rng)
        assert 0.25 < view.labels[1].mean() <= 0.75


def test_views_are_mirrored_half_of_the_time():
    frame, ids = np.zeros((4, 4, 3), np.uint8), np.tile(np.uint8([0, 1, 2, 3]), (4, 1))
    recipe = ViewRecipe(crop=4, scales=(1.0, 1.0), max_share=1.0, light=False)
    rng = np.random.default_rng(0)
    rows = [
        draw_view([frame], [ids], NetworkInput(Preprocessing(None)), recipe, VOID, rng).labels[0, 0] for _ in range(200)
    ]
    mirrored = [row.tolist() == [3, 2, 1, 0] for row in rows]
    assert all(flag or row.tolist() == [0, 1, 2, 3] for flag, row in zip(mirrored, rows, strict=True))
    assert 70 < sum(mirrored) < 130


def test_scales_are_spread_over_their_range():
    frame, ids = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    rng = np.random.default_rng(0)
    sides = [
        draw_view([frame], [ids], NetworkInput(Preprocessing(None)), ViewRecipe(crop=64), VOID, rng).size[0]
        for _ in range(200)
    ]
    assert (min(sides), max(sides)) == (10, 40)
    assert 24 < np.mean(sides) < 26  # uniform: 25


def test_the_same_seed_draws_the_same_view():
    frames, labels = painted(2)
    first, second = (
        draw_view(frames, labels, fitted(50, 30), ViewRecipe(crop=32), VOID, np.random.default_rng([7, 3]))
        for _ in range(2)
    )
    assert (first.frames == second.frames).all()
    assert (first.labels == second.labels).all()


def test_labels_take_the_class_at_the_centre_of_a_pixel():
    labels = np.array([[0, 1, 2, 3]], np.uint16)
    assert resize_labels(labels, (1, 8)).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert resize_labels(np.arange(9, dtype=np.uint16)[None] * 100, (1, 3)).tolist() == [[100, 400, 700]]
