"""From tables of tubes to STQ and VPQ: the formulas, and the scripts in circulation that deviate from them.

STQ = sqrt(AQ x SQ) (Weber et al., "STEP", 2021); VPQ (Kim et al., "Video Panoptic Segmentation", CVPR 2020). What
cannot be defined is NaN. The pixels of a clip decide STQ, the windows of k frames VPQ; both come from `tubes`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np

from ..errors import SettingsError
from .scores import none_if_undefined
from .tubes import PairTable, TubeMatches, find_crowds

PanopticProtocolName = Literal["paper", "deeplab2", "vipseg", "deva"]
VPQ_WINDOWS: Final = (1, 2, 4, 6, 8)  # VIPSeg (Miao et al., CVPR 2022)


@dataclass(frozen=True)
class PanopticProtocol:
    """Where a published script leaves the definitions.

    Attributes:
        void_is_a_class: SQ takes "unlabelled" for one more class, of IoU 0, as soon as a labelled pixel is predicted
            so (deeplab2's numpy script counts every non-empty union, the ignored label's too).
        first_segment_is_crowd: AQ takes the first segment of a clip for a crowd if it is a thing, and no other: the
            driver of VIPSeg numbers segments from 0, and 0 means crowd to deeplab2's script. First is what its data
            lists first: stuff before things, then by class and instance. VPQ is not affected.
        takes_short_clips_whole: A clip of fewer than k frames is one window of VPQ(k); otherwise it has none.
        aq_without_tubes: AQ where the truth has no thing tube.
    """

    void_is_a_class: bool = False
    first_segment_is_crowd: bool = False
    takes_short_clips_whole: bool = False
    aq_without_tubes: float = math.nan


PANOPTIC_PROTOCOLS: Final[Mapping[PanopticProtocolName, PanopticProtocol]] = {
    "paper": PanopticProtocol(),
    "deeplab2": PanopticProtocol(void_is_a_class=True, aq_without_tubes=0.0),
    "vipseg": PanopticProtocol(void_is_a_class=True, first_segment_is_crowd=True, aq_without_tubes=0.0),
    "deva": PanopticProtocol(
        void_is_a_class=True, first_segment_is_crowd=True, takes_short_clips_whole=True, aq_without_tubes=0.0
    ),
}


def find_panoptic_protocol(name: str) -> PanopticProtocol:
    """Return the protocol of that name.

    Raises:
        SettingsError: If there is none.
    """
    for known, protocol in PANOPTIC_PROTOCOLS.items():
        if known == name:
            return protocol
    choices = ", ".join(get_args(PanopticProtocolName))
    raise SettingsError(f"unknown panoptic protocol {name!r}; choose one of {choices}")


@dataclass(frozen=True, eq=False)
class PanopticCounts:
    """What was counted in one clip.

    Attributes:
        frames: Frames counted.
        table: Pixels shared by the tubes of the whole clip.
        first_tube: Index of the first true tube (see `PanopticProtocol`), -1 if all is void.
        matches: Matches of all windows of k frames, by k.
        whole_clip_matches: Matches of the clip as one window, by every k that exceeds its length.
    """

    frames: int
    table: PairTable
    first_tube: int
    matches: Mapping[int, TubeMatches]
    whole_clip_matches: Mapping[int, TubeMatches]


@dataclass(frozen=True)
class PanopticQuality:
    """PQ and its parts, averaged over the classes that occur; fractions or NaN.

    Attributes:
        pq: Mean of IoU sum / (TP + FP / 2 + FN / 2).
        sq: Mean of IoU sum / TP, 0 for classes without a match.
        rq: Mean of TP / (TP + FP / 2 + FN / 2).
        classes: Classes averaged over: those with a tube on either side.
    """

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class WindowQuality:
    """VPQ over windows of k frames: all classes, things alone, stuff alone, and the windows behind it."""

    all: PanopticQuality
    things: PanopticQuality
    stuff: PanopticQuality
    windows: int


@dataclass(frozen=True)
class PanopticClassScore:
    """Scores of one class; NaN where it does not occur.

    Attributes:
        iou: Its part of SQ (of STQ).
        aq: Association quality, averaged over its true tubes.
        tubes: True tubes of a thing class, crowds left out; 0 for stuff.
        pq: PQ by k.
    """

    iou: float
    aq: float
    tubes: int
    pq: Mapping[int, float]

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the scores by their table names, undefined ones as None."""
        named = {"IoU": self.iou, "AQ": self.aq, **{f"VPQ{k}": value for k, value in self.pq.items()}}
        return {**{name: none_if_undefined(value) for name, value in named.items()}, "tubes": self.tubes}


