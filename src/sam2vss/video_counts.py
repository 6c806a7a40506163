"""Counts of pairs of frames in files, video by video, in one process or in several that share the videos."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import cv2

from .datasets.label_maps import LabelMaps
from .datasets.pairs import FramePair, PairedFrames
from .datasets.predictions import Findings, PredictionForm, PredictionReader, size_text
from .datasets.truth import TruthReader
from .errors import SettingsError, ShapeError
from .metrics import BoundaryReadings, VideoSegMetrics
from .types import LabelSpace

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class CountingPlan:
    """What every process needs to know to count a video.

    Attributes:
        label_space: What the truth's numbers mean.
        stored: What the predictions' numbers mean.
        form: How the predictions are stored.
        windows: The n of mVC_n.
        boundary: Which boundary scores to count.
        is_panoptic: Whether the truth holds VIPSeg's panoptic codes.
        maps: Reads the predictions where they are panoptic.
    """

    label_space: LabelSpace
    stored: LabelSpace
    form: PredictionForm
    windows: tuple[int, ...]
    boundary: BoundaryReadings
    is_panoptic: bool
    maps: LabelMaps | None = None

    def new_metrics(self) -> VideoSegMetrics:
        space, other_void = self.label_space, self.new_truth_reader().other_void_ids
        return VideoSegMetrics(space.num_classes, space.ignore_index, self.windows, other_void, boundary=self.boundary)

    def new_truth_reader(self) -> TruthReader:
        return TruthReader(self.label_space, self.is_panoptic)

    def new_reader(self) -> PredictionReader:
        return PredictionReader(self.label_space, self.stored, self.form, self.maps)


Counted = tuple[dict[str, Any], Findings]  # `VideoSegMetrics.state_dict` of one video, and what was seen


def count_videos(plan: CountingPlan, pairs: PairedFrames, workers: int, progress: Progress | None) -> Iterator[Counted]:
    """Yield the counts of every video, in order, whoever counts it.

    Args:
        plan: What to count, and how to read the files.
        pairs: The frames.
        workers: Processes that share the videos.
        progress: Called after every frame (with several workers: video) with frames done, frames in all, and the
            video's name.

    Raises:
        LabelError: If a file cannot be read or holds what does not fit.
        ShapeError: If sizes do not fit.
        SettingsError: If a process died.
    """
    total, done = pairs.num_frames, 0
    if workers == 1 or len(pairs.videos) == 1:
        for video, own in pairs.videos.items():
            start = done

            def tick(count: int, video: str = video, start: int = start) -> None:
                if progress:
                    progress(start + count, total, video)

            yield _count_video(plan, video, own, tick)
            done += len(own)
        return
    # "spawn": a fork would copy locks of threads that other libraries may hold
    with ProcessPoolExecutor(min(workers, len(pairs.videos)), get_context("spawn"), _one_thread) as pool:
        try:
            waiting = [(video, pool.submit(_count_video, plan, video, own)) for video, own in pairs.videos.items()]
            for video, future in waiting:
                try:
                    counted = future.result()
                except BrokenProcessPool as error:
                    raise SettingsError(
                        f"one of {workers} worker processes ended abruptly (out of memory, or a script without "
                        '`if __name__ == "__main__"`): pass --workers 1'
                    ) from error
                yield counted
                done += len(pairs.videos[video])
                if progress:
                    progress(done, total, video)
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _count_video(
    plan: CountingPlan, video: str, pairs: Sequence[FramePair], tick: Callable[[int], None] | None = None
) -> Counted:
    metrics, reader, truth = plan.new_metrics(), plan.new_reader(), plan.new_truth_reader()
    first: tuple[int, int] | None = None
    for count, pair in enumerate(pairs, 1):
        target = truth.read(pair.truth)
        size = (target.shape[0], target.shape[1])
        first = first or size
        if size != first:
            raise ShapeError(
                f"{pair.truth} is {size_text(size)}, the frames of {video} before it {size_text(first)}; "
                "a video needs frames of one size: split it, or resize its truth"
            )
        prediction = reader.missing(pair.name, size) if pair.prediction is None else reader.read(pair.prediction, size)
        metrics.update(prediction, target, clip=video)
        if tick:
            tick(count)
    return metrics.state_dict(), reader.findings
