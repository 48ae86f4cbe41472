"""Rows of a buffer, and device memory that somebody else owns, as buffers; and copies between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnxviz import _cuda
from onnxviz.backend.cuda_memory import Buffer, Stream, device_array, failures
from onnxviz.errors import InputError

__all__ = ["Part", "copy_on_device"]


@dataclass(frozen=True)
class _Borrowed:
    """Memory that is not ours to free; holds whoever owns it."""

    pointer: int
    nbytes: int
    device: int
    owner: Any


class Part(Buffer):
    """Memory of a device that somebody else owns, with the shape of an array, C-contiguous.

    Parameters
    ----------
    pointer : int
        Address on the device.
    shape : sequence of int
    dtype : str
        As a :class:`Buffer` names it.
    device : int
    owner : object
        Kept alive; where it is a buffer, it learns who writes.
    """

    def __init__(self, pointer: int, shape: Sequence[int], dtype: str, device: int, owner: Any) -> None:
        self.shape = tuple(int(side) for side in shape)
        self.dtype = dtype
        self._own_writer: Stream | None = None
        # Not a compiled module's memory, so nothing that copies from or to the host may be asked of it.
        self._memory: Any = _Borrowed(pointer, math.prod(self.shape) * self.itemsize, device, owner)

    @classmethod
    def rows(cls, of: Buffer, start: int, stop: int) -> Part:
        """Some rows, from the first axis."""
        start, stop, _ = slice(start, stop).indices(of.shape[0])
        stop = max(start, stop)
        row = math.prod(of.shape[1:]) * of.itemsize
        return cls(of.pointer + start * row, (stop - start, *of.shape[1:]), of.dtype, of.device, of)

    @classmethod
    def shaped(cls, of: Buffer, shape: Sequence[int], dtype: str | None = None) -> Part:
        """The first bytes of a buffer in another shape, or as other elements.

        Raises
        ------
        InputError
            The buffer has fewer bytes.
        """
        part = cls(of.pointer, shape, dtype or of.dtype, of.device, of)
        if part.nbytes > of.nbytes:
            raise InputError("the buffer is too small", where="Part", got=f"{of.nbytes:,} bytes for {part.shape}")
        return part

    @property
    def written_on(self) -> Stream | None:
        """The stream on which the last of its contents is written; None where that is done."""
        owner = self._memory.owner
        return owner.written_on if isinstance(owner, Buffer) else self._own_writer

    @written_on.setter
    def written_on(self, stream: Stream | None) -> None:
        owner = self._memory.owner
        if isinstance(owner, Buffer):
            owner.written_on = stream
        else:
            self._own_writer = stream

    def to_host(self, stream: Stream) -> NDArray[Any]:
        """A copy in the host's memory, of the same shape."""
        whole = Buffer(self.shape, self.dtype, self.device)
        copy_on_device(self, whole, stream)
        return whole.to_host(stream)

    def __dlpack__(
        self,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Refused: a capsule would not keep the owner alive."""
        raise BufferError("a part of a buffer is not shared by DLPack; __cuda_array_interface__ shares it")


def copy_on_device(source: Any, into: Any, stream: Stream) -> None:
    """Queue a copy from device memory to device memory; element types may differ, bytes not.

    Raises
    ------
    InputError
        Not as many bytes, or not on the stream's device.
    """
    have = device_array(source, stream, where="source")
    target = device_array(into, stream, where="into", writable=True)
    if have.nbytes != target.nbytes:
        raise InputError(
            "not as many bytes as there is room for", where="copy_on_device", got=f"{have.nbytes:,}",
            allowed=f"{target.nbytes:,}",
        )  # fmt: skip
    with failures("copy_on_device", stream.device):
        _cuda.copy_on_device(target.pointer, have.pointer, have.nbytes, stream.device, stream.handle)
    target.written(stream)
