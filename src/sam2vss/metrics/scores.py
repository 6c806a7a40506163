"""Scores of a set of clips and of its classes, under one protocol."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .confusion import region_sums
from .counts import ClipCounts
from .protocols import find_protocol
from .statistics import (
    Summands,
    band_sums,
    boundary_sums,
    class_boundary_f,
    class_ious,
    confusion_sums,
    contour_sums,
    divide,
    find_statistics,
    wide_boundary_sums,
)


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
        boundary_iou_2pct: The same at 2 % of the image diagonal; NaN unless all boundary readings were counted.
        boundary_f: Class mean of the F of contour precision and recall, from pixels over the whole set, with a
            tolerance of 0.8 % of the diagonal; NaN unless all boundary readings were counted.
        mbiou_per_image: Eq. 6 with the band as boundary: intersection over union of all pixels, mean over images.
        mbiou_interior: Eq. 5 as printed: the same over what erosion leaves, i.e. the interior.
        vc: mVC_n by n.
        vc_mean: Mean of the VC curve; NaN unless the windows are 2, 3, ... without a gap.
        flicker_rate: 1 - mVC_2: how often the prediction changes where the truth does not; NaN unless 2 is a window.
        unlabelled_share: Share of the labelled pixels that got no class of the label set; they count as errors.
        frames: Frames scored.
        clips: Clips scored.
        dropped_clips: Clips that the protocol leaves out.
        protocol_fault: What is wrong with the protocol, a sentence to print with the scores; "" if nothing is.
    """

    miou: float
    wiou: float
    pixel_accuracy: float
    class_accuracy: float
    mbiou: float
    boundary_iou: float
    boundary_iou_2pct: float
    boundary_f: float
    mbiou_per_image: float
    mbiou_interior: float
    vc: Mapping[int, float]
    vc_mean: float
    flicker_rate: float
    unlabelled_share: float
    frames: int
    clips: int
    dropped_clips: int = 0
    protocol_fault: str = ""

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by their table names, undefined ones as None (null in JSON)."""
        named = {
            "mIoU": self.miou,
            "wIoU": self.wiou,
            "mBIoU": self.mbiou,
            **{f"mVC{n}": value for n, value in self.vc.items()},
            "mVC_mean": self.vc_mean,
            "flicker_rate": self.flicker_rate,
            "pixel_accuracy": self.pixel_accuracy,
            "class_accuracy": self.class_accuracy,
            "boundary_IoU_2px": self.boundary_iou,
            "boundary_IoU_2pct": self.boundary_iou_2pct,
            "boundary_F": self.boundary_f,
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
        boundary_iou: Its part of the two-sided Boundary IoU at 2 px.
        boundary_iou_2pct: Its part of the same at 2 % of the diagonal.
        boundary_f: Its part of boundary F.
        pixels: Pixels of the class in the truth.
        predicted_pixels: Labelled pixels that were predicted as this class.
    """

    iou: float
    accuracy: float
    band_iou: float
    boundary_iou: float
    boundary_iou_2pct: float
    boundary_f: float
    pixels: int
    predicted_pixels: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the scores by their table names, undefined ones as None (null in JSON)."""
        return {
            "IoU": none_if_undefined(self.iou),
            "accuracy": none_if_undefined(self.accuracy),
            "band_IoU": none_if_undefined(self.band_iou),
            "boundary_IoU_2px": none_if_undefined(self.boundary_iou),
            "boundary_IoU_2pct": none_if_undefined(self.boundary_iou_2pct),
            "boundary_F": none_if_undefined(self.boundary_f),
            "pixels": self.pixels,
            "predicted_pixels": self.predicted_pixels,
        }


def none_if_undefined(value: float) -> float | None:
    """Turn NaN, which JSON does not know, into None."""
    return None if math.isnan(value) else value


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
    sums: dict[Summands, np.ndarray] = {}  # several scores share theirs
    values = {}
    for name, statistic in find_statistics(protocol, windows).items():
        if statistic.summands not in sums:
            sums[statistic.summands] = _add_up([statistic.summands(clip) for clip in summed])
        values[name] = _one_nan(statistic.value(sums[statistic.summands]))
    confusion = np.sum([clip.confusion for clip in summed], axis=0)
    labelled = int(confusion.sum())
    return Scores(
        miou=values["mIoU"],
        wiou=values["wIoU"],
        pixel_accuracy=values["pixel_accuracy"],
        class_accuracy=values["class_accuracy"],
        mbiou=values["mBIoU"],
        boundary_iou=values["boundary_IoU_2px"],
        boundary_iou_2pct=values["boundary_IoU_2pct"],
        boundary_f=values["boundary_F"],
        mbiou_per_image=values["mBIoU_per_image"],
        mbiou_interior=values["mBIoU_interior"],
        vc={n: values[f"mVC{n}"] for n in windows},
        vc_mean=values["mVC_mean"],
        flicker_rate=values["flicker_rate"],
        unlabelled_share=float(confusion[:, -1].sum()) / labelled if labelled else math.nan,
        frames=sum(clip.frames for clip in scored),
        clips=len(scored),
        dropped_clips=len(clips) - len(scored),
        protocol_fault=find_protocol(protocol).fault,
    )


def score_classes(clips: Sequence[ClipCounts], protocol: str, num_classes: int) -> tuple[ClassScore, ...]:
    """Score every class over a set of clips, in the order of train ids."""
    summed = [*select_clips(clips, protocol), ClipCounts.empty(num_classes, ())]

    def total(summands: Summands) -> np.ndarray:
        return _add_up([summands(clip) for clip in summed])

    region = np.sum([region_sums(clip.confusion) for clip in summed], axis=0)
    iou, band_iou = class_ious(total(confusion_sums)), class_ious(total(band_sums))
    boundary_iou, wide_iou = class_ious(total(boundary_sums)), class_ious(total(wide_boundary_sums))
    boundary_f = class_boundary_f(total(contour_sums))
    accuracy = divide(region[0], region[1])
    return tuple(
        ClassScore(
            iou=_one_nan(iou[i]),
            accuracy=_one_nan(accuracy[i]),
            band_iou=_one_nan(band_iou[i]),
            boundary_iou=_one_nan(boundary_iou[i]),
            boundary_iou_2pct=_one_nan(wide_iou[i]),
            boundary_f=_one_nan(boundary_f[i]),
            pixels=int(region[1, i]),
            predicted_pixels=int(region[2, i]),
        )
        for i in range(num_classes)
    )


def _one_nan(value: np.ndarray) -> float:
    """Return the number, undefined ones as the same NaN object, so that equal scores compare equal."""
    return math.nan if np.isnan(value) else float(value)


def _add_up(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Add with one rounding at the end, so that scores do not depend on the order in which shards were merged."""
    return np.array([math.fsum(column) for column in np.stack(rows, axis=1).tolist()])
