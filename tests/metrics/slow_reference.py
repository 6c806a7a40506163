"""Every score a second time, from its definition: one class, one frame, one window at a time, nothing clever.

Written from the papers and scripts, not from `sam2vss.metrics`, and without any of its code. Erosion and dilation are
written out as minimum and maximum over shifted copies of a mask. Counts are integers, ratios exact fractions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

Clips = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> prediction, truth; integers (T, H, W) each
LAST_WINDOW_DROPPED = ("vspw", "cffm", "dvis-compat")  # their scripts loop over range(T - n)
RAW_VOID = ("vspw", "dvis-compat")  # their scripts compare stored values, in which void has two


@dataclass
class Sums:
    """Pixels of one class: in both, in the truth's region, in the prediction's."""

    both: int = 0
    truth: int = 0
    prediction: int = 0

    def add(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        self.both += int((truth & prediction).sum())
        self.truth += int(truth.sum())
        self.prediction += int(prediction.sum())

    @property
    def iou(self) -> Fraction:
        return Fraction(self.both, self.truth + self.prediction - self.both)


@dataclass
class Contours:
    """Contour pixels of one class: matched and all, of the truth (recall) and of the prediction (precision)."""

    truth_matched: int = 0
    truth: int = 0
    prediction_matched: int = 0
    prediction: int = 0

    @property
    def f_measure(self) -> Fraction:
        """2 P R / (P + R); 0 where one side has no contour or nothing matches."""
        if not self.truth or not self.prediction:
            return Fraction(0)
        recall = Fraction(self.truth_matched, self.truth)
        precision = Fraction(self.prediction_matched, self.prediction)
        return 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)


@dataclass
class Tally:
    """What the scores of regions and boundaries are made of, per class in the order of ids."""

    region: list[Sums]
    band: list[Sums]
    boundary: list[Sums]
    wide_boundary: list[Sums]
    contours: list[Contours]
    image_band: list[Fraction] = field(default_factory=list)
    image_interior: list[Fraction] = field(default_factory=list)
    labelled: int = 0
    unlabelled: int = 0


def tally(clips: Clips, num_classes: int) -> Tally:
    """Count regions, boundaries and contours over all frames; truth outside 0..C-1 is void."""
    result = Tally(*([Sums() for _ in range(num_classes)] for _ in range(4)), [Contours() for _ in range(num_classes)])
    for prediction, truth in clips.values():
        for frame in range(len(truth)):
            tally_frame(result, prediction[frame], truth[frame], num_classes)
    return result


def tally_frame(result: Tally, prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> None:
    is_labelled = (truth >= 0) & (truth < num_classes)
    is_right = is_labelled & (prediction == truth)
    band = np.zeros(truth.shape, bool)
    for c in range(num_classes):
        band |= inner_boundary(truth == c)

    for c in range(num_classes):
        true, predicted = truth == c, (prediction == c) & is_labelled
        result.region[c].add(true, predicted)
        result.band[c].add(true & band, predicted & band)
        result.boundary[c].add(padded_boundary(true, 2), padded_boundary(predicted, 2))
        distance = max(1, round(0.02 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
        result.wide_boundary[c].add(padded_boundary(true, distance), padded_boundary(predicted, distance))
        match_contours(result.contours[c], true, predicted)

    # Eq. 6 on sets of (pixel, label): |M and O| / |M or O|, where both sets cover the same pixels
    for place, ratios in ((is_labelled & band, result.image_band), (is_labelled & ~band, result.image_interior)):
        pixels, right = int(place.sum()), int((place & is_right).sum())
        if pixels:
            ratios.append(Fraction(right, pixels + pixels - right))
    result.labelled += int(is_labelled.sum())
    result.unlabelled += int((is_labelled & ((prediction < 0) | (prediction >= num_classes))).sum())


# --- shapes ----------------------------------------------------------------------------------------------------------


def shifted_copies(mask: np.ndarray, offsets: Sequence[tuple[int, int]], outside: bool) -> list[np.ndarray]:
    """The mask as seen from every pixel moved by (dy, dx); beyond the image it is `outside`."""
    reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
    wide = np.pad(mask, reach, constant_values=outside)
    height, width = mask.shape
    return [wide[reach + dy : reach + dy + height, reach + dx : reach + dx + width] for dy, dx in offsets]


def square(reach: int) -> list[tuple[int, int]]:
    steps = range(-reach, reach + 1)
    return [(dy, dx) for dy in steps for dx in steps]


def inner_boundary(mask: np.ndarray) -> np.ndarray:
    """The mask minus its erosion by a 5 x 5 square (Eq. 5, read as boundary); the image border does not erode."""
    return mask & ~np.min(shifted_copies(mask, square(2), outside=True), axis=0)


def padded_boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Boundary IoU's boundary: pad with a row of zeros, erode by 3 x 3 `distance` times, subtract."""
    wide = np.pad(mask, 1)
    for _ in range(distance):
        wide = np.min(shifted_copies(wide, square(1), outside=True), axis=0)
    return mask & ~wide[1:-1, 1:-1]


def contour(mask: np.ndarray) -> np.ndarray:
    """DAVIS' contour: pixels that differ from their right, lower or lower right neighbour, where there is one."""
    height, width = mask.shape
    found = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if v < height and u < width and mask[y, x] != mask[v, u]:
                    found[y, x] = True
    return found


