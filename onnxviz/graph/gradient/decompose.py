"""A graph with fused and quantised operators of onnxruntime comes in; one of standard operators goes out.

Where the standard lacks an operator, what it computes is written in several that it has. A quantised operator becomes
what it stands for: its operands dequantised, the operator on real numbers, its result quantised. An If whose condition
is known is replaced by its branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnxviz.graph.detached import detach_weights
from onnxviz.graph.gradient.editing import (
    CannotNormalize,
    GraphEditor,
    ValueNames,
    ValueTypes,
    become,
    infer_types,
    settle_constants,
    take_attribute,
)
from onnxviz.graph.gradient.upgrade import attach_weights, refusal
from onnxviz.graph.wiring import Wiring, attribute, subgraphs

__all__ = ["decompose"]

_MOST_NESTED = 100


def decompose(proto: ModelProto, *, where: str) -> ModelProto:
    """Copy a model so that operators of onnxruntime are written in standard ones, at the same operator set.

    Operators that nothing here knows stay as they are. Integer arithmetic becomes arithmetic on real numbers between
    quantisations, so that a result may differ from onnxruntime's by one step of its scale.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model at operator set 18 to 21; it is left as it is. Weights of 1 KiB and more may lie beside it.
    where : str
        The file's name, for messages.

    Returns
    -------
    onnx.ModelProto
        All values keep their names, those of a branch that took the place of its If included unless they are taken.
        New ones are called after the value they help to make.

    Raises
    ------
    UnsupportedOperatorError
        A known operator is used in a way that cannot be expressed.
    """
    decomposed = ModelProto()
    decomposed.CopyFrom(proto)
    detach_weights(decomposed)
    names = ValueNames(decomposed)
    _replace_known_branches(decomposed, names)
    inferred = infer_types(decomposed)
    if inferred is decomposed:
        inferred = ModelProto()
        inferred.CopyFrom(decomposed)
    pending: dict[str, ArrayLike] = {}
    versions = {entry.domain: entry.version for entry in decomposed.opset_import}
    _rewrite(decomposed.graph, inferred.graph, None, names, pending, versions=versions, where=where)
    settle_constants(decomposed, pending)
    attach_weights(decomposed, proto)
    return decomposed


def _rewrite(
    graph: GraphProto,
    inferred: GraphProto,
    outer: ValueTypes | None,
    names: ValueNames,
    pending: dict[str, ArrayLike],
    *,
    versions: Mapping[str, int],
    where: str,
) -> None:
    types = ValueTypes(inferred, outer)
    edit = GraphEditor(graph, names, types, pending)
    for position, (original, twin) in enumerate(zip(graph.node, inferred.node, strict=True)):
        node = NodeProto()
        node.CopyFrom(original)
        for body, inferred_body in zip(subgraphs(node), subgraphs(twin), strict=True):
            _rewrite(body, inferred_body, types, names, pending, versions=versions, where=where)
        rewrite = _REWRITES.get((node.domain, node.op_type))
        if rewrite is not None:
            edit.near = next(filter(None, node.output), node.op_type)
            try:
                rewrite(node, edit)
            except CannotNormalize as reason:
                version = versions.get(node.domain, 1)
                raise refusal(original, position, str(reason), version=version, where=where) from None
        edit.nodes.append(node)
    edit.finish()


# -- branches that are known beforehand -------------------------------------------------------------------------------


def _replace_known_branches(proto: ModelProto, names: ValueNames) -> None:
    """Put the branch that is taken in the place of every If whose condition never changes, in place."""
    for _ in range(_MOST_NESTED):  # each round opens one level
        wiring = Wiring(proto)
        taken = [_taken_branch(node, wiring) for node in proto.graph.node]
        if not any(branch is not None for branch in taken):
            return
        nodes: list[NodeProto] = []
        used = {node.name for node in proto.graph.node}
        stays = [node for node, branch in zip(proto.graph.node, taken, strict=True) if branch is None]
        visible = {value.name for value in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer}
        for node in proto.graph.node:
            visible.update(node.output)
        for node in stays:
            for body in subgraphs(node):
                visible |= _names_within(body)
        for node, branch in zip(proto.graph.node, taken, strict=True):
            nodes.extend([node] if branch is None else _branch_nodes(node, branch, proto.graph, names, visible, used))
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)


def _taken_branch(node: NodeProto, wiring: Wiring) -> GraphProto | None:
    if node.op_type != "If" or node.domain != "":
        return None
    condition = wiring.constant(node.input[0])
    if condition is None or condition.size != 1:
        return None
    branch: GraphProto = attribute(node, "then_branch" if condition.item() else "else_branch")
    return branch


def _branch_nodes(
    node: NodeProto, branch: GraphProto, graph: GraphProto, names: ValueNames, visible: set[str], used: set[str]
) -> list[NodeProto]:
    """The branch's nodes, making the values of the If; its weights move into the graph around it.

    ``visible`` and ``used`` are the names of values and of nodes that are there already; those placed now are added.
    """
    made = {name for inner in branch.node for name in inner.output if name}
    renamed: dict[str, str] = {}
    handed_on = []
    for name, value in zip(node.output, branch.output, strict=True):
        if value.name in made and value.name not in renamed and name:
            renamed[value.name] = name
        elif name:  # a weight, a value from outside, or one that the If hands on twice
            handed_on.append((value.name, name))
    for name in sorted(_names_within(branch) - renamed.keys()):
        if name in visible:
            renamed[name] = names.fresh(name)
    moved = GraphProto()
    moved.CopyFrom(branch)
    _rename(moved, renamed)
    visible |= _names_within(moved)
    graph.initializer.extend(moved.initializer)
    graph.sparse_initializer.extend(moved.sparse_initializer)
    for inner in moved.node:
        if inner.name in used:
            inner.name = ""  # onnxruntime refuses a name given twice
        elif inner.name:
            used.add(inner.name)
    copies = [helper.make_node("Identity", [renamed.get(old, old)], [new]) for old, new in handed_on]
    return [*moved.node, *copies]


def _names_within(graph: GraphProto) -> set[str]:
    """The values that a graph makes or holds, those of its bodies included."""
    found = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    found |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        found.update(filter(None, node.output))
        for body in subgraphs(node):
            found |= _names_within(body)
    return found


def _rename(graph: GraphProto, renamed: dict[str, str]) -> None:
    """Rename values in a graph and its bodies, in place: no body may give a name a meaning of its own."""
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        tensor.name = renamed.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for place, name in enumerate(field):
                field[place] = renamed.get(name, name)
        for body in subgraphs(node):
            _rename(body, renamed)


# -- activations and fusions ------------------------------------------------------------------------------------------


def _sum_of(edit: GraphEditor, names: Iterable[str]) -> str:
    total, *rest = filter(None, names)
    for name in rest:
        total = edit.add("Add", [total, name])
    return total


def _operand(node: NodeProto, place: int) -> str:
    return node.input[place] if place < len(node.input) else ""


def _gelu(node: NodeProto, edit: GraphEditor) -> None:
    """``x/2 · (1 + erf(x/√2))``, of the sum of its operands."""
    total = _sum_of(edit, node.input)
    root = edit.like(math.sqrt(0.5), total, role="root_of_half")
    one, half = edit.like(1.0, total, role="one"), edit.like(0.5, total, role="half")
    erf = edit.add("Erf", [edit.add("Mul", [total, root])])
    become(node, "Mul", [edit.add("Mul", [total, half]), edit.add("Add", [erf, one])])


def _fast_gelu(node: NodeProto, edit: GraphEditor) -> None:
    """``x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))``, of the sum of its operands."""
    total = _sum_of(edit, node.input)
    linear = edit.like(math.sqrt(2 / math.pi), total, role="linear")
    cubic = edit.like(0.044715 * math.sqrt(2 / math.pi), total, role="cubic")
    one, half = edit.like(1.0, total, role="one"), edit.like(0.5, total, role="half")
    square = edit.add("Mul", [total, total])
    factor = edit.add("Add", [linear, edit.add("Mul", [cubic, square])])
    tanh = edit.add("Tanh", [edit.add("Mul", [total, factor])])
    become(node, "Mul", [edit.add("Mul", [total, half]), edit.add("Add", [tanh, one])])


def _quick_gelu(node: NodeProto, edit: GraphEditor) -> None:
    """``x · sigmoid(α x)``."""
    data = node.input[0]
    alpha = edit.like(float(attribute(node, "alpha", 1.702)), data, role="alpha")
    become(node, "Mul", [data, edit.add("Sigmoid", [edit.add("Mul", [data, alpha])])])


# What the numbers given to a fused activation mean, in their order.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",), "Relu": (), "Sigmoid": (),
    "Selu": ("alpha", "gamma"), "Softplus": (), "Softsign": (), "Tanh": (), "ThresholdedRelu": ("alpha",),
}  # fmt: skip


def _activate(node: NodeProto, edit: GraphEditor, activation: str, data: str, numbers: Sequence[float]) -> None:
    """Turn the node into its activation."""
    if activation == "Clip":
        bounds = [
            edit.like(float(number), data, role=role) for role, number in zip(("min", "max"), numbers, strict=True)
        ]
        become(node, "Clip", [data, *bounds])
        return
    if activation not in _ACTIVATIONS:
        raise CannotNormalize(f"its activation {activation!r} is not known")
    become(node, activation, [data], **dict(zip(_ACTIVATIONS[activation], map(float, numbers), strict=False)))


def _fused_conv(node: NodeProto, edit: GraphEditor) -> None:
    activation, numbers = take_attribute(node, "activation", ""), take_attribute(node, "activation_params", [])
    added = _operand(node, 3)
    del node.input[3:]
    node.op_type = "Conv"
    node.ClearField("domain")
    if not added and not activation:
        return
    result = _split_off(node, edit)
    if added and not activation:
        become(node, "Add", [result, added])
        return
    _activate(node, edit, activation, edit.add("Add", [result, added]) if added else result, numbers)


def _split_off(node: NodeProto, edit: GraphEditor) -> str:
    """Append the node as it is, with a value of its own; what it made is left for what follows."""
    first = NodeProto()
    first.CopyFrom(node)
    first.name = ""
    value = edit.fresh(node.op_type)
    first.output[0] = value
    edit.nodes.append(first)
    return value


def _fused_gemm(node: NodeProto, edit: GraphEditor) -> None:
    activation = take_attribute(node, "activation", "")
    alpha = take_attribute(node, "activation_alpha", take_attribute(node, "leaky_relu_alpha"))
    others = [take_attribute(node, f"activation_{role}") for role in ("beta", "gamma")]
    node.op_type = "Gemm"
    node.ClearField("domain")
    if activation:
        # Unlike a convolution's, these are told apart by name.
        second = others[1] if activation == "Selu" else others[0]
        numbers = [number for number in (alpha, second) if number is not None]
        _activate(node, edit, activation, _split_off(node, edit), numbers)


def _fused_mat_mul(node: NodeProto, edit: GraphEditor) -> None:
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise CannotNormalize("it transposes the batch (transBatchA or transBatchB)")
    alpha = float(attribute(node, "alpha", 1.0))
    operands = [
        _transposed(name, edit) if attribute(node, flag, 0) else name
        for name, flag in zip(node.input, ("transA", "transB"), strict=True)
    ]
    if alpha == 1:
        become(node, "MatMul", operands)
    else:
        factor = edit.like(alpha, operands[0], role="alpha")
        become(node, "Mul", [edit.add("MatMul", operands), factor])


def _transposed(name: str, edit: GraphEditor) -> str:
    """The last two axes swapped; one axis alone stays as it is."""
    rank = edit.types.rank(name)
    if rank is not None:
        order = [*range(rank - 2), rank - 1, rank - 2]
        return edit.add("Transpose", [name], perm=order) if rank > 1 else name
    # Transpose needs to know the number of axes: all but the last two become one for as long as it takes.
    rows, columns = edit.add("Shape", [name], start=-2, end=-1), edit.add("Shape", [name], start=-1)
    any_number = edit.constant([-1], np.int64, role="any_number")
    flat = edit.add("Reshape", [name, edit.add("Concat", [any_number, rows, columns], axis=0)])
    swapped = edit.add("Transpose", [flat], perm=[0, 2, 1])
    leading = edit.add("Shape", [name], end=-2)
    return edit.add("Reshape", [swapped, edit.add("Concat", [leading, columns, rows], axis=0)])


# -- normalisations ---------------------------------------------------------------------------------------------------


def _layer_normalization(node: NodeProto, _: GraphEditor) -> None:
    node.ClearField("domain")


def _residual(node: NodeProto, edit: GraphEditor, operands: Sequence[str]) -> str:
    """The sum that is normalised, under the name that the node's fourth output gives it."""
    total, last = _sum_of(edit, operands[:-1]), operands[-1]
    name = node.output[3] if len(node.output) > 3 else ""
    del node.output[3:]
    return edit.add("Add", [total, last], outputs=[name] if name else [])


