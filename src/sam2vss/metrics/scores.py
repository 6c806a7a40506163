"""From counts to scores: the formulas, and the published protocols that combine them differently.

Every score is a function of sums over clips (`Statistic`), so the same formula serves the table and the bootstrap.
What cannot be defined (no truth, no window long enough) is NaN, never 0 or 1.

Sources: paper Eq. 4-6; VSPW_baseline's scripts (`vspw`); VSS-CFFM's VC_perclip.py (`cffm`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from ..errors import SettingsError
from .confusion import region_sums
from .consistency import CORRECT, LABELLED, MERGED, MERGED_KEPT, STABLE, STABLE_KEPT
from .counts import BAND, BAND_RIGHT, ClipCounts
from .counts import LABELLED as FRAME_LABELLED
from .counts import LABELLED_RIGHT as FRAME_LABELLED_RIGHT

ProtocolName = Literal["vspw", "cffm", "paper", "strict"]


@dataclass(frozen=True)
class Protocol:
    """How one source turns counts into scores.

    Attributes:
        common: Column of the window counts that VC divides by.
        kept: Column of the window counts that VC divides.
        drop_last_window: Whether the last window of every clip is left out (the scripts loop over T-n starts).
        min_frames: Shorter clips are left out of every score.
    """

    common: int
    kept: int
    drop_last_window: bool
    min_frames: int = 1


PROTOCOLS: Final[Mapping[ProtocolName, Protocol]] = {
    "vspw": Protocol(STABLE, STABLE_KEPT, drop_last_window=True),
    "cffm": Protocol(MERGED, MERGED_KEPT, drop_last_window=True, min_frames=17),
    "paper": Protocol(MERGED, MERGED_KEPT, drop_last_window=False),
    "strict": Protocol(LABELLED, CORRECT, drop_last_window=False),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name.

    Raises:
        SettingsError: If there is none.
    """
    for known, protocol in PROTOCOLS.items():
        if known == name:
            return protocol
    raise SettingsError(f"unknown protocol {name!r}; choose one of {', '.join(get_args(ProtocolName))}")


