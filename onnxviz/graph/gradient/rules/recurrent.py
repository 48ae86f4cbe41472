"""Recurrent layers: the adjoint goes back through time step by step (Werbos 1990).

What each step multiplies by is known for all steps at once as soon as the states are, so it is computed by a few large
products; only what hands the adjoint from one step to the one before is a Scan. The states are what the layer gives;
the cells of an LSTM, which it does not give, are computed again by a Scan of their own.

The weights of the gates lie below each other, in the order of the standard: input, output, forget, cell of an LSTM and
update, reset, hidden of a GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from onnxviz.graph.gradient.builder import TO_THE_END
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]

_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",),
}  # fmt: skip

_INITIAL_H, _INITIAL_C, _PEEPHOLES = 5, 6, 7
"""Places of inputs that may be left out."""


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer; steps are the first axis and rows the second one of what it walks along."""

    backwards: bool
    x: str
    """(steps, rows, inputs)"""
    weights: str
    """(gates × hidden, inputs)"""
    recurrent: str
    """(gates × hidden, hidden)"""
    biases: tuple[str, str] | None
    """Of the product with the inputs and of that with the state; each (gates × hidden)."""
    peepholes: tuple[str, ...] | None
    """By which the input, output and forget gate of an LSTM see the cell; each (hidden)."""
    initial_h: str
    """(rows, hidden)"""
    initial_c: str
    states: str
    """The state after each step, (steps, rows, hidden)."""
    of_states: str
    """Its adjoint."""
    of_last_h: str
    of_last_c: str


@dataclass(frozen=True)
class _Adjoints:
    """What comes back from one direction."""

    through_inputs: str
    """Adjoint of the product with the inputs, (steps, rows, gates × hidden)."""
    of_recurrent: Callable[[], str]
    of_biases: Callable[[], str]
    of_initial_h: str
    of_initial_c: str = ""
    """Of an LSTM only, like the next one."""
    of_peepholes: Callable[[], str] = str


# -- The layer ---------------------------------------------------------------------------------------------------------


