"""Every rule's derivative, operator by operator, against slopes of the operator itself or against torch.

Each case runs in three forms: with all sides fixed; with free sides of the inputs and the other values measured, as the
runtime does; with free sides everywhere, and then as onnxruntime optimises it. What is affine in an input is compared
with onnxruntime's own results for unit vectors, the rest with central differences of the reference evaluator in
float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gradient_cases import Arrays, differences, gradients, graph_of
from onnxviz.errors import UnsupportedOperatorError

node = helper.make_node
random = np.random.default_rng(0)


def floats(*shape: int, kind: type = np.float32) -> np.ndarray:
    return np.asarray(random.standard_normal(shape), kind)


def within(low: float, high: float, *shape: int, kind: type = np.float32) -> np.ndarray:
    return np.asarray(random.uniform(low, high, shape), kind)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# -- cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    nodes: Sequence[onnx.NodeProto]
    feeds: Arrays
    wrt: Sequence[str] = ("x",)
    constants: Arrays = field(default_factory=dict)
    opset: int = 18
    affine: bool = False
    """Each input by itself is mapped by an affine function."""
    pieces: bool = False
    """The same between kinks, which are at least 0.02 away: onnxruntime's own differences tell."""
    oracle: Sequence[onnx.NodeProto] = ()
    """The same function in other operators, where the reference evaluator is wrong or leaves float64."""
    kind: type = np.float32
    """Of the output."""
    tolerance: float = 2e-4
    step: float = 1e-5
    fixed: Sequence[str] = ()
    """Inputs whose sides are stated in all forms."""
    free_sides: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    """Instead of names for all sides."""
    refused: str = ""
    """Words of the refusal where all sides are free."""

    @functools.cached_property
    def target(self) -> str:
        return self.nodes[-1].output[0]

    def model(self, *, free: bool) -> onnx.ModelProto:
        sides: dict[str, Sequence[int | str]] = {}
        if free:
            names = {name: [f"{name}{axis}" for axis in range(array.ndim)] for name, array in self.feeds.items()}
            sides = {name: shape for name, shape in names.items() if name not in self.fixed} | dict(self.free_sides)
        return self.model_of(self.nodes, sides)

    def model_of(self, nodes: Sequence[onnx.NodeProto], sides: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
        model = graph_of(nodes, self.feeds, [self.target], constants=self.constants, opset=self.opset, sides=sides)
        model.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        return model

    @functools.cached_property
    def expected(self) -> tuple[dict[str, np.ndarray], Arrays]:
        """Slopes by name, and the seeds that they were taken with."""
        model = self.model(free=False)
        y = run_plainly(model, self.feeds)
        seeds = {self.target: np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)}
        if self.affine:
            return {name: unit_slopes(model, self.feeds, seeds[self.target], name) for name in self.wrt}, seeds
        if self.pieces:
            return {name: runtime_slopes(model, self.feeds, seeds[self.target], name) for name in self.wrt}, seeds
        if self.oracle:
            model = self.model_of(self.oracle, {})
        return {name: differences(model, self.feeds, seeds, name, step=self.step) for name in self.wrt}, seeds


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_plainly(model: onnx.ModelProto, feeds: Arrays) -> np.ndarray:
    return np.asarray(session_of(model).run(None, dict(feeds))[0])


def unit_slopes(model: onnx.ModelProto, feeds: Arrays, seed: np.ndarray, wrt: str) -> np.ndarray:
    """Derivative of Σ seed · y by an input that y is affine in: onnxruntime's results for unit vectors."""
    session = session_of(model)

    def total(array: np.ndarray) -> float:
        (y,) = session.run(None, {**feeds, wrt: array})
        return float(np.sum(np.asarray(y, np.float64) * seed))

    empty = np.zeros_like(feeds[wrt])
    base = total(empty)
    slopes = np.empty(empty.shape)
    for place in np.ndindex(*empty.shape):
        unit = empty.copy()
        unit[place] = 1
        slopes[place] = total(unit) - base
    return slopes


def runtime_slopes(model: onnx.ModelProto, feeds: Arrays, seed: np.ndarray, wrt: str) -> np.ndarray:
    """Central differences of onnxruntime's results, exact but for rounding where y is linear around the input."""
    session = session_of(model)
    slopes = np.empty(feeds[wrt].shape)
    for place in np.ndindex(*slopes.shape):
        totals = []
        for step in (0.01, -0.01):
            moved = feeds[wrt].astype(np.float32)
            moved[place] += step
            totals.append(float(np.sum(np.asarray(session.run(None, {**feeds, wrt: moved})[0], np.float64) * seed)))
        slopes[place] = (totals[0] - totals[1]) / 0.02
    return slopes


CASES: dict[str, Case] = {}


def spaced(*shape: int) -> np.ndarray:
    """Different numbers in random order, neighbours 0.1 apart."""
    count = int(np.prod(shape))
    return ((random.permutation(count) - count / 2) / 10).reshape(shape).astype(np.float32)


def case(name: str, nodes: onnx.NodeProto | Sequence[onnx.NodeProto], feeds: Arrays, **more: Any) -> None:
    assert name not in CASES, name
    CASES[name] = Case([nodes] if isinstance(nodes, onnx.NodeProto) else list(nodes), feeds, **more)


def affine(name: str, op_type: str, feeds: Arrays, more: Sequence[str] = (), **options: Any) -> None:
    """One node that is affine in what it is derived by; attributes are given as ``attributes``."""
    attributes = options.pop("attributes", {})
    case(name, node(op_type, [*feeds, *more], ["y"], **attributes), feeds, affine=True, **options)


# Elementwise.
for op in (
    "Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid", "HardSwish",
    "Mish", "Exp", "Neg", "Abs", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Atan", "Asinh", "Identity", "Shrink",
    "ThresholdedRelu", "Dropout",
):  # fmt: skip
    case(op, node(op, ["x"], ["y"]), {"x": floats(2, 3, 4)})
for op in ("Log", "Sqrt", "Reciprocal", "Asin", "Acos", "Atanh"):
    case(op, node(op, ["x"], ["y"]), {"x": within(0.1, 0.9, 2, 3, 4)})
