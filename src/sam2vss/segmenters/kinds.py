"""Which of our classes a model's files are for, read off the files themselves."""

import json
from typing import Literal

from ..checkpoints import listed, read_weights
from ..errors import WeightsError
from ..hub import ModelLocation
from .videomt_checkpoints import is_videomt
from .vss.architecture import is_vss
from .vss.checkpoint import FOLDER_FORMAT

Kind = Literal["image model", "VidEoMT folder", "VidEoMT checkpoint", "native"]


def kind_of(location: ModelLocation) -> Kind:
    """Tell an image model from a video model, and a folder from a checkpoint where they are loaded differently.

    "native" are SegFormer, CFFM, MRCFA and TV3S as `vss/` has them.

    Raises:
        WeightsError: If a checkpoint cannot be read, or is of no family that is known here.
    """
    if location.path.is_dir():
        config = json.loads((location.path / "config.json").read_text(encoding="utf-8"))  # checked when it was found
        if config.get("format") == FOLDER_FORMAT:
            return "native"
        return "VidEoMT folder" if config.get("model_type") == "videomt" else "image model"
    weights = read_weights(location.path)
    if is_videomt(weights):
        return "VidEoMT checkpoint"
    if is_vss(weights):
        return "native"
    raise WeightsError(
        f"{location.path} is a checkpoint of no segmentation model that is known here (it holds {listed(weights)}); "
        "expected SegFormer, CFFM, MRCFA, TV3S or VidEoMT as their authors released them, or a folder with config.json "
        "and model.safetensors"
    )
