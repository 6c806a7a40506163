import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.catalogue import find_dataset
from sam2vss.errors import LabelError, SettingsError
from sam2vss.types import LabelSpace


def write(path: Path, size: tuple[int, int] = (2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(path)


def write_clip(root: Path, video: str, with_masks: bool = True, height: int = 2) -> None:
    write(root / "data" / video / "origin" / "00000001.jpg", (height, 3))
    if with_masks:
        write(root / "data" / video / "mask" / "00000001.png", (height, 3))


def write_label_set(folder: Path, name: str = "own") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "label_set.json").write_text(json.dumps({"name": name, "classes": [{"id": 0, "name": "x"}]}))


@pytest.fixture
def vspw(tmp_path: Path) -> Path:
    """VSPW as distributed: two labelled clips, one test clip without masks, lists with and without a last newline."""
    root = tmp_path / "VSPW_480p"
    write_clip(root, "10_b", height=480)
    write_clip(root, "9_a")
    write_clip(root, "11_t", with_masks=False)
    (root / "train.txt").write_text("10_b\n")
    (root / "val.txt").write_text("9_a")
    (root / "test.txt").write_text("11_t\n")
    (root / "label_num_dic_final.json").write_text('{"others": "0", "wall": "1"}')
    return root


def test_vspw_is_recognised_with_its_classes_splits_and_rate(vspw: Path):
    found = find_dataset(vspw)
    assert found.label_space is not None
    assert (found.label_space.name, found.label_space.raw_ids[0]) == ("vspw", 1)
    assert list(found.folders) == ["9_a", "10_b", "11_t"]
    assert found.splits == {"train": ("10_b",), "val": ("9_a",), "test": ("11_t",)}  # no name lost a character
    assert set(found.frame_rates.values()) == {15.0}
    assert list(found.videos("val")) == ["9_a"]


@pytest.mark.parametrize(("height", "name"), [(480, "VSPW_480p"), (720, "VSPW")])
def test_the_small_vspw_is_told_from_the_large_one_by_its_height(tmp_path: Path, height: int, name: str):
    write_clip(tmp_path / "my_vspw", "1_a", height=height)
    assert find_dataset(tmp_path / "my_vspw").name == name


def test_the_test_split_of_vspw_says_that_it_has_no_masks(vspw: Path):
    assert list(find_dataset(vspw).videos("test")) == ["11_t"]  # fine to predict
    with pytest.raises(LabelError, match=r"1 of 1 videos of split test .* distributed without masks .*--split val"):
        find_dataset(vspw).videos("test", needs_masks=True)


def test_a_label_set_beside_the_data_wins_over_the_name_of_the_folder(tmp_path: Path):
    write_clip(tmp_path / "vspw_like", "a")
    write_label_set(tmp_path / "vspw_like")
    found = find_dataset(tmp_path / "vspw_like")
    assert (found.name, found.no_test_masks) == ("own", "")


def test_a_label_set_one_folder_higher_is_not_taken_for_vspws(vspw: Path):
    write_label_set(vspw.parent)
    space = find_dataset(vspw).label_space
    assert space is not None
    assert space.name == "vspw"


@pytest.mark.parametrize("pattern", ["{}/origin/1.jpg", "{}/mask/1.png", "{}/1.png", "data/{}/mask/1.png"])
def test_plain_folders_are_data_sets(tmp_path: Path, pattern: str):
    for video in ("v10", "v9"):
        write(tmp_path / pattern.format(video))
    write_label_set(tmp_path)
    found = find_dataset(tmp_path)
    assert (found.name, list(found.folders), found.notes) == ("own", ["v9", "v10"], ())
    assert all((video.frames is None) == pattern.endswith("png") for video in found.folders.values())
    assert all((video.masks is None) == pattern.endswith("jpg") for video in found.folders.values())


def test_a_data_set_without_label_set_says_so(tmp_path: Path):
    write(tmp_path / "a" / "1.png")
    found = find_dataset(tmp_path)
    assert found.label_space is None
    assert found.notes == (
        "nothing says what the numbers of its label maps mean: pass --label-set, or add label_set.json",
    )
    given = find_dataset(tmp_path, LabelSpace.numbered(3)).label_space
    assert given is not None
    assert given.num_classes == 3
    assert find_dataset(tmp_path, "vspw").name == "vspw"


def test_a_run_folder_is_a_data_set_of_refined_labels(tmp_path: Path):
    run = tmp_path / "run"
    write(run / "labels" / "a" / "1.png")
    (run / "run.json").write_text(json.dumps({"label_set": LabelSpace.numbered(4).to_dict()}))
    found = find_dataset(run)
    assert (found.name, list(found.folders), found.folders["a"].masks) == ("run", ["a"], run / "labels" / "a")
    assert found.label_space is not None
    assert found.label_space.num_classes == 4
    (run / "run.json").write_text("{}")
    with pytest.raises(LabelError, match=r"run\.json cannot be read as that of a run"):
        find_dataset(run)


def test_vipseg_is_recognised_by_its_folders(tmp_path: Path):
    write(tmp_path / "imgs" / "v" / "1.jpg")
    write(tmp_path / "imgs" / "t" / "1.jpg")
    write(tmp_path / "panomasks" / "v" / "1.png")
    (tmp_path / "test.txt").write_text("t\n")
    found = find_dataset(tmp_path)
    assert (found.name, found.is_panoptic, list(found.folders)) == ("VIPSeg", True, ["t", "v"])
    assert found.folders["t"].masks is None
    with pytest.raises(LabelError, match="VIPSeg's test split is distributed without masks"):
        found.videos("test", needs_masks=True)


def test_lists_that_do_not_fit_the_folders_are_named(vspw: Path):
    (vspw / "val.txt").write_text("9_a\ngone_b\ngone_c\n")
    with pytest.raises(LabelError, match=r"val\.txt lists 3 videos, and 2 of them are not in .* \(first: gone_b\)"):
        find_dataset(vspw).videos("val")
    (vspw / "val.txt").write_text("\n")
    with pytest.raises(SettingsError, match=r"val\.txt is empty; it has train, val, test"):
        find_dataset(vspw).videos("val")
    (vspw / "val.txt").unlink()
    with pytest.raises(SettingsError, match=r"val\.txt does not exist; it has train, test"):
        find_dataset(vspw).videos("val")


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", r"videos\.json cannot be read"), ("{", r"videos\.json cannot be read")]
)
def test_damaged_facts_are_named(vspw: Path, content: str, message: str):
    write_label_set(vspw)
    (vspw / "videos.json").write_text(content)
    with pytest.raises(LabelError, match=message):
        find_dataset(vspw)


def test_folders_that_are_no_data_set_say_what_was_expected(tmp_path: Path):
    with pytest.raises(LabelError, match=r"data set .*nowhere does not exist; expected ROOT/data"):
        find_dataset(tmp_path / "nowhere")
    with pytest.raises(LabelError, match=r"no video found in .*; expected ROOT/data"):
        find_dataset(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LabelError, match="is a file, not a folder"):
        find_dataset(tmp_path / "file")


@pytest.mark.dataset
@pytest.mark.parametrize(
    ("folder", "name", "videos", "split", "rate"),
    [("camvid", "camvid11", 4, "0016E5_15hz_a", 15.0), ("davis_sem", "davis_sem", 2, "car-shadow", 24.0),
     ("ycbvideo", "ycbvideo21", 3, "scene0002", 30.0)],
)  # fmt: skip
def test_the_real_recordings_are_data_sets(
    shared_data: Path, folder: str, name: str, videos: int, split: str, rate: float
):
    found = find_dataset(shared_data / folder)
    assert (found.name, len(found.folders)) == (name, videos)
    assert list(found.videos("val", needs_masks=True)) == [split]
    assert found.frame_rates[split] == rate
