"""Picture sizes that a SAM 2 network can work at, and telling transformers' modules about another one."""

import math
from typing import Any

from ..errors import SettingsError

CELL_MULTIPLES = (4, 2, 1)  # cells per side of the three feature levels, in cells of the coarsest


def fitting_size(model: Any, sides: tuple[int, int]) -> tuple[int, int]:
    """Return the size (height, width) if it fits this `Sam2VideoModel`.

    Raises:
        SettingsError: If a side does not fit the encoder.
    """
    multiple = size_multiple(model)
    if multiple is None:
        raise SettingsError(
            f"the image size {_name(sides)} does not fit this network: its encoder works at {model.config.image_size} "
            "pixels only. Leave the image size as it is, or take a SAM 2 model."
        )
    if any(side < multiple or side % multiple for side in sides):
        nearest = [max(1, round(side / multiple)) * multiple for side in sides]
        raise SettingsError(
            f"the image size {_name(sides)} does not fit this network: each side must be a multiple of {multiple}. "
            f"The nearest that fits is {_name((nearest[0], nearest[1]))}."
        )
    return sides


def tell_modules(model: Any, size: tuple[int, int], grid: tuple[int, int]) -> None:
    """Keep transformers' own idea of the picture size right, as far as it can express it.

    Its whole-picture side stays that of the last square: our code asks the network, transformers' must not be asked.
    """
    model.backbone_feature_sizes = [[scale * grid[0], scale * grid[1]] for scale in CELL_MULTIPLES]
    model.prompt_encoder.image_embedding_size = grid
    model.prompt_encoder.mask_input_size = (4 * grid[0], 4 * grid[1])
    if size[0] == size[1]:
        model.config.image_size = model.image_size = model.prompt_encoder.input_image_size = size[0]
    attention = model.memory_attention
    attention.config.memory_attention_rope_feat_sizes = [grid[1], grid[0]]
    attention.position_ids = attention.precompute_positions(attention.config).to(attention.position_ids.device)


def size_multiple(model: Any) -> int | None:
    """What each side must be a multiple of (32 in SAM 2); None if the encoder works at one size only (SAM 3).

    Sides must hold whole cells of the encoder's coarsest stage and whole tiles of its position embedding; in EdgeTAM,
    whose encoder is convolutional, whole cells for each window of its resampler (256 pixels).
    """
    resampler = getattr(model, "spatial_perceiver", None)
    if resampler is not None:
        return int(model.config.prompt_encoder_config.patch_size) * math.isqrt(int(resampler.num_latents_2d))
    backbone = model.config.vision_config.backbone_config
    if not hasattr(backbone, "num_query_pool_stages"):
        return None
    stride = int(backbone.patch_stride[0])
    return math.lcm(stride * 2 ** int(backbone.num_query_pool_stages), stride * int(backbone.window_size_per_stage[0]))


def _name(sides: tuple[int, int]) -> str:
    return f"{sides[0]}" if sides[0] == sides[1] else f"{sides[0]} x {sides[1]} (height x width)"
