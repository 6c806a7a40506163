"""From a data set to a saved network that names masklets: features, training, model card. What `train` does."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ..classifiers.classifier import MaskletClassifier
from ..classifiers.saving import SavedNetwork
from ..errors import RunError, SettingsError
from ..files import discard, publish, temporary_name, write_error
from ..masklet_features import MaskletFeatures, MaskletTruth
from .classifier import (
    ClassifierRecipe,
    TrainedClassifier,
    make_lessons,
    name_held_out,
    read_windows,
    split_windows_of,
    train_classifier,
)
from .feature_folder import FeatureFolder
from .fusion import FusionRecipe, TrainedFusion, train_fusion
from .metrics_log import FILE_NAME, TENSORBOARD_FOLDER

Windows = list[tuple[MaskletFeatures, MaskletTruth]]
Say = Callable[[dict[str, Any]], None]
NETWORK_FILES = ("model.safetensors", "README.md", "config.json")  # the last one says that the others are whole


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Windows to learn from and to stop by, and what their features are.

    Attributes:
        folder: One of the feature folders; all are alike.
        train: Training windows.
        validation: Validation windows.
        facts: Where they come from, for the model card.
        shares_clips: Whether clips to learn from are also among those to stop by, which makes scores optimistic.
    """

    folder: FeatureFolder
    train: Windows
    validation: Windows
    facts: dict[str, Any]
    shares_clips: bool = False


def read_training_data(
    folders: Sequence[FeatureFolder], validation: Sequence[FeatureFolder], share: float = 0.1
) -> TrainingData:
    """Read feature folders; without validation folders a share of the training windows is held out.

    Raises:
        SettingsError: If there are no folders, or a single window cannot be shared out.
        RunError: If folders hold features of different encoders, pooling or classes, or are not complete.
        MediaError: If a file is damaged.
    """
    if not folders:
        raise SettingsError("there is nothing to train on: pass --data or --features")
    first = folders[0]
    for other in (*folders[1:], *validation):
        differing = [] if _features_of(other) == _features_of(first) else ["encoder"]
        differing += [] if other.info["pooling"] == first.info["pooling"] else ["pooling"]
        differing += [] if other.label_space.names == first.label_space.names else ["classes"]
        if differing:
            raise RunError(f"{first.path} and {other.path} differ in {', '.join(differing)}: they cannot be mixed")
    kinds: list[str] = []
    facts: dict[str, Any] = {"training": [folder.info["data"]["name"] for folder in folders]}
    if validation:
        train = [window for folder in folders for window in read_windows(folder)]
        held = [window for folder in validation for window in read_windows(folder)]
        facts["validation"] = [folder.info["data"]["name"] for folder in validation]
    else:
        train, held = [], []
        for folder in folders:
            some, others = split_windows_of(folder, share)
            train += some
            held += others
        kinds = sorted({name_held_out(folder) for folder in folders})
        facts["validation"] = f"{' and '.join(kinds)} of the training data ({100 * share:g} %)"
    facts |= {"training windows": len(train), "validation windows": len(held), "masklets by": _source(first)}
    facts |= _masklet_facts(first)
    return TrainingData(first, train, held, facts, shares_clips=any(kind != "last clips" for kind in kinds))


def _features_of(folder: FeatureFolder) -> dict[str, Any] | None:
    """Return what tells features apart; the name does not: weights at two places have equal fingerprints."""
    return None if folder.encoder is None else {key: folder.encoder[key] for key in folder.encoder if key != "name"}


def _source(folder: FeatureFolder) -> str:
    """Say in words where masklets and base labels come from, without the paths of this machine."""
    source = folder.info["source"]
    names = ("tracker", "sam2", "mode", "image_size", "segmenter", "labels")
    shown = {name: str(source[name]).rstrip("/").rsplit("/", 1)[-1] for name in names if source.get(name)}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _masklet_facts(folder: FeatureFolder) -> dict[str, Any]:
    """Return the window, and where SAM 2 made the masklets its point grid and thresholds."""
    facts = {"frames per window": folder.info["window"]}
    source = folder.info["source"]
    settings = source.get("masklets") or {}
    if source.get("tracker") == "sam2" and settings:
        values = [f"{name.replace('_', ' ')} {value}" for name, value in settings.items() if name != "window"]
        facts["masklet settings"] = values
    return facts


