"""With an oracle in the place of SAM 2: a mask moves one column to the right in every frame, however many there are."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from sam2vss.ablate import shared_tracks
from sam2vss.ablate.seeds import choose_seeds, compress_selection, mask_key, take_rows
from sam2vss.ablate.shared_tracks import SharedTracks, Wish, gather_wishes, window_of_tracks
from sam2vss.ablate.work import Work
from sam2vss.masklet_files import read_masklets, write_masklets
from sam2vss.sam2.candidates import Selection
from sam2vss.sam2.propagate import Tracks
from sam2vss.sam2.recorder import IDS_PER_FRAME
from sam2vss.sam2.savings import Savings
from sam2vss.types import MaskletWindow
from toy import no_waiting_for_the_disk

SIZE = (4, 12)


class OraclePropagator:
    def __init__(self, log: list[int]) -> None:
        self.log = log

    def start(self, features: object, masks: torch.Tensor) -> Tracks:
        self.masks, self.time = masks, 0
        self.log.append(len(masks))
        return self._tracks()

    def step(self, features: object) -> Tracks:
        self.masks, self.time = torch.roll(self.masks, 1, dims=2), self.time + 1
        return self._tracks()

    def _tracks(self) -> Tracks:
        quality = self.masks.float().mean((1, 2)) + self.time / 10
        return Tracks(20.0 * self.masks.float() - 10, torch.ones(len(self.masks)), quality)


@dataclass
class OracleEngine:
    network: object = field(default_factory=lambda: type("Network", (), {"device": torch.device("cpu")})())
    chunk: int = 1
    started: list[int] = field(default_factory=list)

    def propagator(self, mode: str) -> OraclePropagator:
        return OraclePropagator(self.started)


class OracleCache:
    def encode(self, network: object, frames: np.ndarray) -> list[object]:
        return list(frames)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(shared_tracks, "check_memory", lambda *_: None)
    with no_waiting_for_the_disk():
        yield


def bar(column, height=4):
    mask = np.zeros(SIZE, bool)
    mask[:height, column] = True
    return mask


def seeds_of(*masks, start=0):
    count = len(masks)
    return MaskletWindow.from_masks(
        np.array(masks, bool).reshape(count, 1, *SIZE),
        start,
        predicted_iou=np.linspace(0.9, 0.5, count, dtype=np.float32),
        stability=np.linspace(0.6, 0.8, count, dtype=np.float32),
        points=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
    )


def shared_in(folder):
    return SharedTracks(OracleEngine(), "exact", OracleCache(), folder)  # type: ignore[arg-type]


def frames_of(length):
    return np.zeros((length, *SIZE, 3), np.uint8)


def columns(window):
    """First column of every masklet (row) in every frame."""
    stacks = [window.stack(t) for t in range(window.window.length)]
    return np.array([[int(mask.any(0).argmax()) for mask in masks] for masks in stacks]).T.tolist()


def follow(shared, chosen, start=0):
    wishes = gather_wishes(chosen)
    length = max(length for _, length in chosen)
    return shared.follow("clip", start, frames_of(length), wishes)


def test_the_union_is_followed_once_and_every_point_takes_its_rows_in_its_own_order(tmp_path):
    many, few = seeds_of(bar(0), bar(2), bar(4)), seeds_of(bar(4), bar(0))
    shared = shared_in(tmp_path)

    tracks = follow(shared, [(many, 4), (few, 4)])

    assert shared.engine.started == [3]
    assert shared.done == Work(followed=3 * 3)
    assert columns(window_of_tracks(many, tracks, 4)) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert columns(window_of_tracks(few, tracks, 4)) == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_scores_and_ids_are_those_of_the_point(tmp_path):
    seeds = seeds_of(bar(1), bar(3), start=6)
    window = window_of_tracks(seeds, follow(shared_in(tmp_path), [(seeds, 2)], start=6), 2)
    assert window.ids.tolist() == [6 * IDS_PER_FRAME, 6 * IDS_PER_FRAME + 1]
    assert window.window.start == 6
    assert window.window.length == 2
    np.testing.assert_array_equal(window.predicted_iou, seeds.predicted_iou)
    np.testing.assert_array_equal(window.stability, seeds.stability)
    np.testing.assert_array_equal(window.points, seeds.points)


def test_the_quality_of_the_first_frame_is_the_points_and_of_the_others_the_followers(tmp_path):
    many, few = seeds_of(bar(0), bar(2, height=2), bar(4)), seeds_of(bar(4), bar(0))
    expected = [[0.9, 1 / 12 + 0.1, 1 / 12 + 0.2], [0.7, 1 / 24 + 0.1, 1 / 24 + 0.2], [0.5, 1 / 12 + 0.1, 1 / 12 + 0.2]]
    for _ in ("followed", "read"):
        tracks = follow(shared_in(tmp_path), [(many, 3), (few, 3)])
        found, first = window_of_tracks(many, tracks, 3), window_of_tracks(few, tracks, 2)
        np.testing.assert_allclose(found.frame_iou.T, expected, rtol=1e-6)
        np.testing.assert_allclose(first.frame_iou.T, [[0.9, expected[2][1]], [0.5, expected[0][1]]], rtol=1e-6)
        assert found.frame_iou.dtype == np.float32


def test_files_that_know_no_quality_are_followed_anew(tmp_path):
    seeds = seeds_of(bar(0))
    follow(shared_in(tmp_path), [(seeds, 3)])
    (path,) = tmp_path.rglob("*.json.gz")
    write_masklets(path, replace(read_masklets(path), frame_iou=None))
    shared = shared_in(tmp_path)
    assert window_of_tracks(seeds, follow(shared, [(seeds, 3)]), 3).frame_iou.min() > 0
    assert shared.engine.started == [1]


def test_a_shorter_window_is_the_beginning_and_each_mask_goes_as_far_as_it_is_wanted(tmp_path):
    long, short = seeds_of(bar(0)), seeds_of(bar(0), bar(5))
    shared = shared_in(tmp_path)

    tracks = follow(shared, [(long, 5), (short, 2)])

    assert shared.done == Work(followed=4 + 1)  # bar 5 is wanted for 2 frames only
    assert columns(window_of_tracks(short, tracks, 2)) == [[0, 1], [5, 6]]
    assert columns(window_of_tracks(long, tracks, 5)) == [[0, 1, 2, 3, 4]]


def test_windows_of_one_frame_need_no_network(tmp_path):
    shared, seeds = shared_in(tmp_path), seeds_of(bar(0), bar(1))
    assert columns(window_of_tracks(seeds, follow(shared, [(seeds, 1)]), 1)) == [[0], [1]]
    assert shared.engine.started == []
    assert shared.done == Work()


def test_stored_tracks_are_used_again_and_only_new_masks_are_followed(tmp_path):
    follow(shared_in(tmp_path), [(seeds_of(bar(0), bar(1)), 4)])
    shared, wider = shared_in(tmp_path), seeds_of(bar(2), bar(1), bar(0))

    tracks = follow(shared, [(wider, 4)])

    assert shared.engine.started == [1]
    assert [row[0] for row in columns(window_of_tracks(wider, tracks, 4))] == [2, 1, 0]
    again = shared_in(tmp_path)
    follow(again, [(wider, 3)])
    assert again.engine.started == []


def test_masks_that_are_wanted_for_longer_are_followed_from_the_start(tmp_path):
    seeds = seeds_of(bar(0))
    follow(shared_in(tmp_path), [(seeds, 2)])
    shared = shared_in(tmp_path)
    tracks = follow(shared, [(seeds, 5)])
    assert shared.done == Work(followed=4)
    assert columns(window_of_tracks(seeds, tracks, 5)) == [[0, 1, 2, 3, 4]]


def test_tracks_of_other_frames_and_clips_are_not_taken(tmp_path):
    seeds = seeds_of(bar(0))
    follow(shared_in(tmp_path), [(seeds, 3)])
    for clip, start in (("clip", 1), ("other", 0)):
        shared = shared_in(tmp_path)
        shared.follow(clip, start, frames_of(3), gather_wishes([(seeds, 3)]))
        assert shared.engine.started == [1]


def test_many_masks_are_remembered_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_tracks, "TOGETHER", 2)
    seeds = seeds_of(*(bar(i) for i in range(5)))
    shared = shared_in(tmp_path)
    tracks = follow(shared, [(seeds, 3)])
    assert shared.engine.started == [2, 2, 1]
    assert [row[2] for row in columns(window_of_tracks(seeds, tracks, 3))] == [2, 3, 4, 5, 6]


def test_no_mask_gives_an_empty_window(tmp_path):
    seeds = seeds_of()
    window = window_of_tracks(seeds, follow(shared_in(tmp_path), [(seeds, 3)]), 3)
    assert window.num_masklets == 0
    assert window.window.length == 3
    assert window.frame_iou.shape == (3, 0)


def test_a_mask_is_told_by_its_pixels():
    first, second = seeds_of(bar(0), bar(0, height=3)).rles[0]
    assert mask_key(first) != mask_key(second)
    assert (
        mask_key(first)
        == mask_key(seeds_of(bar(0)).rles[0][0])
        == mask_key({**first, "counts": first["counts"].decode()})
    )


def test_equal_masks_are_one_wish_with_the_longer_window():
    wishes = gather_wishes([(seeds_of(bar(0)), 2), (seeds_of(bar(1), bar(0)), 5), (seeds_of(bar(0)), 3)])
    assert sorted(wish.length for wish in wishes.values()) == [5, 5]
    assert len(wishes) == 2
    assert isinstance(next(iter(wishes.values())), Wish)


def test_savings_choose_among_seeds_as_in_the_tracker():
    seeds = seeds_of(bar(0), np.ones(SIZE, bool), bar(2, height=1))
    labels = np.zeros((1, *SIZE), np.uint8)
    assert choose_seeds(seeds, Savings(), labels, 255) is seeds
    best = choose_seeds(seeds, Savings(max_masklets=1), labels, 255)  # the largest adds most new pixels
    assert best.num_masklets == 1
    assert best.areas(0).tolist() == [48]
    np.testing.assert_array_equal(best.predicted_iou, seeds.predicted_iou[1:2])
    assert take_rows(seeds, [2, 0]).areas(0).tolist() == [1, 4]
    assert take_rows(seeds, [2, 0]).frame_iou is None
    known = replace(seeds, frame_iou=np.array([[0.5, 0.25, 0.75]], np.float32))
    assert take_rows(known, [2, 0]).frame_iou.tolist() == [[0.75, 0.5]]


def test_compressed_seeds_hold_the_quality_of_their_one_frame():
    masks = torch.from_numpy(np.array([bar(0), np.zeros(SIZE, bool)]))
    selection = Selection(masks, torch.tensor([0.75, 0.5]), torch.ones(2), torch.zeros(2, 2), torch.arange(2))
    assert compress_selection(selection, 4, SIZE).frame_iou.tolist() == [[0.75, 0]]
