"""A graph comes in; its values, each with name, shape, type, producer and a word for what it is, go out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, shape_inference

from onnxviz.errors import ValueNotFoundError, near_misses
from onnxviz.graph.blocked import BLOCKED_DOMAIN, BLOCKED_KIND, blocked_values
from onnxviz.graph.wiring import Wiring, node_label, real_inputs

__all__ = [
    "GraphInput",
    "Shape",
    "Value",
    "graph_inputs",
    "graph_outputs",
    "infer_types",
    "list_values",
    "match_values",
]

Shape = tuple[int | str | None, ...]

# Weights are described to the shape inference, not handed over: it needs the contents of small shape tensors only.
_LARGEST_SHOWN = 4096
_LARGEST_INFERRED = 1_500_000_000  # bytes; the C++ library behind it gets one serialised copy, at most 2 GiB


@dataclass(frozen=True)
class Value:
    """One tensor of the graph, by its ONNX name."""

    name: str
    shape: Shape | None
    """Sides as numbers, names of symbolic sides, or None for an unknown side; None where not even the rank is known."""
    dtype: str | None
    """``"float32"``, ``"uint8"``, ...; ``"sequence"``, ``"map"`` or ``"optional"`` for what is not a tensor."""
    node: str
    """Name of the producing node (operator and position where it has none); ``""`` for a graph input."""
    op_type: str
    """Operator of the producing node; ``""`` for a graph input."""
    kind: str
    """What a reader calls it: ``"input"``, ``"conv"``, ``"relu"``, ``"fully connected"``, ``"pool"``, ..."""


@dataclass(frozen=True)
class GraphInput:
    """An input that must be fed; weights that the file lists among its inputs are left out."""

    name: str
    dtype: str | None
    shape: Shape | None


_KINDS = {
    "conv": ("Conv", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv", "NhwcFusedConv", "DeformConv"),
    "transposed conv": ("ConvTranspose", "QLinearConvTranspose", "ConvTransposeWithDynamicPads"),
    "relu": ("Relu",),
    "activation": (
        "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Sigmoid",
        "HardSigmoid", "HardSwish", "Swish", "Mish", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
        "QLinearSigmoid", "QLinearLeakyRelu", "Shrink", "ScaledTanh", "ParametricSoftplus", "Clip",
    ),
    "pool": (
        "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "QLinearAveragePool",
        "QLinearGlobalAveragePool", "NhwcMaxPool", "MaxRoiPool", "RoiAlign",
    ),
    "normalization": (
        "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "GroupNorm", "LRN",
        "LpNormalization", "MeanVarianceNormalization", "SkipLayerNormalization", "RMSNormalization",
        "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "SkipGroupNorm",
    ),
    "softmax": ("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax"),
    "concat": ("Concat", "QLinearConcat", "ConcatFromSequence"),
    "add": ("Add", "Sum", "QLinearAdd"),
    "attention": (
        "Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention", "PackedAttention",
        "DecoderMaskedMultiHeadAttention", "PackedMultiHeadAttention",
    ),
    "quantize": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "reshape": (
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
    ),
    "crop": ("Slice", "Gather", "Split", "CenterCropPad", "GatherND", "GatherElements", "Crop"),
    "pad": ("Pad",),
    "resize": ("Resize", "Upsample", "GridSample", "AffineGrid", "ImageScaler"),
    "reduce": (
        "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSumExp",
        "ReduceSumSquare", "ReduceLogSum", "QLinearReduceMean",
    ),
    "recurrent": ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"),
    "selection": ("TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "NonZero"),
    "multiply": ("Mul", "Div", "QLinearMul"),
    "copy": ("Identity", "Cast", "CastLike", "Dropout", "ReorderOutput"),
    "shape": ("Shape", "Size"),
    "control flow": ("If", "Loop", "Scan"),
    "tree or linear model": (
        "TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble", "LinearClassifier", "LinearRegressor",
        "SVMClassifier", "SVMRegressor",
    ),
}  # fmt: skip
_KIND_OF = {op_type: kind for kind, op_types in _KINDS.items() for op_type in op_types}
_PRODUCTS = frozenset(
    {"MatMul", "QLinearMatMul", "MatMulInteger", "FusedMatMul", "MatMulNBits", "Einsum", "MatMulIntegerToFloat"}
)


def list_values(proto: onnx.ModelProto, *, assumed: Mapping[str, Sequence[int]] | None = None) -> tuple[Value, ...]:
    """List every value of the main graph: the inputs to feed, then the nodes' outputs in the order they are computed.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, functions inlined.
    assumed : mapping of input name to shape, optional
        Shapes to infer with in place of the open ones that the file states.

    Returns
    -------
    tuple of Value
        Shapes and types as ONNX shape inference finds them, None where it cannot tell; unused optional outputs, which
        have no name, are left out. Values that depend on no input have the kind ``"constant"``; those whose channels,
        rows and columns are not where their shape says, ``"blocked layout"``.
    """
    types = infer_types(proto, assumed=assumed)
    wiring, blocked = Wiring(proto), blocked_values(proto)
    values = [_value(name, types.get(name), "", "", "input") for name in wiring.inputs]
    for position, node in enumerate(proto.graph.node):
        label = node_label(node, position)
        kind = _kind(node, wiring)
        for name in node.output:
            if name:
                what = "constant" if name in wiring.constant_names else BLOCKED_KIND if name in blocked else kind
                values.append(_value(name, types.get(name), label, node.op_type, what))
    return tuple(values)


def match_values(values: Iterable[Value], pattern: str) -> tuple[Value, ...]:
    """Find values by exact name, else by glob.

    Parameters
    ----------
    values : iterable of Value
        Where to look.
    pattern : str
        A name, or a glob with ``*``, ``?`` and ``[...]``; upper and lower case differ where that matches anything. An
        exact name wins over its reading as a glob, because exporters put brackets into names.

    Raises
    ------
    ValueNotFoundError
        Nothing matches; the message lists the names most like the pattern.
    """
    candidates = tuple(values)
    exact = tuple(value for value in candidates if value.name == pattern)
    if exact:
        return exact
    matched = tuple(value for value in candidates if fnmatch.fnmatchcase(value.name, pattern))
    if not matched and any(sign in pattern for sign in "*?["):
        # Some exporters write "Relu_3", others "relu_3"; who asks for all of them means either.
        folded = pattern.casefold()
        matched = tuple(value for value in candidates if fnmatch.fnmatchcase(value.name.casefold(), folded))
    if matched:
        return matched
    raise ValueNotFoundError(
        "no value of the graph has this name or matches this pattern", where="values", got=repr(pattern),
        allowed=near_misses(pattern, (value.name for value in candidates if value.kind != "constant")),
        next_step="`onnxviz inspect MODEL` lists every value",
    )  # fmt: skip


def graph_inputs(proto: onnx.ModelProto) -> tuple[GraphInput, ...]:
    """The inputs that a caller must feed, in the file's order."""
    return tuple(GraphInput(value.name, _dtype(value.type), _shape(value.type)) for value in real_inputs(proto.graph))


