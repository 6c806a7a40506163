"""The clips that a row made best and worst, each by the frame that changed most: picture, truth, base, refined."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ..artifacts import RunFolder
from ..boards.scoreboard import Picture
from ..datasets.predictions import is_matched_by_name
from ..files import atomic_write_bytes
from ..images import read_image, read_label_map
from ..media import ImageClip
from ..overlay import draw_overlay
from ..types import LabelSpace
from .board import ScoredRow
from .plan import BenchPlan
from .recipes import run_folder
from .tasks import BASE

MAX_WIDTH_PX = 480  # ours: four panels side by side on a page, and small files in it


def make_pictures(plan: BenchPlan, rows: Sequence[ScoredRow]) -> tuple[Picture, ...]:
    """Draw the best and the worst clip of every model, by the gain in mIoU of SAM 2's row over the base.

    Where a model has no row of SAM 2 as refiner, its last other row is taken.

    Returns:
        Pictures whose panels lie under `plan.out`.

    Raises:
        Sam2VssError: If a file cannot be read or written.
    """
    pictures: list[Picture] = []
    for model in plan.models:
        own = {row.task.row: row for row in rows if row.model == model}
        if BASE in own and len(own) > 1:
            refined = own["sam2"] if "sam2" in own else list(own.values())[-1]
            pictures += _of_model(plan, own[BASE], refined)
    return tuple(pictures)


def clip_gains(base: ScoredRow, refined: ScoredRow) -> dict[str, float]:
    """Return the gain in mIoU of every clip where both sides have one, worst first."""
    before = base.evaluation.per_video
    gains = {
        clip: scores.miou - before[clip].miou for clip, scores in refined.evaluation.per_video.items() if clip in before
    }
    return dict(sorted(((clip, gain) for clip, gain in gains.items() if not np.isnan(gain)), key=lambda item: item[1]))


def _of_model(plan: BenchPlan, base: ScoredRow, refined: ScoredRow) -> list[Picture]:
    gains = clip_gains(base, refined)
    if not gains:
        return []
    names = list(gains)
    chosen = {"only": names[0]} if len(names) == 1 else {"best": names[-1], "worst": names[0]}
    return [_of_clip(plan, base, refined, which, clip, gains[clip]) for which, clip in chosen.items()]


def _of_clip(plan: BenchPlan, base: ScoredRow, refined: ScoredRow, which: str, clip_name: str, gain: float) -> Picture:
    assert refined.model is not None
    run = RunFolder.open(run_folder(plan, refined.task))
    truth_files = plan.data.truth_files(clip_name)
    frame, changed = _most_changed(run, clip_name, truth_files)
    clip = next(clip for clip in plan.data.clips if clip.name == clip_name)
    image = _frame_image(clip, frame)
    truth = plan.data.read_truth(truth_files[frame])
    before = read_label_map(run.base_path(clip_name, frame), run.label_space)
    after = read_label_map(run.label_path(clip_name, frame), run.label_space)
    colored = in_colors_of(plan.data.label_space, run.label_space)
    panels = {
        "frame": image,
        "truth": draw_overlay(image, truth, plan.data.label_space),
        base.name: draw_overlay(image, before, colored),
        refined.name: draw_overlay(image, after, colored),
    }
    caption = (
        f"{which} clip: {100 * gain:+.2f} mIoU by {refined.name}; its frame with the most changed labels "
        f"({100 * changed:.1f} %)"
    )
    return Picture(clip_name, frame, caption, _write(plan.out, refined.model.name, which, panels))


def in_colors_of(truth: LabelSpace, label_space: LabelSpace) -> LabelSpace:
    """Return a label set with the truth's colours for the classes that are scored as the truth's.

    Classes are matched as for scoring: by name where all of the truth's names are known, else by position.
    """
    if is_matched_by_name(truth, label_space):
        own = dict(zip(label_space.names, label_space.palette, strict=True))
        colors = own | dict(zip(truth.names, truth.palette, strict=True))
        return replace(label_space, palette=np.stack([colors[name] for name in label_space.names]))
    return replace(label_space, palette=truth.palette)


def _most_changed(run: RunFolder, clip: str, truth_files: dict[str, Path]) -> tuple[str, float]:
    """Return the frame, among those with truth, of which most labels changed, the first of equals, and their share."""
    changes = {
        frame: share
        for window in run.finished_windows(clip)
        for frame, share in zip(window.frames, window.changed, strict=True)
        if frame in truth_files
    }
    frame = max(changes, key=lambda name: changes[name])
    return frame, changes[frame]


def _frame_image(clip: ImageClip, frame: str) -> np.ndarray:
    return read_image(next(file for file in clip.files if file.stem == frame))


def _write(out: Path, model: str, which: str, panels: dict[str, np.ndarray]) -> dict[str, str]:
    """Write panels, uint8 RGB, and return their places under `out` by what they show."""
    places = {}
    for number, (shows, panel) in enumerate(panels.items()):
        place = f"pictures/{model}/{which}-{number}.png"
        encoded = cv2.imencode(".png", _shrunk(panel)[..., ::-1])[1]
        atomic_write_bytes(out / place, encoded.tobytes())
        places[shows] = place
    return places


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if width <= MAX_WIDTH_PX:
        return image
    size = (MAX_WIDTH_PX, max(1, round(height * MAX_WIDTH_PX / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
