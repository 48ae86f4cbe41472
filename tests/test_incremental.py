"""Windows instead of maps: the same numbers as whole runs, bit for bit, on random graphs and on real networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

import onnxviz as ov
from graphs import build
from incremental_runs import Case, case_of, relative
from light_models import light_models
from onnxviz.graph.incremental.plan import Plan
from onnxviz.graph.incremental.shuffles import gather_shuffled_channels
from onnxviz.methods.patches import Patches, grid_patches, region_patches
from onnxviz.runtime.optimized import blocked_channels
from random_graphs import Builder, random_graphs
from zoo_models import ZOO

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
PHOTO = Path(__file__).parents[1] / "models" / "photos" / "chelsea.jpg"
BITWISE = 0.0 if blocked_channels() else 1e-5
"""Elsewhere convolutions are matrix products, whose order of additions depends on the size of the map."""


def view_of(size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.open(PHOTO).convert("RGB").resize((size[1], size[0])))


def spread_positions(patches: Patches, count: int) -> np.ndarray:
    """Some positions, the corners among them."""
    return np.unique(np.linspace(0, len(patches.flat) - 1, count).astype(np.int64))


# -- random graphs ----------------------------------------------------------------------------------------------------


@SETTINGS
@given(random_graphs(), st.data())
def test_random_graphs_give_the_numbers_of_whole_runs(
    graph: tuple[onnx.ModelProto, Builder], data: st.DataObject
) -> None:
    model, _ = graph
    note(onnx.printer.to_text(model))
    value = model.graph.input[0]
    shape = [side.dim_value for side in value.type.tensor_type.shape.dim]
    value.type.tensor_type.shape.dim[0].dim_param = "n"
    height, width = shape[2:]
    window = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    stride = data.draw(st.tuples(st.integers(1, height), st.integers(1, width)))
    edge = data.draw(st.sampled_from(["clip", "shift", "drop"]))
    random = np.random.default_rng(7)
    image, fill = (random.normal(size=shape[1:]).astype(np.float32) for _ in range(2))
    case = Case(
        model, "x", (model.graph.output[0].name,), image, fill, grid_patches((height, width), window, stride, edge)
    )
    positions = np.arange(len(case.patches.flat))
    portable = data.draw(st.booleans())
    # A Resize to a stated shape holds a batch of one, and onnxruntime refuses a few of its own fusions.
    assume(takes_two(case))
    plan = case.plan(case.optimized(portable=portable))
    assume(plan.pays)
    wanted = case.plain(positions, batch=1)
    found, clean, _ = case.incremental(positions, portable=portable)
    for name in case.names:
        assert relative(found[name], wanted[name]) <= 1e-5
        assert clean[name].shape == found[name][:1].shape


def takes_two(case: Case) -> bool:
    """Whether the graph runs, and on two images at once."""
    try:
        two = replace(case, patches=region_patches(case.image.shape[1:], [[0, 0, 1, 1]] * 2)).plain(np.arange(2))
    except Exception:
        return False
    return all(len(array) == 2 for array in two.values())


def wide_graph(random: np.random.Generator) -> onnx.ModelProto:
    """All that runs on windows in the blocked layout: convolutions (dense, grouped, depthwise), pools, sums, joins."""
    node = helper.make_node
    weights: dict[str, np.ndarray] = {}

    def conv(name: str, source: str, *shape: int, **attributes: object) -> onnx.NodeProto:
        weights[f"{name} w"] = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        weights[f"{name} b"] = random.normal(size=shape[0]).astype(np.float32) / 4
        return node("Conv", [source, f"{name} w", f"{name} b"], [name], **attributes)

    nodes = [
        conv("a", "x", 32, 3, 5, 5, pads=[2, 2, 2, 2], strides=[2, 2]), node("Relu", ["a"], ["a r"]),
        node("MaxPool", ["a r"], ["b"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        conv("c", "b", 32, 32, 1, 1), node("Relu", ["c"], ["c r"]),
        conv("d", "c r", 32, 1, 3, 3, pads=[1, 1, 1, 1], group=32), node("Clip", ["d", "zero", "six"], ["d r"]),
        conv("e", "d r", 32, 32, 1, 1), node("Add", ["e", "b"], ["f"]),
        node("AveragePool", ["f"], ["g"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("AveragePool", ["f"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        conv("i", "f", 32, 32, 3, 3, auto_pad="SAME_LOWER"), conv("j", "f", 32, 32, 3, 3, dilations=[2, 2], pads=[2] * 4),
        node("Concat", ["g", "h", "i", "j"], ["k"], axis=1),
        node("LRN", ["k"], ["l"], size=5), conv("m", "l", 64, 64, 3, 3, group=2, pads=[0, 1, 2, 1], strides=[1, 2]),
        node("AveragePool", ["m"], ["o"], kernel_shape=[3, 3], pads=[1, 1, 0, 0], strides=[2, 2]),
        node("GlobalAveragePool", ["o"], ["p"]), node("Flatten", ["p"], ["y"]),
    ]  # fmt: skip
    weights |= {"zero": np.array(0, np.float32), "six": np.array(1.5, np.float32)}
    return build(nodes, inputs={"x": ("float", ["n", 3, 67, 53])}, outputs={"y": ("float", ["n", 64])}, weights=weights)


@pytest.mark.parametrize("window", [(9, 9), (1, 1), (20, 7), (67, 5)])
@pytest.mark.parametrize("stride", [(8, 8), (13, 5)])
@pytest.mark.parametrize("portable", [False, True], ids=["blocked", "portable"])
def test_every_operator_that_runs_on_windows(window: tuple[int, int], stride: tuple[int, int], portable: bool) -> None:
    random = np.random.default_rng(3)
    image, fill = (random.normal(size=(3, 67, 53)).astype(np.float32) for _ in range(2))
    names = ("y", "k", "m", "b")
    case = Case(wide_graph(random), "x", names, image, fill, grid_patches((67, 53), window, stride, "clip"))
    positions = np.arange(len(case.patches.flat))
    found, clean, plan = case.incremental(positions, portable=portable)
    wanted = case.plain(positions)
    empty = replace(case, patches=Patches(np.zeros((1, 1, 4), np.int64))).plain(np.array([0]))
    for name in names:
        assert relative(found[name], wanted[name]) <= (1e-5 if portable else BITWISE), name
        assert relative(clean[name], empty[name]) <= (1e-5 if portable else BITWISE), name
        assert np.ptp(wanted[name], axis=0).max() > 1e-3
    assert len(plan.windows.nodes) >= 8


def small_case(
    nodes: list[onnx.NodeProto], shape: list[int], weights: dict[str, np.ndarray], **options: object
) -> Case:
    """A graph from ``x`` to ``y`` on a random image, a patch of one pixel at odd places."""
    model = build(
        nodes, inputs={"x": ("float", ["n", *shape])}, outputs={"y": ("float", None)}, weights=weights,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    random = np.random.default_rng(1)
    image, fill = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    layout = "NCHW" if shape[0] == 3 else "NHWC"
    size = (shape[1], shape[2]) if layout == "NCHW" else (shape[0], shape[1])
    places = np.array([[p, q] for p in range(1, size[0] - 5, 3) for q in range(1, size[1] - 5, 3)])
    return Case(
        model, "x", ("y",), image, fill, region_patches(size, np.concatenate([places, places + 1], axis=1)), layout
    )


def dense(*shape: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


NODE = helper.make_node
ODD_GRAPHS = {
    "padding behind the map only": lambda: small_case(
        [
            NODE("Conv", ["x", "a"], ["b"]), NODE("Relu", ["b"], ["c"]),
            NODE("AveragePool", ["c"], ["d"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
            NODE("Conv", ["d", "e"], ["f"], strides=[3, 3]), NODE("Relu", ["f"], ["g"]), NODE("GlobalAveragePool", ["g"], ["y"]),
        ], [3, 66, 66], {"a": dense(16, 3, 1, 1), "e": dense(16, 16, 3, 3, seed=1)},
    ),
    "a start before the map": lambda: small_case(
        [NODE("Conv", ["x", "a"], ["b"]), NODE("Slice", ["b", "s", "e", "r"], ["c"]), NODE("GlobalMaxPool", ["c"], ["y"])],
        [3, 40, 30], {"a": dense(16, 3, 1, 1), "s": np.array([-100]), "e": np.array([25]), "r": np.array([2])},
    ),
    "scales for each row": lambda: small_case(
        [
            NODE("Mul", ["x", "two"], ["b"]), NODE("QuantizeLinear", ["b", "s", "z"], ["q"], axis=1),
            NODE("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1), NODE("ReduceMean", ["d"], ["y"], axes=[1, 2], keepdims=0),
        ], [20, 24, 3],
        {"two": np.array(2, np.float32), "s": np.linspace(0.1, 0.3, 20).astype(np.float32), "z": np.zeros(20, np.uint8)},
    ),
    "a scale for each place": lambda: small_case(
        [
            NODE("Mul", ["x", "two"], ["b"]), NODE("LayerNormalization", ["b", "s"], ["c"], axis=-1),
            NODE("Mul", ["c", "w"], ["d"]), NODE("ReduceMean", ["d"], ["y"], axes=[1, 2], keepdims=0),
        ], [20, 24, 3], {"two": np.array(2, np.float32), "s": dense(1, 20, 24, 3) + 1, "w": np.ones(3, np.float32)},
    ),
    "a sum with a constant map": lambda: small_case(
        [
            NODE("FusedConv", ["x", "a", "b", "z"], ["c"], domain="com.microsoft", activation="Relu", pads=[1, 1, 1, 1]),
            NODE("GlobalAveragePool", ["c"], ["y"]),
        ], [3, 20, 24], {"a": dense(16, 3, 3, 3), "b": dense(16), "z": dense(1, 16, 20, 24)}, domains=["com.microsoft"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("portable", [False, True], ids=["blocked", "portable"])
@pytest.mark.parametrize("name", ODD_GRAPHS)
def test_operators_with_unusual_parameters(name: str, portable: bool) -> None:
    """Each once gave wrong numbers, or stages that did not run; those that see whole maps now are as right as can be."""
    case = ODD_GRAPHS[name]()
    positions = np.arange(len(case.patches.flat))
    plan = case.plan(case.optimized(portable=portable))
    if not plan.pays:
        assert "no operator" in plan.why or "integer arithmetic" in plan.why
        return
    wanted = case.plain(positions, batch=len(positions) if name == "a sum with a constant map" else 4)
    found, _, _ = case.incremental(positions, portable=portable)
    assert relative(found["y"], wanted["y"]) <= 1e-5


def test_sizes_of_windows_are_not_sizes_of_maps() -> None:
    case = small_case(
        [
            NODE("Conv", ["x", "a"], ["b"]), NODE("Size", ["b"], ["n"]), NODE("Cast", ["n"], ["f"], to=1),
            NODE("Div", ["b", "f"], ["y"]),
        ], [3, 20, 24], {"a": dense(16, 3, 1, 1)},
    )  # fmt: skip
    assert "number of elements" in case.plan(case.optimized()).why


def test_values_that_are_no_arrays_stay_whole() -> None:
    case = small_case(
        [
            NODE("Conv", ["x", "a"], ["b"], pads=[1, 1, 1, 1]), NODE("Relu", ["b"], ["c"]), NODE("Conv", ["c", "d"], ["e"]),
            NODE("GlobalAveragePool", ["e"], ["p"]), NODE("SplitToSequence", ["p", "sizes"], ["s"], axis=1),
            NODE("SequenceAt", ["s", "first"], ["y"]),
        ], [3, 40, 44],
        {"a": dense(32, 3, 3, 3), "d": dense(32, 32, 3, 3), "sizes": np.array([8, 24]), "first": np.array(0)},
    )  # fmt: skip
    positions = np.arange(len(case.patches.flat))
    found, _, plan = case.incremental(positions)
    assert plan.pays
    assert relative(found["y"], case.plain(positions)["y"]) <= BITWISE


def test_the_size_of_batches_and_the_number_of_workers_change_nothing() -> None:
    random = np.random.default_rng(3)
    image, fill = (random.normal(size=(3, 67, 53)).astype(np.float32) for _ in range(2))
    case = Case(wide_graph(random), "x", ("y",), image, fill, grid_patches((67, 53), (11, 8), (7, 6), "clip"))
    positions = np.arange(len(case.patches.flat))

    def changed(batch: int, tail_batch: int):  # type: ignore[no-untyped-def]
        return lambda plan: replace(plan, batch=batch, tail_batch=tail_batch)

    wanted, _, _ = case.incremental(positions, workers=1)
    for workers, batch, tail_batch in ((1, 1, 1), (2, 3, 5), (3, 8, 64), (2, 16, 2)):
        found, _, _ = case.incremental(positions, workers=workers, change=changed(batch, tail_batch))
        np.testing.assert_array_equal(found["y"], wanted["y"])


def test_channels_last_networks_of_tokens_run_on_windows() -> None:
    """ConvNeXt's block (Liu et al. 2022): depthwise, then channels last with LayerNormalization and matrix products."""
    random = np.random.default_rng(5)

    def draw(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)

    node = helper.make_node
    model = build(
        [
            node("Conv", ["x", "stem"], ["s"], strides=[4, 4]),
            node("Conv", ["s", "deep"], ["d"], pads=[3, 3, 3, 3], group=16), node("Transpose", ["d"], ["t"], perm=[0, 2, 3, 1]),
            node("LayerNormalization", ["t", "scale", "bias"], ["n"], axis=-1), node("MatMul", ["n", "wide"], ["w"]),
            node("Add", ["w", "wide bias"], ["w b"]), node("Sigmoid", ["w b"], ["g"]), node("MatMul", ["g", "thin"], ["u"]),
            node("Mul", ["u", "scale"], ["v"]), node("Transpose", ["v"], ["z"], perm=[0, 3, 1, 2]), node("Add", ["z", "s"], ["r"]),
            node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
        ],
        inputs={"x": ("float", ["n", 3, 96, 64])}, outputs={"y": ("float", ["n", 16])},
        weights={
            "stem": draw(16, 3, 4, 4), "deep": draw(16, 1, 7, 7), "scale": draw(16) + 1, "bias": draw(16),
            "wide": draw(16, 64), "wide bias": draw(64), "thin": draw(64, 16),
        },
    )  # fmt: skip
    image, fill = (random.normal(size=(3, 96, 64)).astype(np.float32) for _ in range(2))
    case = Case(model, "x", ("y",), image, fill, grid_patches((96, 64), (9, 9), (11, 10), "clip"))
    positions = np.arange(len(case.patches.flat))
    found, _, plan = case.incremental(positions)
    kinds = {plan.maps.nodes[number].op_type for number in plan.windows.nodes}
    assert {"LayerNormalization", "MatMul", "Transpose"} <= kinds
    assert relative(found["y"], case.plain(positions)["y"]) <= 1e-5


