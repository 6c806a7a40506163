import math

import pytest
import torch
from torch import Tensor

from named_weights import assert_golden, fill_by_name, golden_clip
from sam2vss.errors import ShapeError
from sam2vss.segmenters.vss import mrcfa
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer, Stages
from sam2vss.segmenters.vss.mrcfa import (
    KEEP_RATIO,
    KEEP_RATIO_B0,
    AffinityStacks,
    CrossFrameAffinities,
    MrcfaFrame,
    MrcfaHead,
)
from sam2vss.segmenters.vss.segformer import SegformerHead, VssModel

CHANNELS = (4, 8, 12, 16)
GOLDEN = {
    "b0": (0.023052, 0.645388, (0.91837, -0.25309, 0.46486, -0.77259), (94, 3, 3, 3)),
    "b1": (-0.016213, 0.632370, (0.19297, 0.18086, 1.17746, 0.02905), (107, 12, 12, 19)),
    "b2": (-0.120233, 0.735965, (0.30510, -0.04070, 1.17914, -0.67235), (45, 50, 107, 83)),
}


def golden_logits(size: str, keep_ratio: float) -> Tensor:
    channels = MIT_SIZES[size].channels
    head = MrcfaHead(channels, 124, has_deep_stacks=size == "b1", keep_ratio=keep_ratio)
    model = fill_by_name(VssModel(MixTransformer(MIT_SIZES[size]), head))
    with torch.inference_mode():
        stages = [model.backbone(frame) for frame in golden_clip(96, 160).split(1)]
        return head.decode([head.encode(stage, head.fuse(stage)) for stage in stages])


def small_head(**options: object) -> MrcfaHead:
    return fill_by_name(MrcfaHead(CHANNELS, 5, **options))


