"""What a bench is asked to do: names, clips, label sets, and options that do not go together."""

import json
from pathlib import Path

import numpy as np
import pytest

import toy
from panoptic_files import write_dvis, write_ids
from sam2vss.bench import ROWS, plan_bench
from sam2vss.bench.recipes import row_command, row_settings
from sam2vss.bench.tasks import model_name, row_name
from sam2vss.datasets.label_sets import shift_ids
from sam2vss.errors import LabelError, MediaError, SettingsError
from sam2vss.settings import FollowSettings, MaskletSettings, VoteSettings
from sam2vss.types import LabelSpace
from toy_bench import toy_plan, write_data, write_predictions


def test_the_default_is_the_papers_setting_on_the_validation_clips(tmp_path):
    write_data(tmp_path / "data", clips={"a": 1, "b": 2})
    (tmp_path / "data" / "val.txt").write_text("b\n")
    plan = plan_bench(tmp_path / "data", tmp_path / "out", labels={"noisy": tmp_path})
    assert (plan.data.names, plan.data.split, plan.data.num_frames) == (("b",), "val", 2)
    assert plan.rows == ROWS
    assert (plan.engine.mode, plan.engine.masklets, plan.engine.follow) == (
        "exact",
        MaskletSettings(),
        FollowSettings(),
    )
    assert (plan.protocol, plan.boundary, plan.windows) == ("vspw", "band", (8, 16))


def test_clips_come_in_the_order_of_their_list_also_without_a_last_line_end(tmp_path):
    write_data(tmp_path / "data", clips={"b": 1, "a": 1, "c": 1})
    (tmp_path / "data" / "test.txt").write_text("c\na")
    assert toy_plan(tmp_path).data.names == ("b", "a", "c")
    assert toy_plan(tmp_path, split="test").data.names == ("c", "a")
    named = toy_plan(tmp_path, split="test", only=["a"])
    assert (named.data.names, named.data.is_subset, named.data.title) == (("a",), True, "toy test (a)")
    assert toy_plan(tmp_path, only=["b"]).data.title == "toy (b)"
    assert not toy_plan(tmp_path).data.is_subset


