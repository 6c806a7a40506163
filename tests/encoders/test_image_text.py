import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from fake_hub import fake_hub, use_hub
from sam2vss.encoders.image_text import HubTextModel, load_text_model
from sam2vss.errors import LabelError, SettingsError, ShapeError, WeightsError
from sam2vss.settings import DEFAULT_TEXT_MODEL, TEXT_MODEL_ALIASES
from tiny_backbones import smooth_frame
from tiny_image_text import FAMILIES, WORDS, save_tiny_image_text

TEXTS = ["a photo of sky", "red car", "person"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("image_text")
    return functools.cache(lambda family: save_tiny_image_text(family, root / family))


@pytest.fixture(scope="module")
def load(folder) -> Callable[[str], HubTextModel]:
    return functools.cache(lambda family: load_text_model(str(folder(family))))


@functools.cache
def reference(path: Path) -> tf.PreTrainedModel:
    return tf.AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32).eval()


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def normalized(image: np.ndarray) -> torch.Tensor:
    """What the tiny models' image processor makes of a picture of the right size, (1, 3, S, S)."""
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
    return torch.from_numpy((image / 255 - mean) / std).float().permute(2, 0, 1)[None]


def cut(pixels: torch.Tensor, side: int = 8) -> dict[str, torch.Tensor]:
    """Patches of pictures for SigLIP 2, one after the other with plain loops: pixel by pixel, channels last."""
    rows, columns = pixels.shape[2] // side, pixels.shape[3] // side
    patches = [
        pixels[0, :, side * i : side * (i + 1), side * j : side * (j + 1)].permute(1, 2, 0).reshape(-1)
        for i in range(rows)
        for j in range(columns)
    ]
    return {
        "pixel_values": torch.stack(patches)[None],
        "pixel_attention_mask": torch.ones((1, rows * columns), dtype=torch.int64),
        "spatial_shapes": torch.tensor([[rows, columns]]),
    }


