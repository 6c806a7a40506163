import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2vss.errors import WeightsError
from sam2vss.sam2.meta_checkpoints import TRUNKS, MetaArchitecture, meta_shapes, video_config
from sam2vss.sam2.propagate import MemoryPropagator
from sam2vss.sam2.tracker import NANO_FOLDER
from sam2vss.sam2.weights import load_network, outline_network
from tiny_sam2 import first_masks, moving_frames, seeded_tensor, tiny_config, tiny_network

HIDDEN = 128


def save_meta_checkpoint(file: Path, *, is_2_1: bool, **changes: Tensor | None) -> dict[str, Tensor]:
    """Write a checkpoint of the true tiny architecture; its tensors each hold one number and take no space."""
    from transformers import Sam2VideoModel

    with torch.device("meta"):
        model = Sam2VideoModel(video_config(MetaArchitecture(TRUNKS[0], is_2_1)))
    shapes = meta_shapes({name: tensor.shape for name, tensor in model.state_dict().items()})
    weights = {name: torch.tensor(n / 1000).expand(shape) for n, (name, shape) in enumerate(shapes.items())}
    weights.update({name: tensor for name, tensor in changes.items() if tensor is not None})
    weights = {name: tensor for name, tensor in weights.items() if changes.get(name, tensor) is not None}
    torch.save({"model": weights}, file)
    return weights


