"""Boards as `bench` and `ablate` make them, with made-up numbers, for the tests of everything that shows them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sam2vss.boards.scoreboard import Axis, BoardRow, Picture, Published, RowKind, Scoreboard
from sam2vss.metrics import PairedDifference

CLASSES = ("sky", "road", "building", "tree", "car", "person", "pole", "fence", "traffic light", "bicycle")
CLIPS = tuple(f"clip_{i:02d}" for i in range(6))
STATISTICS = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
BASES = {"cffm-b1": (0.385, 0.6, 0.247, 0.886, 0.841), "segformer-nano": (0.621, 0.8263, 0.3199, 0.9557, 0.9479)}
GAINS: Mapping[tuple[str, RowKind], tuple[float, ...]] = {
    ("static", "control"): (-0.0003, -0.0001, -0.0009, 0.0111, 0.0106),
    ("superpixel", "control"): (0.0295, 0.0204, 0.0783, 0.0038, -0.0009),
    ("SAM2", "refined"): (0.0354, 0.0378, 0.096, 0.0138, 0.0158),
}
PAPER = "arXiv 2512.01774, Table 1"


def difference(statistic: str, gain: float, clips: int = 6) -> PairedDifference:
    """Return a difference with an interval of half a percentage point and a third of the gain to both sides."""
    if clips < 2:
        return PairedDifference(statistic, gain, None, None, clips, 0)
    half = 0.005 + abs(gain) / 3
    return PairedDifference(statistic, gain, gain, (gain - half, gain + half), clips, 2000)


def make_row(name: str, model: str, kind: RowKind, gains: tuple[float, ...], clips: int, seed: int) -> BoardRow:
    rng = np.random.default_rng(seed)
    scores = {score: base + gain for score, base, gain in zip(STATISTICS, BASES[model], gains, strict=True)}
    slope = (scores["mVC16"] - scores["mVC8"]) / 8
    curve = {f"mVC{n}": scores["mVC8"] + slope * (n - 8) for n in (2, 4, 6, 12, 24, 32)}
    per_class = {
        name: {
            "IoU": None if name == "bicycle" else float(np.clip(scores["mIoU"] + spread, 0, 1)),
            "band_IoU": float(np.clip(scores["mBIoU"] + spread, 0, 1)),
            "pixels": 4000 - 300 * i,
        }
        for i, (name, spread) in enumerate(zip(CLASSES, rng.normal(0, 0.08, len(CLASSES)), strict=True))
    }
    per_clip = {
        clip: {"frames": 20 + 5 * i, **{score: (value or 0.0) + spread for score, value in scores.items()}}
        for i, (clip, spread) in enumerate(zip(CLIPS[:clips], rng.normal(0, 0.03, clips), strict=True))
    }
    return BoardRow(
        name=name,
        model=model,
        kind=kind,
        scores={**scores, **curve, "pixel_accuracy": 0.9},
        against=None if kind == "base" else model,
        differences={}
        if kind == "base"
        else {score: difference(score, gain, clips) for score, gain in zip(STATISTICS, gains, strict=True)},
        per_class=per_class,
        per_clip=per_clip,
        settings={"window": 32, "points": 16, "mode": "exact"} if kind == "refined" else {},
        facts={"masklets": 14.6, "coverage": 0.768, "seconds": 0.48} if kind == "refined" else {"seconds": 0.01},
        command=f"sam2vss refine data --labels {model} --out runs/{name}",
    )


def bench_board(clips: int = 6) -> Scoreboard:
    """Two base models with four rows each; the first has published figures. With one clip there is no interval."""
    rows = []
    for number, model in enumerate(BASES):
        rows.append(make_row(model, model, "base", (0.0,) * 5, clips, seed=10 * number))
        for i, ((method, kind), gains) in enumerate(GAINS.items()):
            name = f"{method}-{model}"
            rows.append(make_row(name, model, kind, gains, clips, seed=10 * number + i + 1))
    copied = {
        "cffm-b1": Published(dict(zip(STATISTICS, (0.385, 0.6, 0.247, 0.886, 0.841), strict=True)), PAPER),
        "SAM2-cffm-b1": Published(dict(zip(STATISTICS, (0.403, 0.611, 0.293, 0.894, 0.851), strict=True)), PAPER),
    }
    return Scoreboard(
        title="What SAM 2 adds to two models",
        kind="bench",
        dataset="vspw val",
        protocol="vspw",
        clips=clips,
        frames=sum(20 + 5 * i for i in range(clips)),
        class_names=CLASSES,
        rows=tuple(replace(row, published=copied.get(row.name)) for row in rows),
        statistics=STATISTICS,
        warnings=("cffm-b1: 12 pixels had no class of the label set; they count as errors.",),
        command="sam2vss bench data --labels cffm-b1=preds --segmenter segformer-nano --out bench",
        versions={"sam2vss": "0.1.0", "torch": "2.13.0", "device": "cpu"},
    )


def with_pictures(board: Scoreboard, folder: Path) -> Scoreboard:
    """Write the pictures of a best and a worst clip into the board's folder and name them on the board."""
    pictures = []
    for clip, caption in (("clip_01", "best clip: +6.1 mIoU"), ("clip_04", "worst clip: -1.3 mIoU")):
        panels = {}
        for i, panel in enumerate(("frame", "truth", "base", "SAM2-cffm-b1")):
            path = folder / "pictures" / f"{clip}-{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 36), (60 * i, 120, 200 - 40 * i)).save(path)
            panels[panel] = f"pictures/{path.name}"
        pictures.append(Picture(clip, "00000007", caption, panels))
    return replace(board, pictures=tuple(pictures))


