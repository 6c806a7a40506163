"""SAM 2's image encoder as a feature encoder: the three levels of its feature pyramid, and the stages of its trunk."""

from functools import cached_property

import numpy as np
import torch

from ..errors import SettingsError
from ..hub import ModelLocation
from ..sam2.loading import find_sam2, load_sam2
from ..sam2.model import Sam2Network
from .maps import as_batch, to_arrays
from .names import EncoderName, fingerprint

PYRAMID = ("high", "mid", "low")  # strides 4, 8 and 16, before the mask decoder's projections


class Sam2Encoder:
    """A `FeatureEncoder` made of a SAM 2 network.

    Frames are stretched to the network's input size, as for tracking. `low` (stride 16) is what the mask decoder and
    the memory see of a frame; the paper's F is read as that. `high` and `mid` are finer levels of the same pyramid,
    `stage1` to `stage4` (strides 4 to 32) what the trunk gives to it.

    Args:
        network: The model; a tracker's own will do.
        location: Where its weights lie.
        name: What was asked for; no levels stand for "low".

    Raises:
        SettingsError: If the network's encoder has no such stages (SAM 3, EdgeTAM).
    """

    def __init__(self, network: Sam2Network, location: ModelLocation, name: EncoderName) -> None:
        self.network = network
        self.level_names = name.levels or ("low",)
        self._location = location
        self._name = EncoderName(name.kind, name.model, self.level_names, name.size)
        known = {**dict.fromkeys(PYRAMID, network.hidden_size), **stage_channels(network)}
        absent = [level for level in self.level_names if level not in known]
        if absent:
            raise SettingsError(f"encoder {name}: this network has no {absent[0]}, only {', '.join(known)}")
        self.channels = tuple(known[level] for level in self.level_names)

    @classmethod
    def from_name(cls, name: EncoderName, device: str = "cpu", dtype: str = "float32") -> "Sam2Encoder":
        """Load the model of a name; see `load_encoder` for the arguments and errors."""
        location = find_sam2(name.model)
        network = load_sam2(location, device=device, dtype=dtype)
        if name.image_size is not None:
            network.set_image_size(name.image_size)
        return cls(network, location, name)

    @property
    def name(self) -> str:
        return str(self._name)

    @cached_property
    def fingerprint(self) -> str:
        decisive = {"kind": "sam2", "levels": self.level_names, "input_size": self.network.input_size}
        return fingerprint(self._location, decisive)

    @torch.inference_mode()
    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return one map a level, float32 (D, h, w), of a frame uint8 RGB (H, W, 3).

        Raises:
            ShapeError: If `frame` has another shape or dtype.
            WeightsError: If features are not finite numbers.
        """
        pixels = self.network.pixels(as_batch(frame, self.network.device))
        if set(self.level_names) <= set(PYRAMID):
            maps = dict(zip(PYRAMID, self.network.pyramid(pixels), strict=True))
        else:
            stages, pyramid = self.network.stages_and_pyramid(pixels)
            maps = dict(zip((*stage_channels(self.network), *PYRAMID), (*stages, *pyramid), strict=True))
        return to_arrays([maps[level] for level in self.level_names], self.name)


def stage_channels(network: Sam2Network) -> dict[str, int]:
    """Channels of the trunk's stages by their names, fine to coarse."""
    return {f"stage{number}": channels for number, channels in enumerate(network.stage_channels, start=1)}
