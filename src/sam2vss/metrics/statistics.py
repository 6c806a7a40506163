"""From counts to scores: the formulas.

Every score is a function of sums over clips (`Statistic`), so the same formula serves the table and the bootstrap.
What cannot be defined (no truth, no window long enough, not counted) is NaN, never 0 or 1.

Sources: paper Eq. 4-6; VSPW_baseline's Evaluator; Cheng et al., CVPR 2021 (Boundary IoU); Perazzi et al., CVPR 2016
(boundary F).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .confusion import region_sums
from .consistency import curve_windows
from .contours import MATCHED_PREDICTION, MATCHED_TRUTH, PREDICTION, TRUTH
from .counts import BAND, BAND_RIGHT, LABELLED, LABELLED_RIGHT, ClipCounts
from .protocols import Protocol, find_protocol

Summands = Callable[[ClipCounts], np.ndarray]


@dataclass(frozen=True)
class Statistic:
    """A score as a function of sums over clips.

    Attributes:
        summands: What a clip adds, float64 (K,).
        value: Score from such sums (..., K) -> (...); NaN where undefined.
    """

    summands: Summands
    value: Callable[[np.ndarray], np.ndarray]


def find_statistics(protocol: str, windows: Sequence[int]) -> dict[str, Statistic]:
    """Return every score of `Scores.as_dict` as a statistic, by the same names and in the same order.

    Raises:
        SettingsError: If the protocol is unknown.
    """
    rule = find_protocol(protocol)
    ordered = sorted(windows)
    vc = {n: _vc_sums(rule, [m for m in ordered if m < n] if rule.pools_shorter_windows else [], n) for n in ordered}
    return {
        "mIoU": Statistic(confusion_sums, mean_iou),
        "wIoU": Statistic(confusion_sums, weighted_iou),
        "mBIoU": Statistic(band_sums, mean_iou),
        **{f"mVC{n}": Statistic(vc[n], ratio) for n in ordered},
        "mVC_mean": Statistic(_side_by_side([vc[n] for n in ordered] if is_curve(ordered) else []), mean_ratio),
        "flicker_rate": Statistic(vc.get(2, _nothing), lambda sums: 1 - ratio(sums)),
        "pixel_accuracy": Statistic(confusion_sums, pixel_accuracy),
        "class_accuracy": Statistic(confusion_sums, class_accuracy),
        "boundary_IoU_2px": Statistic(boundary_sums, mean_iou),
        "boundary_IoU_2pct": Statistic(wide_boundary_sums, mean_iou),
        "boundary_F": Statistic(contour_sums, mean_boundary_f),
        "mBIoU_per_image": Statistic(_band_jaccard_sums, ratio),
        "mBIoU_interior": Statistic(_interior_jaccard_sums, ratio),
    }


def is_curve(windows: Sequence[int]) -> bool:
    """Whether the windows are those of a VC curve: 2, 3, ... without a gap, at least two of them."""
    return len(windows) > 1 and tuple(sorted(windows)) == curve_windows(len(windows) + 1)


def confusion_sums(clip: ClipCounts) -> np.ndarray:
    """Return correct, true and predicted pixels per class, float64 (3 C,)."""
    return region_sums(clip.confusion).ravel().astype(np.float64)


def band_sums(clip: ClipCounts) -> np.ndarray:
    """Return the same inside the truth's boundary band."""
    return clip.band.ravel().astype(np.float64)


def boundary_sums(clip: ClipCounts) -> np.ndarray:
    """Return the same of the two-sided boundaries at 2 px."""
    return clip.boundary.ravel().astype(np.float64)


def wide_boundary_sums(clip: ClipCounts) -> np.ndarray:
    """Return the same of the two-sided boundaries at 2 % of the diagonal."""
    return clip.wide_boundary.ravel().astype(np.float64)


def contour_sums(clip: ClipCounts) -> np.ndarray:
    """Return matched and all contour pixels of both sides per class, float64 (4 C,)."""
    return clip.contours.ravel().astype(np.float64)


def class_ious(sums: np.ndarray) -> np.ndarray:
    """IoU per class; NaN for classes that are not in the truth, even if they were predicted (VSPW's Evaluator)."""
    both, truth, prediction = _parts(sums, 3)
    return np.where(truth > 0, divide(both, truth + prediction - both), np.nan)


