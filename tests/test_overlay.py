"""Colours over frames, and videos that come back from the file with the times they went in with."""

import errno
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_files import NTSC, SIZE, numbered_picture, read_number, write_numbered_video, write_picture
from sam2vss.errors import MediaError, ShapeError
from sam2vss.media import open_clip
from sam2vss.overlay import VideoWriter, draw_legend, draw_overlay, label_contours
from sam2vss.types import LabelSpace

SPACE = LabelSpace(("sky", "car"), np.array([[0, 100, 200], [250, 50, 0]], np.uint8))


# ------------------------------------------------------------------------------------------------------------- drawing


def test_labels_tint_the_frame_by_alpha_and_void_stays_clear():
    image = np.full((1, 3, 3), 100, np.uint8)
    drawn = draw_overlay(image, np.array([[0, 1, 255]], np.uint8), SPACE, alpha=0.5, contours=False)
    # half frame, half colour: (100 + 0) / 2, (100 + 100) / 2, (100 + 200) / 2; then (100 + 250) / 2 = 175, ...
    assert drawn.tolist() == [[[50, 100, 150], [175, 75, 50], [100, 100, 100]]]
    assert image.tolist() == [[[100, 100, 100]] * 3]


def test_alpha_runs_from_the_frame_to_the_colours():
    image = np.full((2, 2, 3), 77, np.uint8)
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    assert np.array_equal(draw_overlay(image, labels, SPACE, alpha=0, contours=False), image)
    assert np.array_equal(draw_overlay(image, labels, SPACE, alpha=1, contours=False), SPACE.palette[labels])


def test_contours_are_white_lines_one_pixel_wide():
    labels = np.zeros((4, 4), np.uint8)
    labels[:, 2:] = 1
    drawn = draw_overlay(np.zeros((4, 4, 3), np.uint8), labels, SPACE)
    assert (drawn == 255).all(axis=2).tolist() == [[False, True, False, False]] * 4


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=4))
def test_contours_equal_the_slow_definition(rows):
    labels = np.array(rows, np.uint8)
    height, width = labels.shape
    expected = [
        [
            (x + 1 < width and labels[y, x] != labels[y, x + 1])
            or (y + 1 < height and labels[y, x] != labels[y + 1, x])
            for x in range(width)
        ]
        for y in range(height)
    ]
    assert label_contours(labels).tolist() == expected


def test_labels_of_another_size_are_refused():
    with pytest.raises(ShapeError, match=r"labels are \(2, 2\), expected the frame's \(H, W\) = \(2, 3\)"):
        draw_overlay(np.zeros((2, 3, 3), np.uint8), np.zeros((2, 2), np.uint8), SPACE)


def test_more_than_255_classes_are_drawn():
    space = LabelSpace.numbered(300)
    labels = np.array([[299, 65535]], np.uint16)
    drawn = draw_overlay(np.full((1, 2, 3), 9, np.uint8), labels, space, alpha=1, contours=False)
    assert drawn.tolist() == [[space.palette[299].tolist(), [9, 9, 9]]]


def test_a_legend_names_the_classes_in_as_many_rows_as_it_needs():
    space = LabelSpace(("sky", "Straße" * 3, "car"), np.array([[0, 100, 200], [9, 9, 9], [250, 50, 0]], np.uint8))
    wide, narrow = draw_legend([0, 2], space, width=400), draw_legend([0, 2], space, width=70)
    assert wide.shape == (24, 400, 3)
    assert narrow.shape == (48, 70, 3)
    for picture in (wide, narrow):
        colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
        assert {(0, 100, 200), (250, 50, 0)} <= colours
        assert (9, 9, 9) not in colours or picture.max() > 9
    assert draw_legend([1], space, width=40).shape == (24, 40, 3)  # too long a name is cut
    assert draw_legend([], space, width=40).shape == (0, 40, 3)


# ------------------------------------------------------------------------------------------------------------- writing


def write_like(path, clip):
    with VideoWriter.like(path, clip) as writer:
        for frame in clip.frames():
            writer.write(frame.image, frame.pts)
    return open_clip(path)


@pytest.mark.parametrize(
    ("name", "time_base", "pts"),
    [
        ("constant.mp4", NTSC, [1001 * i for i in range(6)]),
        ("variable.mp4", NTSC, [0, 1000, 4000, 4100, 11000, 13000]),
        ("late.mp4", NTSC, [5010 + 1001 * i for i in range(6)]),  # starts at 167 ms
        ("milliseconds.mkv", Fraction(1, 1000), [0, 33, 67, 100, 133, 167]),
        ("seconds.mkv", Fraction(1, 1000), [0, 1000, 2000, 2500, 9000, 9001]),
    ],
)
def test_a_written_video_has_the_frames_and_times_of_its_source(tmp_path, name, time_base, pts):
    source = open_clip(write_numbered_video(tmp_path / name, 6, pts=pts, time_base=time_base))
    written = write_like(tmp_path / "out" / "overlay.mp4", source)
    old, new = list(source.frames()), list(written.frames())
    assert [frame.time_s for frame in new] == [frame.time_s for frame in old]
    assert [read_number(frame.image) for frame in new] == list(range(6))
    error = np.abs(new[0].image.astype(int) - old[0].image)
    assert error.mean() < 4  # crf 20, 4:2:0; measured 1.5
    assert os.listdir(tmp_path / "out") == ["overlay.mp4"]


