"""Frames encoded ahead: the same features in the same order; the CUDA lane with streams that only write down."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from sam2vss.sam2.ahead import CudaLane, Lane, encode_ahead, encode_on


def largest_difference(found, expected) -> float:
    assert len(found) == len(expected)
    pairs = [
        (getattr(a, n), getattr(b, n)) for a, b in zip(found, expected, strict=True) for n in ("high", "mid", "low")
    ]
    assert all(a.shape == b.shape for a, b in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("batch", [None, 1, 2, 3, 5, 9])
def test_features_equal_those_of_frames_encoded_one_by_one(network, frames, features, batch):
    found = list(encode_ahead(network, frames[:5], batch))
    assert largest_difference(found, features[:5]) <= 1e-6  # measured: 0, whatever the batch


def test_any_iterable_of_frames_will_do_and_is_read_batch_by_batch(network, frames):
    num_read = 0

    def read():
        nonlocal num_read
        for frame in frames[:5]:
            num_read += 1
            yield frame

    items = encode_ahead(network, read(), batch=2)
    assert num_read == 0
    reads = [num_read for _ in items]
    assert reads == [2, 2, 4, 4, 5]


def test_no_frames_give_no_features(network):
    assert list(encode_ahead(network, np.zeros((0, 90, 130, 3), np.uint8))) == []


def test_the_consumer_is_not_left_in_inference_mode(network, frames):
    for given in encode_ahead(network, frames[:3], 2):
        assert not torch.is_inference_mode_enabled()
        assert given.low.is_inference()


@pytest.fixture
def log(monkeypatch):
    """Streams of a pretended CUDA device: nothing runs beside anything, every call is written down."""
    log: list[str] = []

    class Stream:
        def __init__(self, device=None, name="side"):
            self.name, self.events = name, 0

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

        def wait_event(self, event):
            log.append(f"{self.name} waits for {event}")

        def record_event(self):
            self.events += 1
            log.append(f"{self.name} marks {self.events}")
            return f"mark {self.events}"

    @contextmanager
    def enter(stream):
        log.append(f"enter {stream.name}")
        yield
        log.append(f"leave {stream.name}")

    consumer = Stream(name="consumer")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: consumer)
    monkeypatch.setattr(torch.cuda, "stream", enter)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: log.append(f"pin {len(self)}") or self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"keep for {stream.name}"))
    return log


def launch(number: int, frames: int) -> list[str]:
    return ["side waits for consumer", "enter side", f"pin {frames}", f"side marks {number}", "leave side"]


def take(number: int) -> list[str]:
    return [f"consumer waits for mark {number}", *["keep for consumer"] * 3]


def test_on_cuda_one_batch_is_under_way_while_the_one_before_is_consumed(network, frames, features, log):
    found = []
    for given in encode_on(CudaLane(network.device), network, frames[:5], 2):
        found.append(given)
        log.append(f"use {len(found)}")
    assert log == [
        *launch(1, 2),
        *launch(2, 2),
        *take(1),
        "use 1",
        "use 2",
        *launch(3, 1),
        *take(2),
        "use 3",
        "use 4",
        *take(3),
        "use 5",
    ]
    assert largest_difference(found, features[:5]) <= 1e-6


def test_without_streams_a_batch_is_encoded_when_it_is_asked_for(network, frames, log):
    items = encode_on(Lane(network.device), network, frames[:4], 2)
    next(items)
    assert log == []


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_frames_encoded_one_by_one(frames):
    from tiny_sam2 import tiny_network

    network = tiny_network().to("cuda")
    with torch.inference_mode():
        expected = [network.encode(network.pixels(torch.from_numpy(frame)[None].to("cuda"))) for frame in frames]
    assert largest_difference(list(encode_ahead(network, frames, 3)), expected) <= 1e-4
