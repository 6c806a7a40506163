"""Generated clips with exact truth, a noisy fake segmenter and an exact fake tracker.

A picture carries its truth: red is 20 times the object, green 20 times the class, blue the frame number and a ramp. So
the fakes need no more than the frames, as real ones do, and no state that a resumed run would lack.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from sam2vss.artifacts import RunFolder
from sam2vss.interfaces import BaseLabelSource, MaskletTracker
from sam2vss.media import ClipSource
from sam2vss.pipeline import RunSummary, refine_run
from sam2vss.segmenters import ModelLabels
from sam2vss.types import BaseLabels, Frame, LabelSpace, MaskletWindow, voc_palette

SIZE = (24, 36)
CLASSES = LabelSpace(("ground", "disc", "box", "late"), voc_palette(4), name="toy")
NUM_OBJECTS = 4  # 0 is the ground, which is no object
CLASS_OF_OBJECT = np.array([0, 1, 2, 1, 3], np.uint8)


def toy_objects(num_frames: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Objects 0..4, uint8 (T, H, W): a disc that leaves to the right, a box before it, a second disc that stays, and
    a bar that is there from frame 5 on."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    objects = np.zeros((num_frames, *size), np.uint8)
    for t in range(num_frames):
        objects[t, (x - 6 - 3 * t) ** 2 + (y - 7) ** 2 <= 25] = 1
        objects[t, (abs(x - width + 8 + t) <= 3) & (abs(y - 9) <= 4)] = 2
        objects[t, (x - 10) ** 2 + (y - height + 6) ** 2 <= 16] = 3
        objects[t, (t >= 5) & (abs(x - width + 6) <= 2) & (y >= height - 8)] = 4
    return objects


def toy_labels(objects: np.ndarray) -> np.ndarray:
    return CLASS_OF_OBJECT[objects]


def toy_frames(objects: np.ndarray, first: int = 0) -> np.ndarray:
    """Pictures, uint8 RGB (T, H, W, 3), of objects (T, H, W)."""
    ramp = np.arange(objects.shape[2]) + 7 * (first + np.arange(len(objects)))[:, None, None]
    blue = np.broadcast_to(ramp % 256, objects.shape)
    return np.stack([20 * objects, 20 * toy_labels(objects), blue], axis=-1).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class ToyClip:
    """T rendered frames as a clip in memory; `on_frame` is told the number of every frame that is read."""

    num_frames: int
    name: str = "toy"
    size: tuple[int, int] = SIZE
    on_frame: Callable[[int], None] | None = None
    path: Path = Path("toy")
    kind: str = "images"
    frame_rate: Fraction | None = Fraction(15)
    time_base: Fraction | None = None

    @property
    def num_frames_expected(self) -> int:
        return self.num_frames

    @property
    def num_frames_estimate(self) -> int:
        return self.num_frames

    def frames(self) -> Iterator[Frame]:
        objects = toy_objects(min(self.num_frames, 12), self.size)  # longer clips repeat
        for t in range(self.num_frames):
            if self.on_frame is not None:
                self.on_frame(t)
            yield Frame(toy_frames(objects[t % 12][None], t)[0], t, f"{t:08d}")

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.num_frames} {self.size}".encode()).hexdigest()


class NoisySegmenter:
    """Reads the class from the picture and gets a share of the pixels wrong, always the same ones for a picture."""

    def __init__(self, share: float = 0.3) -> None:
        self.share = share
        self.calls = 0
        self.resets = 0

    @property
    def label_space(self) -> LabelSpace:
        return CLASSES

    def reset(self) -> None:
        self.resets += 1

    def predict(self, frames: np.ndarray) -> BaseLabels:
        self.calls += 1
        return BaseLabels(np.stack([noisy_labels(frame[..., 1] // 20, self.share, frame) for frame in frames]))


def noisy_labels(labels: np.ndarray, share: float, frame: np.ndarray) -> np.ndarray:
    """Change a share of the labels (H, W) of every object to other classes; the picture is the seed."""
    rng = np.random.default_rng(zlib.crc32(frame.tobytes()))
    shift = rng.integers(1, CLASSES.num_classes, labels.shape)
    wrong = (labels + shift) % CLASSES.num_classes
    return np.where(rng.random(labels.shape) < share, wrong, labels).astype(np.uint8)


class ExactTracker:
    """Follows exactly the objects that a window's first frame shows; `order` permutes them."""

    def __init__(self, order: np.ndarray | None = None, on_window: Callable[[int], None] | None = None) -> None:
        self.order = order
        self.on_window = on_window
        self.starts: list[int] = []

    def track(self, frames: np.ndarray, start: int, context: object = None) -> MaskletWindow:
        if self.on_window is not None:
            self.on_window(start)
        self.starts.append(start)
        objects = frames[..., 0] // 20
        ids = np.unique(objects[0][objects[0] > 0]).astype(np.int64)
        if self.order is not None:
            ids = ids[self.order]
        return MaskletWindow.from_masks(objects[None] == ids[:, None, None, None], start, ids=1000 * start + ids)


