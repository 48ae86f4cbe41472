"""An embedding and its images come in; a regular grid of photos, neighbours beside neighbours, goes out."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.results import Embedding, Features, ImageGrid

__all__ = ["image_grid"]

_LARGEST_ASSIGNMENT = 2500
"""Images assigned in one exact problem; its cost matrix grows with the square."""


def image_grid(
    embedding: Embedding,
    images: ImageSet,
    *,
    layout: str = "assignment",
    features: Features | NDArray[Any] | None = None,
    size: int = 4096,
) -> ImageGrid:
    """Lay photos on a regular grid by their embedding.

    Parameters
    ----------
    embedding : Embedding
    images : ImageSet
        The images that were embedded.
    layout : "assignment" or "karpathy"
        ``"assignment"`` places every image so that the total squared distance to the cells is least (exact up to
        2,500 images; more are first parted by medians into blocks, each of them exact). ``"karpathy"`` fills the
        cells in raster order, column by column, with the nearest image that is still unused, so that some images
        never appear (Karpathy, "t-SNE visualization of CNN codes").
    features : Features or ndarray of shape (images, features), optional
        Gives the seams: the distance between the images of neighbouring cells.
    size : int
        Width in pixels that the picture of the grid can have at full resolution.

    Raises
    ------
    InputError
        Unknown layout, no image, or features that are not those of the embedding.
    """
    if layout not in ("assignment", "karpathy"):
        raise InputError("unknown layout", where="layout", got=repr(layout), allowed="'assignment', 'karpathy'")
    n = len(embedding.coordinates)
    if n == 0:
        raise InputError("there is no image to lay out", where="embedding")
    vectors = None
    if features is not None:
        vectors = np.asarray(features.array if isinstance(features, Features) else features)
        if len(vectors) != n:
            raise InputError(
                "the features are not those of the embedding", where="features", got=f"{len(vectors)} rows",
                allowed=f"{n} rows",
            )  # fmt: skip
    points = _unit_square(embedding.coordinates)
    cells = _karpathy(points) if layout == "karpathy" else _assignment(points)
    rows, columns = cells.shape
    thumbnails = images.thumbnails(
        embedding.indices if embedding.indices is not None else np.arange(n), max(8, size // columns)
    )
    right, below = _seams(cells, vectors) if vectors is not None else (None, None)
    filled = np.argwhere(cells >= 0)
    centres = (filled[:, ::-1] + 0.5) / (columns, rows)
    displacement = float(np.linalg.norm(points[cells[filled[:, 0], filled[:, 1]]] - centres, axis=1).sum())
    made = embedding.provenance
    return ImageGrid(
        cells=cells,
        displacement=displacement,
        seams_right=right,
        seams_below=below,
        layout=layout,
        thumbnails=thumbnails,
        names=embedding.names,
        provenance=dataclasses.replace(
            made, method="image_grid", parameters={"layout": layout, "size": size, "embedding": dict(made.parameters)}
        ),
    )


def _unit_square(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each axis scaled to 0..1 by itself; an axis on which all points agree becomes 0.5."""
    low, span = coordinates.min(axis=0), np.ptp(coordinates, axis=0)
    return np.where(span > 0, (coordinates - low) / np.where(span > 0, span, 1), 0.5)


def _karpathy(points: NDArray[np.float64]) -> NDArray[np.int64]:
    side = math.isqrt(len(points))
    cells = np.empty((side, side), np.int64)
    free = np.ones(len(points), bool)
    for column in range(side):
        for row in range(side):
            distance = ((points - (column / side, row / side)) ** 2).sum(axis=1)
            # argmin takes the first of equals, so ties go to the earlier image.
            cells[row, column] = chosen = int(np.argmin(np.where(free, distance, np.inf)))
            free[chosen] = False
    return cells


def _assignment(points: NDArray[np.float64]) -> NDArray[np.int64]:
    n = len(points)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    cells = np.full((rows, columns), -1, np.int64)
    _assign_block(points, np.arange(n), cells, (0, 0), (rows, columns))
    return cells


def _assign_block(
    points: NDArray[np.float64],
    members: NDArray[np.int64],
    cells: NDArray[np.int64],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> None:
    """Give every member a cell of the block; too large a block is parted across its longer side by a median."""
    if shape[0] * shape[1] > _LARGEST_ASSIGNMENT:
        axis = 0 if shape[0] >= shape[1] else 1
        first = shape[axis] // 2
        # Points have x before y, cells have rows (y) before columns (x).
        order = members[np.argsort(points[members, 1 - axis], kind="stable")]
        part = round(len(members) * first / shape[axis])
        second_corner = (corner[0] + first, corner[1]) if axis == 0 else (corner[0], corner[1] + first)
        sizes = (
            [(first, shape[1]), (shape[0] - first, shape[1])]
            if axis == 0
            else [(shape[0], first), (shape[0], shape[1] - first)]
        )
        room = sizes[1][0] * sizes[1][1]
        part = min(max(part, len(members) - room), sizes[0][0] * sizes[0][1])
        _assign_block(points, order[:part], cells, corner, sizes[0])
        _assign_block(points, order[part:], cells, second_corner, sizes[1])
        return
    from scipy.optimize import linear_sum_assignment

    row, column = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    centres = np.stack([(corner[1] + column + 0.5) / cells.shape[1], (corner[0] + row + 0.5) / cells.shape[0]], axis=1)
    cost = ((points[members][:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    image, cell = linear_sum_assignment(cost)
    cells[corner[0] + row[cell], corner[1] + column[cell]] = members[image]


def _seams(cells: NDArray[np.int64], vectors: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _distances(cells[:, :-1], cells[:, 1:], vectors), _distances(cells[:-1], cells[1:], vectors)


def _distances(a: NDArray[np.int64], b: NDArray[np.int64], vectors: NDArray[Any]) -> NDArray[np.float64]:
    out = np.full(a.shape, np.nan)
    # Row by row: all pairs of a large grid at once would hold two more copies of the features.
    for row in range(a.shape[0]):
        both = np.flatnonzero((a[row] >= 0) & (b[row] >= 0))
        difference = vectors[a[row, both]].astype(np.float64) - vectors[b[row, both]]
        out[row, both] = np.sqrt((difference**2).sum(axis=1))
    return out
