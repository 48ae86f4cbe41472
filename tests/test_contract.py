"""Which input is the image and which output holds the class scores, on real and hand-written networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxviz as ov
from graphs import build, save, tiny_network
from light_models import LIGHT
from onnxviz.graph.contract import explain_no_image_input, find_class_output, find_image_input
from onnxviz.graph.loading import read_model

node = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# File name to: layout, side, type, normalises itself, quantisation; classes, Softmax, quantisation of the output.
ZOO = {
    "cifar10_7x7_4096": ("NCHW", 32, "float32", False, None, 10, False, None),
    "efficientnet-lite0-dynamo-op20": ("NCHW", 224, "float32", False, None, 1000, False, None),
    "efficientnet-lite0-torchscript-op13": ("NCHW", 224, "float32", False, None, 1000, False, None),
    "mlperf_tiny_resnet8_keras": ("NHWC", 32, "float32", False, None, 10, True, None),
    "mlperf_tiny_resnet8_qdq": ("NHWC", 32, "int8", False, (1.0, -128), 10, True, (1 / 256, -128)),
    "mlperf_tiny_resnet_large": ("NHWC", 32, "float32", False, None, 10, True, None),
    "mobilenet_v1_025_128_qdq_op13": ("NHWC", 128, "uint8", False, (1 / 128, 128), 1001, True, (1 / 256, 0)),
    "mobilenet_v1_05_160_float_op13": ("NHWC", 160, "uint8", True, None, 1001, True, (1 / 256, 0)),
    "mobilenet_v2_tflite_float_op13": ("NHWC", 224, "uint8", True, None, 1001, True, (1 / 256, 0)),
    "mobilenet_v2_tflite_qdq_op13": ("NHWC", 224, "uint8", False, (1 / 128, 128), 1001, True, (1 / 256, 0)),
    "squeezenet1.1-imagenet": ("NCHW", 224, "float32", False, None, 1000, True, None),
    "vnn_cifar10_resnet4b": ("NCHW", 32, "float32", False, None, 10, False, None),
    "vnn_marabou_cifar10_large": ("NHWC", 32, "float32", False, None, 10, False, None),
}


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, zoo: Path) -> None:
    layout, side, dtype, normalises, quantization, classes, softmax, output_quantization = ZOO[name]
    model = read_model(zoo / "models" / f"{name}.onnx").proto
    image, output = find_image_input(model), find_class_output(model)
    assert image is not None
    assert output is not None
    assert (image.layout, image.channels, image.height, image.width) == (layout, 3, side, side)
    assert (image.dtype, image.normalises_itself, image.guessed) == (dtype, normalises, False)
    assert image.quantization == quantization
    assert (output.classes, output.softmax, output.guessed) == (classes, softmax, False)
    assert output.quantization == output_quantization


def test_light_models() -> None:
    # Their weights are graph inputs too, and the image is not always the first.
    for path in sorted(LIGHT.glob("light_*.onnx")):
        for model in (onnx.load(path), read_model(path).proto):
            image, output = find_image_input(model), find_class_output(model)
            assert image is not None
            assert output is not None
            assert image.name in ("data_0", "gpu_0/data_0")
            assert (image.layout, image.channels, image.height, image.guessed) == ("NCHW", 3, 224, False)
            assert (output.classes, output.guessed) == (1000, False)
            assert output.softmax == (path.stem != "light_densenet121")


def image_graph(*nodes: onnx.NodeProto, shape: tuple[int | str, ...], **parts: object) -> onnx.ModelProto:
    return build(nodes, inputs={"x": (str(parts.pop("dtype", "float")), shape)}, outputs={"y": ("float", None)},
                 weights={"w": floats(4, 3, 3, 3), "w1": floats(4, 1, 3, 3), **parts})  # fmt: skip


def test_everything_symbolic_is_told_by_the_convolution() -> None:
    image = find_image_input(image_graph(node("Conv", ["x", "w1"], ["y"]), shape=("n", "c", "h", "w")))
    assert image is not None
    assert (image.layout, image.channels, image.height, image.width, image.guessed) == ("NCHW", 1, None, None, False)


def test_three_rows_of_pixels_are_not_channels() -> None:
    image = find_image_input(
        image_graph(node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Conv", ["t", "w"], ["y"]), shape=(1, 3, 3, 3))
    )  # fmt: skip
    assert image is not None
    assert image.layout == "NHWC"


@pytest.mark.parametrize(("shape", "layout"), [((1, 1, 28, 28), "NCHW"), ((1, 28, 28, 1), "NHWC")])
def test_network_without_convolution(shape: tuple[int, ...], layout: str) -> None:
    image = find_image_input(
        image_graph(node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "g"], ["y"]), shape=shape, g=floats(784, 10))
    )
    assert image is not None
    assert (image.layout, image.channels, image.height, image.width) == (layout, 1, 28, 28)
    assert not image.guessed
    assert "shape" in image.why


def test_ambiguous_layout_is_a_guess() -> None:
    image = find_image_input(image_graph(node("Flatten", ["x"], ["y"]), shape=(1, 3, 3, 3)))
    assert image is not None
    assert image.guessed


@pytest.mark.parametrize(
    "first",
    [
        [node("Sub", ["x", "mean"], ["a"]), node("Div", ["a", "std"], ["b"])],
        [node("Mul", ["x", "std"], ["b"])],
        [node("BatchNormalization", ["x", "one", "one", "one", "one"], ["b"])],
        [node("Cast", ["x"], ["a"], to=1), node("Add", ["a", "mean"], ["b"])],
    ],
)
def test_normalisation_in_the_graph(first: list[onnx.NodeProto]) -> None:
    model = image_graph(
        *first, node("Conv", ["b", "w"], ["y"]), shape=(1, 3, 8, 8), mean=floats(1, 3, 1, 1), std=floats(1, 3, 1, 1),
        one=np.ones(3, np.float32),
    )  # fmt: skip
    image = find_image_input(model)
    assert image is not None
    assert image.normalises_itself
    plain = find_image_input(tiny_network())
    assert plain is not None
    assert not plain.normalises_itself


def test_normalisation_behind_the_transpose() -> None:
    model = image_graph(
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Sub", ["t", "mean"], ["b"]), node("Conv", ["b", "w"], ["y"]),
        shape=(1, 8, 8, 3), mean=floats(1, 3, 1, 1),
    )  # fmt: skip
    image = find_image_input(model)
    assert image is not None
    assert image.layout == "NHWC"
    assert image.normalises_itself


def test_quantised_convolution_tells_the_input_scale() -> None:
    model = image_graph(
        node("QLinearConv", ["x", "s", "z", "q", "s", "zw", "s", "z"], ["y"]), shape=(1, 3, 8, 8), dtype="uint8",
        s=np.float32(0.25), z=np.uint8(7), q=np.ones((4, 3, 3, 3), np.int8), zw=np.int8(0),
    )  # fmt: skip
    image = find_image_input(model)
    assert image is not None
    assert image.quantization == (0.25, 7)
    assert image.channels == 3


def test_image_among_several_inputs() -> None:
    model = build(
        [node("Concat", ["mask", "image"], ["both"], axis=1), node("Conv", ["image", "w"], ["c"]), node("Relu", ["c"], ["y"])],
        inputs={"sizes": ("int64", [1, 2]), "mask": ("float", [1, 1, 8, 8]), "image": ("float", [1, 3, 8, 8])},
        outputs={"y": ("float", None)}, weights={"w": floats(4, 3, 3, 3)},
    )  # fmt: skip
    image = find_image_input(model)
    assert image is not None
    assert (image.name, image.guessed) == ("image", False)


def test_two_images_alike_are_a_guess() -> None:
    model = build(
        [node("Conv", ["left", "w"], ["a"]), node("Conv", ["right", "w"], ["b"]), node("Sub", ["a", "b"], ["y"])],
        inputs={"left": ("float", [1, 3, 8, 8]), "right": ("float", [1, 3, 8, 8])}, outputs={"y": ("float", None)},
        weights={"w": floats(4, 3, 3, 3)},
    )  # fmt: skip
    image = find_image_input(model)
    assert image is not None
    assert (image.name, image.guessed) == ("left", True)
    assert "'right'" in image.why


@pytest.mark.parametrize(
    ("dtype", "shape", "words"),
    [
        ("int64", (1, 16), "takes int64"),
        ("float", (1, 784), "has 2 axes"),
        ("float", (1, 16, 8, 8), "without an axis of 1, 3 or 4 channels"),
        ("string", (1, 3, 8, 8), "takes string"),
    ],
)
def test_no_image_input_is_explained(dtype: str, shape: tuple[int, ...], words: str) -> None:
    model = image_graph(node("Identity", ["x"], ["y"]), shape=shape, dtype=dtype)
    assert find_image_input(model) is None
    assert words in explain_no_image_input(model)


def test_four_channels_are_no_photograph(tmp_path: Path) -> None:
    proto = image_graph(node("Identity", ["x"], ["y"]), shape=(1, 4, 8, 8), dtype="float")
    model = ov.load(save(proto, tmp_path / "four.onnx"), device="cpu")
    assert model.no_image_reason == "the model takes no photograph: 'x' has 4 channels, a photograph has 1 or 3"
    with pytest.raises(ov.InputError, match="'x' has 4 channels"):
        ov.load_images(np.zeros((8, 8, 3), np.uint8), model)
    with pytest.raises(ov.ContractError, match=r"'x' has 4 channels.*takes no preprocessing"):
        ov.load(model.path, preprocess="unit", device="cpu")


def feature_map_of_sixteen_channels() -> onnx.ModelProto:
    return image_graph(node("Conv", ["x", "wide"], ["y"]), shape=("n", "c", "h", "w"), wide=floats(4, 16, 3, 3))


def test_a_convolution_of_many_channels_sees_no_image() -> None:
    assert find_image_input(feature_map_of_sixteen_channels()) is None


# -- outputs ---------------------------------------------------------------------------------------------------------


def heads(outputs: dict[str, tuple[str, list[int | str]]], *nodes: onnx.NodeProto) -> onnx.ModelProto:
    return build(
        [node("Gemm", ["x", "w"], ["hidden"]), *nodes], inputs={"x": ("float", ["n", 8])}, outputs=outputs,
        weights={
            "w": floats(8, 6), "w10": floats(6, 10), "w512": floats(6, 512), "w4": floats(6, 4), "w1": floats(6, 1),
            "s": np.float32(0.5), "z": np.uint8(3), "boxes_shape": np.array([-1, 2, 2]),
        },
    )  # fmt: skip


def test_softmax_wins_over_other_outputs() -> None:
    model = heads(
        {"features": ("float", ["n", 6]), "scores": ("float", ["n", 10]), "p": ("float", ["n", 10])},
        node("Identity", ["hidden"], ["features"]), node("Gemm", ["hidden", "w10"], ["scores"]), node("Softmax", ["scores"], ["p"]),
    )  # fmt: skip
    output = find_class_output(model)
    assert output is not None
    assert (output.name, output.classes, output.softmax, output.guessed) == ("p", 10, True, False)


def test_boxes_and_labels_are_not_scores() -> None:
    model = heads(
        {"boxes": ("float", ["n", 2, 2]), "label": ("int64", ["n"])},
        node("Gemm", ["hidden", "w4"], ["flat"]), node("Reshape", ["flat", "boxes_shape"], ["boxes"]),
        node("ArgMax", ["hidden"], ["label"], axis=1, keepdims=0),
    )  # fmt: skip
    assert find_class_output(model) is None


def test_the_best_of_a_selection_are_not_one_score_per_class() -> None:
    model = heads(
        {"best": ("float", ["n", 2]), "which": ("int64", ["n", 2])},
        node("Gemm", ["hidden", "w10"], ["logits"]), node("Softmax", ["logits"], ["p"]),
        node("TopK", ["p", "two"], ["best", "which"]),
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "two"))
    assert find_class_output(model) is None


def test_steps_of_one_image_are_not_one_row_for_each() -> None:
    """As a recurrent layer gives them, the steps first: 80 steps of one image, scores of 37 characters."""
    steps = heads({"y": ("float", [80, 1, 10])}, node("Gemm", ["hidden", "w10"], ["y"]))
    assert find_class_output(steps) is None
    fixed = heads({"y": ("float", [1, 10])}, node("Gemm", ["hidden", "w10"], ["y"]))
    assert find_class_output(fixed) is not None


def test_a_feature_vector_would_look_the_same() -> None:
    output = find_class_output(heads({"y": ("float", ["n", 512])}, node("Gemm", ["hidden", "w512"], ["y"])))
    assert output is not None
    assert output.guessed
    assert "feature vector" in output.why


def test_one_number_needs_a_sigmoid() -> None:
    plain = heads({"y": ("float", ["n", 1])}, node("Gemm", ["hidden", "w1"], ["y"]))
    assert find_class_output(plain) is None
    squashed = heads({"y": ("float", ["n", 1])}, node("Gemm", ["hidden", "w1"], ["a"]), node("Sigmoid", ["a"], ["y"]))
    output = find_class_output(squashed)
    assert output is not None
    assert (output.classes, output.softmax) == (1, True)


def test_log_probabilities_are_logits() -> None:
    model = heads({"y": ("float", ["n", 10])}, node("Gemm", ["hidden", "w10"], ["a"]), node("LogSoftmax", ["a"], ["y"]))
    output = find_class_output(model)
    assert output is not None
    assert (output.softmax, output.guessed) == (False, False)


def test_quantised_output_and_its_scale() -> None:
    model = heads(
        {"y": ("uint8", ["n", 10, 1, 1])}, node("Gemm", ["hidden", "w10"], ["a"]), node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        node("Unsqueeze", ["q", "axes"], ["y"]),
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    output = find_class_output(model)
    assert output is not None
    assert (output.quantization, output.classes, output.dtype) == ((0.5, 3), 10, "uint8")


def test_picture_outputs_are_not_scores() -> None:
    assert find_class_output(image_graph(node("Conv", ["x", "w"], ["y"]), shape=(1, 3, 8, 8))) is None
