"""VidEoMT's own checkpoints (`.pth`, as detectron2 writes them) as transformers' network.

What the network is follows from the tensors; every tensor of a file is used or named. Only one thing no tensor tells:
models trained on VIPSeg count the same 124 classes in another order than those trained on VSPW, so the file's name has
to say which data set it was. `videomt_names.py` knows the names.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ..checkpoints import check_names, refuse_integers, shape_of
from ..errors import WeightsError
from ..types import WIDE_IGNORE_INDEX
from .class_names import NUM_VSPW_CLASSES, vipseg_training_order
from .hub_models import without_scipy
from .videomt_names import ENCODER, OURS_ALONE, THEIRS_ALONE, has_dinov3, official_name, official_shapes

if TYPE_CHECKING:
    import transformers

MARK = "backbone.query_updater.weight"  # what no other family has
HEAD_WIDTH = 64  # channels of one attention head in every DINOv2 and DINOv3
SIZES = {384: "S", 768: "B", 1024: "L"}
INSTANCE_SETS = {40: "YouTube-VIS", 25: "OVIS"}  # whose models segment some things and leave the rest of the picture
DINOV3_EPS = 1e-5  # of its layer norms; transformers' EoMT has 1e-6 of its own. Source: DINOv3's configurations

Network: TypeAlias = "transformers.VideomtForUniversalSegmentation | transformers.EomtDinov3ForUniversalSegmentation"


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
        image: Side of the square picture whose positions were learned, in pixels; None with a DINOv3 encoder, which
            takes pictures of any size.
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
    image: int | None
    registers: int
    upscalings: int
    mlp_ratio: int

    def __str__(self) -> str:
        return f"VidEoMT-{SIZES.get(self.width, self.width)} ({'DINOv3' if self.image is None else 'DINOv2'})"


def is_videomt(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a VidEoMT, of any size and encoder."""
    return MARK in weights


def recognise(weights: Mapping[str, Tensor], file: Path) -> VideomtArchitecture:
    """Read the architecture off the tensors.

    Raises:
        WeightsError: If it is no VidEoMT, a part of one, or one that does not label every pixel.
    """
    if not is_videomt(weights):
        raise WeightsError(f"{file} is no VidEoMT checkpoint: none of its {len(weights)} tensors is {MARK}")
    is_dinov3 = f"{ENCODER}.patch_embed.patch_embeddings.weight" in weights
    encoder = (
        ("patch_embed.patch_embeddings.weight", "patch_embed.register_tokens", "blocks.0.mlp.up_proj.weight")
        if is_dinov3
        else ("patch_embed.proj.weight", "reg_token", "blocks.0.mlp.fc1.weight", "pos_embed")
    )
    needed = (
        *(f"{ENCODER}.{name}" for name in encoder),
        "backbone.class_head.weight",
        "backbone.q.weight",
        "backbone.attn_mask_probs",
    )
    lacking = [name for name in needed if name not in weights]
    if lacking:
        raise WeightsError(f"{file} is no complete VidEoMT checkpoint: it has no {', no '.join(lacking)}")
    patches, registers, inner = (
        shape_of(weights, name, sides, file) for name, sides in zip(needed, (4, 3, 2), strict=False)
    )
    found = VideomtArchitecture(
        width=patches[0],
        layers=_count(weights, rf"{re.escape(ENCODER)}\.blocks\.(\d+)\."),
        query_layers=shape_of(weights, "backbone.attn_mask_probs", 1, file)[0],
        queries=shape_of(weights, "backbone.q.weight", 2, file)[0],
        classes=shape_of(weights, "backbone.class_head.weight", 2, file)[0] - 1,
        patch=patches[-1],
        image=None if is_dinov3 else _image_side(weights, patches[-1], file),
        registers=registers[1],
        upscalings=_count(weights, r"backbone\.upscale\.(\d+)\."),
        mlp_ratio=inner[0] // patches[0],
    )
    if not 1 <= found.classes <= WIDE_IGNORE_INDEX:
        raise WeightsError(f"{file} tells {found.classes} classes apart, expected 1 to {WIDE_IGNORE_INDEX}")
    refuse_instances(found.classes, str(file))
    return found


