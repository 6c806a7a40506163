"""`sam2vss refine --segmenter cffm.pth`: a published checkpoint through the real command."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from named_weights import fill_by_name
from sam2vss.hub import ModelLocation
from sam2vss.segmenters.vss import frames as vss_frames
from sam2vss.segmenters.vss.architecture import build, default_architecture
from sam2vss.segmenters.vss.segmenter import VssSegmenter
from sam2vss.trackers.superpixels import SuperpixelTracker
from sam2vss.types import LabelSpace
from toy import content_of_run

NUM_FRAMES, WINDOW = 14, 4


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(vss_frames, "TEST_SCALE", (64, 64))


@pytest.fixture
def model():
    return fill_by_name(build(default_architecture("CFFM", "b0", 5)))


@pytest.fixture
def place(tmp_path, model):
    """`frames/` with pictures, `cffm.pth`."""
    toy.write_toy_frames(tmp_path / "frames", NUM_FRAMES)
    torch.save({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, tmp_path / "cffm.pth")
    return tmp_path


def words(place, out, *more, name="cffm.pth"):
    start = ["refine", place / "frames", "--segmenter", place / name, "--out", place / out, "--tracker", "superpixel"]
    return [*start, "--window", WINDOW, "--no-report", "--no-overlay", *more]


def read_maps(folder):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.iterdir())])


def test_the_path_of_a_checkpoint_is_enough(command, place, model):
    answer = command(*words(place, "run"))
    assert answer.code == 0, answer.err
    frames = np.stack([np.asarray(Image.open(file)) for file in sorted((place / "frames").iterdir())])
    location = ModelLocation("x", place / "cffm.pth")
    expected = VssSegmenter(model, LabelSpace.numbered(5), location).predict(frames).labels
    np.testing.assert_array_equal(read_maps(place / "run" / "base" / "frames"), expected)
    weights = json.loads((place / "run" / "run.json").read_text())["weights"]
    assert any(name.endswith("cffm.pth") for name in weights)


def test_an_interrupted_run_remembers_the_frames_before(command, place, monkeypatch):
    assert command(*words(place, "whole")).code == 0
    track = SuperpixelTracker.track

    def interrupt(self, frames, start, context=None):
        if start == 2 * WINDOW:
            raise KeyboardInterrupt
        return track(self, frames, start, context)

    monkeypatch.setattr(SuperpixelTracker, "track", interrupt)
    assert command(*words(place, "run")).code == 130
    monkeypatch.setattr(SuperpixelTracker, "track", track)
    assert command(*words(place, "run", "--resume")).code == 0
    assert content_of_run(place / "run") == content_of_run(place / "whole")


def test_a_context_is_chosen_behind_the_name(command, place):
    assert command(*words(place, "clip")).code == 0
    assert command(*words(place, "frame", name="cffm.pth@frame")).code == 0
    clip, frame = (read_maps(place / out / "base" / "frames") for out in ("clip", "frame"))
    np.testing.assert_array_equal(clip[:3], frame[:3])  # the first three frames have no clip
    assert (clip[3:] != frame[3:]).any()
    answer = command(*words(place, "other", name="cffm.pth@fast"))
    assert answer.code == 2
    assert "'fast' behind the @ is no context" in answer.message


@pytest.mark.parametrize("name", ["refine", "bench", "ablate", "train classifier", "train fusion"])
def test_the_help_of_segmenter_names_the_contexts(command, name):
    answer = command(*name.split(), "--help")
    assert all(context in answer.text for context in ("@clip", "@frame", "@stream"))


def test_a_dry_run_checks_the_segmenter_and_calls_it_so(command, place):
    answer = command(*words(place, "run", "--dry-run"))
    assert answer.code == 0
    assert f"segmenter {place / 'cffm.pth'}" in answer.out
    assert f"out       {place / 'run'} (free)" in answer.out
    assert "there is no file" in command(*words(place, "run", "--dry-run", name="nosuch.pth")).message
    assert "only TV3S carries" in command(*words(place, "run", "--dry-run", name="cffm.pth@stream")).message
    assert "names 124" in command(*words(place, "run", "--dry-run", "--label-set", "vspw")).message
    (place / "cut.pth").write_bytes((place / "cffm.pth").read_bytes()[:4096])
    assert "is cut short or damaged" in command(*words(place, "run", "--dry-run", name="cut.pth")).message
    (place / "begun").mkdir()
    (place / "begun" / "training-state.safetensors").touch()
    assert "its training is not finished" in command(*words(place, "run", "--dry-run", name="begun")).message
    assert not (place / "run").exists()


def test_a_cut_checkpoint_leaves_nothing_behind(command, place):
    path = place / "cffm.pth"
    path.write_bytes(path.read_bytes()[:4096])
    answer = command(*words(place, "run"))
    assert answer.code == 2
    assert "is cut short or damaged" in answer.message
    assert not (place / "run").exists()


def label_set(path, names):
    path.write_text(json.dumps({"name": "mine", "classes": [{"id": i + 1, "name": n} for i, n in enumerate(names)]}))
    return path


def test_a_label_set_names_the_classes_of_a_model_that_has_no_names(command, place, model):
    mine = label_set(place / "label_set.json", "abcde")
    assert command(*words(place, "run", "--label-set", mine)).code == 0
    assert command(*words(place, "plain")).code == 0
    with_ids, plain = (read_maps(place / out / "labels" / "frames") for out in ("run", "plain"))
    np.testing.assert_array_equal(with_ids, plain + 1)
    assert json.loads((place / "run" / "run.json").read_text())["label_set"]["classes"][0]["name"] == "a"


def test_a_label_set_of_other_classes_is_refused(command, place):
    answer = command(*words(place, "run", "--label-set", "vspw"))
    assert answer.code == 2
    assert "tells 5 classes apart, but --label-set vspw names 124" in answer.message
    named = ["refine", place / "frames", "--segmenter", "segformer-nano", "--out", place / "run"]
    answer = command(*named, "--label-set", label_set(place / "other.json", "abcdefghij"), "--tracker", "superpixel")
    assert answer.code == 2
    assert "10 of 10 classes differently (class 0 is " in answer.message


def test_names_that_were_guessed_from_their_number_do_not_overrule_a_label_set(command, place):
    guessed = fill_by_name(build(default_architecture("SegFormer", "b0", 19)))  # 19 classes without names: Cityscapes?
    torch.save({"state_dict": guessed.state_dict()}, place / "own.pth")
    mine = label_set(place / "label_set.json", [f"own {i}" for i in range(19)])
    assert command(*words(place, "run", "--label-set", mine, name="own.pth")).code == 0
    named = {"meta": {"CLASSES": [f"other {i}" for i in range(19)]}, "state_dict": guessed.state_dict()}
    torch.save(named, place / "named.pth")
    answer = command(*words(place, "other", "--label-set", mine, name="named.pth"))
    assert answer.code == 2
    assert "19 of 19 classes differently (class 0 is 'other 0' and 'own 0')" in answer.message


def test_a_missing_source_is_named_before_a_model_is_looked_at(command, place, monkeypatch):
    looked: list[str] = []
    monkeypatch.setattr(sys.modules["sam2vss.cli.refine"], "check_model", lambda name, label_set: looked.append(name))
    answer = command("refine", place / "gone.mp4", "--segmenter", place / "cffm.pth", "--out", place / "run")
    assert (answer.code, looked) == (2, [])
    assert "gone.mp4 does not exist" in answer.message
    assert command(*words(place, "run", "--dry-run")).code == 0
    assert looked == [str(place / "cffm.pth")]
