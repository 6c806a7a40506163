"""Hub models: labels equal to transformers' own pre- and post-processing for every kind of model; clear refusals."""

import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from fake_hub import fake_hub, use_hub
from sam2vss.errors import SettingsError, ShapeError, WeightsError
from sam2vss.segmenters import load_segmenter
from sam2vss.segmenters.hub_models import MASK2FORMER_GRID, HubSegmenter, configured_label_space
from sam2vss.segmenters.palettes import palette_of
from sam2vss.segmenters.preprocessing import Preprocessing
from tiny_segmenters import BUILDERS, NAMES, NUM_CLASSES, save_tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per architecture, written once."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    for name in BUILDERS:
        save_tiny(name, root / name)
    return root


@pytest.fixture(scope="session")
def load(models: Path) -> Callable[[str], Any]:
    """Loads a model once for all tests that only look at it."""
    return functools.cache(lambda name: load_segmenter(str(models / name), want_probabilities=True))


@pytest.fixture
def segformer(models: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(models / "segformer", tmp_path / "segformer"))


def noise(length: int, height: int, width: int) -> np.ndarray:
    """Smooth noise, so that neighbouring pixels are alike as in a picture."""
    coarse = torch.rand((length, 3, 4, 5), generator=torch.Generator().manual_seed(7))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


SIZES = {  # that need no resampling, where ours and theirs may differ by a grey level
    "eomt": [(64, 100), (100, 64), (64, 200), (64, 64)],  # in 2 patches, one above the other, in 4, in 1
    "eomt_dinov3": [(64, 100), (100, 64)],
    "mask2former": [(64, 96), (96, 64)],
    "maskformer": [(64, 96), (96, 64)],
}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size)
        for name in BUILDERS
        if name not in ("mobilenet_v2", "mobilevit", "videomt")
        for size in SIZES.get(name, [(64, 64)])
    ],
)
def test_labels_equal_those_of_transformers_own_processor(models, load, name, size):
    frames = noise(2, *size)
    expected = labels_by_transformers(load(name).model, models / name, name, frames)
    assert len(np.unique(expected)) > 1 or name == "detr"  # whose random queries all look alike
    assert np.array_equal(load(name).predict(frames).labels, expected)


def test_query_scores_equal_a_sum_over_queries_pixel_by_pixel(load):
    generator = torch.Generator().manual_seed(3)
    classes, masks = torch.randn((1, 4, 3), generator=generator), torch.randn((1, 4, 2, 3), generator=generator)
    found = load("detr")._semantic_scores(SimpleNamespace(logits=classes, pred_masks=masks))
    for c in range(2):  # the third class logit is "no object"
        for y in range(2):
            for x in range(3):
                expected = sum(
                    math.exp(classes[0, q, c]) / sum(math.exp(classes[0, q, k]) for k in range(3))
                    / (1 + math.exp(-masks[0, q, y, x]))
                    for q in range(4)
                )  # fmt: skip
                assert found[0, c, y, x].item() == pytest.approx(expected, abs=1e-6)  # float32, measured 1e-7


