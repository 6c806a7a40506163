"""DEVA's detections: a JSON list of segments beside every picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panoptic_files import SPACE, VOID, grey, write_deva
from sam2vss.datasets.deva import DevaMaps, has_segment_list, read_segment_list
from sam2vss.datasets.panoptic_folders import positions
from sam2vss.errors import LabelError

LABELS = np.array([[0, 1, VOID], [2, 1, VOID]], np.uint8)
CATEGORIES = positions(SPACE)


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_lists_with_and_without_scores_are_read(tmp_path: Path):
    write_deva(tmp_path / "v", {"a": LABELS, "b": np.flip(LABELS)})
    maps = DevaMaps(tmp_path, CATEGORIES)
    assert maps.read_semantic(tmp_path / "v/a.png").tolist() == LABELS.tolist()
    assert maps.read_semantic(tmp_path / "v/b.png").tolist() == np.flip(LABELS).tolist()


def test_long_ids_are_the_digits_of_colours(tmp_path: Path):
    write_deva(tmp_path / "v", {"a": LABELS})
    ids = np.array([[1, 2, 0], [70000, 2, 0]])
    Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)).save(tmp_path / "v/a.png")
    edit(tmp_path / "v/a.json", lambda content: content[2].update(id=70000))
    assert DevaMaps(tmp_path, CATEGORIES).read_semantic(tmp_path / "v/a.png").tolist() == LABELS.tolist()


def test_two_segments_may_have_one_class(tmp_path: Path):
    (tmp_path / "v").mkdir()
    grey(np.array([[1, 2, 0]]), "P").save(tmp_path / "v/a.png")
    (tmp_path / "v/a.json").write_text(json.dumps([{"id": i, "isthing": True, "category_id": 1} for i in (1, 2)]))
    assert DevaMaps(tmp_path, CATEGORIES).read_semantic(tmp_path / "v/a.png").tolist() == [[1, 1, VOID]]


def test_pictures_and_lists_without_their_partner_are_named(tmp_path: Path):
    folder = write_deva(tmp_path / "v", {"a": LABELS, "b": LABELS})
    (folder / "label_set.json").write_text("{}")
    DevaMaps(tmp_path, CATEGORIES)
    (folder / "b.json").rename(folder / "c.json")
    with pytest.raises(LabelError, match=r"1 pictures in .*v have no JSON list of segments \(first: b\)"):
        DevaMaps(tmp_path, CATEGORIES)
    (folder / "b.png").unlink()
    with pytest.raises(LabelError, match=r"1 lists of segments in .*v have no picture \(first: c\)"):
        DevaMaps(tmp_path, CATEGORIES)


def test_a_list_is_told_from_other_json(tmp_path: Path):
    for text, expected in (("  [\n", True), ("\ufeff[]", True), ("{}", False), ("", False)):
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        assert has_segment_list(tmp_path / "a.png") == expected
    (tmp_path / "a.json").write_bytes(b"\xff\xff\xff")
    assert not has_segment_list(tmp_path / "a.png")
    assert not has_segment_list(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[0].update(category_id="0"), r"with category_id '0', expected whole numbers as in"),
        (lambda content: content[0].update(id=True), r"with id True, expected whole numbers"),
        (lambda content: content[0].pop("category_id"), r"with category_id None"),
        (lambda content: content.append(5), r"lists a segment with 5, expected"),
        (lambda content: content[0].update(id=0), r"lists segment 0, expected 1\.\.16777215 \(0 is void\)"),
        (lambda content: content.append(dict(content[0])), r"lists segment 1 twice"),
        (
            lambda content: content[1].update(isthing=False),
            r"category 1 of segment 2 is stuff there, and 'cat' is thing in label set pets: .* from 0 here",
        ),
    ],
)
def test_lists_that_cannot_be_right_are_refused_by_name(tmp_path: Path, change: Any, message: str):
    path = write_deva(tmp_path, {"a": LABELS}) / "a.json"
    edit(path, change)
    with pytest.raises(LabelError, match=r"a\.json.*" + message):
        read_segment_list(path, CATEGORIES)


def test_a_file_that_is_no_list_is_named(tmp_path: Path):
    path = tmp_path / "a.json"
    for text, message in (("[{", "not valid JSON .* cut short"), ("{}", "holds a dict"), ("[" * 100000, "not valid")):
        path.write_text(text)
        with pytest.raises(LabelError, match=message):
            read_segment_list(path, CATEGORIES)
    with pytest.raises(LabelError, match=r"cannot read the list of segments .*gone\.json"):
        read_segment_list(tmp_path / "gone.json", CATEGORIES)


def test_segments_that_do_not_fit_the_picture_or_the_classes_are_named(tmp_path: Path):
    write_deva(tmp_path / "v", {"a": LABELS})
    maps, path = DevaMaps(tmp_path, CATEGORIES), tmp_path / "v/a.png"
    edit(tmp_path / "v/a.json", lambda content: content.append({"id": 9, "category_id": 0}))
    with pytest.raises(LabelError, match=r"a\.png has no pixel of 1 segments that its JSON lists \(first: \[9\]\)"):
        maps.read_semantic(path)
    edit(tmp_path / "v/a.json", lambda content: content.pop())
    edit(tmp_path / "v/a.json", lambda content: content.pop())
    with pytest.raises(LabelError, match=r"a\.png holds 1 segments that its JSON does not list \(first: \[3\]\)"):
        maps.read_semantic(path)
    edit(tmp_path / "v/a.json", lambda content: content.append({"id": 3, "isthing": True, "category_id": 3}))
    with pytest.raises(LabelError, match=r"segment 3 has the category 3 that is not in label set pets"):
        maps.read_semantic(path)
