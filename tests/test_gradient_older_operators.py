"""Operators of sets 7 to 17, one at a time, compute the same numbers when they are brought to set 18."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxviz.graph.gradient.upgrade import upgrade
from onnxviz.graph.gradient.upgrade_steps import STEPS
from onnxviz.graph.wiring import default_opset
from random_arrays import RandomArrays
from rewritten_graphs import CHANNELS, IMAGE, KERNEL, NORMALIZED, Case, checked, graph_of, same_values

node = helper.make_node
floats = RandomArrays(8).floats

WIDE = np.concatenate([floats(20), np.array([np.inf, -np.inf, 0.5, -0.5], np.float32)])
RANKED = floats(2, 3, 4, 5)
ELEMENTS = {name: np.abs(floats(3, 6, 7)) + np.float32(0.1) for name in ("scale", "bias", "mean", "variance")}

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
    """Sets below 7 are computed by hand, next door."""
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
