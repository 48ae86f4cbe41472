"""Iterators come in, one for each device; what they give, each computed in a thread of its own, goes out in turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

__all__ = ["in_turn", "shares"]

T = TypeVar("T")


def shares(items: Iterable[T], count: int) -> list[Iterator[T]]:
    """Deal items to ``count`` iterators as cards are dealt; an item is taken when somebody asks for it.

    The iterators may be used in different threads.
    """
    source = iter(items)
    dealt: list[deque[T]] = [deque() for _ in range(count)]
    lock = threading.Lock()
    number = 0

    def share(own: deque[T]) -> Iterator[T]:
        nonlocal number
        while True:
            with lock:
                while not own:
                    try:
                        item = next(source)
                    except StopIteration:
                        return
                    dealt[number % count].append(item)
                    number += 1
                item = own.popleft()
            yield item

    return [share(own) for own in dealt]


def in_turn(iterators: Sequence[Iterator[T]]) -> Iterator[T]:
    """Give the first result of each iterator, then the second of each, and so on, whoever is faster.

    Each iterator is a step ahead of what was asked for: a result must not be one that its next step overwrites. One
    alone is neither ahead nor in a thread.
    """
    if len(iterators) == 1:
        yield from iterators[0]
        return
    with ExitStack() as stack:
        waiting: deque[tuple[ThreadPoolExecutor, Iterator[T], Future[list[T]]]] = deque()
        for number, iterator in enumerate(iterators):
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=f"onnxviz-device-{number}"))
            stack.callback(_close, pool, iterator)
            waiting.append((pool, iterator, pool.submit(_step, iterator)))
        while waiting:
            pool, iterator, future = waiting.popleft()
            for result in future.result():
                waiting.append((pool, iterator, pool.submit(_step, iterator)))
                yield result


def _step(iterator: Iterator[T]) -> list[T]:
    """The next result, if there is one more: a future cannot hold a StopIteration."""
    for result in iterator:
        return [result]
    return []


def _close(pool: ThreadPoolExecutor, iterator: Iterator[object]) -> None:
    # A generator can only be closed where nobody runs it: behind its last step, in its own thread.
    if isinstance(iterator, Generator):
        pool.submit(iterator.close)
