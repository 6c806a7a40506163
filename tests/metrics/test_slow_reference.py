"""The one-pass scores against `slow_reference`, which takes every score from its definition."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics import slow_reference as slow
from sam2vss.metrics import PROTOCOLS, VideoSegMetrics
from sam2vss.metrics.stability import StabilityMetrics

TOLERANCE = 1e-12  # measured: 2.3e-16 at most


@dataclass(frozen=True)
class Case:
    """Random clips: predictions and truth by name."""

    clips: dict[str, tuple[np.ndarray, np.ndarray]]
    num_classes: int
    void_ids: tuple[int, ...]
    windows: tuple[int, ...]

    def count(self, names: Mapping[str, object] | None = None) -> VideoSegMetrics:
        """Count some of the clips, or all."""
        metrics = VideoSegMetrics(
            self.num_classes, self.void_ids[0], self.windows, other_void_ids=self.void_ids[1:], boundary="full"
        )
        for name in self.clips if names is None else names:
            metrics.update(*self.clips[name], clip=name)
        return metrics


@st.composite
def cases(draw: st.DrawFn, sizes: st.SearchStrategy[tuple[int, int]] | None = None, longest: int = 20) -> Case:
    if sizes is None:
        sizes = st.tuples(st.integers(1, 9), st.integers(1, 11))
    num_classes = draw(st.sampled_from([1, 2, 3, 4, 5, 12]))
    void_ids = draw(st.sampled_from([(255,), (255, 254), (255, 254, 200)]))
    windows = draw(st.sampled_from([(2, 3, 8, 16), (2, 3, 4, 5), (8, 16)]))
    clips = {}
    for index in range(draw(st.integers(1, 3))):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        length = min(longest, draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17, 20])))
        shape = (length, *draw(sizes))
        truth = draw_labels(draw, rng, shape, num_classes, void_ids)
        prediction = draw_labels(draw, rng, shape, num_classes, (255, 77))
        if draw(st.booleans()):  # mostly right, as predictions are
            prediction = np.where(rng.random(shape) < draw(st.sampled_from([0, 0.02, 0.3])), prediction, truth)
        clips[f"clip {index}"] = (prediction, truth)
    return Case(clips, num_classes, void_ids, windows)


def draw_labels(
    draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, int, int], num_classes: int, strangers: tuple[int, ...]
) -> np.ndarray:
    """Some of the classes, in blocks or pixels, more or less still, with strangers in places or whole frames."""
    classes = rng.permutation(num_classes)[: draw(st.integers(1, num_classes))]
    block = draw(st.sampled_from([1, 2, 4]))
    coarse = rng.choice(classes, (shape[0], -(-shape[1] // block), -(-shape[2] // block)))
    labels = coarse.repeat(block, axis=1).repeat(block, axis=2)[:, : shape[1], : shape[2]].astype(np.uint8)
    labels[rng.random(shape) < draw(st.sampled_from([0, 0, 0.1, 0.9]))] = rng.choice(strangers)
    labels[rng.random(shape) < draw(st.sampled_from([0, 0, 0.2]))] = rng.choice(strangers)
    churn = draw(st.sampled_from([0.0, 0.02, 0.2, 1.0]))  # share of pixels that change from frame to frame
    for t in range(1, shape[0]):
        labels[t] = np.where(rng.random(shape[1:]) < churn, labels[t], labels[t - 1])
    labels[rng.random(shape[0]) < draw(st.sampled_from([0, 0, 0.3, 1]))] = rng.choice(strangers)  # whole frames
    return labels


def assert_same(found: Mapping[str, float | None], expected: Mapping[str, float]) -> None:
    """Compare all scores that we name; undefined is None there and NaN here."""
    values = {name: math.nan if value is None else value for name, value in found.items()}
    assert values == pytest.approx({name: expected[name] for name in values}, abs=TOLERANCE, rel=0, nan_ok=True)


def check_all_protocols(case: Case) -> None:
    metrics = case.count()
    regions: dict[int, dict[str, float]] = {}  # by number of clips: protocols differ in which clips they score
    for protocol in PROTOCOLS:
        scores = metrics.compute(protocol)
        scored = slow.scored_clips(case.clips, protocol)
        if len(scored) not in regions:
            regions[len(scored)] = slow.region_scores(scored, case.num_classes)
        expected = regions[len(scored)] | slow.consistency_scores(scored, case.num_classes, case.windows, protocol)
        found = {**scores.as_dict(), "unlabelled_share": scores.unlabelled_share}
        assert set(found) == set(expected)
        assert_same(found, expected)
        assert (scores.frames, scores.clips) == (sum(len(truth) for _, truth in scored.values()), len(scored))
        assert scores.dropped_clips == len(case.clips) - len(scored)


@settings(max_examples=30)
@given(case=cases())
def test_every_score_of_every_protocol_equals_its_definition(case: Case):
    check_all_protocols(case)


@pytest.mark.slow
@settings(max_examples=800, derandomize=False)
@given(case=cases())
def test_many_more_clips_equal_their_definition(case: Case):
    check_all_protocols(case)


def frames(*rows: str) -> np.ndarray:
    """One frame per string, 1 pixel high; "." is 255 and ":" is 254, both no class."""
    codes = {".": 255, ":": 254}
    return np.array([[[codes.get(label) or int(label) for label in row]] for row in rows], np.uint8)


EDGES = {
    "one pixel, one frame": (frames("0"), frames("0")),
    "nothing but void": (frames("01", "00", "11"), frames("..", "..", "..")),
    "nothing but two voids that change": (frames(*["01"] * 18), frames(*["..", "::"] * 9)),
    "a frame of void between others": (frames("01", "11", "01"), frames("01", ".:", "01")),
    "nothing predicted": (frames(*[".:"] * 17), frames(*["01"] * 17)),
    "nothing ever constant": (frames(*["01"] * 18), frames(*["01", "10"] * 9)),
    "a class that is only predicted": (frames("02", "02"), frames("01", "00")),
    "a class that is only predicted on void": (frames("02", "02"), frames("0.", "0:")),
    "as many frames as a window": (frames(*["01"] * 16), frames(*["0."] * 16)),
    "one frame more than a window": (frames(*["01"] * 8, "10", *["01"] * 8), frames(*["01"] * 17)),
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_cases_equal_their_definition(name: str):
    for windows in ((2, 3, 8, 16), (8, 16), (2, 3)):
        check_all_protocols(Case({"only": EDGES[name]}, 3, (255, 254), windows))


def test_no_clips_at_all_equal_their_definition():
    check_all_protocols(Case({}, 2, (255,), (2, 8)))


@settings(max_examples=20)
@given(case=cases(st.sampled_from([(2, 120), (90, 3), (4, 180)]), longest=2))
def test_boundaries_that_grow_with_the_image_equal_their_definition(case: Case):
    """Diagonals of 90 to 180 pixels: 2 % are 2 to 4 pixels, contours may lie 1 or 2 pixels apart."""
    assert_same(
        case.count().compute("paper").as_dict(), slow.all_scores(case.clips, case.num_classes, case.windows, "paper")
    )


@settings(max_examples=10)
@given(case=cases())
def test_class_scores_equal_their_definition(case: Case):
    for protocol in ("vspw", "cffm"):
        found = case.count().per_class(protocol)
        expected = slow.class_scores(case.clips, case.num_classes, protocol)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours.as_dict(), theirs)


@settings(max_examples=10)
@given(case=cases(), protocol=st.sampled_from(list(PROTOCOLS)))
def test_every_clip_scores_like_a_set_of_its_own(case: Case, protocol: str):
    per_clip = case.count().per_clip(protocol)
    assert list(per_clip) == list(slow.scored_clips(case.clips, protocol))
    for name, scores in per_clip.items():
        assert_same(
            scores.as_dict(), slow.all_scores({name: case.clips[name]}, case.num_classes, case.windows, protocol)
        )


@settings(max_examples=10)
@given(case=cases(), protocol=st.sampled_from(list(PROTOCOLS)), data=st.data())
def test_shards_and_stored_counts_add_up_to_the_set(case: Case, protocol: str, data: st.DataObject):
    order = data.draw(st.permutations(list(case.clips)))
    middle = data.draw(st.integers(0, len(order)))
    left, right = case.count(order[:middle]), case.count(order[middle:])
    stored = case.count([])
    stored.load_state_dict(right.state_dict())
    left.merge(stored)
    assert_same(left.compute(protocol).as_dict(), slow.all_scores(case.clips, case.num_classes, case.windows, protocol))


@settings(max_examples=10)
@given(case=cases())
def test_flip_rate_of_every_clip_equals_its_definition(case: Case):
    metrics = StabilityMetrics(case.num_classes)
    for name, (prediction, _) in case.clips.items():
        for labels in prediction:
            metrics.update(labels, clip=name)
    for name, scores in metrics.per_clip().items():
        expected = slow.flip_rate(case.clips[name][0], case.num_classes)
        assert scores.flip_rate == pytest.approx(math.nan if expected is None else float(expected), nan_ok=True)


# --- the reference itself, on cases small enough to do by hand --------------------------------------------------------


def test_reference_counts_by_hand():
    # truth 00001111, prediction 0000011.: band = columns 2..5
    clips = {"a": (frames("00000115"), frames("00001111"))}
    scores = slow.all_scores(clips, 2, (2,), "paper")
    assert scores["mIoU"] == pytest.approx((4 / 5 + 2 / 4) / 2)  # both 4 | 5 predicted, 4 true; both 2 | 2 predicted
    assert scores["pixel_accuracy"] == 6 / 8
    assert scores["mBIoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["mBIoU_per_image"] == pytest.approx(3 / 5)  # 3 of 4 right
    assert scores["mBIoU_interior"] == pytest.approx(3 / 5)
    assert scores["unlabelled_share"] == 1 / 8
    assert math.isnan(scores["mVC2"])


def test_reference_windows_by_hand():
    truth, prediction = frames("00.", "00.", "01."), frames("011", "010", "000")
    clips = {"a": (prediction, truth)}
    # frames 0 and 1: all three pixels of the truth stay, of the prediction the first two; pixel 0 stays right
    # frames 1 and 2: pixels 0 and 2 stay, of the prediction both; with void out: pixel 0, right
    expected = {"vspw": 2 / 3, "cffm": math.nan, "paper": (2 / 3 + 1) / 2, "strict": (1 / 2 + 1) / 2}
    for protocol, score in expected.items():
        assert slow.all_scores(clips, 2, (2,), protocol)["mVC2"] == pytest.approx(score, nan_ok=True)
    # the list of the windows of 2 frames goes on with those of 3, of which range(3 - 3) has none
    assert slow.all_scores(clips, 2, (2, 3), "dvis-compat")["mVC3"] == pytest.approx(2 / 3)
    assert slow.flip_rate(prediction, 2) == Fraction(1 + 1, 6)


def test_reference_contours_by_hand():
    mask = np.zeros((4, 5), bool)
    mask[:, 2:] = True
    # pixels of column 1 differ from their right neighbour; nobody else differs from a neighbour
    assert np.argwhere(slow.contour(mask)).tolist() == [[y, 1] for y in range(4)]
    counts = slow.Contours()
    slow.match_contours(counts, mask, np.roll(mask, 1, axis=1) & mask)  # edge at 1 and at 2, radius 1
    assert (counts.truth_matched, counts.truth, counts.prediction_matched, counts.prediction) == (4, 4, 4, 4)
    assert counts.f_measure == 1


def test_reference_boundary_of_a_square_by_hand():
    mask = np.zeros((9, 9), bool)
    mask[:, :6] = True
    # 5 x 5 erosion leaves columns 0..3 where the image border does not erode, rows 2..6 of columns 2..3 where it does
    assert slow.inner_boundary(mask).sum() == 9 * 2
    assert slow.padded_boundary(mask, 2).sum() == 9 * 6 - 5 * 2
    assert slow.padded_boundary(mask, 1).sum() == 9 * 6 - 7 * 4
