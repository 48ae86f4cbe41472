"""A model and images come in; one feature vector per image, in the space before the classifier, goes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.inputs.images import ImageSet
from onnxviz.results import Provenance
from onnxviz.runtime.model import Model

__all__ = ["Features", "features"]


@dataclass(frozen=True, eq=False)
class Features:
    """One vector per image."""

    value: str
    """The value whose activations they are."""
    array: NDArray[np.floating[Any]]
    """(images, features) float32, or float64 where the model computes in it."""
    indices: NDArray[np.int64]
    """(images,) index of each row's image in the image set; images that could not be read have no row."""
    pooled: bool
    """True where each channel was averaged over space, False where the units were taken as they are."""
    provenance: Provenance


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
    if value is None and model.feature_value is None:
        raise ValueNotFoundError(
            "no feature value was found in the graph", where=model.name, next_step="Name one: value='...'"
        )
    name = model.value(value if value is not None else str(model.feature_value)).name
    units = int(np.prod(model.shapes()[name][1:]))
    pooled = len(model.shapes()[name]) > 2 and (units > _LARGEST_FLAT if pool is None else pool)
    rows: list[NDArray[Any]] = []
    indices: list[NDArray[np.int64]] = []
    for batch, arrays in model.batches(images, (name,)):
        maps = model.channel_first(name, arrays[name])
        wide = maps.astype(np.float64 if maps.dtype == np.float64 else np.float32)
        rows.append(wide.mean(axis=(2, 3)) if pooled and wide.ndim == 4 else wide.reshape(len(wide), -1))
        indices.append(batch.indices)
    if not rows:
        raise InputError("none of the images can be read", where="images")
    return Features(
        name,
        np.concatenate(rows),
        np.concatenate(indices),
        bool(pooled),
        model.provenance("features", {"value": name, "pool": bool(pooled)}),
    )


_LARGEST_FLAT = 8192
