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


# -- Nearest neighbours (definitions: distance in float64, ties to the lower row) -------------------------------------


def nearest_rows(bank: np.ndarray, queries: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances and row numbers of the k nearest rows of each query, by sums that no rounding can spoil.

    Equal distances go to the lower row. Cosine: 1 - cos as half the squared distance of the normalised rows; a row of
    zeros is at distance 1 from every row.
    """
    distances = np.empty((len(queries), k))
    indices = np.empty((len(queries), k), np.int64)
    for number, query in enumerate(queries.astype(np.float64)):
        found = []
        for row, other in enumerate(bank.astype(np.float64)):
            if metric == "cosine":
                lengths = math.hypot(*query), math.hypot(*other)
                if 0 in lengths:
                    found.append((1.0, row))
                    continue
                difference = query / lengths[0] - other / lengths[1]
                found.append((math.fsum(difference**2) / 2, row))
            else:
                found.append((math.sqrt(math.fsum((query - other) ** 2)), row))
        found.sort()
        distances[number], indices[number] = zip(*found[:k], strict=True)
    return distances, indices


def leave_one_out_accuracy(rows: np.ndarray, classes: np.ndarray, k: int, metric: str = "euclidean") -> float:
    """Share of the labelled rows (class not -1) whose class the k nearest other labelled rows vote for.

    Of classes with equally many votes the one with the nearest voter wins.
    """
    labelled = [row for row in range(len(rows)) if classes[row] >= 0]
    right = 0
    for row in labelled:
        others = [other for other in labelled if other != row]
        _, nearest = nearest_rows(rows[others], rows[[row]], min(k, len(others)), metric)
        votes = [int(classes[others[place]]) for place in nearest[0]]
        right += max(votes, key=lambda label: (votes.count(label), -votes.index(label))) == classes[row]
    return right / len(labelled)


# -- Occlusion (Zeiler and Fergus 2013, section 4.2; Captum's and Xplique's conventions) ------------------------------


def summed_over_boxes(boxes: np.ndarray, values: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel the sum of the values of the boxes (top, left, bottom, right) over it, and their number."""
    total, covered = np.zeros((height, width)), np.zeros((height, width), np.int64)
    for (top, left, bottom, right), value in zip(boxes, values, strict=True):
        for row in range(top, bottom):
            for column in range(left, right):
                total[row, column] += value
                covered[row, column] += 1
    return total, covered


def patch_starts(size: int, window: int, stride: int, edge: str) -> list[tuple[int, int]]:
    """First and last-but-one pixel of the patch at every position along one axis."""
    spans = []
    start = 0
    while True:
        if start + window >= size:
            if start + window == size or (edge == "clip" and start < size):
                spans.append((start, size))
            elif edge == "shift":
                spans.append((size - window, size))
            return spans
        spans.append((start, start + window))
        start += stride


def occlusion_maps(
    score: Callable[[np.ndarray], float],
    image: np.ndarray,
    fill: np.ndarray,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    edge: str,
    aggregate: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Score per position, and importance per pixel, of an encoded (C, H, W) image, one run per position.

    ``fill`` is shaped like the image. The importance of a pixel is the mean, or the sum, of clean minus occluded score
    over the patches that cover it; a mean over no patch is NaN.
    """
    height, width = image.shape[1:]
    rows = patch_starts(height, window[0], stride[0], edge)
    columns = patch_starts(width, window[1], stride[1], edge)
    clean = score(image)
    scores = np.empty((len(rows), len(columns)))
    boxes, drops = [], []
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            occluded = image.copy()
            occluded[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
            scores[i, j] = score(occluded)
            boxes.append((top, left, bottom, right))
            drops.append(clean - scores[i, j])
    total, covered = summed_over_boxes(np.array(boxes), np.array(drops), height, width)
    if aggregate == "mean":
        total = np.where(covered > 0, total / np.maximum(covered, 1), np.nan)
    return scores, total


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
        if start + window == size or edge == "clip":
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
