"""Slow implementations, written straight from the definitions, that the fast ones are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable

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


# -- Neighbours ----------------------------------------------------------------------------------------------------


def nearest_rows(
    bank: np.ndarray, queries: np.ndarray, k: int, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and row numbers of the k nearest rows, all in float64; equal distances by the lower row number."""
    distances = np.empty((len(queries), len(bank)))
    for i, query in enumerate(queries.astype(np.float64)):
        for j, row in enumerate(bank.astype(np.float64)):
            if metric == "euclidean":
                distances[i, j] = math.sqrt(((row - query) ** 2).sum())
            elif not row.any() or not query.any():
                distances[i, j] = 1.0
            else:
                distances[i, j] = ((row / np.linalg.norm(row) - query / np.linalg.norm(query)) ** 2).sum() / 2
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


# -- Occlusion (Zeiler and Fergus 2013, section 4.2; averaging and positions of captum's Occlusion) -----------------


def patch_spans(size: int, window: int, stride: int, edge: str) -> list[tuple[int, int]]:
    """First and last-plus-one pixel of the patch at each position along one axis."""
    spans = []
    start = 0
    while True:
        if start + window < size:
            spans.append((start, start + window))
            start += stride
            continue
        if start + window == size or (edge == "clip" and start < size):
            spans.append((start, min(start + window, size)))
        elif edge == "shift":
            spans.append((size - window, size))
        return spans


def occlusion_maps(
    score: Callable[[np.ndarray], float],
    image: np.ndarray,
    fill: np.ndarray,
    window: tuple[int, int],
    stride: tuple[int, int],
    edge: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score per position; per pixel the sum of clean minus occluded scores, and the number of patches over it.

    ``image`` and ``fill`` are (channels, height, width); every position is one call of ``score``.
    """
    rows = patch_spans(image.shape[1], window[0], stride[0], edge)
    columns = patch_spans(image.shape[2], window[1], stride[1], edge)
    scores = np.zeros((len(rows), len(columns)))
    total, covered = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    clean = score(image)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            patched = image.copy()
            patched[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
            scores[i, j] = score(patched)
            total[top:bottom, left:right] += clean - scores[i, j]
            covered[top:bottom, left:right] += 1
    return scores, total, covered


# -- What neighbours tell of a set of images -----------------------------------------------------------------------


def near_duplicate_pairs(
    first: np.ndarray, second: np.ndarray | None, metric: str, threshold: float, n_neighbors: int, least: float
) -> tuple[dict[tuple[int, int], float], list[float], list[float]]:
    """Pairs and their distance as a share of the scale, from all distances; each row's scale and nearest distance.

    Pairs within one set have i < j.
    """
    bank = first if second is None else second
    distances, order = nearest_rows(bank, first, len(bank), metric)
    table = np.empty_like(distances)
    np.put_along_axis(table, order, distances, axis=1)
    tenth, nearest = [], []
    for i in range(len(first)):
        others = sorted(table[i, j] for j in range(len(bank)) if second is not None or j != i)
        tenth.append(others[min(n_neighbors, len(others)) - 1])
        nearest.append(others[0])
    scales = [max(distance, least * float(np.median(tenth))) for distance in tenth]
    pairs = {}
    for i in range(len(first)):
        for j in range(len(bank)):
            if second is None and j <= i:
                continue
            scale = scales[i] if second is not None else min(scales[i], scales[j])
            share = table[i, j] / scale if scale else 0.0 if table[i, j] == 0 else math.inf
            if share <= threshold:
                pairs[i, j] = share
    return pairs, scales, nearest


def disagreeing_neighbors(
    rows: np.ndarray, labels: np.ndarray, n_neighbors: int, metric: str
) -> dict[int, tuple[float, int, float, int]]:
    """Of each labelled row with company in its class: share of other labels, voters, mean distance, winning label."""
    known = [i for i in range(len(rows)) if labels[i] >= 0]
    told = {}
    for i in known:
        others = [j for j in known if j != i]
        distances, order = nearest_rows(rows[others], rows[i : i + 1], len(others), metric)
        company = sum(labels[j] == labels[i] for j in others)
        voters = min(n_neighbors, company)
        if not voters:
            continue
        votes = [int(labels[others[place]]) for place in order[0, :voters]]
        winner = max(votes, key=lambda label: (votes.count(label), -votes.index(label)))
        told[i] = (
            sum(vote != labels[i] for vote in votes) / voters,
            voters,
            float(distances[0, :voters].mean()),
            winner,
        )
    return told


def neighbor_class_shares(rows: np.ndarray, labels: np.ndarray, n_neighbors: int, metric: str) -> dict[int, dict]:
    """For each class, the mean over its rows of the share of their nearest labelled others in each class."""
    known = [i for i in range(len(rows)) if labels[i] >= 0]
    shares: dict[int, dict[int, list[float]]] = {}
    for i in known:
        others = [j for j in known if j != i]
        k = min(n_neighbors, len(others))
        _, order = nearest_rows(rows[others], rows[i : i + 1], k, metric)
        votes = [int(labels[others[place]]) for place in order[0]]
        for label in {int(labels[j]) for j in known}:
            shares.setdefault(int(labels[i]), {}).setdefault(label, []).append(votes.count(label) / k)
    return {own: {other: float(np.mean(each)) for other, each in row.items()} for own, row in shares.items()}


def k_occurrences(rows: np.ndarray, labels: np.ndarray, n_neighbors: int, metric: str) -> tuple[list[int], list[int]]:
    """How many other rows have each row among their nearest; and how many of these have another label."""
    counts, bad = [0] * len(rows), [0] * len(rows)
    for i in range(len(rows)):
        others = [j for j in range(len(rows)) if j != i]
        for place in nearest_rows(rows[others], rows[i : i + 1], n_neighbors, metric)[1][0]:
            counts[others[place]] += 1
            bad[others[place]] += -1 not in (labels[i], labels[others[place]]) and labels[i] != labels[others[place]]
    return counts, bad
