"""Classifiers that end in ZipMap, and outputs that are text, sequences or optionals: numbers are used, names kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import onnxviz as ov
from graphs import build, save, tiny_network
from onnxviz.cli import main
from onnxviz.errors import ContractError, InputError, UnsupportedOperatorError
from onnxviz.graph.contract import find_class_output
from onnxviz.graph.loading import read_model
from onnxviz.runtime.model import Model

ML = "ai.onnx.ml"
NAMES = ("hen", "zebra", "coil")
PICTURES = [np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8) for seed in range(4)]

node = helper.make_node
TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
MAPS = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, TENSOR))
NUMBERED_MAPS = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, TENSOR))
SEQUENCE = helper.make_sequence_type_proto(TENSOR)
OPTIONAL = helper.make_optional_type_proto(TENSOR)

TREE: dict[str, Any] = {
    "nodes_treeids": [0] * 5, "nodes_nodeids": [0, 1, 2, 3, 4], "nodes_featureids": [0, 1, 0, 0, 0],
    "nodes_values": [0.4, 0.3, 0.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 2, 0, 0, 0], "nodes_falsenodeids": [4, 3, 0, 0, 0], "class_treeids": [0] * 6,
    "class_nodeids": [2, 2, 3, 3, 4, 4], "class_ids": [0, 1, 1, 2, 2, 0], "class_weights": [0.7, 0.3, 0.6, 0.4, 0.9, 0.1],
    "post_transform": "NONE", "classlabels_strings": NAMES,
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "coefficients": np.random.default_rng(1).standard_normal(12).tolist(), "intercepts": [0.0, 0.1, -0.1],
    "post_transform": "LOGISTIC", "multi_class": 1, "classlabels_strings": NAMES,
}  # fmt: skip


def zip_map(scores: str, output: str = "loss", **names: object) -> onnx.NodeProto:
    return node("ZipMap", [scores], [output], domain=ML, **names or {"classlabels_strings": NAMES})


def ended(
    *nodes: onnx.NodeProto,
    tensors: Sequence[tuple[str, int, Sequence[int | str]]] = (),
    others: Sequence[tuple[str, onnx.TypeProto]] = (),
    batch: int | str = "n",
) -> onnx.ModelProto:
    """The tiny network of three classes with more nodes behind it and other outputs."""
    model = tiny_network(batch=batch)
    model.opset_import.append(helper.make_opsetid(ML, 1))
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(*tensor) for tensor in tensors)
    model.graph.output.extend(helper.make_value_info(*other) for other in others)
    return model


def classifier() -> onnx.ModelProto:
    """As Azure Custom Vision exports them: the most likely class as text, and a map of all scores."""
    return ended(
        node("ArgMax", ["prob"], ["best"], axis=1, keepdims=0),
        node("LabelEncoder", ["best"], ["classLabel"], domain=ML, classes_strings=NAMES),
        zip_map("prob"),
        tensors=[("classLabel", TensorProto.STRING, ["n"])],
        others=[("loss", MAPS)],
    )


def opened(model: onnx.ModelProto, folder: Path, **options: Any) -> Model:
    image = {"preprocess": "unit"} if len(model.graph.input[0].type.tensor_type.shape.dim) == 4 else {}
    return ov.load(save(model, folder / "model.onnx"), **{"device": "cpu", "threads": 1} | image | options)


def of_onnxruntime(model: Model, tensor: np.ndarray) -> list[list[float]]:
    """What the file's own ZipMap gives image by image, in the order of the model's labels."""
    session = onnxruntime.InferenceSession(model.path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    runs = [session.run(["loss"], {name: tensor[row : row + 1]})[0] for row in range(len(tensor))]
    # A map of names comes in their alphabetical order.
    maps = [{str(name): score for name, score in row.items()} for (row,) in runs]
    assert model.labels is not None
    assert all(sorted(row) == sorted(model.labels) for row in maps)
    return [[row[name] for name in model.labels] for row in maps]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return opened(classifier(), tmp_path)


@pytest.fixture
def tensor(model: Model) -> np.ndarray:
    return model.probe(5)["image"]


# -- ZipMap ----------------------------------------------------------------------------------------------------------


def test_the_output_is_the_scores_and_the_names_are_the_labels(model: Model, tensor: np.ndarray) -> None:
    assert model.labels == NAMES
    np.testing.assert_allclose(model.predict(tensor), of_onnxruntime(model, tensor), rtol=1e-6)
    loss = next(value for value in model.outputs if value.name == "loss")
    assert (loss.dtype, loss.shape) == ("float32", ("n", 3))
    assert model.sha256 == hashlib.sha256(model.path.read_bytes()).hexdigest()


def test_the_contract_says_what_is_so(model: Model) -> None:
    output = model.output
    assert (output.output, output.kind, output.classes, output.logits) == ("loss", "probabilities", 3, "logits")
    assert not output.guessed
    assert "3 classes, leaving a Softmax, which the file names in a ZipMap" in output.why
    assert model.feature_value == "features"


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ([node("TreeEnsembleClassifier", ["features"], ["label", "s"], domain=ML, **TREE), zip_map("s")], NAMES),
        ([node("LinearClassifier", ["features"], ["label", "s"], domain=ML, **LINEAR), zip_map("s")], NAMES),
        (
            [
                node("LinearClassifier", ["features"], ["label", "s"], domain=ML, **LINEAR),
                node("Normalizer", ["s"], ["n1"], domain=ML, norm="L1"),
                zip_map("n1", classlabels_int64s=[7, 0, -3]),
            ],
            ("7", "0", "-3"),
        ),
    ],
    ids=["tree", "linear", "normalizer"],
)
def test_scores_of_other_operators(nodes: list[onnx.NodeProto], names: tuple[str, ...], tmp_path: Path) -> None:
    kind = NUMBERED_MAPS if names != NAMES else MAPS
    model = opened(ended(*nodes, tensors=[("label", TensorProto.STRING, ["n"])], others=[("loss", kind)]), tmp_path)
    tensor = model.probe(4)["image"]
    assert model.labels == names
    np.testing.assert_allclose(model.run(tensor)["loss"], of_onnxruntime(model, tensor), rtol=1e-6)
    assert "3 classes, which the file names in a ZipMap" in model.output.why
    assert not model.output.guessed
    assert model.feature_value == "features"
    assert ov.occlusion(model, PICTURES[0], target=names[0], window=4, stride=4).probability.shape == (2, 2)
    with pytest.raises(UnsupportedOperatorError, match="explain with occlusion or rise"):
        ov.saliency(model, PICTURES[0])


def test_a_file_without_standard_operators(tmp_path: Path) -> None:
    tree = node("TreeEnsembleClassifier", ["x"], ["label", "s"], domain=ML, **TREE)
    model = build([tree, zip_map("s")], inputs={"x": ("float", ["n", 4])}, outputs={"label": ("string", ["n"])})
    model.graph.output.append(helper.make_value_info("loss", MAPS))
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid(ML, 1))
    found = opened(model, tmp_path)
    rows = np.random.default_rng(3).random((6, 4), np.float32)
    np.testing.assert_array_equal(found.predict(rows), np.float32(of_onnxruntime(found, rows)))
    assert (found.labels, found.output.kind, found.output.logits) == (NAMES, "probabilities", None)


def test_a_lone_row_is_one_image(tmp_path: Path) -> None:
    lone = ended(node("Reshape", ["prob", "flat"], ["row"]), zip_map("row"), others=[("loss", MAPS)], batch=1)
    lone.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([-1]), "flat"))
    model = opened(lone, tmp_path)
    tensor = model.probe(3)["image"]
    np.testing.assert_allclose(model.predict(tensor), of_onnxruntime(model, tensor), rtol=1e-6)


def test_names_that_are_stated_come_first(tmp_path: Path) -> None:
    assert opened(classifier(), tmp_path, labels=["x", "y", "z"]).labels == ("x", "y", "z")
    noted = classifier()
    helper.set_model_props(noted, {"onnxviz.labels": json.dumps(["1", "2", "3"])})
    assert opened(noted, tmp_path).labels == ("1", "2", "3")
    (tmp_path / "model.onnxviz.toml").write_text('labels = ["p", "q", "r"]')
    assert opened(noted, tmp_path).labels == ("p", "q", "r")


def test_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    two = ended(zip_map("prob", classlabels_strings=["a", "b", "c", "d", "e"]), others=[("loss", MAPS)])
    with pytest.raises(ContractError, match="the labels do not fit the model; got 5 names; allowed: 3 names"):
        opened(two, tmp_path)


def test_the_named_output_is_the_classifiers(tmp_path: Path) -> None:
    two = ended(zip_map("logits"), tensors=[("prob", TensorProto.FLOAT, ["n", 3])], others=[("loss", MAPS)])
    loaded = read_model(save(two, tmp_path / "two.onnx"))
    assert loaded.class_names == {"loss": NAMES}
    plain, named = (find_class_output(loaded.proto, class_names=names) for names in (None, loaded.class_names))
    assert plain is not None
    assert named is not None
    assert (plain.name, named.name, named.guessed) == ("prob", "loss", False)
    assert opened(two, tmp_path, output="prob").labels is None


def test_a_zip_map_that_is_no_output_is_left_alone(tmp_path: Path) -> None:
    inside = ended(zip_map("prob"), tensors=[("prob", TensorProto.FLOAT, ["n", 3])])
    loaded = read_model(save(inside, tmp_path / "inside.onnx"))
    assert loaded.proto.graph.node[-1].op_type == "ZipMap"
    assert not loaded.class_names
    model = opened(inside, tmp_path)
    assert "loss" not in model.shapes()
    assert set(model.run(model.probe(2)["image"], "*")) == set(model.shapes())


def test_every_method_runs(model: Model) -> None:
    picture = PICTURES[0]
    assert ov.saliency(model, picture, "zebra").values.shape[-2:] == (8, 8)
    assert ov.occlusion(model, picture, target="zebra", window=4, stride=4).target == "zebra (1)"
    assert ov.gradcam(model, picture).map.shape == (8, 8)
    assert ov.features(model, ov.load_images(PICTURES, model)).array.shape == (4, 4)


# -- outputs that are no numbers -------------------------------------------------------------------------------------


def with_others() -> onnx.ModelProto:
    """Outputs: a sequence, text, an optional and last the scores."""
    model = ended(
        node("SplitToSequence", ["logits"], ["parts"], axis=1),
        node("ArgMax", ["prob"], ["best"], axis=1, keepdims=0),
        node("LabelEncoder", ["best"], ["text"], domain=ML, classes_strings=NAMES),
        node("Optional", ["features"], ["maybe"]),
        others=[("parts", SEQUENCE), ("maybe", OPTIONAL)],
        tensors=[("text", TensorProto.STRING, ["n"]), ("prob", TensorProto.FLOAT, ["n", 3])],
    )
    # The numbers come last: nothing may lean on the first output.
    model.graph.output.append(model.graph.output.pop(1))
    return model


@pytest.fixture
def mixed(tmp_path: Path) -> Model:
    return opened(with_others(), tmp_path)


def test_a_run_without_names_gives_the_numbers(mixed: Model) -> None:
    tensor = mixed.probe(3)["image"]
    assert [value.name for value in mixed.outputs] == ["text", "parts", "maybe", "prob"]
    assert list(mixed.run(tensor)) == ["prob"]
    assert mixed.fixed_batch is None
    assert mixed.tap_difference() == 0
    assert set(mixed.shapes()) == {value.name for value in mixed.values()} - {"parts", "maybe"}
    assert mixed.output.output == "prob"


def test_text_is_given_where_it_is_named(mixed: Model) -> None:
    tensor = mixed.probe(11)["image"]
    found = mixed.run(tensor, ("text", "prob"))
    assert found["text"].tolist() == [NAMES[index] for index in found["prob"].argmax(axis=1)]
    assert mixed.dtypes()["text"] == "object"


@pytest.mark.parametrize(("name", "got"), [("parts", "sequence"), ("maybe", "optional")])
def test_what_is_no_tensor_is_refused_where_it_is_named(mixed: Model, name: str, got: str) -> None:
    images = ov.load_images(PICTURES, mixed)
    sentence = f"^value '{name}' of model.onnx: the value is no tensor, .*; got {got}; allowed: a tensor. Name a"
    for ask in (
        lambda: mixed.run(mixed.probe(2)["image"], name),
        lambda: mixed.run(images, name),
        lambda: ov.features(mixed, images, value=name),
        lambda: ov.activations(mixed, images, values=name),
        lambda: ov.top_patches(mixed, images, value=name),
        lambda: ov.occlusion(mixed, PICTURES[0], target=(name, 0), window=4),
        lambda: ov.gradient(mixed, mixed.probe(2)["image"], (name, 0)),
        lambda: ov.gradient(mixed, mixed.probe(2)["image"], 0, wrt=name),
    ):
        with pytest.raises(InputError, match=sentence):
            ask()
    assert name not in mixed.run(mixed.probe(2)["image"], "*")


def test_text_is_refused_where_numbers_are_needed(mixed: Model) -> None:
    images = ov.load_images(PICTURES, mixed)
    for ask in (
        lambda: ov.features(mixed, images, value="text"),
        lambda: ov.activations(mixed, images, values=["text"]),
        lambda: ov.occlusion(mixed, PICTURES[0], target="text[]", window=4),
        lambda: ov.gradient(mixed, mixed.probe(2)["image"], "text[]"),
    ):
        with pytest.raises(
            InputError, match=r"value 'text' of model\.onnx: the value holds text; got string; allowed: a"
        ):
            ask()
    assert "text" not in ov.activations(mixed, images, values="*")
    with pytest.raises(ContractError, match="no such output of numbers; got 'text'; allowed: 'prob'"):
        ov.load(mixed.path, output="text", preprocess="unit", device="cpu")


def test_a_function_of_the_outputs_gets_the_numbers(mixed: Model) -> None:
    found = ov.occlusion(mixed, PICTURES[0], target=lambda outputs: outputs["prob"][:, 1], window=4, stride=4)
    same = ov.occlusion(mixed, PICTURES[0], target=1, window=4, stride=4)
    np.testing.assert_allclose(found.probability, same.probability, rtol=1e-5)


@pytest.mark.parametrize(("output", "number"), [("text", "prob"), ("parts", "logits")])
def test_without_an_output_of_numbers_the_last_value_of_numbers_stands_for_it(
    output: str, number: str, tmp_path: Path
) -> None:
    only = with_others()
    kept = [value for value in only.graph.output if value.name == output]
    del only.graph.output[:]
    only.graph.output.extend(kept)
    model = opened(only, tmp_path)
    assert list(model.run(model.probe(2)["image"])) == [number]
    assert model.fixed_batch is None
    assert model.output.kind == "values"
    assert ov.saliency(model, PICTURES[0], (number, 0)).values.shape[-2:] == (8, 8)


def test_inspect_lists_them_with_their_type(mixed: Model, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(mixed.path), "--json", str(numbers)])
    assert left.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in ("text: string n", "parts: sequence", "maybe: optional", "prob: float32 n x 3"):
        assert f"output {line}" in lines
    outputs = {entry["name"]: entry for entry in json.loads(numbers.read_text())["outputs"]}
    assert (outputs["parts"]["dtype"], outputs["parts"]["shape_for_one_image"]) == ("sequence", None)


def test_inspect_lists_the_scores_of_a_zip_map(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["inspect", str(model.path), "--gradients"])
    assert left.value.code == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"output classLabel: string n", "output loss: float32 n x 3"} <= set(lines)


def test_the_audit_has_no_failed_section(tmp_path: Path) -> None:
    whole = with_others()
    whole.graph.node.append(zip_map("prob"))
    whole.graph.output.append(helper.make_value_info("loss", MAPS))
    model = opened(whole, tmp_path)
    assert (model.output.output, model.labels) == ("loss", NAMES)
    result = ov.audit(model, PICTURES, out=tmp_path / "report", occlusion_budget=10**9)
    states = result.sections["model"]
    assert not [state for state in states.values() if state.startswith("failed")]
    for name in ("model", "predictions", "activations", "patches", "occlusion", "explanations", "trust", "neighbors"):
        assert states[name] == "made"
