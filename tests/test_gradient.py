"""``gradient`` on whole models: any target, any value to derive by, refusals, and finite differences on real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxviz as ov
from graphs import save
from light_models import light_models
from onnxviz.graph.gradient.presets import DECONVNET, GUIDED_BACKPROPAGATION
from onnxviz.graph.gradient.rule_set import RuleSet
from onnxviz.methods.gradient import derive, gradient
from onnxviz.methods.gradient_coverage import gradient_coverage


def network(path: Path, *, batch: int | str = "n", inputs: Any = None) -> Path:
    """3 channels of 8 x 8, a convolution, ReLU, maxima, a dense layer of 4 classes."""
    random = np.random.default_rng(3)
    weights = {
        "w": random.standard_normal((5, 3, 3, 3)) * 0.3, "b": random.standard_normal(5) * 0.1,
        "d": random.standard_normal((80, 4)) * 0.3, "c": random.standard_normal(4) * 0.1,
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "c"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    return save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def model(tmp_path: Path) -> ov.Model:
    return ov.load(network(tmp_path / "net.onnx"), preprocess="unit")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((11, 3, 8, 8), np.float32)


def by_hand(model: ov.Model, x: np.ndarray, seed: np.ndarray) -> dict[str, np.ndarray]:
    """The network's derivative written out in float64, loops and all."""
    stored = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.loaded.proto.graph.initializer}
    values = {n: a.astype(np.float64) for n, a in model.run(x, ("conv", "relu", "pool", "logits")).items()}
    of_pool = (seed @ stored["d"].T).reshape(values["pool"].shape)
    of_relu = np.zeros_like(values["relu"])
    for n, c, i, j in np.ndindex(*values["pool"].shape):
        window = values["relu"][n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        a, b = np.unravel_index(np.argmax(window), (2, 2))
        of_relu[n, c, 2 * i + a, 2 * j + b] += of_pool[n, c, i, j]
    of_conv = of_relu * (values["conv"] > 0)
    padded, of_weights = np.zeros((len(x), 3, 10, 10)), np.zeros_like(stored["w"])
    around = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, j in np.ndindex(8, 8):
        padded[:, :, i : i + 3, j : j + 3] += np.einsum("no,ockl->nckl", of_conv[:, :, i, j], stored["w"])
        of_weights += np.einsum("no,nckl->ockl", of_conv[:, :, i, j], around[:, :, i : i + 3, j : j + 3])
    return {"image": padded[:, :, 1:9, 1:9], "relu": of_relu, "conv": of_conv, "w": of_weights}


def test_several_values_of_one_run_weights_among_them(model: ov.Model, x: np.ndarray) -> None:
    seed = np.random.default_rng(5).standard_normal((len(x), 4)).astype(np.float32)
    found = derive(model, x, {"logits": seed}, wrt=("image", "relu", "conv", "w"), values=("pool",))
    expected = by_hand(model, x, seed)
    assert set(found.gradients) == set(expected)
    for name, array in found.gradients.items():
        np.testing.assert_allclose(array, expected[name], atol=2e-6 * np.abs(expected[name]).max(), err_msg=name)
    np.testing.assert_array_equal(found.values["pool"], model.run(x, ("pool",))["pool"])


@pytest.mark.parametrize(
    ("inside", "given"),
    [("float16", "float16"), ("float64", "float64"), ("float32", "float16"), ("float32", "float64")],
)
def test_targets_of_every_precision(inside: str, given: str, tmp_path: Path) -> None:
    """``inside`` the network, and of the output that it is cast to."""
    random = np.random.default_rng(5)
    first, second = random.standard_normal((48, 9)) / 5, random.standard_normal((9, 4))
    elements = {name: helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (inside, given)}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["relu"]), helper.make_node("MatMul", ["relu", "second"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["logits"], to=elements[given]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("image", elements[inside], ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", elements[given], ["n", 4])],
        [numpy_helper.from_array(w.astype(inside), name) for name, w in (("first", first), ("second", second))],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = ov.load(save(proto, tmp_path / "net.onnx"), device="cpu")
    x = random.standard_normal((3, 3, 4, 4)).astype(inside)
    weights = random.standard_normal((3, 4))
    top = model.run(x)["logits"].argmax(axis=1)
    rough = 2e-2 if "float16" in (inside, given) else 1e-5
    for target, seed in (
        (("logits", 1), np.repeat(np.eye(4)[1:2], 3, axis=0)), ("top1", np.eye(4)[top]), ({"logits": weights}, weights),
        ({"logits": np.ones(4, int)}, np.ones((3, 4))),
    ):  # fmt: skip
        wanted = ((x.reshape(3, -1).astype(np.float64) @ first > 0) * (seed @ second.T)) @ first.T
        found = gradient(model, x, target)
        assert found.dtype == inside
        np.testing.assert_allclose(found.reshape(3, -1), wanted, rtol=rough, atol=rough)


def test_weights_that_are_no_numbers_are_refused(model: ov.Model, x: np.ndarray) -> None:
    with pytest.raises(ov.InputError, match="no real numbers; got an array of <U3"):
        gradient(model, x, {"logits": np.array("abc")})


def test_a_class_means_its_logit_for_every_image(model: ov.Model, x: np.ndarray) -> None:
    one_hot = np.zeros((len(x), 4), np.float32)
    one_hot[:, 2] = 1
    expected = gradient(model, x, {"logits": one_hot})
    np.testing.assert_array_equal(gradient(model, x, 2), expected)
    np.testing.assert_array_equal(gradient(model, x, ("logits", 2)), expected)
    np.testing.assert_array_equal(gradient(model, x, "logits[2]"), expected)
    likely = model.predict(x).argmax(axis=1)
    assert len(set(likely)) > 1
    each = gradient(model, x, likely)
    np.testing.assert_array_equal(gradient(model, x), each)
    np.testing.assert_array_equal(each[3], gradient(model, x[3:4], int(likely[3]))[0])


def test_an_element_of_a_map_and_the_strongest_channel(model: ov.Model, x: np.ndarray) -> None:
    element = gradient(model, x, ("conv", (1, 2, 3)))
    (weights,) = [t for t in model.loaded.proto.graph.initializer if t.name == "w"]
    expected = np.zeros((3, 8, 8), np.float32)
    expected[:, 1:4, 2:5] = numpy_helper.to_array(weights)[1]
    np.testing.assert_allclose(element, np.broadcast_to(expected, element.shape), atol=1e-7)
    channel = int(model.run(x[:1], ("relu",))["relu"][0].sum(axis=(1, 2)).argmax())
    ones = np.zeros((1, 5, 8, 8), np.float32)
    ones[:, channel] = 1
    np.testing.assert_array_equal(gradient(model, x, ("relu", "strongest")), gradient(model, x, {"relu": ones}))


def test_what_the_target_does_not_depend_on_has_gradient_zero(model: ov.Model, x: np.ndarray) -> None:
    found = gradient(model, x[:2], ("conv", (0, 0, 0)), wrt=("pool", "image"))
    assert not found["pool"].any()
    assert found["image"].any()


def test_results_do_not_depend_on_the_batch(model: ov.Model, x: np.ndarray) -> None:
    whole = gradient(model, x, 1)
    single = np.concatenate([gradient(model, x[i : i + 1], 1) for i in range(len(x))])
    np.testing.assert_allclose(whole, single, rtol=0, atol=1e-6 * np.abs(single).max())


def test_a_fixed_batch_is_filled_up(tmp_path: Path, x: np.ndarray) -> None:
    """The batch sits in a Reshape that nobody can rewrite: 3 rows a run, 11 images."""
    proto = onnx.load(network(tmp_path / "net.onnx", batch=3))
    proto.graph.node[3].CopyFrom(helper.make_node("Reshape", ["pool", "shape"], ["flat"]))
    proto.graph.node.insert(3, helper.make_node("Mul", ["half", "two"], ["shape"]))
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([3, 40]), "half"),
            numpy_helper.from_array(np.array([1, 2]), "two"),
        ]
    )
    fixed = ov.load(save(proto, tmp_path / "fixed.onnx"), preprocess="unit")
    free = ov.load(network(tmp_path / "free.onnx"), preprocess="unit")
    for wrt in ("image", "w"):
        expected = gradient(free, x, 1, wrt=wrt)
        np.testing.assert_allclose(gradient(fixed, x, 1, wrt=wrt), expected, atol=2e-6 * np.abs(expected).max())


