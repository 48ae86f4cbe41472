"""Graphs of older sets as wholes: softmax over many axes, bodies, the first sets by hand, new constants and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxviz.graph.gradient.upgrade import upgrade
from onnxviz.graph.wiring import default_opset
from random_arrays import RandomArrays
from rewritten_graphs import (
    CHANNELS,
    IMAGE,
    NORMALIZED,
    all_nodes,
    checked,
    described,
    graph_of,
    made_by,
    run,
    same_values,
)

node = helper.make_node
floats = RandomArrays(8).floats


# -- operators and bodies ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_softmax_over_all_axes_from_one_on(data: st.DataObject) -> None:
    op_type = data.draw(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax"]))
    opset = data.draw(st.sampled_from([7, 9, 11, 12]))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    axis = data.draw(st.integers(-len(shape) if opset >= 11 else 0, len(shape) - 1))
    stated = data.draw(st.booleans()) or len(shape) < 2
    ranks, sides = data.draw(st.booleans()), data.draw(st.booleans())
    values = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    before = graph_of(
        [node(op_type, ["x"], ["y"], **({"axis": axis} if stated else {}))],
        inputs={"x": values}, outputs=["y"], opset=opset, sides=sides, ranks=ranks,
    )  # fmt: skip
    after = upgrade(before, where="a file")
    same_values(before, after, {"x": values}, 1e-6)
    axis = (axis if stated else 1) % len(shape)
    # One node is enough exactly where the last axis is meant and that is known.
    one_node = axis == len(shape) - 1 and (ranks or (stated and axis == -1))
    if ranks:
        assert (len(after.graph.node) == 1) == one_node


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 3, 0), (2, 0, 3)])
def test_softmax_of_nothing(shape: tuple[int, ...]) -> None:
    """A side of zero is a side, not one to be copied."""
    empty = np.zeros(shape, np.float32)
    before = graph_of(
        [node("Softmax", ["x"], ["y"], axis=1)], inputs={"x": empty}, outputs=["y"], opset=11, sides=False
    )
    same_values(before, upgrade(before, where="a file"), {"x": empty})


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_resize_states_only_what_it_means(opset: int) -> None:
    """Newer versions allow either scales or sizes, and no empty tensor in the place of the other."""
    nothing, scales, sizes = np.zeros(0, np.float32), np.float32([1, 1, 2, 2]), np.array([2, 3, 4, 5])
    for weights, expected in (({"scales": scales}, ["x", "", "scales"]), ({"scales": nothing}, ["x", "", "", "sizes"])):
        names = ["x", "roi", "scales", *(["sizes"] if expected[-1] == "sizes" else [])]
        before = graph_of(
            [node("Resize", names, ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=opset,
            weights={**weights, "roi": nothing, "sizes": sizes},
        )  # fmt: skip
        after = upgrade(before, where="a file")
        assert list(after.graph.node[0].input) == expected
        same_values(before, after, {"x": IMAGE})


def test_scan_over_a_batch() -> None:
    """Set 8 scanned the second axis of every image of a batch, and captured values from around it."""
    body = helper.make_graph(
        [
            node("Mul", ["state", "w"], ["scaled"]),
            node("Add", ["scaled", "part"], ["sum"]),
            node("Clip", ["sum"], ["next"], min=-1.0, max=1.0),
            node("Sub", ["next", "other"], ["seen"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("state", "part", "other")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("next", "seen")],
    )
    inputs = {"start": floats(2, 3), "x": floats(2, 5, 3), "z": floats(2, 5, 3)}
    for directions in ({}, {"directions": [0, 1]}):
        scan = node("Scan", ["", *inputs], ["end", "y"], body=body, num_scan_inputs=2, **directions)
        before = graph_of([scan], inputs=inputs, outputs=["end", "y"], opset=8, weights={"w": floats(3)})
        after = upgrade(before, where="a file")
        same_values(before, after, inputs)
        assert {each.op_type: len(each.input) for each in all_nodes(after.graph) if each.op_type == "Clip"} == {
            "Clip": 3
        }


def test_bodies_are_rewritten() -> None:
    def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        made = nodes[-1].output[0]
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(made, TensorProto.FLOAT, None)])

    inner = node(
        "If", ["c"], ["inner"],
        then_branch=branch("deep", node("Softmax", ["x"], ["soft"], axis=1)),
        else_branch=branch("deeper", node("ReduceSum", ["x"], ["one"], axes=[1]), node("Add", ["one", "x"], ["least"])),
    )  # fmt: skip
    then = branch("then", inner, node("Clip", ["inner"], ["clipped"], max=0.1))
    then_at_11 = branch("then", inner, node("LeakyRelu", ["inner"], ["clipped"]))
    otherwise = branch(
        "else", node("Unsqueeze", ["x"], ["more"], axes=[0]), node("Squeeze", ["more"], ["less"], axes=[0])
    )
    values = {"x": floats(2, 3, 4)}
    for condition in (True, False):
        inputs = {**values, "c": np.array(condition)}
        for opset in (9, 11, 12):
            before = graph_of(
                [node("If", ["c"], ["y"], then_branch=then if opset < 11 else then_at_11, else_branch=otherwise)],
                inputs=inputs, outputs=["y"], opset=opset,
            )  # fmt: skip
            after = upgrade(before, where="a file")
            same_values(before, after, inputs, 1e-6)
            inside = {each.op_type: each for each in all_nodes(after.graph)}
            assert len(inside["Squeeze"].input) == 2
            assert len(inside["ReduceSum"].input) == 2
            assert "Clip" not in inside or len(inside["Clip"].input) == 3


def test_loops_are_rewritten() -> None:
    body = helper.make_graph(
        [node("Identity", ["go"], ["again"]), node("Pad", ["now"], ["next"], pads=[0, 1], value=0.5)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("now", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None]),
        ],
    )
    inputs = {"x": floats(2)}
    before = graph_of(
        [node("Loop", ["count", "", "x"], ["y"], body=body)], inputs=inputs, outputs=["y"], opset=10,
        weights={"count": np.array(3)},
    )  # fmt: skip
    after = upgrade(before, where="a file")
    same_values(before, after, inputs)
    assert run(after, inputs)["y"].shape == (5,)


# -- sets that onnxruntime no longer runs -----------------------------------------------------------------------------


def old(
    nodes: Sequence[onnx.NodeProto], opset: int, inputs: Mapping[str, np.ndarray], **weights: np.ndarray
) -> np.ndarray:
    before = graph_of(nodes, inputs=inputs, outputs=["y"], opset=opset, weights=weights)
    after = upgrade(before, where="a file")
    checked(after)
    return run(after, inputs)["y"]


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_operands_placed_by_an_axis(op_type: str) -> None:
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op_type]
    x, w = np.abs(floats(2, 3, 4, 5)) + np.float32(0.5), np.abs(floats(3, 4)) + np.float32(0.5)
    got = old([node(op_type, ["x", "w"], ["y"], broadcast=1, axis=1)], 6, {"x": x}, w=w)
    np.testing.assert_allclose(got, function(x, w[:, :, None]), rtol=1e-6)
    got = old([node(op_type, ["x", "w"], ["y"], broadcast=1, axis=-3)], 6, {"x": x}, w=w)
    np.testing.assert_allclose(got, function(x, w[:, :, None]), rtol=1e-6)
    got = old([node(op_type, ["x", "w"], ["y"], broadcast=1)], 6, {"x": x}, w=w[0, :1])
    np.testing.assert_allclose(got, function(x, w[0, :1]), rtol=1e-6)
    got = old([node(op_type, ["x", "w"], ["y"], consumed_inputs=[0, 0])], 1, {"x": x}, w=x)
    np.testing.assert_allclose(got, function(x, x), rtol=1e-6)


def test_operators_of_the_first_sets() -> None:
    x = floats(2, 3, 4, 5)
    slopes = floats(3)
    got = old([node("PRelu", ["x", "slope"], ["y"])], 6, {"x": x}, slope=slopes)
    np.testing.assert_array_equal(got, np.where(x < 0, x * slopes[:, None, None], x))
    np.testing.assert_array_equal(
        old([node("PRelu", ["x", "s"], ["y"])], 6, {"x": x}, s=slopes[:1]), np.where(x < 0, x * slopes[0], x)
    )
    got = old([node("BatchNormalization", NORMALIZED, ["y"], is_test=1, epsilon=0.01)], 6, {"x": x}, **CHANNELS)
    scale, bias, mean, variance = (CHANNELS[name][:, None, None] for name in NORMALIZED[1:])
    np.testing.assert_allclose(got, (x - mean) / np.sqrt(variance + 0.01) * scale + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(old([node("Concat", ["x", "x"], ["y"])], 1, {"x": x}), np.concatenate([x, x], 1))
    np.testing.assert_array_equal(old([node("Reshape", ["x"], ["y"], shape=[0, -1])], 1, {"x": x}), x.reshape(2, -1))
    np.testing.assert_array_equal(old([node("Cast", ["x"], ["y"], to="INT32")], 1, {"x": x}), x.astype(np.int32))
    np.testing.assert_array_equal(old([node("Dropout", ["x"], ["y"], ratio=0.5)], 6, {"x": x}), x)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=2)
    np.testing.assert_array_equal(
        old([node("Pad", ["x"], ["y"], paddings=[0, 0, 1, 0, 0, 0, 0, 2], value=2.0)], 1, {"x": x}), padded
    )
    larger = x.repeat(2, 2).repeat(3, 3)
    np.testing.assert_array_equal(
        old([node("Upsample", ["x"], ["y"], height_scale=2.0, width_scale=3.0)], 1, {"x": x}), larger
    )
    got = old([node("Selu", ["x"], ["y"])], 1, {"x": x})
    np.testing.assert_allclose(got, 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(x) - 1)), rtol=1e-5, atol=1e-6)
    got = old(
        [node("Gemm", ["x", "w", "b"], ["y"], broadcast=1)], 6, {"x": x[0, 0]}, w=floats(5, 2), b=np.float32([1, 2])
    )
    assert got.shape == (4, 2)
    w = floats(1, 8, 3), floats(1, 8, 2)
    got = old(
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, output_sequence=1)],
        1,
        {"x": floats(4, 1, 3)},
        w=w[0],
        r=w[1],
    )
    assert got.shape == (4, 1, 1, 2)
    high = np.float32([0.5])
    np.testing.assert_array_equal(old([node("Clip", ["x"], ["y"], max=0.5)], 1, {"x": x}), np.minimum(x, high))
    parts = old([node("Split", ["x"], ["y", "z"], axis=1, split=[1, 2])], 1, {"x": x})
    np.testing.assert_array_equal(parts, x[:, :1])


# -- constants, names, inputs -----------------------------------------------------------------------------------------


def test_constants_take_the_type_of_what_they_meet() -> None:
    x = floats(2, 3, kind=np.float64)
    bounds = graph_of([node("Clip", ["x"], ["y"], min=-0.1)], inputs={"x": x}, outputs=["y"], opset=10)
    after = upgrade(bounds, where="a file")
    assert [each.op_type for each in after.graph.node] == ["Clip"]
    assert {tensor.data_type for tensor in after.graph.initializer} == {TensorProto.DOUBLE}
    np.testing.assert_array_equal(run(after, {"x": x})["y"], np.maximum(x, np.float64(np.float32(-0.1))))
    half = graph_of([node("Clip", ["x"], ["y"], min=-0.5)], inputs={"x": x.astype(np.float16)}, outputs=["y"], opset=10)
    got = run(upgrade(half, where="a file"), {"x": x.astype(np.float16)})["y"]
    np.testing.assert_array_equal(got, np.maximum(x.astype(np.float16), np.float16(-0.5)))


def test_equal_constants_are_shared() -> None:
    nodes = [
        node("Clip", ["x" if not place else f"v{place}"], [f"v{place + 1}"], min=0.0, max=6.0) for place in range(9)
    ]
    after = upgrade(graph_of(nodes, inputs={"x": IMAGE}, outputs=["v9"], opset=9), where="a file")
    assert sorted(numpy_helper.to_array(tensor).item() for tensor in after.graph.initializer) == [0.0, 6.0]


def test_new_names_avoid_those_of_the_file() -> None:
    """A file may use any name, that of a helper value too, even in a body."""
    taken = ["y/min", "y/max", "y/axes", "y/Flatten", "y/Softmax", "y/Shape", "y/min_stored"]
    x = floats(2, 3, 4)
    hidden = helper.make_graph(
        [node("Identity", ["x"], ["y/min_2"])],
        "body",
        [],
        [helper.make_tensor_value_info("y/min_2", TensorProto.FLOAT, None)],
    )
    nodes = [
        *(node("Neg", ["x"], [name]) for name in taken),
        node("Clip", ["x"], ["clipped"], min=0.0),
        node("If", ["c"], ["chosen"], then_branch=hidden, else_branch=hidden),
        node("Softmax", ["clipped"], ["y"], axis=1),
    ]
    inputs = {"x": x, "c": np.array(True)}
    before = graph_of(nodes, inputs=inputs, outputs=["y"], opset=9, ranks=False)
    after = upgrade(before, where="a file")
    same_values(before, after, inputs, 1e-6)
    names = [*made_by(after), *(tensor.name for tensor in after.graph.initializer)]
    assert len(set(names)) == len(names)


def test_weights_listed_among_the_inputs() -> None:
    before = graph_of(
        [node("Add", ["x", "w"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=8, weights={"w": floats(7)}
    )
    before.graph.input.append(described("w", floats(7)))
    before.ir_version = 3
    after = upgrade(before, where="a file")
    assert [value.name for value in after.graph.input] == ["x"]
    assert after.ir_version == 8
    same_values(before, after, {"x": IMAGE})


@pytest.mark.parametrize(("opset", "expected", "ir_version"), [(18, 18, 8), (19, 19, 9), (20, 20, 9), (21, 21, 10)])
def test_sets_18_to_21_stay(opset: int, expected: int, ir_version: int) -> None:
    clip = node("Clip", ["x", "", "high"], ["y"], name="clip")
    before = graph_of(
        [clip], inputs={"x": IMAGE}, outputs=["y"], opset=opset, weights={"high": np.float32(1)}, ir_version=4
    )
    before.graph.node[0].domain = "ai.onnx"
    before.ir_version = 4
    after = upgrade(before, where="a file")
    assert (default_opset(after), after.ir_version) == (expected, ir_version)
    assert list(after.graph.node) == [clip]
