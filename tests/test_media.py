"""From what a user points at to clips, and from clips to windows."""

import gc
import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_files import read_number, write_numbered_video, write_picture
from sam2vss.errors import MediaError, ShapeError
from sam2vss.media import ImageClip, find_clips, natural_key, open_clip, windows_of
from sam2vss.types import Frame


def names_and_lengths(clips):
    return [(clip.name, clip.num_frames_expected) for clip in clips]


def blank_frames(num_frames):
    return (Frame(np.zeros((2, 3, 3), np.uint8), i, str(i)) for i in range(num_frames))


# ------------------------------------------------------------------------------------------------------------- finding


def test_a_folder_of_pictures_is_one_clip_in_natural_order(tmp_path):
    for i, name in enumerate(["frame10.png", "Frame2.png", "frame1.jpg", "frame1b.PNG", "z.tiff"]):
        write_picture(tmp_path / "my clip" / name, color=(i, i, i))
    (tmp_path / "my clip" / "notes.txt").write_text("not a picture")
    write_picture(tmp_path / "my clip" / ".hidden.png")
    (clip,) = find_clips(tmp_path / "my clip")
    assert (clip.name, clip.kind, clip.size) == ("my clip", "images", (64, 96))
    assert [frame.name for frame in clip.frames()] == ["frame1", "frame1b", "Frame2", "frame10", "z"]
    assert [frame.index for frame in clip.frames()] == [0, 1, 2, 3, 4]
    assert {(frame.pts, frame.time_s) for frame in clip.frames()} == {(None, None)}
    assert clip.frame_rate is clip.time_base is None


@given(st.lists(st.integers(0, 10**6), min_size=2, unique=True))
def test_numbers_in_names_sort_as_numbers(numbers):
    names = [f"a{number}b" for number in numbers]
    assert sorted(names, key=natural_key) == [f"a{number}b" for number in sorted(numbers)]


@given(st.lists(st.text(), unique=True))
def test_every_set_of_names_has_one_order(names):
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


def test_a_folder_of_videos_is_one_clip_each(tmp_path):
    for name in ("b10.mp4", "b9.MP4"):
        write_numbered_video(tmp_path / name.lower(), 2).rename(tmp_path / name)
    clips = find_clips(tmp_path)
    assert names_and_lengths(clips) == [("b9", 2), ("b10", 2)]
    assert [read_number(frame.image) for frame in clips[0].frames()] == [0, 1]


def test_a_data_set_in_vspw_layout_is_one_clip_a_video(tmp_path):
    for video, length in (("v2", 2), ("v10", 3)):
        for i in range(length):
            write_picture(tmp_path / "data" / video / "origin" / f"{i:08d}.jpg")
            write_picture(tmp_path / "data" / video / "mask" / f"{i:08d}.png")
    (tmp_path / "train.txt").write_text("v2\n")
    assert names_and_lengths(find_clips(tmp_path)) == [("v2", 2), ("v10", 3)]
    assert names_and_lengths(find_clips(tmp_path / "data")) == [("v2", 2), ("v10", 3)]
    assert names_and_lengths([open_clip(tmp_path / "data" / "v10")]) == [("v10", 3)]


def test_a_folder_of_picture_folders_is_one_clip_each_and_names_what_it_leaves_out(tmp_path, caplog):
    write_picture(tmp_path / "a" / "1.jpg")
    write_picture(tmp_path / "b" / "1.jpg")
    (tmp_path / "logs").mkdir()
    with caplog.at_level(logging.WARNING):
        assert names_and_lengths(find_clips(tmp_path)) == [("a", 1), ("b", 1)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'logs'} holds no pictures and is left out"
    ]


def test_lists_of_sources_are_joined_and_equal_names_told_apart(tmp_path):
    for folder in ("x", "y", "z"):
        write_picture(tmp_path / folder / "street" / "1.png")
    write_picture(tmp_path / "z" / "STREET_2" / "1.png")
    sources = [tmp_path / "x" / "street", str(tmp_path / "y" / "street"), tmp_path / "z"]
    # z comes sorted: STREET_2 differs from street_2 only in case, which some disks ignore
    assert [clip.name for clip in find_clips(sources)] == ["street", "street_2", "street_3", "STREET_2_2"]
    assert [clip.path for clip in find_clips(sources)][:2] == [tmp_path / "x" / "street", tmp_path / "y" / "street"]


def test_a_text_file_lists_sources_relative_to_itself(tmp_path, monkeypatch):
    write_picture(tmp_path / "sub" / "a" / "1.png")
    write_picture(tmp_path / "b" / "1.png")
    listing = tmp_path / "sub" / "clips.txt"
    listing.write_text(f"# two clips\na\n\n{tmp_path / 'b'}\n")
    monkeypatch.chdir(tmp_path.parent)
    assert [clip.name for clip in find_clips(listing)] == ["a", "b"]
    listing.write_text("# none\n")
    with pytest.raises(MediaError, match="lists no sources, expected one path per line"):
        find_clips(listing)


def test_a_single_picture_is_a_clip_of_one_frame(tmp_path):
    (clip,) = find_clips(write_picture(tmp_path / "one.png"))
    assert names_and_lengths([clip]) == [("one", 1)]
    assert next(clip.frames()).name == "one"


def test_names_of_folders_are_made_safe(tmp_path, monkeypatch):
    write_picture(tmp_path / "a:b" / "1.png")
    assert open_clip(tmp_path / "a:b").name == "a_b"
    monkeypatch.chdir(tmp_path / "a:b")
    assert open_clip(Path(".")).name == "a_b"


