"""Features of masklets from feature maps: Eq. 3, and what else can be pooled over a mask.

Pure functions on arrays. A mask is first turned into weights on the cells of the feature grid (`mask_runs.pool_areas`),
so nothing here depends on the size of the frame. Which encoder made the maps is `encoders/`' business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import SettingsError, ShapeError
from .settings import PoolingPart

PARTS: tuple[PoolingPart, ...] = ("mean", "max", "ring")
RING_WIDTH = 2  # ours: cells around a mask that are its surroundings
MAX_TOKENS = 256  # ours: as many as a mask of ordinary size has cells
_ROUNDING = 1e-6  # areas of cells differ by about 1e-15 of themselves where a border cuts pixels; that means nothing


@dataclass(frozen=True)
class Pooling:
    """What is pooled over a mask.

    Attributes:
        parts: Vectors per level, joined in this order: "mean" is Eq. 3, "max" the largest value of each channel, "ring"
            the mean around the mask.
        tokens: Cells of the first level that are kept one by one, for attention pooling; 0: none.
    """

    parts: tuple[PoolingPart, ...] = ("mean",)
    tokens: int = 0

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts or len(set(self.parts)) != len(self.parts):
            raise SettingsError(f"pooling is {list(self.parts)}, expected different ones of {', '.join(PARTS)}")
        if not 0 <= self.tokens <= MAX_TOKENS:
            raise SettingsError(f"pooling keeps {self.tokens} cells a mask, expected 0 to {MAX_TOKENS}")


def pool_masks(
    levels: Sequence[np.ndarray], weights: Sequence[np.ndarray], parts: Sequence[PoolingPart] = ("mean",)
) -> np.ndarray:
    """Pool feature maps over N masks.

    Args:
        levels: One map per level, floats (D_k, h_k, w_k), each stretched over the frame.
        weights: Area of each mask in each cell, floats (N, h_k, w_k), one array per level.
        parts: See `Pooling`.

    Returns:
        float32 (N, F): for each part the levels one after the other, so F = len(parts) * sum of all D_k. Rows of masks
        without area are zero.

    Raises:
        ShapeError: If weights and maps do not fit together.
    """
    for level, weight in zip(levels, weights, strict=True):
        if level.ndim != 3 or weight.ndim != 3 or level.shape[1:] != weight.shape[1:]:
            raise ShapeError(f"a map of shape {level.shape} does not fit weights of shape {weight.shape}")
    pool = {"mean": pool_mean, "max": pool_max, "ring": pool_ring}
    columns = [pool[part](level, weight) for part in parts for level, weight in zip(levels, weights, strict=True)]
    return np.concatenate(columns, axis=1)


def pool_mean(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average features over masks.

    Args:
        features: Floats (D, h, w).
        weights: Area of each mask in each cell, floats (N, h, w), at least 0.

    Returns:
        float32 (N, D); zeros for masks without area.

    Source: paper Eq. 3. F(x, y) of a pixel is that of its cell; a pixel on the border of cells counts in each.
    """
    flat = _flat(weights).astype(np.float32)
    totals = flat.sum(axis=1, keepdims=True)
    shares = flat / np.where(totals > 0, totals, 1)
    pooled: np.ndarray = shares @ features.reshape(len(features), -1).T.astype(np.float32, copy=False)
    return pooled


def pool_max(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the largest value of each channel inside masks, float32 (N, D); arguments as for `pool_mean`.

    A cell is inside if at least half as much of it is covered as of the mask's most covered cell: so border cells stay
    out, and a mask smaller than a cell still has one.

    Source: ours.
    """
    flat = _flat(weights)
    peaks = flat.max(axis=1, keepdims=True, initial=0)
    owners, cells = np.nonzero((flat >= peaks * (0.5 - _ROUNDING)) & (flat > 0))  # ordered by mask
    pooled = np.zeros((len(weights), len(features)), np.float32)
    if len(owners):
        seen, firsts = np.unique(owners, return_index=True)
        pooled[seen] = np.maximum.reduceat(features.reshape(len(features), -1).T[cells], firsts, axis=0)
    return pooled


def pool_ring(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average features over the surroundings of masks, float32 (N, D); arguments as for `pool_mean`.

    Source: ours.
    """
    return pool_mean(features, ring_weights(weights))


def ring_weights(weights: np.ndarray, width: int = RING_WIDTH) -> np.ndarray:
    """Return how much of each cell belongs to the surroundings of each mask, floats (N, h, w) in the unit of `weights`.

    The surroundings are what `width` cells more in every direction add to the mask's own coverage. A mask that fills
    the picture has none.

    Source: ours.
    """
    grown = weights
    for axis in (1, 2):
        padding = [(0, 0)] * 3
        padding[axis] = (width, width)
        padded = np.pad(grown, padding)
        shifts = range(2 * width + 1)
        grown = np.max([np.take(padded, range(k, k + weights.shape[axis]), axis=axis) for k in shifts], axis=0)
    ring: np.ndarray = np.where(grown - weights > _ROUNDING * grown, grown - weights, 0)
    return ring


def choose_cells(weights: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` cells of every mask, spread evenly over its area in reading order.

    Each stands for the same share of the mask; a mask of fewer cells gets some twice.

    Args:
        weights: Area of each mask in each cell, floats (N, h, w).
        count: S.

    Returns:
        Numbers of cells in row-major order, int64 (N, S); -1 for masks without area.

    Source: ours.
    """
    sums = _flat(weights).cumsum(axis=1, dtype=np.float64)
    totals = sums[:, -1:]
    rows = np.arange(len(weights))[:, None]  # the fraction of row i is looked up in i..i + 1, all rows at once
    fractions = sums / np.where(totals > 0, totals, 1) + rows
    goals = (np.arange(count) + 0.5) / count + rows
    cells = np.searchsorted(fractions.ravel(), goals) - rows * sums.shape[1]
    return np.where(totals > 0, cells, -1)


def take_cells(features: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the features (D, h, w) of chosen cells (N, S), float32 (N, S, D); zeros where the number is -1."""
    flat = features.reshape(len(features), -1).T.astype(np.float32, copy=False)
    taken: np.ndarray = np.where((cells >= 0)[..., None], flat[cells], np.float32(0))
    return taken


def _flat(weights: np.ndarray) -> np.ndarray:
    """Return (N, h, w) as (N, h * w); N may be 0, where numpy cannot work out a size of -1."""
    return weights.reshape(len(weights), weights.shape[1] * weights.shape[2])
