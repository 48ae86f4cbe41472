"""An operator and the batch axes of its inputs come in; those of its outputs, and the operator patched, go out.

One rule per family of operators. Each either follows the batch, or raises :class:`CannotRewrite`; a rule that patches a
number keeps the result for the stated batch as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from onnxviz.graph.batch_state import PROBE, BatchAxis, BatchState, CannotRewrite, resolve_sides
from onnxviz.graph.wiring import attribute

__all__ = ["RULES"]

Rule = Callable[[onnx.NodeProto, BatchState], None]
_END = (1 << 63) - 1


def _carried(node: onnx.NodeProto, state: BatchState) -> list[str]:
    return [name for name in node.input if name in state.axes]


def _give(node: onnx.NodeProto, state: BatchState, axis: BatchAxis) -> None:
    for name in filter(None, node.output):
        state.axes[name] = axis


def _positive(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _only_data(node: onnx.NodeProto, state: BatchState) -> BatchAxis:
    """The first input's batch axis; the other inputs are parameters."""
    if node.input[0] not in state.axes or len(_carried(node, state)) > 1:
        raise CannotRewrite(f"{node.op_type} with a batch among its parameters")
    return state.axes[node.input[0]]


def same_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Element by element on the first input: the batch stays where it is."""
    _give(node, state, _only_data(node, state))
    state.keep(node)


def first_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Operators that the standard defines with the batch in first place."""
    found = {state.axes[name] for name in _carried(node, state)}
    if len(found) != 1 or next(iter(found)).axis != 0:
        raise CannotRewrite(f"{node.op_type} whose batch is not its first axis")
    _give(node, state, found.pop())
    state.keep(node)


def broadcast(node: onnx.NodeProto, state: BatchState) -> None:
    """Element by element on several inputs, shapes aligned at the last axis."""
    carried = _carried(node, state)
    found = {state.axes[name] for name in carried}
    if any(name not in state.shapes for name in carried):
        if len(found) != 1 or next(iter(found)).axis != 0:
            raise CannotRewrite(f"{node.op_type} on values of unknown shape")
        _give(node, state, found.pop())
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
    _give(node, state, axis)
    state.keep(node)


def reduce(node: onnx.NodeProto, state: BatchState) -> None:
    """Sums, means and extremes over axes that are not the batch."""
    batch = _only_data(node, state)
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
    gone = {_positive(axis, rank) for axis in axes}
    if batch.axis in gone:
        raise CannotRewrite(f"{node.op_type} over the batch")
    dropped = 0 if attribute(node, "keepdims", 1) else sum(axis < batch.axis for axis in gone)
    _give(node, state, batch.moved(batch.axis - dropped))
    state.keep(node)


def along_axis(node: onnx.NodeProto, state: BatchState) -> None:
    """Softmax, LayerNormalization, TopK and the like: values mix along one axis, or from one axis on."""
    batch = _only_data(node, state)
    rank = len(state.shape(node.input[0]))
    coerced = node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and state.opset < 13
    default = 1 if coerced else -1
    if node.op_type == "CumSum":
        axis = _positive(state.fixed(node.input[1])[0], rank)
    else:
        axis = _positive(int(attribute(node, "axis", default)), rank)
    from_there_on = coerced or node.op_type.endswith("LayerNormalization") or node.op_type == "RMSNormalization"
    if batch.axis == axis or (from_there_on and batch.axis > axis):
        raise CannotRewrite(f"{node.op_type} along the batch")
    _give(node, state, batch)
    state.keep(node)


