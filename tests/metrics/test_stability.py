"""Scores without ground truth: flips, and agreement along flow."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.errors import LabelError, MissingPredictionsError, SettingsError, ShapeError
from sam2vss.metrics.stability import StabilityMetrics
from sam2vss.metrics.stability_scores import STABILITY_STATISTICS, StabilityScores, stability_bootstrap
from sam2vss.records import flip_rates

UNLABELLED = 255


def still(size: tuple[int, int]) -> np.ndarray:
    return np.zeros((*size, 2), np.float32)


def measured(labels: np.ndarray, num_classes: int, flows=None, seen=None, clip: str = "") -> StabilityMetrics:
    """Count labels (T, H, W) of one clip; flows and seen have one entry per pair of frames."""
    metrics = StabilityMetrics(num_classes, "made_up" if flows is not None else "")
    for t, frame in enumerate(labels):
        flow = None if flows is None or t == 0 else flows[t - 1]
        is_seen = None if seen is None or t == 0 else seen[t - 1]
        metrics.update(frame, flow, is_seen, clip)
    return metrics


# --- hand-computed ---------------------------------------------------------------------------------------------------


def test_flips_of_four_pixels():
    labels = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 0]], [[0, 1, 1, 0]]])
    metrics = measured(labels, 2)
    assert metrics.compute().flip_rate == 2 / 8  # two of four pixels, then none
    first, second = metrics.per_class()
    assert (first.flip_rate, first.pixels) == (1 / 4, 6)  # 0 is left at one of its 2 + 2 pixels that have a next frame
    assert (second.flip_rate, second.pixels) == (1 / 4, 6)
    assert metrics.compute().as_dict() == {"flip_rate": 0.25, "unlabelled_share": 0.0}  # nothing along flow


def test_labels_that_move_with_the_flow_are_consistent_though_they_flip():
    labels = np.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])
    flow = still((1, 4))
    flow[..., 0] = 1  # everything moves one pixel to the right; the last one leaves the picture
    scores = measured(labels, 2, [flow]).compute()
    assert scores.flip_rate == 2 / 4
    assert (scores.flow_consistency, scores.flow_agreement, scores.compared_share) == (1, 1, 3 / 4)


def test_labels_that_stay_behind_moving_objects_are_steady_but_not_consistent():
    labels = np.array([[[1, 0, 0, 0]], [[1, 0, 0, 0]]])
    flow = still((1, 4))
    flow[..., 0] = 1
    scores = measured(labels, 2, [flow]).compute()
    assert scores.flip_rate == 0
    # compared are pixels 0..2 with labels 1 0 0; in the next frame they have 0 0 0. Class 0: 2 of 3, class 1: 0 of 1
    assert scores.flow_agreement == 2 / 3
    assert scores.flow_consistency == pytest.approx((2 / 3 + 0) / 2)


def test_hidden_pixels_are_left_out():
    labels = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 0]]])
    seen = np.array([[True, False, True, False]])  # exactly the two that flip are hidden
    scores = measured(labels, 2, [still((1, 4))], [seen]).compute()
    assert (scores.flow_agreement, scores.compared_share) == (1, 1 / 2)


def test_unlabelled_counts_as_a_label_in_flips_and_as_an_error_only_where_it_comes_new():
    labels = np.array([[[0, 0, 255, 7]], [[0, 255, 0, 7]]])  # C = 2: 7 and 255 are both unlabelled
    scores = measured(labels, 2, [still((1, 4))]).compute()
    assert scores.flip_rate == 2 / 4
    assert scores.unlabelled_share == 4 / 8
    # pixels without a class in the first frame are not compared; of the other two one has lost its class
    assert (scores.compared_share, scores.flow_agreement, scores.flow_consistency) == (2 / 4, 1 / 2, 1 / 2)


def test_a_constant_prediction_scores_best_whatever_happens_in_the_picture():
    flow = np.random.default_rng(0).normal(0, 3, (4, 20, 30, 2))
    scores = measured(np.full((5, 20, 30), 3), 5, flow).compute()
    assert (scores.flip_rate, scores.flow_consistency, scores.flow_agreement) == (0, 1, 1)
    assert scores.tc < 1  # in the published script what leaves the picture becomes class 0


def test_scores_along_flow_are_pooled_over_clips_and_carry_the_name_of_the_flow():
    metrics = StabilityMetrics(2, "raft")
    for clip, pair in (("a", [[[0, 0]], [[0, 1]]]), ("b", [[[1, 1]], [[1, 1]]])):
        for t, labels in enumerate(pair):
            metrics.update(np.array(labels), still((1, 2)) if t else None, clip=clip)
    found = metrics.compute().as_dict()
    # before 0 0 | 1 1, after 0 1 | 1 1. Class 0: 1 of 2, class 1: 2 of 3
    assert found["flow_consistency_raft"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["flow_agreement_raft"] == 3 / 4
    assert set(found) == {
        "flip_rate", "unlabelled_share", "flow_consistency_raft", "flow_agreement_raft", "tc_raft", "compared_share",
    }  # fmt: skip
    assert (metrics.compute().frames, metrics.compute().clips) == (4, 2)
    assert metrics.per_clip()["a"].flow_agreement == 1 / 2


def test_flips_are_those_that_runs_record():
    labels = np.random.default_rng(1).integers(0, 4, (6, 5, 7)).astype(np.uint8)
    labels[labels == 3] = UNLABELLED
    recorded = flip_rates(labels, None)[1:]
    metrics = measured(labels, 3)
    assert metrics.counts[""].pairs[:, 0].tolist() == [round(35 * share) for share in recorded]
    assert metrics.compute().flip_rate == pytest.approx(np.mean(recorded), abs=1e-15)


# --- against a slow second implementation ----------------------------------------------------------------------------


def slow_scores(labels, num_classes, flows, seen) -> dict[str, Fraction | None]:
    """Every score from its definition, pixel by pixel."""
    frames, height, width = labels.shape
    flips = pixels = unlabelled = 0
    compared: list[tuple[int, int]] = []
    script: list[tuple[int, int]] = []

    def label(t, y, x):
        value = int(labels[t, y, x])
        return value if 0 <= value < num_classes else None

    for t, y, x in np.ndindex(frames, height, width):
        unlabelled += label(t, y, x) is None
        if t + 1 == frames:
            continue
        before = label(t, y, x)
        flips += before != label(t + 1, y, x)
        pixels += 1
        dx, dy = (float(v) for v in flows[t, y, x])
        if not (math.isfinite(dx) and math.isfinite(dy)):
            continue
        there_x, there_y = x + dx, y + dy
        if before is None:
            continue
        # the script's scaling, and class 0 outside
        column = round(((2 * there_x / max(width - 1, 1) - 1 + 1) * width - 1) / 2)
        row = round(((2 * there_y / max(height - 1, 1) - 1 + 1) * height - 1) / 2)
        inside = 0 <= column < width and 0 <= row < height
        script.append((before, label(t + 1, row, column) if inside else 0))
        if -0.5 <= there_x < width - 0.5 and -0.5 <= there_y < height - 0.5 and seen[t, y, x]:
            after = label(t + 1, min(round(there_y), height - 1), min(round(there_x), width - 1))
            compared.append((before, after))
    return {
        "flip_rate": Fraction(flips, pixels) if pixels else None,
        "unlabelled_share": Fraction(unlabelled, labels.size),
        "flow_consistency_made_up": slow_mean_iou(compared),
        "flow_agreement_made_up": Fraction(sum(a == b for a, b in compared), len(compared)) if compared else None,
        "tc_made_up": slow_mean_iou(script),
        "compared_share": Fraction(len(compared), pixels) if pixels else None,
    }


def slow_mean_iou(pairs) -> Fraction | None:
    ious = []
    for c in {before for before, _ in pairs}:
        union = sum(c in pair for pair in pairs)
        ious.append(Fraction(sum(pair == (c, c) for pair in pairs), union))
    return sum(ious) / len(ious) if ious else None


@given(st.integers(0, 2**32 - 1))
def test_counts_equal_the_definitions_on_random_clips(seed: int):
    rng = np.random.default_rng(seed)
    frames, height, width, num_classes = (int(n) for n in rng.integers(1, 6, 4))
    dtype = rng.choice([np.uint8, np.uint16, np.int64])
    labels = rng.integers(0, num_classes + 1, (frames, height, width)).astype(dtype)
    labels[labels == num_classes] = UNLABELLED
    if rng.random() < 0.2:
        labels[:] = UNLABELLED
    # multiples of 1/4 and 1/8 px decide ties; float32 and the slow float64 see them alike where sides are small
    flows = (rng.integers(-12, 13, (frames - 1, height, width, 2)) / 8 + 1 / 64).astype(np.float32)
    flows[rng.random(flows.shape) < 0.05] = np.nan
    seen = rng.random((frames - 1, height, width)) < 0.8
    metrics = measured(labels, num_classes, flows, seen)
    expected = slow_scores(labels, num_classes, flows, seen)
    # the script keeps pixels whose flow is not finite, as class 0 in the next frame: too odd a case to be compared
    names = [name for name in expected if name != "tc_made_up" or np.isfinite(flows).all()]
    found = metrics.compute().as_dict()
    for name in names:
        exact = expected[name]
        assert found[name] == (None if exact is None else pytest.approx(float(exact), abs=1e-12)), name


# --- the published TC ------------------------------------------------------------------------------------------------


def moving_clip(seed: int, frames: int, size: tuple[int, int], classes: int, speed: float):
    """Labels in blocks of 4 x 4 px, half of them as in the first frame, and random flow."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (frames, -(-size[0] // 4), -(-size[1] // 4)))
    labels = blocks.repeat(4, 1).repeat(4, 2)[:, : size[0], : size[1]].astype(np.uint8)
    labels = np.where(rng.random(labels.shape) < 0.5, labels[:1], labels).astype(np.uint8)
    return labels, rng.normal(0, speed, (frames - 1, *size, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ((0, 5, (24, 36), 5, 2.0), 0.16813300536129985),
        ((1, 4, (25, 37), 124, 3.0), 0.026093632031774918),
        ((2, 3, (16, 20), 4, 0.0), 0.3001443090362078),
        ((4, 6, (20, 30), 3, 15.0), 0.12654412176376653),
    ],
    ids=["even sides", "odd sides, 124 classes", "no motion", "out of the picture"],
)
def test_tc_equals_the_published_script(clip, expected):
    # expected: `flowwarp` of VSPW_baseline's TC_cal.py and its `Evaluator`, run on the same labels and flow
    labels, flows = moving_clip(*clip)
    assert measured(labels, 124, flows).compute().tc == pytest.approx(expected, abs=1e-12)