case("Acosh", node("Acosh", ["x"], ["y"]), {"x": within(1.1, 2, 2, 3)})
case("Relu-scalar", node("Relu", ["x"], ["y"]), {"x": within(0.5, 1)})
case("LeakyRelu-alpha", node("LeakyRelu", ["x"], ["y"], alpha=0.3), {"x": floats(7)})
case("Elu-alpha", node("Elu", ["x"], ["y"], alpha=0.3), {"x": floats(7)})
case("Celu-alpha", node("Celu", ["x"], ["y"], alpha=0.3), {"x": floats(7)})
case("Selu-own", node("Selu", ["x"], ["y"], alpha=0.3, gamma=2.0), {"x": floats(7)})
case("HardSigmoid-own", node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4), {"x": floats(7) * 2})
case("Shrink-own", node("Shrink", ["x"], ["y"], lambd=0.3, bias=0.2), {"x": floats(7)})
case("Gelu-tanh", node("Gelu", ["x"], ["y"], approximate="tanh"), {"x": floats(2, 3, 4)}, opset=20)
for low, high in ((-0.5, 0.5), (None, 0.5), (-0.5, None)):
    bounds = {key: np.float32(value) for key, value in (("low", low), ("high", high)) if value is not None}
    inputs = ["x", "low" if low is not None else "", "high" if high is not None else ""]
    stored = {key: np.array(value) for key, value in bounds.items()}
    case(f"Clip-{low}-{high}", node("Clip", inputs, ["y"]), {"x": floats(2, 3, 4)}, constants=stored)
case("Clip-open", node("Clip", ["x"], ["y"]), {"x": floats(2, 3)})
case("Cast", node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE), {"x": floats(2, 3)}, affine=True, kind=np.float64)
case("CastLike", node("CastLike", ["x", "d"], ["y"]), {"x": floats(2, 3)}, affine=True, kind=np.float64,
     constants={"d": np.zeros(1, np.float64)})  # fmt: skip

# Several operands, broadcast.
for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Mod"):
    extra = {"fmod": 1} if op == "Mod" else {}
    options = {"wrt": ["x", "z"], "affine": op in ("Add", "Sub", "Sum", "Mean"), "step": 1e-6}
    for shape in ((3, 1), (1,), (2, 3, 4), (1, 4), (4,)):
        operands = {"x": within(1.1, 1.9, 2, 3, 4), "z": within(1.1, 1.9, *shape)}
        if op == "Mod":
            operands = {"x": within(1.3, 1.6, 2, 3, 4), "z": within(0.55, 0.6, *shape)}  # two whole times, and a rest
        case(f"{op}-{shape}", node(op, ["x", "z"], ["y"], **extra), operands, **options)
    swapped = {"x": within(1.3, 1.6, 3, 1), "z": within(0.55, 0.6, 2, 1, 4)}
    case(f"{op}-both", node(op, ["x", "z"], ["y"], **extra), swapped, **options)
case("Add-scalar", node("Add", ["x", "z"], ["y"]), {"x": floats(2, 3), "z": floats()}, wrt=["x", "z"], affine=True)
case("Mul-itself", node("Mul", ["x", "x"], ["y"]), {"x": floats(2, 3)})
case("Sum-three", node("Sum", ["x", "z", "x"], ["y"]), {"x": floats(2, 3), "z": floats(3)}, wrt=["x", "z"])
case("Pow-2", node("Pow", ["x", "two"], ["y"]), {"x": np.append(floats(4), 0).astype(np.float32)},
     constants={"two": np.array(2, np.float32)})  # fmt: skip
case("Pow-int", node("Pow", ["x", "three"], ["y"]), {"x": floats(4)}, constants={"three": np.array(3, np.int64)})
case("PRelu", node("PRelu", ["x", "z"], ["y"]), {"x": floats(2, 3, 4), "z": floats(3, 1)}, wrt=["x", "z"])
chosen = {"c": random.random((2, 3, 4)) > 0.5, "x": floats(2, 3, 4), "z": floats(3, 1)}
case("Where", node("Where", ["c", "x", "z"], ["y"]), chosen, wrt=["x", "z"], affine=True)

# Matrix products.
for left, right in (
    ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((3,), (3, 4)), ((2, 3), (3,)),
    ((3,), (3,)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2)), ((1, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4)),
    ((2, 1, 2, 3), (5, 3, 4)), ((2, 5, 2, 3), (3,)),
):  # fmt: skip
    affine(f"MatMul-{left}-{right}", "MatMul", {"x": floats(*left), "z": floats(*right)}, wrt=["x", "z"])
for turned_left in (0, 1):
    for turned_right in (0, 1):
        operands = {"x": floats(2, 3), "z": floats(3, 4), "c": floats(4)}
        operands["x"] = operands["x"].T.copy() if turned_left else operands["x"]
        operands["z"] = operands["z"].T.copy() if turned_right else operands["z"]
        attributes = {"transA": turned_left, "transB": turned_right, "alpha": 0.5, "beta": 2.0}
        affine(f"Gemm-{turned_left}{turned_right}", "Gemm", operands, wrt=["x", "z", "c"], attributes=attributes)
affine("Gemm-full-bias", "Gemm", {"x": floats(2, 3), "z": floats(3, 4), "c": floats(2, 1)}, wrt=["x", "c"])
for equation, left, right in (
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)), ("ij,k->i", (2, 3), (4,)), ("ij,jk", (2, 3), (3, 4)),
    ("bhid,bhjd->bhij", (1, 2, 3, 4), (1, 2, 2, 4)), ("i,i->", (3,), (3,)),
):  # fmt: skip
    operands = {"x": floats(*left), "z": floats(*right)}
    affine(f"Einsum-{equation}", "Einsum", operands, wrt=["x", "z"], attributes={"equation": equation})

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

# Reductions.
REDUCTIONS = ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp", "Prod")
for op in REDUCTIONS:
    numbers = within(0.5, 1.5, 2, 3, 4) if op == "LogSum" else floats(2, 3, 4)
    for keepdims in (0, 1):
        for axes in ([1], [0], [-1, 0], [0, 1, 2], [0, 1]):
            nodes = [node(f"Reduce{op}", ["x", "axes"], ["y"], keepdims=keepdims)]
            case(f"Reduce{op}-{axes}-{keepdims}", nodes, {"x": numbers}, constants={"axes": ints(*axes)})
        case(f"Reduce{op}-all-{keepdims}", node(f"Reduce{op}", ["x"], ["y"], keepdims=keepdims), {"x": numbers})
        case(f"Reduce{op}-run-{keepdims}", node(f"Reduce{op}", ["x", "axes"], ["y"], keepdims=keepdims),
             {"x": numbers, "axes": ints(-1, 0)}, refused="" if keepdims else "number of reduced axes")  # fmt: skip
    nodes = [node(f"Reduce{op}", ["x", "axes"], ["y"], noop_with_empty_axes=1, keepdims=0)]
    if op in ("Sum", "Mean", "Max", "Min", "Prod", "LogSumExp"):
        # Affine even where the reference evaluator reads it otherwise: onnxruntime leaves the numbers as they are.
        case(f"Reduce{op}-noop", nodes, {"x": numbers}, constants={"axes": ints()}, affine=True)
        case(f"Reduce{op}-noop-run", nodes, {"x": numbers, "axes": ints()}, affine=True)
        case(f"Reduce{op}-noop-absent", node(f"Reduce{op}", ["x"], ["y"], noop_with_empty_axes=1), {"x": numbers},
             affine=True)  # fmt: skip
    case(f"Reduce{op}-none-run", node(f"Reduce{op}", ["x", "axes"], ["y"], keepdims=0), {"x": numbers, "axes": ints()},
         fixed=["axes"])  # fmt: skip
    nodes = [node(f"Reduce{op}", ["x", "axes"], ["y"])]
    case(f"Reduce{op}-empty-means-all", nodes, {"x": numbers}, constants={"axes": ints()})
    case(f"Reduce{op}-scalar", node(f"Reduce{op}", ["x"], ["y"]), {"x": within(0.5, 1)}, affine=op == "LogSumExp")
