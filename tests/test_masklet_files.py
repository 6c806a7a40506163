import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sam2vss.errors import MediaError, ShapeError
from sam2vss.masklet_files import FORMAT, MAX_PIXELS, encode_masklets, masklet_path, read_masklets, write_masklets
from sam2vss.types import MaskletWindow, Window


def example_window(
    count: int = 3, length: int = 2, size: tuple[int, int] = (6, 7), start: int = 64, knows_frames: bool = True
) -> MaskletWindow:
    """Random masks, the last one empty, with scores and points that no short decimal can hold."""
    rng = np.random.default_rng(count)
    masks = rng.random((count, length, *size)) < 0.4
    masks[-1:] = False
    return MaskletWindow.from_masks(
        masks,
        start,
        predicted_iou=rng.random(count, np.float32),
        stability=rng.random(count, np.float32),
        points=rng.normal(100, 50, (count, 2)).astype(np.float32),
        ids=rng.permutation(count) * 7 + 2**40,
        frame_iou=rng.random((length, count), np.float32) if knows_frames else None,
    )


def example_content() -> dict[str, Any]:
    """One masklet on one frame of 2 x 3 pixels, all of it foreground: runs of 0 and 6 pixels, "0" and "6" in RLE."""
    return {
        "format": FORMAT,
        "format_version": 1,
        "window": {"start": 0, "length": 1},
        "size": [2, 3],
        "masklets": [{"id": 5, "predicted_iou": 0.5, "stability": 1, "point": [1.5, 0]}],
        "rles": [[{"size": [2, 3], "counts": "06"}]],
    }


def write_json(folder: Path, content: Any) -> Path:
    path = folder / "00000000.json"
    path.write_text(json.dumps(content))
    return path


def assert_equal(found: MaskletWindow, expected: MaskletWindow) -> None:
    assert (found.window, found.size, found.rles) == (expected.window, expected.size, expected.rles)
    assert (found.frame_iou is None) == (expected.frame_iou is None)
    names = ("predicted_iou", "stability", "points", "ids", "frame_iou")
    for name in names if expected.frame_iou is not None else names[:-1]:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), name


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
@pytest.mark.parametrize("count", [0, 1, 20])
@pytest.mark.parametrize("knows_frames", [True, False])
def test_a_window_comes_back_to_the_last_bit(tmp_path, name, count, knows_frames):
    window = example_window(count, knows_frames=knows_frames)
    write_masklets(tmp_path / "new" / name, window)
    assert_equal(read_masklets(tmp_path / "new" / name), window)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_any_finite_float32_comes_back_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("floats") / "a.json"
    iou, stability, x, y = np.array(values, np.float32)[:, None]
    masks = np.ones((1, 1, 2, 2), bool)
    window = MaskletWindow.from_masks(masks, 0, iou, stability, np.stack([x, y], axis=1))
    write_masklets(path, window)
    assert_equal(read_masklets(path), window)


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_any_quality_comes_back_to_the_last_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("floats") / "a.json"
    quality = np.array(values, np.float32).reshape(3, 2)
    window = MaskletWindow.from_masks(np.ones((2, 3, 2, 2), bool), frame_iou=quality)
    write_masklets(path, window)
    assert_equal(read_masklets(path), window)


def test_a_window_without_the_quality_of_every_frame_makes_the_bytes_of_older_files():
    text = json.loads(encode_masklets(example_window(knows_frames=False), is_compressed=False))
    assert list(text) == ["format", "format_version", "window", "size", "masklets", "rles"]


def test_the_same_window_gives_the_same_bytes_and_text_that_is_readable_by_other_tools(tmp_path):
    window = example_window()
    write_masklets(tmp_path / "a.json.gz", window)
    write_masklets(tmp_path / "b.json.gz", window)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == encode_masklets(window)
    assert (tmp_path / "a.json.gz").read_bytes()[4:8] == bytes(4)  # no time of writing
    content = json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))
    np.testing.assert_array_equal(coco_mask.decode(content["rles"][1][0]), window.stack(1)[0])
    assert content["window"] == {"start": 64, "length": 2}
    assert [masklet["id"] for masklet in content["masklets"]] == window.ids.tolist()


