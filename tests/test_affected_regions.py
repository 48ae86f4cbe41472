"""Both directions of the propagation on random graphs: what a unit reads, and what a changed rectangle reaches."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.printer
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graphs import build
from incremental_runs import CPU, Case
from onnxviz.graph.incremental.layouts import Layout
from onnxviz.graph.optimized import expose_every_value
from onnxviz.graph.regions import Boxes, Propagation, receptive_field
from onnxviz.methods.patches import region_patches
from onnxviz.runtime.sessions import open_session
from random_graphs import Builder, random_graphs
from region_probes import Probe, input_shape, load_light, real_input, shapes_of

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def image_of(model: onnx.ModelProto) -> np.ndarray:
    return np.random.default_rng(3).normal(size=input_shape(model)).astype(np.float32)


def changed_hull(changed: np.ndarray) -> tuple[list[int], list[int]]:
    places = np.argwhere(changed)
    return places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist()


@SETTINGS
@given(random_graphs())
def test_fields_of_random_graphs(graph: tuple[onnx.ModelProto, Builder]) -> None:
    model, builder = graph
    note(onnx.printer.to_text(model))
    image = image_of(model)
    shapes = shapes_of(model, image)
    field = receptive_field(model, builder.value, input_name="x", input_shape=image.shape, shapes=shapes, layout="NCHW")
    assert shapes[builder.value] == builder.shape
    assert field.exact, field.why
    assert min(field.size) >= 1
    channels, rows, columns = np.indices(builder.shape[1:])
    boxes = field.tight_boxes(rows.ravel(), columns.ravel(), channels.ravel()).reshape(*channels.shape, 4)
    placed = field.boxes(rows.ravel(), columns.ravel(), channels.ravel()).reshape(*channels.shape, 4)
    reads = boxes[..., 2] > boxes[..., 0]
    assert (placed[reads][:, :2] <= boxes[reads][:, :2]).all()
    assert (placed[reads][:, 2:] >= boxes[reads][:, 2:]).all()
    probe = Probe(model, builder.value, image, 2, tries=4)
    for axis, length in ((0, image.shape[2]), (1, image.shape[3])):
        for cut in range(1, length):
            for before in (True, False):
                inside = np.zeros(image.shape[2:], bool)
                band = slice(0, cut) if before else slice(cut, length)
                inside[(band, slice(None)) if axis == 0 else (slice(None), band)] = True
                expected = reads & (boxes[..., axis] < cut if before else boxes[..., axis + 2] > cut)
                found = probe.changed(inside)[0]
                assert not (found & ~expected).any(), f"changed from outside, {(axis, cut, before)}"
                if not builder.jumps:
                    assert not (expected & ~found).all(axis=0)[expected.all(axis=0)].any(), (
                        f"field too large, {(axis, cut, before)}"
                    )


@SETTINGS
@given(random_graphs(), st.data())
def test_changes_stay_inside_the_affected_region_and_fill_it(
    graph: tuple[onnx.ModelProto, Builder], data: st.DataObject
) -> None:
    model, builder = graph
    note(onnx.printer.to_text(model))
    image = image_of(model)
    height, width = image.shape[2:]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    box = Boxes(np.array([[0, 0, top, left]]), np.array([[1, image.shape[1], bottom, right]]))
    shapes = shapes_of(model, image)
    regions = Propagation(model, source="x", shapes=shapes).forward(box)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    for name, region in regions.items():
        if name == "x":
            continue
        found = Probe(model, name, image, 2, tries=4).changed(inside)
        predicted = np.zeros(found.shape, bool)
        if not region.empty[0]:
            predicted[tuple(slice(int(a), int(b)) for a, b in zip(region.first[0], region.end[0], strict=True))] = True
        assert not (found & ~predicted).any(), name
        if not builder.jumps:
            # Where a MaxPool or a cancelled border hides the rim for every channel, four draws do not.
            assert found.any() == predicted.any(), name
            if predicted.any():
                first, end = changed_hull(found)
                # A value of five axes stands between a channel shuffle's two reshapes: its channels are two axes.
                start = 2 if found.ndim == 4 else -2
                predicted_first, predicted_end = region.first[0].tolist(), region.end[0].tolist()
                assert (first[start:], end[start:]) == (predicted_first[start:], predicted_end[start:]), name


@SETTINGS
@given(random_graphs(), st.data())
def test_forward_and_backward_are_each_others_inverse(
    graph: tuple[onnx.ModelProto, Builder], data: st.DataObject
) -> None:
    """A pixel reaches a unit exactly if the unit's field holds the pixel, up to holes inside a hull."""
    model, builder = graph
    note(onnx.printer.to_text(model))
    image = image_of(model)
    shapes = shapes_of(model, image)
    propagation = Propagation(model, source="x", shapes=shapes)
    target = builder.value
    unit = [data.draw(st.integers(0, length - 1)) for length in shapes[target]]
    seen = propagation.backward(target, Boxes(np.array([unit]), np.array([unit]) + 1)).boxes
    pixels = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij"), axis=-1).reshape(-1, 4)
    reached = propagation.forward(Boxes(pixels, pixels + 1))[target]
    hit = ((reached.first <= unit) & (reached.end > unit)).all(axis=1)
    if seen.empty[0]:
        if not builder.jumps:
            assert not hit.any()
        return
    held = ((pixels >= seen.first[0]) & (pixels < seen.end[0])).all(axis=1)
    assert hit[held].any()
    corners = [seen.first[0], seen.end[0] - 1]
    for axis in () if builder.jumps else (2, 3):
        for corner in corners:
            edge = held & (pixels[:, axis] == corner[axis])
            assert hit[edge].any(), (axis, corner)
    if not builder.jumps and not builder.uneven:
        assert not hit[~held].any()


