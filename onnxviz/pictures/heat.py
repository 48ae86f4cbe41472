"""A photo and a map of its pixels in, the photo in grey with the map's colours over it out; and marks on pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.pictures import colors
from onnxviz.pictures.sheet import Sheet
from onnxviz.pictures.tiles import Pixels, resize

__all__ = ["drawn_size", "heat", "mark_box", "mark_point"]

_PAINT = 0.68


def drawn_size(image: Pixels, side: float) -> tuple[int, int, float]:
    """Height and width in units of an image whose longer side is ``side``, and units per pixel."""
    height, width = image.shape[:2]
    scale = side / max(height, width, 1)
    return max(1, round(height * scale)), max(1, round(width * scale)), scale


def heat(
    image: Pixels,
    numbers: NDArray[np.floating[Any]],
    height: int,
    width: int,
    *,
    limits: tuple[float, float] | None = None,
    colors_name: str = "fire",
) -> Pixels:
    """(height, width, 3) RGB: dark where the map is low, bright where it is high, the photo showing through."""
    photo = resize(image, height, width)
    rows = np.arange(height) * numbers.shape[0] // height
    columns = np.arange(width) * numbers.shape[1] // width
    values = np.asarray(numbers, dtype=np.float64)[rows][:, columns]
    low, high = limits or colors.finite_range(values)
    paint = colors.colorize(values, colors_name, low, high).astype(np.float64)
    grey = photo.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    opacity = np.where(np.isfinite(values), _PAINT, 1.0)[..., np.newaxis]
    return np.asarray(np.rint(paint * opacity + grey[..., np.newaxis] * (1 - opacity)), dtype=np.uint8)


def mark_box(sheet: Sheet, box: NDArray[np.integer[Any]], x: float, y: float, scale: float) -> None:
    """Outline top, left, bottom, right (in pixels) of a picture whose corner is at (x, y)."""
    top, left, bottom, right = (float(edge) * scale for edge in box)
    across, down = (
        [x + left, x + right, x + right, x + left, x + left],
        [y + top, y + top, y + bottom, y + bottom, y + top],
    )
    sheet.line(across, down, color="#000000", width=2.4)
    sheet.line(across, down, color="#ffffff", width=1.0)


def mark_point(
    sheet: Sheet, row: float, column: float, x: float, y: float, scale: float, *, color: str = "#ffffff"
) -> None:
    """A cross over the middle of a pixel."""
    middle_x, middle_y = x + (column + 0.5) * scale, y + (row + 0.5) * scale
    for under, width in (("#000000", 3.2), (color, 1.5)):
        for across, down in (([-5, 5], [-5, 5]), ([-5, 5], [5, -5])):
            sheet.line(
                [middle_x + step for step in across], [middle_y + step for step in down], color=under, width=width
            )