def labels_by_transformers(model: Any, folder: Path, name: str, frames: np.ndarray) -> np.ndarray:
    processor_class = {
        "segformer": tf.SegformerImageProcessorPil,
        "upernet": tf.SegformerImageProcessorPil,
        "beit": tf.BeitImageProcessorPil,
        "data2vec-vision": tf.BeitImageProcessorPil,
        "dpt": tf.DPTImageProcessorPil,
        "mask2former": tf.Mask2FormerImageProcessorPil,
        "maskformer": tf.MaskFormerImageProcessorPil,
        "oneformer": tf.MaskFormerImageProcessorPil,  # OneFormer's own asks the hub for a file of class names
        "detr": tf.DetrImageProcessorPil,
        "eomt": tf.EomtImageProcessorPil,
        "eomt_dinov3": tf.EomtImageProcessorPil,
    }[name]
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config = {key: value for key, value in config.items() if not key.endswith("_type")}
    processor = processor_class(**config, **({"size_divisor": 0} if name == "oneformer" else {}))
    sizes = [frames.shape[1:3]] * len(frames)
    inputs = processor(list(frames), return_tensors="pt")
    offsets = inputs.pop("patch_offsets", None)
    with torch.no_grad():
        if name == "oneformer":
            words = tf.AutoTokenizer.from_pretrained(folder)(
                ["the task is semantic"], padding="max_length", max_length=24
            )
            tokens = torch.tensor(words["input_ids"]) * torch.tensor(words["attention_mask"])
            outputs = model(**inputs, task_inputs=tokens.expand(len(frames), -1))
            return np.stack(processor.post_process_semantic_segmentation(outputs, sizes))
        outputs = model(**inputs)
    if name in ("eomt", "eomt_dinov3"):
        outputs.patch_offsets = offsets
    if name == "upernet":
        processor = tf.SegformerImageProcessorPil()
    return np.stack(processor.post_process_semantic_segmentation(outputs, sizes))


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(("height", "width"), [(97, 31), (5, 3)])
def test_portrait_odd_and_tiny_frames_keep_their_size(load, name, height, width):
    base = load(name).predict(noise(2, height, width))
    assert base.labels.shape == (2, height, width)
    assert base.labels.dtype == np.uint8
    assert base.labels.max() < NUM_CLASSES
    assert base.probabilities.dtype == np.float16
    assert base.probabilities.shape[:2] == (2, NUM_CLASSES)
    np.testing.assert_allclose(base.probabilities.astype(float).sum(1), 1, atol=5e-3)  # float16, measured 1.0e-3


@pytest.mark.parametrize("name", ["segformer", "eomt"])
def test_a_batch_gives_what_single_frames_give(models, load, name):
    frames = noise(3, 40, 70)
    one, two = load(name), HubSegmenter.from_pretrained(str(models / name), batch_size=2)
    together = two.predict(frames).labels
    assert np.mean(one.predict(frames).labels != together) < 1e-3  # sums in another order may tip a tie
    assert np.array_equal(
        np.concatenate([two.predict(frames[i : i + 1]).labels for i in range(3)]), one.predict(frames).labels
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [("dpt", (64, 64)), ("eomt", (64, 100)), ("eomt", (100, 64)), ("eomt_dinov3", (100, 64)), ("mask2former", None)],
)
def test_probabilities_are_those_of_the_labels(load, name, size):
    """Where a model scores every pixel of a frame."""
    height, width = size or MASK2FORMER_GRID
    base = load(name).predict(noise(1, height, width))
    assert base.probabilities.shape == (1, NUM_CLASSES, height, width)
    assert np.mean(base.probabilities.argmax(1) == base.labels) > 0.99  # float16 makes ties


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "detr"])  # whose random queries all look alike
def test_probabilities_stretched_over_the_frame_lead_to_the_labels(load, name):
    base = load(name).predict(noise(1, 96, 64))
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(base.probabilities.astype(np.float32)), (96, 64), mode="bilinear"
    )
    agreement = np.mean(stretched.argmax(1).numpy() == base.labels)
    assert agreement > 0.9  # measured 0.92 (mobilenet_v2, of stride 16) to 1


@pytest.mark.parametrize("name", BUILDERS)
def test_names_come_from_the_configuration_and_colours_follow(load, name):
    label_space = load(name).label_space
    assert label_space.names == tuple(NAMES.values())
    assert label_space.palette.tolist()[:2] == [[128, 0, 0], [0, 128, 0]]  # VOC bit pattern from colour 1 on


@pytest.mark.parametrize(
    ("names", "label_set", "first"),
    [
        (["wall", "building, edifice", "sky", *["?"] * 146, "flag"], "ADE20K", "wall"),
        ([f"LABEL_{i}" for i in range(19)], "Cityscapes", "road"),  # what transformers writes where nobody named them
        ([f"LABEL_{i}" for i in range(124)], "vspw", "wall"),
        ([f"LABEL_{i}" for i in range(5)], "5 unnamed classes", "class 0"),
        (["LABEL_0", "car"], "org/model", "LABEL_0"),
    ],
)
def test_label_sets_are_recognised_by_their_names_or_their_number(names, label_set, first):
    config = SimpleNamespace(num_labels=len(names), id2label=dict(enumerate(names)))
    found = configured_label_space(config, "org/model")
    assert (found.name, found.names[0], found.num_classes) == (label_set, first, len(names))


