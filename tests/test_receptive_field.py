"""Receptive fields against the network itself: nothing outside a field changes the unit, every edge of it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxviz.errors import InputError, ValueNotFoundError
from onnxviz.graph.layout import channel_axes
from onnxviz.graph.regions import ReceptiveField, receptive_field
from region_probes import Probe, densely_random, input_shape, load_light, real_input, shapes_of

LIGHT = [
    *("bvlc_alexnet", "inception_v1", "resnet50", "shufflenet", "squeezenet"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("densenet121", "inception_v2", "zfnet512")),
]
ZOO = [
    "cifar10_7x7_4096",
    "efficientnet-lite0-dynamo-op20",
    "efficientnet-lite0-torchscript-op13",
    "mlperf_tiny_resnet8_keras",
    "mlperf_tiny_resnet8_qdq",
    "mlperf_tiny_resnet_large",
    "mobilenet_v1_025_128_qdq_op13",
    "mobilenet_v1_05_160_float_op13",
    "mobilenet_v2_tflite_float_op13",
    "squeezenet1.1-imagenet",
    "vnn_cifar10_resnet4b",
    "vnn_marabou_cifar10_large",
]


class Network:
    """A network with random weights, an image, and the fields of its values."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = densely_random(proto, seed=0)
        self.input = real_input(self.proto)
        self.shape = input_shape(self.proto)
        self.layout = "NCHW" if self.shape[1] in (1, 3) else "NHWC"
        self.row_axis = 2 if self.layout == "NCHW" else 1
        rng = np.random.default_rng(1)
        dtype = helper.tensor_dtype_to_np_dtype(self.input.type.tensor_type.elem_type)
        self.image = rng.integers(0, 100, self.shape).astype(dtype)
        if dtype == np.float32:
            self.image = rng.normal(size=self.shape).astype(dtype)
        self.shapes = shapes_of(self.proto, self.image)
        self.channel_axes = channel_axes(
            self.proto,
            ranks={name: len(shape) for name, shape in self.shapes.items()},
            image_input=self.input.name,
            image_layout=self.layout,
        )

    def field(self, value: str) -> ReceptiveField:
        return receptive_field(
            self.proto,
            value,
            input_name=self.input.name,
            input_shape=self.shape,
            shapes=self.shapes,
            layout=self.layout,
            channel_axis=self.channel_axes.get(value, 1),
        )

    def probe(self, value: str, tries: int = 3) -> Probe:
        return Probe(self.proto, value, self.image, self.row_axis, tries=tries)

    def channel_first(self, value: str, array: np.ndarray) -> np.ndarray:
        if array.ndim == 2:
            return array[0][:, None, None]
        return np.moveaxis(array, self.channel_axes[value], 1)[0]


def local_values(network: Network, count: int) -> list[str]:
    """A few values whose fields are smaller than the image: the first, the last and some between."""
    found = []
    for node in network.proto.graph.node:
        shape = network.shapes.get(node.output[0], ())
        if len(shape) == 4 and min(shape[2], shape[-1] if network.row_axis == 2 else shape[2]) > 1:
            try:
                field = network.field(node.output[0])
            except ValueNotFoundError:
                continue
            if max(field.size) > 1 and max(field.size) < min(field.image_size):
                found.append(node.output[0])
            elif found and max(field.size) >= 2 * min(field.image_size):
                break
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))
    return [found[place] for place in places]


def all_units(field: ReceptiveField) -> np.ndarray:
    """(channels, rows, columns, 4) what of the image can change each unit of each channel."""
    channels, rows, columns = np.indices((field.channels, *field.map_size))
    boxes = field.tight_boxes(rows.ravel(), columns.ravel(), channels.ravel())
    return boxes.reshape(*channels.shape, 4)


def check_every_unit(network: Network, value: str, cuts: int) -> None:
    """A band from an edge of the image to a cut changes a unit exactly if the unit's field reaches into the band.

    One direction is the proof that fields are large enough, the other that they are no larger than need be.
    """
    field = network.field(value)
    assert field.exact, field.why
    boxes = all_units(field)
    probe = network.probe(value)
    height, width = field.image_size
    reads = boxes[..., 2] > boxes[..., 0]
    _, kind = np.unique(boxes.reshape(len(boxes), -1), axis=0, return_inverse=True)
    groups = [np.ravel(kind) == number for number in range(kind.max() + 1)]
    for axis, length in ((0, height), (1, width)):
        for cut in np.unique(np.linspace(1, length - 1, cuts).astype(int)):
            for before in (True, False):
                inside = np.zeros((height, width), bool)
                band = slice(0, cut) if before else slice(cut, length)
                inside[(band, slice(None)) if axis == 0 else (slice(None), band)] = True
                expected = boxes[..., axis] < cut if before else boxes[..., axis + 2] > cut
                found = network.channel_first(value, probe.changed(inside))
                outside = found & ~(expected & reads)
                assert not outside.any(), f"{value}: changed from outside its field, {np.argwhere(outside)[:3]}"
                # A MaxPool or a rounding may hide a change from a unit of one channel, but not from that unit of all
                # channels that have the same fields.
                due = expected & reads
                for group in groups:
                    blind = due[group].any(axis=0) & ~(found & due)[group].any(axis=0)
                    assert not blind.any(), f"{value}: field too large at cut {cut} of axis {axis}"


