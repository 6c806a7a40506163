"""Tables as HTML, the same on all pages: cells with a heading for every line, in a box that scrolls."""

from collections.abc import Iterable, Sequence
from html import escape


def html_line(head: str, cells: Iterable[str], kind: str = "") -> str:
    """Return a line of a table; head and cells are HTML already, a cell may bring its own `td`."""
    attribute = f' class="{kind}"' if kind else ""
    body = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells)
    return f'<tr{attribute}><th scope="row">{head}</th>{body}</tr>'


def html_table(heads: Sequence[str], lines: Iterable[str], caption: str, table_id: str = "", kind: str = "") -> str:
    """Return a table.

    Args:
        heads: Of the columns, as plain text.
        lines: HTML, as `html_line` gives it.
        caption: Plain text.
        table_id: Its id on the page.
        kind: Its classes.
    """
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    attributes = (f' id="{table_id}"' if table_id else "") + (f' class="{kind}"' if kind else "")
    box = "scroll tall" if "sortable" in kind else "scroll"
    label = escape(caption)
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{label}"><table{attributes}>'
        f"<caption>{label}</caption><thead><tr>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
