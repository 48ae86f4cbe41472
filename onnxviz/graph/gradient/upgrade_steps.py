"""A node of one version of its operator comes in; the same of the next version goes out: a step for every such change.

A step that the schemas show to be harmless is not here: :mod:`onnxviz.graph.gradient.upgrade` takes it by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from onnxviz.graph.gradient.editing import CannotNormalize, GraphEditor, become, give, take_attribute
from onnxviz.graph.wiring import Wiring, attribute, subgraphs

__all__ = ["STEPS"]


class _Rewriting(Protocol):
    """What a step may ask of the rewriting in :mod:`onnxviz.graph.gradient.upgrade` that it belongs to.

    Attributes
    ----------
    source : int
        The operator set that the model comes from.
    constants : Wiring
        The model as it was.
    """

    source: int
    constants: Wiring


def _broadcast_7(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """The second operand's axes were placed by ``axis``; since then they are aligned at the end."""
    broadcast, axis = take_attribute(node, "broadcast", 0), take_attribute(node, "axis")
    if not broadcast or axis is None:
        return
    first, second = edit.types.rank(node.input[0]), edit.types.rank(node.input[1])
    if first is None or second is None:
        raise CannotNormalize("its broadcast depends on ranks that the file does not tell")
    missing = first - axis % first - second
    if missing < 0:
        raise CannotNormalize("its second operand does not fit the stated axis")
    if missing:
        axes = edit.constant(range(second, second + missing), np.int64, role="axes")
        node.input[1] = edit.add("Unsqueeze", [node.input[1], axes])


