"""Rows of classifiers and fusions on toy clips: against their definitions, with masklets that are found once."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from sam2vss import cli
from sam2vss.artifacts import RunFolder
from sam2vss.bench import rows as rows_module
from sam2vss.bench import run_bench
from sam2vss.boards.published import find_published
from sam2vss.boards.scoreboard import Scoreboard
from sam2vss.classifiers.classifier import MaskletClassifier, describe_encoder
from sam2vss.classifiers.fusion import MaskletFusion
from sam2vss.console import stdout
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, export_vspw
from sam2vss.encoders import load_encoder
from sam2vss.errors import RunError, SettingsError, WeightsError
from sam2vss.namers.classifier import ClassifierNamer
from sam2vss.namers.fusion import FusionNamer
from sam2vss.refiner import Refiner
from sam2vss.segmenters.void import VoidLabels
from sam2vss.settings import FollowSettings, MaskletSettings, VoteSettings
from sam2vss.types import LabelSpace, MaskletWindow, WindowContext
from toy_bench import CLIPS, WINDOW, read_clip, toy_plan, without_times, write_data, write_predictions
from toy_features import ClassEncoder, perfect_classifier

VOID = toy.CLASSES.ignore_index


@pytest.fixture(autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(autouse=True)
def tracker(monkeypatch) -> toy.ExactTracker:
    """Follows the toy's objects exactly in place of SAM 2; classifiers see the classes that toy pictures carry."""
    exact = toy.ExactTracker()
    real = rows_module.make_tracker
    monkeypatch.setattr(rows_module, "make_tracker", lambda plan, row: exact if row == "sam2" else real(plan, row))
    monkeypatch.setattr("sam2vss.refiner.load_tracker", lambda *arguments, **options: exact)
    monkeypatch.setattr("sam2vss.segmentor.load_shared_encoder", lambda *arguments: ClassEncoder())
    return exact


def write_classifier(folder: Path, scope: str = "frame", label_space: LabelSpace = toy.CLASSES) -> str:
    network = perfect_classifier(scope)
    if label_space is not toy.CLASSES:
        network = MaskletClassifier(
            label_set=label_space.to_dict(), encoder=describe_encoder(ClassEncoder()), head="linear"
        )
    network.save_pretrained(folder)
    return str(folder)


def write_fusion(folder: Path, keeps: bool = False) -> str:
    """Write a fusion that begins as the majority vote, or leaves all base labels."""
    network = MaskletFusion(label_set=toy.CLASSES.to_dict())
    with torch.no_grad():
        network.keep_offset.fill_(1e3 if keeps else -1e3)
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def networks(tmp_path) -> dict[str, dict[str, str]]:
    return {
        "classifiers": {"SAM2": write_classifier(tmp_path / "head")},
        "fusions": {"keep": write_fusion(tmp_path / "keep", keeps=True)},
    }


def labels_of(out: Path, *where: str) -> dict[str, np.ndarray]:
    return {clip: read_clip(out.joinpath(*where, "labels", clip)) for clip in CLIPS}


def refine(tmp_path: Path, namer, base: bool) -> dict[str, np.ndarray]:
    """Name the masklets of all clips by the Python API, over the noisy labels or over nothing."""
    found = {}
    for clip, length in CLIPS.items():
        refiner = Refiner(toy.ExactTracker(), WINDOW, namer=namer)
        frames = toy.toy_frames(toy.toy_objects(length))
        labels = read_clip(tmp_path / "noisy" / clip) if base else VoidLabels(toy.CLASSES)
        windows = refiner.refine(frames, labels, toy.CLASSES if base else None)
        found[clip] = np.concatenate([window.labels for window in windows])
    return found


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for clip in CLIPS:
        assert np.array_equal(found[clip], expected[clip]), clip


