"""The method, top to bottom: frames in windows, base labels, masklets, votes or a namer's classes, painted labels.

`refine_clip` is the method itself and yields window by window; `refine_run` does it for many clips and writes a run
folder that can be interrupted and resumed.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from .artifacts import RunFolder, WindowRecord
from .errors import LabelError, MediaError, Sam2VssError, ShapeError
from .filling import fill_before_votes, fill_rest, void_shares
from .interfaces import BaseLabelSource, ClipAware, FollowsFrames, MaskletNamer, MaskletTracker, Smoother
from .masklet_files import read_masklets
from .media import BrokenVideoError, ClipSource, ImageClip, read_label_map, windows_of
from .overlay import VideoWriter, draw_overlay
from .prefetch import decode_ahead
from .settings import OverlapOrder, VoidPolicy, VoteScope, VoteWeight
from .types import BaseLabels, Frame, MaskletWindow, Refinement, Window, WindowContext
from .voting import paint_window, refine_window

PREVIEW_WIDTH_PX = 480  # ours: what the report shows
PREVIEWS_PER_CLIP = 120  # ours: as many as the report embeds
FRAMES_AHEAD = 8  # ours: decoded while the frames before them are refined

_NO_LABELS = BaseLabels(np.zeros((0, 0, 0), np.uint8))

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """Told what goes on; the command line draws bars from it."""

    def clip_started(self, name: str, num_frames: int | None) -> None: ...

    def frames_done(self, name: str, count: int) -> None: ...

    def clip_finished(self, name: str) -> None: ...


class NoProgress:
    """Draws nothing."""

    def clip_started(self, name: str, num_frames: int | None) -> None: ...

    def frames_done(self, name: str, count: int) -> None: ...

    def clip_finished(self, name: str) -> None: ...


@dataclass(frozen=True, eq=False)
class RefinedWindow:
    """One window's frames and refinement, and the seconds each stage took.

    Attributes:
        frames: L frames.
        refinement: What became of them.
        seconds: Time by stage.
        void_share: Fraction of the pixels of each frame without a base label, before any were filled, float64 (L,).
    """

    frames: list[Frame]
    refinement: Refinement
    seconds: Mapping[str, float]
    void_share: np.ndarray


@dataclass(frozen=True)
class VoteRule:
    """How masklets vote, by the fields of `refine_window`, and what becomes of pixels without a base label."""

    vote: VoteScope = "window"
    vote_weight: VoteWeight = "majority"
    min_share: float = 0.0
    overlap: OverlapOrder = "small-on-top"
    void: VoidPolicy = "keep"


@dataclass(frozen=True, eq=False)
class Carried:
    """What goes over a window's border: its masklets, their votes so far (N, C), and its last picture."""

    masklets: MaskletWindow
    votes: np.ndarray
    frame: np.ndarray

    def votes_for(self, masklets: MaskletWindow) -> np.ndarray:
        """Return the votes so far of a later window's masklets (N', C), zeros for new ones."""
        rows = {int(number): row for row, number in enumerate(self.masklets.ids)}
        votes = np.zeros((masklets.num_masklets, self.votes.shape[1]), self.votes.dtype)
        for row, number in enumerate(masklets.ids):
            if int(number) in rows:
                votes[row] = self.votes[rows[int(number)]]
        return votes


@dataclass
class RunSummary:
    """What a run did: clips and frames done, what went wrong, per clip in words."""

    clips: int = 0
    frames: int = 0
    resumed_frames: int = 0
    masklets: int = 0
    windows: int = 0
    coverage: float = 0.0
    flip_base: float = 0.0
    flip_refined: float = 0.0
    void_shares: dict[str, float] = field(default_factory=dict)  # by clip, of base labels as they came
    void_left: dict[str, float] = field(default_factory=dict)  # by clip, of refined labels
    problems: list[str] = field(default_factory=list)


