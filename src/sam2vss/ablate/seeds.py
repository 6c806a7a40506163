"""The automatic masks of a window's first frame, compressed: what every point chooses its masklets from."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..sam2.candidates import Selection
from ..sam2.recorder import quality_of_masks
from ..sam2.savings import Savings
from ..types import MaskletWindow, Window, encode_masks


def compress_selection(selection: Selection, start: int, size: tuple[int, int]) -> MaskletWindow:
    """Return selected masks as masklets of one frame, in their order: best predicted IoU first."""
    scores = (selection.predicted_iou, selection.stability, selection.points)
    predicted_iou, stability, points = (part.float().cpu().numpy() for part in scores)
    rles = encode_masks(selection.masks.cpu().numpy())
    return MaskletWindow(
        window=Window(start, 1),
        size=size,
        rles=(rles,),
        predicted_iou=predicted_iou,
        stability=stability,
        points=points.reshape(-1, 2),
        ids=np.arange(len(predicted_iou)),
        frame_iou=quality_of_masks(rles, predicted_iou)[None],
    )


def choose_seeds(seeds: MaskletWindow, savings: Savings, labels: np.ndarray, ignore_index: int) -> MaskletWindow:
    """Keep the masks that are followed, given the base labels of the window, (L, H, W)."""
    if savings == Savings():
        return seeds
    selection = Selection(
        masks=torch.from_numpy(seeds.stack(0)),
        predicted_iou=torch.from_numpy(seeds.predicted_iou),
        stability=torch.from_numpy(seeds.stability),
        points=torch.from_numpy(seeds.points),
        rows=torch.arange(seeds.num_masklets),
    )
    return take_rows(seeds, savings.choose(selection, labels, ignore_index).tolist())


def take_rows(window: MaskletWindow, rows: Sequence[int]) -> MaskletWindow:
    """Return some masklets of a window, in the order of `rows`."""
    return MaskletWindow(
        window=window.window,
        size=window.size,
        rles=tuple(tuple(frame[row] for row in rows) for frame in window.rles),
        predicted_iou=window.predicted_iou[list(rows)],
        stability=window.stability[list(rows)],
        points=window.points[list(rows)],
        ids=window.ids[list(rows)],
        frame_iou=None if window.frame_iou is None else window.frame_iou[:, list(rows)],
    )


def mask_key(rle: dict[str, Any]) -> str:
    """Tell a mask from every other one of its size: what becomes of an object depends on its first mask alone."""
    counts = rle["counts"]
    return hashlib.blake2b(counts.encode() if isinstance(counts, str) else counts, digest_size=16).hexdigest()
