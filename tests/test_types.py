import json
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sam2vss.errors import LabelError, ShapeError
from sam2vss.types import (
    BaseLabels,
    Frame,
    LabelSpace,
    MaskletWindow,
    Refinement,
    Window,
    encode_masks,
    split_windows,
    voc_palette,
)


def space(**changes) -> LabelSpace:
    fields = {"names": ("sky", "road", "car"), "palette": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])}
    return LabelSpace(**(fields | changes))


def window_of(masks: np.ndarray, **scores) -> MaskletWindow:
    return MaskletWindow.from_masks(masks.astype(bool), **scores)


# ------------------------------------------------------------------------------------------------------- label space


def test_the_voc_palette_starts_with_its_known_colours():
    # PASCAL VOC: background, aeroplane, bicycle, bird, boat; each bit of an id goes to r, g, b in turn, high bits first
    assert voc_palette(5).tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert len(np.unique(voc_palette(256), axis=0)) == 256


def test_a_label_set_counts_its_classes_and_numbers_them_from_0():
    labels = space()
    assert (labels.num_classes, labels.raw_ids, labels.raw_void, labels.ignore_index) == (3, (0, 1, 2), (255,), 255)
    assert labels.kinds == ("", "", "")
    assert labels.dtype == np.uint8
    assert labels.colors.shape == (256, 3)
    assert (labels.colors[2].tolist(), labels.colors[255].tolist()) == ([7, 8, 9], [0, 0, 0])


@pytest.mark.parametrize(("num_classes", "ignore_index", "dtype"), [(255, 255, np.uint8), (256, 65535, np.uint16)])
def test_from_256_classes_on_labels_take_16_bits(num_classes, ignore_index, dtype):
    labels = LabelSpace.numbered(num_classes)
    assert (labels.ignore_index, labels.dtype) == (ignore_index, dtype)
    assert labels.colors.shape == (ignore_index + 1, 3)


def test_raw_ids_of_vspw_become_train_ids_and_back():
    vspw = space(raw_ids=(1, 2, 3), raw_void=(0, 255))
    raw = np.array([[0, 1, 2], [3, 255, 1]], np.uint8)
    train = vspw.from_raw(raw)
    assert train.tolist() == [[255, 0, 1], [2, 255, 0]]
    assert train.dtype == np.uint8
    back = vspw.to_raw(train)
    assert back.tolist() == [[0, 1, 2], [3, 0, 1]]  # void is written as its first number
    assert back.dtype == np.uint8


def test_raw_ids_above_255_are_written_with_16_bits():
    labels = space(raw_ids=(7, 1000, 3))
    raw = labels.to_raw(np.array([0, 1, 2, 255], np.uint8))
    assert raw.tolist() == [7, 1000, 3, 255]
    assert raw.dtype == np.uint16
    assert labels.from_raw(raw).tolist() == [0, 1, 2, 255]


@given(st.integers(1, 300), st.data())
def test_raw_and_train_ids_are_one_to_one(num_classes, data):
    raw_ids = data.draw(st.lists(st.integers(0, 60000), min_size=num_classes, max_size=num_classes, unique=True))
    labels = LabelSpace(("x",) * num_classes, voc_palette(num_classes), tuple(raw_ids), raw_void=(65000,))
    train = np.append(np.arange(num_classes), labels.ignore_index).astype(labels.dtype)
    raw = labels.to_raw(train)
    assert raw.tolist() == [*raw_ids, 65000]
    np.testing.assert_array_equal(labels.from_raw(raw), train)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.array([0.0]), "mask a.png has dtype float64, expected integers"),
        (np.array([-1, 2]), r"mask a.png holds values -1..2, expected 0..65535"),
        (np.array([70000]), r"holds values 70000..70000"),
        (np.array([1, 9, 9, 4], np.uint8), r"holds the ids \[4, 9\] that are not in the label set toy \(3 classes"),
    ],
)
def test_strange_raw_ids_are_named(raw, message):
    with pytest.raises(LabelError, match=message):
        space(name="toy").from_raw(raw, "mask a.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ()}, "needs 1 to 65535 classes, found 0"),
        ({"palette": np.zeros((2, 3), int)}, r"palette has shape \(2, 3\), expected \(3, 3\)"),
        ({"raw_ids": (1, 2)}, "3 names, but 2 raw ids and 3 kinds"),
        ({"kinds": ("thing",)}, "3 names, but 3 raw ids and 1 kinds"),
        ({"raw_ids": (1, 1, 2)}, r"must be distinct and differ from void, found \[1\] more than once$"),
        ({"raw_ids": (0, 1, 2), "raw_void": (2,)}, r"differ from void, found \[2\] among both$"),
        ({"raw_ids": (0, 1, 65536)}, r"must lie in 0..65535, found \[65536\]$"),
        ({"raw_ids": (0, 1, -1)}, r"must lie in 0..65535, found \[-1\]$"),
    ],
)
def test_label_sets_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(LabelError, match=message):
        space(**changes)


