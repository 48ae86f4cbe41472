"""A graph comes in; the same graph with its large weights beside it, not inside, goes out, and what lies beside it.

A graph with its weights inside is written and parsed whole for every session: two seconds for 550 MB. Beside it they
are handed over as arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

__all__ = ["LARGE", "WEIGHTS_FILE", "StoredWeight", "detach_weights", "place_beside", "stored_weights", "weight_bytes"]

WEIGHTS_FILE = "optimized.bin"
"""Where a graph says that its large weights are. Nothing need be there when they are handed over."""

LARGE = 1024
"""Bytes from which a weight lies beside its graph: what decides shapes stays inside."""


def detach_weights(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Take the large weights out of a graph, which then calls them external.

    Returns
    -------
    dict of name to array
        Weights of types that numpy knows; others stay inside, and those that already lie in files stay there.
    """
    taken = {}
    for tensor in model.graph.initializer:
        elements = math.prod(tensor.dims)
        if tensor.data_location == TensorProto.EXTERNAL or not tensor.HasField("raw_data") or elements == 0:
            continue
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if dtype.kind not in "fiub" or elements * dtype.itemsize < LARGE:
            continue
        raw = tensor.raw_data  # copied by each look at it
        if len(raw) != elements * dtype.itemsize:
            continue  # damaged: onnxruntime says so in its own words
        taken[tensor.name] = np.frombuffer(raw, dtype).reshape(tuple(tensor.dims))
        tensor.ClearField("raw_data")
        place_beside(tensor, taken[tensor.name].nbytes)
    return taken


def place_beside(tensor: TensorProto, length: int) -> None:
    """Say of a weight without numbers that ``length`` bytes of them lie beside the graph."""
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def weight_bytes(model: ModelProto) -> int:
    """Size of all initializers, wherever they lie; those of sub-byte types count as bytes."""
    return sum(
        math.prod(tensor.dims) * np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        for tensor in model.graph.initializer
        if tensor.data_type != TensorProto.STRING
    )


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
