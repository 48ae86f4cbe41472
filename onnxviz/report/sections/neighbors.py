"""Nearest images in the feature space and in pixel space, and how often each names the class."""

from __future__ import annotations

from onnxviz.methods.neighbors import neighbors
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render

__all__ = ["make"]

_NEIGHBORS = 5
_FEWEST_IMAGES = 4


def make(exam: Examination, section: Section) -> None:
    """Fill the section and the facts on accuracy by neighbours."""
    images = exam.need_images(_FEWEST_IMAGES)
    if exam.model.feature_value is None:
        raise SectionSkipped(exam.lacks("no feature value was found in this graph"))
    found = neighbors(exam.model, images, n_neighbors=min(_NEIGHBORS, len(images) - 1), seed=exam.options.seed)
    exam.facts.feature_accuracy, exam.facts.pixel_accuracy = found.feature_accuracy, found.pixel_accuracy
    if found.classes is not None:
        exam.facts.compared = int((found.classes >= 0).sum())
    section.figures.append(
        Figure(
            "strips",
            f"Neighbours of {len(found.queries)} images among {len(found.names):,}, by {found.value} and by pixels.",
            render(found),
        )
    )
    if found.feature_accuracy is not None and found.pixel_accuracy is not None:
        section.notes.append(
            f"Leave-one-out vote of the {found.feature_indices.shape[1]} nearest: {found.feature_accuracy:.1%} correct "
            f"by features, {found.pixel_accuracy:.1%} by pixels."
        )
    section.numbers.update(
        value=found.value,
        images=len(found.names),
        feature_accuracy=found.feature_accuracy,
        pixel_accuracy=found.pixel_accuracy,
        queries=[
            {
                "image": found.names[query],
                "by_features": [found.names[index] for index in found.feature_indices[row]],
                "feature_distances": found.feature_distances[row],
                "by_pixels": [found.names[index] for index in found.pixel_indices[row]],
                "pixel_distances": found.pixel_distances[row],
            }
            for row, query in enumerate(found.queries)
        ],
        **provenance_numbers(found.provenance),
    )
