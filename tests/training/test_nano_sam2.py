"""Training of sam2-nano: what is drawn, which rates are used, which parts learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sam2vss.datasets.synthetic import TRAIN_SEEDS
from sam2vss.sam2.model import Sam2Network
from sam2vss.training.nano import new_sam2_nano
from sam2vss.training.nano_sam2 import (
    IMAGE_STAGES,
    MEMORY_STAGES,
    AuxiliaryHeads,
    Stage,
    centre_point,
    draw_clicks,
    draw_clip,
    mask_logits_of,
    one_click_iou,
    schedule,
    train_image_path,
    train_memory_path,
)
from sam2vss.training.scenes import SceneBank, render_bank

TINY = Stage(steps=1, size=64, images=3, prompts=4, rate=1e-3, warm_up=1)


@pytest.fixture(scope="module", autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bank() -> SceneBank:
    return render_bank(TRAIN_SEEDS[:2], 4, 4, 96)


# --- schedule --------------------------------------------------------------------------------------------------------


def test_the_rate_warms_up_in_a_line_and_falls_by_half_a_cosine():
    stage = Stage(steps=30, size=64, images=1, prompts=1, rate=2.0, warm_up=10)
    rates = [schedule(step, stage) for step in range(31)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[20] == pytest.approx(2.0 * (0.05 + 0.95 / 2))  # half-way down
    assert rates[30] == pytest.approx(0.1)  # 5 %
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize("stages", [IMAGE_STAGES, MEMORY_STAGES])
def test_pictures_grow_from_stage_to_stage_up_to_the_models_own_size(stages):
    sizes = [stage.size for stage in stages]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 384
    assert all(stage.warm_up < stage.steps for stage in stages)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_clicks_lie_on_their_masks_and_masks_are_objects(bank):
    batch = draw_clicks(bank, TINY, np.random.default_rng(0))
    assert (batch.frames.shape, batch.masks.shape, batch.points.shape) == ((3, 64, 64, 3), (12, 64, 64), (12, 2))
    assert batch.rows.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for mask, (x, y), row in zip(batch.masks, batch.points.int().tolist(), batch.rows.tolist(), strict=True):
        assert mask[y, x]
        assert (mask == (batch.objects[row] == batch.objects[row, y, x])).all()
        assert len(batch.labels[row][mask].unique()) == 1  # one class per object
    again = draw_clicks(bank, TINY, np.random.default_rng(0))
    assert (again.frames == batch.frames).all()


def test_a_clip_keeps_its_objects_and_begins_with_all_of_them(bank):
    starts = set()
    for seed in range(8):
        batch = draw_clip(bank, TINY, np.random.default_rng(seed))
        frames, prompts = batch.masks.shape[:2]
        assert (frames, batch.frames.shape) == (3, (3, 64, 64, 3))
        assert 2 <= prompts <= 4
        areas = batch.masks.sum((-1, -2))
        assert (areas[0] >= 0.002 * 64 * 64).all()
        assert (batch.masks.sum(1) <= 1).all()  # objects do not overlap
        starts.add(bytes(batch.frames[0].numpy()))
    assert len(starts) > 4


def test_masks_become_sure_logits():
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, 8:] = True
    logits = mask_logits_of(masks, 8)
    assert logits.shape == (1, 8, 8)
    assert (logits[0, :, :3] == -10).all()  # SAM 2 scales a mask prompt by 20 and takes 10 off
    assert (logits[0, :, 5:] == 10).all()


# --- evaluation clicks -----------------------------------------------------------------------------------------------


def test_the_centre_point_is_farthest_from_the_border():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 1:6] = True
    assert centre_point(mask) == (3, 4)
    assert centre_point(np.ones((5, 5), bool)) == (2, 2)  # the picture's edge is a border


@given(st.integers(0, 10**6), st.floats(0.02, 0.9))
def test_the_centre_point_lies_inside(seed, share):
    mask = np.random.default_rng(seed).random((7, 11)) < share
    mask[3, 5] |= not mask.any()
    x, y = centre_point(mask)
    assert mask[y, x]


def test_a_ring_is_clicked_on_its_band_and_not_in_its_hole():
    y, x = np.mgrid[:21, :21]
    distance = np.hypot(x - 10, y - 10)
    column, row = centre_point((distance < 9) & (distance > 4))
    assert 4 < np.hypot(column - 10, row - 10) < 9


def test_one_click_scores_every_large_region_by_the_best_of_three():
    ids = np.ones((1, 1, 32, 32), np.uint8)
    ids[..., :16], ids[..., 31, 30:] = 2, 3  # object 3 has two pixels, 0.195 % of the picture, and is left out
    bank = SceneBank(np.zeros((1, 1, 32, 32, 3), np.uint8), ids, (np.zeros(4, np.uint8),))

    class Halves:
        """Answers every click: token 1 all, token 2 the left half, token 3 nothing; token 0 would be right."""

        image_size = 32

        def __getattr__(self, name):
            return lambda *arguments: arguments[0] if arguments else None

        def encode(self, pixels):
            return type("Features", (), {"low": pixels})

        def decode(self, low, features, points, dense):
            assert len(points) == 2
            everything, nothing = torch.ones(32, 32), -torch.ones(32, 32)
            left = torch.where(torch.arange(32) < 16, 1.0, -1.0).expand(32, 32)
            logits = torch.stack([-left, everything, left, nothing]).expand(2, 4, 32, 32)
            return type("Decoded", (), {"logits": logits})

    # object 1 is the right half but for two pixels, of which everything is 510 / 1024; object 2 is the left half
    assert one_click_iou(Halves(), bank).tolist() == pytest.approx([510 / 1024, 1])


# --- what learns -----------------------------------------------------------------------------------------------------


def changed(before: dict[str, torch.Tensor], network: Sam2Network) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


def copy_of(network: Sam2Network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_each_path_trains_its_own_parts(bank):
    network = new_sam2_nano(seed=0)
    heads = AuxiliaryHeads(network.hidden_size, 10)
    entries: list[dict] = []

    before = copy_of(network)
    train_image_path(network, heads, bank, (TINY,), 0, entries.append, lambda: None)
    names = changed(before, network)
    assert any(name.startswith("model.vision_encoder") for name in names)
    assert any(name.startswith("model.mask_decoder") for name in names)
    assert not [name for name in names if "memory_attention" in name or "memory_encoder" in name]
    assert not network.training

    before = copy_of(network)
    train_memory_path(network, bank, bank, (TINY,), 0, entries.append, lambda: None)
    names = changed(before, network)
    assert any("memory_attention" in name for name in names)
    assert any("memory_encoder" in name for name in names)
    assert not [name for name in names if "vision_encoder" in name]
    assert all(parameter.requires_grad for parameter in network.model.vision_encoder.parameters())
    assert entries == []  # a line every 50 steps


def test_a_few_steps_on_one_picture_lower_the_loss(bank):
    network = new_sam2_nano(seed=0)
    heads = AuxiliaryHeads(network.hidden_size, 10)
    one = SceneBank(bank.frames[:1, :1], bank.objects[:1, :1], bank.classes[:1])
    entries: list[dict] = []
    saves: list[int] = []
    stage = Stage(steps=50, size=64, images=1, prompts=4, rate=1e-3, warm_up=5)
    train_image_path(network, heads, one, (stage,), 0, entries.append, lambda: saves.append(1))
    (entry,) = entries
    assert (entry["path"], entry["stage"], entry["step"], len(saves)) == ("image", 0, 50, 1)
    with torch.no_grad():
        batch = draw_clicks(one, stage, np.random.default_rng(9))
        pyramid = network.pyramid(network.pixels(batch.frames))
        scores = heads.classes(pyramid[0])
        labels = batch.labels[:, 2::4, 2::4]
    assert (scores.argmax(1) == labels).float().mean() > 0.4  # ten classes


def test_the_seed_decides_the_first_weights():
    states = [new_sam2_nano(seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    basis = [value for name, value in states[0].items() if name.endswith("positional_embedding") and "shared" in name]
    assert len(basis) == 2
    assert torch.equal(*basis)  # pictures and prompts share one
