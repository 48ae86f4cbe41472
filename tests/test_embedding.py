"""Embeddings: PCA against numpy, t-SNE by what it keeps, and the same bytes for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

import onnxviz as ov
from embedded_cifar import cifar_model, picture_set
from onnxviz.errors import InputError
from onnxviz.methods import embedding


def clusters(n: int = 150, dimensions: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(5, dimensions)) * 6)[np.arange(n) % 5] + rng.normal(size=(n, dimensions))


def test_pca_equals_the_singular_vectors() -> None:
    x = clusters()
    centred = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    got = ov.embed(x, method="pca")
    np.testing.assert_allclose(np.abs(got.coordinates), np.abs(u[:, :2] * s[:2]), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.explained_variance_ratio, (s**2 / (s**2).sum())[:2], rtol=1e-9)


@pytest.mark.parametrize("solver", ["_open_tsne", "_scikit_tsne"])
def test_tsne_keeps_neighbourhoods(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if solver == "_scikit_tsne":
        monkeypatch.setattr(embedding.importlib.util, "find_spec", lambda _: None)
    x = clusters()
    got = ov.embed(x, method="tsne")
    assert got.trustworthiness > 0.8
    # Points of one cluster lie together: the nearest neighbour in the picture is of the same cluster.
    distance = np.linalg.norm(got.coordinates[:, None] - got.coordinates[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(axis=1) % 5 == np.arange(len(x)) % 5).mean() > 0.97


def test_the_same_seed_gives_the_same_bytes() -> None:
    x = clusters(60)
    assert ov.embed(x, random_state=3).coordinates.tobytes() == ov.embed(x, random_state=3).coordinates.tobytes()


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("x", [np.ones((8, 5)), np.repeat(np.eye(2), 6, axis=0), np.arange(7.0)[:, None]])
def test_degenerate_features_still_embed(method: str, x: np.ndarray) -> None:
    got = ov.embed(x, method=method)
    assert got.coordinates.shape == (len(x), 2)
    assert np.isfinite(got.coordinates).all()


@pytest.mark.parametrize("solver", ["openTSNE", "scikit-learn"])
@pytest.mark.parametrize("count", [5, 8, 10, 13])
def test_few_points_are_not_drawn_into_one(solver: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if solver == "scikit-learn":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for seed in range(4):
        # Much alike, as the features of a few photos by a network with random weights are.
        x = 10 + np.random.default_rng(seed).random((count, 64))
        assert (ov.embed(x).coordinates.std(axis=0) > 0.1).all()


def test_wrong_features_are_refused() -> None:
    with pytest.raises(InputError, match="row 2"):
        ov.embed(np.where(np.eye(6) * [0, 0, 1, 0, 0, 0] > 0, np.nan, 1.0))
    with pytest.raises(InputError, match="5 or more"):
        ov.embed(np.ones((3, 4)))
    with pytest.raises(InputError, match="matrix"):
        ov.embed(np.ones(4))
    with pytest.raises(InputError, match="'tsne', 'pca'"):
        ov.embed(np.ones((9, 4)), method="umap")


def test_features_of_images_carry_names_and_classes() -> None:
    labels = np.array([0, 1] * 6)
    found = ov.features(cifar_model(), picture_set(12, labels=labels, class_names=("a", "b")))
    assert found.array.shape == (12, 4096)
    assert not found.pooled
    made = ov.embed(found, method="pca")
    assert made.names == found.names
    np.testing.assert_array_equal(made.classes, labels)
    assert made.class_names == ("a", "b")
    np.testing.assert_array_equal(made.indices, np.arange(12))


def test_large_maps_are_pooled_and_small_ones_flattened() -> None:
    model = cifar_model()
    value = model.values("*Relu*")[0].name
    wide = ov.features(model, picture_set(2), value=value)
    assert wide.pooled
    assert wide.array.shape == (2, 48)
    np.testing.assert_allclose(wide.array, model.run(picture_set(2), (value,))[value].mean(axis=(2, 3)), rtol=1e-6)
    assert ov.features(model, picture_set(2), value=value, pool=False).array.shape == (2, 48 * 32 * 32)
