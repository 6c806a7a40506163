import cv2
import numpy as np
import pytest

from sam2vss.metrics.boundary import boundary_iou_distance, label_band, mark_boundaries
from sam2vss.metrics.marks import combine_marks
from sam2vss.metrics.planes import Planes
from sam2vss.metrics.spans import count_table, find_spans


def draw_labels(seed: int, size: tuple[int, int], dtype: type) -> np.ndarray:
    """Blocks of six classes with a little noise, (H, W)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, (-(-size[0] // 9), -(-size[1] // 9)))
    labels = np.kron(coarse, np.ones((9, 9), int))[: size[0], : size[1]]
    return np.where(rng.random(size) < 0.001, 5, labels).astype(dtype)


def masks_minus_eroded(labels: np.ndarray, distance: int, outside: int) -> np.ndarray:
    """Union over the classes of mask minus eroded mask, by 3 x 3 erosions as boundary-iou-api does; bool (H, W)."""
    band = np.zeros(labels.shape, bool)
    for label in np.unique(labels):
        mask = cv2.copyMakeBorder((labels == label).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=outside)
        eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)
        band |= (mask.astype(bool) & ~eroded.astype(bool))[1:-1, 1:-1]
    return band


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (37, 61)])
@pytest.mark.parametrize("distance", [1, 2, 3, 7, 20])
def test_bands_are_masks_minus_eroded_masks(dtype: type, size: tuple[int, int], distance: int):
    truth, prediction = (draw_labels(seed, size, dtype) for seed in (0, 1))
    assert np.array_equal(label_band(truth, distance), masks_minus_eroded(truth, distance, outside=1))
    band, (two, edges) = mark_boundaries(truth, prediction, (2, distance), Planes(size, dtype))
    assert np.array_equal(band, masks_minus_eroded(truth, 2, outside=1))
    assert np.array_equal(edges.truth, masks_minus_eroded(truth, distance, outside=0))
    assert np.array_equal(edges.prediction, masks_minus_eroded(prediction, distance, outside=0))
    assert np.array_equal(two.prediction, masks_minus_eroded(prediction, 2, outside=0))


@pytest.mark.parametrize(
    ("size", "distance"),
    [((480, 853), 20), ((720, 1280), 29), ((30, 40), 1), ((60, 80), 2), ((1, 1), 1), ((75, 100), 2)],
)
def test_two_percent_of_the_diagonal_are_rounded_as_published(size: tuple[int, int], distance: int):
    # 480 x 853: 0.02 * 978.8 = 19.6; 75 x 100: 0.02 * 125 = 2.5, which Python's round takes to the even 2
    assert boundary_iou_distance(size) == distance


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_spans_count_what_pixels_do(noise: float):
    rng = np.random.default_rng(0)
    labels = draw_labels(0, (50, 70), np.uint16)
    other = np.where(rng.random(labels.shape) < noise, rng.integers(0, 6, labels.shape), labels).astype(np.uint8)
    spans = find_spans([labels, other], Planes(labels.shape, np.uint16))
    assert (spans is None) == (noise == 1.0)  # nothing but noise: pixels are cheaper
    expected = np.zeros((6, 6), int)
    np.add.at(expected, (labels, other), 1)
    assert np.array_equal(count_table(spans, (labels, other), (6, 6)), expected)


def test_marks_keep_their_place():
    masks = [np.array([[bool(number >> bit & 1) for number in range(64)]]) for bit in range(6)]
    assert combine_marks(masks, Planes((1, 64), np.uint8)).tolist() == [list(range(64))]
