"""Arrays on a CUDA device: our own, which others may read without a copy, and those of others, which kernels may read.

Work is queued on a :class:`Stream` and may still be waiting when a function returns. Who reads a :class:`Buffer` by
DLPack or ``__cuda_array_interface__`` waits for the stream that it was last written on, as both protocols ask for.
Nobody is told who still reads one: before it is written again, wait for the streams that do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import _cuda
from onnxviz.errors import DeviceError, InputError, LimitError

__all__ = ["Buffer", "DeviceArray", "Stream", "device_array", "require_device"]

# What DLPack calls them: code and bits.
_DTYPES = {
    "int8": (0, 8), "int16": (0, 16), "int32": (0, 32), "int64": (0, 64),
    "uint8": (1, 8), "uint16": (1, 16), "uint32": (1, 32), "uint64": (1, 64),
    "float16": (2, 16), "float32": (2, 32), "float64": (2, 64),
    "bfloat16": (4, 16),
    "bool": (6, 8),
}  # fmt: skip
_NAMES = {code: name for name, code in _DTYPES.items()}

_CPU, _CUDA, _CUDA_HOST = 1, 2, 3
_DEFAULT_STREAM = 1


def require_device(where: str, device: int = 0) -> None:
    """Refuse to go on where no device, or not this one, can be used.

    Raises
    ------
    DeviceError
        In one sentence: what is missing, and how to get it.
    """
    if not _cuda.compiled():
        raise DeviceError(
            "this needs CUDA kernels, which are not in this build of onnxviz", where=where,
            got=_cuda.why_not_compiled(), allowed="a build by a CUDA toolkit, 12.0 or later",
            next_step="Put nvcc on PATH and run `ONNXVIZ_CUDA=ON pip install .` in the sources of onnxviz",
        )  # fmt: skip
    reason = _cuda.status()
    if reason:
        raise DeviceError(
            "this needs a CUDA device, and none can be used", where=where, got=reason,
            allowed="an NVIDIA GPU of compute capability 7.5 or later, with its driver",
            next_step="Install NVIDIA's driver; onnxruntime also needs `pip install 'onnxviz[cuda]'`",
        )  # fmt: skip
    if not 0 <= device < _cuda.device_count():
        raise DeviceError(
            "there is no such CUDA device", where=where, got=str(device), allowed=f"0 to {_cuda.device_count() - 1}",
            next_step="`onnxviz.build_config()` says what was found",
        )  # fmt: skip


@contextlib.contextmanager
def failures(where: str, device: int = 0, nbytes: int = 0) -> Iterator[None]:
    """Errors of the compiled module as errors of ours: of the device, of its memory, or of what it was given."""
    try:
        yield
    except MemoryError as error:
        free, total = _cuda.memory_info(device)
        raise LimitError(
            "the memory of the CUDA device does not suffice", where=where,
            got=f"{nbytes:,} bytes" if nbytes else "", allowed=f"{free:,} bytes free of {total:,}",
            next_step="Use smaller batches, or end other programs on the device",
        ) from error  # fmt: skip
    except ValueError as error:
        raise InputError(str(error), where=where) from error
    except RuntimeError as error:
        raise DeviceError(
            str(error), where=where, next_step="Run it again with CUDA_LAUNCH_BLOCKING=1 to see which call fails"
        ) from error


class Stream:
    """A queue of work on one device, which waits for no other and which no other waits for.

    Raises
    ------
    DeviceError
        The device cannot be used.
    """

    def __init__(self, device: int = 0) -> None:
        require_device("Stream", device)
        with failures("Stream", device):
            self._stream = _cuda.Stream(device)

    @property
    def handle(self) -> int:
        """The ``cudaStream_t`` as a number, as DLPack, torch and onnxruntime take it."""
        return self._stream.handle

    @property
    def device(self) -> int:
        """Number of the device."""
        return self._stream.device

    def synchronize(self) -> None:
        """Wait until all work on the stream is done.

        Raises
        ------
        DeviceError
            Some of that work has failed.
        """
        with failures("Stream.synchronize", self.device):
            self._stream.synchronize()


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # comes with onnx

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def _dtype_name(where: str, dtype: Any) -> str:
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in _DTYPES:
        raise InputError("no such element type", where=where, got=repr(name), allowed=", ".join(_DTYPES))
    return name


class Buffer:
    """Memory on a device with the shape of an array, C-contiguous; it holds rubbish at first.

    Whoever has it through ``__dlpack__`` keeps the memory alive, even when the buffer is gone.

    Parameters
    ----------
    shape : sequence of int
    dtype : str or dtype
        ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"uint8"`` and the other plain ones.
    device : int

    Raises
    ------
    DeviceError
        The device cannot be used.
    InputError
        A negative side, or another element type.
    LimitError
        The device has too little memory.
    """

    def __init__(self, shape: Any, dtype: Any, device: int = 0) -> None:
        require_device("Buffer", device)
        self.shape = tuple(int(side) for side in shape)
        self.dtype = _dtype_name("Buffer", dtype)
        if any(side < 0 for side in self.shape):
            raise InputError("a side is negative", where="Buffer", got=str(self.shape), allowed="0 or more")
        self.written_on: Stream | None = None
        """The stream on which the last of its contents is written; None where that is done."""
        nbytes = math.prod(self.shape) * self.itemsize
        with failures("Buffer", device, nbytes):
            self._memory = _cuda.Memory(nbytes, device)

    @classmethod
    def from_host(cls, array: NDArray[Any], stream: Stream) -> Buffer:
        """A copy of an array of the host; done on return.

        Raises
        ------
        InputError
            An element type that devices do not have.
        LimitError
            The device has too little memory.
        """
        # Not ascontiguousarray, which makes one axis of none.
        contiguous = np.array(array, order="C", copy=None)
        buffer = cls(contiguous.shape, contiguous.dtype, stream.device)
        with failures("Buffer.from_host", stream.device):
            buffer._memory.copy_from_host(contiguous, stream.handle)
        return buffer

    def to_host(self, stream: Stream) -> NDArray[Any]:
        """A copy in the host's memory, of the same shape; ``bfloat16`` is that of ``ml_dtypes``.

        Raises
        ------
        InputError
            The stream is of another device.
        DeviceError
            Work that was to write the buffer has failed.
        """
        self._wait("Buffer.to_host", stream)
        array = np.empty(self.shape, _numpy_dtype(self.dtype))
        with failures("Buffer.to_host", self.device):
            self._memory.copy_to_host(array, stream.handle)
        return array

    @property
    def pointer(self) -> int:
        """Address on the device; 0 for an empty array."""
        return self._memory.pointer

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _DTYPES[self.dtype][1] // 8

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._memory.nbytes

    @property
    def device(self) -> int:
        """Number of the device."""
        return self._memory.device

    def _wait(self, where: str, stream: Stream) -> None:
        if stream.device != self.device:
            raise InputError(
                "buffer and stream are on different devices", where=where, got=f"{self.device} and {stream.device}"
            )
        if self.written_on is not None:
            with failures(where, self.device):
                _cuda.wait_for(self.device, stream.handle, self.written_on.handle)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's name of the device: CUDA; the tests' emulator says "extension", or "CPU" where all may read it."""
        kind = _cuda.device_type()
        return kind, 0 if kind == _CPU else self.device

    def __dlpack__(
        self,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule that shares the memory, or with ``copy`` a copy of it.

        Parameters
        ----------
        stream : int or None
            On which the taker will read: made to wait for what writes the buffer. None is the default stream, -1 asks
            for no waiting.
        max_version : (major, minor) or None
            A capsule of version 1 is made for 1.0 and later, one without a version else.
        dl_device : (type, number) or None
            Must be the buffer's own.
        copy : bool or None

        Raises
        ------
        BufferError
            For another device, or for stream 0, which could mean two.
        """
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"the buffer is on device {self.__dlpack_device__()}, not on {tuple(dl_device)}")
        if stream == 0:
            raise BufferError("stream 0 is ambiguous: 1 is the default stream, 2 that of each thread, -1 none")
        shared = self
        if copy:
            shared = Buffer(self.shape, self.dtype, self.device)
            own = Stream(self.device)
            self._wait("Buffer.__dlpack__", own)
            with failures("Buffer.__dlpack__", self.device):
                _cuda.copy_on_device(shared.pointer, self.pointer, self.nbytes, self.device, own.handle)
            own.synchronize()
        elif self.written_on is not None:
            with failures("Buffer.__dlpack__", self.device):
                if _cuda.device_type() == _CPU:
                    self.written_on.synchronize()
                elif stream != -1:
                    _cuda.wait_for(self.device, stream or _DEFAULT_STREAM, self.written_on.handle)
        code, bits = _DTYPES[self.dtype]
        versioned = max_version is not None and max_version[0] >= 1
        return shared._memory.to_dlpack(list(self.shape), code, bits, versioned, bool(copy))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the interface.

        Raises
        ------
        AttributeError
            For bfloat16, which it has no name for.
        """
        if self.dtype == "bfloat16":
            raise AttributeError("__cuda_array_interface__ has no name for bfloat16; __dlpack__ has")
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
            "stream": None if self.written_on is None else self.written_on.handle,
        }


