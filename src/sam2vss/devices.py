"""Names of devices and number formats as the command line spells them, and what `auto` means on this machine."""

from typing import TYPE_CHECKING

from .errors import SettingsError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
DEVICE_TYPES = ("cpu", "cuda", "mps")


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
    """Return a torch dtype; `auto` means float32 on a CPU and bfloat16 elsewhere.

    Raises:
        SettingsError: If the format is unknown.
    """
    import torch

    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise SettingsError(f"--dtype {name} is unknown, expected auto, {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