def test_every_row_has_the_labels_of_its_definition_and_masklets_are_found_once(tmp_path, networks, tracker):
    board = run_bench(toy_plan(tmp_path, **networks))
    assert [(row.name, row.kind, row.model, row.against) for row in board.rows] == [
        ("noisy", "base", "noisy", None),
        ("static-noisy", "control", "noisy", "noisy"),
        ("SAM2-noisy", "refined", "noisy", "noisy"),
        ("fusion-noisy", "refined", "noisy", "noisy"),
        ("I-SAM2_base", "other", "noisy", "noisy"),
        ("I-SAM2", "other", "noisy", "noisy"),
    ]
    assert tracker.starts == [0, 4, 0, 4]  # one pass over both clips serves four rows
    out = tmp_path / "out"
    namer = ClassifierNamer(ClassEncoder(), perfect_classifier())
    alone, filled = refine(tmp_path, namer, base=False), refine(tmp_path, namer, base=True)
    assert_equal(labels_of(out, "classified", "I-SAM2"), alone)
    assert_equal(labels_of(out, "runs", "noisy", "I-SAM2_base"), filled)
    assert (alone["a"] == VOID).any()
    assert (filled["a"] != VOID).all()
    kept = refine(tmp_path, FusionNamer(MaskletFusion.from_pretrained(tmp_path / "keep"), toy.CLASSES), base=True)
    assert_equal(labels_of(out, "runs", "noisy", "fusion-keep"), kept)
    assert board.row("fusion-noisy").scores == board.row("noisy").scores  # it leaves all base labels
    gain = board.row("I-SAM2_base").differences["mIoU"]
    assert gain.difference == pytest.approx(board.row("I-SAM2_base").scores["mIoU"] - board.row("noisy").scores["mIoU"])
    assert gain.clips == 2
    assert gain.difference > 0


def test_masklets_that_serve_many_rows_count_for_each_of_them(tmp_path, networks):
    board = run_bench(toy_plan(tmp_path, **networks))
    finder = RunFolder.open(tmp_path / "out" / "runs" / "noisy" / "sam2")
    reader = RunFolder.open(tmp_path / "out" / "classified" / "I-SAM2")
    tracking = sum(window.seconds["masklets"] for clip in CLIPS for window in finder.finished_windows(clip))
    stages = ("classes", "vote and paint")
    own = sum(w.seconds[stage] for clip in CLIPS for w in reader.finished_windows(clip) for stage in stages)
    facts = board.row("I-SAM2").facts
    assert facts["seconds"] == pytest.approx((tracking + own) / 12)
    assert facts["masklets"] == board.row("SAM2-noisy").facts["masklets"] == 3
    assert facts["coverage"] == board.row("SAM2-noisy").facts["coverage"]


@pytest.mark.parametrize(
    "follow",
    [FollowSettings(max_masklets=2), FollowSettings(drop_contained=True), FollowSettings(skip_settled=True)],
)
def test_where_base_labels_choose_masklets_every_row_finds_its_own(tmp_path, tracker, follow):
    fusions = {"keep": write_fusion(tmp_path / "keep")}
    run_bench(toy_plan(tmp_path, fusions=fusions, follow=follow))
    assert tracker.starts == [0, 4, 0, 4] * 2
    assert not list((tmp_path / "out").rglob("masklets"))


def test_a_row_that_is_alone_saves_no_masklets(tmp_path):
    run_bench(toy_plan(tmp_path))
    assert not list((tmp_path / "out").rglob("masklets"))


class CarryingTracker(toy.ExactTracker):
    """Follows the objects of a clip's first window through all windows, with their ids."""

    def track(self, frames: np.ndarray, start: int, context: WindowContext | None = None) -> MaskletWindow:
        assert context is not None
        if context.previous is None:
            return super().track(frames, start)
        self.starts.append(start)
        ids = context.previous.ids
        objects = frames[..., 0] // 20
        return MaskletWindow.from_masks(objects[None] == ids[:, None, None, None] % 1000, start, ids=ids)


