"""Panoptic predictions, and class ids from 0 on, through every command that takes labels."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import sam2vss
import toy
from panoptic_files import SPACE, VOID, write_deva, write_dvis, write_ids
from sam2vss import cli
from sam2vss.datasets.panoptic_codes import PanopticMap
from sam2vss.datasets.panoptic_folders import write_codes
from sam2vss.images import read_label_map
from sam2vss.run_info import read_info
from sam2vss.trackers.nothing import NoTracker
from sam2vss.types import LabelSpace

NUM_FRAMES = 6
TRUTH = np.minimum(toy.toy_labels(toy.toy_objects(NUM_FRAMES)), 2)  # road, cat, dog; `SPACE` stores them as 1, 2, 3
STEMS = [f"{t:04d}" for t in range(NUM_FRAMES)]


def predicted() -> np.ndarray:
    """The truth with a hole that moves."""
    labels = TRUTH.copy()
    for t in range(NUM_FRAMES):
        labels[t, 4:10, 2 * t : 2 * t + 9] = VOID
    return labels


PREDICTED = predicted()


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys):
    """Runs `sam2vss ...` in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`set/`, a data set of one clip in VSPW's layout, `label_set.json`, and its predictions in several forms."""
    root = tmp_path_factory.mktemp("panoptic")
    toy.write_toy_frames(root / "set" / "data" / "v" / "origin", NUM_FRAMES)
    frames = dict(zip(STEMS, PREDICTED, strict=True))
    write_ids(
        root / "set" / "data" / "v" / "mask", {stem: ids + 1 for stem, ids in zip(STEMS, TRUTH, strict=True)}, "L"
    )
    for path in (root / "set" / "label_set.json", root / "label_set" / "label_set.json"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(SPACE.to_dict()))
    write_dvis(root / "dvis", {"v": frames})
    write_deva(root / "deva" / "v", frames)
    for stem, labels in frames.items():
        instance = np.where((labels == VOID) | (labels == 0), 0, 1).astype(np.int32)
        write_codes(root / "codes" / "v" / f"{stem}.png", PanopticMap(labels, instance), SPACE)
    write_ids(root / "cffm" / "result_submission" / "v", frames)
    write_ids(root / "vspw_baseline" / "v", frames)
    write_ids(root / "inference" / "v", frames, "L")
    write_ids(root / "flat", frames, "L")
    return root


FORMS = ("dvis", "deva", "codes")
FROM_ZERO = ("cffm", "vspw_baseline", "inference", "flat")


def label_set(place: Path) -> tuple[object, ...]:
    return "--label-set", place / "label_set"


def labels_of(run: Path, folder: str = "labels") -> np.ndarray:
    space = LabelSpace.from_dict(read_info(run)["label_set"])
    return np.stack([read_label_map(run / folder / "v" / f"{stem}.png", space) for stem in STEMS])


