"""Does refining help, and is it SAM 2 that helps? Ways of refining on unseen synthetic clips, with bootstrap intervals.

    python benchmarks/refine_synthetic.py --split test --clips 24 --out runs/synthetic.json
    python benchmarks/refine_synthetic.py --split validation --clips 4 --rows exact superpixel

segformer-nano predicts; the rows are controls without weights (static, flow, superpixel) and sam2-nano with the paper's
settings in its modes. Clips are resampled in pairs, every row against the base. Nothing is tuned on the test seeds; use
`--split validation` while developing. `--workers` clips run at the same time, one thread each.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

SCORES = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
ROWS = ("static", "flow", "superpixel", "exact", "exact, carry", "exact, both", "fast", "fast, every 4", "prompt")


def make_refiner(row: str):
    """Return the refiner of a row of the table."""
    from sam2vss.datasets.synthetic import LABEL_SPACE
    from sam2vss.refiner import Refiner
    from sam2vss.settings import FollowSettings
    from sam2vss.smoothing import find_smoother
    from sam2vss.trackers.nothing import NoTracker
    from sam2vss.trackers.superpixels import SuperpixelTracker

    if row in ("static", "flow"):
        return Refiner(NoTracker(), smoother=find_smoother(row, LABEL_SPACE.ignore_index))
    if row == "superpixel":
        return Refiner(SuperpixelTracker())
    mode, _, extra = row.partition(", ")
    follow = {
        "": FollowSettings(),
        "carry": FollowSettings(carry=True),
        "both": FollowSettings(direction="both"),
        "every 4": FollowSettings(match_every=4),
    }[extra]
    return Refiner.from_pretrained("nano", follow=follow, mode=mode, device="cpu")


def refine_one(task: tuple[int, int, tuple[str, ...]]) -> dict:
    """Render, segment and refine one clip in all ways; return counts, masklets and seconds by row."""
    import cv2
    import torch

    from sam2vss.datasets.synthetic import LABEL_SPACE, render_clip
    from sam2vss.metrics import VideoSegMetrics
    from sam2vss.segmenters import load_segmenter

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seed, num_frames, rows = task
    clip = render_clip(seed, num_frames)
    base = load_segmenter("segformer-nano").predict(clip.frames).labels
    result: dict = {"clip": f"synthetic_{seed:06d}", "counts": {}, "masklets": {}, "coverage": {}, "seconds": {}}
    for row in ("base", *rows):
        started, labels = time.process_time(), base
        if row != "base":
            windows = list(make_refiner(row).refine(clip.frames, base, LABEL_SPACE))
            labels = np.concatenate([window.labels for window in windows])
            result["masklets"][row] = float(np.mean([len(window.classes) for window in windows]))
            result["coverage"][row] = float(np.mean(np.concatenate([window.coverage for window in windows])))
        result["seconds"][row] = (time.process_time() - started) / num_frames
        metrics = VideoSegMetrics(LABEL_SPACE.num_classes)
        metrics.update(labels, clip.labels, clip=result["clip"])
        result["counts"][row] = metrics.state_dict()
    return result


def main() -> None:
    """Run all clips and print both tables."""
    from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, VALIDATION_SEEDS
    from sam2vss.metrics import VideoSegMetrics

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.split][: options.clips]
    rows = tuple(options.rows)
    all_metrics = {row: VideoSegMetrics(LABEL_SPACE.num_classes) for row in ("base", *rows)}
    results = []
    with ProcessPoolExecutor(options.workers) as pool:
        for result in pool.map(refine_one, [(seed, options.frames, rows) for seed in seeds]):
            for row, metrics in all_metrics.items():
                part = VideoSegMetrics(LABEL_SPACE.num_classes)
                part.load_state_dict(result["counts"][row])
                metrics.merge(part)
            results.append(result)
            print(f"{result['clip']} done", flush=True)
    content = {"clips": len(seeds), "frames": options.frames, "split": options.split}
    content |= {row: summarise(row, all_metrics, results) for row in all_metrics}
    print(f"\n{len(seeds)} {options.split} clips of {options.frames} frames, percent; seconds of one CPU thread\n")
    print_tables(content, all_metrics)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def summarise(row: str, all_metrics: dict, results: list[dict]) -> dict:
    """Scores of a row, its differences from the base, and what it took."""
    from sam2vss.metrics.bootstrap import paired_bootstrap

    summary: dict = {"scores": {name: all_metrics[row].compute().as_dict()[name] for name in SCORES}}
    if row == "base":
        return summary
    summary["difference"] = {}
    for name in SCORES:
        found = paired_bootstrap(all_metrics["base"].counts, all_metrics[row].counts, name)
        summary["difference"][name] = [found.difference, *(found.interval or (float("nan"), float("nan")))]
    for key in ("masklets", "coverage", "seconds"):
        summary[key] = float(np.mean([result[key][row] for result in results]))
    return summary


def print_tables(content: dict, rows: dict) -> None:
    """Print scores, then differences with their intervals, as Markdown."""
    print(f"| labels | {' | '.join(SCORES)} | masklets | coverage | s a frame |\n|---|{'---|' * (len(SCORES) + 3)}")
    for row in rows:
        entry = content[row]
        cells = [f"{100 * entry['scores'][name]:.2f}" for name in SCORES]
        cells += ["", "", ""] if row == "base" else [f"{entry['masklets']:.1f}"]
        cells += [] if row == "base" else [f"{100 * entry['coverage']:.1f}", f"{entry['seconds']:.2f}"]
        print(f"| {row} | {' | '.join(cells)} |")
    print(f"\n| against the base | {' | '.join(SCORES)} |\n|---|{'---|' * len(SCORES)}")
    for row in [row for row in rows if row != "base"]:
        found = [content[row]["difference"][name] for name in SCORES]
        cells = [f"{100 * gain:+.2f} [{100 * low:.2f}, {100 * high:.2f}]" for gain, low, high in found]
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
