"""The whole way from frames to a run folder, with a noisy segmenter and an exact tracker, and what interrupts it."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toy
from clip_files import write_numbered_video
from sam2vss import pipeline
from sam2vss.artifacts import RunFolder
from sam2vss.errors import LabelError, MediaError, RunError, ShapeError
from sam2vss.interfaces import FollowsFrames
from sam2vss.media import find_clips
from sam2vss.pipeline import RefinedWindow, VoteRule, check_clips, refine_clip
from sam2vss.refiner import ArrayLabels
from sam2vss.segmenters import ModelLabels, StoredLabels
from sam2vss.segmenters.in_space import LabelsInSpace
from sam2vss.segmenters.void import VoidLabels
from sam2vss.smoothing import find_smoother
from sam2vss.trackers.nothing import NoTracker
from sam2vss.types import Refinement
from toy import CLASSES, ExactTracker, NoisySegmenter, ToyClip, content_of_run, run_toy

PYTHONPATH = os.pathsep.join([str(Path(pipeline.__file__).parents[1]), str(Path(__file__).parent)])
OBJECTS = toy.toy_objects(12)
TRUTH = toy.toy_labels(OBJECTS)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


def refine_toy(num_frames=12, window_length=5, tracker=None, labels=None, rule=None) -> list[Refinement]:
    """Refine the toy clip, by default from noisy labels."""
    clip = ToyClip(num_frames)
    base = ModelLabels(NoisySegmenter()) if labels is None else ArrayLabels(labels, CLASSES)
    windows = list(refine_clip("toy", clip.frames(), base, tracker or ExactTracker(), window_length, rule))
    assert all(isinstance(window, RefinedWindow) for window in windows)
    return [window.refinement for window in windows]


def joined(windows: list[Refinement], name="labels") -> np.ndarray:
    return np.concatenate([getattr(window, name) for window in windows])


def is_followed(num_frames=12, window_length=5) -> np.ndarray:
    """Pixels of objects that their window's first frame shows, bool (T, H, W), by plain loops."""
    inside = np.zeros_like(OBJECTS[:num_frames], bool)
    for t in range(num_frames):
        first = t // window_length * window_length
        for object_id in range(1, toy.NUM_OBJECTS + 1):
            if (OBJECTS[first] == object_id).any():
                inside[t] |= OBJECTS[t] == object_id
    return inside


# --- the method ------------------------------------------------------------------------------------------------------


def test_exact_masklets_give_the_truth_back_and_leave_the_rest_alone():
    windows = refine_toy()
    refined, base, inside = joined(windows), joined(windows, "base"), is_followed()
    assert (base != TRUTH)[inside].mean() > 0.2  # there is something to repair
    assert (refined == TRUTH)[inside].all()
    assert (refined == base)[~inside].all()
    assert (refined != TRUTH)[~inside].mean() > 0.2


def test_votes_and_coverage_are_those_of_plain_counting():
    second = refine_toy()[1]  # frames 5..9, which all four objects begin
    inside = is_followed()[5:10]
    assert second.coverage.tolist() == pytest.approx(inside.mean(axis=(1, 2)).tolist())
    for row, object_id in zip(second.votes, (1, 2, 3, 4), strict=True):
        own = second.base[OBJECTS[5:10] == object_id]
        assert row.tolist() == [int((own == label).sum()) for label in range(4)]
    assert second.classes.tolist() == [1, 2, 1, 3]
    assert second.masklets.ids.tolist() == [5001, 5002, 5003, 5004]


def test_an_object_that_comes_in_after_the_first_frame_waits_for_the_next_window():
    in_one_window, in_windows_of_five = refine_toy(window_length=12), refine_toy()
    late = OBJECTS == 4
    assert not late[4].any()
    assert late[5].any()  # the second window begins with it
    assert (joined(in_one_window) == joined(in_one_window, "base"))[late].all()
    assert (joined(in_windows_of_five) == 3)[late].all()