def write_toy_frames(folder: Path, num_frames: int, size: tuple[int, int] = SIZE) -> Path:
    """Write a clip as a folder of PNG pictures that lose nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(toy_frames(toy_objects(num_frames, size))):
        Image.fromarray(frame).save(folder / f"{t:04d}.png")
    return folder


def write_toy_labels(folder: Path, num_frames: int, share: float = 0.0, size: tuple[int, int] = SIZE) -> Path:
    """Write the truth, or noisy labels, of the same clip as label PNGs, and the label set beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    objects = toy_objects(num_frames, size)
    for t, frame in enumerate(toy_frames(objects)):
        Image.fromarray(noisy_labels(toy_labels(objects[t]), share, frame)).save(folder / f"{t:04d}.png")
    return folder


class BrightnessSegmenter(NoisySegmenter):
    """Labels any picture by its green channel, for videos that do not keep colours exactly."""

    def predict(self, frames: np.ndarray) -> BaseLabels:
        self.calls += 1
        return BaseLabels(frames[..., 1] // 64)


def run_toy(
    out: Path,
    clips: Sequence[ClipSource] = (ToyClip(10),),
    *,
    tracker: MaskletTracker | None = None,
    segmenter: NoisySegmenter | None = None,
    base: BaseLabelSource | None = None,
    window: int = 4,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> RunSummary:
    """Refine toy clips into a run folder, by default 10 frames in windows of 4, 4 and 2."""
    run = RunFolder.create(
        out, command="refine", settings={"window": window}, label_space=CLASSES, clips=clips, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    base = base or ModelLabels(segmenter or NoisySegmenter())
    return refine_run(run, clips, base, tracker or ExactTracker(), window, **options)


def content_of_run(run: Path) -> dict[str, Any]:
    """Everything in a run folder that may not depend on when, and in how many goes, it was made."""
    content: dict[str, Any] = {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(run.rglob("*"))
        if file.is_file() and file.suffix in (".png", ".jpg", ".gz", ".part")
    }
    for video in sorted((run / "overlay").glob("*")):
        # the encoder is not held to the bit: with pictures this small it was seen to differ between equal runs
        content[str(video.relative_to(run))] = [(frame.pts, frame.width, frame.height) for frame in decoded(video)]
    lines = [json.loads(line) for line in (run / "windows.jsonl").read_text().splitlines()]
    content["windows"] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    info = json.loads((run / "run.json").read_text())
    times = ("started", "ended", "seconds")
    content["clips"] = [{key: value for key, value in clip.items() if key not in times} for clip in info["clips"]]
    content["status"] = info["status"]
    return content


@contextmanager
def no_waiting_for_the_disk() -> Iterator[None]:
    """Skip the flushing of files to the disk, most of the time of a small run; only a power cut would tell."""
    with mock.patch("os.fsync"):
        yield


def decoded(video: Path) -> Iterator[Any]:
    """Decode a video file frame by frame."""
    import av

    with av.open(str(video)) as container:
        yield from container.decode(video=0)
