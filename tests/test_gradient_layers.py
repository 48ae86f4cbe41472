"""Derivatives of convolutions, of pools and of what makes numbers of one size: normalisations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from operator_cases import FORMS, Cases, check_derivatives, ints
from random_arrays import RandomArrays

node = helper.make_node
random = RandomArrays(0)
floats, within = random.floats, random.within
CASES = Cases()
case, affine = CASES.case, CASES.affine

# Windows.
for number, attributes in enumerate((
    {"pads": [1, 1, 1, 1]}, {"strides": [2, 2], "pads": [0, 0, 1, 1]}, {"dilations": [2, 2]},
    {"strides": [3, 2], "pads": [2, 0, 1, 3]}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 3]}, {"pads": [4, 4, 4, 4]}, {"auto_pad": "VALID"},
)):  # fmt: skip
    for groups in (1, 2, 4):
        image = {"x": floats(2, 4, 5, 6)}
        weights = {"w": floats(4, 4 // groups, 3, 3)}
        free = {"x": ["n", 4, "h", "w"]}
        given_attributes = {**attributes, "group": groups}
        affine(f"Conv-{number}-{groups}", "Conv", image, ["w"], constants=weights, free_sides=free,
               attributes=given_attributes)  # fmt: skip
        by_size = attributes.get("auto_pad", "VALID") != "VALID"
        affine(f"Conv-weights-{number}-{groups}", "Conv", image | weights | {"b": floats(4)}, wrt=["x", "w", "b"],
               free_sides=free, fixed=["w"], attributes=given_attributes,
               refused="paddings" if by_size else "")  # fmt: skip
affine(
    "Conv-1d", "Conv", {"x": floats(2, 2, 7)}, ["w"], constants={"w": floats(3, 2, 3)}, free_sides={"x": ["n", 2, "l"]}
)
affine("Conv-3d", "Conv", {"x": floats(1, 2, 3, 4, 3)}, ["w"], constants={"w": floats(2, 2, 2, 2, 2)},
       free_sides={"x": ["n", 2, "d", "h", "w"]}, attributes={"strides": [1, 2, 1]})  # fmt: skip
for number, attributes in enumerate((
    {}, {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    {"strides": [2, 3], "dilations": [2, 1], "pads": [0, 1, 2, 0]},
)):  # fmt: skip
    affine(f"ConvTranspose-{number}", "ConvTranspose", {"x": floats(2, 4, 4, 3), "b": floats(6)}, wrt=["x", "b"],
           fixed=["b"], attributes={**attributes, "group": 2}, free_sides={"x": ["n", 4, "h", "w"]},
           constants={"w": floats(4, 3, 3, 3)})  # fmt: skip
    CASES[f"ConvTranspose-{number}"].nodes[0].input[:] = ["x", "w", "b"]
for number, attributes in enumerate((
    {"kernel_shape": [2, 2], "strides": [2, 2]}, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"kernel_shape": [2, 3]},
)):  # fmt: skip
    image, free = {"x": floats(2, 2, 7, 6)}, {"x": ["n", 2, "h", "w"]}
    case(f"MaxPool-{number}", node("MaxPool", ["x"], ["y"], **attributes), image, free_sides=free)
    affine(f"AveragePool-{number}", "AveragePool", image, attributes=attributes, free_sides=free)
    affine(f"AveragePool-padded-{number}", "AveragePool", image, free_sides=free,
           attributes={**attributes, "count_include_pad": 1})  # fmt: skip
case("MaxPool-indices", node("MaxPool", ["x"], ["y", "places"], kernel_shape=[3], strides=[2]), {"x": floats(2, 2, 7)})
case("MaxPool-dilated", node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2]), {"x": floats(1, 2, 5, 5)})
affine("GlobalAveragePool", "GlobalAveragePool", {"x": floats(2, 2, 3, 4)})
case("GlobalMaxPool", node("GlobalMaxPool", ["x"], ["y"]), {"x": floats(2, 2, 3, 4)})


# Normalisations.
def standardised(axes: Sequence[int], epsilon: float, *, outside: bool = False) -> list[onnx.NodeProto]:
    """``v`` to ``normed`` step by step; epsilon is added to the variance or, outside, to its root."""
    constants = {"axes": ints(*axes), "epsilon": np.array(epsilon, np.float64)}
    sums = [("Add", "variance", "shifted"), ("Sqrt", "shifted", "spread")]
    if outside:
        sums = [("Sqrt", "variance", "shifted"), ("Add", "shifted", "spread")]
    return [
        *(node("Constant", [], [name], value=numpy_helper.from_array(held)) for name, held in constants.items()),
        node("ReduceMean", ["v", "axes"], ["mean"]), node("Sub", ["v", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["square"]), node("ReduceMean", ["square", "axes"], ["variance"]),
        *(node(op, [given, "epsilon"][: 1 + (op == "Add")], [made]) for op, given, made in sums),
        node("Div", ["centred", "spread"], ["normed"]),
    ]  # fmt: skip


def viewed(value: str, made: str, *shape: int) -> list[onnx.NodeProto]:
    return [
        node("Constant", [], [f"{made}_shape"], value_ints=shape),
        node("Reshape", [value, f"{made}_shape"], [made]),
    ]


def grouped(shape: Sequence[int], *, by_group: bool) -> list[onnx.NodeProto]:
    """GroupNormalization with two groups."""
    aligned = (2, 1) if by_group else (4, *[1] * (len(shape) - 2))
    whole = [] if by_group else viewed("normed", "restored", 2, 4, *shape[2:])
    return [
        *viewed("x", "v", 2, 2, -1), *standardised([2], 1e-2), *whole, *viewed("s", "scale", *aligned),
        *viewed("b", "bias", *aligned), node("Mul", ["normed" if by_group else "restored", "scale"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["moved"]), *viewed("moved", "y", 2, 4, *shape[2:]),
    ]  # fmt: skip


def local_response(shape: Sequence[int], size: int, alpha: float, beta: float, bias: float) -> list[onnx.NodeProto]:
    """LRN: sums over neighbouring channels by a band matrix."""
    places = np.arange(shape[1])
    apart = places[None] - places[:, None]
    band = (-((size - 1) // 2) <= apart) & (apart <= size // 2)
    numbers = {"band": band * (alpha / size), "bias": np.array(bias), "power": np.array(beta)}
    return [
        *(node("Constant", [], [name], value=numpy_helper.from_array(held)) for name, held in numbers.items()),
        node("Mul", ["x", "x"], ["square"]), *viewed("square", "rows", shape[0], shape[1], -1),
        node("MatMul", ["band", "rows"], ["sums"]), *viewed("sums", "maps", *shape),
        node("Add", ["maps", "bias"], ["inner"]),
        node("Pow", ["inner", "power"], ["divisor"]), node("Div", ["x", "divisor"], ["y"]),
    ]  # fmt: skip


channels = {"s": within(0.5, 1.5, 3), "b": floats(3)}
running = {"mean": floats(3), "variance": within(0.5, 2, 3)}
for shape in ((2, 3), (2, 3, 4), (2, 3, 2, 2), (1, 3, 2, 2, 2)):
    maps = {"x": floats(*shape)}
    nodes = [node("BatchNormalization", ["x", "s", "b", "mean", "variance"], ["y"], epsilon=1e-2)]
    case(f"BatchNormalization-{len(shape)}", nodes, maps | channels, wrt=["x", "s", "b"], constants=running,
         fixed=["s", "b"])  # fmt: skip
    case(f"BatchNormalization-stored-{len(shape)}", nodes, maps, constants=channels | running)
    if len(shape) > 2:
        nodes = [node("InstanceNormalization", ["x", "s", "b"], ["y"], epsilon=1e-2)]
        case(f"InstanceNormalization-{len(shape)}", nodes, maps | channels, wrt=["x", "s", "b"])
        groups = {"x": floats(2, 4, *shape[2:]), "s": within(0.5, 1.5, 2), "b": floats(2)}
        by_group = grouped(shape, by_group=True)
        nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=1e-2)]
        for opset in (18, 20):
            case(f"GroupNormalization-{opset}-{len(shape)}", nodes, groups, wrt=["x", "s", "b"], opset=opset,
                 fixed=["s", "b"], oracle=by_group)  # fmt: skip
        groups = {"x": floats(2, 4, *shape[2:]), "s": within(0.5, 1.5, 4), "b": floats(4)}
        case(f"GroupNormalization-21-{len(shape)}", nodes, groups, wrt=["x", "s", "b"], opset=21, fixed=["s", "b"],
             oracle=grouped(shape, by_group=False))  # fmt: skip
for axis in (-1, 1, 2, -3):
    maps = {"x": floats(2, 3, 4)}
    normed = maps["x"].shape[axis:]
    maps |= {"s": within(0.5, 1.5, *normed), "b": floats(*normed)}
    nodes = [node("LayerNormalization", ["x", "s", "b"], ["y"], axis=axis, epsilon=1e-2)]
    case(f"LayerNormalization-{axis}", nodes, maps, wrt=["x", "s", "b"])
case("LayerNormalization-plain", node("LayerNormalization", ["x", "s"], ["y"]), {"x": floats(3, 4)},
     constants={"s": floats(4)})  # fmt: skip
for axes in ([0, 2, 3], [1], [1, 2, 3], [-1]):
    steps = [node("Identity", ["x"], ["v"]), *standardised(axes, 1e-9, outside=True)]
    case(f"MeanVarianceNormalization-{axes}", node("MeanVarianceNormalization", ["x"], ["y"], axes=axes),
         {"x": floats(2, 3, 2, 3)}, oracle=[*steps, node("Identity", ["normed"], ["y"])])  # fmt: skip
for p in (1, 2):
    for axis in (-1, 0, 1):
        steps = [node("Constant", [], ["axis"], value_ints=[axis]), node(f"ReduceL{p}", ["x", "axis"], ["norm"])]
        case(f"LpNormalization-{p}-{axis}", node("LpNormalization", ["x"], ["y"], p=p, axis=axis),
             {"x": floats(2, 3, 4)}, oracle=[*steps, node("Div", ["x", "norm"], ["y"])])  # fmt: skip
for size, beta, shape in (
    (3, 0.75, (2, 5, 2, 3)),
    (5, 0.5, (1, 7, 2, 1)),
    (1, 0.75, (1, 3, 2, 2)),
    (7, 1.5, (1, 3, 1, 2)),
):
    nodes = [node("LRN", ["x"], ["y"], size=size, alpha=0.7, beta=beta, bias=1.5)]
    case(f"LRN-{size}", nodes, {"x": floats(*shape)}, oracle=local_response(shape, size, 0.7, beta, 1.5))
for op in ("Softmax", "LogSoftmax"):
    case(op, node(op, ["x"], ["y"]), {"x": floats(2, 3)})
    for axis, shape in ((0, (4,)), (1, (2, 3, 4)), (-2, (2, 3, 4)), (0, (2, 3))):
        case(f"{op}-{axis}-{len(shape)}", node(op, ["x"], ["y"], axis=axis), {"x": floats(*shape)})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str, form: str) -> None:
    check_derivatives(CASES[name], form)
