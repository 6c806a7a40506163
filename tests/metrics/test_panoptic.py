import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.panoptic_clips import IS_THING, MADE_UP, NUM_CLASSES, MadeUpClip, recorded_clips
from metrics.slow_panoptic import slow_stq, slow_vpq
from sam2vss.errors import LabelError, SettingsError, ShapeError
from sam2vss.metrics.panoptic import PanopticMetrics
from sam2vss.metrics.panoptic_scores import PanopticScores
from sam2vss.metrics.tubes import Numbering, run_starts

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_panoptic.json").read_text())["sets"]
SCRIPTS = {"vpq_vipseg": "vipseg", "vpq_deva": "deva"}
STUFF, THING, OTHER, VOID = 0, 1, 2, 255
THINGS = [False, True, True]


def rows(*lines: str) -> tuple[np.ndarray, np.ndarray]:
    """One frame a line, one pixel a pair "class number": class s(tuff), a or b (things), or . (void)."""
    classes = {"s": STUFF, "a": THING, "b": OTHER, ".": VOID}
    pixels = [line.split() for line in lines]
    found = [[(classes[pixel[0]], int(pixel[1:] or 0)) for pixel in line] for line in pixels]
    both = np.array(found).reshape(len(lines), 1, -1, 2)
    return both[..., 0].astype(np.uint8), both[..., 1].astype(np.int32)


def score(prediction: tuple, truth: tuple, protocol: str = "paper", windows: tuple[int, ...] = (1,)) -> PanopticScores:
    metrics = PanopticMetrics(3, THINGS, windows=windows)
    metrics.update(*prediction, *truth, clip="a")
    return metrics.compute(protocol)


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_perfect_prediction_scores_one_whatever_its_numbers():
    truth, prediction = rows("s s a1 a2 b1", "s . a1 a2 b1"), rows("s s a9 a4 b9", "s s a9 a4 b9")
    scores = score(prediction, truth, windows=(1, 2))
    assert set(scores.as_dict().values()) == {1.0}
    assert (scores.frames, scores.clips, scores.unlabelled_share) == (2, 1, 0)


def test_a_match_needs_more_than_half_of_the_union():
    # thing a1 has 3 pixels: 2 of them found, union 3, IoU 2/3; then 2 found of a union of 4: IoU 1/2 is no match
    found = score(rows("a5 a5 s s s s"), rows("a1 a1 a1 s s s"))
    assert found.vpq[1].things.pq == pytest.approx(2 / 3)  # 1 match: 2/3 / 1
    assert found.vpq[1].stuff.pq == pytest.approx(3 / 4)  # 3 of a union of 4
    lost = score(rows("s a5 a5 a5 s s"), rows("a1 a1 a1 s s s"))
    assert (lost.vpq[1].things.pq, lost.vpq[1].things.rq, lost.vpq[1].things.sq) == (0, 0, 0)


def test_pq_is_sq_times_rq_per_class_and_averages_over_classes_seen():
    # a: one match of IoU 1, one missed: PQ 1 / (1 + 1/2) = 2/3; b: one surplus, PQ 0; stuff: 1
    scores = score(rows("a1 b2 s s"), rows("a1 a2 s s"))
    assert scores.vpq[1].things.pq == pytest.approx((2 / 3 + 0) / 2)
    assert scores.vpq[1].things.rq == pytest.approx((2 / 3 + 0) / 2)
    assert scores.vpq[1].things.sq == pytest.approx((1 + 0) / 2)
    assert scores.vpq[1].all.pq == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert [scores.vpq[1].all.classes, scores.vpq[1].things.classes, scores.vpq[1].stuff.classes] == [3, 2, 1]


def test_windows_of_k_frames_see_a_changed_number_that_frames_do_not():
    truth, switched = rows("a1 s", "a1 s", "a1 s"), rows("a1 s", "a1 s", "a2 s")
    scores = score(switched, truth, windows=(1, 2, 3))
    # k=2: the first window is right (1); in the second both numbers hold half of the tube: 1 missed, 2 surplus
    assert scores.vpq[1].things.pq == 1
    assert scores.vpq[2].things.pq == pytest.approx(1 / (1 + 2 / 2 + 1 / 2))
    # k=3: number 1 holds 2 of 3 pixels, a match of IoU 2/3; number 2 is surplus
    assert scores.vpq[3].things.pq == pytest.approx((2 / 3) / (1 + 1 / 2))
    assert [scores.vpq[k].windows for k in (1, 2, 3)] == [3, 2, 1]
    # AQ: 1/3 (2 x 2/3 + 1 x 1/3) = 5/9
    assert scores.aq == pytest.approx(5 / 9)
    assert scores.stq == pytest.approx(math.sqrt(5 / 9))


