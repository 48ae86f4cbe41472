"""Features come in; how often each image is a neighbour of others, and who is so often or never, goes out."""

from __future__ import annotations

import numpy as np

from onnxviz.inputs.images import ImageSet
from onnxviz.methods.nearest_others import made_from, nearest_others, thumbnails
from onnxviz.results import Features, Hubness

__all__ = ["hubness"]

_DRAWN = 10


def hubness(
    features: Features, *, n_neighbors: int = 10, metric: str = "cosine", images: ImageSet | None = None
) -> Hubness:
    """Count how often each image is among the k nearest neighbours of the others.

    In many dimensions a few images, the hubs, become neighbours of very many, and others of none (Radovanović,
    Nanopoulos and Ivanović 2010, "Hubs in space", JMLR 11). A search by similarity then shows the hubs again and again
    and never the antihubs, and a mislabelled hub spoils many votes.

    Parameters
    ----------
    features : Features
    n_neighbors : int
        The k of N_k.
    metric : "cosine" or "euclidean"
    images : ImageSet or None
        The images of ``features``, for the picture of the first 10 hubs and 10 antihubs.

    Returns
    -------
    Hubness
        ``skewness`` is that of N_k over the images (population moments, as ``scipy.stats.skew``). Hubs exceed the mean
        by more than two standard deviations, as in the paper; antihubs have N_k = 0.

    Raises
    ------
    InputError
        There are not so many other images; or ``n_neighbors`` or ``metric`` cannot be used.
    """
    distances, indices = nearest_others(features, n_neighbors, metric)
    count = len(features.array)
    occurrences = np.bincount(indices.ravel(), minlength=count)
    deviation = occurrences - occurrences.mean()
    spread = float(np.sqrt((deviation**2).mean()))
    hubs = np.flatnonzero(deviation > 2 * spread)
    hubs = hubs[np.argsort(-occurrences[hubs], kind="stable")]
    antihubs = np.flatnonzero(occurrences == 0)
    antihubs = antihubs[np.argsort(-distances[antihubs].mean(axis=1), kind="stable")]
    bad = None
    if features.classes is not None:
        known = features.classes >= 0
        differs = known[:, np.newaxis] & known[indices] & (features.classes[:, np.newaxis] != features.classes[indices])
        bad = np.bincount(indices[differs], minlength=count)
    shown = np.sort(np.concatenate([hubs[:_DRAWN], antihubs[:_DRAWN]])) if images is not None else hubs[:0]
    return Hubness(
        value=features.value,
        occurrences=occurrences,
        bad_occurrences=bad,
        skewness=float((deviation**3).mean() / spread**3) if spread else 0.0,
        hubs=hubs,
        antihubs=antihubs,
        n_neighbors=n_neighbors,
        names=features.names,
        shown=shown,
        thumbnails=thumbnails(images, features, shown),
        provenance=made_from(features, "hubness", {"n_neighbors": n_neighbors, "metric": metric}),
    )
