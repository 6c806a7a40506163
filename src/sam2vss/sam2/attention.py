"""SAM 2's two transformers, run through transformers' modules with whatever prompts or objects share computed once.

A batch of 1 stands for "the same for all" and is kept until something differs between prompts (the mask decoder) or
between objects (memory attention). Sums that several layers need are made once. Results are bit-equal to expanding
first on a CPU; elsewhere a matrix product may choose another kernel for another number of rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rope:
    """Rotary position encoding of a grid of h*w cells (or of other tokens), for heads of E channels.

    Attributes:
        cos: (h*w, E/2), float32.
        sin: (h*w, E/2), float32.
        turns: cos + i sin, complex64 (h*w, E/2).
    """

    cos: Tensor
    sin: Tensor
    turns: Tensor

    def rotate(self, tokens: Tensor, num_unplaced: int = 0) -> Tensor:
        """Rotate channel pairs of tokens (B, heads, M*h*w + U, E) by their cell; the last U tokens have no place.

        Computed in float32 whatever the dtype, as in Meta's code. One complex product is 4.5 times as fast as four real
        ones and bit-equal on a CPU, but compilers generate no code for it.
        """
        num_placed = tokens.shape[2] - num_unplaced
        placed = tokens[:, :, :num_placed].unflatten(2, (-1, len(self.cos))).float().unflatten(-1, (-1, 2))
        if torch.compiler.is_compiling():
            even, odd = placed.unbind(-1)
            placed = torch.stack([even * self.cos - odd * self.sin, odd * self.cos + even * self.sin], dim=-1)
        else:
            placed = torch.view_as_complex(placed.contiguous())  # one name for all, so that each frees the one before
            placed = torch.view_as_real(placed * self.turns)
        placed = placed.flatten(-2).flatten(2, 3).to(tokens.dtype)
        return torch.cat([placed, tokens[:, :, num_placed:]], dim=2) if num_unplaced else placed


def two_way(transformer: Any, tokens: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Run the mask decoder's transformer: prompt tokens and image look at each other.

    Args:
        transformer: The decoder's `transformer` module.
        tokens: (P, K, D).
        image: (1 or P, h*w, D); with 1, the image side of the first layer is computed once for all prompts.
        positions: (1, h*w, D).

    Returns:
        Tokens (P, K, D) and image (P, h*w, D).
    """
    queries = tokens
    for layer in transformer.layers:
        placed = image + positions
        if layer.skip_first_layer_pe:
            queries = layer.layer_norm1(attention(layer.self_attn, queries, queries, queries))
        else:
            query = queries + tokens
            queries = layer.layer_norm1(queries + attention(layer.self_attn, query, query, queries))
        found = attention(layer.cross_attn_token_to_image, queries + tokens, placed, image)
        queries = layer.layer_norm2(queries + found)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        found = attention(layer.cross_attn_image_to_token, placed, queries + tokens, queries)
        image = layer.layer_norm4(found.add_(image))  # in place: the sums are a tenth of the decoder's time
    found = attention(transformer.final_attn_token_to_image, queries + tokens, image + positions, image)
    return transformer.layer_norm_final_attn(queries + found), image


def look_around(module: Any, cells: Tensor, rope: Rope) -> Tensor:
    """Let the cells of a frame (B, h*w, D) attend to one another: memory attention's first step, without memories."""
    return _look_around(module.layers[0], cells, rope)


def look_back(
    module: Any, cells: Tensor, memory: Tensor, positions: Tensor, num_pointers: int, rope: Rope, memory_rope: Rope
) -> Tensor:
    """Run the rest of memory attention for P objects.

    Args:
        module: The `memory_attention` module.
        cells: What `look_around` answers (1 or P, h*w, D).
        memory: Spatial memories of K tokens and after them pointer tokens (P, M*K + U, 64).
        positions: Their position encodings (M*K + U, 64), the same for all objects.
        num_pointers: U; pointer tokens have no place on the grid.
        rope: Of the grid.
        memory_rope: Of a spatial memory's K tokens.

    Returns:
        (P, h*w, D).
    """
    placed = memory + positions
    for number, layer in enumerate(module.layers):
        if number:
            cells = _look_around(layer, cells, rope)
        normed = layer.layer_norm2(cells)
        cells = cells + layer.dropout2(
            _rope_attention(layer.cross_attn_image, normed, placed, memory, rope, memory_rope, num_pointers)
        )
        cells = cells + _feed_forward(layer, cells)
    return module.layer_norm(cells)  # type: ignore[no-any-return]


def _look_around(layer: Any, cells: Tensor, rope: Rope) -> Tensor:
    normed = layer.layer_norm1(cells)
    found = _rope_attention(layer.self_attn, normed, normed, normed, rope, rope)
    return cells + layer.dropout1(found)  # type: ignore[no-any-return]


def _feed_forward(layer: Any, cells: Tensor) -> Tensor:
    normed = layer.layer_norm3(cells)
    if hasattr(layer, "mlp"):  # EdgeTAM
        return layer.dropout3(layer.mlp(normed))  # type: ignore[no-any-return]
    hidden = layer.dropout(layer.activation(layer.linear1(normed)))
    return layer.dropout3(layer.linear2(hidden))  # type: ignore[no-any-return]


def _rope_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, rope: Rope, key_rope: Rope, num_unplaced: int = 0
) -> Tensor:
    heads = module.num_attention_heads
    queries = rope.rotate(_heads(module.q_proj(query), heads))
    keys = key_rope.rotate(_heads(module.k_proj(key), heads), num_unplaced)
    mixed = _mix(queries, keys, _heads(module.v_proj(value), heads), module.dropout_p if module.training else 0.0)
    return module.o_proj(mixed)  # type: ignore[no-any-return]


def attention(module: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Multi-head attention of the mask decoder, each argument (1 or P, tokens, D) -> (1 or P, tokens, D)."""
    heads = module.num_attention_heads
    mixed = _mix(
        _heads(module.q_proj(query), heads), _heads(module.k_proj(key), heads), _heads(module.v_proj(value), heads)
    )
    return module.o_proj(mixed)  # type: ignore[no-any-return]


def _heads(tokens: Tensor, heads: int) -> Tensor:
    heads_first: Tensor = tokens.unflatten(-1, (heads, -1)).transpose(1, 2)
    return heads_first


def _mix(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention (1 or P, heads, tokens, E) -> (1 or P, tokens, heads * E)."""
    count = max(len(query), len(key))
    query, key, value = (x.expand(count, -1, -1, -1) for x in (query, key, value))
    mixed: Tensor = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout).transpose(1, 2).flatten(2)
    return mixed
