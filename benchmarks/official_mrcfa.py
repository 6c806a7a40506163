"""MRCFA beside the official code of GuoleiSun/VSS-MRCFA, on equal weights and input."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from official_rows import OfficialModel, Row, compare, compare_losses, encode_frames, golden_clip, share_weights
from official_stubs import official_code
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer, Stages
from sam2vss.segmenters.vss.mrcfa import KEEP_RATIO, KEEP_RATIO_B0, MrcfaHead
from sam2vss.segmenters.vss.segformer import UNUSED_KEYS, VssModel

NUM_CLASSES: Final = 124


def official_mrcfa(clone: Path, size: str) -> OfficialModel:
    """Build the official network as in local_configs/mrcfa/B*/mrcfa.b*.480x480.vspw2_hypercorr.160k.py."""
    with official_code({"mmseg": clone / "mmseg"}):
        encoders: Any = importlib.import_module("mmseg.models.backbones.mix_transformer")
        heads: Any = importlib.import_module("mmseg.models.decode_heads.segformer_head")
        return OfficialModel(
            getattr(encoders, f"mit_{size}")(),
            heads.SegFormerHead_clips2_resize_1_8_hypercorrelation2_topk_ensemble4(
                feature_strides=[4, 8, 16, 32],
                in_channels=list(MIT_SIZES[size].channels),
                in_index=[0, 1, 2, 3],
                channels=128,
                dropout_ratio=0.1,
                num_classes=NUM_CLASSES,
                norm_cfg={"type": "SyncBN", "requires_grad": True},
                align_corners=False,
                decoder_params={"embed_dim": 256},
                loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                num_clips=4,
                hypercorre=True,
                backbone=size,
            ),
        )


def compare_mrcfa(clone: Path, size: str, inputs: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Compare clips at each input size, and the loss at a small one."""
    official = official_mrcfa(clone, size)
    ratio = KEEP_RATIO_B0 if size == "b0" else KEEP_RATIO
    head = MrcfaHead(MIT_SIZES[size].channels, NUM_CLASSES, has_deep_stacks=size == "b1", keep_ratio=ratio)
    own = VssModel(MixTransformer(MIT_SIZES[size]), head)
    share_weights(official, own, UNUSED_KEYS)
    for height, width in inputs:
        clip = golden_clip(height, width)
        with torch.inference_mode():
            stages: Stages = official.backbone(clip)
            theirs = official.decode_head(stages, 1, 4)
            yield compare("MRCFA", size, f"{height}x{width} clip", head.decode(encode_frames(own, clip)), theirs)
    yield compare_losses("MRCFA", official, own, size, (96, 160))
