import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sam2vss.errors import WeightsError
from sam2vss.sam2.model import PIXEL_MEAN, PIXEL_STD, FrameFeatures, Sam2Network
from sam2vss.sam2.propagate import MemoryPropagator
from tiny_sam2 import first_masks, moving_frames, tiny_network


def noise(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def attend(
    network: Sam2Network, slots: list[int], spatial_ages: list[int], pointer_ages: list[int], rows: slice = slice(0, 3)
) -> Tensor:
    """Attend with three objects to some of four spatial memories and pointers made of noise."""
    spatial, pointers = noise(1, 3, 4, 64, 64)[rows][:, slots], noise(2, 3, 4, 128)[rows][:, slots]
    with torch.inference_mode():
        return network.attend(noise(3, 1, 128, 8, 8), spatial, spatial_ages, pointers, pointer_ages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network as transformers saves it."""
    path = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_network(64).model.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_pixels_of_the_models_own_size_are_scaled_and_normalised_only(network: Sam2Network):
    frame = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    frame[0, 5, 7] = torch.tensor([255, 51, 0], dtype=torch.uint8)

    pixels = network.pixels(frame)

    assert pixels.shape == (1, 3, 128, 128)
    for channel, value in enumerate([1.0, 0.2, 0.0]):
        assert pixels[0, channel, 5, 7] == pytest.approx((value - PIXEL_MEAN[channel]) / PIXEL_STD[channel], abs=1e-6)


def test_resized_pixels_are_antialiased_and_not_rounded_to_whole_levels(network: Sam2Network):
    frame = torch.full((1, 128, 256, 3), 10, dtype=torch.uint8)
    frame[:, :, 1::2] = 11  # columns of 10 and 11, shrunk to half: 10.5 everywhere but at the ends

    pixels = network.pixels(frame)

    inner = pixels[0, 0, :, 2:-2] * PIXEL_STD[0] + PIXEL_MEAN[0]
    torch.testing.assert_close(inner * 255, torch.full_like(inner, 10.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(480, 853), (853, 480), (31, 77), (1, 1)])
def test_pictures_of_any_shape_become_the_square(size: tuple[int, int], network: Sam2Network):
    assert network.pixels(torch.zeros(2, *size, 3, dtype=torch.uint8)).shape == (2, 3, 128, 128)


def test_encoding_several_frames_equals_encoding_each(network: Sam2Network, frames: np.ndarray):
    pixels = network.pixels(torch.from_numpy(frames[:3]))

    with torch.inference_mode():
        together, alone = network.encode(pixels), network.encode(pixels[1:2])

    assert (together.high.shape, together.mid.shape) == ((3, 16, 32, 32), (3, 32, 16, 16))
    assert together.low.shape == (3, 128, 8, 8)
    for name in ("high", "mid", "low"):
        torch.testing.assert_close(getattr(together[1:2], name), getattr(alone, name), atol=1e-4, rtol=1e-4)


def test_a_click_is_the_fourier_code_of_its_pixel_centre_and_a_token_for_no_second_click(network: Sam2Network):
    encoder = network.model.prompt_encoder
    basis = encoder.shared_embedding.positional_embedding

    with torch.inference_mode():
        tokens = network.embed_points(torch.tensor([[10.0, 20.0], [127.0, 0.0]]))

    for row, (x, y) in enumerate([(10.5, 20.5), (127.5, 0.5)]):
        angle = 2 * math.pi * ((2 * x / 128 - 1) * basis[0] + (2 * y / 128 - 1) * basis[1])
        expected = torch.cat([angle.sin(), angle.cos()]) + encoder.point_embed.weight[1]
        torch.testing.assert_close(tokens[row, 0], expected, atol=1e-4, rtol=0)
        assert torch.equal(tokens[row, 1], encoder.not_a_point_embed.weight[0])


def test_no_points_are_two_tokens_that_say_so(network: Sam2Network):
    tokens = network.no_points(3)

    assert tokens.shape == (3, 2, 128)
    assert (tokens == network.model.prompt_encoder.not_a_point_embed.weight).all()


def test_decoding_many_prompts_equals_decoding_each(network: Sam2Network, features: list[FrameFeatures]):
    sparse = noise(0, 5, 2, 128)
    low = features[0].low + noise(1, 5, 128, 8, 8)

    with torch.inference_mode():
        together = network.decode(low, features[0], sparse, network.no_mask())
        for row in range(5):
            alone = network.decode(low[row : row + 1], features[0], sparse[row : row + 1], network.no_mask())
            for name in ("logits", "iou", "tokens", "object_score"):
                found, expected = getattr(together, name)[row], getattr(alone, name)[0]
                torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)

    assert (together.logits.shape, together.iou.shape) == ((5, 4, 32, 32), (5, 4))
    assert (together.tokens.shape, together.object_score.shape) == ((5, 4, 128), (5,))
    assert (together.logits[0] - together.logits[1]).abs().mean() > 0.1  # else the comparison says nothing
    assert ((together.iou > 0) & (together.iou < 1)).all()


def test_features_without_memory_carry_the_embedding_that_says_so(network: Sam2Network, features: list[FrameFeatures]):
    added = network.without_memory(features[0].low) - features[0].low

    embedding = network.model.no_memory_embedding[0, 0]
    torch.testing.assert_close(added, embedding[None, :, None, None].expand_as(added), atol=1e-5, rtol=0)
    assert embedding.abs().mean() > 0.1


def test_absent_objects_get_the_no_object_pointer_and_present_ones_their_tokens(network: Sam2Network):
    tokens = noise(0, 3, 128)

    with torch.inference_mode():
        pointers = network.object_pointer(tokens, torch.tensor([True, False, True]))

        assert torch.equal(pointers[1:2], network.model.no_object_pointer)
        torch.testing.assert_close(pointers[::2], network.model.object_pointer_proj(tokens[::2]))


def test_a_prompted_mask_is_written_as_yes_or_no_and_a_tracked_one_softly(
    network: Sam2Network, features: list[FrameFeatures]
):
    weak, strong = torch.full((1, 32, 32), 0.5), torch.full((1, 32, 32), 50.0)
    score = torch.ones(1)

    def written(logits: Tensor, binarise: bool) -> Tensor:
        with torch.inference_mode():
            return network.write_memory(features[0].low, logits, score, binarise)

    assert written(weak, True).shape == (1, 64, 64)
    assert torch.equal(written(weak, True), written(strong, True))
    assert torch.equal(written(strong, False), written(strong, True))  # sigmoid(50) is 1
    assert (written(weak, False) - written(strong, False)).abs().max() > 0.01
    assert torch.equal(written(torch.zeros(1, 32, 32), True), written(-strong, True))  # 0 is outside


def test_a_memory_without_the_object_carries_the_occlusion_embedding(
    network: Sam2Network, features: list[FrameFeatures]
):
    logits = noise(0, 3, 32, 32)

    with torch.inference_mode():
        there = network.write_memory(features[0].low, logits, torch.tensor([0.1, 0.1, 0.1]), binarise=False)
        mixed = network.write_memory(features[0].low, logits, torch.tensor([0.1, 0.0, -3.0]), binarise=False)

    added = mixed - there
    assert (added[0] == 0).all()
    expected = network.model.occlusion_spatial_embedding_parameter.expand(2, 64, 64)
    torch.testing.assert_close(added[1:], expected, atol=1e-5, rtol=0)  # a score of exactly 0 is absent, too


def test_memory_attention_of_many_objects_equals_that_of_each(network: Sam2Network):
    together = attend(network, [0, 1, 2, 3], [0, 3, 1, 2], [9, 3, 1, 2])

    assert together.shape == (3, 128, 8, 8)
    for row in range(3):
        alone = attend(network, [0, 1, 2, 3], [0, 3, 1, 2], [9, 3, 1, 2], slice(row, row + 1))
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().mean() > 0.05


def test_memory_attention_does_not_depend_on_the_order_of_the_memories(network: Sam2Network):
    found = attend(network, [2, 0, 3, 1], [1, 0, 2, 3], [1, 9, 2, 3])

    torch.testing.assert_close(found, attend(network, [0, 1, 2, 3], [0, 3, 1, 2], [9, 3, 1, 2]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("spatial_ages", "pointer_ages"),
    [([0, 3, 1, 4], [9, 3, 1, 2]), ([5, 3, 1, 2], [9, 3, 1, 2]), ([0, 3, 1, 2], [8, 3, 1, 2])],
)
def test_every_age_makes_a_difference(spatial_ages: list[int], pointer_ages: list[int], network: Sam2Network):
    base = attend(network, [0, 1, 2, 3], [0, 3, 1, 2], [9, 3, 1, 2])

    assert (attend(network, [0, 1, 2, 3], spatial_ages, pointer_ages) - base).abs().max() > 1e-3


def test_the_conditioning_memory_uses_the_last_age_embedding_and_the_newest_the_first():
    network = tiny_network()
    with torch.no_grad():
        network.model.memory_temporal_positional_encoding[1:6] = torch.nan  # ages 2..6

    assert attend(network, [0, 1], [0, 1], [2, 1]).isfinite().all()
    assert attend(network, [0, 1], [0, 2], [2, 1]).isnan().any()


def test_networks_without_pointer_ages_ignore_them():
    network = tiny_network()
    network.model.config.enable_temporal_pos_encoding_for_object_pointers = False  # SAM 2.0

    assert torch.equal(attend(network, [0, 1], [0, 1], [2, 1]), attend(network, [0, 1], [0, 1], [9, 5]))


def test_networks_without_an_occlusion_embedding_write_memories_too(features: list[FrameFeatures]):
    network = tiny_network()
    network.model.occlusion_spatial_embedding_parameter = None  # SAM 2.0

    with torch.inference_mode():
        memory = network.write_memory(features[0].low, noise(0, 2, 32, 32), torch.tensor([1.0, -1.0]), binarise=False)

    assert memory.isfinite().all()


def test_setting_another_size_equals_building_the_network_for_it():
    resized, built = tiny_network(128), tiny_network(96)
    resized.set_image_size(96)
    frames = torch.from_numpy(moving_frames(3))

    results = []
    for network in (resized, built):
        with torch.inference_mode():
            features = network.encode(network.pixels(frames))
            click = network.embed_points(torch.tensor([[30.0, 40.0]]))
        propagator = MemoryPropagator(network)
        propagator.start(features[:1], first_masks()[:2])
        results.append(
            (features.low, click, propagator.step(features[1:2]).logits, propagator.step(features[2:]).logits)
        )

    assert resized.mask_size == built.mask_size == 24
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)


def test_a_saved_network_loads_to_the_same_weights(folder: Path):
    loaded = Sam2Network.from_folder(folder)

    assert not loaded.training
    expected = tiny_network(64).model.state_dict()
    found = loaded.model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (loaded.image_size, loaded.hidden_size, loaded.memory_size) == (64, 128, 64)
    assert (loaded.num_memories, loaded.num_pointers) == (7, 16)


def test_a_network_loads_in_the_asked_precision(folder: Path):
    loaded = Sam2Network.from_folder(folder, dtype=torch.bfloat16)

    assert loaded.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_missing_weights_are_named(copy: Path):
    weights = load_file(copy / "model.safetensors")
    weights.pop("memory_attention.layer_norm.weight")
    weights.pop("memory_encoder.projection.bias")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(WeightsError, match=r"lacks 2 weights .*first: memory_attention\.layer_norm\.weight"):
        Sam2Network.from_folder(copy)


def test_weights_of_another_shape_are_an_error(copy: Path):
    weights = load_file(copy / "model.safetensors")
    weights["memory_attention.layer_norm.weight"] = torch.ones(64)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(WeightsError, match="copy cannot be loaded as a SAM 2 video model"):
        Sam2Network.from_folder(copy)


def test_a_truncated_file_is_an_error(copy: Path):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(WeightsError, match=r"copy cannot be loaded as a SAM 2 video model: .*incomplete"):
        Sam2Network.from_folder(copy)


def test_a_folder_without_weights_is_an_error(copy: Path):
    (copy / "model.safetensors").unlink()

    with pytest.raises(WeightsError, match=r"no file named model\.safetensors"):
        Sam2Network.from_folder(copy)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"architectures": []}'])
def test_a_folder_without_a_usable_configuration_is_an_error(content: str | None, copy: Path):
    (copy / "config.json").unlink()
    if content is not None:
        (copy / "config.json").write_text(content, encoding="utf-8")

    with pytest.raises(WeightsError, match=r"holds no config\.json that names a model type .*expected a folder with"):
        Sam2Network.from_folder(copy)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere holds no config\.json .*No such file"):
        Sam2Network.from_folder(tmp_path / "nowhere")


def test_another_kind_of_model_is_named_and_refused(copy: Path):
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "segformer"}), encoding="utf-8")

    with pytest.raises(WeightsError, match="holds a model of type segformer, expected sam2_video"):
        Sam2Network.from_folder(copy)
