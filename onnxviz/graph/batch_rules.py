"""An operator and the batch axes of its inputs come in; those of its outputs, and the operator patched, go out.

One rule per family of operators. Each either follows the batch, or raises :class:`CannotRewrite`; a rule that patches a
number keeps the result for the stated batch as it was. Rules for operators that rearrange are next door.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnxviz.graph.batch_shape_rules import (
    concat,
    expand,
    flatten,
    gather,
    pad,
    reshape,
    resize,
    shape_of,
    slice_,
    split,
    squeeze,
    tile,
    transpose,
    unsqueeze,
)
from onnxviz.graph.batch_state import (
    BatchAxis,
    BatchState,
    CannotRewrite,
    carried_inputs,
    data_axis,
    give_outputs,
    is_plain,
    positive_axis,
)
from onnxviz.graph.wiring import attribute

__all__ = ["RULES"]

Rule = Callable[[onnx.NodeProto, BatchState], None]


def same_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Element by element on the first input: the batch stays where it is."""
    give_outputs(node, state, data_axis(node, state))
    state.keep(node)


def first_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Operators that the standard defines with the batch in first place."""
    found = {state.axes[name] for name in carried_inputs(node, state)}
    if len(found) != 1 or next(iter(found)).axis != 0:
        raise CannotRewrite(f"{node.op_type} whose batch is not its first axis")
    give_outputs(node, state, found.pop())
    state.keep(node)


def broadcast(node: onnx.NodeProto, state: BatchState) -> None:
    """Element by element on several inputs, shapes aligned at the last axis."""
    carried = carried_inputs(node, state)
    found = {state.axes[name] for name in carried}
    if any(name not in state.shapes for name in carried):
        if len(found) != 1 or next(iter(found)).axis != 0:
            raise CannotRewrite(f"{node.op_type} on values of unknown shape")
        give_outputs(node, state, found.pop())
        state.keep(node)
        return
    rank = max(len(state.shape(name)) for name in node.input if name)
    found = {state.axes[name].moved(state.axes[name].axis + rank - len(state.shape(name))) for name in carried}
    if len(found) != 1:
        raise CannotRewrite(f"{node.op_type} of values whose batches lie on different axes")
    axis = found.pop()
    for name in node.input:
        if name and name not in state.axes:
            sides = state.shape(name)
            aligned = axis.axis - (rank - len(sides))
            if aligned >= 0 and sides[aligned] != 1:
                raise CannotRewrite(f"{name!r} holds a row for each image")
    give_outputs(node, state, axis)
    state.keep(node)


def reduce(node: onnx.NodeProto, state: BatchState) -> None:
    """Sums, means and extremes over axes that are not the batch."""
    batch = data_axis(node, state)
    rank = len(state.shape(node.input[0]))
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = state.fixed(node.input[1])
    if node.op_type in ("ArgMax", "ArgMin"):
        axes = [attribute(node, "axis", 0)]
    if not axes:
        if attribute(node, "noop_with_empty_axes", 0):
            same_axis(node, state)
            return
        raise CannotRewrite(f"{node.op_type} over everything, the batch too")
    gone = {positive_axis(axis, rank) for axis in axes}
    if batch.axis in gone:
        raise CannotRewrite(f"{node.op_type} over the batch")
    dropped = 0 if attribute(node, "keepdims", 1) else sum(axis < batch.axis for axis in gone)
    give_outputs(node, state, batch.moved(batch.axis - dropped))
    state.keep(node)


def along_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Softmax, LayerNormalization, TopK and the like: values mix along one axis, or from one axis on."""
    batch = data_axis(node, state)
    rank = len(state.shape(node.input[0]))
    coerced = node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and state.opset < 13
    default = 1 if coerced else -1
    if node.op_type == "CumSum":
        axis = positive_axis(state.fixed(node.input[1])[0], rank)
    else:
        axis = positive_axis(int(attribute(node, "axis", default)), rank)
    from_there_on = coerced or node.op_type.endswith("LayerNormalization") or node.op_type == "RMSNormalization"
    if batch.axis == axis or (from_there_on and batch.axis > axis):
        raise CannotRewrite(f"{node.op_type} along the batch")
    give_outputs(node, state, batch)
    state.keep(node)


