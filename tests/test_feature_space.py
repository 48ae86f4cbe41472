"""Class purity and hubness against their definitions, against scipy, and on spaces whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from embedded_cifar import picture_set
from feature_sets import feature_set, spread
from onnxviz.errors import InputError
from onnxviz.methods import nearest_others
from oracles import k_occurrences, neighbor_class_shares


def few_integers(seed: int, rows: int) -> np.ndarray:
    """Rows with many equal distances: ties must go to the lower number."""
    return np.random.default_rng(seed).integers(0, 3, (rows, 3)).astype(np.float64)


# -- Class purity -------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 24), st.integers(2, 5), st.integers(1, 30), st.booleans())
def test_shares_are_those_of_the_definition(
    seed: int, rows: int, classes: int, n_neighbors: int, some_unknown: bool
) -> None:
    labels = np.random.default_rng(seed).integers(-1 if some_unknown else 0, classes, rows)
    labels[:2] = 0, classes
    array = few_integers(seed, rows)
    found = ov.class_purity(feature_set(array, labels), n_neighbors=n_neighbors, metric="euclidean")
    expected = neighbor_class_shares(array, labels, n_neighbors, "euclidean")
    assert found.classes.tolist() == sorted(expected)
    for row, own in enumerate(found.classes.tolist()):
        assert found.counts[row] == (labels == own).sum()
        for column, other in enumerate(found.classes.tolist()):
            assert found.matrix[row, column] == pytest.approx(expected[own][other])
    np.testing.assert_allclose(found.matrix.sum(axis=1), 1)
    np.testing.assert_array_equal(found.purity, np.diag(found.matrix))
    assert (found.purity <= found.ceiling + 1e-12).all()


def test_labels_at_random_have_the_purity_of_chance() -> None:
    labels = np.random.default_rng(1).choice(3, 2000, p=[0.6, 0.3, 0.1])
    found = ov.class_purity(feature_set(spread(2000), labels))
    np.testing.assert_allclose(found.purity, found.chance, atol=0.03)
    np.testing.assert_allclose(found.chance, (np.bincount(labels) - 1) / 1999)
    assert (found.ceiling == 1).all()


def test_classes_apart_are_pure_up_to_their_size() -> None:
    rows = np.concatenate([spread(30), spread(30, seed=1) + 50, spread(6, seed=2) - 50])
    found = ov.class_purity(feature_set(rows, np.repeat([0, 1, 2], [30, 30, 6])), metric="euclidean")
    assert found.n_neighbors == 20
    np.testing.assert_allclose(found.purity, [1, 1, 5 / 20])
    np.testing.assert_allclose(found.ceiling, [1, 1, 5 / 20])


# -- Hubness ------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 24), st.data())
def test_occurrences_are_those_of_the_definition(seed: int, rows: int, data: st.DataObject) -> None:
    array = few_integers(seed, rows)
    k = data.draw(st.integers(1, rows - 1))
    labels = np.random.default_rng(seed).integers(-1, 3, rows)
    found = ov.hubness(feature_set(array, labels), n_neighbors=k, metric="euclidean")
    assert found.bad_occurrences is not None
    expected = k_occurrences(array, labels, k, "euclidean")
    assert (found.occurrences.tolist(), found.bad_occurrences.tolist()) == expected
    assert found.occurrences.sum() == rows * k
    assert set(found.antihubs.tolist()) == set(np.flatnonzero(found.occurrences == 0).tolist())
    if np.ptp(found.occurrences):
        assert found.skewness == pytest.approx(scipy.stats.skew(found.occurrences), abs=1e-9)
    else:
        assert found.skewness == 0


def test_a_hub_is_found_and_its_bad_occurrences_counted() -> None:
    """One image in the middle of a sphere of others is nearer to each of them than they are to one another."""
    rng = np.random.default_rng(0)
    around = rng.normal(size=(200, 64))
    rows = np.concatenate(
        [around / np.linalg.norm(around, axis=1, keepdims=True), np.full((1, 64), 0.01), spread(1, 64) * 9]
    )
    labels = np.arange(202) % 2
    labels[5] = -1
    found = ov.hubness(feature_set(rows, labels), n_neighbors=5, metric="euclidean")
    assert found.hubs[0] == 200
    assert found.occurrences[200] == 200
    # Of the images around it 100 have the other label, but that of one is not known.
    assert found.bad_occurrences is not None
    assert found.bad_occurrences[200] == 99
    assert found.antihubs[0] == 201
    assert found.skewness > 5
    assert ov.hubness(feature_set(rows), n_neighbors=5).bad_occurrences is None


def test_hubs_come_with_dimensions() -> None:
    """The finding of Radovanović et al. 2010 on normal data: skewness near 0 in 3 dimensions, large in 100."""
    flat = ov.hubness(feature_set(spread(1000, 3)), metric="euclidean")
    deep = ov.hubness(feature_set(spread(1000, 100)), metric="euclidean")
    assert abs(flat.skewness) < 0.5
    assert deep.skewness > 3
    deviation = deep.occurrences - 10
    assert deep.hubs.tolist() == sorted(
        np.flatnonzero(deviation > 2 * deviation.std()).tolist(), key=lambda image: (-deep.occurrences[image], image)
    )


def test_thumbnails_are_those_of_hubs_and_antihubs() -> None:
    images = picture_set(60)
    features = feature_set(spread(59, 100), indices=np.delete(np.arange(60), 5))
    found = ov.hubness(features, metric="euclidean", images=images)
    assert set(found.shown.tolist()) == {*found.hubs[:10].tolist(), *found.antihubs[:10].tolist()}
    assert len(found.shown) > 2
    np.testing.assert_array_equal(found.thumbnails, images.thumbnails(features.indices[found.shown], 112))


@pytest.mark.parametrize(
    ("rows", "options", "text"),
    [
        (9, {"n_neighbors": 9}, "1 to 8"),
        (9, {"n_neighbors": 0}, "1 to 8"),
        (1, {"n_neighbors": 1}, "at least two images"),
        (12, {"metric": "manhattan"}, "'manhattan'"),
    ],
)
def test_impossible_searches_are_refused(rows: int, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        ov.hubness(feature_set(spread(rows)), **options)


# -- One search for all -------------------------------------------------------------------------------------------


def test_the_neighbours_of_one_set_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = nearest_others._others

    def counted(index: ov.NearestNeighbors, k: int) -> object:
        searched.append(k)
        return search(index, k)

    monkeypatch.setattr(nearest_others, "_others", counted)
    features = feature_set(spread(60), np.arange(60) % 3)
    ov.near_duplicates(features)
    ov.hubness(features)
    ov.label_suspects(features)
    ov.class_purity(features)
    assert searched == [20]
    # More neighbours, another metric or fewer images are another search.
    ov.hubness(features, n_neighbors=30)
    ov.hubness(features, metric="euclidean")
    ov.hubness(feature_set(spread(60)))
    assert searched == [20, 30, 20, 20]


def test_a_search_is_forgotten_with_its_features() -> None:
    before = len(nearest_others._searches)
    features = feature_set(spread(30))
    ov.hubness(features)
    assert len(nearest_others._searches) == before + 1
    del features
    assert len(nearest_others._searches) == before
