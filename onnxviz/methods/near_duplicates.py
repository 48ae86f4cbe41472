"""Features of one or two sets come in; the pairs of images that are nearly the same picture go out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.nearest_others import Found, made_from, nearest_others, search_among, thumbnails
from onnxviz.results import Features, NearDuplicates
from onnxviz.results.provenance import IntArray

__all__ = ["near_duplicates"]

HALF_AS_FAR = {"cosine": 0.25, "euclidean": 0.5}
"""The default threshold. A cosine distance is half the square of the distance on normalised rows."""

_LEAST_SCALE = {"cosine": 1 / 3, "euclidean": 0.58}
"""The smallest scale as a share of the median one, and its square root."""
_MOST_FOUND = 1_000_000
_DRAWN = 24


def near_duplicates(
    first: Features,
    second: Features | None = None,
    *,
    metric: str = "cosine",
    threshold: float | None = None,
    n_neighbors: int = 10,
    images: ImageSet | None = None,
    second_images: ImageSet | None = None,
) -> NearDuplicates:
    """Find images of ``first`` that are nearly the same picture as one of ``second``, or within ``first``.

    Across two sets this is what has leaked from training into test (Barz and Denzler 2020 found it for 3.3 % of
    CIFAR-10's test images); within one set, what is counted twice.

    Parameters
    ----------
    first : Features
    second : Features or None
        The same value of the same model on other images; None compares ``first`` with itself.
    metric : "cosine" or "euclidean"
    threshold : float or None
        Largest distance of a pair as a share of its scale, 0 to 1. None takes 0.25 for cosine distances and 0.5 for
        Euclidean ones: half as far apart as ordinary neighbours. 0 finds only images whose features are the same.
    n_neighbors : int
        The neighbour whose distance is the scale; more than the copies that one image may have.
    images, second_images : ImageSet or None
        The images of ``first`` and ``second``, for the picture of the first 24 pairs.

    Returns
    -------
    NearDuplicates
        Every pair within the threshold, not only the nearest; ordered by ratio, then distance, then indices.

    Raises
    ------
    InputError
        Features of different values or models, fewer than two images to choose among, a parameter out of range, or
        far more pairs than images: then the features do not tell the images apart.

    Notes
    -----
    No absolute distance means "the same picture": it depends on the network, and within one set crowded classes lie
    closer than others. So each image brings its own scale: the distance of its 10th nearest neighbour in the set that
    is searched (local scaling, Zelnik-Manor and Perona 2004; a ratio of distances decides as in Lowe 2004), but at
    least a third of the median of these distances (0.58 of it for Euclidean ones), so that a group of more than ten
    copies does not become its own scale. Within one set the smaller scale of both images counts.

    Where the images around one are spread evenly in m dimensions, one of nine lies within half the distance of the
    tenth by chance in a share of about 9 · 2^-m: with the 16 to 31 dimensions that features of 28 × 28 pictures to
    photographs showed (two-nearest-neighbours estimate, Facco et al. 2017), for 1 image in 7,000 or fewer. Real sets
    are less even, so look at the pairs; and edits that the features do not disregard are not found. Of 100 copies each
    among the originals were found, with no wrong pair: by SqueezeNet and EfficientNet-Lite0 on 500 photographs all
    that were re-encoded (JPEG, quality 50), cropped by 3 or 6 %, mirrored, or 20 % brighter or darker, 96 to 98 of
    those of half the size, 85 to 93 at quality 20, 48 to 52 of those without colour; by a small network on 5,000
    CIFAR-10 images all that were brighter or darker, 96 of those shifted by a pixel, 86 re-encoded, and none that was
    mirrored: its features are a map laid flat, which keeps the places, where those of the others are averaged over it.
    """
    within = second is None
    other = first if second is None else second
    _check_comparable(first, other)
    available = len(other.array) - within
    if available < 2:
        raise InputError(
            "too few images to tell how far apart ordinary ones are", where="first" if within else "second",
            got=str(len(other.array)), allowed=f"at least {2 + within}",
        )  # fmt: skip
    if n_neighbors < 2:
        raise InputError("too few neighbours", where="n_neighbors", got=repr(n_neighbors), allowed="2 or more")
    k = min(n_neighbors, available)

    fitted = functools.cache(lambda: search_among(other, metric=metric))

    def search(rows: IntArray, k: int) -> Found:
        distances, indices = fitted().kneighbors(first.array[rows], k)
        return distances, indices

    # A set with itself: the others' search is shared with the other methods, and seldom needs to be widened.
    found = nearest_others(first, k, metric) if within else search(np.arange(len(first.array)), k)
    limit = HALF_AS_FAR[metric] if threshold is None else threshold
    if not 0 <= limit <= 1:
        raise InputError("no such share of the scale", where="threshold", got=repr(threshold), allowed="0 to 1")
    farthest = found[0][:, -1]
    scales = np.maximum(farthest, _LEAST_SCALE[metric] * np.median(farthest))
    pairs, apart = _pairs_within(limit * scales, found, search, len(other.array))
    scale = scales[pairs[:, 0]]
    if within:
        scale = np.minimum(scale, scales[pairs[:, 1]])
        kept = (pairs[:, 0] < pairs[:, 1]) & (apart <= limit * scale)
        pairs, apart, scale = pairs[kept], apart[kept], scale[kept]
    ratios = _share(apart, scale)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], apart, ratios))
    pairs = pairs[order]
    drawn = pairs[:_DRAWN]
    left = thumbnails(images, first, drawn[:, 0])
    right = thumbnails(images if within else second_images, other, drawn[:, 1])
    both = min(len(left), len(right))
    parameters: dict[str, Any] = {"metric": metric, "threshold": limit, "n_neighbors": k, "within": within}
    if not within:
        parameters["second"] = dict(other.provenance.parameters)
    return NearDuplicates(
        value=first.value,
        pairs=pairs,
        distances=apart[order],
        ratios=ratios[order],
        scales=scales,
        nearest=_share(found[0][:, 0], scales),
        threshold=float(limit),
        within=within,
        names=first.names,
        other_names=other.names,
        labels=_labels(first),
        other_labels=_labels(other),
        thumbnails=np.stack([left[:both], right[:both]], axis=1),
        provenance=made_from(first, "near_duplicates", parameters),
    )


def _check_comparable(first: Features, second: Features) -> None:
    """Refuse features that do not measure the same thing."""
    for what, one, two in (
        ("value", first.value, second.value),
        ("model", first.provenance.model_sha256, second.provenance.model_sha256),
        ("width", first.array.shape[1], second.array.shape[1]),
        ("pooling", first.pooled, second.pooled),
    ):
        if one != two:
            raise InputError(
                f"both sets of features must have the same {what}", where="second", got=str(two), allowed=str(one),
                next_step="Compute both with features() on one model and value",
            )  # fmt: skip


def _pairs_within(
    limits: NDArray[np.float64], found: Found, search: Callable[[IntArray, int], Found], fitted: int
) -> tuple[IntArray, NDArray[np.float64]]:
    """Every (row, fitted row) no farther apart than the row's limit, and the distances.

    ``found`` holds the nearest fitted rows of every row. Where the last of them is still within the limit, ``search``
    looks for twice as many, and so on, up to all ``fitted``; in its answer a row may meet itself.
    """
    rows = np.arange(len(limits))
    pairs: list[IntArray] = []
    apart: list[NDArray[np.float64]] = []
    total = 0
    while len(rows):
        distances, indices = found
        near = distances <= limits[rows, np.newaxis]
        complete = ~near[:, -1] | (near.shape[1] == fitted)
        total += int(near[complete].sum())
        if total + int(near[~complete].sum()) > _MOST_FOUND:
            raise InputError(
                "the features hardly tell the images apart: far more pairs than images are within the threshold",
                where="first", got=f"more than {_MOST_FOUND:,}", next_step="Choose another value, or a lower threshold",
            )  # fmt: skip
        row, place = np.nonzero(near & complete[:, np.newaxis])
        pairs.append(np.stack([rows[row], indices[row, place]], axis=1))
        apart.append(distances[row, place])
        rows = rows[~complete]
        if len(rows):
            found = search(rows, min(2 * near.shape[1], fitted))
    return np.concatenate(pairs), np.concatenate(apart)


def _share(distances: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
    # Among nothing but copies even the scale is 0.
    return np.divide(distances, scales, out=np.zeros_like(distances), where=scales > 0)


def _labels(features: Features) -> tuple[str, ...] | None:
    """The class of each image in words, so that two sets with other numbers for the same classes can be compared."""
    if features.classes is None:
        return None
    names = features.class_names or ()
    return tuple(
        "" if number < 0 else names[number] if number < len(names) else f"class {number}"
        for number in features.classes.tolist()
    )