def test_label_maps_are_checked_for_dtype_and_strangers():
    space().check(np.array([0, 2, 255], np.uint8))
    with pytest.raises(LabelError, match="base have dtype int64, expected uint8"):
        space().check(np.array([0]), "base")
    with pytest.raises(LabelError, match=r"hold the ids \[3, 254\], expected 0..2 or the ignore index 255"):
        space().check(np.array([254, 0, 3], np.uint8))


def test_a_label_set_survives_its_json(tmp_path):
    labels = space(raw_ids=(1, 2, 3), raw_void=(0, 255), kinds=("stuff", "stuff", "thing"), name="toy")
    path = tmp_path / "label_set.json"
    path.write_text(json.dumps(labels.to_dict()))
    read = LabelSpace.from_json(path)
    assert read.to_dict() == labels.to_dict()
    assert (read.names, read.raw_ids, read.raw_void, read.kinds, read.name) == (
        ("sky", "road", "car"),
        (1, 2, 3),
        (0, 255),
        ("stuff", "stuff", "thing"),
        "toy",
    )
    np.testing.assert_array_equal(read.palette, labels.palette)


def test_json_may_leave_out_colours_kinds_and_void():
    labels = LabelSpace.from_dict({"classes": [{"id": 5, "name": "a"}, {"id": 6, "name": "b", "color": [9, 9, 9]}]})
    assert (labels.raw_ids, labels.raw_void, labels.kinds) == ((5, 6), (255,), ("", ""))
    assert labels.palette.tolist() == [[128, 0, 0], [9, 9, 9]]
    assert LabelSpace.from_dict({"ignore_index": 11, "classes": [{"id": 0, "name": "a"}]}).raw_void == (11,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not a label set"),
        ('{"classes": [{"name": "sky"}]}', r"is not a label set \(KeyError: 'id'\); expected .*\"classes\""),
        ('{"classes": [{"id": 1, "name": "a", "color": [1, 2]}]}', "is not a label set"),
        ('{"classes": []}', "needs 1 to 65535 classes, found 0"),
    ],
)
def test_broken_label_set_files_are_explained(tmp_path, text, message):
    path = tmp_path / "label_set.json"
    path.write_text(text)
    with pytest.raises(LabelError, match=message):
        LabelSpace.from_json(path)


def test_a_missing_label_set_file_is_named(tmp_path):
    with pytest.raises(LabelError, match=re.escape(f"cannot read the label set {tmp_path / 'no.json'}: No such file")):
        LabelSpace.from_json(tmp_path / "no.json")


@pytest.mark.dataset
@pytest.mark.parametrize(("name", "num_classes", "void"), [("camvid", 11, (11,)), ("ycbvideo", 22, (255,))])
def test_label_sets_of_real_data_are_read(shared_data, name, num_classes, void):
    labels = LabelSpace.from_json(shared_data / name / "label_set.json")
    assert (labels.num_classes, labels.raw_void) == (num_classes, void)


# ------------------------------------------------------------------------------------------- frames, windows, labels


def test_windows_cut_a_clip_and_the_last_one_may_be_shorter():
    assert split_windows(70, 32) == [Window(0, 32), Window(32, 32), Window(64, 6)]
    assert split_windows(64, 32) == [Window(0, 32), Window(32, 32)]
    assert split_windows(1, 32) == [Window(0, 1)]
    assert split_windows(0, 32) == []
    assert Window(64, 6).stop == 70


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 0)])
def test_windows_without_frames_are_refused(start, length):
    with pytest.raises(ShapeError, match=f"found {start} and {length}"):
        Window(start, length)


def test_a_window_length_below_1_is_refused():
    with pytest.raises(ShapeError, match="at least 1, found 0"):
        split_windows(10, 0)


