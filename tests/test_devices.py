"""Names of devices and number formats; that there are no others than the CPU here is faked where it matters."""

import pytest
import torch

from sam2vss.devices import attention_backends, choose_batch_size, choose_device, choose_dtype, fastest_dtype
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
    with pytest.raises(SettingsError, match="is unknown, expected auto, fastest, float32, bfloat16, float16"):
        choose_dtype(name, "cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_fastest_on_a_cpu_that_multiplies_it_in_hardware(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fastest_dtype("cpu") == expected
    assert fastest_dtype("cuda:1") == torch.bfloat16


def test_a_torch_that_cannot_tell_what_the_cpu_does_gets_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert fastest_dtype("cpu") == torch.float32


def settings() -> tuple[list[int], bool]:
    return torch._C._get_sdp_priority_order(), torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("capability", "first"),
    [
        ((9, 0), ["CUDNN_ATTENTION", "FLASH_ATTENTION"]),
        ((8, 0), ["FLASH_ATTENTION", "CUDNN_ATTENTION"]),
        ((10, 0), ["FLASH_ATTENTION", "CUDNN_ATTENTION"]),
    ],
)
def test_attention_on_cuda_prefers_cudnn_on_hopper_and_flash_elsewhere_inside_the_block(monkeypatch, capability, first):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    before = settings()
    with attention_backends("cuda"):
        order = [torch.nn.attention.SDPBackend(number).name for number in torch._C._get_sdp_priority_order()]
        assert order[:4] == [*first, "EFFICIENT_ATTENTION", "MATH"]
        assert torch.backends.cuda.math_sdp_enabled()
    assert settings() == before


def test_attention_elsewhere_is_left_alone():
    before = settings()
    with attention_backends("cpu"):
        assert settings() == before


def test_an_error_inside_the_block_passes_and_ends_the_setting(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    before = settings()
    with pytest.raises(KeyError), attention_backends("cuda"):
        raise KeyError
    assert settings() == before


def test_one_frame_at_a_time_on_the_cpu_and_four_elsewhere_unless_asked():
    assert choose_batch_size(None, "cpu") == 1
    assert choose_batch_size(None, torch.device("cuda:1")) == 4
    assert choose_batch_size(7, "cpu") == 7
    with pytest.raises(SettingsError, match="batch size must be at least 1, found 0"):
        choose_batch_size(0, "cpu")
