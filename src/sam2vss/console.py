"""What the command line shows: progress bars on stderr, tables on stdout. Knows nothing of how things are computed."""

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Table

from .pipeline import RunSummary

VOIDEST_CLIPS = 8  # ours: how many clips a summary lists by their void


class PipeConsole(Console):
    """A console whose reader may leave early: what is still to be printed then goes nowhere, and work goes on."""

    def on_broken_pipe(self) -> None:
        """Let the stream lead to the null device."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


stdout = PipeConsole()
stderr = PipeConsole(stderr=True)


class RunBars:
    """A bar per clip with frames done and time left; used as a context manager around a run."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
            console=stderr,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._current = ""
        self._base = 0
        self._ticks = 0

    def __enter__(self) -> "RunBars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def clip_started(self, name: str, num_frames: int | None) -> None:
        """Add a bar."""
        self._tasks[name] = self._progress.add_task(escape(name), total=num_frames)
        self._current, self._base, self._ticks = name, 0, 0

    def tracked_frame(self) -> None:
        """One more frame of the current window is tracked; labels and painting are still to come."""
        self._ticks += 1
        self._progress.update(self._tasks[self._current], completed=self._base + self._ticks)

    def frames_done(self, name: str, count: int) -> None:
        """`count` frames of the clip are finished."""
        self._base, self._ticks = count, 0
        self._progress.update(self._tasks[name], completed=count)

    def clip_finished(self, name: str) -> None:
        """Fill the bar."""
        task = self._tasks[name]
        self._progress.update(task, total=max(1, self._base))


def print_rows(rows: Sequence[Sequence[str]], title: str | None = None, console: Console = stdout) -> None:
    """Print rows of text, the first one being the header, the first column left-aligned."""
    if title is not None:
        console.print(escape(title), highlight=False)  # a table's own title would wrap to the table's width
    table = Table()
    for number, head in enumerate(rows[0]):
        table.add_column(escape(head), justify="right" if number else "left", overflow="fold")
    for row in rows[1:]:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def print_summary(
    summary: RunSummary, seconds: float, result: Literal["refined", "classified"] = "refined", has_base: bool = True
) -> None:
    """Print what a run did in a few lines.

    Args:
        summary: What was done.
        seconds: How long it took.
        result: What became of frames and labels.
        has_base: Whether there were base labels to compare with.
    """
    flips = [["labels that flip a frame, base", f"{100 * summary.flip_base:.2f} %"]] if has_base else []
    new_frames = summary.frames - summary.resumed_frames
    rows = [
        ["run", "value"],
        ["clips", str(summary.clips)],
        [
            f"frames {result}",
            f"{summary.frames}" + (f" ({summary.resumed_frames} before)" if summary.resumed_frames else ""),
        ],
        ["windows", str(summary.windows)],
        ["masklets", str(summary.masklets)],
        ["coverage", f"{100 * summary.coverage:.1f} %"],
        *(
            _void_rows("base labels that are void", summary.void_shares, summary.void_left)
            if has_base
            else _void_rows(f"labels that are void, {result}", summary.void_left)
        ),
        *flips,
        [f"labels that flip a frame, {result}", f"{100 * summary.flip_refined:.2f} %"],
        ["time", f"{seconds:.1f} s" + (f" ({seconds / new_frames:.2f} s a frame)" if new_frames else "")],
    ]
    print_rows(rows)


def _void_rows(what: str, shares: Mapping[str, float], left: Mapping[str, float] | None = None) -> list[list[str]]:
    """Say how much of the labels is void, clip by clip, the worst first; nothing where there is none.

    Args:
        what: What the labels are called.
        shares: Fraction of void by clip.
        left: What is left of it in the result, as far as that is known.
    """
    left = left or {}
    worst = sorted(((share, name) for name, share in shares.items() if share > 0), key=lambda entry: -entry[0])
    if not worst:
        return []
    if len(shares) == 1:
        share, name = worst[0]
        return [[what, _percent(share) + _left(left.get(name))]]
    mean_left = sum(left.values()) / len(left) if left.keys() == shares.keys() else None
    rows = [[f"{what}, mean of clips", _percent(sum(shares.values()) / len(shares)) + _left(mean_left)]]
    rows += [[f"  {name}", _percent(share) + _left(left.get(name))] for share, name in worst[:VOIDEST_CLIPS]]
    if len(worst) > VOIDEST_CLIPS:
        rows.append(
            [f"  {len(worst) - VOIDEST_CLIPS} more clips in run.json", f"up to {_percent(worst[VOIDEST_CLIPS][0])}"]
        )
    return rows


def _left(share: float | None) -> str:
    if share is None:
        return ""
    return f", left {_percent(share)}" if share > 0 else ", none left"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 0.00005 else "less than 0.01 %"


def print_problem(text: str) -> None:
    """Print a warning on stderr."""
    stderr.print(f"[yellow]warning[/yellow] {escape(text)}", soft_wrap=True)


def print_error(kind: str, text: str) -> None:
    """Print the one message of a failed command on stderr."""
    stderr.print(f"[bold red]{escape(kind)}[/bold red]: {escape(text)}", soft_wrap=True, highlight=False)
