"""Hub models made ready for training: which weights are kept, what is saved, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf

from sam2vss.errors import SettingsError, WeightsError
from sam2vss.hub import local_model
from sam2vss.segmenters import load_segmenter
from sam2vss.segmenters.hub_models import LABEL_SET_KEY
from sam2vss.segmenters.preprocessing import Preprocessing
from sam2vss.training.segmenter_hub import fitted, load_hub_trainable, preprocessor_config
from sam2vss.training.segmenter_start import DEFAULT_SCALE, load_start
from sam2vss.types import LabelSpace
from tiny_segmenters import NAMES, save_tiny

OLD = LabelSpace(tuple(NAMES.values()), np.arange(15, dtype=np.uint8).reshape(5, 3))
OTHER = LabelSpace(("left", "right"), np.uint8([[9, 8, 7], [1, 2, 3]]), raw_ids=(7, 4), raw_void=(0,), name="sides")
FRAME = np.random.default_rng(0).integers(0, 256, (1, 40, 60, 3), np.uint8)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random SegFormer for five classes; not to be changed."""
    return save_tiny("segformer", tmp_path_factory.mktemp("segformer"))


def load(folder, label_space=OTHER, scale=(64, 48), seed=0):
    return load_hub_trainable(local_model(folder), label_space, scale, seed)


def differing(first, second) -> set[str]:
    return {
        name for name in first if first[name].shape != second[name].shape or not torch.equal(first[name], second[name])
    }


def test_a_classifier_for_other_classes_is_new_and_all_else_is_kept(tiny):
    start = tf.SegformerForSemanticSegmentation.from_pretrained(tiny).state_dict()
    trainable = load(tiny)
    assert differing(start, trainable.network.state_dict()) == {
        "decode_head.classifier.weight", "decode_head.classifier.bias"
    }  # fmt: skip
    assert trainable.network.decode_head.classifier.out_channels == 2
    (note,) = trainable.notes
    assert (
        "tells 5 classes apart (sky, road, car, ...), the data set has 2 (left, right): its classifier starts" in note
    )
    assert all(parameter.requires_grad for parameter in trainable.network.parameters())


def test_a_classifier_for_the_same_classes_is_kept(tiny):
    start = tf.SegformerForSemanticSegmentation.from_pretrained(tiny).state_dict()
    trainable = load(tiny, OLD)
    assert not differing(start, trainable.network.state_dict())
    assert trainable.notes == ()


def test_as_many_other_classes_need_a_new_classifier_too(tiny):
    trainable = load(tiny, LabelSpace.numbered(5))
    start = tf.SegformerForSemanticSegmentation.from_pretrained(tiny).state_dict()
    assert "decode_head.classifier.weight" in differing(start, trainable.network.state_dict())


def test_new_weights_depend_on_the_seed_alone(tiny):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (load(tiny, seed=seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    assert not differing(first, again)
    assert differing(first, other) == {"decode_head.classifier.weight"}  # biases start at 0


def test_an_encoder_gets_a_new_head(tmp_path):
    config = tf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=7,
    )  # fmt: skip
    encoder = tf.SegformerForImageClassification(config)
    encoder.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "SegformerImageProcessor"}')
    trainable = load(tmp_path)
    assert "has no trained head: its head starts from random weights, its encoder is kept" in trainable.notes[0]
    found = trainable.network.state_dict()
    assert not differing({k: v for k, v in encoder.state_dict().items() if k.startswith("segformer.")}, found)


def test_what_is_saved_loads_as_what_was_trained(tiny, tmp_path):
    trainable = load(tiny)
    trainable.network.eval()
    with torch.no_grad():  # both classes shall occur
        logits = trainable.network(pixel_values=trainable.network_input.preprocessing(torch.from_numpy(FRAME))).logits
        trainable.network.decode_head.classifier.bias.sub_(logits.mean((0, 2, 3)))
    expected = trainable.segmenter().predict(FRAME).labels
    assert set(np.unique(expected)) == {0, 1}
    trainable.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json"
    ]  # fmt: skip
    segmenter = load_segmenter(str(tmp_path))
    assert (segmenter.predict(FRAME).labels == expected).all()
    assert segmenter.preprocessing == trainable.network_input.preprocessing
    assert segmenter.preprocessing.size == {"shortest_edge": 48, "longest_edge": 64}
    space = segmenter.label_space
    assert (space.names, space.raw_ids, space.raw_void, space.name) == (("left", "right"), (7, 4), (0,), "sides")
    assert space.palette.tolist() == [[9, 8, 7], [1, 2, 3]]


