import zlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from meta_generator import assert_same, generate, smooth_logits
from sam2vss.errors import SettingsError, ShapeError
from sam2vss.sam2.candidates import (
    Candidates,
    Selection,
    above,
    box_nms,
    enlarge,
    find_candidates,
    grid_points,
    mask_areas,
    mask_boxes,
    stability_score,
    uncovered,
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


@dataclass(frozen=True)
class Given:
    """Logits to give Meta's generator, its thresholds, and the areas and the CRC-32 of the masks that it chose.

    No enlarged logit lies within 1e-4 of a threshold, so rounding does not matter.
    """

    seed: int
    size: tuple[int, int]
    thresholds: tuple[float, float, float, float]
    areas: str
    crc: int
    min_area: int = 0
    max_speck: int = 0

    def candidates(self) -> Candidates:
        points = grid_points(4, self.size).repeat_interleave(3, dim=0)
        return Candidates(*smooth_logits(self.seed, count=48, side=16, speckle=0.04), points, self.size)


GIVEN = [
    Given(
        seed=4,
        size=(48, 85),
        thresholds=(0.6, 0.8, 0.9, 0.7),
        areas="466 1160 802 367 193 876 950 598 551 977 834 82 396 308 511",
        crc=85849904,
    ),
    Given(
        seed=1,
        size=(85, 48),
        thresholds=(0.7, 0.7, 0.3, 0.5),
        areas="893 1013 201 190 425 187 481 73 63 134 417 261 575 116",
        crc=1963646689,
    ),
    Given(
        seed=2,
        size=(48, 85),
        thresholds=(0.6, 0.5, 0.9, 0.7),
        areas="456 332 253 248 782 303 136 251 127 288 186 280 79 627 700 779 526 535 1481 298 1090",
        crc=2532386825,
        min_area=40,
    ),
    Given(
        seed=3,
        size=(85, 48),
        thresholds=(0.6, 0.5, 0.9, 0.7),
        areas="1228 643 254 1823 694 421 1056 379 1049 342 57 620 960 802 217 260 405 95 124",
        crc=1119648680,
        max_speck=2,
    ),
]


def flat(picture: list[str], iou: list[float]) -> Candidates:
    """Candidates drawn cell by cell, `#` inside, at the size of the frame; all stable, point (0, 0)."""
    masks = [[[cell == "#" for cell in line] for line in drawing.split("/")] for drawing in picture]
    logits = torch.tensor(masks).float() * 20 - 10
    return Candidates(logits, torch.tensor(iou), torch.zeros(len(iou), 2), (logits.shape[1], logits.shape[2]))


def is_equal(a: Selection, b: Selection) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Selection))


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
    sizes: list[int] = []
    embed = network.embed_points
    monkeypatch.setattr(network, "embed_points", lambda points: (sizes.append(len(points)), embed(points))[1])

    found = find_candidates(network, features[0], (90, 130), points_per_side=3, points_per_batch=4)

    assert sizes == [4, 4, 1]
    torch.testing.assert_close(found.logits, candidates.logits, atol=2e-3, rtol=0)
    assert torch.equal(found.points, candidates.points)


def test_on_a_cpu_few_points_are_decoded_at_once_where_the_grid_of_features_is_large(
    network: Sam2Network, features: list[FrameFeatures], monkeypatch: pytest.MonkeyPatch
):
    sizes: list[int] = []
    embed = network.embed_points
    monkeypatch.setattr(network, "embed_points", lambda points: (sizes.append(len(points)), embed(points))[1])
    monkeypatch.setattr("sam2vss.sam2.candidates.CELLS_PER_BATCH", 250)  # of 8 x 8 cells: three times 64, and a rest

    find_candidates(network, features[0], (90, 130), points_per_side=2)

    assert sizes == [3, 1]


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
        assert is_equal(kept, fresh)
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