@pytest.mark.parametrize(("num_frames", "lengths"), [(12, [5, 5, 2]), (10, [5, 5]), (5, [5]), (1, [1])])
def test_the_last_window_may_be_shorter(num_frames, lengths):
    tracker = ExactTracker()
    windows = refine_toy(num_frames, tracker=tracker)
    assert [window.window.length for window in windows] == lengths
    assert tracker.starts == [window.window.start for window in windows] == [5 * i for i in range(len(lengths))]
    assert len(joined(windows)) == num_frames


def test_without_masklets_the_base_labels_stay():
    windows = refine_toy(tracker=NoTracker())
    assert joined(windows).tolist() == joined(windows, "base").tolist()
    assert joined(windows, "coverage").tolist() == [0] * 12


def test_refining_twice_is_refining_once_where_nothing_overlaps():
    once = joined(refine_toy())
    assert joined(refine_toy(labels=once)).tolist() == once.tolist()


@pytest.mark.parametrize("vote", ["window", "frame"])
def test_a_perfect_base_stays_perfect(vote):
    assert joined(refine_toy(labels=TRUTH, rule=VoteRule(vote=vote))).tolist() == TRUTH.tolist()


def test_permuted_masklets_permute_the_votes_and_change_nothing_else():
    order = np.array([2, 0, 1])
    plain = refine_toy(5)[0]
    permuted = refine_toy(5, tracker=ExactTracker(order))[0]
    assert permuted.votes.tolist() == plain.votes[order].tolist()
    assert permuted.labels.tolist() == plain.labels.tolist()


def test_a_rule_reaches_the_vote():
    base = refine_toy(rule=VoteRule(min_share=1.0))  # noise leaves no masklet unanimous, so all abstain
    assert joined(base).tolist() == joined(base, "base").tolist()
    assert {label for window in base for label in window.classes.tolist()} == {-1}


def test_a_window_goes_through_all_stages_before_the_next_one_is_read():
    events: list[str] = []

    class Segmenter(NoisySegmenter):
        def predict(self, frames):
            events.append(f"label {len(frames)}")
            return super().predict(frames)

    clip = ToyClip(5, on_frame=lambda t: events.append(f"read {t}"))
    tracker = ExactTracker(on_window=lambda start: events.append(f"track {start}"))
    for window in refine_clip("toy", clip.frames(), ModelLabels(Segmenter()), tracker, 2):
        assert isinstance(window, RefinedWindow)
        assert list(window.seconds) == ["decode", "base labels", "masklets", "vote and paint"]
        assert all(seconds >= 0 for seconds in window.seconds.values())
        events.append("yield")
    first, second = "read 0, read 1, label 2, track 0, yield", "read 2, read 3, label 2, track 2, yield"
    assert ", ".join(events) == f"{first}, {second}, read 4, label 1, track 4, yield"


def test_finished_windows_are_only_read():
    tracker, segmenter = ExactTracker(), NoisySegmenter()
    windows = refine_clip("toy", ToyClip(5).frames(), ModelLabels(segmenter), tracker, 2, skip=frozenset([2]))
    assert [isinstance(window, RefinedWindow) for window in windows] == [True, False, True]
    assert (tracker.starts, segmenter.calls) == ([0, 4], 2)


def test_a_source_that_follows_frames_is_shown_those_of_finished_windows():
    class Follower(ModelLabels):
        seen: list[str] = []  # noqa: RUF012 (one instance)

        def labels_for(self, clip_name, frames):
            self.seen.append(f"label {[frame.index for frame in frames]}")
            return super().labels_for(clip_name, frames)

        def pass_over(self, clip_name, frames):
            self.seen.append(f"pass over {[frame.index for frame in frames]} of {clip_name}")

    source = Follower(NoisySegmenter())
    assert isinstance(source, FollowsFrames)
    assert not isinstance(VoidLabels(CLASSES), FollowsFrames)
    wrapped = LabelsInSpace(source, CLASSES)
    list(refine_clip("toy", ToyClip(5).frames(), wrapped, ExactTracker(), 2, skip=frozenset([0, 2])))
    assert source.seen == ["pass over [0, 1] of toy", "pass over [2, 3] of toy", "label [4]"]
    plain = LabelsInSpace(VoidLabels(CLASSES), CLASSES)
    assert len(list(refine_clip("toy", ToyClip(5).frames(), plain, ExactTracker(), 2, skip=frozenset([0])))) == 3


