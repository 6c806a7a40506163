"""Which of our classes a model's files are for, and what they hold, read off the files themselves.

The one place that knows all families: a new one is entered in `kind_of`, which loads nothing, and in `describe_file`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..checkpoints import listed, read_weights
from ..errors import WeightsError
from ..hub import ModelLocation, local_model
from ..types import LabelSpace
from .class_names import label_space_of
from .palettes import palette_of
from .preprocessing import Preprocessing
from .videomt_checkpoints import check_weights, is_of_vipseg, is_videomt, recognise, refuse_instances
from .vss.architecture import is_vss
from .vss.checkpoint import FOLDER_FORMAT, load_model
from .vss.contexts import Context, contexts_of

Kind = Literal["image model", "VidEoMT folder", "VidEoMT checkpoint", "native"]
UNKNOWN_LICENCE = "not stated in the files: see where they come from"


@dataclass(frozen=True)
class ModelDescription:
    """What a checkpoint or a model's folder holds.

    Attributes:
        path: The file or folder.
        family: Architecture and size, "" if unknown.
        class_set: Name of the label set, "" if unknown.
        num_classes: C, None if unknown.
        parameters: Number of weights, None if they could not be read.
        megabytes: Size of the weights.
        licence: As the files state it; "" for what is no model that can be loaded.
        problem: Why it cannot be loaded, "" if nothing speaks against it.
        label_space: Its classes, None if unknown.
        contexts: What a native model can look at, the default first; none for others.
        names_are_guessed: Whether the names of the classes follow from their number alone.
    """

    path: Path
    family: str = ""
    class_set: str = ""
    num_classes: int | None = None
    parameters: int | None = None
    megabytes: float = 0.0
    licence: str = ""
    problem: str = ""
    label_space: LabelSpace | None = field(default=None, repr=False)
    contexts: tuple[Context, ...] = ()
    names_are_guessed: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of its classes in their order; none where nobody named them."""
        space = self.label_space
        if space is None or space.names == LabelSpace.numbered(space.num_classes).names:
            return ()
        return space.names


def kind_of(location: ModelLocation) -> Kind:
    """Tell an image model from a video model, and a folder from a checkpoint where they are loaded differently.

    "native" are SegFormer, CFFM, MRCFA and TV3S as `vss/` has them.

    Raises:
        WeightsError: If a checkpoint cannot be read, or is of no family that is known here.
    """
    if location.path.is_dir():
        config = _config_of(location.path)
        if config.get("format") == FOLDER_FORMAT:
            return "native"
        return "VidEoMT folder" if config.get("model_type") == "videomt" else "image model"
    weights = read_weights(location.path)
    if is_videomt(weights):
        return "VidEoMT checkpoint"
    if is_vss(weights):
        return "native"
    raise WeightsError(_stranger(weights, location.path))


def describe_model(path: Path) -> ModelDescription:
    """Say what lies in a file or folder; what cannot be loaded is described as far as it can be read.

    Raises:
        WeightsError: If there is nothing at `path`.
    """
    if path.is_dir():
        return describe_folder(path)
    if path.is_file():
        return describe_file(path)
    raise WeightsError(f"there is no file or folder {path}; `sam2vss models` lists the names that are known")


def describe_file(file: Path) -> ModelDescription:
    """Describe a checkpoint."""
    megabytes = round(file.stat().st_size / 1e6, 1)
    try:
        weights = read_weights(file)
    except WeightsError as error:
        return ModelDescription(file, megabytes=megabytes, problem=str(error))
    parameters = sum(tensor.numel() for tensor in weights.values())
    if is_vss(weights):
        return _describe_native(ModelLocation(str(file), file), parameters, megabytes)
    if not is_videomt(weights):
        return ModelDescription(file, parameters=parameters, megabytes=megabytes, problem=_stranger(weights, file))
    try:
        architecture = recognise(weights, file)
        check_weights(weights, architecture, file)
    except WeightsError as error:
        return ModelDescription(file, "VidEoMT", parameters=parameters, megabytes=megabytes, problem=str(error))
    space = label_space_of(architecture.classes)
    order = "VIPSeg's, in VSPW's order" if is_of_vipseg(file, architecture.classes) else ""
    return ModelDescription(
        file,
        f"{architecture}, {architecture.queries} queries",
        order or space.name,
        architecture.classes,
        parameters,
        megabytes,
        UNKNOWN_LICENCE,
        label_space=space,
        names_are_guessed=True,
    )


