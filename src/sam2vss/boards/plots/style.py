"""How all plots look: colours, markers, sizes, and names cut to fit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..sections import LOWER_IS_BETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 7.2  # inches, a page of text
# Light to dark in grey: base, control, refined. Orange, grey, teal and purple also differ for colour-blind readers.
COLORS: Final = {"base": "#e69f00", "control": "#70757f", "refined": "#00665e", "other": "#a0489b"}
MARKERS: Final = {"base": "o", "control": "s", "refined": "D", "other": "^"}
LINES: Final = ("-", "--", ":", "-.")
STYLE: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sam2vss",
    "text.parse_math": False,  # names may hold dollar signs
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],  # the first comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5a6375",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dde1e7",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure, sizes in inches; it belongs to nobody's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def panel_grid(statistics: Sequence[str], height: float, share_y: bool = False) -> "tuple[Figure, list[Axes]]":
    """Return a figure with one titled panel a score, three side by side.

    Args:
        statistics: The scores.
        height: Of a line of panels, in inches.
        share_y: Whether all panels have the same y axis.
    """
    columns = min(3, len(statistics))
    lines = -(-len(statistics) // columns)
    figure = new_figure(height * lines)
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=share_y).flat)
    for panel, name in zip(panels, statistics, strict=False):
        panel.set_title(f"{name}{' (less is better)' if name in LOWER_IS_BETTER else ''}")
    for panel in panels[len(statistics) :]:
        panel.set_axis_off()
    return figure, panels[: len(statistics)]


def shortened(name: str, length: int = 26) -> str:
    """Cut a long name in the middle: ends tell names apart more often than middles do."""
    if len(name) <= length:
        return name
    half = (length - 1) // 2
    return f"{name[: length - 1 - half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
