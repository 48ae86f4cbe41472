"""Class pictures: against what a person would call the class, against clusters of its images, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import ascent_cases
import onnxviz as ov
from ascent_cases import SIDE, weights_of
from embedded_cifar import cifar_model
from graphs import build, save
from onnxviz.errors import ContractError, InputError, ValueNotFoundError
from onnxviz.methods.class_visualization import jitter_reach, probability_under_jitter
from onnxviz.methods.facets import find_facets
from onnxviz.runtime.model import Model

model = ascent_cases.model


# -- class pictures ----------------------------------------------------------------------------------------------------


def test_result_and_steps_say_the_same(model: Model) -> None:
    steps = list(ov.class_visualization_steps(model, ["ant", 3], steps=6, seed=2, jitters=5))
    found = ov.class_visualization(model, ["ant", 3], steps=6, seed=2, jitters=5)
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert all(step.total == 6 for step in steps)
    assert all(step.result is None for step in steps[:-1])
    last = steps[-1].result
    assert isinstance(last, ov_result())
    for name in ("pictures", "scores", "probabilities", "curve"):
        np.testing.assert_array_equal(getattr(last, name), getattr(found, name))
    np.testing.assert_array_equal(steps[-1].pictures, found.pictures)
    np.testing.assert_array_equal(np.stack([step.scores for step in steps]), found.curve)
    assert found.pictures.shape == (2, SIDE, SIDE, 3)
    assert found.classes.tolist() == [0, 3]
    assert found.facets.tolist() == [0, 0]
    assert found.starts is None
    assert (found.scale, found.method, found.jitters, found.reach) == ("logit", "fourier", 5, 1)
    logits = model.run(model.preprocess.encode(found.pictures))["logits"]
    np.testing.assert_allclose(found.scores, logits[[0, 1], [0, 3]], rtol=1e-5)
    said = found.provenance.parameters
    assert (said["classes"], said["steps"], said["seed"], said["objective"]) == ([0, 3], 6, 2, "logit")


def ov_result() -> type:
    from onnxviz.results import ClassVisualization

    return ClassVisualization


def test_a_picture_is_the_same_whichever_others_are_made(model: Model) -> None:
    together = ov.class_visualization(model, [0, 2, 3], steps=5)
    alone = ov.class_visualization(model, 2, steps=5)
    assert np.abs(together.pictures[1].astype(int) - alone.pictures[0]).max() <= 1
    other = ov.class_visualization(model, 2, steps=5, seed=1)
    assert (other.pictures != alone.pictures).any()


def test_probability_under_jitter_is_that_of_shifted_pictures(model: Model) -> None:
    assert [jitter_reach((side, side)) for side in (8, 28, 32, 224)] == [1, 2, 2, 14]
    views = np.random.default_rng(9).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    around = np.array([[10.0, 20.0, 30.0], [200.0, 210.0, 220.0]])
    found = probability_under_jitter(model, views, [1, 2], around=around, jitters=300, seed=4)
    for row, index in enumerate((1, 2)):
        shifted = []
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                moved = np.empty((SIDE, SIDE, 3), np.uint8)
                moved[:] = around[row]
                rows, columns = (slice(max(shift, 0), SIDE + min(shift, 0)) for shift in (down, right))
                back = (slice(max(-shift, 0), SIDE + min(-shift, 0)) for shift in (down, right))
                moved[rows, columns] = views[row][tuple(back)]
                shifted.append(moved)
        probabilities = model.predict(model.preprocess.encode(np.stack(shifted)))[:, index]
        # The mean over draws from nine shifts, to four standard errors.
        assert abs(found[row] - probabilities.mean()) <= 4 * probabilities.std() / np.sqrt(300) + 1e-6


CALM = {"copies": 2, "noise": 0.38, "roughness": 0.0035, "cooling": 0.9}


def garments() -> tuple[Model, Any]:
    network = ov.embedded_sets()[1]
    opened = ov.load(network.model, device="cpu", threads=1)
    return opened, network.load_images(opened)


def test_garments_are_taken_for_what_they_are() -> None:
    opened, images = garments()
    found = ov.class_visualization(
        opened, ["trouser", "dress", "bag", "ankle boot"], objective="probability", start="images", images=images,
        steps=100, regularization=CALM,
    )  # fmt: skip
    assert (found.probabilities > 0.9).all(), found.probabilities
    views = images.views(np.arange(len(images)))
    assert np.abs(found.starts[0] - views.mean(axis=0)).max() <= 0.51
    assert (found.starts == found.starts[:1]).all()


@pytest.mark.slow
def test_all_classes_of_the_garments_above_nine_tenths() -> None:
    opened, images = garments()
    found = ov.class_visualization(
        opened, range(10), objective="probability", start="images", images=images, steps=200, regularization=CALM
    )
    assert (found.probabilities > 0.9).all(), found.probabilities


def test_classes_of_colour_photographs_with_the_usual_numbers() -> None:
    found = ov.class_visualization(cifar_model(), range(10), steps=40)
    assert (found.probabilities > 0.9).all(), found.probabilities
    assert (found.curve[-5:].mean(axis=0) > found.curve[:5].mean(axis=0) + 5).all()


@pytest.mark.parametrize("method", ["simonyan", "yosinski", "nguyen"])
def test_every_method_raises_its_class(model: Model, method: str) -> None:
    found = ov.class_visualization(model, [1, 2], method=method, steps=30)
    again = ov.class_visualization(model, [1, 2], method=method, steps=30)
    np.testing.assert_array_equal(found.pictures, again.pictures)
    assert found.method == method
    assert found.curve.shape == (30, 2)
    assert (found.curve[-1] > found.curve[0]).all()


# -- facets ------------------------------------------------------------------------------------------------------------


def test_facets_are_scikit_learns_clusters_and_means_are_exact() -> None:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    opened, images = garments()
    bags = images.subset(np.flatnonzero(images.folder_classes == 8)[:60])
    found = find_facets(opened, bags, 3, seed=3)
    array = ov.features(opened, bags).array.astype(np.float64)
    reduced = PCA(n_components=50, svd_solver="full", random_state=3).fit_transform(array)
    np.testing.assert_allclose(found.coordinates, ov.embed(reduced, random_state=3).coordinates)
    clusters = KMeans(n_clusters=3, n_init=10, random_state=3).fit(found.coordinates)
    pairs = {*zip(found.labels.tolist(), clusters.labels_.tolist(), strict=True)}
    assert len(pairs) == 3
    counts = np.bincount(found.labels)
    assert (np.diff(counts) <= 0).all()
    views = bags.views(np.arange(len(bags))).astype(np.float64)
    for facet, cluster in sorted(pairs):
        away = np.linalg.norm(found.coordinates - clusters.cluster_centers_[cluster], axis=1)
        assert set(found.members[facet].tolist()) == set(np.argsort(away)[:15].tolist())
        total = np.zeros_like(views[0])
        for member in found.members[facet]:
            total += views[member]
        np.testing.assert_allclose(found.means[facet], total / 15, rtol=1e-6)
    made = ov.class_visualization(opened, "bag", images=bags, facets=3, seed=3, steps=3)
    assert made.facets.tolist() == [0, 1, 2]
    assert made.classes.tolist() == [8] * 3
    # Greys by their luma: of equal channels, the mean image itself.
    assert np.abs(made.starts.astype(int) - np.rint(found.means)).max() <= 1


def test_images_of_a_class_are_found_by_name_by_number_or_are_all(model: Model) -> None:
    random = np.random.default_rng(13)
    pictures = random.integers(0, 256, (24, SIDE, SIDE, 3), np.uint8)
    pictures[12:] //= 2
    classes = np.repeat([0, 1], 12)
    named = ov.load_images(pictures, model, labels=classes, class_names=("hound", "ant"))
    by_name = ov.class_visualization(model, [3, 0], images=named, facets=2, steps=1)
    assert by_name.starts[:2].mean() > 1.5 * by_name.starts[2:].mean()
    numbered = ov.load_images(pictures, model, labels=classes, class_names=("x", "y"))
    by_number = ov.class_visualization(model, [0, 1], images=numbered, facets=2, steps=1)
    np.testing.assert_array_equal(by_number.starts, by_name.starts)
    bare = ov.load_images(pictures[:12], model)
    every = ov.class_visualization(model, 3, images=bare, facets=2, steps=1)
    np.testing.assert_array_equal(every.starts, by_name.starts[:2])
    for asked, images, sentence in (
        ([0, 1], bare, "no classes"),
        ([0, 1], None, "no images"),
        ([1], named, "no image shows this class"),
    ):
        with pytest.raises(InputError, match=sentence):
            ov.class_visualization(model, asked, images=images, facets=2, steps=1)
    with pytest.raises(InputError, match="too few images"):
        ov.class_visualization(model, 3, images=bare, facets=13, steps=1)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 4}, "no such class"),
        ({"classes": "horse"}, "no class has that label"),
        ({"classes": "logits[1]"}, "not a class"),
        ({"classes": [0, 0]}, "given twice"),
        ({"classes": []}, "no class was given"),
        ({"classes": "top1"}, "not a class"),
        ({"classes": [True]}, "not a class"),
        ({"method": "dream"}, "no such method"),
        ({"objective": "margin"}, "no such objective"),
        ({"steps": 0}, "not a number of steps"),
        ({"steps": 2.5}, "not a number of steps"),
        ({"seed": -1}, "not a seed"),
        ({"start": "blue"}, "no such start"),
        ({"start": (1, 2, 300)}, "not a colour or picture"),
        ({"start": np.zeros((3, 4, 3))}, "not a colour or picture"),
        ({"start": "images"}, "no images whose mean"),
        ({"facets": -1}, "not a number of facets"),
        ({"jitters": 0}, "not a number of jitters"),
        ({"regularization": {"blur": 1}}, "has no such number"),
        ({"regularization": {"noise": -1}}, "not a value of noise"),
        ({"regularization": {"copies": 1.5}}, "not a value of copies"),
        ({"regularization": {"cooling": 2}}, "not a value of cooling"),
        ({"method": "yosinski", "regularization": {"small_norm": 101}}, "not a value of small_norm"),
    ],
    ids=range(23),
)
def test_what_cannot_be_is_refused(model: Model, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ov.class_visualization(model, **({"classes": 0, "steps": 1} | arguments))


def test_other_refusals(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueNotFoundError):
        ov.feature_visualization(model, "nothing")
    with pytest.raises(TypeError, match="colour"):
        ov.class_visualization_steps(model, 0, colour=1)
    with pytest.raises(TypeError, match="colour"):
        ov.feature_visualization_steps(model, "relu", colour=1)
    proto = build(
        [helper.make_node("Conv", ["image", "w1"], ["map"])],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"map": ("float", ["n", 6, SIDE - 2, SIDE - 2])},
        weights={"w1": weights_of()["w1"]},
    )  # fmt: skip
    no_classes = ov.load(save(proto, tmp_path / "map.onnx"), preprocess="unit", device="cpu", threads=1)
    with pytest.raises(ContractError, match="not a classifier"):
        ov.class_visualization(no_classes, 0)
    words = build(
        [helper.make_node("Relu", ["tokens"], ["out"])],
        inputs={"tokens": ("float", ["n", 7])}, outputs={"out": ("float", ["n", 7])},
    )  # fmt: skip
    no_image = ov.load(save(words, tmp_path / "words.onnx"), device="cpu", threads=1)
    with pytest.raises(InputError, match="takes images"):
        ov.class_visualization(no_image, 0)
