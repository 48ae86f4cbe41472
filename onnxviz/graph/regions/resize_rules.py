"""Rules of Resize and Upsample: which input positions every output position is interpolated from."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.regions.axis_maps import AxisMap, Nominal, Same, Taps, Whole
from onnxviz.graph.regions.box_maps import BoxMap, PerAxis
from onnxviz.graph.regions.node import Operator

__all__ = ["resize"]


def resize(operator: Operator, number: int, output: int) -> BoxMap | None:
    """Resize (nearest, linear, cubic; every coordinate mode; antialias) and Upsample, axis by axis."""
    if number != 0:
        return None
    shape, outputs = operator.shape_in(0), operator.shape_out(output)
    rank = len(shape)
    old = operator.op_type == "Upsample" or operator.opset < 11
    axes = [axis % rank for axis in operator.attributes.get("axes") or range(rank)]
    scales = _scales(operator, len(axes), old)
    links: list[tuple[int | None, AxisMap]] = [(axis, Same()) for axis in range(rank)]
    for place, axis in enumerate(axes):
        length, wanted = shape[axis], outputs[axis]
        scale = scales[place] if scales else wanted / length
        if length == 1:
            links[axis] = (None, Whole(1))
        elif scale != 1 or length != wanted:
            region = _region(operator, place, len(axes))
            links[axis] = (axis, _resized_axis(operator, length, wanted, scale=scale, old=old, region=region))
    return PerAxis(tuple(links), outputs)


def _scales(operator: Operator, count: int, old: bool) -> list[float] | None:
    found = operator.numbers(1 if old else 2, "scales")
    return found if found and len(found) == count else None


def _region(operator: Operator, place: int, count: int) -> tuple[float, float]:
    if operator.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        return 0.0, 1.0
    corners = operator.numbers(1) or [0.0] * count + [1.0] * count
    return corners[place], corners[place + count]


def _resized_axis(
    operator: Operator, length: int, wanted: int, *, scale: float, old: bool, region: tuple[float, float]
) -> AxisMap:
    mode = str(operator.attributes.get("mode", "nearest"))
    coordinates = "asymmetric" if old else str(operator.attributes.get("coordinate_transformation_mode", "half_pixel"))
    # The float32 arithmetic of an implementation may give a hair of weight to a neighbour that exact arithmetic
    # gives none, and the other way round: a tap counts when either of the two reads it.
    tables = [
        _taps(
            operator,
            mode,
            _source(coordinates, length, wanted, scale=scale, region=region, kind=kind),
            length,
            scale=scale,
            old=old,
        )
        for kind in (np.float32, np.float64)
    ]
    return Taps(np.concatenate(tables, axis=1), length, _nominal(mode, coordinates, length, wanted))


def _source(
    coordinates: str, length: int, wanted: int, *, scale: float, region: tuple[float, float], kind: type[Any]
) -> NDArray[Any]:
    place = np.arange(wanted, dtype=kind)
    factor = kind(scale)
    half = kind(0.5)
    if coordinates == "asymmetric":
        return np.asarray(place / factor)
    if coordinates == "align_corners":
        return np.asarray(place * kind(length - 1) / kind(wanted - 1) if wanted > 1 else np.zeros_like(place))
    if coordinates == "pytorch_half_pixel":
        return np.asarray((place + half) / factor - half if wanted > 1 else np.zeros_like(place))
    if coordinates == "tf_half_pixel_for_nn":
        return np.asarray((place + half) / factor)
    if coordinates == "tf_crop_and_resize":
        start, end = kind(region[0]), kind(region[1])
        if wanted == 1:
            return np.asarray(np.full(1, half * (start + end) * kind(length - 1)))
        return np.asarray(start * kind(length - 1) + place * (end - start) * kind(length - 1) / kind(wanted - 1))
    if coordinates == "half_pixel_symmetric":
        adjustment = kind(wanted) / (factor * kind(length))
        centre = kind(length) / 2
        return np.asarray(centre * (1 - adjustment) + (place + half) / factor - half)
    if coordinates == "half_pixel":
        return np.asarray((place + half) / factor - half)
    raise LookupError(f"coordinate mode {coordinates}")


def _taps(
    operator: Operator, mode: str, source: NDArray[Any], length: int, *, scale: float, old: bool
) -> NDArray[np.int64]:
    outside = np.zeros(len(source), bool)
    if operator.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        # What lies outside the image takes the extrapolation value and reads nothing.
        outside = (source < 0) | (source > length - 1)
    if mode == "nearest":
        table = _nearest(operator, source, scale, old)[:, None]
    elif operator.attributes.get("antialias", 0) and scale < 1:
        table = _antialiased(mode, source, scale, length)
    elif mode in ("linear", "bilinear"):
        clamped = np.clip(source, 0, length - 1)
        low = np.floor(clamped)
        table = np.stack([low, np.where(clamped == low, low, low + 1)], axis=1)
    elif mode == "cubic":
        low = np.floor(source)
        table = low[:, None] + np.arange(-1, 3)
        table = np.where((source == low)[:, None], low[:, None], table)
    else:
        raise LookupError(f"mode {mode}")
    inside = np.clip(table, 0, length - 1).astype(np.int64)
    return np.asarray(np.where(outside[:, None], -1, inside))


def _nearest(operator: Operator, source: NDArray[Any], scale: float, old: bool) -> NDArray[Any]:
    if old:
        return np.asarray(np.ceil(source) if scale < 1 and operator.op_type == "Resize" else np.floor(source))
    rounding = operator.attributes.get("nearest_mode", "round_prefer_floor")
    if rounding == "floor":
        return np.asarray(np.floor(source))
    if rounding == "ceil":
        return np.asarray(np.ceil(source))
    if rounding == "round_prefer_ceil":
        return np.asarray(np.floor(source + 0.5))
    return np.asarray(np.ceil(source - 0.5))


def _antialiased(mode: str, source: NDArray[Any], scale: float, length: int) -> NDArray[Any]:
    # The triangle or cubic is stretched by 1/scale and renormalised over the positions that it covers.
    support = (2.0 if mode == "cubic" else 1.0) / scale
    centre = source.astype(np.float64) + 0.5
    first = np.maximum(np.floor(centre - support + 0.5), 0)
    last = np.minimum(np.floor(centre + support + 0.5), length) - 1
    width = int((last - first).max()) + 1
    return np.asarray(np.minimum(first[:, None] + np.arange(width), last[:, None]))


def _nominal(mode: str, coordinates: str, length: int, wanted: int) -> Nominal:
    ratio = Fraction(length, wanted)
    if coordinates == "align_corners" and wanted > 1:
        ratio = Fraction(length - 1, wanted - 1)
    step, divisor = 2 * ratio.numerator, 2 * ratio.denominator
    half = "half_pixel" in coordinates and coordinates != "tf_half_pixel_for_nn"
    start = ratio.numerator - ratio.denominator if half else 0
    if mode == "nearest":
        start += divisor // 2 if half else 0
        return Nominal(step, start, start, divisor)
    reach = divisor if mode == "cubic" else 0
    return Nominal(step, start - reach, start + divisor + reach, divisor)
