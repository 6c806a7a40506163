"""Names of devices and number formats; that there are no others than the CPU here is faked where it matters."""

import pytest
import torch

from sam2vss.devices import choose_device, choose_dtype
from sam2vss.errors import SettingsError


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return pretend


def test_auto_takes_the_first_gpu_and_else_the_cpu(gpus):
    gpus(2)
    assert choose_device("auto") == "cuda:0"
    gpus(0)
    assert choose_device() == "cpu"


def test_a_device_that_is_here_keeps_its_name(gpus):
    gpus(2)
    assert [choose_device(name) for name in ("cpu", "cpu:0", "cuda", "cuda:1")] == ["cpu", "cpu:0", "cuda", "cuda:1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frog", "--device frog is not a device, expected auto, cpu, cuda"),
        ("cuda:x", "--device cuda:x is not a device"),
        ("", "--device  is not a device"),
        ("cuda:2", "--device cuda:2 was asked for, but 2 CUDA devices are here"),
        ("mps", "--device mps was asked for, but this machine has no MPS device"),
        ("meta", "--device meta cannot be used, expected auto, cpu"),
    ],
)
def test_a_device_that_is_not_here_is_named(gpus, name, message):
    gpus(2)
    with pytest.raises(SettingsError, match=message):
        choose_device(name)


def test_auto_means_float32_on_a_cpu_and_bfloat16_elsewhere():
    names = ("cpu", "cpu:0", "cuda", "cuda:1", "mps")
    single, half = torch.float32, torch.bfloat16
    assert [choose_dtype("auto", name) for name in names] == [single, single, half, half, half]
    assert choose_dtype("float16", "cpu") == torch.float16


@pytest.mark.parametrize("name", ["int8", "float64", "torch.float32", ""])
def test_other_number_formats_are_refused(name):
    with pytest.raises(SettingsError, match="is unknown, expected auto, float32, bfloat16, float16"):
        choose_dtype(name, "cpu")
