"""The Mamba cell (the first version, S6) in plain PyTorch, with its state going in and coming out.

A cell reads sequences of tokens. What it remembers of them is small and of fixed size, so a sequence can be read in
pieces, as a stream of frames is. Where mamba-ssm is installed with its kernel, and the tensors are on a GPU, that scans
instead of the loop here. Parameters have the names of mamba-ssm's `Mamba`.

Source: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (arXiv 2312.00752), Alg. 2 and Sec. 3.4.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

EXPANSION = 2  # channels inside the cell, as a multiple of those outside
NUM_STATES = 16  # N, states of every channel
CONVOLUTION = 4  # tokens that the causal convolution sees
TIME_STEPS = (1e-3, 0.1)  # range of the first step sizes
# Floats of one intermediate array (B, K, N, D) of a scan. Few, so that it stays in the cache: with K = 7, 18 windows of
# 1600 tokens take 0.28 s, with K = 112 0.40 s (D = 512, one core). In training more, as every piece keeps its state.
CHUNK_FLOATS = 2**20
TRAINING_CHUNK_FLOATS = 2**23

Kernel = Callable[..., tuple[Tensor, Tensor]]  # mamba-ssm's selective_scan_fn


@dataclass(frozen=True)
class MambaState:
    """What a cell remembers of B sequences.

    Attributes:
        recent: The last 3 tokens that its convolution has seen, (B, 3, D).
        hidden: The state of the scan, (B, N, D).
    """

    recent: Tensor
    hidden: Tensor


class MambaCell(nn.Module):
    """Convolution over the last tokens, a scan whose step sizes depend on the token, and a gate.

    Args:
        width: Channels of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner, rank = EXPANSION * width, math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, CONVOLUTION, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * NUM_STATES, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, NUM_STATES + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._start_time_steps(rank)

    def _start_time_steps(self, rank: int) -> None:
        """Spread the step sizes before training evenly, by their logarithm, over `TIME_STEPS`."""
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        low, high = (math.log(step) for step in TIME_STEPS)
        steps = torch.exp(low + (high - low) * torch.rand(self.dt_proj.out_features))
        with torch.no_grad():
            self.dt_proj.bias.copy_(steps.expm1().log())  # the inverse of softplus

    def forward(self, tokens: Tensor, state: MambaState | None = None) -> tuple[Tensor, MambaState]:
        """Read the next tokens of B sequences.

        Args:
            tokens: (B, L, width).
            state: As returned for the tokens before; None at the start of the sequences.

        Returns:
            (B, L, width), and the state after them. No gradient is promised through the state.
        """
        recent, hidden = (None, None) if state is None else (state.recent, state.hidden)
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)  # (B, L, D) each
        x, recent = convolve(x, self.conv1d.weight[:, 0], cast(Tensor, self.conv1d.bias), recent)
        x = functional.silu(x)
        sizes = [self.dt_proj.in_features, NUM_STATES, NUM_STATES]
        dt, b, c = (part.to(precise(x.dtype)) for part in self.x_proj(x).split(sizes, dim=-1))
        dt = functional.linear(dt, self.dt_proj.weight.to(dt.dtype), self.dt_proj.bias.to(dt.dtype))
        a = -self.A_log.to(dt.dtype).exp().t()
        y, hidden = selective_scan(x.to(dt.dtype), functional.softplus(dt), a, b, c, hidden)
        y = y.to(x.dtype).addcmul(x, self.D.to(x.dtype))
        return self.out_proj(y * functional.silu(gate)), MambaState(recent, hidden)


