"""Where the arrays of a device live, and the few things done with them there: made, copied, patched, given to runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxviz import backend
from onnxviz.errors import LimitError
from onnxviz.graph.streamed import aligned_empty
from onnxviz.runtime.devices import Device
from onnxviz.runtime.probing import numpy_dtype
from onnxviz.runtime.sessions import OutOfMemory, Session, Watch

__all__ = ["HOST", "Array", "CudaSpace", "HostSpace", "Space", "space_of"]

Array: TypeAlias = Any
"""A numpy array in the host's space, a ``backend.Buffer`` in a device's."""

Indices = NDArray[np.int64]

_BFLOAT16 = 16
"""Its number in ONNX: numpy has no such type."""


class HostSpace:
    """The host's memory: arrays are numpy's, and nothing has to be carried anywhere."""

    on_host = True

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Memory that holds rubbish at first."""
        return aligned_empty(tuple(shape), dtype)

    def put(self, array: NDArray[Any]) -> Array:
        """An array of the host, in this space."""
        return array

    def rows(self, array: NDArray[Any], start: int, stop: int) -> Array:
        """Some rows, from the first axis; nothing is copied."""
        return array[start:stop]

    def shaped(self, memory: NDArray[Any], shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The first of some bytes as an array; nothing is copied."""
        wanted = math.prod(shape) * dtype.itemsize
        return memory[:wanted].view(dtype).reshape(shape)

    def write(self, into: NDArray[Any], source: NDArray[Any]) -> None:
        """Copy an array of the host, or of this space, of the same size."""
        into[:] = source

    fill_occluded = staticmethod(backend.fill_occluded)
    overlay_windows = staticmethod(backend.overlay_windows)

    def bind_input(self, binding: onnxruntime.IOBinding, name: str, array: NDArray[Any]) -> None:
        """Have runs read an array where it is; the caller keeps it alive."""
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def bind_output(self, binding: onnxruntime.IOBinding, name: str) -> None:
        """Have onnxruntime make an output in this space."""
        binding.bind_output(name, "cpu")

    def output(self, value: onnxruntime.OrtValue) -> Array:
        """What onnxruntime has made, where it is."""
        return value.numpy()

    def run(self, session: Session, outputs: Sequence[str], feeds: Mapping[str, Any], watch: Watch) -> list[Array]:
        """Run on arrays of this space, and leave the results in it."""
        return session.run_watched(outputs, feeds, watch)

    run_to_host = run

    def to_host(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array of this space, on the host."""
        return array


class CudaSpace:
    """A CUDA device's memory. onnxruntime and our kernels work in it one behind the other, on one stream."""

    on_host = False

    def __init__(self, device: Device, stream: backend.Stream) -> None:
        self._memory, self._number, self.stream = device.memory, stream.device, stream
        self._in_order = "user_compute_stream" in device.provider_options
        self._borders: dict[bytes, backend.Buffer] = {}

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Memory that holds rubbish at first.

        Raises
        ------
        OutOfMemory
            The device has too little.
        """
        try:
            return backend.Buffer(shape, dtype.name, self._number)
        except LimitError as error:
            raise _out_of_memory(error) from error

    def put(self, array: NDArray[Any]) -> Array:
        """A copy of an array of the host, in this space.

        Raises
        ------
        OutOfMemory
            The device has too little.
        """
        try:
            return backend.Buffer.from_host(array, self.stream)
        except LimitError as error:
            raise _out_of_memory(error) from error

    def rows(self, array: backend.Buffer, start: int, stop: int) -> Array:
        """Some rows, from the first axis; nothing is copied."""
        return backend.Part.rows(array, start, stop)

    def shaped(self, memory: backend.Buffer, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The first of some bytes as an array; nothing is copied."""
        return backend.Part.shaped(memory, shape, dtype.name)

    def write(self, into: backend.Buffer, source: Array) -> None:
        """Copy an array of the host, or of this space, of the same size."""
        if isinstance(source, np.ndarray):
            source = self.put(source)
        backend.copy_on_device(source, into, self.stream)
        self.settle()

    def fill_occluded(
        self, image: backend.Buffer, fill: backend.Buffer, boxes: Indices, batch: backend.Buffer, *,
        channels_last: bool, previous: Indices | None = None, threads: int = 0,  # noqa: ARG002 - a device has its own
    ) -> None:  # fmt: skip
        """As :func:`onnxviz.backend.fill_occluded`, on the device."""
        backend.fill_occluded_on_device(
            image, fill, boxes, batch, channels_last=channels_last, previous=previous, stream=self.stream
        )
        self.settle()

    def overlay_windows(
        self, original: backend.Buffer, source: backend.Buffer, placements: Indices, windows: backend.Buffer, *,
        border: NDArray[Any] | None = None, **shape: Any,
    ) -> None:  # fmt: skip
        """As :func:`onnxviz.backend.overlay_windows`, on the device."""
        backend.overlay_windows_on_device(
            original, source, placements, windows, border=self._border(border), stream=self.stream, **shape
        )
        self.settle()

    def _border(self, pixel: NDArray[Any] | None) -> backend.Buffer | None:
        if pixel is None:
            return None
        key = pixel.tobytes()
        if key not in self._borders:
            self._borders[key] = self.put(pixel)
        return self._borders[key]

    def bind_input(self, binding: onnxruntime.IOBinding, name: str, array: Array) -> None:
        """Have runs read an array where it is, on the device or on the host; the caller keeps it alive."""
        if isinstance(array, np.ndarray):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            return
        element = _BFLOAT16 if array.dtype == "bfloat16" else np.dtype(array.dtype).type
        binding.bind_input(name, *self._memory, element, list(array.shape), array.pointer)

    def bind_output(self, binding: onnxruntime.IOBinding, name: str) -> None:
        """Have onnxruntime make an output on the device."""
        binding.bind_output(name, *self._memory)

    def output(self, value: onnxruntime.OrtValue) -> Array:
        """What onnxruntime has made, where it is."""
        dtype = numpy_dtype(value.data_type().removeprefix("tensor(").removesuffix(")")).name
        return backend.Part(value.data_ptr(), value.shape(), dtype, self._number, value)

    def run(self, session: Session, outputs: Sequence[str], feeds: Mapping[str, Array], watch: Watch) -> list[Array]:
        """Run on arrays of this space (small ones may be the host's), and leave the results in it."""
        binding = self._bound(session, feeds)
        for name in outputs:
            self.bind_output(binding, name)
        session.run_bound(binding, watch)
        return [self.output(value) for value in binding.get_outputs()]

    def run_to_host(
        self, session: Session, outputs: Sequence[str], feeds: Mapping[str, Array], watch: Watch
    ) -> list[NDArray[Any]]:
        """Run on arrays of this space, and bring the results to the host."""
        binding = self._bound(session, feeds)
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_bound(binding, watch)
        return [value.numpy() for value in binding.get_outputs()]

    def to_host(self, array: backend.Buffer) -> NDArray[Any]:
        """A copy of an array of this space, on the host."""
        return array.to_host(self.stream)

    def _bound(self, session: Session, feeds: Mapping[str, Array]) -> onnxruntime.IOBinding:
        binding = session.io_binding()
        for name, array in feeds.items():
            self.bind_input(binding, name, array)
        return binding

    def settle(self) -> None:
        """Wait for our kernels, where what onnxruntime does next would not come behind them by itself."""
        if not self._in_order:
            self.stream.synchronize()


Space: TypeAlias = HostSpace | CudaSpace

HOST = HostSpace()


def space_of(device: Device) -> Space:
    """Where batches and maps of a device are made."""
    return HOST if device.stream is None else CudaSpace(device, device.stream)


def _out_of_memory(error: LimitError) -> OutOfMemory:
    return OutOfMemory(error.what, where=error.where, got=error.got, allowed=error.allowed, next_step=error.next_step)
