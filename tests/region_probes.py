"""What the tests of receptive fields stand on: networks with dense random weights, and probes that run them.

Everything runs without graph optimisation, so that a unit whose inputs are the same is the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def real_input(proto: onnx.ModelProto) -> onnx.ValueInfoProto:
    initializers = {tensor.name for tensor in proto.graph.initializer}
    return next(entry for entry in proto.graph.input if entry.name not in initializers)


def input_shape(proto: onnx.ModelProto) -> tuple[int, ...]:
    dims = real_input(proto).type.tensor_type.shape.dim
    return tuple(dim.dim_value or 1 for dim in dims)


def exposed(proto: onnx.ModelProto, names: list[str] | None = None) -> onnx.ModelProto:
    """A copy whose outputs are the named values, or all of them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if names is None:
        names = [name for node in proto.graph.node for name in node.output if name]
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_value_info(name, onnx.TypeProto()) for name in names)
    return copy


def shapes_of(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, tuple[int, ...]]:
    run = session(exposed(proto))
    names = [output.name for output in run.get_outputs()]
    arrays = run.run(None, {real_input(proto).name: x})
    found = {name: array.shape for name, array in zip(names, arrays, strict=True)}
    found[real_input(proto).name] = x.shape
    return found


def densely_random(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """A copy with dense random weights, and every kink that hides a small change made a slope.

    ConstantOfShape weights become numbers, all float weights of two axes or more are drawn anew (the outer taps of a
    kernel larger than the inner ones, so that the rim of a field keeps its say over many layers), Relu and Clip become
    LeakyRelu. The topology stays.
    """
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    shapes = {t.name: numpy_helper.to_array(t) for t in copy.graph.initializer if len(t.dims) == 1}
    nodes, drawn = [], {}
    statistics = {
        name: place
        for node in copy.graph.node
        if node.op_type == "BatchNormalization"
        for place, name in enumerate(node.input)
        if place > 0
    }
    for node in copy.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes and node.output[0] not in drawn:
            shape = tuple(int(n) for n in shapes[node.input[0]])
            place = statistics.get(node.output[0])
            drawn[node.output[0]] = np.ones(shape, np.float32) if place == 4 else _drawn(rng, shape)
            continue
        is_kink = node.op_type in ("Relu", "Clip")
        slope = helper.make_node("LeakyRelu", node.input[:1], node.output, node.name, alpha=0.5) if is_kink else node
        nodes.append(slope)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    kept = []
    used = {name for node in nodes for name in node.input}
    for tensor in copy.graph.initializer:
        if tensor.name not in used:
            continue
        is_weight = tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2
        kept.append(numpy_helper.from_array(_drawn(rng, tuple(tensor.dims)), tensor.name) if is_weight else tensor)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in drawn.items())
    names = {tensor.name for tensor in copy.graph.initializer}
    inputs = [entry for entry in copy.graph.input if entry.name in names or entry.name in used]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def _drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    weights = rng.normal(size=shape)
    if len(shape) == 1:
        return (1 + 0.2 * weights).astype(np.float32)
    for axis in range(2, len(shape)):
        rim = np.ones(shape[axis])
        rim[[0, -1]] = 2
        weights *= rim.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    return (weights / np.sqrt((weights**2).sum() / shape[0])).astype(np.float32)


@dataclass
class Probe:
    """Runs one value of a network on an image and on the same image changed in a rectangle."""

    proto: onnx.ModelProto
    value: str
    image: np.ndarray
    row_axis: int
    seed: int = 0
    tries: int = 3

    def __post_init__(self) -> None:
        self.name = real_input(self.proto).name
        self.session = session(exposed(self.proto, [self.value]))
        self.clean = self.run(self.image)
        self.rng = np.random.default_rng(self.seed)

    def run(self, image: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.name: image})[0]

    def changed(self, inside: np.ndarray) -> np.ndarray:
        """Which elements of the value change, in any bit, when the pixels of the mask (height, width) change."""
        mask = inside[None, None] if self.row_axis == 2 else inside[None, :, :, None]
        found = np.zeros(self.clean.shape, bool)
        for _ in range(self.tries):
            if self.image.dtype == np.float32:
                noise = (1000 * self.rng.normal(size=self.image.shape)).astype(np.float32)
            else:
                limits = np.iinfo(self.image.dtype)
                noise = self.rng.integers(limits.min, limits.max + 1, self.image.shape).astype(self.image.dtype)
            other = self.run(np.where(mask, noise, self.image))
            width = self.clean.dtype.itemsize
            bits = f"u{width}"
            found |= np.ascontiguousarray(other).view(bits) != np.ascontiguousarray(self.clean).view(bits)
        return found


def load_light(name: str) -> onnx.ModelProto:
    return onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")
