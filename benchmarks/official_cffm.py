"""CFFM, CFFM++ and SegFormer beside the official code of GuoleiSun/VSS-CFFM, on equal weights and input."""

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from official_rows import OfficialModel, Row, compare, compare_values, golden_clip, random_labels, share_weights
from official_stubs import official_code
from sam2vss.segmenters.vss.cffm import UNUSED_KEYS, CffmFrame, CffmHead
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
            yield compare("CFFM", size, f"{height}x{width} clip", own_clip(own, clip), refined)
            yield compare("SegFormer", size, f"{height}x{width} frame", own_frame(own, clip[3:]), single)
    yield compare_losses(official, own, size)
    yield compare_cffm_plus(clone, size)


def compare_cffm_plus(clone: Path, size: str) -> Row:
    """Compare one clip of CFFM++ for the same prototypes, which its code reads from a file of the video's name."""
    official = official_cffm(clone, size, CFFM_PLUS)
    head = CffmPlusHead(MIT_SIZES[size].channels, NUM_CLASSES, DEPTHS[size])
    own = VssModel(MixTransformer(MIT_SIZES[size]), head)
    share_weights(official, own, UNUSED_PLUS_KEYS, enlarge=ENLARGED)
    clip = golden_clip(96, 160)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        frames = own_frames(own, clip)
        prototypes = make_prototypes(frames)
        (Path(folder) / "video").mkdir()
        torch.save(prototypes[None], Path(folder) / "video" / "centers.pt")
        official.decode_head.save_path = folder + "/"
        metas = [{"filename": "video/origin/00000001.jpg"}]
        with mock.patch.object(Tensor, "cuda", lambda tensor: tensor):
            theirs = official.decode_head(official.backbone(clip), 1, 4, None, metas)
        return compare("CFFM++", size, "96x160 clip", head.decode(frames, prototypes), theirs)


def own_clip(own: VssModel, clip: Tensor) -> Tensor:
    assert isinstance(own.decode_head, CffmHead)
    return own.decode_head.decode(own_frames(own, clip))


def own_frames(own: VssModel, clip: Tensor) -> list[CffmFrame]:
    """Encode frame by frame, as the segmenter does."""
    assert isinstance(own.decode_head, CffmHead)
    all_stages = [own.backbone(frame) for frame in clip.split(1)]
    return [own.decode_head.encode(stages, own.decode_head.fuse(stages)) for stages in all_stages]


def own_frame(own: VssModel, frame: Tensor) -> Tensor:
    return own.decode_head.classify(own.decode_head.fuse(own.backbone(frame)))


def compare_losses(official: OfficialModel, own: VssModel, size: str) -> Row:
    """Compare the loss of two clips, without dropout and with the stored statistics of the batch norm."""
    clips = torch.cat([golden_clip(96, 160), golden_clip(96, 160).flip(3)])
    labels = random_labels(8, 96, 160, NUM_CLASSES)
    with torch.inference_mode():
        stages = own.backbone(clips)
        official.decode_head.training = True  # of the head alone: its dropout and norm stay in evaluation mode
        logits = official.decode_head(stages, 2, 4)
        theirs = official.decode_head.losses(logits, labels.view(2, 4, 1, 96, 160))["loss_seg"]
        official.decode_head.training = False
        ours = torch.zeros(())
        for part in own.decode_head.training_logits(stages, 4):
            full = functional.interpolate(part.logits, (96, 160), mode="bilinear")
            pixels = functional.cross_entropy(full, labels[list(part.frames)], ignore_index=255, reduction="none")
            ours = ours + part.weight * pixels.mean()
    return compare_values("CFFM", size, "96x160 loss of two clips", ours, theirs)
