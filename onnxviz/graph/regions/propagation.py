"""A graph with concrete shapes comes in; which boxes of one value reach which boxes of another goes out, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import onnx

from onnxviz.errors import ValueNotFoundError, near_misses
from onnxviz.graph.blocked import BLOCKED_DOMAIN
from onnxviz.graph.regions.axis_maps import NOWHERE
from onnxviz.graph.regions.box_maps import Boxes, BoxMap, Everything
from onnxviz.graph.regions.constants import Constants
from onnxviz.graph.regions.node import Operator, Shape
from onnxviz.graph.regions.rules import READS_ONLY_SHAPE, RULES

__all__ = ["Propagation", "Seen", "read_by"]

_MOST_BOXES = 8  # branches that read different channels of one value keep boxes of their own, up to this many
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")
# Of the blocked layout: the same operators on (n, C, H, W).
_BLOCKED_TYPES = (
    "AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReorderInput", "ReorderOutput",
)  # fmt: skip


@dataclass
class Seen:
    """What was found on the way of one backward propagation."""

    boxes: Boxes
    """Hull of what is read of the source value, one box per question."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Node to operator type, of every node on the way that no rule covers: it counts as reading everything."""
    merged: bool = False
    """Whether boxes of more branches met than are kept apart, so that their hull was taken."""


@dataclass(frozen=True)
class _Edge:
    name: str
    output: int
    box_map: BoxMap
    known: bool


class Propagation:
    """The reach of every value of a graph into one source value (usually the image), operator by operator.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model, local functions inlined; external data need not be loaded.
    source : str
        Name of the value that everything is asked about.
    shapes : mapping of value name to shape
        Concrete shapes of the graph's values, the source's among them, as a run with the batch of one found them.

    Raises
    ------
    ValueNotFoundError
        The source has no known shape.
    """

    def __init__(self, proto: onnx.ModelProto, *, source: str, shapes: Mapping[str, Shape]) -> None:
        if source not in shapes:
            raise ValueNotFoundError(
                "no shape is known for this value", where=f"value {source!r}", allowed=near_misses(source, shapes)
            )
        self.source = source
        self.shapes = shapes
        self._nodes = list(proto.graph.node)
        self._constants = Constants(proto, shapes)
        self._opsets = {
            entry.domain if entry.domain != "ai.onnx" else "": entry.version for entry in proto.opset_import
        }
        self._edges: dict[int, list[_Edge]] = {}

    @cached_property
    def dependent(self) -> frozenset[str]:
        """Names of all values that depend on the source's numbers, the source included."""
        found = {self.source}
        for node in self._nodes:
            if node.op_type not in READS_ONLY_SHAPE and any(name in found for name in read_by(node)):
                found.update(name for name in node.output if name)
        return frozenset(found)

    def backward(self, value: str, boxes: Boxes, *, nominal: bool = False) -> Seen:
        """Which boxes of the source the given boxes of a value read.

        Parameters
        ----------
        value : str
            Name of the value that is asked about.
        boxes : Boxes
            One box of it per question.
        nominal : bool
            As if every spatial axis went on past its ends, so that a unit at the border keeps its place.

        Returns
        -------
        Seen
            ``boxes`` of the source. A question that reads nothing has an empty box.
        """
        waiting: dict[str, list[Boxes]] = {value: [boxes]}
        seen = Seen(_nothing(len(boxes.first), len(self.shapes[self.source])))
        for number in range(len(self._nodes) - 1, -1, -1):
            node = self._nodes[number]
            asked = [(place, waiting.pop(name)) for place, name in enumerate(node.output) if name in waiting]
            for place, parts in asked:
                for edge in self._edges_of(number):
                    if edge.output != place:
                        continue
                    if not edge.known:
                        seen.unknown[node.name or node.output[0]] = node.op_type
                    held = waiting.setdefault(edge.name, [])
                    for part in parts:
                        reached = edge.box_map.nominal(part) if nominal else edge.box_map.backward(part)
                        seen.merged |= _add(held, reached)
        for part in waiting.get(self.source, []):
            seen.boxes = seen.boxes.hull(part)
        return seen

    def forward(self, boxes: Boxes) -> dict[str, Boxes]:
        """Which box of every value can change when the given boxes of the source change.

        Returns
        -------
        dict of value name to Boxes
            For every value that depends on the source: the hull of what can change. What is outside keeps its numbers.
        """
        found: dict[str, list[Boxes]] = {self.source: [boxes]}
        for number, node in enumerate(self._nodes):
            for edge in self._edges_of(number):
                if edge.name in found:
                    held = found.setdefault(node.output[edge.output], [])
                    for part in found[edge.name]:
                        _add(held, edge.box_map.forward(part))
        return {
            name: reduce(Boxes.hull, parts, _nothing(len(boxes.first), len(self._shape(name))))
            for name, parts in found.items()
        }

    def _edges_of(self, number: int) -> list[_Edge]:
        if number not in self._edges:
            self._edges[number] = list(self._make_edges(self._nodes[number]))
        return self._edges[number]

    def _make_edges(self, node: onnx.NodeProto) -> Iterator[_Edge]:
        if node.op_type in READS_ONLY_SHAPE or not any(name in self.dependent for name in read_by(node)):
            return
        operator = self.operator(node)
        known = node.domain in _KNOWN_DOMAINS or (node.domain == BLOCKED_DOMAIN and node.op_type in _BLOCKED_TYPES)
        rule = RULES.get(node.op_type) if known else None
        for place, name in enumerate(read_by(node)):
            if name not in self.dependent:
                continue
            for output, output_name in enumerate(node.output):
                if not output_name:
                    continue
                box_map = None
                if rule is not None and place < len(node.input):
                    try:
                        box_map = rule(operator, place, output)
                    except (LookupError, ValueError, TypeError, ArithmeticError):
                        # A malformed or unusual node is not an error here: it merely has no rule.
                        box_map = None
                everything = Everything(self._shape(name), self._shape(output_name))
                yield _Edge(name, output, box_map or everything, box_map is not None)

    def operator(self, node: onnx.NodeProto) -> Operator:
        """A node of the graph with its concrete shapes, as the rules see it."""
        return Operator(
            op_type=node.op_type,
            name=node.name,
            opset=self._opsets.get("" if node.domain == "ai.onnx" else node.domain, 1),
            attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
            inputs=tuple(node.input),
            input_shapes=tuple(self._known_shape(name) for name in node.input),
            output_shapes=tuple(self._known_shape(name) for name in node.output),
            constant=lambda name: None if name in self.dependent else self._constants(name),
        )

    def _known_shape(self, name: str) -> Shape | None:
        shape = self.shapes.get(name)
        if shape is None and name:
            shape = self._constants.shape(name)
            if shape is None and name not in self.dependent:
                constant = self._constants(name)
                shape = None if constant is None else constant.shape
        return None if shape is None else tuple(shape)

    def _shape(self, name: str) -> Shape:
        # A value without a shape (a sequence, say) has no axes to follow: it is reached whole or not at all.
        return self._known_shape(name) or ()