def test_base_labels_check_dtype_and_shape():
    labels = np.zeros((2, 3, 4), np.uint8)
    BaseLabels(labels, np.zeros((2, 5, 1, 1), np.float16))
    with pytest.raises(ShapeError, match=r"base labels are int64 \(2, 3, 4\), expected uint8 or uint16"):
        BaseLabels(labels.astype(np.int64))
    with pytest.raises(ShapeError, match=r"uint8 \(3, 4\), expected"):
        BaseLabels(labels[0])
    for wrong in (np.zeros((3, 5, 1, 1)), np.zeros((2, 5, 1)), np.zeros((2, 5, 1, 1), int)):
        with pytest.raises(ShapeError, match=r"expected floats \(L=2, C, h, w\)"):
            BaseLabels(labels, wrong)


def test_frames_are_8_bit_rgb():
    frame = Frame(np.zeros((2, 3, 3), np.uint8), 7, "00000007", 700, Fraction(7, 30))
    assert (frame.index, frame.time_s) == (7, Fraction(7, 30))
    for wrong in (np.zeros((2, 3), np.uint8), np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 3))):
        with pytest.raises(ShapeError, match=r"frame x is .*, expected uint8 \(H, W, 3\)"):
            Frame(wrong, 0, "x")


# ---------------------------------------------------------------------------------------------------------- masklets


@given(st.integers(0, 2**32 - 1))
def test_masks_survive_compression(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random(rng.integers([0, 1, 1, 1], [5, 4, 20, 20])) < rng.random()
    window = window_of(masks, start=5)
    assert window.window == Window(5, masks.shape[1])
    assert window.size == masks.shape[2:]
    assert window.num_masklets == len(masks)
    for t in range(masks.shape[1]):
        stack = window.stack(t)
        assert stack.dtype == bool
        np.testing.assert_array_equal(stack, masks[:, t])
        np.testing.assert_array_equal(window.areas(t), masks[:, t].sum(axis=(1, 2)))
        assert window.coverage(t) == pytest.approx(masks[:, t].any(axis=0).mean() if len(masks) else 0)


def test_coverage_counts_overlapping_pixels_once():
    masks = np.array([[[[1, 1, 0, 0, 0]]], [[[0, 1, 1, 0, 0]]]])
    assert window_of(masks).coverage(0) == 0.6


def test_scores_default_to_one_and_ids_to_positions():
    window = window_of(np.ones((2, 1, 3, 3)))
    assert window.predicted_iou.tolist() == window.stability.tolist() == [1, 1]
    assert window.points.shape == (2, 2)
    assert window.ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"predicted_iou": np.ones(3)}, r"predicted_iou has shape \(3,\), expected \(2,\)"),
        ({"stability": np.ones((2, 1))}, r"stability has shape \(2, 1\), expected \(2,\)"),
        ({"points": np.ones((2, 3))}, r"points has shape \(2, 3\), expected \(2, 2\)"),
        ({"ids": np.array([4, 4])}, r"ids must be distinct, found \[4, 4\]"),
        ({"frame_iou": np.ones(2)}, r"frame_iou has shape \(2,\), expected \(1, 2\)"),
        ({"frame_iou": np.ones((2, 1))}, r"frame_iou has shape \(2, 1\), expected \(1, 2\)"),
        ({"frame_iou": np.array([[0.5, 1.5]])}, r"frame_iou holds values from 0\.5 to 1\.5, expected 0 to 1"),
        ({"frame_iou": np.array([[-0.5, 0]])}, r"frame_iou holds values from -0\.5 to 0\.0, expected 0 to 1"),
        ({"frame_iou": np.array([[np.nan, 0]])}, r"frame_iou holds values from nan to nan, expected 0 to 1"),
        ({"ids": np.arange(3)}, r"1 frames with \[2\] masks, expected 1 frames with 3 masks"),
    ],
)
def test_masklets_with_scores_that_do_not_fit_are_refused(scores, message):
    with pytest.raises(ShapeError, match=message):
        window_of(np.ones((2, 1, 3, 3)), **scores)


def test_masklets_check_the_form_of_masks():
    with pytest.raises(ShapeError, match=r"masks are float64 \(2, 3, 3\), expected bool \(N, L, H, W\)"):
        MaskletWindow.from_masks(np.ones((2, 3, 3)))
    good = window_of(np.ones((1, 2, 3, 3)))
    scores = {name: getattr(good, name) for name in ("predicted_iou", "stability", "points", "ids")}
    with pytest.raises(ShapeError, match=r"2 frames with \[1\] masks, expected 3 frames with 1 masks"):
        MaskletWindow(Window(0, 3), (3, 3), good.rles, **scores)
    with pytest.raises(ShapeError, match=r"masks of size \[\(3, 3\)\] do not fit frames of size \(3, 4\)"):
        MaskletWindow(Window(0, 2), (3, 4), good.rles, **scores)


