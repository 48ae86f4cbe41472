"""Trials with a planted cause in, a page out: how often each method points to it, and its maps on the first images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.heat import drawn_size, heat, mark_box, mark_point
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, refuse_ax, style_chart, write
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.pictures.tiles import resize
from onnxviz.results import PlantedCause

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 150
GAP = 14
ROW = 27.0
NAMES = 190.0
CHART = 520.0
PATTERN = 84
MOST_METHODS = 8
"""Columns of maps; the chart holds every method."""


@plot.register(PlantedCause)
def _plot_planted_cause(result: PlantedCause, ax: Axes | None = None) -> Figure:
    """Draw the rate of hits of every method and control, and their maps on the first trials."""
    refuse_ax(ax, "a planted cause")
    methods, trials = result.hits.shape
    drawn = _drawn(result)
    height, width, scale = drawn_size(result.images[0], SIDE)
    chart = methods * ROW
    top = 24 + max(chart + 46, PATTERN + 40.0)
    sheet = Sheet(
        max(NAMES + CHART + 170, (1 + len(drawn)) * (width + GAP) - GAP),
        top + 20 + len(result.images) * (height + GAP),
        title="Planted cause: which maps point to the pattern that alone decides the class?",
        subtitle=[
            result.target,
            plural(trials, "trial"),
            f"pattern {result.pattern.shape[1]}×{result.pattern.shape[0]} px",
            f"probability {numeral(result.scores[:, 0].mean())} without it, "
            f"{numeral(result.scores[:, 1].mean())} with it",
            f"{plural(len(result.left_out), 'image')} left out" if result.left_out else "",
        ],
        provenance=result.provenance,
        notes=[
            "The network was edited: a matched filter on its input is all that this class depends on. A map hits where "
            "its largest number lies in the pattern's box.",
            f"Bars: Wilson's interval of 95 %. Dashed: a pixel drawn at random ({numeral(100 * result.chance)} %). "
            "Controls know nothing of the network.",
        ],
    )
    sheet.text(0, 0, "maps that point to the cause", size=CAPTION, bold=True)
    _rates(sheet.axes(NAMES, 20, CHART, chart), result)
    for index, name in enumerate(result.methods):
        control = index >= methods - result.controls
        text = elide(f"{name} (control)" if control else name, NAMES - 8, 8.5)
        sheet.text(
            NAMES - 8, 20 + (index + 0.5) * ROW, text, size=8.5, align="right", vertical="center",
            color=colors.QUIET if control else colors.INK,
        )  # fmt: skip
    sheet.text(NAMES + CHART + 86, 0, "the pattern", size=CAPTION, bold=True)
    sheet.photo(result.pattern, NAMES + CHART + 86, 20, PATTERN)
    for column, heading in enumerate(("the pattern outlined", *(result.methods[index] for index in drawn))):
        sheet.text(column * (width + GAP), top, heading, size=7.6, bold=True, width=width)
    for trial, image in enumerate(result.images):
        y = top + 20 + trial * (height + GAP)
        sheet.picture(resize(image, height * FINE, width * FINE), 0, y, width, height)
        mark_box(sheet, result.boxes[trial], 0, y, scale)
        for column, index in enumerate(drawn, start=1):
            x = float(column * (width + GAP))
            sheet.picture(heat(image, result.maps[index, trial], height * FINE, width * FINE), x, y, width, height)
            mark_box(sheet, result.boxes[trial], x, y, scale)
            row, place = result.peaks[index, trial].tolist()
            hit = bool(result.hits[index, trial])
            mark_point(sheet, row, place, x, y, scale, color="#3ddc97" if hit else "#ff7a33")
    return sheet.figure


def _drawn(result: PlantedCause) -> list[int]:
    """Methods whose maps are shown: the first ones, and the controls always."""
    methods = len(result.methods)
    own = methods - result.controls
    return [*range(min(own, MOST_METHODS - result.controls)), *range(own, methods)]


def _rates(ax: Axes, result: PlantedCause) -> None:
    methods = len(result.methods)
    ax.set_xlim(0, 1.14)
    ax.set_ylim(methods - 0.5, -0.5)
    style_chart(ax, x_ticks={0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}, grid="x")
    places = np.arange(methods)
    paints = [colors.NEUTRAL if index >= methods - result.controls else colors.BAR for index in range(methods)]
    ax.barh(places, result.rates, height=0.56, color=paints, linewidth=0)
    ax.plot([result.chance] * 2, [-0.5, methods - 0.5], color=colors.INK, linewidth=0.8, linestyle="--", marker="None")
    for index, (low, high) in enumerate(result.intervals):
        ax.plot([low, high], [index, index], color=colors.INK, linewidth=1.2, linestyle="-", marker="None")
        count = int(result.hits[index].sum())
        at = max(float(high), float(result.rates[index])) + 0.012
        write(ax, at, index, f"{count:,} of {result.hits.shape[1]:,}", size=7.5, color=colors.QUIET)
