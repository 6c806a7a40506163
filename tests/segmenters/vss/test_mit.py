import torch

from named_weights import fill_by_name
from sam2vss.segmenters.vss.mit import MIT_SIZES, DropPath, MixTransformer


@torch.inference_mode()
def test_stages_are_halved_from_a_quarter_on_and_odd_sizes_are_rounded_up():
    encoder = MixTransformer(MIT_SIZES["b0"]).eval()
    stages = encoder(torch.zeros((2, 3, 65, 96)))
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 32, 17, 24),
        (2, 64, 9, 12),
        (2, 160, 5, 6),
        (2, 256, 3, 3),
    ]


def test_sizes_have_the_published_numbers_of_parameters():
    # In millions, "SegFormer" Table 1a: encoders alone are 3.4 (B0), 13.1 (B1), 24.2 (B2), 44.0, 60.8, 81.4 (B5).
    counts = {
        name: round(sum(p.numel() for p in MixTransformer(size).parameters()) / 1e6, 1)
        for name, size in MIT_SIZES.items()
        if name in ("b0", "b1", "b2")
    }
    assert counts == {"b0": 3.3, "b1": 13.2, "b2": 24.2}


@torch.inference_mode()
def test_images_of_a_batch_do_not_see_each_other():
    encoder = fill_by_name(MixTransformer(MIT_SIZES["b0"]))
    images = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    together, alone = encoder(images), encoder(images[1:])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=0, atol=1e-5)


def test_residuals_are_dropped_by_whole_images_and_in_training_only():
    layer = DropPath(0.25)
    x = torch.ones((4000, 2, 3))
    assert torch.equal(layer.eval()(x), x)
    torch.manual_seed(0)
    dropped = layer.train()(x)
    values = dropped.flatten(1)
    assert torch.equal(values, values[:, :1].expand_as(values))  # all of an image or nothing
    torch.testing.assert_close(values[:, 0].unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs(values.mean().item() - 1) < 0.03  # its mean stays: 4 standard errors of sqrt(1/3/4000) = 0.009


def test_blocks_are_dropped_more_often_the_later_they_come():
    encoder = MixTransformer(MIT_SIZES["b0"])
    shares = [module.share for module in encoder.modules() if isinstance(module, DropPath)]
    assert shares == [0.1 * block / 7 for block in range(8)]