def graph_outputs(proto: onnx.ModelProto) -> tuple[Value, ...]:
    """The graph's declared outputs, in the file's order."""
    by_name = {value.name: value for value in list_values(proto)}
    found = []
    for output in proto.graph.output:
        known = by_name.get(output.name)
        # An output may be a weight that no node makes; it still has a declared type.
        found.append(known or _value(output.name, output.type, "", "", "constant"))
    return tuple(found)


def infer_types(
    proto: onnx.ModelProto, *, assumed: Mapping[str, Sequence[int]] | None = None
) -> dict[str, onnx.TypeProto]:
    """Type and shape of every value that the file states or ONNX shape inference finds; never raises.

    Weights above a few thousand elements are described by shape alone, so their bytes are neither copied nor limited.
    Where the inference fails, what the file itself states is returned.
    """
    stated: dict[str, onnx.TypeProto] = {}
    graph = proto.graph
    for tensor in graph.initializer:
        stated[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.WhichOneof("value") is not None:
            stated[value.name] = value.type
    symbols = {side.dim_param for found in stated.values() for side in _sides(found)}
    described = _describe(proto)
    if assumed:
        for value in described.graph.input:
            if value.name in assumed:
                shaped = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, list(assumed[value.name]))
                value.type.CopyFrom(shaped)
        # The stated shapes of the outputs are those of the open sides.
        for value in described.graph.output:
            value.type.tensor_type.ClearField("shape")
    if described.ByteSize() > _LARGEST_INFERRED:
        return stated
    try:
        inferred = shape_inference.infer_shapes(described, check_type=False, strict_mode=False, data_prop=True)
    except Exception:  # the inference raises its own C++ types for broken graphs; a shape unknown is no failure
        return stated
    for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
        if value.type.WhichOneof("value") is not None:
            _forget_invented_names(value.type, symbols)
            stated[value.name] = value.type
    return stated


