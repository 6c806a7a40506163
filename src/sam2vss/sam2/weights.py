"""Loads SAM 2 weights, from a folder in transformers' format or from Meta's own checkpoint file.

`load_network` is the one door; `hub.py` finds the folder or file, `model.py` runs the network. Nothing that lies in a
file is ever run, and a network is only made of weights that are all there.
"""

import importlib.util
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import listed
from ..errors import SettingsError, WeightsError
from ..hub import quiet_transformers
from .edgetam import EdgeTamNetwork
from .meta_checkpoints import convert, read_checkpoint, recognise, video_config
from .model import Sam2Network
from .sizes import fitting_size, size_multiple


def load_network(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Sam2Network:
    """Load a network for inference.

    Args:
        path: A folder with config.json and safetensors in transformers' format (SAM 2, SAM 2.1, EdgeTAM, the tracker
            of SAM 3), or a `.pt` file as Meta released it (SAM 2, SAM 2.1; tiny, small, base-plus, large).
        device: Where the weights go.
        dtype: Their precision.

    Raises:
        WeightsError: If there is nothing at `path`, it is another kind of model or file, or weights are missing,
            left over or of another shape.
    """
    path = Path(path)
    model = _load_file(path, dtype) if path.is_file() else _load_folder(path, dtype)
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise WeightsError(f"{path} holds {listed(broken)} with values that are not finite: fetch the weights again")
    return _network(model.to(device), path)


def outline_network(path: Path) -> Sam2Network:
    """Build the network of `path` on the meta device, without its weights: to count operations and memory.

    Args:
        path: As in `load_network`; of a folder, only config.json is read.

    Raises:
        WeightsError: If there is nothing at `path`, or another kind of model or file.
    """
    from transformers import Sam2VideoModel

    path = Path(path)
    if path.is_file():
        model_class, config = Sam2VideoModel, video_config(recognise(_read_file(path), path))
        with torch.device("meta"):
            return _network(model_class(config), path)
    model_class = _model_class(path, _model_type(path))
    with _failing_as(path), quiet_transformers(), torch.device("meta"):
        config = model_class.config_class.from_pretrained(str(path), local_files_only=True)
        return _network(model_class(config), path)


def _network(model: Any, path: Path) -> Sam2Network:
    """Wrap one of transformers' models for inference."""
    from transformers import EdgeTamVideoModel

    network = EdgeTamNetwork(model) if isinstance(model, EdgeTamVideoModel) else Sam2Network(model)
    if size_multiple(model) is not None:
        try:
            fitting_size(model, network.input_size)
        except SettingsError as error:
            raise WeightsError(f"{path} describes a network that cannot run: {error}") from error
    return network.eval()


def _load_file(file: Path, dtype: torch.dtype) -> Any:
    """Build transformers' network for Meta's checkpoint and fill it."""
    from transformers import Sam2VideoModel

    weights = _read_file(file)
    config = video_config(recognise(weights, file))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Sam2VideoModel(config).state_dict().items()}
    state = convert(weights, shapes, file)
    with quiet_transformers():
        return Sam2VideoModel.from_pretrained(None, config=config, state_dict=state, dtype=dtype)


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        raise WeightsError(f"{file} says nothing about its network: pass the folder that holds it beside config.json")
    return read_checkpoint(file)


def _load_folder(folder: Path, dtype: torch.dtype) -> Any:
    """Load what `save_pretrained` wrote; transformers itself would fill gaps with random numbers."""
    from transformers import Sam2VideoModel

    model_class = _model_class(folder, _model_type(folder))
    with _failing_as(folder), quiet_transformers():
        model, report = model_class.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # without it the error does not say which; `_check` refuses them
            dtype=dtype,
        )
    surplus = set(report["unexpected_keys"])
    if model_class is Sam2VideoModel:  # transformers keeps silent about surplus memory weights; others it renames
        surplus |= _stored_names(folder) - model.state_dict().keys()
    _check(folder, report, surplus)
    return model


