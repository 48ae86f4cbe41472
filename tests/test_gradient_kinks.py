"""Derivatives where differences say little: ties, kinks, zeros, nothing at all, large numbers; and refusals in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from gradient_cases import differences, gradients, graph_of
from onnxviz.errors import UnsupportedOperatorError
from operator_cases import derivative, ints
from random_arrays import RandomArrays

node = helper.make_node
random = RandomArrays(0)
floats, within = random.floats, random.within

TIES = np.array([[2, 1, 2, 0], [1, 1, 1, 1]], np.float32)


@pytest.mark.parametrize("free", [False, True])
def test_equal_extrema_share_the_adjoint(free: bool) -> None:
    axes = {"axes": ints(1)}
    highest = derivative(node("ReduceMax", ["x", "axes"], ["y"]), TIES, constants=axes, free=free)
    np.testing.assert_array_equal(highest, [[0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    lowest = derivative(node("ReduceMin", ["x", "axes"], ["y"], keepdims=0), TIES, constants=axes, free=free)
    np.testing.assert_array_equal(lowest, [[0, 0, 0, 1], [0.25, 0.25, 0.25, 0.25]])
    whole = derivative(node("GlobalMaxPool", ["x"], ["y"]), TIES[None], free=free)
    np.testing.assert_array_equal(whole, highest[None])


def test_the_first_of_equal_maxima_takes_the_adjoint() -> None:
    pooled = derivative(node("MaxPool", ["x"], ["y"], kernel_shape=[4]), TIES[None])
    np.testing.assert_array_equal(pooled, [[[1, 0, 0, 0], [1, 0, 0, 0]]])
    larger = derivative(node("Max", ["x", "ones"], ["y"]), TIES, constants={"ones": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(larger, [[1, 1, 1, 0], [1, 1, 1, 1]])
    smaller = derivative(node("Min", ["ones", "x"], ["y"]), TIES, constants={"ones": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(smaller, [[0, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("free", [False, True])
def test_at_zero_there_is_no_nan(free: bool) -> None:
    zeros = np.zeros((2, 3), np.float32)
    for op in ("ReduceL1", "ReduceL2"):
        np.testing.assert_array_equal(derivative(node(op, ["x"], ["y"]), zeros, free=free), zeros)
    for p in (1, 2):
        np.testing.assert_array_equal(derivative(node("LpNormalization", ["x"], ["y"], p=p), zeros, free=free), zeros)
    for op in ("Abs", "Relu"):
        np.testing.assert_array_equal(derivative(node(op, ["x"], ["y"]), zeros, free=free), zeros)
    for exponent, slope in ((0, 0), (1, 1), (2, 0), (3, 0)):
        power = {"p": np.array(exponent, np.float32)}
        found = derivative(node("Pow", ["x", "p"], ["y"]), zeros, constants=power, free=free)
        np.testing.assert_array_equal(found, np.full_like(zeros, slope))


@pytest.mark.parametrize("free", [False, True])
def test_empty_values_have_empty_derivatives(free: bool) -> None:
    nothing = np.zeros((0, 4), np.float32)
    bounds = {"a": ints(3), "b": ints(0), "c": ints(1), "d": ints(-2)}
    for op, constants, attributes in (
        ("Transpose", {}, {}), ("Softmax", {}, {}), ("Slice", bounds, {}), ("Gather", {"i": ints(1, 1)}, {"axis": 1}),
        ("Tile", {"r": ints(2, 3)}, {}), ("Pad", {"p": ints(0, 1, 0, 1)}, {}), ("Flatten", {}, {}),
        ("Expand", {"s": ints(2, 0, 4)}, {}), ("CumSum", {"axis": ints(1).reshape(())}, {}),
    ):  # fmt: skip
        found = derivative(node(op, ["x", *constants], ["y"], **attributes), nothing, constants=constants, free=free)
        assert found.shape == (0, 4), op


def test_many_additions_at_one_place_are_all_counted() -> None:
    indices = np.arange(60_000).reshape(-1, 2) % 3
    for form in (node("Gather", ["x", "i"], ["y"]), node("GatherND", ["x", "j"], ["y"])):
        found = derivative(form, floats(3, 8), constants={"i": indices, "j": indices[..., None]})
        np.testing.assert_array_equal(found, np.full((3, 8), 20_000))
    edge = derivative(node("Pad", ["x", "p"], ["y"], mode="edge"), floats(2, 2), constants={"p": ints(999, 0, 999, 0)})
    np.testing.assert_array_equal(edge, np.full((2, 2), 1000))


def test_normalised_numbers_far_from_zero() -> None:
    """The spread is found as exactly as the operator itself finds it."""
    x = (floats(2, 3, 16, kind=np.float64) + 1000).astype(np.float32)
    scale = {"s": np.ones(16, np.float32)}
    model = graph_of([node("LayerNormalization", ["x", "s"], ["y"])], {"x": x}, ["y"], constants=scale)
    found, seeds = gradients(model, {"x": x}, ["y"], ["x"])
    expected = differences(model, {"x": x}, seeds, "x", step=1e-3)
    np.testing.assert_allclose(found["x"], expected, rtol=0, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name", ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "Clip", "HardSwish", "MaxPool", "LeakyRelu"]
)
def test_kinks_and_ties_as_in_torch(name: str, torch: Any) -> None:
    numbers = np.array([[0, -3, 3, 3, 0, 1], [-1, -1, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0]], np.float32)
    functional = torch.nn.functional
    attributes, constants, theirs = {
        "ReduceMax": ({}, {"a": ints(1)}, lambda x: x.amax(1, keepdim=True)),
        "ReduceMin": ({}, {"a": ints(1)}, lambda x: x.amin(1, keepdim=True)),
        "ReduceProd": ({}, {"a": ints(1)}, lambda x: x.prod(1, keepdim=True)),
        "ReduceL2": ({}, {"a": ints(1)}, lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True)),
        "Clip": ({}, {"low": np.array(-1, np.float32), "high": np.array(2, np.float32)}, lambda x: x.clamp(-1, 2)),
        "HardSwish": ({}, {}, functional.hardswish),
        "MaxPool": ({"kernel_shape": [3], "strides": [1]}, {}, lambda x: functional.max_pool1d(x, 3, 1)),
        "LeakyRelu": ({"alpha": 0.1}, {}, lambda x: functional.leaky_relu(x, 0.1)),
    }[name]
    numbers = numbers[None] if name == "MaxPool" else numbers
    given_numbers = torch.from_numpy(numbers).requires_grad_(True)
    theirs(given_numbers).sum().backward()
    ours = derivative(node(name, ["x", *constants], ["y"], **attributes), numbers, constants=constants)
    np.testing.assert_allclose(ours, given_numbers.grad.numpy(), rtol=1e-6, atol=1e-6)


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "running mean": ([node("Relu", ["m"], ["mean"]), node("BatchNormalization", ["x", "s", "s", "mean", "s"], ["y"])],
                     {"x": floats(2, 3), "m": within(1, 2, 3)}, {"s": within(1, 2, 3)}, 18),
    "training mode": ([node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], training_mode=1)],
                      {"x": floats(2, 3)}, {"s": within(1, 2, 3)}, 18),
    "further outputs": ([node("LayerNormalization", ["x", "s"], ["z", "m", "i"]), node("Add", ["z", "i"], ["y"])],
                        {"x": floats(2, 3)}, {"s": floats(3)}, 18),
    "fills the border": ([node("ReduceSum", ["x"], ["s"], keepdims=0), node("Pad", ["x", "p", "s"], ["y"])],
                         {"x": floats(3)}, {"p": ints(1, 1)}, 18),
    "reduction 'max'": ([node("ScatterElements", ["x", "i", "u"], ["y"], reduction="max")],
                        {"x": floats(3)}, {"i": ints(0), "u": floats(1)}, 18),
    "reduction 'mul'": ([node("ScatterND", ["x", "i", "u"], ["y"], reduction="mul")],
                        {"x": floats(3)}, {"i": ints(0).reshape(1, 1), "u": floats(1)}, 18),
    "region of interest": ([node("Resize", ["x", "roi", "s"], ["y"],
                                 coordinate_transformation_mode="tf_crop_and_resize")],
                           {"x": floats(4)}, {"roi": np.array([0, 1], np.float32), "s": np.array([2], np.float32)}, 18),
    "rounded up": ([node("Resize", ["x", "", "", "s"], ["y"], axes=[0, 1], keep_aspect_ratio_policy="not_larger")],
                   {"x": floats(7, 11)}, {"s": ints(12, 100)}, 18),
    "no rule": ([node("Det", ["x"], ["y"])], {"x": floats(2, 2)}, {}, 18),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(words: str) -> None:
    nodes, feeds, constants, opset = REFUSED[words]
    model = graph_of(nodes, feeds, ["y"], constants=constants, opset=opset)
    with pytest.raises(UnsupportedOperatorError, match=words):
        gradients(model, feeds, ["y"], list(feeds))
