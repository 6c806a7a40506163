"""STQ and VPQ once more, written down literally: tubes as sets of pixels, exact fractions, no tables, no windows' sums.

Only for small clips. Follows the definitions (STEP 2021, Eq. 5-8; Video Panoptic Segmentation, CVPR 2020, Eq. 1), and
shares no code with the package.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Tube = tuple[int, int]
Pixels = set[tuple[int, int, int]]
Clip = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # predicted classes, numbers, true classes, numbers


def tubes_of(classes: np.ndarray, numbers: np.ndarray, num_classes: int) -> tuple[dict[Tube, Pixels], Pixels]:
    tubes: dict[Tube, Pixels] = defaultdict(set)
    void: Pixels = set()
    for place in np.ndindex(classes.shape):
        category = int(classes[place])
        if 0 <= category < num_classes:
            tubes[category, int(numbers[place])].add(place)
        else:
            void.add(place)
    return dict(tubes), void


def slow_vpq(clips: Sequence[Clip], k: int, is_thing: Sequence[bool], short_is_whole: bool = False) -> dict:
    """PQ, SQ, RQ and number of classes of "all", "things" and "stuff" for windows of k frames."""
    ious: dict[int, list[Fraction]] = defaultdict(list)
    wrong: dict[int, Fraction] = defaultdict(Fraction)
    for clip in clips:
        frames = len(clip[0])
        starts = range(frames - k + 1)
        if short_is_whole and frames < k:
            starts = range(1)
        for start in starts:
            match_window([plane[start : start + k] for plane in clip], is_thing, ious, wrong)
    scores = {}
    for name, chosen in (("all", (True, False)), ("things", (True,)), ("stuff", (False,))):
        seen = [c for c in range(len(is_thing)) if is_thing[c] in chosen and (ious[c] or wrong[c])]
        pq = [sum(ious[c], Fraction()) / (len(ious[c]) + wrong[c]) for c in seen]
        sq = [sum(ious[c], Fraction()) / len(ious[c]) if ious[c] else Fraction() for c in seen]
        rq = [len(ious[c]) / (len(ious[c]) + wrong[c]) for c in seen]
        means = [float(sum(values) / len(seen)) if seen else math.nan for values in (pq, sq, rq)]
        scores[name] = (*means, len(seen))
    return scores


def match_window(
    window: Sequence[np.ndarray], is_thing: Sequence[bool], ious: dict[int, list], wrong: dict[int, Fraction]
) -> None:
    predicted, _ = tubes_of(window[0], window[1], len(is_thing))
    true, void = tubes_of(window[2], window[3], len(is_thing))
    crowds = {tube: pixels for tube, pixels in true.items() if is_thing[tube[0]] and tube[1] == 0}
    partners = {}
    for tube, pixels in true.items():
        for other, found in predicted.items():
            if tube in crowds or tube[0] != other[0]:
                continue
            iou = Fraction(len(pixels & found), len((pixels | found) - (void & found)))
            if iou > Fraction(1, 2):
                assert tube not in partners
                partners[tube] = other
                ious[tube[0]].append(iou)
    for tube in true:
        if tube not in crowds and tube not in partners:
            wrong[tube[0]] += Fraction(1, 2)
    for other, found in predicted.items():
        excused = len(found & void) + sum(len(found & pixels) for tube, pixels in crowds.items() if tube[0] == other[0])
        if other not in partners.values() and Fraction(excused, len(found)) <= Fraction(1, 2):
            wrong[other[0]] += Fraction(1, 2)


def slow_stq(
    clips: Sequence[Clip],
    is_thing: Sequence[bool],
    void_is_a_class: bool = False,
    first_segment_is_crowd: bool = False,
    aq_without_tubes: float = math.nan,
) -> tuple[float, float, float]:
    """STQ, SQ and AQ."""
    num_classes = len(is_thing)
    right: dict[int, int] = defaultdict(int)
    union: dict[int, int] = defaultdict(int)
    qualities: list[Fraction] = []
    for clip in clips:
        for predicted, true in zip(clip[0].ravel().tolist(), clip[2].ravel().tolist(), strict=True):
            if not 0 <= true < num_classes:
                continue
            predicted = predicted if 0 <= predicted < num_classes else num_classes
            for category in {true, predicted}:
                union[category] += 1
            right[true] += true == predicted
        qualities += association_qualities(clip, is_thing, first_segment_is_crowd)
    if not void_is_a_class:
        union.pop(num_classes, None)
    ious = [Fraction(right[category], pixels) for category, pixels in union.items()]
    sq = float(sum(ious) / len(ious)) if ious else math.nan
    aq = float(sum(qualities) / len(qualities)) if qualities else aq_without_tubes
    return math.sqrt(sq * aq), sq, aq


def association_qualities(clip: Clip, is_thing: Sequence[bool], first_segment_is_crowd: bool) -> list[Fraction]:
    predicted, _ = tubes_of(clip[0], clip[1], len(is_thing))
    true, _ = tubes_of(clip[2], clip[3], len(is_thing))
    crowds = {tube for tube in true if is_thing[tube[0]] and tube[1] == 0}
    if first_segment_is_crowd:
        per_frame = [tubes_of(clip[2][t], clip[3][t], len(is_thing))[0] for t in range(len(clip[2]))]
        first = next((tubes for tubes in per_frame if tubes), {})
        crowds = {min(first, key=lambda tube: (is_thing[tube[0]], tube))} if first else set()
    hidden = set().union(*(true[tube] for tube in crowds if is_thing[tube[0]]), set())
    qualities = []
    for tube, pixels in true.items():
        if not is_thing[tube[0]] or tube in crowds:
            continue
        inner = Fraction()
        for other, found in predicted.items():
            seen = found - hidden
            if is_thing[other[0]] and pixels & seen:
                inner += len(pixels & seen) * Fraction(len(pixels & seen), len(pixels | seen))
        qualities.append(inner / len(pixels))
    return qualities
