"""Learning rates by hand, and which parameter learns how fast."""

import pytest
import torch
from torch import nn

from sam2vss.training.segmenter_schedule import is_of_head, parameter_groups, rate_factor, warmup_steps


def test_without_warm_up_the_rate_falls_along_a_line():
    assert [rate_factor(step, 4, 0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_the_warm_up_grows_from_almost_nothing():
    # 160000 steps, 1500 of them warm-up; at 750 half of (1 - 1e-6) is missing
    assert rate_factor(0, 160_000, 1500) == pytest.approx(1e-6)
    assert rate_factor(750, 160_000, 1500) == pytest.approx((1 - 750 / 160_000) * (0.5 + 0.5e-6))
    assert rate_factor(1500, 160_000, 1500) == pytest.approx(0.990625)
    assert rate_factor(159_999, 160_000, 1500) == pytest.approx(1 / 160_000)


def test_few_steps_have_a_short_warm_up():
    assert warmup_steps(160_000) == 1500
    assert warmup_steps(15_000) == 1500
    assert warmup_steps(2500) == 250
    assert warmup_steps(9) == 0
    assert warmup_steps(1000, 20) == 20


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.decode_head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
        self.decode_head.register_parameter("A_log", nn.Parameter(torch.ones(2, 2)))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_every_parameter_learns_in_one_group():
    network = Network()
    groups = parameter_groups(network, rate=1e-3, head_factor=10.0, decay=0.01)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {
        (round(group["lr"], 9), group["weight_decay"]): sorted(names[id(p)] for p in group["params"])
        for group in groups
    }
    assert found == {
        (0.001, 0.01): ["backbone.0.weight"],
        (0.001, 0.0): ["backbone.0.bias", "backbone.1.bias", "backbone.1.weight"],
        (0.01, 0.01): ["decode_head.0.weight"],
        (0.01, 0.0): ["decode_head.0.bias", "decode_head.1.bias", "decode_head.1.weight", "decode_head.A_log"],
    }
    assert all(group["peak"] == group["lr"] for group in groups)


def test_heads_are_known_by_their_names():
    assert is_of_head("decode_head.linear_c1.proj.weight")
    assert is_of_head("auxiliary_head.classifier.bias")
    assert not is_of_head("backbone.block1.0.attn.q.weight")
    assert not is_of_head("segformer.head_of_something.weight")
