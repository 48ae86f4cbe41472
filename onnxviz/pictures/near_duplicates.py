"""Near-duplicates in, the pairs side by side out, below the chart of how close the images come to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, nice_ticks, refuse_ax, style_chart, write
from onnxviz.pictures.text import numeral, plural
from onnxviz.results import NearDuplicates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
SIDE = 112
CARD, GAP = 2 * SIDE + 3.0, 28.0
CHART = 120.0
BINS = 60


@plot.register(NearDuplicates)
def _plot_near_duplicates(result: NearDuplicates, ax: Axes | None = None, *, max_pairs: int = 24) -> Figure:
    """Draw the closest pairs; those whose labels differ are framed orange."""
    refuse_ax(ax, "near-duplicates")
    if max_pairs < 1:
        raise InputError(
            "a picture needs at least one pair", where="max_pairs", got=str(max_pairs), allowed="1 or more",
            next_step="Pass a larger number",
        )  # fmt: skip
    shown = min(len(result.pairs), max_pairs)
    labelled = result.labels is not None and result.other_labels is not None
    conflicting = result.conflicting
    pitch = SIDE + (46.0 if labelled else 34.0)
    rows = -(-shown // COLUMNS)
    head = CHART + 62
    k = result.provenance.parameters.get("n_neighbors")
    scale = f"the distance of neighbour number {k}" if k else "the distance of ordinary neighbours"
    sheet = Sheet(
        COLUMNS * CARD + (COLUMNS - 1) * GAP,
        head + max(rows * pitch, 30),
        title="Near-duplicates within the images" if result.within else "Near-duplicates across two sets of images",
        subtitle=[
            plural(len(result.pairs), "pair"),
            f"{plural(len(result.affected), 'image')} of {len(result.names):,}"
            + ("" if result.within else f", compared with {len(result.other_names):,}"),
            f"{plural(int(conflicting.sum()), 'pair')} with different labels" if labelled else "",
        ],
        provenance=result.provenance,
        value=result.value,
        notes=[
            f"A pair is at most {numeral(result.threshold)} of its scale apart; the scale is {scale}, or more where "
            "that is far below the median. Below each pair: this share, and the distance itself.",
            "Framed orange and marked ✗: the labels differ." if conflicting.any() else "",
            f"{shown} of {plural(len(result.pairs), 'pair')} drawn." if shown < len(result.pairs) else "",
        ],
    )
    other = "another" if result.within else "one of the other set"
    sheet.text(0, 0, f"how close each image comes to {other}", size=9, bold=True)
    _chart(sheet.axes(44, 22, sheet.width - 44, CHART - 22), result)
    if not shown:
        sheet.text(0, head, "no pair is that close", color=colors.QUIET)
    for place in range(shown):
        _card(sheet, result, place, place % COLUMNS * (CARD + GAP), head + place // COLUMNS * pitch, labelled=labelled)
    return sheet.figure


def _card(sheet: Sheet, result: NearDuplicates, place: int, left: float, top: float, *, labelled: bool) -> None:
    first, second = (int(index) for index in result.pairs[place])
    conflict = bool(result.conflicting[place])
    edge = colors.WRONG if conflict else ""
    sides = ((result.names, result.labels, first), (result.other_names, result.other_labels, second))
    for side, (names, labels, image) in enumerate(sides):
        x = left + side * (SIDE + 3)
        pixels = result.thumbnails[place, side] if place < len(result.thumbnails) else None
        sheet.photo(pixels, x, top, SIDE, edge=edge)
        sheet.text(x, top + SIDE + 3, names[image], size=6.6, width=SIDE - 4)
        if labelled and labels is not None:
            text = f"{'✗ ' if conflict else ''}{labels[image] or 'no label'}"
            sheet.text(x, top + SIDE + 14, text, size=6.6, color=edge or colors.QUIET, width=SIDE - 4)
    below = top + SIDE + (25 if labelled else 14)
    share = f"{numeral(result.ratios[place])} of its scale" if result.distances[place] else "the same features"
    sheet.text(left, below, f"{share}, distance {numeral(result.distances[place])}", size=6.6, color=colors.QUIET)


def _chart(ax: Axes, result: NearDuplicates) -> None:
    """A histogram of the nearest distances as shares of the scale; orange below the threshold."""
    edges = np.linspace(0, 1, BINS + 1)
    clipped = np.clip(result.nearest, 0, 1)
    affected = np.zeros(len(clipped), bool)
    affected[result.affected] = True
    base = np.zeros(BINS)
    for chosen, color in ((affected, colors.WRONG), (~affected, colors.BAR)):
        counts = np.histogram(clipped[chosen], edges)[0]
        # By the square root: a few pairs must not vanish beside the many images that have none.
        tops = np.sqrt(base**2 + counts)
        ax.bar(edges[:-1], tops - base, bottom=base, width=0.9 / BINS, align="edge", color=color, linewidth=0)
        base = tops
    highest = max(float(base.max(initial=0)), 1.0)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, highest * 1.08)
    wanted = [1, 5, 20, 100, 500, 2000, 10_000, 50_000, 200_000, 1_000_000]
    marks = [count for count in wanted if np.sqrt(count) <= highest]
    style_chart(
        ax,
        x_ticks=nice_ticks(0, 1, 10),
        y_ticks={float(np.sqrt(count)): f"{count:,}" for count in marks[-3:]},
        x_label="distance of the nearest image, as a share of the scale",
        y_label="images",
        grid="y",
    )
    ax.axvline(result.threshold, color=colors.WRONG, linewidth=0.9)
    write(ax, result.threshold + 0.005, highest, f"threshold {numeral(result.threshold)}", size=7, color=colors.WRONG)