def _recurrent(walk_back: Callable[[Backward, Node, _Direction], _Adjoints]) -> Rule:
    def rule(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
        _check(b, node)
        directions = _directions(b, node, adjoints)
        found = [walk_back(b, node, direction) for direction in directions]

        def joined(place: int, parts: Callable[[_Direction, _Adjoints], str]) -> str | None:
            if not node.has_input(place) or not b.wants(node.inputs[place]):
                return None
            pairs = zip(directions, found, strict=True)
            return b.emit("Concat", *(b.emit("Unsqueeze", parts(*pair), b.integers([0])) for pair in pairs), axis=0)

        of_x = None
        if b.wants(node.inputs[0]):
            pairs = zip(directions, found, strict=True)
            each = [b.emit("MatMul", back.through_inputs, way.weights) for way, back in pairs]
            of_x = each[0] if len(each) == 1 else b.emit("Add", *each)
        return [
            of_x,
            joined(1, lambda way, back: _summed_products(b, back.through_inputs, way.x)),
            joined(2, lambda way, back: back.of_recurrent()),
            joined(3, lambda way, back: back.of_biases()),
            None,
            joined(_INITIAL_H, lambda way, back: back.of_initial_h),
            joined(_INITIAL_C, lambda way, back: back.of_initial_c),
            joined(_PEEPHOLES, lambda way, back: back.of_peepholes()),
        ][: len(node.inputs)]

    return rule


def _check(b: Backward, node: Node) -> None:
    if node.attribute("layout", 0):
        raise LookupError("rows before steps (layout 1), which onnxruntime does not run")
    if node.attribute("clip", 0.0):
        raise LookupError("clipped gates")
    if node.attribute("input_forget", 0):
        raise LookupError("an input gate that is coupled with the forget gate")
    ways = 2 if str(node.attribute("direction", "forward")) == "bidirectional" else 1
    given = [
        name.decode() if isinstance(name, bytes) else str(name)
        for name in node.attribute("activations") or _ACTIVATIONS[node.op_type] * ways
    ]
    if [name.lower() for name in given] != [name.lower() for name in _ACTIVATIONS[node.op_type] * ways]:
        raise LookupError(f"the activations {', '.join(given)}")
    if node.attribute("activation_alpha") or node.attribute("activation_beta"):
        raise LookupError("numbers for its activations")
    if node.has_input(4):
        lengths, steps = b.known(node.inputs[4]), b.sides(node.inputs[0])[0]
        if lengths is None or not isinstance(steps, int) or (lengths != steps).any():
            raise LookupError("sequences of different lengths")


def _directions(b: Backward, node: Node, adjoints: Adjoints) -> list[_Direction]:
    x, weights, recurrent = node.inputs[:3]
    hidden = b.sides(recurrent)[2]
    if not isinstance(hidden, int):
        raise LookupError("its number of hidden units is not known")
    zero = helper.make_tensor("value", b.adjoint_type(x), [1], [0.0])
    no_state = b.once("ConstantOfShape", b.once("Concat", b.side(x, 1), b.integers([hidden]), axis=0), value=zero)
    if node.has_output(0):
        states = node.outputs[0]
    else:
        states = b.emit_many(node.op_type, 1, *node.inputs, **node.attributes())[0]
    of_all, of_h, of_c = [*adjoints, None, None, None][:3]

    def part(value: str | None, way: int, axis: int = 0) -> str | None:
        return None if value is None else b.once("Gather", value, b.constant(np.int64(way)), axis=axis)

    def given(place: int) -> str | None:
        return node.inputs[place] if node.has_input(place) else None

    kind = str(node.attribute("direction", "forward"))
    directions = []
    for way, backwards in enumerate({"forward": [False], "reverse": [True]}.get(kind, [False, True])):
        own = b.once("Gather", states, b.constant(np.int64(way)), axis=1)
        biases, peepholes = part(given(3), way), part(given(_PEEPHOLES), way)
        halves = None if biases is None else b.emit_many("Split", 2, biases, axis=0, num_outputs=2)
        directions.append(
            _Direction(
                backwards=backwards,
                x=x,
                weights=b.once("Gather", weights, b.constant(np.int64(way)), axis=0),
                recurrent=b.once("Gather", recurrent, b.constant(np.int64(way)), axis=0),
                biases=None if halves is None else (halves[0], halves[1]),
                peepholes=None if peepholes is None else b.emit_many("Split", 3, peepholes, axis=0, num_outputs=3),
                initial_h=part(given(_INITIAL_H), way) or no_state,
                initial_c=part(given(_INITIAL_C), way) or no_state,
                states=own,
                of_states=part(of_all, way, 1) or b.emit("ConstantOfShape", b.once("Shape", own), value=zero),
                of_last_h=part(of_h, way) or no_state,
                of_last_c=part(of_c, way) or no_state,
            )
        )
    return directions


# -- What the layers have in common ------------------------------------------------------------------------------------


def _before(b: Backward, way: _Direction, states: str, initial: str) -> str:
    """The state before each step, of the states after each."""
    first_state = b.emit("Unsqueeze", initial, b.integers([0]))
    if way.backwards:
        kept = b.emit("Slice", states, b.integers([1]), b.integers([TO_THE_END]), b.integers([0]))
        return b.emit("Concat", kept, first_state, axis=0)
    kept = b.emit("Slice", states, b.integers([0]), b.integers([-1]), b.integers([0]))
    return b.emit("Concat", first_state, kept, axis=0)


def _product(b: Backward, values: str, weights: str, bias: str | None) -> str:
    """Values times transposed weights, (steps, rows, gates × hidden)."""
    product = b.emit("MatMul", values, b.once("Transpose", weights, perm=[1, 0]))
    return product if bias is None else b.emit("Add", product, bias)


def _inputs_and_state(b: Backward, way: _Direction, before: str) -> str:
    """What the gates are computed of."""
    own, recurrent = way.biases or (None, None)
    return b.emit("Add", _product(b, way.x, way.weights, own), _product(b, before, way.recurrent, recurrent))


def _summed_products(b: Backward, adjoint: str, values: str) -> str:
    """Adjoint of weights: of all steps and rows, the products of an adjoint with the values it was multiplied by."""
    return b.emit("Einsum", adjoint, values, equation="trg,tri->gi")


def _summed(b: Backward, adjoint: str) -> str:
    return b.emit("ReduceSum", adjoint, b.integers([0, 1]), keepdims=0)


def _both_biases(b: Backward, of_inputs: str, of_state: str) -> str:
    return b.emit("Concat", _summed(b, of_inputs), _summed(b, of_state), axis=0)


def _of_sigmoid(b: Backward, y: str, like: str) -> str:
    return b.emit("Mul", y, b.emit("Sub", b.number(1, like), y))


def _of_tanh(b: Backward, y: str, like: str) -> str:
    return b.emit("Sub", b.number(1, like), b.emit("Mul", y, y))


def _scan(
    b: Backward,
    like: str,
    states: Sequence[str],
    walked: Sequence[str],
    step: Callable[[Sequence[str], Sequence[str]], tuple[Sequence[str], str]],
    *,
    backwards: bool,
) -> tuple[str, ...]:
    """A Scan along steps: the last states, then what each step gave.

    Parameters
    ----------
    like : str
        A forward value of the type that all values have.
    states : sequence of str
        Each (rows, hidden), before the first step.
    walked : sequence of str
        Of each, a step sees one (rows, anything).
    step : callable
        (states, slices) → (states, what is kept of the step). It emits nodes, none of which may be shared.
    """
    element_type = b.adjoint_type(like)

    def typed(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, element_type, [None, None]) for name in names]

    seen_states, slices = [b.fresh("state") for _ in states], [b.fresh("slice") for _ in walked]
    around, b.nodes = b.nodes, []
    new_states, kept = step(seen_states, slices)
    kept = b.emit("Identity", kept)
    inside, b.nodes = b.nodes, around
    body = helper.make_graph(inside, b.fresh("body"), typed([*seen_states, *slices]), typed([*new_states, kept]))
    return b.emit_many(
        "Scan", len(states) + 1, *states, *walked, body=body, num_scan_inputs=len(walked),
        scan_input_directions=[int(backwards)] * len(walked), scan_output_directions=[int(backwards)],
    )  # fmt: skip


