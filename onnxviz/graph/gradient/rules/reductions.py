"""Reductions and running sums: what was added up gets the whole adjoint, an extremum only where it was attained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


@dataclass(frozen=True)
class Reduced:
    """One reduction, and what it says about the axes that it summed, multiplied or compared over."""

    b: Backward
    node: Node
    axes: tuple[int, ...] | None
    """From 0, in order; None where only a run knows them."""

    @property
    def x(self) -> str:
        """What was reduced."""
        return self.node.inputs[0]

    @property
    def y(self) -> str:
        """The result, with what makes it meet x."""
        return self.kept(self.node.outputs[0])

    def kept(self, value: str) -> str:
        """A value of the result's shape with the reduced axes as length 1, as far as broadcasting needs them."""
        if self.node.attribute("keepdims", 1):
            return value
        if self.axes is None:
            return self.b.emit("Reshape", value, _kept_shape(self.b, self.node), allowzero=1)
        # Broadcasting puts leading axes back by itself.
        leading = self.axes == tuple(range(len(self.axes)))
        return value if leading else self.b.emit("Unsqueeze", value, self.b.integers(self.axes))

    def total(self, value: str) -> str:
        """Sum of a value of x's shape over the reduced axes, which stay with length 1."""
        if self.axes is None:
            unreduced = self.node.attribute("noop_with_empty_axes", 0)
            return self.b.emit("ReduceSum", value, self.node.inputs[1], keepdims=1, noop_with_empty_axes=unreduced)
        return self.b.emit("ReduceSum", value, self.b.integers(self.axes), keepdims=1) if self.axes else value

    def spread(self, value: str) -> str:
        """A value of the kept shape, everywhere in x's shape."""
        return value if self.axes == () else self.b.emit("Expand", value, self.b.shape(self.x))


def _kept_shape(b: Backward, node: Node) -> str:
    """Shape of x with 1 for the reduced axes, which only a run knows."""
    x, axes = node.inputs[:2]
    if node.attribute("noop_with_empty_axes", 0) == 0 and isinstance(b.length(axes, 0), str):
        # None would mean all.
        raise LookupError("the number of reduced axes is not known")
    one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    ones = b.once("ConstantOfShape", b.shape(axes), value=one)
    return b.once("ScatterElements", b.shape(x), axes, ones, axis=0)


def _axes(b: Backward, node: Node) -> tuple[int, ...] | None:
    rank = b.rank(node.inputs[0])
    if node.has_input(1) and b.fixed_sides(node.inputs[1]) != (0,):
        held = b.known(node.inputs[1])
        if held is None:
            return None
        if held.size:
            return tuple(sorted(int(axis) % rank for axis in held.reshape(-1)))
    return () if node.attribute("noop_with_empty_axes", 0) else tuple(range(rank))


Derivative = Callable[["Backward", Reduced, str], str]
"""(backward, reduction, g with the reduced axes kept) → adjoint of x."""


def _reduction(derivative: Derivative) -> Rule:
    def rule(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
        reduced = Reduced(backward, node, _axes(backward, node))
        return [derivative(backward, reduced, reduced.kept(first(adjoints)))]

    return rule


def _sum(b: Backward, reduced: Reduced, g: str) -> str:
    return reduced.spread(g)


def _mean(b: Backward, reduced: Reduced, g: str) -> str:
    x = reduced.x
    if reduced.axes is not None:
        return reduced.spread(b.emit("Div", g, b.element_count(x, reduced.axes)))
    # Divided as real numbers: there may be no elements at all.
    sizes = [b.once("Cast", b.once("Size", name), to=b.adjoint_type(x)) for name in (x, reduced.node.outputs[0])]
    return reduced.spread(b.emit("Div", g, b.emit("Div", *sizes)))


def _extremum(b: Backward, reduced: Reduced, g: str) -> str:
    """Equal extrema share the adjoint, as in PyTorch's ``amax``."""
    attains = b.emit("Cast", b.emit("Equal", reduced.x, reduced.y), to=b.adjoint_type(reduced.x))
    return b.emit("Mul", attains, b.emit("Div", g, reduced.total(attains)))


def _absolute_sum(b: Backward, reduced: Reduced, g: str) -> str:
    return b.emit("Mul", b.emit("Sign", reduced.x), g)


def _norm(b: Backward, reduced: Reduced, g: str) -> str:
    """0 where all numbers are 0, as PyTorch has it."""
    y, zero = reduced.y, b.number(0, reduced.x)
    share = b.emit("Where", b.emit("Equal", y, zero), zero, b.emit("Div", g, y))
    return b.emit("Mul", reduced.x, share)


def _square_sum(b: Backward, reduced: Reduced, g: str) -> str:
    return b.emit("Mul", reduced.x, b.emit("Mul", g, b.number(2, reduced.x)))


def _log_sum(b: Backward, reduced: Reduced, g: str) -> str:
    return reduced.spread(b.emit("Mul", g, b.emit("Exp", b.emit("Neg", reduced.y))))


def _log_sum_exp(b: Backward, reduced: Reduced, g: str) -> str:
    return b.emit("Mul", b.emit("Exp", b.emit("Sub", reduced.x, reduced.y)), g)


def _product(b: Backward, reduced: Reduced, g: str) -> str:
    """The product of all other elements.

    With P the product of the elements that are not 0: P / x where none is 0; where one is, P at its place and 0
    elsewhere; 0 where two are.
    """
    x, node = reduced.x, reduced.node
    zero, one = b.number(0, x), b.number(1, x)
    is_zero = b.emit("Equal", x, zero)
    others = b.emit("Where", is_zero, one, x)
    zeros = reduced.total(b.emit("Cast", is_zero, to=b.adjoint_type(x)))
    attributes = node.attributes("keepdims")
    product = b.emit("ReduceProd", others, *node.inputs[1:], keepdims=1, **attributes)
    weighted = b.emit("Mul", g, product)
    if_none = b.masked(b.emit("Equal", zeros, zero), weighted, x)
    if_one = b.masked(b.emit("Equal", zeros, one), weighted, x)
    return b.emit("Where", is_zero, if_one, b.emit("Div", if_none, others))


def _running_sum(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Every element is in the sums at and behind it, so these are added up from the other end."""
    backwards = 1 - node.attribute("reverse", 0)
    exclusive = node.attribute("exclusive", 0)
    return [b.emit("CumSum", first(adjoints), node.inputs[1], reverse=backwards, exclusive=exclusive)]


RULES: Mapping[str, Rule] = {
    "ReduceSum": _reduction(_sum),
    "ReduceMean": _reduction(_mean),
    "ReduceMax": _reduction(_extremum),
    "ReduceMin": _reduction(_extremum),
    "ReduceL1": _reduction(_absolute_sum),
    "ReduceL2": _reduction(_norm),
    "ReduceSumSquare": _reduction(_square_sum),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "ReduceProd": _reduction(_product),
    "CumSum": _running_sum,
}
