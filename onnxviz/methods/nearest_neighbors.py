"""Vectors come in, in memory or on disk; scikit-learn's questions about who is nearest are answered exactly."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError
from onnxviz.inputs.feature_bank import FeatureBank
from onnxviz.methods.device_search import DeviceSearch, is_on_device, search_device
from onnxviz.methods.index_files import bank_codes, bank_rows, read_index, write_index
from onnxviz.methods.index_training import sample_rows, train

__all__ = ["KNeighborsTransformer", "NearestNeighbors", "leave_out"]

METRICS = ("euclidean", "cosine")

Progress = Callable[[int, int], None]


class NearestNeighbors:
    """Exact nearest neighbours of dense rows, in C++; names and shapes are scikit-learn's.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that :meth:`kneighbors` returns by default.
    radius : float
        Distance that :meth:`radius_neighbors` goes to by default.
    metric : str
        ``"euclidean"``, or ``"cosine"``: 1 - cos in float64 on normalised rows; a row of zeros is at distance 1 from
        every row, itself included.
    n_jobs : int or None
        Threads; None and -1 mean all cores. No answer depends on it.
    device : str or None
        Who searches: ``"cpu"``, or a CUDA device ``"cuda:N"``, to which rows of the host are carried. None: where the
        rows are; arrays on a device are any with ``__dlpack__`` or ``__cuda_array_interface__``, such as torch's and
        cupy's. The answers are the same, and numpy's, in either case. What a device does not do (radii, banks on disk,
        saving, pickling) is refused.

    Attributes
    ----------
    n_features_in_, n_samples_fit_ : int
        Columns and rows of the fitted matrix.
    effective_metric_ : str
    device_ : str
        ``"cpu"`` or ``"cuda:N"``: who searches.

    Notes
    -----
    float32 and float64 are measured as they are, in float64; smaller types are converted without loss. Neighbours are
    ordered by distance, equal distances by the lower row number; exact duplicates and the query's own row appear. The
    fitted matrix is kept by reference where it is C-contiguous float32 or float64: leave it unchanged.
    """

    _bank: backend.RealMatrix | FeatureBank
    _index: backend.NeighborIndex | DeviceSearch

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        radius: float = 1.0,
        metric: str = "euclidean",
        n_jobs: int | None = None,
        device: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.metric = metric
        self.n_jobs = n_jobs
        self.device = device

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_neighbors={self.n_neighbors}, metric={self.metric!r})"

    def fit(self, X: Any, y: None = None, *, progress: Progress | None = None) -> NearestNeighbors:  # noqa: ARG002 - scikit-learn calls fit(X, y)
        """Make the rows of ``X`` ready for queries.

        Parameters
        ----------
        X : (n, d) array of real numbers, on the host or on a CUDA device, or FeatureBank
            Of a bank on disk, about a fifth of its size is kept in memory and a quarter in an unnamed file beside it;
            the rows themselves are read as they are needed.
        y : ignored
        progress : callable or None
            Told how many rows of how many are ready.

        Raises
        ------
        InputError
            ``X`` is empty, has not two axes, is sparse or complex, or holds NaN or infinity (the row is named).
        LimitError
            The disk of a bank is full, or the device has too little memory.
        DeviceError
            The device cannot be used.
        """
        self._check_parameters()
        number = search_device(self.device, X)
        if number is not None:
            return self._fit_on_device(X, number, progress)
        if isinstance(X, FeatureBank):
            self._bank = X
            rows: backend.RealMatrix | backend.RowFiles = bank_rows(X)
        else:
            self._bank = rows = _real_matrix(X, "X")
        count, columns = rows.shape
        if count == 0:
            raise InputError("Found array with 0 sample(s) while a minimum of 1 is required", where="X")
        setup = train(self._bank[sample_rows(count)], count, metric=self.metric)
        codes = None
        if isinstance(X, FeatureBank):
            # On disk they cost no memory, and there rows are slow to reach.
            setup, codes = replace(setup, bytes=True), bank_codes(X)
        self._index = backend.NeighborIndex(
            rows, metric=self.metric, setup=setup, codes=codes, threads=self._threads(), progress=progress
        )
        self.n_samples_fit_, self.n_features_in_ = int(count), int(columns)
        self.effective_metric_, self.device_ = self.metric, "cpu"
        return self

    def _fit_on_device(self, X: Any, number: int, progress: Progress | None) -> NearestNeighbors:
        if isinstance(X, FeatureBank):
            raise InputError(
                "a bank on disk is searched by the CPU", where="X", got=f"device={self.device!r}",
                next_step="Leave device out, or pass bank[:] where the device has the memory",
            )  # fmt: skip
        self._index = DeviceSearch(X if is_on_device(X) else _real_matrix(X, "X"), number, metric=self.metric)
        self.n_samples_fit_, self.n_features_in_ = self._index.shape
        self.effective_metric_, self.device_ = self.metric, f"cuda:{number}"
        if progress is not None:
            progress(self.n_samples_fit_, self.n_samples_fit_)
        return self

    def kneighbors(
        self,
        X: Any = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
        *,
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | NDArray[np.int64]:
        """Find the nearest fitted rows of each query row.

        Parameters
        ----------
        X : (q, d) array of real numbers, or None
            None asks for the neighbours of each fitted row, itself left out. On a CUDA device only where it searches.
        n_neighbors : int or None
            None takes the constructor's.
        return_distance : bool
        progress : callable or None
            Where ``X`` is None, told how many rows of how many are done.

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
        if isinstance(self._index, DeviceSearch):
            distances, indices = (
                self._index.query_all_rows(k + 1, progress)
                if X is None
                else self._index.query(self._queries(X, "kneighbors"), k)
            )
            if X is None:
                distances, indices = leave_out(np.arange(self.n_samples_fit_), distances, indices)
        elif X is None:
            distances, indices = self._index.query_all_rows(k + 1, threads=self._threads(), progress=progress)
            distances, indices = leave_out(np.arange(self.n_samples_fit_), distances, indices)
        else:
            distances, indices = self._index.query(self._queries(X, "kneighbors"), k, threads=self._threads())
        return (distances, indices) if return_distance else indices

    def kneighbors_graph(self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity") -> Any:
        """The neighbours of each query row as a sparse matrix.

        Parameters
        ----------
        X, n_neighbors
            As in :meth:`kneighbors`.
        mode : str
            ``"connectivity"`` (ones) or ``"distance"``.

        Returns
        -------
        scipy.sparse.csr_matrix, (q, n), float64
            The entries of a row from near to far.
        """
        _check_mode(mode)
        distances, indices = self.kneighbors(X, n_neighbors)
        offsets = np.arange(0, indices.size + 1, indices.shape[1])
        return self._graph(offsets, indices.ravel(), distances.ravel(), mode)

    def radius_neighbors(
        self, X: Any = None, radius: float | None = None, return_distance: bool = True, sort_results: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]] | NDArray[Any]:
        """Find all fitted rows within a radius of each query row.

        Parameters
        ----------
        X : (q, d) array of real numbers, or None
            None asks for the neighbours of each fitted row, itself left out.
        radius : float or None
            Largest distance, itself included; None takes the constructor's.
        return_distance : bool
        sort_results : bool
            Accepted as scikit-learn's; they are always sorted, nearest first.

        Returns
        -------
        distances : (q,) array of float64 arrays
            Left out where ``return_distance`` is False.
        indices : (q,) array of int64 arrays

        Raises
        ------
        InputError
            The radius is negative or no number, or ``X`` does not fit.
        """
        if sort_results and not return_distance:
            raise InputError("return_distance must be True if sort_results is True.", where="radius_neighbors")
        offsets, indices, distances = self._within(X, radius)
        parts = np.empty(len(offsets) - 1, object), np.empty(len(offsets) - 1, object)
        for row, (start, end) in enumerate(itertools.pairwise(offsets)):
            parts[0][row], parts[1][row] = distances[start:end], indices[start:end]
        return parts if return_distance else parts[1]

    def radius_neighbors_graph(
        self, X: Any = None, radius: float | None = None, mode: str = "connectivity", sort_results: bool = False
    ) -> Any:
        """The rows within a radius of each query row as a sparse matrix; see :meth:`kneighbors_graph`."""
        _check_mode(mode)
        if sort_results and mode != "distance":
            raise InputError("return_distance must be True if sort_results is True.", where="radius_neighbors_graph")
        offsets, indices, distances = self._within(X, radius)
        return self._graph(offsets, indices, distances, mode)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted index to a new folder, from which :meth:`open` makes it again without its build.

        A matrix in memory is written too; of a bank on disk only its place and digest.

        Raises
        ------
        InputError
            The folder exists, or cannot be written.
        LimitError
            The disk is full; nothing is left then.
        """
        self._check_fitted()
        if isinstance(self._index, DeviceSearch):
            raise self._on_device_only("is not saved")
        write_index(folder, self._bank, self._index, self.get_params(), self.effective_metric_)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> NearestNeighbors:
        """Read an index that :meth:`save` wrote.

        Raises
        ------
        InputError
            There is no index, a file of it is missing or was altered, or its bank is not there or has changed.
        """
        bank, index, parameters, metric = read_index(folder)
        found = cls(**parameters)
        found._bank, found._index, found.effective_metric_, found.device_ = bank, index, metric, "cpu"
        found.n_samples_fit_, found.n_features_in_ = (int(size) for size in bank.shape)
        return found

    # -- what scikit-learn's tools (clone, pipelines, searches) ask of an estimator ---------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - there are no nested estimators
        """The constructor's parameters and their values."""
        return {
            "n_neighbors": self.n_neighbors, "radius": self.radius, "metric": self.metric, "n_jobs": self.n_jobs,
            "device": self.device,
        }  # fmt: skip

    def set_params(self, **parameters: Any) -> NearestNeighbors:
        """Change parameters of the constructor; ``metric`` and ``device`` take effect at the next :meth:`fit`."""
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise InputError(
                    "no such parameter", where=type(self).__name__, got=repr(name), allowed=", ".join(known)
                )
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_index")

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if "_index" in state:
            if isinstance(self._index, DeviceSearch):
                raise self._on_device_only("does not pickle")
            if isinstance(self._bank, FeatureBank):
                raise InputError(
                    "an index of a bank on disk does not pickle", where=type(self).__name__,
                    next_step="save(folder) it, and open(folder) it where it is needed",
                )  # fmt: skip
            index = state.pop("_index")
            state["_parts"] = (index.setup, index.arrays, index.start)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        parts = state.pop("_parts", None)
        vars(self).update(state)
        if parts is not None and not isinstance(self._bank, FeatureBank):
            setup, arrays, start = parts
            self._index = backend.NeighborIndex.from_arrays(
                self._bank, metric=self.effective_metric_, setup=setup, arrays=arrays, start=start
            )

    # -- inside ------------------------------------------------------------------------------------------------------

    def _on_device_only(self, what: str) -> InputError:
        return InputError(
            f"an index on a CUDA device {what}", where=type(self).__name__, got=f"one on {self.device_}",
            next_step="Fit it with device='cpu' on rows of the host",
        )  # fmt: skip

    def _queries(self, X: Any, where: str) -> Any:
        queries = (
            self._index.matrix(X if is_on_device(X) else _real_matrix(X, "X"), "X")
            if isinstance(self._index, DeviceSearch)
            else _real_matrix(X, "X")
        )
        if queries.shape[1] != self.n_features_in_:
            raise InputError(
                f"X has {queries.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input",
                where=where,
            )
        return queries

    def _within(self, X: Any, radius: float | None) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        self._check_fitted()
        if isinstance(self._index, DeviceSearch):
            raise self._on_device_only("answers no radii")
        wanted = self.radius if radius is None else radius
        try:
            reach = float(wanted)
        except (TypeError, ValueError):
            reach = float("nan")
        if not reach >= 0:
            raise InputError("not a radius", where="radius", got=repr(wanted), allowed="0 or more")
        if X is not None:
            return self._index.within(self._queries(X, "radius_neighbors"), reach, threads=self._threads())
        rows = self._bank[:] if isinstance(self._bank, FeatureBank) else self._bank
        offsets, indices, distances = self._index.within(rows, reach, threads=self._threads())
        kept = indices != np.repeat(np.arange(len(rows)), np.diff(offsets))
        return np.concatenate([[0], np.cumsum(kept)])[offsets], indices[kept], distances[kept]

    def _graph(
        self, offsets: NDArray[np.int64], indices: NDArray[np.int64], distances: NDArray[np.float64], mode: str
    ) -> Any:
        import scipy.sparse

        data = distances if mode == "distance" else np.ones(len(indices))
        return scipy.sparse.csr_matrix((data, indices, offsets), shape=(len(offsets) - 1, self.n_samples_fit_))

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
        raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit with a matrix first")


