"""Photos laid on a grid in, one RGB array of any resolution out (``grid_image``), and its picture on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import FINE, Sheet, figure_of, write
from onnxviz.pictures.text import numeral, plural
from onnxviz.pictures.tiles import Pixels, fit
from onnxviz.results import ImageGrid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grid_image"]

EMPTY_CELL = "#16181c"
LARGEST = 32768


def grid_image(result: ImageGrid, size: int = 4096, *, seams: bool = False) -> Pixels:
    """Lay the photos out at any resolution.

    Parameters
    ----------
    result : ImageGrid
    size : int
        The longer side of the picture in pixels, at least one pixel per cell and at most 32,768.
    seams : bool
        Draw a line between neighbouring cells whose brightness is their true distance in feature space, from the
        smallest (black) to the largest (white): a bright line marks a false neighbourhood (Karpathy, cnnembed).

    Returns
    -------
    (height, width, 3) uint8
        RGB; the longer of height and width is ``size``. Empty cells are dark.

    Raises
    ------
    InputError
        ``size`` is out of range, or ``seams`` was asked of a grid that was made without features.
    """
    rows, columns = result.cells.shape
    if not rows or not columns:
        return np.full((size, size, 3), colors.rgb(EMPTY_CELL), dtype=np.uint8)
    if not max(rows, columns) <= size <= LARGEST:
        raise InputError(
            "the grid cannot be drawn at this size",
            where="size",
            got=str(size),
            allowed=f"{max(rows, columns)} to {LARGEST}",
            next_step="Pass a size in that range",
        )
    if seams and (result.seams_right is None or result.seams_below is None):
        raise InputError(
            "this grid holds no seams",
            where="seams",
            got="a result that was made without features",
            next_step="Call image_grid(embedding, images, features=...)",
        )
    longest = max(rows, columns)
    down = _edges(rows, max(rows, round(size * rows / longest)))
    across = _edges(columns, max(columns, round(size * columns / longest)))
    canvas = np.full((down[-1], across[-1], 3), colors.rgb(EMPTY_CELL), dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            image = int(result.cells[row, column])
            if 0 <= image < len(result.thumbnails):
                top, bottom, left, right = down[row], down[row + 1], across[column], across[column + 1]
                canvas[top:bottom, left:right] = fit(
                    result.thumbnails[image], bottom - top, right - left, background=EMPTY_CELL
                )
    if seams:
        _draw_seams(canvas, result, down, across)
    return canvas


def _edges(cells: int, pixels: int) -> list[int]:
    """Where cells begin and end: whole pixels, as equal as they can be."""
    return [round(cell * pixels / cells) for cell in range(cells + 1)]


def _draw_seams(canvas: Pixels, result: ImageGrid, down: list[int], across: list[int]) -> None:
    assert result.seams_right is not None
    assert result.seams_below is not None
    low, high = _seam_range(result)
    cell = min(down[1] - down[0], across[1] - across[0])
    before = max(1, cell // 24)
    after = max(0, -(-cell // 12) - before)

    def paint(distances: NDArray[np.float64]) -> Pixels:
        grey = colors.to_bytes(distances, low, high)
        return np.repeat(grey[..., None], 3, axis=-1)

    right, below = paint(result.seams_right), paint(result.seams_below)
    for row, column in zip(*np.nonzero(np.isfinite(result.seams_right)), strict=True):
        middle = across[column + 1]
        canvas[down[row] : down[row + 1], middle - before : middle + after] = right[row, column]
    for row, column in zip(*np.nonzero(np.isfinite(result.seams_below)), strict=True):
        middle = down[row + 1]
        canvas[middle - before : middle + after, across[column] : across[column + 1]] = below[row, column]


def _seam_range(result: ImageGrid) -> tuple[float, float]:
    assert result.seams_right is not None
    assert result.seams_below is not None
    return colors.finite_range(np.concatenate([result.seams_right.ravel(), result.seams_below.ravel()]))


@plot.register(ImageGrid)
def _plot_image_grid(result: ImageGrid, ax: Axes | None = None, *, seams: bool = False) -> Figure:
    """Draw the grid on a page; ``seams`` as in ``grid_image``, which also gives the picture at any resolution."""
    rows, columns = result.cells.shape
    placed = int((result.cells >= 0).sum())
    longest = max(rows, columns, 1)
    if ax is not None:
        ax.set_axis_off()
        ax.imshow(
            grid_image(result, max(1200, longest), seams=seams),
            interpolation="antialiased",
            origin="upper",
            aspect="equal",
        )
        counted = f"{placed:,} of {plural(len(result.names), 'photo')} on {columns} × {rows}, {result.layout}"
        write(ax, 0, -0.02, counted, size=6.5, vertical="top", inside=False)
        return figure_of(ax, result.provenance, "")
    side = 920
    picture = grid_image(result, max(side * FINE, longest), seams=seams)
    scale = side / max(picture.shape[:2])
    height, width = picture.shape[0] * scale, picture.shape[1] * scale
    how = {"assignment": "by optimal assignment", "karpathy": "by Karpathy's greedy rule"}.get(
        result.layout, result.layout
    )
    mean = f"mean displacement {numeral(result.displacement / placed)} grid widths" if placed else ""
    sheet = Sheet(
        width,
        height + (46 if seams else 0),
        title="Photos laid out by their features",
        subtitle=[f"{placed:,} of {plural(len(result.names), 'photo')} on {columns} × {rows} cells", how, mean],
        provenance=result.provenance,
        notes=["A bright seam parts two photos that are far from each other in feature space." if seams else ""],
    )
    sheet.picture(picture, 0, 0, width, height, smooth=True)
    if seams:
        low, high = _seam_range(result)
        sheet.color_bar(
            0, height + 10, 300, colors_name="grey", low=low, high=high, label="true distance between neighbours"
        )
    return sheet.figure
