"""The file of a model comes in; the model without its heavy weights, those weights and the file's digest go out.

protobuf would hold every number twice while it parses, and for good in a form that nobody else can use. Here each byte
is read once, digested, and a heavy weight goes straight to the array that all sessions share.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAVY", "StreamedModel", "aligned_empty", "read_streamed"]

HEAVY = 1 << 22
"""Bytes from which a weight is held once, as an array beside the model."""

# Numbers of fields and kinds of values in protobuf's wire format, by onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5

_ALIGNMENT = 64  # bytes: a whole cache line, so that vector loads never straddle two


@dataclass(frozen=True)
class StreamedModel:
    """A model file, read."""

    content: bytes
    """The message, with nothing in the place of the heavy weights' bytes."""
    heavy: dict[int, NDArray[np.uint8]]
    """Those bytes by the weight's place among the main graph's initializers."""
    sha256: str
    """Digest of the whole file."""
    size: int
    """Its bytes."""


def read_streamed(file: BufferedReader, size: int) -> StreamedModel:
    """Read a file from front to back; one that is not written like a model is given back whole."""
    if size >= HEAVY:
        try:
            return _Cutter(file, size).run()
        except _OtherwiseWrittenError:
            file.seek(0)
    content = file.read()
    return StreamedModel(content, {}, hashlib.sha256(content).hexdigest(), len(content))


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Memory for an array that begins at a cache line."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


class _OtherwiseWrittenError(Exception):
    """Cut short, no protobuf at all, or with a field stated twice: protobuf then says what there is to say."""


class _Cutter:
    """Goes down from the model to its graph, its heavy initializers and their bytes; all else is copied."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size = file, size
        self._digest = hashlib.sha256()
        self._at = 0
        self._initializers = 0
        self._stored: set[int] = set()
        self._heavy: dict[int, NDArray[np.uint8]] = {}

    def run(self) -> StreamedModel:
        content = self._message(self._size, self._model_field)
        if self._file.read(1):
            raise _OtherwiseWrittenError
        return StreamedModel(content, self._heavy, self._digest.hexdigest(), self._size)

    def _message(self, end: int, entered: Callable[[int, int], bytes | None]) -> bytes:
        """A message up to ``end``; ``entered`` gives a counted field's new content, or None to have it copied."""
        parts: list[bytes] = []
        while self._at < end:
            key, written = self._varint()
            parts.append(written)
            kind = key & 7
            if kind == _COUNTED:
                length, written = self._varint()
                if self._at + length > end:
                    raise _OtherwiseWrittenError
                changed = entered(key >> 3, length)
                parts += [written, self._read(length)] if changed is None else [_as_varint(len(changed)), changed]
            elif kind == _VARINT:
                parts.append(self._varint()[1])
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                parts.append(self._read(8 if kind == _EIGHT_BYTES else 4))
            else:
                raise _OtherwiseWrittenError
        if self._at != end:
            raise _OtherwiseWrittenError
        return b"".join(parts)

    def _model_field(self, field: int, length: int) -> bytes | None:
        return self._message(self._at + length, self._graph_field) if field == _GRAPH else None

    def _graph_field(self, field: int, length: int) -> bytes | None:
        if field != _INITIALIZER:
            return None
        self._initializers += 1
        return self._message(self._at + length, self._tensor_field) if length >= HEAVY else None

    def _tensor_field(self, field: int, length: int) -> bytes | None:
        if field != _RAW_DATA:
            return None
        place = self._initializers - 1
        if place in self._stored:
            raise _OtherwiseWrittenError
        self._stored.add(place)
        if length < HEAVY:
            return None
        array = aligned_empty((length,), np.dtype(np.uint8))
        if self._file.readinto(array.data) != length:
            raise _OtherwiseWrittenError
        self._digest.update(array.data)
        self._at += length
        self._heavy[place] = array
        return b""

    def _varint(self) -> tuple[int, bytes]:
        """A number, and the bytes that it was written with."""
        number, written = 0, b""
        for place in range(10):
            byte = self._read(1)
            written += byte
            number |= (byte[0] & 127) << 7 * place
            if byte[0] < 128:
                return number, written
        raise _OtherwiseWrittenError

    def _read(self, length: int) -> bytes:
        read = self._file.read(length)
        if len(read) < length:
            raise _OtherwiseWrittenError
        self._digest.update(read)
        self._at += length
        return read


def _as_varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    written.append(number)
    return bytes(written)
