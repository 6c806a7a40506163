"""A VidEoMT checkpoint as its authors write them, small enough to run in a moment, with weights made of the names."""

import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sam2vss.segmenters.videomt_checkpoints import VideomtArchitecture, empty_network
from sam2vss.segmenters.videomt_names import official_shapes

TINY = VideomtArchitecture(
    width=128, layers=4, query_layers=2, queries=5, classes=124, patch=16, image=64, registers=4, upscalings=2,
    mlp_ratio=4,
)  # fmt: skip
BY_ENCODER = {"DINOv2": TINY, "DINOv3": replace(TINY, image=None)}


def shapes_of(architecture: VideomtArchitecture) -> dict[str, torch.Size]:
    """Names and shapes of transformers' network; takes no memory."""
    return {name: tensor.shape for name, tensor in empty_network(architecture).state_dict().items()}


def seeded(name: str, shape: torch.Size) -> Tensor:
    """A tensor that only its name and shape decide: the filler by which golden numbers of official code are made."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) >= 2:
        noise /= np.sqrt(np.prod(shape[1:]))
    else:
        noise = 1 + 0.1 * noise if name.endswith(".weight") else 0.1 * noise
    return torch.tensor(noise, dtype=torch.float32)


def official_weights(architecture: VideomtArchitecture = TINY) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint."""
    return {name: seeded(name, shape) for name, shape in official_shapes(shapes_of(architecture)).items()}
