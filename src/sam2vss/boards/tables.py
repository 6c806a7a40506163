"""Scores of a board as text: tables for the terminal, Markdown, and CSV for further work.

The first table of every form holds the scores; differences follow, each with its 95 % interval. Figures that were
copied from a publication carry a dagger and stand on lines of their own.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .scoreboard import BoardRow, Scoreboard
from .sections import (
    DAGGER,
    UNDEFINED,
    Entry,
    Section,
    arrow_of,
    board_notes,
    default_against_base,
    describe,
    difference_cell,
    differences_caption,
    fact_text,
    find_sections,
    known_facts,
    percent,
    published_sources,
    shows_difference,
)

CSV_HEADER = (
    *("dataset", "protocol", "model", "row", "kind", "against", "score", "value"),
    *("difference", "low", "high", "clips", "published", "published_source"),
)
_LABEL_WIDTH = 30  # longer labels fold
_SHORT_HEADS = {"boundary_IoU_2px": "BIoU 2px", "boundary_IoU_2pct": "BIoU 2%", "boundary_F": "F"}  # in terminals
_FRAME = 3  # columns between two cells
_DEFAULT_LABEL = "default - base"  # does refining help at all?


@dataclass(frozen=True)
class TextTable:
    """A table as `console.print_rows` takes it.

    Attributes:
        title: What it shows.
        rows: Cells; the first row is the header.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]


def rich_rows(board: Scoreboard, width: int = 80) -> tuple[TextTable, ...]:
    """Return the tables to print in a terminal: scores, then differences with intervals, then what rows took.

    Wide tables are cut into several of fewer columns. An ablation shows the differences of as many scores as fit into
    one table, the first and the last of the board's before the others; the stored files hold them all.

    Args:
        board: What to show.
        width: Columns of the terminal.
    """
    sections = find_sections(board)
    tables = [*_score_tables(board, sections, width)]
    if any(entry.row.differences for section in sections for entry in section.entries):
        tables += _difference_tables(board, sections, width)
    facts = known_facts(board.rows)
    if facts and board.kind == "bench":
        rows = [(row.name, *(fact_text(row.facts, name) for name in facts)) for row in board.rows if row.facts]
        tables.append(TextTable("What it took", (("labels", *facts.values()), *rows)))
    return tuple(tables)


def _score_tables(board: Scoreboard, sections: Sequence[Section], width: int) -> Iterator[TextTable]:
    """Yield the scores of all base models, or of every ablated setting, in tables that fit into the width."""
    caption = f"{describe(board)}; percent"
    sources = published_sources(board)
    caption += f"; {DAGGER} copied from {'; '.join(sources)}" if sources and board.kind == "bench" else ""
    if board.axes:
        for section in sections:
            rows = list(_score_rows(section, board.statistics))
            copied = dict.fromkeys(row.published.source for row in section.rows if row.published)
            source = f"; {DAGGER} copied from {'; '.join(copied)}" if copied else ""
            yield from _split(f"{section.title}; percent{source}", section.head, board.statistics, rows, width)
        return
    rows = []
    for section in sections:
        rows += [("",) * (1 + len(board.statistics))] if rows else []
        rows += _score_rows(section, board.statistics)
    yield from _split(caption, "labels", board.statistics, rows, width)


