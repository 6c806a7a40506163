import numpy as np
import pytest
import torch

from sam2vss.errors import SettingsError, ShapeError
from sam2vss.interfaces import MaskletTracker
from sam2vss.sam2.candidates import enlarge
from sam2vss.sam2.finder import MaskFinder
from sam2vss.sam2.match import FrameMatcher
from sam2vss.sam2.model import FrameFeatures, Sam2Network
from sam2vss.sam2.prompts import PromptPropagator
from sam2vss.sam2.propagate import MemoryPropagator
from sam2vss.sam2.recorder import IDS_PER_FRAME
from sam2vss.sam2.tracker import Sam2Tracker
from sam2vss.types import MaskletWindow
from tiny_sam2 import moving_frames, tiny_network


def tracker_of(network: Sam2Network, chunk: int | None = None, **changes: float) -> Sam2Tracker:
    """A tracker with thresholds that let some of the tiny network's masks pass."""
    options = {"points": 3, "pred_iou": 0.0, "stability": 0.01, "stability_offset": 0.3, "box_nms": 0.9, **changes}
    return Sam2Tracker(MaskFinder(network, **options), chunk=chunk)  # type: ignore[arg-type]


def stacks(window: MaskletWindow) -> np.ndarray:
    return np.stack([window.stack(t) for t in range(window.window.length)])


def test_the_tracker_is_a_masklet_tracker(network: Sam2Network):
    tracker: MaskletTracker = tracker_of(network)

    assert callable(tracker.track)


def test_the_first_frame_holds_the_automatic_masks_and_the_others_the_propagated_ones(
    network: Sam2Network, features: list[FrameFeatures], frames: np.ndarray
):
    tracker = tracker_of(network)

    window = tracker.track(frames[:5], start=7)

    chosen = tracker.candidates(frames[0]).select(0.0, 0.01, 0.3, 0.9)
    assert window.num_masklets == len(chosen.masks) == 5  # the five of GOLDEN in test_candidates.py that are not empty
    assert (window.window.start, window.window.length, window.size) == (7, 5, (90, 130))
    assert np.array_equal(window.stack(0), chosen.masks.numpy())
    propagator = MemoryPropagator(network, tracker.chunk)
    propagator.start(features[0], chosen.masks)
    np.testing.assert_array_equal(window.frame_iou[0], chosen.predicted_iou.numpy())
    for t in range(1, 5):
        tracks = propagator.step(features[t])
        expected = (enlarge(tracks.logits, (90, 130)) > 0).numpy()
        assert np.array_equal(window.stack(t), expected)
        np.testing.assert_array_equal(window.frame_iou[t], tracks.predicted_iou.numpy() * expected.any((1, 2)))
    assert (window.frame_iou[1:] > 0).any()
    assert window.stack(4).any()
    np.testing.assert_array_equal(window.predicted_iou, chosen.predicted_iou.numpy())
    np.testing.assert_array_equal(window.stability, chosen.stability.numpy())
    np.testing.assert_array_equal(window.points, chosen.points.numpy())


def test_ids_are_distinct_across_windows_and_count_from_the_first_frame(network: Sam2Network, frames: np.ndarray):
    tracker = tracker_of(network)

    first, second = tracker.track(frames[:1], start=0), tracker.track(frames[1:2], start=1)

    assert first.ids.tolist() == list(range(first.num_masklets))
    assert second.ids.tolist() == list(range(IDS_PER_FRAME, IDS_PER_FRAME + second.num_masklets))


def test_windows_are_independent_of_one_another(network: Sam2Network, frames: np.ndarray):
    tracker = tracker_of(network)
    alone = stacks(tracker.track(frames[:3], start=0))

    tracker.track(frames[5:9], start=5)

    assert np.array_equal(stacks(tracker.track(frames[:3], start=64)), alone)


