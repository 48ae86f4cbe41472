"""A bank of vectors on a CUDA device comes in; an index that answers there exactly who is nearest goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxviz import _cuda
from onnxviz.backend.cuda_memory import Buffer, DeviceArray, Stream, device_array, failures, require_device
from onnxviz.backend.neighbors import IndexSetup
from onnxviz.errors import InputError

__all__ = ["CudaNeighborIndex"]

_WHERE = "neighbours"


class CudaNeighborIndex:
    """The rows of one matrix on a device, made ready to be asked for exact nearest neighbours.

    Parameters
    ----------
    bank : (n, d) float32 or float64, on the device
        Anything that :func:`device_array` takes. It is viewed, never copied, and has to stay unchanged.
    metric : str
        ``"euclidean"`` or ``"cosine"``, as :class:`NeighborIndex` has them.
    stream : Stream
        Says which device; the index is made on it.
    setup : IndexSetup or None
        ``projected`` and ``nibbles`` are not used: all directions of ``basis``, at most 1,024, make one level, which
        comes first where a trial with some of the rows says that it pays. None compares eight bits of
        every column, which wants rows whose largest numbers are not far from 1.

    Raises
    ------
    DeviceError
        No device can be used.
    InputError
        No rows, an unknown metric, memory elsewhere, or a row with NaN, infinity or a number beyond 1e150 (the row is
        named).
    LimitError
        The device has too little memory, see :meth:`nbytes`.

    Notes
    -----
    Neighbours and distances are those of :class:`NeighborIndex`, bit for bit: the same float64 sums decide, the same
    ties go to the lower row number (``csrc/include/onnxviz/neighbors.h``, ``docs/decisions/0008-cuda-neighbours.md``).
    """

    def __init__(self, bank: Any, *, metric: str, stream: Stream, setup: IndexSetup | None = None) -> None:
        require_device(_WHERE)
        self._bank = _matrix(bank, stream, "bank")
        rows, columns = self._bank.shape
        if rows < 1 or columns < 1:
            raise InputError("the bank has no rows or no columns", where=_WHERE, got=str(self._bank.shape))
        if setup is None:
            zeros = np.zeros(columns)
            setup = IndexSetup(zeros, zeros, 1.0, np.zeros((0, columns), np.float32))
        self.setup = setup
        with failures(_WHERE, stream.device, self.nbytes(rows, columns, len(setup.basis), metric)):
            self._index = _cuda.NeighborIndex(
                self._bank.pointer, rows, columns, self._bank.dtype, metric,
                np.ascontiguousarray(setup.mean, np.float64), np.ascontiguousarray(setup.reference, np.float64),
                setup.scale, np.ascontiguousarray(setup.basis, np.float32), stream.device, stream.handle,
            )  # fmt: skip

    @staticmethod
    def nbytes(rows: int, columns: int, directions: int = 0, metric: str = "euclidean") -> int:
        """Bytes of the device that an index takes beside its bank.

        Raises
        ------
        InputError
            An unknown metric.
        DeviceError
            This build has no CUDA kernels.
        """
        with failures(_WHERE):
            return _cuda.neighbor_index_bytes(rows, columns, directions, metric)

    def search_nbytes(self, queries: int, k: int) -> int:
        """Bytes of the device that a search takes beside the index."""
        return _cuda.neighbor_search_bytes(self._index.rows, self._index.columns, self._index.directions, queries, k)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the bank."""
        return self._index.rows, self._index.columns

    @property
    def start(self) -> tuple[bool, bool]:
        """Whether projections come first: for up to eight queries, and for more."""
        return self._index.start

    @start.setter
    def start(self, start: tuple[bool, bool]) -> None:
        with failures(_WHERE):
            self._index.start = start

    def query(self, queries: Any, k: int, *, stream: Stream) -> tuple[Buffer, Buffer]:
        """Find the ``k`` nearest rows of each query; done on return.

        Parameters
        ----------
        queries : (q, d) float32 or float64, on the device
        k : int
            1 to the number of rows in the bank.
        stream : Stream

        Returns
        -------
        distances : (q, k) float64 Buffer
            Nearest first.
        indices : (q, k) int64 Buffer
            Row numbers in the bank.

        Raises
        ------
        InputError
            ``k`` out of range, another number of columns than the bank has, memory elsewhere, or NaN or infinity in a
            row (it is named).
        LimitError
            The device has too little memory.
        """
        found = _matrix(queries, stream, "queries")
        rows, columns = found.shape
        self._check_device(stream)
        distances, indices = self._answers(rows, k, stream)
        with failures(_WHERE, stream.device):
            self._index.query(
                found.pointer, rows, columns, found.dtype, k, distances.pointer, indices.pointer, stream.device,
                stream.handle,
            )  # fmt: skip
        return distances, indices

    def query_all_rows(
        self, k: int, *, stream: Stream, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Buffer, Buffer]:
        """Find the ``k`` nearest rows of each row of the bank; each finds itself, too.

        ``progress`` is told how many rows of how many are done; what it raises ends the search.
        Returns, raises: as :meth:`query`.
        """
        self._check_device(stream)
        distances, indices = self._answers(self._index.rows, k, stream)
        with failures(_WHERE, stream.device):
            self._index.query_all_rows(k, distances.pointer, indices.pointer, stream.device, stream.handle, progress)
        return distances, indices

    def _answers(self, rows: int, k: int, stream: Stream) -> tuple[Buffer, Buffer]:
        # A wrong k is refused by the index, which knows the sentence.
        shape = (rows, max(0, min(k, self._index.rows)))
        return Buffer(shape, "float64", stream.device), Buffer(shape, "int64", stream.device)

    def _check_device(self, stream: Stream) -> None:
        if stream.device != self._bank.device:
            raise InputError(
                "the bank is on another device than the stream", where=_WHERE, got=f"device {stream.device}",
                allowed=f"device {self._bank.device}",
            )  # fmt: skip


def _matrix(array: Any, stream: Stream, where: str) -> DeviceArray:
    found = device_array(array, stream, where=where)
    if len(found.shape) != 2:
        raise InputError("not rows and columns", where=where, got=f"shape {found.shape}", allowed="2 axes")
    return found
