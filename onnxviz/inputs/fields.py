"""What somebody stated for one field of a contract comes in; the same, checked and of one plain type, goes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxviz.errors import ContractError, near_misses

__all__ = ["CONVERSIONS", "MAX_SIDE", "invalid", "one_of", "per_channel"]

# Beyond this a single view is gigabytes, and the number is a mistake.
MAX_SIDE = 16384


def one_of(where: str, got: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """Give the word back, or refuse it with the words that are allowed, the most similar first."""
    if got not in allowed:
        raise ContractError(
            "no such choice",
            where=where,
            got=repr(got),
            allowed=near_misses(got, allowed, count=len(allowed)),
            next_step="Correct the word, or leave the field out",
        )
    return got


def invalid(where: str, got: object, allowed: str) -> ContractError:
    """Say that a field cannot hold this."""
    return ContractError("the field cannot hold this", where=where, got=repr(got), allowed=allowed)


def _as_number(name: str, value: Any) -> float:
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number):
            return number
    raise invalid(name, value, "a finite number")


def _as_whole(name: str, value: Any) -> int:
    number = _as_number(name, value)
    if number != int(number):
        raise invalid(name, value, "a whole number")
    return int(number)


def _as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(name, value, "text")
    return value


def _as_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(name, value, "true or false")
    return value


def _as_size(name: str, value: Any) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, (int, np.integer)) else value
    if not isinstance(sides, (Sequence, np.ndarray)) or isinstance(sides, str) or len(sides) != 2:
        raise invalid(name, value, "[height, width], or one number for a square")
    height, width = (_as_whole(name, side) for side in sides)
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise invalid(name, value, f"1 to {MAX_SIDE} pixels")
    return height, width


def _as_quantization(name: str, value: Any) -> tuple[float, int] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        if set(value) != {"scale", "zero_point"}:
            raise invalid(name, dict(value), "{scale, zero_point}")
        value = (value["scale"], value["zero_point"])
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise invalid(name, value, "{scale, zero_point}")
    scale, zero_point = _as_number(name, value[0]), _as_whole(name, value[1])
    if scale <= 0:
        raise invalid(name, value, "a scale above 0")
    return scale, zero_point


def _as_color(name: str, value: Any) -> tuple[int, int, int]:
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or len(value) != 3:
        raise invalid(name, value, "[red, green, blue], 0 to 255")
    red, green, blue = (_as_whole(name, part) for part in value)
    if min(red, green, blue) < 0 or max(red, green, blue) > 255:
        raise invalid(name, value, "[red, green, blue], 0 to 255")
    return red, green, blue


def per_channel(name: str, value: Any, channels: str) -> tuple[float, ...]:
    """One number for each channel, from one for all or one for each."""
    count = 1 if channels == "GRAY" else 3
    if isinstance(value, (int, float, np.integer, np.floating)):
        return (_as_number(name, value),) * count
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        raise invalid(name, value, "a number, or one for each channel")
    numbers = tuple(_as_number(name, part) for part in value)
    if len(numbers) == 3 and count == 1 and len(set(numbers)) == 1:
        return numbers[:1]
    if len(numbers) != count:
        raise ContractError(
            f"{channels} has {count} channel{'s' if count > 1 else ''}",
            where=name,
            got=f"{len(numbers)} numbers",
            allowed=f"one number, or {count}",
            next_step=f"State {name} in the order of the channels",
        )
    return numbers


CONVERSIONS = {
    "size": _as_size,
    "fit": _as_text,
    "crop_fraction": _as_number,
    "interpolation": _as_text,
    "channels": _as_text,
    "scale": _as_number,
    "layout": _as_text,
    "dtype": _as_text,
    "quantization": _as_quantization,
    "background": _as_color,
    "source": _as_text,
    "name": _as_text,
    "why": _as_text,
    "guessed": _as_flag,
}
