"""What can be explained: a class by index or label, the top class, one element of any value, a function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxviz as ov
from embedded_cifar import PATH, cifar_model, picture_set
from graphs import save
from onnxviz.errors import ContractError, InputError, ValueNotFoundError
from onnxviz.methods.target import example_element, resolve_target

LABELS = ("airplane", "automobile", "bird", "cat, tabby", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return next(iter(picture_set(1).batches(1))).tensor


def test_classes_by_index_label_synonym_and_top1(clean: np.ndarray) -> None:
    model = ov.load(PATH, preprocess="cifar10", labels=LABELS, device="cpu")
    outputs = model.run(clean)
    probability = model.predict(clean)[0]
    for target in (3, "3", "cat, tabby", "Tabby", np.int64(3)):
        found = resolve_target(model, target, clean)
        assert found.class_index == 3
        assert found.scale == "probability"
        assert found.score(outputs)[0] == probability[3]
    top = resolve_target(model, "top1", clean)
    assert top.class_index == probability.argmax()
    assert LABELS[probability.argmax()] in top.text


@pytest.mark.parametrize(
    "target", [("/features/features.2/Relu_output_0", (4, 7, 9)), "/features/features.2/Relu*[4,7,9]"]
)
def test_any_element_of_any_value(clean: np.ndarray, target: object) -> None:
    model = cifar_model()
    value = "/features/features.2/Relu_output_0"
    found = resolve_target(model, target, clean)  # type: ignore[arg-type]
    outputs = model.run(clean, found.values)
    assert found.score(outputs)[0] == outputs[value][0, 4, 7, 9]
    assert found.scale == "value"


def test_the_logit_is_called_a_logit(clean: np.ndarray) -> None:
    assert resolve_target(cifar_model(), ("logits", 2), clean).scale == "logit"


def test_a_function_of_the_outputs(clean: np.ndarray) -> None:
    model = cifar_model()
    found = resolve_target(model, lambda outputs: outputs["logits"].max(axis=1), clean)
    outputs = model.run(clean)
    assert found.score(outputs)[0] == outputs["logits"].max()
    with pytest.raises(InputError, match="one number per image"):
        resolve_target(model, lambda outputs: outputs["logits"], clean).score(outputs)


@pytest.mark.parametrize(
    ("target", "error", "sentence"),
    [
        (10, InputError, "0 to 9"),
        (-1, InputError, "0 to 9"),
        ("zebra", InputError, "no class has that label"),
        ("logits[10]", InputError, "no such element"),
        ("logits[1,2]", InputError, "no such element"),
        ("logit[1]", ValueNotFoundError, "'logits'"),
        (2.5, InputError, "not a target"),
        ((0, 1), InputError, "not a target"),
        (("logits",), InputError, "not a target"),
        ("logits[]", InputError, "1 indices below"),
        (True, InputError, "not a target"),
    ],
)
def test_wrong_targets_are_refused(clean: np.ndarray, target: object, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        resolve_target(cifar_model(), target, clean)  # type: ignore[arg-type]


def test_a_class_of_a_model_without_classes_is_refused(clean: np.ndarray) -> None:
    model = ov.load(PATH, preprocess="cifar10", output={"output": "logits", "kind": "values"}, device="cpu")
    with pytest.raises(ContractError, match="not a classifier"):
        resolve_target(model, 3, clean)


def test_a_value_without_axes_has_one_element(tmp_path: Path) -> None:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0)], "mean",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 3, 6, 6])],
        [onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    model = ov.load(save(proto, tmp_path / "mean.onnx"), preprocess="unit", device="cpu")
    image = np.random.default_rng(0).random((1, 3, 6, 6), np.float32)
    assert example_element(model) == "mean[]"
    for target in ("mean[]", ("mean", ()), ("mean", [])):
        np.testing.assert_allclose(
            resolve_target(model, target, image).score(model.run(image)), image.mean(), rtol=1e-6
        )
        np.testing.assert_allclose(ov.gradient(model, image, target), np.full_like(image, 1 / 108), rtol=1e-6)
    with pytest.raises(InputError, match=r"no index, 'mean\[\]'"):
        resolve_target(model, "mean[0]", image)