# --- void ------------------------------------------------------------------------------------------------------------


def holey() -> np.ndarray:
    """The truth with a hole that moves over objects and ground, and one whole frame of void."""
    labels = TRUTH.copy()
    for t in range(12):
        labels[t, 2:20, t : t + 14] = 255
    labels[6] = 255
    return labels


def test_void_that_is_kept_is_painted_under_masklets_and_stays_elsewhere():
    windows = refine_toy(labels=holey())
    assert joined(windows, "base").tolist() == holey().tolist()
    refined, inside = joined(windows), is_followed()
    assert (refined == TRUTH)[inside & (refined != 255)].all()  # void does not vote
    assert (refined != 255)[inside & (holey() == 255)].mean() > 0.7  # a masklet that is all void has no class
    assert (refined == holey())[~inside].all()


def test_vote_fills_at_the_end_what_masklets_leave_void():
    kept, voted = refine_toy(labels=holey()), refine_toy(labels=holey(), rule=VoteRule(void="vote"))
    assert joined(voted, "base").tolist() == holey().tolist()
    assert [w.votes.tolist() for w in voted] == [w.votes.tolist() for w in kept]
    refined, before = joined(voted), joined(kept)
    assert (refined == before)[before != 255].all()
    assert (before[6] != 255).any()  # the masklets cover a part of the frame without labels
    assert not (refined == 255).any()


@pytest.mark.parametrize("void", ["nearest", "previous"])
def test_filled_labels_are_the_base_labels_that_vote(void):
    windows = refine_toy(labels=holey(), rule=VoteRule(void=void))
    base = joined(windows, "base")
    assert (base == holey())[holey() != 255].all()
    assert (base[6] == 255).all() == (void == "nearest")  # a frame without labels has none near
    by_hand = refine_toy(labels=base)
    assert joined(windows).tolist() == joined(by_hand).tolist()


def read_maps(run: Path) -> np.ndarray:
    folder = run / "labels"
    return StoredLabels(folder, CLASSES).labels_for("toy", list(ToyClip(12).frames())).labels


@pytest.mark.parametrize("void", ["keep", "nearest", "previous", "vote"])
@pytest.mark.parametrize("smooth", ["none", "static"])
def test_a_resumed_run_fills_as_an_uninterrupted_one_and_knows_the_void_that_was(tmp_path, void, smooth):
    options = {"rule": VoteRule(void=void), "base": ArrayLabels(holey(), CLASSES), "overlay": False}
    clips = [ToyClip(12)]

    def smoother() -> dict:
        return {} if smooth == "none" else {"smoother": find_smoother(smooth)}

    summary = run_toy(tmp_path / "whole", clips, **options, **smoother())
    with pytest.raises(MediaError):
        run_toy(tmp_path / "run", clips, tracker=break_at(8, MediaError("gone")), **options, **smoother())
    run_toy(tmp_path / "run", clips, resume=True, **options, **smoother())
    assert content_of_run(tmp_path / "run") == content_of_run(tmp_path / "whole")
    share = float((holey() == 255).mean())
    assert summary.void_shares == {"toy": pytest.approx(share)}
    assert RunFolder.open(tmp_path / "run").clip_info("toy")["void_share"] == pytest.approx(share)
    line = json.loads((tmp_path / "run" / "windows.jsonl").read_text().splitlines()[1])
    assert line["void"] == [pytest.approx(float((holey()[t] == 255).mean())) for t in range(4, 8)]
    left = read_maps(tmp_path / "run") == 255
    assert left.any() == (void == "keep" or (void, smooth) == ("nearest", "none"))  # a frame without labels has no near
    assert summary.void_left == {"toy": pytest.approx(float(left.mean()))}
    assert RunFolder.open(tmp_path / "run").clip_info("toy")["void_left_share"] == pytest.approx(float(left.mean()))
    assert line["void_left"] == [pytest.approx(float(left[t].mean())) for t in range(4, 8)]


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run over ten frames in windows of 4, 4 and 2."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_toy(out)
    return out


