"""Weights and input that anyone can make again, for golden numbers of the published code (random, but by name)."""

import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sam2vss.segmenters.vss.segformer import UNUSED_KEYS

SAMPLES = ((0, 0, 0), (17, 3, 5), (61, 10, 7), (123, 20, 30))  # (class, y, x)
CELLS = ((0, 0), (5, 9), (12, 31), (20, 3))  # (y, x)


def named_values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a tensor by its full name, so that it does not depend on the order of the tensors."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif len(shape) >= 2:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif name.endswith((".weight", ".D")):
        values = 1 + 0.1 * values
    else:
        values = 0.1 * values
    return values.astype(np.float32)


def fill_by_name(model: nn.Module) -> nn.Module:
    """Fill every floating tensor of a model, buffers included, by its name; return the model in evaluation mode."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(named_values(name, tuple(tensor.shape))))
    return model.eval()


def golden_clip(height: int, width: int) -> Tensor:
    """Return a clip of 4 normalised frames, float32 (4, 3, H, W)."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal((4, 3, height, width)).astype(np.float32))


def assert_golden(
    logits: Tensor, mean: float, mean_abs: float, samples: tuple[float, ...], argmax: tuple[int, ...]
) -> None:
    """Compare logits (1, 124, h, w) with one row of golden numbers: samples within 1e-3, means within 1e-4."""
    values = logits[0].double()
    assert abs(values.mean().item() - mean) < 1e-4
    assert abs(values.abs().mean().item() - mean_abs) < 1e-4
    found = [values[place].item() for place in SAMPLES]
    np.testing.assert_allclose(found, samples, rtol=0, atol=1e-3)
    assert tuple(int(values[:, y, x].argmax()) for y, x in CELLS) == argmax


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Read the keys and shapes of a published checkpoint that the models must use, those named as unused left out."""
    text = (Path(__file__).parent / "segmenters" / "vss" / "published_keys" / f"{name}.txt").read_text(encoding="utf-8")
    shapes = {}
    for key, shape in (line.split() for line in text.splitlines()):
        if not any(re.fullmatch(pattern, key) for pattern in UNUSED_KEYS):
            shapes[key] = () if shape == "-" else tuple(map(int, shape.split("x")))
    return shapes


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
