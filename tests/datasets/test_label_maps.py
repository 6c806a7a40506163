"""Every form of label maps gives the same classes, and defects are named."""

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic_files import SPACE, VOID, write_deva, write_dvis, write_ids
from sam2vss.datasets.label_maps import find_own_label_space, open_label_maps, open_panoptic_maps
from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.panoptic_codes import PanopticMap
from sam2vss.datasets.panoptic_folders import PanopticWriter, write_codes
from sam2vss.errors import LabelError, ShapeError
from sam2vss.types import LabelSpace

LABELS = np.array([[0, 1, 1, VOID], [0, 2, 1, VOID]], np.uint8)
PANOPTIC = PanopticMap(LABELS, np.array([[0, 1, 2, 0], [0, 1, 2, 0]], np.int32))
Write = Callable[[Path], object]


def with_our_writer(root: Path) -> None:
    writer = PanopticWriter(root, SPACE)
    writer.write("v", "f", PANOPTIC)
    writer.finish()


def as_vipseg(root: Path) -> None:
    write_codes(root / "panomasks" / "v" / "f.png", PANOPTIC, SPACE)


def as_codes(root: Path) -> None:
    write_codes(root / "v" / "f.png", PANOPTIC, SPACE)


def as_truth(root: Path) -> None:
    writer = PanopticWriter(root, SPACE, "x")
    writer.write("v", "f", PANOPTIC)
    writer.finish()


def raw(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == VOID, 0, labels + 1)


