"""A value of the graph comes in; for each of its units the rectangle of the image that can change it goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray

from onnxviz.errors import InputError, ValueNotFoundError, near_misses
from onnxviz.graph.blocked import blocked_map, blocked_values
from onnxviz.graph.regions.axis_maps import EVERYWHERE
from onnxviz.graph.regions.box_maps import Boxes
from onnxviz.graph.regions.propagation import Propagation

__all__ = ["ReceptiveField", "receptive_field"]

_QUESTIONS_AT_ONCE = 8192


class ReceptiveField:
    """Where the units of one value look, made by :func:`receptive_field`.

    A unit is named by row, column and channel of the value brought to channel-first form: (channels, height, width);
    token sequences are one row of tokens, values without spatial axes have the single position (0, 0).

    Attributes
    ----------
    value : str
    image_size : (height, width)
        Of the image input, in pixels.
    map_size : (height, width)
        Of the value; (1, 1) without spatial axes.
    channels : int
    """

    def __init__(self, propagation: Propagation, value: str, *, image_axes: tuple[int, int], channel_axis: int) -> None:
        self._propagation = propagation
        self._image_axes = image_axes
        self.value = value
        shape = propagation.shapes[value]
        self._shape = shape
        self._channel_axis = min(channel_axis, len(shape) - 1)
        # As in Model.channel_first: of more than two spatial axes all but the last are merged into rows.
        self._spatial = [axis for axis in range(1, len(shape)) if axis != self._channel_axis] if len(shape) > 2 else []
        source = propagation.shapes[propagation.source]
        self.image_size = (source[image_axes[0]], source[image_axes[1]])
        sizes = [shape[axis] for axis in self._spatial]
        self.map_size = (int(np.prod(sizes[:-1])), sizes[-1]) if sizes else (1, 1)
        self.channels = shape[self._channel_axis] if shape else 1
        rows, columns = self.map_size
        middle, _ = self._ask(np.array([rows // 2]), np.array([columns // 2]), None, nominal=True)
        ends, _ = self._ask(np.array([0, rows - 1]), np.array([0, columns - 1]), None, nominal=True)
        self.size = (int(middle[0, 2] - middle[0, 0]), int(middle[0, 3] - middle[0, 1]))
        """(height, width) of the field of the unit in the middle, in pixels, not clipped to the image."""
        self.stride = (
            float(ends[1, 0] - ends[0, 0]) / max(rows - 1, 1),
            float(ends[1, 1] - ends[0, 1]) / max(columns - 1, 1),
        )
        """Mean distance between the fields of neighbouring units, (down, across), in pixels; 0 for a single unit."""
        _, seen = self._ask(np.array([rows // 2]), np.array([columns // 2]), None, nominal=False)
        self.exact = not seen[0] and not seen[1]
        """Whether every operator on the way has a rule, so that the field is no larger than need be."""
        self.why = self._explained(seen)
        """One sentence on what the field is and what made it so."""

    def box(self, row: int, column: int, channel: int | None = None) -> tuple[int, int, int, int]:
        """Field of one unit as top, left, bottom, right; see :meth:`boxes`."""
        channels = None if channel is None else [channel]
        top, left, bottom, right = (int(edge) for edge in self.boxes([row], [column], channels)[0])
        return top, left, bottom, right

    def boxes(self, rows: ArrayLike, columns: ArrayLike, channels: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fields of many units, each in the place that its unit has in the map.

        Parameters
        ----------
        rows, columns : (n,) int
        channels : (n,) int, optional
            Where given, the field of that channel's unit; else the hull over all channels. They differ where a Concat
            joins branches of different depth.

        Returns
        -------
        (n, 4) int64
            Top, left, bottom, right in pixels of the network's input, bottom and right exclusive. They are not clipped
            and may reach past the image; they hold everything that can change the unit.
        """
        placed, _ = self._unique(rows, columns, channels, nominal=True)
        tight, _ = self._unique(rows, columns, channels, nominal=False)
        reads = tight[:, 2] > tight[:, 0]
        result = placed.copy()
        result[reads, :2] = np.minimum(placed[reads, :2], tight[reads, :2])
        result[reads, 2:] = np.maximum(placed[reads, 2:], tight[reads, 2:])
        return result

    def tight_boxes(self, rows: ArrayLike, columns: ArrayLike, channels: ArrayLike | None = None) -> NDArray[np.int64]:
        """Like :meth:`boxes`, but the hull of the image's pixels that can change the unit; zeros where none."""
        return self._unique(rows, columns, channels, nominal=False)[0]

    def _unique(
        self, rows: ArrayLike, columns: ArrayLike, channels: ArrayLike | None, *, nominal: bool
    ) -> tuple[NDArray[np.int64], Any]:
        units = [np.asarray(rows, np.int64), np.asarray(columns, np.int64)]
        limits = [*self.map_size]
        if channels is not None:
            units.append(np.asarray(channels, np.int64))
            limits.append(self.channels)
        for place, limit, axis in zip(units, limits, ("row", "column", "channel"), strict=False):
            if place.size and (place.min() < 0 or place.max() >= limit):
                raise InputError(
                    f"the value has no such {axis}",
                    where=f"value {self.value!r}",
                    got=f"{place.min()} to {place.max()}",
                    allowed=f"0 to {limit - 1}",
                )
        distinct, inverse = np.unique(np.stack(np.broadcast_arrays(*units)), axis=1, return_inverse=True)
        parts = []
        seen: Any = ({}, False)
        for start in range(0, distinct.shape[1], _QUESTIONS_AT_ONCE):
            chunk = distinct[:, start : start + _QUESTIONS_AT_ONCE]
            part, seen = self._ask(chunk[0], chunk[1], chunk[2] if channels is not None else None, nominal=nominal)
            parts.append(part)
        found = np.concatenate(parts) if parts else np.zeros((0, 4), np.int64)
        return found[np.ravel(inverse)], seen

    def _ask(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], channels: NDArray[np.int64] | None, *, nominal: bool
    ) -> tuple[NDArray[np.int64], tuple[dict[str, str], bool]]:
        rank = len(self._shape)
        first = np.zeros((len(rows), rank), np.int64)
        end = np.ones((len(rows), rank), np.int64)
        if rank:
            if channels is None:
                end[:, self._channel_axis] = self.channels
            else:
                first[:, self._channel_axis] = channels
                end[:, self._channel_axis] = channels + 1
        if self._spatial:
            *outer, last = self._spatial
            first[:, last] = columns
            for axis, place in zip(outer, np.unravel_index(rows, [self._shape[a] for a in outer] or [1]), strict=False):
                first[:, axis] = place
            for axis in self._spatial:
                end[:, axis] = first[:, axis] + 1
        seen = self._propagation.backward(self.value, Boxes(first, end), nominal=nominal)
        row, column = self._image_axes
        boxes = np.stack(
            [seen.boxes.first[:, row], seen.boxes.first[:, column], seen.boxes.end[:, row], seen.boxes.end[:, column]],
            axis=1,
        )
        # Halved by every upsampling on the way, an interval without a place is still larger than any image.
        placeless = np.abs(boxes) > EVERYWHERE >> 12
        boxes = np.where(placeless, [0, 0, *self.image_size], boxes)
        return np.where(seen.boxes.empty[:, None], 0, boxes), (seen.unknown, seen.merged)

    def _explained(self, seen: tuple[dict[str, str], bool]) -> str:
        unknown, merged = seen
        if unknown:
            node, operator = next(iter(unknown.items()))
            others = f" and {len(unknown) - 1} more nodes" if len(unknown) > 1 else ""
            return f"{operator} ({node}){others} has no rule here and counts as looking at the whole of its input"
        if merged:
            return "more branches meet than are kept apart, so the field is their common hull"
        height, width = self.size
        if height >= self.image_size[0] and width >= self.image_size[1]:
            return f"the unit in the middle looks at the whole image ({height} × {width} pixels with what lies past it)"
        return f"followed through the graph: {height} × {width} pixels, {self.stride[0]:g} × {self.stride[1]:g} apart"


