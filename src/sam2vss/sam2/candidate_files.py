"""Candidates of one frame in a file, so that thresholds can be tried on another day without running the network."""

from pathlib import Path

import torch
from torch import Tensor

from ..errors import MediaError
from ..files import atomic_write_bytes
from .candidates import Candidates

FORMAT = "sam2vss candidates"
FORMAT_VERSION = "1"


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Write candidates as safetensors, each tensor in its own type; the file is there whole or not at all.

    The logits take the room: 96 MiB for 16 x 16 points of a 1024-pixel network in half precision. `Candidates.pruned`
    drops beforehand what no threshold of interest would choose.

    Raises:
        MediaError: If the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {"iou": candidates.iou, "logits": candidates.logits, "points": candidates.points}
    height, width = candidates.size
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "size": f"{height} {width}"}
    metadata["floor"] = repr(candidates.floor)
    atomic_write_bytes(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))


def read_candidates(path: Path, device: str = "cpu") -> Candidates:
    """Read what `write_candidates` wrote, bit for bit.

    Raises:
        MediaError: If the file cannot be read, is cut short, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise MediaError(f"{path} holds no candidates, or is cut short ({error}): find them again") from error
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise MediaError(
            f"{path} has the format {metadata.get('format')!r}, version {metadata.get('format_version')!r}; expected "
            f"{FORMAT!r}, version {FORMAT_VERSION!r}: find the candidates again"
        )
    try:
        return _from_parts(metadata, tensors)
    except (KeyError, ValueError) as error:
        raise MediaError(f"{path} is damaged ({error}): find the candidates again") from error


def _from_parts(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Candidates:
    """Put candidates together.

    Raises:
        KeyError: If a part is missing.
        ValueError: If a part is not what it should be.
    """
    height, width = (int(side) for side in metadata["size"].split())
    iou, logits, points = (tensors[name] for name in ("iou", "logits", "points"))
    if height < 1 or width < 1:
        raise ValueError(f"a frame of {height} x {width} pixels")
    if not logits.is_floating_point() or iou.dtype != torch.float32 or points.dtype != torch.float32:
        raise ValueError(f"types {logits.dtype}, {iou.dtype}, {points.dtype}")
    count = len(iou)
    if logits.ndim != 3 or len(logits) != count or iou.shape != (count,) or points.shape != (count, 2):
        raise ValueError(f"shapes {tuple(logits.shape)}, {tuple(iou.shape)}, {tuple(points.shape)}")
    return Candidates(logits, iou, points, (height, width), float(metadata["floor"]))
