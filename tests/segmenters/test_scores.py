"""Class scores to labels, in groups of classes and from overlapping patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.errors import WeightsError
from sam2vss.segmenters import scores
from sam2vss.segmenters.preprocessing import Patches
from sam2vss.segmenters.scores import argmax_at_size, check_finite, merge_patches


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_classes_in_groups_win_as_they_do_all_at_once(classes, height, width, group, seed):
    values = torch.randint(0, 3, (classes, 2, 3), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "MAX_UPSAMPLED_VALUES", group * height * width)
        found = argmax_at_size(values, (height, width))
    whole = torch.nn.functional.interpolate(values[None], (height, width), mode="bilinear")[0]
    assert torch.equal(found, whole.argmax(0))


def test_patches_are_averaged_where_they_overlap():
    # Two 2-pixel patches over 3 pixels: 1 1 . and . 5 5 -> 1, (1 + 5) / 2, 5.
    values = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 5.0)])
    wide = merge_patches(values, Patches(2, (0, 1), along_height=False), (2, 3))
    assert wide.tolist() == [[[[1, 3, 5], [1, 3, 5]]]]
    high = merge_patches(values, Patches(2, (0, 1), along_height=True), (3, 2))
    assert high.tolist() == [[[[1, 1], [3, 3], [5, 5]]]]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_two_steps_by_way_of_the_network_input_equal_two_resizes(classes, side, group, seed):
    values = torch.rand((classes, 2, 3), generator=torch.Generator().manual_seed(seed))  # no ties: two roundings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "MAX_UPSAMPLED_VALUES", group * 8 * 12)
        found = argmax_at_size(values, (side, side + 2), by_way_of=(8, 12))
    first = torch.nn.functional.interpolate(values[None], (8, 12), mode="bilinear")
    whole = torch.nn.functional.interpolate(first, (side, side + 2), mode="bilinear")[0]
    assert torch.equal(found, whole.argmax(0))


def test_the_way_changes_labels_near_edges():
    values = torch.tensor([[[0.0, 1.0]], [[0.3, 0.3]]])  # along one row: class 1, then class 0
    # In one step pixel 3 of 9 lies at 3.5 * 2/9 - 0.5 = 0.278 of the way from 0 to 1, below 0.3. By way of the three
    # values 0, 0.5, 1 it lies at 3.5 / 3 - 0.5 = 0.667 of the way from 0 to 0.5, above.
    assert argmax_at_size(values, (1, 9)).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0]]
    assert argmax_at_size(values, (1, 9), by_way_of=(1, 3)).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0, 0]]


def test_scores_that_are_no_numbers_are_refused_with_what_may_help():
    check_finite(torch.zeros(2), "net", torch.float32)
    with pytest.raises(WeightsError, match=r"net gave scores .* torch.float16: try --dtype float32"):
        check_finite(torch.tensor([0.0, torch.inf]), "net", torch.float16)
    with pytest.raises(WeightsError, match=r"torch.float32: the weights are damaged"):
        check_finite(torch.tensor([torch.nan]), "net", torch.float32)
