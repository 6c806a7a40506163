"""Eq. 3 and what else is pooled, against loops over pixels and cells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.errors import SettingsError, ShapeError
from sam2vss.mask_runs import Runs, decode_runs, pool_areas
from sam2vss.pooling import (
    Pooling,
    choose_cells,
    pool_masks,
    pool_max,
    pool_mean,
    pool_ring,
    ring_weights,
    take_cells,
)
from sam2vss.types import encode_masks

SEEDS = st.integers(0, 2**32 - 1)


def runs_of(masks: np.ndarray) -> Runs:
    return decode_runs(encode_masks(masks), masks.shape[1:])


def overlap(pixel: int, cell: int, num_pixels: int, num_cells: int) -> float:
    """Share of a pixel of an axis that lies in a cell."""
    length = num_pixels / num_cells
    return max(0.0, min(pixel + 1, (cell + 1) * length) - max(pixel, cell * length))


def slow_areas(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Area of every mask in every cell, pixel by pixel."""
    height, width = masks.shape[1:]
    areas = np.zeros((len(masks), *grid))
    for n, y, x in np.argwhere(masks):
        for i in range(grid[0]):
            for j in range(grid[1]):
                areas[n, i, j] += overlap(y, i, height, grid[0]) * overlap(x, j, width, grid[1])
    return areas