def check_place(out: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a network already, unless it is one of ours and shall be replaced.

    Raises:
        RunError: If it does, or `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file, expected a folder to write into; choose another --out")
    if not (out / "config.json").is_file():
        others = [name for name in (*NETWORK_FILES, FILE_NAME) if (out / name).exists()]
        if others and not any((out / name).is_dir() for name in (TENSORBOARD_FOLDER, "features")):
            raise RunError(f"{out} holds a {others[0]} that is not of a network of ours: choose another --out")
        return  # free, or left by an earlier call that was interrupted
    if not _is_ours(out / "config.json"):
        raise RunError(f"{out} holds another model, which stays: choose another --out")
    if not overwrite:
        raise RunError(f"{out} already holds a network: replace it with --overwrite, or choose another --out")


def _is_ours(config: Path) -> bool:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("sam2vss masklet")


def make_classifier(
    data: TrainingData, recipe: ClassifierRecipe, out: Path, say: Say | None = None
) -> TrainedClassifier:
    """Train a classifier and save it into `out`, with its model card; the features stay where they are.

    Raises:
        SettingsError: If there is nothing to learn from.
        MediaError: If the folder cannot be written.
    """
    trained = train_classifier(data.folder, data.train, data.validation, recipe, out, say)
    network = trained.network
    lessons = make_lessons(data.train, recipe.scope, recipe.weighting)
    targets = lessons.targets(recipe.purity)
    counts = np.bincount(targets[targets >= 0], minlength=network.label_space.num_classes)
    names = network.label_space.names
    facts = {
        **data.facts,
        "training masks": len(targets),
        "masks that teach": int((targets >= 0).sum()),
        "by class": [f"{name} {count}" for name, count in zip(names, counts.tolist(), strict=True)],
    }
    scores = {"mask mIoU": trained.miou, "mask accuracy": trained.accuracy, "passes": trained.epochs}
    steps = {**asdict(recipe), "levels": network.about["levels"]}
    network.note_training({"data": facts, "recipe": steps, "scores": scores})
    save_network(network, out)
    return trained


def make_fusion(
    data: TrainingData,
    recipe: FusionRecipe,
    out: Path,
    say: Say | None = None,
    classifier: MaskletClassifier | None = None,
) -> TrainedFusion:
    """Train a learned fusion and save it into `out`, with its model card; see `make_classifier`."""
    trained = train_fusion(data.folder, data.train, data.validation, recipe, out, say, classifier)
    scores = {
        "mask mIoU": trained.miou,
        "mask mIoU of the majority vote": trained.majority_miou,
        "mask mIoU if most pixels were right": trained.best_miou,
        "masklets that leave the base labels": trained.kept,
        "passes": trained.epochs,
    }
    levels = recipe.levels or ((data.folder.encoder or {}).get("level_names", ()) if recipe.uses_features else ())
    steps = {**asdict(recipe), "levels": levels}
    trained.network.note_training({"data": data.facts, "recipe": steps, "scores": scores})
    save_network(trained.network, out)
    return trained


def save_network(network: SavedNetwork, out: Path) -> None:
    """Save a network so that its files are there whole or not at all; config.json, which says so, comes last.

    Raises:
        MediaError: If the folder cannot be written.
        SettingsError: If weights are not finite.
    """
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise SettingsError("weights grew beyond all numbers in training, so nothing is saved: lower --rate")
    place = temporary_name(out / "network")
    try:
        network.save_pretrained(place)  # type: ignore[operator] # the hub library has no types
        shutil.copymode(place / "config.json", place / "model.safetensors")  # else only its owner may read it
        discard(out / "config.json")  # an earlier network's, which must not be left with new weights
        for name in NETWORK_FILES:
            publish(place / name, out / name)
    except (OSError, SafetensorError) as error:
        raise write_error(out, error) from error
    finally:
        for file in place.iterdir() if place.is_dir() else ():
            discard(file)
        if place.is_dir():
            place.rmdir()
