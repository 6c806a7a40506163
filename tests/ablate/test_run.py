import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2vss.ablate.folder import open_folder
from sam2vss.ablate.grid import GridFile, Point, built_in_grid, expand
from sam2vss.ablate.plan import plan_ablation
from sam2vss.ablate.run import run_ablation
from sam2vss.boards.scoreboard import Scoreboard
from sam2vss.cli import run as run_command
from sam2vss.datasets.synthetic import LABEL_SPACE, VALIDATION_SEEDS, export_vspw
from sam2vss.errors import LabelError, MediaError, MissingPredictionsError, RunError, SettingsError
from sam2vss.evaluate import evaluate_folders
from sam2vss.images import write_label_map
from sam2vss.segmenters import find_segmenter
from sam2vss.types import LabelSpace
from toy import no_waiting_for_the_disk

NUM_FRAMES, SIDE = 5, 64
GRID = """
base: {window: 3, points: 4, pred_iou: 0.3, stability: 0.3, stability_offset: 0.5}
axes:
  window: [2, 3]
  pred_iou: [0.3, 0.7]
  vote: [window, frame]
titles: {window: Window length}
"""


def grid_of(text=GRID):
    import yaml

    return expand([("grid.yaml", GridFile.model_validate(yaml.safe_load(text)))])


@pytest.fixture(scope="module", autouse=True)
def _quick():
    torch.set_num_threads(1)
    with no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two clips in VSPW's layout, and base labels that are the truth moved by two pixels."""
    root = tmp_path_factory.mktemp("data") / "toy"
    export_vspw(root, VALIDATION_SEEDS[:2], NUM_FRAMES, (48, 64))
    for file in sorted((root / "data").glob("*/mask/*.png")):
        from sam2vss.images import read_label_map

        labels = np.roll(read_label_map(file, LABEL_SPACE), 2, axis=1)
        write_label_map(root.parent / "labels" / file.parts[-3] / file.name, labels, LABEL_SPACE)
    return root


def plan_of(data, out, grid=None, **options):
    options = {"labels": data.parent / "labels", "image_size": (SIDE, SIDE), "windows": (2, 4), **options}
    return plan_ablation(data, out, grid=grid or grid_of(), sam2="nano", device="cpu", **options)


@pytest.fixture(scope="module")
def board(data, tmp_path_factory):
    return run_ablation(plan_of(data, tmp_path_factory.mktemp("run") / "out"), command="sam2vss ablate")


def scores(board):
    return {row.name: dict(row.scores) for row in board.rows}


def content(board):
    """All of a board but the work, which an interruption adds to."""
    return {key: value for key, value in board.to_json().items() if key != "work"}


def test_a_board_has_the_base_labels_the_default_and_one_row_a_point(board, data):
    assert [row.name for row in board.rows] == ["labels", "default", "window 2", "pred_iou 0.7", "vote frame"]
    assert [row.kind for row in board.rows] == ["base", *["refined"] * 4]
    assert board.row("default").against == "labels"
    assert board.row("vote frame").against == "default"
    assert board.clips == 2
    assert board.frames == 2 * NUM_FRAMES
    difference = board.row("window 2").differences["mIoU"]
    assert difference.clips == 2
    assert difference.interval is not None
    expected = board.row("window 2").scores["mIoU"] - board.row("default").scores["mIoU"]
    assert difference.difference == pytest.approx(expected, abs=1e-12)


def test_base_labels_are_scored_as_evaluate_does(board, data):
    expected = evaluate_folders(data, data.parent / "labels", LABEL_SPACE, windows=(2, 4))
    assert scores(board)["labels"] == pytest.approx(expected.scores.as_dict())


def test_refined_labels_are_scored_as_refine_and_evaluate_do(board, data, tmp_path):
    row = board.row("pred_iou 0.7")
    words = row.command.split()
    words[words.index("--out") + 1] = str(tmp_path / "run")
    words += ["--no-overlay", "--no-report"]

    assert run_command(words[1:]) == 0

    expected = evaluate_folders(data, tmp_path / "run", LABEL_SPACE, windows=(2, 4))
    assert dict(row.scores) == pytest.approx(expected.scores.as_dict(), abs=1e-3)  # chunks of 16 objects there
    assert words[words.index("--pred-iou") + 1] == "0.7"
    assert words[words.index("--window") + 1] == "3"


def test_axes_name_their_rows_and_their_default(board):
    window, pred_iou, vote = board.axes
    assert (window.setting, window.values, window.rows, window.default) == (
        "window", (2, 3), ("window 2", "default"), 3,
    )  # fmt: skip
    assert window.title == "Window length"
    assert pred_iou.rows == ("default", "pred_iou 0.7")
    assert vote.rows == ("default", "vote frame")


