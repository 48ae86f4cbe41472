"""Operators that move, repeat or leave out elements by their shape: the adjoint goes the way back.

What was repeated is summed, what was left out gets 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.gradient.builder import TO_THE_END
from onnxviz.graph.gradient.node import Node
from onnxviz.graph.gradient.rules.rule import Adjoints, Rule, elementwise, first

if TYPE_CHECKING:
    from onnxviz.graph.gradient.backward import Backward

__all__ = ["RULES"]


# -- the same elements in another shape or order ------------------------------------------------------------------


def _reshape(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.reshape_like(g, x)


def _transpose(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    order = node.attribute("perm") or list(reversed(range(b.rank(x))))
    return b.transposed(g, [order.index(axis) for axis in range(len(order))])


def _depth_to_space(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    size = node.attribute("blocksize")
    if node.attribute("mode", "DCR") == "DCR":
        return b.emit("SpaceToDepth", g, blocksize=size)
    # The other order of channels has no operator for the way back.
    blocks = b.vector([0, -1, b.length(x, 2), size, b.length(x, 3), size])
    gathered = b.emit("Transpose", b.emit("Reshape", g, blocks), perm=[0, 1, 3, 5, 2, 4])
    return b.reshape_like(gathered, x)


def _space_to_depth(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("DepthToSpace", g, blocksize=node.attribute("blocksize"), mode="DCR")


def _trilu(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.emit("Trilu", g, *node.inputs[1:], upper=node.attribute("upper", 1))


def _reverse_sequence(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    """Turning a sequence round twice leaves it as it was."""
    return b.emit("ReverseSequence", g, *node.inputs[1:], **node.attributes())


# -- repeated elements --------------------------------------------------------------------------------------------


def _expand(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    return b.sum_to(g, x, y)


def _tile(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    rank, held = b.rank(x), b.known(node.inputs[1])
    if held is None:
        # Every axis as (copies, side).
        pairs = [b.emit("Reshape", part, b.integers([1, -1])) for part in (node.inputs[1], b.shape(x))]
        turned = b.emit("Transpose", b.emit("Concat", *pairs, axis=0), perm=[1, 0])
        copies = b.emit("Reshape", g, b.emit("Reshape", turned, b.integers([-1])), allowzero=1)
        return b.emit("ReduceSum", copies, b.integers(range(0, 2 * rank, 2)), keepdims=0)
    parts: list[int | str] = []
    repeated = []
    for axis, count in enumerate(held.reshape(-1).tolist()):
        if count != 1:
            repeated.append(len(parts))
            parts.append(count)
        parts.append(b.length(x, axis))
    if not repeated:
        return g
    copies = b.emit("Reshape", g, b.vector(parts), allowzero=1)
    return b.emit("ReduceSum", copies, b.integers(repeated), keepdims=0)


# -- parts --------------------------------------------------------------------------------------------------------


def _concat(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, axis = first(adjoints), node.attribute("axis") % b.rank(node.outputs[0])
    lengths = [b.length(x, axis) for x in node.inputs]
    wanted = [b.wants(x) for x in node.inputs]
    if len(lengths) == 1:
        return [g]
    if all(wanted):
        return b.emit_many("Split", len(lengths), g, b.vector(lengths), axis=axis)
    incoming: list[str | None] = []
    start: int | str = 0
    for length, asked in zip(lengths, wanted, strict=True):
        if isinstance(start, int) and isinstance(length, int):
            stop: int | str = start + length
        else:
            stop = b.once("Add", b.vector([start]), b.vector([length]))
        part = b.emit("Slice", g, b.vector([start]), b.vector([stop]), b.integers([axis])) if asked else None
        incoming.append(part)
        start = stop
    return incoming


def _split(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    parts = []
    for name, g in zip(node.outputs, adjoints, strict=True):
        if g is None and not name:
            raise LookupError("the length of an output without a name is not known")
        parts.append(b.filled_like(name) if g is None else g)
    return [b.emit("Concat", *parts, axis=node.attribute("axis", 0)) if len(parts) > 1 else parts[0]]


# -- borders ------------------------------------------------------------------------------------------------------


def _pad(b: Backward, node: Node, adjoints: Adjoints) -> Adjoints:
    g, (x, pads) = first(adjoints), node.inputs[:2]
    mode, held = node.attribute("mode", "constant"), b.known(pads)
    if mode == "constant" and node.has_input(2) and b.wants(node.inputs[2]):
        raise LookupError("the derivative by the number that fills the border")
    borders = None if held is None else _borders(b, node, held)
    if borders is not None and all(begin >= 0 and end >= 0 for begin, end in borders.values()):
        if mode == "constant":
            return [_cut(b, g, borders)]
        for axis, (begin, end) in borders.items():
            g = _folded(b, g, x, axis, begin, end, mode)
        return [g]
    axes = [name for name in node.inputs[3:4] if name]
    if mode == "constant":
        # What was added is cut away, and what was cut away (negative numbers) is added as zeros.
        opposite = b.emit("Neg", pads) if held is None else b.integers((-held).tolist())
        if axes:
            halves = b.emit_many("Split", 2, opposite, axis=0, num_outputs=2)
            opposite = b.emit("Concat", *(b.over_all_axes(half, axes[0], b.rank(x)) for half in halves), axis=0)
        return [b.emit("Pad", g, opposite)]
    places = b.emit("Pad", b.element_numbers(x), pads, "", *axes, mode=mode)
    return [b.scatter_back(g, places, x)]


def _borders(b: Backward, node: Node, pads: NDArray[Any]) -> dict[int, tuple[int, int]] | None:
    """Axis to (elements before, elements behind), where there are any; None where only a run knows the axes."""
    rank = b.rank(node.inputs[0])
    axes: Sequence[int] = range(rank)
    if node.has_input(3):
        held = b.known(node.inputs[3])
        if held is None:
            return None
        axes = [int(axis) % rank for axis in held.reshape(-1)]
    numbers = pads.reshape(2, -1).T.tolist()
    return {axis: (begin, end) for axis, (begin, end) in zip(axes, numbers, strict=True) if begin or end}


def _cut(b: Backward, g: str, borders: Mapping[int, tuple[int, int]]) -> str:
    """What lies within borders."""
    if not borders:
        return g
    starts = b.integers([begin for begin, _ in borders.values()])
    stops = b.integers([-end if end else TO_THE_END for _, end in borders.values()])
    return b.emit("Slice", g, starts, stops, b.integers(list(borders)))


def _folded(b: Backward, g: str, x: str, axis: int, begin: int, end: int, mode: str) -> str:
    """Cut the border off one axis, and add it where its elements were taken from."""
    along = b.integers([axis])
    inner = _cut(b, g, {axis: (begin, end)})
    bounds = ([(0, begin)] if begin else []) + ([(-end, TO_THE_END)] if end else [])

    def border(value: str, at: str) -> str:
        sides = [b.emit("Slice", value, b.integers([start]), b.integers([stop]), at) for start, stop in bounds]
        return sides[0] if len(sides) == 1 else b.emit("Concat", *sides, axis=axis if at == along else 0)

    side = b.sides(x)[axis]
    if isinstance(side, int):
        taken = np.pad(np.arange(side), (begin, end), mode=mode)  # type: ignore[call-overload]
        places = b.integers([*taken[:begin], *taken[begin + side :]])
    else:
        zero, one = b.constant(np.int64(0)), b.constant(np.int64(1))
        numbers = b.once("Range", zero, b.once("Squeeze", b.side(x, axis), b.integers([0])), one)
        places = border(b.emit("Pad", numbers, b.integers([begin, end]), mode=mode), b.integers([0]))
    updates = border(g, along)
    column = b.emit("Reshape", places, b.integers([-1] + [1] * (b.rank(x) - 1 - axis)))
    indices = b.emit("Expand", column, b.emit("Shape", updates))
    return b.added_at(inner, indices, updates, x, axis=axis)


def _center_crop_pad(b: Backward, node: Node, g: str, x: str, y: str) -> str:
    """The same operator, back to the sides that there were: a crop and a pad are centred alike."""
    axes = node.attribute("axes")
    if axes is None:
        return b.emit("CenterCropPad", g, b.shape(x))
    return b.emit("CenterCropPad", g, b.vector([b.length(x, axis) for axis in axes]), axes=axes)


RULES: Mapping[str, Rule] = {
    "CenterCropPad": elementwise(_center_crop_pad),
    "Concat": _concat,
    "DepthToSpace": elementwise(_depth_to_space),
    "Expand": elementwise(_expand),
    "Flatten": elementwise(_reshape),
    "Pad": _pad,
    "Reshape": elementwise(_reshape),
    "ReverseSequence": elementwise(_reverse_sequence),
    "SpaceToDepth": elementwise(_space_to_depth),
    "Split": _split,
    "Squeeze": elementwise(_reshape),
    "Tile": elementwise(_tile),
    "Transpose": elementwise(_transpose),
    "Trilu": elementwise(_trilu),
    "Unsqueeze": elementwise(_reshape),
}
