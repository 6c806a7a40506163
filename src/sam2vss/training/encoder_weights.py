"""Weights that a native model can start from: ImageNet's MiT in its two spellings, or another native model.

mit_b1.pth                    names of the published encoders: patch_embed1.proj.weight, block1.0.attn.q.weight, ...
nvidia/mit-b1, a folder       names of transformers: segformer.stages.0.blocks.0.attention.q_proj.weight, ...
cffm_b1.pth, a folder         names of the native models: backbone.patch_embed1.proj.weight, decode_head....
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..checkpoints import CHECKPOINT_SUFFIXES, read_weights
from ..errors import WeightsError
from ..hub import ModelLocation, quiet_transformers, resolve_model
from ..segmenters.hub_models import failing_as
from ..segmenters.kinds import kind_of
from ..segmenters.vss.architecture import is_vss
from ..segmenters.vss.checkpoint import WEIGHT_FILE

# Part of a name in transformers 5, and the published one; stages count from 0 there and from 1 here.
_PARTS: Final = (
    ("patch_embeddings.layer_norm.", "patch_embed{stage}.norm."),
    ("patch_embeddings.", "patch_embed{stage}."),
    ("layer_norm.", "norm{stage}."),
)
_BLOCK_PARTS: Final = {
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "attention.q_proj.": "attn.q.",
    "attention.o_proj.": "attn.proj.",
    "attention.sequence_reduction.sequence_reduction.": "attn.sr.",
    "attention.sequence_reduction.layer_norm.": "attn.norm.",
    "mlp.": "mlp.",
}
_STAGE: Final = re.compile(r"(?:segformer\.)?stages\.(\d+)\.(?:blocks\.(\d+)\.)?(.+)")


def read_start(name: str) -> dict[str, Tensor]:
    """Read weights under the names of the native models: "backbone...", of a native model "decode_head..." as well.

    Args:
        name: A checkpoint (.pth), a hub id or a folder.

    Raises:
        WeightsError: If they cannot be had, or hold no MiT.
    """
    path = Path(name).expanduser()
    if name.endswith(CHECKPOINT_SUFFIXES):
        if not path.is_file():
            raise WeightsError(f"there is no file {path}; expected encoder weights such as mit_b1.pth")
        return _with_prefix(read_weights(path), name)
    location = resolve_model(name, {})
    if kind_of(location) != "native":
        return _read_hub(location)
    try:
        return load_file(location.path / WEIGHT_FILE)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{location.path / WEIGHT_FILE} cannot be read: {error}") from error


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the encoder of a SegFormer of transformers 5; what is no part of it is left out.

    Keys and values, which are two matrices there, become one.
    """
    renamed = {}
    for name, value in state.items():
        found = _STAGE.fullmatch(name)
        if found is None:
            continue
        stage, block, rest = int(found[1]) + 1, found[2], found[3]
        if block is None:
            old, new = next(pair for pair in _PARTS if rest.startswith(pair[0]))
            renamed[f"backbone.{new.format(stage=stage)}{rest.removeprefix(old)}"] = value
            continue
        place = f"backbone.block{stage}.{block}."
        if rest.startswith("attention.k_proj."):
            values = state[name.replace("k_proj", "v_proj")]
            renamed[f"{place}attn.kv.{rest.rpartition('.')[2]}"] = torch.cat([value, values])
        elif not rest.startswith("attention.v_proj."):
            old = next(part for part in _BLOCK_PARTS if rest.startswith(part))
            renamed[f"{place}{_BLOCK_PARTS[old]}{rest.removeprefix(old)}"] = value
    return renamed


def _with_prefix(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    if is_vss(weights):
        return dict(weights)
    if "patch_embed1.proj.weight" in weights:
        encoder = re.compile(r"(patch_embed|block|norm)\d\.")
        return {f"backbone.{key}": value for key, value in weights.items() if encoder.match(key)}
    raise WeightsError(
        f"{name} holds no encoder of SegFormer: neither patch_embed1.proj.weight, as in ImageNet's mit_b1.pth, nor "
        f"backbone.patch_embed1.proj.weight (it begins with {', '.join(list(weights)[:3]) or 'nothing'})"
    )


def _read_hub(location: ModelLocation) -> dict[str, Tensor]:
    with failing_as(location), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(location.path, local_files_only=True)
        if config.model_type != "segformer":
            raise WeightsError(f"{location.id} is a {config.model_type} model, expected a SegFormer (such as mit-b1)")
        model, report = transformers.SegformerModel.from_pretrained(
            location.path, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    if report["missing_keys"]:
        raise WeightsError(f"{location.id} lacks {len(report['missing_keys'])} weights of its encoder")
    return from_transformers(model.state_dict())
