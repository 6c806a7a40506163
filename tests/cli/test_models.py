"""`sam2vss models`: the list, one line of it, and what a file or folder holds."""

import json
from pathlib import Path

import pytest
import torch

from fake_hub import use_hub
from sam2vss import console
from sam2vss.segmenters.catalogue import known_models

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
    assert [line["segmenter"] for line in lines] == [model.name for model in known_models()]
    cffm = next(line for line in lines if line["family"] == "CFFM MiT-B1")
    assert cffm == {
        "segmenter": "a CFFM .pth file",
        "family": "CFFM MiT-B1",
        "class_set": "VSPW",
        "num_classes": 124,
        "size": "15.48 M parameters",
        "licence": "NVIDIA, non-commercial",
        "weights": "official checkpoint, linked from the README of github.com/GuoleiSun/VSS-CFFM",
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
    facts = [line for line in answer.out.splitlines() if "/" not in line]
    assert max(map(len, facts)) <= columns


def test_one_name_of_the_list_says_where_its_weights_come_from(command):
    answer = command("models", "segformer-b2", "--json")

    assert answer.code == 0
    assert json.loads(answer.out)["weights"] == "hub: nvidia/segformer-b2-finetuned-ade-512-512"
    assert "hub: nvidia/segformer" in command("models", "segformer-b2").out


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
    assert "can be loaded │ no" in command("models", tmp_path / "a.pth").text


def test_an_unknown_name_is_an_error_that_leads_to_the_list(command):
    answer = command("models", "segformer-b9")

    assert "no name that is known here; `sam2vss models` lists those" in answer.message
