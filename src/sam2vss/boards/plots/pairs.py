"""Base against refined, class by class and clip by clip."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from ..scoreboard import BoardRow, Scoreboard
from ..sections import counted, signed
from .style import COLORS, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES: Final = 30


def compared_rows(board: Scoreboard) -> list[tuple[BoardRow, BoardRow]]:
    """Return base and compared row of every comparison worth a look at single classes and clips.

    Refined rows and those made elsewhere; the controls of a base model that has neither. None along ablated settings.
    """
    known = {row.name: row for row in board.rows}
    pairs = []
    for model in board.models if not board.axes else ():
        rows = [row for row in board.of_model(model) if row.against in known]
        main = [row for row in rows if row.kind in ("refined", "other")]
        pairs += [(known[row.against], row) for row in main or rows if row.against is not None]
    return pairs


def gains_by_key(
    base: Mapping[str, Mapping[str, float | int | None]],
    refined: Mapping[str, Mapping[str, float | int | None]],
    score: str,
) -> dict[str, tuple[float, float]]:
    """Return base and refined score by class or clip, the largest gain first; what either side lacks is left out."""
    pairs = {}
    for key in base:
        before, after = base[key].get(score), refined.get(key, {}).get(score)
        if before is not None and after is not None:
            pairs[key] = (float(before), float(after))
    return dict(sorted(pairs.items(), key=lambda item: item[1][0] - item[1][1]))


def draw_classes(base: BoardRow, row: BoardRow) -> "Figure":
    """Draw two bars a class, the largest gain first; of many classes the ends of the order."""
    pairs = gains_by_key(base.per_class, row.per_class, "IoU")
    shown, num_left = choose_ends(list(pairs), MAX_CLASSES)
    cut = MAX_CLASSES // 2 if num_left else len(shown)
    middle = np.arange(len(shown)) + (np.arange(len(shown)) >= cut)  # a gap where classes are left out
    figure = new_figure(0.9 + 0.27 * (middle[-1] + 1))
    panel = figure.subplots()
    for offset, side, name in ((-0.2, 0, base), (0.2, 1, row)):
        widths = [100 * pairs[key][side] for key in shown]
        panel.barh(middle + offset, widths, 0.38, color=COLORS[name.kind], label=shortened(name.name))
    for y, key in zip(middle.tolist(), shown, strict=True):
        before, after = pairs[key]
        panel.text(100 * max(before, after) + 0.8, y, signed(after - before, 1), va="center", fontsize=8)
    if num_left:
        panel.text(0.5, cut, f"{num_left} classes between are not shown", va="center", fontsize=8, style="italic")
    panel.set_yticks(middle, [shortened(key) for key in shown])
    panel.set_ylim(middle[-1] + 0.6, -0.6)
    panel.set_xlim(0, min(112.0, 108 * max(max(pairs[key]) for key in shown) + 3))
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("IoU in percent; gain in percentage points")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def choose_ends(names: Sequence[str], limit: int) -> tuple[list[str], int]:
    """Return the first and the last names of a long list, at most `limit` of them, and how many were left out."""
    if len(names) <= limit:
        return list(names), 0
    first = limit // 2
    return [*names[:first], *names[len(names) - (limit - first) :]], len(names) - limit


def draw_clips(base: BoardRow, row: BoardRow) -> "Figure":
    """Draw base against refined a clip: area is its number of frames, colour its gain; best and worst are named."""
    pairs = gains_by_key(base.per_clip, row.per_clip, "mIoU")
    points = 100 * np.array(list(pairs.values()))
    gains = points[:, 1] - points[:, 0]
    frames = np.array([float(row.per_clip[clip].get("frames") or 1) for clip in pairs])
    low, high = points.min(), points.max()
    margin = max(1.0, 0.08 * (high - low))
    ends = (max(0.0, low - margin), min(100.0, high + margin))
    figure = new_figure(4.6, 5.4)
    panel = figure.subplots()
    panel.plot(ends, ends, color="#5a6375", linewidth=1, zorder=1)
    span = max(float(np.abs(gains).max()), 0.01)
    sizes = (20 + 130 * frames / frames.max()) / max(1.0, len(frames) / 80)  # smaller where there are many
    dots = panel.scatter(points[:, 0], points[:, 1], sizes, gains, cmap="BrBG", vmin=-span, vmax=span, zorder=2)
    dots.set(edgecolor="#1c2230", linewidth=0.6, alpha=0.9)
    for i, side in ((0, 1), (-1, -1)):  # the largest gain above its dot, the smallest below
        place = (points[i, 0] - ends[0]) / (ends[1] - ends[0])
        align: Literal["left", "center", "right"] = "left" if place < 0.2 else "right" if place > 0.8 else "center"
        offset = (0, side * (4 + sizes[i] ** 0.5 / 2))
        panel.annotate(
            f"{shortened(list(pairs)[i])} {signed(gains[i] / 100, 1)}", (points[i, 0], points[i, 1]), offset,
            textcoords="offset points", fontsize=8, ha=align, va="bottom" if side > 0 else "top",
        )  # fmt: skip
    panel.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"{shortened(base.name)}, mIoU in percent")
    panel.set_ylabel(f"{shortened(row.name)}, mIoU in percent")
    num_better = int((gains > 0).sum())
    panel.set_title(f"{num_better} of {counted(len(pairs), 'clip')} gain; area: frames")
    figure.colorbar(dots, ax=panel, shrink=0.7, label="gain in percentage points")
    return figure
