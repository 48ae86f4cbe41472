"""A model and the name of a convolution's value come in; its weights, as real numbers in one order of axes, go out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxviz.errors import InputError, ModelError, ValueNotFoundError, near_misses
from onnxviz.graph.blocked import BLOCKED_DOMAIN, blocked_weights
from onnxviz.graph.contract import find_image_input
from onnxviz.graph.loading import LoadedModel, load_tensor
from onnxviz.graph.wiring import PASS_THROUGH, Wiring, attribute, node_label

__all__ = ["ConvolutionWeights", "convolution_weights", "first_convolution", "list_convolutions"]

_CONVOLUTIONS = {
    "Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1, "DeformConv": 1,
    "QLinearConvTranspose": 3, "NhwcFusedConv": 1,
}  # fmt: skip
_TRANSPOSED = ("ConvTranspose", "QLinearConvTranspose")
# What may stand right behind a convolution and still be called by its name: its bias, scaling and activation.
_BEHIND = PASS_THROUGH | {
    "Add", "Sub", "Mul", "Div", "BatchNormalization", "InstanceNormalization", "GroupNormalization", "Relu", "Clip",
    "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "Mish", "Tanh", "Softplus",
    "Transpose", "ReorderOutput",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ConvolutionWeights:
    """The weights of one convolution."""

    value: str
    """The value that the convolution makes."""
    node: str
    """Its node."""
    weight_name: str
    """The stored tensor that the weights come from."""
    weights: NDArray[np.float32]
    """(O, I/g, kh, kw): output channels, input channels per group, kernel height and width; dequantised. Kernels of one
    dimension have height 1. A transposed convolution's kernel is as stored, not turned."""
    groups: int


