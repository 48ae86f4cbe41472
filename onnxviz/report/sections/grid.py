"""The images on a regular grid by their embedding."""

from __future__ import annotations

from onnxviz.methods.image_grid import image_grid
from onnxviz.report.examination import Examination
from onnxviz.report.numbers import provenance_numbers
from onnxviz.report.section import Figure, Section, SectionSkipped, render

__all__ = ["make"]

_FEWEST_IMAGES = 10
_PIXELS = 4096
_LARGEST_THUMBNAIL = 160


def make(exam: Examination, section: Section) -> None:
    """Fill the section."""
    images = exam.need_images(_FEWEST_IMAGES)
    embedding = exam.shared.get("embedding")
    if embedding is None or embedding.method != "tsne":
        raise SectionSkipped("there is no t-SNE map to lay the images out by")
    columns = max(1, round(len(embedding.names) ** 0.5))
    grid = image_grid(
        embedding, images, features=exam.shared["features"], size=min(_PIXELS, _LARGEST_THUMBNAIL * columns)
    )
    rows, across = grid.cells.shape
    section.figures.append(
        Figure("grid", f"{len(grid.names):,} images on {rows} × {across} cells, by {grid.layout}.", render(grid))
    )
    section.numbers.update(
        rows=rows,
        columns=across,
        layout=grid.layout,
        displacement=grid.displacement,
        **provenance_numbers(grid.provenance),
    )
    section.arrays["cells"] = grid.cells
    if grid.seams_right is not None and grid.seams_below is not None:
        section.arrays |= {"seams_right": grid.seams_right, "seams_below": grid.seams_below}