def ablation_board(clips: int = 6) -> Scoreboard:
    """Three axes around one default, which is on all of them: numbers, words and yes or no; and the base labels."""
    base = make_row("base", "segformer-nano", "base", (0.0,) * 5, clips, seed=1)
    default = replace(
        make_row("default", "segformer-nano", "refined", (0.0354, 0.0378, 0.096, 0.0138, 0.0158), clips, seed=2),
        against=None,
        differences={},
    )
    points = {
        "window=1": (-0.001, 0.0, -0.0012, -0.012, -0.0142),
        "window=8": (-0.0011, -0.0002, 0.0, -0.005, -0.0061),
        "window=16": (0.0, 0.0001, 0.0004, -0.0018, -0.0027),
        "overlap=by-share": (0.0012, 0.0004, 0.0031, -0.0001, -0.0002),
        "carry=yes": (-0.0021, -0.0035, 0.0013, 0.0021, 0.0047),
    }
    rows = [base, default]
    for i, (name, changes) in enumerate(points.items()):
        shifts = dict(zip(STATISTICS, changes, strict=True))
        scores = {score: (value or 0.0) + shifts.get(score, changes[-1]) for score, value in default.scores.items()}
        found = {score: difference(score, change, clips) for score, change in shifts.items()}
        rows.append(replace(default, name=name, scores=scores, against="default", differences=found, settings={"i": i}))
    window = ("window=1", "window=8", "window=16", "default")
    return replace(
        bench_board(clips),
        title="Window, overlaps and carrying",
        kind="ablate",
        dataset="synthetic validation",
        rows=tuple(rows),
        axes=(
            Axis("window", (1, 8, 16, 32), window, 32, "Window length (Table 4)"),
            Axis("overlap", ("small-on-top", "by-share"), ("default", "overlap=by-share"), "small-on-top", "Overlaps"),
            Axis("carry", (False, True), ("default", "carry=yes"), False),
        ),
        work={"frames encoded": (184, 1288), "object-frames propagated": (5120, 20160)},
        warnings=(),
        command="sam2vss ablate data --segmenter segformer-nano --out ablate",
    )
