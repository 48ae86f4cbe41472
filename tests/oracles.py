"""Slow implementations, written straight from the definitions, that the fast ones are compared with."""

from __future__ import annotations

import math

import numpy as np

# -- Image grid (Karpathy, "t-SNE visualization of CNN codes") ----------------------------------------------------


def karpathy_grid(points: np.ndarray) -> np.ndarray:
    """For each cell in raster order, column by column, the nearest image that is still unused; ties to the earlier."""
    side = math.isqrt(len(points))
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / (high - low)
    used: set[int] = set()
    cells = np.zeros((side, side), np.int64)
    for column in range(side):
        for row in range(side):
            corner = (column / side, row / side)
            best = min(
                (image for image in range(len(points)) if image not in used),
                key=lambda image: ((scaled[image][0] - corner[0]) ** 2 + (scaled[image][1] - corner[1]) ** 2, image),
            )
            used.add(best)
            cells[row, column] = best
    return cells
