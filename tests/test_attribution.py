"""Saliency and its kin: against Captum and slow loops, on every layout and element type, for any number of any output."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save, tiny_network
from onnxviz.errors import ContractError, InputError, UnsupportedOperatorError
from onnxviz.methods.explanations import EXPLANATIONS
from onnxviz.methods.gradient import gradient
from onnxviz.methods.gradient_x_input import gradient_x_input
from onnxviz.methods.integrated_gradients import gauss_legendre, integrated_gradients
from onnxviz.methods.rectified_backprop import deconvnet, guided_backprop
from onnxviz.methods.saliency import saliency
from onnxviz.methods.smoothgrad import noise_of, smoothgrad
from onnxviz.results import ActivationMap, Attribution
from onnxviz.runtime.gradients import GradientSession
from onnxviz.runtime.model import Model
from onnxviz.runtime.sessions import OutOfMemory
from oracles import noisy_gradient_moments, path_integral
from rectified_networks import exported
from zoo_models import ZOO

SMALL: dict[str, dict[str, int]] = {"smoothgrad": {"samples": 5}, "integrated-gradients": {"steps": 5}}
"""What makes the methods of many runs quick."""


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def encoded(model: Model, picture: np.ndarray) -> np.ndarray:
    return model.preprocess.encode(ov.load_images(picture, model).views([0]))


def channels_first(model: Model, array: np.ndarray) -> np.ndarray:
    return array if model.preprocess.layout == "NCHW" else np.moveaxis(array, -1, -3)


# -- Captum -----------------------------------------------------------------------------------------------------------


NETS = ("chain", "residual", "branches", pytest.param("squeezenet", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def captum_maps(attr: Any, net: Any, x: Any, target: int) -> dict[str, np.ndarray]:
    zeros = x * 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            "saliency": attr.Saliency(net).attribute(x, target=target, abs=False),
            "gradient_x_input": attr.InputXGradient(net).attribute(x, target=target),
            "guided_backprop": attr.GuidedBackprop(net).attribute(x, target=target),
            "deconvnet": attr.Deconvolution(net).attribute(x, target=target),
            "integrated_gradients": attr.IntegratedGradients(net).attribute(
                x, zeros, target=target, n_steps=50, method="gausslegendre"
            ),
        }
    return {name: array.detach().numpy() for name, array in found.items()}


@pytest.mark.parametrize("name", NETS)
def test_captum_gives_the_same_attributions(name: str, captum: Any, torch: Any, folder: Path) -> None:
    net, model = exported(name, folder)
    picture = pictures(1, seed=3)[0]
    x = torch.from_numpy(encoded(model, picture)).double().requires_grad_()
    wanted = captum_maps(captum, net, x, 4)
    got = {
        "saliency": saliency(model, picture, 4),
        "gradient_x_input": gradient_x_input(model, picture, 4),
        "guided_backprop": guided_backprop(model, picture, 4),
        "deconvnet": deconvnet(model, picture, 4),
        "integrated_gradients": integrated_gradients(model, picture, 4, baseline="zero", steps=50),
    }
    for method, result in got.items():
        assert relative(result.values, wanted[method][0]) <= 1e-5, method
    # The three rules for ReLUs are three different things.
    assert relative(wanted["guided_backprop"], wanted["deconvnet"]) > 0.1
    assert relative(wanted["guided_backprop"], wanted["saliency"]) > 0.1
    assert got["saliency"].score == pytest.approx(float(net(x)[0, 4].detach()), rel=1e-5)


def test_smooth_networks_agree_to_float32_rounding(captum: Any, torch: Any) -> None:
    from exported_networks import Export, export, network

    contract = {"preset": "imagenet", "fit": "stretch", "size": [32, 32]}
    model = ov.load(
        export(Export("smooth_cnn", 18, "torchscript")), preprocess=contract, device="cpu",
        output={"output": "logits", "kind": "logits"},
    )  # fmt: skip
    net = network("smooth_cnn").module.double()
    picture = pictures(1, seed=4)[0]
    x = torch.from_numpy(encoded(model, picture)).double().requires_grad_()
    slopes = captum.Saliency(net).attribute(x, target=2, abs=False).numpy()
    assert relative(saliency(model, picture, 2).values, slopes[0]) <= 2e-6
    path = captum.IntegratedGradients(net).attribute(x, x * 0, target=2, n_steps=50, method="gausslegendre")
    got = integrated_gradients(model, picture, 2, baseline="zero", steps=50)
    assert relative(got.values, path.detach().numpy()[0]) <= 2e-6
    assert got.relative_completeness_error <= 1e-4


# -- Slow loops -------------------------------------------------------------------------------------------------------


def derivative(model: Model, index: int) -> Callable[[np.ndarray], np.ndarray]:
    """One encoded image to the derivative of a class's logit, alone in its batch."""
    return lambda x: np.asarray(gradient(model, x.astype(np.float32)[np.newaxis], index), np.float64)[0]


