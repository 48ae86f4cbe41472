"""A bank of vectors comes in, in memory or in files; an index that answers exactly who is nearest goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxviz import _core
from onnxviz.backend.build import cpu_level
from onnxviz.errors import InputError

__all__ = ["IndexSetup", "NeighborIndex", "RealMatrix", "RowFiles", "aligned"]

RealMatrix: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

# Between two blocks Python gets to see a Ctrl-C, and to say how far it is.
_QUERIES_PER_CALL = 1024
_BYTES_PER_ENCODING = 64 << 20
# The core's own limit: squares of larger numbers could overflow when they are summed.
_LARGEST_NUMBER = 1e150
_CACHE_LINE = 64


@dataclass(frozen=True)
class RowFiles:
    """Rows of one matrix in files, C-contiguous, in this machine's byte order."""

    files: tuple[tuple[str, int, int], ...]
    """Path, offset of the first row in bytes, and number of rows of each."""
    columns: int
    dtype: np.dtype[Any]
    """float32 or float64."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return sum(rows for _, _, rows in self.files), self.columns


@dataclass(frozen=True)
class IndexSetup:
    """What makes an index fast: any will give the same neighbours."""

    mean: NDArray[np.float64]
    """(d,) of the rows."""
    reference: NDArray[np.float64]
    """(d,) what is taken off every row before it is encoded: zeros, or the mean for rows far from the origin."""
    scale: float
    """Power of two that brings the rows, less the reference, near 1."""
    basis: NDArray[np.float32]
    """(m, d) nearly orthonormal directions, largest variance first; m may be 0."""
    projected: tuple[tuple[int, int], ...] = ()
    """Levels that rows are first compared by: where the directions of each end, ascending, at most m; their bits."""
    nibbles: bool = False
    """Whether four bits of every column come before the eight."""
    bytes: bool = True
    """Whether eight bits of every column are kept; if not, the four decide what the rows themselves are read for."""


class NeighborIndex:
    """The rows of one matrix, made ready to be asked for exact nearest neighbours.

    Parameters
    ----------
    bank : (n, d) float32 or float64, or RowFiles
        An array is copied once where it is not C-contiguous, else viewed: it has to stay unchanged, as files have.
    metric : str
        ``"euclidean"``, or ``"cosine"`` (1 - cos, in float64 on normalised rows; a row of zeros is at distance 1 from
        every row, itself included).
    setup : IndexSetup or None
        None compares eight bits of every column.
    codes : array of uint8 or None
        Memory for the eight bits of every column, of :meth:`codes_shape`, such as a mapped file: random reads of it are
        avoided then. None takes it from the process.
    threads : int
        0 for all cores.
    progress : callable or None
        Told how many rows of how many are encoded.

    Raises
    ------
    InputError
        No rows, an unknown metric, or a row with NaN, infinity or a number beyond 1e150 (the row is named).
    DeviceError
        The environment variable ``ONNXVIZ_CPU`` names an instruction set that cannot be used.

    Notes
    -----
    Distances are sums of squared differences in float64; neighbours are ordered by that distance, then by the lower row
    number. Which rows need it, integer codes with proven bounds decide: no answer depends on them, nor on the number of
    threads, nor on the instruction set (``csrc/cpu/levels.h``, ``docs/decisions/0005-exact-neighbours.md``).
    """

    def __init__(
        self,
        bank: RealMatrix | RowFiles,
        *,
        metric: str,
        setup: IndexSetup | None = None,
        codes: NDArray[np.uint8] | None = None,
        threads: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        cpu_level()
        self._open(bank, metric, setup, {} if codes is None else {"bytes.codes": codes}, resident=codes is None)
        rows = self._index.rows
        step = max(64, _BYTES_PER_ENCODING // (8 * self._index.columns))
        try:
            for first in range(0, rows, step):
                if progress is not None:
                    progress(first, rows)
                self._index.encode(first, min(step, rows - first), threads)
        except ValueError as error:
            raise InputError(str(error), where="neighbours") from error
        self._index.choose_start(threads)
        if progress is not None:
            progress(rows, rows)

    def _open(
        self,
        bank: RealMatrix | RowFiles,
        metric: str,
        setup: IndexSetup | None,
        arrays: Mapping[str, NDArray[Any]],
        *,
        resident: bool,
    ) -> None:
        rows, columns = bank.shape
        if rows < 1 or columns < 1:
            raise InputError("the bank has no rows or no columns", where="neighbours", got=str(bank.shape))
        if setup is None:
            setup = _plain_setup(bank)
        self.setup = setup
        self.arrays: dict[str, NDArray[Any]] = {}
        """The memory of the index by name, to be saved and given back to :meth:`from_arrays`."""

        def array(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
            known = arrays.get(name)
            # What somebody has mapped for reading only is copied: the core asks for memory that it may write to. So is
            # what a pickle has put anywhere.
            if known is None or not known.flags.writeable or known.ctypes.data % _CACHE_LINE:
                fresh = aligned(shape, dtype)
                if known is not None:
                    fresh[...] = known
                known = fresh
            self.arrays[name] = known
            return known

        def level(name: str, width: int, bits: int) -> _core.LevelArrays:
            return _core.LevelArrays(
                columns=width,
                bits=bits,
                random_access=name != "bytes" or resident,
                first_direction=None,
                codes=array(f"{name}.codes", (rows, _core.row_bytes(width, bits)), np.uint8),
                norm=array(f"{name}.norm", (rows,), np.float64),
                sum=array(f"{name}.sum", (rows,), np.float64),
                scale=array(f"{name}.scale", (rows,), np.float32),
                zero=array(f"{name}.zero", (rows,), np.float32),
                radius=array(f"{name}.radius", (rows,), np.float32),
            )

        def projected(first: int, end: int, bits: int) -> _core.LevelArrays:
            name = f"projected{end}"
            return _core.LevelArrays(
                columns=end - first,
                bits=bits,
                random_access=True,
                first_direction=first,
                codes=array(f"{name}.codes", (rows, _core.row_bytes(end - first, bits)), np.uint8),
                parts=array(f"{name}.parts", (rows, 4), np.float32),
                origins=array(f"{name}.origins", (rows, 2), np.float32) if first == 0 else None,
            )

        firsts = [0, *(end for end, _ in setup.projected)]
        levels = [projected(first, end, bits) for first, (end, bits) in zip(firsts, setup.projected, strict=False)]
        if setup.nibbles:
            levels.append(level("nibbles", columns, 4))
        if setup.bytes or not setup.nibbles:
            levels.append(level("bytes", columns, 8))
        directions = array("directions", (rows, 2), np.float64) if metric == "cosine" else None
        parts = (metric, setup.mean, setup.reference, setup.scale, setup.basis, levels, directions)
        try:
            if isinstance(bank, RowFiles):
                self._index = _core.NeighborIndex(list(bank.files), columns, bank.dtype == np.float64, *parts)
            else:
                self._index = _core.NeighborIndex(_contiguous(bank), *parts)
        except (ValueError, RuntimeError) as error:
            raise InputError(str(error), where="neighbours") from error

    @classmethod
    def from_arrays(
        cls,
        bank: RealMatrix | RowFiles,
        *,
        metric: str,
        setup: IndexSetup,
        arrays: Mapping[str, NDArray[Any]],
        start: tuple[int, int, int],
        resident: bool = True,
    ) -> NeighborIndex:
        """An index from what an earlier one of the same bank kept: ``setup``, ``arrays`` and ``start``.

        ``resident`` is False where the array ``"bytes.codes"`` is slow to reach at random, as in a mapped file.
        """
        cpu_level()
        index = cls.__new__(cls)
        index._open(bank, metric, setup, arrays, resident=resident)
        try:
            index._index.start = start
        except ValueError as error:
            raise InputError(str(error), where="neighbours") from error
        return index

    @staticmethod
    def codes_shape(rows: int, columns: int) -> tuple[int, int]:
        """Shape of the uint8 array that eight bits of every column need."""
        return rows, _core.row_bytes(columns, 8)

    @property
    def start(self) -> tuple[int, int, int]:
        """Numbers of the levels that one query, many queries, and one query unlike the rows start at."""
        return self._index.start

    @start.setter
    def start(self, start: tuple[int, int, int]) -> None:
        self._index.start = start

    def query(self, queries: RealMatrix, k: int, *, threads: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the ``k`` nearest rows of each query.

        Parameters
        ----------
        queries : (q, d) float32 or float64
        k : int
            1 to the number of rows in the bank.
        threads : int
            0 for all cores.

        Returns
        -------
        distances : (q, k) float64
            Nearest first.
        indices : (q, k) int64
            Row numbers in the bank.

        Raises
        ------
        InputError
            ``k`` out of range, another number of columns than the bank has, or NaN or infinity in a row (it is named).
        """
        rows = _contiguous(queries)
        distances = np.empty((len(rows), max(k, 0)), np.float64)
        indices = np.empty((len(rows), max(k, 0)), np.int64)
        # One call even without queries, so that a wrong k or number of columns is always refused.
        for start in range(0, max(len(rows), 1), _QUERIES_PER_CALL):
            block = slice(start, start + _QUERIES_PER_CALL)
            try:
                distances[block], indices[block] = self._index.query(rows[block], k, threads)
            except (ValueError, RuntimeError) as error:
                raise _query_error(error, rows, start) from error
        return distances, indices

    def query_all_rows(
        self, k: int, *, threads: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the ``k`` nearest rows of each row of the bank; each finds itself, too.

        Returns, raises: as :meth:`query`.
        """
        try:
            return self._index.query_all_rows(k, threads, progress)
        except (ValueError, RuntimeError) as error:
            raise InputError(str(error), where="neighbours") from error

    def within(
        self, queries: RealMatrix, radius: float, *, threads: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Find all rows at a distance of at most ``radius``.

        Parameters
        ----------
        queries : (q, d) float32 or float64
        radius : float
            0 or more.
        threads : int
            0 for all cores.

        Returns
        -------
        offsets : (q + 1,) int64
            The rows of query i are those from ``offsets[i]`` to ``offsets[i + 1]`` of the other two.
        indices : int64
            Row numbers in the bank, nearest first.
        distances : float64

        Raises
        ------
        InputError
            A negative radius, or as in :meth:`query`.
        """
        rows = _contiguous(queries)
        offsets = [np.zeros(1, np.int64)]
        indices, distances = [], []
        for start in range(0, max(len(rows), 1), _QUERIES_PER_CALL):
            try:
                ends, found, far = self._index.within(rows[start : start + _QUERIES_PER_CALL], radius, threads)
            except (ValueError, RuntimeError) as error:
                raise _query_error(error, rows, start) from error
            offsets.append(ends[1:] + offsets[-1][-1])
            indices.append(found)
            distances.append(far)
        return np.concatenate(offsets), np.concatenate(indices), np.concatenate(distances)


def _query_error(error: Exception, rows: RealMatrix, start: int) -> InputError:
    # The core counts rows from the start of the block that it was given.
    largest = min(_LARGEST_NUMBER, float(np.finfo(rows.dtype).max))
    unfit = np.flatnonzero(~(np.abs(rows[start : start + _QUERIES_PER_CALL]) <= largest).all(axis=1))
    text = str(error)
    if len(unfit):
        text = f"row {start + int(unfit[0])} of the queries holds NaN, infinity or a number beyond {_LARGEST_NUMBER:g}"
    return InputError(text, where="neighbours")


def _contiguous(matrix: RealMatrix) -> RealMatrix:
    if matrix.dtype == np.float32:
        return np.ascontiguousarray(matrix, dtype=np.float32)
    return np.ascontiguousarray(matrix, dtype=np.float64)


def aligned(shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Memory that begins with a cache line: vectors that straddle two are read at half the speed."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    offset = -memory.ctypes.data % _CACHE_LINE
    return np.asarray(memory[offset : offset + size].view(dtype).reshape(shape))


def _plain_setup(bank: RealMatrix | RowFiles) -> IndexSetup:
    columns = bank.shape[1]
    scale = 1.0
    if not isinstance(bank, RowFiles):
        sample = np.abs(bank[:: max(1, len(bank) // 256)]).astype(np.float64)
        largest = float(np.max(sample, initial=0.0, where=np.isfinite(sample)))
        scale = power_of_two_below(largest)
    zeros = np.zeros(columns)
    return IndexSetup(zeros, zeros, scale, np.zeros((0, columns), np.float32))


def power_of_two_below(largest: float) -> float:
    """The power of two that brings ``largest`` to between 1/2 and 1, within the core's limits."""
    if not largest > 0:
        return 1.0
    return float(2.0 ** np.clip(-np.frexp(largest)[1], -499, 400))
