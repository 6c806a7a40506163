"""Stored labels without ground truth: folders and runs side by side."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.artifacts import RunFolder
from sam2vss.errors import LabelError, MediaError, MissingPredictionsError, SettingsError, ShapeError
from sam2vss.images import read_image, read_label_map
from sam2vss.media import find_clips
from sam2vss.metrics.stability import StabilityMetrics
from sam2vss.metrics.switches import SwitchCounter
from sam2vss.metrics.warping import is_seen_in_both
from sam2vss.stability import (
    DIS,
    FlowMethod,
    Stability,
    differences_table,
    find_flow_method,
    find_label_sets,
    measure_stability,
    stability_table,
)
from sam2vss.types import LabelSpace
from sam2vss.voting import count_frame_votes

FRAMES = 8
NO_MOTION = FlowMethod("still", lambda image, _: np.zeros((*image.shape[:2], 2), np.float32))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two clips of pictures, a data set of its own."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("a", "b"):
        toy.write_toy_frames(root / name, FRAMES)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, pictures) -> Path:
    """A run over both clips, noisy base labels refined by exact masklets, which are kept."""
    out = tmp_path_factory.mktemp("runs") / "exact"
    with toy.no_waiting_for_the_disk():
        toy.run_toy(out, find_clips(pictures), save_masklets=True, overlay=False)
    return out


def write_labels(folder: Path, share: float, clips: str = "ab", frames: int = FRAMES) -> Path:
    for clip in clips:
        toy.write_toy_labels(folder / clip, frames, share)
    return folder


def sets_of(*folders: Path, space: LabelSpace = toy.CLASSES):
    return [one for folder in folders for one in find_label_sets(folder, space)]


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_arrays_in_the_files(tmp_path, pictures):
    labels = write_labels(tmp_path / "noisy", 0.2)
    found = measure_stability(sets_of(labels), pictures)
    slow = StabilityMetrics(4, "dis")
    for clip in "ab":
        images = [read_image(file) for file in sorted((pictures / clip).iterdir())]
        maps = [np.array(Image.open(file)) for file in sorted((labels / clip).iterdir())]
        for t in range(FRAMES):
            there = DIS.find(images[t - 1], images[t]) if t else None
            seen = is_seen_in_both(there, DIS.find(images[t], images[t - 1])) if t else None
            slow.update(maps[t], there, seen, clip)
    assert found.sets[0].scores == slow.compute()
    assert found.sets[0].per_video == slow.per_clip()
    assert found.sets[0].per_class == slow.per_class()
    assert (found.sets[0].scores.frames, found.flow_name, found.warnings) == (2 * FRAMES, "dis", ())


def test_the_flow_leads_from_a_frame_to_the_next_one():
    # a textured picture that moves 3 px to the right and 2 down: where it was at (x, y) it is at (x + 3, y + 2)
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8), (0, 0), 2)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    first, second = scene[10:70, 10:90], scene[8:68, 7:87]
    flow = DIS.find(first, second)[15:45, 15:65]
    assert np.median(flow[..., 0]) == pytest.approx(3, abs=0.2)
    assert np.median(flow[..., 1]) == pytest.approx(2, abs=0.2)


def test_any_flow_function_gives_its_name_to_the_scores(tmp_path, pictures):
    calls = []

    def find(image, next_image):
        calls.append((image[0, 0, 2], next_image[0, 0, 2]))
        return np.zeros((*image.shape[:2], 2))

    found = measure_stability(
        sets_of(write_labels(tmp_path / "l", 0.2, "a")),
        pictures / "a",
        FlowMethod("mine", find),
        checks_occlusion=False,
    )
    assert calls == [(7 * t, 7 * t + 7) for t in range(FRAMES - 1)]  # blue of the first pixel is 7 t: previous, next
    scores = found.sets[0].as_dict()
    # without motion nothing leaves the picture: agreement is what flips leave over
    assert scores["flow_agreement_mine"] == pytest.approx(1 - scores["flip_rate"], abs=1e-15)
    assert scores["compared_share"] == 1
    assert found.to_json()["checks_occlusion"] is False


def test_flips_and_coverage_of_a_run_are_those_that_it_recorded(run):
    summary = {clip: RunFolder.open(run).finished_windows(clip) for clip in "ab"}
    found = measure_stability(sets_of(run), flow=None)
    for one, series in zip(found.sets, ("flip_base", "flip_refined"), strict=True):
        recorded = [flip for windows in summary.values() for w in windows for flip in getattr(w, series)]
        assert one.scores.flip_rate == pytest.approx(np.mean([f for f in recorded if f is not None]), abs=1e-15)
    shares = [share for windows in summary.values() for w in windows for share in w.coverage]
    assert found.sets[1].coverage == pytest.approx(np.mean(shares), abs=1e-15)
    assert found.sets[0].coverage is None  # base labels have no masklets


def test_flips_are_pooled_over_pixels_so_large_clips_count_for_more_than_in_the_summary_of_a_run(tmp_path):
    # 2 of 2 pixels flip in the small clip, 0 of 6 in the large one; a run's summary would say (1 + 0) / 2
    for name, maps in (("large", np.zeros((2, 2, 3))), ("small", np.array([[[0, 0]], [[1, 1]]]))):
        for t, labels in enumerate(maps):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(labels.astype(np.uint8)).save(tmp_path / name / f"{t}.png")
    assert measure_stability(sets_of(tmp_path), flow=None).sets[0].scores.flip_rate == 2 / 8


def test_refined_labels_of_a_run_stand_beside_its_base_labels(run):
    found = measure_stability(sets_of(run))
    base, refined = found.sets
    assert (base.name, refined.name, base.against, refined.against) == (
        "exact: base", "exact: refined", None, "exact: base",
    )  # fmt: skip
    difference = refined.differences["flow_consistency_dis"]
    assert difference.difference == refined.scores.flow_consistency - base.scores.flow_consistency
    assert (difference.statistic, difference.clips) == ("flow_consistency_dis", 2)
    flips = refined.differences["flip_rate"]
    assert flips.interval is not None
    assert flips.interval[1] < 0
    assert difference.difference > 0  # exact masklets take the noise away


def test_switches_are_counted_under_the_masklets_of_the_run_before_and_after(run):
    base, refined = measure_stability(sets_of(run), flow=None).sets
    opened = RunFolder.open(run)
    for one, place in ((base, opened.base_path), (refined, opened.label_path)):
        for clip in "ab":
            counter = SwitchCounter()
            for window in opened.finished_windows(clip):
                maps = np.stack([read_label_map(place(clip, name), toy.CLASSES) for name in window.frames])
                masklets = toy.ExactTracker().track(
                    np.stack([read_image(find_clips(opened.clip_info(clip)["source"])[0].files[int(name)])
                              for name in window.frames]), window.start)  # fmt: skip
                counter.update(count_frame_votes(masklets, maps, toy.CLASSES), masklets.ids)
            assert one.switches[clip] == counter.counts()
    assert refined.all_switches.switches == 0  # exact masklets do not overlap, so each keeps its one class
    assert refined.differences["switch_rate"].clips == 2


# --- which sets ------------------------------------------------------------------------------------------------------


def test_several_folders_are_compared_with_the_first_one(tmp_path, pictures):
    folders = [write_labels(tmp_path / name, share) for name, share in (("noisy", 0.4), ("less", 0.1), ("clean", 0))]
    found = measure_stability(sets_of(*folders), pictures)
    assert [(one.name, one.against) for one in found.sets] == [("noisy", None), ("less", "noisy"), ("clean", "noisy")]
    noisy, less, clean = (one.scores for one in found.sets)
    assert noisy.flip_rate > less.flip_rate > clean.flip_rate
    assert noisy.flow_consistency < less.flow_consistency < clean.flow_consistency
    flips = found.sets[1].differences["flip_rate"]
    assert flips.interval is not None
    assert flips.interval[1] < 0


def test_base_labels_that_several_runs_share_are_one_row(run, tmp_path):
    copy = tmp_path / "again"
    shutil.copytree(run, copy)
    found = measure_stability(sets_of(run, copy), flow=None)
    assert [(one.name, one.against) for one in found.sets] == [
        ("exact: base", None), ("exact: refined", "exact: base"), ("again: refined", "exact: base"),
    ]  # fmt: skip
    last = copy / "base" / "b" / "0007.png"
    labels = np.array(Image.open(last))
    labels[0, 0] = (labels[0, 0] + 1) % 4
    Image.fromarray(labels).save(last)
    found = measure_stability(sets_of(run, copy), flow=None)
    assert [one.name for one in found.sets] == ["exact: base", "exact: refined", "again: base", "again: refined"]
    assert [one.against for one in found.sets] == [None, "exact: base", "exact: base", "again: base"]


def test_one_part_of_a_run_finds_its_pictures_too(run):
    found = measure_stability(sets_of(run / "labels"))
    assert found.sets[0].name == "exact: refined"
    assert found.sets[0].as_dict()["coverage"] > 0


def test_folders_of_the_same_name_get_distinct_rows(tmp_path):
    folders = [write_labels(tmp_path / place / "labels", share, "a") for place, share in (("x", 0.1), ("y", 0.2))]
    found = measure_stability(sets_of(*folders), flow=None)
    assert [one.name for one in found.sets] == ["labels", "labels (2)"]
    assert found.sets[1].against == "labels"


def test_single_clips_need_not_share_a_name(tmp_path, pictures):
    one, other = write_labels(tmp_path / "one", 0.1, "a"), tmp_path / "two" / "camera"
    toy.write_toy_labels(other, FRAMES, 0.2)
    found = measure_stability(sets_of(one, other), pictures / "b", NO_MOTION)
    assert list(found.sets[1].per_video) == ["a"]


def test_a_run_keeps_its_masklets_and_frames_under_another_name_of_its_only_clip(tmp_path, pictures):
    with toy.no_waiting_for_the_disk():
        toy.run_toy(tmp_path / "run", find_clips(pictures / "a"), save_masklets=True, overlay=False)
    labels = write_labels(tmp_path / "camera", 0.1, "b")
    alone, beside = measure_stability(sets_of(tmp_path / "run")), measure_stability(sets_of(labels, tmp_path / "run"))
    assert list(beside.sets[2].per_video) == ["b"]
    assert beside.sets[2].as_dict() == alone.sets[1].as_dict()
    assert beside.sets[1].all_switches == alone.sets[0].all_switches


def test_only_keeps_the_named_clips(run):
    assert list(measure_stability(sets_of(run), flow=None, only=["b"]).sets[0].per_video) == ["b"]
    with pytest.raises(SettingsError, match=r"no labels of the clips c; there are a, b"):
        measure_stability(sets_of(run), flow=None, only=["b", "c"])


def test_sets_that_do_not_cover_the_same_frames_are_refused(tmp_path):
    whole, part = write_labels(tmp_path / "whole", 0), write_labels(tmp_path / "part", 0, "a")
    with pytest.raises(MissingPredictionsError, match=r"part lacks 8 frames that whole has \(first: b/0000, b/0001"):
        measure_stability(sets_of(whole, part), flow=None)
    with pytest.raises(MissingPredictionsError, match="part lacks 8 frames that whole has"):
        measure_stability(sets_of(part, whole), flow=None)
    other = find_label_sets(whole, LabelSpace.numbered(4))
    with pytest.raises(LabelError, match=r"whole \(2\) has 4 classes and whole has 4, or their names differ"):
        measure_stability([*sets_of(whole), *other], flow=None)
    with pytest.raises(SettingsError, match="no labels were given"):
        measure_stability([])


def test_ids_without_a_class_count_as_unlabelled_and_are_named(tmp_path):
    for t, labels in enumerate(([[0, 9]], [[0, 9]])):
        Image.fromarray(np.array(labels, np.uint8)).save(tmp_path / f"{t}.png")
    found = measure_stability(sets_of(tmp_path), flow=None)
    assert found.sets[0].scores.unlabelled_share == 1 / 2
    assert "1 ids without a class in the label set (9; first in" in found.warnings[0]


def test_stored_numbers_are_turned_into_train_ids(tmp_path):
    space = LabelSpace(toy.CLASSES.names, toy.CLASSES.palette, raw_ids=(1, 2, 3, 40_000), raw_void=(0,))
    for t, labels in enumerate(([[1, 40_000, 0]], [[1, 40_000, 3]])):
        Image.fromarray(np.array(labels, np.uint16)).save(tmp_path / f"{t}.png")
    (found,) = measure_stability(sets_of(tmp_path, space=space), flow=None).sets
    assert [one.pixels for one in found.per_class] == [2, 0, 1, 2]
    assert (found.scores.flip_rate, found.scores.unlabelled_share) == (1 / 3, 1 / 6)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_without_pictures_the_message_says_how_to_pass_them(tmp_path, run):
    labels = write_labels(tmp_path / "labels", 0.1)
    with pytest.raises(
        SettingsError, match=r"labels does not say where they are: pass --frames SOURCE, or --flow none"
    ):
        measure_stability(sets_of(labels))
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    info = json.loads((moved / "run.json").read_text())
    for clip in info["clips"]:
        clip["source"] = str(tmp_path / "gone")
    (moved / "run.json").write_text(json.dumps(info))
    with pytest.raises(MediaError, match=r"frames of a, which .*moved was made of, cannot be read again .*--frames"):
        measure_stability(sets_of(moved))


def test_pictures_of_other_clips_or_frames_are_refused(tmp_path, pictures):
    labels = write_labels(tmp_path / "labels", 0.1, "ac")
    with pytest.raises(MediaError, match=r"no pictures of 1 of 2 labelled clips \(first: c\); it holds a, b"):
        measure_stability(sets_of(labels), pictures)
    longer = write_labels(tmp_path / "longer", 0.1, "ab", FRAMES + 1)
    with pytest.raises(MediaError, match=r"a has 9 label maps \(first: 0000\) .* has 8 pictures, of which 8 belong"):
        measure_stability(sets_of(longer), pictures, NO_MOTION)


def test_labels_of_another_size_than_the_pictures_are_refused(tmp_path, pictures):
    toy.write_toy_labels(tmp_path / "labels", FRAMES, 0.1, (12, 18))
    with pytest.raises(ShapeError, match=r"0000\.png is 12 x 18 \(height x width\), its picture is 24 x 36"):
        measure_stability(sets_of(tmp_path / "labels"), pictures / "a", NO_MOTION)


def test_labels_of_every_other_picture_are_compared_over_the_longer_step_and_said_to_be(tmp_path, pictures):
    labels = write_labels(tmp_path / "labels", 0.1, "a")
    for t in range(1, FRAMES, 2):
        (labels / "a" / f"{t:04d}.png").unlink()
    steps = []

    def find(image, next_image):
        steps.append(int(next_image[0, 0, 2]) - int(image[0, 0, 2]))
        return np.zeros((*image.shape[:2], 2))

    found = measure_stability(sets_of(labels), pictures / "a", FlowMethod("mine", find), checks_occlusion=False)
    assert steps == [14, 14, 14]  # two frames apart
    assert "4 of 8 pictures of a have no labels" in found.warnings[0]


def test_labels_of_a_video_belong_to_its_frames_in_order(tmp_path):
    from clip_files import SIZE, write_numbered_video

    video = write_numbered_video(tmp_path / "drive.mp4", 5)
    for t in range(5):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / f"map{t + 1}.png")
    assert measure_stability(sets_of(tmp_path), video, NO_MOTION).sets[0].scores.frames == 5
    (tmp_path / "map5.png").unlink()
    with pytest.raises(MediaError, match="has 5 pictures, of which 4 belong to labels in order, as no name agrees"):
        measure_stability(sets_of(tmp_path), video, NO_MOTION)


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_tables_show_percent_and_leave_out_what_nobody_has(tmp_path, run):
    found = measure_stability(sets_of(run))
    head, base, refined = stability_table(found)
    assert head == [
        "labels", "flips", "DIS mIoU", "DIS agreement", "coverage", "switches/100", "switching",
    ]  # fmt: skip
    assert base[1] == f"{100 * found.sets[0].scores.flip_rate:.2f}"
    assert (base[4], refined[0], refined[5]) == ("-", "exact: refined", "0.00")
    (head, row) = differences_table(found)
    assert head == ["difference", "flips", "DIS mIoU", "DIS agreement", *stability_table(found)[0][-2:], "clips"]
    difference = found.sets[1].differences["flip_rate"]
    low, high = difference.interval
    assert row[:2] == [
        "exact: refined - exact: base",
        f"{100 * difference.difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
    ]
    assert row[-1] == "2"
    alone = measure_stability(sets_of(write_labels(tmp_path, 0.1)), flow=None)
    assert stability_table(alone)[0] == ["labels", "flips"]
    assert differences_table(alone) == []


def test_json_holds_every_number_and_the_caution(run):
    content = json.loads(json.dumps(measure_stability(sets_of(run)).to_json(), allow_nan=False))
    assert "labels that never change score best" in content["caution"]
    refined = content["sets"]["exact: refined"]
    assert set(refined["scores"]) == {
        "flip_rate", "unlabelled_share", "flow_consistency_dis", "flow_agreement_dis", "tc_dis", "compared_share",
        "coverage", "switches_per_masklet", "switch_rate", "switching_masklets",
    }  # fmt: skip
    assert (refined["frames"], refined["clips"], refined["against"]) == (16, 2, "exact: base")
    assert refined["differences"]["flip_rate"]["clips"] == 2
    assert len(refined["differences"]["flip_rate"]["interval"]) == 2
    assert [entry["name"] for entry in refined["per_class"]] == list(toy.CLASSES.names)
    assert refined["per_video"]["a"]["frames"] == 8
    assert refined["switches"]["switches"] == 0


def test_one_frame_is_no_error(tmp_path):
    toy.write_toy_labels(tmp_path, 1)
    found = measure_stability(sets_of(tmp_path), flow=None)
    assert stability_table(found) == [["labels"], [tmp_path.name]]
    assert found.warnings[0].startswith("1 of 1 clips have one frame, which says nothing of steadiness")
    assert json.dumps(found.to_json(), allow_nan=False)


def test_masklets_that_were_not_kept_are_said_to_be_missing(tmp_path, pictures):
    with toy.no_waiting_for_the_disk():
        toy.run_toy(tmp_path / "run", find_clips(pictures), overlay=False)
    found: Stability = measure_stability(sets_of(tmp_path / "run"), flow=None)
    assert found.sets[0].switches is None
    assert [note for note in found.warnings if "refine with --save-masklets" in note] == list(found.warnings)
    assert len(found.warnings) == 1


def test_flow_methods_are_found_by_name():
    assert find_flow_method("dis") is DIS
    assert find_flow_method("none") is None
    with pytest.raises(SettingsError, match="flow 'raft' is unknown, expected dis or none"):
        find_flow_method("raft")


# --- real recording --------------------------------------------------------------------------------------------------


@pytest.mark.dataset
def test_stored_predictions_of_a_real_clip_keep_their_scores(shared_data, tmp_path):
    camvid = shared_data / "camvid"
    space = LabelSpace.from_json(camvid / "label_set.json")
    for file in sorted((camvid / "data" / "0016E5_15hz_a" / "origin").iterdir())[:13]:
        (tmp_path / "frames").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "frames" / file.name).symlink_to(file)
        label = f"{file.stem}.png"
        (tmp_path / "labels" / label).symlink_to(shared_data / "camvid_predictions" / "0016E5_15hz_a" / label)
    (found,) = measure_stability(find_label_sets(tmp_path / "labels", space), tmp_path / "frames").sets
    # `flowwarp` of VSPW_baseline's TC_cal.py and its `Evaluator`, run on the same labels and the same DIS flow; the
    # tolerance is for builds of OpenCV whose flow differs in the last bits
    assert found.scores.tc == pytest.approx(0.6991410740915623, abs=1e-4)
    assert found.scores.flip_rate == 0.031834008487654324  # 66011 of 12 x 172800 pixels
    assert found.scores.flow_consistency == pytest.approx(0.7964, abs=1e-3)
