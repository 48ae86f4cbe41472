"""Class purity in, one bar and one row of a matrix per class out: who the neighbours of each class are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, refuse_ax, style_chart, write
from onnxviz.pictures.text import class_name, elide, plural
from onnxviz.results import ClassPurity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_IN_MATRIX = 30
MOST_BARS = 40
NAMES, BARS, BETWEEN = 140.0, 250.0, 34.0
HEAD = 26.0


@plot.register(ClassPurity)
def _plot_class_purity(result: ClassPurity, ax: Axes | None = None) -> Figure:
    """Draw the purity of each class and, up to 30 classes, the whole matrix; of more, the 40 least pure."""
    refuse_ax(ax, "class purity")
    classes = len(result.classes)
    matrix = classes <= MOST_IN_MATRIX
    shown = np.arange(classes) if matrix else np.argsort(result.purity, kind="stable")[:MOST_BARS]
    cell = float(np.clip(600 / max(classes, 1), 21, 44)) if matrix else 21.0
    height = cell * len(shown)
    weights = result.counts / max(int(result.counts.sum()), 1)
    sheet = Sheet(
        NAMES + BARS + BETWEEN + (max(cell * classes, 200) if matrix else 260),
        HEAD + height + (80 if matrix else 24),
        title="Class purity: of which class the neighbours are",
        subtitle=[
            plural(int(result.counts.sum()), "labelled image"),
            plural(classes, "class", "classes"),
            f"{plural(result.n_neighbors, 'neighbour')} of each",
            f"{100 * float(weights @ result.purity):.1f} % of all neighbours are of the same class",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            "Bars: mean share of an image's neighbours that are of its own class; the dark tick is what neighbours "
            "drawn at random would give." + (" Rows of the matrix: the class of the image." if matrix else ""),
            "Some classes have fewer other images than neighbours: the pale bar ends at the highest purity possible."
            if (result.ceiling < 1).any()
            else "",
            f"The {len(shown)} least pure of {classes:,} classes." if len(shown) < classes else "",
        ],
    )
    sheet.text(NAMES, 0, "purity", size=9, bold=True)
    _bars(sheet, result, shown, cell)
    left = NAMES + BARS + BETWEEN
    if matrix:
        sheet.text(left, 0, "neighbours' classes, in %", size=9, bold=True)
        _matrix(sheet.axes(left, HEAD, cell * classes, height), result, cell)
    else:
        sheet.text(left, 0, "otherwise mostly", size=9, bold=True)
        for place, row in enumerate(shown):
            sheet.text(left, HEAD + (place + 0.5) * cell, _otherwise(result, int(row)), size=7.5, vertical="center")
    return sheet.figure


def _bars(sheet: Sheet, result: ClassPurity, shown: np.ndarray, cell: float) -> None:
    for place, row in enumerate(shown):
        name = f"{class_name(result.class_names, int(result.classes[row]))}  ({result.counts[row]:,})"
        middle = HEAD + (place + 0.5) * cell
        sheet.text(NAMES - 8, middle, elide(name, NAMES - 8, 7.5), size=7.5, align="right", vertical="center")
    ax = sheet.axes(NAMES, HEAD, BARS, cell * len(shown))
    ax.set_xlim(0, 1)
    ax.set_ylim(len(shown), 0)
    at = np.arange(len(shown)) + 0.5
    style_chart(ax, x_ticks={share: f"{100 * share:.0f} %" for share in (0.0, 0.25, 0.5, 0.75, 1.0)}, grid="x")
    ax.spines["left"].set_visible(False)
    ax.barh(at, result.ceiling[shown], height=0.56, color=colors.PALE, linewidth=0)
    ax.barh(at, result.purity[shown], height=0.56, color=colors.BAR, linewidth=0)
    ax.vlines(result.chance[shown], at - 0.36, at + 0.36, color=colors.INK, linewidth=1.2)
    for y, row in zip(at, shown, strict=True):
        share = float(result.purity[row])
        inside = share > 0.2
        write(
            ax, share - 0.015 if inside else max(share, float(result.chance[row])) + 0.02, y, f"{100 * share:.0f}",
            size=7, color=colors.PAPER if inside else colors.INK, align="right" if inside else "left",
        )  # fmt: skip


def _otherwise(result: ClassPurity, row: int) -> str:
    """The two classes to which most neighbours of other classes belong."""
    shares = result.matrix[row].copy()
    shares[row] = 0
    first = np.argsort(-shares, kind="stable")[:2]
    told = [
        f"{elide(class_name(result.class_names, int(result.classes[column])), 110, 7.5)} ({100 * shares[column]:.0f} %)"
        for column in first
        if shares[column] > 0
    ]
    return ", ".join(told)


def _matrix(ax: Axes, result: ClassPurity, cell: float) -> None:
    shares = result.matrix
    classes = len(shares)
    # Pale for few, dark for many, by the square root: a share of 5 % must not vanish beside one of 90 %.
    shade = colors.colorize(-np.sqrt(shares), "fire", -1.25, 0.0)
    ax.set_axis_on()
    ax.imshow(shade, interpolation="nearest", origin="upper", aspect="auto", extent=(0, classes, classes, 0))
    ticks = {
        column + 0.5: elide(class_name(result.class_names, int(number)), 92, 7.2)
        for column, number in enumerate(result.classes)
    }
    style_chart(ax, x_ticks=ticks)
    for text in ax.get_xticklabels():
        text.set(rotation=40, ha="right", rotation_mode="anchor")
    for row in range(classes):
        for column in range(classes):
            percent = round(100 * float(shares[row, column]))
            if percent:
                ink = colors.PAPER if shares[row, column] > 0.3 else colors.INK
                write(
                    ax, column + 0.5, row + 0.5, str(percent), size=7.2 if cell > 26 else 5.6, color=ink,
                    align="center",
                )  # fmt: skip
