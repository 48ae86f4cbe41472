"""A graph comes in; its layers with weights, from the scores back, and a copy with some of them shuffled, go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxviz.graph.blocked import BLOCKED_DOMAIN, blocked_weights
from onnxviz.graph.taps import expose
from onnxviz.graph.wiring import Wiring

__all__ = ["WeightedLayer", "shuffle_weights", "weighted_layers"]

# Operator to the input that holds its weights.
_WEIGHTS = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "FusedConv": 1, "FusedMatMul": 1, "LSTM": 1, "GRU": 1,
    "RNN": 1, "QLinearConv": 3, "QLinearMatMul": 3, "ConvInteger": 1, "MatMulInteger": 1,
}  # fmt: skip


@dataclass(frozen=True)
class WeightedLayer:
    """One layer with learned weights."""

    value: str
    """The value that it makes."""
    weights: tuple[str, ...]
    """The stored tensors behind its weights."""


def weighted_layers(proto: onnx.ModelProto, output: str) -> tuple[WeightedLayer, ...]:
    """The layers that an output is computed by, from the one before it back to the input.

    Each stored tensor counts once, with the layer nearest to the output.

    Raises
    ------
    InputError
        The weights of one are reordered for onnxruntime's blocked layout, and numbers that fill up a block may be among
        them.
    """
    wiring = Wiring(proto)
    stored = wiring.initializers.keys() | {
        node.output[0] for node in proto.graph.node if node.op_type == "Constant" and node.output
    }
    needed, found, seen = {output}, [], set()
    for node in reversed(proto.graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(filter(None, node.input))
        place = _WEIGHTS.get(node.op_type)
        if place is not None and node.domain == BLOCKED_DOMAIN:
            raise blocked_weights(node.output[0], "shuffled")
        if place is None or place >= len(node.input):
            continue
        names = [name for name in _sources(node.input[place], wiring) if name in stored and name not in seen]
        large = [name for name in names if _rank(name, wiring) >= 2]
        if large:
            seen.update(large)
            found.append(WeightedLayer(node.output[0], tuple(large)))
    return tuple(found)


def _sources(name: str, wiring: Wiring) -> list[str]:
    """What a constant is computed from."""
    node = wiring.producer.get(name)
    if node is None or node.op_type == "Constant":
        return [name]
    if name not in wiring.constant_names:
        return []
    return _sources(node.input[0], wiring) if node.input else []


def _rank(name: str, wiring: Wiring) -> int:
    tensor = wiring.initializers.get(name)
    if tensor is not None:
        return len(tensor.dims)
    held = wiring.constant(name)
    return 0 if held is None else held.ndim


def shuffle_weights(
    proto: onnx.ModelProto, names: Sequence[str], outputs: Sequence[str], *, seed: int,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:  # fmt: skip
    """Copy a model with the numbers of some stored tensors in random order.

    Parameters
    ----------
    proto : onnx.ModelProto
        It is left as it is.
    names : sequence of str
        Initializers, or values of Constant nodes. Each is shuffled by itself, so its distribution stays.
    outputs : sequence of str
        The copy's outputs.
    seed : int
        The order of a tensor depends on it and on the tensor's place in ``names`` only.
    weights : mapping of name to array, optional
        Numbers of tensors that lie beside the model.

    Returns
    -------
    (onnx.ModelProto, dict of name to array)
        The copy, and the numbers of what lies beside it.
    """
    copy = expose(proto, outputs)
    beside = dict(weights or {})
    places = {name: place for place, name in enumerate(names)}
    for tensor in copy.graph.initializer:
        if tensor.name not in places:
            continue
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            beside[tensor.name] = _shuffled(beside[tensor.name], seed, places[tensor.name])
        else:
            array = _shuffled(numpy_helper.to_array(tensor), seed, places[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.output[0] in places:
            for entry in node.attribute:
                if entry.name == "value":
                    array = _shuffled(numpy_helper.to_array(entry.t), seed, places[node.output[0]])
                    entry.t.CopyFrom(numpy_helper.from_array(array, entry.t.name))
    return copy, beside


def _shuffled(array: NDArray[Any], seed: int, place: int) -> NDArray[Any]:
    flat = array.reshape(-1).copy()
    np.random.default_rng((seed, place)).shuffle(flat)
    return flat.reshape(array.shape)
