"""Small models written by hand, for tests of what the graph layer makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxviz.graph.detached import take_inside
from onnxviz.graph.loading import read_model


def build(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, tuple[str, Sequence[int | str]]],
    outputs: Mapping[str, tuple[str, Sequence[int | str] | None]],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model from nodes; inputs and outputs as name to (type, shape)."""

    def described(entries: Mapping[str, tuple[str, Sequence[int | str] | None]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, onnx.TensorProto.DataType.Value(dtype.upper()), shape)
            for name, (dtype, shape) in entries.items()
        ]

    graph = helper.make_graph(
        list(nodes), "graph", described(inputs), described(outputs),
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def read_whole(path: Path) -> onnx.ModelProto:
    """A model as it is loaded, with all weights inside, so that any runtime takes it."""
    loaded = read_model(path)
    return take_inside(loaded.proto, loaded.weights)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write the model as it is, without onnx's own checks."""
    path.write_bytes(model.SerializeToString())
    return path


def tiny_network(*, batch: int | str = "n") -> onnx.ModelProto:
    """Conv, Relu, global pool, Gemm, Softmax: float NCHW, three classes."""
    random = np.random.default_rng(0)
    node = helper.make_node
    return build(
        [
            node("Conv", ["image", "w"], ["conv"], name="first", pads=[1, 1, 1, 1]),
            node("Relu", ["conv"], ["relu"]),
            node("GlobalAveragePool", ["relu"], ["pooled"]),
            node("Flatten", ["pooled"], ["features"]),
            node("Gemm", ["features", "head", "bias"], ["logits"], transB=1),
            node("Softmax", ["logits"], ["prob"], axis=1),
        ],
        inputs={"image": ("float", [batch, 3, 8, 8])},
        outputs={"prob": ("float", [batch, 3])},
        weights={
            "w": random.standard_normal((4, 3, 3, 3)).astype(np.float32),
            "head": random.standard_normal((3, 4)).astype(np.float32),
            "bias": np.zeros(3, np.float32),
        },
    )