class KNeighborsTransformer(NearestNeighbors):
    """The graph of the nearest neighbours as a step of a pipeline, for estimators that take precomputed neighbours.

    Parameters
    ----------
    mode : str
        ``"distance"`` or ``"connectivity"``.
    n_neighbors, metric, n_jobs, device
        As in :class:`NearestNeighbors`.

    Notes
    -----
    As scikit-learn's: with distances, each row has one neighbour more, because a fitted row is its own first one. So
    ``make_pipeline(KNeighborsTransformer(n_neighbors), TSNE(metric="precomputed", init="random"))`` embeds with exact
    neighbours; t-SNE asks for ``int(3 * perplexity + 1)`` of them.
    """

    def __init__(
        self,
        *,
        mode: str = "distance",
        n_neighbors: int = 5,
        radius: float = 1.0,
        metric: str = "euclidean",
        n_jobs: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(n_neighbors, radius=radius, metric=metric, n_jobs=n_jobs, device=device)
        self.mode = mode

    def transform(self, X: Any) -> Any:
        """The graph of the neighbours of each row of ``X`` among the fitted rows.

        Returns
        -------
        scipy.sparse.csr_matrix, (q, n), float64
        """
        self._check_fitted()
        _check_mode(self.mode)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"), self.mode)

    def fit_transform(self, X: Any, y: None = None) -> Any:
        """:meth:`fit`, then :meth:`transform` of the same rows."""
        self.fit(X, y)
        return self.transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:  # noqa: ARG002 - scikit-learn passes it
        """Names of the columns of the graph: one for each fitted row."""
        self._check_fitted()
        name = type(self).__name__.lower()
        return np.array([f"{name}{row}" for row in range(self.n_samples_fit_)], object)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters and their values."""
        return {"mode": self.mode, **super().get_params(deep)}

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import TransformerTags

        tags = super().__sklearn_tags__()
        tags.transformer_tags = TransformerTags(preserves_dtype=[])
        return tags


def leave_out(
    rows: NDArray[np.int64], distances: NDArray[np.float64], indices: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Drop each query's own row from k + 1 neighbours; the last one where duplicates have crowded it out."""
    keep = indices != rows[:, np.newaxis]
    keep[keep.all(axis=1), -1] = False
    shape = (len(rows), indices.shape[1] - 1)
    return distances[keep].reshape(shape), indices[keep].reshape(shape)


def _check_mode(mode: str) -> None:
    if mode not in ("connectivity", "distance"):
        raise InputError("Unsupported mode", where="mode", got=repr(mode), allowed="'connectivity', 'distance'")


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _real_matrix(X: Any, name: str) -> backend.RealMatrix:
    """The argument as a C-contiguous float32 or float64 matrix, or the reason why it is none."""
    if hasattr(X, "tocsr"):
        raise InputError(
            "sparse data is not supported", where=name, got=type(X).__name__, allowed="a dense array",
            next_step=f"Pass {name}.toarray()",
        )  # fmt: skip
    if is_on_device(X):
        raise InputError(
            "the array is on a CUDA device, and the CPU searches", where=name, got=type(X).__name__,
            allowed="an array of the host", next_step="Copy it there, or fit with device='cuda'",
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
