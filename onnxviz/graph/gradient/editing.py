"""A graph whose nodes are to be replaced comes in; new nodes, constants and names that clash with none go out.

The tools that the rewrites of :mod:`onnxviz.graph.gradient.upgrade` and :mod:`onnxviz.graph.gradient.decompose` share.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import InferenceError

from onnxviz.graph.wiring import attribute, subgraphs

__all__ = [
    "CannotNormalize",
    "GraphEditor",
    "ValueNames",
    "ValueTypes",
    "become",
    "copied",
    "give",
    "infer_types",
    "settle_constants",
    "take_attribute",
]


class CannotNormalize(Exception):
    """A node cannot be written in the operators that the engine knows; the message says why."""


class ValueNames:
    """All names of values in a model, its bodies included, so that a new one clashes with none."""

    def __init__(self, proto: ModelProto) -> None:
        self._taken = set(_value_names(proto.graph))

    def fresh(self, base: str) -> str:
        """A name that no value has yet: the base, or the base and a number."""
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def _value_names(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        yield tensor.name
    for node in graph.node:
        yield from node.input
        yield from node.output
        for body in subgraphs(node):
            yield from _value_names(body)


class ValueTypes:
    """What is known of the values that a graph sees: those of the graphs around it too.

    Parameters
    ----------
    graph : onnx.GraphProto
        A graph with inferred types, which must not change while this is in use.
    outer : ValueTypes, optional
        The graph around it.
    """

    def __init__(self, graph: GraphProto, outer: ValueTypes | None = None) -> None:
        own: dict[str, tuple[int, tuple[int | None, ...] | None]] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            shape = None
            if tensor.HasField("shape"):
                shape = tuple(side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim)
            own[value.name] = (tensor.elem_type, shape)
        for tensor in graph.initializer:
            own[tensor.name] = (tensor.data_type, tuple(tensor.dims))
        self._known: ChainMap[str, tuple[int, tuple[int | None, ...] | None]] = (
            outer._known.new_child(own) if outer else ChainMap(own)
        )

    def element_type(self, name: str) -> int:
        """The value's ``TensorProto.DataType``, UNDEFINED where nothing tells."""
        return self._known.get(name, (TensorProto.UNDEFINED, None))[0]

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The sides, None for those left open; None as a whole where even the rank is unknown."""
        return self._known.get(name, (TensorProto.UNDEFINED, None))[1]

    def rank(self, name: str) -> int | None:
        """The number of axes, or None."""
        shape = self.shape(name)
        return None if shape is None else len(shape)


def infer_types(proto: ModelProto) -> ModelProto:
    """The model with the types of all values that onnx can tell; as it is where its inference fails."""
    try:
        return onnx.shape_inference.infer_shapes(proto)
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InferenceError):
        # A type unknown is no failure: every rewrite has a form that does without, or says what it lacks.
        return proto


class GraphEditor:
    """The nodes that take the place of one graph's own, and the constants they need.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        The nodes so far.
    near : str
        The value being made: helper values are called after it.
    types : ValueTypes
        What is known of the values of the graph as it was.
    """

    def __init__(self, graph: GraphProto, names: ValueNames, types: ValueTypes, pending: dict[str, ArrayLike]) -> None:
        self.nodes: list[NodeProto] = []
        self.near = ""
        self.types = types
        self._graph = graph
        self._names = names
        self._pending = pending
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def fresh(self, role: str) -> str:
        """A new name after the value being made."""
        return self._names.fresh(f"{self.near}/{role}")

    def add(self, op_type: str, inputs: Sequence[str], *, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node of the standard domain and return the name of its first output."""
        made = list(outputs) or [self.fresh(op_type)]
        self.nodes.append(helper.make_node(op_type, list(inputs), made, **attributes))
        return made[0]

    def constant(self, values: ArrayLike, dtype: type[np.generic], *, role: str) -> str:
        """The name of an initializer that holds the values; one for all who need the same."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.fresh(role)
            self._graph.initializer.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def like(self, values: ArrayLike, reference: str, *, role: str) -> str:
        """A constant of the type that another value has; :func:`settle_constants` finds out which that is."""
        name = self.fresh(role)
        self._pending[name] = values
        stored = self.constant(values, np.float64, role=f"{role}_stored")
        return self.add("CastLike", [stored, reference], outputs=[name])

    def finish(self) -> None:
        """Put the nodes into the graph."""
        del self._graph.node[:]
        self._graph.node.extend(self.nodes)


def settle_constants(proto: ModelProto, pending: dict[str, ArrayLike]) -> None:
    """Turn what :meth:`GraphEditor.like` made into plain initializers, in place, wherever the type can be told."""
    if pending:
        inferred = infer_types(proto)
        _settle_graph(proto.graph, inferred.graph, None, pending)


def _settle_graph(
    graph: GraphProto, inferred: GraphProto, outer: ValueTypes | None, pending: dict[str, ArrayLike]
) -> None:
    types = ValueTypes(inferred, outer)
    renamed: dict[str, str] = {}
    shared: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    kept = []
    for node, twin in zip(graph.node, inferred.node, strict=True):
        for body, inferred_body in zip(subgraphs(node), subgraphs(twin), strict=True):
            _settle_graph(body, inferred_body, types, pending)
        name = node.output[0] if node.output else ""
        element_type = types.element_type(node.input[1]) if name in pending else TensorProto.UNDEFINED
        if element_type == TensorProto.UNDEFINED:
            kept.append(node)
            continue
        with np.errstate(over="ignore"):  # the largest float32 is infinite as float16, and means no bound there too
            array = np.asarray(pending[name]).astype(helper.tensor_dtype_to_np_dtype(element_type))
        key = (element_type, array.shape, array.tobytes())
        if key not in shared:
            shared[key] = name
            graph.initializer.append(numpy_helper.from_array(array, name))
        renamed[name] = shared[key]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    read = {name for node in kept for name in node.input}
    stored = {node.input[0] for node in graph.node if node.output and node.output[0] in renamed}
    nodes = [copied(node) for node in kept]
    tensors = [tensor for tensor in graph.initializer if tensor.name not in stored or tensor.name in read]
    del graph.node[:]
    graph.node.extend(nodes)
    _keep_tensors(graph, tensors)


def _keep_tensors(graph: GraphProto, tensors: Sequence[TensorProto]) -> None:
    if len(tensors) == len(graph.initializer):
        return
    kept = []
    for tensor in tensors:
        kept.append(TensorProto())
        kept[-1].CopyFrom(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def copied(node: NodeProto) -> NodeProto:
    """A node of its own with the same content."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def take_attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The attribute's value, or the default; the node no longer has it afterwards."""
    value = attribute(node, name, default)
    _set_attributes(node, [entry for entry in node.attribute if entry.name != name])
    return value


def _set_attributes(node: NodeProto, entries: Sequence[AttributeProto]) -> None:
    kept = []
    for entry in entries:
        kept.append(AttributeProto())
        kept[-1].CopyFrom(entry)
    del node.attribute[:]
    node.attribute.extend(kept)


def give(node: NodeProto, **attributes: Any) -> None:
    """Set attributes of a node, whatever they were."""
    _set_attributes(node, [entry for entry in node.attribute if entry.name not in attributes])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def become(node: NodeProto, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
    """Turn a node into one of another operator of the standard domain; name and outputs stay."""
    node.op_type = op_type
    node.ClearField("domain")
    del node.input[:]
    node.input.extend(inputs)
    del node.attribute[:]
    give(node, **attributes)
