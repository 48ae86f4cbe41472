"""A RISE result in, three panels out: photo, map with its maximum, and the standard error of each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.heat import drawn_size, heat, mark_point
from onnxviz.pictures.sheet import CAPTION, FINE, Sheet, refuse_ax
from onnxviz.pictures.text import numeral, plural
from onnxviz.pictures.tiles import resize
from onnxviz.results import Rise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 300
GAP = 24
NOISY = 0.25
"""Standard error as a share of the map's range from which the picture warns."""


@plot.register(Rise)
def _plot_rise(result: Rise, ax: Axes | None = None, *, limits: tuple[float, float] | None = None) -> Figure:
    """Draw a RISE map beside its standard error.

    ``limits`` fixes the ends of the map's colour scale, so that several pictures can be compared.
    """
    refuse_ax(ax, "a RISE map")
    height, width, scale = drawn_size(result.image, SIDE)
    noise = result.noise
    finite = bool(np.isfinite(result.map).any())
    baseline = result.provenance.parameters.get("baseline")
    sheet = Sheet(
        3 * width + 2 * GAP,
        20 + height + 9 + 40,
        title=f"RISE: {result.target}",
        subtitle=[
            result.name,
            f"clean {result.scale} {numeral(result.clean)}",
            plural(result.masks, "mask"),
            f"{result.grid}×{result.grid} cells, each shown with probability {numeral(result.keep)}",
            f"baseline {baseline}" if baseline is not None else "",
        ],
        provenance=result.provenance,
        notes=[
            f"Each pixel: the mean {result.scale} over random masks, weighted by how much of the pixel they show. "
            "Bright: the target scores high where this place is seen.",
            f"The largest standard error is {numeral(100 * noise)} % of the map's range"
            + ("; most of what the map shows is noise: use more masks." if noise > NOISY else ".")
            if finite
            else "No mask gave a finite score.",
            f"{plural(result.non_finite, 'mask')} without a finite score, left out." if result.non_finite else "",
        ],
    )
    low, high = limits or colors.finite_range(result.map)
    panels = (
        ("what the network saw", resize(result.image, height * FINE, width * FINE)),
        (
            "RISE map; the cross marks its maximum",
            heat(result.image, result.map, height * FINE, width * FINE, limits=(low, high)),
        ),
        (
            "standard error of each pixel",
            heat(
                result.image, result.standard_error, height * FINE, width * FINE,
                limits=(0.0, colors.finite_range(result.standard_error)[1]), colors_name="viridis",
            ),
        ),
    )  # fmt: skip
    for index, (heading, pixels) in enumerate(panels):
        left = float(index * (width + GAP))
        sheet.text(left, 0, heading, size=CAPTION, bold=True, width=width)
        sheet.picture(pixels, left, 20, width, height)
    under, middle = 20 + height + 9.0, float(width + GAP)
    if finite:
        row, column = np.unravel_index(int(np.nanargmax(result.map)), result.map.shape)
        mark_point(sheet, float(row), float(column), middle, 20, scale)
        sheet.color_bar(
            middle, under, width, colors_name="fire", low=low, high=high, label=f"mean {result.scale} while shown"
        )
        sheet.color_bar(
            2 * middle, under, width, colors_name="viridis", low=0.0,
            high=colors.finite_range(result.standard_error)[1], label=f"in {result.scale}",
        )  # fmt: skip
    return sheet.figure