def precise(dtype: torch.dtype) -> torch.dtype:
    """The type to scan in: float32 for half precision, as errors add up over thousands of tokens."""
    return torch.promote_types(dtype, torch.float32)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, recent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Convolve every channel with its last K tokens.

    Args:
        x: (B, L, D).
        weight: (D, K), the last for the token itself.
        bias: (D,).
        recent: The K - 1 tokens before, (B, K - 1, D); None for zeros.

    Returns:
        (B, L, D), and the last K - 1 tokens.
    """
    length, taps = x.shape[1], weight.shape[1]
    if recent is None:
        recent = x.new_zeros(len(x), taps - 1, x.shape[2])
    x = torch.cat([recent, x], dim=1)
    convolved = bias.expand(len(x), length, -1)
    for tap in range(taps):
        convolved = torch.addcmul(convolved, x[:, tap : tap + length], weight[:, tap])
    return convolved, x[:, length:].clone()


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scan sequences: h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t, y_t = C_t h_t, every channel by itself.

    Args:
        x: Input, (B, L, D).
        dt: Step sizes > 0, (B, L, D).
        a: Rates of decay < 0, (N, D).
        b: Weights of the input per state, (B, L, N).
        c: Weights of the states in the output, (B, L, N).
        hidden: States before the first token, (B, N, D); None for zeros.

    Returns:
        y, (B, L, D), and the states after the last token, (B, N, D).

    Source: arXiv 2312.00752, Eq. 2 and 4, with B discretised as dt_t B_t, as in the published code.
    """
    kernel = find_kernel() if x.is_cuda and x.dtype == torch.float32 else None
    if kernel is not None and (hidden is None or not torch.is_grad_enabled()):
        return scan_with_kernel(kernel, x, dt, a, b, c, hidden)
    if hidden is None:
        hidden = x.new_zeros(len(x), *a.shape)
    has_gradient = torch.is_grad_enabled()
    outputs = []
    for piece in pieces(x.shape[1], hidden.numel(), TRAINING_CHUNK_FLOATS if has_gradient else CHUNK_FLOATS):
        part = (x[:, piece], dt[:, piece], a, b[:, piece], c[:, piece], hidden)
        if has_gradient:  # the arrays (B, K, N, D) of all pieces together would not fit in memory
            y, hidden = checkpoint(_scan_piece, *part, use_reentrant=False, preserve_rng_state=False)
        else:
            y, hidden = _scan_piece(*part)
        outputs.append(y)
    return torch.cat(outputs, dim=1), hidden


def _scan_piece(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Scan tokens whose states all fit in memory; arguments as for `selective_scan`."""
    x, dt, b, c = (part.transpose(0, 1) for part in (x, dt, b, c))  # token by token
    decays = (dt[:, :, None] * a).exp_()  # (K, B, N, D)
    states = (dt * x)[:, :, None] * b[..., None]  # first what every token adds, then in its place the state after it
    if torch.is_grad_enabled():
        after = []
        for decay, added in zip(decays, states, strict=True):
            hidden = torch.addcmul(added, decay, hidden)
            after.append(hidden)
        states = torch.stack(after)
    else:
        for decay, added in zip(decays, states, strict=True):
            hidden = added.addcmul_(decay, hidden)
        hidden = hidden.clone()  # not a view that keeps all states alive
    return (c[:, :, None] @ states)[:, :, 0].transpose(0, 1), hidden


def scan_with_kernel(
    kernel: Kernel, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Do as `selective_scan` with a kernel that starts from zero, and add what is left of the states before.

    The scan is linear in its state, so the states before add C_t exp(A (dt_1 + ... + dt_t)) h_0 to token t. The kernel,
    mamba-ssm's `selective_scan_fn`, wants x and dt as (B, D, L), a as (D, N), b and c as (B, N, L), and gives y
    (B, D, L) and the last state (B, D, N), through which it returns no gradient.
    """
    x, b, c = (part.transpose(1, 2).contiguous() for part in (x, b, c))
    y, last = kernel(x, dt.transpose(1, 2).contiguous(), a.t().contiguous(), b, c, return_last_state=True)
    y, last = y.transpose(1, 2), last.transpose(1, 2)
    if hidden is None:
        return y, last
    elapsed, c = dt.cumsum(dim=1)[:, :, None], c.transpose(1, 2)[:, :, None]  # (B, L, 1, D), (B, L, 1, N)
    left = [
        c[:, piece] @ ((elapsed[:, piece] * a).exp_() * hidden[:, None])
        for piece in pieces(x.shape[2], hidden.numel(), TRAINING_CHUNK_FLOATS)
    ]
    return y + torch.cat(left, dim=1)[:, :, 0], last + (elapsed[:, -1] * a).exp() * hidden


def pieces(length: int, floats_per_token: int, budget: int) -> Iterator[slice]:
    """Cut a sequence into pieces of at most `budget` floats, or of one token."""
    size = max(1, budget // max(1, floats_per_token))
    return (slice(start, start + size) for start in range(0, length, size))


@cache
def find_kernel() -> Kernel | None:
    """Return mamba-ssm's scan; None where that is not installed, or was built without it (as by default since 2.3)."""
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError:
        return None
    return None if getattr(module, "selective_scan_cuda", None) is None else cast(Kernel, module.selective_scan_fn)
