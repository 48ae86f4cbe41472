"""A map of an image in, its colours and the photo under them out: what the pictures of explanations share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.pictures import colors
from onnxviz.pictures.sheet import FINE, Sheet
from onnxviz.pictures.text import numeral
from onnxviz.pictures.tiles import Pixels, resize

__all__ = ["MapScale", "ends_text", "overlay_of", "paint_of", "scale_bar", "scale_of", "scale_text", "tile_side"]

PERCENTILE = 99.0
"""Of the magnitudes: the end of every colour scale, so that a few strong pixels do not make all others dark."""

_WANTED_PIXELS = 448


@dataclass(frozen=True)
class MapScale:
    """How numbers become colours."""

    low: float
    high: float
    colors_name: str
    """``"fire"`` where no number is negative, ``"balance"`` with 0 in its middle where some are."""
    clipped: bool
    """Whether some numbers lie beyond the ends."""
    finite: bool = True
    """Whether any number is finite."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show: every finite number is 0."""
        return self.high == 0 == self.low

    @property
    def ends(self) -> tuple[float, float]:
        """The numbers that get the first and the last colour: of an empty map any, so that 0 has its own."""
        return (-1.0 if self.colors_name == "balance" else 0.0, 1.0) if self.empty else (self.low, self.high)


def scale_of(values: NDArray[Any], *, signed: bool, percentile: float = PERCENTILE) -> MapScale:
    """The scale for a map: 0 in the middle where it is ``signed``, at one end where it is not."""
    finite = np.abs(values[np.isfinite(values)].astype(np.float64))
    largest = float(finite.max(initial=0.0))
    end = float(np.percentile(finite, percentile)) if finite.size else 0.0
    if end <= 0:
        # Less than one pixel in a hundred is other than 0: those are then what the scale is for.
        end = largest
    return MapScale(-end if signed else 0.0, end, "balance" if signed else "fire", largest > end, finite.size > 0)


def scale_text(scale: MapScale) -> str:
    """How the scale's ends were chosen, in a sentence."""
    if not scale.finite:
        return "No number of the map is finite: there is nothing to show."
    if scale.empty:
        return "The map is 0 everywhere: there is nothing to show."
    ends = f"99 % of the pixels lie within the colour scale, ±{numeral(scale.high)}"
    if scale.colors_name == "fire":
        ends = f"99 % of the pixels lie within the colour scale, 0 to {numeral(scale.high)}"
    return f"{ends}." if scale.clipped else f"The colour scale ends at the largest magnitude, {numeral(scale.high)}."


def ends_text(scale: MapScale) -> str:
    """The ends of the colour scale in a few words, or why there are none."""
    if not scale.finite:
        return "no finite number"
    return "0 everywhere" if scale.empty else f"{numeral(scale.low)} to {numeral(scale.high)}"


def tile_side(height: int, width: int) -> tuple[int, int, float]:
    """Height and width of a tile in units, and units per image pixel: whole drawn pixels where they can be."""
    longest = max(height, width, 1)
    whole = max(1, round(_WANTED_PIXELS / longest))
    factor = (whole if longest <= 1.5 * _WANTED_PIXELS else _WANTED_PIXELS / longest) / FINE
    return max(1, round(height * factor)), max(1, round(width * factor)), factor


def paint_of(values: NDArray[Any], scale: MapScale, height: int, width: int) -> Pixels:
    """(height, width, 3) RGB of a map, each of its pixels as a rectangle."""
    return colors.colorize(_spread(values, height, width), scale.colors_name, *scale.ends)


def overlay_of(photo: Pixels, values: NDArray[Any], scale: MapScale) -> Pixels:
    """The map over the greyed photo, the clearer the smaller its number."""
    spread = _spread(values, *photo.shape[:2])
    finite = np.isfinite(spread)
    strength = np.ones(spread.shape)
    np.divide(np.abs(spread), scale.high or np.inf, out=strength, where=finite)
    opacity = (np.sqrt(np.minimum(strength, 1.0)) * 0.85)[..., None]
    opacity[~finite] = 1.0
    grey = photo.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    ground = np.repeat(60 + grey[..., None] * 0.76, 3, axis=2)
    paint = colors.colorize(spread, scale.colors_name, *scale.ends).astype(np.float64)
    return np.asarray(np.rint(ground * (1 - opacity) + paint * opacity), dtype=np.uint8)


def _spread(values: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    wide: NDArray[np.float64] = np.asarray(values, np.float64)
    return np.asarray(wide[rows][:, columns])


def photo_of(image: Pixels, height: int, width: int) -> Pixels:
    """The photo at a tile's size in drawn pixels."""
    return resize(image, height * FINE, width * FINE)


def scale_bar(sheet: Sheet, x: float, y: float, width: float, scale: MapScale, label: str) -> None:
    """The colour bar of a map, or a word where the map is empty."""
    if scale.empty:
        sheet.text(x, y, ends_text(scale), size=7.2, color=colors.QUIET, width=width)
        return
    sheet.color_bar(
        x, y, width, colors_name=scale.colors_name, low=scale.low, high=scale.high, label=label, beyond=scale.clipped
    )
