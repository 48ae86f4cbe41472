"""Which derivative a ReLU has in the first steps of an ascent, when nothing gets through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.gradient.rules.rule import Adjoints, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["REDIRECTED", "STARTUP_STEPS"]

STARTUP_STEPS = 16
"""Steps for which Lucid redirects."""


def _redirected(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The true derivative, unless it is 0 for a whole picture: then whatever does not push further below 0."""
    x = node.inputs[0]
    g, zero = first(adjoints), backward.number(0, x)
    true = backward.base(node, adjoints)[0]
    assert true is not None
    wasted = backward.emit("And", backward.emit("Less", x, zero), backward.emit("Less", g, zero))
    return [_where_nothing_passes(backward, x, true, backward.emit("Where", wasted, zero, g))]


def _redirected_clip(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The same for a ReLU that is cut off above, such as ReLU6."""
    x, g = node.inputs[0], first(adjoints)
    incoming = list(backward.base(node, adjoints))
    true = incoming[0]
    if true is None:
        return incoming
    zero = backward.number(0, x)
    redirected = g
    for place, outside, pushing in ((1, "Less", "Less"), (2, "Greater", "Greater")):
        if node.has_input(place):
            beyond = backward.emit(outside, x, node.inputs[place])
            wasted = backward.emit("And", beyond, backward.emit(pushing, g, zero))
            redirected = backward.emit("Where", wasted, zero, redirected)
    return [_where_nothing_passes(backward, x, true, redirected), *incoming[1:]]


def _where_nothing_passes(backward: Backward, x: str, true: str, redirected: str) -> str:
    axes = list(range(1, backward.rank(x)))
    if not axes:
        return true
    passed = backward.emit("ReduceSum", backward.emit("Abs", true), backward.integers(axes), keepdims=1)
    return backward.emit("Where", backward.emit("Greater", passed, backward.number(0, x)), true, redirected)


REDIRECTED = RuleSet(
    "gradient, redirected at ReLUs that let nothing through",
    by_operator={("", "Relu"): _redirected, ("", "Clip"): _redirected_clip},
)
"""Lucid's ``redirected_relu_grad``: an ascent that starts where a unit is 0 everywhere gets going all the same."""
