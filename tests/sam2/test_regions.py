from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sam2vss.sam2.regions import remove_small_regions, remove_specks


def drawn(*lines: str) -> Tensor:
    return torch.tensor([[[cell == "#" for cell in line] for line in lines]])


def picture(mask: Tensor) -> list[str]:
    return ["".join("#" if cell else "." for cell in line) for line in mask.tolist()]


def cleaned(min_area: int, *lines: str) -> list[str]:
    return picture(remove_small_regions(drawn(*lines), min_area).masks[0])


def regions(mask: np.ndarray) -> Iterator[set[tuple[int, int]]]:
    """8-connected components by flood filling, in the order of their first pixels."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        region, waiting = {start}, [start]
        while waiting:
            y, x = waiting.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            region |= near
            waiting += near
        yield region


def literal_clean(mask: np.ndarray, min_area: int) -> np.ndarray:
    mask = mask.copy()
    for hole in list(regions(~mask)):
        if len(hole) < min_area:
            mask[tuple(np.array(sorted(hole)).T)] = True
    islands = list(regions(mask))
    small = [island for island in islands if len(island) < min_area]
    if small and len(small) == len(islands):
        small.remove(max(islands, key=len))
    for island in small:
        mask[tuple(np.array(sorted(island)).T)] = False
    return mask


def test_islands_below_the_area_go_and_those_of_that_area_stay():
    lines = ("###...#", "###....", "....##.")
    assert cleaned(2, *lines) == ["###....", "###....", "....##."]
    assert cleaned(3, *lines) == ["###....", "###....", "......."]


def test_holes_below_the_area_are_filled_and_those_of_that_area_stay():
    lines = ("########", "#.##..##", "########", "........", "........")
    assert cleaned(2, *lines)[1] == "####..##"
    assert cleaned(3, *lines)[1] == "########"


def test_pixels_that_touch_at_a_corner_belong_together():
    lines = ("#....", ".#...", ".....", ".....", "...##")
    assert cleaned(2, *lines) == list(lines)


def test_holes_are_filled_before_islands_are_looked_for():
    ring = ("#####", "#...#", "#.#.#", "#...#", "#####")  # a hole of 8 pixels around an island of 1
    assert cleaned(9, *ring) == ["#####"] * 5
    assert cleaned(8, *ring) == ["#####", "#...#", "#...#", "#...#", "#####"]


def test_a_sliver_between_mask_and_edge_is_a_hole():
    assert cleaned(3, "..####", "######", "######") == ["######"] * 3


def test_of_a_mask_of_small_islands_the_first_largest_stays():
    lines = ("#......", ".......", "..##.##", ".......", ".......")
    assert cleaned(5, *lines) == [".......", ".......", "..##...", ".......", "......."]


@pytest.mark.parametrize("is_inside", [True, False])
def test_full_and_empty_masks_stay_unless_the_frame_itself_is_small(is_inside: bool):
    masks = torch.full((1, 4, 5), is_inside)

    unchanged = remove_small_regions(masks, 20)
    assert torch.equal(unchanged.masks, masks)
    assert unchanged.is_unchanged.tolist() == [True]
    assert remove_small_regions(masks, 21).masks.all()  # a background of 20 pixels is a hole, as Meta's rule has it


def test_masks_are_told_apart_that_were_changed():
    masks = torch.cat([drawn("###...", "######", "......"), drawn("###..#", "###...", "......")])
    before = masks.clone()

    result = remove_small_regions(masks, 2)

    assert result.is_unchanged.tolist() == [True, False]
    assert torch.equal(masks, before)
    assert remove_small_regions(masks[:0], 2).masks.shape == (0, 3, 6)


@given(seed=st.integers(0, 10**6), min_area=st.integers(1, 12), share=st.sampled_from([0.2, 0.5, 0.8]))
def test_small_regions_equal_flood_filling(seed: int, min_area: int, share: float):
    masks = np.random.default_rng(seed).uniform(size=(3, 9, 11)) < share

    result = remove_small_regions(torch.from_numpy(masks), min_area)

    expected = np.stack([literal_clean(mask, min_area) for mask in masks])
    # of islands of the same size either may stay: then only the number of pixels is fixed
    assert result.masks.sum((1, 2)).tolist() == expected.sum((1, 2)).tolist()
    is_clear = [max(map(len, regions(mask)), default=99) >= min_area for mask in expected]
    assert np.array_equal(result.masks.numpy()[is_clear], expected[is_clear])
    assert result.is_unchanged.tolist() == [np.array_equal(a, b) for a, b in zip(masks, expected, strict=True)]


def test_specks_up_to_the_size_turn_to_plus_and_minus_ten():
    logits = torch.tensor([[[5.0, 5, 5, -1], [5, -2, 5, -1], [5, 5, 5, -1], [-1, -1, -1, -1], [3, -1, -1, -1]]])

    # the hole of one cell and the island of one cell; the background of 10 cells and the ring of 8 stay
    expected = logits.clone()
    expected[0, 1, 1], expected[0, 4, 0] = 10.0, -10.0
    assert torch.equal(remove_specks(logits, 1), expected)
    assert remove_specks(logits, 8)[0, 0, 0] == -10.0
    assert remove_specks(logits, 7)[0, 0, 0] == 5.0


def test_an_island_in_a_filled_hole_vanishes_as_both_are_found_in_the_mask_that_came():
    logits = torch.ones(1, 5, 5)
    logits[0, 1:4, 1:4] = -1
    logits[0, 2, 2] = 1

    filled = remove_specks(logits, 8)

    assert filled[0, 2, 2] == -10.0
    assert (filled[0, 1, 1:4] == 10.0).all()


def test_a_logit_of_zero_lies_outside_and_half_precision_comes_back_as_single():
    logits = torch.zeros(1, 3, 3, dtype=torch.bfloat16)
    logits[0, 1, 1] = 2

    assert torch.equal(
        remove_specks(logits, 1), torch.zeros(3, 3).index_put((torch.tensor(1),) * 2, torch.tensor(-10.0))[None]
    )
    assert remove_specks(logits, 0)[0, 1, 1] == 2
