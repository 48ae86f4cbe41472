"""Derivatives of graphs of several operators, random ones too, as onnxruntime optimises them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from gradient_cases import differences, gradients, graph_of
from operator_cases import MOST, ints, unit_slopes
from random_arrays import RandomArrays

node = helper.make_node
floats = RandomArrays(0).floats


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
