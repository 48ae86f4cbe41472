"""An operator that rearranges its input, and the input's batch axis, come in; see :mod:`onnxviz.graph.batch_rules`.

Reshape, Slice, Concat and the like: these are where a fixed batch is written as a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from onnxviz.graph.batch_state import (
    PROBE,
    BatchAxis,
    BatchState,
    CannotRewrite,
    carried_inputs,
    data_axis,
    give_outputs,
    positive_axis,
    resolve_sides,
)
from onnxviz.graph.wiring import attribute

__all__ = [
    "concat", "expand", "flatten", "gather", "pad", "reshape", "resize", "shape_of", "slice_", "split", "squeeze",
    "tile", "transpose", "unsqueeze",
]  # fmt: skip

_END = (1 << 63) - 1


def transpose(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch moves with its axis."""
    batch = data_axis(node, state)
    order = attribute(node, "perm")
    order = list(order) if order else list(range(len(state.shape(node.input[0]))))[::-1]
    give_outputs(node, state, batch.moved(order.index(batch.axis)))
    state.keep(node)


def reshape(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated side that holds the batch becomes -1; a -1 elsewhere becomes the number it stood for."""
    data, sides = node.input[0], node.input[1]
    if sides in state.sized:
        stated, probed = state.sized[sides]
        target = resolve_sides(state.shape(data), stated.tolist())
        grown = resolve_sides(state.probe_shape(data), probed.tolist())
        state.shapes[node.output[0]] = target
        place = state.differing_axis(target, grown).axis
        readings = [BatchAxis(place, target[place] // state.batch)]
        if data in state.axes:
            readings = _readings(state.shape(data), state.axes[data], target, state.batch)
            readings = [reading for reading in readings if reading.axis == place]
        if not readings:
            raise CannotRewrite("Reshape moves the batch")
        give_outputs(node, state, readings[0])
        state.keep(node)
        return
    batch = data_axis(node, state)
    stated_sides = state.fixed(sides)
    source = state.shape(data)
    target = resolve_sides(source, stated_sides)
    reading = state.choose(_readings(source, batch, target, state.batch))
    place = reading.axis
    patched = list(stated_sides)
    if not (patched[place] == -1 or (patched[place] == 0 and place == batch.axis)):
        patched[place] = -1
    # Only one side may be left open, and a copied side must not be the batch's.
    patched = [
        target[i] if i != place and (side == -1 or (side == 0 and i == batch.axis)) else side
        for i, side in enumerate(patched)
    ]
    state.shapes[node.output[0]] = target
    give_outputs(node, state, reading)
    copy = state.keep(node)
    if patched != stated_sides:
        copy.input[1] = state.store(patched, near=node.output[0])


def _readings(source: Sequence[int], batch: BatchAxis, target: Sequence[int], size: int) -> list[BatchAxis]:
    """Where the batch can lie after a Reshape, likeliest first: what lay before it still does, on its axis or others.

    Sides of 1 and a batch of 1 leave several readings; with more images only the one that the exporter meant runs.
    """
    before = math.prod(source[: batch.axis]) * batch.outer
    readings = []
    for place, side in enumerate(target):
        ahead = math.prod(target[:place])
        if ahead and before % ahead == 0 and side > 0 and side % (before // ahead * size) == 0:
            outer = before // ahead
            readings.append(BatchAxis(place, side // (outer * size), outer))
    if not readings:
        raise CannotRewrite("Reshape merges the batch with what lies before it")
    side_before = source[batch.axis]
    return sorted(readings, key=lambda r: (r.outer != 1, target[r.axis] != side_before, r.axis != batch.axis, r.axis))


def flatten(node: onnx.NodeProto, state: BatchState) -> None:
    """The batch stays in first place."""
    batch = data_axis(node, state)
    axis = attribute(node, "axis", 1)
    sides = state.shape(node.input[0])
    axis = positive_axis(int(axis), len(sides))
    if batch.axis != 0 or (axis == 0 and sides[0] != 1):
        raise CannotRewrite("Flatten merges the batch with what lies before it")
    copy = state.keep(node)
    if axis == 0:
        # For one image (1, everything) either way.
        axis = 1
        del copy.attribute[:]
        copy.attribute.append(onnx.helper.make_attribute("axis", 1))
    give_outputs(node, state, BatchAxis(0, batch.factor * math.prod(sides[1:axis]), batch.outer))


def squeeze(node: onnx.NodeProto, state: BatchState) -> None:
    """Sides of 1 go, the batch's must not."""
    batch = data_axis(node, state)
    axes = _listed_axes(node, state)
    sides = state.shape(node.input[0])
    gone = (
        {positive_axis(axis, len(sides)) for axis in axes} if axes else {i for i, side in enumerate(sides) if side == 1}
    )
    if batch.axis in gone or (not axes and sides[batch.axis] == 1):
        raise CannotRewrite("Squeeze removes the batch's axis")
    give_outputs(node, state, batch.moved(batch.axis - sum(axis < batch.axis for axis in gone)))
    state.keep(node)


def unsqueeze(node: onnx.NodeProto, state: BatchState) -> None:
    """Sides of 1 come in."""
    batch = data_axis(node, state)
    axes = _listed_axes(node, state)
    rank = len(state.shape(node.input[0])) + len(axes)
    fresh = {positive_axis(axis, rank) for axis in axes}
    kept = [axis for axis in range(rank) if axis not in fresh]
    give_outputs(node, state, batch.moved(kept[batch.axis]))
    state.keep(node)


def _listed_axes(node: onnx.NodeProto, state: BatchState) -> list[int]:
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = state.fixed(node.input[1])
    return [int(axis) for axis in axes or []]


def concat(node: onnx.NodeProto, state: BatchState) -> None:
    """Parts without batch, such as a class token, are repeated for every image."""
    carried = carried_inputs(node, state)
    found = {state.axes[name] for name in carried}
    if len(found) != 1:
        raise CannotRewrite("Concat of values whose batches lie on different axes")
    batch = found.pop()
    rank = len(state.shape(carried[0]))
    if positive_axis(int(attribute(node, "axis", 1)), rank) == batch.axis:
        raise CannotRewrite("Concat along the batch")
    parts = [
        name if name in state.axes else state.repeat_over_batch(name, batch.axis, reference=carried[0])
        for name in node.input
    ]
    copy = state.keep(node)
    del copy.input[:]
    copy.input.extend(parts)
    give_outputs(node, state, batch)


def split(node: onnx.NodeProto, state: BatchState) -> None:
    """Parts along another axis."""
    batch = data_axis(node, state)
    rank = len(state.shape(node.input[0]))
    if positive_axis(int(attribute(node, "axis", 0)), rank) == batch.axis:
        raise CannotRewrite("Split along the batch")
    give_outputs(node, state, batch)
    state.keep(node)


def slice_(node: onnx.NodeProto, state: BatchState) -> None:
    """A range along the batch must be all of it, and then becomes open-ended."""
    batch = data_axis(node, state)
    sides = state.shape(node.input[0])
    by_input = len(node.input) > 1
    starts, ends = (
        (state.both(node.input[place])[0].tolist() for place in (1, 2))
        if by_input
        else (list(attribute(node, key)) for key in ("starts", "ends"))
    )
    axes: list[int] = list(range(len(starts)))
    if by_input and len(node.input) > 3 and node.input[3]:
        axes = state.fixed(node.input[3])
    elif not by_input and attribute(node, "axes"):
        axes = list(attribute(node, "axes"))
    axes = [positive_axis(axis, len(sides)) for axis in axes]
    copy = state.keep(node)
    give_outputs(node, state, batch)
    if batch.axis not in axes:
        return
    place, side = axes.index(batch.axis), sides[batch.axis]
    steps = state.fixed(node.input[4]) if len(node.input) > 4 and node.input[4] else [1] * len(axes)
    if not (starts[place] == 0 or starts[place] <= -side) or ends[place] < side or steps[place] != 1:
        raise CannotRewrite("Slice along the batch")
    if by_input and node.input[2] in state.sized:
        if state.sized[node.input[2]][1][place] < side * PROBE:
            raise CannotRewrite("Slice along the batch")
        return
    ends[place] = _END
    if by_input:
        dtype = state.both(node.input[2])[0].dtype
        # Both range ends share one integer type.
        ends[place] = _END if dtype.itemsize == 8 else (1 << 31) - 1
        copy.input[2] = state.store(ends, near=node.output[0])
        if dtype.itemsize != 8:
            copy.input[1] = state.store(starts, near=node.output[0])
            for extra, content in ((3, axes), (4, steps)):
                if len(copy.input) > extra and copy.input[extra]:
                    copy.input[extra] = state.store(content, near=node.output[0])
        return
    for entry in copy.attribute:
        if entry.name == "ends":
            entry.ints[place] = _END


def gather(node: onnx.NodeProto, state: BatchState) -> None:
    """Picking along another axis, or a table looked up by indices that hold the batch."""
    data, indices = node.input[0], node.input[1]
    rank = len(state.shape(data))
    axis = positive_axis(int(attribute(node, "axis", 0)), rank)
    if data in state.axes and indices in state.axes:
        raise CannotRewrite("Gather by indices that hold the batch")
    if data in state.axes:
        batch = state.axes[data]
        if axis == batch.axis:
            raise CannotRewrite("Gather along the batch")
        moved = len(state.shape(indices)) - 1 if axis < batch.axis else 0
        give_outputs(node, state, batch.moved(batch.axis + moved))
    else:
        batch = state.axes[indices]
        give_outputs(node, state, batch.moved(axis + batch.axis))
    state.keep(node)


def pad(node: onnx.NodeProto, state: BatchState) -> None:
    """Padding along other axes."""
    batch = data_axis(node, state)
    rank = len(state.shape(node.input[0]))
    by_input = len(node.input) > 1 and node.input[1]
    pads = state.fixed(node.input[1]) if by_input else list(attribute(node, "pads", []))
    axes = state.fixed(node.input[3]) if len(node.input) > 3 and node.input[3] else list(range(rank))
    axes = [positive_axis(axis, rank) for axis in axes]
    if batch.axis in axes:
        place = axes.index(batch.axis)
        if pads[place] or pads[place + len(axes)]:
            raise CannotRewrite("Pad along the batch")
    give_outputs(node, state, batch)
    state.keep(node)


def tile(node: onnx.NodeProto, state: BatchState) -> None:
    """Repetition along other axes."""
    batch = data_axis(node, state)
    if state.fixed(node.input[1])[batch.axis] != 1:
        raise CannotRewrite("Tile along the batch")
    give_outputs(node, state, batch)
    state.keep(node)


def expand(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated batch in the target becomes 1, which keeps the side that is there."""
    batch = data_axis(node, state)
    stated, probed = (entry.tolist() for entry in state.both(node.input[1]))
    sides = state.shape(node.input[0])
    rank = max(len(sides), len(stated))
    axis = batch.axis + rank - len(sides)
    place = axis - (rank - len(stated))
    copy = state.keep(node)
    give_outputs(node, state, batch.moved(axis))
    if place < 0 or stated[place] == 1:
        return
    if stated[place] != sides[batch.axis]:
        raise CannotRewrite("Expand along the batch")
    if node.input[1] in state.sized:
        if probed[place] != sides[batch.axis] * PROBE:
            raise CannotRewrite("Expand along the batch")
        return
    stated[place] = 1
    copy.input[1] = state.store(stated, near=node.output[0])


def resize(node: onnx.NodeProto, state: BatchState) -> None:
    """A stated size of the batch is read from the input instead."""
    batch = data_axis(node, state)
    give_outputs(node, state, batch)
    copy = state.keep(node)
    axes = attribute(node, "axes")
    sides = state.shape(node.input[0])
    if axes is not None and batch.axis not in [positive_axis(int(axis), len(sides)) for axis in axes]:
        return
    place = list(axes).index(batch.axis) if axes is not None else batch.axis
    scales_at = 1 if state.opset < 11 or node.op_type == "Upsample" else 2
    if len(node.input) > 3 and node.input[3]:
        stated, probed = (entry.tolist() for entry in state.both(node.input[3]))
        if stated[place] != sides[batch.axis]:
            raise CannotRewrite("Resize along the batch")
        if node.input[3] in state.sized and probed[place] == sides[batch.axis] * PROBE:
            return
        state.nodes.pop()
        copy.input[3] = state.sides_like(stated, place, reference=node.input[0])
        state.nodes.append(copy)
        return
    by_input = len(node.input) > scales_at and node.input[scales_at]
    scales = state.both(node.input[scales_at])[0].tolist() if by_input else list(attribute(node, "scales", []))
    if not scales or scales[place] != 1:
        raise CannotRewrite("Resize along the batch")


def shape_of(node: onnx.NodeProto, state: BatchState) -> None:
    """What Shape and Size tell depends on the batch."""
    stated, probed = state.shape(node.input[0]), state.probe_shape(node.input[0])
    if node.op_type == "Size":
        state.sized[node.output[0]] = np.asarray(math.prod(stated)), np.asarray(math.prod(probed))
    else:
        span = slice(attribute(node, "start", 0), attribute(node, "end", None))
        state.sized[node.output[0]] = np.asarray(stated[span], np.int64), np.asarray(probed[span], np.int64)
    state.keep(node)
