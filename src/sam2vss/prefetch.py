"""Work ahead of the consumer: a background thread reads the next items of an iterator, frames of the next window say.

Video decoders and image readers release Python's global lock, so they run beside the network. This module knows neither
frames nor networks; `sam2/ahead.py` does the same for the encoder.
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True)
class _End:
    """The source is exhausted, or it raised `error`."""

    error: BaseException | None = None


def decode_ahead(items: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """Yield the items of an iterable in order while a thread already reads the next ones.

    The thread starts with the first item asked for and ends with the last one, or when the generator is closed: leaving
    a `for` loop early closes it as soon as nobody holds it any more; hold it in `contextlib.closing` to be sure.
    Closing waits for the item being read, and closes `items` where that is a generator. An interrupt from the keyboard
    reaches the consumer, never the thread.

    Args:
        items: Read in the thread only, and by nobody else.
        depth: Items ready or being read beside the one in the consumer's hands, at least 1. With windows of frames as
            items each costs a window's memory.

    Raises:
        BaseException: Whatever `items` raised, after the items read before it.

    Source: ours.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}, expected at least 1 item read ahead")
    ready: SimpleQueue[_Item[T] | _End] = SimpleQueue()
    reader = _Reader(items, ready, depth)
    reader.thread.start()
    try:
        while isinstance(found := ready.get(), _Item):
            reader.places.release()
            yield found.value
            del found  # a window of frames should not stay while the next one is waited for
        if found.error is not None:
            raise found.error
    finally:
        reader.stop()


class _Reader(Generic[T]):
    """The thread, and how many more items it may read."""

    def __init__(self, items: Iterable[T], ready: "SimpleQueue[_Item[T] | _End]", depth: int) -> None:
        self.items = items
        self.ready = ready
        self.places = threading.Semaphore(depth)
        self.is_stopped = False
        # a daemon: a source that never answers must not keep the program from ending
        self.thread = threading.Thread(target=self._run, name="decode-ahead", daemon=True)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self.is_stopped = True
        self.places.release()
        self.thread.join()

    def _run(self) -> None:
        iterator: Iterator[T] | None = None
        error: BaseException | None = None
        try:
            iterator = iter(self.items)
            while self._may_read():
                self.ready.put(_Item(next(iterator)))
        except StopIteration:
            pass
        except BaseException as raised:  # handed to the consumer, whatever it is
            error = raised
        try:
            if isinstance(iterator, Generator):
                iterator.close()  # frees files and decoders now, in the thread that used them
        except BaseException as raised:
            error = error or raised
        self.ready.put(_End(error))

    def _may_read(self) -> bool:
        """Wait for a place; False once the consumer is gone."""
        self.places.acquire()
        return not self.is_stopped
