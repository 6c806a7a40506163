import json

import numpy as np
import pytest
import torch

from sam2vss.ablate.sweep import SweptWindow, count_followed, lowest_floor
from sam2vss.ablate.work import Work
from sam2vss.types import MaskletWindow
from toy import no_waiting_for_the_disk
from toy_ablate import (
    NUM_FRAMES,
    finish,
    holey_base,
    new_sweep,
    points_of,
    refine_alone,
    toy_clip,
    windows_alone,
)

AXES = {
    "window": [2, 7],
    "points": [6],
    "pred_iou": [0.3, 0.8],
    "vote": ["frame"],
    "mode": ["fast", "prompt"],
    "carry": [True],
    "direction": ["both"],
    "smooth": ["static"],
}
MORE_AXES = {
    "window": [1, 4],
    "stability": [0.3, 0.7],
    "stability_offset": [0.9],
    "vote_weight": ["probability"],
    "min_share": [0.7],
    "overlap": ["large-on-top", "confident-on-top", "stable-on-top"],
    "discover": [1],
    "max_masklets": [2],
    "skip_settled": [True],
    "drop_contained": [True],
    "min_mask_area": [20],
    "crop_layers": [1],
    "smooth": ["flow"],
}
POINTS = points_of(AXES)
MORE_POINTS = points_of(MORE_AXES)


@pytest.fixture(scope="module", autouse=True)
def _quick():
    torch.set_num_threads(1)
    with no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweep = new_sweep(folder, POINTS)
    labels, needed = finish(sweep)
    return folder, sweep, labels, needed


def differing(point):
    base = POINTS[0].model_dump()
    return ", ".join(f"{name} {value}" for name, value in point.model_dump().items() if value != base[name]) or "base"


@pytest.mark.parametrize("point", POINTS, ids=differing)
def test_every_point_gets_the_labels_of_a_run_of_its_own_to_the_last_bit(swept, point):
    np.testing.assert_array_equal(swept[2][point], refine_alone(point))


def test_void_is_treated_as_in_a_run_of_its_own(tmp_path):
    base = holey_base()
    points = points_of({"void": ["nearest", "previous", "vote"]}, mode="prompt")
    points += points_of({"void": ["previous"], "skip_settled": [True]}, mode="prompt", smooth="static", void="nearest")
    labels, _ = finish(new_sweep(tmp_path, points, base=base))
    for point in points:
        np.testing.assert_array_equal(labels[point], refine_alone(point, base=base), point.void)
        assert (labels[point] == 255).any() == (point.void == "keep")
    assert len({found.tobytes() for found in labels.values()}) >= 5
    assert base.labels_for("toy", list(toy_clip().frames())).void_share is None  # the row of the base labels has them


def test_carried_masklets_bring_their_votes_along(tmp_path):
    point = next(point for point in POINTS if point.carry)
    found = [window.refinement for window in new_sweep(tmp_path, [point]).run() if isinstance(window, SweptWindow)]
    alone = windows_alone(point)
    assert len(set(found[0].masklets.ids) & set(found[1].masklets.ids)) > 0
    for ours, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(ours.votes, expected.votes)
        np.testing.assert_array_equal(ours.masklets.ids, expected.masklets.ids)


def test_masklets_have_the_predicted_iou_of_a_run_of_its_own_in_every_frame(tmp_path):
    points = points_of({"mode": ["prompt"]})
    for _ in ("followed", "read"):
        windows = [found for found in new_sweep(tmp_path, points).run() if isinstance(found, SweptWindow)]
        for point in points:
            ours = [found.refinement.masklets.frame_iou for found in windows if found.point == point]
            expected = [refinement.masklets.frame_iou for refinement in windows_alone(point)]
            assert [quality.tobytes() for quality in ours] == [quality.tobytes() for quality in expected]
            assert all((quality > 0).any() for quality in ours)


@pytest.mark.slow
def test_so_do_the_points_of_all_other_settings(tmp_path):
    labels, _ = finish(new_sweep(tmp_path, MORE_POINTS))
    for point in MORE_POINTS:
        np.testing.assert_array_equal(labels[point], refine_alone(point), differing(point))


@pytest.mark.slow
def test_chunks_of_objects_round_otherwise_in_few_pixels():
    # 4 objects at once are what a run takes by itself at 384 pixels; measured here: no pixel differs
    (point,) = points_of({})
    assert np.mean(refine_alone(point, chunk=4) != refine_alone(point, chunk=1)) < 1e-3


def test_the_points_are_not_all_alike(swept):
    distinct = {found.tobytes() for found in swept[2].values()}
    assert len(distinct) >= 9  # of 11; else the equality above would show little


def test_a_second_sweep_reads_files_and_runs_no_network(swept, monkeypatch):
    folder, first, labels, needed = swept
    monkeypatch.setattr("sam2vss.ablate.frame_cache.encode_ahead", None)
    monkeypatch.setattr("sam2vss.ablate.frame_cache.find_candidates", None)
    again = new_sweep(folder, POINTS)
    for shared in again._shared.values():
        monkeypatch.setattr(shared, "_follow_group", None)

    found, needed_again = finish(again)

    assert all(np.array_equal(found[point], labels[point]) for point in POINTS)
    assert needed_again == needed
    assert again.done == first.done


