"""A session and a batch size come in; one reused input buffer, bound to the session, goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxviz.runtime.sessions import Session

__all__ = ["BoundBatch", "aligned_empty"]

_ALIGNMENT = 64  # bytes: a whole cache line, so that vector loads never straddle two


class BoundBatch:
    """A batch buffer that onnxruntime reads in place.

    Write encoded images into ``buffer[:n]``, then ``run(n)``. The arrays that come back belong to onnxruntime and are
    valid until the next run; copy what has to last.
    """

    def __init__(
        self,
        session: Session,
        *,
        input_name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        outputs: Sequence[str],
    ) -> None:
        self._shape, self._dtype = shape, dtype
        self.deadline: float | None = None
        """``time.monotonic`` second after which a run is stopped."""
        self._session = session
        self._input_name = input_name
        self._outputs = tuple(outputs)
        self._binding = session.io_binding()
        self._bound = 0

    @cached_property
    def buffer(self) -> NDArray[Any]:
        """(batch, *input shape), the model's own dtype and layout; made when it is first written to."""
        return aligned_empty(self._shape, self._dtype)

    def run(self, n: int) -> dict[str, NDArray[Any]]:
        """Run on the first ``n`` rows of the buffer; output name to array, rows in the same order."""
        if n != self._bound:
            self._binding.bind_ortvalue_input(
                self._input_name, onnxruntime.OrtValue.ortvalue_from_numpy(self.buffer[:n])
            )
            self._bound = n
        return self._run()

    def run_rows(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run on C-contiguous encoded images where they are, without a copy into the buffer."""
        self._binding.bind_ortvalue_input(self._input_name, onnxruntime.OrtValue.ortvalue_from_numpy(rows))
        self._bound = 0
        return self._run()

    def _run(self) -> dict[str, NDArray[Any]]:
        # Outputs are bound anew each time: their shape may depend on the batch, so onnxruntime allocates them.
        self._binding.clear_binding_outputs()
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")
        self._session.run_bound(self._binding, self.deadline)
        values = self._binding.get_outputs()
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Memory for an array that begins at a cache line."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
