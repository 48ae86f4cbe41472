"""The onnx package's nine ``light_*`` architectures, with seeded random weights so that numbers mean something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def light_models(tmp: Path) -> dict[str, Path]:
    """Write the nine models with random weights into ``tmp`` (once) and return them by name (``"light_vgg19"``)."""
    tmp.mkdir(parents=True, exist_ok=True)
    written = {}
    for source in sorted(LIGHT.glob("light_*.onnx")):
        target = tmp / source.name
        if not target.exists():
            part = target.with_suffix(".part")
            part.write_bytes(with_random_weights(onnx.load(source), seed=len(written)).SerializeToString())
            part.replace(target)
        written[source.stem] = target
    return written


def with_random_weights(model: onnx.ModelProto, *, seed: int) -> onnx.ModelProto:
    """Replace every ConstantOfShape of a constant shape by an initializer of random numbers (He et al. 2015, eq. 10).

    Like the rest of these IR 3 files, the new initializers are listed among the graph inputs.
    """
    random = np.random.default_rng(seed)
    graph = model.graph
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    roles = {name: (node, place) for node in graph.node for place, name in enumerate(node.input)}
    # Weights reach BatchNormalization-like Mul and Add through an Unsqueeze: the role is that of the last reader.
    kept, spent = [], set()
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        shape = [int(side) for side in numpy_helper.to_array(shapes[node.input[0]])]
        reader, place = roles[node.output[0]]
        while reader.op_type in ("Unsqueeze", "Identity"):
            reader, place = roles[reader.output[0]]
        weights = _draw(random, reader, place, shape).astype(np.float32)
        if reader.op_type == "BatchNormalization" and place == 1 and roles[reader.output[0]][0].op_type == "Sum":
            # Residual branches add up: kept small, or the last Softmax of a deep network answers 0 or 1 only.
            weights *= np.float32(0.25)
        graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape))
        spent.add(node.input[0])
    # A few statistics are the real ones, which do not go with random weights: some variances are 1e-14.
    for tensor in graph.initializer:
        reader, place = roles.get(tensor.name, (None, 0))
        if reader is not None and reader.op_type == "BatchNormalization" and place > 0 and tensor.name in shapes:
            values = _draw(random, reader, place, list(tensor.dims)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    del graph.node[:]
    graph.node.extend(kept)
    still_read = {name for node in graph.node for name in node.input}
    for field in (graph.initializer, graph.input):
        remaining = [entry for entry in field if entry.name not in spent or entry.name in still_read]
        del field[:]
        field.extend(remaining)
    return model


def _draw(random: np.random.Generator, reader: onnx.NodeProto, place: int, shape: list[int]) -> np.ndarray:
    if reader.op_type == "BatchNormalization":
        # scale, bias, mean, variance
        centre, spread = ((1.0, 0.1), (0.0, 0.1), (0.0, 0.1), (1.0, 0.1))[place - 1]
        return centre + spread * random.uniform(-1, 1, shape)
    if reader.op_type == "Mul":
        return 1.0 + 0.1 * random.uniform(-1, 1, shape)
    if len(shape) < 2:
        return 0.1 * random.standard_normal(shape)
    # Gemm here has transB, and convolutions are (out, in, ...): everything but the first axis is fan-in.
    fan_in = int(np.prod(shape[1:]))
    return random.standard_normal(shape) * np.sqrt(2.0 / fan_in)
