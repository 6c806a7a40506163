"""Paired bootstrap of scores that are computed from sums over clips."""

import math

import numpy as np
import pytest

from sam2vss.errors import SettingsError, ShapeError
from sam2vss.metrics import ClipCounts, VideoSegMetrics, paired_bootstrap
from sam2vss.metrics.bootstrap_sums import bootstrap_sums, divide_sums


def test_two_clips_have_four_equally_likely_draws():
    base, other = np.array([[0, 1], [0, 1]]), np.array([[1, 1], [0, 1]])
    found = bootstrap_sums("score", base, other, divide_sums, n=4000)
    # draws aa, ab, ba, bb give differences 1, 1/2, 1/2, 0
    assert found.difference == 0.5
    assert found.mean == pytest.approx(0.5, abs=0.02)
    assert found.interval == (0, 1)
    assert (found.statistic, found.clips, found.resamples) == ("score", 2, 4000)


def test_the_same_clips_are_drawn_on_both_sides():
    sums = np.random.default_rng(0).random((6, 2)) + 0.1
    found = bootstrap_sums("score", sums, sums, divide_sums)
    assert (found.difference, found.interval) == (0, (0, 0))


def accuracy_sums(counts: dict[str, ClipCounts]) -> np.ndarray:
    return np.array([[np.trace(clip.confusion), clip.confusion.sum()] for clip in counts.values()])


def test_it_agrees_with_the_bootstrap_of_scores_against_truth():
    rng, sides = np.random.default_rng(0), (VideoSegMetrics(3), VideoSegMetrics(3))
    for clip in "abcde":
        truth = rng.integers(0, 3, (2, 4, 4))
        for metrics, noise in zip(sides, (0.5, 0.2), strict=True):
            metrics.update(np.where(rng.random(truth.shape) < noise, 0, truth), truth, clip=clip)
    base, other = (metrics.counts for metrics in sides)
    known = paired_bootstrap(base, other, "pixel_accuracy", seed=4, n=100)
    found = bootstrap_sums("pixel_accuracy", accuracy_sums(base), accuracy_sums(other), divide_sums, seed=4, n=100)
    assert found.interval == pytest.approx(known.interval, abs=1e-12)
    assert found.difference == pytest.approx(known.difference, abs=1e-12)


def test_clips_that_add_nothing_on_either_side_are_not_counted():
    base, other = np.array([[1, 2], [0, 0], [0, 0]]), np.array([[2, 2], [0, 0], [1, 1]])
    assert bootstrap_sums("score", base, other, divide_sums).clips == 2


def test_undefined_scores_have_no_interval():
    nothing = bootstrap_sums("score", np.zeros((0, 2)), np.zeros((0, 2)), divide_sums)
    assert math.isnan(nothing.difference)
    assert (nothing.interval, nothing.clips) == (None, 0)
    undefined = bootstrap_sums("score", np.array([[1, 0], [1, 0]]), np.array([[1, 1], [1, 1]]), divide_sums)
    assert math.isnan(undefined.difference)
    assert (undefined.interval, undefined.resamples) == (None, 0)


def test_misfits_are_refused():
    with pytest.raises(ShapeError, match=r"\(1, 2\) and \(2, 2\)"):
        bootstrap_sums("score", np.zeros((1, 2)), np.zeros((2, 2)), divide_sums)
    with pytest.raises(SettingsError, match="at least 1, found 0"):
        bootstrap_sums("score", np.zeros((1, 2)), np.zeros((1, 2)), divide_sums, n=0)
