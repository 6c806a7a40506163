import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.metrics import PROTOCOLS, Scores, VideoSegMetrics, confusion

CLIP = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> prediction, truth, (T, H, W) each


def score(prediction: list, truth: list, num_classes: int, protocol: str = "vspw", **options: object) -> Scores:
    metrics = VideoSegMetrics(num_classes, **options)
    metrics.update(np.array(prediction, np.uint8), np.array(truth, np.uint8), clip="only")
    return metrics.compute(protocol)


# --- cases small enough to compute by hand ---------------------------------------------------------------------------


def test_region_scores_of_six_pixels():
    # truth 0 0 0 1 1 void; prediction 0 0 1 1 0 1. Void does not count, not even as a false positive of class 1.
    # class 0: both 2, truth 3, predicted 3 -> 2/4; class 1: both 1, truth 2, predicted 2 -> 1/3.
    scores = score([[[0, 0, 1, 1, 0, 1]]], [[[0, 0, 0, 1, 1, 255]]], 2)
    assert scores.miou == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores.wiou == pytest.approx(3 / 5 * 1 / 2 + 2 / 5 * 1 / 3)
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.class_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_stays_out_of_the_mean_but_hurts_the_class_it_replaces():
    scores = score([[[0, 2]]], [[[0, 0]]], 3)
    assert scores.miou == 1 / 2  # over class 0 alone


def test_iou_is_taken_over_the_whole_set_and_not_averaged_over_frames():
    # class 0 in frame 1: 1/1, in frame 2: 1/3 -> together 2/4, while the mean over frames would be 2/3
    scores = score([[[0, 1, 1]], [[0, 1, 1]]], [[[0, 1, 1]], [[0, 0, 0]]], 2)
    assert scores.miou == pytest.approx((2 / 4 + 2 / 4) / 2)  # class 1: both 2, truth 2, predicted 4


