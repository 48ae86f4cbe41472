"""How one axis of an operator's input and one axis of its output reach each other: intervals in, intervals out.

All intervals are half-open, ``[first, end)``, held as two int64 arrays with one entry per question. An interval with
``end <= first`` is empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EVERYWHERE",
    "NOWHERE",
    "AxisMap",
    "Nominal",
    "Same",
    "Taps",
    "Whole",
    "shift",
    "transposed_window",
    "window",
]

Indices = NDArray[np.int64]
Interval = tuple[Indices, Indices]

NOWHERE = np.int64(1) << 40
"""Start of an empty interval, its negative the end: the union with any other interval is that other interval."""

EVERYWHERE = np.int64(1) << 36
"""End of a nominal interval that has no place of its own, its negative the start: it means the axis as it is."""


class AxisMap(ABC):
    """The reach of one output axis into one input axis, and back."""

    @abstractmethod
    def backward(self, first: Indices, end: Indices) -> Interval:
        """Hull of the input indices that the output indices ``[first, end)`` read; padding is not an index."""

    @abstractmethod
    def forward(self, first: Indices, end: Indices) -> Interval:
        """Hull of the output indices that read at least one of the input indices ``[first, end)``."""

    @abstractmethod
    def nominal(self, first: Indices, end: Indices) -> Interval:
        """Like ``backward`` as if the input went on past its ends; ``[first, end)`` may lie past the output's."""


@dataclass(frozen=True)
class Same(AxisMap):
    """Every output index reads the input index of the same number."""

    def backward(self, first: Indices, end: Indices) -> Interval:
        """Give the interval back."""
        return first, end

    forward = backward
    nominal = backward


@dataclass(frozen=True)
class Whole(AxisMap):
    """Every one of ``outputs`` output indices reads all of ``inputs`` input indices."""

    inputs: int
    outputs: int = 1

    def backward(self, first: Indices, end: Indices) -> Interval:
        """Give all inputs."""
        return np.zeros_like(first), np.full_like(end, self.inputs)

    def forward(self, first: Indices, end: Indices) -> Interval:
        """Give all outputs."""
        return np.zeros_like(first), np.full_like(end, self.outputs)

    def nominal(self, first: Indices, end: Indices) -> Interval:
        """Give an interval without a place: whoever reads everything has no neighbours to keep a distance from."""
        return np.full_like(first, -EVERYWHERE), np.full_like(end, EVERYWHERE)


@dataclass(frozen=True)
class Nominal:
    """The regular rule behind a table: output u reads floor((step·u + first) / divisor) to the same with ``last``."""

    step: int
    first: int
    last: int
    divisor: int = 1

    def __call__(self, first: Indices, end: Indices) -> Interval:
        """Give the input interval from what the first output reads to what the last one reads, unclipped."""
        ends = self.step * np.stack([first, end - 1])
        start = np.floor_divide(ends.min(axis=0) + self.first, self.divisor)
        stop = np.floor_divide(ends.max(axis=0) + self.last, self.divisor) + 1
        return np.clip(start, -EVERYWHERE, EVERYWHERE - 1), np.clip(np.maximum(stop, start + 1), None, EVERYWHERE)


class Taps(AxisMap):
    """Every output index reads the input indices of its row in a table.

    Parameters
    ----------
    table : (outputs, taps) int
        Input indices; anything outside ``[0, inputs)`` is padding and reads nothing.
    inputs : int
        Length of the input axis.
    nominal : Nominal, optional
        The rule past the ends; the table itself, clipped, where there is none.
    """

    def __init__(self, table: NDArray[np.integer], inputs: int, nominal: Nominal | None = None) -> None:
        table = np.asarray(table, np.int64)
        valid = (table >= 0) & (table < inputs)
        outputs = len(table)
        self._reads = _RangeHull(
            np.where(valid, table, NOWHERE).min(axis=1, initial=NOWHERE),
            np.where(valid, table + 1, -NOWHERE).max(axis=1, initial=-NOWHERE),
        )
        read_first = np.full(inputs, NOWHERE)
        read_end = np.full(inputs, -NOWHERE)
        reader = np.broadcast_to(np.arange(outputs)[:, None], table.shape)[valid]
        np.minimum.at(read_first, table[valid], reader)
        np.maximum.at(read_end, table[valid], reader + 1)
        self._read_by = _RangeHull(read_first, read_end)
        self._outputs = outputs
        self._nominal = nominal

    def backward(self, first: Indices, end: Indices) -> Interval:
        """Give the hull of the table's rows."""
        return self._reads(first, end)

    def forward(self, first: Indices, end: Indices) -> Interval:
        """Give the hull of the rows that hold one of the inputs."""
        return self._read_by(first, end)

    def nominal(self, first: Indices, end: Indices) -> Interval:
        """Give the rule's interval; without a rule the hull of the table's rows."""
        if self._nominal is not None:
            return self._nominal(first, end)
        first = np.clip(first, 0, self._outputs - 1)
        return self._reads(first, np.clip(end, first + 1, self._outputs))


class _RangeHull:
    """Hull of a run of intervals in constant time: a table of the hulls of every run of 1, 2, 4, 8, ... of them."""

    def __init__(self, first: Indices, end: Indices) -> None:
        self._first = [first]
        self._end = [end]
        width = 1
        while 2 * width <= len(first):
            self._first.append(np.minimum(self._first[-1][:-width], self._first[-1][width:]))
            self._end.append(np.maximum(self._end[-1][:-width], self._end[-1][width:]))
            width *= 2

    def __call__(self, first: Indices, end: Indices) -> Interval:
        level = np.frexp((end - first).astype(np.float64))[1] - 1
        result_first, result_end = np.empty_like(first), np.empty_like(end)
        for number in np.unique(level):
            chosen = level == number
            left, right = first[chosen], end[chosen] - (1 << int(number))
            result_first[chosen] = np.minimum(self._first[number][left], self._first[number][right])
            result_end[chosen] = np.maximum(self._end[number][left], self._end[number][right])
        return result_first, result_end


@lru_cache(maxsize=4096)
def window(*, inputs: int, outputs: int, kernel: int, stride: int, pad: int, dilation: int) -> AxisMap:
    """Map a convolution's or pool's axis: output u reads u·stride − pad + j·dilation for j = 0 ... kernel − 1."""
    if kernel == stride == dilation == 1 and pad == 0 and inputs == outputs:
        return Same()
    table = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel) * dilation
    return Taps(table, inputs, Nominal(stride, -pad, (kernel - 1) * dilation - pad))


@lru_cache(maxsize=1024)
def transposed_window(*, inputs: int, outputs: int, kernel: int, stride: int, pad: int, dilation: int) -> AxisMap:
    """Map a transposed convolution's axis: input i writes to i·stride − pad + j·dilation for j = 0 ... kernel − 1."""
    target = np.arange(outputs)[:, None] + pad - np.arange(kernel) * dilation
    table = np.where(target % stride == 0, target // stride, -1)
    return Taps(table, inputs, Nominal(1, pad - (kernel - 1) * dilation + stride - 1, pad, stride))


@lru_cache(maxsize=4096)
def shift(*, inputs: int, outputs: int, start: int, step: int = 1, clip: bool = False) -> AxisMap:
    """Map an axis whose output u reads the single input start + step·u where that exists.

    With ``clip`` there is nothing to continue past the ends (a part of a Concat ends where the next part begins).
    """
    if start == 0 and step == 1 and inputs == outputs:
        return Same()
    table = start + step * np.arange(outputs)[:, None]
    return Taps(table, inputs, None if clip else Nominal(step, start, start))
