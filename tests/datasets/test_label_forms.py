"""Which form a folder of label maps has: the first rule that fits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic_files import SPACE, VOID, write_dvis, write_ids
from sam2vss.datasets.label_forms import find_label_form
from sam2vss.datasets.label_maps import open_label_maps, open_panoptic_maps
from sam2vss.datasets.panoptic_codes import PanopticMap
from sam2vss.datasets.panoptic_folders import write_codes
from sam2vss.errors import LabelError
from sam2vss.types import LabelSpace

LABELS = np.array([[0, 1, 1, VOID], [0, 2, 1, VOID]], np.uint8)


def raw(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == VOID, 0, labels + 1)


def test_pred_json_wins_over_whatever_lies_beside_it(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    write_ids(tmp_path / "v", {"f": np.zeros((2, 4))})
    write_codes(tmp_path / "panomasks" / "v" / "f.png", PanopticMap(LABELS, (LABELS % 255 > 0).astype(np.int32)), SPACE)
    assert find_label_form(tmp_path, SPACE).name == "pred.json"
    assert find_label_form(tmp_path / "pan_pred", SPACE).name == "pred.json"  # the list lies beside it


def test_what_a_run_of_ours_wrote_are_class_ids(tmp_path: Path):
    write_ids(tmp_path / "labels" / "v", {"f": np.array([[1]])}, "I;16")
    (tmp_path / "run.json").write_text("{}")
    assert find_label_form(tmp_path, SPACE).name == "class ids"
    assert find_label_form(tmp_path / "labels", SPACE).name == "class ids"


def test_other_json_beside_pictures_is_no_list_of_segments(tmp_path: Path):
    write_ids(tmp_path / "v", {"f": raw(LABELS)})
    (tmp_path / "v" / "f.json").write_text('{"version": "5.0.1", "shapes": []}')  # labelme
    assert find_label_form(tmp_path, SPACE).name == "class ids"


def test_wide_ids_are_codes_only_where_the_label_set_can_be_one_of_codes(tmp_path: Path):
    write_ids(tmp_path / "v", {"f": np.array([[1, 200]])}, "I;16")  # instance 0 of class 2, a thing
    assert find_label_form(tmp_path, SPACE).name == "panoptic codes"
    for other in (LabelSpace.numbered(3), LabelSpace.numbered(400), replace(SPACE, kinds=("", "", ""))):
        assert find_label_form(tmp_path, other).name == "class ids"
    assert find_label_form(tmp_path).name == "class ids"


@pytest.mark.parametrize("number", [3, 100, 199, 400, 65535])
def test_wide_ids_without_an_instance_of_a_thing_are_class_ids(tmp_path: Path, number: int):
    # 100..199 would be instances of class 1, stuff, and there is no class 4: codes hold neither
    write_ids(tmp_path / "v", {"f": np.array([[1, number]])}, "I;16")
    assert find_label_form(tmp_path, SPACE).name == "class ids"


def test_one_instance_in_a_later_video_makes_codes_of_them_all(tmp_path: Path):
    for video in "abc":
        write_ids(tmp_path / video, {"f": np.array([[1, 299 if video == "c" else 2]])}, "I;16")
    (tmp_path / "b" / "f.png").write_bytes(b"")  # reported by those who read it
    assert find_label_form(tmp_path, SPACE).name == "panoptic codes"


def test_ids_that_the_label_set_takes_for_void_are_no_instances(tmp_path: Path):
    write_ids(tmp_path / "v", {"f": np.array([[1, 255]])}, "I;16")
    assert find_label_form(tmp_path, replace(SPACE, raw_void=(0, 255))).name == "class ids"


@pytest.mark.parametrize("name", ["result_submission", "inference"])
def test_the_result_folder_of_a_model_is_stepped_into_if_it_is_alone(tmp_path: Path, name: str):
    write_ids(tmp_path / name / "v", {"f": raw(LABELS)})
    (tmp_path / "log.txt").touch()
    assert find_label_form(tmp_path, SPACE).folder == tmp_path / name
    write_ids(tmp_path / "w", {"f": raw(LABELS)})
    assert find_label_form(tmp_path, SPACE).folder == tmp_path


def test_panoptic_results_are_found_in_dvis_s_own_folder(tmp_path: Path):
    write_dvis(tmp_path / "inference", {"v": {"f": LABELS}})
    assert find_label_form(tmp_path, SPACE).listing == tmp_path / "inference" / "pred.json"


def test_pictures_in_colour_without_a_list_name_the_known_forms(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    (tmp_path / "pred.json").unlink()
    with pytest.raises(LabelError, match=r"f\.png has mode RGB.*Known forms: pred.json beside pan_pred/<video>.*DEVA"):
        open_label_maps(tmp_path / "pan_pred", SPACE)
    assert open_panoptic_maps(tmp_path / "pan_pred", SPACE) is None  # evaluate may know the colours
    for opened in (open_label_maps, open_panoptic_maps):
        with pytest.raises(LabelError, match=r"holds pan_pred and no pred\.json, .*: copy that file too"):
            opened(tmp_path, SPACE)
    grey = np.repeat(raw(LABELS)[..., None], 3, -1).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "pan_pred/v/f.png")
    assert find_label_form(tmp_path / "pan_pred", SPACE).name == "class ids"


def test_an_empty_or_broken_folder_is_left_to_those_who_look_for_a_clip(tmp_path: Path):
    assert find_label_form(tmp_path, SPACE).name == "class ids"
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "f.png").write_bytes(b"\x89PNG\r\n")
    assert find_label_form(tmp_path, SPACE).name == "class ids"
