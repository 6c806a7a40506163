"""The names of VidEoMT's weights: transformers' and those in the authors' checkpoints.

Their networks come in two forms. With a DINOv2 encoder the blocks are timm's, and transformers has the network. With a
DINOv3 encoder they are transformers' own blocks, as in its EoMT; only the layer that hands queries on is new.

Source: tue-mps/videomt at 39411e9, videomt/modeling/backbone/{videomt,vit,scale_block}.py; names and shapes were taken
from networks built with it (tests/segmenters/golden_videomt.json).
"""

import re
from collections.abc import Mapping
from typing import Final

import torch

ENCODER: Final = "backbone.encoder.backbone"
POSITIONS: Final = "embeddings.position_embeddings.weight"  # of DINOv2 alone; DINOv3 turns its channels instead
OURS_ALONE: Final = ("criterion.empty_weight", "embeddings.mask_token")  # which inference never reads
THEIRS_ALONE: Final = ("criterion.empty_weight", "pixel_mean", "pixel_std")  # of the training and of preprocessing
_HEADS: Final = {  # whole names without ".weight" and ".bias"
    "attn_mask_probs": "backbone.attn_mask_probs",
    "class_predictor": "backbone.class_head",
    "layernorm": f"{ENCODER}.norm",
    "mask_head.fc1": "backbone.mask_head.0",  # places in an nn.Sequential, activations counted
    "mask_head.fc2": "backbone.mask_head.2",
    "mask_head.fc3": "backbone.mask_head.4",
    "query": "backbone.q",
    "query_updater": "backbone.query_updater",
}
_DINOV2: Final = {
    "embeddings.cls_token": f"{ENCODER}.cls_token",
    "embeddings.patch_embeddings.projection": f"{ENCODER}.patch_embed.proj",
    "embeddings.position_embeddings": f"{ENCODER}.pos_embed",
    "embeddings.register_tokens": f"{ENCODER}.reg_token",
}
_RULES: Final = (  # for all other modules, one after the other
    (r"^layers\.", f"{ENCODER}.blocks."),
    (r"^embeddings\.", f"{ENCODER}.patch_embed."),
    (r"^upscale_block\.block\.(\d+)\.layernorm2d$", r"backbone.upscale.\1.norm"),
    (r"^upscale_block\.block\.", "backbone.upscale."),
)
_DINOV2_RULES: Final = (
    (r"\.attention\.out_proj$", ".attn.proj"),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)
_THIRDS: Final = {"q": 0, "k": 1, "v": 2}


def has_dinov3(shapes: Mapping[str, torch.Size]) -> bool:
    """Whether transformers' network with these names has a DINOv3 encoder."""
    return POSITIONS not in shapes


def official_name(name: str, is_dinov3: bool = False) -> tuple[str, int | None]:
    """Return under which name the authors' checkpoint holds one of transformers' weights, and which third of it.

    With DINOv2 queries, keys and values are one tensor there; all others are whole (None).
    """
    attention = re.fullmatch(r"layers\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)", name)
    if attention and not is_dinov3:
        return f"{ENCODER}.blocks.{attention[1]}.attn.qkv.{attention[3]}", _THIRDS[attention[2]]
    module, suffix = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name).groups(default="")  # type: ignore[union-attr]
    if name == POSITIONS:
        suffix = ""
    known = _HEADS if is_dinov3 else {**_HEADS, **_DINOV2}
    if module in known:
        return known[module] + suffix, None
    for pattern, replacement in _RULES if is_dinov3 else (*_RULES, *_DINOV2_RULES):
        module = re.sub(pattern, replacement, module)
    return module + suffix, None


def official_shapes(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Turn names and shapes of transformers' network into those of the authors' checkpoint."""
    expected = {}
    for name, shape in shapes.items():
        if name in OURS_ALONE:
            continue
        official, third = official_name(name, has_dinov3(shapes))
        if name == POSITIONS:
            shape = torch.Size((1, *shape))
        expected[official] = torch.Size((3 * shape[0], *shape[1:])) if third is not None else shape
    return expected
