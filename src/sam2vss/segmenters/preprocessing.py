"""Frames to model input, as the model's own preprocessor_config.json says it, in plain torch.

The processors of transformers need torchvision for some models and Pillow for others; here one piece of code gives the
same pixels on every machine, on whole batches and on any device. Against Pillow a resized pixel differs by at most one
grey level; where bicubic weights overshoot at hard edges by more, since Pillow resizes rows or columns first, depending
on its version and the sizes, and clips in between. Centre crops are left out on purpose: every pixel of a frame gets a
label, so the whole frame is the input.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError

if TYPE_CHECKING:
    import torch

CONFIG_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_INTERPOLATION = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # by Pillow's filter number
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_COCO = {"size": {"shortest_edge": 800, "longest_edge": 1333}, "resample": 2, "do_normalize": True, **_IMAGENET}

# What a key means that the file leaves out (files of older versions do), by processor class without its suffix.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "Segformer": {"size": {"height": 512, "width": 512}, "resample": 2, "do_normalize": True, **_IMAGENET},
    "Beit": {"size": {"height": 224, "width": 224}, "resample": 3, "do_normalize": True, **_HALF},
    "DPT": {"size": {"height": 384, "width": 384}, "resample": 3, "do_normalize": True, **_HALF},
    "MobileNetV2": {"size": {"shortest_edge": 256}, "resample": 2, "do_normalize": True, **_HALF},
    "MobileViT": {"size": {"shortest_edge": 224}, "resample": 3, "do_normalize": False, "do_flip_channel_order": True},
    "MaskFormer": {**_COCO, "size_divisor": 32},
    "Mask2Former": {**_COCO, "size_divisor": 32},
    "OneFormer": _COCO,
    "Detr": _COCO,
    "Eomt": {**_COCO, "size": {"shortest_edge": 640, "longest_edge": 640}},
    "Videomt": {"size": {"height": 640, "width": 640}, "resample": 2, "do_normalize": True, **_IMAGENET},
}
_FAMILY_OF_MODEL = {  # for files that do not name their processor class
    "segformer": "Segformer",
    "upernet": "Segformer",
    "beit": "Beit",
    "data2vec-vision": "Beit",
    "dpt": "DPT",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViT",
    "maskformer": "MaskFormer",
    "mask2former": "Mask2Former",
    "oneformer": "OneFormer",
    "detr": "Detr",
    "eomt": "Eomt",
    "eomt_dinov3": "Eomt",
    "videomt": "Videomt",
}


@dataclass(frozen=True)
class Patches:
    """Square crops along the longer side of a resized frame that overlap so that they cover it evenly (EoMT)."""

    side: int
    starts: tuple[int, ...]
    along_height: bool


@dataclass(frozen=True)
class Preprocessing:
    """How one model wants its frames.

    Attributes:
        size: {height, width}, {shortest_edge[, longest_edge]} or {max_height, max_width}; None leaves the size alone.
        interpolation: Mode of `torch.nn.functional.interpolate`.
        divisor: The resized sides are rounded up to multiples of this.
        multiple: The resized sides are rounded to the nearest multiple of this.
        keep_aspect_ratio: With {height, width}: scale both sides alike, by the factor that changes the frame less.
        scale: Factor for the grey levels 0..255.
        mean: Subtracted from the scaled values, per channel.
        std: Divides the result, per channel.
        flip_channels: Whether the model wants BGR.
        pads: Whether the resized frame is padded with black at the bottom and right to the whole of `size`.
        splits: Whether the resized frame is cut into square patches.
    """

    size: Mapping[str, int] | None
    interpolation: str = "bilinear"
    divisor: int = 1
    multiple: int = 1
    keep_aspect_ratio: bool = False
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    flip_channels: bool = False
    pads: bool = False
    splits: bool = False

    @classmethod
    def from_folder(cls, folder: Path, model_type: str, otherwise: Mapping[str, Any] | None = None) -> "Preprocessing":
        """Read a model folder's preprocessor_config.json (or what newer models have in its place).

        Args:
            folder: The model's folder.
            model_type: As its config.json names it.
            otherwise: What keys mean that the file leaves out, if its processor is not known here.

        Raises:
            WeightsError: If there is none, or it asks for something that is not done here.
        """
        for name in CONFIG_FILES:
            file = folder / name
            if file.is_file():
                try:
                    content = json.loads(file.read_text(encoding="utf-8"))
                    return cls.from_dict(content.get("image_processor", content), model_type, otherwise)
                except (OSError, ValueError, TypeError, AttributeError) as error:
                    raise WeightsError(f"{file} cannot be understood: {error}") from error
        raise WeightsError(
            f"{folder} has no {CONFIG_FILES[0]}: without it the input size and normalisation of the model would be a "
            "guess. Save the image processor beside the model, or write one, for example "
            '{"image_processor_type": "SegformerImageProcessor", "size": {"height": 512, "width": 512}}'
        )

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], model_type: str, otherwise: Mapping[str, Any] | None = None
    ) -> "Preprocessing":
        """Read the content of a preprocessor_config.json; arguments as for `from_folder`.

        Raises:
            WeightsError: If a needed key is missing or asks for something that is not done here.
        """
        named = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
        family = named or str(content.get("video_processor_type") or "")
        for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor", "VideoProcessor"):
            family = family.removesuffix(suffix)
        family = family or _FAMILY_OF_MODEL.get(model_type, "")
        defaults = _DEFAULTS.get(family, otherwise or {})
        config = {**defaults, **{key: value for key, value in content.items() if value is not None}}
        if content.get("do_normalize", config.get("do_normalize")) is None:
            config["do_normalize"] = "image_mean" in config
        lacking = [key for key in ("size", "resample") if config.get("do_resize", True) and key not in config]
        lacking += [key for key in ("image_mean", "image_std") if config["do_normalize"] and key not in config]
        if lacking:
            raise WeightsError(f"the image processor {family or '(unnamed)'} is not known and does not say {lacking}")
        if family == "DPT" and config.get("do_pad"):
            raise WeightsError("image processors that pad around the frame (DPT with do_pad) are not supported")
        resample = int(config.get("resample", 2))
        if resample not in _INTERPOLATION:
            raise WeightsError(f"resampling filter {resample} is not supported, expected one of {_INTERPOLATION}")
        normalizes = bool(config["do_normalize"])
        return cls(
            size=_size_of(config, square=family in ("Segformer", "Beit", "DPT"))
            if config.get("do_resize", True)
            else None,
            interpolation=_INTERPOLATION[resample],
            divisor=int(config.get("size_divisor") or 1) if family in ("MaskFormer", "Mask2Former") else 1,
            multiple=int(config.get("ensure_multiple_of", 1)),
            keep_aspect_ratio=bool(config.get("keep_aspect_ratio", False)),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=_three(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
            std=_three(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
            flip_channels=bool(config.get("do_flip_channel_order", False)),
            pads=family == "Eomt" and bool(config.get("do_pad", False)),
            splits=family == "Eomt" and bool(config.get("do_split_image", False)),
        )

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that a frame of (height, width) is resized to, before padding."""
        height, width = size
        if self.size is None:
            return size
        if "height" in self.size:
            target = self._fitted(size) if self.keep_aspect_ratio or self.multiple > 1 else self._exact
        elif "shortest_edge" in self.size:
            target = _with_shortest_edge(size, self.size["shortest_edge"], self.size.get("longest_edge"))
        else:
            factor = min(self.size["max_height"] / height, self.size["max_width"] / width)
            target = (int(height * factor), int(width * factor))
        rows, columns = (max(1, math.ceil(side / self.divisor) * self.divisor) for side in target)
        return rows, columns

    @property
    def _exact(self) -> tuple[int, int]:
        assert self.size is not None
        return self.size["height"], self.size["width"]

    def _fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        factors = [target / side for target, side in zip(self._exact, size, strict=True)]
        if self.keep_aspect_ratio:
            row_factor, column_factor = factors
            factors = [column_factor if abs(1 - column_factor) < abs(1 - row_factor) else row_factor] * 2
        rows, columns = (
            max(self.multiple, round(factor * side / self.multiple) * self.multiple)
            for factor, side in zip(factors, size, strict=True)
        )
        return rows, columns

    @property
    def full_size(self) -> tuple[int, int] | None:
        """The (height, width) that padding fills and a patch has; None where the size is left alone."""
        if self.size is None or "max_height" in self.size:
            return None
        short = self.size.get("shortest_edge") or self.size["height"]
        return short, self.size.get("longest_edge") or self.size.get("width") or short

    def patches(self, size: tuple[int, int]) -> Patches | None:
        """Return how a frame of (height, width) is split, None where the model takes it whole."""
        if not self.splits or self.full_size is None:
            return None
        side, longer = self.full_size[0], max(self.resized(size))
        count = math.ceil(longer / side)
        overlap = (count * side - longer) / (count - 1) if count > 1 else 0
        rows, columns = self.resized(size)
        return Patches(side, tuple(int(i * (side - overlap)) for i in range(count)), along_height=rows > columns)

    def __call__(self, frames: "torch.Tensor") -> "torch.Tensor":
        """Turn frames, uint8 RGB (L, H, W, 3), into model input, float32 (L, 3, h, w), or (L * P, 3, s, s) if split."""
        import torch

        size = (int(frames.shape[1]), int(frames.shape[2]))
        images = resize(frames.permute(0, 3, 1, 2), self.resized(size), self.interpolation)
        patches = self.patches(size)
        if patches is not None:
            axis = 2 if patches.along_height else 3
            crops = [
                images.narrow(axis, start, min(patches.side, images.shape[axis] - start)) for start in patches.starts
            ]
            images = torch.stack(crops, dim=1).flatten(0, 1)
        if self.pads and self.full_size is not None:
            below, right = (max(0, full - side) for full, side in zip(self.full_size, images.shape[2:], strict=True))
            images = torch.nn.functional.pad(images, (0, right, 0, below))
        if self.flip_channels:
            images = images.flip(1)
        # One multiplication and one addition per value: (x * scale - mean) / std.
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (images.float() * self.scale - mean) / std