def test_shuffled_channels_become_a_lookup() -> None:
    node = helper.make_node
    for perm, split, shape in (
        ([0, 2, 1, 3, 4], [0, 3, 4, 5, 7], [1, 12, 5, 7]), ([0, 1, 2, 4, 3], [0, 5, 7, 3, 4], [1, 5, 7, 12]),
    ):  # fmt: skip
        model = build(
            [
                node("Reshape", ["x", "split"], ["a"]), node("Transpose", ["a"], ["b"], perm=perm),
                node("Reshape", ["b", "joined"], ["y"]),
            ],
            inputs={"x": ("float", shape)}, outputs={"y": ("float", shape)},
            weights={"split": np.array(split), "joined": np.array([0, *shape[1:]])},
        )  # fmt: skip
        of_split = (1, *split[1:])
        shapes = {"x": tuple(shape), "a": of_split, "b": tuple(of_split[axis] for axis in perm), "y": tuple(shape)}
        rewritten = gather_shuffled_channels(model, shapes, keep=("y",))
        assert [entry.op_type for entry in rewritten.graph.node] == ["Gather"]
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        results = [onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0] for proto in (model, rewritten)]
        np.testing.assert_array_equal(*results)
        # A value that somebody wants stays.
        assert len(gather_shuffled_channels(model, shapes, keep=("b",)).graph.node) == 3


