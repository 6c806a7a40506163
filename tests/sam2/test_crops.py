import zlib
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch

from meta_generator import assert_same, generate, smooth_logits
from sam2vss.errors import SettingsError
from sam2vss.sam2.candidates import Candidates, Selection, enlarge, find_candidates, grid_points
from sam2vss.sam2.crops import Crop, CropCandidates, crop_layers, find_crop_candidates, is_cut_off
from sam2vss.sam2.model import FrameFeatures, Sam2Network

THRESHOLDS = (0.7, 0.5, 0.9, 0.7)
CROP_NMS = 0.6


@dataclass(frozen=True)
class Given:
    """Logits to give Meta's generator with crop layers, and the areas and the CRC-32 of the masks that it chose.

    No enlarged logit lies within 2e-5 of a threshold, so rounding does not matter.
    """

    seed: int
    size: tuple[int, int]
    num_layers: int
    points_divisor: int
    areas: str
    crc: int

    def candidates(self) -> CropCandidates:
        crops = crop_layers(self.size, self.num_layers)
        sides = [4 // self.points_divisor**crop.layer for crop in crops]
        counts = [3 * side**2 for side in sides]
        logits, iou = smooth_logits(self.seed, sum(counts), side=16)
        parts = zip(logits.split(counts), iou.split(counts), sides, crops, strict=True)
        candidates = [
            Candidates(part, scores, grid_points(side, crop.size).repeat_interleave(3, dim=0), crop.size)
            for part, scores, side, crop in parts
        ]
        return CropCandidates(crops, candidates)


GIVEN = [
    Given(
        seed=24,
        size=(120, 213),
        num_layers=1,
        points_divisor=2,
        areas="604 1027 1416 343 2608 860 2888 6828 6950 5049 3774 2702 705 5673 2611 960 1184",
        crc=3462826731,
    ),
    Given(
        seed=9,
        size=(213, 120),
        num_layers=1,
        points_divisor=1,
        areas="96 73 323 1514 369 2375 1727 673 855 539 1788 925 3059 373 226 1713 510 930 3435 253 2336 676 "
        "2375 354 1682 1893 1507 629 4560 4335 7900 1404 4234 930 4652 503 2044 1976 5889 3747",
        crc=1396666781,
    ),
    Given(
        seed=22,
        size=(160, 240),
        num_layers=2,
        points_divisor=2,
        areas="570 142 325 1104 1992 2351 1343 322 3182 421 5745 11651 1539 2338 11578 2764 1631 2791 1469 "
        "4731 5728 759 5021",
        crc=155630999,
    ),
]


def is_equal(a: Selection, b: Selection) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Selection))


def box_candidates(crop: Crop, boxes: list[tuple[int, int, int, int]], iou: list[float]) -> Candidates:
    """Candidates at the size of a crop, each a rectangle: left, top and last inside column and row."""
    logits = torch.full((len(boxes), *crop.size), -10.0)
    for row, (left, top, right, bottom) in enumerate(boxes):
        logits[row, top : bottom + 1, left : right + 1] = 10.0
    return Candidates(logits, torch.tensor(iou), torch.zeros(len(boxes), 2), crop.size)


def test_four_crops_of_the_first_layer_overlap_by_a_third_of_the_short_side():
    # overlap int(0.3413 * 100) = 34; widths ceil((34 + 200) / 2) = 117, heights ceil((34 + 100) / 2) = 67
    assert crop_layers((100, 200), 1) == [
        Crop(0, 0, 200, 100, 0),
        Crop(0, 0, 117, 67, 1),
        Crop(0, 33, 117, 100, 1),
        Crop(83, 0, 200, 67, 1),
        Crop(83, 33, 200, 100, 1),
    ]


def test_crops_of_two_layers_are_those_of_metas_generator():
    crops = [(crop.left, crop.top, crop.right, crop.bottom, crop.layer) for crop in crop_layers((61, 97), 2)]

    # Meta's generate_crop_boxes, the first two and the last two of 16 in layer 2
    assert crops[:7] == [
        (0, 0, 97, 61, 0),
        (0, 0, 59, 41, 1),
        (0, 21, 59, 61, 1),
        (39, 0, 97, 41, 1),
        (39, 21, 97, 61, 1),
        (0, 0, 32, 23, 2),
        (0, 13, 32, 36, 2),
    ]
    assert crops[-2:] == [(66, 26, 97, 49, 2), (66, 39, 97, 61, 2)]
    assert len(crops) == 21


@pytest.mark.parametrize("size", [(480, 853), (853, 480), (61, 97)])
@pytest.mark.parametrize("overlap_ratio", [0.0, 512 / 1500, 0.6])
def test_every_layer_covers_the_frame(size: tuple[int, int], overlap_ratio: float):
    crops = crop_layers(size, 3, overlap_ratio)

    for layer in range(4):
        seen = np.zeros(size, int)
        for crop in crops:
            if crop.layer == layer:
                seen[crop.top : crop.bottom, crop.left : crop.right] += 1
        assert seen.min() >= 1
    assert [sum(crop.layer == layer for crop in crops) for layer in range(4)] == [1, 4, 16, 64]


