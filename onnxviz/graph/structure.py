"""A parsed model comes in; the same model goes out, checked, in computing order, its local functions written out.

What onnxruntime would refuse with a long internal message is refused here with one sentence, and what would make a
reader of the graph loop or recurse without end (cycles, functions that call themselves) never gets further.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from onnxviz.errors import ModelError, UnsupportedOperatorError
from onnxviz.graph.wiring import captured_names, default_opset, node_label, subgraphs

__all__ = ["check_names", "check_operators", "inline_functions", "normalize_graph"]

# Domains whose operators onnxruntime's CPU build carries. "ai.onnx.contrib" is not among them: it needs a library that
# a model may ask for and that is never loaded.
_RUNTIME_DOMAINS = frozenset(
    {
        "com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.ms.internal.nhwc",
        "ai.onnx.preview.training", "ai.onnx.training", "ai.onnx.preview",
    }
)  # fmt: skip
# Operators of the first ONNX releases that onnxruntime still runs although the standard has dropped them.
_DROPPED = frozenset(
    {
        "Affine", "ATen", "Crop", "DynamicSlice", "GivenTensorFill", "GRUUnit", "ImageScaler",
        "MeanVarianceNormalization", "ParametricSoftplus", "Scale", "ScaledTanh", "SimplifiedLayerNormalization",
    }
)  # fmt: skip
_DEEPEST_CALL = 100
_MOST_NODES = 1_000_000


def _every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from _every_node(body.node)


def check_names(proto: onnx.ModelProto, *, where: str) -> None:
    """Refuse names that are not text: protobuf hands those of a damaged file on as bytes.

    Raises
    ------
    ModelError
        A name, an operator or a domain is not UTF-8.
    """
    for name in _every_name(proto):
        if not isinstance(name, str):
            raise ModelError(
                "a name in the file is not text", where=where, got=repr(name)[:60],
                next_step="The file is damaged; export or download it again",
            )  # fmt: skip


def _every_name(proto: onnx.ModelProto) -> Iterator[object]:
    yield from (proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    for opset in proto.opset_import:
        yield opset.domain
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    for function in proto.functions:
        yield from (function.domain, function.name, *function.input, *function.output, *function.attribute)
        for opset in function.opset_import:
            yield opset.domain
        for node in function.node:
            yield from _names_of_node(node)
    yield from _names_of_graph(proto.graph)


def _names_of_graph(graph: onnx.GraphProto) -> Iterator[object]:
    yield from (graph.name, graph.doc_string)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (side.dim_param for side in value.type.tensor_type.shape.dim)
    for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
        yield from _names_of_tensor(tensor)
    for node in graph.node:
        yield from _names_of_node(node)


def _names_of_node(node: onnx.NodeProto) -> Iterator[object]:
    yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
    for entry in node.attribute:
        yield from (entry.name, entry.ref_attr_name)
        if entry.HasField("t"):
            yield from _names_of_tensor(entry.t)
    for body in subgraphs(node):
        yield from _names_of_graph(body)


def _names_of_tensor(tensor: onnx.TensorProto) -> Iterator[object]:
    yield tensor.name
    for entry in tensor.external_data:
        yield from (entry.key, entry.value)


def check_operators(proto: onnx.ModelProto, *, where: str) -> None:
    """Refuse operators that nothing here can run, all of them listed at once.

    Raises
    ------
    UnsupportedOperatorError
        An operator of an unknown domain, or one that its domain does not have; domain and operator are listed.
    ModelError
        No version of the standard operators is stated though they are used.
    """
    functions = {(function.domain, function.name) for function in proto.functions}
    imported = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    newest = onnx.defs.onnx_opset_version()
    used = _every_node(proto.graph.node)
    missing: dict[tuple[str, str], int] = {}
    for node in (*used, *(n for function in proto.functions for n in _every_node(function.node))):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (node.domain, node.op_type) in functions or domain in _RUNTIME_DOMAINS:
            continue
        if domain not in ("", "ai.onnx.ml"):
            missing[domain, node.op_type] = missing.get((domain, node.op_type), 0) + 1
            continue
        version = imported.get(domain or "ai.onnx", newest)
        known = onnx.defs.has(node.op_type, domain) or node.op_type in _DROPPED
        if onnx.defs.has(node.op_type, version, domain):
            _check_arity(node, onnx.defs.get_schema(node.op_type, version, domain), where=where)
        # A set newer than the onnx package may hold operators that it does not know; onnxruntime then decides.
        if not known and (domain or version <= newest):
            missing[domain or "ai.onnx", node.op_type] = missing.get((domain or "ai.onnx", node.op_type), 0) + 1
    if missing:
        listed = ", ".join(f"{op_type} of domain {domain!r} ({count}x)" for (domain, op_type), count in missing.items())
        raise UnsupportedOperatorError(
            "operators that onnxruntime does not have", where=where, got=listed,
            allowed="the domains ai.onnx, ai.onnx.ml and com.microsoft",
            next_step="Export the model without custom operators, or as local functions; libraries of operators are"
            " never loaded",
        )  # fmt: skip
    if default_opset(proto) == 1 and not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        standard = next((n for n in _every_node(proto.graph.node) if n.domain in ("", "ai.onnx")), None)
        if standard is not None and ("", standard.op_type) not in functions:
            raise ModelError(
                "the file does not say which version of the ONNX operators it uses", where=where,
                got="no opset_import of ai.onnx", next_step="The file is cut short or was not written by an exporter",
            )  # fmt: skip


def _check_arity(node: onnx.NodeProto, schema: onnx.defs.OpSchema, *, where: str) -> None:
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    missing = any(not name and entry.option == single for name, entry in zip(node.input, schema.inputs, strict=False))
    inputs_fit = schema.min_input <= len(node.input) <= schema.max_input and not missing
    if inputs_fit and schema.min_output <= len(node.output) <= schema.max_output:
        return
    raise ModelError(
        "a node has the wrong number of inputs or outputs", where=f"{where}, node {node.name or node.op_type!r}",
        got=f"{list(node.input)} to {list(node.output)}"[:200],
        allowed=f"{schema.min_input} to {schema.max_input} inputs, {schema.min_output} to {schema.max_output} outputs",
        next_step="The file is damaged; export it anew",
    )  # fmt: skip


def inline_functions(proto: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
    """Replace every call of a local function by the function's own nodes; the same model where there is none.

    Raises
    ------
    ModelError
        Functions call themselves, are nested deeper than 100, or would grow into more than a million nodes.
    """
    if not proto.functions:
        return proto
    _check_calls(proto, where=where)
    import onnx_ir
    from onnx_ir.passes.common import InlinePass

    try:
        model = onnx_ir.serde.deserialize_model(proto)
        inlined = onnx_ir.serde.serialize_model(InlinePass()(model).model)
    except Exception as error:
        raise ModelError(
            "the local functions of the model cannot be written out", where=where, got=str(error).split("\n")[0][:200],
            next_step="Export the model without local functions",
        ) from error  # fmt: skip
    return inlined


def _check_calls(proto: onnx.ModelProto, *, where: str) -> None:
    functions = {(function.domain, function.name): function for function in proto.functions}
    if len(functions) < len(proto.functions):
        names = [f"{function.domain}::{function.name}" for function in proto.functions]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ModelError("two local functions have the same name", where=where, got=repr(doubled))
    used = {
        key: [(node.domain, node.op_type) for node in _every_node(function.node)] for key, function in functions.items()
    }
    calls = {key: [callee for callee in callees if callee in functions] for key, callees in used.items()}
    # Callees first, by counting what is still open: a recursive walk would be as deep as the file wants it to be.
    depth: dict[tuple[str, str], int] = {}
    size: dict[tuple[str, str], int] = {}
    waiting = {key: set(callees) for key, callees in calls.items()}
    callers: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, callees in waiting.items():
        for callee in callees:
            callers.setdefault(callee, []).append(key)
    ready = [key for key, callees in waiting.items() if not callees]
    while ready:
        key = ready.pop()
        depth[key] = 1 + max((depth[callee] for callee in calls[key]), default=0)
        size[key] = sum(1 for _ in _every_node(functions[key].node)) + sum(size[callee] for callee in calls[key])
        for caller in callers.get(key, []):
            waiting[caller].discard(key)
            if not waiting[caller]:
                ready.append(caller)
    if len(depth) < len(functions):
        name = next(key for key in functions if key not in depth)
        raise ModelError("a local function calls itself", where=where, got=repr("::".join(name)))
    deepest = max(depth.values())
    called = [(node.domain, node.op_type) for node in _every_node(proto.graph.node)]
    total = len(called) + sum(size.get(key, 0) for key in called)
    if deepest > _DEEPEST_CALL or total > _MOST_NODES:
        raise ModelError(
            "the local functions are nested too deeply or grow into too many nodes", where=where,
            got=f"{deepest} levels, {total} nodes", allowed=f"{_DEEPEST_CALL} levels, {_MOST_NODES} nodes",
        )  # fmt: skip


def normalize_graph(proto: onnx.ModelProto, *, where: str) -> None:
    """Check the main graph, put its nodes into computing order and take the weights off its list of inputs, in place.

    Files of IR version 3 list every weight as an input that a caller might override. Nobody does here, onnxruntime
    cannot fold such weights and warns once for each, so they become plain weights and the file's IR version 4.

    Raises
    ------
    ModelError
        No nodes or outputs, a name made twice, a name nobody makes, or a cycle.
    """
    graph = proto.graph
    if not graph.node or not graph.output:
        raise ModelError(
            "the file holds no network", where=where, got=f"{len(graph.node)} nodes, {len(graph.output)} outputs",
            next_step="The file is cut short or is not an ONNX model; export it anew",
        )  # fmt: skip
    stored = [tensor.name for tensor in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
    given = [value.name for value in graph.input]
    _check_unique(stored, "two weights have the same name", where=where)
    _check_unique(given, "two inputs have the same name", where=where)
    _check_unique([value.name for value in graph.output], "two outputs have the same name", where=where)
    made = [name for node in graph.node for name in node.output if name]
    _check_unique(made, "two nodes make a value of the same name", where=where)
    taken = set(stored) | set(given)
    clash = next((name for name in made if name in taken), None)
    if clash is not None:
        raise ModelError("a node makes a value that is also an input or a weight", where=where, got=repr(clash))
    _sort(graph, taken, set(made), where=where)
    nobody = next((v.name for v in graph.output if v.name not in taken and v.name not in set(made)), None)
    if nobody is not None:
        raise ModelError("no node makes the output", where=where, got=repr(nobody))
    if set(stored) & set(given):
        kept = [value for value in graph.input if value.name not in set(stored)]
        del graph.input[:]
        graph.input.extend(kept)
        proto.ir_version = max(proto.ir_version, 4)


def _check_unique(names: Sequence[str], what: str, *, where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(what, where=where, got=repr(name))
        seen.add(name)


def _sort(graph: onnx.GraphProto, taken: set[str], made: set[str], *, where: str) -> None:
    needs = [{name for name in node.input if name} | captured_names(node) for node in graph.node]
    for position, node in enumerate(graph.node):
        unknown = next((name for name in needs[position] if name not in taken and name not in made), None)
        if unknown is not None:
            raise ModelError(
                "a node reads a value that nobody makes", where=f"{where}, node {node_label(node, position)!r}",
                got=repr(unknown), next_step="The file is damaged; export it anew",
            )  # fmt: skip
    known = set(taken)
    in_order = True
    for position, node in enumerate(graph.node):
        in_order = in_order and needs[position] <= known
        known.update(filter(None, node.output))
    if in_order:
        return
    order = _computing_order(graph, needs, taken)
    if len(order) < len(graph.node):
        stuck = next(i for i in range(len(graph.node)) if i not in set(order))
        raise ModelError(
            "the graph has a cycle: a node needs its own result", where=where,
            got=f"node {node_label(graph.node[stuck], stuck)!r} making {list(graph.node[stuck].output)[:1]}",
        )  # fmt: skip
    nodes = [graph.node[position] for position in order]
    copies = [onnx.NodeProto() for _ in nodes]
    for copy, node in zip(copies, nodes, strict=True):
        copy.CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def _computing_order(graph: onnx.GraphProto, needs: Sequence[set[str]], taken: set[str]) -> list[int]:
    """Positions of the nodes so that each comes after what it needs, earlier positions first (Kahn 1962)."""
    import heapq

    open_needs = [need - taken for need in needs]
    readers: dict[str, list[int]] = {}
    for position, need in enumerate(open_needs):
        for name in need:
            readers.setdefault(name, []).append(position)
    ready = [position for position, need in enumerate(open_needs) if not need]
    heapq.heapify(ready)
    order = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for name in graph.node[position].output:
            for reader in readers.get(name, []):
                if name in open_needs[reader]:
                    open_needs[reader].discard(name)
                    if not open_needs[reader]:
                        heapq.heappush(ready, reader)
    return order
