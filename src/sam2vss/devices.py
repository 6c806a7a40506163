"""Names of devices and number formats as the command line spells them, and what `auto` means on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import SettingsError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
DEVICE_TYPES = ("cpu", "cuda", "mps")
HOPPER = 9  # major compute capability of H100 and H200


def choose_device(name: str = "auto") -> str:
    """Return a torch device name; `auto` takes the first CUDA device, else the CPU.

    Raises:
        SettingsError: If the device is unknown or not on this machine.
    """
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"--device {name} is not a device, expected auto, cpu, cuda, cuda:1, mps") from error
    if device.type not in DEVICE_TYPES:
        raise SettingsError(f"--device {name} cannot be used, expected auto, cpu, cuda, cuda:1, mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"--device {name} was asked for, but {torch.cuda.device_count()} CUDA devices are here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("--device mps was asked for, but this machine has no MPS device")
    return name


def choose_dtype(name: str, device: str) -> "torch.dtype":
    """Return a torch dtype; `auto` means float32 on a CPU and bfloat16 elsewhere, `fastest` see `fastest_dtype`.

    Raises:
        SettingsError: If the format is unknown.
    """
    import torch

    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if name == "fastest":
        return fastest_dtype(device)
    if name not in DTYPES:
        raise SettingsError(f"--dtype {name} is unknown, expected auto, fastest, {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_batch_size(asked: int | None, device: "str | torch.device") -> int:
    """Return how many frames go through a network at a time: as asked, else 1 on the CPU and 4 elsewhere (ours).

    Raises:
        SettingsError: If less than 1 is asked for.
    """
    import torch

    if asked is None:
        return 1 if torch.device(device).type == "cpu" else 4
    if asked < 1:
        raise SettingsError(f"batch size must be at least 1, found {asked}")
    return asked


def fastest_dtype(device: str) -> "torch.dtype":
    """Return the number format in which SAM 2 is fastest on a device, by what the device says of itself.

    Nothing is timed, so the same machine always gets the same answer: bfloat16 off the CPU and on CPUs that multiply it
    in hardware (AVX512-BF16 or AMX-BF16), float32 on all others, where bfloat16 is converted back and forth.

    Source: ours, measured on an AMD EPYC with AVX512-BF16, no AMX, one thread (docs/performance.md): with SAM 2.1 tiny
    at 512 pixels bfloat16 encodes frames 2.3, attends to memories 1.2 and decodes masks 1.5 times as fast as float32.
    """
    import torch

    if torch.device(device).type != "cpu":
        return torch.bfloat16
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # torch < 2.10
    is_native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if is_native else torch.float32


@contextmanager
def attention_backends(device: str) -> Iterator[None]:
    """Let attention run in the kernels that are fastest with SAM 2's heads of 256 channels.

    On a CUDA device the order is flash, cuDNN, memory-efficient, plain mathematics, with cuDNN first on Hopper (compute
    capability 9). The first one that takes the inputs is used, so float32 and old devices are served as well. Elsewhere
    nothing changes. The setting is global to the process and holds inside the block only; enter it around the loop over
    a window's frames, not around every layer, and not in a generator that pauses inside.

    Source: ours; that cuDNN wins on Hopper and only there was measured by others on six GPUs (transformers' pull
    request 48163), not by us.
    """
    import torch

    if torch.device(device).type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    if torch.cuda.get_device_capability(device)[0] == HOPPER:
        order.reverse()
    with sdpa_kernel([*order, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True):
        yield
