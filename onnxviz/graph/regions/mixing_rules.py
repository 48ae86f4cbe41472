"""Rules of the operators that compute position by position, or over whole axes: arithmetic, products, reductions."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxviz.graph.regions.axis_maps import AxisMap, Same, Taps, Whole
from onnxviz.graph.regions.box_maps import BoxMap, Everything, PerAxis
from onnxviz.graph.regions.node import Operator, Shape

__all__ = [
    "attention", "batch_normalization", "broadcast", "cumulative_sum", "einsum", "first_input", "gemm", "global_pool",
    "group_normalization", "instance_normalization", "layer_normalization", "matrix_product", "pairs_of_three",
    "reduction", "softmax", "whole_axis",
]  # fmt: skip

Link = tuple[int | None, AxisMap]


def broadcast(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Element by element with ONNX broadcasting: activations, arithmetic, comparisons, Where, Expand."""
    shape, outputs = operator.shape_in(number), operator.shape_out(output)
    offset = len(outputs) - len(shape)
    links: list[Link] = [
        (axis + offset, Same()) if length == outputs[axis + offset] else (None, Whole(length))
        for axis, length in enumerate(shape)
    ]
    return PerAxis(tuple(links), outputs)


def first_input(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Element by element in the first input; the others are parameters (scales, ratios, a type to cast to)."""
    if number != 0:
        # CastLike and Dropout read nothing of the others' numbers that a mere rule could follow.
        return None
    return broadcast(operator, number, output)


def pairs_of_three(operator: Operator, number: int, output: int) -> BoxMap | None:
    """QLinearAdd, QLinearMul: (tensor, scale, zero point) twice."""
    return broadcast(operator, number, output) if number in (0, 3) else None


def _over(shape: Shape, outputs: Shape, axes: Collection[int]) -> PerAxis:
    # Every unit reads the named axes whole and is at its own place on the others.
    links: list[Link] = [(None, Whole(length)) if axis in axes else (axis, Same()) for axis, length in enumerate(shape)]
    return PerAxis(tuple(links), outputs)


def batch_normalization(operator: Operator, number: int, output: int) -> BoxMap | None:
    """BatchNormalization; in training mode every channel is normalised by its own statistics."""
    if number != 0 or output != 0:
        return None
    shape = operator.shape_in(0)
    training = bool(operator.attributes.get("training_mode", 0))
    return _over(shape, operator.shape_out(0), [a for a in range(len(shape)) if a != 1] if training else [])


def instance_normalization(operator: Operator, number: int, output: int) -> BoxMap | None:
    """InstanceNormalization: the whole map of the unit's own channel."""
    if number != 0:
        return None
    shape = operator.shape_in(0)
    return _over(shape, operator.shape_out(output), range(2, len(shape)))


def group_normalization(operator: Operator, number: int, output: int) -> BoxMap | None:
    """GroupNormalization: the whole maps of the unit's own group of channels."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    size = shape[1] // int(operator.attributes["num_groups"])
    reads = np.arange(shape[1])[:, None] // size * size + np.arange(size)
    links: list[Link] = [(0, Same()), (1, Taps(reads, shape[1]))]
    return PerAxis((*links, *((None, Whole(length)) for length in shape[2:])), outputs)


def layer_normalization(operator: Operator, number: int, output: int) -> BoxMap | None:
    """LayerNormalization, RMSNormalization: all axes from ``axis`` on; the statistics outputs have length 1 there."""
    if number != 0:
        return None
    shape = operator.shape_in(0)
    return _over(shape, operator.shape_out(output), range(operator.axis(-1, len(shape)), len(shape)))


def whole_axis(operator: Operator, number: int, output: int, *, default: int = -1) -> BoxMap | None:
    """One axis is read whole: LpNormalization, TopK, Hardmax and their like."""
    if number != 0:
        return None
    shape = operator.shape_in(0)
    return _over(shape, operator.shape_out(output), [operator.axis(default, len(shape))])


def softmax(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Softmax, LogSoftmax, Hardmax: before operator set 13 all axes from ``axis`` on, since then that axis alone."""
    if operator.opset >= 13:
        return whole_axis(operator, number, output)
    shape = operator.shape_in(0)
    return _over(shape, operator.shape_out(output), range(operator.axis(1, len(shape)), len(shape)))


def cumulative_sum(operator: Operator, number: int, output: int) -> BoxMap | None:
    """CumSum: everything before (or, reversed, behind) the unit on one axis."""
    axes = operator.integers(1)
    if number != 0 or not axes:
        return None
    shape = operator.shape_in(0)
    axis = axes[0] % len(shape)
    length = shape[axis]
    exclusive = int(operator.attributes.get("exclusive", 0))
    place, other = np.arange(length)[:, None], np.arange(length)[None, :]
    reads = other >= place + exclusive if operator.attributes.get("reverse", 0) else other <= place - exclusive
    links: list[Link] = [(a, Same()) for a in range(len(shape))]
    links[axis] = (axis, Taps(np.where(reads, other, -1), length))
    return PerAxis(tuple(links), operator.shape_out(output))


def global_pool(operator: Operator, number: int, output: int) -> BoxMap | None:
    """GlobalAveragePool and its like: whole maps, channel by channel."""
    if number != 0 or operator.attributes.get("channels_last"):
        return None
    shape = operator.shape_in(0)
    return _over(shape, operator.shape_out(output), range(2, len(shape)))


def reduction(operator: Operator, number: int, output: int) -> BoxMap | None:
    """ReduceMean and its like, ArgMax, ArgMin: the reduced axes are read whole."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    rank = len(shape)
    if operator.op_type in ("ArgMax", "ArgMin"):
        axes = {operator.axis(0, rank)}
    else:
        given = operator.integers(1, "axes")
        nothing = bool(operator.attributes.get("noop_with_empty_axes", 0))
        axes = {axis % rank for axis in given} if given else set() if nothing else set(range(rank))
    kept = bool(operator.attributes.get("keepdims", 1))
    place = 0
    links: list[Link] = []
    for axis, length in enumerate(shape):
        links.append((None, Whole(length)) if axis in axes else (place, Same()))
        place += kept or axis not in axes
    return PerAxis(tuple(links), outputs)


def gemm(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Gemm: a row of A, a column of B, and C by broadcasting."""
    if number == 2 and operator.op_type == "Gemm":
        return broadcast(operator, number, output)
    second = 1 if operator.op_type == "Gemm" else 3
    if number not in (0, second):
        return None
    shape = operator.shape_in(number)
    turned = bool(operator.attributes.get("transA" if number == 0 else "transB", 0))
    own = int(number != 0) ^ int(turned)
    links: list[Link] = [(None, Whole(length)) for length in shape]
    links[own] = (0 if number == 0 else 1, Same())
    return PerAxis(tuple(links), operator.shape_out(output))


def matrix_product(operator: Operator, number: int, output: int, *, second: int = 1) -> BoxMap | None:
    """MatMul, MatMulInteger, QLinearMatMul (the right factor is input 3): leading axes broadcast."""
    if number not in (0, second) or any(operator.attributes.get(name) for name in ("transA", "transB")):
        return None
    shape, outputs = operator.shape_in(number), operator.shape_out(output)
    left_rank, right_rank = len(operator.shape_in(0)), len(operator.shape_in(second))
    if len(shape) == 1:
        return PerAxis(((None, Whole(shape[0])),), outputs)
    own_in = len(shape) - (2 if number == 0 else 1)
    # A factor of one axis gives none of its own to the product.
    matrix_axes = (left_rank > 1) + (right_rank > 1)
    own_out = len(outputs) - (matrix_axes if number == 0 else 1)
    leading = len(outputs) - matrix_axes
    links: list[Link] = []
    for axis, length in enumerate(shape):
        if axis == own_in:
            links.append((own_out, Same()))
        elif axis >= len(shape) - 2:
            links.append((None, Whole(length)))
        else:
            place = leading - (len(shape) - 2) + axis
            links.append((place, Same()) if length == outputs[place] else (None, Whole(length)))
    return PerAxis(tuple(links), outputs)


def einsum(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Einsum without an ellipsis: a letter of the result stays in place, any other is read whole."""
    equation = str(operator.attributes["equation"]).replace(" ", "")
    if "." in equation:
        return None
    terms, _, result = equation.partition("->")
    letters = terms.split(",")
    if "->" not in equation:
        result = "".join(sorted(letter for letter in set(terms) - {","} if terms.count(letter) == 1))
    shape = operator.shape_in(number)
    links: list[Link] = [
        (result.index(letter), Same()) if letter in result else (None, Whole(length))
        for letter, length in zip(letters[number], shape, strict=True)
    ]
    return PerAxis(tuple(links), operator.shape_out(output))


def attention(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Attention in one operator: every position looks at every other."""
    return Everything(operator.shape_in(number), operator.shape_out(output))
