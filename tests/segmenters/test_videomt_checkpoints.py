"""VidEoMT's checkpoints against names and shapes taken from the authors' own code.

`golden_videomt.json` was made with tue-mps/videomt at 39411e9 on timm 1.0.31: every network was built, and the lines
"name [shape]" of its state dict were sorted, joined and hashed. tests/segmenters/test_videomt.py holds its outputs.
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sam2vss.errors import WeightsError
from sam2vss.segmenters.class_names import vipseg_training_order
from sam2vss.segmenters.videomt_checkpoints import VideomtArchitecture, convert, load_network, recognise
from sam2vss.segmenters.videomt_names import ENCODER, OURS_ALONE, official_name, official_shapes
from tiny_videomt import BY_ENCODER, TINY, official_weights, shapes_of

GOLDEN = json.loads((Path(__file__).parent / "golden_videomt.json").read_text())
FILE = Path("vspw_vit_large.pth")


def large(**changes: int | None) -> VideomtArchitecture:
    """The network of the model zoo for VSPW, ViT-L, with changes."""
    values = {
        "width": 1024, "layers": 24, "query_layers": 4, "queries": 200, "classes": 124, "patch": 16, "image": 1280,
        "registers": 4, "upscalings": 2, "mlp_ratio": 4, **changes,
    }  # fmt: skip
    return VideomtArchitecture(**values)


ARCHITECTURES = {
    "S": large(width=384, layers=12, query_layers=3, image=640),
    "B": large(width=768, layers=12, query_layers=3, image=640),
    "L": large(),
    "L (DINOv3)": large(image=None),
    "tiny": TINY,
    "tiny (DINOv3)": BY_ENCODER["DINOv3"],
}


def unread(architecture: VideomtArchitecture) -> dict[str, Tensor]:
    """A checkpoint whose tensors take no memory."""
    return {name: torch.zeros(()).expand(s) for name, s in official_shapes(shapes_of(architecture)).items()}


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_the_names_and_shapes_are_those_of_the_authors_network(size: str):
    shapes = official_shapes(shapes_of(ARCHITECTURES[size]))
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())

    assert len(shapes) == GOLDEN["names"][size]["tensors"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == GOLDEN["names"][size]["digest"]


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_the_architecture_follows_from_the_tensors(size: str):
    assert recognise(unread(ARCHITECTURES[size]), FILE) == ARCHITECTURES[size]


def test_a_size_is_called_as_the_model_zoo_calls_it():
    assert [str(ARCHITECTURES[size]) for size in ("S", "B", "L", "tiny (DINOv3)")] == [
        "VidEoMT-S (DINOv2)", "VidEoMT-B (DINOv2)", "VidEoMT-L (DINOv2)", "VidEoMT-128 (DINOv3)",
    ]  # fmt: skip


@pytest.mark.parametrize("encoder", BY_ENCODER)
def test_our_weights_survive_the_way_to_the_authors_names_and_back(encoder: str):
    shapes, is_dinov3 = shapes_of(BY_ENCODER[encoder]), encoder == "DINOv3"
    generator = torch.Generator().manual_seed(0)
    ours = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    official: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        is_packed = not is_dinov3 and re.search(r"attention\.[qkv]_proj", name)
        if name in OURS_ALONE or (is_packed and "q_proj" not in name):
            continue
        if is_packed:  # one tensor of all three, queries first, as timm's attention splits it
            parts = [ours[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            official[official_name(name)[0]] = torch.cat(parts)
        else:
            official[official_name(name, is_dinov3)[0]] = tensor[None] if "position_embeddings" in name else tensor

    back = convert(official, shapes, FILE)

    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours if name not in OURS_ALONE)
    assert not any(back[name].any() for name in OURS_ALONE if name in back)


@pytest.mark.parametrize("encoder", BY_ENCODER)
def test_a_loaded_network_has_no_weight_left_unmade(encoder: str):
    loaded = load_network(official_weights(BY_ENCODER[encoder]), FILE)

    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    assert not loaded.training


def test_a_loaded_network_holds_the_weights_of_the_checkpoint():
    weights = official_weights()
    loaded = load_network(weights, FILE)

    assert torch.equal(loaded.query.weight, weights["backbone.q.weight"])
    third = weights[f"{ENCODER}.blocks.2.attn.qkv.weight"][256:]
    assert torch.equal(loaded.layers[2].attention.v_proj.weight, third)


def test_what_only_training_needs_is_left_aside():
    weights = official_weights() | {"criterion.empty_weight": torch.ones(125), "pixel_mean": torch.ones(3, 1, 1)}

    assert convert(weights, shapes_of(TINY), FILE).keys() == shapes_of(TINY).keys()


def test_half_precision_checkpoints_become_float32():
    weights = {name: tensor.half() for name, tensor in official_weights().items()}

    assert {tensor.dtype for tensor in convert(weights, shapes_of(TINY), FILE).values()} == {torch.float32}


@pytest.mark.parametrize("name", ["vipseg_vit_large_55.2.pth", "vipsseg_dinov3_55.1_47.1.pth", "my-VIPSeg.pth"])
def test_classes_of_models_trained_on_vipseg_are_brought_into_vspws_order(name: str):
    weights = official_weights()

    converted = convert(weights, shapes_of(TINY), Path(name))

    bias, stored = converted["class_predictor.bias"], weights["backbone.class_head.bias"]
    for place, train_id in enumerate(vipseg_training_order()):
        assert bias[train_id] == stored[place]
    assert bias[124] == stored[124]  # "none"
    assert torch.equal(converted["class_predictor.weight"][2], weights["backbone.class_head.weight"][0])  # a door


def test_other_files_keep_the_order_of_classes():
    weights = official_weights()

    converted = convert(weights, shapes_of(TINY), Path("model_final.pth"))

    assert torch.equal(converted["class_predictor.bias"], weights["backbone.class_head.bias"])


def test_missing_surplus_and_misshaped_tensors_are_all_named():
    weights = official_weights()
    del weights["backbone.mask_head.2.bias"]
    weights["backbone.query_gru.weight"] = torch.ones(1)
    weights["backbone.query_updater.bias"] = torch.ones(3)

    with pytest.raises(WeightsError) as info:
        load_network(weights, FILE)

    message = str(info.value)
    assert "vspw_vit_large.pth does not hold exactly the 85 tensors of its network" in message
    assert "1 missing: backbone.mask_head.2.bias;" in message
    assert "1 not part of the network: backbone.query_gru.weight;" in message
    assert "1 of another shape: backbone.query_updater.bias (3,) instead of (128,)." in message


def test_the_norms_of_a_dinov3_encoder_have_its_own_epsilon():
    loaded = load_network(official_weights(BY_ENCODER["DINOv3"]), FILE)

    norms = [loaded.layernorm, loaded.layers[0].norm1, loaded.layers[3].norm2]
    assert [norm.eps for norm in norms] == [1e-5, 1e-5, 1e-5]
    assert loaded.upscale_block.block[0].layernorm2d.eps == 1e-6  # not part of the encoder


def test_the_image_model_that_training_starts_from_is_no_videomt():
    weights = {name: t for name, t in official_weights().items() if "query_updater" not in name}

    with pytest.raises(WeightsError, match=r"no VidEoMT checkpoint: none of its 83 tensors is backbone\.query_updater"):
        recognise(weights, FILE)


def test_a_part_of_a_checkpoint_is_named():
    weights = {"backbone.query_updater.weight": torch.ones(8, 8), "backbone.q.weight": torch.ones(5, 8)}

    with pytest.raises(
        WeightsError, match=r"no complete VidEoMT checkpoint: it has no .*reg_token, .*no \S*pos_embed,"
    ):
        recognise(weights, FILE)


@pytest.mark.parametrize(("classes", "name"), [(40, "YouTube-VIS"), (25, "OVIS")])
def test_models_of_instances_are_refused(classes: int, name: str):
    with pytest.raises(WeightsError, match=rf"trained on {name} \({classes} classes of things\).* no semantic labels"):
        recognise(unread(replace(TINY, classes=classes)), FILE)


def test_positions_of_no_square_are_refused():
    weights = unread(TINY) | {f"{ENCODER}.pos_embed": torch.ones(1, 17, 128)}

    with pytest.raises(WeightsError, match="17 positions, expected those of a square"):
        recognise(weights, FILE)


@pytest.mark.parametrize(
    "name",
    [f"{ENCODER}.patch_embed.proj.weight", f"{ENCODER}.reg_token", f"{ENCODER}.pos_embed", "backbone.q.weight"],
)
@pytest.mark.parametrize("shape", [(), (3,), (0, 0, 0, 0)])
def test_tensors_that_lost_their_shape_are_named(name: str, shape: tuple[int, ...]):
    weights = {**official_weights(TINY), name: torch.zeros(shape)}

    with pytest.raises(WeightsError, match=rf"is damaged: {re.escape(name)} has the shape"):
        recognise(weights, FILE)


def test_weights_as_integers_are_refused():
    weights = official_weights(TINY)
    weights["backbone.q.weight"] = weights["backbone.q.weight"].to(torch.int8)

    with pytest.raises(WeightsError, match="1 weights as integers"):
        load_network(weights, FILE)
