"""An opened graph comes in; its values, by name, with what the graph and a few runs tell of each, go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, ValueNotFoundError, near_misses
from onnxviz.graph.blocked import BLOCKED_KIND, blocked_map, explain_blocked
from onnxviz.graph.contract import ImageInput, explain_no_image_input
from onnxviz.graph.landmarks import Landmark, find_coarsest_map, find_feature_value, find_logits_value
from onnxviz.graph.layout import channel_axes
from onnxviz.graph.loading import LoadedModel
from onnxviz.graph.macs import count_macs
from onnxviz.graph.tensors import numbers_among, outputs_of_numbers
from onnxviz.graph.values import GraphInput, Value, graph_inputs, graph_outputs, list_values, match_values
from onnxviz.runtime.output import OutputContract
from onnxviz.runtime.probed_values import ProbedValues
from onnxviz.runtime.runner import Runner

__all__ = ["ModelValues"]

Arrays = dict[str, NDArray[Any]]


class ModelValues:
    """What can be asked of the values of a model; :class:`onnxviz.Model` is one that also computes them."""

    loaded: LoadedModel
    name: str
    image_input: ImageInput | None
    output: OutputContract

    @property
    def _runner(self) -> Runner:
        """What computes values, of the first device."""
        raise NotImplementedError

    def probe(self, batch: int = 1) -> Arrays:
        """Seeded random feeds for every input."""
        raise NotImplementedError

    # -- what the graph holds ------------------------------------------------------------------------------------

    @cached_property
    def _values(self) -> tuple[Value, ...]:
        return list_values(self.loaded.proto)

    @cached_property
    def inputs(self) -> tuple[GraphInput, ...]:
        """The graph's real inputs; initializers that are listed as inputs are left out."""
        return graph_inputs(self.loaded.proto)

    @cached_property
    def outputs(self) -> tuple[Value, ...]:
        """The graph's outputs."""
        return graph_outputs(self.loaded.proto)

    @cached_property
    def number_outputs(self) -> tuple[Value, ...]:
        """The outputs that hold numbers, not text, sequences or maps; where none does, the last value before them."""
        return outputs_of_numbers(self.loaded.proto, self.outputs, self._values)

    def values(self, pattern: str = "*") -> tuple[Value, ...]:
        """The values whose name is, or matches the glob, ``pattern``, in the order in which they are computed.

        Raises
        ------
        ValueNotFoundError
            Nothing matches; near misses are listed.
        """
        return match_values(self._values, pattern)

    def value(self, name: str) -> Value:
        """The one value that is named, or matched, by ``name``.

        Raises
        ------
        ValueNotFoundError
            No value matches, or several do.
        """
        matches = self.values(name)
        if len(matches) > 1:
            raise ValueNotFoundError(
                f"{len(matches)} values match where one is needed",
                where=self.name,
                got=repr(name),
                allowed=near_misses(name, (value.name for value in matches)),
                next_step="Name one of them",
            )
        return matches[0]

    @cached_property
    def feature_landmark(self) -> Landmark | None:
        """The feature value with the reason why it was chosen."""
        found = find_feature_value(self.loaded.proto, self.output.output)
        if found is None or self.image_axis(found.value) == 0:
            return found
        # Recurrent layers put the steps first.
        because = f"{found.why}; but {found.value!r} does not hold one row for each image"
        other = find_coarsest_map(self.loaded.proto, self.output.output, because=because)
        return other if other is not None and self.image_axis(other.value) == 0 else None

    @cached_property
    def logits_landmark(self) -> Landmark | None:
        """The logits value with the reason why it was chosen."""
        return find_logits_value(self.loaded.proto, self.output.output)

    @cached_property
    def no_image_reason(self) -> str:
        """Why photographs cannot be fed; empty where they can."""
        return explain_no_image_input(self.loaded.proto) if self.image_input is None else ""

    @property
    def feature_value(self) -> str | None:
        """Name of the last value before the classifier: the space in which images are compared."""
        return self.feature_landmark.value if self.feature_landmark else None

    @property
    def logits_value(self) -> str | None:
        """Name of the value that holds the class scores before the Softmax."""
        return self.output.logits

    @cached_property
    def weight_names(self) -> frozenset[str]:
        """Names of the weights that the file stores."""
        return frozenset(tensor.name for tensor in self.loaded.proto.graph.initializer)

    # -- what a run tells ----------------------------------------------------------------------------------------

    @cached_property
    def _probed(self) -> ProbedValues:
        return ProbedValues(self._values, self.inputs, self._runner, self.probe)

    def image_axis(self, name: str) -> int | None:
        """The axis of a value along which the images of a run lie, found by runs; None where there is none.

        0 for nearly all values, and for all of a model with several inputs, of which nothing is known. Recurrent
        layers and attention may keep the images on axis 1; a window that is cut from an image is one of several places
        for it, and the boxes of a detector are as many as it finds.
        """
        return self._probed.image_axis(name)

    def _axes_beside_first(self, names: Sequence[str]) -> dict[str, int]:
        """Those of the values whose images lie along another axis than the first."""
        if self._only_input_name is None or self._runner.fixed_batch is not None:
            return {}
        return {name: axis for name in names if (axis := self.image_axis(name))}

    def values_of_images(self, patterns: Sequence[str]) -> tuple[str, ...]:
        """Names of the values that hold one row for each image: what is named must, of a glob those that do.

        Raises
        ------
        ValueNotFoundError
            A pattern matches nothing.
        InputError
            A value that is named, or all that a glob matches, do not hold numbers, one row for each image, or lie in
            onnxruntime's blocked layout.
        """
        found: dict[str, None] = {}
        for pattern in patterns:
            matches = [value.name for value in numbers_among(self.values(pattern), self.name)]
            fitting = [name for name in matches if self.image_axis(name) == 0 and name not in self.blocked_values]
            found |= dict.fromkeys(fitting or [self.value_of_images(matches[0])])
        return tuple(found)

    def value_of_numbers(self, name: str) -> str:
        """Name of the one value that is named, or matched, which must be a tensor of numbers.

        Raises
        ------
        ValueNotFoundError
            No value matches, or several do.
        InputError
            It holds text, or is a sequence or a map.
        """
        return numbers_among([self.value(name)], self.name)[0].name

    def value_by_image(self, name: str) -> tuple[str, int]:
        """Name of the one value that is named, or matched, and the axis along which each image has a place in it.

        Raises
        ------
        ValueNotFoundError
            No value matches, or several do.
        InputError
            It holds no numbers, no axis counts the images, or it lies in onnxruntime's blocked layout.
        """
        found = self.value_of_numbers(name)
        axis = self.image_axis(found)
        if axis:
            self._refuse_blocked(found)
            return found, axis
        return self.value_of_images(found), 0

    def value_of_images(self, name: str) -> str:
        """Name of the one value that is named, or matched, which must hold one row for each image.

        Raises
        ------
        ValueNotFoundError
            No value matches, or several do.
        InputError
            It holds no numbers, its first axis does not count the images, or it lies in onnxruntime's blocked layout.
        """
        found = self.value_of_numbers(name)
        if (axis := self.image_axis(found)) != 0:
            lie = "no axis counts the images" if axis is None else f"the images lie along axis {axis}"
            rows = self._probed.rows
            raise InputError(
                "the value does not hold one row for each image", where=f"value {found!r} of {self.name}",
                got=f"shape {self._probed.of_a_run[found].shape} for {rows} image{'s' if rows > 1 else ''}: {lie}",
                allowed="a value whose first axis counts the images",
                next_step="Name another, as `onnxviz inspect` lists them; Model.run gives this one as it is",
            )  # fmt: skip
        self._refuse_blocked(found)
        return found

    @cached_property
    def blocked_values(self) -> frozenset[str]:
        """Names of the values in onnxruntime's blocked layout, whose channels, rows and columns are not read."""
        return frozenset(value.name for value in self._values if value.kind == BLOCKED_KIND)

    @property
    def blocked_reason(self) -> str:
        """Why these, and the weights that make them, are not shown; empty where there are none."""
        return explain_blocked(len(self.blocked_values), len(self._values))

    def _refuse_blocked(self, name: str) -> None:
        if name in self.blocked_values:
            raise blocked_map(name, self.value(name).op_type, where=self.name)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Concrete shape of every value that is a tensor for one image, found by a run."""
        return self._probed.shapes

    def dtypes(self) -> Mapping[str, str]:
        """Numpy dtype of every value that is a tensor, found by a run; ``"object"`` for text."""
        return self._probed.dtypes

    def float_values(self) -> tuple[str, ...]:
        """Names of the values that hold floating-point numbers, in the order in which they are computed."""
        return tuple(value.name for value in self._values if "float" in self.dtypes().get(value.name, ""))

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions and matrix products."""
        macs: int = count_macs(self.loaded.proto, self.shapes())
        return macs

    @cached_property
    def _channel_axes(self) -> Mapping[str, int]:
        return channel_axes(
            self.loaded.proto,
            ranks={name: len(shape) for name, shape in self.shapes().items()},
            image_input=self.image_input.name if self.image_input else None,
            image_layout=self.image_input.layout if self.image_input else "NCHW",
        )

    def channel_axis(self, name: str) -> int:
        """The axis of a value that holds its channels; 1 where it has fewer than three axes."""
        return self._channel_axes.get(name, 1)

    def channel_first(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Bring a batch of one value's activations to (n, channels, height, width), or (n, features).

        Token sequences (three axes) become (n, channels, 1, tokens). A value without spatial axes, or whose spatial
        axes hold one unit only, becomes (n, features).

        Raises
        ------
        InputError
            The value lies in onnxruntime's blocked layout.
        """
        self._refuse_blocked(name)
        if array.ndim <= 2:
            return array.reshape(len(array), -1) if array.ndim == 2 else np.atleast_1d(array).reshape(-1, 1)
        moved = np.moveaxis(array, self.channel_axis(name), 1)
        if moved.ndim == 3:
            moved = moved[:, :, None, :]
        elif moved.ndim > 4:
            moved = moved.reshape(*moved.shape[:2], -1, moved.shape[-1])
        return moved.reshape(moved.shape[:2]) if moved.shape[2] * moved.shape[3] == 1 else moved

    @property
    def _only_input_name(self) -> str | None:
        return self.inputs[0].name if len(self.inputs) == 1 else None
