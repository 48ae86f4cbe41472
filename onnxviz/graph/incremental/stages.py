"""Chosen windows come in; the overlays between them and the graph cut into stages go out.

Wherever an operator reads another window than the one that its input has, an *overlay* makes it: a crop of the
original map with what was computed laid over it. A stage is what can run between two overlays. The last one, the tail,
sees whole maps only, so that positions of all groups can share its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxviz.errors import ModelError
from onnxviz.graph.incremental.layouts import MapGeometry
from onnxviz.graph.incremental.windows import AffectedMaps, Window, Windows
from onnxviz.graph.regions.propagation import read_by
from onnxviz.graph.regions.rules import READS_ONLY_SHAPE

__all__ = ["Overlay", "Stage", "Stages", "cut_into_stages"]

_TAIL = 1 << 30


@dataclass(frozen=True)
class Overlay:
    """One window to be made of an original map and what was computed of it."""

    name: str
    """What the stages call the result."""
    source: str
    """The value that is laid over its original."""
    geometry: MapGeometry
    placements: NDArray[np.int64]
    """(positions, 8) for the core: where window, source and the fresh part of the source lie."""
    size: NDArray[np.int64]
    """(groups, 2) of the window."""
    source_size: NDArray[np.int64]
    """(groups, 2)."""
    border: NDArray[np.generic] | None
    """One pixel of what lies outside the map."""


@dataclass(frozen=True)
class Stage:
    """Nodes that run in one session, and the overlays that have to be made before."""

    overlays: tuple[Overlay, ...]
    proto: onnx.ModelProto | None
    """None where there are only overlays to make."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape_inputs: Mapping[str, tuple[int, ...]]
    """Inputs that take (part of) the shape of a whole map, -1 for the batch."""
    released: tuple[str, ...]
    """Values that no later stage reads."""


@dataclass(frozen=True)
class Stages:
    """A graph cut for windows."""

    before: tuple[Stage, ...]
    """Run for each batch of one group, in this order."""
    tail: Stage
    """Run for any positions together, on whole maps; its outputs and overlays hold the wanted values."""
    wanted: Mapping[str, str]
    """Wanted value → the tail's output, or the overlay, that holds it."""
    originals: tuple[str, ...]
    """Values whose original maps the overlays take their surroundings from; the image is one of them."""


def cut_into_stages(maps: AffectedMaps, windows: Windows) -> Stages:
    """Insert the overlays and cut the graph.

    Raises
    ------
    ModelError
        A wanted value depends on nothing of the image.
    """
    return _Cutter(maps, windows).cut()


