"""Graphs of a few nodes at any operator set, and the check that a rewrite leaves every value of them as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from onnxviz.graph.taps import expose
from onnxviz.graph.wiring import subgraphs
from random_arrays import RandomArrays

floats = RandomArrays(7).floats
IMAGE = floats(2, 3, 6, 7)
CHANNELS = {name: np.abs(floats(3)) + np.float32(0.1) for name in ("scale", "bias", "mean", "variance")}
NORMALIZED = ["x", "scale", "bias", "mean", "variance"]
KERNEL = floats(4, 3, 3, 3)


def described(name: str, array: np.ndarray, *, sides: bool = True) -> onnx.ValueInfoProto:
    shape = list(array.shape) if sides else [f"{name}_{place}" for place in range(array.ndim)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    opset: int,
    weights: Mapping[str, np.ndarray] | None = None,
    sides: bool = True,
    ranks: bool = True,
    domains: Sequence[str] = (),
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model of one graph; without ``sides`` the inputs' sides are left open, without ``ranks`` their ranks too."""
    given = [described(name, array, sides=sides) for name, array in inputs.items()]
    if not ranks:
        for value in given:
            value.type.tensor_type.ClearField("shape")
    graph = helper.make_graph(
        list(nodes), "graph", given, [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=max(ir_version, 10 if opset > 20 else 0))


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name, nothing optimised: every operator runs as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))


def made_by(model: onnx.ModelProto) -> list[str]:
    return [name for each in model.graph.node for name in each.output if name]


def all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for each in graph.node:
        found.append(each)
        for body in subgraphs(each):
            found += all_nodes(body)
    return found


def checked(model: onnx.ModelProto) -> None:
    """onnx's own checks, types and shapes included, pass."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)


def same_values(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tolerance: float = 0.0
) -> None:
    """Every value that the first model's nodes make is in the second, with the same numbers and the same type."""
    names = made_by(before)
    assert set(names) <= set(made_by(after))
    expected, got = run(expose(before, names), feeds), run(expose(after, names), feeds)
    for name in names:
        assert got[name].dtype == expected[name].dtype, name
        assert got[name].shape == expected[name].shape, name
        if tolerance:
            np.testing.assert_allclose(got[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


@dataclass(frozen=True)
class Case:
    """A node, or several, that onnxruntime runs at all the stated operator sets."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Mapping[str, np.ndarray]
    opsets: Sequence[int]
    outputs: Sequence[str] = ("y",)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    tolerance: float = 0.0