for zeros in ([], [(0, 1)], [(0, 1), (1, 0)], [(0, 1), (0, 2)], [(0, 0), (0, 1), (0, 2), (1, 1)]):
    numbers = floats(2, 3)
    for place in zeros:
        numbers[place] = 0
    for axes in ([1], [0], [0, 1]):
        nodes = [node("ReduceProd", ["x", "axes"], ["y"])]
        case(f"ReduceProd-zeros-{zeros}-{axes}", nodes, {"x": numbers}, constants={"axes": ints(*axes)})
for exclusive in (0, 1):
    for reverse in (0, 1):
        for axis in (0, -1):
            attributes = {"exclusive": exclusive, "reverse": reverse}
            affine(f"CumSum-{exclusive}{reverse}-{axis}", "CumSum", {"x": floats(3, 4)}, ["axis"],
                   constants={"axis": np.array(axis)}, attributes=attributes)  # fmt: skip
affine("CumSum-run", "CumSum", {"x": floats(3, 4), "axis": np.array(1, np.int32)})

# Shapes.
affine("Reshape", "Reshape", {"x": floats(2, 3, 4)}, ["to"], constants={"to": ints(4, -1)})
affine("Reshape-zero", "Reshape", {"x": floats(2, 3, 4)}, ["to"], constants={"to": ints(0, -1)})
affine("Reshape-run", "Reshape", {"x": floats(2, 3, 4), "to": ints(4, 6)})
affine("Reshape-scalar", "Reshape", {"x": floats(1, 1)}, ["to"], constants={"to": ints()})
for axis in (0, 1, -1, 3):
    affine(f"Flatten-{axis}", "Flatten", {"x": floats(2, 3, 4)}, attributes={"axis": axis})
affine("Squeeze", "Squeeze", {"x": floats(1, 3, 1)}, free_sides={"x": [1, "m", 1]})
affine("Squeeze-axes", "Squeeze", {"x": floats(1, 3, 1)}, ["axes"], constants={"axes": ints(-1)})
affine("Unsqueeze", "Unsqueeze", {"x": floats(3, 2)}, ["axes"], constants={"axes": ints(0, -1)})
affine("Unsqueeze-scalar", "Unsqueeze", {"x": floats()}, ["axes"], constants={"axes": ints(0)})
affine("Transpose", "Transpose", {"x": floats(2, 3, 4)})
affine("Transpose-perm", "Transpose", {"x": floats(2, 3, 4, 1)}, attributes={"perm": [1, 2, 3, 0]})
affine("Transpose-same", "Transpose", {"x": floats(2, 3)}, attributes={"perm": [0, 1]})
for shape, to in (
    ((3, 1), (2, 3, 4)),
    ((1,), (2, 3)),
    ((2, 3), (1, 1)),
    ((2, 1, 3), (2, 4, 1)),
    ((), (2, 2)),
    ((2,), (2,)),
):
    affine(f"Expand-{shape}-{to}", "Expand", {"x": floats(*shape)}, ["to"], constants={"to": ints(*to)})
affine("Expand-run", "Expand", {"x": floats(3, 1), "to": ints(2, 3, 2)})
parts = {"x": floats(2, 3, 2), "z": floats(2, 1, 2), "w": floats(2, 2, 2)}
affine("Concat", "Concat", parts, wrt=["x", "z", "w"], attributes={"axis": 1})
affine("Concat-some", "Concat", parts, wrt=["z"], attributes={"axis": -2})
affine("Concat-ends", "Concat", parts, wrt=["x", "w"], attributes={"axis": 1})
affine("Concat-one", "Concat", {"x": floats(2, 3)}, attributes={"axis": 0})
affine("Concat-constant", "Concat", {"x": floats(2, 3)}, ["c"], constants={"c": floats(2, 2)}, attributes={"axis": 1})
case("Concat-twice", node("Concat", ["x", "x"], ["y"], axis=0), {"x": floats(2, 3)}, affine=True)
for used in (["a", "b", "c"], ["a"], ["b"], ["a", "c"]):
    split = node("Split", ["x", "sizes"], ["a", "b", "c"], axis=1)
    heads = [node("Mul", [name, name], [f"{name}2"]) for name in used]
    joined = node("Concat", [f"{name}2" for name in used], ["y"], axis=1)
    case(f"Split-{''.join(used)}", [split, *heads, joined], {"x": floats(2, 6)}, constants={"sizes": ints(1, 3, 2)})
split = node("Split", ["x"], ["a", "b", "c"], axis=-1, num_outputs=3)
case("Split-count", [split, node("Concat", ["c", "a"], ["y"], axis=-1)], {"x": floats(2, 7)}, affine=True)
case("Split-one", node("Split", ["x"], ["y"], num_outputs=1), {"x": floats(3, 2)}, affine=True)
for repeats in ([1, 2, 3], [1, 1, 1], [2, 1, 1], [1, 1, 2]):
    affine(f"Tile-{repeats}", "Tile", {"x": floats(2, 3, 2)}, ["r"], constants={"r": ints(*repeats)})
affine("Tile-run", "Tile", {"x": floats(2, 3), "r": ints(2, 3)})
affine("Tile-1d", "Tile", {"x": floats(3)}, ["r"], constants={"r": ints(3)})
for mode in ("DCR", "CRD"):
    affine(f"DepthToSpace-{mode}", "DepthToSpace", {"x": floats(2, 8, 2, 3)}, attributes={"blocksize": 2, "mode": mode})
affine("SpaceToDepth", "SpaceToDepth", {"x": floats(2, 3, 4, 6)}, attributes={"blocksize": 2})
for upper in (0, 1):
    affine(f"Trilu-{upper}", "Trilu", {"x": floats(2, 3, 4)}, ["k"], constants={"k": np.array(1)},
           attributes={"upper": upper})  # fmt: skip
affine("Trilu-plain", "Trilu", {"x": floats(3, 3)})
affine("ReverseSequence", "ReverseSequence", {"x": floats(4, 3, 2)}, ["lengths"], constants={"lengths": ints(1, 4, 3)})
affine("ReverseSequence-batch", "ReverseSequence", {"x": floats(3, 4)}, ["lengths"],
       constants={"lengths": ints(2, 4, 3)}, attributes={"batch_axis": 0, "time_axis": 1})  # fmt: skip
