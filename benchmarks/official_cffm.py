"""CFFM, CFFM++ and SegFormer beside the official code of GuoleiSun/VSS-CFFM, on equal weights and input."""

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor

from official_rows import OfficialModel, Row, compare, compare_losses, encode_frames, golden_clip, share_weights
from official_stubs import official_code
from sam2vss.segmenters.vss.cffm import UNUSED_KEYS, CffmHead
from sam2vss.segmenters.vss.cffm_plus import UNUSED_KEYS as UNUSED_PLUS_KEYS
from sam2vss.segmenters.vss.cffm_plus import CffmPlusHead, make_prototypes
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer, Stages
from sam2vss.segmenters.vss.segformer import VssModel

NUM_CLASSES: Final = 124
CFFM: Final = "CFFMHead_clips_resize1_8"
CFFM_PLUS: Final = "CFFMHead_clips_resize1_8_finetune_w_prototype3"
DEPTHS: Final = {"b0": 1, "b1": 2, "b2": 2, "b5": 4}  # local_configs/cffm/B*/cffm.b*.480x480.vspw2.160k.py
ENLARGED: Final = (r".*_to_neighbors", 200.0)  # by name these biases are too small to tell one order of the ring apart


def official_cffm(clone: Path, size: str, head: str = CFFM) -> OfficialModel:
    """Build the official network with the settings of its configuration file."""
    with official_code({"mmseg": clone / "mmseg"}):
        encoders: Any = importlib.import_module("mmseg.models.backbones.mix_transformer")
        heads: Any = importlib.import_module("mmseg.models.decode_heads.cffm_head")
        return OfficialModel(
            getattr(encoders, f"mit_{size}")(),
            getattr(heads, head)(
                feature_strides=[4, 8, 16, 32],
                in_channels=list(MIT_SIZES[size].channels),
                in_index=[0, 1, 2, 3],
                channels=128,
                dropout_ratio=0.1,
                num_classes=NUM_CLASSES,
                norm_cfg={"type": "SyncBN", "requires_grad": True},
                align_corners=False,
                decoder_params={"embed_dim": 256, "depths": DEPTHS[size]},
                loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                num_clips=4,
            ),
        )


def compare_cffm(clone: Path, size: str, inputs: Sequence[tuple[int, int]]) -> Iterator[Row]:
    """Compare clips and single frames at each input size, and the loss and CFFM++ at a small one."""
    official = official_cffm(clone, size)
    head = CffmHead(MIT_SIZES[size].channels, NUM_CLASSES, DEPTHS[size])
    own = VssModel(MixTransformer(MIT_SIZES[size]), head)
    share_weights(official, own, UNUSED_KEYS, enlarge=ENLARGED)
    for height, width in inputs:
        clip = golden_clip(height, width)
        with torch.inference_mode():
            stages: Stages = official.backbone(clip)
            refined = official.decode_head(stages, 1, 4)
            single = official.decode_head(tuple(stage[3:] for stage in stages), 1, 1)
            yield compare("CFFM", size, f"{height}x{width} clip", head.decode(encode_frames(own, clip)), refined)
            yield compare("SegFormer", size, f"{height}x{width} frame", own_frame(own, clip[3:]), single)
    yield compare_losses("CFFM", official, own, size, (96, 160))
    yield compare_cffm_plus(clone, size)


def compare_cffm_plus(clone: Path, size: str) -> Row:
    """Compare one clip of CFFM++ for the same prototypes, which its code reads from a file of the video's name."""
    official = official_cffm(clone, size, CFFM_PLUS)
    head = CffmPlusHead(MIT_SIZES[size].channels, NUM_CLASSES, DEPTHS[size])
    own = VssModel(MixTransformer(MIT_SIZES[size]), head)
    share_weights(official, own, UNUSED_PLUS_KEYS, enlarge=ENLARGED)
    clip = golden_clip(96, 160)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        frames = encode_frames(own, clip)
        prototypes = make_prototypes(frames)
        (Path(folder) / "video").mkdir()
        torch.save(prototypes[None], Path(folder) / "video" / "centers.pt")
        official.decode_head.save_path = folder + "/"
        metas = [{"filename": "video/origin/00000001.jpg"}]
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor):
            theirs = official.decode_head(official.backbone(clip), 1, 4, None, metas)
        return compare("CFFM++", size, "96x160 clip", head.decode(frames, prototypes), theirs)


def own_frame(own: VssModel, frame: Tensor) -> Tensor:
    return own.decode_head.classify(own.decode_head.fuse(own.backbone(frame)))
