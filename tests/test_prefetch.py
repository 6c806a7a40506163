"""Reading ahead in a thread: order, bounds, errors in their place, and no thread left behind."""

import signal
import threading
import time
from contextlib import closing

import pytest

from sam2vss.prefetch import decode_ahead


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "decode-ahead"]


def wait_until(is_true, what: str) -> None:
    for _ in range(400):
        if is_true():
            return
        time.sleep(0.005)
    raise AssertionError(f"waited 2 s in vain: {what}")


class Source:
    """Counts what was read, and remembers in which thread and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.num_read, self.is_closed, self.threads = 0, False, set()

    def items(self):
        try:
            for i in range(self.count):
                if i == self.fails_at:
                    raise OSError(f"item {i} is broken")
                self.num_read += 1
                self.threads.add(threading.current_thread().name)
                yield i
        finally:
            self.is_closed = True


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("depth", [1, 3])
def test_all_items_come_in_order_and_the_thread_ends(count, depth):
    source = Source(count)
    assert list(decode_ahead(source.items(), depth)) == list(range(count))
    assert source.is_closed
    assert source.threads <= {"decode-ahead"}
    assert reading_threads() == []


def test_plain_lists_can_be_read_ahead_too():
    assert list(decode_ahead([3, 1, 2])) == [3, 1, 2]


@pytest.mark.parametrize("depth", [1, 2])
def test_the_next_items_are_read_while_the_consumer_works_and_no_more_than_asked_for(depth):
    source = Source(20)
    with closing(decode_ahead(source.items(), depth)) as items:
        for taken, _ in enumerate(items, start=1):
            wait_until(lambda taken=taken: source.num_read >= taken + depth, "the reader fills its places")
            time.sleep(0.01)  # a reader without bounds would run away here
            assert source.num_read == taken + depth
            if taken == 4:
                break


def test_nothing_is_read_before_the_first_item_is_asked_for():
    source = Source(3)
    items = decode_ahead(source.items())
    assert source.num_read == 0
    assert reading_threads() == []
    items.close()
    assert reading_threads() == []


def test_an_error_comes_after_the_items_before_it_and_shows_where_it_was_raised():
    items = decode_ahead(Source(5, fails_at=2).items(), depth=4)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(OSError, match="item 2 is broken") as caught:
        next(items)
    assert caught.traceback[-1].name == "items"
    assert reading_threads() == []
    with pytest.raises(StopIteration):
        next(items)


def test_an_object_that_cannot_be_iterated_is_the_consumers_error():
    with pytest.raises(TypeError, match="not iterable"):
        list(decode_ahead(5))


def test_stopping_early_ends_the_thread_and_closes_the_source():
    source = Source(100)
    items = decode_ahead(source.items(), depth=3)
    assert next(items) == 0
    items.close()
    assert reading_threads() == []
    assert source.is_closed
    assert source.num_read <= 4


def test_leaving_a_loop_by_an_error_ends_the_thread():
    source = Source(100)

    def consume() -> None:
        for i in decode_ahead(source.items()):
            if i == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        consume()
    del caught  # its traceback holds the frame that holds the generator
    wait_until(lambda: not reading_threads(), "the thread ends")
    assert source.is_closed


def test_an_interrupt_while_waiting_reaches_the_consumer_and_the_thread_ends():
    may_go_on = threading.Event()

    def slow():
        yield 0
        may_go_on.wait(5)
        yield 1

    items = decode_ahead(slow())
    assert next(items) == 0
    timer = threading.Timer(0.05, lambda: (_interrupt_main(), time.sleep(0.05), may_go_on.set()))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is begun without one
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(items)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert reading_threads() == []


def _interrupt_main() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_an_item_is_not_kept_alive_while_the_next_one_is_waited_for():
    import weakref

    class Frames:
        pass

    waits = threading.Event()
    seen: list[weakref.ref] = []

    def source():
        frames = Frames()
        seen.append(weakref.ref(frames))
        yield frames
        del frames
        waits.wait(5)
        yield None

    items = decode_ahead(source())
    next(items)
    waiting = threading.Thread(target=lambda: next(items))
    waiting.start()
    wait_until(lambda: seen[0]() is None, "the first item is freed")
    waits.set()
    waiting.join()
    items.close()


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_without_room_for_an_item_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth is {depth}, expected at least 1"):
        next(decode_ahead([1], depth))
