"""A bench on toy clips: every row against its definition, resumed, with failures, by the real command."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss import cli
from sam2vss.artifacts import RunFolder
from sam2vss.bench import plan_bench, run_bench
from sam2vss.bench import rows as rows_module
from sam2vss.bench import scoring as scoring_module
from sam2vss.boards.scoreboard import HEADLINE, Scoreboard
from sam2vss.console import stdout
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, export_vspw
from sam2vss.errors import LabelError, RunError, SettingsError, ShapeError
from sam2vss.evaluate import evaluate_folders
from sam2vss.hub import ModelLocation
from sam2vss.metrics import VideoSegMetrics, paired_bootstrap
from sam2vss.refiner import Refiner
from sam2vss.smoothing import majority_of_neighbours
from sam2vss.trackers.nothing import NoTracker
from sam2vss.types import LabelSpace
from toy_bench import CLIPS, WINDOW, read_clip, toy_plan, without_times, write_data, write_predictions

NAMES = {"static": "static", "flow": "flow", "superpixel": "superpixel", "SAM2": "sam2"}  # rows and their folders


@pytest.fixture(autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(autouse=True)
def tracker(monkeypatch) -> toy.ExactTracker:
    """Follows the toy's objects exactly in place of SAM 2."""
    exact = toy.ExactTracker()
    real = rows_module.make_tracker
    monkeypatch.setattr(rows_module, "make_tracker", lambda plan, row: exact if row == "sam2" else real(plan, row))
    return exact


