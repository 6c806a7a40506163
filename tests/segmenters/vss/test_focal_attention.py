"""Focal blocks beside a second implementation in plain loops over windows, cells and keys."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from named_weights import fill_by_name
from sam2vss.segmenters.vss.cffm import FocalBlock
from sam2vss.segmenters.vss.focal_attention import (
    HEADS,
    POOLINGS,
    Pooling,
    cells_of_windows,
    pad_to_windows,
    places,
    pool,
    pooled_cells,
    ring_offsets,
    square,
)

CHANNELS = 16


# --- the second implementation: arrays (H, W, D), one window after another -------------------------------------------


def slow_block(block: FocalBlock, target: np.ndarray, references: list[np.ndarray]) -> np.ndarray:
    """Refine a target of any size by three references."""
    height, width, _ = target.shape
    attended = slow_attention(block, slow_pad(norm(block.norm1, target)), references)
    target = target + attended[:height, :width]
    hidden = linear(block.mlp.fc1, norm(block.norm2, target))
    return target + linear(block.mlp.fc2, functional.gelu(torch.from_numpy(hidden)).numpy())


def slow_attention(block: FocalBlock, target: np.ndarray, references: list[np.ndarray]) -> np.ndarray:
    attention = block.attn
    height, width, _ = target.shape
    sources = [target, *[slow_pad(norm(block.norm1, reference)) for reference in references]]
    layers = [*block.pool_layers, *block.pool_layers_clips]
    tables = [
        *attention.relative_position_bias_table_to_windows,
        *attention.relative_position_bias_table_to_windows_clips,
    ]
    pooled = [
        slow_pool(source, pooling, layer) for source, pooling, layer in zip(sources, POOLINGS, layers, strict=True)
    ]
    result = np.zeros_like(target)
    for top in range(0, height, 7):
        for left in range(0, width, 7):
            tokens, biases = fine_keys(attention, target, top, left)
            keys = [linear(attention.qkv, token)[CHANNELS:] for token in tokens]
            for source, pooling, table in zip(pooled, POOLINGS, tables, strict=True):
                cells, coarse = coarse_keys(source, pooling, array(table), top // 7, left // 7)
                keys += [0 * keys[0] if cell is None else linear(attention.qkv, cell)[CHANNELS:] for cell in cells]
                biases += coarse
            for i in range(7):
                for j in range(7):
                    query = linear(attention.qkv, target[top + i, left + j])[:CHANNELS]
                    bias = [bias_of(i, j) for bias_of in biases]
                    result[top + i, left + j] = attend(query, np.array(keys), np.array(bias))
    return linear(attention.proj, result)


def fine_keys(attention, target: np.ndarray, top: int, left: int):
    """The cells of the window and of its ring, and functions from a query's place to the biases of the heads."""
    height, width, _ = target.shape
    own, ring = (
        array(attention.relative_position_bias_table),
        array(attention.relative_position_bias_table_to_neighbors),
    )
    tokens, biases = [], []
    for a in range(7):
        for b in range(7):
            tokens.append(target[top + a, left + b])
            biases.append(lambda i, j, a=a, b=b: own[(i - a + 6) * 13 + (j - b + 6)])
    for down, right in ((3, 3), (3, -3), (-3, 3), (-3, -3)):
        for a in range(7):
            for b in range(7):
                if not (0 <= a + down < 7 and 0 <= b + right < 7):
                    tokens.append(target[(top + a + down) % height, (left + b + right) % width])
                    n = len(biases) - 49
                    biases.append(lambda i, j, n=n: ring[0, :, 7 * i + j, n])
    return tokens, biases


def coarse_keys(source: np.ndarray, pooling: Pooling, table: np.ndarray, row: int, column: int):
    """The pooled cells around a window, None beyond the border, and the same kind of functions."""
    reach, cells, biases = pooling.reach, [], []
    for a in range(-reach, reach + 1):
        for b in range(-reach, reach + 1):
            y, x = row * pooling.per_window + a, column * pooling.per_window + b
            is_inside = 0 <= y < source.shape[0] and 0 <= x < source.shape[1]
            cells.append(source[y, x] if is_inside else None)
            biases.append(
                lambda i, j, a=a, b=b, is_inside=is_inside: (
                    table[:, (i - a + reach) * (7 + 2 * reach) + (j - b + reach)] - (0 if is_inside else 100)
                )
            )
    return cells, biases


