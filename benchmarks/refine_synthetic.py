"""Does refining help? Base against refined labels on unseen synthetic clips, with bootstrap intervals.

    python benchmarks/refine_synthetic.py --split test --clips 24 --out runs/synthetic.json

segformer-nano predicts, sam2-nano refines with the paper's settings; clips are resampled in pairs. Nothing is tuned on
the test seeds; use `--split validation` while developing. Clips run in parallel, one thread each.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

WORKERS = 2


def refine_one(task: tuple[int, int]) -> dict:
    """Render, segment and refine one clip; return counts of both results."""
    import torch

    from sam2vss import MaskletSettings
    from sam2vss.datasets.synthetic import LABEL_SPACE, render_clip
    from sam2vss.metrics import VideoSegMetrics
    from sam2vss.refiner import Refiner
    from sam2vss.segmenters import load_segmenter

    torch.set_num_threads(1)
    seed, num_frames = task
    clip = render_clip(seed, num_frames)
    name = f"synthetic_{seed:06d}"
    base = load_segmenter("segformer-nano").predict(clip.frames).labels
    started = time.perf_counter()
    refiner = Refiner.from_pretrained("nano", masklets=MaskletSettings(), device="cpu")
    windows = list(refiner.refine(clip.frames, base, LABEL_SPACE))
    seconds = time.perf_counter() - started
    counts = {}
    for row, labels in (("base", base), ("refined", np.concatenate([window.labels for window in windows]))):
        metrics = VideoSegMetrics(LABEL_SPACE.num_classes)
        metrics.update(labels, clip.labels, clip=name)
        counts[row] = metrics.state_dict()
    return {
        "clip": name,
        "counts": counts,
        "masklets": sum(len(window.classes) for window in windows) / len(windows),
        "coverage": float(np.mean(np.concatenate([window.coverage for window in windows]))),
        "seconds_per_frame": seconds / num_frames,
    }


def main() -> None:
    """Run all clips and print the table."""
    from sam2vss.datasets.synthetic import LABEL_SPACE, TEST_SEEDS, VALIDATION_SEEDS
    from sam2vss.metrics import VideoSegMetrics
    from sam2vss.metrics.bootstrap import paired_bootstrap

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seeds = {"test": TEST_SEEDS, "validation": VALIDATION_SEEDS}[options.split][: options.clips]
    both = {row: VideoSegMetrics(LABEL_SPACE.num_classes) for row in ("base", "refined")}
    masklets, coverage, speed = [], [], []
    with ProcessPoolExecutor(WORKERS) as pool:
        for result in pool.map(refine_one, [(seed, options.frames) for seed in seeds]):
            for row, metrics in both.items():
                part = VideoSegMetrics(LABEL_SPACE.num_classes)
                part.load_state_dict(result["counts"][row])
                metrics.merge(part)
            masklets.append(result["masklets"])
            coverage.append(result["coverage"])
            speed.append(result["seconds_per_frame"])
            print(f"{result['clip']} done", flush=True)
    scores = {row: metrics.compute().as_dict() for row, metrics in both.items()}
    print(f"\n{len(seeds)} {options.split} clips of {options.frames} frames, percent, 95 % bootstrap over clips\n")
    print("| score | base | refined | difference | 95 % interval |\n|---|---|---|---|---|")
    differences = {}
    for name in ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16"):
        found = paired_bootstrap(both["base"].counts, both["refined"].counts, name)
        low, high = found.interval or (float("nan"), float("nan"))
        differences[name] = {"difference": found.difference, "interval": [low, high], "clips": found.clips}
        old, new = scores["base"][name], scores["refined"][name]
        print(
            f"| {name} | {100 * old:.2f} | {100 * new:.2f} | {100 * found.difference:+.2f} "
            f"| {100 * low:+.2f} .. {100 * high:+.2f} |"
        )
    print(
        f"\nmasklets a window {np.mean(masklets):.1f}, coverage {100 * np.mean(coverage):.1f} %, "
        f"{np.mean(speed):.2f} s a frame on one CPU thread"
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"scores": scores, "differences": differences, "clips": len(seeds), "frames": options.frames}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
