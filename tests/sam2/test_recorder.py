import numpy as np
import pytest

from sam2vss.sam2.recorder import IDS_PER_FRAME, MaskletRecorder, quality_of_masks
from sam2vss.types import Window, encode_masks

SIZE = (2, 3)


def rles(*masks: list[list[int]]) -> tuple[dict[str, object], ...]:
    return encode_masks(np.array(masks, bool))


def scores(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.linspace(0.5, 0.9, count), np.linspace(0.6, 1.0, count), np.arange(2.0 * count).reshape(count, 2)


def test_masks_land_in_their_row_and_frame_whatever_the_order():
    left, right = [[1, 0, 0], [1, 0, 0]], [[0, 0, 1], [0, 0, 1]]
    recorder = MaskletRecorder(Window(8, 3), SIZE)
    first = recorder.open(*scores(1))
    recorder.put(2, first, rles(left), np.array([0.25]))
    second = recorder.open(*scores(2))
    recorder.put(0, [*second], rles(right, left), np.array([0.5, 0.75]))
    recorder.put(1, [*first, second[1]], rles(right, right), np.array([0.125, 1.0]))

    window = recorder.finish()

    assert (window.window, window.size, window.num_masklets) == (Window(8, 3), SIZE, 3)
    nothing = np.zeros(SIZE, int).tolist()
    found = [window.stack(t).astype(int).tolist() for t in range(3)]
    assert found == [[nothing, right, left], [right, nothing, right], [left, nothing, nothing]]
    assert window.frame_iou.tolist() == [[0, 0.5, 0.75], [0.125, 0, 1], [0.25, 0, 0]]
    assert window.frame_iou.dtype == np.float32
    np.testing.assert_allclose(window.predicted_iou, [0.5, 0.5, 0.9])
    np.testing.assert_allclose(window.stability, [0.6, 0.6, 1.0])
    assert window.points.tolist() == [[0, 1], [0, 1], [2, 3]]


def test_new_masklets_are_numbered_from_the_windows_start_and_carried_ones_keep_their_ids():
    recorder = MaskletRecorder(Window(5, 1), SIZE)

    recorder.open(*scores(1))
    recorder.open(*scores(2), ids=np.array([3, 77]))
    recorder.open(*scores(1))

    assert recorder.finish().ids.tolist() == [5 * IDS_PER_FRAME, 3, 77, 5 * IDS_PER_FRAME + 1]


def test_covered_is_the_union_of_the_masks_of_one_frame():
    recorder = MaskletRecorder(Window(0, 2), SIZE)
    rows = recorder.open(*scores(2))
    recorder.put(0, rows, rles([[1, 0, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0]]), np.ones(2))

    assert recorder.covered(0).astype(int).tolist() == [[1, 1, 0], [0, 0, 0]]
    assert recorder.covered(0).dtype == bool
    assert not recorder.covered(1).any()


def test_a_later_mask_of_the_same_frame_replaces_the_earlier_one():
    recorder = MaskletRecorder(Window(0, 1), SIZE)
    rows = recorder.open(*scores(1))
    for quality, mask in ((0.25, [[1, 1, 1], [0, 0, 0]]), (0.75, [[0, 0, 0], [0, 1, 0]])):
        recorder.put(0, rows, rles(mask), np.array([quality]))

    assert recorder.finish().stack(0).astype(int).tolist() == [[[0, 0, 0], [0, 1, 0]]]
    assert recorder.finish().frame_iou.tolist() == [[0.75]]


def test_predicted_iou_is_cut_to_0_to_1_and_is_0_where_a_mask_is_empty():
    recorder = MaskletRecorder(Window(0, 1), SIZE)
    full, empty = [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]
    rows = recorder.open(*scores(4))
    recorder.put(0, rows, rles(full, full, empty, full), np.array([1.5, -0.5, 0.5, 0.25], np.float32))

    assert recorder.finish().frame_iou.tolist() == [[1, 0, 0, 0.25]]


def test_any_number_of_masks_has_its_quality():
    masks = [[[i % 2, 0, 0], [0, 0, 0]] for i in range(600)]

    quality = quality_of_masks(rles(*masks), np.full(600, 0.5, np.float32))

    assert quality.tolist() == [0.5 * (i % 2) for i in range(600)]
    assert quality_of_masks((), np.zeros(0, np.float32)).shape == (0,)


def test_a_window_without_masklets_is_empty():
    window = MaskletRecorder(Window(4, 2), SIZE).finish()

    assert (window.num_masklets, window.rles, window.points.shape) == (0, ((), ()), (0, 2))
    assert window.frame_iou.shape == (2, 0)


def test_as_many_masks_as_rows_are_asked_for():
    recorder = MaskletRecorder(Window(0, 1), SIZE)
    rows = recorder.open(*scores(2))

    with pytest.raises(ValueError, match="shorter"):
        recorder.put(0, rows, rles([[1, 0, 0], [0, 0, 0]]), np.ones(2))
    with pytest.raises(ValueError, match="broadcast"):
        recorder.put(0, rows, rles(*[[[1, 0, 0], [0, 0, 0]]] * 2), np.ones(3))