def test_unlabelled_predictions_are_errors_that_never_spill_into_other_cells():
    metrics = VideoSegMetrics(2)
    metrics.update(np.array([[0, 255, 7, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8), clip="a")
    assert metrics.counts["a"].confusion.tolist() == [[1, 0, 1], [0, 1, 1]]
    scores = metrics.compute()
    assert scores.miou == 1 / 2  # each class: both 1, truth 2, predicted 1
    assert scores.unlabelled_share == 2 / 4


def test_negative_and_wide_predictions_are_unlabelled_too():
    metrics = VideoSegMetrics(2, ignore_index=-100)
    metrics.update(np.array([[-1, 256, 65536, 1]]), np.array([[0, 0, -100, 1]]), clip="a")
    assert metrics.counts["a"].confusion.tolist() == [[0, 0, 2], [0, 1, 0]]


def test_the_vspw_protocol_drops_the_last_window_and_the_paper_does_not():
    # T = 3, n = 2: windows (0, 1) and (1, 2). The prediction keeps 2 of 2 pixels in the first, 1 of 2 in the second.
    truth = [[[0, 1]], [[0, 1]], [[0, 1]]]
    prediction = [[[0, 0]], [[0, 0]], [[1, 0]]]
    assert score(prediction, truth, 2, "vspw", windows=(2,)).vc == {2: 1.0}
    assert score(prediction, truth, 2, "paper", windows=(2,)).vc == {2: 0.75}
    # strict: pixel 0 is right in frames 0 and 1 only, pixel 1 never -> 1/2 and 0/2
    assert score(prediction, truth, 2, "strict", windows=(2,)).vc == {2: 0.25}


def test_a_constant_prediction_is_perfectly_consistent_unless_it_must_be_right():
    truth = np.full((10, 2, 2), 1)
    for protocol in ("vspw", "paper"):
        assert score(np.zeros_like(truth), truth, 2, protocol, windows=(8,)).vc == {8: 1.0}
    assert score(np.zeros_like(truth), truth, 2, "strict", windows=(8,)).vc == {8: 0.0}


def test_void_counts_as_a_label_of_the_truth_except_under_strict():
    # One labelled pixel (kept) and one void pixel (prediction flips): the void pixel lowers VC from 1 to 1/2.
    truth = [[[0, 255]], [[0, 255]], [[0, 255]]]
    prediction = [[[0, 0]], [[0, 1]], [[0, 0]]]
    assert score(prediction, truth, 2, "vspw", windows=(2,)).vc == {2: 0.5}
    assert score(prediction, truth, 2, "paper", windows=(2,)).vc == {2: 0.5}
    assert score(prediction, truth, 2, "strict", windows=(2,)).vc == {2: 1.0}


def test_two_void_values_are_two_labels_for_vspw_and_one_for_the_others():
    truth = np.array([[[0, 255]], [[0, 254]], [[0, 255]], [[0, 255]]], np.uint8)
    prediction = np.array([[[0, 0]], [[0, 1]], [[0, 1]], [[0, 1]]], np.uint8)
    metrics = VideoSegMetrics(2, windows=(2,), other_void_ids=(254,))
    metrics.update(prediction, truth, clip="a")
    # paper, three windows: void pixel stable in all, prediction flips in the first -> 1/2, 1, 1
    assert metrics.compute("paper").vc[2] == pytest.approx(2.5 / 3)
    # vspw, first two windows: the void pixel changes from 255 to 254 to 255, only pixel 0 is common -> 1, 1
    assert metrics.compute("vspw").vc[2] == 1.0


def test_void_that_changes_its_value_has_been_one_label_from_the_clips_start():
    truth = np.array([[[255]], [[255]], [[254]], [[254]]], np.uint8)
    metrics = VideoSegMetrics(2, windows=(4,), other_void_ids=(254,))
    metrics.update(np.zeros_like(truth), truth)
    assert metrics.compute("paper").vc[4] == 1.0  # one window of four frames, void all along


def test_windows_of_all_clips_are_pooled_so_long_clips_weigh_more():
    # n = 2, paper: clip "a" has 1 window with VC 0, clip "b" 3 windows with VC 1 -> 3/4, not 1/2.
    metrics = VideoSegMetrics(2, windows=(2,))
    metrics.update(np.array([[[0]], [[1]]]), np.zeros((2, 1, 1), int), clip="a")
    metrics.update(np.zeros((4, 1, 1), int), np.zeros((4, 1, 1), int), clip="b")
    assert metrics.compute("paper").vc[2] == 0.75


def test_a_new_clip_starts_new_windows():
    metrics = VideoSegMetrics(2, windows=(2,))
    for clip in ("a", "b", "c"):
        metrics.update(np.zeros((1, 1), int), np.zeros((1, 1), int), clip=clip)
    assert math.isnan(metrics.compute("paper").vc[2])


@pytest.mark.parametrize(("frames", "vspw", "paper"), [(7, math.nan, math.nan), (8, math.nan, 1.0), (9, 1.0, 1.0)])
def test_clips_need_n_frames_for_the_paper_and_one_more_for_vspw(frames: int, vspw: float, paper: float):
    still = np.zeros((frames, 2, 2), int)
    assert score(still, still, 1, "vspw", windows=(8,)).vc[8] == pytest.approx(vspw, nan_ok=True)
    assert score(still, still, 1, "paper", windows=(8,)).vc[8] == pytest.approx(paper, nan_ok=True)


def test_the_cffm_protocol_drops_clips_of_up_to_16_frames_from_everything():
    metrics = VideoSegMetrics(2, windows=(8, 16))
    metrics.update(np.ones((16, 1, 1), int), np.zeros((16, 1, 1), int), clip="short, all wrong")
    metrics.update(np.zeros((17, 1, 1), int), np.zeros((17, 1, 1), int), clip="long, all right")
    scores = metrics.compute("cffm")
    assert (scores.miou, scores.mbiou_interior, scores.frames, scores.clips, scores.dropped_clips) == (1, 1, 17, 1, 1)
    assert scores.vc == {8: 1.0, 16: 1.0}
    assert list(metrics.per_clip("cffm")) == ["long, all right"]
    assert metrics.per_class("cffm")[0].pixels == 17
    assert metrics.compute("vspw").pixel_accuracy == pytest.approx(17 / 33)


def test_band_scores_of_a_vertical_edge():
    # 1 x 8, truth 00001111: the 5 x 5 band is columns 2..5. The prediction's edge lies one pixel to the right.
    truth, prediction = [[[0, 0, 0, 0, 1, 1, 1, 1]]], [[[0, 0, 0, 0, 0, 1, 1, 1]]]
    scores = score(prediction, truth, 2)
    # in the band: truth 0011, predicted 0001 -> class 0: 2/3, class 1: 1/2
    assert scores.mbiou == pytest.approx((2 / 3 + 1 / 2) / 2)
    # Eq. 6: 3 of 4 right -> 3 / (4 + 4 - 3); outside the band all 4 are right
    assert scores.mbiou_per_image == pytest.approx(3 / 5)
    assert scores.mbiou_interior == 1.0
    # Boundary IoU pads with zeros, so in an image one pixel high everything is boundary: plain IoU 4/5 and 3/4
    assert scores.boundary_iou == pytest.approx((4 / 5 + 3 / 4) / 2)


def test_two_sided_boundary_iou_of_a_shifted_edge():
    # 9 x 20, edge before column 10 (truth) and 12 (prediction). Zeros around: rows 0, 1, 7, 8 and columns 0, 1, 18, 19
    # are boundary for both. Of the 5 inner rows: truth's class 0 adds columns 8, 9, the prediction's 10, 11;
    # truth's class 1 adds 10, 11, the prediction's 12, 13.
    truth = np.repeat(np.arange(20)[None] >= 10, 9, axis=0)[None]
    prediction = np.repeat(np.arange(20)[None] >= 12, 9, axis=0)[None]
    # class 0, truth: 4 rows x 10 + 5 rows x (2 + 2) = 60, prediction: 4 x 12 + 5 x 4 = 68, both: 4 x 10 + 5 x 2 = 50
    # class 1, truth: 60, prediction: 4 x 8 + 5 x 4 = 52, both: 4 x 8 + 5 x 2 = 42
    scores = score(prediction, truth, 2)
    assert scores.boundary_iou == pytest.approx((50 / (60 + 68 - 50) + 42 / (60 + 52 - 42)) / 2)


def test_a_perfect_prediction_that_runs_on_through_void_is_perfect_in_every_boundary_reading():
    truth = np.zeros((1, 12, 12), np.uint8)
    truth[0, :, 6:] = 1
    prediction = truth.copy()
    truth[0, 3:8, 2:9] = 255
    scores = score(prediction, truth, 2)
    assert (scores.mbiou, scores.boundary_iou, scores.mbiou_per_image, scores.mbiou_interior) == (1, 1, 1, 1)


def test_the_edge_of_void_belongs_to_the_band():
    scores = score([[[1, 0, 0, 0, 0, 0]]], [[[255, 0, 0, 0, 0, 0]]], 2)
    assert scores.mbiou == 1.0  # columns 1 and 2; without void as a label there would be no band and no score


def test_scores_without_any_truth_are_undefined_and_null_in_json():
    scores = score([[[0, 1]]], [[[255, 255]]], 2)
    values = scores.as_dict()
    assert set(values.values()) == {None}
    assert math.isnan(scores.miou)
    assert math.isnan(scores.unlabelled_share)
    assert VideoSegMetrics(2).compute().as_dict() == values


def test_per_class_names_what_each_class_adds():
    metrics = VideoSegMetrics(3)
    metrics.update(np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 255]]))
    zero, one, two = metrics.per_class()
    assert (zero.iou, zero.accuracy, zero.pixels, zero.predicted_pixels) == (1 / 2, 1, 1, 2)
    assert (one.iou, one.accuracy, one.pixels, one.predicted_pixels) == (1 / 2, 1 / 2, 2, 1)
    assert math.isnan(two.iou)
    assert two.as_dict()["IoU"] is None