def test_association_does_not_ask_for_the_class_and_segmentation_does_not_ask_for_the_number():
    scores = score(rows("b1 b1 s s"), rows("a1 a1 s s"))
    assert scores.aq == 1
    assert scores.sq == pytest.approx((0 + 0 + 1) / 3)  # a, b, stuff


def test_void_leaves_the_union_and_excuses_predictions_that_lie_in_it():
    # a1 found with 2 pixels, 2 more in void: the union is 2; b1 has 2 of 3 pixels in void and is no error
    scores = score(rows("a1 a1 a1 a1 b1 b1 b1"), rows("a1 a1 . . . . s"))
    assert scores.vpq[1].things.pq == 1
    assert scores.vpq[1].things.classes == 1
    # with 1 of 2 in void it is one
    assert score(rows("a1 a1 b1 b1 s"), rows("a1 a1 . s s")).vpq[1].things.classes == 2


def test_a_crowd_is_never_missed_and_excuses_its_own_class_only():
    truth = rows("a0 a0 a0 a1 s")
    assert score(rows("s s s a1 s"), truth).vpq[1].things.pq == 1  # missed: no error
    assert score(rows("a7 a7 a7 a1 s"), truth).vpq[1].things.pq == 1  # excused
    assert score(rows("b7 b7 b7 a1 s"), truth).vpq[1].things.classes == 2  # another class: an error
    assert score(rows("a7 a7 a7 a1 s"), truth).aq == 1  # pixels in the crowd belong to no tube
    assert score(rows("a1 a1 a1 a1 s"), truth).aq == 1
    assert score(rows("a1 a1 a1 a1 s"), truth, "vipseg").aq < 1  # there, instance 0 is an instance


def test_number_zero_of_predictions_and_of_stuff_is_no_crowd():
    assert score(rows("a0 a0 s s"), rows("a1 a1 s s")).vpq[1].all.pq == 1
    assert score(rows("s1 s1 s2 s2"), rows("s0 s0 s0 s0")).vpq[1].stuff.pq == 0  # two halves, neither above 1/2


def test_unlabelled_predictions_are_errors_and_are_reported():
    scores = score(rows(". . a1 s"), rows("a1 a1 a1 s"))
    assert scores.unlabelled_share == 0.5
    assert scores.sq == pytest.approx((1 / 3 + 1) / 2)
    assert score(rows(". . a1 s"), rows("a1 a1 a1 s"), "deeplab2").sq == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert scores.vpq[1].things.pq == 0  # 1 of 3 pixels: no match


def test_what_is_not_there_is_undefined_but_zero_in_the_scripts_aq():
    void = score(rows("s a1"), rows(". ."), windows=(1, 2))
    assert all(value is None for value in void.as_dict().values())
    stuff = score(rows("s s"), rows("s s"), windows=(1, 2))
    assert (stuff.sq, stuff.vpq[1].stuff.pq) == (1, 1)
    assert math.isnan(stuff.aq)
    assert math.isnan(stuff.stq)
    assert math.isnan(stuff.vpq[1].things.pq)
    assert math.isnan(stuff.vpq[2].all.pq)  # the clip has one frame
    assert score(rows("s s"), rows("s s"), "deeplab2").aq == 0
    empty = PanopticMetrics(3, THINGS).compute()
    assert (empty.frames, empty.clips, set(empty.as_dict().values())) == (0, 0, {None})


def test_short_clips_have_no_window_unless_the_protocol_takes_them_whole():
    truth = rows("a1 s", "a1 s")
    assert score(truth, truth, "vipseg", (1, 4)).vpq[4].windows == 0
    assert score(truth, truth, "deva", (1, 4)).vpq[4].windows == 1
    assert score(truth, truth, "deva", (1, 2)).vpq[2].windows == 1
    assert score(truth, truth, "deva", (1, 4)).vpq[4].all.pq == 1


