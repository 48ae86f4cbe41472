"""Arrays of the element types that devices have, for tests that must also run where onnx is not installed."""

from __future__ import annotations

import numpy as np
import pytest


def kind(dtype: str) -> np.dtype:
    """The dtype of a name; that of bfloat16 comes with onnx."""
    if dtype == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 on CUDA devices needs ml_dtypes").bfloat16)
    return np.dtype(dtype)


def random_array(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Any bits at all, but for booleans."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape, dtype=np.int64)) * kind(dtype).itemsize
    return rng.integers(0, 256, size, np.uint8).view(kind(dtype)).reshape(shape)
