import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.panoptic_codes import PanopticMap
from sam2vss.datasets.panoptic_folders import PanopticWriter, open_panoptic, positions, write_codes
from sam2vss.datasets.panoptic_json import check_name, panoptic_json, read_panoptic_json
from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.types import LabelSpace, voc_palette

SPACE = LabelSpace(
    ("road", "cat", "dog"),
    voc_palette(3),
    raw_ids=(1, 2, 3),
    raw_void=(0,),
    kinds=("stuff", "thing", "thing"),
    name="pets",
)
FRAME = PanopticMap(np.array([[0, 1, 1], [255, 2, 2]], np.uint8), np.array([[0, 1, 2], [0, 1, 1]], np.int32))


def write_json_form(root: Path, truth_name: str | None = "set", videos: tuple[str, ...] = ("a", "b")) -> Path:
    writer = PanopticWriter(root, SPACE, truth_name)
    for video in videos:
        for frame in ("2", "10"):
            writer.write(video, frame, FRAME)
    writer.finish()
    return writer.json_path


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first_frame(content: dict) -> dict:
    return content["annotations"][0]["annotations"][0]


# --- forms -----------------------------------------------------------------------------------------------------------


def same_tubes(found: PanopticMap, expected: PanopticMap) -> bool:
    planes = (found.instance, expected.instance, found.semantic)
    pairs = set(zip(*(plane.ravel().tolist() for plane in planes), strict=True))
    tubes = set(zip(expected.semantic.ravel().tolist(), expected.instance.ravel().tolist(), strict=True))
    return found.semantic.tolist() == expected.semantic.tolist() and len(pairs) == len(tubes)


@pytest.mark.parametrize("truth_name", ["set", None])
def test_the_coco_form_is_read_as_it_was_written(tmp_path: Path, truth_name: str | None):
    path = write_json_form(tmp_path, truth_name)
    for place in (tmp_path, path):
        found = open_panoptic(place)
        assert {video: list(frames) for video, frames in found.frames.items()} == {"a": ["2", "10"], "b": ["2", "10"]}
        assert same_tubes(found.read("a", "10"), FRAME)
        assert (found.label_space.names, found.label_space.kinds) == (SPACE.names, SPACE.kinds)


def test_codes_are_read_from_folders_with_a_label_set_beside_them(tmp_path: Path):
    write_codes(tmp_path / "set" / "a" / "1.png", FRAME, SPACE)
    with pytest.raises(LabelError, match=r"nothing says what the numbers in .* mean: pass --label-set vipseg or"):
        open_panoptic(tmp_path / "set")
    (tmp_path / "label_set.json").write_text(json.dumps(SPACE.to_dict()))
    for found in (open_panoptic(tmp_path / "set"), open_panoptic(tmp_path / "set", SPACE)):
        assert found.read("a", "1").semantic.tolist() == FRAME.semantic.tolist()
        assert found.read("a", "1").instance.tolist() == FRAME.instance.tolist()
    assert np.array(Image.open(tmp_path / "set" / "a" / "1.png")).tolist() == [[1, 200, 201], [0, 300, 300]]


def test_a_prediction_as_dvis_saves_it_needs_neither_categories_nor_videos(tmp_path: Path):
    # vps_eval.py of DVIS: file_name keeps .jpg, the picture is <stem>.png, entries have bbox and area
    folder = tmp_path / "pan_pred" / "v"
    folder.mkdir(parents=True)
    Image.fromarray(np.array([[[0, 1, 0], [0, 0, 0]]], np.uint8)).save(folder / "0001.png")
    entry = {"bbox": [0, 0, 0, 0], "area": 1, "category_id": 1, "iscrowd": 0, "id": 256}
    content = {"annotations": [{"annotations": [{"segments_info": [entry], "file_name": "0001.jpg"}], "video_id": "v"}]}
    (tmp_path / "pred.json").write_text(json.dumps(content))
    found = open_panoptic(tmp_path, SPACE).read("v", "0001")
    assert found.semantic.tolist() == [[1, 255]]  # category 1 is the second class
    assert found.instance.tolist() == [[256, 0]]
    by_id = open_panoptic(tmp_path, SPACE, category_space=SPACE).read("v", "0001")
    assert by_id.semantic.tolist() == [[0, 255]]  # category 1 is the class with id 1
    with pytest.raises(LabelError, match=r"pred.json has no categories: pass --label-set"):
        open_panoptic(tmp_path)


