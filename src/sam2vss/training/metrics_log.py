"""Numbers of a training run as they come: one JSON object a line, and for TensorBoard where that is installed."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ..files import write_error

FILE_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class MetricsLog:
    """Appends to `metrics.jsonl` and writes TensorBoard events; used as a context manager.

    Args:
        out: Folder of the training run.
        say: Told every entry as well.

    Attributes:
        has_tensorboard: Whether events are written.
    """

    def __init__(self, out: Path, say: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._say = say
        self._started = time.monotonic()
        self._path = out / FILE_NAME
        self._has_begun = False
        self._board = _open_board(out / TENSORBOARD_FOLDER)

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


def _open_board(folder: Path) -> Any:
    """Return a writer of TensorBoard events, None where TensorBoard is not installed (extra "train")."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