def refine_clip(
    clip_name: str,
    frames: Iterable[Frame],
    base: BaseLabelSource,
    tracker: MaskletTracker,
    window_length: int = 32,
    rule: VoteRule | None = None,
    smoother: Smoother | None = None,
    carry: bool = False,
    skip: frozenset[int] = frozenset(),
    recall: Callable[[int, Sequence[Frame]], Carried] | None = None,
    namer: MaskletNamer | None = None,
) -> Iterator[RefinedWindow | list[Frame]]:
    """Refine a clip window by window, holding one window in memory (two with a smoother that looks ahead).

    Args:
        clip_name: Name of the clip, for the base labels.
        frames: Its frames in order.
        base: Source of base labels.
        tracker: Source of masklets.
        window_length: Frames per window; the last one may be shorter.
        rule: How masklets vote.
        smoother: Smooths the base labels over time before the votes; outside all masklets its labels are the result.
        carry: Let masklets live on from window to window with their ids and votes, where the tracker can.
        skip: Starts of windows that are finished already; for these only the frames are yielded.
        recall: Gives what a finished window carries over, from its start and frames; needed with `carry` and `skip`.
        namer: Finds the masklets' classes; None: they are voted for.

    Yields:
        One `RefinedWindow` per window, or the bare frames of a skipped one.
    """
    rule = rule or VoteRule()
    base = fill_before_votes(base, rule.void)
    clock = _Clock()
    space = base.label_space
    carried: Carried | None = None
    if isinstance(tracker, ClipAware):
        tracker.begin_clip(clip_name)
    labelled = _label_windows(clip_name, frames, base, window_length, frozenset() if smoother else skip, clock)
    windows = smoother.smooth(labelled) if smoother else ((shown, labels, labels) for shown, labels in labelled)
    for window_frames, unsmoothed, labels in windows:
        clock.lap("smoothing" if smoother else "")
        if window_frames[0].index in skip:
            carried = recall(window_frames[0].index, window_frames) if carry and recall else None
            yield window_frames
            clock.lap("")
            continue
        images = np.stack([frame.image for frame in window_frames])  # uint8 (L, H, W, 3)
        context = WindowContext(
            labels=labels.labels,  # base labels S_t
            ignore_index=space.ignore_index,
            previous=carried.masklets if carried else None,
            previous_frame=carried.frame if carried else None,
        )
        masklets = tracker.track(images, window_frames[0].index, context)  # masklets M'
        clock.lap("masklets")
        earlier = carried.votes_for(masklets) if carried else None
        if namer is None:
            refinement = refine_window(  # votes, Eq. 2; painted labels R_t, Eq. 1
                labels, masklets, space, rule.vote, rule.vote_weight, rule.min_share, rule.overlap, earlier
            )
        else:
            naming = namer.name_masklets(images, labels, masklets, earlier)
            clock.lap("classes")
            refinement = paint_window(labels, masklets, naming, rule.overlap)
        if rule.void == "vote":
            refinement = replace(refinement, labels=fill_rest(refinement.labels, space.ignore_index))
        carried = Carried(masklets, refinement.votes, images[-1].copy()) if carry else None
        clock.lap("vote and paint")
        void = unsmoothed.void_share
        void = void_shares(unsmoothed.labels, space.ignore_index) if void is None else void
        yield RefinedWindow(window_frames, replace(refinement, base=unsmoothed.labels), clock.take(), void)
        clock.lap("")


def _label_windows(
    clip_name: str,
    frames: Iterable[Frame],
    base: BaseLabelSource,
    window_length: int,
    skip: frozenset[int],
    clock: "_Clock",
) -> Iterator[tuple[list[Frame], BaseLabels]]:
    """Yield windows of frames with their base labels; skipped windows get none, their frames are only shown."""
    for window_frames in windows_of(iter(frames), window_length):
        clock.lap("decode")
        if window_frames[0].index in skip:
            if isinstance(base, FollowsFrames):
                base.pass_over(clip_name, window_frames)
            yield window_frames, _NO_LABELS
            continue
        labels = base.labels_for(clip_name, window_frames)
        clock.lap("base labels")
        yield window_frames, labels


def check_clips(clips: Sequence[ClipSource], base: BaseLabelSource) -> None:
    """Make sure that every clip can be labelled before work on the first one begins.

    A container's frame count may be wrong; before it is held against stored labels the frames are counted.
    """
    for clip in clips:
        names = [file.stem for file in clip.files] if isinstance(clip, ImageClip) else None
        for name in names or ():
            if name.encode("utf-8", "ignore").decode() != name:
                raise MediaError(f"the file name {name!r} in {clip.path} is not UTF-8; rename the file")
        try:
            base.check(clip.name, names, clip.num_frames_expected, clip.size)
        except LabelError:
            if names is not None:
                raise
            base.check(clip.name, None, sum(1 for _ in _until_broken(clip.frames(), [])), clip.size)


