"""Encoded images and maps on a device and boxes of the host come in; batches and windows on the device go out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import _cuda
from onnxviz.backend.cuda_memory import DeviceArray, Stream, device_array, failures, require_device
from onnxviz.errors import InputError

__all__ = ["fill_occluded_on_device", "overlay_windows_on_device"]

_WHERE = "occlusion"
_MOST_BYTES = 2**63 - 1


def fill_occluded_on_device(
    image: Any,
    fill: Any,
    boxes: NDArray[np.int64],
    batch: Any,
    *,
    channels_last: bool,
    stream: Stream,
    previous: NDArray[np.int64] | None = None,
) -> None:
    """Queue what :func:`onnxviz.backend.fill_occluded` does, on a device; the bytes are the same.

    Parameters
    ----------
    image : (C, H, W), or (H, W, C) with ``channels_last``; any dtype, on the device
    fill : like ``image``
    boxes : (n, 4) int64
        In the host's memory, as ``previous`` is; both may change on return.
    batch : (at least n, like ``image``)
        Written in place, once ``stream`` gets there.
    channels_last : bool
    stream : Stream
    previous : (at least n, 4) int64, optional

    Raises
    ------
    DeviceError
        No device can be used.
    InputError
        An array that is not on the device, shapes or dtypes that do not fit, or a box outside the image.
    """
    require_device(_WHERE)
    on_device = device_array(image, stream, where="image")
    filling = device_array(fill, stream, where="fill")
    target = device_array(batch, stream, where="batch", writable=True)
    if len(on_device.shape) != 3:
        raise InputError("the image is not (C, H, W) or (H, W, C)", where=_WHERE)
    for array, name in ((filling, "fill"), (target, "batch")):
        if array.dtype != on_device.dtype:
            raise InputError(f"the {name} has another element type than the image", where=_WHERE)
    if filling.shape != on_device.shape:
        raise InputError("the fill has another shape than the image", where=_WHERE)
    if len(target.shape) != 4 or target.shape[1:] != on_device.shape:
        raise InputError("the batch is not one of such images", where=_WHERE)
    if len(target.shape) and target.shape[0] < len(boxes):
        raise InputError("there are more boxes than images in the batch", where=_WHERE)
    first, second, third = on_device.shape
    size = on_device.itemsize
    layout = (1, first, second, third * size) if channels_last else (first, second, third, size)
    with failures(_WHERE, stream.device):
        _cuda.fill_occluded(
            on_device.pointer, filling.pointer, layout, boxes, previous, target.pointer, stream.device, stream.handle
        )
    target.written(stream)


def overlay_windows_on_device(
    original: Any,
    source: Any,
    placements: NDArray[np.int64],
    windows: Any,
    *,
    layout: tuple[int, int, int, int],
    source_size: tuple[int, int],
    window_size: tuple[int, int],
    stream: Stream,
    shared_source: bool = False,
    border: Any = None,
) -> None:
    """Queue what :func:`onnxviz.backend.overlay_windows` does, on a device; the bytes are the same.

    Parameters
    ----------
    original, source, windows : any shape and dtype, C-contiguous, on the device
        As there; ``windows`` is written in place, once ``stream`` gets there.
    placements : (n, 8) int64
        In the host's memory; may change on return.
    layout : (planes, rows, columns, bytes of a pixel)
    source_size, window_size : (rows, columns)
    stream : Stream
    shared_source : bool
    border : bytes of one pixel on the device, optional

    Raises
    ------
    DeviceError
        No device can be used.
    InputError
        Memory that is not on the device or does not fit, a fresh part outside its source, or a window that leaves the
        map without a border.
    """
    require_device(_WHERE)
    known = device_array(original, stream, where="original")
    fresh = device_array(source, stream, where="source")
    target = device_array(windows, stream, where="windows", writable=True)
    edge = None if border is None else device_array(border, stream, where="border")
    planes, _, _, pixel_bytes = layout
    source_bytes = _bytes_of((planes, *source_size, pixel_bytes))
    window_bytes = _bytes_of((planes, *window_size, pixel_bytes))
    count = len(placements)
    if known.nbytes != _bytes_of(layout):
        raise InputError("the original is not one map of that layout", where=_WHERE)
    _check_room(fresh, source_bytes, 1 if shared_source else count, "the source is too small")
    _check_room(target, window_bytes, count, "the memory for the windows is too small")
    if edge is not None and edge.nbytes != pixel_bytes:
        raise InputError("the border is not one pixel", where=_WHERE)
    with failures(_WHERE, stream.device):
        _cuda.overlay_windows(
            known.pointer, layout, fresh.pointer, source_size, 0 if shared_source else source_bytes, placements,
            window_size, 0 if edge is None else edge.pointer, target.pointer, stream.device, stream.handle,
        )  # fmt: skip
    target.written(stream)


def _bytes_of(sides: tuple[int, ...]) -> int:
    if min(sides) < 1:
        raise InputError("a side of a map or window is not positive", where=_WHERE)
    nbytes = math.prod(sides)
    if nbytes > _MOST_BYTES:
        raise InputError("a map or window is larger than any memory", where=_WHERE)
    return nbytes


def _check_room(array: DeviceArray, nbytes: int, count: int, problem: str) -> None:
    if array.nbytes // nbytes < count:
        raise InputError(problem, where=_WHERE)