def test_a_split_chooses_the_list_of_segments_or_the_videos(tmp_path: Path):
    write_json_form(tmp_path, "set_val", ("a",))
    write_json_form(tmp_path, "set_train", ("b",))
    assert list(open_panoptic(tmp_path, split="val").frames) == ["a"]
    assert list(open_panoptic(tmp_path / "panoptic_gt_set_train.json").frames) == ["b"]
    with pytest.raises(LabelError, match=r"holds 2 lists of segments \(panoptic_gt_set_train.json, .*or pass --split"):
        open_panoptic(tmp_path)
    (tmp_path / "panoptic_gt_set_val.json").unlink()
    (tmp_path / "val.txt").write_text("b")
    assert list(open_panoptic(tmp_path, split="val").frames) == ["b"]
    (tmp_path / "val.txt").write_text("b\nc")
    with pytest.raises(LabelError, match=r"1 of 2 videos of split val have no panoptic label maps in .* \(first: c\)"):
        open_panoptic(tmp_path, split="val")
    with pytest.raises(SettingsError, match=r"test.txt, .* split test, is neither in .* found lists for val"):
        open_panoptic(tmp_path, split="test")


def test_positions_number_the_classes_from_zero():
    assert positions(find_label_space("vipseg")).raw_ids == tuple(range(124))


# --- defects ---------------------------------------------------------------------------------------------------------


def test_a_folder_without_any_of_the_forms_says_which_there_are(tmp_path: Path):
    with pytest.raises(LabelError, match=r"nowhere does not exist; expected pred.json beside pan_pred"):
        open_panoptic(tmp_path / "nowhere")
    with pytest.raises(LabelError, match="no label PNG found"):
        open_panoptic(tmp_path, SPACE)


def test_pictures_that_are_missing_or_unlisted_are_named(tmp_path: Path):
    path = write_json_form(tmp_path)
    shutil.copy(tmp_path / "panomasksRGB/a/2.png", tmp_path / "panomasksRGB/a/3.png")
    with pytest.raises(
        LabelError, match=r"holds 1 pictures that .*panoptic_gt_set.json does not list \(first: a/3.png\)"
    ):
        open_panoptic(tmp_path)
    (tmp_path / "panomasksRGB/a/3.png").unlink()
    (tmp_path / "panomasksRGB/b/10.png").unlink()
    with pytest.raises(LabelError, match=r"1 of 4 frames that .* lists have no picture in .* \(first: b/10.png\)"):
        open_panoptic(tmp_path)
    shutil.rmtree(tmp_path / "panomasksRGB")
    with pytest.raises(LabelError, match=r"pictures of .* are missing: none of its 2 videos is a folder in .*pan_pred"):
        open_panoptic(path)


def test_a_picture_of_another_size_than_the_json_says_is_named(tmp_path: Path):
    path = write_json_form(tmp_path)
    edit(path, lambda content: content["videos"][0]["images"][0].update(height=5))
    with pytest.raises(ShapeError, match=r"a/2.png is 2 x 3 \(height x width\), but .* says 5 x 3"):
        open_panoptic(tmp_path).read("a", "2")


