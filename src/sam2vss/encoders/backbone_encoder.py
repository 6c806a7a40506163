"""Any vision backbone of transformers as a feature encoder: DINOv2, DINOv3, CLIP, SigLIP, ViT, Swin, ConvNeXt, ..."""

from dataclasses import asdict, replace
from functools import cached_property

import numpy as np
import torch

from ..devices import choose_device, choose_dtype
from ..errors import SettingsError
from ..hub import ModelLocation, resolve_model
from ..segmenters.preprocessing import CONFIG_FILES, Preprocessing
from .maps import as_batch, to_arrays
from .names import EncoderName, fingerprint
from .towers import Tower, load_tower

LONGEST = 4  # ours: a frame longer than four shorter sides is squeezed, so that no frame fills the memory
UNNAMED = {"resample": 2, "size": {"height": 224, "width": 224}}  # ViT files of 2021 name no filter, SigLIP 2 no size


class BackboneEncoder:
    """A `FeatureEncoder` made of a vision backbone.

    The level `last` is the model's last hidden state: patch tokens only, after the model's last normalisation where it
    has one. `layerN` is its hidden state N as transformers counts them: 0 is the embedding, and in models made of
    stages every N is a stage.

    Size of the input: the whole frame is resized, nothing is cropped. Its shorter side becomes the side the model was
    trained at (518 for DINOv2, 224 for most), or the one asked for with @SIZE; the longer one follows, up to four times
    that. Both are rounded to whole patches, so every cell of a map is one patch of the frame. Position embeddings are
    interpolated to them. Models that take one size only (Hiera, AIMv2) get frames stretched to it.

    Args:
        tower: The model.
        preprocessing: Filter, scale, mean and standard deviation of its input.
        location: Where its weights lie.
        name: What was asked for; no levels stand for "last".

    Raises:
        SettingsError: If the model has no such layer, or does not work at the size asked for.
    """

    def __init__(self, tower: Tower, preprocessing: Preprocessing, location: ModelLocation, name: EncoderName) -> None:
        parameter = next(tower.model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.level_names = name.levels or ("last",)
        self._tower, self._location = tower, location
        self._preprocessing = replace(
            preprocessing, size=None, divisor=1, multiple=1, keep_aspect_ratio=False, pads=False, splits=False
        )
        self._name = EncoderName(name.kind, name.model, self.level_names, name.size)
        self._side = self._choose_side()
        self.channels = tuple(part.shape[1] for part in tower.maps(tower.blank(), self.level_names))

    @classmethod
    def from_name(cls, name: EncoderName, device: str = "cpu", dtype: str = "float32") -> "BackboneEncoder":
        """Load the model of a name; see `load_encoder` for the arguments and errors."""
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        location = resolve_model(name.model, {}, needs_one_of=CONFIG_FILES)
        tower = load_tower(location)
        preprocessing = Preprocessing.from_folder(location.path, tower.model.config.model_type, UNNAMED)
        tower.model.to(device, precision)
        return cls(tower, preprocessing, location, name)

    @property
    def name(self) -> str:
        return str(self._name)

    @cached_property
    def fingerprint(self) -> str:
        decisive = {
            "kind": "backbone",
            "levels": self.level_names,
            "preprocessing": asdict(self._preprocessing),
            "side": self._side,
            "is_square": self._tower.is_square,
        }
        return fingerprint(self._location, decisive)

    @torch.inference_mode()
    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return one map a level, float32 (D, h, w), of a frame uint8 RGB (H, W, 3).

        Raises:
            ShapeError: If `frame` has another shape or dtype.
            WeightsError: If features are not finite numbers.
        """
        batch = as_batch(frame, self.device)
        height, width = self.input_size((frame.shape[0], frame.shape[1]))
        pixels = replace(self._preprocessing, size={"height": height, "width": width})(batch)
        return to_arrays(self._tower.maps(pixels.to(self.dtype), self.level_names), self.name)

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a frame of (height, width) is resized to."""
        if self._tower.is_square:
            return self._side, self._side
        patch, shorter = self._tower.multiple, min(size)
        rows, columns = (max(1, round(min(side / shorter, LONGEST) * self._side / patch)) * patch for side in size)
        return rows, columns

    def _choose_side(self) -> int:
        name, tower = self._name, self._tower
        if "x" in name.size:
            raise SettingsError(f"encoder {name}: the size of a backbone is its shorter side, one number such as @448")
        side = int(name.size or tower.own_side)
        if tower.is_square and side != tower.own_side:
            raise SettingsError(f"encoder {name}: this model works at {tower.own_side} pixels only: leave out @{side}")
        if side < tower.multiple:
            raise SettingsError(f"encoder {name}: the size must be {tower.multiple} pixels or more, one patch")
        return side
