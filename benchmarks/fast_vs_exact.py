"""How far are the fast modes from exact propagation, and what do they cost? On synthetic clips, bundled weights.

    python benchmarks/fast_vs_exact.py --split test --clips 20 --out runs/fast_vs_exact.json

Exact (memory propagation) is the reference. For each mode the table has: the IoU of its masks with the exact ones, over
the objects of the first frame and all later frames in which either shows them; the share of pixels with the same
refined label; coverage (fast mode also sees objects that enter later); masklets a window; the scores of base and
refined labels; seconds a frame for the masklets, one thread. Nothing is tuned on the test seeds.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SCORES = ("mIoU", "mBIoU", "mVC8")
COLUMNS = ("mask IoU", "same labels", "coverage", "masklets", *SCORES, "s a frame")


def trackers() -> dict[str, Callable]:
    """Every mode by the name it has in the table; exact comes first, the others are compared with it."""
    import torch

    from sam2vss.sam2.ahead import encode_ahead
    from sam2vss.sam2.finder import MaskFinder
    from sam2vss.sam2.prompts import PromptParts, PromptPropagator
    from sam2vss.sam2.tracker import NANO_FOLDER, Sam2Tracker
    from sam2vss.sam2.weights import load_network

    class PromptTracker(Sam2Tracker):
        """Follows by prompts of a given kind."""

        def __init__(self, finder: MaskFinder, parts: PromptParts, choice: str) -> None:
            super().__init__(finder, "prompt")
            self.parts, self.choice = parts, choice

        def _propagator(self) -> PromptPropagator:
            return PromptPropagator(self.network, self.chunk, self.parts, self.choice)

    class SameSeeds(MaskFinder):
        """Finds what the float32 network finds, so that only following differs."""

        def find(self, features, frame, covered=None):
            return finder.find(next(encode_ahead(finder.network, frame[None])), frame, covered)

    finder = MaskFinder(load_network(NANO_FOLDER))
    halved = SameSeeds(load_network(NANO_FOLDER, dtype=torch.bfloat16))
    modes = {"exact": Sam2Tracker(finder), "exact, bfloat16": Sam2Tracker(halved)}
    for every in (1, 2, 4):
        modes[f"fast, every {every}"] = Sam2Tracker(finder, "fast", match_every=every)
    for name, parts, choice in (
        ("mask, box, click", PromptParts(), "single"),
        ("mask, click", PromptParts(box=False), "single"),
        ("mask", PromptParts(box=False, point=False), "single"),
        ("click, overlap", PromptParts(mask=False, box=False), "overlap"),
    ):
        modes[f"prompt: {name}"] = PromptTracker(finder, parts, choice)
    return {name: tracker.track for name, tracker in modes.items()}


def mask_iou(exact, other) -> float:
    """Mean IoU of the exact masklets with the same rows of another tracker's, where either has a pixel."""
    found = []
    for t in range(1, exact.window.length):
        left, right = exact.stack(t), other.stack(t)[: exact.num_masklets]
        union = (left | right).sum((1, 2))
        found.append((left & right).sum((1, 2))[union > 0] / union[union > 0])
    return float(np.concatenate(found).mean()) if exact.num_masklets else float("nan")


def measure(seeds: list[int], num_frames: int) -> dict[str, dict[str, float]]:
    """Run every mode on every clip, each clip one window; returns a row of the table per mode."""
    from sam2vss.datasets.synthetic import LABEL_SPACE, render_clip
    from sam2vss.metrics import VideoSegMetrics
    from sam2vss.segmenters import load_segmenter
    from sam2vss.types import BaseLabels
    from sam2vss.voting import refine_window

    modes = trackers()
    metrics = {name: VideoSegMetrics(LABEL_SPACE.num_classes) for name in ("base", *modes)}
    numbers: dict[str, list[list[float]]] = {name: [] for name in modes}
    segmenter = load_segmenter("segformer-nano")
    for seed in seeds:
        clip, name = render_clip(seed, num_frames), f"synthetic_{seed:06d}"
        segmenter.reset()
        base = segmenter.predict(clip.frames).labels
        metrics["base"].update(base, clip.labels, clip=name)
        windows, refined = {}, {}
        for mode, track in modes.items():
            started = time.process_time()
            windows[mode] = track(clip.frames, 0)
            seconds = (time.process_time() - started) / num_frames
            refined[mode] = refine_window(BaseLabels(base), windows[mode], LABEL_SPACE)
            same = float((refined[mode].labels == refined["exact"].labels).mean())
            coverage = float(refined[mode].coverage.mean())
            overlap = mask_iou(windows["exact"], windows[mode])
            numbers[mode].append([overlap, same, coverage, windows[mode].num_masklets, seconds])
            metrics[mode].update(refined[mode].labels, clip.labels, clip=name)
        print(f"{name} done", flush=True)
    table = {}
    for name, metric in metrics.items():
        scores = metric.compute().as_dict()
        row = {score: float(scores[score]) for score in SCORES}
        if name in numbers:
            *means, seconds = np.nanmean(numbers[name], axis=0).tolist()
            row = dict(zip(COLUMNS, (*means, *row.values(), seconds), strict=True))
        table[name] = row
    return table


def show(row: dict[str, float], column: str) -> str:
    if column not in row:
        return ""
    if column == "masklets":
        return f"{row[column]:.1f}"
    return f"{row[column]:.2f}" if column == "s a frame" else f"{100 * row[column]:.2f}"


def main() -> None:
    """Run all clips and print the table."""
    import cv2
    import torch

    from sam2vss.datasets.synthetic import TEST_SEEDS, VALIDATION_SEEDS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = list({"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.split][: options.clips])
    table = measure(seeds, options.frames)
    print(f"\n{len(seeds)} {options.split} clips of {options.frames} frames; shares and scores in percent\n")
    print(f"| mode | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name, row in table.items():
        print(f"| {name} | {' | '.join(show(row, column) for column in COLUMNS)} |")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"split": options.split, "clips": len(seeds), "frames": options.frames, "modes": table}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
