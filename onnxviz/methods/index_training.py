"""A sample of a bank's rows comes in; the directions and scales that make an index of them fast go out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.backend.neighbors import IndexSetup, power_of_two_below

__all__ = ["sample_rows", "train"]

_MOST_SAMPLED = 4608
_MOST_SAMPLED_OF_MANY = 16_384
_TRIED_ROWS = 2240
_TRIED_QUERIES = 128
_ROWS_FOR_WIDTH = 512
_TRIED_NEIGHBORS = 10
_FEWEST_PROJECTED_ROWS = 2048
_FEWEST_PROJECTED_COLUMNS = 512
_MOST_PROJECTED_COLUMNS = 65_536
_FEWEST_NIBBLE_COLUMNS = 256
_FEW_DIRECTIONS, _MANY_DIRECTIONS = 256, 1536
# Where the directions of each level end, and its bits: eight where most of the variance is, then four.
_LEVELS = ((256, 8), (512, 4), (1024, 4), (1536, 4))
# What a sample leaves in doubt is more than what the whole bank will: neighbours are farther away in it.
_MOST_IN_DOUBT = 0.6
_MOST_IN_DOUBT_OF_MANY = 0.34
# Many directions take seconds to find, which only many queries of a large bank give back.
_FEWEST_ROWS_FOR_MANY = 60_000
_FEWEST_VARIANCE_FOR_MANY = 0.4
# A row itself takes four times as long to read as its eight bits.
_MOST_LEFT_WITHOUT_BYTES = 0.05
_CLIPPINGS = (1, 0.7, 0.5, 0.35)
# How much narrower rows have to become before their mean is taken off: doing so costs the zeros of a ReLU their place.
_NARROWER = 0.9


def sample_rows(rows: int) -> NDArray[np.int64]:
    """Numbers of the rows to train on, spread evenly over the bank, ascending."""
    most = _MOST_SAMPLED if rows < _FEWEST_ROWS_FOR_MANY else _MOST_SAMPLED_OF_MANY
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


def train(sample: NDArray[Any], rows: int, *, metric: str) -> IndexSetup:
    """Choose the levels of an index, and what they need to know of the rows.

    Parameters
    ----------
    sample : (s, d) array
        Rows of the bank, to be overwritten: a copy of them would be a sixth of a bank of 100,000. Those with NaN or
        infinity are left out (the index refuses them by number).
    rows : int
        Rows of the whole bank.
    metric : str
        ``"euclidean"`` or ``"cosine"``.

    Notes
    -----
    The directions are those of subspace iteration (Halko, Martinsson and Tropp 2011) on the second moments of the rows.
    The mean stays in: it is among the directions then, and what lies outside them is free of it. Only numpy is used:
    other libraries, and the threads that they keep, would be a twentieth of the memory of a large bank.
    """
    columns = sample.shape[1]
    finite = np.isfinite(sample).all(axis=1)
    kept = sample if finite.all() else sample[finite]
    if metric == "cosine":
        kept = _normalised(kept)
    largest = max((float(np.abs(block).max()) for block in _blocks(kept)), default=0.0)
    if not 0 < largest < 1e150:
        zeros = np.zeros(columns)
        return IndexSetup(zeros, zeros, 1.0, np.zeros((0, columns), np.float32))
    mean = kept.mean(axis=0, dtype=np.float64)
    reference = np.zeros(columns)
    if _is_narrower(kept[:: max(1, len(kept) // _ROWS_FOR_WIDTH)], mean):
        reference = mean
        largest = max(float(np.abs(block - reference).max()) for block in _blocks(kept))
    scale = power_of_two_below(largest)
    basis = np.zeros((0, columns), np.float32)
    if rows >= _FEWEST_PROJECTED_ROWS and _FEWEST_PROJECTED_COLUMNS <= columns <= _MOST_PROJECTED_COLUMNS:
        kept = _scaled(kept, reference, scale)
        basis = _directions(kept, rows)
    nibbles = columns >= _FEWEST_NIBBLE_COLUMNS
    # Where directions and four bits leave few rows, these can be compared themselves: a quarter of the bank is saved.
    enough = len(basis) > _FEW_DIRECTIONS and _left_by_nibbles(kept) <= _MOST_LEFT_WITHOUT_BYTES
    return IndexSetup(mean, reference, scale, basis, _levels(len(basis)), nibbles, bytes=not enough)


def _levels(directions: int) -> tuple[tuple[int, int], ...]:
    """The levels of so many directions: as many as there are, the last one of what is left."""
    ends = [(end, bits) for end, bits in _LEVELS if end < directions]
    return (*ends, (directions, _LEVELS[len(ends)][1])) if directions else ()


def _directions(sample: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """As many directions as pay: few where they tell rows apart, many for a large bank, none for noise."""
    np.random.default_rng(0).shuffle(sample)
    queries, bank = sample[:_TRIED_QUERIES], sample[_TRIED_QUERIES:]
    few = min(_FEW_DIRECTIONS, sample.shape[1] // 4)
    if len(bank) <= few or not bank.any():
        return np.zeros((0, sample.shape[1]), np.float32)
    # Whether it pays is seen from a quick and rough basis.
    in_doubt, variance = _try(_leading(bank[:_TRIED_ROWS], few, iterations=1), bank, queries)
    large = rows >= _FEWEST_ROWS_FOR_MANY and sample.shape[1] >= 2 * _MANY_DIRECTIONS
    many = large and in_doubt > _MOST_IN_DOUBT_OF_MANY and variance >= _FEWEST_VARIANCE_FOR_MANY
    if in_doubt > _MOST_IN_DOUBT and not many:
        return np.zeros((0, sample.shape[1]), np.float32)
    basis = _leading(bank, _MANY_DIRECTIONS if many else few, iterations=3)
    # Turned at random among those of a level, coordinates are all of one size, as integers of one scale want them.
    random, first = np.random.default_rng(1), 0
    for end, _ in _levels(len(basis)):
        turn, _ = np.linalg.qr(random.standard_normal((end - first, end - first)))
        basis[first:end] = turn.astype(np.float32) @ basis[first:end]
        first = end
    return basis


def _leading(rows: NDArray[np.float32], directions: int, *, iterations: int) -> NDArray[np.float32]:
    columns = rows.shape[1]
    # A few directions are sooner taken through the rows than all second moments are computed.
    moments = rows.T @ rows if 2 * directions * (2 + iterations) > columns else None

    def times_moments(basis: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(rows.T @ (rows @ basis) if moments is None else moments @ basis, np.float32)

    basis: NDArray[np.float32] = np.random.default_rng(2).standard_normal((columns, directions), np.float32)
    for iteration in range(1 + iterations):
        basis = _orthonormal(times_moments(basis), rounds=1 if iteration < iterations else 3)
    if directions > _FEW_DIRECTIONS:
        # Levels after the first take what is left, so the first one has to have the most.
        _, order = np.linalg.eigh((basis.T @ times_moments(basis)).astype(np.float64))
        basis = basis @ order[:, ::-1].astype(np.float32)
    return np.ascontiguousarray(basis.T)


def _orthonormal(columns: NDArray[np.float32], rounds: int) -> NDArray[np.float32]:
    """Columns of the same span; orthonormal after three rounds.

    Products of matrices, in the place of reflections, which wait for each other's threads: the inverse of Cholesky's
    factor of the columns' products is what makes them orthonormal, up to what these have lost of digits.
    """
    kept = columns
    for done in range(rounds):
        kept = kept / np.maximum(np.linalg.norm(kept, axis=0), np.float32(1e-30))
        products = (kept.T @ kept).astype(np.float64)
        if done == 0:
            products += 1e-6 * np.eye(len(products))
        try:
            factor = np.linalg.inv(np.linalg.cholesky(products))
        except np.linalg.LinAlgError:
            break
        kept = kept @ factor.T.astype(np.float32)
    else:
        if rounds == 1 or float(np.abs(kept.T @ kept - np.eye(kept.shape[1], dtype=np.float32)).max()) < 1e-4:
            return kept
    return np.asarray(np.linalg.qr(columns)[0])


def _try(basis: NDArray[np.float32], bank: NDArray[np.float32], queries: NDArray[np.float32]) -> tuple[float, float]:
    """Share of the rows that the directions leave in doubt, and of the queries' variance that they hold."""
    inside, outside = [], []
    for rows in (bank, queries):
        coordinates = rows @ basis.T
        inside.append(coordinates)
        outside.append(np.sqrt(np.maximum(_squares(rows) - _squares(coordinates), 0)))
    bounds = _squared_distances(inside[1], inside[0]) + (outside[1][:, np.newaxis] - outside[0]) ** 2
    distances = _squared_distances(queries, bank)
    reach = np.partition(distances, _TRIED_NEIGHBORS - 1, axis=1)[:, _TRIED_NEIGHBORS - 1]
    spread = float(((queries - bank.mean(axis=0)) ** 2).sum())
    held = float(((inside[1] - inside[0].mean(axis=0)) ** 2).sum())
    return float((bounds <= reach[:, np.newaxis]).mean()), held / spread if spread > 0 else 0.0