# -- rules laid over ----------------------------------------------------------------------------------------------


def test_rules_are_laid_over_for_one_call_only(model: ov.Model, x: np.ndarray) -> None:
    plain = gradient(model, x, 0)
    guided = gradient(model, x, 0, rules=GUIDED_BACKPROPAGATION, wrt=("conv",))["conv"]
    deconvnet = gradient(model, x, 0, rules=DECONVNET, wrt=("conv",))["conv"]
    values = model.run(x, ("conv",))["conv"]
    of_relu = gradient(model, x, 0, wrt="relu")
    np.testing.assert_array_equal(guided, np.maximum(of_relu, 0) * (values > 0))
    np.testing.assert_array_equal(deconvnet, np.maximum(of_relu, 0))
    np.testing.assert_array_equal(gradient(model, x, 0), plain)


def test_layers_of_rules_node_before_choice_before_operator(model: ov.Model, x: np.ndarray) -> None:
    def times(factor: float) -> Any:
        def rule(backward: Any, node: Any, adjoints: Any) -> Any:
            (found,) = backward.base(node, adjoints)[:1]
            return [backward.emit("Mul", found, backward.number(factor, node.inputs[0]))]

        return rule

    plain = gradient(model, x, 0)
    operator = RuleSet("two", by_operator={("", "Relu"): times(2)})
    choice = RuleSet(
        "three", by_choice=[(lambda node: node.outputs[0] == "relu", times(3))], by_operator=operator.by_operator
    )
    np.testing.assert_allclose(gradient(model, x, 0, rules=operator), 2 * plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient(model, x, 0, rules=choice), 3 * plain, rtol=1e-5, atol=1e-6)
    # The same operator of another domain is another operator.
    other = RuleSet("other", by_operator={("com.example", "Relu"): times(5)})
    np.testing.assert_array_equal(gradient(model, x, 0, rules=other), plain)