@pytest.mark.parametrize("form", FORMS)
def test_refine_takes_the_classes_of_every_panoptic_form(command, place, tmp_path, form):
    words = ("refine", place / "set", "--labels", place / form, *label_set(place), "--tracker", "none", "--no-overlay")
    answer = command(*words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert labels_of(tmp_path / "run").tolist() == PREDICTED.tolist()
    assert "base labels that are void" in answer.out
    share = (PREDICTED == VOID).mean()
    assert f"{100 * share:.2f} %" in answer.out
    assert f"{100 * share:.2f} %, left {100 * share:.2f} %" in answer.out  # no masklet, and void is kept
    (clip,) = read_info(tmp_path / "run")["clips"]
    assert (clip["void_share"], clip["void_left_share"]) == (pytest.approx(share), pytest.approx(share))
    assert "void in base" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", FROM_ZERO)
def test_refine_takes_class_ids_from_zero_where_it_is_told(command, place, tmp_path, form, caplog):
    words = ("refine", place / "set", "--labels", place / form, *label_set(place), "--tracker", "none", "--no-overlay")
    told = command(*words, "--out", tmp_path / "run", "--id-offset", 1, "--no-report")
    assert told.code == 0, told.err
    assert labels_of(tmp_path / "run").tolist() == PREDICTED.tolist()
    assert caplog.messages == []


def test_ids_that_may_be_shifted_are_refused_under_a_built_in_set(command, place, tmp_path):
    words = ("refine", place / "set", "--labels", place / "cffm", "--tracker", "none", "--out", tmp_path / "run")
    answer = command(*words, "--label-set", "vspw")
    assert answer.code == 2
    assert "Pass --id-offset 1 if these ids start at 0" in " ".join(answer.err.split())
    assert command(*words, "--label-set", "vspw", "--id-offset", 1, "--no-overlay", "--no-report").code == 0
    assert labels_of(tmp_path / "run").tolist() == PREDICTED.tolist()


def test_the_json_itself_is_refused_with_the_folder_to_pass(command, place, tmp_path):
    for names in ((), label_set(place)):
        words = ("refine", place / "set", "--labels", place / "dvis" / "pred.json", *names, "--tracker", "none")
        answer = command(*words, "--out", tmp_path / "run")
        assert answer.code == 2
        assert f"pass {place / 'dvis'}, the folder that holds it" in " ".join(answer.err.split())


def test_evaluate_knows_panoptic_codes_as_truth_wherever_they_lie(command, place):
    answer = command("evaluate", place / "codes", place / "deva", *label_set(place), "--windows", 2)
    assert answer.code == 0, answer.err
    assert "100.00" in answer.out


@pytest.mark.parametrize("void", ["nearest", "previous", "vote"])
def test_a_void_policy_leaves_no_void_and_stands_in_the_record(command, place, tmp_path, void):
    words = ("refine", place / "set", "--labels", place / "dvis", *label_set(place), "--tracker", "superpixel")
    answer = command(*words, "--void", void, "--no-overlay", "--no-report", "--window", 4, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    assert not (labels_of(tmp_path / "run") == VOID).any()
    assert (labels_of(tmp_path / "run", "base") == VOID).any() == (void == "vote")
    assert read_info(tmp_path / "run")["settings"]["votes"]["void"] == void
    assert "base labels that are void" in answer.out  # as they came
    assert "%, none left" in answer.out
    assert read_info(tmp_path / "run")["clips"][0]["void_left_share"] == 0


def test_evaluate_and_stability_read_panoptic_forms(command, place, tmp_path):
    forms = [place / form for form in FORMS]
    words = ("evaluate", place / "set", *forms, "--windows", 2, "--json", tmp_path / "scores.json")
    answer = command(*words)
    assert answer.code == 0, answer.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    share = (PREDICTED == VOID).mean()
    assert scores["unlabelled_share"] == scores["per_video"]["v"]["unlabelled_share"] == pytest.approx(share)
    pixel_ious = [((c == PREDICTED) & (c == TRUTH)).sum() / ((c == PREDICTED) | (c == TRUTH)).sum() for c in range(3)]
    assert scores["scores"]["mIoU"] == pytest.approx(np.mean(pixel_ious))
    assert [found["scores"] for found in scores["compared"].values()] == [scores["scores"]] * 2
    words = ("stability", *forms, *label_set(place), "--flow", "none", "--json", tmp_path / "stability.json")
    answer = command(*words)
    assert answer.code == 0, answer.err
    assert answer.out.count(f"{100 * share:.2f}") >= 3  # unlabelled
    wide = command("evaluate", place / "set", place / "dvis", place / "cffm", "--windows", 2, "--id-offset", 1)
    assert wide.code == 0, wide.err


def test_bench_takes_them_beside_class_ids_from_zero(command, place, tmp_path):
    labels = (f"{form}={place / form}" for form in ("dvis", "deva", "vspw_baseline"))
    words = ("bench", place / "set", "--labels", *labels, "--rows", "static", "--windows", 2, "--void", "nearest")
    answer = command(*words, "--id-offset", 1, "--out", tmp_path / "bench")
    assert answer.code == 0, answer.err
    rows = json.loads((tmp_path / "bench" / "bench.json").read_text())["rows"]
    scores = [row["evaluation"]["scores"] if "evaluation" in row else row["scores"] for row in rows]
    assert scores[0] == scores[2] == scores[4]  # base labels
    assert scores[1] == scores[3] == scores[5]  # smoothed
    assert not (labels_of(tmp_path / "bench" / "runs" / "deva" / "static") == VOID).any()
    assert ["--void nearest" in row["command"] for row in rows] == [False, True] * 3


def test_ablate_takes_them_and_one_void_policy(command, place, tmp_path):
    (tmp_path / "grid.yaml").write_text("base: {points: 2, window: 6, mode: prompt}\naxes: {min_share: [0.5]}\n")
    words = ("ablate", place / "set", "--labels", place / "deva", "--grid", tmp_path / "grid.yaml", "--sam2", "nano")
    answer = command(*words, "--image-size", 64, "--windows", 2, "--void", "vote", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    rows = json.loads((tmp_path / "out" / "ablate.json").read_text())["rows"]
    assert ["--void vote" in row["command"] for row in rows] == [False, True, True]
    answer = command(*words, "--id-offset", 0, "--out", tmp_path / "other")
    assert answer.code == 2
    assert "category 1 of segment 2 is thing there, and 'road' is stuff" in " ".join(answer.err.split())


def test_classify_fills_with_them(place, tmp_path, monkeypatch):
    from sam2vss import segmentor

    seen = {}

    def stop(base, named):
        seen["names"] = base.names
        raise SystemExit(7)

    monkeypatch.setattr(segmentor, "check_classes", stop)
    words = ("classify", place / "set", "--classifier", "nano", "--sam2", "nano", "--out", tmp_path / "run")
    with pytest.raises(SystemExit):
        cli.run([str(word) for word in (*words, "--base", place / "deva", *label_set(place))])
    assert seen["names"] == SPACE.names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("classify", "--classifier", "nano", "--void", "nearest"),
            "fills base labels, and there are none: pass --base",
        ),
        (("classify", "--classifier", "nano", "--id-offset", "1"), "--id-offset is for ids in label PNGs"),
        (("refine", "--segmenter", "segformer-nano", "--id-offset", "1"), "a model makes the labels: pass --labels"),
        (("ablate", "--segmenter", "segformer-nano", "--id-offset", "1"), "a model makes the labels: pass --labels"),
    ],
)
def test_options_that_would_do_nothing_are_refused(command, place, tmp_path, words, message):
    name, *rest = words
    answer = command(name, place / "set", *rest, "--out", tmp_path / "out")
    assert answer.code == 2
    assert message in " ".join(answer.err.split())


@pytest.mark.parametrize("form", FORMS)
def test_python_takes_the_same_folders(place, form):
    refiner = sam2vss.Refiner(NoTracker(), window=4)
    windows = refiner.refine(place / "set" / "data" / "v", place / form, place / "label_set")
    assert np.concatenate([window.labels for window in windows]).tolist() == PREDICTED.tolist()


def test_python_takes_an_offset(place):
    refiner = sam2vss.Refiner(NoTracker(), window=4)
    clip = place / "set" / "data" / "v"
    windows = refiner.refine(clip, place / "inference", place / "label_set", id_offset=1)
    assert np.concatenate([window.labels for window in windows]).tolist() == PREDICTED.tolist()
