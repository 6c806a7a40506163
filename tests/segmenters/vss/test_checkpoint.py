"""Checkpoints and folders of native models, through `load_segmenter` as a user names them."""

import json

import numpy as np
import pytest
import torch

from named_weights import fill_by_name
from sam2vss import hub
from sam2vss.errors import SettingsError, WeightsError
from sam2vss.hub import ModelLocation
from sam2vss.segmenters import check_segmenter, find_segmenter, load_segmenter
from sam2vss.segmenters.class_names import vspw
from sam2vss.segmenters.kinds import describe_model
from sam2vss.segmenters.vss import frames as vss_frames
from sam2vss.segmenters.vss.architecture import build, default_architecture
from sam2vss.segmenters.vss.checkpoint import load_model, save_model
from sam2vss.segmenters.vss.segmenter import VssSegmenter
from sam2vss.training.segmenter import STATE_FILE
from sam2vss.types import LabelSpace


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(vss_frames, "TEST_SCALE", (64, 32))


def make(family="CFFM", size="b0", classes=4):
    return fill_by_name(build(default_architecture(family, size, classes)))


def save_checkpoint(path, model, **meta):
    """Write a checkpoint as mmcv does, with what it keeps beside the weights."""
    content = {
        "meta": {"mmcv_version": "1.3.0", "config": "a = 1", "epoch": 1, "iter": 160000, **meta},
        "state_dict": {**model.state_dict(), "decode_head.conv_seg.weight": torch.zeros(4, 256, 1, 1)},
        "optimizer": {"state": {0: {"step": 1, "exp_avg": torch.zeros(1)}}, "param_groups": [{"lr": 6e-5}]},
    }
    torch.save(content, path)
    return path


def frames(length=5, size=(30, 50)):
    return np.random.default_rng(0).integers(0, 256, (length, *size, 3), np.uint8)


@pytest.mark.parametrize("family", ["SegFormer", "CFFM", "CFFM++", "MRCFA"])
def test_the_path_of_a_checkpoint_is_enough(tmp_path, family):
    model = make(family)
    path = save_checkpoint(tmp_path / "net.pth", model)
    segmenter = load_segmenter(str(path))
    expected = VssSegmenter(model, LabelSpace.numbered(4), ModelLocation("x", path)).predict(frames())
    np.testing.assert_array_equal(segmenter.predict(frames()).labels, expected.labels)
    assert segmenter.label_space.num_classes == 4
    assert find_segmenter(str(path)).path == path


def test_124_classes_are_those_of_vspw(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make("SegFormer", classes=124))
    assert load_model(ModelLocation("net", path)).label_space == vspw()


def test_the_names_in_the_checkpoint_count(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make("SegFormer"), CLASSES=("sky", "road", "car", "tree"))
    assert load_model(ModelLocation("net", path)).label_space.names == ("sky", "road", "car", "tree")


def test_vspws_names_are_stored_with_the_class_others_that_no_network_knows(tmp_path):
    names = {"others": "0", **{name: str(i) for i, name in enumerate(vspw().names, start=1)}}
    path = save_checkpoint(tmp_path / "net.pth", make("SegFormer", classes=124), CLASSES=names)
    assert load_model(ModelLocation("net", path)).label_space == vspw()


@pytest.mark.parametrize("family", ["SegFormer", "MRCFA"])
def test_a_saved_model_comes_back_with_its_classes(tmp_path, family):
    model = make(family)
    space = LabelSpace(("a", "b", "c", "d"), np.arange(12).reshape(4, 3), raw_ids=(3, 5, 7, 9), name="mine")
    save_model(tmp_path / "run", model, default_architecture(family, "b0", 4), space)
    loaded = load_model(ModelLocation("run", tmp_path / "run"))
    assert loaded.label_space.to_dict() == space.to_dict()
    assert loaded.architecture == default_architecture(family, "b0", 4)
    states = (loaded.model.state_dict(), model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert load_segmenter(str(tmp_path / "run")).predict(frames(1)).labels.shape == (1, 30, 50)


def test_a_folder_whose_parts_do_not_belong_together_is_refused(tmp_path):
    save_model(tmp_path, make("SegFormer"), default_architecture("SegFormer", "b0", 4), LabelSpace.numbered(4))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "family": "CFFM"}))
    with pytest.raises(WeightsError, match=r"speaks of \('CFFM', 'b0', 4\), but the weights .* \('SegFormer'"):
        load_segmenter(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"format": "sam2vss segmenter"}))
    with pytest.raises(WeightsError, match=r"cannot be loaded: .*label_space"):
        load_segmenter(str(tmp_path))


def test_a_context_is_chosen_behind_the_name(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make())
    assert load_segmenter(f"{path}@frame").context == "frame"
    assert load_segmenter(f"{path}@clip").context == load_segmenter(str(path)).context == "clip"
    with pytest.raises(SettingsError, match="only TV3S carries a state"):
        load_segmenter(f"{path}@stream")
    with pytest.raises(SettingsError, match=r"'fast' behind the @ is no context .* @stream: a state"):
        find_segmenter(f"{path}@fast")


