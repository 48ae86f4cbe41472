"""Pictures that gradient ascent makes the network take for a class, for as many classes as the budget allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxviz.errors import UnsupportedOperatorError
from onnxviz.methods.class_visualization import class_visualization
from onnxviz.report.budget import plan_pictures
from onnxviz.report.examination import Examination, spread
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render
from onnxviz.results import Predictions

__all__ = ["make"]

_SMALL_SIDE = 64
"""Up to here images tend to show one object in the middle, and a picture that starts from what they have in common
stays an object; in larger ones it would stay a blur, where a picture that starts from nothing grows several."""

_FEWEST_FOR_A_MEAN = 16
_CALM: dict[str, Any] = {"copies": 2, "noise": 0.38, "roughness": 0.0035, "cooling": 0.9}
_CALM_STEPS = (256, 128)


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    model = exam.model
    if model.preprocess is None:
        raise SectionSkipped(model.no_image_reason)
    if model.output.kind == "values" or not model.output.classes:
        raise SectionSkipped("the output is not a classifier's, so there are no classes to make pictures of")
    answers: Predictions | None = exam.shared.get("predictions")
    if answers is not None and not np.isfinite(answers.top_scores[:, 0]).any():
        raise SectionSkipped("no score of this network is a finite number, so none can be raised")
    # They say less about these images than the maps do, and get half as much.
    budget = exam.options.occlusion_budget // 2
    settings: dict[str, Any] = {}
    if max(model.preprocess.size) <= _SMALL_SIDE and exam.images is not None and len(exam.images) >= _FEWEST_FOR_A_MEAN:
        plan = plan_pictures(model.macs, model.output.classes, budget=budget, copies=_CALM["copies"], steps=_CALM_STEPS)
        settings = {
            "objective": "probability", "start": "images", "images": exam.images, "regularization": _CALM
        }  # fmt: skip
    else:
        plan = plan_pictures(model.macs, model.output.classes, budget=budget)
    section.numbers["plan"] = {
        "pictures": plan.pictures,
        "steps": plan.steps,
        "macs_per_run": model.macs,
        "macs": plan.macs,
        "budget_macs": plan.budget,
    }
    if plan.pictures == 0:
        raise SectionSkipped(f"too costly: {plan.text} A larger budget can be set.")
    section.notes.append(plan.text)
    try:
        found = class_visualization(
            model, chosen_classes(exam, plan.pictures), steps=plan.steps, seed=exam.options.seed, **settings
        )
    except UnsupportedOperatorError as error:
        # An operator without a derivative is no defect of the model.
        raise SectionSkipped(str(error)) from error
    sure = int((found.probabilities > 0.9).sum())
    section.figures.append(
        Figure(
            "classes",
            f"{len(found.pictures)} class pictures; {sure} of them keep a probability above .9 when they are shifted.",
            render(found),
        )
    )
    section.arrays |= {"pictures": found.pictures, "curve": found.curve}
    section.numbers["pictures"] = [
        {
            "class": int(index),
            "label": model.labels[index] if model.labels else None,
            "score": float(score),
            "scale": found.scale,
            "probability": float(probability),
        }
        for index, score, probability in zip(found.classes, found.scores, found.probabilities, strict=True)
    ]
    section.numbers |= provenance_numbers(found.provenance)


def chosen_classes(exam: Examination, count: int) -> list[int]:
    """The classes that the images were most often taken for, then others, spread evenly over their numbers."""
    answers: Predictions | None = exam.shared.get("predictions")
    classes = exam.model.output.classes or 0
    chosen: list[int] = []
    if answers is not None:
        names: Any = np.bincount(answers.top[:, 0], minlength=classes)
        chosen = [int(index) for index in np.argsort(-names, kind="stable") if names[index]][:count]
    others = [index for index in range(classes) if index not in set(chosen)]
    return chosen + [int(index) for index in spread(others, count - len(chosen))] if len(chosen) < count else chosen
