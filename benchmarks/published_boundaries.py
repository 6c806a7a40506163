"""Our boundary scores beside those that published code gives for the same masks, one class in one frame at a time.

    python benchmarks/published_boundaries.py CLONES [--data DATA_ROOT] [--write FILE]

CLONES is a folder with clones of bowenc0221/boundary-iou-api and davisvideochallenge/davis2017-evaluation under those
names. Only there, in one frame, is the class mean over the set that we score the number that they define. `--write
tests/metrics/golden_boundaries.json` stores what they gave as the literals that the tests compare with.
"""

import argparse
import json
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from published_metrics import commit_of, run_script
from sam2vss.metrics import VideoSegMetrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))

from made_up import BOUNDARY_FRAMES, NUM_CLASSES, SMALLER_VOID, camvid_clips, pattern_clips, predict, train_ids

REPOSITORIES: Final = {
    "boundary-iou-api": ("bowenc0221/boundary-iou-api", ["boundary_iou/utils/boundary_utils.py"]),
    "davis2017-evaluation": ("davisvideochallenge/davis2017-evaluation", ["davis2017/metrics.py"]),
}
Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # truth, prediction, void of one class -> score


def disk(radius: float) -> np.ndarray:
    """What davis2017-evaluation wants of scikit-image, for where that is not installed: pixels within the radius."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def published_scores(clones: Path) -> dict[str, Score]:
    """Return their functions by our names of the scores."""
    boundary_file = clones / "boundary-iou-api" / "boundary_iou" / "utils" / "boundary_utils.py"
    mask_to_boundary = run_script(boundary_file, [], {})[0]["mask_to_boundary"]
    if "skimage" not in sys.modules:
        sys.modules["skimage"], stand_in = types.ModuleType("skimage"), types.ModuleType("skimage.morphology")
        sys.modules["skimage.morphology"] = stand_in
        stand_in.disk = disk  # type: ignore[attr-defined]
    db_eval_boundary = run_script(clones / "davis2017-evaluation" / "davis2017" / "metrics.py", [], {})[0][
        "db_eval_boundary"
    ]

    def boundary_iou(truth: np.ndarray, prediction: np.ndarray, void: np.ndarray, ratio: float) -> float:
        """As in the paper; the prediction has no class where the truth is void, which their API knows nothing of."""
        masks = (truth, prediction & ~void)
        edges = [mask_to_boundary(mask.astype(np.uint8), ratio).astype(bool) for mask in masks]
        return float((edges[0] & edges[1]).sum() / (edges[0] | edges[1]).sum())

    return {
        "boundary_IoU_2px": lambda t, p, v: boundary_iou(t, p, v, 2 / math.hypot(*t.shape)),
        "boundary_IoU_2pct": lambda t, p, v: boundary_iou(t, p, v, 0.02),
        "boundary_F": lambda t, p, v: float(db_eval_boundary(t, p, v)),
    }


def score_frame(truth: np.ndarray, prediction: np.ndarray, scores: dict[str, Score]) -> dict[str, dict[str, float]]:
    """Score every class of a frame by itself: id -> score name -> score."""
    void = truth >= NUM_CLASSES
    return {
        str(c): {name: score(truth == c, prediction == c, void) for name, score in scores.items()}
        for c in np.unique(truth[~void])
    }


def print_rows(label: str, theirs: dict[str, dict[str, float]], truth: np.ndarray, prediction: np.ndarray) -> float:
    """Print published, ours and difference; return the largest difference."""
    metrics = VideoSegMetrics(NUM_CLASSES, other_void_ids=(SMALLER_VOID,), boundary="full")
    metrics.update(prediction, truth)
    largest = 0.0
    for c, published in theirs.items():
        ours = metrics.per_class()[int(c)].as_dict()
        for name, score in published.items():
            value = ours[name]
            if value is None:
                print(f"{label:28s} class {c:3s} {name:18s} {score:.12f} undefined: the truth has no contour")
                continue
            largest = max(largest, abs(score - value))
            print(f"{label:28s} class {c:3s} {name:18s} {score:.12f} {value:.12f} {abs(score - value):.1e}")
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clones", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()

    clips = pattern_clips() | (camvid_clips(options.data) if options.data else {})
    scores = published_scores(options.clones)
    golden: dict[str, Any] = {
        "origins": {
            name: {"repository": repository, "commit": commit_of(options.clones / name), "files": files}
            for name, (repository, files) in REPOSITORIES.items()
        },
        "scores": {},
    }
    largest = 0.0
    for clip, recipe, t in BOUNDARY_FRAMES:
        if clip in clips:
            truth = train_ids(clips[clip])[t]
            prediction = predict(recipe, {clip: clips[clip]})[clip][t]
            label = f"{clip}/{recipe}/{t}"
            golden["scores"][label] = score_frame(truth, prediction, scores)
            largest = max(largest, print_rows(label, golden["scores"][label], truth, prediction))
    print(f"largest difference: {largest:.1e}")
    if options.write:
        options.write.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
