"""Carrying, discovering and both directions, with an oracle in the place of SAM 2.

A frame's red channel is its map of objects, and so are its "features". The oracle's finder sees every object of a
frame, its propagator follows objects by their number. So every mask can be foretold.
"""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from sam2vss.errors import SettingsError
from sam2vss.sam2.candidates import Selection
from sam2vss.sam2.model import FrameFeatures
from sam2vss.sam2.propagate import Tracks
from sam2vss.sam2.recorder import IDS_PER_FRAME
from sam2vss.sam2.savings import Savings
from sam2vss.sam2.tracker import Sam2Tracker
from sam2vss.types import MaskletWindow, WindowContext

SIZE = (16, 16)


class OracleNetwork:
    """Features are the map of objects."""

    device = torch.device("cpu")
    dtype = torch.float32
    grid_size = SIZE

    def pixels(self, frames: torch.Tensor) -> torch.Tensor:
        return frames

    def encode(self, pixels: torch.Tensor) -> FrameFeatures:
        objects = pixels[..., 0]
        return FrameFeatures(objects, objects, objects)


@dataclass
class OracleFinder:
    """Finds every object that lies mostly outside what is covered, the largest number first; keeps account of it."""

    network: OracleNetwork = field(default_factory=OracleNetwork)
    seen: list[list[int]] = field(default_factory=list)
    crop_layers: int = 0
    min_area: int = 0

    def find(self, features: FrameFeatures, frame: np.ndarray, covered: np.ndarray | None = None) -> Selection:
        objects = frame[..., 0]
        numbers = [int(number) for number in np.unique(objects)[::-1] if number]
        if covered is not None:
            numbers = [number for number in numbers if not covered[objects == number].all()]
        self.seen.append(numbers)
        masks = torch.from_numpy(np.array([objects == number for number in numbers]).reshape(-1, *SIZE))
        values = torch.tensor(numbers, dtype=torch.float32)
        return Selection(masks, values / 10, values / 20, values[:, None].expand(-1, 2), torch.arange(len(numbers)))


class OraclePropagator:
    """Follows objects by number."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def start(self, features: FrameFeatures, masks: torch.Tensor) -> Tracks:
        assert not self.numbers
        self.add(features, masks)
        return self._tracks(features)

    def add(self, features: FrameFeatures, masks: torch.Tensor) -> None:
        self.numbers += [int(features.low[0][mask].float().median()) for mask in masks]

    def step(self, features: FrameFeatures) -> Tracks:
        return self._tracks(features)

    def _tracks(self, features: FrameFeatures) -> Tracks:
        objects = features.low[0]
        logits = torch.stack([20.0 * (objects == number) - 10 for number in self.numbers] or [torch.zeros(SIZE)])
        quality = torch.tensor([promised_iou(objects, number) for number in self.numbers])
        return Tracks(logits[: len(self.numbers)], torch.ones(len(self.numbers)), quality)


def promised_iou(objects: torch.Tensor, number: int) -> float:
    """The oracle's predicted IoU: a tenth of the number and a hundredth of the column; too much where nothing is."""
    mask = objects == number
    return number / 10 + int(mask.any(0).int().argmax()) / 100 if mask.any() else 2.0


@dataclass(frozen=True)
class Account(Savings):
    """Keeps what it is told: the frame of the window, and how many masklets the window has."""

    told: list[tuple[int, int]] = field(default_factory=list)

    def choose(
        self,
        selection: Selection,
        labels: np.ndarray | None,
        ignore_index: int,
        seed_time: int = 0,
        num_followed: int = 0,
    ) -> torch.Tensor:
        self.told.append((seed_time, num_followed))
        return super().choose(selection, labels, ignore_index, seed_time, num_followed)


class OracleTracker(Sam2Tracker):
    """The real tracker with the oracle's propagator."""

    def _propagator(self) -> OraclePropagator:
        return OraclePropagator()

    def _check_memory(self, num_new: int) -> None:
        """An oracle needs none."""


def clip(*frames: dict[int, int], width: int = 3) -> np.ndarray:
    """Pictures, uint8 (L, 16, 16, 3); a frame says at which column each object stands, in rows of its own."""
    pictures = np.zeros((len(frames), *SIZE, 3), np.uint8)
    for picture, places in zip(pictures, frames, strict=True):
        for number, column in places.items():
            picture[3 * number : 3 * number + 3, column : column + width, 0] = number
    return pictures


