"""Boxes that can change come in; which values are computed on windows, and where those windows lie, goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxviz.graph.incremental.facts import GraphFacts
from onnxviz.graph.incremental.layouts import Layout, MapGeometry
from onnxviz.graph.incremental.local_forms import LocalForm, Reads, local_form
from onnxviz.graph.macs import macs_of_nodes
from onnxviz.graph.regions import Boxes, Propagation
from onnxviz.graph.regions.rules import READS_ONLY_SHAPE

__all__ = ["AffectedMaps", "Groups", "Window", "WindowedNode", "choose_windows", "find_affected_maps"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class AffectedMaps:
    """The part of a graph that could run on windows, and what of each of its values a patch can change."""

    facts: GraphFacts
    positions: int
    """Positions of the patch."""
    nodes: tuple[onnx.NodeProto, ...]
    dependent: frozenset[str]
    """Names of all values that depend on the image's numbers."""
    geometry: Mapping[str, MapGeometry]
    """Of every value that could be computed on a window, the image included."""
    forms: Mapping[int, LocalForm]
    """Number of each node that could run on a window → how."""
    boxes: Mapping[str, tuple[Indices, Indices]]
    """Value → first and end, (positions, 2) rows and columns that can change; at least one place."""
    macs: tuple[int, ...]
    """Multiply-accumulates of each node on whole maps; 0 for nodes that do not depend on the image."""

    def share(self, name: str) -> NDArray[np.float64]:
        """(positions,) the part of a value's map that can change."""
        first, end = self.boxes[name]
        geometry = self.geometry[name]
        return np.asarray((end - first).prod(axis=1) / (geometry.rows * geometry.columns), np.float64)


def find_affected_maps(facts: GraphFacts, patches: Indices) -> AffectedMaps:
    """Follow the patches through the graph.

    Parameters
    ----------
    facts : GraphFacts
    patches : (positions, 4) int
        Top, left, bottom, right in pixels; none is empty.
    """
    propagation = Propagation(facts.proto, source=facts.source, shapes=facts.shapes)
    dependent = propagation.dependent
    nodes = tuple(facts.proto.graph.node)
    layouts: dict[str, Layout] = {}
    if len(facts.shapes[facts.source]) == 4:
        layouts[facts.source] = Layout(facts.image_layout)
    forms: dict[int, LocalForm] = {}
    for number, node in enumerate(nodes):
        inputs = {place: name for place, name in enumerate(node.input) if name in dependent}
        if not inputs or node.op_type in READS_ONLY_SHAPE or not set(inputs.values()) <= set(layouts):
            continue
        form = local_form(node, propagation.operator(node), {place: layouts[name] for place, name in inputs.items()})
        if form is not None and set(form.reads) == set(inputs) and _moved_as_bytes(facts, node):
            forms[number] = form
            layouts.update((name, form.layout) for name in node.output if name)
    geometry = {name: _geometry(facts, name, layout) for name, layout in layouts.items()}
    boxes = _boxes(propagation, patches, geometry) if geometry else {}
    weighed = macs_of_nodes(facts.proto, facts.shapes)
    macs = tuple(
        count if any(name in dependent for name in node.output) else 0
        for node, count in zip(nodes, weighed, strict=True)
    )
    return AffectedMaps(facts, len(patches), nodes, dependent, geometry, forms, boxes, macs)


def _moved_as_bytes(facts: GraphFacts, node: onnx.NodeProto) -> bool:
    """Whether everything the node makes is numbers: strings are pointers, and sequences no arrays at all."""
    return all(name in facts.dtypes and facts.dtypes[name].kind in "fiub" for name in node.output if name)


def _geometry(facts: GraphFacts, name: str, layout: Layout) -> MapGeometry:
    shape = facts.shapes[name]
    rows, columns = layout.size(shape)
    return MapGeometry(
        layout, shape[layout.channel_axis], rows, columns, facts.dtypes[name].itemsize, max(facts.block, 1)
    )


def _boxes(
    propagation: Propagation, patches: Indices, geometry: Mapping[str, MapGeometry]
) -> dict[str, tuple[Indices, Indices]]:
    """Rows and columns are followed by themselves: a band of the whole width (or height) holds every patch in it.

    So a grid of 50 × 50 positions is asked for 100 bands. Where an operator mixes rows with columns the boxes come out
    larger than they need be, never smaller.
    """
    boxes: dict[str, list[tuple[Indices, Indices]]] = {name: [] for name in geometry}
    source = geometry[propagation.source]
    shape = np.asarray(propagation.shapes[propagation.source], np.int64)
    for side in (0, 1):
        bands, place = np.unique(patches[:, [side, side + 2]], axis=0, return_inverse=True)
        first = np.zeros((len(bands), 4), np.int64)
        end = np.tile(shape, (len(bands), 1))
        axis = source.layout.axes[side]
        first[:, axis], end[:, axis] = bands[:, 0], bands[:, 1]
        found = propagation.forward(Boxes(first, end))
        for name, of_value in geometry.items():
            length = (of_value.rows, of_value.columns)[side]
            axis = of_value.layout.axes[side]
            region = found.get(name)
            if region is None:
                lower, upper = np.zeros(len(bands), np.int64), np.ones(len(bands), np.int64)
            else:
                lower = np.clip(region.first[:, axis], 0, length - 1)
                # Nothing changes where a stride steps over the patch: one place is then computed, to what it was.
                upper = np.clip(region.end[:, axis], lower + 1, length)
            boxes[name].append((lower[place.ravel()], upper[place.ravel()]))
    return {
        name: (np.stack([rows[0], columns[0]], axis=1), np.stack([rows[1], columns[1]], axis=1))
        for name, (rows, columns) in boxes.items()
    }


