"""Decoding of video files with PyAV: every frame once, in order, upright, with its own timestamp.

Called by `media.py`, which finds the files. OpenCV and decord returned wrong frames for variable rates and edit lists.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import MediaError, ShapeError
from .files import byte_size, hash_ends, safe_name
from .images import check_num_pixels
from .types import Frame

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)


class BrokenVideoError(MediaError):
    """A video that ends or breaks before its time; every frame before that place has been delivered.

    Attributes:
        num_frames_decoded: Frames delivered before the bad place.
        num_frames_expected: Frames that the container announced, None where it says nothing.
    """

    def __init__(self, message: str, num_frames_decoded: int, num_frames_expected: int | None) -> None:
        super().__init__(message)
        self.num_frames_decoded = num_frames_decoded
        self.num_frames_expected = num_frames_expected


@dataclass(frozen=True)
class VideoClip:
    """The first video stream of a file, decoded by PyAV.

    Frames come in presentation order with their own timestamps (a variable rate stays variable), edit lists and display
    rotation applied, converted to 8-bit RGB by the colour matrix and range that the stream names (BT.601 where it names
    none). High dynamic range is converted without tone mapping; transparency is composited over black. Pixels are taken
    as square. Damage inside a picture that the decoder hides is logged where the decoder says so; often it does not.
    """

    name: str
    path: Path
    size: tuple[int, int]
    frame_rate: Fraction | None
    time_base: Fraction
    num_frames_expected: int | None
    duration_s: Fraction | None
    kind: str = field(default="video", init=False)

    @property
    def num_frames_estimate(self) -> int | None:
        if self.num_frames_expected is not None or self.duration_s is None or self.frame_rate is None:
            return self.num_frames_expected
        return max(1, round(self.duration_s * self.frame_rate))

    def frames(self) -> Iterator[Frame]:
        """Stream the frames.

        Raises:
            BrokenVideoError: At the first place that cannot be decoded, or at the end of a file that stops before the
                time it announces; all frames before have been delivered.
            ShapeError: If the picture size changes on the way.
        """
        from av import FFmpegError

        index = 0
        with _opened_video(self.path) as (container, stream):
            find_shortfall = self._shortfall_of_count if _has_exact_count(container) else self._shortfall_of_time
            try:
                for decoded in _decode(container, stream, find_shortfall):
                    if decoded.is_corrupt:
                        logger.warning("%s: frame %d is damaged, the decoder filled in what it could", self.path, index)
                    image = _upright_rgb(decoded)
                    self._check_size(index, image)
                    time_s = None if decoded.pts is None else decoded.pts * self.time_base
                    yield Frame(image, index, f"{index:08d}", decoded.pts, time_s)
                    index += 1
            except FFmpegError as error:
                raise self._broken(index, f"cannot be decoded further ({error.strerror})") from error
            except _EndsEarlyError as error:
                raise self._broken(index, str(error)) from None

    def fingerprint(self) -> str:
        """Hash the byte size and the first and last MiB of the file."""
        digest = hashlib.sha256(b"video-1")
        digest.update(str(byte_size(self.path)).encode())
        hash_ends(digest, self.path)
        return digest.hexdigest()

    def _shortfall_of_count(self, num_decoded: int, last: "VideoFrame") -> str | None:
        if self.num_frames_expected is None or num_decoded >= self.num_frames_expected:
            return None
        return "holds fewer frames than it announces"

    def _shortfall_of_time(self, num_decoded: int, last: "VideoFrame") -> str | None:
        if self.duration_s is None or last.pts is None:
            return None
        end_s = (last.pts + (last.duration or 0)) * self.time_base
        # The announced duration may include sound or be rounded, so only a clear gap counts.
        if self.duration_s - end_s <= max(Fraction(1, 2), self.duration_s / 20):
            return None
        return f"ends at {float(end_s):.2f} s of {float(self.duration_s):.2f} s"

    def _check_size(self, index: int, image: np.ndarray) -> None:
        if image.shape[:2] != self.size:
            raise ShapeError(
                f"frame {index} of {self.path} is {image.shape[0]} x {image.shape[1]} (height x width), the ones "
                f"before are {self.size[0]} x {self.size[1]}: cut the video where its size changes"
            )

    def _broken(self, num_decoded: int, what: str) -> BrokenVideoError:
        total, about = self.num_frames_estimate, "" if self.num_frames_expected is not None else "about "
        of_total = "" if total is None else f" of {about}{total} expected"
        return BrokenVideoError(
            f"{self.path} {what}: {num_decoded} frames were decoded{of_total}. The file is cut short or damaged; "
            "copy or download it again, or repair it",
            num_decoded,
            self.num_frames_expected,
        )


def open_video(path: Path) -> VideoClip:
    """Open a video file; its first frame is decoded to learn the upright size.

    Raises:
        MediaError: If the file is no video, has no picture, or its first frame cannot be decoded.
    """
    from av import FFmpegError

    with _opened_video(path) as (container, stream):
        try:
            first = next(_decode(container, stream), None)
        except FFmpegError as error:
            raise MediaError(f"{path}: not even the first frame can be decoded ({error.strerror})") from error
        if first is None:
            raise MediaError(f"{path} has a video stream, but no frame in it")
        height, width = _upright_rgb(first).shape[:2]
        assert stream.time_base is not None
        return VideoClip(
            name=safe_name(path.stem),
            path=path,
            size=(height, width),
            frame_rate=stream.average_rate or stream.guessed_rate or None,
            time_base=stream.time_base,
            num_frames_expected=_announced_frames(container, stream),
            duration_s=_announced_duration(container, stream),
        )


@contextmanager
def _opened_video(path: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    import av
    from av.stream import Disposition

    if not byte_size(path):
        raise MediaError(f"{path} is an empty file (0 bytes), expected a video")
    try:
        # "file:" keeps a name with a colon from being read as an address, and play lists from leading to one.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path} cannot be opened as a video ({error.strerror}): it is no video, or damaged at its start or index"
        ) from error
    with container:
        # Cover pictures of sound files are video streams of one frame.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            raise MediaError(f"{path} has no video stream, only {', '.join(kinds) or 'nothing'}")
        stream = streams[0]
        check_num_pixels(path, stream.codec_context.width * stream.codec_context.height)
        yield container, stream


class _EndsEarlyError(Exception):
    """The file is over, but not the video; says how this was seen."""


def _decode(
    container: "InputContainer",
    stream: "VideoStream",
    find_shortfall: "Callable[[int, VideoFrame], str | None]" = lambda num_decoded, last: None,
) -> Iterator["VideoFrame"]:
    """Yield the frames in presentation order; at a bad place yield what is still good before it, then raise."""
    from av import FFmpegError

    num_decoded = 0
    last: VideoFrame | None = None
    packets = container.demux(stream)
    while True:
        bad_pts = None
        try:
            packet = next(packets, None)
            if packet is None:
                return
            bad_pts = packet.pts
            decoded = packet.decode()
        except FFmpegError:
            yield from _still_good(stream, bad_pts)
            raise
        end = decoded[-1] if decoded else last
        if packet.size == 0 and packet.dts is None and end is not None:  # the file is over
            shortfall = find_shortfall(num_decoded + len(decoded), end)
            if shortfall is not None:
                yield from _without_gap(last, decoded, stream)
                raise _EndsEarlyError(shortfall)
        for frame in decoded:
            num_decoded += 1
            last = frame
            yield frame


def _without_gap(
    last: "VideoFrame | None", frames: list["VideoFrame"], stream: "VideoStream"
) -> Iterator["VideoFrame"]:
    """Yield the frames that follow without a gap: in a file cut short the frames between two others may be missing."""
    rate = stream.average_rate or stream.guessed_rate
    for frame in frames:
        if last is not None and last.pts is not None and frame.pts is not None and rate and stream.time_base:
            num_periods = (frame.pts - last.pts) * stream.time_base * rate
            if num_periods > 1.5:
                return
        last = frame
        yield frame


def _still_good(stream: "VideoStream", bad_pts: int | None) -> list["VideoFrame"]:
    """Empty the decoder after an error: whole frames before the bad one, so that none is missing in between."""
    from av import FFmpegError

    try:
        waiting = stream.codec_context.decode(None)
    except FFmpegError:
        return []
    return [
        frame
        for frame in waiting
        if not frame.is_corrupt and (bad_pts is None or frame.pts is None or frame.pts < bad_pts)
    ]


def _upright_rgb(frame: "VideoFrame") -> np.ndarray:
    if any(component.is_alpha for component in frame.format.components):
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        image: np.ndarray = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    else:
        image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def _has_exact_count(container: "InputContainer") -> bool:
    """Tell whether the container indexes every frame; AVI counts repeated ones, Matroska and streams count none."""
    return "mp4" in container.format.name


def _announced_frames(container: "InputContainer", stream: "VideoStream") -> int | None:
    index = getattr(stream, "index_entries", ())  # PyAV before 15 has none
    if _has_exact_count(container) and len(index) > 1:
        # The frame count of the header includes what an edit list cuts away.
        return sum(not entry.is_discard for entry in index)
    return stream.frames or None


def _announced_duration(container: "InputContainer", stream: "VideoStream") -> Fraction | None:
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    written = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:00:06.673000000
    if len(written) == 3:
        try:
            hours, minutes, seconds = (Fraction(part.strip("\0 ")) for part in written)
        except ValueError:
            return None
        return hours * 3600 + minutes * 60 + seconds
    return None if container.duration is None else Fraction(container.duration, 1_000_000)