def random_stages(height: int, width: int, count: int = 1) -> Stages:
    """Stages of frames of (height, width)."""
    draw = torch.Generator().manual_seed(count)
    strides = zip(CHANNELS, (4, 8, 16, 32), strict=True)
    return tuple(torch.randn(count, c, height // s, width // s, generator=draw) for c, s in strides)


def encode_all(head: MrcfaHead, stages: Stages) -> list[MrcfaFrame]:
    frames = [tuple(stage[i : i + 1] for stage in stages) for i in range(len(stages[0]))]
    return [head.encode(frame, head.fuse(frame)) for frame in frames]


@pytest.mark.parametrize(("size", "keep_ratio"), [("b0", KEEP_RATIO_B0), ("b1", KEEP_RATIO), ("b2", KEEP_RATIO)])
def test_logits_equal_those_of_the_published_code(size, keep_ratio):
    assert_golden(golden_logits(size, keep_ratio), *GOLDEN[size])


def test_keeping_fewer_cells_gives_other_logits():
    with pytest.raises(AssertionError):
        assert_golden(golden_logits("b0", KEEP_RATIO), *GOLDEN["b0"])


def test_affinities_resized_without_aligned_corners_give_other_logits(monkeypatch):
    resize = mrcfa.resize
    monkeypatch.setattr(mrcfa, "resize", lambda x, size, align_corners=False: resize(x, size))
    with pytest.raises(AssertionError):
        assert_golden(golden_logits("b0", KEEP_RATIO_B0), *GOLDEN["b0"])


def test_cells_are_kept_by_their_five_best_affinities():
    affinities = torch.tensor(
        [
            [9.0, 0, 0, 0, 0, -99],  # the worst does not count: 9
            [2.0, 2, 2, 2, 2, 2],  # five of the six: 10
            [0.0, 0, 0, 0, 0, 0],
            [0.0, 0, 0, 11, 0, 0],
        ]
    ).view(4, 2, 3)
    assert CrossFrameAffinities(CHANNELS, False, 0.5).select(affinities).tolist() == [1, 3]
    assert CrossFrameAffinities(CHANNELS, False, 0.8).select(affinities).tolist() == [0, 1, 3]  # int(3.2)
    assert CrossFrameAffinities(CHANNELS, False, 0.1).select(affinities).tolist() == [3]  # never none


def test_405_cells_at_480_by_864_leave_324_or_202():
    affinities = torch.randn(405, 15, 27)
    assert len(CrossFrameAffinities(CHANNELS, False, KEEP_RATIO_B0).select(affinities)) == 324
    assert len(CrossFrameAffinities(CHANNELS, False, KEEP_RATIO).select(affinities)) == 202


def spell_out_taking_over(head: MrcfaHead, earlier: Stages, last: Stages) -> Tensor:
    """What a target takes over from an earlier frame, (256, h, w), cell by cell."""
    module = head.hypercorre_module
    reduced = [earlier[3], head.sr3(earlier[2]), head.sr2(earlier[1])]
    keys = [getattr(module, f"k{3 - i}") for i in range(3)]
    queries = [getattr(module, f"q{3 - i}") for i in range(3)]
    cells = [(y, x) for y in range(earlier[3].shape[2]) for x in range(earlier[3].shape[3])]

    def affinity_map(scale: int, cell: tuple[int, int]) -> Tensor:
        key = keys[scale](reduced[scale][0, :, cell[0], cell[1]])
        stage = last[3 - scale][0]
        rows, columns = stage.shape[1:]
        return torch.tensor(
            [[float(queries[scale](stage[:, y, x]) @ key) for x in range(columns)] for y in range(rows)]
        )

    scores = {cell: sum(sorted(affinity_map(0, cell).flatten().tolist())[-5:]) for cell in cells}
    ranked = sorted(cells, key=lambda cell: -scores[cell])
    kept = ranked[: int(len(cells) * module.keep_ratio)]
    merged = [module.hpn(*(affinity_map(scale, cell)[None, None] for scale in range(3)))[0, 0] for cell in kept]
    fused = mrcfa.resize(head.fuse(earlier), earlier[1].shape[2:])
    values = [head.sr1_feat(fused)[0, :, y, x] for y, x in kept]
    rows, columns = merged[0].shape
    taken = torch.zeros(256, rows, columns)
    for y in range(rows):
        for x in range(columns):
            weights = [math.exp(float(one[y, x])) for one in merged]
            taken[:, y, x] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return taken


@pytest.mark.parametrize("is_deep", [False, True])
@torch.inference_mode()
def test_taking_over_equals_a_loop_over_cells(is_deep):
    head = small_head(has_deep_stacks=is_deep)
    stages = random_stages(64, 96, 2)
    earlier, last = (tuple(stage[i : i + 1] for stage in stages) for i in range(2))
    frames = encode_all(head, stages)
    found = head._take_over(frames[1].target, frames[0])
    torch.testing.assert_close(found[0], spell_out_taking_over(head, earlier, last))


@torch.inference_mode()
def test_shares_sum_to_one_over_the_kept_cells():
    head = small_head()
    earlier, last = encode_all(head, random_stages(64, 96, 2))
    kept, weights = head.hypercorre_module(last.target.queries, earlier.keys)
    assert (kept.tolist(), tuple(weights.shape)) == (sorted(set(kept.tolist())), (3, 8, 12))
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(8, 12))


@torch.inference_mode()
def test_the_order_of_the_earlier_frames_does_not_matter():
    head = small_head()
    a, b, c, last = encode_all(head, random_stages(64, 64, 4))
    torch.testing.assert_close(head.decode([a, b, c, last]), head.decode([c, a, b, last]))


@torch.inference_mode()
def test_frames_kept_as_references_give_the_same_logits():
    head = small_head()
    *earlier, last = encode_all(head, random_stages(64, 64, 4))
    references = [frame.as_reference() for frame in earlier]
    assert all(frame.target is None for frame in references)
    assert torch.equal(head.decode([*references, last]), head.decode([*earlier, last]))
    with pytest.raises(AssertionError, match="kept as a reference only"):
        head.decode([last, *references])


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (160, 32), (96, 64)])  # one cell, wide, portrait, odd grid
@torch.inference_mode()
def test_any_multiple_of_32_gets_logits_of_a_quarter(size):
    head = small_head()
    logits = head.decode(encode_all(head, random_stages(*size, 4)))
    assert logits.shape == (1, 5, size[0] // 4, size[1] // 4)
    assert logits.isfinite().all()


@torch.inference_mode()
def test_other_sizes_are_refused():
    head = small_head()
    sizes = ((10, 16), (5, 8), (3, 4), (2, 2))  # of a frame of 40 x 64
    stages = tuple(torch.randn(1, c, *size) for c, size in zip(CHANNELS, sizes, strict=True))
    with pytest.raises(ShapeError, match=r"10 x 16 and 2 x 2 cells .* multiples of 32"):
        head.encode(stages, head.fuse(stages))


def test_training_logits_label_all_frames_and_every_target_four_times():
    head, stages = small_head(), random_stages(64, 64, 8)
    single, refined = head.training_logits(stages, 4)
    assert (single.frames, single.weight, single.logits.shape) == (tuple(range(8)), 0.5, (8, 5, 16, 16))
    assert (refined.frames, refined.weight) == ((3, 3, 3, 3, 7, 7, 7, 7), 1.0)
    with torch.inference_mode():
        frames = encode_all(head, stages)
        torch.testing.assert_close(refined.logits[3:4], head.decode(frames[:4]))
        torch.testing.assert_close(refined.logits[7:8], head.decode(frames[4:]))
        taken = head._take_over(frames[7].target, frames[5])  # by the second of the clip's earlier frames
        torch.testing.assert_close(refined.logits[5:6], mrcfa.resize(head.deco2(taken), (16, 16)))
        torch.testing.assert_close(single.logits, head.classify(head.fuse(stages)))


@pytest.mark.parametrize("is_deep", [False, True])
def test_training_reaches_every_parameter(is_deep):
    torch.manual_seed(0)
    head = MrcfaHead(CHANNELS, 5, has_deep_stacks=is_deep).train()
    loss = sum(part.weight * part.logits.square().mean() for part in head.training_logits(random_stages(64, 64, 8), 4))
    loss.backward()
    unreached = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unreached == []


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def test_parameters_of_the_head_have_the_published_names_and_shapes():
    head = MrcfaHead((64, 128, 320, 512), 124)
    own = shapes_of(head)
    own = {name: own[name] for name in own.keys() - shapes_of(SegformerHead(CHANNELS, 124)).keys()}
    own = {name: shape for name, shape in own.items() if ".hpn." not in name}
    expected = {"sr2": (128, 128, 4, 4), "sr3": (320, 320, 2, 2), "sr1_feat": (256, 256, 4, 4)}
    expected |= {f"deco{i}.smalldecoder.1": (124, 256, 1, 1) for i in range(1, 5)}
    for kind in "qk":
        expected |= {f"hypercorre_module.{kind}{i}": (c, c) for i, c in enumerate((128, 320, 512), start=1)}
    weights = {f"{name}.weight": shape for name, shape in expected.items()}
    assert own == weights | {f"{name}.bias": shape[:1] for name, shape in expected.items()}


@pytest.mark.parametrize(
    ("is_deep", "convolutions"),
    [
        (False, {"4.0": (1, 1, 3), "3.0": (1, 1, 5), "2.0": (1, 1, 5), "4to3.0": (1, 1, 3), "3to2.0": (1, 1, 3)}),
        (
            True,
            {"4.0": (1, 1, 3), "4.3": (2, 1, 3), "3.0": (1, 1, 3), "3.3": (2, 1, 3), "2.0": (1, 1, 5), "2.3": (2, 1, 3)}
            | {"4to3.0": (2, 2, 3), "4to3.3": (2, 2, 3), "3to2.0": (2, 2, 3), "3to2.3": (1, 2, 3)},
        ),
    ],
)
def test_stacks_have_the_published_names_and_shapes(is_deep, convolutions):
    expected = {}
    for place, (channels, channels_in, kernel) in convolutions.items():
        layer, number = place.split(".")
        name = f"encoder_layer{layer}"
        expected[f"{name}.{number}.conv2.weight"] = (channels, channels_in, kernel, kernel)
        expected[f"{name}.{number}.conv2.bias"] = (channels,)
        expected |= {f"{name}.{int(number) + 1}.{part}": (channels,) for part in ("weight", "bias")}
    assert shapes_of(AffinityStacks(is_deep)) == expected