def test_smoothgrad_is_the_loop_over_the_same_noise() -> None:
    model, picture = cifar_model(), pictures(1, seed=1)[0]
    x = encoded(model, picture)[0]
    got = smoothgrad(model, picture, 3, samples=11, noise=0.2, seed=7)
    sigma = 0.2 * (float(x.max()) - float(x.min()))
    noises = [np.float32(sigma) * noise_of(x.shape, 7, number) for number in range(11)]
    mean, squares = noisy_gradient_moments(derivative(model, 3), x, noises)
    assert got.sigma == pytest.approx(sigma)
    assert relative(got.values, mean) <= 1e-5
    assert relative(got.squares, squares) <= 1e-5
    assert np.concatenate(noises).std() == pytest.approx(sigma, rel=0.02)
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.06


@pytest.mark.parametrize("baseline", ["mean", "dataset", "grey", "zero", "blur", (10.0, 200.0, 30.0)], ids=str)
def test_integrated_gradients_are_the_loop_from_every_baseline(baseline: Any) -> None:
    model, picture = cifar_model(), pictures(2, seed=1)[1]
    x = encoded(model, picture)[0].astype(np.float64)
    contract = model.preprocess
    if baseline == "blur":
        from onnxviz.methods.substrates import substrate

        start = substrate(contract, picture, "blur").astype(np.float64)
    else:
        colour = {
            "mean": picture.mean(axis=(0, 1)), "dataset": np.array(contract.mean) * 255, "grey": np.full(3, 128.0),
            "zero": np.array(contract.mean) * 255,
        }.get(baseline, baseline)  # fmt: skip
        pixels = (np.asarray(colour) / 255 - contract.mean) / contract.std
        start = np.broadcast_to(pixels[:, np.newaxis, np.newaxis], x.shape)
    got = integrated_gradients(model, picture, 5, baseline=baseline, steps=9)
    assert relative(got.values, path_integral(derivative(model, 5), x, start, 9)) <= 1e-5
    logits = model.run(np.stack([x, start]).astype(np.float32), (model.logits_value,))[model.logits_value][:, 5]
    assert got.score == pytest.approx(float(logits[0]), rel=1e-4)
    assert got.baseline_score == pytest.approx(float(logits[1]), rel=1e-4)
    assert got.completeness_error == pytest.approx(float(got.map.sum()) - float(logits[0] - logits[1]), abs=1e-4)


def test_more_steps_come_closer_to_the_whole() -> None:
    model, picture = cifar_model(), pictures(1)[0]
    coarse, fine = (integrated_gradients(model, picture, 3, steps=steps, baseline="zero") for steps in (1, 200))
    assert coarse.relative_completeness_error > 0.5
    assert fine.relative_completeness_error <= 0.01
    assert [any("more steps may help" in note for note in found.notes) for found in (coarse, fine)] == [True, False]


def test_quadrature_is_exact_for_polynomials() -> None:
    places, weights = gauss_legendre(4)
    for power in range(8):
        assert (weights * places**power).sum() == pytest.approx(1 / (power + 1), abs=1e-12)


# -- What is known exactly --------------------------------------------------------------------------------------------


def linear_network(layout: str = "NCHW", dtype: str = "float") -> tuple[onnx.ModelProto, np.ndarray]:
    """The score of class c is the sum of weights times pixels; the weights are (classes, channels, height, width)."""
    weights = np.random.default_rng(8).standard_normal((3, 3, 6, 5)).astype(np.float32)
    node = helper.make_node
    nodes, pixels = [], "image"
    if dtype != "float":
        nodes.append(node("Cast", [pixels], ["real"], to=onnx.TensorProto.FLOAT))
        pixels = "real"
    if layout == "NHWC":
        nodes.append(node("Transpose", [pixels], ["first"], perm=[0, 3, 1, 2]))
        pixels = "first"
    nodes += [node("Conv", [pixels, "w"], ["scores"]), node("Flatten", ["scores"], ["logits"])]
    shape = ["n", 3, 6, 5] if layout == "NCHW" else ["n", 6, 5, 3]
    model = build(
        nodes, inputs={"image": (dtype, shape)}, outputs={"logits": ("float", ["n", 3])}, weights={"w": weights}
    )
    return model, weights


