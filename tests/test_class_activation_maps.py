"""Grad-CAM and Grad-CAM++: against Captum and the papers' formulas, and which value is taken when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save, tiny_network
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.methods.gradcam import gradcam, gradcam_plusplus, gradcam_plusplus_weights, gradcam_weights
from onnxviz.methods.gradient import gradient
from onnxviz.methods.guided_gradcam import guided_gradcam
from onnxviz.methods.rectified_backprop import guided_backprop
from onnxviz.runtime.model import Model
from oracles import gradcam_plusplus_weights as equation_19
from rectified_networks import exported
from zoo_models import ZOO

node = helper.make_node


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def encoded(model: Model, picture: np.ndarray) -> np.ndarray:
    return model.preprocess.encode(ov.load_images(picture, model).views([0]))


# -- Captum -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "value"),
    [
        ("chain", "4", None),
        ("residual", "last.1", None),
        ("residual", "branch.2", "*branch.2/Relu*"),
        ("branches", "", None),
    ],
)
def test_captum_gives_the_same_maps(
    name: str, layer: str, value: str | None, captum: Any, torch: Any, tmp_path: Path
) -> None:
    net, model = exported(name, tmp_path)
    picture = pictures(1, seed=3)[0]
    x = torch.from_numpy(encoded(model, picture)).double()
    got = gradcam(model, picture, 4, value=value)
    if layer:
        wanted = captum.LayerGradCam(net, net.get_submodule(layer)).attribute(x, target=4)
        assert relative(got.coarse, wanted.detach().numpy()[0, 0]) <= 1e-5
        return
    # The value joins two branches, so no module makes it: by autograd and the paper's formula.
    stem = net.stem(x).requires_grad_()
    joined = torch.cat([net.wide(stem), net.pooled(stem)], 1)
    joined.retain_grad()
    net.head(joined)[0, 4].backward()
    weights = joined.grad[0].mean(dim=(1, 2))
    np.testing.assert_allclose(got.weights, weights.numpy(), rtol=1e-5, atol=1e-9)
    wanted = (weights[:, None, None] * joined[0]).sum(0).detach().numpy()
    assert relative(got.coarse, wanted) <= 1e-5


# -- Formulas ---------------------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_papers() -> None:
    random = np.random.default_rng(4)
    maps = np.maximum(random.standard_normal((6, 5, 4)), 0)
    slopes = random.standard_normal((6, 5, 4)) * random.choice([0, 1e-12, 1, 30], (6, 5, 4))
    np.testing.assert_allclose(gradcam_weights(maps, slopes), slopes.reshape(6, 20).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(gradcam_plusplus_weights(maps, slopes), equation_19(maps, slopes), rtol=1e-9)
    # Where g is 0 so is α: no 0 / 0, and a channel without a positive derivative counts nothing.
    slopes[2] = -np.abs(slopes[2])
    slopes[3] = 0
    weights = gradcam_plusplus_weights(maps, slopes)
    assert weights[2] == weights[3] == 0
    assert np.isfinite(weights).all()


def test_maps_follow_from_activations_and_derivatives() -> None:
    model, picture = cifar_model(), pictures(4, seed=2)[3]
    value = gradcam(model, picture, 2).value
    assert value == "/features/features.13/Relu_output_0"
    x = encoded(model, picture)
    maps = model.run(x, (value,))[value][0].astype(np.float64)
    slopes = gradient(model, x, 2, wrt=value)[0].astype(np.float64)
    for method, weights in ((gradcam, slopes.mean(axis=(1, 2))), (gradcam_plusplus, equation_19(maps, slopes))):
        found = method(model, picture, 2)
        wanted = np.tensordot(weights, maps, 1)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-9)
        assert relative(found.coarse, wanted) <= 1e-5
        grown = Image.fromarray(np.maximum(wanted, 0).astype(np.float32)).resize((32, 32), Image.Resampling.BILINEAR)
        assert relative(found.map, np.asarray(grown)) <= 1e-5
        assert found.map.min() >= 0
        assert found.coarse.shape == maps.shape[1:]
    assert gradcam(model, picture, 2).coarse.min() < 0


def test_a_map_that_speaks_against_the_target_is_nothing(tmp_path: Path) -> None:
    """The only channel counts against class 0 and for class 1."""
    network = build(
        [
            node("Conv", ["image", "w"], ["conv"]), node("Relu", ["conv"], ["relu"]),
            node("GlobalAveragePool", ["relu"], ["pooled"]), node("Conv", ["pooled", "head"], ["scores"]),
            node("Flatten", ["scores"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 4, 6])}, outputs={"logits": ("float", ["n", 2])},
        weights={
            "w": np.ones((1, 3, 1, 1), np.float32), "head": np.array([-2, 3], np.float32).reshape(2, 1, 1, 1),
        },
    )  # fmt: skip
    model = ov.load(
        save(network, tmp_path / "against.onnx"), preprocess={"preset": "raw", "fit": "stretch"}, device="cpu",
        output={"output": "logits", "kind": "logits"},
    )  # fmt: skip
    picture = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    total = picture.sum(axis=2).astype(np.float64)
    found = gradcam(model, picture, [0])
    np.testing.assert_allclose(found.coarse, -2 / 24 * total, rtol=1e-5)
    assert not found.map.any()
    assert any("0 everywhere" in note for note in found.notes)
    other = gradcam(model, picture, 1)
    np.testing.assert_allclose(other.map, 3 / 24 * total, rtol=1e-5)
    assert other.notes == ()
    # g = 3 / 24 everywhere: α = 1 / (2 + g Σ A).
    plus = gradcam_plusplus(model, picture, 1)
    assert plus.weights[0] == pytest.approx(24 * (3 / 24) / (2 + 3 / 24 * total.sum()), rel=1e-5)
    assert not guided_gradcam(model, picture, 0).map.any()


def test_guided_gradcam_is_the_product() -> None:
    model, picture = cifar_model(), pictures(2, seed=5)[1]
    found, cam, guided = (method(model, picture, 6) for method in (guided_gradcam, gradcam, guided_backprop))
    assert relative(found.values, guided.values * cam.map) <= 1e-5
    assert found.provenance.parameters["upsampling"] == "bilinear"
    assert found.provenance.parameters["value"] == cam.value
    assert any("Adebayo" in note for note in found.notes)


# -- Which value ------------------------------------------------------------------------------------------------------


def conv(
    name: str, source: str, outputs: int, inputs: int, side: int = 3
) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    weights = np.random.default_rng(len(name)).standard_normal((outputs, inputs, side, side)).astype(np.float32)
    return node("Conv", [source, f"{name}.w"], [name], pads=[side // 2] * 4), {f"{name}.w": weights}


def classifier(body: list[onnx.NodeProto], weights: dict[str, np.ndarray], last: str, width: int) -> onnx.ModelProto:
    """A body, then Flatten and a fully connected layer of 3 classes on ``last``."""
    head = np.random.default_rng(0).standard_normal((width, 3)).astype(np.float32)
    return build(
        [*body, node("Flatten", [last], ["flat"]), node("MatMul", ["flat", "head"], ["logits"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"logits": ("float", ["n", 3])},
        weights={**weights, "head": head},
    )  # fmt: skip


def pooled_twice() -> onnx.ModelProto:
    first, weights = conv("conv", "image", 4, 3)
    return classifier(
        [
            first, node("Relu", ["conv"], ["relu"]), node("MaxPool", ["relu"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
            node("AveragePool", ["half"], ["quarter"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        weights, "quarter", 16,
    )  # fmt: skip


def two_branches() -> onnx.ModelProto:
    """Both branches are pooled by themselves: only what they fork from holds all of the image."""
    (a, wa), (b, wb), (c, wc) = conv("stem", "image", 4, 3), conv("left", "trunk", 4, 4), conv("right", "trunk", 5, 4)
    return classifier(
        [
            a, node("Relu", ["stem"], ["trunk"]), b, c, node("GlobalAveragePool", ["left"], ["p"]),
            node("GlobalMaxPool", ["right"], ["q"]), node("Concat", ["p", "q"], ["both"], axis=1),
        ],
        {**wa, **wb, **wc}, "both", 9,
    )  # fmt: skip


def joined_branches() -> onnx.ModelProto:
    (a, wa), (b, wb), (c, wc) = conv("stem", "image", 4, 3), conv("left", "stem", 4, 4), conv("right", "stem", 5, 4)
    return classifier(
        [a, b, c, node("Concat", ["left", "right"], ["both"], axis=1), node("GlobalAveragePool", ["both"], ["p"])],
        {**wa, **wb, **wc}, "p", 9,
    )  # fmt: skip


def squeezed_and_excited() -> onnx.ModelProto:
    (a, wa), (b, wb) = conv("stem", "image", 4, 3), conv("squeeze", "mean", 4, 4, 1)
    return classifier(
        [
            a, node("GlobalAveragePool", ["stem"], ["mean"]), b, node("Sigmoid", ["squeeze"], ["gate"]),
            node("Mul", ["stem", "gate"], ["excited"]), node("GlobalAveragePool", ["excited"], ["p"]),
        ],
        {**wa, **wb}, "p", 4,
    )  # fmt: skip


def classes_before_pooling() -> onnx.ModelProto:
    (a, wa), (b, wb) = conv("stem", "image", 4, 3), conv("classes", "relu", 3, 4, 1)
    return build(
        [
            a, node("Relu", ["stem"], ["relu"]), b, node("GlobalAveragePool", ["classes"], ["p"]),
            node("Flatten", ["p"], ["logits"]), node("Softmax", ["logits"], ["prob"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"prob": ("float", ["n", 3])}, weights={**wa, **wb},
    )  # fmt: skip


def shape_arithmetic() -> onnx.ModelProto:
    """The image's own shape finds its way past the map, its pixels do not."""
    first, weights = conv("conv", "image", 4, 3)
    head = np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32)
    return build(
        [
            first, node("Relu", ["conv"], ["relu"]), node("Shape", ["image"], ["shape"]),
            node("Gather", ["shape", "zero"], ["rows"]), node("Concat", ["rows", "rest"], ["wanted"], axis=0),
            node("Reshape", ["relu", "wanted"], ["flat"]), node("MatMul", ["flat", "head"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"logits": ("float", ["n", 3])},
        weights={**weights, "head": head, "zero": np.array([0]), "rest": np.array([-1])},
    )  # fmt: skip


def channels_last() -> onnx.ModelProto:
    first, weights = conv("conv", "moved", 4, 3)
    head = np.random.default_rng(0).standard_normal((256, 3)).astype(np.float32)
    return build(
        [
            node("Transpose", ["image"], ["moved"], perm=[0, 3, 1, 2]), first, node("Relu", ["conv"], ["relu"]),
            node("Transpose", ["relu"], ["back"], perm=[0, 2, 3, 1]), node("Flatten", ["back"], ["flat"]),
            node("MatMul", ["flat", "head"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 8, 8, 3])}, outputs={"logits": ("float", ["n", 3])},
        weights={**weights, "head": head},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "value"),
    [
        (pooled_twice, "relu"),
        (two_branches, "trunk"),
        (joined_branches, "both"),
        (squeezed_and_excited, "excited"),
        (classes_before_pooling, "relu"),
        (shape_arithmetic, "relu"),
        (channels_last, "relu"),
        (tiny_network, "relu"),
    ],
    ids=lambda part: part.__name__ if callable(part) else part,
)
def test_the_last_map_is_found(network: Any, value: str, tmp_path: Path) -> None:
    model = ov.load(save(network(), tmp_path / "m.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(6).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = gradcam(model, picture, 1)
    assert found.value == value
    assert "last value with rows and columns" in found.provenance.parameters["why"]
    assert found.coarse.shape == (8, 8)
    by_name = gradcam(model, picture, 1, value=value)
    np.testing.assert_array_equal(by_name.coarse, found.coarse)
    assert by_name.provenance.parameters["why"] == "named by the caller"


def test_the_map_of_a_dense_output_is_one_before_it(tmp_path: Path) -> None:
    model = ov.load(save(classes_before_pooling(), tmp_path / "m.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(6).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert gradcam(model, picture, ("classes", (1, 4, 4))).value == "relu"
    assert gradcam(model, picture, ("classes", (1, 4, 4)), value="classes").value == "classes"


def test_the_map_of_an_element_is_one_before_what_is_made_element_by_element(tmp_path: Path) -> None:
    """A detector's head: its own convolution, a Sigmoid, a scale, and all positions in one list."""
    (stem, ws), (head, wh) = conv("stem", "image", 4, 3), conv("head", "trunk", 6, 4, 1)
    network = build(
        [
            stem, node("Relu", ["stem"], ["trunk"]), head, node("Sigmoid", ["head"], ["squashed"]),
            node("Mul", ["squashed", "scale"], ["scaled"]), node("Reshape", ["scaled", "list"], ["flat"]),
            node("Transpose", ["flat"], ["boxes"], perm=[0, 2, 1]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"boxes": ("float", ["n", 64, 6])},
        weights={**ws, **wh, "scale": np.float32(4), "list": np.array([0, 6, 64])},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "detector.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(6).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert gradcam(model, picture, ("boxes", (20, 4))).value == "trunk"
    assert gradcam(model, picture, ("boxes", (20, 4)), value="squashed").value == "squashed"


def test_a_value_in_another_layout_gives_the_same_map(tmp_path: Path) -> None:
    model = ov.load(save(channels_last(), tmp_path / "m.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(6).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    first, last = (gradcam(model, picture, 1, value=name) for name in ("relu", "back"))
    np.testing.assert_allclose(last.coarse, first.coarse, rtol=1e-5)
    np.testing.assert_allclose(last.weights, first.weights, rtol=1e-5)


def tokens() -> onnx.ModelProto:
    """Patches become tokens that look at each other: the smallest vision transformer."""
    first, weights = conv("patches", "image", 6, 3, 1)
    random = np.random.default_rng(0)
    return build(
        [
            first, node("Reshape", ["patches", "sides"], ["flat"]), node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
            node("MatMul", ["tokens", "q"], ["query"]), node("MatMul", ["query", "flat"], ["alike"]),
            node("Softmax", ["alike"], ["heard"]), node("MatMul", ["heard", "tokens"], ["mixed"]),
            node("ReduceMean", ["mixed"], ["features"], axes=[1], keepdims=0), node("MatMul", ["features", "head"], ["logits"]),
        ],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"logits": ("float", ["n", 3])},
        weights={
            **weights, "sides": np.array([0, 6, 64]), "q": random.standard_normal((6, 6)).astype(np.float32),
            "head": random.standard_normal((6, 3)).astype(np.float32),
        },
    )  # fmt: skip


def test_networks_of_tokens_are_refused_unless_a_map_is_named(tmp_path: Path) -> None:
    model = ov.load(save(tokens(), tmp_path / "vit.onnx"), preprocess="unit", device="cpu")
    picture = np.random.default_rng(6).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    with pytest.raises(ValueNotFoundError, match=r"sequence of tokens.*value='patches'"):
        gradcam(model, picture)
    assert gradcam(model, picture, value="patches").coarse.shape == (8, 8)
    with pytest.raises(InputError, match="no rows and columns"):
        gradcam(model, picture, value="tokens")


def test_networks_without_a_map_are_refused(tmp_path: Path) -> None:
    network = build(
        [node("Flatten", ["image"], ["flat"]), node("MatMul", ["flat", "w"], ["logits"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"logits": ("float", ["n", 3])},
        weights={"w": np.ones((192, 3), np.float32)},
    )  # fmt: skip
    model = ov.load(save(network, tmp_path / "dense.onnx"), preprocess="unit", device="cpu")
    with pytest.raises(ValueNotFoundError, match="no last map"):
        gradcam(model, np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ("relo", ValueNotFoundError, "'relu'"),
        ("features", InputError, "no rows and columns"),
        ("pooled", InputError, "no rows and columns"),
        ("*o*", ValueNotFoundError, "values match"),
    ],
)
def test_unusable_values_are_refused(value: str, error: type[Exception], said: str, tmp_path: Path) -> None:
    model = ov.load(save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", device="cpu")
    for method in (gradcam, gradcam_plusplus, guided_gradcam):
        with pytest.raises(error, match=said):
            method(model, np.zeros((8, 8, 3), np.uint8), value=value)


def test_a_value_behind_the_target_is_refused(tmp_path: Path) -> None:
    model = ov.load(save(pooled_twice(), tmp_path / "m.onnx"), preprocess="unit", device="cpu")
    with pytest.raises(InputError, match="does not depend"):
        gradcam(model, np.zeros((8, 8, 3), np.uint8), ("relu", (0, 1, 1)), value="half")


@pytest.mark.parametrize("name", [pytest.param(entry.name, marks=pytest.mark.slow) for entry in ZOO])
def test_every_real_model_has_a_last_map(name: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, device="cpu")
    picture = pictures(1)[0]
    found = gradcam(model, picture)
    rows, columns = found.coarse.shape
    assert 3 <= rows == columns <= 16
    assert len(found.weights) >= 16
    assert found.map.shape == found.image.shape[:2]


@pytest.mark.parametrize(
    ("family", "value"),
    [("vgg11", "Relu"), ("densenet121", "Relu"), ("googlenet", "Concat"), ("mobilenet_v3_small", "Hard"), ("swin", "")],
)
@pytest.mark.slow
def test_torch_exports_have_a_last_map(family: str, value: str, torch: Any) -> None:
    from exported_networks import Export, export

    sides = {"vgg11": 224, "swin": 96}.get(family, 64)
    model = ov.load(
        export(Export(family, 18, "torchscript")), device="cpu", output={"output": "logits", "kind": "logits"},
        preprocess={"preset": "imagenet", "fit": "stretch", "size": [sides, sides]},
    )  # fmt: skip
    found = gradcam(model, pictures(1)[0])
    assert value in found.value
    assert found.coarse.size > 1


@pytest.mark.slow
def test_a_vision_transformer_is_refused(torch: Any) -> None:
    from exported_networks import Export, export

    model = ov.load(
        export(Export("vit", 18, "dynamo")), device="cpu", output={"output": "logits", "kind": "logits"},
        preprocess={"preset": "imagenet", "fit": "stretch", "size": [64, 64]},
    )  # fmt: skip
    with pytest.raises(ValueNotFoundError, match="sequence of tokens"):
        gradcam(model, pictures(1)[0])
