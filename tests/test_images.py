"""Pictures of every mode as upright RGB, and label maps that survive the way through a file."""

import errno
import io
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sam2vss.errors import LabelError, MediaError, ShapeError
from sam2vss.images import (
    encode_jpeg,
    encode_label_map,
    frame_digest,
    image_size,
    may_be_cut_short,
    read_image,
    read_label_map,
    write_label_map,
)
from sam2vss.types import LabelSpace

VSPW_LIKE = LabelSpace(
    names=("wall", "sky", "car"),
    palette=np.array([[120, 120, 120], [6, 230, 230], [0, 102, 200]], np.uint8),
    raw_ids=(1, 2, 40),
    raw_void=(0, 255),
)


def save_image(path, image, **options):
    image.save(path, **options)
    return path


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_without_its_end_may_be_cut_short(tmp_path, suffix):
    path = save_image(tmp_path / f"a{suffix}", Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)))
    assert not may_be_cut_short(path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(30))  # what some cameras leave behind
    assert not may_be_cut_short(path)
    path.write_bytes(whole[:-20])
    assert may_be_cut_short(path)
    path.write_bytes(whole + bytes(100))
    assert may_be_cut_short(path)  # whoever decodes it sees that it is not
    assert read_image(path).shape == (30, 30, 3)


def test_other_files_are_not_said_to_be_cut_short(tmp_path):
    assert not may_be_cut_short(save_image(tmp_path / "a.bmp", Image.new("L", (3, 3))))
    with pytest.raises(MediaError, match=r"b\.png cannot be read: No such file"):
        may_be_cut_short(tmp_path / "b.png")


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    path = save_image(tmp_path / "a.png", Image.fromarray(values))
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]  # the upper 8 bits


def test_grey_and_indexed_pictures_become_rgb(tmp_path):
    grey = save_image(tmp_path / "grey.png", Image.fromarray(np.array([[0, 200]], np.uint8)))
    assert read_image(grey).tolist() == [[[0, 0, 0], [200, 200, 200]]]
    black_and_white = save_image(tmp_path / "bw.png", Image.fromarray(np.array([[False, True]])))
    assert read_image(black_and_white).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    indexed = Image.fromarray(np.array([[1, 0]], np.uint8))
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    assert read_image(save_image(tmp_path / "p.png", indexed)).tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_transparency_is_put_on_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], np.uint8)
    path = save_image(tmp_path / "a.png", Image.fromarray(rgba))
    assert read_image(path).tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]  # 51 / 255 is a fifth


