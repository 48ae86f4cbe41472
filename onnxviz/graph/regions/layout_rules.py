"""Rules of the operators that move elements without mixing them: reshapes, transposes, joins, cuts, pads, lookups."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxviz.graph.regions.axis_maps import AxisMap, Nominal, Same, Taps, Whole, shift
from onnxviz.graph.regions.box_maps import BoxMap, Chain, PerAxis, Regroup
from onnxviz.graph.regions.node import Operator, Shape

__all__ = [
    "concat", "cut", "depth_to_space", "gather", "pad", "reorder", "reshape", "space_to_depth", "split", "tile",
    "transpose",
]  # fmt: skip

Link = tuple[int | None, AxisMap]


def _one_axis(shape: Shape, axis: int, axis_map: AxisMap, output_shape: Shape) -> PerAxis:
    links: list[Link] = [(other, Same()) for other in range(len(shape))]
    links[axis] = (axis, axis_map)
    return PerAxis(tuple(links), output_shape)


def _permuted(shape: Shape, order: list[int]) -> PerAxis:
    links: list[Link] = [(order.index(axis), Same()) for axis in range(len(shape))]
    return PerAxis(tuple(links), tuple(shape[axis] for axis in order))


def reshape(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Reshape, Flatten, Squeeze, Unsqueeze: the concrete shapes tell everything."""
    return Regroup(operator.shape_in(0), operator.shape_out(output)) if number == 0 else None


