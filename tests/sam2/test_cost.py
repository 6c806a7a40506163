"""The plan before a run: operations counted without weights, speed by a short probe."""

import json
import shutil

import pytest
import torch

from sam2vss.sam2.cost import TrackingCost, probe_speed, tracking_cost
from sam2vss.sam2.tracker import NANO_FOLDER


@pytest.fixture(scope="module")
def nano() -> TrackingCost:
    return tracking_cost(NANO_FOLDER, points=8, image_size=128)


def test_a_window_costs_the_grid_once_every_frame_and_every_masklet_after_the_first_frame():
    cost = TrackingCost(encode=10, candidates=1000, follow=3, state_bytes=1)
    assert cost.window_flops(4, 5) == 1000 + 4 * 10 + 3 * 5 * 3
    assert cost.window_flops(1, 5) == 1010  # the first frame needs no following


def test_the_grid_costs_per_point_and_the_rest_does_not_depend_on_it(nano):
    other = tracking_cost(NANO_FOLDER, points=4, image_size=128)
    assert nano.candidates == 4 * other.candidates
    assert (nano.encode, nano.follow, nano.state_bytes) == (other.encode, other.follow, other.state_bytes)


def test_the_state_is_one_memory_per_cell_and_frame(nano):
    config = json.loads((NANO_FOLDER / "config.json").read_text())
    memories = config["num_maskmem"]
    assert nano.state_bytes == memories * (128 // 16) ** 2 * 64 * 2  # 64 bfloat16 numbers


def test_four_times_the_pixels_cost_about_four_times_as_much(nano):
    large = tracking_cost(NANO_FOLDER, points=8, image_size=256)
    assert 3.9 < large.encode / nano.encode < 5  # global attention grows faster
    assert 3 < large.follow / nano.follow < 16
    assert large.state_bytes == 4 * nano.state_bytes


def test_the_encoder_is_counted_as_it_runs(nano):
    """The count on the meta device equals that of the real network on real numbers.

    The counter knows no formula for the CPU's fused attention and would take it for free, hence the plain one.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from sam2vss.sam2.model import Sam2Network

    network = Sam2Network.from_folder(NANO_FOLDER, "cpu", torch.float32)
    network.set_image_size(128)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        network.encode(torch.zeros(1, 3, 128, 128))
    assert counter.get_total_flops() == nano.encode


def test_no_weights_are_read(tmp_path, nano):
    shutil.copy(NANO_FOLDER / "config.json", tmp_path)
    assert tracking_cost(tmp_path, points=8, image_size=128) == nano


def test_the_models_own_size_is_the_default(nano):
    size = json.loads((NANO_FOLDER / "config.json").read_text())["image_size"]
    assert tracking_cost(NANO_FOLDER, points=8) == tracking_cost(NANO_FOLDER, points=8, image_size=size)


def test_the_probe_gives_a_plausible_speed():
    assert 1e8 < probe_speed("cpu") < 1e14
