"""Meta's own SAM 2 checkpoints (`.pt`): what a file holds, and its weights under transformers' names.

Used by `weights.py` alone. Reading a file runs nothing that lies in it. Which network it is follows from the tensors,
never from the file's name, and every tensor is accounted for: what is missing, left over or of another shape is named.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints import check_names, listed, read_torch_file
from ..errors import WeightsError

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig


@dataclass(frozen=True)
class Trunk:
    """The image encoder's trunk (Hiera), all that sets the released sizes apart.

    Widths and heads double from stage to stage. Heads, windows and global blocks leave no trace in the tensors, which
    is why only the released trunks can be read.

    Attributes:
        size: Name of the size.
        width: Channels of the first stage.
        heads: Attention heads of the first stage.
        blocks: Blocks per stage.
        global_blocks: Blocks that attend to the whole picture instead of windows.
        windows: Side of the attention windows per stage, in cells.
        background: Side of the positional embedding that is stretched over the picture, in cells.
    """

    size: str
    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, int, int]
    windows: tuple[int, int, int, int]
    background: int

    def per_stage(self, first: int) -> list[int]:
        """Double a number from stage to stage."""
        return [first * 2**stage for stage in range(len(self.blocks))]


# Source: sam2 repository, configs/sam2/*.yaml and configs/sam2.1/*.yaml; what these leave out, Hiera's own defaults.
TRUNKS = (
    Trunk("tiny", 96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    Trunk("small", 96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    Trunk("base-plus", 112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    Trunk("large", 144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
)
ADDED_IN_2_1 = ("obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias", "no_obj_embed_spatial")
STRANGERS = {  # beginnings of names that tell networks of the family which are not SAM 2
    "spatial_perceiver.": "EdgeTAM",
    "detector.": "SAM 3",
    "image_encoder.blocks.": "SAM 1",
    "image_encoder.trunk.": "a relative of SAM 2 with another image encoder",
}


@dataclass(frozen=True)
class MetaArchitecture:
    """What a checkpoint holds: the trunk's size, and the generation, SAM 2.1 or 2.0."""

    trunk: Trunk
    is_2_1: bool

    def __str__(self) -> str:
        return f"SAM {'2.1' if self.is_2_1 else '2.0'} {self.trunk.size}"


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the weights of a `.pt` file, {"model": {name: tensor}}, mapped into memory; no code in it is run.

    Entries beside "model" (optimiser, epoch) are left aside.

    Raises:
        WeightsError: If the file cannot be read, is no checkpoint, holds code, or has another form.
    """
    data = read_torch_file(file)
    if not isinstance(data, Mapping):
        raise WeightsError(f"{file} holds a {type(data).__name__}, expected the dictionary {{'model': weights}}")
    weights = data.get("model")
    if not isinstance(weights, Mapping):
        raise WeightsError(
            f"{file} is no SAM 2 checkpoint{_kin(map(str, data))}: it has no weights under 'model' "
            f"(found {listed(map(str, data)) or 'nothing'}); expected {{'model': weights}}, as Meta saves them."
        )
    others = [f"{name} ({type(value).__name__})" for name, value in weights.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{file} holds more than weights under 'model': {listed(others)}")
    return {str(name): tensor for name, tensor in weights.items()}


def recognise(weights: Mapping[str, Tensor], file: Path) -> MetaArchitecture:
    """Tell size and generation from the names and shapes of the tensors.

    Raises:
        WeightsError: If the trunk is none of the four released ones.
    """
    patches = weights.get("image_encoder.trunk.patch_embed.proj.weight")
    if patches is None or not patches.ndim:
        raise WeightsError(
            f"{file} is no SAM 2 checkpoint{_kin(weights)}: none of its {len(weights)} tensors is "
            f"image_encoder.trunk.patch_embed.proj.weight (found {listed(weights) or 'nothing'})."
        )
    blocks = _blocks_per_stage(weights)
    for trunk in TRUNKS:
        if (len(patches), blocks) == (trunk.width, trunk.blocks):
            return MetaArchitecture(trunk, any(name in weights for name in ADDED_IN_2_1))
    known = "; ".join(f"{trunk.size} {trunk.width} and {trunk.blocks}" for trunk in TRUNKS)
    raise WeightsError(
        f"{file} holds an image encoder of another architecture: width {len(patches)} and blocks {blocks} per stage; "
        f"expected one of SAM 2's ({known}). A smaller or larger network needs a folder with config.json, which says "
        "what the tensors do not."
    )


def video_config(architecture: MetaArchitecture) -> "Sam2VideoConfig":
    """Describe the network to transformers; what is not named here is the same in all sizes and its default."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    trunk = architecture.trunk
    backbone = Sam2HieraDetConfig(
        hidden_size=trunk.width,
        num_attention_heads=trunk.heads,
        blocks_per_stage=list(trunk.blocks),
        embed_dim_per_stage=trunk.per_stage(trunk.width),
        num_attention_heads_per_stage=trunk.per_stage(trunk.heads),
        window_size_per_stage=list(trunk.windows),
        window_positional_embedding_background_size=[trunk.background] * 2,
        global_attention_blocks=list(trunk.global_blocks),
    )
    return Sam2VideoConfig(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=trunk.per_stage(trunk.width)[::-1]
        ),
        enable_temporal_pos_encoding_for_object_pointers=architecture.is_2_1,
        enable_occlusion_spatial_embedding=architecture.is_2_1,
    )


