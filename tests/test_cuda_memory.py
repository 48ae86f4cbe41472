"""Device memory for Python: what goes there and comes back, what others see of it, and what is refused."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import emulated_cuda
from cuda_arrays import kind, random_array
from onnxviz import _cuda
from onnxviz.backend import Buffer, Stream, device_array
from onnxviz.errors import DeviceError, InputError, LimitError

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "bfloat16",
]  # fmt: skip


def same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


class ByDlpack:
    """Somebody else's array, seen through DLPack only; of a producer from before version 1 with ``old``."""

    def __init__(self, buffer: Buffer, *, old: bool = False) -> None:
        self.buffer = buffer
        self.old = old
        self.streams: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.buffer.__dlpack_device__()

    def __dlpack__(self, **keywords: Any) -> Any:
        if self.old and set(keywords) != {"stream"}:
            raise TypeError("unexpected keyword argument")
        self.streams.append(keywords["stream"])
        return self.buffer.__dlpack__(**keywords)


class ByInterface:
    """Somebody else's array, seen through ``__cuda_array_interface__`` only."""

    def __init__(self, buffer: Buffer, **changes: Any) -> None:
        self.__cuda_array_interface__ = buffer.__cuda_array_interface__ | changes


# -- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4)])
def test_what_goes_there_comes_back(cuda_device: int, dtype: str, shape: tuple[int, ...]) -> None:
    stream = Stream(cuda_device)
    array = random_array(shape, dtype)
    buffer = Buffer.from_host(array, stream)
    assert (buffer.shape, buffer.dtype, buffer.device) == (shape, dtype, cuda_device)
    assert buffer.nbytes == array.nbytes
    assert (buffer.pointer == 0) == (array.nbytes == 0)
    assert same_bytes(buffer.to_host(stream), array)