def check_some_units(network: Network, value: str, units: int) -> None:
    """Change everything outside the field: not one bit of the unit changes. Change one edge of it: it does."""
    field = network.field(value)
    probe = network.probe(value)
    rng = np.random.default_rng(2)
    rows, columns = field.map_size
    chosen = [(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)]
    chosen += [(int(rng.integers(rows)), int(rng.integers(columns))) for _ in range(units - 3)]
    for row, column in chosen[:units]:
        top, left, bottom, right = field.tight_boxes([row], [column])[0]
        unit = (slice(None), row, column)
        outside = np.ones(field.image_size, bool)
        outside[top:bottom, left:right] = False
        assert not network.channel_first(value, probe.changed(outside))[unit].any(), (value, row, column)
        if top == bottom:
            continue  # a unit of a constant border: it reads no pixel at all, which has just been shown
        for edge in (
            np.s_[top, left:right],
            np.s_[bottom - 1, left:right],
            np.s_[top:bottom, left],
            np.s_[top:bottom, right - 1],
        ):
            inside = np.zeros(field.image_size, bool)
            inside[edge] = True
            assert network.channel_first(value, probe.changed(inside))[unit].any(), (value, row, column, edge)


@pytest.mark.parametrize("name", LIGHT)
def test_light_architectures_with_dense_random_weights(name: str) -> None:
    network = Network(load_light(name))
    values = local_values(network, 3)
    assert len(values) >= 2
    for value in values:
        check_every_unit(network, value, cuts=2)
    check_some_units(network, values[-1], units=3)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_with_dense_random_weights(zoo: Path, name: str) -> None:
    network = Network(onnx.load(zoo / "models" / f"{name}.onnx"))
    values = local_values(network, 3)
    assert values
    for value in values:
        check_every_unit(network, value, cuts=9 if max(network.shape) < 100 else 2)
    check_some_units(network, values[-1], units=3)


def test_a_field_that_says_everything_would_fail() -> None:
    network = Network(two_branches())

    class Everything(Network):
        def field(self, value: str) -> ReceptiveField:
            found = super().field(value)
            height, width = found.image_size
            whole = lambda rows, *_: np.tile([0, 0, height, width], (len(rows), 1))  # noqa: E731
            found.tight_boxes = whole  # type: ignore[method-assign]
            return found

    check_every_unit(network, "joined", cuts=9)
    everything = Everything(two_branches())
    with pytest.raises(AssertionError, match="field too large"):
        check_every_unit(everything, "joined", cuts=9)


def two_branches() -> onnx.ModelProto:
    """A 5 × 5 and a 1 × 1 convolution of stride 2 side by side, joined over channels."""
    weights = [
        numpy_helper.from_array(np.ones((2, 3, 5, 5), np.float32), "wide"),
        numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "narrow"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["a"], strides=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["x", "narrow"], ["b"], strides=[2, 2]),
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 16, 12])
    graph = helper.make_graph(nodes, "branches", [x], [helper.make_value_info("joined", onnx.TypeProto())], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_branches_give_the_union_and_each_channel_its_own() -> None:
    field = Network(two_branches()).field("joined")
    assert field.box(3, 2) == (4, 2, 9, 7)
    assert field.box(3, 2, channel=0) == (4, 2, 9, 7)
    assert field.box(3, 2, channel=4) == (6, 4, 7, 5)
    assert (field.size, field.stride, field.map_size) == ((5, 5), (2.0, 2.0), (8, 6))


def test_boxes_keep_a_border_unit_in_its_place_and_tight_boxes_stay_inside() -> None:
    field = Network(two_branches()).field("joined")
    assert field.box(0, 0) == (-2, -2, 3, 3)
    assert field.box(7, 5) == (12, 8, 17, 13)
    assert field.tight_boxes([0, 7], [0, 5]).tolist() == [[0, 0, 3, 3], [12, 8, 16, 12]]


def test_a_value_behind_a_global_operator_sees_the_whole_image() -> None:
    network = Network(load_light("squeezenet"))
    output = network.proto.graph.output[0].name
    field = network.field(output)
    assert field.box(0, 0) == (0, 0, 224, 224)
    assert field.exact
    assert "whole image" in field.why


def test_an_unknown_operator_is_named() -> None:
    model = two_branches()
    model.graph.node.insert(0, helper.make_node("NonMaxSuppression", ["x", "x"], ["odd"], "suppress"))
    model.graph.node[1].input[0] = "odd"
    shapes = {"x": (1, 3, 16, 12), "odd": (1, 3, 16, 12), "a": (1, 2, 8, 6), "b": (1, 3, 8, 6), "joined": (1, 5, 8, 6)}
    field = receptive_field(model, "joined", input_name="x", input_shape=(1, 3, 16, 12), shapes=shapes, layout="NCHW")
    assert not field.exact
    assert "NonMaxSuppression (suppress)" in field.why
    assert field.box(3, 3) == (0, 0, 16, 12)
    assert field.box(3, 3, channel=4) == (6, 6, 7, 7)


def test_wrong_questions_are_refused() -> None:
    network = Network(two_branches())
    with pytest.raises(ValueNotFoundError, match="joined"):
        network.field("joind")
    with pytest.raises(ValueNotFoundError, match="does not depend on the image"):
        receptive_field(
            network.proto, "y", input_name="x", input_shape=network.shape, shapes={"y": (1,)}, layout="NCHW"
        )
    with pytest.raises(InputError, match="0 to 7"):
        network.field("joined").box(8, 0)
