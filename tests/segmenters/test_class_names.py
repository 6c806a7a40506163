"""Label sets by the number of classes and their names."""

import pytest

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.segmenters.class_names import label_space_of, vipseg_training_order

VSPW = find_label_space("vspw")


def test_124_classes_are_vspws_with_its_numbers_in_files():
    found = label_space_of(124)

    assert (found.names, found.raw_ids, found.raw_void) == (VSPW.names, VSPW.raw_ids, VSPW.raw_void)
    assert (found.names[0], found.names[123], found.raw_ids[0], found.raw_ids[123]) == ("wall", "train", 1, 124)


@pytest.mark.parametrize("names", [(), ("wall",), tuple(name.replace("_", " ").upper() for name in VSPW.names)])
def test_no_names_too_few_names_and_vspws_own_in_another_spelling_are_vspw(names: tuple[str, ...]):
    assert label_space_of(124, names).name == "vspw"


def test_names_win_over_the_number():
    found = label_space_of(124, [f"thing {i}" for i in range(124)])

    assert (found.names[3], found.name, found.raw_ids[0]) == ("thing 3", "124 classes of the model", 0)


def test_19_classes_are_those_of_cityscapes_in_its_colours():
    found = label_space_of(19)

    assert (found.name, found.names[0], found.names[13]) == ("Cityscapes", "road", "car")
    assert found.palette[13].tolist() == [0, 0, 142]


def test_names_of_a_well_known_set_bring_its_colours():
    found = label_space_of(150, ["wall", "building", "sky", *["?"] * 146, "flag"])

    assert (found.name, found.palette[2].tolist()) == ("ADE20K", [6, 230, 230])


def test_other_numbers_leave_the_classes_unnamed_and_say_so():
    found = label_space_of(7)

    assert (found.name, found.names[6], found.num_classes) == ("7 unnamed classes", "class 6", 7)


def test_vipseg_models_count_things_before_stuff():
    order = vipseg_training_order()

    assert sorted(order) == list(range(124))
    assert order[:4] == (2, 4, 8, 10)  # door, ladder, window, goal: the first things
    assert order[57:61] == (123, 0, 1, 3)  # train, the last of 58 things; then wall, ceiling, stair
    assert all(VSPW.kinds[i] == "thing" for i in order[:58])