def test_without_motion_the_script_loses_the_last_column_of_pictures_of_even_width():
    labels = np.ones((2, 3, 4), np.uint8)  # rounding to even: 3.5 becomes 4, which is outside; 2.5 becomes 2
    assert measured(labels, 2, [still((3, 4))]).compute().tc == 3 / 4
    assert measured(labels[..., :3], 2, [still((3, 3))]).compute().tc == 1


# --- edges -----------------------------------------------------------------------------------------------------------


def test_one_frame_has_nothing_to_compare():
    scores = measured(np.zeros((1, 2, 2), np.uint8), 2, []).compute()
    assert scores.as_dict() == {
        "flip_rate": None, "unlabelled_share": 0.0, "flow_consistency_made_up": None, "flow_agreement_made_up": None,
        "tc_made_up": None, "compared_share": None,
    }  # fmt: skip
    assert (scores.frames, scores.clips) == (1, 1)


def test_no_frame_at_all():
    assert math.isnan(StabilityMetrics(3).compute().flip_rate)
    assert StabilityMetrics(3).per_class()[2].pixels == 0


def test_frames_of_one_pixel():
    scores = measured(np.array([[[0]], [[1]], [[1]]]), 2, [still((1, 1))] * 2).compute()
    assert scores.flip_rate == 1 / 2
    assert scores.flow_agreement == 1 / 2