def test_the_first_segment_is_a_crowd_to_vipsegs_driver_if_it_is_a_thing():
    truth = rows("a1 a1 b1 b1", "a1 a1 b1 s0")
    wrong_first = rows("a1 a2 b1 b1", "a1 a2 b1 s0")
    assert score(wrong_first, truth).aq == pytest.approx((0.5 + 1) / 2)
    assert score(wrong_first, truth, "vipseg").aq == 1  # a1 does not count
    assert score(wrong_first, truth, "vipseg").vpq[1] == score(wrong_first, truth).vpq[1]
    later = rows("a1 a1 b1 s0", "a1 a1 b1 s0")  # stuff comes first
    assert score(rows("a1 a2 b1 s0", "a1 a2 b1 s0"), later, "vipseg").aq == pytest.approx((0.5 + 1) / 2)


def test_stuff_comes_first_whatever_the_order_of_the_classes():
    metrics = PanopticMetrics(2, [True, False], windows=(1,))
    classes = np.array([[0, 0, 1]], np.uint8)
    metrics.update(classes, np.array([[1, 2, 0]]), classes, np.array([[1, 1, 0]]), clip="a")
    assert metrics.compute("vipseg").aq == 0.5  # class 1 is first, so the thing counts: 1/2 (1/2 + 1/2)


def test_per_class_and_per_clip_scores_belong_to_the_whole():
    metrics = PanopticMetrics(3, THINGS, windows=(1, 2))
    metrics.update(*rows("a1 b2 s s"), *rows("a1 a2 s s"), clip="one")
    metrics.update(*rows("a1 a1 s s"), *rows("a1 a1 s s"), clip="two")
    stuff, first, other = metrics.per_class()
    assert (stuff.iou, stuff.pq[1], stuff.tubes) == (1, 1, 0)
    assert math.isnan(stuff.aq)
    assert first.pq[1] == pytest.approx(2 / (2 + 1 / 2))
    assert (first.iou, first.aq, first.tubes) == (3 / 4, 1, 3)
    assert (other.iou, other.pq[1], other.tubes) == (0, 0, 0)
    assert other.as_dict() == {"IoU": 0, "AQ": None, "VPQ1": 0, "VPQ2": None, "tubes": 0}
    assert list(metrics.per_clip()) == ["one", "two"]
    assert metrics.per_clip()["two"].vpq[1].all.pq == 1
    assert metrics.per_clip()["one"].vpq[1].all.pq == pytest.approx((1 + 2 / 3 + 0) / 3)


# --- published scripts -----------------------------------------------------------------------------------------------


def count(clips: dict[str, MadeUpClip]) -> PanopticMetrics:
    metrics = PanopticMetrics(NUM_CLASSES, IS_THING)
    for name, clip in clips.items():
        metrics.update(*clip.arrays(), clip=name)
    return metrics


def check_against_scripts(clips: dict[str, MadeUpClip], golden: dict[str, Any]) -> None:
    metrics = count(clips)
    for script, protocol in SCRIPTS.items():
        scores = metrics.compute(protocol)
        for k, parts in golden[script].items():
            for name, expected in parts.items():
                found = getattr(scores.vpq[int(k)], name)
                assert (found.pq, found.sq, found.rq, found.classes) == pytest.approx(expected, abs=1e-12)
    assert metrics.compute("paper").vpq == metrics.compute("vipseg").vpq
    for script, protocol, tolerance in (
        ("stq_script", "deeplab2", 1e-12),
        ("stq_deeplab2", "deeplab2", 1e-6),  # counts in float32
        ("stq_vipseg", "vipseg", 1e-12),
    ):
        scores = metrics.compute(protocol)
        assert (scores.stq, scores.aq, scores.sq) == pytest.approx(golden[script], abs=tolerance), script


@pytest.mark.parametrize("name", MADE_UP)
def test_scores_equal_those_of_the_published_scripts(name: str):
    # largest difference seen: 2e-16, and 1.3e-8 to deeplab2's float32
    if name == "crowd":  # VIPSeg's driver of STQ reads no iscrowd, and AQ then has the crowds as tubes
        assert GOLDEN[name]["stq_vipseg"] != GOLDEN[name]["stq_script"]
    check_against_scripts(MADE_UP[name], GOLDEN[name])


@pytest.mark.dataset
def test_scores_of_recorded_clips_equal_those_of_the_published_scripts(shared_data: Path):
    check_against_scripts(recorded_clips(shared_data), GOLDEN["ycbvideo"])


