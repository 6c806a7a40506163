"""Small run folders to report on, and what stands on their pages."""

import base64
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam2vss.files import safe_name
from sam2vss.report import write_report

HOSTILE = "<!--<script></script ><img src=x onerror=alert(1)>\"'&{{title}}"
# Raw ids 1..3 and void 0, as in VSPW; two classes share a colour.
LABEL_SET = {
    "name": "three",
    "ignore_ids": [0],
    "classes": [
        {"id": 1, "name": "sky", "color": [10, 20, 30]},
        {"id": 2, "name": "road", "color": [200, 100, 50]},
        {"id": 3, "name": "<b>car</b>", "color": [200, 100, 50]},
    ],
}


def save_labels(path: Path, raw: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(raw).save(path)


def make_run(
    run_dir: Path,
    num_frames: int = 4,
    clips: Sequence[str] = ("street",),
    folders: Sequence[str] = ("labels", "base"),
    preview_step: int = 1,
    raw: np.ndarray | None = None,
    **info: Any,
) -> Path:
    """Write a finished run with windows of three frames; map i is `raw` with 1 + i % 3 in its first pixel."""
    raw = np.array([[1, 2, 3], [0, 2, 2]], np.uint8) if raw is None else raw
    run_dir.mkdir(parents=True, exist_ok=True)
    lines = []
    for clip in clips:
        for i in range(num_frames):
            labels = raw.copy()
            labels[0, 0] = 1 + i % 3
            for folder in folders:
                save_labels(run_dir / folder / safe_name(clip) / f"{i:04d}.png", labels)
            if preview_step and i % preview_step == 0:
                picture = run_dir / "preview" / safe_name(clip) / f"{i:04d}.jpg"
                picture.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", raw.shape[::-1], (i, 0, 0)).save(picture)
        for start in range(0, num_frames, 3):
            indices = range(start, min(start + 3, num_frames))
            lines.append(
                {
                    "video": clip,
                    "start": start,
                    "length": len(indices),
                    "frames": [f"{i:04d}" for i in indices],
                    "coverage": [0.5] * len(indices),
                    "changed": [0.25] * len(indices),
                    "flip_base": [None if i == 0 else 0.2 for i in indices],
                    "flip_refined": [None if i == 0 else 0.1 for i in indices],
                    "num_masklets": 1,
                    "masklets": [{"id": 7, "class": 1, "vote_share": 0.75, "predicted_iou": 0.9}],
                }
            )
    stages = ("expected", "decoded", "refined", "written")
    counts = {f"frames_{stage}": num_frames for stage in stages}
    run_info = {
        "format_version": 1,
        "package": "sam2vss",
        "status": "done",
        "label_set": LABEL_SET,
        "settings": {"segmenter": "stored", "sam2": "nano", "masklets": {"window": 3}},
        "versions": {"sam2vss": "1.2.3"},
        "stage_seconds": {"labels": 1.0, "track": 3.0},
        "clips": [{"name": clip, "source": "in.mp4", **counts} for clip in clips],
        **info,
    }
    (run_dir / "run.json").write_text(json.dumps(run_info))
    (run_dir / "windows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run_dir


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def page_of(run_dir: Path, **options: Any) -> str:
    return write_report(run_dir, **options).read_text(encoding="utf-8")


def block(page: str, element_id: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{element_id}">(.*?)</script>', page, re.DOTALL)
    assert found, f"no block {element_id}"
    return json.loads(found[1])


def pixels(uri: str) -> Image.Image:
    head, body = uri.split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(body)))


class PageParser(HTMLParser):
    """Collects tags with attributes, the visible text, and checks that elements close in order."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


def text_of(run_dir: Path, **options: Any) -> str:
    return PageParser(page_of(run_dir, **options)).text
