"""Random CLIP, SigLIP and SigLIP 2 models with a tokenizer of a few words, as hub repositories hold them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("<pad>", "<end>", "<unk>", "<start>", "a", "photo", "of", "sky", "red", "car", "person", "clouds", ".")
_TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_TEXT = {**_TOWER, "vocab_size": len(WORDS), "eos_token_id": 1, "bos_token_id": 3, "pad_token_id": 0}
_PIXELS = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25], "resample": 3}


def _clip() -> Any:
    vision = {**_TOWER, "image_size": 32, "patch_size": 8}
    text = {**_TEXT, "max_position_embeddings": 12}
    return tf.CLIPModel(tf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=10))


def _siglip() -> Any:
    vision = {**_TOWER, "image_size": 32, "patch_size": 8}
    text = {**_TEXT, "max_position_embeddings": 12, "projection_size": 16}
    return tf.SiglipModel(tf.SiglipConfig(vision_config=vision, text_config=text))


def _siglip2() -> Any:
    vision = {**_TOWER, "num_patches": 16, "patch_size": 8}
    text = {**_TEXT, "max_position_embeddings": 12, "projection_size": 16}
    return tf.Siglip2Model(tf.Siglip2Config(vision_config=vision, text_config=text))


BUILDERS = {
    "clip": (_clip, "CLIPImageProcessor", "CLIPTokenizer"),
    "siglip": (_siglip, "SiglipImageProcessor", "SiglipTokenizer"),
    "siglip2": (_siglip2, "Siglip2ImageProcessor", "GemmaTokenizer"),
}
FAMILIES = list(BUILDERS)


def tiny_tokenizer() -> Tokenizer:
    """Whole words and punctuation; nothing is lower-cased; an end token behind every text."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    return tokenizer


def save_tiny_image_text(family: str, folder: Path) -> Path:
    """Write a random model with its tokenizer and image processor."""
    build, processor, tokenizer_class = BUILDERS[family]
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():  # wide weights, so that vectors differ
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    special = {"eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tf.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer(), **special).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": tokenizer_class}))
    size = {} if family == "siglip2" else {"size": {"shortest_edge": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": processor, **_PIXELS, **size}))
    return folder