for to in ((7, 2), (2, 7), (5, 4), (4, 4)):
    affine(f"CenterCropPad-{to}", "CenterCropPad", {"x": floats(4, 5)}, ["to"], constants={"to": ints(*to)})
affine("CenterCropPad-axes", "CenterCropPad", {"x": floats(2, 5, 3)}, ["to"], constants={"to": ints(6, 2)},
       attributes={"axes": [-1, 1]})  # fmt: skip

# Borders.
for number, pads in enumerate(
    ([0, 1, 2, 0, 3, 1], [0, -1, 1, 0, 0, -1], [0] * 6, [1, 0, 0, 0, 0, 0], [0, -1, -1, 0, -1, 0])
):
    affine(f"Pad-{number}", "Pad", {"x": floats(2, 4, 3)}, ["pads"], constants={"pads": ints(*pads)})
    affine(f"Pad-run-{number}", "Pad", {"x": floats(2, 4, 3), "pads": ints(*pads)})
stored = {"pads": ints(1, 2, 0, 3), "axes": ints(-1, 1), "five": np.array(5, np.float32)}
affine("Pad-axes", "Pad", {"x": floats(2, 4, 3)}, ["pads", "five", "axes"], constants=stored)
case("Pad-axes-run", node("Pad", ["x", "pads", "", "axes"], ["y"]), {"x": floats(2, 4, 3), "axes": ints(-1, 1)},
     constants={"pads": ints(1, -1, 0, 3)}, affine=True)  # fmt: skip
for mode in ("reflect", "edge", "wrap"):
    for number, pads in enumerate(
        ([0, 1, 2, 0, 3, 1], [0, 0, 2, 0, 0, 0], [1, 3, 0, 1, 0, 0], [0, 2, 1, 0, 3, 2], [0] * 6)
    ):
        attributes = {"mode": mode}
        affine(f"Pad-{mode}-{number}", "Pad", {"x": floats(2, 4, 3)}, ["pads"], constants={"pads": ints(*pads)},
               attributes=attributes, opset=19)  # fmt: skip
    affine(f"Pad-{mode}-run", "Pad", {"x": floats(2, 4, 3), "pads": ints(0, 1, 2, 0, 3, 1)}, attributes=attributes,
           opset=19)  # fmt: skip
    case(f"Pad-{mode}-axes", node("Pad", ["x", "pads", "", "axes"], ["y"], mode=mode), {"x": floats(2, 4, 3)},
         constants={"pads": ints(1, 2, 0, 3), "axes": ints(-1, 1)}, affine=True, opset=19)  # fmt: skip

# Slices.
MOST = np.iinfo(np.int64).max
for number, (axes, starts, stops, steps) in enumerate((
    ([0], [1], [3], [1]), ([1], [-3], [-1], [1]), ([0, 1], [1, 0], [MOST, MOST], [1, 1]), ([1], [0], [MOST], [2]),
    ([1], [1], [5], [3]), ([0, 1], [0, 1], [MOST, MOST], [2, 2]), ([1], [-1], [-MOST], [-1]), ([1], [4], [0], [-2]),
    ([1], [MOST], [1], [-3]), ([0, 1], [-1, -2], [-MOST, -MOST], [-1, -2]), ([-1], [2], [2], [1]), ([1], [3], [1], [1]),
    ([1], [-100], [100], [1]), ([1], [-100], [-MOST], [-1]), ([0], [0], [100], [5]), ([1], [0], [MOST], [1]),
    ([0], [100], [-100], [-3]), ([1], [5], [6], [1]),
)):  # fmt: skip
    bounds = {"starts": ints(*starts), "stops": ints(*stops), "axes": ints(*axes), "steps": ints(*steps)}
    affine(f"Slice-{number}", "Slice", {"x": floats(4, 6)}, list(bounds), constants=bounds)
    affine(f"Slice-run-{number}", "Slice", {"x": floats(4, 6)} | bounds)
    clipped = {name: np.clip(held, -(2**31) + 1, 2**31 - 1).astype(np.int32) for name, held in bounds.items()}
    stored = {name: clipped.pop(name) for name in ("axes", "steps")}
    affine(f"Slice-bounds-run-{number}", "Slice", {"x": floats(4, 6)} | clipped, list(stored), constants=stored)
affine("Slice-no-axes", "Slice", {"x": floats(4, 3)}, ["a", "b"], constants={"a": ints(1, 1), "b": ints(3, 2)})
affine("Slice-3d", "Slice", {"x": floats(2, 3, 4)}, ["a", "b", "c", "d"],
       constants={"a": ints(3, 0), "b": ints(-MOST, 2), "c": ints(-1, 1), "d": ints(-2, 1)})  # fmt: skip

# Gathers.
for name, axis, indices in (
    ("repeated", 0, [0, 2, 2, -1]), ("matrix", 1, [[0, 1], [-1, 1]]), ("one", 1, [2]), ("negative", 1, [-2]),
    ("scalar", 0, 1), ("negative-scalar", -1, -1), ("order", 1, [2, 0, -2]), ("last", -1, [3, 3, 0]),
    ("single-matrix", 1, [[1]]), ("none", 1, []),
    ("same", 0, [1, 1, 1]),
):  # fmt: skip
    stored = {"i": np.array(indices, np.int64)}
    affine(f"Gather-{name}", "Gather", {"x": floats(3, 3, 4)}, ["i"], constants=stored, attributes={"axis": axis})
    affine(f"Gather-run-{name}", "Gather", {"x": floats(3, 3, 4)} | stored, attributes={"axis": axis})
affine("Gather-int32", "Gather", {"x": floats(4), "i": np.array([[0, -1], [0, 2]], np.int32)})
for axis, indices in ((0, [[0, 1, -1], [0, 0, 0]]), (1, [[0, -1], [2, 2], [1, 0]]), (-1, [[0, 0]])):
    numbers = {"x": floats(3, 3), "i": np.array(indices, np.int64)}
    affine(f"GatherElements-{axis}", "GatherElements", numbers, attributes={"axis": axis})
for name, shape, batch_dims, indices in (
    ("rows", (3, 4), 0, [[0], [-1], [0]]), ("elements", (3, 4), 0, [[0, 1], [-1, -2], [0, 1]]),
    ("batch", (2, 3, 4), 1, [[[0], [2]], [[-1], [-1]]]), ("batch-elements", (2, 3, 4), 1, [[[0, -1]], [[2, 0]]]),
    ("deep", (2, 3, 4), 0, [[[0, 1], [1, -1]], [[0, 1], [0, 0]]]),
    ("two-batches", (2, 2, 3), 2, [[[0], [1]], [[2], [-1]]]),
):  # fmt: skip
    numbers = {"x": floats(*shape), "i": np.array(indices, np.int64)}
    affine(f"GatherND-{name}", "GatherND", numbers, attributes={"batch_dims": batch_dims}, fixed=["i"])
