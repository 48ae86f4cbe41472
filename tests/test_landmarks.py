"""The feature value and the logits of real and hand-written networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from graphs import build, tiny_network
from light_models import LIGHT as LIGHT_FOLDER
from onnxviz.graph.contract import find_class_output
from onnxviz.graph.landmarks import find_feature_value, find_logits_value
from onnxviz.graph.loading import read_model
from onnxviz.graph.values import list_values

node = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# File name to: the feature value's numbers per image (None for maps, averaged later), its operator, the logits' operator.
ZOO = {
    "cifar10_7x7_4096": (4096, "Flatten", "Gemm"),
    "efficientnet-lite0-dynamo-op20": (1280, "Reshape", "Gemm"),
    "efficientnet-lite0-torchscript-op13": (1280, "Reshape", "Gemm"),
    "mlperf_tiny_resnet8_keras": (64, "Reshape", "Add"),
    "mlperf_tiny_resnet8_qdq": (64, "DequantizeLinear", "DequantizeLinear"),
    "mlperf_tiny_resnet_large": (160, "Reshape", "Add"),
    "mobilenet_v1_025_128_qdq_op13": (256, "DequantizeLinear", "DequantizeLinear"),
    "mobilenet_v1_05_160_float_op13": (512, "Reshape", "Reshape"),
    "mobilenet_v2_tflite_float_op13": (1280, "Reshape", "Reshape"),
    "mobilenet_v2_tflite_qdq_op13": (1280, "DequantizeLinear", "DequantizeLinear"),
    "squeezenet1.1-imagenet": (None, "Concat", "Flatten"),
    "vnn_cifar10_resnet4b": (100, "Relu", "Gemm"),
    "vnn_marabou_cifar10_large": (64, "Relu", "Add"),
}
LIGHT = {
    "light_bvlc_alexnet": (4096, "Relu", "Gemm"),
    "light_densenet121": (1024, "GlobalAveragePool", "Conv"),
    "light_inception_v1": (1024, "Reshape", "Gemm"),
    "light_inception_v2": (1024, "Reshape", "Gemm"),
    "light_resnet50": (2048, "Reshape", "Gemm"),
    "light_shufflenet": (544, "Reshape", "Gemm"),
    "light_squeezenet": (None, "Concat", "GlobalAveragePool"),
    "light_vgg19": (4096, "Relu", "Gemm"),
    "light_zfnet512": (1024, "Relu", "Gemm"),
}


def check(path: Path, width: int | None, feature_operator: str, logits_operator: str) -> None:
    model = read_model(path).proto
    values = {value.name: value for value in list_values(model)}
    output = find_class_output(model)
    assert output is not None
    feature, logits = (find(model, output.name) for find in (find_feature_value, find_logits_value))
    assert feature is not None
    assert logits is not None
    assert not feature.guessed
    assert not logits.guessed
    assert values[feature.value].op_type == feature_operator
    assert values[logits.value].op_type == logits_operator
    assert values[feature.value].dtype in ("float32", None)
    assert values[logits.value].dtype == "float32"
    sides = values[feature.value].shape
    if width is None:
        assert sides is not None
        assert sides[1:] == (512, 13, 13)
        assert "averaged over positions" in feature.why
    else:
        if sides is not None:
            assert np.prod([side for side in sides[1:] if isinstance(side, int)]) == width
        assert f"{width} numbers per image" in feature.why


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, zoo: Path) -> None:
    check(zoo / "models" / f"{name}.onnx", *ZOO[name])


@pytest.mark.parametrize("name", LIGHT)
def test_light(name: str) -> None:
    # As the package ships them: their weights come from ConstantOfShape nodes.
    check(LIGHT_FOLDER / f"{name}.onnx", *LIGHT[name])


def network(*ending: onnx.NodeProto, shape: tuple[int | str, ...] = ("n", 8), **weights: np.ndarray) -> onnx.ModelProto:
    """A hidden layer, then ``ending`` from "hidden" to "y"."""
    return build(
        [node("Gemm", ["x", "w0"], ["g0"]), node("Relu", ["g0"], ["hidden"]), *ending],
        inputs={"x": ("float", shape)}, outputs={"y": ("float", None)},
        weights={"w0": floats(8, 6), "w": floats(6, 4), "b": floats(4), **weights},
    )  # fmt: skip


def landmarks(model: onnx.ModelProto) -> tuple[str | None, str | None]:
    feature, logits = find_feature_value(model, "y"), find_logits_value(model, "y")
    return feature.value if feature else None, logits.value if logits else None


def test_softmax_written_out() -> None:
    model = network(
        node("MatMul", ["hidden", "w"], ["m"]), node("Add", ["m", "b"], ["scores"]),
        node("ReduceMax", ["scores"], ["top"], axes=[1]), node("Sub", ["scores", "top"], ["shifted"]),
        node("Exp", ["shifted"], ["e"]), node("ReduceSum", ["e", "one"], ["total"]), node("Div", ["e", "total"], ["y"]),
        one=np.array([1]),
    )  # fmt: skip
    assert landmarks(model) == ("hidden", "scores")


@pytest.mark.parametrize("squashing", ["Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"])
def test_through_casts_and_reshapes(squashing: str) -> None:
    model = network(
        node("Dropout", ["hidden"], ["d"]), node("Identity", ["d"], ["i"]), node("Gemm", ["i", "w", "b"], ["scores"]),
        node(squashing, ["scores"], ["s"]), node("Reshape", ["s", "sides"], ["r"]), node("Cast", ["r"], ["y"], to=1),
        sides=np.array([-1, 4]),
    )  # fmt: skip
    assert landmarks(model) == ("hidden", "scores")


def test_quantised_operators() -> None:
    zero, scale = np.uint8(0), np.float32(0.1)
    model = network(
        node("QuantizeLinear", ["hidden", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "wq", "s", "z", "s", "z"], ["m"]),
        node("DequantizeLinear", ["m", "s", "z"], ["scores"]), node("Softmax", ["scores"], ["y"]),
        s=scale, z=zero, wq=np.ones((6, 4), np.uint8),
    )  # fmt: skip
    # Features are given as the real numbers that the integers were made from.
    assert landmarks(model) == ("hidden", "scores")


def test_two_branches_and_scaled_scores() -> None:
    model = network(
        node("Gemm", ["hidden", "w", "b"], ["scores"]), node("Mul", ["scores", "temperature"], ["y"]),
        temperature=np.float32(0.5),
    )  # fmt: skip
    assert landmarks(model) == ("hidden", "y")


def test_normalised_embedding_is_its_own_feature() -> None:
    lengths = network(
        node("Gemm", ["hidden", "w"], ["e"]), node("ReduceL2", ["e"], ["l"], axes=[1]), node("Div", ["e", "l"], ["y"])
    )
    assert landmarks(lengths) == ("y", "y")
    assert find_class_output(lengths) is None
    assert landmarks(network(node("Gemm", ["hidden", "w"], ["e"]), node("LpNormalization", ["e"], ["y"])))[0] == "y"


def test_network_of_one_layer_has_no_feature() -> None:
    model = build(
        [node("Gemm", ["x", "w"], ["y"])], inputs={"x": ("float", ["n", 6])}, outputs={"y": ("float", ["n", 4])},
        weights={"w": floats(6, 4)},
    )  # fmt: skip
    assert landmarks(model) == (None, "y")


def test_segmentation_gets_a_guess() -> None:
    model = build(
        [
            node("Conv", ["x", "a"], ["fine"], pads=[1, 1, 1, 1]),
            node("MaxPool", ["fine"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "b"], ["coarse"], pads=[1, 1, 1, 1]),
            node("Resize", ["coarse", "", "scales"], ["up"], mode="nearest"),
            node("Add", ["up", "fine"], ["y"]),
        ],
        inputs={"x": ("float", [1, 3, 8, 8])}, outputs={"y": ("float", [1, 5, 8, 8])},
        weights={"a": floats(5, 3, 3, 3), "b": floats(5, 5, 3, 3), "scales": np.float32([1, 1, 2, 2])},
    )  # fmt: skip
    landmark = find_feature_value(model, "y")
    assert landmark is not None
    assert landmark.value == "coarse"
    assert landmark.guessed


def test_unknown_output_has_no_landmarks() -> None:
    assert find_feature_value(tiny_network(), "nothing") is None
    assert find_logits_value(tiny_network(), "nothing") is None
