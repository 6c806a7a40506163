import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sam2vss.sam2.candidates import (
    Candidates,
    box_nms,
    enlarge,
    find_candidates,
    grid_points,
    mask_boxes,
    stability_score,
)
from sam2vss.sam2.model import FrameFeatures, Sam2Network

# Meta's SAM2AutomaticMaskGenerator (sam2 repository, commit 2b90b9f) on the tiny network's weights and moving frame 0
# of 90 x 130 pixels: 3 x 3 points, no IoU and no stability threshold, offset 0.3, box NMS 0.9. Area, predicted IoU,
# stability (empty masks: Meta divides zero by zero, we say 0), point; in Meta's order.
GOLDEN = [
    (386, 0.5977, 0.1326, (108.33, 45.0)),
    (0, 0.5900, 0.0, (108.33, 75.0)),
    (149, 0.5854, 0.1047, (21.67, 75.0)),
    (0, 0.5839, 0.0, (65.0, 45.0)),
    (0, 0.5832, 0.0, (65.0, 15.0)),
    (0, 0.5819, 0.0, (108.33, 15.0)),
    (890, 0.5232, 0.3414, (108.33, 75.0)),
    (693, 0.5226, 0.4421, (21.67, 75.0)),
    (488, 0.5108, 0.0358, (21.67, 45.0)),
]
# The same run: logits at row 9, column 21 and predicted IoU of the three masks of points 0, 4 and 8.
GOLDEN_LOGITS = [[0.6635, -0.8137, 2.8460], [0.3499, -2.1108, 2.7757], [-0.3779, -1.7895, 3.1193]]
GOLDEN_IOU = [[0.5246, 0.5888, 0.3973], [0.5163, 0.5839, 0.4041], [0.5232, 0.5900, 0.3971]]


