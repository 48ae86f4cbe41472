"""The labels that neighbours doubt, and of which classes the neighbours of each class are."""

from __future__ import annotations

import numpy as np

from onnxviz.methods.class_purity import class_purity
from onnxviz.methods.label_suspects import label_suspects
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, Table, render
from onnxviz.report.sections.predictions import class_name
from onnxviz.results import Features

__all__ = ["make"]

_FEWEST_IMAGES = 4
_LISTED = 50
_DRAWN = 8


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    features = exam.need_features(_FEWEST_IMAGES)
    known = features.classes[features.classes >= 0] if features.classes is not None else np.zeros(0, np.int64)
    counts = np.unique(known, return_counts=True)[1]
    if len(counts) < 2:
        told = "no image has a label" if not len(counts) else "all labelled images are of one class"
        raise SectionSkipped(f"{told}; folders that are named like the classes, or labels in an array, tell them")
    if counts.max() < 2:
        raise SectionSkipped("every labelled image is the only one of its class")
    _suspects(exam, section, features)
    _purity(section, features)


def _suspects(exam: Examination, section: Section, features: Features) -> None:
    found = label_suspects(features, images=exam.need_images())
    judged, doubted = len(found.ranking), len(found.contradicted)
    section.figures.append(
        Figure(
            "suspects",
            f"The most doubted labels of {judged:,} images, by {found.value}.",
            render(found, max_suspects=_DRAWN),
        )
    )
    section.notes.append(
        f"{doubted:,} of {judged:,} images have no neighbour of their own label among the voters. That is no finding: "
        "hard and ambiguous images are among them, and only a person can tell."
    )
    listed = [int(image) for image in found.ranking[:_LISTED] if found.scores[image] > 0]
    if listed:
        section.tables.append(
            Table(
                f"The {len(listed):,} most doubted labels",
                ("image", "label", "neighbours say", "votes against the label", "voters"),
                tuple(
                    (
                        found.names[image],
                        class_name(found.class_names, int(found.classes[image])),
                        class_name(found.class_names, int(found.voted[image])),
                        f"{found.scores[image]:.0%}",
                        f"{found.voters[image]:,}",
                    )
                    for image in listed
                ),
                collapsed=True,
                numeric=frozenset({3, 4}),
            )
        )
    section.numbers.update(
        value=found.value,
        judged=judged,
        contradicted=doubted,
        suspects=[
            {
                "image": found.names[image],
                "label": class_name(found.class_names, int(found.classes[image])),
                "voted": class_name(found.class_names, int(found.voted[image])),
                "score": found.scores[image],
                "voters": found.voters[image],
            }
            for image in listed
        ],
        **provenance_numbers(found.provenance),
    )
    section.arrays.update(scores=found.scores, ranking=found.ranking, voted=found.voted)


def _purity(section: Section, features: Features) -> None:
    found = class_purity(features)
    purity = float(found.counts @ found.purity / found.counts.sum())
    section.figures.append(
        Figure("purity", f"{purity:.1%} of all neighbours are of the class of their image.", render(found))
    )
    section.numbers["purity"] = {
        "mean": purity,
        "classes": [
            {
                "class": class_name(found.class_names, int(number)),
                "images": found.counts[row],
                "purity": found.purity[row],
                "chance": found.chance[row],
                "ceiling": found.ceiling[row],
            }
            for row, number in enumerate(found.classes)
        ],
    } | provenance_numbers(found.provenance)
    section.arrays["purity_matrix"] = found.matrix
