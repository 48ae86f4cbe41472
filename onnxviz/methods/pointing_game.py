"""Maps and the boxes of what they should point at come in; how many of them point there goes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.results import PointingGame, Provenance
from onnxviz.runtime.versions import versions

__all__ = ["peak_of", "pointing_game", "wilson_interval"]

_Z = 1.959963984540054  # the normal distribution's 97.5 % quantile: an interval of 95 %


def pointing_game(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    boxes: Sequence[NDArray[Any] | Sequence[Sequence[int]]] | NDArray[np.integer[Any]],
    *,
    tolerance: float = 15,
    classes: Sequence[int] | NDArray[np.integer[Any]] | None = None,
) -> PointingGame:
    """Count the maps whose strongest pixel lies on the object (Zhang, Lin, Brandt, Shen, Sclaroff 2016).

    Parameters
    ----------
    maps : sequence of (height, width) numbers
        One for each image and class that is asked; sizes may differ.
    boxes : sequence of (n, 4) int, or (maps, 4) int
        The boxes of the asked class in each image, in pixels of its map: top, left, bottom, right, bottom and right
        exclusive.
    tolerance : float
        A map hits where a pixel of one of its boxes is at most so many pixels (Euclidean) from the map's maximum. 15 is
        the authors' choice, for photographs of a few hundred pixels a side; 0 asks for the box itself.
    classes : (maps,) int, optional
        The class that each map was asked for; the accuracy is then also averaged over classes, as the authors do.

    Returns
    -------
    PointingGame
        Where several pixels share the largest number, the first in row order is the maximum; NaN never is.

    Raises
    ------
    InputError
        There is no map, a map is not of two axes or has no number, or a map has no box.
    """
    if isinstance(tolerance, bool) or not math.isfinite(tolerance) or tolerance < 0:
        raise InputError("not a tolerance", where="tolerance", got=repr(tolerance), allowed="pixels, 0 or more")
    if not len(maps):
        raise InputError("there is no map", where="maps", allowed="one (height, width) array per image and class")
    if len(maps) != len(boxes):
        raise InputError(
            "every map needs its boxes", where="boxes", got=f"{len(maps)} maps, boxes for {len(boxes)}",
            allowed="as many as there are maps",
        )  # fmt: skip
    peaks = np.array([peak_of(each, where=f"map {index}") for index, each in enumerate(maps)], np.int64)
    distances = np.array([_distance(peak, _boxes(boxes[index], index)) for index, peak in enumerate(peaks)])
    hits = distances <= tolerance
    count = int(hits.sum())
    return PointingGame(
        hits=hits,
        peaks=peaks,
        distances=distances,
        accuracy=count / len(hits),
        interval=wilson_interval(count, len(hits)),
        class_accuracy=None if classes is None else _over_classes(hits, classes),
        tolerance=float(tolerance),
        provenance=Provenance("pointing_game", "", "", {}, {}, {"tolerance": float(tolerance)}, versions(), ""),
    )


def peak_of(numbers: NDArray[Any], *, where: str) -> tuple[int, int]:
    """Row and column of the largest number of a map; the first in row order of several, never NaN.

    Raises
    ------
    InputError
        Not a map of two axes, or nothing in it is a number.
    """
    array = np.asarray(numbers)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.size:
        raise InputError(
            "not a map",
            where=where,
            got=f"{array.dtype} of shape {array.shape}",
            allowed="(height, width) real numbers",
        )
    real = array.astype(np.float64)
    if np.isnan(real).all():
        raise InputError("the map holds no number", where=where, got="NaN everywhere")
    row, column = np.unravel_index(int(np.nanargmax(real)), real.shape)
    return int(row), int(column)


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Interval that covers the true rate with 95 % (Wilson 1927); it stays inside [0, 1] and is not empty at 0 or 1.

    Parameters
    ----------
    hits, trials : int
        ``trials`` is 1 or more.

    Returns
    -------
    (low, high)
    """
    rate, weight = hits / trials, _Z**2 / trials
    middle = (rate + weight / 2) / (1 + weight)
    reach = _Z / (1 + weight) * math.sqrt(rate * (1 - rate) / trials + weight / (4 * trials))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def _boxes(given: Any, index: int) -> NDArray[np.int64]:
    array = np.asarray(given)
    array = array[np.newaxis] if array.ndim == 1 else array
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1:] != (4,) or not len(array):
        raise InputError(
            "not boxes", where=f"boxes of map {index}", got=f"{array.dtype} of shape {array.shape}",
            allowed="whole numbers (n, 4): top, left, bottom, right, at least one box",
        )  # fmt: skip
    array = array.astype(np.int64)
    if (array[:, :2] >= array[:, 2:]).any():
        raise InputError(
            "a box is empty",
            where=f"boxes of map {index}",
            got=str(array.tolist()),
            allowed="top < bottom, left < right",
        )
    return array


def _distance(peak: NDArray[np.int64], boxes: NDArray[np.int64]) -> float:
    """Pixels from the maximum to the nearest pixel of a box."""
    below, above = boxes[:, :2] - peak, peak - (boxes[:, 2:] - 1)
    return float(np.hypot(*np.maximum(np.maximum(below, above), 0).T).min())


def _over_classes(hits: NDArray[np.bool_], classes: Any) -> float:
    numbers = np.asarray(classes)
    if numbers.shape != hits.shape or numbers.dtype.kind not in "iu":
        raise InputError(
            "not one class for each map", where="classes", got=f"{numbers.dtype} of shape {numbers.shape}",
            allowed=f"{len(hits)} whole numbers",
        )  # fmt: skip
    return float(np.mean([hits[numbers == number].mean() for number in np.unique(numbers)]))