def test_the_board_survives_json(board):
    stored = json.loads(json.dumps(board.to_json()))
    assert Scoreboard.from_json(stored).to_json() == board.to_json()


def test_what_the_cache_saved_is_counted(board):
    encoded_done, encoded_needed = board.work["frames encoded"]
    assert (encoded_done, encoded_needed) == (2 * NUM_FRAMES, 4 * 2 * NUM_FRAMES)
    # 4 x 4 on frames 0, 2, 3, 4 of 2 clips; windows of 3 and 3 and 3 begin twice, of 2 three times
    assert board.work["points prompted"] == (2 * 4 * 16, 2 * 16 * (2 + 2 + 2 + 3))


def test_facts_say_how_many_masklets_and_how_much_is_covered(board):
    facts = board.row("default").facts
    assert 1 < facts["masklets"] < 48
    assert 0 < facts["coverage"] <= 1


def test_a_folder_is_not_touched_without_a_word(data, board, tmp_path):
    out = tmp_path / "out"
    first = run_ablation(plan_of(data, out, grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")))
    with pytest.raises(RunError, match="holds an ablation already: pass --resume to go on, or --overwrite"):
        run_ablation(plan_of(data, out))
    with pytest.raises(RunError, match="another image_size"):
        run_ablation(plan_of(data, out, image_size=(96, 96)), resume=True)
    with pytest.raises(SettingsError, match="pass one of them"):
        run_ablation(plan_of(data, out), resume=True, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no ablation: choose another --out"):
        run_ablation(plan_of(data, tmp_path / "other"), overwrite=True)
    assert (tmp_path / "other" / "notes.txt").exists()
    assert first.row("vote frame")


def test_another_grid_goes_on_and_does_only_what_is_new(data, board, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_ablation(plan_of(data, out, grid_of(GRID.replace("  vote: [window, frame]\n", "").replace("0.7", "0.5"))))
    from sam2vss.ablate import frame_cache

    encoded = []
    encode = frame_cache.encode_ahead

    def counted(network, frames):
        encoded.extend(frames)
        return encode(network, frames)

    monkeypatch.setattr(frame_cache, "encode_ahead", counted)

    again = run_ablation(plan_of(data, out), resume=True)

    assert content(again)["rows"] == [
        {**row, "command": row["command"].replace(str(board_out(board)), str(out))} for row in content(board)["rows"]
    ]
    # pred_iou 0.7 is new and needs the features of the frames 0 and 3; the votes per frame need nothing
    assert len(encoded) <= 2 * 2


def board_out(board):
    return Path(board.row("default").command.split()[2]).parent


def test_a_clip_that_changed_is_noticed(data, tmp_path):
    out = tmp_path / "out"
    small = grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")
    run_ablation(plan_of(data, out, small, only=["synthetic_100000"]))
    info = json.loads((out / "sweep.json").read_text())
    info["truth"]["synthetic_100000"] = "other"
    (out / "sweep.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="the truth of clip synthetic_100000 changed"):
        run_ablation(plan_of(data, out, small), resume=True)


def test_one_clip_says_so(data, tmp_path):
    small = grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")
    board = run_ablation(plan_of(data, tmp_path / "out", small, only=["synthetic_100001"]))
    difference = board.row("vote frame").differences["mIoU"]
    assert difference.interval is None
    assert "1 clip, no interval" in str(difference)


def test_stored_labels_leave_out_points_with_probabilities_and_say_so(data, tmp_path):
    plan = plan_of(data, tmp_path, built_in_grid(("ours",)))
    assert plan.left_out == ("vote_weight probability",)
    assert not plan.wants_probabilities


def test_labels_of_other_classes_are_refused(data, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "label_set.json").write_text('{"classes": [{"id": 0, "name": "cat"}]}')
    with pytest.raises(LabelError, match="have 1 classes and the truth 10: class 0 is 'cat' there and 'sky'"):
        plan_of(data, tmp_path / "out", labels=labels)


def test_truth_without_its_frame_is_refused(data, tmp_path):
    root = tmp_path / "toy"
    export_vspw(root, VALIDATION_SEEDS[:1], 2, (48, 64))
    (root / "data" / "synthetic_100000" / "origin" / "00000001.jpg").unlink()
    small = grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")
    with pytest.raises(MissingPredictionsError, match=r"1 of 2 label maps of clip synthetic_100000 have no frame"):
        run_ablation(plan_of(root, tmp_path / "out", small, labels=root / "data"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "no.yaml", "--labels", "{labels}"], "cannot read the grid"),
        (["--grid", "no.yaml", "--tables", "4"], "--grid and --tables both"),
        (["--labels", "{labels}", "--segmenter", "x"], "--labels and --segmenter both"),
        (["--labels", "nowhere"], "--labels nowhere does not exist"),
        (["--labels", "{labels}", "--only", "none"], "none"),
        (["--labels", "{labels}", "--workers", "0", "--sam2", "nano"], "--workers is 0"),
        (["--labels", "{labels}", "--image-size", "100"], "multiples of 32"),
        (["--segmenter", "nosuch.pth", "--dry-run"], "there is no file nosuch.pth"),
        (["--segmenter", "cffm-b1", "--dry-run"], "cffm-b1 names a network, not its weights"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(data, tmp_path, capsys, words, message):
    filled = [word.replace("{labels}", str(data.parent / "labels")) for word in words]
    assert run_command(["ablate", str(data), "--out", str(tmp_path / "out"), *filled]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_model_of_other_classes_than_the_truth_is_refused_before_work(data, tmp_path):
    truth = LabelSpace.numbered(10)
    with pytest.raises(LabelError, match=r"the labels of segformer-nano have 10 classes and the truth 10: class 0 is"):
        plan_of(data, tmp_path / "out", labels=None, segmenter="segformer-nano", label_set=truth)


def test_a_dry_run_says_what_is_shared_and_writes_nothing(data, tmp_path, capsys):
    words = ["ablate", str(data), "--out", str(tmp_path / "out"), "--labels", str(data.parent / "labels"), "--sam2"]
    assert run_command([*words, "nano", "--tables", "4", "5", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "window 10" in shown
    assert "points 64" in shown
    assert "frames encoded" in shown
    assert f"labels    {data.parent / 'labels'}" in shown
    assert run_command([*words[:4], "--segmenter", "segformer-nano", *words[6:], "nano", "--dry-run"]) == 0
    assert "segmenter segformer-nano" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_command_prints_tables_and_writes_files_and_goes_on(data, tmp_path, capsys):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text("base: {window: 5, points: 2}\naxes: {vote: [window, frame]}")
    words = command_of(data, out, grid)[3:]

    assert run_command(words) == 0

    shown = capsys.readouterr().out
    assert "vote" in shown
    assert "frames encoded" in shown
    for name in ("ablate.json", "ablate.csv", "ablate.tex", "ablate.md", "report.html"):
        assert (out / name).is_file()
        assert name in shown.replace("\n", "")
    board = Scoreboard.read(out / "ablate.json")
    assert board.rows[0].name == "labels"
    assert run_command(words) == 2
    assert "pass --resume to go on" in " ".join(capsys.readouterr().err.split())
    assert run_command([*words, "--resume"]) == 0
    assert content(Scoreboard.read(out / "ablate.json"))["rows"] == content(board)["rows"]


def command_of(data, out, grid):
    words = [
        sys.executable,
        "-m",
        "sam2vss",
        "ablate",
        str(data),
        "--out",
        str(out),
        "--sam2",
        "nano",
        "--windows",
        "2",
    ]
    return [*words, "4", "--labels", str(data.parent / "labels"), "--image-size", str(SIDE), "--grid", str(grid)]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_board_bit_for_bit(data, board, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(GRID)
    for wanted in (1, 3):  # killed after so many first frames
        process = subprocess.Popen([*command_of(data, out, grid), "--resume"], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.rglob("work/*/*.json"))) < wanted:
            time.sleep(0.02)
        assert process.poll() is None, "it should not have ended by itself"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command_of(data, out, grid), "--resume"], check=True, capture_output=True)
    found = Scoreboard.read(out / "ablate.json")
    assert scores(found) == scores(board)
    for row, expected in zip(found.rows, board.rows, strict=True):
        assert row.differences == expected.differences
        assert row.facts == expected.facts


@pytest.mark.slow
def test_several_processes_make_the_same_board(data, board, tmp_path):
    plan = plan_of(data, tmp_path / "out")
    seen = []
    found = run_ablation(plan, workers=2, progress=lambda done, total, clip: seen.append((done, total, clip)))
    assert scores(found) == scores(board)
    assert found.work == board.work
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    assert {clip for _, _, clip in seen} == set(plan.data.names)


def test_progress_ends_at_the_whole(data, tmp_path):
    seen = []
    small = grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")
    run_ablation(plan_of(data, tmp_path / "out", small), progress=lambda done, total, clip: seen.append((done, total)))
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    assert seen == sorted(seen)


def test_published_figures_stand_beside_points_with_the_paper_s_settings(tmp_path):
    from sam2vss.ablate.board import find_figures

    grid = built_in_grid(("4", "6"))
    by_name = {grid.name_of(point): find_figures(point) for point in grid.points}
    assert by_name["window 1"].values["mVC16"] == 0.839
    assert "Table 4" in by_name["window 1"].source
    assert by_name["pred_iou 0.9"].values["mIoU"] == 0.398
    assert by_name["default"].values["mIoU"] == 0.404
    assert find_figures(Point(window=1, points=8)) is None
    assert find_figures(Point(vote="frame")) is None


def test_a_label_folder_named_like_a_point_gives_rows_of_different_names(data, tmp_path):
    for name in ("default", "pred_iou 0.7"):
        shutil.copytree(data.parent / "labels", tmp_path / name)
        assert plan_of(data, tmp_path / "out", labels=tmp_path / name).model == f"{name} (labels)"
    assert plan_of(data, tmp_path / "out").model == "labels"


def test_labels_of_a_run_are_called_as_the_run(data, tmp_path):
    shutil.copytree(data.parent / "labels", tmp_path / "unet" / "labels")
    shutil.copy(data / "label_set.json", tmp_path / "unet" / "labels")
    (tmp_path / "unet" / "run.json").write_text("{}")
    assert plan_of(data, tmp_path / "out", labels=tmp_path / "unet").model == "unet"


def test_the_room_for_candidates_is_a_number(data, tmp_path):
    for room in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="--candidate-gb is"):
            plan_of(data, tmp_path / "out", candidate_gb=room)


def test_overwriting_asks_for_a_sweep_of_ours(data, tmp_path):
    out = tmp_path / "out"
    (out / "cache").mkdir(parents=True)
    (out / "cache" / "mine.txt").write_text("mine")
    for content in ("{}", "[", "[1]", '{"command": "train", "format_version": 1, "clips": {}, "truth": {}}'):
        (out / "sweep.json").write_text(content)
        with pytest.raises(RunError, match="so nothing there is touched: choose another --out"):
            run_ablation(plan_of(data, out), overwrite=True)
    assert (out / "cache" / "mine.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is a file, expected a folder"):
        run_ablation(plan_of(data, tmp_path / "file"))


def test_damaged_files_of_a_sweep_are_named_with_the_way_on_and_then_made_again(data, tmp_path):
    out, small = tmp_path / "out", grid_of("axes: {vote: [frame]}\nbase: {window: 5, points: 2}")
    first = run_ablation(plan_of(data, out, small))
    tally = next(path for path in sorted((out / "counts").rglob("*.npz")) if path.stem != "base")
    tally.write_bytes(tally.read_bytes()[:50])
    with pytest.raises(RunError, match="delete this file and go on with --resume"):
        run_ablation(plan_of(data, out, small), resume=True)
    tally.unlink()
    label_map = next((out / "cache" / "labels" / "none" / tally.parent.name).glob("*.png"))
    label_map.write_bytes(label_map.read_bytes()[:20])
    with pytest.raises(MediaError, match=r"Remove the folders .*labels/\*/.* and go on with --resume"):
        run_ablation(plan_of(data, out, small), resume=True)
    shutil.rmtree(label_map.parent)
    assert scores(run_ablation(plan_of(data, out, small), resume=True)) == scores(first)


def test_published_figures_do_not_stand_beside_another_data_set_split_or_model(data, tmp_path):
    from dataclasses import replace

    from sam2vss.ablate.board import is_the_papers

    shutil.copytree(data.parent / "labels", tmp_path / "CFFM_MiT-B1")
    plan = plan_of(data, tmp_path / "out", labels=tmp_path / "CFFM_MiT-B1")
    assert not is_the_papers(plan)  # a toy data set
    vspw = replace(plan, data=replace(plan.data, name="VSPW", split="val", clips=()))
    assert is_the_papers(vspw)
    assert not is_the_papers(replace(vspw, labels=data.parent / "labels"))
    for other in ({"name": "VIPSeg"}, {"split": "train"}, {"is_subset": True}):
        assert not is_the_papers(replace(vspw, data=replace(vspw.data, **other)))


def test_a_model_with_other_weights_is_another_base_model(data, tmp_path):
    copies = [tmp_path / name / "model" for name in ("one", "two")]
    for folder in copies:
        shutil.copytree(find_segmenter("segformer-nano").path, folder)
    weights = copies[1] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    model = {"labels": None, "segmenter": str(copies[0])}
    open_folder(plan_of(data, tmp_path / "out", **model), resume=False, overwrite=False)
    shutil.rmtree(copies[0])
    copies[1].rename(copies[0])  # the same name, other weights
    with pytest.raises(RunError, match="was made with another labels"):
        open_folder(
            plan_of(data, tmp_path / "out", labels=None, segmenter=str(copies[0])), resume=True, overwrite=False
        )