def test_frames_may_be_read_only(load):
    frames = noise(1, 20, 30)
    frames.flags.writeable = False
    assert load("segformer").predict(frames).labels.shape == (1, 20, 30)


def test_bfloat16_labels_are_close_to_those_of_float32(models, load):
    frames = noise(2, 48, 80)
    exact = load("segformer").predict(frames).labels
    rough = HubSegmenter.from_pretrained(str(models / "segformer"), dtype="bfloat16").predict(frames).labels
    assert np.mean(exact == rough) > 0.9


def test_the_real_download_code_loads_a_model_and_needs_the_hub_once(models, load, tmp_path, monkeypatch):
    with fake_hub({"org/tiny": models / "oneformer"}) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        frames = noise(1, 30, 40)
        labels = load_segmenter("org/tiny").predict(frames).labels
        assert np.array_equal(labels, load("oneformer").predict(frames).labels)
        server.requests.clear()
        load_segmenter("org/tiny")
        assert server.requests == []
    load_segmenter("org/tiny")  # the hub is gone


def test_a_misspelt_name_is_met_with_the_known_names():
    with pytest.raises(WeightsError, match=r"Did you mean .*segformer-nano.*segformer-b5"):
        load_segmenter("segformer-nanno")


def test_weights_without_a_trained_head_are_refused(segformer):
    weights = load_file(segformer / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "classifier" not in key}
    save_file(kept, segformer / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"lacks 2 trained parameters of Segformer.*decode_head.classifier.bias.*not trained"
    ):
        HubSegmenter.from_pretrained(str(segformer))


def test_missing_parameters_that_the_model_never_uses_are_accepted(models, tmp_path):
    folder = Path(shutil.copytree(models / "dpt", tmp_path / "dpt"))
    weights = load_file(folder / "model.safetensors")
    unused = [key for key in weights if "fusion_stage.layers.0.residual_layer1" in key]
    assert unused
    frames = noise(1, 64, 64)
    expected = HubSegmenter.from_pretrained(str(folder)).predict(frames).labels
    kept = {key: value for key, value in weights.items() if key not in unused}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.array_equal(HubSegmenter.from_pretrained(str(folder)).predict(frames).labels, expected)


def test_only_the_missing_parameters_that_count_are_counted(models, tmp_path):
    folder = Path(shutil.copytree(models / "dpt", tmp_path / "dpt"))
    weights = load_file(folder / "model.safetensors")
    last = max(key for key in weights if key.startswith("head.") and key.endswith("bias"))
    kept = {key: value for key, value in weights.items() if "layers.0.residual_layer1" not in key and key != last}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=rf"lacks 1 trained parameters of DPT.* \(first: {last}\)"):
        HubSegmenter.from_pretrained(str(folder))


