"""Our STQ and VPQ beside those of the published scripts for the same panoptic label maps, and the time both take.

    python benchmarks/published_panoptic.py CLONES [--data DATA_ROOT] [--write FILE] [--frames 20]

CLONES is a folder with clones of VIPSeg-Dataset/VIPSeg-Dataset, zhang-tao-whu/DVIS_Plus,
hkchengrex/Tracking-Anything-with-DEVA and google-research/deeplab2 under those names. DATA_ROOT is the folder that
holds `ycbvideo/`; without it only drawn clips are scored. `--write tests/metrics/golden_panoptic.json` stores what the
scripts gave as the literals that the tests compare with, so that those need neither clones nor network. The scripts run
as they are, one process, on files that our own writer wrote; `tqdm`, their progress bar, is replaced by a silent one.
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from sam2vss.datasets.label_sets import find_label_space
from sam2vss.datasets.panoptic_codes import PanopticMap, find_things
from sam2vss.datasets.panoptic_folders import PanopticWriter, write_codes
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, render_clip
from sam2vss.evaluate_panoptic import evaluate_panoptic
from sam2vss.metrics.panoptic import PanopticMetrics
from sam2vss.metrics.panoptic_scores import VPQ_WINDOWS
from sam2vss.types import LabelSpace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))

from panoptic_clips import IS_THING, MADE_UP, NUM_CLASSES, MadeUpClip, recorded_clips

ORIGIN: Final = {
    "vpq_vipseg": (
        "VIPSeg-Dataset/VIPSeg-Dataset, commit 92e1459db13d80c8e96e167c7c2e8ef2c9ee9a2e, ClipPanoFCN/eval_vpq_vspw.py; "
        "zhang-tao-whu/DVIS_Plus, commit c0eb2495d595937538139dab6081dc790c0a6fe3, DVIS_Plus/utils/eval_vpq_vspw.py, "
        "gives the same"
    ),
    "vpq_deva": (
        "hkchengrex/Tracking-Anything-with-DEVA, commit 404a112df77f9644d5c7211811329ccd8174b8c3, "
        "deva/vps_metrics/eval_vpq_vipseg.py"
    ),
    "stq_script": (
        "VIPSeg-Dataset/VIPSeg-Dataset, same commit, ClipPanoFCN/segmentation_and_tracking_quality.py, a copy of "
        "deeplab2's that counts in integers"
    ),
    "stq_deeplab2": (
        "google-research/deeplab2, commit 64bc1c1a6505b6cd1779b65f9127180840b8a4fa, "
        "evaluation/numpy/segmentation_and_tracking_quality.py, which counts in float32"
    ),
    "stq_vipseg": "VIPSeg-Dataset/VIPSeg-Dataset, same commit, ClipPanoFCN/eval_stq_vspw.py",
}
SCRIPTS: Final = {
    "vipseg": "VIPSeg-Dataset/ClipPanoFCN/eval_vpq_vspw.py",
    "dvis": "DVIS_Plus/DVIS_Plus/utils/eval_vpq_vspw.py",
    "deva": "Tracking-Anything-with-DEVA/deva/vps_metrics/eval_vpq_vipseg.py",
    "stq_script": "VIPSeg-Dataset/ClipPanoFCN/segmentation_and_tracking_quality.py",
    "stq_deeplab2": "deeplab2/evaluation/numpy/segmentation_and_tracking_quality.py",
    "stq_driver": "VIPSeg-Dataset/ClipPanoFCN/eval_stq_vspw.py",
}
VPQ_PROTOCOLS: Final = {"vpq_vipseg": "vipseg", "vpq_deva": "deva"}
STQ_PROTOCOLS: Final = {"stq_script": "deeplab2", "stq_deeplab2": "deeplab2", "stq_vipseg": "vipseg"}
BITS: Final = 16

Clips = Mapping[str, MadeUpClip]


# --- the published side ----------------------------------------------------------------------------------------------


def load_scripts(clones: Path) -> dict[str, Any]:
    """Import the scripts as modules."""
    bars = types.ModuleType("tqdm")
    bars.tqdm = SilentBar  # type: ignore[attr-defined]
    sys.modules["tqdm"] = bars
    scripts: dict[str, Any] = {}
    for name, place in SCRIPTS.items():
        if name == "stq_driver":
            sys.modules["segmentation_and_tracking_quality"] = scripts["stq_script"]
        spec = importlib.util.spec_from_file_location(f"published_{name}", clones / place)
        assert spec is not None
        assert spec.loader is not None
        scripts[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(scripts[name])
    return scripts


class SilentBar:
    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return iter(self._items)

    def set_description(self, text: str) -> None:
        del text


def frame_pairs(root: Path) -> tuple[list[list[tuple[Any, ...]]], dict[int, Any]]:
    """Return what the scripts of VPQ want: per clip and frame both entries of the JSON and both pictures."""
    truth = json.loads((root / "truth" / "panoptic_gt_val.json").read_text())
    prediction = json.loads((root / "predictions" / "pred.json").read_text())
    pairs = []
    for true_clip, predicted_clip in zip(truth["annotations"], prediction["annotations"], strict=True):
        folders = root / "truth" / "panomasksRGB", root / "predictions" / "pan_pred"
        pictures = [
            [str(folder / true_clip["video_id"] / entry["file_name"]) for entry in true_clip["annotations"]]
            for folder in folders
        ]
        entries = (true_clip["annotations"], predicted_clip["annotations"])
        pairs.append(list(zip(*entries, *pictures, entries[0], strict=True)))
    return pairs, {category["id"]: category for category in truth["categories"]}


def published_vpq(script: Any, root: Path, k: int) -> dict[str, tuple[float, ...] | None]:
    """PQ, SQ, RQ and number of classes; None where the script divides by zero classes."""
    pairs, categories = frame_pairs(root)
    total = script.PQStat()
    for clip in copy.deepcopy(pairs):
        total += script.vpq_compute_single_core(categories, k, clip)
    found: dict[str, tuple[float, ...] | None] = {}
    for name, chosen in (("all", None), ("things", True), ("stuff", False)):
        try:
            values = total.pq_average(categories, isthing=chosen)[0]
        except ZeroDivisionError:
            found[name] = None
        else:
            found[name] = (*(float(values[part]) for part in ("pq", "sq", "rq")), values["n"])
    return found


def published_stq(script: Any, clips: Clips) -> list[float]:
    quality = script.STQuality(NUM_CLASSES, [i for i, thing in enumerate(IS_THING) if thing], 255, BITS, 2**24)
    for name, clip in clips.items():
        for predicted, numbers, true, true_numbers in zip(*clip.arrays(), strict=True):
            quality.update_state(packed(true, true_numbers), packed(predicted, numbers), name)
    return stq_values(quality.result)


def packed(classes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    is_void = classes >= NUM_CLASSES
    return (np.where(is_void, 255, classes).astype(np.int64) << BITS) + np.where(is_void, 0, numbers)


def published_stq_driver(scripts: Mapping[str, Any], root: Path) -> list[float]:
    """Run VIPSeg's driver, which prints its result, and read the result before it is printed."""
    results: list[dict[str, Any]] = []

    class Recorded(scripts["stq_script"].STQuality):  # type: ignore[misc]
        def result(self) -> dict[str, Any]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results.append(super().result())
            return results[-1]

    driver, before = scripts["stq_driver"], sys.argv
    driver.numpy_stq = types.SimpleNamespace(STQuality=Recorded)
    truth = root / "truth"
    sys.argv = ["driver", "-i", str(root / "predictions"), "--truth_dir", str(truth / "panomasksRGB"),
                "--pan_gt_json_file", str(truth / "panoptic_gt_val.json")]  # fmt: skip
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            driver.main()
    finally:
        sys.argv = before
    return stq_values(lambda: results[-1])


