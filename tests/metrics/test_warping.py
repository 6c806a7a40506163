"""Labels brought back along flow, and which pixels can be seen in both frames."""

import numpy as np
import pytest

from sam2vss.errors import ShapeError
from sam2vss.metrics.warping import check_flow, is_seen_in_both, warp_back, warp_back_as_tc_script


def test_labels_come_back_to_where_flow_leads_from():
    labels = np.array([[10, 11, 12, 13]], np.uint16)
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = [2, 0.4, 0.6, 0.6]  # to 2, 1.4, 2.6 and 3.6, the last one out of the picture
    warped, is_inside = warp_back(labels, flow)
    assert warped.tolist() == [[12, 11, 13, 13]]
    assert is_inside.tolist() == [[True, True, True, False]]
    assert warped.dtype == np.uint16


def test_flow_down_reads_rows():
    labels = np.array([[1], [2], [3]], np.uint8)
    flow = np.zeros((3, 1, 2), np.float32)
    flow[..., 1] = 1
    warped, is_inside = warp_back(labels, flow)
    assert warped[:2, 0].tolist() == [2, 3]
    assert is_inside[:, 0].tolist() == [True, True, False]


def test_pixels_without_flow_count_as_out_of_the_picture():
    flow = np.full((1, 3, 2), [0.0, 0.0])
    flow[0, 0], flow[0, 1, 1] = np.nan, np.inf
    checked = check_flow(flow, (1, 3))
    assert checked.dtype == np.float32
    assert warp_back(np.ones((1, 3), np.uint8), checked)[1].tolist() == [[False, False, True]]
    assert warp_back_as_tc_script(np.ones((1, 3), np.uint8), checked).tolist() == [[0, 0, 1]]


def test_flow_of_another_form_is_refused():
    with pytest.raises(ShapeError, match=r"flow is float64 \(2, 3, 4\), expected floats \(3, 4, 2\)"):
        check_flow(np.zeros((2, 3, 4)), (3, 4))  # channels first, as RAFT gives it
    with pytest.raises(ShapeError, match="expected floats"):
        is_seen_in_both(np.zeros((3, 4, 2)), np.zeros((4, 3, 2)))


def test_flow_that_comes_back_is_seen_and_flow_that_does_not_is_hidden():
    there, back = np.zeros((4, 8, 2)), np.zeros((4, 8, 2))
    there[..., 0] = 2  # all move two pixels to the right
    back[..., 0] = -2
    seen = is_seen_in_both(there, back)
    assert seen[:, :6].all()
    assert not seen[:, 6:].any()  # these leave the picture
    back[:, 4:6] = [3, 0]  # another thing lies there in the next frame, and it came from elsewhere
    seen = is_seen_in_both(there, back)
    assert seen[:, :2].all()
    assert not seen[:, 2:4].any()  # those whose place it took
    assert seen[:, 4:6].all()


def test_the_slack_is_that_of_the_paper():
    def is_seen(gap: float, move: float) -> bool:
        there, back = np.zeros((3, 60, 2)), np.zeros((3, 60, 2))
        there[..., 0], back[..., 0] = move, -move + gap
        return bool(is_seen_in_both(there, back)[1, 5])

    # without motion: gap^2 < 0.01 (0 + gap^2) + 0.5, gap < 0.7107
    assert is_seen(0.70, 0)
    assert not is_seen(0.72, 0)
    # 20 px there, 20 - gap back: gap^2 < 0.01 (400 + (20 - gap)^2) + 0.5, which holds for gap = 2.7 and not for 2.9
    assert is_seen(2.7, 20)
    assert not is_seen(2.9, 20)
