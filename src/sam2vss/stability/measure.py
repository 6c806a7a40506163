"""Walks over stored labels and pictures and counts how steady the labels are."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from ..artifacts import RunFolder
from ..datasets.folders import LabelFolders, natural_key
from ..errors import MissingPredictionsError, ShapeError
from ..files import safe_name
from ..images import read_label_map
from ..masklet_files import read_masklets
from ..media import ClipSource
from ..metrics import PairedDifference
from ..metrics.stability import StabilityMetrics
from ..metrics.stability_scores import stability_bootstrap
from ..metrics.switches import SwitchCounter, SwitchCounts, switch_bootstrap
from ..metrics.warping import is_seen_in_both
from ..voting import count_frame_votes
from .flows import DIS, FlowMethod
from .frames import find_frames, labelled_frames
from .results import SetStability, Stability
from .sets import LabelReader, LabelSet, compared_with, line_up, listed

COMPARED: Final = ("flip_rate", "flow_consistency", "flow_agreement")  # scores whose differences are shown
COMPARED_SWITCHES: Final = ("switch_rate", "switching_masklets")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class _Step:
    """A labelled frame, and how its pixels came there.

    Attributes:
        name: Name of its label maps.
        size: (H, W) of the picture, None where there is none.
        flow: From the labelled frame before to this one, floats (H, W, 2).
        is_seen: Pixels of the frame before that can be seen in this one, bool (H, W).
    """

    name: str
    size: tuple[int, int] | None = None
    flow: np.ndarray | None = None
    is_seen: np.ndarray | None = None


def measure_stability(
    sets: Sequence[LabelSet],
    frames: Path | str | None = None,
    flow: FlowMethod | None = DIS,
    checks_occlusion: bool = True,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Stability:
    """Score sets of labels of the same clips without ground truth.

    Flow is found once for all sets. Base labels of several runs that are the same, pixel by pixel, are one row.

    Args:
        sets: From `find_label_sets`; at least one.
        frames: Where the pictures are; by default those that the first run among the sets was made of.
        flow: What finds optical flow; None leaves out all that depends on it, and needs no pictures.
        checks_occlusion: Leave out pixels that are hidden in the next frame (flow there and back must agree). Finds
            flow twice.
        only: Names of the clips to score; None scores all.
        progress: Called after every frame with frames done, frames in all, and the clip's name.

    Raises:
        SettingsError: If pictures are needed and nobody says where they are, or `only` names unknown clips.
        MissingPredictionsError: If the sets do not cover the same frames.
        LabelError: If label maps cannot be read, or the sets differ in their classes.
        ShapeError: If label maps and pictures differ in size.
        MediaError: If pictures or saved masklets cannot be read.
    """
    sets = line_up(sets, only)
    clips = {} if flow is None else find_frames(sets, frames)
    warnings = _notes_on_short_clips(sets[0].files)
    readers = [LabelReader(one.label_space, one.maps) for one in sets]
    counters = [StabilityMetrics(one.label_space.num_classes, flow.name if flow else "") for one in sets]
    twins = _first_twins(sets)
    done, total = 0, sum(len(names) for names in sets[0].files.values())
    for clip, names in sets[0].files.items():
        steps = (
            (_Step(name) for name in sorted(names, key=natural_key))
            if flow is None
            else _flow_steps(clip, clips[clip], list(names), flow, checks_occlusion, warnings)
        )
        for step in steps:
            maps: list[np.ndarray] = []
            for one, reader, counter in zip(sets, readers, counters, strict=True):
                path = one.files[clip][step.name]
                labels = reader.read(path)
                _check_size(path, labels, step.size)
                counter.update(labels, step.flow, step.is_seen, clip)
                maps.append(labels)
            twins = {number: twin for number, twin in twins.items() if np.array_equal(maps[number], maps[twin])}
            done += 1
            if progress:
                progress(done, total, clip)
    for reader in readers:
        warnings += [note for note in reader.warnings() if note not in warnings]
    gathered = [_gather(one, counter, warnings) for one, counter in zip(sets, counters, strict=True)]
    found = []
    for number, partner in enumerate(compared_with(sets)):
        if number in twins:
            continue
        scored = gathered[number]
        if partner is not None:
            has_same_masklets = sets[number].run is not None and sets[number].run == sets[partner].run
            shown = gathered[twins.get(partner, partner)].name
            scored = _with_differences(scored, gathered[partner], shown, has_same_masklets)
        found.append(scored)
    return Stability(tuple(found), flow.name if flow else "", checks_occlusion, tuple(warnings))


def _notes_on_short_clips(files: LabelFolders) -> list[str]:
    single = [clip for clip, names in files.items() if len(names) == 1]
    if not single:
        return []
    return [f"{len(single)} of {len(files)} clips have one frame, which says nothing of steadiness ({listed(single)})"]


def _first_twins(sets: Sequence[LabelSet]) -> dict[int, int]:
    """Return, for all base labels of runs but the first, the number of the first: they may turn out to be the same."""
    bases = [number for number, one in enumerate(sets) if one.run is not None and not one.is_refined]
    return {number: bases[0] for number in bases[1:]}


def _flow_steps(
    clip: str, source: ClipSource, names: list[str], flow: FlowMethod, checks_occlusion: bool, warnings: list[str]
) -> Iterator[_Step]:
    """Yield the labelled frames of a clip with the flow that leads to them, two pictures in memory at a time."""
    last: np.ndarray | None = None
    for name, frame in labelled_frames(clip, source, names, warnings):
        image = frame.image
        step = _Step(name, (image.shape[0], image.shape[1]))
        if last is not None:
            there = flow.find(last, image)
            back = flow.find(image, last) if checks_occlusion else None
            step = replace(step, flow=there, is_seen=None if back is None else is_seen_in_both(there, back))
        yield step
        last = image


def _check_size(path: Path, labels: np.ndarray, size: tuple[int, int] | None) -> None:
    if size is not None and labels.shape != size:
        raise ShapeError(
            f"{path} is {labels.shape[0]} x {labels.shape[1]} (height x width), its picture is {size[0]} x {size[1]}: "
            "pass --frames with pictures of the size of the labels, or --flow none for flips alone"
        )


def _gather(one: LabelSet, counter: StabilityMetrics, warnings: list[str]) -> SetStability:
    run = None if one.run is None else RunFolder.open(one.run)
    return SetStability(
        name=one.name,
        scores=counter.compute(),
        per_video=counter.per_clip(),
        per_class=counter.per_class(),
        class_names=one.label_space.names,
        counts=counter.counts,
        coverage=None
        if run is None or not one.is_refined
        else _mean_coverage(run, [one.own_name(clip) for clip in one.files]),
        switches=None if run is None else _count_switches(run, one, warnings),
    )


def _mean_coverage(run: RunFolder, clips: Sequence[str]) -> float | None:
    shares = [share for clip in clips for window in run.finished_windows(clip) for share in window.coverage]
    return float(np.mean(shares)) if shares else None


def _count_switches(run: RunFolder, one: LabelSet, warnings: list[str]) -> dict[str, SwitchCounts] | None:
    """Count label switches under the masklets that a run saved, by clip; None where it has or saved none."""
    windows = [window for clip in one.files for window in run.finished_windows(one.own_name(clip))]
    if not any(window.num_masklets for window in windows):
        return None
    if not run.info.get("has_masklets"):
        note = f"{run.path} kept no masklets, so label switches are not counted: refine with --save-masklets"
        if note not in warnings:
            warnings.append(note)
        return None
    found = {}
    for clip in one.files:
        counter = SwitchCounter()
        own_name = one.own_name(clip)
        for record in run.finished_windows(own_name):
            masklets = read_masklets(run.masklets_path(own_name, record.start))
            names = [safe_name(name) for name in record.frames]
            gone = [name for name in names if name not in one.files[clip]]
            if gone:
                raise MissingPredictionsError(
                    f"{run.path} lists frame {gone[0]} of {clip}, and its label map is gone: go on with --resume, or "
                    "refine again"
                )
            files = [one.files[clip][name] for name in names]
            labels = np.stack([read_label_map(file, one.label_space, masklets.size) for file in files])
            counter.update(count_frame_votes(masklets, labels, one.label_space), masklets.ids)
        found[clip] = counter.counts()
    return found


def _with_differences(one: SetStability, other: SetStability, name: str, has_same_masklets: bool) -> SetStability:
    """Add the differences against another set, shown as `name`; those of switches under the same masklets only."""
    differences: dict[str, PairedDifference] = {}
    flow_name = one.scores.flow_name
    for statistic in COMPARED if flow_name else COMPARED[:1]:
        named = statistic if statistic == "flip_rate" else f"{statistic}_{flow_name}"
        differences[named] = replace(stability_bootstrap(other.counts, one.counts, statistic), statistic=named)
    if has_same_masklets and one.switches is not None and other.switches is not None:
        differences |= {key: switch_bootstrap(other.switches, one.switches, key) for key in COMPARED_SWITCHES}
    return replace(one, against=name, differences=differences)