def test_no_layer_is_the_frame_alone():
    assert crop_layers((61, 97), 0) == [Crop(0, 0, 97, 61, 0)]


def test_boxes_that_end_near_an_edge_of_the_crop_are_cut_off_unless_the_frame_ends_there():
    crop = Crop(left=0, top=50, right=117, bottom=200, layer=1)  # of a frame of 400 x 300
    boxes = [
        (0, 30, 60, 100, False),  # at the frame's left edge
        (40, 30, 96, 100, False),  # 21 from the right edge
        (40, 30, 97, 100, True),  # 20 from it
        (40, 21, 60, 100, False),  # 21 from the top edge, which is 50 in the frame
        (40, 20, 60, 100, True),
        (40, 30, 60, 130, True),  # 20 from the bottom edge
    ]
    found = is_cut_off(torch.tensor([box[:4] for box in boxes]).float(), crop, (400, 300))

    assert found.tolist() == [box[4] for box in boxes]


def test_nothing_is_cut_off_by_the_frame_itself():
    boxes = torch.tensor([[0.0, 0, 96, 60], [30, 30, 50, 40]])

    assert is_cut_off(boxes, Crop(0, 0, 97, 61, 0), (61, 97)).tolist() == [False, False]


@pytest.mark.parametrize("given", GIVEN)
def test_given_logits_become_the_masks_of_metas_generator_in_its_order(given: Given):
    chosen = given.candidates().select(*THRESHOLDS, CROP_NMS)

    assert chosen.masks.sum((1, 2)).tolist() == [int(area) for area in given.areas.split()]
    assert zlib.crc32(np.packbits(chosen.masks.numpy()).tobytes()) == given.crc


@pytest.mark.peers
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(("min_area", "max_speck"), [(0, 0), (40, 0), (0, 3)])
def test_given_logits_become_the_masks_of_the_installed_generator(
    given: Given, min_area: int, max_speck: int, monkeypatch: pytest.MonkeyPatch
):
    candidates = given.candidates()
    iou, stability, offset, nms = THRESHOLDS

    records = generate(
        monkeypatch,
        torch.cat([part.logits for part in candidates.candidates]),
        torch.cat([part.iou for part in candidates.candidates]),
        given.size,
        points_per_side=4,
        min_area=min_area,
        min_mask_region_area=max_speck,
        crop_n_layers=given.num_layers,
        crop_n_points_downscale_factor=given.points_divisor,
        crop_nms_thresh=CROP_NMS,
        pred_iou_thresh=iou,
        stability_score_thresh=stability,
        stability_score_offset=offset,
        box_nms_thresh=nms,
    )

    assert len(records) > 10
    assert_same(candidates.select(*THRESHOLDS, CROP_NMS, min_area, max_speck), records)


def test_without_layers_the_selection_is_that_of_the_frame():
    logits, iou = smooth_logits(3, 48, side=16, speckle=0.04)
    frame = Candidates(logits, iou, grid_points(4, (48, 85)).repeat_interleave(3, dim=0), (48, 85))
    crops = CropCandidates(crop_layers((48, 85), 0), [frame])

    for options in ({}, {"min_area": 40}, {"max_speck": 2}):
        chosen = crops.select(*THRESHOLDS, crop_nms=0.01, **options)  # there are no crops to compare
        assert len(chosen) > 10
        assert is_equal(chosen, frame.select(*THRESHOLDS, **options))


def test_masks_of_a_crop_lie_where_the_crop_lies_and_win_over_the_same_box_in_the_frame():
    crops = crop_layers((100, 200), 1)
    none = [box_candidates(crop, [], []) for crop in crops]
    frame = box_candidates(crops[0], [(120, 60, 150, 75), (10, 10, 40, 40)], [0.99, 0.9])
    last = box_candidates(crops[4], [(37, 27, 67, 42)], [0.8])  # (120, 60, 150, 75) from (83, 33) on

    chosen = CropCandidates(crops, [frame, *none[1:4], last]).select(0.5, 0.5, 1.0, 0.7)

    assert chosen.rows.tolist() == [2, 1]  # smallest crop first; row 0 has the box of row 2
    assert chosen.predicted_iou.tolist() == pytest.approx([0.8, 0.9])
    assert chosen.points.tolist() == [[83, 33], [0, 0]]
    expected = torch.zeros(2, 100, 200, dtype=torch.bool)
    expected[0, 60:76, 120:151] = True
    expected[1, 10:41, 10:41] = True
    assert torch.equal(chosen.masks, expected)


