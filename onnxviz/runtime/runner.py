"""A graph comes in; any set of its values, computed in batches that are proven to be right, goes out."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import DeviceError, LimitError, ModelError
from onnxviz.graph.batch import make_batch_dynamic, static_batch
from onnxviz.graph.detached import detach_weights, product_factors, weight_bytes
from onnxviz.graph.loading import LoadedModel
from onnxviz.graph.taps import expose
from onnxviz.runtime.bound_batch import BoundBatch
from onnxviz.runtime.devices import Device
from onnxviz.runtime.gradients import GradientSessions
from onnxviz.runtime.image_axes import growing_axis, image_axis
from onnxviz.runtime.incremental_plans import IncrementalPlans, PlannedPatch
from onnxviz.runtime.probing import relative_difference
from onnxviz.runtime.sessions import OutOfMemory, Session, give_memory_back, open_session
from onnxviz.runtime.spaces import HOST, Array, space_of

__all__ = ["Runner"]

Arrays = dict[str, NDArray[Any]]

_SESSIONS_KEPT = 4
BATCH_TOLERANCE = 1e-4
"""Largest relative difference between a batch and single runs that still counts as the same network."""

_LEFT_BY_FORK: list[object] = []
"""What a forked child inherited: onnxruntime's threads did not survive the fork, so not even destructors may run."""


