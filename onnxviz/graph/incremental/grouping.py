"""Boxes of every position come in; groups of positions that may as well share window sizes go out.

In a group every window is as large as its largest, so a group wastes what its members do not need; but each group is
also run by itself, and a run has a price whatever it computes. The best cut between the two is found by dynamic
programming over the order of the positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxviz.graph.incremental.windows import AffectedMaps, Groups

__all__ = ["group_positions"]

_LONGEST = 64
"""Most positions side by side in a group: no run takes more."""


def group_positions(
    maps: AffectedMaps, work: dict[str, float], grid: tuple[int, int] | None, *, per_run: float, batch: int
) -> Groups:
    """Cut positions into groups.

    Parameters
    ----------
    maps : AffectedMaps
    work : dict of value name to float
        What it costs to compute the whole map of a value, for the values that will be computed on windows.
    grid : (rows, columns) or None
        How the positions lie, row by row; None where they form no grid.
    per_run : float
        What a run costs whatever it computes, in the unit of ``work``.
    batch : int
        Most positions of one run.
    """
    names = [name for name in work if name in maps.boxes]
    if not names:
        return Groups(np.zeros(maps.positions, np.int64), 1)
    weights = np.array([work[name] for name in names])
    # (values, positions, 2) share of the map along each axis.
    shares = np.stack(
        [
            (maps.boxes[name][1] - maps.boxes[name][0]) / [maps.geometry[name].rows, maps.geometry[name].columns]
            for name in names
        ]
    )
    if grid is None or not _is_grid(shares, grid):
        return _along_a_line(weights, shares, per_run, batch)
    by_row = shares[:, :, 0].reshape(len(names), *grid)[:, :, 0]
    by_column = shares[:, :, 1].reshape(len(names), *grid)[:, 0, :]
    columns = np.zeros(grid[1], np.int64)
    rows = np.zeros(grid[0], np.int64)
    for _ in range(2):
        rows = _cut(weights, by_row, by_column, columns, per_run, batch)
        columns = _cut(weights, by_column, by_row, rows, per_run, batch)
    across = int(columns.max()) + 1
    return Groups((rows[:, np.newaxis] * across + columns).ravel(), (int(rows.max()) + 1) * across)


def _is_grid(shares: NDArray[np.float64], grid: tuple[int, int]) -> bool:
    """Whether heights follow from the row, and widths from the column."""
    table = shares.reshape(len(shares), *grid, 2)
    return bool((table[..., 0] == table[:, :, :1, 0]).all() and (table[..., 1] == table[:, :1, :, 1]).all())


def _cut(
    weights: NDArray[np.float64],
    sides: NDArray[np.float64],
    others: NDArray[np.float64],
    other_groups: NDArray[np.int64],
    per_run: float,
    batch: int,
) -> NDArray[np.int64]:
    """Cut one axis of a grid; the other axis is cut as ``other_groups`` says."""
    counts = np.bincount(other_groups)
    widest = np.zeros((len(weights), len(counts)))
    for group in range(len(counts)):
        widest[:, group] = others[:, other_groups == group].max(axis=1)
    # Over all the positions that share one place of this axis, the work per unit of its side.
    per_side = weights * (widest @ counts)

    def price(first: int, end: int) -> float:
        runs = sum(-(-(end - first) * count // batch) for count in counts.tolist())
        return float((end - first) * (per_side @ sides[:, first:end].max(axis=1)) + runs * per_run)

    return _best_cut(sides.shape[1], price)


def _along_a_line(weights: NDArray[np.float64], shares: NDArray[np.float64], per_run: float, batch: int) -> Groups:
    """Cut positions that form no grid, in the order of what they cost."""
    order = np.argsort(weights @ shares.prod(axis=2), kind="stable")
    sorted_shares = shares[:, order]

    def price(first: int, end: int) -> float:
        widest = sorted_shares[:, first:end].max(axis=1).prod(axis=1)
        return float((end - first) * (weights @ widest) + -(-(end - first) // batch) * per_run)

    cut = _best_cut(len(order), price)
    groups = np.empty(len(order), np.int64)
    groups[order] = cut
    return Groups(groups, int(cut.max()) + 1)


def _best_cut(count: int, price: Callable[[int, int], float]) -> NDArray[np.int64]:
    """The partition of 0 ... count − 1 into runs of neighbours that costs least."""
    best = np.full(count + 1, np.inf)
    best[0] = 0
    came_from = np.zeros(count + 1, np.int64)
    for end in range(1, count + 1):
        for first in range(max(0, end - _LONGEST), end):
            total = best[first] + price(first, end)
            if total < best[end]:
                best[end], came_from[end] = total, first
    groups = np.empty(count, np.int64)
    end, cuts = count, []
    while end > 0:
        cuts.append((int(came_from[end]), end))
        end = int(came_from[end])
    for number, (first, end) in enumerate(reversed(cuts)):
        groups[first:end] = number
    return groups