@dataclass(frozen=True)
class Groups:
    """Positions that are computed together, because their windows are of one size."""

    of_position: Indices
    """(positions,) number of each position's group."""
    count: int

    def largest(self, sizes: Indices) -> Indices:
        """(positions, 2) sizes → (groups, 2) the largest of each group."""
        if self.count == len(sizes):
            return sizes
        result = np.zeros((self.count, sizes.shape[1]), np.int64)
        np.maximum.at(result, self.of_position, sizes)
        return result


@dataclass(frozen=True)
class Window:
    """What is held of one value: of one size in each group, at its own place for each position."""

    size: Indices
    """(groups, 2) rows and columns."""
    start: Indices
    """(positions, 2) where it begins; before the map where it brings a border along."""
    first: Indices
    """(positions, 2) where the part begins that holds the value as it is with the patch."""
    end: Indices

    def same_as(self, other: Window) -> bool:
        """Whether this one, all of it good, is just what the other one asks for."""
        return (
            np.array_equal(self.size, other.size)
            and np.array_equal(self.start, other.start)
            and np.array_equal(self.first, self.start)
            and np.array_equal(self.end, other.end)
        )


@dataclass(frozen=True)
class WindowedNode:
    """One node of the graph that runs on windows."""

    form: LocalForm
    needs: Mapping[int, Window]
    """Input number → the window that it has to be given."""


@dataclass(frozen=True)
class Windows:
    """Every window of a plan."""

    groups: Groups
    of_value: dict[str, Window] = field(default_factory=dict)
    nodes: dict[int, WindowedNode] = field(default_factory=dict)
    """Number of each node that runs on windows."""


def choose_windows(maps: AffectedMaps, groups: Groups, *, threshold: float) -> Windows:
    """Decide which values are computed on windows, and where those lie.

    Parameters
    ----------
    maps : AffectedMaps
    groups : Groups
    threshold : float
        From this mean share of a map on, it is computed whole, and with it all that follows.
    """
    chosen = Windows(groups)
    source = maps.facts.source
    if source not in maps.geometry:
        return chosen
    first, end = maps.boxes[source]
    # The patch is given as a whole image of fill, of which each position takes its box.
    image = maps.geometry[source]
    chosen.of_value[source] = Window(
        np.tile(np.array([image.rows, image.columns]), (groups.count, 1)), np.zeros_like(first), first, end
    )
    for number, form in maps.forms.items():
        node = maps.nodes[number]
        if any(node.input[place] not in chosen.of_value for place in form.reads):
            continue
        output = next(name for name in node.output if name)
        made = _kept_pads(maps, groups, number) if form.kept_pads else _plain(maps, groups, number)
        if made is None:
            continue
        window, needs = made
        geometry = maps.geometry[output]
        area = window.size.prod(axis=1)[groups.of_position].mean() / (geometry.rows * geometry.columns)
        if area >= threshold:
            continue
        chosen.nodes[number] = WindowedNode(form, needs)
        chosen.of_value.update((name, window) for name in node.output if name)
    return chosen


def _output_box(maps: AffectedMaps, number: int) -> tuple[Indices, Indices]:
    parts = [maps.boxes[name] for name in maps.nodes[number].output if name]
    return np.minimum.reduce([first for first, _ in parts]), np.maximum.reduce([end for _, end in parts])


def _plain(maps: AffectedMaps, groups: Groups, number: int) -> tuple[Window, dict[int, Window]] | None:
    node, form = maps.nodes[number], maps.forms[number]
    geometry = maps.geometry[next(name for name in node.output if name)]
    map_size = np.array([geometry.rows, geometry.columns])
    first, end = _output_box(maps, number)
    size = groups.largest(end - first)
    widths = size[groups.of_position]
    start = np.clip(first, 0, map_size - widths)
    needs = {
        place: _asked(reads, size, start, groups)
        for place, reads in form.reads.items()
    }  # fmt: skip
    return Window(size, start, start, start + widths), needs


def _asked(reads: Sequence[Reads], size: Indices, start: Indices, groups: Groups) -> Window:
    asked = np.stack([axis.width(size[:, place]) for place, axis in enumerate(reads)], axis=1)
    begin = np.stack([axis.first(start[:, place]) for place, axis in enumerate(reads)], axis=1)
    return Window(asked, begin, begin, begin + asked[groups.of_position])


def _kept_pads(maps: AffectedMaps, groups: Groups, number: int) -> tuple[Window, dict[int, Window]] | None:
    """The node pads at the rim of each window: right where that is the rim of the map, to be left out elsewhere."""
    node, form = maps.nodes[number], maps.forms[number]
    assert form.kept_pads is not None
    source = maps.geometry[node.input[0]]
    first, end = _output_box(maps, number)
    before, after = (np.array([pads[side] for pads in form.kept_pads]) for side in (0, 1))
    extent, step = (np.array([getattr(reads, name) for reads in form.reads[0]]) for name in ("extent", "step"))
    map_size = np.array([source.rows, source.columns])
    # Windows begin at multiples of the stride, and the last of them ends with the map.
    behind = -(-before // step) * step
    asked = np.minimum((groups.largest(end - first) - 1) * step - before + extent + behind, map_size)
    asked += (map_size - asked) % step
    widths = asked[groups.of_position]
    begin = np.clip(first * step - behind, 0, map_size - widths)
    size = (asked + before + after - extent) // step + 1
    finish = begin + widths
    good_first = np.where(begin > 0, -(-(begin + before) // step), 0)
    good_end = np.where(
        finish < map_size, (finish + before - extent) // step + 1, begin // step + size[groups.of_position]
    )
    if (good_first > first).any() or (good_end < end).any():
        return None
    return Window(size, begin // step, good_first, good_end), {0: Window(asked, begin, begin, finish)}
