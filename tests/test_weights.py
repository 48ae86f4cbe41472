"""The weights of convolutions as real numbers, whatever the exporter did to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs import build, save, tiny_network
from light_models import LIGHT
from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.graph.loading import LoadedModel, read_model
from onnxviz.graph.weights import ConvolutionWeights, convolution_weights, first_convolution, list_convolutions

node = helper.make_node


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def loaded(
    tmp_path: Path, *nodes: onnx.NodeProto, dtype: str = "float", channels: int = 3, **weights: Any
) -> LoadedModel:
    model = build(
        nodes,
        inputs={"x": (dtype, [1, channels, 8, 8])},
        outputs={nodes[-1].output[0]: ("float", None)},
        weights=weights,
    )
    return read_model(save(model, tmp_path / "model.onnx"))


def response(model: LoadedModel, value: str, image: np.ndarray) -> np.ndarray:
    """What onnxruntime gives for the value."""
    from onnxviz.graph.taps import expose

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        expose(model.proto, [value]).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: image})[0]
    return result


def convolve(image: np.ndarray, found: ConvolutionWeights) -> np.ndarray:
    """Valid cross-correlation of (1, C, h, w) with the weights, straight from the sum."""
    filters, share, height, width = found.weights.shape
    rows, columns = image.shape[2] - height + 1, image.shape[3] - width + 1
    out = np.zeros((1, filters, rows, columns))
    for f in range(filters):
        first = f // (filters // found.groups) * share
        for r in range(rows):
            for c in range(columns):
                patch = image[0, first : first + share, r : r + height, c : c + width]
                out[0, f, r, c] = np.sum(patch.astype(np.float64) * found.weights[f])
    return out


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_grouped_and_depthwise_give_what_the_runtime_computes(groups: int, tmp_path: Path) -> None:
    weights = floats(12, 6 // groups, 3, 2)
    model = loaded(tmp_path, node("Conv", ["x", "w"], ["y"], group=groups), channels=6, w=weights)
    found = convolution_weights(model, "y")
    assert found.groups == groups
    np.testing.assert_array_equal(found.weights, weights)
    image = floats(1, 6, 8, 8)
    np.testing.assert_allclose(response(model, "y", image), convolve(image, found), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution_paints_its_weights(groups: int, tmp_path: Path) -> None:
    model = loaded(tmp_path, node("ConvTranspose", ["x", "w"], ["y"], group=groups), channels=4, w=floats(4, 3, 2, 5))
    found = convolution_weights(model, "y")
    assert found.weights.shape == (3 * groups, 4 // groups, 2, 5)
    # One lit unit of one input channel paints the kernel of every output channel of its group.
    for channel in range(4):
        image = np.zeros((1, 4, 8, 8), np.float32)
        image[0, channel, 3, 2] = 1
        painted = response(model, "y", image)[0, :, 3:5, 2:7]
        group, place = divmod(channel, 4 // groups)
        expected = np.zeros_like(painted)
        expected[group * 3 : (group + 1) * 3] = found.weights[group * 3 : (group + 1) * 3, place]
        np.testing.assert_allclose(painted, expected, atol=1e-6)


def test_through_constant_identity_cast_and_transpose(tmp_path: Path) -> None:
    stored = floats(3, 3, 3, 5).astype(np.float16)  # height, width, in, out: as TensorFlow keeps them
    model = loaded(
        tmp_path,
        node("Constant", [], ["stored"], value=numpy_helper.from_array(stored, "inner")),
        node("Identity", ["stored"], ["same"]),
        node("Cast", ["same"], ["wide"], to=TensorProto.FLOAT),
        node("Transpose", ["wide"], ["w"], perm=[3, 2, 0, 1]),
        node("Conv", ["x", "w"], ["y"]),
    )
    found = convolution_weights(model, "y")
    assert found.weight_name == "stored"
    np.testing.assert_array_equal(found.weights, stored.astype(np.float32).transpose(3, 2, 0, 1))


@pytest.mark.parametrize("axis", [None, 0])
def test_dequantised_per_tensor_and_per_channel(axis: int | None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stored = random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    scale = np.float32(0.02) if axis is None else np.float32([0.01, 0.02, 0.5, 1.0])
    zero = np.int8(3) if axis is None else np.int8([0, 1, -2, 3])
    attributes = {} if axis is None else {"axis": axis}
    model = loaded(
        tmp_path,
        node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes), node("Conv", ["x", "w"], ["y"]),
        q=stored, s=scale, z=zero,
    )  # fmt: skip
    found = convolution_weights(model, "y")
    assert found.weight_name == "q"
    np.testing.assert_allclose(found.weights, response(model, "w", floats(1, 3, 8, 8)), rtol=1e-6)


def test_quantised_convolution_per_channel(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    stored = random.integers(0, 255, (4, 3, 3, 3)).astype(np.uint8)
    model = loaded(
        tmp_path,
        node("QuantizeLinear", ["x", "sx", "zx"], ["qx"]),
        node("QLinearConv", ["qx", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["qy"]),
        node("DequantizeLinear", ["qy", "sy", "zy"], ["y"]),
        w=stored, sx=np.float32(0.01), zx=np.uint8(128), sw=np.float32([0.01, 0.02, 0.03, 0.04]), zw=np.uint8([128] * 4),
        sy=np.float32(0.1), zy=np.uint8(128),
    )  # fmt: skip
    for value in ("qy", "y"):
        found = convolution_weights(model, value)
        assert found.value == "qy"
        image = np.clip(floats(1, 3, 8, 8), -1.2, 1.2)
        # One step of the output plus what rounding the input to steps of 0.01 can add up to.
        slack = 0.05 + 0.005 * np.abs(found.weights).sum((1, 2, 3)).max()
        np.testing.assert_allclose(
            response(model, "y", image).clip(-12, 12), convolve(image, found).clip(-12, 12), atol=slack
        )


def test_dynamically_quantised_convolution(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
    model = loaded(
        tmp_path,
        node("DynamicQuantizeLinear", ["x"], ["q", "sx", "zx"]),
        node("ConvInteger", ["q", "w", "zx", "zw"], ["i"]),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["sx", "sw"], ["both"]),
        node("Mul", ["f", "both"], ["y"]),
        w=stored, zw=np.int8(0), sw=np.float32([0.02]),
    )  # fmt: skip
    np.testing.assert_allclose(convolution_weights(model, "i").weights, stored * np.float32(0.02), rtol=1e-6)


def test_one_dimensional_kernels_get_a_height(tmp_path: Path) -> None:
    weights = floats(4, 3, 5)
    model = build(
        [node("Conv", ["x", "w"], ["y"])], inputs={"x": ("float", [1, 3, 20])}, outputs={"y": ("float", None)},
        weights={"w": weights},
    )  # fmt: skip
    found = convolution_weights(read_model(save(model, tmp_path / "model.onnx")), "y")
    np.testing.assert_array_equal(found.weights, weights[:, :, None, :])


def test_values_right_behind_a_convolution(tmp_path: Path) -> None:
    model = loaded(
        tmp_path,
        node("Conv", ["x", "w"], ["c"]), node("Add", ["c", "b"], ["a"]), node("Relu", ["a"], ["r"]),
        node("Sigmoid", ["r"], ["gate"]), node("Mul", ["r", "gate"], ["swish"]), node("MaxPool", ["swish"], ["p"], kernel_shape=[2, 2]),
        w=floats(4, 3, 3, 3), b=floats(4, 1, 1),
    )  # fmt: skip
    for value in ("c", "a", "r", "swish"):
        assert convolution_weights(model, value).value == "c"
    with pytest.raises(ValueNotFoundError, match=r"no convolution makes this value.*'c'"):
        convolution_weights(model, "p")
    with pytest.raises(ValueNotFoundError, match="no value of the graph has this name"):
        convolution_weights(model, "nothing")


def test_computed_weights_and_three_dimensional_kernels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="computed from the network's input"):
        convolution_weights(loaded(tmp_path, node("Conv", ["x", "x"], ["y"])), "y")
    model = build(
        [node("Conv", ["x", "w"], ["y"])], inputs={"x": ("float", [1, 1, 4, 4, 4])}, outputs={"y": ("float", None)},
        weights={"w": floats(2, 1, 3, 3, 3)},
    )  # fmt: skip
    with pytest.raises(InputError, match="one or two dimensions"):
        convolution_weights(read_model(save(model, tmp_path / "model.onnx")), "y")


def test_weights_in_an_external_file(tmp_path: Path) -> None:
    model = tiny_network()
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    (tmp_path / "w.bin").write_bytes(bytes(16) + weights.tobytes())
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "16"), ("length", str(weights.nbytes))):
        tensor.external_data.add(key=key, value=value)
    found = convolution_weights(read_model(save(model, tmp_path / "model.onnx")), "conv")
    np.testing.assert_array_equal(found.weights, weights)


def test_first_convolution_sees_the_image(tmp_path: Path) -> None:
    model = build(
        [
            node("Conv", ["mask", "w1"], ["of_mask"]), node("Resize", ["x", "", "s"], ["half"]), node("Conv", ["half", "w"], ["of_x"]),
            node("Conv", ["of_x", "w4"], ["deeper"]), node("Relu", ["deeper"], ["y"]),
        ],
        inputs={"mask": ("float", [1, 1, 8, 8]), "x": ("float", [1, 3, 8, 8])}, outputs={"y": ("float", None)},
        weights={"w1": floats(2, 1, 3, 3), "w": floats(4, 3, 3, 3), "w4": floats(4, 4, 1, 1), "s": np.float32([1, 1, 0.5, 0.5])},
    )  # fmt: skip
    assert list_convolutions(model) == ("of_mask", "of_x", "deeper")
    assert first_convolution(model) == "of_x"
    plain = build([node("Relu", ["x"], ["y"])], inputs={"x": ("float", [1, 3, 8, 8])}, outputs={"y": ("float", None)})
    assert first_convolution(plain) is None


def test_every_convolution_of_every_zoo_model(zoo: Path) -> None:
    for path in sorted((zoo / "models").glob("*.onnx")):
        model = read_model(path)
        first = first_convolution(model.proto)
        assert first is not None
        assert convolution_weights(model, first).weights.shape[1] == 3
        for value in list_convolutions(model.proto):
            found = convolution_weights(model, value)
            assert np.isfinite(found.weights).all()
            assert np.ptp(found.weights) > 0


def test_quantised_and_float_exports_hold_the_same_filters(zoo: Path) -> None:
    # The same network twice: dequantised by the converter, and QDQ with scales in the graph.
    float_export, quantised = (
        read_model(zoo / "models" / f"mobilenet_v2_tflite_{kind}_op13.onnx") for kind in ("float", "qdq")
    )
    pairs = zip(list_convolutions(float_export.proto), list_convolutions(quantised.proto), strict=True)
    for left, right in pairs:
        a, b = convolution_weights(float_export, left), convolution_weights(quantised, right)
        assert a.groups == b.groups
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-6)


def test_light_models_fold_their_weights() -> None:
    for path in sorted(LIGHT.glob("light_*.onnx")):
        model = read_model(path)
        first = first_convolution(model.proto)
        assert first is not None
        assert convolution_weights(model, first).weights.shape[1] == 3


def test_torch_exports_hold_torch_weights(torch: Any, tmp_path: Path) -> None:
    import warnings

    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 6, 3, groups=2)
    ).eval()  # fmt: skip
    path = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its successor
        torch.onnx.export(
            network, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False, training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=False,
        )  # fmt: skip
    model = read_model(path)
    found = [convolution_weights(model, value) for value in list_convolutions(model.proto)]
    assert [entry.groups for entry in found] == [1, 8, 2]
    np.testing.assert_allclose(found[1].weights, network[3].weight.detach().numpy())
    stored = network[4].weight.detach().numpy()  # (8, 3, 3, 3): two groups of 4 inputs and 3 outputs
    expected = np.concatenate([stored[:4].transpose(1, 0, 2, 3), stored[4:].transpose(1, 0, 2, 3)])
    np.testing.assert_allclose(found[2].weights, expected)
