"""The grid of photos, from fixed points: exact layouts, seams, and degenerate embeddings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import oracles
from onnxviz.errors import InputError
from onnxviz.methods.image_grid import _LARGEST_ASSIGNMENT, image_grid
from onnxviz.results import Embedding, ImageGrid, Provenance

NOBODY = Provenance("embed", "", "", {}, {}, {}, {}, "")


class Squares:
    """Stands for an image set: the thumbnail of image i is filled with i."""

    def thumbnails(self, indices: np.ndarray, side: int) -> np.ndarray:
        return np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), side, side, 3))


def embedding(points: np.ndarray) -> Embedding:
    names = tuple(f"image {i}" for i in range(len(points)))
    return Embedding(np.asarray(points, float), "pca", None, 1.0, None, None, names, NOBODY)


def grid(points: np.ndarray, **options: object) -> ImageGrid:
    return image_grid(embedding(points), Squares(), size=64, **options)  # type: ignore[arg-type]


def test_karpathy_equals_the_slow_oracle() -> None:
    points = np.random.default_rng(0).normal(size=(30, 2))
    assert np.array_equal(grid(points, layout="karpathy").cells, oracles.karpathy_grid(points))


def test_assignment_is_the_least_of_all_permutations() -> None:
    points = np.random.default_rng(1).random((6, 2))
    scaled = (points - points.min(0)) / np.ptp(points, axis=0)
    cells = grid(points).cells
    rows, columns = cells.shape
    centres = np.array([((c + 0.5) / columns, (r + 0.5) / rows) for r in range(rows) for c in range(columns)])
    least = min(
        sum(((scaled[image] - centres[cell]) ** 2).sum() for image, cell in enumerate(order))
        for order in itertools.permutations(range(rows * columns), 6)
    )
    got = sum(((scaled[image] - centres[cell]) ** 2).sum() for cell, image in enumerate(cells.ravel()) if image >= 0)
    assert got == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, _LARGEST_ASSIGNMENT + 301])
def test_assignment_shows_every_image_once(n: int) -> None:
    cells = grid(np.random.default_rng(n).normal(size=(n, 2))).cells
    assert sorted(cells[cells >= 0]) == list(range(n))


def test_blocks_cost_little_more_than_the_whole() -> None:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(2000, 2))
    whole = grid(points)
    import onnxviz.methods.image_grid as module

    limit = module._LARGEST_ASSIGNMENT
    try:
        module._LARGEST_ASSIGNMENT = 600
        blocks = grid(points)
    finally:
        module._LARGEST_ASSIGNMENT = limit
    assert blocks.displacement < 1.25 * whole.displacement


@pytest.mark.parametrize("layout", ["assignment", "karpathy"])
def test_points_that_agree_still_make_a_grid(layout: str) -> None:
    cells = grid(np.zeros((9, 2)), layout=layout).cells
    assert sorted(cells.ravel()) == list(range(9))


def test_seams_are_the_true_distances() -> None:
    points, features = (
        np.random.default_rng(2).random((5, 2)),
        np.random.default_rng(3).normal(size=(5, 40)).astype(np.float32),
    )
    made = grid(points, features=features)
    assert made.seams_right is not None
    assert made.seams_below is not None
    for r, c in np.ndindex(made.seams_right.shape):
        a, b = made.cells[r, c], made.cells[r, c + 1]
        expected = np.linalg.norm(features[a].astype(float) - features[b]) if a >= 0 and b >= 0 else np.nan
        np.testing.assert_allclose(made.seams_right[r, c], expected, rtol=1e-12)
    assert made.seams_below.shape == (made.cells.shape[0] - 1, made.cells.shape[1])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="'assignment', 'karpathy'"):
        grid(np.zeros((4, 2)), layout="spiral")
    with pytest.raises(InputError, match="3 rows"):
        grid(np.zeros((4, 2)), features=np.zeros((3, 8)))
