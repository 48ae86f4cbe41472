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

from onnxviz.graph.incremental.plan import Plan
from onnxviz.graph.incremental.stages import Overlay, Stage
from onnxviz.graph.taps import expose
from onnxviz.runtime.devices import Device
from onnxviz.runtime.optimized import OptimizedGraph
from onnxviz.runtime.sessions import Session, Watch, open_session
from onnxviz.runtime.spaces import Array, Space, space_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["IncrementalRunner"]

Arrays = dict[str, NDArray[Any]]
Indices = NDArray[np.int64]
Fills = Callable[[Indices], NDArray[Any]]
Maps = dict[str, Array]
"""Value to map, in the space of the device."""


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
        self._space = space_of(device)
        self._weights = graph.weights
        self._sessions = [self._open(stage) for stage in (*self._stages.before, self._stages.tail)]
        self._originals = self._open_originals()
        self._spare: SimpleQueue[_Buffers] = SimpleQueue()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _open(self, stage: Stage) -> Session | None:
        if stage.proto is None:
            return None
        return self._session(stage.proto, threads=1)

    def _open_originals(self) -> Session | None:
        names = [name for name in self._stages.originals if name != self._facts.source]
        if not names:
            return None
        proto = expose(self._facts.proto, names)
        # onnxruntime splits the powers of an LRN among its threads, and where it cuts they are computed by another
        # routine, whose last bit may differ. One thread keeps answers independent of the number of workers.
        threads = 1 if any(node.op_type == "LRN" for node in proto.graph.node) else self._workers
        return self._session(proto, threads=threads)

    def _session(self, proto: ModelProto, *, threads: int) -> Session:
        return open_session(
            proto, where=self._where, device=self._device, threads=threads, weights=self._weights,
            optimize=not self._facts.bitwise, alone=False,
        )  # fmt: skip

    # -- one image ----------------------------------------------------------------------------------------------------

    def originals(self, image: NDArray[Any], watch: Watch) -> Maps:
        """What the network computes of the image as it is, (1, ...) per value, wherever windows have surroundings."""
        found: Maps = {self._facts.source: self._space.put(image[np.newaxis])}
        if self._originals is not None:
            names = [name for name in self._stages.originals if name != self._facts.source]
            found |= zip(names, self._space.run(self._originals, names, found, watch), strict=True)
        return found

    def positions(
        self, originals: Maps, fills: Fills, passes: Sequence[Indices], watch: Watch
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
        self, unit: list[_Run], originals: Maps, fills: Fills, watch: Watch, stop: threading.Event
    ) -> tuple[Indices, Arrays]:
        positions = np.concatenate([run.positions for run in unit])
        try:
            buffers = self._spare.get_nowait()
        except Empty:
            buffers = _Buffers(self._space)
        maps = {
            overlay.name: buffers.whole(overlay, len(positions), self._facts.dtypes[overlay.source])
            for overlay in self._stages.tail.overlays
        }
        done = 0
        for run in unit:
            if stop.is_set():
                return positions, {}  # nobody waits for it
            rows = slice(done, done + len(run.positions))
            part = {name: self._space.rows(array, rows.start, rows.stop) for name, array in maps.items()}
            if run.group == _CLEAN:
                for overlay in self._stages.tail.overlays:
                    self._space.write(part[overlay.name], originals[overlay.source])
            else:
                self._before_tail(run, originals, fills, part, buffers, watch)
            done = rows.stop
        found = {name: np.array(array) for name, array in self._finish(maps, len(positions), watch).items()}
        self._spare.put(buffers)
        return positions, found

    def _before_tail(
        self, run: _Run, originals: Maps, fills: Fills, maps: Maps, buffers: _Buffers, watch: Watch
    ) -> None:
        present: Maps = {}
        shown = buffers.shown(fills(run.positions))
        for stage, session in zip(self._stages.before, self._sessions, strict=False):
            for overlay in stage.overlays:
                dtype = self._facts.dtypes[overlay.source]
                present[overlay.name] = buffers.window(overlay, run, dtype)
                self._overlay(overlay, run, originals, shown, present, present[overlay.name])
            if session is not None:
                feeds = {name: present[name] for name in stage.inputs} | _shapes(stage, len(run.positions))
                present |= zip(stage.outputs, self._space.run(session, stage.outputs, feeds, watch), strict=True)
            for name in stage.released:
                present.pop(name, None)
                buffers.give_back(name)
        for overlay in self._stages.tail.overlays:
            self._overlay(overlay, run, originals, shown, present, maps[overlay.name])
        for name in present:
            buffers.give_back(name)

    def _overlay(self, overlay: Overlay, run: _Run, originals: Maps, shown: Array, present: Maps, into: Array) -> None:
        of_image = overlay.source == self._facts.source
        source = overlay.source_size[run.group]
        window = overlay.size[run.group]
        self._space.overlay_windows(
            originals[overlay.source],
            shown if of_image else present[overlay.source],
            overlay.placements[run.positions],
            into,
            layout=overlay.geometry.core_layout,
            source_size=(int(source[0]), int(source[1])),
            window_size=(int(window[0]), int(window[1])),
            shared_source=of_image and len(shown.shape) == self._image_axes,
            border=overlay.border,
        )

    def _finish(self, maps: Maps, positions: int, watch: Watch) -> Arrays:
        tail, session = self._stages.tail, self._sessions[-1]
        found = dict(maps)
        if session is not None:
            feeds = {name: maps[name] for name in tail.inputs} | _shapes(tail, positions)
            found |= zip(tail.outputs, self._space.run_to_host(session, tail.outputs, feeds, watch), strict=True)
        return {
            # A map that is wanted as it is has not been through a session.
            value: self._space.to_host(found[name]) if name in maps else found[name]
            for value, name in self._stages.wanted.items()
        }


