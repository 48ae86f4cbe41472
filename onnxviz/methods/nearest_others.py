"""Features come in; the nearest other images of each image go out, searched once for all who ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, LimitError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.device_features import searched_rows
from onnxviz.methods.nearest_neighbors import NearestNeighbors
from onnxviz.results import Features, Provenance
from onnxviz.results.provenance import FloatArray

__all__ = ["Found", "index_of", "labelled_others", "made_from", "nearest_others", "search_among", "thumbnails"]

Found = tuple[NDArray[np.float64], NDArray[np.int64]]
"""(images, k) distances and row numbers, nearest first."""

_AT_LEAST = 20
"""Neighbours that are searched in any case: who asks for fewer first and for these later shares one search."""
_THUMBNAIL_SIDE = 112

_searches: WeakKeyDictionary[Features, dict[str, Found]] = WeakKeyDictionary()


def nearest_others(features: Features, n_neighbors: int, metric: str) -> Found:
    """Search the nearest others of every image; the answer lives as long as ``features``.

    Raises
    ------
    InputError
        There are not so many other images, an unknown metric, or features that are no finite numbers.
    """
    others = len(features.array) - 1
    _check_count(n_neighbors, others)
    known = _searches.setdefault(features, {})
    if metric not in known or known[metric][1].shape[1] < n_neighbors:
        index = search_among(features, metric=metric)
        known[metric] = _others(index, min(max(n_neighbors, _AT_LEAST), others))
    distances, indices = known[metric]
    return distances[:, :n_neighbors], indices[:, :n_neighbors]


def labelled_others(features: Features, n_neighbors: int, metric: str) -> tuple[NDArray[np.int64], Found]:
    """Search the nearest labelled others of every labelled image.

    Returns
    -------
    rows : (labelled,) int64
        The images whose class is known, ascending.
    found : distances and indices, (labelled, k)
        Indices are rows of ``features``; k is ``n_neighbors``, or all others where there are fewer.

    Raises
    ------
    InputError
        Fewer than two classes are known, or as in :func:`nearest_others`.
    """
    classes = features.classes if features.classes is not None else np.full(len(features.array), -1)
    rows = np.flatnonzero(classes >= 0)
    if len(np.unique(classes[rows])) < 2:
        raise InputError(
            "labels can be compared only where there are two classes or more", where="features.classes",
            got=f"one class for {len(rows):,} images" if len(rows) else "no image with a class",
            next_step="Put the images into one folder per class, or pass labels to load_images",
        )  # fmt: skip
    _check_count(n_neighbors, max(n_neighbors, 1))
    k = min(n_neighbors, len(rows) - 1)
    if len(rows) == len(classes):
        return rows, nearest_others(features, k, metric)
    array, (_, device) = features.array[rows], searched_rows(features)
    distances, indices = _others(index_of(array, array, device, metric=metric), k)
    return rows, (distances, rows[indices])


def _check_count(n_neighbors: int, most: int) -> None:
    if not 1 <= n_neighbors <= most:
        raise InputError(
            "not a possible number of neighbours", where="n_neighbors", got=repr(n_neighbors),
            allowed=f"1 to {most}" if most else "at least two images",
        )  # fmt: skip


def search_among(features: Features, **parameters: Any) -> NearestNeighbors:
    """An index of the rows of ``features``, on the device that computed them."""
    return index_of(features.array, *searched_rows(features), **parameters)


def index_of(rows: FloatArray, there: Any, device: str | None, **parameters: Any) -> NearestNeighbors:
    """An index of rows.

    Parameters
    ----------
    rows : (n, d) array of the host
    there : (n, d) array of the host or of ``device``
        The same rows.
    device : str or None
        Who searches; the CPU does where there is no memory left, and where it is None.
    **parameters
        Those of :class:`NearestNeighbors`.
    """
    if device is not None:
        try:
            return NearestNeighbors(**parameters, device=device).fit(there)
        except LimitError:
            pass
    return NearestNeighbors(**parameters).fit(rows)


def _others(index: NearestNeighbors, k: int) -> Found:
    distances, indices = index.kneighbors(n_neighbors=k)
    return distances, indices


def thumbnails(images: ImageSet | None, features: Features, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(rows, side, side, 3) RGB of some rows' images; none where the images were not given."""
    if images is None:
        return np.zeros((0, _THUMBNAIL_SIDE, _THUMBNAIL_SIDE, 3), np.uint8)
    if len(features.indices) and int(features.indices.max()) >= len(images):
        raise InputError(
            "the images are not those of the features", where="images", got=f"{len(images):,} images",
            allowed=f"at least {int(features.indices.max()) + 1:,}", next_step="Pass the set that features() was given",
        )  # fmt: skip
    return images.thumbnails(features.indices[rows], _THUMBNAIL_SIDE)


def made_from(features: Features, method: str, parameters: Mapping[str, Any]) -> Provenance:
    """The provenance of what was computed from ``features``."""
    made = features.provenance
    return dataclasses.replace(
        made, method=method, parameters={"value": features.value, **parameters, "features": dict(made.parameters)}
    )
