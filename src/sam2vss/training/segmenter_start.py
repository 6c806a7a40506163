"""Where a training of a segmenter starts: a model of a hub, a native one by name, or what was trained before."""

import re
from pathlib import Path
from typing import Final

from ..errors import SettingsError
from ..segmenters import find_segmenter
from ..segmenters.hub_models import SEGMENTER_NAMES
from ..segmenters.kinds import kind_of
from ..segmenters.vss.architecture import Family
from ..segmenters.vss.frames import TEST_SCALE
from ..segmenters.vss.mit import MIT_SIZES
from ..types import LabelSpace
from .segmenter_hub import TRAINABLE_FAMILIES, load_hub_trainable
from .segmenter_model import TrainableSegmenter
from .segmenter_native import load_native_trainable, new_native_trainable

NATIVE_FAMILIES: Final[dict[str, Family]] = {
    "segformer-vss": "SegFormer",
    "cffm": "CFFM",
    "mrcfa": "MRCFA",
    "tv3s": "TV3S",
}
DEFAULT_SCALE: Final = TEST_SCALE  # longer and shorter side, VSPW's
_NATIVE_NAME: Final = re.compile(rf"({'|'.join(NATIVE_FAMILIES)})-(b\d)")


def load_start(
    name: str, backbone: str | None, label_space: LabelSpace, scale: tuple[int, int] | None, seed: int
) -> TrainableSegmenter:
    """Load what a training starts from, ready for the classes of its data.

    Args:
        name: "segformer-nano" (bundled), an alias, a hub id or a folder of SegFormer or UPerNet; the name of a native
            model such as "cffm-b1", which starts from random weights; a native checkpoint or folder.
        backbone: For the name of a native model: encoder weights, see `segmenter_native`.
        label_space: Classes to tell apart.
        scale: Longer and shorter side that frames are fitted into; None: as the model's preprocessing says.
        seed: Of new weights.

    Raises:
        WeightsError: If weights cannot be had or read.
        SettingsError: If the model cannot be trained, or the options do not go together.
    """
    native = _NATIVE_NAME.fullmatch(name)
    if native is None and backbone is not None:
        raise SettingsError(
            f"--backbone gives encoder weights to a native model that starts from nothing ({_native_names()}); "
            f"{name} has its own: leave it out"
        )
    if native is not None:
        if native[2] not in MIT_SIZES:
            raise SettingsError(f"there is no native model {name}, expected one of {_native_names()}")
        _check_native_scale(scale)
        return new_native_trainable(NATIVE_FAMILIES[native[1]], native[2], backbone, label_space, seed)
    if name not in SEGMENTER_NAMES and name.startswith(tuple(NATIVE_FAMILIES)) and not Path(name).exists():
        raise SettingsError(f"there is no native model {name}, expected one of {_native_names()}")
    location = find_segmenter(name)
    kind = kind_of(location)
    if kind == "native":
        _check_native_scale(scale)
        return load_native_trainable(location, label_space, seed)
    if kind == "VidEoMT checkpoint":
        raise SettingsError(f"{name} is a VidEoMT, which `train segmenter` cannot train. {TRAINABLE_FAMILIES}")
    return load_hub_trainable(location, label_space, scale, seed)


def _check_native_scale(scale: tuple[int, int] | None) -> None:
    if scale != DEFAULT_SCALE:
        raise SettingsError(
            f"native models see frames fitted into {DEFAULT_SCALE[0]}x{DEFAULT_SCALE[1]} at inference, so they are "
            "trained at that size: leave --scale out"
        )


def _native_names() -> str:
    return ", ".join(f"{family}-b0 to -b5" for family in NATIVE_FAMILIES)
