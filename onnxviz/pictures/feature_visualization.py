"""Feature pictures in, a labelled grid of them out: what excites each channel, or each neuron, of one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.class_visualization import grid_columns, smooth
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, refuse_ax
from onnxviz.pictures.text import numeral, plural
from onnxviz.results import FeatureVisualization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = 960
LARGEST, SMALLEST = 224, 48
BETWEEN, LABEL = 10, 32


@plot.register(FeatureVisualization)
def _plot_feature_visualization(
    result: FeatureVisualization, ax: object = None, *, columns: int | None = None
) -> Figure:
    """Draw the pictures in a grid, channel and activation below each."""
    refuse_ax(ax, "feature pictures")
    if columns is not None and columns < 1:
        raise InputError("a grid needs at least one column", where="columns", got=str(columns), allowed="1 or more")
    count = len(result.pictures)
    height, width = result.pictures.shape[1:3]
    columns = columns or grid_columns(count)
    tile = int(np.clip((PAGE + BETWEEN) // columns - BETWEEN, SMALLEST, LARGEST))
    tall = max(1, round(tile * height / width))
    pitch = tall + LABEL
    risen = result.scores > result.start_scores
    where = "" if result.position is None else f" at row {result.position[0]}, column {result.position[1]}"
    sheet = Sheet(
        columns * (tile + BETWEEN) - BETWEEN,
        max(-(-count // columns) * pitch, 20),
        title=f"What excites {result.value}",
        subtitle=[
            plural(count, "channel") if result.unit == "channel" else plural(count, "neuron") + where,
            plural(len(result.curve), "step"),
            "" if risen.all() else f"{plural(int((~risen).sum()), 'picture')} did not rise above the start",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "Below each picture its channel, and the "
            + ("mean activation over space" if result.unit == "channel" else "activation of the neuron")
            + " at the start and for the finished picture."
        ],
    )
    for index, picture in enumerate(result.pictures):
        left, top = index % columns * (tile + BETWEEN), index // columns * pitch
        sheet.picture(smooth(picture, tall * FINE, tile * FINE), left, top, tile, tall)
        middle, below = left + tile / 2, top + tall + 3
        sheet.text(middle, below, f"channel {result.channels[index]}", size=CAPTION, align="center", width=tile)
        said = f"{numeral(result.start_scores[index])} → {numeral(result.scores[index])}"
        color = colors.QUIET if risen[index] else colors.WARNING
        sheet.text(middle, below + 14, said, size=6.8, color=color, align="center", width=tile)
    return sheet.figure
