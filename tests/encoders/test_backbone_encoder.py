"""Vision backbones: the maps of transformers' own models on the same pixels, at every size of frame; clear refusals."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from fake_hub import fake_hub, use_hub
from sam2vss.encoders import load_encoder
from sam2vss.errors import SettingsError, WeightsError
from sam2vss.segmenters.preprocessing import resize
from tiny_backbones import MEAN, STD, save_tiny_backbone, smooth_frame

PLAIN = {"dinov2": 14, "dinov3": 16, "clip": 16, "siglip": 16, "vit": 16}  # side of their patches
STAGED = ["swin", "convnext", "dinov3-convnext", "resnet"]
SIZES = [(48, 90), (97, 31), (24, 36), (1, 1)]


@pytest.fixture(scope="module")
def load(backbone):
    return functools.cache(lambda family, levels="last": load_encoder(f"backbone:{backbone(family)}/{levels}"))


def model_of(family, folder):
    """The image tower as a user of transformers loads it."""
    halves = {"clip": tf.CLIPVisionModel, "siglip": tf.SiglipVisionModel, "siglip2": tf.Siglip2VisionModel}
    return halves.get(family, tf.AutoModel).from_pretrained(folder).eval()


def pixels_of(frame, size, interpolation):
    """Resized, scaled to [0, 1], normalised: (1, 3, *size)."""
    resized = resize(torch.from_numpy(frame.copy()).permute(2, 0, 1)[None], size, interpolation).float() / 255
    return (resized - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)  # measured 2e-5 of values up to 30


def expected_size(size, side, multiple):
    """By hand: the shorter side to `side`, the longer one in proportion up to four times, in whole patches."""
    height, width = size
    shorter = min(height, width)
    return tuple(max(1, round(side * min(length / shorter, 4) / multiple)) * multiple for length in (height, width))


@pytest.mark.parametrize("family", PLAIN)
@pytest.mark.parametrize("size", SIZES)
def test_maps_are_the_patch_tokens_of_transformers_own_model(backbone, load, family, size):
    frame, patch = smooth_frame(*size), PLAIN[family]
    height, width = expected_size(size, 56 if family == "dinov2" else 64, patch)
    pixels = pixels_of(frame, (height, width), "bilinear" if family == "vit" else "bicubic")
    more = {} if family.startswith("dino") else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        outputs = model_of(family, backbone(family))(pixel_values=pixels, output_hidden_states=True, **more)
    encoder = load(family, "last+layer2")
    found = encoder.encode(frame)
    first = {"dinov3": 5, "siglip": 0}.get(family, 1)  # class token and registers
    for part, tokens in zip(found, (outputs.last_hidden_state, outputs.hidden_states[2]), strict=True):
        assert part.dtype == np.float32
        assert part.shape == (16, height // patch, width // patch)
        for row in range(height // patch):
            for column in range(width // patch):
                token = tokens[0, first + row * (width // patch) + column]
                assert_close(part[:, row, column], token.numpy())
    assert encoder.channels == (16, 16)


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("size", SIZES[:3])
def test_models_made_of_stages_give_each_of_them(backbone, load, family, size):
    frame = smooth_frame(*size)
    height, width = expected_size(size, 224 if family == "resnet" else 64, 32)
    pixels = pixels_of(frame, (height, width), "bicubic")
    with torch.inference_mode():
        outputs = model_of(family, backbone(family))(pixel_values=pixels, output_hidden_states=True)
    layers = outputs.get("reshaped_hidden_states") or outputs.hidden_states
    last, first = load(family, "last+layer1").encode(frame)
    assert_close(first, layers[1][0].numpy())
    tokens = last.reshape(len(last), -1).T
    reference = outputs.last_hidden_state[0]
    reference = reference.flatten(1).T if reference.ndim == 3 else reference[-len(tokens) :]
    assert_close(tokens, reference.numpy())
    assert last.shape[1:] == (height // 32, width // 32)
    assert load(family, "last+layer1").channels == (len(last), len(first))


def test_siglip2_sees_the_patches_of_its_own_processor(backbone, load):
    frame = smooth_frame(48, 90)
    pixels = pixels_of(frame, (64, 128), "bilinear")[0]  # its file names neither size nor filter
    rows = [
        pixels[:, r : r + 16, c : c + 16].permute(1, 2, 0).flatten()
        for r in range(0, 64, 16)
        for c in range(0, 128, 16)
    ]
    with torch.inference_mode():
        tokens = model_of("siglip2", backbone("siglip2"))(
            pixel_values=torch.stack(rows)[None],
            pixel_attention_mask=torch.ones((1, 32), dtype=torch.int64),
            spatial_shapes=torch.tensor([[4, 8]]),
        ).last_hidden_state
    (found,) = load("siglip2").encode(frame)
    assert_close(found, tokens[0].T.reshape(16, 4, 8).numpy())


def test_frames_are_stretched_for_a_model_of_one_size(backbone, load):
    frame = smooth_frame(48, 90)
    with torch.inference_mode():
        outputs = model_of("hiera", backbone("hiera"))(
            pixel_values=pixels_of(frame, (64, 64), "bicubic"), output_hidden_states=True
        )
    last, second = load("hiera", "last+layer2").encode(frame)
    assert last.shape == (64, 2, 2)
    assert_close(last.reshape(64, 4).T, outputs.last_hidden_state[0].numpy())
    assert_close(second, outputs.reshaped_hidden_states[2][0].permute(2, 0, 1).numpy())
    with pytest.raises(SettingsError, match="this model works at 64 pixels only: leave out @96"):
        load("hiera", "last@96")


def test_a_map_follows_what_is_in_the_frame(load):
    """A frame whose right half is bright: cells of the two halves differ, those within a half hardly do."""
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, 60:] = 255
    (found,) = load("convnext", "layer1").encode(frame)  # (8, 16, 32)
    left, right = found[:, 4:12, 4:12], found[:, 4:12, 20:28]
    assert np.abs(left.mean((1, 2)) - right.mean((1, 2))).max() > 5 * max(
        left.std((1, 2)).max(), right.std((1, 2)).max()
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (96, 96)), ((64, 90), (96, 128)), ((10, 1000), (96, 384)), ((1000, 10), (384, 96))],
)
def test_the_side_asked_for_is_the_shorter_one_and_long_frames_are_squeezed(load, size, expected):
    assert load("vit", "last@96").input_size(size) == expected


def test_only_the_image_tower_of_clip_is_loaded(load):
    names = [name for name, _ in load("clip")._tower.model.named_parameters()]
    assert names
    assert not any("text" in name for name in names)


def test_fingerprints_tell_levels_sizes_weights_and_preprocessing(backbone, load, tmp_path):
    def changed(name, change):
        folder = shutil.copytree(backbone("dinov2"), tmp_path / name)
        change(folder)
        return load_encoder(f"backbone:{folder}").fingerprint

    def other_weights(folder):
        weights = load_file(folder / "model.safetensors")
        weights["layernorm.bias"] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def other_mean(folder):
        content = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps({**content, "image_mean": [0.1, 0.1, 0.1]}))

    first = load("dinov2").fingerprint
    assert load("dinov2", "last@56").fingerprint == first == changed("same", lambda folder: None)
    others = [changed("weights", other_weights), changed("mean", other_mean)]
    others += [load("dinov2", levels).fingerprint for levels in ("layer1", "last@70", "last+layer1", "layer1+last")]
    assert len({first, *others}) == 7


def test_a_backbone_comes_from_the_hub(backbone, load, tmp_path, monkeypatch):
    with fake_hub({"org/tiny": backbone("dinov3")}) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        encoder = load_encoder("backbone:org/tiny")
    assert encoder.name == "backbone:org/tiny/last"
    assert encoder.fingerprint == load("dinov3").fingerprint
    frame = smooth_frame(30, 40)
    assert np.array_equal(encoder.encode(frame)[0], load("dinov3").encode(frame)[0])


@pytest.mark.parametrize(
    ("family", "levels", "error", "message"),
    [
        ("vit", "layer4", SettingsError, "this vit model has no layer4, only last and layer0 to layer3"),
        ("vit", "last@64x96", SettingsError, "the size of a backbone is its shorter side, one number such as @448"),
        ("vit", "last@15", SettingsError, "the size must be 16 pixels or more, one patch"),
        ("bert", "last", WeightsError, "is a bert model, expected a vision backbone such as DINOv2"),
        (
            "vit-mae",
            "last",
            WeightsError,
            "vit_mae model, gives no map of features: the model gives 6 tokens for 4 x",
        ),
    ],
)
def test_what_is_no_backbone_or_has_no_such_layer_is_refused(backbone, family, levels, error, message):
    with pytest.raises(error, match=message):
        load_encoder(f"backbone:{backbone(family)}/{levels}")


def test_weights_that_lack_what_features_need_are_refused_and_others_are_not_missed(tmp_path):
    folder = save_tiny_backbone("vit", tmp_path / "vit")
    weights = load_file(folder / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "pooler" not in key}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(f"backbone:{folder}").channels == (16,)
    kept.pop("layernorm.weight")
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 trained parameters of ViTModel \(first: layernorm.weight\)"):
        load_encoder(f"backbone:{folder}")


def test_a_model_that_belongs_to_timm_is_answered_with_one_sentence(tmp_path):
    config = {"model_type": "timm_wrapper", "architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 64, 64]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"needs a package that is not installed .*timm library .*environment\.$"):
        load_encoder(f"backbone:{tmp_path}")


def test_a_model_without_its_image_processor_is_refused(tmp_path):
    folder = save_tiny_backbone("vit", tmp_path / "vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no preprocessor_config\.json"):
        load_encoder(f"backbone:{folder}")


def test_features_that_are_not_finite_are_an_error(backbone):
    encoder = load_encoder(f"backbone:{backbone('vit')}")
    with torch.no_grad():
        encoder._tower.model.layernorm.bias.fill_(float("inf"))
    with pytest.raises(WeightsError, match="/last gave features that are not finite numbers"):
        encoder.encode(smooth_frame(20, 20))


def test_bfloat16_features_are_close_to_those_of_float32(backbone, load):
    frame = smooth_frame(48, 64)
    (exact,), (rough,) = (
        load("dinov2").encode(frame),
        load_encoder(f"backbone:{backbone('dinov2')}", dtype="bfloat16").encode(frame),
    )
    assert rough.dtype == np.float32
    assert np.abs(rough - exact).mean() < 0.05 * np.abs(exact).mean()
