import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sam2vss.errors import SettingsError
from sam2vss.sam2.model import PIXEL_MEAN, PIXEL_STD, Decoded, FrameFeatures, Sam2Network
from sam2vss.sam2.positions import grid_positions
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


def test_pixels_of_the_models_own_size_are_scaled_and_normalised_only(network: Sam2Network):
    frame = torch.zeros(1, 128, 128, 3, dtype=torch.uint8)
    frame[0, 5, 7] = torch.tensor([255, 51, 0], dtype=torch.uint8)

    pixels = network.pixels(frame)

    assert pixels.shape == (1, 3, 128, 128)
    for channel, value in enumerate([1.0, 0.2, 0.0]):
        assert pixels[0, channel, 5, 7] == pytest.approx((value - PIXEL_MEAN[channel]) / PIXEL_STD[channel], abs=1e-6)


def test_pictures_for_sam_3_are_scaled_to_between_minus_one_and_one(monkeypatch: pytest.MonkeyPatch):
    model = tiny_network(64).model
    monkeypatch.setattr(model.config, "model_type", "sam3_tracker_video")
    frame = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    frame[0, 5, 7] = torch.tensor([255, 51, 0], dtype=torch.uint8)

    pixels = Sam2Network(model).pixels(frame)

    torch.testing.assert_close(pixels[0, :, 5, 7], torch.tensor([1.0, -0.6, -1.0]))


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


def test_a_prompt_pixel_that_is_half_inside_counts_as_inside(network: Sam2Network):
    masks = torch.zeros(2, 256, 256, dtype=torch.bool)
    masks[0, :, 129:] = (
        True  # halving weighs four columns by 1, 3, 3 and 1 eighths; of 127..130 the last two are inside
    )
    masks[1, :, 130] = True  # of 129..132 only one

    prompt, _ = network.prompt_masks(masks)

    assert (prompt[0, 64].sum(), prompt[0, 64, 63:65].tolist()) == (64, [0, 1])
    assert not prompt[1].any()


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


def decoded_parts(decoded: Decoded) -> list[Tensor]:
    return [decoded.logits, decoded.iou, decoded.tokens, decoded.object_score]


def test_sharing_the_image_over_prompts_gives_the_bits_of_expanding_it_first(
    network: Sam2Network, features: list[FrameFeatures]
):
    low, points = network.without_memory(features[0].low), torch.rand(33, 2) * 128

    with torch.inference_mode():
        tokens = network.embed_points(points)
        shared = network.decode(low, features[0], tokens, network.no_mask())
        expanded = network.decode(low.expand(33, -1, -1, -1), features[0], tokens, network.no_mask())

    for found, expected in zip(decoded_parts(shared), decoded_parts(expanded), strict=True):
        assert torch.equal(found, expected)


SHAPES = [(128, 128), (64, 128), (128, 64)]


def network_of(size: tuple[int, int]) -> Sam2Network:
    network = tiny_network(128)
    network.set_image_size(size)
    return network


@pytest.mark.parametrize("size", SHAPES)
def test_the_mask_decoder_equals_that_of_transformers(size: tuple[int, int]):
    network, points = network_of(size), torch.rand(5, 2) * 64
    with torch.inference_mode():
        features = network.encode(network.pixels(torch.from_numpy(moving_frames(1))))
        low, tokens = network.without_memory(features.low), network.embed_points(points)
        found = network.decode(low, features, tokens, network.no_mask())

        logits, iou, sam_tokens, score = network.model.mask_decoder(
            image_embeddings=low,
            image_positional_embeddings=network.model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=tokens[None],
            dense_prompt_embeddings=network.no_mask().expand(1, -1, *network.grid_size),
            multimask_output=True,
            high_resolution_features=[features.high, features.mid],
        )

    assert torch.equal(found.logits[:, 1:], logits[0])
    assert torch.equal(found.iou[:, 1:], iou[0])
    assert torch.equal(found.tokens[:, 1:], sam_tokens[0])
    assert torch.equal(found.object_score, score[0, :, 0])


