"""The plan before a run: operations counted without weights, speed by a short probe."""

import json
import shutil

import pytest
import torch

from sam2vss.sam2.cost import TrackingCost, network_cost, probe_speed, tracking_cost
from sam2vss.sam2.model import Sam2Network
from sam2vss.sam2.tracker import NANO_FOLDER
from sam2vss.sam2.weights import load_network


@pytest.fixture(scope="module")
def nano() -> TrackingCost:
    return tracking_cost(NANO_FOLDER, points=8, image_size=128)


@pytest.fixture(scope="module")
def network() -> Sam2Network:
    """The nano network without weights."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    with torch.device("meta"):
        return Sam2Network(Sam2VideoModel(Sam2VideoConfig.from_pretrained(str(NANO_FOLDER), local_files_only=True)))


def cost_at(network: Sam2Network, size: int | tuple[int, int], points: int = 8) -> TrackingCost:
    network.set_image_size(size)
    return network_cost(network, points)


def test_a_window_costs_the_grid_once_every_frame_and_every_masklet_after_the_first_frame():
    cost = TrackingCost(encode=10, candidates=1000, follow=3, state_bytes=1)
    assert cost.window_flops(4, 5) == 1000 + 4 * 10 + 3 * 5 * 3
    assert cost.window_flops(1, 5) == 1010  # the first frame needs no following


def test_what_masklets_share_in_a_frame_counts_once_and_not_at_all_without_masklets():
    cost = TrackingCost(encode=10, candidates=1000, follow=3, state_bytes=1, look=7)
    assert cost.window_flops(4, 5) == 1000 + 4 * 10 + 3 * (7 + 5 * 3)
    assert cost.window_flops(4, 0) == 1000 + 4 * 10


def test_a_fast_window_costs_a_grid_every_so_many_frames_and_a_prompt_per_masklet_after_the_first():
    cost = TrackingCost(encode=10, candidates=1000, follow=3, state_bytes=1, prompt=2)
    assert cost.fast_window_flops(7, 1) == 7 * 1000 + 7 * 10
    assert cost.fast_window_flops(7, 3, 5) == 3 * 1000 + 7 * 10 + 6 * 5 * 2  # grids in frames 0, 3 and 6
    assert cost.fast_window_flops(6, 3, 5) == 2 * 1000 + 6 * 10 + 5 * 5 * 2


def test_points_of_a_batch_share_a_part_and_the_rest_costs_per_point(network, nano):
    sixteen, other = (cost_at(network, 128, points) for points in (16, 4))
    assert sixteen.candidates == 4 * nano.candidates  # 4 full batches of 64 points, and one
    each = (nano.candidates - other.candidates) / (64 - 16)  # both are one batch
    assert each < nano.prompt
    assert other.candidates - 16 * each == pytest.approx(nano.prompt - each)  # what a batch shares
    assert (nano.encode, nano.follow, nano.state_bytes) == (other.encode, other.follow, other.state_bytes)


def test_a_batch_of_points_is_counted_as_it_runs(nano):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network = load_network(NANO_FOLDER)
    network.set_image_size(128)
    with torch.inference_mode():
        features = network.encode(torch.zeros(1, 3, 128, 128))
        tokens = network.embed_points(torch.zeros(64, 2))
        network.look_around(features.low)  # makes the position tables, which is counted nowhere
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            network.decode(features.low, features, tokens, network.no_mask())
    assert counter.get_total_flops() == nano.candidates


def test_the_state_is_one_memory_per_cell_and_frame_and_the_pointers(nano):
    config = json.loads((NANO_FOLDER / "config.json").read_text())
    memories = config["num_maskmem"]
    # 64 bfloat16 numbers per cell, 16 pointers of 128 float32 numbers
    assert nano.state_bytes == memories * (128 // 16) ** 2 * 64 * 2 + 16 * 128 * 4


def test_four_times_the_pixels_cost_about_four_times_as_much(network, nano):
    large = cost_at(network, 256)
    assert 3.9 < large.encode / nano.encode < 5  # global attention grows faster
    assert 3 < large.follow / nano.follow < 16
    pointers = 16 * 128 * 4
    assert large.state_bytes - pointers == 4 * (nano.state_bytes - pointers)


def test_oblong_frames_are_counted_at_their_own_size(network, nano):
    wide, tall = (cost_at(network, size) for size in ((128, 256), (256, 128)))
    assert wide == tall
    assert 1.9 < wide.encode / nano.encode < 2.5
    assert nano.follow < wide.follow < cost_at(network, 256).follow


def test_the_encoder_is_counted_as_it_runs(nano):
    """The count on the meta device equals that of the real network on real numbers.

    The counter knows no formula for the CPU's fused attention and would take it for free, hence the plain one.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network = load_network(NANO_FOLDER, "cpu", torch.float32)
    network.set_image_size(128)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        network.encode(torch.zeros(1, 3, 128, 128))
    assert counter.get_total_flops() == nano.encode


def test_no_weights_are_read(tmp_path, nano):
    shutil.copy(NANO_FOLDER / "config.json", tmp_path)
    assert tracking_cost(tmp_path, points=8, image_size=128) == nano


def test_the_models_own_size_is_the_default(network):
    size = json.loads((NANO_FOLDER / "config.json").read_text())["image_size"]
    assert tracking_cost(NANO_FOLDER, points=8) == cost_at(network, size)


def test_the_probe_gives_a_plausible_speed():
    assert 1e8 < probe_speed("cpu") < 1e14
