"""Which network a checkpoint of the SegFormer family holds: told from the names and shapes of its tensors alone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from ...checkpoints import check_names, refuse_integers, shape_of
from ...errors import WeightsError
from ...types import WIDE_IGNORE_INDEX
from . import cffm, cffm_plus, mrcfa, segformer, tv3s
from .mit import MIT_SIZES, MitSize, MixTransformer
from .segformer import SegformerHead, VssModel

Family = Literal["SegFormer", "CFFM", "CFFM++", "MRCFA", "TV3S"]

# A part of the names that only one family has; whoever has none of them is a SegFormer.
_MARKS: Final[Mapping[str, Family]] = {
    "decode_head.decoder_swin.": "CFFM++",  # before CFFM, whose names it has too
    "decode_head.decoder_focal.": "CFFM",
    "decode_head.hypercorre_module.": "MRCFA",
    "decode_head.vs.layers.": "TV3S",
}
_UNUSED: Final[Mapping[Family, tuple[str, ...]]] = {
    "SegFormer": segformer.UNUSED_KEYS,
    "CFFM": cffm.UNUSED_KEYS,
    "CFFM++": cffm_plus.UNUSED_KEYS,
    "MRCFA": segformer.UNUSED_KEYS,
    "TV3S": segformer.UNUSED_KEYS,
}
FAMILIES: Final[tuple[Family, ...]] = tuple(_UNUSED)
_CFFM_DEPTHS: Final = {"b0": 1, "b1": 2, "b2": 2, "b3": 2, "b4": 2, "b5": 4}  # b3, b4: ours, none was published
_CFFM_BLOCKS: Final = "decode_head.decoder_focal.blocks."
_DEEP_STACK: Final = "decode_head.hypercorre_module.hpn.encoder_layer4.3."  # a second convolution per step


@dataclass(frozen=True)
class Architecture:
    """What a network is made of.

    Attributes:
        family: Its head.
        size: Its encoder.
        num_classes: C.
        depth: Focal blocks of CFFM, convolutions per step of MRCFA's affinity stacks; 0 for the others.
    """

    family: Family
    size: MitSize
    num_classes: int
    depth: int = 0

    def __str__(self) -> str:
        return f"{self.family} {self.size.name.upper()}, {self.num_classes} classes"


def is_vss(names: Iterable[str]) -> bool:
    """Whether tensors are named like those of this family: a MiT encoder and a decode head."""
    names = set(names)
    return "backbone.patch_embed1.proj.weight" in names and "decode_head.linear_pred.weight" in names


def recognise(weights: Mapping[str, Tensor], what: str) -> Architecture:
    """Tell family, size and number of classes of a checkpoint.

    Args:
        weights: Names and tensors.
        what: Names the file in messages.

    Raises:
        WeightsError: If it is no network of the family, or its encoder is none of MiT B0 to B5.
    """
    if not is_vss(weights):
        raise WeightsError(
            f"{what} holds neither SegFormer, CFFM, MRCFA nor TV3S: among its {len(weights)} tensors are no "
            f"backbone.patch_embed1.proj.weight and decode_head.linear_pred.weight "
            f"(it begins with {', '.join(list(weights)[:3]) or 'nothing'})"
        )
    marked: list[Family] = [name for mark, name in _MARKS.items() if any(key.startswith(mark) for key in weights)]
    family = marked[0] if marked else "SegFormer"
    num_classes = shape_of(weights, "decode_head.linear_pred.weight", 4, what)[0]
    if num_classes > WIDE_IGNORE_INDEX:
        raise WeightsError(f"{what} tells {num_classes} classes apart, expected at most {WIDE_IGNORE_INDEX}")
    return Architecture(family, _encoder_size(weights, what), num_classes, _depth(family, weights))


def default_architecture(family: Family, size: str, num_classes: int) -> Architecture:
    """Return a family's network as published for an encoder "b0" to "b5"."""
    depths = {"CFFM": _CFFM_DEPTHS[size], "CFFM++": _CFFM_DEPTHS[size], "MRCFA": 2 if size == "b1" else 1}
    return Architecture(family, MIT_SIZES[size], num_classes, depths.get(family, 0))


def build(architecture: Architecture) -> VssModel:
    """Make the network with random weights."""
    channels, classes = architecture.size.channels, architecture.num_classes
    head: SegformerHead
    match architecture.family:
        case "SegFormer":
            head = SegformerHead(channels, classes)
        case "CFFM":
            head = cffm.CffmHead(channels, classes, architecture.depth)
        case "CFFM++":
            head = cffm_plus.CffmPlusHead(channels, classes, architecture.depth)
        case "MRCFA":
            keep = mrcfa.KEEP_RATIO_B0 if architecture.size.name == "b0" else mrcfa.KEEP_RATIO
            head = mrcfa.MrcfaHead(channels, classes, has_deep_stacks=architecture.depth > 1, keep_ratio=keep)
        case "TV3S":
            head = tv3s.Tv3sHead(channels, classes)
    return VssModel(MixTransformer(architecture.size), head)


def without_unused(weights: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Leave out what published checkpoints hold and their models never use."""
    unused = re.compile("|".join(f"(?:{pattern})" for pattern in _UNUSED[family]))
    return {name: tensor for name, tensor in weights.items() if not unused.fullmatch(name)}


def build_from(weights: Mapping[str, Tensor], what: str) -> tuple[VssModel, Architecture]:
    """Make the network of a checkpoint and fill it; every tensor is used, known to be unused, or an error.

    Raises:
        WeightsError: As `recognise`, or if tensors are missing, left over or of another shape.
    """
    architecture = recognise(weights, what)
    with torch.random.fork_rng(devices=[]):  # the random weights are all replaced
        model = build(architecture)
    used = without_unused(weights, architecture.family)
    network = model.state_dict()
    check_names(used, {name: tensor.shape for name, tensor in network.items()}, what, _ADVICE)
    refuse_integers(used, {name for name, tensor in network.items() if tensor.is_floating_point()}, what)
    model.load_state_dict(used)
    return model, architecture


_ADVICE = "Take a checkpoint as its authors released it, or as `sam2vss train segmenter` saved it."


def _encoder_size(weights: Mapping[str, Tensor], what: str) -> MitSize:
    channels = tuple(
        shape_of(weights, name, 4, what)[0]
        for stage in range(1, 5)
        if (name := f"backbone.patch_embed{stage}.proj.weight") in weights
    )
    depths = tuple(_count(weights, f"backbone.block{stage}.") for stage in range(1, 5))
    for size in MIT_SIZES.values():
        if (size.channels, size.depths) == (channels, depths):
            return size
    known = "; ".join(f"{size.name.upper()} {size.channels} and {size.depths}" for size in MIT_SIZES.values())
    raise WeightsError(
        f"{what} holds an encoder with channels {channels} and blocks {depths}, expected one of the Mix Transformers "
        f"({known})"
    )


def _depth(family: Family, weights: Mapping[str, Tensor]) -> int:
    match family:
        case "CFFM" | "CFFM++":
            return _count(weights, _CFFM_BLOCKS)
        case "MRCFA":
            return 2 if any(name.startswith(_DEEP_STACK) for name in weights) else 1
        case _:
            return 0


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Count the numbered parts below a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
