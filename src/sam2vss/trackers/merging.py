"""Joins neighbouring regions of like colour, for a whole window at once.

Small regions follow a moving picture well and vote badly; joined by what they look like in all frames they stay
together throughout the window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """K regions and which of them touch.

    Attributes:
        areas: Pixels of each region over all frames looked at, float64 (K,).
        features: Mean features, float64 (K, D); of a region without pixels they mean nothing.
        edges: Pairs of touching regions, int64 (E, 2), the smaller number first, distinct.
        lengths: Length of their common border in pixel sides over all frames, float64 (E,).
    """

    areas: np.ndarray
    features: np.ndarray
    edges: np.ndarray
    lengths: np.ndarray


def build_graph(label_maps: Sequence[np.ndarray], pictures: Sequence[np.ndarray], num_regions: int) -> RegionGraph:
    """Gather areas, mean features and common borders from frames.

    Args:
        label_maps: Region 0..K-1 of every pixel, int32 (H, W) each.
        pictures: Features of every pixel, (H, W, D) each.
        num_regions: K.
    """
    areas = np.zeros(num_regions)
    sums = np.zeros((num_regions, pictures[0].shape[2]))
    keys, counts = [], []
    for labels, picture in zip(label_maps, pictures, strict=True):
        flat = labels.reshape(-1)
        areas += np.bincount(flat, minlength=num_regions)
        for channel in range(sums.shape[1]):
            sums[:, channel] += np.bincount(flat, picture[..., channel].reshape(-1), num_regions)
        for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            differs = one != other
            pairs = np.stack([one[differs], other[differs]]).astype(np.int64)
            found = np.unique(pairs.min(axis=0) * num_regions + pairs.max(axis=0), return_counts=True)
            keys.append(found[0])
            counts.append(found[1])
    features = sums / np.maximum(areas, 1)[:, None]
    edges, lengths = _join_edges(np.concatenate(keys), np.concatenate(counts).astype(float), num_regions)
    return RegionGraph(areas, features, edges, lengths)


def _join_edges(keys: np.ndarray, lengths: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray]:
    """Add up the lengths of edges with equal keys (smaller * K + larger)."""
    distinct, places = np.unique(keys, return_inverse=True)
    edges = np.stack(np.divmod(distinct, num_regions), axis=1)
    return edges, np.bincount(places, lengths, len(distinct))


def merge_regions(graph: RegionGraph, scale: float) -> np.ndarray:
    """Join touching regions while the picture gets simpler than it gets wrong.

    A pair costs n1 n2 / (n1 + n2) * |difference of means|^2 (the squared error that it adds) per length of common
    border that it saves. In each round every pair is joined whose regions are cheapest for each other, as long as it
    costs less than `scale`.

    Returns:
        Group of each region, int64 (K,), numbered 0..G-1 in the order of their smallest members.

    Source: the piecewise constant Mumford-Shah functional, joined greedily (Koepfler et al. 1994); rounds of mutually
    best pairs are ours.
    """
    groups = np.arange(len(graph.areas))
    areas, sums = graph.areas, graph.features * graph.areas[:, None]
    edges, lengths = graph.edges, graph.lengths
    while len(edges):
        means = sums / np.maximum(areas, 1)[:, None]
        one, other = edges.T
        both = areas[one] + areas[other]
        costs = (
            areas[one] * areas[other] / np.maximum(both, 1) * ((means[one] - means[other]) ** 2).sum(axis=1) / lengths
        )
        best = _best_edges(edges, costs, len(areas))
        index = np.arange(len(edges))
        chosen = (best[one] == index) & (best[other] == index) & (costs < scale)
        if not chosen.any():
            break
        target = np.arange(len(areas))
        target[other[chosen]] = one[chosen]
        kept, target = np.unique(target, return_inverse=True)
        groups = target[groups]
        areas = np.bincount(target, areas, len(kept))
        sums = np.stack([np.bincount(target, column, len(kept)) for column in sums.T], axis=1)
        pairs = np.sort(target[edges], axis=1)
        is_border = pairs[:, 0] != pairs[:, 1]
        pairs, lengths = pairs[is_border], lengths[is_border]
        edges, lengths = _join_edges(pairs[:, 0] * len(kept) + pairs[:, 1], lengths, len(kept))
    return groups


def _best_edges(edges: np.ndarray, costs: np.ndarray, num_regions: int) -> np.ndarray:
    """Return the cheapest edge of every region, the first of equal ones; int64 (K,), -1 without edges."""
    order = np.argsort(costs, kind="stable")[::-1]  # the cheapest comes last and stays
    best = np.full(num_regions, -1)
    for side in (0, 1):
        ranks = np.full(num_regions, -1)
        np.maximum.at(ranks, edges[order, side], np.arange(len(order)))
        best = np.maximum(best, ranks)
    return np.where(best >= 0, order[best], -1)
