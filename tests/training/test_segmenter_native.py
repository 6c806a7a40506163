"""Native models made ready for training: where weights come from, one step of each, and the way to inference."""

import numpy as np
import pytest
import torch
import transformers as tf

import toy
from sam2vss.errors import SettingsError, WeightsError
from sam2vss.hub import ModelLocation, local_model
from sam2vss.segmenters.vss import tv3s
from sam2vss.segmenters.vss.architecture import build, default_architecture
from sam2vss.segmenters.vss.checkpoint import load_model, save_model
from sam2vss.segmenters.vss.frames import network_input, network_size
from sam2vss.training.encoder_weights import from_transformers, read_start
from sam2vss.training.segmenter_native import load_native_trainable, new_native_trainable
from sam2vss.training.segmenter_start import DEFAULT_SCALE, load_start
from sam2vss.training.segmenter_views import ViewRecipe, draw_view
from sam2vss.types import LabelSpace

SPACE = LabelSpace(
    ("left", "right", "up"), np.uint8([[9, 8, 7], [1, 2, 3], [4, 4, 4]]), raw_ids=(7, 4, 5), name="sides"
)
MIT_B0 = {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2]}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _fast_disk():
    with toy.no_waiting_for_the_disk():
        yield


@pytest.fixture(scope="module")
def image_net(tmp_path_factory):
    """A MiT-B0 as the hub has it; random."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("mit-b0")
    tf.SegformerForImageClassification(tf.SegformerConfig(**MIT_B0)).save_pretrained(folder)
    return folder


def differing(first, second) -> set[str]:
    return {name for name in first if name not in second or not torch.equal(first[name], second[name])}


def test_a_new_model_depends_on_the_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (new_native_trainable("SegFormer", "b0", None, SPACE, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    states = [trainable.network.state_dict() for trainable in (first, again, other)]
    assert not differing(states[0], states[1])
    assert differing(states[0], states[2])
    assert first.about == {"family": "SegFormer B0", "start": "random weights"}
    assert "starts from random weights: it needs far more steps" in first.notes[0]


def test_new_weights_are_spread_as_the_source_says():
    weights = new_native_trainable("SegFormer", "b0", None, SPACE, 0).network.state_dict()
    assert weights["backbone.block3.0.mlp.fc1.weight"].std().item() == pytest.approx(0.02, rel=0.03)
    # 3 x 3 kernel, 160 outgoing channels: sqrt(2 / 1440)
    assert weights["backbone.patch_embed3.proj.weight"].std().item() == pytest.approx(0.0373, rel=0.03)
    # depth-wise: 9 paths: sqrt(2 / 9)
    assert weights["backbone.block3.0.mlp.dwconv.dwconv.weight"].std().item() == pytest.approx(0.471, rel=0.05)
    assert weights["decode_head.linear_pred.weight"].std().item() == pytest.approx(0.01, rel=0.1)
    assert not weights["backbone.block1.0.attn.q.bias"].any()


def test_a_hub_encoder_gives_the_same_features(image_net):
    trainable = load_start("segformer-vss-b0", str(image_net), SPACE, DEFAULT_SCALE, 0)
    theirs = tf.SegformerModel.from_pretrained(image_net).eval()
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = trainable.network.eval().backbone(pixels)
        expected = theirs(pixels, output_hidden_states=True).hidden_states
    for found, wanted in zip(ours, expected[-4:], strict=True):
        assert found.shape == wanted.shape
        # our norms have eps 1e-6, theirs 1e-5: 1.5e-5 measured
        assert (found - wanted).abs().max() < 1e-4
    assert trainable.about["start"] == image_net.name
    assert "no part of its head; all else starts from random weights" in trainable.notes[0]


def test_published_encoder_names_are_understood(image_net, tmp_path):
    renamed = from_transformers(tf.SegformerForImageClassification.from_pretrained(image_net).state_dict())
    plain = {name.removeprefix("backbone."): value for name, value in renamed.items()}
    torch.save({**plain, "head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}, tmp_path / "mit.pth")
    found = read_start(str(tmp_path / "mit.pth"))
    assert found.keys() == renamed.keys()
    assert not differing(renamed, found)
    encoder = build(default_architecture("SegFormer", "b0", 2)).backbone.state_dict()
    assert found.keys() == {f"backbone.{name}" for name in encoder}


def test_a_video_model_starts_from_a_trained_segformer(tmp_path):
    start = new_native_trainable("SegFormer", "b0", None, SPACE, 4)
    start.save(tmp_path)
    trainable = new_native_trainable("CFFM", "b0", str(tmp_path), SPACE, 0)
    found = trainable.network.state_dict()
    assert not differing(start.network.state_dict(), found)
    assert "tensors of its head; all else starts from random weights" in trainable.notes[0]


@pytest.mark.parametrize(
    ("size", "message"),
    [("b1", r"does not hold the encoder of SegFormer B1, 3 classes: \d+ of its tensors are missing")],
)
def test_an_encoder_of_another_size_is_refused(image_net, size, message):
    with pytest.raises(WeightsError, match=message):
        new_native_trainable("SegFormer", size, str(image_net), SPACE, 0)


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"holds no encoder of SegFormer: neither patch_embed1.* conv.weight"):
        read_start(str(tmp_path / "x.pth"))
    with pytest.raises(WeightsError, match=r"there is no file .*y\.pth"):
        read_start(str(tmp_path / "y.pth"))


@pytest.mark.parametrize("family", ["SegFormer", "CFFM", "MRCFA", "TV3S"])
def test_one_step_reaches_every_weight(family, monkeypatch):
    """Parameters without a gradient would never learn."""
    monkeypatch.setattr(tv3s, "NUM_LAYERS", 1)  # of eight: its scan is slow
    trainable = new_native_trainable(family, "b0", None, SPACE, 0)
    num_frames = 1 if family == "SegFormer" else 4
    assert trainable.num_frames == num_frames
    trainable.network.train()
    parts = trainable.training_logits(torch.randn(2 * num_frames, 3, 64, 64))
    for part in parts:
        assert len(part.frames) == len(part.logits)
        assert part.logits.shape[1] == 3
    single = (0, 1) if family == "SegFormer" else tuple(range(8))
    assert parts[0].frames == single
    if family != "SegFormer":
        assert set(parts[1].frames) == {3, 7}
        assert [part.weight for part in parts] == [0.5, 1.0]
    sum(part.weight * part.logits.square().mean() for part in parts).backward()
    without = [name for name, parameter in trainable.network.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_view_without_chance_is_the_input_at_inference_before_stretching():
    """480 x 640 needs no stretching to multiples of 32; then both are the same."""
    network = new_native_trainable("SegFormer", "b0", None, SPACE, 0)
    frame = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    assert network.network_input.size((36, 48)) == network_size((36, 48)) == (480, 640)
    still = ViewRecipe(crop=640, scales=(1.0, 1.0), max_share=1.0, flips=0.0, light=False)
    view = draw_view([frame], [frame[..., 0]], network.network_input, still, 255, np.random.default_rng(0))
    pixels = network.network_input.normalize(torch.from_numpy(view.frames))[0, :, :480]
    assert (pixels - network_input(frame)).abs().max() < 1e-5


def test_validation_does_not_end_training():
    trainable = new_native_trainable("SegFormer", "b0", None, SPACE, 0)
    trainable.network.train()
    labels = trainable.segmenter().predict(np.zeros((1, 32, 32, 3), np.uint8)).labels
    assert labels.shape == (1, 32, 32)
    assert trainable.network.training
    assert all(parameter.requires_grad for parameter in trainable.network.parameters())


def test_what_is_saved_loads_with_its_label_set(tmp_path):
    trainable = new_native_trainable("MRCFA", "b0", None, SPACE, 0)
    trainable.save(tmp_path)
    loaded = load_model(ModelLocation("x", tmp_path))
    assert (loaded.label_space.names, loaded.label_space.raw_ids) == (SPACE.names, SPACE.raw_ids)
    assert not differing(trainable.network.state_dict(), loaded.model.state_dict())


def test_classifiers_for_other_classes_are_new_and_all_else_is_kept(tmp_path):
    old = LabelSpace.numbered(5)
    start = new_native_trainable("MRCFA", "b0", None, old, 1)
    start.save(tmp_path)
    trainable = load_start(str(tmp_path), None, SPACE, DEFAULT_SCALE, 0)
    assert trainable.label_space.names == SPACE.names
    assert "tells 5 classes apart" in trainable.notes[0]
    found = trainable.network.state_dict()
    changed = {name for name, value in start.network.state_dict().items() if value.shape != found[name].shape}
    assert {name.split(".")[1] for name in changed} == {"linear_pred", "deco1", "deco2", "deco3", "deco4"}
    kept = {name: value for name, value in start.network.state_dict().items() if name not in changed}
    assert not differing(kept, found)


def test_as_many_other_classes_need_new_classifiers_too(tmp_path):
    start = new_native_trainable("TV3S", "b0", None, LabelSpace.numbered(3), 1)
    start.save(tmp_path)
    same = load_native_trainable(local_model(tmp_path), LabelSpace.numbered(3), 0)
    assert (same.notes, differing(start.network.state_dict(), same.network.state_dict())) == ((), set())
    other = load_native_trainable(local_model(tmp_path), SPACE, 0)
    changed = differing(start.network.state_dict(), other.network.state_dict())
    assert {name.split(".")[1] for name in changed} == {"linear_pred", "linear_pred2"}


def test_cffm_plus_is_refused_with_a_way_out(tmp_path):
    architecture = default_architecture("CFFM++", "b0", 3)
    save_model(tmp_path / "plus", build(architecture), architecture, SPACE)
    with pytest.raises(SettingsError, match=r"--model cffm-b0 --backbone .*plus"):
        load_native_trainable(local_model(tmp_path / "plus"), SPACE, 0)
    trainable = new_native_trainable("CFFM", "b0", str(tmp_path / "plus"), SPACE, 0)
    assert trainable.about == {"family": "CFFM B0", "start": "plus"}


def test_a_missing_checkpoint_is_named():
    with pytest.raises(WeightsError, match=r"there is no file nowhere\.pth; expected a checkpoint"):
        load_start("nowhere.pth", None, SPACE, DEFAULT_SCALE, 0)
