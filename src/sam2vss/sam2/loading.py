"""From the name of a SAM 2 model to its network on a device: what trackers and feature encoders begin with."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..devices import choose_device, choose_dtype
from ..errors import SettingsError
from ..hub import ModelLocation, local_model, resolve_model
from ..settings import MAX_IMAGE_SIZE, SAM2_ALIASES

if TYPE_CHECKING:
    from .model import Sam2Network

NANO_NAMES = ("nano", "sam2-nano")


def find_sam2(name: str | Path) -> ModelLocation:
    """Find the weights of a SAM 2 model by alias, hub id, folder or Meta's `.pt` file; "nano" is bundled.

    Raises:
        WeightsError: If there are none.
        SettingsError: If `name` is neither text nor a path.
    """
    from .tracker import NANO_FOLDER

    if not isinstance(name, str | Path):
        found = "None" if name is None else f"a {type(name).__name__}"
        raise SettingsError(f"sam2 is {found}, expected an alias, a hub id or a folder")
    name = str(name)
    if name in NANO_NAMES:
        return local_model(NANO_FOLDER, "sam2-nano")
    return resolve_model(
        name,
        {"nano": str(NANO_FOLDER), **SAM2_ALIASES},
        checkpoint_suffixes=(".pt",),
        without_download="`--sam2 nano` (small, bundled)",
    )


def load_sam2(
    location: ModelLocation,
    *,
    image_size: tuple[int, int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    compiled: bool = False,
) -> "Sam2Network":
    """Load SAM 2 weights onto a device; arguments as for `refiner.load_tracker`.

    Raises:
        WeightsError: If they cannot be loaded.
        SettingsError: If the image size, the device or the number format cannot be used.
    """
    from .compiled import CompiledNetwork, check_compiler
    from .weights import load_network

    check_image_size(image_size)
    device = choose_device(device)
    if compiled:
        check_compiler(device)
    network = load_network(location.path, device, choose_dtype(dtype, device))
    if image_size is not None:
        network.set_image_size(image_size)
    return CompiledNetwork(network) if compiled else network


def check_image_size(size: tuple[int, int] | None) -> None:
    """Raise `SettingsError` if SAM 2 cannot work at (height, width); None stands for the model's own."""
    if size is not None and any(side % 32 or not 64 <= side <= MAX_IMAGE_SIZE for side in size):
        height, width = size
        text = str(width) if width == height else f"{width}x{height}"
        raise SettingsError(f"--image-size {text}: sides must be multiples of 32 from 64 on up to {MAX_IMAGE_SIZE}")
