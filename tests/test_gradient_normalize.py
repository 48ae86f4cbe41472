"""Graphs brought to operator sets 18 to 21 and written in standard operators compute the same numbers as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, defs, helper, numpy_helper

from light_models import LIGHT, with_random_weights
from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.detached import detach_weights
from onnxviz.graph.gradient.decompose import decompose
from onnxviz.graph.gradient.upgrade import incompatibility, upgrade
from onnxviz.graph.gradient.upgrade_steps import STEPS
from onnxviz.graph.taps import expose
from onnxviz.graph.wiring import default_opset, real_inputs, subgraphs
from zoo_models import ZOO

node = helper.make_node
random = np.random.default_rng(7)


def floats(*shape: int, kind: type = np.float32) -> np.ndarray:
    return random.standard_normal(shape).astype(kind)


def ints(low: int, high: int, *shape: int, kind: type = np.uint8) -> np.ndarray:
    return random.integers(low, high, shape).astype(kind)


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


# -- one operator at a time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A node, or several, that onnxruntime runs at all the stated operator sets."""

    nodes: Sequence[onnx.NodeProto]
    inputs: Mapping[str, np.ndarray]
    opsets: Sequence[int]
    outputs: Sequence[str] = ("y",)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    tolerance: float = 0.0


IMAGE = floats(2, 3, 6, 7)
WIDE = np.concatenate([floats(20), np.array([np.inf, -np.inf, 0.5, -0.5], np.float32)])
RANKED = floats(2, 3, 4, 5)
CHANNELS = {name: np.abs(floats(3)) + np.float32(0.1) for name in ("scale", "bias", "mean", "variance")}
ELEMENTS = {name: np.abs(floats(3, 6, 7)) + np.float32(0.1) for name in ("scale", "bias", "mean", "variance")}
NORMALIZED = ["x", "scale", "bias", "mean", "variance"]
KERNEL = floats(4, 3, 3, 3)

