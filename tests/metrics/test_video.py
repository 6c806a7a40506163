"""Cases by hand, statements that always hold, and messages. Random clips against the definitions of all scores are in
`test_slow_reference.py`, the published scripts' values in `test_published_scripts.py`.
"""

import math

import numpy as np
import pytest

from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.metrics import PROTOCOLS, Scores, VideoSegMetrics, confusion, curve_windows, spans


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
    scores = score(prediction, truth, 2, boundary="full")
    assert (scores.mbiou, scores.boundary_iou, scores.mbiou_per_image, scores.mbiou_interior) == (1, 1, 1, 1)
    assert (scores.boundary_iou_2pct, scores.boundary_f) == (1, 1)


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
    together = three_clips(boundary="full")
    left, right = VideoSegMetrics(3, boundary="full"), VideoSegMetrics(3, boundary="full")
    left.update(*noisy_clip(0, 18), clip="a")
    left.update(*noisy_clip(1, 22), clip="b")
    right.update(*noisy_clip(2, 26), clip="c")
    left.merge(right)
    assert left.compute() == together.compute()
    assert left.per_clip("paper") == together.per_clip("paper")


def test_a_stored_state_scores_the_same_and_keeps_its_clips_closed():
    metrics = three_clips(boundary="full")
    loaded = VideoSegMetrics(3, boundary="full")
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


@pytest.mark.parametrize("windows", [(8, 16), (2, 4, 8, 16)])
def test_spans_pixels_and_stripes_count_the_same(windows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    counted = {}
    for way, spans_per_pixel, pixels_at_once in (("spans", 1.0, 1 << 24), ("pixels", 0.0, 1 << 24), ("stripes", 0, 31)):
        monkeypatch.setattr(spans, "MAX_SPANS_PER_PIXEL", spans_per_pixel)
        monkeypatch.setattr(confusion, "MAX_EXACT_PIXELS", pixels_at_once)  # 31: 2 rows of 14 pixels at a time
        counted[way] = three_clips(windows=windows, boundary="full")
    assert counted["spans"].compute() == counted["pixels"].compute() == counted["stripes"].compute()
    tables = {way: metrics.counts["b"].confusion.tolist() for way, metrics in counted.items()}
    assert tables["spans"] == tables["pixels"] == tables["stripes"]


def test_counts_stay_exact_where_a_frame_has_more_pixels_than_float32_can_count():
    height, width = 4097, 4099  # 16,793,603 pixels, odd and above 2 ** 24 = 16,777,216
    labels = np.zeros((height, width), np.uint8)
    metrics = VideoSegMetrics(1)
    metrics.update(labels, labels)
    assert metrics.counts[""].confusion.tolist() == [[height * width, 0]]
    assert confusion.joint_histogram((labels, labels), (1, 1)).tolist() == [[height * width]]


def test_label_sets_above_255_classes_count_the_same():
    narrow, wide = VideoSegMetrics(3, windows=(2,), boundary="full"), VideoSegMetrics(300, 999, (2,), boundary="full")
    for seed, clip in enumerate("ab"):
        prediction, truth = noisy_clip(seed)
        prediction[:, 3], truth[:, 5] = 200, 255  # strangers and void
        narrow.update(prediction, truth, clip=clip)
        prediction, truth = prediction.astype(np.uint16), truth.astype(np.uint16)
        wide.update(np.where(prediction == 200, 500, prediction), np.where(truth == 255, 999, truth), clip=clip)
    for protocol in PROTOCOLS:
        assert wide.compute(protocol).as_dict() == pytest.approx(narrow.compute(protocol).as_dict())


# --- which scores there are ------------------------------------------------------------------------------------------


def test_all_boundary_readings_change_none_of_the_others():
    band, full = three_clips().compute().as_dict(), three_clips(boundary="full").compute().as_dict()
    only_full = {"boundary_IoU_2pct", "boundary_F"}
    assert {name for name in only_full if band[name] is not None} == set()
    assert {name for name in only_full if full[name] is None} == set()
    assert {name: full[name] for name in full.keys() - only_full} == {
        name: band[name] for name in band.keys() - only_full
    }
    assert three_clips().per_class()[0].as_dict()["boundary_F"] is None


def test_boundary_iou_at_2_percent_reaches_further_than_2_px_on_a_large_image():
    # 90 x 120: the diagonal is 150, 2 % are 3 px. Truth has its edge before column 60, the prediction before 64.
    truth = np.repeat(np.arange(120)[None] >= 60, 90, axis=0)[None]
    prediction = np.repeat(np.arange(120)[None] >= 64, 90, axis=0)[None]
    scores = score(prediction, truth, 2, boundary="full")
    # Rows 0..2 and 87..89 are boundary all along, in the other 84 rows the outer 3 columns and 3 at the edge.
    # class 0, truth: 6 * 60 + 84 * 6 = 864, prediction: 6 * 64 + 84 * 6 = 888, both: 6 * 60 + 84 * 3 = 612
    # class 1, truth: 864, prediction: 6 * 56 + 84 * 6 = 840, both: 6 * 56 + 84 * 3 = 588
    assert scores.boundary_iou_2pct == pytest.approx((612 / (864 + 888 - 612) + 588 / (864 + 840 - 588)) / 2)
    assert scores.boundary_iou != scores.boundary_iou_2pct


def test_boundary_f_adds_up_pixels_over_the_set_before_it_divides():
    # 1 px high, 8 wide: contour of a class is where the right neighbour differs, tolerance ceil(0.008 * 8.06) = 1.
    truth = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]], np.uint8)[:, None]
    prediction = np.array([[0, 1, 1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0, 1]], np.uint8)[:, None]
    # frame 0: truth has column 3, the prediction column 0, 3 apart -> nothing matches; frame 1: 7 of 7 match
    # precision = recall = (0 + 7) / (1 + 7) for both classes, while the mean over frames would be (0 + 1) / 2
    assert score(prediction, truth, 2, boundary="full").boundary_f == pytest.approx(7 / 8)


