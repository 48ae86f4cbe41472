"""What the network answers on every image."""

from __future__ import annotations

import numpy as np

from onnxviz.methods.predictions import predictions
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, Table, render
from onnxviz.results import Predictions

__all__ = ["make"]

_LISTED = 50
_DRAWN = 12


def make(exam: Examination, section: Section) -> None:
    """Fill the section and share the predictions."""
    images = exam.need_images()
    if exam.model.output.kind == "values":
        raise SectionSkipped(f"the output is not a classifier's: {exam.model.output.why}")
    found = predictions(exam.model, images, show=_DRAWN)
    exam.shared["predictions"] = found
    facts = exam.facts
    if found.classes is not None:
        known = found.classes[(found.classes >= 0) & np.isfinite(found.top_scores[:, 0])]
        facts.labelled = len(known)
        facts.accuracy = found.accuracy
        if len(known):
            facts.largest_class_share = float(np.unique(known, return_counts=True)[1].max() / len(known))

    section.figures.append(
        Figure("predictions", "The most likely classes of each image, with their probability.", render(found))
    )
    if found.accuracy is not None:
        top5 = f", {found.accuracy_top5:.1%} within the first five" if found.accuracy_top5 is not None else ""
        section.notes.append(f"Correct: {found.accuracy:.1%} of {facts.labelled:,} images whose class is known{top5}.")
        section.notes.append(f"True classes: {found.provenance.parameters.get('true_classes')}.")
    listed = range(min(_LISTED, len(found.names)))
    section.tables.append(
        Table(
            f"The first {len(listed):,} of {len(found.names):,} images" if len(found.names) > _LISTED else "All images",
            ("image", "answer", "probability", "second", "probability"),
            tuple(
                (
                    found.names[row],
                    _answer(found, row, 0),
                    f"{found.top_scores[row, 0]:.3f}",
                    _answer(found, row, 1) if found.top.shape[1] > 1 else "",
                    f"{found.top_scores[row, 1]:.3f}" if found.top.shape[1] > 1 else "",
                )
                for row in listed
            ),
            collapsed=True,
            numeric=frozenset({2, 4}),
        )
    )
    section.numbers.update(
        images=len(found.names),
        accuracy=found.accuracy,
        accuracy_top5=found.accuracy_top5,
        labelled=facts.labelled,
        confidence_histogram=found.histogram,
        top=[
            {
                "image": found.names[row],
                "classes": found.top[row],
                "labels": [_answer(found, row, rank) for rank in range(found.top.shape[1])],
                "scores": found.top_scores[row],
            }
            for row in listed
        ],
        **provenance_numbers(found.provenance),
    )
    section.arrays.update(top=found.top, top_scores=found.top_scores)
    if found.confusion is not None:
        section.arrays["confusion"] = found.confusion


def class_name(names: tuple[str, ...] | None, index: int) -> str:
    """The label of a class, or its number where labels are not known."""
    return names[index] if names and 0 <= index < len(names) else f"class {index}"


def _answer(found: Predictions, row: int, rank: int) -> str:
    """The label of one of an image's answers; without a number there is no order among the classes."""
    if not np.isfinite(found.top_scores[row, rank]):
        return "no class"
    return class_name(found.class_names, int(found.top[row, rank]))