def matmul(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch lies in a row of the left matrix, in a column of the right one, or in the stack of matrices."""
    left, right = (node.input[0], node.input[1]) if node.op_type != "QLinearMatMul" else (node.input[0], node.input[3])
    ranks = [len(state.shape(name)) for name in (left, right)]
    if min(ranks) < 2:
        raise CannotRewrite("MatMul with a vector")
    rank = max(ranks)
    found = set()
    for name, own, shared in ((left, ranks[0], ranks[0] - 1), (right, ranks[1], ranks[1] - 2)):
        if name in state.axes:
            batch = state.axes[name]
            if batch.axis == shared:
                raise CannotRewrite("MatMul sums over the batch")
            found.add(batch.moved(batch.axis + rank - own))
    if len(found) != 1:
        raise CannotRewrite("MatMul of values whose batches lie on different axes")
    batch = found.pop()
    for name, own in ((left, ranks[0]), (right, ranks[1])):
        aligned = batch.axis - (rank - own)
        stacked = batch.axis < rank - 2 and aligned >= 0 and name not in state.axes
        if stacked and state.shape(name)[aligned] != 1:
            raise CannotRewrite("MatMul with a matrix for each image")
    give_outputs(node, state, batch)
    state.keep(node)


def gemm(node: onnx.NodeProto, state: BatchState) -> None:
    """Rows of the left matrix."""
    rows = 1 if attribute(node, "transA", 0) else 0
    batch = data_axis(node, state)
    if batch.axis != rows:
        raise CannotRewrite("Gemm sums over the batch")
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        bias = state.shape(node.input[2])
        if len(bias) == 2 and bias[0] != 1:
            raise CannotRewrite("Gemm with a bias for each image")
    give_outputs(node, state, batch.moved(0))
    state.keep(node)


def recurrent(node: onnx.NodeProto, state: BatchState) -> None:
    """LSTM, GRU, RNN: stated initial states are repeated for every image."""
    data = node.input[0]
    if data not in state.axes:
        raise CannotRewrite(f"{node.op_type} with a batch among its parameters")
    batch_first = bool(attribute(node, "layout", 0))
    batch = state.axes[data]
    if batch != BatchAxis(0 if batch_first else 1):
        raise CannotRewrite(f"{node.op_type} runs along the batch")
    states = 0 if batch_first else 1
    parts = list(node.input)
    for place, axis in ((4, 0), (5, states), (6, states)):
        if place < len(parts) and parts[place]:
            if parts[place] not in state.axes:
                parts[place] = state.repeat_over_batch(parts[place], axis, reference=data)
            elif state.axes[parts[place]] != BatchAxis(axis):
                raise CannotRewrite(f"{node.op_type} whose state has its batch elsewhere")
    copy = state.keep(node)
    del copy.input[:]
    copy.input.extend(parts)
    for name, axis in zip(node.output, (0 if batch_first else 2, states, states), strict=False):
        if name:
            state.axes[name] = BatchAxis(axis)


def einsum(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch's letter must stay."""
    terms, _, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    letters = {
        term[state.axes[name].axis]
        for term, name in zip(terms.split(","), node.input, strict=True)
        if name in state.axes and "." not in term and is_plain(state.axes[name])
    }
    if len(letters) != 1 or "." in terms or not result or (letter := letters.pop()) not in result:
        raise CannotRewrite("Einsum over the batch")
    for term, name in zip(terms.split(","), node.input, strict=True):
        if letter in term and name not in state.axes:
            raise CannotRewrite("Einsum with a matrix for each image")
    give_outputs(node, state, BatchAxis(result.index(letter)))
    state.keep(node)


_FAMILIES: tuple[tuple[Rule, str], ...] = (
    (
        same_axis,
        "Abs Acos Acosh Affine Asin Asinh Atan Atanh BiasGelu BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh"
        " DequantizeLinear Dropout Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish Identity ImageScaler IsInf"
        " IsNaN LeakyRelu Log Mish Neg Not ParametricSoftplus QLinearLeakyRelu QLinearSigmoid QuantizeLinear QuickGelu"
        " Reciprocal Relu Round ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh"
        " ThresholdedRelu",
    ),
    (
        broadcast,
        "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean"
        " Min Mod Mul Or Pow PRelu Sub Sum Where Xor",
    ),
    (
        first_axis,
        "Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv DepthToSpace FusedConv"
        " GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample GroupNorm GroupNormalization InstanceNormalization"
        " LRN LpPool MaxPool MultiHeadAttention NhwcMaxPool QAttention QLinearAveragePool QLinearConv"
        " QLinearGlobalAveragePool RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization"
        " SpaceToDepth",
    ),
    (
        reduce,
        "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd"
        " ReduceSum ReduceSumSquare",
    ),
    (
        along_axis,
        "CumSum Hardmax LayerNormalization LogSoftmax LpNormalization RMSNormalization SimplifiedLayerNormalization"
        " Softmax TopK",
    ),
    (transpose, "Transpose"),
    (reshape, "Reshape"),
    (flatten, "Flatten"),
    (squeeze, "Squeeze"),
    (unsqueeze, "Unsqueeze"),
    (concat, "Concat"),
    (split, "Split"),
    (slice_, "Slice"),
    (gather, "Gather"),
    (pad, "Pad"),
    (tile, "Tile"),
    (expand, "Expand"),
    (resize, "Resize Upsample"),
    (matmul, "MatMul MatMulInteger QLinearMatMul"),
    (gemm, "Gemm"),
    (recurrent, "LSTM GRU RNN"),
    (shape_of, "Shape Size"),
    (einsum, "Einsum"),
)

RULES: dict[str, Rule] = {op_type: rule for rule, op_types in _FAMILIES for op_type in op_types.split()}
"""The rule of each operator that can be followed."""