def unit(vectors: torch.Tensor) -> np.ndarray:
    return (vectors / vectors.norm(dim=-1, keepdim=True)).detach().numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_get_the_vectors_of_get_image_features(family, folder, load):
    image = smooth_frame(32, 32)
    pixels = normalized(image)
    model = reference(folder(family))
    inputs = cut(pixels) if family == "siglip2" else {"pixel_values": pixels}
    expected = unit(model.get_image_features(**inputs).pooler_output)
    assert np.allclose(load(family).embed_images([image]), expected, atol=1e-5)  # measured: 4e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_of_many_sizes_are_embedded_in_batches_one_by_one(family, load):
    images = [smooth_frame(side, side, seed=side) for side in range(20, 40)]  # more than two batches of 8
    together = load(family).embed_images(images)
    alone = np.concatenate([load(family).embed_images([image]) for image in images])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.01  # pictures differ


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_get_the_vectors_of_get_text_features(family, folder, load):
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder(family), padding_side="right")
    model = reference(folder(family))
    if family == "clip":
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    else:  # as trained: the full length, no mask
        tokens = tokenizer(TEXTS, padding="max_length", max_length=12, return_tensors="pt")
        inputs = {"input_ids": tokens["input_ids"]}
    expected = unit(model.get_text_features(**inputs).pooler_output)
    assert np.allclose(load(family).embed_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_same_vector_in_any_company(family, load):
    model = load(family)
    assert np.allclose(
        model.embed_texts(["red car", "a photo of sky . a photo of sky"])[0],
        model.embed_texts(["red car"])[0],
        atol=1e-5,
    )
    assert model.embed_texts(["sky"] * 70).shape == (70, 10 if family == "clip" else 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_case_and_spaces_of_a_text_do_not_matter(family, load):
    plain, other = load(family).embed_texts(["red car", "  RED   Car "])
    assert np.allclose(plain, other, atol=1e-6)


def test_punctuation_is_dropped_for_the_first_siglip_only(load):
    for family, drops in (("clip", False), ("siglip", True), ("siglip2", False)):
        plain, dotted = load(family).embed_texts(["red car", "red car."])
        assert np.allclose(plain, dotted, atol=1e-6) == drops, family


@pytest.mark.parametrize("family", FAMILIES)
def test_an_end_token_follows_even_if_the_tokenizer_adds_none(family, folder, load, tmp_path):
    changed = copy_of(folder(family), tmp_path / family)
    content = json.loads((changed / "tokenizer.json").read_text())
    (changed / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
    assert np.allclose(load_text_model(str(changed)).embed_texts(TEXTS), load(family).embed_texts(TEXTS), atol=1e-6)


def clip_patch_by_hand(model: tf.CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Vectors of the patches of a picture, (P, D), with the last layer written out."""
    tower = model.vision_model
    tokens = tower.pre_layrnorm(tower.embeddings(pixels, interpolate_pos_encoding=True))
    for layer in tower.encoder.layers[:-1]:
        tokens = layer(tokens, None)
    last, vectors = tower.encoder.layers[-1], []
    for token in tokens[0, 1:]:
        values = last.layer_norm1(token) @ last.self_attn.v_proj.weight.T + last.self_attn.v_proj.bias
        token = token + values @ last.self_attn.out_proj.weight.T + last.self_attn.out_proj.bias
        token = token + last.mlp(last.layer_norm2(token))
        vectors.append(tower.post_layernorm(token) @ model.visual_projection.weight.T)
    return torch.stack(vectors)


def siglip_patch_by_hand(model: tf.SiglipModel, tokens: torch.Tensor) -> torch.Tensor:
    head, vectors = model.vision_model.head, []
    width = tokens.shape[-1]
    weight, bias = head.attention.in_proj_weight[2 * width :], head.attention.in_proj_bias[2 * width :]  # q, k, v
    for token in tokens[0]:
        pooled = head.attention.out_proj(weight @ token + bias)
        vectors.append(pooled + head.mlp(head.layernorm(pooled)))
    return torch.stack(vectors)


@pytest.mark.parametrize("family", FAMILIES)
def test_map_holds_what_single_patches_give_by_hand(family, folder, load):
    frame = smooth_frame(64, 96)  # shorter side 64 = 2 x 32, so nothing is resized
    model, pixels = reference(folder(family)), normalized(frame)
    if family == "clip":
        vectors = clip_patch_by_hand(model, pixels)
    else:
        inputs = cut(pixels) if family == "siglip2" else {"pixel_values": pixels, "interpolate_pos_encoding": True}
        vectors = siglip_patch_by_hand(model, model.vision_model(**inputs).last_hidden_state)
    expected = unit(vectors).reshape(8, 12, -1).transpose(2, 0, 1)
    found = load(family).embed_map(frame)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-5)
    assert np.allclose(found.mean(axis=(1, 2)), expected.mean(axis=(1, 2)), atol=1e-6)


def test_a_picture_of_equal_patches_is_one_patch_for_siglip(folder, load):
    """Attention over equal tokens gives what attention to one of them gives; position embeddings are taken away."""
    model = load("siglip")
    table = model._model.vision_model.embeddings.position_embedding.weight
    kept = table.clone()
    table.zero_()
    grey = np.full((64, 64, 3), 130, np.uint8)
    cells, whole = model.embed_map(grey), model.embed_images([grey[:32, :32]])
    table.copy_(kept)
    assert np.allclose(cells, whole[0][:, None, None], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 640), (64, 88)), ((640, 480), (88, 64)), ((10, 1000), (64, 256)), ((1, 1), (64, 64))]
)
def test_maps_follow_the_shape_of_the_frame(size, expected, load):
    assert load("clip").map_input_size(size) == expected  # 2 x 32, patches of 8; 640 / 480 * 64 = 85.3 -> 88
    assert load("siglip2").embed_map(smooth_frame(*size)).shape == (16, expected[0] // 8, expected[1] // 8)


def test_scale_and_mean_colour_are_the_model_s_own(load):
    assert load("siglip").logit_scale == pytest.approx(math.exp(2))
    assert load("clip").mean_color.tolist() == [128, 102, 76]  # 0.5, 0.4 and 0.3 of 255, rounded
    assert load("siglip2").side == 32  # 16 patches of 8


def test_vectors_have_length_one(load):
    for family in FAMILIES:
        vectors = [load(family).embed_texts(TEXTS), load(family).embed_images([smooth_frame(30, 30)])]
        vectors.append(load(family).embed_map(smooth_frame(40, 50)).reshape(len(vectors[0][0]), -1).T)
        for part in vectors:
            assert np.allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)


def test_bfloat16_is_close(folder, load):
    rough = load_text_model(str(folder("siglip")), dtype="bfloat16")
    image = smooth_frame(32, 32)
    assert (rough.embed_images([image]) * load("siglip").embed_images([image])).sum() > 0.99
    assert rough.embed_map(image).dtype == np.float32


def test_model_comes_from_the_hub_with_its_tokenizer(folder, tmp_path, monkeypatch):
    repository = copy_of(folder("clip"), tmp_path / "repository")
    (repository / "spiece.model").write_bytes(b"never fetched")
    with fake_hub({TEXT_MODEL_ALIASES[DEFAULT_TEXT_MODEL]: repository}) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        model = load_text_model(DEFAULT_TEXT_MODEL)
        asked = len(hub.requests)
        load_text_model(DEFAULT_TEXT_MODEL)  # the cache has it
        assert len(hub.requests) == asked
    assert model.embed_texts(["sky"]).shape == (1, 10)
    assert {"config.json", "model.safetensors"} <= set(model.location.sha256())
    assert not any("spiece" in request for request in hub.requests)


def test_a_cached_copy_without_tokenizer_is_completed(folder, tmp_path, monkeypatch):
    with fake_hub({"org/model": folder("siglip")}) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        first = load_text_model("org/model")
        (first.location.path / "tokenizer.json").unlink()
        assert np.array_equal(load_text_model("org/model").embed_texts(TEXTS), first.embed_texts(TEXTS))


def test_clip_reads_vocab_and_merges_where_there_is_no_tokenizer_json(folder, tmp_path):
    changed = copy_of(folder("clip"), tmp_path / "clip")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (changed / name).unlink()
    words = ["<|pad|>", "<|endoftext|>", "<|startoftext|>", "s", "k", "y</w>", "sk", "sky</w>"]
    (changed / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (changed / "merges.txt").write_text("#version: 0.2\ns k\nsk y</w>\n")
    assert load_text_model(str(changed)).embed_texts(["sky", "Sky"]).shape == (2, 10)


def test_a_folder_without_tokenizer_says_what_is_needed(folder, tmp_path):
    changed = copy_of(folder("siglip2"), tmp_path / "siglip2")
    (changed / "tokenizer.json").unlink()
    (changed / "tokenizer.model").write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"has no tokenizer.json.*SentencePiece files \(\*.model\) are neither.*save_pretrained"
    ):
        load_text_model(str(changed))


def test_a_damaged_tokenizer_is_named(folder, tmp_path):
    changed = copy_of(folder("clip"), tmp_path / "clip")
    (changed / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_text_model(str(changed))
    (changed / "tokenizer.json").unlink()
    (changed / "vocab.json").write_text('{"sky": 0}')
    (changed / "merges.txt").write_text("s ky\n")
    with pytest.raises(WeightsError, match=r"the tokenizer of .* cannot be read: .*out of vocabulary; fetch it again"):
        load_text_model(str(changed))


def test_a_tokenizer_without_padding_token_is_refused_where_padding_is_seen(folder, tmp_path):
    for family in FAMILIES:
        changed = copy_of(folder(family), tmp_path / family)
        content = json.loads((changed / "tokenizer_config.json").read_text())
        (changed / "tokenizer_config.json").write_text(json.dumps({**content, "pad_token": None}))
        (changed / "special_tokens_map.json").unlink(missing_ok=True)
        if family == "clip":
            assert load_text_model(str(changed)).embed_texts(TEXTS).shape == (3, 10)
        else:
            with pytest.raises(WeightsError, match="names no end token or no padding token: fetch it again"):
                load_text_model(str(changed))


def test_a_text_that_is_too_long_is_refused_with_its_length(load):
    for family in FAMILIES:
        assert load(family).embed_texts(["sky " * 11]).shape[0] == 1
        with pytest.raises(LabelError, match="has 13 tokens, the text model reads 12 at most: shorten the phrase"):
            load(family).embed_texts(["sky", "sky " * 12])


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    changed = copy_of(folder("clip"), tmp_path / "clip")
    content = json.loads((changed / "tokenizer.json").read_text())
    content["model"]["vocab"]["train"] = len(WORDS) + 20
    (changed / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="gives the id 33, the model knows 13 tokens: they do not belong together"):
        load_text_model(str(changed)).embed_texts(["train"])


@pytest.mark.parametrize(
    "lost",
    [
        "text_projection.weight",
        "visual_projection.weight",
        "logit_scale",
        "vision_model.encoder.layers.1.self_attn.q_proj.weight",
    ],
)
def test_weights_without_a_tower_are_refused(lost, folder, tmp_path):
    changed = copy_of(folder("clip"), tmp_path / "clip")
    weights = load_file(changed / "model.safetensors")
    del weights[lost]
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"lacks 1 trained parameters of CLIPModel \(first: {lost}\)"):
        load_text_model(str(changed))


def test_siglip_s_bias_is_not_needed(folder, load, tmp_path):
    changed = copy_of(folder("siglip"), tmp_path / "siglip")
    weights = load_file(changed / "model.safetensors")
    del weights["logit_bias"]
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    assert np.array_equal(load_text_model(str(changed)).embed_texts(TEXTS), load("siglip").embed_texts(TEXTS))


def test_a_model_without_texts_is_refused(tmp_path):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tf.ViTModel(tf.ViTConfig(image_size=32, patch_size=8, **config)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="is a vit model, expected one of images and text: CLIP, SigLIP or SigLIP 2"):
        load_text_model(str(tmp_path))


def test_wrong_names_devices_and_pictures_are_refused(folder, load):
    with pytest.raises(WeightsError, match="Did you mean siglip2-b16"):
        load_text_model("siglip2-b6")
    with pytest.raises(SettingsError, match="--dtype float8 is unknown"):
        load_text_model(str(folder("clip")), dtype="float8")
    with pytest.raises(ShapeError, match=r"expected uint8 RGB \(H, W, 3\)"):
        load("clip").embed_images([np.zeros((8, 8), np.uint8)])


def test_numbers_that_are_not_finite_are_refused(folder, tmp_path):
    changed = copy_of(folder("clip"), tmp_path / "clip")
    weights = load_file(changed / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = torch.nan
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"not finite numbers in torch\.float32; try --dtype float32"):
        load_text_model(str(changed)).embed_images([smooth_frame(20, 20)])
