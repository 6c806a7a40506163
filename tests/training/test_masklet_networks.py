"""From folders of features to saved networks: what may be mixed, what is written, and that it is written whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
from sam2vss.classifiers.classifier import MaskletClassifier
from sam2vss.classifiers.fusion import MaskletFusion
from sam2vss.dataset_clips import find_dataset_clips
from sam2vss.errors import MediaError, RunError, SettingsError
from sam2vss.pooling import Pooling
from sam2vss.segmenters import ModelLabels
from sam2vss.training import masklet_networks
from sam2vss.training.classifier import ClassifierRecipe
from sam2vss.training.feature_folder import FeatureFolder, FeatureMaker, make_features
from sam2vss.training.fusion import FusionRecipe
from sam2vss.training.masklet_networks import (
    TrainingData,
    check_place,
    make_classifier,
    make_fusion,
    read_training_data,
    save_network,
)
from toy import CLASSES, ExactTracker
from toy_bench import write_data
from toy_features import ClassEncoder, perfect_classifier

CLASSIFIER = ClassifierRecipe(hidden=8, epochs=2, rate=0.05, batch=16)
FUSION = FusionRecipe(hidden=8, epochs=2, batch=16, spans=1)
FILES = ["README.md", "config.json", "metrics.jsonl", "model.safetensors", "tensorboard"]


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, FeatureFolder]:
    """Folders of the same two clips, 13 and 8 frames in windows of 4; "other ..." differ from "one" in one thing."""
    root = tmp_path_factory.mktemp("features")
    data = find_dataset_clips(write_data(root / "data", clips={"a": 13, "b": 8}))
    source = {"tracker": "exact", "sam2": "nano", "mode": None, "labels": "/home/me/predictions", "weights": {"x": "y"}}
    maker = FeatureMaker(ExactTracker(), ClassEncoder(), Pooling(), 4, ModelLabels(toy.NoisySegmenter(0.2)), source)
    elsewhere = ClassEncoder()
    elsewhere.name = "toy-classes-elsewhere"
    makers = {
        "one": maker,
        "two": replace(maker, window=5),
        "elsewhere": replace(maker, encoder=elsewhere),
        "other encoder": replace(maker, encoder=ClassEncoder("other")),
        "no encoder": replace(maker, encoder=None),
        "other pooling": replace(maker, pooling=Pooling(("mean", "max"))),
    }
    return {name: make_features(root / name, data, one) for name, one in makers.items()}


@pytest.fixture(scope="module")
def lessons(made) -> TrainingData:
    return read_training_data([made["one"]], [])


def starts_of(windows) -> list[tuple[int, int]]:
    return [(known.window.start, known.window.length) for known, _ in windows]


def files_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# --- reading ---------------------------------------------------------------------------------------------------------


def test_the_last_windows_are_held_out_of_every_folder(made):
    data = read_training_data([made["one"], made["two"]], [])
    # clip a has 4 windows of 4 (the last of 1) and 3 of 5, clip b 2 of both
    assert starts_of(data.train) == [(0, 4), (4, 4), (8, 4), (0, 4), (0, 5), (5, 5), (0, 5)]
    assert starts_of(data.validation) == [(12, 1), (4, 4), (10, 3), (5, 3)]
    assert data.folder is made["one"]
    assert data.facts == {
        "training": ["toy val", "toy val"],
        "validation": "last windows of the training data (10 %)",
        "training windows": 7,
        "validation windows": 4,
        "masklets by": "tracker exact, sam2 nano, labels predictions",
        "frames per window": 4,
    }
    assert data.shares_clips
    more = read_training_data([made["one"]], [], 0.5)
    assert starts_of(more.validation) == [(8, 4), (12, 1), (4, 4)]


def test_settings_of_sam_2_are_facts(made):
    settings = {"window": 4, "points": 16, "pred_iou": 0.6}
    source = {"tracker": "sam2", "masklets": settings}
    one = FeatureFolder(made["one"].path, {**made["one"].info, "source": source})
    facts = read_training_data([one], []).facts
    assert facts["masklet settings"] == ["points 16", "pred iou 0.6"]
    assert facts["frames per window"] == 4


def test_folders_for_validation_validate(made):
    data = read_training_data([made["one"]], [made["two"]])
    assert starts_of(data.train) == [(0, 4), (4, 4), (8, 4), (12, 1), (0, 4), (4, 4)]
    assert starts_of(data.validation) == [(0, 5), (5, 5), (10, 3), (0, 5), (5, 3)]
    assert data.facts["validation"] == ["toy val"]
    assert not data.shares_clips


def test_the_same_encoder_at_another_place_is_the_same(made):
    data = read_training_data([made["one"]], [made["elsewhere"]])
    assert len(data.validation) == 6


@pytest.mark.parametrize(
    ("name", "what"), [("other encoder", "encoder"), ("no encoder", "encoder"), ("other pooling", "pooling")]
)
def test_features_that_differ_are_not_mixed(made, name, what):
    for folders, held in (
        ([made["one"], made[name]], []),
        ([made["one"]], [made[name]]),
        ([made[name], made["one"]], []),
    ):
        with pytest.raises(RunError, match=rf"and .* differ in {what}: they cannot be mixed"):
            read_training_data(folders, held)


def test_other_classes_are_not_mixed(made):
    info = {**made["one"].info, "label_set": {**CLASSES.to_dict(), "classes": CLASSES.to_dict()["classes"][:3]}}
    with pytest.raises(RunError, match="differ in classes: they cannot be mixed"):
        read_training_data([made["one"], FeatureFolder(Path("other"), info)], [])


def test_nothing_to_train_on_is_named():
    with pytest.raises(SettingsError, match="nothing to train on: pass --data or --features"):
        read_training_data([], [])


def test_features_that_are_not_complete_are_named(made):
    begun = FeatureFolder(made["one"].path, {**made["one"].info, "done": {"a": [0]}})
    with pytest.raises(RunError, match="holds no features of clip b: make them to the end with --resume"):
        read_training_data([begun], [])


# --- where to --------------------------------------------------------------------------------------------------------


def test_a_network_is_replaced_only_if_asked(tmp_path):
    check_place(tmp_path / "new", overwrite=False)
    (tmp_path / "notes.txt").write_text("mine")
    check_place(tmp_path, overwrite=False)
    (tmp_path / "config.json").write_text(json.dumps({"format": MaskletFusion.format}))
    with pytest.raises(RunError, match="already holds a network: replace it with --overwrite, or choose another"):
        check_place(tmp_path, overwrite=False)
    check_place(tmp_path, overwrite=True)
    with pytest.raises(RunError, match="is a file, expected a folder to write into"):
        check_place(tmp_path / "notes.txt", overwrite=True)


@pytest.mark.parametrize("content", ['{"model_type": "segformer"}', "[1]", "{", '{"format": 3}'])
@pytest.mark.parametrize("overwrite", [True, False])
def test_other_models_are_never_replaced(tmp_path, content, overwrite):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match="holds another model, which stays: choose another --out"):
        check_place(tmp_path, overwrite)


# --- making ----------------------------------------------------------------------------------------------------------


def test_a_classifier_is_written_with_all_that_belongs_to_it(tmp_path, lessons):
    told = []
    trained = make_classifier(lessons, CLASSIFIER, tmp_path / "out", told.append)
    assert files_of(tmp_path / "out") == FILES
    assert len(told) == trained.epochs == 2
    found = MaskletClassifier.load(MaskletClassifier.find(str(tmp_path / "out"), {}))
    record = found.training_record
    assert record["scores"] == {"mask mIoU": trained.miou, "mask accuracy": trained.accuracy, "passes": 2}
    assert record["recipe"]["hidden"] == 8
    facts = record["data"]
    rows = sum(int((known.areas > 0).sum()) for known, _ in lessons.train)
    assert facts["training masks"] == facts["masks that teach"] == rows  # each holds one class
    assert sum(int(text.rsplit(" ", 1)[1]) for text in facts["by class"]) == rows
    assert facts["by class"][0] == "ground 0"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| masklets by | tracker exact, sam2 nano, labels predictions |" in card
    assert "/home" not in card
    for name, tensor in trained.network.state_dict().items():
        assert tensor.tolist() == found.state_dict()[name].tolist()


def test_a_fusion_is_written_with_all_that_belongs_to_it(tmp_path, lessons):
    trained = make_fusion(lessons, FUSION, tmp_path / "out")
    assert files_of(tmp_path / "out") == FILES
    found = MaskletFusion.load(MaskletFusion.find(str(tmp_path / "out"), {}))
    assert found.training_record["scores"] == {
        "mask mIoU": trained.miou,
        "mask mIoU of the majority vote": trained.majority_miou,
        "mask mIoU if most pixels were right": trained.best_miou,
        "masklets that leave the base labels": trained.kept,
        "passes": 2,
    }
    assert found.training_record["data"] == lessons.facts
    assert not found.is_bound
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 2
    make_fusion(lessons, FUSION, tmp_path / "out")
    assert len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) == 2  # those of the first are gone


def test_the_same_call_writes_the_same_files(tmp_path, lessons):
    for name in ("a", "b"):
        make_fusion(lessons, FUSION, tmp_path / name)
        make_classifier(lessons, CLASSIFIER, tmp_path / name / "classifier")
    for file in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        one, other = (tmp_path / name / "classifier" / file for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", ["model.safetensors", "README.md", "config.json"])
def test_a_save_that_breaks_off_leaves_no_half_network(tmp_path, monkeypatch, fails_at):
    out = tmp_path / "out"
    out.mkdir()
    save_network(perfect_classifier(vote_weight=0.25), out)
    network = perfect_classifier(vote_weight=0.75)
    network.head.layers[0].bias.data.fill_(3)
    original = masklet_networks.publish

    def publish(temporary: Path, path: Path) -> None:
        if path.name == fails_at:
            raise OSError(28, "No space left on device")
        original(temporary, path)

    monkeypatch.setattr(masklet_networks, "publish", publish)
    with pytest.raises(MediaError, match=r"the disk is full while writing .*out"):
        save_network(network, out)
    assert "config.json" not in files_of(out)  # what is left is not taken for a network
    assert not [name for name in files_of(out) if name.startswith(".")]
    monkeypatch.setattr(masklet_networks, "publish", original)
    save_network(network, out)
    found = MaskletClassifier.load(MaskletClassifier.find(str(out), {}))
    assert found.vote_weight == 0.75
    assert found.head.layers[0].bias.tolist() == [3] * 4


def test_an_earlier_network_stays_where_training_finds_nothing_to_learn(tmp_path, lessons):
    save_network(perfect_classifier(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    empty = TrainingData(lessons.folder, lessons.train, [], {})
    with pytest.raises(SettingsError, match="there is no masklet in these clips"):
        make_classifier(empty, CLASSIFIER, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_one_class_only_is_learnt(tmp_path, lessons):
    """A network that knows one class gives it everywhere."""
    only = [(known, replace(truth, classes=truth.classes * (np.arange(4) == 2))) for known, truth in lessons.train]
    make_classifier(replace(lessons, train=only), CLASSIFIER, tmp_path / "out")
    found = MaskletClassifier.load(MaskletClassifier.find(str(tmp_path / "out"), {}))
    assert found.known_classes == (2,)
    assert "| without training masklets | ground, disc, late |" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "metrics.jsonl"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match=f"holds a {name} that is not of a network of ours"):
            check_place(tmp_path, overwrite)
    assert (tmp_path / name).read_text() == "mine"


def test_what_an_interrupted_training_left_may_be_replaced(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}")
    check_place(tmp_path, overwrite=False)


def test_weights_beyond_all_numbers_are_not_saved(tmp_path):
    network = perfect_classifier()
    network.scale.mean.fill_(float("inf"))
    with pytest.raises(SettingsError, match=r"weights grew beyond all numbers .* lower --rate"):
        save_network(network, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_files_of_a_network_can_be_read_by_the_same_people(tmp_path):
    save_network(perfect_classifier(), tmp_path)
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1
