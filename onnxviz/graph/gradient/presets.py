"""Sets of rules that explanation methods lay over the true derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.gradient.rules.rule import Adjoints, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["DECONVNET", "GRADIENT", "GUIDED_BACKPROPAGATION", "OTHER_RECTIFIERS"]

OTHER_RECTIFIERS = frozenset(
    {"Clip", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Gelu", "HardSwish", "Swish", "Mish", "ThresholdedRelu"}
)
"""Activations of the ReLU kind for which no accepted rule exists: they keep their true derivative."""


def _guided(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Positive adjoints pass where the ReLU was open (Springenberg, Dosovitskiy, Brox, Riedmiller 2014)."""
    g, y = first(adjoints), node.outputs[0]
    opened = backward.emit("Greater", y, backward.number(0, y))
    return [backward.masked(opened, backward.emit("Relu", g), y)]


def _deconvnet(backward: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Positive adjoints pass, wherever the ReLU was open or not (Zeiler and Fergus 2013)."""
    return [backward.emit("Relu", first(adjoints))]


GRADIENT = RuleSet()
"""The true derivatives."""

GUIDED_BACKPROPAGATION = RuleSet("guided backpropagation", by_operator={("", "Relu"): _guided})

DECONVNET = RuleSet("deconvnet", by_operator={("", "Relu"): _deconvnet})