def resize(images: "torch.Tensor", size: tuple[int, int], interpolation: str) -> "torch.Tensor":
    """Resize uint8 (L, 3, H, W), rows first, rounded to bytes like Pillow."""
    import torch

    if tuple(images.shape[2:]) == size:
        return images
    if interpolation == "nearest-exact":
        return torch.nn.functional.interpolate(images, size, mode=interpolation)
    if images.device.type == "cpu":
        return torch.nn.functional.interpolate(images, size, mode=interpolation, antialias=True)
    return _resize_in_floats(images, size, interpolation)


def _resize_in_floats(images: "torch.Tensor", size: tuple[int, int], interpolation: str) -> "torch.Tensor":
    """Do the same where torch cannot resize bytes, as on a GPU; differs by at most one grey level."""
    import torch

    floats = torch.nn.functional.interpolate(images.float(), size, mode=interpolation, antialias=True)
    return floats.round().clamp(0, 255).to(torch.uint8)


def _size_of(config: Mapping[str, Any], square: bool) -> dict[str, int]:
    """Read a size in any of the forms that versions have written: a number, a pair, or named sides."""
    size, max_size = config["size"], config.get("max_size")
    if isinstance(size, int):
        named = {"height": size, "width": size} if square else {"shortest_edge": size, "longest_edge": max_size}
    elif isinstance(size, list | tuple) and len(size) == 2:
        named = {"height": size[0], "width": size[1]}
    elif isinstance(size, Mapping):
        named = {"longest_edge": max_size, **size} if "shortest_edge" in size else dict(size)
    else:
        named = {}
    named = {key: int(value) for key, value in named.items() if value}
    if not any(named.keys() >= keys for keys in ({"height", "width"}, {"shortest_edge"}, {"max_height", "max_width"})):
        raise WeightsError(f"the input size {size} of the image processor is not understood")
    return named


def _with_shortest_edge(size: tuple[int, int], shortest: int, longest: int | None) -> tuple[int, int]:
    """Scale the shorter side to `shortest`, less where the longer would exceed `longest`; rounds like transformers."""
    short, long = min(size), max(size)
    exact = float(shortest)
    if longest is not None and long / short * shortest > longest:
        exact = longest * short / long
    target_short = round(exact)
    target_long = long if short == target_short else int(exact * long / short)
    return (target_short, target_long) if size[0] <= size[1] else (target_long, target_short)


def _three(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values) if isinstance(values, list | tuple) else (float(values),) * 3
    if len(numbers) != 3:
        raise WeightsError(f"the image processor has {len(numbers)} channel values, expected 3 for RGB")
    return numbers
