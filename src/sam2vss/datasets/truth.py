"""True label maps in files, turned into train ids; what no label set explains is an error that names the file."""

from pathlib import Path

import cv2
import numpy as np

from ..types import WIDE_IGNORE_INDEX, LabelSpace
from .folders import read_ids
from .panoptic_codes import decode_vipseg


class TruthReader:
    """Reads the label maps of a data set as train ids.

    Args:
        label_space: What their numbers mean.
        is_panoptic: Whether they hold VIPSeg's panoptic codes.

    Attributes:
        other_void_ids: Values that stand for the void ids after the first, see `other_void_values`.
    """

    def __init__(self, label_space: LabelSpace, is_panoptic: bool = False) -> None:
        self._label_space = label_space
        self._is_panoptic = is_panoptic
        other_void = other_void_values(label_space)
        self.other_void_ids = tuple(other_void.values())
        self._table = np.full(WIDE_IGNORE_INDEX + 1, label_space.ignore_index, label_space.dtype)
        self._table[list(label_space.raw_ids)] = np.arange(label_space.num_classes)
        self._table[list(other_void)] = list(other_void.values())
        self._is_stranger = np.ones(WIDE_IGNORE_INDEX + 1, np.uint8)
        self._is_stranger[[*label_space.raw_ids, *label_space.raw_void]] = 0

    def read(self, path: Path) -> np.ndarray:
        """Return a label map as train ids or void, uint8 or uint16 (H, W).

        Raises:
            LabelError: If the file cannot be read or holds numbers outside the label set.
        """
        raw = read_ids(path)
        if self._is_panoptic:
            return decode_vipseg(raw, self._label_space, str(path)).semantic
        if look_up(self._is_stranger, raw).any():
            self._label_space.from_raw(raw, what=str(path))  # raises, and says which numbers
        return look_up(self._table, raw)


def other_void_values(label_space: LabelSpace) -> dict[int, int]:
    """Give every void id but the first a value of its own, counting down from the ignore index.

    VSPW stores void as 0 and as 255, and its scripts take the two for different labels when they look for pixels whose
    truth stays the same. Where there is no room for a value beside the classes, the void ids stay one.
    """
    room = range(label_space.ignore_index - 1, label_space.num_classes - 1, -1)
    return dict(zip(label_space.raw_void[1:], room, strict=False))


def look_up(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return `table[ids]` for a table of 65536 entries and uint8 or uint16 ids (H, W), several times faster."""
    if ids.dtype == table.dtype == np.uint8 and ids.size:
        return np.asarray(cv2.LUT(ids, table[:256]))
    found: np.ndarray = np.take(table, ids)
    return found
