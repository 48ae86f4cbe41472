"""An image and the name of a substitute come in; what the network is shown where pixels are taken away goes out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.preprocess import Preprocess
from onnxviz.methods.patches import BASELINES, baseline_fill

__all__ = ["SUBSTRATES", "Substrate", "substrate"]

Substrate = str | Sequence[float] | NDArray[np.floating[Any]]

SUBSTRATES = ("zero", "blur", *(name for name in BASELINES if name != "blur"))

_KERNEL_SIDE = 11
_SIGMA = 5.0


def substrate(preprocess: Preprocess, view: NDArray[np.uint8], wanted: Substrate) -> NDArray[Any]:
    """Encode what stands in for the image.

    Parameters
    ----------
    preprocess : Preprocess
    view : (height, width, 3) uint8
        What the network sees.
    wanted : str or (3,) numbers
        ``"zero"``, the number 0 in the model's input space: the mean colour where the contract subtracts one, black
        where it does not, the zero point of a quantised input; ``"blur"``, the image under the Gaussian of 11 × 11
        pixels with which Petsiuk, Das and Saenko 2018 measure insertion; or ``"mean"``, ``"dataset"``, ``"grey"`` or an
        RGB colour 0..255, as in :func:`~onnxviz.methods.occlusion.occlusion`.

    Returns
    -------
    (*input shape without the batch)
        In the model's own dtype and layout.

    Raises
    ------
    InputError
        No such substitute.
    """
    if not isinstance(wanted, str):
        return baseline_fill(preprocess, view, wanted, (1, 1))[1]
    if wanted not in SUBSTRATES:
        raise InputError(
            "no such substrate", where="substrate", got=repr(wanted),
            allowed=", ".join(map(repr, SUBSTRATES)) + ", or three numbers from 0 to 255",
        )  # fmt: skip
    encoded = preprocess.encode(view[np.newaxis])[0]
    if wanted == "zero":
        return np.full_like(encoded, preprocess.quantization[1] if preprocess.quantization else 0)
    if wanted == "blur":
        return as_stored(_blurred(encoded, 0 if preprocess.layout == "NHWC" else 1), encoded.dtype)
    return baseline_fill(preprocess, view, wanted, (1, 1))[1]


def as_stored(numbers: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers in tensor units brought to the input's dtype; whole ones are rounded half to even and clipped."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        numbers = np.clip(np.rint(numbers), limits.min, limits.max)
    return np.ascontiguousarray(numbers.astype(dtype))


def _blurred(encoded: NDArray[Any], first: int) -> NDArray[np.float64]:
    """Blur the two axes of space, of which ``first`` is the upper."""
    from scipy.ndimage import correlate1d

    blurred = encoded.astype(np.float64)
    for axis in (first, first + 1):
        # The border is mirrored: with zeros around it, as in the authors' code, the frame would darken.
        blurred = correlate1d(blurred, _kernel(), axis=axis, mode="reflect")
    return blurred


@cache
def _kernel() -> NDArray[np.float64]:
    """(11,) one axis of the kernel: the Gaussian's tails are cut by the small box and mirrored back into it."""
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(_KERNEL_SIDE)
    impulse[_KERNEL_SIDE // 2] = 1
    return np.asarray(gaussian_filter1d(impulse, _SIGMA, mode="reflect"))
