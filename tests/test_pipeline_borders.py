"""What goes over the borders of windows: carried masklets with their votes, smoothed labels, saved masklets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
from sam2vss.errors import MediaError
from sam2vss.masklet_files import read_masklets
from sam2vss.namers.classifier import ClassifierNamer
from sam2vss.pipeline import Carried, RefinedWindow, refine_clip
from sam2vss.refiner import ArrayLabels
from sam2vss.segmenters import ModelLabels
from sam2vss.trackers.nothing import NoTracker
from sam2vss.trackers.stored import StoredMasklets
from sam2vss.types import BaseLabels, MaskletWindow, WindowContext
from toy import CLASSES, ExactTracker, NoisySegmenter, ToyClip, content_of_run, run_toy
from toy_features import ClassEncoder, perfect_classifier

OBJECTS = toy.toy_objects(12)
TRUTH = toy.toy_labels(OBJECTS)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


class CarryingTracker(ExactTracker):
    """Follows the objects of a window's first frame; those of the window before keep their ids, which end in 1..4.

    Its quality of every frame depends on that of the window before, to the last bit.
    """

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        found = super().track(frames, start)
        quality = np.random.default_rng(start).random((len(frames), found.num_masklets), np.float32)
        found = replace(found, frame_iou=quality)
        previous = context.previous if context else None
        if previous is None:
            return found
        assert context is not None
        assert context.previous_frame is not None
        assert (context.previous_frame[..., 2] != frames[0, ..., 2]).all()  # the blue ramp moves on from frame to frame
        assert previous.frame_iou is not None
        quality = found.frame_iou * np.float32(0.7) + previous.frame_iou[-1].mean() * np.float32(0.3)
        known = {number % 1000: number for number in previous.ids.tolist()}
        ids = np.array([known.get(number % 1000, number) for number in found.ids.tolist()], np.int64)
        return MaskletWindow.from_masks(
            np.stack([found.stack(t) for t in range(found.window.length)], axis=1), start, ids=ids, frame_iou=quality
        )


def refine_carrying(labels: np.ndarray, window: int = 4, carry: bool = True) -> list[RefinedWindow]:
    clip = ToyClip(len(labels))
    windows = refine_clip("toy", clip.frames(), ArrayLabels(labels, CLASSES), CarryingTracker(), window, carry=carry)
    return [window for window in windows if isinstance(window, RefinedWindow)]


# --- carry -----------------------------------------------------------------------------------------------------------


def test_carried_masklets_bring_their_votes_along():
    first, second = (window.refinement for window in refine_carrying(TRUTH[:8]))

    assert first.masklets.ids.tolist() == [1, 2, 3]
    assert second.masklets.ids.tolist() == [1, 2, 3]
    for row, number in enumerate((1, 2, 3)):
        own = [int((OBJECTS[t] == number).sum()) for t in range(8)]
        label = toy.CLASS_OF_OBJECT[number]
        assert first.votes[row].tolist() == [sum(own[:4]) * (c == label) for c in range(4)]
        assert second.votes[row].tolist() == [sum(own) * (c == label) for c in range(4)]


def test_a_carried_masklet_keeps_its_class_where_the_base_errs():
    labels = TRUTH[:8].copy()
    labels[4:][OBJECTS[4:8] == 3] = (
        2  # the disc that stays is wrong from frame 4 on, for as many frames as it was right
    )
    labels[3][OBJECTS[3] == 3] = 1
    labels[7][OBJECTS[7] == 3] = 1  # five frames for class 1, three for class 2

    carried, alone = (refine_carrying(labels, carry=carry)[1].refinement for carry in (True, False))

    assert (carried.labels[OBJECTS[4:8] == 3] == 1).all()
    assert (alone.labels[OBJECTS[4:8] == 3] == 2).all()


def test_new_masklets_bring_no_votes():
    masklets = MaskletWindow.from_masks(np.ones((2, 1, 2, 2), bool), ids=np.array([7, 9]))
    carried = Carried(masklets, np.array([[1, 2], [3, 4]]), np.zeros((2, 2, 3), np.uint8))
    later = MaskletWindow.from_masks(np.ones((3, 1, 2, 2), bool), ids=np.array([9, 8, 7]))

    assert carried.votes_for(later).tolist() == [[3, 4], [0, 0], [1, 2]]


def test_without_carry_windows_know_nothing_of_one_another():
    contexts: list[WindowContext | None] = []

    class Tracker(ExactTracker):
        def track(self, frames, start, context=None):
            contexts.append(context)
            return super().track(frames, start)

    list(refine_clip("toy", ToyClip(8).frames(), ArrayLabels(TRUTH[:8], CLASSES), Tracker(), 4))

    assert [context.previous is None and context.previous_frame is None for context in contexts] == [True, True]
    assert [context.labels.shape for context in contexts] == [(4, *toy.SIZE)] * 2


@pytest.fixture(scope="module")
def carried(tmp_path_factory) -> Path:
    """An uninterrupted run that carries its masklets over windows of 4, 4 and 2 frames."""
    out = tmp_path_factory.mktemp("carried") / "run"
    run_toy(out, tracker=CarryingTracker(), carry=True)
    return out


@pytest.mark.parametrize("start", [4, 8])
def test_a_resumed_run_carries_what_the_interrupted_one_would_have(tmp_path, carried, start):
    def stop(window_start: int) -> None:
        if window_start == start:
            raise MediaError("gone")

    out = tmp_path / "run"
    with pytest.raises(MediaError):
        run_toy(out, tracker=CarryingTracker(on_window=stop), carry=True)
    run_toy(out, tracker=CarryingTracker(), carry=True, resume=True)

    assert content_of_run(out) == content_of_run(carried)
    lines = [json.loads(line) for line in (out / "windows.jsonl").read_text().splitlines()]
    assert [[masklet["id"] for masklet in line["masklets"]] for line in lines] == [
        [1, 2, 3],
        [1, 2, 3],
        [1, 2, 3, 8004],
    ]


def test_a_window_whose_masklets_are_gone_is_done_again(tmp_path, carried):
    out = tmp_path / "run"
    run_toy(out, tracker=CarryingTracker(), carry=True)
    (out / "masklets" / "toy" / "00000004.json.gz").unlink()
    tracker = CarryingTracker()

    run_toy(out, tracker=tracker, carry=True, resume=True)

    assert tracker.starts == [4]
    assert content_of_run(out)["windows"] == [content_of_run(carried)["windows"][i] for i in (0, 2, 1)]


def test_masklets_of_another_window_are_not_carried(tmp_path):
    def stop(window_start: int) -> None:
        if window_start == 8:
            raise MediaError("gone")

    out = tmp_path / "run"
    with pytest.raises(MediaError):
        run_toy(out, tracker=CarryingTracker(on_window=stop), carry=True)
    saved = out / "masklets" / "toy"
    (saved / "00000004.json.gz").write_bytes((saved / "00000000.json.gz").read_bytes())

    with pytest.raises(MediaError, match=r"00000004\.json\.gz holds other masklets than .* Delete it and go on"):
        run_toy(out, tracker=CarryingTracker(), carry=True, resume=True)


@pytest.mark.parametrize("name", ["masklets/toy/00000004.json.gz", "labels/toy/00000005.png", "base/toy/00000006.png"])
def test_a_window_whose_files_were_cut_off_is_done_again(tmp_path, carried, name):
    out = tmp_path / "run"
    run_toy(out, tracker=CarryingTracker(), carry=True)
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole[: len(whole) - 5])
    tracker = CarryingTracker()

    run_toy(out, tracker=tracker, carry=True, resume=True)

    assert tracker.starts == [4]
    assert (out / name).read_bytes() == whole


# --- scores of a namer -----------------------------------------------------------------------------------------------


def make_namer() -> ClassifierNamer:
    """Mixes a classifier with base votes, so that scores are no whole numbers."""
    return ClassifierNamer(ClassEncoder(), perfect_classifier("frame"), vote="window", vote_weight=0.7)


def test_a_namer_is_told_the_scores_of_earlier_windows_and_its_classes_are_painted():
    told = []

    class Namer(ClassifierNamer):
        def name_masklets(self, images, base, masklets, earlier=None):
            told.append(earlier)
            return super().name_masklets(images, base, masklets, earlier)

    namer = Namer(ClassEncoder(), perfect_classifier("frame"), vote="window")
    base = ArrayLabels(np.zeros_like(TRUTH[:8]), CLASSES)
    windows = list(refine_clip("toy", ToyClip(8).frames(), base, CarryingTracker(), 4, namer=namer, carry=True))

    for window, labels, objects in zip(windows, (TRUTH[:4], TRUTH[4:8]), (OBJECTS[:4], OBJECTS[4:8]), strict=True):
        followed = np.isin(objects, [1, 2, 3])
        np.testing.assert_array_equal(window.refinement.labels, np.where(followed, labels, 0))
        assert list(window.seconds) == ["decode", "base labels", "masklets", "classes", "vote and paint"]
    assert told[0] is None
    assert told[1].tolist() == windows[0].refinement.votes.tolist()
    np.testing.assert_allclose(windows[1].refinement.votes.sum(axis=1), [8, 8, 8])


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("start", [0, 4, 8])
def test_a_resumed_run_names_masklets_as_the_interrupted_one_would_have(tmp_path, start, carry):
    def stop(window_start: int) -> None:
        if window_start == start:
            raise MediaError("gone")

    run_toy(tmp_path / "whole", tracker=CarryingTracker(), namer=make_namer(), carry=carry)
    out = tmp_path / "run"
    with pytest.raises(MediaError):
        run_toy(out, tracker=CarryingTracker(on_window=stop), namer=make_namer(), carry=carry)
    tracker = CarryingTracker()
    run_toy(out, tracker=tracker, namer=make_namer(), carry=carry, resume=True)

    assert tracker.starts == [0, 4, 8][start // 4 :]
    content = content_of_run(out)
    assert content == content_of_run(tmp_path / "whole")
    votes = [count for masklet in content["windows"][1]["masklets"] for count in masklet["votes"].values()]
    assert any(count != int(count) for count in votes)


# --- saved masklets --------------------------------------------------------------------------------------------------


def test_saved_masklets_give_the_same_run_again(tmp_path):
    run_toy(tmp_path / "first", save_masklets=True)
    saved = tmp_path / "first" / "masklets" / "toy"
    assert sorted(file.name for file in saved.iterdir()) == [f"{start:08d}.json.gz" for start in (0, 4, 8)]
    assert read_masklets(saved / "00000008.json.gz").ids.tolist() == [8001, 8002, 8003, 8004]

    run_toy(tmp_path / "second", tracker=StoredMasklets(tmp_path / "first"))

    first, second = content_of_run(tmp_path / "first"), content_of_run(tmp_path / "second")
    assert second == {name: content for name, content in first.items() if not name.startswith("masklets")}


def test_masklets_are_not_saved_unless_asked_for(tmp_path):
    run_toy(tmp_path / "run")

    assert not (tmp_path / "run" / "masklets").exists()


def test_overwriting_removes_saved_masklets_and_nothing_of_others(tmp_path):
    out = tmp_path / "run"
    run_toy(out, save_masklets=True)
    (out / "masklets" / "toy" / "mine.txt").write_text("mine")

    run_toy(out, overwrite=True)

    assert [file.name for file in (out / "masklets" / "toy").iterdir()] == ["mine.txt"]


# --- smoothing -------------------------------------------------------------------------------------------------------


class HoldsBack:
    """A smoother that sees the whole clip before it gives the first window: every label becomes the clip's largest."""

    def smooth(self, windows):
        known = list(windows)
        highest = max(int(labels.labels.max()) for _, labels in known)
        for frames, labels in known:
            yield frames, labels, BaseLabels(np.full_like(labels.labels, highest))


