"""The two bundled architectures: `sam2-nano` and `segformer-nano`, described by transformers' own config classes."""

from typing import Any

NANO_IMAGE_SIZE = 384  # ours: 24 x 24 tokens; at 256 (16 x 16) small objects shared their tokens with neighbours
NANO_HIDDEN_SIZE = 128  # a multiple of the memory size 64, as pointers are split into tokens of 64


def sam2_nano_config(image_size: int = NANO_IMAGE_SIZE) -> Any:
    """Return the `Sam2VideoConfig` of sam2-nano: SAM 2.1's parts, each smaller, with 4 memories in place of 7.

    Unlike SAM 2, the feature pyramid passes coarse levels down to the two finest ones too (`fpn_top_down_levels`):
    with few blocks before stride 4, edges need the context.
    """
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import (
        Sam2VideoMaskDecoderConfig,
        Sam2VideoPromptEncoderConfig,
    )

    hidden, grid = NANO_HIDDEN_SIZE, image_size // 16
    widths = [32, 64, 128, 192]
    backbone = Sam2HieraDetConfig(
        hidden_size=widths[0],
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 2, 4, 1],
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[1, 2, 4, 6],
        window_size_per_stage=[8, 4, 12, 12],
        window_positional_embedding_background_size=[16, 16],
        global_attention_blocks=[4, 5, 6],
        mlp_ratio=3.0,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
        fpn_hidden_size=hidden,
        fpn_top_down_levels=[0, 1, 2, 3],
    )
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(hidden_size=hidden, image_size=image_size),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(
            hidden_size=hidden, mlp_dim=256, num_attention_heads=4, iou_head_hidden_dim=hidden
        ),
        image_size=image_size,
        num_maskmem=4,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=256,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=256,
        memory_fuser_layer_scale_init_value=0.1,
    )


def segformer_nano_config(names: tuple[str, ...]) -> Any:
    """Return the `SegformerConfig` of segformer-nano for the given class names."""
    from transformers import SegformerConfig

    return SegformerConfig(
        depths=[1, 1, 2, 1],
        hidden_sizes=[16, 32, 64, 96],
        num_attention_heads=[1, 1, 2, 3],
        mlp_ratios=[2, 2, 3, 3],
        decoder_hidden_size=64,
        drop_path_rate=0.0,
        classifier_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        semantic_loss_ignore_index=255,
    )