def _skip_layer_normalization(node: NodeProto, edit: GraphEditor) -> None:
    data, skip, gamma, beta, bias = (_operand(node, place) for place in range(5))
    total = _residual(node, edit, [name for name in (data, skip, bias) if name])
    epsilon = float(attribute(node, "epsilon", 1e-12))
    become(node, "LayerNormalization", [total, gamma, *filter(None, [beta])], axis=-1, epsilon=epsilon)


def _skip_simplified_layer_normalization(node: NodeProto, edit: GraphEditor) -> None:
    data, skip, gamma, bias = (_operand(node, place) for place in range(4))
    total = _residual(node, edit, [name for name in (data, skip, bias) if name])
    inverse = node.output[2] if len(node.output) > 2 else ""
    del node.output[1:]
    _divide_by_root_mean_square(node, edit, total, gamma, [-1], float(attribute(node, "epsilon", 1e-12)), inverse)


def _simplified_layer_normalization(node: NodeProto, edit: GraphEditor) -> None:
    data, gamma = node.input[:2]
    axis, rank = int(attribute(node, "axis", -1)), edit.types.rank(data)
    if axis >= 0 and rank is None:
        raise CannotNormalize("which axes it normalises depends on a rank that the file does not tell")
    axes = list(range(axis if axis < 0 else axis - (rank or 0), 0))
    inverse = node.output[1] if len(node.output) > 1 else ""
    del node.output[1:]
    _divide_by_root_mean_square(node, edit, data, gamma, axes, float(attribute(node, "epsilon", 1e-5)), inverse)


