"""Label suspects: scores and ranking against the definition, and how many planted wrong labels the top holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxviz as ov
from embedded_cifar import picture_set
from feature_sets import feature_set, spread
from onnxviz.embedded import embedded_sets
from onnxviz.errors import InputError
from onnxviz.results import Features
from oracles import disagreeing_neighbors


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(4, 24), st.integers(2, 5), st.integers(1, 30), st.booleans(),
    st.sampled_from(["cosine", "euclidean"]),
)  # fmt: skip
def test_scores_are_those_of_the_definition(
    seed: int, rows: int, classes: int, n_neighbors: int, some_unknown: bool, metric: str
) -> None:
    rng = np.random.default_rng(seed)
    # Few integers have many equal distances; those of cosines would be equal only up to rounding.
    array = rng.integers(0, 3, (rows, 3)).astype(np.float64) if metric == "euclidean" else rng.normal(size=(rows, 3))
    labels = rng.integers(-1 if some_unknown else 0, classes, rows)
    labels[:2] = 0, 1
    found = ov.label_suspects(feature_set(array, labels), n_neighbors=n_neighbors, metric=metric)
    expected = disagreeing_neighbors(array, labels, n_neighbors, metric)
    assert set(found.ranking.tolist()) == set(expected)
    for image in range(rows):
        if image not in expected:
            assert np.isnan(found.scores[image])
            assert found.voters[image] == 0
            assert found.voted[image] == -1
            continue
        score, voters, _, winner = expected[image]
        assert found.scores[image] == pytest.approx(score)
        assert found.voters[image] == voters
        assert found.voted[image] == winner
    keys = [
        (-round(expected[image][0], 9), -expected[image][1], round(expected[image][2], 9), image)
        for image in found.ranking.tolist()
    ]
    assert keys == sorted(keys)
    assert (found.neighbors[labels < 0] == -1).all()
    assert np.isnan(found.distances[labels < 0]).all()
    assert (labels[found.neighbors[labels >= 0]] >= 0).all()


def test_a_small_class_is_asked_as_many_neighbours_as_it_has_others() -> None:
    """Two clusters of 30, and a class of three that keeps to itself: nobody is a suspect."""
    rows = np.concatenate([spread(30), spread(30, seed=1) + 50, spread(3, seed=2) - 50])
    labels = np.repeat([0, 1, 2], [30, 30, 3])
    found = ov.label_suspects(feature_set(rows, labels), metric="euclidean")
    assert (found.scores == 0).all()
    assert found.voters.tolist() == [20] * 60 + [2] * 3
    assert not len(found.contradicted)
    # The only one of its class has nobody who could agree, and is not judged.
    labels[62] = 3
    alone = ov.label_suspects(feature_set(rows, labels), metric="euclidean")
    assert np.isnan(alone.scores[62])
    assert 62 not in alone.ranking


def test_a_wrong_label_leads_the_list() -> None:
    rows = np.concatenate([spread(40), spread(40, seed=1) + 50])
    labels = np.repeat([0, 1], 40)
    labels[[3, 70]] = 1, 0
    found = ov.label_suspects(feature_set(rows, labels), metric="euclidean")
    assert set(found.ranking[:2].tolist()) == {3, 70} == set(found.contradicted.tolist())
    assert found.voted[[3, 70]].tolist() == [0, 1]
    assert found.scores[[3, 70]].tolist() == [1, 1]


def planted(features: Features, seed: int, share: float = 0.05) -> tuple[Features, np.ndarray]:
    """Some labels exchanged for another class drawn at random; which."""
    assert features.classes is not None
    rng = np.random.default_rng(seed)
    classes = int(features.classes.max()) + 1
    wrong = rng.choice(len(features.classes), round(share * len(features.classes)), replace=False)
    labels = features.classes.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return dataclasses.replace(features, classes=labels), wrong


def precision(features: Features) -> float:
    """Share of the planted labels among as many first suspects, over four draws; precision and recall are the same."""
    shares = []
    for seed in range(4):
        changed, wrong = planted(features, seed)
        shares.append(float(np.isin(ov.label_suspects(changed).ranking[: len(wrong)], wrong).mean()))
    return float(np.mean(shares))


def test_planted_labels_of_fashion_mnist_are_found() -> None:
    network = embedded_sets()[1]
    model = ov.load(network.model, device="cpu")
    features = ov.features(model, network.load_images(model))
    assert precision(features) == pytest.approx(0.87, abs=0.02)
    changed, wrong = planted(features, 0)
    found = ov.label_suspects(changed)
    # The neighbours do not only doubt the wrong label, they tell the right one.
    assert (found.voted[wrong] == features.classes[wrong]).mean() > 0.85


@pytest.mark.slow
def test_planted_labels_of_cifar_are_found(zoo: Path) -> None:
    model = ov.load(zoo / "models" / "cifar10_7x7_4096.onnx", preprocess="cifar10", device="cpu")
    features = ov.features(model, ov.load_images(zoo / "images" / "cifar10", model))
    assert precision(features) == pytest.approx(0.66, abs=0.02)
    changed, wrong = planted(features, 0)
    found = ov.label_suspects(changed)
    outvoted = found.voted != changed.classes
    assert outvoted[wrong].mean() == pytest.approx(0.97, abs=0.02)
    assert np.delete(outvoted, wrong).mean() == pytest.approx(0.25, abs=0.02)


def test_thumbnails_are_those_of_the_suspects_and_their_neighbours() -> None:
    images = picture_set(40)
    features = feature_set(spread(39), np.arange(39) % 3, indices=np.delete(np.arange(40), 5))
    found = ov.label_suspects(features, n_neighbors=4, images=images)
    first = int(found.ranking[0])
    assert {first, *found.neighbors[first].tolist()} <= set(found.shown.tolist())
    np.testing.assert_array_equal(found.thumbnails, images.thumbnails(features.indices[found.shown], 112))
    assert not len(ov.label_suspects(features).shown)


@pytest.mark.parametrize(
    ("classes", "options", "text"),
    [
        (None, {}, "no image with a class"),
        ([-1] * 12, {}, "no image with a class"),
        ([2] * 12, {}, "one class for 12 images"),
        ([0] * 6 + [-1] * 6, {}, "one class for 6 images"),
        ([0, 1] * 6, {"n_neighbors": 0}, "n_neighbors"),
        ([0, 1] * 6, {"metric": "manhattan"}, "'manhattan'"),
    ],
)
def test_what_cannot_be_judged_is_refused(classes: list[int] | None, options: dict, text: str) -> None:
    features = feature_set(spread(12), classes)
    for method in (ov.label_suspects, ov.class_purity):
        with pytest.raises(InputError, match=text):
            method(features, **options)


def test_every_image_the_only_one_of_its_class() -> None:
    found = ov.label_suspects(feature_set(spread(6), np.arange(6)))
    assert not len(found.ranking)
    assert np.isnan(found.scores).all()