# -- refusals -----------------------------------------------------------------------------------------------------


def test_names_that_do_not_exist(model: ov.Model, x: np.ndarray) -> None:
    with pytest.raises(ov.ValueNotFoundError, match=r"poool.*'pool'"):
        gradient(model, x, 0, wrt="poool")
    with pytest.raises(ov.ValueNotFoundError, match=r"logit'"):
        gradient(model, x, ("logit", 0))
    with pytest.raises(ov.InputError, match=r"no such class.*got 4.*0 to 3"):
        gradient(model, x, 4)
    with pytest.raises(ov.InputError, match=r"no such element"):
        gradient(model, x, ("logits", 7))
    with pytest.raises(ov.InputError, match=r"one class index for each image"):
        gradient(model, x, [0, 1])
    with pytest.raises(ov.InputError, match=r"weights do not have the value's shape.*\(11, 4\)"):
        gradient(model, x, {"logits": np.ones((2, 9), np.float32)})
    with pytest.raises(ov.InputError, match=r"function of the outputs"):
        gradient(model, x, lambda outputs: outputs["logits"][:, 0])  # type: ignore[arg-type]


def one_node(tmp_path: Path, nodes: list[onnx.NodeProto], *, opset: int = 18, constants: Any = None) -> ov.Model:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return ov.load(save(model, tmp_path / "one.onnx"))


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    model = one_node(
        tmp_path, [helper.make_node("Det", ["square"], ["y"], name="determinant"),
                   helper.make_node("Reshape", ["x", "shape"], ["square"])][::-1],
        constants={"shape": np.array([-1, 2, 2])},
    )  # fmt: skip
    with pytest.raises(ov.UnsupportedOperatorError) as caught:
        gradient(model, np.ones((2, 4), np.float32), {"y": np.ones(2, np.float32)})
    for part in ("one.onnx", "'determinant'", "Det", "ai.onnx", "version 11", "occlusion"):
        assert part in str(caught.value)
    coverage = gradient_coverage(model, "y", "x")
    assert not coverage.complete
    assert coverage.operators == {"Det": 1, "Reshape": 1}
    assert [node for node, _ in coverage.refused] == ["determinant"]


