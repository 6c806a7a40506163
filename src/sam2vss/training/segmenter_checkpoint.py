"""A training of a segmenter that was begun: weights, optimiser and how far it is, in one safetensors file.

What is drawn for a step depends on the seed and the step's number alone, so no state of a random generator is kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import RunError
from ..files import discard, publish, temporary_name, write_error

FORMAT_VERSION = 1
STATE_KEY = "training"  # of the file's own metadata, which hold text only


def write_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint that is there whole or not at all.

    Args:
        path: The file.
        network: Its weights and buffers are kept.
        optimiser: Of parameters of this network.
        facts: JSON types: how far training is, and what was asked for.

    Raises:
        MediaError: If it cannot be written.
    """
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for parameter, state in optimiser.state.items():
        tensors |= {f"optimiser.{names[id(parameter)]}.{key}": value for key, value in state.items()}
    write_tensors(path, tensors, {"format_version": FORMAT_VERSION, **facts})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts as safetensors, whole or not at all; see `write_state`."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, temporary, {STATE_KEY: json.dumps(facts, allow_nan=False)})
        publish(temporary, path)
    except (OSError, SafetensorError) as error:
        raise write_error(path, error) from error
    finally:
        discard(temporary)


def read_facts(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says of itself.

    Raises:
        RunError: If it cannot be read, or is of another version.
    """
    facts, _ = _read(path, with_tensors=False)
    return facts


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that `write_tensors` wrote.

    Raises:
        RunError: If it cannot be read.
    """
    return _read(path, with_tensors=True)[1]


def read_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put network and optimiser into the state of a checkpoint, on the devices where they are.

    Raises:
        RunError: If it cannot be read, or is of another network.
    """
    tensors = read_tensors(path)
    weights = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise RunError(f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from error
    for name, parameter in network.named_parameters():
        prefix = f"optimiser.{name}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        state = {key: value for key, value in state.items() if "." not in key}  # not those of a part called like it
        if state:
            # AdamW counts its steps on the CPU
            optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[STATE_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()} if with_tensors else {}  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read ({type(error).__name__}: {error}): start anew with --overwrite"
        ) from error
    if not isinstance(facts, dict):
        raise RunError(
            f"{path} holds a {type(facts).__name__} instead of facts about its training: start anew with --overwrite"
        )
    if facts.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise RunError(f"{path} is of format {facts['format_version']!r}, expected {FORMAT_VERSION}")
    return facts, tensors
