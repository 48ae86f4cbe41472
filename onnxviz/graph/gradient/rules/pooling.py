"""Pooling: maxima send their adjoint to where they were found, averages share it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from onnxviz.graph.gradient.builder import numpy_type
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first
from onnxviz.graph.gradient.rules.windows import Windows, cut_to_map, spread, windows_of

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


def _max_pool(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """The first of equal maxima takes the adjoint, as onnxruntime numbers them and as PyTorch does."""
    if not adjoints or adjoints[0] is None:
        raise LookupError("the explained number depends on the places of the maxima")
    g, x = adjoints[0], node.inputs[0]
    if node.has_output(1) and not node.attribute("storage_order", 0):
        places = node.outputs[1]
    else:
        places = b.emit_many("MaxPool", 2, x, **node.attributes("storage_order"))[1]
    windows = windows_of(b, node, x, node.attribute("kernel_shape"))
    apart = all(r < stride for r, stride in zip(windows.reach, windows.strides, strict=True))
    if apart and b.adjoint_type(x) == 1:
        # No element is in two windows, so nothing has to be added up. (onnxruntime unpools float32 only.)
        return [b.emit(
            "MaxUnpool", g, places, b.shape(x), kernel_shape=list(windows.kernel), strides=list(windows.strides)
        )]  # fmt: skip
    return [b.scatter_back(g, places, x)]


def _average_pool(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, x, y = first(adjoints), node.inputs[0], node.outputs[0]
    windows = windows_of(b, node, x, node.attribute("kernel_shape"))
    channels = b.sides(x)[1]
    if not isinstance(channels, int):
        raise LookupError("the number of channels is not known")
    ones = b.constant(np.ones((channels, 1, *windows.kernel), numpy_type(b.adjoint_type(x))))
    unpadded = windows.begin is not None and windows.end is not None and not any(windows.begin + windows.end)
    if not windows.rounded_up and (unpadded or node.attribute("count_include_pad", 0)):
        shared = b.emit("Mul", g, b.number(1 / float(np.prod(windows.kernel)), x))
    else:
        shared = b.emit("Mul", g, _one_over_divisor(b, node, x, y, windows))
    if not windows.rounded_up:
        return [spread(b, shared, ones, x, y, windows, channels)]
    # The last window may begin inside and end outside the padded map, or leave a rest: fill up, then cut.
    whole = b.emit(
        "ConvTranspose", shared, ones, strides=list(windows.strides), dilations=list(windows.dilations),
        group=channels, output_padding=[stride - 1 for stride in windows.strides],
    )  # fmt: skip
    end = windows.end or (0,) * len(windows.kernel)
    room = [r + 1 + stride + pad for r, stride, pad in zip(windows.reach, windows.strides, end, strict=True)]
    filled = b.emit("Pad", whole, b.integers([0] * (2 + len(room)) + [0, 0] + room))
    return [cut_to_map(b, filled, x, y, windows)]


def _one_over_divisor(b: Backward, node: Node, x: str, y: str, windows: Windows) -> str:
    """1 / (what each window was divided by), (1, 1, *sides).

    Of a map of ones, the average is count / divisor and the sum is the count, whatever the rules for padding are.
    """
    dtype = numpy_type(b.adjoint_type(x))
    one = helper.make_tensor("value", b.adjoint_type(x), [1], [1.0])
    shape = b.emit("Concat", b.integers([1, 1]), b.shape_part(x, 2), axis=0)
    ones = b.emit("ConstantOfShape", shape, value=one)
    averages = b.emit("AveragePool", ones, **node.attributes())
    kernel = b.constant(np.ones((1, 1, *windows.kernel), dtype))
    stepping = {"strides": list(windows.strides), "dilations": list(windows.dilations)}
    if windows.begin is None or windows.end is None:
        counts = b.emit("Conv", ones, kernel, auto_pad=windows.automatic, **stepping)
    else:
        # With ceil_mode the last window may hang over: room for it, then as many windows as there are.
        over = [stride - 1 if windows.rounded_up else 0 for stride in windows.strides]
        pads = [*windows.begin, *(pad + more for pad, more in zip(windows.end, over, strict=True))]
        counts = b.emit("Conv", ones, kernel, pads=pads, **stepping)
        if windows.rounded_up:
            axes = list(windows.axes)
            counts = b.emit("Slice", counts, b.integers([0] * len(axes)), b.shape_part(y, 2), b.integers(axes))
    return b.emit("Div", averages, b.emit("Max", counts, b.number(1, x)))


def _global_average_pool(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, x = first(adjoints), node.inputs[0]
    count = b.element_count(x, list(range(2, b.rank(x))))
    return [b.emit("Expand", b.emit("Div", g, count), b.shape(x))]


def _global_max_pool(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    """Equal maxima share the adjoint, as in PyTorch's ``amax``."""
    g, x, y = first(adjoints), node.inputs[0], node.outputs[0]
    attains = b.emit("Cast", b.emit("Equal", x, y), to=b.adjoint_type(x))
    count = b.emit("ReduceSum", attains, b.integers(list(range(2, b.rank(x)))), keepdims=1)
    return [b.emit("Mul", attains, b.emit("Div", g, count))]


RULES: Mapping[str, Rule] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
}