def refine_run(
    run: RunFolder,
    clips: Sequence[ClipSource],
    base: BaseLabelSource,
    tracker: MaskletTracker,
    window_length: int = 32,
    rule: VoteRule | None = None,
    overlay: bool = True,
    progress: Progress | None = None,
    truth: BaseLabelSource | None = None,
    smoother: Smoother | None = None,
    carry: bool = False,
    save_masklets: bool = False,
    namer: MaskletNamer | None = None,
) -> RunSummary:
    """Refine clips into a run folder; windows it already holds are kept as they are.

    A video that breaks off is refined up to there and named in the summary's problems.

    Args:
        run: The folder, made with the same clips.
        clips: What to refine.
        base: Source of base labels.
        tracker: Source of masklets.
        window_length: Frames per window.
        rule: How masklets vote.
        overlay: Write an overlay video per clip.
        progress: Told what goes on.
        truth: Ground truth to store beside the labels, for the report.
        smoother: Smooths the base labels before the votes.
        carry: Let masklets live on over window borders; saves them, since a resumed run needs them.
        save_masklets: Write the masklets of every window.
        namer: Finds the masklets' classes; None: they are voted for.

    Raises:
        Sam2VssError: If something cannot be read or written; finished windows stay for a resumed run.
    """
    progress = progress or NoProgress()
    summary = RunSummary()
    refine = partial(
        refine_clip,
        base=base,
        tracker=tracker,
        window_length=window_length,
        rule=rule,
        smoother=smoother,
        namer=namer,
        carry=carry,
    )
    try:
        for clip in clips:
            _refine_one(run, clip, base, refine, carry or save_masklets, overlay, progress, truth, summary)
    except BaseException:
        with suppress(Sam2VssError):  # on a full disk this fails too; the error that led here says more
            run.finish("incomplete")
        raise
    _summarise(run, clips, summary)
    run.finish("incomplete" if summary.problems else "done")
    return summary


def _refine_one(
    run: RunFolder,
    clip: ClipSource,
    base: BaseLabelSource,
    refine: Callable[..., Iterator[RefinedWindow | list[Frame]]],
    save_masklets: bool,
    overlay: bool,
    progress: Progress,
    truth: BaseLabelSource | None,
    summary: RunSummary,
) -> None:
    progress.clip_started(clip.name, clip.num_frames_estimate)
    summary.clips += 1
    finished = {record.start: record for record in run.finished_windows(clip.name)}
    if run.is_done(clip.name) and (not overlay or run.overlay_path(clip.name).exists()):
        count = sum(record.length for record in finished.values())
        summary.resumed_frames += count
        progress.frames_done(clip.name, count)
        progress.clip_finished(clip.name)
        return
    run.start_clip(clip.name)
    problems: list[BrokenVideoError] = []
    every = max(1, round((clip.num_frames_estimate or 0) / PREVIEWS_PER_CLIP))
    decoded = 0
    last_base: np.ndarray | None = None
    last_refined: np.ndarray | None = None
    with ExitStack() as stack:
        writer = stack.enter_context(VideoWriter.like(run.overlay_path(clip.name), clip)) if overlay else None
        stream = stack.enter_context(closing(decode_ahead(_until_broken(clip.frames(), problems), FRAMES_AHEAD)))
        windows = refine(clip.name, stream, skip=frozenset(finished), recall=partial(_recall, run, clip.name))
        for window in windows:
            if isinstance(window, RefinedWindow):
                frames, refinement = window.frames, window.refinement
                void_left = void_shares(refinement.labels, run.label_space.ignore_index)
                record = WindowRecord.of(
                    clip.name, frames, refinement, last_base, last_refined, window.seconds, window.void_share, void_left
                )
                previews = {frame.name: _preview(frame.image) for frame in frames if frame.index % every == 0}
                true_labels = None if truth is None else truth.labels_for(clip.name, frames).labels
                run.commit_window(
                    record,
                    refinement.labels,
                    refinement.base,
                    previews=previews,
                    truth=true_labels,
                    masklets=refinement.masklets if save_masklets else None,
                )
                labels: Iterable[np.ndarray] = refinement.labels
                last_base, last_refined = refinement.base[-1], refinement.labels[-1]
            else:
                frames = window
                _check_same_frames(finished[frames[0].index], frames, clip)
                summary.resumed_frames += len(frames)
                labels = (read_label_map(run.label_path(clip.name, frame.name), run.label_space) for frame in frames)
                last_base = read_label_map(run.base_path(clip.name, frames[-1].name), run.label_space)
                last_refined = read_label_map(run.label_path(clip.name, frames[-1].name), run.label_space)
            decoded += len(frames)
            if writer is not None:
                for frame, label_map in zip(frames, labels, strict=True):
                    writer.write(draw_overlay(frame.image, label_map, run.label_space), frame.pts)
            progress.frames_done(clip.name, decoded)
        if decoded == 0:
            raise MediaError(f"{clip.path} holds no frame that can be decoded: {problems[0] if problems else ''}")
    if not problems:
        base.finish(clip.name, decoded)
    is_complete = run.finish_clip(clip.name, frames_decoded=decoded, error=str(problems[0]) if problems else None)
    if problems:
        summary.problems.append(str(problems[0]))
    elif not is_complete:
        expected = run.clip_info(clip.name)["frames_expected"]
        summary.problems.append(
            f"{clip.path} announced {expected} frames and gave {decoded}; all {decoded} are refined"
        )
    progress.clip_finished(clip.name)


