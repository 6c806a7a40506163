import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sam2vss.errors import MediaError, SettingsError, ShapeError
from sam2vss.masklet_files import masklet_path, write_masklets
from sam2vss.trackers.stored import StoredMasklets
from sam2vss.types import MaskletWindow

SIZE = (5, 6)


def frames(length: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.zeros((length, *size, 3), np.uint8)


def window_at(start: int, length: int) -> MaskletWindow:
    masks = np.random.default_rng(start).random((2, length, *SIZE)) < 0.5
    return MaskletWindow.from_masks(masks, start, ids=np.array([start, start + 1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips in windows of 4: 10 frames of `drive` (4, 4, 2) and 4 of `walk`."""
    place = tmp_path / "masklets"
    for clip, starts in (("drive", ((0, 4), (4, 4), (8, 2))), ("walk", ((0, 4),))):
        for start, length in starts:
            write_masklets(masklet_path(place, clip, start), window_at(start, length))
    return place


def begun(folder: Path, clip: str = "drive") -> StoredMasklets:
    tracker = StoredMasklets(folder)
    tracker.begin_clip(clip)
    return tracker


def test_the_windows_of_a_clip_come_back_as_they_were_written(folder):
    tracker = begun(folder)
    for start, length in ((0, 4), (4, 4), (8, 2)):
        assert tracker.track(frames(length), start).rles == window_at(start, length).rles
    tracker.begin_clip("walk")
    assert tracker.track(frames(4), 0).window.length == 4
    with pytest.raises(MediaError, match="no masklets of the window from frame 4"):
        tracker.track(frames(4), 4)


def test_files_that_are_not_compressed_are_read_too(folder):
    path = masklet_path(folder, "drive", 0)
    path.with_name("00000000.json").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert begun(folder).track(frames(4), 0).rles == window_at(0, 4).rles


def test_a_run_folder_stands_for_its_masklets(folder):
    (folder.parent / "run.json").write_text("{}")
    assert begun(folder.parent).folder == folder
    assert begun(folder.parent).track(frames(4), 4).window.start == 4


def test_a_run_that_kept_no_masklets_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MediaError, match="kept no masklets: run it again with --save-masklets"):
        StoredMasklets(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("absent", "does not exist"), ("a.json", "is a file")])
def test_what_is_no_folder_is_refused(tmp_path, name, message):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(MediaError, match=f"{message}, expected a folder of masklets"):
        StoredMasklets(tmp_path / name)


def test_a_clip_without_masklets_is_named_with_those_that_are_there(folder):
    with pytest.raises(MediaError, match="no masklets of the clip rain; clips there: drive, walk"):
        begun(folder, "rain")


def test_a_clip_name_does_not_lead_out_of_the_folder(folder):
    write_masklets(folder.parent / "00000000.json", window_at(0, 4))
    with pytest.raises(MediaError, match="no masklets of the clip"):
        begun(folder, "..")


def test_windows_before_any_clip_are_refused(folder):
    with pytest.raises(SettingsError, match="call begin_clip"):
        StoredMasklets(folder).track(frames(4), 0)


def test_another_window_length_is_named_at_the_first_window(folder):
    with pytest.raises(
        SettingsError, match="masklets of 4 frames, and the window from frame 0 on has 8: pass the same"
    ):
        begun(folder).track(frames(8), 0)


def test_a_missing_window_is_named_with_those_that_are_there(folder):
    with pytest.raises(MediaError, match=r"pass the same --window as .* \(windows there begin at: 0, 4, 8\)"):
        begun(folder).track(frames(3), 3)
    with pytest.raises(MediaError, match="the run that wrote them did not come so far"):
        begun(folder).track(frames(2), 12)
    for start in range(12, 60, 4):
        write_masklets(masklet_path(folder, "drive", start), window_at(start, 4))
    with pytest.raises(MediaError, match=r"begin at: 0, 4, 8, 12, 16, \.\.\.\)"):
        begun(folder).track(frames(3), 3)


def test_a_folder_of_a_clip_with_other_files_only_holds_no_windows(folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.json").write_text("{}")
    with pytest.raises(MediaError, match="windows there begin at: none"):
        begun(folder, "empty").track(frames(4), 0)


def test_frames_of_another_size_are_refused(folder):
    with pytest.raises(ShapeError, match=r"masks of 5 x 6 \(height x width\), but the frames are 6 x 5"):
        begun(folder).track(frames(4, (6, 5)), 0)


def test_a_renamed_file_is_refused(folder):
    path = masklet_path(folder, "drive", 4)
    path.rename(masklet_path(folder, "walk", 4))
    with pytest.raises(MediaError, match="no masklets of the window from frame 4"):
        begun(folder).track(frames(4), 4)
    masklet_path(folder, "drive", 0).rename(path)
    with pytest.raises(MediaError, match="holds masklets from frame 0 on: the file was renamed"):
        begun(folder).track(frames(4), 4)


def test_damaged_and_hostile_files_are_refused_by_name(folder):
    path = masklet_path(folder, "drive", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(MediaError, match=r"00000000\.json\.gz is damaged or cut short"):
        begun(folder).track(frames(4), 0)
    content = json.loads(gzip.decompress(whole))
    content["rles"][3][1]["counts"] = "0" + content["rles"][3][1]["counts"]  # every run becomes its opposite, and more
    content["rles"][3][1]["size"] = content["size"] = [100_000, 100_000]
    path.write_text(json.dumps(content))
    with pytest.raises(MediaError, match=r"00000000.json.gz holds no masklets that can be used: frames of 100000"):
        begun(folder).track(frames(4), 0)
