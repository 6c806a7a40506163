"""VidEoMT's own checkpoints (`.pth`, as detectron2 writes them) as transformers' network.

What the network is follows from the tensors; every tensor of a file is used or named. Only one thing no tensor tells:
models trained on VIPSeg count the same 124 classes in another order than those trained on VSPW, so the file's name has
to say which data set it was.

Source of names and meanings: tue-mps/videomt at 39411e9, videomt/modeling/backbone/{videomt,vit,scale_block}.py, which
were run beside transformers' network with the same weights (tests/segmenters/test_videomt_checkpoints.py).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints import check_names
from ..errors import WeightsError
from .class_names import NUM_VSPW_CLASSES, vipseg_training_order
from .hub_models import without_scipy

if TYPE_CHECKING:
    import transformers

MARK = "backbone.query_updater.weight"  # what no other family has
HEAD_WIDTH = 64  # channels of one attention head in every DINOv2
SIZES = {384: "S", 768: "B", 1024: "L"}
INSTANCE_SETS = {40: "YouTube-VIS", 25: "OVIS"}  # whose models segment some things and leave the rest of the picture
THEIRS_ALONE = ("criterion.empty_weight", "pixel_mean", "pixel_std")  # of the training and of preprocessing
OURS_ALONE = ("criterion.empty_weight", "embeddings.mask_token")  # which inference never reads
ENCODER = "backbone.encoder.backbone"
_MODULES = {  # whole names without ".weight" and ".bias"
    "attn_mask_probs": "backbone.attn_mask_probs",
    "class_predictor": "backbone.class_head",
    "embeddings.cls_token": f"{ENCODER}.cls_token",
    "embeddings.patch_embeddings.projection": f"{ENCODER}.patch_embed.proj",
    "embeddings.register_tokens": f"{ENCODER}.reg_token",
    "layernorm": f"{ENCODER}.norm",
    "mask_head.fc1": "backbone.mask_head.0",  # places in an nn.Sequential, activations counted
    "mask_head.fc2": "backbone.mask_head.2",
    "mask_head.fc3": "backbone.mask_head.4",
    "query": "backbone.q",
    "query_updater": "backbone.query_updater",
}
_RULES = (  # for all other modules, one after the other
    (r"^layers\.", f"{ENCODER}.blocks."),
    (r"\.attention\.out_proj$", ".attn.proj"),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^upscale_block\.block\.(\d+)\.layernorm2d$", r"backbone.upscale.\1.norm"),
    (r"^upscale_block\.block\.", "backbone.upscale."),
)
_POSITIONS = "embeddings.position_embeddings.weight"
_THIRDS = {"q": 0, "k": 1, "v": 2}


@dataclass(frozen=True)
class VideomtArchitecture:
    """What a checkpoint holds.

    Attributes:
        width: Channels of the vision transformer (384 S, 768 B, 1024 L).
        layers: Its blocks.
        query_layers: How many of them, the last ones, see the queries.
        queries: Number of queries.
        classes: Number of classes, "none" not counted.
        patch: Side of a patch, in pixels.
        image: Side of the square picture whose positions were learned, in pixels.
        registers: Register tokens.
        upscalings: Doublings of the feature grid before masks are made.
        mlp_ratio: Width inside the blocks' MLPs over `width`.
    """

    width: int
    layers: int
    query_layers: int
    queries: int
    classes: int
    patch: int
    image: int
    registers: int
    upscalings: int
    mlp_ratio: int

    def __str__(self) -> str:
        return f"VidEoMT-{SIZES.get(self.width, self.width)}"


def is_videomt(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a VidEoMT, of any size and encoder."""
    return MARK in weights


def recognise(weights: Mapping[str, Tensor], file: Path) -> VideomtArchitecture:
    """Read the architecture off the tensors.

    Raises:
        WeightsError: If it is no VidEoMT, one with a DINOv3 encoder, or one that does not label every pixel.
    """
    if not is_videomt(weights):
        raise WeightsError(f"{file} is no VidEoMT checkpoint: none of its {len(weights)} tensors is {MARK}")
    if f"{ENCODER}.patch_embed.patch_embeddings.weight" in weights:
        raise WeightsError(
            f"{file} is a VidEoMT with a DINOv3 encoder, whose rotary positions transformers' VidEoMT does not have; "
            "take the checkpoint with a DINOv2 encoder of the same data set"
        )
    needed = (
        f"{ENCODER}.patch_embed.proj.weight",
        f"{ENCODER}.pos_embed",
        f"{ENCODER}.reg_token",
        f"{ENCODER}.blocks.0.mlp.fc1.weight",
        "backbone.class_head.weight",
        "backbone.q.weight",
        "backbone.attn_mask_probs",
    )
    lacking = [name for name in needed if name not in weights]
    if lacking:
        raise WeightsError(f"{file} is no complete VidEoMT checkpoint: it has no {', no '.join(lacking)}")
    patches, positions, registers, inner, classes, queries, masks = (weights[name] for name in needed)
    side = math.isqrt(positions.shape[1])
    if side * side != positions.shape[1]:
        raise WeightsError(f"{file} has {positions.shape[1]} positions, expected those of a square picture")
    found = VideomtArchitecture(
        width=patches.shape[0],
        layers=_count(weights, rf"{re.escape(ENCODER)}\.blocks\.(\d+)\."),
        query_layers=len(masks),
        queries=queries.shape[0],
        classes=classes.shape[0] - 1,
        patch=patches.shape[-1],
        image=side * patches.shape[-1],
        registers=registers.shape[1],
        upscalings=_count(weights, r"backbone\.upscale\.(\d+)\."),
        mlp_ratio=inner.shape[0] // patches.shape[0],
    )
    refuse_instances(found.classes, str(file))
    return found


