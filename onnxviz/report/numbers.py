"""Numbers of any kind → plain JSON and ``.npy`` bytes, the same on every run; NaN becomes null and is counted."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.results import Provenance

__all__ = ["array_bytes", "describe_array", "json_bytes", "plain", "provenance_numbers", "result_numbers"]


def plain(value: Any) -> tuple[Any, int]:
    """Reduce ``value`` to JSON types.

    Returns
    -------
    plain : None, bool, int, float, str, list or dict
        ``value`` with numpy types unwrapped; NaN and infinities are None. Only the name of a path is kept: where a
        file lies on this machine is no part of a result.
    lost : int
        How many numbers became None because they were not finite.
    """
    if value is None or isinstance(value, (bool, str)):
        return value, 0
    if isinstance(value, np.bool_):
        return bool(value), 0
    if isinstance(value, (int, np.integer)):
        return int(value), 0
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return (number, 0) if math.isfinite(number) else (None, 1)
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, PurePath):
        return value.name, 0
    if isinstance(value, Mapping):
        items = {str(key): plain(item) for key, item in value.items()}
        return {key: item for key, (item, _) in items.items()}, sum(lost for _, lost in items.values())
    if isinstance(value, (Sequence, set, frozenset)):
        parts = [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
        return [item for item, _ in parts], sum(lost for _, lost in parts)
    return str(value), 0


def json_bytes(value: Any) -> bytes:
    """Encode plain JSON types as UTF-8, indented, in the order given; refuses NaN."""
    # Lone surrogates (file names that are no UTF-8) stay readable as \udcXX because everything beyond ASCII is escaped.
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=True) + "\n").encode("ascii")


def array_bytes(array: NDArray[Any]) -> bytes:
    """The bytes of a ``.npy`` file (version 1.0, C order, little endian) holding ``array``."""
    ordered = np.ascontiguousarray(array)
    if ordered.dtype.byteorder == ">":
        ordered = ordered.astype(ordered.dtype.newbyteorder("<"))
    file = io.BytesIO()
    np.lib.format.write_array(file, ordered, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def describe_array(file: str, array: NDArray[Any], data: bytes) -> dict[str, Any]:
    """What results.json says of an array: its file and the file's SHA-256, dtype, shape, and how much is no number."""
    entry: dict[str, Any] = {
        "file": file,
        "sha256": hashlib.sha256(data).hexdigest(),
        "dtype": array.dtype.name,
        "shape": list(array.shape),
    }
    if array.dtype.kind == "f":
        entry["nan"] = int(np.isnan(array).sum())
        entry["infinite"] = int(np.isinf(array).sum())
    return entry


def provenance_numbers(provenance: Provenance) -> dict[str, Any]:
    """What made a result, without what the report says once for the whole set (model, contracts, versions)."""
    return {"method": provenance.method, "parameters": plain(provenance.parameters)[0], "provider": provenance.provider}


def result_numbers(result: Any) -> dict[str, Any]:
    """Every number of a method's result as plain JSON, arrays as nested lists; pictures of the input are left out."""
    numbers, lost = {}, 0
    for item in dataclasses.fields(result):
        value = getattr(result, item.name)
        if item.name == "provenance":
            value = dataclasses.asdict(value)
        elif _is_picture(value):
            continue
        numbers[item.name], count = plain(value)
        lost += count
    return {"result": type(result).__name__, **numbers, "not_finite_shown_as_null": lost}


def _is_picture(value: Any) -> bool:
    while isinstance(value, tuple) and value:
        value = value[0]
    return isinstance(value, np.ndarray) and value.dtype == np.uint8
