"""Native video models on disk: the published checkpoints, and the folders that our own training writes.

cffm_b1.pth                       {"state_dict": weights, "meta": {"CLASSES", ...}} of mmcv, nothing else needed
FOLDER/model.safetensors          the same names
FOLDER/config.json                {"format": "sam2vss segmenter", "family", "size", "label_space": {...}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ...checkpoints import read_torch_file, weights_in
from ...errors import LabelError, WeightsError
from ...files import atomic_write_json, discard, publish, temporary_name, write_error
from ...hub import ModelLocation
from ...types import LabelSpace
from ..class_names import label_space_of
from .architecture import Architecture, build_from
from .segformer import VssModel

FOLDER_FORMAT: Final = "sam2vss segmenter"
CONFIG_FILE: Final = "config.json"
WEIGHT_FILE: Final = "model.safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """A network and what its numbers mean; `names_are_guessed` by their number, where the file has no names."""

    model: VssModel
    architecture: Architecture
    label_space: LabelSpace
    names_are_guessed: bool = False


def load_model(location: ModelLocation) -> LoadedModel:
    """Load a checkpoint or one of our folders, as float32 on the CPU.

    Raises:
        WeightsError: If it cannot be read, or is no network of this family.
    """
    if location.path.is_dir():
        return _load_folder(location)
    content = read_torch_file(location.path)
    weights = weights_in(content, location.path)
    model, architecture = build_from(weights, location.id)
    names, count = _class_names(content), architecture.num_classes
    return LoadedModel(model.float(), architecture, label_space_of(count, names), len(names) != count)


def save_model(folder: Path, model: VssModel, architecture: Architecture, label_space: LabelSpace) -> None:
    """Write a network so that `--segmenter FOLDER` loads it; config.json comes last, so a folder with it is whole.

    Raises:
        MediaError: If it cannot be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = temporary_name(folder / WEIGHT_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        save_file(weights, temporary)
        publish(temporary, folder / WEIGHT_FILE)
    except (OSError, SafetensorError) as error:
        discard(temporary)
        raise write_error(folder / WEIGHT_FILE, error) from error
    config = {
        "format": FOLDER_FORMAT,
        "family": architecture.family,
        "size": architecture.size.name,
        "label_space": label_space.to_dict(),
    }
    atomic_write_json(folder / CONFIG_FILE, config)


def _load_folder(location: ModelLocation) -> LoadedModel:
    try:
        config = json.loads((location.path / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = load_file(location.path / WEIGHT_FILE)
        label_space = LabelSpace.from_dict(config["label_space"])
    except (OSError, ValueError, KeyError, TypeError, LabelError, SafetensorError) as error:
        raise WeightsError(f"{location.id} cannot be loaded: {error}") from error
    model, architecture = build_from(weights, location.id)
    said = (config.get("family"), config.get("size"), label_space.num_classes)
    found = (architecture.family, architecture.size.name, architecture.num_classes)
    if said != found:
        raise WeightsError(f"{location.path / CONFIG_FILE} speaks of {said}, but the weights beside it are {found}")
    return LoadedModel(model.float(), architecture, label_space)


def _class_names(content: Any) -> tuple[str, ...]:
    """Return the class names that mmcv stores with a checkpoint, () where there are none.

    Those of VSPW are a dictionary {"others": "0", "wall": "1", ...}, of which the networks know all but the first.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    names = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    names = [str(name) for name in names] if isinstance(names, Mapping | list | tuple) else []
    return tuple(names[1:] if names[:1] == ["others"] else names)
