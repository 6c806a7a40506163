"""From scored rows to a board: published figures, columns, warnings, pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import toy
from sam2vss.artifacts import RunFolder
from sam2vss.bench import plan_bench, run_bench
from sam2vss.bench import rows as rows_module
from sam2vss.bench.board import shown_statistics
from sam2vss.bench.pictures import in_colors_of
from sam2vss.boards.published import find_published
from sam2vss.errors import RunError
from sam2vss.overlay import draw_overlay
from sam2vss.types import LabelSpace
from toy_bench import CLIPS, read_clip, toy_plan, write_data, write_predictions


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch):
    real = rows_module.make_tracker
    exact = toy.ExactTracker()
    monkeypatch.setattr(rows_module, "make_tracker", lambda plan, row: exact if row == "sam2" else real(plan, row))
    with toy.no_waiting_for_the_disk():
        yield


def published_of(tmp_path, name: str = "VIPSeg", **options) -> dict[str, object]:
    write_data(tmp_path / "data", name=name)
    noisy = write_predictions(tmp_path / "noisy")
    options = {"labels": {"DVIS++-R50": noisy}, "compare": {"SAM2-CAVIS": noisy}} | options
    return {row.name: row.published for row in run_bench(toy_plan(tmp_path, **options)).rows}


def test_published_figures_stand_beside_rows_of_the_same_name(tmp_path):
    found = published_of(tmp_path)
    assert found == {
        "DVIS++-R50": find_published("VIPSeg", "DVIS++ R50"),
        "static-DVIS++-R50": None,  # the paper has no controls
        "SAM2-DVIS++-R50": find_published("VIPSeg", "SAM2-DVIS++"),
        "SAM2-CAVIS": find_published("VIPSeg", "SAM2-CAVIS"),
    }
    assert found["SAM2-DVIS++-R50"].values == {"mIoU": 0.5, "mBIoU": 0.57, "mVC8": 0.863, "mVC16": 0.801}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("toy", {}),  # another data set
        ("VIPSeg", {"only": ["a"]}),  # clips by name
        ("VIPSeg", {"split": "val", "only": ["a"]}),  # a part of the split
        ("VIPSeg", {"split": "train"}),  # another split
        ("VSPW", {"labels": {}, "compare": {"I-SAM2": None}}),  # frames of another height than 480
    ],
)
def test_published_figures_do_not_stand_beside_what_was_scored_on_something_else(tmp_path, name, options):
    write_data(tmp_path / "data", name=name, split="train")
    if "compare" in options:
        options = {**options, "compare": {"I-SAM2": write_predictions(tmp_path / "noisy")}}
    assert set(published_of(tmp_path, name, rows=(), **options).values()) == {None}


def test_tables_show_the_papers_columns_and_all_boundary_scores_on_request(tmp_path):
    board = run_bench(toy_plan(tmp_path, rows=(), boundary="full", windows=(2, 4)))
    assert board.statistics[:5] == ("mIoU", "wIoU", "mBIoU", "mVC2", "mVC4")
    assert set(board.statistics[5:]) == {name for name in board.rows[0].scores if name.startswith("boundary_")}
    assert len(board.statistics) > 6
    many = toy_plan(tmp_path, rows=(), windows=range(2, 33))
    assert shown_statistics(many, {}) == ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
    assert shown_statistics(toy_plan(tmp_path, rows=(), windows=(2, 3, 4, 5, 6)), {})[3:] == ("mVC2", "mVC6")


def test_the_whole_curve_is_on_the_board(tmp_path):
    board = run_bench(toy_plan(tmp_path, rows=("static",), windows=range(2, 7)))
    assert list(board.rows[1].vc_curve) == [2, 3, 4, 5, 6]


def test_a_faulty_protocol_says_so(tmp_path):
    assert "mistake" in run_bench(toy_plan(tmp_path, rows=(), protocol="dvis-compat")).protocol_note
    assert run_bench(toy_plan(tmp_path, rows=()), resume=True).protocol_note == ""


def test_what_was_noted_is_said_with_the_rows_it_concerns(tmp_path):
    write_data(tmp_path / "data")
    noisy = write_predictions(tmp_path / "noisy")
    odd = write_predictions(tmp_path / "odd")
    path = odd / "a" / "0000.png"
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    board = run_bench(toy_plan(tmp_path, rows=(), labels={"noisy": noisy}, compare={"odd": odd}))
    assert len(board.warnings) == 1
    # one of 12 frames is unlabelled: 8.33 %
    assert board.warnings[0].startswith("odd: 8.33 % of the labelled pixels have no class")
    both = run_bench(toy_plan(tmp_path, rows=(), labels={"odd": odd}, compare={"again": odd}), overwrite=True)
    assert both.warnings == (board.warnings[0].removeprefix("odd: "),)


def test_the_best_and_the_worst_clip_are_shown_by_their_most_changed_frame(tmp_path):
    """The predictions come with colours of their own, and are shown in the truth's."""
    own_colors = replace(toy.CLASSES, palette=toy.CLASSES.palette[::-1])
    (write_predictions(tmp_path / "noisy") / "label_set.json").write_text(json.dumps(own_colors.to_dict()))
    board = run_bench(toy_plan(tmp_path, rows=("static", "sam2")))
    base, refined = board.row("noisy").per_clip, board.row("SAM2-noisy").per_clip
    gains = {clip: refined[clip]["mIoU"] - base[clip]["mIoU"] for clip in CLIPS}
    best, worst = board.pictures
    assert (best.clip, worst.clip) == (max(gains, key=gains.get), min(gains, key=gains.get))
    assert best.clip != worst.clip
    assert best.caption.startswith(f"best clip: {100 * gains[best.clip]:+.2f} mIoU by SAM2-noisy")
    before = read_clip(tmp_path / "noisy" / best.clip)
    after = read_clip(tmp_path / "out" / "runs" / "noisy" / "sam2" / "labels" / best.clip)
    t = int(np.argmax((before != after).mean(axis=(1, 2))))
    assert best.frame == f"{t:04d}"
    assert list(best.panels) == ["frame", "truth", "noisy", "SAM2-noisy"]
    shown = {name: np.asarray(Image.open(tmp_path / "out" / place)) for name, place in best.panels.items()}
    objects = toy.toy_objects(CLIPS[best.clip])
    image = toy.toy_frames(objects)[t]
    assert np.array_equal(shown["frame"], image)
    truth = toy.toy_labels(objects)[t]
    for name, labels in (("truth", truth), ("noisy", before[t]), ("SAM2-noisy", after[t])):
        assert np.array_equal(shown[name], draw_overlay(image, labels, toy.CLASSES)), name


