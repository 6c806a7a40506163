"""What files and folders hold, and why some of them cannot be loaded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sam2vss.errors import WeightsError
from sam2vss.hub import ModelLocation
from sam2vss.segmenters.kinds import UNKNOWN_LICENCE, describe_model, kind_of
from sam2vss.training.segmenter import STATE_FILE
from tiny_segmenters import save_tiny
from tiny_videomt import TINY, official_weights


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("segformer", tmp_path_factory.mktemp("models") / "segformer")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("files") / "videomt_vspw.pth"
    torch.save({"model": official_weights()}, file)
    return file


def test_folders_and_checkpoints_are_told_apart(segformer: Path, checkpoint: Path, tmp_path: Path):
    video = save_tiny("videomt", tmp_path / "videomt")

    assert kind_of(ModelLocation("a", segformer)) == "image model"
    assert kind_of(ModelLocation("a", video)) == "VidEoMT folder"
    assert kind_of(ModelLocation("a", checkpoint)) == "VidEoMT checkpoint"


def test_a_folder_is_described_without_loading_it(segformer: Path):
    found = describe_model(segformer)

    weights = load_file(segformer / "model.safetensors")
    assert (found.family, found.num_classes, found.class_set) == ("segformer", 5, "sky, road, car, ...")
    assert found.parameters == sum(tensor.numel() for tensor in weights.values())
    assert (found.licence, found.problem) == (UNKNOWN_LICENCE, "")
    assert (found.class_names, found.contexts) == (("sky", "road", "car", "person", "tree"), ())


def test_the_licence_on_a_model_card_is_read(segformer: Path, tmp_path: Path):
    folder = Path(shutil.copytree(segformer, tmp_path / "mine"))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# A model\n")

    assert describe_model(folder).licence == "apache-2.0"


def test_a_known_label_set_is_named(segformer: Path, tmp_path: Path):
    folder = Path(shutil.copytree(segformer, tmp_path / "mine"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(["wall", "building", "sky", *["?"] * 146, "flag"])}
    (folder / "config.json").write_text(json.dumps(config))

    assert (describe_model(folder).class_set, describe_model(folder).num_classes) == ("ADE20K", 150)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.json", None, "holds no usable model: config.json is missing"),
        ("config.json", '{"model_type": "bert"}', "a bert model does no semantic segmentation"),
        ("config.json", "{}", "a nameless model does no semantic segmentation"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json"),
        ("model.safetensors", None, "model.safetensors is missing"),
    ],
)
def test_what_keeps_a_folder_from_being_loaded_is_said(
    segformer: Path, tmp_path: Path, file: str, content: str | None, problem: str
):
    folder = Path(shutil.copytree(segformer, tmp_path / "mine"))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)

    assert problem in describe_model(folder).problem
    assert describe_model(folder).licence == ""  # nobody asks for that of what is no model


def test_weights_that_cannot_be_read_are_a_problem_and_not_counted(segformer: Path, tmp_path: Path):
    folder = Path(shutil.copytree(segformer, tmp_path / "mine"))
    (folder / "model.safetensors").write_bytes(b"short")

    found = describe_model(folder)

    assert found.parameters is None
    assert "safetensors are cut short or damaged" in found.problem


def test_a_folder_of_an_unfinished_training_says_so(tmp_path: Path):
    (tmp_path / STATE_FILE).write_bytes(b"")

    found = describe_model(tmp_path)

    assert "its training is not finished: go on with `sam2vss train segmenter ... --resume`" in found.problem
    assert found.licence == ""


def test_a_folder_of_data_has_no_licence_of_a_model(tmp_path: Path):
    (tmp_path / "label_set.json").write_text("{}")

    assert describe_model(tmp_path).licence == ""


def test_a_checkpoint_is_described(checkpoint: Path):
    found = describe_model(checkpoint)

    assert found.family == "VidEoMT-128 (DINOv2), 5 queries"
    assert (found.licence, found.class_names[:2]) == (UNKNOWN_LICENCE, ("wall", "ceiling"))
    assert (found.class_set, found.num_classes, found.problem) == ("vspw", 124, "")
    assert found.parameters == sum(tensor.numel() for tensor in official_weights().values())


def test_a_checkpoint_of_vipseg_says_whose_order_its_classes_have(checkpoint: Path, tmp_path: Path):
    file = Path(shutil.copy(checkpoint, tmp_path / "vipseg_vit.pth"))

    assert describe_model(file).class_set == "VIPSeg's, in VSPW's order"


def test_a_checkpoint_that_lacks_weights_cannot_be_loaded(tmp_path: Path):
    weights = official_weights()
    del weights["backbone.mask_head.2.bias"]
    torch.save({"model": weights}, tmp_path / "a.pth")

    found = describe_model(tmp_path / "a.pth")

    assert found.family == "VidEoMT"
    assert "1 missing: backbone.mask_head.2.bias" in found.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 3\n", "is a Git LFS pointer"),
        ({"state_dict": {"conv.weight": torch.ones(2)}}, "no segmentation model that is known here (it holds conv"),
        ({"model": official_weights(replace(TINY, classes=40))}, "was trained on YouTube-VIS"),
    ],
)
def test_what_keeps_a_file_from_being_loaded_is_said(content: object, problem: str, tmp_path: Path):
    file = tmp_path / "a.pth"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)

    assert problem in describe_model(file).problem
    assert describe_model(file).licence == ""


def test_nothing_there_is_an_error(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"there is no file or folder .*sam2vss models"):
        describe_model(tmp_path / "absent.pth")
