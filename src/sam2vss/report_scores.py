"""Scores on the page about a run, from `scores.json`.

Base, refined and further labels, the difference of the first two with its interval, and classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from .page_tables import html_line, html_table
from .report_data import counted, to_number
from .report_labels import LabelWords
from .types import LabelSpace

HEADLINE_SCORES: Final = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
NOT_FURTHER: Final = ("base", "refined", "difference")  # all other entries of scores.json are further labels
UNKNOWN: Final = "\N{EN DASH}"


def percent(value: float | None, digits: int = 2) -> str:
    """Say a fraction in percent, an unknown one as an en dash."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f}"


def _scores_of(scores: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    entry = scores.get(part)
    inner = entry.get("scores") if isinstance(entry, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def score_pair(scores: Mapping[str, Any], name: str) -> tuple[float | None, float | None]:
    """Return a score of the base and of the refined labels, None where it is not known."""
    base, refined = (to_number(_scores_of(scores, part).get(name)) for part in ("base", "refined"))
    return base, refined


def _difference(before: float | None, after: float | None) -> str:
    """Return the gain in percentage points with sign and colour; higher is better in all our scores."""
    if before is None or after is None:
        return UNKNOWN
    points = round(100 * (after - before), 2) + 0.0  # no minus zero
    kind = "good" if points > 0 else "bad" if points < 0 else "same"
    text = f"{points:+.2f}".replace("-", "\N{MINUS SIGN}") if points else "0.00"
    return f'<span class="{kind}">{text}</span>'


@dataclass(frozen=True)
class ScoredLabels:
    """A line of the table of scores.

    Attributes:
        name: What the labels are called.
        tone: Their colour, a class of report_page.css; "" for none.
        values: Finite scores by name, as fractions.
        is_further: Whether these are not the run's own labels.
    """

    name: str
    tone: str
    values: Mapping[str, float]
    is_further: bool = False

    @property
    def head(self) -> str:
        """Return the heading of the line as HTML."""
        dot = f'<span class="dot {self.tone}"></span>' if self.tone else ""
        return f"{dot}{escape(self.name)}"


def _scored_labels(
    scores: Mapping[str, Any], words: LabelWords, tones: Mapping[str, str]
) -> tuple[list[ScoredLabels], list[str]]:
    """Return the run's own labels, then all others in file order, and the entries that hold no scores."""

    def line(part: str, name: str, tone: str, is_further: bool = False) -> ScoredLabels:
        values = {score: to_number(value) for score, value in _scores_of(scores, part).items()}
        known = {score: value for score, value in values.items() if value is not None}
        return ScoredLabels(name, tone, known, is_further)

    own = [line("base", "base", "base")] if words.has_base else []
    own.append(line("refined", words.result, "refined"))
    further = [line(part, part, tones.get(part, ""), True) for part in scores if part not in NOT_FURTHER]
    return own + [labels for labels in further if labels.values], [each.name for each in further if not each.values]


def score_card(scores: Mapping[str, Any], words: LabelWords, tones: Mapping[str, str]) -> str:
    """Return the table of scores as a card, empty without scores.

    Args:
        scores: `scores.json`. Entries besides base and refined get a line each if they have the same form; those that
            have not are named below the table.
        words: How the page speaks of the run's labels.
        tones: Colours of further labels by name.
    """
    lines, left_out = _scored_labels(scores, words, tones)
    names = list(dict.fromkeys(name for labels in lines for name in labels.values))
    main = [name for name in names if name in HEADLINE_SCORES] or names
    more = [name for name in names if name not in main]
    content = ""
    if main:
        content = _score_table(scores, lines, main, words)
    if more:
        content += f"<details><summary>{counted(len(more), 'further score')}</summary>"
        content += f"{_further_score_table(scores, lines, more, words)}</details>"
    if left_out:
        content += (
            f'<p class="hint">Left out of scores.json, as they hold no scores: {escape(", ".join(left_out))}.</p>'
        )
    if not content:
        return ""
    return f'<section class="card" aria-labelledby="h-scores"><h2 id="h-scores">Scores</h2>{content}</section>'


def _gain(scores: Mapping[str, Any], name: str) -> str:
    return _difference(*score_pair(scores, name)) + _interval(scores, name)


def _gain_head(lines: Sequence[ScoredLabels], words: LabelWords) -> str:
    """Call the difference by what it is of, where there are more than two lines."""
    return "difference" if len(lines) == 2 else f"{words.result} \N{MINUS SIGN} base"


def _score_table(
    scores: Mapping[str, Any], lines: Sequence[ScoredLabels], names: Sequence[str], words: LabelWords
) -> str:
    """Return the headline scores: a line for each label set, then what was gained over the base labels."""
    rows = [
        html_line(
            labels.head,
            [percent(labels.values.get(name)) for name in names],
            kind="further" if labels.is_further else "",
        )
        for labels in lines
    ]
    if words.has_base:
        rows.append(html_line(_gain_head(lines, words), [_gain(scores, name) for name in names]))
    caption = f"In percent; higher is better. {_sureness(scores, names)}".strip()
    return html_table(["", *names], rows, caption, "scores")


def _further_score_table(
    scores: Mapping[str, Any], lines: Sequence[ScoredLabels], names: Sequence[str], words: LabelWords
) -> str:
    """Return all other scores, a line each."""
    rows = []
    for name in names:
        cells = [percent(labels.values.get(name)) for labels in lines]
        rows.append(html_line(escape(name), [*cells, _gain(scores, name)] if words.has_base else cells))
    gain = [_gain_head(lines, words)] if words.has_base else []
    heads = ["score", *(labels.name for labels in lines), *gain]
    return html_table(heads, rows, "In percent; higher is better", "more-scores")


def _interval_of(scores: Mapping[str, Any], name: str) -> tuple[float, float, int] | None:
    """Return low and high end and number of clips of a difference, as far as `scores.json` holds them."""
    entries = scores.get("difference")
    entry = entries.get(name) if isinstance(entries, Mapping) else None
    if not isinstance(entry, Mapping):
        return None
    low, high, clips = (to_number(entry.get(key)) for key in ("low", "high", "clips"))
    return None if low is None or high is None or clips is None else (low, high, int(clips))


def _interval(scores: Mapping[str, Any], name: str) -> str:
    """Return the 95 % interval of a difference in small print, nothing where it is not known."""
    found = _interval_of(scores, name)
    if found is None:
        return ""
    low, high = (f"{round(100 * end, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}") for end in found[:2])
    return f' <small class="interval">[{low}, {high}]</small>'


def _sureness(scores: Mapping[str, Any], names: Iterable[str]) -> str:
    """Say over how many clips the differences of the table are, and that one clip gives no interval."""
    if not any(None not in score_pair(scores, name) for name in names):
        return ""
    clips = {found[2] for name in names if (found := _interval_of(scores, name)) is not None}
    if len(clips) == 1:
        return f"In brackets: 95 % interval, {counted(clips.pop(), 'clip')}"
    if clips:
        return f"In brackets: 95 % intervals, {min(clips)} to {max(clips)} clips"
    number = _num_scored_clips(scores)
    if number is None:
        return "Differences without an interval"
    return f"Differences: {counted(number, 'clip')}, no interval" + (" stored" if number > 1 else "")


def _num_scored_clips(scores: Mapping[str, Any]) -> int | None:
    """Return how many clips the scores are over: what the differences say, else the videos listed one by one."""
    entries = scores.get("difference")
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        clips = to_number(entry.get("clips")) if isinstance(entry, Mapping) else None
        if clips is not None:
            return int(clips)
    refined = scores.get("refined")
    videos = refined.get("per_video") if isinstance(refined, Mapping) else None
    return len(videos) if isinstance(videos, Mapping) and videos else None


def _class_ious(scores: Mapping[str, Any], part: str, label_space: LabelSpace) -> dict[str, float | None]:
    """Return IoU by class name from `per_class`: {name: IoU}, {name: {"IoU": ...}} or {"IoU": either list or names}."""
    entry = scores.get(part)
    content = entry.get("per_class") if isinstance(entry, Mapping) else None
    if isinstance(content, Mapping):
        content = next((content[key] for key in ("IoU", "iou") if key in content), content)
    if isinstance(content, list):
        content = dict(zip(label_space.names, content, strict=False))
    ious = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        inner = value.get("IoU", value.get("iou")) if isinstance(value, Mapping) else value
        ious[str(name)] = to_number(inner)
    return ious


def class_card(scores: Mapping[str, Any], label_space: LabelSpace, words: LabelWords) -> str:
    """Return a card with a pair of bars a class, one bar without base labels.

    Classes without a score on either side are counted, not drawn.
    """
    base, refined = (_class_ious(scores, part, label_space) for part in ("base", "refined"))
    names = {"base": "base", "refined": words.result} if words.has_base else {"refined": words.result}
    colors = dict(zip(label_space.names, label_space.palette.tolist(), strict=True))
    rows, absent = [], 0
    for name in dict.fromkeys([*base, *refined]):
        before, after = base.get(name), refined.get(name)
        if before is None and after is None:
            absent += 1
            continue
        red, green, blue = colors.get(name, (128, 128, 128))
        bars = "".join(
            f'<span class="bar"><i class="{part}" style="width:{100 * min(1.0, max(0.0, value or 0.0)):.2f}%"></i>'
            f"<b>{percent(value, 1)}</b></span>"
            for part, value in (("base", before), ("refined", after))
            if part in names
        )
        rows.append(
            f'<li><span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
            f'<span class="class-name">{escape(name)}</span><span class="bars">{bars}</span>'
            f"{_difference(before, after) if words.has_base else ''}</li>"
        )
    if not rows:
        return ""
    key = " ".join(f'<span class="dot {part}"></span>{name}' for part, name in names.items())
    note = f'<p class="hint">{counted(absent, "class")} without a single pixel not listed.</p>' if absent else ""
    return (
        '<section class="card" aria-labelledby="h-classes"><h2 id="h-classes">IoU per class <small>'
        f"{key}, percent</small></h2>"
        f'<ul id="class-scores">{"".join(rows)}</ul>{note}</section>'
    )
