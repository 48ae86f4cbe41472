"""Images of one class come in; how they fall into kinds, and the mean image of each kind, go out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.embedding import embed
from onnxviz.methods.features import features
from onnxviz.runtime.model import Model

__all__ = ["MOST_FACETS", "NEAREST", "Facets", "find_facets"]

NEAREST = 15
"""Images around the middle of a cluster that its mean image is made of."""

MOST_FACETS = 10
"""Clusters of the authors."""

_COMPONENTS = 50
_FEWEST_IMAGES = 5


@dataclass(frozen=True)
class Facets:
    """Clusters of the images of a class, the largest first."""

    images: NDArray[np.int64]
    """(images,) index of each clustered image in the image set."""
    coordinates: NDArray[np.float64]
    """(images, 2) their places in the plane."""
    labels: NDArray[np.int64]
    """(images,) the facet of each."""
    members: NDArray[np.int64]
    """(facets, nearest) index, in the image set, of the images nearest the middle of each facet, nearest first."""
    means: NDArray[np.float32]
    """(facets, height, width, 3) their mean in RGB, 0 to 255: what the network sees."""


def find_facets(model: Model, images: ImageSet, count: int, *, seed: int = 0, nearest: int = NEAREST) -> Facets:
    """Cluster the images of one class by the network's features (Nguyen, Yosinski and Clune 2016).

    Parameters
    ----------
    model : Model
    images : ImageSet
        Of one class.
    count : int
        Number of clusters.
    seed : int
        Of PCA, t-SNE and k-means.
    nearest : int
        Images of each mean; fewer where there are no more.

    Returns
    -------
    Facets

    Raises
    ------
    InputError
        Fewer than 5 images, or fewer than clusters, can be read, or features are not finite.
    ValueNotFoundError
        No feature value was found in the graph.

    Notes
    -----
    The features are brought to 50 dimensions by PCA, to 2 by t-SNE, and clustered there by k-means (10 starts), all by
    scikit-learn or openTSNE as in :func:`onnxviz.embed`.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    found = features(model, images)
    enough = max(_FEWEST_IMAGES, count)
    if count < 1 or len(found.array) < enough:
        raise InputError(
            "too few images for so many facets", where="facets", got=f"{count} facets of {len(found.array)} images",
            allowed=f"1 to {len(found.array)} facets, and {_FEWEST_IMAGES} images or more",
        )  # fmt: skip
    wide = found.array.astype(np.float64)
    if not np.isfinite(wide).all():
        raise InputError("a feature vector holds NaN or infinity", where="facets", got=found.value)
    components = min(_COMPONENTS, *wide.shape)
    reduced = PCA(n_components=components, svd_solver="full", random_state=seed).fit_transform(wide)
    coordinates = embed(reduced, method="tsne", random_state=seed).coordinates
    clusters = KMeans(n_clusters=count, n_init=10, random_state=seed).fit(coordinates)
    order = np.argsort(-np.bincount(clusters.labels_, minlength=count), kind="stable")
    place_of = np.empty(count, np.int64)
    place_of[order] = np.arange(count)
    rows = [
        np.argsort(((coordinates - clusters.cluster_centers_[cluster]) ** 2).sum(axis=1), kind="stable")[:nearest]
        for cluster in order
    ]
    members = found.indices[np.stack(rows)]
    means = np.stack([images.views(chosen).astype(np.float64).mean(axis=0) for chosen in members])
    return Facets(
        images=found.indices, coordinates=coordinates, labels=place_of[clusters.labels_], members=members,
        means=means.astype(np.float32),
    )  # fmt: skip
