"""Activation maps on a device come in; the images and units that excite every channel most go out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import _cuda
from onnxviz.backend.cuda_memory import Buffer, Stream, device_array, failures, require_device
from onnxviz.errors import InputError

__all__ = ["TopValuesOnDevice", "channel_maxima_on_device"]

_WHERE = "top values"


def channel_maxima_on_device(
    maps: Any, stream: Stream, *, channels_last: bool = False, into: tuple[Buffer, Buffer] | None = None
) -> tuple[Buffer, Buffer]:
    """Queue the search for the maximum of every image and channel.

    Parameters
    ----------
    maps : (n, C, ...), or (n, ..., C) with ``channels_last``; float32, float16 or bfloat16, on the device
    stream : Stream
    channels_last : bool
    into : what an earlier call returned, optional
        Written and returned where its shape fits: giving memory back makes the whole device wait.

    Returns
    -------
    values : (n, C) float32 Buffer
        Exactly the elements; NaN never wins, and a map of NaN and -infinity alone has -infinity at position 0.
    positions : (n, C) int64 Buffer
        Where each first is, row by row.

    Raises
    ------
    DeviceError
        No device can be used.
    InputError
        Not such maps, or maps without positions.
    """
    require_device(_WHERE)
    found = device_array(maps, stream, where="maps")
    if len(found.shape) < 2:
        raise InputError("maps have images and channels", where=_WHERE, got=f"shape {found.shape}")
    images = found.shape[0]
    channels = found.shape[-1] if channels_last else found.shape[1]
    size = math.prod(found.shape[1:-1] if channels_last else found.shape[2:])
    if into is None or into[0].shape != (images, channels):
        into = Buffer((images, channels), "float32", stream.device), Buffer((images, channels), "int64", stream.device)
    values, positions = into
    with failures(_WHERE, stream.device):
        _cuda.channel_maxima(
            found.pointer, found.dtype, images, channels, size, channels_last, values.pointer, positions.pointer,
            stream.device, stream.handle,
        )  # fmt: skip
    values.written_on = positions.written_on = stream
    return values, positions


class TopValuesOnDevice:
    """The k strongest maxima of every channel over any number of images, kept on the device.

    Parameters
    ----------
    channels, k : int
    stream : Stream
        All its work is queued there.

    Raises
    ------
    DeviceError
        No device can be used.
    InputError
        Fewer than one channel, or ``k`` below 1.
    """

    def __init__(self, channels: int, k: int, stream: Stream) -> None:
        require_device(_WHERE)
        for name, number in (("channels", channels), ("k", k)):
            if number < 1:
                raise InputError("too few", where=name, got=str(number), allowed="1 or more")
        self._channels, self._k, self._stream = channels, k, stream
        self._maxima: tuple[Buffer, Buffer] | None = None
        self._lists = tuple(Buffer((channels, k), dtype, stream.device) for dtype in ("float32", "int64", "int64"))
        with failures(_WHERE, stream.device):
            _cuda.clear_top_values(*self._places(), channels, k, stream.device, stream.handle)

    def _places(self) -> tuple[int, int, int]:
        values, images, positions = (buffer.pointer for buffer in self._lists)
        return values, images, positions

    def take(self, maps: Any, images: NDArray[np.int64], *, channels_last: bool = False) -> None:
        """Queue the maps of more images.

        Parameters
        ----------
        maps : (n, C, ...), or (n, ..., C) with ``channels_last``
            As :func:`channel_maxima_on_device` takes them.
        images : (n,) int64
            Numbers of the images, by which ties are decided: the earlier one is kept.

        Raises
        ------
        InputError
            Not such maps, another number of channels, or not one number for each image.
        """
        self._maxima = channel_maxima_on_device(maps, self._stream, channels_last=channels_last, into=self._maxima)
        values, positions = self._maxima
        numbers = np.ascontiguousarray(images, np.int64)
        if numbers.shape != values.shape[:1] or (numbers < 0).any():
            raise InputError(
                "not one number, from 0, for each image", where=_WHERE, got=f"shape {numbers.shape}",
                allowed=f"shape {values.shape[:1]}",
            )  # fmt: skip
        if values.shape[1] != self._channels:
            raise InputError(
                "another number of channels", where=_WHERE, got=str(values.shape[1]), allowed=str(self._channels)
            )
        with failures(_WHERE, self._stream.device):
            _cuda.merge_top_values(
                values.pointer, positions.pointer, numbers, *self._places(), self._channels, self._k,
                self._stream.device, self._stream.handle,
            )  # fmt: skip

    def best(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Wait for the work that is queued and copy the lists.

        Returns
        -------
        values : (C, k) float32
            Strongest first; ties go to the earlier image, then the earlier position; -infinity where there are fewer.
        images, positions : (C, k) int64
            -1 and 0 where there are fewer.

        Raises
        ------
        DeviceError
            Some of the work has failed.
        """
        values, images, positions = (buffer.to_host(self._stream) for buffer in self._lists)
        return values, images, positions