def test_an_array_of_any_strides_is_copied_in_its_order(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    array = random_array((4, 6), "float32")
    for view in (array.T, array[::-1, ::2]):
        assert same_bytes(Buffer.from_host(view, stream).to_host(stream), np.ascontiguousarray(view))


# -- what others see -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("old", [False, True])
def test_a_capsule_says_what_the_buffer_is(cuda_device: int, dtype: str, old: bool) -> None:
    stream = Stream(cuda_device)
    buffer = Buffer.from_host(random_array((2, 3), dtype), stream)
    capsule = buffer.__dlpack__(stream=-1) if old else buffer.__dlpack__(stream=-1, max_version=(1, 3))
    assert ("versioned" in repr(capsule)) is not old
    taken = _cuda.Borrowed(capsule)
    assert taken.pointer == buffer.pointer
    assert (taken.shape, taken.strides, taken.read_only) == ([2, 3], [3, 1], False)
    code = {"b": 6, "i": 0, "u": 1, "f": 2}.get(np.dtype(dtype).kind) if dtype != "bfloat16" else 4
    assert taken.dtype == (code, 8 * buffer.itemsize, 1)
    with pytest.raises(ValueError, match="somebody has taken"):
        _cuda.Borrowed(capsule)


def test_a_capsule_keeps_the_memory_alive(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    array = random_array((1 << 16,), "float32")
    gc.collect()  # what tests before this one left
    free = _cuda.memory_info(cuda_device)[0]
    buffer = Buffer.from_host(array, stream)
    foreign = device_array(ByDlpack(buffer), stream, where="test")
    pointer = buffer.pointer
    del buffer
    gc.collect()
    assert _cuda.device_of(pointer) == cuda_device
    target = Buffer(foreign.shape, foreign.dtype, cuda_device)
    _cuda.copy_on_device(target.pointer, foreign.pointer, foreign.nbytes, cuda_device, stream.handle)
    assert same_bytes(target.to_host(stream), array)
    del foreign, target
    gc.collect()
    if emulated_cuda.folder():  # a real device may keep freed memory, and others use it, too
        assert _cuda.memory_info(cuda_device)[0] == free


def test_a_capsule_that_nobody_takes_frees_the_memory(cuda_device: int) -> None:
    for version in (None, (1, 0)):
        buffer = Buffer((1000,), "uint8", cuda_device)
        pointer = buffer.pointer
        capsule = buffer.__dlpack__(stream=-1, max_version=version)
        del buffer
        assert _cuda.device_of(pointer) == cuda_device
        del capsule
        gc.collect()
        if emulated_cuda.folder():
            assert _cuda.device_of(pointer) == -1


def test_a_copy_has_memory_of_its_own(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    array = random_array((5, 4), "float16")
    buffer = Buffer.from_host(array, stream)
    taken = _cuda.Borrowed(buffer.__dlpack__(stream=-1, max_version=(1, 0), copy=True))
    assert taken.pointer != buffer.pointer
    target = Buffer((5, 4), "float16", cuda_device)
    _cuda.copy_on_device(target.pointer, taken.pointer, target.nbytes, cuda_device, stream.handle)
    assert same_bytes(target.to_host(stream), array)


def test_the_interface_says_what_the_buffer_is(cuda_device: int) -> None:
    buffer = Buffer((2, 3), "float32", cuda_device)
    assert buffer.__cuda_array_interface__ == {
        "shape": (2, 3), "typestr": "<f4", "data": (buffer.pointer, False), "strides": None, "version": 3,
        "stream": None,
    }  # fmt: skip
    buffer.written_on = Stream(cuda_device)
    assert buffer.__cuda_array_interface__["stream"] == buffer.written_on.handle
    assert not hasattr(Buffer((1,), "bfloat16", cuda_device), "__cuda_array_interface__")


def test_who_takes_a_buffer_waits_for_what_writes_it(cuda_device: int) -> None:
    writing, reading = Stream(cuda_device), Stream(cuda_device)
    array = random_array((1000,), "uint8")
    source = Buffer.from_host(array, writing)
    for take in (ByDlpack, lambda buffer: ByDlpack(buffer, old=True), ByInterface, lambda buffer: buffer):
        buffer = Buffer.from_host(np.zeros_like(array), writing)
        _cuda.copy_on_device(buffer.pointer, source.pointer, buffer.nbytes, cuda_device, writing.handle)
        buffer.written_on = writing
        found = device_array(take(buffer), reading, where="test")
        target = Buffer((1000,), "uint8", cuda_device)
        _cuda.copy_on_device(target.pointer, found.pointer, found.nbytes, cuda_device, reading.handle)
        target.written_on = reading
        assert same_bytes(target.to_host(Stream(cuda_device)), array)


def test_our_stream_is_handed_to_producers(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    foreign = ByDlpack(Buffer((1,), "uint8", cuda_device))
    device_array(foreign, stream, where="test")
    assert foreign.streams == [None if _cuda.device_type() == 1 else stream.handle]


@pytest.mark.parametrize("stream", [None, 1, 2, -1])
def test_default_streams_have_numbers(cuda_device: int, stream: int | None) -> None:
    buffer = Buffer((4,), "int32", cuda_device)
    buffer.written_on = Stream(cuda_device)
    assert "dltensor" in repr(buffer.__dlpack__(stream=stream))


def test_what_dlpack_cannot_give_is_a_buffer_error(cuda_device: int) -> None:
    buffer = Buffer((4,), "int32", cuda_device)
    with pytest.raises(BufferError, match="ambiguous"):
        buffer.__dlpack__(stream=0)
    with pytest.raises(BufferError, match="not on"):
        buffer.__dlpack__(dl_device=(1, 5))
    assert "dltensor" in repr(buffer.__dlpack__(dl_device=buffer.__dlpack_device__()))


# -- what is refused -----------------------------------------------------------------------------------------------


class Transposed:
    """An array of two axes whose rows lie in its columns' place."""

    def __init__(self, pointer: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (2, 3), "typestr": "<f4", "data": (pointer, False), "strides": (4, 8), "version": 3,
        }  # fmt: skip


def test_arrays_that_do_not_fit_are_refused_in_one_sentence(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    buffer = Buffer((2, 3), "float32", cuda_device)
    host = np.zeros((2, 3), np.float32)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([1, 2], {}, "not an array of a CUDA device; got list; allowed: an object with __dlpack__"),
        (host, {}, "in the host's memory; got ndarray"),
        (ByInterface(buffer, data=(host.ctypes.data, False)), {}, "in the host's memory; got ByInterface"),
        (buffer, {"dtype": "float16"}, "another element type; got float32; allowed: float16"),
        (Transposed(buffer.pointer), {}, "not C-contiguous; got shape .2, 3. with strides .1.0, 2.0. in elements"),
        (ByInterface(buffer, strides=(12, 3)), {}, "not C-contiguous"),
        (ByInterface(buffer, data=(buffer.pointer, True)), {"writable": True}, "read-only, and kernels are to write"),
        (ByInterface(buffer, typestr="<c8"), {}, "no such element type; got <c8"),
        (ByInterface(buffer, typestr=">f4"), {}, "no such element type; got >f4"),
        (ByInterface(buffer, mask=host), {}, "masked arrays"),
    ]
    for array, keywords, message in cases:
        with pytest.raises(InputError, match=f"^image: {message}") as caught:
            device_array(array, stream, where="image", **keywords)
        assert "\n" not in str(caught.value)


def test_strides_of_sides_of_one_do_not_matter(cuda_device: int) -> None:
    stream = Stream(cuda_device)
    buffer = Buffer((2, 1, 3), "float32", cuda_device)
    found = device_array(ByInterface(buffer, strides=(12, 999, 4)), stream, where="test")
    assert found.shape == (2, 1, 3)
    empty = Buffer((0, 3), "float32", cuda_device)
    assert device_array(ByInterface(empty, strides=(4, 4)), stream, where="test").device == cuda_device


def test_buffers_that_cannot_be_are_refused(cuda_device: int) -> None:
    with pytest.raises(InputError, match="a side is negative"):
        Buffer((2, -1), "float32", cuda_device)
    with pytest.raises(InputError, match="no such element type; got 'complex64'"):
        Buffer((2,), "complex64", cuda_device)
    with pytest.raises(LimitError, match=r"does not suffice; got .* bytes; allowed: .* bytes free of"):
        Buffer((1 << 50,), "uint8", cuda_device)
    for wrong in (-1, 99):
        with pytest.raises(DeviceError, match=f"no such CUDA device; got {wrong}; allowed: 0 to"):
            Buffer((2,), "uint8", wrong)
        with pytest.raises(DeviceError, match="no such CUDA device"):
            Stream(wrong)


def test_buffers_of_another_device_are_refused(cuda_device: int) -> None:
    if _cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    stream = Stream(1)
    buffer = Buffer((2,), "uint8", 0)
    with pytest.raises(InputError, match="on different devices; got 0 and 1"):
        buffer.to_host(stream)
    with pytest.raises(InputError, match="on another device than the stream"):
        device_array(ByInterface(buffer), stream, where="test")


# -- other libraries -----------------------------------------------------------------------------------------------


@pytest.mark.emulated
def test_numpy_reads_the_emulators_memory_where_guards_are_down() -> None:
    if not emulated_cuda.folder():
        pytest.skip("no emulated CUDA module: ONNXVIZ_EMULATED_CUDA does not name its folder")
    code = """
import sys; sys.path.insert(0, "tests")
import emulated_cuda; emulated_cuda.take_place()
import numpy as np
from onnxviz import _cuda
from onnxviz.backend import Buffer, Stream, device_array
stream = Stream()
source = Buffer.from_host(np.arange(6, dtype=np.float32).reshape(2, 3), stream)
buffer = Buffer.from_host(np.zeros((2, 3), np.float32), stream)
_cuda.copy_on_device(buffer.pointer, source.pointer, buffer.nbytes, 0, stream.handle)
buffer.written_on = stream
assert buffer.__dlpack_device__() == (1, 0)
array = np.from_dlpack(buffer)
assert array.ctypes.data == buffer.pointer
del buffer
print(array.tolist(), array.flags.writeable)
try:
    device_array(np.zeros(3), stream, where="array")
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"ONNXVIZ_CUDA_EMULATOR_PROTECT": "0"}, capture_output=True,
        text=True, timeout=120, check=False, cwd=os.fspath(emulated_cuda.ROOT),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] True"
    assert lines[1].startswith("array: in the host's memory; got ndarray")


@pytest.mark.emulated
def test_numpy_is_told_that_it_cannot_read_guarded_memory() -> None:
    if not emulated_cuda.folder():
        pytest.skip("no emulated CUDA module: ONNXVIZ_EMULATED_CUDA does not name its folder")
    if os.environ.get("ONNXVIZ_CUDA_EMULATOR_PROTECT") == "0":
        pytest.skip("the emulated CUDA memory is not guarded")
    buffer = Buffer((2,), "uint8")
    assert buffer.__dlpack_device__() == (12, 0)
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(buffer)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8", "int64"])
def test_torch_shares_the_memory(cuda_device: int, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'oracles'")
    if emulated_cuda.folder() or not torch.cuda.is_available():
        pytest.skip("torch has no CUDA device")
    stream = Stream(cuda_device)
    array = np.arange(12).reshape(3, 4).astype(kind(dtype))
    buffer = Buffer.from_host(array, stream)
    tensor = torch.from_dlpack(buffer)
    assert tensor.data_ptr() == buffer.pointer
    assert str(tensor.dtype) == f"torch.{dtype}"
    tensor += 1
    torch.cuda.synchronize()
    assert same_bytes(buffer.to_host(stream), (array + 1).astype(array.dtype))
    found = device_array(tensor, stream, where="tensor")
    assert (found.pointer, found.shape, found.dtype) == (buffer.pointer, (3, 4), dtype)
    with pytest.raises(InputError, match="not C-contiguous"):
        device_array(tensor.T, stream, where="tensor")


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_cupy_shares_the_memory(cuda_device: int, dtype: str) -> None:
    cupy = pytest.importorskip("cupy", reason="no CUDA arrays of cupy here")
    if emulated_cuda.folder():
        pytest.skip("cupy has no emulated CUDA device")
    stream = Stream(cuda_device)
    array = np.arange(12).reshape(3, 4).astype(dtype)
    buffer = Buffer.from_host(array, stream)
    for shared in (cupy.from_dlpack(buffer), cupy.asarray(buffer)):
        assert shared.data.ptr == buffer.pointer
        assert same_bytes(cupy.asnumpy(shared), array)
        found = device_array(shared, stream, where="array")
        assert (found.pointer, found.shape, found.dtype) == (buffer.pointer, (3, 4), dtype)
