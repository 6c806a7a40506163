"""One clip, refined with all points of a grid at once: every frame is looked at when a window of some point begins.

The points whose windows begin on a frame take their masklets from what they share (`shared_tracks.py`), or from a
tracker of their own where masklets see one another; then each votes and paints as in `pipeline.refine_clip`.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..devices import attention_backends
from ..errors import MediaError
from ..files import safe_name
from ..filling import fill_rest
from ..images import frame_digest
from ..masklet_files import masklet_path, read_masklets, write_masklets
from ..media import ClipSource
from ..pipeline import Carried
from ..sam2.match import MatchSettings
from ..types import BaseLabels, Frame, LabelSpace, MaskletWindow, Refinement, WindowContext
from ..voting import refine_window
from .engine import Engine, savings_of
from .frame_cache import FrameCache
from .grid import Point
from .labels import ClipLabels, LabelKind
from .seeds import choose_seeds, compress_selection
from .shared_tracks import SharedTracks, gather_wishes, window_of_tracks
from .work import Work
from .work_files import StartWork, read_work, write_work


@dataclass(frozen=True, eq=False)
class SweptWindow:
    """One window of one point.

    Attributes:
        point: The point.
        frames: Frames of the window.
        refinement: Its refined labels and masklets.
        needed: Work that a run of this point alone does for the window.
    """

    point: Point
    frames: Sequence[Frame]
    refinement: Refinement
    needed: Work


@dataclass
class _Start:
    """What is at hand when windows begin on a frame: the longest one's frames, and labels that were read."""

    number: int
    frames: list[Frame]
    images: np.ndarray
    digests: list[str]
    work: StartWork
    read: dict[tuple[LabelKind, bool], BaseLabels] = field(default_factory=dict)

    def length_of(self, point: Point) -> int:
        return min(point.window, len(self.frames))