def test_a_window_of_one_frame_holds_the_automatic_masks_alone(network: Sam2Network, frames: np.ndarray):
    window = tracker_of(network).track(frames[:1], start=0)

    assert window.window.length == len(window.rles) == 1
    assert window.num_masklets == 5


@pytest.mark.parametrize("changes", [{"pred_iou": 1.0}, {"stability": 1.01}])
def test_no_mask_that_passes_gives_an_empty_window(changes: dict[str, float], network: Sam2Network, frames: np.ndarray):
    ticks: list[None] = []
    tracker = tracker_of(network, **changes)
    tracker.on_frame = lambda: ticks.append(None)

    window = tracker.track(frames[:4], start=2)

    assert (window.num_masklets, window.rles) == (0, ((), (), (), ()))
    assert window.stack(3).shape == (0, 90, 130)
    assert (window.points.shape, window.ids.shape) == ((0, 2), (0,))
    assert len(ticks) == 4


@pytest.mark.parametrize("size", [(91, 131), (131, 91), (1, 7)])
def test_frames_of_odd_sizes_keep_their_size(size: tuple[int, int], network: Sam2Network):
    window = tracker_of(network, stability=0.0).track(moving_frames(3, size), start=0)

    assert window.size == size
    assert stacks(window).shape[2:] == size
    assert window.num_masklets > 0


def test_the_networks_own_size_may_differ_from_its_configuration(frames: np.ndarray):
    resized = tiny_network(128)
    resized.set_image_size(96)

    found, expected = tracker_of(resized).track(frames[:3], 0), tracker_of(tiny_network(96)).track(frames[:3], 0)

    assert found.num_masklets == expected.num_masklets > 0
    assert np.array_equal(stacks(found), stacks(expected))


def test_every_frame_is_reported_once(network: Sam2Network, frames: np.ndarray):
    ticks: list[None] = []
    finder = MaskFinder(network, points=2, pred_iou=0.0, stability=0.0)
    tracker = Sam2Tracker(finder, on_frame=lambda: ticks.append(None))

    tracker.track(frames[:6], start=0)

    assert len(ticks) == 6


def test_frames_are_encoded_once_each(network: Sam2Network, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    encoded: list[int] = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda pixels: (encoded.append(len(pixels)), encode(pixels))[1])

    tracker_of(network).track(frames[:4], start=0)

    assert encoded == [1, 1, 1, 1]


def test_frames_are_left_as_they_were_and_may_be_views(network: Sam2Network, frames: np.ndarray):
    mirrored = frames[:2, :, ::-1]
    before = mirrored.copy()

    window = tracker_of(network).track(mirrored, start=0)

    assert np.array_equal(mirrored, before)
    assert np.array_equal(stacks(window), stacks(tracker_of(network).track(before, start=0)))


def test_results_do_not_need_gradients(network: Sam2Network, frames: np.ndarray):
    assert not tracker_of(network).candidates(frames[0]).logits.requires_grad


@pytest.mark.parametrize(
    "frames",
    [np.zeros((90, 130, 3), np.uint8), np.zeros((2, 90, 130, 4), np.uint8), np.zeros((2, 90, 130, 3), np.float32)],
)
def test_frames_of_another_form_are_refused_with_what_was_found(frames: np.ndarray, network: Sam2Network):
    with pytest.raises(ShapeError, match=r"frames are .*, expected uint8 \(L, H, W, 3\)"):
        tracker_of(network).track(frames, start=0)


def test_the_chunk_gets_smaller_on_a_cpu_as_pictures_grow_and_can_be_chosen(network: Sam2Network):
    assert Sam2Tracker(MaskFinder(network)).chunk == 16  # a grid of 8 x 8 cells
    for size, chunk in ((384, 4), (512, 2), (1024, 1), ((512, 1024), 1)):
        resized = tiny_network()
        resized.set_image_size(size)
        assert Sam2Tracker(MaskFinder(resized)).chunk == chunk
    assert Sam2Tracker(MaskFinder(network), chunk=1).chunk == 1


