"""Every plot that a board has data for, drawn once and kept as bytes."""

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...files import safe_name, write_together
from ..scoreboard import Scoreboard
from ..sections import Section, defined_differences, differences_caption, find_sections
from .curves import draw_axis, draw_vc_curves
from .gains import draw_gains, has_number
from .pairs import compared_rows, draw_classes, draw_clips, gains_by_key
from .style import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_CURVE_WINDOWS: Final = 3  # mVC8 and mVC16 alone are no curve


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        name: File name without its ending, unique on a board.
        title: What it shows, as a sentence without a full stop.
        section: "gains", "classes", "clips", "axis" or "curve".
        subject: Name of the row, or title of the ablated setting, that it is about; empty for the whole board.
        svg: The plot as SVG, text as text.
        png: The same as PNG, 150 dots per inch; empty where none was wanted.
    """

    name: str
    title: str
    section: str
    subject: str
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class _Drawing:
    """A figure and what `Plot` says about it."""

    name: str
    section: str
    subject: str
    title: str
    figure: "Figure"


def write_plots(board: Scoreboard, folder: Path) -> list[Path]:
    """Write every plot that the board has data for as PNG and SVG and return where they lie.

    Raises:
        MediaError: If a file cannot be written.
    """
    contents = plot_files(render_plots(board), Path(folder))
    write_together(contents)
    return list(contents)


def plot_files(plots: Sequence[Plot], folder: Path) -> dict[Path, bytes]:
    """Return the files of drawn plots."""
    contents = {folder / f"{plot.name}.svg": plot.svg for plot in plots}
    return {**contents, **{folder / f"{plot.name}.png": plot.png for plot in plots}}


def render_plots(board: Scoreboard, with_png: bool = True) -> tuple[Plot, ...]:
    """Draw every plot that the board has data for.

    A comparison gets gains, and classes and clips for every refined row; an ablation a plot a setting. Both get the
    consistency over n where at least three windows were counted.

    Args:
        board: What to draw.
        with_png: Whether PNGs are wanted too; pages do not need them.
    """
    import matplotlib.style

    taken: dict[str, int] = {}
    plots = []
    with matplotlib.style.context([dict(STYLE)], after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that the font lacks: boxes
        for one in _drawings(board):
            name = safe_name(one.name).replace(" ", "-")
            taken[name] = taken.get(name, 0) + 1  # names that differ only in what a file name cannot hold
            name += f"-{taken[name]}" if taken[name] > 1 else ""
            svg, png = _saved(one.figure, "svg"), _saved(one.figure, "png") if with_png else b""
            plots.append(Plot(name, one.title, one.section, one.subject, svg, png))
    return tuple(plots)


def _saved(figure: "Figure", form: str) -> bytes:
    """Return the bytes of a figure, without the date and the program in them."""
    out = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if form == "svg" else {"Software": None}
    figure.savefig(out, format=form, dpi=150, metadata=metadata)
    return out.getvalue()


def _drawings(board: Scoreboard) -> Iterator[_Drawing]:
    statistics = [name for name in board.statistics if any(row.scores.get(name) is not None for row in board.rows)]
    sections = find_sections(board)
    if not board.axes and any(has_number(row, name) for row in board.rows for name in statistics):
        title = differences_caption(board)
        if any(found.interval for found in defined_differences(board)):
            title += "; hollow marks: the difference may be zero"
        yield _Drawing("gains", "gains", "", title, draw_gains(board, statistics))
    for section in sections if statistics else ():
        if section.axis:
            figure = draw_axis(section, section.axis, statistics)
            yield _Drawing(f"axis-{section.axis.setting}", "axis", section.title, _axis_title(section), figure)
    for base, row in compared_rows(board):
        if gains_by_key(base.per_class, row.per_class, "IoU"):
            title = f"IoU per class, {base.name} and {row.name}"
            yield _Drawing(f"classes-{row.name}", "classes", row.name, title, draw_classes(base, row))
        if len(gains_by_key(base.per_clip, row.per_clip, "mIoU")) > 1:
            title = f"mIoU per clip, {row.name} over {base.name}"
            yield _Drawing(f"clips-{row.name}", "clips", row.name, title, draw_clips(base, row))
    curves = [section for section in sections if any(row.vc_curve for row in section.rows)]
    if any(len(row.vc_curve) >= MIN_CURVE_WINDOWS for section in curves for row in section.rows):
        yield _Drawing("vc-curve", "curve", "", "Video consistency mVC over n frames", draw_vc_curves(curves))


def _axis_title(section: Section) -> str:
    title = f"{section.title}: scores by value"
    if any(found.interval for row in section.rows for found in row.differences.values()):
        title += ", with the 95 % interval of the difference from the default"
    return title
