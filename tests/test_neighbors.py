"""The strips of nearest images, in feature space and in pixel space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxviz as ov
from embedded_cifar import cifar_model, picture_set, pictures
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.methods import neighbors as module
from oracles import nearest_rows


def test_strips_of_the_neighbours_in_both_spaces() -> None:
    model = cifar_model()
    labels = np.arange(40) % 4
    images = picture_set(40, labels=labels, class_names=("a", "b", "c", "d"))
    got = ov.neighbors(model, images, n_neighbors=3, queries=8, seed=1)
    vectors = ov.features(model, images).array
    assert vectors.shape == (40, 4096)
    pixels = pictures(40).reshape(40, -1).astype(np.float32)
    assert sorted(np.bincount(labels[got.queries]).tolist()) == [2, 2, 2, 2]
    spaces = (
        (vectors, got.feature_distances, got.feature_indices, got.feature_accuracy),
        (pixels, got.pixel_distances, got.pixel_indices, got.pixel_accuracy),
    )
    for rows, distances, indices, accuracy in spaces:
        hits = 0
        for row in range(40):
            others = np.delete(np.arange(40), row)
            near, order = nearest_rows(rows[others], rows[row : row + 1], 3)
            near_rows = others[order[0]]
            votes = labels[near_rows].tolist()
            hits += max(votes, key=lambda vote: (votes.count(vote), -votes.index(vote))) == labels[row]
            for query in np.flatnonzero(got.queries == row):
                np.testing.assert_array_equal(indices[query], near_rows)
                np.testing.assert_allclose(distances[query], near[0], rtol=1e-13)
        assert accuracy == hits / 40
    assert set(got.shown) == {*got.queries, *got.feature_indices.ravel(), *got.pixel_indices.ravel()}
    assert got.thumbnails.shape == (len(got.shown), 112, 112, 3)
    assert got.class_names == ("a", "b", "c", "d")
    assert got.provenance.parameters["pixel_size"] == [32, 32]
    again = ov.neighbors(model, images, n_neighbors=3, queries=8, seed=1)
    np.testing.assert_array_equal(got.queries, again.queries)


def test_unreadable_and_unlabelled_images_are_left_out(tmp_path: Path) -> None:
    from PIL import Image

    for name, picture in zip("abcdef", pictures(6), strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    broken = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(broken[: len(broken) // 2])
    got = ov.neighbors(cifar_model(), ov.load_images(tmp_path, cifar_model()), n_neighbors=2, queries=20)
    assert got.names == ("a.png", "b.png", "d.png", "e.png", "f.png")
    assert got.queries.tolist() == [0, 1, 2, 3, 4]
    assert got.feature_accuracy is None
    assert got.classes is None
    some = picture_set(6, labels=np.array([0, 0, -1, 1, 1, -1]))
    twins = ov.neighbors(cifar_model(), some, n_neighbors=2)
    assert twins.feature_accuracy is not None
    assert twins.feature_accuracy * 4 == round(twins.feature_accuracy * 4)


def test_many_pixels_are_compared_at_a_lower_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    images = picture_set(10)
    full = ov.neighbors(cifar_model(), images, n_neighbors=1)
    monkeypatch.setattr(module, "_PIXEL_BYTES", 10 * 16 * 16 * 3 * 4)
    got = ov.neighbors(cifar_model(), images, n_neighbors=1)
    assert got.provenance.parameters["pixel_size"] == [16, 16]
    np.testing.assert_array_equal(got.feature_indices, full.feature_indices)
    blocks = pictures(10).reshape(10, 16, 2, 16, 2, 3).mean(axis=(2, 4)).reshape(10, -1)
    expected = nearest_rows(blocks, blocks[got.queries], 2)[0][:, 1:]
    # Pillow rounds each mean to a whole grey level.
    np.testing.assert_allclose(got.pixel_distances, expected, rtol=0.01)


def test_neighbours_that_cannot_be_are_refused() -> None:
    model = cifar_model()
    with pytest.raises(InputError, match="allowed: 1 to 2 for 3 readable images"):
        ov.neighbors(model, picture_set(3), n_neighbors=3)
    with pytest.raises(InputError, match="at least two readable images"):
        ov.neighbors(model, picture_set(1), n_neighbors=1)
    with pytest.raises(InputError, match="queries"):
        ov.neighbors(model, picture_set(3), n_neighbors=1, queries=0)
    with pytest.raises(ValueNotFoundError):
        ov.neighbors(model, picture_set(3), value="nowhere", n_neighbors=1)
