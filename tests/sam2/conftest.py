import numpy as np
import pytest
import torch

from sam2vss.sam2.model import FrameFeatures, Sam2Network
from tiny_sam2 import first_masks, moving_frames, tiny_network


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def network() -> Sam2Network:
    """The tiny network at 128 pixels; tests must leave it as it is."""
    return tiny_network()


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    return moving_frames(20)


@pytest.fixture(scope="session")
def features(network: Sam2Network, frames: np.ndarray) -> list[FrameFeatures]:
    """Encoder features of the 20 moving frames, one frame each."""
    with torch.inference_mode():
        return [network.encode(network.pixels(torch.from_numpy(frame)[None])) for frame in frames]


@pytest.fixture(scope="session")
def masks() -> torch.Tensor:
    return first_masks()