@pytest.mark.parametrize("dtype", ["float", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_linear_network_explains_itself(layout: str, dtype: str, tmp_path: Path) -> None:
    network, weights = linear_network(layout, dtype)
    contract = {"preset": "raw", "fit": "stretch"}
    model = ov.load(
        save(network, tmp_path / "linear.onnx"), preprocess=contract, device="cpu",
        output={"output": "logits", "kind": "logits"},
    )  # fmt: skip
    picture = np.random.default_rng(2).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    pixels = np.moveaxis(picture, -1, 0).astype(np.float64)
    mean = pixels.mean(axis=(1, 2), keepdims=True)
    if dtype == "uint8":
        mean = np.rint(mean)
    found = saliency(model, picture, 1)
    np.testing.assert_allclose(found.values, weights[1], rtol=1e-6)
    np.testing.assert_allclose(found.map, np.abs(weights[1]).max(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found.image, picture)
    assert found.score == pytest.approx(float((weights[1] * pixels).sum()), rel=1e-4)
    assert found.class_index == 1
    assert found.scale == "logit"
    assert found.probability == pytest.approx(float(model.predict(encoded(model, picture))[0, 1]))
    np.testing.assert_allclose(gradient_x_input(model, picture, 1).values, weights[1] * pixels, rtol=1e-5)
    path = integrated_gradients(model, picture, 1, steps=3)
    np.testing.assert_allclose(path.values, weights[1] * (pixels - mean), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(path.map, path.values.sum(axis=0), rtol=1e-5, atol=1e-3)
    assert abs(path.completeness_error) < 0.01
    smooth = smoothgrad(model, picture, 1, samples=3)
    np.testing.assert_allclose(smooth.values, weights[1], rtol=1e-6)
    np.testing.assert_allclose(smooth.squares, weights[1] ** 2, rtol=1e-6)
    said = any("real" in note and "integers" in note for note in found.notes)
    assert said == (dtype == "uint8")
    assert found.input_value == ("image" if dtype == "float" else "real")
    # Without a ReLU the rules for ReLUs change nothing, and say so.
    guided = guided_backprop(model, picture, 1)
    np.testing.assert_array_equal(guided.values, found.values)
    assert guided.notes[-1] == "The graph has no ReLU, so this is the plain gradient."


def relu_network(kind: str) -> onnx.ModelProto:
    """score = Σ a(w1 · x) · w2 with w2 of both signs, a an activation."""
    node = helper.make_node
    activation = node("Clip", ["h", "zero", "six"], ["a"]) if kind == "Clip" else node(kind, ["h"], ["a"])
    weights = {
        "w1": np.array([[1, -1], [1, 1], [-1, 1], [-1, -1]], np.float32).reshape(4, 2, 1, 1),
        "w2": np.array([1, -2, 3, -4], np.float32).reshape(1, 4, 1, 1), "zero": np.float32(0), "six": np.float32(6),
        "mix": np.array([[1, 0, 0], [0, 1, 0]], np.float32).reshape(2, 3, 1, 1),
    }  # fmt: skip
    return build(
        [
            node("Conv", ["image", "mix"], ["two"]), node("Conv", ["two", "w1"], ["h"]), activation,
            node("Conv", ["a", "w2"], ["score"]),
        ],
        inputs={"image": ("float", ["n", 3, 1, 1])}, outputs={"score": ("float", ["n", 1, 1, 1])}, weights=weights,
    )  # fmt: skip


def test_the_three_rules_on_paper(tmp_path: Path) -> None:
    """x = (3, 1): hidden units 2, 4, -2, -4; what comes back to them is 1, -2, 3, -4."""
    model = ov.load(save(relu_network("Relu"), tmp_path / "rules.onnx"), preprocess="raw", device="cpu")
    picture = np.array([[[3, 1, 0]]], np.uint8)
    target = ("score", (0, 0, 0))
    # Gradient: open units 0 and 1 pass 1 and -2. Guided: unit 0 alone. Deconvnet: units 0 and 2, open or not.
    assert saliency(model, picture, target).values.ravel().tolist() == [1 - 2, -1 - 2, 0]
    assert guided_backprop(model, picture, target).values.ravel().tolist() == [1, -1, 0]
    assert deconvnet(model, picture, target).values.ravel().tolist() == [1 - 3, -1 + 3, 0]
    for method, doubt in ((guided_backprop, "Adebayo"), (deconvnet, "Sixt")):
        assert any(doubt in note for note in method(model, picture, target).notes)
    assert not any("keep" in note for note in guided_backprop(model, picture, target).notes)


def test_other_activations_keep_their_derivative_and_are_named(tmp_path: Path) -> None:
    model = ov.load(save(relu_network("Clip"), tmp_path / "clip.onnx"), preprocess="raw", device="cpu")
    picture = np.array([[[3, 1, 0]]], np.uint8)
    for method in (guided_backprop, deconvnet):
        found = method(model, picture, ("score", (0, 0, 0)))
        assert found.values.ravel().tolist() == [-1, -3, 0]
        assert any("Clip (1)" in note for note in found.notes)
        assert not any("Adebayo" in note for note in found.notes)


# -- Targets, images, batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_several_images_are_each_explained_as_if_alone(name: str) -> None:
    model, views = cifar_model(), pictures(3, seed=9)
    explain, options = EXPLANATIONS[name], SMALL.get(name, {})
    together = explain(model, views, "top1", **options)
    assert isinstance(together, tuple)
    likely = model.predict(model.preprocess.encode(views)).argmax(axis=1)
    for index, found in enumerate(together):
        alone = explain(model, views[index], "top1", **options)
        assert isinstance(alone, Attribution | ActivationMap)
        assert found.class_index == alone.class_index == likely[index]
        assert found.target == alone.target
        assert found.target.startswith("most likely class of the clean image: ")
        assert found.map.shape == found.image.shape[:2] == (32, 32)
        assert found.map.dtype == np.float32
        np.testing.assert_array_equal(found.image, views[index])
        assert relative(found.map, alone.map) <= 1e-5
        assert found.name == f"image {index}"
        assert found.provenance.method == explain.__name__
        assert found.score == pytest.approx(alone.score, rel=1e-5)
    classes = [1, 4, 7]
    each = explain(model, views, classes, **options)
    assert [found.class_index for found in each] == classes
    assert [found.target for found in each] == [
        f"{model.labels[number]} ({number})" if model.labels else f"class {number}" for number in classes
    ]


@pytest.mark.parametrize(
    ("target", "scale", "said"),
    [
        ("top1", "logit", "most likely class of the clean image: "),
        (2, "logit", "class 2"),
        (("conv", (1, 3, 4)), "value", "conv[1, 3, 4]"),
        ("conv[1,3,4]", "value", "conv[1, 3, 4]"),
        (("relu", "strongest"), "value", "total activation of channel"),
        ({"prob": np.array([1, -1, 0], np.float32)}, "value", "weighted sum of prob"),
        (("prob", 1), "value", "prob[1]"),
    ],
    ids=str,
)
def test_any_number_of_any_value_is_explained(target: Any, scale: str, said: str, tmp_path: Path) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(5).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = saliency(model, picture, target)
    assert found.scale == scale
    assert said in found.target
    x = encoded(model, picture)
    wanted = gradient(model, x, target)
    np.testing.assert_array_equal(found.values, wanted[0])
    # The derivative is that of the number that the result states.
    step = 1e-2 * np.sign(found.values)[np.newaxis]
    above = saliency_score(model, x + step, target, found)
    below = saliency_score(model, x - step, target, found)
    assert (above - below) / 2e-2 == pytest.approx(float(np.abs(found.values).sum()), rel=0.05)


def saliency_score(model: Model, x: np.ndarray, target: Any, found: Attribution) -> float:
    """The explained number of another input, from the model's plain run."""
    arrays = model.run(x.astype(np.float32), ("logits", "prob", "conv", "relu"))
    if found.class_index is not None:
        return float(arrays["logits"][0, found.class_index])
    if isinstance(target, dict):
        return float((arrays["prob"][0] * target["prob"]).sum())
    if "strongest" in str(target):
        return float(arrays["relu"][0].sum(axis=(1, 2)).max())
    return float(arrays["prob"][0, 1]) if "prob" in str(target) else float(arrays["conv"][0, 1, 3, 4])


def test_the_batch_changes_nothing_but_rounding() -> None:
    picture = pictures(1, seed=2)[0]
    found = [smoothgrad(cifar_model(size), picture, 0, samples=7) for size in (1, 3, "auto")]
    assert relative(found[0].values, found[2].values) <= 1e-5
    assert relative(found[1].values, found[2].values) <= 1e-5
    other = smoothgrad(cifar_model(), picture, 0, samples=7, seed=1)
    assert relative(other.values, found[2].values) > 1e-3


def test_the_batch_is_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = cifar_model(), pictures(1, seed=2)[0]
    wanted = integrated_gradients(model, picture, 0, steps=13)
    sizes: list[int] = []
    run = GradientSession.run

    def small(self: GradientSession, feeds: Any, seeds: Any, watch: Any) -> Any:
        rows = len(next(iter(feeds.values())))
        sizes.append(rows)
        if rows > 3:
            raise OutOfMemory("a run did not fit in memory", where="test")
        return run(self, feeds, seeds, watch)

    monkeypatch.setattr(GradientSession, "run", small)
    got = integrated_gradients(model, picture, 0, steps=13)
    assert sizes[0] == 8
    assert sizes[1:3] == [4, 2]
    assert relative(got.values, wanted.values) <= 1e-5


def test_one_session_serves_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, picture = cifar_model(), pictures(1, seed=6)[0]
    smoothgrad(model, picture, 0, samples=2)
    runs: list[int] = []
    run = GradientSession.run

    def counted(self: GradientSession, feeds: Any, seeds: Any, watch: Any) -> Any:
        runs.append(len(next(iter(feeds.values()))))
        return run(self, feeds, seeds, watch)

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a session was opened again")

    monkeypatch.setattr(GradientSession, "run", counted)
    monkeypatch.setattr(type(model.gradients), "_open_session", refused)
    smoothgrad(model, picture, 0, samples=50)
    integrated_gradients(model, picture, 0, steps=50)
    # 50 copies and the image; 50 points and both ends: full batches but for the last.
    assert runs == [8] * 6 + [3] + [8] * 6 + [4]


def fixed_rows_network(rows: int) -> onnx.ModelProto:
    """So many rows at a time and never another number, though none has to do with the others."""
    node, random = helper.make_node, np.random.default_rng(3)
    return build(
        [
            node("Conv", ["image", "w"], ["conv"]), node("Relu", ["conv"], ["relu"]), node("Flatten", ["relu"], ["flat"]),
            node("MatMul", ["same", "flat"], ["rows"]), node("MatMul", ["rows", "head"], ["logits"]),
        ],
        inputs={"image": ("float", [rows, 3, 6, 6])}, outputs={"logits": ("float", [rows, 3])},
        weights={
            "w": random.standard_normal((4, 3, 3, 3)).astype(np.float32), "same": np.eye(rows, dtype=np.float32),
            "head": random.standard_normal((64, 3)).astype(np.float32),
        },
    )  # fmt: skip


def test_a_batch_that_the_file_fixes_is_kept(tmp_path: Path) -> None:
    model = ov.load(save(fixed_rows_network(1), tmp_path / "fixed.onnx"), preprocess="unit", device="cpu")
    assert model.fixed_batch == 1
    views = np.random.default_rng(1).integers(0, 256, (3, 6, 6, 3)).astype(np.uint8)
    x = model.preprocess.encode(views)
    for index, result in enumerate(saliency(model, views, [0, 1, 2])):
        wanted = gradient(model, x[index : index + 1], index)
        np.testing.assert_allclose(result.values, wanted[0], rtol=1e-5, atol=1e-6)
    one = smoothgrad(model, views[2], 2, samples=4)
    assert relative(smoothgrad(model, views, [2, 2, 2], samples=4)[2].values, one.values) <= 1e-5


@pytest.mark.parametrize(
    "name",
    ["mlperf_tiny_resnet8_keras", "mlperf_tiny_resnet8_qdq", "vnn_marabou_cifar10_large", "vnn_cifar10_resnet4b"],
)
def test_real_models_of_every_kind(name: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, labels=entry.labels(zoo), device="cpu")
    files = sorted((zoo / "images" / entry.images / "cat").iterdir())[:2]
    images = ov.load_images(files, model)
    x = model.preprocess.encode(images.views([0, 1]))
    wanted = gradient(model, x)
    for explain in EXPLANATIONS.values():
        found = explain(model, images, **SMALL.get(explain.__name__, {}))
        assert [each.map.shape for each in found] == [(32, 32)] * 2
        assert all(np.isfinite(each.map).all() and each.map.any() for each in found)
        assert all(each.scale == "logit" and 0 < each.probability <= 1 for each in found)
    for result, slopes in zip(saliency(model, images), wanted, strict=True):
        axis = model.channel_axis(result.input_value) - 1
        assert relative(result.values, np.moveaxis(slopes, axis, 0)) <= 1e-5
        assert result.values.shape == (3, 32, 32)
    integers = x.dtype.kind in "iu"
    assert any("integers" in note for note in saliency(model, images)[0].notes) == integers
    assert any("straight through" in note for note in saliency(model, images)[0].notes) == ("qdq" in name)


# -- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "options", "error", "said"),
    [
        ("saliency", 3, {}, InputError, "0 to 2"),
        ("saliency", "zebra", {}, InputError, "zebra"),
        ("saliency", lambda outputs: outputs["prob"][:, 0], {}, InputError, "occlusion or rise"),
        ("saliency", [0, 1], {}, InputError, "1 integers"),
        ("saliency", ("conv", (9, 0, 0)), {}, InputError, "no such element"),
        ("smoothgrad", 0, {"samples": 0}, InputError, "samples"),
        ("smoothgrad", 0, {"samples": 2.5}, InputError, "2.5"),
        ("smoothgrad", 0, {"noise": -0.1}, InputError, "share"),
        ("smoothgrad", 0, {"noise": float("nan")}, InputError, "share"),
        ("integrated-gradients", 0, {"steps": True}, InputError, "True"),
        ("integrated-gradients", 0, {"baseline": "purple"}, InputError, "purple"),
        ("integrated-gradients", 0, {"baseline": (0, 0, 300)}, InputError, "300"),
    ],
    ids=lambda part: part.__name__ if callable(part) else str(part),
)
def test_what_is_refused_says_so(
    name: str, target: Any, options: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", device="cpu")
    with pytest.raises(error, match=said):
        EXPLANATIONS[name](model, np.zeros((8, 8, 3), np.uint8), target, **options)


def test_models_that_cannot_be_derived_name_the_operator(tmp_path: Path) -> None:
    network = build(
        [helper.make_node("Det", ["image"], ["volume"])],
        inputs={"image": ("float", ["n", 3, 4, 4])}, outputs={"volume": ("float", ["n", 3])},
    )  # fmt: skip
    model = ov.load(
        save(network, tmp_path / "det.onnx"), preprocess="unit", device="cpu",
        output={"output": "volume", "kind": "values"},
    )  # fmt: skip
    # Since when it is as it is; not the operator set that the graph was brought to.
    with pytest.raises(UnsupportedOperatorError, match=r"got Det \(domain ai.onnx, version 11\)"):
        saliency(model, np.zeros((4, 4, 3), np.uint8), ("volume", 0))
    with pytest.raises(ContractError):
        saliency(model, np.zeros((4, 4, 3), np.uint8))


def test_a_model_without_images_is_refused(tmp_path: Path) -> None:
    weights = {"w": np.ones((7, 3), np.float32)}
    network = build(
        [helper.make_node("MatMul", ["row", "w"], ["scores"])],
        inputs={"row": ("float", ["n", 7])}, outputs={"scores": ("float", ["n", 3])}, weights=weights,
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "table.onnx"), device="cpu")
    with pytest.raises(InputError, match="takes images"):
        saliency(model, np.zeros((1, 7), np.uint8), 0)


def test_integers_without_real_numbers_behind_them_are_refused(tmp_path: Path) -> None:
    """The pixels are flattened before they become real numbers: no map of the image is left."""
    node = helper.make_node
    network = build(
        [
            node("Flatten", ["image"], ["flat"]), node("Cast", ["flat"], ["real"], to=onnx.TensorProto.FLOAT),
            node("MatMul", ["real", "w"], ["scores"]),
        ],
        inputs={"image": ("uint8", ["n", 3, 4, 4])}, outputs={"scores": ("float", ["n", 3])},
        weights={"w": np.ones((48, 3), np.float32)},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "flat.onnx"), preprocess="raw", device="cpu")
    with pytest.raises(InputError, match="no longer an image"):
        saliency(model, np.zeros((4, 4, 3), np.uint8), 0)
