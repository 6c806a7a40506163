import cv2
import numpy as np
import pytest

from sam2vss.errors import ShapeError
from sam2vss.flow import (
    backward_flow,
    follow_back,
    is_inside,
    look_up,
    look_up_nearest,
    photometric_difference,
    to_grey,
)


def texture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A soft random texture, uint8 (H, W)."""
    noise = np.random.default_rng(seed).random(size).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(soft, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def test_flow_points_to_where_a_moved_texture_was():
    whole = texture((90, 120))
    before, now = whole[10:74, 10:106], whole[8:72, 7:103]  # the picture moved by 3 px right and 2 px down
    flow = backward_flow(np.ascontiguousarray(now), np.ascontiguousarray(before))
    assert flow.dtype == np.float32
    inner = flow[12:-12, 12:-12].reshape(-1, 2)
    np.testing.assert_allclose(np.median(inner, axis=0), (-3, -2), atol=0.1)
    assert (np.abs(inner - (-3, -2)).max(axis=1) < 0.5).mean() > 0.95


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (4, 40), (33, 31), (7, 100)])
def test_flow_of_any_size_of_frame_is_finite_and_nothing_where_nothing_moves(size):
    grey = texture(size)
    flow = backward_flow(grey, grey)
    assert flow.shape == (*size, 2)
    np.testing.assert_allclose(flow, 0, atol=0.01)
    assert np.isfinite(backward_flow(grey, np.full_like(grey, 90))).all()


def test_frames_of_two_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"size \(9, 8\) follows one of size \(8, 8\).*one size"):
        backward_flow(np.zeros((9, 8), np.uint8), np.zeros((8, 8), np.uint8))


def test_positions_are_pixels_plus_flow():
    flow = np.zeros((2, 3, 2), np.float32)
    flow[1, 2] = (-0.5, 4)
    positions = follow_back(flow)
    assert positions[0, 1].tolist() == [1, 0]
    assert positions[1, 2].tolist() == [1.5, 5]
    assert flow[1, 2].tolist() == [-0.5, 4], "the flow stays as it was"


def test_a_pixel_reaches_half_a_pixel_beyond_its_middle():
    positions = np.array([[[-0.5, 0], [1.49, 0], [-0.51, 0], [1.5, 0], [0, -0.6], [0, 0.4]]], np.float32)
    assert is_inside(np.concatenate([positions, positions])[:, :2]).tolist() == [[True, True]] * 2
    assert is_inside(positions[:, 2:4]).tolist() == [[False, False]]  # frames 2 px wide and 1 px high
    assert is_inside(positions[:, 4:]).tolist() == [[False, True]]


def test_looking_up_mixes_or_takes_the_nearest_and_repeats_edges():
    values = np.array([[0, 10, 20]], np.float32)
    positions = np.array([[[0.25, 0], [-7, 0], [2.4, 9]]], np.float32)
    np.testing.assert_allclose(look_up(values, positions), [[2.5, 0, 20]], atol=0.1)  # OpenCV: 1/32 px
    assert look_up_nearest(values, positions).tolist() == [[0, 0, 20]]
    assert look_up_nearest(np.array([[True, False, False]]), positions).tolist() == [[True, True, False]]


def test_photometric_difference_is_a_mean_over_3x3_pixels_and_infinite_outside():
    before = np.zeros((5, 5), np.uint8)
    grey = before.copy()
    grey[2, 2] = 90  # 90 / 9 = 10 grey levels for itself and its 8 neighbours
    flow = np.zeros((5, 5, 2), np.float32)
    flow[0, 0] = (-3, 0)
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 10
    expected[0, 0] = np.inf
    np.testing.assert_allclose(photometric_difference(grey, before, follow_back(flow)), expected, atol=1e-5)


def test_grey_weighs_green_most():
    assert to_grey(np.eye(3, dtype=np.uint8)[None] * 100).tolist() == [[30, 59, 11]]
