"""A normalised graph comes in, with values to derive and values to derive by; one graph with both passes goes out.

Reverse mode: from the targets back to the inputs, every node's rule turns the adjoints of its outputs (the derivative
of the target by them) into the adjoints of its inputs (Griewank and Walther 2008). A rule is asked only where the path
from a value to the target is alive; a node without a rule on such a path ends the work with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxviz.errors import InputError, UnsupportedOperatorError, ValueNotFoundError, near_misses
from onnxviz.graph.detached import place_beside
from onnxviz.graph.gradient.builder import PREFIX, Builder, numpy_type
from onnxviz.graph.gradient.facts import FLOATS, ValueFacts
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.gradient.rules import CARRIES_INTEGERS, NO_DERIVATIVE
from onnxviz.graph.gradient.rules.windows import flipped
from onnxviz.graph.taps import expose
from onnxviz.graph.wiring import Wiring, captured_names, subgraphs

__all__ = ["Backward", "Coverage", "GradientGraph", "build_gradient_graph", "gradient_coverage"]


@dataclass(frozen=True)
class GradientGraph:
    """One graph that computes values and derivatives."""

    proto: onnx.ModelProto
    """Its large weights lie beside it."""
    weights: Mapping[str, NDArray[Any]]
    """Large weights that the backward pass adds, by name."""
    seeds: Mapping[str, str]
    """By target: the input that takes the derivative of the explained number by it."""
    seed_types: Mapping[str, np.dtype[Any]]
    """By target: the type in which its seed is fed."""
    gradients: Mapping[str, str]
    """By value: the output that holds the derivative of the explained number by it."""


class Backward(Builder):
    """What a rule sees: the builder of nodes, and what is asked for."""

    def __init__(
        self, wiring: Wiring, facts: ValueFacts, rules: RuleSet, active: frozenset[str], *, prefix: str
    ) -> None:
        super().__init__(facts, prefix=prefix)
        self._wiring = wiring
        self._rules = rules
        self._active = active

    def wants(self, name: str) -> bool:
        """Whether the adjoint of a value is asked for."""
        return name in self._active

    def known(self, name: str) -> NDArray[Any] | None:
        """What a value always holds; None where it depends on what is fed, or lies outside the file."""
        return self._wiring.constant(name)

    def flipped_weights(self, weights: str, groups: int) -> str | None:
        """The weights of the convolution that is the adjoint of one with stride 1; None where they are no constant."""
        key = ("flipped", weights, groups)
        if key not in self._known:
            held = self.known(weights)
            if held is None:
                return None
            dtype = numpy_type(self.adjoint_type(weights))
            self._known[key] = self.constant(flipped(held, groups).astype(dtype, copy=False))
        return self._known[key]

    def base(self, node: Node, adjoints: Sequence[str | None]) -> Sequence[str | None]:
        """The true derivative, for rules that are laid over it."""
        return self._rules.apply_base(self, node, adjoints)


def build_gradient_graph(
    proto: onnx.ModelProto,
    facts: ValueFacts,
    *,
    targets: Sequence[str],
    wrt: Sequence[str],
    values: Sequence[str] = (),
    rules: RuleSet | None = None,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    where: str = "",
) -> GradientGraph:
    """Append the backward pass to a graph.

    Parameters
    ----------
    proto : onnx.ModelProto
        A normalised graph (see :func:`normalize`); large weights may lie beside it.
    facts : ValueFacts
        Types and shapes of its values.
    targets : sequence of str
        Floating-point values whose weighted sum is derived; the weights are fed as inputs.
    wrt : sequence of str
        Values by which it is derived.
    values : sequence of str
        Values that the same run gives as they are.
    rules : RuleSet, optional
        Rules other than the true derivatives.
    tensors : mapping of name to array, optional
        Weights that lie beside the graph.
    where : str
        The model's name in error messages.

    Raises
    ------
    ValueNotFoundError
        The graph has no such value.
    InputError
        A target or a value is not of a floating-point type.
    UnsupportedOperatorError
        An operator between them has no rule.
    """
    sweep = _Sweep(proto, facts, targets, wrt, rules or RuleSet(), tensors, where)
    gradients = sweep.run()
    joined = _join(proto, sweep.backward, sweep.seeds, gradients, values)
    outputs = [*gradients.values(), *values]
    seed_types = {target: np.dtype(numpy_type(sweep.backward.adjoint_type(target))) for target in sweep.seeds}
    return GradientGraph(expose(joined, outputs), dict(sweep.backward.weights), sweep.seeds, seed_types, gradients)


@dataclass(frozen=True)
class Coverage:
    """What the rules say about the nodes between values and targets."""

    nodes: tuple[Node, ...]
    """Nodes through which a change of the values reaches the targets, in computing order."""
    refused: tuple[tuple[Node, str], ...]
    """Those without a derivative, and why."""


def gradient_coverage(
    proto: onnx.ModelProto,
    facts: ValueFacts,
    *,
    targets: Sequence[str],
    wrt: Sequence[str],
    rules: RuleSet | None = None,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    where: str = "",
) -> Coverage:
    """Ask every rule on the way, and go on behind a node that is refused, so that all of them are found at once."""
    sweep = _Sweep(proto, facts, targets, wrt, rules or RuleSet(), tensors, where)
    refused: list[tuple[Node, str]] = []
    sweep.run(lambda node, error: refused.append((node, str(error))))
    alive = tuple(node for node in sweep.nodes if node.position in sweep.alive)
    return Coverage(alive, tuple(reversed(refused)))


class _Sweep:
    """The walk from the targets back to the values."""

    def __init__(
        self, proto: onnx.ModelProto, facts: ValueFacts, targets: Sequence[str], wrt: Sequence[str], rules: RuleSet,
        tensors: Mapping[str, NDArray[Any]] | None, where: str,
    ) -> None:  # fmt: skip
        wiring = Wiring(proto, tensors=tensors)
        _check_names(proto, facts, targets, "target", where)
        _check_names(proto, facts, wrt, "wrt", where)
        self.nodes = [Node(node, position, wiring.opset) for position, node in enumerate(proto.graph.node)]
        self._active, computed_with = _active_values(self.nodes, facts, wrt)
        self.alive = _nodes_between(self.nodes, self._active, targets)
        self._computed_with = computed_with & self.alive
        prefix = _unused_prefix(proto)
        self.backward = Backward(wiring, facts, rules, frozenset(self._active), prefix=prefix)
        self.seeds = {target: f"{prefix}seed:{target}" for target in targets}
        self._prefix, self._wrt, self._rules, self._where = prefix, wrt, rules, where

    def run(self, refuse: Callable[[Node, UnsupportedOperatorError], None] | None = None) -> dict[str, str]:
        """Names of the gradients by value; without ``refuse`` the first node without a derivative ends the walk."""
        backward = self.backward
        adjoints = dict(self.seeds)
        found: dict[str, str] = {}
        wanted = set(self._wrt)
        for node in reversed(self.nodes):
            outgoing: list[str | None] = []
            for name in node.outputs:
                adjoint = adjoints.pop(name, None) if name else None
                outgoing.append(adjoint)
                if adjoint is not None and name in wanted:
                    found[name] = adjoint
            if node.position not in self.alive or all(adjoint is None for adjoint in outgoing):
                continue
            try:
                incoming = self._apply(node, outgoing)
            except UnsupportedOperatorError as error:
                if refuse is None:
                    raise
                refuse(node, error)
                incoming = [backward.filled_like(name) if name in self._active else None for name in node.inputs]
            for name, adjoint in zip(node.inputs, incoming, strict=False):
                if name and adjoint is not None and name in self._active:
                    held = adjoints.get(name)
                    adjoints[name] = adjoint if held is None else backward.emit("Add", held, adjoint)
        gradients = {}
        for name in dict.fromkeys(self._wrt):
            gradients[name] = f"{self._prefix}of:{name}"
            adjoint = found.get(name) or adjoints.get(name) or backward.filled_like(name)
            backward.nodes.append(helper.make_node("Identity", [adjoint], [gradients[name]], name=gradients[name]))
        return gradients

    def _apply(self, node: Node, outgoing: Sequence[str | None]) -> Sequence[str | None]:
        if node.position in self._computed_with:
            raise UnsupportedOperatorError(
                "integers that stand for real numbers are computed with, and no rule tells their derivative",
                where=f"{self._where}, node {node.label!r}".lstrip(", "), got=node.description,
                next_step="Derive between values on one side of it, or explain with occlusion or rise",
            )  # fmt: skip
        return self._rules.apply(self.backward, node, outgoing, where=self._where)


def _check_names(proto: onnx.ModelProto, facts: ValueFacts, names: Sequence[str], what: str, where: str) -> None:
    made = {name for node in proto.graph.node for name in node.output if name}
    made |= {value.name for value in proto.graph.input} | {tensor.name for tensor in proto.graph.initializer}
    if not names:
        raise InputError(f"no {what} was given", where=where, allowed="at least one value of the graph")
    for name in names:
        if name not in made:
            raise ValueNotFoundError(
                "no value of the graph has this name", where=what, got=repr(name), allowed=near_misses(name, made)
            )
        element_type = facts.types.get(name)
        if element_type is not None and element_type not in FLOATS:
            raise InputError(
                "integers have no derivative", where=f"{what} {name!r}", got=_type_name(element_type),
                allowed="a value of floating-point numbers",
                next_step="Name the value before or behind it that holds real numbers: `onnxviz inspect` lists them",
            )  # fmt: skip


def _type_name(element_type: int) -> str:
    return str(onnx.TensorProto.DataType.Name(element_type)).lower()


def _active_values(nodes: Sequence[Node], facts: ValueFacts, wrt: Sequence[str]) -> tuple[set[str], set[int]]:
    """Values through which a change of ``wrt`` can reach a real number: floats, and integers that stand for floats.

    Also the positions of nodes that compute with such integers in a way that nothing here follows: the change would be
    lost there without a word.
    """
    active = set(wrt)
    quantised: set[str] = set()
    computed_with: set[int] = set()
    for node in nodes:
        reads = {name for name in node.inputs if name} | captured_names(node.proto)
        if active.isdisjoint(reads) or node.key in NO_DERIVATIVE:
            continue
        stands_for_reals = node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") or (
            node.op_type in CARRIES_INTEGERS and not quantised.isdisjoint(reads)
        )
        lost = not quantised.isdisjoint(reads) and not stands_for_reals and node.op_type != "DequantizeLinear"
        if lost:
            computed_with.add(node.position)
        for name in filter(None, node.outputs):
            if facts.types.get(name, onnx.TensorProto.FLOAT) in FLOATS:
                active.add(name)
            elif stands_for_reals or lost:
                active.add(name)
                quantised.add(name)
    return active, computed_with


def _nodes_between(nodes: Sequence[Node], active: set[str], targets: Sequence[str]) -> set[int]:
    """Positions of nodes that read an active value and from which a target is reached through active values."""
    reaching = set(targets)
    alive = set()
    for node in reversed(nodes):
        if node.key in NO_DERIVATIVE or reaching.isdisjoint(node.outputs):
            continue
        reads = ({name for name in node.inputs if name} | captured_names(node.proto)) & active
        if reads and not active.isdisjoint(node.outputs):
            alive.add(node.position)
            reaching |= reads
    return alive


def _unused_prefix(proto: onnx.ModelProto) -> str:
    names = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    names |= {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    for node in proto.graph.node:
        names |= {name for body in subgraphs(node) for inner in body.node for name in (*inner.input, *inner.output)}
    prefix = PREFIX
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


def _join(
    proto: onnx.ModelProto,
    backward: Backward,
    seeds: Mapping[str, str],
    gradients: Mapping[str, str],
    values: Sequence[str],
) -> onnx.ModelProto:
    joined = onnx.ModelProto()
    joined.CopyFrom(proto)
    graph = joined.graph
    graph.node.extend(backward.nodes)
    graph.initializer.extend(backward.constants)
    for name, array in backward.weights.items():
        element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        place_beside(graph.initializer.add(name=name, dims=array.shape, data_type=element_type), array.nbytes)
    types = backward.facts.types
    graph.input.extend(_typed(backward, seed, target, backward.adjoint_type(target)) for target, seed in seeds.items())
    del graph.value_info[:]
    graph.value_info.extend(
        _typed(backward, gradient, name, backward.adjoint_type(name)) for name, gradient in gradients.items()
    )
    stated = {value.name for value in (*graph.input, *graph.output)}
    graph.value_info.extend(
        _typed(backward, name, name, types[name]) for name in values if name in types and name not in stated
    )
    return joined


def _typed(backward: Backward, name: str, like: str, element_type: int) -> onnx.ValueInfoProto:
    """A value of a forward value's shape."""
    sides = backward.facts.shapes.get(like)
    # A side without a name is one of its own.
    shape = (
        None if sides is None else [side if side is not None else f"{name}:{axis}" for axis, side in enumerate(sides)]
    )
    return helper.make_tensor_value_info(name, element_type, shape)
