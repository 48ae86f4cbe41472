"""Which values of a network the report takes for maps of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import onnxviz as ov
from graphs import build, save, tiny_network
from onnxviz.graph.attention import attention_values
from onnxviz.report.examination import Examination, Options


def test_maps_of_integer_operators_are_where_they_become_real(tmp_path: Path) -> None:
    node = onnx.helper.make_node
    weights = {
        "scale": np.float32(0.05), "zero": np.uint8(0), "none": np.int8(0),
        "w": np.random.default_rng(2).integers(-40, 40, (4, 3, 3, 3)).astype(np.int8),
    }  # fmt: skip
    proto = build(
        [
            node("QuantizeLinear", ["image", "scale", "zero"], ["pixels"]),
            node("QLinearConv", ["pixels", "scale", "zero", "w", "scale", "none", "scale", "zero"], ["codes"]),
            node("DequantizeLinear", ["codes", "scale", "zero"], ["maps"]),
            node("GlobalAveragePool", ["maps"], ["means"]), node("Flatten", ["means"], ["scores"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"scores": ("float", ["n", 4])}, weights=weights,
    )  # fmt: skip
    model = ov.load(save(proto, tmp_path / "integers.onnx"), device="cpu", preprocess="unit")
    assert [value.name for value in Examination(model, None, "", Options()).maps] == ["maps"]


def test_maps_of_an_attention_are_no_maps_of_the_image(tmp_path: Path) -> None:
    node = onnx.helper.make_node
    random = np.random.default_rng(3)
    weights = {name: random.normal(0, 0.3, (4, 4)).astype(np.float32) for name in "qkvo"}
    weights |= {
        "patches": random.normal(0, 0.3, (4, 3, 2, 2)).astype(np.float32), "scale": np.float32(0.7),
        "tokens": np.array([0, 4, 16]), "heads": np.array([0, 16, 2, 2]), "joined": np.array([0, 16, 4]),
        "picture": np.array([0, 4, 4, 4]), "mask": np.zeros((1, 1, 16, 16), np.float32),
    }  # fmt: skip
    nodes = [
        node("Conv", ["image", "patches"], ["embedded"], strides=[2, 2]),
        node("Reshape", ["embedded", "tokens"], ["flat"]), node("Transpose", ["flat"], ["sequence"], perm=[0, 2, 1]),
    ]  # fmt: skip
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            node("MatMul", ["sequence", name], [f"{name}_projected"]),
            node("Reshape", [f"{name}_projected", "heads"], [f"{name}_heads"]),
            node("Transpose", [f"{name}_heads"], [f"{name}_turned"], perm=order),
        ]
    nodes += [
        node("Mul", ["q_turned", "scale"], ["q_scaled"]), node("Mul", ["k_turned", "scale"], ["k_scaled"]),
        node("MatMul", ["q_scaled", "k_scaled"], ["similarity"]), node("Add", ["similarity", "mask"], ["masked"]),
        node("Softmax", ["masked"], ["attention"], axis=3), node("MatMul", ["attention", "v_turned"], ["answer"]),
        node("Transpose", ["answer"], ["back"], perm=[0, 2, 1, 3]), node("Reshape", ["back", "joined"], ["whole"]),
        node("MatMul", ["whole", "o"], ["mixed"]), node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 1]),
        node("Reshape", ["turned", "picture"], ["as_picture"]), node("Add", ["embedded", "as_picture"], ["sum"]),
        node("GlobalAveragePool", ["sum"], ["means"]), node("Flatten", ["means"], ["scores"]),
    ]  # fmt: skip
    proto = build(
        nodes, inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"scores": ("float", ["n", 4])}, weights=weights
    )
    inside = {"q_scaled", "k_scaled", "similarity", "masked", "attention", "v_turned"}
    assert attention_values(proto) == inside
    model = ov.load(save(proto, tmp_path / "attention.onnx"), device="cpu", preprocess="unit")
    assert [value.name for value in Examination(model, None, "", Options()).maps] == ["embedded", "sum"]
    assert attention_values(tiny_network()) == frozenset()
