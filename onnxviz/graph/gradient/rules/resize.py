"""Resize: a linear map along each axis, whose matrix the operator itself tells by resizing the unit matrix.

The adjoint is multiplied by these matrices. Repeated elements (nearest, by a whole number) are summed without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Rule, elementwise

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]

_POOLED_RANKS = (3, 4, 5)


def _resize(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    if node.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise LookupError("a crop by a region of interest")
    rank = b.rank(x)
    axes = [axis % rank for axis in node.attribute("axes") or range(rank)]
    factors = _factors(b, node, axes)
    resized = [axis for axis in axes if factors[axis] != 1]
    repeated = {axis: int(factors[axis] or 0) for axis in resized if _repeats(node, factors[axis])}
    if repeated:
        g = _summed_blocks(b, g, x, y, repeated)
    for axis in resized:
        if axis not in repeated:
            g = _through_matrix(b, node, g, axis, axes.index(axis), factors[axis])
    return g


# -- by how much --------------------------------------------------------------------------------------------------


def _factors(b: Backward, node: Node, axes: list[int]) -> dict[int, float | None]:
    """By how much each axis grows: 1 where it certainly stays as it is, None where only a run knows."""
    x, y = node.inputs[0], node.outputs[0]
    if not node.has_input(3):
        held = b.known(node.inputs[2])
        return dict.fromkeys(axes) if held is None else dict(zip(axes, map(float, held.reshape(-1)), strict=True))
    policy = str(node.attribute("keep_aspect_ratio_policy", "stretch"))
    if policy != "stretch":
        return _kept_ratio(b, node, axes, larger=policy == "not_smaller")
    factors: dict[int, float | None] = {}
    for axis in axes:
        before, after = b.sides(x)[axis], b.sides(y)[axis]
        if before == after and before is not None:
            factors[axis] = 1.0
        elif isinstance(before, int) and isinstance(after, int) and before > 0:
            factors[axis] = after / before
        else:
            factors[axis] = None
    return factors


def _kept_ratio(b: Backward, node: Node, axes: list[int], *, larger: bool) -> dict[int, float | None]:
    """One factor for all axes, that of the axis whose size decides.

    onnxruntime places elements by this factor, and rounds the sides: as if the factor were given, where that gives
    the same sides.
    """
    x, y = node.inputs[0], node.outputs[0]
    wanted = b.known(node.inputs[3])
    sides = [(b.sides(x)[axis], b.sides(y)[axis]) for axis in axes]
    fixed = [(before, after) for before, after in sides if isinstance(before, int) and isinstance(after, int)]
    if wanted is None or len(fixed) < len(sides):
        raise LookupError("sizes that keep the ratio of sides which only a run knows")
    ratios = [np.float32(size) / np.float32(before) for size, (before, _) in zip(wanted.tolist(), fixed, strict=True)]
    factor = max(ratios) if larger else min(ratios)
    # A product that should be whole may fall short of it by the last digit.
    for candidate in (factor, np.nextafter(factor, np.float32(np.inf))):
        lengths = [(np.float32(before) * candidate, before * float(candidate), after) for before, after in fixed]
        if all(int(single) == int(double) == after for single, double, after in lengths):
            return dict.fromkeys(axes, float(candidate))
    raise LookupError("sizes that keep the ratio of sides and are rounded up")


def _repeats(node: Node, factor: float | None) -> bool:
    """Whether each element is repeated ``factor`` times, neighbours staying neighbours."""
    if factor is None or factor != int(factor) or node.attribute("mode", "nearest") != "nearest":
        return False
    transformation = node.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    if transformation == "asymmetric":
        # Element i is taken from i / factor.
        return rounding == "floor" or (rounding == "round_prefer_floor" and factor == 2)
    # From (i + ½) / factor - ½, which is less than ½ away from the element that it belongs to.
    centred = transformation in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    return centred and rounding in ("round_prefer_floor", "round_prefer_ceil")


# -- and back -----------------------------------------------------------------------------------------------------


def _summed_blocks(b: Backward, g: str, x: str, y: str, repeated: Mapping[int, int]) -> str:
    """Sum over the copies of every element."""
    rank = b.rank(x)
    if min(repeated) >= 2 and rank in _POOLED_RANKS:
        # Averages are vectorised in onnxruntime, sums over inner axes are not: three times faster.
        blocks = [repeated.get(axis, 1) for axis in range(2, rank)]
        averages = b.emit("AveragePool", g, kernel_shape=blocks, strides=blocks)
        return b.emit("Mul", averages, b.number(math.prod(blocks), x))
    parts: list[int | str] = []
    copies = []
    for axis in range(rank):
        parts.append(b.length(x, axis) if axis in repeated else b.length(y, axis))
        if axis in repeated:
            copies.append(len(parts))
            parts.append(repeated[axis])
    apart = b.emit("Reshape", g, b.vector(parts), allowzero=1)
    return b.emit("ReduceSum", apart, b.integers(copies), keepdims=0)


def _through_matrix(b: Backward, node: Node, g: str, axis: int, place: int, factor: float | None) -> str:
    """Multiply along one axis by the matrix of the interpolation.

    Parameters
    ----------
    place : int
        Which of the node's scales or sizes belongs to the axis.
    """
    rank = b.rank(node.inputs[0])
    if axis == rank - 2:
        return b.emit("MatMul", _matrix(b, node, axis, place, factor, turned=True), g)
    matrix = _matrix(b, node, axis, place, factor, turned=False)
    if axis == rank - 1 and rank > 1:
        return b.emit("MatMul", g, matrix)
    order = [*(other for other in range(rank) if other != axis), axis]
    product = b.emit("MatMul", b.transposed(g, order), matrix)
    return b.transposed(product, [order.index(other) for other in range(rank)])


def _matrix(b: Backward, node: Node, axis: int, place: int, factor: float | None, *, turned: bool) -> str:
    """The interpolation along one axis, (sides after, sides before), or the other way round."""
    x, y = node.inputs[0], node.outputs[0]
    before = b.length(x, axis)
    zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    square = b.once("EyeLike", b.once("ConstantOfShape", b.vector([before, before]), value=zero))
    attributes = node.attributes("axes", "keep_aspect_ratio_policy", "extrapolation_value")
    if node.has_input(3) and node.attribute("keep_aspect_ratio_policy", "stretch") == "stretch":
        after = b.length(y, axis)
        sizes = b.vector([before, after] if turned else [after, before])
        matrix = b.once("Resize", square, "", "", sizes, **attributes)
    else:
        one = b.constant(np.ones(1, np.float32))
        if factor is None:
            scale = b.once("Gather", node.inputs[2], b.integers([place]))
            scales = b.once("Concat", *((one, scale) if turned else (scale, one)), axis=0)
        else:
            scales = b.constant(np.asarray([1, factor] if turned else [factor, 1], np.float32))
        matrix = b.once("Resize", square, "", scales, **attributes)
    wanted = b.adjoint_type(x)
    return matrix if wanted == TensorProto.FLOAT else b.once("Cast", matrix, to=wanted)


RULES: Mapping[str, Rule] = {"Resize": elementwise(_resize)}
