"""Rules ask for operators and constants; the nodes and weights of the backward pass pile up here.

Names of values are strings throughout. What is known about the values of the forward graph, their types, ranks and
sides, is used to leave out work that a run would otherwise do: sums over axes that were not broadcast, shapes that do
not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxviz.graph.detached import LARGE
from onnxviz.graph.gradient.facts import FLOATS, Side, ValueFacts

__all__ = ["TO_THE_END", "Builder"]

PREFIX = "gradient/"
"""Begins the name of every value that the backward pass adds."""

TO_THE_END = np.iinfo(np.int64).max


class Builder:
    """Collects the nodes and constants of a backward pass.

    Parameters
    ----------
    facts : ValueFacts
        What is known about the forward graph's values.
    prefix : str
        Begins all new names; longer than any forward name that begins with it.
    """

    def __init__(self, facts: ValueFacts, *, prefix: str = PREFIX) -> None:
        self.facts = facts
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        """Large new constants, which lie beside the graph."""
        self._prefix = prefix
        self._count = 0
        self._known: dict[Any, str] = {}

    # -- nodes and constants -------------------------------------------------------------------------------------

    def emit(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; its name."""
        return self.emit_many(op_type, 1, *inputs, **attributes)[0]

    def emit_many(self, op_type: str, outputs: int, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """Add a node with several outputs; their names."""
        names = tuple(self.fresh(op_type) for _ in range(outputs))
        self.nodes.append(helper.make_node(op_type, inputs, names, name=names[0], **attributes))
        return names

    def once(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Like :meth:`emit`, but the same question is answered by the same value every time."""
        key = (op_type, inputs, repr(sorted(attributes.items())))
        if key not in self._known:
            self._known[key] = self.emit(op_type, *inputs, **attributes)
        return self._known[key]

    def fresh(self, what: str) -> str:
        """A name that nothing has yet."""
        self._count += 1
        return f"{self._prefix}{what}_{self._count}"

    def constant(self, array: ArrayLike, dtype: Any = None) -> str:
        """A constant of numpy type ``dtype``; equal ones are stored once."""
        held = np.ascontiguousarray(array, dtype)
        held = held.reshape(np.shape(array))
        if held.nbytes >= LARGE:
            return self.weight(held)
        key = ("constant", held.dtype.str, held.shape, held.tobytes())
        if key not in self._known:
            name = self.fresh("constant")
            self.constants.append(numpy_helper.from_array(held, name))
            self._known[key] = name
        return self._known[key]

    def weight(self, array: NDArray[Any], name: str | None = None) -> str:
        """A large constant, kept beside the graph."""
        name = name or self.fresh("weight")
        self.weights[name] = array
        return name

    def integers(self, numbers: Sequence[int]) -> str:
        """A vector of int64."""
        return self.constant(np.asarray(numbers, np.int64).reshape(len(numbers)))

    def number(self, number: float, like: str) -> str:
        """A scalar in the type that the adjoint of a value has."""
        dtype = helper.tensor_dtype_to_np_dtype(self.adjoint_type(like))
        return self.constant(np.asarray(number, np.float64).astype(dtype))

    # -- facts ---------------------------------------------------------------------------------------------------

    def type_of(self, name: str) -> int:
        """Element type of a forward value."""
        return self.facts.types.get(name, TensorProto.FLOAT)

    def adjoint_type(self, name: str) -> int:
        """Element type of a value's adjoint: its own where it is a float, float32 where it is a quantised integer."""
        own = self.type_of(name)
        return own if own in FLOATS else TensorProto.FLOAT

    def sides(self, name: str) -> tuple[Side, ...]:
        """Sides of a forward value.

        Raises
        ------
        LookupError
            Not even its rank is known.
        """
        if name not in self.facts.shapes:
            raise LookupError(f"the rank of {name!r} is not known")
        return self.facts.shapes[name]

    def rank(self, name: str) -> int:
        """Number of axes of a forward value."""
        return len(self.sides(name))

    def fixed_sides(self, name: str) -> tuple[int, ...] | None:
        """Sides of a forward value where all of them are numbers."""
        sides = self.facts.shapes.get(name)
        if sides is None or any(not isinstance(side, int) for side in sides):
            return None
        return tuple(side for side in sides if isinstance(side, int))

    # -- shapes as values ----------------------------------------------------------------------------------------

    def shape(self, name: str) -> str:
        """The shape of a forward value as an int64 vector."""
        fixed = self.fixed_sides(name)
        return self.integers(fixed) if fixed is not None else self.once("Shape", name)

    def shape_part(self, name: str, start: int, stop: int | None = None) -> str:
        """Some sides of a forward value as an int64 vector."""
        sides = self.facts.shapes.get(name)
        part = None if sides is None else sides[start:stop]
        if part is not None and all(isinstance(side, int) for side in part):
            return self.integers([side for side in part if isinstance(side, int)])
        bounds = {"start": start} if stop is None else {"start": start, "end": stop}
        return self.once("Shape", name, **bounds)

    def side(self, name: str, axis: int) -> str:
        """One side of a forward value as an int64 vector of one number."""
        sides = self.facts.shapes.get(name)
        if sides is not None:
            axis %= len(sides)
        stop = axis + 1 or None
        return self.shape_part(name, axis, stop)

    def length(self, name: str, axis: int) -> int | str:
        """One side of a forward value: its number, or else the name of a vector that holds it."""
        side = self.sides(name)[axis]
        return side if isinstance(side, int) else self.side(name, axis)

    def vector(self, parts: Sequence[int | str]) -> str:
        """Numbers, and vectors of int64 by name, joined to one vector."""
        numbers = [part for part in parts if isinstance(part, int)]
        if len(numbers) == len(parts):
            return self.integers(numbers)
        named = [part if isinstance(part, str) else self.integers([part]) for part in parts]
        return named[0] if len(named) == 1 else self.once("Concat", *named, axis=0)

    def element_count(self, name: str, axes: Sequence[int]) -> str:
        """Product of some sides of a forward value, as a scalar in the type of its adjoint."""
        sides = self.sides(name)
        chosen = [sides[axis] for axis in axes]
        if all(isinstance(side, int) for side in chosen):
            return self.number(float(np.prod(np.asarray(chosen, np.float64))), name)
        picked = self.once("Gather", self.once("Shape", name), self.integers(axes))
        return self.once("Cast", self.once("ReduceProd", picked, keepdims=0), to=self.adjoint_type(name))

    def reshape_like(self, value: str, name: str) -> str:
        """Give a value the shape of a forward value with as many elements."""
        sides = self.facts.shapes.get(name)
        if sides is not None and 0 not in sides:
            open_sides = [axis for axis, side in enumerate(sides) if not isinstance(side, int)]
            if len(open_sides) <= 1:
                return self.emit("Reshape", value, self.integers([s if isinstance(s, int) else -1 for s in sides]))
        return self.emit("Reshape", value, self.shape(name), allowzero=1)

    def filled_like(self, name: str, number: float = 0.0) -> str:
        """A value of a forward value's shape, of its adjoint's type, with one number everywhere."""
        element = helper.make_tensor("value", self.adjoint_type(name), [1], [number])
        return self.once("ConstantOfShape", self.shape(name), value=element)

    def flat_zeros(self, name: str) -> str:
        """A vector of zeros with as many elements as a forward value."""
        count = self.once("Reshape", self.once("Size", name), self.integers([1]))
        fixed = self.fixed_sides(name)
        if fixed is not None:
            count = self.integers([int(np.prod(np.asarray(fixed, np.int64)))])
        element = helper.make_tensor("value", self.adjoint_type(name), [1], [0.0])
        return self.once("ConstantOfShape", count, value=element)

    def element_numbers(self, name: str) -> str:
        """The place of every element in memory order, in a forward value's shape: int64 from 0."""
        fixed = self.fixed_sides(name)
        count = self.once("Size", name) if fixed is None else self.constant(np.int64(math.prod(fixed)))
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        return self.emit("Reshape", self.once("Range", zero, count, one), self.shape(name), allowzero=1)

    # -- sums over what was broadcast ----------------------------------------------------------------------------

    def sum_to(self, adjoint: str, name: str, broadcast_to: str) -> str:
        """Sum an adjoint over the axes along which a forward value was broadcast.

        Parameters
        ----------
        adjoint : str
            A value with the shape of ``broadcast_to``.
        name : str
            The value that was broadcast.
        broadcast_to : str
            A forward value that has the result's shape.
        """
        small, large = self.facts.shapes.get(name), self.facts.shapes.get(broadcast_to)
        if small is not None and large is not None:
            extra = len(large) - len(small)
            pairs = list(zip(small, large[extra:], strict=True))
            if all(_certain(a, b) for a, b in pairs):
                axes = [*range(extra), *(extra + i for i, (a, b) in enumerate(pairs) if a == 1 and b != 1)]
                return self.sum_over(adjoint, axes, drop=extra)
            if not small:
                return self.emit("ReduceSum", adjoint, keepdims=0)
        return self.sum_to_shape(adjoint, name)

    def sum_over(self, adjoint: str, axes: Sequence[int], *, drop: int = 0) -> str:
        """Sum over axes, which stay with length 1 but for the first ``drop`` ones of the value."""
        if not axes:
            return adjoint
        if drop == len(axes):
            return self.emit("ReduceSum", adjoint, self.integers(axes), keepdims=0)
        total = self.emit("ReduceSum", adjoint, self.integers(axes), keepdims=1)
        return self.emit("Squeeze", total, self.integers(range(drop))) if drop else total

    def sum_to_shape(self, adjoint: str, name: str) -> str:
        """Sum an adjoint to a forward value's shape; which axes were broadcast is found out by the run."""
        wanted, given = self.once("Shape", name), self.emit("Shape", adjoint)
        missing = self.emit("Sub", self.emit("Shape", given), self.once("Shape", wanted))
        one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
        padded = self.emit("Concat", self.emit("ConstantOfShape", missing, value=one), wanted, axis=0)
        differs = self.emit("Not", self.emit("Equal", padded, given))
        axes = self.emit("Squeeze", self.emit("NonZero", differs), self.integers([0]))
        total = self.emit("ReduceSum", adjoint, axes, keepdims=1, noop_with_empty_axes=1)
        return self.emit("Reshape", total, wanted, allowzero=1)

    # -- often used ----------------------------------------------------------------------------------------------

    def masked(self, condition: str, adjoint: str, like: str) -> str:
        """The adjoint where a condition holds, and 0 elsewhere."""
        return self.emit("Where", condition, adjoint, self.number(0.0, like))

    def scatter_back(self, adjoint: str, places: str, name: str) -> str:
        """Add every element of an adjoint to the place it came from in a forward value.

        Parameters
        ----------
        places : str
            Number of the element, in memory order, that each element of the adjoint came from; int64 of any shape.

        Notes
        -----
        ScatterElements, never ScatterND: onnxruntime's ScatterND loses additions when threads meet at one place.
        """
        flat = self.integers([-1])
        updates = self.emit("Reshape", adjoint, flat)
        total = self.added_at(self.flat_zeros(name), self.emit("Reshape", places, flat), updates, name, axis=0)
        return self.reshape_like(total, name)

    def added_at(self, data: str, places: str, updates: str, like: str, *, axis: int) -> str:
        """Add updates to the elements at some places along an axis.

        Parameters
        ----------
        like : str
            The forward value whose adjoint's type all numbers have.
        """
        element_type = self.adjoint_type(like)
        if element_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
            return self.emit("ScatterElements", data, places, updates, axis=axis, reduction="add")
        # onnxruntime adds no short floats up, and many of them would lose their last digits.
        data, updates = (self.emit("Cast", value, to=TensorProto.FLOAT) for value in (data, updates))
        total = self.emit("ScatterElements", data, places, updates, axis=axis, reduction="add")
        return self.emit("Cast", total, to=element_type)

    def pad(
        self, value: str, rank: int, axes: Sequence[int], begin: Sequence[int | str], end: Sequence[int | str]
    ) -> str:
        """Zeros before and behind some axes; a negative number cuts instead.

        Every axis is named: onnxruntime's transpose optimiser takes pads of some axes for pads of all (1.31).
        """
        before: list[int | str] = [0] * rank
        behind: list[int | str] = [0] * rank
        for axis, first, last in zip(axes, begin, end, strict=True):
            before[axis], behind[axis] = first, last
        return self.emit("Pad", value, self.vector(before + behind))

    def over_all_axes(self, numbers: str, axes: str, rank: int) -> str:
        """A vector of one number for some axes as a vector of one number for each axis, 0 for the others."""
        return self.emit("ScatterElements", self.integers([0] * rank), axes, numbers, axis=0)

    def transposed(self, value: str, order: Sequence[int]) -> str:
        """Transpose, or the value itself where the order is as it was."""
        return value if list(order) == list(range(len(order))) else self.emit("Transpose", value, perm=list(order))


def numpy_type(element_type: int) -> np.dtype[Any]:
    """Numpy type of an ONNX element type."""
    found: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(element_type))
    return found


def _certain(side: Side, broadcast_to: Side) -> bool:
    """Whether it is known if an axis is broadcast: both lengths are the same, or its own is a number.

    A length above 1 is never broadcast, whatever the other is called; a length of 1 is, unless the other is unknown.
    """
    same = side == broadcast_to and side is not None
    return same or (isinstance(side, int) and (side != 1 or broadcast_to is not None))
