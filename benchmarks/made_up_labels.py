"""Made-up base labels for data sets without predictions: the truth made coarse, flickering, and with wrong segments.

    python benchmarks/made_up_labels.py DATA --out runs/made_up/NAME

Nothing here is a model. Every frame gets the truth on a grid of 16 pixels (what a network of stride 16 leaves of
edges). Each connected segment has a wrong class with probability 0.2, the same one for 8 frames (segment errors that
come and go), and 5 % of the grid's cells take the class of a neighbour (flicker). Void stays void.
The draws depend on the video's name and the frame's number only.
"""

import argparse
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

STRIDE_PX = 16
WRONG_SHARE = 0.2
WRONG_FRAMES = 8
FLICKER_SHARE = 0.05


def main() -> None:
    """Write the labels of every video of a data set."""
    from sam2vss.datasets.folders import find_label_folders, read_ids
    from sam2vss.types import LabelSpace

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    space = LabelSpace.from_json(options.data / "label_set.json")
    for video, frames in find_label_folders(options.data).items():
        folder = options.out / video
        folder.mkdir(parents=True, exist_ok=True)
        for number, (stem, path) in enumerate(frames.items()):
            truth = space.from_raw(read_ids(path))
            labels = spoil(truth, space.num_classes, zlib.crc32(video.encode()), number)
            Image.fromarray(space.to_raw(labels)).save(folder / f"{stem}.png")
        print(f"{video}: {len(frames)} frames")


def spoil(truth: np.ndarray, num_classes: int, video_key: int, number: int) -> np.ndarray:
    """Return labels like those of a weak model for one frame's truth, train ids (H, W)."""
    height, width = truth.shape
    rows = np.minimum(np.arange(0, height, STRIDE_PX) + STRIDE_PX // 2, height - 1)
    columns = np.minimum(np.arange(0, width, STRIDE_PX) + STRIDE_PX // 2, width - 1)
    coarse = truth[np.ix_(rows, columns)].copy()
    for label in np.unique(coarse[coarse < num_classes]):
        phase = int(np.random.Generator(np.random.Philox([video_key, int(label)])).integers(WRONG_FRAMES))
        block = (number + phase) // WRONG_FRAMES
        generator = np.random.Generator(np.random.Philox([video_key, int(label) * 100_003 + block]))
        count, parts = cv2.connectedComponents((coarse == label).astype(np.uint8), connectivity=4)
        is_wrong = generator.random(count) < WRONG_SHARE
        others = (int(label) + generator.integers(1, num_classes, count)) % num_classes
        for part in np.flatnonzero(is_wrong[1:]) + 1:
            coarse[(parts == part) & (coarse == label)] = others[part]
    generator = np.random.Generator(np.random.Philox([video_key, 1 << 40 | number]))
    shifts = generator.integers(-1, 2, (2, *coarse.shape))
    y, x = np.indices(coarse.shape)
    moved = coarse[np.clip(y + shifts[0], 0, coarse.shape[0] - 1), np.clip(x + shifts[1], 0, coarse.shape[1] - 1)]
    coarse = np.where(generator.random(coarse.shape) < FLICKER_SHARE, moved, coarse)
    labels = np.repeat(np.repeat(coarse, STRIDE_PX, 0), STRIDE_PX, 1)[:height, :width]
    return np.where(truth < num_classes, labels, truth)


if __name__ == "__main__":
    main()
