"""Operators that pick elements by their place: the adjoint is added up at the places that the elements came from.

Where the places are known beforehand it is shifted, stretched or put in order instead, which takes a fraction of the
time. Sums over places are always ScatterElements: onnxruntime's ScatterND loses additions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from onnxviz.graph.gradient.builder import TO_THE_END
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


# -- slices -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Bounds of a Slice on some axes; what only a run knows is None."""

    axes: list[int] | None
    starts: list[int] | None
    stops: list[int] | None
    steps: list[int] | None


def _cut_of(b: Backward, node: Node) -> Cut:
    def numbers(place: int, default: list[int] | None) -> list[int] | None:
        if not node.has_input(place):
            return default
        held = b.known(node.inputs[place])
        return None if held is None else [int(number) for number in held.reshape(-1)]

    starts, stops = numbers(1, None), numbers(2, None)
    count = len(starts or stops or []) or b.length(node.inputs[1], 0)
    every = list(range(count)) if isinstance(count, int) else None
    axes = numbers(3, every)
    steps = numbers(4, [1] * len(axes) if axes is not None else None)
    rank = b.rank(node.inputs[0])
    return Cut(None if axes is None else [axis % rank for axis in axes], starts, stops, steps)


def _slice(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, x = first(adjoints), node.inputs[0]
    cut, sides = _cut_of(b, node), b.sides(x)
    if cut.axes is not None and cut.steps is not None:
        lengths = [side for side in (sides[axis] for axis in cut.axes) if isinstance(side, int)]
        if cut.starts is not None and cut.stops is not None and len(lengths) == len(cut.axes):
            bounds = zip(cut.starts, cut.stops, cut.steps, lengths, strict=True)
            return [_put_back(b, g, x, {axis: _picked(*of) for axis, of in zip(cut.axes, bounds, strict=True)})]
        if all(step == 1 for step in cut.steps):
            return [_shifted_back(b, node, g, x, cut.axes)]
    places = b.emit("Slice", b.element_numbers(x), *node.inputs[1:])
    return [b.scatter_back(g, places, x)]


def _picked(start: int, stop: int, step: int, length: int) -> range:
    """The places that a slice takes on an axis, in ONNX's reading of bounds outside it."""
    lowest, highest = (0, length) if step > 0 else (-1, length - 1)
    start = start + length if start < 0 else start
    stop = stop + length if stop < 0 else stop
    return range(min(max(start, 0), highest), min(max(stop, lowest), length), step)


def _put_back(b: Backward, g: str, x: str, picked: Mapping[int, range]) -> str:
    """Spread an adjoint over the places of each axis that it came from, zeros between, before and behind."""
    if any(len(places) == 0 for places in picked.values()):
        return b.filled_like(x)
    backwards = [axis for axis, places in picked.items() if places.step < 0 and len(places) > 1]
    if backwards:
        ends = b.integers([-1] * len(backwards)), b.integers([-TO_THE_END] * len(backwards))
        g = b.emit("Slice", g, *ends, b.integers(backwards), b.integers([-1] * len(backwards)))
    gaps = {axis: abs(places.step) for axis, places in picked.items() if abs(places.step) > 1 and len(places) > 1}
    if gaps:
        g = _with_gaps(b, g, x, picked, gaps)
    begin, end = [], []
    for axis, places in picked.items():
        begin.append(min(places))
        # The last gap may reach past the end: a negative number cuts it.
        length = b.length(x, axis)
        assert isinstance(length, int)
        end.append(length - min(places) - len(places) * gaps.get(axis, 1))
    return b.pad(g, b.rank(x), list(picked), begin, end) if any(begin + end) else g


def _with_gaps(b: Backward, g: str, x: str, picked: Mapping[int, range], gaps: Mapping[int, int]) -> str:
    """Put zeros behind every element along some axes, as many as the slice's step left out.

    They are joined to it on an axis of their own: onnxruntime's Pad takes ten times as long for many short rows.
    """
    zero = helper.make_tensor("value", b.adjoint_type(x), [1], [0.0])
    sides = [len(picked[axis]) if axis in picked else b.length(x, axis) for axis in range(b.rank(x))]
    for axis in sorted(gaps, reverse=True):
        before, (length, *behind) = sides[:axis], sides[axis:]
        apart = b.emit("Reshape", g, b.vector([*before, length, 1, *behind]), allowzero=1)
        zeros = b.once("ConstantOfShape", b.vector([*before, length, gaps[axis] - 1, *behind]), value=zero)
        sides[axis] = len(picked[axis]) * gaps[axis]
        g = b.emit("Reshape", b.emit("Concat", apart, zeros, axis=axis + 1), b.vector(sides), allowzero=1)
    return g


def _shifted_back(b: Backward, node: Node, g: str, x: str, axes: Sequence[int]) -> str:
    """A slice of step 1 with bounds or sides that only a run knows: the run finds how much was cut at both ends."""
    whole = [b.length(x, axis) for axis in axes]
    sides = b.vector(whole)
    zero = b.integers([0])

    def bound(name: str) -> str:
        """As a place on the axis, from 0."""
        number = name if b.type_of(name) == TensorProto.INT64 else b.once("Cast", name, to=TensorProto.INT64)
        counted = b.emit("Where", b.emit("Less", number, zero), b.emit("Add", number, sides), number)
        return b.emit("Min", b.emit("Max", counted, zero), sides)

    start, stop = bound(node.inputs[1]), bound(node.inputs[2])
    end = b.emit("Sub", sides, b.emit("Max", start, stop))
    rank, named = b.rank(x), b.integers(axes)
    pads = [b.over_all_axes(numbers, named, rank) for numbers in (start, end)]
    return b.emit("Pad", g, b.emit("Concat", *pads, axis=0))


# -- gathered elements --------------------------------------------------------------------------------------------


def _gather(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, indices) = first(adjoints), node.inputs
    rank, index_rank = b.rank(x), b.rank(indices)
    axis = node.attribute("axis", 0) % rank
    side, held = b.length(x, axis), b.known(indices)
    if index_rank == 0:
        g = b.emit("Unsqueeze", g, b.integers([axis]))
    elif index_rank > 1:
        lines: list[int | str] = [b.length(x, i) if i != axis else -1 for i in range(rank)]
        if 0 in lines:
            return [b.filled_like(x)]
        g = b.emit("Reshape", g, b.vector(lines))
    if held is not None and held.size == 1:
        return [_placed(b, g, rank, axis, side, int(held.reshape(-1)[0]))]
    if held is not None and isinstance(side, int) and held.size == side:
        order = held.reshape(-1) % max(side, 1)
        if len(np.unique(order)) == side:
            # Every element was taken once: they are put in order again.
            return [b.emit("Gather", g, b.integers(np.argsort(order).tolist()), axis=axis)]
    column = b.emit("Reshape", indices, b.integers([-1] + [1] * (rank - 1 - axis)))
    places = b.emit("Expand", column, b.emit("Shape", g))
    return [b.added_at(b.filled_like(x), places, g, x, axis=axis)]


def _placed(b: Backward, g: str, rank: int, axis: int, side: int | str, index: int) -> str:
    """One element along an axis, zeros before and behind it."""
    if isinstance(side, int):
        index %= side
        ends: list[int | str] = [index, side - 1 - index]
    elif index >= 0:
        ends = [index, b.once("Sub", side, b.integers([index + 1]))]
    else:
        ends = [b.once("Add", side, b.integers([index])), -1 - index]
    return g if ends == [0, 0] else b.pad(g, rank, [axis], ends[:1], ends[1:])


def _gather_elements(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    x, indices = node.inputs
    axis = node.attribute("axis", 0)
    return [b.added_at(b.filled_like(x), indices, first(adjoints), x, axis=axis)]


def _gather_nd(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Each index names one row of the axes that it does not reach into."""
    g, (x, indices) = first(adjoints), node.inputs
    depth, batch_dims = b.sides(indices)[-1], node.attribute("batch_dims", 0)
    if not isinstance(depth, int):
        raise LookupError("the length of an index is not known")
    reached, rank = batch_dims + depth, b.rank(x)
    rows = b.emit("GatherND", _numbered(b, x, reached), indices, batch_dims=batch_dims)
    if reached == rank:
        return [b.scatter_back(g, rows, x)]
    width = b.once("ReduceProd", b.shape_part(x, reached), keepdims=1)
    height = b.once("ReduceProd", b.shape_part(x, 0, reached), keepdims=1)
    zero = helper.make_tensor("value", b.adjoint_type(x), [1], [0.0])
    zeros = b.emit("ConstantOfShape", b.once("Concat", height, width, axis=0), value=zero)
    column = b.emit("Reshape", rows, b.integers([-1, 1]))
    shape = b.emit("Concat", b.emit("Shape", column, end=1), width, axis=0)
    updates = b.emit("Reshape", g, shape, allowzero=1)
    places = b.emit("Expand", column, shape)
    total = b.added_at(zeros, places, updates, x, axis=0)
    return [b.reshape_like(total, x)]


def _numbered(b: Backward, x: str, axes: int) -> str:
    """The number of every row of a forward value, in the shape of its first axes."""
    if axes == b.rank(x):
        return b.element_numbers(x)
    shape = b.shape_part(x, 0, axes)
    count = b.once("ReduceProd", shape, keepdims=0)
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    return b.emit("Reshape", b.once("Range", zero, count, one), shape, allowzero=1)


def _top_k(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, indices = first(adjoints), node.outputs[1]
    return [b.emit("ScatterElements", b.filled_like(node.inputs[0]), indices, g, axis=node.attribute("axis", -1))]


def _compress(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, condition) = first(adjoints), node.inputs
    axis = node.attribute("axis")
    zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
    if axis is None:
        numbers = b.once("Range", zero, b.once("Size", x), one)
        return [b.scatter_back(g, b.emit("Compress", numbers, condition, axis=0), x)]
    rank = b.rank(x)
    axis %= rank
    side = b.once("Squeeze", b.side(x, axis), b.integers([0]))
    kept = b.emit("Compress", b.once("Range", zero, side, one), condition, axis=0)
    column = b.emit("Reshape", kept, b.integers([-1] + [1] * (rank - 1 - axis)))
    places = b.emit("Expand", column, b.emit("Shape", g))
    return [b.emit("ScatterElements", b.filled_like(x), places, g, axis=axis)]


# -- scattered elements -------------------------------------------------------------------------------------------


def _kept_or_added(node: Node) -> bool:
    """Whether updates are added to what they meet; else they take its place.

    Raises
    ------
    LookupError
        They meet it in another way.
    """
    reduction = str(node.attribute("reduction", "none"))
    if reduction not in ("none", "add"):
        raise LookupError(f"reduction {reduction!r}")
    return reduction == "add"


def _scatter_elements(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (data, indices, updates), axis = first(adjoints), node.inputs, node.attribute("axis", 0)
    of_data = of_updates = None
    added = _kept_or_added(node)
    if b.wants(data):
        of_data = g if added else b.emit("ScatterElements", g, indices, b.filled_like(updates), axis=axis)
    if b.wants(updates):
        of_updates = b.emit("GatherElements", g, indices, axis=axis)
    return [of_data, None, of_updates]


def _scatter_nd(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (data, indices, updates) = first(adjoints), node.inputs
    of_data = of_updates = None
    added = _kept_or_added(node)
    if b.wants(data):
        of_data = g if added else b.emit("ScatterND", g, indices, b.filled_like(updates))
    if b.wants(updates):
        of_updates = b.emit("GatherND", g, indices)
    return [of_data, None, of_updates]


def _max_unpool(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The output's element at each place, numbered over the whole output as onnxruntime does."""
    flat = b.emit("Reshape", first(adjoints), b.integers([-1]))
    return [b.emit("Gather", flat, node.inputs[1])]


RULES: Mapping[str, Rule] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "MaxUnpool": _max_unpool,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
    "TopK": _top_k,
}
