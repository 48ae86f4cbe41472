"""Operators that compute every element from one element: activations and functions of one variable.

Where the output says as much as the input, its numbers are used: onnxruntime can then still fuse the operator with the
one before it. At a kink the derivative is that of the side which PyTorch takes: ReLU has 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Elementwise, Rule, elementwise

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


def _relu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.masked(b.emit("Greater", y, b.number(0, y)), g, y)


def _leaky_relu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    sloped = b.emit("Mul", g, b.number(node.attribute("alpha", 0.01), x))
    return b.emit("Where", b.emit("Greater", x, b.number(0, x)), g, sloped)


def _elu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    below = b.emit("Mul", g, b.emit("Add", y, b.number(node.attribute("alpha", 1.0), x)))
    return b.emit("Where", b.emit("Greater", x, b.number(0, x)), g, below)


def _celu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    alpha = node.attribute("alpha", 1.0)
    below = b.emit("Mul", g, b.emit("Exp", b.emit("Mul", x, b.number(1 / alpha, x))))
    return b.emit("Where", b.emit("Greater", x, b.number(0, x)), g, below)


def _selu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    alpha = node.attribute("alpha", 1.67326319217681884765625)
    gamma = node.attribute("gamma", 1.05070102214813232421875)
    above = b.emit("Mul", g, b.number(gamma, x))
    below = b.emit("Mul", g, b.emit("Add", y, b.number(alpha * gamma, x)))
    return b.emit("Where", b.emit("Greater", x, b.number(0, x)), above, below)


def _thresholded_relu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.masked(b.emit("Greater", x, b.number(node.attribute("alpha", 1.0), x)), g, x)


def _shrink(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    outside = b.emit("Greater", b.emit("Abs", x), b.number(node.attribute("lambd", 0.5), x))
    return b.masked(outside, g, x)


def _sigmoid(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Mul", y, b.emit("Sub", b.number(1, y), y)))


def _tanh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Sub", b.number(1, y), b.emit("Mul", y, y)))


def _softplus(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Sigmoid", x))


def _softsign(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    size = b.emit("Add", b.number(1, x), b.emit("Abs", x))
    return b.emit("Div", g, b.emit("Mul", size, size))


def _inside(b: Backward, x: str, slope: float, offset: float) -> str:
    """Whether 0 < slope · x + offset < 1, where the hard functions have a slope."""
    line = b.emit("Add", b.emit("Mul", x, b.number(slope, x)), b.number(offset, x))
    return b.emit("And", b.emit("Greater", line, b.number(0, x)), b.emit("Less", line, b.number(1, x)))


def _hard_sigmoid(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    slope, offset = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return b.masked(_inside(b, x, slope, offset), b.emit("Mul", g, b.number(slope, x)), x)


def _hard_swish(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    gate = b.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    rise = b.masked(_inside(b, x, 1 / 6, 0.5), b.emit("Mul", x, b.number(1 / 6, x)), x)
    return b.emit("Mul", g, b.emit("Add", gate, rise))


def _swish(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    alpha = b.number(node.attribute("alpha", 1.0), x)
    gate = b.emit("Sigmoid", b.emit("Mul", x, alpha))
    # (x σ(αx))' = σ + α x σ (1 - σ) = σ + α y (1 - σ)
    rise = b.emit("Mul", b.emit("Mul", y, alpha), b.emit("Sub", b.number(1, x), gate))
    return b.emit("Mul", g, b.emit("Add", gate, rise))


def _mish(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    gate = b.emit("Tanh", b.emit("Softplus", x))
    slope = b.emit("Sub", b.number(1, x), b.emit("Mul", gate, gate))
    rise = b.emit("Mul", b.emit("Mul", x, b.emit("Sigmoid", x)), slope)
    return b.emit("Mul", g, b.emit("Add", gate, rise))


def _gelu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    half, one = b.number(0.5, x), b.number(1, x)
    square = b.emit("Mul", x, x)
    if node.attribute("approximate", "none") == "tanh":
        scale, cubic = math.sqrt(2 / math.pi), 0.044715
        inner = b.emit("Add", b.number(scale, x), b.emit("Mul", square, b.number(scale * cubic, x)))
        bent = b.emit("Tanh", b.emit("Mul", x, inner))
        slope = b.emit("Add", b.number(scale, x), b.emit("Mul", square, b.number(3 * scale * cubic, x)))
        gate = b.emit("Mul", half, b.emit("Add", one, bent))
        bend = b.emit("Mul", slope, b.emit("Sub", one, b.emit("Mul", bent, bent)))
        rise = b.emit("Mul", b.emit("Mul", half, x), bend)
    else:
        gate = b.emit("Mul", half, b.emit("Add", one, b.emit("Erf", b.emit("Mul", x, b.number(math.sqrt(0.5), x)))))
        bell = b.emit("Exp", b.emit("Mul", square, b.number(-0.5, x)))
        rise = b.emit("Mul", b.emit("Mul", x, b.number(1 / math.sqrt(2 * math.pi), x)), bell)
    return b.emit("Mul", g, b.emit("Add", gate, rise))


def _exp(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, y)


def _log(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, x)


def _sqrt(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", b.emit("Mul", g, b.number(0.5, y)), y)


def _reciprocal(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Neg", b.emit("Mul", g, b.emit("Mul", y, y)))


def _neg(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Neg", g)


def _abs(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Sign", x))


def _erf(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    bell = b.emit("Exp", b.emit("Neg", b.emit("Mul", x, x)))
    return b.emit("Mul", g, b.emit("Mul", bell, b.number(2 / math.sqrt(math.pi), x)))


def _sin(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Cos", x))


def _cos(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Neg", b.emit("Mul", g, b.emit("Sin", x)))


def _tan(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Add", b.number(1, x), b.emit("Mul", y, y)))


def _sinh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Cosh", x))


def _cosh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Mul", g, b.emit("Sinh", x))


def _asin(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, b.emit("Sqrt", b.emit("Sub", b.number(1, x), b.emit("Mul", x, x))))


def _acos(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Neg", _asin(b, node, g, x, y))


def _atan(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, b.emit("Add", b.number(1, x), b.emit("Mul", x, x)))


def _asinh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, b.emit("Sqrt", b.emit("Add", b.emit("Mul", x, x), b.number(1, x))))


def _acosh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, b.emit("Sqrt", b.emit("Sub", b.emit("Mul", x, x), b.number(1, x))))


def _atanh(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Div", g, b.emit("Sub", b.number(1, x), b.emit("Mul", x, x)))


def _clip(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    within = None
    for place, compare in ((1, "GreaterOrEqual"), (2, "LessOrEqual")):
        if node.has_input(place):
            side = b.emit(compare, x, node.inputs[place])
            within = side if within is None else b.emit("And", within, side)
    return g if within is None else b.masked(within, g, x)


def _same(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return g


def _cast(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    given, wanted = b.adjoint_type(y), b.adjoint_type(x)
    return g if given == wanted else b.emit("Cast", g, to=wanted)


_DERIVATIVES: Mapping[str, Elementwise] = {
    "Abs": _abs, "Acos": _acos, "Acosh": _acosh, "Asin": _asin, "Asinh": _asinh, "Atan": _atan, "Atanh": _atanh,
    "Cast": _cast, "CastLike": _cast, "Celu": _celu, "Clip": _clip, "Cos": _cos, "Cosh": _cosh, "Dropout": _same,
    "Elu": _elu, "Erf": _erf, "Exp": _exp, "Gelu": _gelu, "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish,
    "Identity": _same, "LeakyRelu": _leaky_relu, "Log": _log, "Mish": _mish, "Neg": _neg, "Reciprocal": _reciprocal,
    "Relu": _relu, "Selu": _selu, "Shrink": _shrink, "Sigmoid": _sigmoid, "Sin": _sin, "Sinh": _sinh,
    "Softplus": _softplus, "Softsign": _softsign, "Sqrt": _sqrt, "Swish": _swish, "Tan": _tan, "Tanh": _tanh,
    "ThresholdedRelu": _thresholded_relu,
}  # fmt: skip

RULES: Mapping[str, Rule] = {op_type: elementwise(derivative) for op_type, derivative in _DERIVATIVES.items()}
