"""The controls of `--smooth`: static majority and the average along optical flow."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.errors import SettingsError, ShapeError
from sam2vss.flow import follow_back
from sam2vss.smoothing import (
    FlowSmoother,
    StaticSmoother,
    average_along_flow,
    find_smoother,
    majority_of_neighbours,
    scores_of,
)
from sam2vss.types import BaseLabels, Frame

SEEDS = st.integers(0, 2**32 - 1)
VOID = 255


def line(*labels: int) -> np.ndarray:
    """Labels of one pixel over time, uint8 (T, 1, 1)."""
    return np.array(labels, np.uint8)[:, None, None]


def windows_of(labels: np.ndarray, lengths, images: np.ndarray | None = None):
    """Cut labels (T, H, W) into windows of these lengths; frames are grey without images."""
    if images is None:
        images = np.full((*labels.shape, 3), 120, np.uint8)
    start = 0
    for length in lengths:
        span = slice(start, start + length)
        frames = [Frame(image, start + i, str(start + i)) for i, image in enumerate(images[span])]
        yield frames, BaseLabels(labels[span])
        start += length
    assert start == len(labels)


def joined(smoothed) -> np.ndarray:
    return np.concatenate([window[2].labels for window in smoothed])


def slow_majority(labels: np.ndarray, radius: int, ignore_index: int) -> np.ndarray:
    smoothed = np.full_like(labels, ignore_index)
    for t, y, x in np.ndindex(labels.shape):
        around = [int(v) for v in labels[max(0, t - radius) : t + radius + 1, y, x] if v != ignore_index]
        if around:
            most = max(around.count(v) for v in around)
            winners = [v for v in sorted(around) if around.count(v) == most]
            smoothed[t, y, x] = labels[t, y, x] if labels[t, y, x] in winners else winners[0]
    return smoothed


def test_a_flicker_of_one_frame_is_outvoted():
    assert majority_of_neighbours(line(3, 3, 7, 3, 3), 2).ravel().tolist() == [3, 3, 3, 3, 3]


def test_of_equal_votes_the_own_label_wins_and_else_the_smallest():
    # r = 1. Frame 0: {9, 4}, own 9. Frame 1: {9, 4, 2}, all once, own 4. Frame 2: {4, 2, VOID}: own 2.
    # Frame 3 is void itself: {2, VOID, 1}: smallest is 1. Frame 4: {VOID, 1}.
    labels = line(9, 4, 2, VOID, 1)
    assert majority_of_neighbours(labels, 1).ravel().tolist() == [9, 4, 2, 1, 1]


def test_the_ignore_index_has_no_vote_and_stays_where_there_is_nothing_else():
    # Frame 1: two void neighbours do not outvote one 5. Frames 4 to 6: nothing but void within one frame of 5.
    labels = line(VOID, 5, VOID, VOID, VOID, VOID, 8)
    assert majority_of_neighbours(labels, 1).ravel().tolist() == [5, 5, 5, VOID, VOID, 8, 8]


def test_an_ignore_index_that_is_not_the_highest_number_is_kept_too():
    assert majority_of_neighbours(line(4, 4, 4), 1, ignore_index=4).ravel().tolist() == [4, 4, 4]
    assert majority_of_neighbours(line(4, VOID, 4), 1, ignore_index=4).ravel().tolist() == [VOID, VOID, VOID]


@given(SEEDS, st.integers(0, 5), st.sampled_from([np.uint8, np.uint16]))
@settings(max_examples=60, deadline=None)
def test_static_majority_equals_counting_pixel_by_pixel(seed, radius, dtype):
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 7, np.iinfo(dtype).max - 1, np.iinfo(dtype).max], dtype)
    labels = rng.choice(values, (rng.integers(1, 10), 3, 4))
    ignore = int(np.iinfo(dtype).max)
    expected = slow_majority(labels, radius, ignore)
    np.testing.assert_array_equal(majority_of_neighbours(labels, radius, ignore), expected)
    first, stop = sorted(rng.integers(0, len(labels) + 1, 2))
    np.testing.assert_array_equal(majority_of_neighbours(labels, radius, ignore, first, stop), expected[first:stop])


def test_counts_of_the_largest_radius_do_not_overflow():
    labels = np.concatenate([line(*[7] * 60), line(200), line(*[7] * 60)])
    assert majority_of_neighbours(labels, 60, first=60, stop=61).tolist() == [[[7]]]
    with pytest.raises(SettingsError, match=r"0\.\.60 frames, found 61"):
        majority_of_neighbours(labels, 61)


@given(SEEDS, st.integers(0, 4), st.lists(st.integers(1, 5), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_static_smoothing_leaves_no_trace_of_window_borders(seed, radius, lengths):
    labels = np.random.default_rng(seed).integers(0, 4, (sum(lengths), 2, 3), dtype=np.uint8)
    smoothed = list(StaticSmoother(radius).smooth(windows_of(labels, lengths)))
    assert [len(window[0]) for window in smoothed] == lengths
    assert [frame.index for window in smoothed for frame in window[0]] == list(range(len(labels)))
    np.testing.assert_array_equal(np.concatenate([window[1].labels for window in smoothed]), labels)
    np.testing.assert_array_equal(joined(smoothed), majority_of_neighbours(labels, radius))


def test_static_smoothing_holds_back_one_window_and_no_more():
    read = []

    def source():
        for window in windows_of(np.zeros((24, 1, 1), np.uint8), [8, 8, 8]):
            read.append(window[0][0].index)
            yield window

    smoothed = StaticSmoother(2).smooth(source())
    next(smoothed)
    assert read == [0, 8]
    next(smoothed)
    assert read == [0, 8, 16]


def test_probabilities_are_dropped_and_the_base_labels_keep_theirs():
    base = BaseLabels(np.zeros((1, 4, 4), np.uint8), np.ones((1, 2, 4, 4), np.float32))
    frames = [Frame(np.zeros((4, 4, 3), np.uint8), 0, "0")]
    for smoother in (StaticSmoother(), FlowSmoother()):
        ((_, same, smoothed),) = smoother.smooth(iter([(frames, base)]))
        assert same is base
        assert smoothed.probabilities is None


@pytest.mark.parametrize("name", ["static", "flow"])
def test_a_change_of_size_is_refused(name):
    small, large = (next(windows_of(np.zeros((3, *size), np.uint8), [3])) for size in ((8, 8), (8, 9)))
    with pytest.raises(ShapeError, match=r"\(8, 9\)"):
        list(find_smoother(name).smooth(iter([small, large])))


def test_labels_of_another_size_than_their_frames_are_refused():
    ((frames, _),) = windows_of(np.zeros((1, 8, 8), np.uint8), [1])
    with pytest.raises(ShapeError, match=r"sizes \(8, 8\) and \(4, 4\)"):
        list(FlowSmoother().smooth(iter([(frames, BaseLabels(np.zeros((1, 4, 4), np.uint8)))])))


def test_smoothers_are_found_by_name_with_the_label_sets_ignore_index():
    assert find_smoother("static", 65535) == StaticSmoother(ignore_index=65535)
    assert find_smoother("flow", 65535) == FlowSmoother(ignore_index=65535)


def test_a_smoother_that_does_not_exist_is_named():
    with pytest.raises(SettingsError, match="there is no smoother 'median', expected static or flow"):
        find_smoother("median")  # type: ignore[arg-type]


def test_no_windows_give_no_windows():
    assert list(StaticSmoother().smooth(iter([]))) == list(FlowSmoother().smooth(iter([]))) == []


# --- flow -----------------------------------------------------------------------------------------------------------


def slow_average(before, labels, positions, weights, ignore_index):
    """Scores as {class: (H, W)} and smoothed labels, pixel by pixel with bilinear weights written out."""
    height, width = labels.shape
    classes = sorted(set(before) | set(labels.ravel().tolist()) - {ignore_index})
    scores = {c: np.zeros((height, width)) for c in classes}
    smoothed = np.full_like(labels, ignore_index)
    for y, x in np.ndindex(height, width):
        px, py = positions[y, x]
        for c in classes:
            looked_up = 0.0
            for column in (np.floor(px), np.floor(px) + 1):
                for row in (np.floor(py), np.floor(py) + 1):
                    share = (1 - abs(px - column)) * (1 - abs(py - row))
                    place = int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))
                    looked_up += share * before[c][place] if c in before else 0
            scores[c][y, x] = weights[y, x] * looked_up + (1 - weights[y, x]) * (labels[y, x] == c)
        best = max(scores[c][y, x] for c in classes) if classes else 0
        if best > 0:
            smoothed[y, x] = min(c for c in classes if scores[c][y, x] == best)
    return scores, smoothed


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_the_average_along_a_given_flow_equals_the_one_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 9, 2))
    labels = rng.choice(np.array([0, 3, 9, VOID], np.uint8), (4, *size))
    labels[labels == 9] = 5 + rng.integers(2)
    scores = scores_of(labels[0])
    expected = {c: score.astype(float) for c, score in scores.items()}
    for t in range(1, 4):
        # steps of 1/4 px are exact in OpenCV's table of 32 steps a pixel
        positions = follow_back((rng.integers(-8, 9, (*size, 2)) / 4).astype(np.float32))
        weights = rng.choice(np.array([0, 0.25, 0.6, 0.9], np.float32), size)
        scores, smoothed = average_along_flow(scores, labels[t], positions, weights)
        expected, _ = slow_average(expected, labels[t], positions, weights, VOID)
        for c, score in scores.items():
            np.testing.assert_allclose(score, expected[c], atol=2e-6)
        for c in set(expected) - set(scores):
            assert expected.pop(c).max() < 1 / 256 + 1e-6, "only what is forgotten may be missing"
        order = np.sort(np.stack([np.zeros(size), np.zeros(size), *expected.values()]), axis=0)
        is_clear = (order[-1] - order[-2] > 1e-5) & (order[-1] > 1e-5)
        winners = (
            np.full(size, VOID)
            if not expected
            else np.array(list(expected))[np.stack(list(expected.values())).argmax(0)]
        )
        np.testing.assert_array_equal(smoothed[is_clear], winners[is_clear])
        assert (smoothed[order[-1] == 0] == VOID).all()


def test_the_average_by_hand():
    # One pixel, w = 0.5: class 1 for 2 frames, then 2. Scores: 1: 1, 1, 0.5 / 2: 0, 0, 0.5 -> equal, the smaller wins;
    # then 2 again: 1: 0.25, 2: 0.75; then void: both are halved.
    here = np.zeros((1, 1, 2), np.float32)
    half = np.full((1, 1), 0.5, np.float32)
    scores, found = scores_of(line(1)[0]), []
    for label in (1, 2, 2, VOID):
        scores, smoothed = average_along_flow(scores, line(label)[0], here, half)
        found.append((smoothed.item(), [score.item() for score in scores.values()]))
    assert found == [(1, [1]), (1, [0.5, 0.5]), (2, [0.25, 0.75]), (2, [0.125, 0.375])]
    assert list(scores) == [1, 2]


def test_nothing_known_of_a_pixel_leaves_it_ignored():
    scores = scores_of(line(VOID)[0])
    _, smoothed = average_along_flow(
        scores, line(VOID)[0], np.zeros((1, 1, 2), np.float32), np.zeros((1, 1), np.float32)
    )
    assert smoothed.tolist() == [[VOID]]


def test_a_class_of_long_ago_is_forgotten():
    here, half = np.zeros((1, 1, 2), np.float32), np.full((1, 1), 0.5, np.float32)
    scores = scores_of(line(7)[0])
    for _ in range(8):  # 0.5 ** 8 = 1/256 is still kept
        scores, _ = average_along_flow(scores, line(1)[0], here, half)
    assert list(scores) == [1, 7]
    scores, _ = average_along_flow(scores, line(1)[0], here, half)
    assert list(scores) == [1]


def moving_disc(length: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc that moves right over a textured ground; pictures (T, H, W, 3) and labels (T, H, W)."""
    rng = np.random.default_rng(3)
    ground, skin = (cv2.GaussianBlur(rng.random((80, 160)).astype(np.float32), (0, 0), 2) for _ in range(2))
    y, x = np.mgrid[:80, :160]
    images, labels = [], []
    for t in range(length):
        is_disc = (x - 30 - step * t) ** 2 + (y - 40) ** 2 <= 20**2
        picture = np.where(is_disc, np.roll(skin, step * t, axis=1) - 0.35, ground)
        images.append(np.repeat((picture * 500).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
        labels.append(is_disc)
    return np.stack(images), np.stack(labels).astype(np.uint8)


def test_flow_keeps_the_label_on_a_moving_disc_where_the_base_flickers_and_static_smoothing_cannot():
    images, truth = moving_disc(12, step=5)
    base = truth.copy()
    base[6:8] = 0  # the disc is missed in two frames
    followed = joined(FlowSmoother(weight=0.9).smooth(windows_of(base, [5, 5, 2], images)))
    static = joined(StaticSmoother(2).smooth(windows_of(base, [5, 5, 2], images)))

    def iou(labels, t):
        return (labels[t] & truth[t]).sum() / (labels[t] | truth[t]).sum()

    assert min(iou(followed, t) for t in range(12)) > 0.8
    assert max(iou(static, t) for t in (6, 7)) < 0.6


def test_flow_smoothing_leaves_no_trace_of_window_borders_and_starts_anew_with_every_clip():
    images, labels = moving_disc(7, step=4)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(labels.shape) < 0.2, 2, labels).astype(np.uint8)
    smoother = FlowSmoother()
    whole = joined(smoother.smooth(windows_of(labels, [7], images)))
    np.testing.assert_array_equal(joined(smoother.smooth(windows_of(labels, [1, 3, 2, 1], images))), whole)
    assert (whole != labels).any()
    np.testing.assert_array_equal(whole[0], labels[0])


def test_flow_smoothing_does_not_reach_over_a_cut():
    images, labels = np.zeros((2, 40, 40, 3), np.uint8), np.zeros((2, 40, 40), np.uint8)
    images[1], labels[1] = 255, 1  # exp(-255 / 20) is nothing
    np.testing.assert_array_equal(joined(FlowSmoother(weight=0.9).smooth(windows_of(labels, [2], images))), labels)


@pytest.mark.parametrize("size", [(8, 8), (1, 5), (33, 47)])
def test_flow_smoothing_takes_tiny_grey_and_odd_frames(size):
    labels = np.zeros((4, *size), np.uint8)
    labels[2] = 6  # grey frames: flow 0, confidence 1, weight 0.8 -> 0.8 for class 0
    assert (joined(FlowSmoother(weight=0.8).smooth(windows_of(labels, [4]))) == 0).all()


def test_wide_labels_are_smoothed_along_flow_too():
    labels = np.full((3, 8, 8), 40_000, np.uint16)
    labels[1] = 65535
    smoothed = joined(FlowSmoother(ignore_index=65535).smooth(windows_of(labels, [3])))
    assert smoothed.dtype == np.uint16
    assert (smoothed == 40_000).all()


@pytest.mark.parametrize(("weight", "tolerance"), [(1.0, 20), (-0.1, 20), (0.8, 0), (0.8, float("nan"))])
def test_weights_and_tolerances_that_make_no_average_are_refused(weight, tolerance):
    with pytest.raises(SettingsError, match=r"weight in \[0, 1\) and a tolerance above 0"):
        FlowSmoother(weight=weight, tolerance=tolerance)
