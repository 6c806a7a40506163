"""The networks that name a masklet from its features: a linear probe, the paper's MLP, and one that sees neighbours."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_HEADS = 4


class FeatureScale(nn.Module):
    """Brings every channel of features (M, F) to mean 0 and spread 1, as measured on training features."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def fit(self, features: np.ndarray) -> None:
        """Measure training features, floats (M, F).

        A channel that never changed keeps a spread of 1: it may change later, and must not then outweigh all others.
        """
        features = features.astype(np.float64)  # sums of many rows lose digits in float32
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread <= 1e-6 * np.maximum(np.abs(mean), 1)] = 1
        self.mean.copy_(torch.from_numpy(mean))
        self.spread.copy_(torch.from_numpy(spread))

    def forward(self, features: Tensor) -> Tensor:
        """Scale (M, F)."""
        return (features - self.mean) / self.spread


class AttentionPool(nn.Module):
    """Pools S tokens (M, S, D) to vectors (M, D): learned queries, one for each group of channels, weigh the tokens.

    Source: ours, after the attention pooling of multiple-instance learning (arXiv 1802.04712).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, NUM_HEADS)
        self.value = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool (M, S, D) to (M, D)."""
        tokens = self.norm(tokens)
        weights = self.score(tokens).softmax(dim=1)  # (M, S, heads)
        values = self.value(tokens).unflatten(2, (NUM_HEADS, -1))  # (M, S, heads, D / heads)
        return (weights[..., None] * values).sum(dim=1).flatten(1)  # type: ignore[no-any-return]


class ContextBlock(nn.Module):
    """Self-attention among the masklets of a group, then a feed-forward network; both around a residual (pre-norm)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, rows: Tensor, is_there: Tensor) -> Tensor:
        """Let rows (B, N, D) see those of their group that are there, bool (B, N)."""
        q, k, v = self.qkv(self.norm(rows)).unflatten(2, (3, NUM_HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=is_there[:, None, None, :])
        rows = rows + self.out(seen.transpose(1, 2).flatten(2))
        return rows + self.feed(rows)  # type: ignore[no-any-return]


class ContextHead(nn.Module):
    """Names masklets with an eye on the others of their frame or window."""

    def __init__(self, num_inputs: int, num_classes: int, hidden: int, dropout: float, num_blocks: int = 2) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(num_inputs, hidden), nn.GELU(), nn.Dropout(dropout))
        self.blocks = nn.ModuleList(ContextBlock(hidden, dropout) for _ in range(num_blocks))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, num_classes))

    def forward(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Name rows (M, F), whose groups are numbered (M,); return logits (M, C)."""
        rows = self.enter(inputs)
        _, group, sizes = groups.unique(return_inverse=True, return_counts=True)
        order = group.argsort(stable=True)
        starts = sizes.cumsum(0) - sizes
        place = torch.empty_like(group)
        place[order] = torch.arange(len(group), device=group.device) - starts[group[order]]
        longest = int(sizes.max()) if len(sizes) else 0
        padded = rows.new_zeros(len(sizes), longest, rows.shape[1])
        is_there = torch.zeros(len(sizes), longest, dtype=torch.bool, device=rows.device)
        padded[group, place], is_there[group, place] = rows, True
        for block in self.blocks:
            padded = block(padded, is_there)
        return self.leave(padded[group, place])  # type: ignore[no-any-return]


class PlainHead(nn.Module):
    """Names every masklet by itself: one linear layer, or with a hidden one the paper's MLP (Sec. 3.1.2)."""

    def __init__(self, num_inputs: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if hidden:
            self.layers = nn.Sequential(
                nn.Linear(num_inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
            )
        else:
            self.layers = nn.Sequential(nn.Linear(num_inputs, num_classes))

    def forward(self, inputs: Tensor, groups: Tensor) -> Tensor:
        """Name rows (M, F); return logits (M, C). Groups do not matter."""
        return self.layers(inputs)  # type: ignore[no-any-return]
