"""The doctor answers on any machine, quickly, and downloads nothing."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from fake_hub import fake_hub, use_hub
from sam2vss import doctor, hub
from sam2vss.doctor import Check, collect, rows, to_json

CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, CLOSED_PORT, tmp_path / "cache")


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_every_subject_is_answered_and_the_answer_is_plain_data(tmp_path):
    checks = collect()
    names = {check.name for check in checks}
    assert names >= {"python", "torch", "device cpu", "transformers", "torchvision", "video", "opencv", "disk", "hub"}
    assert "127.0.0.1:9 does not answer" in named(checks, "hub").found
    assert json.loads(json.dumps(to_json(checks)))["checks"][0]["name"] == "python"
    assert [row[0] for row in rows(checks)] == [check.name for check in checks]
    assert not (tmp_path / "cache").exists()


def test_a_fresh_process_answers_within_seconds(tmp_path):
    """Three seconds on a quiet machine (measured 1.9 s on one core); the bound here leaves room for a busy one."""
    environment = {
        **os.environ, "PYTHONPATH": str(Path(hub.__file__).parents[1]), "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": CLOSED_PORT, "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    code = (
        "import time; t = time.process_time(); from sam2vss.doctor import *; collect(); print(time.process_time() - t)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 4  # seconds of processor time, which other processes do not lengthen


def test_cached_weights_are_listed_with_their_size(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(2_000_000))
    assert "none of the known models" in named(doctor._cached_weights(), "weights").found
    with fake_hub({"facebook/sam2.1-hiera-tiny": folder}) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        hub.resolve_model("facebook/sam2.1-hiera-tiny", {})
        server.requests.clear()
        assert doctor._hub() == [Check("hub", "ok", "answers")]
        assert named(doctor._cached_weights(), "weights sam2.1-tiny").found.startswith(
            "cached, 2 MB, revision 0123456789ab"
        )
        assert len(server.requests) == 1


def test_offline_is_said_and_the_hub_left_alone(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(doctor, "hub_problem", lambda timeout: pytest.fail("asked the hub"))
    assert "HF_HUB_OFFLINE is set" in doctor._hub()[0].found


@pytest.mark.parametrize(
    ("version", "status"),
    [("5.7.0", "problem"), ("5.8.0", "ok"), ("5.23.0", "ok"), ("6.0.0", "problem"), ("4.57.6", "problem")],
)
def test_transformers_outside_the_tested_range_is_a_problem(monkeypatch, version, status):
    monkeypatch.setattr(doctor, "_version", lambda package: version)
    assert doctor._transformers()[0].status == status


def test_a_torchvision_that_does_not_fit_is_a_problem_with_its_cure(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(importlib, "import_module", broken)
    check = doctor._torchvision()[0]
    assert (check.status, check.found) == ("problem", "installed but broken: operator torchvision::nms does not exist")
    assert "pip uninstall torchvision" in check.advice


def test_nothing_installed_is_an_answer_and_not_an_error(monkeypatch):
    def not_found(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", not_found)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    checks = collect()
    for name in ("torch", "transformers", "video", "opencv"):
        assert named(checks, name).status == "problem"
    assert named(checks, "sam2vss").status == "note"
    assert not to_json(checks)["ok"]


def test_a_look_that_fails_is_one_line_and_the_others_go_on(monkeypatch):
    def failing():
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_disk", failing)
    monkeypatch.setattr(shutil, "disk_usage", failing)
    checks = collect()
    assert named(checks, "failing") == Check("failing", "problem", "OSError: no such device")
    assert named(checks, "hub")


def test_little_free_disk_is_noted(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1.2e9))
    assert rows(doctor._disk()) == [
        ("disk", "note", "1.2 GB free in the current folder. Runs and weights may fill it.")
    ]


def test_bundled_weights_are_shown_with_their_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "doctor.py"))
    (tmp_path / "sam2" / "nano").mkdir(parents=True)
    (tmp_path / "sam2" / "nano" / "model.safetensors").write_bytes(b"abc")
    sam2, segmenter, *ours = doctor._bundled_weights()
    assert (sam2.name, sam2.found) == (
        "bundled sam2-nano",
        "0.0 MB, sha256 ba7816bf8f01",
    )  # sha256 of "abc", FIPS 180-2
    assert (segmenter.status, segmenter.found) == ("problem", "missing")
    assert [check.name for check in ours] == [
        f"bundled {name}" for name in ("classifier nano", "fusion nano", "fusion nano-any")
    ]
    monkeypatch.undo()
    assert {check.status for check in doctor._bundled_weights()} == {"ok"}