CASES: dict[str, Case] = {
    "clip between": Case([node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], {"x": WIDE}, (7, 8, 9, 10)),
    "clip from": Case([node("Clip", ["x"], ["y"], min=0.25)], {"x": WIDE}, (7, 10)),
    "clip to": Case([node("Clip", ["x"], ["y"], max=6.0)], {"x": WIDE}, (7, 10)),
    "clip nothing": Case([node("Clip", ["x"], ["y"])], {"x": WIDE}, (7, 10)),
    "clip by inputs": Case(
        [node("Clip", ["x", "", "high"], ["y"])], {"x": WIDE}, (11, 12, 13, 17), weights={"high": np.float32(0.25)}
    ),
    "squeeze": Case([node("Squeeze", ["x"], ["y"], axes=[0, 2])], {"x": floats(1, 3, 1, 2)}, (7, 11, 12)),
    "squeeze back": Case([node("Squeeze", ["x"], ["y"], axes=[-2])], {"x": floats(1, 3, 1, 2)}, (11, 12)),
    "squeeze all": Case([node("Squeeze", ["x"], ["y"])], {"x": floats(1, 3, 1, 2)}, (7, 11, 13)),
    "unsqueeze": Case([node("Unsqueeze", ["x"], ["y"], axes=[0, 3])], {"x": floats(3, 2)}, (7, 11, 12)),
    "unsqueeze back": Case([node("Unsqueeze", ["x"], ["y"], axes=[-1])], {"x": floats(3, 2)}, (11, 12)),
    "split evenly": Case([node("Split", ["x"], ["y", "z"], axis=1)], {"x": floats(2, 6)}, (7, 11, 13, 17), ("y", "z")),
    "split by sizes": Case(
        [node("Split", ["x"], ["y", "z"], axis=1, split=[2, 4])], {"x": floats(2, 6)}, (7, 11, 12), ("y", "z")
    ),
    "split by input": Case(
        [node("Split", ["x", "sizes"], ["y", "z"], axis=-1)], {"x": floats(2, 6)}, (13, 17), ("y", "z"),
        {"sizes": np.array([5, 1])},
    ),
    "pad with a value": Case([node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5)], {"x": IMAGE},
        (7, 10)),
    "pad with zeros": Case([node("Pad", ["x"], ["y"], pads=[0, 1, 1, 0, 0, 0, 0, 1])], {"x": IMAGE}, (7, 10)),
    "pad by cutting": Case([node("Pad", ["x"], ["y"], pads=[0, 0, -1, 2, 0, 0, 0, -2])], {"x": IMAGE}, (7, 10)),
    "pad by reflection": Case(
        [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], mode="reflect")], {"x": IMAGE}, (7, 10)
    ),
    "pad by the edge": Case([node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 3, 0], mode="edge")], {"x": IMAGE},
        (7, 10)),
    "pad by inputs": Case(
        [node("Pad", ["x", "pads", "value"], ["y"])], {"x": IMAGE}, (11, 13, 17),
        weights={"pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "value": np.float32(2)},
    ),
    "slice": Case(
        [node("Slice", ["x"], ["y"], starts=[1, -4], ends=[100, -1], axes=[2, 3])], {"x": IMAGE}, (7, 8, 9)
    ),
    "slice without axes": Case([node("Slice", ["x"], ["y"], starts=[0, 1], ends=[1, 2])], {"x": IMAGE}, (7, 9)),
    "slice by inputs": Case(
        [node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])], {"x": IMAGE}, (10, 11, 13, 17),
        weights={"starts": np.array([5]), "ends": np.array([-100]), "axes": np.array([2]), "steps": np.array([-2])},
    ),
    "largest": Case(
        [node("TopK", ["x"], ["y", "z"], k=3, axis=1)], {"x": np.round(floats(3, 9))}, (7, 8, 9), ("y", "z")
    ),
    "largest at the end": Case([node("TopK", ["x"], ["y", "z"], k=2)], {"x": floats(3, 9)}, (7, 9), ("y", "z")),
    "largest by input": Case(
        [node("TopK", ["x", "k"], ["y", "z"])], {"x": np.round(floats(3, 9))}, (10, 11, 17), ("y", "z"),
        {"k": np.array([4])},
    ),
    "dropout": Case([node("Dropout", ["x"], ["y"], ratio=0.9)], {"x": IMAGE}, (7, 10, 11)),
    "dropout by input": Case(
        [node("Dropout", ["x", "ratio"], ["y", "z"])], {"x": IMAGE}, (12, 13, 17), ("y", "z"),
        {"ratio": np.float32(0.9)}
    ),
    "dropout and its mask": Case(
        [node("Dropout", ["x"], ["y", "z"], ratio=0.3, name="here")], {"x": IMAGE}, (7, 10, 11), ("y", "z")
    ),
    "batch normalization": Case(
        [node("BatchNormalization", NORMALIZED, ["y"], epsilon=0.01, momentum=0.5)], {"x": IMAGE}, (7, 9, 14, 15),
        weights=CHANNELS,
    ),
    "batch normalization of elements": Case(
        [node("BatchNormalization", NORMALIZED, ["y"], spatial=0, epsilon=0.01)], {"x": IMAGE}, (7, 8),
        weights=ELEMENTS, tolerance=1e-6,
    ),
    "upsample by attribute": Case(
        [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.5])], {"x": IMAGE}, (7, 8)
    ),
    "upsample linearly by attribute": Case(
        [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.5], mode="linear")], {"x": IMAGE}, (7, 8)
    ),
    "upsample": Case(
        [node("Upsample", ["x", "scales"], ["y"])], {"x": IMAGE}, (9,), weights={"scales": np.float32([1, 1, 3, 1.7])}
    ),
    "upsample linearly": Case(
        [node("Upsample", ["x", "scales"], ["y"], mode="linear")], {"x": IMAGE}, (9,),
        weights={"scales": np.float32([1, 1, 3, 1.7])},
    ),
    "crops": Case(
        [node("RoiAlign", ["x", "boxes", "images"], ["y"], output_height=2, output_width=2)], {"x": IMAGE},
        (10, 15, 16, 17),
        weights={"boxes": np.float32([[0, 0, 3, 3], [1, 1, 5, 4]]), "images": np.array([0, 1])},
    ),
    "scatter": Case(
        [node("Scatter", ["x", "places", "new"], ["y"], axis=1)], {"x": floats(2, 5)}, (9, 10),
        weights={"places": np.array([[1, 3], [0, 4]]), "new": floats(2, 2)},
    ),
    "scatter elements": Case(
        [node("ScatterElements", ["x", "places", "new"], ["y"], axis=-1)], {"x": floats(2, 5)}, (11, 13, 16, 17),
        weights={"places": np.array([[1, 3], [0, 4]]), "new": floats(2, 2)},
    ),
    "layer normalization of onnxruntime": Case(
        [node("LayerNormalization", ["x", "scale"], ["y"], axis=-1)], {"x": floats(2, 5)}, (9, 13, 16, 17),
        weights={"scale": floats(5)},
    ),
    "sums": Case([node("ReduceSum", ["x", "axes"], ["y"])], {"x": RANKED}, (13, 17),
        weights={"axes": np.array([1, -1])}),
    "gemm": Case(
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)], {"x": floats(2, 5)}, (7, 9, 11, 13),
        weights={"w": floats(4, 5), "b": floats(4)},
    ),
    "gemm without bias": Case(
        [node("Gemm", ["x", "w"], ["y"])], {"x": floats(2, 5)}, (11, 13), weights={"w": floats(5, 4)}
    ),
    "arithmetic": Case(
        [
            node("Add", ["x", "w"], ["sum"]), node("Sub", ["sum", "w"], ["difference"]),
            node("Mul", ["difference", "x"], ["product"]), node("Div", ["product", "w"], ["quotient"]),
            node("Abs", ["quotient"], ["positive"]), node("Pow", ["positive", "w"], ["y"]),
        ],
        {"x": IMAGE}, (7, 12, 13, 14, 15), weights={"w": np.abs(floats(3, 1, 1)) + np.float32(0.5)},
    ),
    "comparisons": Case(
        [
            node("Less", ["x", "w"], ["less"]), node("Greater", ["x", "w"], ["more"]),
            node("Or", ["less", "more"], ["any"]),
            node("Cast", ["any"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": IMAGE}, (7, 9, 13), weights={"w": floats(7)},
    ),
    "several operands": Case(
        [
            node("Sum", ["x", "w", "x"], ["sum"]), node("Max", ["sum", "x"], ["max"]),
            node("Min", ["max", "w"], ["min"]),
            node("Mean", ["min", "x"], ["y"]),
        ],
        {"x": IMAGE}, (8, 12, 13), weights={"w": floats(3, 6, 7)},
    ),
    "activations": Case(
        [
            node("LeakyRelu", ["x"], ["leaky"]), node("Elu", ["leaky"], ["elu"], alpha=0.5),
            node("Selu", ["elu"], ["selu"]),
            node("HardSigmoid", ["selu"], ["hard"]), node("Softplus", ["hard"], ["plus"]),
            node("Softsign", ["plus"], ["sign"]),
            node("Sigmoid", ["sign"], ["sigmoid"]), node("Tanh", ["sigmoid"], ["tanh"]), node("Exp", ["tanh"], ["exp"]),
            node("Log", ["exp"], ["log"]), node("Neg", ["log"], ["neg"]), node("Relu", ["neg"], ["y"]),
        ],
        {"x": IMAGE}, (7, 13, 14, 16),
    ),
    "slopes": Case([node("PRelu", ["x", "slope"], ["y"])], {"x": IMAGE}, (7, 9, 16),
        weights={"slope": floats(3, 1, 1)}),
    "shapes": Case(
        [
            node("Shape", ["x"], ["shape"]), node("Size", ["x"], ["size"]), node("Flatten", ["x"], ["flat"], axis=2),
            node("Transpose", ["x"], ["turned"], perm=[3, 1, 0, 2]), node("Reshape", ["turned", "to"], ["reshaped"]),
            node("Concat", ["reshaped", "reshaped"], ["both"], axis=1), node("Tile", ["both", "times"], ["tiled"]),
            node("Expand", ["w", "shape"], ["spread"]), node("Gather", ["x", "places"], ["y"], axis=1),
        ],
        {"x": IMAGE}, (8, 11, 13, 14),
        weights={"to": np.array([0, -1]), "times": np.array([2, 1]), "w": floats(7), "places": np.array([2, 0])},
    ),
    "flatten from the front": Case([node("Flatten", ["x"], ["y"], axis=0)], {"x": IMAGE}, (7, 9, 11, 13)),
    "convolution": Case(
        [node("Conv", ["x", "w", "b"], ["y"], strides=[2, 1], dilations=[1, 2], pads=[1, 0, 0, 2])], {"x": IMAGE},
        (7, 11, 17),
        weights={"w": KERNEL, "b": floats(4)},
    ),
    "convolution to the same size": Case(
        [node("Conv", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_LOWER")], {"x": IMAGE}, (7, 11),
        weights={"w": KERNEL}
    ),
    "convolution turned round": Case(
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER")], {"x": IMAGE}, (7, 11),
        weights={"w": floats(3, 2, 3, 3)},
    ),
    "convolution turned round to a shape": Case(
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[11, 14])], {"x": IMAGE}, (7, 11),
        weights={"w": floats(3, 2, 3, 3)},
    ),
    "maxima": Case(
        [node("MaxPool", ["x"], ["y", "z"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 0, 1])], {"x": IMAGE},
        (8, 10, 11, 12), ("y", "z"),
    ),
    "maxima to the same size": Case(
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")], {"x": IMAGE},
        (7, 11)
    ),
    "maxima rounded up": Case(
        [node("MaxPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1, dilations=[2, 1])],
        {"x": IMAGE},
        (10, 11, 12),
    ),
    "averages": Case(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
            count_include_pad=1)],
        {"x": IMAGE}, (7, 10, 11),
    ),
    "averages rounded up": Case(
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)],
        {"x": IMAGE}, (10, 11, 17),
    ),
    "norms of windows": Case(
        [node("LpPool", ["x"], ["y"], kernel_shape=[3, 2], strides=[2, 2], p=3, pads=[1, 0, 0, 1])], {"x": IMAGE},
        (7, 11),
    ),
    "whole maps": Case(
        [node("GlobalAveragePool", ["x"], ["mean"]), node("GlobalMaxPool", ["x"], ["y"])], {"x": IMAGE}, (7, 13)
    ),
    "neighbouring channels": Case([node("LRN", ["x"], ["y"], size=3)], {"x": IMAGE}, (7, 13)),
    "instances": Case(
        [node("InstanceNormalization", ["x", "scale", "bias"], ["y"])], {"x": IMAGE}, (7, 13),
        weights={"scale": floats(3), "bias": floats(3)},
    ),
    "depth to space": Case([node("DepthToSpace", ["x"], ["y"], blocksize=2)], {"x": floats(1, 8, 2, 3)}, (7, 11, 13)),
    "one of many": Case(
        [node("OneHot", ["x", "depth", "values"], ["y"], axis=1)], {"x": np.array([[0, 3], [-1, 9]])}, (9, 11),
        weights={"depth": np.array([4]), "values": np.float32([-1, 2])},
    ),
    "places": Case(
        [node("ArgMax", ["x"], ["top"], axis=1), node("ArgMin", ["x"], ["y"], axis=2, keepdims=0)],
        {"x": np.round(IMAGE)}, (7, 11, 12, 13),
    ),
    "quantised": Case(
        [node("QuantizeLinear", ["x", "step", "zero"], ["q"]), node("DequantizeLinear", ["q", "step", "zero"], ["y"])],
        {"x": IMAGE}, (10, 13, 17), weights={"step": np.float32(0.02), "zero": np.uint8(128)},
    ),
    "products": Case(
        [node("MatMul", ["x", "w"], ["m"]), node("Erf", ["m"], ["erf"]), node("Where", ["yes", "erf", "m"], ["y"])],
        {"x": IMAGE}, (9, 13, 16), weights={"w": floats(7, 2), "yes": np.array([True, False])},
    ),
}  # fmt: skip