def refuse_instances(classes: int, what: str) -> None:
    """Raise `WeightsError` if a VidEoMT with this number of classes finds instances and does not label every pixel."""
    if classes in INSTANCE_SETS:
        raise WeightsError(
            f"{what} was trained on {INSTANCE_SETS[classes]} ({classes} classes of things): it finds instances and "
            "leaves the rest of the picture, so it gives no semantic labels; take one trained on VSPW or VIPSeg"
        )


def videomt_config(found: VideomtArchitecture) -> "transformers.VideomtConfig":
    """Describe the network to transformers."""
    import transformers

    return transformers.VideomtConfig(
        hidden_size=found.width,
        num_hidden_layers=found.layers,
        num_attention_heads=max(1, found.width // HEAD_WIDTH),
        num_blocks=found.query_layers,
        num_queries=found.queries,
        num_labels=found.classes,
        patch_size=found.patch,
        image_size=found.image,
        num_register_tokens=found.registers,
        num_upscale_blocks=found.upscalings,
        mlp_ratio=found.mlp_ratio,
    )


def official_name(name: str) -> tuple[str, int | None]:
    """Return under which name the authors' checkpoint holds one of transformers' weights, and which third of it.

    Queries, keys and values are one tensor there; all others are whole (None).
    """
    if name == _POSITIONS:
        return f"{ENCODER}.pos_embed", None
    attention = re.fullmatch(r"layers\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)", name)
    if attention:
        return f"{ENCODER}.blocks.{attention[1]}.attn.qkv.{attention[3]}", _THIRDS[attention[2]]
    module, suffix = re.fullmatch(r"(.+?)(\.weight|\.bias)?", name).groups(default="")  # type: ignore[union-attr]
    if module in _MODULES:
        return _MODULES[module] + suffix, None
    for pattern, replacement in _RULES:
        module = re.sub(pattern, replacement, module)
    return module + suffix, None


def official_shapes(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Turn names and shapes of transformers' network into those of the authors' checkpoint."""
    expected = {}
    for name, shape in shapes.items():
        if name in OURS_ALONE:
            continue
        official, third = official_name(name)
        if name == _POSITIONS:
            shape = torch.Size((1, *shape))
        expected[official] = torch.Size((3 * shape[0], *shape[1:])) if third is not None else shape
    return expected


def convert(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], file: Path) -> dict[str, Tensor]:
    """Give the weights transformers' names; those of VIPSeg get VSPW's order of classes.

    Args:
        weights: The authors' names and tensors.
        shapes: Names and shapes of transformers' network for the same architecture.
        file: For messages, and for the data set.

    Returns:
        A tensor for every name in `shapes`; those that inference never reads are zero.

    Raises:
        WeightsError: If tensors are missing, left over or of another shape.
    """
    of_network = {name: tensor for name, tensor in weights.items() if name not in THEIRS_ALONE}
    advice = "Take a checkpoint as the authors released it."
    check_names(of_network, official_shapes(shapes), file, advice)
    converted = {}
    for name, shape in shapes.items():
        if name in OURS_ALONE:
            converted[name] = torch.zeros(shape)
            continue
        official, third = official_name(name)
        tensor = of_network[official]
        part = tensor if third is None else tensor.chunk(3)[third]
        converted[name] = part.reshape(shape).to(torch.float32, copy=True)
    if is_of_vipseg(file, converted["class_predictor.bias"].numel() - 1):
        order = [*vipseg_training_order(), NUM_VSPW_CLASSES]  # "none" stays last
        for name in ("class_predictor.weight", "class_predictor.bias"):
            converted[name][order] = converted[name].clone()
    return converted


def is_of_vipseg(file: Path, classes: int) -> bool:
    """Whether the file's name says that a model of 124 classes was trained on VIPSeg; if not, it was on VSPW."""
    return classes == NUM_VSPW_CLASSES and re.search(r"vips+eg", file.name.lower()) is not None


def load_network(weights: Mapping[str, Tensor], file: Path) -> "transformers.VideomtForUniversalSegmentation":
    """Build transformers' network for a checkpoint and fill it; float32, in evaluation mode.

    Raises:
        WeightsError: See `recognise` and `convert`.
    """
    import transformers

    network = transformers.VideomtForUniversalSegmentation
    config = videomt_config(recognise(weights, file))
    with torch.device("meta"), without_scipy(network):
        model = network(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict(convert(weights, shapes, file), assign=True)
    positions = model.embeddings.position_ids  # a buffer that is no part of a checkpoint
    model.embeddings.position_ids = torch.arange(positions.shape[-1]).expand(positions.shape)
    model.eval().requires_grad_(False)
    return model


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many numbers, from 0 on, the first group of `pattern` matches in the names."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})