def test_a_file_written_by_hand_is_understood(tmp_path):
    window = read_masklets(write_json(tmp_path, example_content() | {"made_by": "another tool"}))
    assert window.stack(0).tolist() == [[[True] * 3] * 2]
    assert (window.window, window.points.tolist(), window.stability.tolist()) == (Window(0, 1), [[1.5, 0]], [1])
    assert window.frame_iou is None
    window = read_masklets(write_json(tmp_path, example_content() | {"frame_iou": [[1]]}))
    assert window.frame_iou.tolist() == [[1]]
    assert window.frame_iou.dtype == np.float32


def test_text_counts_are_written_like_bytes(tmp_path):
    window = example_window()
    rles = tuple(tuple({**rle, "counts": rle["counts"].decode()} for rle in row) for row in window.rles)
    fields = {name: getattr(window, name) for name in ("predicted_iou", "stability", "points", "ids", "frame_iou")}
    write_masklets(tmp_path / "a.json", MaskletWindow(window.window, window.size, rles, **fields))
    assert_equal(read_masklets(tmp_path / "a.json"), window)


def test_files_of_a_clip_lie_in_a_folder_that_stays_inside():
    assert masklet_path(Path("run"), "drive", 32) == Path("run/drive/00000032.json.gz")
    assert masklet_path(Path("run"), "../../etc", 0) == Path("run/etc/00000000.json.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_not_written(tmp_path, value):
    window = MaskletWindow.from_masks(np.ones((1, 1, 2, 2), bool), predicted_iou=np.array([value], np.float32))
    with pytest.raises(ShapeError, match="not finite"):
        write_masklets(tmp_path / "a.json", window)
    assert list(tmp_path.iterdir()) == []


def test_a_window_too_large_to_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2vss.masklet_files.MAX_TEXT_BYTES", 1000)
    with pytest.raises(MediaError, match="choose a shorter --window"):
        write_masklets(tmp_path / "a.json.gz", example_window(20))


def changed(content: dict[str, Any], keys: tuple[Any, ...], value: Any) -> dict[str, Any]:
    place: Any = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("format",), "coco", 'expected a JSON object with "format": "sam2vss masklets"'),
        (("format_version",), 2, "format version 2, this version of sam2vss reads 1"),
        (("window",), [0, 1], '"window" is a list, expected an object'),
        (("window", "start"), -1, "window start is -1"),
        (("window", "start"), True, '"start" is True, expected a whole number'),
        (("window", "start"), 10**30, "window start is 1000"),
        (("window", "start"), 1.0, '"start" is 1.0, expected a whole number'),
        (("window", "length"), 0, "window length is 0"),
        (("window", "length"), 2, "1 frames with [1] masks, expected 2 frames"),
        (("size",), [2], "expected [height, width]"),
        (("size",), [2, "3"], "a side is '3', expected a whole number"),
        (("size",), [3, 2], "a mask does not have the size of its frame, [3, 2]"),
        (("size",), [0, 3], "a side is 0"),
        (("size",), [10**9, 10**9], "a side is 1000000000"),
        (("size",), [2**14, 2**14], f"larger than the {MAX_PIXELS} pixels"),
        (("masklets",), {}, '"masklets" is a dict, expected a list'),
        (("masklets",), [], "1 frames with [1] masks, expected 1 frames with 0 masks"),
        (("masklets", 0), None, "a masklet is None, expected an object"),
        (("masklets", 0, "id"), 2**63, "id is 9223372036854775808"),
        (("masklets", 0, "id"), False, '"id" is False'),
        (("masklets", 0, "predicted_iou"), "0.5", "\"predicted_iou\" is '0.5', expected a number"),
        (("masklets", 0, "predicted_iou"), 1e300, "a finite number of 32 bits"),
        (("masklets", 0, "stability"), 10**400, "a finite number of 32 bits"),
        (("masklets", 0, "stability"), True, '"stability" is True, expected a number'),
        (("masklets", 0, "stability"), None, '"stability" is None, expected a number'),
        (("masklets", 0, "point"), [1, 2, 3], "a point is not [x, y]"),
        (("masklets", 0, "point"), [[1], 2], "a score or coordinate is a list"),
        (("frame_iou",), None, '"frame_iou" is None, expected a list'),
        (("frame_iou",), {}, '"frame_iou" is a dict, expected a list'),
        (("frame_iou",), [], "frame_iou has 0 frames with [] numbers, expected 1 frames with 1 numbers"),
        (("frame_iou",), [[0], [0]], "frame_iou has 2 frames with [1] numbers, expected 1 frames with 1 numbers"),
        (("frame_iou",), [[0, 1]], "frame_iou has 1 frames with [2] numbers, expected 1 frames with 1 numbers"),
        (("frame_iou",), [0.5], "a frame of frame_iou is 0.5, expected a list"),
        (("frame_iou",), [["0.5"]], "a score or coordinate is '0.5', expected a number"),
        (("frame_iou",), [[True]], "a score or coordinate is True, expected a number"),
        (("frame_iou",), [[None]], "a score or coordinate is None, expected a number"),
        (("frame_iou",), [[[0.5]]], "a score or coordinate is a list, expected a number"),
        (("frame_iou",), [[10**400]], "a finite number of 32 bits"),
        (("frame_iou",), [[1.25]], "frame_iou holds values from 1.25 to 1.25, expected 0 to 1"),
        (("frame_iou",), [[-0.25]], "frame_iou holds values from -0.25 to -0.25, expected 0 to 1"),
        (("rles",), "06", "\"rles\" is '06', expected a list"),
        (("rles",), [[], []], "expected 1 frames with 1 masks"),
        (("rles", 0), {}, "a frame of rles is a dict"),
        (("rles", 0, 0), "06", "a mask is '06', expected an object"),
        (("rles", 0, 0, "size"), [2, 4], "a mask does not have the size of its frame"),
        (("rles", 0, 0, "counts"), [0, 6], '"counts" is a list, expected text'),
        (("rles", 0, 0, "counts"), "", "its counts end too early"),
        (("rles", 0, 0, "counts"), "0V", "its counts end too early"),  # V: another digit follows
        (("rles", 0, 0, "counts"), "0\u00e96", "foreign characters"),
        (("rles", 0, 0, "counts"), "0 6", "foreign characters"),
        (("rles", 0, 0, "counts"), "0p", "foreign characters"),  # one above the last digit
        (("rles", 0, 0, "counts"), "05", "runs of 0 to 5 pixels, expected runs that add up to 6"),
        (("rles", 0, 0, "counts"), "07", "runs of 0 to 7 pixels"),
        (("rles", 0, 0, "counts"), "8O", "runs of -1 to 8 pixels"),  # O: the digit 31, which is -1
        (("rles", 0, 0, "counts"), "4N4", "runs of -2 to 4 pixels"),  # 4 - 2 + 4 = 6 adds up, but is no mask
        (("rles", 0, 0, "counts"), "0PPPPPP0", "a run is longer than any frame"),
        (("rles", 0, 0, "counts"), "0oooo?", "expected runs that add up to 6"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, keys, value, message):
    path = write_json(tmp_path, changed(example_content(), keys, value))
    with pytest.raises(MediaError, match=re.escape(message)) as caught:
        read_masklets(path)
    assert str(path) in str(caught.value)