# --- the slow, literal second implementation -------------------------------------------------------------------------


def slow_scores(clips: CLIP, num_classes: int, void_ids: Sequence[int], windows: Sequence[int], protocol: str) -> dict:
    """Every score from its definition, pixel by pixel, in fractions."""
    if protocol == "cffm":
        clips = {name: pair for name, pair in clips.items() if len(pair[1]) > 16}
    classes = range(num_classes)
    counts = {kind: [[0, 0, 0] for _ in classes] for kind in ("all", "band", "boundary")}
    labelled = unlabelled = 0
    per_image: dict[str, list[Fraction]] = {"band": [], "interior": []}
    for prediction, truth in clips.values():
        for p, t in zip(prediction.tolist(), truth.tolist(), strict=True):
            height, width = len(t), len(t[0])
            band = {px for c in classes for px in edge_pixels({px for px in grid(t) if at(t, px) == c}, height, width)}
            seen = p if not void_ids else [
                [255 if at(t, (y, x)) in void_ids else p[y][x] for x in range(width)] for y in range(height)
            ]  # fmt: skip
            for c in classes:
                true_edge = edge_pixels({px for px in grid(t) if at(t, px) == c}, height, width, padded=True)
                seen_edge = edge_pixels({px for px in grid(t) if at(seen, px) == c}, height, width, padded=True)
                for i, amount in enumerate((true_edge & seen_edge, true_edge, seen_edge)):
                    counts["boundary"][c][i] += len(amount)
            right = {"band": 0, "interior": 0}
            number = {"band": 0, "interior": 0}
            for px in grid(t):
                if at(t, px) not in classes:
                    continue
                labelled += 1
                unlabelled += at(p, px) not in classes
                place = "band" if px in band else "interior"
                number[place] += 1
                right[place] += at(p, px) == at(t, px)
                for kind in ("all", "band") if place == "band" else ("all",):
                    counts[kind][at(t, px)][0] += at(p, px) == at(t, px)
                    counts[kind][at(t, px)][1] += 1
                    if at(p, px) in classes:
                        counts[kind][at(p, px)][2] += 1
            for place in right:
                if number[place]:
                    per_image[place].append(Fraction(right[place], 2 * number[place] - right[place]))

    def mean(values: list[Fraction]) -> float:
        return float(sum(values) / len(values)) if values else math.nan

    def class_ious(kind: str) -> list[Fraction]:
        return [Fraction(both, truth + pred - both) for both, truth, pred in counts[kind] if truth]

    result = {
        "mIoU": mean(class_ious("all")),
        "mBIoU": mean(class_ious("band")),
        "boundary_IoU_2px": mean(class_ious("boundary")),
        "mBIoU_per_image": mean(per_image["band"]),
        "mBIoU_interior": mean(per_image["interior"]),
        "class_accuracy": mean([Fraction(both, truth) for both, truth, _ in counts["all"] if truth]),
        "pixel_accuracy": sum(c[0] for c in counts["all"]) / labelled if labelled else math.nan,
        "unlabelled_share": unlabelled / labelled if labelled else math.nan,
        "wIoU": float(
            sum(Fraction(truth, labelled) * Fraction(both, truth + pred - both)
                for both, truth, pred in counts["all"] if truth)
        ) if labelled else math.nan,
    }  # fmt: skip
    for n in windows:
        result[f"mVC{n}"] = mean([vc for pair in clips.values() for vc in slow_vc(*pair, classes, n, protocol)])
    return result