@dataclass(frozen=True)
class PanopticScores:
    """Scores of a set of clips under one protocol; fractions in [0, 1] or NaN.

    Attributes:
        stq: sqrt(aq * sq).
        sq: Segmentation quality: IoU averaged over the classes that occur in truth or prediction.
        aq: Association quality: mean over the true thing tubes of all clips.
        vpq: VPQ by k.
        unlabelled_share: Share of the labelled pixels that were predicted as no class; they count as errors.
        frames: Frames scored.
        clips: Clips scored.
    """

    stq: float
    sq: float
    aq: float
    vpq: Mapping[int, WindowQuality]
    unlabelled_share: float
    frames: int
    clips: int

    @property
    def mean_vpq(self) -> float:
        """Mean of VPQ over all k; NaN if one of them is undefined, e.g. since no clip has k frames."""
        return _mean([quality.all.pq for quality in self.vpq.values()])

    @property
    def mean_vpq_things(self) -> float:
        return _mean([quality.things.pq for quality in self.vpq.values()])

    @property
    def mean_vpq_stuff(self) -> float:
        return _mean([quality.stuff.pq for quality in self.vpq.values()])

    def as_dict(self) -> dict[str, float | None]:
        """Return the headline scores by their table names, undefined ones as None (null in JSON)."""
        named = {
            "STQ": self.stq,
            "SQ": self.sq,
            "AQ": self.aq,
            "VPQ": self.mean_vpq,
            "VPQ_things": self.mean_vpq_things,
            "VPQ_stuff": self.mean_vpq_stuff,
            **{f"VPQ{k}": quality.all.pq for k, quality in self.vpq.items()},
        }
        return {name: none_if_undefined(value) for name, value in named.items()}

    def windows_as_dict(self) -> dict[str, dict[str, Any]]:
        """Return PQ, SQ and RQ of all classes, things and stuff, by k."""
        return {
            str(k): {
                **{
                    name: {
                        "PQ": none_if_undefined(part.pq),
                        "SQ": none_if_undefined(part.sq),
                        "RQ": none_if_undefined(part.rq),
                        "classes": part.classes,
                    }
                    for name, part in (("all", quality.all), ("things", quality.things), ("stuff", quality.stuff))
                },
                "windows": quality.windows,
            }
            for k, quality in self.vpq.items()
        }


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over clips: per class (C,), but for `unlabelled`, the labelled pixels that were predicted as no class."""

    regions: np.ndarray  # int64 (3, C): right, true and predicted pixels, void of the truth left out
    unlabelled: int
    association: np.ndarray  # float64 (C,): sum of the tubes' association quality
    tubes: np.ndarray  # int64 (C,)
    matches: Mapping[int, TubeMatches]


def score_panoptic(
    clips: Sequence[PanopticCounts], protocol: str, is_thing: np.ndarray, windows: Sequence[int]
) -> PanopticScores:
    """Score a set of clips, which may be empty.

    Raises:
        SettingsError: If the protocol is unknown.
    """
    rule = find_panoptic_protocol(protocol)
    sums = _add_up(clips, rule, is_thing, windows)
    ious = _class_ious(sums.regions)
    num_counted = int((~np.isnan(ious)).sum()) + (rule.void_is_a_class and sums.unlabelled > 0)
    sq = float(np.nansum(ious)) / num_counted if num_counted else math.nan
    num_tubes = int(sums.tubes.sum())
    aq = math.fsum(sums.association.tolist()) / num_tubes if num_tubes else rule.aq_without_tubes
    labelled = int(sums.regions[1].sum())
    return PanopticScores(
        stq=math.sqrt(aq * sq),
        sq=sq,
        aq=aq,
        vpq={k: _window_quality(sums.matches[k], is_thing) for k in windows},
        unlabelled_share=sums.unlabelled / labelled if labelled else math.nan,
        frames=sum(clip.frames for clip in clips),
        clips=len(clips),
    )


def score_panoptic_classes(
    clips: Sequence[PanopticCounts], protocol: str, is_thing: np.ndarray, windows: Sequence[int]
) -> tuple[PanopticClassScore, ...]:
    """Score every class over a set of clips, in the order of train ids."""
    sums = _add_up(clips, find_panoptic_protocol(protocol), is_thing, windows)
    ious = _class_ious(sums.regions)
    association = _divide(sums.association, sums.tubes)
    pq = {k: _class_qualities(sums.matches[k])[0] for k in windows}
    return tuple(
        PanopticClassScore(
            iou=float(ious[i]),
            aq=float(association[i]),
            tubes=int(sums.tubes[i]),
            pq={k: float(values[i]) for k, values in pq.items()},
        )
        for i in range(len(is_thing))
    )


def _add_up(
    clips: Sequence[PanopticCounts], rule: PanopticProtocol, is_thing: np.ndarray, windows: Sequence[int]
) -> _Sums:
    num_classes = len(is_thing)
    regions = np.zeros((3, num_classes), np.int64)
    unlabelled, association, tubes = 0, np.zeros(num_classes), np.zeros(num_classes, np.int64)
    matches = {k: TubeMatches.empty(num_classes) for k in windows}
    for clip in clips:
        clip_regions, clip_unlabelled = _region_sums(clip.table, num_classes)
        regions += clip_regions
        unlabelled += clip_unlabelled
        clip_association, clip_tubes = _association_sums(clip, rule, is_thing)
        association += clip_association
        tubes += clip_tubes
        for k in windows:
            matches[k] += clip.matches[k]
            if rule.takes_short_clips_whole and k in clip.whole_clip_matches:
                matches[k] += clip.whole_clip_matches[k]
    return _Sums(regions, unlabelled, association, tubes, matches)


def _region_sums(table: PairTable, num_classes: int) -> tuple[np.ndarray, int]:
    true_class = table.true_tubes[table.pairs[:, 0], 0]
    predicted_class = table.predicted_tubes[table.pairs[:, 1], 0]
    confusion = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(confusion, (true_class, predicted_class), table.pixels)
    labelled = confusion[:num_classes]
    right = np.diagonal(labelled)
    regions = np.stack([right, labelled.sum(axis=1), labelled[:, :num_classes].sum(axis=0)])
    return regions, int(labelled[:, num_classes].sum())


def _association_sums(
    clip: PanopticCounts, rule: PanopticProtocol, is_thing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the association quality of the true thing tubes, and their number, by class.

    A tube's association quality is 1/|g| sum_p TPA x IoU(p, g) over all predicted thing tubes, of whatever class.
    Pixels in a crowd belong to no tube on either side.
    """
    table = clip.table
    thing_or_void = np.append(is_thing, False)
    if rule.first_segment_is_crowd:
        is_crowd = np.arange(len(table.true_tubes)) == clip.first_tube
        is_crowd &= thing_or_void[table.true_tubes[:, 0]]
    else:
        is_crowd = find_crowds(table.true_tubes, is_thing)
    of_true, of_predicted = table.pairs[:, 0], table.pairs[:, 1]
    is_tube = thing_or_void[table.true_tubes[:, 0]] & ~is_crowd
    is_predicted_tube = thing_or_void[table.predicted_tubes[:, 0]]
    outside_crowds = np.where(is_crowd[of_true], 0, table.pixels)
    true_area = np.bincount(of_true, weights=table.pixels, minlength=len(is_tube))
    predicted_area = np.bincount(of_predicted, weights=outside_crowds, minlength=len(is_predicted_tube))
    meets = np.flatnonzero(is_tube[of_true] & is_predicted_tube[of_predicted])
    of_true, of_predicted, shared = of_true[meets], of_predicted[meets], table.pixels[meets].astype(np.float64)
    iou = shared / (true_area[of_true] + predicted_area[of_predicted] - shared)
    quality = np.bincount(of_true, weights=shared * iou, minlength=len(is_tube))
    classes = table.true_tubes[is_tube, 0]
    values = quality[is_tube] / true_area[is_tube]
    num_classes = len(is_thing)
    return np.bincount(classes, weights=values, minlength=num_classes), np.bincount(classes, minlength=num_classes)


def _window_quality(matches: TubeMatches, is_thing: np.ndarray) -> WindowQuality:
    values = np.stack(_class_qualities(matches))
    occurs = ~np.isnan(values[0])

    def averaged(chosen: np.ndarray) -> PanopticQuality:
        number = int(chosen.sum())
        pq, sq, rq = values[:, chosen].sum(axis=1) / number if number else (math.nan,) * 3
        return PanopticQuality(float(pq), float(sq), float(rq), number)

    return WindowQuality(averaged(occurs), averaged(occurs & is_thing), averaged(occurs & ~is_thing), matches.windows)


def _class_qualities(matches: TubeMatches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return PQ, SQ and RQ per class, float64 (C,) each; NaN where a class has no tube."""
    weight = matches.matched + 0.5 * matches.surplus + 0.5 * matches.missed
    segmentation = np.where(weight > 0, matches.iou / np.maximum(matches.matched, 1), np.nan)
    return _divide(matches.iou, weight), segmentation, _divide(matches.matched, weight)


def _class_ious(regions: np.ndarray) -> np.ndarray:
    right, truth, predicted = regions
    return _divide(right, truth + predicted - right)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
