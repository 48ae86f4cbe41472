"""Features stay on the device that computed them, beside their copy on the host, for whoever searches among them."""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from onnxviz.inputs.images import ImageSet
from onnxviz.results import Features
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory
from onnxviz.runtime.spaces import Array

__all__ = ["collect_on_device", "keep_on_device", "searched_rows"]

_kept: WeakKeyDictionary[Features, tuple[str, Array]] = WeakKeyDictionary()


def collect_on_device(
    model: Model, images: ImageSet, name: str, pooled: bool
) -> tuple[Array, NDArray[np.int64]] | None:
    """Vectors of the images, gathered where they are computed.

    Returns
    -------
    rows, indices : (n, d) float32 or float64 on the device, (n,) int64
        None where they have to be made on the host: of several devices, of maps that are averaged over space or whose
        channels come last, of other types of numbers, or where the device has no room for all of them.
    """
    shape = model.shapes()[name]
    in_order = len(shape) == 2 or model.channel_axis(name) == 1
    if not model.stays_on_device or pooled or not in_order or model.dtypes()[name] not in ("float32", "float64"):
        return None
    columns = math.prod(shape[1:])
    space = model.space
    try:
        rows = space.empty((len(images), columns), np.dtype(model.dtypes()[name]))
    except OutOfMemory:
        return None
    indices: list[NDArray[np.int64]] = []
    filled = 0
    for batch, arrays in model.batches(images, (name,), to_host=False):
        count, found = len(batch.indices), arrays[name]
        if math.prod(found.shape) != count * columns:
            return None  # not one vector for each image
        space.write(space.rows(rows, filled, filled + count), found)
        indices.append(batch.indices)
        filled += count
    return space.rows(rows, 0, filled), np.concatenate(indices) if indices else np.zeros(0, np.int64)


def keep_on_device(features: Features, model: Model, rows: Array | None) -> None:
    """Remember on which device features were computed, and the rows that are still there, as long as they live."""
    if not model.space.on_host:
        _kept[features] = model.parts[0].device, rows


def searched_rows(features: Features) -> tuple[Any, str | None]:
    """The rows to search among, on the device or on the host, and the device that searches; None for the CPU."""
    device, rows = _kept.get(features, (None, None))
    return features.array if rows is None else rows, device