def _divide_by_root_mean_square(
    node: NodeProto, edit: GraphEditor, data: str, gamma: str, axes: Sequence[int], epsilon: float, inverse: str
) -> None:
    """``x / √(mean(x²) + ε) · γ``, in float32 where the numbers have half of that."""
    half = edit.types.element_type(gamma) in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    precise = edit.add("Cast", [data], to=TensorProto.FLOAT) if half else data
    mean = edit.add(
        "ReduceMean", [edit.add("Mul", [precise, precise]), edit.constant(axes, np.int64, role="axes")], keepdims=1
    )
    root = edit.add("Sqrt", [edit.add("Add", [mean, edit.like(epsilon, precise, role="epsilon")])])
    if inverse:
        edit.add("Reciprocal", [root], outputs=[inverse])
    normal = edit.add("Div", [precise, root])
    become(node, "Mul", [edit.add("CastLike", [normal, gamma]) if half else normal, gamma])


# -- quantised operators ----------------------------------------------------------------------------------------------


def _dequantized(edit: GraphEditor, stored: str, scale: str, zero_point: str, *, axis: int | None = None) -> str:
    per_axis: dict[str, Any] = {} if axis is None else {"axis": axis}
    return edit.add("DequantizeLinear", [stored, scale, *filter(None, [zero_point])], **per_axis)


