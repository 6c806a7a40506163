"""Encoders of segmentation models: the very maps from which the model makes its labels, and clear refusals."""

import functools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fake_hub import fake_hub, use_hub
from sam2vss.encoders import load_encoder
from sam2vss.errors import SettingsError, WeightsError
from sam2vss.segmenters import load_segmenter
from tiny_backbones import smooth_frame

STAGES = {"segformer": 2, "upernet": 4, "beit": 4, "data2vec-vision": 4, "dpt": 4, "mobilevit": 5, "mask2former": 4}
STAGES |= {"maskformer": 4, "oneformer": 4}


@pytest.fixture(scope="module")
def load(segmenter):
    return functools.cache(lambda family, levels: load_encoder(f"segmenter:{segmenter(family)}/{levels}"))


def all_stages(family: str) -> str:
    return "+".join(f"stage{number}" for number in range(1, STAGES[family] + 1))


def inputs_of(module, model, pixels) -> list[torch.Tensor]:
    """What a part of a model is given first while the whole model labels pixels."""
    seen = []
    hook = module.register_forward_pre_hook(
        lambda part, inputs, named: seen.append([*inputs, *named.values()][0]), with_kwargs=True
    )
    with torch.inference_mode():
        model(pixel_values=pixels)
    hook.remove()
    return list(seen[0]) if isinstance(seen[0], list | tuple) else [seen[0]]


@pytest.mark.parametrize("family", ["segformer", "upernet", "mobilevit", "mask2former", "maskformer", "beit", "dpt"])
@pytest.mark.parametrize("size", [(64, 64), (97, 31), (24, 36)])
def test_stages_are_what_the_head_reads_while_the_model_labels_the_frame(segmenter, load, family, size):
    frame = smooth_frame(*size)
    whole = load_segmenter(str(segmenter(family)))
    model, pixels = whole.model, whole.preprocessing(torch.from_numpy(frame)[None])
    head = {
        "mobilevit": lambda: model.segmentation_head,
        "mask2former": lambda: model.model.pixel_level_module.decoder,
        "maskformer": lambda: model.model.pixel_level_module.decoder,
        "beit": lambda: model.fpn,
        "dpt": lambda: model.neck,
    }.get(family, lambda: model.decode_head)()
    expected = inputs_of(head, model, pixels)
    if family == "dpt":  # its neck lays the tokens out by itself
        side = pixels.shape[-1] // 16
        expected = [tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side)) for tokens in expected]
    encoder = load(family, all_stages(family))
    found = encoder.encode(frame)
    assert len(found) == len(expected) == STAGES[family]
    assert encoder.channels == tuple(part.shape[1] for part in expected)
    for part, reference in zip(found, expected, strict=True):
        assert part.dtype == np.float32
        assert np.array_equal(part, reference[0].numpy())


@pytest.mark.parametrize("family", ["data2vec-vision", "oneformer"])
def test_relatives_of_these_give_maps_too(load, family):
    encoder = load(family, all_stages(family))
    maps = encoder.encode(smooth_frame(40, 70))
    assert [len(part) for part in maps] == list(encoder.channels)
    assert all(part.std() > 0 for part in maps)


@pytest.mark.parametrize("family", ["segformer", "upernet"])
def test_the_fused_map_goes_through_the_classifier_to_the_scores_of_the_model(segmenter, load, family):
    frame = smooth_frame(50, 40)
    whole = load_segmenter(str(segmenter(family)))
    (fused,) = load(family, "fused").encode(frame)
    with torch.inference_mode():
        scores = whole.model.decode_head.classifier(torch.from_numpy(fused)[None])
        expected = whole.model(pixel_values=whole.preprocessing(torch.from_numpy(frame)[None])).logits
    assert fused.shape[1:] == (16, 16)
    scores = torch.nn.functional.interpolate(scores, expected.shape[2:], mode="bilinear")
    assert torch.allclose(scores, expected, atol=1e-5)  # measured 0 and 1e-6


def test_all_levels_come_from_one_call_in_the_order_asked_for(load):
    frame = smooth_frame(30, 30)
    together = load("segformer", "fused+stage2+stage1").encode(frame)
    for level, part in zip(("fused", "stage2", "stage1"), together, strict=True):
        assert np.array_equal(part, load("segformer", level).encode(frame)[0])


def test_the_default_is_the_last_stage():
    encoder = load_encoder("segmenter:segformer-nano")
    assert (encoder.name, encoder.level_names, encoder.channels) == (
        "segmenter:segformer-nano/stage4",
        ("stage4",),
        (96,),
    )
    assert load_encoder(encoder.name).fingerprint == encoder.fingerprint


def test_fingerprints_tell_levels_weights_and_preprocessing(segmenter, load, tmp_path):
    import shutil

    def changed(name, change):
        folder = shutil.copytree(segmenter("segformer"), tmp_path / name)
        change(folder)
        return load_encoder(f"segmenter:{folder}/stage2").fingerprint

    def other_weights(folder):
        weights = load_file(folder / "model.safetensors")
        weights["decode_head.classifier.bias"] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def other_size(folder):
        text = (folder / "preprocessor_config.json").read_text()
        (folder / "preprocessor_config.json").write_text(text.replace("64", "96"))

    first = load("segformer", "stage2").fingerprint
    assert changed("same", lambda folder: None) == first
    others = [changed("weights", other_weights), changed("size", other_size), load("segformer", "stage1").fingerprint]
    assert len({first, *others}) == 4


def test_a_model_of_the_hub_is_an_encoder_too(segmenter, load, tmp_path, monkeypatch):
    frame = smooth_frame(30, 40)
    with fake_hub({"org/tiny": segmenter("segformer")}) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        encoder = load_encoder("segmenter:org/tiny/stage1")
    assert encoder.name == "segmenter:org/tiny/stage1"
    assert np.array_equal(encoder.encode(frame)[0], load("segformer", "stage1").encode(frame)[0])
    assert encoder.fingerprint == load("segformer", "stage1").fingerprint


@pytest.mark.parametrize(
    ("family", "levels", "error", "message"),
    [
        ("segformer", "stage3", SettingsError, "this segformer model has no stage3, only stage1, stage2, fused"),
        ("segformer", "stage1+fused+stage9", SettingsError, "has no stage9, only stage1, stage2, fused"),
        (
            "mask2former",
            "fused",
            SettingsError,
            "mask2former model has no fused, only stage1, stage2, stage3, stage4",
        ),
        ("segformer", "stage1@512", SettingsError, "a segmentation model has its own size: leave out @512"),
        (
            "eomt",
            "stage1",
            WeightsError,
            "feature maps of a eomt model are not known here, only those of segformer",
        ),
    ],
)
def test_what_a_model_does_not_have_is_refused_with_what_it_has(segmenter, family, levels, error, message):
    with pytest.raises(error, match=message):
        load_encoder(f"segmenter:{segmenter(family)}/{levels}")


def test_features_that_are_not_finite_are_an_error(segmenter):
    encoder = load_encoder(f"segmenter:{segmenter('segformer')}/fused")
    with torch.no_grad():
        encoder._segmenter.model.decode_head.batch_norm.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match=r"/fused gave features that are not finite numbers in torch.float32"):
        encoder.encode(smooth_frame(20, 20))
