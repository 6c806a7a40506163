"""Meta's checkpoints by name and shape, against digests taken from Meta's own code.

The digests were made with the sam2 repository at commit 2b90b9f: every file of configs/sam2 and configs/sam2.1 was
built on the meta device and the lines "name [shape]" of its state dict were sorted, joined and hashed.
"""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sam2vss.errors import WeightsError
from sam2vss.sam2.meta_checkpoints import (
    TRUNKS,
    MetaArchitecture,
    convert,
    meta_names,
    meta_shapes,
    read_checkpoint,
    recognise,
    video_config,
)

FILE = Path("weights.pt")
DIGESTS = {  # of Meta's names and shapes; number of tensors
    "SAM 2.0 tiny": ("46dfd9146506224d5bfa36fab86358fb3f29e2eaf0bbae0f02661ae369b3ef76", 468),
    "SAM 2.0 small": ("30cd13d02cb4e26a15acfd26567bc0eda9a8fe3c3bf396d91b37b51f37ae7adf", 516),
    "SAM 2.0 base-plus": ("3b46430dd2c541d656b867b34f019a0c1ee911b45cc8e67b0a71e1d0b95f387d", 612),
    "SAM 2.0 large": ("6d40bc872944b9e425b6d1d7358537def50bf17d1b9f734509d4037c20507c96", 900),
    "SAM 2.1 tiny": ("aa97d3d723e3d9a274fafe9acc485268e11cfbd8f8906f147bd0966ea5a67ec9", 471),
    "SAM 2.1 small": ("3bfa6b62d57cfb99196f6fdbf1fad40176b4c21ef18c8cf761c21082e8300909", 519),
    "SAM 2.1 base-plus": ("3306e68a5090c989ce9495f712ed93942de79abd2f18b4686a66f2760eb5d0b2", 615),
    "SAM 2.1 large": ("e80150164c9113ced6aebba005c54086720f89e4608bd3d495c95af8ffa276ba", 903),
}
# of "our name, Meta's names" of SAM 2.1 large, frozen after both networks gave the same outputs with the same weights
PAIRS_DIGEST = "8966121c93eaacde79d9e32a4ce492c77f0b980302fbe918e1f6259fd4c82467"
ARCHITECTURES = [MetaArchitecture(trunk, is_2_1) for is_2_1 in (False, True) for trunk in TRUNKS]
TINY = MetaArchitecture(TRUNKS[0], is_2_1=True)


@cache
def shapes_of(architecture: MetaArchitecture) -> dict[str, torch.Size]:
    """Names and shapes of transformers' network."""
    from transformers import Sam2VideoModel

    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Sam2VideoModel(video_config(architecture)).state_dict().items()}


def numbered_weights(architecture: MetaArchitecture) -> dict[str, Tensor]:
    """A checkpoint whose n-th tensor is full of n; takes no memory."""
    shapes = meta_shapes(shapes_of(architecture))
    return {name: torch.tensor(float(n)).expand(shape) for n, (name, shape) in enumerate(sorted(shapes.items()))}


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_the_names_and_shapes_are_those_of_metas_own_network(architecture: MetaArchitecture):
    shapes = meta_shapes(shapes_of(architecture))

    assert (digest([f"{name} {list(shape)}" for name, shape in shapes.items()]), len(shapes)) == DIGESTS[
        str(architecture)
    ]


def test_every_name_has_the_partner_that_was_seen_to_work():
    names = shapes_of(MetaArchitecture(TRUNKS[3], is_2_1=True))

    assert digest([f"{name} {' '.join(meta_names(name))}" for name in names]) == PAIRS_DIGEST


@pytest.mark.parametrize(
    ("ours", "meta"),
    [
        ("no_memory_embedding", "no_mem_embed"),
        ("vision_encoder.backbone.blocks.11.mlp.proj_out.bias", "image_encoder.trunk.blocks.11.mlp.layers.1.bias"),
        ("vision_encoder.neck.convs.3.weight", "image_encoder.neck.convs.3.conv.weight"),
        ("mask_decoder.iou_prediction_head.proj_out.bias", "sam_mask_decoder.iou_prediction_head.layers.2.bias"),
        ("mask_decoder.iou_prediction_head.layers.0.bias", "sam_mask_decoder.iou_prediction_head.layers.1.bias"),
        (
            "mask_decoder.transformer.layers.1.mlp.proj_in.bias",
            "sam_mask_decoder.transformer.layers.1.mlp.layers.0.bias",
        ),
        ("mask_decoder.upscale_layer_norm.weight", "sam_mask_decoder.output_upscaling.1.weight"),
        ("memory_encoder.mask_downsampler.layers.2.layer_norm.bias", "memory_encoder.mask_downsampler.encoder.7.bias"),
        ("memory_encoder.memory_fuser.layers.1.scale", "memory_encoder.fuser.layers.1.gamma"),
        ("prompt_encoder.mask_embed.conv3.weight", "sam_prompt_encoder.mask_downscaling.6.weight"),
    ],
)
def test_names_that_differ_are_translated(ours: str, meta: str):
    assert meta_names(ours) == (meta,)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_size_and_generation_follow_from_the_tensors(architecture: MetaArchitecture):
    assert recognise(numbered_weights(architecture), FILE) == architecture


