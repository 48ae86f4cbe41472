"""An image's size or pixels come in; maps that know nothing of the network, to compare explanations with, go out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxviz.inputs.contract import luma

__all__ = ["CONTROLS", "control_maps", "edge_map", "random_map"]

CONTROLS = ("random", "edges")


def random_map(size: tuple[int, int], seed: int | np.random.SeedSequence = 0) -> NDArray[np.float64]:
    """Draw every pixel anew, uniformly from [0, 1): the map of a method that looked at nothing.

    Parameters
    ----------
    size : (height, width)
    seed : int or SeedSequence

    Returns
    -------
    (height, width) float64
    """
    return np.random.default_rng(seed).random(size)


def edge_map(view: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Magnitude of the Sobel gradient of the grey image: a map that looks like an explanation and is none.

    Adebayo et al. 2018 compare saliency maps with an edge detector, which many of them resemble.

    Parameters
    ----------
    view : (height, width, 3) uint8
        RGB.

    Returns
    -------
    (height, width) float64
        In grey levels, the border mirrored.
    """
    from scipy.ndimage import sobel

    grey = luma(view).astype(np.float64)
    return np.asarray(np.hypot(sobel(grey, axis=0, mode="reflect"), sobel(grey, axis=1, mode="reflect")))


def control_maps(view: NDArray[np.uint8], seed: int | np.random.SeedSequence = 0) -> NDArray[np.float64]:
    """(controls, height, width) one map for each of ``CONTROLS``."""
    height, width = view.shape[:2]
    return np.stack([random_map((height, width), seed), edge_map(view)])
