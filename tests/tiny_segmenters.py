"""Random models of many architectures, small enough to build, save and run in a moment."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from sam2vss.segmenters.hub_models import without_scipy

NUM_CLASSES = 5
NAMES = {i: name for i, name in enumerate(["sky", "road", "car", "person", "tree"])}
SQUARE = {"size": {"height": 64, "width": 64}}
SHORT = {"size": {"shortest_edge": 64, "longest_edge": 96}}


def _swin() -> Any:
    return tf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def _segformer() -> Any:
    return tf.SegformerForSemanticSegmentation(
        tf.SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, id2label=NAMES,
        )
    )  # fmt: skip


def _beit(config_class: Any = tf.BeitConfig, model_class: Any = tf.BeitForSemanticSegmentation) -> Any:
    return model_class(
        config_class(
            image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
            intermediate_size=16, out_indices=[1, 2, 3, 4], use_auxiliary_head=False, pool_scales=[1, 2],
            id2label=NAMES,
        )
    )  # fmt: skip


def _data2vec() -> Any:
    return _beit(tf.Data2VecVisionConfig, tf.Data2VecVisionForSemanticSegmentation)


def _dpt() -> Any:
    return tf.DPTForSemanticSegmentation(
        tf.DPTConfig(
            image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
            intermediate_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8, id2label=NAMES, use_auxiliary_head=False,
        )
    )  # fmt: skip


def _upernet() -> Any:
    backbone = tf.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    return tf.UperNetForSemanticSegmentation(
        tf.UperNetConfig(
            backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False, id2label=NAMES
        )
    )


def _mobilenet() -> Any:
    return tf.MobileNetV2ForSemanticSegmentation(
        tf.MobileNetV2Config(depth_multiplier=0.25, image_size=64, id2label=NAMES, output_stride=16)
    )


def _mobilevit() -> Any:
    return tf.MobileViTForSemanticSegmentation(
        tf.MobileViTConfig(
            image_size=64, hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 8], num_attention_heads=2,
            aspp_out_channels=8, id2label=NAMES,
        )
    )  # fmt: skip


def _mask2former() -> Any:
    return tf.Mask2FormerForUniversalSegmentation(
        tf.Mask2FormerConfig(
            backbone_config=_swin(), feature_size=32, mask_feature_size=32, hidden_dim=32, num_attention_heads=2,
            encoder_feedforward_dim=16, dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_queries=7,
            id2label=NAMES,
        )
    )  # fmt: skip


def _maskformer() -> Any:
    return tf.MaskFormerForInstanceSegmentation(
        tf.MaskFormerConfig(
            backbone_config=_swin(),
            decoder_config=tf.DetrConfig(
                d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=7,
            ),
            fpn_feature_size=32, mask_feature_size=32, id2label=NAMES,
        )
    )  # fmt: skip


def _oneformer() -> Any:
    return tf.OneFormerForUniversalSegmentation(
        tf.OneFormerConfig(
            backbone_config=_swin(), hidden_dim=32, conv_dim=32, mask_dim=32, num_attention_heads=2, num_queries=7,
            encoder_layers=1, decoder_layers=2, encoder_feedforward_dim=16, dim_feedforward=16, query_dec_layers=1,
            task_seq_len=24, text_encoder_width=16, text_encoder_context_length=12, text_encoder_num_layers=1,
            text_encoder_vocab_size=64, is_training=False, id2label=NAMES,
        )
    )  # fmt: skip


def _eomt(config_class: Any = tf.EomtConfig, model_class: Any = tf.EomtForUniversalSegmentation) -> Any:
    return model_class(
        config_class(
            image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_queries=7,
            num_blocks=1, num_upscale_blocks=1, num_register_tokens=0, id2label=NAMES,
        )
    )  # fmt: skip


def _eomt_dinov3() -> Any:
    return tf.EomtDinov3ForUniversalSegmentation(
        tf.EomtDinov3Config(
            image_size=64, patch_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
            num_attention_heads=2, num_queries=7, num_blocks=1, num_upscale_blocks=1, num_register_tokens=0,
            id2label=NAMES,
        )
    )  # fmt: skip


def _videomt() -> Any:
    return _eomt(tf.VideomtConfig, tf.VideomtForUniversalSegmentation)


def _detr() -> Any:
    return tf.DetrForSegmentation(
        tf.DetrConfig(
            use_timm_backbone=False, backbone=None, use_pretrained_backbone=False,
            backbone_config=tf.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
                out_features=["stage1", "stage2", "stage3", "stage4"],
            ),
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=8, decoder_attention_heads=8,
            encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=7, id2label=NAMES,
        )
    )  # fmt: skip


BUILDERS = {
    "segformer": (_segformer, {"image_processor_type": "SegformerImageProcessor", **SQUARE}),
    "beit": (_beit, {"image_processor_type": "BeitImageProcessor", **SQUARE}),
    "data2vec-vision": (_data2vec, {"image_processor_type": "BeitImageProcessor", **SQUARE}),
    "dpt": (_dpt, {"image_processor_type": "DPTImageProcessor", **SQUARE}),
    "upernet": (_upernet, {"image_processor_type": "SegformerImageProcessor", **SQUARE}),
    "mobilenet_v2": (_mobilenet, {"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 64}}),
    "mobilevit": (_mobilevit, {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 64}}),
    "mask2former": (_mask2former, {"image_processor_type": "Mask2FormerImageProcessor", **SHORT}),
    "maskformer": (_maskformer, {"image_processor_type": "MaskFormerImageProcessor", **SHORT}),
    "oneformer": (_oneformer, {"image_processor_type": "OneFormerImageProcessor", **SHORT}),
    "eomt": (
        _eomt,
        {"image_processor_type": "EomtImageProcessor", "size": {"shortest_edge": 64}, "do_split_image": True},
    ),
    "eomt_dinov3": (
        _eomt_dinov3,
        {"image_processor_type": "EomtImageProcessor", "size": {"shortest_edge": 64}, "do_split_image": True},
    ),
    "videomt": (_videomt, {"video_processor_type": "VideomtVideoProcessor", **SQUARE}),
    "detr": (_detr, {"image_processor_type": "DetrImageProcessor", **SHORT}),
}


def save_tiny(name: str, folder: Path) -> Path:
    """Write a random model of this architecture, with its preprocessor, as a hub repository holds it."""
    build, processor = BUILDERS[name]
    torch.manual_seed(0)
    with _without_scipy(name):
        model = build()
    with torch.no_grad():
        for key, parameter in model.named_parameters():  # wide weights, so that classes differ from pixel to pixel
            spread = 0.3 if "class" in key else 1.0 if "mask" in key else 0.2
            parameter.add_(spread * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if name == "oneformer":
        _write_tokenizer(folder)
    return folder


def _without_scipy(name: str) -> Any:
    config_class = tf.AutoConfig.for_model(name).__class__
    universal = tf.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    return without_scipy(universal[config_class]) if config_class in universal else contextlib.nullcontext()


def _write_tokenizer(folder: Path) -> None:
    letters = sorted(set("thetaskissemantic"))
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
