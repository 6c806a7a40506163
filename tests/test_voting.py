import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2vss import voting
from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.types import BaseLabels, LabelSpace, MaskletWindow, Naming
from sam2vss.voting import (
    add_frame_probabilities,
    add_probabilities,
    choose_classes,
    count_frame_votes,
    count_votes,
    paint_masklets,
    paint_order,
    paint_window,
    refine_window,
    top_masklets,
    vote_shares,
)

SEEDS = st.integers(0, 2**32 - 1)
IGNORE = 255
OVERLAPS = ["small-on-top", "large-on-top", "confident-on-top", "stable-on-top"]


def row_masks(*rows: str) -> np.ndarray:
    """Masklets of one frame of height 1, "xx.." covers the first two of four pixels; bool (N, L=1, H=1, W)."""
    return np.array([[[[mark == "x" for mark in row]]] for row in rows])


def one_row(*labels: int) -> np.ndarray:
    return np.array([[labels]], np.uint8)


def random_case(seed: int, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray, LabelSpace, np.random.Generator]:
    """Masks bool (N, L, H, W), labels (L, H, W) with ignored pixels, of random sizes."""
    rng = np.random.default_rng(seed)
    num_masklets, length, height, width = rng.integers([0, 1, 1, 1], [6, 4, 14, 14])
    masks = np.zeros((num_masklets, length, height, width), bool)
    for mask in masks.reshape(-1, height, width):
        (y0, y1), (x0, x1) = rng.integers(0, height + 1, 2), rng.integers(0, width + 1, 2)
        mask[y0:y1, x0:x1] = rng.random((max(y1 - y0, 0), max(x1 - x0, 0))) < 0.9
    label_space = LabelSpace.numbered(num_classes)
    labels = rng.integers(0, num_classes, (length, height, width)).astype(label_space.dtype)
    labels[rng.random(labels.shape) < 0.1] = label_space.ignore_index
    return masks, labels, label_space, rng


