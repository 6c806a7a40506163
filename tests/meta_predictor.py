"""Meta's `SAM2VideoPredictor` on the tiny network's weights, to be run beside ours.

Needs the public sam2 package (facebookresearch/sam2, commit 2b90b9f); the golden values in tests/sam2 were made by it
and stand for it where the package is missing. `python tests/meta_predictor.py` prints them anew.
"""

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam2vss.sam2.meta_checkpoints import meta_names
from sam2vss.sam2.model import Sam2Network
from tiny_sam2 import HIDDEN, first_masks, moving_frames, tiny_network

GOLDEN_FRAMES = (1, 2, 7, 8, 16, 21)  # memory of one frame, rings just full and just wrapped around, and the last


def load_predictor(network: Sam2Network) -> Any:
    """Build Meta's predictor with the sizes of `tiny_config` and the weights of a tiny network.

    Raises:
        ImportError: If the package is not installed.
    """
    sys.modules.pop("sam2", None)  # pytest knows the folder tests/sam2 by that name
    predictor = import_module("sam2.sam2_video_predictor")
    part = {
        name: import_module(f"sam2.modeling.{name}")
        for name in ("memory_attention", "memory_encoder", "position_encoding")
    }
    transformer = import_module("sam2.modeling.sam.transformer")
    encoder = import_module("sam2.modeling.backbones.image_encoder")
    hiera = import_module("sam2.modeling.backbones.hieradet")

    def sine(channels: int) -> Any:
        return part["position_encoding"].PositionEmbeddingSine(num_pos_feats=channels, normalize=True)

    def rope(**options: Any) -> Any:
        return transformer.RoPEAttention(
            feat_sizes=list(network.grid_size), embedding_dim=HIDDEN, num_heads=1, downsample_rate=1, **options
        )

    layer = part["memory_attention"].MemoryAttentionLayer(
        activation="relu", dim_feedforward=128, dropout=0.1, d_model=HIDDEN,
        pos_enc_at_attn=False, pos_enc_at_cross_attn_keys=True, pos_enc_at_cross_attn_queries=False,
        self_attention=rope(), cross_attention=rope(rope_k_repeat=True, kv_in_dim=64),
    )  # fmt: skip
    block = part["memory_encoder"].CXBlock(dim=HIDDEN, kernel_size=7, padding=3)
    trunk = hiera.Hiera(
        embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_att_blocks=(3,),
        window_pos_embed_bkg_spatial_size=(4, 4), window_spec=(8, 4, 4, 2),
    )  # fmt: skip
    neck = encoder.FpnNeck(
        position_encoding=sine(HIDDEN), d_model=HIDDEN, backbone_channel_list=[128, 64, 32, 16],
        fpn_top_down_levels=[2, 3], fpn_interp_model="nearest",
    )  # fmt: skip
    switches = (  # as in the released SAM 2.1
        "use_mask_input_as_output_without_sam directly_add_no_mem_embed no_obj_embed_spatial "
        "iou_prediction_use_sigmoid use_high_res_features_in_sam multimask_output_in_sam "
        "use_obj_ptrs_in_encoder add_tpos_enc_to_obj_ptrs proj_tpos_enc_in_obj_ptrs "
        "use_signed_tpos_enc_to_obj_ptrs only_obj_ptrs_in_the_past_for_eval pred_obj_scores "
        "pred_obj_scores_mlp fixed_no_obj_ptr multimask_output_for_tracking "
        "use_multimask_token_for_obj_ptr use_mlp_for_obj_ptr_proj binarize_mask_from_pts_for_mem_enc"
    )
    theirs = predictor.SAM2VideoPredictor(
        image_encoder=encoder.ImageEncoder(scalp=1, trunk=trunk, neck=neck),
        memory_attention=part["memory_attention"].MemoryAttention(
            d_model=HIDDEN, pos_enc_at_input=True, layer=layer, num_layers=2
        ),
        memory_encoder=part["memory_encoder"].MemoryEncoder(
            out_dim=64, in_dim=HIDDEN, position_encoding=sine(64),
            mask_downsampler=part["memory_encoder"].MaskDownSampler(
                embed_dim=HIDDEN, kernel_size=3, stride=2, padding=1
            ),
            fuser=part["memory_encoder"].Fuser(layer=block, num_layers=2),
        ),
        image_size=network.image_size, sigmoid_scale_for_mem_enc=20.0, sigmoid_bias_for_mem_enc=-10.0,
        multimask_min_pt_num=0, multimask_max_pt_num=1, fill_hole_area=0,
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
        **dict.fromkeys(switches.split(), True),
    ).eval()  # fmt: skip
    weights: dict[str, Tensor] = {}
    for name, tensor in network.model.state_dict().items():
        names = meta_names(name)
        weights.update(zip(names, tensor.chunk(len(names)), strict=True))
    theirs.load_state_dict(weights, strict=True)
    return theirs


