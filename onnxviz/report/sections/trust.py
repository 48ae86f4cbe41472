"""Whether the maps above can be believed: a cause planted into this very network, and its weights shuffled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxviz.errors import LimitError, ModelError, OnnxvizError, UnsupportedOperatorError
from onnxviz.methods.explanations import OF_A_MAP, explainer
from onnxviz.methods.planted_cause import planted_cause
from onnxviz.methods.randomization_check import randomization_check
from onnxviz.report.budget import plan_trust
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, Table, render
from onnxviz.report.sections.occlusion import chosen_images
from onnxviz.results import PlantedCause, RandomizationCheck

__all__ = ["make"]

_SAMPLES = 10
_AVERAGED: Mapping[str, str] = {"smoothgrad": "samples", "integrated-gradients": "steps"}
_PLANTED = ("saliency", "gradient-x-input", "smoothgrad", "integrated-gradients", "guided-backprop", "deconvnet")
_SHUFFLED = ("saliency", "gradient-x-input", "gradcam", "guided-backprop")
_STAGES = 3
_HALF = 0.5


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    images = exam.need_images()
    model = exam.model
    if model.preprocess is None:
        raise SectionSkipped("the model takes no image")
    if model.output.kind == "values":
        raise SectionSkipped("the output is not a classifier's, so no class can be given a cause")
    plan = plan_trust(model.macs, budget=exam.options.occlusion_budget)
    section.numbers["plan"] = {"trials": plan.trials, "macs": plan.macs, "budget_macs": plan.budget}
    if plan.trials == 0:
        raise SectionSkipped(f"too costly: {plan.text} A larger budget can be set.")
    section.notes.append(plan.text)
    refused: list[OnnxvizError] = []
    planted = _tried(refused, section, lambda: _planted(exam, plan.trials))
    if planted is not None:
        section.figures.append(Figure("planted-cause", _said_of_planted(planted), render(planted)))
        section.tables.append(_rates(planted))
        section.numbers["planted_cause"] = _planted_numbers(planted)
        section.notes.append(
            "Grad-CAM and its like look at a map inside the network, which a filter on the input does not pass; they "
            "are not tried here."
        )
    photo = images.subset(np.array(chosen_images(exam, 1)))
    shuffled = _tried(refused, section, lambda: _shuffled(exam, photo))
    if shuffled is not None:
        section.figures.append(Figure("randomisation", _said_of_shuffled(shuffled), render(shuffled)))
        section.numbers["randomization_check"] = _shuffled_numbers(shuffled)
    if planted is None and shuffled is None:
        raise SectionSkipped(str(refused[0]))


def _tried(refused: list[OnnxvizError], section: Section, work: Any) -> Any:
    """The result, or None where the model is not one that the check can be made on."""
    try:
        return work()
    except OnnxvizError as error:
        integer_input = isinstance(error, ModelError) and "planted" in error.what
        if isinstance(error, LimitError) or (
            isinstance(error, ModelError) and not (integer_input or isinstance(error, UnsupportedOperatorError))
        ):
            raise
        refused.append(error)
        section.notes.append(f"Left out: {error}")
        return None


def _explainers(names: tuple[str, ...], seed: int) -> dict[str, Any]:
    found = {}
    for name in names:
        options: dict[str, Any] = {_AVERAGED[name]: _SAMPLES} if name in _AVERAGED else {}
        if name == "smoothgrad":
            options["seed"] = seed
        found[name] = explainer(name, **options)
    return found


def _planted(exam: Examination, trials: int) -> PlantedCause:
    seed = exam.options.seed
    images = exam.need_images()
    return planted_cause(exam.model, _explainers(_PLANTED, seed), trials=trials, images=images, seed=seed)


def _shuffled(exam: Examination, photo: Any) -> RandomizationCheck:
    seed = exam.options.seed
    try:
        return randomization_check(exam.model, _explainers(_SHUFFLED, seed), photo, stages=_STAGES, seed=seed)
    except UnsupportedOperatorError:
        raise
    except OnnxvizError:
        # A network without a map of rows and columns before its scores has no Grad-CAM.
        others = tuple(name for name in _SHUFFLED if name not in OF_A_MAP)
        return randomization_check(exam.model, _explainers(others, seed), photo, stages=_STAGES, seed=seed)


def _rates(found: PlantedCause) -> Table:
    rows = tuple(
        (
            f"{name} (control)" if place >= len(found.methods) - found.controls else name,
            f"{int(found.hits[place].sum())} of {found.hits.shape[1]}",
            f"{found.intervals[place][0]:.2f} to {found.intervals[place][1]:.2f}",
        )
        for place, name in enumerate(found.methods)
    )
    return Table("Maps that point to the planted pattern", ("map", "hits", "95 % interval of the rate"), rows)


def _said_of_planted(found: PlantedCause) -> str:
    return (
        f"{found.hits.shape[1]} trials: a pattern that alone decides the class was pasted at a random place. A pixel "
        f"drawn at random would hit in {100 * found.chance:.0f} % of them."
    )


def _said_of_shuffled(found: RandomizationCheck) -> str:
    alike = [
        name for name, row in zip(found.methods[: -found.controls], found.correlations, strict=False) if row[-1] > _HALF
    ]
    said = f"{found.name}: {found.target}. With all weights shuffled, "
    if not alike:
        return said + "every map has become another one."
    listed = " and ".join(alike)
    return said + f"{listed} still look{'s' if len(alike) == 1 else ''} much like the map of the trained network."


def _planted_numbers(found: PlantedCause) -> dict[str, Any]:
    return {
        "methods": list(found.methods),
        "controls": found.controls,
        "trials": int(found.hits.shape[1]),
        "rates": found.rates.tolist(),
        "intervals": found.intervals.tolist(),
        "chance": found.chance,
    } | provenance_numbers(found.provenance)


def _shuffled_numbers(found: RandomizationCheck) -> dict[str, Any]:
    return {
        "methods": list(found.methods),
        "controls": found.controls,
        "image": found.name,
        "layers": list(found.layers),
        "shuffled": found.shuffled.tolist(),
        "correlations": [[None if np.isnan(number) else float(number) for number in row] for row in found.correlations],
        "probabilities": found.probabilities.tolist(),
    } | provenance_numbers(found.provenance)