def describe_folder(folder: Path) -> ModelDescription:
    """Describe a folder in transformers' format."""
    from .hub_models import folder_label_space, known_model_types

    try:
        location = local_model(folder)
    except WeightsError as error:
        return ModelDescription(folder, problem=str(error))
    config = _config_of(folder)
    if config.get("format") == FOLDER_FORMAT:
        megabytes = round(location.num_bytes / 1e6, 1)
        licence = _stated_licence(folder, UNKNOWN_LICENCE)
        return _describe_native(location, _count_parameters(location), megabytes, licence)
    model_type = str(config.get("model_type", ""))
    names = tuple(str(name) for name in config.get("id2label", {}).values())
    class_set = palette_of(names)[0] if names else ""
    parameters = _count_parameters(location)
    problem = "" if parameters is not None else f"{folder}: its safetensors are cut short or damaged. Fetch them again"
    space: LabelSpace | None = None
    if model_type not in known_model_types():
        problem = f"a {model_type or 'nameless'} model does no semantic segmentation in transformers"
    else:
        try:
            Preprocessing.from_folder(folder, model_type)
            if model_type == "videomt":
                refuse_instances(len(names), str(folder))
            space = folder_label_space(location)
        except WeightsError as error:
            problem = str(error)
    return ModelDescription(
        folder,
        model_type,
        class_set or ", ".join(names[:3]) + ", ..." * (len(names) > 3),
        len(names) or None,
        parameters,
        round(location.num_bytes / 1e6, 1),
        _stated_licence(folder, "" if problem else UNKNOWN_LICENCE),
        problem,
        space,
        names_are_guessed=names == tuple(f"LABEL_{i}" for i in range(len(names))),
    )


def _describe_native(
    location: ModelLocation, parameters: int | None, megabytes: float, licence: str = UNKNOWN_LICENCE
) -> ModelDescription:
    """Describe SegFormer, CFFM, MRCFA or TV3S, by loading it, so that whatever is wrong with it shows."""
    try:
        loaded = load_model(location)
    except WeightsError as error:
        return ModelDescription(location.path, parameters=parameters, megabytes=megabytes, problem=str(error))
    architecture, space = loaded.architecture, loaded.label_space
    family = f"{architecture.family} MiT-{architecture.size.name.upper()}"
    return ModelDescription(
        location.path,
        family,
        space.name,
        space.num_classes,
        parameters,
        megabytes,
        licence,
        label_space=space,
        contexts=contexts_of(architecture.family),
        names_are_guessed=loaded.names_are_guessed,
    )


def _config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))  # `local_model` read it
    return config


def _count_parameters(location: ModelLocation) -> int | None:
    """Count the weights of a folder without reading them."""
    import safetensors

    count = 0
    try:
        for file in location.weight_files:
            with safetensors.safe_open(file, framework="np") as content:
                for name in content.keys():  # noqa: SIM118  # no mapping
                    size = 1
                    for side in content.get_slice(name).get_shape():
                        size *= side
                    count += size
    except (OSError, safetensors.SafetensorError):
        return None
    return count


def _stated_licence(folder: Path, unknown: str) -> str:
    """Return the licence that the model card in a folder names, else `unknown`."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return unknown
    stated = re.search(r"^licen[sc]e:\s*(\S[^\n]*)$", card, re.MULTILINE | re.IGNORECASE)
    return stated[1].strip() if stated else unknown


def _stranger(weights: Mapping[str, Tensor], file: Path) -> str:
    return (
        f"{file} is a checkpoint of no segmentation model that is known here (it holds {listed(weights)}); expected "
        "SegFormer, CFFM, MRCFA, TV3S or VidEoMT as their authors released them, or a folder with config.json and "
        "model.safetensors"
    )