def _left_by_nibbles(sample: NDArray[np.float32]) -> float:
    """Share of the rows that four bits of every column, clipped where they lose least, leave in doubt."""
    queries, bank = sample[:_TRIED_QUERIES], sample[_TRIED_QUERIES:]
    some = bank[:_TRIED_QUERIES]
    low, high = some.min(axis=1, keepdims=True), some.max(axis=1, keepdims=True)
    middle = np.where(low >= 0, low, some.mean(axis=1, keepdims=True))
    errors = []
    for clipping in _CLIPPINGS:
        first, step = middle - clipping * (middle - low), clipping * (high - low) / 15 + np.float32(1e-30)
        codes = np.clip(np.rint((some - first) / step), 0, 15)
        errors.append(_squares(some - first - step * codes))
    radius = float(np.sqrt(np.min(errors, axis=0)).mean())
    distances = _squared_distances(queries, bank)
    reach = np.partition(distances, _TRIED_NEIGHBORS - 1, axis=1)[:, _TRIED_NEIGHBORS - 1, np.newaxis]
    # Codes lie farther apart than rows do, by their errors: d² + radius² is compared with (reach + radius)².
    return float((distances <= reach + 2 * radius * np.sqrt(np.maximum(reach, 0))).mean())


def _squared_distances(queries: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float64]:
    products = (queries @ bank.T).astype(np.float64)
    return np.asarray(_squares(queries)[:, np.newaxis] + _squares(bank) - 2 * products)


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))