def test_all_pixels_unlabelled_are_steady_and_say_so():
    scores = measured(np.full((3, 2, 2), UNLABELLED), 2, [still((2, 2))] * 2).compute()
    assert (scores.flip_rate, scores.unlabelled_share) == (0, 1)
    assert math.isnan(scores.flow_consistency)


def test_labels_of_16_bits_are_told_apart():
    labels = np.array([[[0, 299, 44]], [[300, 299, 43]]], np.uint16)  # 300 is unlabelled; 299 - 256 = 43 must not mix
    metrics = measured(labels, 300, [still((1, 3))])
    assert metrics.compute().flip_rate == 2 / 3
    assert metrics.per_class()[299].flip_rate == 0
    assert metrics.per_class()[299].pixels == 2
    assert metrics.per_class()[43].pixels == 1


def test_the_caller_may_fill_the_same_array_again():
    metrics, frame = StabilityMetrics(2), np.zeros((1, 4), np.uint8)
    metrics.update(frame)
    frame[:] = 1
    metrics.update(frame)
    assert metrics.compute().flip_rate == 1


def test_misfits_are_refused_in_words():
    metrics = StabilityMetrics(2, "dis")
    metrics.update(np.zeros((2, 3), np.uint8), clip="a")
    with pytest.raises(ShapeError, match=r"frame 1 of clip 'a' has labels \(3, 2\), frames before \(2, 3\)"):
        metrics.update(np.zeros((3, 2), np.uint8), clip="a")
    with pytest.raises(ShapeError, match=r"flow is float32 \(3, 2, 2\), expected floats \(2, 3, 2\)"):
        metrics.update(np.zeros((2, 3), np.uint8), still((3, 2)), clip="a")
    with pytest.raises(ShapeError, match=r"flow is int64"):
        metrics.update(np.zeros((2, 3), np.uint8), np.zeros((2, 3, 2), np.int64), clip="a")
    with pytest.raises(ShapeError, match="is_seen is"):
        metrics.update(np.zeros((2, 3), np.uint8), still((2, 3)), np.ones((3, 2), bool), clip="a")
    with pytest.raises(LabelError, match="argmax the logits"):
        metrics.update(np.zeros((2, 3)), clip="a")
    with pytest.raises(SettingsError, match=r"first frame of clip 'b' .* without flow"):
        metrics.update(np.zeros((2, 3), np.uint8), still((2, 3)), clip="b")
    with pytest.raises(SettingsError, match="clip 'a' was already closed"):
        metrics.update(np.zeros((2, 3), np.uint8), clip="a")
    with pytest.raises(SettingsError, match="pass flow_name"):
        StabilityMetrics(2).update(np.zeros((2, 3), np.uint8), still((2, 3)))
    with pytest.raises(SettingsError, match=r"1\.\.4096, found 0"):
        StabilityMetrics(0)