# -- The three layers --------------------------------------------------------------------------------------------------


def _lstm(b: Backward, node: Node, way: _Direction) -> _Adjoints:
    """Of a step: c' = f ⊙ c + i ⊙ v and h' = o ⊙ tanh c'; i, f and o are sigmoids, v is a tanh."""
    x = way.x
    before = _before(b, way, way.states, way.initial_h)
    of_i, of_o, of_f, of_v = b.emit_many("Split", 4, _inputs_and_state(b, way, before), axis=-1, num_outputs=4)

    def gate(value: str, cell: str, peephole: int) -> str:
        if way.peepholes is not None:
            value = b.emit("Add", value, b.emit("Mul", cell, way.peepholes[peephole]))
        return b.emit("Sigmoid", value)

    def next_cell(states: Sequence[str], slices: Sequence[str]) -> tuple[Sequence[str], str]:
        (cell,), (of_input, of_forget, candidate) = states, slices
        held = b.emit("Mul", gate(of_forget, cell, 2), cell)
        cell = b.emit("Add", held, b.emit("Mul", gate(of_input, cell, 0), candidate))
        return [cell], cell

    v = b.emit("Tanh", of_v)
    cells = _scan(b, x, [way.initial_c], [of_i, of_f, v], next_cell, backwards=way.backwards)[1]
    cells_before = _before(b, way, cells, way.initial_c)
    i, f, o = gate(of_i, cells_before, 0), gate(of_f, cells_before, 2), gate(of_o, cells, 1)
    bent = b.emit("Tanh", cells)

    slopes = [
        b.emit("Mul", bent, _of_sigmoid(b, o, x)),  # of what o is computed of, by h'
        b.emit("Mul", o, _of_tanh(b, bent, x)),  # of c', by h'
        b.emit("Mul", v, _of_sigmoid(b, i, x)),  # of what i is computed of, by c'
        b.emit("Mul", cells_before, _of_sigmoid(b, f, x)),
        b.emit("Mul", i, _of_tanh(b, v, x)),
        f,
    ]

    def step_back(states: Sequence[str], slices: Sequence[str]) -> tuple[Sequence[str], str]:
        (g_h, g_c), (g, o_by_h, c_by_h, i_by_c, f_by_c, v_by_c, forget) = states, slices
        g_h = b.emit("Add", g_h, g)
        g_o = b.emit("Mul", g_h, o_by_h)
        g_c = b.emit("Add", g_c, b.emit("Mul", g_h, c_by_h))
        if way.peepholes is not None:
            g_c = b.emit("Add", g_c, b.emit("Mul", g_o, way.peepholes[1]))
        g_i, g_f, g_v = (b.emit("Mul", g_c, slope) for slope in (i_by_c, f_by_c, v_by_c))
        g_c = b.emit("Mul", g_c, forget)
        if way.peepholes is not None:
            seen = b.emit("Add", b.emit("Mul", g_i, way.peepholes[0]), b.emit("Mul", g_f, way.peepholes[2]))
            g_c = b.emit("Add", g_c, seen)
        gates = b.emit("Concat", g_i, g_o, g_f, g_v, axis=-1)
        return [b.emit("MatMul", gates, way.recurrent), g_c], gates

    of_h, of_c, gates = _scan(
        b, x, [way.of_last_h, way.of_last_c], [way.of_states, *slopes], step_back, backwards=not way.backwards
    )

    def of_peepholes() -> str:
        g_i, g_o, g_f, _ = b.emit_many("Split", 4, gates, axis=-1, num_outputs=4)
        pairs = ((g_i, cells_before), (g_o, cells), (g_f, cells_before))
        return b.emit("Concat", *(_summed(b, b.emit("Mul", g, cell)) for g, cell in pairs), axis=0)

    return _Adjoints(
        through_inputs=gates,
        of_recurrent=lambda: _summed_products(b, gates, before),
        of_biases=lambda: _both_biases(b, gates, gates),
        of_initial_h=of_h,
        of_initial_c=of_c,
        of_peepholes=of_peepholes,
    )


