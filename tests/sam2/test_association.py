import itertools

import pytest
import torch
from torch import Tensor

from sam2vss.sam2.association import (
    MatchRule,
    appearances,
    assign,
    centre_boxes,
    mask_overlaps,
    match_scores,
    move_masks,
)


def rectangle(left: int, top: int, right: int, bottom: int, side: int = 16) -> Tensor:
    """Mask of the half-open rectangle, bool (side, side)."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def slow_assign(scores: Tensor) -> list[int]:
    """All pairs by descending score; of equal ones the first track and candidate."""
    chosen, taken = [-1] * scores.shape[0], set()
    pairs = itertools.product(range(scores.shape[0]), range(scores.shape[1]))
    for track, candidate in sorted(pairs, key=lambda pair: (-float(scores[pair]), pair)):
        if chosen[track] < 0 and candidate not in taken and scores[track, candidate] > -torch.inf:
            chosen[track] = candidate
            taken.add(candidate)
    return chosen


def slow_score(overlap: float, likeness: float, quality: float, is_lost: bool, rule: MatchRule) -> float:
    if overlap < (rule.min_overlap_lost if is_lost else rule.min_overlap):
        return -torch.inf
    if is_lost and likeness < rule.min_likeness_lost:
        return -torch.inf
    return overlap + rule.likeness_weight * likeness + rule.quality_weight * quality


def test_boxes_are_centres_and_sides_as_fractions_of_the_picture():
    masks = torch.stack([rectangle(4, 8, 8, 16), torch.zeros(16, 16, dtype=torch.bool)])
    # centre (4 + 8) / 2 / 16 = 0.375 and (8 + 16) / 2 / 16 = 0.75, sides 4 / 16 and 8 / 16
    assert centre_boxes(masks).tolist() == [[0.375, 0.75, 0.25, 0.5], [0, 0, 0, 0]]
    assert centre_boxes(masks[:0]).shape == (0, 4)


def test_boxes_of_oblong_grids_are_fractions_of_each_side():
    mask = torch.zeros(1, 8, 16, dtype=torch.bool)
    mask[0, 2:4, 4:8] = True
    assert centre_boxes(mask).tolist() == [[0.375, 0.375, 0.25, 0.25]]


def test_a_mask_moves_with_its_box():
    old, new = rectangle(2, 2, 6, 6), rectangle(7, 4, 11, 8)
    logits = torch.where(old, 8.0, -8.0)[None]
    moved = move_masks(logits, centre_boxes(old[None]), centre_boxes(new[None]))
    assert torch.equal(moved[0], new)


def test_a_mask_stretches_with_its_box():
    old, new = rectangle(4, 4, 8, 8), rectangle(2, 4, 10, 8)
    logits = torch.where(old, 8.0, -8.0)[None]
    moved = move_masks(logits, centre_boxes(old[None]), centre_boxes(new[None]))
    assert torch.equal(moved[0], new)


def test_a_mask_that_moves_out_of_the_picture_is_cut_off_there():
    old = rectangle(10, 2, 14, 6)
    box = centre_boxes(old[None])
    logits = torch.where(old, 8.0, -8.0)[None]
    moved = move_masks(logits, box, box + torch.tensor([[4 / 16, 0, 0, 0]]))  # columns 10..13 to 14..17
    assert torch.equal(moved[0], rectangle(14, 2, 16, 6))
    assert not move_masks(logits, box, box + torch.tensor([[1.0, 0, 0, 0]])).any()


def test_nothing_and_empty_masks_can_be_moved():
    assert move_masks(torch.zeros(0, 16, 16), torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 16, 16)
    assert not move_masks(torch.full((1, 16, 16), -8.0), torch.zeros(1, 4), torch.zeros(1, 4)).any()


def test_overlaps_are_shared_over_united_cells():
    tracks = torch.stack([rectangle(0, 0, 4, 4), torch.zeros(16, 16, dtype=torch.bool)])
    candidates = torch.stack([rectangle(0, 0, 4, 4), rectangle(2, 0, 6, 4), rectangle(8, 8, 9, 9), tracks[1]])
    # 4x4 against 4x4 shifted by two columns: 8 shared, 24 united
    found = mask_overlaps(tracks, candidates)
    assert found.flatten().tolist() == pytest.approx([1, 1 / 3, 0, 0, 0, 0, 0, 0])


def test_overlaps_equal_counting_pair_by_pair():
    masks = torch.rand(9, 12, 20, generator=torch.Generator().manual_seed(1)) > 0.6
    found = mask_overlaps(masks[:4], masks[4:])
    for i, j in itertools.product(range(4), range(5)):
        left, right = masks[i], masks[4 + j]
        assert found[i, j].item() == pytest.approx(((left & right).sum() / (left | right).sum()).item(), abs=1e-6)


def test_appearance_is_the_mean_feature_under_the_mask_seen_from_the_pictures_mean():
    low = torch.zeros(1, 2, 2, 2)
    low[0, 0] = torch.tensor([[3.0, 0.0], [0.0, 1.0]])  # mean 1
    low[0, 1] = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # mean 1
    masks = torch.stack([rectangle(0, 0, 8, 8), rectangle(8, 0, 16, 8), torch.zeros(16, 16, dtype=torch.bool)])
    found = appearances(masks, low)
    # cell (0, 0): (3 - 1, 4 - 1) = (2, 3); cell (0, 1): (-1, -1); both as unit vectors
    expected = [2 / 13**0.5, 3 / 13**0.5, -(0.5**0.5), -(0.5**0.5), 0, 0]
    assert found.flatten().tolist() == pytest.approx(expected)
    assert appearances(masks[:0], low).shape == (0, 2)


def test_appearance_weighs_cells_by_how_much_of_them_the_mask_covers():
    low = torch.tensor([[4.0, 0.0], [0.0, 0.0]])[None, None].repeat(1, 2, 1, 1)
    low[0, 1] = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    mask = rectangle(0, 0, 12, 8)  # all of cell (0, 0), half of cell (0, 1)
    # means 1 and 1; cells (3, -1) and (-1, 3); (1 * (3, -1) + 0.5 * (-1, 3)) / 1.5 = (5/3, 1/3)
    assert appearances(mask[None], low)[0].tolist() == pytest.approx([5 / 26**0.5, 1 / 26**0.5])


def test_scores_equal_the_rule_applied_pair_by_pair():
    generator = torch.Generator().manual_seed(3)
    overlap, likeness = torch.rand(7, 11, generator=generator), torch.rand(7, 11, generator=generator) * 2 - 1
    quality, is_lost = torch.rand(11, generator=generator), torch.arange(7) % 2 == 1
    rule = MatchRule(
        min_overlap=0.5, min_overlap_lost=0.2, min_likeness_lost=0.1, likeness_weight=0.3, quality_weight=0.7
    )
    found = match_scores(overlap, likeness, quality, is_lost, rule)
    assert torch.isfinite(found).any()
    for i, j in itertools.product(range(7), range(11)):
        expected = slow_score(overlap[i, j].item(), likeness[i, j].item(), quality[j].item(), bool(is_lost[i]), rule)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-6)


def test_assignment_equals_walking_through_all_pairs_by_descending_score():
    generator = torch.Generator().manual_seed(5)
    for tracks, candidates in ((1, 1), (5, 5), (4, 9), (9, 4), (20, 30)):
        scores = torch.rand(tracks, candidates, generator=generator)
        scores[torch.rand(tracks, candidates, generator=generator) < 0.4] = -torch.inf
        assert assign(scores).tolist() == slow_assign(scores)


def test_of_equal_scores_the_first_track_and_the_first_candidate_win():
    assert assign(torch.ones(3, 3)).tolist() == [0, 1, 2]
    scores = torch.randint(0, 3, (12, 12), generator=torch.Generator().manual_seed(7)).float()
    assert assign(scores).tolist() == slow_assign(scores)


def test_the_better_pair_goes_first_even_where_another_track_stays_alone():
    # track 0 likes candidate 0 best, but candidate 0 belongs to track 1, and candidate 1 is out of question for 0
    assert assign(torch.tensor([[0.8, -torch.inf], [0.9, 0.85]])).tolist() == [-1, 0]


def test_a_candidate_serves_one_track_and_nothing_serves_none():
    assert assign(torch.tensor([[0.9], [0.8]])).tolist() == [0, -1]
    assert assign(torch.zeros(2, 0)).tolist() == [-1, -1]
    assert assign(torch.zeros(0, 3)).tolist() == []
    assert assign(torch.full((2, 2), -torch.inf)).tolist() == [-1, -1]


def test_scores_leave_the_matrix_they_were_given_alone():
    scores = torch.tensor([[0.9, 0.1]])
    assign(scores)
    assert scores.tolist() == torch.tensor([[0.9, 0.1]]).tolist()
