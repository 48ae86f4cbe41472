"""Weights shuffled layer by layer: the order, what is changed and what is not, and maps that must and must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr

import onnxviz as ov
from graphs import save
from onnxviz.graph.shuffled import shuffle_weights, weighted_layers
from onnxviz.methods.randomization_check import randomization_check, rank_correlation

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions and a dense layer whose weights come from an initializer, a Constant, and a DequantizeLinear."""
    random = np.random.default_rng(0)
    first = numpy_helper.from_array(random.standard_normal((6, 3, 3, 3)).astype(np.float32), "first")
    second = numpy_helper.from_array(random.standard_normal((8, 6, 3, 3)).astype(np.float32), "second")
    third = numpy_helper.from_array(random.integers(-99, 99, (8, 4)).astype(np.int8), "third")
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["conv1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Constant", [], ["held"], value=second),
        helper.make_node("Conv", ["relu1", "held"], ["conv2"]),
        helper.make_node("GlobalAveragePool", ["conv2"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("DequantizeLinear", ["third", "scale"], ["real"]),
        helper.make_node("MatMul", ["flat", "real"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [first, third, numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
         numpy_helper.from_array(np.arange(4, dtype=np.float32) * 1e-3, "bias")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return save(model, tmp_path_factory.mktemp("randomization") / "net.onnx")


def stored(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def shuffled(proto: onnx.ModelProto, names: list[str], *, seed: int) -> dict[str, np.ndarray]:
    copy, beside = shuffle_weights(proto, names, ["logits"], seed=seed)
    assert not beside
    return stored(copy)


def test_layers_from_the_scores_to_the_input(path: Path) -> None:
    layers = weighted_layers(onnx.load(path), "logits")
    assert [(layer.value, layer.weights) for layer in layers] == [
        ("product", ("third",)), ("conv2", ("held",)), ("conv1", ("first",)),
    ]  # fmt: skip
    assert [layer.value for layer in weighted_layers(onnx.load(path), "relu1")] == ["conv1"]


def test_shuffling_keeps_the_numbers_and_changes_their_order(path: Path) -> None:
    proto = onnx.load(path)
    before = stored(proto)
    after = shuffled(proto, ["third", "held"], seed=1)
    for name in ("third", "held"):
        assert after[name].shape == before[name].shape
        assert after[name].dtype == before[name].dtype
        assert (after[name] != before[name]).mean() > 0.5
        np.testing.assert_array_equal(np.sort(after[name].ravel()), np.sort(before[name].ravel()))
    for name in ("first", "scale", "bias"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(stored(proto)["third"], before["third"])
    again = shuffled(proto, ["third", "held", "first"], seed=1)
    np.testing.assert_array_equal(again["held"], after["held"])
    assert (shuffled(proto, ["third"], seed=2)["third"] != after["third"]).any()


def test_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(2)
    first, second = random.integers(0, 5, (2, 9, 7))
    assert rank_correlation(first, second) == pytest.approx(
        spearmanr(first.ravel(), second.ravel()).statistic, abs=1e-12
    )
    assert rank_correlation(first, 3 * first + 1) == pytest.approx(1)
    assert np.isnan(rank_correlation(first, np.zeros((9, 7))))


def test_a_map_of_the_network_changes_and_a_map_of_the_image_does_not(path: Path) -> None:
    model = ov.load(path, preprocess={"size": [16, 16], "scale": 1 / 255})
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    seen: list[tuple[str, int]] = []

    def of_network(opened: ov.Model, view: np.ndarray, index: int) -> np.ndarray:
        seen.append((opened.name, index))
        return ov.gradient(opened, opened.preprocess.encode(view[np.newaxis]), index)[0].sum(axis=0)

    found = randomization_check(
        model, {"gradient": of_network, "brightness": lambda _, view, __: view.mean(axis=2)}, image, stages=3
    )
    assert found.methods == ("gradient", "brightness", "edges")
    assert found.layers == ("product", "conv2", "conv1")
    assert found.shuffled.tolist() == [1, 2, 3]
    assert [name for name, _ in seen] == ["net.onnx"] + ["net.shuffled.onnx"] * 3
    assert {index for _, index in seen} == {int(model.predict(model.preprocess.encode(image[np.newaxis]))[0].argmax())}
    np.testing.assert_allclose(found.correlations[1:], 1)
    assert abs(found.correlations[0, -1]) < 0.5
    np.testing.assert_array_equal(found.image, image)
    again = randomization_check(model, of_network, image, stages=3)
    np.testing.assert_array_equal(again.correlations[0], found.correlations[0])


def test_cascading_shuffles_all_layers_above_too(path: Path) -> None:
    """Stage 2 holds the shuffles of stage 1: the dense layer's order is the same in both."""
    model = ov.load(path, preprocess={"size": [16, 16], "scale": 1 / 255})
    weights: list[dict[str, np.ndarray]] = []

    def keep(opened: ov.Model, view: np.ndarray, _: int) -> np.ndarray:
        weights.append(stored(opened.loaded.proto))
        return view.mean(axis=2)

    randomization_check(model, keep, np.zeros((16, 16, 3), np.uint8), stages=3)
    changed = [
        {name for name in ("third", "held", "first") if (stage[name] != weights[0][name]).any()} for stage in weights
    ]
    assert changed == [set(), {"third"}, {"third", "held"}, {"third", "held", "first"}]
    np.testing.assert_array_equal(weights[1]["third"], weights[3]["third"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        pytest.param(lambda *_: np.zeros((3, 3)), r"did not return a map.*\(3, 3\)", id="shape"),
        pytest.param(lambda *_: np.zeros((16, 16), complex), "did not return a map.*complex", id="dtype"),
    ],
)
def test_what_is_no_map_is_refused(path: Path, returned: Any, message: str) -> None:
    model = ov.load(path, preprocess={"size": [16, 16], "scale": 1 / 255})
    with pytest.raises(ov.InputError, match=message):
        randomization_check(model, returned, np.zeros((16, 16, 3), np.uint8))


def test_its_picture(path: Path) -> None:
    model = ov.load(path, preprocess={"size": [16, 16], "scale": 1 / 255})
    image = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    found = randomization_check(model, lambda _, view, __: np.zeros(view.shape[:2]), image, stages=2)
    assert np.isnan(found.correlations[0]).all()
    figure = ov.plot(found)
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert any("constant map" in text for text in texts)
    assert "all shuffled" in texts
