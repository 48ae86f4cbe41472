"""Values whose first axis does not count the images: windows, steps of a recurrent layer, stacks of queries and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxviz as ov
from graphs import build, save
from onnxviz.errors import InputError
from onnxviz.report import audit
from onnxviz.report.examination import Examination, Options
from onnxviz.runtime.image_axes import image_axis
from onnxviz.runtime.model import Model

node = onnx.helper.make_node
PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


def network(*, batch: int | str = "n") -> onnx.ModelProto:
    """Maps; windows of them, four for each image; columns as steps, the steps first; and both behind one another."""
    random = np.random.default_rng(1)
    weights: dict[str, Any] = {
        "w": random.normal(0, 0.3, (5, 3, 3, 3)).astype(np.float32),
        "cut": np.array([0, 5, 2, 4, 2, 4]), "windows_shape": np.array([-1, 5, 4, 4]), "rows": np.array([2]),
    }  # fmt: skip
    head = onnx.numpy_helper.from_array(random.normal(0, 0.3, (5, 7)).astype(np.float32))
    return build(
        [
            node("Conv", ["image", "w"], ["conv"], pads=[1, 1, 1, 1]), node("Relu", ["conv"], ["maps"]),
            node("Reshape", ["maps", "cut"], ["grid"]), node("Transpose", ["grid"], ["cells"], perm=[0, 2, 4, 1, 3, 5]),
            node("Reshape", ["cells", "windows_shape"], ["windows"]),
            node("ReduceMean", ["maps"], ["columns"], axes=[2], keepdims=0),
            node("Transpose", ["columns"], ["steps"], perm=[2, 0, 1]),
            node("Constant", [], ["head"], value=head), node("MatMul", ["steps", "head"], ["scores"]), node("LogSoftmax", ["scores"], ["text"], axis=2),
            node("Unsqueeze", ["steps", "axis"], ["one"]), node("Concat", ["one", "one"], ["stack"], axis=0),
        ],
        inputs={"image": ("float", [batch, 3, 8, 8])},
        # As exporters are told: the first axis is the batch, which it is not.
        outputs={"text": ("float", [batch, batch, 7] if isinstance(batch, str) else [8, batch, 7])},
        weights=weights | {"axis": np.array([0])}, opset=13,
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return ov.load(save(network(), tmp_path / "text.onnx"), preprocess="unit", device="cpu")


def test_the_axis_that_grows_by_one_for_each_image() -> None:
    assert image_axis((1, 4), (2, 4), 1) == 0
    assert image_axis((8, 2, 7), (8, 4, 7), 2) == 1
    assert image_axis((4, 5), (8, 5), 1) is None
    assert image_axis((4, 5), (4, 5), 4) is None
    assert image_axis((1, 1), (2, 2), 1) is None
    assert image_axis((3, 7), (5, 7), 1) is None
    assert image_axis((1, 4), (2, 4, 1), 1) is None


def test_runs_tell_where_the_images_lie(model: Model) -> None:
    found = {
        name: model.image_axis(name) for name in ("image", "maps", "windows", "steps", "text", "stack", "w", "head")
    }
    assert found == {"image": 0, "maps": 0, "windows": None, "steps": 1, "text": 1, "stack": 2, "w": None, "head": None}


@pytest.mark.parametrize("rows", [6, 8])
def test_runs_in_batches_give_what_one_run_gives(rows: int, model: Model) -> None:
    """Eight images are as many as there are steps."""
    tensor = np.resize(np.random.default_rng(2).random((5, 3, 8, 8), np.float32), (rows, 3, 8, 8))
    proto = network()
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("windows", "stack", "maps"))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = ["text", "windows", "stack", "maps"]
    opened = ov.load(model.path, preprocess="unit", device="cpu", batch_size=4)
    assert opened.fixed_batch is None
    found = opened.run(tensor, names)
    for name, wanted in zip(names, session.run(names, {"image": tensor}), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", ["windows", "steps", "text", "stack"])
def test_such_a_value_is_no_row_for_each_image(value: str, model: Model) -> None:
    photos = ov.load_images(PHOTOS, model)
    for method in (
        lambda: ov.features(model, photos, value=value),
        lambda: ov.activations(model, photos, values=value),
        lambda: ov.activations(model, photos, values=value, reduce="statistics"),
        lambda: ov.top_patches(model, photos, value=value),
        lambda: ov.gradcam(model, PHOTOS[0], ("maps", (0, 1, 1)), value=value),
        lambda: ov.saliency(model, PHOTOS[0], (value, "strongest")),
        lambda: ov.feature_visualization(model, value=value, steps=2),
    ):
        with pytest.raises(InputError, match=f"value '{value}' of text.onnx: the value does not hold one row for each"):
            method()
    # Of a glob those are left out.
    assert value not in ov.activations(model, photos, values="*s")
    assert "maps" in ov.activations(model, photos, values="*s")


def test_a_step_of_an_image_can_be_explained(model: Model) -> None:
    """By methods that hide parts, which need no derivative."""
    found = ov.occlusion(model, PHOTOS[0], target=("text", (5, 2)), window=4, stride=4, baseline=(0, 0, 0))
    assert model.preprocess is not None
    clean = model.preprocess.encode(PHOTOS[:1])
    assert found.clean == pytest.approx(model.run(clean)["text"][5, 0, 2], rel=1e-5)
    hidden = np.repeat(clean, 4, axis=0)
    for place in range(4):
        top, left = divmod(place, 2)
        hidden[place, :, 4 * top : 4 * top + 4, 4 * left : 4 * left + 4] = 0
    wanted = [float(model.run(row[np.newaxis])["text"][5, 0, 2]) for row in hidden]
    np.testing.assert_allclose(found.probability.ravel(), wanted, rtol=1e-5)
    assert np.ptp(wanted) > 1e-2
    with pytest.raises(InputError, match=r"allowed: 2 indices below \(8, 7\)"):
        ov.occlusion(model, PHOTOS[0], target=("text", (8, 2)), window=4)


def test_derivatives_of_a_step_are_those_of_differences(model: Model) -> None:
    found = ov.saliency(model, PHOTOS[:2], ("text", (5, 2)))
    assert model.preprocess is not None
    clean = model.preprocess.encode(PHOTOS[:2])
    random = np.random.default_rng(4)
    for number, one in enumerate(found):
        assert one.score == pytest.approx(model.run(clean)["text"][5, number, 2], rel=1e-5)
        direction = random.standard_normal(clean.shape[1:]).astype(np.float32)
        ends = np.stack([clean[number] + 1e-2 * direction, clean[number] - 1e-2 * direction])
        high, low = model.run(ends)["text"][5, :, 2].astype(np.float64)
        assert (one.values * direction).sum() == pytest.approx((high - low) / 2e-2, rel=2e-2, abs=1e-4)


def test_more_images_than_a_run_holds_are_derived_as_each_alone(model: Model) -> None:
    """Eleven images, eight a run, by a value that has them on its second axis, from one that has, too."""
    tensor = np.random.default_rng(5).random((11, 3, 8, 8), np.float32)
    weights = np.random.default_rng(6).normal(size=(8, 11, 7)).astype(np.float32)
    together = ov.gradient(model, tensor, {"text": weights}, wrt=["steps", "maps", "w", "head"])
    assert together["steps"].shape == (8, 11, 5)
    alone = [
        ov.gradient(
            model, tensor[row : row + 1], {"text": weights[:, row : row + 1]}, wrt=["steps", "maps", "w", "head"]
        )
        for row in range(11)
    ]
    for name, axis in (("steps", 1), ("maps", 0)):
        wanted = np.concatenate([one[name] for one in alone], axis=axis)
        np.testing.assert_allclose(together[name], wanted, rtol=1e-4, atol=1e-6)
    for name in ("w", "head"):
        np.testing.assert_allclose(together[name], sum(one[name] for one in alone), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="does not hold one row for each image"):
        ov.gradient(model, tensor, {"windows": np.ones(1)})


def test_features_are_then_the_last_maps(model: Model) -> None:
    assert model.feature_landmark is not None
    assert model.feature_value == "maps"
    assert "does not hold one row for each image" in model.feature_landmark.why
    assert ov.features(model, ov.load_images(PHOTOS, model)).array.shape == (6, 320)


def test_the_report_counts_images_not_windows(model: Model, tmp_path: Path) -> None:
    assert {value.name for value in Examination(model, None, "", Options()).maps} == {"conv", "maps"}
    result = audit(model, list(PHOTOS), out=tmp_path / "report")
    assert not [state for state in result.sections["model"].values() if state.startswith("failed")]
    verdicts = {verdict.rule: verdict for verdict in result.verdicts["model"]}
    assert "over 6 images" in verdicts["values_finite"].found
    assert verdicts["batch_equals_single"].status == "passed"


def test_a_fixed_batch_is_judged_by_its_own_shape(tmp_path: Path) -> None:
    fixed = ov.load(save(network(batch=2), tmp_path / "two.onnx"), preprocess="unit", device="cpu")
    tensor = np.random.default_rng(3).random((2, 3, 8, 8), np.float32)
    assert fixed.run(tensor)["text"].shape == (8, 2, 7)
    assert fixed.image_axis("maps") == 0
    assert fixed.image_axis("windows") is None


def test_images_that_change_their_neighbours_in_a_run_are_noticed(tmp_path: Path) -> None:
    """A graph that looks at the mean brightness of the whole run."""
    branch = [
        onnx.helper.make_graph([node("Mul", ["flat", factor], [f"{factor}_out"])], factor, [],
                               [onnx.helper.make_tensor_value_info(f"{factor}_out", onnx.TensorProto.FLOAT, None)])
        for factor in ("one", "two")
    ]  # fmt: skip
    proto = build(
        [
            node("ReduceMean", ["image"], ["mean"], keepdims=0), node("Greater", ["mean", "half"], ["bright"]),
            node("Flatten", ["image"], ["flat"]),
            node("If", ["bright"], ["scores"], then_branch=branch[0], else_branch=branch[1]),
        ],
        inputs={"image": ("float", ["n", 3, 2, 2])}, outputs={"scores": ("float", ["n", 12])},
        weights={"half": np.float32(0.4), "one": np.float32(1), "two": np.float32(2)},
    )  # fmt: skip
    model = ov.load(save(proto, tmp_path / "mean.onnx"), preprocess="unit", device="cpu")
    assert model.fixed_batch == 1
    assert any("a batch differs from single runs" in note for note in model.notes)
