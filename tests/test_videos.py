"""Every frame of a video once, in order, upright, with its own time; damage is named where it is."""

import random
import socket
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from clip_files import (
    BACKGROUND,
    NTSC,
    SIZE,
    SQUARE,
    copy_without_start,
    numbered_picture,
    read_number,
    write_numbered_video,
    write_sound,
    write_video,
)
from sam2vss import videos
from sam2vss.errors import MediaError, ShapeError
from sam2vss.media import open_clip
from sam2vss.videos import BrokenVideoError, VideoClip

FAST_START = {"movflags": "faststart"}  # index before the pictures, so that a cut file can still be opened


def read_until_broken(clip):
    numbers = []
    with pytest.raises(BrokenVideoError) as caught:
        numbers.extend(read_number(frame.image) for frame in clip.frames())
    return numbers, caught.value


def test_frames_come_in_order_with_name_index_and_time(tmp_path):
    clip = open_clip(write_numbered_video(tmp_path / "street.mp4", 20))
    frames = list(clip.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert [frames[0].name, frames[19].name] == ["00000000", "00000019"]
    assert [frame.pts for frame in frames] == [1001 * i for i in range(20)]
    assert frames[19].time_s == Fraction(19 * 1001, 30000)
    assert (clip.name, clip.kind, clip.size, clip.time_base) == ("street", "video", SIZE, NTSC)
    assert clip.num_frames_expected == clip.num_frames_estimate == 20


def test_a_clip_can_be_streamed_twice_and_left_half_way(tmp_path):
    clip = open_clip(write_numbered_video(tmp_path / "a.mp4", 5))
    stream = clip.frames()
    next(stream)
    stream.close()
    assert len(list(clip.frames())) == len(list(clip.frames())) == 5


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [("a.mkv", "libx264", "yuv420p"), ("a.webm", "libvpx-vp9", "yuv420p"), ("a.avi", "mpeg4", "yuv420p")],
)
def test_other_containers_give_all_frames(tmp_path, name, codec, pixel_format):
    time_base = Fraction(1, 30)
    path = write_numbered_video(
        tmp_path / name, 12, pts=range(12), time_base=time_base, codec=codec, pixel_format=pixel_format
    )
    clip = open_clip(path)
    assert [read_number(frame.image) for frame in clip.frames()] == list(range(12))
    assert clip.num_frames_estimate == 12
    assert clip.frame_rate == 30


def test_rates_are_fractions(tmp_path):
    # 40 frames over 40 * 1001 / 30000 s; the writer guesses the last duration from the one before
    path = write_numbered_video(
        tmp_path / "a.mkv", 40, time_base=Fraction(1001, 30000), pts=range(40), rate=Fraction(30000, 1001)
    )
    assert open_clip(path).frame_rate == Fraction(30000, 1001)


def test_a_variable_rate_keeps_its_times(tmp_path):
    pts = [0, 1000, 4000, 4100, 11000, 13000]  # gaps of 33, 100, 3, 230 and 67 ms
    clip = open_clip(write_numbered_video(tmp_path / "a.mp4", 6, pts=pts))
    assert [frame.pts for frame in clip.frames()] == pts


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_comes_upright(tmp_path, rotation):
    picture = np.full((48, 96, 3), BACKGROUND, np.uint8)
    picture[:16, :32] = SQUARE  # upper left as stored
    path = write_video(tmp_path / "phone.mp4", [picture] * 3, options={"crf": "5"}, rotation=rotation)
    clip = open_clip(path)
    # The display matrix turns counterclockwise: upper left goes to lower left, lower right, upper right.
    expected_size, corner = {
        90: ((96, 48), (slice(68, 92), slice(4, 12))),
        180: ((48, 96), (slice(36, 44), slice(68, 92))),
        270: ((96, 48), (slice(4, 28), slice(36, 44))),
    }[rotation]
    assert clip.size == expected_size
    image = next(clip.frames()).image
    assert image.shape == (*expected_size, 3)
    assert image.flags.c_contiguous
    assert np.abs(image[corner].astype(int) - SQUARE).max() < 25  # 4:2:0 bleeds over edges by a pixel or two


def test_an_edit_list_hides_the_frames_it_cuts(tmp_path):
    whole = write_numbered_video(tmp_path / "whole.mp4", 60, options={"g": "50"})
    clip = open_clip(copy_without_start(whole, tmp_path / "cut.mp4", 20))
    frames = list(clip.frames())
    assert [read_number(frame.image) for frame in frames] == list(range(20, 60))
    assert clip.num_frames_expected == 40  # the header's own count says 60
    assert frames[0].pts == 0


def test_ten_bits_keep_their_colours(tmp_path):
    path = write_numbered_video(tmp_path / "a.mp4", 3, pixel_format="yuv420p10le", options={"crf": "5"})
    image = next(open_clip(path).frames()).image
    assert image.dtype == np.uint8
    assert np.abs(image[36:44, 12:20].astype(int) - SQUARE).max() <= 4  # measured 2


def test_transparent_video_is_put_on_black(tmp_path):
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[..., :3] = 200
    picture[:, :16, 3] = 255
    picture[:, 16:, 3] = 51  # a fifth: 200 * 51 / 255 = 40
    path = write_video(tmp_path / "a.mkv", [picture] * 2, codec="ffv1", pixel_format="bgra")
    image = next(open_clip(path).frames()).image
    assert image[0, 0].tolist() == [200, 200, 200]
    assert image[0, 31].tolist() == [40, 40, 40]