# --- parts and intervals ---------------------------------------------------------------------------------------------


def made_up(seed: int, noise: float, num_clips: int = 4) -> StabilityMetrics:
    rng = np.random.default_rng(seed)
    metrics = StabilityMetrics(3, "dis")
    for clip in range(num_clips):
        truth = rng.integers(0, 3, (6, 8))
        for t in range(5):
            labels = np.where(rng.random(truth.shape) < noise * (clip + 1) / num_clips, (truth + 1) % 3, truth)
            metrics.update(labels, still((6, 8)) if t else None, clip=f"clip {clip}")
    return metrics


def as_tuple(scores: StabilityScores) -> list[float | None]:
    return list(scores.as_dict().values())


def test_parts_counted_apart_add_up_to_the_whole():
    whole, first, second = StabilityMetrics(3, "dis"), StabilityMetrics(3, "dis"), StabilityMetrics(3, "dis")
    rng = np.random.default_rng(0)
    for clip, part in (("a", first), ("b", second), ("c", second)):
        for t in range(3):
            labels, flow = rng.integers(0, 4, (4, 5)), rng.normal(size=(4, 5, 2)) if t else None
            whole.update(labels, flow, clip=clip)
            part.update(labels, flow, clip=clip)
    restored = StabilityMetrics(3, "dis")
    restored.load_state_dict(second.state_dict())
    first.merge(restored)
    assert as_tuple(first.compute()) == as_tuple(whole.compute())
    assert first.per_clip().keys() == {"a", "b", "c"}
    assert first.per_class() == whole.per_class()
    with pytest.raises(SettingsError, match=r"2 clips were counted on both sides \(first: 'b'\)"):
        first.merge(second)
    with pytest.raises(SettingsError, match=r"counts with \(classes, flow\) \(3, 'raft'\) do not fit \(3, 'dis'\)"):
        first.merge(StabilityMetrics(3, "raft"))