@dataclass(frozen=True)
class DeviceArray:
    """Where an array lies on a device; holds whoever owns the memory."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    device: int
    owner: Any

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _DTYPES[self.dtype][1] // 8

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.itemsize

    def written(self, stream: Stream) -> None:
        """Tell the owner, where it is a :class:`Buffer`, that this stream now writes into it."""
        if isinstance(self.owner, Buffer):
            self.owner.written_on = stream


def device_array(
    array: Any, stream: Stream, *, where: str, dtype: str | None = None, writable: bool = False
) -> DeviceArray:
    """Look at an array of anybody's that lies on the stream's device, without copying it.

    What comes on ``stream`` later waits for whatever still writes the array. Somebody else who reads what kernels write
    into an array that is not a :class:`Buffer` has to wait for ``stream`` himself: neither protocol can tell him.

    Parameters
    ----------
    array : object with ``__dlpack__`` or ``__cuda_array_interface__``
        Such as a :class:`Buffer`, or an array of torch or cupy.
    stream : Stream
    where : str
        What the array is, for messages.
    dtype : str or None
        The only element type that will do.
    writable : bool
        Whether kernels will write into it.

    Returns
    -------
    DeviceArray

    Raises
    ------
    InputError
        Not on the device, not C-contiguous, of another element type, or read-only though it is to be written.
    """
    if isinstance(array, Buffer):
        array._wait(where, stream)
        found = DeviceArray(array.pointer, array.shape, array.dtype, array.device, array)
    elif hasattr(array, "__dlpack__"):
        found = _from_dlpack(array, stream, where, writable)
    elif hasattr(array, "__cuda_array_interface__"):
        found = _from_interface(array, stream, where, writable)
    else:
        raise InputError(
            "not an array of a CUDA device", where=where, got=type(array).__name__,
            allowed="an object with __dlpack__ or __cuda_array_interface__",
            next_step="Buffer.from_host copies one there",
        )  # fmt: skip
    if dtype is not None and found.dtype != dtype:
        raise InputError("another element type", where=where, got=found.dtype, allowed=dtype)
    if found.device != stream.device:
        raise InputError(
            "on another device than the stream", where=where, got=f"device {found.device}",
            allowed=f"device {stream.device}",
        )  # fmt: skip
    return found


def _from_dlpack(array: Any, stream: Stream, where: str, writable: bool) -> DeviceArray:
    own = _cuda.device_type()
    kind, _ = array.__dlpack_device__()
    if int(kind) in {_CPU, _CUDA_HOST} and own != _CPU:
        raise _in_host_memory(where, array)
    # Who shares memory of the host knows no streams; it is then asked below whether that memory is a device's.
    handle = None if int(kind) == _CPU else stream.handle
    try:
        try:
            capsule = array.__dlpack__(stream=handle, max_version=(1, 0))
        except TypeError:  # a producer from before version 1
            capsule = array.__dlpack__(stream=handle)
        borrowed = _cuda.Borrowed(capsule)
    except (BufferError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot be shared by DLPack: {error}", where=where, got=type(array).__name__) from error
    code, bits, lanes = borrowed.dtype
    name = _NAMES.get((code, bits)) if lanes == 1 else None
    if name is None:
        raise InputError(
            "no such element type", where=where, got=f"DLPack code {code}, {bits} bits, {lanes} lanes",
            allowed=", ".join(_DTYPES),
        )  # fmt: skip
    if writable and borrowed.read_only:
        raise InputError("read-only, and kernels are to write into it", where=where, got=type(array).__name__)
    shape = tuple(borrowed.shape)
    _check_contiguous(where, shape, borrowed.strides)
    device = _device_of(borrowed.pointer, shape, where, array, stream)
    return DeviceArray(borrowed.pointer, shape, name, device, borrowed)


def _from_interface(array: Any, stream: Stream, where: str, writable: bool) -> DeviceArray:
    interface = array.__cuda_array_interface__
    shape = tuple(int(side) for side in interface["shape"])
    pointer, read_only = interface["data"]
    name = np.dtype(interface["typestr"]).name
    if name not in _DTYPES or not np.dtype(interface["typestr"]).isnative:
        raise InputError(
            "no such element type", where=where, got=interface["typestr"], allowed=", ".join(_DTYPES),
            next_step="Offer the array by DLPack, which knows more of them",
        )  # fmt: skip
    if writable and read_only:
        raise InputError("read-only, and kernels are to write into it", where=where, got=type(array).__name__)
    if interface.get("mask") is not None:
        raise InputError("masked arrays are not understood", where=where, got=type(array).__name__)
    strides = interface.get("strides")
    size = _DTYPES[name][1] // 8
    # A stride that is no whole number of elements is not that of a contiguous array either.
    _check_contiguous(where, shape, None if strides is None else [stride / size for stride in strides])
    device = _device_of(int(pointer), shape, where, array, stream)
    if interface.get("stream") is not None:
        with failures(where, device):
            _cuda.wait_for(device, stream.handle, int(interface["stream"]))
    return DeviceArray(int(pointer), shape, name, device, array)


def _check_contiguous(where: str, shape: tuple[int, ...], strides: Any) -> None:
    if strides is None or 0 in shape:
        return
    wanted = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != wanted:
            raise InputError(
                "not C-contiguous", where=where, got=f"shape {shape} with strides {tuple(strides)} in elements",
                next_step="Copy it first; `.contiguous()` does in torch, `ascontiguousarray` in cupy",
            )  # fmt: skip
        wanted *= side


def _device_of(pointer: int, shape: tuple[int, ...], where: str, array: Any, stream: Stream) -> int:
    if 0 in shape:
        return stream.device
    with failures(where, stream.device):
        device = _cuda.device_of(pointer)
    if device < 0:
        raise _in_host_memory(where, array)
    return device


def _in_host_memory(where: str, array: Any) -> InputError:
    return InputError(
        "in the host's memory", where=where, got=type(array).__name__, allowed="an array on the device",
        next_step="Buffer.from_host copies one there",
    )  # fmt: skip