def slow_mean(mask: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Eq. 3, word by word: the mean over the mask's pixels of F(x, y), the mean of the cells that a pixel lies in."""
    depth, h, w = features.shape
    height, width = mask.shape
    total, count = np.zeros(depth), 0
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                count += 1
                for i in range(h):
                    for j in range(w):
                        total += overlap(y, i, height, h) * overlap(x, j, width, w) * features[:, i, j]
    return total / max(count, 1)


def random_masks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise, boxes, one empty and one full mask; bool (6, H, W)."""
    height, width = size
    masks = rng.random((6, *size)) < rng.random((6, 1, 1))
    for n in (2, 3):
        top, left = rng.integers(0, height), rng.integers(0, width)
        masks[n] = False
        masks[n, top : top + rng.integers(1, 5), left : left + rng.integers(1, 5)] = True
    masks[4], masks[5] = False, True
    return masks


ODD = (7, 11)
GRIDS = [(ODD, (3, 4)), (ODD, (5, 13)), (ODD, ODD), (ODD, (1, 1)), ((4, 5), (9, 16)), ((1, 1), (2, 3))]  # frame, grid


@pytest.mark.parametrize(("size", "grid"), GRIDS, ids=str)
def test_eq_3_equals_a_loop_over_pixels(size, grid):
    rng = np.random.default_rng(sum(size) * sum(grid))
    masks, features = random_masks(rng, size), rng.normal(size=(3, *grid))
    areas = pool_areas(runs_of(masks), grid)
    np.testing.assert_allclose(areas, slow_areas(masks, grid), atol=1e-10)  # measured: 8e-15
    pooled = pool_mean(features, areas)
    assert (pooled.shape, pooled.dtype) == ((6, 3), np.float32)
    np.testing.assert_allclose(pooled, [slow_mean(mask, features) for mask in masks], atol=1e-5)  # measured: 2e-7


@given(SEEDS)
def test_the_areas_of_all_cells_add_up_to_the_masks(seed):
    rng = np.random.default_rng(seed)
    size, grid = tuple(rng.integers(1, 30, 2)), tuple(rng.integers(1, 40, 2))
    masks = rng.random((rng.integers(0, 5), *size)) < 0.4
    areas = pool_areas(runs_of(masks), grid)
    assert areas.shape == (len(masks), *grid)
    assert (areas >= 0).all()
    np.testing.assert_allclose(areas.sum(axis=(1, 2)), masks.sum(axis=(1, 2)), rtol=1e-9)


def test_a_pixel_on_a_border_counts_in_both_cells():
    mask = np.array([[[False, True, False]]])  # 1 x 3 pixels on 1 x 2 cells: the middle one is cut in half
    areas = pool_areas(runs_of(mask), (1, 2))
    assert areas.tolist() == [[[0.5, 0.5]]]
    assert pool_mean(np.array([[[10.0, 20.0]]]), areas).tolist() == [[15.0]]


def test_a_mask_smaller_than_a_cell_has_the_features_of_its_cell():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 5, 6] = True  # in cell (1, 1) of 2 x 2
    features = np.arange(8.0).reshape(2, 2, 2)
    areas = pool_areas(runs_of(mask), (2, 2))
    for pool in (pool_mean, pool_max):
        assert pool(features, areas).tolist() == [[3.0, 7.0]]
    assert choose_cells(areas, 3).tolist() == [[3, 3, 3]]


def test_permuted_masks_permute_the_rows():
    rng = np.random.default_rng(0)
    masks, levels = random_masks(rng, (9, 12)), [rng.normal(size=(2, 3, 4)), rng.normal(size=(3, 5, 2))]
    order = rng.permutation(6)
    parts = ("mean", "max", "ring")
    rows = [
        pool_masks(levels, [pool_areas(runs_of(chosen), level.shape[1:]) for level in levels], parts)
        for chosen in (masks, masks[order])
    ]
    np.testing.assert_allclose(rows[1], rows[0][order], atol=1e-6)
    assert np.abs(rows[0][order] - rows[0]).max() > 0.1  # the order matters


def slow_max(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    inside = [cell for cell in np.argwhere(weights > 0) if weights[tuple(cell)] >= weights.max() / 2]
    return np.max([features[:, i, j] for i, j in inside], axis=0) if inside else np.zeros(len(features))


def slow_ring(weights: np.ndarray, features: np.ndarray, width: int = 2) -> np.ndarray:
    h, w = weights.shape
    total, area = np.zeros(len(features)), 0.0
    for i in range(h):
        for j in range(w):
            around = [
                weights[a, b]
                for a in range(max(0, i - width), min(h, i + width + 1))
                for b in range(max(0, j - width), min(w, j + width + 1))
            ]
            added = max(around) - weights[i, j]
            total += added * features[:, i, j]
            area += added
    return total / area if area else total


@given(SEEDS)
def test_max_and_ring_equal_loops_over_cells(seed):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 9, (4, *rng.integers(1, 8, 2))) * (rng.random((4, 1, 1)) < 0.8) / 4
    features = rng.normal(size=(3, *weights.shape[1:])) - 3  # most values below 0, which zeros would beat
    np.testing.assert_allclose(pool_max(features, weights), [slow_max(w, features) for w in weights], atol=1e-6)
    np.testing.assert_allclose(pool_ring(features, weights), [slow_ring(w, features) for w in weights], atol=1e-5)


def test_a_ring_goes_two_cells_out_in_all_directions_and_not_around_the_picture():
    weights = np.zeros((1, 6, 7))
    weights[0, 0, 1] = 1.0
    around = np.argwhere(ring_weights(weights)[0] > 0).tolist()
    assert around == [[i, j] for i in range(3) for j in range(4) if (i, j) != (0, 1)]


@pytest.mark.parametrize(("size", "grid"), GRIDS, ids=str)
def test_a_mask_that_fills_the_picture_has_no_surroundings(size, grid):
    areas = pool_areas(runs_of(np.ones((1, *size), bool)), grid)  # cells differ by rounding, about 1e-15
    assert not ring_weights(areas).any()
    assert pool_ring(np.ones((2, *grid)), areas).tolist() == [[0, 0]]


def test_rounding_does_not_decide_which_cells_are_inside():
    weights = np.array([[[1.0, 0.5 - 1e-15, 0.5 + 1e-15, 0.4]]])
    assert pool_max(np.array([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 3.0, 2.0, 4.0]]]), weights).tolist() == [[3, 3]]


def slow_cells(weights: np.ndarray, count: int) -> list[int]:
    """Walk through the cells until the s-th of `count` equal shares is half over."""
    flat = weights.ravel()
    if not flat.sum():
        return [-1] * count
    chosen = []
    for s in range(count):
        goal, passed = (s + 0.5) / count * flat.sum(), 0.0
        for cell, area in enumerate(flat):
            passed += area
            if passed >= goal:
                chosen.append(cell)
                break
    return chosen


@given(SEEDS)
def test_cells_are_spread_evenly_over_the_area(seed):
    rng = np.random.default_rng(seed)
    weights = rng.random((5, *rng.integers(1, 7, 2))) * (rng.random((5, 1, 1)) < 0.8)
    weights *= rng.random(weights.shape) < 0.6
    count = int(rng.integers(1, 9))
    assert choose_cells(weights, count).tolist() == [slow_cells(w, count) for w in weights]


def test_taken_cells_are_those_numbered_row_by_row():
    features = np.arange(12.0).reshape(2, 2, 3)
    taken = take_cells(features, np.array([[0, 5], [-1, 4]]))
    assert taken.dtype == np.float32
    assert taken.tolist() == [[[0, 6], [5, 11]], [[0, 0], [4, 10]]]


def test_pooled_columns_are_ordered_by_part_and_then_by_level():
    levels = [np.full((2, 1, 2), 10.0), np.full((1, 1, 1), 20.0)]
    levels[0][:, 0, 1] = 30
    weights = [np.array([[[1.0, 0.0]]]), np.array([[[1.0]]])]
    assert pool_masks(levels, weights, ("ring", "mean")).tolist() == [[30, 30, 0, 10, 10, 20]]


@pytest.mark.parametrize("part", ["mean", "max", "ring"])
def test_no_masks_and_masks_without_area_are_no_error(part):
    level = np.ones((3, 2, 2))
    assert pool_masks([level], [np.zeros((0, 2, 2))], (part,)).shape == (0, 3)
    assert pool_masks([level], [np.zeros((2, 2, 2))], (part,)).tolist() == [[0] * 3] * 2
    assert choose_cells(np.zeros((0, 2, 2)), 4).shape == (0, 4)


def test_half_precision_features_are_pooled_in_single_precision():
    features = np.full((1, 40, 40), 60_000, np.float16)  # their sum is beyond float16
    assert pool_mean(features, np.ones((1, 40, 40))).tolist() == [[pytest.approx(60_000, rel=1e-3)]]


def test_maps_and_weights_of_different_grids_are_refused():
    with pytest.raises(ShapeError, match=r"map of shape \(3, 2, 2\) does not fit weights of shape \(1, 2, 3\)"):
        pool_masks([np.ones((3, 2, 2))], [np.ones((1, 2, 3))])


@pytest.mark.parametrize("parts", [(), ("mean", "mean"), ("median",)])
def test_pooling_names_what_it_knows(parts):
    with pytest.raises(SettingsError, match="expected different ones of mean, max, ring"):
        Pooling(parts)


@pytest.mark.parametrize("tokens", [-1, 257])
def test_the_number_of_tokens_has_bounds(tokens):
    with pytest.raises(SettingsError, match=rf"keeps {tokens} cells a mask, expected 0 to 256"):
        Pooling(tokens=tokens)
