"""The feature space by PCA and by t-SNE."""

from __future__ import annotations

from onnxviz.methods.embedding import embed
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, render
from onnxviz.results import Embedding, Features

__all__ = ["make"]

_FEWEST_FOR_PCA = 4
_FEWEST_FOR_TSNE = 10


def make(exam: Examination, section: Section) -> None:
    """Fill the section and share the map that the grid is made from."""
    found = exam.need_features(_FEWEST_FOR_PCA)
    section.arrays["features"] = found.array
    section.numbers.update(
        value=found.value, dimensions=found.array.shape[1], images=len(found.array), pooled=found.pooled
    )
    _add(exam, section, found, "pca", "PCA")
    if len(found.array) >= _FEWEST_FOR_TSNE:
        _add(exam, section, found, "tsne", "t-SNE")
    else:
        section.notes.append(
            f"No t-SNE: {len(found.array)} images; a map of neighbourhoods needs at least {_FEWEST_FOR_TSNE}."
        )


def _add(exam: Examination, section: Section, found: Features, method: str, title: str) -> None:
    embedding: Embedding = embed(found, method=method, random_state=exam.options.seed)
    exam.shared["embedding"] = embedding
    about = f"{title} of {found.value}, {found.array.shape[1]:,} numbers for each of {len(found.array):,} images"
    if embedding.explained_variance_ratio is not None:
        about += f"; the two directions hold {embedding.explained_variance_ratio.sum():.0%} of the variance"
    section.figures.append(
        Figure(method, f"{about}; trustworthiness {embedding.trustworthiness:.2f}.", render(embedding), wide=False)
    )
    section.arrays[method] = embedding.coordinates
    section.numbers[method] = {
        "trustworthiness": embedding.trustworthiness,
        "explained_variance_ratio": embedding.explained_variance_ratio,
    } | provenance_numbers(embedding.provenance)
