"""Sweeps all clips of an ablation, one after the other or in several processes, and makes the board."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from queue import Empty
from typing import Any, Final

import numpy as np

from ..boards.scoreboard import Scoreboard
from ..errors import RunError, SettingsError
from ..interfaces import BaseLabelSource
from ..media import ImageClip
from ..pipeline import check_clips
from .board import make_board
from .engine import Engine
from .folder import AblationFolder, open_folder
from .forecast import ASSUMED_MASKLETS, COMMON_SHARE
from .frame_cache import FrameCache
from .grid import Point
from .labels import PLAIN, ClipLabels, LabelKind
from .plan import AblationPlan, check_same_classes
from .sweep import ClipSweep, SweptWindow, lowest_floor
from .tally import BASE, Tally, TruthAtHand, new_metrics, tally_path

PROMPT_COST: Final = 0.05  # ours, in encoded frames: a point prompted, a mask followed; measured with sam2-nano
FOLLOW_COST: Final = 0.45

Progress = Callable[[float, float, str], None]
"""Told the share of the work that is done and all of it, in units of about one encoded frame, and the clip's name."""


def run_ablation(
    plan: AblationPlan,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Scoreboard:
    """Refine and score all clips with all points, and compare every point with the base of the grid.

    What is finished stays in the folder: an interrupted sweep goes on with `resume`, to the same board but for the work
    that was done twice; so does a sweep with another grid on the same clips, labels and weights.

    Args:
        plan: What to do, see `plan_ablation`.
        workers: Processes; each takes clips of its own, and loads the networks.
        resume: Go on with the ablation in the folder.
        overwrite: Replace it.
        progress: Told how far it is.
        command: Command that makes the board again, for the record.

    Raises:
        SettingsError: If `workers` is below 1, or `resume` and `overwrite` are both given.
        RunError: If the folder holds something else, or another process works in it.
        Sam2VssError: If a clip, its labels or its truth cannot be read; what is finished stays for a resumed run.
    """
    if workers < 1:
        raise SettingsError(f"--workers is {workers}, expected at least 1")
    if resume and overwrite:
        raise SettingsError("--resume goes on with the ablation in --out, --overwrite replaces it: pass one of them")
    with AblationFolder(plan.out).locked():
        folder = open_folder(plan, resume, overwrite)
        _sweep_all(plan, folder, workers, _Meter(plan, progress))
        return make_board(plan, folder, command)


class _Meter:
    """Adds up the cost of first frames that are over."""

    def __init__(self, plan: AblationPlan, progress: Progress | None) -> None:
        self._progress = progress
        self._total = sum(clip_cost(plan, clip) for clip in plan.data.clips)
        self._done = 0.0

    def add(self, cost: float, clip: str) -> None:
        self._done += cost
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total, clip)