def _gru(b: Backward, node: Node, way: _Direction) -> _Adjoints:
    """Of a step: h' = (1 - z) ⊙ v + z ⊙ h; z and r are sigmoids, v is the tanh of the inputs' part and the state's.

    The state's part is R (r ⊙ h), or with ``linear_before_reset`` r ⊙ R h.
    """
    x, one = way.x, b.number(1, way.x)
    reset_last = bool(node.attribute("linear_before_reset", 0))
    before = _before(b, way, way.states, way.initial_h)
    own, recurrent = way.biases or (None, None)
    own_z, own_r, own_v = b.emit_many("Split", 3, _product(b, x, way.weights, own), axis=-1, num_outputs=3)
    state_z, state_r, state_v = b.emit_many(
        "Split", 3, _product(b, before, way.recurrent, recurrent), axis=-1, num_outputs=3
    )
    weights_z, weights_r, weights_v = b.emit_many("Split", 3, way.recurrent, axis=0, num_outputs=3)
    z, r = b.emit("Sigmoid", b.emit("Add", own_z, state_z)), b.emit("Sigmoid", b.emit("Add", own_r, state_r))
    if reset_last:
        of_reset, state_part = state_v, b.emit("Mul", r, state_v)
    else:
        bias = None if recurrent is None else b.emit_many("Split", 3, recurrent, axis=0, num_outputs=3)[2]
        of_reset, state_part = before, _product(b, b.emit("Mul", r, before), weights_v, bias)
    v = b.emit("Tanh", b.emit("Add", own_v, state_part))

    slopes = [
        b.emit("Mul", b.emit("Sub", before, v), _of_sigmoid(b, z, x)),  # of what z is computed of, by h'
        b.emit("Mul", b.emit("Sub", one, z), _of_tanh(b, v, x)),
        b.emit("Mul", of_reset, _of_sigmoid(b, r, x)),  # of what r is computed of, by its product
        r,
        z,
    ]

    def step_back(states: Sequence[str], slices: Sequence[str]) -> tuple[Sequence[str], str]:
        (g_h,), (g, z_by_h, v_by_h, r_by_product, reset, update) = states, slices
        g_h = b.emit("Add", g_h, g)
        g_z, g_v = b.emit("Mul", g_h, z_by_h), b.emit("Mul", g_h, v_by_h)
        if reset_last:
            g_r, g_state = b.emit("Mul", g_v, r_by_product), b.emit("Mul", g_v, reset)
            through = b.emit("MatMul", g_state, weights_v)
        else:
            g_product = b.emit("MatMul", g_v, weights_v)
            g_r, g_state = b.emit("Mul", g_product, r_by_product), g_v
            through = b.emit("Mul", g_product, reset)
        through = b.emit("Add", through, b.emit("MatMul", g_z, weights_z))
        through = b.emit("Add", through, b.emit("MatMul", g_r, weights_r))
        before_step = b.emit("Add", through, b.emit("Mul", g_h, update))
        return [before_step], b.emit("Concat", g_z, g_r, g_v, g_state, axis=-1)

    of_h, parts = _scan(b, x, [way.of_last_h], [way.of_states, *slopes], step_back, backwards=not way.backwards)
    g_z, g_r, g_v, g_state = b.emit_many("Split", 4, parts, axis=-1, num_outputs=4)
    of_inputs = b.emit("Concat", g_z, g_r, g_v, axis=-1)

    def of_recurrent() -> str:
        multiplied = before if reset_last else b.emit("Mul", r, before)
        pairs = ((g_z, before), (g_r, before), (g_state, multiplied))
        return b.emit("Concat", *(_summed_products(b, g, values) for g, values in pairs), axis=0)

    return _Adjoints(
        through_inputs=of_inputs,
        of_recurrent=of_recurrent,
        of_biases=lambda: _both_biases(b, of_inputs, b.emit("Concat", g_z, g_r, g_state, axis=-1)),
        of_initial_h=of_h,
    )


def _rnn(b: Backward, node: Node, way: _Direction) -> _Adjoints:
    """Of a step: h' is the tanh of the inputs' part and the state's."""

    def step_back(states: Sequence[str], slices: Sequence[str]) -> tuple[Sequence[str], str]:
        (g_h,), (g, slope) = states, slices
        inner = b.emit("Mul", b.emit("Add", g_h, g), slope)
        return [b.emit("MatMul", inner, way.recurrent)], inner

    slopes = _of_tanh(b, way.states, way.x)
    of_h, inner = _scan(b, way.x, [way.of_last_h], [way.of_states, slopes], step_back, backwards=not way.backwards)
    return _Adjoints(
        through_inputs=inner,
        of_recurrent=lambda: _summed_products(b, inner, _before(b, way, way.states, way.initial_h)),
        of_biases=lambda: _both_biases(b, inner, inner),
        of_initial_h=of_h,
    )


RULES: Mapping[str, Rule] = {"LSTM": _recurrent(_lstm), "GRU": _recurrent(_gru), "RNN": _recurrent(_rnn)}
