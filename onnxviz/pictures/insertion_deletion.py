"""Insertion and deletion curves in, a page out: photo, map, and both charts, the controls beside the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.heat import drawn_size, heat
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, legend, nice_ticks, refuse_ax, style_chart
from onnxviz.pictures.text import numeral
from onnxviz.pictures.tiles import resize
from onnxviz.results import InsertionDeletion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 236
CHART = 290.0
TALL = 236.0
GAP = 22
PAINTS = (colors.NEUTRAL, "#ee7733", *colors.CATEGORIES)


@plot.register(InsertionDeletion)
def _plot_insertion_deletion(result: InsertionDeletion, ax: Axes | None = None) -> Figure:
    """Draw both curves, with those of the controls where there are any."""
    refuse_ax(ax, "insertion and deletion")
    height, width, _ = drawn_size(result.image, SIDE)
    entries = 1 + len(result.controls)
    below = 42 + 17.0 * entries
    left = 2.0 * (width + GAP)
    steps = len(result.fractions) - 1
    sheet = Sheet(
        left + 2 * (CHART + 44) + GAP,
        20 + max(TALL + below, height),
        title=f"Insertion and deletion: {result.target}",
        subtitle=[
            result.name,
            f"score: {result.scale}",
            f"{steps:,} steps of {result.step:,} px",
            f"inserted into: {result.insertion_substrate}",
            f"deleted to: {result.deletion_substrate}",
        ],
        provenance=result.provenance,
        notes=[
            "Pixels change in the map's order, the most salient first. A map that knows what the network looks at "
            "makes the score rise early when they are inserted and fall early when they are deleted.",
            "Controls know nothing of the network: a random order, and the edges of the photo. A map is worth "
            "something where it beats both. Random deletion spoils the whole photo: deletion alone proves little."
            if result.controls
            else "Areas mean something only beside those of other maps on the same image: ask for controls=True.",
        ],
    )
    for index, (heading, pixels) in enumerate(
        (
            ("what the network saw", resize(result.image, height * FINE, width * FINE)),
            ("the map that is judged", heat(result.image, result.map, height * FINE, width * FINE)),
        )
    ):
        sheet.text(index * (width + GAP), 0, heading, size=CAPTION, bold=True, width=width)
        sheet.picture(pixels, index * (width + GAP), 20, width, height)
    both = (
        ("insertion: a large area is good", result.insertion, result.control_insertion, result.insertion_area,
         result.control_insertion_areas, "pixels inserted"),
        ("deletion: a small area is good", result.deletion, result.control_deletion, result.deletion_area,
         result.control_deletion_areas, "pixels deleted"),
    )  # fmt: skip
    everything = [result.insertion, result.deletion, result.control_insertion.ravel(), result.control_deletion.ravel()]
    low, high = colors.finite_range(np.concatenate(everything))
    limits = (0.0, 1.0) if result.scale == "probability" else (low, high if high > low else low + 1)
    for index, (heading, curve, controls, area, areas, label) in enumerate(both):
        x = left + 40 + index * (CHART + 44 + GAP)
        sheet.text(x, 0, heading, size=CAPTION, bold=True, width=CHART)
        chart = sheet.axes(x, 20, CHART, TALL)
        _draw(chart, result, curve, controls, limits, label, first=index == 0)
        named = [(colors.BAR, "s", f"this map: area {numeral(area)}")]
        named += [
            (PAINTS[number], "s", f"control, {name}: area {numeral(areas[number])}")
            for number, name in enumerate(result.controls)
        ]
        legend(sheet, x, 20 + TALL + 42, CHART, named, size=8)
    return sheet.figure


def _draw(
    ax: Axes, result: InsertionDeletion, curve: NDArray[np.float64], controls: NDArray[np.float64],
    limits: tuple[float, float], label: str, *, first: bool,
) -> None:  # fmt: skip
    low, high = limits
    room = (high - low) * 0.03
    ax.set_xlim(0, 1)
    ax.set_ylim(low - room, high + room)
    style_chart(
        ax, x_ticks={0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"},
        y_ticks=nice_ticks(low, high, 5), x_label=label, y_label=result.scale if first else "", grid="y",
    )  # fmt: skip
    ax.fill_between(result.fractions, low, curve, color=colors.BAND, alpha=0.55, linewidth=0)
    for number, control in enumerate(controls):
        ax.plot(result.fractions, control, color=PAINTS[number], linewidth=1.3, linestyle="-", marker="None")
    ax.plot(result.fractions, curve, color=colors.BAR, linewidth=2.0, linestyle="-", marker="None")