def test_carried_masklets_are_shared_with_their_ids_and_votes(tmp_path, monkeypatch):
    carrying = CarryingTracker()
    monkeypatch.setattr(rows_module, "make_tracker", lambda plan, row: carrying)
    follow = FollowSettings(carry=True)
    fusions = {"vote": write_fusion(tmp_path / "vote")}
    run_bench(toy_plan(tmp_path, rows=("sam2",), fusions=fusions, follow=follow))
    assert carrying.starts == [0, 4, 0, 4]
    together = labels_of(tmp_path / "out", "runs", "noisy", "fusion-vote")
    shutil.move(tmp_path / "out", tmp_path / "first")
    run_bench(toy_plan(tmp_path, rows=(), fusions=fusions, follow=follow))
    assert carrying.starts == [0, 4, 0, 4] * 2
    assert_equal(labels_of(tmp_path / "out", "runs", "noisy", "fusion-vote"), together)
    reader = RunFolder.open(tmp_path / "first" / "runs" / "noisy" / "fusion-vote")
    ids = [[masklet.id for masklet in window.masklets] for window in reader.finished_windows("b")]
    assert ids[0] == ids[1]


def test_rows_of_several_models_share_too_and_names_stay_distinct(tmp_path, tracker, networks):
    models = {"noisy": write_predictions(tmp_path / "noisy"), "Clean": write_predictions(tmp_path / "clean", 0.1)}
    networks["classifiers"]["clean"] = write_classifier(tmp_path / "other")
    networks["fusions"]["vote"] = write_fusion(tmp_path / "vote")
    board = run_bench(toy_plan(tmp_path, rows=("sam2",), labels=models, **networks))
    assert [row.name for row in board.rows] == [
        "noisy", "SAM2-noisy", "fusion-keep-noisy", "fusion-vote-noisy", "I-SAM2_base-noisy", "I-clean_base-noisy",
        "Clean", "SAM2-Clean", "fusion-keep-Clean", "fusion-vote-Clean", "I-SAM2_base-Clean", "I-clean_base",
        "I-SAM2", "I-clean",
    ]  # fmt: skip
    assert (board.row("I-clean_base").against, board.row("I-SAM2").against) == ("Clean", None)
    assert board.row("I-SAM2").model == "I-SAM2"  # stands alone
    assert tracker.starts == [0, 4, 0, 4]


def test_names_are_those_of_the_papers_table_3(tmp_path, networks):
    head = networks["classifiers"]["SAM2"]
    noisy = write_predictions(tmp_path / "noisy")
    plan = toy_plan(tmp_path, rows=(), classifiers={"SAM2": head, "cffm-b2": head}, labels={"cffm-b2": noisy})
    found = {task.name: find_published("VSPW", task.name, "val", 480) for task in plan.tasks}
    assert {name: figures and figures.values["mIoU"] for name, figures in found.items()} == {
        "cffm-b2": 0.449,
        "I-SAM2_base": 0.209,
        "I-cffm-b2_base": 0.423,
        "I-SAM2": 0.1803,
        "I-cffm-b2": 0.375,
    }
    several = toy_plan(tmp_path, rows=(), classifiers={"cffm-b2": head}, labels={"cffm-b1": noisy, "cffm-b2": noisy})
    assert [task.name for task in several.tasks] == [
        "cffm-b1", "I-cffm-b2_base-cffm-b1", "cffm-b2", "I-cffm-b2_base", "I-cffm-b2"
    ]  # fmt: skip
    assert find_published("VSPW", "I-cffm-b2_base-cffm-b1") is None


def test_a_network_that_is_called_by_its_source_alone_counts_as_unnamed(tmp_path):
    head, fusion = write_classifier(tmp_path / "head"), write_fusion(tmp_path / "nets")
    plan = toy_plan(tmp_path, classifiers={"SAM2": head, "head": head}, fusions={"nets": fusion})
    assert {network.name: network.is_named for network in plan.networks} == {
        "nets": False, "SAM2": True, "head": False
    }  # fmt: skip
    assert "fusion-noisy" in [task.name for task in plan.tasks]
    named = toy_plan(tmp_path, fusions={"mine": fusion})
    assert [task.name for task in named.tasks][-1] == "fusion-mine-noisy"


def test_published_figures_are_looked_up_for_networks_that_the_user_named(tmp_path, monkeypatch, networks):
    asked: list[str] = []
    monkeypatch.setattr("sam2vss.bench.board.find_published", lambda dataset, name, *more: asked.append(name))
    networks["classifiers"]["head"] = networks["classifiers"]["SAM2"]  # the last part of its path
    run_bench(toy_plan(tmp_path, rows=("static",), **networks))
    assert asked == ["noisy", "I-SAM2_base", "I-SAM2"]  # the fusion here is called by its path alone too


