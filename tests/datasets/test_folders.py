import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.datasets.folders import find_label_folders, natural_key, read_colors, read_ids
from sam2vss.errors import LabelError


def write(path: Path, ids: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3), np.uint8) if ids is None else ids).save(path)
    return path


def listed(root: Path) -> dict[str, list[str]]:
    return {video: list(frames) for video, frames in find_label_folders(root).items()}


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        "{video}/{frame}.png",
        "{video}/mask/{frame}.png",
        "data/{video}/mask/{frame}.png",
        "labels/{video}/{frame}.png",
    ],
)
def test_every_layout_gives_the_same_videos_and_frames(tmp_path: Path, pattern: str):
    for video, frame in (("b", "1"), ("a", "1"), ("a", "2")):
        write(tmp_path / pattern.format(video=video, frame=frame))
    assert listed(tmp_path) == {"a": ["1", "2"], "b": ["1"]}
    assert find_label_folders(tmp_path)["b"]["1"] == tmp_path / pattern.format(video="b", frame="1")


def test_videos_and_frames_come_in_natural_order(tmp_path: Path):
    for name in ("v10/f10", "v10/f9", "v2/f1", "v1a/f1"):
        write(tmp_path / f"{name}.png")
    assert list(listed(tmp_path).items()) == [("v1a", ["f1"]), ("v2", ["f1"]), ("v10", ["f9", "f10"])]


def test_a_link_that_leads_nowhere_is_no_video_to_leave_out_in_silence(tmp_path: Path):
    write(tmp_path / "a" / "1.png")
    (tmp_path / "b").symlink_to("archive")
    with pytest.raises(LabelError, match=r"b is a link that leads nowhere \(to archive\): mend it, or delete it"):
        find_label_folders(tmp_path)


def test_natural_order_takes_digits_as_numbers():
    names = ["10", "9", "frame2", "frame10", "frame", "2x", "007"]
    assert sorted(names, key=natural_key) == ["2x", "007", "9", "10", "frame", "frame2", "frame10"]


def test_one_folder_of_pngs_is_one_video_named_after_it(tmp_path: Path):
    write(tmp_path / "drive" / "00.png")
    assert listed(tmp_path / "drive") == {"drive": ["00"]}


@pytest.mark.parametrize("root", ["clip", "clip/mask"])
def test_one_video_of_a_data_set_is_named_after_the_video(tmp_path: Path, root: str):
    write(tmp_path / "clip" / "mask" / "00.png")
    write(tmp_path / "clip" / "origin" / "00.png")  # pictures beside the masks are no labels
    assert listed(tmp_path / root) == {"clip": ["00"]}


def test_other_files_hidden_files_and_the_rest_of_a_run_folder_are_no_labels(tmp_path: Path):
    write(tmp_path / "labels" / "clip" / "00.png")
    for other in ("labels/clip/.hidden.png", "labels/clip/notes.txt", "overlay/clip.mp4", "run.json", "plots/a.png"):
        path = tmp_path / other
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert listed(tmp_path) == {"clip": ["00"]}


def test_a_video_of_a_data_set_without_masks_is_listed_as_empty(tmp_path: Path):
    write(tmp_path / "data" / "with" / "mask" / "00.png")
    write(tmp_path / "data" / "without" / "origin" / "00.png")
    assert listed(tmp_path) == {"with": ["00"], "without": []}


def test_a_folder_without_labels_says_what_it_holds_and_what_is_expected(tmp_path: Path):
    with pytest.raises(LabelError, match=r"no label PNG found under .* \(it is empty\)"):
        find_label_folders(tmp_path)
    write(tmp_path / "clip" / "00.jpg")
    with pytest.raises(LabelError, match=r"found \.jpg\); expected ROOT/<video>/<frame>.png"):
        find_label_folders(tmp_path)
    with pytest.raises(LabelError, match="does not exist"):
        find_label_folders(tmp_path / "nowhere")
    with pytest.raises(LabelError, match="is a file, not a folder"):
        find_label_folders(tmp_path / "clip" / "00.jpg")


def test_labels_both_directly_and_in_folders_are_ambiguous(tmp_path: Path):
    write(tmp_path / "preview.png")
    write(tmp_path / "clip" / "00.png")
    with pytest.raises(LabelError, match="both directly and in folders"):
        find_label_folders(tmp_path)


def test_two_files_of_one_frame_are_refused(tmp_path: Path):
    write(tmp_path / "clip" / "00.png")
    write(tmp_path / "clip" / "00.PNG")
    if len(list((tmp_path / "clip").iterdir())) == 1:
        pytest.skip("this file system does not tell upper from lower case")
    with pytest.raises(LabelError, match="are the same frame '00'"):
        find_label_folders(tmp_path)


