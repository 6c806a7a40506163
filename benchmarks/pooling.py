"""Time Eq. 3 on runs of pixels against enlarging the features and averaging them mask by mask, side by side in one run.

    python benchmarks/pooling.py [--repeats 5]

Prints milliseconds per frame (median of the repeats) on one thread: SAM 2's features (256 channels, 64 x 64 cells) over
blobs on a frame of 480 x 853, and the largest difference between both ways.
"""

import argparse
import platform

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask

from sam2vss.mask_runs import decode_runs, mask_boxes, pool_areas
from sam2vss.pooling import choose_cells, pool_masks, pool_mean, take_cells
from sam2vss.types import encode_masks
from vote_and_paint import SIZE, draw_masks, median_ms

CHANNELS, GRID = 256, (64, 64)


def pool_literally(features: np.ndarray, rles: tuple[dict, ...]) -> np.ndarray:
    """Eq. 3 as one would first write it: masks on the feature grid by averaging, then a step per masklet."""
    masks = coco_mask.decode(list(rles))
    rows = []
    for i in range(masks.shape[2]):
        weight = cv2.resize(masks[..., i].astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA)
        rows.append((features * weight).sum(axis=(1, 2)) / weight.sum())
    return np.array(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(CHANNELS, *GRID)).astype(np.float32)
    print(f"{platform.processor() or platform.machine()}, {SIZE[0]} x {SIZE[1]}, {CHANNELS} x {GRID[0]} x {GRID[1]}")
    for num_masklets in (10, 30, 100):
        rles = encode_masks(draw_masks(num_masklets, rng))

        def mean_only(rles: tuple[dict, ...] = rles) -> np.ndarray:
            return pool_mean(features, pool_areas(decode_runs(rles, SIZE), GRID))

        def everything(rles: tuple[dict, ...] = rles) -> None:
            runs = decode_runs(rles, SIZE)
            weights = pool_areas(runs, GRID)
            pool_masks([features], [weights], ("mean", "max", "ring"))
            take_cells(features, choose_cells(weights, 16))
            mask_boxes(runs)

        def literally(rles: tuple[dict, ...] = rles) -> np.ndarray:
            return pool_literally(features, rles)

        difference = np.abs(mean_only() - literally()).max()
        ours, all_parts, literal = (median_ms(work, options.repeats) for work in (mean_only, everything, literally))
        print(
            f"{num_masklets:4} masklets: mean {ours:6.2f} ms, {literal / ours:5.1f} times faster than literally "
            f"({literal:.1f} ms, largest difference {difference:.1e}); mean, max, ring, 16 cells and boxes "
            f"{all_parts:6.2f} ms"
        )


if __name__ == "__main__":
    main()
