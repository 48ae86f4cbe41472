"""How one input and one output of an operator reach each other, over all axes: boxes in, boxes out.

A box is a half-open interval for every axis: two int64 arrays (questions, axes), ``first`` and ``end``. A question
whose box is empty has ``NOWHERE`` and ``-NOWHERE`` on every axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnxviz.graph.regions.axis_maps import EVERYWHERE, NOWHERE, AxisMap, Indices

__all__ = ["BoxMap", "Boxes", "Chain", "Everything", "PerAxis", "Regroup", "full_boxes"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Boxes:
    """One box per question in the index space of one value."""

    first: Indices
    end: Indices

    def contains(self, other: Boxes) -> bool:
        """Whether every question's box lies inside this one's."""
        return bool((self.first <= other.first).all() and (self.end >= other.end).all())

    def hull(self, other: Boxes) -> Boxes:
        """Give the smallest boxes that hold both."""
        return Boxes(np.minimum(self.first, other.first), np.maximum(self.end, other.end))

    @property
    def empty(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(questions,) True where the box holds nothing."""
        return np.asarray((self.first >= self.end).any(axis=1))


def full_boxes(questions: int, shape: Shape) -> Boxes:
    """For every question the whole value."""
    return Boxes(np.zeros((questions, len(shape)), np.int64), np.tile(np.asarray(shape, np.int64), (questions, 1)))


