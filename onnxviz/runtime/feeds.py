"""Arrays that a caller gives come in; as the model's inputs take them, or a sentence that says why not, they go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError, near_misses
from onnxviz.graph.values import GraphInput
from onnxviz.runtime.probing import numpy_dtype

__all__ = ["checked_array", "checked_feeds"]


def checked_feeds(
    inputs: Sequence[GraphInput], feeds: Mapping[str, NDArray[Any]], model: str
) -> dict[str, NDArray[Any]]:
    """Arrays for all inputs of the model that is called ``model``.

    Raises
    ------
    InputError
        An input is missing, unknown, or its array does not fit.
    """
    known = [value.name for value in inputs]
    for name in feeds:
        if name not in known:
            raise InputError(
                "the model has no such input", where=model, got=repr(name), allowed=near_misses(name, known)
            )
    missing = [name for name in known if name not in feeds]
    if missing:
        raise InputError(
            f"input {missing[0]!r} is missing",
            where=model,
            got=", ".join(map(repr, feeds)) or "no input",
            allowed=", ".join(map(repr, known)),
        )
    by_name = {value.name: value for value in inputs}
    return {
        name: checked_array(by_name[name], np.asarray(array), model, free_batch=False) for name, array in feeds.items()
    }


def checked_array(value: GraphInput, array: NDArray[Any], model: str, *, free_batch: bool) -> NDArray[Any]:
    """The array for one input of the model that is called ``model``; a free batch may have any number of rows.

    Raises
    ------
    InputError
        It does not fit.
    """
    where = f"input {value.name!r} of {model}"
    if value.shape is not None:
        wanted = [None if free_batch and axis == 0 else size for axis, size in enumerate(value.shape)]
        fits = len(wanted) == array.ndim and all(
            size == got for size, got in zip(wanted, array.shape, strict=True) if isinstance(size, int)
        )
        if not fits:
            shape = ", ".join("n" if size is None else str(size) for size in wanted)
            raise InputError("the array has the wrong shape", where=where, got=str(array.shape), allowed=f"({shape})")
    dtype = numpy_dtype(value.dtype)
    if array.dtype != dtype:
        # A wider or signed array would lose what it says; only conversions that keep every number are made.
        if not np.can_cast(array.dtype, dtype, "safe") and not (array.dtype.kind == "f" == dtype.kind):
            raise InputError(
                "the array has the wrong dtype",
                where=where,
                got=str(array.dtype),
                allowed=str(dtype),
                next_step="Encode images with model.preprocess, or convert the array",
            )
        array = array.astype(dtype)
    return np.ascontiguousarray(array)
