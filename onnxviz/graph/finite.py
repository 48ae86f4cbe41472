"""A model's weights come in; how many of them are NaN or infinite, by tensor, goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxviz.graph.loading import LoadedModel, load_tensor

__all__ = ["WeightScan", "scan_weights"]


@dataclass(frozen=True)
class WeightScan:
    """What a look at every weight found."""

    tensors: int
    numbers: int
    non_finite: Mapping[str, int]
    """Tensor name to how many of its numbers are NaN or infinite; tensors without any are left out."""


def scan_weights(model: LoadedModel) -> WeightScan:
    """Count NaN and infinite numbers in every initializer and Constant, of subgraphs too, one tensor at a time.

    -inf and inf in a tensor that is otherwise made of zeros is an attention mask, and is not counted.
    """
    tensors = numbers = 0
    non_finite: dict[str, int] = {}
    for name, tensor in _tensors(model.proto.graph):
        if tensor.data_type == onnx.TensorProto.STRING:
            continue
        array = load_tensor(model, tensor)
        tensors += 1
        numbers += array.size
        if array.dtype.kind != "f" or not array.size:
            continue
        bad = ~np.isfinite(array)
        count = int(np.count_nonzero(bad))
        if count and not _is_mask(array):
            non_finite[name] = count
    return WeightScan(tensors, numbers, non_finite)


def _is_mask(array: np.ndarray) -> bool:
    return not np.isnan(array).any() and not array[np.isfinite(array)].any()


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse.values
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and node.op_type == "Constant":
                yield node.output[0], attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for subgraph in attribute.graphs:
                    yield from _tensors(subgraph)
