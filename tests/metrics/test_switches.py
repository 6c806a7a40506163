"""Label switches under masklets."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.errors import MissingPredictionsError, SettingsError, ShapeError
from sam2vss.metrics.switches import SWITCH_STATISTICS, SwitchCounter, SwitchCounts, switch_bootstrap
from sam2vss.types import LabelSpace, MaskletWindow
from sam2vss.voting import count_frame_votes


def votes_of(classes: list[list[int | None]], num_classes: int = 3) -> np.ndarray:
    """One vote for the class of each masklet (column) in each frame (row); None is no vote. int64 (L, N, C)."""
    votes = np.zeros((len(classes), len(classes[0]), num_classes), np.int64)
    for t, row in enumerate(classes):
        for i, winner in enumerate(row):
            if winner is not None:
                votes[t, i, winner] = 1
    return votes


def test_switches_of_three_masklets():
    counter = SwitchCounter()
    counter.update(votes_of([[0, 1, 2], [1, 1, None], [0, 1, None]]), [10, 11, 12])
    # 0 -> 1 -> 0 switches twice in two steps, 1 1 1 never in two, the third is seen once and makes no step
    assert counter.counts() == SwitchCounts(masklets=3, switching=1, steps=4, switches=2)
    assert counter.counts().as_dict() == {
        "switches_per_masklet": 2 / 3,
        "switch_rate": 2 / 4,
        "switching_masklets": 1 / 3,
    }


def test_frames_without_the_masklet_are_passed_over():
    counter = SwitchCounter()
    counter.update(votes_of([[0], [None], [0], [None], [1]]), [0])
    assert counter.counts() == SwitchCounts(1, 1, steps=2, switches=1)


def test_a_masklet_that_goes_on_in_the_next_window_is_known_by_its_id():
    counter = SwitchCounter()
    counter.update(votes_of([[0, 1]]), [3, 4])
    counter.update(votes_of([[2, 1]]), [5, 3])  # 5 is new; 3 was 0 and is 1 now
    assert counter.counts() == SwitchCounts(masklets=3, switching=1, steps=1, switches=1)


def test_a_tie_goes_to_the_smallest_class_as_in_the_votes():
    counter = SwitchCounter()
    counter.update(np.array([[[2, 2, 0]], [[3, 1, 0]], [[0, 5, 5]]]), [0])  # classes 0, 0, 1
    assert counter.counts().switches == 1


def test_nothing_to_count_is_undefined():
    counter = SwitchCounter()
    counter.update(np.zeros((2, 0, 3), np.int64), [])
    counter.update(np.zeros((2, 1, 3), np.int64), [7])  # never over a labelled pixel
    assert counter.counts() == SwitchCounts()
    assert set(counter.counts().as_dict().values()) == {None}


def test_votes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"votes have shape \(2, 3, 4\), expected \(L, N, C\) with N = 2"):
        SwitchCounter().update(np.zeros((2, 3, 4), np.int64), [0, 1])
    with pytest.raises(ShapeError, match="votes of no classes"):
        SwitchCounter().update(np.zeros((2, 1, 0), np.int64), [0])


def test_masks_and_labels_make_switches():
    masks = np.zeros((1, 3, 1, 4), bool)  # one masklet of three pixels; three frames
    masks[0, :, 0, :3] = True
    labels = np.array([[[0, 0, 1, 1]], [[1, 0, 1, 0]], [[1, 255, 255, 0]]], np.uint8)  # majorities 0, 1, 1
    counter = SwitchCounter()
    counter.update(count_frame_votes(MaskletWindow.from_masks(masks), labels, LabelSpace.numbered(2)), [0])
    assert counter.counts() == SwitchCounts(1, 1, steps=2, switches=1)


@given(st.integers(0, 2**32 - 1))
def test_counts_equal_plain_loops_over_masklets(seed: int):
    rng = np.random.default_rng(seed)
    counter, classes_of = SwitchCounter(), {}
    for _ in range(int(rng.integers(1, 4))):
        length, count, num_classes = (int(n) for n in rng.integers(1, 5, 3))
        ids = rng.permutation(6)[:count]
        votes = rng.integers(0, 3, (length, count, num_classes)) * (rng.random((length, count, 1)) < 0.7)
        counter.update(votes, ids)
        for i, number in enumerate(ids):
            for t in range(length):
                pixels = [int(n) for n in votes[t, i]]
                if sum(pixels):
                    classes_of.setdefault(int(number), []).append(pixels.index(max(pixels)))
    switches = {i: sum(a != b for a, b in pairwise(row)) for i, row in classes_of.items()}
    assert counter.counts() == SwitchCounts(
        masklets=len(classes_of),
        switching=sum(count > 0 for count in switches.values()),
        steps=sum(len(row) - 1 for row in classes_of.values()),
        switches=sum(switches.values()),
    )


@pytest.mark.parametrize("statistic", SWITCH_STATISTICS)
def test_differences_are_of_pooled_counts_and_drawn_over_clips(statistic: str):
    base = {"a": SwitchCounts(4, 2, 40, 8), "b": SwitchCounts(6, 1, 50, 3), "c": SwitchCounts()}
    refined = {"a": SwitchCounts(4, 1, 40, 1), "b": SwitchCounts(6, 0, 50, 0), "c": SwitchCounts()}
    found = switch_bootstrap(base, refined, statistic)
    expected = {
        "switches_per_masklet": 1 / 10 - 11 / 10,
        "switch_rate": 1 / 90 - 11 / 90,
        "switching_masklets": 1 / 10 - 3 / 10,
    }
    assert found.difference == pytest.approx(expected[statistic], abs=1e-15)
    assert found.clips == 2  # c has no masklet
    assert found.interval is not None
    assert found.interval[1] < 0


def test_sides_must_have_the_same_clips_and_a_known_statistic():
    with pytest.raises(MissingPredictionsError, match="clip 'b' is only in one"):
        switch_bootstrap({"a": SwitchCounts()}, {"a": SwitchCounts(), "b": SwitchCounts()})
    with pytest.raises(SettingsError, match="unknown statistic 'switches'; choose one of switches_per_masklet"):
        switch_bootstrap({}, {}, "switches")
    assert switch_bootstrap({}, {}).clips == 0
