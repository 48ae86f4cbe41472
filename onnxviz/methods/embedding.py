"""Feature vectors come in; their picture in two dimensions, by PCA or t-SNE, goes out with a measure of its honesty."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.methods.device_features import searched_rows
from onnxviz.methods.nearest_others import index_of
from onnxviz.results import Embedding, Features, Provenance
from onnxviz.runtime.versions import versions

__all__ = ["embed"]

_MOST_JUDGED = 2000
_FEWEST_FOR_TSNE = 5
_START = 1e-4  # standard deviation of the points before they move


def embed(
    features: Features | NDArray[Any], *, method: str = "tsne", random_state: int = 0, perplexity: float | None = None
) -> Embedding:
    """Reduce feature vectors to two dimensions.

    Parameters
    ----------
    features : Features or ndarray of shape (images, features)
        Finite numbers.
    method : "tsne" or "pca"
        t-SNE (van der Maaten and Hinton 2008) by openTSNE where it is installed, else by scikit-learn, from the exact
        neighbours of :class:`~onnxviz.NearestNeighbors`; PCA by scikit-learn, signs fixed so that the largest loading
        of each component is positive.
    random_state : int
        Seed; the same seed and number of threads give the same bytes.
    perplexity : float or None
        Effective number of neighbours in t-SNE; None takes 30, or a third of the images where there are few.

    Returns
    -------
    Embedding
        ``trustworthiness`` (Venna and Kaski 2001, 5 neighbours) is computed on at most 2,000 images.

    Raises
    ------
    InputError
        Too few rows, numbers that are not finite, or an unknown method.
    """
    array = np.asarray(features.array if isinstance(features, Features) else features)
    if array.ndim != 2:
        raise InputError(
            "features must be a matrix", where="features", got=str(array.shape), allowed="(images, features)"
        )
    if method not in ("tsne", "pca"):
        raise InputError("unknown method", where="method", got=repr(method), allowed="'tsne', 'pca'")
    fewest = _FEWEST_FOR_TSNE if method == "tsne" else 3
    if len(array) < fewest:
        raise InputError("too few images to embed", where="features", got=f"{len(array)}", allowed=f"{fewest} or more")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(bad):
        raise InputError("a feature vector holds NaN or infinity", where=f"row {bad[0]}", got=f"{len(bad)} such rows")
    ratio = None
    if method == "pca":
        coordinates, ratio = _pca(array, random_state)
    else:
        perplexity = min(30.0, (len(array) - 1) / 3) if perplexity is None else perplexity
        there, device = searched_rows(features) if isinstance(features, Features) else (array, None)
        coordinates = _tsne(array, there, device, perplexity, random_state)
    parameters: Mapping[str, Any] = {"method": method, "random_state": random_state, "perplexity": perplexity}
    known = features if isinstance(features, Features) else None
    return Embedding(
        coordinates=coordinates,
        method=method,
        explained_variance_ratio=ratio,
        trustworthiness=_trustworthiness(array, coordinates, random_state),
        classes=known.classes if known else None,
        class_names=known.class_names if known else None,
        names=known.names if known else tuple(f"row {row}" for row in range(len(array))),
        provenance=_provenance(known, parameters),
        indices=known.indices if known else None,
    )


def _pca(array: NDArray[Any], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from sklearn.decomposition import PCA

    solver = PCA(n_components=2, svd_solver="full" if min(array.shape) <= 500 else "randomized", random_state=seed)
    wide = array.astype(np.float64)
    if not np.ptp(wide, axis=0).any():
        return np.zeros((len(array), 2)), np.zeros(2)
    if array.shape[1] == 1:
        wide = np.hstack([wide, np.zeros_like(wide)])
    return solver.fit_transform(wide), np.nan_to_num(solver.explained_variance_ratio_)


def _tsne(array: NDArray[Any], there: Any, device: str | None, perplexity: float, seed: int) -> NDArray[np.float64]:
    if not np.ptp(array, axis=0).any():
        # Images that are all alike have no map; every point is the same.
        return np.zeros((len(array), 2))
    k = min(len(array) - 1, int(3 * perplexity + 1))
    distances, indices = index_of(array, there, device, n_neighbors=k).kneighbors()
    start, _ = _pca(array, seed)
    start = start / max(float(np.std(start[:, 0])), 1e-300) * _START
    # Identical images start at the same point, where t-SNE's gradient cannot part them; a tiny jitter does.
    start = start + np.random.default_rng(seed).normal(scale=1e-6, size=start.shape)
    if importlib.util.find_spec("openTSNE") is not None:
        return _open_tsne(distances, indices, start, perplexity, seed)
    return _scikit_tsne(distances, indices, start, perplexity, seed)


def _open_tsne(
    distances: NDArray[np.float64], indices: NDArray[np.int64], start: NDArray[np.float64], perplexity: float, seed: int
) -> NDArray[np.float64]:
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    affinities = PerplexityBasedNN(
        perplexity=perplexity, knn_index=PrecomputedNeighbors(indices, distances), n_jobs=1, random_state=seed
    )
    embedding = openTSNE.TSNEEmbedding(
        start, affinities, negative_gradient_method="bh" if len(start) < 10_000 else "fft", n_jobs=1, random_state=seed
    )
    embedding = embedding.optimize(n_iter=250, exaggeration=12, momentum=0.5)
    # Exaggerated attraction can draw few points into one, which nothing parts again: back to the size of the start.
    size = float(np.std(embedding))
    if size < _START:
        embedding[:] = (embedding - embedding.mean(axis=0)) * (_START / max(size, 1e-300))
    embedding = embedding.optimize(n_iter=500, momentum=0.8)
    return np.asarray(embedding, np.float64)


def _scikit_tsne(
    distances: NDArray[np.float64], indices: NDArray[np.int64], start: NDArray[np.float64], perplexity: float, seed: int
) -> NDArray[np.float64]:
    import scipy.sparse
    from sklearn.manifold import TSNE

    n = len(distances)
    # scikit-learn expects every point to be its own first neighbour.
    distances = np.hstack([np.zeros((n, 1)), distances])
    indices = np.hstack([np.arange(n)[:, None], indices])
    k = distances.shape[1]
    graph = scipy.sparse.csr_matrix((distances.ravel(), indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    solver = TSNE(
        metric="precomputed", init=start.astype(np.float32), perplexity=perplexity, random_state=seed, n_jobs=1
    )
    return np.asarray(solver.fit_transform(graph), np.float64)


def _trustworthiness(array: NDArray[Any], coordinates: NDArray[np.float64], seed: int) -> float:
    from sklearn.manifold import trustworthiness

    rows = np.arange(len(array))
    if len(rows) > _MOST_JUDGED:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:_MOST_JUDGED])
    # Defined for fewer neighbours than half the points only.
    neighbors = min(5, (len(rows) - 1) // 2)
    if neighbors < 1:
        return 1.0
    return float(trustworthiness(array[rows], coordinates[rows], n_neighbors=neighbors))


def _provenance(known: Features | None, parameters: Mapping[str, Any]) -> Provenance:
    if known is None:
        return Provenance("embed", "", "", {}, {}, dict(parameters), versions(), "")
    made = known.provenance
    return Provenance(
        "embed", made.model, made.model_sha256, made.preprocess, made.output,
        {**parameters, "features": dict(made.parameters)}, made.versions, made.provider,
    )  # fmt: skip