for name, attributes in (
    ("last", {}),
    ("first", {"axis": 0}),
    ("smallest", {"axis": 1, "largest": 0}),
    ("any", {"sorted": 0}),
):
    case(f"TopK-{name}", node("TopK", ["x", "k"], ["y", "i"], **attributes), {"x": spaced(3, 4)}, pieces=True,
         constants={"k": ints(2)}, tolerance=1e-3)  # fmt: skip
for axis in (None, 0, -1):
    attributes = {} if axis is None else {"axis": axis}
    condition = {"c": np.array([True, False, True])}
    affine(f"Compress-{axis}", "Compress", {"x": floats(3, 4)} | condition, attributes=attributes)
for reduction in ("none", "add"):
    repeated = [[0, 2, -1], [1, 1, 0]] if reduction == "add" else [[0, 2, 1], [1, 0, -1]]
    numbers = {"x": floats(3, 3), "i": np.array(repeated, np.int64), "u": floats(2, 3)}
    attributes = {"axis": 1, "reduction": reduction}
    affine(f"ScatterElements-{reduction}", "ScatterElements", numbers, wrt=["x", "u"], attributes=attributes)
    rows = [[0], [-1], [0]] if reduction == "add" else [[0], [-1]]
    numbers = {"x": floats(3, 2), "i": np.array(rows, np.int64), "u": floats(len(rows), 2)}
    affine(f"ScatterND-{reduction}", "ScatterND", numbers, wrt=["x", "u"], attributes={"reduction": reduction})
pooled = [node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2], strides=[2, 2]),
          node("MaxUnpool", ["p", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])]  # fmt: skip
case("MaxUnpool", pooled, {"x": spaced(1, 2, 4, 4)}, free_sides={"x": ["n", 2, "h", "w"]}, pieces=True, tolerance=1e-3)

# Resize.
TRANSFORMATIONS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def resize(
    name: str, x: np.ndarray, *, scales: Sequence[float] = (), sizes: Sequence[int] = (), **attributes: Any
) -> None:
    stored = {"scales": np.array(scales, np.float32)} if scales else {"sizes": ints(*sizes)}
    inputs = ["x", "", "scales"] if scales else ["x", "", "", "sizes"]
    options: dict[str, Any] = {"affine": True, "opset": 19}
    case(f"Resize-{name}", node("Resize", inputs, ["y"], **attributes), {"x": x}, constants=stored, **options)


for mode in ("linear", "cubic", "nearest"):
    for transformation in TRANSFORMATIONS:
        attributes = {"mode": mode, "coordinate_transformation_mode": transformation}
        tag = f"{mode}-{transformation}"
        resize(f"{tag}-up", floats(1, 2, 3, 4), scales=[1, 1, 2, 1.7], **attributes)
        resize(f"{tag}-down", floats(1, 1, 7, 6), scales=[1, 1, 0.6, 0.5], **attributes)
        resize(f"{tag}-sizes", floats(1, 2, 3, 4), sizes=[1, 2, 6, 5], **attributes)
        if mode != "nearest":
            resize(f"{tag}-antialias", floats(1, 1, 7, 5), scales=[1, 1, 0.4, 1.3], antialias=1, **attributes)
    resize(f"{mode}-axes", floats(1, 2, 3, 4), sizes=[7, 5], mode=mode, axes=[3, 2])
    resize(f"{mode}-2d", floats(3, 4), sizes=[5, 7], mode=mode)
for transformation in TRANSFORMATIONS:
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        attributes = {"coordinate_transformation_mode": transformation, "nearest_mode": rounding}
        for factor in (2, 3):
            tag = f"nearest-{transformation}-{rounding}-{factor}"
            resize(tag, floats(1, 1, 2, 3), scales=[1, 1, factor, 3], **attributes)
resize(
    "exclude-outside", floats(1, 1, 4, 5), scales=[1, 1, 1.5, 0.7], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5
)
resize("channels", floats(2, 3, 2, 2), scales=[2, 2, 1, 3], mode="nearest")
resize("batch", floats(2, 3, 2), sizes=[3, 4, 2], mode="nearest")
resize("1d", floats(2, 2, 4), scales=[1, 1, 2.5], mode="linear")
resize("1d-nearest", floats(2, 2, 4), scales=[1, 1, 2], mode="nearest")
resize("vector", floats(4), scales=[2.5], mode="nearest")
resize("3d", floats(1, 1, 2, 3, 2), scales=[1, 1, 2, 1.5, 2], mode="linear")
resize("3d-nearest", floats(1, 1, 2, 3, 2), scales=[1, 1, 2, 1, 3], mode="nearest")
resize("same-length", floats(1, 1, 4, 5), scales=[1, 1, 1.2, 1.1], mode="linear")
stored = {"scales": np.array([1, 1, 2, 1.5], np.float32)}
case(
    "Resize-run",
    node("Resize", ["x", "", "scales"], ["y"], mode="linear"),
    {"x": floats(1, 2, 3, 2)} | stored,
    affine=True,
)
case("Resize-run-axes", node("Resize", ["x", "", "scales"], ["y"], mode="cubic", axes=[3, 2]), affine=True,
     feeds={"x": floats(1, 2, 3, 2), "scales": np.array([1.5, 2], np.float32)}, fixed=["scales"])  # fmt: skip
case("Resize-sizes-run", node("Resize", ["x", "", "", "sizes"], ["y"], mode="cubic"),
     {"x": floats(1, 2, 3, 2), "sizes": ints(1, 2, 5, 3)}, affine=True, fixed=["sizes"])  # fmt: skip
for policy in ("not_larger", "not_smaller"):
    kept = node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", axes=[2, 3], keep_aspect_ratio_policy=policy)
    case(f"Resize-{policy}", kept, {"x": floats(1, 1, 7, 10)}, constants={"sizes": ints(12, 13)}, affine=True,
         refused="sizes that keep the ratio")  # fmt: skip

