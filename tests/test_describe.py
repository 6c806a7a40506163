"""What is known of masklets, and what is true of them, against loops over frames, masks and pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy
from sam2vss.describe import describe_window, judge_window
from sam2vss.errors import LabelError, ShapeError, WeightsError
from sam2vss.mask_runs import decode_runs, pool_areas
from sam2vss.pooling import Pooling, choose_cells, pool_masks
from sam2vss.types import BaseLabels, LabelSpace, MaskletWindow
from toy import CLASSES, ExactTracker
from toy_features import ClassEncoder, NoiseEncoder

SEEDS = st.integers(0, 2**32 - 1)
OBJECTS = toy.toy_objects(12)
FRAMES = toy.toy_frames(OBJECTS)
TRUTH = toy.toy_labels(OBJECTS)
VOID = CLASSES.ignore_index


def toy_masklets(first: int = 0, length: int = 12) -> MaskletWindow:
    return ExactTracker().track(FRAMES[first : first + length], first)


def random_window(seed: int, num_classes: int = 3) -> tuple[MaskletWindow, np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping masklets, their masks (N, L, H, W), and two label maps (L, H, W) with void."""
    rng = np.random.default_rng(seed)
    count, length, height, width = rng.integers([0, 1, 1, 1], [5, 4, 9, 9])
    masks = rng.random((count, length, height, width)) < rng.random((count, length, 1, 1)) - 0.1
    maps = rng.integers(0, num_classes, (2, length, height, width)).astype(np.uint8)
    maps[rng.random(maps.shape) < 0.2] = VOID
    return MaskletWindow.from_masks(masks), masks, maps[0], maps[1]


# --- describe --------------------------------------------------------------------------------------------------------


