"""CFFM beside numbers of the published code (benchmarks/published_segmenters.py compares the two live)."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from named_weights import assert_golden, fill_by_name, golden_clip
from sam2vss.segmenters.vss import focal_attention
from sam2vss.segmenters.vss.cffm import UNUSED_KEYS, CffmFrame, CffmHead
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer
from sam2vss.segmenters.vss.segformer import HEAD_WIDTH, VssModel

GOLDEN = {  # size: depth, mean, mean abs, samples, argmax
    "b0": (1, 0.039105, 0.711312, (-1.32260, -0.78246, -0.15574, -1.18579), (92, 92, 92, 56)),
    "b1": (2, 0.156832, 0.919132, (0.71421, 0.05158, -0.14131, -0.88302), (107, 56, 21, 21)),
}
# the same with 200 times larger biases of the ring; by their names they are too small to tell one order from another
STRONG_RING_GOLDEN = (0.039165, 0.716833, (-1.34457, -0.78646, -0.14100, -1.18483), (92, 92, 92, 56))
PUBLISHED_KEYS = Path(__file__).parent / "published_keys" / "cffm_b0.txt"


@pytest.fixture(scope="module")
def b0() -> VssModel:
    return fill_by_name(cffm("b0"))


@pytest.fixture(scope="module")
def strong_ring() -> VssModel:
    model = fill_by_name(cffm("b0"))
    with torch.no_grad():
        model.decode_head.decoder_focal.blocks[0].attn.relative_position_bias_table_to_neighbors *= 200
    return model


def cffm(size: str) -> VssModel:
    channels = MIT_SIZES[size].channels
    return VssModel(MixTransformer(MIT_SIZES[size]), CffmHead(channels, 124, depth=GOLDEN[size][0]))


@torch.inference_mode()
def encode(model: VssModel, images: Tensor) -> list[CffmFrame]:
    """Encode every frame by itself."""
    head = model.decode_head
    all_stages = [model.backbone(frame) for frame in images.split(1)]
    return [head.encode(stages, head.fuse(stages)) for stages in all_stages]


@torch.inference_mode()
def golden_logits(model: VssModel) -> Tensor:
    return model.decode_head.decode(encode(model, golden_clip(96, 160)))


@pytest.mark.parametrize("size", ["b0", "b1"])
def test_logits_equal_those_of_the_published_code(size):
    assert_golden(golden_logits(fill_by_name(cffm(size))), *GOLDEN[size][1:])


def test_logits_with_strong_biases_of_the_ring_equal_those_of_the_published_code(strong_ring):
    assert_golden(golden_logits(strong_ring), *STRONG_RING_GOLDEN)


# The published numbers tell each of these mistakes from the right way. The first number is how far the logits move.


def test_numbers_show_whether_cells_beyond_the_border_are_left_out(b0, monkeypatch):
    right = golden_logits(b0)
    monkeypatch.setattr(focal_attention, "OUTSIDE", 0.0)
    assert (golden_logits(b0) - right).abs().max() > 0.3
    with pytest.raises(AssertionError):
        assert_golden(golden_logits(b0), *GOLDEN["b0"][1:])


def test_numbers_show_which_cells_are_in_the_ring(b0, monkeypatch):
    right = golden_logits(b0)
    window, moves = focal_attention.square(7), [(3, 3), (3, -3), (-3, 3), (-3, -3)]
    wrong = [window + torch.tensor(move) for move in (moves[0], moves[2], moves[1], moves[3])]
    meant = torch.cat([window + torch.tensor(move) for move in moves])
    kept = ((meant < 0) | (meant >= 7)).any(dim=1)
    monkeypatch.setattr(focal_attention, "ring_offsets", lambda: torch.cat(wrong)[kept])
    assert (golden_logits(b0) - right).abs().max() > 0.1
    with pytest.raises(AssertionError):
        assert_golden(golden_logits(b0), *GOLDEN["b0"][1:])


def test_numbers_show_in_which_order_the_ring_is_taken(strong_ring, monkeypatch):
    right, offsets = golden_logits(strong_ring), focal_attention.ring_offsets()
    monkeypatch.setattr(focal_attention, "ring_offsets", lambda: offsets.view(4, 33, 2)[[0, 2, 1, 3]].view(132, 2))
    assert (golden_logits(strong_ring) - right).abs().max() > 0.05
    with pytest.raises(AssertionError):
        assert_golden(golden_logits(strong_ring), *STRONG_RING_GOLDEN)


def test_numbers_show_whether_places_count_from_query_to_key(b0, monkeypatch):
    right, places = golden_logits(b0), focal_attention.places
    monkeypatch.setattr(focal_attention, "places", lambda side: focal_attention.num_places(side) - 1 - places(side))
    assert (golden_logits(b0) - right).abs().max() > 0.03
    with pytest.raises(AssertionError):
        assert_golden(golden_logits(b0), *GOLDEN["b0"][1:])


def test_numbers_show_whether_places_count_rows_first(b0, monkeypatch):
    right, places = golden_logits(b0), focal_attention.places

    def columns_first(side: int) -> Tensor:
        return places(side).view(7, 7, side, side).permute(1, 0, 3, 2).reshape(49, -1)

    monkeypatch.setattr(focal_attention, "places", columns_first)
    assert (golden_logits(b0) - right).abs().max() > 0.03
    with pytest.raises(AssertionError):
        assert_golden(golden_logits(b0), *GOLDEN["b0"][1:])


def test_every_key_of_a_published_checkpoint_is_used_or_named():
    lines = [line.split() for line in PUBLISHED_KEYS.read_text().splitlines()]
    published = {key: () if shape == "-" else tuple(map(int, shape.split("x"))) for key, shape in lines}
    named = {key for key in published if any(re.fullmatch(pattern, key) for pattern in UNUSED_KEYS)}
    own = {key: tuple(tensor.shape) for key, tensor in cffm("b0").state_dict().items()}
    assert own == {key: shape for key, shape in published.items() if key not in named}
    assert len(published) == 228
    assert len(named) == 8  # 2 of SegFormer, 6 tables of indices


@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96), (64, 96), (32, 32)])
@torch.inference_mode()
def test_frames_encoded_one_by_one_give_what_a_whole_clip_gives(b0, height, width):
    clip = golden_clip(height, width)
    head = b0.decode_head
    frames = encode(b0, clip)
    whole = head.training_logits(b0.backbone(clip), 4)[1].logits
    streamed = head.decode(frames)
    assert streamed.shape == (1, 124, height // 4, width // 4)
    torch.testing.assert_close(streamed, whole, rtol=0, atol=2e-5)  # measured: 5e-6


@torch.inference_mode()
def test_a_kept_frame_serves_as_target_and_as_any_reference(b0):
    video = torch.cat([golden_clip(64, 96), golden_clip(64, 96).flip(3)])
    kept = encode(b0, video)
    for picked in ([0, 2, 4, 5], [0, 3, 5, 7], [4, 5, 6, 7]):
        again = encode(b0, video[picked])
        assert torch.equal(b0.decode_head.decode([kept[i] for i in picked]), b0.decode_head.decode(again))


@torch.inference_mode()
def test_the_order_of_the_references_matters(b0):
    first, second, third, target = encode(b0, golden_clip(64, 96))
    right = b0.decode_head.decode([first, second, third, target])
    assert (b0.decode_head.decode([second, first, third, target]) - right).abs().max() > 1e-2


@torch.inference_mode()
def test_training_logits_are_those_of_all_frames_and_of_the_last_of_each_clip(b0):
    clips = torch.cat([golden_clip(64, 96), golden_clip(64, 96).flip(3)])
    head = b0.decode_head
    stages = b0.backbone(clips)
    single, refined = head.training_logits(stages, 4)
    assert (single.frames, single.weight) == ((0, 1, 2, 3, 4, 5, 6, 7), 0.5)
    assert (refined.frames, refined.weight) == ((3, 7), 1.0)
    torch.testing.assert_close(single.logits, head.classify(head.fuse(stages)))
    for row, images in enumerate(clips.split(4)):
        one = head.decode(encode(b0, images))
        torch.testing.assert_close(refined.logits[row : row + 1], one, rtol=0, atol=2e-5)


def test_the_refined_logits_teach_every_part_of_the_head_but_the_plain_classifier():
    head = CffmHead((4, 4, 4, 4), num_classes=3, depth=1)
    stages = tuple(torch.randn(4, 4, 16 // 2**i, 32 // 2**i) for i in range(4))
    head.training_logits(stages, 4)[1].logits.square().mean().backward()
    untaught = {name for name, value in head.named_parameters() if value.grad is None or not value.grad.any()}
    assert untaught == {"linear_pred.weight", "linear_pred.bias"}


@torch.inference_mode()
def test_precision_follows_the_weights():
    head = fill_by_name(CffmHead((4, 4, 4, 4), num_classes=3, depth=1))
    frames = [CffmFrame(torch.randn(1, HEAD_WIDTH, 9, 8), (18, 16)) for _ in range(4)]
    single = head.decode(frames)
    double = head.double().decode([CffmFrame(frame.fused.double(), frame.grid) for frame in frames])
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    half = head.bfloat16().decode([CffmFrame(frame.fused.bfloat16(), frame.grid) for frame in frames])
    assert half.dtype == torch.bfloat16
    assert (half - single).abs().max() < 0.1
