from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.datasets.predictions import PredictionForm, find_shift, match_classes, resize_nearest, respelled
from sam2vss.errors import LabelError, SettingsError
from sam2vss.types import LabelSpace


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 99))
def test_resizing_takes_the_pixel_that_holds_the_centre(sizes: tuple[int, int, int, int], seed: int):
    height, width, new_height, new_width = sizes
    labels = np.random.default_rng(seed).integers(0, 200, (height, width), np.uint8)
    found = resize_nearest(labels, (new_height, new_width))
    assert found.dtype == labels.dtype
    for y in range(new_height):
        for x in range(new_width):
            # exact, where Pillow's and OpenCV's sums of floats may fall to either side of a border between pixels
            center = (y + Fraction(1, 2)) * height / new_height, (x + Fraction(1, 2)) * width / new_width
            assert found[y, x] == labels[floor(center[0]), floor(center[1])]


def test_resizing_down_by_two_takes_the_later_of_two_pixels():
    # centre of pixel 0 of 2 lies at 1.0 of 4, the corner of source pixels 0 and 1
    assert resize_nearest(np.array([[0, 1, 2, 3]]), (1, 2)).tolist() == [[1, 3]]


@given(st.integers(2, 6), st.integers(0, 999))
def test_a_shift_is_found_as_by_counting(num_classes: int, seed: int):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 5, (num_classes, num_classes + 1))
    offset = int(rng.integers(-1, 2))
    for t in range(num_classes):
        if 0 <= t - offset < num_classes:
            confusion[t, t - offset] += 40
    found = find_shift(confusion)
    right = {
        k: sum(int(confusion[t, t - k]) for t in range(num_classes) if 0 <= t - k < num_classes) for k in (-1, 0, 1)
    }
    total = int(confusion.sum())
    clear = [k for k in (-1, 1) if 2 * right[k] >= total and right[k] > 2 * right[0]]
    assert found.offset == (max(clear, key=lambda k: right[k]) if clear else 0)
    assert found.share_as_stored == right[0] / total


def test_no_shift_is_seen_in_nothing():
    assert find_shift(np.zeros((3, 4), np.int64)).offset == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "skip"}, "--missing 'skip' is unknown, expected error or void"),
        ({"id_offset": 70000}, "--id-offset 70000 leaves no id"),
        ({"colors": True, "id_offset": 1}, "--colors gives classes by colour and --id-offset moves stored ids"),
    ],
)
def test_forms_that_make_no_sense_are_refused(options: dict[str, object], message: str):
    with pytest.raises(SettingsError, match=message):
        PredictionForm(**options)  # type: ignore[arg-type]


def called(*names: str) -> LabelSpace:
    return LabelSpace(names, np.zeros((len(names), 3), np.uint8))


def test_names_are_respelled_where_it_is_clear_which_is_meant():
    truth = called("wall", "Mobile_phone", "road", "sky")
    stored = called(" Wall", "mobile phone", "street", "sky")
    assert respelled(stored, truth).names == ("wall", "Mobile_phone", "street", "sky")
    assert respelled(called("Wall", "wall", "WALL"), truth).names == ("Wall", "wall", "WALL")
    assert respelled(called("ROAD", "Road"), truth).names == ("ROAD", "Road")
    assert respelled(called("WALL"), called("wall", "Wall")).names == ("WALL",)
    assert respelled(truth, truth) is truth


def test_classes_are_matched_by_position_only_where_no_name_says_otherwise():
    truth = called("road", "cat", "dog")
    assert match_classes(truth, called("dog", "road", "cat")).tolist() == [2, 0, 1]
    assert match_classes(truth, called("street", "cat", "dog")).tolist() == [0, 1, 2]
    assert match_classes(truth, called("x", "y", "z")).tolist() == [0, 1, 2]
    with pytest.raises(LabelError, match=r"another order .* \(2 of 3 names, first 'dog'\), .* \('street' is unknown"):
        match_classes(truth, called("dog", "road", "street"))
    assert match_classes(truth, called("cat", "cat", "cat")).tolist() == [0, 1, 2]  # says nothing