def test_a_classifier_needs_no_base_model(tmp_path, tracker):
    plan = toy_plan(tmp_path, labels={}, classifiers={"SAM2": write_classifier(tmp_path / "head")})
    board = run_bench(plan)
    assert [(row.name, row.against) for row in board.rows] == [("I-SAM2", None)]
    assert tracker.starts == [0, 4, 0, 4]


def test_a_finished_bench_is_not_done_again(tmp_path, tracker, networks):
    plan = toy_plan(tmp_path, **networks)
    board = run_bench(plan)
    again = run_bench(plan, resume=True)
    assert again.row("I-SAM2").facts == board.row("I-SAM2").facts
    assert without_times(again.to_json()) == without_times(board.to_json())
    assert tracker.starts == [0, 4, 0, 4]


def test_rows_that_join_find_masklets_once_where_none_were_saved(tmp_path, tracker, networks):
    run_bench(toy_plan(tmp_path))
    path = tmp_path / "out" / "plan.json"
    stored = json.loads(path.read_text())
    del stored["networks"]  # as earlier versions wrote it
    path.write_text(json.dumps(stored))
    assert len(run_bench(toy_plan(tmp_path, **networks), resume=True).rows) == 6
    assert tracker.starts == [0, 4, 0, 4] * 2
    late = {"classifiers": {"late": write_classifier(tmp_path / "late")}}
    networks["classifiers"] |= late["classifiers"]
    board = run_bench(toy_plan(tmp_path, **networks), resume=True)
    assert board.row("I-late").scores == board.row("I-SAM2").scores
    assert tracker.starts == [0, 4, 0, 4] * 2


def test_an_interrupted_bench_goes_on_without_finding_a_window_twice(tmp_path, tracker, networks):
    whole = run_bench(toy_plan(tmp_path, **networks))
    shutil.move(tmp_path / "out", tmp_path / "whole")
    before = len(tracker.starts)

    def stop_at_the_second_clip(start: int) -> None:
        if len(tracker.starts) == before + 3:
            raise KeyboardInterrupt

    tracker.on_window = stop_at_the_second_clip
    with pytest.raises(KeyboardInterrupt):
        run_bench(toy_plan(tmp_path, **networks))
    tracker.on_window = None
    board = run_bench(toy_plan(tmp_path, **networks), resume=True)
    assert tracker.starts[before:] == [0, 4, 0, 4]
    assert without_times(board.to_json()) == without_times(whole.to_json())


def test_masklets_of_other_settings_are_not_taken(tmp_path, tracker, networks):
    run_bench(toy_plan(tmp_path, **networks))
    other = MaskletSettings(window=WINDOW, pred_iou=0.7)
    classifiers = {"other": networks["classifiers"]["SAM2"]}
    run_bench(toy_plan(tmp_path, rows=("static",), classifiers=classifiers, masklets=other), resume=True)
    assert tracker.starts == [0, 4, 0, 4] * 2
    with pytest.raises(RunError, match="differs from the one asked for in networks: classifier SAM2"):
        run_bench(toy_plan(tmp_path, rows=("static",), masklets=other, **networks), resume=True)


def test_masklets_of_other_weights_are_not_taken(tmp_path, tracker, networks, monkeypatch):
    run_bench(toy_plan(tmp_path, rows=("sam2",), fusions=networks["fusions"]))
    real = rows_module._hashes
    monkeypatch.setattr(rows_module, "_hashes", lambda found: dict.fromkeys(real(found), "0" * 64))
    board = run_bench(toy_plan(tmp_path, rows=("sam2",), **networks), resume=True)
    assert [row.name for row in board.rows] == ["noisy", "I-SAM2_base", "I-SAM2"]
    assert board.warnings[0].startswith("SAM2-noisy failed (RunError)")
    assert tracker.starts == [0, 4, 0, 4] * 2  # the first of the two finds them anew, the other one takes its