@pytest.mark.parametrize("size", SHAPES)
def test_looking_around_once_for_all_objects_equals_transformers_memory_attention(size: tuple[int, int]):
    network = network_of(size)
    height, width = network.grid_size
    cells = height * width
    spatial, pointers, low = noise(1, 3, 2, cells, 64), noise(2, 3, 2, 128), noise(3, 1, 128, height, width)
    with torch.inference_mode():
        found = network.attend(low, spatial, [0, 1], pointers, [5, 1])

        sine = network.model.memory_encoder.position_encoding(torch.Size((1, 64, height, width)), "cpu", torch.float32)
        ages = network.model.memory_temporal_positional_encoding[[-1, 0], 0]  # (2, 1, 64), for ages 0 and 1
        positions = (sine.flatten(2).transpose(1, 2) + ages).flatten(0, 1)
        positions = torch.cat([positions, network._pointer_positions([5, 1]).repeat_interleave(2, dim=0)])
        memory = torch.cat([spatial.flatten(1, 2), pointers.reshape(3, -1, 64)], dim=1)
        sine = network.model.vision_encoder.neck.position_encoding(torch.Size((3, *low.shape[1:])), "cpu", low.dtype)
        expected = network.model.memory_attention(
            current_vision_features=low.flatten(2).permute(2, 0, 1).expand(-1, 3, -1),
            current_vision_position_embeddings=sine.flatten(2).permute(2, 0, 1),
            memory=memory.transpose(0, 1),
            memory_posision_embeddings=positions[:, None].expand(-1, 3, -1),
            num_object_pointer_tokens=4,
        )

    assert torch.equal(found, expected.reshape(3, cells, 128).transpose(1, 2).reshape(3, 128, height, width))


def test_the_form_for_compilers_rotates_as_the_complex_one(network: Sam2Network, monkeypatch: pytest.MonkeyPatch):
    rope = network._positions((8, 8)).rope
    tokens = noise(0, 2, 1, 2 * 64 + 3, 128)
    expected = rope.rotate(tokens, num_unplaced=3)

    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

    torch.testing.assert_close(rope.rotate(tokens, num_unplaced=3), expected, atol=1e-6, rtol=0)
    assert torch.equal(expected[:, :, -3:], tokens[:, :, -3:])
    assert (expected[:, :, 1:64] - tokens[:, :, 1:64]).abs().mean() > 0.1


def test_tables_made_while_tracking_serve_training_too():
    network = tiny_network(64)
    with torch.inference_mode():
        features = network.encode(torch.zeros(1, 3, 64, 64))
        network.decode(features.low, features, network.no_points(2), network.no_mask())
        network.attend(features.low, noise(0, 2, 1, 16, 64), [0], noise(1, 2, 1, 128), [1])

    features = network.encode(torch.zeros(1, 3, 64, 64))
    low = network.attend(features.low, noise(0, 2, 1, 16, 64), [0], noise(1, 2, 1, 128), [1])
    network.decode(low, features, network.no_points(2), network.no_mask()).logits.sum().backward()

    assert network.model.memory_attention.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert network.model.vision_encoder.neck.convs[0].weight.grad.abs().sum() > 0


def test_other_weights_get_other_tables():
    network = tiny_network(64)
    before = network._positions((4, 4)).image.clone()

    state = network.model.state_dict()
    network.model.load_state_dict(
        {name: tensor + 0.1 * ("positional_embedding" in name) for name, tensor in state.items()}
    )

    assert (network._positions((4, 4)).image - before).abs().max() > 0.01