def stq_values(result: Callable[[], Mapping[str, Any]]) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = result()
    return [float(values[name]) for name in ("STQ", "AQ", "IoU")]


# --- side by side ----------------------------------------------------------------------------------------------------


def write_clips(root: Path, clips: Clips, space: LabelSpace) -> None:
    """Write truth and predictions in the COCO form."""
    for side, name, planes in (("truth", "val", slice(2, 4)), ("predictions", None, slice(0, 2))):
        writer = PanopticWriter(root / side, space, name)
        for video, clip in clips.items():
            for t, pair in enumerate(zip(*clip.arrays()[planes], strict=True)):
                writer.write(video, f"{t:08d}", PanopticMap(*pair))
        writer.finish()


def score_all(scripts: Mapping[str, Any], clips: Clips) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), clips, find_label_space("vipseg"))
        found: dict[str, Any] = {}
        for name, protocol in VPQ_PROTOCOLS.items():
            found[name] = {str(k): published_vpq(scripts[protocol], Path(folder), k) for k in VPQ_WINDOWS}
        again = {str(k): published_vpq(scripts["dvis"], Path(folder), k) for k in VPQ_WINDOWS}
        assert again == found["vpq_vipseg"], "DVIS_Plus gives other values than VIPSeg"
        for name in ("stq_script", "stq_deeplab2"):
            found[name] = published_stq(scripts[name], clips)
        found["stq_vipseg"] = published_stq_driver(scripts, Path(folder))
    return found