def _sweep_all(plan: AblationPlan, folder: AblationFolder, workers: int, meter: _Meter) -> None:
    if workers == 1 or len(plan.data.clips) == 1:
        session = Session(plan, folder)
        for clip in plan.data.clips:
            session.sweep(clip, meter.add)
        return
    context = get_context("spawn")  # a fork would copy locks of threads that other libraries may hold
    queue = context.Queue()
    with ProcessPoolExecutor(
        min(workers, len(plan.data.clips)), context, _begin, (plan, folder, workers, queue)
    ) as pool:
        futures = [pool.submit(_sweep_in_process, clip) for clip in plan.data.clips]
        try:
            listener = threading.Thread(target=_listen, args=(queue, meter, futures), daemon=True)
            listener.start()
            for future in as_completed(futures):
                future.result()
            listener.join()
        except BrokenProcessPool as error:
            raise RunError(
                "a process of the sweep ended, perhaps for want of memory: go on with --resume, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _listen(queue: Any, meter: _Meter, futures: Sequence[Any]) -> None:
    """Pass on what the processes report until all are done."""
    while True:
        is_over = all(future.done() for future in futures)
        with suppress(Empty):
            while True:
                meter.add(*queue.get(timeout=0.2))
        if is_over:
            return


_session: "Session | None" = None
_queue: Any = None


def _begin(plan: AblationPlan, folder: AblationFolder, workers: int, queue: Any) -> None:
    """Set up a process: its share of the cores, its networks, and an end if the parent is gone."""
    global _session, _queue
    import cv2
    import torch

    threads = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _session, _queue = Session(plan, folder, workers), queue


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _sweep_in_process(clip: ImageClip) -> None:
    assert _session is not None, "set up by _begin"
    _session.sweep(clip, lambda cost, name: _queue.put((cost, name)))


class Session:
    """The networks of one process, and the clips it sweeps with them.

    Args:
        plan: What to do.
        folder: Where it goes.
        share: Of so many processes that share the room for candidates.
    """

    def __init__(self, plan: AblationPlan, folder: AblationFolder, share: int = 1) -> None:
        self.plan = plan
        self.folder = folder
        self.truth = plan.truth()
        stored = sum(path.stat().st_size for path in folder.candidates.rglob("*.safetensors"))
        self.room = int(max(0.0, plan.candidate_gb * 1e9 - stored) / share)
        self._engine: Engine | None = None
        self._base: BaseLabelSource | None = None

    def sweep(self, clip: ImageClip, on_cost: Callable[[float, str], None]) -> None:
        """Refine and score a clip with the points that have no counts yet, and store the counts."""
        points = [point for point in self.plan.grid.points if not self._path(clip, point.key).is_file()]
        unchanged = sum(
            start_cost([p for p in self.plan.grid.points if p not in points], n, c) for n, c in _starts(clip)
        )
        on_cost(unchanged, clip.name)
        if not points and self._path(clip, BASE).is_file():
            return
        truth = self.truth[clip.name]
        truth.check([file.stem for file in clip.files])
        labels = self._prepared(clip, points)
        tallies = {point: Tally(new_metrics(self.plan.data.label_space, self.plan.windows)) for point in points}
        base = Tally(new_metrics(self.plan.data.label_space, self.plan.windows))
        at_hand = TruthAtHand(truth)
        for found in self._windows(clip, points, labels):
            if isinstance(found, SweptWindow):
                tally = tallies[found.point]
                tally.add_window(found)
                for frame, refined in zip(found.frames, found.refinement.labels, strict=True):
                    tally.score(clip.name, refined, at_hand.of(frame))
                continue
            on_cost(start_cost(points, found, clip.num_frames_expected), clip.name)
            at_hand.forget(found)
        for frame in clip.frames():
            base.frames += 1
            base.score(clip.name, labels.read(PLAIN, frame.index, 1).labels[0], truth.of(frame))
        for point, tally in tallies.items():
            tally.write(self._path(clip, point.key))
        base.write(self._path(clip, BASE))

    def _windows(self, clip: ImageClip, points: Sequence[Point], labels: ClipLabels) -> Iterator[SweptWindow | int]:
        if not points:
            return
        cache = FrameCache(lowest_floor(self.plan.grid.points), self.folder.candidates, self.room)
        sweep = ClipSweep(clip, points, self.engine(), cache, labels, self.plan.label_space, self.folder.tracks)
        yield from sweep.run()
        self.room = cache.room

    def _prepared(self, clip: ImageClip, points: Sequence[Point]) -> ClipLabels:
        labels = ClipLabels(self.folder.labels, clip.name, self.plan.label_space)
        base = self.base()
        check_clips([clip], base)
        kinds = {LabelKind(point.smooth, point.filling) for point in points}
        labels.prepare(clip, base, kinds, any(point.vote_weight == "probability" for point in points))
        return labels

    def engine(self) -> Engine:
        """Load SAM 2, once."""
        if self._engine is None:
            plan = self.plan
            self._engine = Engine.load(plan.sam2, plan.device, plan.dtype, plan.image_size, plan.chunk)
        return self._engine

    def base(self) -> BaseLabelSource:
        """Open the base labels, or load the model that makes them, once."""
        if self._base is None:
            from ..segmenters import ModelLabels, StoredLabels, load_segmenter

            plan = self.plan
            if plan.labels is not None:
                self._base = StoredLabels(plan.labels, plan.label_space, plan.id_offset)
            else:
                model = load_segmenter(
                    plan.segmenter, plan.device, plan.dtype, want_probabilities=plan.wants_probabilities
                )
                check_same_classes(model.label_space, plan.data.label_space, f"the labels of {plan.segmenter}")
                self._base = ModelLabels(model)
        return self._base

    def _path(self, clip: ImageClip, row: str) -> Any:
        return tally_path(self.folder.out, self.plan.windows, clip.name, row)


def clip_cost(plan: AblationPlan, clip: ImageClip) -> float:
    """Estimate the cost of a clip in units of about one encoded frame."""
    return sum(start_cost(plan.grid.points, number, count) for number, count in _starts(clip))


def start_cost(points: Sequence[Point], number: int, num_frames: int) -> float:
    """Estimate the cost of all windows that begin on a frame, for bars and estimates."""
    due = [point for point in points if number % point.window == 0]
    grids = {point.points for point in due}
    own = {point.tracks_key: point for point in due if not point.is_shareable}
    longest: dict[str, int] = {}
    for point in due:
        if point.is_shareable:
            key = f"{point.mode} {point.seeds_key}"
            longest[key] = max(longest.get(key, 0), min(point.window, num_frames - number))
    steps = [length - 1 for key, length in longest.items() if key.startswith("exact")]
    # settings of one grid have most of their masks in common
    shared = max(steps, default=0) + (1 - COMMON_SHARE) * (sum(steps) - max(steps, default=0))
    alone = sum(min(point.window, num_frames - number) for point in own.values())
    followed = FOLLOW_COST * ASSUMED_MASKLETS * (shared + alone)
    return bool(points) + PROMPT_COST * sum(n * n for n in grids) + followed


def _starts(clip: ImageClip) -> list[tuple[int, int]]:
    count = clip.num_frames_expected
    return [(number, count) for number in np.arange(count).tolist()]
