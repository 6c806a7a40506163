"""Counts behind scores in files: NPZ without pickle, so that tables can be made again without scoring again.

A file holds any nesting of dictionaries, tuples, numbers, texts and arrays, such as `VideoSegMetrics.state_dict`
returns: the arrays by number, and beside them the nesting as JSON.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from .errors import RunError
from .files import atomic_write_bytes

FORMAT_VERSION: Final = 1
_NESTING: Final = "nesting"


def write_counts(path: Path, content: Any) -> None:
    """Write a nesting; the file is there whole or not at all.

    Raises:
        MediaError: If it cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps({"format_version": FORMAT_VERSION, "content": _flatten(content, arrays)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_NESTING: np.frombuffer(text.encode(), np.uint8), **arrays}, allow_pickle=False)
    atomic_write_bytes(path, buffer.getvalue())


def read_counts(path: Path) -> Any:
    """Read what `write_counts` wrote.

    Raises:
        RunError: If the file is not there, damaged, or of another format.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        nesting = json.loads(arrays[_NESTING].tobytes())
        if nesting["format_version"] != FORMAT_VERSION:
            raise RunError(f"{path} has counts of format {nesting['format_version']}, expected {FORMAT_VERSION}")
        return _unflatten(nesting["content"], arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} holds no counts that can be read ({type(error).__name__}: {error})") from error


def _flatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a nesting into JSON; arrays go into `arrays` and are named there."""
    if isinstance(value, np.ndarray):
        name = f"array_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": [[_flatten(key, arrays), _flatten(entry, arrays)] for key, entry in value.items()]}
    if isinstance(value, tuple | list):
        return {"tuple": [_flatten(entry, arrays) for entry in value]}
    assert value is None or isinstance(value, str | int | float | bool), f"{type(value)} cannot be stored"
    return value


def _unflatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {_unflatten(key, arrays): _unflatten(entry, arrays) for key, entry in content}
    return tuple(_unflatten(entry, arrays) for entry in content)
