"""What a training of segmenters reads: labelled frames of a data set, for video models with the frames around them.

A sample is a labelled frame and, for a model that looks at several frames, those that its clips hold at inference:
9, 6 and 3 frames before it. Which sample comes when, and what is drawn for it, is a function of the seed and the
number of the step, so a training goes on after a kill as if nothing had happened, and threads cannot change it.
"""

import hashlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..dataset_clips import DatasetClips
from ..errors import LabelError, MediaError, SettingsError, ShapeError
from ..images import image_size, may_be_cut_short, read_image
from .segmenter_input import NetworkInput
from .segmenter_views import View, ViewRecipe, draw_view

OFFSETS = (9, 6, 3, 0)  # how far the frames of a clip lie from its target, the last one; VSPW configurations


@dataclass(frozen=True)
class Sample:
    """A labelled frame.

    Attributes:
        clip: Number of its clip.
        frame: Its number in the clip.
        directions: Where the other frames can be: -1 before it, 1 after it, as if the clip ran backwards.
    """

    clip: int
    frame: int
    directions: tuple[int, ...]


class SampleSet:
    """The samples of a data set.

    Args:
        data: Clips with truth; frames without a label map are no targets.
        num_frames: 1, or 4 for models that look at the frames 9, 6 and 3 before.

    Attributes:
        data: As above.
        num_frames: As above.
        num_labelled: Labelled frames, samples or not.

    Raises:
        SettingsError: If there are no labelled frames, or none with frames around them.
    """

    def __init__(self, data: DatasetClips, num_frames: int) -> None:
        self.data = data
        self.num_frames = num_frames
        self._truth = [data.truth_files(clip.name) for clip in data.clips]
        reach = OFFSETS[0] if num_frames > 1 else 0
        labelled = [
            (number, frame)
            for number, clip in enumerate(data.clips)
            for frame, file in enumerate(clip.files)
            if file.stem in self._truth[number]
        ]
        self.num_labelled = len(labelled)
        self._samples = tuple(
            Sample(number, frame, directions)
            for number, frame in labelled
            if (directions := _directions(frame, len(data.clips[number].files), reach))
        )
        if not labelled:
            raise SettingsError(
                f"no frame of {data.title} has a label map: {len(data.clips)} clips with {data.num_frames} frames in "
                f"{data.root}; label maps need the names of their frames"
            )
        if not self._samples:
            raise SettingsError(
                f"a model of {num_frames} frames is trained on the frames 9, 6 and 3 before each label, and no clip of "
                f"{data.title} has these {reach + 1} frames: the longest has "
                f"{max(len(clip.files) for clip in data.clips)}. Train a single-frame model on stills "
                "(--model segformer-vss-b1): a video model can start from it with --backbone"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def fingerprint(self) -> str:
        """Return a SHA-256 of names of clips and frames and sizes of files, to tell a data set from another."""
        digest = hashlib.sha256(b"samples-1")
        for clip, truth in zip(self.data.clips, self._truth, strict=True):
            for file in clip.files:
                sizes = [path.stat().st_size for path in (file, truth.get(file.stem)) if path is not None]
                digest.update(f"\n{clip.name}\0{file.name}\0{sizes}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the order of the samples in a pass through the data."""
        return _order(len(self), seed, epoch)

    def read(self, number: int, rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Read a sample's frames and labels, the target last; half of the clips run backwards.

        Frames around the target that have no label map are void all over.

        Raises:
            ShapeError: If a label map has another size than its frame, or frames of a clip differ in size.
            MediaError, LabelError: If a file cannot be read.
        """
        sample = self._samples[number]
        is_after = rng.random() < 0.5
        direction = sample.directions[-1 if is_after else 0]
        frames: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for index in self._frames_of(sample, direction):
            frame, ids = self._read_frame(sample.clip, index)
            if frames and frame.shape != frames[0].shape:
                raise self._differ(sample, (frames[0].shape[0], frames[0].shape[1]), (frame.shape[0], frame.shape[1]))
            frames.append(frame)
            labels.append(ids)
        return frames, labels

    def check_files(self) -> dict[tuple[int, int], int]:
        """Look at the heads and ends of all pictures and label maps of the samples, before hours of training.

        Returns:
            Sizes (H, W) of the frames, and how many have them.

        Raises:
            MediaError: If files cannot be read or do not fit together; their number and the first are named.
        """
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        problems: list[str] = []
        places = {
            (sample.clip, index)
            for sample in self._samples
            for side in sample.directions
            for index in self._frames_of(sample, side)
        }
        for clip, index in sorted(places):
            try:
                sizes[clip, index] = self._check_frame(clip, index)
            except (MediaError, LabelError, ShapeError) as error:
                problems.append(str(error))
        problems += self._size_problems(sizes)
        if problems:
            more = f" ({len(problems)} such problems in {len(places)} frames)" if len(problems) > 1 else ""
            raise MediaError(f"{self.data.title} cannot be trained on: {problems[0]}{more}")
        return Counter(sizes.values())

    def _check_frame(self, clip: int, index: int) -> tuple[int, int]:
        file = self.data.clips[clip].files[index]
        truth = self._truth[clip].get(file.stem)
        size = image_size(file)
        if truth is not None and image_size(truth) != size:
            raise _misfit(truth, image_size(truth), size)
        if may_be_cut_short(file) or (truth is not None and may_be_cut_short(truth)):
            self._read_frame(clip, index)
        return size

    def _size_problems(self, sizes: dict[tuple[int, int], tuple[int, int]]) -> Iterator[str]:
        """Yield what is wrong with clips, once each, whose frames of one sample differ in size."""
        seen: set[int] = set()
        for sample in self._samples:
            for side in sample.directions:
                found = [sizes.get((sample.clip, index)) for index in self._frames_of(sample, side)]
                known = [size for size in found if size is not None]
                other = next((size for size in known if size != known[0]), None)
                if other is not None and sample.clip not in seen:
                    seen.add(sample.clip)
                    yield str(self._differ(sample, known[0], other))

    def _frames_of(self, sample: Sample, direction: int) -> list[int]:
        offsets = OFFSETS if self.num_frames > 1 else (0,)
        return [sample.frame + direction * offset for offset in offsets]

    def _differ(self, sample: Sample, first: tuple[int, int], other: tuple[int, int]) -> ShapeError:
        name = self.data.clips[sample.clip].name
        return ShapeError(f"the frames of clip {name} differ in size, {first} and {other} (height, width): scale them")

    def _read_frame(self, clip_number: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        space = self.data.label_space
        file = self.data.clips[clip_number].files[index]
        frame = read_image(file)
        truth = self._truth[clip_number].get(file.stem)
        if truth is None:
            return frame, np.full(frame.shape[:2], space.ignore_index, space.dtype)
        ids = self.data.read_truth(truth)
        if ids.shape != frame.shape[:2]:
            raise _misfit(truth, ids.shape, frame.shape[:2])
        return frame, ids


@dataclass(frozen=True, eq=False)
class ViewMaker:
    """Makes the views of any step.

    Attributes:
        samples: What is shown.
        network_input: How frames are resized.
        views: What is drawn.
        batch: Views a step.
        seed: Of everything drawn.
    """

    samples: SampleSet
    network_input: NetworkInput
    views: ViewRecipe
    batch: int
    seed: int

    def make(self, step: int, row: int) -> View:
        """Make one view of the batch of a step, counted from 0."""
        epoch, place = divmod(step * self.batch + row, len(self.samples))
        rng = np.random.default_rng([self.seed, step, row])
        frames, labels = self.samples.read(int(self.samples.order(self.seed, epoch)[place]), rng)
        ignore_index = self.samples.data.label_space.ignore_index
        return draw_view(frames, labels, self.network_input, self.views, ignore_index, rng)

    def batches(self, first: int, stop: int, workers: int) -> Generator[list[View]]:
        """Yield the views of the steps from `first` to before `stop`, made by so many threads ahead of their use.

        With 0 workers they are made when they are asked for.
        """
        if workers == 0:
            yield from ([self.make(step, row) for row in range(self.batch)] for step in range(first, stop))
            return
        yield from _made_ahead(self, first, stop, workers)


def _made_ahead(maker: ViewMaker, first: int, stop: int, workers: int) -> Generator[list[View]]:
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, thread_name_prefix="views")
    waiting: list[list[Future[View]]] = []
    try:
        for step in range(first, stop):
            ahead = range(step + len(waiting), min(step + 2, stop))  # this step and the next one
            waiting += [[pool.submit(maker.make, number, row) for row in range(maker.batch)] for number in ahead]
            yield [future.result() for future in waiting.pop(0)]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _misfit(truth: Path, found: tuple[int, ...], size: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"{truth} is {found} (height, width), its frame is {size}: both must have one size")


@lru_cache(maxsize=4)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(length)


def _directions(frame: int, length: int, reach: int) -> tuple[int, ...]:
    if reach == 0:
        return (-1,)
    return tuple(side for side in (-1, 1) if 0 <= frame + side * reach < length)
