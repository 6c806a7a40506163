"""Budgets that are quick to check: start of the command line, and metrics against decoding two PNGs.

    python benchmarks/small_costs.py

The metrics budget is a ratio measured in one run: scoring a 480x853 frame, mBIoU included, against decoding its two
label PNGs with Pillow. CPU time, one thread, median of the repeats.
"""

import io
import subprocess
import sys
import time
from statistics import median

import cv2
import numpy as np
from PIL import Image

from sam2vss.metrics import VideoSegMetrics

SIZE = (480, 853)  # VSPW
NUM_CLASSES = 124


def label_maps(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draw slowly moving blobs of classes, uint8 (T, H, W)."""
    centers, speed = rng.uniform((0, 0), SIZE[::-1], (60, 2)), rng.normal(0, 2, (60, 2))
    radii, classes = rng.integers(15, 120, 60), rng.integers(0, NUM_CLASSES, 60)
    maps = np.zeros((num_frames, *SIZE), np.uint8)
    for t, frame in enumerate(maps):
        for center, radius, label in zip(centers + t * speed, radii, classes, strict=True):
            cv2.circle(frame, center.astype(int).tolist(), int(radius), int(label), -1)
    return maps


def cpu_ms(run, repeats: int = 15) -> float:
    """Median CPU time of a call in milliseconds."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(1000 * (time.process_time() - started))
    return median(times)


def main() -> None:
    """Measure and print."""
    cv2.setNumThreads(1)
    starts = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sam2vss", "--help"], check=True, capture_output=True)
        starts.append(time.perf_counter() - started)
    print(f"sam2vss --help: {min(starts):.2f} s (best of 5)")

    truth = label_maps(20, np.random.default_rng(0))
    predictions = label_maps(20, np.random.default_rng(1))
    files = []
    for label_map in (truth[0], predictions[0]):
        buffer = io.BytesIO()
        Image.fromarray(label_map).save(buffer, "PNG")
        files.append(buffer.getvalue())
    metrics = VideoSegMetrics(NUM_CLASSES)
    update = cpu_ms(lambda: metrics.update(predictions, truth, clip="a")) / len(truth)
    decode = cpu_ms(lambda: [np.array(Image.open(io.BytesIO(file))) for file in files])
    print(f"metrics: {update:.2f} ms a frame, decoding two PNGs: {decode:.2f} ms, ratio {update / decode:.2f}")


if __name__ == "__main__":
    main()
