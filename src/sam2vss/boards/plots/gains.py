"""Differences with their intervals: a dot with a whisker a row, a panel a score."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..scoreboard import BoardRow, Scoreboard
from ..sections import find_sections
from .style import COLORS, MARKERS, panel_grid, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_gains(board: Scoreboard, statistics: Sequence[str]) -> "Figure":
    """Draw a dot with a whisker a row, one panel a score; rows of one base model stand together, best kind last."""
    rows: list[BoardRow] = []
    heights: list[float] = []
    for section in find_sections(board):
        compared = [entry.row for entry in section.entries if entry.row.differences]
        start = heights[-1] + 1.7 if heights else 0.0  # a gap between base models
        heights += [start + i for i in range(len(compared))]
        rows += compared
    figure, panels = panel_grid(statistics, 0.75 + 0.24 * (heights[-1] + 2), share_y=True)
    for panel, name in zip(panels, statistics, strict=True):
        panel.axvline(0, color="#1c2230", linewidth=1)
        for row, y in zip(rows, heights, strict=True):
            if has_number(row, name):
                _whisker(panel, row, name, y)
        panel.grid(axis="y", visible=False)
        panel.locator_params(axis="x", nbins=5)
        panel.set_yticks(heights, [shortened(row.name) for row in rows])
        panel.set_ylim(heights[-1] + 0.6, heights[0] - 0.6)  # the first row on top
    figure.supxlabel("difference in percentage points", fontsize=9)
    return figure


def _whisker(panel: "Axes", row: BoardRow, statistic: str, y: float) -> None:
    """Draw a difference; filled where the interval leaves out zero, hollow where it does not or is not known."""
    found = row.differences[statistic]
    color = COLORS[row.kind]
    if found.interval is not None:
        panel.plot([100 * end for end in found.interval], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
    face = color if found.is_clear else "white"
    panel.plot(100 * found.difference, y, MARKERS[row.kind], color=color, markerfacecolor=face, markersize=5)


def has_number(row: BoardRow, statistic: str) -> bool:
    """Tell whether the row has a difference in a score that is a number."""
    found = row.differences.get(statistic)
    return found is not None and not math.isnan(found.difference)