def class_boundary_f(sums: np.ndarray) -> np.ndarray:
    """F of precision and recall of the contour pixels per class; NaN where the truth has no contour of the class.

    A class whose contours are never predicted gets 0, as in DAVIS.
    """
    parts = _parts(sums, 4)
    recall = divide(parts[MATCHED_TRUTH], parts[TRUTH])
    precision = np.nan_to_num(divide(parts[MATCHED_PREDICTION], parts[PREDICTION]))
    f = np.nan_to_num(divide(2 * precision * recall, precision + recall))
    return np.where(parts[TRUTH] > 0, f, np.nan)


def mean_iou(sums: np.ndarray) -> np.ndarray:
    return _class_mean(class_ious(sums))


def mean_boundary_f(sums: np.ndarray) -> np.ndarray:
    return _class_mean(class_boundary_f(sums))


def weighted_iou(sums: np.ndarray) -> np.ndarray:
    _, truth, _ = _parts(sums, 3)
    return divide((truth * np.nan_to_num(class_ious(sums))).sum(axis=-1), truth.sum(axis=-1))


def pixel_accuracy(sums: np.ndarray) -> np.ndarray:
    both, truth, _ = _parts(sums, 3)
    return divide(both.sum(axis=-1), truth.sum(axis=-1))


def class_accuracy(sums: np.ndarray) -> np.ndarray:
    both, truth, _ = _parts(sums, 3)
    return _class_mean(divide(both, truth))


def ratio(sums: np.ndarray) -> np.ndarray:
    """Mean of ratios from their sum and their number."""
    return divide(sums[..., 0], sums[..., 1])


def mean_ratio(sums: np.ndarray) -> np.ndarray:
    """Mean of several such means; NaN if one of them is undefined, or there is none."""
    if not sums.shape[-1]:
        return np.full(sums.shape[:-1], np.nan)
    means: np.ndarray = divide(sums[..., 0::2], sums[..., 1::2]).mean(axis=-1)
    return means


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, giving NaN where the denominator is 0."""
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=np.asarray(denominator) > 0)
    return quotient


def _vc_sums(rule: Protocol, shorter: Sequence[int], n: int) -> Summands:
    """All windows of all clips are pooled (VSPW_baseline), so a clip adds its sum of VC and its number of windows."""

    def summands(clip: ClipCounts) -> np.ndarray:
        total = np.zeros(2)
        for length in (*shorter, n):
            rows = clip.windows[length][:-1] if rule.drop_last_window else clip.windows[length]
            total += _sum_and_number(rows[:, rule.kept], rows[:, rule.common])
        return total

    return summands


def _side_by_side(parts: Sequence[Summands]) -> Summands:
    return lambda clip: np.concatenate([np.zeros(0), *(part(clip) for part in parts)])


def _nothing(clip: ClipCounts) -> np.ndarray:
    """Sums of a score for which nothing was counted."""
    return np.zeros(2)


def _band_jaccard_sums(clip: ClipCounts) -> np.ndarray:
    pixels = clip.frame_pixels
    return _jaccard_sums(pixels[:, BAND], pixels[:, BAND_RIGHT])


def _interior_jaccard_sums(clip: ClipCounts) -> np.ndarray:
    pixels = clip.frame_pixels
    return _jaccard_sums(pixels[:, LABELLED] - pixels[:, BAND], pixels[:, LABELLED_RIGHT] - pixels[:, BAND_RIGHT])


def _jaccard_sums(pixels: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum over images of |M and O| / |M or O|, where M and O are sets of (pixel, label) pairs over the same pixels."""
    return _sum_and_number(right, 2 * pixels - right)


def _sum_and_number(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return the sum of the defined ratios and how many are defined (0 / 0 is left out, as by nanmean)."""
    is_defined = denominators > 0
    return np.array([(numerators[is_defined] / denominators[is_defined]).sum(), is_defined.sum()], np.float64)


def _parts(sums: np.ndarray, number: int) -> list[np.ndarray]:
    """Split sums (..., number * C) into `number` arrays (..., C)."""
    parts = sums.reshape(*sums.shape[:-1], number, -1)
    return [parts[..., i, :] for i in range(number)]


def _class_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that have a value; NaN if none has."""
    is_defined = ~np.isnan(values)
    return divide(np.where(is_defined, values, 0.0).sum(axis=-1), is_defined.sum(axis=-1))