def test_a_run_leaves_labels_base_previews_overlay_and_an_account(whole):
    names = [f"{t:08d}" for t in range(10)]
    for folder, suffix in (("labels", "png"), ("base", "png"), ("preview", "jpg")):
        assert sorted(file.name for file in (whole / folder / "toy").iterdir()) == [f"{n}.{suffix}" for n in names]
    assert len(list(toy.decoded(whole / "overlay" / "toy.mp4"))) == 10
    info = json.loads((whole / "run.json").read_text())
    (clip,) = info["clips"]
    counts = [clip[f"frames_{what}"] for what in ("expected", "decoded", "refined", "written")]
    assert (info["status"], clip["status"], clip["error"], counts) == ("done", "done", None, [10] * 4)
    assert set(clip["seconds"]) == {"decode", "base labels", "masklets", "vote and paint"}
    expected = joined(refine_toy(10, 4))
    stored = StoredLabels(whole / "labels", CLASSES).labels_for("toy", list(ToyClip(10).frames()))
    assert stored.labels.tolist() == expected.tolist()


def test_the_summary_averages_over_frames_and_over_pairs_of_frames(tmp_path):
    summary = run_toy(tmp_path / "run", overlay=False)
    windows = refine_toy(10, 4)
    labels, base = joined(windows), joined(windows, "base")
    assert (summary.clips, summary.frames, summary.windows, summary.resumed_frames) == (1, 10, 3, 0)
    assert summary.masklets == 3 + 3 + 4  # the bar is there at the start of the third window
    assert summary.coverage == pytest.approx(is_followed(10, 4).mean())
    assert summary.flip_base == pytest.approx((base[1:] != base[:-1]).mean())
    assert summary.flip_refined == pytest.approx((labels[1:] != labels[:-1]).mean())
    assert summary.flip_refined < summary.flip_base
    assert summary.problems == []


def test_clips_follow_one_another_and_the_segmenter_is_reset_for_each(tmp_path):
    segmenter, told = NoisySegmenter(), []

    class Progress:
        def clip_started(self, name, num_frames):
            told.append((name, num_frames))

        def frames_done(self, name, count):
            told.append(count)

        def clip_finished(self, name):
            told.append(name)

    clips = [ToyClip(5, "a"), ToyClip(3, "b")]
    summary = run_toy(tmp_path / "run", clips, segmenter=segmenter, overlay=False, progress=Progress())
    assert told == [("a", 5), 4, 5, "a", ("b", 3), 3, "b"]
    assert (segmenter.resets, summary.clips, summary.frames) == (2, 2, 8)
    assert not (tmp_path / "run" / "overlay").exists()


def test_truth_is_stored_beside_the_labels(tmp_path):
    run_toy(tmp_path / "run", truth=ArrayLabels(TRUTH[:10], CLASSES), overlay=False)
    stored = StoredLabels(tmp_path / "run" / "truth", CLASSES).labels_for("toy", list(ToyClip(10).frames()))
    assert stored.labels.tolist() == TRUTH[:10].tolist()


def test_large_frames_get_small_previews_of_the_same_shape(tmp_path):
    run_toy(tmp_path / "run", [ToyClip(1, size=(50, 960))], overlay=False)
    from sam2vss.images import image_size

    assert image_size(tmp_path / "run" / "preview" / "toy" / "00000000.jpg") == (25, 480)


def test_long_clips_get_a_preview_now_and_then(tmp_path):
    run_toy(tmp_path / "run", [ToyClip(361, size=(8, 8))], window=100, tracker=NoTracker(), overlay=False)
    previews = sorted((tmp_path / "run" / "preview" / "toy").iterdir())
    assert len(previews) == 121  # every third of 361
    assert previews[1].stem == "00000003"


# --- interruptions ---------------------------------------------------------------------------------------------------


def break_at(start: int, error: BaseException) -> ExactTracker:
    def raise_there(window_start: int) -> None:
        if window_start == start:
            raise error

    return ExactTracker(on_window=raise_there)