def test_defaults_are_the_papers(network: Sam2Network):
    finder = MaskFinder(network)

    assert (finder.points, finder.pred_iou, finder.stability, finder.stability_offset) == (16, 0.6, 0.8, 0.9)
    assert finder.box_nms == 0.7
    tracker = Sam2Tracker(finder)
    assert (tracker.mode, tracker.direction, tracker.discover) == ("exact", "forward", 0)


def test_masks_are_those_of_any_chunk(network: Sam2Network, frames: np.ndarray):
    one, many = (tracker_of(network, chunk=chunk).track(frames[:4], start=0) for chunk in (1, 16))

    assert (stacks(one) != stacks(many)).mean() < 1e-3  # rounding of logits near zero
    assert torch.equal(torch.from_numpy(one.ids), torch.from_numpy(many.ids))


def test_fast_windows_hold_the_automatic_masks_and_what_was_matched(network: Sam2Network, frames: np.ndarray):
    finder = tracker_of(network).finder
    ticks: list[None] = []

    window = Sam2Tracker(finder, mode="fast", on_frame=lambda: ticks.append(None)).track(frames[:4], start=3)

    chosen = tracker_of(network).candidates(frames[0]).select(0.0, 0.01, 0.3, 0.9)
    assert window.num_masklets >= len(chosen) == 5
    assert np.array_equal(window.stack(0)[:5], chosen.masks.numpy())
    assert not window.stack(0)[5:].any()  # those that enter later have no mask yet
    np.testing.assert_array_equal(window.frame_iou[0, :5], chosen.predicted_iou.numpy())
    for t in range(4):
        assert ((window.frame_iou[t] > 0) == (window.areas(t) > 0)).all()
    later = [int((row > 0).argmax()) for row in window.frame_iou.T[5:]]
    assert all(window.frame_iou[t, 5 + i] == window.predicted_iou[5 + i] for i, t in enumerate(later))
    assert window.stack(3).any()
    assert len(ticks) == 4


def test_fast_mode_matches_with_the_finders_thresholds(network: Sam2Network):
    finder = MaskFinder(network, points=5, pred_iou=0.1, stability=0.2, stability_offset=0.3, box_nms=0.4)

    matcher = Sam2Tracker(finder, mode="fast", match_every=3, chunk=7)._propagator()

    assert isinstance(matcher, FrameMatcher)
    assert (matcher.points, matcher.pred_iou, matcher.stability) == (5, 0.1, 0.2)
    assert (matcher.stability_offset, matcher.box_nms, matcher.every, matcher.between.chunk) == (0.3, 0.4, 3, 7)


def test_prompts_follow_masks_by_the_decoder_alone(network: Sam2Network, frames: np.ndarray, features):
    finder = tracker_of(network).finder
    for clicks in (False, True):
        tracker = Sam2Tracker(finder, mode="prompt", knows_clicks_only=clicks)

        window = tracker.track(frames[:3], start=0)

        chosen = tracker.candidates(frames[0]).select(0.0, 0.01, 0.3, 0.9)
        expected = PromptPropagator.by_clicks(network) if clicks else PromptPropagator(network)
        expected.start(features[0], chosen.masks)
        for t in (1, 2):
            masks = enlarge(expected.step(features[t]).logits, (90, 130)) > 0
            assert np.array_equal(window.stack(t), masks.numpy())


def test_more_objects_than_memory_allows_are_refused_before_they_are_followed(
    network: Sam2Network, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sam2vss.sam2.tracker.free_bytes", lambda device: 1000)

    with pytest.raises(SettingsError, match=r"following 5 objects .* are free on cpu"):
        tracker_of(network).track(frames[:3], start=0)

    assert Sam2Tracker(tracker_of(network).finder, mode="prompt").track(frames[:2], start=0).num_masklets == 5
