"""A session and a batch size come in; a reused batch, bound to the session, goes out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.streamed import aligned_empty
from onnxviz.runtime.sessions import Session, Watch
from onnxviz.runtime.spaces import HOST, Array, Space

__all__ = ["BoundBatch"]


class BoundBatch:
    """A batch that onnxruntime reads in place.

    Either write encoded images into the host's ``buffer`` and ``run_rows(buffer[:n])``; or have the functions of
    ``space`` write them into ``room(n)``, which may be a device's memory, and ``run(n)``. What comes back belongs to
    onnxruntime and is valid until the next run; copy what has to last.

    Parameters
    ----------
    session : Session
    input_name : str
    shape : (batch, *input shape)
    dtype : dtype
    outputs : sequence of str
    space : Space
        Where the batch is made.
    results : Space
        Where the outputs are left.
    """

    def __init__(
        self,
        session: Session,
        *,
        input_name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        outputs: Sequence[str],
        space: Space,
        results: Space,
    ) -> None:
        self._shape, self._dtype = shape, dtype
        self.deadline: float | None = None
        """``time.monotonic`` second after which a run is stopped."""
        self.space = space
        self._results = results
        self._session = session
        self._input_name = input_name
        self._outputs = tuple(outputs)
        self._binding = session.io_binding()
        self._room: Array = None
        self._bound = 0

    @cached_property
    def buffer(self) -> NDArray[Any]:
        """(batch, *input shape), the model's own dtype and layout; made when it is first written to."""
        return aligned_empty(self._shape, self._dtype)

    def room(self, n: int) -> Array:
        """Memory in ``space`` for the first ``n`` rows; what was written there stays, unless more rows are asked for.

        Raises
        ------
        OutOfMemory
            The device has too little.
        """
        if self.space.on_host:
            return self.buffer[:n]
        if self._room is None or self._room.shape[0] < n:
            # Not at once for the whole batch: it may be a smaller one because that did not fit.
            self._room, self._bound = None, 0
            self._room = self.space.empty((n, *self._shape[1:]), self._dtype)
        return self.space.rows(self._room, 0, n)

    def run(self, n: int) -> dict[str, Array]:
        """Run on the first ``n`` rows of the room; output name to array, rows in the same order."""
        if n != self._bound:
            self.space.bind_input(self._binding, self._input_name, self.room(n))
            self._bound = n
        return self._run()

    def run_rows(self, rows: NDArray[Any]) -> dict[str, Array]:
        """Run on C-contiguous encoded images of the host, where they are."""
        HOST.bind_input(self._binding, self._input_name, rows)
        self._bound = 0
        return self._run()

    def _run(self) -> dict[str, Array]:
        # Outputs are bound anew each time: their shape may depend on the batch, so onnxruntime allocates them.
        self._binding.clear_binding_outputs()
        for name in self._outputs:
            self._results.bind_output(self._binding, name)
        with Watch(self.deadline) as watch:
            self._session.run_bound(self._binding, watch)
        values = self._binding.get_outputs()
        return {name: self._results.output(value) for name, value in zip(self._outputs, values, strict=True)}
