import numpy as np
from PIL import Image

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.truth import TruthReader, other_void_values
from sam2vss.types import LabelSpace


def space_of(raw_ids, raw_void):
    names = tuple(f"class {i}" for i in range(len(raw_ids)))
    return LabelSpace(names, np.zeros((len(names), 3), np.uint8), raw_ids, raw_void)


def test_each_void_id_but_the_first_gets_a_value_of_its_own(tmp_path):
    space = space_of((1, 2), (0, 9, 7))
    assert other_void_values(space) == {9: 254, 7: 253}  # counting down from the ignore index 255
    reader = TruthReader(space)
    Image.fromarray(np.array([[0, 1, 2, 9, 7]], np.uint8)).save(tmp_path / "0.png")
    assert reader.read(tmp_path / "0.png").tolist() == [[255, 0, 1, 254, 253]]
    assert reader.other_void_ids == (254, 253)


def test_void_ids_stay_one_where_no_value_is_left_beside_the_classes():
    assert other_void_values(space_of(tuple(range(1, 255)), (0, 300, 400))) == {300: 254}


def test_vspw_s_void_0_is_told_from_its_void_255():
    assert other_void_values(find_label_space("vspw")) == {0: 254}
