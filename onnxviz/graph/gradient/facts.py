"""A graph comes in; the type, the rank and, where they are certain, the sides of every value go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxviz.graph.wiring import attribute, captured_names

__all__ = ["FLOATS", "Side", "ValueFacts", "infer_facts", "unknown_values", "with_fixed_inputs", "with_measured"]

Side = int | str | None
"""Length of one axis: a number, the name of a free length (equal names mean equal lengths), or unknown."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Element types that have a derivative."""

BATCH = "batch"
"""Name of the free first axis."""

# Of these outputs the shape follows from the numbers in the data, not from the shapes alone.
_SHAPED_BY_DATA = frozenset(
    {"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "If", "Scan", "StringSplit", "SequenceAt"}
)
# Input numbers that decide an output's shape by what they hold.
_SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2), "Slice": (1, 2, 3, 4),
    "Pad": (1, 3), "Tile": (1,), "Resize": (1, 2, 3), "Upsample": (1,), "TopK": (1,), "OneHot": (1,), "Split": (1,),
    "Squeeze": (1,), "Unsqueeze": (1,), "CenterCropPad": (1,), "MaxUnpool": (2,), "Col2Im": (1, 2), "STFT": (1, 3),
}  # fmt: skip


@dataclass(frozen=True)
class ValueFacts:
    """What is known about the values of one graph."""

    types: Mapping[str, int]
    """Element type (``TensorProto.DataType``) by value name."""
    shapes: Mapping[str, tuple[Side, ...]]
    """Sides by value name; a value of unknown rank is missing."""


def with_fixed_inputs(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], *, free_batch: bool
) -> onnx.ModelProto:
    """A copy whose inputs have stated sides, but for the batch, which is called ``"batch"`` where it is free."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        if value.name in shapes:
            shape = shapes[value.name]
            sides: list[int | str] = [BATCH, *shape[1:]] if free_batch and shape else list(shape)
            value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sides))
    # What an exporter wrote down about other sides is no longer true.
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return fixed


def infer_facts(proto: onnx.ModelProto) -> ValueFacts:
    """Facts that follow from the graph alone, by ONNX's own shape inference.

    Weights may lie beside the graph: only their stated shapes are read.
    """
    types: dict[str, int] = {}
    shapes: dict[str, tuple[Side, ...]] = {}
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    for value in (*inferred.value_info, *inferred.output, *inferred.input):
        tensor = value.type.tensor_type
        if tensor.elem_type:
            types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(_side(side) for side in tensor.shape.dim)
    for name in _behind_rounded_up_pools(proto):
        shapes.pop(name, None)
    for stored in proto.graph.initializer:
        types[stored.name], shapes[stored.name] = stored.data_type, tuple(stored.dims)
    return ValueFacts(types, shapes)


def _behind_rounded_up_pools(proto: onnx.ModelProto) -> set[str]:
    """Values behind a pool with ``ceil_mode``: inference and runtimes count its windows differently."""
    behind: set[str] = set()
    for node in proto.graph.node:
        if attribute(node, "ceil_mode", 0) or not behind.isdisjoint({*node.input} | captured_names(node)):
            behind.update(name for name in node.output if name)
    return behind


def _side(side: onnx.TensorShapeProto.Dimension) -> Side:
    if side.HasField("dim_value"):
        return int(side.dim_value)
    # Inference invents names ("unk__3") for lengths that it cannot tell; equal ones are still equal lengths.
    return str(side.dim_param) or None


def unknown_values(proto: onnx.ModelProto, facts: ValueFacts) -> tuple[str, ...]:
    """Values made by nodes whose type, rank or some side only a run can tell."""
    made = (name for node in proto.graph.node for name in node.output if name)
    return tuple(
        name
        for name in made
        if name not in facts.types
        or name not in facts.shapes
        or any(not isinstance(side, int) and side != BATCH for side in facts.shapes[name])
    )


def with_measured(
    proto: onnx.ModelProto, facts: ValueFacts, runs: Sequence[tuple[int, Mapping[str, np.ndarray]]]
) -> ValueFacts:
    """Facts completed by what runs have shown.

    Ranks and types are certain after one run. A side that is the same in all runs, or that was the number of rows in
    all of them, is taken for certain unless numbers in the data decide about shapes before it.

    Parameters
    ----------
    proto : onnx.ModelProto
    facts : ValueFacts
        What inference told; what it is sure of stays.
    runs : sequence of (rows, {value name: array})
        Different numbers of rows where the batch is free.
    """
    types, shapes = dict(facts.types), dict(facts.shapes)
    unsure = _shaped_by_data(proto)
    for name in runs[0][1]:
        arrays = [(rows, arrays[name]) for rows, arrays in runs]
        types[name] = helper.np_dtype_to_tensor_dtype(arrays[0][1].dtype)
        if len({array.ndim for _, array in arrays}) > 1:
            continue
        measured: list[Side] = []
        known = shapes.get(name, (None,) * arrays[0][1].ndim)
        for axis in range(arrays[0][1].ndim):
            if isinstance(known[axis], int):
                measured.append(known[axis])
            elif name in unsure:
                measured.append(None)
            elif len({array.shape[axis] for _, array in arrays}) == 1:
                measured.append(int(arrays[0][1].shape[axis]))
            elif all(array.shape[axis] == rows for rows, array in arrays):
                measured.append(BATCH)
            else:
                measured.append(known[axis])
        shapes[name] = tuple(measured)
    return ValueFacts(types, shapes)


def _shaped_by_data(proto: onnx.ModelProto) -> set[str]:
    """Values whose shape may depend on the numbers that are fed."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    by_data = {value.name for value in proto.graph.input} - stored
    shaped: set[str] = set()
    for node in proto.graph.node:
        inputs = [name for name in node.input if name]
        decisive = [node.input[place] for place in _SHAPE_INPUTS.get(node.op_type, ()) if place < len(node.input)]
        if (
            node.op_type in _SHAPED_BY_DATA
            or not shaped.isdisjoint(inputs)
            or any(name in by_data for name in decisive)
        ):
            shaped.update(name for name in node.output if name)
        reads_shape_only = node.op_type in ("Shape", "Size")
        reads = set(inputs) | captured_names(node)
        if (shaped if reads_shape_only else by_data | shaped) & reads:
            by_data.update(name for name in node.output if name)
    return shaped
