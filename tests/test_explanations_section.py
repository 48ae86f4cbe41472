"""The report's section of explanations: what the budget buys, what it shows, and what a refused method leaves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

import onnxviz as ov
from embedded_cifar import cifar_model, pictures
from graphs import build, save, tiny_network
from onnxviz.methods.explanations import EXPLANATIONS
from onnxviz.report.budget import plan_explanations
from onnxviz.report.examination import Examination, Options
from onnxviz.report.section import Section, SectionSkipped
from onnxviz.report.sections import SECTIONS
from onnxviz.report.sections.explanations import SAID, make
from onnxviz.report.sections.occlusion import chosen_images
from onnxviz.runtime.model import Model

GIGA = 10**9


@pytest.mark.parametrize(
    ("images", "budget", "wanted"),
    [
        # 111 passes of three runs an image with 50 samples, 51 with 20, 31 with 10, 8 without.
        (4, 4 * 333, (4, 50)),
        (4, 4 * 333 - 1, (4, 20)),
        (4, 4 * 153 - 1, (4, 10)),
        (4, 4 * 93 - 1, (3, 10)),
        (4, 93, (1, 10)),
        (4, 92, (3, 0)),
        (4, 24, (1, 0)),
        (4, 23, (1, 0)),
        (4, 6, (1, 0)),
        (4, 5, (0, 0)),
        (1, 10**6, (1, 50)),
        (2, 0, (0, 0)),
    ],
)
def test_the_budget_follows_from_counted_work(images: int, budget: int, wanted: tuple[int, int]) -> None:
    plan = plan_explanations(GIGA, images, budget=budget * GIGA)
    assert (plan.images, plan.samples) == wanted
    assert plan.macs <= max(plan.budget, 4 * plan.budget * (plan.images == 1))
    assert ("left out" in plan.text) == (plan.samples == 0 and plan.images > 0)


def test_a_model_without_products_costs_nothing() -> None:
    assert plan_explanations(0, 3, budget=GIGA).images == 3


def test_every_method_is_described() -> None:
    assert list(SAID) == list(EXPLANATIONS)


def section_of(model: Model, count: int, budget: int = 10**12) -> tuple[Section, Examination]:
    exam = Examination(model, ov.load_images(pictures(count), model), "", Options(occlusion_budget=budget))
    section = next(outline for outline in SECTIONS if outline.name == "explanations").empty()
    make(exam, section)
    return section, exam


def test_the_section_shows_all_methods_of_the_photos_that_occlusion_explains() -> None:
    model = cifar_model()
    section, exam = section_of(model, 3, budget=3 * 51 * 3 * model.macs)
    plan = section.numbers["plan"]
    assert (plan["images"], plan["samples"]) == (3, 20)
    names = [exam.need_images().names[index] for index in chosen_images(exam, 3)]
    likely = model.predict(exam.need_images()).argmax(axis=1)
    assert len(section.figures) == 3
    for figure, name in zip(section.figures, names, strict=True):
        assert figure.caption.startswith(f"{name}: most likely class of the clean image: ")
        assert "Integrated gradients add up to" in figure.caption
        with Image.open(io.BytesIO(figure.png)) as picture:
            assert np.ptp(np.asarray(picture.convert("L"))) > 100
    maps = section.numbers["maps"]
    assert len(maps) == len(section.arrays) == 27
    for entry in maps:
        assert section.arrays[entry["map"]].shape == (32, 32)
        assert section.arrays[entry["map"]].any()
        assert entry["parameters"]["class_index"] == likely[exam.need_images().names.index(entry["image"])]
    assert [entry["image"] for entry in maps[:3]] == names
    assert {entry["parameters"].get("samples", 20) for entry in maps} == {20}
    (table,) = section.tables
    assert [row[1:] for row in table.rows] == list(SAID.values())
    assert any("with a budget of" in note for note in section.notes)


def test_a_small_budget_leaves_out_what_needs_many_passes() -> None:
    model = cifar_model()
    section, _ = section_of(model, 5, budget=30 * 3 * model.macs)
    assert not {"SmoothGrad", "integrated gradients"} & {entry["explanation"] for entry in section.numbers["maps"]}
    assert any("left out" in note for note in section.notes)
    with pytest.raises(SectionSkipped, match="too costly: One pass"):
        section_of(model, 2, budget=0)


def test_methods_that_are_refused_leave_a_note(tmp_path: Path) -> None:
    """Without a map there is no Grad-CAM; the rest stands."""
    network = build(
        [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["scores"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"scores": ("float", ["n", 3])},
        weights={"w": np.random.default_rng(0).standard_normal((192, 3)).astype(np.float32)},
    )  # fmt: skip
    section, _ = section_of(ov.load(save(network, tmp_path / "dense.onnx"), preprocess="unit", device="cpu"), 2)
    assert {entry["explanation"] for entry in section.numbers["maps"]} == {
        "saliency", "gradient × input", "SmoothGrad", "integrated gradients", "guided backpropagation", "deconvnet",
    }  # fmt: skip
    for name in ("gradcam", "gradcam++", "guided-gradcam"):
        assert any(note.startswith(f"{name} was left out: ") and "no last map" in note for note in section.notes)
    # Without a ReLU two methods are the plain gradient, and the table says so.
    assert sum("plain gradient" in row[2] for row in section.tables[0].rows) == 2


def test_a_model_that_cannot_be_derived_gives_the_reason(tmp_path: Path) -> None:
    network = build(
        [helper.make_node("Det", ["image"], ["volumes"]), helper.make_node("Softmax", ["volumes"], ["prob"])],
        inputs={"image": ("float", ["n", 3, 8, 8])}, outputs={"prob": ("float", ["n", 3])},
    )  # fmt: skip
    output = {"output": "prob", "kind": "probabilities"}
    model = ov.load(save(network, tmp_path / "det.onnx"), preprocess="unit", output=output, device="cpu")
    with pytest.raises(SectionSkipped, match="Det"):
        section_of(model, 2)


def test_an_output_without_classes_needs_a_target(tmp_path: Path) -> None:
    model = ov.load(
        save(tiny_network(), tmp_path / "tiny.onnx"), preprocess="unit", device="cpu",
        output={"output": "prob", "kind": "values"},
    )  # fmt: skip
    with pytest.raises(SectionSkipped, match="no most likely class"):
        section_of(model, 2)
