"""What a plan costs before it is run: time in multiply-accumulates of a large convolution on one core, and bytes.

The prices of time were fitted to runs of six networks on two cores with AVX-512. They decide how positions are grouped
and whether windows pay at all; no answer depends on them.
"""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import helper

from onnxviz.graph.incremental.stages import Overlay, Stage, Stages
from onnxviz.graph.incremental.windows import AffectedMaps, Windows

__all__ = ["PER_STAGE", "Bytes", "macs_of_windows", "time_of_stages", "work_of_nodes"]

PER_STAGE = 3_500_000
"""One session run and the overlays before it: some 70 microseconds, whatever they compute."""

_PER_BYTE = 5.0
"""A byte that an overlay writes: read and written, and read again by the operator."""

_ROUNDED_UP = 1.15
"""What an arena takes from the system over what is asked of it."""

_PER_ELEMENT = 6.0
"""An element that an operator writes: what it costs where there is little arithmetic, as in a depthwise convolution."""


def work_of_nodes(maps: AffectedMaps) -> list[float]:
    """What each node costs on whole maps; 0 for nodes that do not depend on the image."""
    work = []
    for node, macs in zip(maps.nodes, maps.macs, strict=True):
        outputs = [name for name in node.output if name in maps.dependent]
        elements = sum(prod(maps.facts.shapes.get(name, (0,))) for name in outputs)
        work.append(macs + _PER_ELEMENT * elements if outputs else 0.0)
    return work


def mean_share(maps: AffectedMaps, windows: Windows, number: int) -> float:
    """The part of its map that a node computes, on average over the positions; 1 for a node that sees whole maps."""
    if number not in windows.nodes:
        return 1.0
    output = next(name for name in maps.nodes[number].output if name)
    geometry = maps.geometry[output]
    area = windows.of_value[output].size.prod(axis=1)[windows.groups.of_position].mean()
    return float(area / (geometry.rows * geometry.columns))


def time_of_stages(maps: AffectedMaps, windows: Windows, stages: Stages, work: list[float], batch: int) -> float:
    """What all positions cost together."""
    members = np.bincount(windows.groups.of_position, minlength=windows.groups.count)
    runs = int(np.ceil(members / batch).sum())
    computed = sum(work[number] * mean_share(maps, windows, number) for number in range(len(work)))
    moved = sum(
        float((_window_bytes(overlay) * members).sum())
        for stage in (*stages.before, stages.tail)
        for overlay in stage.overlays
    )
    # The originals are one more run of the nodes that are not in the tail.
    originals = sum(work[number] for number in windows.nodes)
    return computed * maps.positions + moved * _PER_BYTE + runs * len(stages.before) * PER_STAGE + originals


def macs_of_windows(maps: AffectedMaps, windows: Windows) -> tuple[float, float]:
    """Multiply-accumulates per position: of the plan, and if every position computed exactly what changes."""
    planned = ideal = 0.0
    for number, macs in enumerate(maps.macs):
        planned += macs * mean_share(maps, windows, number)
        output = next((name for name in maps.nodes[number].output if name), "")
        ideal += macs * (float(maps.share(output).mean()) if number in maps.forms else 1.0)
    return planned, ideal


def _window_bytes(overlay: Overlay) -> np.ndarray:
    """(groups,) bytes of one window."""
    return np.asarray(overlay.size.prod(axis=1) * overlay.geometry.planes * overlay.geometry.pixel_bytes)


class Bytes:
    """How much memory a plan takes besides the weights, at most.

    Parameters
    ----------
    maps : AffectedMaps
    windows : Windows
    stages : Stages
    """

    def __init__(self, maps: AffectedMaps, windows: Windows, stages: Stages) -> None:
        self._maps, self._windows = maps, windows
        self.originals = sum(self._map_bytes(name) for name in windows.of_value)
        """Whole maps of all values that have windows: what the run without a patch holds."""
        self.windows = max((self._stage_bytes(stage) for stage in stages.before), default=0)
        """One position of the fullest stage before the tail, what waits for later ones included."""
        carried = self._live_windows(stages)
        self.windows += carried
        self.tail = sum(int(_window_bytes(o).max()) for o in stages.tail.overlays) + self._peak_of_tail()
        """One position of the tail."""
        in_tail = {number for number in range(len(maps.nodes)) if number not in windows.nodes}
        tensors = {tensor.name: tensor for tensor in maps.facts.proto.graph.initializer}
        self.dense_weights = sum(
            prod(tensors[name].dims) * helper.tensor_dtype_to_np_dtype(tensors[name].data_type).itemsize
            for number in in_tail
            if maps.nodes[number].op_type in ("Gemm", "MatMul", "FusedGemm", "FusedMatMul")
            for name in maps.nodes[number].input[1:2]
            if name in tensors
        )
        """Weights of the tail that every run reads for whatever number of positions."""

    def total(self, workers: int, batch: int, tail_batch: int) -> int:
        """All of it for so many workers, with so many positions in a run."""
        counted = self.originals + workers * (batch * self.windows + (tail_batch + batch) * self.tail)
        return int(counted * _ROUNDED_UP)

    def _map_bytes(self, name: str) -> int:
        facts = self._maps.facts
        return prod(facts.shapes[name]) * facts.dtypes[name].itemsize if name in facts.dtypes else 0

    def _value_bytes(self, name: str) -> int:
        window = self._windows.of_value.get(name)
        if window is None:
            return self._map_bytes(name)
        geometry = self._maps.geometry[name]
        return int(window.size.prod(axis=1).max()) * geometry.planes * geometry.pixel_bytes

    def _stage_bytes(self, stage: Stage) -> int:
        made = stage.proto.graph.node if stage.proto is not None else ()
        values = sum(self._value_bytes(name) for node in made for name in node.output if name in self._windows.of_value)
        return values + sum(int(_window_bytes(overlay).max()) for overlay in stage.overlays)

    def _live_windows(self, stages: Stages) -> int:
        live: set[str] = set()
        most = 0
        for stage in stages.before:
            most = max(most, sum(self._value_bytes(name) for name in live if name in self._windows.of_value))
            live |= set(stage.outputs)
            live -= set(stage.released)
        return most

    def _peak_of_tail(self) -> int:
        nodes = [node for number, node in enumerate(self._maps.nodes) if number not in self._windows.nodes]
        last = {name: number for number, node in enumerate(nodes) for name in node.input}
        live: dict[str, int] = {}
        peak = 0
        for number, node in enumerate(nodes):
            live |= {name: self._map_bytes(name) for name in node.output if name in self._maps.dependent}
            peak = max(peak, sum(live.values()))
            live = {name: size for name, size in live.items() if last.get(name, -1) > number}
        return peak
