"""Channel shuffles come in as Reshape, Transpose, Reshape; they go out as a Gather, whatever the size of the map."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxviz.graph.regions.node import Shape
from onnxviz.graph.regions.propagation import read_by
from onnxviz.graph.wiring import attribute

__all__ = ["gather_shuffled_channels"]


def gather_shuffled_channels(
    proto: onnx.ModelProto, shapes: Mapping[str, Shape], *, keep: Collection[str]
) -> onnx.ModelProto:
    """Replace every shuffle of channels (Zhang et al. 2018, ShuffleNet) by the lookup that gives the same numbers.

    Parameters
    ----------
    proto : onnx.ModelProto
    shapes : mapping of value name to shape
        Concrete shapes, for a batch of one.
    keep : collection of str
        Values that must stay.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.graph.node:
        for name in read_by(node):
            readers.setdefault(name, []).append(node)
    replaced: dict[str, onnx.NodeProto] = {}
    dropped: set[str] = set()
    indices = []
    for first in proto.graph.node:
        found = _shuffle(first, readers, shapes, keep)
        if found is None:
            continue
        second, third, axis, order = found
        name = f"{third.output[0]}/channels"
        indices.append(numpy_helper.from_array(order, name))
        dropped |= {first.output[0], second.output[0]}
        replaced[third.output[0]] = helper.make_node(
            "Gather", [first.input[0], name], list(third.output), name=third.name, axis=axis
        )
    if not replaced:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    copy.graph.node.extend(
        replaced.get(node.output[0], node) if node.output else node
        for node in proto.graph.node
        if not node.output or node.output[0] not in dropped
    )
    copy.graph.initializer.extend(indices)
    return copy


def _shuffle(
    first: onnx.NodeProto,
    readers: Mapping[str, list[onnx.NodeProto]],
    shapes: Mapping[str, Shape],
    keep: Collection[str],
) -> tuple[onnx.NodeProto, onnx.NodeProto, int, np.ndarray] | None:
    """The two nodes that follow, the axis of the channels and their order; None where this is no shuffle."""
    chain = [first]
    for op_type in ("Transpose", "Reshape"):
        name = chain[-1].output[0] if chain[-1].output else ""
        if len(readers.get(name, ())) != 1 or name in keep or readers[name][0].op_type != op_type:
            return None
        chain.append(readers[name][0])
    if first.op_type != "Reshape":
        return None
    before, split, after = (shapes.get(name, ()) for name in (first.input[0], first.output[0], chain[2].output[0]))
    perm = list(attribute(chain[1], "perm", ()))
    for axis, expected in ((1, [0, 2, 1, 3, 4]), (3, [0, 1, 2, 4, 3])):
        whole = len(before) == 4 and len(split) == 5 and before == after
        if whole and perm == expected and (*before[:axis], *split[axis : axis + 2], *before[axis + 1 :]) == split:
            order = np.arange(before[axis]).reshape(split[axis : axis + 2]).T.ravel()
            return chain[1], chain[2], axis, order
    return None
