"""Normalisations: the adjoint is scaled, and loses what moves the mean and the spread of the normalised numbers.

With x̂ the normalised numbers, σ their spread and gs the adjoint of x̂, the adjoint of x is
(gs - mean(gs) - x̂ · mean(gs · x̂)) / σ, means over the axes that are normalised together (Ioffe and Szegedy 2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from onnxviz.graph.gradient.builder import numpy_type
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, elementwise, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


# -- over running or constant statistics --------------------------------------------------------------------------


def _batch_norm(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, scale, bias, mean, variance) = first(adjoints), node.inputs
    if node.attribute("training_mode", 0):
        raise LookupError("statistics of the batch, in training mode")
    if b.wants(mean) or b.wants(variance):
        raise LookupError("the derivative by a running mean or variance")
    rank = b.rank(x)
    others = b.integers([axis for axis in range(rank) if axis != 1])
    of_x = of_scale = of_bias = None
    if b.wants(x):
        of_x = b.emit("Mul", g, _batch_norm_factor(b, node, rank))
    if b.wants(scale):
        centred = b.emit("Sub", x, _per_channel(b, _as_type_of(b, mean, x), rank))
        normed = b.emit("Mul", centred, _per_channel(b, _as_type_of(b, _one_over_spread(b, node), x, variance), rank))
        of_scale = _as_type_of(b, b.emit("ReduceSum", b.emit("Mul", g, normed), others, keepdims=0), scale, x)
    if b.wants(bias):
        of_bias = _as_type_of(b, b.emit("ReduceSum", g, others, keepdims=0), bias, x)
    return [of_x, of_scale, of_bias, None, None]


def _batch_norm_factor(b: Backward, node: Node, rank: int) -> str:
    """Scale / σ of every channel, (channels, 1, ...)."""
    x, scale, _, _, variance = node.inputs
    known_scale, known_variance = b.known(scale), b.known(variance)
    if known_scale is not None and known_variance is not None:
        spread = np.sqrt(known_variance.astype(np.float64) + node.attribute("epsilon", 1e-5))
        factor = known_scale / spread
        return b.constant(factor.reshape(-1, *[1] * (rank - 2)), numpy_type(b.adjoint_type(x)))
    spread_inverse = _as_type_of(b, _one_over_spread(b, node), x, variance)
    return _per_channel(b, b.emit("Mul", _as_type_of(b, scale, x), spread_inverse), rank)


def _one_over_spread(b: Backward, node: Node) -> str:
    variance = node.inputs[4]
    epsilon = b.number(node.attribute("epsilon", 1e-5), variance)
    return b.once("Reciprocal", b.once("Sqrt", b.once("Add", variance, epsilon)))


def _as_type_of(b: Backward, value: str, like: str, now: str | None = None) -> str:
    """A value in the type of another; it has that of ``now``, a forward value."""
    wanted = b.adjoint_type(like)
    return value if b.adjoint_type(now or value) == wanted else b.emit("Cast", value, to=wanted)


def _per_channel(b: Backward, value: str, rank: int) -> str:
    """A vector of the channels as (channels, 1, ...), to meet a map of some rank."""
    return b.once("Unsqueeze", value, b.integers(range(1, rank - 1))) if rank > 2 else value


# -- over statistics of the numbers themselves --------------------------------------------------------------------


def _standardised(b: Backward, value: str, x: str, axes: Sequence[int], shape: str, epsilon: float) -> tuple[str, str]:
    """(x̂, 1 / σ) over the last axes.

    Parameters
    ----------
    value : str
        The numbers of the forward value ``x``, in any shape.
    axes : sequence of int
        The axes that are normalised together.
    shape : str
        Their sides.
    """
    if b.type_of(x) == TensorProto.FLOAT:
        # One operator that gives both, in one pass over the numbers; elsewhere its second result is of another type.
        one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
        ones = b.once("ConstantOfShape", shape, value=one)
        normed, _, inverse = b.emit_many("LayerNormalization", 3, value, ones, axis=axes[0], epsilon=epsilon)
        return normed, inverse
    centred, variance = _centred(b, value, axes)
    inverse = b.emit("Reciprocal", b.emit("Sqrt", b.emit("Add", variance, b.number(epsilon, x))))
    return b.emit("Mul", centred, inverse), inverse


def _centred(b: Backward, value: str, axes: Sequence[int]) -> tuple[str, str]:
    """(x - mean, variance)."""
    together = b.integers(axes)
    centred = b.emit("Sub", value, b.emit("ReduceMean", value, together, keepdims=1))
    return centred, b.emit("ReduceMean", b.emit("Mul", centred, centred), together, keepdims=1)


def _through_statistics(b: Backward, gs: str, normed: str, inverse: str, axes: Sequence[int]) -> str:
    """Adjoint of x from that of x̂, by the formula at the top."""
    together = b.integers(axes)
    mean = b.emit("ReduceMean", gs, together, keepdims=1)
    along = b.emit("ReduceMean", b.emit("Mul", gs, normed), together, keepdims=1)
    rest = b.emit("Sub", b.emit("Sub", gs, mean), b.emit("Mul", normed, along))
    return b.emit("Mul", rest, inverse)


def _layer_norm(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, scale), y = first(adjoints), node.inputs[:2], node.outputs[0]
    rank = b.rank(x)
    axes = range(node.attribute("axis", -1) % rank, rank)
    of_x = of_scale = of_bias = None
    if b.wants(x) or b.wants(scale):
        normed, inverse = _standardised(b, x, x, axes, b.shape_part(x, axes[0]), node.attribute("epsilon", 1e-5))
        if b.wants(x):
            of_x = _through_statistics(b, b.emit("Mul", g, scale), normed, inverse, axes)
        if b.wants(scale):
            of_scale = b.sum_to(b.emit("Mul", g, normed), scale, y)
    if node.has_input(2) and b.wants(node.inputs[2]):
        of_bias = b.sum_to(g, node.inputs[2], y)
    return [of_x, of_scale, of_bias]


def _instance_norm(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, scale, bias) = first(adjoints), node.inputs
    rank = b.rank(x)
    axes, others = range(2, rank), b.integers([0, *range(2, rank)])
    of_x = of_scale = of_bias = None
    if b.wants(x) or b.wants(scale):
        normed, inverse = _standardised(b, x, x, axes, b.shape_part(x, 2), node.attribute("epsilon", 1e-5))
        if b.wants(x):
            gs = b.emit("Mul", g, _per_channel(b, scale, rank))
            of_x = _through_statistics(b, gs, normed, inverse, axes)
        if b.wants(scale):
            of_scale = b.emit("ReduceSum", b.emit("Mul", g, normed), others, keepdims=0)
    if b.wants(bias):
        of_bias = b.emit("ReduceSum", g, others, keepdims=0)
    return [of_x, of_scale, of_bias]


def _group_norm(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Scale and bias are one number per group before operator set 21, one per channel from it on."""
    g, (x, scale, bias) = first(adjoints), node.inputs
    rank, by_group = b.rank(x), node.opset < 21
    grouped = b.integers([0, node.attribute("num_groups"), -1])
    g_grouped = b.emit("Reshape", g, grouped) if by_group else g
    others = b.integers([0, 2] if by_group else [0, *range(2, rank)])
    of_x = of_scale = of_bias = None
    if b.wants(x) or b.wants(scale):
        groups = b.emit("Reshape", x, grouped)
        size = b.once("Shape", groups, start=2)
        normed, inverse = _standardised(b, groups, x, [2], size, node.attribute("epsilon", 1e-5))
        if b.wants(x):
            gs = b.emit("Mul", g_grouped, _per_channel(b, scale, 3 if by_group else rank))
            gs = gs if by_group else b.emit("Reshape", gs, grouped)
            of_x = b.reshape_like(_through_statistics(b, gs, normed, inverse, [2]), x)
        if b.wants(scale):
            aligned = normed if by_group else b.reshape_like(normed, x)
            of_scale = b.emit("ReduceSum", b.emit("Mul", g_grouped, aligned), others, keepdims=0)
    if b.wants(bias):
        of_bias = b.emit("ReduceSum", g_grouped, others, keepdims=0)
    return [of_x, of_scale, of_bias]