@pytest.mark.parametrize("error", [MediaError("gone"), KeyboardInterrupt(), ZeroDivisionError("our bug")], ids=type)
@pytest.mark.parametrize("start", [0, 8])
def test_an_error_keeps_finished_windows_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path, whole, start, error):
    out = tmp_path / "run"
    with pytest.raises(type(error)):
        run_toy(out, tracker=break_at(start, error))
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "incomplete"
    assert info["clips"][0]["status"] == "running"
    assert not (out / "overlay" / "toy.mp4").exists()
    assert len(RunFolder.open(out).finished_windows("toy")) == start // 4
    tracker = ExactTracker()
    summary = run_toy(out, tracker=tracker, resume=True)
    assert tracker.starts == [0, 4, 8][start // 4 :]
    assert (summary.frames, summary.resumed_frames) == (10, start)
    assert content_of_run(out) == content_of_run(whole)


KILL = """
import os, signal, sys
from pathlib import Path
import toy
for number in map(int, sys.argv[2:]):
    child = os.fork()
    if child == 0:
        calls, replace = iter(range(1, 10**6)), os.replace
        def replace_or_die(*arguments):
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*arguments)
        os.replace = replace_or_die
        toy.run_toy(Path(sys.argv[1]) / str(number))
        os._exit(0)
    print(number, os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_killed_run_resumes_to_the_same_bits(tmp_path, whole):
    # Renamed are: 1 run.json, 2 windows.jsonl, 3 run.json (clip begins), 4-15 first window (labels, base, preview of
    # four frames), 16-27 second, 28-33 third, 34 overlay, 35 run.json (clip), 36 run.json (end).
    numbers = ["2", "7", "16", "25", "34", "36"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", KILL, str(tmp_path), *numbers]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert killed.stdout.split() == [word for number in numbers for word in (number, str(int(signal.SIGKILL)))]
    for number, num_windows in zip(numbers, (0, 0, 1, 1, 3, 3), strict=True):
        out = tmp_path / number
        assert json.loads((out / "run.json").read_text())["status"] == "running"
        if number != "2":
            assert len(RunFolder.open(out).finished_windows("toy")) == num_windows
        run_toy(out, resume=True)
        assert content_of_run(out) == content_of_run(whole), number


def test_a_finished_run_is_not_read_again_on_resume_unless_its_overlay_is_gone(tmp_path, whole):
    read: list[int] = []
    clip, out = ToyClip(10, on_frame=read.append), tmp_path / "run"
    run_toy(out, [clip])
    read.clear()
    summary = run_toy(out, [clip], resume=True)
    assert (read, summary.resumed_frames, summary.frames) == ([], 10, 10)
    (out / "overlay" / "toy.mp4").unlink()
    run_toy(out, [clip], tracker=break_at(0, ZeroDivisionError()), resume=True)  # the tracker is not asked
    assert read == list(range(10))
    assert content_of_run(out) == content_of_run(whole)


def test_a_source_that_gives_other_frames_than_before_is_refused(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(MediaError):
        run_toy(out, tracker=break_at(4, MediaError("gone")))

    class Shrunk(ToyClip):  # the same to its fingerprint
        def frames(self):
            yield from ToyClip(3).frames()

    with pytest.raises(ShapeError, match=r"gives 3 frames from frame 0 on, the finished window .* has 4.*--overwrite"):
        run_toy(out, [Shrunk(10)], resume=True)


def test_resuming_with_another_window_length_names_it(tmp_path, whole):
    with pytest.raises(RunError, match=r"settings\.window: 4 in the folder, 5 asked for"):
        run_toy(whole, window=5, resume=True)
    with pytest.raises(RunError, match=r"already holds a run \(status done, 1 of 1 clips done\): go on with --resume"):
        run_toy(whole)


def in_order(out: Path) -> dict:
    """Content of a run whose windows may have been done in another order; of the overlay only that it is there."""
    content = content_of_run(out)
    content["overlay/toy.mp4"] = len(list(toy.decoded(out / "overlay" / "toy.mp4")))
    content["windows"].sort(key=lambda window: window["start"])
    return content


@pytest.mark.parametrize(
    ("damage", "starts"),
    [
        (lambda out: (out / "windows.jsonl").unlink(), [0, 4, 8]),
        (lambda out: (out / "windows.jsonl").write_text(""), [0, 4, 8]),
        (lambda out: (out / "labels" / "toy" / "00000005.png").unlink(), [4]),
        (lambda out: (out / "labels" / "toy" / "00000005.png").write_bytes(b""), [4]),
        (lambda out: (out / "base" / "toy" / "00000003.png").unlink(), [0]),
    ],
    ids=["manifest gone", "manifest empty", "label gone", "label empty", "base gone"],
)
def test_what_a_finished_run_lost_is_done_again_on_resume(tmp_path, whole, damage, starts):
    out = tmp_path / "run"
    run_toy(out)
    damage(out)
    tracker = ExactTracker()
    summary = run_toy(out, tracker=tracker, resume=True)
    assert tracker.starts == starts
    assert summary.frames == 10
    assert in_order(out) == in_order(whole)


def test_a_kill_while_overwriting_resumes_or_overwrites_to_the_same_bits(tmp_path, whole, monkeypatch):
    unlink = Path.unlink
    for number in (1, 6, 30, 33):  # of 10 labels, base, previews each, overlay, manifest, run.json
        for go_on in ({"resume": True}, {"overwrite": True}):
            out, calls = tmp_path / f"{number} {go_on}", iter(range(1, 10**6))
            run_toy(out)

            def unlink_or_die(path, missing_ok=False, number=number, calls=calls):
                if next(calls) == number:
                    raise KeyboardInterrupt
                unlink(path, missing_ok=missing_ok)

            with monkeypatch.context() as patch:
                patch.setattr(Path, "unlink", unlink_or_die)
                with pytest.raises(KeyboardInterrupt):
                    run_toy(out, overwrite=True)
            run_toy(out, **go_on)
            assert in_order(out) == in_order(whole)


def test_file_names_that_are_no_text_are_named_before_any_work(tmp_path):
    toy.write_toy_frames(tmp_path / "clip", 2)
    (tmp_path / "clip" / "0001.png").rename(os.fsdecode(os.fsencode(tmp_path / "clip") + b"/\xff.png"))
    with pytest.raises(MediaError, match=r"file name '\\udcff' in .*clip is not UTF-8; rename the file"):
        check_clips(find_clips(tmp_path / "clip"), ArrayLabels(TRUTH[:2], CLASSES))


# --- a full disk -----------------------------------------------------------------------------------------------------


def fill_disk(monkeypatch: pytest.MonkeyPatch, after: int, stays_full: bool) -> None:
    """Let renaming fail for want of space, once or for good, after so many times."""
    replace, calls = os.replace, iter(range(10**6))

    def replace_or_fail(*arguments):
        number = next(calls)
        if number == after or (stays_full and number > after):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*arguments)

    monkeypatch.setattr(os, "replace", replace_or_fail)


@pytest.mark.parametrize("stays_full", [False, True])
@pytest.mark.parametrize(("after", "file"), [(20, "00000005.png"), (33, "toy.mp4")])
def test_a_full_disk_leaves_nothing_that_looks_complete(tmp_path, monkeypatch, whole, after, file, stays_full):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        fill_disk(patch, after, stays_full)
        with pytest.raises(MediaError, match=rf"the disk is full while writing .*{file}: free some space"):
            run_toy(out)
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == ("running" if stays_full else "incomplete")  # a full disk takes no new status either
    assert info["clips"][0]["status"] == "running"
    assert not (out / "overlay" / "toy.mp4").exists()
    assert not list(out.rglob("*.part"))
    assert len((out / "windows.jsonl").read_text().splitlines()) == (1 if after == 20 else 3)
    run_toy(out, resume=True)
    assert content_of_run(out) == content_of_run(whole)


# --- sources that do not keep their word -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut_video(tmp_path_factory) -> Path:
    """A video of 40 frames whose file ends in the middle."""
    path = tmp_path_factory.mktemp("cut") / "cut.mp4"
    write_numbered_video(path, 40, container_options={"movflags": "+faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    return path


def test_a_video_that_breaks_off_is_refined_up_to_there_and_reported(tmp_path, cut_video):
    out = tmp_path / "run"
    clips = find_clips(cut_video)
    options = {"tracker": NoTracker(), "segmenter": toy.BrightnessSegmenter()}
    summary = run_toy(out, clips, **options)
    (clip,) = json.loads((out / "run.json").read_text())["clips"]
    count = clip["frames_decoded"]
    assert 4 < count < 40
    assert (clip["frames_expected"], clip["frames_refined"], clip["frames_written"]) == (40, count, count)
    assert clip["status"] == "incomplete"
    assert len(list((out / "labels" / "cut").iterdir())) == summary.frames == count
    assert len(list(toy.decoded(out / "overlay" / "cut.mp4"))) == count
    (problem,) = summary.problems
    assert f"{count} frames were decoded of 40 expected" in problem
    assert clip["error"] == problem
    before = content_of_run(out)
    assert run_toy(out, clips, resume=True, **options).problems == [problem]
    assert content_of_run(out) == before


def test_stored_labels_of_a_video_that_breaks_off_are_no_error(tmp_path, cut_video):
    size = (64, 96)
    labels = StoredLabels(toy.write_toy_labels(tmp_path / "labels" / "cut", 40, size=size).parent, CLASSES)
    clips = find_clips(cut_video)
    check_clips(clips, labels)
    (problem,) = run_toy(tmp_path / "run", clips, tracker=NoTracker(), base=labels, overlay=False).problems
    assert "of 40 expected" in problem


def test_labels_left_over_after_the_last_frame_are_an_error(tmp_path):
    class Boasting(ToyClip):
        def frames(self):
            yield from ToyClip(6).frames()

    labels = ArrayLabels(TRUTH[:10], CLASSES)
    with pytest.raises(ShapeError, match="clip toy has 6 frames and 10 label maps"):
        run_toy(tmp_path / "run", [Boasting(10)], base=labels)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "incomplete"


def test_a_wrong_frame_count_is_reported_and_all_frames_are_refined(tmp_path):
    class Boasting(ToyClip):
        def frames(self):
            yield from ToyClip(6).frames()

    summary = run_toy(tmp_path / "run", [Boasting(10)])
    assert summary.problems == ["toy announced 10 frames and gave 6; all 6 are refined"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "incomplete"


def test_a_clip_without_frames_is_an_error(tmp_path):
    with pytest.raises(MediaError, match="toy holds no frame that can be decoded"):
        run_toy(tmp_path / "run", [ToyClip(0)])
    assert not (tmp_path / "run" / "overlay" / "toy.mp4").exists()


def test_frames_are_counted_before_a_containers_count_is_held_against_stored_labels(tmp_path):
    labels = StoredLabels(toy.write_toy_labels(tmp_path / "labels" / "toy", 6).parent, CLASSES)

    class Boasting(ToyClip):
        def frames(self):
            yield from ToyClip(6).frames()

    check_clips([Boasting(10)], labels)
    with pytest.raises(LabelError, match=r"clip toy has 7 frames, but .* holds 6 label maps"):
        check_clips([ToyClip(7)], labels)


def test_label_maps_are_matched_with_pictures_by_name(tmp_path):
    toy.write_toy_frames(tmp_path / "clip", 4)
    labels = toy.write_toy_labels(tmp_path / "labels" / "clip", 4)
    (labels / "0002.png").unlink()
    with pytest.raises(LabelError, match=r"1 of 4 frames have no label map \(first: 0002\)"):
        check_clips(find_clips(tmp_path / "clip"), StoredLabels(labels.parent, CLASSES))


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
from pathlib import Path
import toy
with toy.no_waiting_for_the_disk():
    toy.run_toy(Path(sys.argv[1]), [toy.ToyClip(int(sys.argv[2]), size=(48, 64))], window=32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_ten_times_the_frames_need_hardly_more_memory(tmp_path):
    """Peak of the whole process, overlay included; measured: 1.04 times."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", MEMORY, tmp_path / str(n), str(n)], env=environment))
        for n in (200, 2000)
    ]
    assert peaks[1] <= 1.1 * peaks[0], peaks