def grid(frame: list) -> list[tuple[int, int]]:
    return [(y, x) for y in range(len(frame)) for x in range(len(frame[0]))]


def at(frame: list, pixel: tuple[int, int]) -> int:
    return frame[pixel[0]][pixel[1]]


def edge_pixels(mask: set, height: int, width: int, padded: bool = False) -> set:
    """The mask minus its erosion by a 5 x 5 square; outside the image counts as mask, or as background if padded."""

    def survives(y: int, x: int) -> bool:
        for v in range(y - 2, y + 3):
            for u in range(x - 2, x + 3):
                is_inside = 0 <= v < height and 0 <= u < width
                if (v, u) not in mask and (is_inside or padded):
                    return False
        return True

    return {px for px in mask if not survives(*px)}


def slow_vc(prediction: np.ndarray, truth: np.ndarray, classes: range, n: int, protocol: str) -> list[Fraction]:
    """VC of every window of a clip, as the scripts' get_common does it."""
    num_frames = len(truth)
    values = []
    for start in range(num_frames - n + (protocol in ("paper", "strict"))):
        common = kept = 0
        for px in grid(truth[0]):
            t = [int(frame[px]) for frame in truth[start : start + n]]
            p = [int(frame[px]) for frame in prediction[start : start + n]]
            if protocol != "vspw":
                t = [label if label in classes else -1 for label in t]
            if len(set(t)) > 1 or (protocol == "strict" and t[0] == -1):
                continue
            common += 1
            kept += t == p if protocol == "strict" else len(set(p)) == 1
        if common:
            values.append(Fraction(kept, common))
    return values