def _prelu_7(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """One slope per channel was a vector; since then it is aligned at the end like any operand."""
    rank, slope = edit.types.rank(node.input[0]), edit.types.shape(node.input[1])
    if slope is not None and (not slope or slope == (1,)):
        return
    if rank is None or slope is None:
        raise CannotNormalize("its slopes are placed by ranks that the file does not tell")
    if len(slope) == 1 and rank > 2:
        axes = edit.constant(range(1, rank - 1), np.int64, role="axes")
        node.input[1] = edit.add("Unsqueeze", [node.input[1], axes])


def _batch_normalization_7(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    if not take_attribute(node, "is_test", 0):
        raise CannotNormalize("it is in training form (is_test is 0)")


def _batch_normalization_9(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """``spatial = 0`` keeps statistics for every element of an image rather than for every channel."""
    if take_attribute(node, "spatial", 1):
        return
    _batch_normalization_14(node, edit, _)
    data, scale, bias, mean, variance = node.input
    epsilon = edit.like(float(attribute(node, "epsilon", 1e-5)), data, role="epsilon")
    deviation = edit.add("Sqrt", [edit.add("Add", [variance, epsilon])])
    scaled = edit.add("Mul", [edit.add("Sub", [data, mean]), edit.add("Div", [scale, deviation])])
    become(node, "Add", [scaled, bias])


def _batch_normalization_14(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    if any(node.output[1:]):
        raise CannotNormalize("it is in training form (it has more than one output)")
    del node.output[1:]


def _cast_6(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    give(node, to=TensorProto.DataType.Value(str(take_attribute(node, "to")).upper()))


def _clip_11(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    largest = float(np.finfo(np.float32).max)
    # Both bounds are always given: by default infinities too were clipped.
    for role, default in (("min", -largest), ("max", largest)):
        node.input.append(edit.like(float(take_attribute(node, role, default)), node.input[0], role=role))


def _concat_4(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    give(node, axis=attribute(node, "axis", 1))


def _drop(*names: str) -> _Step:
    def step(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
        for name in names:
            take_attribute(node, name)

    return step


def _dropout_12(node: NodeProto, edit: GraphEditor, rewriting: _Rewriting) -> None:
    """At inference the operator hands its input on, whatever the ratio."""
    take_attribute(node, "ratio")
    if not any(node.output[1:]):
        return
    # The mask had no defined content at inference; onnxruntime filled it with zeros, and has true there since set 12.
    data, mask, kept = node.input[0], node.output[1], edit.fresh("kept")
    edit.nodes.append(helper.make_node("Dropout", [data], [node.output[0], kept], name=node.name))
    node.name = ""
    del node.output[:]
    node.output.append(mask)
    if rewriting.source >= 10:
        become(node, "Not", [kept])
    else:
        become(node, "CastLike", [edit.add("Not", [kept]), data])


def _axes_to_input(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    axes = take_attribute(node, "axes", [])
    if axes:
        node.input.append(edit.constant(axes, np.int64, role="axes"))


def _pad_2(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    give(node, pads=take_attribute(node, "paddings"))


def _pad_11(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    value = float(take_attribute(node, "value", 0.0))
    node.input.append(edit.constant(take_attribute(node, "pads"), np.int64, role="pads"))
    if value:
        node.input.append(edit.like(value, node.input[0], role="value"))


def _reshape_5(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    node.input.append(edit.constant(take_attribute(node, "shape", []), np.int64, role="shape"))


def _resize_11(node: NodeProto, edit: GraphEditor, rewriting: _Rewriting) -> None:
    """Set 10 did not say where samples lie: onnxruntime divides by the scale and takes the one before.

    Along an axis that shrinks it takes the one after. The axes are independent of each other, so that a graph that
    grows some and shrinks others can do so one after the other.
    """
    data, scales = node.input
    mode = attribute(node, "mode", "nearest")
    rules = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    known = rewriting.constants.constant(scales)
    if mode != "nearest" or (known is not None and np.all(known >= 1)):
        become(node, "Resize", [data, "", scales], **_resampling("floor", rules))
        return
    if known is not None and np.all(known <= 1):
        become(node, "Resize", [data, "", scales], **_resampling("ceil", rules))
        return
    one = edit.constant(1.0, np.float32, role="one")
    larger, smaller = edit.add("Max", [scales, one]), edit.add("Min", [scales, one])
    grown = edit.add("Resize", [data, "", larger], **_resampling("floor", rules))
    become(node, "Resize", [grown, "", smaller], **_resampling("ceil", rules))


def _resampling(nearest_mode: str, rules: dict[str, Any]) -> dict[str, Any]:
    return {**rules, "nearest_mode": nearest_mode} if rules["mode"] == "nearest" else rules


def _resize_18(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """An operand that is not meant was an empty tensor; since set 13 it may be left out, and has to be later on."""
    for place in range(1, len(node.input)):
        shape = edit.types.shape(node.input[place]) if node.input[place] else None
        if shape is not None and 0 in shape:
            node.input[place] = ""
    if node.input[1:] and attribute(node, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        node.input[1] = ""


def _roi_align_16(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    give(node, coordinate_transformation_mode="output_half_pixel")


def _scan_9(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """Set 8 scanned the second axis of every image of a batch: now one Scan over the batch holds one over that axis."""
    sequence_lengths, *operands = node.input
    if sequence_lengths:
        raise CannotNormalize("its sequences have different lengths")
    body = GraphProto()
    body.CopyFrom(next(subgraphs(node)))
    scanned = int(attribute(node, "num_scan_inputs"))
    states = len(operands) - scanned
    directions = attribute(node, "directions", [])
    inner = helper.make_node(
        "Scan", [edit.fresh("of_one_image") for _ in operands], [edit.fresh("of_one_image") for _ in node.output],
        body=body, num_scan_inputs=scanned, **({"scan_input_directions": directions} if directions else {}),
    )  # fmt: skip
    inputs, outputs = [], []
    for place, (name, value) in enumerate(zip(inner.input, body.input, strict=True)):
        # A sequence has one axis more than what the body sees of it.
        inputs.append(_value(name, value, rank_added=int(place >= states)))
    for place, (name, value) in enumerate(zip(inner.output, body.output, strict=True)):
        outputs.append(_value(name, value, rank_added=int(place >= states)))
    outer = helper.make_graph([inner], edit.fresh("one_image"), inputs, outputs)
    become(node, "Scan", operands, body=outer, num_scan_inputs=len(operands))


def _value(name: str, like: onnx.ValueInfoProto, *, rank_added: int) -> onnx.ValueInfoProto:
    tensor = like.type.tensor_type
    shape: list[Any] | None = None
    if tensor.HasField("shape"):
        sides = [side.dim_value if side.HasField("dim_value") else side.dim_param or None for side in tensor.shape.dim]
        shape = [None] * rank_added + sides
    return helper.make_tensor_value_info(name, tensor.elem_type, shape)


def _scatter_11(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    node.op_type = "ScatterElements"


def _selu_6(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    give(node, alpha=float(attribute(node, "alpha", 1.6732)), gamma=float(attribute(node, "gamma", 1.0507)))


def _slice_10(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    for name in ("starts", "ends", "axes"):
        values = take_attribute(node, name)
        if values is not None:
            node.input.append(edit.constant(values, np.int64, role=name))


def _softmax_13(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """All axes from ``axis`` on were one; since then ``axis`` is the only one."""
    data, axis, rank = node.input[0], int(take_attribute(node, "axis", 1)), edit.types.rank(node.input[0])
    if axis == -1 or (rank and axis % rank == rank - 1):
        give(node, axis=-1)
        return
    flat = edit.add("Flatten", [data], axis=axis)
    spread = edit.add(node.op_type, [flat], axis=-1)
    become(node, "Reshape", [spread, edit.add("Shape", [data])], allowzero=1)


def _split_13(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    sizes = take_attribute(node, "split")
    if sizes:
        node.input.append(edit.constant(sizes, np.int64, role="split"))


def _split_18(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    if not any(node.input[1:]):
        give(node, num_outputs=len(node.output))


def _top_k_10(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    node.input.append(edit.constant([take_attribute(node, "k")], np.int64, role="k"))


def _unchanged(_: NodeProto, __: GraphEditor, ___: _Rewriting) -> None:
    """Its schema changed in a way that no file can tell."""


def _upsample_7(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    height, width = take_attribute(node, "height_scale"), take_attribute(node, "width_scale")
    give(node, scales=[1.0, 1.0, height, width])


def _upsample_9(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    node.input.append(edit.constant(take_attribute(node, "scales"), np.float32, role="scales"))


def _upsample_10(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    data, scales = node.input
    mode = "nearest" if attribute(node, "mode", "nearest") == "nearest" else "linear"
    rules = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    become(node, "Resize", [data, "", scales], **_resampling("floor", rules))


_Step = Callable[[NodeProto, GraphEditor, _Rewriting], None]

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

STEPS: dict[tuple[str, int], _Step] = {
    **{(op_type, 7): _broadcast_7 for op_type in ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow")},
    **{(op_type, 7): _broadcast_7 for op_type in ("Sub", "Xor")},
    **{(op_type, 7): _drop("output_sequence") for op_type in ("GRU", "LSTM", "RNN")},
    **{(op_type, 13): _softmax_13 for op_type in ("Hardmax", "LogSoftmax", "Softmax")},
    **{(f"Reduce{kind}", 18): _axes_to_input for kind in _REDUCTIONS},
    ("BatchNormalization", 7): _batch_normalization_7,
    ("BatchNormalization", 9): _batch_normalization_9,
    ("BatchNormalization", 14): _batch_normalization_14,
    ("Cast", 6): _cast_6,
    ("Clip", 6): _unchanged,
    ("Clip", 11): _clip_11,
    ("Concat", 4): _concat_4,
    ("Dropout", 7): _drop("is_test"),
    ("Dropout", 12): _dropout_12,
    ("GRU", 3): _unchanged,
    ("Gemm", 7): _drop("broadcast"),
    ("PRelu", 7): _prelu_7,
    ("Pad", 2): _pad_2,
    ("Pad", 11): _pad_11,
    ("ReduceSum", 13): _axes_to_input,
    ("Reshape", 5): _reshape_5,
    ("Resize", 11): _resize_11,
    ("Resize", 18): _resize_18,
    ("RoiAlign", 16): _roi_align_16,
    ("Scan", 9): _scan_9,
    ("Scatter", 11): _scatter_11,
    ("Selu", 6): _selu_6,
    ("Slice", 10): _slice_10,
    ("Split", 2): _unchanged,
    ("Split", 13): _split_13,
    ("Split", 18): _split_18,
    ("Squeeze", 13): _axes_to_input,
    ("TopK", 10): _top_k_10,
    ("Unsqueeze", 13): _axes_to_input,
    ("Upsample", 7): _upsample_7,
    ("Upsample", 9): _upsample_9,
    ("Upsample", 10): _upsample_10,
}
"""Rewrites by operator and by the version that they lead to, from the version before it."""
