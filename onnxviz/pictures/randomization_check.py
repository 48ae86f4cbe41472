"""Maps of a network whose weights are shuffled in, a page out: what is left of each, and how alike it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.heat import drawn_size, heat
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, refuse_ax
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.pictures.tiles import resize
from onnxviz.results import RandomizationCheck

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 116
GAP = 10
NAMES = 150.0


@plot.register(RandomizationCheck)
def _plot_randomization_check(result: RandomizationCheck, ax: Axes | None = None) -> Figure:
    """Draw the maps of every stage, a row for each method, with the rank correlation below each."""
    refuse_ax(ax, "a randomisation check")
    methods, stages = result.correlations.shape
    height, width, _ = drawn_size(result.image, SIDE)
    row = height + 26
    sheet = Sheet(
        NAMES + (stages + 2) * (width + GAP),
        34 + methods * row,
        title="Weights shuffled: which maps change?",
        subtitle=[
            result.target,
            plural(len(result.layers), "layer") + " with weights",
            f"probability {numeral(result.probabilities[0])} as it is, {numeral(result.probabilities[-1])} with all "
            "layers shuffled",
        ],
        provenance=result.provenance,
        notes=[
            "Weights are shuffled layer by layer, from the scores to the input (Adebayo et al. 2018). Below each map: "
            "its rank correlation with the map of the network as it is.",
            "A map that stays alike does not show what was learned. The edge detector is a control: it never changes.",
        ],
    )
    headings = ["photo", "as it is", *(f"{count} shuffled" for count in result.shuffled.tolist())]
    headings[-1] = "all shuffled"
    for column, heading in enumerate(headings):
        sheet.text(NAMES + column * (width + GAP), 8, heading, size=CAPTION, bold=True, width=width)
    for index, name in enumerate(result.methods):
        y = 34.0 + index * row
        control = index >= methods - result.controls
        text = elide(f"{name} (control)" if control else name, NAMES - 10, 8.5)
        sheet.text(
            NAMES - 10, y + height / 2, text, size=8.5, align="right", vertical="center",
            color=colors.QUIET if control else colors.INK,
        )  # fmt: skip
        sheet.picture(resize(result.image, height * FINE, width * FINE), NAMES, y, width, height)
        for stage in range(stages + 1):
            x = NAMES + (stage + 1) * (width + GAP)
            drawn = heat(result.image, result.maps[index, stage], height * FINE, width * FINE)
            sheet.picture(drawn, x, y, width, height)
            if stage:
                alike = result.correlations[index, stage - 1]
                shown = "constant map" if np.isnan(alike) else numeral(alike)
                sheet.text(x, y + height + 4, shown, size=8, color=colors.QUIET, width=width)
    return sheet.figure
