"""Void base labels: how they are filled, by plain loops too, and that a source goes on where it was interrupted."""

from itertools import pairwise

import numpy as np
import pytest

from sam2vss.errors import SettingsError
from sam2vss.filling import (
    FilledLabels,
    fill_before_votes,
    fill_from_previous,
    fill_nearest,
    fill_rest,
    void_shares,
)
from sam2vss.interfaces import FollowsFrames
from sam2vss.refiner import ArrayLabels
from sam2vss.types import BaseLabels, Frame, LabelSpace

VOID = 255


def row(*labels: int) -> np.ndarray:
    return np.array([labels], np.uint8)


def frames(count: int, size: tuple[int, int], start: int = 0) -> list[Frame]:
    return [Frame(np.zeros((*size, 3), np.uint8), t, f"{t:08d}") for t in range(start, start + count)]


# --- nearest ---------------------------------------------------------------------------------------------------------


def test_void_takes_the_nearest_label_and_labels_stay():
    assert fill_nearest(row(3, VOID, VOID, VOID, VOID, 7), VOID).tolist() == [[3, 3, 3, 7, 7, 7]]
    assert fill_nearest(np.array([[1, VOID], [VOID, VOID], [2, 2]], np.uint8), VOID)[1, 1] == 2  # 1 away, not 1.41


def test_nearest_is_as_near_as_plain_loops_find():
    # the 5 x 5 mask is not Euclid's distance: up to 3.7 % farther was seen on maps of up to 150 x 200
    rng = np.random.default_rng(5)
    for share in (0.1, 0.03, 0.01):
        labels = np.full((17, 23), 65535, np.uint16)
        is_labelled = rng.random(labels.shape) < share
        labels[is_labelled] = np.arange(is_labelled.sum())  # every labelled pixel has a label of its own
        filled = fill_nearest(labels, 65535)
        ys, xs = np.nonzero(is_labelled)
        for y in range(17):
            for x in range(23):
                distances = np.hypot(ys - y, xs - x)
                assert distances[filled[y, x]] <= 1.04 * distances.min()


@pytest.mark.parametrize("labels", [np.full((2, 3), VOID, np.uint8), np.ones((2, 3), np.uint8)])
def test_a_frame_without_void_or_without_labels_stays_and_is_a_copy(labels):
    filled = fill_nearest(labels, VOID)
    assert filled.tolist() == labels.tolist()
    assert not np.shares_memory(filled, labels)


def test_wide_labels_have_their_own_void():
    labels = np.array([[300, 65535, 255]], np.uint16)
    assert fill_nearest(labels, 65535).tolist() in ([[300, 300, 255]], [[300, 255, 255]])
    assert fill_nearest(labels, 65535).dtype == np.uint16


# --- previous --------------------------------------------------------------------------------------------------------


def test_void_takes_the_label_of_the_frame_before_and_then_the_nearest():
    before = row(1, VOID, 2, 3)
    assert fill_from_previous(row(VOID, VOID, VOID, 9), before, VOID).tolist() == [[1, 1, 2, 9]]
    assert fill_from_previous(row(VOID, 4), None, VOID).tolist() == [[4, 4]]
    assert fill_from_previous(row(VOID, 4), row(1, 2, 3), VOID).tolist() == [[4, 4]]  # another size
    assert fill_from_previous(row(VOID, VOID), row(5, 6), VOID).tolist() == [[5, 6]]


def test_the_rest_is_filled_frame_by_frame():
    labels = np.stack([row(VOID, 1), row(2, VOID)])
    assert fill_rest(labels, VOID).tolist() == [[[1, 1]], [[2, 2]]]


def test_shares_are_counted_a_frame_each():
    labels = np.stack([row(VOID, 1, 1, 1), row(VOID, VOID, VOID, VOID), row(0, 0, 0, 0)])
    assert void_shares(labels, VOID).tolist() == [0.25, 1.0, 0.0]


# --- the source ------------------------------------------------------------------------------------------------------

HOLES = np.stack([row(1, VOID, 2, 2), row(VOID, VOID, 3, 3), row(VOID, 4, VOID, VOID), row(VOID, VOID, VOID, VOID)])
SPACE = LabelSpace.numbered(9)


