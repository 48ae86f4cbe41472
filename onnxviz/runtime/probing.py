"""A model's inputs come in; seeded random feeds, and a measure of how far two answers differ, go out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.values import GraphInput
from onnxviz.inputs.preprocess import Preprocess

__all__ = ["numpy_dtype", "probe_feeds", "relative_difference"]

_FREE_AXIS = 8
"""Length given to a free axis of an input that is no image: nothing in the file tells it."""

_BRIGHTNESS = np.array([1, 0.2, 0.6, 0.05])

_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object", "bool": "bool"}


def numpy_dtype(name: str | None) -> np.dtype[Any]:
    """The numpy dtype of a value's dtype name; float32 where nothing is known."""
    if name is None:
        return np.dtype(np.float32)
    try:
        return np.dtype(_NUMPY_NAMES.get(name, name))
    except TypeError:
        import ml_dtypes  # comes with onnx: bfloat16 and the 8-bit floats

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def probe_feeds(
    inputs: Sequence[GraphInput], batch: int, *, image: str | None, preprocess: Preprocess | None
) -> dict[str, NDArray[Any]]:
    """Feeds for one run: encoded random photos for the image input, random or zero arrays for the others.

    Parameters
    ----------
    inputs : sequence of GraphInput
        The model's real inputs.
    batch : int
        Rows of every input whose first axis is free, and of the image input.
    image : str or None
        Name of the image input.
    preprocess : Preprocess or None
        How images are encoded for it.
    """
    random = np.random.default_rng(0)
    feeds: dict[str, NDArray[Any]] = {}
    for value in inputs:
        if value.name == image and preprocess is not None:
            height, width = preprocess.size
            photos = random.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
            # Images that differ as much as photographs do: what one does to its neighbours in a run then shows.
            bright = np.resize(_BRIGHTNESS, batch).reshape(-1, 1, 1, 1)
            feeds[value.name] = preprocess.encode((photos * bright).astype(np.uint8))
            continue
        free_batch = len(inputs) == 1
        shape = tuple(
            batch
            if axis == 0 and (free_batch or not isinstance(size, int))
            else size
            if isinstance(size, int)
            else _FREE_AXIS
            for axis, size in enumerate(value.shape or ())
        )
        dtype = numpy_dtype(value.dtype)
        feeds[value.name] = random.random(shape).astype(dtype) if dtype.kind in "fV" else np.zeros(shape, dtype)
    return feeds


def relative_difference(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest ``|got - expected|`` over the largest finite ``|expected|``; infinite where only one of them is NaN."""
    if got.shape != expected.shape:
        return float("inf")
    if got.size == 0 or got.dtype.kind not in "fiubV":
        return 0.0
    left, right = got.astype(np.float64), expected.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    difference = np.zeros_like(left)
    np.subtract(left, right, out=difference, where=~same)
    worst = float(np.max(np.abs(difference)))
    scale = float(np.max(np.abs(right), where=np.isfinite(right), initial=0.0))
    return worst / max(scale, 1e-30) if np.isfinite(worst) else float("inf")