def test_padding_is_cut_off_before_scores_are_stretched_over_the_frame(models, load):
    padded = {"image_processor_type": "EomtImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 64}}
    preprocessing = Preprocessing.from_dict({**padded, "do_pad": True}, "eomt")
    segmenter = HubSegmenter(load("eomt").model, preprocessing, load("eomt").location)
    frames = noise(1, 32, 64)  # keeps its size and gets 32 black rows below
    black = Preprocessing.from_dict({"do_resize": False}, "eomt")(
        torch.from_numpy(np.concatenate([frames, np.zeros_like(frames)], axis=1))
    )
    outputs = segmenter.model(pixel_values=black)
    masks = torch.nn.functional.interpolate(outputs.masks_queries_logits, (64, 64), mode="bilinear").sigmoid()
    scores = torch.einsum("bqc,bqhw->bchw", outputs.class_queries_logits.softmax(-1)[..., :-1], masks)
    expected = scores[:, :, :32].argmax(1).numpy()
    assert not np.array_equal(expected, scores.argmax(1)[:, ::2].numpy())  # without cutting it would be another
    assert np.array_equal(segmenter.predict(frames).labels, expected)


def test_pickled_weights_are_refused(segformer):
    weights = load_file(segformer / "model.safetensors")
    (segformer / "model.safetensors").unlink()
    torch.save(weights, segformer / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"only in pytorch_model.bin, a pickle file"):
        HubSegmenter.from_pretrained(str(segformer))


def test_a_video_model_is_no_image_model(models):
    with pytest.raises(WeightsError, match=r"is a video model, which sees no single pictures: use `load_segmenter`"):
        HubSegmenter.from_pretrained(str(models / "videomt"))


def test_a_model_that_does_not_segment_is_refused_with_those_that_do(segformer):
    (segformer / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match=r"is a bert model, which does no semantic segmentation .* segformer"):
        HubSegmenter.from_pretrained(str(segformer))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"model_type": "no-such"}', "cannot be loaded from"),
        ("model.safetensors", "short", "cannot be loaded from .*header"),
        ("preprocessor_config.json", "{", "preprocessor_config.json cannot be understood"),
        ("preprocessor_config.json", None, "has no preprocessor_config.json: .* would be a guess"),
    ],
)
def test_damaged_folders_are_named(segformer, file, content, message):
    if content is None:
        (segformer / file).unlink()
    else:
        (segformer / file).write_text(content)
    with pytest.raises(WeightsError, match=message):
        HubSegmenter.from_pretrained(str(segformer))


def test_weights_of_another_shape_than_the_configuration_are_refused(segformer):
    config = json.loads((segformer / "config.json").read_text())
    config["decoder_hidden_size"] = 24
    (segformer / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="cannot be loaded from"):
        HubSegmenter.from_pretrained(str(segformer))


def test_scores_that_are_not_numbers_are_an_error_and_not_labels(models):
    segmenter = HubSegmenter.from_pretrained(str(models / "segformer"))
    segmenter.model.decode_head.classifier.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match=r"not finite numbers in torch.float32: the weights are damaged"):
        segmenter.predict(noise(1, 20, 20))


def test_more_scores_than_names_are_an_error(models):
    segmenter = HubSegmenter.from_pretrained(str(models / "segformer"))
    segmenter.label_space = segmenter.label_space.numbered(4)
    with pytest.raises(WeightsError, match=r"scores 5 classes, but its config.json names 4"):
        segmenter.predict(noise(1, 20, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu9"}, "--device tpu9 is not a device"),
        ({"dtype": "int8"}, "--dtype int8 is unknown, expected auto, fastest, float32"),
        ({"batch_size": 0}, "at least 1, found 0"),
    ],
)
def test_options_that_do_not_exist_are_named(models, options, message):
    with pytest.raises(SettingsError, match=message):
        HubSegmenter.from_pretrained(str(models / "segformer"), **options)


@pytest.mark.parametrize("shape", [(20, 30, 3), (1, 20, 30, 4), (0, 20, 30, 3)])
def test_frames_of_another_form_are_refused(load, shape):
    with pytest.raises(ShapeError, match=r"expected uint8 \(L, H, W, 3\)"):
        load("segformer").predict(np.zeros(shape, np.uint8))


def test_well_known_label_sets_get_their_customary_colours():
    cityscapes = (
        "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car "
        "truck bus train motorcycle bicycle"
    )
    name, palette = palette_of([word.replace("_", " ") for word in cityscapes.split()])
    assert name == "Cityscapes"
    assert palette[[0, 10, 13]].tolist() == [[128, 64, 128], [70, 130, 180], [0, 0, 142]]
    name, palette = palette_of(["wall", "building, edifice", "sky", *["?"] * 146, "flag"])
    assert name == "ADE20K"
    assert palette.shape == (150, 3)
    assert palette[[0, 2, 149]].tolist() == [[120, 120, 120], [6, 230, 230], [92, 0, 255]]
    assert palette_of(["wall"] * 150)[0] == ""
