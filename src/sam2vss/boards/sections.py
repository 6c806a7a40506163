"""Which rows of a board stand together in its tables and plots, and what a single cell says.

Used by everything that shows a `Scoreboard`, so that a terminal, a paper and a page say the same. Scores are fractions
here and percent in the texts; differences are percentage points with sign.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..metrics import FEW_CLIPS, PairedDifference
from .scoreboard import Axis, BoardRow, Scoreboard, Setting

UNDEFINED: Final = "\N{EN DASH}"
DAGGER: Final = "\N{DAGGER}"  # marks figures that are copied, not computed
KINDS: Final = ("base", "control", "refined", "other")  # order within a base model
# Shares of what went wrong: the only scores of ours where less is better.
LOWER_IS_BETTER: Final = frozenset({"flip_rate", "switch_rate", "switching_masklets", "unlabelled_share"})


@dataclass(frozen=True)
class Entry:
    """One line of a section.

    Attributes:
        label: Name of the row here: its own, or the value of an ablated setting.
        row: The row.
        is_default: Whether the differences of its section are against this row.
    """

    label: str
    row: BoardRow
    is_default: bool = False


@dataclass(frozen=True)
class Section:
    """Rows that are compared with each other: those of one base model, or those along one ablated setting.

    Attributes:
        title: What they have in common.
        head: Head of the column with their labels.
        entries: In order; not empty.
        axis: The axis that they lie on, None for rows of a base model.
    """

    title: str
    head: str
    entries: tuple[Entry, ...]
    axis: Axis | None = None

    @property
    def rows(self) -> tuple[BoardRow, ...]:
        """The rows without their labels."""
        return tuple(entry.row for entry in self.entries)

    def best(self, statistic: str) -> frozenset[str]:
        """Return the labels of the best rows by that score; rows that look equal in print share the place.

        Empty when fewer than two rows have the score, or when all look equal.
        """
        shown = {
            entry.label: percent(value)
            for entry in self.entries
            if (value := entry.row.scores.get(statistic)) is not None
        }
        if len(set(shown.values())) < 2:
            return frozenset()
        choose = min if statistic in LOWER_IS_BETTER else max
        best = choose(shown.values(), key=float)
        return frozenset(label for label, text in shown.items() if text == best)


def find_sections(board: Scoreboard) -> tuple[Section, ...]:
    """Group the rows: along the axes of an ablation, else by base model with the base first and the refined last.

    Every row of the board is in at least one section; the default of an ablation is in many.
    """
    on_axes = {name for axis in board.axes for name in axis.rows}
    rest = [row for row in board.rows if row.name not in on_axes]
    if not board.axes:
        return tuple(_model_section(model, board.of_model(model)) for model in board.models)
    not_refined = [row for row in rest if row.kind in ("base", "control")]
    others = [row for row in rest if row.kind not in ("base", "control")]
    sections = [_axis_section(axis, board) for axis in board.axes if axis.rows]
    if not_refined:
        sections.insert(0, Section("For comparison", "labels", _entries(not_refined)))
    if others:
        sections.append(Section("Other points", "settings", _entries(others)))
    return tuple(sections)


def _model_section(model: str, rows: Sequence[BoardRow]) -> Section:
    return Section(model, "labels", _entries(sorted(rows, key=lambda row: KINDS.index(row.kind))))


def _entries(rows: Iterable[BoardRow]) -> tuple[Entry, ...]:
    return tuple(Entry(row.name, row) for row in rows)


def _axis_section(axis: Axis, board: Scoreboard) -> Section:
    entries = tuple(
        Entry(setting_text(value), board.row(name), axis.default is not None and value == axis.default)
        for value, name in zip(axis.values, axis.rows, strict=True)
    )
    return Section(axis.title or axis.setting, axis.setting, entries, axis)


def arrow_of(statistic: str) -> str:
    """Return the arrow that says in which direction a score gets better."""
    return "\N{DOWNWARDS ARROW}" if statistic in LOWER_IS_BETTER else "\N{UPWARDS ARROW}"


def setting_text(value: Setting) -> str:
    """Say a value of a setting as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def percent(value: float | None, digits: int = 2) -> str:
    """Say a fraction in percent, an undefined one as an en dash."""
    return UNDEFINED if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Say a difference of fractions in percentage points with its sign, e.g. "+1.20", "-0.05", "0.00"."""
    if math.isnan(value):
        return UNDEFINED
    points = round(100 * value, digits)
    return f"{points:+.{digits}f}" if points else f"{0:.{digits}f}"  # no minus zero


def true_minus(text: str) -> str:
    """Return a number's text with a minus sign in place of the hyphen, for pages."""
    return text.replace("-", "\N{MINUS SIGN}")