def test_all_clips_are_taken_where_there_is_no_list(tmp_path):
    write_data(tmp_path / "data")
    (tmp_path / "data" / "val.txt").unlink()
    plan = toy_plan(tmp_path)
    assert (plan.data.names, plan.data.split, plan.data.title) == (("a", "b"), "", "toy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["a", "z"]}, r"1 of 2 named clips are not in .*data \(z\); it has a, b"),
        ({"split": "night"}, r"night.txt does not exist; it has val"),
        ({"rows": ["superpixels"]}, "the row 'superpixels' is unknown, expected static, flow, superpixel, sam2"),
        ({"protocol": "mine"}, "unknown protocol 'mine'"),
        ({"windows": (2, 400)}, "windows must be frame counts"),
        ({"seed": -1}, "--seed is -1, expected 0 or more"),
        ({"votes": VoteSettings(vote_weight="probability")}, "bench stores labels only"),
        ({"mode": "exact", "follow": FollowSettings(match_every=2)}, "--match-every is for --mode fast"),
        ({"follow": FollowSettings(discover=4)}, "never comes in windows of 4 frames"),
        ({"mode": "fast", "follow": FollowSettings(discover=2)}, "--discover looks for new masks"),
        ({"id_offset": 9}, r"so stored ids would be -9\.\.-6"),
        ({"labels": {}}, "there is nothing to bench"),
        ({"labels": {"a/b": Path()}}, "'a/b' cannot be the name of a folder"),
        ({"labels": {"x": Path(), "X": Path()}}, "two rows would be called X"),
        ({"labels": {"x": Path()}, "compare": {"sam2-X": Path()}}, "two rows would be called SAM2-x"),
        ({"labels": {"x": Path("nowhere")}}, "label folder nowhere does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_run(tmp_path, options, message):
    with pytest.raises(SettingsError, match=message):
        toy_plan(tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_clips_without_truth_or_pictures_are_named(tmp_path):
    write_data(tmp_path / "data")
    for path in (tmp_path / "data" / "data" / "b" / "mask").iterdir():
        path.unlink()
    with pytest.raises(LabelError, match=r"1 of 2 .*no label maps \(first: b\)"):
        toy_plan(tmp_path)
    assert toy_plan(tmp_path, only=["a"]).data.names == ("a",)
    write_data(tmp_path / "data")
    for path in (tmp_path / "data" / "data" / "a" / "origin").iterdir():
        path.unlink()
    with pytest.raises(MediaError, match=r"clip a has label maps in .* and no pictures"):
        toy_plan(tmp_path)


def test_a_run_folder_stands_for_its_labels(tmp_path):
    toy.run_toy(tmp_path / "run", [toy.ToyClip(5, "a")], overlay=False)
    plan = toy_plan(tmp_path, labels={"run": tmp_path / "run"})
    assert plan.models[0].labels == tmp_path / "run" / "labels"
    assert plan.label_space_of(tmp_path / "run" / "labels").name == "toy"


def test_label_folders_speak_for_themselves_first(tmp_path):
    own = LabelSpace.numbered(4, name="own")
    folder = write_predictions(tmp_path / "noisy")
    given = LabelSpace.numbered(4, name="given")
    assert toy_plan(tmp_path).label_space_of(folder).name == "toy"
    assert toy_plan(tmp_path, prediction_label_set=given).label_space_of(folder).name == "given"
    (folder / "label_set.json").write_text(json.dumps(own.to_dict()))
    assert toy_plan(tmp_path, prediction_label_set=given).label_space_of(folder).name == "own"


def test_an_offset_moves_the_ids_of_classes_and_frees_those_of_void():
    vspw_like = LabelSpace(("wall", "sky"), toy.CLASSES.palette[:2], raw_ids=(1, 2), raw_void=(255, 0))
    stored = shift_ids(vspw_like, 1)  # a model's predictions: 0 and 1
    assert (stored.raw_ids, stored.raw_void) == ((0, 1), (255,))
    assert shift_ids(vspw_like, 0).raw_ids == (1, 2)
    assert shift_ids(LabelSpace.numbered(2), -1).raw_ids == (1, 2)


def test_rows_are_named_like_the_papers():
    assert [row_name("cffm-b0", row) for row in ("base", *ROWS)] == [
        "cffm-b0", "static-cffm-b0", "flow-cffm-b0", "superpixel-cffm-b0", "SAM2-cffm-b0"
    ]  # fmt: skip
    assert [model_name(text) for text in ("org/model-b2", "runs/preds/", "segformer-nano")] == [
        "model-b2", "preds", "segformer-nano"
    ]  # fmt: skip


def test_a_model_that_is_called_by_its_id_alone_counts_as_unnamed(tmp_path):
    plan = toy_plan(tmp_path, segmenters={"segformer-b2": "segformer-b2", "mine": "org/segformer-b2"})
    assert [model.is_named for model in plan.models] == [False, True]


def test_presets_are_resolved_and_named_options_win(tmp_path):
    plan = toy_plan(tmp_path, preset="cpu", masklets=MaskletSettings(window=4, points=9), mode="prompt")
    assert (plan.engine.mode, plan.engine.image_size, plan.engine.masklets.points) == ("prompt", (512, 512), 9)
    assert toy_plan(tmp_path, preset="cpu", masklets=MaskletSettings(window=4)).engine.masklets.points == 12


def test_settings_and_command_of_a_row_are_those_that_decide_it(tmp_path):
    rows = ("superpixel", "sam2")
    votes, follow = VoteSettings(min_share=0.5), FollowSettings(carry=True)
    plan = toy_plan(tmp_path, rows, votes=votes, follow=follow, image_size=(64, 96))
    assert row_settings(plan, "static") == {"smooth": "static", "void": "keep"}
    assert row_settings(plan, "superpixel") == {
        "tracker": "superpixel", "window": 4, "vote": "window", "vote_weight": "majority", "min_share": 0.5,
        "overlap": "small-on-top", "void": "keep",
    }  # fmt: skip
    settings = row_settings(plan, "sam2")
    assert (settings["sam2"], settings["mode"], settings["image_size"]) == ("nano", "exact", "96x64")
    assert (settings["window"], settings["carry"], settings["min_share"]) == (4, True, 0.5)
    commands = {task.row: row_command(plan, task) for task in plan.tasks if not task.is_base}
    command = commands["sam2"]
    assert f"--labels {tmp_path / 'noisy'} --label-set {tmp_path / 'out' / 'label_set.json'}" in command
    assert "--sam2 nano --mode exact --device cpu --dtype float32 --image-size 96x64" in command
    assert "--window 4 --carry --min-share 0.5" in command
    assert "--points" not in command  # at its default
    assert "--min-share 0.5" in commands["superpixel"]
    assert "--carry" not in commands["superpixel"]


def test_an_offset_is_for_class_ids_and_not_for_panoptic_categories(tmp_path):
    frame = {"0": np.zeros((2, 2), np.uint8)}
    panoptic, ids = write_dvis(tmp_path / "dvis", {"v": frame}), write_ids(tmp_path / "ids" / "v", frame).parent
    plan = toy_plan(tmp_path, id_offset=0)
    assert (plan.own_offset_of(panoptic), plan.own_offset_of(ids)) == (None, 0)
    plan = toy_plan(tmp_path)
    assert (plan.own_offset_of(panoptic), plan.own_offset_of(ids)) == (None, None)


def test_the_void_policy_is_part_of_every_row(tmp_path):
    plan = toy_plan(tmp_path, ("static", "superpixel", "sam2"), votes=VoteSettings(void="nearest"))
    rows = [task for task in plan.tasks if not task.is_base]
    assert [row_settings(plan, task.row)["void"] for task in rows] == ["nearest"] * 3
    assert ["--void nearest" in row_command(plan, task) for task in rows] == [True] * 3
