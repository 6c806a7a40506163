"""A toy data set on the disk, with predictions, and benches of it; two clips of 5 and 7 frames, windows of 4."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import toy
from sam2vss.bench import BenchPlan, plan_bench
from sam2vss.settings import MaskletSettings

CLIPS = {"a": 5, "b": 7}
WINDOW = 4


def write_data(root: Path, name: str = "toy", clips: dict[str, int] | None = None, split: str = "val") -> Path:
    """Write clips in VSPW's layout; the name of the label set is that of the data set."""
    clips = CLIPS if clips is None else clips
    for clip, num_frames in clips.items():
        toy.write_toy_frames(root / "data" / clip / "origin", num_frames)
        toy.write_toy_labels(root / "data" / clip / "mask", num_frames)
    (root / "label_set.json").write_text(json.dumps({**toy.CLASSES.to_dict(), "name": name}), encoding="utf-8")
    (root / f"{split}.txt").write_text("\n".join(clips), encoding="utf-8")
    return root


def write_predictions(folder: Path, share: float = 0.3, clips: dict[str, int] | None = None) -> Path:
    """Write noisy labels of the same clips."""
    for clip, num_frames in (CLIPS if clips is None else clips).items():
        toy.write_toy_labels(folder / clip, num_frames, share)
    return folder


def read_clip(folder: Path) -> np.ndarray:
    """Read all label maps of a clip as they are stored, uint8 (T, H, W)."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def toy_plan(tmp_path: Path, rows: Sequence[str] = ("static", "sam2"), **options: Any) -> BenchPlan:
    """Plan a bench of `tmp_path/data` with the predictions of `tmp_path/noisy`; both are written if missing."""
    if not (tmp_path / "data").exists():
        write_data(tmp_path / "data")
    if "labels" not in options and "segmenters" not in options and "compare" not in options:
        if not (tmp_path / "noisy").exists():
            write_predictions(tmp_path / "noisy")
        options["labels"] = {"noisy": tmp_path / "noisy"}
    options = {"windows": (2,), "sam2": "nano", "masklets": MaskletSettings(window=WINDOW), "device": "cpu"} | options
    return plan_bench(tmp_path / "data", tmp_path / "out", rows=rows, **options)


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a board's JSON what differs from run to run."""
    rows = [
        {**row, "facts": {name: value for name, value in row["facts"].items() if name != "seconds"}}
        for row in content["rows"]
    ]
    return {**content, "rows": rows}
