"""Class pictures in, a labelled grid of them out, beside each mean image that one started from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, refuse_ax
from onnxviz.pictures.text import class_name, numeral, plural
from onnxviz.pictures.tiles import Pixels, columns_for
from onnxviz.results import ClassVisualization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = 960
LARGEST, SMALLEST = 224, 48
BETWEEN, LABEL = 10, 32
_HOW = {
    "fourier": "Fourier spectrum, robust to small movements",
    "simonyan": "pixels, held small",
    "yosinski": "pixels that fade and blur",
    "nguyen": "pixels under total variation",
}


@plot.register(ClassVisualization)
def _plot_class_visualization(
    result: ClassVisualization, ax: object = None, *, columns: int | None = None, curves: bool = False
) -> Figure:
    """Draw the pictures in a grid, the class below each; ``curves`` adds how the score rose.

    Pictures of facets stand in rows, one class each, the mean image that each started from above it. Where all started
    from the same picture, that is the first of the grid.
    """
    refuse_ax(ax, "class pictures")
    if columns is not None and columns < 1:
        raise InputError("a grid needs at least one column", where="columns", got=str(columns), allowed="1 or more")
    count = len(result.pictures)
    height, width = result.pictures.shape[1:3]
    alike = result.starts is not None and count > 0 and bool((result.starts == result.starts[:1]).all())
    rows_of_facets = result.starts is not None and not alike
    facets = int(result.facets.max(initial=0)) + 1
    tiles = count + alike
    if columns is None:
        columns = facets if rows_of_facets else grid_columns(tiles)
    tile = int(np.clip((PAGE + BETWEEN) // columns - BETWEEN, SMALLEST, LARGEST))
    tall = max(1, round(tile * height / width))
    above = tall // 2 + 6 if rows_of_facets else 0
    pitch = above + tall + LABEL
    rows = -(-tiles // columns)
    shared = len(set(result.classes.tolist())) == 1 and rows_of_facets
    certain = float(np.mean(result.probabilities > 0.9)) if count else 0.0
    steps = len(result.curve)
    sheet = Sheet(
        columns * (tile + BETWEEN) - BETWEEN,
        max(rows * pitch, 20) + (124 if curves else 0),
        title=f"What the network takes for {_named(result, 0)}" if shared else "Class pictures by gradient ascent",
        subtitle=[
            plural(count, "picture"),
            _HOW.get(result.method, result.method),
            plural(steps, "step"),
            f"{certain:.0%} stay above .9 when shifted",
        ],
        provenance=result.provenance,
        notes=[
            f"p is the probability of the class, the mean over {plural(result.jitters, 'random shift')} of the "
            f"finished picture by up to {plural(result.reach, 'pixel')}; {result.scale} is its score as it is.",
            "The small picture is the mean of the images that the one below it started from."
            if rows_of_facets
            else f"All started from {_start(result)}.",
        ],
    )
    if alike and result.starts is not None:
        sheet.picture(smooth(result.starts[0], tall * FINE, tile * FINE), 0, 0, tile, tall)
        sheet.text(tile / 2, tall + 3, "start of all", size=CAPTION, color=colors.QUIET, align="center", width=tile)
    for index, picture in enumerate(result.pictures):
        place = index + alike
        left, top = place % columns * (tile + BETWEEN), place // columns * pitch
        if rows_of_facets and result.starts is not None:
            small = max(1, round(tile / 2))
            shown = smooth(result.starts[index], tall // 2 * FINE, small * FINE)
            sheet.picture(shown, left, top, small, tall // 2)
        sheet.picture(smooth(picture, tall * FINE, tile * FINE), left, top + above, tile, tall)
        below = top + above + tall + 3
        middle = left + tile / 2
        sheet.text(middle, below, _named(result, index), size=CAPTION, align="center", width=tile + BETWEEN - 4)
        said = f"p {numeral(result.probabilities[index])}"
        if tile >= 84:
            said += f"  ·  {result.scale} {numeral(result.scores[index])}"
        sure = result.probabilities[index] > 0.9
        sheet.text(
            middle, below + 14, said, size=6.8, color=colors.QUIET if sure else colors.WARNING, align="center",
            width=tile + BETWEEN - 4,
        )  # fmt: skip
    if curves:
        _draw_curves(sheet, result, rows * pitch + 14, min(columns * (tile + BETWEEN) - BETWEEN, 620))
    return sheet.figure


def grid_columns(tiles: int) -> int:
    """One row of a few, else a grid about twice as wide as tall."""
    return max(1, tiles) if tiles <= 5 else columns_for(tiles, 1, 1, aspect=1.9)


def smooth(pixels: Pixels, height: int, width: int) -> Pixels:
    """RGB brought to height × width; what is enlarged is interpolated, for its pixels mean nothing by themselves."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _named(result: ClassVisualization, index: int) -> str:
    """The first of the class's names: ImageNet's list synonyms."""
    return class_name(result.labels, int(result.classes[index])).split(",")[0]


def _start(result: ClassVisualization) -> str:
    start = result.provenance.parameters.get("start")
    if start == "images":
        count = int(result.provenance.parameters.get("images") or 0)
        return f"the first picture, the mean of {plural(count, 'image')} of any class, and noise"
    if isinstance(start, str):
        return "the first picture and noise" if start.startswith("picture ") else f"the colour {start!r} and noise"
    return "one colour and noise"


def _draw_curves(sheet: Sheet, result: ClassVisualization, top: float, width: float) -> None:
    """The score in each step, one thin line for each picture."""
    from onnxviz.pictures.sheet import style_chart

    ax = sheet.axes(34, top, width - 34, 72)
    steps = np.arange(1, len(result.curve) + 1)
    for curve in result.curve.T:
        ax.plot(steps, curve, color=colors.BAR, linewidth=0.6, alpha=0.7, marker="None", linestyle="-")
    low, high = colors.finite_range(result.curve)
    style_chart(
        ax, x_ticks={float(number): f"{number:,}" for number in {1, len(result.curve)}},
        y_ticks={number: numeral(number) for number in dict.fromkeys((low, high))},
        x_label="step", y_label=result.scale, grid="y",
    )  # fmt: skip
