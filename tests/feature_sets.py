"""Features made of a matrix, for the tests of methods that start from features."""

from __future__ import annotations

from typing import Any

import numpy as np

from drawn_results import provenance
from onnxviz.results import Features


def feature_set(array: Any, classes: Any = None, **changed: Any) -> Features:
    """One feature vector per row; class number c is called ``"c<number>"``."""
    rows = np.asarray(array)
    labels = None if classes is None else np.asarray(classes, np.int64)
    known: dict[str, Any] = {
        "value": "flatten",
        "array": rows,
        "indices": np.arange(len(rows)),
        "pooled": False,
        "names": tuple(f"{index}.png" for index in range(len(rows))),
        "classes": labels,
        "class_names": None if labels is None else tuple(f"c{number}" for number in range(int(labels.max()) + 1)),
        "provenance": provenance("features", value="flatten"),
    }
    return Features(**(known | changed))


def spread(rows: int, dimensions: int = 16, seed: int = 0) -> np.ndarray:
    """Rows about equally far apart: in so many dimensions none has another within half the usual distance."""
    return np.random.default_rng(seed).normal(size=(rows, dimensions))
