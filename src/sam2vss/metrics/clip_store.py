"""Counts by clip for counters that are fed frame by frame: one clip is open, those before it are closed."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from ..errors import SettingsError

Counter = TypeVar("Counter")
Counts = TypeVar("Counts")


class ClipStore(Generic[Counter, Counts]):
    """Keeps the open clip's counter and the counts of all clips before it.

    Args:
        counts_of: Gives what a counter has counted so far.
    """

    def __init__(self, counts_of: Callable[[Counter], Counts]) -> None:
        self._counts_of = counts_of
        self._closed: dict[str, Counts] = {}
        self._open: Counter | None = None
        self._open_clip = ""

    @property
    def counts(self) -> dict[str, Counts]:
        """Counts of every clip so far, the open one included, in order of arrival."""
        counts = dict(self._closed)
        if self._open is not None:
            counts[self._open_clip] = self._counts_of(self._open)
        return counts

    def counter_of(self, clip: str, start: Callable[[], Counter]) -> Counter:
        """Return the open clip's counter; a new clip name closes the clip before and starts a counter.

        Raises:
            SettingsError: If the clip was closed before.
        """
        if self._open is None or clip != self._open_clip:
            if clip in self._closed:
                raise SettingsError(
                    f"clip {clip!r} was already closed; its frames must come one after the other, "
                    "and clips need different names"
                )
            self._closed = self.counts
            self._open, self._open_clip = start(), clip
        return self._open

    def add(self, theirs: Mapping[str, Counts]) -> None:
        """Take over counts of other clips.

        Raises:
            SettingsError: If a clip is on both sides.
        """
        shared = sorted(self.counts.keys() & theirs.keys())
        if shared:
            raise SettingsError(
                f"{len(shared)} clips were counted on both sides (first: {shared[0]!r}); share out whole clips, "
                "not frames, and give every clip its own name"
            )
        self._closed |= theirs

    def replace(self, counts: Mapping[str, Counts]) -> None:
        """Forget everything and hold these counts, their clips closed."""
        self._closed, self._open = dict(counts), None
