"""SAM 2's encoder: the very features of the tracker; stages; sizes; what a fingerprint tells."""

import numpy as np
import pytest
import torch

from sam2vss.encoders import load_encoder
from sam2vss.encoders.names import parse_name
from sam2vss.encoders.sam2_encoder import Sam2Encoder
from sam2vss.errors import SettingsError, ShapeError, WeightsError
from sam2vss.sam2.ahead import encode_ahead
from sam2vss.sam2.loading import find_sam2, load_sam2
from tiny_backbones import smooth_frame
from tiny_sam2 import tiny_network


def made_of(network, text) -> Sam2Encoder:
    return Sam2Encoder(network, find_sam2("nano"), parse_name(text))


@pytest.fixture(scope="module")
def network():
    return tiny_network()


def test_the_level_low_is_what_the_tracker_sees():
    encoder, frame = load_encoder("sam2:nano"), smooth_frame(48, 90)
    assert encoder.name == "sam2:nano/low"
    assert encoder.level_names == ("low",)
    (features,) = encode_ahead(load_sam2(find_sam2("nano"), device="cpu"), frame[None])
    (low,) = encoder.encode(frame)
    assert low.dtype == np.float32
    assert low.shape == (*encoder.channels, 24, 24) == (128, 24, 24)
    assert np.array_equal(low, features.low[0].numpy())


@pytest.mark.parametrize("size", [(24, 36), (97, 31), (1, 1)])
def test_levels_are_those_of_the_pyramid_and_the_trunk_in_the_order_asked_for(network, size):
    frame = smooth_frame(*size)
    encoder = made_of(network, "sam2:nano/stage4+low+high+stage1+mid")
    found = encoder.encode(frame)
    with torch.inference_mode():
        pixels = network.pixels(torch.from_numpy(frame)[None])
        high, mid, low = network.pyramid(pixels)
        trunk = network.model.vision_encoder.backbone(pixels).intermediate_hidden_states
    expected = [trunk[3].permute(0, 3, 1, 2), low, high, trunk[0].permute(0, 3, 1, 2), mid]
    assert [part.shape for part in found] == [(128, 4, 4), (128, 8, 8), (128, 32, 32), (16, 32, 32), (128, 16, 16)]
    assert encoder.channels == tuple(len(part) for part in found)
    for part, reference in zip(found, expected, strict=True):
        assert np.array_equal(part, reference[0].numpy())


def test_a_size_is_taken_and_one_that_does_not_fit_is_refused():
    encoder = load_encoder("sam2:nano/low@192x128")
    assert encoder.name == "sam2:nano/low@192x128"
    assert encoder.encode(smooth_frame(20, 30))[0].shape == (128, 8, 12)
    with pytest.raises(SettingsError, match="each side must be a multiple of 32"):
        load_encoder("sam2:nano/low@100")


def test_fingerprints_tell_levels_sizes_and_weights_but_not_how_they_were_asked_for(network, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = find_sam2("nano").path
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    weights = load_file(changed / "model.safetensors")
    weights["no_memory_embedding"] += 1
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    same = {load_encoder(text).fingerprint for text in ("sam2:nano", "sam2:sam2-nano/low", "sam2:nano/low@384")}
    assert same == {load_encoder(f"sam2:{folder}").fingerprint}
    others = ["sam2:nano/mid", "sam2:nano/low+mid", "sam2:nano/mid+low", "sam2:nano/low@128", f"sam2:{changed}"]
    assert len(same | {load_encoder(text).fingerprint for text in others}) == 6


def test_a_network_without_stages_says_what_it_has(network, monkeypatch):
    monkeypatch.setattr(type(network), "stage_channels", ())
    with pytest.raises(SettingsError, match="this network has no stage1, only high, mid, low"):
        made_of(network, "sam2:nano/low+stage1")


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_anything_but_a_frame_is_refused(network, frame):
    with pytest.raises(ShapeError, match=r"the frame is .*, expected uint8 RGB \(H, W, 3\)"):
        made_of(network, "sam2:nano").encode(frame)


def test_a_frame_may_be_read_only(network):
    frame = smooth_frame(20, 30)
    frame.flags.writeable = False
    assert made_of(network, "sam2:nano").encode(frame)[0].shape == (128, 8, 8)


def test_features_that_are_not_finite_are_an_error():
    network = tiny_network()
    with torch.no_grad():
        network.model.vision_encoder.neck.convs[0].bias.fill_(float("nan"))
        network.model.vision_encoder.neck.convs[1].bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="sam2:nano/low gave features that are not finite numbers"):
        made_of(network, "sam2:nano").encode(smooth_frame(20, 30))


def test_bfloat16_features_are_close_to_those_of_float32():
    frame = smooth_frame(48, 64)
    (exact,), (rough,) = (
        load_encoder("sam2:nano/low@128", dtype=dtype).encode(frame) for dtype in ("auto", "bfloat16")
    )
    assert rough.dtype == np.float32
    assert np.abs(rough - exact).mean() < 0.05 * np.abs(exact).mean()
