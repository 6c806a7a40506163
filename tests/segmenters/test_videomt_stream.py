"""VidEoMT's network frame by frame, against outputs of the authors' own code.

`golden_videomt.json` holds logits that the code of tue-mps/videomt (39411e9) gave on a CPU for three frames of noise,
one after the other, with weights made of their names.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sam2vss.segmenters import videomt_stream
from sam2vss.segmenters.videomt_checkpoints import load_network
from sam2vss.segmenters.videomt_stream import QueryStream, class_scores, positions_at
from tiny_videomt import BY_ENCODER, official_weights

GOLDEN = json.loads((Path(__file__).parent / "golden_videomt.json").read_text())
FILE = Path("vspw.pth")


@pytest.mark.parametrize("encoder", BY_ENCODER)
def test_logits_equal_those_of_the_authors_code_while_queries_are_carried(encoder: str):
    stream = QueryStream(load_network(official_weights(BY_ENCODER[encoder]), FILE))
    pixels = torch.tensor(np.random.RandomState(0).standard_normal((3, 3, 64, 96)), dtype=torch.float32)

    found = [answers for frame in pixels for answers in stream.push(frame[None])]

    for answers, golden in zip(found, GOLDEN["logits"][encoder], strict=True):
        classes, masks = answers.classes, stream.masks(answers)
        samples = {
            "classes": (classes, [classes[0, 0], classes[2, 61], classes[4, 124]]),
            "masks": (masks, [masks[0, 0, 0], masks[2, 3, 5], masks[4, 15, 23]]),
        }
        for kind, (logits, few) in samples.items():  # measured: equal bit by bit where the golden numbers were made
            assert [value.item() for value in few] == pytest.approx(golden[kind]["samples"], abs=1e-3)
            assert logits.mean().item() == pytest.approx(golden[kind]["mean"], abs=1e-4)
            assert logits.abs().mean().item() == pytest.approx(golden[kind]["mean_abs"], abs=1e-4)


def test_positions_keep_their_values_on_their_own_grid_and_their_mean_on_others():
    learned = torch.arange(32.0).reshape(16, 2)

    assert positions_at(learned, (4, 4)) is learned
    wide = positions_at(learned, (4, 8))
    assert wide.shape == (32, 2)
    assert wide.mean(0).tolist() == pytest.approx(learned.mean(0).tolist(), abs=1e-4)
    rows = wide.reshape(4, 8, 2)[..., 0].mean(1)
    assert rows.tolist() == pytest.approx([3.0, 11.0, 19.0, 27.0], abs=1e-4)  # height comes first


@pytest.mark.parametrize("group", [1, 2, 5])
def test_scores_equal_a_sum_over_queries_pixel_by_pixel(group: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(videomt_stream, "MAX_UPSAMPLED_VALUES", group * 64)  # queries at a time
    generator = torch.Generator().manual_seed(3)
    masks, classes = torch.randn((5, 4, 4), generator=generator), torch.rand((5, 3), generator=generator)

    found = class_scores(masks, classes, (8, 8), (6, 7))

    assert found.shape == (3, 6, 7)
    large = torch.nn.functional.interpolate(masks[None], (8, 8), mode="bilinear")[0]
    for c, y, x in ((0, 0, 0), (1, 3, 6), (2, 5, 2)):
        expected = sum(classes[q, c].item() / (1 + math.exp(-large[q, y, x].item())) for q in range(5))
        assert found[c, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_the_angles_of_a_dinov3_encoder_stay_exact_in_any_precision():
    model = load_network(official_weights(BY_ENCODER["DINOv3"]), FILE)
    exact = model.rope_embeddings.inv_freq.clone()

    stream = QueryStream(model.bfloat16())

    assert torch.equal(stream.model.rope_embeddings.inv_freq, exact)
    pixels = torch.zeros((1, 3, 32, 48), dtype=torch.bfloat16)
    assert all(torch.isfinite(answers.classes).all() for answers in stream.push(pixels))
