"""A model and images come in; one feature vector per image, in the space before the classifier, goes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.device_features import collect_on_device, keep_on_device
from onnxviz.results import Features
from onnxviz.runtime.model import Model

__all__ = ["chosen_value", "features", "vectors"]

_LARGEST_FLAT = 8192
"""Units above which a map is averaged over space."""


def features(model: Model, images: ImageSet, *, value: str | None = None, pool: bool | None = None) -> Features:
    """Collect the feature vectors of images.

    Parameters
    ----------
    model : Model
    images : ImageSet
    value : str or None
        Name or glob of one value; None takes ``model.feature_value``.
    pool : bool or None
        Average over space; None does so where a map has more than 8,192 units, which is where neighbouring positions
        say the same again (a 4096-d flattened last layer stays as it is, 512 channels of 13 × 13 become 512 numbers).

    Raises
    ------
    ValueNotFoundError
        The graph has no such value, or no feature value was found and none was named.
    InputError
        No image can be read.
    """
    name, pooled = chosen_value(model, value, pool)
    there = collect_on_device(model, images, name, pooled)
    if there is not None:
        rows, kept = there
        array = model.space.to_host(rows)
    else:
        rows, (array, kept) = None, _collect(model, images, name, pooled)
    if not len(kept):
        raise InputError("none of the images can be read", where="images")
    found = Features(
        value=name,
        array=array,
        indices=kept,
        pooled=pooled,
        names=tuple(images.names[index] for index in kept),
        classes=images.folder_classes[kept] if images.folder_classes is not None else None,
        class_names=images.folder_names,
        provenance=model.provenance("features", {"value": name, "pool": pooled}),
    )
    keep_on_device(found, model, rows)
    return found


def _collect(model: Model, images: ImageSet, name: str, pooled: bool) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Vectors on the host, and the numbers of the images that could be read."""
    rows: list[NDArray[Any]] = []
    indices: list[NDArray[np.int64]] = []
    for batch, arrays in model.batches(images, (name,)):
        rows.append(vectors(model, name, arrays[name], pooled=pooled))
        indices.append(batch.indices)
    if not rows:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    return np.concatenate(rows), np.concatenate(indices)


def chosen_value(model: Model, value: str | None, pool: bool | None) -> tuple[str, bool]:
    """Name of the value whose activations are the features, and whether they are averaged over space.

    Raises
    ------
    ValueNotFoundError
        The graph has no such value, or no feature value was found and none was named.
    InputError
        The value does not hold one row for each image.
    """
    if value is None and model.feature_value is None:
        raise ValueNotFoundError(
            "no feature value was found in the graph", where=model.name, got=model.blocked_reason,
            next_step="Name one: value='...'",
        )  # fmt: skip
    name = model.value_of_images(value if value is not None else str(model.feature_value))
    units = int(np.prod(model.shapes()[name][1:]))
    return name, len(model.shapes()[name]) > 2 and (units > _LARGEST_FLAT if pool is None else bool(pool))


def vectors(model: Model, name: str, array: NDArray[Any], *, pooled: bool) -> NDArray[Any]:
    """(n, features) one vector for each image of a batch of activations: float64 where they are, else float32."""
    maps = model.channel_first(name, array)
    wide = maps.astype(np.float64 if maps.dtype == np.float64 else np.float32)
    return wide.mean(axis=(2, 3)) if pooled and wide.ndim == 4 else wide.reshape(len(wide), -1)
