"""Pictures come in; the same with little total variation go out: edges stay, noise goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["denoise", "roughness_gradient"]

Floats = NDArray[np.float32]

ITERATIONS = 40
_ROUNDED = 1e-2


def denoise(pictures: Floats, weight: float, iterations: int = ITERATIONS) -> Floats:
    """Minimise total variation plus ``weight`` / 2 times the squared distance from the picture, channel by channel.

    Parameters
    ----------
    pictures : (n, channels, height, width) float32
        In any unit; ``weight`` belongs to it (0 to 255 in Nguyen, Yosinski and Clune 2016).
    weight : float
        Above 0. A **smaller** weight smooths **more**.
    iterations : int

    Returns
    -------
    (n, channels, height, width) float32

    Notes
    -----
    The model of Rudin, Osher and Fatemi 1992, isotropic. Nguyen, Yosinski and Clune 2016 solve it by split Bregman
    (Goldstein and Osher 2009) as scikit-image does; here the fast gradient projection on the dual (Chambolle 2004; Beck
    and Teboulle 2009) approaches the same minimum, with operations on whole arrays.
    """
    weight32 = np.float32(weight)
    down, right = np.zeros_like(pictures), np.zeros_like(pictures)
    fast_down, fast_right = down, right
    momentum = 1.0
    for _ in range(iterations):
        by_down, by_right = _differences(pictures + _divergence(fast_down, fast_right) / weight32)
        by_down *= weight32 / 8
        by_right *= weight32 / 8
        by_down += fast_down
        by_right += fast_right
        size = np.maximum(np.hypot(by_down, by_right), np.float32(1))
        by_down /= size
        by_right /= size
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        share = np.float32((momentum - 1) / following)
        fast_down, fast_right = by_down + share * (by_down - down), by_right + share * (by_right - right)
        down, right, momentum = by_down, by_right, following
    return pictures + _divergence(down, right) / weight32


def roughness_gradient(pictures: Floats) -> Floats:
    """Derivative, by the pixels, of the sum over all pairs of neighbours of how far they differ.

    Differences count by their magnitude, rounded off below about a hundredth of the way from black to white.
    """
    down, right = _differences(pictures)
    return -_divergence(down / np.sqrt(down**2 + _ROUNDED**2), right / np.sqrt(right**2 + _ROUNDED**2))


def _differences(pictures: Floats) -> tuple[Floats, Floats]:
    """To the pixel below and to the right; 0 at the border."""
    down, right = np.zeros_like(pictures), np.zeros_like(pictures)
    np.subtract(pictures[:, :, 1:], pictures[:, :, :-1], out=down[:, :, :-1])
    np.subtract(pictures[:, :, :, 1:], pictures[:, :, :, :-1], out=right[:, :, :, :-1])
    return down, right


def _divergence(down: Floats, right: Floats) -> Floats:
    """Minus the adjoint of :func:`_differences`; what stands in the last row and column of its fields counts for 0."""
    total = np.zeros_like(down)
    total[:, :, :-1] += down[:, :, :-1]
    total[:, :, 1:] -= down[:, :, :-1]
    total[:, :, :, :-1] += right[:, :, :, :-1]
    total[:, :, :, 1:] -= right[:, :, :, :-1]
    return total