def count_slowly(masks: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Eq. 2's sums pixel by pixel, (L, N, C)."""
    votes = np.zeros((len(labels), len(masks), num_classes), int)
    for i, t, y, x in np.argwhere(masks):
        if labels[t, y, x] < num_classes:
            votes[t, i, labels[t, y, x]] += 1
    return votes


def paint_slowly(labels: np.ndarray, masks: np.ndarray, classes: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Eq. 1 masklet by masklet, bottom first; classes (L, N)."""
    refined = labels.copy()
    for t, i in itertools.product(range(len(labels)), order):
        if classes[t, i] >= 0:
            refined[t][masks[i, t]] = classes[t, i]
    return refined


# ---------------------------------------------------------------------------------------------------------- by hand


def test_unanimous_masklet_overrules_a_noisy_pixel():
    window = MaskletWindow.from_masks(row_masks("xxxx"))
    refined = refine_window(BaseLabels(one_row(7, 7, 7, 3)), window, LabelSpace.numbered(8))
    assert refined.labels.tolist() == [[[7, 7, 7, 7]]]
    assert refined.votes.tolist() == [[0, 0, 0, 1, 0, 0, 0, 3]]
    assert refined.classes.tolist() == [7]
    assert refined.vote_share.tolist() == [0.75]
    assert refined.coverage.tolist() == [1.0]
    assert refined.num_changed_pixels == 1


def test_pixels_outside_all_masklets_keep_the_base_label():
    window = MaskletWindow.from_masks(row_masks("xxx.."))
    refined = refine_window(BaseLabels(one_row(1, 1, 0, 0, 2)), window, LabelSpace.numbered(3))
    assert refined.labels.tolist() == [[[1, 1, 1, 0, 2]]]
    assert refined.coverage.tolist() == [0.6]


def test_ignored_pixels_do_not_vote_but_are_painted():
    window = MaskletWindow.from_masks(row_masks("xxxx"))
    base = BaseLabels(one_row(IGNORE, IGNORE, IGNORE, 2))
    refined = refine_window(base, window, LabelSpace.numbered(3))
    assert refined.votes.tolist() == [[0, 0, 1]]
    assert refined.vote_share.tolist() == [1.0]
    assert refined.labels.tolist() == [[[2, 2, 2, 2]]]


def test_a_masklet_over_ignored_pixels_only_changes_nothing():
    base = BaseLabels(one_row(IGNORE, IGNORE, 1))
    refined = refine_window(base, MaskletWindow.from_masks(row_masks("xx.")), LabelSpace.numbered(3))
    assert refined.labels.tolist() == base.labels.tolist()
    assert (refined.classes.tolist(), refined.vote_share.tolist()) == ([-1], [0.0])


@pytest.mark.parametrize(
    ("vote", "expected"),
    [
        ("window", [[1, 1, 1], [1, 1, 1]]),  # votes 2 + 3 for class 1, 1 for class 0
        ("frame", [[0, 0, 0], [1, 1, 1]]),
    ],
)
def test_a_masklet_votes_over_the_window_or_frame_by_frame(vote, expected):
    labels = np.array([[[0, 0, 1]], [[1, 1, 1]]], np.uint8)
    window = MaskletWindow.from_masks(np.ones((1, 2, 1, 3), bool))
    refined = refine_window(BaseLabels(labels), window, LabelSpace.numbered(2), vote=vote)
    assert refined.labels[:, 0].tolist() == expected
    assert refined.classes.tolist() == [1]  # 4 of 6, whatever was painted
    assert refined.votes.tolist() == [[2, 4]]


def test_a_tie_goes_to_the_smallest_class_id():
    assert choose_classes(np.array([[0, 3, 3], [5, 2, 5]])).tolist() == [1, 0]


def test_a_masklet_abstains_below_the_smallest_share_and_not_at_it():
    votes = np.array([[3, 1], [2, 2], [0, 0]])  # shares 3/4, 1/2, none
    assert choose_classes(votes, 0.75).tolist() == [0, -1, -1]
    assert choose_classes(votes, 0.76).tolist() == [-1, -1, -1]
    assert choose_classes(votes).tolist() == [0, 0, -1]
    assert vote_shares(votes).tolist() == [0.75, 0.5, 0.0]


@pytest.mark.parametrize("vote", ["window", "frame"])
def test_labels_stay_where_no_class_reaches_the_share(vote):
    base = BaseLabels(one_row(0, 1, 2))
    window = MaskletWindow.from_masks(row_masks("xxx"))
    refined = refine_window(base, window, LabelSpace.numbered(3), vote=vote, min_share=0.5)
    assert refined.labels.tolist() == base.labels.tolist()
    assert refined.classes.tolist() == [-1]


def test_probabilities_can_outvote_the_majority_of_labels():
    # Three pixels, two narrowly class 0, one clearly class 1: 0.51 + 0.51 + 0.0 = 1.02 against 0.49 + 0.49 + 1.0 = 1.98
    base = BaseLabels(one_row(0, 0, 1), np.array([[[[0.51, 0.51, 0.0]], [[0.49, 0.49, 1.0]]]], np.float32))
    window = MaskletWindow.from_masks(row_masks("xxx"))
    majority = refine_window(base, window, LabelSpace.numbered(2))
    probability = refine_window(base, window, LabelSpace.numbered(2), vote_weight="probability")
    assert majority.labels.tolist() == [[[0, 0, 0]]]
    assert probability.labels.tolist() == [[[1, 1, 1]]]
    assert probability.votes == pytest.approx(np.array([[1.02, 1.98]]), rel=1e-6)
    assert probability.vote_share == pytest.approx([0.66], rel=1e-6)


def test_ignored_pixels_add_no_probability():
    base = BaseLabels(one_row(0, IGNORE, IGNORE), np.array([[[[1, 0, 0]], [[0, 1, 1]]]], np.float16))
    window = MaskletWindow.from_masks(row_masks("xxx"))
    refined = refine_window(base, window, LabelSpace.numbered(2), vote_weight="probability")
    assert refined.votes.tolist() == [[1.0, 0.0]]


# --------------------------------------------------------------------------------------------------------- overlaps


@pytest.mark.parametrize(
    ("overlap", "winner"),
    [("small-on-top", 3), ("large-on-top", 0), ("confident-on-top", 1), ("stable-on-top", 2)],
)
def test_overlap_goes_to_the_masklet_that_the_setting_names(overlap, winner):
    window = MaskletWindow.from_masks(
        row_masks("xxxx", ".xxx", "..xx", "...x"),
        predicted_iou=np.array([0.6, 0.9, 0.7, 0.8], np.float32),
        stability=np.array([0.6, 0.7, 0.9, 0.8], np.float32),
    )
    assert paint_masklets(one_row(9, 9, 9, 9), window, np.arange(4), overlap)[0, 0, 3] == winner
    refined = refine_window(BaseLabels(one_row(0, 1, 2, 3)), window, LabelSpace.numbered(4), overlap=overlap)
    assert refined.labels[0, 0, 3] == refined.classes[winner]


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_of_equal_masklets_the_earlier_one_lies_on_top(overlap):
    window = MaskletWindow.from_masks(row_masks("xx.", ".xx", "x.x"))
    assert paint_order(window, overlap).tolist() == [2, 1, 0]


def test_area_is_that_of_the_visible_frames_so_the_order_holds_for_the_window():
    # Masklet 0: 3 pixels in its one visible frame, mean 3. Masklet 1: 4 and 1 pixels, mean 2.5, so it lies on top in
    # both frames; by frame it would lie below in the first, and by mean over all frames (1.5) masklet 0 would win.
    masks = np.array([[[[1, 1, 1, 0]], [[0, 0, 0, 0]]], [[[1, 1, 1, 1]], [[1, 0, 0, 0]]]], bool)
    window = MaskletWindow.from_masks(masks)
    assert paint_order(window).tolist() == [0, 1]
    assert paint_order(window, "large-on-top").tolist() == [1, 0]


def test_an_abstaining_masklet_on_top_hides_nothing():
    window = MaskletWindow.from_masks(row_masks("xxxx", ".xx."))
    assert paint_order(window).tolist() == [0, 1]
    assert paint_masklets(one_row(2, 2, 2, 2), window, np.array([1, -1]))[0, 0].tolist() == [1, 1, 1, 1]


# ------------------------------------------------------------------------------------- against slow implementations


@given(SEEDS)
def test_votes_equal_a_count_pixel_by_pixel(seed):
    masks, labels, label_space, _ = random_case(seed)
    window = MaskletWindow.from_masks(masks)
    expected = count_slowly(masks, labels, 5)
    np.testing.assert_array_equal(count_frame_votes(window, labels, label_space), expected)
    votes = count_votes(window, labels, label_space)
    np.testing.assert_array_equal(votes, expected.sum(axis=0))
    assert votes.dtype == np.int64
    assert votes.sum(axis=1).tolist() == [np.count_nonzero(mask & (labels != IGNORE)) for mask in masks]


@given(SEEDS, st.sampled_from(OVERLAPS))
def test_painting_equals_painting_one_by_one(seed, overlap):
    masks, labels, _, rng = random_case(seed)
    length, num_masklets = len(labels), len(masks)
    scores = rng.integers(0, 3, (2, num_masklets)).astype(np.float32)  # ties too
    window = MaskletWindow.from_masks(masks, predicted_iou=scores[0], stability=scores[1])
    classes = rng.integers(-1, 5, (length, num_masklets))
    order = paint_order(window, overlap)
    before = labels.copy()
    refined = paint_masklets(labels, window, classes, overlap)
    np.testing.assert_array_equal(refined, paint_slowly(labels, masks, classes, order))
    np.testing.assert_array_equal(labels, before)  # the input stays
    if length:
        same = paint_masklets(labels, window, classes[0], overlap)
        np.testing.assert_array_equal(same, paint_masklets(labels, window, np.tile(classes[0], (length, 1)), overlap))


@given(SEEDS, st.sampled_from(["window", "frame"]), st.sampled_from([0.0, 0.4]))
def test_refining_equals_its_definition(seed, vote, min_share):
    masks, labels, label_space, _ = random_case(seed)
    window = MaskletWindow.from_masks(masks)
    refined = refine_window(BaseLabels(labels), window, label_space, vote=vote, min_share=min_share)

    frame_votes = count_slowly(masks, labels, 5)
    votes = frame_votes.sum(axis=0)
    classes = np.full((len(labels), len(masks)), -1)
    for t, i in np.ndindex(classes.shape):
        ballot = votes[i] if vote == "window" else frame_votes[t, i]
        if ballot.sum() and ballot.max() / ballot.sum() >= min_share:
            classes[t, i] = next(c for c in range(5) if ballot[c] == ballot.max())
    np.testing.assert_array_equal(refined.votes, votes)
    np.testing.assert_array_equal(refined.labels, paint_slowly(labels, masks, classes, paint_order(window)))
    np.testing.assert_allclose(refined.coverage, masks.any(axis=0).mean(axis=(1, 2)), rtol=1e-12)
    assert refined.base is labels
    assert refined.window == window.window
    assert refined.masklets is window


@given(SEEDS)
def test_probability_votes_equal_the_sum_of_resized_probabilities(seed):
    masks, labels, label_space, rng = random_case(seed)
    window = MaskletWindow.from_masks(masks)
    length, height, width = labels.shape
    grid = rng.integers(1, 20, 2)
    probabilities = rng.dirichlet(np.ones(5), (length, *grid)).transpose(0, 3, 1, 2).astype(np.float32)
    resized = np.stack([[cv2.resize(channel, (width, height)) for channel in frame] for frame in probabilities])
    expected = np.einsum("ilhw,lchw->ic", masks, resized.astype(float))
    # float32 products here, float32 taps in OpenCV: differences up to about 1e-6 of the sums were seen
    np.testing.assert_allclose(add_probabilities(window, probabilities), expected, rtol=1e-5, atol=1e-5)

    voting = labels != IGNORE
    refined = refine_window(BaseLabels(labels, probabilities), window, label_space, vote_weight="probability")
    expected = np.einsum("ilhw,lhw,lchw->ic", masks, voting, resized.astype(float))
    np.testing.assert_allclose(refined.votes, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(add_probabilities(window, probabilities, voting), refined.votes)


@given(SEEDS)
def test_certain_probabilities_vote_like_labels(seed):
    masks, labels, label_space, _ = random_case(seed)
    window = MaskletWindow.from_masks(masks)
    certain = (labels[:, None] == np.arange(5)[:, None, None]).astype(np.float16)
    for vote in ("window", "frame"):
        majority = refine_window(BaseLabels(labels), window, label_space, vote=vote)
        soft = refine_window(BaseLabels(labels, certain), window, label_space, vote=vote, vote_weight="probability")
        np.testing.assert_array_equal(soft.votes, majority.votes)
        np.testing.assert_array_equal(soft.labels, majority.labels)
    assert (majority.votes.dtype, soft.votes.dtype) == (np.int64, np.float64)


def test_masks_pooled_in_groups_give_the_same_votes(monkeypatch):
    rng = np.random.default_rng(0)
    window = MaskletWindow.from_masks(rng.random((7, 1, 9, 9)) < 0.5)
    probabilities = rng.random((1, 3, 4, 4)).astype(np.float32)
    at_once = add_probabilities(window, probabilities)
    monkeypatch.setattr(voting, "_POOLED_VALUES", 3 * 16)  # 3 masks of 16 values a group: 3 + 3 + 1
    np.testing.assert_allclose(add_probabilities(window, probabilities), at_once, rtol=1e-6)


# ------------------------------------------------------------------------------------------- what must always hold


@given(SEEDS)
def test_permuting_the_masklets_permutes_the_votes(seed):
    masks, labels, label_space, rng = random_case(seed)
    order = rng.permutation(len(masks))
    votes = count_votes(MaskletWindow.from_masks(masks), labels, label_space)
    np.testing.assert_array_equal(
        count_votes(MaskletWindow.from_masks(masks[order]), labels, label_space), votes[order]
    )


@given(SEEDS, st.sampled_from(OVERLAPS), st.sampled_from(["window", "frame"]))
def test_nothing_changes_outside_all_masklets(seed, overlap, vote):
    masks, labels, label_space, _ = random_case(seed)
    refined = refine_window(
        BaseLabels(labels), MaskletWindow.from_masks(masks), label_space, vote=vote, overlap=overlap
    )
    outside = ~masks.any(axis=0)
    np.testing.assert_array_equal(refined.labels[outside], labels[outside])
    assert refined.num_changed_pixels == np.count_nonzero(refined.labels != labels)


@given(SEEDS)
def test_without_overlaps_refining_twice_equals_refining_once(seed):
    masks, labels, label_space, _ = random_case(seed)
    if len(masks):
        owner = np.where(masks.any(axis=0), masks.argmax(axis=0), -1)
        masks = np.stack([owner == i for i in range(len(masks))])
    window = MaskletWindow.from_masks(masks)
    once = refine_window(BaseLabels(labels), window, label_space).labels
    np.testing.assert_array_equal(refine_window(BaseLabels(once), window, label_space).labels, once)


@given(SEEDS)
def test_a_perfect_base_stays_perfect_under_masklets_of_one_class_each(seed):
    masks, labels, label_space, rng = random_case(seed)
    labels[labels == IGNORE] = 0
    masks &= np.stack([labels == rng.integers(0, 5) for _ in masks]) if len(masks) else True
    refined = refine_window(BaseLabels(labels), MaskletWindow.from_masks(masks), label_space)
    np.testing.assert_array_equal(refined.labels, labels)


# ------------------------------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize("vote_weight", ["majority", "probability"])
def test_no_masklet_leaves_everything_as_it_is(vote_weight):
    base = BaseLabels(one_row(0, 1, IGNORE), np.ones((1, 3, 1, 1), np.float32))
    window = MaskletWindow.from_masks(np.zeros((0, 1, 1, 3), bool))
    refined = refine_window(base, window, LabelSpace.numbered(3), vote_weight=vote_weight)
    assert refined.labels.tolist() == base.labels.tolist()
    assert refined.votes.shape == (0, 3)
    assert refined.classes.shape == refined.vote_share.shape == (0,)
    assert refined.coverage.tolist() == [0.0]


def test_an_empty_mask_beside_a_full_one_has_no_votes():
    window = MaskletWindow.from_masks(row_masks("...", "xxx"))
    refined = refine_window(BaseLabels(one_row(0, 1, 1)), window, LabelSpace.numbered(2))
    assert refined.votes.tolist() == [[0, 0], [1, 2]]
    assert refined.classes.tolist() == [-1, 1]
    assert refined.labels.tolist() == [[[1, 1, 1]]]


def test_an_object_that_leaves_the_picture_keeps_its_class_and_paints_where_it_was_seen():
    labels = np.array([[[2, 2, 0]], [[0, 2, 1]], [[1, 1, 1]]], np.uint8)
    masks = np.array([[[[1, 1, 0]], [[1, 0, 0]], [[0, 0, 0]]]], bool)
    refined = refine_window(BaseLabels(labels), MaskletWindow.from_masks(masks), LabelSpace.numbered(3))
    assert refined.labels[:, 0].tolist() == [[2, 2, 0], [2, 2, 1], [1, 1, 1]]


def test_300_classes_use_16_bits():
    label_space = LabelSpace.numbered(300)
    labels = np.array([[[299, 299, 255, 65535]]], np.uint16)  # 255 is a class here, 65535 the ignore index
    refined = refine_window(BaseLabels(labels), MaskletWindow.from_masks(row_masks("xxxx")), label_space)
    assert refined.labels.dtype == np.uint16
    assert refined.labels.tolist() == [[[299, 299, 299, 299]]]
    assert (refined.votes[0, 299], refined.votes[0, 255], refined.votes.sum()) == (2, 1, 3)


def test_255_classes_still_have_an_ignore_index():
    window = MaskletWindow.from_masks(row_masks("xxx"))
    votes = count_votes(window, one_row(254, 254, 255), LabelSpace.numbered(255))
    assert (votes[0, 254], votes.sum()) == (2, 2)


# --------------------------------------------------------------------------------------------------------- messages


def test_labels_of_another_size_are_refused():
    window = MaskletWindow.from_masks(row_masks("xxx"))
    message = r"labels have shape \(1, 1, 4\), the masklets are of 1 frames of size \(1, 3\)"
    with pytest.raises(ShapeError, match=message):
        refine_window(BaseLabels(one_row(0, 0, 0, 0)), window, LabelSpace.numbered(1))
    with pytest.raises(ShapeError, match=message):
        count_votes(window, one_row(0, 0, 0, 0), LabelSpace.numbered(1))
    with pytest.raises(ShapeError, match=message):
        paint_masklets(one_row(0, 0, 0, 0), window, np.array([0]))


@pytest.mark.parametrize("vote_weight", ["majority", "probability"])
def test_labels_outside_the_label_space_are_refused(vote_weight):
    base = BaseLabels(one_row(0, 9, 9), np.ones((1, 3, 1, 1), np.float32))
    window = MaskletWindow.from_masks(row_masks("x.."))
    with pytest.raises(LabelError, match=r"base labels hold the ids \[9\], expected 0..2"):
        refine_window(base, window, LabelSpace.numbered(3), vote_weight=vote_weight)


def test_classes_that_fit_neither_masklets_nor_labels_are_refused():
    window = MaskletWindow.from_masks(row_masks("xxx", "x.."))
    with pytest.raises(ShapeError, match=r"classes are int64 \(3,\), expected integers \(2,\).* or \(1, 2\)"):
        paint_masklets(one_row(0, 0, 0), window, np.zeros(3, np.int64))
    with pytest.raises(LabelError, match="classes range from 0 to 300, expected -1 to 255"):
        paint_masklets(one_row(0, 0, 0), window, np.array([300, 0]))


def test_probability_votes_without_probabilities_name_the_ways_out():
    window = MaskletWindow.from_masks(row_masks("xxx"))
    with pytest.raises(SettingsError, match=r"these base labels have none.*--vote-weight majority"):
        refine_window(BaseLabels(one_row(0, 0, 0)), window, LabelSpace.numbered(1), vote_weight="probability")


def test_probabilities_that_do_not_fit_are_refused():
    window = MaskletWindow.from_masks(row_masks("xxx"))
    base = BaseLabels(one_row(0, 0, 0), np.ones((1, 4, 1, 3), np.float32))
    with pytest.raises(ShapeError, match="expected 2 classes on axis 1"):
        refine_window(base, window, LabelSpace.numbered(2), vote_weight="probability")
    with pytest.raises(ShapeError, match=r"expected \(L=1, C, h, w\)"):
        add_probabilities(window, np.ones((2, 4, 1, 3), np.float32))


@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf])
def test_logits_and_broken_probabilities_are_refused(value):
    probabilities = np.ones((1, 2, 1, 3), np.float32)
    probabilities[0, 1, 0, 2] = value
    with pytest.raises(LabelError, match="Logits need a softmax first"):
        add_probabilities(MaskletWindow.from_masks(row_masks("x..")), probabilities)


def test_earlier_votes_are_added_before_the_winner_is_chosen():
    labels = np.array([[[1, 1, 0]]], np.uint8)
    window = MaskletWindow.from_masks(np.ones((1, 1, 1, 3), bool))
    space = LabelSpace.numbered(3)

    refined = refine_window(BaseLabels(labels), window, space, earlier_votes=np.array([[0, 0, 3]]))

    assert refined.votes.tolist() == [[1, 2, 3]]
    assert refined.vote_share.tolist() == [0.5]
    assert refined.labels.tolist() == [[[2, 2, 2]]]


def test_earlier_votes_of_another_shape_are_refused():
    window = MaskletWindow.from_masks(np.ones((1, 1, 1, 3), bool))

    with pytest.raises(ShapeError, match=r"earlier votes have shape \(2, 3\), expected \(1, 3\)"):
        refine_window(
            BaseLabels(np.zeros((1, 1, 3), np.uint8)), window, LabelSpace.numbered(3), earlier_votes=np.zeros((2, 3))
        )


# --- what namers and trainers use ------------------------------------------------------------------------------------


def name_as(classes: np.ndarray, scores: np.ndarray | None = None) -> Naming:
    """A naming whose frames have these classes (L, N)."""
    count = classes.shape[1]
    scores = np.zeros((count, 3)) if scores is None else scores
    return Naming(scores, np.zeros(count, np.int64), classes, np.linspace(0, 1, count))


@given(SEEDS)
def test_naming_by_the_vote_paints_what_the_vote_paints(seed):
    masks, labels, label_space, rng = random_case(seed)
    window, base = MaskletWindow.from_masks(masks), BaseLabels(labels)
    overlap = OVERLAPS[rng.integers(4)]
    for vote in ("window", "frame"):
        refined = refine_window(base, window, label_space, vote, overlap=overlap)
        frame_classes = (
            np.tile(refined.classes, (len(labels), 1))
            if vote == "window"
            else choose_classes(count_frame_votes(window, labels, label_space))
        )
        naming = Naming(refined.votes, refined.classes, frame_classes, refined.vote_share)
        painted = paint_window(base, window, naming, overlap)
        for name in ("labels", "base", "votes", "classes", "vote_share", "coverage"):
            assert getattr(painted, name).tolist() == getattr(refined, name).tolist(), name


def test_a_naming_is_painted_frame_by_frame_and_kept_with_its_scores():
    window = MaskletWindow.from_masks(np.ones((1, 2, 1, 2), bool))
    base = BaseLabels(np.full((2, 1, 2), 9, np.uint8))
    painted = paint_window(base, window, name_as(np.array([[4], [-1]]), np.array([[0.25, 0.5, 0.125]])))
    assert painted.labels.tolist() == [[[4, 4]], [[9, 9]]]
    assert (painted.votes.tolist(), painted.coverage.tolist()) == ([[0.25, 0.5, 0.125]], [1, 1])
    assert base.labels.tolist() == [[[9, 9]]] * 2


@pytest.mark.parametrize("classes", [[[256]], [[-2]]])
def test_named_classes_that_labels_cannot_hold_are_refused(classes):
    window = MaskletWindow.from_masks(np.ones((1, 1, 1, 2), bool))
    with pytest.raises(LabelError, match="expected -1 to 255 for labels of dtype uint8"):
        paint_window(BaseLabels(one_row(0, 0)), window, name_as(np.array(classes)))


def test_a_naming_of_other_masklets_or_frames_is_refused():
    window = MaskletWindow.from_masks(np.ones((2, 1, 1, 2), bool))
    with pytest.raises(ShapeError, match=r"named for \(1, 1\) frames and masklets, expected \(1, 2\)"):
        paint_window(BaseLabels(one_row(0, 0)), window, name_as(np.array([[0]])))
    with pytest.raises(ShapeError, match=r"2 classes come with scores \(1, 3\)"):
        Naming(np.zeros((1, 3)), np.zeros(2, np.int64), np.zeros((1, 2), np.int64), np.zeros(2))


@given(SEEDS)
def test_the_topmost_masklet_of_a_pixel_is_the_last_one_painted(seed):
    masks, _, _, rng = random_case(seed)
    window = MaskletWindow.from_masks(masks)
    order = paint_order(window, OVERLAPS[rng.integers(4)])
    for t in range(masks.shape[1]):
        expected = np.full(masks.shape[2:], -1)
        for i in order:
            expected[masks[i, t]] = i
        top = top_masklets(window, t, order)
        assert top.dtype == np.int32
        assert top.tolist() == expected.tolist()


def test_more_masklets_than_labels_of_8_bits_can_lie_on_top():
    masks = np.eye(300, dtype=bool)[:, None, None]  # masklet i covers pixel i
    window = MaskletWindow.from_masks(masks)
    assert top_masklets(window, 0, np.arange(300)).tolist() == [list(range(300))]


@given(SEEDS)
def test_probability_votes_by_frame_add_up_to_those_of_the_window(seed):
    masks, labels, _, rng = random_case(seed)
    probabilities = rng.random((len(labels), 3, 2, 5)).astype(np.float32)
    window, is_voting = MaskletWindow.from_masks(masks), labels != IGNORE
    by_frame = add_frame_probabilities(window, probabilities, is_voting)
    assert by_frame.shape == (len(labels), len(masks), 3)
    np.testing.assert_allclose(by_frame.sum(axis=0), add_probabilities(window, probabilities, is_voting), rtol=1e-12)
    for t in range(len(labels)):
        alone = MaskletWindow.from_masks(masks[:, t : t + 1])
        expected = add_probabilities(alone, probabilities[t : t + 1], is_voting[t : t + 1])
        np.testing.assert_array_equal(by_frame[t], expected)