def convert(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], file: Path) -> dict[str, Tensor]:
    """Give the weights transformers' names.

    Args:
        weights: Meta's names and tensors.
        shapes: Names and shapes of transformers' network for the same architecture.
        file: For messages.

    Raises:
        WeightsError: If tensors are missing, left over or of another shape.
    """
    advice = "Take a checkpoint as Meta released it, or save one without the tensors of its training."
    check_names(weights, meta_shapes(shapes), file, advice)
    sources = {name: meta_names(name) for name in shapes}
    return {name: torch.cat([weights[source] for source in names]) for name, names in sources.items()}


def meta_shapes(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Turn names and shapes of transformers' network into those that Meta's checkpoint of it has."""
    expected = {}
    for name, shape in shapes.items():
        sources = meta_names(name)
        for source in sources:
            expected[source] = torch.Size((shape[0] // len(sources), *shape[1:]))
    return expected


_HEADS = r"(output_hypernetworks_mlps\.\d|iou_prediction_head|pred_obj_score_head|obj_ptr_proj)"
_CONVOLUTIONS = {  # places in Meta's nn.Sequential, activations counted
    "prompt_encoder.mask_embed": {"conv1": 0, "layer_norm1": 1, "conv2": 3, "layer_norm2": 4, "conv3": 6},
    "mask_decoder": {"upscale_conv1": 0, "upscale_layer_norm": 1, "upscale_conv2": 3},
    "memory_encoder.mask_downsampler": {
        **{f"layers.{layer}.conv": 3 * layer for layer in range(4)},
        **{f"layers.{layer}.layer_norm": 3 * layer + 1 for layer in range(4)},
        "final_conv": 12,
    },
}
_SEQUENCES = {
    "prompt_encoder.mask_embed": "sam_prompt_encoder.mask_downscaling",
    "mask_decoder": "sam_mask_decoder.output_upscaling",
    "memory_encoder.mask_downsampler": "memory_encoder.mask_downsampler.encoder",
}
_MODULES = {  # whole names without ".weight" and ".bias", first of all
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_memory_embedding": "no_mem_embed",
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "no_object_pointer": "no_obj_ptr",
    "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    "temporal_positional_encoding_projection_layer": "obj_ptr_tpos_proj",
    "memory_encoder.feature_projection": "memory_encoder.pix_feat_proj",
    "memory_encoder.projection": "memory_encoder.out_proj",
    "shared_image_embedding.positional_embedding": "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.shared_embedding.positional_embedding": (
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    ),
    **{
        f"{ours}.{part}": f"{_SEQUENCES[ours]}.{place}"
        for ours, places in _CONVOLUTIONS.items()
        for part, place in places.items()
    },
}
_RULES = (  # for all other modules, one after the other
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.(convs\.\d)$", r"image_encoder.neck.\1.conv"),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"^object_pointer_proj\.", "obj_ptr_proj."),
    (r"patch_embed\.projection$", "patch_embed.proj"),
    (r"memory_fuser\.", "fuser."),
    (r"depthwise_conv$", "dwconv"),
    (r"pointwise_conv(\d)$", r"pwconv\1"),
    (r"\.scale$", ".gamma"),
    (r"layer_norm_final_attn$", "norm_final_attn"),
    (r"layer_norm(\d?)$", r"norm\1"),
    (r"\.o_proj$", ".out_proj"),
    (_HEADS + r"\.layers\.0$", r"\1.layers.1"),
    (_HEADS + r"\.proj_out$", r"\1.layers.2"),
    (r"\.proj_in$", ".layers.0"),
    (r"\.proj_out$", ".layers.1"),
)
POINT_KINDS = 4  # negative click, positive click, and a box's two corners; one tensor each in Meta's files


def meta_names(name: str) -> tuple[str, ...]:
    """Return under which names Meta's checkpoint holds one of transformers' weights; several are stacked."""
    if name == "prompt_encoder.point_embed.weight":
        return tuple(f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in range(POINT_KINDS))
    module, suffix = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name).groups("")  # type: ignore[union-attr]
    if module in _MODULES:
        return (_MODULES[module] + suffix,)
    for pattern, replacement in _RULES:
        module = re.sub(pattern, replacement, module)
    return (module + suffix,)


def _blocks_per_stage(weights: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Count the trunk's blocks, stage by stage; a block belongs to the stage whose width it answers with."""
    widths: dict[int, int] = {}
    names = (f"image_encoder.trunk.blocks.{block}.norm2.weight" for block in range(len(weights)))
    for name in takewhile(weights.__contains__, names):
        width = weights[name].numel()
        widths[width] = widths.get(width, 0) + 1
    return tuple(widths.values())


def _kin(names: Iterable[str]) -> str:
    """Say which network of the family the names look like, "" for none."""
    names = list(names)
    looks = [network for start, network in STRANGERS.items() if any(name.startswith(start) for name in names)]
    return f" but looks like {looks[0]}" if looks else ""
