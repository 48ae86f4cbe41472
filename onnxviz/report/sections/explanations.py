"""The photos that occlusion explains, explained by every method that derives, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxviz.errors import LimitError, ModelError, OnnxvizError, UnsupportedOperatorError
from onnxviz.methods.explanations import EXPLANATIONS
from onnxviz.methods.target import example_element
from onnxviz.report.budget import plan_explanations, plan_occlusion
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, Table, render
from onnxviz.report.sections.occlusion import chosen_images
from onnxviz.results import ActivationMap, Attribution, IntegratedGradients

__all__ = ["make"]

_IMAGES_WITHOUT_OCCLUSION = 3
_NEEDS_SAMPLES = {"smoothgrad": "samples", "integrated-gradients": "steps"}

SAID: Mapping[str, tuple[str, str]] = {
    "saliency": (
        "How much the logit moves when a pixel is changed a little.",
        "Says what the network is sensitive to, not what is there: it is noisy, and blind to what is saturated.",
    ),
    "gradient-x-input": (
        "What each pixel would contribute if the network were linear.",
        "A pixel of the colour that the contract maps to 0 gets 0, whatever it shows.",
    ),
    "smoothgrad": (
        "Saliency, averaged over copies of the photo with added noise.",
        "Smoother, but of images that the network never saw; how much noise is a choice.",
    ),
    "integrated-gradients": (
        "How the logit's change on the way from one colour to the photo divides among the pixels.",
        "Adds up to the whole, but depends on the colour it starts from; pixels of that colour get nothing.",
    ),
    "gradcam": (
        "Where the channels of the last map lie that raise the logit.",
        "As coarse as that map; the picture between its cells is interpolated.",
    ),
    "gradcam++": (
        "The same with weights from positive derivatives only.",
        "Finds several small things better, and shows less of what speaks against the class.",
    ),
    "guided-gradcam": (
        "Guided backpropagation, kept where Grad-CAM points.",
        "Its detail is that of guided backpropagation, which hardly depends on the weights: only the place counts.",
    ),
    "guided-backprop": (
        "What comes back when every ReLU stops what is negative.",
        "Pretty, and no reason: with other weights it looks much the same (Adebayo et al. 2018).",
    ),
    "deconvnet": (
        "What comes back when only what is positive is handed down.",
        "Pretty, and no reason: it shows edges, whatever the later weights are (Sixt et al. 2020).",
    ),
}
"""What a map shows, and what to keep in mind."""

Explanation = Attribution | ActivationMap


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    images = exam.need_images()
    model = exam.model
    if model.preprocess is None:
        raise SectionSkipped("the model takes no image")
    if model.output.kind == "values" and exam.options.target == "top1":
        raise SectionSkipped(
            "the output is not a classifier's, so there is no most likely class; a target such as "
            f"{example_element(model)!r} can be named"
        )
    budget = exam.options.occlusion_budget
    hidden = plan_occlusion(model.macs, *model.preprocess.size, len(images), budget=budget)
    wanted = hidden.images or min(len(images), _IMAGES_WITHOUT_OCCLUSION)
    plan = plan_explanations(model.macs, wanted, budget=budget)
    section.numbers["plan"] = {
        "images": plan.images,
        "samples": plan.samples,
        "macs_per_run": model.macs,
        "macs": plan.macs,
        "budget_macs": plan.budget,
    }
    if plan.images == 0:
        raise SectionSkipped(f"too costly: {plan.text} A larger budget can be set.")
    section.notes.append(plan.text)
    photos = images.subset(np.array(chosen_images(exam, plan.images)))
    made = _explained(exam, section, photos, plan.samples)
    names = list(made)
    for number in range(len(photos)):
        results = {name: made[name][number] for name in names}
        section.figures.append(Figure(f"image-{number}", _caption(results), render(list(results.values()))))
        section.arrays |= {f"{_key(name)}_{number}": result.map for name, result in results.items()}
    section.tables.append(
        Table("What each map shows, and what to keep in mind", ("method", "shows", "but"), tuple(_rows(made)))
    )
    section.numbers["maps"] = [
        _numbers(name, number, made[name][number]) for name in names for number in range(len(photos))
    ]
    kept = {note: None for results in made.values() for result in results for note in result.notes}
    section.notes += [note for note in kept if "Adebayo" not in note]


def _explained(exam: Examination, section: Section, photos: Any, samples: int) -> dict[str, tuple[Explanation, ...]]:
    """Every method's results; what a method refuses becomes a note, unless all refuse."""
    made: dict[str, tuple[Explanation, ...]] = {}
    refused: dict[str, OnnxvizError] = {}
    for name, explain in EXPLANATIONS.items():
        options: dict[str, Any] = {}
        if name in _NEEDS_SAMPLES:
            if not samples:
                continue
            options[_NEEDS_SAMPLES[name]] = samples
        if name == "smoothgrad":
            options["seed"] = exam.options.seed
        try:
            found = explain(exam.model, photos, exam.options.target, **options)
        except OnnxvizError as error:
            # An operator without a derivative is no defect of the model; what breaks in a run is.
            if isinstance(error, LimitError | ModelError) and not isinstance(error, UnsupportedOperatorError):
                raise
            refused[name] = error
            continue
        made[name] = found if isinstance(found, tuple) else (found,)
    if not made:
        raise SectionSkipped(str(next(iter(refused.values()))))
    section.notes += [f"{name} was left out: {error}" for name, error in refused.items()]
    return made


def _caption(results: Mapping[str, Explanation]) -> str:
    first = next(iter(results.values()))
    said = f"{first.name}: {first.target}, {first.scale} {first.score:.3g}"
    if first.probability is not None:
        said += f", probability {first.probability:.3f}"
    parts = results.get("integrated-gradients")
    if isinstance(parts, IntegratedGradients):
        whole = parts.score - parts.baseline_score
        said += f". Integrated gradients add up to {whole + parts.completeness_error:.3g} of {whole:.3g}"
    return f"{said}."


def _rows(made: Mapping[str, tuple[Explanation, ...]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, results in made.items():
        shows, but = SAID[name]
        if any("no ReLU" in note for note in results[0].notes):
            but = "The graph has no ReLU that the rule would change, so this is the plain gradient."
        rows.append((results[0].method, shows, but))
    return rows


def _key(name: str) -> str:
    return name.replace("++", "_plusplus").replace("-", "_")


def _numbers(name: str, number: int, result: Explanation) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "image": result.name,
        "explanation": result.method,
        "target": result.target,
        "scale": result.scale,
        "score": result.score,
        "probability": result.probability,
        "map": f"{_key(name)}_{number}",
        "notes": list(result.notes),
    }
    if isinstance(result, ActivationMap):
        numbers["value"] = result.value
    if isinstance(result, IntegratedGradients):
        numbers |= {"baseline_score": result.baseline_score, "completeness_error": result.completeness_error}
    return numbers | provenance_numbers(result.provenance)
