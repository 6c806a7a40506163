"""Losses against numbers worked out by hand; ln 2 is the cross entropy of a logit of 0."""

import math

import pytest
import torch

from sam2vss.training.losses import affinity_loss, mask_iou, mask_loss, prompt_loss, soft_targets

LN2 = math.log(2)
SURE = 30.0  # a logit whose cross entropy is 0 to six digits


def test_targets_are_the_covered_share_of_every_cell():
    mask = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]], dtype=torch.bool)
    assert soft_targets(mask, 2).tolist() == [[[0.75, 0], [0, 1]]]


def test_the_mask_loss_is_twice_the_cross_entropy_plus_dice():
    logits, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2)
    # dice: probabilities of 1/2 overlap by 2 of 2 + 4, and one is added above and below: 1 - (2 * 2 + 1) / (2 + 4 + 1)
    assert mask_loss(logits, target).item() == pytest.approx(2 * LN2 + 2 / 7)


def test_cells_on_the_edge_count_five_times():
    logits, target = torch.tensor([[[[SURE, 0.0]]]]), torch.tensor([[[1.0, 0.5]]])
    # cross entropy: 0 with weight 1, ln 2 with weight 5, over 6; dice: overlap 1.25 of 1.5 + 1.5
    expected = 2 * 5 / 6 * LN2 + 1 - (2 * 1.25 + 1) / (1.5 + 1.5 + 1)
    assert mask_loss(logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_a_perfect_mask_costs_nothing_also_an_empty_one():
    for target in (torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1, 2)):
        assert mask_loss((target[:, None] * 2 - 1) * SURE, target).item() == pytest.approx(0, abs=1e-5)


def test_iou_counts_thresholded_pixels():
    logits = torch.tensor([[[[1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0]]]])
    (ious,) = mask_iou(logits, torch.tensor([[[0.9, 0.4, 0.6]]])).tolist()  # truth: first and last pixel
    assert ious == pytest.approx([1 / 3, 0])
    assert mask_iou(logits[:, 1:], torch.zeros(1, 1, 3)).tolist() == [[1]]  # nothing found where nothing is


def test_the_prompt_loss_takes_token_0_the_best_of_the_others_and_the_iou_error():
    target = torch.tensor([[[1.0, 0.0]]])
    right, wrong = torch.tensor([[SURE, -SURE]]), torch.tensor([[0.0, 0.0]])
    logits = torch.stack([wrong, wrong, right, wrong])[None]
    true_iou = torch.tensor([[0.0, 0.0, 1.0, 0.0]])  # logits of 0 are no mask
    of_wrong = mask_loss(wrong[None, None], target).item()
    loss, best = prompt_loss(logits, true_iou, target)
    # token 0 is wrong; of the others the right one counts, and a twentieth of their mean (two of three are wrong)
    assert loss.item() == pytest.approx(of_wrong + 0 + 0.05 * 2 / 3 * of_wrong, abs=1e-5)
    assert best.tolist() == [1]
    with_error, _ = prompt_loss(logits, true_iou + torch.tensor([[0.0, 0.0, -0.4, 0.0]]), target)
    assert (with_error - loss).item() == pytest.approx(2 * 0.4**2 / 4, abs=1e-5)


def test_the_losing_tokens_hardly_learn_and_the_predicted_iou_learns_the_true_one():
    logits = torch.tensor([[[[0.1, -0.1]], [[1.0, -1.0]], [[3.0, -3.0]], [[-1.0, 1.0]]]], requires_grad=True)
    iou = torch.full((1, 4), 0.5, requires_grad=True)
    loss, _ = prompt_loss(logits, iou, torch.tensor([[[1.0, 0.0]]]))
    loss.sum().backward()
    steps = logits.grad.abs().sum((-1, -2))[0]
    assert steps[2] > 0
    assert steps[3] < 0.1 * mask_gradient(logits.detach()[:, 3:], torch.tensor([[[1.0, 0.0]]]))
    assert (iou.grad[0] < 0).tolist() == [True, True, True, False]  # these three are right, the last is not


def mask_gradient(logits: torch.Tensor, target: torch.Tensor) -> float:
    logits = logits.clone().requires_grad_()
    mask_loss(logits, target).sum().backward()
    return logits.grad.abs().sum().item()


# --- affinity --------------------------------------------------------------------------------------------------------


def halves() -> torch.Tensor:
    ids = torch.zeros(2, 12, 12, dtype=torch.long)
    ids[:, :, 6:] = 7
    return ids


def affinity(embedding: torch.Tensor, ids: torch.Tensor, seed: int = 0) -> float:
    return affinity_loss(embedding, ids, torch.Generator().manual_seed(seed)).item()


def test_same_and_other_pairs_weigh_one_half_each():
    ids = halves()
    alike = torch.zeros(2, 3, 12, 12)
    apart = 100.0 * (ids > 0)[:, None].float()
    of_same, of_other = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))  # distance 0 is a logit of 2
    assert affinity(alike, ids) == pytest.approx(0.5 * of_same + 0.5 * of_other, rel=1e-4)
    assert affinity(apart, ids) == pytest.approx(0.5 * of_same, rel=1e-4)
    assert affinity(apart, torch.zeros_like(ids)) > 100  # torn apart though one object
    assert affinity(alike, torch.zeros_like(ids)) == pytest.approx(0.5 * of_same, rel=1e-4)


def test_the_pairs_follow_from_the_generator():
    embedding = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    assert affinity(embedding, halves(), 0) == affinity(embedding, halves(), 0)
    assert affinity(embedding, halves(), 0) != affinity(embedding, halves(), 1)


def test_steps_down_the_affinity_loss_pull_objects_apart():
    embedding = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    before = affinity(embedding.detach(), halves())
    for _ in range(50):
        (gradient,) = torch.autograd.grad(affinity_loss(embedding, halves(), generator), embedding)
        embedding = (embedding - 10 * gradient).detach().requires_grad_()
    assert affinity(embedding.detach(), halves()) < 0.5 * before
