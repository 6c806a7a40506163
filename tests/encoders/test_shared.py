"""Encoding once for tracker and classifier: the same bits, one run of the network a frame, a bound on what is kept."""

import numpy as np
import pytest

from sam2vss.encoders import load_encoder, share_encoder
from sam2vss.encoders.names import parse_name
from sam2vss.encoders.sam2_encoder import Sam2Encoder
from sam2vss.encoders.shared import SharedEncoder
from sam2vss.sam2 import ahead
from sam2vss.sam2.ahead import encode_ahead
from sam2vss.sam2.compiled import CompiledNetwork
from sam2vss.sam2.finder import MaskFinder
from sam2vss.sam2.loading import find_sam2, load_sam2
from sam2vss.sam2.tracker import Sam2Tracker
from tiny_sam2 import moving_frames, tiny_network

LOW_BYTES = 4 * 128 * 8 * 8  # of one frame of the tiny network


class CountingNetwork:
    """Counts how many frames a network encodes, in whatever way."""

    def __init__(self, network, monkeypatch):
        self.frames = 0
        original = network.pyramid

        def pyramid(pixels):
            self.frames += len(pixels)
            return original(pixels)

        monkeypatch.setattr(network, "pyramid", pyramid)


@pytest.fixture
def network():
    return tiny_network()


@pytest.fixture
def encoder(network):
    return Sam2Encoder(network, find_sam2("nano"), parse_name("sam2:nano"))


def test_features_kept_of_the_tracker_are_those_of_encoding_anew_to_the_last_bit(encoder):
    frames, shared = moving_frames(5), SharedEncoder(encoder)
    assert (shared.name, shared.fingerprint) == (encoder.name, encoder.fingerprint)
    assert (shared.level_names, shared.channels) == (encoder.level_names, encoder.channels)
    given = list(shared.encode_ahead(encoder.network, frames))
    for features, expected in zip(given, encode_ahead(encoder.network, frames), strict=True):
        assert all(np.array_equal(getattr(features, n), getattr(expected, n)) for n in ("high", "mid", "low"))
    for frame in frames:
        assert np.array_equal(shared.encode(frame)[0], encoder.encode(frame)[0])


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_the_network_runs_once_a_frame_for_tracker_and_classifier_together(network, encoder, monkeypatch, direction):
    shared, counting = SharedEncoder(encoder), CountingNetwork(network, monkeypatch)
    finder = MaskFinder(network, points=2, pred_iou=0.0, stability=0.0, stability_offset=0.1, box_nms=0.7)
    tracker = Sam2Tracker(finder, "prompt", direction, encode=shared.encode_ahead)
    frames = moving_frames(4)
    assert tracker.track(frames, 0).num_masklets > 0
    for frame in frames:
        shared.encode(frame)
    assert counting.frames == 4


def test_a_frame_that_was_never_tracked_is_encoded(network, encoder, monkeypatch):
    shared, counting = SharedEncoder(encoder), CountingNetwork(network, monkeypatch)
    frames = moving_frames(2)
    list(shared.encode_ahead(network, frames[:1]))
    shared.encode(frames[0].copy())
    assert counting.frames == 1
    shared.encode(frames[1])
    assert counting.frames == 2


def test_the_oldest_frames_are_forgotten_beyond_the_bound(network, encoder, monkeypatch):
    shared, counting = SharedEncoder(encoder, max_bytes=2 * LOW_BYTES), CountingNetwork(network, monkeypatch)
    frames = moving_frames(3)
    list(shared.encode_ahead(network, frames))
    counting.frames = 0
    shared.encode(frames[1])
    shared.encode(frames[2])
    assert counting.frames == 0
    shared.encode(frames[0])
    assert counting.frames == 1
    list(shared.encode_ahead(network, frames[1:2]))  # is now the newest
    list(shared.encode_ahead(network, frames[:1]))
    counting.frames = 0
    shared.encode(frames[1])
    assert counting.frames == 0


def test_what_a_caller_does_to_a_map_does_not_reach_the_next_one(network, encoder, monkeypatch):
    original = network.pyramid
    monkeypatch.setattr(network, "pyramid", lambda pixels: tuple(part.contiguous() for part in original(pixels)))
    shared, frames = SharedEncoder(encoder), moving_frames(1)
    list(shared.encode_ahead(network, frames))
    before = shared.encode(frames[0])[0]
    expected = before.copy()
    before[:] = 0
    assert np.array_equal(shared.encode(frames[0])[0], expected)


def test_another_network_is_a_mistake_of_ours(encoder):
    with pytest.raises(AssertionError, match="another network"):
        list(SharedEncoder(encoder).encode_ahead(tiny_network(), moving_frames(1)))


def test_an_encoder_is_shared_only_where_it_gives_what_was_asked_for():
    location = find_sam2("nano")
    network = load_sam2(location, device="cpu")
    for text in ("sam2:nano", "sam2:nano/low", "sam2:nano/low@384", f"sam2:{location.path}"):
        shared = share_encoder(text, location, network)
        assert shared is not None
        assert shared.fingerprint == load_encoder(text).fingerprint
        assert shared.encoder.network is network
    for text in ("sam2:nano/mid", "sam2:nano/low+mid", "sam2:nano/low@128", "segmenter:segformer-nano"):
        assert share_encoder(text, location, network) is None
    network.set_image_size(128)
    assert share_encoder("sam2:nano/low", location, network) is None
    assert share_encoder("sam2:nano/low@128", location, network) is not None
    assert share_encoder("sam2:nano/low", location, CompiledNetwork(network)) is None


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_encoding_anew_and_still_works_ahead(monkeypatch):
    network = tiny_network().to("cuda")
    encoder = Sam2Encoder(network, find_sam2("nano"), parse_name("sam2:nano"))
    frames, shared, launched = moving_frames(10), SharedEncoder(encoder), []
    original = ahead._encode
    monkeypatch.setattr(ahead, "_encode", lambda *given: launched.append(len(given[2])) or original(*given))
    items = shared.encode_ahead(network, frames)
    next(items)
    assert launched == [4, 4]  # the batch after the one being consumed
    list(items)
    for frame in frames:
        assert np.abs(shared.encode(frame)[0] - encoder.encode(frame)[0]).max() <= 1e-4