def test_masklets_of_other_frames_are_not_taken(tmp_path, tracker, networks):
    run_bench(toy_plan(tmp_path, rows=("sam2",), fusions=networks["fusions"]))
    path = tmp_path / "data" / "data" / "a" / "origin" / "0000.png"
    Image.fromarray(np.asarray(Image.open(path)) + np.array([0, 0, 1], np.uint8)).save(path)
    board = run_bench(toy_plan(tmp_path, rows=("sam2",), **networks), resume=True)
    assert [row.name for row in board.rows] == ["noisy", "I-SAM2_base", "I-SAM2"]
    assert tracker.starts == [0, 4, 0, 4] * 2


def test_a_row_that_fails_leaves_the_masklets_to_the_next(tmp_path, tracker, networks):
    def fail_once(start: int) -> None:
        tracker.on_window = None
        raise RuntimeError("out of memory")

    tracker.on_window = fail_once
    board = run_bench(toy_plan(tmp_path, **networks))
    assert board.warnings[0] == "SAM2-noisy failed (RuntimeError): out of memory"
    assert [row.name for row in board.rows][2:] == ["fusion-noisy", "I-SAM2_base", "I-SAM2"]
    assert tracker.starts == [0, 4, 0, 4]


def test_a_classifier_of_other_classes_than_the_data_is_refused_before_work(tmp_path):
    swapped = LabelSpace(("ground", "box", "disc", "late"), toy.CLASSES.palette, name="swapped")
    head = write_classifier(tmp_path / "head", label_space=swapped)
    with pytest.raises(SettingsError, match=r"first difference, classifier / data set, is 1: box / disc"):
        toy_plan(tmp_path, classifiers={"x": head})
    few = write_classifier(tmp_path / "few", label_space=LabelSpace.numbered(2, name="two"))
    with pytest.raises(SettingsError, match=r"--classifier x names 2 classes \(two\), the data set has 4 \(toy\)"):
        toy_plan(tmp_path, classifiers={"x": few})