class Unfilled(ArrayLabels):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(HOLES, SPACE)
        self.asked: list[str] = []

    def pass_over(self, clip_name: str, frames: list[Frame]) -> None:
        self.asked.append(f"{clip_name} {frames[0].index}")


def test_nearest_fills_every_frame_by_itself_and_says_what_was_void():
    filled = FilledLabels(Unfilled(), "nearest").labels_for("clip", frames(4, (1, 4)))
    assert filled.labels[2].tolist() == [[4, 4, 4, 4]]
    assert filled.labels[3].tolist() == [[VOID] * 4]  # nothing to take
    assert filled.void_share is not None
    assert filled.void_share.tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("borders", [[0, 4], [0, 1, 4], [0, 2, 3, 4], [0, 1, 2, 3, 4]])
def test_previous_goes_on_over_windows_whether_labelled_or_passed_over(borders):
    whole = FilledLabels(Unfilled(), "previous").labels_for("clip", frames(4, (1, 4))).labels
    middle = int(whole[0, 0, 1])  # 1 or 2, both are as near
    assert whole.tolist() == [[[1, middle, 2, 2]], [[1, middle, 3, 3]], [[1, 4, 3, 3]], [[1, 4, 3, 3]]]
    for skipped in range(len(borders) - 1):
        source = FilledLabels(Unfilled(), "previous")
        assert isinstance(source, FollowsFrames)
        for number, (start, stop) in enumerate(pairwise(borders)):
            window = frames(stop - start, (1, 4), start)
            if number == skipped:
                source.pass_over("clip", window)
            else:
                assert source.labels_for("clip", window).labels.tolist() == whole[start:stop].tolist()


def test_another_clip_and_frame_0_begin_anew():
    source = FilledLabels(Unfilled(), "previous")
    source.labels_for("clip", frames(4, (1, 4)))
    again = source.labels_for("clip", frames(1, (1, 4))).labels
    assert again.tolist() == FilledLabels(Unfilled(), "previous").labels_for("clip", frames(1, (1, 4))).labels.tolist()
    other = source.labels_for("other", frames(1, (1, 4), 3)).labels
    assert other.tolist() == [[[VOID] * 4]]  # nothing before it


def test_a_source_that_follows_frames_is_shown_them_unless_it_is_asked_for_labels():
    source = Unfilled()
    FilledLabels(source, "nearest").pass_over("clip", frames(2, (1, 4), 1))
    FilledLabels(source, "previous").pass_over("clip", frames(1, (1, 4)))
    FilledLabels(ArrayLabels(HOLES, SPACE), "nearest").pass_over("clip", frames(1, (1, 4)))
    assert source.asked == ["clip 1"]


def test_shares_that_a_source_knows_and_probabilities_are_passed_on():
    scores, shares = np.ones((1, 9, 1, 1), np.float32), np.array([0.5])

    class Knowing(Unfilled):
        def labels_for(self, clip_name, frames):
            return BaseLabels(HOLES[:1], scores, shares)

    for policy in ("nearest", "previous"):
        found = FilledLabels(Knowing(), policy).labels_for("clip", frames(1, (1, 4)))
        assert (found.probabilities is scores, found.void_share is shares) == (True, True)


def test_policies_that_fill_nothing_before_the_vote_leave_the_source_and_others_are_refused():
    source = Unfilled()
    assert fill_before_votes(source, "keep") is source
    assert fill_before_votes(source, "vote") is source
    assert isinstance(fill_before_votes(source, "nearest"), FilledLabels)
    with pytest.raises(SettingsError, match="'drop' is unknown, expected keep, nearest, previous, vote"):
        fill_before_votes(source, "drop")
    with pytest.raises(SettingsError, match="'vote' leaves base labels as they are, expected nearest or previous"):
        FilledLabels(source, "vote")


def test_check_and_finish_reach_the_source():
    source = FilledLabels(Unfilled(), "nearest")
    assert (source.check("clip", num_frames=4), source.label_space) == ("order", SPACE)
    with pytest.raises(Exception, match="has 3 frames and 4 label maps"):
        source.finish("clip", 3)
