"""A model and images come in; the nearest images of some, in feature space and in pixel space, go out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.image_set import priority
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.device_features import searched_rows
from onnxviz.methods.features import features
from onnxviz.methods.nearest_neighbors import NearestNeighbors, leave_out
from onnxviz.methods.nearest_others import index_of
from onnxviz.results import Neighbors
from onnxviz.runtime.model import Model

__all__ = ["neighbors"]

_PIXEL_BYTES = 512 << 20
"""Largest float32 matrix of pixels; larger sets of images are compared at a lower resolution."""
_VIEWS_AT_ONCE = 64
_THUMBNAIL_SIDE = 112


def neighbors(
    model: Model,
    images: ImageSet,
    *,
    value: str | None = None,
    n_neighbors: int = 5,
    queries: int = 8,
    metric: str = "euclidean",
    seed: int = 0,
) -> Neighbors:
    """Find the nearest images of some query images, in feature space and in pixel space.

    Parameters
    ----------
    model : Model
    images : ImageSet
        Where folders tell classes, they should be different photos: overlapping crops of one photo are each other's
        neighbours in any space, and say nothing.
    value : str or None
        The value whose activations are the features; None takes ``model.feature_value``.
    n_neighbors : int
        Neighbours of each query.
    queries : int
        Query images, drawn evenly from the classes.
    metric : str
        ``"euclidean"`` or ``"cosine"``, of both spaces.
    seed : int
        Of the choice of query images.

    Returns
    -------
    Neighbors
        Images that cannot be read have no place in it: ``names`` lists the others. Pixel space is that of the RGB views
        that the network sees; where all of them would take more than half a GiB, they are first reduced to the size
        stated as ``pixel_size`` in the provenance.

    Raises
    ------
    InputError
        More neighbours are asked for than there are other images, or no image can be read.
    ValueNotFoundError
        The graph has no such value, or none was found and none named.
    """
    if queries < 1:
        raise InputError("not a number of queries", where="queries", got=repr(queries), allowed="1 or more")
    vectors = features(model, images, value=value)
    count = len(vectors.array)
    if not 1 <= n_neighbors < count:
        raise InputError(
            "not a possible number of neighbours", where="n_neighbors", got=str(n_neighbors),
            allowed=f"1 to {count - 1} for {count} readable images" if count > 1 else "at least two readable images",
        )  # fmt: skip
    pixels, pixel_size = _pixels(images, vectors.indices)
    chosen = np.sort(priority(vectors.classes, count, seed)[: min(queries, count)])
    found = {}
    accuracy: dict[str, float | None] = {}
    there, device = searched_rows(vectors)
    for space, rows, searched in (("features", vectors.array, there), ("pixels", pixels, pixels)):
        index = index_of(rows, searched, device, n_neighbors=n_neighbors, metric=metric, n_jobs=model.threads)
        found[space] = leave_out(chosen, *index.kneighbors(rows[chosen], n_neighbors + 1))
        accuracy[space] = _leave_one_out_accuracy(rows, vectors.classes, index)
    shown = np.unique(np.concatenate([chosen, found["features"][1].ravel(), found["pixels"][1].ravel()]))
    return Neighbors(
        value=vectors.value,
        queries=chosen,
        feature_distances=found["features"][0],
        feature_indices=found["features"][1],
        pixel_distances=found["pixels"][0],
        pixel_indices=found["pixels"][1],
        names=vectors.names,
        thumbnails=images.thumbnails(vectors.indices[shown], _THUMBNAIL_SIDE),
        shown=shown,
        class_names=vectors.class_names,
        classes=vectors.classes,
        feature_accuracy=accuracy["features"],
        pixel_accuracy=accuracy["pixels"],
        provenance=model.provenance(
            "neighbors",
            {
                "value": vectors.value, "pool": vectors.pooled, "n_neighbors": n_neighbors, "queries": len(chosen),
                "metric": metric, "seed": seed, "pixel_size": list(pixel_size),
            },
        ),
    )  # fmt: skip


def _pixels(images: ImageSet, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """(images, height × width × 3) float32 views, and the height and width that fit the memory set aside for them."""
    height, width = images.preprocess.size
    reduction = 1
    while len(indices) * -(-height // reduction) * -(-width // reduction) * 3 * 4 > _PIXEL_BYTES and reduction < min(
        height, width
    ):
        reduction += 1
    size = (-(-height // reduction), -(-width // reduction))
    rows = np.empty((len(indices), size[0] * size[1] * 3), np.float32)
    for start in range(0, len(indices), _VIEWS_AT_ONCE):
        block = slice(start, start + _VIEWS_AT_ONCE)
        views = images.views(indices[block])
        if reduction > 1:
            from PIL import Image

            views = np.stack([np.asarray(Image.fromarray(view).reduce(reduction)) for view in views])
        rows[block] = views.reshape(len(views), -1)
    return rows, size


def _leave_one_out_accuracy(
    rows: NDArray[Any], classes: NDArray[np.int64] | None, index: NearestNeighbors
) -> float | None:
    """Share of the labelled rows whose class wins the vote of their nearest labelled rows; None without labels.

    Of classes with equally many votes the one with the nearest voter wins.
    """
    labelled = np.flatnonzero(classes >= 0) if classes is not None else np.zeros(0, np.int64)
    if classes is None or len(labelled) < 2:
        return None
    if len(labelled) < len(rows):
        some = rows[labelled]
        index = index_of(
            some, some, index.device, n_neighbors=index.n_neighbors, metric=index.metric, n_jobs=index.n_jobs
        )
    _, indices = index.kneighbors(n_neighbors=min(index.n_neighbors, len(labelled) - 1))
    truth = classes[labelled]
    votes = truth[indices]
    counts = (votes[:, :, np.newaxis] == votes[:, np.newaxis, :]).sum(axis=2)
    # argmax takes the first of equals, which is the nearest.
    winner = np.take_along_axis(votes, counts.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return float((winner == truth).mean())