def _mean_variance(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    axes = [axis % b.rank(x) for axis in node.attribute("axes", [0, 2, 3])]
    _, variance = _centred(b, x, axes)
    # The operator itself adds this to the spread, not to the variance.
    inverse = b.emit("Reciprocal", b.emit("Add", b.emit("Sqrt", variance), b.number(1e-9, x)))
    return _through_statistics(b, g, y, inverse, axes)


# -- over norms and neighbours ------------------------------------------------------------------------------------


def _lp_norm(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    """Where all numbers are 0, so is the adjoint, as the output is."""
    axis, p = b.integers([node.attribute("axis", -1)]), node.attribute("p", 2)
    norm = b.emit("ReduceL1" if p == 1 else "ReduceL2", x, axis, keepdims=1)
    nothing = b.emit("Equal", norm, b.number(0, x))
    inverse = b.emit("Where", nothing, b.number(0, x), b.emit("Reciprocal", norm))
    along = b.emit("ReduceSum", b.emit("Mul", g, y), axis, keepdims=1)
    direction = b.emit("Sign", x) if p == 1 else y
    return b.emit("Mul", b.emit("Sub", g, b.emit("Mul", direction, along)), inverse)


def _local_response(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    """Y = x D^-β with D = bias + α · mean(x²) over neighbouring channels."""
    size, alpha, beta = node.attribute("size"), node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    before = (size - 1) // 2
    behind = size - 1 - before
    columns = b.vector([0, 1, b.length(x, 1), -1])

    def mean(value: str, begin: int, end: int) -> str:
        """Over a window of channels, which a view of the map has as its rows."""
        view = b.emit("Reshape", value, columns)
        window = b.emit("AveragePool", view, kernel_shape=[size, 1], pads=[begin, 0, end, 0], count_include_pad=1)
        return b.reshape_like(window, x)

    inner = b.emit("Mul", mean(b.emit("Mul", x, x), before, behind), b.number(alpha, x))
    inner = b.emit("Add", inner, b.number(node.attribute("bias", 1.0), x))
    if math.isclose(beta, 0.75):
        # The usual power, by roots: several times faster than a general power.
        root = b.emit("Sqrt", inner)
        power = b.emit("Reciprocal", b.emit("Mul", root, b.emit("Sqrt", root)))
    else:
        power = b.emit("Pow", inner, b.number(-beta, x))
    direct = b.emit("Mul", g, power)
    # A channel's window reaches its neighbours as far as theirs reach it, from the other side.
    spread = mean(b.emit("Div", b.emit("Mul", direct, x), inner), behind, before)
    around = b.emit("Mul", b.emit("Mul", x, b.number(2 * alpha * beta, x)), spread)
    return b.emit("Sub", direct, around)


# -- over exponentials --------------------------------------------------------------------------------------------


def _softmax(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    axis = b.integers([node.attribute("axis", -1)])
    along = b.emit("ReduceSum", b.emit("Mul", g, y), axis, keepdims=1)
    return b.emit("Mul", y, b.emit("Sub", g, along))


def _log_softmax(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    total = b.emit("ReduceSum", g, b.integers([node.attribute("axis", -1)]), keepdims=1)
    return b.emit("Sub", g, b.emit("Mul", b.emit("Exp", y), total))


RULES: Mapping[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": elementwise(_mean_variance),
    "LpNormalization": elementwise(_lp_norm),
    "LRN": elementwise(_local_response),
    "Softmax": elementwise(_softmax),
    "LogSoftmax": elementwise(_log_softmax),
}