@dataclass
class ClipSweep:
    """Goes through one clip with many points.

    Args:
        clip: The clip.
        points: What to try.
        engine: The network.
        cache: Remembers features and candidates.
        labels: Base labels, prepared.
        label_space: Their classes.
        folder: Where tracks lie, the checkpoints.
    """

    clip: ClipSource
    points: Sequence[Point]
    engine: Engine
    cache: FrameCache
    labels: ClipLabels
    label_space: LabelSpace
    folder: Path
    done: Work = field(default_factory=Work, init=False)
    _carried: dict[Point, Carried] = field(default_factory=dict, init=False)
    _before: list[str] = field(default_factory=list, init=False)  # digest of the frame before, where masklets go on

    def __post_init__(self) -> None:
        self._shared = {
            mode: SharedTracks(self.engine, mode, self.cache, self.folder / "shared") for mode in ("exact", "prompt")
        }

    def run(self) -> Iterator[SweptWindow | int]:
        """Yield every window of every point, each point's in order, and the number of each frame that is over."""
        longest = max(point.window for point in self.points)
        stream = self.clip.frames()
        frames: list[Frame] = []
        digests: list[str] = []
        number = 0
        self._before = []
        while True:
            while len(frames) < longest and (frame := next(stream, None)) is not None:
                frames.append(frame)
                digests.append(frame_digest(frame.image))
            if not frames:
                return
            due = [point for point in self.points if number % point.window == 0]
            if due:
                yield from self._begin(number, frames, digests, due)
            frames.pop(0)
            before = digests.pop(0)
            self._before = [before] if self._carried else []
            yield number
            number += 1

    def _begin(
        self, number: int, frames: list[Frame], digests: list[str], due: Sequence[Point]
    ) -> Iterator[SweptWindow]:
        length = min(max(point.window for point in due), len(frames))
        images = np.stack([frame.image for frame in frames[:length]])
        path = self.folder / "work" / safe_name(self.clip.name) / f"{number:08d}.json"
        start = _Start(number, frames, images, digests, read_work(path))
        before, stored = self._total(), start.work
        # where masklets are carried, only the clip's first window has none from before
        shared = [point for point in due if point.begins_shared and point not in self._carried]
        masklets = self._shared_windows(start, shared)
        masklets |= self._own_windows(start, [point for point in due if point not in shared])
        new = self._total() - before
        start.work = StartWork(start.work.done + new, start.work.asked)
        if start.work != stored:
            write_work(path, start.work)
        self.done += start.work.done
        for point in due:
            window = masklets[point]
            shown = frames[: window.window.length]
            yield SweptWindow(point, shown, self._refine(start, point, window), self._needed(start, point, window))

    def _refine(self, start: _Start, point: Point, masklets: MaskletWindow) -> Refinement:
        """Vote and paint: paper Eq. 2, then Eq. 1."""
        carried = self._carried.get(point)
        refinement = refine_window(
            self._base(start, point),
            masklets,
            self.label_space,
            point.vote,
            point.vote_weight,
            point.min_share,
            point.overlap,
            earlier_votes=carried.votes_for(masklets) if carried else None,
        )
        if point.void == "vote":
            refinement = replace(refinement, labels=fill_rest(refinement.labels, self.label_space.ignore_index))
        if point.carry:
            self._carried[point] = Carried(masklets, refinement.votes, start.frames[start.length_of(point) - 1].image)
        return refinement

    def _base(self, start: _Start, point: Point) -> BaseLabels:
        """Return the base labels of a point's window, each kind being read once for all points."""
        key = (LabelKind(point.smooth, point.filling), point.vote_weight == "probability")
        if key not in start.read:
            start.read[key] = self.labels.read(key[0], start.number, len(start.images), key[1])
        labels, length = start.read[key], start.length_of(point)
        scores = labels.probabilities
        return BaseLabels(labels.labels[:length], None if scores is None else scores[:length])

    # --- masklets that are shared ---

    def _shared_windows(self, start: _Start, due: Sequence[Point]) -> dict[Point, MaskletWindow]:
        grids: defaultdict[int, set[str]] = defaultdict(set)
        for point in due:
            grids[point.points].add(point.seeds_key)
        digest = start.digests[0]
        worth_a_file = [(digest, points) for points, thresholds in grids.items() if len(thresholds) > 1]
        self.cache.begin([*self._before, *start.digests], worth_a_file)
        found: dict[str, MaskletWindow] = {}
        chosen: dict[Point, MaskletWindow] = {}
        for point in sorted(due, key=lambda point: point.points):  # one grid after the other: candidates are large
            if point.seeds_key not in found:
                found[point.seeds_key] = self._seeds(start, point)
            base = self._base(start, point).labels
            chosen[point] = choose_seeds(found[point.seeds_key], savings_of(point), base, self.label_space.ignore_index)
        windows: dict[Point, MaskletWindow] = {}
        for mode, shared in self._shared.items():
            members = {point: seeds for point, seeds in chosen.items() if point.mode == mode}
            wishes = gather_wishes([(seeds, start.length_of(point)) for point, seeds in members.items()])
            tracks = shared.follow(self.clip.name, start.number, start.images, wishes)
            for point, seeds in members.items():
                windows[point] = window_of_tracks(seeds, tracks, start.length_of(point))
        return windows

    def _seeds(self, start: _Start, point: Point) -> MaskletWindow:
        """Find the automatic masks of a frame with a point's thresholds, or read those found before."""
        path = masklet_path(self.folder / "seeds" / point.seeds_key, self.clip.name, start.number)
        with suppress(MediaError):
            return read_masklets(path)
        network = self.engine.network
        with attention_backends(str(network.device)):
            features = next(self.cache.encode(network, start.images[:1]))
            selection = self.engine.finder(point, self.cache).find(features, start.images[0])
        seeds = compress_selection(selection, start.number, self.clip.size)
        write_masklets(path, seeds)
        return seeds

    # --- masklets that are not ---

    def _own_windows(self, start: _Start, due: Sequence[Point]) -> dict[Point, MaskletWindow]:
        groups: defaultdict[str, list[Point]] = defaultdict(list)
        for point in due:
            groups[point.tracks_key].append(point)
        windows: dict[Point, MaskletWindow] = {}
        for key, members in groups.items():
            window = self._own_window(start, members[0], key)
            windows |= dict.fromkeys(members, window)
        return windows

    def _own_window(self, start: _Start, point: Point, key: str) -> MaskletWindow:
        path = masklet_path(self.folder / "own" / key, self.clip.name, start.number)
        if key in start.work.asked:
            with suppress(MediaError):
                return read_masklets(path)
        length = start.length_of(point)
        carried = self._carried.get(point)
        context = WindowContext(
            labels=self._base(start, point).labels,
            ignore_index=self.label_space.ignore_index,
            previous=carried.masklets if carried else None,
            previous_frame=carried.frame if carried else None,
        )
        asked = self.cache.asked
        window = self.engine.tracker(point, self.cache).track(start.images[:length], start.number, context)
        followed = Work(followed=count_followed(window, point, carried.masklets if carried else None))
        write_masklets(path, window)
        work = {**start.work.asked, key: self.cache.asked - asked + followed}
        start.work = StartWork(start.work.done + followed, work)
        return window

    # --- work ---

    def _total(self) -> Work:
        """Return what the network did so far for frames and shared tracks."""
        total = self.cache.done
        for shared in self._shared.values():
            total += shared.done
        return total

    def _needed(self, start: _Start, point: Point, window: MaskletWindow) -> Work:
        """Return the work of a run of this point alone."""
        if point.tracks_key in start.work.asked:
            return start.work.asked[point.tracks_key]
        length = window.window.length
        return Work(length, point.points**2, window.num_masklets * (length - 1))


def count_followed(window: MaskletWindow, point: Point, previous: MaskletWindow | None) -> int:
    """Count how often a mask was followed a frame on, from the masklets that came of it.

    Mode fast matches masks instead; a masklet found later is followed from its first mask on.
    """
    if point.mode == "fast" or not window.num_masklets:
        return 0
    length = window.window.length
    is_carried = np.isin(window.ids, previous.ids) if previous is not None else np.zeros(window.num_masklets, bool)
    steps = np.full(window.num_masklets, length - 1)
    if point.discover and point.direction == "forward":
        visible = np.array([window.areas(t) > 0 for t in range(length)])
        steps -= np.where(visible.any(0), visible.argmax(0), 0)
    return int(np.where(is_carried, length, steps).sum())


def lowest_floor(points: Sequence[Point]) -> float:
    """Return the predicted IoU below which no point looks at candidates."""
    floors = [point.pred_iou for point in points]
    floors += [MatchSettings().keep_pred_iou for point in points if point.mode == "fast"]
    return min(floors)
