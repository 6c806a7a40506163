"""CFFM++ beside numbers of the published code for given prototypes, and its k-means beside plain loops."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from named_weights import assert_golden, fill_by_name, golden_clip, named_values
from sam2vss.segmenters.vss.cffm import CffmFrame, CffmHead
from sam2vss.segmenters.vss.cffm_plus import UNUSED_KEYS, CffmPlusHead, cluster, make_prototypes, prototype_frames
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer
from sam2vss.segmenters.vss.segformer import VssModel

PUBLISHED_KEYS = Path(__file__).parent / "published_keys"
CHANNELS = MIT_SIZES["b0"].channels
PROTOTYPES = torch.from_numpy(16 * named_values("prototypes", (100, 256)))


def encode(model: VssModel, images: Tensor) -> list[CffmFrame]:
    head = model.decode_head
    all_stages = [model.backbone(frame) for frame in images.split(1)]
    return [head.encode(stages, head.fuse(stages)) for stages in all_stages]


@torch.inference_mode()
def test_logits_equal_those_of_the_published_code():
    model = fill_by_name(VssModel(MixTransformer(MIT_SIZES["b0"]), CffmPlusHead(CHANNELS, 124, depth=1)))
    logits = model.decode_head.decode(encode(model, golden_clip(96, 160)), PROTOTYPES)
    assert_golden(logits, 0.015686, 0.811356, (-1.09656, -0.60947, -0.64656, -1.61543), (33, 92, 92, 5))


@torch.inference_mode()
def test_without_prototypes_it_is_cffm():
    plus = fill_by_name(CffmPlusHead(CHANNELS, 5, depth=1))
    plain = CffmHead(CHANNELS, 5, depth=1).eval()
    plain.load_state_dict({key: value for key, value in plus.state_dict().items() if key in plain.state_dict()})
    frames = [CffmFrame(torch.randn(1, 256, 7, 9), (14, 18)) for _ in range(4)]
    assert torch.equal(plus.decode(frames), plain.decode(frames))
    assert not torch.equal(plus.decode(frames, PROTOTYPES), plain.decode(frames))


def test_every_key_of_a_published_checkpoint_is_used_or_named():
    files = [PUBLISHED_KEYS / "cffm_b0.txt", PUBLISHED_KEYS / "cffm_plus_b0.txt"]  # the second has what is new
    lines = [line.split() for file in files for line in file.read_text().splitlines()]
    published = {key: () if shape == "-" else tuple(map(int, shape.split("x"))) for key, shape in lines}
    named = {key for key in published if any(re.fullmatch(pattern, key) for pattern in UNUSED_KEYS)}
    model = VssModel(MixTransformer(MIT_SIZES["b0"]), CffmPlusHead(CHANNELS, 124, depth=1))
    own = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert own == {key: shape for key, shape in published.items() if key not in named}
    assert len(published) == 248
    assert len(named) == 8 + 4


@pytest.mark.parametrize(
    ("num_frames", "frames"),
    [
        (45, [2, 6, 10, 14, 18, 22, 26, 30, 34, 38]),  # steps of 45 // 10 = 4
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (6, [0] * 10),  # as published: steps of 0
    ],
)
def test_ten_frames_stand_for_a_video(num_frames, frames):
    assert prototype_frames(num_frames) == frames


def test_centres_move_to_the_means_of_their_points():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    # from 0 and 1, round by round: 0 and 22/3; 1/2 and 21/2; the same
    assert cluster(points, torch.tensor([[0.0], [1.0]])).tolist() == [[0.5], [10.5]]


def test_a_centre_without_points_becomes_zero():
    points = torch.tensor([[4.0], [6.0]])
    assert cluster(points, torch.tensor([[5.0], [-90.0]])).tolist() == [[5.0], [0.0]]


def test_clusters_equal_those_of_plain_loops():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, 3))
    centres = points[:7]
    for _ in range(10):
        members = [[] for _ in centres]
        for point in points:
            members[min(range(7), key=lambda i: sum((point - centres[i]) ** 2))].append(point)
        centres = np.array([np.mean(group, axis=0) if group else np.zeros(3) for group in members])
    found = cluster(torch.from_numpy(points), torch.from_numpy(points[:7]))
    np.testing.assert_allclose(found.numpy(), centres, rtol=0, atol=1e-12)


def test_the_same_seed_gives_the_same_prototypes():
    generator = torch.Generator().manual_seed(0)
    frames = [CffmFrame(torch.randn(1, 256, 4, 5, generator=generator), (8, 10)) for _ in range(10)]
    prototypes = make_prototypes(frames)
    assert prototypes.shape == (100, 256)
    assert torch.equal(prototypes, make_prototypes(frames))
    assert not torch.equal(prototypes, make_prototypes(frames, seed=1))


def test_fewer_cells_than_prototypes_are_all_prototypes():
    frame = CffmFrame(torch.randn(1, 256, 2, 3), (4, 6))
    prototypes = make_prototypes([frame])
    cells = frame.fused[0].flatten(1).T
    assert sorted(prototypes[:, 0].tolist()) == sorted(cells[:, 0].tolist())
