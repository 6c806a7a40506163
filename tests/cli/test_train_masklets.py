"""`sam2vss train classifier` and `train fusion`: what they write, that they go on, and what they say to bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam2vss.classifiers.classifier import MaskletClassifier
from sam2vss.classifiers.fusion import MaskletFusion
from sam2vss.cli.training_features import FeatureOptions, gather
from sam2vss.settings import MaskletSettings
from sam2vss.trackers.superpixels import SuperpixelTracker
from sam2vss.training.feature_folder import FeatureFolder
from sam2vss.training.masklet_networks import read_training_data
from sam2vss.types import LabelSpace

ENCODER = "segmenter:segformer-nano/fused"
NETWORK = ["README.md", "config.json", "metrics.jsonl", "model.safetensors", "tensorboard"]


def files_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def on_features(street, out: Path, kind: str = "classifier", epochs: int = 2) -> list[object]:
    """The words that train on the features that lie with the classifier."""
    return ["train", kind, "--out", out, "--features", street.classifier / "features", "--epochs", epochs]


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_classifier_is_trained_on_a_data_set(street):
    assert files_of(street.classifier) == sorted([*NETWORK, "features"])
    network = MaskletClassifier.load(MaskletClassifier.find(str(street.classifier), {}))
    assert (network.encoder_name, network.scope, network.about["head"]) == (ENCODER, "frame", "mlp")
    assert network.vote_weight is not None
    record = network.training_record
    assert record["data"]["training"] == ["synthetic_street train"]
    assert (record["data"]["training windows"], record["data"]["validation windows"]) == (2, 2)
    assert record["data"]["masklets by"] == "tracker superpixel, labels base"
    assert (record["recipe"]["hidden"], record["recipe"]["levels"]) == (16, ["fused"])
    card = (street.classifier / "README.md").read_text()
    assert f"| learned weight of base votes | {network.vote_weight:.4g} |" in card
    assert "| frames per window | 2 |" in card
    assert str(street.root.parent) not in (street.classifier / "README.md").read_text()
    folder = FeatureFolder.open(street.classifier / "features")
    assert folder.is_complete
    assert folder.info["window"] == 2
    source = folder.info["source"]
    assert (source["tracker"], source["sam2"], source["mode"]) == ("superpixel", None, None)
    assert source["labels"] == str(street.base.resolve())
    assert len(source["labels_fingerprint"]) == 64


def test_a_fusion_is_trained_on_base_labels_alone(street):
    network = MaskletFusion.load(MaskletFusion.find(str(street.fusion), {}))
    assert not network.is_bound
    assert FeatureFolder.open(street.fusion / "features").encoder is None


def test_a_fusion_may_look_at_features(command, street, tmp_path):
    answer = command(*on_features(street, tmp_path / "out", "fusion"), "--use-features", "--no-keep", "--spans", 0)
    assert answer.code == 0, answer.text
    network = MaskletFusion.load(MaskletFusion.find(str(tmp_path / "out"), {}))
    assert (network.encoder_name, network.may_keep) == (ENCODER, False)
    assert files_of(tmp_path / "out") == NETWORK
    for line in ("mIoU of validation masklets, fusion", "the same, majority vote", "masklets that leave", "0.0 %"):
        assert line in answer.text


def test_the_end_and_the_progress_are_told(command, street, tmp_path):
    answer = command(*on_features(street, tmp_path / "out"))
    assert answer.code == 0, answer.text
    for line in ("passes", "mIoU of validation masks", "accuracy on pure", "weight learned for base votes", "network "):
        assert line in answer.out
    assert f"metrics {tmp_path / 'out' / 'metrics.jsonl'}" in answer.out
    assert "tensorboard --logdir" in answer.text
    assert "2/2 mask mIoU" in answer.text
    assert "masks that teach" in answer.out
    assert "validation is by the last windows of the training data (10 %), so its scores are optimistic" in answer.text
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_training_that_stops_early_is_shown_as_finished(command, street, tmp_path):
    answer = command(*on_features(street, tmp_path / "out", epochs=30), "--patience", 1, "--rate", 1e-9)
    assert answer.code == 0, answer.text
    passes = len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert passes < 30
    assert f"{passes}/{passes} mask mIoU" in answer.text


def test_options_reach_the_recipe(command, street, tmp_path):
    answer = command(*on_features(street, tmp_path / "out", epochs=1), "--head", "linear", "--scope", "window",
                     "--weighting", "quality", "--use-shape", "--balance", "none", "--purity", 0.9, "--seed", 5,
                     "--patience", 3, "--rate", 0.01, "--dropout", 0, "--levels", "fused")  # fmt: skip
    assert answer.code == 0, answer.text
    recipe = MaskletClassifier.load(MaskletClassifier.find(str(tmp_path / "out"), {})).training_record["recipe"]
    wanted = {"head": "linear", "scope": "window", "weighting": "quality", "uses_shape": True, "balance": "none",
              "purity": 0.9, "seed": 5, "patience": 3, "rate": 0.01, "dropout": 0, "levels": ["fused"]}  # fmt: skip
    assert {key: recipe[key] for key in wanted} == wanted


def test_options_come_from_a_file_too(command, street, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(f"features: [{street.classifier / 'features'}]\nepochs: 1\nhidden: 12\nhead: mlp\n")
    answer = command("train", "classifier", "--out", tmp_path / "out", "--hidden", 8, "--config", config)
    assert answer.code == 0, answer.text
    recipe = MaskletClassifier.load(MaskletClassifier.find(str(tmp_path / "out"), {})).training_record["recipe"]
    assert (recipe["epochs"], recipe["hidden"]) == (1, 8)
    config.write_text("hiden: 3\n")
    answer = command(*on_features(street, tmp_path / "other"), "--config", config)
    assert "hiden" in answer.message
    assert not (tmp_path / "other").exists()


# --- features --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_tracker(monkeypatch):
    """Fails where masklets are looked for."""

    class Tracker:
        def track(self, *arguments):
            pytest.fail("features were made again")

    monkeypatch.setattr("sam2vss.cli.masklet_run._tracker_without_weights", lambda *arguments: Tracker())


def test_features_that_are_there_are_used_again(command, street, tmp_path, no_tracker):
    out = tmp_path / "out"
    shutil.copytree(street.classifier / "features", out / "features")
    words = ["train", "classifier", "--out", out, "--data", street.root, "--labels", street.base, *street.how,
             "--encoder", ENCODER, "--epochs", 1]  # fmt: skip
    assert command(*words).code == 0
    answer = command(*words)
    assert "already holds a network: replace it with --overwrite, or choose another --out" in answer.message
    before = (out / "model.safetensors").read_bytes()
    assert command(*words, "--overwrite", "--seed", 1).code == 0
    assert (out / "model.safetensors").read_bytes() != before
    other = command(*(3 if word == 2 else word for word in words), "--overwrite")
    assert "holds features that differ from those asked for in window, source" in other.message


def test_changed_base_labels_are_noticed(command, street, tmp_path, no_tracker):
    out = tmp_path / "out"
    shutil.copytree(street.classifier / "features", out / "features")
    shutil.copytree(street.base, tmp_path / "base")
    info = json.loads((out / "features" / "features.json").read_text())
    info["source"]["labels"] = str(tmp_path / "base")
    (out / "features" / "features.json").write_text(json.dumps(info))
    words = ["train", "classifier", "--out", out, "--data", street.root, "--labels", tmp_path / "base", *street.how,
             "--encoder", ENCODER, "--epochs", 1]  # fmt: skip
    assert command(*words).code == 0
    first = next(iter(sorted((tmp_path / "base").rglob("*.png"))))
    shutil.copy(sorted((tmp_path / "base").rglob("*.png"))[1], first)
    assert "differ from those asked for in source" in command(*words, "--overwrite").message


def test_features_that_were_begun_go_on(command, street, tmp_path, monkeypatch):
    """Interrupted in the second clip: what is there is kept, and the result is that of one go."""
    out = tmp_path / "out"
    words = [
        "train",
        "fusion",
        "--out",
        out,
        "--data",
        street.root,
        "--labels",
        street.base,
        *street.how,
        "--epochs",
        3,
    ]

    original, starts = SuperpixelTracker.track, []

    def track(self, frames, start, context=None):
        starts.append(start)
        if len(starts) == 4:
            raise KeyboardInterrupt
        return original(self, frames, start, context)

    monkeypatch.setattr(SuperpixelTracker, "track", track)
    answer = command(*words)
    assert answer.code == 130
    assert "what is finished is kept; go on with the same command and --resume" in answer.text
    assert files_of(out) == ["features"]
    assert "holds features that were begun: go on with --resume" in command(*words).message
    assert command(*words, "--resume").code == 0
    assert starts == [0, 2, 0, 2, 0, 2]  # the first clip was not done again
    for file in ("config.json", "model.safetensors", "README.md"):
        assert (out / file).read_bytes() == (street.fusion / file).read_bytes()


def test_validation_clips_may_come_from_elsewhere(command, street, tmp_path):
    out = tmp_path / "out"
    words = [
        "train",
        "fusion",
        "--out",
        out,
        "--data",
        street.root,
        "--labels",
        street.base,
        *street.how,
        "--epochs",
        1,
    ]
    first, second = street.names
    answer = command(*words, "--only", first, "--val-data", street.root, "--val-only", second)
    assert answer.code == 0, answer.text
    assert files_of(out) == sorted([*NETWORK, "features", "val-features"])
    facts = json.loads((out / "config.json").read_text())["training"]["data"]
    assert facts["training"] == [f"synthetic_street ({first})"]
    assert facts["validation"] == [f"synthetic_street ({second})"]
    assert "optimistic" not in answer.text
    again = command("train", "fusion", "--out", tmp_path / "again", "--features", out / "features", "--val-features",
                    out / "val-features", "--epochs", 1)  # fmt: skip
    assert again.code == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_base_labels_without_a_label_set_are_of_the_truths(command, street, tmp_path):
    shutil.copytree(street.base, tmp_path / "base", ignore=shutil.ignore_patterns("*.json"))
    answer = command("train", "fusion", "--out", tmp_path / "out", "--data", street.root, "--labels", tmp_path / "base",
                     *street.how, "--epochs", 3)  # fmt: skip
    assert answer.code == 0, answer.text
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (street.fusion / "model.safetensors").read_bytes()


def test_a_data_set_without_lists_is_taken_whole(command, street, tmp_path):
    shutil.copytree(street.root, tmp_path / "data", ignore=shutil.ignore_patterns("train.txt"))
    answer = command("train", "fusion", "--out", tmp_path / "out", "--data", tmp_path / "data", "--labels", street.base,
                     *street.how, "--epochs", 1)  # fmt: skip
    assert answer.code == 0, answer.text
    facts = json.loads((tmp_path / "out" / "config.json").read_text())["training"]["data"]
    assert (facts["training"], facts["training windows"]) == (["synthetic_street"], 2)
    missing = command("train", "fusion", "--out", tmp_path / "other", "--data", tmp_path / "data", "--labels",
                      street.base, "--split", "train", *street.how)  # fmt: skip
    assert "train.txt does not exist" in missing.message


def test_one_class_only_in_the_truth_is_learnt(command, street, tmp_path):
    shutil.copytree(street.root, tmp_path / "data")
    for file in (tmp_path / "data").rglob("mask/*.png"):
        Image.fromarray(np.full((60, 80), 4, np.uint8)).save(file)
    answer = command("train", "classifier", "--out", tmp_path / "out", "--data", tmp_path / "data", "--encoder",
                     ENCODER, *street.how, "--epochs", 2, "--only", street.names[0])  # fmt: skip
    assert answer.code == 0, answer.text
    assert "no base votes" in answer.out
    network = MaskletClassifier.load(MaskletClassifier.find(str(tmp_path / "out"), {}))
    assert network.known_classes == (4,)
    unknown = [name for number, name in enumerate(network.label_space.names) if number != 4]
    assert f"no training masks: {', '.join(unknown)}; these classes are never given" in answer.text


# --- messages --------------------------------------------------------------------------------------------------------

DATA = ["--data", "DATA"]
LABELS = ["--labels", "BASE"]
FEATURES = ["--features", "FEATURES"]
BARE = ["--features", "BARE"]  # without an encoder
WRONG = [
    ("classifier", [], "there is nothing to train on: pass --data ROOT, or --features DIR"),
    ("classifier", DATA, "features need an encoder: pass --encoder sam2:nano"),
    ("classifier", [*FEATURES, "--val-data", "DATA"], "features need an encoder"),
    ("classifier", [*DATA, "--encoder", "sam2:nano", *LABELS, "--segmenter", "x"], "--labels and --segmenter both"),
    ("fusion", DATA, "a fusion weighs base votes: pass --labels DIR or --segmenter ID"),
    ("fusion", [*DATA, *LABELS, "--use-features"], "features need an encoder"),
    ("fusion", [*BARE, "--use-features"], "holds no features of an encoder: make them with --encoder"),
    ("classifier", BARE, "holds no features of an encoder"),
    ("classifier", [*FEATURES, *BARE], "differ in encoder: they cannot be mixed"),
    ("classifier", [*FEATURES, "--val-features", "BARE"], "differ in encoder: they cannot be mixed"),
    ("classifier", ["--features", "nowhere"], "nowhere holds no features: there is no features.json in it"),
    ("classifier", [*FEATURES, "--purity", "1.5"], "--purity is 1.5, expected 0 to 1"),
    ("classifier", [*FEATURES, "--purity", "nan"], "--purity is nan, expected 0 to 1"),
    ("classifier", [*FEATURES, "--dropout", "-0.1"], "--dropout is -0.1, expected 0 to 1"),
    ("classifier", [*FEATURES, "--hidden", "0"], "--hidden is 0, expected at least 1"),
    ("classifier", [*FEATURES, "--hidden", "6", "--head", "context"], "6 wide, expected a multiple of 4"),
    ("classifier", [*FEATURES, "--epochs", "0"], "--epochs is 0, expected at least 1"),
    ("classifier", [*FEATURES, "--patience", "0"], "--patience is 0, expected at least 1"),
    ("classifier", [*FEATURES, "--seed", "-1"], "--seed is -1, expected at least 0"),
    ("classifier", [*FEATURES, "--rate", "0"], "--rate is 0.0, expected a positive number"),
    ("classifier", [*FEATURES, "--rate", "1e30"], "lower the learning rate, 1e+30"),
    ("classifier", [*FEATURES, "--val-share", "1"], "--val-share is 1.0, expected more than 0 and less than 1"),
    (
        "classifier",
        [*FEATURES, "--use-tokens"],
        "holds no single cells for --use-tokens: make the features with --tokens 16",
    ),
    ("classifier", [*DATA, "--encoder", ENCODER, "--use-tokens"], "none are kept: pass --tokens 16"),
    ("classifier", [*FEATURES, "--pool", "ring"], "ring is not among them: make them again"),
    ("classifier", [*FEATURES, "--levels", "finest"], "finest is not among them: make them again"),
    ("classifier", [*FEATURES, "--split", "train"], "--split and --only choose clips of --data, and there are none"),
    ("classifier", [*FEATURES, "--val-tracker", "none"], "are for clips of --val-data, and there are none"),
    (
        "classifier",
        [*FEATURES, "--encoder", ENCODER, "--tracker", "superpixel", "--tokens", "4", "--window", "2"],
        "--encoder, --tokens, --tracker, --window would do nothing: features are stored as they were made",
    ),
    ("classifier", [*FEATURES, *LABELS], "--labels would do nothing"),
    ("classifier", [*FEATURES, "--segmenter", "x", "--image-size", "64"], "--segmenter, --image-size would do nothing"),
    ("fusion", [*FEATURES, "--val-features", "FEATURES", "--mode", "fast", "--sam2", "nano"], "--sam2, --mode would"),
    ("fusion", [*FEATURES, "--pred-iou", "0.5"], "Leave it out, or make new features with --data"),
    ("classifier", [*FEATURES, "--balance", "double"], "double"),
    ("classifier", [*DATA, "--encoder", ENCODER, "--tokens", "-1"], "pooling keeps -1 cells a mask, expected 0 to"),
    ("classifier", [*DATA, "--encoder", ENCODER, "--pool", "mean", "mean"], "expected different ones of mean, max"),
    ("classifier", [*DATA, "--encoder", "nonsense"], "nonsense"),
    ("classifier", [*DATA, "--encoder", ENCODER, "--tracker", "magic"], "--tracker magic is unknown"),
    ("classifier", [*DATA, "--encoder", ENCODER, "--tracker", "none"], "there is no masklet in these clips"),
    ("classifier", [*DATA, "--encoder", ENCODER, "--only", "clip9"], "1 of 1 named clips are not in"),
    ("classifier", ["--data", "nowhere", "--encoder", ENCODER], "nowhere"),
    ("fusion", [*FEATURES, "--spans", "-1"], "--spans is -1, expected at least 0"),
    ("fusion", [*FEATURES, "--blends", "1.5"], "--blends is 1.5, expected 0 to 1"),
    ("fusion", [*DATA, "--labels", "nowhere"], "nowhere does not exist, expected a folder of label PNGs"),
    ("fusion", [*DATA, "--labels", "OTHERS"], "base labels are of"),
]


@pytest.mark.parametrize(("kind", "words", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_is_named_and_nothing_half_written_stays(command, street, tmp_path, kind, words, message):
    places = {"DATA": street.root, "BASE": street.base, "FEATURES": street.classifier / "features"}
    places |= {"BARE": street.fusion / "features", "OTHERS": tmp_path / "others"}
    if "OTHERS" in words:
        shutil.copytree(street.base, tmp_path / "others")
        others = LabelSpace.numbered(10).to_dict()
        (tmp_path / "others" / "label_set.json").write_text(json.dumps(others))
    out = tmp_path / "out"
    how = ["--window", 2, *([] if "--tracker" in words else ["--tracker", "superpixel"])] if "DATA" in words else []
    answer = command("train", kind, "--out", out, *(places.get(word, word) for word in words), *how)
    assert message in answer.message
    left = files_of(out) if out.exists() else []
    assert not {"config.json", "model.safetensors", "README.md"} & set(left)
    assert not [name for name in left if name.startswith(".")]


def test_places_that_hold_something_else_are_named(command, street, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is a file, expected a folder to write into" in command(*on_features(street, tmp_path / "file")).message
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "segformer"}')
    answer = command(*on_features(street, tmp_path / "model"), "--overwrite")
    assert "holds another model, which stays: choose another --out" in answer.message
    assert files_of(tmp_path / "model") == ["config.json"]


def test_a_single_window_is_shared_out_by_frames(command, street, tmp_path):
    answer = command("train", "fusion", "--out", tmp_path / "out", "--data", street.root, "--labels", street.base,
                     "--tracker", "superpixel", "--only", street.names[0])  # fmt: skip
    assert answer.code == 0  # the last frames of the window validate
    assert {"config.json", "model.safetensors", "README.md", "features"} <= set(files_of(tmp_path / "out"))


def test_help_names_every_option(command):
    for kind in ("classifier", "fusion"):
        answer = command("train", kind, "--help")
        assert answer.code == 0
        for option in ("--data", "--features", "--val-share", "--encoder", "--seed", "--pred-iou", "--overwrite"):
            assert option in answer.out


def test_gathered_features_are_those_that_are_read(street):
    options = FeatureOptions(out=street.root / "nowhere", features=(street.classifier / "features",))
    found = gather(options, MaskletSettings(), needs_encoder=True, needs_votes=False)
    expected = read_training_data([FeatureFolder.open(street.classifier / "features")], [])
    assert found.facts == expected.facts
