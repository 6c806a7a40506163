"""What a run remembers of a window, and that it comes back from JSON as it was."""

import json

import numpy as np
import pytest

from sam2vss.errors import RunError, ShapeError
from sam2vss.records import MaskletRecord, WindowRecord, flip_rates
from sam2vss.types import Frame, MaskletWindow, Refinement, Window


def make_refinement(start, labels, base):
    masks = np.zeros((2, 2, 1, 4), bool)  # N=2, L=2, H=1, W=4
    masks[0, :, 0, :2] = True
    return Refinement(
        window=Window(start, 2),
        labels=labels,
        base=base,
        votes=np.array([[3, 1], [0, 0]]),
        classes=np.array([0, -1]),
        vote_share=np.array([0.75, 0.0]),
        coverage=np.array([0.5, 0.5]),
        masklets=MaskletWindow.from_masks(masks, start, predicted_iou=np.array([0.9, 0.5], np.float32)),
    )


def test_void_is_kept_and_older_records_have_none():
    labels = np.zeros((2, 1, 4), np.uint8)
    record = WindowRecord.of(
        "street", make_frames(0), make_refinement(0, labels, labels),
        void_share=np.array([0.5, 0]), void_left=np.array([0.25, 0]),
    )  # fmt: skip
    assert (record.void, record.void_left) == ((0.5, 0.0), (0.25, 0.0))
    content = json.loads(json.dumps(record.to_dict()))
    assert WindowRecord.from_dict(content) == record
    del content["void"], content["void_left"]
    assert (WindowRecord.from_dict(content).void, WindowRecord.from_dict(content).void_left) == ((), ())
    with pytest.raises(RunError, match="void has 1 entries for 2 frames"):
        WindowRecord.from_dict({**content, "void": [0.5]})
    with pytest.raises(RunError, match="void_left has 3 entries for 2 frames"):
        WindowRecord.from_dict({**content, "void_left": [0.5] * 3})


def make_frames(start):
    return [Frame(np.zeros((1, 4, 3), np.uint8), i, f"{i:08d}", pts=1001 * i) for i in (start, start + 1)]


def test_a_window_is_summarised_in_numbers_one_can_count():
    base = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 0]]], np.uint8)
    labels = np.array([[[0, 0, 1, 1]], [[0, 0, 1, 0]]], np.uint8)
    first = make_refinement(0, labels, base)
    record = WindowRecord.of("street", make_frames(0), first, seconds={"track": 1.5})
    assert (record.video, record.start, record.length, record.num_masklets) == ("street", 0, 2, 2)
    assert (record.frames, record.pts) == (("00000000", "00000001"), (0, 1001))
    assert record.coverage == (0.5, 0.5)
    assert record.changed == (0.0, 0.25)  # one of four pixels of the second frame
    assert record.flip_base == (None, 0.5)  # 0011 -> 0110: two of four
    assert record.flip_refined == (None, 0.25)  # 0011 -> 0010: one of four
    assert record.masklets == (
        MaskletRecord(0, 0, 0.75, np.float32(0.9), {0: 3, 1: 1}),
        MaskletRecord(1, -1, 0.0, 0.5),
    )

    second = WindowRecord.of(
        "street", make_frames(2), make_refinement(2, labels, base), first.base[-1], first.labels[-1]
    )
    assert second.flip_base == (0.5, 0.5)  # 0110 -> 0011 across the border of the windows
    assert second.flip_refined == (0.25, 0.25)


def test_flips_equal_the_slow_definition():
    rng = np.random.default_rng(0)
    labels, before = rng.integers(0, 3, (4, 3, 5)), rng.integers(0, 3, (3, 5))
    expected = []
    last = before
    for now in labels:
        expected.append(sum(int(now[y, x] != last[y, x]) for y in range(3) for x in range(5)) / 15)
        last = now
    assert flip_rates(labels, before) == pytest.approx(expected, abs=1e-15)
    assert flip_rates(labels, None) == (None, *flip_rates(labels, before)[1:])


def test_a_record_comes_back_from_json_as_it_was():
    labels = np.zeros((2, 1, 4), np.uint8)
    record = WindowRecord.of("straße", make_frames(0), make_refinement(0, labels, labels), seconds={"track": 0.1})
    line = json.dumps(record.to_dict(), allow_nan=False)
    assert WindowRecord.from_dict(json.loads(line)) == record
    assert json.loads(line)["num_masklets"] == 2
    assert json.loads(line)["length"] == 2


def test_broken_records_are_refused():
    labels = np.zeros((2, 1, 4), np.uint8)
    record = WindowRecord.of("a", make_frames(0), make_refinement(0, labels, labels))
    content = record.to_dict()
    for change in ({"coverage": [0.5]}, {"frames": ["x", "x"]}, {"start": -1}, {"masklets": [{}]}, {"seconds": 3}):
        with pytest.raises(RunError, match="not the record of a window"):
            WindowRecord.from_dict(content | change)
    with pytest.raises(RunError, match="KeyError: 'pts'"):
        WindowRecord.from_dict({key: value for key, value in content.items() if key != "pts"})
    with pytest.raises(ShapeError, match="changed has 1 entries for 2 frames"):
        WindowRecord("a", 0, ("x", "y"), (0, 1), (0.0, 0.0), (0.0,), (None, 0.0), (None, 0.0))
