"""Weights resolving against a hub on loopback: cache first, clear refusals, never other weights."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from fake_hub import COMMIT, CONVERTED, FakeHub, fake_hub, use_hub
from sam2vss import hub
from sam2vss.errors import WeightsError
from sam2vss.hub import cached_model, hub_problem, local_model, resolve_model
from sam2vss.sam2.loading import find_sam2
from sam2vss.segmenters import find_segmenter
from sam2vss.segmentor import find_fusion
from sam2vss.settings import SAFETENSORS_REVISIONS, SAM2_ALIASES

SOURCE = Path(hub.__file__).parents[1]
CLOSED_PORT = "http://127.0.0.1:9"  # nothing listens there
CONFIG = json.dumps({"model_type": "segformer"})


def write_model(folder: Path, *, weights: bytes = b"weights", **extra: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(CONFIG)
    (folder / "model.safetensors").write_bytes(weights)
    for name, text in extra.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_hub(monkeypatch, CLOSED_PORT, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    folder = write_model(tmp_path / "served", merges__txt="a b", preprocessor_config__json="{}")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_custom.py").write_text("code")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    with fake_hub({"org/model": folder}) as server:
        use_hub(monkeypatch, server.url, empty_cache)
        yield server


def test_an_alias_is_fetched_from_the_hub_under_its_id(served):
    location = resolve_model("short", {"short": "org/model"})
    assert (location.id, location.revision) == ("org/model", COMMIT)
    assert location.sha256() == {
        "config.json": hashlib.sha256(CONFIG.encode()).hexdigest(),
        "model.safetensors": hashlib.sha256(b"weights").hexdigest(),
    }
    assert location.num_bytes == len(b"weights")


def test_only_safetensors_and_text_of_the_top_folder_are_fetched(served):
    location = resolve_model("org/model", {})
    assert sorted(file.relative_to(location.path).as_posix() for file in location.path.rglob("*")) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert not [request for request in served.requests if ".bin" in request or ".py" in request or "onnx" in request]


def test_a_cached_model_is_taken_without_any_request(served, empty_cache, monkeypatch):
    first = resolve_model("org/model", {})
    served.requests.clear()
    assert resolve_model("org/model", {}) == first == cached_model("org/model")
    assert resolve_model("org/model", {}, revision=COMMIT) == first
    assert resolve_model(f"org/model@{COMMIT}", {}) == first
    assert served.requests == []
    use_hub(monkeypatch, CLOSED_PORT, empty_cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_model("org/model", {}) == first


def test_a_half_filled_cache_is_completed_and_not_taken_for_a_whole_model(served, empty_cache, monkeypatch):
    location = resolve_model("org/model", {})
    (location.path / "model.safetensors").unlink()
    assert cached_model("org/model") is None
    assert resolve_model("org/model", {}).weight_files
    (location.path / "preprocessor_config.json").unlink()
    assert resolve_model("org/model", {}, needs_one_of=["other.json", "preprocessor_config.json"]).path == location.path
    assert (location.path / "preprocessor_config.json").is_file()
    (location.path / "preprocessor_config.json").unlink()
    use_hub(monkeypatch, CLOSED_PORT, empty_cache)
    with pytest.raises(
        WeightsError, match=r"in the local cache without preprocessor_config.json and the hub cannot be"
    ):
        resolve_model("org/model", {}, needs_one_of=["preprocessor_config.json"])


def test_a_refused_connection_is_an_error_within_seconds_that_names_the_ways_out():
    started = time.monotonic()
    with pytest.raises(
        WeightsError, match=r"org/model is not in the local cache and the hub cannot be reached"
    ) as info:
        resolve_model("org/model", {})
    assert time.monotonic() - started < 3
    for way_out in ("local folder", "HF_HUB_OFFLINE=1", "(and there is no folder org/model here)"):
        assert way_out in str(info.value)
    assert "needs no download" not in str(info.value)


def test_ways_out_are_those_of_what_was_asked_for():
    with pytest.raises(WeightsError, match=r"set HF_HUB_OFFLINE=1; or use what needs no download: `--sam2 nano`\.$"):
        resolve_model("org/model", {}, without_download="`--sam2 nano`")
    with pytest.raises(WeightsError, match="hub cannot be reached") as info:
        resolve_model("alias", {"alias": "org/model"})
    assert "no folder" not in str(info.value)  # nobody meant one
    expected = ((find_sam2, "--sam2 nano"), (find_segmenter, "--labels DIR"), (find_fusion, "bundled (nano, nano-any)"))
    for find, way_out in expected:
        with pytest.raises(WeightsError) as info:
            find("org/model")
        assert way_out in str(info.value)
        assert sum(way in str(info.value) for _, way in expected) == 1


def test_a_hub_that_accepts_and_stays_silent_is_given_up_after_the_timeout(empty_cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        use_hub(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}", empty_cache)
        monkeypatch.setattr(hub, "PROBE_TIMEOUT_S", 0.2)
        started = time.monotonic()
        with pytest.raises(WeightsError, match="hub cannot be reached"):
            resolve_model("org/model", {})
        assert time.monotonic() - started < 3
        assert "does not answer" in hub_problem(timeout_s=0.1)


def test_the_environment_is_honoured_as_it_is(tmp_path):
    code = (
        "import time, sam2vss.hub as hub\nfrom sam2vss.errors import WeightsError\nt = time.monotonic()\n"
        "try: hub.resolve_model('org/model', {})\nexcept WeightsError as e: print(time.monotonic() - t, e)"
    )
    base = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": CLOSED_PORT,
        "NO_PROXY": "127.0.0.1",
    }
    for offline, message in (("1", "HF_HUB_OFFLINE forbids"), ("0", "cannot be reached")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**base, "HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert message in run.stdout
        assert float(run.stdout.split()[0]) < 5


def test_hub_problem_is_empty_when_the_hub_gives_any_answer(served):
    assert hub_problem() == ""


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "RepoNotFound"), r"no model org/model on the hub, or it is private"),
        ((401, "RepoNotFound"), r"no model org/model on the hub, or it is private"),
        ((403, "GatedRepo"), r"org/model is gated: accept its conditions .* HF_TOKEN"),
        ((401, "GatedRepo"), r"org/model is gated"),
        ((403, ""), r"the hub refuses org/model \(HTTP 403\)"),
        ((500, ""), r"the hub cannot be reached .*500"),
    ],
)
def test_each_refusal_of_the_hub_has_its_message(served, refusal, message):
    served.refusals["org/model"] = refusal
    with pytest.raises(WeightsError, match=message):
        resolve_model("org/model", {})


def test_an_unknown_revision_is_named(served):
    with pytest.raises(WeightsError, match="org/model has no revision 'v9'"):
        resolve_model("org/model@v9", {})


def test_an_unknown_id_close_to_a_known_one_is_suggested(served):
    with pytest.raises(WeightsError, match=r"Did you mean facebook/sam2.1-hiera-tiny"):
        resolve_model("facebook/sam2.1-hira-tiny", SAM2_ALIASES)


def test_a_misspelt_alias_is_suggested_and_all_names_are_listed():
    with pytest.raises(WeightsError, match=r"'sam2.1-tinny' .* Did you mean sam2.1-tiny.*sam2-large"):
        resolve_model("sam2.1-tinny", SAM2_ALIASES)
    with pytest.raises(WeightsError, match="nor a hub id of the form org/name"):
        resolve_model("a--b/c..d", SAM2_ALIASES)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "~/no-such-folder", "a/b/c"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(name):
    with pytest.raises(WeightsError, match="there is no folder"):
        resolve_model(name, {})


def test_a_repository_without_safetensors_is_refused_before_anything_is_fetched(served, empty_cache):
    (served.repositories["org/model"] / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no model.safetensors on the hub, only pytorch_model.bin, a pickle"):
        resolve_model("org/model", {})
    assert not list(empty_cache.rglob("*.bin"))
    (served.repositories["org/model"] / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"no config.json on the hub"):
        resolve_model("org/model", {})


@pytest.mark.parametrize("revision", ["converted", CONVERTED])
def test_a_revision_known_to_hold_safetensors_is_taken_where_main_has_only_a_pickle(
    served, empty_cache, monkeypatch, tmp_path, revision
):
    (served.repositories["org/model"] / "model.safetensors").unlink()
    served.repositories["org/model@converted"] = write_model(tmp_path / "converted", weights=b"converted")
    monkeypatch.setitem(SAFETENSORS_REVISIONS, "org/model", revision)

    location = resolve_model("short", {"short": "org/model"})

    assert (location.id, location.revision) == ("org/model", CONVERTED)
    assert location.weight_files[0].read_bytes() == b"converted"
    served.requests.clear()
    assert resolve_model("org/model", {}) == location == cached_model("org/model")
    assert served.requests == []
    with pytest.raises(WeightsError, match=r"org/model has no model.safetensors on the hub"):
        resolve_model("org/model@main", {})  # who asks for a revision gets that one


def test_main_wins_over_a_revision_known_to_hold_safetensors(served, monkeypatch):
    monkeypatch.setitem(SAFETENSORS_REVISIONS, "org/model", "converted")

    assert resolve_model("org/model", {}).revision == COMMIT


def test_a_local_folder_needs_no_hub_and_has_no_revision(tmp_path):
    folder = write_model(tmp_path / "mine")
    assert resolve_model(str(folder), {}) == hub.ModelLocation(str(folder), folder, None)
    assert resolve_model("nano", {"nano": str(folder)}) == hub.ModelLocation("nano", folder, None)
    with pytest.raises(WeightsError, match="local folder and has no revision 'main'"):
        resolve_model(str(folder), {}, revision="main")


def test_an_alias_for_a_bundled_folder_that_is_gone_says_so(tmp_path):
    with pytest.raises(WeightsError, match=r"nano stands for the folder .* this installation is incomplete"):
        resolve_model("nano", {"nano": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("config.json", {}, "config.json is missing"),
        ("config.json", {"config.json": "{"}, "config.json cannot be read"),
        ("config.json", {"config.json": "[]"}, "config.json holds a list, expected an object"),
        ("model.safetensors", {}, "model.safetensors is missing"),
        ("model.safetensors", {"pytorch_model.bin": ""}, "only in pytorch_model.bin, a pickle file"),
        ("model.safetensors", {"model.safetensors.index.json": "{}"}, "index.json cannot be read"),
        (
            "model.safetensors",
            {"model.safetensors.index.json": '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.x"}}'},
            r"2 of 2 shards are missing \(first: model-1",
        ),
        (
            "model.safetensors",
            {"model.safetensors.index.json": '{"weight_map": {"a": "../outside.safetensors"}}'},
            r"names files outside the folder \(\.\./outside",
        ),
    ],
)
def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path, remove, add, message):
    folder = write_model(tmp_path / "mine")
    (folder / remove).unlink()
    for name, text in add.items():
        (folder / name).write_text(text)
    with pytest.raises(WeightsError, match=message):
        local_model(folder)


def test_all_shards_of_a_large_model_are_hashed(tmp_path):
    folder = write_model(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"more")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert list(local_model(folder).sha256()) == ["config.json", *shards.values()]
    assert local_model(folder).num_bytes == len(b"weights" + b"more")


def test_a_checkpoint_file_is_a_model_of_its_own_for_callers_who_can_load_it(tmp_path):
    file = tmp_path / "sam2@x.pt"
    file.write_bytes(b"weights")
    location = resolve_model(str(file), {}, checkpoint_suffixes=(".pt",))
    assert location == hub.ModelLocation(str(file), file, None)
    assert location.weight_files == (file,)
    assert location.num_bytes == 7
    assert location.sha256() == {"sam2@x.pt": hashlib.sha256(b"weights").hexdigest()}
    assert resolve_model("mine", {"mine": str(file)}, checkpoint_suffixes=(".pt",)).path == file
    with pytest.raises(
        WeightsError, match=r"x.pt is a file, expected a folder with config.json and model.safetensors$"
    ):
        resolve_model(str(file), {})
    with pytest.raises(WeightsError, match="local file and has no revision 'main'"):
        resolve_model(str(file), {}, revision="main", checkpoint_suffixes=(".pt",))


@pytest.mark.parametrize("name", ["nowhere.pt", "checkpoints/nowhere.pt", "./nowhere.pt", "/no/such/nowhere.pt"])
def test_a_checkpoint_that_is_not_there_is_not_taken_for_a_hub_id(name):
    with pytest.raises(WeightsError, match=r"there is no file .*nowhere.pt; expected a checkpoint"):
        resolve_model(name, {}, checkpoint_suffixes=(".pt",))


def test_other_files_are_refused_with_what_can_be_loaded(tmp_path):
    (tmp_path / "a.onnx").touch()
    with pytest.raises(WeightsError, match=r"a.onnx is a file, expected a folder .* or .pt$"):
        resolve_model(str(tmp_path / "a.onnx"), {}, checkpoint_suffixes=(".pt",))


def test_a_folder_with_only_a_checkpoint_says_to_pass_the_file(tmp_path):
    (tmp_path / "sam2.1_hiera_tiny.pt").touch()
    with pytest.raises(WeightsError, match=r"passed as the file itself \(sam2.1_hiera_tiny.pt\)"):
        local_model(tmp_path)