def body(name: str, node: onnx.NodeProto, output: str) -> onnx.GraphProto:
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def test_a_branch_that_captures_the_value_never_gives_a_silent_zero(tmp_path: Path) -> None:
    branches = {
        "then_branch": body("then", helper.make_node("Exp", ["x"], ["a"]), "a"),
        "else_branch": body("else", helper.make_node("Neg", ["x"], ["b"]), "b"),
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], name="choice", **branches),
    ]
    model = one_node(tmp_path, nodes, constants={"zero": np.array(0, np.float32)})
    with pytest.raises(ov.UnsupportedOperatorError, match=r"'choice'.*If"):
        gradient(model, np.ones((2, 4), np.float32), {"y": np.ones((2, 4), np.float32)})


def test_a_branch_of_a_constant_condition_is_taken(tmp_path: Path) -> None:
    branches = {
        "then_branch": body("then", helper.make_node("Exp", ["x"], ["a"]), "a"),
        "else_branch": body("else", helper.make_node("Neg", ["x"], ["b"]), "b"),
    }
    model = one_node(tmp_path, [helper.make_node("If", ["yes"], ["y"], **branches)], constants={"yes": np.array(True)})
    found = gradient(model, np.ones((2, 4), np.float32), {"y": np.ones((2, 4), np.float32)})
    np.testing.assert_allclose(found, np.full((2, 4), np.e), rtol=1e-6)


def test_a_loop_that_captures_the_value_is_refused(tmp_path: Path) -> None:
    loop = helper.make_graph(
        [helper.make_node("Mul", ["carried", "x"], ["next"]), helper.make_node("Identity", ["go"], ["going"])], "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["times", "yes", "start"], ["y"], name="power", body=loop)]
    constants = {"times": np.array(3), "yes": np.array(True), "start": np.ones((1, 4), np.float32)}
    model = one_node(tmp_path, nodes, constants=constants)
    with pytest.raises(ov.UnsupportedOperatorError, match=r"'power'.*Loop"):
        gradient(model, np.ones((2, 4), np.float32), {"y": np.ones((2, 4), np.float32)})


def test_a_graph_that_would_compute_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: np.ndarray
) -> None:
    from onnxviz.graph.gradient import normalize as module

    def wrong(proto: onnx.ModelProto, *, where: str) -> onnx.ModelProto:
        for node in proto.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Tanh"
        return proto

    monkeypatch.setattr(module, "decompose", wrong)
    model = ov.load(network(tmp_path / "net.onnx"), preprocess="unit")
    with pytest.raises(ov.UnsupportedOperatorError, match=r"does not compute the same.*relative difference"):
        gradient(model, x, 0)


# -- weights elsewhere --------------------------------------------------------------------------------------------


def test_weights_in_data_files_are_not_copied_into_the_graph(tmp_path: Path, x: np.ndarray) -> None:
    expected = gradient(ov.load(network(tmp_path / "net.onnx"), preprocess="unit"), x, 1)
    proto = onnx.load(tmp_path / "net.onnx")
    onnx.save(proto, tmp_path / "beside.onnx", save_as_external_data=True, location="beside.bin", size_threshold=0)
    model = ov.load(tmp_path / "beside.onnx", preprocess="unit", external_data_root=tmp_path)
    np.testing.assert_allclose(gradient(model, x, 1), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_weights_that_are_inputs_and_weights_in_constant_nodes(tmp_path: Path, x: np.ndarray) -> None:
    expected = gradient(ov.load(network(tmp_path / "net.onnx"), preprocess="unit"), x, 1)
    listed = onnx.load(tmp_path / "net.onnx")
    listed.ir_version = 3
    listed.opset_import[0].version = 9
    listed.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in listed.graph.initializer
    )
    constants = onnx.load(tmp_path / "net.onnx")
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in constants.graph.initializer]
    nodes += list(constants.graph.node)
    del constants.graph.initializer[:]
    del constants.graph.node[:]
    constants.graph.node.extend(nodes)
    for name, proto in (("listed", listed), ("constants", constants)):
        model = ov.load(save(proto, tmp_path / f"{name}.onnx"), preprocess="unit")
        found = gradient(model, x, 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max(), err_msg=name)


# -- real networks ------------------------------------------------------------------------------------------------

FLOAT_MODELS = (
    "cifar10_7x7_4096", "vnn_cifar10_resnet4b", "vnn_marabou_cifar10_large", "mlperf_tiny_resnet8_keras",
)  # fmt: skip


