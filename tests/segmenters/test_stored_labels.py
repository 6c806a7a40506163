"""Stored label maps: how maps and frames find each other, and what is refused before a run starts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panoptic_files import SPACE as PETS
from panoptic_files import write_dvis
from sam2vss.errors import LabelError, MediaError, ShapeError
from sam2vss.segmenters import ModelLabels, StoredLabels
from sam2vss.types import BaseLabels, Frame, LabelSpace

SPACE = LabelSpace.numbered(200)


def write_map(path: Path, value: int, size: tuple[int, int] = (2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def frames(*names: str, start: int = 0, size: tuple[int, int] = (2, 3)) -> list[Frame]:
    return [Frame(np.zeros((*size, 3), np.uint8), start + i, name) for i, name in enumerate(names)]


def values(base: BaseLabels) -> list[int]:
    return base.labels[:, 0, 0].tolist()


@pytest.mark.parametrize("place", ["clip", "data/clip/mask", "."])
def test_maps_are_found_in_each_layout_and_matched_by_name(tmp_path, place):
    for value, name in ((1, "a2"), (2, "a10"), (3, "b")):
        write_map(tmp_path / place / f"{name}.png", value)
    stored = StoredLabels(tmp_path, SPACE)
    assert stored.check("clip", ["a2", "a10", "b"], frame_size=(2, 3)) == "name"
    assert values(stored.labels_for("clip", frames("a10", "b", start=1))) == [2, 3]
    assert values(stored.labels_for("clip", frames("a2"))) == [1]


def test_names_win_over_the_order(tmp_path):
    write_map(tmp_path / "clip" / "z.png", 1)
    write_map(tmp_path / "clip" / "a.png", 2)
    stored = StoredLabels(tmp_path, SPACE)
    assert stored.check("clip", ["z", "a"]) == "name"
    assert values(stored.labels_for("clip", frames("z", "a"))) == [1, 2]


@pytest.mark.parametrize("known", [{"frame_names": [f"frame{i}" for i in range(11)]}, {"num_frames": 11}])
def test_as_many_maps_of_other_names_are_matched_in_natural_order(tmp_path, known):
    for value in range(1, 12):
        write_map(tmp_path / "clip" / f"map{value}.png", value)  # as text, map10 would stand before map2
    stored = StoredLabels(tmp_path, SPACE)
    assert stored.check("clip", **known) == "order"
    window = frames(*(f"{i:08d}" for i in range(8, 11)), start=8)
    assert values(stored.labels_for("clip", window)) == [9, 10, 11]


def test_maps_of_a_video_numbered_from_one_belong_to_its_frames_in_order(tmp_path):
    for i in (1, 2, 3):
        write_map(tmp_path / "clip" / f"{i:08d}.png", i)
    stored = StoredLabels(tmp_path, SPACE)
    assert stored.check("clip", num_frames=3) == "order"
    assert values(stored.labels_for("clip", frames("00000000", "00000001", "00000002"))) == [1, 2, 3]


def test_a_clip_of_unknown_length_is_counted_at_its_end(tmp_path):
    for i in range(3):
        write_map(tmp_path / "clip" / f"{i}.png", i)
    stored = StoredLabels(tmp_path, SPACE)
    assert stored.check("clip") == "order"
    stored.labels_for("clip", frames("x", "y"))
    stored.finish("clip", 3)
    with pytest.raises(LabelError, match=r"clip clip has 2 frames, but .* holds 3 label maps \(0.png .. 2.png\)"):
        stored.finish("clip", 2)
    with pytest.raises(LabelError, match=r"frame 3 has no label map: .* holds 3"):
        stored.labels_for("clip", frames("w", start=3))


def test_without_a_check_names_are_used_if_all_fit(tmp_path):
    for value, name in ((1, "b"), (2, "a")):
        write_map(tmp_path / "clip" / f"{name}.png", value)
    assert values(StoredLabels(tmp_path, SPACE).labels_for("clip", frames("b"))) == [1]
    stored = StoredLabels(tmp_path, SPACE)
    assert values(stored.labels_for("clip", frames("b", "x"))) == [2, 1]  # natural order: a, b
    stored = StoredLabels(tmp_path, SPACE)
    stored.labels_for("clip", frames("b"))
    with pytest.raises(LabelError, match=r"frame c has no label map: .*c.png is missing"):
        stored.labels_for("clip", frames("c", start=1))


def test_another_number_of_maps_than_frames_is_refused(tmp_path):
    write_map(tmp_path / "clip" / "m1.png", 1)
    stored = StoredLabels(tmp_path, SPACE)
    with pytest.raises(LabelError, match=r"has 2 frames, but .*clip holds 1 label maps"):
        stored.check("clip", num_frames=2)
    with pytest.raises(LabelError, match=r"has 3 frames, but .*clip holds 1 label maps"):
        stored.check("clip", ["a", "b", "c"])


def test_gaps_between_maps_and_frames_are_named_on_both_sides(tmp_path):
    for name in ("00000001", "00000002"):
        write_map(tmp_path / "clip" / f"{name}.png", 1)
    message = (
        r"1 of 2 frames have no label map \(first: 00000000\) and 1 of 2 label maps have no frame \(first: 00000002\)"
    )
    with pytest.raises(LabelError, match=message):
        StoredLabels(tmp_path, SPACE).check("clip", ["00000000", "00000001"])


def test_a_clip_without_maps_lists_where_was_looked_and_what_is_there(tmp_path):
    write_map(tmp_path / "other" / "a.png", 1)
    with pytest.raises(
        LabelError, match=r"clip clip has no label maps: .*clip, .*data/clip/mask.* holds the folders other"
    ):
        StoredLabels(tmp_path, SPACE).check("clip")


def test_maps_without_a_clip_folder_serve_one_clip_only(tmp_path):
    write_map(tmp_path / "a.png", 1)
    stored = StoredLabels(tmp_path, SPACE)
    stored.check("one", ["a"])
    with pytest.raises(LabelError, match=r"label maps of clip two are missing: .* PNGs of one clip \(one\)"):
        stored.check("two", ["a"])


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    write_map(tmp_path / "elsewhere" / "a.png", 1)
    (tmp_path / "labels").mkdir()
    with pytest.raises(LabelError, match="is no name of a clip"):
        StoredLabels(tmp_path / "labels", SPACE).check(name)


def test_maps_of_another_size_are_refused_before_the_run(tmp_path):
    write_map(tmp_path / "clip" / "a.png", 1)
    write_map(tmp_path / "clip" / "b.png", 1, size=(3, 2))
    stored = StoredLabels(tmp_path, SPACE)
    with pytest.raises(ShapeError, match=r"a.png is 2 x 3 \(height x width\), but its frame is 4 x 6"):
        stored.check("clip", ["a", "b"], frame_size=(4, 6))
    with pytest.raises(ShapeError, match=r"b.png is 3 x 2 \(height x width\), but a.png is 2 x 3"):
        stored.check("clip", ["a", "b"])
    with pytest.raises(ShapeError, match=r"b.png is 3 x 2 .* its frame is 2 x 3"):
        stored.labels_for("clip", frames("a", "b"))


def test_ids_outside_the_label_set_are_named_with_their_file(tmp_path):
    write_map(tmp_path / "clip" / "a.png", 9)
    with pytest.raises(LabelError, match=r"a.png holds the ids \[9\]"):
        StoredLabels(tmp_path, LabelSpace.numbered(9)).check("clip", ["a"])


def test_colours_and_broken_files_are_refused(tmp_path):
    (tmp_path / "clip").mkdir()
    Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3)).save(tmp_path / "clip" / "a.png")
    with pytest.raises(LabelError, match="mode RGB"):
        StoredLabels(tmp_path, SPACE).check("clip", ["a"])
    (tmp_path / "clip" / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(MediaError, match=r"a\.png"):
        StoredLabels(tmp_path, SPACE).check("clip", ["a"])


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_all_single_channel_files_give_their_ids(tmp_path, mode):
    ids = np.array([[0, 7], [200, 255]])
    space = LabelSpace.numbered(201)
    image = Image.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    base = StoredLabels(tmp_path, space).labels_for("clip", frames("a", size=(2, 2)))
    assert base.labels.tolist() == [ids.tolist()]
    assert base.labels.dtype == np.uint8


def panoptic(root: Path, *frame_names: str) -> Path:
    labels = np.array([[0, 1, 255], [2, 2, 255]], np.uint8)
    return write_dvis(root, {"clip": dict.fromkeys(frame_names, labels)})


def test_panoptic_predictions_are_the_base_labels_of_the_frames_of_their_names(tmp_path):
    stored = StoredLabels(panoptic(tmp_path, "a", "b"), PETS)
    assert stored.check("clip", ["b", "a"], frame_size=(2, 3)) == "name"
    base = stored.labels_for("clip", frames("a"))
    assert base.labels.tolist() == [[[0, 1, 255], [2, 2, 255]]]
    assert base.probabilities is None
    assert stored.label_space is PETS


def test_panoptic_predictions_of_a_video_are_matched_in_order(tmp_path):
    stored = StoredLabels(panoptic(tmp_path, "0007", "0010", "0013"), PETS)
    assert stored.check("clip", num_frames=3, frame_size=(2, 3)) == "order"
    assert stored.labels_for("clip", frames("00000002", start=2)).labels[0, 0, 1] == 1


def test_panoptic_frames_and_videos_that_do_not_fit_are_named(tmp_path):
    stored = StoredLabels(panoptic(tmp_path, "a", "b"), PETS)
    with pytest.raises(LabelError, match=r"1 of 3 frames have no label map \(first: c\)"):
        stored.check("clip", ["a", "b", "c"])
    with pytest.raises(LabelError, match=r"1 of 2 label maps have no frame \(first: b\)"):
        stored.check("clip", ["a"])
    with pytest.raises(LabelError, match=r"clip other has no label maps: .*pan_pred holds the folders clip"):
        stored.check("other", ["a"])
    with pytest.raises(ShapeError, match=r"a\.png is 2 x 3 .*, but its frame is 4 x 6"):
        stored.check("clip", ["a", "b"], frame_size=(4, 6))
    with pytest.raises(ShapeError, match=r"a\.png is 2 x 3 .*, but its frame is 4 x 6"):
        StoredLabels(tmp_path, PETS).labels_for("clip", frames("a", size=(4, 6)))


def test_an_offset_is_added_to_ids_and_the_label_set_stays(tmp_path, caplog):
    write_map(tmp_path / "clip" / "a.png", 0)
    stored = StoredLabels(tmp_path, PETS, 1)
    assert values(stored.labels_for("clip", frames("a"))) == [0]
    assert stored.label_space is PETS
    assert caplog.messages == []
    assert values(StoredLabels(tmp_path, PETS, 0).labels_for("clip", frames("a"))) == [255]  # its void


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"gone does not exist, expected a folder of label PNGs"):
        StoredLabels(tmp_path / "gone", SPACE)
    (tmp_path / "file").touch()
    with pytest.raises(LabelError, match=r"file is a file, expected .*: pass .*, the folder that holds it"):
        StoredLabels(tmp_path / "file", SPACE)


def test_mmsegmentations_result_file_holds_only_paths(tmp_path):
    (tmp_path / "res.pkl").write_bytes(b"not opened")
    with pytest.raises(LabelError, match=r"res.pkl is a pickle, .* only paths .*: pass the folder result_submission"):
        StoredLabels(tmp_path / "res.pkl", SPACE)


class CountingSegmenter:
    label_space = SPACE

    def __init__(self) -> None:
        self.resets = 0
        self.seen = 0

    def reset(self) -> None:
        self.resets += 1
        self.seen = 0

    def predict(self, frames: np.ndarray) -> BaseLabels:
        self.seen += len(frames)
        return BaseLabels(np.full(frames.shape[:3], self.seen, np.uint8))


def test_a_model_starts_anew_with_every_clip_and_only_then():
    segmenter = CountingSegmenter()
    source = ModelLabels(segmenter)
    assert source.check("one", None, None) == "model"
    assert values(source.labels_for("one", frames("0", "1"))) == [2, 2]
    assert values(source.labels_for("one", frames("2", start=2))) == [3]
    source.finish("one", 3)
    assert values(source.labels_for("two", frames("0"))) == [1]
    assert values(source.labels_for("two", frames("0"))) == [1]  # frame 0 once more: the clip is refined again
    assert segmenter.resets == 3
    assert source.label_space is SPACE


def test_frames_of_several_sizes_are_not_given_to_a_model():
    with pytest.raises(ShapeError, match=r"one size, found \[\(2, 3\), \(4, 3\)\]"):
        ModelLabels(CountingSegmenter()).labels_for("one", frames("0") + frames("1", size=(4, 3)))