def _sides(found: onnx.TypeProto) -> Iterable[onnx.TensorShapeProto.Dimension]:
    return found.tensor_type.shape.dim if found.WhichOneof("value") == "tensor_type" else ()


def _forget_invented_names(found: onnx.TypeProto, symbols: set[str]) -> None:
    """Clear the names (unk__7) that shape inference invents for sides it cannot tell."""
    for side in _sides(found):
        if side.dim_param and side.dim_param not in symbols:
            side.Clear()


def _describe(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights turned into typed inputs: the same to shape inference, and small."""
    described = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    described.opset_import.extend(proto.opset_import)
    described.functions.extend(proto.functions)
    graph = described.graph
    graph.name = proto.graph.name or "graph"
    graph.input.extend(real_inputs(proto.graph))
    graph.output.extend(proto.graph.output)
    # Exporters state shapes that contradict the operators, and inference would believe them; it needs telling only
    # where it does not know the operator.
    foreign = {name for node in proto.graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    graph.value_info.extend(value for value in proto.graph.value_info if value.name in foreign)
    told = {value.name for value in (*graph.value_info, *graph.output)}
    # All that is certain of these, and enough for the types of what is computed from them.
    blocked = [name for node in proto.graph.node if node.domain == BLOCKED_DOMAIN for name in node.output]
    graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in blocked if name and name not in told
    )
    for tensor in proto.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and _elements(tensor) <= _LARGEST_SHOWN:
            graph.initializer.add().CopyFrom(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for sparse in proto.graph.sparse_initializer:
        graph.input.append(
            helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, list(sparse.dims))
        )
    for node in proto.graph.node:
        tensor = _constant_tensor(node)
        if tensor is None or (tensor.data_location != TensorProto.EXTERNAL and _elements(tensor) <= _LARGEST_SHOWN):
            graph.node.add().CopyFrom(node)
        else:
            graph.input.append(helper.make_tensor_value_info(node.output[0], tensor.data_type, list(tensor.dims)))
    return described


def _constant_tensor(node: onnx.NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or not node.output:
        return None
    return next((entry.t for entry in node.attribute if entry.name == "value"), None)


def _elements(tensor: TensorProto) -> int:
    product = 1
    for side in tensor.dims:
        product *= max(side, 0)
    return product


def _value(name: str, found: onnx.TypeProto | None, node: str, op_type: str, kind: str) -> Value:
    if found is None:
        return Value(name, None, None, node, op_type, kind)
    return Value(name, _shape(found), _dtype(found), node, op_type, kind)


def _shape(found: onnx.TypeProto) -> Shape | None:
    if found.WhichOneof("value") != "tensor_type" or not found.tensor_type.HasField("shape"):
        return None
    sides: list[int | str | None] = []
    for side in found.tensor_type.shape.dim:
        if side.HasField("dim_value") and side.dim_value >= 0:
            sides.append(side.dim_value)
        else:
            sides.append(side.dim_param or None)
    return tuple(sides)


def _dtype(found: onnx.TypeProto) -> str | None:
    held = found.WhichOneof("value")
    if held is None:
        return None
    if held != "tensor_type":
        return str(held).removesuffix("_type").removesuffix("_tensor")
    return dtype_name(found.tensor_type.elem_type)


def dtype_name(elem_type: int) -> str | None:
    """ONNX element type as a numpy word: 1 becomes ``"float32"``; None for undefined."""
    if elem_type == TensorProto.UNDEFINED:
        return None
    if elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return "float32" if elem_type == TensorProto.FLOAT else "float64"
    try:
        return str(TensorProto.DataType.Name(elem_type)).lower()
    except ValueError:
        return None


def _kind(node: onnx.NodeProto, wiring: Wiring) -> str:
    if node.op_type in ("Gemm", "QGemm"):
        return "fully connected"
    if node.op_type in _PRODUCTS:
        has_weights = any(name in wiring.constant_names for name in node.input[:2])
        return "fully connected" if has_weights or node.op_type == "MatMulNBits" else "matrix product"
    if node.op_type == "Clip" and _clips_at_zero(node, wiring):
        return "relu"
    return _KIND_OF.get(node.op_type, "other")


def _clips_at_zero(node: onnx.NodeProto, wiring: Wiring) -> bool:
    """Whether a Clip is a bounded ReLU such as ReLU6: its lower limit is 0."""
    for entry in node.attribute:
        if entry.name == "min":
            return bool(entry.f == 0.0)
    low = wiring.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return low is not None and low.size == 1 and float(low.ravel()[0]) == 0.0
