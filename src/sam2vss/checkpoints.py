"""Checkpoints that torch.save wrote (`.pt`, `.pth`): the tensors in them, read without running anything.

Whoever knows a network's names reads its checkpoints with this: Meta's SAM 2 files, the video segmentation models'
mmcv files, VidEoMT's detectron2 files. Both formats of torch.save are read, the zip archive and the one before it, of
which mmcv still made use. What a file is that cannot be read is said in words that help.
"""

import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import WeightsError

CHECKPOINT_SUFFIXES = (".pt", ".pth")
LISTED_NAMES = 5  # names of tensors in one message
WEIGHT_ENTRIES = ("state_dict", "model")  # where mmcv and detectron2 keep the weights
LEGACY_START = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of torch.save before the zip format
)
LOOK_BYTES = 1 << 16  # of a strange file, for saying what it is
_PICKLED_LISTS = (b"\x80", b"(l", b"]q")  # how pickles begin: from protocol 2 on, lists of 0 and of 1
# What a pickle of damaged bytes can raise; its own kind of error is answered apart.
DAMAGE = (OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError)


def read_weights(file: Path, entries: Sequence[str] = WEIGHT_ENTRIES) -> dict[str, Tensor]:
    """Read names and tensors of a network, mapped into memory where the format allows; no code in the file is run.

    Raises:
        WeightsError: If the file cannot be read, is no checkpoint, holds code, or holds other things than tensors.
    """
    return weights_in(read_torch_file(file), file, entries)


def weights_in(data: Any, file: Path, entries: Sequence[str] = WEIGHT_ENTRIES) -> dict[str, Tensor]:
    """Pick names and tensors of a network out of what `read_torch_file` returned for `file`.

    The weights lie under one of `entries` or at the top; what training left beside them (optimiser, epoch) is left
    aside. A "module." before every name, as from a network on several GPUs, is taken off.

    Raises:
        WeightsError: If there are none, or other things than tensors among them.
    """
    if not isinstance(data, Mapping):
        raise WeightsError(f"{file} holds a {type(data).__name__}, expected a dictionary of weights")
    found = next((data[entry] for entry in entries if isinstance(data.get(entry), Mapping)), data)
    others = [f"{name} ({type(value).__name__})" for name, value in found.items() if not isinstance(value, Tensor)]
    if others or not found:
        raise WeightsError(
            f"{file} is no checkpoint of a network: expected only tensors, at the top or under "
            f"{' or '.join(map(repr, entries))}, found {listed(others) or 'nothing'}"
        )
    strange = [f"{name} ({_kind(tensor)})" for name, tensor in found.items() if _kind(tensor)]
    if strange:
        raise WeightsError(f"{file} holds tensors that are no plain real numbers: {listed(strange)}")
    prefix = "module." if all(str(name).startswith("module.") for name in found) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in found.items()}


def read_torch_file(file: Path) -> Any:
    """Return what torch.save put into a file: tensors, numbers, words and containers of them, on the CPU.

    Raises:
        WeightsError: If the file cannot be read, is no checkpoint, or holds code or other objects.
    """
    try:
        is_archive = zipfile.is_zipfile(file)
        with file.open("rb") as stream:
            start = stream.read(LOOK_BYTES)
        if is_archive:
            with zipfile.ZipFile(file) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    raise WeightsError(f"{file} is a TorchScript archive, which holds code, and was not run or loaded")
        elif not start.startswith(LEGACY_START):
            raise WeightsError(f"{file} {_what_it_is(start)}")
        with _plain_numbers():
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        if refused is None:
            raise WeightsError(f"{file} cannot be read as a PyTorch checkpoint: {_reason(error)}") from error
        raise WeightsError(
            f"{file} holds code or objects beside tensors (found {refused[1]}) and was not run or loaded; expected "
            "only tensors and plain data"
        ) from error
    except (*DAMAGE, struct.error, zipfile.BadZipFile) as error:
        raise WeightsError(f"{file} cannot be read as a PyTorch checkpoint: {_reason(error)}") from error


def shape_of(weights: Mapping[str, Tensor], name: str, num_sides: int, file: Path | str) -> tuple[int, ...]:
    """Return the shape of a tensor that tells something about its network.

    Raises:
        WeightsError: If it has another number of sides, or is empty.
    """
    shape = tuple(weights[name].shape)
    if len(shape) != num_sides or 0 in shape:
        raise WeightsError(f"{file} is damaged: {name} has the shape {shape}, expected {num_sides} sides, none empty")
    return shape


