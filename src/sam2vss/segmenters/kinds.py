"""Which of our classes a model's files are for, read off the files themselves."""

import json
from typing import Literal

from ..checkpoints import listed, read_weights
from ..errors import WeightsError
from ..hub import ModelLocation
from .videomt_checkpoints import is_videomt

Kind = Literal["image model", "VidEoMT folder", "VidEoMT checkpoint"]


def kind_of(location: ModelLocation) -> Kind:
    """Tell an image model from a video model, and a folder from a checkpoint.

    Raises:
        WeightsError: If a checkpoint cannot be read, or is of no family that is known here.
    """
    if location.path.is_dir():
        config = json.loads((location.path / "config.json").read_text(encoding="utf-8"))  # checked when it was found
        return "VidEoMT folder" if config.get("model_type") == "videomt" else "image model"
    weights = read_weights(location.path)
    if is_videomt(weights):
        return "VidEoMT checkpoint"
    raise WeightsError(
        f"{location.path} is a checkpoint of no segmentation model that is known here (it holds {listed(weights)}); "
        "expected VidEoMT as its authors released it, or a folder with config.json and model.safetensors"
    )