def match_contours(counts: Contours, truth: np.ndarray, prediction: np.ndarray) -> None:
    """DAVIS' matching: a contour pixel counts as found if the other contour, grown by a disk, covers it."""
    radius = math.ceil(0.008 * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    disk = [(dy, dx) for dy, dx in square(radius) if dy * dy + dx * dx <= radius * radius]
    true, predicted = contour(truth), contour(prediction)
    counts.truth += int(true.sum())
    counts.prediction += int(predicted.sum())
    counts.truth_matched += int((true & np.max(shifted_copies(predicted, disk, outside=False), axis=0)).sum())
    counts.prediction_matched += int((predicted & np.max(shifted_copies(true, disk, outside=False), axis=0)).sum())


# --- consistency -----------------------------------------------------------------------------------------------------


def window_scores(prediction: np.ndarray, truth: np.ndarray, num_classes: int, n: int, protocol: str) -> list[Fraction]:
    """VC of every window of n frames in which some pixel of the truth stays the same."""
    if protocol not in RAW_VOID:
        truth = np.where((truth < 0) | (truth >= num_classes), -1, truth.astype(np.int64))
    num_starts = len(truth) - n + (0 if protocol in LAST_WINDOW_DROPPED else 1)
    ratios = []
    for start in range(num_starts):
        common = np.ones(truth.shape[1:], bool)
        kept = np.ones(truth.shape[1:], bool)
        for frame in range(start, start + n):
            common &= truth[frame] == truth[start]
            if protocol == "strict":
                common &= truth[frame] != -1
                kept &= prediction[frame] == truth[frame]
            else:
                kept &= prediction[frame] == prediction[start]
        if common.any():
            ratios.append(Fraction(int((common & kept).sum()), int(common.sum())))
    return ratios


def flip_rate(prediction: np.ndarray, num_classes: int) -> Fraction | None:
    """Share of pixels whose label differs from the frame before; everything that is no class is one label."""
    labels = np.where((prediction < 0) | (prediction >= num_classes), -1, prediction.astype(np.int64))
    pairs = [(labels[t - 1] != labels[t]) for t in range(1, len(labels))]
    return Fraction(int(np.sum(pairs)), labels[1:].size) if pairs else None


# --- scores ----------------------------------------------------------------------------------------------------------


def scored_clips(clips: Clips, protocol: str) -> Clips:
    """The CFFM script leaves clips of up to 16 frames out."""
    return {name: pair for name, pair in clips.items() if protocol != "cffm" or len(pair[1]) > 16}


def mean(ratios: Sequence[Fraction]) -> float:
    return float(sum(ratios, Fraction(0)) / len(ratios)) if ratios else math.nan


def all_scores(clips: Clips, num_classes: int, windows: Sequence[int], protocol: str) -> dict[str, float]:
    """All scores by their table names; NaN where they are undefined."""
    clips = scored_clips(clips, protocol)
    return {**region_scores(clips, num_classes), **consistency_scores(clips, num_classes, windows, protocol)}


def region_scores(clips: Clips, num_classes: int) -> dict[str, float]:
    counted = tally(clips, num_classes)
    present = [sums for sums in counted.region if sums.truth]
    labelled = counted.labelled
    return {
        "mIoU": mean([sums.iou for sums in present]),
        "wIoU": float(sum(Fraction(s.truth, labelled) * s.iou for s in present)) if labelled else math.nan,
        "pixel_accuracy": float(Fraction(sum(s.both for s in present), labelled)) if labelled else math.nan,
        "class_accuracy": mean([Fraction(sums.both, sums.truth) for sums in present]),
        "mBIoU": mean([sums.iou for sums in counted.band if sums.truth]),
        "boundary_IoU_2px": mean([sums.iou for sums in counted.boundary if sums.truth]),
        "boundary_IoU_2pct": mean([sums.iou for sums in counted.wide_boundary if sums.truth]),
        "boundary_F": mean([sums.f_measure for sums in counted.contours if sums.truth]),
        "mBIoU_per_image": mean(counted.image_band),
        "mBIoU_interior": mean(counted.image_interior),
        "unlabelled_share": float(Fraction(counted.unlabelled, labelled)) if labelled else math.nan,
    }


def consistency_scores(clips: Clips, num_classes: int, windows: Sequence[int], protocol: str) -> dict[str, float]:
    scores = {}
    pooled: list[Fraction] = []
    for n in sorted(windows):
        ratios = [vc for pair in clips.values() for vc in window_scores(pair[0], pair[1], num_classes, n, protocol)]
        pooled += ratios  # eval_vc_vspw.py never empties its list
        scores[f"mVC{n}"] = mean(pooled if protocol == "dvis-compat" else ratios)
    scores["flicker_rate"] = 1 - scores["mVC2"] if 2 in windows else math.nan
    is_curve = len(windows) > 1 and sorted(windows) == list(range(2, 2 + len(windows)))
    scores["mVC_mean"] = sum(scores[f"mVC{n}"] for n in windows) / len(windows) if is_curve else math.nan
    return scores


def class_scores(clips: Clips, num_classes: int, protocol: str) -> list[dict[str, float]]:
    """The parts of every class, in the order of ids."""
    counted = tally(scored_clips(clips, protocol), num_classes)

    def ratio(value: Fraction | None) -> float:
        return math.nan if value is None else float(value)

    return [
        {
            "IoU": ratio(region.iou if region.truth else None),
            "accuracy": ratio(Fraction(region.both, region.truth) if region.truth else None),
            "band_IoU": ratio(counted.band[c].iou if counted.band[c].truth else None),
            "boundary_IoU_2px": ratio(counted.boundary[c].iou if counted.boundary[c].truth else None),
            "boundary_IoU_2pct": ratio(counted.wide_boundary[c].iou if counted.wide_boundary[c].truth else None),
            "boundary_F": ratio(counted.contours[c].f_measure if counted.contours[c].truth else None),
            "pixels": region.truth,
            "predicted_pixels": region.prediction,
        }
        for c, region in enumerate(counted.region)
    ]
