"""The Python API: arrays and files in, one refinement per window out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import sam2vss
import toy
from clip_files import write_numbered_video
from sam2vss.errors import LabelError, SettingsError, ShapeError, WeightsError
from sam2vss.pipeline import VoteRule, refine_clip
from sam2vss.refiner import ArrayLabels, load_tracker, stored_label_space
from sam2vss.sam2.loading import find_sam2
from sam2vss.segmenters import ModelLabels, StoredLabels
from sam2vss.trackers.nothing import NoTracker
from sam2vss.types import LabelSpace, Refinement
from toy import CLASSES, ExactTracker, NoisySegmenter, ToyClip

OBJECTS = toy.toy_objects(10)
FRAMES, TRUTH = toy.toy_frames(OBJECTS), toy.toy_labels(OBJECTS)
NOISY = np.stack([toy.noisy_labels(labels, 0.3, frame) for labels, frame in zip(TRUTH, FRAMES, strict=True)])


@pytest.fixture
def refiner() -> sam2vss.Refiner:
    return sam2vss.Refiner(ExactTracker(), window=4)


@pytest.fixture(scope="module")
def nano() -> sam2vss.Refiner:
    """The bundled network at a small size, with a coarse grid that keeps every candidate."""
    torch.set_num_threads(1)
    masklets = sam2vss.MaskletSettings(window=3, points=3, pred_iou=0.0, stability=0.0)
    return sam2vss.Refiner.from_pretrained("nano", masklets=masklets, image_size=128, device="cpu")


def joined(windows: Iterator[Refinement]) -> np.ndarray:
    return np.concatenate([window.labels for window in windows])


# --- arrays ----------------------------------------------------------------------------------------------------------


def test_arrays_go_in_and_refinements_come_out(refiner):
    windows = list(refiner.refine(FRAMES, labels=NOISY, label_set=CLASSES))
    assert [type(window) for window in windows] == [Refinement] * 3
    assert [(window.window.start, window.window.length) for window in windows] == [(0, 4), (4, 4), (8, 2)]
    assert np.concatenate([window.base for window in windows]).tolist() == NOISY.tolist()
    refined = joined(iter(windows))
    assert (refined != TRUTH).mean() < 0.8 * (NOISY != TRUTH).mean()
    assert refined[OBJECTS == 3].tolist() == TRUTH[OBJECTS == 3].tolist()


def test_the_rule_of_the_refiner_is_used():
    refiner = sam2vss.Refiner(ExactTracker(), window=4, rule=VoteRule(min_share=1.0))
    assert joined(refiner.refine(FRAMES, labels=NOISY)).tolist() == NOISY.tolist()


def test_a_source_of_labels_can_stand_in_for_an_array(refiner):
    from_model = joined(refiner.refine(FRAMES, labels=ModelLabels(NoisySegmenter(0.3))))
    assert from_model.tolist() == joined(refiner.refine(FRAMES, labels=NOISY)).tolist()


def test_classes_are_numbered_up_to_the_largest_label_where_no_label_set_is_given(refiner):
    labels = np.where(TRUTH == 3, 255, TRUTH)  # the ignore index is no class
    assert next(refiner.refine(FRAMES, labels=labels)).votes.shape == (3, 3)
    assert next(refiner.refine(FRAMES, labels=np.full_like(TRUTH, 255))).votes.shape == (3, 1)


def test_labels_of_16_bits_need_a_label_set_since_255_could_be_void(refiner):
    wide = np.where(TRUTH == 2, 300, TRUTH.astype(np.uint16))
    window = next(refiner.refine(FRAMES, labels=wide, label_set=LabelSpace.numbered(301)))
    assert (window.votes.shape, window.labels.dtype, window.labels.max()) == ((3, 301), np.uint16, 300)
    for labels in (wide, TRUTH.astype(np.uint16)):
        with pytest.raises(LabelError, match=r"labels of 16 bits need a label_set.* void as 255"):
            next(refiner.refine(FRAMES, labels=labels))


def test_the_base_labels_of_a_result_are_not_the_memory_of_the_caller(refiner):
    labels = NOISY.copy()
    window = next(refiner.refine(FRAMES, labels=labels))
    assert not np.shares_memory(window.base, labels)
    assert not np.shares_memory(window.labels, labels)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"labels": NOISY.tolist()}, ShapeError, r"the labels are a list, expected one NumPy array, uint8 or uint16"),
        ({"labels": torch.from_numpy(NOISY)}, ShapeError, "the labels are a Tensor, expected one NumPy array"),
        ({"labels": None}, ShapeError, "the labels are None"),
        ({"labels": NOISY.astype(np.int64)}, ShapeError, r"base labels are int64 .*expected uint8 or uint16"),
        ({"labels": NOISY[0]}, ShapeError, r"base labels are uint8 \(24, 36\), expected"),
        ({"source": list(FRAMES)}, ShapeError, r"the source is a list.*np\.stack\(frames\)"),
        ({"source": (frame for frame in FRAMES)}, ShapeError, "the source is a generator"),
        ({"source": torch.from_numpy(FRAMES)}, ShapeError, "the source is a Tensor"),
        ({"source": FRAMES[:0], "labels": NOISY[:0]}, ShapeError, r"frames are uint8 \(0, 24, 36, 3\)"),
        ({"source": FRAMES[:, :0], "labels": NOISY[:, :0]}, ShapeError, r"frames are uint8 \(10, 0, 36, 3\)"),
        ({"label_set": 5}, SettingsError, r"label_set is a int, expected a LabelSpace or a label_set\.json"),
    ],
    ids=lambda value: "" if isinstance(value, type) else None,
)
def test_arguments_of_types_that_nobody_can_read_are_named(refiner, changes, error, message):
    arguments = {"source": FRAMES, "labels": NOISY} | changes
    with pytest.raises(error, match=message):
        list(refiner.refine(**arguments))


@pytest.mark.parametrize("window", [2.5, 0, 10**23, "8", None])
def test_a_window_is_a_whole_number_of_frames(window):
    with pytest.raises(SettingsError, match=r"window is .*, expected a whole number of frames, 1 to 100000"):
        sam2vss.Refiner(ExactTracker(), window=window)


@pytest.mark.parametrize(
    ("frames", "labels", "error", "message"),
    [
        (FRAMES.astype(np.float32) / 255, TRUTH, ShapeError, r"frames are float32 .*, expected uint8 RGB \(T, H, W, 3"),
        (FRAMES[..., 0], TRUTH, ShapeError, r"frames are uint8 \(10, 24, 36\), expected uint8 RGB \(T, H, W, 3"),
        (FRAMES[..., :1], TRUTH, ShapeError, r"frames are uint8 \(10, 24, 36, 1\), expected"),
        (FRAMES, TRUTH.astype(np.int64), ShapeError, r"base labels are int64 .*, expected uint8 or uint16 \(L, H, W"),
        (FRAMES, TRUTH[0], ShapeError, r"base labels are uint8 \(24, 36\), expected"),
        (FRAMES, TRUTH[:9], ShapeError, "there are 10 frames and 9 label maps, expected one each"),
        (FRAMES, TRUTH[:, :-1], ShapeError, r"labels have shape \(4, 23, 36\), the masklets are of 4 frames of size"),
        (FRAMES, "labels", SettingsError, "frames given as an array need labels given as an array or as a source"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_what_was_found(refiner, frames, labels, error, message):
    with pytest.raises(error, match=message):
        list(refiner.refine(frames, labels=labels))


def test_labels_outside_the_label_set_are_named(refiner):
    with pytest.raises(LabelError, match=r"base labels hold the ids \[2, 3\], expected 0\.\.1 or the ignore index"):
        list(refiner.refine(FRAMES, labels=TRUTH, label_set=LabelSpace.numbered(2)))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_folder_of_labels_beside_an_array_is_refused_with_what_takes_it(tmp_path, refiner):
    folder = toy.write_toy_labels(tmp_path / "labels", 10, 0.3)
    with pytest.raises(SettingsError, match=r"segmenters\.StoredLabels\('.*labels', label_space\), or the frames"):
        next(refiner.refine(FRAMES, folder))
    from_folder = joined(refiner.refine(FRAMES, StoredLabels(folder, CLASSES)))
    assert from_folder.tolist() == joined(refiner.refine(FRAMES, labels=NOISY)).tolist()


def test_folders_give_the_same_as_arrays(tmp_path, refiner):
    frames = toy.write_toy_frames(tmp_path / "clip", 10)
    labels = toy.write_toy_labels(tmp_path / "labels", 10, 0.3)
    label_set = tmp_path / "labels" / "label_set.json"
    label_set.write_text('{"classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}, '
                         '{"id": 3, "name": "d"}]}')  # fmt: skip
    expected = joined(refiner.refine(FRAMES, labels=NOISY)).tolist()
    assert joined(refiner.refine(frames, labels=labels)).tolist() == expected  # finds label_set.json there
    assert joined(refiner.refine(str(frames), labels=str(labels), label_set=str(label_set))).tolist() == expected
    assert joined(refiner.refine(frames, labels=NOISY)).tolist() == expected


def test_label_maps_without_names_are_refused(tmp_path):
    folder = toy.write_toy_labels(tmp_path / "labels", 1)
    with pytest.raises(SettingsError, match="come without names and colours: pass --label-set FILE"):
        stored_label_space(folder, None)
    assert stored_label_space(folder, CLASSES) is CLASSES


def test_the_file_in_a_folder_of_labels_is_no_folder(tmp_path):
    (tmp_path / "pred.json").write_text("{}")
    with pytest.raises(LabelError, match=r"pred\.json is a file, expected a folder .*: pass .* that holds it"):
        stored_label_space(tmp_path / "pred.json", None)


def test_a_video_goes_with_an_array_of_labels_of_its_length_and_size(tmp_path):
    video = write_numbered_video(tmp_path / "v.mp4", 5)
    refiner = sam2vss.Refiner(NoTracker(), window=2)
    labels = np.random.default_rng(0).integers(0, 4, (5, 64, 96), np.uint8)
    assert joined(refiner.refine(video, labels=labels)).tolist() == labels.tolist()
    with pytest.raises(ShapeError, match="clip v has 5 frames and 4 label maps"):
        next(refiner.refine(video, labels=labels[:4]))
    with pytest.raises(ShapeError, match=r"clip v is \(64, 96\), its label maps are \(64, 95\)"):
        next(refiner.refine(video, labels=labels[..., 1:]))


def test_several_clips_are_refused_with_what_to_do(tmp_path, refiner):
    toy.write_toy_frames(tmp_path / "a", 1)
    toy.write_toy_frames(tmp_path / "b", 1)
    with pytest.raises(SettingsError, match="holds 2 clips; refine them one by one"):
        next(refiner.refine(tmp_path, labels=TRUTH))


def test_array_labels_tell_when_a_clip_had_another_length():
    labels = ArrayLabels(TRUTH, CLASSES)
    frames = list(ToyClip(12).frames())
    with pytest.raises(ShapeError, match="frame 11 of clip c has no label map: there are 10"):
        labels.labels_for("c", frames[8:])
    with pytest.raises(ShapeError, match="clip c has 12 frames and 10 label maps"):
        labels.finish("c", 12)


# --- streaming -------------------------------------------------------------------------------------------------------


def test_no_frame_is_read_beyond_the_window_that_is_asked_for():
    read: list[int] = []
    frames = ToyClip(10**9, on_frame=read.append).frames()
    windows = refine_clip("c", frames, ModelLabels(NoisySegmenter()), ExactTracker(), 4)
    assert read == []
    next(windows)
    assert read == [0, 1, 2, 3]
    next(windows)
    assert read == list(range(8))


# --- SAM 2 -----------------------------------------------------------------------------------------------------------


def test_the_bundled_network_refines_arrays(nano):
    windows = list(nano.refine(FRAMES[:5], labels=NOISY[:5]))
    assert [window.labels.shape for window in windows] == [(3, 24, 36), (2, 24, 36)]
    assert all(window.masklets.num_masklets > 0 for window in windows)
    for window in windows:
        outside = ~np.stack([window.masklets.stack(t).any(axis=0) for t in range(window.window.length)])
        assert (window.labels == window.base)[outside].all()
        assert len(window.votes) == window.masklets.num_masklets


def test_refine_in_one_call_equals_a_loaded_refiner(nano):
    masklets = sam2vss.MaskletSettings(window=3, points=3, pred_iou=0.0, stability=0.0)
    windows = sam2vss.refine(FRAMES[:1], labels=NOISY[:1], sam2="nano", masklets=masklets, image_size=128, device="cpu")
    (window,) = windows
    (expected,) = nano.refine(FRAMES[:1], labels=NOISY[:1])
    assert np.array_equal(window.labels, expected.labels)
    assert window.labels.shape == (1, 24, 36)
    assert sam2vss.refine(FRAMES, labels=NOISY, sam2="no such model") is not None  # nothing is loaded before the first
    with pytest.raises(WeightsError, match="'no such model' is neither a known name"):
        next(sam2vss.refine(FRAMES, labels=NOISY, sam2="no such model"))


def test_thresholds_reach_the_tracker():
    masklets = sam2vss.MaskletSettings(
        window=7, points=5, pred_iou=0.1, stability=0.2, stability_offset=0.3, box_nms=0.4
    )
    votes = sam2vss.VoteSettings(vote="frame", min_share=0.5, overlap="large-on-top")
    refiner = sam2vss.Refiner.from_pretrained("nano", masklets=masklets, votes=votes, image_size=256, device="cpu")
    tracker = refiner.tracker
    finder = tracker.finder
    found = (finder.points, finder.pred_iou, finder.stability, finder.stability_offset, finder.box_nms)
    assert found == (5, 0.1, 0.2, 0.3, 0.4)
    assert (refiner.window, tracker.network.image_size, tracker.network.dtype) == (7, 256, torch.float32)
    assert refiner.rule == VoteRule("frame", "majority", 0.5, "large-on-top")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": "512"}, r"image_size is '512', expected a side such as 512 or \(height, width\)"),
        ({"image_size": (256,)}, r"image_size is \(256,\), expected"),
        ({"image_size": (256.0, 256)}, r"image_size is \(256\.0, 256\), expected"),
        ({"follow": {"carry": True}}, r"follow is a dict, expected FollowSettings"),
        ({"votes": "frame"}, r"votes is a str, expected VoteSettings"),
    ],
)
def test_options_of_other_types_are_refused_by_name(options, message):
    with pytest.raises(SettingsError, match=message):
        sam2vss.Refiner.from_pretrained("nano", device="cpu", **options)


def test_an_unknown_mode_is_refused():
    with pytest.raises(SettingsError, match="mode 'exakt' is unknown, expected auto, exact, fast, prompt"):
        sam2vss.Refiner.from_pretrained("nano", mode="exakt", device="cpu")


@pytest.mark.parametrize("image_size", [0, 32, 100, -64])
def test_impossible_image_sizes_are_refused(image_size):
    with pytest.raises(SettingsError, match=rf"--image-size {image_size}: sides must be multiples of 32 from 64 on"):
        load_tracker(find_sam2("nano"), sam2vss.MaskletSettings(), image_size=(image_size, image_size))


def test_public_names_are_there_and_others_are_not():
    for name in sam2vss.__all__:
        assert getattr(sam2vss, name) is not None
    assert sam2vss.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="module 'sam2vss' has no attribute 'refiners'"):
        _ = sam2vss.refiners


def test_a_hub_that_cannot_be_reached_is_an_answer_and_no_other_weights_are_taken(tmp_path: Path, monkeypatch):
    from fake_hub import use_hub

    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    with pytest.raises(WeightsError, match=r"not in the local cache and the hub cannot be reached .*--sam2 nano"):
        sam2vss.Refiner.from_pretrained("sam2.1-tiny", device="cpu")
