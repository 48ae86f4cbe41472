"""Hubness in, a histogram of the k-occurrences out, and below it the images that occur most and those never."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, nice_ticks, refuse_ax, style_chart, write
from onnxviz.pictures.text import numeral, plural
from onnxviz.results import Hubness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 10
SIDE = 92
STEP = SIDE + 8.0
WIDTH = MOST * STEP - 8
CHART = 260.0
ROW = SIDE + 54.0
MOST_BARS = 120


@plot.register(Hubness)
def _plot_hubness(result: Hubness, ax: Axes | None = None) -> Figure:
    """Draw how many images occur how often, the most frequent hubs and some antihubs."""
    refuse_ax(ax, "hubness")
    count = len(result.occurrences)
    rows = [
        (title, images)
        for title, images in (("hubs", result.hubs[:MOST]), ("antihubs", result.antihubs[:MOST]))
        if len(images)
    ]
    bad = result.bad_occurrences
    labelled = bad is not None
    sheet = Sheet(
        WIDTH,
        CHART + len(rows) * ROW,
        title="Hubness: how often each image is a neighbour of others",
        subtitle=[
            plural(count, "image"),
            f"k = {result.n_neighbors}",
            f"skewness {numeral(result.skewness)}",
            plural(len(result.hubs), "hub"),
            plural(len(result.antihubs), "antihub"),
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            f"N_k is the number of images that have this one among their {result.n_neighbors} nearest; without hubs it "
            f"stays near its mean, which is {result.n_neighbors}. Hubs exceed the mean by two standard deviations; "
            "antihubs are nobody's neighbour.",
            "bad: the share of these images that are of another class." if labelled else "",
        ],
    )
    _histogram(sheet.axes(48, 8, WIDTH - 48, CHART - 70), result)
    place = {int(image): row for row, image in enumerate(result.shown)}
    for number, (title, images) in enumerate(rows):
        top = CHART + number * ROW
        whole = len(result.hubs if title == "hubs" else result.antihubs)
        sheet.text(0, top, f"{title}, {len(images)} of {whole:,}", size=9, bold=True)
        for rank, image in enumerate(images.tolist()):
            left = rank * STEP
            pixels = result.thumbnails[place[image]] if image in place else None
            sheet.photo(pixels, left, top + 18, SIDE)
            occurs = int(result.occurrences[image])
            text = f"N_k {occurs:,}"
            if bad is not None and occurs:
                text += f", {100 * int(bad[image]) / occurs:.0f} % bad"
            sheet.text(left, top + 18 + SIDE + 3, result.names[image], size=6.2, color=colors.QUIET, width=SIDE)
            sheet.text(left, top + 18 + SIDE + 14, text, size=6.6, width=SIDE + 6)
    return sheet.figure


def _histogram(ax: Axes, result: Hubness) -> None:
    highest = int(result.occurrences.max(initial=0))
    step = max(1, -(-(highest + 1) // MOST_BARS))
    bins = highest // step + 1
    hub = np.zeros(len(result.occurrences), bool)
    hub[result.hubs] = True
    tallest = 1.0
    middles = np.arange(bins) * step + (step - 1) / 2
    ax.set_xlim(-0.75 * step, bins * step)
    for chosen, color in ((~hub, colors.BAR), (hub, colors.WRONG)):
        counts = np.bincount(result.occurrences[chosen] // step, minlength=bins)
        # By the logarithm of 1 + count: a single hub far to the right is the very thing to see.
        ax.bar(middles, np.log10(1 + counts), width=0.9 * step, color=color, linewidth=0)
        tallest = max(tallest, float(np.log10(1 + counts).max(initial=0)))
    ax.set_ylim(0, tallest * 1.1)
    marks = [mark for mark in (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000) if np.log10(1 + mark) <= tallest * 1.05]
    style_chart(
        ax,
        x_ticks={at: text for at, text in nice_ticks(0, max(highest, 1), 10).items() if at == int(at)},
        y_ticks={float(np.log10(1 + mark)): f"{mark:,}" for mark in marks},
        x_label=f"N_k, occurrences among the {result.n_neighbors} nearest of the others",
        y_label="images",
        grid="y",
    )
    ax.axvline(result.n_neighbors, color=colors.INK, linewidth=0.9)
    write(ax, result.n_neighbors + 0.005 * bins * step, tallest * 1.04, "mean", size=7)
    if len(result.hubs):
        write(ax, 0.995, 0.94, "hubs", size=7.5, color=colors.WRONG, bold=True, align="right", inside=False)