# -- real networks ----------------------------------------------------------------------------------------------------


GRIDS = {
    "overlapping": lambda h, w: grid_patches((h, w), (h // 7, w // 7), (h // 14, w // 14), "clip"),
    "apart, odd, oblong": lambda h, w: grid_patches((h, w), (3, 5), (h // 4 + 3, w // 5 + 1), "clip"),
    "boxes of all sizes": lambda h, w: region_patches((h, w), _boxes(h, w)),
}


def _boxes(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(0)
    first = random.integers(0, [height - 4, width - 4], (9, 2))
    size = random.integers(1, [height // 3, width // 3], (9, 2))
    return np.concatenate([first, np.minimum(first + size, [height, width])], axis=1)


def check(case: Case, *, portable: bool, count: int, bound: float) -> Plan:
    positions = spread_positions(case.patches, count)
    found, clean, plan = case.incremental(positions, portable=portable)
    wanted = case.plain(positions)
    for name in case.names:
        assert relative(found[name], wanted[name]) <= bound, name
        # Numbers that do not vary would prove nothing.
        assert np.ptp(wanted[name].astype(np.float64), axis=0).max() >= 1e-3 * np.abs(wanted[name]).max(), name
        assert clean[name].dtype == wanted[name].dtype
    return plan


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [entry.name for entry in ZOO])
def test_models_of_the_zoo(name: str, grid: str, zoo: Path) -> None:
    entry = next(entry for entry in ZOO if entry.name == name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, device="cpu", threads=1)
    size = model.preprocess.size
    names = [str(model.logits_value or model.outputs[0].name)]
    case = case_of(model, names, view_of(size), GRIDS[grid](*size))
    check(case, portable=False, count=8, bound=BITWISE)
    if "qdq" not in name:
        check(case, portable=True, count=4, bound=1e-5)


LIGHT = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return light_models(tmp_path_factory.getbasetemp() / "light")


@pytest.mark.parametrize("name", LIGHT)
def test_light_models(name: str, light: dict[str, Path]) -> None:
    model = ov.load(light[f"light_{name}"], preprocess="caffe", device="cpu", threads=1)
    case = case_of(model, [str(model.logits_value)], view_of((224, 224)), GRIDS["overlapping"](224, 224))
    plan = check(case, portable=False, count=6, bound=BITWISE)
    assert plan.gain > 1.3
    check(case, portable=True, count=3, bound=1e-5)


# -- the planner ------------------------------------------------------------------------------------------------------


def attention_graph() -> onnx.ModelProto:
    """Patches to tokens, and every token looks at every other one: nothing stays where it was."""
    random = np.random.default_rng(0)
    node = helper.make_node
    draw = lambda *shape: (random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)  # noqa: E731
    return build(
        [
            node("Conv", ["x", "embed"], ["e"], strides=[8, 8]), node("Reshape", ["e", "flat"], ["f"]),
            node("Transpose", ["f"], ["t"], perm=[0, 2, 1]), node("Transpose", ["t"], ["k"], perm=[0, 2, 1]),
            node("MatMul", ["t", "k"], ["a"]), node("Softmax", ["a"], ["s"], axis=-1), node("MatMul", ["s", "t"], ["m"]),
            node("MatMul", ["m", "wide"], ["w"]), node("Relu", ["w"], ["r"]), node("MatMul", ["r", "thin"], ["n"]),
            node("ReduceMean", ["n"], ["y"], axes=[1], keepdims=0),
        ],
        inputs={"x": ("float", ["n", 3, 64, 64])}, outputs={"y": ("float", ["n", 32])},
        weights={"embed": draw(32, 3, 8, 8), "flat": np.array([0, 32, 64]), "wide": draw(32, 512), "thin": draw(512, 32)},
    )  # fmt: skip


def gated_graph() -> onnx.ModelProto:
    """Squeeze and excitation (Hu et al. 2018) right at the start: a change anywhere changes all."""
    random = np.random.default_rng(0)
    node = helper.make_node
    draw = lambda *shape: random.normal(size=shape).astype(np.float32) / 5  # noqa: E731
    return build(
        [
            node("GlobalAveragePool", ["x"], ["p"]), node("Sigmoid", ["p"], ["g"]), node("Mul", ["x", "g"], ["m"]),
            node("Conv", ["m", "w"], ["c"], pads=[1, 1, 1, 1]), node("GlobalAveragePool", ["c"], ["y"]),
        ],
        inputs={"x": ("float", ["n", 3, 64, 64])}, outputs={"y": ("float", ["n", 16, 1, 1])}, weights={"w": draw(16, 3, 3, 3)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("graph", "why"),
    [(attention_graph(), "would save too little"), (gated_graph(), "no operator at the start")],
    ids=["attention", "gate"],
)
def test_networks_without_locality_take_the_plain_way(graph: onnx.ModelProto, why: str) -> None:
    image = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    case = Case(graph, "x", ("y",), image, image * 0, grid_patches((64, 64), (9, 9), (8, 8), "clip"))
    plan = case.plan(case.optimized(), least_gain=1.1)
    assert not plan.pays
    assert why in plan.why


def test_large_patches_and_little_memory_take_the_plain_way() -> None:
    random = np.random.default_rng(3)
    image = random.normal(size=(3, 67, 53)).astype(np.float32)
    small = Case(wide_graph(random), "x", ("y",), image, image * 0, grid_patches((67, 53), (4, 4), (4, 4), "clip"))
    graph = small.optimized()
    plan = small.plan(graph)
    assert plan.pays
    assert 1 < plan.mac_ratio <= plan.ideal_mac_ratio
    large = replace(small, patches=grid_patches((67, 53), (60, 50), (1, 1), "clip"))
    refused = large.plan(graph, least_gain=1.1)
    assert not refused.pays
    assert "would save too little" in refused.why
    less = small.plan(graph, memory=plan.memory // 2)
    assert less.pays
    assert less.memory <= plan.memory // 2
    assert (less.batch, less.tail_batch) < (plan.batch, plan.tail_batch)
    none = small.plan(graph, memory=1000)
    assert not none.pays
    assert "of 1,000 allowed" in none.why


def test_a_quantised_graph_is_not_cut_where_stages_are_optimised_again(zoo: Path) -> None:
    entry = next(entry for entry in ZOO if "qdq" in entry.name)
    model = ov.load(entry.path(zoo), preprocess=entry.preprocess, device="cpu", threads=1)
    size = model.preprocess.size
    case = case_of(model, [model.outputs[0].name], view_of(size), GRIDS["overlapping"](*size))
    assert "integer arithmetic" in case.plan(case.optimized(portable=True)).why
    assert case.plan(case.optimized()).pays


def test_finer_grids_and_smaller_patches_save_more() -> None:
    random = np.random.default_rng(3)
    image = random.normal(size=(3, 67, 53)).astype(np.float32)
    case = Case(wide_graph(random), "x", ("y",), image, image * 0, grid_patches((67, 53), (9, 9), (8, 8), "clip"))
    graph = case.optimized()
    ratios = [
        replace(case, patches=grid_patches((67, 53), (side, side), (8, 8), "clip")).plan(graph).ideal_mac_ratio
        for side in (3, 9, 27)
    ]
    assert ratios == sorted(ratios, reverse=True)
