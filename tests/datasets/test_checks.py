import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.catalogue import find_dataset
from sam2vss.datasets.checks import check_dataset
from sam2vss.datasets.synthetic import export_vspw
from sam2vss.datasets.video_checks import Finding
from sam2vss.datasets.vspw import DAMAGED_CLIP
from sam2vss.errors import LabelError, SettingsError


def write(path: Path, ids: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 6), np.uint8) if ids is None else ids).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two videos of three frames, nothing wrong."""
    folder = tmp_path / "set"
    for video in ("a", "b"):
        for t in range(3):
            write(folder / "data" / video / "origin" / f"{t:08d}.jpg")
            write(folder / "data" / video / "mask" / f"{t:08d}.png")
    (folder / "train.txt").write_text("a\n")
    (folder / "val.txt").write_text("b\n")
    classes = [{"id": i, "name": f"class {i}"} for i in range(3)]
    (folder / "label_set.json").write_text(json.dumps({"name": "three", "classes": classes}))
    return folder


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_data_set_has_no_findings(root: Path, deep: bool):
    seen: list[tuple[int, int, str]] = []
    assert check_dataset(root, deep=deep, progress=lambda *step: seen.append(step)) == ()
    assert seen == [(1, 2, "a"), (2, 2, "b")]


def test_synthetic_data_sets_are_sound(tmp_path: Path):
    export_vspw(tmp_path, [100_000], 2, (60, 80))
    assert check_dataset(tmp_path, deep=True) == ()


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "suffix"), [("origin", "jpg"), ("mask", "png")])
def test_empty_files_are_counted_and_the_first_is_named(root: Path, folder: str, suffix: str):
    for t in (1, 2):
        (root / "data" / "a" / folder / f"{t:08d}.{suffix}").write_bytes(b"")
    found = only(check_dataset(root))
    assert (found.severity, found.place, found.count) == ("error", "a", 2)
    assert found.problem == f"{folder}/00000001.{suffix} is not an image (0 bytes)"
    assert found.fix == "fetch or write it again"


def test_the_empty_pictures_of_vspws_damaged_clip_are_answered_with_its_replacement(tmp_path: Path):
    root = tmp_path / "VSPW_480p"
    for t in range(2):
        write(root / "data" / DAMAGED_CLIP / "mask" / f"{t:08d}.png", np.full((4, 6), 5, np.uint8))
        write(root / "data" / DAMAGED_CLIP / "origin" / f"{t:08d}.jpg")
    (root / "data" / DAMAGED_CLIP / "origin" / "00000001.jpg").write_bytes(b"")
    found = only(check_dataset(root))
    assert (found.place, found.problem) == ("988_f_Xvy_DCPt8", "origin/00000001.jpg is not an image (0 bytes)")
    assert "VSPW-dataset/VSPW-dataset-download links an archive that replaces them" in found.fix


def test_a_pointer_of_git_lfs_is_no_picture(root: Path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"
    (root / "data" / "a" / "mask" / "00000000.png").write_text(pointer)
    found = only(check_dataset(root))
    assert "but a Git LFS pointer to one" in found.problem
    assert "git lfs pull" in found.fix


def test_a_png_that_is_cut_short_is_found_without_decoding(root: Path):
    path = write(
        root / "data" / "b" / "mask" / "00000002.png", np.random.default_rng(0).integers(0, 3, (4, 6), np.uint8)
    )
    path.write_bytes(path.read_bytes()[:-16])
    assert only(check_dataset(root)).problem == "mask/00000002.png is a PNG that is cut short"


def test_a_jpeg_that_is_cut_short_needs_the_deep_look(root: Path):
    path = write(
        root / "data" / "b" / "origin" / "00000002.jpg", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    )
    write(root / "data" / "b" / "mask" / "00000002.png", np.zeros((64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:-400])
    assert check_dataset(root) == ()
    problems = [found.problem for found in check_dataset(root, deep=True)]
    assert "frame 00000002 is 64 x 64 pixels, the first one 6 x 4 pixels" in problems
    for folder, suffix in (("origin", "jpg"), ("mask", "png")):
        for t in (0, 1):
            (root / "data" / "b" / folder / f"{t:08d}.{suffix}").unlink()
    assert "00000002.jpg cannot be read" in only(check_dataset(root, deep=True)).problem


def test_hidden_files_of_macos_are_a_warning(root: Path):
    (root / "data" / "a" / "mask" / "._00000000.png").write_bytes(b"\0")
    found = only(check_dataset(root))
    assert (found.severity, found.problem) == (
        "warning", "holds hidden files that macOS leaves (first: mask/._00000000.png)"
    )  # fmt: skip


# --- frames and videos -----------------------------------------------------------------------------------------------


def test_pictures_and_masks_must_be_partners(root: Path):
    (root / "data" / "a" / "mask" / "00000001.png").unlink()
    (root / "data" / "b" / "origin" / "00000002.jpg").unlink()
    first, second = check_dataset(root)
    assert first.problem == "3 pictures and 2 masks: pictures without mask (first: origin/00000001.jpg)"
    assert second.problem == "2 pictures and 3 masks: masks without picture (first: mask/00000002.png)"


def test_masks_must_have_the_size_of_their_pictures(root: Path):
    for t in range(3):
        write(root / "data" / "a" / "mask" / f"{t:08d}.png", np.zeros((5, 6), np.uint8))
    quick, deep = only(check_dataset(root)), only(check_dataset(root, deep=True))
    assert quick.problem == "mask/00000000.png is 6 x 5 pixels, its picture 6 x 4 pixels"
    assert (quick.count, deep.count) == (1, 3)


def test_ids_outside_the_label_set_need_the_deep_look(root: Path):
    write(root / "data" / "a" / "mask" / "00000001.png", np.full((4, 6), 3, np.uint8))
    assert check_dataset(root) == ()
    found = only(check_dataset(root, deep=True))
    assert "mask/00000001.png holds the ids [3] that are not in the label set three" in found.problem


def test_colour_coded_masks_are_found_by_the_deep_look(root: Path):
    write(root / "data" / "a" / "mask" / "00000001.png", np.zeros((4, 6, 3), np.uint8))
    assert "is a RGB picture, expected class numbers" in only(check_dataset(root, deep=True)).problem


def test_videos_without_masks_are_an_error_unless_the_release_has_none(root: Path):
    for path in (root / "data" / "b" / "mask").iterdir():
        path.unlink()
    found = only(check_dataset(root))
    assert (found.severity, found.problem) == ("error", "videos have no label maps (first: b)")


def test_frames_are_counted_against_the_facts(root: Path):
    (root / "videos.json").write_text('{"a": {"frames": 3}, "b": {"frames": 4}}')
    assert only(check_dataset(root)).problem == "holds 3 frames, videos.json says 4"


@pytest.mark.parametrize("deep", [False, True])
def test_what_cannot_be_opened_is_a_finding_and_the_rest_is_still_looked_at(root: Path, deep: bool):
    for folder, name in (("a/mask", "00000001.png"), ("b/origin", "00000002.jpg")):
        (root / "data" / folder / name).unlink()
    (root / "data" / "a" / "mask" / "00000001.png").mkdir()
    (root / "data" / "b" / "origin" / "00000002.jpg").symlink_to("00000002.jpg")
    problems = [(found.place, found.problem.partition(" (")[0]) for found in check_dataset(root, deep=deep)]
    assert problems == [("a", "mask/00000001.png cannot be opened"), ("b", "origin/00000002.jpg cannot be opened")]


def test_facts_that_no_data_set_has_are_refused_or_left_out(root: Path):
    (root / "videos.json").write_text("[" * 99999)
    with pytest.raises(LabelError, match=r"videos\.json cannot be read"):
        check_dataset(root)
    (root / "videos.json").write_text('{"a": {"fps": 1' + "0" * 400 + '}, "b": {"fps": NaN}}')
    assert find_dataset(root).frame_rates == {}


def test_a_run_folder_with_a_broken_record_is_named(root: Path):
    (root / "run.json").write_text('{"label_set": {"classes": []}}')
    with pytest.raises(LabelError, match=r"run\.json cannot be read as that of a run .*needs 1 to 65535 classes"):
        check_dataset(root)


# --- lists and label set ---------------------------------------------------------------------------------------------


def test_lists_are_compared_with_the_folders_and_with_each_other(root: Path):
    (root / "train.txt").write_text("a\na\ngone\n")
    (root / "val.txt").write_text("a")
    problems = {(found.place, found.problem) for found in check_dataset(root)}
    assert problems == {
        ("train.txt", "names videos that are not there (first: gone)"),
        ("train.txt", "names a more than once"),
        ("val.txt", "ends without a newline"),
        ("val.txt", "shares videos with train.txt (first: a)"),
        ("data", "holds videos on no list (first: b)"),
    }


def test_a_split_is_checked_alone(root: Path):
    (root / "data" / "a" / "mask" / "00000001.png").unlink()
    assert check_dataset(root, split="val") == ()
    assert len(check_dataset(root, split="train")) == 1
    with pytest.raises(SettingsError, match=r"test\.txt does not exist"):
        check_dataset(root, split="test")


def test_an_absent_label_set_is_an_error(root: Path):
    (root / "label_set.json").unlink()
    assert only(check_dataset(root)).place == "label_set.json"
    assert check_dataset(root, label_set="vspw") == ()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"wall": "2"}', "is not the release's list of classes: 'wall' is 2 there and 1 in label set vspw"),
        ('{"wall": "1"}', "is not the release's list of classes: 'ceiling' is not in it"),
        ("[]", "is no list of classes such as"),
        ('{"wall": 1e400}', "is no list of classes such as"),
        ("[" * 99999, "is no list of classes such as"),
    ],
)
def test_another_list_of_classes_than_vspws_is_an_error(root: Path, content: str, problem: str):
    (root / "label_set.json").unlink()
    (root / "label_num_dic_final.json").write_text(content)
    assert problem in only(check_dataset(root)).problem


def test_a_folder_without_videos_is_no_data_set(tmp_path: Path):
    with pytest.raises(LabelError, match="no video found"):
        check_dataset(tmp_path)


def test_vipseg_is_checked_as_panoptic_codes_with_its_lists_one_folder_higher(tmp_path: Path):
    root = tmp_path / "VIPSeg_720P"
    for video in ("v", "w"):
        write(root / "images" / video / "1.jpg")
    mask = write(root / "panomasks" / "v" / "1.png", np.full((4, 6), 6101, np.uint16))
    (tmp_path / "val.txt").write_text("v\n")
    (tmp_path / "test.txt").write_text("w\n")
    found = only(check_dataset(root, deep=True))
    assert (found.severity, found.place, found.fix.startswith("VIPSeg's test split")) == ("warning", "test.txt", True)
    write(mask, np.full((4, 6), 12600, np.uint16))  # there is no class 126
    assert "v/1.png holds the codes [12600]" in only(check_dataset(root, split="val", deep=True)).problem


@pytest.mark.dataset
@pytest.mark.parametrize("name", ["davis_sem", "ycbvideo"])
def test_the_real_recordings_are_sound(shared_data: Path, name: str):
    assert check_dataset(shared_data / name, deep=True) == ()