for kind, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
    recurrent = {"w": floats(2, gates * 4, 3), "r": floats(2, gates * 4, 4), "b": floats(2, gates * 8)}
    CASES[f"recurrent {kind}"] = Case(
        [node(kind, ["x", "w", "r", "b"], ["y", "z"], hidden_size=4, direction="bidirectional")],
        {"x": floats(5, 2, 3)}, (7, 13, 14), ("y", "z"), recurrent,
    )  # fmt: skip
for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    op_type = f"Reduce{kind}"
    last = 12 if kind == "Sum" else 17
    CASES[f"{op_type} of all"] = Case([node(op_type, ["x"], ["y"], keepdims=0)], {"x": RANKED}, (7, 11, last))
    CASES[f"{op_type} of two"] = Case([node(op_type, ["x"], ["y"], axes=[1, 3])], {"x": RANKED}, (7, 11, last))
    CASES[f"{op_type} from the back"] = Case(
        [node(op_type, ["x"], ["y"], axes=[-1, 0], keepdims=0)], {"x": RANKED}, (11, last)
    )
for scales in ([1, 1, 2, 3], [1, 1, 0.6, 0.3], [1, 1, 1.7, 0.6], [1, 1, 0.45, 2.2]):
    for mode in ("nearest", "linear"):
        CASES[f"resize {mode} {scales}"] = Case(
            [node("Resize", ["x", "scales"], ["y"], mode=mode)],
            {"x": IMAGE},
            (10,),
            weights={"scales": np.float32(scales)},
        )
    CASES[f"resize by an input {scales}"] = Case(
        [node("Resize", ["x", "scales"], ["y"])], {"x": IMAGE, "scales": np.float32(scales)}, (10,)
    )
