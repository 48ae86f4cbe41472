"""A model, images and names of values come in; the values' maps on a few images, or statistics over many, go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.results import Activations, ActivationStatistics, Provenance
from onnxviz.runtime.model import Model
from onnxviz.sums import exact_limbs

__all__ = ["activations", "merge_statistics"]

MOST_IMAGES = 64
"""Images whose whole maps are kept at once."""


@overload
def activations(
    model: Model, images: ImageSet, *, values: str | Sequence[str], reduce: None = None
) -> dict[str, Activations]: ...
@overload
def activations(
    model: Model, images: ImageSet, *, values: str | Sequence[str], reduce: Literal["statistics"]
) -> dict[str, ActivationStatistics]: ...
def activations(
    model: Model, images: ImageSet, *, values: str | Sequence[str], reduce: Literal["statistics"] | None = None
) -> dict[str, Activations] | dict[str, ActivationStatistics]:
    """Compute what values of the graph hold.

    Parameters
    ----------
    model : Model
    images : ImageSet
    values : str or sequence of str
        Names or globs.
    reduce : "statistics" or None
        None keeps the whole maps and takes at most 64 images; ``"statistics"`` streams over any number of images and
        keeps per-channel sums, extremes, and counts of zero, saturated and non-finite units.

    Returns
    -------
    dict of value name to Activations or ActivationStatistics

    Raises
    ------
    ValueNotFoundError
        A name or glob matches nothing.
    InputError
        A value does not hold one row for each image, too many images for whole maps, none that can be read, or an
        unknown reduction.
    """
    patterns = (values,) if isinstance(values, str) else tuple(values)
    names = model.values_of_images(patterns)
    if reduce is None:
        return _maps(model, images, names)
    if reduce != "statistics":
        raise InputError("unknown reduction", where="reduce", got=repr(reduce), allowed="None, 'statistics'")
    return _statistics(model, images, names)


def _maps(model: Model, images: ImageSet, names: tuple[str, ...]) -> dict[str, Activations]:
    if len(images) > MOST_IMAGES:
        raise InputError(
            "too many images to keep whole maps of", where="images", got=str(len(images)),
            allowed=f"at most {MOST_IMAGES}",
            next_step="Choose some with images.sample(...), or pass reduce='statistics'",
        )  # fmt: skip
    maps: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    views: list[NDArray[np.uint8]] = []
    shown: list[str] = []
    for batch, arrays in model.batches(images, names):
        for name in names:
            maps[name].append(_real(model.channel_first(name, arrays[name])).copy())
        views.append(batch.views)
        shown += [images.names[index] for index in batch.indices]
    if not views:
        raise InputError("none of the images can be read", where="images")
    return {
        name: Activations(
            value=name,
            maps=np.concatenate(maps[name]),
            images=np.concatenate(views),
            names=tuple(shown),
            provenance=model.provenance("activations", {"value": name, "reduce": None}),
        )
        for name in names
    }


def _statistics(model: Model, images: ImageSet, names: tuple[str, ...]) -> dict[str, ActivationStatistics]:
    found: dict[str, ActivationStatistics] = {}
    for _, arrays in model.batches(images, names):
        for name in names:
            maps = _real(model.channel_first(name, arrays[name]))
            provenance = model.provenance("activations", {"value": name, "reduce": "statistics"})
            part = _of_batch(name, maps, provenance)
            found[name] = merge_statistics(found[name], part) if name in found else part
    if not found:
        raise InputError("none of the images can be read", where="images")
    return found


def _of_batch(name: str, maps: NDArray[Any], provenance: Provenance) -> ActivationStatistics:
    images, channels = maps.shape[:2]
    # One contiguous row per image and channel: numpy then adds each row in the same order whatever the batch size.
    rows = np.ascontiguousarray(maps).reshape(images * channels, -1)
    finite = np.isfinite(rows)
    wide = np.where(finite, rows, 0).astype(np.float64)
    shape = (images, channels)
    low = np.where(finite, rows, np.inf).min(axis=1).reshape(shape).min(axis=0)
    high = np.where(finite, rows, -np.inf).max(axis=1).reshape(shape).max(axis=0)
    at_high = (rows.reshape(images, channels, -1) == high[None, :, None]).sum(axis=(0, 2))
    return ActivationStatistics(
        value=name,
        count=images,
        units=rows.shape[1],
        sums=exact_limbs(wide.sum(axis=1).reshape(shape)),
        sums_of_squares=exact_limbs((wide * wide).sum(axis=1).reshape(shape)),
        minimum=low.astype(np.float32),
        maximum=high.astype(np.float32),
        zeros=((rows == 0).sum(axis=1)).reshape(shape).sum(axis=0),
        at_maximum=at_high,
        non_finite=(~finite).sum(axis=1).reshape(shape).sum(axis=0),
        provenance=provenance,
    )


def merge_statistics(a: ActivationStatistics, b: ActivationStatistics) -> ActivationStatistics:
    """Statistics over two disjoint sets of images become those over both; exact, associative and order-free.

    Raises
    ------
    InputError
        They are not of the same value of the same model.
    """
    if (a.value, a.units, a.provenance.model_sha256) != (b.value, b.units, b.provenance.model_sha256):
        raise InputError(
            "statistics of different values cannot be merged", where="merge_statistics",
            got=f"{a.value!r} with {a.units} units and {b.value!r} with {b.units} units",
            allowed="the same value and model",
        )  # fmt: skip
    high = np.maximum(a.maximum, b.maximum)
    return ActivationStatistics(
        value=a.value,
        count=a.count + b.count,
        units=a.units,
        sums=a.sums + b.sums,
        sums_of_squares=a.sums_of_squares + b.sums_of_squares,
        minimum=np.minimum(a.minimum, b.minimum),
        maximum=high,
        zeros=a.zeros + b.zeros,
        at_maximum=np.where(a.maximum == high, a.at_maximum, 0) + np.where(b.maximum == high, b.at_maximum, 0),
        non_finite=a.non_finite + b.non_finite,
        provenance=a.provenance,
    )


def _real(maps: NDArray[Any]) -> NDArray[Any]:
    return maps if maps.dtype == np.float32 else maps.astype(np.float32)
