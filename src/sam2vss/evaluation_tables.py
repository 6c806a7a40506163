"""Scores of sets of labels and their differences as rows of text, for terminals, and as JSON.

Only `evaluate`, `demo` and their like show scores this way; boards of many rows are `boards.tables`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from .metrics import PairedDifference, Scores
from .metrics.scores import none_if_undefined

UNDEFINED: Final = "-"
BOUNDARY_SCORES: Final = ("boundary_IoU_2px", "boundary_IoU_2pct", "boundary_F", "mBIoU_per_image", "mBIoU_interior")


def scores_table(
    named: Mapping[str, Scores], differences: Mapping[str, Mapping[str, PairedDifference]] | None = None
) -> list[list[str]]:
    """Return the headline scores as rows of text: a header, then one row per name, in percent with two digits.

    Args:
        named: Scores by row name, all with the same windows.
        differences: By row name, e.g. "refined - base", what `compare` gave. Each gives a row in percentage points,
            and two more with the number of clips and the ends of the 95 % interval, or one that says there is none.
    """
    windows = next(iter(named.values())).vc if named else {}
    columns = ["mIoU", "wIoU", "mBIoU", *(f"mVC{n}" for n in windows)]
    table = [["", *columns]]
    table += [[name, *(_percent(scores.as_dict()[column]) for column in columns)] for name, scores in named.items()]
    for name, found in (differences or {}).items():
        table += _difference_rows(name, [found.get(column) for column in columns])
    return table


def narrow_tables(
    named: Mapping[str, Scores], differences: Mapping[str, Mapping[str, PairedDifference]]
) -> list[list[list[str]]]:
    """Return the same for narrow terminals: one table with a row per score, then one per difference."""
    turned = [list(column) for column in zip(*scores_table(named), strict=True)]
    tables = [turned]
    for name, found in differences.items():
        in_order = [found.get(score) for score, *_ in turned[1:]]
        note = _clips_text(in_order) + ("" if _has_interval(in_order) else ", no interval")
        rows = _difference_rows(name, in_order)[: 3 if _has_interval(in_order) else 1]
        heads = [f"{name}, {note}", "points", "from", "to"][: 1 + len(rows)]
        tables.append([heads, *map(list, zip((row[0] for row in turned[1:]), *(row[1:] for row in rows), strict=True))])
    return tables


def boundary_table(named: Mapping[str, Scores]) -> list[list[str]]:
    """Return all readings of how good the edges are as rows of text, in percent with two digits."""
    heads = ["", "BIoU 2 px", "BIoU 2 %", "F", "per image", "interior"]
    found = ((name, scores.as_dict()) for name, scores in named.items())
    return [heads, *([name, *(_percent(values[score]) for score in BOUNDARY_SCORES)] for name, values in found)]


def curve_table(named: Mapping[str, Mapping[int, float]]) -> list[list[str]]:
    """Return mVC_n over n as rows of text: some n, and the mean over all n of the curve, in percent."""
    shown = (2, 4, 8, 16, 24, 32)
    rows = [["mVC_n, n =", *map(str, shown), "mean"]]
    for name, curve in named.items():
        defined = [value for value in curve.values() if none_if_undefined(value) is not None]
        mean = float(np.mean(defined)) if len(defined) == len(curve) > 0 else None
        rows.append([name, *(_percent(none_if_undefined(curve[n])) for n in shown), _percent(mean)])
    return rows


def difference_json(difference: PairedDifference) -> dict[str, Any]:
    """Return a difference as `json.dump` takes it; fractions, undefined ones null."""
    return {
        "difference": none_if_undefined(difference.difference),
        "interval": None if difference.interval is None else list(difference.interval),
        "clips": difference.clips,
        "resamples": difference.resamples,
    }


def _difference_rows(name: str, found: Sequence[PairedDifference | None]) -> list[list[str]]:
    changes = [None if d is None else none_if_undefined(d.difference) for d in found]
    rows = [[name, *(_percent(change, "+.2f") for change in changes)]]
    if not _has_interval(found):
        return [*rows, [f"  {_clips_text(found)}, no interval", *("" for _ in found)]]
    ends = [d.interval if d and d.interval else (None, None) for d in found]
    for i, head in enumerate((f"  95 % from, {_clips_text(found)}", "  95 % to")):
        rows.append([head, *(_percent(end[i], "+.2f") for end in ends)])
    return rows


def _has_interval(found: Iterable[PairedDifference | None]) -> bool:
    return any(difference is not None and difference.interval for difference in found)


def _clips_text(found: Iterable[PairedDifference | None]) -> str:
    clips = max((difference.clips for difference in found if difference), default=0)
    return f"{clips} clip" + "s" * (clips != 1)


def _percent(value: float | None, form: str = ".2f") -> str:
    return UNDEFINED if value is None else format(100 * value, form)