def test_masklets_of_a_toy_clip_are_described_frame_by_frame():
    masklets, encoder = toy_masklets(), NoiseEncoder()
    parts = ("mean", "max", "ring")
    known = describe_window(FRAMES, masklets, encoder, Pooling(parts, tokens=3))
    assert (known.features.shape, known.features.dtype) == ((12, 3, 21), np.float32)
    assert (known.tokens.shape, known.tokens.dtype) == ((12, 3, 3, 4), np.float32)
    assert known.ids.tolist() == masklets.ids.tolist()
    for t in range(12):
        masks, levels = masklets.stack(t), encoder.encode(FRAMES[t])
        weights = [pool_areas(decode_runs(masklets.rles[t], toy.SIZE), grid) for grid in encoder.grids]
        expected = pool_masks(levels, weights, parts)
        np.testing.assert_allclose(known.features[t], expected, atol=1e-6)
        for i, mask in enumerate(masks):
            assert known.areas[t, i] == mask.sum()
            ys, xs = np.nonzero(mask)
            if not len(ys):
                assert not known.features[t, i].any()
                assert not known.tokens[t, i].any()
                assert known.boxes_xyxy[t, i].tolist() == [0] * 4
                continue
            box = [xs.min() / 36, ys.min() / 24, (xs.max() + 1) / 36, (ys.max() + 1) / 24]
            assert known.boxes_xyxy[t, i].tolist() == pytest.approx(box)
            for token, cell in zip(known.tokens[t, i], choose_cells(weights[0], 3)[i], strict=True):
                assert token.tolist() == levels[0][:, cell // 9, cell % 9].tolist()


def test_the_disc_that_leaves_is_invisible_afterwards():
    objects = toy.toy_objects(16)
    frames = toy.toy_frames(objects)
    known = describe_window(frames, ExactTracker().track(frames, 0), ClassEncoder(), Pooling(("mean", "ring")))
    is_visible = [bool((objects[t] == 1).any()) for t in range(16)]
    assert is_visible == [True] * 12 + [False] * 4  # it is 11 pixels wide and goes 3 a frame
    assert known.is_visible[:, 0].tolist() == is_visible
    assert known.frame_iou[:, 0].tolist() == [float(seen) for seen in is_visible]
    assert not known.features[12:, 0].any()
    assert known.features[:, 1:].any(axis=2).all()


def test_features_of_one_class_are_its_one_hot_vector():
    known = describe_window(FRAMES, toy_masklets(), ClassEncoder())
    for i, label in enumerate((1, 2, 1)):
        rows = known.features[known.is_visible[:, i], i]
        np.testing.assert_allclose(rows, np.eye(4)[[label] * len(rows)], atol=1e-6)


def test_predicted_iou_of_frames_is_used_where_the_tracker_knows_it():
    masks = np.ones((2, 2, 3, 4), bool)
    masks[1, 1] = False
    frame_iou = np.array([[0.9, 0.8], [0.7, 0.0]], np.float32)
    images, iou = np.zeros((2, 3, 4, 3), np.uint8), np.array([0.5, 0.25], np.float32)
    plain = describe_window(images, MaskletWindow.from_masks(masks, predicted_iou=iou))
    told = describe_window(images, MaskletWindow.from_masks(masks, predicted_iou=iou, frame_iou=frame_iou))
    assert plain.frame_iou.tolist() == [[0.5, 0.25], [0.5, 0]]
    assert told.frame_iou.tolist() == frame_iou.tolist()
    assert plain.predicted_iou.tolist() == [0.5, 0.25]


def test_frames_without_any_mask_are_not_encoded():
    masks = np.zeros((1, 3, *toy.SIZE), bool)
    masks[0, 1, 5, 5] = True
    encoder = ClassEncoder()
    describe_window(FRAMES[:3], MaskletWindow.from_masks(masks), encoder)
    assert encoder.calls == 1


@pytest.mark.parametrize("count", [0, 2])
def test_no_masklets_and_masklets_without_masks_are_described(count):
    masklets = MaskletWindow.from_masks(np.zeros((count, 2, *toy.SIZE), bool))
    base = BaseLabels(TRUTH[:2], np.full((2, 4, 3, 3), 0.25, np.float32))
    known = describe_window(FRAMES[:2], masklets, NoiseEncoder(), Pooling(("mean", "ring"), 2), base, CLASSES)
    assert known.features.shape == (2, count, 14)
    assert known.tokens.shape == (2, count, 2, 4)
    assert known.votes.shape == known.masses.shape == (2, count, 4)
    assert not known.is_visible.any()
    assert not known.votes.any()


def test_without_encoder_and_base_shapes_are_all_that_is_known():
    known = describe_window(FRAMES, toy_masklets(), pooling=Pooling(tokens=4))
    assert (known.features.shape, known.tokens.shape) == ((12, 3, 0), (12, 3, 0, 0))
    assert (known.votes, known.masses) == (None, None)


def test_votes_and_probabilities_of_the_base_are_counted_by_frame():
    masklets = toy_masklets()
    labels = toy.NoisySegmenter().predict(FRAMES).labels
    labels[:, :, :3] = VOID
    probabilities = np.zeros((12, 4, *toy.SIZE), np.float32)
    probabilities[:, 0], probabilities[:, 2] = 0.25, 0.75
    known = describe_window(FRAMES, masklets, base=BaseLabels(labels, probabilities), label_space=CLASSES)
    for t in range(12):
        for i, mask in enumerate(masklets.stack(t)):
            own = labels[t][mask]
            assert known.votes[t, i].tolist() == [(own == label).sum() for label in range(4)]
            voting = (own != VOID).sum()
            assert known.masses[t, i].tolist() == pytest.approx([0.25 * voting, 0, 0.75 * voting, 0])
    assert known.masses.dtype == np.float32
    plain = describe_window(FRAMES, masklets, base=BaseLabels(labels), label_space=CLASSES)
    assert plain.masses is None


def test_frames_of_another_window_are_refused():
    with pytest.raises(ShapeError, match=r"masklets are of 12 frames of size \(24, 36\).*the same frames"):
        describe_window(FRAMES[:5], toy_masklets())


def test_base_labels_outside_the_classes_are_refused():
    with pytest.raises(LabelError, match=r"hold the ids \[9\]"):
        describe_window(FRAMES, toy_masklets(), base=BaseLabels(np.full_like(TRUTH, 9)), label_space=CLASSES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_encoder_that_gives_no_numbers_is_named(value):
    class Broken(ClassEncoder):
        def encode(self, frame):
            (level,) = super().encode(frame)
            level[0, 0, 0] = value  # far from every masklet
            return (level,)

    with pytest.raises(WeightsError, match=r"features of toy-classes in frame 5 are not all finite.*--dtype float32"):
        describe_window(FRAMES[5:7], toy_masklets(5, 2), Broken())


# --- judge -----------------------------------------------------------------------------------------------------------


def judge_slowly(masks, truth, base, overlap) -> list[np.ndarray]:
    """Count pixel by pixel: true classes, those on top, base labels on top, right ones among them; (L, N, C)."""
    count, length, height, width = masks.shape
    areas = [np.mean([mask.sum() for mask in row if mask.any()] or [0]) for row in masks]
    counts = [np.zeros((length, count, 3), int) for _ in range(4)]
    classes, top_classes, top_base, top_kept = counts
    for t in range(length):
        for y in range(height):
            for x in range(width):
                here, label = [i for i in range(count) if masks[i, t, y, x]], truth[t, y, x]
                if not here or label == VOID:
                    continue
                for i in here:
                    classes[t, i, label] += 1
                small_first = sorted(here, key=lambda i: (areas[i] if overlap == "small-on-top" else -areas[i], i))
                top = small_first[0]
                top_classes[t, top, label] += 1
                if base[t, y, x] != VOID:
                    top_base[t, top, base[t, y, x]] += 1
                if base[t, y, x] == label:
                    top_kept[t, top, label] += 1
    return counts


@given(seed=SEEDS)
@pytest.mark.parametrize("overlap", ["small-on-top", "large-on-top"])
def test_truth_equals_a_count_pixel_by_pixel(seed, overlap):
    masklets, masks, truth, base = random_window(seed)
    judged = judge_window(masklets, truth, LabelSpace.numbered(3), base, overlap)
    found = [judged.classes, judged.top_classes, judged.top_base, judged.top_kept]
    for counts, expected in zip(found, judge_slowly(masks, truth, base, overlap), strict=True):
        assert counts.tolist() == expected.tolist()
    assert (judged.top_kept <= judged.top_base).all()
    assert (judged.top_kept <= judged.top_classes).all()
    assert (judged.top_classes <= judged.classes).all()


def test_masklets_of_a_toy_clip_are_what_they_are_in_truth():
    judged = judge_window(toy_masklets(), TRUTH, CLASSES)
    for i, (number, label) in enumerate(((1, 1), (2, 2), (3, 1))):
        expected = np.zeros((12, 4), int)
        expected[:, label] = [(OBJECTS[t] == number).sum() for t in range(12)]
        assert judged.classes[:, i].tolist() == judged.top_classes[:, i].tolist() == expected.tolist()
    assert not judged.top_base.any()


def test_a_small_masklet_takes_its_pixels_from_the_large_one_below():
    masks = np.zeros((2, 1, 2, 3), bool)
    masks[0], masks[1, 0, 0, 0] = True, True
    truth = np.zeros((1, 2, 3), np.uint8)
    judged = judge_window(MaskletWindow.from_masks(masks), truth, LabelSpace.numbered(2))
    assert judged.classes[0, :, 0].tolist() == [6, 1]
    assert judged.top_classes[0, :, 0].tolist() == [5, 1]


def test_more_masklets_and_classes_than_8_bits_hold_are_counted():
    masks = np.zeros((300, 1, 1, 300), bool)
    masks[:, 0, 0] = np.eye(300, dtype=bool)
    space = LabelSpace.numbered(300)
    truth = np.arange(300, dtype=np.uint16).reshape(1, 1, 300)
    judged = judge_window(MaskletWindow.from_masks(masks), truth, space, truth)
    for counts in (judged.classes, judged.top_classes, judged.top_base, judged.top_kept):
        assert (counts[0] == np.eye(300)).all()


def test_labels_that_do_not_fit_are_refused():
    masklets = toy_masklets(0, 2)
    with pytest.raises(ShapeError, match="labels have shape"):
        judge_window(masklets, TRUTH, CLASSES)
    with pytest.raises(ShapeError, match=r"base labels have shape \(3, 24, 36\), expected that of the truth"):
        judge_window(masklets, TRUTH[:2], CLASSES, TRUTH[:3])
    with pytest.raises(LabelError, match=r"base labels hold the ids \[200\]"):
        judge_window(masklets, TRUTH[:2], CLASSES, np.full_like(TRUTH[:2], 200))
