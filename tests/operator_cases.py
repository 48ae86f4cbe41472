"""Operators whose derivatives by our rules are compared with slopes of the operators themselves, in three forms.

The forms: with all sides fixed; with free sides of the inputs and the other values measured, as the runtime does; with
free sides everywhere, and then as onnxruntime optimises it. What is affine in an input is compared with onnxruntime's
own results for unit vectors, the rest with central differences of the reference evaluator in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from gradient_cases import Arrays, differences, gradients, graph_of
from onnxviz.errors import UnsupportedOperatorError

FORMS = ("fixed sides", "free inputs", "free everywhere")
MOST = np.iinfo(np.int64).max
"""Where a slice ends that goes on to the end."""


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


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


class Cases(dict[str, Case]):
    """Cases by name."""

    def case(self, name: str, nodes: onnx.NodeProto | Sequence[onnx.NodeProto], feeds: Arrays, **more: Any) -> None:
        assert name not in self, name
        self[name] = Case([nodes] if isinstance(nodes, onnx.NodeProto) else list(nodes), feeds, **more)

    def affine(self, name: str, op_type: str, feeds: Arrays, more: Sequence[str] = (), **options: Any) -> None:
        """One node that is affine in what it is derived by; attributes are given as ``attributes``."""
        attributes = options.pop("attributes", {})
        node = helper.make_node(op_type, [*feeds, *more], ["y"], **attributes)
        self.case(name, node, feeds, affine=True, **options)


def check_derivatives(of: Case, form: str) -> None:
    """The derivatives in one of the forms are those expected, or refused in words where the case says so."""
    free, everywhere = form != "fixed sides", form == "free everywhere"

    def found() -> Arrays:
        model = of.model(free=free)
        seeds = of.expected[1]
        return gradients(model, of.feeds, [of.target], of.wrt, seeds=seeds, free=everywhere, optimized=everywhere)[0]

    if free and of.refused:
        with pytest.raises(UnsupportedOperatorError, match=of.refused):
            found()
    else:
        agree(found(), of)


def agree(found: Arrays, of: Case) -> None:
    expected, _ = of.expected
    for name in of.wrt:
        assert found[name].shape == of.feeds[name].shape, name
        assert found[name].dtype == of.feeds[name].dtype, name
        assert np.isfinite(found[name]).all(), name
        scale = max(float(np.abs(expected[name]).max(initial=0)), 1e-3)
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=of.tolerance * scale, err_msg=name)


def derivative(
    nodes: onnx.NodeProto, x: np.ndarray, *, constants: Arrays | None = None, free: bool = False
) -> np.ndarray:
    """Derivative of the sum of y by x."""
    sides = {"x": [f"x{axis}" for axis in range(x.ndim)]} if free else None
    model = graph_of([nodes], {"x": x}, ["y"], constants=constants, sides=sides, opset=19)
    y = run_plainly(model, {"x": x})
    return gradients(model, {"x": x}, ["y"], ["x"], seeds={"y": np.ones_like(y)}, free=free)[0]["x"]
