"""Time votes and painting against plain decoding of every mask, side by side in one run.

    python benchmarks/vote_and_paint.py [--frames 4] [--repeats 9]

Prints milliseconds per frame (median of the repeats) on one thread. The budget is 5 ms at 100 masklets.
"""

import argparse
import platform
import time
from collections.abc import Callable

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from sam2vss.types import BaseLabels, LabelSpace, MaskletWindow
from sam2vss.voting import paint_order, refine_window

SIZE = (480, 853)  # VSPW
NUM_CLASSES = 124


def draw_masks(num_masklets: int, rng: np.random.Generator) -> np.ndarray:
    """Draw blobs of many sizes with ragged outlines, one in twenty of them half the picture; bool (N, H, W)."""
    height, width = SIZE
    masks = np.zeros((num_masklets, height, width), np.uint8)
    for i, mask in enumerate(masks):
        if i < max(2, num_masklets // 20):
            horizon = np.stack([np.linspace(0, width, 40), rng.uniform(100, 380) + rng.normal(0, 10, 40)], 1)
            far_side = height * (i % 2)
            outline = np.vstack([horizon, [width, far_side], [0, far_side]])
        else:
            angles = np.linspace(0, 2 * np.pi, 60)
            radii = (rng.gamma(2, 25) + 8) * (1 + 0.02 * rng.normal(0, 1, 60).cumsum())
            center = rng.uniform((0, 0), (width, height))
            outline = center + np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
    return masks.astype(bool)


def draw_labels(rng: np.random.Generator) -> np.ndarray:
    """Draw 240 patches of random classes with ragged borders; uint8 (H, W)."""
    height, width = SIZE
    patches = cv2.resize(
        rng.integers(0, NUM_CLASSES, (12, 20)).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    shift = [cv2.resize(rng.normal(0, 12, (60, 107)).astype(np.float32), (width, height)) for _ in range(2)]
    return cv2.remap(patches, columns + shift[0], rows + shift[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def refine_literally(labels: np.ndarray, window: MaskletWindow) -> np.ndarray:
    """Eq. 2 and Eq. 1 as one would first write them: decode, then one step per masklet."""
    votes = np.zeros((window.num_masklets, NUM_CLASSES), np.int64)
    for t, frame_labels in enumerate(labels):
        masks = coco_mask.decode(list(window.rles[t])).astype(bool)
        for i in range(window.num_masklets):
            votes[i] += np.bincount(frame_labels[masks[..., i]], minlength=NUM_CLASSES)
    refined = labels.copy()
    for t in range(len(labels)):
        masks = coco_mask.decode(list(window.rles[t])).astype(bool)
        for i in paint_order(window):
            refined[t][masks[..., i]] = votes[i].argmax()
    return refined


def median_ms(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    label_space = LabelSpace.numbered(NUM_CLASSES)
    print(f"{SIZE[0]}x{SIZE[1]}, {NUM_CLASSES} classes, {arguments.frames} frames, {platform.machine()}, one thread")
    print("masklets  area of masks / frame  refine_window  literal loop  ratio")
    for num_masklets in (10, 30, 100):
        masks = np.stack([draw_masks(num_masklets, rng) for _ in range(arguments.frames)], axis=1)
        window = MaskletWindow.from_masks(masks)
        labels = np.stack([draw_labels(rng) for _ in range(arguments.frames)])
        refined = refine_window(BaseLabels(labels), window, label_space).labels
        assert np.array_equal(refined, refine_literally(labels, window)), "the two ways must agree"
        fast, literal = (
            median_ms(work, arguments.repeats) / arguments.frames
            for work in (
                lambda w=window, x=labels: refine_window(BaseLabels(x), w, label_space),
                lambda w=window, x=labels: refine_literally(x, w),
            )
        )
        area = masks.sum() / masks[0].size
        print(f"{num_masklets:8}  {area:21.1f}  {fast:10.2f} ms  {literal:9.1f} ms  {literal / fast:5.1f}")


if __name__ == "__main__":
    main()
