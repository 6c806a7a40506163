"""Gathers the masks of a window's masklets while they are found and followed, in any order of frames."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..types import MaskletWindow, Window, encode_masks, rle_areas

IDS_PER_FRAME = 4096  # ids of a window start at its first frame times this


class MaskletRecorder:
    """Masklets of one window, rows in the order in which they were opened; a mask that was never put is empty."""

    def __init__(self, window: Window, size: tuple[int, int]) -> None:
        self.window = window
        self.size = size
        self._masks: list[dict[int, dict[str, Any]]] = [{} for _ in range(window.length)]
        self._frame_iou: list[dict[int, float]] = [{} for _ in range(window.length)]
        self._ids: list[int] = []
        self._predicted_iou: list[float] = []
        self._stability: list[float] = []
        self._points: list[tuple[float, float]] = []
        self._num_new = 0

    @property
    def num_masklets(self) -> int:
        """Masklets opened so far, carried ones included."""
        return len(self._ids)

    def open(
        self, predicted_iou: np.ndarray, stability: np.ndarray, points: np.ndarray, ids: np.ndarray | None = None
    ) -> list[int]:
        """Begin masklets, (K,), (K,) and (K, 2); new ones get ids of this window, carried ones bring theirs.

        Returns:
            Their rows.
        """
        count = len(predicted_iou)
        if ids is None:
            first = self.window.start * IDS_PER_FRAME + self._num_new
            ids = np.arange(first, first + count)
            self._num_new += count
        rows = list(range(len(self._ids), len(self._ids) + count))
        self._ids += [int(number) for number in ids]
        self._predicted_iou += [float(value) for value in predicted_iou]
        self._stability += [float(value) for value in stability]
        self._points += [(float(x), float(y)) for x, y in points]
        return rows

    def put(self, t: int, rows: Sequence[int], rles: Sequence[dict[str, Any]], predicted_iou: np.ndarray) -> None:
        """Store the masks that some masklets have in frame `t` of the window, with their predicted IoU (K,)."""
        self._masks[t].update(zip(rows, rles, strict=True))
        self._frame_iou[t].update(zip(rows, quality_of_masks(rles, predicted_iou).tolist(), strict=True))

    def covered(self, t: int) -> np.ndarray:
        """Return the pixels of frame `t` inside any mask put so far, bool (H, W)."""
        if not self._masks[t]:
            return np.zeros(self.size, bool)
        union: np.ndarray = coco_mask.decode(coco_mask.merge(list(self._masks[t].values())))
        return union.astype(bool)

    def finish(self) -> MaskletWindow:
        """Return all masklets with their masks."""
        empty = encode_masks(np.zeros((1, *self.size), bool))[0]
        rows = range(len(self._ids))
        frame_iou = [[quality.get(row, 0.0) for row in rows] for quality in self._frame_iou]
        return MaskletWindow(
            window=self.window,
            size=self.size,
            rles=tuple(tuple(masks.get(row, empty) for row in rows) for masks in self._masks),
            predicted_iou=np.array(self._predicted_iou, np.float32),
            stability=np.array(self._stability, np.float32),
            points=np.array(self._points, np.float32).reshape(-1, 2),
            ids=np.array(self._ids, np.int64),
            frame_iou=np.array(frame_iou, np.float32),
        )


def quality_of_masks(rles: Sequence[dict[str, Any]], predicted_iou: np.ndarray) -> np.ndarray:
    """Cut the predicted IoU of K masks of a frame to [0, 1], and make it 0 where a mask is empty: float32 (K,)."""
    return np.where(rle_areas(rles) > 0, predicted_iou.clip(0, 1), 0).astype(np.float32)