def refuse_instances(classes: int, what: str) -> None:
    """Raise `WeightsError` if a VidEoMT with this number of classes finds instances and does not label every pixel."""
    if classes in INSTANCE_SETS:
        raise WeightsError(
            f"{what} was trained on {INSTANCE_SETS[classes]} ({classes} classes of things): it finds instances and "
            "leaves the rest of the picture, so it gives no semantic labels; take one trained on VSPW or VIPSeg"
        )


def empty_network(found: VideomtArchitecture) -> Network:
    """Build transformers' network without memory for its weights.

    With a DINOv3 encoder it is EoMT, to which the layer is added that hands queries on to the next frame.
    """
    import transformers

    if found.image is not None:
        videomt = transformers.VideomtForUniversalSegmentation
        with torch.device("meta"), without_scipy(videomt):
            return videomt(
                transformers.VideomtConfig(
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
            )
    eomt = transformers.EomtDinov3ForUniversalSegmentation
    with torch.device("meta"), without_scipy(eomt):
        network = eomt(
            transformers.EomtDinov3Config(
                hidden_size=found.width,
                num_hidden_layers=found.layers,
                num_attention_heads=max(1, found.width // HEAD_WIDTH),
                num_blocks=found.query_layers,
                num_queries=found.queries,
                num_labels=found.classes,
                patch_size=found.patch,
                num_register_tokens=found.registers,
                num_upscale_blocks=found.upscalings,
                intermediate_size=found.mlp_ratio * found.width,
                layer_norm_eps=DINOV3_EPS,
            )
        )
        network.query_updater = torch.nn.Linear(found.width, found.width)
    return network


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
    of_network = _check(weights, shapes, file)
    converted = {}
    for name, shape in shapes.items():
        if name in OURS_ALONE:
            converted[name] = torch.zeros(shape)
            continue
        official, third = official_name(name, has_dinov3(shapes))
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


def check_weights(weights: Mapping[str, Tensor], found: VideomtArchitecture, file: Path) -> None:
    """Make sure that a checkpoint fills its network, without converting it.

    Raises:
        WeightsError: If tensors are missing, left over or of another shape.
    """
    _check(weights, {name: tensor.shape for name, tensor in empty_network(found).state_dict().items()}, file)


def load_network(weights: Mapping[str, Tensor], file: Path) -> Network:
    """Build transformers' network for a checkpoint and fill it; float32, in evaluation mode.

    Raises:
        WeightsError: See `recognise` and `convert`.
    """
    model = empty_network(recognise(weights, file))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    refuse_integers(weights, weights.keys(), file)
    model.load_state_dict(convert(weights, shapes, file), assign=True)
    if has_dinov3(shapes):  # buffers that are no part of a checkpoint
        model.rope_embeddings = type(model.rope_embeddings)(model.config)
    else:
        positions = model.embeddings.position_ids
        model.embeddings.position_ids = torch.arange(positions.shape[-1]).expand(positions.shape)
    model.eval().requires_grad_(False)
    return model


def _check(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], file: Path) -> dict[str, Tensor]:
    """Return the tensors of the network alone; they are all there and of the right shape."""
    of_network = {name: tensor for name, tensor in weights.items() if name not in THEIRS_ALONE}
    check_names(of_network, official_shapes(shapes), file, "Take a checkpoint as the authors released it.")
    return of_network


def _image_side(weights: Mapping[str, Tensor], patch: int, file: Path) -> int:
    count = shape_of(weights, f"{ENCODER}.pos_embed", 3, file)[1]
    side = math.isqrt(count)
    if side * side != count:
        raise WeightsError(f"{file} has {count} positions, expected those of a square picture")
    return side * patch


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many numbers, from 0 on, the first group of `pattern` matches in the names."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})
