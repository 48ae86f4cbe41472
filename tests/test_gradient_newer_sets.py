"""Graphs of sets after 21 compute the same numbers at set 21."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper

from onnxviz.graph.gradient.upgrade import upgrade
from onnxviz.graph.wiring import default_opset
from random_arrays import RandomArrays
from rewritten_graphs import IMAGE, KERNEL, Case, all_nodes, checked, graph_of, run, same_values

node = helper.make_node
floats = RandomArrays(8).floats

NEWER: dict[str, Case] = {
    "convolution": Case([node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 0])], {"x": IMAGE}, (22, 24, 26),
        weights={"w": KERNEL}),
    "pools": Case(
        [
            node("MaxPool", ["x"], ["most"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, pads=[1, 0, 1, 1]),
            node("AveragePool", ["x"], ["mean"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["x"], ["y"]),
        ],
        {"x": IMAGE}, (22, 25),
    ),
    "activations": Case(
        [
            node("HardSwish", ["x"], ["swish"]), node("Mish", ["swish"], ["mish"]), node("Elu", ["mish"], ["elu"]),
            node("Selu", ["elu"], ["selu"]), node("Softplus", ["selu"], ["plus"]), node("HardSigmoid", ["plus"], ["y"]),
        ],
        {"x": IMAGE}, (22, 26),
    ),
    "shapes": Case(
        [
            node("Flatten", ["x"], ["flat"]), node("Reshape", ["flat", "to"], ["r"], allowzero=1),
            node("Identity", ["r"], ["i"]),
            node("Transpose", ["i"], ["t"]), node("Cast", ["t"], ["y"], to=TensorProto.FLOAT16),
        ],
        {"x": IMAGE}, (22, 23, 24, 25), weights={"to": np.array([-1, 2])},
    ),
    "recurrent": Case(
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)], {"x": floats(5, 2, 3)}, (22, 26),
        weights={"w": floats(1, 16, 3), "r": floats(1, 16, 4)},
    ),
    "quantised": Case(
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])],
        {"x": IMAGE},
        (22, 23, 24), weights={"s": np.float32(0.02), "z": np.int8(3)},
    ),
    "dropout": Case([node("Dropout", ["x"], ["y", "z"])], {"x": IMAGE}, (22, 25), ("y", "z")),
    "root mean square": Case(
        [node("RMSNormalization", ["x", "g"], ["y"], axis=-2)], {"x": IMAGE}, (23, 26), weights={"g": floats(6, 7)},
        tolerance=1e-6,
    ),
    "rotary embedding": Case(
        [node("RotaryEmbedding", ["x", "cos", "sin"], ["y"])], {"x": floats(2, 3, 4, 8)}, (23, 26),
        weights={"cos": floats(2, 4, 4), "sin": floats(2, 4, 4)}, tolerance=1e-6,
    ),
    "attention": Case(
        [node("Attention", ["x", "k", "v"], ["y"], is_causal=1)],
        {"x": floats(2, 2, 5, 8), "k": floats(2, 2, 5, 8), "v": floats(2, 2, 5, 8)}, (23, 24), tolerance=2e-6,
    ),
    "attention with a mask": Case(
        [node("Attention", ["x", "k", "v", "mask"], ["y"], q_num_heads=4, kv_num_heads=2, scale=0.3)],
        {"x": floats(2, 5, 16), "k": floats(2, 6, 8), "v": floats(2, 6, 8)}, (23, 24), weights={"mask": floats(5, 6)},
        tolerance=2e-6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEWER)
def test_newer_sets(name: str) -> None:
    case = NEWER[name]
    for opset in case.opsets:
        before = graph_of(case.nodes, inputs=case.inputs, outputs=case.outputs, opset=opset, weights=case.weights)
        after = upgrade(before, where="a file")
        assert default_opset(after) == 21
        assert after.ir_version == 10
        checked(after)
        same_values(before, after, case.inputs, case.tolerance)
        assert all(defs.has(each.op_type, 21, "") for each in all_nodes(after.graph))


def swish(x: np.ndarray, alpha: float) -> np.ndarray:
    return x / (1 + np.exp(-alpha * x))


def test_swish() -> None:
    """onnxruntime has no kernel for it: computed by hand."""
    for attributes, alpha in (({}, 1.0), ({"alpha": 1.5}, 1.5)):
        before = graph_of([node("Swish", ["x"], ["y"], **attributes)], inputs={"x": IMAGE}, outputs=["y"], opset=24)
        after = upgrade(before, where="a file")
        checked(after)
        np.testing.assert_allclose(run(after, {"x": IMAGE})["y"], swish(IMAGE, alpha), rtol=1e-5, atol=1e-6)


def test_a_newer_operator_in_a_body() -> None:
    def branch(name: str, inner: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(
            [inner], name, [], [helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)]
        )

    chosen = node(
        "If", ["c"], ["y"], then_branch=branch("then", node("Swish", ["x"], ["soft"])),
        else_branch=branch("else", node("RMSNormalization", ["x", "g"], ["even"])),
    )  # fmt: skip
    gains = floats(7)
    for condition in (True, False):
        inputs = {"x": IMAGE, "c": np.array(condition)}
        before = graph_of([chosen], inputs=inputs, outputs=["y"], opset=24, weights={"g": gains})
        after = upgrade(before, where="a file")
        even = IMAGE / np.sqrt(np.mean(IMAGE**2, axis=-1, keepdims=True) + 1e-5) * gains
        expected = swish(IMAGE, 1.0) if condition else even
        np.testing.assert_allclose(run(after, inputs)["y"], expected, rtol=1e-5, atol=1e-6)
        assert not {"Swish", "RMSNormalization"} & {each.op_type for each in all_nodes(after.graph)}