def test_smoothed_labels_vote_and_are_painted_over_and_the_base_is_kept_as_it_came():
    windows = list(
        refine_clip(
            "toy", ToyClip(6).frames(), ArrayLabels(TRUTH[:6], CLASSES), NoTracker(), 4, smoother=HoldsBack()
        )
    )  # fmt: skip

    assert [window.refinement.window.start for window in windows] == [0, 4]
    for window in windows:
        assert (window.refinement.labels == 3).all()  # the bar's class, which only frame 5 has
        start = window.refinement.window.start
        assert np.array_equal(window.refinement.base, TRUTH[start : start + len(window.frames)])
    assert set(windows[0].seconds) == {"decode", "base labels", "smoothing", "masklets", "vote and paint"}


def test_masklets_vote_with_the_smoothed_labels():
    windows = list(
        refine_clip(
            "toy", ToyClip(6).frames(), ArrayLabels(TRUTH[:6], CLASSES), ExactTracker(), 6, smoother=HoldsBack()
        )
    )  # fmt: skip

    assert windows[0].refinement.classes.tolist() == [3, 3, 3]


def test_a_resumed_run_smooths_with_the_labels_of_finished_windows_too(tmp_path):
    run_toy(tmp_path / "whole", smoother=HoldsBack(), tracker=NoTracker())

    class Stops(NoTracker):
        def track(self, frames, start, context=None):
            if start == 8:
                raise MediaError("gone")
            return super().track(frames, start)

    with pytest.raises(MediaError):
        run_toy(tmp_path / "run", smoother=HoldsBack(), tracker=Stops())
    segmenter = NoisySegmenter()
    run_toy(tmp_path / "run", smoother=HoldsBack(), tracker=NoTracker(), segmenter=segmenter, resume=True)

    assert content_of_run(tmp_path / "run") == content_of_run(tmp_path / "whole")
    assert segmenter.calls == 3


def test_a_tracker_that_asks_is_told_which_clip_comes():
    told: list[str] = []

    class Tracker(NoTracker):
        def begin_clip(self, name):
            told.append(name)

    list(refine_clip("toy", ToyClip(3).frames(), ModelLabels(NoisySegmenter()), Tracker(), 2))

    assert told == ["toy"]
