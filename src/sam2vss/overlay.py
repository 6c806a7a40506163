"""Labels drawn over frames, and videos out: H.264 in MP4 with the timestamps of the source."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .errors import MediaError, ShapeError
from .files import discard, publish, temporary_name, write_error
from .media import ClipSource
from .types import LabelSpace

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

DEFAULT_RATE = Fraction(15)  # frames per second for pictures, which have no clock; ours, CamVid's and VSPW's rate
CONTOUR_COLOR = (255, 255, 255)

logger = logging.getLogger(__name__)


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, label_space: LabelSpace, alpha: float = 0.55, contours: bool = True
) -> np.ndarray:
    """Tint a frame by its labels.

    Args:
        image: uint8 RGB (H, W, 3); stays as it is.
        labels: Train ids (H, W); pixels with the ignore index are not tinted.
        label_space: Gives the colours.
        alpha: Weight of the colour, 0 shows the frame and 1 the colours alone.
        contours: Draw a white line, one pixel wide, where two classes meet.

    Returns:
        uint8 RGB (H, W, 3).
    """
    if image.shape[:2] != labels.shape:
        raise ShapeError(f"labels are {labels.shape}, expected the frame's (H, W) = {image.shape[:2]}")
    tinted = cv2.addWeighted(image, 1 - alpha, np.take(label_space.colors, labels, axis=0), alpha, 0)
    is_ignored = labels == label_space.ignore_index
    tinted[is_ignored] = image[is_ignored]
    if contours:
        tinted[label_contours(labels)] = CONTOUR_COLOR
    return np.asarray(tinted)


def label_contours(labels: np.ndarray) -> np.ndarray:
    """Return the pixels whose right or lower neighbour has another label, bool (H, W)."""
    is_contour = np.zeros(labels.shape, bool)
    is_contour[:, :-1] = labels[:, :-1] != labels[:, 1:]
    is_contour[:-1] |= labels[:-1] != labels[1:]
    return is_contour


def draw_legend(labels: Sequence[int], label_space: LabelSpace, width: int, row_height_px: int = 24) -> np.ndarray:
    """Draw colour patches with class names side by side, in as many rows as `width` needs.

    Args:
        labels: Train ids to name, in this order.
        label_space: Gives names and colours; characters outside ASCII are shown as "?".
        width: Width in pixels.
        row_height_px: Height of a row.

    Returns:
        uint8 RGB (rows * row_height_px, width, 3), with no rows for no labels.
    """
    font, scale, gap = cv2.FONT_HERSHEY_SIMPLEX, row_height_px / 48, row_height_px // 4
    patch = row_height_px - 2 * gap
    rows: list[np.ndarray] = []
    x = width
    for label in labels:
        name = label_space.names[label].encode("ascii", "replace").decode()
        (text_width, text_height), _ = cv2.getTextSize(name, font, scale, 1)
        needed = patch + text_width + 3 * gap
        if x + needed > width or not rows:
            rows.append(np.zeros((row_height_px, width, 3), np.uint8))
            x = gap
        rows[-1][gap : gap + patch, x : x + patch] = label_space.palette[label]
        corner = (x + patch + gap, (row_height_px + text_height) // 2)
        cv2.putText(rows[-1], name, corner, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
        x += needed
    return np.concatenate(rows) if rows else np.zeros((0, width, 3), np.uint8)


class VideoWriter:
    """Writes frames to an MP4 file (H.264, 4:2:0); used as a context manager.

    The file is written under a temporary name and renamed at a clean exit; an error on the way, or no frame at all,
    leaves nothing behind. Odd sizes are padded to even by repeating the last row and column. Timestamps are kept as
    they come, so a variable rate stays variable; only one that does not grow is moved up behind its predecessor.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        time_base: Fraction | None = None,
        frame_rate: Fraction | None = None,
        crf: int = 20,
    ) -> None:
        """Prepare a file; nothing is written before the context is entered.

        Args:
            path: Where the video goes; missing folders are made.
            size: (H, W) of the frames.
            time_base: Seconds in one unit of the timestamps; None counts frames at `frame_rate`.
            frame_rate: Frames per second where there are no timestamps; None means 15.
            crf: x264's constant rate factor, 0 (lossless) to 51; smaller is better and larger.
        """
        self.path = path
        self.size = size
        self.num_frames = 0
        self._rate = frame_rate or DEFAULT_RATE
        self._time_base = time_base or 1 / self._rate
        self._crf = crf
        self._last_pts: int | None = None
        self._num_moved = 0
        self._output: tuple[OutputContainer, VideoStream] | None = None
        self._context: AbstractContextManager[None] = self._opened()

    @classmethod
    def like(cls, path: Path, clip: ClipSource, crf: int = 20) -> "VideoWriter":
        """Prepare a file with the size, clock and rate of a clip."""
        return cls(path, clip.size, clip.time_base, clip.frame_rate, crf)

    def __enter__(self) -> "VideoWriter":
        self._context.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)

    def write(self, image: np.ndarray, pts: int | None = None) -> None:
        """Append one frame.

        Args:
            image: uint8 RGB (H, W, 3).
            pts: Timestamp in units of the time base; None continues at the frame rate.

        Raises:
            ShapeError: If the frame has another size than the file.
            MediaError: If it cannot be encoded or written.
        """
        import av
        from av.video.reformatter import ColorRange, Colorspace

        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            raise ShapeError(f"frame is {image.dtype} {image.shape}, expected uint8 {(*self.size, 3)}")
        height, width = self.size
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts, frame.time_base = self._next_pts(pts), self._time_base
        self._encode(frame)
        self.num_frames += 1

    @contextmanager
    def _opened(self) -> Iterator[None]:
        import av

        temporary = temporary_name(self.path)
        # By default MP4 rounds the start time to milliseconds, and puts the index behind the pictures.
        options = {"movflags": "+faststart", "movie_timescale": str(self._time_base.denominator)}
        container: OutputContainer | None = None
        try:
            with self._own_errors():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                container = av.open(str(temporary), "w", format="mp4", options=options)
                self._output = container, self._add_stream(container)
                container.start_encoding()  # a place that cannot be written is known before the work is done
            yield
            if not self.num_frames:
                raise MediaError(f"no frame was written to {self.path}, so there is no video to finish")
            self._encode(None)
            with self._own_errors():
                container.close()
                publish(temporary, self.path)
            if self._num_moved:
                logger.warning("%s: %d timestamps did not grow and were moved up", self.path, self._num_moved)
        finally:
            self._output = None
            if container is not None:
                with suppress(av.FFmpegError, OSError):
                    container.close()
            discard(temporary)

    def _add_stream(self, container: "OutputContainer") -> "VideoStream":
        stream = container.add_stream("libx264", rate=self._rate)
        height, width = self.size
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = self._time_base
        stream.codec_context.thread_count = 1  # with threads one of 60 equal runs came out different
        stream.options = {"crf": str(self._crf), "preset": "veryfast", "g": "48"}  # g: a key frame to jump to every 48
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, name, 1)  # BT.709
        stream.codec_context.color_range = 1  # limited
        return stream

    def _encode(self, frame: "VideoFrame | None") -> None:
        assert self._output is not None, "VideoWriter is used outside of its context"
        container, stream = self._output
        with self._own_errors():
            container.mux(stream.encode(frame))

    def _next_pts(self, pts: int | None) -> int:
        if pts is None:
            pts = round(self.num_frames / self._rate / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self._num_moved += 1
        self._last_pts = pts
        return pts

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """Turn what the encoder and the disk raise into one `MediaError`."""
        import av

        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise write_error(self.path, error) from error