def largest_differences(clips: Clips, published: Mapping[str, Any]) -> dict[str, float]:
    metrics = PanopticMetrics(NUM_CLASSES, IS_THING)
    for name, clip in clips.items():
        metrics.update(*clip.arrays(), clip=name)
    differences: dict[str, float] = {}
    for name, protocol in VPQ_PROTOCOLS.items():
        scores = metrics.compute(protocol)
        differences[name] = max(
            abs(own - theirs)
            for k, parts in published[name].items()
            for part, values in parts.items()
            if values is not None
            for quality in [getattr(scores.vpq[int(k)], part)]
            for own, theirs in zip((quality.pq, quality.sq, quality.rq, quality.classes), values, strict=True)
        )
    for name, protocol in STQ_PROTOCOLS.items():
        scores = metrics.compute(protocol)
        pairs = zip((scores.stq, scores.aq, scores.sq), published[name], strict=True)
        differences[name] = max(abs(own - theirs) for own, theirs in pairs)
    return differences


def compare_speed(scripts: Mapping[str, Any], num_frames: int) -> None:
    """CPU time per frame of 480 x 853, a rendered clip against itself one frame late."""
    clip = render_clip(VALIDATION_SEEDS[0], num_frames, (480, 853))
    things = np.array(find_things(LABEL_SPACE))
    objects = np.where(things[clip.labels], clip.objects, 0).astype(np.int32)
    late = np.maximum(np.arange(num_frames) - 1, 0)
    arrays = MadeUpClip(clip.labels[late], objects[late], clip.labels, objects)
    codes_space = LabelSpace.from_dict({**LABEL_SPACE.to_dict(), "ignore_ids": [0], "classes": [
        {**entry, "id": i + 1} for i, entry in enumerate(LABEL_SPACE.to_dict()["classes"])]})  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_clips(root, {"a": arrays}, LABEL_SPACE)
        for side, planes in (("truth", slice(2, 4)), ("predictions", slice(0, 2))):
            for t, pair in enumerate(zip(*arrays.arrays()[planes], strict=True)):
                write_codes(root / "codes" / side / "a" / f"{t:08d}.png", PanopticMap(*pair), codes_space)
        metrics = PanopticMetrics(LABEL_SPACE.num_classes, things.tolist())
        times = {
            "counting alone (VPQ and STQ)": seconds(lambda: metrics.update(*arrays.arrays(), clip="a")),
            "end to end, COCO form (VPQ and STQ)": seconds(
                lambda: evaluate_panoptic(root / "truth", root / "predictions")
            ),
            "end to end, VIPSeg's code (VPQ and STQ)": seconds(
                lambda: evaluate_panoptic(root / "codes" / "truth", root / "codes" / "predictions", codes_space)
            ),
        }
        for name in ("vipseg", "deva"):
            published = seconds(lambda name=name: [published_vpq(scripts[name], root, k) for k in VPQ_WINDOWS])
            times[f"script of {name} (VPQ alone)"] = published
        for name, spent in times.items():
            print(f"{name:44} {1000 * spent / num_frames:8.2f} ms a frame")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    scripts = load_scripts(arguments.clones)
    sets: dict[str, Clips] = dict(MADE_UP)
    if arguments.data:
        sets["ycbvideo"] = recorded_clips(arguments.data)
    golden = {name: score_all(scripts, clips) for name, clips in sets.items()}
    for name, clips in sets.items():
        worst = largest_differences(clips, golden[name])
        print(f"{name:14} largest difference: {', '.join(f'{key} {value:.1e}' for key, value in worst.items())}")
    if arguments.write:
        arguments.write.write_text(json.dumps({"origin": ORIGIN, "sets": golden}, indent=1) + "\n")
    compare_speed(scripts, arguments.frames)


if __name__ == "__main__":
    main()
