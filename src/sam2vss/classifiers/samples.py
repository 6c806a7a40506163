"""From what is known of a window's masklets to a classifier's rows: one per masklet, or per masklet and frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import WeightsError
from ..masklet_features import MaskletFeatures
from ..settings import FrameWeighting, VoteScope

SHAPE_NAMES = (
    "log area", "root area", "center x", "center y", "width", "height", "at border", "predicted IoU", "stability",
    "IoU in frame", "visible",
)  # fmt: skip
BORDER_WEIGHT = 0.5  # ours: what a frame counts in which a mask is cut off by the picture's border
_SMALLEST_AREA = 1e-5  # of the picture; keeps the logarithm finite


@dataclass(frozen=True, eq=False)
class Samples:
    """M rows for a classifier, taken from one or several windows.

    Attributes:
        features: float32 (M, F).
        tokens: float32 (M, S, D).
        shapes: float32 (M, 11), in the order of `SHAPE_NAMES`, each roughly within [-1, 1].
        groups: int64 (M,): rows of one frame (scope "frame") or window (scope "window") have the same number.
        frames: int64 (M,): frame of the window, -1 with scope "window".
        masklets: int64 (M,): position of the masklet in its window.
    """

    features: np.ndarray
    tokens: np.ndarray
    shapes: np.ndarray
    groups: np.ndarray
    frames: np.ndarray
    masklets: np.ndarray

    def __len__(self) -> int:
        return len(self.features)


def make_samples(known: MaskletFeatures, scope: VoteScope, weighting: FrameWeighting = "uniform") -> Samples:
    """Make the rows of one window; masklets without any mask have none.

    Args:
        known: N masklets over L frames.
        scope: "frame": a row for every visible mask, as Eq. 3 has it. "window": a row for every masklet, its frames
            averaged.
        weighting: How frames are averaged: "uniform", or by "quality", see `frame_weights`.

    Source: scope "frame" is paper Eq. 3; everything else is ours.
    """
    shapes = _shapes(known)
    if scope == "frame":
        frames, masklets = np.nonzero(known.is_visible)
        return Samples(
            known.features[frames, masklets],
            known.tokens[frames, masklets],
            shapes[frames, masklets],
            groups=frames,
            frames=frames,
            masklets=masklets,
        )
    masklets = np.flatnonzero(known.is_visible.any(axis=0))
    weights = frame_weights(known, weighting)[:, masklets]  # (L, M)
    shares = (weights / weights.sum(axis=0)).astype(np.float32)
    return Samples(
        np.einsum("lm,lmf->mf", shares, known.features[:, masklets]),
        _spread_tokens(known.tokens[:, masklets], shares),
        np.einsum("lm,lmg->mg", shares, shapes[:, masklets]),
        groups=np.zeros(len(masklets), np.int64),
        frames=np.full(len(masklets), -1),
        masklets=masklets,
    )


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Put the rows of several windows behind one another; their groups stay apart."""
    offsets = np.cumsum([0] + [int(part.groups.max(initial=-1)) + 1 for part in parts])
    columns = ("features", "tokens", "shapes", "frames", "masklets")
    return Samples(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        groups=np.concatenate([part.groups + offset for part, offset in zip(parts, offsets, strict=False)]),
    )


def frame_weights(known: MaskletFeatures, weighting: FrameWeighting) -> np.ndarray:
    """Return how much each frame counts for a masklet, float64 (L, N); 0 where it has no mask.

    "uniform" counts all frames alike. "quality" counts a frame by the root of the mask's area, times its predicted IoU,
    times 0.5 where the picture's border cuts it off: small, doubtful and partial views say less.

    Source: ours.
    """
    is_visible = known.is_visible
    if weighting == "uniform":
        return is_visible.astype(np.float64)
    at_border = np.where(_touches_border(known), BORDER_WEIGHT, 1.0)
    weights: np.ndarray = np.sqrt(known.areas) * np.maximum(known.frame_iou, 0.01) * at_border * is_visible
    return weights


def feature_columns(
    stored_parts: Sequence[str], channels: Sequence[int], level_names: Sequence[str], parts: Sequence[str],
    levels: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """Return which columns of stored features hold the wanted parts and levels, in the order of `pooling.pool_masks`.

    Raises:
        WeightsError: If a part or level was not stored.
    """
    starts = dict(zip(level_names, np.cumsum([0, *channels[:-1]]), strict=True))
    missing = [part for part in parts if part not in stored_parts] + [name for name in levels if name not in starts]
    if missing:
        raise WeightsError(
            f"the features hold {', '.join(stored_parts)} of {', '.join(level_names)}, and {missing[0]} is not among "
            "them: make them again"
        )
    widths = dict(zip(level_names, channels, strict=True))
    width = sum(channels)
    pieces = [
        stored_parts.index(part) * width + starts[name] + np.arange(widths[name]) for part in parts for name in levels
    ]
    return np.concatenate(pieces)


def _touches_border(known: MaskletFeatures) -> np.ndarray:
    x0, y0, x1, y1 = np.moveaxis(known.boxes_xyxy, -1, 0)
    touches: np.ndarray = known.is_visible & ((x0 <= 0) | (y0 <= 0) | (x1 >= 1) | (y1 >= 1))
    return touches


def _shapes(known: MaskletFeatures) -> np.ndarray:
    """Describe the shapes of masks, float32 (L, N, 11)."""
    x0, y0, x1, y1 = np.moveaxis(known.boxes_xyxy, -1, 0)
    area = known.areas / (known.size[0] * known.size[1])
    ones = np.ones_like(area)
    columns = (
        np.log10(np.maximum(area, _SMALLEST_AREA)) / 5 + 0.5,
        np.sqrt(area),
        (x0 + x1) - 1,
        (y0 + y1) - 1,
        x1 - x0,
        y1 - y0,
        _touches_border(known),
        known.predicted_iou * ones,
        known.stability * ones,
        known.frame_iou,
        known.is_visible.mean(axis=0) * ones,
    )
    return np.stack(columns, axis=-1).astype(np.float32)


def _spread_tokens(tokens: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Take the S tokens of each masklet from frames spread over its window, (L, M, S, D) -> (M, S, D)."""
    num_tokens = tokens.shape[2]
    if not num_tokens:
        return np.zeros((tokens.shape[1], 0, 0), np.float32)
    sums = shares.cumsum(axis=0)  # (L, M), rising to 1
    goals = (np.arange(num_tokens) + 0.5) / num_tokens
    frames = (sums[:, :, None] < goals).sum(axis=0).clip(max=len(tokens) - 1)  # (M, S)
    taken: np.ndarray = tokens[frames, np.arange(tokens.shape[1])[:, None], np.arange(num_tokens)]
    return taken
