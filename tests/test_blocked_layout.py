"""Models that onnxruntime saved with maps in its blocked layout: what can be read is right, the rest is refused by name."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import onnxviz as ov
from graphs import build, save
from onnxviz.cli import main
from onnxviz.errors import InputError, UnsupportedOperatorError, ValueNotFoundError
from onnxviz.graph.blocked import BLOCKED_DOMAIN, BLOCKED_KIND, blocked_values
from onnxviz.graph.landmarks import find_coarsest_map, find_feature_value
from onnxviz.graph.layout import channel_axes
from onnxviz.graph.loading import read_model
from onnxviz.graph.regions import receptive_field
from onnxviz.graph.values import list_values
from onnxviz.graph.weights import first_convolution, list_convolutions
from onnxviz.inputs.images import ImageSet
from onnxviz.report.examination import Examination, Options
from onnxviz.report.section import Section, SectionSkipped
from onnxviz.report.sections import SECTIONS
from onnxviz.results import ActivationMap
from onnxviz.runtime.model import Model

node = helper.make_node
nchwc = functools.partial(helper.make_node, domain=BLOCKED_DOMAIN)

SIDE = 16
PICTURES = np.random.default_rng(5).integers(0, 256, (6, SIDE, SIDE, 3), dtype=np.uint8)
NEXT_STEP = "ORT_ENABLE_EXTENDED"


# -- models -----------------------------------------------------------------------------------------------------------


def network(*nodes: onnx.NodeProto, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A classifier of photographs that ends in ``prob``; weights by shape."""
    random = np.random.default_rng(1)
    return build(
        [*nodes, node("Softmax", ["logits"], ["prob"])],
        inputs={"image": ("float", ["n", 3, SIDE, SIDE])}, outputs={"prob": ("float", ["n", 5])},
        weights={
            name: np.array(shape, np.int64) if name == "shape" else
            (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
            for name, shape in weights.items()
        },
    )  # fmt: skip


def hidden() -> onnx.ModelProto:
    """All maps come in blocks, those of plain operators too; only what is pooled is brought back."""
    return network(
        node("Conv", ["image", "a"], ["conv"], pads=[1, 1, 1, 1]), node("Relu", ["conv"], ["relu"]),
        node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pool", "b"], ["deep"], pads=[1, 1, 1, 1]), node("Add", ["deep", "pool"], ["sum"]),
        node("Relu", ["sum"], ["positive"]), node("Sigmoid", ["positive"], ["gate"]),
        node("Concat", ["positive", "gate"], ["joined"], axis=1), node("GlobalAveragePool", ["joined"], ["means"]),
        node("Flatten", ["means"], ["features"]), node("Gemm", ["features", "head"], ["logits"], transB=1),
        a=(16, 3, 3, 3), b=(16, 16, 3, 3), head=(5, 32),
    )  # fmt: skip


def mixed() -> onnx.ModelProto:
    """Maps in blocks, of which the last is filled up, and maps outside them: a convolution in groups, and what it reads."""
    return network(
        node("Conv", ["image", "a"], ["conv"], pads=[1, 1, 1, 1]), node("Relu", ["conv"], ["relu"]),
        node("Conv", ["relu", "b"], ["grouped"], group=4, strides=[2, 2], kernel_shape=[3, 3]),
        node("Conv", ["grouped", "c"], ["deep"], pads=[1, 1, 1, 1]), node("Relu", ["deep"], ["last"]),
        node("ReduceMean", ["last"], ["features"], axes=[2, 3], keepdims=0),
        node("Gemm", ["features", "head"], ["logits"], transB=1),
        a=(24, 3, 3, 3), b=(24, 6, 3, 3), c=(20, 24, 3, 3), head=(5, 20),
    )  # fmt: skip


def channels_last() -> onnx.ModelProto:
    """Maps that are brought back with their channels last."""
    return network(
        node("Conv", ["image", "a"], ["conv"], strides=[2, 2], kernel_shape=[3, 3]), node("Relu", ["conv"], ["relu"]),
        node("Transpose", ["relu"], ["turned"], perm=[0, 2, 3, 1]), node("MatMul", ["turned", "b"], ["mixed"]),
        node("ReduceMean", ["mixed"], ["logits"], axes=[1, 2], keepdims=0),
        a=(24, 3, 3, 3), b=(24, 5),
    )  # fmt: skip


def squeezed() -> onnx.ModelProto:
    """A last convolution that names classes: what it reads is the feature value."""
    return network(
        node("Conv", ["image", "a"], ["conv"], pads=[1, 1, 1, 1]), node("Relu", ["conv"], ["relu"]),
        node("Conv", ["relu", "b"], ["classes"]), node("GlobalAveragePool", ["classes"], ["means"]),
        node("Flatten", ["means"], ["logits"]), a=(24, 3, 3, 3), b=(5, 24, 1, 1),
    )  # fmt: skip


NETWORKS = (hidden, mixed, channels_last, squeezed)


def save_optimized(path: Path, to: Path, level: onnxruntime.GraphOptimizationLevel) -> onnx.ModelProto:
    """Let onnxruntime write down what it makes of a model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(to)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.load(to)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Model, Model]]:
    """By network: as it was, and as onnxruntime saved it."""
    folder = tmp_path_factory.mktemp("blocked")
    found = {}
    for make in NETWORKS:
        path, saved = save(make(), folder / f"{make.__name__}.onnx"), folder / f"{make.__name__}-saved.onnx"
        proto = save_optimized(path, saved, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        if BLOCKED_DOMAIN not in {each.domain for each in proto.graph.node}:
            pytest.skip("onnxruntime has no blocked layout on this processor")
        found[make.__name__] = (
            ov.load(path, device="cpu", preprocess="unit"), ov.load(saved, device="cpu", preprocess="unit"),
        )  # fmt: skip
    return found


def pictures(model: Model) -> ImageSet:
    return ov.load_images(PICTURES, model)


def a_blocked_value(model: Model) -> str:
    """The output of the last convolution in blocks."""
    return next(
        value.name
        for value in reversed(model.values())
        if value.op_type == "Conv" and value.name in model.blocked_values
    )


# -- which values -----------------------------------------------------------------------------------------------------


def by_hand() -> onnx.ModelProto:
    then = helper.make_graph(
        [node("Neg", ["first"], ["negative"])], "then", [], [helper.make_tensor_value_info("negative", 1, None)]
    )
    other = helper.make_graph(
        [node("Identity", ["image"], ["copied"])], "else", [], [helper.make_tensor_value_info("copied", 1, None)]
    )
    return build(
        [
            node("Relu", ["image"], ["rectified"]), nchwc("ReorderInput", ["rectified"], ["entered"]),
            nchwc("Conv", ["entered", "w"], ["first"], pads=[1, 1, 1, 1]), node("Sigmoid", ["first"], ["gate"]),
            node("Mul", ["first", "gate"], ["swish"]), node("Concat", ["swish", "entered"], ["joined"], axis=1),
            nchwc("MaxPool", ["joined"], ["pool"], kernel_shape=[2, 2]), nchwc("Upsample", ["pool"], ["upsampled"]),
            node("Shape", ["pool"], ["sides"]), node("If", ["yes"], ["either"], then_branch=then, else_branch=other),
            node("GlobalMaxPool", ["joined"], ["misread"]),
            nchwc("ReorderOutput", ["pool"], ["back"], channels=32), nchwc("AveragePool", ["back"], ["again"]),
            nchwc("ReorderOutput", ["again"], ["out"], channels=32, channels_last=1), node("Relu", ["back"], ["relu"]),
        ],
        inputs={"image": ("float", [1, 16, 8, 8])}, outputs={"out": ("float", None), "relu": ("float", None)},
        weights={"w": np.zeros((16, 16, 3, 3), np.float32), "yes": np.array(True)}, domains=[BLOCKED_DOMAIN],
    )  # fmt: skip


BY_HAND = frozenset(
    {"entered", "first", "gate", "swish", "joined", "pool", "upsampled", "either", "misread", "again"}
)  # fmt: skip


def test_values_are_blocked_until_they_are_brought_back() -> None:
    assert blocked_values(by_hand()) == BY_HAND
    kinds = {value.name: value.kind for value in list_values(by_hand())}
    assert {name for name, kind in kinds.items() if kind == BLOCKED_KIND} == BY_HAND
    assert kinds["back"] == kinds["out"] == "copy"
    # The operators of this layout compute in float32 only, which tells the types of what is computed from them.
    assert {value.dtype for value in list_values(by_hand()) if value.name not in ("sides", "either")} == {"float32"}
    assert kinds["relu"] == "relu"
    assert find_coarsest_map(by_hand(), "relu", because="a test") is None
    for make in NETWORKS:
        assert not blocked_values(make())


def test_what_is_read_in_blocks_is_no_feature_value() -> None:
    def classifier(*, back: bool) -> onnx.ModelProto:
        nodes = [
            nchwc("Conv", ["image", "w"], ["maps"]), nchwc("ReorderOutput", ["maps"], ["back"], channels=16),
            node("Flatten", ["back" if back else "maps"], ["flat"]), node("MatMul", ["flat", "head"], ["scores"]),
        ]  # fmt: skip
        return build(
            nodes, inputs={"image": ("float", [1, 3, 4, 4])}, outputs={"scores": ("float", [1, 5])},
            weights={"w": np.zeros((16, 3, 4, 4), np.float32), "head": np.zeros((16, 5), np.float32)},
        )  # fmt: skip

    found = find_feature_value(classifier(back=True), "scores")
    assert found is not None
    assert found.value == "flat"
    assert find_feature_value(classifier(back=False), "scores") is None


def test_channels_are_last_where_an_operator_says_so() -> None:
    proto = build(
        [
            nchwc("ReorderOutput", ["x"], ["first"], channels=8),
            nchwc("ReorderOutput", ["x"], ["last"], channels=8, channels_last=1), node("Relu", ["last"], ["relu"]),
            node("QLinearConv", ["last"] * 8, ["codes"], domain="com.microsoft", channels_last=1),
        ],
        inputs={"x": ("float", [1, 8, 4, 4])}, outputs={"relu": ("float", None)},
    )  # fmt: skip
    ranks = dict.fromkeys(("x", "first", "last", "relu", "codes"), 4)
    axes = channel_axes(proto, ranks=ranks, image_input="x", image_layout="NCHW")
    assert axes == {"x": 1, "first": 1, "last": 3, "relu": 3, "codes": 3}


# -- what is right ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", NETWORKS)
def test_values_outside_the_blocks_are_those_of_the_original(
    pairs: dict[str, tuple[Model, Model]], make: Callable[[], onnx.ModelProto]
) -> None:
    original, saved = pairs[make.__name__]
    names = {value.name for value in original.values()}
    common = [name for name in saved.float_values() if name in names]
    assert saved.blocked_values
    assert len(common) > 2
    expected = ov.activations(original, pictures(original), values=common)
    for name, found in ov.activations(saved, pictures(saved), values=common).items():
        np.testing.assert_allclose(found.maps, expected[name].maps, atol=1e-5)
        if name != "image":
            best, before = (
                ov.top_patches(model, pictures(model), value=name, k=3) for model in (saved, original)
            )  # fmt: skip
            np.testing.assert_allclose(best.scores, before.scores, atol=1e-5)
            np.testing.assert_array_equal(best.positions, before.positions)
            # A reorder reads all channels of a block, and is otherwise followed as what it stands for.
            np.testing.assert_array_equal(best.boxes, before.boxes)


@pytest.mark.parametrize("make", NETWORKS)
def test_what_does_not_look_inside_works(
    pairs: dict[str, tuple[Model, Model]], make: Callable[[], onnx.ModelProto]
) -> None:
    original, saved = pairs[make.__name__]
    np.testing.assert_allclose(saved.predict(pictures(saved)), original.predict(pictures(original)), atol=1e-6)
    for explain in (
        lambda model: ov.occlusion(model, PICTURES[0], target=2, window=5, stride=3).importance,
        lambda model: ov.rise(model, PICTURES[0], target=2, masks=32, tolerance=None).map,
    ):
        np.testing.assert_allclose(explain(saved), explain(original), atol=1e-5)


def test_a_cause_can_be_planted(pairs: dict[str, tuple[Model, Model]]) -> None:
    def occluded(model: Model, image: np.ndarray, class_index: int) -> np.ndarray:
        return ov.occlusion(model, image, target=class_index, window=8, stride=4, aggregate="sum").importance

    original, saved = (ov.planted_cause(model, occluded, trials=6, images=PICTURES) for model in pairs["mixed"])
    np.testing.assert_array_equal(saved.hits, original.hits)


def test_features_and_the_last_map_are_found_where_they_can_be_read(pairs: dict[str, tuple[Model, Model]]) -> None:
    original, saved = pairs["mixed"]
    assert saved.feature_value == original.feature_value == "features"
    expected = ov.features(original, pictures(original)).array
    np.testing.assert_allclose(ov.features(saved, pictures(saved)).array, expected, atol=1e-5)
    found, before = (ov.gradcam(model, PICTURES[0], target=1) for model in (saved, original))
    assert isinstance(found, ActivationMap)
    assert isinstance(before, ActivationMap)
    assert found.value == before.value == "last"
    np.testing.assert_allclose(found.map, before.map, atol=1e-5)
    whole, again = pairs["squeezed"]
    assert whole.feature_value == "relu"
    # What the last convolution reads is not to be read, and no other map is taken for it.
    assert again.feature_value is None
    with pytest.raises(ValueNotFoundError, match=f"no feature value was found .*blocked layout.*{NEXT_STEP}"):
        ov.features(again, pictures(again))


# -- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[Model, str], Any]] = {
    "activations": lambda model, name: ov.activations(model, pictures(model), values=name),
    "statistics": lambda model, name: ov.activations(model, pictures(model), values=("features", name), reduce="statistics"),
    "top patches": lambda model, name: ov.top_patches(model, pictures(model), value=name),
    "features": lambda model, name: ov.features(model, pictures(model), value=name),
    "neighbors": lambda model, name: ov.neighbors(model, pictures(model), value=name),
    "gradcam": lambda model, name: ov.gradcam(model, PICTURES[0], value=name),
    "gradcam_plusplus": lambda model, name: ov.gradcam_plusplus(model, PICTURES[0], value=name),
    "feature_visualization": ov.feature_visualization,
    "an element": lambda model, name: ov.occlusion(model, PICTURES[0], target=(name, (0, 1, 1)), window=8),
    "the strongest": lambda model, name: ov.occlusion(model, PICTURES[0], target=f"{name}[strongest]", window=8),
    "a derived element": lambda model, name: ov.saliency(model, PICTURES[0], target=(name, (0, 1, 1))),
    "weighted elements": lambda model, name: ov.gradient(model, model.probe(1)["image"], {name: np.ones(1)}),
    "channel_first": lambda model, name: model.channel_first(name, np.zeros(model.shapes()[name])),
    "receptive_field": lambda model, name: receptive_field(
        model.loaded.proto, name, input_name="image", input_shape=(1, 3, SIDE, SIDE), shapes=model.shapes(),
        layout="NCHW",
    ),
}  # fmt: skip


@pytest.mark.parametrize("asked", REFUSED)
@pytest.mark.parametrize("of_the_standard", [False, True], ids=["convolution", "activation"])
def test_blocked_values_are_refused_by_name(
    pairs: dict[str, tuple[Model, Model]], asked: str, of_the_standard: bool
) -> None:
    _, model = pairs["hidden"]
    name = a_blocked_value(model)
    if of_the_standard:
        name = next(value.name for value in model.values() if value.op_type == "Sigmoid")
    with pytest.raises(InputError) as caught:
        REFUSED[asked](model, name)
    for part in (repr(name), "blocked layout", "Sigmoid" if of_the_standard else "Conv", "allowed:", NEXT_STEP):
        assert part in str(caught.value)


def test_a_glob_leaves_blocked_values_out(pairs: dict[str, tuple[Model, Model]]) -> None:
    _, model = pairs["hidden"]
    assert set(ov.activations(model, pictures(model), values="*")) == {
        "image", "means", "features", "logits", "prob",
    }  # fmt: skip
    with pytest.raises(InputError, match="blocked layout"):
        ov.activations(model, pictures(model), values="reorder*")


def test_the_advice_helps(pairs: dict[str, tuple[Model, Model]], tmp_path: Path) -> None:
    original, _ = pairs["hidden"]
    saved = tmp_path / "extended.onnx"
    assert not blocked_values(
        save_optimized(original.path, saved, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
    )
    model = ov.load(saved, device="cpu", preprocess="unit")
    assert not model.blocked_reason
    found, before = (ov.gradcam(each, PICTURES[0], target=1) for each in (model, original))
    assert isinstance(found, ActivationMap)
    assert isinstance(before, ActivationMap)
    np.testing.assert_allclose(found.map, before.map, atol=1e-5)


def test_a_last_map_in_blocks_is_refused(pairs: dict[str, tuple[Model, Model]]) -> None:
    _, model = pairs["hidden"]
    with pytest.raises(InputError, match="blocked layout"):
        ov.gradcam(model, PICTURES[0], target=1)
    with pytest.raises(UnsupportedOperatorError, match=BLOCKED_DOMAIN):
        ov.saliency(model, PICTURES[0], target=1)


def test_reordered_weights_are_no_filters(pairs: dict[str, tuple[Model, Model]], tmp_path: Path) -> None:
    original, model = pairs["mixed"]
    assert list_convolutions(model.loaded.proto) == ("grouped",)
    assert first_convolution(model.loaded.proto) in model.blocked_values
    # By default, by the name of the convolution, and by that of what stands behind it.
    for value in (None, first_convolution(model.loaded.proto), "relu", "last", a_blocked_value(model)):
        with pytest.raises(InputError, match=f"reordered .*cannot be shown.*{BLOCKED_DOMAIN}.*{NEXT_STEP}"):
            ov.filters(model, value)
    found, before = (ov.filters(each, "grouped") for each in (model, original))
    assert found.groups == 4
    np.testing.assert_array_equal(found.weights, before.weights)
    plain = read_model(save(hidden(), tmp_path / "plain.onnx"))
    assert list_convolutions(plain.proto) == ("conv", "deep")
    assert list_convolutions(pairs["hidden"][1].loaded.proto) == ()


def test_reordered_weights_are_not_shuffled(pairs: dict[str, tuple[Model, Model]]) -> None:
    def edges(_: Model, image: np.ndarray, __: int) -> np.ndarray:
        return image.mean(axis=2)

    with pytest.raises(InputError, match=f"cannot be shuffled.*{NEXT_STEP}"):
        ov.randomization_check(pairs["mixed"][1], edges, PICTURES[0])


# -- reports ----------------------------------------------------------------------------------------------------------


def test_the_report_takes_other_maps(pairs: dict[str, tuple[Model, Model]]) -> None:
    names = {
        name: [value.name for value in Examination(model, None, "", Options()).maps]
        for name, (_, model) in pairs.items()
    }
    assert names == {"hidden": [], "mixed": ["grouped"], "channels_last": ["turned", "mixed"], "squeezed": ["classes"]}


def made(model: Model, name: str) -> Section:
    """One section of an audit by itself."""
    outline = next(outline for outline in SECTIONS if outline.name == name)
    section = outline.empty()
    outline.make(Examination(model, pictures(model), "", Options()), section)
    return section


def test_an_audit_says_what_it_leaves_out(pairs: dict[str, tuple[Model, Model]], tmp_path: Path) -> None:
    _, model = pairs["hidden"]
    (states,) = ov.audit(model, PICTURES, out=tmp_path / "report", occlusion_budget=10**9).sections.values()
    assert not [name for name, state in states.items() if state.startswith("failed")]
    for name in ("model", "predictions", "activations", "occlusion", "neighbors", "embedding"):
        assert states[name] == "made"
    for name in ("filters", "patches"):
        assert states[name].startswith("skipped: no ")
        assert "blocked layout (" in states[name]
        assert NEXT_STEP in states[name]
    for name in ("explanations", "class_pictures", "trust"):
        assert BLOCKED_DOMAIN in states[name]
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("values in onnxruntime&#39;s blocked layout") >= 4  # model, filters, activations, patches


def test_sections_take_what_can_be_read(pairs: dict[str, tuple[Model, Model]]) -> None:
    section = made(pairs["mixed"][1], "filters")
    assert [figure.name for figure in section.figures] == ["deeper"]
    assert section.numbers["deeper"]["value"] == "grouped"
    assert "first" not in section.numbers
    assert section.notes[0].startswith("The first convolution is left out: values in onnxruntime's blocked layout")
    for name in ("neighbors", "embedding"):
        with pytest.raises(SectionSkipped, match=f"no feature value was found .*blocked layout.*{NEXT_STEP}"):
            made(pairs["squeezed"][1], name)


def test_inspect_marks_them(pairs: dict[str, tuple[Model, Model]], capsys: pytest.CaptureFixture[str]) -> None:
    _, model = pairs["hidden"]
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(model.path), "--json", "-"])
    assert left.value.code == 0
    kinds = {value["name"]: value["kind"] for value in json.loads(capsys.readouterr().out)["values"]}
    assert {name for name, kind in kinds.items() if kind == BLOCKED_KIND} == model.blocked_values
