"""Where the batch lies in each value, and what depends on its size: the knowledge gathered while a graph is walked.

The bookkeeping of :mod:`onnxviz.graph.batch`, which the rules of :mod:`onnxviz.graph.batch_rules` read and write.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxviz.graph.values import infer_types
from onnxviz.graph.wiring import Wiring, evaluate

__all__ = [
    "PROBE",
    "BatchAxis",
    "BatchState",
    "CannotRewrite",
    "carried_inputs",
    "data_axis",
    "give_outputs",
    "is_plain",
    "positive_axis",
    "resolve_sides",
]

PROBE = 7
"""Shape arithmetic is evaluated for the batch as stated and for so many times as much: what differs is the batch."""


class CannotRewrite(Exception):
    """The batch cannot be followed further; the message says where."""


@dataclass(frozen=True)
class BatchAxis:
    """Where the batch lies in a value: the side of ``axis`` is ``outer`` × batch × ``factor``, slowest index first."""

    axis: int
    factor: int = 1
    outer: int = 1

    def moved(self, axis: int) -> BatchAxis:
        """The same batch on another axis."""
        return BatchAxis(axis, self.factor, self.outer)


class BatchState:
    """The walk's knowledge, and the graph that it writes."""

    def __init__(self, proto: onnx.ModelProto, batch: int, *, choices: Sequence[int] = ()) -> None:
        self.batch = batch
        self.wiring = Wiring(proto)
        self.opset = self.wiring.opset
        self.axes: dict[str, BatchAxis] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, int] = {}
        for name, found in infer_types(proto).items():
            self._types[name] = found.tensor_type.elem_type
            sides = [side.dim_value for side in found.tensor_type.shape.dim if side.HasField("dim_value")]
            stated = found.WhichOneof("value") == "tensor_type" and found.tensor_type.HasField("shape")
            if stated and len(sides) == len(found.tensor_type.shape.dim):
                self.shapes[name] = tuple(sides)
        self.sized: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        """Contents that depend on the batch's size: with the batch as stated, and PROBE times as large."""
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._choices = list(choices)
        self.alternatives: list[int] = []
        """How many readings each ambiguous Reshape of the walk had."""
        self._taken = {*self.wiring.producer, *self.wiring.initializers, *self.wiring.inputs}

    def choose(self, readings: Sequence[BatchAxis]) -> BatchAxis:
        """One of several readings: the first, unless an earlier walk found that it leads nowhere."""
        if len(readings) == 1:
            return readings[0]
        turn = len(self.alternatives)
        self.alternatives.append(len(readings))
        return readings[self._choices[turn] if turn < len(self._choices) else 0]

    def shape(self, name: str) -> tuple[int, ...]:
        """The concrete shape, batch as stated."""
        found = self.shapes.get(name)
        if found is None and (constant := self.wiring.constant(name)) is not None:
            found = self.shapes[name] = constant.shape
        if found is None:
            raise CannotRewrite(f"the shape of {name!r} is not known")
        return found

    def probe_shape(self, name: str) -> tuple[int, ...]:
        """The shape with PROBE times the batch."""
        sides = list(self.shape(name))
        if name in self.axes:
            sides[self.axes[name].axis] *= PROBE
        return tuple(sides)

    def both(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """A parameter's content for the stated batch and for PROBE times as much."""
        if name in self.sized:
            return self.sized[name]
        content = None if name in self.axes else self.wiring.constant(name)
        if content is None:
            raise CannotRewrite(f"the content of {name!r} is not known")
        return content, content

    def fixed(self, name: str) -> list[int]:
        """A parameter's content, which must not depend on the batch."""
        if name in self.sized:
            raise CannotRewrite(f"{name!r} depends on the batch")
        return [int(entry) for entry in self.both(name)[0].ravel()]

    def keep(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Write a copy of the node into the new graph, and return it for patching."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        self.nodes.append(copy)
        return copy

    def unused(self, name: str) -> str:
        """A name like the given one that the graph does not have yet."""
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate

    def store(self, entries: Sequence[int], *, near: str) -> str:
        """Add an int64 vector to the graph and return its name."""
        name = self.unused(f"{near}/any_batch")
        self.tensors.append(numpy_helper.from_array(np.asarray(entries, np.int64), name))
        return name

    def sides_like(self, sides: Sequence[int], axis: int, *, reference: str) -> str:
        """Name of a shape vector: ``sides``, except that ``axis`` has the side of the reference's batch axis."""
        shape, side = self.unused(f"{reference}/shape"), self.unused(f"{reference}/batch")
        around = (list(sides[:axis]), list(sides[axis + 1 :]))
        parts = [self.store(part, near=reference) if part else "" for part in around]
        where = self.store([self.axes[reference].axis], near=reference)
        whole = self.unused(f"{reference}/sides")
        self.nodes += [
            helper.make_node("Shape", [reference], [shape]),
            helper.make_node("Gather", [shape, where], [side]),
            helper.make_node("Concat", [name for name in (parts[0], side, parts[1]) if name], [whole], axis=0),
        ]
        return whole

    def repeat_over_batch(self, name: str, axis: int, *, reference: str) -> str:
        """Give a value without batch one: its ``axis``, of side 1, is repeated as often as the reference's batch."""
        sides = self.shape(name)
        if sides[axis] != 1:
            raise CannotRewrite(f"{name!r} holds a row for each of {sides[axis]} images")
        repeated = self.unused(f"{name}/any_batch")
        target = self.sides_like(sides, axis, reference=reference)
        self.nodes.append(helper.make_node("Expand", [name, target], [repeated]))
        return repeated

    def evaluate_sized(self, node: onnx.NodeProto) -> None:
        """Follow arithmetic on shapes: evaluate it for both sizes, and see where shapes or contents differ."""
        pairs = [self.both(name) if name else None for name in node.input]
        operands = [[None if pair is None else pair[which] for pair in pairs] for which in (0, 1)]
        results = [evaluate(node, given, opset=self.opset) for given in operands]
        for name in filter(None, node.output):
            if name not in results[0] or name not in results[1]:
                raise CannotRewrite(f"{node.op_type} on the batch's size")
            stated, probed = results[0][name], results[1][name]
            self.shapes[name] = stated.shape
            if stated.shape == probed.shape:
                self.sized[name] = stated, probed
            else:
                self.axes[name] = self.differing_axis(stated.shape, probed.shape)
        self.keep(node)

    def complete_shapes(self, node: onnx.NodeProto) -> None:
        """Infer the shapes of a node's outputs where the graph's inference could not: the walk knows more sides."""
        unknown = [name for name in node.output if name and name not in self.shapes]
        if not unknown:
            return
        inputs, contents = [], []
        for name in dict.fromkeys(filter(None, node.input)):
            content = self.sized[name][0] if name in self.sized else None
            if content is None and name not in self.axes:
                content = self.wiring.constant(name)
            if content is not None:
                contents.append(numpy_helper.from_array(np.asarray(content, order="C"), name))
            elif name in self.shapes:
                held = self._types.get(name) or onnx.TensorProto.FLOAT
                inputs.append(helper.make_tensor_value_info(name, held, self.shapes[name]))
            else:
                return
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        model = helper.make_model(
            helper.make_graph([node], "lone", inputs, outputs, contents),
            opset_imports=self.wiring.proto.opset_import,
        )
        for name, found in infer_types(model).items():
            sides = found.tensor_type.shape.dim
            if name in unknown and found.tensor_type.HasField("shape") and all(s.HasField("dim_value") for s in sides):
                self.shapes[name] = tuple(side.dim_value for side in sides)
                self._types[name] = found.tensor_type.elem_type

    def differing_axis(self, stated: Sequence[int], probed: Sequence[int]) -> BatchAxis:
        """The one axis that grows with the batch."""
        grown = [axis for axis, (few, many) in enumerate(zip(stated, probed, strict=True)) if few != many]
        if len(grown) != 1 or probed[grown[0]] != PROBE * stated[grown[0]] or stated[grown[0]] % self.batch:
            raise CannotRewrite(f"shape {tuple(stated)} does not grow with the batch along one axis")
        return BatchAxis(grown[0], stated[grown[0]] // self.batch)


def resolve_sides(source: Sequence[int], target: Sequence[int]) -> tuple[int, ...]:
    """The shape that ONNX Reshape makes of ``source``: 0 copies a side, -1 takes what is left."""
    sides = [source[i] if side == 0 and i < len(source) else int(side) for i, side in enumerate(target)]
    if -1 in sides:
        known = math.prod(side for side in sides if side != -1)
        sides[sides.index(-1)] = math.prod(source) // known if known else 0
    if math.prod(sides) != math.prod(source):
        raise CannotRewrite(f"shape {tuple(source)} cannot become {tuple(target)}")
    return tuple(sides)


def carried_inputs(node: onnx.NodeProto, state: BatchState) -> list[str]:
    """The node's inputs that hold the batch."""
    return [name for name in node.input if name in state.axes]


def give_outputs(node: onnx.NodeProto, state: BatchState, axis: BatchAxis) -> None:
    """State where the batch lies in every output of the node."""
    for name in filter(None, node.output):
        state.axes[name] = axis


def positive_axis(axis: int, rank: int) -> int:
    """The axis counted from the front."""
    return axis + rank if axis < 0 else axis


def data_axis(node: onnx.NodeProto, state: BatchState) -> BatchAxis:
    """The first input's batch axis; the other inputs are parameters."""
    if node.input[0] not in state.axes or len(carried_inputs(node, state)) > 1:
        raise CannotRewrite(f"{node.op_type} with a batch among its parameters")
    return state.axes[node.input[0]]


def is_plain(batch: BatchAxis) -> bool:
    """Whether the axis holds the batch and nothing else."""
    return batch == BatchAxis(batch.axis)
