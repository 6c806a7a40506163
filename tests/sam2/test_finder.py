import numpy as np
import pytest
import torch

from sam2vss.sam2.candidates import find_candidates
from sam2vss.sam2.crops import find_crop_candidates
from sam2vss.sam2.finder import MIN_NEW_SHARE, MaskFinder
from sam2vss.sam2.model import FrameFeatures, Sam2Network

SIZE = (90, 130)
LOOSE = {"points": 3, "pred_iou": 0.0, "stability": 0.01, "stability_offset": 0.3, "box_nms": 0.9}


def test_masks_of_a_bare_frame_are_the_automatic_masks(
    network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    found = MaskFinder(network, **LOOSE).find(features[0], frames[0])

    expected = find_candidates(network, features[0], SIZE, 3).select(0.0, 0.01, 0.3, 0.9)
    assert len(found) == 5
    assert torch.equal(found.masks, expected.masks)
    assert torch.equal(found.rows, expected.rows)


def test_in_crops_too_covered_pixels_are_no_prompts(
    network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    finder = MaskFinder(network, **LOOSE, crop_layers=1)
    covered = np.zeros(SIZE, bool)
    covered[:, :65] = True  # the left half

    assert (finder.find(features[0], frames[0]).points[:, 0] < 65).any()
    points = finder.find(features[0], frames[0], covered).points
    assert len(points) > 0
    assert (points[:, 0] >= 65).all()


def test_masks_that_lie_mostly_on_covered_pixels_are_left_out(
    network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    finder = MaskFinder(network, **LOOSE)
    covered = np.zeros(SIZE, bool)
    covered[:, :65] = True  # the left half

    found = finder.find(features[0], frames[0], covered)

    every = find_candidates(network, features[0], SIZE, 3)
    points = every.points[::3]
    outside = points[:, 0] >= 65
    assert 0 < int(outside.sum()) < 9
    assert set(map(tuple, found.points.tolist())) <= set(map(tuple, points[outside].tolist()))
    assert len(found) > 0
    for mask in found.masks:
        assert (mask & ~torch.from_numpy(covered)).sum() >= MIN_NEW_SHARE * mask.sum()


def test_nothing_is_found_where_everything_is_covered(
    network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    found = MaskFinder(network, **LOOSE).find(features[0], frames[0], np.ones(SIZE, bool))

    assert (len(found), found.masks.shape) == (0, (0, *SIZE))


@pytest.mark.parametrize("layers", [0, 1])
def test_small_regions_and_crops_are_options(
    layers: int, network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    found = MaskFinder(network, **LOOSE, min_area=40, crop_layers=layers).find(features[0], frames[0])

    if layers:
        candidates = find_crop_candidates(network, torch.from_numpy(frames[0]), 3, layers)
    else:
        candidates = find_candidates(network, features[0], SIZE, 3)
    expected = candidates.select(0.0, 0.01, 0.3, 0.9, min_area=40)
    assert torch.equal(found.masks, expected.masks)
    plain = candidates.select(0.0, 0.01, 0.3, 0.9)
    assert not torch.equal(found.masks, plain.masks)
