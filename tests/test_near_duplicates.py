"""Near-duplicates: every pair within the threshold and no other, and what is found of planted copies of photographs."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

import onnxviz as ov
from drawn_results import provenance
from embedded_cifar import picture_set
from feature_sets import feature_set, spread
from onnxviz.embedded import embedded_sets
from onnxviz.errors import InputError
from onnxviz.inputs.images import ImageSet
from onnxviz.methods import near_duplicates as module
from onnxviz.results import Features, NearDuplicates
from onnxviz.runtime.model import Model
from oracles import near_duplicate_pairs


def as_pairs(found: NearDuplicates) -> set[tuple[int, int]]:
    return {(first, second) for first, second in found.pairs.tolist()}


# -- Against the definition ---------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(3, 24), st.integers(0, 16), st.sampled_from(["cosine", "euclidean"]),
    st.floats(0, 1), st.integers(2, 12), st.sampled_from([0, 1, 3]),
)  # fmt: skip
def test_pairs_are_those_of_the_definition(
    seed: int, rows: int, others: int, metric: str, threshold: float, n_neighbors: int, scatter: int
) -> None:
    """Few integers: many exact copies, ties and rows of zeros, little but copies where ``scatter`` is 1.

    Where it is 0, rows near others that are copied several times.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, scatter + 1, (rows + others, 4)).astype(np.float64)
    if not scatter:
        drawn = rng.normal(size=(rows, 4))[rng.integers(0, rows, rows + others) // 3]
        drawn += rng.normal(size=drawn.shape) * 10.0 ** rng.uniform(-3, 0)
    first, second = drawn[:rows], drawn[rows:] if others >= 2 else None
    found = ov.near_duplicates(
        feature_set(first), None if second is None else feature_set(second), metric=metric, threshold=threshold,
        n_neighbors=n_neighbors,
    )  # fmt: skip
    least = module._LEAST_SCALE[metric]
    # Sums in another order may fall on either side of the threshold.
    surely, scales, nearest = near_duplicate_pairs(first, second, metric, threshold - 1e-9, n_neighbors, least)
    perhaps, _, _ = near_duplicate_pairs(first, second, metric, threshold + 1e-9, n_neighbors, least)
    np.testing.assert_allclose(found.scales, scales, atol=1e-12)
    np.testing.assert_allclose(found.nearest * found.scales, nearest, atol=1e-12)
    assert set(surely) <= as_pairs(found) <= set(perhaps)
    assert len(found.pairs) == len(as_pairs(found))
    for (i, j), ratio in zip(found.pairs.tolist(), found.ratios, strict=True):
        assert ratio == pytest.approx(perhaps[i, j], abs=1e-9)
    order = list(zip(found.ratios, found.distances, found.pairs.tolist(), strict=True))
    assert order == sorted(order)


def test_a_group_larger_than_the_neighbours_searched_is_found_whole() -> None:
    """Forty copies of one image: the search has to be widened twice, and their scale must not be their own distance."""
    rows = spread(300)
    rows[:40] = rows[0] + 1e-3 * spread(40, seed=1)
    found = ov.near_duplicates(feature_set(rows))
    assert as_pairs(found) == {(i, j) for i in range(40) for j in range(i + 1, 40)}
    assert found.affected.tolist() == list(range(40))
    assert found.scales[:40].min() == pytest.approx(np.median(found.scales) / 3)


def test_crowded_places_have_their_own_scale() -> None:
    """A class ten times as dense as the rest is no heap of duplicates, but a copy in it is one."""
    rows = np.concatenate([spread(100), 20 + spread(100, seed=1) / 3])
    rows[150] = rows[110] + 0.01
    assert as_pairs(ov.near_duplicates(feature_set(rows), metric="euclidean")) == {(110, 150)}
    assert as_pairs(ov.near_duplicates(feature_set(rows * 1000), metric="euclidean")) == {(110, 150)}


def test_across_sets_each_image_is_measured_in_the_other_set() -> None:
    second = spread(60)
    # A single image is enough, and a set does not compare with itself here.
    first = np.stack([second[7] * 1.001, second[7] * 1.002, spread(1, seed=3)[0]])
    found = ov.near_duplicates(feature_set(first), feature_set(second))
    assert as_pairs(found) == {(0, 7), (1, 7)}
    assert found.affected.tolist() == [0, 1]
    assert not found.within
    assert as_pairs(ov.near_duplicates(feature_set(first[:1]), feature_set(second))) == {(0, 7)}
    assert as_pairs(ov.near_duplicates(feature_set(first[2:]), feature_set(second))) == set()


def test_a_threshold_of_zero_finds_equal_features_only() -> None:
    rows = spread(30)
    rows[20], rows[21] = rows[4], np.nextafter(rows[5], np.inf)
    assert as_pairs(ov.near_duplicates(feature_set(rows), metric="euclidean", threshold=0)) == {(4, 20)}


@pytest.mark.parametrize("n_neighbors", [2, 3, 4, 10])
def test_nothing_but_copies(n_neighbors: int) -> None:
    for rows in range(3, 12):
        found = ov.near_duplicates(feature_set(np.ones((rows, 3))), n_neighbors=n_neighbors)
        assert as_pairs(found) == {(i, j) for i in range(rows) for j in range(i + 1, rows)}
        assert (found.ratios == 0).all()
    # A dead network: cosine has no direction to compare, so that nothing is close to anything.
    assert not len(ov.near_duplicates(feature_set(np.zeros((5, 3)))).pairs)


def test_labels_of_a_pair_are_compared_by_name() -> None:
    rows = spread(30)
    rows[10], rows[11], rows[12] = rows[0], rows[1], rows[2]
    labels = np.arange(30) % 3
    labels[[0, 10]], labels[[1, 11]], labels[[2, 12]] = 1, (0, 2), (0, -1)
    found = ov.near_duplicates(feature_set(rows, labels))
    conflict = dict(zip(map(tuple, found.pairs.tolist()), found.conflicting.tolist(), strict=True))
    assert conflict == {(0, 10): False, (1, 11): True, (2, 12): False}
    # The other set numbers the same names in another order.
    changed = labels.clip(0)
    changed[12] = 1
    other = feature_set(rows, 2 - changed, class_names=("c2", "c1", "c0"))
    across = ov.near_duplicates(feature_set(rows, labels.clip(0)), other, threshold=0)
    differing = {(1, 11), (11, 1), (2, 12), (12, 12)}
    assert {tuple(pair) for pair in across.pairs[across.conflicting].tolist()} == differing
    assert not ov.near_duplicates(feature_set(rows), feature_set(rows, labels)).conflicting.any()


def test_the_same_numbers_whatever_was_searched_before() -> None:
    rows = spread(80)
    rows[40] = rows[3] * 1.01
    features, again = feature_set(rows, np.arange(80) % 4), feature_set(rows, np.arange(80) % 4)
    ov.label_suspects(again, n_neighbors=30)
    ov.hubness(again, n_neighbors=3)
    one, two = ov.near_duplicates(features), ov.near_duplicates(again)
    for name in ("pairs", "distances", "ratios", "scales", "nearest"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), name
    assert one.provenance.parameters == two.provenance.parameters
    assert one.provenance.parameters["threshold"] == 0.25


def test_thumbnails_are_those_of_the_pairs() -> None:
    images = picture_set(40)
    rows = spread(39)
    rows[30] = rows[8]
    # One image of the set could not be read, so rows and images are not numbered alike.
    features = feature_set(rows, indices=np.delete(np.arange(40), 5))
    found = ov.near_duplicates(features, images=images)
    np.testing.assert_array_equal(found.thumbnails[0], images.thumbnails([9, 31], found.thumbnails.shape[2]))
    assert found.thumbnails.shape[:2] == (1, 2)
    assert ov.near_duplicates(features).thumbnails.shape[:2] == (0, 2)
    across = ov.near_duplicates(features, features, images=images)
    assert across.thumbnails.shape[:2] == (0, 2)


# -- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        ({}, {"metric": "manhattan"}, "'manhattan'"),
        ({}, {"threshold": 1.5}, "0 to 1"),
        ({}, {"threshold": float("nan")}, "0 to 1"),
        ({}, {"n_neighbors": 1}, "2 or more"),
        ({"array": spread(2)}, {}, "at least 3"),
        ({"array": np.full((9, 4), np.nan)}, {}, "row 0"),
    ],
)
def test_bad_parameters_are_refused(change: dict, options: dict, text: str) -> None:
    features = dataclasses.replace(feature_set(spread(9)), **change)
    with pytest.raises(InputError, match=text):
        ov.near_duplicates(features, **options)