for transformation in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "tf_half_pixel_for_nn"):
    for mode in ("nearest", "linear", "cubic"):
        rules = {"coordinate_transformation_mode": transformation, "mode": mode}
        CASES[f"resize {mode} {transformation}"] = Case(
            [node("Resize", ["x", "roi", "scales"], ["y"], **rules)], {"x": IMAGE}, (11, 13, 17),
            weights={"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 1.6, 0.7])},
        )  # fmt: skip
        CASES[f"resize {mode} {transformation} to sizes"] = Case(
            [
                node("Constant", [], ["none"], value=numpy_helper.from_array(np.zeros(0, np.float32))),
                node("Resize", ["x", "none", "none", "sizes"], ["y"], **rules),
            ],
            {"x": IMAGE}, (11, 13, 17), weights={"sizes": np.array([2, 3, 9, 4])},
        )  # fmt: skip


@pytest.mark.parametrize("ranks", [True, False], ids=["ranks known", "ranks unknown"])
@pytest.mark.parametrize("name", CASES)
def test_older_sets(name: str, ranks: bool) -> None:
    case = CASES[name]
    for opset in case.opsets:
        before = graph_of(
            case.nodes, inputs=case.inputs, outputs=case.outputs, opset=opset, weights=case.weights, ranks=ranks
        )
        bytes_before = before.SerializeToString(deterministic=True)
        after = upgrade(before, where="a file")
        assert default_opset(after) == 18
        assert after.ir_version == 8
        same_values(before, after, case.inputs, case.tolerance)
        if ranks:
            checked(after)
        assert before.SerializeToString(deterministic=True) == bytes_before


def test_a_case_for_every_rewrite_that_onnxruntime_can_run() -> None:
    """Sets below 7 are computed by hand further down."""
    covered = {
        (each.op_type, version)
        for case in CASES.values()
        for each in case.nodes
        for opset in case.opsets
        for op_type, version in STEPS
        if op_type == each.op_type and opset < version
    }
    elsewhere = {("Softmax", 13), ("LogSoftmax", 13), ("Hardmax", 13), ("Scan", 9), ("ReduceLogSum", 18)}
    assert {step for step in STEPS if step[1] > 7} - elsewhere - covered == set()


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


# -- newer sets -------------------------------------------------------------------------------------------------------

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


# -- every change between two sets has been looked at -----------------------------------------------------------------

# Read one by one in onnx's own descriptions of both versions, and where these say too little, by what onnxruntime does.
# Only types were added, words changed, negative axes allowed, or an operand's broadcast widened:
WORDS_AND_TYPES = """
    Abs-13 Acos-22 Acosh-22 Add-13 Add-14 ArgMax-11 ArgMax-13 ArgMin-11 ArgMin-13 Asin-22 Asinh-22 Atan-22 Atanh-22
    AveragePool-11 BatchNormalization-15 Bernoulli-22 Cast-9 Cast-13 Cast-23 Cast-25 Cast-28 CastLike-23 CastLike-25
    Ceil-13 Celu-28 Clip-12 Clip-13 Compress-11 Compress-28 Concat-11 Concat-13 Constant-9 Constant-13 Constant-23
    Constant-24 Constant-25 ConstantOfShape-23 ConstantOfShape-24 ConstantOfShape-25 Conv-11 Conv-22 ConvTranspose-22
    Cos-22 Cosh-22 CumSum-14 DeformConv-22 DepthToSpace-13 DepthToSpace-28 DequantizeLinear-24 DequantizeLinear-25
    DequantizeLinear-28 Det-22 Div-13 Div-14 Dropout-13 Dropout-22 Einsum-28 Elu-22 Equal-11 Equal-13 Erf-13 Exp-13
    Expand-13 EyeLike-22 Flatten-9 Flatten-11 Flatten-13 Flatten-23 Flatten-24 Flatten-25 Floor-13 GRU-22 Gather-11
    Gather-13 GatherElements-13 GatherND-13 Gemm-9 Gemm-13 GlobalAveragePool-22 GlobalLpPool-22 GlobalMaxPool-22
    Greater-9 Greater-13 GreaterOrEqual-16 GridSample-22 HardSigmoid-22 HardSwish-22 Hardmax-11 Identity-13 Identity-14
    Identity-16 Identity-23 Identity-24 Identity-25 If-11 If-13 If-16 If-23 If-24 If-25 InstanceNormalization-22
    IsNaN-13 LRN-13 LSTM-22 LeakyRelu-16 Less-9 Less-13 LessOrEqual-16 Log-13 LogSoftmax-11 Loop-11 Loop-13 Loop-16
    Loop-23 Loop-24 Loop-25 LpNormalization-22 LpPool-11 LpPool-22 MatMul-9 MatMul-13 Max-8 Max-12 Max-13 MaxPool-11
    MaxPool-12 MaxRoiPool-22 MaxUnpool-11 MaxUnpool-22 Mean-8 Mean-13 MeanVarianceNormalization-13 Min-8 Min-12 Min-13
    Mish-22 Mod-13 Mul-13 Mul-14 Multinomial-22 Neg-13 NegativeLogLikelihoodLoss-13 NegativeLogLikelihoodLoss-22
    NonMaxSuppression-11 NonZero-13 OneHot-28 Optional-28 OptionalGetElement-18 OptionalGetElement-28
    OptionalHasElement-28 PRelu-9 PRelu-16 Pad-13 Pad-23 Pad-24 Pad-25 Pow-12 Pow-13 Pow-15 QuantizeLinear-24
    QuantizeLinear-25 QuantizeLinear-28 RNN-22 RandomNormal-22 RandomNormalLike-22 RandomUniform-22
    RandomUniformLike-22 Reciprocal-13 ReduceL1-11 ReduceL1-13 ReduceL2-11 ReduceL2-13 ReduceLogSum-11 ReduceLogSum-13
    ReduceLogSum-28 ReduceLogSumExp-11 ReduceLogSumExp-13 ReduceLogSumExp-28 ReduceMax-11 ReduceMax-12 ReduceMax-13
    ReduceMean-11 ReduceMean-13 ReduceMin-11 ReduceMin-12 ReduceMin-13 ReduceProd-11 ReduceProd-13 ReduceSum-11
    ReduceSumSquare-11 ReduceSumSquare-13 Relu-13 Relu-14 Reshape-13 Reshape-23 Reshape-24 Reshape-25
    ReverseSequence-28 RoiAlign-22 Round-22 Scan-11 Scan-16 Scan-23 Scan-24 Scan-25 ScatterElements-13
    ScatterElements-18 ScatterND-13 ScatterND-18 Selu-22 Shape-13 Shape-23 Shape-24 Shape-25 Sigmoid-13 Sign-13 Sin-22
    Sinh-22 Size-13 Size-23 Size-24 Size-25 Slice-11 Slice-13 Softmax-11 SoftmaxCrossEntropyLoss-13 Softplus-22
    Softsign-22 SpaceToDepth-13 Split-11 SplitToSequence-24 Sqrt-13 Squeeze-11 Squeeze-23 Squeeze-24 Squeeze-25 Sub-13
    Sub-14 Sum-8 Sum-13 Tan-22 Tanh-13 ThresholdedRelu-22 Tile-13 TopK-24 Transpose-13 Transpose-23 Transpose-24
    Transpose-25 Unique-28 Unsqueeze-11 Unsqueeze-23 Unsqueeze-24 Unsqueeze-25 Where-16
"""
# An attribute or operand was added, or may be left out now; left out, it means what was meant before:
ADDED = """
    ArgMax-12 ArgMin-12 AveragePool-10 Cast-24 CastLike-24 Constant-11 Constant-12 DepthToSpace-11 DequantizeLinear-13
    DequantizeLinear-23 Dropout-10 GRU-14 GatherND-12 Gemm-11 LSTM-14 LpPool-18 MaxPool-8 MaxPool-10
    OptionalHasElement-18 Pad-18 QuantizeLinear-13 QuantizeLinear-23 RNN-14 Range-27 Reshape-14 Resize-13
    ScatterElements-16 ScatterND-16 Shape-15 SpaceToDepth-28 TopK-11
"""
# The description changed its meaning, yet not what onnxruntime computes of a file that both versions accept:
RUNTIME_AGREES = {
    "AveragePool-22": "windows that begin in the padding at the end are left out, as they were",
    "BitShift-28": "shifts of signed numbers, which set 11 does not have",
    "ConvTranspose-11": "the odd pad of SAME_UPPER changed sides in the text only",
    "MaxPool-22": "windows that begin in the padding at the end are left out, as they were",
    "Mod-28": "remainders of real numbers towards minus infinity, which set 13 refuses",
    "OneHot-11": "negative indices count from the end, as they did",
}
# Written out by their bodies, whichever version:
WRITTEN_OUT = {"Attention-24", "Attention-25"}


def test_every_change_of_an_operator_has_been_looked_at() -> None:
    changes = set()
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and (7 < schema.since_version <= 18 or schema.since_version >= 22):
            earlier = schema.since_version - 1
            if defs.has(schema.name, earlier, ""):
                changes.add((schema.name, schema.since_version))
    plain = {*WORDS_AND_TYPES.split(), *ADDED.split(), *RUNTIME_AGREES, *WRITTEN_OUT}
    labels = {f"{name}-{version}" for name, version in changes if (name, version) not in STEPS}
    assert labels - plain == set(), "new changes: read them, then list them or write a rewrite"
    if defs.onnx_opset_version() == 28:
        assert plain - labels == set()
    for name, version in changes:
        if f"{name}-{version}" in plain and version <= 18:
            assert incompatibility(name, version) == "", (name, version)
    for label in WORDS_AND_TYPES.split():
        name, version = label.rsplit("-", 1)
        if int(version) <= defs.onnx_opset_version():
            now, before = defs.get_schema(name, int(version), ""), defs.get_schema(name, int(version) - 1, "")
            assert set(now.attributes) == set(before.attributes), label
            assert (now.max_input, now.max_output) == (before.max_input, before.max_output), label


# -- refusals ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], tuple[str, ...]]] = {
    "an operator without a body": (
        lambda: graph_of([node("CumProd", ["x", "a"], ["y"], name="here")], inputs={"x": IMAGE}, outputs=["y"],
            opset=26, weights={"a": np.array(0)}),
        ("'here'", "CumProd", "'ai.onnx'", "26"),
    ),
    "an attribute that set 21 lacks": (
        lambda: graph_of(
            [node("DequantizeLinear", ["x", "s"], ["y"], output_dtype=TensorProto.FLOAT16)],
            inputs={"x": ints(0, 9, 4)}, outputs=["y"], opset=23, weights={"s": np.float32(1)},
        ),
        ("'DequantizeLinear #0'", "DequantizeLinear", "'ai.onnx'", "23", "'output_dtype'"),
    ),
    "training": (
        lambda: graph_of([node("BatchNormalization", NORMALIZED, ["y", "m", "v", "sm", "sv"], name="bn")],
            inputs={"x": IMAGE}, outputs=["y"], opset=9, weights=CHANNELS),
        ("'bn'", "BatchNormalization", "'ai.onnx'", "version 9", "training"),
    ),
    "training before set 7": (
        lambda: graph_of([node("BatchNormalization", NORMALIZED, ["y"], name="bn")], inputs={"x": IMAGE},
            outputs=["y"], opset=6, weights=CHANNELS),
        ("'bn'", "BatchNormalization", "version 6", "training"),
    ),
    "ranks unknown": (
        lambda: graph_of([node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)], inputs={"x": IMAGE}, outputs=["y"],
            opset=6, weights={"w": floats(3)}, ranks=False),
        ("'Add #0'", "Add", "version 6", "ranks"),
    ),
    "sequences of different lengths": (
        lambda: graph_of([node("Scan", ["n", "x"], ["y"], num_scan_inputs=1,
            body=helper.make_graph([node("Neg", ["a"], ["b"])], "g", [described("a", floats(3))],
                [described("b", floats(3))]))], inputs={"n": np.array([1]), "x": floats(1, 4, 3)}, outputs=["y"],
                opset=8),
        ("'Scan #0'", "Scan", "version 8", "lengths"),
    ),
    "a changed schema without a rewrite": (
        lambda: graph_of([node("Tile", ["x", "n", "a"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=5,
            weights={"n": np.float32(2), "a": np.float32(1)}),
        ("'Tile #0'", "Tile", "version 1", "number of inputs"),
    ),
    "an operator before its time": (
        lambda: graph_of([node("Mish", ["x"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=13),
        ("'Mish #0'", "Mish", "does not have it"),
    ),
    "newer than the onnx package": (
        lambda: graph_of([node("Relu", ["x"], ["y"])], inputs={"x": IMAGE}, outputs=["y"], opset=99),
        ("ai.onnx", "99", "newer"),
    ),
    "a type that set 21 lacks": (
        lambda: graph_of([node("Cast", ["x"], ["y"], to=TensorProto.FLOAT4E2M1)], inputs={"x": IMAGE}, outputs=["y"],
            opset=23),
        ("'Cast #0'", "Cast", "version 23", "type"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    model, parts = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError) as refused:
        upgrade(model(), where="net.onnx")
    message = str(refused.value)
    for part in ("net.onnx", *parts, "operator set 18 to 21"):
        assert part in message


# -- real networks ----------------------------------------------------------------------------------------------------


def real_network(before: onnx.ModelProto) -> None:
    shapes = {
        value.name: [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
        for value in real_inputs(before.graph)
    }
    generator = np.random.default_rng(0)
    feeds = {}
    for value in real_inputs(before.graph):
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        numbers = generator.uniform(0, 1 if kind.kind == "f" else 120, shapes[value.name])
        feeds[value.name] = numbers.astype(kind)
    after = upgrade(before, where="a file")
    assert 18 <= default_opset(after) <= 21
    onnx.checker.check_model(after, full_check=True)
    same_values(before, after, feeds)
    written = decompose(after, where="a file")
    assert written.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)

    skeleton, detached = onnx.ModelProto(), onnx.ModelProto()
    skeleton.CopyFrom(before)
    weights = detach_weights(skeleton)
    assert weights
    detached.CopyFrom(written)
    assert detach_weights(detached).keys() == weights.keys()
    from_skeleton = decompose(upgrade(skeleton, where="a file"), where="a file")
    assert from_skeleton.SerializeToString(deterministic=True) == detached.SerializeToString(deterministic=True)


@pytest.mark.parametrize("model", ZOO, ids=lambda model: model.name)
def test_zoo(model: Any, zoo: Path) -> None:
    real_network(onnx.load(model.path(zoo)))


MANY_WEIGHTS = ("light_bvlc_alexnet", "light_resnet50", "light_vgg19", "light_zfnet512")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[pytest.mark.slow] if path.stem in MANY_WEIGHTS else [])
        for path in sorted(LIGHT.glob("light_*.onnx"))
    ],
)
def test_light_models(name: str) -> None:
    real_network(with_random_weights(onnx.load(LIGHT / f"{name}.onnx"), seed=0))


@pytest.mark.parametrize("path", sorted(LIGHT.glob("light_*.onnx")), ids=lambda path: path.stem)
def test_light_models_as_they_come(path: Path) -> None:
    """Their weights come from ConstantOfShape: small files whose graphs hold every operator of the nine networks."""
    before = onnx.load(path)
    after = upgrade(before, where="a file")
    assert (default_opset(before), default_opset(after)) == (9, 18)
    assert set(made_by(before)) <= set(made_by(after))
    assert len(after.graph.input) == 1
    onnx.checker.check_model(after, full_check=True)


# -- fused and quantised operators ------------------------------------------------------------------------------------

MICROSOFT = "com.microsoft"


def contributed(op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return node(op_type, inputs, outputs, domain=MICROSOFT, **attributes)


TOKENS = floats(2, 5, 8)
FUSED: dict[str, Case] = {
    "gelu": Case([contributed("Gelu", ["x"], ["y"])], {"x": TOKENS}, (18, 21)),
    "gelu of a sum": Case([contributed("BiasGelu", ["x", "b"], ["y"])], {"x": TOKENS}, (18, 21),
        weights={"b": floats(8)}),
    "fast gelu": Case([contributed("FastGelu", ["x"], ["y"])], {"x": TOKENS}, (18, 21)),
    "fast gelu of a sum": Case([contributed("FastGelu", ["x", "b"], ["y"])], {"x": TOKENS}, (18,),
        weights={"b": floats(8)}),
    "quick gelu": Case([contributed("QuickGelu", ["x"], ["y"], alpha=1.3)], {"x": TOKENS}, (18, 21)),
    "quick gelu as it comes": Case([contributed("QuickGelu", ["x"], ["y"])], {"x": TOKENS}, (18,)),
    "skip": Case(
        [contributed("SkipLayerNormalization", ["x", "s", "g", "b", "c"], ["y", "", "", "sum"], epsilon=0.01)],
        {"x": TOKENS, "s": floats(2, 5, 8)}, (18, 21), ("y", "sum"), {"g": floats(8), "b": floats(8), "c": floats(8)},
    ),
    "skip without biases": Case(
        [contributed("SkipLayerNormalization", ["x", "s", "g"], ["y"])], {"x": TOKENS, "s": floats(2, 5, 8)}, (18,),
        weights={"g": floats(8)},
    ),
    "simplified skip": Case(
        [contributed("SkipSimplifiedLayerNormalization", ["x", "s", "g", "c"], ["y", "", "", "sum"], epsilon=0.01)],
        {"x": TOKENS, "s": floats(2, 5, 8)}, (18, 21), ("y", "sum"), {"g": floats(8), "c": floats(8)},
    ),
    "simplified": Case(
        [node("SimplifiedLayerNormalization", ["x", "g"], ["y"], axis=-1, epsilon=0.01)], {"x": TOKENS}, (18, 21),
        weights={"g": floats(8)},
    ),
    "gemm": Case(
        [contributed("FusedGemm", ["x", "w", "b"], ["y"], transB=1, alpha=0.5, activation="Relu")],
        {"x": floats(3, 4)}, (18,),
        weights={"w": floats(5, 4), "b": floats(5)},
    ),
    "gemm and leaky": Case(
        [contributed("FusedGemm", ["x", "w", "b"], ["y"], activation="LeakyRelu", activation_alpha=0.3)],
        {"x": floats(3, 4)}, (18,), weights={"w": floats(4, 5), "b": floats(5)},
    ),
}  # fmt: skip
for activation, numbers in (
    ("", []), ("Relu", []), ("Sigmoid", []), ("Tanh", []), ("LeakyRelu", [0.3]), ("Clip", [-0.4, 0.6]),
    ("HardSigmoid", [0.3, 0.4]),
):  # fmt: skip
    stated = {"activation": activation, "activation_params": numbers} if activation else {}
    if not numbers:
        stated.pop("activation_params", None)
    for added in ((), ("z",)):
        CONVOLVED = {"x": IMAGE, **({"z": floats(2, 4, 6, 7)} if added else {})}
        FUSED[f"convolution {activation} {added}"] = Case(
            [contributed("FusedConv", ["x", "w", "b", *added], ["y"], pads=[1, 1, 1, 1], **stated)], CONVOLVED,
            (18, 21),
            weights={"w": KERNEL, "b": floats(4)},
        )  # fmt: skip
for first, second, flags in (
    ((2, 3, 4), (2, 4, 5), {}), ((2, 4, 3), (2, 4, 5), {"transA": 1}),
    ((2, 3, 4), (5, 4), {"transB": 1, "alpha": 0.25}),
    ((4, 3), (5, 4), {"transA": 1, "transB": 1}), ((2, 1, 4, 3), (2, 6, 4, 5), {"transA": 1}),
):  # fmt: skip
    FUSED[f"product {first} {second} {flags}"] = Case(
        [contributed("FusedMatMul", ["x", "w"], ["y"], **flags)], {"x": floats(*first), "w": floats(*second)}, (18, 21)
    )


@pytest.mark.parametrize("ranks", [True, False], ids=["ranks known", "ranks unknown"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_operators(name: str, ranks: bool) -> None:
    case = FUSED[name]
    for opset in case.opsets:
        before = graph_of(
            case.nodes, inputs=case.inputs, outputs=case.outputs, opset=opset, weights=case.weights, ranks=ranks,
            domains=[MICROSOFT],
        )  # fmt: skip
        after = decompose(before, where="a file")
        assert default_opset(after) == opset
        assert all(each.domain == "" and defs.has(each.op_type, opset, "") for each in after.graph.node)
        same_values(before, after, case.inputs, 2e-6)
        if ranks:
            checked(after)
            assert "CastLike" not in {each.op_type for each in after.graph.node}


STEP, ZERO = np.float32(0.03), np.uint8(120)
Q_IMAGE, Q_OTHER = ints(0, 256, 2, 3, 6, 7), ints(0, 256, 2, 3, 6, 7)
PER_CHANNEL = np.float32([0.01, 0.02, 0.03, 0.015])
ENDS = {"xs": np.float32(0.02), "xz": np.uint8(128), "ys": np.float32(0.05), "yz": np.uint8(100)}
QUANTISED: dict[str, Case] = {
    "convolution": Case(
        [node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], pads=[1, 1, 1, 1])],
        {"x": Q_IMAGE},
        (18, 21),
        weights={**ENDS, "w": ints(-100, 100, 4, 3, 3, 3, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "convolution with one scale": Case(
        [node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], strides=[2, 2])],
        {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "w": ints(0, 200, 4, 3, 3, 3), "ws": np.float32(0.01), "wz": np.uint8(99),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "product": Case(
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])], {"x": ints(0, 256, 2, 3, 8)},
        (18, 21),
        weights={**ENDS, "w": ints(0, 256, 8, 5), "ws": np.float32(0.01), "wz": np.uint8(130)},
    ),
    "product by columns": Case(
        [node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])], {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(-99, 99, 8, 4, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8)},
    ),
    "gemm": Case(
        [contributed("QGemm", ["x", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"], ["y"], transB=1)],
        {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(-99, 99, 4, 8, kind=np.int8), "ws": PER_CHANNEL, "wz": np.zeros(4, np.int8),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "gemm to real numbers": Case(
        [contributed("QGemm", ["x", "xs", "xz", "w", "ws", "wz", "b"], ["y"], alpha=0.5)], {"x": ints(0, 256, 3, 8)},
        (18,),
        weights={**ENDS, "w": ints(0, 256, 8, 4), "ws": np.float32(0.01), "wz": np.uint8(130),
                 "b": ints(-2000, 2000, 4, kind=np.int32)},
    ),
    "concatenation": Case(
        [contributed("QLinearConcat", ["ys", "yz", "x", "xs", "xz", "z", "zs", "zz"], ["y"], axis=1)],
        {"x": Q_IMAGE, "z": Q_OTHER}, (18, 21), weights={**ENDS, "zs": STEP, "zz": ZERO},
    ),
    "leaky": Case(
        [contributed("QLinearLeakyRelu", ["x", "xs", "xz", "ys", "yz"], ["y"], alpha=0.2)], {"x": Q_IMAGE}, (18,),
        weights=ENDS
    ),
    "sigmoid": Case(
        [contributed("QLinearSigmoid", ["x", "xs", "xz", "s", "yz"], ["y"])], {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "s": np.float32(1 / 256), "yz": np.uint8(0)},
    ),
    "mean": Case(
        [contributed("QLinearGlobalAveragePool", ["x", "xs", "xz", "s", "yz"], ["y"])], {"x": Q_IMAGE}, (18,),
        weights={**ENDS, "s": np.float32(0.01)},
    ),
    "means": Case(
        [contributed("QLinearAveragePool", ["x", "xs", "xz", "ys", "yz"], ["y"], kernel_shape=[3, 3], strides=[2, 2],
                     pads=[1, 1, 1, 1])],
        {"x": Q_IMAGE}, (18,), weights=ENDS,
    ),
}  # fmt: skip
for kind in ("Add", "Mul"):
    QUANTISED[f"QLinear{kind}"] = Case(
        [contributed(f"QLinear{kind}", ["x", "xs", "xz", "z", "zs", "zz", "ys", "yz"], ["y"])],
        {"x": Q_IMAGE, "z": Q_OTHER}, (18, 21), weights={**ENDS, "zs": STEP, "zz": ZERO},
    )  # fmt: skip


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_operators(name: str) -> None:
    case = QUANTISED[name]
    for opset in case.opsets:
        before = graph_of(
            case.nodes, inputs=case.inputs, outputs=["y"], opset=opset, weights=case.weights, domains=[MICROSOFT]
        )
        after = decompose(before, where="a file")
        assert all(
            each.domain == "" and (each.op_type == "QuantizeLinear" or not each.op_type.startswith("Q"))
            for each in after.graph.node
        )
        expected, got = run(before, case.inputs)["y"], run(after, case.inputs)["y"]
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
            continue
        assert len(np.unique(expected)) > 4
        off = np.abs(got.astype(int) - expected.astype(int))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.05
        checked(after)


def test_missing_zero_points_are_zeros_of_the_operands_type() -> None:
    """onnxruntime itself ends the process on some such files: computed by hand."""
    x, z = (ints(-99, 99, 20, 30, kind=np.int8) for _ in range(2))
    sum_of_both = contributed("QLinearAdd", ["x", "xs", "", "z", "zs", "", "ys"], ["y"])
    scales = {"xs": np.float32(0.02), "zs": np.float32(0.03), "ys": np.float32(0.05)}
    model = graph_of(
        [sum_of_both], inputs={"x": x, "z": z}, outputs=["y"], opset=18, weights=scales, domains=[MICROSOFT]
    )
    got = run(decompose(model, where="a file"), {"x": x, "z": z})["y"]
    expected = np.rint((x * scales["xs"] + z * scales["zs"]) / scales["ys"])
    assert got.dtype == np.int8
    assert np.abs(got - expected).max() <= 1
    assert (got != expected).mean() < 0.05


def test_unknown_operators_stay() -> None:
    before = graph_of(
        [contributed("QLinearSoftmax", ["x", "s", "z", "s", "z"], ["y"], axis=1, opset=13)],
        inputs={"x": Q_IMAGE}, outputs=["y"], opset=18, weights={"s": STEP, "z": ZERO}, domains=[MICROSOFT],
    )  # fmt: skip
    assert list(decompose(before, where="a file").graph.node) == list(before.graph.node)


CANNOT: dict[str, tuple[onnx.NodeProto, str]] = {
    "batch": (contributed("FusedMatMul", ["x", "x"], ["y"], transBatchA=1, name="here"), "transBatch"),
    "activation": (contributed("FusedConv", ["x", "w"], ["y"], activation="Mystery", name="here"), "'Mystery'"),
    "channels": (
        contributed("QLinearGlobalAveragePool", ["x", "s", "z", "s", "z"], ["y"], channels_last=1, name="here"),
        "last",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_decomposed(name: str) -> None:
    one, reason = CANNOT[name]
    model = graph_of(
        [one],
        inputs={"x": IMAGE},
        outputs=["y"],
        opset=18,
        weights={"w": KERNEL, "s": STEP, "z": ZERO},
        domains=[MICROSOFT],
    )
    with pytest.raises(UnsupportedOperatorError) as refused:
        decompose(model, where="net.onnx")
    for part in ("net.onnx", "'here'", one.op_type, "'com.microsoft'", "version 1", reason):
        assert part in str(refused.value)


# -- branches ---------------------------------------------------------------------------------------------------------


def branch_of(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], **weights: np.ndarray) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "branch", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip


@pytest.mark.parametrize("condition", [True, False])
def test_a_known_branch_takes_the_place_of_its_if(condition: bool) -> None:
    """Weights, captured values, a weight handed on as it is, and a nested If of the same condition."""
    inner = node(
        "If", ["known"], ["in"],
        then_branch=branch_of([node("Mul", ["x", "t"], ["deep"], name="n")], ["deep"]),
        else_branch=branch_of([node("Sub", ["x", "outer"], ["deep"], name="n")], ["deep"]),
    )  # fmt: skip
    then = branch_of(
        [
            node("Add", ["x", "w"], ["t"], name="n"),
            inner,
            node("Relu", ["in"], ["a"]),
            node("Abs", ["outer"], ["other"]),
        ],
        ["a", "t", "other", "w"],
        w=floats(7),
    )
    otherwise = branch_of(
        [node("Add", ["outer", "w"], ["t"], name="n"), node("Neg", ["t"], ["b"]), node("Abs", ["x"], ["other"])],
        ["t", "b", "other", "w"],
        w=floats(1),
    )
    results = ["y", "z", "p", "q"]
    nodes = [
        node("Exp", ["x"], ["outer"], name="n"),
        node("Cast", ["flag"], ["known"], to=TensorProto.BOOL),
        node("If", ["known"], results, then_branch=then, else_branch=otherwise),
        # The same names within, once more.
        node("If", ["known"], ["again", "again_z", "again_p", "last"], then_branch=then, else_branch=otherwise),
        node("Add", ["y", "again"], ["all"]),
    ]
    for each in nodes[2:4]:
        for body in subgraphs(each):
            for inside in all_nodes(body):
                inside.name = ""
    inputs = {"x": IMAGE}
    before = graph_of(
        nodes, inputs=inputs, outputs=["all", *results, "last"], opset=18, weights={"flag": np.array(int(condition))}
    )
    after = decompose(before, where="a file")
    assert "If" not in {each.op_type for each in after.graph.node}
    same_values(before, after, inputs)
    names = [*made_by(after), *(tensor.name for tensor in after.graph.initializer)]
    assert len(set(names)) == len(names)
    assert "w" in names  # the first to come keeps its name
    checked(after)


def test_values_that_a_branch_hands_on() -> None:
    """One from outside, which onnxruntime refuses, and one twice, of which onnxruntime loses one: computed by hand."""
    nodes = [
        node("Neg", ["x"], ["outer"]),
        node(
            "If", ["known"], ["y", "z", "p"], else_branch=branch_of([], ["x", "x", "x"]),
            then_branch=branch_of([node("Exp", ["x"], ["exp"])], ["exp", "outer", "exp"]),
        ),
    ]  # fmt: skip
    before = graph_of(nodes, inputs={"x": IMAGE}, outputs=["y", "z", "p"], opset=18, weights={"known": np.array(True)})
    after = decompose(before, where="a file")
    assert [each.op_type for each in after.graph.node] == ["Neg", "Exp", "Identity", "Identity"]
    got = run(after, {"x": IMAGE})
    np.testing.assert_array_equal(got["z"], -IMAGE)
    np.testing.assert_array_equal(got["p"], got["y"])
    np.testing.assert_allclose(got["y"], np.exp(IMAGE), rtol=1e-6)


def test_names_of_nodes_stay_unique() -> None:
    """onnxruntime refuses a graph in which two nodes share a name, as nodes of different branches may."""

    def chosen(result: str) -> onnx.NodeProto:
        return node(
            "If", ["known"], [result], then_branch=branch_of([node("Neg", ["x"], [f"{result}_neg"], name="same")],
                [f"{result}_neg"]),
            else_branch=branch_of([node("Exp", ["x"], [f"{result}_exp"], name="same")], [f"{result}_exp"]),
        )  # fmt: skip

    inputs = {"x": IMAGE}
    model = graph_of(
        [chosen("y"), chosen("z")], inputs=inputs, outputs=["y", "z"], opset=18, weights={"known": np.array(True)}
    )
    got = run(decompose(model, where="a file"), inputs)
    np.testing.assert_array_equal(got["y"], -IMAGE)
    np.testing.assert_array_equal(got["z"], -IMAGE)


def test_an_open_condition_stays() -> None:
    chosen = node(
        "If", ["c"], ["y"], then_branch=branch_of([contributed("Gelu", ["x"], ["a"])], ["a"]),
        else_branch=branch_of([node("Neg", ["x"], ["b"])], ["b"]),
    )  # fmt: skip
    for condition in (True, False):
        inputs = {"x": IMAGE, "c": np.array(condition)}
        before = graph_of([chosen], inputs=inputs, outputs=["y"], opset=18, domains=[MICROSOFT])
        after = decompose(before, where="a file")
        assert [each.op_type for each in after.graph.node] == ["If"]
        assert {each.domain for each in all_nodes(after.graph)} == {""}
        same_values(before, after, inputs, 2e-6)