WRITERS: dict[str, tuple[str, Write]] = {
    "DVIS": ("pred.json", lambda root: write_dvis(root, {"v": {"f": LABELS}})),
    "DEVA's pan_pred in P": ("pred.json", lambda root: write_dvis(root, {"v": {"f": LABELS}}, "P")),
    "pan_pred in L": ("pred.json", lambda root: write_dvis(root, {"v": {"f": LABELS}}, "L")),
    "pan_pred in 16 bits": ("pred.json", lambda root: write_dvis(root, {"v": {"f": LABELS}}, "I;16")),
    "our writer": ("pred.json", with_our_writer),
    "truth in the COCO form": ("pred.json", as_truth),
    "DEVA's detections": ("segment lists", lambda root: write_deva(root / "v", {"f": LABELS})),
    "VIPSeg": ("panoptic codes", as_vipseg),
    "codes without panomasks": ("panoptic codes", as_codes),
    "class ids": ("class ids", lambda root: write_ids(root / "v", {"f": raw(LABELS)}, "L")),
    "class ids in 16 bits": ("class ids", lambda root: write_ids(root / "v", {"f": raw(LABELS)}, "I;16")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_is_recognised_and_gives_the_same_classes(tmp_path: Path, name: str):
    form, write = WRITERS[name]
    write(tmp_path)
    maps = open_label_maps(tmp_path, SPACE)
    assert maps.form.name == form
    path = maps.form.folder / "v" / "f.png"
    assert maps.read(path).tolist() == LABELS.tolist()
    assert maps.read(path, (2, 4)).dtype == np.uint8
    assert pickle.loads(pickle.dumps(maps)).read(path).tolist() == LABELS.tolist()  # as for worker processes
    with pytest.raises(ShapeError, match=r"f\.png is 2 x 4 \(height x width\), but its frame is 4 x 2"):
        maps.read(path, (4, 2))


def test_colours_are_never_decoded(tmp_path: Path):
    # two pictures with other palettes, and one whose colours are those of other classes
    for number, palette in enumerate((bytes(768), bytes(range(256)) * 3)):
        root = write_dvis(tmp_path / str(number), {"v": {"f": LABELS}}, "P")
        image = Image.open(root / "pan_pred/v/f.png")
        image.putpalette(palette)
        image.save(root / "pan_pred/v/f.png")
        assert open_label_maps(root, SPACE).read(root / "pan_pred/v/f.png").tolist() == LABELS.tolist()


# --- classes ---------------------------------------------------------------------------------------------------------


def test_a_folder_brings_its_classes_along_or_not(tmp_path: Path):
    with_our_writer(tmp_path / "ours")
    own = find_own_label_space(tmp_path / "ours")
    assert own is not None
    assert (own.names, own.raw_ids, own.raw_void) == (SPACE.names, (0, 1, 2), (255,))
    maps = open_label_maps(tmp_path / "ours", own)
    assert maps.read(tmp_path / "ours/pan_pred/v/f.png").tolist() == LABELS.tolist()
    as_vipseg(tmp_path / "vipseg")
    assert find_own_label_space(tmp_path / "vipseg") is find_label_space("vipseg")
    write_dvis(tmp_path / "dvis", {"v": {"f": LABELS}})
    assert find_own_label_space(tmp_path / "dvis") is None
    with pytest.raises(LabelError, match=r"nothing says what the categories in .*dvis mean: pass a label set"):
        open_panoptic_maps(tmp_path / "dvis", None)


def test_named_categories_are_matched_by_name(tmp_path: Path):
    with_our_writer(tmp_path)
    swapped = LabelSpace(("dog", "road", "cat", "bird"), np.zeros((4, 3), np.uint8))
    with pytest.raises(LabelError, match=r"names 3 categories, .* has 4 classes: 1 of these .* \(bird\)\. Pass"):
        open_label_maps(tmp_path, swapped)
    swapped = LabelSpace(("dog", "road", "cat"), np.zeros((3, 3), np.uint8))
    found = open_label_maps(tmp_path, swapped).read(tmp_path / "pan_pred/v/f.png")
    assert found.tolist() == [[1, 2, 2, VOID], [1, 0, 2, VOID]]
    assert open_label_maps(tmp_path, SPACE, 0).read(tmp_path / "pan_pred/v/f.png").tolist() == LABELS.tolist()


@pytest.mark.parametrize("name", ["DVIS", "DEVA's detections"])
def test_a_label_set_without_kinds_will_do_for_classes(tmp_path: Path, name: str):
    WRITERS[name][1](tmp_path)
    maps = open_label_maps(tmp_path, LabelSpace.numbered(3))
    assert maps.read(maps.form.folder / "v" / "f.png").tolist() == LABELS.tolist()


def rename_categories(root: Path, *names: str) -> None:
    content = json.loads((root / "pred.json").read_text())
    for category, name in zip(content["categories"], names, strict=True):
        category["name"] = name
    (root / "pred.json").write_text(json.dumps(content))


def test_names_are_matched_in_whatever_case(tmp_path: Path):
    with_our_writer(tmp_path)
    rename_categories(tmp_path, " Wet road", "CAT", "dog")
    swapped = LabelSpace(("dog", "wet_Road", "cat"), np.zeros((3, 3), np.uint8))
    found = open_label_maps(tmp_path, swapped).read(tmp_path / "pan_pred/v/f.png")
    assert found.tolist() == [[1, 2, 2, VOID], [1, 0, 2, VOID]]


@pytest.mark.parametrize("names", [("dog", "cat", "street"), ("street", "cat", "dog"), ("x", "x", "x")])
def test_a_json_with_a_name_of_its_own_is_not_matched_by_position(tmp_path: Path, names: tuple[str, ...]):
    with_our_writer(tmp_path)
    rename_categories(tmp_path, *names)
    with pytest.raises(LabelError, match=r'label set pets has 3 classes: .* \(road.*take "categories" out of the JSON'):
        open_label_maps(tmp_path, SPACE)
    own = find_own_label_space(tmp_path)  # without a label set its own names count, whatever they are
    assert own is not None
    assert open_label_maps(tmp_path, own).read(tmp_path / "pan_pred/v/f.png").tolist() == LABELS.tolist()


def test_label_sets_that_call_two_classes_alike_cannot_be_matched_by_name(tmp_path: Path):
    with_our_writer(tmp_path)
    with pytest.raises(LabelError, match="two of these are alike"):
        open_label_maps(tmp_path, replace(SPACE, names=("road", "cat", "cat")))


def test_categories_that_count_from_one_are_named_and_read_with_an_offset(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    text = (tmp_path / "pred.json").read_text()
    for number in (2, 1, 0):
        text = text.replace(f'"category_id": {number}', f'"category_id": {number + 1}')
    (tmp_path / "pred.json").write_text(text)
    expected = (
        r"segment 302 of v/f has category 3, expected 0\.\.2, .*--id-offset=1 where .* from 0, --id-offset=0 where"
    )
    with pytest.raises(LabelError, match=rf"pred\.json: {expected}"):
        open_label_maps(tmp_path, SPACE)
    assert open_label_maps(tmp_path, SPACE, 0).read(tmp_path / "pan_pred/v/f.png").tolist() == LABELS.tolist()
    from_zero = open_label_maps(tmp_path, replace(SPACE, raw_ids=(0, 1, 2), raw_void=(255,)), -1)
    assert from_zero.read(tmp_path / "pan_pred/v/f.png").tolist() == LABELS.tolist()


def test_an_offset_that_says_that_ids_count_from_zero_says_nothing_new_of_categories(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    assert open_label_maps(tmp_path, SPACE, 1).read(tmp_path / "pan_pred/v/f.png").tolist() == LABELS.tolist()
    with pytest.raises(LabelError, match=r"has category 0, expected 1\.\.3, the classes of label set pets\."):
        open_label_maps(tmp_path, SPACE, 0)


def test_codes_want_a_label_set_of_theirs(tmp_path: Path):
    as_vipseg(tmp_path)
    with pytest.raises(LabelError, match=r"panoptic codes, and label set in use has ids 0\.\.2, .*--label-set vipseg"):
        open_label_maps(tmp_path, LabelSpace.numbered(3))
    with pytest.raises(LabelError, match="panoptic codes, which --id-offset cannot shift"):
        open_label_maps(tmp_path, SPACE, 1)


def test_class_ids_of_16_bits_with_void_255_are_not_taken_for_instances(tmp_path: Path):
    path = write_ids(tmp_path / "v", {"f": np.array([[1, 255]])}, "I;16") / "f.png"
    with pytest.raises(LabelError, match=r"holds the ids \[255\] that are not in the label set vipseg"):
        open_label_maps(tmp_path, find_label_space("vipseg")).read(path)
    assert open_label_maps(tmp_path, find_label_space("vspw")).read(path).tolist() == [[0, VOID]]  # where 255 is void
    # class 61, "person", is a thing, so these are codes; class 2 of VIPSeg is stuff, so 255 would be its instance 55
    write_ids(tmp_path / "v", {"f": np.array([[1, 255, 6100]])}, "I;16")
    with pytest.raises(LabelError, match=r"holds instance 55 of the stuff class 'ceiling', .* save them as 8-bit PNG"):
        open_label_maps(tmp_path, find_label_space("vipseg")).read(path)


@pytest.mark.parametrize("name", ["vspw", "vipseg"])
@pytest.mark.parametrize("modes", ["I;16 I;16", "I;16 L", "L I;16"])
def test_class_ids_of_16_bits_from_zero_are_refused_or_moved_as_those_of_8_bits(tmp_path: Path, name: str, modes: str):
    for video, mode in zip("vw", modes.split(), strict=True):
        path = write_ids(tmp_path / video, {"f": np.array([[0, 1, 2, 123]])}, mode) / "f.png"
    with pytest.raises(LabelError, match=r"hold id 0 .* and never 124: .* Pass --id-offset 1"):
        open_label_maps(tmp_path, find_label_space(name))
    assert open_label_maps(tmp_path, find_label_space(name), 1).read(path).tolist() == [[0, 1, 2, 123]]


def test_an_offset_of_none_leaves_class_ids_of_16_bits_as_they_are(tmp_path: Path):
    path = write_ids(tmp_path / "v", {"f": np.array([[0, 1, 2]])}, "I;16") / "f.png"
    assert open_label_maps(tmp_path, find_label_space("vspw"), 0).read(path).tolist() == [[VOID, 0, 1]]


# --- defects ---------------------------------------------------------------------------------------------------------


def test_a_picture_that_the_json_does_not_list_is_named(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    shutil.copytree(tmp_path / "pan_pred/v", tmp_path / "pan_pred/w")
    with pytest.raises(LabelError, match=r"pred\.json does not list w/f, and .*w/f\.png is there"):
        open_label_maps(tmp_path, SPACE).read(tmp_path / "pan_pred/w/f.png")
    shutil.copy(tmp_path / "pan_pred/v/f.png", tmp_path / "pan_pred/v/g.png")
    with pytest.raises(LabelError, match=r"holds 1 pictures that .*pred\.json does not list \(first: v/g\.png\)"):
        open_label_maps(tmp_path, SPACE)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    content = json.loads((tmp_path / "pred.json").read_text())
    for change in ({"video_id": name}, {"annotations": [{"file_name": name, "segments_info": []}]}):
        (tmp_path / "pred.json").write_text(json.dumps({"annotations": [{**content["annotations"][0], **change}]}))
        with pytest.raises(LabelError, match=r"pred\.json: the (video|frame) .* must stay in its folder"):
            open_label_maps(tmp_path, SPACE)


def test_names_that_no_file_can_have_are_refused(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    content = json.loads((tmp_path / "pred.json").read_text())
    content["annotations"][0]["video_id"] = "ä" * 128  # 256 bytes
    (tmp_path / "pred.json").write_text(json.dumps(content))
    with pytest.raises(LabelError, match=r"the video 'ä{40}\.\.\.' has a name of 128 characters, .* more than 255"):
        open_label_maps(tmp_path, SPACE)
    content["annotations"][0]["video_id"] = "ä" * 127 + "/" * 5000
    (tmp_path / "pred.json").write_text(json.dumps(content))
    with pytest.raises(LabelError, match="must stay in its folder") as info:
        open_label_maps(tmp_path, SPACE)
    assert len(str(info.value)) < 500


def test_a_list_cut_short_and_a_picture_cut_short_are_named(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    picture, listing = tmp_path / "pan_pred/v/f.png", tmp_path / "pred.json"
    picture.write_bytes(picture.read_bytes()[:50])
    with pytest.raises(LabelError, match=r"cannot read the label file: .*v/f\.png"):
        open_label_maps(tmp_path, SPACE).read(picture)
    listing.write_text(listing.read_text()[:-20])
    with pytest.raises(LabelError, match=r"pred\.json is not valid JSON .*; write or fetch it again"):
        open_label_maps(tmp_path, SPACE)


def test_segments_without_pixels_and_pixels_without_segments_are_named(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    content = json.loads((tmp_path / "pred.json").read_text())
    listed = content["annotations"][0]["annotations"][0]["segments_info"]
    listed[0]["id"] = 7
    (tmp_path / "pred.json").write_text(json.dumps(content))
    maps = open_label_maps(tmp_path, SPACE)
    with pytest.raises(LabelError, match=r"v/f\.png holds 1 segments that its JSON does not list \(first: \[300\]\)"):
        maps.read(tmp_path / "pan_pred/v/f.png")
    listed[0]["id"] = 300
    listed.append({"id": 7, "category_id": 0})
    (tmp_path / "pred.json").write_text(json.dumps(content))
    maps = open_label_maps(tmp_path, SPACE)
    with pytest.raises(LabelError, match=r"v/f\.png has no pixel of 1 segments that its JSON lists \(first: \[7\]\)"):
        maps.read(tmp_path / "pan_pred/v/f.png")


def test_a_category_as_text_names_its_frame(tmp_path: Path):
    write_dvis(tmp_path, {"v": {"f": LABELS}})
    text = (tmp_path / "pred.json").read_text().replace('"category_id": 1', '"category_id": "1"')
    (tmp_path / "pred.json").write_text(text)
    with pytest.raises(LabelError, match=r"pred\.json .*found '1', expected an integer in v/f"):
        open_label_maps(tmp_path, SPACE)
