import numpy as np
import pytest
import torch

from named_weights import fill_by_name
from sam2vss.encoders import load_encoder
from sam2vss.errors import SettingsError, ShapeError
from sam2vss.segmenters.vss import frames as vss_frames
from sam2vss.segmenters.vss.architecture import build, default_architecture


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(vss_frames, "TEST_SCALE", (96, 64))


@pytest.fixture(scope="module")
def model():
    return fill_by_name(build(default_architecture("CFFM", "b0", 3)))


@pytest.fixture
def path(tmp_path, model):
    torch.save({"state_dict": model.state_dict()}, tmp_path / "cffm.pth")
    return tmp_path / "cffm.pth"


FRAME = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def test_levels_are_the_stages_and_the_map_that_the_single_frame_head_classifies(path, model):
    encoder = load_encoder(f"segmenter:{path}/stage1+stage4+fused")
    assert encoder.channels == (32, 256, 256)
    stage1, stage4, fused = encoder.encode(FRAME)
    assert (stage1.shape, stage4.shape, fused.shape) == ((32, 16, 24), (256, 2, 3), (256, 16, 24))
    with torch.inference_mode():
        stages = model.backbone(vss_frames.network_input(FRAME)[None])
        logits = model.decode_head.classify(model.decode_head.fuse(stages))
        found = model.decode_head.linear_pred(torch.from_numpy(fused)[None])
    np.testing.assert_allclose(stage4, stages[3][0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found, logits, rtol=0, atol=1e-6)


def test_the_default_is_the_encoders_output(path):
    encoder = load_encoder(f"segmenter:{path}")
    assert encoder.name == f"segmenter:{path}/stage4"
    assert encoder.level_names == ("stage4",)


def test_fingerprints_tell_levels_and_weights(path, model, tmp_path):
    other = {**model.state_dict(), "backbone.norm4.bias": torch.ones(256)}
    torch.save({"state_dict": other}, tmp_path / "other.pth")
    names = [f"segmenter:{path}", f"segmenter:{path}/stage3", f"segmenter:{tmp_path / 'other.pth'}"]
    assert len({load_encoder(name).fingerprint for name in names}) == 3
    assert load_encoder(names[0]).fingerprint == load_encoder(names[0]).fingerprint


def test_levels_and_sizes_that_it_does_not_have_are_refused(path):
    with pytest.raises(SettingsError, match=r"has no stage5, only stage1, stage2, stage3, stage4, fused"):
        load_encoder(f"segmenter:{path}/stage5")
    with pytest.raises(SettingsError, match="has its own size: leave out @512"):
        load_encoder(f"segmenter:{path}/stage4@512")


def test_a_frame_of_another_form_is_refused(path):
    with pytest.raises(ShapeError, match=r"expected uint8 RGB \(H, W, 3\)"):
        load_encoder(f"segmenter:{path}").encode(FRAME[None])
