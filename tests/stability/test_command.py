"""`sam2vss stability`: what it prints, writes and answers."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import toy
from sam2vss import cli
from sam2vss.console import stdout
from sam2vss.media import find_clips

LABEL_SET = {"name": "toy", "ignore_index": 255, "classes": toy.CLASSES.to_dict()["classes"]}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def stability(capsys, monkeypatch):
    """Runs `sam2vss stability ...` in this process, on a wide screen."""
    monkeypatch.setattr(stdout, "_width", 200)

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = cli.run(["stability", *(str(word) for word in words)])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`frames/` with eight pictures, two sets of labels with a label set beside them, and a run; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    toy.write_toy_frames(folder / "frames", 8)
    for name, share in (("noisy", 0.3), ("better", 0.05)):
        toy.write_toy_labels(folder / "sets" / name, 8, share)
    (folder / "sets" / "label_set.json").write_text(json.dumps(LABEL_SET))
    with toy.no_waiting_for_the_disk():
        toy.run_toy(folder / "run", find_clips(folder / "frames"), save_masklets=True, overlay=False)
    return folder


def test_a_run_is_compared_with_its_base_labels_and_finds_its_frames_itself(stability, place, tmp_path):
    answer = stability(place / "run", "--json", tmp_path / "scores.json")
    assert answer.code == 0
    assert "8 frames of 1 clip, percent" in answer.out
    assert "DIS mIoU" in answer.out
    assert "run: refined - run: base" in answer.out
    assert "labels that never change score best" in answer.out
    content = json.loads((tmp_path / "scores.json").read_text())
    assert list(content["sets"]) == ["run: base", "run: refined"]
    scores = content["sets"]["run: refined"]["scores"]
    assert f"{100 * scores['flow_consistency_dis']:.2f}" in answer.out
    assert scores["switch_rate"] == 0


def test_folders_of_labels_need_pictures_or_no_flow(stability, place):
    answer = stability(place / "sets" / "noisy")
    assert answer.code == 2
    assert "pass --frames SOURCE, or --flow none" in answer.err
    assert "Traceback" not in answer.err
    without = stability(place / "sets" / "noisy", place / "sets" / "better", "--flow", "none")
    assert without.code == 0
    assert "DIS" not in without.out
    assert "better - noisy" in without.out
    checked = stability(place / "sets" / "noisy", "--frames", place / "frames")
    unchecked = stability(place / "sets" / "noisy", "--frames", place / "frames", "--no-occlusion-check")
    assert (checked.code, unchecked.code) == (0, 0)
    assert checked.out != unchecked.out


def test_bad_words_are_answered_with_what_was_expected(stability, place, tmp_path):
    assert "pass run folders or folders of label PNGs" in stability().err
    assert stability().code == 2
    assert stability(place / "run", "--flow", "raft").code == 2
    assert "nowhere does not exist, expected a run folder" in stability(tmp_path / "nowhere").err
    unnamed = toy.write_toy_labels(tmp_path / "labels", 2)
    assert "pass --label-set FILE" in stability(unnamed, "--flow", "none").err
    named = stability(unnamed, "--flow", "none", "--label-set", place / "sets" / "label_set.json")
    assert named.code == 0
    unknown = stability(place / "run", "--only", "other")
    assert (unknown.code, "there are frames" in unknown.err) == (2, True)
    (tmp_path / "shard-1-of-2").mkdir()
    assert "each a run: pass one of them" in stability(tmp_path).err