def test_a_model_here_is_checked_without_being_run_and_tells_its_classes(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "net.pth", make(), CLASSES=("sky", "road", "car", "tree"))
    monkeypatch.setattr(VssSegmenter, "__init__", lambda *args, **options: pytest.fail("a segmenter was made"))
    assert check_segmenter(str(path)).names == check_segmenter(f"{path}@frame").names == ("sky", "road", "car", "tree")
    assert check_segmenter("segformer-nano").num_classes == 10
    with pytest.raises(SettingsError, match="only TV3S carries a state"):
        check_segmenter(f"{path}@stream")
    with pytest.raises(SettingsError, match=r"only native models .* leave out @frame"):
        check_segmenter(f"{find_segmenter('segformer-nano').path}@frame")


def test_a_hub_is_not_asked_by_a_check(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_download", lambda *args: pytest.fail("the hub was asked"))
    monkeypatch.setattr(hub, "cached_model", lambda *args: None)
    assert check_segmenter("segformer-b2") is None
    assert check_segmenter("org/name") is None
    cached = find_segmenter("segformer-nano")
    monkeypatch.setattr(hub, "cached_model", lambda *args: cached)
    assert check_segmenter("org/name").num_classes == 10


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda path: None, "there is no file .*net.pth"),
        (lambda path: path.write_bytes(save_checkpoint(path, make()).read_bytes()[:4096]), "is cut short or damaged"),
        (lambda path: path.mkdir(), "config.json is missing"),
        (lambda path: (path.mkdir(), (path / STATE_FILE).touch()), "its training is not finished"),
    ],
)
def test_what_cannot_be_loaded_does_not_pass_a_check(tmp_path, make_it, message):
    make_it(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=message):
        check_segmenter(str(tmp_path / "net.pth"))


@pytest.mark.parametrize("look", [check_segmenter, find_segmenter, load_segmenter])
def test_the_name_of_a_network_says_that_its_weights_are_a_file(look):
    with pytest.raises(WeightsError, match=r"cffm-b1 names a network, not its weights, .*VSS-CFFM. .*FILE\.pth"):
        look("cffm-b1")


def test_a_segformer_sees_single_frames_and_takes_no_clip(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make("SegFormer"))
    assert load_segmenter(str(path)).context == load_segmenter(f"{path}@frame").context == "frame"
    with pytest.raises(SettingsError, match=r"a SegFormer sees each frame by itself; leave out @clip"):
        load_segmenter(f"{path}@clip")
    with pytest.raises(SettingsError, match=r"only TV3S carries a state .* leave out @stream"):
        load_segmenter(f"{path}@stream")


def test_other_models_have_no_context(tmp_path):
    from tiny_segmenters import save_tiny

    save_tiny("segformer", tmp_path / "hub")
    with pytest.raises(SettingsError, match=r"only native models .* leave out @frame"):
        load_segmenter(f"{tmp_path / 'hub'}@frame")


def test_a_checkpoint_and_a_saved_folder_are_described(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make(), CLASSES=("sky", "road", "car", "tree"))
    found = describe_model(path)
    assert (found.family, found.num_classes, found.class_set) == ("CFFM MiT-B0", 4, "4 classes of the model")
    assert not found.problem
    assert found.parameters > 4_500_000
    assert (found.class_names, found.contexts) == (("sky", "road", "car", "tree"), ("clip", "frame"))
    save_model(tmp_path / "run", make(), default_architecture("CFFM", "b0", 4), LabelSpace.numbered(4, name="mine"))
    found = describe_model(tmp_path / "run")
    assert (found.family, found.num_classes, found.class_set, found.problem) == ("CFFM MiT-B0", 4, "mine", "")


def test_what_is_wrong_with_a_checkpoint_is_part_of_its_description(tmp_path):
    weights = make().state_dict()
    del weights["decode_head.linear_pred2.weight"]
    torch.save(weights, tmp_path / "net.pth")
    assert "1 missing: decode_head.linear_pred2.weight" in describe_model(tmp_path / "net.pth").problem


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"no segmentation model that is known .* conv1.weight"):
        load_segmenter(str(tmp_path / "resnet.pth"))


def test_a_truncated_checkpoint_and_an_lfs_pointer_are_named(tmp_path):
    path = save_checkpoint(tmp_path / "net.pth", make())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="is cut short or damaged"):
        load_segmenter(str(path))
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4321\n")
    with pytest.raises(WeightsError, match=r"Git LFS pointer, .* 4321 bytes"):
        load_segmenter(str(path))


def test_mmsegs_result_file_is_no_model(tmp_path):
    import pickle

    (tmp_path / "res.pkl").write_bytes(pickle.dumps([".efficient_test/a.npy", ".efficient_test/b.npy"]))
    with pytest.raises(WeightsError, match="holds only paths of temporary files"):
        load_segmenter(str(tmp_path / "res.pkl"))
