"""Numbers come in; their exact sum goes out, the same whatever the order they came in and however they were grouped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_limbs", "limbs_total"]

# Floating-point addition is not associative, so partial sums merged in another order would differ in their last bits.
# Every number is therefore cut into integers of 32 bits at fixed binary places (a superaccumulator, Kulisch 1971);
# integers add exactly. 18 limbs reach from 2**-288 to 2**288, which holds every sum of squares of float32 numbers
# to far below the last bit of the largest of them.
_LIMBS = 18
_BITS = 32
_LOWEST = -_BITS * _LIMBS // 2


def exact_limbs(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sum finite numbers over the first axis exactly.

    Parameters
    ----------
    numbers : ndarray of shape (n, channels), float64
        Finite, below 2**288 in size; n below 2**31.

    Returns
    -------
    ndarray of shape (18, channels), int64
        The sum as limbs; limbs of two sums add element by element.
    """
    rest = numbers.copy()
    limbs = np.empty((_LIMBS, numbers.shape[1]), np.int64)
    for place in range(_LIMBS - 1, -1, -1):
        unit = 2.0 ** (_LOWEST + _BITS * place)
        digit = np.trunc(rest / unit)
        limbs[place] = digit.astype(np.int64).sum(axis=0)
        rest -= digit * unit
    return limbs


def limbs_total(limbs: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum that limbs stand for, correctly rounded; (channels,) float64."""
    scale = 2 ** (-_LOWEST)
    columns: list[list[Any]] = limbs.T.tolist()
    return np.array(
        [sum(limb << (_BITS * place) for place, limb in enumerate(column)) / scale for column in columns], np.float64
    )
