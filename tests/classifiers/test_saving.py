"""Networks on disk and on the hub: whole round trips, and everything that is not loaded, with the reason."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fake_hub import COMMIT, fake_hub, use_hub
from sam2vss.classifiers.classifier import MaskletClassifier, describe_encoder
from sam2vss.errors import SettingsError, WeightsError
from toy import CLASSES
from toy_features import NoiseEncoder, make_rows

ROWS = make_rows(np.random.default_rng(0), [0, 0, 1, 1, 1], 7, tokens=(5, 4))
TRAINING = {"data": {"name": "toy"}, "scores": {"mask mIoU": 0.5}}


def make(head: str = "context", **options) -> MaskletClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = MaskletClassifier(
            label_set=CLASSES.to_dict(), encoder=describe_encoder(NoiseEncoder()), head=head, hidden=8, **options
        )
        network.scale.mean.normal_()
        network.scale.spread.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def change_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def load(folder: Path) -> MaskletClassifier:
    return MaskletClassifier.load(MaskletClassifier.find(str(folder), {}))


OPTIONS = {
    "parts": ("mean",),
    "levels": ("fine",),
    "tokens": 5,
    "uses_shape": True,
    "scope": "window",
    "weighting": "quality",
    "known_classes": [0, 2],
    "vote_weight": 0.35,
    "training": TRAINING,
}


@pytest.mark.parametrize("head", ["linear", "mlp", "context"])
@pytest.mark.parametrize("read", [load, MaskletClassifier.from_pretrained])
def test_a_saved_network_is_the_same_to_the_last_bit(tmp_path, head, read):
    network = make(head, **OPTIONS)
    network.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    found = read(tmp_path / "saved")
    assert not found.training
    assert found.predict(ROWS).tolist() == network.predict(ROWS).tolist()
    for name in ("scope", "weighting", "known_classes", "vote_weight", "training_record", "encoder_fingerprint"):
        assert getattr(found, name) == getattr(network, name), name
    assert found.label_space.to_dict() == CLASSES.to_dict()
    assert found.card_text() == network.card_text() == (tmp_path / "saved" / "README.md").read_text()
    found.save_pretrained(tmp_path / "again")
    for file in (tmp_path / "saved").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_is_known_after_training_is_saved_with_the_network(tmp_path):
    network = make()
    network.note(vote_weight=0.25)
    network.note(training={"scores": {"accuracy": float("nan"), "mask mIoU": 0.75}, "data": {"clips": ("a", "b")}})
    network.save_pretrained(tmp_path / "saved")
    found = load(tmp_path / "saved")
    assert found.vote_weight == 0.25
    assert found.training_record == {"scores": {"accuracy": None, "mask mIoU": 0.75}, "data": {"clips": ["a", "b"]}}
    assert "| mask mIoU | 0.75 |" in (tmp_path / "saved" / "README.md").read_text()
    assert "NaN" not in (tmp_path / "saved" / "config.json").read_text()
    assert make().vote_weight is None  # other networks of the class know nothing of it
    with pytest.raises(SettingsError, match=r"weight of base votes is 1\.5, expected 0 to 1"):
        network.note(vote_weight=1.5)


def test_noting_nothing_changes_nothing(tmp_path):
    network = make(vote_weight=0.5, training=TRAINING)
    network.note(vote_weight=None)
    assert (network.vote_weight, network.training_record) == (0.5, TRAINING)


def test_a_network_saved_over_another_gets_its_own_card(tmp_path):
    make(training={"scores": {"mask mIoU": 0.1}}).save_pretrained(tmp_path)
    make(training={"scores": {"mask mIoU": 0.9}}).save_pretrained(tmp_path)
    assert "| mask mIoU | 0.9 |" in (tmp_path / "README.md").read_text()


# --- the hub ---------------------------------------------------------------------------------------------------------


def test_a_network_on_the_hub_is_loaded_as_one_on_disk(tmp_path, saved, monkeypatch):
    with fake_hub({"org/toy": saved}) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        by_library = MaskletClassifier.from_pretrained("org/toy")
        at_revision = MaskletClassifier.from_pretrained("org/toy", revision=COMMIT)
        by_us = MaskletClassifier.load(MaskletClassifier.find("toy", {"toy": "org/toy"}))
    for network in (by_library, at_revision, by_us):
        assert network.predict(ROWS).tolist() == make().predict(ROWS).tolist()


def test_a_revision_that_is_not_there_is_named(tmp_path, saved, monkeypatch):
    with fake_hub({"org/toy": saved}) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        with pytest.raises(WeightsError, match="org/toy has no revision 'v9'"):
            MaskletClassifier.find("org/toy@v9", {})
        with pytest.raises(WeightsError, match="org/toy has no revision 'v9'"):
            MaskletClassifier.from_pretrained("org/toy", revision="v9")


def test_a_network_can_be_pushed(monkeypatch, tmp_path):
    """What would be uploaded is what `save_pretrained` writes."""
    from huggingface_hub import hub_mixin

    uploaded = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, *, folder_path, **options):
            uploaded.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
            return "address"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    network = make(training=TRAINING)
    assert network.push_to_hub("org/toy") == "address"
    network.save_pretrained(tmp_path)
    assert uploaded == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize("option", [{"dropuot": 0.2}, {"dropout": 0.2}, {"strict": True}])
def test_options_of_from_pretrained_do_not_vanish(saved, option):
    with pytest.raises(SettingsError, match=rf"takes no {next(iter(option))}: config\.json says"):
        MaskletClassifier.from_pretrained(saved, **option)


# --- what is not loaded ----------------------------------------------------------------------------------------------


def test_networks_of_another_kind_are_named(saved):
    change_config(saved, format="sam2vss learned fusion 1")
    with pytest.raises(WeightsError, match="kind 'sam2vss learned fusion 1', expected 'sam2vss masklet classifier 1'"):
        load(saved)
    change_config(saved, format=..., model_type="segformer")
    with pytest.raises(WeightsError, match=r"of type 'segformer', expected .*made by `sam2vss train`"):
        load(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", r"config\.json is missing"), ("model.safetensors", r"model\.safetensors is missing")],
)
def test_a_missing_file_is_named(saved, name, message):
    (saved / name).unlink()
    with pytest.raises(WeightsError, match=message):
        load(saved)
    with pytest.raises(WeightsError, match=message):
        MaskletClassifier.from_pretrained(saved)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle file was opened",)


def test_weights_in_a_pickle_file_are_never_opened(saved):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    for read in (load, MaskletClassifier.from_pretrained):
        with pytest.raises(WeightsError, match=r"only in pytorch_model\.bin, a pickle file, which can run code"):
            read(saved)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_cut_off_weights_are_named(saved, share):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(WeightsError, match=r"saved cannot be loaded \(SafetensorError"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("scale.mean"), r"Missing key\(s\).*mean"),
        (lambda weights: weights.update(more=torch.zeros(1)), r"Unexpected key\(s\).*more"),
        (lambda weights: weights.update({"scale.mean": torch.zeros(3)}), "size mismatch for scale.mean"),
    ],
    ids=["missing", "surplus", "size"],
)
def test_weights_that_are_not_those_of_the_network_are_named(saved, change, message):
    weights = load_file(saved / "model.safetensors")
    change(weights)
    save_file(weights, saved / "model.safetensors")
    for read in (load, MaskletClassifier.from_pretrained):
        with pytest.raises(WeightsError, match=rf"(?s)saved cannot be loaded \(RuntimeError.*{message}"):
            read(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stranger": 1}, "cannot be loaded .*stranger"),
        ({"label_set": ...}, "cannot be loaded .*label_set"),
        ({"label_set": {"classes": [3]}}, "cannot be loaded"),
        ({"label_set": {"classes": []}}, r"config\.json that makes no sense: a label set needs 1 to"),
        ({"encoder": {"name": "x"}}, "cannot be loaded .*fingerprint"),
        ({"head": "perceptron"}, r"config\.json that makes no sense: the head of a classifier is 'perceptron'"),
        ({"scope": "clip"}, r"config\.json that makes no sense: the scope"),
        ({"levels": ["finest"]}, r"config\.json that makes no sense: .*finest is not among them"),
        ({"stored_parts": ["median"]}, r"config\.json that makes no sense: pooling is"),
        ({"hidden": 16}, "size mismatch"),
        ({"hidden": "many"}, "cannot be loaded"),
        ({"vote_weight": 2}, r"config\.json that makes no sense: the weight of base votes is 2, expected 0 to 1"),
        ({"vote_weight": "much"}, "cannot be loaded"),
        ({"training": "long"}, "cannot be loaded"),
    ],
    ids=str,
)
def test_a_config_that_makes_no_sense_is_named(saved, changes, message):
    change_config(saved, **changes)
    with pytest.raises(WeightsError, match=rf"(?s){message}"):
        load(saved)


def test_a_config_that_is_no_json_is_named(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        load(saved)


@pytest.mark.parametrize("value", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(1)])
def test_weights_that_are_no_finite_numbers_are_refused(saved, value):
    weights = load_file(saved / "model.safetensors")
    weights["scale.mean"] = value.expand(weights["scale.mean"].shape).clone()
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 of its weights are not finite numbers, the first is scale\.mean"):
        load(saved)