def test_small_regions_are_removed_in_the_frame_with_the_larger_of_both_thresholds():
    crops = crop_layers((100, 200), 1)
    frame = box_candidates(crops[0], [(10, 10, 40, 40), (10, 10, 40, 40)], [0.9, 0.8])
    frame.logits[1, 90, 190] = 10.0  # an island that makes its box a larger one
    none = [box_candidates(crop, [], []) for crop in crops[1:]]

    for nms, crop_nms, rows in [(0.7, 0.7, [0]), (0.7, 1.0, [0, 1]), (1.0, 0.7, [0, 1])]:
        chosen = CropCandidates(crops, [frame, *none]).select(0.5, 0.5, 1.0, nms, crop_nms, min_area=5)
        assert chosen.rows.tolist() == rows
        assert (chosen.masks.sum((1, 2)) == 31 * 31).all()


def test_nothing_selected_is_an_empty_selection_of_the_right_shapes():
    crops = crop_layers((100, 200), 1)

    chosen = CropCandidates(crops, [box_candidates(crop, [], []) for crop in crops]).select(0.5, 0.5, 1.0, 0.7)

    assert (chosen.masks.shape, chosen.points.shape, chosen.rows.dtype) == ((0, 100, 200), (0, 2), torch.int64)


def test_every_crop_is_encoded_and_prompted_on_its_own(network: Sam2Network, frames: np.ndarray):
    frame = torch.from_numpy(frames[0])

    found = find_crop_candidates(network, frame, points_per_side=4, num_layers=1, points_divisor=2)

    assert [len(part) for part in found.candidates] == [48, 12, 12, 12, 12]
    assert found.size == (90, 130)
    for number in (0, 3):
        crop, part = found.crops[number], found.candidates[number]
        picture = frame[crop.top : crop.bottom, crop.left : crop.right]
        with torch.inference_mode():
            features = network.encode(network.pixels(picture[None]))
        alone = find_candidates(network, features, crop.size, points_per_side=4 if number == 0 else 2)
        torch.testing.assert_close(part.logits, alone.logits)
        assert torch.equal(part.points, alone.points)
        assert part.size == crop.size == tuple(picture.shape[:2])


def test_features_of_the_frame_are_not_computed_twice(
    network: Sam2Network, frames: np.ndarray, features: list[FrameFeatures], monkeypatch: pytest.MonkeyPatch
):
    frame = torch.from_numpy(frames[0])
    fresh = find_crop_candidates(network, frame, points_per_side=2, num_layers=1)
    encoded: list[int] = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda pixels: (encoded.append(len(pixels)), encode(pixels))[1])

    found = find_crop_candidates(network, frame, points_per_side=2, num_layers=1, features=features[0])

    assert encoded == [1, 1, 1, 1]
    for part, other in zip(found.candidates, fresh.candidates, strict=True):
        torch.testing.assert_close(part.logits, other.logits)


def test_only_points_on_wanted_pixels_of_the_frame_are_prompted(network: Sam2Network, frames: np.ndarray):
    is_wanted = torch.zeros(90, 130, dtype=torch.bool)
    is_wanted[:33, :48] = True  # crops are 80 wide and 60 high, from 0 and 50 and from 0 and 30 on

    found = find_crop_candidates(
        network, torch.from_numpy(frames[0]), points_per_side=2, num_layers=1, is_wanted=is_wanted
    )

    # of the points at 1/4 and 3/4: (32.5, 22.5) of the frame, (20, 15) of the first crop, no other
    assert [part.points.tolist() for part in found.candidates] == [[[32.5, 22.5]] * 3, [[20, 15]] * 3, [], [], []]


def test_masks_of_a_crop_are_its_logits_enlarged_to_the_crop(network: Sam2Network, frames: np.ndarray):
    found = find_crop_candidates(network, torch.from_numpy(frames[0]), points_per_side=3, num_layers=1)

    chosen = found.select(0.0, 0.0, 0.3, 1.0, crop_nms=1.0)

    logits = [part.logits for part in found.candidates]
    for mask, row in zip(chosen.masks, chosen.rows.tolist(), strict=True):
        number, inside = divmod(row, 27)
        crop = found.crops[number]
        expected = torch.zeros(90, 130, dtype=torch.bool)
        expected[crop.top : crop.bottom, crop.left : crop.right] = (
            enlarge(logits[number][inside][None], crop.size)[0] > 0
        )
        assert torch.equal(mask, expected)
    assert len(set((chosen.rows // 27).tolist())) > 1


@pytest.mark.parametrize(("points", "layers", "divisor", "side"), [(3, 2, 2, 90), (1, 1, 2, 90), (4, 3, 1, 3)])
def test_layers_without_points_or_pixels_are_refused(
    points: int, layers: int, divisor: int, side: int, network: Sam2Network
):
    frame = torch.zeros(side, side, 3, dtype=torch.uint8)

    with pytest.raises(SettingsError, match=f"{layers} crop layers leave no points or no pixels .* take fewer layers"):
        find_crop_candidates(network, frame, points, layers, points_divisor=divisor)
