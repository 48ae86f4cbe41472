"""Derivatives of graphs in float64 and in float16."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from operator_cases import FORMS, MOST, Cases, check_derivatives, ints
from random_arrays import RandomArrays

node = helper.make_node
floats = RandomArrays(0).floats
CASES = Cases()
case = CASES.case

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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str, form: str) -> None:
    check_derivatives(CASES[name], form)
