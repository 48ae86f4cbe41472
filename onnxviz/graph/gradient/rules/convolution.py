"""Convolutions and their transposes: the adjoint of one is the other with the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, first
from onnxviz.graph.gradient.rules.windows import Windows, spread, windows_of

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


def _kernel(b: Backward, node: Node) -> tuple[int, ...]:
    sides = b.sides(node.inputs[1])[2:]
    kernel = node.attribute("kernel_shape") or [side for side in sides if isinstance(side, int)]
    if len(kernel) != len(sides):
        raise LookupError("the size of its kernel is not known")
    return tuple(kernel)


def _convolution(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, weights), y = first(adjoints), node.inputs[:2], node.outputs[0]
    windows = windows_of(b, node, x, _kernel(b, node))
    groups = node.attribute("group", 1)
    return [
        spread(b, g, weights, x, y, windows, groups) if b.wants(x) else None,
        _of_weights(b, g, x, weights, windows, groups) if b.wants(weights) else None,
        _of_bias(b, node, g),
    ]


def _of_bias(b: Backward, node: Node, g: str) -> str | None:
    if not node.has_input(2) or not b.wants(node.inputs[2]):
        return None
    spatial = range(2, b.rank(node.outputs[0]))
    return b.emit("ReduceSum", g, b.integers([0, *spatial]), keepdims=0)


def _of_weights(b: Backward, g: str, x: str, weights: str, windows: Windows, groups: int) -> str:
    """Adjoint of the weights: the map is convolved with the adjoint, images take the part of channels.

    Strides and dilations change places: the weights' neighbours are a dilation apart, the windows a stride.
    """
    if windows.begin is None or windows.end is None:
        raise LookupError("paddings that follow from sides which only a run knows")
    spatial = list(range(3, 3 + len(windows.kernel)))
    outputs, inputs = b.sides(weights)[0], b.sides(weights)[1]
    if not isinstance(outputs, int) or not isinstance(inputs, int):
        raise LookupError("the number of its channels is not known")
    batch, map_sides, g_sides = b.side(x, 0), b.shape_part(x, 2), b.emit("Shape", g, start=2)

    def regrouped(value: str, channels: int, sides: str, order: list[int], *rows: str) -> str:
        split = b.emit("Concat", batch, b.integers([groups, channels]), sides, axis=0)
        turned = b.emit("Transpose", b.emit("Reshape", value, split), perm=order + spatial)
        return b.emit("Reshape", turned, b.emit("Concat", *rows, sides, axis=0))

    images = b.emit("Mul", batch, b.integers([groups]))
    maps = regrouped(x, inputs, map_sides, [2, 1, 0], b.integers([inputs]), images)
    kernels = regrouped(g, outputs // groups, g_sides, [1, 2, 0], b.integers([outputs]), batch)
    product = b.emit(
        "Conv", maps, kernels, group=groups, strides=list(windows.dilations), dilations=list(windows.strides),
        pads=[*windows.begin, *windows.end],
    )  # fmt: skip
    axes = list(windows.axes)
    cut = b.emit("Slice", product, b.integers([0] * len(axes)), b.integers(windows.kernel), b.integers(axes))
    return b.emit("Transpose", cut, perm=[1, 0, *axes])


def _transposed(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, weights) = first(adjoints), node.inputs[:2]
    if str(node.attribute("auto_pad", "NOTSET")) not in ("NOTSET", "VALID") or node.attribute("output_shape"):
        raise LookupError("paddings that follow from an output shape")
    if b.wants(weights):
        raise LookupError("the derivative by the weights of a transposed convolution")
    kernel = _kernel(b, node)
    ones, count = [1] * len(kernel), len(kernel)
    pads = node.attribute("pads", [0] * 2 * count)
    gathered = b.emit(
        "Conv", g, weights, strides=node.attribute("strides", ones), dilations=node.attribute("dilations", ones),
        group=node.attribute("group", 1), pads=pads,
    )  # fmt: skip
    if any(node.attribute("output_padding", [0] * count)):
        # The output's additional border may hold one window more.
        axes = b.integers(list(range(2, 2 + count)))
        gathered = b.emit("Slice", gathered, b.integers([0] * count), b.shape_part(x, 2), axes)
    return [gathered if b.wants(x) else None, None, _of_bias(b, node, g)]


RULES: Mapping[str, Rule] = {"Conv": _convolution, "ConvTranspose": _transposed}
