"""What every point scores on one clip, counted while the sweep goes on and stored when the clip is over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..counts_files import read_counts, write_counts
from ..datasets.truth import other_void_values
from ..files import safe_name
from ..metrics import VideoSegMetrics
from ..types import Frame, LabelSpace
from .labels import ClipTruth
from .sweep import SweptWindow
from .work import Work

BASE = "base"


@dataclass
class Tally:
    """Counts of one point, or of the base labels, on one clip or on several.

    Attributes:
        metrics: Counts behind the scores.
        windows: Windows refined.
        masklets: Their masklets.
        frames: Frames refined, with truth or without.
        coverage: Sum over these frames of the fraction inside masklets.
        needed: Work of a run of the point alone.
    """

    metrics: VideoSegMetrics
    windows: int = 0
    masklets: int = 0
    frames: int = 0
    coverage: float = 0.0
    needed: Work = field(default_factory=Work)

    def score(self, clip: str, labels: np.ndarray, truth: np.ndarray | None) -> None:
        """Count one frame, labels (H, W), if it has truth."""
        if truth is not None:
            self.metrics.update(labels, truth, clip=clip)

    def add_window(self, window: SweptWindow) -> None:
        """Count what a window took."""
        self.windows += 1
        self.masklets += window.refinement.masklets.num_masklets
        self.frames += len(window.frames)
        self.coverage += float(window.refinement.coverage.sum())
        self.needed += window.needed

    def merge(self, other: "Tally") -> None:
        """Add another clip."""
        self.metrics.merge(other.metrics)
        self.windows += other.windows
        self.masklets += other.masklets
        self.frames += other.frames
        self.coverage += other.coverage
        self.needed += other.needed

    def write(self, path: Path) -> None:
        """Store the tally; the file is there whole or not at all."""
        facts = (self.windows, self.masklets, self.frames, self.coverage)
        content = {"metrics": self.metrics.state_dict(), "facts": facts, "needed": self.needed.to_dict()}
        write_counts(path, content)

    @classmethod
    def read(cls, path: Path, metrics: VideoSegMetrics) -> "Tally":
        """Read a stored tally into a fresh counter.

        Raises:
            RunError: If the file is not there or damaged.
            SettingsError: If it was counted with other windows or classes.
        """
        content: dict[str, Any] = read_counts(path)
        metrics.load_state_dict(content["metrics"])
        windows, masklets, frames, coverage = content["facts"]
        return cls(metrics, windows, masklets, frames, coverage, Work(**content["needed"]))


def new_metrics(label_space: LabelSpace, windows: Sequence[int]) -> VideoSegMetrics:
    """Return a counter for labels of these classes."""
    other_void = tuple(other_void_values(label_space).values())
    return VideoSegMetrics(label_space.num_classes, label_space.ignore_index, windows, other_void)


def tally_path(folder: Path, windows: Sequence[int], clip: str, row: str) -> Path:
    """Return where the tally of a point (by its key) or of the base labels on a clip lies."""
    return folder / "counts" / "-".join(map(str, windows)) / safe_name(clip) / f"{row}.npz"


class TruthAtHand:
    """True labels of the frames between the slowest point and the fastest one, each read once."""

    def __init__(self, truth: ClipTruth) -> None:
        self._truth = truth
        self._maps: dict[int, np.ndarray | None] = {}

    def of(self, frame: Frame) -> np.ndarray | None:
        """Return the truth of a frame, (H, W), or None where it has none."""
        if frame.index not in self._maps:
            self._maps[frame.index] = self._truth.of(frame)
        return self._maps[frame.index]

    def forget(self, number: int) -> None:
        """Forget a frame that is over."""
        self._maps.pop(number, None)
