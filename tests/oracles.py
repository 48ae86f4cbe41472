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


# -- RISE (Petsiuk, Das and Saenko 2018; explanations.py and evaluation.py of the authors) ---------------------------


def rise_mask(cells: np.ndarray, offset: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """One mask: the grid enlarged as scikit-image's resize does (order 1, mode "reflect", no smoothing), then cut."""
    from scipy.ndimage import zoom

    cell = [math.ceil(side / len(cells)) for side in size]
    factors = [(len(cells) + 1) * each / len(cells) for each in cell]
    large = zoom(cells.astype(np.float64), factors, order=1, mode="mirror", grid_mode=True)
    return large[offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]


def rise_map(
    score: Callable[[np.ndarray], float], image: np.ndarray, fill: np.ndarray, masks: list[np.ndarray], keep: float
) -> np.ndarray:
    """Score-weighted mean of the masks, divided by their number times ``keep``; image and fill (channels, h, w)."""
    total = np.zeros(image.shape[1:])
    for mask in masks:
        blended = np.empty_like(image)
        for channel in range(len(image)):
            shown = mask * image[channel].astype(np.float64) + (1 - mask) * fill[channel].astype(np.float64)
            blended[channel] = np.rint(shown) if image.dtype.kind in "iu" else shown
        total += score(blended) * mask
    return total / (len(masks) * keep)


def authors_blur(image: np.ndarray) -> np.ndarray:
    """(channels, h, w) under the 11 × 11 kernel: a Gaussian of 5 pixels whose tails are mirrored into the box."""
    weights = [0.0] * 11
    for place in range(-20, 21):  # scipy cuts a Gaussian at four standard deviations
        mirrored = place + 5
        while not 0 <= mirrored < 11:
            mirrored = -mirrored - 1 if mirrored < 0 else 21 - mirrored
        weights[mirrored] += math.exp(-(place**2) / 50)
    kernel = np.outer(weights, weights) / sum(weights) ** 2
    blurred = np.zeros(image.shape)
    for channel, plane in enumerate(image.astype(np.float64)):
        padded = np.pad(plane, 5, mode="symmetric")
        for row in range(plane.shape[0]):
            for column in range(plane.shape[1]):
                blurred[channel, row, column] = (padded[row : row + 11, column : column + 11] * kernel).sum()
    return blurred


def changing_scores(
    score: Callable[[np.ndarray], float], start: np.ndarray, end: np.ndarray, saliency: np.ndarray, step: int
) -> list[float]:
    """Score of ``start``, then after every ``step`` pixels taken from ``end``, the most salient first."""
    height, width = saliency.shape
    pixels = sorted(
        ((row, column) for row in range(height) for column in range(width)),
        key=lambda pixel: (-saliency[pixel], pixel[0], pixel[1]),
    )
    image = start.copy()
    scores = [score(image)]
    for first in range(0, len(pixels), step):
        for row, column in pixels[first : first + step]:
            image[:, row, column] = end[:, row, column]
        scores.append(score(image))
    return scores


# -- Planted causes ------------------------------------------------------------------------------------------------


def filter_responses(image: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Scalar product of an encoded image (channels, h, w) with a pattern, zero-mean by channel and of norm 1."""
    centred = pattern.astype(np.float64) - pattern.astype(np.float64).mean(axis=(1, 2), keepdims=True)
    kernel = centred / math.sqrt((centred**2).sum())
    rows, columns = image.shape[1] - pattern.shape[1] + 1, image.shape[2] - pattern.shape[2] + 1
    found = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            window = image[:, row : row + pattern.shape[1], column : column + pattern.shape[2]]
            found[row, column] = (window.astype(np.float64) * kernel).sum()
    return found


# -- Attributions by derivatives -----------------------------------------------------------------------------------


def path_integral(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, start: np.ndarray, steps: int
) -> np.ndarray:
    """Sundararajan et al. 2017: (x - x') ∫ gradient, by Gauss-Legendre nodes, the roots of a Legendre polynomial."""
    polynomial = np.polynomial.legendre.Legendre.basis(steps)
    slope = polynomial.deriv()
    total = np.zeros(x.shape)
    for node in np.real(polynomial.roots()):
        weight = 2 / ((1 - node**2) * slope(node) ** 2)
        total += weight / 2 * gradient(start + (1 + node) / 2 * (x - start))
    return (x - start) * total


def noisy_gradient_moments(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, noises: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Smilkov et al. 2017: mean of the gradients at x + noise, and the mean of their squares."""
    total, squares = np.zeros(x.shape), np.zeros(x.shape)
    for noise in noises:
        found = np.asarray(gradient(x + noise), np.float64)
        total += found
        squares += found * found
    return total / len(noises), squares / len(noises)


def gradcam_plusplus_weights(activations: np.ndarray, derivatives: np.ndarray) -> list[float]:
    """Chattopadhay et al. 2018, equation 19, for each channel of (channels, rows, columns)."""
    weights = []
    for maps, slopes in zip(np.asarray(activations, np.float64), np.asarray(derivatives, np.float64), strict=True):
        everywhere = sum(float(a) for a in maps.ravel())
        weight = 0.0
        for slope in slopes.ravel():
            g = float(slope)
            alpha = g**2 / (2 * g**2 + everywhere * g**3) if g != 0 else 0.0
            weight += alpha * max(g, 0.0)
        weights.append(weight)
    return weights
