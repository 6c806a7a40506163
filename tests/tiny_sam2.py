"""A SAM 2 video network of 2.8 M parameters with weights that anyone can rebuild, and moving pictures for it.

Every tensor follows from its own name, so the values do not depend on the order in which modules are made. The gains
are such that memory decides (two objects in the same frame get logits that differ by more than 0.1 on average) and that
rounding stays small (differences between batch sizes stay below 0.002 over 20 frames).
"""

import zlib

import numpy as np
import torch
from torch import Tensor

from sam2vss.sam2.model import Sam2Network

HIDDEN, GRID = 128, 8
GAINS = {  # factor on the generic scale, by part of the name; found by trial so that memory decides
    "memory_temporal_positional_encoding": 8.0,
    "no_memory_embedding": 8.0,
    "no_object_pointer": 8.0,
    "occlusion_spatial_embedding_parameter": 8.0,
    "not_a_point_embed": 8.0,
    "mask_tokens": 8.0,
    "_token": 8.0,
    "no_mask_embed": 8.0,
    "point_embed": 8.0,
    "memory_attention": 1.0,
    "memory_encoder.projection": 0.5,
    "iou_prediction_head.proj_out": 0.2,
    "object_pointer_proj": 2.0,
    "positional_embedding": 8.0,
}
BIAS_GAINS = {"mask_downsampler.layers": 3.0, "iou_prediction_head.proj_out": 1.0}


def tiny_config(image_size: int = 16 * GRID) -> object:
    """SAM 2.1's parts, each as small as it gets; sizes that the reference code fixes are left at their defaults."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    grid = image_size // 16
    widths = [16, 32, 64, 128]
    backbone = Sam2HieraDetConfig(
        hidden_size=widths[0],
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
        fpn_hidden_size=HIDDEN,
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=HIDDEN, image_size=image_size),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(hidden_size=HIDDEN),
        image_size=image_size,
        memory_attention_hidden_size=HIDDEN,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=HIDDEN,
        mask_downsampler_embed_dim=HIDDEN,
        memory_fuser_embed_dim=HIDDEN,
        memory_fuser_intermediate_dim=4 * HIDDEN,
    )


def seeded_tensor(name: str, shape: tuple[int, ...], is_sensitive: bool = True) -> Tensor:
    """The weight of that name: standard normal numbers seeded by the name, scaled by the number of inputs.

    With `is_sensitive` some are larger, so that memory decides; else all have the same scale, as a network that has not
    been trained yet.
    """
    name = name.replace("shared_image_embedding.", "prompt_encoder.shared_embedding.")  # one basis, stored twice
    noise = np.random.RandomState(zlib.crc32(f"{name}9".encode())).standard_normal(shape)
    if name.endswith("memory_fuser.scale") or name.endswith(".scale"):
        values = 0.5 + 0.1 * noise  # 1e-6 at birth would hide the memory fuser
    elif not is_sensitive:
        values = 0.5 * noise / np.sqrt(np.prod(shape[1:])) + (
            1.0 if "norm" in name and name.endswith("weight") else 0.0
        )
    elif len(shape) == 1:
        gain = next((gain for part, gain in BIAS_GAINS.items() if part in name), 0.1)
        values = gain * noise + (1.0 if "norm" in name and name.endswith(".weight") else 0.0)
    else:
        gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
        values = gain * noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(values).float()


def tiny_network(image_size: int = 16 * GRID, object_score_bias: float = 0.0, is_sensitive: bool = True) -> Sam2Network:
    """Build the network in evaluation mode; `object_score_bias` is added to the logit of "the object is there"."""
    from transformers import Sam2VideoModel

    model = Sam2VideoModel(tiny_config(image_size)).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = {name: seeded_tensor(name, shape, is_sensitive) for name, shape in shapes.items()}
    state["mask_decoder.pred_obj_score_head.proj_out.bias"] += object_score_bias
    model.load_state_dict(state)
    return Sam2Network(model)


def moving_frames(length: int, size: tuple[int, int] = (90, 130)) -> np.ndarray:
    """Integer pictures, uint8 (length, H, W, 3): a drifting ramp, a disc that moves right, a box that moves left."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    frames = np.empty((length, height, width, 3), np.uint8)
    for t in range(length):
        for channel in range(3):
            frames[t, :, :, channel] = (x * (2 + channel) + y * (4 - channel) + 3 * t) % 256 // 2
        frames[t, (x - 20 - 4 * t) ** 2 + (y - 30 - t) ** 2 <= 14**2] = (250, 40, 30)
        frames[t, (abs(x - 95 + 2 * t) <= 15) & (abs(y - 65) <= 15)] = (30, 200, 60)
    return frames


def first_masks(size: tuple[int, int] = (90, 130)) -> Tensor:
    """Masks of frame 0, bool (4, H, W): the disc, the box, a band along the top, nothing at all."""
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (x - 20) ** 2 + (y - 30) ** 2 <= 14**2
    box = (abs(x - 95) <= 15) & (abs(y - 65) <= 15)
    return torch.from_numpy(np.stack([disc, box, y < 25, np.zeros_like(disc)]))
