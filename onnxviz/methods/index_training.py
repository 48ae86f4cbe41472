"""A sample of a bank's rows comes in; the directions and scales that make an index of them fast go out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.backend.neighbors import IndexSetup, power_of_two_below

__all__ = ["sample_rows", "train"]

_MOST_SAMPLED = 4608
_TRIED_QUERIES = 128
_TRIED_NEIGHBORS = 10
_FEWEST_PROJECTED_ROWS = 2048
_FEWEST_PROJECTED_COLUMNS = 512
_MOST_PROJECTED_COLUMNS = 65_536
_FEWEST_NIBBLE_COLUMNS = 256
_FEW_DIRECTIONS, _MANY_DIRECTIONS = 256, 512
# What a sample leaves in doubt is more than what the whole bank will: neighbours are farther away in it.
_MOST_IN_DOUBT = 0.6
# Many directions take seconds to find, which only many queries of a large bank give back.
_FEWEST_ROWS_FOR_MANY = 60_000
_FEWEST_VARIANCE_FOR_MANY = 0.4
# How much narrower rows have to become before their mean is taken off: doing so costs the zeros of a ReLU their place.
_NARROWER = 0.9


def sample_rows(rows: int) -> NDArray[np.int64]:
    """Numbers of the rows to train on, spread evenly over the bank, ascending."""
    return np.unique(np.linspace(0, rows - 1, min(rows, _MOST_SAMPLED)).astype(np.int64))


def train(sample: NDArray[Any], rows: int, *, metric: str) -> IndexSetup:
    """Choose the levels of an index, and what they need to know of the rows.

    Parameters
    ----------
    sample : (s, d) array
        Rows of the bank; those with NaN or infinity are left out (the index refuses them by number).
    rows : int
        Rows of the whole bank.
    metric : str
        ``"euclidean"`` or ``"cosine"``.

    Notes
    -----
    The directions span the range that randomised subspace iteration finds (Halko, Martinsson and Tropp 2011), of rows
    whose mean stays in: the mean is among the directions then, and what lies outside them is free of it.
    """
    columns = sample.shape[1]
    finite = np.isfinite(sample).all(axis=1)
    kept = sample if finite.all() else sample[finite]
    if metric == "cosine":
        kept = _normalised(kept.astype(np.float64))
    largest = float(np.abs(kept).max(initial=0.0))
    if not 0 < largest < 1e150:
        zeros = np.zeros(columns)
        return IndexSetup(zeros, zeros, 1.0, np.zeros((0, columns), np.float32))
    mean = kept.mean(axis=0, dtype=np.float64)
    reference = mean if _is_narrower(kept, mean) else np.zeros(columns)
    scale = power_of_two_below(float(np.abs(kept - reference).max(initial=0.0)))
    basis = np.zeros((0, columns), np.float32)
    if rows >= _FEWEST_PROJECTED_ROWS and _FEWEST_PROJECTED_COLUMNS <= columns <= _MOST_PROJECTED_COLUMNS:
        basis = _directions(((kept - reference) * scale).astype(np.float32), rows)
    return IndexSetup(
        mean, reference, scale, basis, (len(basis),) if len(basis) else (), columns >= _FEWEST_NIBBLE_COLUMNS
    )


def _directions(sample: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """As many directions as pay: few where they tell rows apart, many for a large bank, none for noise."""
    order = np.random.default_rng(0).permutation(len(sample))
    queries, bank = sample[order[:_TRIED_QUERIES]], sample[order[_TRIED_QUERIES:]]
    few = min(_FEW_DIRECTIONS, sample.shape[1] // 4)
    if len(bank) <= few or not bank.any():
        return np.zeros((0, sample.shape[1]), np.float32)
    # Whether it pays is seen from a quick and rough basis.
    in_doubt, variance = _try(_leading(bank, few, iterations=1), bank, queries)
    directions = few
    if in_doubt > _MOST_IN_DOUBT:
        large = rows >= _FEWEST_ROWS_FOR_MANY and sample.shape[1] >= 2 * _MANY_DIRECTIONS
        if not large or variance < _FEWEST_VARIANCE_FOR_MANY:
            return np.zeros((0, sample.shape[1]), np.float32)
        directions = _MANY_DIRECTIONS
    basis = _leading(bank, directions, iterations=3)
    # Turned at random among themselves, coordinates are all of one size, which is what integers of one scale want.
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((len(basis), len(basis))))
    return np.asarray(turn.astype(np.float32) @ basis)


def _leading(rows: NDArray[np.float32], directions: int, *, iterations: int) -> NDArray[np.float32]:
    from sklearn.utils.extmath import randomized_range_finder

    basis = randomized_range_finder(rows.T, size=directions, n_iter=iterations, random_state=0)
    return np.asarray(basis.T, np.float32)


def _try(basis: NDArray[np.float32], bank: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[float, float]:
    """Share of the rows that the directions leave in doubt, and of the queries' variance that they hold."""
    inside, outside = [], []
    for rows in (bank, queries):
        coordinates = rows @ basis.T
        inside.append(coordinates)
        squares = (rows.astype(np.float64) ** 2).sum(axis=1) - (coordinates.astype(np.float64) ** 2).sum(axis=1)
        outside.append(np.sqrt(np.maximum(squares, 0)))
    bounds = _squared_distances(inside[1], inside[0]) + (outside[1][:, np.newaxis] - outside[0]) ** 2
    distances = _squared_distances(queries, bank)
    reach = np.partition(distances, _TRIED_NEIGHBORS - 1, axis=1)[:, _TRIED_NEIGHBORS - 1]
    spread = float(((queries - bank.mean(axis=0)) ** 2).sum())
    held = float(((inside[1] - inside[0].mean(axis=0)) ** 2).sum())
    return float((bounds <= reach[:, np.newaxis]).mean()), held / spread if spread > 0 else 0.0


def _squared_distances(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    products = (queries @ bank.T).astype(np.float64)
    norms = [(rows.astype(np.float64) ** 2).sum(axis=1) for rows in (queries, bank)]
    return np.asarray(norms[0][:, np.newaxis] + norms[1] - 2 * products)


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
    usable = (norms[:, 0] > 0) & np.isfinite(norms[:, 0])
    return np.asarray(rows[usable] / norms[usable])


def _is_narrower(rows: NDArray[Any], mean: NDArray[np.float64]) -> bool:
    """Whether rows span fewer steps of the codes without their mean."""
    # A row far from the origin for its width is held to coarser steps (levels.cpp: the largest zero).
    width = np.maximum(np.ptp(rows, axis=1), np.abs(rows).max(axis=1) * 2.0**-12)
    return float(np.ptp(rows - mean, axis=1).mean()) < _NARROWER * float(width.mean())