def count(labels: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> VideoSegMetrics:
    metrics = VideoSegMetrics(toy.CLASSES.num_classes, windows=(2,))
    for clip in truth:
        metrics.update(labels[clip], truth[clip], clip=clip)
    return metrics


def test_every_row_has_the_scores_of_its_definition(tmp_path):
    board = run_bench(toy_plan(tmp_path))
    truth = {clip: toy.toy_labels(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    base = {clip: read_clip(tmp_path / "noisy" / clip) for clip in CLIPS}
    static = {clip: majority_of_neighbours(labels) for clip, labels in base.items()}
    refiner = Refiner(toy.ExactTracker(), WINDOW)
    frames = {clip: toy.toy_frames(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    refined = {
        clip: np.concatenate([part.labels for part in refiner.refine(frames[clip], base[clip], toy.CLASSES)])
        for clip in CLIPS
    }
    expected = {"noisy": base, "static-noisy": static, "SAM2-noisy": refined}
    assert [row.name for row in board.rows] == list(expected)
    assert [row.kind for row in board.rows] == ["base", "control", "refined"]
    counted = {name: count(labels, truth) for name, labels in expected.items()}
    for row in board.rows:
        assert row.scores == counted[row.name].compute().as_dict(), row.name
        assert row.per_clip["b"]["mIoU"] == counted[row.name].per_clip()["b"].miou
        assert row.per_class["disc"]["IoU"] == counted[row.name].per_class()[1].iou
        if row.kind != "base":
            difference = paired_bootstrap(counted["noisy"].counts, counted[row.name].counts, "mBIoU", seed=0)
            assert (row.against, row.differences["mBIoU"]) == ("noisy", difference)
            assert difference.clips == 2
    assert (board.clips, board.frames, board.statistics) == (2, 12, ("mIoU", "wIoU", "mBIoU", "mVC2"))
    assert Scoreboard.read(tmp_path / "out" / "bench.json").to_json() == board.to_json()


def test_facts_are_those_of_the_runs(tmp_path):
    board = run_bench(toy_plan(tmp_path, rows=("static", "superpixel", "sam2")))
    run_folder = RunFolder.open(tmp_path / "out" / "runs" / "noisy" / "sam2")
    windows = [window for clip in CLIPS for window in run_folder.finished_windows(clip)]
    facts = board.row("SAM2-noisy").facts
    # objects in the first frames of the windows: 3 at frames 0 and 4 of either clip
    assert facts["masklets"] == np.mean([len(window.masklets) for window in windows]) == 3
    assert facts["coverage"] == pytest.approx(np.mean([share for window in windows for share in window.coverage]))
    spent = sum(window.seconds["masklets"] + window.seconds["vote and paint"] for window in windows)
    assert facts["seconds"] == pytest.approx(spent / 12)
    assert board.row("superpixel-noisy").facts["coverage"] == 1
    assert board.row("static-noisy").facts.keys() == {"seconds"}  # it has no masklets
    assert board.row("noisy").facts == {}


def test_one_clip_says_so_and_has_no_interval(tmp_path):
    board = run_bench(toy_plan(tmp_path, only=["b"]))
    difference = board.row("SAM2-noisy").differences["mIoU"]
    assert (difference.clips, difference.interval) == (1, None)
    assert "1 clip, no interval" in str(difference)
    assert board.dataset == "toy (b)"
    assert [picture.caption.split(":")[0] for picture in board.pictures] == ["only clip"]


def test_a_finished_bench_is_not_done_again(tmp_path, tracker, monkeypatch):
    plan = toy_plan(tmp_path)
    board = run_bench(plan)
    starts = list(tracker.starts)
    assert starts == [0, 4, 0, 4]
    monkeypatch.setattr(scoring_module, "evaluate_folders", refuse)
    assert without_times(run_bench(plan, resume=True).to_json()) == without_times(board.to_json())
    assert tracker.starts == starts


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("this was done before")


def test_counts_serve_another_protocol_without_scoring_again(tmp_path, monkeypatch):
    run_bench(toy_plan(tmp_path))
    monkeypatch.setattr(scoring_module, "evaluate_folders", refuse)
    board = run_bench(toy_plan(tmp_path, protocol="strict"), resume=True)
    truth = {clip: toy.toy_labels(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    base = {clip: read_clip(tmp_path / "noisy" / clip) for clip in CLIPS}
    assert board.row("noisy").scores == count(base, truth).compute("strict").as_dict()
    assert board.protocol == "strict"


def test_an_interrupted_bench_goes_on_to_the_same_board(tmp_path, tracker):
    whole = run_bench(toy_plan(tmp_path))
    shutil.move(tmp_path / "out", tmp_path / "whole")

    def stop_at_the_second_clip(start: int) -> None:
        if len(tracker.starts) == before + 3:
            raise KeyboardInterrupt

    before = len(tracker.starts)
    tracker.on_window = stop_at_the_second_clip
    with pytest.raises(KeyboardInterrupt):
        run_bench(toy_plan(tmp_path))
    tracker.on_window = None
    assert not (tmp_path / "out" / "bench.json").exists()
    board = run_bench(toy_plan(tmp_path), resume=True)
    assert tracker.starts[before:] == [0, 4, 0, 4]  # no window twice
    assert without_times(board.to_json()) == without_times(whole.to_json())


def test_labels_that_changed_are_scored_anew(tmp_path):
    write_predictions(tmp_path / "other", share=0.0)
    plan = toy_plan(tmp_path, rows=(), compare={"other": tmp_path / "other"})
    assert run_bench(plan).row("other").scores["mIoU"] == 1
    path = tmp_path / "other" / "a" / "0000.png"
    Image.fromarray(3 - np.asarray(Image.open(path))).save(path)
    assert run_bench(plan, resume=True).row("other").scores["mIoU"] < 1


def test_labels_made_elsewhere_are_compared_with_the_only_model(tmp_path):
    write_predictions(tmp_path / "other", share=0.0)
    board = run_bench(toy_plan(tmp_path, rows=(), labels={"noisy": write_predictions(tmp_path / "noisy")},
                               compare={"I-SAM2": tmp_path / "other"}))  # fmt: skip
    row = board.row("I-SAM2")
    assert (row.kind, row.model, row.against) == ("other", "noisy", "noisy")
    assert row.differences["mIoU"].difference == pytest.approx(1 - board.row("noisy").scores["mIoU"])


def test_labels_made_elsewhere_stand_alone_beside_several_models(tmp_path):
    noisy, noisier = write_predictions(tmp_path / "noisy"), write_predictions(tmp_path / "noisier", 0.6)
    models = {"noisy": noisy, "noisier": noisier}
    board = run_bench(toy_plan(tmp_path, rows=("static",), labels=models, compare={"other": noisy}))
    assert board.models == ("noisy", "noisier", "other")
    assert [row.against for row in board.rows] == [None, "noisy", None, "noisier", None]
    assert board.row("static-noisier").scores["mIoU"] > board.row("noisier").scores["mIoU"]


class FakeModel(toy.NoisySegmenter):
    """A model with a place where its weights lie."""

    def __init__(self, folder: Path) -> None:
        super().__init__(0.4)
        self.location = ModelLocation("fake", folder)


@pytest.fixture
def fake_model(tmp_path, monkeypatch) -> FakeModel:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    model = FakeModel(folder)
    monkeypatch.setattr(rows_module, "load_segmenter", lambda name, device, dtype: model)
    return model


def test_a_model_predicts_once_and_all_rows_use_its_labels(tmp_path, fake_model):
    plan = toy_plan(tmp_path, rows=("static", "superpixel", "sam2"), segmenters={"fake": "org/fake"})
    board = run_bench(plan)
    assert fake_model.calls == 4  # windows of 4 + 1 and 4 + 3 frames
    truth = {clip: toy.toy_labels(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    stored = {clip: read_clip(tmp_path / "out" / "base" / "fake" / "labels" / clip) for clip in CLIPS}
    frames = {clip: toy.toy_frames(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    for clip in CLIPS:
        assert np.array_equal(stored[clip], FakeModel(tmp_path / "weights").predict(frames[clip]).labels)
        run_folder = RunFolder.open(tmp_path / "out" / "runs" / "fake" / "superpixel")
        assert np.array_equal(read_clip(run_folder.path / "base" / clip), stored[clip])
    assert board.row("fake").scores == count(stored, truth).compute().as_dict()
    assert board.row("fake").facts["seconds"] > 0
    assert board.row("fake").settings == {"segmenter": "org/fake"}
    assert run_bench(plan, resume=True).row("fake").scores == board.row("fake").scores
    assert fake_model.calls == 4


def test_a_model_whose_classes_cannot_be_scored_labels_nothing(tmp_path, fake_model, monkeypatch):
    monkeypatch.setattr(FakeModel, "label_space", LabelSpace.numbered(9), raising=False)
    with pytest.raises(RunError, match=r"fake: predictions have 9 classes, the truth 4"):
        run_bench(toy_plan(tmp_path, rows=(), segmenters={"fake": "org/fake"}))
    assert fake_model.calls == 0


def test_a_row_that_fails_is_named_and_the_others_are_made(tmp_path, monkeypatch):
    def fail(plan, row):
        if row == "superpixel":
            raise ShapeError("nothing fits")
        return NoTracker()

    monkeypatch.setattr(rows_module, "make_tracker", fail)
    said: list[str] = []
    board = run_bench(toy_plan(tmp_path, rows=("static", "superpixel", "sam2")), say=said.append)
    assert [row.name for row in board.rows] == ["noisy", "static-noisy", "SAM2-noisy"]
    assert board.warnings == ("superpixel-noisy failed (ShapeError): nothing fits",)
    assert said[2] == board.warnings[0]
    assert said[0].startswith(f"noisy: mIoU {100 * board.row('noisy').scores['mIoU']:.2f}")


def test_a_device_that_fails_is_named_too_and_a_bug_is_not_hidden(tmp_path, monkeypatch, caplog):
    def fail(plan, row):
        raise error

    monkeypatch.setattr(rows_module, "make_tracker", fail)
    error: Exception = RuntimeError("CUDA error: out of memory")
    board = run_bench(toy_plan(tmp_path, rows=("sam2",)))
    assert board.warnings == ("SAM2-noisy failed (RuntimeError): CUDA error: out of memory",)
    error = TypeError("a bug")
    with pytest.raises(TypeError, match="a bug"):
        run_bench(toy_plan(tmp_path, rows=("sam2",)), resume=True)


def test_a_model_without_labels_for_a_clip_fails_as_a_whole_and_others_go_on(tmp_path):
    models = {"part": write_predictions(tmp_path / "part", clips={"a": 5}), "noisy": write_predictions(tmp_path / "ok")}
    board = run_bench(toy_plan(tmp_path, rows=("static",), labels=models))
    assert [row.name for row in board.rows] == ["noisy", "static-noisy"]
    assert len(board.warnings) == 2
    assert board.warnings[0].startswith("part failed (LabelError): clip b has no label maps")
    assert board.warnings[1] == "part: no row was made, since it has no base labels"


def test_a_bench_without_any_row_is_an_error(tmp_path):
    part = write_predictions(tmp_path / "part", clips={"a": 5})
    with pytest.raises(RunError, match=r"no row could be made: part failed .*clip b has no label maps"):
        run_bench(toy_plan(tmp_path, labels={"part": part}))


def test_a_folder_in_use_is_refused_with_the_ways_on(tmp_path):
    plan = toy_plan(tmp_path, rows=())
    run_bench(plan)
    with pytest.raises(RunError, match="already holds a bench: go on with --resume"):
        run_bench(plan)
    with pytest.raises(RunError, match="give one of them"):
        run_bench(plan, resume=True, overwrite=True)
    run_bench(plan, overwrite=True)


def test_a_folder_of_others_is_not_written_into(tmp_path):
    plan = toy_plan(tmp_path)
    plan.out.mkdir()
    (plan.out / "mine.txt").write_text("mine")
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(RunError, match=r"holds no bench \(no plan.json in it\)"):
            run_bench(plan, **options)
    assert [path.name for path in plan.out.iterdir()] == ["mine.txt"]


def test_other_settings_are_refused_on_resume_and_more_rows_are_welcome(tmp_path):
    from sam2vss.settings import MaskletSettings

    run_bench(toy_plan(tmp_path, rows=("static", "sam2")))
    other = toy_plan(tmp_path, rows=("static", "sam2"), masklets=MaskletSettings(window=WINDOW, pred_iou=0.7))
    with pytest.raises(RunError, match="differs from the one asked for in rows: sam2"):
        run_bench(other, resume=True)
    with pytest.raises(RunError, match="differs from the one asked for in clips"):
        run_bench(toy_plan(tmp_path, only=["a"]), resume=True)
    moved = toy_plan(tmp_path, labels={"noisy": write_predictions(tmp_path / "moved")})
    with pytest.raises(RunError, match="differs from the one asked for in models: noisy"):
        run_bench(moved, resume=True)
    more = run_bench(toy_plan(tmp_path, rows=("superpixel",)), resume=True)
    assert [row.name for row in more.rows] == ["noisy", "superpixel-noisy"]
    with pytest.raises(RunError, match="rows: sam2"):  # what the folder holds is not forgotten
        run_bench(other, resume=True)


def test_overwriting_makes_every_row_anew(tmp_path, tracker):
    run_bench(toy_plan(tmp_path))
    run_bench(toy_plan(tmp_path), overwrite=True)
    assert tracker.starts == [0, 4, 0, 4] * 2


def test_progress_hears_of_every_frame_of_every_row(tmp_path):
    heard: list[tuple] = []

    class Bar:
        def __init__(self, name: str, frames: int) -> None:
            self.name = name
            heard.append((name, frames))

        def clip_started(self, name: str, num_frames: int | None) -> None: ...

        def frames_done(self, name: str, count: int) -> None:
            heard.append((self.name, name, count))

        def clip_finished(self, name: str) -> None: ...

        def row_finished(self, is_made: bool) -> None:
            heard.append((self.name, is_made))

    run_bench(toy_plan(tmp_path, rows=("static",)), progress=Bar)
    assert heard[:3] == [("noisy", 12), ("noisy", True), ("static-noisy", 12)]
    assert ("static-noisy", "b", 7) in heard
    assert heard[-1] == ("static-noisy", True)


def test_the_number_of_processes_must_be_positive(tmp_path):
    with pytest.raises(SettingsError, match="--workers must be at least 1, found 0"):
        run_bench(toy_plan(tmp_path), workers=0)


@pytest.mark.slow
def test_two_processes_give_the_same_board(tmp_path):
    rows = ("static", "superpixel")
    alone = run_bench(toy_plan(tmp_path, rows=rows))
    shutil.move(tmp_path / "out", tmp_path / "alone")
    together = run_bench(toy_plan(tmp_path, rows=rows), workers=2)
    assert without_times(together.to_json()) == without_times(alone.to_json())


def test_the_command_of_a_row_makes_its_labels_again(tmp_path, monkeypatch, capsys):
    board = run_bench(toy_plan(tmp_path, rows=("static", "superpixel")))
    for name in ("static", "superpixel"):
        words = shlex.split(board.row(f"{name}-noisy").command)
        assert words[:2] == ["sam2vss", "refine"]
        words[words.index("--out") + 1] = str(tmp_path / name)
        assert cli.run([*words[1:], "--no-report"]) == 0
        for clip in CLIPS:
            made = read_clip(tmp_path / "out" / "runs" / "noisy" / name / "labels" / clip)
            assert np.array_equal(read_clip(tmp_path / name / "labels" / clip), made)


def bench_words(tmp_path: Path, *more: str) -> list[str]:
    words = f"bench {tmp_path / 'data'} --labels noisy={tmp_path / 'noisy'} --out {tmp_path / 'out'}"
    return [*words.split(), *["--windows", "2", "--window", "4", "--sam2", "nano", "--device", "cpu"], *more]


def test_the_command_prints_the_table_and_writes_all_files(tmp_path, capsys):
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    assert cli.run(bench_words(tmp_path, "--rows", "static", "sam2", "--seed", "3")) == 0
    printed = capsys.readouterr().out
    board = Scoreboard.read(tmp_path / "out" / "bench.json")
    for row in board.rows:
        assert row.name in printed
        assert f"{100 * row.scores['mIoU']:.2f}" in printed
    for name in ("bench.csv", "bench.md", "bench.tex", "report.html"):
        assert (tmp_path / "out" / name).is_file()
        assert name in printed
    drawn = paired_bootstrap_of(tmp_path, seed=3)
    assert board.row("SAM2-noisy").differences["wIoU"] == drawn


def paired_bootstrap_of(tmp_path: Path, seed: int):
    truth = {clip: toy.toy_labels(toy.toy_objects(length)) for clip, length in CLIPS.items()}
    base = {clip: read_clip(tmp_path / "noisy" / clip) for clip in CLIPS}
    refined = {clip: read_clip(tmp_path / "out" / "runs" / "noisy" / "sam2" / "labels" / clip) for clip in CLIPS}
    return paired_bootstrap(count(base, truth).counts, count(refined, truth).counts, "wIoU", seed=seed)


def test_a_failed_row_is_an_incomplete_bench_under_strict_only(tmp_path, monkeypatch, capsys):
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    monkeypatch.setattr(rows_module, "make_smoother", raise_label_error)
    assert cli.run(bench_words(tmp_path, "--rows", "static")) == 0
    assert "warning static-noisy failed (LabelError): made to fail" in " ".join(capsys.readouterr().err.split())
    assert cli.run(bench_words(tmp_path, "--rows", "static", "--resume", "--strict")) == 3


def raise_label_error(row, base):
    raise LabelError("made to fail")


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stdout, "_width", 200)
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    assert cli.run(bench_words(tmp_path, "--rows", "flow", "superpixel", "--dry-run")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "noisy" in line]
    assert [line.split()[1] for line in lines] == ["noisy", "flow-noisy", "superpixel-noisy"]
    assert all(" 12 " in line for line in lines)  # 5 + 7 frames
    assert "to be scored" in lines[0]
    assert "to be made" in lines[2]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_calls_a_model_a_segmenter_and_checks_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stdout, "_width", 200)
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    words = bench_words(tmp_path, "--rows", "flow", "--dry-run", "--segmenter")
    assert cli.run([*words, "org/name"]) == 0
    assert "segmenter org/name" in capsys.readouterr().out
    for name, message in (
        ("nosuch.pth", "there is no file nosuch.pth"),
        ("segformer-nano", "segformer-nano: predictions have 10 classes, the truth 4"),
    ):
        assert cli.run([*words, name]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_dry_run_with_sam2_says_what_it_costs(tmp_path, capsys):
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    assert cli.run(bench_words(tmp_path, "--rows", "sam2", "--dry-run")) == 0
    printed = capsys.readouterr().out
    assert "40 masklets" in printed
    assert "SAM2-noisy" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "magic"], "magic"),
        (["--labels", "x="], "is neither NAME=VALUE nor VALUE"),
        (["--labels", "noisy=elsewhere"], "gives the name noisy twice"),
        (["--compare", "elsewhere"], "label folder elsewhere does not exist"),
        (["--segmenter", "noisy=org/other"], "two rows would be called noisy"),
        (["--protocol", "dvis-compat", "--curve"], "has no curve"),
    ],
)
def test_wrong_words_are_answered_with_one_message(tmp_path, capsys, words, message):
    write_data(tmp_path / "data")
    write_predictions(tmp_path / "noisy")
    assert cli.run(bench_words(tmp_path, *words)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.dataset
@pytest.mark.slow
def test_the_controls_on_camvid_score_what_they_scored_one_by_one(tmp_path, shared_data):
    """Against docs/results.md, whose rows were made by `refine` and `evaluate`, in percent with two digits."""
    labels = {"unet": shared_data / "camvid_predictions"}
    rows = ("static", "flow", "superpixel")
    plan = plan_bench(shared_data / "camvid", tmp_path / "out", labels=labels, rows=rows, only=["0016E5_15hz_a"])
    board = run_bench(plan)
    found = {row.name: tuple(round(100 * row.scores[name], 2) for name in HEADLINE) for row in board.rows}
    assert found == {
        "unet": (50.92, 83.02, 28.22, 92.56, 90.34),
        "static-unet": (50.88, 83.21, 27.95, 95.12, 93.43),
        "flow-unet": (51.56, 84.01, 28.13, 94.73, 93.42),
        "superpixel-unet": (51.73, 84.82, 29.22, 96.29, 96.34),
    }
    assert board.warnings == ()


@pytest.mark.slow
def test_the_bundled_weights_refine_synthetic_clips_by_the_real_command(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # the real tracker
    export_vspw(tmp_path / "data", VALIDATION_SEEDS[:2], 6, (96, 128))
    words = f"bench {tmp_path / 'data'} --segmenter segformer-nano --sam2 nano --points 8 --device cpu --windows 2 4"
    assert cli.run([*words.split(), "--out", str(tmp_path / "out")]) == 0
    board = Scoreboard.read(tmp_path / "out" / "bench.json")
    assert [row.kind for row in board.rows] == ["base", "control", "control", "control", "refined"]
    assert board.row("SAM2-segformer-nano").facts["masklets"] > 1
    for row in board.rows:
        labels = "base/segformer-nano" if row.kind == "base" else f"runs/segformer-nano/{NAMES[row.name.split('-')[0]]}"
        scored = evaluate_folders(tmp_path / "data", tmp_path / "out" / labels, LABEL_SPACE, windows=(2, 4))
        assert scored.scores.as_dict() == row.scores


def test_a_folder_that_another_process_writes_into_is_refused(tmp_path, monkeypatch):
    from sam2vss.bench.folder import locked

    plan = toy_plan(tmp_path, rows=())
    run_bench(plan)
    board = (plan.out / "bench.json").read_bytes()
    with locked(plan.out):
        monkeypatch.setattr("sam2vss.files._is_stale", lambda path: False)  # the lock is this process's own
        with pytest.raises(RunError, match="another run writes into"):
            run_bench(plan, resume=True)
    assert (plan.out / "bench.json").read_bytes() == board
    run_bench(plan, resume=True)
    assert not (plan.out / ".lock").exists()


def test_overwriting_asks_for_a_plan_of_ours(tmp_path):
    plan = toy_plan(tmp_path, rows=())
    (plan.out / "runs").mkdir(parents=True)
    (plan.out / "runs" / "mine.txt").write_text("mine")
    for content in ("{}", "[", "[1]", '{"package": "other"}'):
        (plan.out / "plan.json").write_text(content)
        with pytest.raises(RunError, match="is not that of a bench, so nothing there is overwritten"):
            run_bench(plan, overwrite=True)
    assert (plan.out / "runs" / "mine.txt").read_text() == "mine"


def test_a_bench_that_was_overwritten_in_part_goes_on_with_its_own_settings(tmp_path, monkeypatch):
    from sam2vss.settings import VoteSettings

    run_bench(toy_plan(tmp_path, rows=("static", "superpixel")))
    other = toy_plan(tmp_path, rows=("static", "superpixel"), votes=VoteSettings(vote="frame"))
    with monkeypatch.context() as patched:
        patched.setattr("sam2vss.bench.run.make_row", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_bench(other, overwrite=True)
    assert [row.name for row in run_bench(other, resume=True).rows] == ["noisy", "static-noisy", "superpixel-noisy"]


def _interrupt(*args, **options):
    raise KeyboardInterrupt


def test_overwriting_does_not_remove_labels_that_are_asked_for(tmp_path):
    plan = toy_plan(tmp_path, rows=("static",))
    run_bench(plan)
    made = plan.out / "runs" / "noisy" / "static" / "labels"
    with pytest.raises(RunError, match="--overwrite would remove the labels"):
        run_bench(toy_plan(tmp_path, rows=(), compare={"made": made}), overwrite=True)
    assert list(made.rglob("*.png"))


def test_a_bench_inside_its_label_folder_goes_on(tmp_path):
    plan = replace(toy_plan(tmp_path, rows=("static",)), out=tmp_path / "noisy" / "bench")
    first = run_bench(plan)
    again = run_bench(plan, resume=True)
    assert again.warnings == first.warnings
    assert len(again.rows) == 2


def test_a_process_that_dies_is_an_error_with_the_way_on(tmp_path, monkeypatch):
    from concurrent.futures import Future
    from concurrent.futures.process import BrokenProcessPool

    class Broken:
        def __init__(self, *args, **options):
            pass

        def submit(self, *args):
            future = Future()
            future.set_exception(BrokenProcessPool("killed"))
            return future

        def shutdown(self, cancel_futures):
            pass

    monkeypatch.setattr("sam2vss.bench.run.ProcessPoolExecutor", Broken)
    with pytest.raises(RunError, match="go on with --resume, with fewer --workers"):
        run_bench(toy_plan(tmp_path, rows=()), workers=2)
