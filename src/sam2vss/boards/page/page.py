"""One self-contained HTML page about a board: scores with intervals, plots, classes, clips, pictures, commands.

Opens from disk and asks the network for nothing. The page's own source is `page.html`, `.css` and `.js` beside
this file, with the style of the page about a run. It computes no scores; it shows what the board holds.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from ...files import atomic_write_bytes
from ...metrics import PairedDifference
from ...page_tables import html_line, html_table
from ..plots import Plot, compared_rows, render_plots
from ..scoreboard import Scoreboard
from ..sections import (
    DAGGER,
    LOWER_IS_BETTER,
    UNDEFINED,
    Entry,
    Section,
    arrow_of,
    board_notes,
    counted,
    default_against_base,
    defined_differences,
    describe,
    difference_cell,
    difference_text,
    differences_caption,
    fact_text,
    find_sections,
    percent,
    published_sources,
    setting_text,
    shows_difference,
    true_minus,
)
from .details import class_parts, clip_parts
from .figures import picture_figures, plot_figure

logger = logging.getLogger(__name__)

_FACT_UNITS: Final = {"masklets": " masklets", "coverage": " % covered", "seconds": " s a frame"}


def write_board_page(board: Scoreboard, path: Path, plots: Sequence[Plot] | None = None) -> Path:
    """Write the page of a board and return where it lies.

    Pictures are read from the board's folder, which is the page's; one that cannot be read is named on the page.

    Args:
        board: What to show.
        path: The page.
        plots: Its plots where they are drawn already, else they are drawn here.

    Raises:
        MediaError: If the page cannot be written.
    """
    path = Path(path)
    content = render_page(board, path.parent, render_plots(board, with_png=False) if plots is None else plots).encode(
        "utf-8"
    )
    atomic_write_bytes(path, content)
    logger.info("wrote %s (%.1f MB)", path, len(content) / 1e6)
    return path


def render_page(board: Scoreboard, folder: Path, plots: Sequence[Plot]) -> str:
    """Return the page. Everything that comes from the board passes `escape` on its way."""
    troubles: list[str] = []
    pictures = picture_figures(board.pictures, folder, troubles)
    drawings: dict[str, dict[str, str]] = {section: {} for section in ("gains", "curve", "axis", "classes", "clips")}
    for number, plot in enumerate(plots):
        drawings[plot.section][plot.subject] = plot_figure(plot, number)
    slots = {
        "title": escape(board.title),
        "kind": escape(board.kind),
        "style": _page_source("report_page.css", "sam2vss") + _page_source("page.css"),
        "script": _page_source("page.js"),
        "summary": escape(_summary(board)),
        "status": escape(describe(board)),
        "warnings": _warnings([*board_notes(board), *troubles]),
        "scores": _score_cards(board, drawings["axis"]),
        "plots": _card("plots", "Gains", drawings["gains"].values())
        + _card("curves", "Consistency over time", drawings["curve"].values()),
        "pictures": _card("pictures", "Worst and best", pictures),
        "classes": _card("classes", "Classes", class_parts(board, drawings["classes"])),
        "clips": _card("clips", "Clips", clip_parts(board, drawings["clips"])),
        "work": _work(board.work),
        "made": _made(board),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], _page_source("page.html"))


def _page_source(name: str, package: str = __package__) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _card(card_id: str, title: str, parts: Iterable[str]) -> str:
    content = "".join(parts)
    if not content:
        return ""
    return (
        f'<section class="card" id="{card_id}" aria-labelledby="h-{card_id}"><h2 id="h-{card_id}">{title}</h2>'
        f"{content}</section>"
    )


def _warnings(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<section class="card warnings" id="warnings"><h2>Please note</h2><ul>{items}</ul></section>'


def _summary(board: Scoreboard) -> str:
    """Say what the refined rows gain in the first score, or which ablated points differ from the default."""
    if not board.statistics:
        return ""
    name = board.statistics[0]
    if board.axes:
        default = default_against_base(board)
        found = [row for row in board.rows if name in row.differences and row is not default]
        sure = [row.name for row in found if row.differences[name].is_clear]
        listed = f": {', '.join(sure)}" if 0 < len(sure) <= 6 else ""
        points = f"{len(sure)} of {counted(len(found), 'point')}"
        gain = true_minus(difference_text(default.differences.get(name))) if default else ""
        first = f"The default differs from the base labels in {name} by {gain}. " if default else ""
        return f"{first}{points} differ from the default in {name} by an interval that leaves out zero{listed}."
    sentences = [
        f"{row.name}: {name} {percent(base.scores.get(name))} \N{RIGHTWARDS ARROW} "
        f"{percent(row.scores.get(name))} %, {true_minus(difference_text(row.differences[name]))}."
        for base, row in compared_rows(board)
        if name in row.differences
    ]
    return " ".join(sentences[:4])


# ---- scores


def _score_cards(board: Scoreboard, drawings: Mapping[str, str]) -> str:
    """Return one card with all base models, or one for every ablated setting with its plot, by the setting's name."""
    sections = find_sections(board)
    if not board.axes:
        table = _score_table(board, sections, "board-scores")
        return _card("compared", "Scores", [table, _score_notes(board)])
    cards = []
    for number, section in enumerate(sections):
        parts = [_score_table(board, [section], f"scores-{number}"), drawings.get(section.title, "")]
        cards.append(_card(f"axis-{number}", escape(section.title), parts))
    return "".join(cards) + f'<section class="card">{_score_notes(board)}</section>'