def _marked(first: Indices, end: Indices, empty: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Boxes:
    empty = empty | (first >= end).any(axis=1)
    return Boxes(np.where(empty[:, None], NOWHERE, first), np.where(empty[:, None], -NOWHERE, end))


class BoxMap(ABC):
    """The reach of one output of an operator into one of its inputs, and back.

    ``nominal`` is ``backward`` as if spatial axes went on past their ends: what keeps a border unit in its place.
    """

    def backward(self, boxes: Boxes) -> Boxes:
        """Boxes of the input that the output boxes read."""
        return self._guarded(boxes, "backward")

    def nominal(self, boxes: Boxes) -> Boxes:
        """Boxes of the input, unclipped, that unclipped output boxes read."""
        return self._guarded(boxes, "nominal")

    def forward(self, boxes: Boxes) -> Boxes:
        """Boxes of the output that read at least one index of the input boxes."""
        return self._guarded(boxes, "forward")

    def _guarded(self, boxes: Boxes, direction: str) -> Boxes:
        empty = boxes.empty
        if empty.any():
            # Rules may then take it for granted that every interval holds at least index 0.
            boxes = Boxes(np.where(empty[:, None], 0, boxes.first), np.where(empty[:, None], 1, boxes.end))
        first, end = self._map(boxes.first, boxes.end, direction)
        return _marked(first, end, empty)

    @abstractmethod
    def _map(self, first: Indices, end: Indices, direction: str) -> tuple[Indices, Indices]: ...


@dataclass(frozen=True)
class Everything(BoxMap):
    """Every output index reads every input index."""

    input_shape: Shape
    output_shape: Shape

    def _map(self, first: Indices, end: Indices, direction: str) -> tuple[Indices, Indices]:  # noqa: ARG002
        whole = full_boxes(len(first), self.output_shape if direction == "forward" else self.input_shape)
        if direction == "nominal":
            return np.full_like(whole.first, -EVERYWHERE), np.full_like(whole.end, EVERYWHERE)
        return whole.first, whole.end


@dataclass(frozen=True)
class PerAxis(BoxMap):
    """Every input axis follows one output axis, or none (then its map has a single output index).

    ``links[b]`` is (output axis or None, map) for input axis b.
    """

    links: tuple[tuple[int | None, AxisMap], ...]
    output_shape: Shape

    def _map(self, first: Indices, end: Indices, direction: str) -> tuple[Indices, Indices]:
        questions = len(first)
        none_first, none_end = np.zeros(questions, np.int64), np.ones(questions, np.int64)
        if direction == "forward":
            result = full_boxes(questions, self.output_shape)
            result_first, result_end = result.first, result.end
            for axis, (output_axis, axis_map) in enumerate(self.links):
                lower, upper = axis_map.forward(first[:, axis], end[:, axis])
                if output_axis is None:
                    missed = upper <= lower
                    result_first[missed], result_end[missed] = NOWHERE, -NOWHERE
                else:
                    # An output index changes only if every axis of the input is hit.
                    result_first[:, output_axis] = np.maximum(result_first[:, output_axis], lower)
                    result_end[:, output_axis] = np.minimum(result_end[:, output_axis], upper)
            return result_first, result_end
        result_first = np.empty((questions, len(self.links)), np.int64)
        result_end = np.empty_like(result_first)
        for axis, (output_axis, axis_map) in enumerate(self.links):
            map_back = axis_map.nominal if direction == "nominal" else axis_map.backward
            if output_axis is None:
                result_first[:, axis], result_end[:, axis] = map_back(none_first, none_end)
            else:
                result_first[:, axis], result_end[:, axis] = map_back(first[:, output_axis], end[:, output_axis])
        return result_first, result_end


class Regroup(BoxMap):
    """A Reshape: the same elements in the same order, so boxes follow their first and last element.

    Axes are matched in the smallest groups of equal size. An axis that stays alone keeps its interval; where axes
    are merged or split, the hull of the elements from the box's first to its last is taken.
    """

    def __init__(self, input_shape: Shape, output_shape: Shape) -> None:
        if prod(input_shape) != prod(output_shape) or prod(input_shape) == 0:
            raise ValueError(f"shapes of different or no elements: {input_shape}, {output_shape}")
        self.input_shape = input_shape
        self.output_shape = output_shape
        self.groups = tuple(_groups(input_shape, output_shape))

    def _map(self, first: Indices, end: Indices, direction: str) -> tuple[Indices, Indices]:
        forward = direction == "forward"
        source, target = (self.input_shape, self.output_shape) if forward else (self.output_shape, self.input_shape)
        result_first = np.zeros((len(first), len(target)), np.int64)
        result_end = np.ones_like(result_first)
        for input_axes, output_axes in self.groups:
            from_axes, to_axes = (input_axes, output_axes) if forward else (output_axes, input_axes)
            if len(from_axes) == len(to_axes) == 1:
                result_first[:, to_axes[0]] = first[:, from_axes[0]]
                result_end[:, to_axes[0]] = end[:, from_axes[0]]
                continue
            lowest, highest = _ravel(first, end, from_axes, source)
            for axis, low, high in _unravel(lowest, highest, to_axes, target):
                result_first[:, axis], result_end[:, axis] = low, high
        return result_first, result_end


def _groups(input_shape: Shape, output_shape: Shape) -> list[tuple[list[int], list[int]]]:
    # Axes of length 1 carry nothing and would only confuse the matching.
    inputs = [axis for axis, length in enumerate(input_shape) if length > 1]
    outputs = [axis for axis, length in enumerate(output_shape) if length > 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(inputs):
        of_input, of_output = [inputs[i]], [outputs[o]]
        i, o = i + 1, o + 1
        left, right = input_shape[of_input[0]], output_shape[of_output[0]]
        while left != right:
            if left < right:
                of_input.append(inputs[i])
                left *= input_shape[inputs[i]]
                i += 1
            else:
                of_output.append(outputs[o])
                right *= output_shape[outputs[o]]
                o += 1
        groups.append((of_input, of_output))
    return groups


def _ravel(first: Indices, end: Indices, axes: Sequence[int], shape: Shape) -> tuple[Indices, Indices]:
    lowest, highest = first[:, axes[0]], end[:, axes[0]] - 1
    for axis in axes[1:]:
        # The leading axis may run past its ends (a nominal box); inner ones would then land in a neighbouring row.
        lowest = lowest * shape[axis] + np.clip(first[:, axis], 0, shape[axis] - 1)
        highest = highest * shape[axis] + np.clip(end[:, axis] - 1, 0, shape[axis] - 1)
    return lowest, highest


def _unravel(
    lowest: Indices, highest: Indices, axes: Sequence[int], shape: Shape
) -> Iterator[tuple[int, Indices, Indices]]:
    same_so_far = np.ones(len(lowest), bool)
    for number, axis in enumerate(axes):
        inner = prod(shape[other] for other in axes[number + 1 :])
        low, lowest = np.divmod(lowest, inner)
        high, highest = np.divmod(highest, inner)
        yield axis, np.where(same_so_far, low, 0), np.where(same_so_far, high + 1, shape[axis])
        same_so_far = same_so_far & (low == high)


@dataclass(frozen=True)
class Chain(BoxMap):
    """Several maps one behind the other, the one next to the input first."""

    maps: tuple[BoxMap, ...]

    def _map(self, first: Indices, end: Indices, direction: str) -> tuple[Indices, Indices]:
        boxes = Boxes(first, end)
        for box_map in self.maps if direction == "forward" else reversed(self.maps):
            boxes = getattr(box_map, direction)(boxes)
        return boxes.first, boxes.end