def places(window: MaskletWindow) -> dict[int, list[int | None]]:
    """First column of every masklet in every frame, None where its mask is empty, by id."""
    found: dict[int, list[int | None]] = {}
    for row, number in enumerate(window.ids.tolist()):
        masks = [window.stack(t)[row] for t in range(window.window.length)]
        found[number] = [int(mask.any(0).argmax()) if mask.any() else None for mask in masks]
    return found


def qualities(window: MaskletWindow) -> dict[int, list[float]]:
    """Predicted IoU of every masklet in every frame, by id."""
    assert window.frame_iou is not None
    assert window.frame_iou.dtype == np.float32
    rows = zip(window.ids.tolist(), window.frame_iou.T.tolist(), strict=True)
    return {number: [round(value, 6) for value in row] for number, row in rows}


# 1 stays, 2 leaves after frame 2, 3 enters in frame 3
FRAMES = clip({1: 0, 2: 4}, {1: 1, 2: 8}, {1: 2, 2: 12}, {1: 3, 3: 9}, {1: 4, 3: 8}, {1: 5, 3: 7})


def test_by_default_masklets_are_those_of_the_first_frame():
    finder = OracleFinder()

    window = OracleTracker(finder).track(FRAMES, start=0)

    assert places(window) == {0: [4, 8, 12, None, None, None], 1: [0, 1, 2, 3, 4, 5]}
    assert finder.seen == [[2, 1]]
    np.testing.assert_allclose(window.predicted_iou, [0.2, 0.1])


def test_objects_that_enter_are_discovered_every_k_frames_and_have_no_mask_before():
    finder = OracleFinder()

    window = OracleTracker(finder, discover=2).track(FRAMES, start=0)

    assert places(window) == {
        0: [4, 8, 12, None, None, None],
        1: [0, 1, 2, 3, 4, 5],
        2: [None, None, None, None, 8, 7],  # enters in frame 3, looked for in frames 2 and 4
    }
    assert finder.seen == [[2, 1], [], [3]]
    np.testing.assert_allclose(window.stability, [0.1, 0.05, 0.15])


def test_both_directions_begin_in_the_middle_and_reach_both_ends():
    finder = OracleFinder()

    window = OracleTracker(finder, direction="both").track(FRAMES, start=10)

    first = 10 * IDS_PER_FRAME
    assert finder.seen == [[3, 1]]  # in frame 3, the middle
    assert places(window) == {first: [None, None, None, 9, 8, 7], first + 1: [0, 1, 2, 3, 4, 5]}


def test_objects_are_discovered_on_the_way_back_too():
    finder = OracleFinder()

    window = OracleTracker(finder, direction="both", discover=2).track(FRAMES, start=0)

    assert finder.seen == [[3, 1], [], [2]]  # frames 3, 5 and 1
    assert places(window)[2] == [4, 8, None, None, None, None]  # found in frame 1, followed back to frame 0


def test_masklets_have_the_finders_predicted_iou_where_found_and_the_followers_elsewhere():
    window = OracleTracker(OracleFinder(), discover=2).track(FRAMES, start=0)

    assert qualities(window) == {  # columns as in the places above
        0: [0.2, 0.28, 0.32, 0, 0, 0],
        1: [0.1, 0.11, 0.12, 0.13, 0.14, 0.15],
        2: [0, 0, 0, 0, 0.3, 0.37],
    }


def test_the_predicted_iou_of_frames_before_the_middle_comes_from_the_way_back():
    window = OracleTracker(OracleFinder(), direction="both", discover=2).track(FRAMES, start=0)

    assert qualities(window) == {
        0: [0, 0, 0, 0.3, 0.38, 0.37],
        1: [0.1, 0.11, 0.12, 0.1, 0.14, 0.15],  # found in frame 3
        2: [0.24, 0.2, 0, 0, 0, 0],
    }


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_frame_is_reported_once(direction: str, length: int):
    ticks: list[None] = []

    OracleTracker(OracleFinder(), direction=direction, on_frame=lambda: ticks.append(None)).track(FRAMES[:length], 0)

    assert len(ticks) == length


def follow_on(tracker: Sam2Tracker, frames: np.ndarray, length: int) -> list[MaskletWindow]:
    """Track windows of a clip, each with the one before as context."""
    windows: list[MaskletWindow] = []
    for start in range(0, len(frames), length):
        context = WindowContext(previous=windows[-1], previous_frame=frames[start - 1]) if windows else None
        windows.append(tracker.track(frames[start : start + length], start, context))
    return windows


