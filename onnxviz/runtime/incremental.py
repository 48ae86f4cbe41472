"""A plan, an image and a fill come in; the wanted values at every position of the patch go out, unit by unit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.graph.incremental.plan import Plan
from onnxviz.graph.incremental.stages import Overlay, Stage
from onnxviz.graph.taps import expose
from onnxviz.runtime.bound_batch import aligned_empty
from onnxviz.runtime.devices import Device
from onnxviz.runtime.optimized import OptimizedGraph
from onnxviz.runtime.sessions import Session, Watch, open_session

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["IncrementalRunner"]

Arrays = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
Fills = Callable[[Indices], NDArray[Any]]


_CLEAN = -1
"""Position, and group, of the image without a patch."""


@dataclass(frozen=True)
class _Run:
    """Positions of one group that share the runs before the tail."""

    group: int
    positions: Indices


class IncrementalRunner:
    """The sessions of one plan; it holds nothing of an image, so any number of images may share it.

    Parameters
    ----------
    plan : Plan
        One that pays.
    graph : OptimizedGraph
        What was planned.
    where : str
        The model's name in error messages.
    device : Device
    workers : int
        Threads that compute positions side by side.
    """

    def __init__(self, plan: Plan, graph: OptimizedGraph, *, where: str, device: Device, workers: int) -> None:
        assert plan.stages is not None
        self.plan = plan
        self._stages = plan.stages
        self._facts = graph.facts
        self._image_axes = len(self._facts.shapes[self._facts.source]) - 1
        self._where, self._device, self._workers = where, device, workers
        self._weights = graph.weights
        self._sessions = [self._open(stage) for stage in (*self._stages.before, self._stages.tail)]
        self._originals = self._open_originals()
        self._spare: SimpleQueue[_Buffers] = SimpleQueue()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _open(self, stage: Stage) -> Session | None:
        if stage.proto is None:
            return None
        return self._session(stage.proto, stage.initializers, threads=1)

    def _open_originals(self) -> Session | None:
        names = [name for name in self._stages.originals if name != self._facts.source]
        if not names:
            return None
        proto = expose(self._facts.proto, names)
        # onnxruntime splits the powers of an LRN among its threads, and where it cuts they are computed by another
        # routine, whose last bit may differ. One thread keeps answers independent of the number of workers.
        threads = 1 if any(node.op_type == "LRN" for node in proto.graph.node) else self._workers
        return self._session(proto, [tensor.name for tensor in proto.graph.initializer], threads=threads)

    def _session(self, proto: ModelProto, initializers: Sequence[str], *, threads: int) -> Session:
        return open_session(
            proto.SerializeToString(), where=self._where, device=self._device, threads=threads, data_directory=None,
            optimize=not self._facts.bitwise, alone=False,
            weights={name: self._weights[name] for name in initializers if name in self._weights},
        )  # fmt: skip

    # -- one image ----------------------------------------------------------------------------------------------------

    def originals(self, image: NDArray[Any], watch: Watch) -> Arrays:
        """What the network computes of the image as it is, (1, ...) per value, wherever windows have surroundings."""
        found: Arrays = {self._facts.source: image[np.newaxis]}
        if self._originals is not None:
            names = [name for name in self._stages.originals if name != self._facts.source]
            found |= zip(names, self._originals.run_watched(names, found, watch), strict=True)
        return found

    def positions(
        self, originals: Arrays, fills: Fills, passes: Sequence[Indices], watch: Watch
    ) -> Iterator[tuple[Indices, Arrays]]:
        """Compute the wanted values with the patch at each position, and without it as position -1.

        Parameters
        ----------
        originals : dict
            Of this image.
        fills : callable
            Positions to what the network is shown inside their boxes: one image for all of them, or one for each.
        passes : sequence of arrays of positions
            Which positions to compute; those of an earlier pass come first.
        watch : Watch

        Yields
        ------
        (positions, {value: array})
            Always in the same order, whatever the number of workers and however fast they are; -1 comes first.
        """
        units = [unit for positions in passes for unit in self._units(positions)]
        # A run of the tail may have to read hundreds of megabytes of weights: not for one position.
        units[:1] = [[_Run(_CLEAN, np.array([_CLEAN])), *(units[0] if units else [])]]
        with ThreadPoolExecutor(self._workers, thread_name_prefix="onnxviz-occlusion") as pool:
            waiting: deque[Future[tuple[Indices, Arrays]]] = deque()
            stop = threading.Event()
            try:
                if len(passes) > 1:
                    # Somebody looks on: what is asked for first has the memory bus for itself.
                    yield pool.submit(self._unit, units.pop(0), originals, fills, watch, stop).result()
                for unit in units:
                    waiting.append(pool.submit(self._unit, unit, originals, fills, watch, stop))
                    if len(waiting) > 2 * self._workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                stop.set()
                for future in waiting:
                    future.cancel()

    def _units(self, positions: Indices) -> Iterator[list[_Run]]:
        """Runs that share one run of the tail; of one size, and as many as keep all workers busy."""
        groups = self.plan.windows.groups
        runs = []
        for group in range(groups.count):
            members = positions[groups.of_position[positions] == group]
            parts = -(-len(members) // self.plan.batch)
            runs += [_Run(group, part) for part in np.array_split(members, parts)] if parts else []
        count = -(-len(positions) // self.plan.tail_batch)
        count += -count % self._workers
        size = min(self.plan.tail_batch, -(-len(positions) // count))
        unit: list[_Run] = []
        room = size
        for run in runs:
            rest = run.positions
            while len(rest):
                unit.append(_Run(run.group, rest[:room]))
                room -= len(unit[-1].positions)
                rest = rest[len(unit[-1].positions) :]
                if room == 0:
                    yield unit
                    unit, room = [], size
        if unit:
            yield unit

    def _unit(
        self, unit: list[_Run], originals: Arrays, fills: Fills, watch: Watch, stop: threading.Event
    ) -> tuple[Indices, Arrays]:
        positions = np.concatenate([run.positions for run in unit])
        try:
            buffers = self._spare.get_nowait()
        except Empty:
            buffers = _Buffers()
        maps = {
            overlay.name: buffers.whole(overlay, len(positions), self._facts.dtypes[overlay.source])
            for overlay in self._stages.tail.overlays
        }
        done = 0
        for run in unit:
            if stop.is_set():
                return positions, {}  # nobody waits for it
            rows = slice(done, done + len(run.positions))
            part = {name: array[rows] for name, array in maps.items()}
            if run.group == _CLEAN:
                for overlay in self._stages.tail.overlays:
                    part[overlay.name][:] = originals[overlay.source]
            else:
                self._before_tail(run, originals, fills, part, buffers, watch)
            done = rows.stop
        found = {name: np.array(array) for name, array in self._finish(maps, len(positions), watch).items()}
        self._spare.put(buffers)
        return positions, found

    def _before_tail(
        self, run: _Run, originals: Arrays, fills: Fills, maps: Arrays, buffers: _Buffers, watch: Watch
    ) -> None:
        present: Arrays = {}
        shown = fills(run.positions)
        for stage, session in zip(self._stages.before, self._sessions, strict=False):
            for overlay in stage.overlays:
                dtype = self._facts.dtypes[overlay.source]
                present[overlay.name] = buffers.window(overlay, run, dtype)
                self._overlay(overlay, run, originals, shown, present, present[overlay.name])
            if session is not None:
                feeds = {name: present[name] for name in stage.inputs} | _shapes(stage, len(run.positions))
                present |= zip(stage.outputs, session.run_watched(stage.outputs, feeds, watch), strict=True)
            for name in stage.released:
                present.pop(name, None)
                buffers.give_back(name)
        for overlay in self._stages.tail.overlays:
            self._overlay(overlay, run, originals, shown, present, maps[overlay.name])
        for name in present:
            buffers.give_back(name)

    def _overlay(
        self, overlay: Overlay, run: _Run, originals: Arrays, shown: NDArray[Any], present: Arrays, into: NDArray[Any]
    ) -> None:
        of_image = overlay.source == self._facts.source
        source = overlay.source_size[run.group]
        window = overlay.size[run.group]
        backend.overlay_windows(
            originals[overlay.source],
            shown if of_image else present[overlay.source],
            overlay.placements[run.positions],
            into,
            layout=overlay.geometry.core_layout,
            source_size=(int(source[0]), int(source[1])),
            window_size=(int(window[0]), int(window[1])),
            shared_source=of_image and shown.ndim == self._image_axes,
            border=overlay.border,
        )

    def _finish(self, maps: Arrays, positions: int, watch: Watch) -> Arrays:
        tail, session = self._stages.tail, self._sessions[-1]
        found = dict(maps)
        if session is not None:
            feeds = {name: maps[name] for name in tail.inputs} | _shapes(tail, positions)
            found |= zip(tail.outputs, session.run_watched(tail.outputs, feeds, watch), strict=True)
        return {value: found[name] for value, name in self._stages.wanted.items()}


def _shapes(stage: Stage, batch: int) -> Arrays:
    return {
        name: np.array([batch if side == -1 else side for side in shape], np.int64)
        for name, shape in stage.shape_inputs.items()
    }


class _Buffers:
    """Memory of one worker, used again for window after window: what was just written is still in the cache."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lent: dict[str, NDArray[np.uint8]] = {}
        self._whole: dict[str, NDArray[Any]] = {}

    def window(self, overlay: Overlay, run: _Run, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for the overlay's windows of one run, shaped as onnxruntime is told."""
        rows, columns = (int(side) for side in overlay.size[run.group])
        geometry = overlay.geometry
        shape = geometry.layout.shape(len(run.positions), geometry.channels, rows, columns)
        wanted = len(run.positions) * geometry.window_bytes(rows, columns)
        fitting = [place for place, memory in enumerate(self._free) if len(memory) >= wanted]
        if fitting:
            memory = self._free.pop(min(fitting, key=lambda place: len(self._free[place])))
        else:
            if self._free:
                self._free.pop(max(range(len(self._free)), key=lambda place: len(self._free[place])))
            memory = aligned_empty((wanted,), np.dtype(np.uint8))
        self._lent[overlay.name] = memory
        return memory[:wanted].view(dtype).reshape(shape)

    def give_back(self, name: str) -> None:
        """Take memory back that :meth:`window` gave for the overlay of that name; any other value is left alone."""
        if name in self._lent:
            self._free.append(self._lent.pop(name))

    def whole(self, overlay: Overlay, positions: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Memory for whole maps of so many positions."""
        geometry = overlay.geometry
        kept = self._whole.get(overlay.name)
        if kept is None or len(kept) < positions:
            shape = geometry.layout.shape(positions, geometry.channels, geometry.rows, geometry.columns)
            kept = self._whole[overlay.name] = aligned_empty(shape, dtype)
        return kept[:positions]