@dataclass(frozen=True)
class Scores:
    """Scores of a set of clips under one protocol; fractions in [0, 1] or NaN.

    Attributes:
        miou: IoU averaged over the classes that occur in the truth, from counts over the whole set.
        wiou: The same IoUs weighted by the classes' share of the truth ("weighted IoU", "FWIoU").
        pixel_accuracy: Correct pixels / labelled pixels.
        class_accuracy: Recall averaged over the classes that occur in the truth.
        mbiou: Headline boundary score: as `miou`, inside the truth's 5 x 5 boundary band only.
        boundary_iou: Class mean over the set of the two-sided Boundary IoU at 2 px.
        mbiou_per_image: Eq. 6 with the band as boundary: intersection over union of all pixels, mean over images.
        mbiou_interior: Eq. 5 as printed: the same over what erosion leaves, i.e. the interior.
        vc: mVC_n by n.
        unlabelled_share: Share of the labelled pixels that got no class of the label set; they count as errors.
        frames: Frames scored.
        clips: Clips scored.
        dropped_clips: Clips that the protocol leaves out.
    """

    miou: float
    wiou: float
    pixel_accuracy: float
    class_accuracy: float
    mbiou: float
    boundary_iou: float
    mbiou_per_image: float
    mbiou_interior: float
    vc: Mapping[int, float]
    unlabelled_share: float
    frames: int
    clips: int
    dropped_clips: int = 0

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by their table names, undefined ones as None (null in JSON)."""
        named = {
            "mIoU": self.miou,
            "wIoU": self.wiou,
            "mBIoU": self.mbiou,
            **{f"mVC{n}": value for n, value in self.vc.items()},
            "pixel_accuracy": self.pixel_accuracy,
            "class_accuracy": self.class_accuracy,
            "boundary_IoU_2px": self.boundary_iou,
            "mBIoU_per_image": self.mbiou_per_image,
            "mBIoU_interior": self.mbiou_interior,
        }
        return {name: none_if_undefined(value) for name, value in named.items()}


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class over a set of clips; NaN where the class does not occur in the truth.

    Attributes:
        iou: Its part of mIoU.
        accuracy: Its part of class accuracy.
        band_iou: Its part of mBIoU.
        boundary_iou: Its part of the two-sided Boundary IoU.
        pixels: Pixels of the class in the truth.
        predicted_pixels: Labelled pixels that were predicted as this class.
    """

    iou: float
    accuracy: float
    band_iou: float
    boundary_iou: float
    pixels: int
    predicted_pixels: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the scores by their table names, undefined ones as None (null in JSON)."""
        return {
            "IoU": none_if_undefined(self.iou),
            "accuracy": none_if_undefined(self.accuracy),
            "band_IoU": none_if_undefined(self.band_iou),
            "boundary_IoU_2px": none_if_undefined(self.boundary_iou),
            "pixels": self.pixels,
            "predicted_pixels": self.predicted_pixels,
        }


def none_if_undefined(value: float) -> float | None:
    """Turn NaN, which JSON does not know, into None."""
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Statistic:
    """A score as a function of sums over clips.

    Attributes:
        summands: What a clip adds, float64 (K,).
        value: Score from such sums (..., K) -> (...); NaN where undefined.
    """

    summands: Callable[[ClipCounts], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray]


def find_statistics(protocol: str, windows: Sequence[int]) -> dict[str, Statistic]:
    """Return every score of `Scores.as_dict` as a statistic, by the same names.

    Raises:
        SettingsError: If the protocol is unknown.
    """
    rule = find_protocol(protocol)
    return {
        "mIoU": Statistic(_confusion_sums, _mean_iou),
        "wIoU": Statistic(_confusion_sums, _weighted_iou),
        "mBIoU": Statistic(lambda clip: clip.band.ravel().astype(np.float64), _mean_iou),
        **{f"mVC{n}": Statistic(_vc_sums(rule, n), _ratio) for n in windows},
        "pixel_accuracy": Statistic(_confusion_sums, _pixel_accuracy),
        "class_accuracy": Statistic(_confusion_sums, _class_accuracy),
        "boundary_IoU_2px": Statistic(lambda clip: clip.boundary.ravel().astype(np.float64), _mean_iou),
        "mBIoU_per_image": Statistic(_band_jaccard_sums, _ratio),
        "mBIoU_interior": Statistic(_interior_jaccard_sums, _ratio),
    }


def select_clips(clips: Sequence[ClipCounts], protocol: str) -> list[ClipCounts]:
    """Return the clips that the protocol scores."""
    rule = find_protocol(protocol)
    return [clip for clip in clips if clip.frames >= rule.min_frames]


def score_clips(clips: Sequence[ClipCounts], protocol: str, num_classes: int, windows: Sequence[int]) -> Scores:
    """Score a set of clips, which may be empty.

    Raises:
        SettingsError: If the protocol is unknown.
    """
    scored = select_clips(clips, protocol)
    summed = [*scored, ClipCounts.empty(num_classes, windows)]
    values = {
        name: float(statistic.value(_add_up([statistic.summands(clip) for clip in summed])))
        for name, statistic in find_statistics(protocol, windows).items()
    }
    confusion = np.sum([clip.confusion for clip in summed], axis=0)
    labelled = int(confusion.sum())
    return Scores(
        miou=values["mIoU"],
        wiou=values["wIoU"],
        pixel_accuracy=values["pixel_accuracy"],
        class_accuracy=values["class_accuracy"],
        mbiou=values["mBIoU"],
        boundary_iou=values["boundary_IoU_2px"],
        mbiou_per_image=values["mBIoU_per_image"],
        mbiou_interior=values["mBIoU_interior"],
        vc={n: values[f"mVC{n}"] for n in windows},
        unlabelled_share=float(confusion[:, -1].sum()) / labelled if labelled else math.nan,
        frames=sum(clip.frames for clip in scored),
        clips=len(scored),
        dropped_clips=len(clips) - len(scored),
    )


def score_classes(clips: Sequence[ClipCounts], protocol: str, num_classes: int) -> tuple[ClassScore, ...]:
    """Score every class over a set of clips, in the order of train ids."""
    summed = [*select_clips(clips, protocol), ClipCounts.empty(num_classes, ())]
    region = np.sum([region_sums_of(clip) for clip in summed], axis=0)
    iou = _class_ious(region.ravel())
    band_iou = _class_ious(np.sum([clip.band for clip in summed], axis=0).ravel())
    boundary_iou = _class_ious(np.sum([clip.boundary for clip in summed], axis=0).ravel())
    accuracy = _divide(region[0].astype(np.float64), region[1])
    return tuple(
        ClassScore(
            iou=float(iou[i]),
            accuracy=float(accuracy[i]),
            band_iou=float(band_iou[i]),
            boundary_iou=float(boundary_iou[i]),
            pixels=int(region[1, i]),
            predicted_pixels=int(region[2, i]),
        )
        for i in range(num_classes)
    )


def region_sums_of(clip: ClipCounts) -> np.ndarray:
    """Return the clip's correct, true and predicted pixels per class, int64 (3, C)."""
    return region_sums(clip.confusion)


