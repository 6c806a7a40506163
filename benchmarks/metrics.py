"""What scoring costs beside decoding the labels, beside CFFM's script, and over long clips.

    python benchmarks/metrics.py [--data DATA_ROOT] [--repeats 7] [--cffm-script VC_perclip.py]

DATA_ROOT is the folder that holds `camvid/`; without it a synthetic clip is used. Label maps are brought to 480 x 853,
the size of VSPW, with NEAREST, and scored with VSPW's 124 classes. Prints

* milliseconds of processor time a frame, median of the repeats: decoding the two PNGs (Pillow, OpenCV) and counting
  them, in turns in one process on one thread, for several made-up predictions. The aim is a ratio of at most 1.0;
* with a copy of VSS-CFFM's VC_perclip.py, processor time a frame from PNG to scores, as the cost of six clips minus
  that of one, so that imports do not count. The aim is a ratio of at least 2;
* memory of counting 200 and 2000 frames of one clip.
"""

import argparse
import io
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sam2vss.datasets.synthetic import VALIDATION_SEEDS, render_clip
from sam2vss.metrics import BoundaryReadings, VideoSegMetrics, curve_windows

SIZE = (480, 853)  # VSPW
NUM_CLASSES = 124
VOID = 255
CAMVID_CLIP = "0016E5_15hz_a"
CAMVID_VOID = 11
Clip = list[np.ndarray]  # uint8 (H, W) each
LIBRARY = "imread + VideoSegMetrics"
COUNT_FOLDER = """
import sys, cv2
from pathlib import Path
from sam2vss.metrics import VideoSegMetrics
cv2.setNumThreads(1)
truth, predictions, boundary = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
metrics = VideoSegMetrics(124, boundary=boundary)
for clip in (truth / "val.txt").read_text().split():
    for file in sorted((truth / "zero_based" / clip / "mask").iterdir()):
        metrics.update(cv2.imread(str(predictions / clip / file.name), -1), cv2.imread(str(file), -1), clip=clip)
print(metrics.compute("cffm").as_dict())
"""
EVALUATE_FOLDERS = """
import sys, cv2
from pathlib import Path
from sam2vss.evaluate import evaluate_folders
from sam2vss.types import LabelSpace
cv2.setNumThreads(1)
truth, predictions, boundary = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
found = evaluate_folders(
    truth / "zero_based", predictions, LabelSpace.numbered(124), protocol="cffm", boundary=boundary,
    only=(truth / "val.txt").read_text().split(),
)
print(found.scores.as_dict())
"""


