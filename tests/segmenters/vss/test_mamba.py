import importlib
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from named_weights import fill_by_name
from sam2vss.segmenters.vss import mamba
from sam2vss.segmenters.vss.mamba import (
    MambaCell,
    MambaState,
    convolve,
    find_kernel,
    pieces,
    scan_with_kernel,
    selective_scan,
)


def random_scan(length: int = 7, batch: int = 2, channels: int = 3, states: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(length)
    return {
        "x": torch.randn(batch, length, channels, generator=draw, dtype=torch.float64),
        "dt": torch.rand(batch, length, channels, generator=draw, dtype=torch.float64),
        "a": -torch.rand(states, channels, generator=draw, dtype=torch.float64) * 3,
        "b": torch.randn(batch, length, states, generator=draw, dtype=torch.float64),
        "c": torch.randn(batch, length, states, generator=draw, dtype=torch.float64),
    }


def plain_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Every number by itself, as the equations say."""
    y = torch.zeros_like(x)
    after = torch.zeros(len(x), *a.shape, dtype=x.dtype) if hidden is None else hidden.clone()
    for row in range(x.shape[0]):
        for channel in range(x.shape[2]):
            for state in range(a.shape[0]):
                h = after[row, state, channel].item()
                for t in range(x.shape[1]):
                    step = dt[row, t, channel].item()
                    h = math.exp(step * a[state, channel].item()) * h
                    h += step * b[row, t, state].item() * x[row, t, channel].item()
                    y[row, t, channel] += c[row, t, state].item() * h
                after[row, state, channel] = h
    return y, after


def plain_cell(cell: MambaCell, tokens: Tensor) -> Tensor:
    """One sequence (L, width), token by token and channel by channel, from the start."""
    inner, rank = cell.D.numel(), cell.dt_proj.in_features
    outputs, inputs, hidden = [], [], torch.zeros(inner, 16)
    for token in tokens:
        both = cell.in_proj.weight @ token
        inputs.append(both[:inner])
        x = torch.empty(inner)
        for channel in range(inner):
            last = [0.0] * 4 + [past[channel].item() for past in inputs]
            weights = cell.conv1d.weight[channel, 0].tolist()
            value = sum(w * v for w, v in zip(weights, last[-4:], strict=True)) + cell.conv1d.bias[channel].item()
            x[channel] = value / (1 + math.exp(-value))
        drawn = cell.x_proj.weight @ x
        b, c = drawn[rank : rank + 16], drawn[rank + 16 :]
        y = torch.empty(inner)
        for channel in range(inner):
            raw = (cell.dt_proj.weight[channel] @ drawn[:rank] + cell.dt_proj.bias[channel]).item()
            step = math.log1p(math.exp(raw))
            for state in range(16):
                decay = math.exp(-step * math.exp(cell.A_log[channel, state].item()))
                hidden[channel, state] = decay * hidden[channel, state] + step * b[state] * x[channel]
            y[channel] = (hidden[channel] * c).sum() + cell.D[channel] * x[channel]
        gate = both[inner:]
        outputs.append(cell.out_proj.weight @ (y * gate * torch.sigmoid(gate)))
    return torch.stack(outputs)


def small_cell() -> MambaCell:
    return fill_by_name(MambaCell(8))


@torch.inference_mode()
def test_a_decay_of_one_half_can_be_followed_by_hand():
    # h = 0.5 h + x, y = 2 h for x = 1, 0, 4: h = 1, 0.5, 4.25
    ones = torch.ones(1, 3, 1)
    x = torch.tensor([[[1.0], [0.0], [4.0]]])
    y, hidden = selective_scan(x, ones, torch.tensor([[math.log(0.5)]]), ones, 2 * ones, None)
    torch.testing.assert_close(y.flatten(), torch.tensor([2.0, 1.0, 8.5]))
    torch.testing.assert_close(hidden.flatten(), torch.tensor([4.25]))


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("starts_from_zero", [True, False])
@pytest.mark.parametrize("budget", [1, 60, 10**6])  # 24 floats per token: pieces of 1, 2 and all tokens
def test_a_scan_in_pieces_equals_a_loop_over_every_number(monkeypatch, length, starts_from_zero, budget):
    monkeypatch.setattr(mamba, "CHUNK_FLOATS", budget)
    monkeypatch.setattr(mamba, "TRAINING_CHUNK_FLOATS", budget)
    given = random_scan(length)
    hidden = None if starts_from_zero else torch.randn(2, 4, 3, dtype=torch.float64)
    expected = plain_scan(**given, hidden=hidden)
    torch.testing.assert_close(selective_scan(**given, hidden=hidden), expected)
    with torch.inference_mode():
        torch.testing.assert_close(selective_scan(**given, hidden=hidden), expected)


def test_gradients_of_a_scan_in_pieces_are_right(monkeypatch):
    monkeypatch.setattr(mamba, "TRAINING_CHUNK_FLOATS", 60)
    given = [part.requires_grad_() for part in random_scan(5).values()]
    hidden = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(selective_scan, (*given, hidden))


@torch.inference_mode()
def test_a_cell_equals_a_loop_over_tokens_and_channels():
    cell, tokens = small_cell(), torch.randn(2, 6, 8)
    out, _ = cell(tokens)
    torch.testing.assert_close(out, torch.stack([plain_cell(cell, row) for row in tokens]))


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 6), (8,)])
@torch.inference_mode()
def test_reading_a_sequence_in_parts_equals_reading_it_at_once(cuts):
    cell, tokens = small_cell(), torch.randn(2, 9, 8)
    whole, state_of_whole = cell(tokens)
    state, parts = None, []
    for part in tokens.tensor_split(cuts, dim=1):
        out, state = cell(part, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(vars(state), vars(state_of_whole))


@pytest.mark.parametrize("forgotten", ["recent", "hidden"])
@torch.inference_mode()
def test_both_halves_of_the_state_count(forgotten):
    cell, tokens = small_cell(), torch.randn(1, 8, 8)
    _, state = cell(tokens[:, :5])
    parts = {"recent": state.recent, "hidden": state.hidden}
    parts[forgotten] = torch.zeros_like(parts[forgotten])
    out, _ = cell(tokens[:, 5:], MambaState(**parts))
    assert (out - cell(tokens)[0][:, 5:]).abs().max() > 1e-2


@torch.inference_mode()
def test_the_state_holds_no_arrays_larger_than_itself():
    _, state = small_cell()(torch.randn(1, 50, 8))
    assert [part.untyped_storage().nbytes() // 4 for part in (state.recent, state.hidden)] == [3 * 16, 16 * 16]


def test_the_convolution_sees_the_token_and_those_before():
    x = torch.tensor([[[1.0], [10.0]]])
    y, recent = convolve(x, torch.tensor([[2.0, 3.0, 5.0]]), torch.tensor([7.0]), torch.tensor([[[100.0], [1000.0]]]))
    assert y.flatten().tolist() == [2 * 100 + 3 * 1000 + 5 * 1 + 7, 2 * 1000 + 3 * 1 + 5 * 10 + 7]
    assert recent.flatten().tolist() == [1, 10]


def kernel_from_zero(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, return_last_state: bool):
    """The plain scan behind the interface of mamba-ssm, channels before tokens."""
    assert return_last_state
    assert all(part.is_contiguous() for part in (u, delta, a, b, c))
    y, last = plain_scan(*(part.transpose(1, 2) for part in (u, delta)), a.t(), b.mT, c.mT, None)
    return y.transpose(1, 2), last.transpose(1, 2)


@pytest.mark.parametrize("starts_from_zero", [True, False])
@pytest.mark.parametrize("budget", [60, 10**6])
@torch.inference_mode()
def test_a_kernel_that_starts_from_zero_gives_the_same(monkeypatch, starts_from_zero, budget):
    monkeypatch.setattr(mamba, "TRAINING_CHUNK_FLOATS", budget)
    given = random_scan(7)
    hidden = None if starts_from_zero else torch.randn(2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(
        scan_with_kernel(kernel_from_zero, **given, hidden=hidden), plain_scan(**given, hidden=hidden)
    )


def test_the_kernel_is_found_only_where_it_was_built(monkeypatch):
    def scan() -> None: ...

    def nothing(name: str) -> None:
        raise ImportError(name)

    for found, expected in (
        (lambda name: SimpleNamespace(selective_scan_cuda=object(), selective_scan_fn=scan), scan),
        (lambda name: SimpleNamespace(selective_scan_cuda=None, selective_scan_fn=scan), None),
        (nothing, None),
    ):
        find_kernel.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(importlib, "import_module", found)
            assert find_kernel() is expected
    find_kernel.cache_clear()


@torch.inference_mode()
def test_half_precision_is_scanned_in_single():
    cell, tokens = small_cell(), torch.randn(1, 400, 8)
    exact, _ = cell(tokens)
    out, state = cell.bfloat16()(tokens.bfloat16())
    assert (out.dtype, state.recent.dtype, state.hidden.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert (out.float() - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_a_new_cell_takes_steps_between_a_thousandth_and_a_tenth():
    torch.manual_seed(0)
    steps = torch.nn.functional.softplus(MambaCell(256).dt_proj.bias)
    assert 0.001 <= steps.min() < 0.0015
    assert 0.07 < steps.max() <= 0.1


def test_parameters_have_the_published_names():
    shapes = {name: tuple(tensor.shape) for name, tensor in MambaCell(256).state_dict().items()}
    assert shapes == {
        "A_log": (512, 16),
        "D": (512,),
        "in_proj.weight": (1024, 256),
        "conv1d.weight": (512, 1, 4),
        "conv1d.bias": (512,),
        "x_proj.weight": (48, 512),
        "dt_proj.weight": (512, 16),
        "dt_proj.bias": (512,),
        "out_proj.weight": (256, 512),
    }


def test_pieces_cover_a_sequence_once():
    assert [list(range(10))[piece] for piece in pieces(10, 3, 12)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(list(pieces(5, 100, 12))) == 5
