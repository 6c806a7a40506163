"""Everything that a folder of `bench` or `ablate` shows, made from its board: JSON, tables, plots and the page.

The board's JSON is the source; the other files can be made again from it at any time.
"""

import json
from pathlib import Path
from typing import Final

from ..errors import RunError
from ..files import write_together
from .latex import to_latex
from .page import render_page
from .plots import plot_files, render_plots
from .scoreboard import Scoreboard
from .tables import to_csv, to_markdown

BOARD_FILES: Final = ("bench.json", "ablate.json")
PAGE: Final = "report.html"
_BEGUN: Final = {"bench": "plan.json", "ablate": "sweep.json"}  # what they write first


def write_board_files(board: Scoreboard, folder: Path) -> list[Path]:
    """Write a board and all that is made from it, and return where the files lie.

    `bench.json` or `ablate.json` by the board's kind, beside it the tables as `.csv`, `.tex` and `.md`, the plots in
    `plots/` and the page `report.html`. All are whole before the first one takes its place. Pictures named by the
    board are read from the folder; plots of an earlier board that this one lacks are removed.

    Raises:
        MediaError: If a file cannot be written.
        RunError: If the board contradicts itself: axes with rows that it lacks, two rows of one name.
    """
    folder = Path(folder)
    _check(board)
    plots = render_plots(board)
    texts = {
        f"{board.kind}.json": json.dumps(board.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        f"{board.kind}.csv": to_csv(board),
        f"{board.kind}.tex": to_latex(board),
        f"{board.kind}.md": to_markdown(board, heading=1),
        PAGE: render_page(board, folder, plots),
    }
    contents = {folder / name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}
    contents |= plot_files(plots, folder / "plots")
    write_together(contents)
    _remove_other_plots(folder / "plots", contents)
    return list(contents)


def rewrite_board_files(folder: Path) -> list[Path]:
    """Make tables, plots and page of a folder again from the board stored in it.

    Raises:
        RunError: If the folder holds no board, or one that cannot be read.
        MediaError: If a file cannot be written.
    """
    return write_board_files(Scoreboard.read(find_board_file(folder)), folder)


def find_board_file(folder: Path) -> Path:
    """Return the stored board of a folder.

    Raises:
        RunError: If there is none.
    """
    for name in BOARD_FILES:
        if (folder / name).is_file():
            return folder / name
    raise RunError(f"{folder} holds neither {' nor '.join(BOARD_FILES)}; pass the --out folder of `bench` or `ablate`")


def is_board_folder(folder: Path) -> bool:
    """Tell whether a folder holds a stored board, so that `report` can tell it from a run."""
    return any((folder / name).is_file() for name in BOARD_FILES)


def unfinished_board(folder: Path) -> str:
    """Return which command has begun to work in a folder without a stored board: "bench", "ablate", or "" for none."""
    found = [kind for kind, name in _BEGUN.items() if (folder / name).is_file() and not (folder / "run.json").is_file()]
    return found[0] if found else ""


def _check(board: Scoreboard) -> None:
    names = [row.name for row in board.rows]
    for name in names:
        if names.count(name) > 1:
            raise RunError(f"the board holds two rows named {name!r}; names of rows must differ")
    for axis in board.axes:
        if len(axis.rows) != len(axis.values):
            raise RunError(f"axis {axis.setting!r} has {len(axis.values)} values and {len(axis.rows)} rows")
        for name in axis.rows:
            if name not in names:
                raise RunError(f"axis {axis.setting!r} names the row {name!r}, which the board does not hold")


def _remove_other_plots(folder: Path, written: dict[Path, bytes]) -> None:
    """Remove plots that an earlier board left behind: they would be taken for plots of this one."""
    for path in folder.glob("*"):
        if path.suffix in (".svg", ".png") and path not in written:
            path.unlink(missing_ok=True)