def read_truth(data: Path | None) -> Clip:
    """Label maps of a clip, classes and 255, in the size of VSPW."""
    if data is None:
        return list(fit(render_clip(VALIDATION_SEEDS[0], num_frames=48, size=(240, 426)).labels))
    files = sorted((data / "camvid" / "data" / CAMVID_CLIP / "mask").glob("*.png"))
    maps = fit([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
    return [np.where(labels == CAMVID_VOID, VOID, labels).astype(np.uint8) for labels in maps]


def fit(maps: Sequence[np.ndarray]) -> Clip:
    return [cv2.resize(labels, SIZE[::-1], interpolation=cv2.INTER_NEAREST) for labels in maps]


def make_predictions(truth: Clip, data: Path | None) -> dict[str, Clip]:
    """Several ways to be wrong; "model" is a real one, where the recordings are."""
    rng = np.random.default_rng(0)
    made = {
        "shifted 3 px": [np.roll(labels, 3, axis=1) for labels in truth],
        "classes flip in blocks": [flip_blocks(labels, rng) for labels in truth],
        "1 % noise": [add_noise(labels, 0.01, rng) for labels in truth],
        "10 % noise": [add_noise(labels, 0.1, rng) for labels in truth],
    }
    if data is not None:
        files = sorted((data / "camvid_predictions" / CAMVID_CLIP).glob("*.png"))
        made["model"] = fit([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])
    return made


def flip_blocks(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give every fifth block of 40 x 40 pixels another class, other blocks in every frame."""
    height, width = labels.shape
    is_wrong = rng.random((-(-height // 40), -(-width // 40))) < 0.2
    mask = np.kron(is_wrong, np.ones((40, 40), bool))[:height, :width]
    return np.where(mask, (labels.astype(int) + 1) % 11, labels).astype(np.uint8)


def add_noise(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    is_wrong = rng.random(labels.shape) < share
    return np.where(is_wrong, rng.integers(0, 11, labels.shape), labels).astype(np.uint8)


def encode(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def decode_with_opencv(files: Sequence[bytes]) -> None:
    for file in files:
        cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_with_pillow(files: Sequence[bytes]) -> None:
    for file in files:
        np.asarray(Image.open(io.BytesIO(file)))


def count(truth: Clip, prediction: Clip, windows: Sequence[int], boundary: BoundaryReadings) -> Callable[[], None]:
    def work() -> None:
        metrics = VideoSegMetrics(NUM_CLASSES, VOID, windows, boundary=boundary)
        for pair in zip(prediction, truth, strict=True):
            metrics.update(*pair, clip="a")

    return work


def in_turns(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Processor seconds of each work, median of the repeats, taken in turns; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def compare_with_decoding(truth: Clip, predictions: dict[str, Clip], repeats: int) -> None:
    columns = ("Pillow", "OpenCV", "default", "VC curve", "full")
    print("ms a frame: decoding two PNGs with Pillow and OpenCV; counting: default (mIoU, mVC8, mVC16, mBIoU in its")
    print("readings, Boundary IoU 2 px), with the VC curve 2..32, with all boundary readings; ratios to OpenCV")
    print(f"{'predictions':24}" + "".join(f"{name:>10}" for name in columns) + "   default  full")
    for name, prediction in predictions.items():
        files = [encode(labels) for pair in zip(truth, prediction, strict=True) for labels in pair]
        spent = in_turns(
            {
                "Pillow": lambda files=files: decode_with_pillow(files),
                "OpenCV": lambda files=files: decode_with_opencv(files),
                "default": count(truth, prediction, (8, 16), "band"),
                "VC curve": count(truth, prediction, curve_windows(32), "band"),
                "full": count(truth, prediction, (8, 16), "full"),
            },
            repeats,
        )
        spent = {column: 1000 * seconds / len(truth) for column, seconds in spent.items()}
        ratios = [spent[column] / spent["OpenCV"] for column in ("default", "full")]
        print(
            f"{name:24}" + "".join(f"{spent[column]:10.2f}" for column in columns) + "{:10.2f}{:6.2f}".format(*ratios)
        )


def compare_with_script(script: Path, truth: Clip, prediction: Clip, repeats: int) -> None:
    """End to end; the script reads VSPW's raw ids, ours the same maps as classes."""
    num_clips, clip = 6, len(truth)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_clips(root, truth, prediction, num_clips)
        text = script.read_text()
        text = re.sub(r"^DIR\s*=.*$", f"DIR = {str(root)!r}", text, flags=re.MULTILINE)
        text = re.sub(r"^Pred\s*=.*$", f"Pred = {str(root / 'predictions')!r}", text, flags=re.MULTILINE)
        (root / "script.py").write_text(text)
        ours = [str(root), str(root / "predictions")]
        commands = {
            "VC_perclip.py": [str(root / "script.py")],
            LIBRARY: ["-c", COUNT_FOLDER, *ours, "band"],
            "evaluate_folders": ["-c", EVALUATE_FOLDERS, *ours, "band"],
            "evaluate_folders, full": ["-c", EVALUATE_FOLDERS, *ours, "full"],
        }
        spent: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                costs = []
                for clips in (1, num_clips):
                    (root / "val.txt").write_text("".join(f"clip_{i}\n" for i in range(clips)))
                    costs.append(processor_seconds(command))
                spent[name].append(1000 * (costs[1] - costs[0]) / ((num_clips - 1) * clip))
    print(f"\nms a frame from PNG to scores, {num_clips - 1} x {clip} frames, protocol cffm; ratio")
    theirs = float(np.median(spent["VC_perclip.py"]))
    for name, values in spent.items():
        print(f"{name:28}{np.median(values):8.2f}{theirs / float(np.median(values)):8.2f}")


def write_clips(root: Path, truth: Clip, prediction: Clip, num_clips: int) -> None:
    for i in range(num_clips):
        folders = {
            root / "data" / f"clip_{i}" / "mask": [(labels.astype(int) + 1) % 256 for labels in truth],
            root / "zero_based" / f"clip_{i}" / "mask": truth,
            root / "predictions" / f"clip_{i}": prediction,
        }
        for folder, maps in folders.items():
            folder.mkdir(parents=True)
            for t, labels in enumerate(maps):
                (folder / f"{t:05}.png").write_bytes(encode(np.asarray(labels, np.uint8)))


def processor_seconds(command: Sequence[str]) -> float:
    """Run Python and return its user and system time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_memory(truth: Clip, prediction: Clip) -> None:
    print("\npeak MB of counting one clip (all windows as integers, `full`)")
    for name, windows in (("windows 8, 16", (8, 16)), ("VC curve 2..32", curve_windows(32))):
        peaks = []
        for frames in (200, 2000):
            tracemalloc.start()
            metrics = VideoSegMetrics(NUM_CLASSES, VOID, windows, boundary="full")
            for t in range(frames):
                metrics.update(prediction[t % len(truth)], truth[t % len(truth)])
            metrics.compute()
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
            tracemalloc.stop()
        print(f"{name:20} 200 frames {peaks[0]:6.1f}   2000 frames {peaks[1]:6.1f}   grows {peaks[1] - peaks[0]:5.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the shared recordings")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cffm-script", type=Path, help="copy of VC_perclip.py from GuoleiSun/VSS-CFFM")
    parser.add_argument("--no-memory", action="store_true", help="leave out the 4400 frames of the memory test")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    truth = read_truth(arguments.data)
    predictions = make_predictions(truth, arguments.data)
    print(f"{SIZE[0]}x{SIZE[1]}, {NUM_CLASSES} classes, {len(truth)} frames, {platform.machine()}, one thread")
    compare_with_decoding(truth, predictions, arguments.repeats)
    chosen = predictions["shifted 3 px"]
    if arguments.cffm_script:
        compare_with_script(arguments.cffm_script, truth, chosen, max(1, arguments.repeats // 3))
    if not arguments.no_memory:
        measure_memory(truth, chosen)


if __name__ == "__main__":
    main()