def test_features_that_measure_something_else_are_refused() -> None:
    one = feature_set(spread(9))
    other_model = dataclasses.replace(provenance(), model_sha256="1" * 64)
    for other, text in (
        (feature_set(spread(9), value="relu"), "same value"),
        (feature_set(spread(9), provenance=other_model), "same model"),
        (feature_set(spread(9, 8)), "same width"),
        (feature_set(spread(9), pooled=True), "same pooling"),
        (feature_set(spread(1)), "at least 2"),
    ):
        with pytest.raises(InputError, match=text):
            ov.near_duplicates(one, other)
    with pytest.raises(InputError, match="not those of the features"):
        ov.near_duplicates(feature_set(np.ones((9, 4))), images=picture_set(3))


def test_features_that_tell_nothing_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FOUND", 1000)
    assert len(ov.near_duplicates(feature_set(np.ones((31, 4)))).pairs) == 31 * 30 // 2
    with pytest.raises(InputError, match="hardly tell the images apart"):
        ov.near_duplicates(feature_set(np.ones((40, 4))))


# -- Planted copies of real images --------------------------------------------------------------------------------


def encoded(quality: int) -> Callable[[Image.Image], Image.Image]:
    def edit(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return edit


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Off the middle: the corner moves by the share, the opposite one by half of it."""

    def edit(image: Image.Image) -> Image.Image:
        x, y = max(1, round(share * image.width)), max(1, round(share * image.height))
        return image.crop((x, y // 2, image.width - x // 2, image.height - y))

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 50": encoded(50),
    "JPEG, quality 20": encoded(20),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "cropped by 3 %": cropped(0.03),
    "cropped by 6 %": cropped(0.06),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
}

NETWORKS = {
    "squeezenet1.1-imagenet": ("imagenet", "caffe", 5),
    "efficientnet-lite0-torchscript-op13": ("imagenet", "efficientnet-lite", 5),
    "cifar10_7x7_4096": ("cifar10", "cifar10", 50),
}
"""Images, contract, and every how-manieth of the images is planted."""

RECALL: dict[str, tuple[float, ...]] = {
    "squeezenet1.1-imagenet": (1.00, 0.93, 0.98, 1.00, 1.00, 1.00, 1.00, 1.00, 0.48),
    "efficientnet-lite0-torchscript-op13": (1.00, 0.85, 0.96, 1.00, 1.00, 1.00, 1.00, 1.00, 0.52),
    "cifar10_7x7_4096": (0.86, 0.60, 0.07, 0.96, 0.57, 1.00, 1.00, 0.00, 0.65),
}
"""In the order of EDITS, as measured on 100 copies each. The CIFAR network's features keep the places of a map."""


@functools.cache
def collected(zoo: Path, network: str) -> tuple[Model, ImageSet, Features]:
    images, contract, _ = NETWORKS[network]
    model = ov.load(zoo / "models" / f"{network}.onnx", preprocess=contract, device="cpu")
    originals = ov.load_images(zoo / "images" / images, model)
    return model, originals, ov.features(model, originals)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_copies_of_photographs_are_found_as_often_as_stated(network: str, zoo: Path) -> None:
    """Edited copies against the originals: the recall for each edit, and not one pair that is no copy."""
    model, originals, known = collected(zoo, network)
    planted = list(range(0, len(originals), NETWORKS[network][2]))
    right = set(enumerate(planted))
    recall = []
    for edit in EDITS.values():
        copies = ov.load_images([edit(originals[index]) for index in planted], model)
        found = as_pairs(ov.near_duplicates(ov.features(model, copies), known))
        assert found <= right
        recall.append(len(found) / len(right))
    assert recall == pytest.approx(RECALL[network], abs=0.03)


@pytest.mark.slow
def test_the_duplicates_of_cifar_are_found(zoo: Path) -> None:
    """Three pairs of CIFAR-10's own test images are nearly the same picture, and the network finds these."""
    _, _, known = collected(zoo, "cifar10_7x7_4096")
    found = ov.near_duplicates(known)
    assert [tuple(found.names[index] for index in pair) for pair in found.pairs] == [
        ("airplane/0782.jpg", "airplane/0840.jpg"),
        ("ship/0386.jpg", "ship/0496.jpg"),
        ("frog/0172.jpg", "frog/0380.jpg"),
    ]


def test_copies_of_the_embedded_photographs_are_found() -> None:
    network = embedded_sets()[0]
    model = ov.load(network.model, device="cpu")
    originals = network.load_images(model)
    known = ov.features(model, originals)
    assert not len(ov.near_duplicates(known).pairs)
    copies = [edit(originals[index]) for index, edit in enumerate(EDITS.values()) if edit is not EDITS["grey"]]
    found = ov.near_duplicates(ov.features(model, ov.load_images(copies, model)), known)
    assert as_pairs(found) == {(index, index) for index in range(len(EDITS) - 1)}
