import cv2
import numpy as np
import pytest
import torch

from sam2vss.segmenters.vss.frames import clip_indices, network_input, network_size


def test_clips_are_those_of_the_published_test_script():
    first = [(0,), (1,), (2,), (0, 1, 2, 3), (0, 2, 3, 4), (0, 2, 4, 5), (0, 2, 4, 6), (0, 3, 5, 7), (0, 3, 6, 8)]
    assert [clip_indices(t) for t in range(9)] == first
    assert clip_indices(9) == (0, 3, 6, 9)
    assert clip_indices(240) == (231, 234, 237, 240)


@pytest.mark.parametrize(
    ("frame", "network"),
    [
        ((480, 853), (480, 864)),
        ((480, 640), (480, 640)),
        ((480, 1012), (416, 864)),  # scaled to 405 x 853
        ((480, 270), (864, 480)),  # portrait, scaled up by 1.78 to 853 x 480
        ((720, 1280), (480, 864)),
        ((1, 1), (480, 480)),
        ((1, 3000), (32, 864)),  # 0.28 rows, at least one
    ],
)
def test_the_network_sees_multiples_of_32(frame, network):
    assert network_size(frame) == network


def test_a_frame_is_resized_twice_and_normalised():
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    scaled = cv2.resize(frame, (853, 480))  # 480 / 90 = 5.333 = 853.33 / 160, so 853 is what limits
    aligned = cv2.resize(scaled, (864, 480))
    found = network_input(frame)
    assert found.shape == (3, 480, 864)
    assert found.dtype == torch.float32
    expected = (aligned[100, 200].astype(float) - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]
    np.testing.assert_allclose(found[:, 100, 200], expected, rtol=0, atol=1e-6)
    in_one_step = cv2.resize(frame, (864, 480))
    assert np.abs(in_one_step.astype(int) - aligned).max() > 1  # the second step does change pixels


def test_a_frame_of_the_right_size_keeps_its_pixels():
    frame = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    found = network_input(frame).permute(1, 2, 0).numpy() * (58.395, 57.12, 57.375) + (123.675, 116.28, 103.53)
    np.testing.assert_allclose(found, frame, rtol=0, atol=1e-4)