def _split(
    title: str, label: str, statistics: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[TextTable]:
    """Yield a table, cut into several of as many scores as the width allows; the labels stand in each."""
    heads = [_short_head(name) for name in statistics]
    widest = max((len(cell) for row in (heads, *(row[1:] for row in rows)) for cell in row), default=0)
    room = _room(width, [label, *(row[0] for row in rows)], widest)
    for start in range(0, max(1, len(heads)), room):
        chunk = slice(start, start + room)
        cut = [(row[0], *row[1:][chunk]) for row in rows]
        if len(heads) > room:  # a line of figures that were not published says nothing in this part
            cut = [line for line, row in zip(cut, rows, strict=True) if any(line[1:]) or not any(row[1:])]
        yield TextTable(title, ((label, *heads[chunk]), *cut))


def _room(width: int, labels: Sequence[str], widest: int) -> int:
    """Return how many columns fit beside the labels."""
    taken = min(_LABEL_WIDTH, max(map(len, labels), default=0))
    return max(1, (width - taken - _FRAME - 1) // (widest + _FRAME))


def _short_head(statistic: str) -> str:
    return _SHORT_HEADS.get(statistic, statistic)


def _score_rows(section: Section, statistics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for entry in section.entries:
        label = f"{entry.label} (default)" if entry.is_default else entry.label
        yield (label, *(percent(entry.row.scores.get(name)) for name in statistics))
        if entry.row.published:
            yield (f"  published{DAGGER}", *_published_cells(entry.row, statistics))


def _published_cells(row: BoardRow, statistics: Sequence[str]) -> list[str]:
    values = row.published.values if row.published else {}
    return [percent(values[name]) if name in values else "" for name in statistics]


def _difference_tables(board: Scoreboard, sections: Sequence[Section], width: int) -> Iterator[TextTable]:
    """Yield tables with as many scores side by side as the width allows."""
    found = [(section, entry) for section in sections for entry in section.entries if shows_difference(board, entry)]
    compared = [(_difference_label(section, entry.label), entry.row) for section, entry in found]
    if default := default_against_base(board):
        compared.insert(0, (_DEFAULT_LABEL, default))
    cells = {
        name: [difference_cell(board, row.differences.get(name)) for _, row in compared] for name in board.statistics
    }
    texts = [text for name, column in cells.items() for text in (_short_head(name), *column)]
    room = _room(width, ["labels", *(label for label, _ in compared)], max(map(len, texts), default=0))
    names = list(board.statistics)
    if board.axes and names:
        kept = list(dict.fromkeys([names[0], names[-1], *names]))[:room]
        names = [name for name in names if name in kept]
    for start in range(0, len(names), room):
        chunk = names[start : start + room]
        rows = [(label, *(cells[name][i] for name in chunk)) for i, (label, _) in enumerate(compared)]
        yield TextTable(differences_caption(board), (("labels", *map(_short_head, chunk)), *rows))


def _difference_label(section: Section, label: str) -> str:
    return f"{section.head} {label}" if section.axis else label


def to_markdown(board: Scoreboard, heading: int = 0) -> str:
    """Return everything that tables can say as Markdown: notes, scores, differences, work saved, commands.

    Args:
        board: What to show.
        heading: Level of a heading with the board's title; 0 for none, e.g. inside another page.
    """
    sections = find_sections(board)
    parts = [f"{'#' * heading} {_markdown(board.title)}"] if heading else []
    parts.append(f"Scored on {_markdown(describe(board))}. Scores are percent.")
    parts += [f"**{_markdown(note)}**" for note in board_notes(board)]
    if board.axes:
        parts += [part for section in sections for part in _markdown_axis(board, section)]
        parts.append(f"{_markdown(differences_caption(board))}.")
        if default := default_against_base(board):
            cells = [difference_cell(board, default.differences.get(name)) for name in board.statistics]
            parts.append("What the default settings gain over the base labels, in percentage points:")
            heads = ["labels", *map(_arrowed, board.statistics)]
            parts.append(_markdown_table(heads, [[_markdown(_DEFAULT_LABEL), *cells]]))
    else:
        parts.append(_markdown_scores(board, sections))
        if any(row.differences for row in board.rows):
            parts += [f"{_markdown(differences_caption(board))}:", _markdown_differences(board, sections)]
    parts += [f"{DAGGER} copied from {_markdown(source)}; not computed here." for source in published_sources(board)]
    if board.versions:
        parts.append(f"Made with {_markdown(', '.join(' '.join(item) for item in board.versions.items()))}.")
    if board.work:
        parts += ["What the shared work saved:", _markdown_work(board)]
    parts += _markdown_commands(board)
    return "\n\n".join(parts) + "\n"


def _markdown_scores(board: Scoreboard, sections: Sequence[Section]) -> str:
    facts = known_facts(board.rows)
    heads = ["labels", *map(_arrowed, board.statistics), *facts.values()]
    rows: list[Sequence[str]] = []
    for section in sections:
        if len(sections) > 1:
            rows.append([f"**{_markdown(section.title)}**", *[""] * (len(heads) - 1)])
        for entry in section.entries:
            rows += _markdown_entry(section, entry, board.statistics, list(facts))
            if entry.row.kind in ("refined", "other") and entry.row.differences:
                cells = [difference_cell(board, entry.row.differences.get(name)) for name in board.statistics]
                rows.append(["*difference*", *cells, *[""] * len(facts)])
    return _markdown_table(heads, rows)


def _markdown_entry(
    section: Section, entry: Entry, statistics: Sequence[str], facts: Sequence[str]
) -> Iterator[Sequence[str]]:
    """Yield the line of a row, the best scores of its section in bold, and the line of its published figures."""
    row = entry.row
    cells = [
        f"**{percent(row.scores.get(name))}**" if entry.label in section.best(name) else percent(row.scores.get(name))
        for name in statistics
    ]
    default = " (default)" if entry.is_default else ""
    yield [_markdown(entry.label) + default, *cells, *(fact_text(row.facts, name) for name in facts)]
    if row.published:
        yield [f"*published{DAGGER}*", *_published_cells(row, statistics), *[""] * len(facts)]


def _markdown_axis(board: Scoreboard, section: Section) -> Iterator[str]:
    """Yield the title of an ablated setting and its table; differences stand in the cells, below the scores."""
    facts = known_facts(entry.row for entry in section.entries)
    yield f"**{_markdown(section.title)}**"
    rows: list[Sequence[str]] = []
    for entry in section.entries:
        rows += _markdown_entry(section, entry, board.statistics, list(facts))
        if shows_difference(board, entry):
            cells = [difference_cell(board, entry.row.differences.get(name)) for name in board.statistics]
            rows.append(["*difference*", *cells, *[""] * len(facts)])
    yield _markdown_table([_markdown(section.head), *map(_arrowed, board.statistics), *facts.values()], rows)


def _markdown_differences(board: Scoreboard, sections: Sequence[Section]) -> str:
    rows = [
        [
            _markdown(entry.label),
            _markdown(entry.row.against or UNDEFINED),
            *(difference_cell(board, entry.row.differences.get(name)) for name in board.statistics),
        ]
        for section in sections
        for entry in section.entries
        if entry.row.differences
    ]
    return _markdown_table(["labels", "against", *map(_arrowed, board.statistics)], rows)


def _markdown_work(board: Scoreboard) -> str:
    rows = [
        [_markdown(kind), f"{done}", f"{needed}", f"{needed / done:.1f}x" if done else UNDEFINED]
        for kind, (done, needed) in board.work.items()
    ]
    return _markdown_table(["work", "done", "separate runs", "ratio"], rows)


def _markdown_commands(board: Scoreboard) -> list[str]:
    """Return the command of the board and, where rows have commands of their own, one block with those."""
    parts = [_fenced([board.command])] if board.command else []
    commands: dict[str, list[str]] = {}
    for row in board.rows:
        if row.command and row.command != board.command:
            commands.setdefault(row.command, []).append(row.name)
    lines = [line for command, names in commands.items() for line in (f"# {', '.join(names)}", command)]
    return [*parts, _fenced(lines)] if lines else parts


def _fenced(lines: Iterable[str]) -> str:
    """Return a block of code that no line of it can end."""
    text = "\n".join(" ".join(line.split()) for line in lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def _markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|".join(["---", *["---:"] * (len(heads) - 1)])
    return "\n".join([f"| {' | '.join(heads)} |", f"|{rule}|", *lines])


def _markdown(text: str) -> str:
    """Escape text from outside for a line of Markdown or a cell of its tables."""
    text = re.sub(r"([\\`*\[\]<>|~&#])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # an underscore inside a word starts nothing


def _arrowed(statistic: str) -> str:
    return f"{_markdown(statistic)} {arrow_of(statistic)}"


def to_csv(board: Scoreboard) -> str:
    """Return one line a row and score, fractions in full precision, undefined and unknown ones empty.

    Columns: `CSV_HEADER`. `difference`, `low`, `high` are the difference from the row `against` and the ends of its
    95 % interval over `clips` clips; `published` is copied from `published_source`, not computed.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for section in _all_rows(board):
        writer.writerows(_csv_lines(board, section))
    return out.getvalue()


def _all_rows(board: Scoreboard) -> Iterator[BoardRow]:
    """Yield every row once, in the order of the sections."""
    rows = {entry.row.name: entry.row for section in find_sections(board) for entry in section.entries}
    yield from rows.values()


def _csv_lines(board: Scoreboard, row: BoardRow) -> Iterator[list[str]]:
    published = row.published.values if row.published else {}
    for name in dict.fromkeys([*row.scores, *published]):
        difference = row.differences.get(name)
        low, high = difference.interval if difference and difference.interval else (None, None)
        yield [
            *(board.dataset, board.protocol, row.model, row.name, row.kind, row.against or "", name),
            _number(row.scores.get(name)),
            _number(difference.difference if difference else None),
            *(_number(low), _number(high)),
            str(difference.clips) if difference else "",
            _number(published.get(name)),
            row.published.source if row.published and name in published else "",
        ]


def _number(value: float | None) -> str:
    return "" if value is None or value != value else repr(float(value))
