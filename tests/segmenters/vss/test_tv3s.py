import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from named_weights import assert_golden, fill_by_name, golden_clip
from sam2vss.errors import ShapeError
from sam2vss.segmenters.vss import tv3s
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer
from sam2vss.segmenters.vss.segformer import HEAD_WIDTH, SegformerHead, VssModel
from sam2vss.segmenters.vss.tv3s import Tv3sFrame, Tv3sHead, Tv3sState, WindowedMamba, group_windows, window_grid

CHANNELS = (4, 8, 12, 16)
CLIP = (0.001669, 0.668869, (-1.30033, 2.48956, 1.74632, -0.72441), (103, 103, 17, 63))
STREAM_0 = (-0.066937, 0.648411, (0.32151, 0.63428, 0.91458, -0.61796), (74, 94, 51, 61))
STREAM_1 = (-0.028920, 0.697031, (0.85198, 2.47754, 1.78000, 0.71953), (35, 37, 117, 94))


@pytest.fixture(scope="module")
def golden() -> tuple[Tv3sHead, list[Tv3sFrame]]:
    """The head with MiT-B1 and the four frames of the golden clip; grid 40 x 40."""
    model = fill_by_name(VssModel(MixTransformer(MIT_SIZES["b1"]), Tv3sHead(MIT_SIZES["b1"].channels, 124)))
    head, frames = model.decode_head, []
    with torch.inference_mode():
        for frame in golden_clip(192, 256).split(1):
            stages = model.backbone(frame)
            frames.append(head.encode(stages, head.fuse(stages)))
    return head, frames


@pytest.fixture
def shallow(monkeypatch) -> Tv3sHead:
    """A head with two layers, one of each kind."""
    monkeypatch.setattr(tv3s, "NUM_LAYERS", 2)
    return fill_by_name(Tv3sHead(CHANNELS, 5))


def random_frames(head: Tv3sHead, size: tuple[int, int], count: int) -> list[Tv3sFrame]:
    draw = torch.Generator().manual_seed(count)
    maps = torch.randn(count, HEAD_WIDTH, *size, generator=draw)
    return [head.encode((), fused[None]) for fused in maps]


@torch.inference_mode()
def test_a_clip_gives_the_logits_of_the_published_code(golden):
    head, frames = golden
    assert_golden(head.decode(frames), *CLIP)


@torch.inference_mode()
def test_a_stream_gives_the_logits_of_the_published_code(golden):
    head, frames = golden
    logits, state = head.step(frames[0], None)
    assert_golden(logits, *STREAM_0)
    logits, _ = head.step(frames[1], state)
    assert_golden(logits, *STREAM_1)


@torch.inference_mode()
def test_windows_that_stay_in_place_give_other_logits(golden, monkeypatch):
    head, frames = golden
    monkeypatch.setattr(tv3s, "SHIFT", 0)
    with pytest.raises(AssertionError):
        assert_golden(head.step(frames[0], None)[0], *STREAM_0)


@pytest.mark.parametrize("forgotten", ["recent", "hidden"])
@torch.inference_mode()
def test_a_stream_that_forgets_half_of_its_state_gives_other_logits(golden, forgotten):
    head, frames = golden
    _, state = head.step(frames[0], None)
    layers = tuple(
        tuple(replace(part, **{forgotten: torch.zeros_like(getattr(part, forgotten))}) for part in layer)
        for layer in state.layers
    )
    with pytest.raises(AssertionError):
        assert_golden(head.step(frames[1], Tv3sState(state.grid, layers))[0], *STREAM_1)


def spell_out_layers(vs: WindowedMamba, maps: Tensor) -> Tensor:
    """Refine the last of the maps (T, 256, 20, 40), window by window, each layer with its borders written out."""
    tokens = maps.permute(0, 2, 3, 1).clone()  # (T, h, w, 256)
    borders = [([0, 20], [0, 20, 40]), ([0, 10, 20], [0, 10, 30, 40])]
    for layer, (rows, columns) in zip(vs.layers, borders, strict=True):
        for top, bottom in itertools.pairwise(rows):
            for left, right in itertools.pairwise(columns):
                window = tokens[:, top:bottom, left:right]
                sequence = torch.stack([cell for frame in window for row in frame for cell in row])
                tokens[:, top:bottom, left:right] = layer(sequence[None], None)[0].view(window.shape)
    return vs.norm_f(tokens[-1]).permute(2, 0, 1)


@torch.inference_mode()
def test_layers_equal_a_loop_over_windows(shallow):
    maps = torch.randn(2, HEAD_WIDTH, 20, 40)
    refined, _ = shallow.vs(maps[None], None)
    torch.testing.assert_close(refined[0], spell_out_layers(shallow.vs, maps))


@torch.inference_mode()
def test_a_stream_equals_reading_the_frames_at_once(shallow):
    frames = random_frames(shallow, (40, 40), 3)
    state, refined = None, None
    for frame in frames:
        refined, state = shallow.step(frame, state)
    at_once, states = shallow.vs(torch.stack([frame.fused for frame in frames], dim=1), None)
    torch.testing.assert_close(refined, tv3s.resize(shallow.linear_pred2(at_once), (40, 40)))
    torch.testing.assert_close(refined, shallow.decode(frames))
    torch.testing.assert_close(state.layers[1][0].hidden, states[1][0].hidden)