def follow(theirs: Any, pixels: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Follow masks, bool (N, H, W), of the first of T frames (T, 3, S, S) with Meta's predictor.

    Returns:
        Mask logits (T, N, s, s) and object scores (T, N).
    """
    module = import_module("sam2.sam2_video_predictor")
    original, module.load_video_frames = module.load_video_frames, lambda **_: (pixels, *masks.shape[1:])
    try:
        state = theirs.init_state("pixels")
        for row, mask in enumerate(masks.numpy()):
            theirs.add_new_mask(state, 0, row, mask)
        for _ in theirs.propagate_in_video(state):
            pass
    finally:
        module.load_video_frames = original
    outputs = [state["output_dict_per_obj"][row] for row in range(len(masks))]
    frames = [{**output["cond_frame_outputs"], **output["non_cond_frame_outputs"]} for output in outputs]
    logits = [torch.cat([found[time]["pred_masks"][:, 0] for found in frames]) for time in range(len(pixels))]
    scores = [torch.cat([found[time]["object_score_logits"][:, 0] for found in frames]) for time in range(len(pixels))]
    return torch.stack(logits), torch.stack(scores)


def golden(image_size: int, is_sensitive: bool) -> dict[str, Any]:
    """Small excerpts of what Meta's predictor answers: by frame, 8 x 8 cells of every object, and object scores."""
    network = compared_network(image_size, is_sensitive)
    frames = network.pixels(torch.from_numpy(moving_frames(1 + GOLDEN_FRAMES[-1])))
    logits, scores = follow(load_predictor(network), frames, first_masks())
    cells = logits[:, :, *excerpt(image_size)]
    between = (logits[1:, :, None] - logits[1:, None]).abs().mean((-1, -2))[:, *torch.triu_indices(4, 4, 1)]
    return {
        "between": round(float(between.median()), 8),
        "cells": {time: np.round(cells[time].tolist(), 7).tolist() for time in GOLDEN_FRAMES},
        "scores": {time: np.round(scores[time].tolist(), 7).tolist() for time in GOLDEN_FRAMES},
    }


def compared_network(image_size: int, is_sensitive: bool) -> Sam2Network:
    """The tiny network with weights such that all objects stay in the picture."""
    return tiny_network(image_size, object_score_bias=0.0 if is_sensitive else 2.0, is_sensitive=is_sensitive)


def excerpt(image_size: int) -> tuple[slice, slice]:
    """Every so many cells of the mask logits, 4 x 4 in all."""
    step = image_size // 16
    return slice(step // 2, None, step), slice(step // 2, None, step)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.jit.script = lambda module: module
    note = "Meta's SAM2VideoPredictor (sam2 repository, commit 2b90b9f); tests/meta_predictor.py says what and how"
    kinds = [(size, kind) for size in (128, 256) for kind in ("ordinary", "sensitive")]
    content = {f"{kind} {size}": golden(size, kind == "sensitive") for size, kind in kinds}
    json.dump({"note": note, **content}, sys.stdout, indent=None, separators=(",", ":"))