def test_sources_without_frames_say_what_was_found(tmp_path):
    empty, texts, both, twins = (tmp_path / name for name in ("empty", "texts", "both", "twins"))
    for folder in (empty, texts):
        folder.mkdir()
    (texts / "a.txt").touch()
    write_picture(both / "a.png")
    write_numbered_video(both / "b.mp4", 1)
    write_picture(twins / "a.png")
    write_picture(twins / "a.jpg")
    for source, message in (
        (tmp_path / "gone", "gone does not exist; give a video file or a folder of pictures"),
        (empty, "empty holds nothing, expected pictures, videos or folders of pictures"),
        (texts, r"texts holds 1 other entries \(first: a.txt\), expected .* Pictures end in .jpg"),
        (both, "both holds 1 pictures and 1 videos side by side"),
        (twins, "a.jpg and a.png would share one frame name"),
        ([], "no source was given"),
    ):
        with pytest.raises(MediaError, match=message):
            find_clips(source)
    with pytest.raises(MediaError, match="holds nothing, expected pictures"):
        open_clip(empty)


# ---------------------------------------------------------------------------------------------------- picture folders


def test_a_picture_of_another_size_fails_before_the_first_frame(tmp_path):
    for name in ("1.png", "2.png", "10.png"):
        write_picture(tmp_path / name, size=(4, 6) if name != "10.png" else (6, 4))
    with pytest.raises(
        ShapeError, match=r"10.png is 6 x 4 \(height x width\), but 1.png is 4 x 6: the frames of a clip"
    ):
        next(open_clip(tmp_path).frames())


def test_a_turned_picture_counts_by_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "1.jpg", exif=exif)  # stored 6 wide, 4 high; shown 4 wide, 6 high
    Image.new("RGB", (4, 6)).save(tmp_path / "2.jpg")
    clip = open_clip(tmp_path)
    assert clip.size == (6, 4)
    assert [frame.image.shape for frame in clip.frames()] == [(6, 4, 3), (6, 4, 3)]


def test_an_empty_picture_fails_before_the_first_frame(tmp_path):
    write_picture(tmp_path / "1.png")
    (tmp_path / "2.png").touch()
    with pytest.raises(MediaError, match=r"2.png is an empty file"):
        next(open_clip(tmp_path).frames())


def test_a_picture_cut_short_fails_at_its_place(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for i in range(3):
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    content = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(content[: len(content) // 2])
    frames = open_clip(tmp_path).frames()
    assert next(frames).name == "0"
    with pytest.raises(MediaError, match=r"1.jpg cannot be read, it may be cut short"):
        next(frames)


def test_the_fingerprint_of_a_folder_follows_names_and_content(tmp_path):
    def fingerprint(folder):
        return open_clip(folder).fingerprint()

    for folder in ("a", "copy", "renamed", "painted"):
        for i in range(3):
            write_picture(tmp_path / folder / f"{i}.bmp")  # all files of one size
    (tmp_path / "renamed" / "2.bmp").rename(tmp_path / "renamed" / "3.bmp")
    write_picture(tmp_path / "painted" / "1.bmp", color=(1, 2, 3))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "copy")
    assert len({fingerprint(tmp_path / folder) for folder in ("a", "renamed", "painted")}) == 3


# ------------------------------------------------------------------------------------------------------------- windows


@given(num_frames=st.integers(0, 12), length=st.integers(1, 5))
def test_windows_cut_the_stream_without_gap_or_overlap(num_frames, length):
    windows = list(windows_of(blank_frames(num_frames), length))
    assert [frame.index for window in windows for frame in window] == list(range(num_frames))
    assert all(len(window) == length for window in windows[:-1])
    assert len(windows) == -(-num_frames // length)


def test_windows_are_streamed_and_not_kept():
    alive = []

    def frames():
        for frame in blank_frames(30):
            alive.append(weakref.ref(frame))
            yield frame

    most = 0
    for window in windows_of(frames(), 5):
        assert len(window) == 5
        gc.collect()
        most = max(most, sum(reference() is not None for reference in alive))
        del window
    assert most <= 6  # this window, and at most the frame that a loop variable still holds
    assert len(alive) == 30


def test_a_window_needs_a_length():
    with pytest.raises(ShapeError, match="window length must be at least 1, found 0"):
        next(windows_of(blank_frames(3), 0))


@pytest.mark.dataset
def test_real_frames_keep_the_numbers_of_their_files(shared_data):
    clips = {clip.name: clip for clip in find_clips(shared_data / "camvid")}
    clip = clips["0016E5_15hz_a"]
    assert isinstance(clip, ImageClip)
    assert (clip.size, clip.num_frames_expected) == ((360, 480), 51)
    assert next(clip.frames()).name == "00007959"


def test_a_list_that_names_itself_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("b.txt")
    (tmp_path / "b.txt").write_text("a.txt")
    with pytest.raises(MediaError, match=r"names itself: a\.txt -> b\.txt -> a\.txt"):
        find_clips(tmp_path / "a.txt")


def test_pictures_whose_frames_would_get_one_file_name_are_refused_up_front(tmp_path):
    for name in ("a:b.png", "a_b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(MediaError, match=r"a:b\.png and a_b\.png would share one frame name"):
        find_clips(tmp_path)


def test_a_link_to_a_picture_that_is_gone_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(MediaError, match=r"2\.png is a link to .*gone\.png, which is not there"):
        find_clips(tmp_path)
