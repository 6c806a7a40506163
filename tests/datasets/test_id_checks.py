"""Ids that may be one off are refused or named, never shifted in silence."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic_files import SPACE, write_ids
from sam2vss.datasets.id_checks import SAMPLE, check_id_start
from sam2vss.datasets.label_sets import find_label_space
from sam2vss.errors import LabelError
from sam2vss.types import LabelSpace

VSPW = find_label_space("vspw")
BLACK_FIRST = bytes(3) + bytes(range(3, 256)) * 3


def write(root: Path, *ids: int, mode: str = "L") -> Path:
    write_ids(root / "v", {"f": np.array([ids])}, mode)
    return root


def test_models_ids_from_zero_are_refused_under_vspw(tmp_path: Path):
    # CFFM, TV3S and DVIS write wall as 0; VSPW's label set would read it as void and everything else as its neighbour
    message = r"hold id 0 \(25\.0 % of the pixels of 1 maps\) and never 124: .*1 is 'wall'.* --id-offset 1 if these"
    with pytest.raises(LabelError, match=message):
        check_id_start(write(tmp_path, 0, 5, 123, 255), VSPW)
    with pytest.raises(LabelError, match="--id-offset 0 if they are right as they are"):
        check_id_start(tmp_path, find_label_space("vipseg"))


def test_a_palette_that_colours_zero_is_a_hint_too(tmp_path: Path):
    with pytest.raises(LabelError, match=r"never hold 124, and the palette of .*f\.png has a colour for 0"):
        check_id_start(write(tmp_path, 5, 6, mode="P"), VSPW)
    image = Image.open(tmp_path / "v/f.png")
    image.putpalette(BLACK_FIRST[:768])
    image.save(tmp_path / "v/f.png")
    check_id_start(tmp_path, VSPW)


def test_the_last_id_of_a_set_from_one_shows_that_it_is_right(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    check_id_start(write(tmp_path, 0, 5, 124), VSPW)
    check_id_start(write(tmp_path / "other", 1, 0, 3), SPACE)
    assert caplog.messages == []


def test_where_nothing_tells_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check_id_start(write(tmp_path / "a", 5, 6), VSPW)
        check_id_start(write(tmp_path / "b", 0, 1), SPACE)  # somebody's own label set: its void may well be there
        check_id_start(write(tmp_path / "c", 1, 2), LabelSpace.numbered(3))
    first, second, third = caplog.messages
    assert "nothing in 1 maps of" in first
    assert "as label set vspw has them, from 1 on" in first
    assert "--id-offset=1 that they start at 0" in first
    assert "label set pets" in second
    assert "--id-offset=-1 that they start at 1" in third


def test_ids_from_one_under_a_set_from_zero_are_refused(tmp_path: Path):
    message = r"f\.png holds the ids \[3\] that are not in label set in use \(ids 0\.\.2\), .*--id-offset=-1"
    with pytest.raises(LabelError, match=message):
        check_id_start(write(tmp_path, 1, 2, 3), LabelSpace.numbered(3))
    check_id_start(write(tmp_path / "zero", 0, 3), LabelSpace.numbered(3))  # an id of no class, but not one off


def test_zero_that_a_set_from_one_does_not_know_is_refused(tmp_path: Path):
    space = LabelSpace(SPACE.names, SPACE.palette, raw_ids=(1, 2, 3))
    with pytest.raises(LabelError, match=r"holds id 0, which is not in label set in use .*Pass --id-offset 1"):
        check_id_start(write(tmp_path, 0, 1, 2), space)


@pytest.mark.parametrize("what", ["label_set.json", "run.json", "label_num_dic_final.json"])
def test_folders_that_say_what_their_ids_mean_are_trusted(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture):
    write(tmp_path, 0, 5)
    (tmp_path / what).write_text(json.dumps({}))
    check_id_start(tmp_path, VSPW)
    assert caplog.messages == []


def test_vspw_s_own_layout_is_trusted(tmp_path: Path):
    (tmp_path / "data" / "v" / "origin").mkdir(parents=True)
    write_ids(tmp_path / "data" / "v" / "mask", {"f": np.array([[0, 5]])}, "L")
    check_id_start(tmp_path, VSPW)


def test_label_sets_of_other_ids_and_what_cannot_be_read_are_passed_over(tmp_path: Path):
    check_id_start(tmp_path, VSPW)
    check_id_start(write(tmp_path, 0, 5), LabelSpace(SPACE.names, SPACE.palette, raw_ids=(1, 5, 9)))
    (tmp_path / "v/f.png").write_bytes(b"")
    check_id_start(tmp_path, VSPW)


def test_a_large_folder_is_sampled_over_all_its_videos(tmp_path: Path):
    for video in range(4):
        write_ids(tmp_path / f"v{video}", {f"{f}": np.array([[5]]) for f in range(SAMPLE)}, "L")
    write_ids(tmp_path / "v3", {f"{SAMPLE - 1}": np.array([[0]])}, "L")  # the very last one is among them
    with pytest.raises(LabelError, match=rf"hold id 0 \(1\.6 % of the pixels of {SAMPLE} maps\)"):
        check_id_start(tmp_path, VSPW)