def test_carried_masklets_keep_their_ids_and_masks_are_looked_for_where_they_leave_the_frame_bare():
    finder = OracleFinder()

    first, second = follow_on(OracleTracker(finder), FRAMES, 3)

    assert places(first) == {0: [4, 8, 12], 1: [0, 1, 2]}
    assert finder.seen == [[2, 1], [3]]  # 1 is covered by the carried masklet
    # object 2 is alive in frame 2, so it is carried, and is gone in the whole second window
    assert places(second) == {0: [None, None, None], 1: [3, 4, 5], 3 * IDS_PER_FRAME: [9, 8, 7]}
    np.testing.assert_allclose(second.predicted_iou, [0.2, 0.1, 0.3])
    assert qualities(second) == {0: [0, 0, 0], 1: [0.13, 0.14, 0.15], 3 * IDS_PER_FRAME: [0.3, 0.38, 0.37]}


def test_a_masklet_that_is_hidden_at_the_border_ends():
    windows = follow_on(OracleTracker(OracleFinder()), FRAMES, 2)

    assert [sorted(places(window)) for window in windows] == [
        [0, 1],
        [0, 1],  # 2 leaves in the second frame of this window
        [1, 4 * IDS_PER_FRAME],
    ]


def test_carried_masklets_cross_the_whole_window_when_new_ones_begin_in_its_middle():
    finder = OracleFinder()

    _, second = follow_on(OracleTracker(finder, direction="both"), FRAMES, 3)

    assert finder.seen == [[2, 1], [3]]  # frames 1 and 4
    assert places(second) == {0: [None, None, None], 1: [3, 4, 5], 3 * IDS_PER_FRAME: [9, 8, 7]}


def test_nothing_to_carry_is_like_a_first_window():
    empty = OracleTracker(OracleFinder()).track(clip({}, {}), start=0)
    assert empty.num_masklets == 0
    assert empty.frame_iou.shape == (2, 0)

    window = OracleTracker(OracleFinder()).track(FRAMES[:2], 2, WindowContext(None, 255, empty, FRAMES[0]))

    assert places(window) == {2 * IDS_PER_FRAME: [4, 8], 2 * IDS_PER_FRAME + 1: [0, 1]}


def test_savings_choose_among_the_masks_found():
    tracker = OracleTracker(OracleFinder(), savings=Savings(max_masklets=1))

    assert places(tracker.track(FRAMES, start=0)) == {0: [4, 8, 12, None, None, None]}  # equal areas: better IoU first


def test_the_budget_counts_masklets_of_both_directions():
    tracker = OracleTracker(OracleFinder(), direction="both", discover=2, savings=Savings(max_masklets=2))

    assert (
        len(places(tracker.track(FRAMES, start=0))) == 2
    )  # 1 and 3 in the middle; 2, found on the way back, is too many


def test_a_carried_window_is_searched_though_masks_are_matched_in_few_frames_only():
    finder = OracleFinder()

    class Tracker(OracleTracker):
        def __init__(self) -> None:
            super().__init__(finder, mode="fast", match_every=4)

    _, second, third = follow_on(Tracker(), clip({}, {}, {1: 0}, {1: 1}, {1: 2, 2: 0}, {1: 3, 2: 1}), 2)

    assert finder.seen == [[], [1], [2]]
    assert len(places(second)) == 1
    assert len(places(third)) == 2


def test_savings_are_told_the_frame_and_all_masklets_of_the_window():
    account = Account()

    follow_on(OracleTracker(OracleFinder(), direction="both", discover=1, savings=account), FRAMES, 3)

    # first window: both objects of its middle; second: object 2 (gone) and 1 are carried, 3 is found in its middle
    assert account.told == [(1, 0), (2, 2), (0, 2), (1, 2), (2, 3), (0, 3)]


def test_discovering_makes_no_sense_where_every_frame_is_looked_at():
    with pytest.raises(SettingsError, match=r"--discover .* --mode fast .* drop one"):
        Sam2Tracker(OracleFinder(), mode="fast", discover=4)
    for finder, savings in (
        (OracleFinder(crop_layers=1), Savings()),
        (OracleFinder(min_area=5), Savings()),
        (OracleFinder(), Savings(contained=True)),
        (OracleFinder(), Savings(settled=True)),
    ):
        with pytest.raises(SettingsError, match=r"work on seed frames, and --mode fast .* leave them out"):
            Sam2Tracker(finder, mode="fast", savings=savings)
    with pytest.raises(SettingsError, match="mode 'quick' is unknown, expected exact, fast, prompt"):
        Sam2Tracker(OracleFinder(), mode="quick")