class _Cutter:
    def __init__(self, maps: AffectedMaps, windows: Windows) -> None:
        self.maps, self.windows = maps, windows
        self.facts = maps.facts
        self.overlays: dict[tuple[object, ...], Overlay] = {}
        self.level_of_overlay: dict[str, int] = {}
        self.level: dict[str, int] = {self.facts.source: -1}
        self.stage_of_node: dict[int, int] = {}
        self.nodes: dict[int, onnx.NodeProto] = {}
        graph = self.facts.proto.graph
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.free = {
            name: number
            for number, node in enumerate(graph.node)
            if not any(name in maps.dependent for name in read_by(node)) or node.op_type in READS_ONLY_SHAPE
            for name in node.output
            if name
        }
        """What does not depend on the image's numbers: made again in every stage that reads it."""

    def cut(self) -> Stages:
        for number, node in enumerate(self.maps.nodes):
            if node.op_type in READS_ONLY_SHAPE or not any(name in self.maps.dependent for name in read_by(node)):
                continue
            self._place(number, node)
        wanted = {}
        for name in dict.fromkeys(self.facts.outputs):
            if name not in self.maps.dependent:
                raise ModelError("a wanted value does not depend on the image", where=repr(name))
            wanted[name] = self._whole(name) if name in self.windows.of_value else name
        levels = sorted({*self.stage_of_node.values(), *self.level_of_overlay.values()})
        numbers = {level: [number for number, at in self.stage_of_node.items() if at == level] for level in levels}
        if _TAIL not in levels:
            levels.append(_TAIL)
            numbers[_TAIL] = []
        stages = [self._stage(level, numbers[level], levels, wanted) for level in levels]
        stages = self._with_releases(stages)
        originals = tuple(dict.fromkeys(overlay.source for overlay in self.overlays.values()))
        return Stages(tuple(stages[:-1]), stages[-1], wanted, originals)

    # -- placing nodes ------------------------------------------------------------------------------------------------

    def _place(self, number: int, node: onnx.NodeProto) -> None:
        windowed = self.windows.nodes.get(number)
        placed = onnx.NodeProto()
        placed.CopyFrom(windowed.form.node if windowed is not None else node)
        level = max((self.level[name] for name in read_by(node) if name in self.level), default=-1)
        if windowed is None:
            # Only whole maps make a node whole, and all of those are in the tail.
            level = _TAIL
        for place, name in enumerate(node.input):
            if name not in self.windows.of_value:
                continue
            if windowed is None:
                placed.input[place] = self._whole(name)
                continue
            need = windowed.needs[place]
            if not self.windows.of_value[name].same_as(need) or name == self.facts.source:
                placed.input[place] = self._overlay(name, need, windowed.form.border, self.level[name] + 1)
                level = max(level, self.level_of_overlay[placed.input[place]])
        level = max(level, 0)
        if windowed is None:
            for name in set(read_by(node)) - set(node.input):
                if name in self.windows.of_value:
                    raise ModelError(
                        "a body reads a value that is computed on windows", where=node.name or node.op_type
                    )
        self.nodes[number], self.stage_of_node[number] = placed, level
        for name in node.output:
            if name:
                self.level[name] = level

    def _whole(self, name: str) -> str:
        geometry = self.maps.geometry[name]
        groups = self.windows.groups
        size = np.tile(np.array([geometry.rows, geometry.columns]), (groups.count, 1))
        start = np.zeros((self.maps.positions, 2), np.int64)
        return self._overlay(name, Window(size, start, start, start + size[0]), None, _TAIL, whole=True)

    def _overlay(self, name: str, need: Window, border: float | None, level: int, *, whole: bool = False) -> str:
        geometry, have = self.maps.geometry[name], self.windows.of_value[name]
        map_size = np.array([geometry.rows, geometry.columns])
        past = bool((need.start < 0).any() or (need.end > map_size).any())
        key = (name, whole, border if past else None, need.size.tobytes(), need.start.tobytes())
        if key not in self.overlays:
            placements = np.concatenate([need.start, have.start, have.first, have.end], axis=1)
            pixel = None
            if past:
                dtype = self.facts.dtypes[name]
                pixel = np.full(geometry.pixel_bytes // geometry.itemsize, _border(border, dtype), dtype)
            self.overlays[key] = Overlay(
                f"{name}/overlay {len(self.overlays)}", name, geometry, np.ascontiguousarray(placements, np.int64),
                need.size, have.size, pixel,
            )  # fmt: skip
            self.level_of_overlay[self.overlays[key].name] = level
        return self.overlays[key].name

    # -- making stages ------------------------------------------------------------------------------------------------

    def _stage(self, level: int, numbers: list[int], levels: list[int], wanted: Mapping[str, str]) -> Stage:
        nodes = [self.nodes[number] for number in sorted(numbers)]
        made = {name for node in nodes for name in node.output if name}
        read = {name for node in nodes for name in read_by(node) if name}
        produced = set(self.level) | set(self.level_of_overlay)
        inputs = tuple(sorted(name for name in read if name in produced and name not in made))
        later = [number for number, at in self.stage_of_node.items() if at > level]
        asked = {name for number in later for name in read_by(self.nodes[number])}
        asked |= {o.source for o in self.overlays.values() if self.level_of_overlay[o.name] > level}
        asked |= set(wanted.values())
        outputs = tuple(name for node in nodes for name in node.output if name in asked)
        overlays = tuple(o for o in self.overlays.values() if self.level_of_overlay[o.name] == level)
        if not nodes:
            return Stage(overlays, None, (), (), {}, ())
        support, shape_inputs = self._support(read, {*made, *inputs})
        every = {**{number: self.nodes[number] for number in numbers}, **support}
        weights = {name for node in every.values() for name in read_by(node)}
        graph = helper.make_graph(
            [every[number] for number in sorted(every)],
            f"stage {levels.index(level)}",
            [*(self._described(name) for name in inputs),
             *(helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in shape_inputs)],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self.initializers[name] for name in sorted(weights & self.initializers.keys())],
        )  # fmt: skip
        proto = helper.make_model(graph, opset_imports=list(self.facts.proto.opset_import))
        proto.ir_version = self.facts.proto.ir_version
        return Stage(overlays, proto, inputs, outputs, shape_inputs, ())

    def _support(
        self, read: set[str], present: set[str]
    ) -> tuple[dict[int, onnx.NodeProto], dict[str, tuple[int, ...]]]:
        """The nodes that make what is read but depends on no number of the image, and the shapes that they ask for."""
        waiting = [name for name in read if name in self.free]
        support: dict[int, onnx.NodeProto] = {}
        shape_inputs: dict[str, tuple[int, ...]] = {}
        while waiting:
            name = waiting.pop()
            number = self.free[name]
            node = self.maps.nodes[number]
            if number in support or name in shape_inputs:
                continue
            asked = node.input[0] if node.op_type in READS_ONLY_SHAPE else ""
            if asked in self.windows.of_value and node.op_type != "Shape":
                raise ModelError("the number of elements of a batch is asked for", where=repr(asked))
            if asked in self.windows.of_value:
                # The windows have shapes of their own; what the graph means is that of the whole map.
                ends = {entry.name: entry.i for entry in node.attribute}
                shape = (-1, *self.facts.shapes[asked][1:])
                shape_inputs[name] = shape[ends.get("start", 0) : ends.get("end", len(shape))]
            elif asked in self.maps.dependent and asked not in present:
                raise ModelError("the shape of a value is asked for where it is not computed", where=repr(asked))
            else:
                support[number] = node
                waiting += [other for other in read_by(node) if other in self.free]
        return support, shape_inputs

    def _described(self, name: str) -> onnx.ValueInfoProto:
        overlay = next((o for o in self.overlays.values() if o.name == name), None)
        value = overlay.source if overlay is not None else name
        shape = self.facts.shapes[value]
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.facts.dtypes[value]))
        sides: list[int | str | None] = ["N", *shape[1:]] if shape else []
        if value in self.windows.of_value:
            for axis in self.maps.geometry[value].layout.axes:
                sides[axis] = None
        return helper.make_tensor_value_info(name, element, sides)

    @staticmethod
    def _with_releases(stages: list[Stage]) -> list[Stage]:
        result: list[Stage] = []
        used_later: set[str] = set()
        for stage in reversed(stages):
            here = {*stage.inputs, *stage.outputs}
            here |= {name for overlay in stage.overlays for name in (overlay.name, overlay.source)}
            # The first one seen here is the tail, after which nothing is kept anyway.
            result.append(replace(stage, released=tuple(sorted(here - used_later)) if result else ()))
            used_later |= here
        return result[::-1]


def _border(border: float | None, dtype: np.dtype[Any]) -> float:
    if border is None:
        raise ModelError("an operator reads past its map, and its rule does not say what is there")
    # A maximum over whole numbers: their least stands for minus infinity.
    return float(np.iinfo(dtype).min) if dtype.kind in "iu" and np.isinf(border) else border
