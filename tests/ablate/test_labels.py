import numpy as np
import pytest
from PIL import Image

from sam2vss.ablate.labels import ClipTruth
from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.truth import TruthReader
from sam2vss.errors import LabelError, MissingPredictionsError
from sam2vss.types import Frame

FRAME = Frame(np.zeros((2, 3, 3), np.uint8), 0, "0")


def write_map(path, ids):
    Image.fromarray(np.array(ids, np.uint16)).save(path)
    return {"0": path}


def test_truth_is_read_as_for_evaluate_second_void_id_included(tmp_path):
    files = write_map(tmp_path / "0.png", [[0, 255, 1], [124, 2, 255]])
    space = find_label_space("vspw")
    truth = ClipTruth("clip", files, space).of(FRAME)
    assert truth.tolist() == [[254, 255, 0], [123, 1, 255]]
    assert truth.tolist() == TruthReader(space).read(files["0"]).tolist()


def test_panoptic_codes_are_turned_into_classes(tmp_path):
    files = write_map(tmp_path / "0.png", [[0, 1, 6100], [61, 6101, 124]])  # class 61 with and without instances
    truth = ClipTruth("clip", files, find_label_space("vipseg"), is_panoptic=True).of(FRAME)
    assert truth.tolist() == [[255, 0, 60], [60, 60, 123]]


def test_a_frame_without_label_map_has_no_truth(tmp_path):
    assert ClipTruth("clip", {"1": tmp_path / "1.png"}, find_label_space("vspw")).of(FRAME) is None


def test_truth_of_another_size_names_the_file_and_both_sizes(tmp_path):
    files = write_map(tmp_path / "0.png", [[1, 2]])
    with pytest.raises(LabelError, match=r"0\.png is \(1, 2\), its frame \(2, 3\)"):
        ClipTruth("clip", files, find_label_space("vspw")).of(FRAME)


def test_label_maps_without_frames_are_counted_and_the_first_is_named(tmp_path):
    truth = ClipTruth("clip", dict.fromkeys(("0", "7", "8"), tmp_path), find_label_space("vspw"))
    with pytest.raises(MissingPredictionsError, match=r"2 of 3 label maps of clip clip have no frame \(first: 7\)"):
        truth.check(["0", "1"])


def test_a_clip_without_label_maps_is_said_to_have_none():
    with pytest.raises(LabelError, match="clip clip has no label maps, expected one PNG a labelled frame"):
        ClipTruth("clip", {}, find_label_space("vspw")).check(["0"])