def test_a_single_run_of_background_is_an_empty_mask(tmp_path):
    path = write_json(tmp_path, changed(example_content(), ("rles", 0, 0, "counts"), "6"))
    assert read_masklets(path).areas(0).tolist() == [0]


@pytest.mark.parametrize(
    "keys",
    [
        ("window",), ("window", "start"), ("window", "length"), ("size",), ("masklets",), ("rles",),
        ("masklets", 0, "id"), ("masklets", 0, "predicted_iou"), ("masklets", 0, "stability"), ("masklets", 0, "point"),
        ("rles", 0, 0, "size"), ("rles", 0, 0, "counts"),
    ],
)  # fmt: skip
def test_a_missing_entry_is_named(tmp_path, keys):
    content = example_content()
    place: Any = content
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    with pytest.raises(MediaError, match=f'"{keys[-1]}" is missing'):
        read_masklets(write_json(tmp_path, content))


def test_two_masklets_of_one_id_are_refused(tmp_path):
    content = example_content()
    content["masklets"] *= 2
    content["rles"][0] *= 2
    with pytest.raises(MediaError, match="ids must be distinct"):
        read_masklets(write_json(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe\xfd", "not valid JSON"),
        (b'{"format": NaN}', "NaN is no number of JSON"),
        (b'{"format": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"\x1f\x8b", "damaged or cut short"),
        (b"\x1f\x8bnot really compressed", "damaged or cut short"),
    ],
)
def test_a_file_that_is_no_json_is_refused(tmp_path, text, message):
    path = tmp_path / "a.json.gz"
    path.write_bytes(text)
    with pytest.raises(MediaError, match=message):
        read_masklets(path)


def test_infinite_numbers_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(example_content()).replace("0.5", "1e999"))
    with pytest.raises(MediaError, match="a score or coordinate is inf"):
        read_masklets(path)