def test_classes_are_coloured_as_they_are_scored():
    truth = LabelSpace(("sky", "road"), np.array([[1, 1, 1], [2, 2, 2]], np.uint8))
    more = LabelSpace(("car", "road", "sky"), np.array([[9, 9, 9], [8, 8, 8], [7, 7, 7]], np.uint8))
    assert in_colors_of(truth, more).palette[:, 0].tolist() == [9, 2, 1]  # by name; cars keep their colour
    other = LabelSpace(("heaven", "street"), np.array([[9, 9, 9], [8, 8, 8]], np.uint8))
    assert in_colors_of(truth, other).palette[:, 0].tolist() == [1, 2]  # by position


def test_without_sam2_the_last_control_is_shown_and_without_rows_nothing(tmp_path):
    board = run_bench(toy_plan(tmp_path, rows=("static", "superpixel")))
    assert list(board.pictures[0].panels)[-1] == "superpixel-noisy"
    assert run_bench(toy_plan(tmp_path, rows=()), resume=True).pictures == ()


def test_a_board_says_with_what_and_on_which_device_it_was_made(tmp_path):
    board = run_bench(toy_plan(tmp_path, rows=("static",)), command="sam2vss bench ...")
    assert (board.versions["device"], board.versions["dtype"]) == ("cpu", "float32")
    assert {"torch", "numpy", "sam2vss"} <= board.versions.keys()
    assert (board.kind, board.title, board.command) == ("bench", "noisy on toy val", "sam2vss bench ...")
    assert RunFolder.open(tmp_path / "out" / "runs" / "noisy" / "static").info["status"] == "done"


@pytest.fixture
def vspw(tmp_path) -> None:
    """A clip as VSPW has them in `vspw`: 480 pixels high, classes from 1, void 0 and 255; right predictions, classes
    from 0, in `cffm`."""
    size = (480, 40)
    toy.write_toy_frames(tmp_path / "vspw" / "data" / "a" / "origin", 4, size)
    truth = toy.toy_labels(toy.toy_objects(4, size)) + 10
    truth[:, :3], truth[:, 3:6] = 0, 255
    predicted = np.where(truth % 255 == 0, 7, truth - 1).astype(np.uint8)  # void may be anything
    for folder, maps in ((tmp_path / "vspw" / "data" / "a" / "mask", truth), (tmp_path / "cffm" / "a", predicted)):
        folder.mkdir(parents=True)
        for t, labels in enumerate(maps):
            Image.fromarray(labels).save(folder / f"{t:04d}.png")
    (tmp_path / "vspw" / "val.txt").write_text("a")


def test_predictions_from_0_on_are_scored_on_vspw_with_an_offset_of_1(tmp_path, vspw):
    options = {"rows": ("superpixel", "sam2"), "windows": (2,), "sam2": "nano", "device": "cpu"}
    options["labels"] = {"cffm-b0": tmp_path / "cffm"}
    board = run_bench(plan_bench(tmp_path / "vspw", tmp_path / "out", id_offset=1, **options))
    assert board.dataset == "VSPW_480p val"
    assert board.row("cffm-b0").scores["mIoU"] == 1
    assert board.row("SAM2-cffm-b0").scores["mIoU"] == 1  # exact masklets of a right base
    assert board.row("cffm-b0").published.values["mIoU"] == 0.354
    assert board.row("SAM2-cffm-b0").published.values["mIoU"] == 0.367
    assert board.row("superpixel-cffm-b0").published is None
    with pytest.raises(RunError, match=r"Pass --id-offset=1"):
        run_bench(plan_bench(tmp_path / "vspw", tmp_path / "without", **options))
