"""Models whose weights are too heavy to be held twice: a convolution and dense layers, written block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphs import build, save

SIDE = 64
FEATURES = 16 * 16 * 16
"""What the convolution leaves of an image."""


def heavy_model(path: Path, hidden: int, *, beside: bool = False, operator: str = "Gemm") -> Path:
    """Write a model with dense layers from ``FEATURES`` to ``hidden`` and back, each of 16 KiB times ``hidden``.

    ``beside`` keeps their weights in a data file.
    """
    random = np.random.default_rng(5)
    node = helper.make_node

    def dense(source: str, weights: str, result: str) -> onnx.NodeProto:
        turned = {"transB": 1} if operator == "Gemm" else {}
        return node(operator, [source, weights], [result], **turned)

    model = build(
        [
            node("Conv", ["image", "front"], ["map"], strides=[4, 4]), node("Relu", ["map"], ["relu"]),
            node("Flatten", ["relu"], ["features"]), dense("features", "wide", "a"), node("Relu", ["a"], ["hidden"]),
            dense("hidden", "narrow", "b"), node("Relu", ["b"], ["last"]), node("MatMul", ["last", "head"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"logits": ("float", ["n", 10])},
        weights={
            "front": random.standard_normal((16, 3, 4, 4), np.float32) / 7,
            "head": random.standard_normal((FEATURES, 10), np.float32) / 64,
        },
    )  # fmt: skip
    shapes = {"wide": (hidden, FEATURES), "narrow": (FEATURES, hidden)}
    data = path.with_suffix(".bin")
    with data.open("wb") if beside else data.open("w+b") as file:
        for name, shape in shapes.items():
            rows, columns = shape if operator == "Gemm" else shape[::-1]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, columns])
            offset = file.tell()
            for _ in range(rows):
                file.write(random.standard_normal(columns, np.float32) * np.float32((2 / shape[1]) ** 0.5))
            if beside:
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", offset), ("length", file.tell() - offset)):
                    tensor.external_data.add(key=key, value=str(value))
            else:
                file.seek(offset)
                tensor.raw_data = file.read()
            model.graph.initializer.append(tensor)
    if not beside:
        data.unlink()
    return save(model, path)


def inner_array(path: Path, name: str) -> np.ndarray:
    """A weight as onnx itself reads it."""
    return next(numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name == name)
