"""`sam2vss train segmenter`: what it writes, that it goes on, what it says before, and what it says to bad input."""

import json

import numpy as np
import pytest
import torch

from sam2vss.datasets.synthetic import LABEL_SPACE
from sam2vss.segmenters import load_segmenter
from toy_training import toy_data


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


SMALL = {
    "--model": "segformer-nano",
    "--scale": "64x48",
    "--crop": 32,
    "--steps": 3,
    "--batch": 2,
    "--device": "cpu",
    "--workers": 0,
}


def words(street, out, *more: object) -> list[object]:
    """The words of a small training; `more` wins over what is usual."""
    usual = {name: value for name, value in {"--data": street.root, **SMALL}.items() if name not in more}
    return ["train", "segmenter", "--out", out, *(word for pair in usual.items() for word in pair), *more]


@pytest.fixture(scope="module")
def toy_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy") / "data"
    toy_data(root, {"a": 3, "b": 2})
    return root


def test_a_segmenter_is_trained_and_labels_frames(command, street, tmp_path):
    out = tmp_path / "out"
    answer = command(*words(street, out, "--val-only", street.names[1], "--only", street.names[0], "--val-every", 2))
    assert answer.code == 0, answer.text
    files = [
        "README.md", "config.json", "metrics.jsonl", "model.safetensors", "preprocessor_config.json", "tensorboard",
        "training.json",
    ]  # fmt: skip
    assert sorted(file.name for file in out.iterdir()) == files
    assert "4 labelled frames in 1 clips, 10 classes; 3 steps of 2 are 1.5 passes" in answer.text
    assert "warm-up takes 0 steps, a tenth of all, instead of 1500" in answer.text
    assert "weights kept, of step" in answer.out
    assert f"segmenter {out}" in answer.out
    segmenter = load_segmenter(str(out))
    assert segmenter.label_space.names == LABEL_SPACE.names
    assert (segmenter.label_space.palette == LABEL_SPACE.palette).all()
    facts = json.loads((out / "training.json").read_text())
    assert facts["input"]["size"] == {"shortest_edge": 48, "longest_edge": 64}
    assert facts["start"] == {"family": "segformer", "start": "segformer-nano"}
    refined = command("refine", street.clip, "--segmenter", out, "--tracker", "none", "--out", tmp_path / "labels",
                      "--no-overlay", "--no-report")  # fmt: skip
    assert refined.code == 0, refined.text


def test_the_start_for_other_classes_is_told(command, toy_root, street, tmp_path):
    answer = command(*words(street, tmp_path / "out", "--data", toy_root, "--overwrite"))
    text = (
        "segformer-nano tells 10 classes apart (sky, building, road, ...), the data set has 4 (ground, disc, box, ...)"
    )
    assert text in answer.text
    assert "no validation: the last weights are kept" in answer.text
    assert "no training pixels: late; these classes are not learned" in answer.text
    again = command(*words(street, tmp_path / "out", "--data", toy_root))
    assert "already holds a segmenter: replace it with --overwrite" in again.message


def test_a_dry_run_says_what_it_costs_and_writes_nothing(command, street, tmp_path):
    answer = command(*words(street, tmp_path / "out", "--dry-run", "--val-split", "train"))
    assert answer.code == 0, answer.text
    for part in ("0.37 M", "2 of 1 frame, 32 x 32", "time of a step here", "time of all steps", "3 times 8 frames"):
        assert part in answer.text
    assert "2 clips are for training and validation (first: synthetic_100000), so scores are optimistic" in answer.text
    assert not (tmp_path / "out").exists()


def test_a_native_model_is_trained_and_labels_frames(command, toy_root, street, tmp_path):
    """The whole way but for validation, which takes seconds a frame: from random weights to `load_segmenter`."""
    out = tmp_path / "out"
    native = ("--model", "segformer-vss-b0", "--scale", "853x480", "--data", toy_root, "--steps", 1, "--batch", 1)
    answer = command(*words(street, out, *native))
    assert answer.code == 0, answer.text
    assert "SegFormer B0, 4 classes starts from random weights" in answer.text
    segmenter = load_segmenter(str(out))
    assert segmenter.label_space.names == ("ground", "disc", "box", "late")
    assert segmenter.predict(np.zeros((1, 32, 32, 3), np.uint8)).labels.shape == (1, 32, 32)
    again = command(*words(street, tmp_path / "again", *native[2:], "--model", out, "--dry-run"))
    assert again.code == 0, again.text
    assert "SegFormer B0 from out" in again.text


def test_video_models_need_clips(command, toy_root, street, tmp_path):
    answer = command(*words(street, tmp_path / "out", "--data", toy_root, "--model", "cffm-b0", "--scale", "853x480"))
    assert "no clip of toy train has these 10 frames: the longest has 3" in answer.message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", 0), "--steps is 0, expected at least 1"),
        (("--crop", 31), "--crop is 31, expected at least 32"),
        (("--largest", "inf"), "views are 0.5 to inf times the size"),
        (("--seed", 2**70), "--seed is 1180591620717411303424, expected 0 to 9223372036854775807"),
        (("--lr", 0), "--lr is 0.0, expected a positive number"),
        (("--lr", "nan"), "--lr is nan"),
        (("--warmup", -1), "--warmup is -1, expected 0 or more"),
        (("--workers", -1), "--workers is -1"),
        (("--save-every", 0), "--save-every is 0, expected at least 1"),
        (("--val-every", 2), "there are no clips for it: pass --val-data"),
        (("--scale", "big"), "--scale is 'big', expected two sides such as 853x480, or \"model\""),
        (("--scale", "0x5"), "--scale is '0x5'"),
        (("--scale", "99999999x1"), "pixels become 1 x 1 with --smallest 0.5"),
        (("--smallest", "1e-9", "--largest", "1e-9", "--dry-run"), "pixels become 1 x 1 with --smallest 1e-09"),
        (("--resume", "--overwrite"), "pass one of them"),
        (("--model", "cffm-b7"), "there is no native model cffm-b7"),
        (("--model", "mrcfa-b0"), "leave --scale out"),
        (("--backbone", "x.pth"), "segformer-nano has its own: leave it out"),
        (("--split", "nowhere"), "does not exist"),
        (("--only", "clip"), "1 of 1 named clips are not in"),
        (("--data", "nowhere"), "data set nowhere does not exist"),
    ],
)
def test_bad_input_is_answered_in_words(command, street, tmp_path, more, message):
    assert message in command(*words(street, tmp_path / "out", *more)).message
    assert not (tmp_path / "out").exists()


def test_a_training_that_was_begun_goes_on(command, street, tmp_path, monkeypatch):
    from sam2vss.training import segmenter as module

    out = tmp_path / "out"
    original = module.SegmenterTraining._step

    def killed(self, views):
        if self.progress.step == 2:
            raise KeyboardInterrupt
        original(self, views)

    monkeypatch.setattr(module.SegmenterTraining, "_step", killed)
    answer = command(*words(street, out, "--save-every", 1))
    assert answer.code == 130
    assert "go on with the same command and --resume" in answer.text
    monkeypatch.undo()
    assert command(*words(street, out, "--resume", "--steps", 4)).message.count("other settings (recipe)") == 1
    assert "go on with --resume" in command(*words(street, out)).message
    assert command(*words(street, out, "--resume")).code == 0
    assert command(*words(street, tmp_path / "whole")).code == 0
    for name in ("model.safetensors", "training.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
