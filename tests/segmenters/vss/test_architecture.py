"""Networks told from the names and shapes of their tensors."""

from pathlib import Path

import pytest
import torch

from sam2vss.errors import WeightsError
from sam2vss.segmenters.vss.architecture import (
    Architecture,
    build,
    build_from,
    default_architecture,
    recognise,
    without_unused,
)
from sam2vss.segmenters.vss.mit import MIT_SIZES

PUBLISHED_KEYS = Path(__file__).parent / "published_keys"


def weights_of(architecture):
    return build(architecture).state_dict()


def published(*names):
    """Return zeros under the names and in the shapes of a published checkpoint."""
    lines = [line.split() for name in names for line in (PUBLISHED_KEYS / f"{name}.txt").read_text().splitlines()]
    sides = {name: [] if shape == "-" else [int(side) for side in shape.split("x")] for name, shape in lines}
    return {name: torch.zeros(shape) for name, shape in sides.items()}


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture("SegFormer", MIT_SIZES["b0"], 3),
        Architecture("CFFM", MIT_SIZES["b0"], 124, depth=1),
        Architecture("CFFM", MIT_SIZES["b0"], 5, depth=3),
        Architecture("CFFM++", MIT_SIZES["b0"], 124, depth=1),
        Architecture("MRCFA", MIT_SIZES["b0"], 7, depth=1),
        Architecture("MRCFA", MIT_SIZES["b1"], 7, depth=2),
        Architecture("TV3S", MIT_SIZES["b1"], 19),
    ],
    ids=str,
)
def test_what_a_network_is_follows_from_its_tensors(architecture):
    weights = weights_of(architecture)
    assert recognise(weights, "x.pth") == architecture
    model, found = build_from(weights, "x.pth")
    assert found == architecture
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("size", list(MIT_SIZES))
def test_every_size_is_told_by_channels_and_blocks(size):
    # Of the deep ones the names alone, without weights: B5 has 82 million.
    with torch.device("meta"):
        weights = build(default_architecture("SegFormer", size, 2)).state_dict()
    assert recognise(weights, "x.pth").size == MIT_SIZES[size]


def test_the_published_names_of_cffm_are_all_used_or_known_to_be_unused():
    weights = published("cffm_b0")
    _, found = build_from(weights, "cffm_b0.pth")
    assert found == Architecture("CFFM", MIT_SIZES["b0"], 124, depth=1)
    left_out = weights.keys() - without_unused(weights, "CFFM").keys()
    assert {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"} <= left_out
    assert all("index" in name or "valid_ind" in name or "conv_seg" in name for name in left_out)


def test_the_published_names_of_cffm_plus_are_told_from_those_of_cffm():
    _, found = build_from(published("cffm_b0", "cffm_plus_b0"), "plus.pth")
    assert found.family == "CFFM++"


def test_published_depths_are_the_defaults():
    assert [default_architecture("CFFM", size, 2).depth for size in ("b0", "b1", "b2", "b5")] == [1, 2, 2, 4]
    assert [default_architecture("MRCFA", size, 2).depth for size in ("b0", "b1", "b2", "b5")] == [1, 2, 1, 1]


def test_mrcfa_keeps_more_cells_with_the_smallest_encoder():
    ratios = {
        size: build(default_architecture("MRCFA", size, 2)).decode_head.hypercorre_module.keep_ratio
        for size in ("b0", "b1")
    }
    assert ratios == {"b0": 0.8, "b1": 0.5}


def test_building_from_a_checkpoint_leaves_the_random_numbers_of_others_alone():
    weights = weights_of(default_architecture("SegFormer", "b0", 2))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_from(weights, "x.pth")
    assert torch.equal(torch.rand(1), expected)


def test_tensors_of_something_else_are_refused():
    with pytest.raises(WeightsError, match=r"x.pth holds neither SegFormer, CFFM, .* begins with conv1.weight"):
        recognise({"conv1.weight": torch.zeros(2)}, "x.pth")


def test_an_encoder_of_another_shape_is_refused_with_what_was_found():
    weights = dict(weights_of(default_architecture("SegFormer", "b0", 2)))
    del weights["backbone.block4.1.norm1.weight"]
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("backbone.block4.1.")}
    with pytest.raises(WeightsError, match=r"channels \(32, 64, 160, 256\) and blocks \(2, 2, 2, 1\), expected one of"):
        recognise(weights, "x.pth")


def test_missing_surplus_and_misshapen_tensors_are_named():
    weights = dict(weights_of(default_architecture("SegFormer", "b0", 2)))
    del weights["decode_head.linear_pred.bias"]
    weights["decode_head.extra"] = torch.zeros(1)
    weights["backbone.norm1.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError) as caught:
        build_from(weights, "x.pth")
    message = str(caught.value)
    assert "1 missing: decode_head.linear_pred.bias" in message
    assert "1 not part of the network: decode_head.extra" in message
    assert "backbone.norm1.weight (3,) instead of (32,)" in message
    assert "as its authors released it" in message


@pytest.mark.parametrize("name", ["decode_head.linear_pred.weight", "backbone.patch_embed2.proj.weight"])
@pytest.mark.parametrize("shape", [(), (4,), (0, 256, 1, 1)])
def test_tensors_that_lost_their_shape_are_named(name, shape):
    weights = {**weights_of(default_architecture("SegFormer", "b0", 2)), name: torch.zeros(shape)}
    with pytest.raises(WeightsError, match=rf"x.pth is damaged: {name} has the shape .*, expected 4 sides, none empty"):
        recognise(weights, "x.pth")


def test_weights_as_integers_are_refused_and_counters_are_not():
    weights = dict(weights_of(default_architecture("SegFormer", "b0", 2)))
    assert not weights["decode_head.linear_fuse.bn.num_batches_tracked"].is_floating_point()
    build_from(weights, "x.pth")
    weights["backbone.norm1.bias"] = torch.zeros(32, dtype=torch.int8)
    with pytest.raises(WeightsError, match=r"1 weights as integers \(backbone.norm1.bias \(int8\)\)"):
        build_from(weights, "x.pth")


def test_more_classes_than_labels_can_tell_apart_are_refused():
    weights = dict(weights_of(default_architecture("SegFormer", "b0", 2)))
    weights["decode_head.linear_pred.weight"] = torch.zeros(1, 256, 1, 1).expand(70_000, 256, 1, 1)
    with pytest.raises(WeightsError, match=r"x.pth tells 70000 classes apart, expected at most 65535"):
        recognise(weights, "x.pth")