# Other precisions.
for kind in (np.float64, np.float16):
    tag, tolerance = np.dtype(kind).name, 5e-3 if kind is np.float16 else 1e-6
    exact = {"tolerance": tolerance, "kind": kind}
    x = {"x": floats(2, 3, 4, kind=kind)}
    case(f"{tag}-Softmax", node("Softmax", ["x"], ["y"], axis=1), x, **exact)
    case(f"{tag}-ReduceMean", node("ReduceMean", ["x", "a"], ["y"]), x, constants={"a": ints(1)}, **exact)
    case(f"{tag}-LayerNormalization", node("LayerNormalization", ["x", "s"], ["y"]), x,
         constants={"s": floats(4, kind=kind)}, **exact)  # fmt: skip
    case(f"{tag}-Mul", node("Mul", ["x", "x"], ["y"]), x, **exact)
    case(f"{tag}-Slice", node("Slice", ["x", "a", "b", "c", "d"], ["y"]), x, affine=True, **exact,
         constants={"a": ints(3), "b": ints(-MOST), "c": ints(2), "d": ints(-2)})  # fmt: skip
    case(f"{tag}-Pad-edge", node("Pad", ["x", "p"], ["y"], mode="edge"), x, affine=True, **exact,
         constants={"p": ints(0, 1, 0, 0, 2, 1)})  # fmt: skip
    case(f"{tag}-Gather", node("Gather", ["x", "i"], ["y"], axis=1), x, affine=True, **exact,
         constants={"i": ints(0, 0, 2)})  # fmt: skip
double = {"x": floats(2, 4, 3, kind=np.float64)}
exact = {"tolerance": 1e-6, "kind": np.float64}
for op in ("ReduceProd", "ReduceMax", "ReduceL2"):
    case(f"float64-{op}", node(op, ["x", "a"], ["y"]), double, constants={"a": ints(1)}, **exact)
for op in ("Tanh", "LogSoftmax", "CumSum"):
    inputs = ["x", "a"] if op == "CumSum" else ["x"]
    case(f"float64-{op}", node(op, inputs, ["y"]), double, constants={"a": np.array(1)}, **exact)


# -- the three forms -----------------------------------------------------------------------------------------------


def agree(found: Arrays, of: Case) -> None:
    expected, _ = of.expected
    for name in of.wrt:
        assert found[name].shape == of.feeds[name].shape, name
        assert found[name].dtype == of.feeds[name].dtype, name
        assert np.isfinite(found[name]).all(), name
        scale = max(float(np.abs(expected[name]).max(initial=0)), 1e-3)
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=of.tolerance * scale, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_fixed_sides(name: str) -> None:
    of = CASES[name]
    found, _ = gradients(of.model(free=False), of.feeds, [of.target], of.wrt, seeds=of.expected[1])
    agree(found, of)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("everywhere", [False, True], ids=["inputs", "everywhere"])
def test_free_sides(name: str, everywhere: bool) -> None:
    of = CASES[name]

    def found() -> Arrays:
        model = of.model(free=True)
        seeds = of.expected[1]
        return gradients(model, of.feeds, [of.target], of.wrt, seeds=seeds, free=everywhere, optimized=everywhere)[0]

    if of.refused:
        with pytest.raises(UnsupportedOperatorError, match=of.refused):
            found()
    else:
        agree(found(), of)


# -- what differences cannot tell ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Erf", "Gelu"])
def test_error_function(op: str) -> None:
    """The reference evaluator computes it in float32: differences of Python's own."""
    x = floats(40)
    (found, seeds) = gradients(graph_of([node(op, ["x"], ["y"])], {"x": x}, ["y"], opset=20), {"x": x}, ["y"], ["x"])

    def value(at: float) -> float:
        return math.erf(at) if op == "Erf" else at * (1 + math.erf(at / math.sqrt(2))) / 2

    slopes = [(value(float(at) + 1e-6) - value(float(at) - 1e-6)) / 2e-6 for at in x]
    np.testing.assert_allclose(found["x"], slopes * seeds["y"], rtol=1e-5, atol=1e-6)


def derivative(
    nodes: onnx.NodeProto, x: np.ndarray, *, constants: Arrays | None = None, free: bool = False
) -> np.ndarray:
    """Derivative of the sum of y by x."""
    sides = {"x": [f"x{axis}" for axis in range(x.ndim)]} if free else None
    model = graph_of([nodes], {"x": x}, ["y"], constants=constants, sides=sides, opset=19)
    y = run_plainly(model, {"x": x})
    return gradients(model, {"x": x}, ["y"], ["x"], seeds={"y": np.ones_like(y)}, free=free)[0]["x"]


TIES = np.array([[2, 1, 2, 0], [1, 1, 1, 1]], np.float32)


