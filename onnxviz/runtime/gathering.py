"""The arrays of run after run come in; one array for each value, with the rows of all of them, goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["gather"]

Arrays = dict[str, NDArray[Any]]


def gather(
    steps: Iterator[tuple[int, Arrays]], names: Sequence[str], rows: int, axes: Mapping[str, int]
) -> Arrays | None:
    """Rows of all steps in one array per value; ``rows`` is their expected number. None where there was no step.

    Each step is copied once, straight to its place: it is valid until the next one only. ``axes`` names the values
    whose images do not lie along the first axis, with the axis along which they do.
    """
    gathered: Arrays | None = None
    filled = 0
    odd: dict[str, list[NDArray[Any]]] = {}
    for count, arrays in steps:
        if gathered is None:
            gathered = {name: np.empty((rows, *arrays[name].shape[1:]), arrays[name].dtype) for name in names}
        for name in names:
            part = np.atleast_1d(arrays[name])
            whole = gathered[name]
            fits = name not in axes and len(part) == count and part.shape[1:] == whole.shape[1:]
            if name not in odd and fits:
                whole[filled : filled + count] = part
            else:
                # A value without one row per image (windows, a detector's boxes) is only strung together.
                odd.setdefault(name, [whole[:filled].copy()] if filled else []).append(part.copy())
        filled += count
    if gathered is None:
        return None
    strung = {name: np.concatenate(parts, axis=axes.get(name, 0)) for name, parts in odd.items()}
    return {name: strung[name] if name in strung else gathered[name][:filled] for name in names}
