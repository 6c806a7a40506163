"""Superpixels: flooding, merging and following; the control behind `--tracker superpixel`."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.errors import SettingsError, ShapeError
from sam2vss.trackers.flooding import cores, flood, seed_grid
from sam2vss.trackers.merging import RegionGraph, build_graph, merge_regions
from sam2vss.trackers.superpixels import IDS_PER_FRAME, SuperpixelTracker, to_masklets
from sam2vss.types import BaseLabels, LabelSpace
from sam2vss.voting import refine_window

SEEDS = st.integers(0, 2**32 - 1)


def texture(size: tuple[int, int], seed: int = 0, softness: float = 4.0) -> np.ndarray:
    """A soft random picture, uint8 RGB (H, W, 3)."""
    noise = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), softness)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def panned(length: int, size: tuple[int, int], step: int) -> np.ndarray:
    """A texture that moves right by `step` px a frame, uint8 (L, H, W, 3)."""
    whole = texture((size[0], size[1] + step * length))
    lefts = [step * (length - 1 - t) for t in range(length)]
    return np.stack([whole[:, left : left + size[1]] for left in lefts])


def region_map(window, t):
    """Number of the masklet of each pixel of frame t; every pixel must lie in exactly one."""
    stack = window.stack(t)
    assert (stack.sum(axis=0) == 1).all()
    return stack.argmax(axis=0)


# --- flooding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(24, 36), (25, 31), (8, 8), (3, 50), (1, 1)])
def test_there_is_one_seed_a_cell_near_its_middle(size):
    seeds = seed_grid(texture(size), 8)
    rows, columns = (max(1, side // 8) for side in size)
    assert sorted(seeds[seeds > 0]) == list(range(1, rows * columns + 1))
    y, x = np.nonzero(seeds)
    if min(size) >= 8:
        np.testing.assert_array_equal(y // 8 * columns + x // 8 + 1, seeds[y, x])
        assert set((y % 8).tolist() + (x % 8).tolist()) <= {2, 3, 4, 5}


def test_seeds_keep_away_from_edges():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200  # the gradient covers columns 3 and 4; of the columns 2..5 the first free one is 2
    assert np.argwhere(seed_grid(image, 8)).tolist() == [[2, 2]]


def test_cores_are_what_keeps_a_distance_and_regions_without_a_core_stay():
    labels = np.array([[1, 1, 1, 2, 3, 3]] * 3, np.int32)
    assert cores(labels).tolist() == [[1, 1, 0, 2, 0, 3]] * 3
    assert cores(np.array([[1, 2]], np.int32)).tolist() == [[1, 2]]


def test_cores_leave_the_unknown_unknown():
    assert cores(np.array([[0, 0, 0, 5]] * 2, np.int32)).tolist() == [[0, 0, 0, 5]] * 2


def test_regions_meet_at_the_edge_of_the_picture():
    image = np.full((9, 12, 3), 40, np.uint8)
    image[:, 8:] = 180
    markers = np.zeros((9, 12), np.int32)
    markers[4, 1], markers[4, 10] = 1, 2
    labels = flood(image, markers)
    np.testing.assert_array_equal(labels, np.where(np.arange(12) < 8, 1, 2)[None].repeat(9, axis=0))
    assert np.count_nonzero(markers) == 2, "the markers stay as they were"


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_flooding_fills_frames_of_any_size_and_keeps_the_markers(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 30, 2))
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    markers = rng.integers(1, 9, size).astype(np.int32) * (rng.random(size) < rng.choice([0.02, 0.3, 1]))
    markers.reshape(-1)[rng.integers(markers.size)] = 4
    labels = flood(image, markers)
    assert labels.dtype == np.int32
    assert set(np.unique(labels)) == set(np.unique(markers)) - {0}
    np.testing.assert_array_equal(labels[markers > 0], markers[markers > 0])


# --- merging --------------------------------------------------------------------------------------------------------


def test_a_graph_by_hand():
    labels = np.array([[0, 0, 1], [0, 2, 1]], np.int32)
    picture = np.array([[[1], [2], [8]], [[3], [5], [6]]], np.float32)
    graph = build_graph([labels, labels], [picture, picture], 4)
    assert graph.areas.tolist() == [6, 4, 2, 0]
    assert graph.features.ravel().tolist() == [2, 7, 5, 0]
    assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert graph.lengths.tolist() == [2, 4, 2]  # a frame has sides 0|1: 1, 0|2: above and left 2, 1|2: 1


def test_a_pair_is_joined_below_its_cost():
    # 6 and 3 pixels, means 0 and 4, border 2: 6 * 3 / 9 * 16 / 2 = 16
    graph = RegionGraph(np.array([6.0, 3]), np.array([[0.0], [4]]), np.array([[0, 1]]), np.array([2.0]))
    assert merge_regions(graph, 16).tolist() == [0, 1]
    assert merge_regions(graph, 16.01).tolist() == [0, 0]


def test_joined_regions_count_with_their_common_mean_and_border():
    # A chain 0-1-2 of 4 px each, means 0, 1, 4, borders 1. First 0 and 1: 2 * 1 = 2. Their mean is 0.5, so 2 costs
    # 8 * 4 / 12 * 3.5**2 = 32.67 against 2 * 9 = 18 before.
    chain = RegionGraph(np.full(3, 4.0), np.array([[0.0], [1], [4]]), np.array([[0, 1], [1, 2]]), np.ones(2))
    assert merge_regions(chain, 30).tolist() == [0, 0, 1]
    assert merge_regions(chain, 33).tolist() == [0, 0, 0]
    # With a second border 0-2 of length 1 the joined pair shares 2 with region 2: 16.33.
    ring = RegionGraph(chain.areas, chain.features, np.array([[0, 1], [0, 2], [1, 2]]), np.ones(3))
    assert merge_regions(ring, 16).tolist() == [0, 0, 1]
    assert merge_regions(ring, 17).tolist() == [0, 0, 0]


def slow_merge(graph: RegionGraph, scale: float) -> list[int]:
    """Rounds of mutually cheapest pairs, with sets of members and dictionaries."""
    members = {i: [i] for i in range(len(graph.areas))}
    area = dict(enumerate(graph.areas.tolist()))
    mean = dict(enumerate(graph.features.tolist()))
    border = {tuple(edge): length for edge, length in zip(graph.edges.tolist(), graph.lengths.tolist(), strict=True)}

    def cost(a, b):
        apart = sum((x - y) ** 2 for x, y in zip(mean[a], mean[b], strict=True))
        return area[a] * area[b] / (area[a] + area[b]) * apart / border[a, b]

    while True:
        costs = {pair: cost(*pair) for pair in sorted(border)}
        best = {i: min((c, pair) for pair, c in costs.items() if i in pair)[1] for pair in costs for i in pair}
        chosen = [pair for pair in costs if costs[pair] < scale and best[pair[0]] == best[pair[1]] == pair]
        if not chosen:
            owner = {i: first for first, group in members.items() for i in group}
            numbers = {first: n for n, first in enumerate(sorted(members))}
            return [numbers[owner[i]] for i in range(len(graph.areas))]
        for a, b in chosen:
            mean[a] = [(area[a] * x + area[b] * y) / (area[a] + area[b]) for x, y in zip(mean[a], mean[b], strict=True)]
            area[a] += area[b]
            members[a] += members.pop(b)
            moved = {}
            for pair, length in border.items():
                new = tuple(sorted(a if i == b else i for i in pair))
                if new[0] != new[1]:
                    moved[new] = moved.get(new, 0) + length
            border = moved


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_merging_equals_merging_pair_by_pair(seed):
    rng = np.random.default_rng(seed)
    labels = flood(texture((20, 24), seed % 1000), seed_grid(texture((20, 24), seed % 1000), 4)) - 1
    picture = rng.random((20, 24, 3)) * 50
    graph = build_graph([labels], [picture], int(labels.max()) + 1)
    scale = float(rng.choice([1, 20, 100, 1000, 1e9]))
    assert merge_regions(graph, scale).tolist() == slow_merge(graph, scale)


# --- masklets -------------------------------------------------------------------------------------------------------


def test_label_maps_become_masklets_with_a_point_inside_each():
    first = np.array([[1, 1, 2], [1, 1, 2]], np.int32)
    then = np.array([[1, 1, 3], [1, 1, 2]], np.int32)
    window = to_masklets([first, then], start=5)
    assert window.window.start == 5
    assert window.ids.tolist() == [5 * IDS_PER_FRAME, 5 * IDS_PER_FRAME + 1, 5 * IDS_PER_FRAME + 2]
    np.testing.assert_array_equal(window.stack(0), first == np.array([1, 2, 3])[:, None, None])
    np.testing.assert_array_equal(window.stack(1), then == np.array([1, 2, 3])[:, None, None])
    assert window.points.tolist() == [[1, 0], [2, 1], [2, 0]]  # runs 0..4, 4..6; 4..5 of frame 1


@pytest.mark.parametrize("size", [(60, 80), (33, 47), (8, 8), (5, 40), (2, 1)])
@pytest.mark.parametrize("kind", ["texture", "constant", "noise"])
def test_every_pixel_lies_in_exactly_one_masklet_and_points_lie_inside(size, kind):
    frames = {
        "texture": panned(4, size, 3),
        "constant": np.full((4, *size, 3), 77, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8),
    }[kind]
    window = SuperpixelTracker().track(frames, 3)
    is_seen = np.zeros(window.num_masklets, bool)
    for t in range(4):
        region_map(window, t)
        assert window.coverage(t) == 1
        stack = window.stack(t)
        for i in np.flatnonzero(stack.any(axis=(1, 2)) & ~is_seen):
            x, y = window.points[i].astype(int)
            assert stack[i, y, x]
        is_seen |= stack.any(axis=(1, 2))
    assert is_seen.all()
    if kind == "constant":
        assert window.num_masklets == 1, "regions without any difference are joined"


def test_masklets_follow_a_picture_that_moves():
    frames = panned(32, (96, 128), 2)
    window = SuperpixelTracker().track(frames, 0)
    shift = 2 * 31
    first, last = window.stack(0)[:, :, : 128 - shift], window.stack(31)[:, :, shift:]
    whole = window.stack(0).sum(axis=(1, 2))
    stays = first.sum(axis=(1, 2)) == whole  # regions of which nothing leaves the frame
    stays &= whole >= 60
    overlap = (first & last).sum(axis=(1, 2))[stays]
    union = (first | last).sum(axis=(1, 2))[stays]
    assert stays.sum() >= 15
    assert np.median(overlap / union) > 0.75
    assert (overlap / union > 0.5).mean() > 0.85


def test_what_comes_into_the_frame_gets_masklets_of_its_own():
    frames = panned(16, (64, 80), 3)
    window = SuperpixelTracker(merge=0).track(frames, 0)
    first, last = region_map(window, 0), region_map(window, 15)
    entered = last[:, : 3 * 15 - 8]  # all but a rim of a cell
    assert np.isin(entered, first).mean() < 0.1
    assert np.isin(last[:, 3 * 15 + 8 :], first).mean() > 0.9


def test_a_cut_starts_all_masklets_anew():
    frames = np.stack([texture((48, 64), 1) // 4, 255 - texture((48, 64), 2) // 4])
    window = SuperpixelTracker().track(frames, 0)
    assert not set(np.unique(region_map(window, 0))) & set(np.unique(region_map(window, 1)))


def test_regions_end_where_objects_end_and_votes_repair_their_edges():
    y, x = np.mgrid[:72, :96]
    truth = np.stack([(x - 30 - 2 * t) ** 2 + (y - 36) ** 2 <= 18**2 for t in range(8)]).astype(np.uint8)
    frames = np.where(truth[..., None] > 0, (190, 60, 40), (60, 110, 150)).astype(np.int64)
    frames = (frames + np.random.default_rng(0).normal(0, 3, frames.shape)).clip(0, 255).astype(np.uint8)
    base = np.stack([cv2.dilate(frame, np.ones((5, 5), np.uint8)) for frame in truth])  # 2 px too large
    window = SuperpixelTracker().track(frames, 0)
    refined = refine_window(BaseLabels(base), window, LabelSpace.numbered(2)).labels
    assert (base != truth).mean() > 0.03
    assert (refined != truth).mean() < 0.01


def test_the_same_frames_give_the_same_masklets_whatever_was_tracked_before():
    frames = panned(5, (40, 56), 2)
    tracker = SuperpixelTracker()
    first = tracker.track(frames, 0)
    tracker.track(frames[::-1].copy(), 5)
    again = tracker.track(frames, 0)
    assert again.rles == first.rles
    np.testing.assert_array_equal(again.points, first.points)


def test_a_window_of_one_frame_is_cut_like_the_first_of_many():
    frames = panned(3, (40, 56), 2)
    alone = SuperpixelTracker(merge=0).track(frames[:1], 7)
    many = SuperpixelTracker(merge=0).track(frames, 7)
    np.testing.assert_array_equal(region_map(alone, 0), region_map(many, 0))


def test_settings_and_frames_that_cannot_be_are_refused():
    with pytest.raises(SettingsError, match=r"size of at least 2 px.*found 1 and 400"):
        SuperpixelTracker(size_px=1)
    with pytest.raises(SettingsError, match="merge scale of at least 0"):
        SuperpixelTracker(merge=float("nan"))
    with pytest.raises(ShapeError, match=r"frames are float64 \(2, 8, 8, 3\), expected uint8"):
        SuperpixelTracker().track(np.zeros((2, 8, 8, 3)), 0)
    with pytest.raises(ShapeError, match="with pixels"):
        SuperpixelTracker().track(np.zeros((0, 8, 8, 3), np.uint8), 0)
