"""Pairs of images that are nearly the same picture, and whether their labels agree."""

from __future__ import annotations

from onnxviz.methods.near_duplicates import near_duplicates
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.rules import Duplicates
from onnxviz.report.section import Figure, Section, Table, render
from onnxviz.results import NearDuplicates

__all__ = ["make"]

_FEWEST_IMAGES = 4
_LISTED = 100


def make(exam: Examination, section: Section) -> None:
    """Fill the section and the facts on duplicates."""
    features = exam.need_features(_FEWEST_IMAGES)
    found = near_duplicates(features, images=exam.need_images())
    conflicting = found.conflicting
    exam.facts.duplicates = Duplicates(
        images=len(found.names),
        affected=len(found.affected),
        pairs=len(found.pairs),
        conflicting=int(conflicting.sum()),
        details=tuple(
            f"{_told(found, first)} and {_told(found, second)}"
            for first, second in found.pairs[conflicting][:_LISTED].tolist()
        ),
    )
    pairs = f"{len(found.pairs):,} pair{'' if len(found.pairs) == 1 else 's'}"
    section.figures.append(
        Figure("pairs", f"{pairs} among {len(found.names):,} images, by {found.value}.", render(found))
    )
    section.notes.append(
        f"A pair is at most {found.threshold:g} of its scale apart, in cosine distance: half as far as ordinary "
        "neighbours. The scale of an image is the distance of its neighbour number "
        f"{found.provenance.parameters['n_neighbors']}, and at least a third of the median of these distances."
    )
    listed = range(min(len(found.pairs), _LISTED))
    if listed:
        section.tables.append(
            Table(
                f"The closest {len(listed):,} of {pairs}" if len(listed) < len(found.pairs) else "All pairs",
                ("image", "image", "share of the scale", "distance"),
                tuple(
                    (
                        *(_told(found, image) for image in found.pairs[place].tolist()),
                        f"{found.ratios[place]:.3f}",
                        f"{found.distances[place]:.4g}",
                    )
                    for place in listed
                ),
                collapsed=True,
                numeric=frozenset({2, 3}),
            )
        )
    section.numbers.update(
        value=found.value,
        images=len(found.names),
        pairs=len(found.pairs),
        affected=len(found.affected),
        conflicting=int(conflicting.sum()),
        threshold=found.threshold,
        closest=[
            {
                "images": [found.names[index] for index in found.pairs[place]],
                "ratio": found.ratios[place],
                "distance": found.distances[place],
                "labels_differ": bool(conflicting[place]),
            }
            for place in listed
        ],
        **provenance_numbers(found.provenance),
    )
    section.arrays.update(pairs=found.pairs, ratios=found.ratios, distances=found.distances, nearest=found.nearest)


def _told(found: NearDuplicates, image: int) -> str:
    """The image's name, with its label where it has one."""
    label = found.labels[image] if found.labels is not None else ""
    return f"{found.names[image]} ({label})" if label else found.names[image]
