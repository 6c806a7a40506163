import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tiny_backbones import save_tiny_backbone
from tiny_segmenters import save_tiny


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny backbone by its family, written once."""
    root = tmp_path_factory.mktemp("backbones")
    return functools.cache(lambda name: save_tiny_backbone(name, root / name))


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny segmentation model by its family, written once."""
    root = tmp_path_factory.mktemp("segmenters")
    return functools.cache(lambda name: save_tiny(name, root / name))