# --- numbers ---------------------------------------------------------------------------------------------------------

IDS = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)


def test_palette_images_give_indices_not_colours(tmp_path: Path):
    image = Image.fromarray(IDS).convert("P")
    image.putpalette([9, 8, 7] * 256)
    image.save(tmp_path / "a.png")
    assert read_ids(tmp_path / "a.png").tolist() == IDS.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_grey_and_wide_images_give_their_values(tmp_path: Path, dtype: type):
    ids = IDS.astype(dtype)
    ids[0, 0] = 250 if dtype == np.uint8 else 40000
    path = tmp_path / ("a.tif" if dtype == np.int32 else "a.png")
    found = read_ids(write(path, ids))
    assert found.tolist() == ids.tolist()
    assert found.dtype == (np.uint8 if dtype == np.uint8 else np.uint16)


@pytest.mark.parametrize("stranger", [-1, 65536])
def test_numbers_that_no_label_map_holds_are_refused_instead_of_wrapped(tmp_path: Path, stranger: int):
    with pytest.raises(LabelError, match=r"expected class numbers 0\.\.65535"):
        read_ids(write(tmp_path / "a.tif", np.array([[0, stranger]], np.int32)))


def grey_png(path: Path, ids: np.ndarray, bits: int) -> Path:
    """Write a grey PNG of 1, 2 or 4 bits, which Pillow reads but does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b""
    for row in ids.tolist():
        text = "".join(format(value, f"0{bits}b") for value in row).ljust(8, "0")
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8 + (len(text) % 8 > 0), "big")
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    packed = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + packed)
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_images_of_few_bits_are_not_stretched_to_255(tmp_path: Path, bits: int):
    ids = IDS[:, :2] % (1 << bits)
    assert read_ids(grey_png(tmp_path / "a.png", ids, bits)).tolist() == ids.tolist()


def test_colour_pictures_are_refused(tmp_path: Path):
    with pytest.raises(LabelError, match=r"a\.png is a RGB picture, expected class numbers"):
        read_ids(write(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8)))


def test_unreadable_files_are_named(tmp_path: Path):
    with pytest.raises(LabelError, match=r"a\.png does not exist"):
        read_ids(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(LabelError, match=r"a\.png is not an image \(0 bytes\)"):
        read_ids(tmp_path / "a.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    whole = write(tmp_path / "b.png", noise).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabelError, match=r"cannot read the label file: .*b\.png"):
        read_ids(tmp_path / "b.png")


def test_an_unfetched_or_damaged_file_says_how_to_mend_it(tmp_path: Path):
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n")
    with pytest.raises(LabelError, match=r"a\.png is not an image \(\d+ bytes\) but a Git LFS pointer.*git lfs pull"):
        read_ids(tmp_path / "a.png")
    clip = tmp_path / "988_f_Xvy_DCPt8" / "mask"
    clip.mkdir(parents=True)
    (clip / "a.png").touch()
    with pytest.raises(LabelError, match=r"\(0 bytes\); .* VSPW-dataset/VSPW-dataset-download links an archive"):
        read_ids(clip / "a.png")


@pytest.mark.parametrize("form", ["JPEG", "GIF"])
def test_a_picture_of_another_form_under_the_name_of_a_png_is_refused(tmp_path: Path, form: str):
    # JPEG blurs class numbers into their neighbours; a GIF without class 1 gives class 2 the number 1
    Image.fromarray(np.array([[0, 2, 2]], np.uint8)).save(tmp_path / "a.png", format=form)
    for read in (read_ids, read_colors):
        with pytest.raises(LabelError, match=rf"a\.png is a {form} picture under the name of a PNG.*write it again"):
            read(tmp_path / "a.png")


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(LabelError, match=r"a\.png cannot be opened \(Is a directory\); put a picture there"):
        read_ids(tmp_path / "a.png")


def test_colours_are_read_as_they_look(tmp_path: Path):
    palette = Image.fromarray(IDS).convert("P")
    palette.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8])
    palette.save(tmp_path / "p.png")
    assert read_colors(tmp_path / "p.png")[0].tolist() == [[9, 8, 7], [6, 5, 4], [3, 2, 1]]
    opaque = np.full((2, 2, 4), 255, np.uint8)
    assert read_colors(write(tmp_path / "a.png", opaque)).shape == (2, 2, 3)
    opaque[0, 0, 3] = 7
    with pytest.raises(LabelError, match=r"b\.png has transparent pixels, expected a plain colour"):
        read_colors(write(tmp_path / "b.png", opaque))
