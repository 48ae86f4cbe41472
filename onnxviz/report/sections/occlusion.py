"""Occlusion maps of as many images as the budget of multiply-accumulates allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxviz.methods.occlusion import occlusion
from onnxviz.methods.target import example_element
from onnxviz.report.budget import plan_occlusion
from onnxviz.report.examination import Examination, spread
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render
from onnxviz.results import Predictions

__all__ = ["chosen_images", "make"]


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
    height, width = model.preprocess.size
    plan = plan_occlusion(model.macs, height, width, len(images), budget=exam.options.occlusion_budget)
    section.numbers["plan"] = {
        "images": plan.images,
        "window": plan.window,
        "stride": plan.stride,
        "positions": plan.positions,
        "macs_per_run": model.macs,
        "macs": plan.macs,
        "budget_macs": plan.budget,
    }
    if plan.images == 0:
        raise SectionSkipped(f"too costly: {plan.text} A larger budget can be set.")
    section.notes.append(plan.text)
    maps = []
    for number, index in enumerate(chosen_images(exam, plan.images)):
        found = occlusion(
            model, images.subset(np.array([index])), target=exam.options.target, window=plan.window, stride=plan.stride
        )
        lowest = np.unravel_index(int(np.argmin(np.nan_to_num(found.probability, nan=np.inf))), found.probability.shape)
        section.figures.append(
            Figure(
                f"image-{number}",
                f"{found.name}: {found.target}, {found.clean:.3f} on the whole image, {found.probability[lowest]:.3f} "
                f"with the patch at its worst place.",
                render(found),
            )
        )
        section.arrays |= {f"probability_{number}": found.probability, f"importance_{number}": found.importance}
        if found.label is not None:
            section.arrays[f"label_{number}"] = found.label
        maps.append(
            {
                "image": found.name,
                "target": found.target,
                "scale": found.scale,
                "clean": found.clean,
                "clean_label": found.clean_label,
                "lowest": float(found.probability[lowest]),
                "lowest_box": found.boxes[lowest],
                "fill": found.fill if found.fill.ndim == 1 else None,
                "probability": f"probability_{number}",
                "importance": f"importance_{number}",
            }
            | provenance_numbers(found.provenance)
        )
    section.numbers["maps"] = maps
    section.notes.append(_how(maps[0]["parameters"]))


def _how(parameters: dict[str, Any]) -> str:
    plan = parameters["plan"]
    if parameters["method"] == "incremental":
        return (
            f"Only what the patch can change was computed: {plan['mac_ratio']:.1f} times fewer multiply-accumulates "
            "than with a whole run at every position, and the same numbers."
        )
    return f"Every position was a run of the whole network: {plan['why']}."


def chosen_images(exam: Examination, count: int) -> tuple[int, ...]:
    """Images spread over the set, those first that the network names rightly or, unlabelled, is sure of."""
    answers: Predictions | None = exam.shared.get("predictions")
    images = exam.need_images()
    if answers is None:
        return spread(range(len(images)), count)
    index_of = {name: index for index, name in enumerate(images.names)}
    rows = np.arange(len(answers.names))
    if exam.options.target == "top1":
        # An image whose scores are NaN has no most likely class.
        rows = rows[np.isfinite(answers.top_scores[:, 0])]
        if not rows.size:
            raise SectionSkipped("no score of this network is a finite number, so no image has a most likely class")
    possible = [index_of[answers.names[row]] for row in rows]
    if answers.classes is not None and (right := answers.classes[rows] == answers.top[rows, 0]).any():
        rows = rows[right]
    candidates = [index_of[answers.names[row]] for row in rows]
    if len(candidates) < count:
        rest = [index for index in possible if index not in set(candidates)]
        candidates = sorted(candidates + rest[: count - len(candidates)])
    return spread(candidates, count)
