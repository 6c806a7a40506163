import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sam2vss.errors import ShapeError
from sam2vss.mask_runs import Runs, cut_runs, decode_runs, encode_runs, label_runs, mask_boxes, pool_runs
from sam2vss.types import encode_masks

SEEDS = st.integers(0, 2**32 - 1)


def random_masks(rng: np.random.Generator) -> np.ndarray:
    """Masks of any density, noisy or blocky, some empty, some full; bool (N, H, W)."""
    num_masks, height, width = rng.integers(0, 6), rng.integers(1, 40), rng.integers(1, 40)
    block = rng.integers(1, 9)
    noise = rng.random((num_masks, -(-height // block), -(-width // block))) < rng.random((num_masks, 1, 1))
    masks = noise.repeat(block, axis=1).repeat(block, axis=2)[:, :height, :width]
    for mask in masks:
        if rng.random() < 0.2:
            mask[:] = rng.random() < 0.5
    return masks


def fill(runs):
    """Masks from runs, one run at a time; bool (N, H, W)."""
    height, width = runs.size
    flat = np.zeros((runs.num_masks, width * height), int)
    for start, stop, owner in zip(runs.starts, runs.stops, runs.owners, strict=True):
        flat[owner, start:stop] += 1
    assert flat.max(initial=0) <= 1, "runs of one mask overlap"
    return flat.reshape(-1, width, height).transpose(0, 2, 1).astype(bool)


def test_runs_are_column_major_and_may_go_on_into_the_next_column():
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)  # columns: 01, 11, 10 -> positions 1..4
    runs = decode_runs(encode_masks(mask[None]), (2, 3))
    assert (runs.starts.tolist(), runs.stops.tolist(), runs.owners.tolist()) == ([1], [5], [0])
    assert runs.areas.tolist() == [4]


def test_a_string_is_decoded_as_the_format_says():
    # Counts 0 40 3 5 32: the first three as they are, then 5-40 = -35 and 32-3 = 29.
    # 0 -> "0"; 40 = 8 + 32*1 -> (8|32) (1) -> "X1"; 3 -> "3"; -35 = 29 + 32*(-2) -> (29|32) (30) -> "mN";
    # 29 = 29 + 32*0, as the sign bit of one digit would read -3 -> (29|32) (0) -> "m0".  (each digit + 48 is the byte)
    runs = decode_runs([{"size": [8, 10], "counts": "0X13mNm0"}], (8, 10))
    assert (runs.starts.tolist(), runs.stops.tolist()) == ([0, 43], [40, 48])


@given(SEEDS)
def test_decoding_equals_pycocotools_on_random_masks(seed):
    masks = random_masks(np.random.default_rng(seed))
    rles = encode_masks(masks)
    runs = decode_runs(rles, masks.shape[1:])
    np.testing.assert_array_equal(fill(runs), masks)
    expected = coco_mask.area(list(rles)).tolist() if rles else []
    assert runs.areas.tolist() == expected


def test_large_masks_with_counts_of_several_digits_are_decoded():
    masks = np.zeros((3, 1200, 2000), bool)
    masks[0, 600:, 1500:] = True
    masks[1, :, 999] = True
    masks[2, ::7, :] = True
    runs = decode_runs(encode_masks(masks), (1200, 2000))
    np.testing.assert_array_equal(fill(runs), masks)


def test_text_counts_as_json_holds_them_equal_bytes():
    mask = np.eye(9, dtype=bool)[None]
    (rle,) = encode_masks(mask)
    runs = decode_runs([{"size": [9, 9], "counts": rle["counts"].decode()}], (9, 9))
    np.testing.assert_array_equal(fill(runs), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (b"X", "end too early"),  # "another digit follows", but none does
        ("0\u00e9", "foreign characters"),
        (b"5\xff", "foreign characters"),
        (b"XXXXXXXXX1", "foreign characters"),  # more digits than any mask needs
        (b"5", r"mask 1 has runs of 5 pixels in total, expected 6 for size \(2, 3\)"),
        (b"6N2", r"negative length"),  # 6 - 2 + 2 = 6
    ],
)
def test_broken_strings_are_refused(counts, message):
    good = {"size": [2, 3], "counts": b"6"}
    with pytest.raises(ShapeError, match=message):
        decode_runs([good, {"size": [2, 3], "counts": counts}], (2, 3))


def test_a_lone_mask_without_counts_is_refused():
    with pytest.raises(ShapeError, match="end too early"):
        decode_runs([{"size": [2, 3], "counts": b""}], (2, 3))


def test_a_mask_without_counts_between_others_is_refused():
    masks = [{"size": [2, 3], "counts": counts} for counts in (b"6", b"", b"6")]
    with pytest.raises(ShapeError, match="mask 1 has runs of 0 pixels"):
        decode_runs(masks, (2, 3))


@given(SEEDS)
def test_pieces_tile_the_masks_and_hold_one_value_each(seed):
    rng = np.random.default_rng(seed)
    masks = random_masks(rng)
    values = rng.integers(0, 3, masks.shape[1:], dtype=np.uint8)
    flat = values.T.reshape(-1)
    pieces = cut_runs(decode_runs(encode_masks(masks), masks.shape[1:]), flat)
    assert pieces.lengths.min() > 0
    assert pieces.lengths.sum() == flat.size
    for first, stop in zip(pieces.bounds[:-1], pieces.bounds[1:], strict=True):
        assert len(np.unique(flat[first:stop])) == 1
    rebuilt = np.zeros((len(masks), flat.size), int)
    for segment, owner in zip(pieces.segments, pieces.owners, strict=True):
        rebuilt[owner, pieces.bounds[segment] : pieces.bounds[segment + 1]] += 1
    np.testing.assert_array_equal(rebuilt, masks.transpose(0, 2, 1).reshape(len(masks), flat.size))
    assert pieces.num_covered == np.count_nonzero(masks.any(axis=0))


@given(SEEDS)
def test_selected_masks_are_those_of_the_range(seed):
    masks = random_masks(np.random.default_rng(seed))
    part = decode_runs(encode_masks(masks), masks.shape[1:]).select(1, 4)
    np.testing.assert_array_equal(fill(part), masks[1:4])


def test_pooling_to_half_the_size_by_hand():
    # One row of 4 pixels, 2 cells with centres at 1 and 3: pixel centres 0.5 1.5 2.5 3.5 take from cell 0 the parts
    # 1, 3/4, 1/4, 0. Pixels 1 and 2 together give 3/4 + 1/4 = 1 to either cell.
    masks = np.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    pooled = pool_runs(decode_runs(encode_masks(masks), (1, 4)), (1, 2))
    assert pooled.tolist() == [[[1, 0]], [[0.75, 0.25]], [[1, 1]]]


@given(SEEDS)
def test_pooling_is_the_adjoint_of_a_bilinear_resize(seed):
    rng = np.random.default_rng(seed)
    masks = random_masks(rng)
    num_masks, height, width = masks.shape
    grid = (int(rng.integers(1, 30)), int(rng.integers(1, 30)))  # coarser or finer than the frame
    values = rng.random(grid)
    is_counted = rng.random((height, width)) < 0.7
    resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    expected = [resized[mask & is_counted].sum() for mask in masks]

    pooled = pool_runs(decode_runs(encode_masks(masks), (height, width)), grid, is_counted)

    assert pooled.shape == (num_masks, *grid)
    np.testing.assert_allclose(
        (pooled * values).sum(axis=(1, 2)), expected, rtol=1e-5, atol=1e-6
    )  # OpenCV: float32 taps
    np.testing.assert_allclose(pooled.sum(axis=(1, 2)), (masks & is_counted).sum(axis=(1, 2)), rtol=1e-12)


def test_foreground_runs_of_length_0_are_no_runs():
    runs = decode_runs([{"size": [2, 3], "counts": b"2022"}], (2, 3))  # 2 off, 0 on, 2 off, 2 + 0 on
    assert (runs.starts.tolist(), runs.stops.tolist(), runs.owners.tolist()) == ([4], [6], [0])


def test_a_map_of_mask_numbers_becomes_column_major_runs_by_mask():
    labels = np.array([[1, 0, 0], [1, 1, -1]])  # columns: 1 1, 0 1, 0 -1 -> flat 1 1 0 1 0 -1
    runs = label_runs(labels, 3)
    assert runs.owners.tolist() == [0, 0, 1, 1]
    assert runs.starts.tolist() == [2, 4, 0, 3]
    assert runs.stops.tolist() == [3, 5, 2, 4]
    assert runs.areas.tolist() == [2, 3, 0]


def test_runs_are_encoded_as_the_format_says():
    # The counts of test_a_string_is_decoded_as_the_format_says, the other way round: runs at 0..40 and 43..48 of 80.
    runs = Runs(np.array([0, 43]), np.array([40, 48]), np.array([0, 0]), 1, (8, 10))
    assert encode_runs(runs) == ({"size": [8, 10], "counts": b"0X13mNm0"},)


@given(SEEDS)
def test_encoding_a_label_map_equals_pycocotools_byte_by_byte(seed):
    rng = np.random.default_rng(seed)
    height, width, block = (int(n) for n in rng.integers(1, 40, 3))
    num_masks = int(rng.integers(1, 9))
    small = rng.integers(-1, num_masks, (-(-height // block), -(-width // block)))
    labels = small.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    expected = encode_masks(labels == np.arange(num_masks)[:, None, None])
    assert encode_runs(label_runs(labels, num_masks)) == expected


@given(SEEDS)
def test_encoding_undoes_decoding_for_masks_that_overlap(seed):
    masks = random_masks(np.random.default_rng(seed))
    rles = encode_masks(masks)
    assert encode_runs(decode_runs(rles, masks.shape[1:])) == rles


def test_counts_of_several_digits_are_encoded():
    labels = np.full((1200, 2000), 3)
    labels[600:, 1500:] = 0
    labels[:, 999] = 1
    labels[::7] = 2
    masks = labels == np.arange(4)[:, None, None]
    assert encode_runs(label_runs(labels, 4)) == encode_masks(masks)


def test_no_masks_give_no_rle_and_unused_numbers_give_empty_masks():
    nothing = np.full((2, 3), -1)
    assert encode_runs(label_runs(nothing, 0)) == ()
    assert encode_runs(label_runs(nothing, 2)) == encode_masks(np.zeros((2, 2, 3), bool))
    assert encode_runs(label_runs(np.zeros((2, 3), int), 1)) == encode_masks(np.ones((1, 2, 3), bool))


# --- boxes -----------------------------------------------------------------------------------------------------------


def slow_box(mask: np.ndarray) -> list[int]:
    """Box x0, y0, x1, y1 of one mask (H, W), half-open."""
    if not mask.any():
        return [0, 0, 0, 0]
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@given(SEEDS)
def test_boxes_equal_those_of_the_pixels(seed):
    masks = random_masks(np.random.default_rng(seed))
    boxes = mask_boxes(decode_runs(encode_masks(masks), masks.shape[1:]))
    assert (boxes.dtype, boxes.shape) == (np.int64, (len(masks), 4))
    assert boxes.tolist() == [slow_box(mask) for mask in masks]


def test_a_run_that_goes_on_into_the_next_column_touches_both_edges():
    mask = np.zeros((4, 5), bool)
    mask[3, 1] = mask[0, 2] = True  # one run of two pixels in column-major order
    runs = decode_runs(encode_masks(mask[None]), (4, 5))
    assert len(runs.starts) == 1
    assert mask_boxes(runs).tolist() == [[1, 0, 3, 4]]


def test_empty_masks_between_others_have_empty_boxes():
    masks = np.zeros((5, 3, 4), bool)
    masks[1, 1, 2] = masks[3] = True
    boxes = mask_boxes(decode_runs(encode_masks(masks), (3, 4)))
    assert boxes.tolist() == [[0] * 4, [2, 1, 3, 2], [0] * 4, [0, 0, 4, 3], [0] * 4]
