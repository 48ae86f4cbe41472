"""A two-dimensional embedding in, a scatter plot out: one point per image, coloured by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxviz.errors import InputError
from onnxviz.pictures import colors
from onnxviz.pictures.dispatch import plot
from onnxviz.pictures.sheet import Sheet, figure_of, legend, style_chart, write
from onnxviz.pictures.text import elide, numeral, plural
from onnxviz.results import Embedding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NAMED = 20
# The second ten classes repeat the colours with another marker.
MARKERS = ("o", "^")


@plot.register(Embedding)
def _plot_embedding(
    result: Embedding,
    ax: Axes | None = None,
    *,
    point_size: float | None = None,
) -> Figure:
    """Draw the points; up to 20 classes get a legend, more a colour bar. ``point_size`` is a diameter in points."""
    coordinates = np.asarray(result.coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != 2:
        raise InputError(
            "an embedding is drawn from coordinates (images, 2)",
            where="result.coordinates",
            got=str(coordinates.shape),
            next_step="Pass what embed() returned",
        )
    if point_size is not None and not 0 < point_size <= 100:
        raise InputError(
            "no such point size", where="point_size", got=str(point_size), allowed="0 to 100 points",
            next_step="Pass a diameter in that range",
        )  # fmt: skip
    groups = _groups(result, len(coordinates))
    if ax is not None:
        _draw(ax, result, coordinates, groups, point_size)
        _inset_legend(ax, groups)
        return figure_of(ax, result.provenance, "")
    named = len(groups) > 1 or (bool(groups) and groups[0][2] != "")
    lost = int(len(coordinates) - np.isfinite(coordinates).all(axis=1).sum())
    sheet = Sheet(
        720 + (200 if named else 0),
        720 if result.method != "pca" else 750,
        title="PCA of the features" if result.method == "pca" else "t-SNE of the features",
        subtitle=[plural(len(coordinates), "image"), _quality(result)],
        provenance=result.provenance,
        value=str(result.provenance.parameters.get("value") or ""),
        notes=[
            "Only neighbourhoods mean something in a t-SNE map: sizes of clusters and distances between them do not."
            if result.method == "tsne"
            else "",
            f"{plural(lost, 'point')} without finite coordinates, not drawn." if lost else "",
        ],
    )
    chart = sheet.axes(30 if result.method == "pca" else 0, 0, 690 if result.method == "pca" else 720, 720)
    _draw(chart, result, coordinates, groups, point_size)
    if named and len(groups) <= MOST_NAMED + 1:
        legend(sheet, 742, 4, 178, [(paint, marker, f"{name}  ({len(rows):,})") for paint, marker, name, rows in groups],
               size=8)  # fmt: skip
    elif named:
        ramp = colors.colorize(np.linspace(0, 1, 256)[None, :], "viridis", 0, 1)
        highest = float(np.max(result.classes)) if result.classes is not None else 0.0
        sheet.color_bar(742, 8, 170, colors_name="viridis", low=0, high=highest, label="class number", ramp=ramp)
        sheet.text(742, 52, f"{plural(len(groups), 'class', 'classes')}", size=8, color=colors.QUIET)
    return sheet.figure


Group = tuple[str, str, str, NDArray[np.intp]]


def _groups(result: Embedding, images: int) -> list[Group]:
    """(colour, marker, name, rows) for each class that occurs, ascending; unlabelled images last."""
    if result.classes is None:
        return [(colors.BAR, "o", "", np.arange(images))]
    numbers = [int(number) for number in np.unique(result.classes) if number >= 0]
    groups: list[Group] = []
    highest = max(numbers, default=0)
    for rank, number in enumerate(numbers):
        known = result.class_names is not None and number < len(result.class_names)
        name = result.class_names[number] if known and result.class_names is not None else f"class {number}"
        if len(numbers) <= MOST_NAMED:
            paint = colors.CATEGORIES[rank % len(colors.CATEGORIES)]
            marker = MARKERS[rank // len(colors.CATEGORIES) % len(MARKERS)]
        else:
            red, green, blue = colors.colorize(np.array(number), "viridis", 0, highest).tolist()
            paint, marker = f"#{red:02x}{green:02x}{blue:02x}", "o"
        groups.append((paint, marker, name, np.flatnonzero(result.classes == number)))
    unknown = np.flatnonzero(np.asarray(result.classes) < 0)
    return groups + ([("#c4cad1", "o", "unlabelled", unknown)] if len(unknown) else [])


def _quality(result: Embedding) -> str:
    if result.method == "pca" and result.explained_variance_ratio is not None:
        both = float(np.sum(result.explained_variance_ratio))
        return f"two components hold {100 * both:.1f} % of the variance, trustworthiness {numeral(result.trustworthiness)}"
    return f"trustworthiness {numeral(result.trustworthiness)} (0.5 chance, 1 every neighbourhood real)"


def _draw(
    ax: Axes, result: Embedding, coordinates: NDArray[np.float64], groups: list[Group], point_size: float | None
) -> None:
    finite = np.isfinite(coordinates).all(axis=1)
    ratio = result.explained_variance_ratio
    shares = [f"principal component {1 + axis}" + (f"  ({100 * ratio[axis]:.1f} % of the variance)" if ratio is not None else "")
              for axis in range(2)]
    pca = result.method == "pca"
    style_chart(ax, x_label=shares[0] if pca else "", y_label=shares[1] if pca else "")
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(colors.RULE)
    kept = coordinates[finite]
    if not len(kept):
        write(ax, 0.5, 0.5, "no points", color=colors.QUIET, align="center", inside=False)
        return
    low, high = kept.min(axis=0), kept.max(axis=0)
    reach = float((high / 2 - low / 2).max()) * 1.06
    reach = reach if reach > 0 and np.isfinite(reach) else 1.0
    middle = low / 2 + high / 2
    ax.set_xlim(middle[0] - reach, middle[0] + reach)
    ax.set_ylim(middle[1] - reach, middle[1] + reach)
    ax.set_aspect("equal", adjustable="box")
    diameter = point_size or float(np.clip(160 / np.sqrt(len(kept)), 1.6, 8))
    # One drawing in image order, so that no class hides another because of its number.
    order = np.concatenate([rows for *_, rows in groups]) if groups else np.zeros(0, dtype=np.intp)
    paint = np.empty(len(coordinates), dtype=object)
    for color, _, _, rows in groups:
        paint[rows] = color
    for marker in MARKERS:
        members = [rows for _, shape, _, rows in groups if shape == marker]
        rows = np.sort(np.concatenate(members)) if members else order[:0]
        rows = rows[finite[rows]]
        ax.scatter(
            coordinates[rows, 0],
            coordinates[rows, 1],
            s=diameter**2,
            c=list(paint[rows]) or None,
            marker=marker,
            alpha=0.82,
            linewidths=0,
            edgecolors="none",
        )


def _inset_legend(ax: Axes, groups: list[Group]) -> None:
    if len(groups) <= 1 or len(groups) > MOST_NAMED + 1:
        return
    inset = ax.inset_axes((1.02, 0, 0.4, 1))
    inset.set_axis_off()
    inset.set_xlim(0, 1)
    inset.set_ylim(1, 0)
    for row, (paint, marker, name, _) in enumerate(groups):
        at = 0.025 + row * 0.047
        inset.plot([0.05], [at], marker=marker, color=paint, markersize=5, linestyle="None", markeredgewidth=0)
        write(inset, 0.13, at, elide(name, 110, 6.5), size=6.5)
