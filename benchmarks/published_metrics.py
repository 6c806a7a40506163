"""Our scores beside those that the published scripts give for the same label maps.

    python benchmarks/published_metrics.py CLONES [--data DATA_ROOT] [--recipe shifted ...] [--write FILE]

CLONES is a folder with clones of VSPW-dataset/VSPW_baseline, GuoleiSun/VSS-CFFM, Ashesham/TV3S and
zhang-tao-whu/DVIS_Plus under those names. DATA_ROOT is the folder that holds `camvid/`; without it only drawn label
maps are scored. The scripts run as they are, but for the two paths and the n that VSPW_baseline and VSS-CFFM want
edited in their first lines. `--write tests/metrics/golden_scripts.json` stores what the scripts gave as the literals
that the tests compare with, so that those need neither clones nor network.
"""

import argparse
import ast
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from sam2vss.metrics import PROTOCOLS, VideoSegMetrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))

from made_up import (
    GAPPED,
    NUM_CLASSES,
    RECIPES,
    SMALLER_VOID,
    Clips,
    camvid_clips,
    fingerprint,
    pattern_clips,
    predict,
    train_ids,
)

OURS: Final = {"VSPW_baseline": "vspw", "VSS-CFFM": "cffm", "TV3S": "cffm", "DVIS_Plus": "dvis-compat"}
REPOSITORIES: Final = {
    "VSPW_baseline": ("VSPW-dataset/VSPW_baseline", ["VC_perclip.py", "utils.py", "dataset.py"]),
    "VSS-CFFM": ("GuoleiSun/VSS-CFFM", ["VC_perclip.py", "mmseg/core/evaluation/metrics.py"]),
    "TV3S": ("Ashesham/TV3S", ["tools/VC_perclip.py"]),
    "DVIS_Plus": (
        "zhang-tao-whu/DVIS_Plus",
        ["DVIS_Plus/utils/eval_vc_vspw.py", "DVIS_Plus/utils/eval_miou_vspw.py"],
    ),
}


@dataclass(frozen=True)
class ScriptResult:
    """What the scripts of one repository give for one set of predictions.

    Attributes:
        scores: By our names, in [0, 1].
        confusion: int64 (124, 124), truth in rows.
    """

    scores: dict[str, float]
    confusion: np.ndarray


# --- the published side ----------------------------------------------------------------------------------------------


