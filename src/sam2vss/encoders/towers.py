"""Vision backbones of transformers, all run alike: pixels in, hidden states as maps out.

What differs between families stands here: the class to load, how the model is called, where class tokens and registers
are, and which pictures it takes.
"""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from ..errors import SettingsError, WeightsError
from ..hub import ModelLocation, quiet_transformers
from ..segmenters.hub_models import failing_as, untrained_parts
from .maps import to_map

IMAGE_HALVES = {  # of models that read text as well, by model type
    "clip": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
}
EXAMPLES = "DINOv2, DINOv3, CLIP, SigLIP, SigLIP 2, ViT, DeiT, BEiT, Swin, ConvNeXt, Hiera, ResNet"
USUAL_SIDE = 224  # of models that do not name the side they were trained at (ResNet and others on ImageNet)
USUAL_STRIDE = 32  # of models that do not name their patches: that of convolutional networks
SMALLEST_TRIAL = 64  # pixels: two cells of such a network


class Tower:
    """A vision backbone.

    Attributes:
        model: In evaluation mode.
        multiple: Sides of pictures must be multiples of this, in pixels.
        own_side: The side at which the model was trained.
        is_square: Whether it takes no other pictures than squares of that side.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self.model = model
        self._patch = _patch_of(config)
        stages = len(getattr(config, "depths", None) or [0])
        self.multiple = (self._patch or USUAL_STRIDE) * (2 ** (stages - 1) if self._patch else 1)
        self.own_side = _own_side(config)
        self._options: dict[str, Any] = {"output_hidden_states": True}
        if "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
            self._options["interpolate_pos_encoding"] = True
        self.is_square = not self._takes_oblongs()

    def blank(self) -> Tensor:
        """A small picture that the model takes, (1, 3, H, W)."""
        side = self.own_side if self.is_square else self._smallest
        return self._zeros(side, side)

    def maps(self, pixels: Tensor, levels: Sequence[str]) -> list[Tensor]:
        """Return a map (B, D, h, w) for each level, "last" or "layerN", of pictures (B, 3, H, W).

        Raises:
            SettingsError: If there is no such layer.
            WeightsError: If the tokens are not those of the patches.
        """
        outputs = self._run(pixels)
        layers = self._layers(outputs)
        maps = []
        for level in levels:
            number = len(layers) - 1 if level == "last" else int(level.removeprefix("layer"))
            if number >= len(layers):
                known = f"last and layer0 to layer{len(layers) - 1}"
                raise SettingsError(f"this {self._kind} model has no {level}, only {known}")
            state = outputs.last_hidden_state if level == "last" else layers[number]
            maps.append(self._as_map(state, layers[number], pixels))
        return maps

    @property
    def _kind(self) -> str:
        return str(self.model.config.model_type)

    @property
    def _smallest(self) -> int:
        return self.multiple * math.ceil(SMALLEST_TRIAL / self.multiple)

    def _zeros(self, height: int, width: int) -> Tensor:
        parameter = next(self.model.parameters())
        return torch.zeros((1, 3, height, width), device=parameter.device, dtype=parameter.dtype)

    def _takes_oblongs(self) -> bool:
        """Find out by trial: transformers' models raise at a size that is not theirs."""
        try:
            self.maps(self._zeros(self._smallest, self._smallest + self.multiple), ["last"])
        except (RuntimeError, ValueError):
            return False
        return True

    def _run(self, pixels: Tensor) -> Any:
        if self._kind == "siglip2_vision_model":
            return self.model(**cut_into_patches(pixels, self._patch), **self._options)
        return self.model(pixel_values=pixels, **self._options)

    def _layers(self, outputs: Any) -> Sequence[Tensor]:
        """Hidden states; as maps where the model says how its tokens lie."""
        reshaped = outputs.get("reshaped_hidden_states")
        if reshaped is None:
            return outputs.hidden_states or [outputs.last_hidden_state]
        return [state.permute(0, 3, 1, 2) for state in reshaped] if self._kind == "hiera" else reshaped

    def _as_map(self, state: Tensor, layer: Tensor, pixels: Tensor) -> Tensor:
        """Lay tokens out as their layer lies, if that is known, else as the patches."""
        if state.ndim == 4:
            return state
        patch = self._patch or USUAL_STRIDE
        grid = layer.shape[-2:] if layer.ndim == 4 else (pixels.shape[-2] // patch, pixels.shape[-1] // patch)
        return to_map(state, (int(grid[0]), int(grid[1])), 2 + getattr(self.model.config, "num_register_tokens", 0))


def load_tower(location: ModelLocation) -> Tower:
    """Load the image tower of a model folder, in float32 on the CPU.

    Raises:
        WeightsError: If it is no vision backbone, cannot be loaded, or lacks trained weights.
    """
    with failing_as(location), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
        half = IMAGE_HALVES.get(config.model_type)
        model_class = getattr(transformers, half) if half else transformers.AutoModel
        model, report = model_class.from_pretrained(
            location.path, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    sees_only = getattr(model, "input_modalities", "image")
    if sees_only not in ("image", ("image",)) or model.main_input_name != "pixel_values":
        raise WeightsError(
            f"{location.id} is a {config.model_type} model, expected a vision backbone such as {EXAMPLES}"
        )
    model.eval().requires_grad_(False)
    try:
        with failing_as(location):
            tower = Tower(model)
            missing = set(report["missing_keys"])
            needed = untrained_parts(model, missing, lambda: tower.maps(tower.blank(), ["last"]))
    except WeightsError as error:
        raise WeightsError(f"{location.id}, a {config.model_type} model, gives no map of features: {error}") from error
    if needed:
        raise WeightsError(
            f"{location.id} lacks {len(needed)} trained parameters of {type(model).__name__} (first: {needed[0]}): its "
            "features would be those of random numbers"
        )
    return tower


def cut_into_patches(pixels: Tensor, side: int) -> dict[str, Tensor]:
    """Cut pictures (B, 3, H, W) into the patches that SigLIP 2 takes, row by row: (B, h*w, side*side*3)."""
    rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
    patches = pixels.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 3, 5, 1)
    shape = torch.tensor([[rows, columns]] * len(pixels), device=pixels.device)
    return {
        "pixel_values": patches.reshape(len(pixels), rows * columns, -1),
        "pixel_attention_mask": torch.ones((len(pixels), rows * columns), dtype=torch.int64, device=pixels.device),
        "spatial_shapes": shape,
    }


def _patch_of(config: Any) -> int:
    """Side of a patch in pixels; 0 where the configuration names none."""
    patch = getattr(config, "patch_stride", None) or getattr(config, "patch_size", None) or 0  # Hiera's overlap
    return int(patch[0] if isinstance(patch, list | tuple) else patch)


def _own_side(config: Any) -> int:
    side = getattr(config, "image_size", None)
    if side is None and getattr(config, "num_patches", None):
        side = math.isqrt(int(config.num_patches)) * _patch_of(config)
    side = side or USUAL_SIDE
    return int(side[0] if isinstance(side, list | tuple) else side)
