"""What smoothing and superpixels buy without any weights: the controls that SAM 2 has to beat.

    python benchmarks/controls.py DATA_ROOT                          real clip: CamVid with stored predictions
    python benchmarks/controls.py --seeds validation [--clips 12]    synthetic clips, labelled by segformer-nano

DATA_ROOT is the folder that holds `camvid/` and `camvid_predictions/`. Scores in percent, protocol `vspw`; milliseconds
of processor time a frame on one thread, smoothing, masklets, their encoding, votes and painting together. Defaults were
chosen on the validation seeds; nothing was chosen on CamVid or the test seeds.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, VALIDATION_SEEDS, render_clip
from sam2vss.images import read_image, read_label_map
from sam2vss.interfaces import MaskletTracker, Smoother
from sam2vss.metrics import VideoSegMetrics
from sam2vss.smoothing import FlowSmoother, StaticSmoother
from sam2vss.trackers.superpixels import SuperpixelTracker
from sam2vss.types import BaseLabels, Frame, LabelSpace
from sam2vss.voting import refine_window

WINDOW = 32
COLUMNS = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
REFERENCE = {  # camvid_predictions/README.md, measured with first versions of these controls
    "base": (50.92, 83.02, 28.22, 92.56, 90.34),
    "static r=2": (50.82, 83.21, 27.88, 95.16, 93.48),
    "static r=4": (50.46, 83.24, 27.52, 96.33, 94.99),
    "flow 0.7": (51.33, 83.69, 28.17, 93.86, 92.03),
    "flow 0.9": (51.52, 84.14, 27.99, 95.25, 94.34),
    "superpixel, vote per frame": (50.17, 82.52, 28.13, 90.40, 88.24),  # not followed over time
}


@dataclass(frozen=True, eq=False)
class LabelledClip:
    """Frames, base labels and truth of one clip, labels uint8 (T, H, W)."""

    name: str
    frames: list[Frame]
    base: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Control:
    """A row of the table: labels are smoothed, then refined by masklets, either only where given."""

    smoother: Smoother | None = None
    tracker: MaskletTracker | None = None
    vote: str = "window"


def controls() -> dict[str, Control]:
    superpixels = SuperpixelTracker()
    return {
        "base": Control(),
        "static r=2": Control(StaticSmoother(2)),
        "static r=4": Control(StaticSmoother(4)),
        "flow 0.7": Control(FlowSmoother(0.7)),
        "flow 0.8": Control(FlowSmoother(0.8)),
        "flow 0.9": Control(FlowSmoother(0.9)),
        "superpixel": Control(None, superpixels),
        "superpixel, vote per frame": Control(None, superpixels, "frame"),
        "static r=2, superpixel": Control(StaticSmoother(2), superpixels),
        "flow 0.8, superpixel": Control(FlowSmoother(0.8), superpixels),
    }


def read_camvid(root: Path) -> tuple[list[LabelledClip], LabelSpace]:
    """Read the dense CamVid clip with its stored predictions."""
    name = "0016E5_15hz_a"
    label_space = LabelSpace.from_json(root / "camvid" / "label_set.json")
    folder = root / "camvid" / "data" / name
    files = sorted((folder / "origin").iterdir())
    predictions = root / "camvid_predictions" / name
    base = [read_label_map(predictions / f"{file.stem}.png", label_space) for file in files]
    truth = [read_label_map(folder / "mask" / f"{file.stem}.png", label_space) for file in files]
    frames = [Frame(read_image(file), i, file.stem) for i, file in enumerate(files)]
    return [LabelledClip(name, frames, np.stack(base), np.stack(truth))], label_space


def render_clips(seeds: range, num_frames: int) -> list[LabelledClip]:
    """Render synthetic clips and label them."""
    import torch

    from sam2vss.segmenters import load_segmenter

    torch.set_num_threads(1)
    segmenter = load_segmenter("segformer-nano")
    clips = []
    for seed in seeds:
        clip = render_clip(seed, num_frames)
        segmenter.reset()
        frames = [Frame(image, i, str(i)) for i, image in enumerate(clip.frames)]
        clips.append(LabelledClip(str(seed), frames, segmenter.predict(clip.frames).labels, clip.labels))
    return clips


def windows_of(clip: LabelledClip) -> Iterator[tuple[list[Frame], BaseLabels]]:
    for start in range(0, len(clip.frames), WINDOW):
        yield clip.frames[start : start + WINDOW], BaseLabels(clip.base[start : start + WINDOW])


def apply(control: Control, clip: LabelledClip, label_space: LabelSpace) -> tuple[np.ndarray, list[int]]:
    """Return the refined labels of a clip (T, H, W), and how many masklets its windows have."""
    refined, num_masklets = [], []
    windows = ((frames, base, base) for frames, base in windows_of(clip))
    if control.smoother is not None:
        windows = control.smoother.smooth(windows_of(clip))
    for frames, _, labels in windows:
        if control.tracker is None:
            refined.append(labels.labels)
            continue
        masklets = control.tracker.track(np.stack([frame.image for frame in frames]), frames[0].index)
        refined.append(refine_window(labels, masklets, label_space, control.vote).labels)
        num_masklets.append(masklets.num_masklets)
    return np.concatenate(refined), num_masklets


def measure(control: Control, clips: list[LabelledClip], label_space: LabelSpace) -> dict[str, float]:
    """Score one control over all clips."""
    metrics = VideoSegMetrics(label_space.num_classes, label_space.ignore_index)
    seconds, num_masklets = 0.0, []
    for clip in clips:
        start = time.process_time()
        refined, found = apply(control, clip, label_space)
        seconds += time.process_time() - start
        num_masklets += found
        metrics.update(refined, clip.truth, clip=clip.name)
    scores = metrics.compute("vspw").as_dict()
    return {
        **{name: 100 * scores[name] for name in COLUMNS},
        "ms": 1000 * seconds / sum(len(clip.frames) for clip in clips),
        "masklets": float(np.mean(num_masklets)) if num_masklets else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, nargs="?", help="folder with camvid/ and camvid_predictions/")
    parser.add_argument("--seeds", choices=("validation", "test"), help="synthetic clips instead of real ones")
    parser.add_argument("--clips", type=int, default=12, help="synthetic clips")
    parser.add_argument("--frames", type=int, default=48, help="frames a synthetic clip")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    options = parser.parse_args()
    if (options.data_root is None) == (options.seeds is None):
        parser.error("give either DATA_ROOT or --seeds")
    cv2.setNumThreads(1)
    if options.seeds is None:
        clips, label_space = read_camvid(options.data_root)
    else:
        seeds = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.seeds][: options.clips]
        clips, label_space = render_clips(seeds, options.frames), LABEL_SPACE

    height, width = clips[0].truth.shape[1:]
    num_frames = sum(len(clip.frames) for clip in clips)
    print(f"{len(clips)} clips, {num_frames} frames of {height}x{width}, {label_space.num_classes} classes\n")
    print(f"| labels | {' | '.join(COLUMNS)} | ms a frame | masklets |\n|---|{'---|' * (len(COLUMNS) + 2)}")
    rows = {}
    for name, control in controls().items():
        row = rows[name] = measure(control, clips, label_space)
        print(f"| {name} | {' | '.join(f'{row[column]:.2f}' for column in COLUMNS)} ", end="")
        print(f"| {row['ms']:.1f} | {row['masklets']:.0f} |", flush=True)
        if options.seeds is None and name in REFERENCE:
            print(f"| (reference) | {' | '.join(f'{value:.2f}' for value in REFERENCE[name])} | | |")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
