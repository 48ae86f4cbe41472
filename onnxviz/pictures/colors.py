"""Numbers in, RGB out: the colour maps of every picture, each even in lightness and safe for colour-blind readers.

Whatever is not finite is drawn in one colour that no map holds (``NOT_FINITE``).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = [
    "BAND",
    "BAR",
    "CATEGORIES",
    "EMPTY",
    "INK",
    "NEUTRAL",
    "NOT_FINITE",
    "PALE",
    "PAPER",
    "QUIET",
    "RIGHT",
    "RULE",
    "WARNING",
    "WRONG",
    "color_map",
    "colorize",
    "finite_range",
    "rgb",
    "symmetric_range",
    "to_bytes",
]

INK = "#1b1f24"
QUIET = "#5b6570"
RULE = "#d5dae0"
PALE = "#eef1f4"
PAPER = "#ffffff"
BAR = "#2f6f9f"
BAND = "#b9d3e6"
NEUTRAL = "#9aa4ae"
EMPTY = "#e3e7eb"
NOT_FINITE = "#ff00e6"
# Bluish green and vermillion of Okabe and Ito (2008): told apart by every kind of colour vision.
RIGHT = "#009e73"
WRONG = "#d55e00"
WARNING = "#b34700"

# Tol's "muted" scheme (2021, technical note SRON/EPS/TN/09-002), told apart by every kind of colour vision, and orange.
CATEGORIES = (
    "#332288",
    "#44aa99",
    "#ddcc77",
    "#cc6677",
    "#88ccee",
    "#117733",
    "#aa4499",
    "#999933",
    "#882255",
    "#ee7733",
)

_FIRE = ("#000000", "#3b0008", "#8c0a0a", "#d42a08", "#f9780a", "#fdc02c", "#fff08a", "#ffffff")
_BALANCE = ("#06356b", "#2a78b5", "#86b9dc", "#f5f5f5", "#f0a685", "#cc4b37", "#6d0a1e")


@functools.cache
def color_map(name: str) -> Colormap:
    """A colour map by role: ``"fire"``, ``"balance"`` (diverging), ``"grey"``, ``"viridis"``.

    ``fire`` (black, red, yellow, white) and ``balance`` (blue, near-white, red) are re-spaced so that lightness
    (CIE L*) changes by equal steps.
    """
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    if name == "fire":
        return _even(name, _FIRE)
    if name == "balance":
        cold, warm = _even(name, _BALANCE[:4], 128), _even(name, _BALANCE[3:], 128)
        steps = np.linspace(0, 1, 128)
        return LinearSegmentedColormap.from_list(name, np.concatenate([cold(steps), warm(steps)])[:, :3], N=256)
    return mpl.colormaps["gray" if name == "grey" else name]


def _even(name: str, anchors: tuple[str, ...], entries: int = 256) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    fine = LinearSegmentedColormap.from_list(name, [to_rgb(anchor) for anchor in anchors], N=4096)(
        np.linspace(0, 1, 4096)
    )[:, :3]
    lightness = _lightness(fine)
    order = 1.0 if lightness[-1] >= lightness[0] else -1.0
    wanted = np.linspace(lightness[0], lightness[-1], entries) * order
    at = np.interp(wanted, np.maximum.accumulate(lightness * order), np.arange(4096))
    even = np.stack([np.interp(at, np.arange(4096), fine[:, channel]) for channel in range(3)], axis=1)
    return LinearSegmentedColormap.from_list(name, even, N=entries)


def _lightness(colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L* of sRGB colours (n, 3) in 0..1."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    cube = np.where(luminance > 216 / 24389, np.cbrt(luminance), (24389 / 27 * luminance + 16) / 116)
    return np.asarray(116 * cube - 16)


def rgb(color: str) -> NDArray[np.uint8]:
    """(3,) uint8 of ``"#rrggbb"``."""
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)], dtype=np.uint8)


def finite_range(values: ArrayLike) -> tuple[float, float]:
    """Smallest and largest finite number; (0, 0) where there is none."""
    array = np.asarray(values)
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def symmetric_range(values: ArrayLike) -> tuple[float, float]:
    """Minus and plus the largest finite magnitude, so that 0 is the middle."""
    low, high = finite_range(values)
    reach = max(-low, high)
    return -reach, reach


def to_bytes(values: ArrayLike, low: float, high: float) -> NDArray[np.uint8]:
    """Numbers scaled so that ``low`` is 0 and ``high`` 255, clipped; a range of no width gives mid-grey.

    What is not finite becomes 0: the caller paints it.
    """
    array = np.asarray(values, dtype=np.float64)
    scaled = _unit(array, low, high) * 255
    return np.asarray(np.rint(np.where(np.isfinite(array), scaled, 0)), dtype=np.uint8)


def _unit(array: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    if not high > low:
        return np.full(array.shape, 0.5)
    with np.errstate(invalid="ignore", over="ignore"):
        # Halves first: high - low itself may overflow.
        return np.clip((array / 2 - low / 2) / (high / 2 - low / 2), 0, 1)


def colorize(values: ArrayLike, colors: str, low: float, high: float) -> NDArray[np.uint8]:
    """(..., 3) uint8 of numbers (...) through the map ``colors``; what is not finite in ``NOT_FINITE``."""
    array = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(array)
    table: Any = color_map(colors)(np.linspace(0, 1, 256))[:, :3]
    entries = np.rint(np.where(finite, _unit(array, low, high), 0) * 255).astype(np.intp)
    painted = np.rint(table * 255).astype(np.uint8)[entries]
    painted[~finite] = rgb(NOT_FINITE)
    return np.asarray(painted)
