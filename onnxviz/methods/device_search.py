"""Rows on a CUDA device, or on their way to one, come in; who is nearest among them is answered there, exactly."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import InputError
from onnxviz.methods.index_training import sample_rows, train
from onnxviz.runtime.devices import stream_of

__all__ = ["DeviceSearch", "is_on_device", "search_device"]

_DLPACK_CUDA = (2, 13)
"""What DLPack calls memory of a CUDA device, and memory that it shares with the host."""


def is_on_device(X: Any) -> bool:
    """Whether an array lies on a CUDA device: a buffer of ours, or an array of torch, cupy and the like."""
    if isinstance(X, np.ndarray):
        return False
    if isinstance(X, backend.Buffer) or hasattr(X, "__cuda_array_interface__"):
        return True
    return hasattr(X, "__dlpack_device__") and X.__dlpack_device__()[0] in _DLPACK_CUDA


def search_device(device: str | None, X: Any) -> int | None:
    """Number of the CUDA device that is to search; None for the CPU.

    Parameters
    ----------
    device : str or None
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None: where the rows are.
    X : array, or FeatureBank
        The rows.

    Raises
    ------
    InputError
        Another name, or rows that are on a device where the CPU is to search.
    """
    there = is_on_device(X)
    if device is None:
        return _number_of(X) if there else None
    if device == "cpu":
        if there:
            raise InputError(
                "the rows are on a CUDA device, and the CPU is to search", where="device", got="'cpu'",
                next_step="Leave device out, or copy the rows to the host",
            )  # fmt: skip
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", str(device))
    if match is None:
        raise InputError("unknown device", where="device", got=repr(device), allowed="None, 'cpu', 'cuda', 'cuda:N'")
    return int(match.group(1) or 0)


def _number_of(X: Any) -> int:
    if isinstance(X, backend.Buffer):
        return X.device
    # The other protocol does not say; where its array is on another device, looking at it is refused.
    return int(X.__dlpack_device__()[1]) if hasattr(X, "__dlpack_device__") else 0


class DeviceSearch:
    """An exact index on a CUDA device.

    Parameters
    ----------
    X : (n, d) float32 or float64, on the host or on the device
        Rows of the host are carried there; those of the device are used where they are.
    number : int
        Of the device.
    metric : str

    Raises
    ------
    DeviceError
        There is no such device, or no kernels in this build.
    InputError
        Rows that are no such matrix, on another device, or with NaN or infinity.
    LimitError
        The device has too little memory.
    """

    def __init__(self, X: Any, number: int, *, metric: str) -> None:
        backend.require_device("NearestNeighbors", number)
        self.number = number
        self._stream = stream_of(number)
        self._rows = self.matrix(X, "X")
        self.shape = self._rows.shape
        # A sample of rows is all of a bank that the host sees.
        setup = train(self._sample(), self.shape[0], metric=metric)
        self._index = backend.CudaNeighborIndex(self._rows, metric=metric, setup=setup, stream=self._stream)

    def query(self, queries: backend.Buffer, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The nearest rows of each row of a :meth:`matrix`: distances and row numbers, on the host."""
        return self._to_host(self._index.query(queries, k, stream=self._stream))

    def query_all_rows(
        self, k: int, progress: Callable[[int, int], None] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The nearest rows of each row, itself among them."""
        return self._to_host(self._index.query_all_rows(k, stream=self._stream, progress=progress))

    def _to_host(self, found: tuple[backend.Buffer, backend.Buffer]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        distances, indices = (buffer.to_host(self._stream) for buffer in found)
        return distances, indices

    def matrix(self, X: Any, name: str) -> backend.Buffer:
        """The array as a float32 or float64 matrix on the device, or the reason why it is none."""
        if not is_on_device(X):
            return backend.Buffer.from_host(X, self._stream)
        found = backend.device_array(X, self._stream, where=name)
        if len(found.shape) != 2 or 0 in found.shape:
            raise InputError("Expected 2D array", where=name, got=f"shape {found.shape}", allowed="(rows, features)")
        if found.dtype not in ("float32", "float64"):
            raise InputError(
                "the elements of an array on a device have to be of another type", where=name, got=found.dtype,
                allowed="float32, float64", next_step="Convert it there first",
            )  # fmt: skip
        return backend.Part(found.pointer, found.shape, found.dtype, found.device, found.owner)

    def _sample(self) -> NDArray[Any]:
        """Rows spread evenly over the bank, on the host."""
        chosen = sample_rows(self.shape[0])
        sample = backend.Buffer((len(chosen), self.shape[1]), self._rows.dtype, self.number)
        for place, row in enumerate(chosen.tolist()):
            source = backend.Part.rows(self._rows, row, row + 1)
            backend.copy_on_device(source, backend.Part.rows(sample, place, place + 1), self._stream)
        return sample.to_host(self._stream)
