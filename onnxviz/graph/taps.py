"""A model and the names of values come in; a copy whose outputs are exactly those values goes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from onnxviz.errors import InputError, ValueNotFoundError, near_misses
from onnxviz.graph.wiring import captured_names

__all__ = ["copy_tensors", "expose"]


def expose(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Copy a model so that its outputs are the named values, in that order.

    Nodes and weights that none of them needs are left out; inputs stay, so that every copy is fed alike. What the
    bodies of If, Loop and Scan take from the graph around them counts as needed.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it is left as it is.
    names : sequence of str
        Values of the main graph (node outputs, inputs or weights); repeated names count once.

    Returns
    -------
    onnx.ModelProto
        The weights it needs are copied once, straight into the new model.

    Raises
    ------
    ValueNotFoundError
        A name is not a value of the main graph.
    InputError
        No name was given.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        raise InputError("no value to expose", where="values", got="an empty list", allowed="at least one name")
    graph = proto.graph
    made = {name for node in graph.node for name in node.output if name}
    stored = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    given = {value.name for value in graph.input}
    for name in wanted:
        if name not in made and name not in stored and name not in given:
            raise ValueNotFoundError(
                "no value of the graph has this name", where="values", got=repr(name),
                allowed=near_misses(name, [*given - stored, *made]),
            )  # fmt: skip

    needed = set(wanted)
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed |= {name for name in node.input if name} | captured_names(node)
            kept.append(node)

    tapped = onnx.ModelProto()
    for field, content in proto.ListFields():
        if field.name != "graph":
            _copy_field(tapped, field.name, content)
    for field, content in graph.ListFields():
        if field.name not in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
            _copy_field(tapped.graph, field.name, content)
    tapped.graph.node.extend(reversed(kept))
    copy_tensors(tapped.graph, (tensor for tensor in graph.initializer if tensor.name in needed))
    tapped.graph.sparse_initializer.extend(t for t in graph.sparse_initializer if t.values.name in needed)
    tapped.graph.input.extend(value for value in graph.input if value.name in needed or value.name not in stored)
    tapped.graph.value_info.extend(v for v in graph.value_info if v.name in needed and v.name not in wanted)
    declared = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    for name in wanted:
        # A bare name is a legal output: the runtime infers its type. A declared type is kept, it may know more.
        tapped.graph.output.add().CopyFrom(declared.get(name, onnx.ValueInfoProto(name=name)))
    return tapped


def copy_tensors(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    """Add copies of weights to a graph."""
    for tensor in tensors:
        # CopyFrom clones in memory; extend() writes and parses every message, three times slower.
        graph.initializer.add().CopyFrom(tensor)


def _copy_field(target: onnx.ModelProto | onnx.GraphProto, name: str, content: object) -> None:
    current = getattr(target, name)
    if hasattr(current, "extend"):
        current.extend(content)
    elif hasattr(current, "CopyFrom"):
        current.CopyFrom(content)
    else:
        setattr(target, name, content)
