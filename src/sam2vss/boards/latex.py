r"""Scores of a board as LaTeX tables for a paper; they need nothing but the package booktabs.

Percent, best scores of a group in bold, differences with their 95 % intervals, copied figures marked with a dagger.
Names come from users and files, so every text is escaped and comments cannot be left.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Final

from ..metrics import PairedDifference
from .scoreboard import BoardRow, Scoreboard
from .sections import (
    LOWER_IS_BETTER,
    UNDEFINED,
    Entry,
    Section,
    board_notes,
    describe,
    differences_caption,
    find_sections,
    interval_text,
    percent,
    shared_clips,
    shows_difference,
    signed,
)

_ESCAPES: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after a line break it would be read as an argument
    "]": "{]}",
    "*": "{*}",
    "`": r"\textasciigrave{}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{DAGGER}": r"$^\dagger$",
}
_SMALL: Final = r"{\footnotesize "


def to_latex(board: Scoreboard) -> str:
    r"""Return the tables as LaTeX source, one `table` a subject, for `\input` in a document that loads booktabs.

    Rows stand by base model, the base first and the refined last, each refined row with its difference and the
    interval below. An ablation gets one table a setting. A last table holds the differences of the controls too.
    """
    sections = find_sections(board)
    lines = [r"% \usepackage{booktabs}", *_comment(board.command)]
    if board.axes:
        for section in sections:
            lines += _table(board, [section], f"{section.title}. Scored on {describe(board)}.", with_differences=True)
        return "\n".join(lines) + "\n"
    lines += _table(board, sections, f"{board.title}. Scored on {describe(board)}.", with_differences=False)
    if any(row.kind == "control" and row.differences for row in board.rows):
        lines += _difference_table(board, sections)
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Escape text from outside; line breaks and control characters become spaces."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return "".join(_ESCAPES.get(char, char) for char in line)


def _comment(text: str) -> list[str]:
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return [f"% {line}"] if line else []


def _head(statistic: str) -> str:
    """Return the name of a score with the n of mVC_n as an index and the direction in which it gets better."""
    arrow = r"$\downarrow$" if statistic in LOWER_IS_BETTER else r"$\uparrow$"
    match = re.fullmatch(r"(mVC)(\d+)", statistic)
    name = f"{match[1]}$_{{{match[2]}}}$" if match else escape_latex(statistic)
    return f"{name} {arrow}"


def _table(board: Scoreboard, sections: Sequence[Section], caption: str, with_differences: bool) -> Iterator[str]:
    """Yield a table of scores; differences below every row that has some, or below the refined ones alone."""
    columns = len(board.statistics)
    body: list[str] = []
    for section in sections:
        if body:
            body.append(r"\midrule")
        if len(sections) > 1:
            body.append(rf"\multicolumn{{{1 + columns}}}{{l}}{{\textit{{{escape_latex(section.title)}}}}} \\")
        for entry in section.entries:
            body += _entry_lines(board, section, entry)
            if shows_difference(board, entry):
                body += _difference_lines(board, entry.row) if with_differences or _is_ours(entry.row) else []
    rows = [entry.row for section in sections for entry in section.entries]
    has_differences = any(row.differences for row in rows)
    yield from _float(board, sections[0].head if sections else "labels", body, caption, has_differences, rows)


def _is_ours(row: BoardRow) -> bool:
    return row.kind in ("refined", "other")


def _entry_lines(board: Scoreboard, section: Section, entry: Entry) -> Iterator[str]:
    best = {name for name in board.statistics if entry.label in section.best(name)}
    cells = [
        rf"\textbf{{{_score(entry.row.scores.get(name))}}}" if name in best else _score(entry.row.scores.get(name))
        for name in board.statistics
    ]
    label = escape_latex(entry.label) + (" (default)" if entry.is_default else "")
    yield _line([label, *cells])
    if entry.row.published:
        values = entry.row.published.values
        copied = [percent(values[name]) if name in values else "" for name in board.statistics]
        yield _line([r"\quad published$^\dagger$", *copied])


def _difference_lines(board: Scoreboard, row: BoardRow) -> Iterator[str]:
    """Yield a line of differences and one of intervals."""
    with_clips = shared_clips(board) is None
    found = [row.differences.get(name) for name in board.statistics]
    yield _line([r"\quad difference", *(_signed(one.difference) if one else "--" for one in found)])
    if any(one and one.interval for one in found):  # else the caption says why there is none
        cells = [_interval(one, with_clips) if one else "" for one in found]
        yield _line([rf"\quad {_SMALL}95\,\% interval}}", *cells])


def _difference_table(board: Scoreboard, sections: Sequence[Section]) -> Iterator[str]:
    body: list[str] = []
    for section in sections:
        entries = [entry for entry in section.entries if entry.row.differences]
        if body and entries:
            body.append(r"\midrule")
        for entry in entries:
            found = [entry.row.differences.get(name) for name in board.statistics]
            cells = [_signed(one.difference) if one else "--" for one in found]
            body.append(_line([escape_latex(entry.label), *cells]))
            if any(one and one.interval for one in found):
                body.append(_line(["", *(_interval(one) if one else "" for one in found)]))
    yield from _float(board, "labels", body, f"{board.title}: differences of all rows.", True, ())


def _float(
    board: Scoreboard, head: str, body: Sequence[str], caption: str, has_differences: bool, rows: Sequence[BoardRow]
) -> Iterator[str]:
    """Yield a whole table with its caption, which holds the notes as well."""
    texts = [caption, "Percent; best in bold."]
    texts += [f"{differences_caption(board)}."] if has_differences else []
    texts += list(board_notes(board))
    sources = list(dict.fromkeys(row.published.source for row in rows if row.published))
    texts += [f"\N{DAGGER} Copied from {source}; not computed by us." for source in sources]
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{escape_latex(' '.join(texts))}}}"
    yield rf"\begin{{tabular}}{{l{'r' * len(board.statistics)}}}"
    yield r"\toprule"
    yield _line([escape_latex(head), *map(_head, board.statistics)])
    yield r"\midrule"
    yield from body
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _score(value: float | None) -> str:
    text = percent(value)
    return "--" if text == UNDEFINED else text


def _signed(value: float) -> str:
    """Return a signed number with a true minus."""
    text = signed(value)
    return "--" if text == UNDEFINED else text.replace("-", "$-$")


def _interval(difference: PairedDifference, with_clips: bool = False) -> str:
    if math.isnan(difference.difference):
        return ""
    clips = f", {difference.clips} clips" if with_clips and difference.interval else ""
    text = escape_latex(f"{interval_text(difference)}{clips}")
    return f"{_SMALL}{text.replace('-', '$-$')}}}"