def attend(query: np.ndarray, keys: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """query (D,), keys and values (n, 2 D), biases (n, heads)."""
    size = CHANNELS // HEADS
    parts = []
    for head in range(HEADS):
        channels = slice(head * size, (head + 1) * size)
        scores = keys[:, :CHANNELS][:, channels] @ query[channels] / np.sqrt(size) + biases[:, head]
        shares = np.exp(scores - scores.max())
        parts.append(shares / shares.sum() @ keys[:, CHANNELS:][:, channels])
    return np.concatenate(parts)


def slow_pool(source: np.ndarray, pooling: Pooling, layer: torch.nn.Linear) -> np.ndarray:
    rows, columns = (pooling.per_window * (side // 7) for side in source.shape[:2])
    size = pooling.size
    image = torch.from_numpy(source).permute(2, 0, 1)[None]
    resized = functional.interpolate(image, (rows * size, columns * size), mode="bilinear")[0].permute(1, 2, 0).numpy()
    pooled = np.zeros((rows, columns, source.shape[2]))
    for y in range(rows * size):
        for x in range(columns * size):
            pooled[y // size, x // size] += array(layer.weight)[0, y % size * size + x % size] * resized[y, x]
    return pooled + array(layer.bias)


def slow_pad(x: np.ndarray) -> np.ndarray:
    padded = np.zeros(((x.shape[0] + 6) // 7 * 7, (x.shape[1] + 6) // 7 * 7, x.shape[2]))
    padded[: x.shape[0], : x.shape[1]] = x
    return padded


def norm(layer: torch.nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * array(layer.weight) + array(layer.bias)


def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (14, 7),  # whole windows, one column: the ring meets the window itself across the border
        (9, 16),  # padded below and right, as are most real sizes
        (16, 9),  # portrait
        (3, 5),  # one window that is larger than the map
    ],
)
@torch.inference_mode()
def test_a_block_gives_what_plain_loops_give(height, width):
    block = fill_by_name(FocalBlock(CHANNELS)).double()
    rng = np.random.default_rng(0)
    target, *references = rng.standard_normal((4, height, width, CHANNELS))
    fast = block(torch.from_numpy(target)[None], [torch.from_numpy(reference)[None] for reference in references])
    np.testing.assert_allclose(array(fast[0]), slow_block(block, target, references), rtol=0, atol=1e-12)


@torch.inference_mode()
def test_clips_of_a_batch_do_not_mix():
    block = fill_by_name(FocalBlock(CHANNELS))
    clips = torch.randn(4, 2, 9, 8, CHANNELS, generator=torch.Generator().manual_seed(0))
    together = block(clips[0], list(clips[1:]))
    for i in range(2):
        alone = block(clips[0, i : i + 1], list(clips[1:, i : i + 1]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


def test_a_fresh_layer_pools_by_the_mean():
    block = FocalBlock(CHANNELS)
    x = torch.arange(14 * 7, dtype=torch.float32).view(1, 14, 7, 1).expand(-1, -1, -1, CHANNELS)
    pooled = pool(x, POOLINGS[0], block.pool_layers[0])
    torch.testing.assert_close(pooled[0, :, 0, 0], torch.tensor([24.0, 73.0]))  # means of 0..48 and of 49..97


def test_maps_are_padded_with_zeros_below_and_right():
    padded = pad_to_windows(torch.ones(1, 8, 7, 2))
    assert padded.shape == (1, 14, 7, 2)
    assert padded[0, :, 0, 0].tolist() == [1.0] * 8 + [0.0] * 6


def test_the_ring_has_its_inner_corners_twice():
    offsets = [tuple(offset) for offset in ring_offsets().tolist()]
    assert len(offsets) == 132
    around = {(y, x) for y in range(-3, 10) for x in range(-3, 10) if not (0 <= y < 7 and 0 <= x < 7)}
    assert set(offsets) == around
    twice = {offset for offset in offsets if offsets.count(offset) == 2}
    assert twice == {(y, 3) for y in (-3, -2, -1, 7, 8, 9)} | {(3, x) for x in (-3, -2, -1, 7, 8, 9)}


def test_cells_beyond_a_border_are_taken_from_the_other_side():
    # windows of 7 x 7 on a map of 7 x 14: the cell left of the first window is the last of its row, 13
    left_of = cells_of_windows(torch.tensor([[0, -1], [-1, 0]]), 7, (1, 2), (7, 14))
    assert left_of.tolist() == [[13, 6 * 14], [6, 6 * 14 + 7]]


def test_pooled_cells_beyond_the_border_are_marked():
    # frame -3: 3 cells a window, seen one to each side of the window's first; widened map 5 x 5 for one window
    cells, beyond = pooled_cells(POOLINGS[3], (1, 1))
    assert cells.tolist() == [[0, 1, 2, 5, 6, 7, 10, 11, 12]]
    assert beyond.tolist() == [[True, True, True, True, False, False, True, False, False]]


def test_places_tell_how_far_a_key_is():
    # a window of 7 x 7 and 3 x 3 keys have (7 + 3 - 1)^2 = 81 places; query (6, 6), key (0, 0) is the farthest
    assert places(3)[0, 0] == 2 * 9 + 2
    assert places(3)[48, 0] == 80
    assert places(3)[0, 8] == 0
    assert square(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
