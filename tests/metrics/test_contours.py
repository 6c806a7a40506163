"""Boundary F against DAVIS' definition for one object in one frame, and the disk that contours grow by."""

import math

import numpy as np
import pytest

from sam2vss.metrics import VideoSegMetrics, contours


def davis_f(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray) -> float:
    """The measure of davis2017-evaluation for one object, from its definition; masks bool (H, W)."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    edges = [contour_of(mask & ~void) for mask in (prediction, truth)]
    if not edges[0] or not edges[1]:
        return float(not edges[0] and not edges[1])
    apart = np.linalg.norm(np.array(list(edges[0]))[:, None] - np.array(list(edges[1]))[None], axis=-1)
    precision, recall = ((apart.min(axis=axis) <= radius).mean() for axis in (1, 0))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour_of(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixels that differ from the one to the right, below, or to the right below, as far as these exist."""
    height, width = mask.shape
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1))
        if v < height and u < width and mask[v, u] != mask[y, x]
    }


def draw_blob(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A disc with a ragged rim, anywhere, also partly outside; bool (H, W)."""
    rows, columns = np.indices(size)
    distance = np.hypot(rows - rng.uniform(0, size[0]), columns - rng.uniform(0, size[1]))
    return distance + rng.normal(0, 0.7, size) < rng.uniform(1, 2 + 0.4 * max(size))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (24, 40), (150, 30), (20, 200), (90, 110)])
@pytest.mark.parametrize("has_void", [False, True])
def test_one_object_in_one_frame_scores_as_in_davis(size: tuple[int, int], has_void: bool):
    # tolerances: 1 px up to a diagonal of 125, 2 px above. Measured: equal to the last bit.
    for seed in range(4):
        rng = np.random.default_rng((seed, *size))
        truth, prediction = draw_blob(size, rng), draw_blob(size, rng)
        if seed % 2:
            prediction = np.roll(truth, (1, 2), axis=(0, 1))
        void = draw_blob(size, rng) & has_void
        metrics = VideoSegMetrics(2, boundary="full")
        metrics.update(prediction.astype(np.uint8), np.where(void, 255, truth).astype(np.uint8))
        found = metrics.per_class()[1].boundary_f
        if contour_of(truth & ~void):
            assert found == pytest.approx(davis_f(prediction, truth, void), abs=1e-15)
        else:  # DAVIS gives 0 or 1 where there is no object; a class that the truth does not show has no score here
            assert math.isnan(found)


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 8, 18])  # 8: 480 x 853, 18: 1080 x 1920
def test_a_grown_pixel_is_a_disk_that_stays_in_its_rows(radius: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contours, "contour_tolerance_px", lambda size: radius)
    size = (21, 25)
    counter = contours.ContourCounter(size, num_classes=2)
    for y, x in ((10, 12), (0, 0), (20, 24), (5, 24), (6, 0)):
        pixels = np.zeros((size[0], size[1] + radius), np.uint8)
        pixels[y, x] = 4
        grown = counter._grow(pixels.ravel()).reshape(pixels.shape)[:, : size[1]]
        rows, columns = np.indices(size)
        assert np.array_equal(grown, np.where((rows - y) ** 2 + (columns - x) ** 2 <= radius**2, 4, 0))


def test_more_classes_than_a_byte_has_bits_do_not_mix():
    # 20 stripes of 20 classes in any order, the prediction moved by one class of eight apart in half of the picture
    rng = np.random.default_rng(0)
    stripes = np.repeat(rng.permutation(20), 4)[None].repeat(30, axis=0).astype(np.uint8)
    prediction = np.where(np.arange(30)[:, None] < 15, stripes, (stripes + 8) % 20).astype(np.uint8)
    together = VideoSegMetrics(20, boundary="full")
    together.update(prediction, stripes)
    for label, class_score in enumerate(together.per_class()):
        alone = VideoSegMetrics(2, boundary="full")
        alone.update((prediction == label).astype(np.uint8), (stripes == label).astype(np.uint8))
        assert class_score.boundary_f == alone.per_class()[1].boundary_f


def test_contours_of_unlabelled_predictions_count_against_the_classes_beside_them():
    truth = np.zeros((20, 40), np.uint8)
    truth[:, 20:] = 1
    hole = truth.copy()
    hole[5:12, 4:14] = 255  # a hole in class 0, more than the tolerance of 1 px away from the truth's contour
    metrics = VideoSegMetrics(2, boundary="full")
    metrics.update(hole, truth)
    zero, one = metrics.per_class()
    # truth: 20 px in column 19. The hole's contour: its 70 pixels and 18 around (7 + 10 + 1 left and above),
    # less the 6 x 9 = 54 pixels of it with three neighbours in the hole -> 34
    precision = 20 / (20 + 34)
    assert zero.boundary_f == pytest.approx(2 * precision / (precision + 1))
    assert one.boundary_f == 1