def transpose(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch moves with its axis."""
    batch = _only_data(node, state)
    order = attribute(node, "perm")
    order = list(order) if order else list(range(len(state.shape(node.input[0]))))[::-1]
    _give(node, state, batch.moved(order.index(batch.axis)))
    state.keep(node)


def reshape(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated side that holds the batch becomes -1; a -1 elsewhere becomes the number it stood for."""
    data, sides = node.input[0], node.input[1]
    if sides in state.sized:
        stated, probed = state.sized[sides]
        target = resolve_sides(state.shape(data), stated.tolist())
        grown = resolve_sides(state.probe_shape(data), probed.tolist())
        state.shapes[node.output[0]] = target
        place = state.differing_axis(target, grown).axis
        readings = [BatchAxis(place, target[place] // state.batch)]
        if data in state.axes:
            readings = _readings(state.shape(data), state.axes[data], target, state.batch)
            readings = [reading for reading in readings if reading.axis == place]
        if not readings:
            raise CannotRewrite("Reshape moves the batch")
        _give(node, state, readings[0])
        state.keep(node)
        return
    batch = _only_data(node, state)
    stated_sides = state.fixed(sides)
    source = state.shape(data)
    target = resolve_sides(source, stated_sides)
    reading = state.choose(_readings(source, batch, target, state.batch))
    place = reading.axis
    patched = list(stated_sides)
    if not (patched[place] == -1 or (patched[place] == 0 and place == batch.axis)):
        patched[place] = -1
    # Only one side may be left open, and a copied side must not be the batch's.
    patched = [
        target[i] if i != place and (side == -1 or (side == 0 and i == batch.axis)) else side
        for i, side in enumerate(patched)
    ]
    state.shapes[node.output[0]] = target
    _give(node, state, reading)
    copy = state.keep(node)
    if patched != stated_sides:
        copy.input[1] = state.store(patched, near=node.output[0])


def _readings(source: Sequence[int], batch: BatchAxis, target: Sequence[int], size: int) -> list[BatchAxis]:
    """Where the batch can lie after a Reshape, likeliest first: what lay before it still does, on its axis or others.

    Sides of 1 and a batch of 1 leave several readings; with more images only the one that the exporter meant runs.
    """
    before = math.prod(source[: batch.axis]) * batch.outer
    readings = []
    for place, side in enumerate(target):
        ahead = math.prod(target[:place])
        if ahead and before % ahead == 0 and side > 0 and side % (before // ahead * size) == 0:
            outer = before // ahead
            readings.append(BatchAxis(place, side // (outer * size), outer))
    if not readings:
        raise CannotRewrite("Reshape merges the batch with what lies before it")
    side_before = source[batch.axis]
    return sorted(readings, key=lambda r: (r.outer != 1, target[r.axis] != side_before, r.axis != batch.axis, r.axis))


def flatten(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch stays in first place."""
    batch = _only_data(node, state)
    axis = attribute(node, "axis", 1)
    sides = state.shape(node.input[0])
    axis = _positive(int(axis), len(sides))
    if batch.axis != 0 or (axis == 0 and sides[0] != 1):
        raise CannotRewrite("Flatten merges the batch with what lies before it")
    copy = state.keep(node)
    if axis == 0:
        # For one image (1, everything) either way.
        axis = 1
        del copy.attribute[:]
        copy.attribute.append(onnx.helper.make_attribute("axis", 1))
    _give(node, state, BatchAxis(0, batch.factor * math.prod(sides[1:axis]), batch.outer))


def squeeze(node: onnx.NodeProto, state: BatchState) -> None:
    """Sides of 1 go, the batch's must not."""
    batch = _only_data(node, state)
    axes = _listed_axes(node, state)
    sides = state.shape(node.input[0])
    gone = {_positive(axis, len(sides)) for axis in axes} if axes else {i for i, side in enumerate(sides) if side == 1}
    if batch.axis in gone or (not axes and sides[batch.axis] == 1):
        raise CannotRewrite("Squeeze removes the batch's axis")
    _give(node, state, batch.moved(batch.axis - sum(axis < batch.axis for axis in gone)))
    state.keep(node)


def unsqueeze(node: onnx.NodeProto, state: BatchState) -> None:
    """Sides of 1 come in."""
    batch = _only_data(node, state)
    axes = _listed_axes(node, state)
    rank = len(state.shape(node.input[0])) + len(axes)
    fresh = {_positive(axis, rank) for axis in axes}
    kept = [axis for axis in range(rank) if axis not in fresh]
    _give(node, state, batch.moved(kept[batch.axis]))
    state.keep(node)


def _listed_axes(node: onnx.NodeProto, state: BatchState) -> list[int]:
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = state.fixed(node.input[1])
    return [int(axis) for axis in axes or []]


def concat(node: onnx.NodeProto, state: BatchState) -> None:
    """Parts without batch, such as a class token, are repeated for every image."""
    carried = _carried(node, state)
    found = {state.axes[name] for name in carried}
    if len(found) != 1:
        raise CannotRewrite("Concat of values whose batches lie on different axes")
    batch = found.pop()
    rank = len(state.shape(carried[0]))
    if _positive(int(attribute(node, "axis", 1)), rank) == batch.axis:
        raise CannotRewrite("Concat along the batch")
    parts = [
        name if name in state.axes else state.repeat_over_batch(name, batch.axis, reference=carried[0])
        for name in node.input
    ]
    copy = state.keep(node)
    del copy.input[:]
    copy.input.extend(parts)
    _give(node, state, batch)


def split(node: onnx.NodeProto, state: BatchState) -> None:
    """Parts along another axis."""
    batch = _only_data(node, state)
    rank = len(state.shape(node.input[0]))
    if _positive(int(attribute(node, "axis", 0)), rank) == batch.axis:
        raise CannotRewrite("Split along the batch")
    _give(node, state, batch)
    state.keep(node)


def slice_(node: onnx.NodeProto, state: BatchState) -> None:
    """A range along the batch must be all of it, and then becomes open-ended."""
    batch = _only_data(node, state)
    sides = state.shape(node.input[0])
    by_input = len(node.input) > 1
    starts, ends = (
        (state.both(node.input[place])[0].tolist() for place in (1, 2))
        if by_input
        else (list(attribute(node, key)) for key in ("starts", "ends"))
    )
    axes: list[int] = list(range(len(starts)))
    if by_input and len(node.input) > 3 and node.input[3]:
        axes = state.fixed(node.input[3])
    elif not by_input and attribute(node, "axes"):
        axes = list(attribute(node, "axes"))
    axes = [_positive(axis, len(sides)) for axis in axes]
    copy = state.keep(node)
    _give(node, state, batch)
    if batch.axis not in axes:
        return
    place, side = axes.index(batch.axis), sides[batch.axis]
    steps = state.fixed(node.input[4]) if len(node.input) > 4 and node.input[4] else [1] * len(axes)
    if not (starts[place] == 0 or starts[place] <= -side) or ends[place] < side or steps[place] != 1:
        raise CannotRewrite("Slice along the batch")
    if by_input and node.input[2] in state.sized:
        if state.sized[node.input[2]][1][place] < side * PROBE:
            raise CannotRewrite("Slice along the batch")
        return
    ends[place] = _END
    if by_input:
        dtype = state.both(node.input[2])[0].dtype
        # Both range ends share one integer type.
        ends[place] = _END if dtype.itemsize == 8 else (1 << 31) - 1
        copy.input[2] = state.store(ends, near=node.output[0])
        if dtype.itemsize != 8:
            copy.input[1] = state.store(starts, near=node.output[0])
            for extra, content in ((3, axes), (4, steps)):
                if len(copy.input) > extra and copy.input[extra]:
                    copy.input[extra] = state.store(content, near=node.output[0])
        return
    for entry in copy.attribute:
        if entry.name == "ends":
            entry.ints[place] = _END


def gather(node: onnx.NodeProto, state: BatchState) -> None:
    """Picking along another axis, or a table looked up by indices that hold the batch."""
    data, indices = node.input[0], node.input[1]
    rank = len(state.shape(data))
    axis = _positive(int(attribute(node, "axis", 0)), rank)
    if data in state.axes and indices in state.axes:
        raise CannotRewrite("Gather by indices that hold the batch")
    if data in state.axes:
        batch = state.axes[data]
        if axis == batch.axis:
            raise CannotRewrite("Gather along the batch")
        moved = len(state.shape(indices)) - 1 if axis < batch.axis else 0
        _give(node, state, batch.moved(batch.axis + moved))
    else:
        batch = state.axes[indices]
        _give(node, state, batch.moved(axis + batch.axis))
    state.keep(node)


def pad(node: onnx.NodeProto, state: BatchState) -> None:
    """Padding along other axes."""
    batch = _only_data(node, state)
    rank = len(state.shape(node.input[0]))
    by_input = len(node.input) > 1 and node.input[1]
    pads = state.fixed(node.input[1]) if by_input else list(attribute(node, "pads", []))
    axes = state.fixed(node.input[3]) if len(node.input) > 3 and node.input[3] else list(range(rank))
    axes = [_positive(axis, rank) for axis in axes]
    if batch.axis in axes:
        place = axes.index(batch.axis)
        if pads[place] or pads[place + len(axes)]:
            raise CannotRewrite("Pad along the batch")
    _give(node, state, batch)
    state.keep(node)


def tile(node: onnx.NodeProto, state: BatchState) -> None:
    """Repetition along other axes."""
    batch = _only_data(node, state)
    if state.fixed(node.input[1])[batch.axis] != 1:
        raise CannotRewrite("Tile along the batch")
    _give(node, state, batch)
    state.keep(node)


def expand(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated batch in the target becomes 1, which keeps the side that is there."""
    batch = _only_data(node, state)
    stated, probed = (entry.tolist() for entry in state.both(node.input[1]))
    sides = state.shape(node.input[0])
    rank = max(len(sides), len(stated))
    axis = batch.axis + rank - len(sides)
    place = axis - (rank - len(stated))
    copy = state.keep(node)
    _give(node, state, batch.moved(axis))
    if place < 0 or stated[place] == 1:
        return
    if stated[place] != sides[batch.axis]:
        raise CannotRewrite("Expand along the batch")
    if node.input[1] in state.sized:
        if probed[place] != sides[batch.axis] * PROBE:
            raise CannotRewrite("Expand along the batch")
        return
    stated[place] = 1
    copy.input[1] = state.store(stated, near=node.output[0])


def resize(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated size of the batch is read from the input instead."""
    batch = _only_data(node, state)
    _give(node, state, batch)
    copy = state.keep(node)
    axes = attribute(node, "axes")
    sides = state.shape(node.input[0])
    if axes is not None and batch.axis not in [_positive(int(axis), len(sides)) for axis in axes]:
        return
    place = list(axes).index(batch.axis) if axes is not None else batch.axis
    scales_at = 1 if state.opset < 11 or node.op_type == "Upsample" else 2
    if len(node.input) > 3 and node.input[3]:
        stated, probed = (entry.tolist() for entry in state.both(node.input[3]))
        if stated[place] != sides[batch.axis]:
            raise CannotRewrite("Resize along the batch")
        if node.input[3] in state.sized and probed[place] == sides[batch.axis] * PROBE:
            return
        state.nodes.pop()
        copy.input[3] = state.sides_like(stated, place, reference=node.input[0])
        state.nodes.append(copy)
        return
    by_input = len(node.input) > scales_at and node.input[scales_at]
    scales = state.both(node.input[scales_at])[0].tolist() if by_input else list(attribute(node, "scales", []))
    if not scales or scales[place] != 1:
        raise CannotRewrite("Resize along the batch")


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
    _give(node, state, batch)
    state.keep(node)


def gemm(node: onnx.NodeProto, state: BatchState) -> None:
    """Rows of the left matrix."""
    rows = 1 if attribute(node, "transA", 0) else 0
    batch = _only_data(node, state)
    if batch.axis != rows:
        raise CannotRewrite("Gemm sums over the batch")
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        bias = state.shape(node.input[2])
        if len(bias) == 2 and bias[0] != 1:
            raise CannotRewrite("Gemm with a bias for each image")
    _give(node, state, batch.moved(0))
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


def shape_of(node: onnx.NodeProto, state: BatchState) -> None:
    """What Shape and Size tell depends on the batch."""
    stated, probed = state.shape(node.input[0]), state.probe_shape(node.input[0])
    if node.op_type == "Size":
        state.sized[node.output[0]] = np.asarray(math.prod(stated)), np.asarray(math.prod(probed))
    else:
        span = slice(attribute(node, "start", 0), attribute(node, "end", None))
        state.sized[node.output[0]] = np.asarray(stated[span], np.int64), np.asarray(probed[span], np.int64)
    state.keep(node)


def _is_plain(batch: BatchAxis) -> bool:
    return batch == BatchAxis(batch.axis)


def einsum(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch's letter must stay."""
    terms, _, result = str(attribute(node, "equation", "")).replace(" ", "").partition("->")
    letters = {
        term[state.axes[name].axis]
        for term, name in zip(terms.split(","), node.input, strict=True)
        if name in state.axes and "." not in term and _is_plain(state.axes[name])
    }
    if len(letters) != 1 or "." in terms or not result or (letter := letters.pop()) not in result:
        raise CannotRewrite("Einsum over the batch")
    for term, name in zip(terms.split(","), node.input, strict=True):
        if letter in term and name not in state.axes:
            raise CannotRewrite("Einsum with a matrix for each image")
    _give(node, state, BatchAxis(result.index(letter)))
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
