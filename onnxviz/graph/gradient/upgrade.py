"""A graph of any operator set comes in; the same graph, its values named as before, at sets 18 to 21 goes out.

Every change of an operator between two sets is either a rewrite in the tables at the end of this file or one that its
schemas show to be harmless; whatever is neither is refused. Large weights are never looked at, so that a graph whose
weights lie beside it is rewritten like any other.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, inliner, numpy_helper
from onnx.shape_inference import InferenceError

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.detached import detach_weights
from onnxviz.graph.wiring import Wiring, attribute, default_opset, node_label, real_inputs, subgraphs

__all__ = [
    "CannotNormalize",
    "GraphEditor",
    "ValueNames",
    "ValueTypes",
    "attach_weights",
    "become",
    "incompatibility",
    "infer_types",
    "refusal",
    "rewritten",
    "settle_constants",
    "take_attribute",
    "upgrade",
]

LOWEST, HIGHEST = 18, 21
"""Operator sets that are left as they are."""

_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
_NEWEST_TYPE = TensorProto.INT4  # of operator set 21
# Operators that onnxruntime has had under the standard domain since before the standard took them in, as they are now.
_AHEAD_OF_STANDARD = frozenset({"LayerNormalization", "ThresholdedRelu"})
_DEEPEST_BODY = 20
_FURTHER_EXPORT = "Export the model again at operator set 18 to 21"


class CannotNormalize(Exception):
    """A node cannot be written in the operators that the engine knows; the message says why."""


def upgrade(proto: ModelProto, *, where: str) -> ModelProto:
    """Copy a model to one of the operator sets 18 to 21, the results unchanged.

    Older files come to set 18, newer ones to set 21; operators that set 21 lacks are written out by the bodies that
    the standard gives them. Bodies of If, Loop and Scan are rewritten too. What counts as unchanged is what
    onnxruntime makes of the file at inference.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, functions inlined; it is left as it is. Weights of 1 KiB and more may lie beside it.
    where : str
        The file's name, for messages.

    Returns
    -------
    onnx.ModelProto
        All values keep their names. New ones are called after the value they help to make.

    Raises
    ------
    UnsupportedOperatorError
        An operator cannot be expressed at the target set.
    """
    source = default_opset(proto)
    upgraded = ModelProto()
    upgraded.CopyFrom(proto)
    detach_weights(upgraded)  # whatever is decided below must not depend on where the weights lie
    target = min(max(source, LOWEST), HIGHEST)
    _use_standard_names(upgraded)
    if source > target:
        _check_newest(upgraded, source, where=where)
        upgraded = _write_out_newer(upgraded, source, where=where)
    if source != target:
        _Rewriting(upgraded, source, target, where=where).run()
    _set_opset(upgraded, target)
    attach_weights(upgraded, proto)
    return upgraded


def attach_weights(proto: ModelProto, original: ModelProto) -> None:
    """Give the initializers that share a name with the original's their numbers, or their place, back."""
    stored = {tensor.name: tensor for tensor in original.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL and tensor.name in stored:
            tensor.CopyFrom(stored[tensor.name])


def refusal(node: NodeProto, position: int, reason: str, *, version: int, where: str) -> UnsupportedOperatorError:
    """The error for a node that cannot be normalised; it names node, operator, domain and version."""
    domain = node.domain or "ai.onnx"
    return UnsupportedOperatorError(
        f"this node cannot be prepared for differentiation: {reason}",
        where=f"{where}, node {node_label(node, position)!r}",
        got=f"operator {node.op_type} of domain {domain!r}, version {version}",
        next_step=f"{_FURTHER_EXPORT} without this operator, or use a method that needs no gradient: occlusion",
    )  # fmt: skip


# -- editing ----------------------------------------------------------------------------------------------------------


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
    nodes = [_copied(node) for node in kept]
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


def _copied(node: NodeProto) -> NodeProto:
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


def _give(node: NodeProto, **attributes: Any) -> None:
    _set_attributes(node, [entry for entry in node.attribute if entry.name not in attributes])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def become(node: NodeProto, op_type: str, inputs: Sequence[str], **attributes: Any) -> None:
    """Turn a node into one of another operator of the standard domain; name and outputs stay."""
    node.op_type = op_type
    node.ClearField("domain")
    del node.input[:]
    node.input.extend(inputs)
    del node.attribute[:]
    _give(node, **attributes)


# -- from one operator set to another ---------------------------------------------------------------------------------


def _use_standard_names(proto: ModelProto) -> None:
    """The standard domain by its short name, and weights off the list of inputs, where files of IR version 3 have them.

    Bodies may not list their weights either.
    """

    def visit(graph: GraphProto) -> None:
        kept = real_inputs(graph)
        if len(kept) < len(graph.input):
            inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
            del graph.input[:]
            graph.input.extend(inputs)
        for node in graph.node:
            if node.domain == "ai.onnx":
                node.ClearField("domain")
            for body in subgraphs(node):
                visit(body)

    visit(proto.graph)


def _set_opset(proto: ModelProto, target: int) -> None:
    others = [(entry.domain, entry.version) for entry in proto.opset_import if entry.domain not in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in (("", target), *others))
    proto.ir_version = max(proto.ir_version, _IR_VERSIONS[target])


def _check_newest(proto: ModelProto, source: int, *, where: str) -> None:
    newest = defs.onnx_opset_version()
    if source > newest:
        raise UnsupportedOperatorError(
            "the operators of this file are newer than the installed onnx package", where=where,
            got=f"domain 'ai.onnx', version {source}", allowed=f"up to version {newest}",
            next_step=f"Install a newer onnx, or {_FURTHER_EXPORT[0].lower()}{_FURTHER_EXPORT[1:]}",
        )  # fmt: skip
    for tensor in proto.graph.initializer:
        if tensor.data_type > _NEWEST_TYPE:
            raise UnsupportedOperatorError(
                f"a weight has a type that operator set {HIGHEST} lacks", where=f"{where}, tensor {tensor.name!r}",
                got=TensorProto.DataType.Name(tensor.data_type),  # type: ignore[arg-type,unused-ignore]
                next_step="Export the model with another type of weights",
            )  # fmt: skip


def _write_out_newer(proto: ModelProto, source: int, *, where: str) -> ModelProto:
    """Replace the operators that set 21 lacks by the bodies that the standard defines for them."""
    for _ in range(_DEEPEST_BODY):
        newer: set[str] = set()
        for position, node in _every_node(proto.graph):
            if node.domain == "" and not defs.has(node.op_type, HIGHEST, "") and defs.has(node.op_type, source, ""):
                schema = defs.get_schema(node.op_type, source, "")
                if not _has_body(schema):
                    reason = f"operator set {HIGHEST} lacks it and the standard defines it by no others"
                    raise refusal(node, position, reason, version=schema.since_version, where=where)
                newer.add(node.op_type)
                # The body refers to the attributes; onnx leaves those that the node does not state empty.
                stated = {entry.name for entry in node.attribute}
                unstated = {name: _default(entry) for name, entry in schema.attributes.items() if name not in stated}
                _give(node, **{name: value for name, value in unstated.items() if value is not None})
        if not newer:
            return proto
        proto = _inlined(proto, newer, source, where=where)
    raise AssertionError("the standard defines its operators by each other")


def _with_all_types(proto: ModelProto) -> ModelProto:
    """A copy that states the type of every value: bodies depend on types, which onnx takes from there alone."""
    typed = ModelProto()
    typed.CopyFrom(infer_types(proto))

    def visit(graph: GraphProto) -> None:
        stated = {value.name for value in (*graph.input, *graph.value_info)}
        for tensor in graph.initializer:
            if tensor.name not in stated:
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                graph.value_info.append(value)
        for node in graph.node:
            for body in subgraphs(node):
                visit(body)

    visit(typed.graph)
    return typed


def _has_body(schema: Any) -> bool:  # these two lack in onnx's own stubs
    return bool(schema.has_function or schema.has_context_dependent_function)


def _inlined(proto: ModelProto, op_types: set[str], source: int, *, where: str) -> ModelProto:
    def calls(model: ModelProto) -> list[tuple[int, NodeProto]]:
        return [(p, n) for p, n in _every_node(model.graph) if n.domain == "" and n.op_type in op_types]

    cause = ""
    inlined = typed = _with_all_types(proto)
    try:
        inlined = inliner.inline_selected_functions(
            typed, [("", op_type) for op_type in sorted(op_types)], inline_schema_functions=True
        )
    except (RuntimeError, TypeError, ValueError, onnx.checker.ValidationError, InferenceError) as error:
        cause = f": {error}"
    left = calls(inlined)
    if len(left) < len(calls(proto)):
        del inlined.graph.value_info[:]
        inlined.graph.value_info.extend(proto.graph.value_info)
        return inlined
    position, node = left[0]
    version = defs.get_schema(node.op_type, source, "").since_version
    reason = f"operator set {HIGHEST} lacks it and onnx cannot write out its definition{cause}"
    raise refusal(node, position, reason, version=version, where=where)


def _every_node(graph: GraphProto) -> Iterator[tuple[int, NodeProto]]:
    for position, node in enumerate(graph.node):
        yield position, node
        for body in subgraphs(node):
            yield from _every_node(body)


class _Rewriting:
    """One model on its way from one operator set to another, changed in place."""

    def __init__(self, proto: ModelProto, source: int, target: int, *, where: str) -> None:
        self.proto = proto
        self.source, self.target, self.where = source, target, where
        self.names = ValueNames(proto)
        self.inferred = infer_types(proto)
        if self.inferred is proto:  # inference failed; what is looked up must not change with what is rewritten
            self.inferred = ModelProto()
            self.inferred.CopyFrom(proto)
        self.constants = Wiring(self.inferred)
        self.pending: dict[str, ArrayLike] = {}

    def run(self) -> None:
        self._graph(self.proto.graph, self.inferred.graph, None)
        _set_opset(self.proto, self.target)
        settle_constants(self.proto, self.pending)

    def _graph(self, graph: GraphProto, inferred: GraphProto, outer: ValueTypes | None) -> None:
        types = ValueTypes(inferred, outer)
        edit = GraphEditor(graph, self.names, types, self.pending)
        for position, (original, twin) in enumerate(zip(graph.node, inferred.node, strict=True)):
            node = _copied(original)
            # Bodies first: what a rewrite puts around a body is of the target set already.
            for body, inferred_body in zip(subgraphs(node), subgraphs(twin), strict=True):
                self._graph(body, inferred_body, types)
            if node.domain == "":
                edit.near = next(filter(None, node.output), node.op_type)
                try:
                    self._node(node, edit)
                except CannotNormalize as reason:
                    version = _version(original.op_type, self.source) or self.source
                    raise refusal(original, position, str(reason), version=version, where=self.where) from None
            edit.nodes.append(node)
        edit.finish()

    def _node(self, node: NodeProto, edit: GraphEditor) -> None:
        op_type = node.op_type
        before = _version(op_type, self.source)
        if before is None:
            if _version(op_type, self.target) is not None and op_type not in _AHEAD_OF_STANDARD:
                raise CannotNormalize(f"operator set {self.source} does not have it")
            return  # one that onnxruntime alone has, the same at every set
        versions = _versions(op_type)
        if self.source > self.target:
            for version in sorted((v for v in versions if self.target < v <= self.source), reverse=True):
                _step_down(node, version)
            return
        for version in (v for v in versions if self.source < v <= self.target):
            step = _STEPS.get((op_type, version))
            if step is not None:
                step(node, edit, self)
            else:
                _check_compatible(op_type, version)
            if node.op_type != op_type:
                return  # already of the target set
            take_attribute(node, "consumed_inputs")  # a hint to runtimes before set 6


@cache
def _versions(op_type: str) -> tuple[int, ...]:
    """The operator sets that define or redefine an operator, in ascending order."""
    found = set()
    version = defs.onnx_opset_version()
    while version > 0 and defs.has(op_type, version, ""):
        found.add(defs.get_schema(op_type, version, "").since_version)
        version = min(found) - 1
    return tuple(sorted(found))


def _version(op_type: str, opset: int) -> int | None:
    """The version of an operator that holds at an operator set."""
    return max((version for version in _versions(op_type) if version <= opset), default=None)


@cache
def incompatibility(op_type: str, version: int) -> str:
    """Why a node of the version before may not simply be called one of this version; ``""`` where it may.

    Types are not compared: each version takes all those of the one before.
    """
    versions = _versions(op_type)
    before = defs.get_schema(op_type, versions[versions.index(version) - 1], "")
    after = defs.get_schema(op_type, version, "")
    if after.deprecated:
        return "the operator was withdrawn"
    optional = defs.OpSchema.FormalParameterOption.Optional
    for old, new in ((before.inputs, after.inputs), (before.outputs, after.outputs)):
        if len(new) < len(old) or any(entry.option != optional for entry in new[len(old) :]):
            return "the number of inputs or outputs changed"
        if any(now.option not in (was.option, optional) for was, now in zip(old, new, strict=False)):
            return "an input or output changed its kind"
    for name, was in before.attributes.items():
        now = after.attributes.get(name)
        if now is None:
            if name != "consumed_inputs":
                return f"attribute {name!r} was withdrawn"
        elif was.type != now.type or (not was.required and (now.required or _default(was) != _default(now))):
            return f"attribute {name!r} changed its type or default"
    needed = [name for name, now in after.attributes.items() if now.required and name not in before.attributes]
    return f"attribute {needed[0]!r} is new and required" if needed else ""


def _check_compatible(op_type: str, version: int) -> None:
    reason = incompatibility(op_type, version)
    if reason:
        raise CannotNormalize(f"at operator set {version} {reason}")


def _default(parameter: defs.OpSchema.Attribute) -> Any:
    return helper.get_attribute_value(parameter.default_value) if parameter.default_value.name else None


def _step_down(node: NodeProto, version: int) -> None:
    """Call a node of this version one of the version before, if nothing it states is new."""
    versions = _versions(node.op_type)
    after = defs.get_schema(node.op_type, version, "")
    before = defs.get_schema(node.op_type, versions[versions.index(version) - 1], "")
    if any(node.input[before.max_input :]) or any(node.output[before.max_output :]):
        raise CannotNormalize(f"it has an input or output that only operator set {version} knows")
    for entry in list(node.attribute):
        value = helper.get_attribute_value(entry)
        if entry.name not in before.attributes:
            if entry.name in after.attributes and value != _default(after.attributes[entry.name]):
                raise CannotNormalize(f"only operator set {version} knows its attribute {entry.name!r}")
            take_attribute(node, entry.name)
        elif entry.name in ("to", "dtype", "output_dtype") and value > _NEWEST_TYPE:
            raise CannotNormalize(f"operator set {HIGHEST} lacks the type that it converts to")
    for name, parameter in before.attributes.items():
        now = after.attributes.get(name)
        unstated = all(entry.name != name for entry in node.attribute)
        if unstated and now is not None and _default(now) not in (None, _default(parameter)):
            _give(node, **{name: _default(now)})


# -- the rewrites, each from the version before to the stated one -----------------------------------------------------


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
    _give(node, to=TensorProto.DataType.Value(str(take_attribute(node, "to")).upper()))


def _clip_11(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    largest = float(np.finfo(np.float32).max)
    # Both bounds are always given: by default infinities too were clipped.
    for role, default in (("min", -largest), ("max", largest)):
        node.input.append(edit.like(float(take_attribute(node, role, default)), node.input[0], role=role))


def _concat_4(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    _give(node, axis=attribute(node, "axis", 1))


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
    _give(node, pads=take_attribute(node, "paddings"))


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
    _give(node, coordinate_transformation_mode="output_half_pixel")


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
    _give(node, alpha=float(attribute(node, "alpha", 1.6732)), gamma=float(attribute(node, "gamma", 1.0507)))


def _slice_10(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    for name in ("starts", "ends", "axes"):
        values = take_attribute(node, name)
        if values is not None:
            node.input.append(edit.constant(values, np.int64, role=name))


def _softmax_13(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    """All axes from ``axis`` on were one; since then ``axis`` is the only one."""
    data, axis, rank = node.input[0], int(take_attribute(node, "axis", 1)), edit.types.rank(node.input[0])
    if axis == -1 or (rank and axis % rank == rank - 1):
        _give(node, axis=-1)
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
        _give(node, num_outputs=len(node.output))


def _top_k_10(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    node.input.append(edit.constant([take_attribute(node, "k")], np.int64, role="k"))


def _unchanged(_: NodeProto, __: GraphEditor, ___: _Rewriting) -> None:
    """Its schema changed in a way that no file can tell."""


def _upsample_7(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    height, width = take_attribute(node, "height_scale"), take_attribute(node, "width_scale")
    _give(node, scales=[1.0, 1.0, height, width])


def _upsample_9(node: NodeProto, edit: GraphEditor, _: _Rewriting) -> None:
    node.input.append(edit.constant(take_attribute(node, "scales"), np.float32, role="scales"))


def _upsample_10(node: NodeProto, _: GraphEditor, __: _Rewriting) -> None:
    data, scales = node.input
    mode = "nearest" if attribute(node, "mode", "nearest") == "nearest" else "linear"
    rules = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    become(node, "Resize", [data, "", scales], **_resampling("floor", rules))


_Step = Callable[[NodeProto, GraphEditor, _Rewriting], None]

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_STEPS: dict[tuple[str, int], _Step] = {
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


def rewritten() -> frozenset[tuple[str, int]]:
    """The changes of operators that have a rewrite of their own."""
    return frozenset(_STEPS)