def interval_text(difference: PairedDifference) -> str:
    """Say the 95 % interval, or why there is none: "[+0.40, +2.10]", "1 clip, no interval"."""
    if difference.interval is None:
        return f"{counted(difference.clips, 'clip')}, no interval"
    low, high = difference.interval
    return f"[{signed(low)}, {signed(high)}]"


def difference_text(difference: PairedDifference | None, with_clips: bool = False) -> str:
    """Say a difference with its interval: "+1.20 [+0.40, +2.10]", "+1.20 (1 clip, no interval)".

    Args:
        difference: None where a row has no difference in a score.
        with_clips: Whether to add the number of clips, for tables whose caption cannot name one for all.
    """
    if difference is None or math.isnan(difference.difference):
        return UNDEFINED
    if difference.interval is None:
        return f"{signed(difference.difference)} ({interval_text(difference)})"
    clips = f", {counted(difference.clips, 'clip')}" if with_clips else ""
    return f"{signed(difference.difference)} {interval_text(difference)}{clips}"


def difference_cell(board: Scoreboard, found: PairedDifference | None) -> str:
    """Say a difference of a board in a cell whose table has `differences_caption`.

    The number alone where all are over one clip, because the caption says that there is no interval; with the number of
    clips where rows have different ones.
    """
    clips = shared_clips(board)
    if clips == 1 and found is not None:
        return signed(found.difference)
    return difference_text(found, with_clips=clips is None)


def defined_differences(board: Scoreboard) -> list[PairedDifference]:
    """Return every difference of the board that is a number."""
    return [found for row in board.rows for found in row.differences.values() if not math.isnan(found.difference)]


def shared_clips(board: Scoreboard) -> int | None:
    """Return the number of clips behind all differences, None if they differ or there are none."""
    numbers = {found.clips for found in defined_differences(board)}
    return numbers.pop() if len(numbers) == 1 else None


def default_against_base(board: Scoreboard) -> BoardRow | None:
    """Return the default of an ablation where it is compared with base labels: the one row that differs from them."""
    bases = {row.name for row in board.rows if row.kind == "base"}
    rows = board.rows if board.axes else ()
    return next((row for row in rows if row.differences and row.against in bases), None)


def shows_difference(board: Scoreboard, entry: Entry) -> bool:
    """Tell whether a line has differences to stand beside it; the default's, from the base labels, stand apart."""
    return bool(entry.row.differences) and not entry.is_default and entry.row is not default_against_base(board)


def differences_caption(board: Scoreboard) -> str:
    """Say what the differences of a board are against and how sure they are."""
    default = default_against_base(board)
    compared = [row for row in board.rows if row is not default] if default else board.rows
    against = {row.against for row in compared if row.differences and row.against is not None}
    is_base = bool(against) and all(row.kind == "base" for row in board.rows if row.name in against)
    source = "the base" if is_base else next(iter(against)) if len(against) == 1 else "the row named"
    clips = shared_clips(board)
    if clips == 1:
        sure = "1 clip, no interval"
    elif clips is None:
        sure = "95 % intervals of a paired bootstrap over clips"
    else:
        sure = f"95 % intervals of a paired bootstrap over {clips} clips"
        sure += " (so few that they are too narrow)" if clips < FEW_CLIPS else ""
    return f"Differences from {source} in percentage points; {sure}"


def published_sources(board: Scoreboard) -> tuple[str, ...]:
    """Return where the published figures of a board were copied from, each once."""
    return tuple(dict.fromkeys(row.published.source for row in board.rows if row.published))


def board_notes(board: Scoreboard) -> tuple[str, ...]:
    """Return what a reader of any table of the board must know, one sentence each: faults first."""
    note, name = board.protocol_note, f"Protocol {board.protocol}"
    notes = [note if note.startswith(name) else f"{name}: {note}"] if note else []
    return (*notes, *board.warnings)


def known_facts(rows: Iterable[BoardRow]) -> dict[str, str]:
    """Return heads by name of the facts that at least one row tells."""
    heads = {"masklets": "masklets", "coverage": "coverage", "seconds": "s a frame"}
    found = {name for row in rows for name in row.facts}
    return {name: head for name, head in heads.items() if name in found}


def fact_text(facts: Mapping[str, float], name: str) -> str:
    """Say a fact in its unit; one that is not known stays empty."""
    value = facts.get(name)
    if value is None:
        return ""
    return {"masklets": f"{value:.1f}", "coverage": f"{100 * value:.1f}"}.get(
        name, f"{value:.{2 if value >= 0.1 else 3}f}"
    )


def counted(number: int, noun: str) -> str:
    """Say how many, e.g. "1 clip", "6 clips"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe(board: Scoreboard) -> str:
    """Say on what the board was scored, e.g. "camvid val, protocol vspw, 6 clips, 184 frames"."""
    counts = f"{counted(board.clips, 'clip')}, {counted(board.frames, 'frame')}"
    return f"{board.dataset}, protocol {board.protocol}, {counts}"