class Runner:
    """Sessions and batch buffers of one model on one device.

    Parameters
    ----------
    loaded : LoadedModel
    outputs : sequence of str
        Names of the graph's outputs, by which a batch is compared with single runs.
    only_input : str or None
        The input's name where the model has exactly one; None leaves only :meth:`run_feeds`.
    probe : callable
        Number of rows to feeds.
    like : Runner or None
        One of the same model on another device: what it finds out about the graph holds here too.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        outputs: Sequence[str],
        only_input: str | None,
        device: Device,
        threads: int | None,
        probe: Callable[[int], Arrays],
        like: Runner | None = None,
    ) -> None:
        self.deadline: float | None = None
        self.notes: list[str] = [device.note] if device.note else []
        self.device = device
        self.space = space_of(device)
        self._like = like
        self._loaded = loaded
        self._outputs = tuple(outputs)
        self._only_input = only_input
        self._threads = threads
        self._probe = probe
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._sessions: OrderedDict[tuple[str, ...], Session] = OrderedDict()
        self._idle: dict[tuple[tuple[str, ...], int, bool], list[BoundBatch]] = {}
        self._plans: IncrementalPlans | None = None
        self._output_axes: dict[str, int | None] = {}
        self._glancing = False

    @contextmanager
    def glance(self) -> Iterator[None]:
        """Have sessions that serve a few runs neither copy nor pack heavy weights, and close them behind those runs."""
        self._glancing = bool(product_factors(self._loaded.proto, self._loaded.weights))
        try:
            yield
        finally:
            if self._glancing:
                self._sessions.clear()
                self._idle.clear()
                give_memory_back()
            self._glancing = False

    # -- one run -------------------------------------------------------------------------------------------------

    def run_feeds(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run once on all inputs, as the file states them."""
        arrays = self._session(tuple(names)).run(names, dict(feeds), self.deadline)
        return dict(zip(names, arrays, strict=True))

    def run_unoptimized(
        self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]], *, any_batch: bool = False
    ) -> Arrays:
        """Run the graph once with nothing fused or folded, so that any number of values can be asked for.

        The file's own graph, or, for ``any_batch``, the one whose batch is free.
        """
        graph = self._batched if any_batch else self._loaded.proto
        session = self._open(tuple(names), graph, optimize=False, lean=True)
        return dict(zip(names, session.run(names, dict(feeds), self.deadline), strict=True))

    # -- parts of maps -------------------------------------------------------------------------------------------

    def plan_patches(
        self, names: Sequence[str], image: NDArray[Any], image_layout: str, patches: NDArray[np.int64],
        grid: tuple[int, int] | None, memory: int,
    ) -> PlannedPatch:  # fmt: skip
        """How the values are computed with a patch at each position; see :class:`IncrementalPlans`."""
        self._renew_after_fork()
        if self._only_input is None or self.fixed_batch is not None:
            return PlannedPatch(None, None, "the rows of a run cannot be chosen: the model's notes say why")
        with self._lock:
            if self._plans is None:
                self._plans = IncrementalPlans(
                    lambda wanted: expose(self._batched, wanted), where=self._loaded.path.name,
                    source=self._only_input, image_layout=image_layout, device=self.device,
                    # On a device one keeps the only stream full; a second would wait for it.
                    workers=self._threads or _cores() if self.space.on_host else 1,
                    weight_bytes=weight_bytes(self._loaded.proto), weights=self._loaded.weights,
                )  # fmt: skip
        return self._plans.find(names, image, patches, grid, memory, self.deadline)

    # -- gradients -----------------------------------------------------------------------------------------------

    @cached_property
    def gradients(self) -> GradientSessions:
        """Sessions that run forward and backward."""
        free = self._only_input is not None and self.fixed_batch is None
        return GradientSessions(
            self._batched if free else self._loaded.proto, where=self._loaded.path.name, outputs=self._outputs,
            free_batch=free, rows=self.fixed_batch or 1, device=self.device, threads=self._threads,
            weights=self._loaded.weights, probe=self._probe,
        )  # fmt: skip

    # -- batches -------------------------------------------------------------------------------------------------

    @property
    def stated_rows(self) -> int:
        """The rows of a run of the file's own graph."""
        static: int | None = static_batch(self._loaded.proto)
        return static or 1

    @cached_property
    def fixed_batch(self) -> int | None:
        """The rows of every run where the batch cannot be changed; None where any number of rows can share a run.

        A static batch is made dynamic by rewriting the graph. Static or dynamic, a batch is compared once with single
        runs, because an export can hold a number of rows where nobody sees it.
        """
        if self._like is not None:
            return self._like.fixed_batch
        static: int | None = static_batch(self._loaded.proto)
        if self._only_input is None:
            return static
        if static is not None and self._batched is None:
            self._note_fixed(f"the batch of {static} is fixed in the graph", static)
            return static
        step = static or 1
        try:
            difference = self._batch_difference(step)
        except (ModelError, OutOfMemory) as error:
            self._note_fixed(f"a batch does not run ({error.got or error.what})", step)
            return step
        if difference > BATCH_TOLERANCE:
            self._note_fixed(f"a batch differs from single runs by {difference:.1e} of the largest output", step)
            return step
        if static is not None:
            self.notes.append(
                f"the batch of {static}, fixed in the file, was made dynamic;"
                f" it equals single runs {_within(difference)}"
            )
        return None

    @property
    def output_axes(self) -> Mapping[str, int | None]:
        """By output of a model with a free batch: the axis along which the images lie, None where there is none."""
        return (self._like or self)._output_axes if self.fixed_batch is None else {}

    @property
    def runs_alike(self) -> bool:
        """Whether a run of fewer rows than the one before is better filled up.

        On a CUDA device the provider plans every convolution anew whenever their number changes, which takes as long as
        dozens of runs.
        """
        return not self.device.is_cpu

    def stream(
        self,
        tensor: NDArray[Any],
        names: Sequence[str],
        batch: int,
        *,
        to_host: bool = True,
        axes: Mapping[str, int] | None = None,
    ) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Run rows in batches; each step gives which rows, and arrays that are valid until the next step.

        When memory runs out the batch is halved and tried again. Without ``to_host`` the arrays stay in the
        runner's space. ``axes`` tells of values along which axis their images lie, where that is not the first.

        Raises
        ------
        LimitError
            Not even the smallest batch fits.
        """
        results = HOST if to_host else self.space
        fixed = self.fixed_batch
        size = fixed or min(batch, max(len(tensor), 1))
        start = 0
        while start < len(tensor):
            rows = tensor[start : start + size]
            try:
                with self.bound(names, size, to_host=to_host) as bound:
                    if len(rows) < size and (fixed or (self.runs_alike and start > 0)):
                        bound.buffer[: len(rows)] = rows
                        bound.buffer[len(rows) :] = rows[-1]
                        whole = bound.run_rows(bound.buffer).items()
                        arrays = {
                            name: array[(slice(None),) * axes[name] + (slice(len(rows)),)]
                            if axes and axes.get(name)
                            else results.rows(array, 0, len(rows))
                            for name, array in whole
                        }
                    else:
                        arrays = bound.run_rows(rows)
                    yield slice(start, start + len(rows)), arrays
            except OutOfMemory as error:
                if size == 1 or fixed:
                    raise LimitError(
                        "not even one image fits in memory",
                        where=self._loaded.path.name,
                        got=error.got,
                        next_step="Ask for fewer values at once, or run on a machine with more memory",
                    ) from error
                size = max(1, size // 2)
                self.notes.append(f"memory ran out: the batch was halved to {size}")
                continue
            start += len(rows)

    @contextmanager
    def bound(self, names: Sequence[str], size: int, *, to_host: bool = True) -> Iterator[BoundBatch]:
        """Borrow a batch of ``size`` rows; threads never share one, and the next borrower gets it again."""
        key = (tuple(names), size, to_host)
        session = self._session(key[0])
        with self._lock:
            pool = self._idle.setdefault(key, [])
            bound = pool.pop() if pool else None
        if bound is None:
            assert self._only_input is not None
            row = self._probe(1)[self._only_input]
            bound = BoundBatch(
                session, input_name=self._only_input, shape=(size, *row.shape[1:]), dtype=row.dtype, outputs=key[0],
                space=self.space, results=HOST if to_host else self.space,
            )  # fmt: skip
        bound.deadline = self.deadline
        yield bound
        # Not in a `finally`: after a failed run the state of the binding is unknown, and a new one costs little.
        with self._lock:
            if key[0] in self._sessions:
                self._idle.setdefault(key, []).append(bound)

    # -- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _batched(self) -> Any:
        """The graph with a free first axis; None where it cannot be rewritten."""
        return make_batch_dynamic(self._loaded.proto) if self._like is None else self._like._batched

    @property
    def any_batch_graph(self) -> Any:
        """The graph that takes any number of rows, where :attr:`fixed_batch` is None."""
        return self._batched

    def _batch_difference(self, step: int) -> float:
        """How far one run on two batches' worth of rows is from two runs of the file's own graph."""
        feeds = self._probe(2 * step)
        together = self._open(self._outputs, self._batched, lean=True).run(self._outputs, feeds, self.deadline)
        original = self._open(self._outputs, self._loaded.proto, lean=True)
        parts = [
            original.run(
                self._outputs, {name: rows[first : first + step] for name, rows in feeds.items()}, self.deadline
            )
            for first in (0, step)
        ]
        worst = 0.0
        for name, whole, first, second in zip(self._outputs, together, *parts, strict=True):
            axis = growing_axis(first.shape, whole.shape)
            self._output_axes[name] = image_axis(first.shape, whole.shape, step)
            if axis is None and first.shape == whole.shape:
                # It has no axis of images, and may not depend on which share a run.
                differences = [relative_difference(whole, first), relative_difference(whole, second)]
            else:
                both = [np.atleast_1d(first), np.atleast_1d(second)]
                differences = [relative_difference(whole, np.concatenate(both, axis=axis or 0))]
            worst = max(worst, *differences)
        return worst

    def _note_fixed(self, why: str, batch: int) -> None:
        self.notes.append(f"{why}: images are run {'one by one' if batch == 1 else f'{batch} at a time'}")

    def _session(self, names: tuple[str, ...]) -> Session:
        """The session whose outputs are ``names``; the few used last are kept."""
        self._renew_after_fork()
        free = self._only_input is not None and self.fixed_batch is None
        with self._lock:
            session = self._sessions.get(names)
            if session is None:
                session = self._open(names, self._batched if free else self._loaded.proto, lean=self._glancing)
                self._sessions[names] = session
                while len(self._sessions) > _SESSIONS_KEPT:
                    dropped, _ = self._sessions.popitem(last=False)
                    self._idle = {key: pool for key, pool in self._idle.items() if key[0] != dropped}
            self._sessions.move_to_end(names)
            return session

    def _open(self, names: tuple[str, ...], graph: Any, *, optimize: bool = True, lean: bool = False) -> Session:
        tapped = expose(graph, names)
        weights = {**self._loaded.weights, **detach_weights(tapped)}
        return open_session(
            tapped, where=self._loaded.path.name, device=self.device, threads=self._threads, weights=weights,
            optimize=optimize, lean=lean,
        )  # fmt: skip

    def _renew_after_fork(self) -> None:
        if self._process == os.getpid():
            return
        if not self.device.is_cpu:
            raise DeviceError(
                "a CUDA device cannot be used in a process that was forked", where=self._loaded.path.name,
                next_step="Start processes with multiprocessing's 'spawn'",
            )  # fmt: skip
        _LEFT_BY_FORK.append((self._sessions, self._idle, self._lock))
        self._sessions, self._idle, self._lock = OrderedDict(), {}, threading.RLock()
        self._process = os.getpid()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _within(difference: float) -> str:
    return "exactly" if difference == 0 else f"within {difference:.0e} of the largest output"