def test_every_weight_gets_its_value_and_the_four_point_kinds_are_stacked_in_order():
    weights = numbered_weights(TINY)
    numbers = {name: int(tensor.reshape(-1)[0]) for name, tensor in weights.items()}
    points = [numbers[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] for kind in range(4)]

    converted = convert(weights, shapes_of(TINY), FILE)

    assert {name: tensor.shape for name, tensor in converted.items()} == shapes_of(TINY)
    assert converted["prompt_encoder.point_embed.weight"][:, 7].tolist() == points
    for name, tensor in converted.items():
        if len(meta_names(name)) == 1:
            assert (tensor == numbers[meta_names(name)[0]]).all(), name
    basis = numbers["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert (converted["shared_image_embedding.positional_embedding"] == basis).all()  # one tensor, kept twice


def test_converted_weights_are_copies_that_outlive_the_file():
    weights = numbered_weights(TINY)

    converted = convert(weights, shapes_of(TINY), FILE)

    assert converted["no_object_pointer"].data_ptr() != weights["no_obj_ptr"].data_ptr()


@pytest.mark.parametrize(
    ("size", "widths", "heads", "blocks", "windows", "global_blocks", "background"),
    [  # literals from Meta's configuration files and, where they are silent, the defaults of its Hiera
        ("tiny", [96, 192, 384, 768], [1, 2, 4, 8], [1, 2, 7, 2], [8, 4, 14, 7], [5, 7, 9], [7, 7]),
        ("small", [96, 192, 384, 768], [1, 2, 4, 8], [1, 2, 11, 2], [8, 4, 14, 7], [7, 10, 13], [7, 7]),
        ("base-plus", [112, 224, 448, 896], [2, 4, 8, 16], [2, 3, 16, 3], [8, 4, 14, 7], [12, 16, 20], [14, 14]),
        ("large", [144, 288, 576, 1152], [2, 4, 8, 16], [2, 6, 36, 4], [8, 4, 16, 8], [23, 33, 43], [7, 7]),
    ],
)
def test_what_the_tensors_do_not_show_is_taken_from_metas_configurations(
    size: str,
    widths: list[int],
    heads: list[int],
    blocks: list[int],
    windows: list[int],
    global_blocks: list[int],
    background: list[int],
):
    architecture = next(one for one in ARCHITECTURES if one.trunk.size == size)

    config = video_config(architecture)

    backbone = config.vision_config.backbone_config
    assert (backbone.hidden_size, backbone.num_attention_heads) == (widths[0], heads[0])
    assert backbone.embed_dim_per_stage == config.vision_config.backbone_channel_list[::-1] == widths
    assert backbone.num_attention_heads_per_stage == heads
    assert (backbone.blocks_per_stage, backbone.window_size_per_stage) == (blocks, windows)
    assert (backbone.global_attention_blocks, backbone.num_query_pool_stages) == (global_blocks, 3)
    assert backbone.window_positional_embedding_background_size == background


@pytest.mark.parametrize("is_2_1", [False, True])
def test_the_rest_is_the_same_in_all_released_networks(is_2_1: bool):
    config = video_config(replace(TINY, is_2_1=is_2_1))

    assert (config.image_size, config.num_maskmem, config.max_object_pointers_in_encoder) == (1024, 7, 16)
    assert (config.sigmoid_scale_for_mem_enc, config.sigmoid_bias_for_mem_enc) == (20.0, -10.0)
    assert (config.memory_attention_num_layers, config.memory_attention_num_attention_heads) == (4, 1)
    assert (config.memory_attention_feed_forward_hidden_act, config.memory_attention_rope_feat_sizes) == (
        "relu",
        [64, 64],
    )
    assert config.vision_config.fpn_top_down_levels == [2, 3]
    assert config.rope_parameters["rope_theta"] == 10000.0
    assert config.enable_temporal_pos_encoding_for_object_pointers is is_2_1
    assert config.enable_occlusion_spatial_embedding is is_2_1


def test_missing_surplus_and_misshaped_tensors_are_all_named():
    weights = numbered_weights(TINY)
    del weights["no_obj_ptr"], weights["memory_encoder.out_proj.bias"]
    weights["teacher.head.weight"] = torch.ones(1)
    weights["mask_downsample.bias"] = torch.ones(2)

    with pytest.raises(WeightsError) as info:
        convert(weights, shapes_of(TINY), FILE)

    message = str(info.value)
    assert "weights.pt does not hold exactly the 471 tensors of its network" in message
    assert "2 missing: memory_encoder.out_proj.bias, no_obj_ptr;" in message
    assert "1 not part of the network: teacher.head.weight;" in message
    assert "1 of another shape: mask_downsample.bias (2,) instead of (1,)." in message


def test_of_many_names_the_first_and_the_number_are_given():
    weights = {name: tensor for name, tensor in numbered_weights(TINY).items() if not name.startswith("memory_")}

    with pytest.raises(WeightsError, match=r"\d\d\d missing: memory_attention\.layers\.0\..* and \d+ more"):
        convert(weights, shapes_of(TINY), FILE)


@pytest.mark.parametrize("kept", [["no_obj_embed_spatial"], ["obj_ptr_tpos_proj.weight"]])
def test_half_a_generation_is_no_generation(kept: list[str]):
    weights = numbered_weights(replace(TINY, is_2_1=False)) | {name: numbered_weights(TINY)[name] for name in kept}

    architecture = recognise(weights, FILE)

    assert architecture.is_2_1
    with pytest.raises(WeightsError, match=r"missing: .*obj_ptr_tpos_proj\.bias"):
        convert(weights, shapes_of(architecture), FILE)


def test_another_number_of_blocks_is_another_architecture():
    weights = numbered_weights(TINY)
    weights = {name: tensor for name, tensor in weights.items() if "trunk.blocks.11." not in name}

    with pytest.raises(WeightsError, match=r"width 96 and blocks \(1, 2, 7, 1\) per stage; expected one of .*tiny 96"):
        recognise(weights, FILE)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("image_encoder.blocks.0.norm1.weight", "SAM 1"),
        ("spatial_perceiver.latents", "EdgeTAM"),
        ("detector.backbone.x", "SAM 3"),
        ("image_encoder.trunk.body.stem.weight", "a relative of SAM 2 with another image encoder"),
    ],
)
def test_relatives_are_recognised(name: str, hint: str):
    with pytest.raises(WeightsError, match=rf"no SAM 2 checkpoint but looks like {hint}: none of its 1 tensors"):
        recognise({name: torch.ones(1)}, FILE)