@pytest.mark.parametrize("statistic", STABILITY_STATISTICS)
def test_the_interval_comes_from_sums_over_drawn_clips(statistic: str):
    base, other = made_up(0, 0.5).counts, made_up(1, 0.2).counts
    found = stability_bootstrap(base, other, statistic, seed=3, n=40)

    def score(side, clips):
        metrics = StabilityMetrics(3, "dis")
        state = {"num_classes": 3, "flow_name": "dis", "clips": {i: vars(side[clip]) for i, clip in enumerate(clips)}}
        metrics.load_state_dict(state)
        return getattr(metrics.compute(), statistic)

    names = list(base)
    draws = np.random.default_rng(3).integers(0, 4, (40, 4))
    slow = [score(other, [names[i] for i in draw]) - score(base, [names[i] for i in draw]) for draw in draws]
    assert found.difference == pytest.approx(score(other, names) - score(base, names), abs=1e-12)
    assert found.interval == pytest.approx(tuple(np.quantile(slow, (0.025, 0.975))), abs=1e-12)
    assert (found.clips, found.resamples) == (4, 40)


def test_less_noise_is_a_gain_that_is_clear():
    gain = stability_bootstrap(made_up(0, 0.8, 6).counts, made_up(0, 0.05, 6).counts, "flow_agreement")
    assert gain.is_clear
    assert gain.difference > 0


def test_one_clip_says_that_it_has_no_interval():
    found = stability_bootstrap(made_up(0, 0.5, 1).counts, made_up(1, 0.2, 1).counts, "flip_rate")
    assert found.interval is None
    assert "1 clip, no interval" in str(found)


def test_a_clip_of_one_frame_is_not_counted_among_the_clips_of_an_interval():
    metrics = made_up(0, 0.5, 2)
    metrics.update(np.zeros((6, 8), int), clip="a single frame")
    assert stability_bootstrap(metrics.counts, metrics.counts, "flip_rate").clips == 2
    assert stability_bootstrap({}, {}).clips == 0


def test_sets_of_different_frames_are_not_compared():
    base = made_up(0, 0.5, 2).counts
    with pytest.raises(MissingPredictionsError, match="clip 'clip 2' is only in one"):
        stability_bootstrap(base, made_up(0, 0.5, 3).counts)
    shorter = measured(np.zeros((2, 6, 8), int), 3, clip="clip 0")
    with pytest.raises(MissingPredictionsError, match="has 5 and 2 frames"):
        stability_bootstrap({"clip 0": base["clip 0"]}, shorter.counts)
    with pytest.raises(SettingsError, match="unknown statistic 'mIoU'; choose one of flip_rate, flow_consistency"):
        stability_bootstrap(base, base, "mIoU")