@pytest.mark.parametrize("extra_bytes", [0, 5])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_cut_short_gives_every_frame_before_the_first_missing_one(tmp_path, name, extra_bytes):
    path = write_numbered_video(tmp_path / name, 60, options={"g": "20", "bf": "3"}, container_options=FAST_START)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.pts) for packet in container.demux(video=0) if packet.size]
    order = sorted(pts for _, pts in packets)
    counts = []
    for number in range(20, 32):  # packets that are left; B-frames come after a later frame that they need
        path.write_bytes(content[: packets[number][0] + extra_bytes])
        there = {pts for _, pts in packets[:number]}
        num_whole = next(i for i, pts in enumerate(order) if pts not in there)
        numbers, error = read_until_broken(open_clip(path))
        assert numbers == list(range(num_whole))
        assert error.num_frames_decoded == num_whole
        assert f"{num_whole} frames were decoded of {'60' if name == 'a.mp4' else 'about 60'} expected" in str(error)
        counts.append(num_whole)
    assert any(counts[i] < 20 + i for i in range(12))  # the case with a gap did come up
    assert error.num_frames_expected == (60 if name == "a.mp4" else None)


def test_damage_in_the_middle_gives_the_frames_before_it(tmp_path):
    path = write_numbered_video(tmp_path / "a.mp4", 100, options={"g": "10"}, container_options=FAST_START)
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    content[middle : middle + 1500] = random.Random(0).randbytes(1500)
    path.write_bytes(content)
    numbers, error = read_until_broken(open_clip(path))
    assert 10 < len(numbers) < 90
    assert numbers == list(range(len(numbers)))
    assert "cannot be decoded further" in str(error)


def test_a_frame_that_the_decoder_had_to_fill_in_is_logged(tmp_path, caplog, monkeypatch):
    # Whether a damaged payload is flagged depends on the decoder's threads, so the flag itself is set here.
    clip = open_clip(write_numbered_video(tmp_path / "a.mp4", 4))
    decode = videos._decode

    def decode_with_a_damaged_frame(*arguments):
        for number, frame in enumerate(decode(*arguments)):
            yield SimpleNamespace(pts=frame.pts, is_corrupt=number == 2)

    monkeypatch.setattr(videos, "_decode", decode_with_a_damaged_frame)
    monkeypatch.setattr(videos, "_upright_rgb", lambda frame: np.zeros((*SIZE, 3), np.uint8))
    assert len(list(clip.frames())) == 4
    assert caplog.text.count("is damaged") == 1
    assert "a.mp4: frame 2 is damaged, the decoder filled in what it could" in caplog.text


def test_the_size_may_not_change_on_the_way(tmp_path):
    clip = open_clip(write_numbered_video(tmp_path / "a.mp4", 2))
    assert isinstance(clip, VideoClip)
    other = VideoClip(clip.name, clip.path, (32, 32), clip.frame_rate, clip.time_base, 2, clip.duration_s)
    with pytest.raises(ShapeError, match=r"frame 0 of .*a.mp4 is 64 x 96 .*before are 32 x 32: cut the video"):
        next(other.frames())


def test_files_that_are_no_video_say_what_they_are(tmp_path):
    empty, garbage, headless = tmp_path / "empty.mp4", tmp_path / "garbage.mp4", tmp_path / "headless.mp4"
    empty.touch()
    garbage.write_bytes(b"not a video " * 100)
    whole = write_numbered_video(tmp_path / "whole.mp4", 20).read_bytes()
    headless.write_bytes(whole[: len(whole) // 2])  # the index of an ordinary MP4 stands at its end
    for path, message in (
        (empty, "is an empty file .0 bytes., expected a video"),
        (garbage, "cannot be opened as a video .*Invalid data"),
        (headless, "no video, or damaged at its start or index"),
        (write_sound(tmp_path / "song.m4a"), "has no video stream, only audio"),
        (tmp_path / "gone.mp4", "gone.mp4 does not exist; give a video file or a folder"),
    ):
        with pytest.raises(MediaError, match=message):
            open_clip(path)


def test_a_colon_in_the_name_is_not_taken_for_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip = open_clip(write_numbered_video(tmp_path / "a.mp4", 2).rename("http:b?c.mp4"))
    assert clip.name == "http_b_c"
    assert len(list(clip.frames())) == 2


def test_a_play_list_cannot_reach_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        play_list = tmp_path / "list.m3u8"
        play_list.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n")
        with pytest.raises(MediaError, match=r"list\.m3u8"):
            open_clip(play_list)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()


def test_the_limit_on_pixels_holds_for_videos(tmp_path, monkeypatch):
    path = write_numbered_video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 96 - 1)
    with pytest.raises(MediaError, match="6144 pixels a picture, more than the limit of 6143"):
        open_clip(path)


def test_the_fingerprint_follows_the_content_and_not_the_name(tmp_path):
    first = write_numbered_video(tmp_path / "a.mp4", 3)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(first.read_bytes())
    other = write_video(tmp_path / "other.mp4", [numbered_picture(i) for i in (0, 1, 3)])
    assert open_clip(first).fingerprint() == open_clip(copy).fingerprint()
    assert open_clip(first).fingerprint() != open_clip(other).fingerprint()


@pytest.mark.dataset
@pytest.mark.parametrize(
    ("name", "num_frames", "size", "rate"),
    [
        ("sam2_01_dog_360p_96f", 96, (360, 640), Fraction(30000, 1001)),
        ("sam2_05_default_juggle_360p_96f", 96, (360, 640), Fraction(24)),
    ],
)
def test_real_clips_are_read_whole(shared_data, name, num_frames, size, rate):
    clip = open_clip(shared_data / "clips" / f"{name}.mp4")
    assert (clip.size, clip.frame_rate, clip.num_frames_expected) == (size, rate, num_frames)
    times = [frame.time_s for frame in clip.frames()]
    assert times == [index / rate for index in range(num_frames)]