def receptive_field(
    proto: onnx.ModelProto,
    value: str,
    *,
    input_name: str,
    input_shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    layout: str,
    channel_axis: int = 1,
) -> ReceptiveField:
    """Find the receptive field of every unit of a value, for any topology (Araujo, Norris and Sim, Distill 2019).

    Intervals are followed backwards per axis and per unit, so that branches of different stride, dilations, one-sided
    pads and transposed layouts come out exact. An operator that has no rule counts as reading the whole of its input.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; external data need not be loaded.
    value : str
        The value whose units are asked about.
    input_name, input_shape, layout
        The image input, its concrete shape with a batch of one, and ``"NCHW"`` or ``"NHWC"``.
    shapes : mapping of value name to shape
        Concrete shapes at a batch of one. Values that are missing are taken as reached whole.
    channel_axis : int
        Axis of the value that holds the channels.

    Raises
    ------
    ValueNotFoundError
        The value has no known shape, or does not depend on the image.
    InputError
        It lies in onnxruntime's blocked layout, so its rows and columns are not where its shape says.
    """
    known = {**shapes, input_name: tuple(input_shape)}
    if value not in known:
        raise ValueNotFoundError(
            "no shape is known for this value", where=f"value {value!r}", allowed=near_misses(value, known)
        )
    if value in blocked_values(proto):
        node = next(node for node in proto.graph.node if value in node.output)
        raise blocked_map(value, node.op_type, where="")
    propagation = Propagation(proto, source=input_name, shapes=known)
    if value not in propagation.dependent:
        raise ValueNotFoundError(
            "this value does not depend on the image",
            where=f"value {value!r}",
            allowed=near_misses(value, propagation.dependent),
        )
    return ReceptiveField(
        propagation, value, image_axes=(2, 3) if layout == "NCHW" else (1, 2), channel_axis=channel_axis
    )
