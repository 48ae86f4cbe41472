"""What the values of a graph are called, and what exposing them gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from graphs import build, read_whole, tiny_network
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.graph.loading import read_model
from onnxviz.graph.macs import count_macs
from onnxviz.graph.taps import expose
from onnxviz.graph.values import graph_inputs, graph_outputs, list_values, match_values

node = helper.make_node


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], names: list[str] | None = None) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(names, feeds)
    return results


def test_values_in_computing_order() -> None:
    values = list_values(tiny_network())
    assert [(v.name, v.kind) for v in values] == [
        ("image", "input"), ("conv", "conv"), ("relu", "relu"), ("pooled", "pool"), ("features", "reshape"),
        ("logits", "fully connected"), ("prob", "softmax"),
    ]  # fmt: skip
    assert values[0].shape == ("n", 3, 8, 8)
    assert values[0].node == values[0].op_type == ""
    assert values[1].shape == ("n", 4, 8, 8)
    assert values[1].dtype == "float32"
    assert values[1].node == "first"
    assert values[2].node == "Relu #1"
    assert [v.name for v in graph_outputs(tiny_network())] == ["prob"]


def test_constants_and_bounded_relu() -> None:
    model = build(
        [
            node("Constant", [], ["six"], value_float=6.0),
            node("Neg", ["six"], ["minus"]),
            node("Clip", ["x", "zero", "six"], ["bounded"]),
            node("Clip", ["x", "minus", "six"], ["clipped"]),
            node("Dropout", ["bounded"], ["y", ""]),
            node("MatMul", ["bounded", "clipped"], ["product"]),
        ],
        inputs={"x": ("float", [2, 2])}, outputs={"y": ("float", [2, 2])}, weights={"zero": np.float32(0)},
    )  # fmt: skip
    kinds = {value.name: value.kind for value in list_values(model)}
    assert kinds == {
        "x": "input", "six": "constant", "minus": "constant", "bounded": "relu", "clipped": "activation", "y": "copy",
        "product": "matrix product",
    }  # fmt: skip


def test_unknown_shapes_are_none_not_an_error() -> None:
    model = build(
        [node("Reshape", ["x", "sides"], ["y"]), node("NonZero", ["x"], ["where"])],
        inputs={"x": ("float", ["n", 4]), "sides": ("int64", [2])}, outputs={"y": ("float", None)},
    )  # fmt: skip
    shapes = {value.name: value.shape for value in list_values(model)}
    assert shapes["y"] in (None, (None, None))
    assert shapes["where"] == (2, None)


def test_contradicting_shapes_do_not_raise() -> None:
    model = tiny_network()
    model.graph.initializer[0].dims[1] = 7
    assert len(list_values(model)) == 7


def test_stated_shapes_of_inner_values_are_not_believed() -> None:
    model = tiny_network()
    model.graph.value_info.append(helper.make_tensor_value_info("relu", onnx.TensorProto.FLOAT, [9, 9]))
    assert {value.name: value.shape for value in list_values(model)}["relu"] == ("n", 4, 8, 8)


def test_large_weights_are_not_copied_for_shapes() -> None:
    model = tiny_network()
    model.graph.initializer[0].ClearField("raw_data")  # shape inference needs none of it
    model.graph.initializer[0].dims[0] = 100_000
    assert {value.name: value.shape for value in list_values(model)}["conv"] == ("n", 100_000, 8, 8)


def test_match_exact_before_glob() -> None:
    model = tiny_network()
    model.graph.node[1].output[0] = "re[l]u"
    model.graph.node[2].input[0] = "re[l]u"
    values = list_values(model)
    assert [v.name for v in match_values(values, "re[l]u")] == ["re[l]u"]
    assert [v.name for v in match_values(values, "*o*")] == ["conv", "pooled", "logits", "prob"]
    assert [v.name for v in match_values(values, "[cp]*")] == ["conv", "pooled", "prob"]
    # A glob that matches nothing as it is written means either case.
    assert [v.name for v in match_values(values, "*CON*")] == ["conv"]
    with pytest.raises(ValueNotFoundError, match="'logits'"):
        match_values(values, "logit")
    with pytest.raises(ValueNotFoundError):
        match_values(values, "CONV")


def test_inputs_leave_weights_out() -> None:
    model = tiny_network()
    model.graph.input.insert(0, helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3, 3, 3]))
    assert [(entry.name, entry.dtype, entry.shape) for entry in graph_inputs(model)] == [
        ("image", "float32", ("n", 3, 8, 8))
    ]


def test_expose_gives_the_values_in_order_and_drops_the_rest() -> None:
    model = tiny_network()
    before = model.SerializeToString()
    tapped = expose(model, ["features", "conv", "features"])
    assert model.SerializeToString() == before
    assert [output.name for output in tapped.graph.output] == ["features", "conv"]
    assert [entry.op_type for entry in tapped.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert [tensor.name for tensor in tapped.graph.initializer] == ["w"]
    image = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    features, conv = run(tapped, {"image": image})
    np.testing.assert_allclose(features, np.maximum(conv, 0).mean((2, 3)), rtol=1e-5)


def test_expose_inputs_weights_and_constants() -> None:
    model = tiny_network()
    image = np.zeros((1, 3, 8, 8), np.float32)
    given, weight, prob = run(expose(model, ["image", "head", "prob"]), {"image": image})
    np.testing.assert_array_equal(given, image)
    np.testing.assert_array_equal(weight, onnx.numpy_helper.to_array(model.graph.initializer[1]))
    assert prob.shape == (1, 3)


def test_expose_refuses_unknown_and_no_names() -> None:
    with pytest.raises(ValueNotFoundError, match="'logits'"):
        expose(tiny_network(), ["logit"])
    with pytest.raises(InputError):
        expose(tiny_network(), [])


def test_expose_keeps_what_bodies_capture() -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        inner = helper.make_graph(
            [node(op_type, ["hidden"], ["deep"])], "inner", [], [onnx.ValueInfoProto(name="deep")]
        )
        return helper.make_graph(
            [node("If", ["c"], ["result"], then_branch=inner, else_branch=inner), node("Add", ["result", "w"], ["sum"])],
            "branch", [], [onnx.ValueInfoProto(name="sum")],
        )  # fmt: skip

    model = build(
        [
            node("Neg", ["x"], ["hidden"]),
            node("Abs", ["x"], ["unused"]),
            node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Sigmoid")),
        ],
        inputs={"x": ("float", ["n", 2]), "c": ("bool", [])}, outputs={"y": ("float", None)},
        weights={"w": np.float32([1, 2]), "spare": np.float32([0])},
    )  # fmt: skip
    tapped = expose(model, ["y"])
    assert [entry.op_type for entry in tapped.graph.node] == ["Neg", "If"]
    assert [tensor.name for tensor in tapped.graph.initializer] == ["w"]
    x = np.float32([[1, -2]])
    (y,) = run(tapped, {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(y, np.maximum(-x, 0) + np.float32([1, 2]))


def test_loop_and_scan_run_when_tapped() -> None:
    step = helper.make_graph(
        [node("Identity", ["go"], ["again"]), node("Add", ["state", "hidden"], ["next"]), node("Identity", ["next"], ["seen"])],
        "step",
        [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []), helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
         helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, []), helper.make_tensor_value_info("next", onnx.TensorProto.FLOAT, [2]),
         helper.make_tensor_value_info("seen", onnx.TensorProto.FLOAT, [2])],
    )  # fmt: skip
    model = build(
        [node("Neg", ["x"], ["hidden"]), node("Loop", ["count", "go_on", "x"], ["last", "all"], body=step), node("Relu", ["last"], ["y"])],
        inputs={"x": ("float", [2])}, outputs={"y": ("float", [2])},
        weights={"count": np.array(3), "go_on": np.array(True)},
    )  # fmt: skip
    x = np.float32([1, -2])
    hidden, every, y = run(expose(model, ["hidden", "all", "y"]), {"x": x})
    np.testing.assert_array_equal(hidden, -x)
    np.testing.assert_array_equal(every, [x * 0, -x, -2 * x])
    np.testing.assert_array_equal(y, np.maximum(-2 * x, 0))


def test_every_value_of_every_zoo_model_can_be_exposed(zoo: Path) -> None:
    for path in sorted((zoo / "models").glob("*.onnx")):
        model = read_whole(path)
        values = list_values(model)
        entry = graph_inputs(model)[0]
        assert entry.shape is not None
        sides = [side if isinstance(side, int) else 1 for side in entry.shape]
        image = np.random.default_rng(0).integers(0, 100, sides).astype(entry.dtype)
        results = run(expose(model, [value.name for value in values]), {entry.name: image})
        for value, result in zip(values, results, strict=True):
            assert value.dtype in (None, str(result.dtype))
            if value.shape is not None:
                assert len(value.shape) == result.ndim, value
                pairs = zip(value.shape, result.shape, strict=True)
                assert all(stated == side for stated, side in pairs if isinstance(stated, int)), value


def test_macs_of_known_layers() -> None:
    random = np.random.default_rng(0)
    model = build(
        [
            node("Conv", ["x", "w"], ["a"], group=2, pads=[1, 1, 1, 1]),
            node("ConvTranspose", ["a", "t"], ["b"], strides=[2, 2]),
            node("GlobalAveragePool", ["b"], ["c"]),
            node("Flatten", ["c"], ["d"]),
            node("Gemm", ["d", "g"], ["e"], transB=1),
            node("MatMul", ["e", "m"], ["y"]),
        ],
        inputs={"x": ("float", [1, 4, 6, 6])}, outputs={"y": ("float", [1, 2])},
        weights={
            "w": random.standard_normal((8, 2, 3, 3)).astype(np.float32),
            "t": random.standard_normal((8, 5, 2, 2)).astype(np.float32),
            "g": random.standard_normal((7, 5)).astype(np.float32),
            "m": random.standard_normal((7, 2)).astype(np.float32),
        },
    )  # fmt: skip
    shapes = {
        "x": (1, 4, 6, 6),
        "a": (1, 8, 6, 6),
        "b": (1, 5, 12, 12),
        "c": (1, 5, 1, 1),
        "d": (1, 5),
        "e": (1, 7),
        "y": (1, 2),
    }
    assert count_macs(model, shapes) == 8 * 36 * 2 * 9 + 8 * 36 * 5 * 4 + 5 * 7 + 7 * 2


def test_macs_of_squeezenet(zoo: Path) -> None:
    # Iandola et al. 2016, version 1.1: about 0.35 billion multiply-accumulates for one image of 224 × 224.
    model = read_model(zoo / "models" / "squeezenet1.1-imagenet.onnx").proto
    shapes = {
        value.name: tuple(side if isinstance(side, int) else 1 for side in value.shape or ())
        for value in list_values(model)
    }
    assert count_macs(model, shapes) == pytest.approx(0.35e9, rel=0.03)