def blobs(seed: int, count: int, size: tuple[int, int]) -> Candidates:
    """Steep elliptic mask logits (16, 16) of any stability, with copies, ties in the predicted IoU and empty masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16]
    centre_y, centre_x = rng.uniform(0, 16, (2, count, 1, 1))
    radius_y, radius_x = rng.uniform(1, 8, (2, count, 1, 1))
    ellipse = 1 - ((y - centre_y) / radius_y) ** 2 - ((x - centre_x) / radius_x) ** 2
    logits = ellipse * rng.uniform(0.5, 20, (count, 1, 1)) + rng.normal(0, 0.3, (count, 16, 16))
    copies = rng.integers(0, count, (count // 4, 2))
    logits[copies[:, 0]] = logits[copies[:, 1]]
    logits[rng.integers(0, count, 2)] = -3
    iou = np.round(rng.uniform(0.3, 1, count), 1)
    points = rng.uniform(0, 10, (count, 2))
    return Candidates(*(torch.from_numpy(a).float() for a in (logits, iou, points)), size)


def literal_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Non-maximum suppression with plain loops and fractions of whole numbers."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        for j in kept:
            (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes[i].tolist(), boxes[j].tolist()
            overlap = max(0, min(a1, c1) - max(a0, c0)) * max(0, min(b1, d1) - max(b0, d0))
            union = (a1 - a0) * (b1 - b0) + (c1 - c0) * (d1 - d0) - overlap
            if union and overlap / union > threshold + 1e-6:
                break
        else:
            kept.append(i)
    return kept


def literal_select(candidates: Candidates, iou: float, stability: float, offset: float, nms: float) -> list[int]:
    """Rows that survive, best first, one candidate and one pixel at a time."""
    height, width = candidates.size
    rows, boxes = [], []
    for row in range(len(candidates.iou)):
        if not candidates.iou[row] > iou:
            continue
        logits = enlarge(candidates.logits[row : row + 1], candidates.size)[0].tolist()
        inner = sum(value > offset for line in logits for value in line)
        outer = sum(value > -offset for line in logits for value in line)
        if (inner / outer if outer else 0.0) < stability:
            continue
        inside = [(x, y) for y in range(height) for x in range(width) if logits[y][x] > 0]
        xs, ys = [x for x, _ in inside] or [0], [y for _, y in inside] or [0]
        rows.append(row)
        boxes.append([min(xs), min(ys), max(xs), max(ys)])
    kept = literal_nms(np.array(boxes).reshape(-1, 4), candidates.iou[rows].numpy(), nms)
    return [rows[i] for i in kept]


@pytest.fixture(scope="module")
def candidates(network: Sam2Network, features: list[FrameFeatures]) -> Candidates:
    return find_candidates(network, features[0], (90, 130), points_per_side=3)


def test_logits_and_predicted_iou_are_those_of_metas_generator(candidates: Candidates):
    logits, iou = candidates.logits.unflatten(0, (9, 3)), candidates.iou.unflatten(0, (9, 3))

    torch.testing.assert_close(logits[[0, 4, 8], :, 9, 21], torch.tensor(GOLDEN_LOGITS), atol=0.002, rtol=0)
    torch.testing.assert_close(iou[[0, 4, 8]], torch.tensor(GOLDEN_IOU), atol=0.0002, rtol=0)


def test_masks_order_scores_and_points_are_those_of_metas_generator(candidates: Candidates):
    chosen = candidates.select(iou=0.0, stability=0.0, offset=0.3, nms=0.9)

    assert [area for area, _, _, _ in GOLDEN] == pytest.approx(chosen.masks.sum((1, 2)).tolist(), abs=3)
    assert [iou for _, iou, _, _ in GOLDEN] == pytest.approx(chosen.predicted_iou.tolist(), abs=2e-4)
    assert [stability for _, _, stability, _ in GOLDEN] == pytest.approx(chosen.stability.tolist(), abs=0.005)
    assert np.array([point for _, _, _, point in GOLDEN]) == pytest.approx(chosen.points.numpy(), abs=0.01)


@pytest.mark.parametrize("size", [(480, 853), (853, 480), (91, 131)])
@pytest.mark.parametrize("points_per_side", [1, 2, 16])
def test_the_grid_covers_a_frame_of_any_shape(size: tuple[int, int], points_per_side: int):
    points = grid_points(points_per_side, size)

    x, y = points[:, 0].unique(), points[:, 1].unique()
    assert len(points) == points_per_side**2
    for ticks, side in ((x, size[1]), (y, size[0])):
        step = side / points_per_side  # every cell of the grid has its point in the middle
        torch.testing.assert_close(ticks, (torch.arange(points_per_side) + 0.5) * step)


def test_grid_points_go_row_by_row_as_x_and_y():
    assert grid_points(2, (480, 853)).tolist() == [[213.25, 120], [639.75, 120], [213.25, 360], [639.75, 360]]


@pytest.mark.parametrize("size", [(480, 853), (853, 480)])
def test_prompts_reach_the_far_corner_of_the_models_square(
    size: tuple[int, int], network: Sam2Network, features: list[FrameFeatures], monkeypatch: pytest.MonkeyPatch
):
    asked: list[Tensor] = []
    embed = network.embed_points
    monkeypatch.setattr(network, "embed_points", lambda points: (asked.append(points), embed(points))[1])

    find_candidates(network, features[0], size, points_per_side=4)

    ticks = torch.tensor([16.0, 48.0, 80.0, 112.0])  # (i + 0.5) * 128 / 4, whatever the shape of the frame
    torch.testing.assert_close(torch.cat(asked)[:, 0].view(4, 4), ticks.expand(4, 4))
    torch.testing.assert_close(torch.cat(asked)[:, 1].view(4, 4), ticks[:, None].expand(4, 4))


def test_every_point_gives_its_three_multi_mask_answers(network: Sam2Network, features: list[FrameFeatures]):
    found = find_candidates(network, features[0], (64, 64), points_per_side=2)

    low = network.without_memory(features[0].low)
    for row, point in enumerate([(32.0, 32.0), (96.0, 32.0), (32.0, 96.0), (96.0, 96.0)]):  # in model pixels: 128 / 64
        with torch.inference_mode():
            tokens = network.embed_points(torch.tensor([point]))
            decoded = network.decode(low, features[0], tokens, network.no_mask())
        torch.testing.assert_close(found.logits[3 * row : 3 * row + 3], decoded.logits[0, 1:], atol=2e-3, rtol=0)
        torch.testing.assert_close(found.iou[3 * row : 3 * row + 3], decoded.iou[0, 1:], atol=1e-4, rtol=0)
        assert found.points[3 * row : 3 * row + 3].tolist() == [[point[0] / 2, point[1] / 2]] * 3


def test_batches_of_points_give_what_one_batch_gives(
    network: Sam2Network, features: list[FrameFeatures], candidates: Candidates, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sam2vss.sam2.candidates.POINTS_PER_BATCH", 4)  # 9 points in batches of 4, 4 and 1

    found = find_candidates(network, features[0], (90, 130), points_per_side=3)

    torch.testing.assert_close(found.logits, candidates.logits, atol=2e-3, rtol=0)
    assert torch.equal(found.points, candidates.points)


@given(
    seed=st.integers(0, 10**6),
    iou=st.sampled_from([0.0, 0.5, 0.7]),
    stability=st.sampled_from([0.0, 0.5, 0.8]),
    offset=st.sampled_from([0.3, 1.0]),
    nms=st.sampled_from([0.3, 0.7, 1.0]),
)
def test_selection_equals_plain_loops(seed: int, iou: float, stability: float, offset: float, nms: float):
    candidates = blobs(seed, count=24, size=(15, 21))

    chosen = candidates.select(iou, stability, offset, nms)

    rows = literal_select(candidates, iou, stability, offset, nms)
    assert torch.equal(chosen.predicted_iou, candidates.iou[rows])
    assert torch.equal(chosen.points, candidates.points[rows])
    assert torch.equal(chosen.masks, enlarge(candidates.logits[rows], (15, 21)) > 0)


def test_selecting_again_from_kept_candidates_equals_running_again(
    network: Sam2Network, features: list[FrameFeatures], candidates: Candidates
):
    candidates.select(0.5, 0.1, 0.3, 0.7)  # leaves nothing behind
    again = find_candidates(network, features[0], (90, 130), points_per_side=3)

    for thresholds in [(0.0, 0.0, 0.3, 1.0), (0.5, 0.1, 0.3, 0.95), (0.4, 0.05, 0.9, 0.7)]:
        kept, fresh = candidates.select(*thresholds), again.select(*thresholds)
        assert torch.equal(kept.masks, fresh.masks)
        assert torch.equal(kept.stability, fresh.stability)
        assert len(kept.masks) > 0


def test_stability_is_taken_at_the_size_of_the_frame_and_in_batches(monkeypatch: pytest.MonkeyPatch):
    candidates = blobs(1, count=24, size=(33, 47))
    whole = candidates.select(0.0, 0.0, 0.9, 1.0)
    monkeypatch.setattr("sam2vss.sam2.candidates.ENLARGED_PER_BATCH", 5)

    chosen = candidates.select(0.0, 0.0, 0.9, 1.0)

    rows = [int(torch.nonzero((candidates.points == point).all(1))[0, 0]) for point in chosen.points]
    expected = stability_score(enlarge(candidates.logits[rows], (33, 47)), 0.9)
    assert torch.equal(chosen.stability, expected)
    assert torch.equal(chosen.masks, whole.masks)


def test_a_predicted_iou_equal_to_the_threshold_fails_and_a_stability_equal_to_it_passes():
    logits = torch.full((2, 2, 2), -5.0)
    logits[:, 0, 0] = 5.0
    logits[:, 0, 1] = 0.5  # inside +-1: one stable pixel of two, stability 1/2
    candidates = Candidates(logits, torch.tensor([0.5, 0.75]), torch.zeros(2, 2), (2, 2))

    assert candidates.select(iou=0.5, stability=0.5, offset=1.0, nms=1.0).predicted_iou.tolist() == [0.75]
    assert len(candidates.select(iou=0.5, stability=0.51, offset=1.0, nms=1.0).masks) == 0


def test_stability_counts_pixels_above_plus_and_minus_the_offset_in_logits():
    logits = torch.tensor([[[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0]]])

    # offset 0.9: {2, 1} of {2, 1, .5, 0, -.5}; offset 1: {2} of the same, as +-1 are not above; offset 3: none of all
    assert stability_score(logits, 0.9).tolist() == pytest.approx([2 / 5])
    assert stability_score(logits, 1.0).tolist() == pytest.approx([1 / 5])
    assert stability_score(logits, 3.0).tolist() == [0.0]
    assert stability_score(torch.full((1, 2, 2), -9.0), 1.0).tolist() == [0.0]


def test_boxes_end_at_the_last_inside_pixel_and_empty_masks_have_none():
    masks = torch.zeros(4, 5, 6, dtype=torch.bool)
    masks[0, 1, 2] = True
    masks[1, 1, 5] = masks[1, 4, 3] = True
    masks[2] = True

    assert mask_boxes(masks).tolist() == [[2, 1, 2, 1], [3, 1, 5, 4], [0, 0, 5, 4], [0, 0, 0, 0]]
    assert mask_boxes(masks[:0]).shape == (0, 4)


@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_non_maximum_suppression_equals_plain_loops(seed: int, threshold: float):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (30, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    scores = rng.integers(0, 8, 30).astype(np.float32) / 8  # many ties

    kept = box_nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)

    assert kept.tolist() == literal_nms(boxes, scores, threshold)


def test_boxes_that_overlap_by_exactly_the_threshold_are_both_kept():
    # 90 x 1 and 63 x 1 inside it: 63 / 90 = 0.7, while 0.7 * 90 is 62.99999999999999 in double precision
    boxes = torch.tensor([[0.0, 0, 90, 1], [0, 0, 63, 1], [0, 0, 64, 1]])

    assert box_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.7).tolist() == [0, 1]


def test_boxes_without_area_neither_suppress_nor_fall():
    boxes = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 4]])

    assert box_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.7).tolist() == [0, 1, 2]


@pytest.mark.parametrize("thresholds", [(1.0, 0.0), (0.0, 1.01)])
def test_nothing_selected_is_an_empty_selection_of_the_right_shapes(
    thresholds: tuple[float, float], candidates: Candidates
):
    chosen = candidates.select(*thresholds, offset=0.9, nms=0.7)

    assert (chosen.masks.shape, chosen.masks.dtype) == ((0, 90, 130), torch.bool)
    assert (chosen.predicted_iou.shape, chosen.stability.shape, chosen.points.shape) == ((0,), (0,), (0, 2))


def test_enlarging_interpolates_between_cell_centres():
    logits = torch.tensor([[[0.0, 4.0]]])

    # cell centres at 1 and 3 of 4 columns; columns at 0.5, 1.5, 2.5, 3.5 -> 0, 1, 3, 4
    assert enlarge(logits, (1, 4)).tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
