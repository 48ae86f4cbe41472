"""How often each image is a neighbour of others: the skewness, the hubs and the antihubs."""

from __future__ import annotations

from onnxviz.methods.hubness import hubness
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, render

__all__ = ["make"]

_FEWEST_IMAGES = 50
"""Five times the neighbours that are counted: among fewer images each is a neighbour of a large part of the others."""
_LISTED = 20


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    found = hubness(exam.need_features(_FEWEST_IMAGES), images=exam.need_images())
    section.figures.append(
        Figure(
            "hubs",
            f"{len(found.hubs):,} hubs and {len(found.antihubs):,} antihubs among {len(found.names):,} images, "
            f"by {found.value}.",
            render(found),
        )
    )
    section.notes.append(
        f"The number of images that have an image among their {found.n_neighbors} nearest has a skewness of "
        f"{found.skewness:.2f} over the images, and is {int(found.occurrences.max()):,} at most."
    )
    bad = found.bad_occurrences
    section.numbers.update(
        value=found.value,
        images=len(found.names),
        skewness=found.skewness,
        hubs=len(found.hubs),
        antihubs=len(found.antihubs),
        most_frequent=[
            {
                "image": found.names[image],
                "occurrences": found.occurrences[image],
                "of_another_class": None if bad is None else bad[image],
            }
            for image in found.hubs[:_LISTED]
        ],
        **provenance_numbers(found.provenance),
    )
    section.arrays["occurrences"] = found.occurrences
