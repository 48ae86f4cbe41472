"""Insertion and deletion: curves against a slow oracle, areas against scikit-learn, ties, substrates, controls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from matplotlib.text import Text
from onnx import helper
from sklearn.metrics import auc

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save
from onnxviz.errors import InputError
from onnxviz.methods.control_maps import control_maps, edge_map, random_map
from onnxviz.methods.insertion_deletion import insertion_deletion, saliency_ranks
from onnxviz.methods.substrates import substrate
from onnxviz.pictures import plot
from onnxviz.pictures.text import numeral
from onnxviz.runtime.model import Model
from oracles import authors_blur, changing_scores
from zoo_models import ZOO


def channels_first(array: np.ndarray, model: Model) -> np.ndarray:
    return array if model.preprocess.layout == "NCHW" else np.moveaxis(array, -1, 0)


def scorer(model: Model, index: int) -> Callable[[np.ndarray], float]:
    back = (lambda image: image) if model.preprocess.layout == "NCHW" else (lambda image: np.moveaxis(image, 0, -1))
    return lambda image: float(model.predict(back(image)[np.newaxis])[0, index])


def oracle(model: Model, view: np.ndarray, saliency: np.ndarray, index: int, step: int) -> tuple[list, list]:
    """Insertion into the blurred image and deletion to zero."""
    image = channels_first(model.preprocess.encode(view[np.newaxis])[0], model)
    blurred, zero = authors_blur(image), np.zeros_like(image)
    if image.dtype.kind in "iu":
        blurred = np.rint(blurred)
    if model.preprocess.quantization:
        zero[:] = model.preprocess.quantization[1]
    score = scorer(model, index)
    return (
        changing_scores(score, blurred.astype(image.dtype), image, saliency, step),
        changing_scores(score, image, zero, saliency, step),
    )


# -- curves and areas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 37, 1024, 5000])
def test_curves_and_areas_are_those_of_the_oracle(step: int | None) -> None:
    model, picture = cifar_model(), pictures(2)[1]
    # Many equal numbers, as maps have them: the stable order decides.
    saliency = np.random.default_rng(0).integers(-3, 4, (32, 32)).astype(np.float32)
    got = insertion_deletion(model, picture, saliency, 3, step=step)
    insertion, deletion = oracle(model, picture, saliency, 3, step or 32)
    np.testing.assert_allclose(got.insertion, insertion, rtol=1e-5)
    np.testing.assert_allclose(got.deletion, deletion, rtol=1e-5)
    points = {None: 33, 37: 29, 1024: 2, 5000: 2}[step]
    assert len(got.insertion) == len(got.deletion) == len(got.fractions) == points
    np.testing.assert_allclose(got.fractions, np.linspace(0, 1, points), rtol=1e-15)
    for area, curve in ((got.insertion_area, got.insertion), (got.deletion_area, got.deletion)):
        assert area == pytest.approx(auc(got.fractions, curve), abs=1e-12)
    assert got.step == (step or 32)
    assert got.controls == ()
    assert got.control_insertion.shape == (0, points)
    assert got.scale == "probability"
    np.testing.assert_array_equal(got.map, saliency)


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_025_128_qdq_op13", "mlperf_tiny_resnet8_keras", "mlperf_tiny_resnet8_qdq"]
)
def test_every_layout_and_element_type_of_the_zoo(name: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu")
    images = ov.load_images(zoo / "images" / entry.images, model).subset([7])
    view = images.views([0])[0]
    saliency = random_map(view.shape[:2], 1)
    step = view.shape[0] * view.shape[1] // 20
    got = insertion_deletion(model, images, saliency, step=step)
    index = int(model.predict(model.preprocess.encode(view[np.newaxis]))[0].argmax())
    insertion, deletion = oracle(model, view, saliency, index, step)
    # 8-bit scores come in steps; batched and single runs agree to one of them.
    least = model.output.quantization[0] if model.output.quantization else 0
    np.testing.assert_allclose(got.insertion, insertion, rtol=1e-5, atol=1e-6 + least)
    np.testing.assert_allclose(got.deletion, deletion, rtol=1e-5, atol=1e-6 + least)
    # The whole image stands at the end of one curve and at the start of the other.
    assert got.insertion[-1] == pytest.approx(got.deletion[0], abs=1e-6 + least)
    assert got.provenance.parameters["class_index"] == index


def test_a_map_that_knows_the_cause_wins_and_its_opposite_loses(tmp_path: Path) -> None:
    """Only one pixel counts: the right map changes the score in the first step, the wrong one in the last."""
    network = build(
        [helper.make_node("Slice", ["image", "starts", "ends"], ["pixel"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"pixel": ("float", ["n", 1, 1, 1])},
        weights={"starts": np.array([0, 0, 5, 2]), "ends": np.array([2**31, 1, 6, 3])},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "pixel.onnx"), preprocess="raw", device="cpu")
    white, cause = np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8))
    cause[5, 2] = 1
    right, wrong = (
        insertion_deletion(model, white, sign * cause, "pixel[0,0,0]", step=1, insertion_substrate="zero")
        for sign in (1, -1)
    )
    np.testing.assert_array_equal(right.insertion, [0, *[255] * 64])
    np.testing.assert_array_equal(right.deletion, [255, *[0] * 64])
    np.testing.assert_array_equal(wrong.insertion, [*[0] * 64, 255])
    assert right.insertion_area == pytest.approx(255 * (1 - 1 / 128))
    assert wrong.deletion_area == pytest.approx(255 * (1 - 1 / 128))
    assert right.scale == "value"


# -- the order of the pixels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "ranks"),
    [
        ([[1, 2], [3, 4]], [[3, 2], [1, 0]]),
        ([[5, 5], [5, 5]], [[0, 1], [2, 3]]),
        ([[1, 2, 2], [2, 0, 2]], [[4, 0, 1], [2, 5, 3]]),
        ([[np.nan, -np.inf], [0, np.inf]], [[3, 2], [1, 0]]),
        ([[False, True], [True, False]], [[2, 0], [1, 3]]),
    ],
    ids=str,
)
def test_ties_go_in_row_order_and_nan_last(numbers: list, ranks: list) -> None:
    np.testing.assert_array_equal(saliency_ranks(np.array(numbers)), ranks)


def test_a_thousand_equal_numbers_keep_their_order() -> None:
    np.testing.assert_array_equal(saliency_ranks(np.zeros((40, 25))).ravel(), np.arange(1000))


# -- substrates -------------------------------------------------------------------------------------------------------


def test_the_blur_is_the_authors_kernel_on_a_mirrored_border(tmp_path: Path) -> None:
    picture = pictures(1)[0]
    for model in (cifar_model(), nhwc_model(tmp_path)):
        image = channels_first(model.preprocess.encode(picture[np.newaxis])[0], model)
        got = channels_first(substrate(model.preprocess, picture, "blur"), model)
        np.testing.assert_allclose(got, authors_blur(image), rtol=1e-5, atol=1e-5)
        assert got.dtype == image.dtype
    # One bright pixel shows the kernel: nearly flat, 0.0088 in the middle and 0.0077 in the corner (measured).
    point = np.zeros((32, 32, 3), np.uint8)
    point[15, 15] = 255
    shown = substrate(nhwc_model(tmp_path).preprocess, point, "blur")[..., 0] / 255
    assert shown.sum() == pytest.approx(1, abs=1e-5)
    assert shown[15, 15] == pytest.approx(0.0088, abs=5e-5)
    assert shown[10, 10] == pytest.approx(0.0077, abs=5e-5)
    assert (shown > 0).sum() == 121


def nhwc_model(folder: Path) -> Model:
    network = build(
        [helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2])],
        inputs={"image": ("float", ["n", 32, 32, 3])}, outputs={"mean": ("float", ["n", 1, 1, 3])},
    )  # fmt: skip
    return ov.load(save(network, folder / "nhwc.onnx"), preprocess="raw", device="cpu")


@pytest.mark.parametrize("wanted", ["mean", "dataset", "grey", (1.0, 2.0, 250.0), "zero"], ids=str)
def test_other_substrates_are_one_colour(wanted: Any, tmp_path: Path) -> None:
    model, picture = nhwc_model(tmp_path), pictures(1)[0]
    colour = {
        "mean": picture.reshape(-1, 3).mean(axis=0), "dataset": np.full(3, 127.5), "grey": np.full(3, 128.0),
        "zero": np.zeros(3),
    }.get(wanted if isinstance(wanted, str) else "", np.array(wanted if not isinstance(wanted, str) else 0))  # fmt: skip
    shown = substrate(model.preprocess, picture, wanted)
    np.testing.assert_allclose(shown, np.broadcast_to(colour, (32, 32, 3)), rtol=1e-6)
    got = insertion_deletion(model, picture, random_map((32, 32)), "mean[0,0,0]", deletion_substrate=wanted, step=512)
    assert got.deletion[-1] == pytest.approx(colour[0], rel=1e-5)
    assert got.deletion_substrate == (wanted if isinstance(wanted, str) else "RGB 1, 2, 250")


# -- controls ---------------------------------------------------------------------------------------------------------


def test_controls_are_judged_as_any_other_map() -> None:
    model, picture = cifar_model(), pictures(1)[0]
    got = insertion_deletion(model, picture, random_map((32, 32), 9), 3, controls=True, seed=5, step=100)
    assert got.controls == ("random", "edges")
    alone = [insertion_deletion(model, picture, each, 3, step=100) for each in control_maps(picture, 5)]
    for index, other in enumerate(alone):
        np.testing.assert_allclose(got.control_insertion[index], other.insertion, rtol=1e-5)
        np.testing.assert_allclose(got.control_deletion[index], other.deletion, rtol=1e-5)
        assert got.control_insertion_areas[index] == pytest.approx(other.insertion_area, rel=1e-5)
        assert got.control_deletion_areas[index] == pytest.approx(other.deletion_area, rel=1e-5)


def test_the_edge_map_is_sobels() -> None:
    view = np.zeros((9, 9, 3), np.uint8)
    view[:, 5:] = 100
    edges = edge_map(view)
    wanted = np.zeros((9, 9))
    wanted[:, 4:6] = 400
    np.testing.assert_allclose(edges, wanted)
    np.testing.assert_allclose(edge_map(view.transpose(1, 0, 2)), wanted.T)


def test_random_maps_differ_by_their_seed_only() -> None:
    np.testing.assert_array_equal(random_map((5, 6), 1), random_map((5, 6), 1))
    assert (random_map((5, 6), 1) != random_map((5, 6), 2)).all()


# -- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("target", [3, ("logits", 3)], ids=str)
def test_the_picture_names_both_areas_beside_those_of_the_controls(controls: bool, target: Any) -> None:
    saliency = random_map((32, 32), 9)
    got = insertion_deletion(cifar_model(), pictures(1)[0], saliency, target, controls=controls, step=100)
    figure = plot(got)
    said = [artist.get_text() for artist in figure.findobj(Text)]
    for area in (got.insertion_area, got.deletion_area):
        assert f"this map: area {numeral(area)}" in said
    for areas in (got.control_insertion_areas, got.control_deletion_areas):
        assert all(
            f"control, {name}: area {numeral(area)}" in said for name, area in zip(got.controls, areas, strict=True)
        )
    charts = [ax for ax in figure.axes if ax.get_xlabel() in ("pixels inserted", "pixels deleted")]
    for chart, curve in zip(charts, (got.insertion, got.deletion), strict=True):
        assert len(chart.lines) == 1 + len(got.controls)
        np.testing.assert_array_equal(chart.lines[-1].get_ydata(), curve)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saliency", "parameters", "sentence"),
    [
        (np.zeros((32, 31)), {}, r"\(32, 31\).*\(32, 32\)"),
        (np.zeros((3, 32, 32)), {}, "not a map of this image"),
        (np.zeros((32, 32), complex), {}, "complex"),
        (np.zeros((32, 32)), {"step": 0}, "not a step"),
        (np.zeros((32, 32)), {"step": 2.0}, "not a step"),
        (np.zeros((32, 32)), {"insertion_substrate": "white"}, "'zero', 'blur'"),
        (np.zeros((32, 32)), {"deletion_substrate": (0, 0)}, "red, green, blue"),
        (np.zeros((32, 32)), {"target": 10}, "0 to 9"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(saliency: np.ndarray, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        insertion_deletion(cifar_model(), pictures(1)[0], saliency, **parameters)


def test_a_model_without_images_is_refused(tmp_path: Path) -> None:
    network = build(
        [helper.make_node("Relu", ["x"], ["y"])],
        inputs={"x": ("float", ["n", 4])}, outputs={"y": ("float", ["n", 4])},
    )  # fmt: skip
    assert isinstance(network, onnx.ModelProto)
    with pytest.raises(InputError, match="needs a model that takes images"):
        insertion_deletion(ov.load(save(network, tmp_path / "x.onnx"), device="cpu"), pictures(1)[0], np.zeros((2, 2)))