def refuse_integers(weights: Mapping[str, Tensor], fractions: Container[str], file: Path | str) -> None:
    """Raise `WeightsError` if weights are integers that are named among those which are fractions in their network."""
    rounded = [
        f"{name} ({tensor.dtype})".replace("torch.", "")
        for name, tensor in weights.items()
        if name in fractions and not tensor.is_floating_point()
    ]
    if rounded:
        raise WeightsError(
            f"{file} holds {len(rounded)} weights as integers ({listed(rounded)}): a quantised or rounded copy cannot "
            "be used; take the checkpoint as its authors released it"
        )


def check_names(
    weights: Mapping[str, Tensor], expected: Mapping[str, torch.Size], file: Path | str, advice: str
) -> None:
    """Make sure that a checkpoint holds exactly the tensors of its network.

    Raises:
        WeightsError: If tensors are missing, left over or of another shape; all are named, `advice` comes last.
    """
    problems = {
        "missing": expected.keys() - weights.keys(),
        "not part of the network": weights.keys() - expected.keys(),
        "of another shape": {
            f"{name} {tuple(weights[name].shape)} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        },
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {what}: {listed(sorted(names))}" for what, names in problems.items() if names)
        raise WeightsError(
            f"{file} does not hold exactly the {len(expected)} tensors of its network: {found}. {advice}"
        )


def listed(names: Iterable[str]) -> str:
    """Join names for a message, the first few of many."""
    names = list(names)
    rest = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _kind(tensor: Tensor) -> str:
    """Say what is odd about a tensor, "" for nothing."""
    if tensor.is_meta:
        return "without values"
    if tensor.layout != torch.strided:
        return "sparse"
    return "complex" if tensor.is_complex() else ""


def _plain_numbers() -> AbstractContextManager[Any]:
    """Let NumPy's numbers and arrays of numbers pass, which trainers keep beside the weights (best score, palette)."""
    from numpy._core import multiarray

    numbers = [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"]
    makers = [
        (getattr(multiarray, maker), f"numpy.{core}.multiarray.{maker}")
        for core in ("core", "_core")  # NumPy before and from 2.0 on
        for maker in ("scalar", "_reconstruct")
    ]
    return torch.serialization.safe_globals([np.dtype, np.ndarray, *numbers, *makers])


def _what_it_is(start: bytes) -> str:
    """Say what a file is that begins like this and is neither a whole zip archive nor an older file of torch.save."""
    expected = "expected a checkpoint that torch.save wrote"
    if not start:
        return f"is empty, {expected}"
    if start.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d+)", start)
        stands_for = f"{int(size[1])} bytes of weights" if size else "the weights"
        return (
            f"is a Git LFS pointer, a few lines of text that stand for {stands_for}: fetch the weights themselves with "
            "`git lfs pull`, or download the file again from its page"
        )
    if start.startswith(b"PK"):
        return "is cut short or damaged: its archive has no end. Fetch it again"
    if LEGACY_START.startswith(start):
        return "is cut short: it ends before the weights begin. Fetch it again"
    if start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return f"is a web page, perhaps of a download that asked for something first; {expected}"
    if start[8:10] == b'{"':
        return "is a safetensors file; pass the folder with it and its config.json"
    if start.startswith(_PICKLED_LISTS) and _holds_only_paths(start):
        return (
            "holds only paths of temporary files, which mmsegmentation's test script deletes when it ends; pass the "
            "folder result_submission that it wrote beside it as --labels"
        )
    if start.startswith(b"\x80"):
        return f"is a bare pickle, which can run code when opened and was not opened; {expected}"
    return f"is no PyTorch checkpoint: it begins with {start[:16]!r}, {expected}"


def _holds_only_paths(start: bytes) -> bool:
    """Whether a pickle begins like a list of `.npy` files; its instructions are read, none is run."""
    words: list[str] = []
    try:
        for opcode, value, _ in islice(pickletools.genops(start), LOOK_BYTES):
            if opcode.name in ("GLOBAL", "STACK_GLOBAL", "REDUCE", "INST", "OBJ", "NEWOBJ"):
                return False
            if isinstance(value, str):
                words.append(value)
    except ValueError:  # the part that was read ends in the middle of an instruction
        pass
    return bool(words) and all(word.endswith(".npy") for word in words)


def _reason(error: Exception) -> str:
    """Return one line; torch wraps its own in advice to load the file unsafely, which must not be passed on."""
    inner = re.search(r"WeightsUnpickler error: (.+)", str(error))
    text = inner[1] if inner else str(error)
    return (text.strip() or type(error).__name__).splitlines()[0]