def test_a_class_whose_contour_is_never_predicted_has_no_boundary_f_at_all():
    scores = score([[[0, 0, 0, 0]]], [[[0, 0, 1, 1]]], 2, boundary="full")
    assert scores.boundary_f == 0
    # a frame that one class fills has no contour: undefined, not 1 as DAVIS has it for an empty object
    assert math.isnan(score([[[0, 0]]], [[[0, 0]]], 2, boundary="full").boundary_f)


def test_the_flicker_rate_is_what_changes_between_neighbouring_frames():
    # paper, n = 2: both pixels stable twice; the prediction keeps 1 of 2, then 2 of 2 -> mVC2 = 3/4
    truth, prediction = [[[0, 1]]] * 3, [[[0, 1]], [[0, 0]], [[0, 0]]]
    assert score(prediction, truth, 2, "paper", windows=(2,)).flicker_rate == 1 / 4
    assert score(prediction, truth, 2, "paper", windows=(2, 3)).as_dict()["flicker_rate"] == 1 / 4
    assert score(prediction, truth, 2, "paper", windows=(3,)).as_dict()["flicker_rate"] is None


def test_the_mean_of_the_vc_curve_needs_a_curve():
    # the prediction changes after the first frame: mVC2 = (0 + 1) / 2, mVC3 = 0
    truth, prediction = np.zeros((3, 1, 1), int), np.array([[[1]], [[0]], [[0]]])
    assert score(prediction, truth, 2, "paper", windows=curve_windows(3)).vc_mean == pytest.approx(0.25)
    for windows in ((2,), (3,), (2, 4)):
        assert score(prediction, truth, 2, "paper", windows=windows).as_dict()["mVC_mean"] is None
    # no clip is long enough for n = 4, so the curve has no mean that could be compared with another one
    assert score(prediction, truth, 2, "paper", windows=curve_windows(4)).as_dict()["mVC_mean"] is None


def test_a_curve_gives_the_same_vc_as_its_windows_one_by_one():
    whole = three_clips(windows=curve_windows())
    for protocol in PROTOCOLS:
        if protocol == "dvis-compat":  # pools all windows that were counted
            continue
        curve = whole.compute(protocol).vc
        assert list(curve) == list(range(2, 33))
        for n in (2, 7, 16, 25):
            assert curve[n] == pytest.approx(three_clips(windows=(n,)).compute(protocol).vc[n], nan_ok=True)


def test_the_faulty_protocol_pools_shorter_windows_and_says_so():
    # T = 4: the script's windows of 2 start at 0 and 1 (the last is dropped), of 3 at 0. One pixel, truth constant,
    # the prediction changes after the first frame: n = 2 gives 0, 1; n = 3 gives 0.
    truth, prediction = np.zeros((4, 1, 1), int), np.array([[[1]], [[0]], [[0]], [[0]]])
    faulty = score(prediction, truth, 2, "dvis-compat", windows=(2, 3))
    assert faulty.vc == {2: 1 / 2, 3: pytest.approx((0 + 1 + 0) / 3)}
    assert score(prediction, truth, 2, "vspw", windows=(2, 3)).vc == {2: 1 / 2, 3: 0}
    assert PROTOCOLS["dvis-compat"].is_faulty
    assert "mVC16 is the mean over windows of 8 and of 16 frames" in faulty.protocol_fault
    assert [name for name, protocol in PROTOCOLS.items() if protocol.is_faulty] == ["dvis-compat"]
    assert score(prediction, truth, 2, "vspw").protocol_fault == ""


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
    with pytest.raises(SettingsError, match=r"'full'\) do not fit .*'band'\)"):
        three_clips().merge(three_clips(boundary="full"))
    with pytest.raises(SettingsError, match=r"'band'\) do not fit .*'full'\)"):
        three_clips(boundary="full").load_state_dict(three_clips().state_dict())


def test_counts_stored_by_an_older_version_are_refused():
    older = three_clips().state_dict()
    del older["format"], older["boundary"]
    with pytest.raises(SettingsError, match=r"format 1 .* expected 2: .* Score the clips again"):
        VideoSegMetrics(3).load_state_dict(older)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, r"1\.\.4096, found 0"),
        ({"num_classes": 2, "ignore_index": 1}, "outside the classes"),
        ({"num_classes": 2, "windows": ()}, "frame counts in 2..255"),
        ({"num_classes": 2, "windows": (1,)}, r"found \[1\]"),
        ({"num_classes": 2, "windows": (256,)}, r"found \[256\]"),
        ({"num_classes": 2, "boundary": "thin"}, "unknown boundary readings 'thin'; choose one of band, full"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(SettingsError, match=message):
        VideoSegMetrics(**options)


def test_an_unknown_protocol_is_named_with_the_known_ones():
    with pytest.raises(
        SettingsError, match=r"unknown protocol 'tv3s'; choose one of vspw, cffm, paper, strict, dvis-compat"
    ):
        VideoSegMetrics(2).compute("tv3s")