@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_small_zoo_networks_against_central_differences_in_float64(zoo: Path, name: str) -> None:
    """Along directions at which no unit crosses a kink: the step is tiny, and float64 bears it."""
    (path,) = (zoo / "models").glob(f"{name}*.onnx")
    model = ov.load(path)
    images = ov.load_images(zoo / "images" / "cifar10" / "cat", model)
    batch = next(images.batches(2))
    x = batch.tensor[:1].astype(np.float32)
    score, _ = model.class_scores
    seed = np.zeros((1, 10), np.float32)
    seed[0, int(model.predict(batch)[0].argmax())] = 1
    found = gradient(model, x, {score: seed}).astype(np.float64)
    evaluator = ReferenceEvaluator(_doubled(model, score))
    random = np.random.default_rng(0)
    for _ in range(2):
        direction = random.standard_normal(x.shape)
        step = 1e-6
        above, below = (
            evaluator.run(None, {model.only_input: x.astype(np.float64) + sign * step * direction})[0]
            for sign in (1, -1)
        )
        slope = float(((above - below) * seed).sum()) / (2 * step)
        assert float((found * direction).sum()) == pytest.approx(slope, rel=2e-4, abs=1e-6)


def _doubled(model: ov.Model, output: str) -> onnx.ModelProto:
    """The network in float64, its batch as it is."""
    from onnxviz.graph.detached import take_inside
    from onnxviz.graph.taps import expose

    wide = take_inside(expose(model.loaded.proto, [output]), model.loaded.weights)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in wide.graph.node:
        for entry in node.attribute:
            if entry.name == "value" and entry.t.data_type == TensorProto.FLOAT:
                entry.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry.t).astype(np.float64)))
            if entry.name == "to" and entry.i == TensorProto.FLOAT:
                entry.i = TensorProto.DOUBLE
    return wide


def every_model(zoo: Path) -> list[Path]:
    return sorted((zoo / "models").glob("*.onnx"))


def test_every_zoo_network_has_a_gradient_that_is_not_zero(zoo: Path) -> None:
    paths = every_model(zoo)
    assert len(paths) == 13
    for path in paths:
        model = ov.load(path)
        assert gradient_coverage(model).complete, path.name
        side = model.preprocess.size[0]
        folder = zoo / "images" / ("cifar10/cat" if side < 64 else "imagenet")
        batch = next(ov.load_images(folder, model).batches(2))
        found = gradient(model, batch.tensor[:2])
        assert found.shape == model.run(batch.tensor[:2], (model.gradient_input,))[model.gradient_input].shape
        assert np.isfinite(found).all(), path.name
        assert all(np.abs(row).max() > 0 for row in found), path.name


@pytest.mark.slow
@pytest.mark.parametrize("place", range(9))
def test_light_architectures_against_differences(tmp_path_factory: pytest.TempPathFactory, place: int) -> None:
    """Operator set 9, weights listed as inputs, a static batch; float32 differences over a step that kinks blur."""
    models = light_models(tmp_path_factory.getbasetemp() / "light")
    path = models[sorted(models)[place]]
    model = ov.load(path)
    random = np.random.default_rng(1)
    shape = tuple(side if isinstance(side, int) else 1 for side in model.inputs[0].shape or ())
    x = random.random(shape).astype(np.float32)
    score, _ = model.class_scores
    seed = random.standard_normal(model.run(x, (score,))[score].shape).astype(np.float32)
    found = gradient(model, x, {score: seed}).astype(np.float64)
    # Along the gradient itself the difference is largest against rounding and kinks.
    direction = found / np.linalg.norm(found)
    errors = []
    for step in (3e-2, 1e-1, 3e-1):
        above, below = (
            model.run((x + sign * step * direction).astype(np.float32), (score,))[score].astype(np.float64)
            for sign in (1, -1)
        )
        slope = float(((above - below) * seed).sum()) / (2 * step)
        errors.append(abs(float((found * direction).sum()) / slope - 1))
    assert min(errors) < 0.05, errors


def test_a_file_with_a_batch_of_three_tells_shapes_for_one_image(tmp_path: Path) -> None:
    fixed = ov.load(network(tmp_path / "three.onnx", batch=3), preprocess="unit")
    free = ov.load(network(tmp_path / "free.onnx"), preprocess="unit")
    assert {name: fixed.shapes()[name] for name in ("image", "pool", "logits")} == {
        name: free.shapes()[name] for name in ("image", "pool", "logits")
    }
    assert fixed.macs == free.macs
