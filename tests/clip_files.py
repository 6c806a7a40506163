"""Small video and picture files with known content, made on the spot for the tests of what reads them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (64, 96)  # height, width
NTSC = Fraction(1, 30000)  # time base; 1001 units are one frame at 29.97 a second
BACKGROUND = (30, 90, 160)
SQUARE = (220, 40, 30)


def numbered_picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that carries its number (0..255) as 8 black and white blocks along the top, and a red square."""
    picture = np.full((*size, 3), BACKGROUND, np.uint8)
    width = size[1] // 8
    for bit in range(8):
        picture[:16, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
    picture[32:48, 8:24] = SQUARE
    return picture


def read_number(picture: np.ndarray) -> int:
    width = picture.shape[1] // 8
    return sum(1 << bit for bit in range(8) if picture[8, bit * width + width // 2].mean() > 127)


def write_video(
    path: Path,
    pictures: Iterable[np.ndarray],
    pts: Sequence[int] | None = None,
    *,
    time_base: Fraction = NTSC,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    rate: int = 30,
) -> Path:
    """Write RGB or RGBA pictures with the given timestamps (default: 1001 apart), tagged as nothing in particular."""
    pictures = list(pictures)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        stream.options = options or {}
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.shape[2] == 3 else "rgba")
            frame.pts = 1001 * index if pts is None else pts[index]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_numbered_video(path: Path, num_frames: int, **options: object) -> Path:
    return write_video(path, (numbered_picture(i) for i in range(num_frames)), **options)  # type: ignore[arg-type]


def copy_without_start(source: Path, target: Path, num_frames: int) -> Path:
    """Copy a 29.97 Hz stream with its first frames moved before time zero: an edit list hides them, none is removed."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts -= num_frames * 1001
                packet.dts -= num_frames * 1001
                packet.stream = copy
                writer.mux(packet)
    return target


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_picture(path: Path, size: tuple[int, int] = SIZE, color: tuple[int, int, int] = BACKGROUND) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), color, np.uint8)).save(path)
    return path