def test_points_and_boxes_are_embedded_as_by_transformers(network: Sam2Network):
    points = torch.rand(4, 3, 2) * 128
    labels = torch.tensor([2, 3, 1], dtype=torch.int).expand(1, 4, 3)

    with torch.inference_mode():
        found = network.embed_points(points, labels=(2, 3, 1))
        expected = network.model.prompt_encoder._embed_points(points[None], labels, pad=True)[0]

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 128), (128, 64)])
def test_oblong_pictures_run_through_all_parts(size: tuple[int, int]):
    network = tiny_network(128)
    network.set_image_size(size)
    frames = torch.from_numpy(moving_frames(3, (70, 140)))
    masks = first_masks((70, 140))

    with torch.inference_mode():
        features = network.encode(network.pixels(frames))
        decoded = network.decode(
            features.low[:1], features[:1], network.embed_points(torch.tensor([[3.0, 4.0]])), network.no_mask()
        )
    propagator = MemoryPropagator(network, chunk=3)
    first = propagator.start(features[:1], masks)
    last = [propagator.step(features[time : time + 1]) for time in (1, 2)][-1]

    assert (network.input_size, network.grid_size) == (size, (size[0] // 16, size[1] // 16))
    assert network.logit_size == (size[0] // 4, size[1] // 4)
    assert features.low.shape[-2:] == network.grid_size
    assert decoded.logits.shape[-2:] == first.logits.shape[-2:] == last.logits.shape[-2:] == network.logit_size
    assert (first.logits[2, : size[0] // 16] > 0).all()  # the band along the top, 25 of 70 rows
    assert (last.logits[0] - last.logits[1]).abs().mean() > 0.01
    theirs = network.model.memory_attention.position_ids  # what transformers' own code would use
    assert torch.equal(theirs, grid_positions(network.grid_size, theirs.device))


def test_a_cell_of_an_oblong_picture_is_placed_by_its_own_row_and_column(network: Sam2Network):
    wide = network._positions((4, 8))
    basis = network.model.shared_image_embedding.positional_embedding
    row, column = 1, 5

    angle = 2 * math.pi * ((2 * 5.5 / 8 - 1) * basis[0] + (2 * 1.5 / 4 - 1) * basis[1])
    expected = torch.cat([angle.sin(), angle.cos()])
    torch.testing.assert_close(wide.image[0, row * 8 + column], expected, atol=1e-4, rtol=0)
    inverse = network.model.memory_attention.rotary_emb.inv_freq
    expected = torch.cat([(column * inverse).cos(), (row * inverse).cos()])
    torch.testing.assert_close(wide.rope.cos[row * 8 + column], expected, atol=1e-5, rtol=0)


def test_points_of_an_oblong_picture_are_measured_by_its_own_sides():
    square, oblong = tiny_network(128), tiny_network(128)
    oblong.set_image_size((64, 128))

    with torch.inference_mode():  # the same place: the centre of pixel 9 of 64 is that of 18.5 of 128
        found = oblong.embed_points(torch.tensor([[40.0, 9.0]]))
        expected = square.embed_points(torch.tensor([[40.0, 18.5]]))

    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    scaled = oblong.to_model_pixels(torch.tensor([[320.0, 240.0], [0.0, 48.0]]), (480, 640))
    torch.testing.assert_close(scaled, torch.tensor([[64.0, 32.0], [0.0, 6.4]]))


def test_only_squares_have_one_side():
    network = tiny_network(64)
    assert (network.image_size, network.mask_size) == (64, 16)
    network.set_image_size((64, 96))

    with pytest.raises(AssertionError, match="ask for input_size"):
        _ = network.image_size
    with pytest.raises(AssertionError, match="ask for logit_size"):
        _ = network.mask_size


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (100, r"image size 100 does not fit .*multiple of 32\. The nearest that fits is 96"),
        ((64, 100), r"64 x 100 \(height x width\) does not fit .*nearest that fits is 64 x 96"),
        (0, "image size 0 does not fit .*nearest that fits is 32"),
        (-32, "image size -32 does not fit"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_and_change_nothing(size: int | tuple[int, int], message: str):
    network = tiny_network(64)

    with pytest.raises(SettingsError, match=message):
        network.set_image_size(size)

    assert network.input_size == (64, 64)


def test_networks_with_other_strides_follow_objects_on_their_own_grid():
    """SAM 3's tracker has 14 pixels a cell: 72 x 72 cells at 1008 pixels. Here 4 x 4 cells at 56, encoder left out."""
    from transformers import Sam3ViTConfig

    network = tiny_network(64)
    network.stride, network.input_size = 14, (56, 56)
    shapes = [(1, 16, 16, 16), (1, 32, 8, 8), (1, 128, 4, 4)]
    frame = FrameFeatures(*(noise(row, *shape) for row, shape in enumerate(shapes)))

    propagator = MemoryPropagator(network)
    first = propagator.start(frame, first_masks())
    second = propagator.step(frame)

    assert (network.grid_size, network.logit_size) == ((4, 4), (16, 16))
    assert first.logits.shape == second.logits.shape == (4, 16, 16)
    network.model.config.vision_config.backbone_config = Sam3ViTConfig()
    with pytest.raises(SettingsError, match="its encoder works at 64 pixels only"):
        network.set_image_size(112)