def write_folder(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: tensor.clone() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as transformers saves it."""
    path = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_network(64).model.save_pretrained(path)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def sam3_config(image_size: int = 112) -> Any:
    """The tracker of SAM 3 with small parts: patches of 14 pixels, an encoder with four levels."""
    from transformers import Sam3TrackerVideoConfig, Sam3VisionConfig, Sam3ViTConfig
    from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import (
        Sam3TrackerVideoMaskDecoderConfig,
        Sam3TrackerVideoPromptEncoderConfig,
    )

    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        window_size=4,
        global_attn_indexes=[1],
        pretrain_image_size=56,
    )
    tiny = tiny_config()
    shared = (
        *("memory_attention_hidden_size", "memory_attention_num_layers", "memory_attention_feed_forward_hidden_size"),
        *("memory_encoder_hidden_size", "mask_downsampler_embed_dim", "memory_fuser_embed_dim"),
        "memory_fuser_intermediate_dim",
    )
    return Sam3TrackerVideoConfig(
        vision_config=Sam3VisionConfig(backbone_config=backbone, fpn_hidden_size=HIDDEN),
        prompt_encoder_config=Sam3TrackerVideoPromptEncoderConfig(hidden_size=HIDDEN, image_size=image_size),
        mask_decoder_config=Sam3TrackerVideoMaskDecoderConfig(hidden_size=HIDDEN),
        image_size=image_size,
        **{name: getattr(tiny, name) for name in shared},
    )


def sam3_weights() -> dict[str, Tensor]:
    from transformers import Sam3TrackerVideoModel

    with torch.device("meta"):
        model = Sam3TrackerVideoModel(sam3_config())
    return {name: seeded_tensor(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


def sam3_video_name(name: str) -> str:
    """Where the folder of the whole SAM 3 keeps a weight of its tracker."""
    if name.startswith("vision_encoder.backbone."):
        return f"detector_model.{name}"
    if name.startswith("vision_encoder.neck."):
        return name.replace("vision_encoder.neck.", "tracker_neck.")
    return f"tracker_model.{name}"


def test_a_saved_network_loads_to_the_same_weights(saved: Path):
    loaded = load_network(saved)

    expected, found = tiny_network(64).model.state_dict(), loaded.model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.training
    assert (loaded.image_size, loaded.hidden_size, loaded.memory_size) == (64, 128, 64)


def test_the_bundled_network_loads():
    assert load_network(NANO_FOLDER).image_size == 384


def test_a_network_loads_in_the_asked_precision(saved: Path, tmp_path: Path):
    save_meta_checkpoint(tmp_path / "a.pt", is_2_1=True)

    for path in (saved, tmp_path / "a.pt"):
        loaded = load_network(path, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("is_2_1", [True, False])
def test_metas_checkpoint_is_known_by_its_tensors_and_not_by_its_name(is_2_1: bool, tmp_path: Path):
    weights = save_meta_checkpoint(tmp_path / "sam2_hiera_large.pt", is_2_1=is_2_1)

    network = load_network(tmp_path / "sam2_hiera_large.pt")

    state = network.model.state_dict()
    assert (network.image_size, network.hidden_size, network.memory_size) == (1024, 256, 64)
    assert (network.num_memories, network.num_pointers, network.training) == (7, 16, False)
    assert torch.equal(state["no_object_pointer"], weights["no_obj_ptr"])
    assert torch.equal(
        state["vision_encoder.backbone.blocks.11.mlp.proj_out.weight"],
        weights["image_encoder.trunk.blocks.11.mlp.layers.1.weight"],
    )
    assert ("occlusion_spatial_embedding_parameter" in state) is is_2_1
    assert ("temporal_positional_encoding_projection_layer.weight" in state) is is_2_1
    assert network.model.memory_attention.rotary_emb.inv_freq[0] == 1  # made at loading, in no checkpoint


@pytest.mark.parametrize("kind", ["folder", "file", "sam3"])
def test_an_outline_is_the_network_without_its_numbers(kind: str, folder: Path, tmp_path: Path):
    path = folder
    if kind == "file":
        path = tmp_path / "a.pt"
        save_meta_checkpoint(path, is_2_1=True)
    elif kind == "sam3":
        path = write_folder(tmp_path / "sam3", sam3_config().to_dict(), sam3_weights())

    outline, whole = outline_network(path), load_network(path)

    assert outline.device.type == "meta"
    assert (outline.image_size, outline.mask_size) == (whole.image_size, whole.mask_size)
    expected = {name: tensor.shape for name, tensor in whole.model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in outline.model.state_dict().items()} == expected


def test_an_outline_needs_no_weights_but_a_configuration_that_makes_sense(folder: Path):
    (folder / "model.safetensors").unlink()
    assert outline_network(folder).image_size == 64
    change_config(folder, num_maskmem="seven")
    with pytest.raises(WeightsError, match="Field 'num_maskmem' expected int"):
        outline_network(folder)


def test_a_checkpoint_with_surplus_or_missing_tensors_is_refused_by_name(tmp_path: Path):
    file = tmp_path / "finetuned.pt"
    save_meta_checkpoint(file, is_2_1=True, no_obj_ptr=None, teacher=torch.ones(2))

    with pytest.raises(
        WeightsError, match=r"finetuned\.pt does not hold .* 1 missing: no_obj_ptr; 1 not part .*teacher"
    ):
        load_network(file)


def test_what_is_not_there_and_what_is_no_model_is_said(tmp_path: Path):
    (tmp_path / "sam2.1_hiera_tiny.pt").touch()
    (tmp_path / "model.safetensors").touch()

    for path, message in (
        (tmp_path / "nowhere.pt", r"nowhere\.pt holds no config\.json and is no checkpoint file: No such file"),
        (tmp_path, r"no config\.json .* To load sam2\.1_hiera_tiny\.pt, pass the file instead of the folder"),
        (tmp_path / "sam2.1_hiera_tiny.pt", r"is empty"),
        (tmp_path / "model.safetensors", r"pass the folder that holds it beside config\.json"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_network(path)


@pytest.mark.parametrize("content", ["{", "[]", '{"architectures": []}'])
def test_a_folder_without_a_usable_configuration_is_refused(content: str, folder: Path):
    (folder / "config.json").write_text(content, encoding="utf-8")

    with pytest.raises(WeightsError, match=r"holds no config\.json that names a model type .*expected a folder with"):
        load_network(folder)


def test_missing_weights_are_named(folder: Path):
    weights = load_file(folder / "model.safetensors")
    del weights["memory_encoder.projection.bias"], weights["mask_decoder.iou_token.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        WeightsError, match=r"lacks 2 weights .*first: mask_decoder\.iou_token\.weight, memory_encoder\.pro"
    ):
        load_network(folder)


def test_weights_of_another_shape_are_named(folder: Path):
    weights = load_file(folder / "model.safetensors")
    weights["memory_attention.layer_norm.weight"] = torch.ones(64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        WeightsError, match=r"1 of another shape \(memory_attention\.layer_norm\.weight \(64,\) instead of \(128,\)\)"
    ):
        load_network(folder)


def test_surplus_weights_are_named_also_where_transformers_keeps_silent(folder: Path):
    change_config(folder, enable_occlusion_spatial_embedding=False, memory_attention_num_layers=1)

    with pytest.raises(WeightsError, match=r"and 2\d not part of it \(memory_attention\.layers\.1\..* more\)"):
        load_network(folder)


def test_a_folder_of_the_image_model_lacks_memory(tmp_path: Path):
    from transformers import Sam2Config, Sam2Model

    video = tiny_config(64)
    config = Sam2Config(vision_config=video.vision_config)  # type: ignore[attr-defined]
    config.prompt_encoder_config.hidden_size = config.mask_decoder_config.hidden_size = HIDDEN
    Sam2Model(config).save_pretrained(tmp_path / "image")
    change_config(tmp_path / "image", **{k: v for k, v in video.to_dict().items() if k.startswith(("mem", "mask_d"))})  # type: ignore[attr-defined]

    with pytest.raises(WeightsError, match=r"lacks \d+ weights .*without memory it serves single images only"):
        load_network(tmp_path / "image")


@pytest.mark.parametrize("keep", [0, 5000, -5])
def test_truncated_safetensors_are_refused(keep: int, folder: Path):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])

    with pytest.raises(WeightsError, match=r"cannot be loaded as a SAM 2 video model: SafetensorError: .*header"):
        load_network(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_maskmem": "seven"}, r"Field 'num_maskmem' expected int"),
        ({"memory_attention_num_attention_heads": 0}, r"ZeroDivisionError"),
        ({"mask_downsampler_hidden_act": "nope"}, r"KeyError: 'nope'"),
        ({"vision_config": {"model_type": "nope"}}, r"Unrecognized model type .{,400}$"),
    ],
)
def test_configurations_that_make_no_sense_are_refused_in_a_few_words(
    changes: dict[str, object], message: str, folder: Path
):
    change_config(folder, **changes)

    with pytest.raises(WeightsError, match=message):
        load_network(folder)


def test_other_kinds_of_models_are_named_and_refused(folder: Path):
    change_config(folder, model_type="segformer")
    with pytest.raises(WeightsError, match=r"holds a model of type segformer, expected sam2_video, "):
        load_network(folder)


@pytest.mark.parametrize(
    ("installed", "message"),
    [((), r"timm and torchvision\. Install"), (("timm",), r"torchvision\."), (("timm", "torchvision"), r"ah\.")],
)
def test_packages_that_an_encoder_needs_are_named(
    installed: tuple[str, ...], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ImportError("ah")

    change_config(folder, model_type="edgetam_video")
    monkeypatch.setattr("transformers.EdgeTamVideoModel.from_pretrained", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    with pytest.raises(WeightsError, match=rf"encoder needs what this machine lacks: {message}"):
        load_network(folder)


@pytest.mark.parametrize("is_whole_sam3", [False, True])
def test_the_tracker_of_sam_3_loads_and_follows_objects(is_whole_sam3: bool, tmp_path: Path):
    weights, config = sam3_weights(), sam3_config().to_dict()
    if is_whole_sam3:
        stored = {sam3_video_name(name): tensor for name, tensor in weights.items()}
        stored["detector_model.vision_encoder.neck.unused"] = torch.ones(1)
        detector = {"model_type": "sam3", "vision_config": config["vision_config"]}
        config = {"model_type": "sam3_video", "tracker_config": config, "detector_config": detector}
        write_folder(tmp_path / "sam3", config, stored)
    else:
        write_folder(tmp_path / "sam3", config, weights)

    network = load_network(tmp_path / "sam3")

    state = network.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert (network.image_size, network.mask_size) == (112, 32)  # 8 patches of 14 pixels, four logits to a patch's side
    with torch.inference_mode():
        features = network.encode(network.pixels(torch.from_numpy(moving_frames(2))))
    propagator = MemoryPropagator(network)
    propagator.start(features[:1], first_masks())
    logits = propagator.step(features[1:]).logits
    assert logits.shape == (4, 32, 32)
    assert (logits[0] - logits[1]).abs().mean() > 0.01


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("generation", ["sam2", "sam2.1"])
def test_a_checkpoint_of_metas_network_gives_its_outputs(
    generation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Meta's tiny network with random weights, at 128 pixels; measured: 0 (encoder), 1e-6 (18 frames)."""
    build_sam = pytest.importorskip("sam2.build_sam", reason="Meta's sam2 package is not installed")
    predictor = pytest.importorskip("sam2.sam2_video_predictor")

    torch.manual_seed(0)
    overrides = ["++model.image_size=128", "++model.fill_hole_area=0"]
    theirs = build_sam.build_sam2_video_predictor(
        f"configs/{generation}/{generation}_hiera_t.yaml", device="cpu", hydra_overrides_extra=overrides
    )
    theirs.fill_hole_area = 0
    for name, parameter in theirs.named_parameters():
        if not parameter.any() or name.endswith("gamma"):  # else parts that start at zero are not compared
            torch.nn.init.normal_(parameter, std=0.1)
    theirs.sam_mask_decoder.pred_obj_score_head.layers[2].bias.data += 1.5  # objects stay in the picture
    torch.save({"model": theirs.state_dict()}, tmp_path / "a.pt")
    ours = load_network(tmp_path / "a.pt")
    ours.set_image_size(128)
    frames, masks = moving_frames(18), first_masks()[:3]  # from 16 frames on Meta's ages are those of a stream
    pixels = ours.pixels(torch.from_numpy(frames))
    monkeypatch.setattr(predictor, "load_video_frames", lambda **_: (pixels, *frames.shape[1:3]))
    state = theirs.init_state("pixels")
    for row, mask in enumerate(masks.numpy()):
        theirs.add_new_mask(state, 0, row, mask)

    propagator = MemoryPropagator(ours)
    for time, _, expected in theirs.propagate_in_video(state):
        with torch.inference_mode():
            features = ours.encode(pixels[time : time + 1])
            pyramid = theirs.forward_image(pixels[time : time + 1])["backbone_fpn"]
        for found, level in zip((features.high, features.mid, features.low), pyramid, strict=True):
            torch.testing.assert_close(found, level, atol=1e-5, rtol=1e-5)
        tracks = propagator.step(features) if time else propagator.start(features, masks)
        enlarged = torch.nn.functional.interpolate(tracks.logits[:, None], size=frames.shape[1:3], mode="bilinear")
        torch.testing.assert_close(enlarged, expected, atol=1e-5, rtol=1e-5)
    assert np.ptp(expected.numpy()) > 0.1


def test_weights_that_are_not_finite_are_refused(folder: Path):
    weights = load_file(folder / "model.safetensors")
    weights["memory_attention.layer_norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(WeightsError, match=r"memory_attention\.layer_norm\.weight with values that are not finite"):
        load_network(folder)