def list_convolutions(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The values that convolutions make, in computing order; transposed ones and quantised ones too.

    Those whose weights are reordered for onnxruntime's blocked layout are left out: they cannot be read.
    """
    return tuple(
        node.output[0]
        for node in proto.graph.node
        if node.op_type in _CONVOLUTIONS and node.domain != BLOCKED_DOMAIN and node.output
    )


def first_convolution(proto: onnx.ModelProto) -> str | None:
    """The value of the convolution that sees the image: the first with no other convolution before it.

    Returns
    -------
    str or None
        None where no convolution depends on an input. Without an image input the first real input counts.
    """
    wiring = Wiring(proto)
    image = find_image_input(proto)
    sources = {image.name} if image is not None else set(wiring.inputs)
    reached = set(sources)
    for node in proto.graph.node:
        if not any(name in reached for name in node.input):
            continue
        if node.op_type in _CONVOLUTIONS and node.input[0] in reached:
            return str(node.output[0])
        reached.update(filter(None, node.output))
    return None


def convolution_weights(model: LoadedModel, value: str) -> ConvolutionWeights:
    """Find the weights behind a convolution's value.

    Parameters
    ----------
    model : LoadedModel
        The model.
    value : str
        The value that the convolution makes, or one right behind it (bias, normalisation, activation, quantisation).

    Returns
    -------
    ConvolutionWeights
        As stored, and dequantised; a normalisation behind the convolution is not multiplied in. Followed through
        Identity, Constant, Cast, DequantizeLinear, Transpose and Reshape.

    Raises
    ------
    ValueNotFoundError
        No such value, or none that a convolution makes; the message names convolutions.
    InputError
        The kernel has three spatial axes, or the weights are computed from the network's input or reordered for
        onnxruntime's blocked layout.
    """
    proto = model.proto
    wiring = Wiring(proto)
    node = _convolution_behind(value, wiring, proto)
    if node.domain == BLOCKED_DOMAIN:
        raise blocked_weights(value, "shown")
    position = next(i for i, candidate in enumerate(proto.graph.node) if candidate is node or candidate == node)
    label = node_label(node, position)
    name = node.input[_CONVOLUTIONS[node.op_type]]
    outside = {
        tensor.name: load_tensor(model, tensor)
        for tensor in _sources(name, wiring)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    stored = Wiring(proto, tensors=outside).constant(name) if outside else wiring.constant(name)
    if stored is None:
        why = (
            "the graph computes them in a way that is not followed"
            if name in wiring.constant_names
            else "they are computed from the network's input"
        )
        raise InputError(
            "the weights of this convolution are not stored in the model", where=f"value {value!r}", got=why,
            allowed=near_misses(value, (other for other in list_convolutions(proto) if other != node.output[0])),
        )  # fmt: skip
    weights = _real_numbers(stored, node, wiring)
    if weights.ndim not in (3, 4):
        raise InputError(
            "only kernels of one or two dimensions can be shown", where=f"value {value!r}",
            got=f"weights of shape {weights.shape}", allowed="3 or 4 axes",
        )  # fmt: skip
    groups = int(attribute(node, "group", 1))
    if groups < 1 or weights.shape[0] % groups:
        raise ModelError(
            "the number of groups does not divide the convolution's filters", where=f"node {label!r}",
            got=f"{groups} groups, weights of shape {weights.shape}",
        )  # fmt: skip
    if weights.ndim == 3:
        weights = weights[:, :, np.newaxis, :]
    if node.op_type in _TRANSPOSED:
        weights = _outputs_first(weights, groups)
    if node.op_type == "NhwcFusedConv":
        weights = weights.transpose(0, 3, 1, 2)
    return ConvolutionWeights(
        value=node.output[0], node=label, weight_name=_largest(name, wiring),
        weights=np.ascontiguousarray(weights, dtype=np.float32), groups=groups,
    )  # fmt: skip


def _convolution_behind(value: str, wiring: Wiring, proto: onnx.ModelProto) -> onnx.NodeProto:
    names = list_convolutions(proto)
    name = value
    while (node := wiring.producer.get(name)) is not None:
        if node.op_type in _CONVOLUTIONS:
            return node
        data = [entry for entry in node.input if entry and entry not in wiring.constant_names]
        # x * sigmoid(x), the way some exporters write Swish, has two data inputs of which one comes from the other.
        if len(data) == 2 and node.op_type == "Mul":
            squashed = [e for e in data if (p := wiring.producer.get(e)) is not None and set(p.input) & set(data)]
            data = [entry for entry in data if entry not in squashed] if len(squashed) == 1 else data
        if node.op_type not in _BEHIND or len(data) != 1:
            break
        name = data[0]
    known = value in wiring.producer or value in wiring.inputs or value in wiring.initializers
    raise ValueNotFoundError(
        "no convolution makes this value" if known else "no value of the graph has this name",
        where="value", got=repr(value),
        allowed=near_misses(value, names) or "nothing: the network has no convolution whose weights can be read",
    )  # fmt: skip


def _sources(name: str, wiring: Wiring) -> Iterator[onnx.TensorProto]:
    """The stored tensors that a constant is made from."""
    waiting, seen = [name], set()
    while waiting:
        current = waiting.pop()
        if current in seen or not current:
            continue
        seen.add(current)
        if current in wiring.initializers:
            yield wiring.initializers[current]
        elif current in wiring.producer:
            waiting.extend(wiring.producer[current].input)


def _largest(name: str, wiring: Wiring) -> str:
    """The stored tensor that holds the weights themselves, not their scales and zero points."""
    tensors = list(_sources(name, wiring))
    if tensors:
        return max(tensors, key=lambda tensor: int(np.prod(tensor.dims, dtype=object))).name
    node = wiring.producer.get(name)
    while node is not None and node.op_type != "Constant" and node.input:
        name = node.input[0]
        node = wiring.producer.get(name)
    return name


def _real_numbers(stored: NDArray[Any], node: onnx.NodeProto, wiring: Wiring) -> NDArray[np.float32]:
    """Undo the quantisation that the convolution itself would undo."""
    real = stored.astype(np.float32)
    if node.op_type in ("QLinearConv", "QLinearConvTranspose"):
        scale, zero = (wiring.constant(node.input[place]) for place in (4, 5))
        if scale is not None:
            axis = 1 if node.op_type == "QLinearConvTranspose" else 0
            real = (real - _along(zero, real.ndim, axis)) * _along(scale, real.ndim, axis)
    elif node.op_type == "ConvInteger":
        zero = wiring.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        real = (real - _along(zero, real.ndim, 0)) * _along(_scale_behind(node, wiring), real.ndim, 0)
    return np.asarray(real, np.float32)


def _along(parameter: NDArray[Any] | None, axes: int, axis: int) -> NDArray[np.float32] | np.float32:
    if parameter is None:
        return np.float32(0)
    if parameter.size == 1:
        return np.float32(parameter.ravel()[0])
    sides = [1] * axes
    sides[axis] = -1
    return np.asarray(parameter, np.float32).reshape(sides)


def _scale_behind(node: onnx.NodeProto, wiring: Wiring) -> NDArray[Any]:
    """The weights' scale of a ConvInteger: dynamic quantisation multiplies the result by it and the input's scale."""
    name = node.output[0]
    for _ in range(3):
        for reader in wiring.readers.get(name, []):
            if reader.op_type == "Cast":
                name = reader.output[0]
                break
            if reader.op_type == "Mul":
                other = next((entry for entry in reader.input if entry != name), "")
                product = wiring.producer.get(other)
                entries = [other, *(product.input if product is not None else [])]
                found = next((scale for entry in entries if (scale := wiring.constant(entry)) is not None), None)
                if found is not None:
                    return found
    return np.ones(1, np.float32)


def _outputs_first(weights: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """(I, O/g, kh, kw) as transposed convolutions store it, to (O, I/g, kh, kw)."""
    inputs, outputs, height, width = weights.shape
    grouped = weights.reshape(groups, inputs // groups, outputs, height, width).transpose(0, 2, 1, 3, 4)
    return grouped.reshape(groups * outputs, inputs // groups, height, width)
