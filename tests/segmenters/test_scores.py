"""Class scores to labels, in groups of classes and from overlapping patches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.segmenters import scores
from sam2vss.segmenters.preprocessing import Patches
from sam2vss.segmenters.scores import argmax_at_size, merge_patches


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
