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


# -- Maximally activating patches ----------------------------------------------------------------------------------


def strongest_units(maps: np.ndarray, channel: int, k: int, per_image: int) -> list[tuple[float, int, int, int]]:
    """All units of a channel as (score, image, row, column), strongest first, ties to the earlier image and unit.

    ``maps`` is (images, channels, height, width); at most ``per_image`` units of one image are kept; NaN is left out.
    """
    units = [
        (float(maps[image, channel, row, column]), image, row, column)
        for image in range(maps.shape[0])
        for row in range(maps.shape[2])
        for column in range(maps.shape[3])
        if not math.isnan(maps[image, channel, row, column])
    ]
    units.sort(key=lambda unit: (-unit[0], unit[1], unit[2], unit[3]))
    taken: dict[int, int] = {}
    kept = []
    for unit in units:
        if taken.get(unit[1], 0) < per_image and len(kept) < k:
            taken[unit[1]] = taken.get(unit[1], 0) + 1
            kept.append(unit)
    return kept
