"""Where a training of a segmenter starts: a model of a hub, a native one by name, or what was trained before."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..checkpoints import CHECKPOINT_SUFFIXES
from ..errors import SettingsError
from ..segmenters.hub_models import SEGMENTER_NAMES, find_model
from ..types import LabelSpace

if TYPE_CHECKING:
    from ..segmenters.vss.architecture import Family
    from .segmenter_model import TrainableSegmenter

NATIVE_FAMILIES: Final[dict[str, "Family"]] = {
    "segformer-vss": "SegFormer",
    "cffm": "CFFM",
    "mrcfa": "MRCFA",
    "tv3s": "TV3S",
}
DEFAULT_SCALE: Final = (853, 480)  # longer and shorter side, VSPW's
_NATIVE_NAME: Final = re.compile(rf"({'|'.join(NATIVE_FAMILIES)})-(b\d)")


def load_start(
    name: str, backbone: str | None, label_space: LabelSpace, scale: tuple[int, int] | None, seed: int
) -> "TrainableSegmenter":
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
    if native is not None or _is_native_file(name):
        from ..segmenters.vss.mit import MIT_SIZES
        from .segmenter_native import load_native_trainable, new_native_trainable

        if native is not None and native[2] not in MIT_SIZES:
            raise SettingsError(f"there is no native model {name}, expected one of {_native_names()}")
        if scale != DEFAULT_SCALE:
            raise SettingsError(
                f"native models see frames fitted into {DEFAULT_SCALE[0]}x{DEFAULT_SCALE[1]} at inference, so they are "
                "trained at that size: leave --scale out"
            )
        if native is None:
            return load_native_trainable(name, label_space, seed)
        return new_native_trainable(NATIVE_FAMILIES[native[1]], native[2], backbone, label_space, seed)
    from .segmenter_hub import load_hub_trainable

    if name not in SEGMENTER_NAMES and name.startswith(tuple(NATIVE_FAMILIES)) and not Path(name).exists():
        raise SettingsError(f"there is no native model {name}, expected one of {_native_names()}")
    return load_hub_trainable(find_model(name), label_space, scale, seed)


def _is_native_file(name: str) -> bool:
    if name.endswith(CHECKPOINT_SUFFIXES):
        return True
    if not (Path(name) / "config.json").is_file():
        return False
    from ..segmenters.vss.checkpoint import is_native_folder

    return is_native_folder(Path(name))


def _native_names() -> str:
    return ", ".join(f"{family}-b0 to -b5" for family in NATIVE_FAMILIES)
