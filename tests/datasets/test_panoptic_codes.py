import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.panoptic_codes import (
    UNNUMBERED,
    FrameSegments,
    PanopticMap,
    colors_to_ids,
    decode_segments,
    decode_vipseg,
    encode_segments,
    encode_vipseg,
    find_things,
    ids_to_colors,
)
from sam2vss.errors import LabelError, ShapeError
from sam2vss.types import LabelSpace, voc_palette

VIPSEG = find_label_space("vipseg")
WALL, CAR, PERSON, TRAIN = (VIPSEG.names.index(name) for name in ("wall", "car", "person", "train"))
# categories 3 (stuff), 7 and 9 (things)
SPACE = LabelSpace(
    ("road", "cat", "dog"),
    voc_palette(3),
    raw_ids=(3, 7, 9),
    raw_void=(0,),
    kinds=("stuff", "thing", "thing"),
    name="pets",
)


def listed(*entries: tuple[int, int, int]) -> FrameSegments:
    ids, categories, crowds = (np.array(column) for column in zip(*sorted(entries), strict=True))
    return FrameSegments(ids.astype(np.int64), categories.astype(np.int64), crowds.astype(bool))


# --- VIPSeg's code ---------------------------------------------------------------------------------------------------


def test_vipseg_codes_are_class_numbers_of_stuff_and_hundreds_of_things():
    # README of VIPSeg: person is 61, its instances are 6100, 6101, ...; 0 is void; up to 124 a class as it is
    found = decode_vipseg(np.array([[0, 1, 6100, 6101, 12499, 4900]], np.uint16), VIPSEG)
    assert found.semantic.tolist() == [[255, WALL, PERSON, PERSON, TRAIN, CAR]]
    assert found.instance.tolist() == [[0, 0, 1, 2, 100, 1]]
    assert (found.semantic.dtype, found.instance.dtype) == (np.uint8, np.int32)


def test_a_thing_without_number_is_one_instance_and_no_crowd():
    found = decode_vipseg(np.array([[61, 6100]], np.uint16), VIPSEG)
    assert found.semantic.tolist() == [[PERSON, PERSON]]
    assert found.instance.tolist() == [[UNNUMBERED, 1]]


def test_every_code_of_vipseg_agrees_with_its_own_conversion():
    codes = np.arange(1, 12500, dtype=np.uint16)
    # create_panoptic_video_labels.py: below 125 the code is the class, else code // 100; categories count from 0
    expected = [code - 1 if code < 125 else code // 100 - 1 for code in codes.tolist()]
    found = decode_vipseg(codes[None], VIPSEG)
    assert found.semantic[0].tolist() == expected
    tubes = set(zip(found.semantic[0].tolist(), found.instance[0].tolist(), strict=True))
    assert len(tubes) == len(codes)  # every code is a segment of its own there, and here


@pytest.mark.parametrize("code", [12500, 65535])
def test_codes_without_a_class_are_refused(code: int):
    with pytest.raises(LabelError, match=rf"clip/1.png holds the codes \[{code}\] .* label set vipseg: expected void"):
        decode_vipseg(np.array([[1, code]], np.uint16), VIPSEG, "clip/1.png")


def test_codes_are_integers_of_8_or_16_bits():
    with pytest.raises(LabelError, match="dtype float32"):
        decode_vipseg(np.zeros((1, 1), np.float32), VIPSEG)
    assert decode_vipseg(np.ones((1, 1), np.uint8), VIPSEG).semantic.tolist() == [[WALL]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12499), min_size=1, max_size=30))
def test_codes_come_back_as_they_were(codes: list[int]):
    # but for codes that VIPSeg has no use for: instances of stuff (125..299 are those of wall and ceiling)
    things = find_things(VIPSEG)
    kept = [code for code in codes if code < 125 or things[code // 100 - 1]]
    stored = np.array([kept or [0]], np.uint16)
    assert encode_vipseg(decode_vipseg(stored, VIPSEG), VIPSEG).tolist() == stored.tolist()


@pytest.mark.parametrize(
    ("category", "instance", "name"), [(PERSON, 0, "person"), (PERSON, 102, "person"), (WALL, 1, "wall")]
)
def test_what_has_no_code_is_refused(category: int, instance: int, name: str):
    frame = PanopticMap(np.array([[category]], np.uint8), np.array([[instance]], np.int32))
    with pytest.raises(LabelError, match=f"instance {instance} of '{name}' has no panoptic code; .* Use the COCO form"):
        encode_vipseg(frame, VIPSEG)


def test_a_code_that_is_a_class_number_too_is_refused_when_written():
    space = LabelSpace(tuple("abc"), voc_palette(3), raw_ids=(1, 2, 150), raw_void=(0,), kinds=("thing",) * 3)
    frame = PanopticMap(np.array([[0]], np.uint8), np.array([[5]], np.int32))  # 104 is at most 150
    with pytest.raises(LabelError, match="instance 5 of 'a' has no panoptic code"):
        encode_vipseg(frame, space)


# --- segments --------------------------------------------------------------------------------------------------------


def test_segment_ids_are_the_digits_of_a_colour():
    colors = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]], np.uint8)
    assert colors_to_ids(colors).tolist() == [[1, 256, 65536, 16777215]]
    assert (ids_to_colors(colors_to_ids(colors)) == colors).all()


