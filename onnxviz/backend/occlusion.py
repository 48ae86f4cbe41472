"""Encoded images and boxes come in; batches with patches in them, and sums over boxes, go out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz import _core
from onnxviz.errors import InputError

__all__ = ["accumulate_boxes", "fill_occluded", "overlay_windows"]


def fill_occluded(
    image: NDArray[Any],
    fill: NDArray[Any],
    boxes: NDArray[np.int64],
    batch: NDArray[Any],
    *,
    channels_last: bool,
    previous: NDArray[np.int64] | None = None,
    threads: int = 0,
) -> None:
    """Write copies of one encoded image into ``batch``, each with one box taken from ``fill``.

    Parameters
    ----------
    image : (C, H, W), or (H, W, C) with ``channels_last``; any dtype
        The encoded image.
    fill : like ``image``
        What a patch holds: one colour everywhere, or a blurred copy of the image.
    boxes : (n, 4) int64
        Top, left, bottom, right in pixels, bottom and right exclusive, inside the image.
    batch : (at least n, like ``image``)
        Written in place: usually the buffer that is bound to a session.
    previous : (at least n, 4) int64, optional
        The boxes of an earlier call with the same image, fill and batch: only what differs is then written.
    threads : int
        0 for all cores.

    Raises
    ------
    InputError
        Shapes or dtypes that do not fit, or a box outside the image.
    """
    try:
        _core.fill_occluded(image, fill, boxes, batch, channels_last=channels_last, previous=previous, threads=threads)
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error


def overlay_windows(
    original: NDArray[Any],
    source: NDArray[Any],
    placements: NDArray[np.int64],
    windows: NDArray[Any],
    *,
    layout: tuple[int, int, int, int],
    source_size: tuple[int, int],
    window_size: tuple[int, int],
    shared_source: bool = False,
    border: NDArray[Any] | None = None,
) -> None:
    """Write windows of a map, each a crop of the original with fresh pixels laid over it.

    Parameters
    ----------
    original : any shape and dtype, C-contiguous
        One map: planes × rows × columns pixels, as ``layout`` says.
    source : any shape and dtype, C-contiguous
        For each position a window of ``source_size``, or one that all share.
    placements : (n, 8) int64
        For each position, in pixels of the map: top and left of its window, top and left of its source, and top, left,
        bottom, right of what is taken from the source.
    windows : any shape, C-contiguous
        Memory for n windows of ``window_size``.
    layout : (planes, rows, columns, bytes of a pixel)
    source_size, window_size : (rows, columns)
    shared_source : bool
    border : bytes of one pixel, optional
        What lies outside the map; needed where a window reaches there.

    Raises
    ------
    InputError
        Memory that does not fit, a fresh part outside its source, or a window that leaves the map without a border.
    """
    try:
        _core.overlay_windows(
            original, source, placements, windows, layout=layout, source_size=source_size, window_size=window_size,
            shared_source=shared_source, border=border,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error


def accumulate_boxes(
    boxes: NDArray[np.int64], values: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Add up, for every pixel, the values of the boxes that cover it.

    Parameters
    ----------
    boxes : (n, 4) int64
        As in :func:`fill_occluded`.
    values : (n,) float64
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    total : (height, width) float64
        Sum of the values of the boxes over each pixel, in the order of the boxes.
    covered : (height, width) int64
        Number of those boxes.

    Raises
    ------
    InputError
        A box outside the image, or not one value per box.
    """
    try:
        return _core.accumulate_boxes(boxes, values, height, width)
    except ValueError as error:
        raise InputError(str(error), where="occlusion") from error
