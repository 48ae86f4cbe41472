"""Feature vectors, or a model and images, come in; who is nearest to whom, exactly, goes out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError
from onnxviz.inputs.image_set import priority
from onnxviz.inputs.images import ImageSet
from onnxviz.methods.features import features
from onnxviz.results import Neighbors
from onnxviz.runtime.model import Model

__all__ = ["NearestNeighbors", "neighbors"]

METRICS = ("euclidean", "cosine")

_PIXEL_BYTES = 512 << 20
"""Largest float32 matrix of pixels; larger sets of images are compared at a lower resolution."""
_VIEWS_AT_ONCE = 64
_THUMBNAIL_SIDE = 112


class NearestNeighbors:
    """Exact nearest neighbours of dense rows, in C++; names and shapes are scikit-learn's.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that :meth:`kneighbors` returns by default.
    metric : str
        ``"euclidean"``, or ``"cosine"``: 1 - cos in float64 on normalised rows; a row of zeros is at distance 1 from
        every row, itself included.
    n_jobs : int or None
        Threads; None and -1 mean all cores. No answer depends on it.

    Attributes
    ----------
    n_features_in_, n_samples_fit_ : int
        Columns and rows of the fitted matrix.
    effective_metric_ : str

    Notes
    -----
    float32 and float64 are measured as they are, in float64; smaller types are converted without loss. Neighbours are
    ordered by distance, equal distances by the lower row number; exact duplicates and the query's own row appear. The
    fitted matrix is kept by reference where it is C-contiguous float32 or float64: leave it unchanged.
    """

    def __init__(self, n_neighbors: int = 5, *, metric: str = "euclidean", n_jobs: int | None = None) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.n_jobs = n_jobs

    def __repr__(self) -> str:
        return f"NearestNeighbors(n_neighbors={self.n_neighbors}, metric={self.metric!r})"

    def fit(self, X: Any, y: None = None) -> NearestNeighbors:  # noqa: ARG002 - scikit-learn calls fit(X, y)
        """Make the rows of ``X`` ready for queries.

        Parameters
        ----------
        X : (n, d) array of real numbers
        y : ignored

        Raises
        ------
        InputError
            ``X`` is empty, has not two axes, is sparse or complex, or holds NaN or infinity (the row is named).
        """
        self._check_parameters()
        self._bank = _real_matrix(X, "X")
        self._index = backend.NeighborIndex(self._bank, metric=self.metric, threads=self._threads())
        self.n_samples_fit_, self.n_features_in_ = (int(size) for size in self._bank.shape)
        self.effective_metric_ = self.metric
        return self

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | NDArray[np.int64]:
        """Find the nearest fitted rows of each query row.

        Parameters
        ----------
        X : (q, d) array of real numbers, or None
            None asks for the neighbours of each fitted row, itself left out.
        n_neighbors : int or None
            None takes the constructor's.
        return_distance : bool

        Returns
        -------
        distances : (q, n_neighbors) float64
            Nearest first; left out where ``return_distance`` is False.
        indices : (q, n_neighbors) int64
            Row numbers of the fitted matrix.

        Raises
        ------
        InputError
            More neighbours are asked for than there are rows (but one, where ``X`` is None), or ``X`` does not fit.
        """
        self._check_fitted()
        wanted = self.n_neighbors if n_neighbors is None else n_neighbors
        available = self.n_samples_fit_ if X is not None else self.n_samples_fit_ - 1
        if not _is_whole(wanted) or not 1 <= wanted <= available:
            raise InputError(
                "not a possible number of neighbours", where="n_neighbors", got=repr(wanted),
                allowed=f"1 to {available}" + ("" if X is not None else " (each row itself is left out)"),
            )  # fmt: skip
        k = int(wanted)
        if X is None:
            distances, indices = self._index.query(self._bank, k + 1, threads=self._threads())
            distances, indices = _leave_out(np.arange(self.n_samples_fit_), distances, indices)
        else:
            queries = _real_matrix(X, "X")
            if queries.shape[1] != self.n_features_in_:
                raise InputError(
                    f"X has {queries.shape[1]} features, but NearestNeighbors is expecting {self.n_features_in_} "
                    "features as input",
                    where="kneighbors",
                )
            distances, indices = self._index.query(queries, k, threads=self._threads())
        return (distances, indices) if return_distance else indices

    # -- what scikit-learn's tools (clone, pipelines, searches) ask of an estimator ---------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - there are no nested estimators
        """The constructor's parameters and their values."""
        return {"n_neighbors": self.n_neighbors, "metric": self.metric, "n_jobs": self.n_jobs}

    def set_params(self, **parameters: Any) -> NearestNeighbors:
        """Change parameters of the constructor; ``metric`` takes effect at the next :meth:`fit`."""
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise InputError(
                    "no such parameter", where="NearestNeighbors", got=repr(name), allowed=", ".join(known)
                )
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_index")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_index"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_bank" in state:
            self._index = backend.NeighborIndex(self._bank, metric=self.effective_metric_, threads=self._threads())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _threads(self) -> int:
        return 0 if self.n_jobs is None or self.n_jobs < 1 else self.n_jobs

    def _check_parameters(self) -> None:
        if self.metric not in METRICS:
            raise InputError(
                "no such metric", where="metric", got=repr(self.metric), allowed=", ".join(map(repr, METRICS))
            )
        if not _is_whole(self.n_neighbors) or self.n_neighbors < 1:
            raise InputError(
                "not a number of neighbours", where="n_neighbors", got=repr(self.n_neighbors), allowed="1 or more"
            )

    def _check_fitted(self) -> None:
        if hasattr(self, "_index"):
            return
        from sklearn.exceptions import NotFittedError

        # scikit-learn's own exception: its tools, and its users, wait for this one.
        raise NotFittedError("this NearestNeighbors is not fitted yet; call fit with a matrix first")


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _real_matrix(X: Any, name: str) -> backend.RealMatrix:
    """The argument as a C-contiguous float32 or float64 matrix, or the reason why it is none."""
    if hasattr(X, "tocsr"):
        raise InputError(
            "sparse data is not supported", where=name, got=type(X).__name__, allowed="a dense array",
            next_step=f"Pass {name}.toarray()",
        )  # fmt: skip
    array = np.asarray(X)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"the elements are not numbers: {error}", where=name) from error
    if array.dtype.kind == "c":
        raise InputError("Complex data not supported", where=name, got=str(array.dtype), allowed="real numbers")
    if array.dtype.kind not in "fiub":
        raise InputError("the elements are not numbers", where=name, got=str(array.dtype), allowed="real numbers")
    if array.ndim != 2:
        raise InputError(
            "Expected 2D array", where=name, got=f"{array.ndim}D array of shape {array.shape}",
            allowed="(rows, features)", next_step="Reshape your data: array.reshape(1, -1) if it is a single row",
        )  # fmt: skip
    if 0 in array.shape:
        axis, unit = (0, "sample") if array.shape[0] == 0 else (1, "feature")
        raise InputError(
            f"Found array with {array.shape[axis]} {unit}(s) (shape={array.shape}) while a minimum of 1 is required",
            where=name,
        )
    if np.can_cast(array.dtype, np.float32, "safe"):
        return np.ascontiguousarray(array, dtype=np.float32)
    return np.ascontiguousarray(array, dtype=np.float64)