def test_the_paper_differs_from_the_scripts_exactly_where_it_should():
    assert count(MADE_UP["street"]).compute("paper").sq == pytest.approx(GOLDEN["street"]["stq_script"][2], abs=1e-12)
    unlabelled = count(MADE_UP["unlabelled"])
    classes = sum(not math.isnan(entry.iou) for entry in unlabelled.per_class())
    script = unlabelled.compute("deeplab2").sq
    assert unlabelled.compute("paper").sq == pytest.approx(script * (classes + 1) / classes)
    first = count(MADE_UP["things first"])
    assert first.compute("paper").aq == pytest.approx(GOLDEN["things first"]["stq_script"][1], abs=1e-12)
    assert first.compute("vipseg").aq != pytest.approx(first.compute("paper").aq)
    short = count(MADE_UP["short"])
    assert short.compute("vipseg").vpq[8].windows == 3
    assert short.compute("deva").vpq[8].windows == 6


# --- a second implementation -----------------------------------------------------------------------------------------


@st.composite
def clips_of_frames(draw: st.DrawFn) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Up to three clips of up to five small frames: blocks of classes, numbers 0..2, void, unlabelled, all void."""
    clips = []
    for _ in range(draw(st.integers(1, 3))):
        frames, height, width = (draw(st.integers(1, most)) for most in (5, 2, 4))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        shape = (frames, height, width)
        ids = np.array(draw(st.sampled_from([(0, 1, 2, 255), (1, 2), (0, 1), (255,), (1, 3, 255)])), np.int64)
        kept = (rng.random(shape[1:]) < draw(st.sampled_from([0, 0.5, 0.9])))[None]
        planes = [rng.choice(ids, shape), rng.integers(0, 3, shape), rng.choice(ids, shape), rng.integers(0, 3, shape)]
        planes = [np.where(kept, plane[:1], plane) for plane in planes]
        is_right = rng.random(shape) < draw(st.sampled_from([0, 0.6, 0.95]))
        planes[0], planes[1] = np.where(is_right, planes[2], planes[0]), np.where(is_right, planes[3], planes[1])
        planes[0] = np.where(rng.random(shape) < 0.05, 300, planes[0])  # no class either
        clips.append(tuple(planes))
    return clips


@settings(max_examples=120, deadline=None)
@given(clips_of_frames(), st.sampled_from(["paper", "deeplab2", "vipseg", "deva"]))
def test_tables_give_what_the_definitions_give_pixel_by_pixel(clips: list, protocol: str):
    is_thing = [False, True, True, False]
    metrics = PanopticMetrics(4, is_thing, windows=(1, 2, 3, 6))
    for number, clip in enumerate(clips):
        metrics.update(*clip, clip=str(number))
    scores = metrics.compute(protocol)
    for k in metrics.windows:
        expected = slow_vpq(clips, k, is_thing, short_is_whole=protocol == "deva")
        for name, values in expected.items():
            found = getattr(scores.vpq[k], name)
            assert (found.pq, found.sq, found.rq, found.classes) == pytest.approx(values, abs=1e-12, nan_ok=True)
    is_script = protocol != "paper"
    expected_stq = slow_stq(
        clips,
        is_thing,
        void_is_a_class=is_script,
        first_segment_is_crowd=protocol in ("vipseg", "deva"),
        aq_without_tubes=0.0 if is_script else math.nan,
    )
    assert (scores.stq, scores.sq, scores.aq) == pytest.approx(expected_stq, abs=1e-12, nan_ok=True)


# --- streaming -------------------------------------------------------------------------------------------------------


def test_frames_one_by_one_and_merged_shards_give_the_same_scores():
    clips = MADE_UP["short"]
    whole = count(clips)
    single = PanopticMetrics(NUM_CLASSES, IS_THING)
    shards = [PanopticMetrics(NUM_CLASSES, IS_THING) for _ in range(2)]
    for number, (name, clip) in enumerate(clips.items()):
        shards[number % 2].update(*clip.arrays(), clip=name)
        for frame in zip(*clip.arrays(), strict=True):
            single.update(*frame, clip=name)
    shards[0].merge(shards[1])
    for other in (single, shards[0]):
        for protocol in ("paper", "deva"):
            assert other.compute(protocol).as_dict() == pytest.approx(whole.compute(protocol).as_dict(), abs=1e-15)
    with pytest.raises(SettingsError, match=r"2 clips were counted on both sides \(first: 'seven'\)|2 clips .*'ten'"):
        shards[0].merge(shards[1])


def test_the_caller_may_use_its_arrays_again():
    clip = MADE_UP["street"]["b"]
    metrics, buffers = PanopticMetrics(NUM_CLASSES, IS_THING), [plane[0].copy() for plane in clip.arrays()]
    for t in range(len(clip.true_classes)):
        for buffer, plane in zip(buffers, clip.arrays(), strict=True):
            buffer[:] = plane[t]
        metrics.update(*buffers, clip="b")
    assert metrics.compute() == count({"b": clip}).compute()


def test_stored_counts_come_back_and_only_into_the_same_counter():
    metrics = count(MADE_UP["short"])
    other = PanopticMetrics(NUM_CLASSES, IS_THING)
    other.load_state_dict(metrics.state_dict())
    assert other.compute("deva") == metrics.compute("deva")
    with pytest.raises(SettingsError, match="already closed"):
        other.update(*MADE_UP["short"]["ten"].arrays(), clip="ten")
    with pytest.raises(SettingsError, match=r"windows \[1, 2, 4, 6, 8\]\) do not fit ours: 124 .* windows \[1\]"):
        PanopticMetrics(NUM_CLASSES, IS_THING, windows=(1,)).load_state_dict(metrics.state_dict())
    other.reset()
    assert other.counts == {}


def test_memory_does_not_grow_with_the_length_of_a_clip():
    metrics = PanopticMetrics(NUM_CLASSES, IS_THING)
    clip = MADE_UP["street"]["b"]
    for _ in range(20):
        metrics.update(*clip.arrays(), clip="long")
    counter = metrics._clips._open
    assert counter is not None
    assert counter.frames == 180
    assert len(counter._last) == 8
    assert len(counter._total) == len(count({"b": clip}).counts["b"].table.pixels)


def test_numbers_are_given_in_order_of_arrival():
    numbering = Numbering()
    assert numbering.number(np.array([7, 3, 7])).tolist() == [1, 0, 1]
    assert numbering.number(np.array([[9, 3], [1, 7]])).tolist() == [[3, 0], [2, 1]]
    assert (numbering.keys().tolist(), len(numbering)) == ([3, 7, 1, 9], 4)


def test_runs_start_wherever_one_of_the_maps_changes():
    first, second = np.array([[1, 1, 2], [2, 2, 2]]), np.array([[0, 0, 0], [0, 5, 5]])
    assert run_starts([first, second]).tolist() == [0, 2, 4]
    assert run_starts([np.zeros((1, 1), int)]).tolist() == [0]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused():
    metrics, plane = PanopticMetrics(3, THINGS), np.zeros((2, 3), np.uint8)
    with pytest.raises(
        ShapeError, match=r"must all be \(H, W\) or \(T, H, W\), found \(2, 3\), \(2, 3\), \(2, 3\), \(3,"
    ):
        metrics.update(plane, plane, plane, plane.T)
    with pytest.raises(ShapeError, match=r"found \(0, 3\)"):
        metrics.update(*[plane[:0]] * 4)
    with pytest.raises(LabelError, match="must be integers, found float32"):
        metrics.update(plane.astype(np.float32), plane, plane, plane)
    metrics.update(*[plane] * 4, clip="a")
    with pytest.raises(ShapeError, match=r"frame 1 of clip 'a' is \(1, 3\), frames before \(2, 3\)"):
        metrics.update(*[plane[:1]] * 4, clip="a")


def test_values_that_mean_nothing_are_refused():
    metrics, plane = PanopticMetrics(3, THINGS), np.zeros((2, 3), np.int32)
    with pytest.raises(
        LabelError, match=r"truth of frame 0 of clip 'a' holds the classes \[3\]; expected 0..2 or void"
    ):
        metrics.update(plane, plane, plane + 3, plane, clip="a")
    with pytest.raises(LabelError, match=r"prediction of frame 0 of clip 'a' holds instance numbers -1..-1"):
        metrics.update(plane, plane - 1, plane, plane, clip="a")
    metrics.update(plane + 255, plane - 1, plane + 255, plane - 1, clip="a")  # void has no instance


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="found 3 classes and 2 entries of is_thing"):
        PanopticMetrics(3, [True, False])
    with pytest.raises(SettingsError, match=r"ignore_index 2 must lie outside the classes 0..2"):
        PanopticMetrics(3, THINGS, ignore_index=2)
    with pytest.raises(SettingsError, match=r"windows must be frame counts in 1..4096, found \[0\]"):
        PanopticMetrics(3, THINGS, windows=(0,))
    with pytest.raises(
        SettingsError, match="unknown panoptic protocol 'vpq'; choose one of paper, deeplab2, vipseg, deva"
    ):
        PanopticMetrics(3, THINGS).compute("vpq")
