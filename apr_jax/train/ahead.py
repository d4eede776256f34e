"""Batches that are on the devices before they are asked for."""

import collections
import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

# Batches on the devices beside the one in use: while one is copied another is ready.
DEPTH = 2
THREAD = "read_ahead"


@contextlib.contextmanager
def read_ahead(
    batches: Iterator[Any], put: Callable[[Any], Any], *, depth: int = DEPTH
) -> Iterator[Iterator[Any]]:
    """A context with an iterator over ``put`` of each batch, some batches ahead.

    One thread reads the batches, in order, and calls ``put``. What it raises is raised
    when the batch in question is asked for. At the end of the context the thread has
    ended; what it had read ahead is thrown away, and batches of a generator are closed.

    Args:
        batches: read by the thread alone from here on.
        put: copies a batch to the devices.
        depth: how many batches are made ready beside the one taken last.
    """
    pool = futures.ThreadPoolExecutor(1, thread_name_prefix=THREAD)
    ready: collections.deque[futures.Future[Any]] = collections.deque()

    def read() -> Any:
        return put(next(batches))

    def taken() -> Iterator[Any]:
        while True:
            while len(ready) <= depth:
                ready.append(pool.submit(read))
            try:
                found = [ready.popleft().result()]
            except StopIteration:
                return
            yield found.pop()  # no reference stays here while it is used

    try:
        yield taken()
    finally:
        pool.shutdown(cancel_futures=True)
        ready.clear()
        if (close := getattr(batches, "close", None)) is not None:
            close()
