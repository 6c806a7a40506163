"""Pixels per class under marks such as "in the truth's boundary band", all marks in two tables.

Every score of regions and boundaries is made of three numbers a class: pixels of the truth's region under one mark,
of the prediction's under another, and of both. With the marks as bits of one plane they all come from the same pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .planes import Planes
from .spans import Spans, count_table


def combine_marks(masks: Sequence[np.ndarray], planes: Planes) -> np.ndarray:
    """Put up to eight masks, bool (H, W) each, into the bits of one uint8 plane, the first into the lowest."""
    marks = planes.small("marks")
    marks.fill(0)
    for mask in reversed(masks):
        np.add(marks, marks, out=marks)
        np.add(marks, mask.view(np.uint8), out=marks)
    return marks


@dataclass(frozen=True, eq=False)
class MarkedCounts:
    """Pixels per class and combination of marks, e.g. "in the band and at the prediction's boundary".

    Attributes:
        truth: int64 (C, M): class of the truth, marks (bits of 0..M-1).
        prediction: int64 (C, M): class of the prediction where the truth is labelled, marks.
    """

    truth: np.ndarray
    prediction: np.ndarray

    @classmethod
    def count(
        cls,
        spans: Spans | None,
        truth: np.ndarray,
        prediction: np.ndarray,
        marks: np.ndarray,
        num_classes: int,
        num_marks: int,
    ) -> "MarkedCounts":
        """Count the pixels of a frame.

        Args:
            spans: Where labels and marks change; None counts pixel by pixel.
            truth: Labels 0..C (H, W), C is void.
            prediction: Labels 0..C (H, W) with the truth's void; C is also unlabelled.
            marks: uint8 (H, W), see `combine_marks`.
            num_classes: C.
            num_marks: Bits in use, M = 2 ** num_marks.
        """
        shape = (num_classes + 1, 1 << num_marks)
        sides = (count_table(spans, (labels, marks), shape)[:-1] for labels in (truth, prediction))
        return cls(*sides)

    @property
    def present(self) -> np.ndarray:
        """The classes that either side holds, in order, intp."""
        return np.flatnonzero(self.truth.any(axis=1) | self.prediction.any(axis=1))

    def regions(self, right_mark: int, truth_mark: int, prediction_mark: int) -> np.ndarray:
        """Count the truth's regions under one mark, the prediction's under another, and where both agree.

        Args:
            right_mark: Number of the mark "truth and prediction are equal".
            truth_mark: Number of the mark that limits the truth's regions.
            prediction_mark: Number of the mark that limits the prediction's.

        Returns:
            int64 (3, C): both, truth, prediction.
        """
        marks = np.arange(self.truth.shape[1])
        is_right, in_truth, in_prediction = (
            (marks >> mark & 1).astype(bool) for mark in (right_mark, truth_mark, prediction_mark)
        )
        return np.stack(
            [
                self.truth[:, is_right & in_truth & in_prediction].sum(axis=1),
                self.truth[:, in_truth].sum(axis=1),
                self.prediction[:, in_prediction].sum(axis=1),
            ]
        )
