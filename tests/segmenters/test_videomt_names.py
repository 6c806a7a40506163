"""Names of VidEoMT's weights in transformers and in the authors' checkpoints.

All of them at once are held against the authors' own networks in test_videomt_checkpoints.py.
"""

import pytest
import torch

from sam2vss.segmenters.videomt_names import ENCODER, has_dinov3, official_name, official_shapes


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("embeddings.cls_token", (f"{ENCODER}.cls_token", None)),
        ("embeddings.position_embeddings.weight", (f"{ENCODER}.pos_embed", None)),
        ("layers.11.attention.k_proj.bias", (f"{ENCODER}.blocks.11.attn.qkv.bias", 1)),
        ("layers.3.attention.out_proj.weight", (f"{ENCODER}.blocks.3.attn.proj.weight", None)),
        ("layers.0.layer_scale2.lambda1", (f"{ENCODER}.blocks.0.ls2.gamma", None)),
        ("layers.0.mlp.fc2.weight", (f"{ENCODER}.blocks.0.mlp.fc2.weight", None)),
        ("upscale_block.block.1.layernorm2d.bias", ("backbone.upscale.1.norm.bias", None)),
        ("upscale_block.block.0.conv2.weight", ("backbone.upscale.0.conv2.weight", None)),
        ("mask_head.fc3.weight", ("backbone.mask_head.4.weight", None)),
        ("query.weight", ("backbone.q.weight", None)),
    ],
)
def test_names_are_translated(ours: str, theirs: tuple[str, int | None]):
    assert official_name(ours) == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("embeddings.cls_token", f"{ENCODER}.patch_embed.cls_token"),
        ("embeddings.patch_embeddings.bias", f"{ENCODER}.patch_embed.patch_embeddings.bias"),
        ("layers.11.attention.k_proj.weight", f"{ENCODER}.blocks.11.attention.k_proj.weight"),
        ("layers.0.layer_scale2.lambda1", f"{ENCODER}.blocks.0.layer_scale2.lambda1"),
        ("upscale_block.block.1.layernorm2d.bias", "backbone.upscale.1.norm.bias"),
    ],
)
def test_names_with_a_dinov3_encoder_are_translated(ours: str, theirs: str):
    assert official_name(ours, is_dinov3=True) == (theirs, None)


def test_queries_keys_and_values_are_one_tensor_and_positions_have_a_batch():
    ours = {
        "embeddings.position_embeddings.weight": torch.Size((16, 8)),
        "layers.0.attention.q_proj.weight": torch.Size((8, 8)),
        "layers.0.attention.k_proj.weight": torch.Size((8, 8)),
        "embeddings.mask_token": torch.Size((1, 1, 8)),
    }

    assert official_shapes(ours) == {
        f"{ENCODER}.pos_embed": (1, 16, 8),
        f"{ENCODER}.blocks.0.attn.qkv.weight": (24, 8),
    }


def test_the_encoder_is_told_by_its_positions():
    assert has_dinov3({"embeddings.cls_token": torch.Size((1,))})
    assert not has_dinov3({"embeddings.position_embeddings.weight": torch.Size((16, 8))})