def test_training_goes_through_what_inference_goes_through(tiny):
    """The logits of a whole frame, and the loss has a gradient everywhere."""
    trainable = load(tiny, scale=None)
    trainable.network.eval()
    pixels = trainable.network_input.preprocessing(torch.from_numpy(FRAME))
    (part,) = trainable.training_logits(pixels)
    assert torch.equal(part.logits, trainable.network(pixel_values=pixels).logits)
    assert (part.frames, part.weight) == ((0,), 1.0)
    part.logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in trainable.network.parameters())


def test_upernet_trains_its_auxiliary_head_too(tmp_path):
    backbone = tf.ConvNextConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = tf.UperNetConfig(
        backbone_config=backbone, hidden_size=16, pool_scales=[1, 2], auxiliary_channels=8, id2label=NAMES,
        auxiliary_loss_weight=0.4,
    )  # fmt: skip
    model = tf.UperNetForSemanticSegmentation(config)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "SegformerImageProcessor"}')
    trainable = load(tmp_path)
    trainable.network.eval()
    start = model.state_dict()
    assert differing(start, trainable.network.state_dict()) == {
        f"{head}.classifier.{part}" for head in ("decode_head", "auxiliary_head") for part in ("weight", "bias")
    }
    pixels = torch.rand(2, 3, 64, 64)
    main, auxiliary = trainable.training_logits(pixels)
    assert (main.weight, auxiliary.weight, auxiliary.frames) == (1.0, 0.4, (0, 1))
    # transformers' own loss, on labels of the size of the input
    labels = torch.randint(0, 2, (2, 64, 64))
    from sam2vss.training.segmenter_model import loss_of

    expected = trainable.network(pixel_values=pixels, labels=labels).loss.item()
    assert loss_of([main, auxiliary], labels, 255, "all").item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mask2former", "matches queries to single objects, which needs scipy"),
        ("eomt", "matches queries to single objects"),
        ("dpt", "its training is not written here"),
    ],
)
def test_families_that_cannot_be_trained_are_named(name, reason, tmp_path):
    folder = save_tiny(name, tmp_path)
    with pytest.raises(SettingsError, match=rf"is a {name} model, .*{reason}.* segformer, upernet of the hub, and the"):
        load(folder)


def test_weights_that_do_not_fit_are_refused(tiny, tmp_path):
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes())
    (tmp_path / "preprocessor_config.json").write_bytes((tiny / "preprocessor_config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_hidden_size": 32}))
    with pytest.raises(WeightsError):
        load(tmp_path)


@pytest.mark.parametrize("content", [{"classes": []}, [], "x", {"classes": [{"id": 0, "name": "sky"}]}])
def test_a_stored_label_set_that_makes_no_sense_is_said(tiny, tmp_path, content):
    load(tiny).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, LABEL_SET_KEY: content}))
    with pytest.raises(WeightsError, match=LABEL_SET_KEY):
        load_segmenter(str(tmp_path))


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing({"height": 512, "width": 384}, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="bicubic"),
        Preprocessing(None, flip_channels=True, scale=1.0),
        Preprocessing({"height": 64, "width": 64}, multiple=16, keep_aspect_ratio=True),
        fitted(Preprocessing({"height": 512, "width": 512}), (853, 480)),
    ],
)
def test_the_preprocessing_that_is_written_is_read_back(preprocessing):
    content = json.loads(json.dumps(preprocessor_config(preprocessing)))
    assert replace(Preprocessing.from_dict(content, "segformer")) == preprocessing


def test_names_lead_to_their_models(tiny):
    assert load_start("segformer-nano", None, OTHER, None, 0).about == {
        "family": "segformer", "start": "segformer-nano"
    }  # fmt: skip
    assert load_start(str(tiny), None, OTHER, DEFAULT_SCALE, 0).about["start"] == tiny.name
    with pytest.raises(
        SettingsError, match="there is no native model cffm-b9, expected one of segformer-vss-b0 to -b5"
    ):
        load_start("cffm-b9", None, OTHER, DEFAULT_SCALE, 0)
    with pytest.raises(SettingsError, match=r"--backbone gives encoder weights to a native model.*has its own"):
        load_start(str(tiny), "mit_b1.pth", OTHER, DEFAULT_SCALE, 0)
