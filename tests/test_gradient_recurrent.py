"""LSTM, GRU and RNN by our rules: against central differences without torch, and against torch's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

import gradient_cases as cases
from onnxviz.errors import UnsupportedOperatorError

STEPS, ROWS, INPUTS, HIDDEN = 4, 2, 3, 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LAYERS = [("RNN", {}), ("GRU", {"linear_before_reset": 0}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})]
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
OUTPUTS = ("y", "y_h", "y_c")


def feeds_of(op_type: str, ways: int = 1, *, seed: int = 0, peepholes: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    gates = GATES[op_type] * HIDDEN
    shapes = {
        "x": (STEPS, ROWS, INPUTS), "w": (ways, gates, INPUTS), "r": (ways, gates, HIDDEN), "b": (ways, 2 * gates),
        "h": (ways, ROWS, HIDDEN),
    }  # fmt: skip
    if op_type == "LSTM":
        shapes["c"] = (ways, ROWS, HIDDEN)
    if peepholes:
        shapes["p"] = (ways, 3 * HIDDEN)
    return {name: (0.6 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def layer(op_type: str, feeds: dict[str, np.ndarray], outputs: Sequence[str], **attributes: Any) -> Any:
    inputs = [name if name in feeds else "" for name in ("x", "w", "r", "b", "", "h", "c", "p")]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(op_type, inputs, outputs, name="layer", hidden_size=HIDDEN, **attributes)
    return cases.graph_of([node], feeds, [name for name in outputs if name])


# -- Central differences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS, ids=["rnn", "gru-before", "gru-after", "lstm"])
def test_all_inputs_by_central_differences(op_type: str, attributes: dict[str, int], direction: str) -> None:
    feeds = feeds_of(op_type)
    outputs = OUTPUTS[: 3 if op_type == "LSTM" else 2]
    model = layer(op_type, feeds, outputs, direction=direction, **attributes)
    cases.check(model, feeds, outputs, list(feeds))


@pytest.mark.parametrize("output", [0, 1, 2])
def test_each_output_alone(output: int) -> None:
    """What is not asked for is not there in the file either: the layer then gives only what is used."""
    feeds = feeds_of("LSTM", seed=1)
    outputs = [name if place == output else "" for place, name in enumerate(OUTPUTS)]
    cases.check(layer("LSTM", feeds, outputs), feeds, [OUTPUTS[output]], ["x", "h", "c", "r"])


@pytest.mark.parametrize("output", [0, 1, 2])
def test_peepholes(output: int) -> None:
    feeds = feeds_of("LSTM", seed=2, peepholes=True)
    outputs = [name if place == output else "" for place, name in enumerate(OUTPUTS)]
    cases.check(layer("LSTM", feeds, outputs), feeds, [OUTPUTS[output]], list(feeds))


@pytest.mark.parametrize("op_type", list(GATES))
def test_without_bias_and_initial_state(op_type: str) -> None:
    feeds = {name: array for name, array in feeds_of(op_type, seed=3).items() if name in "xwr"}
    cases.check(layer(op_type, feeds, ["y"]), feeds, ["y"], list(feeds))


@pytest.mark.parametrize("op_type", list(GATES))
def test_free_sides_and_constant_weights(op_type: str) -> None:
    held = feeds_of(op_type, seed=4)
    feeds = {"x": held.pop("x")}
    held = {name: held[name] for name in "wrb"}
    node = helper.make_node(op_type, ["x", "w", "r", "b"], ["y"], hidden_size=HIDDEN)
    model = cases.graph_of([node], feeds, ["y"], constants=held, sides={"x": ["steps", "rows", INPUTS]})
    cases.check(model, feeds, ["y"], ["x"])


def test_two_layers_one_behind_the_other() -> None:
    """The second one sees the first one's states with the axis of directions taken away."""
    feeds = feeds_of("LSTM", seed=5)
    random = np.random.default_rng(6)
    held = {
        "w2": (0.6 * random.standard_normal((1, 3 * HIDDEN, HIDDEN))).astype(np.float32),
        "r2": (0.6 * random.standard_normal((1, 3 * HIDDEN, HIDDEN))).astype(np.float32),
        "axis": np.asarray([1], np.int64),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y1"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["y1", "axis"], ["s"]),
        helper.make_node("GRU", ["s", "w2", "r2"], ["", "y"], hidden_size=HIDDEN),
    ]
    cases.check(cases.graph_of(nodes, feeds, ["y"], constants=held), feeds, ["y"], list(feeds))


# -- torch -------------------------------------------------------------------------------------------------------------

ORDERS = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
"""Where torch's gates lie in the standard's order: torch has r z n and i f g o, the standard z r h and i o f c."""


def to_torch(array: np.ndarray, op_type: str) -> np.ndarray:
    """Blocks of gates along the first axis in torch's order."""
    blocks = np.split(array, GATES[op_type])
    return np.concatenate([blocks[place] for place in ORDERS[op_type]])


