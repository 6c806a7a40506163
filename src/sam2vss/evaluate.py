"""Scores of predictions in folders against truth in folders.

Walks over the pairs of frames, turns stored numbers into train ids and feeds `VideoSegMetrics`. Nothing is skipped: a
frame without prediction is an error, and everything that was seen but not scored is named in the result's warnings.
How frames find their partners is in `datasets/pairs.py`, how predictions are read in `datasets/predictions.py`; the
counting itself is in `video_counts.py`, tables are in `evaluation_tables.py`.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from .datasets.catalogue import find_dataset
from .datasets.label_forms import find_label_form, step_into
from .datasets.label_maps import LabelMaps, open_panoptic_maps
from .datasets.pairs import pair_frames
from .datasets.predictions import Findings, PredictionForm, find_shift, listed
from .datasets.vipseg import CODE_FOLDER, find_vipseg
from .errors import LabelError, SettingsError
from .metrics import (
    BoundaryReadings,
    ClassScore,
    ClipCounts,
    PairedDifference,
    Scores,
    VideoSegMetrics,
    curve_windows,
    find_protocol,
    paired_bootstraps,
)
from .metrics.boundary import BAND_KERNEL_PX
from .metrics.scores import none_if_undefined
from .types import LabelSpace
from .video_counts import CountingPlan, Progress, count_videos

DEFAULT_WINDOWS: Final = (8, 16)  # the n of the field's mVC8 and mVC16
CURVE_WINDOWS: Final = curve_windows(32)  # ours: up to the paper's window of 32 frames
RESAMPLES: Final = 2000  # ours; that of `metrics.paired_bootstraps`


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a set of videos and how they came about.

    Attributes:
        scores: Over the whole set.
        per_class: In the order of train ids.
        class_names: In the same order.
        per_video: Of every scored video by itself.
        protocol: Name of the protocol.
        warnings: What was seen but not scored, or scored as an error, one sentence each.
        counts: The counts behind the scores by video, e.g. for `paired_bootstrap`.
        curve: mVC_n by n, where the curve was asked for.
        boundary: Which boundary scores were counted.
    """

    scores: Scores
    per_class: tuple[ClassScore, ...]
    class_names: tuple[str, ...]
    per_video: Mapping[str, Scores]
    protocol: str
    warnings: tuple[str, ...] = ()
    counts: Mapping[str, ClipCounts] = field(default_factory=dict, repr=False)
    curve: Mapping[int, float] = field(default_factory=dict)
    boundary: str = "band"

    @property
    def frames(self) -> int:
        return self.scores.frames

    @classmethod
    def from_metrics(
        cls,
        metrics: VideoSegMetrics,
        label_space: LabelSpace,
        protocol: str = "vspw",
        warnings: Sequence[str] = (),
        windows: Sequence[int] | None = None,
    ) -> "Evaluation":
        """Score what a counter has counted.

        Args:
            metrics: The counter.
            label_space: Gives the names of the classes.
            protocol: As for `VideoSegMetrics.compute`.
            warnings: What was noticed on the way.
            windows: The n of mVC_n among the scores; the others of the counter are the curve. Default: all its n.

        Raises:
            SettingsError: If the protocol is unknown.
            LabelError: If counter and label set differ in the number of classes.
        """
        if metrics.num_classes != label_space.num_classes:
            raise LabelError(
                f"counts of {metrics.num_classes} classes do not fit a label set of {label_space.num_classes}"
            )
        scores = metrics.compute(protocol)
        shown = metrics.windows if windows is None else tuple(windows)
        notes = list(warnings)
        if scores.dropped_clips:
            notes.append(f"protocol {protocol} left out {scores.dropped_clips} clips as too short")
        notes += _short_clips(metrics.counts, protocol, shown)
        per_video = {clip: _with_windows(own, shown) for clip, own in metrics.per_clip(protocol).items()}
        notes += _notes_on_void(scores, per_video)
        return cls(
            scores=_with_windows(scores, shown),
            per_class=metrics.per_class(protocol),
            class_names=label_space.names,
            per_video=per_video,
            protocol=protocol,
            warnings=tuple(notes),
            counts=metrics.counts,
            curve={n: scores.vc[n] for n in CURVE_WINDOWS} if set(CURVE_WINDOWS) <= set(metrics.windows) else {},
            boundary=metrics.boundary,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dump` takes; scores in [0, 1], undefined ones null."""
        names = _distinct_names(self.class_names)
        return {
            "scores": self.scores.as_dict(),
            "per_class": {name: score.as_dict() for name, score in zip(names, self.per_class, strict=True)},
            "per_video": {
                video: {
                    **scores.as_dict(),
                    "frames": scores.frames,
                    "unlabelled_share": none_if_undefined(scores.unlabelled_share),
                }
                for video, scores in self.per_video.items()
            },
            "protocol": self.protocol,
            "frames": self.scores.frames,
            "clips": self.scores.clips,
            "dropped_clips": self.scores.dropped_clips,
            "unlabelled_share": none_if_undefined(self.scores.unlabelled_share),
            "boundary": self.boundary,
            # boundary scores are comparable only at equal kernel and size
            "boundary_kernel_px": BAND_KERNEL_PX,
            "sizes": sorted({clip.size for clip in self.counts.values()}),
            "curve": {str(n): none_if_undefined(value) for n, value in self.curve.items()},
            "warnings": list(self.warnings),
        }


def _notes_on_void(scores: Scores, per_video: Mapping[str, Scores]) -> Iterator[str]:
    """Say how many pixels have no class, and in which clips most."""
    if not scores.unlabelled_share > 0:
        return
    text = f"{100 * scores.unlabelled_share:.2f} % of the labelled pixels have no class (counted as errors)"
    shares = {clip: own.unlabelled_share for clip, own in per_video.items() if own.unlabelled_share > 0}
    worst = sorted(shares, key=lambda clip: -shares[clip])
    if len(per_video) > 1:
        text += f"; most in {listed([f'{clip} ({100 * shares[clip]:.2f} %)' for clip in worst])}"
    yield text


def _short_clips(counts: Mapping[str, ClipCounts], protocol: str, windows: Sequence[int]) -> list[str]:
    """Name the clips without a window of n frames, where others have one: a score that none has is seen undefined."""
    rule = find_protocol(protocol)
    scored = {clip: own.frames for clip, own in counts.items() if own.frames >= rule.min_frames}
    notes = []
    for n in windows:
        needed = n + 1 if rule.drop_last_window else n
        short = [clip for clip, frames in scored.items() if frames < needed]
        if len(short) not in (0, len(scored)):
            what = f"{len(short)} of {len(scored)} clips have fewer than {needed} frames"
            notes.append(f"{what} and add nothing to mVC{n} ({listed(short)})")
    return notes


def evaluate_folders(
    truth: Path,
    predictions: Path,
    label_space: LabelSpace,
    prediction_label_space: LabelSpace | None = None,
    protocol: str = "vspw",
    windows: Sequence[int] = DEFAULT_WINDOWS,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
    *,
    split: str | None = None,
    form: PredictionForm | None = None,
    boundary: BoundaryReadings = "band",
    curve: bool = False,
    workers: int = 1,
) -> Evaluation:
    """Score folders of label PNGs; layouts as in `find_label_folders`, frames matched by video name and file stem.

    If either side is a folder of one video without a name of its own, and both sides have one video, the names need
    not agree.

    Args:
        truth: Folder of the truth; VIPSeg's panoptic codes are turned into classes, see `find_label_form`.
        predictions: Folder of the predictions; of panoptic ones the classes are scored, see `find_label_form`.
        label_space: What the truth's numbers mean.
        prediction_label_space: What the predictions' numbers mean; by default the same. Classes are matched by name
            where it knows all names of `label_space`, else by position.
        protocol: As for `VideoSegMetrics.compute`.
        windows: The n of mVC_n.
        only: Names of the videos to score; default all of the truth.
        progress: Called after every frame (with several workers: video) with frames done, frames in all, and the
            video's name.
        split: Score the videos that the truth's list of this name names: "train", "val" or "test".
        form: How the predictions are stored, where not as the truth is.
        boundary: Which boundary scores to count, as for `VideoSegMetrics`.
        curve: Count mVC_n for n = 2..32 as well.
        workers: Processes that share the videos; the result does not depend on their number. With more than one, a
            script needs the usual `if __name__ == "__main__"`.

    Raises:
        LabelError: If a folder holds no labels, a file cannot be read, the truth holds numbers outside the label
            set, the label sets do not fit, or predicted ids look shifted and `form` does not say by how much.
        MissingPredictionsError: If frames of the truth have no prediction.
        ShapeError: If a prediction has another size than its truth.
        SettingsError: If the protocol, a window, a split or a name in `only` is unknown, or a worker process died.
    """
    if curve and find_protocol(protocol).pools_shorter_windows:
        raise SettingsError(f"protocol {protocol} pools all n that are counted, so it has no curve: drop --curve")
    find_protocol(protocol)  # before minutes of reading
    if workers < 1:
        raise SettingsError(f"--workers must be at least 1, found {workers}")
    form = form or PredictionForm()
    counted = sorted({*windows, *CURVE_WINDOWS}) if curve else windows
    vipseg = find_vipseg(Path(truth))
    is_panoptic = vipseg is not None or _holds_codes(Path(truth), label_space)
    predictions = step_into(Path(predictions))
    maps = _panoptic_maps(predictions, prediction_label_space, label_space, form)
    stored = prediction_label_space or label_space if maps is None else maps.label_space
    plan = CountingPlan(label_space, stored, form, tuple(counted), boundary, is_panoptic, maps)
    metrics = plan.new_metrics()
    reader = plan.new_reader()
    masks = Path(truth) if vipseg is None else vipseg.root / CODE_FOLDER
    found_in = predictions if maps is None else maps.form.folder
    pairs = pair_frames(masks, found_in, _names(Path(truth), split, only), form.missing)
    findings = Findings()
    for state, found in count_videos(plan, pairs, workers, progress):
        video_metrics = plan.new_metrics()
        video_metrics.load_state_dict(state)
        metrics.merge(video_metrics)
        findings.add(found)
    notes = [*pairs.notes, *reader.warnings(findings), *_notes_on_shift(metrics, plan, findings, predictions)]
    return Evaluation.from_metrics(metrics, label_space, protocol, notes, tuple(sorted(set(windows))))


def compare(
    base: Evaluation, other: Evaluation, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, PairedDifference]:
    """Return the other's scores minus the base's, each with its 95 % interval by paired bootstrap over clips.

    Args:
        base: Scores of the first set.
        other: Scores of another set, on the same clips and under the same protocol.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Raises:
        MissingPredictionsError: If the two were not scored on the same clips and frames.
        SettingsError: If they were scored under different protocols, or `resamples` is not positive.
    """
    if base.protocol != other.protocol:
        raise SettingsError(f"scores under {base.protocol} and {other.protocol} cannot be compared: take one protocol")
    theirs = other.scores.as_dict()
    both = [name for name, value in base.scores.as_dict().items() if value is not None and theirs.get(name) is not None]
    return paired_bootstraps(base.counts, other.counts, both, seed, resamples, base.protocol)


def _panoptic_maps(
    predictions: Path, stored: LabelSpace | None, label_space: LabelSpace, form: PredictionForm
) -> LabelMaps | None:
    """Return what reads the predictions where they are panoptic, else None."""
    if form.colors or not predictions.is_dir():
        return None
    return open_panoptic_maps(predictions, stored, form.id_offset, label_space)


def _holds_codes(truth: Path, label_space: LabelSpace) -> bool:
    """Tell whether a truth that does not lie as VIPSeg's does holds its panoptic codes all the same."""
    try:
        return find_label_form(truth, label_space).name == "panoptic codes"
    except LabelError:
        return False  # pictures in colour, which the reader names


def _names(truth: Path, split: str | None, only: Collection[str] | None) -> list[str] | None:
    """Return the videos to score; None for all."""
    if split is None:
        return None if only is None else list(only)
    in_split = find_dataset(truth).videos(split, needs_masks=True)
    strangers = sorted(set(only or ()) - in_split.keys())
    if strangers:
        raise SettingsError(f"{strangers[0]} is not in split {split} of {truth}: name its videos, or drop --split")
    return [video for video in in_split if only is None or video in only]


def _notes_on_shift(
    metrics: VideoSegMetrics, plan: CountingPlan, findings: Findings, predictions: Path
) -> Iterator[str]:
    """Refuse ids that are clearly one off (1-based, or 0-based where the label set starts at 1); note a suspicion."""
    if plan.form.id_offset is not None or plan.form.colors or not plan.new_reader().keeps_order:
        return
    confusion = np.sum([clip.confusion for clip in metrics.counts.values()], axis=0)
    shift = find_shift(confusion)
    if not shift.offset:
        return
    first, last = plan.stored.raw_ids[0], plan.stored.raw_ids[-1]
    beyond = findings.unlabelled_ids.get(last + 1 if shift.offset < 0 else max(first - 1, 0))
    text = (
        f"predictions in {predictions} agree with the truth on {100 * shift.share_as_stored:.1f} % of the pixels as "
        f"they are, and on {100 * shift.share_moved:.1f} % with every id moved by {shift.offset:+d}"
    )
    if beyond is None and shift.classes < 2:
        yield f"{text}: if their ids are shifted, pass --id-offset={shift.offset}"
        return
    start = first - shift.offset
    raise LabelError(
        f"{text}: their ids seem to start at {start} instead of {first}"
        + (f" (first file with an id beyond the classes: {beyond})" if beyond else "")
        + f". Pass --id-offset={shift.offset}, or --id-offset=0 if they are right as they are"
    )


def _with_windows(scores: Scores, windows: Sequence[int]) -> Scores:
    return replace(scores, vc={n: scores.vc[n] for n in windows})


def _distinct_names(names: Sequence[str]) -> list[str]:
    """Make names usable as keys; some label sets (ADE20K) use one name for several classes."""
    repeats = Counter(names)
    return [f"{name} ({i})" if repeats[name] > 1 else name for i, name in enumerate(names)]
