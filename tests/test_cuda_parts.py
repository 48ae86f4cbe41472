"""Rows of device memory, and memory that somebody else owns there, are read and written as buffers are."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from onnxviz import backend
from onnxviz.backend import Buffer, Part, Stream
from onnxviz.errors import InputError


@pytest.fixture
def stream(cuda_device: int) -> Stream:
    return Stream(cuda_device)


@pytest.fixture
def numbers() -> np.ndarray:
    return np.arange(60, dtype=np.float32).reshape(5, 3, 4)


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (1, 3), (4, 5), (2, 2), (3, 99), (4, 1), (9, 12)])
def test_rows_are_those_of_numpy(stream: Stream, numbers: np.ndarray, start: int, stop: int) -> None:
    buffer = Buffer.from_host(numbers, stream)
    part = Part.rows(buffer, start, stop)
    wanted = numbers[start:stop]
    assert part.shape == wanted.shape
    assert part.nbytes == wanted.nbytes
    np.testing.assert_array_equal(part.to_host(stream), wanted)
    np.testing.assert_array_equal(Part.rows(part, 1, 2).to_host(stream), wanted[1:2])


def test_what_is_written_into_rows_is_in_the_buffer(stream: Stream, numbers: np.ndarray) -> None:
    buffer = Buffer.from_host(numbers, stream)
    backend.copy_on_device(Buffer.from_host(-numbers[:2], stream), Part.rows(buffer, 3, 5), stream)
    # Whoever reads the whole buffer has to wait for who wrote its rows.
    assert buffer.written_on is stream
    wanted = numbers.copy()
    wanted[3:] = -numbers[:2]
    np.testing.assert_array_equal(buffer.to_host(stream), wanted)


def test_the_first_bytes_in_another_shape(stream: Stream, numbers: np.ndarray) -> None:
    buffer = Buffer.from_host(numbers, stream)
    np.testing.assert_array_equal(Part.shaped(buffer, (2, 7)).to_host(stream), numbers.ravel()[:14].reshape(2, 7))
    words = Part.shaped(buffer, (6,), "int32").to_host(stream)
    np.testing.assert_array_equal(words, numbers.ravel()[:6].view(np.int32))
    with pytest.raises(InputError, match="the buffer is too small; got 240 bytes"):
        Part.shaped(buffer, (61,))


def test_a_part_keeps_the_memory_alive(stream: Stream, numbers: np.ndarray) -> None:
    part = Part.rows(Buffer.from_host(numbers, stream), 1, 4)
    gc.collect()
    other = Buffer.from_host(np.zeros_like(numbers), stream)
    np.testing.assert_array_equal(part.to_host(stream), numbers[1:4])
    assert other.nbytes == numbers.nbytes


def test_a_part_is_shared_by_its_interface_and_not_by_a_capsule(stream: Stream, numbers: np.ndarray) -> None:
    part = Part.rows(Buffer.from_host(numbers, stream), 1, 4)
    interface = part.__cuda_array_interface__
    assert interface["shape"] == (3, 3, 4)
    assert interface["data"] == (part.pointer, False)
    with pytest.raises(BufferError, match="not shared by DLPack"):
        part.__dlpack__()


def test_copies_of_another_size_are_refused(stream: Stream, numbers: np.ndarray) -> None:
    buffer = Buffer.from_host(numbers, stream)
    with pytest.raises(InputError, match="not as many bytes as there is room for; got 240; allowed: 48"):
        backend.copy_on_device(buffer, Part.rows(buffer, 0, 1), stream)
    with pytest.raises(InputError, match="not an array of a CUDA device"):
        backend.copy_on_device(3, buffer, stream)