def test_a_transparent_palette_colour_is_put_on_black(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8))
    indexed.putpalette([250, 250, 250, 40, 50, 60])
    path = save_image(tmp_path / "a.png", indexed, transparency=0)
    assert read_image(path).tolist() == [[[0, 0, 0], [40, 50, 60]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    # What the camera should show: red upper left, blue lower right. Stored turned as EXIF describes.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (255, 0, 0)
    upright[16:, 32:] = (0, 0, 255)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save_image(tmp_path / f"a{suffix}", image, exif=exif, quality=95)
    shown = read_image(path)
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 8  # JPEG; another turn gives more than 40
    assert image_size(path) == (32, 48)


def test_unreadable_pictures_say_what_is_wrong(tmp_path):
    empty, garbage, short, real = (tmp_path / name for name in ("empty.jpg", "garbage.jpg", "short.jpg", "float.tif"))
    empty.touch()
    garbage.write_bytes(b"no picture at all")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    short.write_bytes(encode_jpeg(noise)[:2000])
    Image.fromarray(np.ones((4, 4), np.float32)).save(real)
    for path, message in (
        (empty, r"empty.jpg is an empty file \(0 bytes\)"),
        (garbage, "garbage.jpg is not a picture"),
        (short, "short.jpg cannot be read, it may be cut short or damaged"),
        (real, "float.tif holds floating-point values of unknown range"),
        (tmp_path / "gone.jpg", "gone.jpg does not exist"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(MediaError, match=message):
            read_image(path)


def test_pillows_limit_against_forged_pictures_stays(tmp_path, monkeypatch):
    path = save_image(tmp_path / "big.png", Image.new("L", (40, 30)))
    for limit in (1199, 500):  # just above the limit Pillow only warns, from twice the limit on it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(MediaError, match=r"big.png.*1200 pixels"):
            read_image(path)
        with pytest.raises(MediaError, match=r"big.png.*1200 pixels"):
            read_label_map(path, VSPW_LIKE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert read_image(path).shape == (30, 40, 3)


# ---------------------------------------------------------------------------------------------------------- label maps


@given(data=st.data(), num_classes=st.sampled_from([1, 2, 3, 16, 17, 255, 256, 300]))
def test_label_maps_survive_the_way_through_a_file(tmp_path_factory, data, num_classes):
    space = LabelSpace.numbered(num_classes)
    ids = st.one_of(st.integers(0, num_classes - 1), st.just(space.ignore_index))
    height, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    labels = np.array([[data.draw(ids) for _ in range(width)] for _ in range(height)], space.dtype)
    path = tmp_path_factory.mktemp("maps") / "a.png"
    write_label_map(path, labels, space)
    again = read_label_map(path, space)
    assert again.dtype == labels.dtype
    assert again.tolist() == labels.tolist()


def test_the_file_holds_raw_ids_and_the_palette_of_the_label_set(tmp_path):
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    path = tmp_path / "new" / "a.png"
    write_label_map(path, labels, VSPW_LIKE)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.asarray(image).tolist() == [[1, 2, 40, 0]]  # void is written as the first void id
        colours = np.asarray(image.convert("RGB"))
    assert colours.tolist() == [[[120, 120, 120], [6, 230, 230], [0, 102, 200], [0, 0, 0]]]
    assert path.read_bytes()[24:26] == bytes([8, 3])  # IHDR: 8 bits, indexed, even with few colours
    assert os.listdir(path.parent) == ["a.png"]


def test_ids_above_255_make_a_16_bit_file(tmp_path):
    space = LabelSpace.numbered(300)
    write_label_map(tmp_path / "a.png", np.array([[0, 299, 65535]], np.uint16), space)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "I;16"
        assert np.asarray(image).tolist() == [[0, 299, 65535]]


def test_both_void_ids_are_read_as_ignore(tmp_path):
    path = save_image(tmp_path / "a.png", Image.fromarray(np.array([[0, 255, 40]], np.uint8)))
    assert read_label_map(path, VSPW_LIKE).tolist() == [[255, 255, 2]]


def test_every_single_channel_mode_gives_the_same_ids(tmp_path):
    ids = np.array([[0, 1, 1, 0]], np.uint8)
    space = LabelSpace.numbered(2)
    indexed = Image.fromarray(ids)
    indexed.putpalette([9, 9, 9, 200, 0, 0])  # colours must not matter
    images = {
        "P.png": indexed,
        "L.png": Image.fromarray(ids),
        "1.png": Image.fromarray(ids.astype(bool)),
        "I16.png": Image.fromarray(ids.astype(np.uint16)),
        "I.tif": Image.fromarray(ids.astype(np.int32)),
        "RGB.png": Image.fromarray(np.repeat(ids[:, :, None], 3, axis=2)),
    }
    for name, image in images.items():
        assert read_label_map(save_image(tmp_path / name, image), space).tolist() == ids.tolist(), name


def test_colours_are_refused_as_labels(tmp_path):
    colours = save_image(tmp_path / "a.png", Image.fromarray(np.array([[[0, 102, 200]]], np.uint8)))
    with pytest.raises(LabelError, match=r"a.png has mode RGB, .*colours cannot be decoded into classes"):
        read_label_map(colours, VSPW_LIKE)
    with_alpha = save_image(tmp_path / "b.png", Image.new("RGBA", (2, 2)))
    with pytest.raises(LabelError, match=r"b.png has mode RGBA"):
        read_label_map(with_alpha, VSPW_LIKE)


def test_ids_outside_the_label_set_are_named_with_the_file(tmp_path):
    path = save_image(tmp_path / "a.png", Image.fromarray(np.array([[1, 3, 41]], np.uint8)))
    with pytest.raises(LabelError, match=r"a.png holds the ids \[3, 41\] that are not in the label set"):
        read_label_map(path, VSPW_LIKE)


def test_a_label_map_of_another_size_than_its_frame_is_refused(tmp_path):
    path = save_image(tmp_path / "a.png", Image.fromarray(np.ones((4, 6), np.uint8)))
    assert read_label_map(path, VSPW_LIKE, size=(4, 6)).shape == (4, 6)
    with pytest.raises(ShapeError, match=r"a.png is 4 x 6 \(height x width\), but its frame is 6 x 4"):
        read_label_map(path, VSPW_LIKE, size=(6, 4))


def test_labels_outside_the_label_set_are_not_written():
    with pytest.raises(LabelError, match=r"hold the ids \[3\]"):
        encode_label_map(np.array([[3]], np.uint8), VSPW_LIKE)
    with pytest.raises(LabelError, match="dtype int64, expected uint8"):
        encode_label_map(np.array([[1]]), VSPW_LIKE)
    with pytest.raises(ShapeError, match=r"shape \(H, W\), found \(1, 1, 1\)"):
        encode_label_map(np.zeros((1, 1, 1), np.uint8), VSPW_LIKE)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_label_map(path, np.array([[1]], np.uint8), VSPW_LIKE)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MediaError, match=r"the disk is full while writing .*a.png: free some space"):
        write_label_map(path, np.array([[2]], np.uint8), VSPW_LIKE)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_previews_are_jpeg():
    picture = np.full((10, 12, 3), (200, 100, 50), np.uint8)
    with Image.open(io.BytesIO(encode_jpeg(picture))) as image:
        assert (image.format, image.size) == ("JPEG", (12, 10))
        assert np.abs(np.asarray(image).astype(int) - picture).max() <= 3


def test_a_digest_tells_pictures_and_shapes_apart():
    picture = np.arange(36, dtype=np.uint8).reshape(2, 6, 3)
    assert frame_digest(picture) == frame_digest(picture.copy())
    assert frame_digest(picture) != frame_digest(picture + 1)
    assert frame_digest(picture) != frame_digest(picture.reshape(3, 4, 3))