def _quantize(node: NodeProto, edit: GraphEditor, data: str, scale: str, zero_point: str, like: str) -> None:
    """Turn the node into the quantisation of its result, in the type of the zero point, or else of an operand."""
    become(node, "QuantizeLinear", [data, scale, zero_point or edit.like(0, like, role="zero_point")])


def _axis_of(edit: GraphEditor, scale: str, axis: int) -> int | None:
    """The axis that a scale belongs to; None for one scale for all."""
    shape = edit.types.shape(scale)
    return None if shape is not None and math.prod(side or 0 for side in shape) == 1 else axis


def _q_linear_conv(node: NodeProto, edit: GraphEditor) -> None:
    _refuse_channels_last(node)
    data, data_scale, data_zero, weight, weight_scale, weight_zero, scale, zero = node.input[:8]
    operands = [
        _dequantized(edit, data, data_scale, data_zero),
        _dequantized(edit, weight, weight_scale, weight_zero, axis=0),
    ]
    if _operand(node, 8):
        bias_scale = edit.add("Mul", [data_scale, weight_scale])
        operands.append(_dequantized(edit, node.input[8], bias_scale, "", axis=0))
    _quantize(node, edit, _applied(node, edit, "Conv", operands), scale, zero, data)


def _applied(node: NodeProto, edit: GraphEditor, op_type: str, operands: Sequence[str]) -> str:
    """The operator with the node's own attributes on dequantised operands."""
    value = edit.add(op_type, operands)
    edit.nodes[-1].attribute.extend(AttributeProto.FromString(entry.SerializeToString()) for entry in node.attribute)
    return value