def test_the_quality_of_every_frame_is_known_or_not():
    quality = np.array([[0, 1], [0.25, 0.5], [1, 0]], np.float32)
    assert window_of(np.ones((2, 3, 3, 3)), frame_iou=quality).frame_iou is quality
    assert window_of(np.ones((2, 3, 3, 3))).frame_iou is None
    assert window_of(np.zeros((0, 3, 3, 3)), frame_iou=np.zeros((3, 0), np.float32)).frame_iou.shape == (3, 0)


def test_no_masklets_are_allowed():
    window = window_of(np.zeros((0, 2, 3, 4)))
    assert window.num_masklets == 0
    assert window.stack(1).shape == (0, 3, 4)
    assert window.areas(0).shape == (0,)
    assert window.coverage(0) == 0.0
    assert encode_masks(np.zeros((0, 3, 4), bool)) == ()


def test_compressed_masks_are_coco_rle():
    (rle,) = encode_masks(np.eye(3, dtype=bool)[None])
    assert tuple(rle["size"]) == (3, 3)
    np.testing.assert_array_equal(coco_mask.decode(rle), np.eye(3))


# -------------------------------------------------------------------------------------------------------- refinement


def refinement(labels: np.ndarray, base: np.ndarray) -> Refinement:
    return Refinement(
        window=Window(0, 1),
        labels=labels,
        base=base,
        votes=np.zeros((0, 2), np.int64),
        classes=np.zeros(0, np.int64),
        vote_share=np.zeros(0),
        coverage=np.zeros(1),
        masklets=window_of(np.zeros((0, 1, 1, 3))),
    )


def test_a_refinement_counts_changed_pixels():
    changed = refinement(np.array([[[0, 1, 255]]], np.uint8), np.array([[[1, 1, 0]]], np.uint8))
    assert changed.num_changed_pixels == 2


def test_a_refinement_needs_labels_and_base_of_one_shape():
    one, two = np.zeros((1, 1, 3), np.uint8), np.zeros((2, 1, 3), np.uint8)
    for labels, base in ((one, two), (two, two)):
        with pytest.raises(ShapeError, match="must be equal and 1 frames long"):
            refinement(labels, base)


# ------------------------------------------------------------------------------------------------- files by strangers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"classes": [{"id": 1.7, "name": "a"}]}', r"raw ids must be integers, found \[1\.7\]"),
        ('{"classes": [{"id": Infinity, "name": "a"}]}', r"raw ids must be integers, found \[inf\]"),
        ('{"classes": [{"id": "1", "name": "a"}]}', "raw ids must be integers, found \\['1'\\]"),
        ('{"classes": [{"id": 0, "name": "a", "color": [0.5, 0, 0]}]}', r"colours must be integers 0\.\.255, found"),
        ('{"classes": [{"id": 0, "name": "a", "color": [300, -1, 2]}]}', r"0\.\.255, found \[300, -1, 2\]"),
        ('{"classes": [{"id": 0, "name": "a", "color": [1, 2]}]}', "is not a label set"),
        ('{"classes": [{"id": 0, "name": "a"}], "ignore_ids": [2.5]}', r"raw ids must be integers, found \[2\.5\]"),
        ("[" * 100000, "is not valid JSON"),
    ],
)
def test_numbers_in_a_label_set_are_integers(tmp_path, text, message):
    (tmp_path / "ls.json").write_text(text)
    with pytest.raises(LabelError, match=rf"ls\.json .*{message}"):
        LabelSpace.from_json(tmp_path / "ls.json")


def test_a_byte_order_mark_before_a_label_set_is_no_matter(tmp_path):
    (tmp_path / "ls.json").write_text('{"classes": [{"id": 4, "name": "a"}]}', encoding="utf-8-sig")
    assert LabelSpace.from_json(tmp_path / "ls.json").raw_ids == (4,)


def test_any_number_of_masklets_has_areas_coverage_and_masks():
    masks = np.arange(12).reshape(3, 4) < (np.arange(600) % 13)[:, None, None, None]  # areas 0..12, again and again

    window = MaskletWindow.from_masks(masks)

    assert window.areas(0).tolist() == [n % 13 for n in range(600)]
    assert window.coverage(0) == 1.0
    assert np.array_equal(window.stack(0), masks[:, 0])
