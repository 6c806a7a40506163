import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.label_sets import BUILT_IN, find_label_space
from sam2vss.datasets.panoptic_folders import open_panoptic
from sam2vss.datasets.vipseg import CATEGORY_LIST, VipsegDataset, find_category_difference, find_vipseg, read_splits
from sam2vss.errors import LabelError, SettingsError

CODES = np.array([[0, 1, 6100], [61, 6101, 124]], np.uint16)


def write_release(root: Path, images: str = "imgs") -> Path:
    """Two videos with masks, and one of the test split without."""
    for video in ("1_a", "10_b", "2_c"):
        (root / images / video).mkdir(parents=True)
        for frame in ("00000009", "00000010"):
            Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(root / images / video / f"{frame}.jpg")
            if video != "2_c":
                path = root / "panomasks" / video / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(CODES).save(path)
    for split, names in (("train", "10_b\n"), ("val", "1_a"), ("test", "2_c\n\n")):
        (root / f"{split}.txt").write_text(names)
    return root


def opened(root: Path) -> VipsegDataset:
    found = find_vipseg(root)
    assert found is not None
    return found


def test_the_label_set_has_vipsegs_classes():
    space = find_label_space("vipseg")
    assert (space.num_classes, space.raw_ids, space.raw_void) == (124, tuple(range(1, 125)), (0,))
    assert space.kinds.count("thing") == 58  # panoVIPSeg_categories.json
    # the README's example: the category of "person" is 61
    assert space.names[60] == "person"
    assert (space.kinds[60], space.kinds[0], space.names[0], space.names[123]) == ("thing", "stuff", "wall", "train")
    assert space.palette[0].tolist() == [120, 120, 120]


def test_vspw_and_vipseg_have_the_same_classes_under_the_same_numbers():
    contents = [json.loads(BUILT_IN[name].read_text())["classes"] for name in ("vspw", "vipseg")]
    assert contents[0] == contents[1]


def test_the_raw_release_is_recognised(tmp_path: Path):
    found = opened(write_release(tmp_path))
    assert (found.name, found.form) == ("VIPSeg", "raw")
    assert found.splits == {"train": ("10_b",), "val": ("1_a",), "test": ("2_c",)}
    assert list(found.videos()) == ["1_a", "10_b"]
    assert list(found.videos("val")) == ["1_a"]
    assert list(found.videos("val")["1_a"]) == ["00000009", "00000010"]
    assert list(found.image_folders) == ["1_a", "2_c", "10_b"]
    assert list(found.mask_folders) == ["1_a", "10_b"]
    assert opened(tmp_path / "panomasks").root == tmp_path
    assert find_vipseg(tmp_path / "imgs") is None


def test_label_maps_become_train_ids_and_instances(tmp_path: Path):
    found = opened(write_release(tmp_path))
    path = found.videos("val")["1_a"]["00000010"]
    assert found.read_truth(path).tolist() == [[255, 0, 60], [60, 60, 123]]
    assert found.read_panoptic(path).instance.tolist() == [[0, 0, 1], [101, 2, 101]]
    opened_too = open_panoptic(tmp_path, split="val")
    assert opened_too.read("1_a", "00000010").semantic.tolist() == found.read_truth(path).tolist()


def test_the_small_form_finds_the_lists_one_folder_higher(tmp_path: Path):
    root = write_release(tmp_path / "VIPSeg_720P", "images")
    for split in ("train", "val", "test"):
        (root / f"{split}.txt").rename(tmp_path / f"{split}.txt")
    found = opened(root)
    assert (found.name, found.form) == ("VIPSeg_720P", "720p")
    assert list(found.videos("train")) == ["10_b"]


def test_the_test_split_has_no_masks_and_says_so(tmp_path: Path):
    with pytest.raises(
        LabelError, match=r"1 of 1 videos of split test .* \(first: 2_c\): .* distributed without masks"
    ):
        opened(write_release(tmp_path)).videos("test")


def test_a_listed_video_that_is_not_there_is_named(tmp_path: Path):
    root = write_release(tmp_path)
    (root / "val.txt").write_text("1_a\n5_x\n")
    with pytest.raises(LabelError, match=r"1 of 2 videos of split val .* \(first: 5_x\): unpack the archive again"):
        opened(root).videos("val")


@pytest.mark.parametrize(("images", "fix"), [("imgs", "unpack the archive again"), ("images", "run .*change2_720p.py")])
def test_a_picture_without_label_map_is_named_with_the_fix(tmp_path: Path, images: str, fix: str):
    root = write_release(tmp_path, images)
    (root / "panomasks" / "1_a" / "00000010.png").unlink()
    with pytest.raises(LabelError, match=rf"1 of 2 pictures of video 1_a .* \(first: 00000010\): {fix}"):
        opened(root).videos()


def test_splits_that_are_not_there_or_empty_are_refused(tmp_path: Path):
    root = write_release(tmp_path)
    (root / "train.txt").unlink()
    (root / "val.txt").write_text("\n")
    with pytest.raises(SettingsError, match=r"train.txt, .* is neither in .* found lists for val, test"):
        opened(root).videos("train")
    with pytest.raises(SettingsError, match=r"val.txt, .* or is empty"):
        opened(root).videos("val")
    (root / "test.txt").write_text("a\nb\na\n")
    with pytest.raises(LabelError, match=r"test.txt names the video a twice"):
        read_splits(root)
    (root / "test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LabelError, match=r"cannot read the list of videos .*test.txt"):
        read_splits(root)


def test_an_empty_label_map_is_named(tmp_path: Path):
    root = write_release(tmp_path)
    path = root / "panomasks" / "1_a" / "00000009.png"
    path.write_bytes(b"")
    with pytest.raises(LabelError, match=r"00000009.png"):
        opened(root).read_truth(path)


def test_the_releases_own_list_of_categories_is_compared_with_ours(tmp_path: Path):
    space = find_label_space("vipseg")
    entries = [
        {"id": i, "name": name, "isthing": int(kind == "thing"), "color": [0, 0, 0]}
        for i, (name, kind) in enumerate(zip(space.names, space.kinds, strict=True))
    ]
    path = tmp_path / "panoVIPSeg_categories.json"
    assert find_category_difference(tmp_path) is None
    path.write_text(json.dumps(entries))
    assert find_category_difference(tmp_path) is None
    entries[60]["isthing"] = 0
    path.write_text(json.dumps(entries))
    assert (
        find_category_difference(tmp_path) == "it has (61, 'person', 'stuff'), label set vipseg (61, 'person', 'thing')"
    )
    write_release(tmp_path)
    with pytest.raises(LabelError, match=r"categories of .*json are not VIPSeg's \(it has \(61, .*: pass --label-set"):
        open_panoptic(tmp_path)
    assert list(open_panoptic(tmp_path, space).frames) == ["1_a", "10_b"]
    path.write_text(json.dumps(entries[:5]))
    assert find_category_difference(tmp_path) == "it has 5 categories, label set vipseg 124"
    path.write_text("[1]")
    with pytest.raises(LabelError, match="is no list of categories"):
        find_category_difference(tmp_path)
    for content in ('[{"id": 1e400}]', "[" * 99999):
        (tmp_path / CATEGORY_LIST).write_text(content)
        with pytest.raises(LabelError, match="is no list of categories"):
            find_category_difference(tmp_path)