def _score_notes(board: Scoreboard) -> str:
    notes = ["Scores are percent; the best of a group is bold."]
    if any(row.differences for row in board.rows):
        has_intervals = any(found.interval for found in defined_differences(board))
        colored = " Coloured where the interval leaves out zero." if has_intervals else ""
        notes.append(f"Small: {differences_caption(board)}.{colored}")
    notes += [f"{DAGGER} Copied from {source}; not computed here." for source in published_sources(board)]
    return "".join(f'<p class="hint">{escape(note)}</p>' for note in notes)


def _score_table(board: Scoreboard, sections: Sequence[Section], table_id: str) -> str:
    first = sections[0].head if len(sections) == 1 else "labels"
    heads = [first, *(f"{name} {arrow_of(name)}" for name in board.statistics)]
    rows = []
    for section in sections:
        if len(sections) > 1:
            rows.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(heads)}">{escape(section.title)}</th></tr>'
            )
        for entry in section.entries:
            rows += _score_lines(board, section, entry)
    return html_table(heads, rows, "Percent", table_id, "numbers")


def _score_lines(board: Scoreboard, section: Section, entry: Entry) -> Iterator[str]:
    """Yield the line of a row, with differences and what it took in small print, and that of its published figures."""
    row = entry.row
    cells = []
    for name in board.statistics:
        text = percent(row.scores.get(name))
        text = f"<b>{text}</b>" if entry.label in section.best(name) else text
        found = row.differences.get(name)
        shown = found if shows_difference(board, entry) else None
        cells.append(text if shown is None else text + _difference(board, name, shown))
    took = [f"{fact_text(row.facts, name)}{unit}" for name, unit in _FACT_UNITS.items() if name in row.facts]
    notes = ["default"] * entry.is_default + took
    small = f'<small class="same">{", ".join(notes)}</small>' if notes else ""
    yield html_line(f'<span class="dot {row.kind}"></span>{escape(entry.label)}{small}', cells)
    if row.published:
        values = row.published.values
        copied = [percent(values[name]) if name in values else "" for name in board.statistics]
        yield html_line(f"published{DAGGER}", copied, "published")


def _difference(board: Scoreboard, statistic: str, found: PairedDifference) -> str:
    """Return a difference in small print, coloured only where its interval leaves out zero."""
    is_gain = (found.difference > 0) != (statistic in LOWER_IS_BETTER)
    kind = ("good" if is_gain else "bad") if found.is_clear else "same" if found.interval else "same alone"
    number, opening, interval = true_minus(difference_cell(board, found)).partition(" [")
    sure = f" <span>[{interval}</span>" if opening else ""  # goes below the number where columns are many
    return f'<small class="{kind}">{number}{sure}</small>'


# ---- how it was made


def _work(work: Mapping[str, tuple[int, int]]) -> str:
    if not work:
        return ""
    rows = [
        html_line(
            escape(kind),
            [f"{done:,}", f"{needed:,}", f"{needed / done:.1f}\N{MULTIPLICATION SIGN}" if done else UNDEFINED],
        )
        for kind, (done, needed) in work.items()
    ]
    table = html_table(
        ["work", "done", "separate runs", "ratio"], rows, "Separate runs of every row would need", "", "numbers"
    )
    return _card("work", "What the shared work saved", [table])


def _made(board: Scoreboard) -> str:
    """Return the commands, settings and versions behind the rows."""
    parts = [f"<pre><code>{escape(board.command)}</code></pre>"] if board.command else []
    rows = []
    for row in board.rows:
        settings = ", ".join(f"{name} {setting_text(value)}" for name, value in row.settings.items())
        command = f"<code>{escape(row.command)}</code>" if row.command else UNDEFINED
        rows.append(html_line(escape(row.name), [escape(settings) or UNDEFINED, command]))
    parts.append(html_table(["labels", "settings", "command"], rows, "How every row was made", "made", "made"))
    if board.versions:
        lines = [html_line(escape(name), [escape(text)]) for name, text in board.versions.items()]
        parts.append(html_table(["name", "version"], lines, "Versions"))
    return _card("how", "How it was made", parts)