def _shapes(stage: Stage, batch: int) -> Arrays:
    return {
        name: np.array([batch if side == -1 else side for side in shape], np.int64)
        for name, shape in stage.shape_inputs.items()
    }


class _Buffers:
    """Memory of one worker, used again for window after window: what was just written is still in the cache."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._free: list[Array] = []
        self._lent: dict[str, Array] = {}
        self._whole: dict[str, Array] = {}
        self._shown: tuple[NDArray[Any], Array] | None = None

    def shown(self, fill: NDArray[Any]) -> Array:
        """The fill in the space; one that all positions share is carried there once."""
        if self._shown is None or self._shown[0] is not fill:
            self._shown = fill, self._space.put(fill)
        return self._shown[1]

    def window(self, overlay: Overlay, run: _Run, dtype: np.dtype[Any]) -> Array:
        """Memory for the overlay's windows of one run, shaped as onnxruntime is told."""
        rows, columns = (int(side) for side in overlay.size[run.group])
        geometry = overlay.geometry
        shape = geometry.layout.shape(len(run.positions), geometry.channels, rows, columns)
        wanted = len(run.positions) * geometry.window_bytes(rows, columns)
        fitting = [place for place, memory in enumerate(self._free) if memory.nbytes >= wanted]
        if fitting:
            memory = self._free.pop(min(fitting, key=lambda place: self._free[place].nbytes))
        else:
            if self._free:
                self._free.pop(max(range(len(self._free)), key=lambda place: self._free[place].nbytes))
            memory = self._space.empty((wanted,), np.dtype(np.uint8))
        self._lent[overlay.name] = memory
        return self._space.shaped(memory, shape, dtype)

    def give_back(self, name: str) -> None:
        """Take memory back that :meth:`window` gave for the overlay of that name; any other value is left alone."""
        if name in self._lent:
            self._free.append(self._lent.pop(name))

    def whole(self, overlay: Overlay, positions: int, dtype: np.dtype[Any]) -> Array:
        """Memory for whole maps of so many positions."""
        geometry = overlay.geometry
        kept = self._whole.get(overlay.name)
        if kept is None or kept.shape[0] < positions:
            shape = geometry.layout.shape(positions, geometry.channels, geometry.rows, geometry.columns)
            kept = self._whole[overlay.name] = self._space.empty(shape, dtype)
        return self._space.rows(kept, 0, positions)