def test_a_global_operator_makes_what_follows_full_and_a_gate_too() -> None:
    """Squeeze and excitation: the gate is global, so the gated map is full, while the map before it is not."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["a"], ["squeezed"]),
        helper.make_node("Sigmoid", ["squeezed"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["gated"]),
    ]
    w = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 10, 9])
    graph = helper.make_graph(nodes, "gate", [x], [helper.make_value_info("gated", onnx.TypeProto())], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shapes = {"x": (1, 3, 10, 9), "a": (1, 2, 10, 9), "squeezed": (1, 2, 1, 1), "gate": (1, 2, 1, 1)}
    shapes["gated"] = shapes["a"]
    box = Boxes(np.array([[0, 0, 4, 0]]), np.array([[1, 3, 6, 2]]))
    regions = Propagation(model, source="x", shapes=shapes).forward(box)
    assert regions["a"].first.tolist() == [[0, 0, 3, 0]]
    assert regions["a"].end.tolist() == [[1, 2, 7, 3]]
    assert (regions["gated"].first.tolist(), regions["gated"].end.tolist()) == ([[0, 0, 0, 0]], [[1, 2, 10, 9]])


@pytest.mark.parametrize(("name", "conv"), [("resnet50", 30), ("inception_v1", 30)])
def test_affected_regions_of_an_architecture(name: str, conv: int) -> None:
    from region_probes import densely_random

    model = densely_random(load_light(name), seed=0)
    image = image_of(model)
    shapes = shapes_of(model, image)
    source = real_input(model).name
    box = Boxes(np.array([[0, 0, 80, 150]]), np.array([[1, 3, 112, 182]]))
    regions = Propagation(model, source=source, shapes=shapes).forward(box)
    inside = np.zeros(image.shape[2:], bool)
    inside[80:112, 150:182] = True
    convolutions = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    for value in (convolutions[2], convolutions[conv // 2], convolutions[conv]):
        first, end = changed_hull(Probe(model, value, image, 2).changed(inside))
        assert (first, end) == (regions[value].first[0].tolist(), regions[value].end[0].tolist())


def blocked_graph() -> onnx.ModelProto:
    """What onnxruntime turns into its blocked layout, without operators that hide a change from four random draws."""
    random = np.random.default_rng(0)
    node = helper.make_node
    weights: dict[str, np.ndarray] = {}

    def conv(name: str, source: str, *shape: int, **attributes: object) -> onnx.NodeProto:
        weights[f"{name} w"] = random.normal(size=shape).astype(np.float32)
        return node("Conv", [source, f"{name} w"], [name], **attributes)

    nodes = [
        conv("a", "x", 32, 3, 3, 3, pads=[1, 0, 1, 0], strides=[2, 1]), node("LeakyRelu", ["a"], ["a r"], alpha=0.5),
        conv("b", "a r", 32, 1, 5, 3, pads=[2, 1, 2, 1], group=32), conv("c", "b", 32, 32, 1, 1),
        node("Add", ["c", "a r"], ["d"]), node("AveragePool", ["d"], ["e"], kernel_shape=[3, 2], strides=[2, 2]),
        conv("f", "e", 32, 32, 1, 1), conv("g", "e", 32, 32, 3, 3, pads=[1, 1, 1, 1]),
        node("Concat", ["f", "g"], ["h"], axis=1), node("Transpose", ["h"], ["i"], perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    return build(
        nodes, inputs={"x": ("float", ["n", 3, 41, 36])}, outputs={"i": ("float", ["n", 10, 17, 64])}, weights=weights
    )


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (20, 11, 23, 12), (40, 35, 41, 36), (7, 0, 30, 36)])
def test_regions_in_the_blocked_layout(box: tuple[int, int, int, int]) -> None:
    """The graph that onnxruntime runs, not the one in the file: nothing outside changes, and the hull is the region."""
    random = np.random.default_rng(1)
    image = random.normal(size=(3, 41, 36)).astype(np.float32)
    case = Case(blocked_graph(), "x", ("i",), image, image, region_patches((41, 36), [box]))
    graph = case.optimized()
    facts = graph.facts
    if facts.block:
        assert {node.domain for node in facts.proto.graph.node} >= {"com.microsoft.nchwc"}
    session = open_session(
        expose_every_value(facts.proto), where="a test", device=CPU, threads=1, optimize=False, weights=graph.weights
    )
    names = [name for node in facts.proto.graph.node for name in node.output]
    top, left, bottom, right = box
    question = Boxes(np.array([[0, 0, top, left]]), np.array([[1, 3, bottom, right]]))
    propagation = Propagation(facts.proto, source="x", shapes=facts.shapes)
    regions = propagation.forward(question)
    clean = session.run(names, {"x": image[np.newaxis]}, None)
    changed = [np.zeros(array.shape, bool) for array in clean]
    for _ in range(4):
        other = image.copy()
        other[:, top:bottom, left:right] = 1000 * random.normal(size=(3, bottom - top, right - left))
        found = session.run(names, {"x": other[np.newaxis]}, None)
        changed = [seen | (array != before) for seen, array, before in zip(changed, found, clean, strict=True)]
    compared = 0
    for name, seen in zip(names, changed, strict=True):
        if name not in propagation.dependent:
            continue
        layout = Layout.LAST if name == "i" else Layout.BLOCKED
        places = seen
        if layout is Layout.BLOCKED and facts.block:
            # Numpy is told (n, C, H, W); what lies in memory is (n, C / block, H, W, block).
            places = seen.reshape(1, seen.shape[1] // facts.block, *seen.shape[2:], facts.block).any(axis=-1)
        assert not regions[name].empty[0]
        first, end = changed_hull(places)
        for axis in layout.axes:
            assert first[axis] == regions[name].first[0, axis], name
            assert end[axis] == regions[name].end[0, axis], name
        compared += 1
    assert compared >= 6
