import pytest
import torch

from named_weights import assert_golden, fill_by_name, golden_clip
from sam2vss.segmenters.vss.mit import MIT_SIZES, MixTransformer
from sam2vss.segmenters.vss.segformer import SegformerHead, VssModel


def segformer(size: str, num_classes: int = 124) -> VssModel:
    return VssModel(MixTransformer(MIT_SIZES[size]), SegformerHead(MIT_SIZES[size].channels, num_classes))


@pytest.mark.parametrize(
    ("size", "mean", "mean_abs", "samples", "argmax"),
    [
        ("b0", 0.006169, 0.553144, (1.17757, -0.20238, -0.60960, -0.26216), (30, 30, 30, 50)),
        ("b1", -0.056837, 0.603255, (0.21280, -1.43121, -0.25451, -2.02778), (57, 30, 30, 30)),
        ("b2", -0.049164, 0.643691, (-0.16209, -0.89333, -0.72362, -1.80468), (82, 82, 36, 36)),
    ],
)
@torch.inference_mode()
def test_logits_equal_those_of_the_published_code(size, mean, mean_abs, samples, argmax):
    model = fill_by_name(segformer(size))
    head = model.decode_head
    logits = head.classify(head.fuse(model.backbone(golden_clip(96, 160)[3:])))
    assert_golden(logits, mean, mean_abs, samples, argmax)
