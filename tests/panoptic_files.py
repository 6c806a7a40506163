"""Writers of panoptic predictions as other people's programs leave them, for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2vss.types import LabelSpace, voc_palette

# ids 1..3 and void 0, as VSPW and VIPSeg number their classes
SPACE = LabelSpace(
    ("road", "cat", "dog"),
    voc_palette(4)[1:],
    raw_ids=(1, 2, 3),
    raw_void=(0,),
    kinds=("stuff", "thing", "thing"),
    name="pets",
)
VOID = 255


def segments_of(labels: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One segment a class of train ids (H, W): segment ids 300 + class, void 0, and their list by category 0..C-1."""
    ids = np.where(labels == VOID, 0, labels.astype(np.int64) + 300)
    listed = [
        {"id": int(i), "category_id": int(i) - 300, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": int((ids == i).sum())}
        for i in np.unique(ids[ids > 0])
    ]
    return ids, listed


def write_dvis(root: Path, videos: Mapping[str, Mapping[str, np.ndarray]], mode: str = "RGB") -> Path:
    """pred.json and pan_pred as vps_eval.py of DVIS, DVIS++, CAVIS and VidEoMT writes them; `file_name` keeps .jpg."""
    annotations = []
    for video, frames in videos.items():
        (root / "pan_pred" / video).mkdir(parents=True, exist_ok=True)
        entries = []
        for frame, labels in frames.items():
            ids, listed = segments_of(labels)
            if mode == "RGB":
                picture = Image.fromarray(np.stack([ids & 255, ids >> 8, ids >> 16], -1).astype(np.uint8))
            else:
                picture = grey(np.where(ids > 0, ids - 299, 0), mode)
                for entry in listed:
                    entry["id"] -= 299
            picture.save(root / "pan_pred" / video / f"{frame}.png")
            entries.append({"segments_info": listed, "file_name": f"{frame}.jpg"})
        annotations.append({"annotations": entries, "video_id": video})
    (root / "pred.json").write_text(json.dumps({"annotations": annotations}))
    return root


def write_deva(folder: Path, frames: Mapping[str, np.ndarray], kinds: Sequence[str] = SPACE.kinds) -> Path:
    """A JSON list beside a palette picture, as DEVA reads detections; every other list has scores."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (frame, labels) in enumerate(frames.items()):
        ids = np.where(labels == VOID, 0, labels.astype(np.int64) + 1)
        grey(ids, "P").save(folder / f"{frame}.png")
        listed: list[dict[str, Any]] = [
            {"id": i, "isthing": kinds[i - 1] == "thing", "category_id": i - 1}
            for i in np.unique(ids[ids > 0]).tolist()
        ]
        if number % 2:
            listed = [{**entry, "score": 0.5} for entry in listed]
        (folder / f"{frame}.json").write_text(json.dumps(listed, indent=4))
    return folder


def grey(ids: np.ndarray, mode: str) -> Image.Image:
    """A picture of numbers: P with a colourful palette, L or I;16."""
    image = Image.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette(bytes((37 * i + 120) % 256 for i in range(768)))
    assert image.mode == mode
    return image


def write_ids(folder: Path, frames: Mapping[str, np.ndarray], mode: str = "P") -> Path:
    """Class ids as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, ids in frames.items():
        grey(ids, mode).save(folder / f"{frame}.png")
    return folder
