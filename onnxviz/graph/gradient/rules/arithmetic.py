"""Operators of several values that are broadcast against each other: each adjoint is summed over what was broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]

Side = Callable[["Backward", str, str, str, str], str]
"""(backward, g, a, b, y) → adjoint of one operand, in the shape of y."""


def _binary(of_a: Side, of_b: Side) -> Rule:
    def rule(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
        g, (a, b), y = first(adjoints), node.inputs, node.outputs[0]
        return [
            backward.sum_to(side(backward, g, a, b, y), operand, y) if backward.wants(operand) else None
            for side, operand in ((of_a, a), (of_b, b))
        ]

    return rule


def _pow_base(backward: Backward, g: str, a: str, b: str, y: str) -> str:
    exponent = backward.emit("Cast", b, to=backward.adjoint_type(a))
    held = backward.known(b)
    if held is not None and held.size == 1 and float(held.reshape(-1)[0]) == 2.0:
        # The commonest power, and one whose general form is undefined at 0 in some libraries.
        return backward.emit("Mul", g, backward.emit("Mul", a, backward.number(2, a)))
    lower = backward.emit("Pow", a, backward.emit("Sub", exponent, backward.number(1, a)))
    slope = backward.emit("Mul", exponent, lower)
    # x⁰ is constant, also at 0, where 0 · 0⁻¹ would be NaN.
    none = backward.emit("Equal", exponent, backward.number(0, a))
    return backward.emit("Mul", g, backward.emit("Where", none, backward.number(0, a), slope))


def _pow_exponent(backward: Backward, g: str, a: str, b: str, y: str) -> str:
    slope = backward.emit("Mul", y, backward.emit("Log", a))
    # 0ᵇ stays 0 for b > 0, where 0 · log 0 would be NaN.
    zero = backward.emit("Equal", a, backward.number(0, a))
    return backward.emit("Mul", g, backward.emit("Where", zero, backward.number(0, a), slope))


def _where(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (condition, a, b), y = first(adjoints), node.inputs, node.outputs[0]
    zero = backward.number(0, y)
    of_a = backward.sum_to(backward.emit("Where", condition, g, zero), a, y) if backward.wants(a) else None
    of_b = backward.sum_to(backward.emit("Where", condition, zero, g), b, y) if backward.wants(b) else None
    return [None, of_a, of_b]


def _sum(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, y = first(adjoints), node.outputs[0]
    if node.op_type == "Mean":
        g = backward.emit("Mul", g, backward.number(1 / len(node.inputs), y))
    return [backward.sum_to(g, x, y) if backward.wants(x) else None for x in node.inputs]


def _extremum(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The whole adjoint goes to the first input that attains the extremum."""
    g, y = first(adjoints), node.outputs[0]
    incoming: list[str | None] = []
    taken: str | None = None
    for x in node.inputs:
        attains = backward.emit("Equal", x, y)
        if taken is None:
            chosen, taken = attains, attains
        else:
            chosen = backward.emit("And", attains, backward.emit("Not", taken))
            taken = backward.emit("Or", taken, attains)
        incoming.append(backward.sum_to(backward.masked(chosen, g, y), x, y) if backward.wants(x) else None)
    return incoming


def _prelu(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, slope), y = first(adjoints), node.inputs, node.outputs[0]
    above = backward.emit("Greater", x, backward.number(0, x))
    of_x = backward.emit("Where", above, g, backward.emit("Mul", g, slope)) if backward.wants(x) else None
    of_slope = None
    if backward.wants(slope):
        below = backward.emit("Where", above, backward.number(0, x), backward.emit("Mul", g, x))
        of_slope = backward.sum_to(below, slope, y)
    return [of_x, of_slope]


def _mod(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The remainder a - b · k moves with a; k is a whole number, without a derivative."""
    g, (a, b), y = first(adjoints), node.inputs, node.outputs[0]
    whole = backward.emit("Div", backward.emit("Sub", a, y), b)
    of_b = backward.emit("Neg", backward.emit("Mul", g, whole))
    return [
        backward.sum_to(g, a, y) if backward.wants(a) else None,
        backward.sum_to(of_b, b, y) if backward.wants(b) else None,
    ]


RULES: Mapping[str, Rule] = {
    "Add": _binary(lambda c, g, a, b, y: g, lambda c, g, a, b, y: g),
    "Sub": _binary(lambda c, g, a, b, y: g, lambda c, g, a, b, y: c.emit("Neg", g)),
    "Mul": _binary(lambda c, g, a, b, y: c.emit("Mul", g, b), lambda c, g, a, b, y: c.emit("Mul", g, a)),
    "Div": _binary(
        lambda c, g, a, b, y: c.emit("Div", g, b),
        lambda c, g, a, b, y: c.emit("Neg", c.emit("Div", c.emit("Mul", g, y), b)),
    ),
    "Pow": _binary(_pow_base, _pow_exponent),
    "Mod": _mod,
    "Where": _where,
    "Sum": _sum,
    "Mean": _sum,
    "Max": _extremum,
    "Min": _extremum,
    "PRelu": _prelu,
}
