"""What following fewer masklets does: to their number, to the refined labels, to scores and to time.

    python benchmarks/savings.py --clips 8 --timed 2 --out runs/savings.json
    python benchmarks/savings.py --seeds test --clips 20
    python benchmarks/savings.py --data ../shared/data

One window a clip. segformer-nano predicts synthetic clips, camvid's dense clip (with --data) comes with stored
predictions; sam2-nano finds and follows all masklets once. As masklets do not see one another, those that a saving
keeps are a part of them, and their refined labels are compared with those of all. The time ratio is the tracker's, with
the saving against without, on the first clips of the same run, in CPU seconds. Develop on validation seeds only.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sam2vss import MaskletSettings
from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, VALIDATION_SEEDS, render_clip
from sam2vss.images import read_image, read_label_map
from sam2vss.metrics import VideoSegMetrics
from sam2vss.refiner import load_tracker
from sam2vss.sam2.loading import find_sam2
from sam2vss.sam2.savings import Savings, drop_contained, drop_settled, keep_best
from sam2vss.sam2.tracker import Sam2Tracker
from sam2vss.segmenters import load_segmenter
from sam2vss.types import BaseLabels, LabelSpace, MaskletWindow, WindowContext
from sam2vss.voting import refine_window

SCORES = ("mIoU", "mBIoU", "mVC8")
CAMVID_CLIP = "0016E5_15hz_a"
Choice = Callable[[MaskletWindow, Tensor, np.ndarray, int], Tensor]


@dataclass(frozen=True, eq=False)
class Clip:
    """One window: frames (L, H, W, 3), true and base labels (L, H, W)."""

    name: str
    frames: np.ndarray
    truth: np.ndarray
    base: np.ndarray


@dataclass
class Row:
    """Sums for one way of choosing masklets."""

    metrics: VideoSegMetrics
    masklets: list[int] = field(default_factory=list)
    same_seed: list[float] = field(default_factory=list)
    same_window: list[float] = field(default_factory=list)
    seconds: float = 0.0


def half(window: MaskletWindow) -> int:
    return (window.num_masklets + 1) // 2


def by_area(window: MaskletWindow, masks: Tensor) -> Tensor:
    return masks.flatten(1).sum(1).argsort(descending=True, stable=True)[: half(window)].sort().values


def settled_and_contained(masks: Tensor, labels: np.ndarray, ignore: int) -> Tensor:
    rows = drop_settled(masks, labels, ignore)
    return rows[drop_contained(masks[rows], labels[0], ignore)]


CHOICES: dict[str, Choice] = {
    "all": lambda w, m, s, i: torch.arange(len(m)),
    "none": lambda w, m, s, i: torch.arange(0),
    "half, best predicted IoU": lambda w, m, s, i: torch.arange(half(w)),  # the tracker lists the best first
    "half, largest": lambda w, m, s, i: by_area(w, m),
    "half, most newly covered": lambda w, m, s, i: keep_best(m, half(w)),
    "half, most unsteady covered": lambda w, m, s, i: keep_best(m, half(w), s),  # max_masklets
    "contained, share 1": lambda w, m, s, i: drop_contained(m, s[0], i, 1.0),
    "contained, share 0.98": lambda w, m, s, i: drop_contained(m, s[0], i, 0.98),  # drop_contained
    "contained, share 0.95": lambda w, m, s, i: drop_contained(m, s[0], i, 0.95),
    "contained, share 0.9": lambda w, m, s, i: drop_contained(m, s[0], i, 0.9),
    "settled, no margin": lambda w, m, s, i: drop_settled(m, s, i, 0, 0, 0.0),
    "settled, 8 px": lambda w, m, s, i: drop_settled(m, s, i, 0, 8, 0.0),
    "settled, 16 px or 10 %": lambda w, m, s, i: drop_settled(m, s, i),  # drop_settled
    "settled and contained": lambda w, m, s, i: settled_and_contained(m, s, i),
}


def timed_savings(num_masklets: int) -> dict[str, Savings]:
    """The tracker's own savings, by the row of the table that they belong to."""
    return {
        "all": Savings(),
        "half, most unsteady covered": Savings(max_masklets=(num_masklets + 1) // 2),
        "contained, share 0.98": Savings(contained=True),
        "settled, 16 px or 10 %": Savings(settled=True),
        "settled and contained": Savings(contained=True, settled=True),
    }


def synthetic_clips(seeds: range, num_frames: int) -> Iterator[Clip]:
    segmenter = load_segmenter("segformer-nano")
    for seed in seeds:
        clip = render_clip(seed, num_frames)
        segmenter.reset()
        yield Clip(f"synthetic_{seed:06d}", clip.frames, clip.labels, segmenter.predict(clip.frames).labels)


def camvid_clip(data: Path, label_space: LabelSpace, num_frames: int) -> Clip:
    """Read the first frames of the dense clip with its stored predictions."""
    files = sorted((data / "camvid" / "data" / CAMVID_CLIP / "origin").iterdir())[:num_frames]
    masks, predictions = data / "camvid" / "data" / CAMVID_CLIP / "mask", data / "camvid_predictions" / CAMVID_CLIP
    return Clip(
        f"camvid {CAMVID_CLIP}",
        np.stack([read_image(file) for file in files]),
        np.stack([read_label_map(masks / f"{file.stem}.png", label_space) for file in files]),
        np.stack([read_label_map(predictions / f"{file.stem}.png", label_space) for file in files]),
    )


def take(window: MaskletWindow, rows: Tensor) -> MaskletWindow:
    chosen = rows.tolist()
    return MaskletWindow(
        window.window,
        window.size,
        tuple(tuple(frame[row] for row in chosen) for frame in window.rles),
        window.predicted_iou[chosen],
        window.stability[chosen],
        window.points[chosen],
        window.ids[chosen],
        None if window.frame_iou is None else window.frame_iou[:, chosen],
    )


def run(clips: Iterator[Clip], label_space: LabelSpace, tracker: Sam2Tracker, num_timed: int) -> dict[str, Row]:
    """Follow all masklets of every clip, refine with each choice of them, and time the first clips."""
    rows = {name: Row(VideoSegMetrics(label_space.num_classes)) for name in CHOICES}
    for number, clip in enumerate(clips):
        context = WindowContext(clip.base, label_space.ignore_index)
        tracker.savings = Savings()
        window = tracker.track(clip.frames, 0, context)
        masks = torch.from_numpy(window.stack(0))
        refined = refine_window(BaseLabels(clip.base), window, label_space).labels
        for name, choose in CHOICES.items():
            kept = take(window, choose(window, masks, clip.base, label_space.ignore_index))
            labels = refine_window(BaseLabels(clip.base), kept, label_space).labels
            row = rows[name]
            row.masklets.append(kept.num_masklets)
            row.same_seed.append(float((labels[0] == refined[0]).mean()))
            row.same_window.append(float((labels == refined).mean()))
            row.metrics.update(labels, clip.truth, clip=clip.name)
        if number < num_timed:
            for name, savings in timed_savings(window.num_masklets).items():
                tracker.savings = savings
                started = time.process_time()
                found = tracker.track(clip.frames, 0, context)
                rows[name].seconds += time.process_time() - started
                assert found.num_masklets == rows[name].masklets[-1], f"{name}: the tracker keeps other masklets"
        Console(stderr=True).print(f"{clip.name}: {window.num_masklets} masklets")
    return rows


def summarise(rows: dict[str, Row]) -> dict[str, dict[str, float | None]]:
    """Means over clips; scores as differences to all masklets, in [0, 1]."""
    scores = {name: row.metrics.compute().as_dict() for name, row in rows.items()}
    return {
        name: {
            "masklets": float(np.mean(row.masklets)),
            "identical_seed_frame": float(np.mean(row.same_seed)),
            "identical_window": float(np.mean(row.same_window)),
            "identical_window_worst_clip": float(np.min(row.same_window)),
            "time_ratio": row.seconds / rows["all"].seconds if row.seconds else None,
            **{score: scores[name][score] for score in SCORES},
            **{f"{score}_difference": scores[name][score] - scores["all"][score] for score in SCORES},
        }
        for name, row in rows.items()
    }


def print_table(title: str, summary: dict[str, dict[str, float | None]]) -> None:
    table = Table(title=title, caption="scores: points more than with all masklets")
    for column in ("kept", "masklets", "same, seed", "same, window", "worst clip", *SCORES, "time"):
        table.add_column(column, justify="left" if column == "kept" else "right")
    for name, row in summary.items():
        same = [row[f"identical_{key}"] for key in ("seed_frame", "window", "window_worst_clip")]
        differences = [row[f"{score}_difference"] for score in SCORES]
        table.add_row(
            name,
            f"{row['masklets']:.1f}",
            *(f"{100 * share:.3f} %" for share in same),
            *(f"{100 * difference:+.2f}" for difference in differences),
            "" if row["time_ratio"] is None else f"{row['time_ratio']:.2f}",
        )
    Console(width=130).print(table)


def main() -> None:
    """Run synthetic clips, and camvid's where it is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", choices=("validation", "test"), default="validation")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--timed", type=int, default=2, help="clips that are tracked again with each saving")
    parser.add_argument("--pred-iou", type=float, default=MaskletSettings().pred_iou)
    parser.add_argument("--stability", type=float, default=MaskletSettings().stability)
    parser.add_argument("--data", type=Path, help="folder of the shared recordings")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.frames < 9:
        parser.error(f"--frames {options.frames} is too short for mVC8, expected 9 or more")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    masklets = MaskletSettings(window=options.frames, pred_iou=options.pred_iou, stability=options.stability)
    tracker = load_tracker(find_sam2("nano"), masklets, mode="exact", device="cpu")
    seeds = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.seeds][: options.clips]
    result = {}
    if seeds:
        clips = synthetic_clips(seeds, options.frames)
        result["synthetic"] = summarise(run(clips, LABEL_SPACE, tracker, options.timed))
        print_table(f"{len(seeds)} {options.seeds} clips, one window of {options.frames} frames", result["synthetic"])
    if options.data is not None:
        label_space = LabelSpace.from_json(options.data / "camvid" / "label_set.json")
        clip = camvid_clip(options.data, label_space, options.frames)
        result["camvid"] = summarise(run(iter([clip]), label_space, tracker, min(1, options.timed)))
        print_table(f"{clip.name}, its first {options.frames} frames", result["camvid"])
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        arguments = {name: value for name, value in vars(options).items() if name not in ("out", "data")}
        content = {"options": arguments, "results": result}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
