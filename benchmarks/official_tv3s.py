"""TV3S beside the official code of Ashesham/TV3S and state-spaces/mamba, on equal weights and input.

The official head runs on a GPU; here it gets mamba's own reference scan, and stand-ins for its Triton norms.
"""

import contextlib
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from official_rows import OfficialModel, Row, compare, compare_losses, encode_frames, golden_clip, share_weights
from official_stubs import new_module, official_code
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer
from sam2vss.segmenters.vss.segformer import UNUSED_KEYS, VssModel
from sam2vss.segmenters.vss.tv3s import Tv3sHead

NUM_CLASSES: Final = 124
SMALL: Final = (224, 320)  # the reference scan is slow
STREAMING: Final = {"test_mode": True, "val_mode": 2}  # as tools/test.py --mode 2 sets them, and num_clips to 1


@dataclass
class InferenceParams:
    """What mamba keeps of a stream; its own stands in a file that needs much else."""

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    key_value_memory_dict: dict[int, Any] = field(default_factory=dict)


class RMSNorm(nn.Module):
    """The parameters of mamba's norm."""

    bias = None

    def __init__(self, width: int, eps: float, **factory: object) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: None,
    residual: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    eps: float = 1e-6,
) -> Any:
    """mamba's norm of x + residual; with `prenorm` also that sum."""
    assert bias is None
    assert residual_in_fp32
    total = x.clone() if residual is None else x + residual
    normed = total * torch.rsqrt(total.square().mean(dim=-1, keepdim=True) + eps) * weight
    return (normed, total) if prenorm else normed


def official_tv3s(clone: Path, mamba: Path, size: str, streaming: bool = False) -> OfficialModel:
    """Build the official network as in local_configs/tv3s/B*/tv3s_realshift_w20_s10.b*.480x480.vspw2.160k.py."""
    norms = {"RMSNorm": RMSNorm, "rms_norm_fn": rms_norm_fn, "layer_norm_fn": None, "_layer_norm_fwd": None}
    extra = {
        "mamba_ssm.ops.triton": new_module("mamba_ssm.ops.triton", {}),
        "mamba_ssm.ops.triton.layer_norm": new_module("mamba_ssm.ops.triton.layer_norm", norms),
        "mamba_ssm.utils": new_module("mamba_ssm.utils", {}, mamba / "mamba_ssm" / "utils"),
        "mamba_ssm.utils.generation": new_module("mamba_ssm.utils.generation", {"InferenceParams": InferenceParams}),
        "mamba_ssm.modules": new_module("mamba_ssm.modules", {}, mamba / "mamba_ssm" / "modules"),
    }
    with official_code({"tv3s": clone / "utils", "mamba_ssm": mamba / "mamba_ssm"}, extra):
        scans: Any = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        scans.selective_scan_fn = scans.selective_scan_ref
        package: Any = importlib.import_module("mamba_ssm")
        package.Mamba = importlib.import_module("mamba_ssm.modules.mamba_simple").Mamba
        encoders: Any = importlib.import_module("tv3s.models.mix_transformer")
        heads: Any = importlib.import_module("tv3s.models.tv3s_head")
        window = {"window_w": 20, "window_h": 20, "shift_size": 10, "real_shift": True, "model_type": 0}
        return OfficialModel(
            getattr(encoders, f"mit_{size}")(),
            heads.TV3SHead_shift(
                feature_strides=[4, 8, 16, 32],
                in_channels=list(MIT_SIZES[size].channels),
                in_index=[0, 1, 2, 3],
                channels=128,
                dropout_ratio=0.1,
                num_classes=NUM_CLASSES,
                norm_cfg={"type": "SyncBN", "requires_grad": True},
                align_corners=False,
                decoder_params={"embed_dim": 256, **window, **(STREAMING if streaming else {})},
                loss_decode={"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
                num_clips=1 if streaming else 4,
            ),
        )


def compare_tv3s(clone: Path, mamba: Path, size: str) -> Iterator[Row]:
    """Compare a clip and its loss, and a stream of three frames that a second video follows."""
    head = Tv3sHead(MIT_SIZES[size].channels, NUM_CLASSES)
    own = VssModel(MixTransformer(MIT_SIZES[size]), head)
    official = official_tv3s(clone, mamba, size)
    share_weights(official, own, UNUSED_KEYS)
    what = f"{SMALL[0]}x{SMALL[1]}"
    clip = golden_clip(*SMALL)
    with torch.inference_mode():
        frames = encode_frames(own, clip)
        theirs = official.decode_head(official.backbone(clip), 1, 4)
        yield compare("TV3S", size, f"{what} clip", head.decode(frames), theirs)
    yield compare_losses("TV3S", official, own, size, (192, 192))  # theirs needs two windows a side
    official = official_tv3s(clone, mamba, size, streaming=True)
    share_weights(official, own, UNUSED_KEYS)
    state = None
    with torch.inference_mode():
        for video, t in (("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 0)):
            metas = [{"filename": f"data/{video}/origin/{t:08d}.jpg"}]
            with contextlib.redirect_stdout(io.StringIO()):  # it prints the name of every new video
                theirs = official.decode_head(official.backbone(clip[t : t + 1]), 1, 1, None, metas)
            logits, state = head.step(frames[t], None if (video, t) == ("b", 3) else state)
            yield compare("TV3S", size, f"{what} stream {video}, frame {t}", logits, theirs)
