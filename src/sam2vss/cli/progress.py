"""One bar on stderr for work that is counted in frames or videos; nothing is shown where stderr is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show how much of how much is done, and the time left, while the block runs.

    Yields:
        A function to call with the number done, the number in all, and the name of the current video.
    """
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..console import stderr

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, TextColumn("left"), console=stderr, transient=True, disable=not stderr.is_terminal)
    with bars:
        task = bars.add_task(escape(what), total=None)

        def show(done: int, total: int, video: str) -> None:
            bars.update(task, completed=done, total=total, description=escape(f"{what} {video}"[:32]))

        yield show
