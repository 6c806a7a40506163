"""The same network with its heavy operations compiled: `--compile`, with a number of compilations known beforehand.

Number of rows, memories and pointers are dynamic dimensions of one graph, everything else is fixed; so frames in which
the memory still fills up, a last chunk with fewer objects and later windows compile nothing new. No CUDA graphs are
recorded, hence no output is ever overwritten by the next call.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import SettingsError
from .edgetam import EdgeTamNetwork
from .model import Decoded, FrameFeatures, Sam2Network
from .positions import PositionTables

Backend = str | Callable[..., Any]
T = TypeVar("T")


class CompiledNetwork(Sam2Network):
    """A `Sam2Network` that compiles what a step through a window runs, at its first use.

    There is one graph for memory attention, one for the mask decoder while tracking, one for point grids, one for the
    memory encoder, each once more for a single row (PyTorch always makes a size of 1 a graph of its own), and one for
    the encoder with 1 frame and with `batch` frames: 10, less what a run does not use. What happens once a window stays
    uncompiled: conditioning on the first masks, and memory attention in the frame after it; so do other prompts.

    Weights are shared with the network it is made of, and must be final: weights, image size, dtype and device are
    changed there, and then compiled again.

    Args:
        network: The model, in evaluation mode.
        batch: Frames per run of the encoder besides 1; other numbers are encoded one by one.
        backend: Of `torch.compile`.

    Raises:
        SettingsError: If the network is EdgeTAM, whose operations differ.
    """

    def __init__(self, network: Sam2Network, batch: int = 4, backend: Backend = "inductor") -> None:
        if isinstance(network, EdgeTamNetwork):
            raise SettingsError("--compile knows SAM 2 and not EdgeTAM: leave it out, or take a SAM 2 model")
        super().__init__(network.model)
        self.input_size, self.own_size = network.input_size, network.own_size
        self.batch = batch
        self.tables = super()._positions(self.grid_size)
        self.eval()

        def compiled(operation: Callable[..., T]) -> Callable[..., T]:
            return torch.compile(operation, backend=backend, dynamic=False, fullgraph=True)

        self._encode = compiled(super().encode)
        self._attend_to = compiled(super().attend_to)
        self._decode = compiled(super().decode)
        self._write_memory = compiled(super().write_memory)

    def _positions(self, grid: tuple[int, int]) -> PositionTables:
        return self.tables  # without asking whether the weights have changed, which cannot be compiled

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> FrameFeatures:
        if len(pixels) in (1, self.batch):
            return self._encode(pixels)
        parts = [self._encode(part) for part in pixels.split(1)]
        return FrameFeatures(*(torch.cat([getattr(part, name) for part in parts]) for name in ("high", "mid", "low")))

    @torch.inference_mode()
    def attend_to(self, seen: Tensor, spatial: Tensor, pointers: Tensor, positions: Tensor) -> Tensor:
        if spatial.shape[1] == 1 or pointers.shape[1] == 1:  # the frame after the conditioning frame
            return super().attend_to(seen, spatial, pointers, positions)
        spatial, pointers = _rows(spatial, 0, 1), _rows(pointers, 0, 1)
        return self._attend_to(_rows(seen), spatial, pointers, _rows(positions))

    @torch.inference_mode()
    def decode(self, low: Tensor, features: FrameFeatures, sparse: Tensor, dense: Tensor) -> Decoded:
        if sparse.shape[1] != 2 or dense.shape[-1] != 1 or len(features.high) != 1:
            return super().decode(low, features, sparse, dense)
        return self._decode(_rows(low), features, _rows(sparse), dense)

    @torch.inference_mode()
    def write_memory(self, low: Tensor, mask_logits: Tensor, object_score: Tensor, binarise: bool) -> Tensor:
        if binarise:
            return super().write_memory(low, mask_logits, object_score, binarise)
        return self._write_memory(low, _rows(mask_logits), _rows(object_score), False)


def _rows(tensor: Tensor, *dimensions: int) -> Tensor:
    """Declare which dimensions vary (default: the first); a copy, because strides and offsets would be compiled in."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    for dimension in dimensions or (0,):
        if tensor.shape[dimension] > 1:
            torch._dynamo.mark_dynamic(tensor, dimension)
    return tensor


def check_compiler(device: str, backend: Backend = "inductor") -> None:
    """Compile and run a trifle, so that a machine which cannot compile says so before any work is done.

    Raises:
        SettingsError: If that fails, most often because no C++ compiler or, on a GPU, no Triton is installed.
    """
    try:
        _compile_trifle(device, backend)
    except (RuntimeError, OSError, ImportError) as error:  # whatever compilers raise derives from these
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        found = " ".join(lines[:2]).rstrip(".")
        raise SettingsError(
            f"--compile cannot work on {device} here: {found}. It needs a C++ compiler (g++ or clang++), Python's "
            "headers and, on a GPU, Triton. Install them, or leave --compile out."
        ) from error


def _compile_trifle(device: str, backend: Backend) -> None:
    def trifle(values: Tensor) -> Tensor:
        return (values.sin() * 2).sum()

    values = torch.arange(100.0, device=device)
    with torch.inference_mode():
        found = torch.compile(trifle, backend=backend, dynamic=False, fullgraph=True)(values)
    if not torch.allclose(found, trifle(values), atol=1e-3):
        raise RuntimeError(f"the compiled sum is {float(found)}, expected {float(trifle(values))}")