def transpose(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Transpose."""
    shape = operator.shape_in(number)
    turned = _permuted(shape, list(operator.attributes.get("perm") or range(len(shape))[::-1]))
    return turned if turned.output_shape == operator.shape_out(output) else None


def reorder(operator: Operator, number: int, output: int) -> BoxMap | None:
    """ReorderInput, ReorderOutput, into onnxruntime's blocked layout and out of it; channels may be padded there."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    last = list(range(1, len(shape) - 1))
    first = list(range(2, len(shape)))
    moved = bool(operator.attributes.get("channels_last"))
    source = last if moved and operator.op_type == "ReorderInput" else first
    target = last if moved and operator.op_type == "ReorderOutput" else first
    links: list[Link] = [(None, Whole(length)) for length in shape]
    links[0] = (0, Same())
    for axis, output_axis in zip(source, target, strict=True):
        links[axis] = (output_axis, Same())
    return PerAxis(tuple(links), outputs)


def concat(operator: Operator, number: int, output: int, *, first: int = 0, every: int = 1) -> BoxMap | None:
    """Concat; the parts are the inputs ``first``, ``first + every``, ..."""
    if number < first or (number - first) % every:
        return None
    outputs = operator.shape_out(output)
    axis = operator.axis(1, len(outputs))
    before = sum(operator.shape_in(other)[axis] for other in range(first, number, every))
    shape = operator.shape_in(number)
    part = shift(inputs=shape[axis], outputs=outputs[axis], start=-before, clip=True)
    return _one_axis(shape, axis, part, outputs)


def split(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Split: where a part begins follows from the sizes of the parts before it."""
    if number != 0:
        return None
    shape = operator.shape_in(0)
    axis = operator.axis(0, len(shape))
    before = sum(operator.shape_out(other)[axis] for other in range(output))
    outputs = operator.shape_out(output)
    return _one_axis(shape, axis, shift(inputs=shape[axis], outputs=outputs[axis], start=before), outputs)


def cut(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Slice, steps of either sign included."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    starts = operator.integers(1, "starts") or []
    axes = operator.integers(3, "axes") or list(range(len(starts)))
    steps = operator.integers(4) or [1] * len(starts)
    links: list[Link] = [(axis, Same()) for axis in range(len(shape))]
    for start, wanted, step in zip(starts, axes, steps, strict=True):
        axis = wanted + len(shape) if wanted < 0 else wanted
        length = shape[axis]
        begin = start + length if start < 0 else start
        begin = min(max(begin, 0), length if step > 0 else length - 1)
        links[axis] = (axis, shift(inputs=length, outputs=outputs[axis], start=begin, step=step))
    return PerAxis(tuple(links), outputs)


def pad(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Pad: a constant border reads nothing; edge, reflect and wrap read the element that they repeat."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    amounts = operator.integers(1, "pads") or [0] * (2 * len(shape))
    axes = operator.integers(3) or list(range(len(shape)))
    mode = operator.attributes.get("mode", "constant")
    links: list[Link] = [(axis, Same()) for axis in range(len(shape))]
    for before, wanted in zip(amounts[: len(axes)], axes, strict=True):
        axis = wanted + len(shape) if wanted < 0 else wanted
        reads = np.arange(outputs[axis]) - before
        length = shape[axis]
        if mode == "edge":
            reads = np.clip(reads, 0, length - 1)
        elif mode == "reflect":
            # A border wider than the axis swings back and forth between its two ends.
            period = max(2 * (length - 1), 1)
            reads = (length - 1) - np.abs((length - 1) - reads % period) if length > 1 else np.zeros_like(reads)
        elif mode == "wrap":
            reads = reads % length
        elif mode != "constant":
            return None
        links[axis] = (axis, Taps(reads[:, None], length, Nominal(1, -before, -before)))
    return PerAxis(tuple(links), outputs)


def gather(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Gather along one axis: by constant indices, or a constant table looked up by data."""
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    axis = operator.axis(0, len(shape))
    lookup = operator.shape_in(1)
    if number == 1:
        return PerAxis(tuple((axis + i, Same()) for i in range(len(lookup))), outputs)
    indices = operator.integers(1)
    if indices is None:
        return None
    reads = np.asarray(indices, np.int64)
    reads = np.where(reads < 0, reads + shape[axis], reads)
    one_axis = (*shape[:axis], max(len(reads), 1), *shape[axis + 1 :])
    return Chain((_one_axis(shape, axis, Taps(reads[:, None], shape[axis]), one_axis), Regroup(one_axis, outputs)))


def tile(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Tile: output u reads u modulo the input's length."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    links: list[Link] = []
    for axis, (length, longer) in enumerate(zip(shape, outputs, strict=True)):
        if length == longer:
            links.append((axis, Same()))
        elif length == 1:
            links.append((None, Whole(1)))
        else:
            links.append((axis, Taps(np.arange(longer)[:, None] % length, length)))
    return PerAxis(tuple(links), outputs)


def depth_to_space(operator: Operator, number: int, output: int) -> BoxMap | None:
    """DepthToSpace, both orders of the block: a reshape, a transpose and a reshape, as the standard defines it."""
    n, c, h, w = operator.shape_in(number)
    b = int(operator.attributes["blocksize"])
    if operator.attributes.get("mode", "DCR") == "DCR":
        split_shape, order = (n, b, b, c // b**2, h, w), [0, 3, 4, 1, 5, 2]
    else:
        split_shape, order = (n, c // b**2, b, b, h, w), [0, 1, 4, 2, 5, 3]
    return _rearranged((n, c, h, w), split_shape, order, operator.shape_out(output))


def space_to_depth(operator: Operator, number: int, output: int) -> BoxMap | None:
    """SpaceToDepth."""
    n, c, h, w = operator.shape_in(number)
    b = int(operator.attributes["blocksize"])
    return _rearranged((n, c, h, w), (n, c, h // b, b, w // b, b), [0, 3, 5, 1, 2, 4], operator.shape_out(output))


def _rearranged(shape: Shape, split_shape: Shape, order: list[int], outputs: Shape) -> BoxMap | None:
    if prod(split_shape) != prod(shape):
        return None
    turned = _permuted(split_shape, order)
    return Chain((Regroup(shape, split_shape), turned, Regroup(turned.output_shape, outputs)))
