"""Rendered scenes in memory, and views of them in which picture and objects stay together."""

from dataclasses import replace

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.datasets.synthetic import TRAIN_SEEDS, render_clip
from sam2vss.training.scenes import SCENE_SIZE, Augmentation, random_pixel, render_bank, visible_ids

SIDE = 40
IDS = np.random.default_rng(0).integers(0, 200, (SIDE, SIDE), np.uint8)
PICTURE = np.repeat(IDS[..., None], 3, axis=2)  # shows its ids


def view_of(seed: int, **changes: object) -> Augmentation:
    """A random view that leaves the light as it is."""
    plain = {"gain": np.ones(3), "bias": 0.0}
    return replace(Augmentation.draw(np.random.default_rng(seed)), **plain, **changes)


@given(st.integers(0, 10**6))
def test_picture_and_ids_are_cut_and_flipped_alike(seed):
    view = view_of(seed)
    side = max(8, round(SIDE * view.scale))  # no resize, so every pixel can be compared
    ids, picture = view.ids(IDS, side), view.frame(PICTURE, side)
    assert (ids.shape, picture.shape) == ((side, side), (side, side, 3))
    assert (picture == ids[..., None]).all()


@given(st.integers(0, 10**6), st.sampled_from([16, 24, 64]))
def test_picture_and_ids_are_resized_alike(seed, size):
    """A disc and its picture; they may differ by two cells at its edge, as one is averaged and the other sampled."""
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = ((x - 18) ** 2 + (y - 22) ** 2 <= 144).astype(np.uint8)
    view = view_of(seed)
    shown = view.frame(np.repeat(200 * disc[..., None], 3, axis=2), size)[..., 0] > 100
    ids = view.ids(disc, size)
    near = np.ones((5, 5), np.uint8)
    is_edge = cv2.dilate(ids, near) != cv2.erode(ids, near)
    is_edge[[0, -1]] = is_edge[:, [0, -1]] = True  # the disc's edge may lie just outside
    assert (shown == (ids == 1))[~is_edge].all()
    assert ids.any()
    assert not ids.all()


def test_a_flip_mirrors_and_a_whole_view_is_the_picture():
    whole = view_of(0, flip=False, top=0.0, left=0.0, scale=1.0)
    assert (whole.ids(IDS, SIDE) == IDS).all()
    assert (replace(whole, flip=True).frame(PICTURE, SIDE) == PICTURE[:, ::-1]).all()
    corner = replace(whole, top=0.5, left=0.25, scale=0.5)
    assert (corner.ids(IDS, 20) == IDS[20:, 10:30]).all()


def test_light_is_clipped_and_does_not_wrap():
    bright = view_of(0, flip=False, top=0.0, left=0.0, scale=1.0)
    bright = replace(bright, gain=np.array([2.0, 1.0, 1.0]), bias=10.0)
    picture = np.full((SIDE, SIDE, 3), 200, np.uint8)
    assert bright.frame(picture, SIDE)[0, 0].tolist() == [255, 210, 210]
    assert replace(bright, bias=-201.0).frame(picture, SIDE)[0, 0].tolist() == [199, 0, 0]


@given(st.integers(0, 10**6), st.floats(0.3, 1))
def test_a_view_stays_inside_the_picture(seed, smallest):
    view = Augmentation.draw(np.random.default_rng(seed), smallest)
    assert smallest <= view.scale <= 1
    assert 0 <= view.top <= 1 - view.scale + 1e-9
    assert 0 <= view.left <= 1 - view.scale + 1e-9
    assert view.ids(IDS, 32).shape == (32, 32)


def test_a_bank_holds_the_rendered_clips_squeezed_to_a_square():
    seeds = (TRAIN_SEEDS[3], TRAIN_SEEDS[4])
    bank = render_bank(seeds, num_frames=2, stride=5, image_size=40)
    assert (bank.frames.shape, bank.objects.shape, len(bank)) == ((2, 2, 40, 40, 3), (2, 2, 40, 40), 2)
    for row, seed in enumerate(seeds):
        clip = render_clip(seed, 2, SCENE_SIZE, stride=5, first_frame=seed * 7 % 40)
        # nearest neighbour by pixel centres, 240 x 320 -> 40 x 40: row 3, 9, 15 ..., column 4, 12, 20 ...
        assert (bank.objects[row] == clip.objects[:, 3::6, 4::8]).all()
        assert (bank.labels(row, 1) == clip.object_classes[bank.objects[row, 1]]).all()
        assert abs(bank.frames[row].mean() - clip.frames.mean()) < 4  # bilinear at an eighth of the size skips pixels


def test_small_objects_and_number_0_are_not_prompted():
    ids = np.zeros((10, 10), np.uint8)
    ids[0, :5], ids[1, :4], ids[2, 0] = 3, 9, 255
    assert visible_ids(ids, 0.05).tolist() == [3]
    assert visible_ids(ids, 0.002).tolist() == [3, 9, 255]  # at least one pixel


@given(st.integers(0, 10**6))
def test_a_random_pixel_lies_inside(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 9)) < 0.1
    mask[rng.integers(5), rng.integers(9)] = True
    x, y = random_pixel(mask, rng)
    assert mask[y, x]


def test_random_pixels_reach_every_pixel():
    mask = np.array([[True, False, True], [False, True, False]])
    rng = np.random.default_rng(0)
    assert {random_pixel(mask, rng) for _ in range(50)} == {(0, 0), (2, 0), (1, 1)}
