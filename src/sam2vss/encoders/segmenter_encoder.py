"""The encoder of a segmentation model as a feature encoder: the maps its decode head reads, or the one it ends with.

The frame goes through the segmenter's own preprocessing, so features are those of which its labels are made.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingsError, WeightsError
from ..segmenters.hub_models import HubSegmenter, failing_as
from .maps import as_batch, to_arrays, to_map
from .names import EncoderName, fingerprint

BLANK_SIDE = 64  # pixels of the frame by which a model's levels are counted


class SegmenterEncoder:
    """A `FeatureEncoder` made of a segmentation model.

    `stage1`, `stage2`, ... are the maps of the encoder, fine to coarse, as the decode head reads them. The default is
    the last of them, the encoder's output, which is how the paper's F is read; it is coarse (stride 32 in SegFormer).
    `fused` (SegFormer, UPerNet) is the map that the decode head gives to its last layer, the classifier: of stride 4,
    and trained so that a linear layer tells the classes apart.

    Args:
        segmenter: The model.
        name: What was asked for; no levels stand for the last stage.

    Raises:
        SettingsError: If the model has no such level, or a size was asked for.
        WeightsError: If it is of a family whose maps are not known here.
    """

    def __init__(self, segmenter: HubSegmenter, name: EncoderName) -> None:
        if name.size:
            raise SettingsError(f"encoder {name}: a segmentation model has its own size: leave out @{name.size}")
        family = segmenter.model.config.model_type
        if family not in STAGES:
            raise WeightsError(
                f"encoder {name}: the feature maps of a {family} model are not known here, only those of "
                f"{', '.join(STAGES)}; take backbone:ID for others"
            )
        self._segmenter = segmenter
        self._stages = STAGES[family]
        with torch.inference_mode(), failing_as(segmenter.location):
            blank = torch.zeros((1, BLANK_SIDE, BLANK_SIDE, 3), dtype=torch.uint8, device=segmenter.device)
            maps = self._maps(blank, wants_fused="fused" in name.levels and family in WITH_FUSED)
        self.level_names = name.levels or (list(maps)[-1],)
        absent = [level for level in self.level_names if level not in maps]
        if absent:
            known = [*maps, *(["fused"] if family in WITH_FUSED and "fused" not in maps else [])]
            raise SettingsError(f"encoder {name}: this {family} model has no {absent[0]}, only {', '.join(known)}")
        self.channels = tuple(maps[level].shape[1] for level in self.level_names)
        self._name = EncoderName(name.kind, name.model, self.level_names)

    @property
    def name(self) -> str:
        return str(self._name)

    @cached_property
    def fingerprint(self) -> str:
        preprocessing = asdict(self._segmenter.preprocessing)
        decisive = {"kind": "segmenter", "levels": self.level_names, "preprocessing": preprocessing}
        return fingerprint(self._segmenter.location, decisive)

    @torch.inference_mode()
    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return one map a level, float32 (D, h, w), of a frame uint8 RGB (H, W, 3).

        Raises:
            ShapeError: If `frame` has another shape or dtype.
            WeightsError: If features are not finite numbers.
        """
        maps = self._maps(as_batch(frame, self._segmenter.device), "fused" in self.level_names)
        return to_arrays([maps[level] for level in self.level_names], self.name)

    def _maps(self, frames: Tensor, wants_fused: bool) -> dict[str, Tensor]:
        """Return all stages, and `fused` if it is wanted, by name."""
        model = self._segmenter.model
        pixels = self._segmenter.preprocessing(frames).to(self._segmenter.dtype)
        stages = self._stages(model, pixels)
        maps = {f"stage{number}": stage for number, stage in enumerate(stages, start=1)}
        if wants_fused:
            maps["fused"] = fused_map(model, stages)
        return maps


def fused_map(model: Any, stages: Sequence[Tensor]) -> Tensor:
    """Run the decode head on the stages; return what its classifier is given."""
    seen: list[Tensor] = []
    hook = model.decode_head.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        model.decode_head(stages)
    finally:
        hook.remove()
    return seen[0]


def _of_segformer(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    return model.segformer(pixels, output_hidden_states=True).hidden_states  # type: ignore[no-any-return]


def _of_upernet(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    return model.backbone(pixels).feature_maps  # type: ignore[no-any-return]


def _of_beit(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    """The layers that its head reads, all of stride 16, before the head resizes them."""
    base = getattr(model, model.base_model_prefix)
    hidden_states = base(pixels, output_hidden_states=True).hidden_states  # the first one is the embedding
    grid = _patch_grid(model, pixels)
    return [to_map(hidden_states[index - 1], grid) for index in model.config.out_indices]  # counted from 1


def _of_dpt(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    """The layers that its neck reads, all of stride 16."""
    if model.config.is_hybrid:
        raise WeightsError("a DPT with a convolutional stem (DPT hybrid) is not supported as an encoder")
    hidden_states = model.dpt(pixels, output_hidden_states=True).hidden_states[1:]
    grid = _patch_grid(model, pixels)
    return [to_map(hidden_states[index], grid) for index in model.config.backbone_out_indices]


def _of_mobilevit(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    return model.mobilevit(pixels, output_hidden_states=True).hidden_states  # type: ignore[no-any-return]


def _of_mask_classifier(model: Any, pixels: Tensor) -> Sequence[Tensor]:
    return model.model.pixel_level_module.encoder(pixels).feature_maps  # type: ignore[no-any-return]


def _patch_grid(model: Any, pixels: Tensor) -> tuple[int, int]:
    patch = int(model.config.patch_size)
    return pixels.shape[-2] // patch, pixels.shape[-1] // patch


STAGES: dict[str, Callable[[Any, Tensor], Sequence[Tensor]]] = {
    "segformer": _of_segformer,
    "upernet": _of_upernet,
    "beit": _of_beit,
    "data2vec-vision": _of_beit,
    "dpt": _of_dpt,
    "mobilevit": _of_mobilevit,
    "maskformer": _of_mask_classifier,
    "mask2former": _of_mask_classifier,
    "oneformer": _of_mask_classifier,
}
WITH_FUSED = ("segformer", "upernet")
