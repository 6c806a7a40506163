import json
from pathlib import Path

import pytest

from sam2vss.datasets.label_sets import BUILT_IN, find_label_space, shift_ids
from sam2vss.errors import LabelError, SettingsError
from sam2vss.types import LabelSpace


def test_vspw_has_its_124_classes_as_they_are_stored():
    space = find_label_space("vspw")
    assert (space.num_classes, space.raw_ids, set(space.raw_void)) == (124, tuple(range(1, 125)), {0, 255})
    # label_num_dic_final.json of the release
    for name, raw_id in {"wall": 1, "sky": 29, "car": 49, "person": 61, "other_machine": 99, "train": 124}.items():
        assert space.raw_ids[space.names.index(name)] == raw_id
    # panoVIPSeg_categories.json: 58 things; ADE20K's first colours
    assert (space.kinds.count("thing"), space.kinds.count("stuff")) == (58, 66)
    assert (space.kinds[60], space.kinds[0]) == ("thing", "stuff")
    assert space.palette[:2].tolist() == [[120, 120, 120], [180, 120, 120]]
    assert len({tuple(color) for color in space.palette.tolist()}) == 123  # two classes share one, as published


def test_vspw_and_vipseg_name_the_same_classes_in_the_same_order():
    vspw, vipseg = find_label_space("vspw"), find_label_space("vipseg")
    assert (vspw.names, vspw.kinds, vspw.palette.tolist()) == (vipseg.names, vipseg.kinds, vipseg.palette.tolist())


def test_an_offset_that_leaves_no_ids_is_refused_with_those_that_may_be_meant():
    message = (
        r"label set vipseg, 1\.\.124, so stored ids would be -1\.\.122, expected 0\.\.65535\. Pass --id-offset=1 where"
    )
    with pytest.raises(SettingsError, match=message):
        shift_ids(find_label_space("vipseg"), 2)
    with pytest.raises(
        SettingsError, match=r"-1\.\.1, .* --id-offset=0 where they count from 0, --id-offset=-1 where from 1"
    ):
        shift_ids(LabelSpace.numbered(3), 1)
    assert shift_ids(find_label_space("vipseg"), 1).raw_ids == tuple(range(124))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_sets_say_where_they_come_from(name: str):
    content = json.loads(BUILT_IN[name].read_text(encoding="utf-8"))
    assert content["num_classes"] == len(content["classes"])
    assert "VIPSeg-Dataset/VIPSeg-Dataset" in content["source"]


def test_a_set_is_found_by_name_by_file_and_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = {"name": "own", "classes": [{"id": 0, "name": "x"}]}
    (tmp_path / "vspw").mkdir()
    (tmp_path / "vspw" / "label_set.json").write_text(json.dumps(own))
    monkeypatch.chdir(tmp_path)
    assert find_label_space(Path("vspw")).num_classes == 124  # the name, whatever lies here
    assert find_label_space("./vspw").name == "own"
    assert find_label_space(tmp_path / "vspw" / "label_set.json").name == "own"


def test_an_unknown_set_says_which_there_are(tmp_path: Path):
    with pytest.raises(LabelError, match=r"there is no label set ade: it is neither a file .* sets vspw, vipseg"):
        find_label_space("ade")
    with pytest.raises(LabelError, match=r"there is no label set .*: it is neither"):
        find_label_space(tmp_path)
