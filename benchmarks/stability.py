"""Do scores without ground truth order labels as scores against it do, and what fools them?

    python benchmarks/stability.py [--clips 10]        synthetic validation clips, made-up labels

Made-up labels: truth with blocks of wrong class that change from frame to frame, in five amounts; blocks that stay
wrong; truth of an earlier frame; the noisy ones smoothed over time without following motion; and one class everywhere.
Optical flow is OpenCV's DIS. Scores in percent, protocol `vspw`; flips are shown as 100 minus flips, so that higher is
steadier in every column. `flow mIoU, all` is without the check for hidden pixels.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, render_clip
from sam2vss.metrics import VideoSegMetrics
from sam2vss.metrics.stability import StabilityMetrics
from sam2vss.metrics.warping import is_seen_in_both
from sam2vss.stability import DIS

CLASSES = LABEL_SPACE.num_classes
FRAMES, SIZE = 32, (240, 320)
BLOCK_PX = 12
NOISE = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
COLUMNS = (
    "mIoU", "mVC8", "mVC16", "100-flips", "flow mIoU", "flow agreement", "TC script", "flow mIoU, all",
)  # fmt: skip


def wrong_blocks(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Give a share of the blocks of a label map (H, W) a random class."""
    grid = tuple(-(-side // BLOCK_PX) for side in labels.shape)

    def enlarge(values: np.ndarray) -> np.ndarray:
        return values.repeat(BLOCK_PX, 0).repeat(BLOCK_PX, 1)[: labels.shape[0], : labels.shape[1]]

    is_wrong, classes = rng.random(grid) < share, rng.integers(0, CLASSES, grid)
    return np.where(enlarge(is_wrong), enlarge(classes), labels).astype(np.uint8)


def static_majority(labels: np.ndarray, radius: int) -> np.ndarray:
    """Take the most frequent class of the frames nearby at the same pixel, (T, H, W)."""
    windows = (labels[max(0, t - radius) : t + radius + 1] for t in range(len(labels)))
    counts = (np.stack([(window == c).sum(axis=0) for c in range(CLASSES)]) for window in windows)
    return np.stack([count.argmax(axis=0) for count in counts]).astype(np.uint8)


def made_up_labels(truth: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield sets of labels (T, H, W) by name."""
    times = np.arange(len(truth))
    for share in NOISE:
        rng = np.random.default_rng((seed, round(100 * share)))
        noisy = np.stack([wrong_blocks(labels, share, rng) for labels in truth])
        yield (f"wrong blocks {share:.0%}" if share else "truth"), noisy
        if share == 0.2:
            yield "  majority of 5 frames", static_majority(noisy, 2)
            yield "  majority of 9 frames", static_majority(noisy, 4)
    yield (
        "same blocks wrong 20%",
        np.stack([wrong_blocks(labels, 0.2, np.random.default_rng(seed)) for labels in truth]),
    )
    yield "truth of every 8th frame", truth[times // 8 * 8]
    yield "truth of the first frame", truth[times * 0]
    yield "one class everywhere", np.full_like(truth, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10)
    num_clips = parser.parse_args().clips
    cv2.setNumThreads(1)
    scored: dict[str, tuple[VideoSegMetrics, StabilityMetrics, StabilityMetrics]] = {}
    seconds, frames = 0.0, 0
    for seed in VALIDATION_SEEDS[:num_clips]:
        clip = render_clip(seed, FRAMES, SIZE)
        steps = []
        for image, next_image in pairwise(clip.frames):
            start = time.process_time()
            there = DIS.find(image, next_image)
            steps.append((there, is_seen_in_both(there, DIS.find(next_image, image))))
            seconds += time.process_time() - start
            frames += 1
        for name, labels in made_up_labels(clip.labels, seed):
            empty = (VideoSegMetrics(CLASSES), StabilityMetrics(CLASSES, "dis"), StabilityMetrics(CLASSES, "dis"))
            against_truth, checked, unchecked = scored.setdefault(name, empty)
            against_truth.update(labels, clip.labels, clip=str(seed))
            for t, frame in enumerate(labels):
                flow, seen = steps[t - 1] if t else (None, None)
                checked.update(frame, flow, seen, str(seed))
                unchecked.update(frame, flow, None, str(seed))
    print(f"{num_clips} clips of {FRAMES} frames; flow there and back {1000 * seconds / frames:.1f} ms a frame")
    print(f"{'labels':26}" + "".join(f"{name:>16}" for name in COLUMNS))
    for name, (against_truth, checked, unchecked) in scored.items():
        truth_scores, steady, loose = against_truth.compute(), checked.compute(), unchecked.compute()
        row = (
            truth_scores.miou, truth_scores.vc[8], truth_scores.vc[16], 1 - steady.flip_rate, steady.flow_consistency,
            steady.flow_agreement, steady.tc, loose.flow_consistency,
        )  # fmt: skip
        print(f"{name:26}" + "".join(f"{100 * score:16.2f}" for score in row))
    levels = [scored[f"wrong blocks {share:.0%}" if share else "truth"][1].per_clip() for share in NOISE]
    falls = [
        all(less[clip].flow_consistency > more[clip].flow_consistency for less, more in pairwise(levels))
        for clip in levels[0]
    ]
    print(f"flow mIoU falls from each amount of wrong blocks to the next in {sum(falls)} of {num_clips} clips")


if __name__ == "__main__":
    main()
