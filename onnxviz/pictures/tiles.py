"""Many small pictures in, one RGB array out: grids, strips and single images brought to a tile's size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxviz.pictures import colors

__all__ = ["Pixels", "columns_for", "enlarge", "fit", "frame", "grid", "resize"]

Pixels = NDArray[np.uint8]


def enlarge(pixels: Pixels, factor: int) -> Pixels:
    """Every pixel as a square of ``factor`` × ``factor``."""
    return np.repeat(np.repeat(pixels, factor, axis=0), factor, axis=1)


def columns_for(count: int, width: int, height: int, *, aspect: float = 1.0) -> int:
    """Columns of a grid of ``count`` tiles of width × height pixels, ``aspect`` times as wide as tall.

    Near that shape, the number that leaves the fewest empty cells in the last row.
    """
    if not count:
        return 1
    width, height = max(width, 1), max(height, 1)
    wished = min(count, math.ceil(math.sqrt(aspect * count * height / width)))
    choices = range(max(1, math.ceil(wished * 0.8)), min(count, math.floor(wished * 1.2)) + 1)
    return min(choices, key=lambda columns: (-count % columns, abs(columns - wished)))


def grid(tiles: Sequence[Pixels], columns: int, *, gap: int, background: str = "#000000", margin: int = 0) -> Pixels:
    """(h, w, 3) of equal tiles, row by row, ``gap`` pixels apart; an empty list gives one pixel of background."""
    if not tiles:
        return np.full((1, 1, 3), colors.rgb(background), dtype=np.uint8)
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full(
        (rows * (height + gap) - gap + 2 * margin, columns * (width + gap) - gap + 2 * margin, 3),
        colors.rgb(background),
        dtype=np.uint8,
    )
    for index, tile in enumerate(tiles):
        top, left = (
            margin + index // columns * (height + gap),
            margin + index % columns * (width + gap),
        )
        canvas[top : top + height, left : left + width] = tile
    return canvas


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """RGB brought to height × width: each pixel kept visible when it grows threefold or more, else Lanczos."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if 0 in pixels.shape[:2]:
        return np.full((height, width, 3), colors.rgb(colors.EMPTY), dtype=np.uint8)
    from PIL import Image

    grows = min(height / pixels.shape[0], width / pixels.shape[1])
    method = Image.Resampling.NEAREST if grows >= 3 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), method))


def fit(pixels: Pixels, height: int, width: int, *, background: str = colors.EMPTY) -> Pixels:
    """RGB brought into height × width with its aspect kept, in the middle of ``background``."""
    if 0 in pixels.shape[:2]:
        return np.full((height, width, 3), colors.rgb(background), dtype=np.uint8)
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    inner = max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))
    canvas = np.full((height, width, 3), colors.rgb(background), dtype=np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resize(pixels, *inner)
    return canvas


def frame(pixels: Pixels, color: str, thickness: int) -> Pixels:
    """A copy with a border of ``thickness`` pixels painted over its edge."""
    framed = pixels.copy()
    paint = colors.rgb(color)
    framed[:thickness] = framed[-thickness:] = paint
    framed[:, :thickness] = framed[:, -thickness:] = paint
    return framed
