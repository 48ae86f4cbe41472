"""A model that runs comes in; what a few runs tell of its values, their shapes, types and images' axes, goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.tensors import is_tensor
from onnxviz.graph.values import GraphInput, Value, list_values
from onnxviz.runtime.image_axes import image_axis
from onnxviz.runtime.runner import Runner

__all__ = ["ProbedValues"]

Arrays = dict[str, NDArray[Any]]


class ProbedValues:
    """Shapes and types of all values that are tensors, found by runs on random images when they are first asked for.

    Parameters
    ----------
    values : sequence of Value
        What the graph tells of them.
    inputs : sequence of GraphInput
        The inputs that are fed.
    runner : Runner
    probe : callable
        Number of rows to feeds.
    """

    def __init__(
        self, values: Sequence[Value], inputs: Sequence[GraphInput], runner: Runner, probe: Callable[[int], Arrays]
    ) -> None:
        self._values, self._inputs, self._runner, self._probe = values, inputs, runner, probe

    @property
    def rows(self) -> int:
        """Images in a run of the file's own graph."""
        return self._runner.stated_rows

    @cached_property
    def of_a_run(self) -> Mapping[str, NDArray[Any]]:
        """For a run of :attr:`rows` images: arrays of each value's shape and type, whose contents mean nothing."""
        feeds = self._probe(self.rows)
        names = [value.name for value in self._values if is_tensor(value) and value.name not in feeds]
        return _empty(feeds | self._runner.run_unoptimized(names, feeds))

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Concrete shape of every value for one image."""
        return {
            name: (1, *array.shape[1:]) if array.shape[:1] == (self.rows,) else array.shape
            for name, array in self.of_a_run.items()
        }

    @cached_property
    def dtypes(self) -> Mapping[str, str]:
        """Numpy dtype of every value; ``"object"`` for text."""
        return {name: str(array.dtype) for name, array in self.of_a_run.items()}

    def image_axis(self, name: str) -> int | None:
        """The axis of a value along which the images of a run lie; see :meth:`onnxviz.Model.image_axis`."""
        if len(self._inputs) != 1:
            return 0
        known = self._runner.output_axes
        return known[name] if name in known else self._image_axes.get(name)

    @cached_property
    def _image_axes(self) -> Mapping[str, int | None]:
        rows, few = self.rows, self.of_a_run
        if self._runner.fixed_batch is not None:
            constants = {value.name for value in self._values if value.kind == "constant"}
            return {
                name: 0 if array.shape[:1] == (rows,) and name not in constants else None for name, array in few.items()
            }
        told = self._told_by_symbols()
        open_names = [name for name in few if name not in told and name != self._inputs[0].name]
        many: Arrays = {}
        if open_names:
            # Only these: with all values a run on twice the images may not fit into memory.
            many = _empty(self._runner.run_unoptimized(open_names, self._probe(2 * rows), any_batch=True))
        return {
            name: image_axis(array.shape, many[name].shape, rows) if name in many else 0 for name, array in few.items()
        }

    def _told_by_symbols(self) -> frozenset[str]:
        """The values inside the graph whose first side is the input's batch, as shape inference follows its name.

        Not the outputs: their sides are what the exporter was told.
        """
        graph = self._runner.any_batch_graph
        values = list_values(graph)
        fed = next((value.shape for value in values if value.name == self._inputs[0].name), None)
        if not fed or not isinstance(fed[0], str) or fed[0] in fed[1:]:
            return frozenset()
        outputs = {value.name for value in graph.graph.output}
        return frozenset(
            value.name for value in values if value.shape and value.shape[0] == fed[0] and value.name not in outputs
        )


def _empty(arrays: Mapping[str, Any]) -> Arrays:
    """Shapes and types alone: a broadcast scalar has both and weighs nothing.

    A sequence, where the graph did not tell that it is one, has neither.
    """
    return {
        name: np.broadcast_to(np.zeros((), array.dtype), array.shape)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
    }