def test_a_surplus_segment_in_the_picture_is_named_with_its_file(tmp_path: Path):
    path = write_json_form(tmp_path)
    edit(path, lambda content: first_frame(content)["segments_info"].pop())
    with pytest.raises(LabelError, match=r"a/2.png holds 1 segments that its JSON does not list"):
        open_panoptic(tmp_path).read("a", "2")


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "a\\b", "..", ".", "", "a\0b", 3.5, None, True])
@pytest.mark.parametrize("key", ["video_id", "file_name"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: Any, key: str):
    path = write_json_form(tmp_path)
    target = (lambda content: content["annotations"][0]) if key == "video_id" else first_frame
    edit(path, lambda content: target(content).update({key: name}))
    with pytest.raises(LabelError, match=r"panoptic_gt_set.json: the (video|frame) .* must stay in its folder"):
        open_panoptic(tmp_path)


def test_names_are_checked_when_written_too(tmp_path: Path):
    writer = PanopticWriter(tmp_path, SPACE)
    for video, frame in (("../x", "1"), ("x", "../1")):
        with pytest.raises(LabelError, match="must stay in its folder"):
            writer.write(video, frame, FRAME)
    with pytest.raises(LabelError, match="the set 'a/b'"):
        PanopticWriter(tmp_path, SPACE, "a/b").finish()
    assert list(tmp_path.iterdir()) == []
    assert check_name(12, "the video") == "12"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100000, "is not valid JSON"),
        ("[]", r"is no panoptic JSON of videos \(AttributeError"),
        (
            '{"annotations": [{"segments_info": []}]}',
            r"is no panoptic JSON of videos \(KeyError: 'video_id'\); expected",
        ),
        ('{"annotations": 5}', "is no panoptic JSON of videos"),
        ('{"annotations": [], "categories": []}', "1 to 65535 classes, found 0"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, text: str, message: str):
    path = tmp_path / "pred.json"
    path.write_text(text)
    with pytest.raises(LabelError, match=message):
        read_panoptic_json(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["annotations"].append(content["annotations"][0]), "video 'a' is listed twice"),
        (
            lambda content: content["annotations"][0]["annotations"].append(first_frame(content)),
            "frame '2' of video 'a' is listed twice",
        ),
        (
            lambda content: content["annotations"][1]["annotations"].pop(),
            r'"videos" lists 1 images that have no annotations \(first: b/10\)',
        ),
        (lambda content: content["annotations"].pop(), r"lists 2 images that have no annotations \(first: b/2\)"),
        (lambda content: first_frame(content)["segments_info"][0].update(id=0), r"a/2 lists segment 0, expected 1.."),
        (lambda content: first_frame(content)["segments_info"][0].update(id=1 << 24), "lists segment 16777216"),
        (lambda content: first_frame(content)["segments_info"][0].update(id="7"), "found '7', expected an integer"),
        (lambda content: first_frame(content)["segments_info"][0].update(id=True), "found True, expected an integer"),
        (
            lambda content: first_frame(content)["segments_info"][0].update(iscrowd="0"),
            "found iscrowd '0', expected 0 or",
        ),
        (
            lambda content: first_frame(content)["segments_info"].append(
                {**first_frame(content)["segments_info"][0], "category_id": 3}
            ),
            r"lists segment \d+ twice, with different categories",
        ),
    ],
)
def test_lists_that_contradict_themselves_are_refused(tmp_path: Path, change: Any, message: str):
    path = write_json_form(tmp_path)
    edit(path, change)
    with pytest.raises(LabelError, match=message):
        read_panoptic_json(path)


def test_a_segment_listed_twice_alike_is_one_segment(tmp_path: Path):
    path = write_json_form(tmp_path)
    edit(path, lambda content: first_frame(content)["segments_info"].extend(first_frame(content)["segments_info"]))
    assert same_tubes(open_panoptic(tmp_path).read("a", "2"), FRAME)


def test_the_json_can_be_written_and_read_without_categories(tmp_path: Path):
    path = write_json_form(tmp_path)
    listed = read_panoptic_json(path)
    assert listed.label_space is not None
    assert listed.label_space.raw_ids == (
        0,
        1,
        2,
    )  # as VIPSeg numbers its categories, whatever the ids of the label set
    path.write_text(json.dumps(panoptic_json(listed.frames)))
    again = read_panoptic_json(path)
    assert (again.label_space, again.sizes) == (None, {})
    assert again.frames["a"]["2"].ids.tolist() == listed.frames["a"]["2"].ids.tolist()
    with pytest.raises(LabelError, match="cannot read the panoptic JSON"):
        read_panoptic_json(tmp_path / "other.json")
