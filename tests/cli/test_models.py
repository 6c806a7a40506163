"""`sam2vss models`: the list, one line of it, and what a file or folder holds."""

import json
from pathlib import Path

import pytest
import torch

from fake_hub import use_hub
from sam2vss import console
from sam2vss.segmenters.catalogue import known_models
from sam2vss.segmenters.vss.architecture import build, default_architecture

NANO = Path(console.__file__).parent / "segmenters" / "nano"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")  # nothing listens there, and nothing asks


def set_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(console.stdout, "_width", columns)


def test_the_list_names_every_model_with_its_facts(command):
    answer = command("models", "--json")

    lines = json.loads(answer.out)
    assert answer.code == 0
    assert [line["name"] for line in lines] == [model.name for model in known_models()]
    cffm = next(line for line in lines if line["family"] == "CFFM MiT-B1")
    assert cffm == {
        "name": "cffm-b1",
        "family": "CFFM MiT-B1",
        "class_set": "VSPW",
        "num_classes": 124,
        "size": "15.47 M parameters",
        "licence": "NVIDIA, non-commercial",
        "weights": "a .pth file from the authors, linked from the README of github.com/GuoleiSun/VSS-CFFM",
        "use": "--segmenter FILE.pth, or train segmenter --model cffm-b1",
        "published": "38.5 mIoU, VSPW val (paper, Table 1)",
        "here": "a file of yours",
    }


def test_a_wide_terminal_gets_one_row_a_model(command, monkeypatch):
    set_width(monkeypatch, 200)

    answer = command("models")

    assert "published by others" in answer.out
    row = next(line for line in answer.out.splitlines() if "segformer-b2" in line)
    assert all(fact in row for fact in ("SegFormer B2", "ADE20K, 150", "110 MB", "NVIDIA, non-commercial", "not here"))


@pytest.mark.parametrize("columns", [20, 40, 79])
def test_a_narrow_terminal_gets_every_fact_too(command, monkeypatch, columns):
    set_width(monkeypatch, columns)

    answer = command("models")

    assert answer.code == 0
    for model in known_models():
        assert model.name in answer.out  # names are never broken: they are to be copied
        assert all(fact in answer.text for fact in (model.family, model.licence))
    names = {model.name for model in known_models()}
    facts = [line for line in answer.out.splitlines() if "/" not in line and line not in names]
    assert max(map(len, facts)) <= columns


def test_one_name_of_the_list_says_where_its_weights_come_from(command):
    answer = command("models", "segformer-b2", "--json")

    assert answer.code == 0
    assert json.loads(answer.out)["weights"] == "hub: nvidia/segformer-b2-finetuned-ade-512-512"
    assert "hub: nvidia/segformer" in command("models", "segformer-b2").out


def test_a_name_that_training_takes_says_that_its_weights_are_a_file(command):
    answer = command("models", "cffm-b1")

    assert answer.code == 0
    assert all(
        words in answer.text for words in ("CFFM MiT-B1", "a .pth file from the authors", "--segmenter FILE.pth")
    )


def test_a_family_shows_all_its_lines(command):
    answer = command("models", "CFFM")

    assert answer.code == 0
    assert [line for line in answer.out.splitlines() if line.startswith("cffm")] == [
        f"{family}-{size}" for family in ("cffm", "cffm++") for size in ("b0", "b1", "b2", "b5")
    ]
    lines = json.loads(command("models", "tv3s", "--json").out)
    assert [line["family"] for line in lines] == ["TV3S MiT-B1", "TV3S MiT-B2", "TV3S MiT-B5"]


def test_segformer_for_vspw_is_said_to_lie_in_the_others_checkpoints(command):
    answer = command("models", "segformer-vss-b1")

    assert "none of its own was published for VSPW" in answer.text
    assert "--segmenter cffm_b1.pth@frame" in answer.text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """CFFM B0 for eight named classes."""
    file = tmp_path_factory.mktemp("weights") / "cffm_b0.pth"
    weights = build(default_architecture("CFFM", "b0", 8)).state_dict()
    torch.save({"meta": {"CLASSES": [f"thing {i}" for i in range(8)]}, "state_dict": weights}, file)
    return file


def test_a_checkpoint_says_what_its_classes_are_and_what_it_can_look_at(command, checkpoint):
    answer = command("models", checkpoint)

    assert answer.code == 0
    assert "thing 0, thing 1, thing 2, thing 3, thing 4, thing 5, ..." in answer.text
    assert "@clip: the frames 9, 6 and 3 before it" in answer.text
    assert "@frame: nothing" in answer.text
    assert "@stream" not in answer.text
    found = json.loads(command("models", checkpoint, "--json").out)
    assert found["class_names"] == [f"thing {i}" for i in range(8)]
    assert list(found["contexts"]) == ["@clip", "@frame"]


def test_a_context_behind_a_file_is_taken_and_checked(command, checkpoint):
    assert "CFFM MiT-B0" in command("models", f"{checkpoint}@frame").text
    assert "only TV3S carries a state" in command("models", f"{checkpoint}@stream").message
    assert "'fast' behind the @ is no context" in command("models", f"{checkpoint}@fast").message


def test_a_folder_that_can_be_loaded_is_described(command):
    answer = command("models", NANO)

    assert answer.code == 0
    assert all(words in answer.text for words in ("segformer", "373,867", "apache-2.0", "can be loaded │ yes"))
    assert json.loads(command("models", NANO, "--json").out)["loads"] is True


def test_a_file_that_cannot_be_loaded_is_described_with_the_reason_and_exit_code_2(command, tmp_path):
    torch.save({"state_dict": {"conv.weight": torch.ones(1)}}, tmp_path / "a.pth")

    answer = command("models", tmp_path / "a.pth", "--json")

    assert answer.code == 2
    found = json.loads(answer.out)
    assert found["loads"] is False
    assert "no segmentation model that is known here" in found["problem"]
    assert "licence" not in command("models", tmp_path / "a.pth").text
    assert "can be loaded │ no" in command("models", tmp_path / "a.pth").text


def test_an_unknown_name_is_an_error_that_leads_to_the_list(command):
    answer = command("models", "segformer-b9")

    assert "no name that is known here; `sam2vss models` lists those" in answer.message