def run_script(path: Path, arguments: list[str], assignments: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Execute a script and return its variables and what it printed.

    Args:
        path: The script.
        arguments: Its command line.
        assignments: Top-level variables to set otherwise: name to the Python text of the value.
    """
    source = path.read_text()
    for name, value in assignments.items():
        source, number = re.subn(rf"(?m)^{name} ?=.*$", lambda _, text=f"{name} = {value}": text, source)
        assert number == 1, f"{path} sets {name} {number} times"
    variables: dict[str, Any] = {"__name__": "published"}
    printed, before = io.StringIO(), sys.argv
    sys.argv = [str(path), *arguments]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 0 / 0 where no pixel is constant
            exec(compile(source, str(path), "exec"), variables)
    finally:
        sys.argv = before
    return variables, printed.getvalue()


def printed_consistency(printed: str) -> dict[str, float]:
    """Read the lines "VC8 score: ..." that all of them end with."""
    return {f"mVC{n}": float(value) for n, value in re.findall(r"VC(\d+) score: (\S+) on", printed)}


def region_scores(accuracy: float, class_accuracy: float, miou: float, wiou: float) -> dict[str, float]:
    values = {"pixel_accuracy": accuracy, "class_accuracy": class_accuracy, "mIoU": miou, "wIoU": wiou}
    return {name: float(value) for name, value in values.items()}


def run_vspw_baseline(clone: Path, truth_root: Path, prediction_root: Path) -> ScriptResult:
    """VC_perclip.py for 8 and for 16; the `Evaluator` of its test.py on labels as its data loader turns them."""
    scores: dict[str, float] = {}
    for n in (8, 16):
        paths = {"DIR": repr(str(truth_root)), "Pred": repr(str(prediction_root)), "clip_num": str(n)}
        scores |= printed_consistency(run_script(clone / "VC_perclip.py", [], paths)[1])
    evaluator = run_script(clone / "utils.py", [], {})[0]["Evaluator"](NUM_CLASSES)
    to_train_ids = take_method(clone / "dataset.py", "segm_transform")
    for video in (truth_root / "val.txt").read_text().split():
        for file in sorted((truth_root / "data" / video / "mask").iterdir()):
            truth = to_train_ids(None, np.array(Image.open(file)))
            prediction = np.array(Image.open(prediction_root / video / file.name)).astype(np.int64)[None]
            evaluator.add_batch(truth.numpy(), prediction)
    return ScriptResult(scores | evaluator_scores(evaluator), evaluator.confusion_matrix.astype(np.int64))


def run_cffm(clone: Path, truth_root: Path, prediction_root: Path) -> ScriptResult:
    paths = {"DIR": repr(str(truth_root)), "Pred": repr(str(prediction_root))}
    variables, printed = run_script(clone / "VC_perclip.py", [], paths)
    return result_of(variables, printed_consistency(printed))


def run_tv3s(clone: Path, truth_root: Path, prediction_root: Path) -> ScriptResult:
    script = clone / "tools" / "VC_perclip.py"
    variables, printed = run_script(script, [str(prediction_root)], {"DIR": repr(str(truth_root))})
    return result_of(variables, printed_consistency(printed))


def run_dvis_plus(clone: Path, truth_root: Path, prediction_root: Path) -> ScriptResult:
    folder, roots = clone / "DVIS_Plus" / "utils", [str(truth_root), str(prediction_root)]
    consistency = printed_consistency(run_script(folder / "eval_vc_vspw.py", roots, {})[1])
    return result_of(run_script(folder / "eval_miou_vspw.py", roots, {})[0], consistency)


RUNNERS: Final = {
    "VSPW_baseline": run_vspw_baseline,
    "VSS-CFFM": run_cffm,
    "TV3S": run_tv3s,
    "DVIS_Plus": run_dvis_plus,
}


def run_tv3s_without(clone: Path, recipe: str, missing: str) -> dict[str, float]:
    """Score drawn clips of which one has no predictions: this script says so in its log and goes on."""
    truth = pattern_clips()
    with tempfile.TemporaryDirectory() as folder:
        truth_root, prediction_root = write_vspw(Path(folder), truth, predict(recipe, truth))
        shutil.rmtree(prediction_root / missing)
        return run_tv3s(clone, truth_root, prediction_root).scores


def run_mmseg(clone: Path, truth: Clips, predictions: Clips) -> dict[str, float]:
    """Score with `mean_iou` of the mmsegmentation in VSS-CFFM, the path that its tools/test.py takes."""
    path = clone / "mmseg" / "core" / "evaluation" / "metrics.py"
    kinds = (ast.FunctionDef, ast.ClassDef)  # the rest imports mmcv
    definitions: list[ast.stmt] = [node for node in ast.parse(path.read_text()).body if isinstance(node, kinds)]
    variables: dict[str, Any] = {"np": types.SimpleNamespace(**vars(np), float=float)}  # np.float was dropped long ago
    exec(compile(ast.Module(definitions, []), str(path), "exec"), variables)
    true_maps = [frame for frames in truth.values() for frame in train_ids(frames)]
    predicted_maps = [frame for name in truth for frame in predictions[name]]
    for frame in true_maps:
        frame[frame == SMALLER_VOID] = 255
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0 / 0 for classes that do not occur
        accuracy, _, ious = variables["mean_iou"](predicted_maps, true_maps, NUM_CLASSES, ignore_index=255)
    return {"pixel_accuracy": float(accuracy), "mIoU": float(np.nanmean(ious))}


def result_of(variables: Mapping[str, Any], consistency: dict[str, float]) -> ScriptResult:
    """Take the final variables of a script that ends with Acc, Acc_class, mIoU and FWIoU."""
    evaluator = variables["evaluator"] if "evaluator" in variables else variables["eval_"]
    region = region_scores(*(variables[name] for name in ("Acc", "Acc_class", "mIoU", "FWIoU")))
    return ScriptResult(consistency | region, evaluator.confusion_matrix.astype(np.int64))


def evaluator_scores(evaluator: Any) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 0 / 0 for classes without truth
        return region_scores(
            evaluator.Pixel_Accuracy(),
            evaluator.Pixel_Accuracy_Class(),
            evaluator.Mean_Intersection_over_Union(),
            evaluator.Frequency_Weighted_Intersection_over_Union(),
        )


def take_method(path: Path, name: str) -> Any:
    """Define one method of a file that we cannot import as a whole (it wants torchvision)."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    method = next(function for function in functions if function.name == name)
    variables: dict[str, Any] = {"torch": torch, "np": np}
    exec(compile(ast.Module([method], []), str(path), "exec"), variables)
    return variables[name]


def write_vspw(root: Path, truth: Clips, predictions: Clips) -> tuple[Path, Path]:
    """Write clips as the scripts want them and return the roots of truth and predictions."""
    truth_root, prediction_root = root / "truth", root / "predictions"
    for name, frames in truth.items():
        mask_folder, prediction_folder = truth_root / "data" / name / "mask", prediction_root / name
        mask_folder.mkdir(parents=True, exist_ok=True)
        prediction_folder.mkdir(parents=True)
        for t, (truth_frame, prediction_frame) in enumerate(zip(frames, predictions[name], strict=True)):
            Image.fromarray(truth_frame).save(mask_folder / f"{t:08d}.png", compress_level=1)
            Image.fromarray(prediction_frame).save(prediction_folder / f"{t:08d}.png", compress_level=1)
    (truth_root / "val.txt").write_text("".join(f"{name}\n" for name in truth))  # without the last newline they stumble
    return truth_root, prediction_root


# --- both sides ------------------------------------------------------------------------------------------------------


def count(truth: Clips, predictions: Clips) -> VideoSegMetrics:
    metrics = VideoSegMetrics(NUM_CLASSES, other_void_ids=(SMALLER_VOID,))
    for name, frames in truth.items():
        metrics.update(predictions[name], train_ids(frames), clip=name)
    return metrics


def print_rows(label: str, results: Mapping[str, ScriptResult], metrics: VideoSegMetrics) -> float:
    """Print script, ours and difference of every score; return the largest difference."""
    largest = 0.0
    for repository, result in results.items():
        protocol = OURS[repository]
        if protocol not in PROTOCOLS:
            print(f"{label:30s} {repository:14s} our protocol {protocol} does not exist")
            continue
        ours = metrics.compute(protocol).as_dict()
        for name, theirs in result.scores.items():
            difference = abs(theirs - (ours[name] or 0.0))
            largest = max(largest, difference)
            print(f"{label:30s} {repository:14s} {name:15s} {theirs:.12f} {ours[name]:.12f} {difference:.1e}")
    return largest


def as_cells(confusion: np.ndarray) -> list[list[int]]:
    """Turn a confusion matrix into [truth, prediction, pixels] of its filled cells."""
    return [[int(g), int(p), int(confusion[g, p])] for g, p in np.argwhere(confusion)]


def commit_of(clone: Path) -> str:
    found = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()

    data = {"pattern": pattern_clips()} | ({"camvid": camvid_clips(options.data)} if options.data else {})
    golden: dict[str, Any] = {
        "origins": {
            name: {"repository": repository, "commit": commit_of(options.clones / name), "files": files}
            for name, (repository, files) in REPOSITORIES.items()
        },
        "inputs": {},
        "scores": {},
        "confusion": {},
        "mmseg": {},
    }
    largest = 0.0
    for source, truth in data.items():
        for recipe in options.recipe:
            predictions = predict(recipe, truth)
            with tempfile.TemporaryDirectory() as folder:
                roots = write_vspw(Path(folder), truth, predictions)
                results = {name: run(options.clones / name, *roots) for name, run in RUNNERS.items()}
            label = f"{source}/{recipe}"
            difference = print_rows(label, results, count(truth, predictions))
            largest = max(largest, 0.0 if recipe in GAPPED else difference)
            golden["inputs"][label] = [fingerprint(truth), fingerprint(predictions)]
            golden["scores"][label] = {name: result.scores for name, result in results.items()}
            golden["confusion"][label] = {
                "all clips": as_cells(results["VSPW_baseline"].confusion),
                "clips over 16 frames": as_cells(results["VSS-CFFM"].confusion),
            }
            golden["mmseg"][label] = run_mmseg(options.clones / "VSS-CFFM", truth, predictions)
            # the other two count the same cells, unless a script of theirs changes
            assert np.array_equal(results["TV3S"].confusion, results["VSS-CFFM"].confusion)
            assert np.array_equal(results["DVIS_Plus"].confusion, results["VSPW_baseline"].confusion)
    golden["without shapes_20"] = run_tv3s_without(options.clones / "TV3S", "shifted", "shapes_20")
    print(f"largest difference, recipes with gaps left out: {largest:.1e}")
    if options.write:
        text = json.dumps(golden, indent=1)
        options.write.write_text(re.sub(r"\[\s+([\d\s,]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n")


if __name__ == "__main__":
    main()
