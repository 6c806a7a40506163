"""What is kept of a clip: integers from which every score of every protocol can be computed, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ..errors import LabelError, ShapeError
from .boundary import BOUNDARY_IOU_PX, boundary_iou_distance, copy_void, mark_boundaries
from .confusion import fold_strangers, work_dtype
from .consistency import NUM_COLUMNS, ConsistencyCounter
from .contours import NUM_CONTOUR_ROWS, ContourCounter
from .marks import MarkedCounts, combine_marks
from .planes import Planes
from .spans import count_table, find_spans

BoundaryReadings = Literal["band", "full"]
# Columns of `ClipCounts.frame_pixels`.
BAND, BAND_RIGHT, LABELLED, LABELLED_RIGHT = range(4)
NUM_FRAME_COLUMNS: Final = 4
# Marks of a pixel, in the order in which they are combined.
_RIGHT, _BAND, _TRUTH_EDGE, _PREDICTION_EDGE, _WIDE_TRUTH_EDGE, _WIDE_PREDICTION_EDGE = range(6)


@dataclass(frozen=True, eq=False)
class ClipCounts:
    """Counts of one clip. All arrays are int64; counts of different clips add up.

    Attributes:
        frames: T.
        size: (H, W) of the frames.
        confusion: (C, C+1): pixels of truth's class (row) with the predicted class (column); column C: unlabelled.
        band: (3, C): correct, true and predicted pixels inside the truth's 5 x 5 boundary band.
        boundary: (3, C): the same of the two-sided Boundary IoU at 2 px (intersection, truth's boundary,
            prediction's).
        wide_boundary: (3, C): the same at 2 % of the diagonal; all zero where that was not counted.
        contours: (4, C): contour pixels of the truth that match, all of them, the same of the prediction's; all zero
            where they were not counted.
        frame_pixels: (T, 4) per frame: labelled pixels in the band, correct ones there, labelled pixels, correct ones.
        windows: For every n, one row per window of n frames (see `consistency`), in order of time.
    """

    frames: int
    size: tuple[int, int]
    confusion: np.ndarray
    band: np.ndarray
    boundary: np.ndarray
    wide_boundary: np.ndarray
    contours: np.ndarray
    frame_pixels: np.ndarray
    windows: Mapping[int, np.ndarray]

    @property
    def num_classes(self) -> int:
        return len(self.confusion)

    @classmethod
    def empty(cls, num_classes: int, windows: Sequence[int]) -> "ClipCounts":
        """Counts of a clip without frames."""
        return cls(
            frames=0,
            size=(0, 0),
            confusion=np.zeros((num_classes, num_classes + 1), np.int64),
            band=np.zeros((3, num_classes), np.int64),
            boundary=np.zeros((3, num_classes), np.int64),
            wide_boundary=np.zeros((3, num_classes), np.int64),
            contours=np.zeros((NUM_CONTOUR_ROWS, num_classes), np.int64),
            frame_pixels=np.zeros((0, NUM_FRAME_COLUMNS), np.int64),
            windows={n: np.zeros((0, NUM_COLUMNS), np.int64) for n in windows},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain integers, tuples and arrays."""
        return {
            "frames": self.frames,
            "size": self.size,
            "confusion": self.confusion,
            "band": self.band,
            "boundary": self.boundary,
            "wide_boundary": self.wide_boundary,
            "contours": self.contours,
            "frame_pixels": self.frame_pixels,
            "windows": dict(self.windows),
        }


class ClipCounter:
    """Counts one clip frame by frame; its memory does not depend on the size of frames times their number.

    Args:
        num_classes: C.
        windows: The n of VC, each in 2..255.
        void_ids: Values of the truth that are void; the first one is the usual one.
        name: Name of the clip for messages.
        boundary: Which boundary readings to count.
    """

    def __init__(
        self,
        num_classes: int,
        windows: Sequence[int],
        void_ids: Sequence[int],
        name: str,
        boundary: BoundaryReadings = "band",
    ) -> None:
        self._num_classes = num_classes
        self._void_ids = tuple(void_ids)
        self._name = name
        self._is_full = boundary == "full"
        self._counts = ClipCounts.empty(num_classes, windows)  # its arrays are added to in place
        self._size: tuple[int, int] | None = None
        self._planes: Planes | None = None
        self._contours: ContourCounter | None = None
        self._frame_pixels: list[tuple[int, int, int, int]] = []
        self._consistency = ConsistencyCounter(windows, num_classes)

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count the clip's next frame, integers (H, W) each.

        Raises:
            ShapeError: If the two differ in size, or the size differs from the frame before.
            LabelError: If the truth holds values that are neither classes nor void.
        """
        size: tuple[int, int] = truth.shape[0], truth.shape[1]
        if prediction.shape != truth.shape or (self._size or size) != size or not truth.size:
            raise ShapeError(
                f"frame {len(self._frame_pixels)} of {self._where}: prediction {prediction.shape}, truth {truth.shape}"
                + (f", frames before {self._size}" if self._size else "")
                + "; all must have the same, non-empty size (H, W)"
            )
        planes = self._planes or Planes(size, work_dtype(self._num_classes))
        truth_ids = fold_strangers(truth, self._num_classes, planes.labels("truth"))
        predicted_ids = fold_strangers(prediction, self._num_classes, planes.labels("prediction"))
        has_other_void = self._check_void(truth, truth_ids)
        self._size, self._planes = size, planes

        distances = [BOUNDARY_IOU_PX, *([boundary_iou_distance(size)] if self._is_full else [])]
        masked = copy_void(truth_ids, predicted_ids, self._num_classes, planes)
        band, edges = mark_boundaries(truth_ids, masked, distances, planes)
        is_right = np.equal(truth_ids, predicted_ids, out=planes.mask("right"))
        masks = [is_right, band, *(mask for pair in edges for mask in (pair.truth, pair.prediction))]
        marks = combine_marks(masks, planes)
        spans = find_spans([truth_ids, predicted_ids, marks], planes)
        cells = (self._num_classes + 1, self._num_classes + 1)
        # row C, void pixels of the truth, counts nowhere
        confusion = count_table(spans, (truth_ids, predicted_ids), cells)[:-1]
        marked = MarkedCounts.count(spans, truth_ids, masked, marks, self._num_classes, len(masks))
        self._add_regions(confusion, marked)
        if self._is_full:
            self._contours = self._contours or ContourCounter(size, self._num_classes)
            self._counts.contours[:] += self._contours.count(truth_ids, masked, marked.present, planes)
        self._consistency.update(truth_ids, predicted_ids, truth, prediction, planes, has_other_void)

    def counts(self) -> ClipCounts:
        """Return a copy of what was counted so far."""
        pixels = np.array(self._frame_pixels, np.int64).reshape(-1, NUM_FRAME_COLUMNS)
        return ClipCounts(
            frames=len(pixels),
            size=self._size or (0, 0),
            confusion=self._counts.confusion.copy(),
            band=self._counts.band.copy(),
            boundary=self._counts.boundary.copy(),
            wide_boundary=self._counts.wide_boundary.copy(),
            contours=self._counts.contours.copy(),
            frame_pixels=pixels,
            windows=self._consistency.counts(),
        )

    @property
    def _where(self) -> str:
        return f"clip {self._name!r}" if self._name else "the clip"

    def _add_regions(self, confusion: np.ndarray, marked: MarkedCounts) -> None:
        band = marked.regions(_RIGHT, _BAND, _BAND)
        self._counts.confusion[:] += confusion
        self._counts.band[:] += band
        self._counts.boundary[:] += marked.regions(_RIGHT, _TRUTH_EDGE, _PREDICTION_EDGE)
        if self._is_full:
            self._counts.wide_boundary[:] += marked.regions(_RIGHT, _WIDE_TRUTH_EDGE, _WIDE_PREDICTION_EDGE)
        self._frame_pixels.append(
            (int(band[1].sum()), int(band[0].sum()), int(confusion.sum()), int(np.trace(confusion)))
        )

    def _check_void(self, truth: np.ndarray, truth_ids: np.ndarray) -> bool:
        """Refuse values that are neither classes nor void; return whether there is more than the usual void."""
        num_outside = np.count_nonzero(truth_ids == self._num_classes)
        if np.count_nonzero(truth == self._void_ids[0]) == num_outside:
            return False
        strangers = np.setdiff1d(truth[truth_ids == self._num_classes], self._void_ids)
        if strangers.size:
            raise LabelError(
                f"the truth of frame {len(self._frame_pixels)} of {self._where} holds {strangers[:10].tolist()}; "
                f"expected 0..{self._num_classes - 1} or void {list(self._void_ids)}. "
                "Convert raw ids with LabelSpace.from_raw, or pass ignore_index."
            )
        return True