@pytest.mark.parametrize("free", [False, True])
def test_equal_extrema_share_the_adjoint(free: bool) -> None:
    axes = {"axes": ints(1)}
    highest = derivative(node("ReduceMax", ["x", "axes"], ["y"]), TIES, constants=axes, free=free)
    np.testing.assert_array_equal(highest, [[0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    lowest = derivative(node("ReduceMin", ["x", "axes"], ["y"], keepdims=0), TIES, constants=axes, free=free)
    np.testing.assert_array_equal(lowest, [[0, 0, 0, 1], [0.25, 0.25, 0.25, 0.25]])
    whole = derivative(node("GlobalMaxPool", ["x"], ["y"]), TIES[None], free=free)
    np.testing.assert_array_equal(whole, highest[None])


def test_the_first_of_equal_maxima_takes_the_adjoint() -> None:
    pooled = derivative(node("MaxPool", ["x"], ["y"], kernel_shape=[4]), TIES[None])
    np.testing.assert_array_equal(pooled, [[[1, 0, 0, 0], [1, 0, 0, 0]]])
    larger = derivative(node("Max", ["x", "ones"], ["y"]), TIES, constants={"ones": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(larger, [[1, 1, 1, 0], [1, 1, 1, 1]])
    smaller = derivative(node("Min", ["ones", "x"], ["y"]), TIES, constants={"ones": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(smaller, [[0, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("free", [False, True])
def test_at_zero_there_is_no_nan(free: bool) -> None:
    zeros = np.zeros((2, 3), np.float32)
    for op in ("ReduceL1", "ReduceL2"):
        np.testing.assert_array_equal(derivative(node(op, ["x"], ["y"]), zeros, free=free), zeros)
    for p in (1, 2):
        np.testing.assert_array_equal(derivative(node("LpNormalization", ["x"], ["y"], p=p), zeros, free=free), zeros)
    for op in ("Abs", "Relu"):
        np.testing.assert_array_equal(derivative(node(op, ["x"], ["y"]), zeros, free=free), zeros)
    for exponent, slope in ((0, 0), (1, 1), (2, 0), (3, 0)):
        power = {"p": np.array(exponent, np.float32)}
        found = derivative(node("Pow", ["x", "p"], ["y"]), zeros, constants=power, free=free)
        np.testing.assert_array_equal(found, np.full_like(zeros, slope))


@pytest.mark.parametrize("op", [f"Reduce{name}" for name in REDUCTIONS])
@pytest.mark.parametrize("free", [False, True])
def test_reductions_of_nothing(op: str, free: bool) -> None:
    nothing = np.zeros((2, 0, 3), np.float32)
    if op not in ("ReduceMax", "ReduceMin", "ReduceMean"):  # onnxruntime has no value for these
        for keepdims in (0, 1):
            reduced = node(op, ["x", "axes"], ["y"], keepdims=keepdims)
            assert derivative(reduced, nothing, constants={"axes": ints(1)}, free=free).shape == (2, 0, 3)
    beside = node(op, ["x", "axes"], ["y"])
    assert derivative(beside, nothing, constants={"axes": ints(0)}, free=free).shape == (2, 0, 3)


@pytest.mark.parametrize("free", [False, True])
def test_empty_values_have_empty_derivatives(free: bool) -> None:
    nothing = np.zeros((0, 4), np.float32)
    bounds = {"a": ints(3), "b": ints(0), "c": ints(1), "d": ints(-2)}
    for op, constants, attributes in (
        ("Transpose", {}, {}), ("Softmax", {}, {}), ("Slice", bounds, {}), ("Gather", {"i": ints(1, 1)}, {"axis": 1}),
        ("Tile", {"r": ints(2, 3)}, {}), ("Pad", {"p": ints(0, 1, 0, 1)}, {}), ("Flatten", {}, {}),
        ("Expand", {"s": ints(2, 0, 4)}, {}), ("CumSum", {"axis": ints(1).reshape(())}, {}),
    ):  # fmt: skip
        found = derivative(node(op, ["x", *constants], ["y"], **attributes), nothing, constants=constants, free=free)
        assert found.shape == (0, 4), op


def test_many_additions_at_one_place_are_all_counted() -> None:
    indices = np.arange(60_000).reshape(-1, 2) % 3
    for form in (node("Gather", ["x", "i"], ["y"]), node("GatherND", ["x", "j"], ["y"])):
        found = derivative(form, floats(3, 8), constants={"i": indices, "j": indices[..., None]})
        np.testing.assert_array_equal(found, np.full((3, 8), 20_000))
    edge = derivative(node("Pad", ["x", "p"], ["y"], mode="edge"), floats(2, 2), constants={"p": ints(999, 0, 999, 0)})
    np.testing.assert_array_equal(edge, np.full((2, 2), 1000))


def test_normalised_numbers_far_from_zero() -> None:
    """The spread is found as exactly as the operator itself finds it."""
    x = (floats(2, 3, 16, kind=np.float64) + 1000).astype(np.float32)
    scale = {"s": np.ones(16, np.float32)}
    model = graph_of([node("LayerNormalization", ["x", "s"], ["y"])], {"x": x}, ["y"], constants=scale)
    found, seeds = gradients(model, {"x": x}, ["y"], ["x"])
    expected = differences(model, {"x": x}, seeds, "x", step=1e-3)
    np.testing.assert_allclose(found["x"], expected, rtol=0, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name", ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "Clip", "HardSwish", "MaxPool", "LeakyRelu"]
)
def test_kinks_and_ties_as_in_torch(name: str, torch: Any) -> None:
    numbers = np.array([[0, -3, 3, 3, 0, 1], [-1, -1, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0]], np.float32)
    functional = torch.nn.functional
    attributes, constants, theirs = {
        "ReduceMax": ({}, {"a": ints(1)}, lambda x: x.amax(1, keepdim=True)),
        "ReduceMin": ({}, {"a": ints(1)}, lambda x: x.amin(1, keepdim=True)),
        "ReduceProd": ({}, {"a": ints(1)}, lambda x: x.prod(1, keepdim=True)),
        "ReduceL2": ({}, {"a": ints(1)}, lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True)),
        "Clip": ({}, {"low": np.array(-1, np.float32), "high": np.array(2, np.float32)}, lambda x: x.clamp(-1, 2)),
        "HardSwish": ({}, {}, functional.hardswish),
        "MaxPool": ({"kernel_shape": [3], "strides": [1]}, {}, lambda x: functional.max_pool1d(x, 3, 1)),
        "LeakyRelu": ({"alpha": 0.1}, {}, lambda x: functional.leaky_relu(x, 0.1)),
    }[name]
    numbers = numbers[None] if name == "MaxPool" else numbers
    given_numbers = torch.from_numpy(numbers).requires_grad_(True)
    theirs(given_numbers).sum().backward()
    ours = derivative(node(name, ["x", *constants], ["y"], **attributes), numbers, constants=constants)
    np.testing.assert_allclose(ours, given_numbers.grad.numpy(), rtol=1e-6, atol=1e-6)


# -- refusals ------------------------------------------------------------------------------------------------------

REFUSED = {
    "running mean": ([node("Relu", ["m"], ["mean"]), node("BatchNormalization", ["x", "s", "s", "mean", "s"], ["y"])],
                     {"x": floats(2, 3), "m": within(1, 2, 3)}, {"s": within(1, 2, 3)}, 18),
    "training mode": ([node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", "m", "v"], training_mode=1)],
                      {"x": floats(2, 3)}, {"s": within(1, 2, 3)}, 18),
    "further outputs": ([node("LayerNormalization", ["x", "s"], ["z", "m", "i"]), node("Add", ["z", "i"], ["y"])],
                        {"x": floats(2, 3)}, {"s": floats(3)}, 18),
    "fills the border": ([node("ReduceSum", ["x"], ["s"], keepdims=0), node("Pad", ["x", "p", "s"], ["y"])],
                         {"x": floats(3)}, {"p": ints(1, 1)}, 18),
    "reduction 'max'": ([node("ScatterElements", ["x", "i", "u"], ["y"], reduction="max")],
                        {"x": floats(3)}, {"i": ints(0), "u": floats(1)}, 18),
    "reduction 'mul'": ([node("ScatterND", ["x", "i", "u"], ["y"], reduction="mul")],
                        {"x": floats(3)}, {"i": ints(0).reshape(1, 1), "u": floats(1)}, 18),
    "region of interest": ([node("Resize", ["x", "roi", "s"], ["y"],
                                 coordinate_transformation_mode="tf_crop_and_resize")],
                           {"x": floats(4)}, {"roi": np.array([0, 1], np.float32), "s": np.array([2], np.float32)}, 18),
    "rounded up": ([node("Resize", ["x", "", "", "s"], ["y"], axes=[0, 1], keep_aspect_ratio_policy="not_larger")],
                   {"x": floats(7, 11)}, {"s": ints(12, 100)}, 18),
    "no rule": ([node("Det", ["x"], ["y"])], {"x": floats(2, 2)}, {}, 18),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_refused_in_words(words: str) -> None:
    nodes, feeds, constants, opset = REFUSED[words]
    model = graph_of(nodes, feeds, ["y"], constants=constants, opset=opset)
    with pytest.raises(UnsupportedOperatorError, match=words):
        gradients(model, feeds, ["y"], list(feeds))


# -- whole graphs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("op", ["Slice", "Gather", "Pad"])
def test_between_transposes(op: str, free: bool) -> None:
    """onnxruntime moves a Transpose through a Pad, and takes the pads of some axes for those of all (1.31)."""
    x = floats(2, 3, 4, 5)
    constants = {
        "Slice": {"a": ints(1), "b": ints(3), "c": ints(1)},
        "Gather": {"i": ints(1)},
        "Pad": {"p": ints(0, 1, -1, 0, 0, -2, 1, 0)},
    }[op]
    attributes = {"axis": 1} if op == "Gather" else {}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        node(op, ["t", *constants], ["m"], **attributes),
        node("Transpose", ["m"], ["y"], perm=[0, 3, 1, 2]),
    ]
    sides = {"x": ["a", "b", "c", "d"]} if free else None
    model = graph_of(nodes, {"x": x}, ["y"], constants=constants, sides=sides)
    found, seeds = gradients(model, {"x": x}, ["y"], ["x"], free=free, optimized=True)
    np.testing.assert_allclose(found["x"], unit_slopes(model, {"x": x}, seeds["y"], "x"), rtol=0, atol=1e-6)


@dataclass
class Growing:
    """A random graph of smooth operators with branches."""

    draw: Any
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (2, 3, 4)})

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32 - 1)))

    def pick(self, choices: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(choices))

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, np.float32 if array.dtype.kind == "f" else np.int64)
        return name

    def add(self, op_type: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(node(op_type, inputs, [name], **attributes))
        self.shapes[name] = tuple(shape)

    def grow(self) -> None:
        value = self.pick(list(self.shapes)[-3:])
        shape = self.shapes[value]
        axis = self.pick(range(len(shape)))
        side = shape[axis]
        others = [name for name, other in self.shapes.items() if other == shape]
        kind = self.pick((
            "unary", "binary", "broadcast", "reduce", "product", "reshape", "transpose", "slice", "concat", "split",
            "pad", "gather", "softmax", "normalize", "tile", "cumsum", "where",
        ))  # fmt: skip
        longer = (*shape[:axis], 2 * side, *shape[axis + 1 :])
        if kind == "unary":
            self.add(self.pick(("Tanh", "Sigmoid", "Softplus", "Sin", "Mish", "Softsign")), [value], shape)
        elif kind == "binary":
            self.add(self.pick(("Add", "Mul", "Sub")), [value, self.pick(others)], shape)
        elif kind == "broadcast":
            self.add("Mul", [value, self.constant(self.rng.normal(size=(2, *(1 for _ in shape))))], (2, *shape))
        elif kind == "reduce" and np.prod(shape) > 4:
            keep = [1 if i == axis else n for i, n in enumerate(shape)]
            op_type = self.pick(("ReduceMean", "ReduceSumSquare", "ReduceLogSumExp"))
            self.add(op_type, [value, self.constant(np.array([axis]))], keep)
            self.add("Add", [value, list(self.shapes)[-1]], shape)
        elif kind == "product" and shape:
            self.add("MatMul", [value, self.constant(self.rng.normal(size=(shape[-1], 3)) / 2)], (*shape[:-1], 3))
        elif kind == "reshape":
            self.add("Reshape", [value, self.constant(np.array([side, -1]))], (side, int(np.prod(shape)) // side))
        elif kind == "transpose":
            order = self.rng.permutation(len(shape))
            self.add("Transpose", [value], [shape[i] for i in order], perm=order.tolist())
        elif kind == "slice" and side > 1:
            step = self.pick((1, 2, -1))
            start, stop = (1, MOST) if step > 0 else (side - 2, -MOST)
            bounds = [self.constant(np.array([number])) for number in (start, stop, axis, step)]
            length = len(range(side)[slice(1, None, step)]) if step > 0 else side - 1
            self.add("Slice", [value, *bounds], (*shape[:axis], length, *shape[axis + 1 :]))
        elif kind == "concat":
            self.add("Concat", [value, self.pick(others)], longer, axis=axis)
        elif kind == "split" and side > 1:
            head, tail = f"h{len(self.nodes)}", f"t{len(self.nodes)}"
            sizes = self.constant(np.array([1, side - 1]))
            self.nodes.append(node("Split", [value, sizes], [head, tail], axis=axis))
            self.shapes[head] = (*shape[:axis], 1, *shape[axis + 1 :])
            self.shapes[tail] = (*shape[:axis], side - 1, *shape[axis + 1 :])
        elif kind == "pad" and side > 1:
            numbers = np.zeros(2 * len(shape), np.int64)
            numbers[axis] = 1
            mode = self.pick(("constant", "reflect", "edge"))
            inputs = [value, self.constant(numbers)]
            self.add("Pad", inputs, (*shape[:axis], side + 1, *shape[axis + 1 :]), mode=mode)
        elif kind == "gather":
            indices = self.rng.integers(-side, side, size=3)
            self.add("Gather", [value, self.constant(indices)], (*shape[:axis], 3, *shape[axis + 1 :]), axis=axis)
        elif kind == "softmax":
            self.add(self.pick(("Softmax", "LogSoftmax")), [value], shape, axis=axis)
        elif kind == "normalize" and shape[-1] > 2:
            scale = self.constant(self.rng.normal(size=shape[-1]))
            self.add("LayerNormalization", [value, scale], shape, axis=-1, epsilon=0.1)
        elif kind == "tile":
            repeats = [2 if i == axis else 1 for i in range(len(shape))]
            self.add("Tile", [value, self.constant(np.array(repeats))], longer)
        elif kind == "cumsum":
            self.add("CumSum", [value, self.constant(np.array(axis))], shape, reverse=1)
        elif kind == "where":
            chosen = self.constant(self.rng.integers(0, 2, size=shape))
            self.nodes.append(node("Cast", [chosen], [f"{chosen}_bool"], to=TensorProto.BOOL))
            self.add("Where", [f"{chosen}_bool", value, self.pick(others)], shape)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_random_graphs(data: st.DataObject) -> None:
    """Chains with branches, fixed and free, as onnxruntime optimises them."""
    graph = Growing(data.draw)
    for _ in range(data.draw(st.integers(1, 8))):
        if max(int(np.prod(shape)) for shape in graph.shapes.values()) < 400:
            graph.grow()
    target = list(graph.shapes)[-1]
    feeds = {"x": graph.rng.standard_normal((2, 3, 4)).astype(np.float32)}
    wide = {name: held.astype(np.float64) if held.dtype.kind == "f" else held for name, held in graph.constants.items()}
    exact = graph_of(graph.nodes, feeds, [target], constants=wide, opset=19)
    expected = None
    for sides in (None, {"x": ["a", "b", "c"]}):
        model = graph_of(graph.nodes, feeds, [target], constants=graph.constants, sides=sides, opset=19)
        found, seeds = gradients(model, feeds, [target], ["x"], free=sides is not None, optimized=True)
        if expected is None:
            expected = differences(exact, feeds, seeds, "x")
        scale = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(found["x"], expected, rtol=0, atol=2e-3 * scale)
