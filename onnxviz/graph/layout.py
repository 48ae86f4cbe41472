"""A graph and the layout of its image input come in; which axis of every value holds the channels goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from onnxviz.graph.wiring import attribute

__all__ = ["channel_axes"]

# Operators that fix the channel axis of their output, whatever came in: the ONNX standard defines them channel-first,
# and onnxruntime has some of them channel-last where an attribute says so.
_CHANNEL_FIRST = frozenset(
    {
        "Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "FusedConv", "QLinearAveragePool",
        "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool",
        "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth",
        "ReorderOutput",
    }
)  # fmt: skip
_CHANNEL_LAST = frozenset({"MatMul", "Gemm", "QLinearMatMul", "MatMulInteger", "LayerNormalization"})


def channel_axes(
    proto: onnx.ModelProto, *, ranks: Mapping[str, int], image_input: str | None, image_layout: str
) -> dict[str, int]:
    """Find the channel axis of every value with at least three axes.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    ranks : mapping of value name to number of axes
        As found by a run.
    image_input : str or None
        Name of the image input.
    image_layout : str
        ``"NCHW"`` or ``"NHWC"``.

    Returns
    -------
    dict of value name to axis
        Followed from the input through the graph; ``Transpose`` moves it, convolutions and pools fix it at 1, matrix
        products at the last axis, everything else keeps the axis of its first input of the same rank. Where nothing
        tells, 1 for four axes or more and the last for three (token sequences).
    """
    axes: dict[str, int] = {}
    if image_input is not None and image_input in ranks:
        axes[image_input] = ranks[image_input] - 1 if image_layout == "NHWC" else 1
    for node in proto.graph.node:
        for output in node.output:
            rank = ranks.get(output, 0)
            if rank >= 3:
                axes[output] = _axis_after(node, rank, ranks, axes)
    return axes


def _axis_after(node: onnx.NodeProto, rank: int, ranks: Mapping[str, int], axes: Mapping[str, int]) -> int:
    by_default = 1 if rank >= 4 else rank - 1
    if node.op_type in _CHANNEL_FIRST:
        return rank - 1 if attribute(node, "channels_last", 0) else 1
    if node.op_type in _CHANNEL_LAST:
        return rank - 1
    followed = [name for name in node.input if name in axes and ranks.get(name) == rank]
    if not followed:
        return by_default
    if node.op_type == "Transpose":
        order = _order(node, rank)
        return order.index(axes[followed[0]])
    if node.op_type == "Reshape" and axes[followed[0]] >= rank:
        return by_default
    return axes[followed[0]]


def _order(node: onnx.NodeProto, rank: int) -> Sequence[int]:
    return [int(axis) for axis in attribute(node, "perm", range(rank)[::-1])]
