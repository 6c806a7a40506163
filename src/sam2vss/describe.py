"""Describes the masklets of a window by features, shape and base labels, and judges them by ground truth.

What comes out is all that a namer or a trainer sees of a window; frames and masks are not looked at again.
"""

import numpy as np

from .errors import ShapeError, WeightsError
from .interfaces import FeatureEncoder
from .mask_runs import decode_runs, mask_boxes, pool_areas
from .masklet_features import MaskletFeatures, MaskletTruth
from .pooling import Pooling, choose_cells, pool_masks, take_cells
from .settings import OverlapOrder
from .types import BaseLabels, LabelSpace, MaskletWindow
from .voting import add_frame_probabilities, count_frame_votes, paint_order, top_masklets


def describe_window(
    images: np.ndarray,
    masklets: MaskletWindow,
    encoder: FeatureEncoder | None = None,
    pooling: Pooling | None = None,
    base: BaseLabels | None = None,
    label_space: LabelSpace | None = None,
) -> MaskletFeatures:
    """Describe the masklets of a window.

    Args:
        images: Frames, uint8 RGB (L, H, W, 3).
        masklets: N masklets over the same frames.
        encoder: Gives feature maps; None: no features are pooled.
        pooling: What is pooled; default: the mean, Eq. 3.
        base: Base labels of the frames; None: no votes.
        label_space: Their classes.

    Raises:
        ShapeError: If frames, labels and masklets do not fit together.
        LabelError: If base labels lie outside the label space.
        WeightsError: If the encoder gives numbers that are not finite.
    """
    if images.shape[:3] != (masklets.window.length, *masklets.size):
        raise ShapeError(
            f"frames have shape {images.shape}, the masklets are of {masklets.window.length} frames of size "
            f"{masklets.size}: both must come from the same frames"
        )
    pooling = pooling or Pooling()
    length, count = masklets.window.length, masklets.num_masklets
    width = len(pooling.parts) * sum(encoder.channels) if encoder is not None else 0
    num_tokens, token_width = (
        (pooling.tokens, encoder.channels[0]) if encoder is not None and pooling.tokens else (0, 0)
    )
    areas = np.zeros((length, count), np.int64)
    boxes = np.zeros((length, count, 4), np.float32)
    features = np.zeros((length, count, width), np.float32)
    tokens = np.zeros((length, count, num_tokens, token_width), np.float32)
    scale = np.array([masklets.size[1], masklets.size[0]] * 2, np.float32)
    for t in range(length):
        runs = decode_runs(masklets.rles[t], masklets.size)
        areas[t], boxes[t] = runs.areas, mask_boxes(runs) / scale
        if encoder is None or not areas[t].any():
            continue
        levels = encoder.encode(images[t])
        if not all(np.isfinite(level).all() for level in levels):  # one would spoil the features of every masklet
            raise WeightsError(
                f"the features of {encoder.name} in frame {masklets.window.start + t} are not all finite numbers: "
                "try --dtype float32, or other weights"
            )
        weights = [pool_areas(runs, (level.shape[1], level.shape[2])) for level in levels]
        features[t] = pool_masks(levels, weights, pooling.parts)
        if num_tokens:
            tokens[t] = take_cells(levels[0], choose_cells(weights[0], num_tokens))
    is_visible = areas > 0
    iou = masklets.predicted_iou if masklets.frame_iou is None else masklets.frame_iou
    votes, masses = _votes(masklets, base, label_space)
    return MaskletFeatures(
        window=masklets.window,
        size=masklets.size,
        ids=masklets.ids,
        predicted_iou=masklets.predicted_iou.astype(np.float32),
        stability=masklets.stability.astype(np.float32),
        frame_iou=np.where(is_visible, iou, 0).astype(np.float32),
        areas=areas,
        boxes_xyxy=boxes,
        features=features * is_visible[..., None],
        tokens=tokens * is_visible[..., None, None],
        votes=votes,
        masses=masses,
    )


def _votes(
    masklets: MaskletWindow, base: BaseLabels | None, label_space: LabelSpace | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if base is None:
        return None, None
    assert label_space is not None, "base labels come with their label space"
    votes = count_frame_votes(masklets, base.labels, label_space)
    if base.probabilities is None:
        return votes, None
    is_voting = base.labels != label_space.ignore_index
    return votes, add_frame_probabilities(masklets, base.probabilities, is_voting).astype(np.float32)


def judge_window(
    masklets: MaskletWindow,
    truth: np.ndarray,
    label_space: LabelSpace,
    base: np.ndarray | None = None,
    overlap: OverlapOrder = "small-on-top",
) -> MaskletTruth:
    """Count what ground truth says of the masklets of a window.

    Args:
        masklets: N masklets over L frames of size (H, W).
        truth: Train ids or the ignore index, (L, H, W).
        label_space: The classes of `truth` and `base`.
        base: Base labels of the same form, if there are any.
        overlap: Which masklet lies on top.

    Raises:
        ShapeError: If labels do not fit the masklets.
        LabelError: If labels lie outside the label space.
    """
    classes = count_frame_votes(masklets, truth, label_space)
    if base is not None:
        if base.shape != truth.shape:
            raise ShapeError(f"base labels have shape {base.shape}, expected that of the truth, {truth.shape}")
        label_space.check(base, "base labels")
    top_classes, top_base, top_kept = (np.zeros_like(classes) for _ in range(3))
    order = paint_order(masklets, overlap)
    num_classes = label_space.num_classes
    for t in range(masklets.window.length):
        top = top_masklets(masklets, t, order)
        is_counted = (top >= 0) & (truth[t] < num_classes)
        owners, labels = top[is_counted].astype(np.int64), truth[t][is_counted]
        top_classes[t] = _histogram(owners, labels, classes[t].shape)
        if base is not None:
            base_labels = base[t][is_counted]
            is_right, is_known = base_labels == labels, base_labels < num_classes
            top_base[t] = _histogram(owners[is_known], base_labels[is_known], classes[t].shape)
            top_kept[t] = _histogram(owners[is_right], labels[is_right], classes[t].shape)
    return MaskletTruth(classes, top_classes, top_base, top_kept)


def _histogram(owners: np.ndarray, labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Count pixels by masklet and label, int64 (N, C)."""
    return np.bincount(owners * shape[1] + labels, minlength=shape[0] * shape[1]).reshape(shape)
