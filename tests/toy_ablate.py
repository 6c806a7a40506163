"""A short rendered clip, swept by many points at once and refined by one point alone, with the bundled weights."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sam2vss.ablate.engine import Engine
from sam2vss.ablate.frame_cache import FrameCache
from sam2vss.ablate.grid import GridFile, Point, expand
from sam2vss.ablate.labels import ClipLabels, LabelKind
from sam2vss.ablate.sweep import ClipSweep, SweptWindow, lowest_floor
from sam2vss.ablate.work import Work
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, render_clip
from sam2vss.demo import RenderedClip
from sam2vss.interfaces import BaseLabelSource
from sam2vss.pipeline import RefinedWindow, VoteRule, refine_clip
from sam2vss.refiner import ArrayLabels
from sam2vss.sam2.finder import MaskFinder
from sam2vss.sam2.savings import Savings
from sam2vss.sam2.tracker import Sam2Tracker
from sam2vss.segmenters import ModelLabels, load_segmenter
from sam2vss.smoothing import find_smoother
from sam2vss.types import Refinement

NUM_FRAMES = 7
SIZE = (96, 128)
SIDE = 128  # of the square that nano sees; a ninth of its own area
BASE: dict[str, Any] = {"window": 3, "points": 4, "pred_iou": 0.4, "stability": 0.6, "stability_offset": 0.6}


def points_of(axes: Mapping[str, Sequence[Any]], **base: Any) -> tuple[Point, ...]:
    """The points of one-at-a-time axes around the small base, which comes first."""
    return expand([("toy", GridFile(base={**BASE, **base}, axes={k: list(v) for k, v in axes.items()}))]).points


@cache
def toy_clip(num_frames: int = NUM_FRAMES) -> RenderedClip:
    return RenderedClip("toy", render_clip(VALIDATION_SEEDS[0], num_frames, SIZE), Path("toy"))


@cache
def toy_engine() -> Engine:
    return Engine.load("nano", "cpu", "float32", (SIDE, SIDE))


@cache
def toy_base() -> ModelLabels:
    return ModelLabels(load_segmenter("segformer-nano", want_probabilities=True))


def holey_base() -> ArrayLabels:
    """The labels of that model, void in a band that moves from frame to frame."""
    labels = toy_base().labels_for("holey", list(toy_clip().frames())).labels.copy()
    for t, frame in enumerate(labels):
        frame[30 + 5 * t : 60 + 5 * t] = LABEL_SPACE.ignore_index
    return ArrayLabels(labels, LABEL_SPACE)


def new_sweep(
    folder: Path, points: Sequence[Point], num_frames: int = NUM_FRAMES, base: BaseLabelSource | None = None
) -> ClipSweep:
    """A sweep of the clip, base labels prepared."""
    clip = toy_clip(num_frames)
    labels = ClipLabels(folder / "labels", clip.name, LABEL_SPACE)
    kinds = {LabelKind(point.smooth, point.filling) for point in points}
    labels.prepare(clip, base or toy_base(), kinds, want_probabilities=base is None)
    found = FrameCache(lowest_floor(points), folder / "candidates", file_bytes=1 << 30)
    return ClipSweep(clip, points, toy_engine(), found, labels, LABEL_SPACE, folder / "tracks")


def finish(sweep: ClipSweep) -> tuple[dict[Point, np.ndarray], dict[Point, Work]]:
    """Refined labels (T, H, W) and the work that a run alone needs, of every point."""
    labels: dict[Point, list[np.ndarray]] = {point: [] for point in sweep.points}
    needed = dict.fromkeys(sweep.points, Work())
    for found in sweep.run():
        if isinstance(found, SweptWindow):
            labels[found.point].append(found.refinement.labels)
            needed[found.point] += found.needed
    return {point: np.concatenate(parts) for point, parts in labels.items()}, needed


def refine_alone(
    point: Point, num_frames: int = NUM_FRAMES, chunk: int = 1, base: BaseLabelSource | None = None
) -> np.ndarray:
    """Refined labels (T, H, W) of a run of one point, by the pipeline and a plain tracker."""
    return np.concatenate([refinement.labels for refinement in windows_alone(point, num_frames, chunk, base)])


def windows_alone(
    point: Point, num_frames: int = NUM_FRAMES, chunk: int = 1, base: BaseLabelSource | None = None
) -> list[Refinement]:
    """Windows of such a run."""
    engine = toy_engine()
    finder = MaskFinder(
        engine.network,
        points=point.points,
        pred_iou=point.pred_iou,
        stability=point.stability,
        stability_offset=point.stability_offset,
        box_nms=point.box_nms,
        min_area=point.min_mask_area,
        crop_layers=point.crop_layers,
    )
    tracker = Sam2Tracker(
        finder,
        point.mode,
        direction=point.direction,
        discover=point.discover,
        match_every=point.match_every,
        knows_clicks_only=True,
        savings=Savings(point.max_masklets, point.drop_contained, point.skip_settled),
        chunk=chunk,
    )
    smoother = None if point.smooth == "none" else find_smoother(point.smooth, LABEL_SPACE.ignore_index)
    rule = VoteRule(**point.votes.model_dump())
    clip = toy_clip(num_frames)
    source = base or toy_base()
    windows = refine_clip(clip.name, clip.frames(), source, tracker, point.window, rule, smoother, point.carry)
    return [window.refinement for window in windows if isinstance(window, RefinedWindow)]
