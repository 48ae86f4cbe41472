"""Random arrays of any shape and type for cases that are written by hand, the same ones in every run of a file."""

from __future__ import annotations

import numpy as np


class RandomArrays:
    """Arrays drawn one after the other from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def floats(self, *shape: int, kind: type = np.float32) -> np.ndarray:
        return np.asarray(self._random.standard_normal(shape), kind)

    def within(self, low: float, high: float, *shape: int, kind: type = np.float32) -> np.ndarray:
        return np.asarray(self._random.uniform(low, high, shape), kind)

    def integers(self, low: int, high: int, *shape: int, kind: type = np.uint8) -> np.ndarray:
        return self._random.integers(low, high, shape).astype(kind)

    def spaced(self, *shape: int) -> np.ndarray:
        """Different numbers in random order, neighbours 0.1 apart."""
        count = int(np.prod(shape))
        return ((self._random.permutation(count) - count / 2) / 10).reshape(shape).astype(np.float32)