def test_segments_become_classes_and_their_ids_instances():
    found = decode_segments(
        np.array([[0, 5, 5], [70000, 8, 9]]), listed((5, 3, 0), (70000, 7, 0), (8, 9, 0), (9, 9, 1)), SPACE
    )
    assert found.semantic.tolist() == [[255, 0, 0], [1, 2, 2]]
    assert found.instance.tolist() == [[0, 5, 5], [70000, 8, 0]]  # segment 9 is a crowd


def test_crowds_of_predictions_are_segments_like_any_other():
    found = decode_segments(np.array([[9]]), listed((9, 9, 1)), SPACE, has_crowds=False)
    assert found.instance.tolist() == [[9]]


def test_classes_are_read_without_knowing_what_is_a_thing():
    found = decode_segments(np.array([[1, 2]]), listed((1, 0, 0), (2, 1, 1)), LabelSpace.numbered(2), has_crowds=False)
    assert found.semantic.tolist() == [[0, 1]]
    with pytest.raises(LabelError, match="does not say of 2 classes whether they are things"):
        decode_segments(np.array([[1, 2]]), listed((1, 0, 0), (2, 1, 1)), LabelSpace.numbered(2))


def test_a_frame_without_segments_is_void():
    none = FrameSegments(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))
    assert decode_segments(np.zeros((1, 2), np.uint32), none, SPACE).semantic.tolist() == [[255, 255]]


@pytest.mark.parametrize(
    ("ids", "segments", "message"),
    [
        ([[5, 6]], [(5, 3, 0)], r"a.png holds 1 segments that its JSON does not list \(first: \[6\]\)"),
        ([[5, 5]], [(5, 3, 0), (6, 7, 0)], r"a.png has no pixel of 1 segments that its JSON lists \(first: \[6\]\)"),
        ([[5, 5]], [(5, 4, 0)], r"segment 5 has the category 4 that is not in label set pets \(3 classes, ids 3..9\)"),
        ([[5, 5]], [(5, -3, 0)], "has the category -3"),
        ([[5, 5]], [(5, 3, 1)], "segment 5 is a crowd of the stuff class 'road'; only things have crowds"),
    ],
)
def test_pictures_and_lists_that_disagree_are_refused(ids: list, segments: list, message: str):
    with pytest.raises(LabelError, match=message):
        decode_segments(np.array(ids), listed(*segments), SPACE, "a.png")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 255]), st.integers(0, 5)), min_size=1, max_size=20))
def test_classes_and_instances_survive_the_coco_form(pixels: list[tuple[int, int]]):
    semantic = np.array([[category for category, _ in pixels]], np.uint8)
    instance = np.array([[0 if category == 255 else number for category, number in pixels]], np.int32)
    ids, segments = encode_segments(PanopticMap(semantic, instance), SPACE)
    assert segments.areas is not None
    assert int(segments.areas.sum()) == int((semantic != 255).sum())
    back = decode_segments(colors_to_ids(ids_to_colors(ids)), segments, SPACE)
    assert back.semantic.tolist() == semantic.tolist()
    # instances get other numbers, but the same pixels share one, and crowds stay crowds
    pairs = {(*tube, int(number)) for *tube, number in zip(semantic[0], instance[0], back.instance[0], strict=True)}
    assert len(pairs) == len(set(zip(semantic[0].tolist(), instance[0].tolist(), strict=True)))
    is_crowd = (instance == 0) & np.isin(semantic, [1, 2])
    assert (back.instance[is_crowd] == 0).all()
    assert (back.instance[~is_crowd & (semantic != 255)] > 0).all()


def test_segment_ids_of_a_tube_are_the_same_in_every_frame():
    first = PanopticMap(np.array([[0, 2]], np.uint8), np.array([[0, 4]], np.int32))
    second = PanopticMap(np.array([[2, 1]], np.uint8), np.array([[4, 1]], np.int32))
    assert encode_segments(first, SPACE)[0][0, 1] == encode_segments(second, SPACE)[0][0, 0]


def test_stuff_is_listed_before_things():
    space = LabelSpace(("cat", "road"), voc_palette(2), kinds=("thing", "stuff"))
    _, segments = encode_segments(PanopticMap(np.array([[0, 1]], np.uint8), np.array([[1, 0]], np.int32)), space)
    assert segments.categories.tolist() == [1, 0]


def test_instance_numbers_that_need_more_than_24_bits_are_refused():
    frame = PanopticMap(np.array([[2]], np.uint8), np.array([[6_000_000]], np.int32))
    with pytest.raises(LabelError, match=r"must lie in 0..5592404"):
        encode_segments(frame, SPACE)


def test_a_panoptic_map_is_two_maps_of_one_size():
    with pytest.raises(ShapeError, match=r"classes \(1, 2\) and instances \(2, 1\) must both be \(H, W\)"):
        PanopticMap(np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.int32))


def test_label_sets_must_say_what_is_a_thing():
    assert find_things(SPACE) == (False, True, True)
    with pytest.raises(LabelError, match=r"of 2 classes whether they are things \(first: 'class 0'\)"):
        find_things(LabelSpace.numbered(2))
