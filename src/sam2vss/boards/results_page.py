"""One Markdown page made of parts: texts as they stand, and stored scores as tables with the commands behind them.

`docs/results.md` is such a page. Numbers come from boards that `bench` and `ablate` stored, words from text files.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import RunError, SettingsError
from ..files import atomic_write_bytes
from .scoreboard import Scoreboard
from .tables import to_markdown

NOTE = "<!-- Written by `sam2vss report PARTS --markdown FILE`; change the parts, not this page. -->"


def join_results(parts: Sequence[Path]) -> str:
    """Return the page: `.md` parts word for word, `.json` parts as tables, in the order given.

    Raises:
        RunError: If a part cannot be read or is neither of the two.
        SettingsError: If there is no part.
    """
    if not parts:
        raise SettingsError("no parts were given: pass .md texts and .json files that bench or ablate wrote")
    return "\n\n".join([_part(path) for path in parts]).replace("\n", f"\n\n{NOTE}\n", 1) + "\n"


def write_results(parts: Sequence[Path], out: Path) -> None:
    """Write the page of `join_results`; the file is there whole or not at all.

    Raises:
        RunError: As `join_results`.
        MediaError: If the page cannot be written.
        SettingsError: If there is no part.
    """
    atomic_write_bytes(out, join_results(parts).encode("utf-8"))


def summary_of(board: Scoreboard) -> Scoreboard:
    """Return the board without what tables of a page do not show: single classes and clips, pictures."""
    rows = tuple(replace(row, per_class={}, per_clip={}) for row in board.rows)
    return replace(board, rows=rows, pictures=())


def _part(path: Path) -> str:
    if path.suffix == ".json":
        return to_markdown(Scoreboard.read(path)).strip()
    if path.suffix != ".md":
        raise RunError(f"{path} is neither a text (.md) nor stored scores (.json)")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
