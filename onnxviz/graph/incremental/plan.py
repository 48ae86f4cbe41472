"""A graph, the positions of a patch and a bound on memory come in; how to compute only what changes goes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxviz.errors import ModelError
from onnxviz.graph.incremental.cost import PER_STAGE, Bytes, macs_of_windows, time_of_stages, work_of_nodes
from onnxviz.graph.incremental.facts import GraphFacts
from onnxviz.graph.incremental.grouping import group_positions
from onnxviz.graph.incremental.local_forms import SAME
from onnxviz.graph.incremental.stages import Stages, cut_into_stages
from onnxviz.graph.incremental.windows import AffectedMaps, Groups, Windows, choose_windows, find_affected_maps

__all__ = ["Plan", "make_plan"]

_LEAST_GAIN = 1.1
"""Below this predicted gain the plain way is taken: what is predicted is not known any better."""

_THRESHOLDS = (0.85, 0.97)
"""Mean shares of a map from which on it may be computed whole; the cheapest plan is kept."""

_MOST_POSITIONS = 8
"""Of one run before the tail: fewer pay more often for starting a session, more leave the caches."""

_TAIL_POSITIONS = 8
_HEAVY_TAIL_POSITIONS = 96
_HEAVY_WEIGHTS = 16 << 20
"""Bytes of weights of fully connected layers from which on a run of the tail is worth many positions."""


@dataclass(frozen=True)
class Plan:
    """How the positions of one patch grid are computed, and what that is expected to cost."""

    maps: AffectedMaps
    windows: Windows
    stages: Stages | None
    """None where the plain way is taken."""
    batch: int
    """Most positions of one run of the stages before the tail."""
    tail_batch: int
    """Most positions of one run of the tail."""
    gain: float
    """Predicted cost of the plain way over that of this plan."""
    mac_ratio: float
    """Multiply-accumulates of the plain way over those of this plan."""
    ideal_mac_ratio: float
    """The same if every position computed exactly the boxes that change: no plan of this kind can do better."""
    memory: int
    """Bytes that the original maps and the buffers of all workers take at most, weights left out."""
    why: str
    """Why the plan is, or is not, taken."""

    @property
    def pays(self) -> bool:
        """Whether the plan is better than the plain way."""
        return self.stages is not None


def make_plan(
    facts: GraphFacts, patches: NDArray[np.int64], grid: tuple[int, int] | None, *, workers: int, memory: int,
    least_gain: float = _LEAST_GAIN,
) -> Plan:  # fmt: skip
    """Plan the positions of a patch.

    Parameters
    ----------
    facts : GraphFacts
    patches : (positions, 4) int
        Top, left, bottom, right in pixels; none is empty.
    grid : (rows, columns) or None
        How the positions lie, row by row; None where they form no grid.
    workers : int
        Threads that run positions side by side.
    memory : int
        Bytes that original maps and buffers may take.
    least_gain : float
        Predicted gain below which the plain way is taken.
    """
    maps = find_affected_maps(facts, patches)
    if not maps.forms:
        return _plain(maps, "no operator at the start of the graph can be computed on a part of its map")
    if not facts.bitwise and any(_quantizes(node, maps) for node in maps.nodes):
        return _plain(maps, "a quantised graph cut in pieces is not optimised to the same integer arithmetic")
    work = work_of_nodes(maps)
    try:
        candidates = [_candidate(maps, work, grid, threshold) for threshold in _THRESHOLDS]
    except ModelError as error:
        return _plain(maps, f"the graph cannot be cut: {error}")
    best = min(candidates, key=lambda candidate: candidate.time)
    planned, ideal = macs_of_windows(maps, best.windows)
    whole = sum(maps.macs)
    plan = Plan(
        maps, best.windows, None, 0, 0, gain=sum(work) * maps.positions / best.time,
        mac_ratio=whole / max(planned, 1.0), ideal_mac_ratio=whole / max(ideal, 1.0), memory=0, why="",
    )  # fmt: skip
    if not best.windows.nodes or plan.gain < least_gain:
        why = f"windows would save too little: a factor of {plan.gain:.2f} is predicted, {least_gain:g} is asked for"
        return replace(plan, why=why)
    batch = _MOST_POSITIONS
    tail_batch = _HEAVY_TAIL_POSITIONS if best.bytes.dense_weights > _HEAVY_WEIGHTS else _TAIL_POSITIONS
    tail_batch = min(tail_batch, max(1, ceil(maps.positions / workers)))
    while best.bytes.total(workers, batch, tail_batch) > memory:
        if batch == tail_batch == 1:
            needed = best.bytes.total(workers, 1, 1)
            return replace(plan, why=f"original maps and buffers would take {needed:,} bytes of {memory:,} allowed")
        batch, tail_batch = max(1, batch // 2), max(1, tail_batch // 2)
    return replace(
        plan, stages=best.stages, batch=batch, tail_batch=tail_batch,
        memory=best.bytes.total(workers, batch, tail_batch), why=f"a gain of {plan.gain:.2f} is predicted",
    )  # fmt: skip


def _quantizes(node: onnx.NodeProto, maps: AffectedMaps) -> bool:
    quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
    return quantizes and any(name in maps.dependent for name in node.input)


def _plain(maps: AffectedMaps, why: str) -> Plan:
    nothing = Windows(Groups(np.zeros(maps.positions, np.int64), 1))
    return Plan(maps, nothing, None, 0, 0, gain=1.0, mac_ratio=1.0, ideal_mac_ratio=1.0, memory=0, why=why)


@dataclass(frozen=True)
class _Candidate:
    windows: Windows
    stages: Stages
    bytes: Bytes
    time: float


def _candidate(maps: AffectedMaps, work: list[float], grid: tuple[int, int] | None, threshold: float) -> _Candidate:
    alone = Groups(np.arange(maps.positions), maps.positions)
    finest = choose_windows(maps, alone, threshold=threshold)
    of_value = {
        next(name for name in maps.nodes[number].output if name): work[number] for number in finest.nodes
    }  # fmt: skip
    # An upper bound of the stages: each begins with an operator that reads more places than it writes.
    stages_about = 1 + sum(
        any(reads != SAME for reads in maps.forms[number].reads.values()) for number in finest.nodes
    )  # fmt: skip
    groups = group_positions(maps, of_value, grid, per_run=PER_STAGE * stages_about, batch=_MOST_POSITIONS)
    windows = choose_windows(maps, groups, threshold=threshold)
    stages = cut_into_stages(maps, windows)
    sizes = Bytes(maps, windows, stages)
    return _Candidate(windows, stages, sizes, time_of_stages(maps, windows, stages, work, _MOST_POSITIONS))