def read_by(node: onnx.NodeProto) -> list[str]:
    """Names of all values that a node reads, those that its bodies take from around it included."""
    names = list(node.input)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        # The bodies of If and Loop may read values of the graph around them without naming them as inputs.
        names.extend(name for graph in graphs for inner in graph.node for name in read_by(inner))
    return names


def _attribute(attribute: onnx.AttributeProto) -> Any:
    found = onnx.helper.get_attribute_value(attribute)
    if isinstance(found, bytes):
        return found.decode("utf-8", "replace")
    return list(found) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else found


def _nothing(questions: int, rank: int) -> Boxes:
    return Boxes(np.full((questions, rank), NOWHERE), np.full((questions, rank), -NOWHERE))


def _add(held: list[Boxes], new: Boxes) -> bool:
    # Adds boxes to the parts that are kept of one value; True when the hull of separate parts had to be taken.
    if new.first.shape[1] and new.empty.all():
        return False
    for place, part in enumerate(held):
        if part.contains(new):
            return False
        if new.contains(part) or _joins(part, new):
            del held[place]
            return _add(held, part.hull(new))
    held.append(new)
    if len(held) <= _MOST_BOXES:
        return False
    hull = held[0]
    for part in held[1:]:
        hull = hull.hull(part)
    held[:] = [hull]
    return True


def _joins(one: Boxes, other: Boxes) -> bool:
    # Two boxes that differ on a single axis, and touch there, are one box.
    differing = ((one.first != other.first) | (one.end != other.end)).any(axis=0)
    if differing.sum() != 1:
        return False
    axis = int(differing.argmax())
    return bool(((one.first[:, axis] <= other.end[:, axis]) & (other.first[:, axis] <= one.end[:, axis])).all())
