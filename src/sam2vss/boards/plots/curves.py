"""Curves: scores along an ablated setting, and video consistency over the number of frames."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..scoreboard import Axis, BoardRow
from ..sections import Section
from .style import COLORS, LINES, MARKERS, new_figure, panel_grid, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_axis(section: Section, axis: Axis, statistics: Sequence[str]) -> "Figure":
    """Draw the scores over the values of a setting, one panel a score; numbers get a band, words get whiskers."""
    is_ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis.values)
    rows, x = section.rows, np.arange(len(axis.rows))
    default = next((entry.row for entry in section.entries if entry.is_default), None)
    figure, panels = panel_grid(statistics, 2.0)
    for panel, name in zip(panels, statistics, strict=True):
        values = [np.nan if (value := row.scores.get(name)) is None else 100 * value for row in rows]
        panel.plot(x, values, linestyle="-" if is_ordered else "none", color=COLORS["refined"], linewidth=1.4)
        ends = np.array([_interval_around(row, name, default) for row in rows])
        if is_ordered:
            panel.fill_between(x, *ends.T, color=COLORS["refined"], alpha=0.16, linewidth=0)
        else:
            panel.vlines(x, *ends.T, color=COLORS["refined"], linewidth=1.6)
        for i, (row, value) in enumerate(zip(rows, values, strict=True)):
            face = COLORS["base"] if row is default else COLORS["refined"]
            panel.plot(i, value, "D" if row is default else "o", color=face, markersize=5 if row is default else 4)
        panel.set_xticks(x, [shortened(entry.label, 14) for entry in section.entries])
        panel.set_xlim(-0.5, len(rows) - 0.5)
        panel.ticklabel_format(axis="y", useOffset=False)
        panel.locator_params(axis="y", nbins=5)
        if sum(len(entry.label) for entry in section.entries) > 26:
            panel.tick_params(axis="x", rotation=30)
    figure.supxlabel(f"{axis.setting}{'; orange: the default' if default else ''}", fontsize=9)
    figure.supylabel("percent", fontsize=9)
    return figure


def _interval_around(row: BoardRow, statistic: str, default: BoardRow | None) -> tuple[float, float]:
    """Return the interval of the difference as scores in percent: the default's score plus either end."""
    found = row.differences.get(statistic)
    origin = default.scores.get(statistic) if default else None
    if row is default and origin is not None:
        return 100 * origin, 100 * origin
    if found is None or found.interval is None or origin is None:
        return np.nan, np.nan
    return 100 * (origin + found.interval[0]), 100 * (origin + found.interval[1])


def draw_vc_curves(sections: Sequence[Section]) -> "Figure":
    """Draw mVC_n over n, one panel a base model or setting, one line a row."""
    columns = min(2, len(sections))
    lines = -(-len(sections) // columns)
    figure = new_figure(2.9 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for panel, section in zip(panels.flat, sections, strict=False):
        for entry, (color, line) in zip(section.entries, _line_styles(section), strict=True):
            curve = entry.row.vc_curve
            panel.plot(
                list(curve), [100 * value for value in curve.values()], line, color=color,
                marker=MARKERS[entry.row.kind], markersize=3.5, linewidth=1.4, label=shortened(entry.label),
            )  # fmt: skip
        panel.set_title(shortened(section.title, 40))
        panel.set(xlabel="n, frames", ylabel="mVC in percent")
        panel.legend(fontsize=7.5)
    for panel in list(panels.flat)[len(sections) :]:
        panel.set_axis_off()
    return figure


def _line_styles(section: Section) -> Iterator[tuple[Any, str]]:
    """Yield colour and dashes a row: dark to light along a setting, else by kind, rows of one kind by dashes."""
    import matplotlib

    if section.axis:
        shades = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.85, len(section.entries)))
        yield from ((tuple(shade), LINES[i % len(LINES)]) for i, shade in enumerate(shades))
        return
    seen: dict[str, int] = {}
    for entry in section.entries:
        kind = entry.row.kind
        yield COLORS[kind], LINES[seen.get(kind, 0) % len(LINES)]
        seen[kind] = seen.get(kind, 0) + 1
