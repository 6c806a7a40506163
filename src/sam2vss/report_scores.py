"""Scores on the page about a run: base, refined, difference with its interval, and classes; from `scores.json`."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from .page_tables import html_line, html_table
from .report_data import counted, to_number
from .types import LabelSpace

HEADLINE_SCORES: Final = ("mIoU", "wIoU", "mBIoU", "mVC8", "mVC16")
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


def score_card(scores: Mapping[str, Any]) -> str:
    """Return the table of scores as a card, empty without scores."""
    names = list(dict.fromkeys(name for part in ("base", "refined") for name in _scores_of(scores, part)))
    pairs = {name: pair for name in names if (pair := score_pair(scores, name)) != (None, None)}
    if not pairs:
        return ""
    main = {name: pair for name, pair in pairs.items() if name in HEADLINE_SCORES} or pairs
    more = {name: pair for name, pair in pairs.items() if name not in main}
    differences = [_difference(*pair) + _interval(scores, name) for name, pair in main.items()]
    table = html_table(
        ["", *main],
        [
            html_line('<span class="dot base"></span>base', [percent(before) for before, _ in main.values()]),
            html_line('<span class="dot refined"></span>refined', [percent(after) for _, after in main.values()]),
            html_line("difference", differences),
        ],
        f"In percent; higher is better. {_sureness(scores, main)}".strip(),
        "scores",
    )
    if more:
        rows = [
            html_line(escape(name), [*map(percent, pair), _difference(*pair) + _interval(scores, name)])
            for name, pair in more.items()
        ]
        others = html_table(
            ["score", "base", "refined", "difference"], rows, "In percent; higher is better", "more-scores"
        )
        table += f"<details><summary>{counted(len(more), 'further score')}</summary>{others}</details>"
    return f'<section class="card" aria-labelledby="h-scores"><h2 id="h-scores">Scores</h2>{table}</section>'


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


def class_card(scores: Mapping[str, Any], label_space: LabelSpace) -> str:
    """Return a card with a pair of bars a class; classes without a score on either side are counted, not drawn."""
    base, refined = (_class_ious(scores, part, label_space) for part in ("base", "refined"))
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
        )
        rows.append(
            f'<li><span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
            f'<span class="class-name">{escape(name)}</span><span class="bars">{bars}</span>'
            f"{_difference(before, after)}</li>"
        )
    if not rows:
        return ""
    note = f'<p class="hint">{counted(absent, "class")} without a single pixel not listed.</p>' if absent else ""
    return (
        '<section class="card" aria-labelledby="h-classes"><h2 id="h-classes">IoU per class <small>'
        '<span class="dot base"></span>base <span class="dot refined"></span>refined, percent</small></h2>'
        f'<ul id="class-scores">{"".join(rows)}</ul>{note}</section>'
    )
