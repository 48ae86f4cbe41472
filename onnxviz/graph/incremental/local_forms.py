"""An operator comes in; the node that computes it on a window, and which windows of its inputs that reads, go out.

What has no form here (whatever mixes all positions, and whatever nobody wrote a rule for) is computed on whole maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import helper

from onnxviz.graph.blocked import BLOCKED_DOMAIN
from onnxviz.graph.incremental.layouts import Layout
from onnxviz.graph.regions.node import Operator, Shape
from onnxviz.graph.regions.window_rules import begin_pads

__all__ = ["SAME", "LocalForm", "Reads", "local_form"]


@dataclass(frozen=True)
class Reads:
    """Along one axis: the output window [start, start + width) reads ``width_in(width)`` places from ``start_in``."""

    step: int = 1
    pad: int = 0
    extent: int = 1

    def first(self, start: np.ndarray) -> np.ndarray:
        """Where the input window begins; may lie before the map."""
        return start * self.step - self.pad

    def width(self, width: np.ndarray) -> np.ndarray:
        """How many places it has."""
        return (width - 1) * self.step + self.extent


SAME = (Reads(), Reads())
"""Rows and columns of an operator that computes every place from the same place."""


@dataclass(frozen=True)
class LocalForm:
    """How one operator runs on windows."""

    node: onnx.NodeProto
    """The node to run: it pads nothing, because its windows bring their borders along."""
    layout: Layout
    """Of its outputs."""
    reads: Mapping[int, tuple[Reads, Reads]]
    """Number of each input that depends on the image → what it reads along rows and columns."""
    border: float | None = None
    """What this operator takes for the places outside the map; None where it reads none."""
    kept_pads: tuple[tuple[int, int], tuple[int, int]] | None = None
    """Pads before and after on both axes where the node keeps them, because what they do no border value can say.

    Outputs whose reading crosses the rim of a window inside the map are then wrong, and are not taken over.
    """


@dataclass(frozen=True)
class _Case:
    node: onnx.NodeProto
    operator: Operator
    inputs: Mapping[int, Layout]
    """Layout of each input that depends on the image."""

    @property
    def blocked(self) -> bool:
        return self.node.domain == BLOCKED_DOMAIN

    def only(self, *numbers: int) -> bool:
        """Whether no other input than these depends on the image."""
        return set(self.inputs) <= set(numbers)

    def one_layout(self) -> Layout:
        """The layout of all inputs; ``LookupError`` where they differ."""
        layouts = set(self.inputs.values())
        if len(layouts) != 1:
            raise LookupError("inputs of several layouts")
        return layouts.pop()


def local_form(node: onnx.NodeProto, operator: Operator, inputs: Mapping[int, Layout]) -> LocalForm | None:
    """Find how an operator runs on windows.

    Parameters
    ----------
    node : onnx.NodeProto
    operator : Operator
        The same node with concrete shapes.
    inputs : mapping of input number to Layout
        Every input that depends on the image.

    Returns
    -------
    LocalForm or None
        None where the operator has to see whole maps.
    """
    rule = _RULES.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
    if rule is None or any(len(shape or ()) != 4 for shape in operator.output_shapes):
        return None
    try:
        return rule(_Case(node, operator, inputs))
    except (LookupError, ValueError, TypeError):
        # An unusual node is no error here: it is computed on whole maps.
        return None


def _copy(node: onnx.NodeProto, *removed: str, **attributes: object) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    left = [entry for entry in copy.attribute if entry.name not in (*removed, *attributes)]
    del copy.attribute[:]
    copy.attribute.extend(left)
    copy.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return copy


# -- place by place ---------------------------------------------------------------------------------------------------


def _elementwise(case: _Case, *, data: Callable[[int], bool] = lambda _: True) -> LocalForm | None:
    """Every place by itself; constants must be the same at every place."""
    layout = case.one_layout()
    size = layout.size(case.operator.shape_out(0))
    for number, name in enumerate(case.operator.inputs):
        if not name:
            continue
        if number in case.inputs:
            if not data(number) or layout.size(case.operator.shape_in(number)) != size:
                return None
        elif data(number) and not _even(case.operator.shape_in(number), layout):
            return None
    return LocalForm(case.node, layout, dict.fromkeys(case.inputs, SAME))


def _even(shape: Shape, layout: Layout) -> bool:
    """Whether a constant of this shape, broadcast from the right, is the same at every place."""
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    return len(padded) == 4 and layout.size(padded) == (1, 1)


def _first_input(case: _Case) -> LocalForm | None:
    """Scales, zero points and the like: one for all, or one for each channel."""
    if not case.only(0) or case.operator.attributes.get("block_size", 0):
        return None
    for number in range(1, len(case.operator.inputs)):
        if not case.operator.has_input(number):
            continue
        shape = case.operator.shape_in(number)
        of_channels = len(shape) == 1 and case.operator.axis(1, 4) == case.one_layout().channel_axis
        if math.prod(shape) != 1 and not of_channels:
            return None
    return _elementwise(case, data=lambda number: number == 0)


def _channels_first(case: _Case) -> LocalForm | None:
    """Something over channels that takes axis 1 for them."""
    return _first_input(case) if case.one_layout() is not Layout.LAST and len(case.node.output) == 1 else None


def _over_channels(case: _Case, *, default: int, keyword: str = "axis") -> LocalForm | None:
    """Something along the channel axis, which the node names."""
    if not case.only(0) or len([name for name in case.node.output if name]) != 1:
        return None
    layout = case.one_layout()
    axes = case.operator.integers(1, keyword) if keyword == "axes" else [case.operator.axis(default, 4)]
    if axes is None or [axis % 4 for axis in axes] != [layout.channel_axis]:
        return None
    return LocalForm(case.node, layout, {0: SAME})


def _reduction(case: _Case) -> LocalForm | None:
    return _over_channels(case, default=1, keyword="axes") if case.operator.attributes.get("keepdims", 1) else None


def _layer_normalization(case: _Case) -> LocalForm | None:
    # It normalises over all axes from its own to the last: channels alone only where these come last.
    flat = all(
        len(case.operator.shape_in(number)) == 1
        for number in range(1, len(case.operator.inputs))
        if case.operator.has_input(number)
    )
    return _over_channels(case, default=-1) if flat and case.one_layout() is Layout.LAST else None


def _matrix_product(case: _Case) -> LocalForm | None:
    right = case.operator.shape_in(1)
    return LocalForm(case.node, Layout.LAST, {0: SAME}) if (
        case.only(0) and case.one_layout() is Layout.LAST and len(right) == 2
    ) else None  # fmt: skip


def _joined_channels(case: _Case, *, first: int = 0, every: int = 1) -> LocalForm | None:
    layout = case.one_layout()
    parts = range(first, len(case.operator.inputs), every)
    whole = case.operator.axis(1, 4) == layout.channel_axis and set(case.inputs) == set(parts)
    return LocalForm(case.node, layout, dict.fromkeys(case.inputs, SAME)) if whole else None


def _split(case: _Case) -> LocalForm | None:
    layout = case.one_layout()
    return LocalForm(case.node, layout, {0: SAME}) if (
        case.only(0) and case.operator.axis(0, 4) == layout.channel_axis
    ) else None  # fmt: skip


def _pairs_of_three(case: _Case) -> LocalForm | None:
    """QLinearAdd, QLinearMul: data, scale, zero point, twice."""
    return _elementwise(case, data=lambda number: number in (0, 3))


# -- moving places ----------------------------------------------------------------------------------------------------


def _transpose(case: _Case) -> LocalForm | None:
    moves = {
        (Layout.LAST, (0, 3, 1, 2)): Layout.PLANAR,
        (Layout.PLANAR, (0, 2, 3, 1)): Layout.LAST,
    }
    layout = moves.get((case.one_layout(), tuple(case.operator.attributes.get("perm", ()))))
    return LocalForm(case.node, layout, {0: SAME}) if layout is not None else None


def _reorder_input(case: _Case) -> LocalForm | None:
    expected = Layout.LAST if case.operator.attributes.get("channels_last") else Layout.PLANAR
    return LocalForm(case.node, Layout.BLOCKED, {0: SAME}) if case.one_layout() is expected else None


def _reorder_output(case: _Case) -> LocalForm | None:
    layout = Layout.LAST if case.operator.attributes.get("channels_last") else Layout.PLANAR
    return LocalForm(case.node, layout, {0: SAME}) if case.one_layout() is Layout.BLOCKED else None


def _identity(case: _Case) -> onnx.NodeProto:
    return helper.make_node("Identity", [case.node.input[0]], list(case.node.output), name=case.node.name)


def _pad(case: _Case) -> LocalForm | None:
    """A constant rim: the window brings it along, and nothing is left to do."""
    layout = case.one_layout()
    if not case.only(0) or case.operator.attributes.get("mode", "constant") != "constant":
        return None
    if case.operator.has_input(3):
        return None
    pads = case.operator.integers(1, "pads")
    if pads is None or len(pads) != 8 or min(pads) < 0:
        return None
    others = [axis for axis in range(4) if axis not in layout.axes]
    if any(pads[axis] or pads[axis + 4] for axis in others):
        return None
    value = case.operator.numbers(2, "value")
    rows, columns = layout.axes
    return LocalForm(
        _identity(case), layout, {0: (Reads(pad=pads[rows]), Reads(pad=pads[columns]))},
        border=value[0] if value else 0.0,
    )  # fmt: skip


def _cut(case: _Case) -> LocalForm | None:
    """Slice: of channels as it is, of rows and columns by moving the window."""
    layout = case.one_layout()
    operator = case.operator
    starts, axes, steps = operator.integers(1, "starts"), operator.integers(3, "axes"), operator.integers(4, "steps")
    if not case.only(0) or starts is None:
        return None
    axes = [axis % 4 for axis in (axes if axes is not None else range(len(starts)))]
    shape, output = operator.shape_in(0), operator.shape_out(0)
    if all(axis not in layout.axes for axis in axes):
        return LocalForm(case.node, layout, {0: SAME}) if 0 not in axes else None
    # Of an axis that stays whole the start is 0, whatever the file says.
    begins = {
        axis: min(max(start + shape[axis] if start < 0 else start, 0), shape[axis])
        for start, axis in zip(starts, axes, strict=True)
        if output[axis] != shape[axis]
    }
    if any(axis not in layout.axes for axis in begins) or any(step != 1 for step in steps or ()):
        return None
    rows, columns = layout.axes
    return LocalForm(
        _identity(case), layout, {0: (Reads(pad=-begins.get(rows, 0)), Reads(pad=-begins.get(columns, 0)))}
    )


def _gather(case: _Case) -> LocalForm | None:
    layout = case.one_layout()
    whole = case.only(0) and case.operator.axis(0, 4) == layout.channel_axis and len(case.operator.shape_in(1)) == 1
    return LocalForm(case.node, layout, {0: SAME}) if whole else None


# -- windows ----------------------------------------------------------------------------------------------------------


def _kernel_layout(case: _Case) -> Layout:
    """The layout of what a convolution or pool reads; ``LookupError`` where it cannot take it."""
    if case.operator.attributes.get("channels_last"):
        wanted: tuple[Layout, ...] = (Layout.LAST,)
    else:
        # The first convolution of a blocked graph reads the image as it is.
        wanted = (Layout.BLOCKED, Layout.PLANAR) if case.blocked else (Layout.PLANAR,)
    if case.inputs[0] not in wanted:
        raise LookupError("a layout that the operator does not read")
    return case.inputs[0]


@dataclass(frozen=True)
class _Kernel:
    reads: tuple[Reads, Reads]
    before: tuple[int, int]
    after: tuple[int, int]
    """Padding that the last output reads, ceil_mode included."""

    @property
    def pads(self) -> bool:
        return any(self.before) or any(after > 0 for after in self.after)


def _kernel(case: _Case, kernel: list[int], output: Layout) -> _Kernel:
    source = _kernel_layout(case).size(case.operator.shape_in(0))
    target = output.size(case.operator.shape_out(0))
    attributes = case.operator.attributes
    strides, dilations = attributes.get("strides") or [1, 1], attributes.get("dilations") or [1, 1]
    before = begin_pads(case.operator, kernel, strides, dilations, source)
    reads = [
        Reads(step, pad, (side - 1) * spread + 1)
        for side, step, pad, spread in zip(kernel, strides, before, dilations, strict=True)
    ]
    after = [(n - 1) * r.step - r.pad + r.extent - m for n, m, r in zip(target, source, reads, strict=True)]
    return _Kernel((reads[0], reads[1]), (before[0], before[1]), (after[0], after[1]))


_UNPADDED = {"pads": [0, 0, 0, 0]}


def _convolution(case: _Case, *, weights: int = 1, zero_point: int | None = None) -> LocalForm | None:
    fused_sum = 3 if zero_point is None else 0
    if not case.only(0, fused_sum):
        return None
    if zero_point is None and case.operator.has_input(3) and 3 not in case.inputs:
        return None  # a sum with a constant map
    kernel = case.operator.attributes.get("kernel_shape") or list(case.operator.shape_in(weights)[2:])
    layout = Layout.BLOCKED if case.blocked else _kernel_layout(case)
    found = _kernel(case, list(kernel), layout)
    border = 0.0
    if zero_point is not None:
        points = case.operator.numbers(zero_point)
        border = points[0] if points else 0.0
    reads = {0: found.reads}
    if 3 in case.inputs and zero_point is None:
        if case.inputs[3] is not layout:
            return None
        reads[3] = SAME
    return LocalForm(_copy(case.node, "auto_pad", **_UNPADDED), layout, reads, border if found.pads else None)


def _max_pool(case: _Case) -> LocalForm | None:
    if not case.only(0) or len([name for name in case.node.output if name]) != 1:
        return None
    layout = _kernel_layout(case)
    found = _kernel(case, list(case.operator.attributes["kernel_shape"]), layout)
    node = _copy(case.node, "auto_pad", "ceil_mode", **_UNPADDED)
    return LocalForm(node, layout, {0: found.reads}, -np.inf if found.pads else None)


def _average_pool(case: _Case) -> LocalForm | None:
    if not case.only(0):
        return None
    layout = _kernel_layout(case)
    found = _kernel(case, list(case.operator.attributes["kernel_shape"]), layout)
    if not found.pads:
        return LocalForm(_copy(case.node, "auto_pad", "ceil_mode", **_UNPADDED), layout, {0: found.reads})
    if case.operator.attributes.get("ceil_mode", 0):
        return None
    if case.operator.attributes.get("count_include_pad", 0):
        return LocalForm(_copy(case.node, "auto_pad", **_UNPADDED), layout, {0: found.reads}, 0.0)
    # Places of the rim divide by fewer numbers: only the operator's own padding knows how many.
    if max(case.operator.attributes.get("dilations") or [1]) > 1:
        return None
    pads = [*found.before, *(max(after, 0) for after in found.after)]
    return LocalForm(
        _copy(case.node, "auto_pad", pads=pads), layout, {0: found.reads},
        kept_pads=((pads[0], pads[2]), (pads[1], pads[3])),
    )  # fmt: skip


def _quantized_average_pool(case: _Case) -> LocalForm | None:
    found = _average_pool(case)
    return found if found is not None and found.kept_pads is None and found.border is None else None


_Rule = Callable[[_Case], LocalForm | None]

_PLACE_BY_PLACE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg",
    "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip

_RULES: Mapping[tuple[str, str], _Rule] = {
    **{("", op_type): _elementwise for op_type in _PLACE_BY_PLACE},
    **{("com.microsoft", op_type): _elementwise for op_type in ("BiasGelu", "FastGelu", "Gelu", "QuickGelu")},
    **{("", op_type): _first_input for op_type in ("DequantizeLinear", "Dropout", "QuantizeLinear")},
    **{("com.microsoft", op_type): _first_input for op_type in (
        "DequantizeLinear", "QLinearLeakyRelu", "QLinearSigmoid", "QuantizeLinear",
    )},
    **{("com.microsoft", op_type): _pairs_of_three for op_type in ("QLinearAdd", "QLinearMul")},
    **{("", op_type): _channels_first for op_type in ("BatchNormalization", "LRN")},
    **{("", op_type): _reduction for op_type in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL2")},
    ("", "LayerNormalization"): _layer_normalization,
    ("", "MatMul"): _matrix_product,
    ("", "Concat"): _joined_channels,
    ("com.microsoft", "QLinearConcat"): partial(_joined_channels, first=2, every=3),
    ("", "Split"): _split,
    ("", "Transpose"): _transpose,
    ("", "Pad"): _pad,
    ("", "Slice"): _cut,
    ("", "Gather"): _gather,
    (BLOCKED_DOMAIN, "ReorderInput"): _reorder_input,
    (BLOCKED_DOMAIN, "ReorderOutput"): _reorder_output,
    **{(domain, "Conv"): _convolution for domain in ("", BLOCKED_DOMAIN)},
    ("com.microsoft", "FusedConv"): _convolution,
    **{(domain, "QLinearConv"): partial(_convolution, weights=3, zero_point=2) for domain in ("", "com.microsoft")},
    **{(domain, "MaxPool"): _max_pool for domain in ("", BLOCKED_DOMAIN)},
    **{(domain, "AveragePool"): _average_pool for domain in ("", BLOCKED_DOMAIN)},
    ("com.microsoft", "QLinearAveragePool"): _quantized_average_pool,
}  # fmt: skip
"""By domain and operator type."""