def _recall(run: RunFolder, video: str, start: int, frames: Sequence[Frame]) -> Carried:
    """Return what a finished window of the run carries over."""
    record = run.read_window(video, start)
    path = run.masklets_path(video, start)
    try:
        masklets = read_masklets(path)
    except MediaError as error:
        raise MediaError(f"{error}. Delete {path} and go on with --resume: its window is then done again") from error
    if masklets.window != Window(start, record.length) or masklets.ids.tolist() != [m.id for m in record.masklets]:
        raise MediaError(
            f"{path} holds other masklets than {run.manifest_path} lists for its window. Delete it and go on with "
            "--resume: the window is then done again"
        )
    is_counted = all(isinstance(count, int) for masklet in record.masklets for count in masklet.votes.values())
    votes = np.zeros((len(record.masklets), run.label_space.num_classes), np.int64 if is_counted else np.float64)
    for row, masklet in enumerate(record.masklets):
        for label, count in masklet.votes.items():
            votes[row, label] = count
    return Carried(masklets, votes, frames[-1].image)


def _until_broken(frames: Iterator[Frame], problems: list[BrokenVideoError]) -> Iterator[Frame]:
    """Stream frames up to the place where a video breaks, and remember why it did."""
    try:
        yield from frames
    except BrokenVideoError as error:
        problems.append(error)


def _check_same_frames(record: WindowRecord, frames: Sequence[Frame], clip: ClipSource) -> None:
    if record.length != len(frames):
        raise ShapeError(
            f"{clip.path} gives {len(frames)} frames from frame {record.start} on, the finished window in the run "
            f"folder has {record.length}: the source has changed. Start again with --overwrite"
        )


def _preview(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if width <= PREVIEW_WIDTH_PX:
        return image
    size = (PREVIEW_WIDTH_PX, max(1, round(height * PREVIEW_WIDTH_PX / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _summarise(run: RunFolder, clips: Sequence[ClipSource], summary: RunSummary) -> None:
    """Fill in the averages over all windows of the run, those of earlier sessions included."""
    records = [record for clip in clips for record in run.finished_windows(clip.name)]
    coverage = [share for record in records for share in record.coverage]
    flips = [
        (old, new)
        for record in records
        for old, new in zip(record.flip_base, record.flip_refined, strict=True)
        if old is not None and new is not None
    ]
    summary.windows = len(records)
    summary.frames = len(coverage)
    summary.masklets = sum(record.num_masklets for record in records)
    shares = {clip.name: run.void_share(clip.name) for clip in clips}
    summary.void_shares = {name: share for name, share in shares.items() if share is not None}
    left = {clip.name: run.void_left_share(clip.name) for clip in clips}
    summary.void_left = {name: share for name, share in left.items() if share is not None}
    summary.coverage = float(np.mean(coverage)) if coverage else 0.0
    summary.flip_base, summary.flip_refined = (float(x) for x in np.mean(flips, axis=0)) if flips else (0.0, 0.0)


class _Clock:
    """Seconds by stage since the last `take`."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`; an empty name drops it."""
        now = time.perf_counter()
        if stage:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now

    def take(self) -> dict[str, float]:
        taken, self._seconds = self._seconds, {}
        return taken
