"""Classes and clips of a board's page: for every refined row its plot and a table that sorts."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Final

from ...page_tables import html_line, html_table
from ..plots import compared_rows, gains_by_key
from ..scoreboard import BoardRow, Scoreboard
from ..sections import UNDEFINED, percent, signed, true_minus

_CLASS_SCORES: Final = ("IoU", "band_IoU")


def class_parts(board: Scoreboard, drawings: Mapping[str, str]) -> Iterator[str]:
    """Yield a foldable part for every refined row: the plot of its classes, by its name, and a table that sorts."""
    for base, row in compared_rows(board):
        names = [name for name in _CLASS_SCORES if gains_by_key(base.per_class, row.per_class, name)]
        if not names:
            continue
        heads = ["class", "pixels", *(text for name in names for text in (f"{name} base", f"{name} refined", "gain"))]
        lines = []
        order = list(gains_by_key(base.per_class, row.per_class, names[0]))
        order += [key for key in base.per_class if key not in order]
        for key in order:
            before, after = base.per_class[key], row.per_class.get(key, {})
            cells = [_number(before.get("pixels"), "{:,.0f}")]
            for name in names:
                cells += _pair(before.get(name), after.get(name))
            lines.append(html_line(escape(key), cells))
        table = html_table(heads, lines, "Percent; choose a head to sort", "", "numbers sortable")
        yield _details(row, base, drawings.get(row.name, "") + table)


def clip_parts(board: Scoreboard, drawings: Mapping[str, str]) -> Iterator[str]:
    """Yield a foldable part for every refined row: the plot of its clips, by its name, and a table that sorts."""
    for base, row in compared_rows(board):
        gains = {name: gains_by_key(base.per_clip, row.per_clip, name) for name in board.statistics}
        shown = [name for name in board.statistics if gains[name]]
        if not shown:
            continue
        first, *others = shown
        heads = ["clip", "frames", f"{first} base", f"{first} refined", "gain", *(f"gain {name}" for name in others)]
        lines = []
        order = list(gains[first])
        order += [clip for clip in base.per_clip if clip not in order]
        for clip in order:
            before, after = base.per_clip[clip], row.per_clip.get(clip, {})
            cells = [_number(before.get("frames"), "{:.0f}"), *_pair(before.get(first), after.get(first))]
            cells += [_pair(before.get(name), after.get(name))[2] for name in others]
            lines.append(html_line(escape(clip), cells))
        table = html_table(heads, lines, "Percent; choose a head to sort", "", "numbers sortable")
        yield _details(row, base, drawings.get(row.name, "") + table)


def _details(row: BoardRow, base: BoardRow, content: str) -> str:
    return f"<details open><summary>{escape(row.name)} over {escape(base.name)}</summary>{content}</details>"


def _number(value: float | int | None, form: str) -> str:
    if value is None:
        return f'<td data-value="">{UNDEFINED}</td>'
    return f'<td data-value="{float(value)!r}">{form.format(value)}</td>'


def _pair(before: float | int | None, after: float | int | None) -> list[str]:
    """Return cells with base, refined and gain; a class or clip alone has no interval, so gains have no colour."""
    texts = [
        f'<td data-value="{"" if value is None else repr(float(value))}">{percent(value)}</td>'
        for value in (before, after)
    ]
    if before is None or after is None:
        return [*texts, f'<td data-value="">{UNDEFINED}</td>']
    return [*texts, f'<td data-value="{float(after - before)!r}">{true_minus(signed(after - before))}</td>']
