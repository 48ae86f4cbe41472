"""Work that is dealt to several devices comes back in order, and neither errors nor those who leave early harm it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from onnxviz.runtime.several import in_turn, shares


def slow(items: Iterator[int], seed: int) -> Iterator[int]:
    waits = random.Random(seed)
    for item in items:
        time.sleep(waits.random() * 0.004)
        yield item


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 20])
def test_results_come_in_the_order_of_the_work(count: int, length: int) -> None:
    parts = shares(iter(range(length)), count)
    assert list(in_turn([slow(part, seed) for seed, part in enumerate(parts)])) == list(range(length))


def test_each_iterator_has_a_thread_of_its_own() -> None:
    def named(items: Iterator[int]) -> Iterator[tuple[int, str]]:
        for item in items:
            yield item, threading.current_thread().name

    found = list(in_turn([named(part) for part in shares(range(6), 2)]))
    assert [item for item, _ in found] == list(range(6))
    assert len({name for item, name in found if item % 2 == 0}) == 1
    assert len({name for _, name in found}) == 2
    # One device alone is not given a thread.
    assert {name for _, name in in_turn([named(iter(range(3)))])} == {threading.current_thread().name}


def test_two_devices_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=20)

    def meet(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            meeting.wait()
            yield item

    assert list(in_turn([meet(part) for part in shares(range(8), 2)])) == list(range(8))


def test_no_more_is_read_than_is_asked_for() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    steps = in_turn(shares(source(), 2))
    assert [next(steps) for _ in range(3)] == [0, 1, 2]
    steps.close()
    assert len(taken) <= 6


def test_an_error_arrives_and_everything_is_closed() -> None:
    closed: list[str] = []

    def fails() -> Iterator[int]:
        yield 0
        raise ValueError("out of order")

    def goes_on() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    steps = in_turn([fails(), goes_on()])
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(ValueError, match="out of order"):
        next(steps)
    assert len(closed) == 1
    assert closed[0].startswith("onnxviz-device-1")