class SizesAskedFor(TorchDispatchMode):
    """Counts operations whose result is as large as the numbers say: for these a host must wait for its GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_mask = any(isinstance(leaf, Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1:]))
        self.count += func is torch.ops.aten.nonzero.default or (func is torch.ops.aten.index.Tensor and is_mask)
        return func(*args, **kwargs or {})


def test_the_number_of_survivors_is_asked_for_once_by_each_filter():
    candidates = blobs(0, 12, (40, 60))

    with SizesAskedFor() as sizes:
        selection = candidates.select(0.3, 0.5, 1.0, 0.7)

    assert 0 < len(selection) < len(candidates)
    assert sizes.count == 2  # predicted IoU and stability; NMS counts on the host anyway


def test_stability_counts_pixels_above_plus_and_minus_the_offset_in_logits():
    logits = torch.tensor([[[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0]]])

    # offset 0.9: {2, 1} of {2, 1, .5, 0, -.5}; offset 1: {2} of the same, as +-1 are not above; offset 3: none of all
    assert stability_score(logits, 0.9).tolist() == pytest.approx([2 / 5])
    assert stability_score(logits, 1.0).tolist() == pytest.approx([1 / 5])
    assert stability_score(logits, 3.0).tolist() == [0.0]
    assert stability_score(torch.full((1, 2, 2), -9.0), 1.0).tolist() == [0.0]


@pytest.mark.parametrize("given", GIVEN)
def test_given_logits_become_the_masks_of_metas_generator_in_its_order(given: Given):
    chosen = given.candidates().select(*given.thresholds, min_area=given.min_area, max_speck=given.max_speck)

    assert chosen.masks.sum((1, 2)).tolist() == [int(area) for area in given.areas.split()]
    assert zlib.crc32(np.packbits(chosen.masks.numpy()).tobytes()) == given.crc


@pytest.mark.peers
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("size", [(48, 85), (85, 48), (480, 853), (853, 480)])
def test_given_logits_become_the_masks_of_the_installed_generator(
    given: Given, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    candidates = replace(given, size=size).candidates()
    iou, stability, offset, nms = given.thresholds

    records = generate(
        monkeypatch,
        candidates.logits,
        candidates.iou,
        size,
        points_per_side=4,
        min_area=given.min_area,
        min_mask_region_area=given.max_speck,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        stability_score_offset=offset,
        box_nms_thresh=nms,
    )

    assert len(records) > 10
    assert_same(candidates.select(*given.thresholds, given.min_area, given.max_speck), records)


def test_only_what_passes_the_predicted_iou_is_enlarged_and_only_what_survives_is_cut(monkeypatch: pytest.MonkeyPatch):
    candidates = flat(["##../##..", "##../##..", "..##/..##", "#.../#..."], iou=[0.9, 0.8, 0.7, 0.5])
    enlarged: list[int] = []
    monkeypatch.setattr(
        "sam2vss.sam2.candidates.enlarge",
        lambda logits, size: (enlarged.append(len(logits)), enlarge(logits, size))[1],
    )

    chosen = candidates.select(iou=0.6, stability=0.5, offset=1.0, nms=0.7)

    assert chosen.rows.tolist() == [0, 2]
    assert enlarged == [3, 2]  # three pass the threshold; NMS drops the copy


def test_half_precision_logits_are_enlarged_in_single_precision():
    candidates = blobs(4, count=24, size=(33, 47))
    for dtype in (torch.float16, torch.bfloat16):
        short = replace(candidates, logits=candidates.logits.to(dtype))
        same_in_single = replace(candidates, logits=short.logits.float())

        chosen = short.select(0.4, 0.5, 0.9, 0.7)

        assert len(chosen) > 3
        assert is_equal(chosen, same_in_single.select(0.4, 0.5, 0.9, 0.7))


def test_a_mask_that_was_cleaned_yields_to_one_that_had_the_same_box_from_the_start():
    candidates = flat(["##...../##.....", "##....#/##....."], iou=[0.8, 0.9])

    # boxes 0-1 and 0-6, areas 1 and 6: IoU 1/6, both stay until the island is gone
    assert candidates.select(0.5, 0.5, 1.0, 0.7).rows.tolist() == [1, 0]
    chosen = candidates.select(0.5, 0.5, 1.0, 0.7, min_area=2)
    assert chosen.rows.tolist() == [0]
    assert chosen.predicted_iou.tolist() == pytest.approx([0.8])


def test_cleaned_masks_come_after_the_others():
    candidates = flat(["##....#/##.....", "...##../...##.."], iou=[0.9, 0.8])

    chosen = candidates.select(0.5, 0.5, 1.0, 0.7, min_area=2)

    assert chosen.rows.tolist() == [1, 0]
    assert chosen.masks[1].sum() == 4


def test_specks_are_removed_before_the_predicted_masks_are_judged():
    # one cell inside an 8 x 8 frame of 4 x 4 cells: a mask of area 4 or nothing, which makes it empty and unstable
    logits = torch.full((1, 4, 4), -10.0)
    logits[0, 1, 1] = 10.0
    candidates = Candidates(logits, torch.tensor([0.9]), torch.zeros(1, 2), (8, 8))

    assert len(candidates.select(0.5, 0.5, 1.0, 0.7)) == 1
    assert len(candidates.select(0.5, 0.5, 1.0, 0.7, max_speck=1)) == 0


def test_pruned_candidates_select_what_all_of_them_select():
    candidates = blobs(2, count=40, size=(33, 47))
    pruned = candidates.pruned(0.6)

    whole, short = (found.select(0.6, 0.3, 0.9, 0.7) for found in (candidates, pruned))

    assert len(pruned) == int((candidates.iou > 0.6).sum()) < len(candidates)
    assert torch.equal(whole.masks, short.masks)
    assert torch.equal(whole.stability, short.stability)
    assert torch.equal(whole.predicted_iou, short.predicted_iou)
    assert torch.equal(whole.points, short.points)


def test_a_threshold_below_the_floor_of_pruned_candidates_is_refused():
    pruned = blobs(2, count=8, size=(4, 4)).pruned(0.6)

    with pytest.raises(SettingsError, match=r"threshold of 0\.5 was asked of candidates that are kept above 0\.6"):
        pruned.select(0.5, 0.5, 0.9, 0.7)
    with pytest.raises(SettingsError, match="find the candidates again"):
        pruned.pruned(0.5)
    assert len(pruned.pruned(0.6)) == len(pruned)


def test_only_points_on_wanted_pixels_are_prompted(
    network: Sam2Network, features: list[FrameFeatures], candidates: Candidates
):
    is_wanted = torch.zeros(90, 130, dtype=torch.bool)
    is_wanted[45, 21] = is_wanted[75, 108] = True  # pixels of points 3 (21.67, 45) and 8 (108.33, 75) of the 3 x 3 grid

    found = find_candidates(network, features[0], (90, 130), points_per_side=3, is_wanted=is_wanted)

    rows = [9, 10, 11, 24, 25, 26]
    assert torch.equal(found.points, candidates.points[rows])
    torch.testing.assert_close(found.logits, candidates.logits[rows], atol=2e-3, rtol=0)
    torch.testing.assert_close(found.iou, candidates.iou[rows], atol=1e-4, rtol=0)


def test_no_wanted_point_gives_no_candidates_and_an_empty_selection(
    network: Sam2Network, features: list[FrameFeatures]
):
    nowhere = torch.zeros(90, 130, dtype=torch.bool)

    found = find_candidates(network, features[0], (90, 130), points_per_side=3, is_wanted=nowhere)

    assert (found.logits.shape, found.iou.shape, found.points.shape) == ((0, 32, 32), (0,), (0, 2))
    for options in ({}, {"min_area": 5, "max_speck": 5}):
        chosen = found.pruned(0.5).select(0.6, 0.8, 0.9, 0.7, **options)
        assert len(chosen) == len(uncovered(chosen, nowhere, 0.5)) == 0
        assert (chosen.masks.shape, chosen.masks.dtype) == ((0, 90, 130), torch.bool)


def test_wanted_pixels_of_another_size_are_refused(network: Sam2Network, features: list[FrameFeatures]):
    with pytest.raises(ShapeError, match=r"is_wanted is \(130, 90\), expected a mask of the frame, \(90, 130\)"):
        find_candidates(network, features[0], (90, 130), 3, is_wanted=torch.ones(130, 90, dtype=torch.bool))


def test_masks_stay_whose_share_outside_the_covered_pixels_is_large_enough():
    chosen = flat(["####", "##..", ".##.", "...#"], iou=[0.9, 0.8, 0.7, 0.6]).select(0.5, 0.5, 1.0, 1.0)
    covered = torch.tensor([[True, True, False, False]])

    # new shares: 2/4, 0/2, 1/2, 1/1
    assert uncovered(chosen, covered, 0.5).rows.tolist() == [0, 2, 3]
    assert uncovered(chosen, covered, 0.51).rows.tolist() == [3]
    assert uncovered(chosen, covered, 0.0).rows.tolist() == [0, 1, 2, 3]
    with pytest.raises(ShapeError, match=r"covered is \(4, 1\), the masks are \(1, 4\)"):
        uncovered(chosen, covered.T, 0.5)


def test_an_empty_mask_covers_nothing_new():
    empty = Selection(torch.zeros(1, 2, 2, dtype=torch.bool), *torch.zeros(2, 1), torch.zeros(1, 2), torch.zeros(1))

    assert len(uncovered(empty, torch.zeros(2, 2, dtype=torch.bool), 0.1)) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (51, 40), (13, 157), (91, 131)])  # 51 * 40 = 8 * 255 = 13 * 157 - 1
def test_areas_count_every_pixel(size: tuple[int, int]):
    masks = torch.rand(7, *size, generator=torch.Generator().manual_seed(1)) > 0.4
    masks[2], masks[3] = True, False

    assert torch.equal(mask_areas(masks), masks.sum((1, 2)))
    assert torch.equal(mask_areas(masks[1:, :, ::2]), masks[1:, :, ::2].sum((1, 2)))
    assert mask_areas(masks[:0]).shape == (0,)


def test_thresholds_are_taken_in_single_precision():
    logits = torch.tensor([0.9, -0.9])  # 0.9 in single precision is less than 0.9

    assert above(logits, 0.9).tolist() == (logits > 0.9).tolist() == [False, False]
    assert above(logits, -0.9).tolist() == (logits > -0.9).tolist() == [True, False]


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
