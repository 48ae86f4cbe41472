"""A graph comes in; the same graph with its large weights beside it, not inside, goes out, and what lies beside it.

A graph with its weights inside is written and parsed whole for every session: two seconds for 550 MB. Beside it they
are handed over as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxviz.graph.wiring import captured_names

__all__ = [
    "LARGE", "WEIGHTS_FILE", "StoredWeight", "can_lie_beside", "detach_weights", "lay_out", "place_beside",
    "product_factors", "put_beside", "stated_bytes", "stored_weights", "take_inside", "weight_bytes", "with_inputs",
]  # fmt: skip

WEIGHTS_FILE = "optimized.bin"
"""Where a graph says that its large weights are. Nothing need be there when they are handed over."""

LARGE = 1024
"""Bytes from which a weight lies beside its graph: what decides shapes stays inside."""


def detach_weights(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Take the large weights out of a graph, which then calls them external.

    Returns
    -------
    dict of name to array
        Weights of types that numpy knows; others stay inside, and those that already lie beside the graph stay there.
    """
    taken = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or not tensor.HasField("raw_data") or 0 in tensor.dims:
            continue
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        size = stated_bytes(tensor)
        if dtype.kind not in "fiub" or size < LARGE:
            continue
        raw = tensor.raw_data  # copied by each look at it
        if len(raw) != size:
            continue  # damaged: onnxruntime says so in its own words
        taken[tensor.name] = np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))
        place_beside(tensor, size)
    return taken


def can_lie_beside(tensor: TensorProto) -> bool:
    """Whether a heavy weight is held as an array: real numbers, or integers of quantised weights.

    Wider integers may decide shapes and regions, which are told from the graph alone.
    """
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return False
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError:
        return False
    return dtype.kind == "f" or (dtype.kind in "iu" and dtype.itemsize == 1)


def put_beside(tensor: TensorProto, content: NDArray[np.uint8]) -> NDArray[Any]:
    """Call a weight external whose bytes lie in memory, and give its numbers, which nobody may change."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    numbers = content.view(dtype).reshape(tuple(tensor.dims))
    numbers.flags.writeable = False
    place_beside(tensor, content.nbytes)
    return numbers


def place_beside(tensor: TensorProto, length: int) -> None:
    """Say of a weight that its numbers, ``length`` bytes, lie beside the graph."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def take_inside(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> ModelProto:
    """Bring the weights that lie beside a graph into it, in place, so that it is whole; the same model."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model


def lay_out(model: ModelProto, weights: Mapping[str, NDArray[Any]], location: str) -> list[NDArray[Any]]:
    """Give the weights that lie beside a graph their places in a file of that name; what to write, in this order."""
    parts: list[NDArray[Any]] = []
    offset = 0
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            array = weights[tensor.name]
            del tensor.external_data[:]
            for key, value in (("location", location), ("offset", str(offset)), ("length", str(array.nbytes))):
                tensor.external_data.add(key=key, value=value)
            parts.append(array)
            offset += array.nbytes
    return parts


def stated_bytes(tensor: TensorProto) -> int:
    """Size of a tensor by its shape and type; of sub-byte types every number counts as a byte."""
    elements: int = math.prod(tensor.dims)
    return elements * int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def weight_bytes(model: ModelProto) -> int:
    """Size of all initializers, wherever they lie."""
    return sum(stated_bytes(tensor) for tensor in model.graph.initializer if tensor.data_type != TensorProto.STRING)


def product_factors(model: ModelProto, names: Collection[str]) -> set[str]:
    """Those of the named weights that are nothing but the second factor of matrix products, transposed or not."""
    graph = model.graph
    found = set(names)
    source = {name: name for name in names}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
    for node in graph.node:
        if node.op_type == "Transpose":
            continue
        product = node.op_type in ("MatMul", "Gemm") and not node.domain
        elsewhere = {name for place, name in enumerate(node.input) if place != 1 or not product}
        found -= {source[name] for name in elsewhere | captured_names(node) if name in source}
    return found - {source[value.name] for value in graph.output if value.name in source}


def with_inputs(model: ModelProto, names: Collection[str]) -> ModelProto:
    """A copy that takes weights which lie beside it as inputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for tensor in graph.initializer:
        if tensor.name in names:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return copy


@dataclass(frozen=True)
class StoredWeight:
    """Where a weight lies in the file beside its graph."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def stored_weights(model: ModelProto) -> dict[str, StoredWeight]:
    """The weights that lie beside a graph, by name."""
    found = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
            found[tensor.name] = StoredWeight(dtype, tuple(tensor.dims), int(place.get("offset", 0)))
    return found