def test_a_missing_file_is_an_error_of_ours(tmp_path):
    with pytest.raises(MediaError, match=r"cannot read .*No such file"):
        read_masklets(tmp_path / "a.json")
    with pytest.raises(MediaError, match="cannot read"):
        read_masklets(tmp_path)


def test_a_small_file_that_unpacks_to_a_huge_one_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("sam2vss.masklet_files.MAX_TEXT_BYTES", 1 << 20)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 24)))
    with pytest.raises(MediaError, match="more than 1 MiB of text"):
        read_masklets(path)
    plain = tmp_path / "a.json"
    plain.write_bytes(b" " * (1 << 21))
    with pytest.raises(MediaError, match="more than 1 MiB of text"):
        read_masklets(plain)


def test_a_file_cut_short_or_with_flipped_bytes_is_refused_or_safe_to_decode(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.json"
    write_masklets(path, example_window())
    whole = path.read_bytes()
    packed = gzip.compress(whole, mtime=0)
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(whole if rng.random() < 0.8 else packed)
        if rng.random() < 0.3:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            window = read_masklets(path)
        except MediaError:
            num_refused += 1
            continue
        for t in range(window.window.length):
            assert window.stack(t).shape == (window.num_masklets, *window.size)
            assert (window.areas(t) == window.stack(t).sum((1, 2))).all()
    assert 150 < num_refused < 300


def test_all_masks_that_the_coco_tools_write_pass(tmp_path):
    rng = np.random.default_rng(1)
    for size in [(1, 1), (1, 50), (50, 1), (300, 200), (40, 3000)]:
        coarse = rng.random((8, 1, size[0] // 9 + 1, size[1] // 9 + 1)) < rng.random((8, 1, 1, 1))
        masks = np.kron(coarse, np.ones((9, 9), bool))[..., : size[0], : size[1]]
        masks[0] = rng.random(size) < 0.5
        write_masklets(tmp_path / "a.json", MaskletWindow.from_masks(masks))
        found = read_masklets(tmp_path / "a.json")
        np.testing.assert_array_equal(found.stack(0), masks[:, 0])


@pytest.mark.dataset
def test_masklets_of_real_recordings_pass(tmp_path, shared_data):
    source = json.loads((shared_data / "sav_example" / "sav_000001_manual.json").read_text())
    size = source["masklet"][0][0]["size"]
    length, count = len(source["masklet"]), len(source["masklet_id"])
    content = example_content() | {
        "window": {"start": 0, "length": length},
        "size": size,
        "masklets": [example_content()["masklets"][0] | {"id": number} for number in source["masklet_id"]],
        "rles": source["masklet"],
    }
    window = read_masklets(write_json(tmp_path, content))
    assert (window.num_masklets, window.size, window.window.length) == (count, (848, 480), 121)
    assert all((window.areas(t) == window.stack(t).sum((1, 2))).all() for t in range(0, length, 10))