@torch.inference_mode()
def test_a_stream_without_a_state_starts_anew(shallow):
    first, second = random_frames(shallow, (40, 40), 2)
    alone, _ = shallow.step(second, None)
    _, state = shallow.step(first, None)
    assert not torch.allclose(shallow.step(second, state)[0], alone)
    assert torch.equal(shallow.step(second, None)[0], alone)
    assert torch.equal(shallow.decode([second]), alone)


@torch.inference_mode()
def test_stepping_leaves_the_state_before_as_it_was(shallow):
    first, second = random_frames(shallow, (40, 40), 2)
    _, state = shallow.step(first, None)
    once, _ = shallow.step(second, state)
    again, _ = shallow.step(second, state)
    assert torch.equal(once, again)


@torch.inference_mode()
def test_a_frame_of_another_size_is_refused(shallow):
    (small,), (large,) = random_frames(shallow, (40, 40), 1), random_frames(shallow, (40, 80), 1)
    _, state = shallow.step(small, None)
    with pytest.raises(ShapeError, match=r"maps of \(20, 20\), this frame one of \(20, 40\).*without a state"):
        shallow.step(large, state)


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (90, 7), (41, 43)])  # less than a window, wide, portrait, odd
@torch.inference_mode()
def test_any_size_gets_logits_of_its_size(shallow, size):
    frames = random_frames(shallow, size, 2)
    logits = shallow.decode(frames)
    assert logits.shape == (1, 5, *size)
    assert logits.isfinite().all()


def test_a_frame_serves_later_ones_as_it_is(shallow):
    (frame,) = random_frames(shallow, (40, 40), 1)
    assert frame.as_reference() is frame


@pytest.mark.parametrize(
    ("size", "grid"),
    [((120, 216), (60, 120)), ((216, 120), (120, 60)), ((48, 64), (40, 40)), ((40, 41), (20, 20)), ((1, 3), (20, 20))],
)
def test_half_the_size_is_stretched_to_whole_windows(size, grid):
    assert window_grid(size) == grid


@pytest.mark.parametrize(
    ("height", "width", "shift", "shapes"),
    [
        (60, 120, 0, [(18, 400)]),
        (60, 120, 10, [(10, 400), (14, 200), (4, 100)]),  # 2 x 5 whole; 2 x 5 and 2 x 2 cut once; corners
        (20, 60, 10, [(4, 200), (4, 100)]),
        (20, 20, 10, [(4, 100)]),
    ],
)
def test_windows_cover_every_cell_once(height, width, shift, shapes):
    groups = group_windows(height, width, shift)
    assert [tuple(group.shape) for group in groups] == shapes
    assert torch.cat([group.flatten() for group in groups]).sort().values.equal(torch.arange(height * width))


def test_the_cells_of_a_window_go_row_by_row():
    first, second = group_windows(20, 40, 0)[0]
    assert (first[:2].tolist(), first[19:22].tolist(), first[-1].item()) == ([0, 1], [19, 40, 41], 19 * 40 + 19)
    assert second[0].item() == 20


def test_training_logits_label_all_frames_and_refine_the_last(shallow):
    stages = tuple(torch.randn(4, c, 32 // s, 48 // s) for c, s in zip(CHANNELS, (1, 2, 4, 8), strict=True))
    single, refined = shallow.training_logits(stages, 2)
    assert (single.frames, single.weight, single.logits.shape) == ((0, 1, 2, 3), 0.5, (4, 5, 32, 48))
    assert (refined.frames, refined.weight) == ((1, 3), 1.0)
    with torch.inference_mode():
        fused = shallow.fuse(stages)
        frames = [shallow.encode((), x) for x in fused.split(1)]
        expected = torch.cat([shallow.decode(frames[:2]), shallow.decode(frames[2:])])
        torch.testing.assert_close(refined.logits, expected)
        torch.testing.assert_close(single.logits, shallow.classify(fused))


def test_training_reaches_every_parameter(shallow):
    stages = tuple(torch.randn(2, c, 8 // s, 8 // s) for c, s in zip(CHANNELS, (1, 2, 4, 8), strict=True))
    torch.manual_seed(0)
    loss = sum(part.weight * part.logits.square().mean() for part in shallow.train().training_logits(stages, 2))
    loss.backward()
    assert [name for name, p in shallow.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_parameters_have_the_published_names():
    head = Tv3sHead(CHANNELS, 124)
    own = head.state_dict().keys() - SegformerHead(CHANNELS, 124).state_dict().keys()
    mixer = ("A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "out_proj.weight")
    layer = ["norm.weight", *(f"mixer.{name}" for name in (*mixer, "dt_proj.weight", "dt_proj.bias"))]
    expected = {f"vs.layers.{i}.{name}" for i in range(8) for name in layer}
    assert own == expected | {"vs.norm_f.weight", "linear_pred2.weight", "linear_pred2.bias"}
    assert head.linear_pred2.weight.shape == (124, 256, 1, 1)
