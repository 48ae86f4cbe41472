"""A graph of any operator set comes in; the same graph, its values named as before, at sets 18 to 21 goes out.

Every change of an operator between two sets is either a step in :mod:`onnxviz.graph.gradient.upgrade_steps` or one that
its schemas show to be harmless; whatever is neither is refused. Large weights are never looked at, so that a graph
whose weights lie beside it is rewritten like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import onnx
from numpy.typing import ArrayLike
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, inliner
from onnx.shape_inference import InferenceError

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.detached import detach_weights
from onnxviz.graph.gradient.editing import (
    CannotNormalize,
    GraphEditor,
    ValueNames,
    ValueTypes,
    copied,
    give,
    infer_types,
    settle_constants,
    take_attribute,
)
from onnxviz.graph.gradient.upgrade_steps import STEPS
from onnxviz.graph.wiring import Wiring, default_opset, node_label, real_inputs, subgraphs

__all__ = ["attach_weights", "incompatibility", "refusal", "upgrade"]

LOWEST, HIGHEST = 18, 21
"""Operator sets that are left as they are."""

_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10}
_NEWEST_TYPE = TensorProto.INT4  # of operator set 21
# Operators that onnxruntime has had under the standard domain since before the standard took them in, as they are now.
_AHEAD_OF_STANDARD = frozenset({"LayerNormalization", "ThresholdedRelu"})
_DEEPEST_BODY = 20
_FURTHER_EXPORT = "Export the model again at operator set 18 to 21"


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
                give(node, **{name: value for name, value in unstated.items() if value is not None})
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
            node = copied(original)
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
            step = STEPS.get((op_type, version))
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
            give(node, **{name: _default(now)})