def test_each_frame_is_encoded_once_and_each_grid_prompted_once(swept):
    done = swept[1].done
    assert done.encoded == NUM_FRAMES
    # 4 x 4 on all 7 frames (mode fast; both ways begins on frames 1, 4 and 6), 6 x 6 on the frames 0, 3 and 6; what
    # carried masklets leave bare of frames 3 and 6 is prompted beyond that
    carry = next(point for point in POINTS if point.carry)
    carried = [work for key, work in asked_by_trackers(swept[0]) if key == carry.tracks_key]
    assert [work["encoded"] for work in carried] == [4, 2]  # the first window is shared
    assert done.prompted == 7 * 16 + 3 * 36 + sum(work["prompted"] for work in carried)


def asked_by_trackers(folder):
    files = sorted((folder / "tracks" / "work").rglob("*.json"))
    return [entry for file in files for entry in json.loads(file.read_text())["asked"].items()]


def test_separate_runs_are_counted_as_the_tracker_works(swept):
    _, sweep, _, needed = swept
    by_name = {differing(point): work for point, work in needed.items()}
    assert by_name["base"].encoded == 7
    assert by_name["base"].prompted == 3 * 16
    assert by_name["points 6"].prompted == 3 * 36
    assert by_name["window 7"].prompted == 16
    assert by_name["mode fast"] == Work(7, 7 * 16, 0)
    assert by_name["carry True"].encoded == 7 + 2  # the frames before the second and third window once more
    total = sum(needed.values(), Work())
    assert total.encoded > 10 * sweep.done.encoded
    assert total.followed > sweep.done.followed


def test_a_longer_window_later_follows_masks_anew_and_changes_nothing(tmp_path):
    short, *_ = points_of({}, window=2)
    base, longer = points_of({"window": [7]})
    finish(new_sweep(tmp_path, [short]))

    labels, _ = finish(new_sweep(tmp_path, [base, longer]))

    np.testing.assert_array_equal(labels[base], refine_alone(base))
    np.testing.assert_array_equal(labels[longer], refine_alone(longer))


def test_a_sweep_that_is_interrupted_goes_on_to_the_same_labels(tmp_path, swept):
    points = tuple(point for point in POINTS if point.mode == "exact" and point.direction == "forward")
    sweep = new_sweep(tmp_path, points)
    begin, seen = sweep._begin, []

    def stop_at_frame_3(number, *rest):
        for window in begin(number, *rest):
            if number == 3:
                raise KeyboardInterrupt
            seen.append(window)
            yield window

    sweep._begin = stop_at_frame_3
    with pytest.raises(KeyboardInterrupt):
        finish(sweep)
    assert seen

    labels, needed = finish(new_sweep(tmp_path, points))

    assert all(np.array_equal(labels[point], swept[2][point]) for point in points)
    assert all(needed[point] == swept[3][point] for point in points)


def test_damaged_checkpoints_are_made_again(tmp_path):
    points = points_of({"pred_iou": [0.3], "carry": [True]})
    labels, _ = finish(new_sweep(tmp_path, points))
    for file in sorted((tmp_path / "tracks").rglob("*.gz")) + sorted((tmp_path / "candidates").rglob("*.safetensors")):
        file.write_bytes(file.read_bytes()[:20])

    again, _ = finish(new_sweep(tmp_path, points))

    assert all(np.array_equal(labels[point], again[point]) for point in points)


def test_candidates_of_frames_with_several_thresholds_serve_a_later_threshold(tmp_path, monkeypatch):
    finish(new_sweep(tmp_path, points_of({"pred_iou": [0.3, 0.8]})))
    monkeypatch.setattr("sam2vss.ablate.frame_cache.find_candidates", None)
    points = points_of({}, pred_iou=0.55)

    labels, _ = finish(new_sweep(tmp_path, points))

    monkeypatch.undo()
    np.testing.assert_array_equal(labels[points[0]], refine_alone(points[0]))


def test_only_frames_of_the_longest_window_are_at_hand(tmp_path):
    sweep = new_sweep(tmp_path, points_of({"window": [1, 2]}, window=3))
    most = 0
    for _ in sweep.run():
        most = max(most, len(sweep.cache._features))
    assert 0 < most <= 3


def test_fast_mode_lowers_the_floor_of_stored_candidates():
    assert lowest_floor(points_of({"pred_iou": [0.7]}, pred_iou=0.6)) == 0.6
    assert lowest_floor(points_of({"mode": ["fast"]}, pred_iou=0.6)) == 0.4  # what FrameMatcher looks at


def test_masks_followed_are_counted_from_the_first_one_on():
    masks = np.zeros((3, 4, 2, 2), bool)
    masks[0], masks[1, 2:] = True, True  # there from the start; found in frame 2; never seen
    window = MaskletWindow.from_masks(masks)
    point = points_of({"discover": [2], "carry": [True]})
    assert count_followed(window, point[0], None) == 3 * 3
    assert count_followed(window, point[1], None) == 3 + 1 + 3
    previous = MaskletWindow.from_masks(masks[:1])  # masklet 0 comes from the window before: one step more
    assert count_followed(window, point[2], previous) == 4 + 3 + 3
