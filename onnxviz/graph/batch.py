"""A graph made for a fixed number of images comes in; the same graph for any number, or None, goes out."""

from __future__ import annotations

import onnx

from onnxviz.graph.batch_rules import RULES
from onnxviz.graph.batch_state import BatchAxis, BatchState, CannotRewrite, is_plain
from onnxviz.graph.contract import find_image_input
from onnxviz.graph.taps import copy_tensors
from onnxviz.graph.wiring import captured_names, real_inputs

__all__ = ["explain_fixed_batch", "make_batch_dynamic", "static_batch"]

_MOST_WALKS = 200


def static_batch(proto: onnx.ModelProto) -> int | None:
    """The number of images that the graph was made for; None where its first input leaves it open or has no batch."""
    leading = _leading_input(proto)
    if leading is None:
        return None
    side = leading.type.tensor_type.shape.dim[0]
    return side.dim_value if side.HasField("dim_value") and side.dim_value > 0 else None


def make_batch_dynamic(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Rewrite a graph with a fixed batch so that any number of images can share a run.

    The batch's axis is followed from the inputs through every operator. Where the graph states the batch as a number
    (shapes for Reshape, Expand and Resize, ends of Slice, a class token or an initial state for one image) that number
    is opened; the result for the stated batch stays as it was. Whether larger batches give the rows of single runs is
    for the caller to prove by a run.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, functions inlined; it is left as it is.

    Returns
    -------
    onnx.ModelProto or None
        The same object where the batch is open already; None where it cannot be opened, for which
        :func:`explain_fixed_batch` gives the reason.
    """
    batch = static_batch(proto)
    if batch is None:
        return proto
    try:
        return _rewrite(proto, batch)
    except CannotRewrite:
        return None


def explain_fixed_batch(proto: onnx.ModelProto) -> str:
    """Why :func:`make_batch_dynamic` gives None, in a few words; ``""`` where it does not."""
    batch = static_batch(proto)
    if batch is None:
        return ""
    try:
        _rewrite(proto, batch)
    except CannotRewrite as reason:
        return str(reason)
    return ""


def _leading_input(proto: onnx.ModelProto) -> onnx.ValueInfoProto | None:
    """The input that states the batch: the image, or else the first with at least two axes."""
    inputs = real_inputs(proto.graph)
    image = find_image_input(proto)
    ranked = [value for value in inputs if len(value.type.tensor_type.shape.dim) >= 2]
    if image is not None:
        named = next(value for value in inputs if value.name == image.name)
        return named if named in ranked else None
    return ranked[0] if ranked else None


def _rewrite(proto: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Walk the graph; where a walk ends because an ambiguous Reshape was misread, walk again with its next reading."""
    choices: list[int] = []
    first_reason: CannotRewrite | None = None
    for _ in range(_MOST_WALKS):
        state = BatchState(proto, batch, choices=choices)
        try:
            return _walk(proto, state)
        except CannotRewrite as reason:
            first_reason = first_reason or reason
            choices += [0] * (len(state.alternatives) - len(choices))
            while choices and choices[-1] + 1 >= state.alternatives[len(choices) - 1]:
                choices.pop()
            if not choices:
                raise first_reason from None
            choices[-1] += 1
    raise CannotRewrite("its Reshapes can be read in too many ways")


def _walk(proto: onnx.ModelProto, state: BatchState) -> onnx.ModelProto:
    batched = []
    for value in real_inputs(proto.graph):
        sides = value.type.tensor_type.shape.dim
        # A vector of one number is a threshold or a size rather than a row for each image.
        if len(sides) >= 2 and sides[0].dim_value == state.batch:
            state.axes[value.name] = BatchAxis(0)
            batched.append(value.name)
    for node in proto.graph.node:
        _follow(node, state)
    for output in proto.graph.output:
        axis = state.axes.get(output.name)
        if axis is not None and not is_plain(axis):
            raise CannotRewrite(f"output {output.name!r} has no axis that holds the batch alone")
    return _assemble(proto, state, batched)


def _follow(node: onnx.NodeProto, state: BatchState) -> None:
    touched = {*filter(None, node.input), *captured_names(node)}
    carried, sized = touched & state.axes.keys(), touched & state.sized.keys()
    if not carried and not sized:
        state.keep(node)
        return
    if captured_names(node):
        raise CannotRewrite(f"the body of {node.op_type} {node.name!r} reads the batch")
    # Shape arithmetic has no batch axis of its own; a Reshape of constants to the batch's size counts too.
    if not carried:
        state.evaluate_sized(node)
        return
    rule = RULES.get(node.op_type)
    if rule is None:
        raise CannotRewrite(f"operator {node.op_type} is not followed")
    try:
        rule(node, state)
    except (IndexError, ValueError, TypeError, KeyError) as error:
        raise CannotRewrite(f"{node.op_type} {node.name!r} has unusual parameters ({error})") from error
    state.complete_shapes(node)


def _assemble(proto: onnx.ModelProto, state: BatchState, batched: list[str]) -> onnx.ModelProto:
    graph = proto.graph
    opened = onnx.ModelProto(
        ir_version=proto.ir_version, producer_name=proto.producer_name, producer_version=proto.producer_version,
        domain=proto.domain, model_version=proto.model_version, doc_string=proto.doc_string,
    )  # fmt: skip
    opened.opset_import.extend(proto.opset_import)
    opened.metadata_props.extend(proto.metadata_props)
    opened.graph.name = graph.name
    opened.graph.node.extend(state.nodes)
    copy_tensors(opened.graph, graph.initializer)
    opened.graph.initializer.extend(state.tensors)
    opened.graph.sparse_initializer.extend(graph.sparse_initializer)
    opened.graph.input.extend(graph.input)
    opened.graph.output.extend(graph.output)
    symbol = _free_symbol(graph)
    for value in (*opened.graph.input, *opened.graph.output):
        if value.name in batched or value.name in state.axes:
            sides = value.type.tensor_type.shape.dim
            axis = state.axes[value.name].axis
            if axis < len(sides):
                sides[axis].Clear()
                sides[axis].dim_param = symbol
    # The stated shapes of inner values hold the old batch; the runtime finds them anew.
    return opened


def _free_symbol(graph: onnx.GraphProto) -> str:
    taken = {side.dim_param for value in (*graph.input, *graph.output) for side in value.type.tensor_type.shape.dim}
    symbol = "batch"
    while symbol in taken:
        symbol += "_"
    return symbol
