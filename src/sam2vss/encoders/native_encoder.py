"""The encoder of a native video model (SegFormer, CFFM, MRCFA, TV3S) as a feature encoder, for the paper's I-CFFM etc.

Features are those of single frames: the maps of the encoder, and the fused map that each model's own head starts from.
What a head makes of several frames is no feature map of one frame, and stays out.
"""

from functools import cached_property
from typing import Final

import numpy as np
import torch

from ..errors import SettingsError
from ..segmenters.vss.frames import DIVISOR, PIXEL_MEAN, PIXEL_STD, TEST_SCALE, network_input
from ..segmenters.vss.segformer import HEAD_WIDTH
from ..segmenters.vss.segmenter import VssSegmenter
from .maps import as_batch, to_arrays
from .names import EncoderName, fingerprint

LEVELS: Final = ("stage1", "stage2", "stage3", "stage4", "fused")


class NativeEncoder:
    """A `FeatureEncoder` made of a native video model.

    Args:
        segmenter: The model.
        name: What was asked for; no levels stand for stage4, the encoder's output.

    Raises:
        SettingsError: If there is no such level, or a size was asked for.
    """

    def __init__(self, segmenter: VssSegmenter, name: EncoderName) -> None:
        if name.size:
            raise SettingsError(f"encoder {name}: a segmentation model has its own size: leave out @{name.size}")
        absent = [level for level in name.levels if level not in LEVELS]
        if absent:
            raise SettingsError(f"encoder {name}: a native video model has no {absent[0]}, only {', '.join(LEVELS)}")
        self._segmenter = segmenter
        self.level_names = name.levels or ("stage4",)
        channels = dict(zip(LEVELS, (*segmenter.model.backbone.size.channels, HEAD_WIDTH), strict=True))
        self.channels = tuple(channels[level] for level in self.level_names)
        self._name = EncoderName(name.kind, name.model, self.level_names)

    @property
    def name(self) -> str:
        return str(self._name)

    @cached_property
    def fingerprint(self) -> str:
        decisive = {
            "kind": "native",
            "levels": self.level_names,
            "preprocessing": [TEST_SCALE, DIVISOR, PIXEL_MEAN, PIXEL_STD],
        }
        return fingerprint(self._segmenter.location, decisive)

    @torch.inference_mode()
    def encode(self, frame: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return one map a level, float32 (D, h, w), of a frame uint8 RGB (H, W, 3).

        Raises:
            ShapeError: If `frame` has another shape or dtype.
            WeightsError: If features are not finite numbers.
        """
        as_batch(frame, torch.device("cpu"))
        segmenter = self._segmenter
        pixels = network_input(frame)[None].to(segmenter.device, segmenter.dtype)
        stages = segmenter.model.backbone(pixels)
        maps = dict(zip(LEVELS, stages, strict=False))
        if "fused" in self.level_names:
            maps["fused"] = segmenter.model.decode_head.fuse(stages)
        return to_arrays([maps[level] for level in self.level_names], self.name)
