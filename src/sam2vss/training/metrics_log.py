"""Numbers of a training run as they come: one JSON object a line, and for TensorBoard where that is installed."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..files import atomic_write_bytes, write_error

FILE_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends to `metrics.jsonl` and writes TensorBoard events; used as a context manager.

    Args:
        out: Folder of the training run.
        say: Told every entry as well.
        after: Go on with the numbers of an earlier training, of which those of later steps are dropped; None: replace
            them.

    Attributes:
        has_tensorboard: Whether events are written.
    """

    def __init__(
        self, out: Path, say: Callable[[dict[str, Any]], None] | None = None, after: int | None = None
    ) -> None:
        self._say = say
        self._started = time.monotonic()
        self._path = out / FILE_NAME
        self._has_begun = False
        if after is not None:
            self._keep(after)
        self._board = _open_board(out / TENSORBOARD_FOLDER, after)

    @property
    def has_tensorboard(self) -> bool:
        return self._board is not None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def _keep(self, last: int) -> None:
        """Keep the lines up to a step; time goes on from the last of them. What is no line of numbers is dropped."""
        try:
            text = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        except (OSError, ValueError):  # unreadable numbers of the past are no reason not to train
            text = ""
        kept = [entry for line in text.splitlines() if (entry := _entry(line)) and entry["step"] <= last]
        if kept:
            atomic_write_bytes(self._path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
            self._has_begun = True
            self._started -= kept[-1]["time_s"]

    def write(self, step: int, **values: float) -> None:
        """Write the numbers of one step or epoch; the first ones replace those of an earlier training.

        What is no finite number is null, as JSON has no NaN.

        Raises:
            MediaError: If the disk is full or the file cannot be written.
        """
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        entry: dict[str, Any] = {"step": step, "time_s": round(time.monotonic() - self._started, 2), **plain}
        try:
            with self._path.open("a" if self._has_begun else "w", encoding="utf-8") as file:
                self._has_begun = True
                file.write(json.dumps(entry, allow_nan=False) + "\n")
        except OSError as error:
            raise write_error(self._path, error) from error
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._say is not None:
            self._say(entry)


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        is_entry = isinstance(entry["step"], int) and isinstance(entry["time_s"], int | float)
    except (ValueError, TypeError, LookupError):
        return None
    return entry if is_entry else None


def _open_board(folder: Path, after: int | None) -> Any:
    """Return a writer of TensorBoard events, None where TensorBoard is not installed (extra "train")."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=None if after is None else after + 1)