@pytest.mark.parametrize("weights", [{}, {"layer1.0.conv1.weight": torch.ones(1)}])
def test_strangers_are_refused_by_what_they_hold(weights: dict[str, Tensor]):
    with pytest.raises(WeightsError, match=r"no SAM 2 checkpoint: none of its \d tensors is .*found (nothing|layer1)"):
        recognise(weights, FILE)


def test_a_checkpoint_is_read_with_what_training_left_beside_the_weights(tmp_path: Path):
    weights = {"a": torch.arange(3.0)}
    torch.save({"model": weights, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.pt")

    read = read_checkpoint(tmp_path / "a.pt")

    assert list(read) == ["a"]
    assert torch.equal(read["a"], weights["a"])


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "a.pt").write_bytes(b"version https://git-lfs")

    with pytest.raises(WeightsError, match="is a Git LFS pointer"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], r"holds a list, expected the dictionary \{'model': weights\}"),
        ({"conv1.weight": torch.ones(1)}, r"no SAM 2 checkpoint: it has no weights under 'model' \(found conv1"),
        ({"image_encoder.blocks.0.x": torch.ones(1)}, r"no SAM 2 checkpoint but looks like SAM 1: it has no weights"),
        ({"model": torch.ones(1)}, r"has no weights under 'model' \(found model\)"),
        ({"model": {"a": 1}}, r"holds more than weights under 'model': a \(int\)"),
    ],
)
def test_checkpoints_of_another_form_are_refused(data: object, message: str, tmp_path: Path):
    torch.save(data, tmp_path / "a.pt")

    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "a.pt")
