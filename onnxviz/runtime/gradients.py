"""Values to derive and to derive by come in; a session that computes them with their gradients goes out."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.graph.gradient.backward import GradientGraph, build_gradient_graph
from onnxviz.graph.gradient.facts import ValueFacts, infer_facts, unknown_values, with_fixed_inputs, with_measured
from onnxviz.graph.gradient.normalize import NormalizedGraph, normalize
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.graph.taps import expose
from onnxviz.runtime.devices import Device
from onnxviz.runtime.halving import run_halving
from onnxviz.runtime.probing import relative_difference
from onnxviz.runtime.sessions import Session, Watch, open_session

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["GradientSession", "GradientSessions"]

Arrays = Mapping[str, NDArray[Any]]
Found = dict[str, NDArray[Any]]

TOLERANCE = 1e-4
"""Largest relative difference between the file's graph and the normalised one that still counts as the same network."""

_SESSIONS_KEPT = 4
_WEIGHTS_KEPT = 1 << 29
"""Bytes of weights in all sessions kept; one session is kept at any rate."""

_FACTS_KEPT = 4
_TRUE_GRADIENT = RuleSet()


class GradientSession:
    """One session that runs forward and backward.

    Attributes
    ----------
    targets : tuple of str
        Values whose weighted sum is derived; each run takes the weights.
    wrt : tuple of str
        Values by which it is derived.
    values : tuple of str
        Values that each run gives too.

    All arrays that come in and go out have the images along their first axis; ``axes`` names the values which in the
    graph have them along another, with that axis, and those that have none (weights, windows), with None.
    """

    def __init__(
        self, session: Session, graph: GradientGraph, facts: ValueFacts, values: Sequence[str], *, where: str,
        axes: Mapping[str, int | None],
    ) -> None:  # fmt: skip
        self._session, self._facts, self._where, self._axes = session, facts, where, axes
        self.targets, self.wrt, self.values = tuple(graph.seeds), tuple(graph.gradients), tuple(values)
        self._seeds, self._seed_types = dict(graph.seeds), dict(graph.seed_types)
        self._outputs = [*graph.gradients.values(), *self.values]

    def sides(self, name: str) -> tuple[int | None, ...] | None:
        """Sides of a value for one row, the first axis left out; None where not even the rank is certain."""
        sides = self._facts.shapes.get(name)
        if sides is None:
            return None
        of_images = self._axes.get(name) or 0
        return tuple(side if isinstance(side, int) else None for axis, side in enumerate(sides) if axis != of_images)

    def run(
        self, feeds: Arrays, seeds: Arrays, watch: Watch
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Run once.

        Parameters
        ----------
        feeds : mapping of input name to array
        seeds : mapping of target to array
            By what each element of a target counts in the sum, in the target's shape, the images first; any real
            numbers.
        watch : Watch

        Returns
        -------
        (dict of value name to array, dict of value name to array)
            Gradients, each in its value's shape, and the values asked for; the images first.
        """
        fed = dict(feeds)
        for name, seed in seeds.items():
            placed = np.moveaxis(seed, 0, self._axes.get(name) or 0)
            fed[self._seeds[name]] = np.ascontiguousarray(placed, self._seed_types[name])
        found = self._session.run_watched(self._outputs, fed, watch)
        count = len(self.wrt)
        names = (*self.wrt, *self.values)
        found = [
            np.moveaxis(a, axis, 0) if (axis := self._axes.get(n)) else a for n, a in zip(names, found, strict=True)
        ]
        return dict(zip(self.wrt, found[:count], strict=True)), dict(zip(self.values, found[count:], strict=True))

    def stream(
        self,
        tensor: NDArray[Any],
        only_input: str,
        seeds: Callable[[slice], Arrays],
        batch: int,
        watch: Watch,
        *,
        fixed: bool = False,
        alike: bool = False,
    ) -> Iterator[tuple[slice, Found, Found]]:
        """Run rows in batches; the batch is halved when memory runs out.

        Parameters
        ----------
        tensor : (n, *input shape)
        only_input : str
            The input that takes it.
        seeds : callable
            Which rows → the seeds for them.
        batch : int
            Rows per run.
        watch : Watch
        fixed : bool
            Whether every run must have that many: the last row is then repeated with weights of 0.
        alike : bool
            Whether runs after the first are filled up likewise.

        Raises
        ------
        LimitError
            Not even one row fits.
        """

        def run(rows: slice, wanted: int) -> tuple[Found, Found]:
            count = rows.stop - rows.start
            fed, weights = tensor[rows], seeds(rows)
            if count == wanted:
                return self.run({only_input: fed}, weights, watch)
            fed = np.concatenate([fed, np.repeat(fed[-1:], wanted - count, axis=0)])
            weights = {
                name: np.concatenate([seed, np.zeros((wanted - count, *seed.shape[1:]), seed.dtype)])
                for name, seed in weights.items()
            }
            gradients, values = self.run({only_input: fed}, weights, watch)
            # Weights have no rows, and those repeated add nothing to their sums.
            rowless = {name for name, axis in self._axes.items() if axis is None}
            return (
                {name: array if name in rowless else array[:count] for name, array in gradients.items()},
                {name: array if name in rowless else array[:count] for name, array in values.items()},
            )

        for rows, (gradients, values) in run_halving(
            len(tensor), batch, run, fixed=fixed, alike=alike, where=self._where,
            next_step="Derive by fewer values at once, or run on a machine with more memory",
        ):  # fmt: skip
            yield rows, gradients, values


class GradientSessions:
    """Gradient graphs and sessions of one model.

    Parameters
    ----------
    graph : ModelProto
        The model, its batch free where it can be.
    where : str
        The model's name in error messages.
    outputs : sequence of str
        Names of its outputs, by which the normalised graph is compared with it.
    free_batch : bool
        Whether a run may have any number of rows.
    rows : int
        How many it must have where it may not.
    device : Device
    threads : int or None
    weights : mapping of name to array
        What lies beside the graph.
    probe : callable
        Number of rows → feeds.
    """

    def __init__(
        self,
        graph: ModelProto,
        *,
        where: str,
        outputs: Sequence[str],
        free_batch: bool,
        rows: int,
        device: Device,
        threads: int | None,
        weights: Arrays,
        probe: Callable[[int], dict[str, NDArray[Any]]],
    ) -> None:
        self._graph, self._where, self._names = graph, where, tuple(outputs)
        self._free_batch, self._rows = free_batch, rows
        self._device, self._threads = device, threads
        self._weights, self._probe = weights, probe
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._facts: OrderedDict[tuple[Any, ...], ValueFacts] = OrderedDict()
        self._sessions: OrderedDict[tuple[Any, ...], tuple[RuleSet, GradientSession]] = OrderedDict()

    def session(
        self,
        shapes: Mapping[str, Sequence[int]],
        targets: Sequence[str],
        wrt: Sequence[str],
        values: Sequence[str] = (),
        rules: RuleSet | None = None,
        axes: Mapping[str, int | None] | None = None,
    ) -> GradientSession:
        """The session for these values and input shapes; the few used last are kept.

        Parameters
        ----------
        shapes : mapping of input name to shape
            Of what will be fed; where the batch is free, the first side is not looked at.
        targets, wrt, values : sequence of str
        rules : RuleSet, optional
            Laid over the true derivatives.
        axes : mapping of value name to axis or None, optional
            The values whose images lie along another axis than the first, or along none.

        Raises
        ------
        UnsupportedOperatorError
            An operator on the way has no rule, or the graph cannot be brought to a form that the rules know.
        """
        rules = rules or _TRUE_GRADIENT
        self._renew_after_fork()
        sides = self._sides(shapes)
        key = (sides, tuple(targets), tuple(wrt), tuple(values), id(rules))
        with self._lock:
            if key not in self._sessions:
                # The rules are kept with the session: their identity is part of the key.
                self._sessions[key] = rules, self._open_session(
                    sides, shapes, targets, wrt, values, rules, axes or {}
                )  # fmt: skip
                most = max(1, min(_SESSIONS_KEPT, _WEIGHTS_KEPT // max(1, self._weight_bytes)))
                while len(self._sessions) > most:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            return self._sessions[key][1]

    def facts(self, shapes: Mapping[str, Sequence[int]]) -> ValueFacts:
        """Types and shapes of all values for inputs of these shapes."""
        with self._lock:
            return self._known_facts(self._sides(shapes), shapes)

    @cached_property
    def normalized(self) -> NormalizedGraph:
        """The graph in the forms that the rules know, compared with the file's own once.

        Raises
        ------
        UnsupportedOperatorError
            It does not compute the same.
        """
        normalized = normalize(self._graph, where=self._where, weights=self._weights)
        feeds = self._probe(1 if self._free_batch else self._rows)
        expected, found = (
            self._open(expose(proto, self._names), normalized.weights, optimize=False).run(self._names, feeds, None)
            for proto in (normalized.stated, normalized.proto)
        )
        for name, array, wanted in zip(self._names, found, expected, strict=True):
            difference = relative_difference(np.asarray(array), np.asarray(wanted))
            if difference > TOLERANCE:
                raise UnsupportedOperatorError(
                    "the graph does not compute the same when it is brought to a newer operator set",
                    where=f"{self._where}, output {name!r}", got=f"a relative difference of {difference:.1e}",
                    allowed=f"at most {TOLERANCE:.0e}",
                    next_step="Export the model again with operator set 18, or explain with occlusion or rise",
                )  # fmt: skip
        return normalized

    @cached_property
    def _weight_bytes(self) -> int:
        return sum(array.nbytes for array in self.normalized.weights.values())

    # -- inside --------------------------------------------------------------------------------------------------

    def _open_session(
        self, sides: tuple[Any, ...], shapes: Mapping[str, Sequence[int]], targets: Sequence[str], wrt: Sequence[str],
        values: Sequence[str], rules: RuleSet, axes: Mapping[str, int | None],
    ) -> GradientSession:  # fmt: skip
        facts = self._known_facts(sides, shapes)
        graph = build_gradient_graph(
            self.normalized.proto, facts, targets=targets, wrt=wrt, values=values, rules=rules,
            tensors=self.normalized.weights, where=self._where,
        )  # fmt: skip
        session = self._open(graph.proto, {**self.normalized.weights, **graph.weights}, optimize=True)
        return GradientSession(session, graph, facts, values, where=self._where, axes=axes)

    def _known_facts(self, sides: tuple[Any, ...], shapes: Mapping[str, Sequence[int]]) -> ValueFacts:
        if sides not in self._facts:
            proto = with_fixed_inputs(self.normalized.proto, shapes, free_batch=self._free_batch)
            facts = infer_facts(proto)
            if unknown := unknown_values(proto, facts):
                facts = with_measured(proto, facts, self._measure(unknown, shapes))
            self._facts[sides] = facts
            while len(self._facts) > _FACTS_KEPT:
                self._facts.popitem(last=False)
        self._facts.move_to_end(sides)
        return self._facts[sides]

    def _measure(self, names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> list[tuple[int, Arrays]]:
        """What a few runs on zeros show of values; two numbers of rows tell which sides are the batch."""
        session = self._open(expose(self.normalized.proto, names), self.normalized.weights, optimize=False)
        runs: list[tuple[int, Arrays]] = []
        for rows in (2, 3) if self._free_batch else (self._rows,):
            feeds = self._probe(rows)
            for name, shape in shapes.items():
                wanted = (rows, *shape[1:]) if self._free_batch else tuple(shape)
                if feeds[name].shape != wanted:
                    feeds[name] = np.zeros(wanted, feeds[name].dtype)
            with Watch(None) as watch:
                arrays = session.run_watched(names, feeds, watch)
            found = {
                # Only type and shape are wanted: a broadcast scalar has both and weighs nothing.
                name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
                for name, array in zip(names, arrays, strict=True)
                if isinstance(array, np.ndarray) and array.dtype.kind in "fiubV"
            }
            runs.append((rows, found))
        return runs

    def _open(self, proto: ModelProto, weights: Arrays, *, optimize: bool) -> Session:
        return open_session(
            proto, where=self._where, device=self._device, threads=self._threads, weights=weights, optimize=optimize,
            lean=True,
        )  # fmt: skip

    def _sides(self, shapes: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
        """What a session depends on: the sides of the inputs without a free batch."""
        return tuple((name, *(shape[1:] if self._free_batch else shape)) for name, shape in sorted(shapes.items()))

    def _renew_after_fork(self) -> None:
        if self._process != os.getpid():
            _LEFT_BY_FORK.append((self._sessions, self._lock))
            self._sessions, self._lock = OrderedDict(), threading.RLock()
            self._process = os.getpid()


_LEFT_BY_FORK: list[object] = []
"""What a forked child inherited: onnxruntime's threads did not survive the fork, so not even destructors may run."""