def _refuse_channels_last(node: NodeProto) -> None:
    if take_attribute(node, "channels_last", 0):
        raise CannotNormalize("its channels come last")


def _q_linear_mat_mul(node: NodeProto, edit: GraphEditor) -> None:
    first, first_scale, first_zero, second, second_scale, second_zero, scale, zero = node.input
    operands = [
        _dequantized(edit, first, first_scale, first_zero, axis=_axis_of(edit, first_scale, -2)),
        _dequantized(edit, second, second_scale, second_zero, axis=_axis_of(edit, second_scale, -1)),
    ]
    _quantize(node, edit, edit.add("MatMul", operands), scale, zero, first)


def _q_gemm(node: NodeProto, edit: GraphEditor) -> None:
    first, first_scale, first_zero, second, second_scale, second_zero = node.input[:6]
    bias, scale, zero = (_operand(node, place) for place in (6, 7, 8))
    alpha = float(attribute(node, "alpha", 1.0))
    flags: dict[str, Any] = {flag: int(attribute(node, flag, 0)) for flag in ("transA", "transB")}
    operands = [
        _dequantized(edit, first, first_scale, first_zero),
        _dequantized(edit, second, second_scale, second_zero, axis=0 if flags["transB"] else 1),
    ]
    if bias:
        bias_scale = edit.add("Mul", [first_scale, second_scale])
        if alpha != 1:
            bias_scale = edit.add("Mul", [bias_scale, edit.like(alpha, first_scale, role="alpha")])
        operands.append(_dequantized(edit, bias, bias_scale, "", axis=_axis_of(edit, second_scale, -1)))
    if scale:
        _quantize(node, edit, edit.add("Gemm", operands, alpha=alpha, **flags), scale, zero, first)
    else:
        become(node, "Gemm", operands, alpha=alpha, **flags)


def _q_linear_binary(op_type: str) -> _Rewrite:
    def rewrite(node: NodeProto, edit: GraphEditor) -> None:
        first, first_scale, first_zero, second, second_scale, second_zero, scale = node.input[:7]
        operands = [
            _dequantized(edit, first, first_scale, first_zero),
            _dequantized(edit, second, second_scale, second_zero),
        ]
        _quantize(node, edit, edit.add(op_type, operands), scale, _operand(node, 7), first)

    return rewrite


def _q_linear_unary(op_type: str) -> _Rewrite:
    def rewrite(node: NodeProto, edit: GraphEditor) -> None:
        _refuse_channels_last(node)
        data, data_scale, data_zero, scale = node.input[:4]
        result = _applied(node, edit, op_type, [_dequantized(edit, data, data_scale, data_zero)])
        _quantize(node, edit, result, scale, _operand(node, 4), data)

    return rewrite


def _q_linear_concat(node: NodeProto, edit: GraphEditor) -> None:
    scale, zero, *triples = node.input
    parts = [_dequantized(edit, *triples[place : place + 3]) for place in range(0, len(triples), 3)]
    _quantize(node, edit, _applied(node, edit, "Concat", parts), scale, zero, triples[0])


_Rewrite = Callable[[NodeProto, GraphEditor], None]

_CONTRIBUTED: dict[str, _Rewrite] = {
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_mat_mul,
    "Gelu": _gelu,
    "LayerNormalization": _layer_normalization,
    "QGemm": _q_gemm,
    "QLinearAdd": _q_linear_binary("Add"),
    "QLinearAveragePool": _q_linear_unary("AveragePool"),
    "QLinearConcat": _q_linear_concat,
    "QLinearConv": _q_linear_conv,
    "QLinearGlobalAveragePool": _q_linear_unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _q_linear_unary("LeakyRelu"),
    "QLinearMul": _q_linear_binary("Mul"),
    "QLinearSigmoid": _q_linear_unary("Sigmoid"),
    "QuickGelu": _quick_gelu,
    "SimplifiedLayerNormalization": _simplified_layer_normalization,
    "SkipLayerNormalization": _skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": _skip_simplified_layer_normalization,
}
_REWRITES: dict[tuple[str, str], _Rewrite] = {
    **{("com.microsoft", op_type): rewrite for op_type, rewrite in _CONTRIBUTED.items()},
    ("", "QLinearConv"): _q_linear_conv,
    ("", "QLinearMatMul"): _q_linear_mat_mul,
    ("", "SimplifiedLayerNormalization"): _simplified_layer_normalization,
}
"""Rewrites by domain and operator."""
