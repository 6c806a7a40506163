"""What all tests share: one thread, no network, the folder of real recordings."""

import os
import sys
from pathlib import Path

# Before anything imports torch or the hub's client, which read these once. One thread: on a busy machine, threads that
# wait for each other make small models several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import cv2
import pytest
from hypothesis import settings

settings.register_profile("sam2vss", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("sam2vss")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    cv2.setNumThreads(1)
    if "torch" in sys.modules:  # imported by an entry point of pytest before this file could say so
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, which is not part of the repository; tests that need it are skipped without."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "manifest.json").is_file():
        pytest.skip("the shared recordings are not here (expected beside the repository, in shared/data)")
    return folder