def _normalised(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Directions of those rows that have one."""
    result = np.empty(rows.shape, np.float32)
    count = 0
    for block in _blocks(rows):
        exact = block.astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            norms = np.linalg.norm(exact, axis=1, keepdims=True)
        usable = (norms[:, 0] > 0) & np.isfinite(norms[:, 0])
        end = count + int(usable.sum())
        result[count:end] = exact[usable] / norms[usable]
        count = end
    return result[:count]


def _scaled(rows: NDArray[Any], reference: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    result = rows if rows.dtype == np.float32 else np.empty(rows.shape, np.float32)
    if result is rows and not reference.any() and 2.0**-100 < scale < 2.0**100:
        result *= np.float32(scale)  # a power of two: nothing is rounded
        return result
    for block, place in zip(_blocks(rows), _blocks(result), strict=True):
        place[:] = (block - reference) * scale
    return result


def _blocks(rows: NDArray[Any], size: int = 512) -> Iterator[NDArray[Any]]:
    """Parts of a matrix, so that what is computed from them stays small."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _is_narrower(rows: NDArray[Any], mean: NDArray[np.float64]) -> bool:
    """Whether rows span fewer steps of the codes without their mean."""
    # A row far from the origin for its width is held to coarser steps (levels.cpp: the largest zero).
    width = np.maximum(np.ptp(rows, axis=1), np.abs(rows).max(axis=1) * 2.0**-12)
    return float(np.ptp(rows - mean, axis=1).mean()) < _NARROWER * float(width.mean())
