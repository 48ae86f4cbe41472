"""Derivatives of functions of single numbers, of arithmetic, of matrix products and of reductions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper

from gradient_cases import gradients, graph_of
from operator_cases import FORMS, Cases, check_derivatives, derivative, ints
from random_arrays import RandomArrays

node = helper.make_node
random = RandomArrays(0)
floats, within = random.floats, random.within
CASES = Cases()
case, affine = CASES.case, CASES.affine

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
chosen = {"c": within(0, 1, 2, 3, 4) > 0.5, "x": floats(2, 3, 4), "z": floats(3, 1)}
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str, form: str) -> None:
    check_derivatives(CASES[name], form)


@pytest.mark.parametrize("op", ["Erf", "Gelu"])
def test_error_function(op: str) -> None:
    """The reference evaluator computes it in float32: differences of Python's own."""
    x = floats(40)
    (found, seeds) = gradients(graph_of([node(op, ["x"], ["y"])], {"x": x}, ["y"], opset=20), {"x": x}, ["y"], ["x"])

    def value(at: float) -> float:
        return math.erf(at) if op == "Erf" else at * (1 + math.erf(at / math.sqrt(2))) / 2

    slopes = [(value(float(at) + 1e-6) - value(float(at) - 1e-6)) / 2e-6 for at in x]
    np.testing.assert_allclose(found["x"], slopes * seeds["y"], rtol=1e-5, atol=1e-6)


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