def _add_up(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Add with one rounding at the end, so that scores do not depend on the order in which shards were merged."""
    return np.array([math.fsum(column) for column in np.stack(rows, axis=1).tolist()])


def _confusion_sums(clip: ClipCounts) -> np.ndarray:
    return region_sums_of(clip).ravel().astype(np.float64)


def _vc_sums(rule: Protocol, n: int) -> Callable[[ClipCounts], np.ndarray]:
    """All windows of all clips are pooled (VSPW_baseline), so a clip adds its sum of VC and its number of windows."""

    def summands(clip: ClipCounts) -> np.ndarray:
        rows = clip.windows[n][:-1] if rule.drop_last_window else clip.windows[n]
        return _sum_and_number(rows[:, rule.kept], rows[:, rule.common])

    return summands


def _band_jaccard_sums(clip: ClipCounts) -> np.ndarray:
    pixels = clip.frame_pixels
    return _jaccard_sums(pixels[:, BAND], pixels[:, BAND_RIGHT])


def _interior_jaccard_sums(clip: ClipCounts) -> np.ndarray:
    pixels = clip.frame_pixels
    return _jaccard_sums(
        pixels[:, FRAME_LABELLED] - pixels[:, BAND], pixels[:, FRAME_LABELLED_RIGHT] - pixels[:, BAND_RIGHT]
    )


def _jaccard_sums(pixels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum over images of |M and O| / |M or O|, where M and O are sets of (pixel, label) pairs over the same pixels."""
    return _sum_and_number(right, 2 * pixels - right)


def _sum_and_number(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return the sum of the defined ratios and how many are defined (0 / 0 is left out, as by nanmean)."""
    is_defined = denominators > 0
    return np.array([(numerators[is_defined] / denominators[is_defined]).sum(), is_defined.sum()], np.float64)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return _divide(sums[..., 0], sums[..., 1])


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, giving NaN where the denominator is 0."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def _parts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split sums (..., 3 C) into correct, true and predicted pixels, (..., C) each."""
    parts = sums.reshape(*sums.shape[:-1], 3, -1)
    return parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]


def _class_ious(sums: np.ndarray) -> np.ndarray:
    """IoU per class; NaN for classes that are not in the truth, even if they were predicted (VSPW's Evaluator)."""
    both, truth, prediction = _parts(sums)
    return np.where(truth > 0, _divide(both.astype(np.float64), truth + prediction - both), np.nan)


def _class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that have a value; NaN if none has."""
    is_defined = ~np.isnan(values)
    return _divide(np.where(is_defined, values, 0.0).sum(axis=-1), is_defined.sum(axis=-1))


def _mean_iou(sums: np.ndarray) -> np.ndarray:
    return _class_mean(_class_ious(sums))


def _weighted_iou(sums: np.ndarray) -> np.ndarray:
    _, truth, _ = _parts(sums)
    ious = np.nan_to_num(_class_ious(sums))
    return _divide((truth * ious).sum(axis=-1), truth.sum(axis=-1))


def _pixel_accuracy(sums: np.ndarray) -> np.ndarray:
    both, truth, _ = _parts(sums)
    return _divide(both.sum(axis=-1), truth.sum(axis=-1))


def _class_accuracy(sums: np.ndarray) -> np.ndarray:
    both, truth, _ = _parts(sums)
    return _class_mean(_divide(both, truth))
