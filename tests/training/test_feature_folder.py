"""Features of a toy data set, stored clip by clip, begun and gone on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.dataset_clips import DatasetClips, find_dataset_clips
from sam2vss.describe import describe_window, judge_window
from sam2vss.errors import LabelError, MediaError, RunError, ShapeError
from sam2vss.pooling import Pooling
from sam2vss.refiner import ArrayLabels
from sam2vss.segmenters import ModelLabels, StoredLabels
from sam2vss.training.feature_folder import FeatureFolder, FeatureMaker, make_features
from sam2vss.types import LabelSpace, Window, voc_palette
from toy import CLASSES, ExactTracker
from toy_bench import write_data
from toy_features import ClassEncoder

CLIPS = {"a": 5, "b": 7}
WINDOWS = [("a", 0), ("a", 4), ("b", 0), ("b", 4)]


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture
def data(tmp_path: Path) -> DatasetClips:
    return find_dataset_clips(write_data(tmp_path / "data"))


def make_maker(**options) -> FeatureMaker:
    values = {
        "tracker": ExactTracker(),
        "encoder": ClassEncoder(),
        "pooling": Pooling(("mean", "ring"), tokens=2),
        "window": 4,
        "base": ModelLabels(toy.NoisySegmenter()),
        "source": {"tracker": {"name": "exact"}, "base": Path("noisy")},
    }
    return FeatureMaker(**{**values, **options})


def content_of(folder: Path) -> dict[str, bytes]:
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.npz")}
    return {**files, "features.json": (folder / "features.json").read_bytes()}


def test_features_and_truth_of_every_window_are_stored(tmp_path, data):
    made = make_features(tmp_path / "out", data, make_maker())
    folder = FeatureFolder.open(tmp_path / "out")
    assert folder.info == made.info
    assert folder.is_complete
    assert folder.info["done"] == {"a": [0, 4], "b": [0, 4]}
    assert (folder.pooling, folder.label_space.names) == (Pooling(("mean", "ring"), tokens=2), CLASSES.names)
    assert folder.encoder == {
        "name": "toy-classes",
        "fingerprint": "exact",
        "level_names": ["class"],
        "channels": [4],
    }
    found = list(folder.read())
    assert [(name, known.window.start) for name, known, _ in found] == WINDOWS
    for name, known, truth in found:
        window = Window(known.window.start, min(4, CLIPS[name] - known.window.start))
        objects = toy.toy_objects(CLIPS[name])[window.start : window.stop]
        frames = toy.toy_frames(objects, window.start)
        masklets = ExactTracker().track(frames, window.start)
        base = toy.NoisySegmenter().predict(frames)
        expected = describe_window(frames, masklets, ClassEncoder(), folder.pooling, base, CLASSES)
        assert known.window == window
        for key in ("ids", "areas", "boxes_xyxy", "frame_iou", "votes"):
            np.testing.assert_array_equal(getattr(known, key), getattr(expected, key))
        np.testing.assert_allclose(known.features, expected.features, rtol=2**-11)
        np.testing.assert_allclose(known.tokens, expected.tokens, rtol=2**-11)
        judged = judge_window(masklets, toy.toy_labels(objects), CLASSES, base.labels)
        for key in ("classes", "top_classes", "top_base", "top_kept"):
            np.testing.assert_array_equal(getattr(truth, key), getattr(judged, key))
    assert [name for name, _, _ in folder.read(["b"])] == ["b", "b"]
    assert not (tmp_path / "out" / ".lock").exists()


def test_without_encoder_and_base_only_shapes_and_truth_are_stored(tmp_path, data):
    folder = make_features(tmp_path / "out", data, make_maker(encoder=None, base=None))
    assert folder.encoder is None
    for _, known, truth in folder.read():
        assert (known.features.shape[2], known.votes) == (0, None)
        assert truth.classes.any()
        assert not truth.top_base.any()


def test_frames_without_truth_have_features_and_void_truth(tmp_path):
    root = write_data(tmp_path / "data", clips={"a": 4})
    (root / "data" / "a" / "mask" / "0002.png").unlink()
    folder = make_features(tmp_path / "out", find_dataset_clips(root), make_maker())
    ((_, known, truth),) = folder.read()
    assert truth.classes.any(axis=(1, 2)).tolist() == [True, True, False, True]
    assert known.is_visible.all()


def break_at(clip: int, start: int, error: BaseException) -> ExactTracker:
    """Raise in the window that begins at `start` of the clip-th clip (from 0)."""
    firsts: list[int] = []

    def count(window_start: int) -> None:
        firsts.append(window_start)
        if firsts.count(0) == clip + 1 and window_start == start:
            raise error

    return ExactTracker(on_window=count)


@pytest.mark.parametrize(("clip", "start", "done"), [(0, 4, []), (1, 0, ["a"]), (1, 4, ["a"])])
def test_an_interrupted_call_is_gone_on_with_to_the_same_bits(tmp_path, data, clip, start, done):
    make_features(tmp_path / "whole", data, make_maker())
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        make_features(out, data, make_maker(tracker=break_at(clip, start, KeyboardInterrupt())))
    begun = FeatureFolder.open(out)
    assert (list(begun.info["done"]), begun.is_complete) == (done, False)
    with pytest.raises(RunError, match=r"holds no features of clip b: make them to the end with --resume"):
        list(begun.read(["b"]))
    with pytest.raises(RunError, match=r"holds features that were begun: go on with --resume"):
        make_features(out, data, make_maker())
    tracker = ExactTracker()
    make_features(out, data, make_maker(tracker=tracker), resume=True)
    assert tracker.starts == [0, 4] * (2 - len(done))
    assert content_of(out) == content_of(tmp_path / "whole")
    make_features(out, data, make_maker(tracker=tracker))  # all is there: nothing is done again
    assert len(tracker.starts) == 2 * (2 - len(done))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder": ClassEncoder("other")}, "encoder"),
        ({"encoder": None}, "encoder"),
        ({"pooling": Pooling(("mean", "ring"), tokens=3)}, "pooling"),
        ({"window": 5}, "window"),
        ({"source": {"tracker": "another"}}, "source"),
        ({"source": {"tracker": "another"}, "window": 5}, "window, source"),
    ],
    ids=["encoder", "no encoder", "pooling", "window", "source", "two"],
)
def test_other_settings_are_not_mixed_into_a_folder(tmp_path, data, changes, named):
    make_features(tmp_path / "out", data, make_maker())
    before = content_of(tmp_path / "out")
    with pytest.raises(
        RunError, match=rf"holds features that differ from those asked for in {named}: ask for the same"
    ):
        make_features(tmp_path / "out", data, make_maker(**changes), resume=True)
    assert content_of(tmp_path / "out") == before
    assert not (tmp_path / "out" / ".lock").exists()


def test_other_data_are_not_mixed_into_a_folder(tmp_path, data):
    make_features(tmp_path / "out", data, make_maker())
    with pytest.raises(RunError, match="differ from those asked for in data, clips"):
        make_features(tmp_path / "out", replace(data, clips=data.clips[:1]), make_maker(), resume=True)


def test_a_folder_in_use_is_left_alone(tmp_path, data):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("1 another-machine\n")
    with pytest.raises(RunError, match="another run writes into"):
        make_features(tmp_path / "out", data, make_maker())
    assert (tmp_path / "out" / ".lock").exists()


def test_progress_is_told(tmp_path, data):
    told = []

    class Progress:
        def clip_started(self, name, num_frames):
            told.append((name, num_frames))

        def frames_done(self, name, count):
            told.append(count)

        def clip_finished(self, name):
            told.append(name)

    make_features(tmp_path / "out", data, make_maker(), progress=Progress())
    assert told == [("a", 5), 4, 5, "a", ("b", 7), 4, 7, "b"]


# --- what does not fit -----------------------------------------------------------------------------------------------


def test_base_labels_of_other_classes_are_refused_before_any_work(tmp_path, data):
    other = ArrayLabels(np.zeros((5, *toy.SIZE), np.uint8), LabelSpace(("x", "y"), voc_palette(2)))
    with pytest.raises(LabelError, match=r"are of 2 classes \(x, y\), the truth is of 4 classes \(ground, disc, box,"):
        make_features(tmp_path / "out", data, make_maker(base=other))
    assert not (tmp_path / "out").exists()


def test_base_labels_that_do_not_fit_the_frames_are_refused_before_any_work(tmp_path, data):
    for clip, num_frames in CLIPS.items():
        toy.write_toy_labels(tmp_path / "labels" / clip, num_frames)
    (tmp_path / "labels" / "b" / "0003.png").rename(tmp_path / "labels" / "b" / "0099.png")
    with pytest.raises(LabelError, match=r"do not fit the frames of clip b: 1 of 7 frames have no label map"):
        make_features(tmp_path / "out", data, make_maker(base=StoredLabels(tmp_path / "labels", CLASSES)))
    assert not (tmp_path / "out").exists()


def test_truth_of_another_size_is_named(tmp_path, data):
    file = data.masks["a"] / "0001.png"
    Image.fromarray(np.zeros((12, 18), np.uint8)).save(file)
    with pytest.raises(ShapeError, match=r"0001\.png is \(12, 18\) \(height, width\), its frame is \(24, 36\)"):
        make_features(tmp_path / "out", data, make_maker())


def test_a_folder_without_features_is_named(tmp_path):
    with pytest.raises(RunError, match=r"holds no features: there is no features\.json in it"):
        FeatureFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"package": "sam2vss", "format_version": 1}', "is damaged .it holds no clips"),
        ('{"package": "sam2vss", "format_version": 1, "clips": []}', "is damaged .it holds no done"),
        ('{"package": "sam2vss", "format_version": 2}', "is of format 2, expected 1"),
        ('{"package": "another", "format_version": 1}', "was not written by sam2vss"),
    ],
)
def test_an_account_that_is_none_is_named(tmp_path, text, message):
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(RunError, match=rf"features\.json {message}"):
        FeatureFolder.open(tmp_path)


def test_files_that_are_gone_or_hold_no_truth_are_named(tmp_path, data):
    from sam2vss.masklet_features import read_features, write_features

    folder = make_features(tmp_path / "out", data, make_maker())
    known, _ = read_features(folder.file("a", 0))
    write_features(folder.file("a", 0), known)
    with pytest.raises(RunError, match=r"00000000\.npz holds no truth: make the features again"):
        list(folder.read())
    shutil.rmtree(tmp_path / "out" / "features" / "a")
    with pytest.raises(MediaError, match="there is no file"):
        list(folder.read())


def test_the_account_holds_no_state_of_this_call(tmp_path, data):
    """Two folders made apart have the same account, so that resuming compares what matters."""
    make_features(tmp_path / "one", data, make_maker())
    make_features(tmp_path / "two", data, make_maker())
    accounts = [json.loads((tmp_path / name / "features.json").read_text()) for name in ("one", "two")]
    assert accounts[0] == accounts[1]
    assert accounts[0]["data"]["frames"] == 12
    assert accounts[0]["source"] == {"tracker": {"name": "exact"}, "base": "noisy"}


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(clips=None),
        lambda info: info.update(done=0),
        lambda info: info["done"].update(a=["../../x"]),
        lambda info: info.update(encoder={}),
        lambda info: info["encoder"].update(channels=["a"]),
        lambda info: info["pooling"].update(tokens="x"),
        lambda info: info.update(pooling={}),
        lambda info: info.update(data={}),
        lambda info: info.update(source=None),
    ],
)
def test_a_damaged_account_is_named(tmp_path, data, change):
    make_features(tmp_path / "out", data, make_maker())
    file = tmp_path / "out" / "features.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))
    with pytest.raises(RunError, match=r"features\.json is damaged .* make the features again"):
        FeatureFolder.open(tmp_path / "out")


def test_a_file_of_another_folder_is_not_mixed_in(tmp_path, data):
    folder = make_features(tmp_path / "out", data, make_maker())
    other = make_features(tmp_path / "other", data, make_maker(pooling=Pooling(("mean", "max"))))
    name, (start, *_) = next(iter(folder.info["done"].items()))
    folder.file(name, start).write_bytes(other.file(name, start).read_bytes())
    with pytest.raises(MediaError, match=r"npz does not hold what .*features\.json says"):
        list(folder.read())
