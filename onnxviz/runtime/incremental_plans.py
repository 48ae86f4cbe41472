"""Wanted values and the positions of a patch come in; a runner of only what changes, or why there is none, goes out."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import ModelError, UnsupportedOperatorError
from onnxviz.graph.incremental.plan import Plan, make_plan
from onnxviz.runtime.devices import Device
from onnxviz.runtime.incremental import IncrementalRunner
from onnxviz.runtime.optimized import OptimizedGraph, optimize_graph

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["IncrementalPlans", "PlannedPatch"]

_BYTES_PER_POSITION = 16 << 20
"""Weights for which one position is too little: writing, reading and repacking them takes longer than a few runs."""

_GRAPHS_KEPT = 2
_RUNNERS_KEPT = 3


@dataclass(frozen=True)
class PlannedPatch:
    """How a patch at given positions is computed."""

    runner: IncrementalRunner | None
    """None where every position is a run of the whole network."""
    plan: Plan | None
    """None where nothing could be planned."""
    why: str


class IncrementalPlans:
    """Plans and sessions of one model; every image of the same positions shares them.

    They are kept for the life of the process, hence for one version of onnxruntime and one processor.

    Parameters
    ----------
    tapped : callable
        Names of values → a graph whose outputs they are and whose batch is free.
    where : str
        The model's name in error messages.
    source : str
        Name of the input that takes the image.
    image_layout : str
        ``"NCHW"`` or ``"NHWC"``.
    device : Device
    workers : int
        Threads that compute positions side by side.
    weight_bytes : int
        Size of the model's weights.
    weights : mapping of name to array
        What lies beside the graph.
    """

    def __init__(
        self,
        tapped: Callable[[Sequence[str]], ModelProto],
        *,
        where: str,
        source: str,
        image_layout: str,
        device: Device,
        workers: int,
        weight_bytes: int,
        weights: Mapping[str, NDArray[Any]],
    ) -> None:
        self._tapped = tapped
        self._where, self._source, self._image_layout = where, source, image_layout
        self._device, self._workers = device, workers
        self._weight_bytes, self._weights = weight_bytes, weights
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._graphs: OrderedDict[tuple[Any, ...], OptimizedGraph | str] = OrderedDict()
        self._planned: OrderedDict[tuple[Any, ...], PlannedPatch] = OrderedDict()

    def find(
        self, names: Sequence[str], image: NDArray[Any], patches: NDArray[np.int64], grid: tuple[int, int] | None,
        memory: int, deadline: float | None = None,
    ) -> PlannedPatch:  # fmt: skip
        """Plan, or find again what was planned.

        Parameters
        ----------
        names : sequence of str
            The wanted values.
        image : like the input, without the batch
            An encoded image; only its shape and type matter.
        patches : (positions, 4) int64
            Top, left, bottom, right in pixels; none is empty.
        grid : (rows, columns) or None
        memory : int
            Bytes that original maps and buffers may take.
        deadline : float or None
            ``time.monotonic`` second after which planning is stopped.
        """
        if self._process != os.getpid():
            # Sessions do not survive a fork; neither does a lock that another thread held.
            self._lock, self._process = threading.Lock(), os.getpid()
            _LEFT_BY_FORK.append((self._graphs, self._planned))
            self._graphs, self._planned = OrderedDict(), OrderedDict()
        key = (tuple(names), image.shape, patches.tobytes(), grid, memory)
        with self._lock:
            planned = self._planned.get(key)
            if planned is None:
                try:
                    planned = self._plan(tuple(names), image, patches, grid, memory, deadline)
                except MemoryError as error:
                    # Not kept: another time there may be enough.
                    return PlannedPatch(None, None, f"memory ran out while planning: {error}")
                self._planned[key] = planned
                while len(self._planned) > _RUNNERS_KEPT:
                    self._planned.popitem(last=False)
            self._planned.move_to_end(key)
        return planned

    def _plan(
        self, names: tuple[str, ...], image: NDArray[Any], patches: NDArray[np.int64], grid: tuple[int, int] | None,
        memory: int, deadline: float | None,
    ) -> PlannedPatch:  # fmt: skip
        least = self._weight_bytes // _BYTES_PER_POSITION
        if len(patches) < least:
            return PlannedPatch(
                None, None, f"{len(patches)} positions are too few for weights of this size: {least} pay"
            )
        graph = self._graph(names, image, deadline)
        if isinstance(graph, str):
            return PlannedPatch(None, None, graph)
        plan = make_plan(graph.facts, patches, grid, workers=self._workers, memory=memory)
        if not plan.pays:
            return PlannedPatch(None, plan, plan.why)
        try:
            runner = IncrementalRunner(plan, graph, where=self._where, device=self._device, workers=self._workers)
        except (ModelError, UnsupportedOperatorError) as error:
            return PlannedPatch(None, plan, f"the stages do not run: {error}")
        return PlannedPatch(runner, plan, plan.why)

    def _graph(self, names: tuple[str, ...], image: NDArray[Any], deadline: float | None) -> OptimizedGraph | str:
        """The optimised graph, or why there is none."""
        key = (names, image.shape)
        if key not in self._graphs:
            found: OptimizedGraph | str
            try:
                found = optimize_graph(
                    self._tapped(names), where=self._where, source=self._source, outputs=names, image=image[np.newaxis],
                    image_layout=self._image_layout, device=self._device, weights=self._weights,
                    deadline=deadline,
                )  # fmt: skip
            except (ModelError, UnsupportedOperatorError) as error:
                found = f"the graph cannot be cut: {error}"
            self._graphs[key] = found
            while len(self._graphs) > _GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]


_LEFT_BY_FORK: list[object] = []
"""What a forked child inherited: onnxruntime's threads did not survive the fork, so not even destructors may run."""