def test_base_labels_of_other_classes_fail_in_their_row_only(tmp_path, networks):
    other = write_predictions(tmp_path / "other")
    names = LabelSpace(("ground", "disc", "box", "latest"), toy.CLASSES.palette, name="theirs")
    (other / "label_set.json").write_text(json.dumps(names.to_dict()), encoding="utf-8")
    models = {"noisy": write_predictions(tmp_path / "noisy"), "other": other}
    plan = toy_plan(tmp_path, rows=(), labels=models, classifiers=networks["classifiers"])
    board = run_bench(plan)
    failed = [warning for warning in board.warnings if warning.startswith("I-SAM2_base-other failed (LabelError)")]
    assert len(failed) == 1
    assert {"I-SAM2_base-noisy", "I-SAM2"} <= {row.name for row in board.rows}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifiers": {"a/b": "head"}}, "'a/b' cannot be the name of a folder"),
        ({"classifiers": {"x": "head", "X": "head"}}, "two rows would be called I-X"),
        ({"classifiers": {"x": "head"}, "compare": {"i-x": Path()}}, "two rows would be called I-x"),
        ({"labels": {}, "fusions": {"x": "keep"}, "compare": {"y": Path()}}, "--fusion decides on base labels"),
        ({"classifiers": {"x": "head"}, "follow": FollowSettings(skip_settled=True)}, "a classifier does not vote"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_run(tmp_path, options, message):
    with pytest.raises(SettingsError, match=message):
        toy_plan(tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_classifier_is_refused_before_anything_is_run(tmp_path):
    fusion = write_fusion(tmp_path / "keep")
    with pytest.raises(WeightsError, match="expected 'sam2vss masklet classifier"):
        toy_plan(tmp_path, classifiers={"x": fusion})


def test_the_command_of_a_row_makes_its_labels_again(tmp_path, networks, capsys):
    networks["classifiers"] = {"SAM2": write_classifier(tmp_path / "window", "window")}
    board = run_bench(toy_plan(tmp_path, rows=(), votes=VoteSettings(overlap="large-on-top"), **networks))
    rows = {"fusion-noisy": "runs/noisy/fusion-keep", "I-SAM2_base": "runs/noisy/I-SAM2_base"}
    for name, folder in {**rows, "I-SAM2": "classified/I-SAM2"}.items():
        words = shlex.split(board.row(name).command)
        assert words[1] == ("refine" if name.startswith("fusion") else "classify")
        assert words[words.index("--overlap") + 1] == "large-on-top"
        words[words.index("--out") + 1] = str(tmp_path / name)
        assert cli.run([*words[1:], "--no-report"]) == 0, capsys.readouterr().err
        assert_equal(labels_of(tmp_path, name), labels_of(tmp_path / "out", folder))


def test_settings_say_what_decides_a_row(tmp_path, networks):
    board = run_bench(toy_plan(tmp_path, votes=VoteSettings(min_share=0.5), **networks))
    settings = board.row("I-SAM2_base").settings
    assert (settings["classifier"], settings["encoder"]) == (str(tmp_path / "head"), "toy-classes")
    assert (settings["vote"], settings["window"], settings["sam2"]) == ("frame", WINDOW, "nano")
    assert "min_share" not in settings  # of votes
    assert board.row("fusion-noisy").settings["fusion"] == str(tmp_path / "keep")


def bench_words(tmp_path: Path, *more: str) -> list[str]:
    words = f"bench {tmp_path / 'data'} --labels noisy={tmp_path / 'noisy'} --out {tmp_path / 'out'}"
    return [*words.split(), *["--windows", "2", "--window", "4", "--sam2", "nano", "--device", "cpu"], *more]


@pytest.mark.slow
def test_a_dry_run_names_the_rows_and_says_that_masklets_are_shared(tmp_path, capsys, monkeypatch, networks):
    monkeypatch.setattr(stdout, "_width", 200)
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    words = ["--rows", "sam2", "--classifier", f"SAM2={tmp_path / 'head'}", "--fusion", str(tmp_path / "keep")]
    assert cli.run(bench_words(tmp_path, *words, "--dry-run")) == 0
    printed = capsys.readouterr().out
    for name in ("SAM2-noisy", "fusion-noisy", "I-SAM2_base", "I-SAM2"):
        assert f" {name} " in printed
    assert "the time of SAM 2 above is spent once, for 4 rows" in printed
    assert cli.run(bench_words(tmp_path, *words, "--max-masklets", "9", "--dry-run")) == 0
    assert "the time of SAM 2 above is for each of 4 rows" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bundled_masklets_are_shared_between_processes_as_in_one(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real tracker and encoder
    export_vspw(tmp_path / "data", VALIDATION_SEEDS[:1], 5, (64, 96))
    torch.manual_seed(0)
    encoder = load_encoder("sam2:nano/low", "cpu")
    head = MaskletClassifier(label_set=LABEL_SPACE.to_dict(), encoder=describe_encoder(encoder), head="linear")
    head.save_pretrained(tmp_path / "head")
    words = f"bench {tmp_path / 'data'} --segmenter segformer-nano --sam2 nano --points 4 --device cpu --windows 2 4"
    words += f" --window 3 --rows sam2 --classifier SAM2={tmp_path / 'head'} --carry"
    boards = []
    for out, more in (("one", []), ("two", ["--workers", "2"])):
        assert cli.run([*words.split(), "--out", str(tmp_path / out), *more]) == 0
        boards.append(Scoreboard.read(tmp_path / out / "bench.json"))
        assert (tmp_path / out / "runs" / "segformer-nano" / "sam2" / "masklets").is_dir()
    assert [row.scores for row in boards[0].rows] == [row.scores for row in boards[1].rows]
    command = shlex.split(boards[0].row("I-SAM2_base").command)
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert cli.run([*command[1:], "--no-report"]) == 0  # with masklets of its own, and SAM 2's own encoder
    for clip in (path.name for path in (tmp_path / "again" / "labels").iterdir()):
        own = read_clip(tmp_path / "one" / "runs" / "segformer-nano" / "I-SAM2_base" / "labels" / clip)
        assert np.array_equal(read_clip(tmp_path / "again" / "labels" / clip), own)
