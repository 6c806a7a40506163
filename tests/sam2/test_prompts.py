import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sam2vss.sam2.model import NO_OBJECT_LOGIT, Decoded, FrameFeatures, Sam2Network
from sam2vss.sam2.prompts import (
    PromptParts,
    PromptPropagator,
    inner_distance,
    innermost_points,
    presence_score,
    prompt_decoder,
)
from sam2vss.sam2.propagate import Tracks
from tiny_sam2 import tiny_network

ALL_PARTS = [
    PromptParts(mask, box, point) for mask in (False, True) for box in (False, True) for point in (False, True)
]


@pytest.fixture(scope="module")
def present() -> Sam2Network:
    """The tiny network, made to see every object."""
    return tiny_network(object_score_bias=20.0)


def slow_depth(mask: np.ndarray) -> np.ndarray:
    """City-block distance to the nearest cell outside, beyond the edge included."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    depth = np.zeros(mask.shape)
    for y, x in np.argwhere(mask):
        depth[y, x] = np.abs(outside - (y + 1, x + 1)).sum(1).min()
    return depth


def test_depth_is_the_city_block_distance_to_the_nearest_cell_outside():
    masks = np.random.default_rng(2).random((6, 9, 13)) < np.array([0.1, 0.5, 0.8, 0.95, 1.1, 0])[:, None, None]
    found = inner_distance(torch.from_numpy(masks)).numpy()
    for depth, mask in zip(found, masks, strict=True):
        assert np.array_equal(depth, slow_depth(mask))
        padded = np.pad(mask, 1).astype(np.uint8)
        assert np.array_equal(depth, cv2.distanceTransform(padded, cv2.DIST_L1, 3)[1:-1, 1:-1])


def test_the_innermost_point_is_the_middle_of_a_square_and_off_the_pictures_edge():
    masks = torch.zeros(3, 12, 16, dtype=torch.bool)
    masks[0, 2:7, 3:8] = True  # rows 2..6, columns 3..7
    masks[1, :, 11:] = True  # 5 columns to the right edge, all rows: depth 3 in column 13, first at row 2
    assert innermost_points(masks).tolist() == [[5, 4], [13, 2], [0, 0]]
    assert innermost_points(masks[:0]).shape == (0, 2)


def test_the_innermost_point_of_a_ring_lies_in_the_ring():
    y, x = np.mgrid[:33, :33]
    radius = np.hypot(x - 16, y - 16)
    ring = torch.from_numpy((radius < 15) & (radius > 8))
    column, row = innermost_points(ring[None])[0].long().tolist()
    assert ring[row, column]


def asked(network: Sam2Network, monkeypatch: pytest.MonkeyPatch, parts: PromptParts, logits: Tensor) -> dict:
    """What `prompt_decoder` puts before the decoder."""
    seen: dict = {}
    embed = network.embed_points
    monkeypatch.setattr(
        network,
        "embed_points",
        lambda points, labels: (seen.update(points=points, labels=list(labels)), embed(points, labels))[1],
    )
    monkeypatch.setattr(network, "embed_logits", lambda logits: seen.update(logits=logits))
    monkeypatch.setattr(network, "decode", lambda low, features, sparse, dense: seen.update(sparse=sparse))
    low = torch.zeros(1, network.hidden_size, *network.grid_size)
    prompt_decoder(network, FrameFeatures(low, low, low), logits, parts)
    return seen


def test_a_box_reaches_from_the_first_to_the_last_pixel_and_a_click_to_a_cells_centre(monkeypatch):
    network = tiny_network()  # 128 pixels, logits 32 x 32: four pixels a cell
    logits = torch.full((1, 32, 32), -5.0)
    logits[0, 10:15, 20:25] = 5.0  # pixels 40..59 by 80..99; centre cell (22, 12), pixels 88..91 by 48..51
    seen = asked(network, monkeypatch, PromptParts(), logits)
    assert seen["labels"] == [2, 3, 1]
    assert seen["points"].tolist() == [[[80, 40], [99, 59], [89.5, 49.5]]]
    assert seen["sparse"].shape == (1, 4, network.hidden_size)  # and the padding token


def test_a_click_alone_prompts_as_on_a_picture_without_memory(network, features):
    logits = torch.full((1, 32, 32), -5.0)
    logits[0, 4:7, 8:11] = 5.0  # innermost cell (9, 5), whose middle is 9.5 x 5.5 cells of 4 pixels
    click = torch.tensor([[9.5 * 4 - 0.5, 5.5 * 4 - 0.5]])

    with torch.inference_mode():
        found = prompt_decoder(network, features[0], logits, PromptParts(mask=False, box=False))
        low = network.without_memory(features[0].low)
        expected = network.decode(low, features[0], network.embed_points(click), network.no_mask())

    assert torch.equal(found.logits, expected.logits)


def test_mask_prompts_are_clamped_to_32(monkeypatch):
    logits = torch.tensor([-1024.0, -32.5, -3.0, 33.0])[:, None, None].expand(4, 32, 32)
    seen = asked(tiny_network(), monkeypatch, PromptParts(box=False, point=False), logits)
    assert seen["logits"][:, 0, 0].tolist() == [-32, -32, -3, 32]
    assert "points" not in seen


@pytest.mark.parametrize("parts", ALL_PARTS)
def test_every_combination_of_prompt_parts_follows(present, features, masks, parts):
    propagator = PromptPropagator(present, parts=parts, min_predicted_iou=-100)
    start = propagator.start(features[0], masks)
    step = propagator.step(features[1])
    for tracks in (start, step):
        assert tracks.logits.shape == (4, 32, 32)
        assert tracks.object_score.shape == (4,)
        assert tracks.logits.dtype == torch.float32
        assert tracks.entered is None
    assert (step.object_score[:3] > 0).all()


def test_the_first_masks_are_the_given_ones(network, features, masks):
    tracks = PromptPropagator(network).start(features[0], masks)
    assert torch.equal(tracks.logits, network.prompt_masks(masks)[1])
    assert tracks.object_score.tolist() == [10, 10, 10, -10]


def test_empty_masks_stay_empty(present, features, masks):
    propagator = PromptPropagator(present, min_predicted_iou=-100)
    propagator.start(features[0], masks)
    for t in (1, 2, 3):
        tracks = propagator.step(features[t])
        assert (tracks.logits[3] == NO_OBJECT_LOGIT).all()
        assert (tracks.predicted_iou > 0).tolist() == [True, True, True, False]
        assert tracks.object_score[3] == NO_OBJECT_LOGIT


def test_objects_vanish_where_the_decoder_sees_none_and_do_not_come_back(features, masks):
    blind = tiny_network(object_score_bias=-20.0)
    propagator = PromptPropagator(blind, min_predicted_iou=-100)
    propagator.start(features[0], masks)
    assert (propagator.step(features[1]).logits == NO_OBJECT_LOGIT).all()
    propagator.network = tiny_network(object_score_bias=20.0)
    assert (propagator.step(features[2]).logits == NO_OBJECT_LOGIT).all()


def test_objects_vanish_where_the_predicted_iou_is_too_low(present, features, masks):
    propagator = PromptPropagator(present, min_predicted_iou=100.0)
    propagator.start(features[0], masks)
    assert (propagator.step(features[1]).logits == NO_OBJECT_LOGIT).all()


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_the_chunk_changes_nothing(present, features, masks, chunk):
    whole, parts = (PromptPropagator(present, size, min_predicted_iou=-100) for size in (16, chunk))
    for propagator in (whole, parts):
        propagator.start(features[0], masks)
    for t in (1, 2):
        expected, found = whole.step(features[t]), parts.step(features[t])
        # measured 0.0053 in the second step (rounding grows from step to step); two objects differ by 0.6 on average
        assert (found.logits - expected.logits).abs().max() < 0.02
        assert torch.equal(found.logits > 0, expected.logits > 0)
        assert (found.object_score - expected.object_score).abs().max() < 0.02


def test_objects_do_not_interact_and_keep_their_rows(present, features, masks):
    together = PromptPropagator(present, min_predicted_iou=-100)
    together.start(features[0], masks[:1])
    together.step(features[1])
    together.add(features[1], masks[1:])
    alone = PromptPropagator(present, min_predicted_iou=-100)
    alone.start(features[1], masks[1:])
    both, late = together.step(features[2]), alone.step(features[2])
    assert len(both.logits) == 4
    assert (both.logits[1:] - late.logits).abs().max() < 1e-3


def test_no_object_at_all_is_followed_too(network, features, masks):
    propagator = PromptPropagator(network)
    assert propagator.start(features[0], masks[:0]).logits.shape == (0, 32, 32)
    assert propagator.step(features[1]).logits.shape == (0, 32, 32)
    propagator.add(features[1], masks[:2])
    assert propagator.step(features[2]).logits.shape == (2, 32, 32)


def fake_decoded(masks: list[float], iou: list[float]) -> Decoded:
    """One object with four masks on an 8 x 8 grid: the upper share of each."""
    logits = torch.stack([torch.where(torch.arange(8)[:, None] < share * 8, 4.0, -4.0).expand(8, 8) for share in masks])
    return Decoded(logits[None], torch.tensor([iou]), torch.zeros(1, 4, 8), torch.tensor([3.0]))


def followed(monkeypatch, decoded: Decoded, choice: str) -> Tracks:
    """What is chosen for an object that filled the upper half."""
    network = tiny_network()
    monkeypatch.setattr("sam2vss.sam2.prompts.prompt_decoder", lambda *_: decoded)
    prompt = torch.where(torch.arange(8)[:, None] < 4, 4.0, -4.0).expand(1, 8, 8)
    return PromptPropagator(network, choice=choice).follow(None, prompt)


def followed_rows(monkeypatch, decoded: Decoded, choice: str) -> tuple[int, float]:
    """Rows of the mask chosen for that object."""
    tracks = followed(monkeypatch, decoded, choice)
    return int((tracks.logits[0, :, 0] > 0).sum()), float(tracks.object_score)


def test_single_takes_token_0_while_it_is_stable_whatever_the_others_promise(monkeypatch):
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.5, 0.6, 0.9, 0.7])
    assert followed_rows(monkeypatch, decoded, "single") == (2, 3.0)


def test_single_takes_the_best_of_the_others_where_token_0_is_unstable(monkeypatch):
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.95, 0.6, 0.9, 0.7])
    decoded.logits[0, 0, 2] = 0.01  # 16 cells above +0.05, 24 above -0.05
    assert followed_rows(monkeypatch, decoded, "single") == (6, 3.0)


def test_overlap_takes_what_is_most_like_the_mask_before(monkeypatch):
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.9, 0.4, 0.9, 0.9])
    assert followed_rows(monkeypatch, decoded, "overlap") == (4, 3.0)


def test_the_predicted_iou_that_counts_is_that_of_the_chosen_mask(monkeypatch):
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.9, 0.2, 0.9, 0.9])
    assert followed_rows(monkeypatch, decoded, "overlap") == (0, NO_OBJECT_LOGIT)
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.2, 0.6, 0.9, 0.7])
    assert followed_rows(monkeypatch, decoded, "single") == (0, NO_OBJECT_LOGIT)
    decoded.logits[0, 0, 2] = 0.01  # unstable, so the best of the others is taken
    assert followed_rows(monkeypatch, decoded, "single") == (6, 3.0)


def test_the_predicted_iou_told_is_that_of_the_chosen_mask_and_0_where_there_is_none(monkeypatch):
    decoded = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.7, 0.4, 0.9, 0.8])
    assert followed(monkeypatch, decoded, "single").predicted_iou.tolist() == pytest.approx([0.7])
    assert followed(monkeypatch, decoded, "overlap").predicted_iou.tolist() == pytest.approx([0.4])
    decoded.logits[0, 0, 2] = 0.01  # unstable, so the best of the others is taken
    assert followed(monkeypatch, decoded, "single").predicted_iou.tolist() == pytest.approx([0.9])
    weak = fake_decoded([0.25, 0.5, 0.75, 1.0], [0.2, 0.2, 0.9, 0.9])  # below min_predicted_iou
    assert followed(monkeypatch, weak, "single").predicted_iou.tolist() == [0]


def test_clicks_alone_go_with_the_choice_by_overlap(network):
    propagator = PromptPropagator.by_clicks(network, chunk=3)
    assert propagator.parts == PromptParts(mask=False, box=False, point=True)
    assert (propagator.choice, propagator.chunk) == ("overlap", 3)


def test_presence_is_plus_or_minus_ten():
    logits = torch.full((2, 4, 4), -1.0)
    logits[1, 2, 3] = 0.1
    assert presence_score(logits).tolist() == [-10, 10]


def test_oblong_pictures_are_followed():
    network = tiny_network(object_score_bias=20.0)
    network.set_image_size((128, 192))
    with torch.inference_mode():
        features = network.encode(torch.zeros(1, 3, 128, 192))
    propagator = PromptPropagator(network, min_predicted_iou=-100)
    propagator.start(features, torch.ones(1, 40, 60, dtype=torch.bool))
    assert propagator.step(features).logits.shape == (1, 32, 48)
