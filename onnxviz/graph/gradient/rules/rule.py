"""What a rule is: a node and the adjoints of its outputs come in, the adjoints of its inputs go out.

An adjoint is the derivative of the explained number by a value. Rules write ``g`` for the adjoint of an output, ``x``
for an input and ``y`` for an output, as the literature does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["Adjoints", "Elementwise", "Rule", "elementwise", "first"]

Adjoints = Sequence[str | None]
"""Names of adjoints, one for each output or input of a node; None where there is none."""

Rule = Callable[["Backward", Node, Adjoints], Adjoints]
"""(backward, node, adjoints of the outputs) → adjoints of the inputs.

``LookupError`` and ``NotImplementedError`` mean that the rule does not cover this use of the operator; their text says
what it does not know.
"""

Elementwise = Callable[["Backward", Node, str, str, str], str]
"""(backward, node, g, x, y) → adjoint of x, for an operator that computes each element from one."""


def first(adjoints: Adjoints) -> str:
    """The adjoint of the first output.

    Raises
    ------
    LookupError
        Only further outputs reach the target, and those have no rule.
    """
    if not adjoints or adjoints[0] is None:
        raise LookupError("the explained number depends on one of its further outputs")
    if any(adjoint is not None for adjoint in adjoints[1:]):
        raise LookupError("the explained number depends on one of its further outputs too")
    return adjoints[0]


def elementwise(derivative: Elementwise) -> Rule:
    """Make a rule of the derivative by the first input."""

    def rule(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
        return [derivative(backward, node, first(adjoints), node.inputs[0], node.outputs[0])]

    return rule