def _leave_out(
    rows: NDArray[np.int64], distances: NDArray[np.float64], indices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Drop each query's own row from k + 1 neighbours; the last one where duplicates have crowded it out."""
    keep = indices != rows[:, np.newaxis]
    keep[keep.all(axis=1), -1] = False
    shape = (len(rows), indices.shape[1] - 1)
    return distances[keep].reshape(shape), indices[keep].reshape(shape)


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
    for space, rows in (("features", vectors.array), ("pixels", pixels)):
        index = backend.NeighborIndex(rows, metric=metric, threads=model.threads or 0)
        distances, indices = index.query(rows[chosen], n_neighbors + 1, threads=model.threads or 0)
        found[space] = _leave_out(chosen, distances, indices)
        accuracy[space] = _leave_one_out_accuracy(
            rows, vectors.classes, n_neighbors, metric=metric, threads=model.threads or 0, index=index
        )
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
    rows: NDArray[Any],
    classes: NDArray[np.int64] | None,
    n_neighbors: int,
    *,
    metric: str,
    threads: int,
    index: backend.NeighborIndex,
) -> float | None:
    """Share of the labelled rows whose class wins the vote of their nearest labelled rows; None without labels.

    Of classes with equally many votes the one with the nearest voter wins.
    """
    labelled = np.flatnonzero(classes >= 0) if classes is not None else np.zeros(0, np.int64)
    if classes is None or len(labelled) < 2:
        return None
    k = min(n_neighbors, len(labelled) - 1)
    if len(labelled) < len(rows):
        rows = rows[labelled]
        index = backend.NeighborIndex(rows, metric=metric, threads=threads)
    distances, indices = index.query(rows, k + 1, threads=threads)
    _, indices = _leave_out(np.arange(len(labelled)), distances, indices)
    truth = classes[labelled]
    votes = truth[indices]
    counts = (votes[:, :, np.newaxis] == votes[:, np.newaxis, :]).sum(axis=2)
    # argmax takes the first of equals, which is the nearest.
    winner = np.take_along_axis(votes, counts.argmax(axis=1)[:, np.newaxis], axis=1)[:, 0]
    return float((winner == truth).mean())