@st.composite
def random_clips(draw: st.DrawFn) -> tuple[CLIP, int, tuple[int, ...]]:
    num_classes = draw(st.integers(1, 4))
    void_ids = draw(st.sampled_from([(255,), (255, 254)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clips = {}
    for index in range(draw(st.integers(1, 3))):
        shape = (draw(st.sampled_from([1, 2, 3, 5, 16, 17, 18])), draw(st.integers(1, 7)), draw(st.integers(1, 7)))
        churn = draw(st.sampled_from([0.0, 0.02, 0.2, 1.0]))  # share of pixels that change from frame to frame
        pair = []
        for strangers in ([255, 200], void_ids):
            present = draw(st.integers(1, num_classes))
            values = np.array([*range(present), *(strangers if draw(st.booleans()) else [])], np.uint8)
            clip = rng.choice(values, shape)
            for t in range(1, shape[0]):
                clip[t] = np.where(rng.random(shape[1:]) < churn, clip[t], clip[t - 1])
            pair.append(clip)
        if draw(st.booleans()):
            pair[0] = np.where(rng.random(shape) < 0.2, pair[0], pair[1])
        clips[f"clip {index}"] = (pair[0], pair[1])
    return clips, num_classes, void_ids


@settings(max_examples=40, deadline=None)
@given(random_clips())
def test_one_pass_equals_the_definitions_on_random_clips(case: tuple[CLIP, int, tuple[int, ...]]):
    clips, num_classes, void_ids = case
    windows = (2, 3, 16)
    metrics = VideoSegMetrics(num_classes, windows=windows, other_void_ids=void_ids[1:])
    for name, (prediction, truth) in clips.items():
        metrics.update(prediction, truth, clip=name)
    for protocol in PROTOCOLS:
        scores = metrics.compute(protocol)
        found = {**scores.as_dict(), "unlabelled_share": scores.unlabelled_share}
        expected = slow_scores(clips, num_classes, void_ids, windows, protocol)
        assert {name: math.nan if value is None else value for name, value in found.items()} == pytest.approx(
            expected, rel=1e-12, nan_ok=True
        )


@settings(max_examples=10, deadline=None)
@given(random_clips())
def test_label_sets_above_255_classes_count_the_same(case: tuple[CLIP, int, tuple[int, ...]]):
    clips, num_classes, _ = case
    narrow = VideoSegMetrics(num_classes, ignore_index=-1, windows=(2,), other_void_ids=(254, 255))
    wide = VideoSegMetrics(300, ignore_index=-1, windows=(2,), other_void_ids=(354, 355))
    for name, (prediction, truth) in clips.items():
        # ids from 200 on are strangers: move them out of 0..299 too
        narrow.update(prediction, truth, clip=name)
        wide.update(*(np.where(x >= 200, x.astype(np.uint16) + 100, x) for x in (prediction, truth)), clip=name)
    assert wide.compute("vspw").as_dict() == pytest.approx(narrow.compute("vspw").as_dict())


# --- statements that must always hold --------------------------------------------------------------------------------


def noisy_clip(seed: int, frames: int = 18, num_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Four blocks of 6 x 7 pixels that stand still, so that every score is defined, and a noisy prediction."""
    rng = np.random.default_rng(seed)
    blocks = np.array([[0, 1], [2, rng.integers(num_classes)]], np.uint8)
    truth = np.repeat(np.kron(blocks, np.ones((6, 7), np.uint8))[None], frames, axis=0)
    prediction = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, num_classes, truth.shape), truth)
    return prediction.astype(np.uint8), truth


def three_clips(**options: object) -> VideoSegMetrics:
    metrics = VideoSegMetrics(3, **options)
    for seed, clip in enumerate("abc"):
        metrics.update(*noisy_clip(seed, frames=18 + 4 * seed), clip=clip)
    return metrics


def test_frames_one_by_one_count_like_a_stack():
    prediction, truth = noisy_clip(0)
    stack, single = VideoSegMetrics(3), VideoSegMetrics(3)
    stack.update(prediction, truth, clip="a")
    for t in range(len(truth)):
        single.update(prediction[t], truth[t], clip="a")
    assert single.compute() == stack.compute()


def test_the_caller_may_reuse_its_arrays_for_the_next_frame():
    prediction, truth = noisy_clip(0)
    fresh, reused = VideoSegMetrics(3), VideoSegMetrics(3)
    fresh.update(prediction, truth)
    buffers = np.empty_like(prediction[0]), np.empty_like(truth[0])
    for t in range(len(truth)):
        np.copyto(buffers[0], prediction[t])
        np.copyto(buffers[1], truth[t])
        reused.update(*buffers)
    assert reused.compute() == fresh.compute()


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16])
def test_any_integer_type_and_memory_order_counts_the_same(dtype: type):
    prediction, truth = noisy_clip(0)
    plain, other = VideoSegMetrics(3), VideoSegMetrics(3)
    plain.update(prediction, truth)
    other.update(np.asfortranarray(prediction.astype(dtype)), np.asfortranarray(truth.astype(dtype)))
    assert other.compute() == plain.compute()


def test_permuting_the_classes_permutes_the_class_scores():
    prediction, truth = noisy_clip(0)
    permuted = np.array([2, 0, 1], np.uint8)
    first, second = VideoSegMetrics(3), VideoSegMetrics(3)
    first.update(prediction, truth)
    second.update(permuted[prediction], permuted[truth])
    assert [second.per_class()[i] for i in permuted] == list(first.per_class())
    assert second.compute().as_dict() == pytest.approx(first.compute().as_dict())


def test_clip_counts_add_up_to_the_set():
    metrics = three_clips(windows=(2, 8))
    per_clip = metrics.per_clip("vspw")
    assert list(per_clip) == ["a", "b", "c"]
    # VC is pooled: (T - n) windows a clip, all defined here
    weights = [16, 20, 24]
    pooled = sum(w * s.vc[2] for w, s in zip(weights, per_clip.values(), strict=True)) / sum(weights)
    assert metrics.compute("vspw").vc[2] == pytest.approx(pooled)
    assert metrics.compute("vspw").frames == 18 + 22 + 26


def test_merging_shards_equals_one_pass():
    together = three_clips()
    left, right = VideoSegMetrics(3), VideoSegMetrics(3)
    left.update(*noisy_clip(0, 18), clip="a")
    left.update(*noisy_clip(1, 22), clip="b")
    right.update(*noisy_clip(2, 26), clip="c")
    left.merge(right)
    assert left.compute() == together.compute()
    assert left.per_clip("paper") == together.per_clip("paper")


def test_a_stored_state_scores_the_same_and_keeps_its_clips_closed():
    metrics = three_clips()
    loaded = VideoSegMetrics(3)
    loaded.load_state_dict(metrics.state_dict())
    assert loaded.compute("strict") == metrics.compute("strict")
    with pytest.raises(SettingsError, match="'c' was already closed"):
        loaded.update(*noisy_clip(2), clip="c")


def test_computing_in_the_middle_changes_nothing():
    prediction, truth = noisy_clip(0)
    straight, looked = VideoSegMetrics(3, windows=(2, 8)), VideoSegMetrics(3, windows=(2, 8))
    straight.update(prediction, truth)
    snapshots = []
    for t in range(len(truth)):
        looked.update(prediction[t], truth[t])
        snapshots.append(looked.counts[""])
        looked.compute()
    assert looked.compute() == straight.compute()
    assert [(counts.frames, counts.confusion.sum()) for counts in snapshots] == [(t, 168 * t) for t in range(1, 19)]
    assert [counts.boundary[1].sum() for counts in snapshots] == [
        snapshots[0].boundary[1].sum() * t for t in range(1, 19)
    ]
    assert [counts.band[1].sum() for counts in snapshots] == [snapshots[0].band[1].sum() * t for t in range(1, 19)]


def test_reset_forgets_everything():
    metrics = three_clips()
    metrics.reset()
    assert metrics.counts == {}
    metrics.update(*noisy_clip(0), clip="a")
    assert metrics.compute().clips == 1


def test_windows_can_be_as_long_as_255_frames():
    still = np.zeros((300, 1, 1), np.uint8)
    flip = still.copy()
    flip[0] = 1  # windows that hold frame 0 are not kept: 1 of 46
    scores = score(flip, still, 2, "paper", windows=(255,))
    assert scores.vc[255] == pytest.approx(45 / 46)


def test_histograms_stay_exact_where_a_frame_has_more_pixels_than_float32_can_count(monkeypatch: pytest.MonkeyPatch):
    prediction, truth = noisy_clip(0)
    whole, striped = VideoSegMetrics(3), VideoSegMetrics(3)
    whole.update(prediction, truth)
    monkeypatch.setattr(confusion, "MAX_EXACT_PIXELS", 31)  # 2 rows of 14 pixels at a time
    striped.update(prediction, truth)
    assert striped.compute() == whole.compute()
    assert striped.counts[""].confusion.tolist() == whole.counts[""].confusion.tolist()


# --- messages --------------------------------------------------------------------------------------------------------


def test_shapes_must_agree_within_a_frame_and_a_clip():
    metrics = VideoSegMetrics(2)
    with pytest.raises(ShapeError, match=r"pred \(2, 2\) and target \(2, 3\)"):
        metrics.update(np.zeros((2, 2), int), np.zeros((2, 3), int))
    metrics.update(np.zeros((2, 2), int), np.zeros((2, 2), int), clip="a")
    with pytest.raises(ShapeError, match=r"frame 1 of clip 'a': .*\(2, 3\).*frames before \(2, 2\)"):
        metrics.update(np.zeros((2, 3), int), np.zeros((2, 3), int), clip="a")
    metrics.update(np.zeros((2, 3), int), np.zeros((2, 3), int), clip="b")
    with pytest.raises(ShapeError, match="non-empty"):
        metrics.update(np.zeros((0, 3), int), np.zeros((0, 3), int), clip="c")


def test_a_refused_frame_leaves_the_counts_as_they_were():
    metrics = VideoSegMetrics(2)
    metrics.update(np.zeros((2, 2), int), np.zeros((2, 2), int))
    with pytest.raises(LabelError, match="holds \\[7\\]"):
        metrics.update(np.zeros((2, 2), int), np.full((2, 2), 7))
    assert metrics.compute().frames == 1
    assert metrics.counts[""].confusion.sum() == 4


def test_labels_must_be_integers():
    with pytest.raises(LabelError, match="pred has dtype float64"):
        VideoSegMetrics(2).update(np.zeros((2, 2)), np.zeros((2, 2), int))


def test_frames_of_a_clip_must_come_one_after_the_other():
    metrics = VideoSegMetrics(2)
    frame = np.zeros((1, 1), int)
    metrics.update(frame, frame, clip="a")
    metrics.update(frame, frame, clip="b")
    with pytest.raises(SettingsError, match="'a' was already closed"):
        metrics.update(frame, frame, clip="a")


def test_counters_that_do_not_fit_are_not_merged():
    with pytest.raises(SettingsError, match="do not fit"):
        VideoSegMetrics(2).merge(VideoSegMetrics(3))
    with pytest.raises(SettingsError, match=r"3 clips were counted on both sides \(first: 'a'\)"):
        three_clips().merge(three_clips())
    with pytest.raises(SettingsError, match="do not fit"):
        VideoSegMetrics(3, windows=(2,)).load_state_dict(three_clips().state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, r"1\.\.4096, found 0"),
        ({"num_classes": 2, "ignore_index": 1}, "outside the classes"),
        ({"num_classes": 2, "windows": ()}, "frame counts in 2..255"),
        ({"num_classes": 2, "windows": (1,)}, r"found \[1\]"),
        ({"num_classes": 2, "windows": (256,)}, r"found \[256\]"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(SettingsError, match=message):
        VideoSegMetrics(**options)


def test_an_unknown_protocol_is_named_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"unknown protocol 'tv3s'; choose one of vspw, cffm, paper, strict"):
        VideoSegMetrics(2).compute("tv3s")