def test_a_late_start_is_kept_to_the_tick(tmp_path):
    pts = [5000, 6001, 7002]  # 166.67 ms, which MP4 by default would round to 166
    with VideoWriter(tmp_path / "a.mp4", SIZE, time_base=NTSC) as writer:
        for i in range(3):
            writer.write(numbered_picture(i), pts[i])
    assert [frame.pts for frame in open_clip(tmp_path / "a.mp4").frames()] == pts


def test_colours_come_back_as_they_were(tmp_path):
    flat = np.full((32, 32, 3), (200, 40, 30), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", (32, 32)) as writer:
        writer.write(flat)
    image = next(open_clip(tmp_path / "a.mp4").frames()).image
    assert np.abs(image.astype(int) - flat).max() <= 4  # the BT.601 matrix read as BT.709 would be 15 off
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert int(container.streams.video[0].codec_context.colorspace) == 1  # said to be BT.709


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (15, 16), (16, 15)])
def test_odd_sizes_are_padded_to_even_by_repeating_the_edge(tmp_path, size):
    height, width = size
    picture = np.full((*size, 3), (60, 120, 180), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", size) as writer:
        for _ in range(3):
            writer.write(picture)
    clip = open_clip(tmp_path / "a.mp4")
    assert clip.size == (height + height % 2, width + width % 2)
    frames = list(clip.frames())
    assert len(frames) == 3
    assert np.abs(frames[0].image.astype(int) - picture[0, 0]).max() <= 4  # black padding would be 180 off


def test_pictures_without_a_clock_run_at_15_frames_a_second(tmp_path):
    for i in range(4):
        write_picture(tmp_path / "pictures" / f"{i}.png")
    written = write_like(tmp_path / "a.mp4", open_clip(tmp_path / "pictures"))
    assert [frame.time_s for frame in written.frames()] == [Fraction(i, 15) for i in range(4)]
    assert written.frame_rate == 15


def test_streams_without_timestamps_continue_at_their_rate(tmp_path):
    source = open_clip(write_numbered_video(tmp_path / "raw.h264", 4, time_base=Fraction(1, 25), pts=range(4), rate=25))
    assert [frame.pts for frame in source.frames()] == [None] * 4
    written = write_like(tmp_path / "a.mp4", source)
    assert [frame.time_s for frame in written.frames()] == [Fraction(i, 25) for i in range(4)]


def test_times_that_do_not_grow_are_moved_up_and_reported(tmp_path, caplog):
    with VideoWriter(tmp_path / "a.mp4", SIZE, time_base=NTSC) as writer:
        for i, pts in enumerate([0, 1001, 1001, 900, 3003]):
            writer.write(numbered_picture(i), pts)
    clip = open_clip(tmp_path / "a.mp4")
    assert [frame.pts for frame in clip.frames()] == [0, 1001, 1002, 1003, 3003]
    assert "2 timestamps did not grow" in caplog.text


def test_an_error_on_the_way_leaves_the_old_video_and_nothing_else(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def write_and_fail():
        with VideoWriter(path, SIZE) as writer:
            writer.write(numbered_picture(0))
            assert len(os.listdir(tmp_path)) == 2
            raise FileNotFoundError("gone")

    with pytest.raises(FileNotFoundError, match="gone"):  # the caller's own error stays what it is
        write_and_fail()
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"old"


def test_a_video_without_frames_is_an_error_and_no_file(tmp_path):
    with pytest.raises(MediaError, match=r"no frame was written to .*a.mp4"), VideoWriter(tmp_path / "a.mp4", SIZE):
        pass
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_message_and_no_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MediaError, match=r"the disk is full while writing .*a.mp4"):  # noqa: SIM117
        with VideoWriter(tmp_path / "a.mp4", SIZE) as writer:
            writer.write(numbered_picture(0))
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MediaError, match=r"cannot write .*a.mp4"), VideoWriter(tmp_path / "file" / "a.mp4", SIZE):
        pass


def test_frames_of_another_form_are_refused(tmp_path):
    with pytest.raises(ShapeError, match=r"frame is uint8 \(4, 4, 3\), expected uint8 \(64, 96, 3\)"):  # noqa: SIM117
        with VideoWriter(tmp_path / "a.mp4", SIZE) as writer:
            writer.write(np.zeros((4, 4, 3), np.uint8))
    assert os.listdir(tmp_path) == []