@pytest.mark.oracles
@pytest.mark.parametrize("direction", list(DIRECTIONS))
@pytest.mark.parametrize("op_type", list(GATES))
def test_torch(op_type: str, direction: str, torch: Any) -> None:
    """All outputs at once, by the inputs, the initial states and the weights, in float64."""
    ways, reverse = DIRECTIONS[direction], direction == "reverse"
    feeds = feeds_of(op_type, ways, seed=7)
    outputs = OUTPUTS[: 3 if op_type == "LSTM" else 2]
    attributes = {"linear_before_reset": 1} if op_type == "GRU" else {}
    model = layer(op_type, feeds, outputs, direction=direction, **attributes)
    found, seeds = cases.gradients(model, feeds, outputs, list(feeds))

    module = getattr(torch.nn, op_type)(INPUTS, HIDDEN, bidirectional=ways == 2).double()
    parameters = {}
    with torch.no_grad():
        for way in range(ways):
            halves = np.split(feeds["b"][way], 2)
            for name, array in (
                ("weight_ih", feeds["w"][way]), ("weight_hh", feeds["r"][way]), ("bias_ih", halves[0]),
                ("bias_hh", halves[1]),
            ):  # fmt: skip
                parameters[name, way] = getattr(module, f"{name}_l0" + "_reverse" * way)
                parameters[name, way].copy_(torch.from_numpy(to_torch(array, op_type).astype(np.float64)))
    given = {name: torch.tensor(feeds[name].astype(np.float64), requires_grad=True) for name in "xhc" if name in feeds}
    x = given["x"].flip(0) if reverse else given["x"]
    y, last = module(x, (given["h"], given["c"]) if op_type == "LSTM" else given["h"])
    # The standard has (steps, directions, rows, hidden), torch (steps, rows, directions × hidden).
    y = (y.flip(0) if reverse else y).reshape(STEPS, ROWS, ways, HIDDEN).transpose(1, 2)
    results = [y, *(last if op_type == "LSTM" else [last])]
    weighted = zip(outputs, results, strict=True)
    total = sum((torch.from_numpy(seeds[name].astype(np.float64)) * result).sum() for name, result in weighted)
    total.backward()

    def compare(ours: np.ndarray, theirs: Any, what: str) -> None:
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=0, atol=2e-6, err_msg=what)

    for name, value in given.items():
        compare(found[name], value, name)
    for way in range(ways):
        halves = np.split(found["b"][way], 2)
        compare(to_torch(found["w"][way], op_type), parameters["weight_ih", way], "w")
        compare(to_torch(found["r"][way], op_type), parameters["weight_hh", way], "r")
        compare(to_torch(halves[0], op_type), parameters["bias_ih", way], "b of the inputs")
        compare(to_torch(halves[1], op_type), parameters["bias_hh", way], "b of the state")


# -- Refused -----------------------------------------------------------------------------------------------------------


def refusal(op_type: str, *, lengths: np.ndarray | None = None, **attributes: Any) -> str:
    feeds = feeds_of(op_type)
    constants = {} if lengths is None else {"n": lengths}
    node = helper.make_node(
        op_type, ["x", "w", "r", "b", "n" if lengths is not None else ""], ["y"], name="layer", hidden_size=HIDDEN,
        **attributes,
    )  # fmt: skip
    model = cases.graph_of([node], feeds, ["y"], constants=constants)
    with pytest.raises(UnsupportedOperatorError) as caught:
        cases.gradient_graph(model, feeds, ["y"], ["x"])
    return str(caught.value)


@pytest.mark.parametrize(
    ("op_type", "attributes", "words"),
    [
        ("GRU", {"clip": 3.0}, "clipped"),
        ("LSTM", {"input_forget": 1}, "coupled"),
        ("RNN", {"activations": ["Relu"]}, "Relu"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "HardSigmoid"),
        ("RNN", {"activation_alpha": [0.5]}, "numbers for its activations"),
    ],
    ids=["clip", "input-forget", "relu", "hard-sigmoid", "alpha"],
)
def test_what_has_no_rule_is_named(op_type: str, attributes: dict[str, Any], words: str) -> None:
    message = refusal(op_type, **attributes)
    assert words in message
    assert "node 'layer'" in message


def test_rows_before_steps_are_refused() -> None:
    feeds = feeds_of("GRU")
    feeds["x"] = feeds["x"].swapaxes(0, 1)
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], hidden_size=HIDDEN, layout=1)
    model = cases.graph_of([node], feeds, ["y"])
    with pytest.raises(UnsupportedOperatorError, match="layout 1"):
        cases.build_gradient_graph(model, cases.infer_facts(model), targets=["y"], wrt=["x"])


def test_lengths_that_are_all_the_steps_change_nothing() -> None:
    feeds = feeds_of("LSTM")
    node = helper.make_node("LSTM", ["x", "w", "r", "b", "n"], ["y"], hidden_size=HIDDEN)
    full = cases.graph_of([node], feeds, ["y"], constants={"n": np.full(ROWS, STEPS, np.int32)})
    plain = layer("LSTM", {name: feeds[name] for name in "xwrb"}, ["y"])
    with_lengths, seeds = cases.gradients(full, feeds, ["y"], ["x"])
    without, _ = cases.gradients(plain, {name: feeds[name] for name in "xwrb"}, ["y"], ["x"], seeds=seeds)
    np.testing.assert_array_equal(with_lengths["x"], without["x"])


def test_different_lengths_are_refused() -> None:
    assert "different lengths" in refusal("LSTM", lengths=np.asarray([STEPS, STEPS - 1], np.int32))
