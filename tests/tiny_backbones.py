"""Random vision backbones, small enough to build, save and run in a moment."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf

_VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
_MLP = {**_VIT, "intermediate_size": 32}
_TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}
_STAGES = {"depths": [1, 1, 1, 1]}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]


def _clip() -> Any:
    return tf.CLIPModel(tf.CLIPConfig(vision_config={"image_size": 64, "patch_size": 16, **_MLP}, text_config=_TEXT))


def _siglip() -> Any:
    return tf.SiglipModel(
        tf.SiglipConfig(vision_config={"image_size": 64, "patch_size": 16, **_MLP}, text_config=_TEXT)
    )


def _siglip2() -> Any:
    return tf.Siglip2Model(
        tf.Siglip2Config(vision_config={"num_patches": 16, "patch_size": 16, **_MLP}, text_config=_TEXT)
    )


def _swin() -> Any:
    heads = {"num_heads": [1, 1, 1, 1], "window_size": 2}
    return tf.SwinModel(tf.SwinConfig(image_size=64, patch_size=4, embed_dim=8, **_STAGES, **heads))


def _hiera() -> Any:
    return tf.HieraModel(tf.HieraConfig(image_size=[64, 64], embed_dim=8, **_STAGES, num_heads=[1, 1, 2, 2]))


BUILDERS = {
    "dinov2": (lambda: tf.Dinov2Model(tf.Dinov2Config(image_size=56, patch_size=14, **_VIT)), "BitImageProcessor"),
    "dinov3": (
        lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(image_size=64, patch_size=16, num_register_tokens=4, **_MLP)),
        "DINOv3ViTImageProcessorFast",
    ),
    "dinov3-convnext": (
        lambda: tf.DINOv3ConvNextModel(tf.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 24], image_size=64, **_STAGES)),
        "DINOv3ViTImageProcessorFast",
    ),
    "clip": (_clip, "CLIPImageProcessor"),
    "siglip": (_siglip, "SiglipImageProcessor"),
    "siglip2": (_siglip2, "Siglip2ImageProcessor"),
    "vit": (lambda: tf.ViTModel(tf.ViTConfig(image_size=64, patch_size=16, **_MLP)), "ViTImageProcessor"),
    "swin": (_swin, "ViTImageProcessor"),
    "convnext": (
        lambda: tf.ConvNextModel(tf.ConvNextConfig(hidden_sizes=[8, 8, 16, 24], image_size=64, **_STAGES)),
        "ConvNextImageProcessor",
    ),
    "hiera": (_hiera, "BitImageProcessor"),
    "resnet": (
        lambda: tf.ResNetModel(
            tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 24], layer_type="basic", **_STAGES)
        ),
        "ConvNextImageProcessor",
    ),
    "vit-mae": (lambda: tf.ViTMAEModel(tf.ViTMAEConfig(image_size=64, patch_size=16, **_MLP)), "ViTImageProcessor"),
    "bert": (lambda: tf.BertModel(tf.BertConfig(**_MLP, vocab_size=20)), "ViTImageProcessor"),
}


def save_tiny_backbone(name: str, folder: Path) -> Path:
    """Write a random backbone of this family, with its image processor, as a hub repository holds it."""
    build, processor = BUILDERS[name]
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():  # wide weights, so that features differ from cell to cell
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    size = {} if name in ("siglip2", "vit") else {"size": {"shortest_edge": 80}, "crop_size": 64, "resample": 3}
    values = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, **size}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **values}))
    return folder


def smooth_frame(height: int, width: int, seed: int = 7) -> np.ndarray:
    """Smooth noise, uint8 (H, W, 3), so that neighbouring pixels are alike as in a picture."""
    coarse = torch.rand((1, 3, 4, 5), generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (fine * 255).to(torch.uint8).permute(1, 2, 0).numpy()