@contextmanager
def _failing_as(folder: Path) -> Iterator[None]:
    """Turn what transformers raises for a folder that makes no sense into `WeightsError`."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (
        *(OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError),
        *(SafetensorError, StrictDataclassError),
    ) as error:
        reason = shorten(f"{type(error).__name__}: {error}", 400)
        raise WeightsError(f"{folder} cannot be loaded as a SAM 2 video model: {reason}") from error
    except ImportError as error:  # the released EdgeTAM's encoder belongs to timm, which needs torchvision
        absent = [name for name in ("timm", "torchvision") if importlib.util.find_spec(name) is None]
        needed = " and ".join(absent) or shorten(str(error), 200)
        raise WeightsError(
            f"{folder} holds a network whose image encoder needs what this machine lacks: {needed}. Install that, or "
            "take a SAM 2 or SAM 2.1 checkpoint."
        ) from error


def _stored_names(folder: Path) -> set[str]:
    """Names of all tensors in the safetensors files that transformers loads from a folder."""
    from safetensors import safe_open

    whole = folder / "model.safetensors"
    names: set[str] = set()
    for file in [whole] if whole.is_file() else folder.glob("model-*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return names


def _check(folder: Path, report: Mapping[str, Any], surplus: Collection[str]) -> None:
    """Raise `WeightsError` unless the folder held exactly the weights its config.json describes."""
    missing = sorted(map(str, report["missing_keys"]))
    misshaped = [
        f"{name} {tuple(found)} instead of {tuple(expected)}"
        for name, found, expected in sorted(report["mismatched_keys"])
    ]
    described = "of the SAM 2 video model its config.json describes"
    if any(name.startswith("memory_attention.") for name in missing) and not misshaped:
        described += "; without memory it serves single images only"
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} weights {described} (first: {listed(missing)}). Take a complete SAM 2 or "
            "SAM 2.1 checkpoint."
        )
    if misshaped or surplus:
        raise WeightsError(
            f"{folder} cannot be loaded as a SAM 2 video model: its config.json describes another network than its "
            f"weights, {len(misshaped)} of another shape ({listed(misshaped) or 'none'}) and {len(surplus)} not part "
            f"of it ({listed(sorted(surplus)) or 'none'}). Take config.json and weights from one source."
        )


def _model_type(folder: Path) -> str:
    """Return the model type that the folder's config.json names."""
    if not folder.exists():
        raise WeightsError(f"{folder} holds no config.json and is no checkpoint file: No such file or folder")
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        checkpoints = sorted(file.name for file in folder.glob("*.pt"))
        advice = f" To load {checkpoints[0]}, pass the file instead of the folder." if checkpoints else ""
        raise WeightsError(
            f"{folder} holds no config.json that names a model type ({type(error).__name__}: {error}); expected a "
            f"folder with config.json and model.safetensors of a SAM 2 model in transformers' format.{advice}"
        ) from error


def _model_class(folder: Path, model_type: str) -> Any:
    """Choose transformers' class for a model type; it would take any other model for a SAM 2 without weights."""
    from transformers import EdgeTamVideoModel, Sam2VideoModel, Sam3TrackerVideoModel

    classes = {
        "sam2_video": Sam2VideoModel,
        "sam2": Sam2VideoModel,  # checkpoints serve videos and single images under either name
        "sam3_tracker_video": Sam3TrackerVideoModel,
        "sam3_video": Sam3TrackerVideoModel,  # detector and tracker in one folder: the tracker is taken out
        "edgetam_video": EdgeTamVideoModel,
        "edgetam": EdgeTamVideoModel,
    }
    if model_type not in classes:
        raise WeightsError(
            f"{folder} holds a model of type {model_type}, expected {', '.join(classes)}. Take a SAM 2 or SAM 2.1 "
            "checkpoint in transformers' format."
        )
    return classes[model_type]
